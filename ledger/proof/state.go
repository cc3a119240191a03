package proof

import (
	"bytes"
	"fmt"

	ics23 "github.com/cosmos/ics23/go"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// MaxState bounds the encoding of a State in bytes. An absence carries two neighbours; each has at most maxDepth
	// levels of at most 12+33 bytes before and 33 behind the child and 8 of protobuf (5.5 KB together), its key and its
	// value. The largest value that the ledger writes is the row of 100 ML-DSA validators, 197 kB: two of them fit.
	MaxState = 512 << 10
	// maxSimple bounds the proof from a tree's root to the AppHash: maxSimpleDepth levels of at most 33+32+8 bytes, and a
	// leaf below 100 bytes, make 700; the rest is room for more trees.
	maxSimple = 2 << 10
	// maxDepth bounds the levels of an IAVL proof. An AVL tree of n leaves is at most 1.44*log2(n) high: 64 levels hold
	// 2^44 leaves.
	maxDepth = 64
	// maxSimpleDepth bounds the levels above the trees' roots: 19 trees need 5, 256 would need 8.
	maxSimpleDepth = 8
)

// State proves what stands, or does not stand, under one key of the state. Both fields are encoded ics23.CommitmentProofs
// in their only accepted form: IAVL leads from the key's leaf (or its neighbours') to the root of its tree, Simple from
// that root to the AppHash.
type State struct {
	IAVL   []byte
	Simple []byte
}

// Encode returns the wire form: canonical protobuf {bytes iavl = 1; bytes simple = 2}. It does not check the limits.
func (p State) Encode() []byte {
	w := canonical.NewWriter(nil)
	w.Bytes(1, p.IAVL)
	w.Bytes(2, p.Simple)
	return w.Done()
}

// DecodeState reads the wire form, of at most MaxState bytes. The fields point into b.
func DecodeState(b []byte) (State, error) {
	if len(b) > MaxState {
		return State{}, invalid("state proof has %d bytes, at most %d", len(b), MaxState)
	}
	r := canonical.NewReader(b)
	p := State{IAVL: r.Bytes(1, "iavl", MaxState), Simple: r.Bytes(2, "simple", maxSimple)}
	if err := r.Close(); err != nil {
		return State{}, invalid("state proof: %v", err)
	}
	if err := p.limits(); err != nil {
		return State{}, err
	}
	return p, nil
}

// limits are checked again by the verifiers, because a State need not come from DecodeState.
func (p State) limits() error {
	switch {
	case len(p.IAVL) == 0:
		return invalid("iavl: missing")
	case len(p.Simple) == 0:
		return invalid("simple: missing")
	case len(p.IAVL) > MaxState:
		return invalid("iavl: %d bytes, at most %d", len(p.IAVL), MaxState)
	case len(p.Simple) > maxSimple:
		return invalid("simple: %d bytes, at most %d", len(p.Simple), maxSimple)
	}
	return nil
}

// Value returns nil if value stands under key in the state with this AppHash. The AppHash of the state after block H is in
// the header at H+1. The key is the one the caller asked for, never one that the answer named.
func Value(appHash, key, value []byte, p State) (err error) {
	defer caught(&err)
	if len(value) == 0 {
		return invalid("value is empty; no leaf of the state is")
	}
	root, leaf, err := open(appHash, key, p)
	if err != nil {
		return err
	}
	exist := leaf.GetExist()
	if exist == nil {
		return invalid("iavl: proves no presence")
	}
	if err := checkShape(exist, maxDepth); err != nil {
		return err
	}
	if err := exist.Verify(ics23.IavlSpec, root, key, value); err != nil {
		return invalid("iavl: %v", err)
	}
	return nil
}

// Absence returns nil if nothing stands under key in the state with this AppHash.
func Absence(appHash, key []byte, p State) (err error) {
	defer caught(&err)
	root, leaf, err := open(appHash, key, p)
	if err != nil {
		return err
	}
	nonexist := leaf.GetNonexist()
	if nonexist == nil {
		return invalid("iavl: proves no absence")
	}
	// ics23 does not look at this field; left open, it would be bytes that anyone may change.
	if !bytes.Equal(nonexist.Key, key) {
		return invalid("iavl: proves the absence of another key")
	}
	// Every tree holds the sentinel, which is left of every key that has a tree, so an honest proof always has a left.
	if nonexist.Left == nil {
		return invalid("iavl: absence without a left neighbour")
	}
	if err := checkShape(nonexist.Left, maxDepth); err != nil {
		return err
	}
	if nonexist.Right != nil {
		if err := checkShape(nonexist.Right, maxDepth); err != nil {
			return err
		}
	}
	if err := nonexist.Verify(ics23.IavlSpec, root, key); err != nil {
		return invalid("iavl: %v", err)
	}
	return nil
}

