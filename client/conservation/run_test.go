package conservation_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/client/conservation"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

var alice, bob = clienttest.Signer("alice"), clienttest.Signer("bob")

func dial(t *testing.T, n *clienttest.Node) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Options{Genesis: n.Chain.Doc, Nodes: []string{n.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send commits one operation of alice.
func send(t *testing.T, c *client.Client, op ledger.Operation) {
	t.Helper()
	b, err := c.Build(t.Context(), client.Intent{Signers: []crypto.Address{alice.Address()}, Known: []crypto.Policy{alice.Policy()}, Operations: []ledger.Operation{op}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sign(alice); err != nil {
		t.Fatal(err)
	}
	raw, err := b.Raw()
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Send(t.Context(), raw, b.Before)
	if err != nil || f.Receipt.Code != ledger.OK {
		t.Fatalf("%+v: %v", f.Receipt, err)
	}
}

// TestRun: after real transactions the books of a chain are in order, at every height; a planted line is found from its
// height on, by the asset it belongs to only.
func TestRun(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "audit", alice.Address())
	chain.Run(5 * time.Millisecond)
	c := dial(t, chain.Serve())
	send(t, c, &ledger.CreateAsset{Code: "EUR", Scale: 2, MaxSupply: ledger.Units(1_000_000)})
	eur := ledger.NewAssetID(alice.Address(), "EUR")
	send(t, c, &ledger.Transfer{To: bob.Address(), Asset: eur, Amount: ledger.Units(12_345)})
	send(t, c, &ledger.CreateHold{To: bob.Address(), Asset: eur, Amount: ledger.Units(55), Expires: uint64(time.Now().Unix()) + 3600, PostBy: 1, VoidBy: 1})
	r, err := conservation.Run(t.Context(), c, conservation.Options{})
	if err != nil || !r.OK() || len(r.Assets) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	a, p := r.Assets[0], r.Assets[1]
	if a.Name() != "EUR" || a.Format(a.Supply) != "123.45" || a.Format(a.Sum) != "123.45" || a.Lines != 1 || a.Holders != 1 || a.Format(a.Held) != "0.55" || a.OpenHolds != 1 {
		t.Errorf("EUR: %+v", a)
	}
	if p.Name() != "PAC" || p.Format(p.Supply) != "1000.000000" || p.Lines != 3 || p.Holders != 3 || p.Pool.Sign() <= 0 || p.Pool.Cmp(p.Deposits) != 0 { // alice, the collector, the pool
		t.Errorf("PAC: %+v", p)
	}
	clean := r.Height
	// One unit in a line of nobody's, as only a defect or validators that all lie could put there.
	row := chain.Rows()[string(ledger.LineRow(ledger.LineKey{Account: bob.Address(), Asset: eur}))]
	chain.Write(ledger.Write{Key: ledger.LineRow(ledger.LineKey{Account: crypto.Address{7}, Asset: eur}), Value: []byte(row)})
	planted := chain.Height() + 2
	r, err = conservation.Run(t.Context(), c, conservation.Options{Walk: client.WalkOptions{Height: planted}})
	if err != nil || r.OK() || len(r.Assets) != 2 || r.Height != planted {
		t.Fatalf("planted: %+v, %v", r, err)
	}
	if f := r.Assets[1].Findings; len(f) != 1 || f[0].Name != conservation.PoolShort { // the line says that somebody paid a deposit for it
		t.Errorf("planted: PAC: %v", f)
	}
	if f := r.Assets[0].Findings; len(f) != 3 || f[0].Name != conservation.Unbalanced || !strings.Contains(f[0].Message, "is 123.45, but the lines hold 246.90") {
		t.Errorf("planted: %v", f)
	}
	for _, o := range []conservation.Options{{Code: "PAC", Walk: client.WalkOptions{Height: clean}}, {Walk: client.WalkOptions{Height: clean}}, {Code: "EUR", Walk: client.WalkOptions{Height: clean}}} {
		if r, err := conservation.Run(t.Context(), c, o); err != nil || !r.OK() || o.Code != "" && (len(r.Assets) != 1 || r.Assets[0].Name() != o.Code) {
			t.Errorf("%+v: %+v, %v", o, r, err)
		}
	}
	if r, err := conservation.Run(t.Context(), c, conservation.Options{Code: "EUR"}); err != nil || r.OK() {
		t.Errorf("EUR alone: %+v, %v", r, err)
	}
	if _, err := conservation.Run(t.Context(), c, conservation.Options{Code: "GBP"}); !errors.Is(err, conservation.ErrNoAsset) {
		t.Errorf("an asset that does not exist: %v", err)
	}
}

// TestRunPruned: when the height goes during the walk, the audit begins anew, once, unless the height was asked for.
func TestRunPruned(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "pruned", alice.Address())
	for range 5 {
		chain.Block()
	}
	n := chain.Serve()
	c := dial(t, n)
	var asked atomic.Int64
	gone := func(times int64) {
		asked.Store(0)
		n.Lie(clienttest.Lies{Answer: func(r *abci.RequestQuery, a *abci.ResponseQuery) {
			if r.Path == query.TreePath("s9") && asked.Add(1) <= times {
				*a = abci.ResponseQuery{Code: query.Pruned, Codespace: query.Codespace, Log: "height is pruned"}
			}
		}})
	}
	restarts := 0
	o := conservation.Options{Restarted: func(uint64) { restarts++; chain.Block() }}
	gone(1)
	if r, err := conservation.Run(t.Context(), c, o); err != nil || !r.OK() || restarts != 1 || r.Height != chain.Height()-1 {
		t.Errorf("once: %+v, %v, %d restarts", r, err, restarts)
	}
	gone(2)
	if _, err := conservation.Run(t.Context(), c, o); !errors.Is(err, client.ErrPruned) || restarts != 2 {
		t.Errorf("twice: %v, %d restarts", err, restarts)
	}
	gone(1)
	o.Walk.Height = 3
	if _, err := conservation.Run(t.Context(), c, o); !errors.Is(err, client.ErrPruned) || restarts != 2 {
		t.Errorf("at a height that was asked for: %v, %d restarts", err, restarts)
	}
	n.Lie(clienttest.Lies{Answer: func(r *abci.RequestQuery, a *abci.ResponseQuery) {
		if r.Path == query.TreePath("s9") {
			a.Value[len(a.Value)-1] ^= 1
		}
	}})
	if _, err := conservation.Run(t.Context(), c, conservation.Options{}); !errors.Is(err, proof.ErrInvalid) || !strings.Contains(err.Error(), n.URL) {
		t.Errorf("a node that lies: %v", err)
	}
}
