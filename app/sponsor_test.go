package app

import (
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestSponsorsRotation: signatures that were verified count for the sponsor's policy and version too. What it signed before a
// rotation is dead, even when it rotates back, and whatever the signature cache remembers.
func TestSponsorsRotation(t *testing.T) {
	w, a, b := started(t)
	x, y := w.actors[1], w.actors[2]
	run := func(txs ...[]byte) (codes []ledger.Code) {
		t.Helper()
		b.txs = txs
		for _, r := range finalize(t, a, b).TxResults {
			codes = append(codes, ledger.Code(r.Code))
		}
		commit(t, a)
		w.sync(a)
		b = block{height: b.height + 1, time: b.time}
		return codes
	}
	fingerprint := func(raw []byte) crypto.Hash {
		t.Helper()
		base, release, err := a.base()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		current := must[*ledger.Block](t)(ledger.NewBlock(base, ledger.Header{Height: uint64(b.height)}, ledger.Direct{}))
		authorization, ok, err := current.Authorize(must[*ledger.Tx](t)(ledger.Decode(raw)))
		if err != nil || !ok {
			t.Fatalf("%v %v", ok, err)
		}
		return authorization.Fingerprint
	}
	run(w.transfer(y, x.address, 1)) // so that it brings no policy any more
	old := y.policy
	raw := w.build(order{signers: []*actor{x}, sponsor: y, operations: []ledger.Operation{&ledger.Transfer{To: y.address, Asset: w.fee, Amount: ledger.Units(1)}}})
	if code := check(t, a, raw); code != ledger.OK {
		t.Fatalf("refused: %s", code)
	}
	hits := a.checked.Counters().Hits
	if !accepted(t, a, block{height: b.height, time: b.time, txs: [][]byte{raw}}) || a.checked.Counters().Hits == hits {
		t.Fatal("the signatures are not remembered")
	}
	seen := map[crypto.Hash]bool{fingerprint(raw): true}
	next := w.policy(1, w.ring.key(t, ed, "next"))
	for _, p := range []crypto.Policy{next, old} {
		if codes := run(w.build(order{signers: []*actor{y}, operations: []ledger.Operation{w.setPolicy(0, y, p)}})); codes[0] != ledger.OK {
			t.Fatalf("rotation: %s", codes[0])
		}
		if f := fingerprint(raw); seen[f] {
			t.Error("the fingerprint is that of before the rotation")
		} else {
			seen[f] = true
		}
		if accepted(t, a, block{height: b.height, time: b.time, txs: [][]byte{raw}}) {
			t.Error("a proposal with what the sponsor signed before its rotation is accepted")
		}
		if code := check(t, a, raw); code != ledger.SignatureInvalid {
			t.Errorf("sent again it gets %s", code)
		}
	}
	if codes := run(raw); codes[0] != ledger.SignatureInvalid {
		t.Errorf("in a block it gets %s", codes[0])
	}
}
