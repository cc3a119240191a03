package client_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// written is a chain whose blocks also write random rows below the ledger, so that trees get leaves and shapes of many
// versions. It returns all rows of the trees as they stand at the height before the last.
func written(t testing.TB, blocks, writes int) (*clienttest.Chain, map[string]string) {
	t.Helper()
	chain := clienttest.New(t, "walk", alice.Address())
	r := rand.New(rand.NewSource(5))
	for range blocks {
		var w []ledger.Write
		for range writes {
			key := ledger.LineKey{Asset: ledger.AssetID{9}}
			binary.BigEndian.PutUint32(key.Account[:], uint32(r.Intn(2*blocks*writes))*2654435761)
			value := make([]byte, 2+r.Intn(150))
			r.Read(value)
			value[0] = 1
			if r.Intn(12) == 0 {
				value = nil
			}
			w = append(w, ledger.Write{Key: ledger.LineRow(key), Value: value})
		}
		chain.Write(w...)
		chain.Block()
	}
	rows := chain.Rows()
	chain.Block()
	return chain, rows
}

func walkAll(t testing.TB, c *client.Client, o client.WalkOptions, want map[string]string) client.Walked {
	t.Helper()
	seen := map[string]string{}
	tree, last := -1, []byte(nil)
	w, err := c.Walk(t.Context(), o, func(key, value []byte) error {
		if at := ledger.PlaceOf(key); at != tree {
			if at < tree {
				t.Errorf("tree %d comes behind tree %d", at, tree)
			}
			tree, last = at, nil
		}
		if bytes.Compare(last, key) >= 0 {
			t.Errorf("key %x comes behind %x", key, last)
		}
		last = bytes.Clone(key)
		seen[string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(want) || w.Rows != uint64(len(want)) {
		t.Fatalf("%d rows seen, %d by the report, want %d", len(seen), w.Rows, len(want))
	}
	for k, v := range want {
		if seen[k] != v {
			t.Fatalf("row %x is %x, want %x", k, seen[k], v)
		}
	}
	return w
}

// TestWalk: a walk over 20,000 rows of random history sees every row, whatever the size and number of pages.
func TestWalk(t *testing.T) {
	t.Parallel()
	chain, rows := written(t, 9, 3500)
	if len(rows) < 20_000 {
		t.Fatalf("only %d rows", len(rows))
	}
	c := dial(t, chain.Serve())
	for _, o := range []client.WalkOptions{{}, {Pages: 1, PageLeaves: 300}, {Pages: 16, PageLeaves: 90, Height: chain.Height() - 1}} {
		var done, total, calls uint64
		o.Progress = func(d, all uint64) {
			if d < done || d > all || total != 0 && all != total {
				t.Errorf("progress %d of %d behind %d of %d", d, all, done, total)
			}
			done, total = d, all
			calls++
		}
		w := walkAll(t, c, o, rows)
		if w.Height != chain.Height()-1 || !bytes.Equal(w.AppHash, chain.Header(chain.Height()).AppHash) || done != w.Rows || total != w.Rows || calls < ledger.TreeCount {
			t.Errorf("%+v, progress %d of %d in %d calls", w, done, total, calls)
		}
		t.Logf("%d rows in %d pages", w.Rows, w.Pages)
	}
	stop := errors.New("enough")
	handed := 0
	if w, err := c.Walk(t.Context(), client.WalkOptions{}, func(_, _ []byte) error {
		if handed++; handed == 100 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) || handed != 100 || w.Rows != 99 {
		t.Errorf("a walk that was ended: %+v, %v", w, err)
	}
	if _, err := c.Walk(t.Context(), client.WalkOptions{Pages: 65}, nil); err == nil {
		t.Error("65 pages at once are allowed")
	}
}

// TestWalkLies: whatever a node does to a page, the walk ends with an error that names the node, and hands out nothing untrue.
func TestWalkLies(t *testing.T) {
	t.Parallel()
	chain, rows := written(t, 6, 400)
	honest, liar := chain.Serve(), chain.Serve()
	c := dial(t, liar)
	both := dial(t, liar, honest)
	// Every lie is about one page in the middle.
	subtree := func(change func(proof.Subtree) proof.Subtree) func(*abci.ResponseQuery) {
		return func(r *abci.ResponseQuery) {
			s, err := proof.DecodeSubtree(r.Value)
			if err != nil {
				panic(err)
			}
			r.Value = change(s).Encode()
		}
	}
	leafAt := func(s proof.Subtree) int {
		for i := len(s) / 2; i < len(s); i++ {
			if len(s[i].Key) > 1 {
				return i
			}
		}
		panic("no leaf")
	}
	for name, c0 := range map[string]struct {
		question func(*abci.RequestQuery)
		answer   func(*abci.ResponseQuery)
	}{
		"omits a leaf": {answer: subtree(func(s proof.Subtree) proof.Subtree {
			at := leafAt(s)
			return append(s[:at:at], s[at+1:]...)
		})},
		"omits a leaf and mends the shape": {answer: subtree(func(s proof.Subtree) proof.Subtree {
			for i := range s { // an inner node with two leaves becomes one of them
				if s[i].Size == 2 && i+2 < len(s) && len(s[i+1].Key) > 1 {
					return append(append(s[:i:i], s[i+1]), s[i+3:]...)
				}
			}
			panic("no pair")
		})},
		"changes a value": {answer: subtree(func(s proof.Subtree) proof.Subtree {
			at := leafAt(s)
			s[at].Value = append(bytes.Clone(s[at].Value), 1)
			return s
		})},
		"changes a key": {answer: subtree(func(s proof.Subtree) proof.Subtree {
			at := leafAt(s)
			s[at].Key = append(bytes.Clone(s[at].Key[:len(s[at].Key)-1]), s[at].Key[len(s[at].Key)-1]^1)
			return s
		})},
		"changes a version": {answer: subtree(func(s proof.Subtree) proof.Subtree { s[leafAt(s)].Version++; return s })},
		"swaps two leaves": {answer: subtree(func(s proof.Subtree) proof.Subtree {
			for i := range s {
				if s[i].Size == 2 && len(s[i+1].Key) > 1 {
					s[i+1], s[i+2] = s[i+2], s[i+1]
					return s
				}
			}
			panic("no pair")
		})},
		"duplicates a key": {answer: subtree(func(s proof.Subtree) proof.Subtree {
			for i := range s {
				if s[i].Size == 2 && len(s[i+1].Key) > 1 {
					s[i+2] = s[i+1]
					return s
				}
			}
			panic("no pair")
		})},
		"claims a smaller size":          {answer: subtree(func(s proof.Subtree) proof.Subtree { s[0].Size--; return s })},
		"claims a greater size":          {answer: subtree(func(s proof.Subtree) proof.Subtree { s[0].Size++; return s })},
		"claims another height":          {answer: subtree(func(s proof.Subtree) proof.Subtree { s[0].Height++; return s })},
		"shows only a hash":              {answer: subtree(func(s proof.Subtree) proof.Subtree { return proof.Subtree{{Hash: make([]byte, 32)}} })},
		"shows nothing":                  {answer: func(r *abci.ResponseQuery) { r.Value = nil }},
		"swaps subtrees":                 {question: func(r *abci.RequestQuery) { r.Data[len(r.Data)-1] ^= 1 }},
		"shows another tree":             {question: func(r *abci.RequestQuery) { r.Path = query.TreePath("s4") }},
		"shows another height":           {question: func(r *abci.RequestQuery) { r.Height-- }},
		"shows another height, as asked": {question: func(r *abci.RequestQuery) { r.Height-- }, answer: func(r *abci.ResponseQuery) { r.Height++ }},
		"sends garbage":                  {answer: func(r *abci.ResponseQuery) { r.Value = bytes.Repeat([]byte{0x0a, 0xff}, 999) }},
		"sends too much":                 {answer: func(r *abci.ResponseQuery) { r.Value = make([]byte, proof.MaxSubtree+1) }},
		"nests without end": {answer: func(r *abci.ResponseQuery) {
			var s proof.Subtree
			for range 4000 {
				s = append(s, proof.Node{Height: 60, Size: 1 << 40, Version: 1})
			}
			r.Value = s.Encode()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var lied atomic.Bool
			about := func(path string, data []byte) bool { return path == query.TreePath("s3") && len(data) > 4 }
			liar.Lie(clienttest.Lies{
				Question: func(r *abci.RequestQuery) {
					if c0.question != nil && about(r.Path, r.Data) {
						lied.Store(true)
						c0.question(r)
					}
				},
				Answer: func(r *abci.RequestQuery, a *abci.ResponseQuery) {
					if c0.answer != nil && (about(r.Path, r.Data) || lied.Load()) && strings.HasPrefix(r.Path, "/tree/") {
						lied.Store(true)
						c0.answer(a)
					}
				},
			})
			o := client.WalkOptions{PageLeaves: 40, Height: chain.Height() - 1}
			w, err := c.Walk(t.Context(), o, func(key, value []byte) error {
				if rows[string(key)] != string(value) {
					t.Errorf("hands out the row %x = %x", key, value)
				}
				return nil
			})
			if !lied.Load() || !errors.Is(err, proof.ErrInvalid) || !strings.Contains(err.Error(), liar.URL) {
				t.Fatalf("lied %v: %+v, %v", lied.Load(), w, err)
			}
			// Pages prove themselves, so another node takes over where one lies.
			lied.Store(false)
			walkAll(t, both, o, rows)
		})
	}
	t.Run("roots", func(t *testing.T) {
		for name, change := range map[string]func(*abci.ResponseQuery){
			"swapped":        func(r *abci.ResponseQuery) { copy(r.Value[2:34], r.Value[36:68]) },
			"one is missing": func(r *abci.ResponseQuery) { r.Value = r.Value[34:] },
			"none":           func(r *abci.ResponseQuery) { r.Value = nil },
			"other height":   func(r *abci.ResponseQuery) { r.Height++ },
		} {
			liar.Lie(clienttest.Lies{Answer: func(r *abci.RequestQuery, a *abci.ResponseQuery) {
				if r.Path == query.PathTrees {
					change(a)
				}
			}})
			if _, err := c.Walk(t.Context(), client.WalkOptions{Height: chain.Height() - 1}, nil); !errors.Is(err, proof.ErrInvalid) || !strings.Contains(err.Error(), liar.URL) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestWalkPruned: a height that is gone, or goes during the walk, is said to be gone.
func TestWalkPruned(t *testing.T) {
	t.Parallel()
	chain, _ := written(t, 4, 300)
	n := chain.Serve()
	c := dial(t, n)
	var asked atomic.Int64
	n.Lie(clienttest.Lies{Answer: func(r *abci.RequestQuery, a *abci.ResponseQuery) {
		if strings.HasPrefix(r.Path, "/tree/") && asked.Add(1) > 25 {
			*a = abci.ResponseQuery{Code: query.Pruned, Codespace: query.Codespace, Log: "height 5: height is pruned (kept: 9 to 12)"}
		}
	}})
	_, err := c.Walk(t.Context(), client.WalkOptions{PageLeaves: 20}, func(_, _ []byte) error { return nil })
	if !errors.Is(err, client.ErrPruned) || !strings.Contains(err.Error(), "kept: 9 to 12") {
		t.Errorf("pruned in the middle: %v", err)
	}
	n.Lie(clienttest.Lies{Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Code = query.Pruned }})
	if _, err := c.Walk(t.Context(), client.WalkOptions{Height: 2}, nil); !errors.Is(err, client.ErrPruned) {
		t.Errorf("pruned from the beginning: %v", err)
	}
}

// TestWalkOutage: a node that is away for a moment does not end a walk; one that stays away does.
func TestWalkOutage(t *testing.T) {
	t.Parallel()
	chain, rows := written(t, 4, 300)
	n := chain.Serve()
	c := dial(t, n)
	var asked atomic.Int64
	n.Lie(clienttest.Lies{Answer: func(r *abci.RequestQuery, a *abci.ResponseQuery) {
		if k := asked.Add(1); strings.HasPrefix(r.Path, "/tree/") && k > 30 && k < 34 {
			*a = abci.ResponseQuery{Code: query.Failed, Codespace: query.Codespace, Log: "the node is busy with other queries"}
		}
	}})
	walkAll(t, c, client.WalkOptions{PageLeaves: 20}, rows)
	ctx := within(t, time.Second)
	if _, err := c.Walk(ctx, client.WalkOptions{PageLeaves: 20}, func(_, _ []byte) error { n.Lie(clienttest.Lies{Down: true}); return nil }); err == nil {
		t.Error("a walk without a node ends well")
	}
}

// BenchmarkWalk is a walk over loopback, of one client and one node in one process.
func BenchmarkWalk(b *testing.B) {
	chain, rows := written(b, 10, 10_000)
	n := chain.Serve()
	c, err := client.Dial(b.Context(), client.Options{Genesis: chain.Doc, Dir: b.TempDir(), Nodes: []string{n.URL}})
	if err != nil {
		b.Fatal(err)
	}
	for _, pages := range []int{1, 4, 16} {
		b.Run(fmt.Sprint("pages=", pages), func(b *testing.B) {
			for b.Loop() {
				if w, err := c.Walk(b.Context(), client.WalkOptions{Pages: pages, Height: chain.Height() - 1}, func(_, _ []byte) error { return nil }); err != nil || w.Rows != uint64(len(rows)) {
					b.Fatal(w, err)
				}
			}
			b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
