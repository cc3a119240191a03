package client_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// does builds a transaction of an account, simulates it, sends it, and compares: without blocks of others in between the
// receipt is the simulated one.
func does(t *testing.T, c *client.Client, by *client.Keys, operations ...ledger.Operation) client.Final {
	t.Helper()
	b, err := c.Build(soon(t), client.Intent{Signers: []crypto.Address{by.Address()}, Known: []crypto.Policy{by.Policy()}, Operations: operations})
	if err != nil {
		t.Fatal(err)
	}
	told, err := c.Simulate(soon(t), b.Rehearsal())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sign(by); err != nil {
		t.Fatal(err)
	}
	raw, err := b.Raw()
	if err != nil {
		t.Fatal(err)
	}
	if signed, err := ledger.Decode(b.Rehearsal()); err != nil || len(b.Rehearsal()) != len(raw) || signed.Witnesses[0].Signature[0] != 0 {
		t.Fatalf("a rehearsal of %d bytes for a transaction of %d, %v", len(b.Rehearsal()), len(raw), err)
	}
	f, err := c.Send(soon(t), raw, b.Before)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.Receipt, told.Receipt) {
		t.Fatalf("simulated %+v, done %+v", told.Receipt, f.Receipt)
	}
	return f
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "simulate", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	f := does(t, c, alice, &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(5_000_000)}) // with deposits for an account and a line
	if f.Receipt.Deposit.IsZero() {
		t.Error("no deposit was taken")
	}
	if f := does(t, c, bob, &ledger.Transfer{To: alice.Address(), Asset: pac, Amount: ledger.MaxAmount}); f.Receipt.Code != ledger.InsufficientFunds {
		t.Errorf("code %s", f.Receipt.Code)
	}
	raw, _ := signed(t, c, pay(1))
	before := n.Submitted()
	for range 3 {
		if _, err := c.Simulate(soon(t), raw); err != nil {
			t.Fatal(err)
		}
	}
	if n.Submitted() != before || balance(t, c, bob.Address()) == "0.000000" {
		t.Error("a simulation was sent")
	}
	if _, err := c.Simulate(soon(t), []byte{1}); err == nil {
		t.Error("garbage is simulated")
	}
	other, _ := signed(t, c, pay(2))
	otherTx, _ := ledger.Decode(other)
	for name, lie := range map[string]func(q *abci.RequestQuery, a *abci.ResponseQuery){
		"garbage": func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Value = []byte{1} },
		"nothing": func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Value = nil },
		"another transaction": func(_ *abci.RequestQuery, a *abci.ResponseQuery) {
			a.Value = query.Simulation{Height: 9, Receipt: ledger.Receipt{TxID: otherTx.ID(c.NetworkID().ID)}}.Encode()
		},
	} {
		n.Lie(clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
			if q.Path == query.PathSimulate {
				lie(q, a)
			}
		}})
		if s, err := c.Simulate(soon(t), raw); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestCompleteLists: lines, grants and holds are all there, at one height, and a node that leaves one out or makes one up
