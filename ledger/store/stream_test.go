package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// export gives the tops and the records of a store's newest height.
func export(t testing.TB, s *Store) (*Tops, [][]byte) {
	t.Helper()
	v := s.View()
	defer v.Close()
	tops, err := v.Tops()
	if err != nil {
		t.Fatal(err)
	}
	var records [][]byte
	if err := v.Export(context.Background(), func(r []byte) error { records = append(records, bytes.Clone(r)); return nil }); err != nil {
		t.Fatal(err)
	}
	return tops, records
}

// importInto builds a store of records, given in pieces of some of them each.
func importInto(dir string, o Options, tops *Tops, records [][]byte, note []byte) error {
	i, err := NewImport(dir, o, tops)
	if err != nil {
		return err
	}
	for n := 0; n < len(records); n += 37 {
		if err := i.Apply(bytes.Join(records[n:min(n+37, len(records))], nil)); err != nil {
			return errors.Join(err, i.Close())
		}
	}
	return errors.Join(i.Finish(note, []Write{{Key: []byte("begin"), Value: []byte("here")}}), i.Close())
}

// inTrees drops the rows beside the trees, which the histories of these tests make at random and no tree commits to.
func inTrees(m model) model {
	for k := range m {
		if treeIndex([]byte(k)) == beside {
			delete(m, k)
		}
	}
	return m
}

// TestExportImport: a store that was built of another's records goes on as the other: the same AppHashes, the same
// records, sound, with proofs, with pruning, also where roots have not changed for long.
func TestExportImport(t *testing.T) {
	for seed := range int64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := history{seed: 100 + seed, keys: []int{5, 40, 900}[seed%3], writes: []int{1, 30, 50}[seed%3], value: 40}
			o := small(vfs.NewMem())
			o.KeepVersions = []uint64{0, 5}[seed%2]
			o.InitialHeight = []uint64{1, 77}[seed/3]
			first := o.InitialHeight
			s := mustOpen(t, o)
			defer mustClose(t, s)
			at := first + 60
			mustRun(t, s, h, first, at)
			tops, records := export(t, s)
			if app := tops.AppHash(); !bytes.Equal(app[:], s.AppHash()) {
				t.Fatalf("the tops give %x, the AppHash is %x", app, s.AppHash())
			}
			ro := small(vfs.NewMem())
			ro.KeepVersions, ro.InitialHeight = 3, first
			if err := importInto("db", ro, tops, records, h.note(at)); err != nil {
				t.Fatal(err)
			}
			r := mustOpen(t, ro)
			defer mustClose(t, r)
			if r.Height() != at || !bytes.Equal(r.AppHash(), s.AppHash()) || r.FirstHeight() != at || r.RollbackFloor() != at {
				t.Fatalf("height %d, AppHash %x, first %d, rolls back to %d", r.Height(), r.AppHash(), r.FirstHeight(), r.RollbackFloor())
			}
			if note, err := r.Note(at); err != nil || !bytes.Equal(note, h.note(at)) {
				t.Fatalf("note %q, %v", note, err)
			}
			if report := mustBeSound(t, r); uint64(report.Leaves) != tops.Leaves() || report.Index != 1 {
				t.Fatalf("%+v, the tops say %d leaves", report, tops.Leaves())
			}
			sameRows(t, inTrees(rows(t, r)), inTrees(rows(t, s)))
			if _, again := export(t, r); !bytes.Equal(bytes.Join(again, nil), bytes.Join(records, nil)) {
				t.Fatal("the restored store exports other records")
			}
			want, got := mustRun(t, s, h, at+1, at+50), mustRun(t, r, h, at+1, at+50)
			for i := range want {
				if !bytes.Equal(want[i], got[i]) {
					t.Fatalf("%d blocks later: AppHash %x, want %x", i+1, got[i], want[i])
				}
			}
			mustBeSound(t, r)
			sameRows(t, inTrees(rows(t, r)), inTrees(rows(t, s)))
			for k := range h.keys {
				if i := treeIndex(testKey(k)); i < 0 || i == beside {
					continue
				}
				a, aerr := s.Prove(testKey(k), at+49)
				b, berr := r.Prove(testKey(k), at+49)
				if aerr != nil || berr != nil || !bytes.Equal(a.Ops[0].Data, b.Ops[0].Data) || !bytes.Equal(a.Ops[1].Data, b.Ops[1].Data) {
					t.Fatalf("proof of key %d: %v, %v", k, aerr, berr)
				}
				if k > 50 {
					break
				}
			}
			_, a := export(t, s)
			_, b := export(t, r)
			if !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
				t.Fatal("after 50 blocks the restored store exports other records")
			}
			if err := r.Rollback(at+45, nil); err == nil { // KeepVersions 3: not that far
				t.Error("it rolls back over pruned heights")
			}
			if err := r.Rollback(at+48, nil); err != nil {
				t.Error(err)
			} else if again := mustRun(t, r, h, at+49, at+50); !bytes.Equal(again[1], want[49]) {
				t.Errorf("after a rollback: AppHash %x, want %x", again[1], want[49])
			}
		})
	}
}

