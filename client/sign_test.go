package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// board is a policy of keys with weights, and a signer for each key.
func board(t *testing.T, threshold uint32, weights ...uint32) (crypto.Policy, []*client.Keys) {
	t.Helper()
	var keys []crypto.Key
	var signers []*client.Keys
	for i, w := range weights {
		scheme := []crypto.Scheme{crypto.Ed25519, crypto.MLDSA44}[i%2]
		private := clienttest.Key(scheme, fmt.Sprint("member ", i))
		keys = append(keys, crypto.Key{Scheme: scheme, Public: private.Public(), Weight: w})
		s, err := client.NewKeys(private)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, s)
	}
	p, err := crypto.NewPolicy(threshold, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return p, signers
}

func draft(t *testing.T, policy crypto.Policy) (*client.Draft, ledger.Parameters) {
	t.Helper()
	parameters := ledger.DefaultParameters()
	body := ledger.Body{Signers: []ledger.Signer{{Address: policy.Address(), Sequence: 1, Policy: policy.Encode()}},
		Operations: []ledger.Operation{&ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(1)}}}
	accounts := []client.SigningAccount{{Policy: policy}}
	encoded, err := client.WithFee(parameters, ledger.FeeRate{Multiplier: 1000}, body, accounts)
	if err != nil {
		t.Fatal(err)
	}
	d, err := client.NewDraft(ledger.Network{ChainID: "board", ID: crypto.Hash{1}}, encoded, accounts)
	if err != nil {
		t.Fatal(err)
	}
	return d, parameters
}

// checkWitnesses is the ledger's rule: enough, and none superfluous.
func checkWitnesses(t *testing.T, d *client.Draft, p crypto.Policy) {
	t.Helper()
	var sum, lightest uint64
	for _, w := range d.Witnesses() {
		weight := uint64(p.Keys[w.Key].Weight)
		if sum += weight; lightest == 0 || weight < lightest {
			lightest = weight
		}
	}
	if sum < uint64(p.Threshold) || sum-lightest >= uint64(p.Threshold) {
		t.Errorf("signatures of weight %d, the lightest %d, for a threshold of %d", sum, lightest, p.Threshold)
	}
}

// In whatever order the members sign, the transaction ends up with enough signatures, none superfluous, within its fee.
func TestBoardSigns(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]uint32{{1, 1, 1}, {1, 1, 2}, {3, 1, 1, 1}, {1, 2, 3, 4}} {
		policy, members := board(t, 3, weights...)
		for first := range members {
			d, parameters := draft(t, policy)
			for i := range members {
				if _, err := d.Raw(); d.Complete() != (err == nil) || err != nil && !errors.Is(err, client.ErrIncomplete) {
					t.Fatalf("complete %v, raw %v", d.Complete(), err)
				}
				if _, err := d.Sign(members[(first+i)%len(members)]); err != nil {
					t.Fatal(err)
				}
			}
			checkWitnesses(t, d, policy)
			raw, err := d.Raw()
			if err != nil {
				t.Fatal(err)
			}
			tx, err := ledger.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			var cost uint64
			for _, w := range tx.Witnesses {
				cost += policy.Keys[w.Key].Scheme.Cost()
			}
			if fee := parameters.Fee(ledger.FeeRate{Multiplier: 1000}, len(raw), 1, cost); fee.Cmp(tx.Body.MaxFee) > 0 {
				t.Errorf("weights %v, first %d: fee %s above the ceiling %s", weights, first, fee, tx.Body.MaxFee)
			}
			if added, err := d.Sign(members[0]); err != nil || added != 0 {
				t.Errorf("a complete transaction took %d more signatures, %v", added, err)
			}
		}
	}
}

func TestDraftFile(t *testing.T) {
	t.Parallel()
	policy, members := board(t, 2, 1, 1, 1)
	d, _ := draft(t, policy)
	if _, err := d.Sign(members[1]); err != nil {
		t.Fatal(err)
	}
	text, err := d.Encode("a view that lies")
	if err != nil {
		t.Fatal(err)
	}
	back, err := client.DecodeDraft(text)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID() != d.ID() || !bytes.Equal(back.BodyBytes(), d.BodyBytes()) || len(back.Witnesses()) != 1 || back.Complete() {
		t.Errorf("another draft came back: %+v", back)
	}
	if _, err := back.Sign(members[2]); err != nil || !back.Complete() {
		t.Errorf("the second member signs the file: %v", err)
	}
	other, _ := draft(t, alice.Policy())
	if _, err := other.Sign(alice); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"format":           func(s string) string { return strings.Replace(s, "pacioli.tx", "pacioli.rx", 1) },
		"version":          func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) },
		"unknown field":    func(s string) string { return strings.Replace(s, `"format"`, `"x": 1, "format"`, 1) },
		"something behind": func(s string) string { return s + "{}" },
		"chain id":         func(s string) string { return strings.Replace(s, `"chain_id": "board"`, `"chain_id": ""`, 1) },
		"chain id's bytes": func(s string) string { return strings.Replace(s, `"board"`, `"\u001b[31m"`, 1) },
		"policy version":   func(s string) string { return strings.Replace(s, `"policy_version": 0`, `"policy_version": 7`, 1) },
		"key":              func(s string) string { return strings.Replace(s, `"key": 2`, `"key": 1`, 1) },
		"key out of range": func(s string) string { return strings.Replace(s, `"key": 2`, `"key": 9`, 1) },
		"address": func(s string) string {
			return strings.Replace(s, policy.Address().String(), alice.Address().String(), 1)
		},
		"no signers": func(s string) string {
			from, to := strings.Index(s, `"signers": [`), strings.Index(s, `"view"`)
			return s[:from] + `"signers": [], ` + s[to:]
		},
	} {
		changed := change(string(text))
		if changed == string(text) {
			t.Errorf("%s: nothing was changed in\n%s", name, text)
		}
		if _, err := client.DecodeDraft([]byte(changed)); err == nil {
			t.Errorf("%s: a changed file is read", name)
		}
	}
	if _, err := client.DecodeDraft(make([]byte, client.MaxDraftFile+1)); err == nil {
		t.Error("a file above the limit is read")
	}
}

// A signature over something else, or twice, is no signature.
func TestAdd(t *testing.T) {
	t.Parallel()
	d, _ := draft(t, alice.Policy())
	other, _ := draft(t, clienttest.Signer("eve").Policy())
	if _, err := other.Sign(clienttest.Signer("eve")); err != nil {
		t.Fatal(err)
	}
	if err := d.Add(other.Witnesses()[0]); err == nil {
		t.Error("a signature over another transaction is taken")
	}
	for _, w := range []ledger.Witness{{Signer: 1}, {Key: 1}, {}} {
		if err := d.Add(w); err == nil {
			t.Errorf("%+v is taken", w)
		}
	}
	if _, err := d.Sign(alice); err != nil {
		t.Fatal(err)
	}
	if err := d.Add(d.Witnesses()[0]); err == nil {
		t.Error("a signature is taken twice")
	}
	// The wrong policy for the address is refused before anybody signs.
	if _, err := client.NewDraft(d.Network(), d.BodyBytes(), []client.SigningAccount{{Policy: bob.Policy()}}); err == nil {
		t.Error("another account's policy is taken")
	}
}