// is found out.
func TestCompleteLists(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "lists", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	until := uint64(time.Now().Add(time.Hour).Unix())
	var made []ledger.Operation
	for i := range 3 {
		made = append(made, &ledger.CreateAsset{Code: fmt.Sprintf("AS%d", i), Scale: 2, MaxSupply: ledger.Units(1000)},
			&ledger.SetGrant{Grantee: crypto.Address{byte(i + 1)}, For: ledger.KindTransfer, Asset: pac, Total: ledger.Units(5), Until: until})
	}
	does(t, c, alice, append(made, &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(5_000_000)})...)
	hold := func(amount uint64) *ledger.CreateHold {
		return &ledger.CreateHold{To: bob.Address(), Asset: pac, Amount: ledger.Units(amount), Expires: until, PostBy: ledger.ByReceiver, Reference: ledger.Reference{1}, Code: 7}
	}
	holds := does(t, c, alice, hold(1), hold(2), hold(3)).Receipt.Results
	does(t, c, bob, &ledger.PostHold{Hold: holds[1].Hold})

	lines, err := c.Lines(soon(t), alice.Address(), 0)
	if err != nil || len(lines.Rows) != 4 || lines.Height == 0 {
		t.Fatalf("lines %+v, %v", lines, err)
	}
	for _, l := range lines.Rows {
		if p, err := c.Line(soon(t), l.Key, lines.Height); err != nil || p.Value != l.Line {
			t.Errorf("line %x: %+v, %v, listed as %+v", l.Key.Asset, p.Value, err, l.Line)
		}
	}
	grants, err := c.Grants(soon(t), alice.Address(), 0)
	if err != nil || len(grants.Rows) != 3 || grants.Rows[2].Key.Grantee != (crypto.Address{3}) || grants.Rows[2].Grant.Total != ledger.Units(5) {
		t.Errorf("grants %+v, %v", grants, err)
	}
	for _, who := range []*client.Keys{alice, bob} {
		open, err := c.Holds(soon(t), who.Address())
		if err != nil || len(open.Rows) != 2 || open.Rows[0].ID != holds[0].Hold || open.Rows[1].ID != holds[2].Hold || open.Rows[1].Hold.Amount != ledger.Units(3) {
			t.Errorf("holds of %s: %+v, %v", who.Address(), open, err)
		}
	}
	if none, err := c.Grants(soon(t), bob.Address(), 0); err != nil || len(none.Rows) != 0 {
		t.Errorf("bob's grants: %+v, %v", none, err)
	}

	lie := func(change func(keys [][]byte) [][]byte) {
		n.Lie(clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
			if q.Path == query.PathLines || q.Path == query.PathGrants {
				keys, _ := query.DecodeEntries(a.Value)
				a.Value = query.EncodeKeys(change(keys))
			}
		}})
	}
	for name, change := range map[string]func(keys [][]byte) [][]byte{
		"one left out":   func(keys [][]byte) [][]byte { return keys[1:] },
		"all left out":   func([][]byte) [][]byte { return nil },
		"one twice":      func(keys [][]byte) [][]byte { return append(keys[:1:1], keys...) },
		"other order":    func(keys [][]byte) [][]byte { slices.Reverse(keys); return keys },
		"one cut off":    func(keys [][]byte) [][]byte { keys[0] = keys[0][:20]; return keys },
		"another's line": func(keys [][]byte) [][]byte { keys[0] = ledger.LineRow(ledger.LineKey{Asset: pac}); return keys },
	} {
		lie(change)
		if l, err := c.Lines(soon(t), alice.Address(), 0); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
		if g, err := c.Grants(soon(t), alice.Address(), 0); err == nil {
			t.Errorf("%s: %+v", name, g)
		}
	}
	lie(func(keys [][]byte) [][]byte { // a line that is not there does no harm
		return append(keys, ledger.LineRow(ledger.LineKey{Account: alice.Address(), Asset: ledger.AssetID(slices.Repeat([]byte{0xff}, 16))}))
	})
	if l, err := c.Lines(soon(t), alice.Address(), 0); err != nil || len(l.Rows) != 4 {
		t.Errorf("with one made up: %+v, %v", l, err)
	}
	// Where there is nothing, nobody is believed that there is something, or asked.
	if l, err := c.Lines(soon(t), crypto.Address{9}, 0); err != nil || len(l.Rows) != 0 {
		t.Errorf("lines of nobody: %+v, %v", l, err)
	}
}

