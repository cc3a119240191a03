package mempool

import (
	"context"
	"testing"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestBondIsReserved: what a waiting transaction would bond is not there for another one, and is again when the first is in a block.
func TestBondIsReserved(t *testing.T) {
	const fee, funds, bond = 600, 10_000, 8_000
	n := newNetOf(t, 2, funds, ledger.DefaultParameters().WithoutDeposits(), nil)
	a, b := n.people[0], n.people[1]
	check := func(sequence uint64, op ledger.Operation, want ledger.Code) {
		t.Helper()
		if v := n.pool.Check(context.Background(), n.single(a, sequence, fee, op)); v.Code != want {
			t.Fatalf("%s: %s: %s, want %s", op.Kind(), v.Code, v.Message, want)
		}
		n.reserved()
	}
	check(1, &ledger.Bond{Amount: ledger.Units(bond)}, ledger.OK)
	check(2, n.transfer(b, funds-bond-2*fee+1), FeesHeld)
	check(2, n.transfer(b, funds-bond-2*fee), ledger.OK)
	if refused := n.commit(n.pool.Propose(everything)); refused != 0 {
		t.Errorf("%d are refused", refused)
	}
	n.reserved()
}
