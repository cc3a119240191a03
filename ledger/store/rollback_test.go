package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestRollback(t *testing.T) {
	h := history{seed: 13, keys: 300, writes: 80, value: 10}
	fs := vfs.NewMem()
	o := small(fs)
	o.KeepVersions = 6
	s := mustOpen(t, o)
	defer func() { mustClose(t, s) }()
	var roots [][]byte
	states := map[uint64]model{}
	for height := uint64(1); height <= 15; height++ {
		roots = append(roots, mustRun(t, s, h, height, height)...)
		states[height] = rows(t, s)
	}
	if floor := s.RollbackFloor(); floor != 10 {
		t.Errorf("floor is %d, want 10", floor)
	}
	for to, want := range map[uint64]error{0: ErrNotCommitted, 9: ErrPruned, 16: ErrNotCommitted} {
		if err := s.Rollback(to, nil); !errors.Is(err, want) {
			t.Errorf("roll back to %d: %v, want %v", to, err, want)
		}
	}
	if err := s.Rollback(12, func(uint64) ([]Write, error) { return nil, errors.New("the index says no") }); err == nil || s.Height() != 15 {
		t.Errorf("rolled back to %d although the index failed", s.Height())
	}
	for _, to := range []uint64{14, 10} {
		var asked []uint64
		err := s.Rollback(to, func(height uint64) ([]Write, error) {
			asked = append(asked, height)
			return []Write{{Key: heightKey('h', height), Value: nil}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if s.Height() != to || !bytes.Equal(s.AppHash(), roots[to-1]) || asked[0] <= asked[len(asked)-1] && len(asked) > 1 {
			t.Fatalf("height %d, root %x, index asked for %v", s.Height(), s.AppHash(), asked)
		}
		sameRows(t, rows(t, s), states[to])
		rep := mustBeSound(t, s)
		if rep.Index != int64(to) {
			t.Errorf("%d index rows are left, want %d", rep.Index, to)
		}
		mustProve(t, s, testKey(1), to)
		if _, err := s.Prove(testKey(1), to+1); !errors.Is(err, ErrNotCommitted) {
			t.Errorf("proof above the height rolled back to: %v", err)
		}
		mustClose(t, s)
		s = mustOpen(t, o)
		if s.Height() != to {
			t.Fatalf("opened at height %d, rolled back to %d", s.Height(), to)
		}
	}
	// The same blocks give the same roots again; other blocks give others.
	if got := mustRun(t, s, h, 11, 15); !bytes.Equal(got[4], roots[14]) {
		t.Errorf("root %x at 15, at first it was %x", got[4], roots[14])
	}
	mustBeSound(t, s)
	sameRows(t, rows(t, s), states[15])
	if err := s.Rollback(12, nil); err != nil {
		t.Fatal(err)
	}
	h.seed = 14
	if got := mustRun(t, s, h, 13, 25); bytes.Equal(got[2], roots[14]) {
		t.Error("another block gave the same root")
	}
	mustBeSound(t, s)
}

// Undo rows are bounded even where every height is kept.
func TestRollbackReach(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	for height := uint64(1); height <= undoHeights+50; height++ {
		if _, err := s.Stage(height, []Write{{Key: []byte("\x01"), Value: heightKey(1, height)}}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if floor := s.RollbackFloor(); floor != 50 {
		t.Errorf("floor is %d, want 50", floor)
	}
	if err := s.Rollback(49, nil); !errors.Is(err, ErrPruned) {
		t.Errorf("below the floor: %v", err)
	}
	if err := s.Rollback(50, nil); err != nil {
		t.Fatal(err)
	}
	sameRows(t, rows(t, s), model{"\x01": string(heightKey(1, 50))})
	mustBeSound(t, s)
}

// A crash during a rollback leaves the height before or the height after.
func TestCrashDuringRollback(t *testing.T) {
	h, o := crashHistory()
	w := newTwin(t, h, o, crashTo+2)
	mem := vfs.NewCrashableMem()
	fs := &hookFS{FS: mem}
	o.FS = fs
	s := mustOpen(t, o)
	defer mustClose(t, s)
	mustRun(t, s, h, 1, crashTo)
	var crashes []*vfs.MemFS
	rng := rand.New(rand.NewPCG(15, 0))
	fs.set(func(string) error {
		for _, percent := range []int{0, 50, 100} {
			crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
		}
		return nil
	}, nil)
	err := s.Rollback(crashTo-2, nil)
	fs.set(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(crashes) == 0 {
		t.Fatal("no operation on the disk")
	}
	for _, c := range crashes {
		o.FS = c
		s := mustOpen(t, o)
		if s.Height() != crashTo && s.Height() != crashTo-2 {
			t.Fatalf("height %d after a crash in a rollback from %d to %d", s.Height(), crashTo, crashTo-2)
		}
		mustClose(t, s)
		w.mustMatch(t, c, o, crashTo-2, crashTo, true)
	}
}
