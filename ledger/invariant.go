package ledger

import "fmt"

// The invariants are checked in every build, after every transaction and every block. See also [Audit], which checks a
// whole state.

// sums adds up the changes of lines per asset, modulo 2^128: they are only compared with each other.
type sums struct {
	position map[AssetID]int
	assets   []assetSum
}

type assetSum struct {
	id                                                    AssetID
	debitsPending, creditsPending, debitsPosted, credited Amount
	holds                                                 Amount // amounts of open holds
	lineCredit, assetCredit                               Amount // that lines have been granted, and their sum in the asset
}

func (s *sums) of(id AssetID) *assetSum {
	i, ok := s.position[id]
	if !ok {
		if s.position == nil {
			s.position = map[AssetID]int{}
		}
		i = len(s.assets)
		s.position[id] = i
		s.assets = append(s.assets, assetSum{id: id})
	}
	return &s.assets[i]
}

func (s *sums) change(id AssetID, before, after Line) {
	a := s.of(id)
	a.debitsPending = a.debitsPending.wrappingAdd(after.DebitsPending).wrappingSub(before.DebitsPending)
	a.creditsPending = a.creditsPending.wrappingAdd(after.CreditsPending).wrappingSub(before.CreditsPending)
	a.debitsPosted = a.debitsPosted.wrappingAdd(after.DebitsPosted).wrappingSub(before.DebitsPosted)
	a.credited = a.credited.wrappingAdd(after.CreditsPosted).wrappingSub(before.CreditsPosted)
	a.lineCredit = a.lineCredit.wrappingAdd(after.Credit).wrappingSub(before.Credit)
}

func (s *sums) changeHold(before, after Hold) {
	id := after.Asset
	if id == (AssetID{}) { // it has gone
		id = before.Asset
	}
	a := s.of(id)
	a.holds = a.holds.wrappingAdd(after.Amount).wrappingSub(before.Amount)
}

func (s *sums) changeAsset(id AssetID, before, after Asset) {
	a := s.of(id)
	a.assetCredit = a.assetCredit.wrappingAdd(after.Credit).wrappingSub(before.Credit)
}

// unbalanced returns the first asset whose debits and credits differ, or whose holds and credit are not those of its lines.
func (s *sums) unbalanced() (assetSum, bool) {
	for _, a := range s.assets {
		if a.debitsPosted != a.credited || a.debitsPending != a.creditsPending || a.debitsPending != a.holds || a.lineCredit != a.assetCredit {
			return a, true
		}
	}
	return assetSum{}, false
}

// lineHolds tells whether a line keeps its rule: an ordinary one is not overdrawn beyond its credit, an issuance line is
// within the supply; its counters, posted and pending, add up.
func lineHolds(asset Asset, k LineKey, l Line) bool {
	debits, means := l.debits(asset, k)
	return !means.less(debits) && total(l.DebitsPosted, l.DebitsPending).fits() && total(l.CreditsPosted, l.CreditsPending).fits()
}

// grown tells whether one change of a line let its posted counters go down. A line that is closed is empty; one that is
// opened again is closed before.
func grown(before saved[LineKey, Line], after Line, exists bool) bool {
	switch {
	case !before.exists:
		return true
	case !exists:
		return before.value.empty()
	}
	return before.value.Incarnation == after.Incarnation &&
		after.DebitsPosted.Cmp(before.value.DebitsPosted) >= 0 && after.CreditsPosted.Cmp(before.value.CreditsPosted) >= 0
}

// balanced checks the provisional changes of one transaction: for every asset as much was debited as credited, counting
// the block's totals as lines; as much is pending as holds are open; no touched line breaks its rule; no posted counter
// went down.
func (b *Block) balanced(before totals) bool {
	b.walk++
	var s sums
	undos := b.state.lines.undos
	for i := len(undos) - 1; i >= 0; i-- { // from the last change to the first: each one and what came after it
		c := undos[i].cell
		if c.mark == b.walk {
			if later := undos[c.place]; !grown(undos[i], later.value, later.exists) {
				return false
			}
			c.place = i
			continue
		}
		c.mark, c.place = b.walk, i
		asset, ok := b.state.asset(c.key.Asset)
		if !ok || !lineHolds(asset, c.key, c.value) || !grown(undos[i], c.value, c.exists) {
			return false
		}
		s.change(c.key.Asset, c.kept, c.value)
	}
	for _, u := range b.state.holds.undos {
		if c := u.cell; c.mark != b.walk {
			c.mark = b.walk
			s.changeHold(c.kept, c.value)
		}
	}
	for _, u := range b.state.assets.undos {
		if c := u.cell; c.mark != b.walk {
			c.mark = b.walk
			if !b.withinSupply(c.key, c.value) {
				return false
			}
			s.changeAsset(c.key, c.kept, c.value)
		}
	}
	if b.totals != before {
		a := s.of(b.params.FeeAsset)
		a.credited = a.credited.wrappingAdd(b.totals.fees).wrappingSub(before.fees)
		a.credited = a.credited.wrappingAdd(b.totals.deposits).wrappingSub(before.deposits)
		a.debitsPosted = a.debitsPosted.wrappingAdd(b.totals.refunds).wrappingSub(before.refunds)
	}
	_, bad := s.unbalanced()
	return !bad
}

// mustBalance checks the whole block, fees and deposits posted. A breach is a defect of the rules that no transaction may
// survive: it stops the node with the values.
func (b *Block) mustBalance() {
	var s sums
	for _, c := range b.state.lines.changed {
		asset, _ := b.state.asset(c.key.Asset)
		if !lineHolds(asset, c.key, c.value) {
			panic(fmt.Sprintf("block %d breaks the rule of line %s/%x: %+v", b.header.Height, c.key.Account, c.key.Asset, c.value))
		}
		s.change(c.key.Asset, c.first, c.value)
	}
	for _, c := range b.state.holds.changed {
		s.changeHold(c.first, c.value)
	}
	for _, c := range b.state.assets.changed {
		if !b.withinSupply(c.key, c.value) {
			panic(fmt.Sprintf("block %d passes the supply of asset %x: %+v", b.header.Height, c.key, c.value))
		}
		s.changeAsset(c.key, c.first, c.value)
	}
	if a, bad := s.unbalanced(); bad {
		panic(fmt.Sprintf("block %d does not balance: %+v", b.header.Height, a))
	}
}
