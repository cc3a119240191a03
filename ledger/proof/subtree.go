package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Whoever walks the trees of a state from the AppHash down, and has every node checked against the hash that the node
// above it named, sees every row of that state: a node cannot leave one out, nor show one twice, nor change one. That is
// what conservation is proven by, for a sum over rows is worth nothing when one of them may be missing.
//
// The walk begins with [OpenRoots], which gives the places of the trees' roots, and goes on with [Place.Open] for every
// place, which gives rows and further places in ascending order of keys.

const (
	// MaxLeaves bounds the leaves of one Subtree: 2,048 rows of some 200 bytes are 400 kB.
	MaxLeaves = 2048
	// MaxSubtree bounds the encoding of a Subtree in bytes. An answer with more than one leaf keeps below half of it; a
	// single value may have 1 MiB.
	MaxSubtree = 2 << 20
	// maxNodes is what MaxLeaves leaves are with the inner nodes above them.
	maxNodes = 2*MaxLeaves - 1
	// maxKey and maxRow bound a leaf's key and value in bytes, as the store does.
	maxKey, maxRow = 1 << 10, 1 << 20
	// maxCount bounds sizes and versions: the trees hash them as signed numbers.
	maxCount = 1<<62 - 1
)

// Node is one node of a state tree as it is hashed: an inner node has Height, Size and Version; a leaf Version, Key and
// Value; a node where a Subtree stops its Hash alone, for whatever else it said would not be proven.
type Node struct {
	Height  uint64 // 0: a leaf
	Size    uint64 // leaves below; 0 for a leaf
	Version uint64
	Key     []byte
	Value   []byte
	Hash    []byte
}

// Subtree is a node of a state tree with what is below it, or the top of that, in pre-order.
type Subtree []Node

// Encode returns the wire form: canonical protobuf {repeated Node nodes = 1}, Node {uint64 height = 1; uint64 size = 2;
// uint64 version = 3; bytes key = 4; bytes value = 5; bytes hash = 6}. It checks nothing.
func (s Subtree) Encode() []byte {
	w := canonical.NewWriter(nil)
	var buffer []byte
	for _, n := range s {
		node := canonical.NewWriter(buffer[:0])
		node.Uint64(1, n.Height)
		node.Uint64(2, n.Size)
		node.Uint64(3, n.Version)
		node.Bytes(4, n.Key)
		node.Bytes(5, n.Value)
		node.Bytes(6, n.Hash)
		buffer = node.Done()
		w.Message(1, buffer)
	}
	return w.Done()
}

// DecodeSubtree reads the wire form, of at most MaxSubtree bytes and 4,095 nodes, each of one of the three kinds. Keys,
// values and hashes point into b. What the nodes say of each other is not checked: that is [Place.Open].
func DecodeSubtree(b []byte) (Subtree, error) {
	if len(b) > MaxSubtree {
		return nil, invalid("subtree has %d bytes, at most %d", len(b), MaxSubtree)
	}
	var s Subtree
	r := canonical.NewReader(b)
	r.Repeated(1, "nodes", maxNodes, func(_ int, element []byte) error {
		m := canonical.NewReader(element)
		n := Node{Height: m.Uint64(1, "height"), Size: m.Uint64(2, "size"), Version: m.Uint64(3, "version"),
			Key: m.Bytes(4, "key", maxKey), Value: m.Bytes(5, "value", maxRow), Hash: m.Bytes(6, "hash", hashSize)}
		if err := m.Close(); err != nil {
			return err
		}
		if !n.known() {
			return canonical.Errorf("", "neither an inner node, nor a leaf, nor the hash of either")
		}
		s = append(s, n)
		return nil
	})
	if err := r.Close(); err != nil {
		return nil, invalid("subtree: %v", err)
	}
	return s, nil
}

