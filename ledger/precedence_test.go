package ledger

import (
	"testing"
)

// TestPrecedence breaks every pair of rules of admission at once, and wants the smaller code. The scripts show each one alone.
func TestPrecedence(t *testing.T) {
	breaks := []Code{TooLarge, Expired, ValidUntilTooFar, PolicyUnknown, PolicyMismatch, SignerClosed, SequenceUsed, SequenceGap, NonceUsed, ReplayFull,
		FeeAboveMaximum, FeeUnpayable, RegistrationAboveMaximum, FeeGrantUnusable, WitnessMissing, WitnessUnknown, WitnessSuperfluous, SignatureInvalid}
	for _, sponsored := range []bool{false, true} {
		for i, first := range breaks {
			for _, second := range breaks[i:] {
				if first == Expired && second == ValidUntilTooFar {
					continue // no time is both
				}
				if sponsored && (first == FeeGrantUnusable || second == FeeGrantUnusable) {
					continue // the sponsor pays, and nobody asks for a grant
				}
				if code := broken(t, first, second, sponsored); code != first {
					t.Errorf("a transaction that is %s and %s gets %s (sponsored: %t)", first, second, code, sponsored)
				}
			}
		}
		if code := broken(t, OK, OK, sponsored); code != OK {
			t.Errorf("a transaction that breaks nothing gets %s (sponsored: %t)", code, sponsored)
		}
	}
	if code := broken(t, FeeGrantUnusable, FeeGrantUnusable, true); code != OK {
		t.Errorf("a sponsored transaction with a granter who has granted nothing gets %s", code)
	}
}

// broken applies a transaction of six signers that breaks two rules, each by another signer where a signer is at fault. A sponsor, who signs for
// the first time, pays if there is to be one.
func broken(t *testing.T, first, second Code, sponsored bool) Code {
	w := newWorld(t)
	w.addAsset("EUR", "bank", 2, "1000000.00")
	for _, name := range []string{"anna", "alice", "adam", "frank", "cleo", "gail"} {
		w.addBalance(name, "1000.00", "EUR")
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	b := w.next(1001_000)
	for _, name := range []string{"anna", "alice", "adam", "cleo"} {
		if r := w.apply(w.seal(w.payment(name, "zoe", Units(1), "EUR"))); r.Code != OK {
			t.Fatal(r.Code)
		}
	}
	used := w.payment("frank", "zoe", Units(1), "EUR")
	used.ValidUntil, used.Signers[0].Sequence, used.Signers[0].Nonce = 1100, 0, [16]byte{1}
	if r := w.apply(w.seal(used)); r.Code != OK {
		t.Fatal(r.Code)
	}

	body := &Body{ValidUntil: 1100, MaxFee: Units(1 << 50), Operations: []Operation{&Transfer{To: w.address("zoe"), Asset: w.asset("EUR"), Amount: Units(1)}}}
	for _, name := range []string{"anna", "alice", "adam", "frank", "cleo", "board"} {
		body.Signers = append(body.Signers, w.signer(name))
	}
	anna, alice, adam, frank, board := &body.Signers[0], &body.Signers[1], &body.Signers[2], &body.Signers[3], &body.Signers[5]
	frank.Sequence, frank.Nonce = 0, [16]byte{2}
	is := func(c Code) bool { return first == c || second == c }
	if is(TooLarge) {
		b.params.MaxTxBytes = 100
	}
	if is(Expired) {
		body.ValidUntil = 1001
	}
	if is(ValidUntilTooFar) {
		body.ValidUntil = 1602
	}
	if is(PolicyUnknown) {
		board.Policy = nil
	}
	if is(PolicyMismatch) {
		alice.Policy = w.firstPolicy("zoe").Encode()
	}
	if is(SignerClosed) {
		cleo, _ := b.state.accounts.get(w.address("cleo"))
		cleo.Flags = AccountClosedFlag
		b.state.accounts.put(w.address("cleo"), cleo)
		b.state.keep()
	}
	if is(RegistrationAboveMaximum) {
		b.params.DepositAccount = 1 // board signs for the first time
	}
	if is(FeeGrantUnusable) {
		body.FeeGranter = w.address("gail")
	}
	if is(SequenceUsed) {
		adam.Sequence = 1
	}
	if is(SequenceGap) {
		anna.Sequence = 3
	}
	if is(NonceUsed) {
		frank.Nonce = [16]byte{1}
	}
	if is(ReplayFull) {
		b.params.MaxOpenNonces = 1
	}
	sponsor := &Sponsor{Address: w.address("gail"), MaxFee: body.MaxFee, Policy: w.firstPolicy("gail").Encode()}
	if is(FeeAboveMaximum) {
		body.MaxFee, sponsor.MaxFee = Amount{}, Amount{}
	} else if sponsored {
		body.MaxFee = Amount{}
	}
	if is(FeeUnpayable) {
		b.params.FeeBase = 1 << 40
	}
	raw := body.encode()
	witnesses := w.witnesses(body, raw) // one each, board two
	if is(WitnessUnknown) {
		witnesses[2].Key = 1 // adam's
	}
	if is(WitnessSuperfluous) {
		witnesses = append(witnesses, Witness{5, 2, make([]byte, 64)})
	}
	if is(SignatureInvalid) {
		witnesses[0].Signature = make([]byte, 64)
	}
	if is(WitnessMissing) {
		witnesses = append(witnesses[:1], witnesses[2:]...) // alice's
	}
	if is(WitnessUnknown) { // beside adam's own key, or that would be missing as well
		raised := w.witnesses(body, raw)[2]
		at := 0
		for i, x := range witnesses {
			if x.Signer == 2 {
				at = i
			}
		}
		witnesses = append(witnesses[:at], append([]Witness{raised}, witnesses[at:]...)...)
	}
	if sponsored {
		return w.apply(w.sponsored(raw, witnesses, sponsor, len(body.Signers))).Code
	}
	return w.apply(Assemble(raw, witnesses, nil)).Code
}
