package load

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// Payments alone would leave most of the rulebook unused. A story is a short sequence of transactions between new accounts
// in which each waits for the one before: somebody makes a hold and somebody posts it, an issuer freezes and takes back, an account
// is recovered, another is closed. Nobody else touches these accounts, so each transaction's end is known beforehand,
// whatever the network goes through; which is part of the claim.

// storyKind begins the kind of a story's transactions.
const storyKind = "story: "

// guest is an account of a story.
type guest struct {
	address    crypto.Address
	keys       client.Signer
	policy     crypto.Policy // in force
	version    uint32
	registered time.Time
}

// account is what a draft needs to know.
func (g *guest) account() client.SigningAccount {
	return client.SigningAccount{Policy: g.policy, Version: g.version}
}

// carried is the policy that a transaction brings.
func (g *guest) carried() []byte {
	if g.registered.IsZero() || g.version == 0 && time.Since(g.registered) < catchUp {
		return g.policy.Encode()
	}
	return nil
}

// story is one of them under way. It belongs to one goroutine.
type story struct {
	load   *Load
	name   string
	random *rand.Rand
	bank   *Payer // funds it
	guests []*guest
	fee    ledger.AssetID
}

// stories are told in turn.
var stories = []struct {
	name   string
	guests int
	tell   func(s *story, ctx context.Context) bool
}{
	{"hold", 3, (*story).hold},
	{"lock", 3, (*story).lock},
	{"asset", 3, (*story).asset},
	{"grant", 3, (*story).grant},
	{"policy", 2, (*story).policy},
	{"recovery", 2, (*story).recovery},
	{"exchange", 2, (*story).exchange},
	{"sponsor", 2, (*story).sponsor},
	{"close", 2, (*story).close},
}

// storyFunds is what each guest begins with, in base units of the fee asset.
const storyFunds = 3_000_000

// begin starts a story. It wants l.mu not to be held.
func (l *Load) begin(n int) *story {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := stories[n%len(stories)]
	s := &story{load: l, name: storyKind + t.name, random: rand.New(rand.NewPCG(l.random.Uint64(), uint64(n))), fee: l.params.FeeAsset}
	for s.bank = nil; s.bank == nil || s.bank.sequenced; {
		s.bank = l.o.Payers[l.random.IntN(len(l.o.Payers))]
	}
	for range t.guests {
		s.guests = append(s.guests, s.guest())
	}
	return s
}

// key draws a key.
func (s *story) key() crypto.PrivateKey {
	seed := make([]byte, crypto.SeedSize)
	for i := range seed {
		seed[i] = byte(s.random.Uint32())
	}
	scheme := crypto.Ed25519
	if s.random.IntN(8) == 0 {
		scheme = crypto.MLDSA44
	}
	k, err := crypto.NewPrivateKey(scheme, seed)
	if err != nil {
		panic(err) // every seed of the right length makes a key
	}
	return k
}

// keys makes a policy of new keys that all have to sign.
func (s *story) keys(n int) *client.Keys {
	var private []crypto.PrivateKey
	for range n {
		private = append(private, s.key())
	}
	k, err := client.NewKeys(private...)
	if err != nil {
		panic(err) // they differ
	}
	return k
}

func (s *story) guest() *guest {
	k := s.keys(1)
	return &guest{address: k.Address(), keys: k, policy: k.Policy()}
}

// deed is a transaction of a story.
type deed struct {
	signers    []*guest
	granter    crypto.Address // of the fee
	sponsor    *guest
	want       ledger.Code
	operations []ledger.Operation
}

// by makes a deed of one signer.
func by(g *guest, operations ...ledger.Operation) deed {
	return deed{signers: []*guest{g}, operations: operations}
}

// to says what a deed has to end with.
func (d deed) to(want ledger.Code) deed { d.want = want; return d }

// do makes a transaction and waits until it is settled. ok is false when it is not final with the code that it had to end with: the
// story ends, and the record says why.
func (s *story) do(ctx context.Context, d deed) (receipt ledger.Receipt, ok bool) {
	p, err := s.build(d)
	if err != nil {
		panic(fmt.Sprintf("%s: %s", s.name, err)) // a defect of this package
	}
	s.load.settle(ctx, p)
	select {
	case <-p.done:
	case <-ctx.Done():
		return receipt, false
	}
	if p.claim.Ending != audit.Final || p.claim.Code != uint32(d.want) {
		return receipt, false
	}
	for _, g := range append(d.signers, d.sponsor) {
		if g != nil && g.registered.IsZero() {
			g.registered = time.Now()
		}
	}
	receipt, err = ledger.DecodeReceipt(p.receipt)
	return receipt, err == nil
}

