package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// net1 is a network of one validator, with a funded account.
type net1 struct {
	home    Home
	config  Config
	doc     *types.GenesisDoc
	network ledger.Network
	key     crypto.PrivateKey
	policy  crypto.Policy
	asset   ledger.AssetID
	bank    crypto.Address
}

func quick() Config {
	c := DefaultConfig()
	c.RPC.Listen, c.P2P.Listen = "127.0.0.1:0", "127.0.0.1:0"
	c.Consensus.IdleBlockInterval, c.Consensus.TimeoutPropose = Duration(100*time.Millisecond), Duration(time.Second)
	c.Store.CacheMB, c.Store.TreeCacheNodes = 8, 10_000
	return c
}

func newNet(t *testing.T, keyType string, extra ...types.GenesisValidator) *net1 {
	t.Helper()
	n := &net1{home: Home(t.TempDir()), config: quick()}
	v, err := NewHome(n.home, n.config, keyType)
	if err != nil {
		t.Fatal(err)
	}
	account := func(name string) (crypto.PrivateKey, crypto.Policy) {
		seed := sha256.Sum256([]byte(name))
		key, err := crypto.NewPrivateKey(crypto.Ed25519, seed[:])
		if err != nil {
			t.Fatal(err)
		}
		p, err := crypto.SingleKey(crypto.Ed25519, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return key, p
	}
	n.key, n.policy = account("alice")
	_, bank := account("bank")
	_, fees := account("fees")
	n.bank = bank.Address()
	n.asset = ledger.NewAssetID(n.bank, "EUR")
	p := ledger.Parameters{MaxTxBytes: 128 << 10, ReplayWindowSeconds: 600, MaxOpenNonces: 1 << 20, FeeBase: 1, MaxHoldSeconds: 3600, MaxExpiries: 10, MaxFeeMultiplier: 1000, BondSeconds: 1}
	n.doc, err = genesis.New("one", time.Now().Add(-time.Second), append(extra, v), ledger.GenesisState{
		Parameters: p.Genesis("EUR", fees.Address()),
		Assets:     []ledger.GenesisAsset{{Code: "EUR", Issuer: n.bank, Scale: 2, MaxSupply: "1000000"}},
		Accounts:   []ledger.GenesisAccount{{Address: n.policy.Address(), Balances: []ledger.GenesisBalance{{Asset: "EUR", Amount: "1000"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.network, err = genesis.NetworkOf(n.doc); err != nil {
		t.Fatal(err)
	}
	if err := genesis.Save(n.doc, n.home.Genesis()); err != nil {
		t.Fatal(err)
	}
	return n
}

// signed returns a transaction that alice has signed.
func (n *net1) signed(t *testing.T, b ledger.Body) []byte {
	t.Helper()
	raw := b.Encode()
	signature, err := n.key.Sign(ledger.Preimage(n.network.ID, raw, 0))
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Assemble(raw, []ledger.Witness{{Signature: signature}}, nil)
}

func (n *net1) pay(t *testing.T, sequence uint64) []byte {
	t.Helper()
	b := ledger.Body{MaxFee: ledger.Units(1000), Signers: []ledger.Signer{{Address: n.policy.Address(), Sequence: sequence, Policy: n.policy.Encode()}},
		Operations: []ledger.Operation{&ledger.Transfer{To: n.bank, Asset: n.asset, Amount: ledger.Units(1)}}}
	return n.signed(t, b)
}

// height returns the height that the node's blocks have, while it does not run.
func (n *net1) height(t *testing.T) int64 {
	t.Helper()
	databases := cometdb.Provider(n.home.Data(), cometdb.Options{Logger: slog.New(slog.DiscardHandler)})
	defer databases.Close()
	blocks, _, err := openComet(databases)
	if err != nil {
		t.Fatal(err)
	}
	return blocks.Height()
}

// running is a node that runs in this process.
type running struct {
	t    *testing.T
	url  string
	stop context.CancelFunc
	done chan error
}

func (n *net1) start(t *testing.T) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, stop: cancel, done: make(chan error, 1)}
	ready := make(chan string, 1)
	go func() {
		r.done <- Run(ctx, n.home, n.config, slog.New(slog.DiscardHandler), "test", func(a string) { ready <- a })
	}()
	select {
	case a := <-ready:
		r.url = "http://" + a
	case err := <-r.done:
		cancel()
		t.Fatalf("the node does not start: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the node does not start in time")
	}
	t.Cleanup(cancel)
	return r
}

// end waits for Run to return.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("the node does not stop in time")
		return nil
	}
}

func (r *running) get(path string) (int, Health) {
	r.t.Helper()
	res, err := http.Get(r.url + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var h Health
	if err := json.NewDecoder(res.Body).Decode(&h); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, h
}

func (r *running) post(raw []byte, contentType string) (int, Submission) {
	r.t.Helper()
	res, err := http.Post(r.url+"/v1/transactions", contentType, bytes.NewReader(raw))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var s Submission
	if err := json.Unmarshal(text, &s); err != nil {
		r.t.Fatalf("%s: %s", err, text)
	}
	return res.StatusCode, s
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for begin := time.Now(); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// runs fails the test if a node starts, and returns why it did not.
func refuses(t *testing.T, n *net1, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := Run(ctx, n.home, n.config, slog.New(slog.DiscardHandler), "test", func(string) { cancel() })
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, want an error with %q", err, words)
	}
}

func TestRun(t *testing.T) {
	n := newNet(t, KeyMLDSA65)
	r := n.start(t)
	until(t, "first block", func() bool { status, _ := r.get("/startupz"); return status == 200 })
	for _, path := range []string{"/livez", "/readyz"} {
		if status, h := r.get(path); status != 200 || !h.OK || h.Height == 0 || len(h.Reasons) != 0 {
			t.Errorf("%s: %d %+v", path, status, h)
		}
	}
	refuses(t, n, "in use by another process")

	const octets = "application/octet-stream"
	raw := n.pay(t, 1)
	status, s := r.post(raw, octets)
	if status != 200 || s.Code != ledger.OK || len(s.ID) != 64 {
		t.Fatalf("%d %+v", status, s)
	}
	// The same bytes again are welcome at any moment: while they wait, while they are committed, and after.
	until(t, "commit", func() bool {
		status, again := r.post(raw, octets)
		if status != 200 || again.ID != s.ID {
			t.Fatalf("again: %d %+v", status, again)
		}
		return again.Height > 0
	})
	bad := n.pay(t, 3)
	bad[len(bad)-1] ^= 1
	for name, c := range map[string]struct {
		raw    []byte
		kind   string
		status int
		code   ledger.Code
	}{
		"bad signature":  {bad, octets, 422, ledger.SignatureInvalid},
		"used sequence":  {respent(t, n), octets, 422, ledger.SequenceUsed},
		"garbage":        {[]byte("garbage"), octets, 422, ledger.Malformed},
		"nothing":        {nil, octets, 422, ledger.Malformed},
		"too large":      {make([]byte, ledger.MaxTxBytes+1), octets, 413, ledger.TooLarge},
		"far too large":  {make([]byte, 8<<20), octets, 413, ledger.TooLarge},
		"other type":     {raw, "application/json", 415, ledger.Malformed},
		"without a type": {n.pay(t, 2), "", 200, ledger.OK},
	} {
		if status, s := r.post(c.raw, c.kind); status != c.status || s.Code != c.code || s.Retry {
			t.Errorf("%s: %d %+v, want %d and code %s", name, status, s, c.status, c.code)
		}
	}
	_, before := r.get("/livez")
	r.stop()
	if err := r.end(); err != nil {
		t.Fatalf("a clean stop: %v", err)
	}

	r = n.start(t)
	until(t, "next block", func() bool { _, h := r.get("/livez"); return h.Height > before.Height })
	if status, again := r.post(raw, octets); status != 200 || again.Height == 0 || again.ID != s.ID {
		t.Errorf("after a restart: %d %+v", status, again)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}

	t.Run("other genesis", func(t *testing.T) {
		other := *n.doc
		other.ChainID = "two"
		if err := genesis.Save(&other, n.home.Genesis()); err != nil {
			t.Fatal(err)
		}
		refuses(t, n, "belongs to chain one")
		if err := genesis.Save(n.doc, n.home.Genesis()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("lost sign state", func(t *testing.T) {
		text, err := os.ReadFile(n.home.SignState())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(n.home.SignState()); err != nil {
			t.Fatal(err)
		}
		refuses(t, n, "is missing beside the validator's key")
		for _, bad := range []string{"", "{}", "[]", `{"height":"5"}`, `{"height":5,"round":0,"step":0}`, `{"height":"-1","round":0,"step":0}`, `null`} {
			if err := os.WriteFile(n.home.SignState(), []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			refuses(t, n, filepath.Base(n.home.SignState()))
		}
		// One from a backup: the blocks since are signed by this key, and this node does not know of it.
		if err := os.WriteFile(n.home.SignState(), []byte(`{"height":"0","round":0,"step":0}`), 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t, n, "pacioli validator reset-sign-state")
		// As that command does it, where no chain has to be waited for: the key signs nothing at or below the height.
		height := n.height(t)
		if err := n.home.ResetSignState(func() (int64, error) { return height + 3, nil }); err != nil {
			t.Fatal(err)
		}
		if pv, err := n.home.loadValidator(); err != nil || pv.LastSignState.Height != height+3 || pv.LastSignState.Step != 3 {
			t.Fatalf("the sign state is %+v, %v", pv, err)
		}
		if err := n.home.ResetSignState(func() (int64, error) { return height + 2, nil }); err == nil || !strings.Contains(err.Error(), "never goes back") {
			t.Fatalf("a lower height: %v", err)
		}
		if err := os.WriteFile(n.home.SignState(), text, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("failing application", func(t *testing.T) {
		atStart = func(n *Node) { _ = n.app.Store().Close() } // FinalizeBlock fails from here on
		defer func() { atStart = nil }()
		r := n.start(t)
		begin := time.Now()
		if err := r.end(); err == nil || !strings.Contains(err.Error(), "store is closed") {
			t.Fatalf("Run returns %v", err)
		}
		if took := time.Since(begin); took > stopPatience+5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	// And all is well again.
	r = n.start(t)
	_, before = r.get("/livez")
	until(t, "next block", func() bool { _, h := r.get("/livez"); return h.Height > before.Height+1 })
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

// respent makes another payment with the sequence of the first.
func respent(t *testing.T, n *net1) []byte {
	b := ledger.Body{MaxFee: ledger.Units(999), Signers: []ledger.Signer{{Address: n.policy.Address(), Sequence: 1}},
		Operations: []ledger.Operation{&ledger.Transfer{To: n.bank, Asset: n.asset, Amount: ledger.Units(2)}}}
	return n.signed(t, b)
}

// TestExchangedGenesis: whoever starts with a draft of the genesis file and puts the final one there is told that CometBFT
// has kept the draft.
func TestExchangedGenesis(t *testing.T) {
	away, err := NewHome(Home(t.TempDir()), quick(), KeyEd25519)
	if err != nil {
		t.Fatal(err)
	}
	n := newNet(t, KeyEd25519, away) // half of the power is away: no block
	r := n.start(t)
	if status, h := r.get("/readyz"); status != 503 || h.OK || len(h.Reasons) == 0 {
		t.Errorf("ready without a block: %d %+v", status, h)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	n.doc.GenesisTime = n.doc.GenesisTime.Add(time.Millisecond)
	if err := genesis.Save(n.doc, n.home.Genesis()); err != nil {
		t.Fatal(err)
	}
	refuses(t, n, "has changed since this node was first started")
}
