package ledger

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// state is a typed overlay over a committed state: what a block has changed so far. It belongs to one goroutine.
//
// The changes of a transaction are provisional until keep is called; undo takes them back. A failure to read is kept and
// reported once, by err, so that the rules read as rules: until then they see absent rows, and whoever calls them throws
// the outcome away.
type state struct {
	base Reader
	err  error

	accounts     *table[crypto.Address, Account]
	lines        *table[LineKey, Line]
	assets       *table[AssetID, Asset]
	codes        *table[string, AssetID]
	policies     *table[crypto.Hash, []byte]
	buckets      *table[uint64, bucket]
	nonces       *table[nonceKey, uint32]
	numbers      *table[nonceNumber, nonceKey]
	replay       *table[struct{}, replayTotals]
	validators   *table[struct{}, []Validator]
	holdings     *table[crypto.Address, Holdings]
	holds        *table[crypto.Hash, Hold]
	grants       *table[GrantKey, Grant]
	feeRate      *table[struct{}, FeeRate]
	dueCounts    *table[uint64, uint32]
	dueSlots     *table[dueSlot, crypto.Hash]
	due          *table[struct{}, dueTotals]
	params       *table[struct{}, Parameters] // of the next block: see SetParameters
	missed       *table[ConsensusAddress, Missed]
	proposals    *table[crypto.Hash, Proposal]
	proposalList *table[struct{}, []ListedProposal]

	tables [len(savepoint{})]overlay // all of the above; their order does not matter, as writes are sorted by key
}

func newState(base Reader) *state {
	s := &state{base: base}
	s.accounts = newTable(s, AccountRow, Account.encode, DecodeAccount)
	s.lines = newTable(s, LineRow, Line.encode, DecodeLine)
	s.assets = newTable(s, AssetRow, Asset.encode, DecodeAsset)
	s.codes = newTable(s, CodeRow, encodeAssetID, DecodeAssetID)
	s.policies = newTable(s, PolicyRow, encodePolicy, func(v []byte) ([]byte, error) {
		if _, err := DecodePolicyRow(v); err != nil {
			return nil, err
		}
		return v[1:], nil
	})
	s.buckets = newTable(s, bucketRow, bucket.encode, decodeBucket)
	s.nonces = newTable(s, nonceKey.row, encodeNumber, decodeNumber)
	s.numbers = newTable(s, nonceNumber.row, nonceKey.encodeNumbered, decodeNumbered)
	s.replay = newTable(s, func(struct{}) []byte { return []byte{rowReplay} }, replayTotals.encode, decodeReplayTotals)
	s.validators = newTable(s, func(struct{}) []byte { return ValidatorsRow() }, encodeValidators, DecodeValidators)
	s.holdings = newTable(s, HoldingsRow, Holdings.encode, DecodeHoldings)
	s.holds = newTable(s, HoldRow, Hold.encode, DecodeHold)
	s.grants = newTable(s, GrantRow, Grant.encode, DecodeGrant)
	s.feeRate = newTable(s, func(struct{}) []byte { return FeeRateRow() }, FeeRate.encode, DecodeFeeRate)
	s.dueCounts = newTable(s, dueCountRow, encodeNumber, decodeNumber)
	s.dueSlots = newTable(s, dueSlot.row, encodeHash, decodeHash)
	s.due = newTable(s, func(struct{}) []byte { return []byte{rowDue} }, dueTotals.encode, decodeDueTotals)
	s.params = newTable(s, func(struct{}) []byte { return ParametersRow() }, Parameters.encode, DecodeParameters)
	s.missed = newTable(s, MissedRow, Missed.encode, DecodeMissed)
	s.proposals = newTable(s, ProposalRow, Proposal.encode, DecodeProposal)
	s.proposalList = newTable(s, func(struct{}) []byte { return ProposalsRow() }, encodeProposals, DecodeProposals)
	s.tables = [...]overlay{s.accounts, s.lines, s.assets, s.codes, s.policies, s.buckets, s.nonces, s.numbers, s.replay, s.validators,
		s.holdings, s.holds, s.grants, s.feeRate, s.dueCounts, s.dueSlots, s.due, s.params, s.missed, s.proposals, s.proposalList}
	return s
}

// overlay is what state asks of each of its tables.
type overlay interface {
	keep()
	depth() int
	undo(depth int)
	writes([]Write) []Write
}

// keep makes the provisional changes part of the block.
func (s *state) keep() {
	for _, t := range s.tables {
		t.keep()
	}
}