// all does deeds in order.
func (s *story) all(ctx context.Context, deeds ...deed) bool {
	for _, d := range deeds {
		if _, ok := s.do(ctx, d); !ok {
			return false
		}
	}
	return true
}

// build signs a deed.
func (s *story) build(d deed) (*payment, error) {
	l := s.load
	key := replayKey{sender: d.signers[0].address, until: uint64(time.Now().Add(validFor).Unix())}
	for i := range key.nonce {
		key.nonce[i] = byte(s.random.Uint32())
	}
	body := ledger.Body{ValidUntil: key.until, Operations: d.operations, FeeGranter: d.granter}
	var accounts []client.SigningAccount
	for _, g := range d.signers {
		body.Signers = append(body.Signers, ledger.Signer{Address: g.address, Nonce: key.nonce, Policy: g.carried()})
		accounts = append(accounts, g.account())
	}
	var encoded []byte
	var err error
	if d.sponsor == nil {
		body.MaxDeposit = client.DepositCeiling(l.params, body)
		if encoded, err = client.WithFee(l.params, l.rate, body, accounts); err != nil {
			return nil, err
		}
	} else {
		if err := body.Validate(); err != nil {
			return nil, err
		}
		encoded = body.Encode()
	}
	draft, err := client.NewDraft(l.network, encoded, accounts)
	if err != nil {
		return nil, err
	}
	signers := d.signers
	if d.sponsor != nil {
		most := ledger.Units(1_000_000)
		if err := draft.AddSponsor(ledger.Sponsor{Address: d.sponsor.address, Policy: d.sponsor.carried(), MaxFee: most, MaxDeposit: most}, d.sponsor.account()); err != nil {
			return nil, err
		}
		signers = append(signers[:len(signers):len(signers)], d.sponsor)
	}
	for _, g := range signers {
		if _, err := draft.Sign(g.keys); err != nil {
			return nil, err
		}
	}
	raw := ledger.Assemble(encoded, draft.Witnesses(), draft.Sponsor())
	tx, err := ledger.Decode(raw)
	if err != nil {
		return nil, err
	}
	return &payment{key: key, until: key.until, pause: resendFirst, done: make(chan struct{}),
		claim: audit.Claim{ID: tx.ID(l.network.ID), Raw: raw, Kind: s.name, Want: uint32(d.want)}}, nil
}