// known tells whether a node is of one of the three kinds, with numbers in range.
func (n Node) known() bool {
	empty := len(n.Key) == 0 && len(n.Value) == 0
	made := n.Version >= 1 && n.Version <= maxCount
	switch {
	case len(n.Hash) != 0:
		return len(n.Hash) == hashSize && empty && n.Version == 0 && n.Height == 0 && n.Size == 0
	case n.Height == 0:
		return n.Size == 0 && made && len(n.Key) != 0 && len(n.Value) != 0
	}
	return n.Height <= maxDepth && n.Size >= 2 && n.Size <= maxCount && made && empty
}

// Place is a node of a state tree of which the hash is proven, and what the node above it is proven to say.
type Place struct {
	Tree  int    // index into ledger.TreeNames
	Path  []byte // from the root of the tree: 0 is left, 1 is right
	Hash  [hashSize]byte
	Above uint64 // height of the node above; 0 for a root
	Most  uint64 // leaves that are left for this node; 0 for a root
}

// EncodeRoots writes the roots of all trees, in the order of their names: {repeated bytes roots = 1}.
func EncodeRoots(roots [][]byte) []byte {
	w := canonical.NewWriter(nil)
	for _, root := range roots {
		w.Message(1, root)
	}
	return w.Done()
}

// OpenRoots reads what EncodeRoots wrote, checks it against the AppHash of the state, and returns the places of the roots.
func OpenRoots(appHash, b []byte) ([]Place, error) {
	if len(b) > ledger.TreeCount*(hashSize+2) {
		return nil, invalid("roots have %d bytes, at most %d", len(b), ledger.TreeCount*(hashSize+2))
	}
	var roots [][]byte
	r := canonical.NewReader(b)
	r.Repeated(1, "roots", ledger.TreeCount, func(_ int, element []byte) error {
		roots = append(roots, element)
		return nil
	})
	if err := r.Close(); err != nil {
		return nil, invalid("roots: %v", err)
	}
	sum, err := AppHash(roots)
	if err != nil {
		return nil, invalid("roots: %v", err)
	}
	if !bytes.Equal(sum, appHash) {
		return nil, invalid("roots give the app hash %x, want %x", sum, appHash)
	}
	places := make([]Place, len(roots))
	for i, root := range roots {
		places[i] = Place{Tree: i, Hash: [hashSize]byte(root)}
	}
	return places, nil
}

// Item is a row, or a place where more rows are.
type Item struct {
	Key, Value []byte
	Below      *Place // nil: a row
}

// Content is what stands below a place, in ascending order of keys.
type Content struct {
	Size  uint64 // leaves below the place, with the tree's own first leaf
	Items []Item // without that leaf, which is no row
}

// Open reads an encoded Subtree and checks that it is the one at this place: the hashes lead from its leaves and from where
// it stops to the place's; sizes and heights fit each other; keys ascend and belong to this tree, whose first leaf is its own.
// Keys and values of the content point into b.
//
// What spans several places is the caller's to check: that a row sorts behind the one before it, and that the rows of a tree
// with its own leaf are as many as the size of its root.
func (p Place) Open(b []byte) (Content, error) {
	if p.Tree < 0 || p.Tree >= ledger.TreeCount || len(p.Path) > maxDepth {
		return Content{}, invalid("there is no place %x in tree number %d", p.Path, p.Tree)
	}
	nodes, err := DecodeSubtree(b)
	if err != nil {
		return Content{}, err
	}
	if len(nodes) == 0 || len(nodes[0].Hash) != 0 {
		return Content{}, invalid("subtree does not show its uppermost node")
	}
	o := opening{place: p, name: treeNames[p.Tree], rest: nodes, path: append(make([]byte, 0, maxDepth+1), p.Path...)}
	o.content.Items = make([]Item, 0, len(nodes)/2+1)
	limit := uint64(maxDepth + 1)
	if p.Above != 0 {
		limit = p.Above
	}
	_, size, sum, err := o.node(limit, p.Most)
	if err != nil {
		return Content{}, err
	}
	if len(o.rest) != 0 {
		return Content{}, invalid("%d nodes stand behind the end of the subtree", len(o.rest))
	}
	if p.Most != 0 && size > p.Most {
		return Content{}, invalid("subtree has %d leaves, the node above it leaves room for %d", size, p.Most)
	}
	if sum != p.Hash {
		return Content{}, invalid("subtree of tree %q hashes to %x, want %x", o.name, sum, p.Hash)
	}
	o.content.Size = size
	return o.content, nil
}

