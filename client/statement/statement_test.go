package statement_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/client/statement"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

var (
	alice, bob = clienttest.Signer("alice"), clienttest.Signer("bob")
	pac        = ledger.NewAssetID(clienttest.Signer("bank").Address(), "PAC")
	names      = map[crypto.Address]string{alice.Address(): "alice", bob.Address(): "bob"}
)

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, nodes ...*clienttest.Node) *client.Client {
	t.Helper()
	o := client.Options{Genesis: nodes[0].Chain.Doc}
	for _, n := range nodes {
		o.Nodes = append(o.Nodes, n.URL)
	}
	c, err := client.Dial(soon(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// world is a chain on which alice has paid bob, in transactions of one transfer for each amount.
type world struct {
	*clienttest.Chain
	*clienttest.Node
}

func newWorld(t *testing.T) *world {
	t.Helper()
	chain := clienttest.New(t, "statement", alice.Address())
	return &world{chain, chain.Serve()}
}

// do makes a block with one transaction, and one behind it that proves it, and returns the transaction's id.
func (w *world) do(t *testing.T, by *client.Keys, ops ...ledger.Operation) crypto.Hash {
	t.Helper()
	c := dial(t, w.Node)
	b, err := c.Build(soon(t), client.Intent{Signers: []crypto.Address{by.Address()}, Known: []crypto.Policy{by.Policy()}, Sequence: true, Operations: ops})
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
	w.Put(raw)
	w.Block()
	w.Block()
	if f, found, err := c.Find(soon(t), b.ID()); err != nil || !found || f.Receipt.Code != ledger.OK {
		t.Fatalf("%s: %v, %v, %v", client.Summary(b.Body()), f.Receipt.Code, found, err)
	}
	return b.ID()
}

// pay makes alice pay bob.
func (w *world) pay(t *testing.T, amounts ...uint64) {
	t.Helper()
	var ops []ledger.Operation
	for i, a := range amounts {
		ops = append(ops, &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(a), Memo: fmt.Sprintf("memo %d", i), Code: 5})
	}
	w.do(t, alice, ops...)
}

func request() statement.Request {
	return statement.Request{Account: bob.Address(), Asset: "PAC", Memos: true, Names: names}
}

func read(t *testing.T, c *client.Client, r statement.Request) (*statement.Statement, []statement.Entry) {
	t.Helper()
	s, err := statement.Read(soon(t), c, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var entries []statement.Entry
	for e, err := range s.Entries(soon(t)) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if s.Count != uint64(len(entries)) {
		t.Errorf("%d entries are counted, %d are there", s.Count, len(entries))
	}
	// The statement adds up by itself.
	balance := new(big.Int).Set(s.Opening.Balance)
	for i, e := range entries {
		if balance.Add(balance, e.Amount); balance.Cmp(e.Balance) != 0 || e.Number != s.Opening.Mark.Entries+uint64(i)+1 {
			t.Errorf("entry %d, number %d: balance %s, sum %s", i, e.Number, e.Balance, balance)
		}
	}
	if balance.Cmp(s.Closing.Balance) != 0 || s.Closing.Mark.Entries-s.Opening.Mark.Entries != s.Count {
		t.Errorf("the closing balance is %s, the sum %s", s.Closing.Balance, balance)
	}
	return s, entries
}

// The statement is what happened, from any head to any other, and says what it rests on.
func TestRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pay(t, 1, 2)
	w.pay(t, 40)
	w.pay(t, 500)
	c := dial(t, w.Node)
	s, entries := read(t, c, request())
	if s.Opening.Origin != statement.Beginning || s.Closing.Origin != statement.State || s.Closing.Balance.Int64() != 543 || len(entries) != 4 || s.Scale != 6 || s.Name != "bob" {
		t.Fatalf("%+v, %d entries", s, len(entries))
	}
	for i, want := range []int64{1, 2, 40, 500} {
		e := entries[i]
		headers, err := c.Headers().Past(soon(t), []uint64{e.Height})
		if err != nil || !headers[0].Time.Equal(e.Time) {
			t.Errorf("entry %d is of %s, its block of %v (%v)", i, e.Time, headers, err)
		}
		if e.Amount.Int64() != want || e.Name != "alice" || e.Kind != "transfer" || e.Memo != fmt.Sprintf("memo %d", []int{0, 1, 0, 0}[i]) || e.Code != 5 || e.TxID == (crypto.Hash{}) {
			t.Errorf("entry %d: %+v", i, e)
		}
	}

	// All periods of heights, against the entries that they must have.
	last := s.Last
	for first := uint64(1); first <= last; first++ {
		for end := first; end <= last; end++ {
			r := request()
			r.First, r.Last, r.Memos = statement.Bound{Height: first}, statement.Bound{Height: end}, false
			part, got := read(t, c, r)
			want := slices.DeleteFunc(slices.Clone(entries), func(e statement.Entry) bool { return e.Height < first || e.Height > end })
			if len(got) != len(want) || len(got) > 0 && got[0].Number != want[0].Number || part.Opening.Origin == statement.Cut || part.Closing.Origin == statement.Cut {
				t.Errorf("blocks %d to %d: %d entries from %s to %s, want %d", first, end, len(got), part.Opening.Origin, part.Closing.Origin, len(want))
			}
			line, err := c.Line(soon(t), ledger.LineKey{Account: bob.Address(), Asset: pac}, end)
			if err != nil || part.Closing.Mark != client.MarkOf(line.Value) {
				t.Errorf("block %d: closing %+v, the line has %+v", end, part.Closing.Mark, line.Value)
			}
		}
	}

	// Times: the block of a time is in, on both sides.
	r := request()
	r.First, r.Last = statement.Bound{Time: entries[2].Time}, statement.Bound{Time: entries[2].Time.Add(1)}
	if part, got := read(t, c, r); len(got) != 1 || got[0].Number != 3 || part.First != entries[2].Height || part.Last != entries[2].Height {
		t.Errorf("at the time of entry 3: blocks %d to %d, %d entries", part.First, part.Last, len(got))
	}
	r.First, r.Last = statement.Bound{Time: entries[2].Time.Add(1)}, statement.Bound{Time: entries[2].Time.Add(2)}
	if part, got := read(t, c, r); len(got) != 0 || part.First != part.Last+1 || part.Opening.Balance.Cmp(part.Closing.Balance) != 0 {
		t.Errorf("between two blocks: blocks %d to %d, %d entries", part.First, part.Last, len(got))
	}
	r.First, r.Last = statement.Bound{}, statement.Bound{Time: time.Now().AddDate(1, 0, 0)}
	if part, got := read(t, c, r); len(got) != 4 || part.Last != last {
		t.Errorf("up to next year: %d entries to height %d", len(got), part.Last)
	}
	for _, b := range [][2]statement.Bound{{{Height: 3}, {Height: 2}}, {{}, {Height: last + 1}}, {{Height: last + 5}, {}}, {{Time: time.Now().AddDate(1, 0, 0)}, {}}, {{}, {Time: time.Now().AddDate(-1, 0, 0)}}} {
		r.First, r.Last = b[0], b[1]
		if _, err := statement.Read(soon(t), c, r); err == nil {
			t.Errorf("period %+v is read", b)
		}
	}
	// The issuer's line is below zero since genesis.
	r = statement.Request{Account: clienttest.Signer("bank").Address(), Asset: "PAC"}
	if part, got := read(t, c, r); len(got) != 1 || got[0].Kind != "genesis" || part.Closing.Balance.Sign() >= 0 || !got[0].Time.Equal(w.Doc.GenesisTime) {
		t.Errorf("the issuer: %+v", got)
	}
}

// What is only pending has amount 0; a post moves what it moves and not what the hold was.
func TestHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pay(t, 10_000_000)
	until := uint64(time.Now().Add(time.Hour).Unix())
	hold := &ledger.CreateHold{To: bob.Address(), Asset: pac, Amount: ledger.Units(700), Reference: ledger.Reference{7}, Code: 9, Memo: "escrow", Expires: until,
		PostBy: ledger.ByReceiver, VoidBy: ledger.ByReceiver}
	posted, voided := ledger.HoldID(w.do(t, alice, hold, hold), 0), crypto.Hash{}
	c := dial(t, w.Node)
	_, entries := read(t, c, request())
	voided = ledger.HoldID(entries[len(entries)-1].TxID, 1)
	w.do(t, bob, &ledger.PostHold{Hold: posted, Amount: ledger.Units(300)}, &ledger.VoidHold{Hold: voided})
	s, entries := read(t, c, request())
	var got []string
	for _, e := range entries {
		if e.Kind != "fee" {
			got = append(got, fmt.Sprintf("%s %s %s %s %v %q %q %d", e.Kind, e.Amount, e.PendingIn, e.PendingOut, e.Hold == posted || e.Hold == voided, e.Memo, e.Reference, e.Code))
		}
	}
	const reference = "07000000000000000000000000000000"
	want := []string{`transfer 10000000 0 0 false "memo 0" "" 5`, `hold 0 700 0 true "escrow" "` + reference + `" 9`, `hold 0 700 0 true "escrow" "` + reference + `" 9`,
		`post 300 -700 0 true "" "` + reference + `" 9`, `void 0 -700 0 true "" "` + reference + `" 9`}
	// Deposits of rows stand between them and are checked by the sums.
	got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "deposit") || strings.HasPrefix(line, "refund") })
	if !slices.Equal(got, want) || s.Closing.PendingIn.Sign() != 0 {
		t.Errorf("bob's entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r := request()
	r.Account = alice.Address()
	_, entries = read(t, c, r)
	for _, e := range entries {
		switch e.Kind {
		case "hold":
			if e.Amount.Sign() != 0 || e.PendingOut.Int64() != 700 {
				t.Errorf("the holder's entry is %+v", e)
			}
		case "post":
			if e.Amount.Int64() != -300 || e.PendingOut.Int64() != -700 {
				t.Errorf("the holder's entry is %+v", e)
			}
		}
	}
}

// A line that is closed and opened again has two journals: no statement passes one for both.
func TestClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pay(t, 100_000_000)
	eur := ledger.NewAssetID(alice.Address(), "EUR")
	give := func(n uint64) {
		w.do(t, alice, &ledger.Transfer{To: bob.Address(), Asset: eur, Amount: ledger.Units(n)})
	}
	w.do(t, alice, &ledger.CreateAsset{Code: "EUR", Scale: 2, MaxSupply: ledger.Units(1000)})
	give(5)
	w.do(t, bob, &ledger.Transfer{To: alice.Address(), Asset: eur, Amount: ledger.Units(5)})
	c := dial(t, w.Node)
	r := statement.Request{Account: bob.Address(), Asset: "EUR"}
	first, _ := read(t, c, r)
	if first.Earlier || first.Count != 2 {
		t.Errorf("before closing: %+v", first)
	}
	w.do(t, bob, &ledger.CloseLine{Asset: eur, To: bob.Address()})
	between := w.Height() // the block after the one that closed it
	closes := func(after string) {
		t.Helper()
		_, err := statement.Read(soon(t), c, r)
		closed, ok := errors.AsType[*statement.Closed](err)
		if !ok || !errors.Is(err, statement.ErrClosed) {
			t.Fatalf("%s: %v", after, err)
		}
		// What it says is where the line was last there.
		last, err := c.Line(soon(t), ledger.LineKey{Account: bob.Address(), Asset: eur}, closed.Height-1)
		if err != nil || !last.Present || last.Value.Entries != 2 {
			t.Errorf("%s: closed at height %d, the line before: %+v, %v", after, closed.Height, last, err)
		}
		if now, err := c.Line(soon(t), ledger.LineKey{Account: bob.Address(), Asset: eur}, closed.Height); err != nil || now.Present {
			t.Errorf("%s: closed at height %d, the line then: %+v, %v", after, closed.Height, now, err)
		}
	}
	closes("after closing")
	// An account without closed lines, and one that only closed another, have statements without entries.
	r.Account = crypto.Address{9}
	if s, entries := read(t, c, r); s.Earlier || len(entries) != 0 || !s.Proof.Missing {
		t.Errorf("never there: %+v", s)
	}
	w.do(t, alice, &ledger.CreateAsset{Code: "USD", Scale: 2, MaxSupply: ledger.Units(1000)})
	r.Account, r.Asset = bob.Address(), "USD"
	if s, entries := read(t, c, r); !s.Earlier || len(entries) != 0 || !s.Proof.Missing {
		t.Errorf("another was closed: %+v", s)
	}
	r.Asset = "EUR"
	give(7)
	s, entries := read(t, c, r)
	if !s.Earlier || len(entries) != 1 || s.Closing.Balance.Int64() != 7 || !strings.Contains(s.Summary(), "closed lines") {
		t.Errorf("opened again: %+v", s)
	}
	r.First = statement.Bound{Height: between}
	if s, entries := read(t, c, r); s.Earlier || len(entries) != 1 {
		t.Errorf("from between on: %+v", s)
	}
	r.First = statement.Bound{Height: first.Last}
	if _, err := statement.Read(soon(t), c, r); !errors.Is(err, statement.ErrClosed) {
		t.Errorf("over the closing: %v", err)
	}
	r.Last = statement.Bound{Height: between}
	if _, err := statement.Read(soon(t), c, r); !errors.Is(err, statement.ErrClosed) {
		t.Errorf("to after the closing: %v", err)
	}
	r.First, r.Last = statement.Bound{}, statement.Bound{Height: first.Last}
	if s, entries := read(t, c, r); s.Earlier || len(entries) != 2 {
		t.Errorf("the first journal, afterwards: %+v", s)
	}
}

