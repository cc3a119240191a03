package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	ics23 "github.com/cosmos/ics23/go"

	"github.com/pacioli-ledger/pacioli/ledger"
)

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

// verify checks a proof as a client does, with ics23 alone.
func verify(p *Proof, appHash, key []byte) error {
	var inTree, inRoot ics23.CommitmentProof
	if err := inTree.Unmarshal(p.Ops[0].Data); err != nil {
		return err
	}
	if err := inRoot.Unmarshal(p.Ops[1].Data); err != nil {
		return err
	}
	name, _ := ledger.TreeOf(key)
	if p.Ops[0].Type != OpIAVL || p.Ops[1].Type != OpSimple || p.Tree != name || string(p.Ops[1].Key) != name {
		return fmt.Errorf("operations %s of %x, %s of %s in tree %s", p.Ops[0].Type, p.Ops[0].Key, p.Ops[1].Type, p.Ops[1].Key, p.Tree)
	}
	root := inRoot.GetExist().GetValue()
	if !ics23.VerifyMembership(ics23.TendermintSpec, appHash, &inRoot, []byte(name), root) {
		return errors.New("the tree's root is not under the AppHash")
	}
	if p.Value != nil {
		if !ics23.VerifyMembership(ics23.IavlSpec, root, &inTree, key, p.Value) {
			return errors.New("the value is not in the tree")
		}
	} else if !ics23.VerifyNonMembership(ics23.IavlSpec, root, &inTree, key) {
		return errors.New("the key is not absent from the tree")
	}
	return nil
}

// mustProve proves a key and verifies the proof against the AppHash in it, which the caller compares.
func mustProve(t testing.TB, s *Store, key []byte, height uint64) *Proof {
	t.Helper()
	p, err := s.Prove(key, height)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(p, p.AppHash, key); err != nil {
		t.Fatalf("key %x at height %d: %v", key, height, err)
	}
	return p
}

func TestProve(t *testing.T) {
	o := small(vfs.NewMem())
	o.KeepVersions = 6
	s := mustOpen(t, o)
	defer mustClose(t, s)
	h := history{seed: 6, keys: 400, writes: 80, value: 10}
	if _, err := s.Prove(testKey(0), 1); !errors.Is(err, ErrNotCommitted) {
		t.Errorf("before the first commit: %v", err)
	}
	// Nothing but sentinels: absence is proven in trees that hold nothing.
	if _, err := s.Stage(1, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if _, hashed := ledger.TreeOf(testKey(i)); hashed && mustProve(t, s, testKey(i), 1).Value != nil {
			t.Fatal("an empty tree holds a value")
		}
	}
	m := make(model)
	states := map[uint64]model{}
	roots := map[uint64][]byte{}
	for height := uint64(2); height <= 12; height++ {
		roots[height] = mustRun(t, s, h, height, height)[0]
		m.apply(h.block(height))
		states[height] = model{}
		for k, v := range m {
			states[height][k] = v
		}
	}
	present, absent := 0, 0
	for height := uint64(7); height <= 12; height++ {
		keys := [][]byte{{0x01}, {0x3f, 0xff, 0xff}, {0x40}, {0x4f, 0xff}, {0x50}, {0x60}, {0x6f, 0xff}} // left and right of all others
		for i := range 120 {
			keys = append(keys, testKey(i), append(testKey(i), 0)) // the middle
		}
		for _, key := range keys {
			if _, hashed := ledger.TreeOf(key); !hashed {
				continue
			}
			p := mustProve(t, s, key, height)
			want, ok := states[height][string(key)]
			if !bytes.Equal(p.AppHash, roots[height]) || (p.Value != nil) != ok || string(p.Value) != want {
				t.Fatalf("key %x at height %d: %x under %x, want %x under %x", key, height, p.Value, p.AppHash, want, roots[height])
			}
			if ok {
				present++
			} else {
				absent++
			}
			// A proof proves nothing else.
			if verify(p, roots[height^1], key) == nil {
				t.Fatal("verified under another height's AppHash")
			}
			if p.Value != nil {
				p.Value[0] ^= 1
			} else {
				p.Value = []byte{1}
			}
			if verify(p, roots[height], key) == nil {
				t.Fatal("verified another value")
			}
		}
	}
	if present < 100 || absent < 100 {
		t.Fatalf("%d present, %d absent: the test tests too little", present, absent)
	}
	for height, want := range map[uint64]error{0: ErrNotCommitted, 1: ErrPruned, 6: ErrPruned, 13: ErrNotCommitted} {
		if _, err := s.Prove(testKey(0), height); !errors.Is(err, want) {
			t.Errorf("height %d: %v, want %v", height, err, want)
		}
	}
	for _, key := range []string{"", "\x00", "\x00sentinel", "\x80beside"} {
		if _, err := s.Prove([]byte(key), 12); err == nil {
			t.Errorf("proved key %x, which no tree holds", key)
		}
	}
}

// Proofs, views and checks run while blocks are staged, pruned and committed. Run with -race.
func TestReadersDuringCommits(t *testing.T) {
	o := small(vfs.NewMem())
	o.KeepVersions = 3
	s := mustOpen(t, o)
	defer mustClose(t, s)
	h := history{seed: 7, keys: 300, writes: 60, value: 10}
	mustRun(t, s, h, 1, 5)
	done := make(chan struct{})
	var wg sync.WaitGroup
	var proofs [3]int
	for r := range proofs {
		wg.Go(func() {
			for i := r; ; i += 3 {
				select {
				case <-done:
					return
				default:
				}
				height := s.Height() - uint64(i%2)
				p, err := s.Prove(testKey(i%15), height)
				if errors.Is(err, ErrPruned) {
					continue
				}
				if err == nil {
					err = verify(p, p.AppHash, testKey(i%15))
				}
				if err != nil {
					t.Errorf("key %d at %d: %v", i%15, height, err)
					return
				}
				proofs[r]++
				v := s.View()
				if _, err := v.Get(testKey(i % 300)); err != nil {
					t.Error(err)
				}
				v.Close()
			}
		})
	}
	mustRun(t, s, h, 6, 40)
	mustBeSound(t, s)
	close(done)
	wg.Wait()
	for r, n := range proofs {
		if n == 0 {
			t.Errorf("reader %d proved nothing", r)
		}
	}
}