// settle hands a story's transaction in. A node that lags behind the one before refuses it, and none may answer just now; so it
// is handed in again for a while before it counts as refused or unsent.
func (l *Load) settle(ctx context.Context, p *payment) {
	l.enter(p)
	for try := 0; ; try++ {
		err := l.handIn(ctx, p)
		_, unknown := errors.AsType[*client.Unknown](err)
		if try == 8 || err == nil || unknown || ctx.Err() != nil {
			l.handed(p, err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// tell runs a story to its end.
func (l *Load) tell(ctx context.Context, n int) {
	s := l.begin(n)
	var fund []ledger.Operation
	for _, g := range s.guests {
		fund = append(fund, &ledger.Transfer{To: g.address, Asset: s.fee, Amount: ledger.Units(storyFunds), Memo: "once upon a time"})
	}
	bank := &guest{address: s.bank.Address, keys: s.bank.keys, policy: s.bank.keys.Policy()}
	l.mu.Lock()
	if !s.bank.carries() {
		bank.registered = s.bank.registered
	}
	l.mu.Unlock()
	done := false
	if _, ok := s.do(ctx, by(bank, fund...)); ok {
		done = stories[n%len(stories)].tell(s, ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress.Stories++
	if done {
		l.progress.Told++
	}
}

func (s *story) units(most uint64) ledger.Amount { return ledger.Units(1 + s.random.Uint64N(most)) }

// soon is a time in seconds from now on, for expiries.
func soon(d time.Duration) uint64 { return uint64(time.Now().Add(d).Unix()) }

// hold makes holds that are posted in part, voided, expire, and are posted by their expiry.
func (s *story) hold(ctx context.Context) bool {
	payer, shop, judge := s.guests[0], s.guests[1], s.guests[2]
	create := func(expires time.Duration, more func(*ledger.CreateHold)) ledger.Operation {
		h := &ledger.CreateHold{To: shop.address, Asset: s.fee, Amount: ledger.Units(1_000), Expires: soon(expires), PostBy: ledger.ByReceiver, VoidBy: ledger.ByReceiver}
		if more != nil {
			more(h)
		}
		return h
	}
	r, ok := s.do(ctx, by(payer, create(time.Hour, nil), create(time.Hour, nil),
		create(time.Hour, func(h *ledger.CreateHold) {
			h.Arbiter, h.PostBy, h.VoidBy = judge.address, ledger.ByArbiter, ledger.ByArbiter
		}),
		// Of these nobody sees to it: the end of a block does.
		create(validFor+10*time.Second, func(h *ledger.CreateHold) { h.PostBy = ledger.ByHolder }),
		create(validFor+12*time.Second, func(h *ledger.CreateHold) { h.PostAtExpiry, h.PostBy = true, 0 })))
	if !ok {
		return false
	}
	post := &ledger.PostHold{Hold: r.Results[0].Hold, Amount: s.units(999)}
	return s.all(ctx,
		by(payer, post).to(ledger.HoldNotPermitted), by(shop, post), by(shop, post).to(ledger.HoldUnknown),
		by(shop, &ledger.VoidHold{Hold: r.Results[1].Hold}),
		by(judge, &ledger.PostHold{Hold: r.Results[2].Hold, Amount: ledger.Units(1_001)}).to(ledger.HoldAmountExceeded),
		by(judge, &ledger.PostHold{Hold: r.Results[2].Hold}))
}

// lock swaps by a hash: who knows the preimage posts.
func (s *story) lock(ctx context.Context) bool {
	payer, shop, stranger := s.guests[0], s.guests[1], s.guests[2]
	preimage := []byte(fmt.Sprint("the secret ", s.random.Uint64()))
	r, ok := s.do(ctx, by(payer, &ledger.CreateHold{To: shop.address, Asset: s.fee, Amount: s.units(10_000), Expires: soon(time.Hour), HashLock: sha256.Sum256(preimage), PostBy: ledger.ByAnybody,
		VoidBy: ledger.ByReceiver}))
	return ok && s.all(ctx,
		by(stranger, &ledger.PostHold{Hold: r.Results[0].Hold, Preimage: []byte("a guess")}).to(ledger.HoldPreimageWrong),
		by(stranger, &ledger.PostHold{Hold: r.Results[0].Hold, Preimage: preimage}))
}

// asset is an issuer's day with all controls.
func (s *story) asset(ctx context.Context) bool {
	issuer, alice, bob := s.guests[0], s.guests[1], s.guests[2]
	var code strings.Builder
	code.WriteByte('S')
	for range 11 {
		code.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[s.random.IntN(36)])
	}
	r, ok := s.do(ctx, by(issuer, &ledger.CreateAsset{Code: code.String(), Scale: 2, MaxSupply: ledger.Units(1_000_000),
		Controls: ledger.ControlAuthorisation | ledger.ControlFreeze | ledger.ControlClawback}))
	if !ok {
		return false
	}
	gold, ceiling, credit, none := r.Results[0].Asset, ledger.Units(5_000), ledger.Units(100), ledger.Units(0)
	pay := func(to *guest, n uint64) ledger.Operation {
		return &ledger.Transfer{To: to.address, Asset: gold, Amount: ledger.Units(n)}
	}
	allow := func(g *guest) ledger.Operation {
		return &ledger.SetLine{Account: g.address, Asset: gold, Set: ledger.LineAuthorised}
	}
	return s.all(ctx,
		by(alice, &ledger.OpenLine{Asset: gold, Ceiling: &ceiling}), by(bob, &ledger.OpenLine{Asset: gold}),
		by(issuer, pay(alice, 1_000)).to(ledger.LineNotAuthorised), by(issuer, allow(alice), allow(bob), pay(alice, 1_000)),
		by(issuer, pay(alice, 4_001)).to(ledger.CeilingExceeded),
		by(issuer, &ledger.SetLine{Account: bob.address, Asset: gold, Credit: &credit}),
		by(bob, pay(alice, 101)).to(ledger.InsufficientFunds), by(bob, pay(alice, 100)),
		by(issuer, &ledger.SetLine{Account: alice.address, Asset: gold, Set: ledger.LineFrozenOut}), by(alice, pay(bob, 10)).to(ledger.LineFrozen),
		by(issuer, &ledger.SetLine{Account: alice.address, Asset: gold, Clear: ledger.LineFrozenOut}),
		by(issuer, &ledger.SetAsset{Asset: gold, Freeze: ledger.LineFrozenIn}), by(alice, pay(bob, 10)).to(ledger.LineFrozen),
		by(issuer, &ledger.SetAsset{Asset: gold, Unfreeze: ledger.LineFrozenIn}), by(alice, pay(bob, 100)),
		by(issuer, &ledger.SetLine{Account: bob.address, Asset: gold, Credit: &none}),
		by(issuer, &ledger.Clawback{Account: alice.address, Asset: gold, Amount: s.units(500)}),
		by(issuer, &ledger.SetAsset{Asset: gold, DropControls: ledger.ControlClawback, MaxSupply: ledger.Units(900_000)}),
		by(issuer, &ledger.Clawback{Account: alice.address, Asset: gold, Amount: ledger.Units(1)}).to(ledger.ControlMissing),
		by(alice, &ledger.CloseLine{Asset: gold, To: alice.address}).to(ledger.LineNotEmpty),
		by(alice, &ledger.Transfer{To: issuer.address, Asset: gold, Amount: ledger.Units(1_000_000), Balancing: ledger.BalancingDebit}, &ledger.CloseLine{Asset: gold, To: alice.address}))
}

// grant has others spend, pull and pay their fees from one account.
func (s *story) grant(ctx context.Context) bool {
	granter, grantee, shop := s.guests[0], s.guests[1], s.guests[2]
	pull := func(n uint64) ledger.Operation {
		return &ledger.Transfer{To: shop.address, Asset: s.fee, Amount: ledger.Units(n), Granter: granter.address}
	}
	fees := by(grantee, &ledger.Transfer{To: shop.address, Asset: s.fee, Amount: s.units(1_000)})
	fees.granter = granter.address
	return s.all(ctx,
		by(grantee, pull(100)).to(ledger.GrantUnknown),
		by(granter, &ledger.SetGrant{Grantee: grantee.address, For: ledger.KindTransfer, Asset: s.fee, Total: ledger.Units(10_000), PerPeriod: ledger.Units(1_000), Period: 31_000_000, Until: soon(24 * time.Hour)},
			&ledger.SetGrant{Grantee: grantee.address, For: ledger.KindCreateHold, Asset: s.fee, Total: ledger.Units(10_000), Until: soon(24 * time.Hour)},
			&ledger.SetGrant{Grantee: grantee.address, For: ledger.KindFees, Total: ledger.Units(1_000_000), Until: soon(24 * time.Hour)}),
		by(grantee, pull(600)), by(grantee, pull(401)).to(ledger.GrantExceeded), by(grantee, pull(400)), fees,
		by(grantee, &ledger.CreateHold{To: shop.address, Asset: s.fee, Amount: s.units(10_000), Granter: granter.address, Expires: soon(time.Hour), PostBy: ledger.ByReceiver, VoidBy: ledger.ByReceiver}),
		by(granter, &ledger.RevokeGrant{Grantee: grantee.address, For: ledger.KindTransfer, Asset: s.fee}),
		by(grantee, pull(1)).to(ledger.GrantUnknown))
}

// setPolicy is an operation that gives an account new keys.
func (s *story) setPolicy(g *guest, next client.Signer, policy crypto.Policy, version uint32) (encoded []byte, proofs [][]byte) {
	message := ledger.PossessionPreimage(s.load.network.ID, g.address, policy.Hash(), version)
	for i := range policy.Keys {
		proof, err := next.Sign(i, message)
		if err != nil {
			panic(err) // it has the keys
		}
		proofs = append(proofs, proof)
	}
	return policy.Encode(), proofs
}

// policy changes the keys of an account; the old ones are worth nothing then.
func (s *story) policy(ctx context.Context) bool {
	owner, other := s.guests[0], s.guests[1]
	next := s.keys(2)
	encoded, proofs := s.setPolicy(owner, next, next.Policy(), 1)
	pay := &ledger.Transfer{To: other.address, Asset: s.fee, Amount: s.units(1_000)}
	if !s.all(ctx, by(owner, pay), by(owner, &ledger.SetPolicy{Policy: encoded, Proofs: proofs})) {
		return false
	}
	owner.keys, owner.policy, owner.version = next, next.Policy(), 1
	return s.all(ctx, by(owner, pay), by(owner, &ledger.SetPolicy{Policy: encoded, Proofs: s.proofsAgain(owner, next)}).to(ledger.PolicyUnchanged))
}

func (s *story) proofsAgain(g *guest, k client.Signer) [][]byte {
	_, proofs := s.setPolicy(g, k, k.Policy(), g.version+1)
	return proofs
}

// recovery announces new keys for an account, and its owner objects.
func (s *story) recovery(ctx context.Context) bool {
	owner, friend := s.guests[0], s.guests[1]
	policy, err := owner.keys.Policy().WithRecovery(friend.address, crypto.MinRecoveryDelay)
	if err != nil {
		panic(err) // the friend is another account
	}
	encoded, proofs := s.setPolicy(owner, owner.keys, policy, 1)
	start := &ledger.StartRecovery{Account: owner.address, PolicyHash: s.keys(1).Policy().Hash()}
	if !s.all(ctx, by(friend, start).to(ledger.RecoveryUnavailable), by(owner, &ledger.SetPolicy{Policy: encoded, Proofs: proofs})) {
		return false
	}
	owner.policy, owner.version = policy, 1
	next := s.keys(1)
	finish, proofs := s.setPolicy(owner, next, next.Policy(), ledger.RecoveryVersion)
	start = &ledger.StartRecovery{Account: owner.address, PolicyHash: next.Policy().Hash()}
	if !s.all(ctx, by(friend, start), by(friend, start).to(ledger.RecoveryPending),
		by(friend, &ledger.FinishRecovery{Account: owner.address, Policy: finish, Proofs: proofs}).to(ledger.RecoveryTooEarly),
		by(owner, &ledger.CancelRecovery{Account: owner.address}), by(owner, &ledger.CancelRecovery{Account: owner.address}).to(ledger.RecoveryNone)) {
		return false
	}
	if s.load.o.Expected < crypto.MinRecoveryDelay*time.Second+10*time.Minute {
		return true // nobody would live to see its end
	}
	if !s.all(ctx, by(friend, start)) {
		return false
	}
	select {
	case <-time.After(crypto.MinRecoveryDelay*time.Second + time.Minute):
	case <-s.load.stop:
		return true
	}
	if !s.all(ctx, by(friend, &ledger.FinishRecovery{Account: owner.address, Policy: finish, Proofs: proofs})) {
		return false
	}
	owner.keys, owner.policy, owner.version = next, next.Policy(), 2
	return s.all(ctx, by(owner, &ledger.Transfer{To: friend.address, Asset: s.fee, Amount: s.units(1_000)}))
}

// exchange is one transaction of two accounts that pay each other, and one of which neither half may happen.
func (s *story) exchange(ctx context.Context) bool {
	a, b := s.guests[0], s.guests[1]
	swap := func(there, back uint64) deed {
		return deed{signers: []*guest{a, b}, operations: []ledger.Operation{
			&ledger.Transfer{From: 0, To: b.address, Asset: s.fee, Amount: ledger.Units(there)},
			&ledger.Transfer{From: 1, To: a.address, Asset: s.fee, Amount: ledger.Units(back)}}}
	}
	return s.all(ctx, swap(700, 300), swap(700, 1<<60).to(ledger.InsufficientFunds), by(a, &ledger.SetAccount{OptIn: true}), by(a, &ledger.SetAccount{}), swap(1, 2))
}

// sponsor pays for another.
func (s *story) sponsor(ctx context.Context) bool {
	poor, rich := s.guests[0], s.guests[1]
	everything := &ledger.Transfer{To: rich.address, Asset: s.fee, Amount: ledger.Units(2 * storyFunds), Balancing: ledger.BalancingDebit}
	again := *everything
	first, second := by(poor, everything), by(poor, &again)
	first.sponsor, second.sponsor, second.want = rich, rich, ledger.NothingToTransfer
	back := deed{signers: []*guest{poor}, sponsor: rich, operations: []ledger.Operation{&ledger.SetAccount{OptIn: true}}}
	return s.all(ctx, first, second, back)
}

// close ends an account, which nobody can pay any more.
func (s *story) close(ctx context.Context) bool {
	leaver, heir := s.guests[0], s.guests[1]
	leave := by(leaver, &ledger.Transfer{To: heir.address, Asset: s.fee, Amount: ledger.Units(2 * storyFunds), Balancing: ledger.BalancingDebit},
		&ledger.CloseLine{Asset: s.fee, To: heir.address}, &ledger.CloseAccount{To: heir.address})
	leave.sponsor = heir
	return s.all(ctx, by(leaver, &ledger.CloseAccount{To: heir.address}).to(ledger.AccountInUse), leave,
		by(heir, &ledger.Transfer{To: leaver.address, Asset: s.fee, Amount: ledger.Units(1)}).to(ledger.AccountClosed))
}