// opening is a Subtree while it is being checked.
type opening struct {
	place   Place
	name    string
	rest    Subtree
	path    []byte // of the node at hand
	last    []byte // key of the leaf before
	buffer  []byte
	content Content
}

// node takes a node with all that is below it off the rest. limit is the height of the node above, most the leaves that are
// left in it. The height and size that come back are 0 where the Subtree stops. Heights go down, so the recursion is at most
// 65 deep.
func (o *opening) node(limit, most uint64) (height, size uint64, sum [hashSize]byte, err error) {
	if len(o.rest) == 0 {
		return 0, 0, sum, invalid("subtree ends in the middle")
	}
	n := o.rest[0]
	o.rest = o.rest[1:]
	switch {
	case n.Height >= limit:
		return 0, 0, sum, invalid("a node of height %d stands below one of height %d", n.Height, limit)
	case len(n.Hash) != 0:
		sum = [hashSize]byte(n.Hash)
		o.content.Items = append(o.content.Items, Item{Below: &Place{o.place.Tree, bytes.Clone(o.path), sum, limit, most}})
		return 0, 0, sum, nil
	case n.Height == 0:
		if err := o.leaf(n); err != nil {
			return 0, 0, sum, err
		}
		value := sha256.Sum256(n.Value)
		b := binary.AppendUvarint(n.head(o.buffer[:0], 1), uint64(len(n.Key)))
		b = append(append(append(b, n.Key...), hashSize), value[:]...)
		o.buffer = b
		return 0, 1, sha256.Sum256(b), nil
	}
	o.path = append(o.path, 0)
	leftHeight, leftSize, left, err := o.node(n.Height, n.Size-1)
	if err != nil {
		return 0, 0, sum, err
	}
	if leftSize >= n.Size {
		return 0, 0, sum, invalid("a node of size %d has a left child of size %d", n.Size, leftSize)
	}
	o.path[len(o.path)-1] = 1
	rightHeight, rightSize, right, err := o.node(n.Height, n.Size-max(leftSize, 1))
	if err != nil {
		return 0, 0, sum, err
	}
	o.path = o.path[:len(o.path)-1]
	whole := leftSize != 0 && rightSize != 0
	if whole && (n.Height != max(leftHeight, rightHeight)+1 || n.Size != leftSize+rightSize) || rightSize >= n.Size {
		return 0, 0, sum, invalid("a node of height %d and size %d has children of heights %d, %d and sizes %d, %d", n.Height, n.Size,
			leftHeight, rightHeight, leftSize, rightSize)
	}
	b := append(append(n.head(o.buffer[:0], n.Size), hashSize), left[:]...)
	b = append(append(b, hashSize), right[:]...)
	o.buffer = b
	return n.Height, n.Size, sha256.Sum256(b), nil
}

// head begins what a node's hash is of.
func (n Node) head(b []byte, size uint64) []byte {
	b = binary.AppendVarint(b, int64(n.Height))
	return binary.AppendVarint(binary.AppendVarint(b, int64(size)), int64(n.Version))
}

// leaf checks a leaf's key, and keeps it unless it is the tree's own.
func (o *opening) leaf(n Node) error {
	if o.last != nil && bytes.Compare(o.last, n.Key) >= 0 {
		return invalid("key %x does not sort behind %x", n.Key, o.last)
	}
	o.last = n.Key
	leftmost := true
	for _, step := range o.path {
		leftmost = leftmost && step == 0
	}
	if leftmost {
		if string(n.Key) != "\x00" || string(n.Value) != "\x01"+o.name {
			return invalid("tree %q begins with %x = %x, which is not its own leaf", o.name, n.Key, n.Value)
		}
		return nil
	}
	if name, ok := ledger.TreeOf(n.Key); !ok || name != o.name {
		return invalid("key %x does not belong to tree %q", n.Key, o.name)
	}
	o.content.Items = append(o.content.Items, Item{Key: n.Key, Value: n.Value})
	return nil
}
