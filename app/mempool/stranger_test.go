package mempool

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

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