// savepoint is a moment within a transaction to which its provisional changes can be taken back.
type savepoint [21]int

func (s *state) savepoint() (p savepoint) {
	for i, t := range s.tables {
		p[i] = t.depth()
	}
	return p
}

// undo takes the provisional changes since p back; the zero savepoint is the transaction's beginning.
func (s *state) undo(p savepoint) {
	for i, t := range s.tables {
		t.undo(p[i])
	}
}

// writes returns the block's changes, sorted by key. A row that ends as it began is not among them: writing it again
// would change its tree's root.
func (s *state) writes() []Write {
	var w []Write
	for _, t := range s.tables {
		w = t.writes(w)
	}
	slices.SortFunc(w, func(a, b Write) int { return bytes.Compare(a.Key, b.Key) })
	return w
}

func (s *state) asset(id AssetID) (Asset, bool) { return s.assets.get(id) }

func (s *state) assetByCode(code string) (AssetID, bool) { return s.codes.get(code) }

// table is the overlay for the rows of one kind.
type table[K comparable, V any] struct {
	s      *state
	key    func(K) []byte
	encode func(V) []byte
	decode func([]byte) (V, error)

	cells   map[K]*cell[K, V]
	changed []*cell[K, V] // in the order of their first kept or provisional change, for the whole block
	undos   []saved[K, V] // what the provisional changes replaced, oldest first
}

type cell[K comparable, V any] struct {
	key    K
	value  V
	exists bool
	listed bool   // stands in changed
	base   []byte // the committed row, nil when there was none
	first  V      // what base says; the zero value when there was none
	kept   V      // value after the last keep
	mark   uint64 // of the last walk that has seen the cell: see Block.balanced
	place  int    // in undos, where that walk has seen it
}

type saved[K comparable, V any] struct {
	cell   *cell[K, V]
	value  V
	exists bool
}

func newTable[K comparable, V any](s *state, key func(K) []byte, encode func(V) []byte, decode func([]byte) (V, error)) *table[K, V] {
	return &table[K, V]{s: s, key: key, encode: encode, decode: decode, cells: map[K]*cell[K, V]{}}
}

func (t *table[K, V]) cell(k K) *cell[K, V] {
	c := t.cells[k]
	if c != nil {
		return c
	}
	c = &cell[K, V]{key: k}
	t.cells[k] = c
	key := t.key(k)
	value, err := t.s.base.Get(key)
	if err == nil && value != nil {
		c.base = value
		c.value, err = t.decode(value)
		c.exists = err == nil
		c.first, c.kept = c.value, c.value
	}
	if err != nil && t.s.err == nil {
		t.s.err = fmt.Errorf("reading the state's row %x: %w", key, err)
	}
	return c
}

// get returns a row's value; ok is false when there is none.
func (t *table[K, V]) get(k K) (value V, ok bool) {
	c := t.cell(k)
	return c.value, c.exists
}

func (t *table[K, V]) change(k K) *cell[K, V] {
	c := t.cell(k)
	t.undos = append(t.undos, saved[K, V]{c, c.value, c.exists})
	if !c.listed {
		c.listed = true
		t.changed = append(t.changed, c)
	}
	return c
}

// put sets a row, provisionally.
func (t *table[K, V]) put(k K, v V) {
	c := t.change(k)
	c.value, c.exists = v, true
}

// remove deletes a row, provisionally.
func (t *table[K, V]) remove(k K) {
	c := t.change(k)
	var none V
	c.value, c.exists = none, false
}

func (t *table[K, V]) keep() {
	for _, u := range t.undos {
		u.cell.kept = u.cell.value
	}
	t.undos = t.undos[:0]
}

func (t *table[K, V]) depth() int { return len(t.undos) }

func (t *table[K, V]) undo(depth int) {
	for i := len(t.undos) - 1; i >= depth; i-- {
		u := t.undos[i]
		u.cell.value, u.cell.exists = u.value, u.exists
	}
	t.undos = t.undos[:depth]
}

func (t *table[K, V]) writes(w []Write) []Write {
	for _, c := range t.changed {
		switch {
		case c.exists:
			if v := t.encode(c.value); c.base == nil || !bytes.Equal(v, c.base) {
				w = append(w, Write{t.key(c.key), v})
			}
		case c.base != nil:
			w = append(w, Write{Key: t.key(c.key)})
		}
	}
	return w
}