// TestImportRefuses: nothing but the very records of the announced state is taken, whatever stands in their place.
func TestImportRefuses(t *testing.T) {
	h := history{seed: 7, keys: 40, writes: 10, value: 12}
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	mustRun(t, s, h, 1, 20)
	tops, records := export(t, s)
	stream := bytes.Join(records, nil)
	check := func(tops *Tops, stream []byte) error {
		i, err := NewImport("", Options{}, tops)
		if err == nil {
			err = i.Apply(stream)
		}
		if err == nil {
			err = i.Finish(nil, nil)
		}
		return err
	}
	if err := check(tops, stream); err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, tops *Tops, stream []byte) {
		t.Helper()
		if err := check(tops, stream); !errors.Is(err, ErrStream) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range stream {
		bad := bytes.Clone(stream)
		bad[i] ^= byte(1 << (i % 8))
		refuse(fmt.Sprintf("bit of byte %d", i), tops, bad)
	}
	for n := 0; n < len(stream); n += 7 {
		refuse(fmt.Sprintf("the first %d bytes", n), tops, stream[:n])
	}
	refuse("a byte more", tops, append(bytes.Clone(stream), 0x01))
	for i := 0; i+1 < len(records); i++ {
		swapped := append([][]byte(nil), records...)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		if bytes.Equal(records[i], records[i+1]) {
			continue
		}
		refuse(fmt.Sprintf("records %d and %d swapped", i, i+1), tops, bytes.Join(swapped, nil))
		refuse(fmt.Sprintf("record %d twice", i), tops, bytes.Join(append(append(append([][]byte(nil), records[:i+1]...), records[i]), records[i+1:]...), nil))
		refuse(fmt.Sprintf("without record %d", i), tops, bytes.Join(append(append([][]byte(nil), records[:i]...), records[i+1:]...), nil))
	}
	// One that never ends: leaves that ascend, in the right tree, for ever.
	endless := bytes.Clone(records[0])
	for k := uint64(0); k < 1<<16; k++ {
		if key := heightKey(0x70, k); treeIndex(key) == 0 {
			endless = appendLeafRecord(endless, 1, key, []byte{1})
		}
	}
	i, err := NewImport("", Options{}, tops)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Apply(endless); !errors.Is(err, ErrStream) || i.Leaves > tops.Trees[0].Size+1 {
		t.Errorf("after %d leaves: %v", i.Leaves, err)
	}
	// Another height's.
	mustRun(t, s, h, 21, 21)
	later, records21 := export(t, s)
	refuse("the next height's records", tops, bytes.Join(records21, nil))
	refuse("the records of the height before", later, stream)
	for what, change := range map[string]func(*Tops){
		"no height": func(t *Tops) { t.Height = 0 }, "huge height": func(t *Tops) { t.Height = 1 << 63 },
		"no leaves": func(t *Tops) { t.Trees[4].Size = 0 }, "huge": func(t *Tops) { t.Trees[4].Size = 1 << 40 },
		"high": func(t *Tops) { t.Trees[4].Height = 200 }, "later version": func(t *Tops) { t.Trees[4].Version = 21 },
		"no version": func(t *Tops) { t.Trees[4].Version = 0 }, "flat and many": func(t *Tops) { t.Trees[4].Height = 0 },
		"another child": func(t *Tops) { t.Trees[4].Left[3] ^= 1 }, "one leaf more": func(t *Tops) { t.Trees[4].Size++ },
		"one leaf less": func(t *Tops) { t.Trees[4].Size-- },
	} {
		bad := *tops
		change(&bad)
		refuse(what, &bad, stream)
		if bad.Check() == nil && bad.AppHash() == tops.AppHash() {
			t.Errorf("%s: the AppHash is the same", what)
		}
	}
}

