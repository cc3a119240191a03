package proof

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// treeNames are the trees of the state in the order of their leaves under the AppHash.
var treeNames = ledger.TreeNames()

// AppHash returns the root over the trees: roots[i] is the 32-byte IAVL root of the tree ledger.TreeNames()[i].
func AppHash(roots [][]byte) ([]byte, error) {
	leaves, err := appLeaves(roots)
	if err != nil {
		return nil, err
	}
	return merkleRoot(leaves), nil
}

// appLeaves returns what the simple tree hashes for each named tree: name and SHA-256 of the root, each behind its
// length. It is the leaf that ics23.TendermintSpec describes for key = name and value = root.
func appLeaves(roots [][]byte) ([][]byte, error) {
	if len(roots) != ledger.TreeCount {
		return nil, fmt.Errorf("app hash over %d roots, want %d", len(roots), ledger.TreeCount)
	}
	leaves := make([][]byte, len(roots))
	for i, root := range roots {
		if len(root) != hashSize {
			return nil, fmt.Errorf("app hash: root of tree %q has %d bytes, want %d", treeNames[i], len(root), hashSize)
		}
		sum := sha256.Sum256(root)
		leaf := binary.AppendUvarint(nil, uint64(len(treeNames[i])))
		leaf = append(leaf, treeNames[i]...)
		leaf = append(leaf, hashSize)
		leaves[i] = append(leaf, sum[:]...)
	}
	return leaves, nil
}

// The simple Merkle tree is that of RFC 6962 section 2.1 with SHA-256, as cometbft's crypto/merkle: a leaf is
// H(0x00 || item), an inner node H(0x01 || left || right), the left subtree holds the largest power of two of leaves that
// is below their number, and the root over nothing is H("").

func leafHash(item []byte) []byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(item)
	return h.Sum(nil)
}

func innerHash(left, right []byte) []byte {
	h := sha256.New()
	h.Write([]byte{1})
	h.Write(left)
	h.Write(right)
	return h.Sum(nil)
}

// split returns how many of n leaves stand in the left subtree. n must be at least 2.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// merkleRoot returns the root over the items.
func merkleRoot(items [][]byte) []byte {
	switch n := uint64(len(items)); n {
	case 0:
		sum := sha256.Sum256(nil)
		return sum[:]
	case 1:
		return leafHash(items[0])
	default:
		k := split(n)
		return innerHash(merkleRoot(items[:k]), merkleRoot(items[k:]))
	}
}

// merklePath returns the root over the items and the audit path of one of them, from the leaf's sibling up.
func merklePath(items [][]byte, index uint64) (root []byte, aunts [][]byte) {
	if len(items) == 1 {
		return leafHash(items[0]), nil
	}
	k := split(uint64(len(items)))
	if index < k {
		left, aunts := merklePath(items[:k], index)
		right := merkleRoot(items[k:])
		return innerHash(left, right), append(aunts, right)
	}
	right, aunts := merklePath(items[k:], index-k)
	left := merkleRoot(items[:k])
	return innerHash(left, right), append(aunts, left)
}

// errPathLength is what rootFrom returns when aunts are too few or too many for the position.
var errPathLength = errors.New("number of aunts does not fit index and total")

// rootFrom climbs from a leaf at index of total to the root. It uses exactly the aunts that the position asks for.
func rootFrom(leaf []byte, index, total uint64, aunts [][]byte) ([]byte, error) {
	if index >= total {
		return nil, fmt.Errorf("index %d is not below total %d", index, total)
	}
	if total == 1 {
		if len(aunts) != 0 {
			return nil, errPathLength
		}
		return leaf, nil
	}
	if len(aunts) == 0 {
		return nil, errPathLength
	}
	last := len(aunts) - 1
	if k := split(total); index < k {
		left, err := rootFrom(leaf, index, k, aunts[:last])
		if err != nil {
			return nil, err
		}
		return innerHash(left, aunts[last]), nil
	} else {
		right, err := rootFrom(leaf, index-k, total-k, aunts[:last])
		if err != nil {
			return nil, err
		}
		return innerHash(aunts[last], right), nil
	}
}
