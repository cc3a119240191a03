package store

import (
	"errors"
	"fmt"
	"slices"
)

// TreeNode is a node of a tree as it is hashed. An inner node has Height, Size and Version; a leaf has Version, Key and
// Value; a node that an answer stops at has its Hash and nothing else.
type TreeNode struct {
	Height  uint64 // 0: a leaf
	Size    uint64 // leaves below; 0 for a leaf
	Version uint64 // height of the block that made the node
	Key     []byte
	Value   []byte
	Hash    []byte // 32 bytes, only where the answer stops
}

// ErrNoNode: a path leads below a leaf.
var ErrNoNode = errors.New("the tree has no node there")

const (
	// maxTopNodes bounds the inner nodes of an answer that is not the whole subtree: with where it stops, 2,049 nodes.
	maxTopNodes = 1024
	// nodeOverhead is more than an encoded node has besides key and value: numbers and, where an answer stops, a hash.
	nodeOverhead = 64
)

// Roots gives the roots of all trees at a retained height, in the order of their names. Errors as of [Store.Prove].
func (s *Store) Roots(height uint64) ([][]byte, error) {
	p, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release(p)
	if err := p.meta.retained(height); err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	rec, err := readRecord(p.snap, height)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	roots := make([][]byte, len(rec.roots))
	for i := range roots {
		roots[i] = rec.roots[i][:]
	}
	return roots, nil
}

// Subtree gives the nodes below (and with) the one that path leads to from the root of a tree at a retained height, a 0
// for left and a 1 for right: in pre-order, whole when it has at most `leaves` leaves and about `bytes` bytes encoded, else
// its top, down to nodes that a question of their own can have whole, or less. The node at the path itself is always there
// with what it is hashed from. Like Prove it works on a snapshot of its own, and it takes two reads per node.
//
// Errors: ErrNoNode, and those of [Store.Prove].
func (s *Store) Subtree(tree int, height uint64, path []byte, leaves, bytes int) ([]TreeNode, error) {
	if tree < 0 || tree >= treeCount || leaves < 1 {
		return nil, fmt.Errorf("read %d leaves of tree number %d: want at least one, of %d trees", leaves, tree, treeCount)
	}
	p, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release(p)
	fail := func(err error) ([]TreeNode, error) {
		return nil, fmt.Errorf("read tree %s at height %d below %x: %w", treeNames[tree], height, path, err)
	}
	if err := p.meta.retained(height); err != nil {
		return fail(err)
	}
	rec, err := readRecord(p.snap, height)
	if err != nil {
		return fail(err)
	}
	d := &treeDB{r: p.snap, prefix: treePrefix(tree)}
	n, err := d.readRoot(int64(height))
	if err != nil {
		return fail(err)
	}
	if n.hash != rec.roots[tree] {
		return fail(fmt.Errorf("%w: the root is %x, the record says %x", ErrMismatch, n.hash, rec.roots[tree]))
	}
	for _, step := range path {
		if n.leaf() || step > 1 {
			return fail(ErrNoNode)
		}
		left, right, err := d.children(n)
		if err != nil {
			return fail(err)
		}
		if n = left; step == 1 {
			n = right
		}
	}
	if n.size <= int64(leaves) {
		nodes, used, err := d.whole(nil, n, bytes)
		if err != nil {
			return fail(err)
		}
		if used <= bytes || n.leaf() {
			return nodes, nil
		}
		// Few leaves with long values: what is a quarter as large may fit.
		leaves = max(1, int(n.size/4))
	}
	nodes, err := d.top(n, int64(leaves))
	if err != nil {
		return fail(err)
	}
	return nodes, nil
}

// children reads both children of an inner node. Their heights go down, so that no damage on the disk makes a walk endless.
func (d *treeDB) children(n *node) (left, right *node, err error) {
	if left, err = d.readNode(n.left); err != nil {
		return nil, nil, err
	}
	if right, err = d.readNode(n.right); err != nil {
		return nil, nil, err
	}
	if left.height >= n.height || right.height >= n.height {
		return nil, nil, fmt.Errorf("%w: node %d/%d of height %d has children of heights %d and %d", ErrMismatch, n.id.version, n.id.nonce,
			n.height, left.height, right.height)
	}
	return left, right, nil
}

func (n *node) open() TreeNode {
	if n.leaf() {
		return TreeNode{Version: uint64(n.id.version), Key: n.key, Value: n.value}
	}
	return TreeNode{Height: uint64(n.height), Size: uint64(n.size), Version: uint64(n.id.version)}
}

// whole appends all nodes from n down, and returns what they take; it stops early when that passes the limit.
func (d *treeDB) whole(nodes []TreeNode, n *node, limit int) (_ []TreeNode, used int, err error) {
	used = nodeOverhead + len(n.key) + len(n.value)
	nodes = append(nodes, n.open())
	if n.leaf() {
		return nodes, used, nil
	}
	used = nodeOverhead
	left, right, err := d.children(n)
	if err != nil {
		return nil, 0, err
	}
	for _, child := range []*node{left, right} {
		if used > limit {
			break
		}
		var below int
		if nodes, below, err = d.whole(nodes, child, limit-used); err != nil {
			return nil, 0, err
		}
		used += below
	}
	return nodes, used, nil
}

// top gives n and, level by level, what is below it and has more than `leaves` leaves, up to maxTopNodes inner nodes, with the
// hashes of what it stops at.
func (d *treeDB) top(n *node, leaves int64) ([]TreeNode, error) {
	type inner struct{ left, right *node }
	opened := map[*node]inner{}
	for level := []*node{n}; len(level) > 0 && len(opened) < maxTopNodes; {
		var next []*node
		for _, m := range level {
			if len(opened) == maxTopNodes {
				break
			}
			left, right, err := d.children(m)
			if err != nil {
				return nil, err
			}
			opened[m] = inner{left, right}
			for _, child := range []*node{left, right} {
				if child.size > leaves && !child.leaf() {
					next = append(next, child)
				}
			}
		}
		level = next
	}
	var nodes []TreeNode
	var walk func(m *node)
	walk = func(m *node) {
		if below, ok := opened[m]; ok {
			nodes = append(nodes, m.open())
			walk(below.left)
			walk(below.right)
			return
		}
		nodes = append(nodes, TreeNode{Hash: slices.Clone(m.hash[:])})
	}
	walk(n)
	return nodes, nil
}
