package ledger

import (
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// A key of small order verifies for everybody: whoever puts one into a policy gives the account away. It must be refused
// in the policy of a first transaction and in a new policy, although its "signature" verifies.
func TestNewKeysAreChecked(t *testing.T) {
	weak := append([]byte{1}, make([]byte, 31)...) // the neutral element
	forged := append(append([]byte(nil), weak...), make([]byte, 32)...)
	if !(crypto.Check{Scheme: crypto.Ed25519, PublicKey: weak, Message: []byte("anything"), Signature: forged}).Verify() {
		t.Fatal("the test's key is not weak")
	}
	seed := [32]byte{1}
	key, err := crypto.NewPrivateKey(crypto.Ed25519, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	good, err := crypto.SingleKey(crypto.Ed25519, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sorted := []crypto.Key{{Scheme: crypto.Ed25519, Public: weak, Weight: 1}, {Scheme: crypto.Ed25519, Public: key.Public(), Weight: 1}}
	bad := crypto.Policy{Threshold: 1, Keys: sorted}
	collector, issuer := crypto.Address{8}, crypto.Address{9}
	p := DefaultParameters().WithoutDeposits()
	p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature = 0, 0, 0, 0
	g := Genesis{ChainID: "t", InitialHeight: 1, Validators: []Validator{{Scheme: crypto.Ed25519, PublicKey: make([]byte, 32), Power: 1}},
		State: GenesisState{Parameters: p.Genesis("PAC", collector), Assets: []GenesisAsset{{Code: "PAC", Issuer: issuer, MaxSupply: "1"}}}}
	outcome, network, err := g.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	state := Memory{}
	state.Apply(outcome.Writes)
	for _, c := range []struct {
		name   string
		policy crypto.Policy
		op     func(address crypto.Address) Operation
		want   Code
	}{
		{"a sound policy", good, func(crypto.Address) Operation {
			return &Transfer{To: issuer, Asset: NewAssetID(issuer, "PAC"), Amount: Units(1)}
		}, InsufficientFunds},
		{"a weak key beside the one that signs", bad, func(crypto.Address) Operation {
			return &Transfer{To: issuer, Asset: NewAssetID(issuer, "PAC"), Amount: Units(1)}
		}, SignatureInvalid},
		{"a weak key in the new policy", good, func(a crypto.Address) Operation {
			proof, err := key.Sign(PossessionPreimage(network.ID, a, bad.Hash(), 1))
			if err != nil {
				t.Fatal(err)
			}
			return &SetPolicy{Policy: bad.Encode(), Proofs: [][]byte{forged, proof}}
		}, SignatureInvalid},
	} {
		address := c.policy.Address()
		body := Body{Signers: []Signer{{Address: address, Sequence: 1, Policy: c.policy.Encode()}}, Operations: []Operation{c.op(address)}}
		encoded := body.Encode()
		signature, err := key.Sign(Preimage(network.ID, encoded, 0))
		if err != nil {
			t.Fatal(err)
		}
		tx, err := Decode(Assemble(encoded, []Witness{{Key: uint32(len(c.policy.Keys) - 1), Signature: signature}}, nil))
		if err != nil {
			t.Fatalf("%s: %s", c.name, err)
		}
		block, err := NewBlock(state, Header{Height: 1}, Direct{})
		if err != nil {
			t.Fatal(err)
		}
		receipt, err := block.Apply(tx)
		if err != nil || receipt.Code != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, receipt.Code, err, c.want)
		}
	}
}