// open checks everything above the key's tree and returns the tree's root with the proof that is to lead to it.
func open(appHash, key []byte, p State) (root []byte, leaf *ics23.CommitmentProof, err error) {
	if len(appHash) != hashSize {
		return nil, nil, invalid("app hash has %d bytes, want %d", len(appHash), hashSize)
	}
	// Were the tree read from the proof, a node could prove absence in a tree where the key never stands.
	name, ok := ledger.TreeOf(key)
	if !ok {
		return nil, nil, invalid("key %x belongs to no tree of the state", key)
	}
	if err := p.limits(); err != nil {
		return nil, nil, err
	}
	simple, err := decodeCommitment("simple", p.Simple)
	if err != nil {
		return nil, nil, err
	}
	top := simple.GetExist()
	if top == nil {
		return nil, nil, invalid("simple: proves no presence")
	}
	if err := checkShape(top, maxSimpleDepth); err != nil {
		return nil, nil, err
	}
	// The leaf prefix and the inner nodes' first byte are looser in ics23 than in the tree; here they are the tree's.
	if !bytes.Equal(top.Leaf.Prefix, []byte{0}) {
		return nil, nil, invalid("simple: leaf prefix %x, want 00", top.Leaf.Prefix)
	}
	for i, step := range top.Path {
		left := len(step.Prefix) == 1 && len(step.Suffix) == hashSize
		right := len(step.Prefix) == 1+hashSize && len(step.Suffix) == 0
		if !left && !right || step.Prefix[0] != 1 {
			return nil, nil, invalid("simple: step %d is no inner node", i)
		}
	}
	if len(top.Value) != hashSize {
		return nil, nil, invalid("simple: tree root has %d bytes, want %d", len(top.Value), hashSize)
	}
	if err := top.Verify(ics23.TendermintSpec, appHash, []byte(name), top.Value); err != nil {
		return nil, nil, invalid("simple: tree %q: %v", name, err)
	}
	leaf, err = decodeCommitment("iavl", p.IAVL)
	return top.Value, leaf, err
}

// decodeCommitment reads an ics23.CommitmentProof and refuses every form but one. The generated decoder takes unknown
// fields, repeated fields, long varints and explicit defaults; none of them survives being written back, so comparing
// finds them all. Batches and compressed proofs are refused by their callers, which take exist and nonexist only: the
// library's code for the others panics on hostile input.
func decodeCommitment(field string, b []byte) (*ics23.CommitmentProof, error) {
	p := new(ics23.CommitmentProof)
	if err := p.Unmarshal(b); err != nil {
		return nil, invalid("%s: %v", field, err)
	}
	again, err := p.Marshal()
	if err != nil {
		return nil, invalid("%s: %v", field, err)
	}
	if !bytes.Equal(again, b) {
		return nil, invalid("%s: not in its canonical encoding", field)
	}
	return p, nil
}

// checkShape refuses what ics23 would meet with a nil dereference, and paths that are too deep.
func checkShape(p *ics23.ExistenceProof, depth int) error {
	if p.Leaf == nil {
		return invalid("proof without a leaf")
	}
	if len(p.Path) > depth {
		return invalid("proof has %d levels, at most %d", len(p.Path), depth)
	}
	for i, step := range p.Path {
		if step == nil {
			return invalid("step %d is missing", i)
		}
	}
	return nil
}

// caught turns a panic of ics23 over a stranger's bytes into a refusal. It stands only where those bytes enter.
func caught(err *error) {
	if r := recover(); r != nil {
		*err = invalid("%v", r)
	}
}

// MakeSimple is the prover's side of State.Simple: the proof that the tree with this name has its root under the AppHash
// of these roots, which stand in the order of TreeNames.
func MakeSimple(roots [][]byte, name string) ([]byte, error) {
	leaves, err := appLeaves(roots)
	if err != nil {
		return nil, err
	}
	index := uint64(0)
	for treeNames[index] != name {
		if index++; index == uint64(ledger.TreeCount) {
			return nil, fmt.Errorf("no tree has the name %q", name)
		}
	}
	root := roots[index]
	_, aunts := merklePath(leaves, index)
	steps := make([]*ics23.InnerOp, len(aunts))
	for level, total := len(aunts)-1, uint64(len(leaves)); level >= 0; level-- {
		step := &ics23.InnerOp{Hash: ics23.HashOp_SHA256, Prefix: []byte{1}}
		if k := split(total); index < k {
			step.Suffix, total = aunts[level], k
		} else {
			step.Prefix = append(step.Prefix, aunts[level]...)
			index, total = index-k, total-k
		}
		steps[level] = step
	}
	p := &ics23.CommitmentProof{Proof: &ics23.CommitmentProof_Exist{Exist: &ics23.ExistenceProof{
		Key: []byte(name), Value: root, Leaf: ics23.TendermintSpec.LeafSpec, Path: steps,
	}}}
	b, err := p.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode proof of tree %q: %w", name, err)
	}
	return b, nil
}
