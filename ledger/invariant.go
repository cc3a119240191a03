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
}

// unbalanced returns the first asset whose debits and credits differ.
func (s *sums) unbalanced() (assetSum, bool) {
	for _, a := range s.assets {
		if a.debitsPosted != a.credited || a.debitsPending != a.creditsPending {
			return a, true
		}
	}
	return assetSum{}, false
}

// lineHolds tells whether a line keeps its rule: an ordinary one is not overdrawn, an issuance line is within the supply.
func lineHolds(asset Asset, k LineKey, l Line) bool {
	if asset.Issuer == k.Account {
		return l.withinSupply(asset.MaxSupply)
	}
	debits, ok := l.DebitsPosted.Add(l.DebitsPending)
	return ok && debits.Cmp(l.CreditsPosted) <= 0
}

// balanced checks the provisional changes of one transaction: for every asset as much was debited as credited, counting
// the block's fee total as a line; no touched line breaks its rule; no posted counter went down.
func (b *Block) balanced(feesBefore Amount) bool {
	b.walk++
	var s sums
	for _, u := range b.state.lines.undos {
		c := u.cell
		if c.mark == b.walk {
			continue
		}
		c.mark = b.walk
		asset, ok := b.state.asset(c.key.Asset)
		if !ok || !lineHolds(asset, c.key, c.value) ||
			c.value.DebitsPosted.Cmp(c.kept.DebitsPosted) < 0 || c.value.CreditsPosted.Cmp(c.kept.CreditsPosted) < 0 {
			return false
		}
		s.change(c.key.Asset, c.kept, c.value)
	}
	if b.fees != feesBefore {
		fees := s.of(b.params.FeeAsset)
		fees.credited = fees.credited.wrappingAdd(b.fees).wrappingSub(feesBefore)
	}
	_, bad := s.unbalanced()
	return !bad
}

// mustBalance checks the whole block, fees posted. A breach is a defect of the rules that no transaction may survive:
// it stops the node with the values.
func (b *Block) mustBalance() {
	var s sums
	for _, c := range b.state.lines.changed {
		asset, _ := b.state.asset(c.key.Asset)
		if !lineHolds(asset, c.key, c.value) {
			panic(fmt.Sprintf("block %d breaks the rule of line %s/%x: %+v", b.header.Height, c.key.Account, c.key.Asset, c.value))
		}
		s.change(c.key.Asset, c.first, c.value)
	}
	if a, bad := s.unbalanced(); bad {
		panic(fmt.Sprintf("block %d does not balance: %+v", b.header.Height, a))
	}
}
