package store

import "crypto/sha256"

// The kinds of state key, by first byte. 0x00 is the sentinel's and 0x70..0x7f are kept free.
const (
	kindShardFirst  = 0x01
	kindParams      = 0x40
	kindReplay      = 0x50
	kindValidators  = 0x60
	kindFree        = 0x70
	kindBesideFirst = 0x80
)

// treeCount is the number of hashed trees: 16 shards, params, replay and validators. It is consensus: one tree more or
// less changes every AppHash, so it is fixed at genesis.
const treeCount = 19

// treeNames is in ascending order, which is the order of the leaves under the AppHash (the order that Cosmos chains
// give their stores, so that their proof code fits). A tree's place in it is the tree's prefix on disk.
var treeNames = [treeCount]string{
	"params", "replay",
	"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf",
	"validators",
}

const (
	treeParams     = 0
	treeReplay     = 1
	treeShard0     = 2
	treeValidators = 18
)

// shardDomain keeps the shard's hash apart from every other hash of a state key.
const shardDomain = "pacioli.shard.v1\x00"

// TreeOf says which tree holds a state key. Keys of kinds 0x80 and above are kept beside the trees: hashed is false and
// the name is empty. A key that no tree and no row may hold (empty, kind 0x00, kinds 0x70..0x7f) gives "" and true.
//
// Kinds 0x01..0x3f are spread over 16 shards by a hash of the whole key, not by the key itself: an attacker may choose
// addresses, but gains no more than one deep shard by grinding hashes, and honest load spreads evenly.
func TreeOf(key []byte) (name string, hashed bool) {
	i := treeIndex(key)
	switch {
	case i == beside:
		return "", false
	case i < 0:
		return "", true
	}
	return treeNames[i], true
}

// beside is the group of rows that no tree holds. It follows the trees, so that groups can be kept in one array.
const beside = treeCount

// treeIndex gives the key's place in treeNames, beside, or -1 when nothing may hold the key.
func treeIndex(key []byte) int {
	if len(key) == 0 {
		return -1
	}
	switch kind := key[0]; {
	case kind < kindShardFirst:
		return -1
	case kind < kindParams:
		h := sha256.New()
		h.Write([]byte(shardDomain))
		h.Write(key)
		var sum [sha256.Size]byte
		return treeShard0 + int(h.Sum(sum[:0])[0]>>4)
	case kind < kindReplay:
		return treeParams
	case kind < kindValidators:
		return treeReplay
	case kind < kindFree:
		return treeValidators
	case kind < kindBesideFirst:
		return -1
	}
	return beside
}

// sentinel is the leaf that every tree gets at the first commit. Without it a tree could be empty, and an empty tree has
// no root to hash and no neighbours to prove an absence with. Its key sorts before every other and is never removed.
func sentinel(tree int) (key, value []byte) {
	return []byte{0x00}, append([]byte{0x01}, treeNames[tree]...)
}
