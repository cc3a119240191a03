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
			MaxHoldSeconds: 3600, MaxExpiries: 10, MaxFeeMultiplier: 1000, BondSeconds: 1},
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

// TestConsensusParams: a genesis file whose parameters of CometBFT would end the chain one day is refused.
func TestConsensusParams(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*types.ConsensusParams)
		want   string // "": it is taken
	}{
		"as made":         {func(*types.ConsensusParams) {}, ""},
		"without ml-dsa":  {func(p *types.ConsensusParams) { p.Validator.PubKeyTypes = p.Validator.PubKeyTypes[:1] }, "pub_key_types"},
		"vote extensions": {func(p *types.ConsensusParams) { p.ABCI.VoteExtensionsEnableHeight = 9 }, "vote_extensions_enable_height"},
		"small blocks":    {func(p *types.ConsensusParams) { p.Block.MaxBytes, p.Evidence.MaxBytes = 512<<10, 1<<10 }, "block.max_bytes"},
		"much evidence":   {func(p *types.ConsensusParams) { p.Evidence.MaxBytes = p.Block.MaxBytes }, "block.max_bytes"},
		"the largest":     {func(p *types.ConsensusParams) { p.Block.MaxBytes = -1 }, ""},
		"half as large":   {func(p *types.ConsensusParams) { p.Block.MaxBytes = 2 << 20 }, ""},
	} {
		doc, err := New("chain", at, validators(t), state())
		if err != nil {
			t.Fatal(err)
		}
		c.change(doc.ConsensusParams)
		path := filepath.Join(t.TempDir(), "genesis.json")
		if err := Save(doc, path); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestShortBond: no network begins with bonds that are free before the evidence against which they stand.
func TestShortBond(t *testing.T) {
	for _, c := range []struct {
		bond    uint64
		seconds uint32
		ok      bool
	}{{0, 1, true}, {1, 1, false}, {1, EvidenceHours*3600 - 1, false}, {1, EvidenceHours * 3600, true}} {
		s := state()
		s.Parameters.Bond, s.Parameters.BondSeconds = c.bond, c.seconds
		if _, err := New("chain", at, validators(t), s); (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "want at least 1814400") {
			t.Errorf("bond %d for %d seconds: %v", c.bond, c.seconds, err)
		}
	}
}

// TestEvidenceFits: the largest evidence that the largest set can leave has room in a block.
func TestEvidenceFits(t *testing.T) {
	var list []*types.Validator
	commit := &types.Commit{Height: 1 << 40, BlockID: types.BlockID{Hash: make([]byte, 32), PartSetHeader: types.PartSetHeader{Total: 1, Hash: make([]byte, 32)}}}
	for range ledger.MaxValidators {
		key, err := mldsa65.GenPrivKey()
		if err != nil {
			t.Fatal(err)
		}
		v := types.NewValidator(key.PubKey(), ledger.MaxValidatorPower)
		list = append(list, v)
		commit.Signatures = append(commit.Signatures, types.CommitSig{BlockIDFlag: types.BlockIDFlagCommit, ValidatorAddress: v.Address, Timestamp: at, Signature: make([]byte, mldsa65.SignatureSize)})
	}
	header := &types.Header{ChainID: strings.Repeat("c", 50), Height: 1 << 40, Time: at, ValidatorsHash: make([]byte, 32), NextValidatorsHash: make([]byte, 32), ConsensusHash: make([]byte, 32), AppHash: make([]byte, 32),
		LastResultsHash: make([]byte, 32), EvidenceHash: make([]byte, 32), DataHash: make([]byte, 32), LastCommitHash: make([]byte, 32), ProposerAddress: make([]byte, 20), LastBlockID: commit.BlockID}
	evidence := &types.LightClientAttackEvidence{ConflictingBlock: &types.LightBlock{SignedHeader: &types.SignedHeader{Header: header, Commit: commit}, ValidatorSet: types.NewValidatorSet(list)},
		CommonHeight: 1, ByzantineValidators: list, TotalVotingPower: ledger.MaxValidatorPower * ledger.MaxValidators, Timestamp: at}
	size := len(evidence.Bytes())
	if size > MaxEvidenceBytes {
		t.Errorf("%d bytes, and a block takes %d", size, MaxEvidenceBytes)
	}
	t.Logf("%d bytes", size)
}
