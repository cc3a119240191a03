package index

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// memory is a Reader over rows in a map.
type memory map[string][]byte

func (m memory) apply(rows []ledger.Write) {
	for _, r := range rows {
		if r.Value == nil {
			delete(m, string(r.Key))
		} else {
			m[string(r.Key)] = r.Value
		}
	}
}

func (m memory) Get(key []byte) ([]byte, error) { return m[string(key)], nil }

func (m memory) Range(start, end []byte, reverse bool, fn func(key, value []byte) error) error {
	var keys []string
	for k := range m {
		if k >= string(start) && k < string(end) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if reverse {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		if err := fn([]byte(k), m[k]); err != nil {
			return err
		}
	}
	return nil
}

func TestRowsAndBack(t *testing.T) {
	m := memory{}
	hash := func(b []byte) crypto.Hash { return sha256.Sum256(b) }
	line := ledger.LineKey{Account: crypto.Address{1}, Asset: ledger.AssetID{2}}
	next := ledger.LineKey{Account: crypto.Address{1}, Asset: ledger.AssetID{3}}
	txs := []Tx{{Raw: []byte("one"), Data: []byte("receipt")}, {Raw: []byte("refused"), Code: uint32(ledger.SequenceUsed)}, {Raw: []byte("failed"), Code: uint32(ledger.InsufficientFunds), Data: []byte{1}}}
	ids := []crypto.Hash{{1}, {1}, {3}} // the refused one is a copy of the first
	hashes := []crypto.Hash{hash([]byte("one")), hash([]byte("one")), hash([]byte("failed"))}
	entries := []ledger.LineEntry{{Line: line, Number: 1, Encoded: []byte("a")}, {Line: line, Number: 2, Encoded: []byte("b")}, {Line: next, Number: 1, Encoded: []byte("c")}}
	m.apply(Rows(7, txs, ids, hashes, entries))
	m.apply(Rows(8, []Tx{{Raw: []byte("later")}}, []crypto.Hash{{8}}, []crypto.Hash{{9}}, nil))

	for i, want := range []Position{{7, 0}, {7, 0}, {7, 2}} {
		at, ok, err := ByID(m, ids[i])
		if err != nil || !ok || at != want {
			t.Errorf("id %d is at %+v, %t, %v", i, at, ok, err)
		}
		if at, ok, err := ByHash(m, hashes[i]); err != nil || !ok || at != want {
			t.Errorf("hash %d is at %+v, %t, %v", i, at, ok, err)
		}
	}
	if _, ok, err := ByID(m, crypto.Hash{99}); ok || err != nil {
		t.Errorf("an unknown id: %t, %v", ok, err)
	}
	block, err := Block(m, 7)
	if err != nil || len(block) != len(txs) {
		t.Fatalf("%d transactions, %v", len(block), err)
	}
	for i, tx := range block {
		if !bytes.Equal(tx.Raw, txs[i].Raw) || tx.Code != txs[i].Code || !bytes.Equal(tx.Data, txs[i].Data) {
			t.Errorf("transaction %d is %+v", i, tx)
		}
	}
	if none, err := Block(m, 9); err != nil || len(none) != 0 {
		t.Errorf("a block without transactions: %v, %v", none, err)
	}
	for _, c := range []struct {
		from  uint64
		limit int
		want  string
	}{{1, 10, "ab"}, {0, 10, "ab"}, {2, 10, "b"}, {3, 10, ""}, {1, 1, "a"}, {1, 0, ""}, {1<<64 - 1, 10, ""}} {
		got, err := Entries(m, line, 0, c.from, 2, c.limit)
		if err != nil || string(bytes.Join(got, nil)) != c.want {
			t.Errorf("entries from %d, at most %d: %q, %v", c.from, c.limit, got, err)
		}
	}
}

// TestSearchRows: movements are found by what they carry, in pages, and a block that is undone leaves nothing behind.
func TestSearchRows(t *testing.T) {
	m := memory{}
	asset := ledger.AssetID{2}
	a, b := ledger.LineKey{Account: crypto.Address{1}, Asset: asset}, ledger.LineKey{Account: crypto.Address{9}, Asset: asset}
	reference, hold := ledger.Reference{5}, crypto.Hash{6}
	numbers := map[ledger.LineKey]uint64{}
	entry := func(k ledger.LineKey, e ledger.Entry) ledger.LineEntry {
		numbers[k]++
		e.Number = numbers[k]
		return ledger.LineEntry{Line: k, Number: e.Number, Encoded: e.Encode(), Noted: e.Noted()}
	}
	block := func(height uint64, entries ...ledger.Entry) {
		var both []ledger.LineEntry
		for _, e := range entries {
			e.Height = height
			debit, credit := e, e
			credit.Credit = true
			both = append(both, entry(a, debit), entry(b, credit))
		}
		m.apply(Rows(height, nil, nil, nil, both))
	}
	block(3, ledger.Entry{Kind: ledger.EntryTransfer, Amount: ledger.Units(1), Reference: reference, Code: 7}, ledger.Entry{Kind: ledger.EntryTransfer, Amount: ledger.Units(2)})
	before := len(m)
	block(300, ledger.Entry{Kind: ledger.EntryHold, Amount: ledger.Units(3), Reference: reference, Code: 7, Hold: hold},
		ledger.Entry{Kind: ledger.EntryClawback, Amount: ledger.Units(4), Code: 8}, ledger.Entry{Kind: ledger.EntryPost, Amount: ledger.Units(5), Reference: reference, Code: 7, Hold: hold},
		ledger.Entry{Kind: ledger.EntryRefund, Amount: ledger.Units(6), Hold: hold})
	find := func(s query.Search) (found []uint64) {
		t.Helper()
		for {
			hits, err := Search(m, s)
			if err != nil {
				t.Fatal(err)
			}
			if len(hits.Entries) > int(s.Limit) {
				t.Fatalf("%d hits, at most %d", len(hits.Entries), s.Limit)
			}
			for _, h := range hits.Entries {
				e, err := ledger.DecodeEntry(h.Encoded)
				if err != nil || e.Number != h.Number {
					t.Fatalf("entry %d: %+v, %v", h.Number, e, err)
				}
				n, _ := e.Amount.Uint64()
				found = append(found, n)
			}
			if s.After = hits.Next; s.After == nil {
				return found
			}
		}
	}
	check := func(when string, s query.Search, want ...uint64) {
		t.Helper()
		for _, limit := range []uint32{1, 2, 100} {
			if s.Limit = limit; !slices.Equal(find(s), want) {
				t.Errorf("%s: %+v finds %v, want %v", when, s, find(s), want)
			}
		}
	}
	check("both", query.Search{By: query.ByReference, Reference: reference}, 1, 3)
	check("both", query.Search{By: query.ByReference, Reference: ledger.Reference{4}})
	check("both", query.Search{By: query.ByHold, Hold: hold}, 3, 5)
	check("both", query.Search{By: query.ByCode, Account: a.Account, Code: 7}, 1, 3)
	check("both", query.Search{By: query.ByCode, Account: b.Account, Code: 8}, 4)
	check("both", query.Search{By: query.ByCode, Account: crypto.Address{2}, Code: 7})
	if _, err := Search(m, query.Search{By: query.ByHold, Hold: hold, Limit: 1, After: []byte{1}}); !errors.Is(err, ErrCursor) {
		t.Errorf("a cursor that is none: %v", err)
	}
	undo, err := Undo(m, 300, crypto.Hash{})
	if err != nil {
		t.Fatal(err)
	}
	m.apply(undo)
	if len(m) != before {
		t.Errorf("%d rows after the undo, %d before the block", len(m), before)
	}
	check("undone", query.Search{By: query.ByReference, Reference: reference}, 1)
	check("undone", query.Search{By: query.ByHold, Hold: hold})
}

// TestOversized: bytes that are too long for the store's rows are left out, and nothing is proven from their block.
func TestOversized(t *testing.T) {
	m := memory{}
	huge := make([]byte, 3<<20)
	rows := Rows(5, []Tx{{Raw: []byte("good")}, {Raw: huge, Code: uint32(ledger.Malformed)}}, make([]crypto.Hash, 2), make([]crypto.Hash, 2), nil)
	for _, r := range rows {
		if len(r.Value) > 1<<20 {
			t.Errorf("a row of %d bytes", len(r.Value))
		}
	}
	m.apply(rows)
	undo, err := Undo(m, 5, crypto.Hash{})
	if err != nil || len(undo) != 2 {
		t.Errorf("%d rows to undo, %v", len(undo), err)
	}
	if _, err := Block(m, 5); !errors.Is(err, ErrOmitted) {
		t.Errorf("got %v, want ErrOmitted", err)
	}
}

func TestTornRows(t *testing.T) {
	m := memory{string(append([]byte{rowID}, make([]byte, 32)...)): {1, 2, 3}, string(append([]byte{rowTx}, appendPosition(nil, Position{1, 0})...)): []byte("torn")}
	if _, _, err := ByID(m, crypto.Hash{}); err == nil {
		t.Error("a torn position is taken")
	}
	if _, err := Block(m, 1); err == nil {
		t.Error("a torn transaction is taken")
	}
}