// entriesLie changes the journal entries that a node answers.
func entriesLie(change func([][]byte) [][]byte) clienttest.Lies {
	return clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if q.Path == query.PathEntries {
			entries, err := query.DecodeEntries(a.Value)
			if err != nil {
				panic(err)
			}
			if len(entries) >= 4 { // what is asked for afterwards is answered as it is
				entries = change(entries)
			}
			a.Value = query.EncodeEntries(entries)
		}
	}}
}

// altered changes an entry in the middle.
func altered(change func(*ledger.Entry)) func([][]byte) [][]byte {
	return func(entries [][]byte) [][]byte {
		i := len(entries) / 2
		e, err := ledger.DecodeEntry(entries[i])
		if err != nil {
			panic(err)
		}
		change(&e)
		entries[i] = e.Encode()
		return entries
	}
}

// Whatever a node does to the journal, there is no statement, and the error names it; an honest node beside it gives one.
func TestLies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pay(t, 1, 2, 3, 4)
	w.pay(t, 5)
	liar, honest := w.Serve(), w.Serve()
	renumbered := func(entries [][]byte) [][]byte {
		for i := range entries {
			e, _ := ledger.DecodeEntry(entries[i])
			e.Number = uint64(i) + 1
			entries[i] = e.Encode()
		}
		return entries
	}
	for name, change := range map[string]func([][]byte) [][]byte{
		"dropped":             func(e [][]byte) [][]byte { return slices.Delete(e, 1, 2) },
		"dropped, renumbered": func(e [][]byte) [][]byte { return renumbered(slices.Delete(e, 1, 2)) },
		"swapped":             func(e [][]byte) [][]byte { e[1], e[2] = e[2], e[1]; return e },
		"swapped, renumbered": func(e [][]byte) [][]byte { e[1], e[2] = e[2], e[1]; return renumbered(e) },
		"amount":              altered(func(e *ledger.Entry) { e.Amount = ledger.Units(99) }),
		"counters":            altered(func(e *ledger.Entry) { e.CreditsPosted = ledger.Units(99) }),
		"counterparty":        altered(func(e *ledger.Entry) { e.Counterparty = bob.Address() }),
		"height":              altered(func(e *ledger.Entry) { e.Height-- }),
		"kind":                altered(func(e *ledger.Entry) { e.Kind = ledger.EntryFee }),
		"truncated":           func(e [][]byte) [][]byte { return e[:len(e)-1] },
		"nothing":             func([][]byte) [][]byte { return nil },
		"extra":               func(e [][]byte) [][]byte { return append(e, e[len(e)-1]) },
		"extra, renumbered":   func(e [][]byte) [][]byte { return renumbered(append(e, e[len(e)-1])) },
		"repeated":            func(e [][]byte) [][]byte { return append(e[:1], e...) },
		"garbage":             func(e [][]byte) [][]byte { e[0] = []byte{0xff}; return e },
		"trailing byte":       func(e [][]byte) [][]byte { e[0] = append(slices.Clone(e[0]), 0); return e },
	} {
		stop := name == "truncated" // an honest node may also send a part and then the rest; here the rest never comes
		lie := entriesLie(change)
		if stop {
			inner := lie.Answer
			lie.Answer = func(q *abci.RequestQuery, a *abci.ResponseQuery) {
				if _, _, from, _, ok := query.ParseEntriesData(q.Data); q.Path == query.PathEntries && ok && from > 1 {
					a.Value = nil
					return
				}
				inner(q, a)
			}
		}
		liar.Lie(lie)
		_, err := statement.Read(soon(t), dial(t, liar), request())
		if err == nil || !strings.Contains(err.Error(), liar.URL) || !strings.Contains(err.Error(), "journal") {
			t.Errorf("%s: %v, want an error that names %s", name, err, liar.URL)
		}
		if s, entries := read(t, dial(t, liar, honest), request()); len(entries) != 5 || s.Closing.Balance.Int64() != 15 {
			t.Errorf("%s: with an honest node %d entries, balance %s", name, len(entries), s.Closing.Balance)
		}
	}
	// A row that is older, or another account's, is no line to fold to.
	liar.Lie(clienttest.Lies{Question: func(q *abci.RequestQuery) {
		if bytes.Equal(q.Data, ledger.LineRow(ledger.LineKey{Account: bob.Address(), Asset: pac})) {
			q.Data = ledger.LineRow(ledger.LineKey{Account: alice.Address(), Asset: pac})
		}
	}})
	if _, err := statement.Read(soon(t), dial(t, liar), request()); err == nil {
		t.Error("another account's line is taken")
	}
	// Memos prove themselves: a transaction of another id is refused, one that is not there leaves them out.
	liar.Lie(clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if q.Path == query.PathTx {
			a.Code = query.NotFound
		}
	}})
	if _, entries := read(t, dial(t, liar), request()); entries[0].Memo != "" {
		t.Errorf("memo %q from nowhere", entries[0].Memo)
	}
	_, entries := read(t, dial(t, honest), request())
	other := entries[4].TxID
	liar.Lie(clienttest.Lies{Question: func(q *abci.RequestQuery) {
		if q.Path == query.PathTx {
			q.Data = other[:]
		}
	}})
	s, err := statement.Read(soon(t), dial(t, liar), request())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, format := range statement.Formats {
		if err := s.Write(soon(t), new(bytes.Buffer), format); err == nil || !strings.Contains(err.Error(), liar.URL) {
			t.Errorf("%s with another transaction's memo: %v", format, err)
		}
	}
}

