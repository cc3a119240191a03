package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// A state is exported as a stream of records, the same on every node that has committed the height: tree by tree in the
// order of their names, each in post-order (left, right, node), and behind a leaf the rows beside the trees that it commits
// to (ledger.Beside).
//
//	leaf     0x01 || uvarint version || uvarint length || key || uvarint length || value
//	inner    0x02 || uvarint version
//	beside   0x03 || uvarint length || value
//
// What can be derived is not in it: where a tree ends (its top says how many leaves it has), heights and sizes, the keys
// of inner nodes (each is the least key of its right half: iavl does not hash it, so a stranger's word would not do), flat
// rows, keys of rows beside. So a stream can be right in one way only, and everything in it is checked by a hash.
const (
	recordLeaf   = 0x01
	recordInner  = 0x02
	recordBeside = 0x03
)

// MaxRecordBytes bounds a record: the longest is a leaf with the longest key and value.
const MaxRecordBytes = 1 + 3*binary.MaxVarintLen64 + maxKeyBytes + maxValueBytes

const (
	// maxTreeHeight bounds a tree that is imported: an AVL tree of 2^44 leaves is at most 64 high.
	maxTreeHeight = 64
	// maxTreeLeaves bounds the leaves of a tree that is imported: their nodes are numbered in 32 bits.
	maxTreeLeaves = 1 << 30
)

// Tops are the top nodes of all trees at a height, with what they are hashed from. They give the AppHash, and with it the
// number of leaves that each tree has: so a stranger's snapshot is known to be of the right state, and how large that
// is, before anything of it is fetched.
type Tops struct {
	Height uint64
	Trees  [treeCount]Top
}

// Top is the top node of a tree. One of height 0 is the leaf that every tree begins with.
type Top struct {
	Height, Size, Version uint64
	Left, Right           [32]byte // hashes of the children; of height 0 zero
}

// root returns the hash of a tree's top node.
func (t Top) root(tree int) [32]byte {
	n := node{id: nodeID{version: int64(t.Version)}, height: int64(t.Height), size: int64(t.Size)}
	if t.Height == 0 {
		n.key, n.value = sentinel(tree)
		return n.leafSum()
	}
	return n.innerSum(t.Left, t.Right)
}

func (t *Tops) roots() (roots [treeCount][32]byte) {
	for i, top := range t.Trees {
		roots[i] = top.root(i)
	}
	return roots
}

// AppHash that the tops give.
func (t *Tops) AppHash() [32]byte {
	roots := t.roots()
	return appHash(&roots)
}

// Leaves of all trees, with the one that each begins with.
func (t *Tops) Leaves() (n uint64) {
	for _, top := range t.Trees {
		n += top.Size
	}
	return n
}

// Check refuses what no state can have.
func (t *Tops) Check() error {
	if t.Height == 0 || t.Height > math.MaxInt64 {
		return fmt.Errorf("a state of height %d", t.Height)
	}
	for i, top := range t.Trees {
		if top.Height > maxTreeHeight || top.Size == 0 || top.Size > maxTreeLeaves || (top.Height == 0) != (top.Size == 1) || top.Version == 0 || top.Version > t.Height {
			return fmt.Errorf("tree %s has height %d, %d leaves and version %d, in a state of height %d", treeNames[i], top.Height, top.Size, top.Version, t.Height)
		}
		if top.Height == 0 && (top.Left != [32]byte{} || top.Right != [32]byte{}) {
			return fmt.Errorf("tree %s is one leaf, and has children", treeNames[i])
		}
	}
	return nil
}

// Tops reads the top nodes of the view's height. There are none before the first commit.
func (v *View) Tops() (*Tops, error) {
	if err := v.ready(); err != nil {
		return nil, err
	}
	m := v.p.meta
	if m.height == 0 {
		return nil, fmt.Errorf("read the tops of the trees: %w (nothing is)", ErrNotCommitted)
	}
	rec, err := readRecord(v.p.snap, m.height)
	if err != nil {
		return nil, err
	}
	t := &Tops{Height: m.height}
	for i := range treeNames {
		d := &treeDB{r: v.p.snap, prefix: treePrefix(i)}
		n, err := d.readRoot(int64(m.height))
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", treeNames[i], err)
		}
		top := Top{Height: uint64(n.height), Size: uint64(n.size), Version: uint64(n.id.version)}
		if !n.leaf() {
			left, right, err := d.children(n)
			if err != nil {
				return nil, fmt.Errorf("tree %s: %w", treeNames[i], err)
			}
			top.Left, top.Right = left.hash, right.hash
		}
		if root := top.root(i); root != rec.roots[i] {
			return nil, fmt.Errorf("%w: tree %s at height %d has root %x, the record says %x", ErrMismatch, treeNames[i], m.height, root, rec.roots[i])
		}
		t.Trees[i] = top
	}
	return t, nil
}

