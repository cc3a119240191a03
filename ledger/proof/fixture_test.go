package proof_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/cometbft/cometbft/crypto/merkle"
	"github.com/cosmos/iavl"
	"github.com/cosmos/iavl/db"
	ics23 "github.com/cosmos/ics23/go"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

// ledgerState is a real state: the trees of IAVL with a sentinel each, as the store keeps them.
type ledgerState struct {
	trees   map[string]*iavl.MutableTree
	values  map[string][]byte // by state key
	keys    [][]byte          // ascending
	appHash []byte            // of the last version
	roots   [][]byte
}

func newState(t testing.TB, chain string) *ledgerState {
	s := &ledgerState{trees: map[string]*iavl.MutableTree{}, values: map[string][]byte{}}
	for _, name := range ledger.TreeNames() {
		s.trees[name] = iavl.NewMutableTree(db.NewMemDB(), 1000, true, iavl.NewNopLogger())
		mustSet(t, s.trees[name], []byte{0}, []byte("\x01"+chain))
	}
	return s
}

func mustSet(t testing.TB, tree *iavl.MutableTree, key, value []byte) {
	t.Helper()
	if _, err := tree.Set(key, value); err != nil {
		t.Fatal(err)
	}
}

func (s *ledgerState) set(t testing.TB, key, value []byte) {
	t.Helper()
	name, ok := ledger.TreeOf(key)
	if !ok {
		t.Fatalf("key %x has no tree", key)
	}
	mustSet(t, s.trees[name], key, value)
	s.values[string(key)] = value
}

// commit saves a version of every tree.
func (s *ledgerState) commit(t testing.TB) {
	t.Helper()
	s.roots, s.keys = nil, nil
	for _, name := range ledger.TreeNames() {
		root, _, err := s.trees[name].SaveVersion()
		if err != nil {
			t.Fatal(err)
		}
		s.roots = append(s.roots, root)
	}
	for k := range s.values {
		s.keys = append(s.keys, []byte(k))
	}
	slices.SortFunc(s.keys, bytes.Compare)
	hash, err := proof.AppHash(s.roots)
	if err != nil {
		t.Fatal(err)
	}
	s.appHash = hash
}

// prove is what the node answers for a key, from the last version.
func (s *ledgerState) prove(t testing.TB, key []byte) proof.State {
	t.Helper()
	name, _ := ledger.TreeOf(key)
	return s.proveIn(t, name, key)
}

func (s *ledgerState) proveIn(t testing.TB, name string, key []byte) proof.State {
	t.Helper()
	leaf, err := s.trees[name].GetVersionedProof(key, s.trees[name].Version())
	if err != nil {
		t.Fatal(err)
	}
	simple, err := proof.MakeSimple(s.roots, name)
	if err != nil {
		t.Fatal(err)
	}
	return proof.State{IAVL: encode(t, leaf), Simple: simple}
}

func encode(t testing.TB, p *ics23.CommitmentProof) []byte {
	t.Helper()
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, b []byte) *ics23.CommitmentProof {
	t.Helper()
	p := new(ics23.CommitmentProof)
	if err := p.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	return p
}

// filledState has keys of every kind, values of many lengths, and several versions, so that proofs differ in depth and
// in the versions inside them.
func filledState(t testing.TB, chain string, seed int64, keys int) *ledgerState {
	s := newState(t, chain)
	r := rand.New(rand.NewSource(seed))
	s.commit(t)
	for i := range keys {
		key := binary.BigEndian.AppendUint32([]byte{byte(1 + r.Intn(0x6f))}, r.Uint32())
		value := append([]byte{1}, make([]byte, r.Intn(200))...)
		r.Read(value[1:])
		s.set(t, key, value)
		if i%37 == 0 {
			s.commit(t)
		}
	}
	s.commit(t)
	return s
}

// cometAppHash computes the AppHash the way a Cosmos multistore does, with cometbft's code.
func cometAppHash(t testing.TB, roots [][]byte) []byte {
	t.Helper()
	var items [][]byte
	for i, name := range ledger.TreeNames() {
		sum := sha256Sum(roots[i])
		item := append([]byte{byte(len(name))}, name...)
		items = append(items, append(append(item, 32), sum...))
	}
	return merkle.HashFromByteSlices(items)
}

func block(n int) (txs [][]byte, results []proof.Result) {
	for i := range n {
		txs = append(txs, fmt.Appendf(nil, "transaction %d of %d", i, n))
		r := proof.Result{Data: fmt.Appendf(nil, "receipt %d", i)}
		if i%3 == 1 {
			r.Code = uint32(i)
		}
		if i%7 == 6 {
			r = proof.Result{}
		}
		results = append(results, r)
	}
	return txs, results
}
