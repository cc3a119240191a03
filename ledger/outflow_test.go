package ledger

import (
	"slices"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
)

func TestOutflows(t *testing.T) {
	var a, b, g, to crypto.Address
	a[0], b[0], g[0], to[0] = 1, 2, 3, 4
	fee, other := AssetID{1}, AssetID{2}
	credit := Units(5)
	tx := &Tx{Body: Body{Signers: []Signer{{Address: a}, {Address: b}}, Operations: []Operation{
		&Transfer{To: to, Asset: fee, Amount: Units(10)},
		&Transfer{To: to, Asset: other, Amount: Units(1000)},
		&Transfer{From: 1, To: to, Asset: fee, Amount: Units(20), Granter: g},
		&CreateHold{Signer: 1, To: to, Asset: fee, Amount: MaxAmount},
		&CreateHold{Signer: 1, To: to, Asset: fee, Amount: Units(2), Granter: g},
		&Transfer{To: to, Asset: fee, Amount: Units(1), Balancing: BalancingDebit},
		&SetLine{Signer: 1, Account: to, Asset: fee, Credit: &credit},
		&SetLine{Account: to, Asset: fee, Set: LineAuthorised},
		&SetAsset{Asset: other, MaxSupply: Units(1)},
		&PostHold{Hold: crypto.Hash{1}, Amount: Units(9)},
		&Clawback{Account: to, Asset: fee, Amount: Units(9)},
		&Bond{Amount: Units(6)}, &ReleaseBond{}, &Approve{},
	}}}
	want := []Outflow{
		{a, GrantKey{}, Units(17)},
		{g, GrantKey{g, b, KindTransfer, fee}, Units(20)},
		{b, GrantKey{}, MaxAmount}, // and 5 more, which do not fit
		{g, GrantKey{g, b, KindCreateHold, fee}, Units(2)},
	}
	if got := tx.Outflows(fee); !slices.Equal(got, want) {
		t.Errorf("got %v,\nwant %v", got, want)
	}
	if got := tx.Outflows(other); len(got) != 1 || got[0] != (Outflow{a, GrantKey{}, MaxAmount}) {
		t.Errorf("of the other asset %v", got)
	}
}

func TestDepositsAndLimits(t *testing.T) {
	p := Parameters{DepositAccount: 1, DepositLine: 10, DepositHold: 100, DepositGrant: 1000}
	var granter, sponsor, recovered crypto.Address
	granter[0], sponsor[0], recovered[0] = 1, 2, 3
	tx := &Tx{Body: Body{Signers: []Signer{{Address: crypto.Address{9}}, {Address: crypto.Address{8}}}, MaxFee: Units(7), MaxDeposit: Units(1 << 20), FeeGranter: granter,
		Operations: []Operation{&Transfer{}, &CreateHold{}, &SetGrant{}, &CreateAsset{}, &OpenLine{}, &SetLine{}, &CloseLine{}, &SetPolicy{Signer: 1},
			&FinishRecovery{Account: recovered}, &CloseAccount{}, &PostHold{}, &Bond{}, &ReleaseBond{}}}}
	if got := tx.Deposits(p, 3); got != Units(3+6*10+100+1000) {
		t.Errorf("deposits %s", got)
	}
	if k, ok := tx.FeeGrant(); !ok || k != (GrantKey{granter, crypto.Address{9}, KindFees, AssetID{}}) {
		t.Errorf("fee grant %v, %v", k, ok)
	}
	if got, want := tx.Supersedes(), []crypto.Address{{8}, recovered, {9}}; !slices.Equal(got, want) {
		t.Errorf("supersedes %v", got)
	}
	tx.Sponsor = &Sponsor{Address: sponsor, MaxFee: Units(5), MaxDeposit: Units(900)}
	if fee, deposit := tx.Limits(); fee != Units(5) || deposit != Units(900) {
		t.Errorf("limits %s and %s, want the sponsor's", fee, deposit)
	}
	if got := tx.Deposits(p, 3); got != Units(900) {
		t.Errorf("deposits %s, want no more than the limit", got)
	}
	if _, ok := tx.FeeGrant(); ok {
		t.Error("the granter pays beside a sponsor")
	}
}

func TestRowKeysReversed(t *testing.T) {
	line := LineKey{crypto.Address{1, 2}, AssetID{3}}
	grant := GrantKey{crypto.Address{1}, crypto.Address{2}, KindCreateHold, AssetID{3}}
	if k, ok := LineOfRow(LineRow(line)); !ok || k != line {
		t.Errorf("line %v", k)
	}
	if k, ok := GrantOfRow(GrantRow(grant)); !ok || k != grant {
		t.Errorf("grant %v", k)
	}
	for _, key := range [][]byte{nil, AccountRow(line.Account), HoldRow(crypto.Hash{2}), FeeRateRow()} {
		if _, ok := LineOfRow(key); ok {
			t.Errorf("%x is taken for a line", key)
		}
		if _, ok := GrantOfRow(key); ok {
			t.Errorf("%x is taken for a grant", key)
		}
	}
}