// TestAdoptAtEveryCrash: power fails before each operation on the disk while a store is built and takes its place. What is
// opened afterwards is the empty store or the whole state.
func TestAdoptAtEveryCrash(t *testing.T) {
	h := history{seed: 8, keys: 300, writes: 100, value: 60}
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	mustRun(t, s, h, 1, 20)
	tops, records := export(t, s)

	mem := vfs.NewCrashableMem()
	fs := &hookFS{FS: mem}
	o := small(fs)
	r := mustOpen(t, o)
	defer mustClose(t, r)
	var mu sync.Mutex
	var crashes []*vfs.MemFS
	var ops []string
	rng := rand.New(rand.NewPCG(3, 0))
	fs.set(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		ops = append(ops, op)
		for _, percent := range []int{0, 50, 100} {
			crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
		}
		return nil
	}, nil)
	if err := importInto("restoring", o, tops, records, nil); err != nil {
		t.Fatal(err)
	}
	if r.Height() != 0 {
		t.Fatal("it is in use before it was adopted")
	}
	if err := r.Adopt("restoring"); err != nil {
		t.Fatal(err)
	}
	fs.set(nil, nil)
	if r.Height() != 20 || !bytes.Equal(r.AppHash(), s.AppHash()) {
		t.Fatalf("adopted: height %d, AppHash %x", r.Height(), r.AppHash())
	}
	crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{}))
	want := mustRun(t, s, h, 21, 22)
	if got := mustRun(t, r, h, 21, 22); !bytes.Equal(got[1], want[1]) {
		t.Fatalf("adopted: AppHash %x two blocks later, want %x", got[1], want[1])
	}
	if err := r.Adopt("restoring"); err == nil {
		t.Error("a store with a state adopts another")
	}
	whole, empty := 0, 0
	for i, c := range crashes {
		o := small(c)
		s, err := Open("db", o)
		if err != nil {
			t.Fatalf("crash %d of %d, before %s: %v", i, len(crashes), ops[min(i/3, len(ops)-1)], err)
		}
		switch s.Height() {
		case 0:
			empty++
			if i == len(crashes)-1 {
				t.Error("what was adopted is gone after a crash")
			}
			if i%5 == 0 { // it can be done again over what was left
				if err := importInto("restoring", o, tops, records, nil); err != nil {
					t.Fatal(err)
				}
				if err := s.Adopt("restoring"); err != nil || s.Height() != 20 {
					t.Fatalf("again after crash %d: %v", i, err)
				}
			}
		case 20:
			whole++
			mustBeSound(t, s)
		default:
			t.Errorf("crash %d: height %d", i, s.Height())
		}
		mustClose(t, s)
	}
	t.Logf("%d operations on the disk; %d crashes left the empty store, %d the whole state", len(ops), empty, whole)
	if empty < 20 || whole < 2 {
		t.Errorf("%d empty, %d whole: the test has lost its sense", empty, whole)
	}
}

// TestAdoptWaits: whoever reads the empty state when another takes its place ends well.
func TestAdoptWaits(t *testing.T) {
	h := history{seed: 9, keys: 50, writes: 20, value: 20}
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	mustRun(t, s, h, 1, 3)
	tops, records := export(t, s)
	o := small(vfs.NewMem())
	r := mustOpen(t, o)
	defer mustClose(t, r)
	if err := importInto("restoring", o, tops, records, nil); err != nil {
		t.Fatal(err)
	}
	view := r.View()
	done := make(chan error)
	go func() { done <- r.Adopt("restoring") }()
	if v, err := view.Get(testKey(1)); v != nil || err != nil {
		t.Errorf("%x, %v", v, err)
	}
	view.Close()
	if err := <-done; err != nil || r.Height() != 3 {
		t.Errorf("height %d, %v", r.Height(), err)
	}
}
