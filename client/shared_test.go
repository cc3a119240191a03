package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

var carol = clienttest.Signer("carol")

// passed is a draft on its way to another machine and back.
func passed(t *testing.T, d *client.Draft) *client.Draft {
	t.Helper()
	text, err := d.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := client.DecodeDraft(text)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func signs(t *testing.T, d *client.Draft, s client.Signer) {
	t.Helper()
	if n, err := d.Sign(s); err != nil || n == 0 {
		t.Fatalf("%d signatures, %v", n, err)
	}
}

func sent(t *testing.T, c *client.Client, d *client.Draft) client.Final {
	t.Helper()
	raw, err := d.Raw()
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Send(soon(t), raw, client.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// took sends what must take effect.
func took(t *testing.T, c *client.Client, d *client.Draft) client.Final {
	t.Helper()
	f := sent(t, c, d)
	if f.Receipt.Code != ledger.OK {
		t.Fatalf("the transaction failed with %s", f.Receipt.Code)
	}
	return f
}

func draftOf(t *testing.T, c *client.Client, in client.Intent) *client.Built {
	t.Helper()
	b, err := c.Build(soon(t), in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// units is a balance in base units of PAC.
func units(t *testing.T, c *client.Client, a crypto.Address) uint64 {
	t.Helper()
	line, err := c.Line(soon(t), ledger.LineKey{Account: a, Asset: pac}, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := line.Value.Available().Uint64()
	return n
}

// A sponsor is added to what its sender has signed, on another machine, and pays for it.
func TestSponsorLater(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "sponsor", alice.Address(), carol.Address())
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	built := draftOf(t, c, pay(2_500_000))
	signs(t, built.Draft, alice)
	theirs := passed(t, built.Draft)
	in := client.Intent{Sponsor: carol.Address(), Known: []crypto.Policy{carol.Policy()}}
	sponsored, err := c.Sponsor(soon(t), theirs, in)
	if err != nil {
		t.Fatal(err)
	}
	if theirs.Complete() || theirs.Payer() != carol.Address() || theirs.ID() != built.ID() {
		t.Fatalf("before the sponsor signs: complete %v, payer %s", theirs.Complete(), theirs.Payer())
	}
	if _, err := theirs.Raw(); !errors.Is(err, client.ErrIncomplete) || !strings.Contains(err.Error(), carol.Address().String()) {
		t.Errorf("without the sponsor's signature: %v", err)
	}
	signs(t, theirs, carol)
	theirs = passed(t, theirs)
	f := took(t, c, theirs)
	if f.Receipt.Fee != sponsored.Fee {
		t.Errorf("fee %s, computed %s", f.Receipt.Fee, sponsored.Fee)
	}
	if got := units(t, c, alice.Address()); got != 1_000_000_000-2_500_000 {
		t.Errorf("the sender has %d left: it paid more than the amount", got)
	}
	if units(t, c, carol.Address()) >= 1_000_000_000 {
		t.Error("the sponsor paid nothing")
	}
}

// Who builds with a sponsor allows no fee of its own: nobody can take the sponsor off and have the sender pay.
func TestSponsorFromTheBeginning(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "sponsored", alice.Address(), carol.Address())
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	in := pay(1)
	in.Sponsor, in.Known = carol.Address(), append(in.Known, carol.Policy())
	built := draftOf(t, c, in)
	if b := built.Body(); !b.MaxFee.IsZero() || !b.MaxDeposit.IsZero() || built.Sponsor().MaxFee.IsZero() {
		t.Fatalf("the body allows a fee of %s and deposits of %s, the sponsor %s", b.MaxFee, b.MaxDeposit, built.Sponsor().MaxFee)
	}
	bare, err := client.NewDraft(built.Network(), built.BodyBytes(), built.Accounts()[:1])
	if err != nil {
		t.Fatal(err)
	}
	signs(t, bare, alice)
	raw, err := bare.Raw()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Send(soon(t), raw, built.Before); err == nil {
		t.Error("it went without its sponsor")
	} else if r, ok := errors.AsType[*client.Refusal](err); !ok || r.Code != ledger.FeeAboveMaximum {
		t.Errorf("without its sponsor: %v", err)
	}
	// The sponsor's key signs as the sponsor only.
	if n, err := built.SignAs(0, carol); err != nil || n != 0 {
		t.Errorf("the sponsor's key signed %d times for the sender, %v", n, err)
	}
	signs(t, built.Draft, carol)
	if err := built.Merge(bare); err != nil {
		t.Fatal(err)
	}
	took(t, c, built.Draft)
	in.FeeGranter = bob.Address()
	if _, err := c.Build(soon(t), in); err == nil {
		t.Error("a sponsor and a fee granter")
	}
}

// Who gave a grant for fees pays, and need not sign.
func TestFeeGranter(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "granter", alice.Address(), carol.Address())
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	d := draftOf(t, c, client.Intent{Signers: []crypto.Address{carol.Address()}, Known: []crypto.Policy{carol.Policy()}, Operations: []ledger.Operation{
		&ledger.SetGrant{Grantee: alice.Address(), For: ledger.KindFees, Total: ledger.Units(100_000_000), Until: uint64(time.Now().Add(time.Hour).Unix())}}}).Draft
	signs(t, d, carol)
	took(t, c, d)
	before := units(t, c, carol.Address())
	in := pay(7)
	in.FeeGranter = carol.Address()
	built := draftOf(t, c, in)
	signs(t, built.Draft, alice)
	f := took(t, c, passed(t, built.Draft))
	if got := units(t, c, alice.Address()); got != 1_000_000_000-7 || f.Receipt.Fee != built.Fee {
		t.Errorf("the sender has %d left; fee %s, computed %s", got, f.Receipt.Fee, built.Fee)
	}
	if units(t, c, carol.Address()) >= before {
		t.Error("the granter paid nothing")
	}
	in.FeeGranter = alice.Address()
	if _, err := c.Build(soon(t), in); err == nil {
		t.Error("the signer itself is the fee granter")
	}
}

// A sponsor that is no sponsor for this transaction.
func TestWrongSponsor(t *testing.T) {
	t.Parallel()
	d, _ := draft(t, alice.Policy())
	signs(t, d, alice)
	of := func(s *client.Keys, fee uint64) ledger.Sponsor {
		return ledger.Sponsor{Address: s.Address(), MaxFee: ledger.Units(fee), Policy: s.Policy().Encode()}
	}
	account := client.SigningAccount{Policy: carol.Policy()}
	for name, s := range map[string]ledger.Sponsor{"a signer": of(alice, 5), "another account": of(bob, 5), "another policy": {Address: carol.Address(), Policy: bob.Policy().Encode()}} {
		if err := d.AddSponsor(s, account); err == nil {
			t.Errorf("%s sponsors with carol's policy", name)
		}
	}
	if d.Sponsor() != nil || !d.Complete() {
		t.Fatal("a sponsor that was refused has left something")
	}
	if err := d.AddSponsor(of(carol, 5000), account); err != nil {
		t.Fatal(err)
	}
	signs(t, d, carol)
	if !d.Complete() {
		t.Fatal("not complete")
	}
	text, err := d.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"fee":     func(s string) string { return strings.Replace(s, `"max_fee": "5000"`, `"max_fee": "5001"`, 1) },
		"deposit": func(s string) string { return strings.Replace(s, `"max_deposit": "0"`, `"max_deposit": "1"`, 1) },
		"version": func(s string) string {
			i := strings.LastIndex(s, `"policy_version": 0`)
			return s[:i] + strings.Replace(s[i:], "0", "1", 1)
		},
		"policy carried": func(s string) string { return strings.Replace(s, `"carries_policy": true,`, ``, 1) },
		"address":        func(s string) string { return strings.Replace(s, carol.Address().String(), bob.Address().String(), 1) },
		"amount":         func(s string) string { return strings.Replace(s, `"max_fee": "5000"`, `"max_fee": "-1"`, 1) },
	} {
		changed := change(string(text))
		if changed == string(text) {
			t.Errorf("%s: nothing was changed", name)
		}
		if _, err := client.DecodeDraft([]byte(changed)); err == nil || !strings.Contains(err.Error(), "sponsor") {
			t.Errorf("%s: a changed file says %v", name, err)
		}
	}
	// Another sponsor, or other limits, start anew; the sender's signature stays.
	if err := d.AddSponsor(of(carol, 6000), account); err != nil {
		t.Fatal(err)
	}
	if len(d.Witnesses()) != 1 || d.Complete() {
		t.Errorf("%d signatures after a new sponsor, want the sender's", len(d.Witnesses()))
	}
}

// Copies of one transaction, signed on different machines, come together; nothing superfluous stays.
func TestMerge(t *testing.T) {
	t.Parallel()
	policy, members := board(t, 3, 1, 1, 2)
	d, _ := draft(t, policy)
	var copies []*client.Draft
	for _, m := range members {
		one := passed(t, d)
		signs(t, one, m)
		copies = append(copies, passed(t, one))
	}
	for first := range copies {
		merged := passed(t, copies[first])
		for i := range copies {
			if err := merged.Merge(copies[(first+i)%len(copies)]); err != nil {
				t.Fatal(err)
			}
		}
		checkWitnesses(t, merged, policy)
		if _, err := merged.Raw(); err != nil {
			t.Error(err)
		}
	}
	fails := func(name, want string, a, b *client.Draft) {
		t.Helper()
		before := len(a.Witnesses())
		if err := a.Merge(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if len(a.Witnesses()) != before {
			t.Errorf("%s: something was merged", name)
		}
	}
	other, _ := draft(t, alice.Policy())
	fails("another transaction", "different transactions", passed(t, d), other)
	network, err := client.NewDraft(ledger.Network{ChainID: "board", ID: crypto.Hash{2}}, d.BodyBytes(), d.Accounts())
	if err != nil {
		t.Fatal(err)
	}
	fails("another network", "different networks", passed(t, d), network)
	version, err := client.NewDraft(d.Network(), d.BodyBytes(), []client.SigningAccount{{Policy: policy, Version: 1}})
	if err != nil {
		t.Fatal(err)
	}
	fails("another version", "version 0 and version 1", passed(t, d), version)

	sponsored := func(fee uint64) *client.Draft {
		s := passed(t, d)
		if err := s.AddSponsor(ledger.Sponsor{Address: carol.Address(), MaxFee: ledger.Units(fee)}, client.SigningAccount{Policy: carol.Policy()}); err != nil {
			t.Fatal(err)
		}
		signs(t, s, carol)
		return s
	}
	merged := passed(t, copies[0])
	for _, o := range []*client.Draft{sponsored(5), copies[2], sponsored(5)} {
		if err := merged.Merge(o); err != nil {
			t.Fatal(err)
		}
	}
	if !merged.Complete() || merged.Payer() != carol.Address() {
		t.Errorf("merged with a sponsor: missing %v, payer %s", merged.Missing(), merged.Payer())
	}
	fails("another sponsor's limit", "different sponsors", sponsored(5), sponsored(6))
}

// Two people exchange two assets: each signs the same bytes on a machine of its own.
func TestExchange(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "exchange", alice.Address(), bob.Address())
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	in := func(by *client.Keys, op ledger.Operation) client.Intent {
		return client.Intent{Signers: []crypto.Address{by.Address()}, Known: []crypto.Policy{by.Policy()}, Operations: []ledger.Operation{op}}
	}
	create := draftOf(t, c, in(bob, &ledger.CreateAsset{Code: "EUR", Scale: 2, MaxSupply: ledger.Units(1_000_000)}))
	signs(t, create.Draft, bob)
	took(t, c, create.Draft)
	eur := ledger.NewAssetID(bob.Address(), "EUR")
	one := draftOf(t, c, in(alice, &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(5_000_000)}))
	two := draftOf(t, c, in(bob, &ledger.Transfer{To: alice.Address(), Asset: eur, Amount: ledger.Units(450)}))
	signers, policies, operations, err := client.Combine(one.Draft, two.Draft)
	if err != nil {
		t.Fatal(err)
	}
	if len(signers) != 2 || operations[0].By() != 0 || operations[1].By() != 1 {
		t.Fatalf("signers %v, operations by %d and %d", signers, operations[0].By(), operations[1].By())
	}
	whole := draftOf(t, c, client.Intent{Signers: signers, Known: policies, Operations: operations})
	left, right := passed(t, whole.Draft), passed(t, whole.Draft)
	signs(t, left, alice)
	signs(t, right, bob)
	if left.Complete() || right.Complete() {
		t.Fatal("one signature is enough")
	}
	if err := left.Merge(right); err != nil {
		t.Fatal(err)
	}
	f := took(t, c, left)
	line, err := c.Line(soon(t), ledger.LineKey{Account: alice.Address(), Asset: eur}, 0)
	if err != nil || line.Value.Available() != ledger.Units(450) {
		t.Errorf("alice has %s EUR, %v", line.Value.Available(), err)
	}
	if signed, total, err := client.SignedPower(f.Next); err != nil || signed != 4 || total != 4 || f.Total != 1 {
		t.Errorf("signed by %d of %d, %v; %d transactions", signed, total, err, f.Total)
	}
	if _, _, again, err := client.Combine(two.Draft, one.Draft, two.Draft); err != nil || len(again) != 3 || again[1].By() != 1 || again[2].By() != 0 {
		t.Errorf("combined in another order: %v, %v", again, err)
	}
}

// handed is what a policy file is after it went from hand to hand.
func handed(t *testing.T, f *client.PolicyFile, members ...client.Signer) *client.PolicyFile {
	t.Helper()
	for _, m := range members {
		if n, err := f.Prove(m); err != nil || n == 0 {
			t.Fatalf("%d proofs, %v", n, err)
		}
		text, err := f.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if f, err = client.DecodePolicyFile(text); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// A shared account pays with one threshold, changes its policy with another, loses its keys, and is recovered after the delay.
func TestSharedAccountStory(t *testing.T) {
	t.Parallel()
	behind := 2 * time.Hour
	policy, members := board(t, 2, 1, 1, 1)
	policy = must(t, policy.WithChangeThreshold)(3)
	policy, err := policy.WithRecovery(carol.Address(), crypto.MinRecoveryDelay)
	if err != nil {
		t.Fatal(err)
	}
	chain := clienttest.NewPast(t, "story", behind, policy.Address(), carol.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c, err := client.Dial(soon(t), client.Options{Nodes: []string{n.URL}, Genesis: chain.Doc, Dir: t.TempDir(), MaxStaleness: 2 * behind})
	if err != nil {
		t.Fatal(err)
	}
	shared := policy.Address()
	in := func(by crypto.Address, known crypto.Policy, op ledger.Operation) client.Intent {
		return client.Intent{Signers: []crypto.Address{by}, Known: []crypto.Policy{known}, Operations: []ledger.Operation{op}}
	}
	d := draftOf(t, c, in(shared, policy, &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(1)})).Draft
	signs(t, d, members[0])
	signs(t, d, members[2])
	took(t, c, d)

	// To another policy: all three members sign, and each new key proves itself.
	next, newMembers := board(t, 1, 1, 1)
	next, err = next.WithRecovery(carol.Address(), crypto.MinRecoveryDelay)
	if err != nil {
		t.Fatal(err)
	}
	file := client.NewPolicyFile(next, &client.PolicyFor{NetworkID: chain.Network.ID, Account: shared, Version: 1})
	if len(file.Missing()) != 2 {
		t.Fatalf("missing proofs %v", file.Missing())
	}
	left, right := handed(t, client.NewPolicyFile(next, file.For), newMembers[0]), handed(t, client.NewPolicyFile(next, file.For), newMembers[1])
	for _, part := range []*client.PolicyFile{left, right} {
		if err := file.Merge(part); err != nil {
			t.Fatal(err)
		}
	}
	d = draftOf(t, c, in(shared, policy, &ledger.SetPolicy{Policy: next.Encode(), Proofs: file.Proofs})).Draft
	if d.Need(0) != 3 {
		t.Errorf("a change of the policy needs the weight %d, want 3", d.Need(0))
	}
	for i, m := range members {
		if d.Complete() {
			t.Fatalf("complete after %d members", i)
		}
		signs(t, d, m)
	}
	took(t, c, d)

	// The keys are lost. Carol announces another policy, waits, and puts it in force.
	lost := clienttest.Signer("found again")
	start := draftOf(t, c, in(carol.Address(), carol.Policy(), &ledger.StartRecovery{Account: shared, PolicyHash: lost.Policy().Hash()})).Draft
	signs(t, start, carol)
	took(t, c, start)
	account, err := c.Account(soon(t), shared, 0)
	if err != nil || account.Value.Recovery.Policy != lost.Policy().Hash() {
		t.Fatalf("recovery %+v, %v", account.Value.Recovery, err)
	}
	proofs := handed(t, client.NewPolicyFile(lost.Policy(), &client.PolicyFor{NetworkID: chain.Network.ID, Account: shared, Version: ledger.RecoveryVersion}), lost)
	finish := func() client.Final {
		d := draftOf(t, c, in(carol.Address(), carol.Policy(), &ledger.FinishRecovery{Account: shared, Policy: lost.Policy().Encode(), Proofs: proofs.Proofs})).Draft
		signs(t, d, carol)
		return sent(t, c, d)
	}
	if f := finish(); f.Receipt.Code != ledger.RecoveryTooEarly {
		t.Errorf("before the delay: %s", f.Receipt.Code)
	}
	chain.Advance(time.Hour + time.Minute)
	for range 3 { // what is built from now on is built on a block of the later time
		chain.Block()
	}
	if f := finish(); f.Receipt.Code != ledger.OK {
		t.Fatalf("after the delay: %s", f.Receipt.Code)
	}
	d = draftOf(t, c, in(shared, lost.Policy(), &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(1)})).Draft
	signs(t, d, lost)
	took(t, c, d)
}

func must[A, B any](t *testing.T, f func(A) (B, error)) func(A) B {
	return func(a A) B {
		t.Helper()
		b, err := f(a)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestPolicyFile(t *testing.T) {
	t.Parallel()
	policy, members := board(t, 2, 1, 1, 1)
	who := &client.PolicyFor{NetworkID: crypto.Hash{1}, Account: alice.Address(), Version: 1}
	f := handed(t, client.NewPolicyFile(policy, who), members[1])
	text, err := f.Encode("a view that lies")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"format":        func(s string) string { return strings.Replace(s, "pacioli.policy", "pacioli.tx", 1) },
		"version":       func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) },
		"unknown field": func(s string) string { return strings.Replace(s, `"format"`, `"x": 1, "format"`, 1) },
		"behind":        func(s string) string { return s + "{}" },
		"hash":          func(s string) string { return strings.Replace(s, policy.Hash().String(), crypto.Hash{}.String(), 1) },
		"account":       func(s string) string { return strings.Replace(s, alice.Address().String(), bob.Address().String(), 1) },
		"for version":   func(s string) string { return strings.Replace(s, `"policy_version": 1`, `"policy_version": 2`, 1) },
		"key":           func(s string) string { return strings.Replace(s, `"key": 2`, `"key": 0`, 1) },
		"no key":        func(s string) string { return strings.Replace(s, `"key": 2`, `"key": 9`, 1) },
		"negative key":  func(s string) string { return strings.Replace(s, `"key": 2`, `"key": -1`, 1) },
	} {
		changed := change(string(text))
		if changed == string(text) {
			t.Errorf("%s: nothing was changed in\n%s", name, text)
		}
		if _, err := client.DecodePolicyFile([]byte(changed)); err == nil {
			t.Errorf("%s: a changed file is read", name)
		}
	}
	if _, err := client.DecodePolicyFile(make([]byte, client.MaxPolicyFile+1)); err == nil {
		t.Error("a file above the limit is read")
	}
	if _, err := client.NewPolicyFile(policy, nil).Prove(members[0]); err == nil {
		t.Error("a proof for no account")
	}
	other := *who
	other.Version = 2
	if err := f.Merge(client.NewPolicyFile(policy, &other)); err == nil {
		t.Error("proofs for different versions merge")
	}
	if err := f.Merge(client.NewPolicyFile(alice.Policy(), who)); err == nil {
		t.Error("different policies merge")
	}
	if n, err := f.Prove(members[1]); err != nil || n != 0 {
		t.Errorf("%d proofs a second time, %v", n, err)
	}
}
