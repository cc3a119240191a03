package mempool

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestAGranteeDoesNotHoldTheGrantersMoney: neither by what never runs, nor by what the grant forbids, nor by what was sent
// before the granter's own transaction.
func TestAGranteeDoesNotHoldTheGrantersMoney(t *testing.T) {
	n := newNet(t, 4, nil)
	a, b, receiver, d := n.people[0], n.people[1], n.people[2], n.people[3]
	want := func(code ledger.Code, raw []byte) {
		t.Helper()
		v := n.pool.Check(context.Background(), raw)
		if v.Code != code || v.Retry != (code >= Busy) {
			t.Fatalf("%s %v: %s; want %s", v.Code, v.Retry, v.Message, code)
		}
		n.reserved()
	}
	claimed := func(p *person) (sum ledger.Amount) {
		n.pool.mu.Lock()
		defer n.pool.mu.Unlock()
		if p := n.pool.waiting.purses[purseKey{account: p.Address}]; p != nil {
			sum = p.claimed
		}
		return sum
	}
	set := func(p *person, kind ledger.Kind, to crypto.Address) *ledger.SetGrant {
		g := &ledger.SetGrant{Grantee: p.Address, For: kind, Total: ledger.Units(1 << 60), Until: ledger.MaxUnixSeconds, To: to}
		if kind != ledger.KindFees {
			g.Asset = n.asset
		}
		return g
	}
	revoke := &ledger.RevokeGrant{Grantee: b.Address, For: ledger.KindTransfer, Asset: n.asset}
	spend := func(to *person) *ledger.Transfer {
		return &ledger.Transfer{To: to.Address, Asset: n.asset, Amount: ledger.Units(1 << 60), Granter: a.Address}
	}
	want(ledger.OK, n.single(a, 1, 5000, set(b, ledger.KindTransfer, receiver.Address), set(d, ledger.KindFees, crypto.Address{})))
	n.commit(n.pool.Propose(everything))

	// What never runs is not kept.
	want(OutOfTurn, n.single(b, 2, 2000, spend(receiver)))
	feeGranted := ledger.Body{Signers: []ledger.Signer{{Address: d.Address, Sequence: 2, Policy: d.policy}}, MaxFee: ledger.Units(2000),
		FeeGranter: a.Address, Operations: []ledger.Operation{n.transfer(receiver, 1)}}
	want(OutOfTurn, n.signed(feeGranted, []*person{d}, nil, nil))
	// What the grant forbids claims nothing of the granter.
	want(ledger.OK, n.single(b, 2, 2000, spend(d)))
	if got := claimed(a); !got.IsZero() {
		t.Fatalf("%s are reserved for a receiver that the grant does not pay", got)
	}
	// What follows another goes with it.
	first := n.single(d, 1, 2000, n.transfer(receiver, 1))
	want(ledger.OK, first)
	want(ledger.OK, n.signed(feeGranted, []*person{d}, nil, nil))
	if claimed(a).IsZero() {
		t.Fatal("nothing is reserved for a fee that a grant pays")
	}
	n.pool.Refused(n.decode(first).Hash(), ledger.Expired)
	n.reserved()
	if got := claimed(a); !got.IsZero() {
		t.Fatalf("%s are still reserved for what has lost its predecessor", got)
	}
	// The owner's own comes before what waits under its grant, but only with its signature.
	ready := n.single(b, 1, 2000, spend(receiver))
	want(ledger.OK, ready)
	forged := n.single(a, 2, 2000, revoke)
	forged[len(forged)-1] ^= 1
	want(ledger.SignatureInvalid, forged)
	if n.pool.TxOf(ready) == nil {
		t.Fatal("a forged transaction of the granter evicts")
	}
	want(ledger.OK, n.single(a, 2, 2000, revoke))
	if n.pool.TxOf(ready) != nil {
		t.Fatal("what holds all of the granter's money still waits")
	}
	n.commit(n.pool.Propose(everything))
	if n.state[string(ledger.GrantRow(ledger.GrantKey{Granter: a.Address, Grantee: b.Address, Kind: ledger.KindTransfer, Asset: n.asset}))] != nil {
		t.Fatal("the grant is not revoked")
	}
	n.reserved()
}

// TestNoWorkForAForgedPayer: 30 kB with 256 good signatures of strangers, and a rich account named as the sponsor whose
// signature comes last and is forged, cost one verification.
func TestNoWorkForAForgedPayer(t *testing.T) {
	n := newNet(t, 2, nil)
	rich := n.people[0]
	body := ledger.Body{MaxDeposit: ledger.Units(1 << 40), MaxFee: ledger.Units(1 << 40)}
	var keys [][]crypto.PrivateKey
	for s := range 16 {
		byPublic := map[string]crypto.PrivateKey{}
		var list []crypto.Key
		for k := range 16 {
			seed := sha256.Sum256(fmt.Append(nil, s, "-", k))
			p, err := crypto.NewPrivateKey(crypto.Secp256k1, seed[:])
			if err != nil {
				t.Fatal(err)
			}
			byPublic[string(p.Public())] = p
			list = append(list, crypto.Key{Scheme: crypto.Secp256k1, Public: p.Public(), Weight: 1})
		}
		policy, err := crypto.NewPolicy(16, list...)
		if err != nil {
			t.Fatal(err)
		}
		var sorted []crypto.PrivateKey
		for _, k := range policy.Keys {
			sorted = append(sorted, byPublic[string(k.Public)])
		}
		keys = append(keys, sorted)
		body.Signers = append(body.Signers, ledger.Signer{Address: policy.Address(), Sequence: 1, Policy: policy.Encode()})
	}
	body.Operations = []ledger.Operation{n.transfer(rich, 1)}
	encoded := body.Encode()
	var witnesses []ledger.Witness
	for s, list := range keys {
		for k, key := range list {
			signature, err := key.Sign(ledger.Preimage(n.id, encoded, 0))
			if err != nil {
				t.Fatal(err)
			}
			witnesses = append(witnesses, ledger.Witness{Signer: uint32(s), Key: uint32(k), Signature: signature})
		}
	}
	sponsor := &ledger.Sponsor{Address: rich.Address, MaxFee: ledger.Units(1 << 30), MaxDeposit: ledger.Units(1 << 40), Policy: rich.policy}
	ask := func(last []byte) (ledger.Code, uint64) {
		before := n.cache.Counters().Verified
		v := n.pool.Check(context.Background(), ledger.Assemble(encoded, append(witnesses[:256:256], ledger.Witness{Signer: 16, Signature: last}), sponsor))
		return v.Code, n.cache.Counters().Verified - before
	}
	if code, verified := ask(make([]byte, 64)); code != ledger.SignatureInvalid || verified != 1 {
		t.Errorf("with a forged payer: %s after %d verifications, want one", code, verified)
	}
	good, err := rich.key.Sign(ledger.SponsorPreimage(n.id, encoded, sponsor, rich.version))
	if err != nil {
		t.Fatal(err)
	}
	if code, verified := ask(good); code != ledger.OK || verified < 257 {
		t.Errorf("with the payer's signature: %s after %d verifications", code, verified)
	}
}
