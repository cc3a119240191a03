package store

import (
	"bytes"
	"fmt"

	"github.com/cosmos/iavl"
	ics23 "github.com/cosmos/ics23/go"
)

// The types of the two proof operations, as Cosmos chains name them.
const (
	OpIAVL   = "ics23:iavl"
	OpSimple = "ics23:simple"
)

// ProofOp is one step of a proof: Data is an ICS-23 CommitmentProof, marshalled, of Key.
type ProofOp struct {
	Type string
	Key  []byte
	Data []byte
}

// Proof says what a state key held at a height, and proves it against that height's AppHash, which is in the header of
// the next height.
type Proof struct {
	Height  uint64
	Key     []byte
	Value   []byte     // nil: the key is absent
	Tree    string     // the tree that holds the key
	AppHash []byte     // of Height; a client takes it from a verified header, not from here
	Ops     [2]ProofOp // the key in its tree; the tree's root under the AppHash
}

// proofCacheNodes is the cache of one proof's own tree object: an absence walks down up to four times, and 64 levels are
// more than a tree of 2^40 leaves has.
const proofCacheNodes = 4 * 64

// Prove proves presence or absence of a hashed state key at a retained height. It works on a snapshot of its own and
// neither waits for Stage and Commit nor delays them. Errors: ErrPruned, ErrNotCommitted, ErrBroken, or that no tree
// holds the key.
func (s *Store) Prove(key []byte, height uint64) (proof *Proof, err error) {
	i := treeIndex(key)
	if i < 0 || i == beside {
		return nil, fmt.Errorf("prove key %x: no tree holds it", key)
	}
	p, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release(p)
	if err := p.meta.retained(height); err != nil {
		return nil, fmt.Errorf("prove key %x: %w", key, err)
	}
	rec, err := readRecord(p.snap, height)
	if err != nil {
		return nil, fmt.Errorf("prove key %x: %w", key, err)
	}
	// iavl follows a nil node when a read fails in the middle of a proof. Anyone may ask for proofs, so that must not
	// end the node; the writer's path has no such net.
	defer func() {
		if r := recover(); r != nil {
			proof, err = nil, fmt.Errorf("prove key %x at height %d in tree %s: %v", key, height, treeNames[i], r)
		}
	}()
	db := &treeDB{r: p.snap, prefix: treePrefix(i)}
	tree, err := iavl.NewMutableTree(db, proofCacheNodes, true, iavl.NewNopLogger()).GetImmutable(int64(height))
	if err != nil {
		return nil, fmt.Errorf("prove key %x: open tree %s at height %d: %w", key, treeNames[i], height, err)
	}
	if !bytes.Equal(tree.Hash(), rec.roots[i][:]) {
		return nil, fmt.Errorf("prove key %x: %w: tree %s at height %d has root %x, the record says %x", key,
			ErrMismatch, treeNames[i], height, tree.Hash(), rec.roots[i])
	}
	value, err := tree.Get(key)
	if err != nil {
		return nil, fmt.Errorf("prove key %x: read tree %s at height %d: %w", key, treeNames[i], height, err)
	}
	var inTree *ics23.CommitmentProof
	if value != nil {
		inTree, err = tree.GetMembershipProof(key)
	} else {
		inTree, err = tree.GetNonMembershipProof(key)
	}
	if err != nil {
		return nil, fmt.Errorf("prove key %x in tree %s at height %d: %w", key, treeNames[i], height, err)
	}
	proof = &Proof{Height: height, Key: bytes.Clone(key), Value: bytes.Clone(value), Tree: treeNames[i],
		AppHash: bytes.Clone(rec.appHash[:])}
	for n, op := range [...]struct {
		kind  string
		key   []byte
		proof *ics23.CommitmentProof
	}{{OpIAVL, proof.Key, inTree}, {OpSimple, []byte(treeNames[i]), rootProof(&rec.roots, i)}} {
		data, err := op.proof.Marshal()
		if err != nil {
			return nil, fmt.Errorf("prove key %x: encode %s: %w", key, op.kind, err)
		}
		proof.Ops[n] = ProofOp{Type: op.kind, Key: op.key, Data: data}
	}
	return proof, nil
}
