package genesis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	"github.com/cometbft/cometbft/crypto/secp256k1"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func state() ledger.GenesisState {
	return ledger.GenesisState{
		Parameters: ledger.GenesisParameters{MaxTxBytes: 4096, ReplayWindowSeconds: 600, MaxOpenNonces: 10, FeeAsset: "EUR", FeeCollector: crypto.Address{2},
			MaxHoldSeconds: 3600, MaxExpiries: 10, MaxFeeMultiplier: 1000},
		Assets: []ledger.GenesisAsset{{Code: "EUR", Issuer: crypto.Address{1}, Scale: 2, MaxSupply: "10"}},
	}
}

func validators(t *testing.T) []types.GenesisValidator {
	pq, err := mldsa65.GenPrivKey()
	if err != nil {
		t.Fatal(err)
	}
	return []types.GenesisValidator{{PubKey: ed25519.GenPrivKey().PubKey(), Power: 3}, {PubKey: pq.PubKey(), Power: 4}}
}

var at = time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("x", 3600))

// TestSaveLoad: a genesis is the same network after it was written and read, on every reading.
func TestSaveLoad(t *testing.T) {
	doc, err := New("chain", at, validators(t), state())
	if err != nil {
		t.Fatal(err)
	}
	if doc.GenesisTime.Nanosecond() != 678_000_000 || doc.GenesisTime.Location() != time.UTC {
		t.Errorf("time %s", doc.GenesisTime)
	}
	want, err := NetworkOf(doc)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config", "genesis.json")
	if err := Save(doc, path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		read, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := NetworkOf(read); err != nil || got != want {
			t.Errorf("read as %+v, %v, was %+v", got, err, want)
		}
	}
	if _, err := Load(path + "x"); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestRefused(t *testing.T) {
	doc, err := New("chain", at, validators(t), state())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "genesis.json")
	if err := Save(doc, path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"no time":        {`"genesis_time": "2026-01-02T02:04:05.678Z",`, ``},
		"year 1":         {`2026-01-02T02:04:05.678Z`, `0001-01-01T00:00:00Z`},
		"before 1970":    {`2026-01-02T02:04:05.678Z`, `1969-12-31T23:59:59Z`},
		"after 2262":     {`2026-01-02T02:04:05.678Z`, `2300-01-01T00:00:00Z`},
		"no chain":       {`"chain_id": "chain"`, `"chain_id": ""`},
		"minus height":   {`"initial_height": "1"`, `"initial_height": "-1"`},
		"no power":       {`"power": "3"`, `"power": "0"`},
		"minus power":    {`"power": "3"`, `"power": "-3"`},
		"no key":         {`"pub_key"`, `"pub_kee"`},
		"unknown key":    {`"parameters"`, `"parameterz"`},
		"other issuer":   {`"max_supply": "10"`, `"max_supply": "ten"`},
		"no JSON at all": {`{`, `(`},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			t.Errorf("%s: %s is not in the file", name, change[0])
			continue
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New("chain", at, []types.GenesisValidator{{PubKey: secp256k1.GenPrivKey().PubKey(), Power: 1}}, state()); err == nil {
		t.Error("a validator key that the ledger does not know")
	}
	if _, err := New("chain", at, nil, state()); err == nil {
		t.Error("no validators")
	}
}
