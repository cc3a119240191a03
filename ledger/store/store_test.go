package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cometbft/cometbft/crypto/merkle"
	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/ledger"
)

func TestMerkleRootIsCometBFTs(t *testing.T) {
	for n := 1; n <= 40; n++ {
		var raw [][]byte
		var leaves [][32]byte
		for i := range n {
			b := fmt.Appendf(nil, "leaf %d", i)
			raw = append(raw, b)
			leaves = append(leaves, sum(append([]byte{0}, b...)))
		}
		if got, want := merkleRoot(leaves), merkle.HashFromByteSlices(raw); !bytes.Equal(got[:], want) {
			t.Errorf("%d leaves: %x, want %x", n, got, want)
		}
	}
}

func TestStageRefuses(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	k := func(b ...byte) []byte { return b }
	for name, w := range map[string][]Write{
		"unsorted":    {{Key: k(2), Value: k(1)}, {Key: k(1), Value: k(1)}},
		"twice":       {{Key: k(1), Value: k(1)}, {Key: k(1), Value: k(2)}},
		"empty key":   {{Key: nil, Value: k(1)}},
		"empty value": {{Key: k(1), Value: []byte{}}},
		"sentinel":    {{Key: k(0), Value: k(1)}},
		"long key":    {{Key: append(k(1), make([]byte, maxKeyBytes)...), Value: k(1)}},
		"long value":  {{Key: k(1), Value: make([]byte, maxValueBytes+1)}},
	} {
		if _, err := s.Stage(1, w, nil, nil); err == nil {
			t.Errorf("%s: staged", name)
		}
	}
	if _, err := s.Stage(2, nil, nil, nil); err == nil {
		t.Error("staged height 2 before 1")
	}
	if _, err := s.Stage(1, nil, []Write{{Key: nil, Value: k(1)}}, nil); err == nil {
		t.Error("staged an index row without a key")
	}
	if _, err := s.Stage(1, nil, nil, make([]byte, maxNoteBytes+1)); err == nil {
		t.Error("staged a long note")
	}
	if err := s.Commit(); err == nil || errors.Is(err, ErrBroken) {
		t.Errorf("commit of nothing: %v", err)
	}
	if _, err := s.Stage(1, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(1, nil, nil, nil); err == nil {
		t.Error("staged twice")
	}
	if s.Height() != 0 || s.AppHash() != nil {
		t.Error("what is staged is visible")
	}
}

// What was staged and discarded leaves no trace, not even in the trees' next roots.
func TestDiscard(t *testing.T) {
	h := history{seed: 1, keys: 300, writes: 100, value: 20}
	twin := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, twin)
	o := small(vfs.NewMem())
	o.KeepVersions, twin.o.KeepVersions = 3, 3
	s := mustOpen(t, o)
	defer mustClose(t, s)
	for height := uint64(1); height <= 12; height++ {
		for range height % 3 {
			if _, err := s.Stage(height, history{seed: 99, keys: 300, writes: 150, value: 9}.block(height), nil, nil); err != nil {
				t.Fatal(err)
			}
			if err := s.Discard(); err != nil {
				t.Fatal(err)
			}
		}
		got, want := mustRun(t, s, h, height, height), mustRun(t, twin, h, height, height)
		if !bytes.Equal(got[0], want[0]) {
			t.Fatalf("height %d: %x, the twin has %x", height, got[0], want[0])
		}
	}
	mustBeSound(t, s)
	sameRows(t, rows(t, s), rows(t, twin))
}

// The same blocks give the same roots whatever the cache, the pruning and the restarts.
func TestRootsDependOnBlocksOnly(t *testing.T) {
	h := history{seed: 2, keys: 600, writes: 120, value: 30}
	const blocks = 40
	for _, initial := range []uint64{1, 1000} {
		var want [][]byte
		for i, c := range []struct {
			nodes   int
			keep    uint64
			budget  int
			restart uint64
		}{{0, 0, 0, 0}, {1, 0, 0, 1}, {100_000, 2, 1, 7}, {1, 2, 100, 1}, {3000, 5, 3, 0}, {1, 10, 2, 5}} {
			fs := vfs.NewMem()
			o := small(fs)
			o.TreeCacheNodes, o.KeepVersions, o.PruneBudget, o.InitialHeight = c.nodes, c.keep, c.budget, initial
			s := mustOpen(t, o)
			var got [][]byte
			for height := initial; height < initial+blocks; height++ {
				hist := h
				if height%4 == 3 {
					hist.writes = 0 // a block without writes still makes a version
				}
				got = append(got, mustRun(t, s, hist, height, height)...)
				if c.restart > 0 && height%c.restart == 0 {
					mustClose(t, s)
					s = mustOpen(t, o)
				}
			}
			if first := s.FirstHeight(); c.keep > 0 && first != initial+blocks-c.keep {
				t.Errorf("case %d: first height %d, want %d", i, first, initial+blocks-c.keep)
			}
			rep := mustBeSound(t, s)
			t.Logf("case %d from %d: %d nodes, %d leaves, %d rows, %d beside", i, initial, rep.Nodes, rep.Leaves, rep.Rows, rep.Beside)
			mustClose(t, s)
			if want == nil {
				want = got
			}
			for j := range got {
				if !bytes.Equal(got[j], want[j]) {
					t.Fatalf("case %d: height %d has root %x, want %x", i, initial+uint64(j), got[j], want[j])
				}
			}
		}
	}
}

