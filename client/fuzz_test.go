package client_test

import (
	"bytes"
	"testing"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// FuzzDraftFile: a transaction file comes from strangers. Whatever is read writes back to what reads the same.
func FuzzDraftFile(f *testing.F) {
	policy := alice.Policy()
	body := ledger.Body{Signers: []ledger.Signer{{Address: policy.Address(), Sequence: 1, Policy: policy.Encode()}},
		Operations: []ledger.Operation{&ledger.Transfer{To: clienttest.Signer("bob").Address(), Asset: pac, Amount: ledger.Units(1)}}}
	d, err := client.NewDraft(ledger.Network{ChainID: "fuzz", ID: crypto.Hash{1}}, body.Encode(), []client.SigningAccount{{Policy: policy}})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := d.Sign(alice); err != nil {
		f.Fatal(err)
	}
	text, err := d.Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	if err := d.AddSponsor(ledger.Sponsor{Address: bob.Address(), MaxFee: ledger.Units(5), Policy: bob.Policy().Encode()}, client.SigningAccount{Policy: bob.Policy()}); err != nil {
		f.Fatal(err)
	}
	if _, err := d.Sign(bob); err != nil {
		f.Fatal(err)
	}
	if text, err = d.Encode(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := client.DecodeDraft(text)
		if err != nil {
			return
		}
		again, err := d.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := client.DecodeDraft(again)
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		third, _ := back.Encode(nil)
		if !bytes.Equal(again, third) {
			t.Errorf("written twice, and different:\n%s\n%s", again, third)
		}
	})
}
