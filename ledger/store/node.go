package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// This file reads iavl's nodes without iavl, so that Check does not trust the code whose work it checks.
//
// A row of a tree is 's' || version (8) || nonce (4), big endian. Its value is one of
//
//	leaf       height 0 || size 1 || key || value
//	inner      height || size || key || hash || mode 0 || left version || left nonce || right version || right nonce
//	reference  a row key of this tree: the version has the same root as that earlier node
//
// with signed varints for numbers and an unsigned varint length before bytes. The root of a version has nonce 1, or 0 when
// pruning moved it. A hash covers SHA-256 of height || size || version || and, for a leaf, key || SHA-256(value), for an
// inner node the hashes of both children, each hash behind a length byte of 32.

type nodeID struct {
	version int64
	nonce   uint32
}

const nodeKeyBytes = 1 + 8 + 4

func (id nodeID) key() []byte {
	b := append(make([]byte, 0, nodeKeyBytes), 's')
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(id.version)), id.nonce)
}

func parseNodeID(key []byte) (nodeID, bool) {
	if len(key) != nodeKeyBytes || key[0] != 's' {
		return nodeID{}, false
	}
	return nodeID{int64(binary.BigEndian.Uint64(key[1:])), binary.BigEndian.Uint32(key[9:])}, true
}

type node struct {
	id          nodeID
	height      int64
	size        int64
	key, value  []byte
	hash        [32]byte // as stored in an inner node, as computed for a leaf
	left, right nodeID
}

func (n *node) leaf() bool { return n.height == 0 }

var errNode = errors.New("bytes are not a node")

func parseNode(id nodeID, b []byte) (*node, error) {
	n := &node{id: id}
	var ok [8]bool
	n.height, b, ok[0] = takeVarint(b)
	n.size, b, ok[1] = takeVarint(b)
	if !ok[0] || !ok[1] || n.height < 0 || n.height > 127 || n.size < 1 {
		return nil, errNode
	}
	var err error
	if n.key, b, err = takeBytes(b); err != nil {
		return nil, errNode
	}
	if n.leaf() {
		if n.value, b, err = takeBytes(b); err != nil || len(b) != 0 || n.size != 1 {
			return nil, errNode
		}
		n.hash = n.leafSum()
		return n, nil
	}
	hash, b, err := takeBytes(b)
	if err != nil || len(hash) != 32 {
		return nil, errNode
	}
	copy(n.hash[:], hash)
	var mode, leftNonce, rightNonce int64
	mode, b, ok[2] = takeVarint(b)
	n.left.version, b, ok[3] = takeVarint(b)
	leftNonce, b, ok[4] = takeVarint(b)
	n.right.version, b, ok[5] = takeVarint(b)
	rightNonce, b, ok[6] = takeVarint(b)
	n.left.nonce, n.right.nonce = uint32(leftNonce), uint32(rightNonce)
	if !ok[2] || !ok[3] || !ok[4] || !ok[5] || !ok[6] || mode != 0 || len(b) != 0 ||
		int64(n.left.nonce) != leftNonce || int64(n.right.nonce) != rightNonce {
		return nil, errNode
	}
	return n, nil
}

// encode writes a node as iavl does, and parseNode reads.
func (n *node) encode() []byte {
	b := binary.AppendVarint(make([]byte, 0, 128+len(n.value)), n.height)
	b = binary.AppendVarint(b, n.size)
	b = append(binary.AppendUvarint(b, uint64(len(n.key))), n.key...)
	if n.leaf() {
		return append(binary.AppendUvarint(b, uint64(len(n.value))), n.value...)
	}
	b = append(append(b, byte(len(n.hash))), n.hash[:]...)
	b = append(b, 0) // mode
	for _, id := range []nodeID{n.left, n.right} {
		b = binary.AppendVarint(binary.AppendVarint(b, id.version), int64(id.nonce))
	}
	return b
}

func takeVarint(b []byte) (v int64, rest []byte, ok bool) {
	v, w := binary.Varint(b)
	if w <= 0 {
		return 0, nil, false
	}
	return v, b[w:], true
}

