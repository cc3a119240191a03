package ledger

import "github.com/pacioli-ledger/pacioli/crypto"

// Names of the Merkle trees besides the sixteen shards "s0" to "sf".
const (
	TreeDue        = "due"
	TreeParams     = "params"
	TreeReplay     = "replay"
	TreeValidators = "validators"
)

// TreeCount is the number of Merkle trees. It is consensus: one tree more or less changes every AppHash.
const TreeCount = 20

// treeNames is in ascending order of bytes, which is the order of the leaves under the AppHash.
var treeNames = [TreeCount]string{
	TreeDue, TreeParams, TreeReplay,
	"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf",
	TreeValidators,
}

const (
	firstShard = 3

	// PlaceBeside is the place of rows that no tree holds.
	PlaceBeside = TreeCount
	// PlaceNone is the place of keys that are no rows: empty, of kind 0x00, which is every tree's own first leaf, or of
	// a kind that is kept free.
	PlaceNone = -1
)

// TreeNames returns the names of the trees in the order of their leaves under the AppHash.
func TreeNames() []string { return append([]string(nil), treeNames[:]...) }

// PlaceOf returns where a row lives, by its key alone: a number below [TreeCount] is an index into [TreeNames].
//
// Accounts, lines, assets and codes are spread over sixteen trees by the top four bits of a hash of the whole key, so that
// the trees work in parallel. Whoever chooses keys by grinding hashes gains no more than one deep shard.
func PlaceOf(key []byte) int {
	if len(key) == 0 {
		return PlaceNone
	}
	switch kind := key[0]; {
	case kind >= 0x01 && kind <= 0x3f:
		return firstShard + int(crypto.DomainShard.Hash(key)[0]>>4)
	case kind >= 0x40 && kind <= 0x4f:
		return 1
	case kind >= 0x50 && kind <= 0x5f:
		return 2
	case kind >= 0x60 && kind <= 0x6f:
		return TreeCount - 1
	case kind >= 0x70 && kind <= 0x7f:
		return 0
	case kind >= 0x80:
		return PlaceBeside
	}
	return PlaceNone
}

// TreeOf returns the name of the tree that holds a row; ok is false for keys that no tree holds.
func TreeOf(key []byte) (tree string, ok bool) {
	if i := PlaceOf(key); i >= 0 && i < TreeCount {
		return treeNames[i], true
	}
	return "", false
}