// Export calls record for each record of the view's state in their order; its error ends the export and is returned. The
// slice is used again. Every hash is checked on the way: what does not match the AppHash is ErrMismatch, never exported as
// whole. It reads two nodes per leaf, some 12 µs each, from the view's own snapshot: the writer goes on meanwhile, and the
// caller makes pauses where the machine has better things to do.
func (v *View) Export(ctx context.Context, record func([]byte) error) error {
	t, err := v.Tops()
	if err != nil {
		return err
	}
	for i := range treeNames {
		e := exporter{ctx: ctx, v: v, d: &treeDB{r: v.p.snap, prefix: treePrefix(i)}, record: record}
		n, err := e.d.readRoot(int64(t.Height))
		if err == nil {
			_, _, err = e.walk(n)
		}
		if err != nil {
			return fmt.Errorf("export tree %s of height %d: %w", treeNames[i], t.Height, err)
		}
	}
	return nil
}

type exporter struct {
	ctx    context.Context
	v      *View
	d      *treeDB
	record func([]byte) error
	buf    []byte
	last   []byte
}

// walk exports what is below n, and n. It returns the least key, and the hash as computed from the leaves up.
func (e *exporter) walk(n *node) (least []byte, hash [32]byte, err error) {
	if n.leaf() {
		if err := e.ctx.Err(); err != nil {
			return nil, hash, err
		}
		if e.last != nil && bytes.Compare(e.last, n.key) >= 0 {
			return nil, hash, fmt.Errorf("%w: leaf %x does not sort after %x", ErrMismatch, n.key, e.last)
		}
		e.last = n.key
		e.buf = appendLeafRecord(e.buf[:0], uint64(n.id.version), n.key, n.value)
		if err := e.record(e.buf); err != nil {
			return nil, hash, err
		}
		return n.key, n.hash, e.beside(n)
	}
	left, right, err := e.d.children(n)
	if err != nil {
		return nil, hash, err
	}
	least, leftHash, err := e.walk(left)
	if err != nil {
		return nil, hash, err
	}
	middle, rightHash, err := e.walk(right)
	if err != nil {
		return nil, hash, err
	}
	hash = n.innerSum(leftHash, rightHash)
	if hash != n.hash || !bytes.Equal(n.key, middle) || n.size != left.size+right.size || n.height != max(left.height, right.height)+1 {
		return nil, hash, fmt.Errorf("%w: node %d/%d does not fit its children", ErrMismatch, n.id.version, n.id.nonce)
	}
	e.buf = binary.AppendUvarint(append(e.buf[:0], recordInner), uint64(n.id.version))
	return least, hash, e.record(e.buf)
}

// beside exports the rows beside the trees that a leaf commits to.
func (e *exporter) beside(n *node) error {
	b, err := ledger.BesideOf(n.key, n.value)
	if err != nil || b == nil {
		return err
	}
	for {
		key, ok := b.Next()
		if !ok {
			return nil
		}
		value, err := e.v.Get(key)
		if err != nil {
			return err
		}
		if value == nil {
			return fmt.Errorf("%w: row %x is missing", ErrMismatch, key)
		}
		if _, err := b.Take(value); err != nil {
			return fmt.Errorf("%w: %w", ErrMismatch, err)
		}
		e.buf = append(binary.AppendUvarint(append(e.buf[:0], recordBeside), uint64(len(value))), value...)
		if err := e.record(e.buf); err != nil {
			return err
		}
	}
}

func appendLeafRecord(b []byte, version uint64, key, value []byte) []byte {
	b = binary.AppendUvarint(append(b, recordLeaf), version)
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

var errRecord = errors.New("bytes are not a record")