func (n *node) head() []byte {
	b := binary.AppendVarint(make([]byte, 0, 128), n.height)
	return binary.AppendVarint(binary.AppendVarint(b, n.size), n.id.version)
}

func (n *node) leafSum() [32]byte {
	b := binary.AppendUvarint(n.head(), uint64(len(n.key)))
	value := sha256.Sum256(n.value)
	b = append(append(append(b, n.key...), 32), value[:]...)
	return sha256.Sum256(b)
}

func (n *node) innerSum(left, right [32]byte) [32]byte {
	b := append(append(n.head(), 32), left[:]...)
	b = append(append(b, 32), right[:]...)
	return sha256.Sum256(b)
}

// readNode reads a node, also where pruning moved it to.
func (d *treeDB) readNode(id nodeID) (*node, error) {
	b, err := d.Get(id.key())
	if err == nil && b == nil && id.nonce == 1 {
		b, err = d.Get(nodeID{id.version, 0}.key())
	}
	if err != nil {
		return nil, fmt.Errorf("read node %d/%d: %w", id.version, id.nonce, err)
	}
	if b == nil {
		return nil, fmt.Errorf("node %d/%d is missing", id.version, id.nonce)
	}
	n, err := parseNode(id, b)
	if err != nil {
		return nil, fmt.Errorf("node %d/%d: %w", id.version, id.nonce, err)
	}
	return n, nil
}

// readRoot reads the root node of a version.
func (d *treeDB) readRoot(version int64) (*node, error) {
	id := nodeID{version, 1}
	b, err := d.Get(id.key())
	if err != nil {
		return nil, fmt.Errorf("read root of version %d: %w", version, err)
	}
	if b == nil {
		return nil, fmt.Errorf("root of version %d is missing", version)
	}
	if to, ok := parseNodeID(b); ok {
		return d.readNode(to)
	}
	return d.readNode(id)
}

// walk visits the leaves below n in ascending order, holding no more than one path in memory. It checks that sizes and
// heights are what the children say, that keys ascend, and that every hash is that of the children: what it returns
// is the hash computed from the leaves up, not one read from the disk.
func (d *treeDB) walk(n *node, last *[]byte, leaf func(*node) error) ([32]byte, error) {
	if n.leaf() {
		if *last != nil && bytes.Compare(*last, n.key) >= 0 {
			return n.hash, fmt.Errorf("leaf %x does not sort after %x", n.key, *last)
		}
		*last = n.key
		return n.hash, leaf(n)
	}
	left, err := d.readNode(n.left)
	if err != nil {
		return n.hash, fmt.Errorf("left of %d/%d: %w", n.id.version, n.id.nonce, err)
	}
	right, err := d.readNode(n.right)
	if err != nil {
		return n.hash, fmt.Errorf("right of %d/%d: %w", n.id.version, n.id.nonce, err)
	}
	if n.height != max(left.height, right.height)+1 || n.size != left.size+right.size {
		return n.hash, fmt.Errorf("node %d/%d has height %d and size %d, its children %d, %d and %d, %d",
			n.id.version, n.id.nonce, n.height, n.size, left.height, right.height, left.size, right.size)
	}
	lh, err := d.walk(left, last, leaf)
	if err != nil {
		return lh, err
	}
	rh, err := d.walk(right, last, leaf)
	if err != nil {
		return rh, err
	}
	sum := n.innerSum(lh, rh)
	if sum != n.hash {
		return sum, fmt.Errorf("node %d/%d hashes to %x, but says %x", n.id.version, n.id.nonce, sum, n.hash)
	}
	return sum, nil
}

// holds says whether the tree has a leaf of that key at the version.
func (d *treeDB) holds(version int64, key []byte) (bool, error) {
	n, err := d.readRoot(version)
	for err == nil && !n.leaf() {
		if bytes.Compare(key, n.key) < 0 {
			n, err = d.readNode(n.left)
		} else {
			n, err = d.readNode(n.right)
		}
	}
	return err == nil && bytes.Equal(n.key, key), err
}