// Nodes that no longer keep old states give the same statement, cut from the whole journal, and it says so.
func TestPruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, amount := range []uint64{1, 20, 300, 4000} {
		w.pay(t, amount)
	}
	c := dial(t, w.Node)
	_, all := read(t, c, request())
	r := request()
	r.First, r.Last = statement.Bound{Height: all[1].Height}, statement.Bound{Height: all[2].Height}
	whole, kept := read(t, c, r)
	lowest := int64(0)
	w.Lie(clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if strings.HasPrefix(q.Path, "/store/") && q.Height != 0 && q.Height < lowest {
			*a = abci.ResponseQuery{Code: query.Pruned, Codespace: query.Codespace, Log: "height is pruned"}
		}
	}})
	for _, c := range []struct {
		lowest           uint64
		opening, closing statement.Origin
	}{{all[1].Height, statement.Cut, statement.State}, {all[3].Height, statement.Cut, statement.Cut}} {
		lowest = int64(c.lowest)
		s, entries := read(t, dial(t, w.Node), r)
		if s.Opening.Origin != c.opening || s.Closing.Origin != c.closing || len(entries) != len(kept) || entries[0].TxID != kept[0].TxID ||
			s.Opening.Mark != whole.Opening.Mark || s.Closing.Mark != whole.Closing.Mark || s.Opening.Balance.Cmp(whole.Opening.Balance) != 0 {
			t.Errorf("pruned below %d: %+v, want as %+v", c.lowest, s, whole)
		}
		if !strings.Contains(s.Summary(), "cut behind height") || strings.Contains(whole.Summary(), "cut") {
			t.Errorf("it says %q", s.Summary())
		}
	}
}

// A journal that does not stay in memory, of several pages, is the same.
func TestLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	amounts := make([]uint64, 1000)
	for i := range amounts {
		amounts[i] = uint64(i) + 1
	}
	const txs = 11
	for range txs {
		w.pay(t, amounts...)
	}
	r := request()
	told := uint64(0)
	r.Progress = func(_ string, done, total uint64) {
		if total != txs*1000 || done > total {
			t.Errorf("%d of %d", done, total)
		}
		told++
	}
	s, entries := read(t, dial(t, w.Node), r)
	if len(entries) != txs*1000 || s.Closing.Balance.Int64() != txs*500500 || told < 2*txs || entries[10999].Memo != "memo 999" {
		t.Errorf("%d entries, balance %s, %d reports", len(entries), s.Closing.Balance, told)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range s.Entries(soon(t)) {
		if err != nil {
			return
		}
	}
	t.Error("a closed statement is read without an error")
}
