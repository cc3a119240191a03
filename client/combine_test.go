package client

import (
	"testing"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// Every kind of operation can act in the name of another signer, and the one that it was made of stays.
func TestActingBy(t *testing.T) {
	t.Parallel()
	all := []ledger.Operation{&ledger.Transfer{}, &ledger.CreateAsset{}, &ledger.SetPolicy{}, &ledger.CreateHold{}, &ledger.PostHold{}, &ledger.VoidHold{}, &ledger.SetAsset{},
		&ledger.SetLine{}, &ledger.Clawback{}, &ledger.OpenLine{}, &ledger.CloseLine{}, &ledger.SetAccount{}, &ledger.CloseAccount{}, &ledger.SetGrant{}, &ledger.RevokeGrant{},
		&ledger.StartRecovery{}, &ledger.CancelRecovery{}, &ledger.FinishRecovery{},
		&ledger.Bond{}, &ledger.ReleaseBond{}, &ledger.Propose{}, &ledger.Approve{}, &ledger.Reactivate{}}
	for k := ledger.Kind(1); k.String() != "unknown"; k++ {
		if int(k) > len(all) || all[k-1].Kind() != k {
			t.Fatalf("%s is not in this test", k)
		}
		moved, err := actingBy(all[k-1], 3)
		if err != nil || moved.By() != 3 || moved.Kind() != k || all[k-1].By() != 0 {
			t.Errorf("%s: %v, %v", k, moved, err)
		}
	}
}
