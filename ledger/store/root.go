package store

import (
	"crypto/sha256"

	ics23 "github.com/cosmos/ics23/go"
)

// The AppHash is the root of a simple Merkle tree (RFC 6962: leaves are hashed under 0x00, inner nodes under 0x01, the
// left half is the largest power of two below the count) over one leaf per tree, in the order of treeNames. A leaf is
// len(name) || name || 32 || SHA-256(root), which is what ICS-23's TendermintSpec calls the key and the prehashed value.

func leafHash(name string, root [32]byte) [32]byte {
	value := sha256.Sum256(root[:])
	b := make([]byte, 0, 1+1+len(name)+1+len(value))
	b = append(b, 0x00, byte(len(name))) // names are shorter than 128 bytes: one varint byte
	b = append(b, name...)
	b = append(b, byte(len(value)))
	b = append(b, value[:]...)
	return sha256.Sum256(b)
}

func innerHash(left, right [32]byte) [32]byte {
	var b [65]byte
	b[0] = 0x01
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// split is the number of leaves in the left half of a tree of n leaves, n > 1.
func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func merkleRoot(leaves [][32]byte) [32]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	return innerHash(merkleRoot(leaves[:k]), merkleRoot(leaves[k:]))
}

// merklePath gives the steps from leaf i up to the root, lowest first.
func merklePath(leaves [][32]byte, i int) []*ics23.InnerOp {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		right := merkleRoot(leaves[k:])
		return append(merklePath(leaves[:k], i),
			&ics23.InnerOp{Hash: ics23.HashOp_SHA256, Prefix: []byte{0x01}, Suffix: right[:]})
	}
	left := merkleRoot(leaves[:k])
	return append(merklePath(leaves[k:], i-k),
		&ics23.InnerOp{Hash: ics23.HashOp_SHA256, Prefix: append([]byte{0x01}, left[:]...)})
}

func rootLeaves(roots *[treeCount][32]byte) [][32]byte {
	leaves := make([][32]byte, treeCount)
	for i, root := range roots {
		leaves[i] = leafHash(treeNames[i], root)
	}
	return leaves
}

func appHash(roots *[treeCount][32]byte) [32]byte { return merkleRoot(rootLeaves(roots)) }

// rootProof proves tree i's root under the AppHash.
func rootProof(roots *[treeCount][32]byte, i int) *ics23.CommitmentProof {
	return &ics23.CommitmentProof{Proof: &ics23.CommitmentProof_Exist{Exist: &ics23.ExistenceProof{
		Key:   []byte(treeNames[i]),
		Value: append([]byte(nil), roots[i][:]...),
		Leaf:  ics23.TendermintSpec.LeafSpec,
		Path:  merklePath(rootLeaves(roots), i),
	}}}
}
