package store

import "github.com/pacioli-ledger/pacioli/ledger"

// treeCount trees stand under the AppHash; a tree's place among their names is its prefix on disk.
const treeCount = ledger.TreeCount

var treeNames = ledger.TreeNames()

// beside is the group of rows that no tree holds. It follows the trees, so that groups can be kept in one array.
const beside = ledger.PlaceBeside

// treeIndex gives the key's place in treeNames, beside, or -1 when nothing may hold the key.
func treeIndex(key []byte) int { return ledger.PlaceOf(key) }

// sentinel is the leaf that every tree gets at the first commit. Without it a tree could be empty, and an empty tree has
// no root to hash and no neighbours to prove an absence with. Its key sorts before every other and is never removed.
func sentinel(tree int) (key, value []byte) {
	return []byte{0x00}, append([]byte{0x01}, treeNames[tree]...)
}