// Lowering KeepVersions prunes the backlog in portions.
func TestPruneBudget(t *testing.T) {
	fs := vfs.NewMem()
	h := history{seed: 3, keys: 200, writes: 50, value: 10}
	s := mustOpen(t, small(fs))
	mustRun(t, s, h, 1, 30)
	mustClose(t, s)
	o := small(fs)
	o.KeepVersions, o.PruneBudget = 2, 5
	s = mustOpen(t, o)
	defer func() { mustClose(t, s) }()
	for height := uint64(31); height <= 40; height++ {
		mustRun(t, s, h, height, height)
		if want := min(1+5*(height-30), height-1); s.FirstHeight() != want {
			t.Fatalf("height %d: first is %d, want %d", height, s.FirstHeight(), want)
		}
		mustBeSound(t, s)
	}
	if _, err := s.Note(38); !errors.Is(err, ErrPruned) {
		t.Errorf("note of a pruned height: %v", err)
	}
	if n, err := s.Note(39); err != nil || string(n) != "note of 39" {
		t.Errorf("note of 39: %q, %v", n, err)
	}
	if _, err := s.Note(41); !errors.Is(err, ErrNotCommitted) {
		t.Errorf("note of a height to come: %v", err)
	}
}

// A network with little traffic moves a root nearly every time it prunes: the trees must not keep them all in memory.
func TestMovedRootsAreLetGo(t *testing.T) {
	o := small(vfs.NewMem())
	o.KeepVersions, o.TreeCacheNodes = 2, 1
	s := mustOpen(t, o)
	defer mustClose(t, s)
	key := []byte("\x40fee")
	for height := uint64(1); height <= 2400; height++ {
		var w []Write
		if height%2 == 0 {
			w = []Write{{Key: key, Value: fmt.Append(nil, height)}}
		}
		if _, err := s.Stage(height, w, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if moved := s.trees[ledger.PlaceOf([]byte{0x40})].db.moved; moved == 0 || moved > 1100 {
		t.Errorf("%d roots moved and kept, want 1 to about 1000", moved)
	}
	mustBeSound(t, s)
}

func TestOpenRefuses(t *testing.T) {
	fs := vfs.NewMem()
	h := history{seed: 4, keys: 200, writes: 100, value: 10}
	s := mustOpen(t, small(fs))
	mustRun(t, s, h, 1, 5)
	mustClose(t, s)

	refuse := func(name string, o Options, want error) {
		t.Helper()
		s, err := Open("db", o)
		if err == nil {
			mustClose(t, s)
			t.Errorf("%s: opened", name)
		} else if want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	o := small(fs)
	o.InitialHeight = 7
	refuse("another first height", o, nil)
	o = small(fs)
	o.KeepVersions = 1
	refuse("too few versions", o, nil)

	edit(t, fs, func(set func(k, v []byte), get func(k []byte) []byte) {
		rec := get(heightKey(spaceRecord, 5))
		rec[1+32+5] ^= 1
		set(heightKey(spaceRecord, 5), rec)
	})
	refuse("another root in the record", small(fs), ErrMismatch)
	edit(t, fs, func(set func(k, v []byte), get func(k []byte) []byte) {
		rec := get(heightKey(spaceRecord, 5))
		rec[1+32+5] ^= 1
		rec[3] ^= 1
		set(heightKey(spaceRecord, 5), rec)
	})
	refuse("another AppHash in the record", small(fs), ErrMismatch)
	edit(t, fs, func(set func(k, v []byte), get func(k []byte) []byte) {
		rec := get(heightKey(spaceRecord, 5))
		rec[3] ^= 1
		set(heightKey(spaceRecord, 5), rec)
		m, _ := decodeMeta(get(stateKey))
		m.height = 4
		set(stateKey, m.encode())
	})
	refuse("trees ahead of the height", small(fs), ErrMismatch)
	edit(t, fs, func(set func(k, v []byte), get func(k []byte) []byte) {
		m, _ := decodeMeta(get(stateKey))
		m.height = 5
		set(stateKey, m.encode())
	})
	mustClose(t, mustOpen(t, small(fs)))
	edit(t, fs, func(set func(k, v []byte), get func(k []byte) []byte) { set(formatKey, []byte("pacioli.store.v9")) })
	refuse("another format", small(fs), nil)
}

// A view stays at its height while blocks are committed and pruned.
func TestView(t *testing.T) {
	o := small(vfs.NewMem())
	o.KeepVersions = 2
	s := mustOpen(t, o)
	h := history{seed: 5, keys: 200, writes: 60, value: 10}
	m := make(model)
	views := map[uint64]*View{0: s.View()}
	states := map[uint64]model{0: {}}
	for height := uint64(1); height <= 10; height++ {
		mustRun(t, s, h, height, height)
		m.apply(h.block(height))
		c := make(model)
		for k, v := range m {
			c[k] = v
		}
		views[height], states[height] = s.View(), c
	}
	for height, v := range views {
		if v.Height() != height {
			t.Errorf("view of %d says %d", height, v.Height())
		}
		for i := range 200 {
			got, err := v.Get(testKey(i))
			want, ok := states[height][string(testKey(i))]
			if err != nil || (got != nil) != ok || string(got) != want {
				t.Fatalf("height %d, key %d: %x, %v; want %x", height, i, got, err, want)
			}
		}
		v.Close()
		v.Close()
	}
	r := s.Index()
	if b, err := r.Get(heightKey('h', 3)); err != nil || string(b) != "block 3" {
		t.Errorf("index row: %q, %v", b, err)
	}
	var seen []byte
	err := r.Range(heightKey('h', 3), heightKey('h', 7), true, func(k, _ []byte) error { seen = append(seen, k[8]); return nil })
	if err != nil || !bytes.Equal(seen, []byte{6, 5, 4, 3}) {
		t.Errorf("index rows of 3 to 6, reversed: %v, %v", seen, err)
	}
	r.Close()
	mustClose(t, s)
	mustClose(t, s)
	v := s.View()
	if _, err := v.Get(testKey(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("view of a closed store: %v", err)
	}
	v.Close()
	if _, err := s.Stage(11, nil, nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("stage on a closed store: %v", err)
	}
}

// Random blocks, discards, restarts and rollbacks against a plain map and the roots first seen.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fs := vfs.NewMem()
		o := small(fs)
		o.KeepVersions = rapid.SampledFrom([]uint64{0, 2, 3, 8}).Draw(rt, "keep")
		o.PruneBudget = rapid.IntRange(1, 4).Draw(rt, "budget")
		o.TreeCacheNodes = rapid.SampledFrom([]int{1, 1 << 20}).Draw(rt, "cache")
		o.InitialHeight = rapid.SampledFrom([]uint64{1, 50}).Draw(rt, "initial")
		s := mustOpen(t, o)
		defer func() { mustClose(t, s) }()
		states := map[uint64]model{}
		var height uint64 // as committed
		next := func() uint64 { return max(height+1, o.InitialHeight) }
		genBlock := func(rt *rapid.T) []Write {
			m := rapid.MapOfN(rapid.IntRange(0, 60), rapid.IntRange(0, 3), 0, 25).Draw(rt, "block")
			var w []Write
			for i, v := range m {
				var val []byte
				if v > 0 {
					val = bytes.Repeat([]byte{byte(v)}, 1+i%5)
				}
				w = append(w, Write{Key: testKey(i), Value: val})
			}
			sortWrites(w)
			return w
		}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				w := genBlock(rt)
				if _, err := s.Stage(next(), w, nil, nil); err != nil {
					rt.Fatal(err)
				}
				if err := s.Commit(); err != nil {
					rt.Fatal(err)
				}
				m := make(model)
				for k, v := range states[height] {
					m[k] = v
				}
				m.apply(w)
				height = next()
				states[height] = m
			},
			"discard": func(rt *rapid.T) {
				if _, err := s.Stage(next(), genBlock(rt), nil, nil); err != nil {
					rt.Fatal(err)
				}
				if err := s.Discard(); err != nil {
					rt.Fatal(err)
				}
			},
			"restart": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = mustOpen(t, o)
			},
			"rollback": func(rt *rapid.T) {
				floor := s.RollbackFloor()
				if floor == 0 {
					return
				}
				to := rapid.Uint64Range(floor, height).Draw(rt, "to")
				if err := s.Rollback(to, nil); err != nil {
					rt.Fatal(err)
				}
				height = to
			},
			"": func(rt *rapid.T) {
				if s.Height() != height {
					rt.Fatalf("height %d, want %d", s.Height(), height)
				}
				sameRows(t, rows(t, s), states[height])
				mustBeSound(t, s)
				i := rapid.IntRange(0, 60).Draw(rt, "prove")
				key := testKey(i)
				if _, hashed := ledger.TreeOf(key); height > 0 && hashed {
					at := rapid.Uint64Range(s.FirstHeight(), height).Draw(rt, "at")
					want, ok := states[at][string(key)]
					p := mustProve(t, s, key, at)
					if (p.Value != nil) != ok || string(p.Value) != want {
						rt.Fatalf("key %d at %d: %x, want %x", i, at, p.Value, want)
					}
				}
			},
		})
	})
}
