package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

// hashed gives the rows that trees hold.
func hashed(m model) model {
	m = maps.Clone(m)
	for k := range m {
		if _, ok := ledger.TreeOf([]byte(k)); !ok {
			delete(m, k)
		}
	}
	return m
}

// walkTrees reads a whole state by Subtree and checks every answer as a client does.
func walkTrees(t testing.TB, s *Store, height uint64, appHash []byte, leaves, size int) (m model, answers int) {
	t.Helper()
	roots, err := s.Roots(height)
	if err != nil {
		t.Fatal(err)
	}
	places, err := proof.OpenRoots(appHash, proof.EncodeRoots(roots))
	if err != nil {
		t.Fatal(err)
	}
	m = model{}
	for len(places) > 0 {
		p := places[0]
		places = places[1:]
		nodes, err := s.Subtree(p.Tree, height, p.Path, leaves, size)
		if err != nil {
			t.Fatal(err)
		}
		answers++
		var subtree proof.Subtree
		for _, n := range nodes {
			subtree = append(subtree, proof.Node(n))
		}
		if b := subtree.Encode(); len(b) > size && len(nodes) > 1 && nodes[0].Size <= uint64(leaves) && !slices.ContainsFunc(nodes, func(n TreeNode) bool { return n.Hash != nil }) {
			t.Fatalf("an answer of %d bytes, asked for %d", len(b), size)
		}
		c, err := p.Open(subtree.Encode())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range c.Items {
			if item.Below != nil {
				places = append(places, *item.Below)
			} else if _, twice := m[string(item.Key)]; twice {
				t.Fatalf("key %x comes twice", item.Key)
			} else {
				m[string(item.Key)] = string(item.Value)
			}
		}
	}
	return m, answers
}

// TestSubtree: at every height that is kept, whatever the size of the answers, they show exactly the rows of that height.
func TestSubtree(t *testing.T) {
	o := small(vfs.NewMem())
	o.KeepVersions = 5
	s := mustOpen(t, o)
	defer mustClose(t, s)
	if _, err := s.Roots(1); !errors.Is(err, ErrNotCommitted) {
		t.Errorf("roots before the first commit: %v", err)
	}
	h := history{seed: 31, keys: 900, writes: 200, value: 60}
	m := model{}
	states, hashes := map[uint64]model{}, map[uint64][]byte{}
	for height := uint64(1); height <= 12; height++ {
		hashes[height] = mustRun(t, s, h, height, height)[0]
		m.apply(h.block(height))
		states[height] = hashed(m)
	}
	for height := uint64(8); height <= 12; height++ {
		answers := map[int]int{}
		for _, leaves := range []int{1, 7, 20, 5000} {
			for _, size := range []int{1, 2000, 1 << 20} {
				got, n := walkTrees(t, s, height, hashes[height], leaves, size)
				sameRows(t, got, states[height])
				answers[leaves] = n // with the largest size
			}
		}
		if answers[5000] != treeCount || answers[7] <= answers[20] || answers[20] <= treeCount || answers[1] < len(states[height]) {
			t.Errorf("answers by leaves: %v, with %d trees and %d rows", answers, treeCount, len(states[height]))
		}
	}
	for _, c := range []struct {
		tree   int
		height uint64
		path   []byte
		leaves int
		want   error
	}{
		{2, 7, nil, 10, ErrPruned}, {2, 13, nil, 10, ErrNotCommitted}, {2, 0, nil, 10, ErrNotCommitted},
		{2, 12, bytes.Repeat([]byte{0}, 40), 10, ErrNoNode}, {2, 12, []byte{2}, 10, ErrNoNode},
	} {
		if nodes, err := s.Subtree(c.tree, c.height, c.path, c.leaves, 1000); !errors.Is(err, c.want) {
			t.Errorf("%+v: %d nodes, %v", c, len(nodes), err)
		}
	}
	if _, err := s.Roots(7); !errors.Is(err, ErrPruned) {
		t.Errorf("roots of a pruned height: %v", err)
	}
	for _, bad := range [][2]int{{-1, 10}, {treeCount, 10}, {2, 0}} {
		if _, err := s.Subtree(bad[0], 12, nil, bad[1], 1000); err == nil {
			t.Errorf("tree %d, %d leaves: no error", bad[0], bad[1])
		}
	}
}

// TestSubtreeBeside: answers are of one height while blocks are staged, committed and pruned.
func TestSubtreeBeside(t *testing.T) {
	o := small(vfs.NewMem())
	o.KeepVersions = 40
	s := mustOpen(t, o)
	defer mustClose(t, s)
	h := history{seed: 32, keys: 300, writes: 60, value: 20}
	m := model{}
	var appHash []byte
	for height := uint64(1); height <= 10; height++ {
		appHash = mustRun(t, s, h, height, height)[0]
		m.apply(h.block(height))
	}
	want := hashed(m)
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for range 8 {
				got, _ := walkTrees(t, s, 10, appHash, 9, 1<<20)
				sameRows(t, got, want)
			}
		})
	}
	mustRun(t, s, h, 11, 40)
	work.Wait()
	mustBeSound(t, s)
}

// TestSubtreeLarge: a tree with more inner nodes than an answer holds is cut by levels; long values make answers smaller.
func TestSubtreeLarge(t *testing.T) {
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	m := model{}
	for height := uint64(1); height <= 4; height++ {
		var w []Write
		for i := range 3000 {
			key := binary.BigEndian.AppendUint32([]byte{0x40}, uint32(i*7919+int(height))*2654435761)
			value := []byte{1, byte(height)}
			if i%100 == 0 {
				value = bytes.Repeat([]byte{1}, 40_000)
			}
			w = append(w, Write{Key: key, Value: value})
		}
		sortWrites(w)
		if _, err := s.Stage(height, w, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		m.apply(w)
	}
	nodes, err := s.Subtree(treeIndex([]byte{0x40}), 4, nil, 1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	inner, cut := 0, 0
	for _, n := range nodes {
		if n.Hash != nil {
			cut++
		} else {
			inner++
		}
	}
	if inner != maxTopNodes || cut != maxTopNodes+1 {
		t.Errorf("%d inner nodes and %d where it stops, want %d and one more", inner, cut, maxTopNodes)
	}
	for _, leaves := range []int{10, 2048} {
		got, answers := walkTrees(t, s, 4, s.AppHash(), leaves, 1<<20)
		sameRows(t, got, m)
		t.Logf("%d rows in %d answers of at most %d leaves", len(m), answers, leaves)
	}
}
