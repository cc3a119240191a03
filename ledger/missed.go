package ledger

import (
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Missed blocks. They are counted in windows that do not overlap, and a row is written only when a block is missed: a
// network of which nobody is missing writes nothing. See docs/decisions/0018-validators.md.

// Vote says whether a validator signed the block before, as CometBFT reports it with the block.
type Vote struct {
	Validator ConsensusAddress
	Signed    bool
}

// Missed counts the blocks that a validator has missed.
type Missed struct {
	Window uint64 // number of the window in which it was counted
	Count  uint32
}

func (m Missed) encode() []byte {
	w := writeRow()
	w.Uint64(1, m.Window)
	w.Uint32(2, m.Count)
	return w.Done()
}

// DecodeMissed reads the row of the blocks that a validator has missed.
func DecodeMissed(value []byte) (m Missed, err error) {
	r := openRow(value)
	m.Window = r.Uint64(1, "window")
	m.Count = r.Uint32(2, "count")
	return m, r.Close()
}

// othersNeeded is how many active validators have to be left beside one that is set inactive.
const othersNeeded = 4

// countMissed counts the block before for those who did not sign it, and sets inactive who has missed too many: without
// its power the others reach two thirds more easily. Where few would remain, or two thirds of the full power or less would,
// nobody is: that would trade tolerance of liars for speed.
func (b *Block) countMissed(votes []Vote) {
	window := uint64(b.params.MissedWindow)
	if window == 0 || !slices.ContainsFunc(votes, func(v Vote) bool { return !v.Signed }) {
		return
	}
	set, changed := b.state.setCopy(), false
	number := (b.header.Height - 1) / window
	for i := range set {
		address := set[i].Address()
		if !set[i].Active() || !slices.ContainsFunc(votes, func(v Vote) bool { return v.Validator == address && !v.Signed }) {
			continue
		}
		missed, _ := b.state.missed.get(address)
		if missed.Window != number {
			missed = Missed{Window: number}
		}
		if missed.Count < ^uint32(0) {
			missed.Count++
		}
		if missed.Count > b.params.MaxMissed && set[i].Operator != (crypto.Address{}) && dispensable(set, i) { // without an operator nobody could take the power back
			set[i].InactivePower, set[i].Power, set[i].Left = set[i].Power, 0, b.now()
			changed = true
			continue // putSet removes the row
		}
		b.state.missed.put(address, missed)
	}
	if changed {
		b.state.putSet(set)
	}
}

// dispensable tells whether the set stays sound without the power of an active validator.
func dispensable(set []Validator, i int) bool {
	var others int
	var without, full uint64
	for j, v := range set {
		full += v.Power + v.InactivePower
		if j != i && v.Active() {
			others++
			without += v.Power
		}
	}
	return others >= othersNeeded && 3*without > 2*full
}