// TestSearch: what is found is proven, and what is made up is an error.
func TestSearch(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "search", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	reference := ledger.Reference{7}
	paid := func(amount uint64) *ledger.Transfer {
		return &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(amount), Reference: reference, Code: 9}
	}
	does(t, c, alice, paid(5_000_000), paid(2))
	made := does(t, c, alice, &ledger.CreateHold{To: bob.Address(), Asset: pac, Amount: ledger.Units(3), Expires: uint64(time.Now().Add(2 * time.Second).Unix()), PostBy: ledger.ByReceiver})
	hold := made.Receipt.Results[0].Hold
	find := func(s query.Search) string {
		t.Helper()
		var text []string
		for {
			found, next, err := c.Search(soon(t), s)
			if err != nil {
				return "error: " + err.Error()
			}
			for _, f := range found {
				if !f.Proven {
					text = append(text, "unproven")
				}
				text = append(text, fmt.Sprint(f.Entry.Kind, " ", f.Entry.Amount, " ", f.Final != nil))
			}
			if s.After = next; next == nil {
				return strings.Join(text, ", ")
			}
		}
	}
	byReference, byHold := query.Search{By: query.ByReference, Reference: reference, Limit: 1}, query.Search{By: query.ByHold, Hold: hold}
	if got := find(byReference); got != "transfer 5000000 true, transfer 2 true" {
		t.Errorf("by reference: %s", got)
	}
	for _, who := range []*client.Keys{alice, bob} {
		if got := find(query.Search{By: query.ByCode, Account: who.Address(), Code: 9}); got != "transfer 5000000 true, transfer 2 true" {
			t.Errorf("by code: %s", got)
		}
	}
	if got := find(query.Search{By: query.ByReference, Reference: ledger.Reference{8}}); got != "" {
		t.Errorf("by a reference that nobody used: %s", got)
	}
	chain.Advance(10 * time.Second)
	for began := time.Now(); find(byHold) != "hold 3 true, expire 3 false"; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("by hold: %s", find(byHold))
		}
	}

	// A node's entry that differs from what happened in any way is an error.
	for name, change := range map[string]func(e *ledger.LineEntry, entry *ledger.Entry){
		"amount":      func(_ *ledger.LineEntry, e *ledger.Entry) { e.Amount = ledger.Units(99) },
		"receiver":    func(_ *ledger.LineEntry, e *ledger.Entry) { e.Counterparty = crypto.Address{1} },
		"account":     func(l *ledger.LineEntry, _ *ledger.Entry) { l.Line.Account = crypto.Address{1} },
		"asset":       func(l *ledger.LineEntry, _ *ledger.Entry) { l.Line.Asset = ledger.AssetID{1} },
		"side":        func(_ *ledger.LineEntry, e *ledger.Entry) { e.Credit = true },
		"kind":        func(_ *ledger.LineEntry, e *ledger.Entry) { e.Kind = ledger.EntryClawback },
		"reference":   func(_ *ledger.LineEntry, e *ledger.Entry) { e.Reference = ledger.Reference{1} },
		"operation":   func(_ *ledger.LineEntry, e *ledger.Entry) { e.Operation += 1 << 20 },
		"height":      func(_ *ledger.LineEntry, e *ledger.Entry) { e.Height++ },
		"transaction": func(_ *ledger.LineEntry, e *ledger.Entry) { e.TxID = made.ID },
		"no such one": func(_ *ledger.LineEntry, e *ledger.Entry) { e.TxID = crypto.Hash{1} },
		"by no one":   func(_ *ledger.LineEntry, e *ledger.Entry) { e.TxID = crypto.Hash{} },
		"other hold":  func(_ *ledger.LineEntry, e *ledger.Entry) { e.Hold = crypto.Hash{1} },
		"expired hold": func(_ *ledger.LineEntry, e *ledger.Entry) {
			e.Kind, e.TxID, e.Hold = ledger.EntryExpire, crypto.Hash{}, hold
		},
	} {
		n.Lie(clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
			if q.Path != query.PathSearch {
				return
			}
			hits, err := query.DecodeHits(a.Value)
			if err != nil || len(hits.Entries) == 0 {
				return
			}
			l := hits.Entries[0]
			entry, _ := ledger.DecodeEntry(l.Encoded)
			change(&l, &entry)
			l.Encoded = entry.Encode()
			a.Value = query.Hits{Entries: []ledger.LineEntry{l}}.Encode()
		}})
		_, _, err := c.Search(soon(t), byReference)
		if err == nil || !errors.Is(err, proof.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := c.Search(soon(t), byHold); err == nil && name != "transaction" { // which made the hold
			t.Errorf("%s, by hold: it is taken", name)
		}
	}
}
