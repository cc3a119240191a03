package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Whoever signs a change of policy must see who can take the account afterwards.
func TestChangeOfPolicyShowsItsGuards(t *testing.T) {
	private, err := crypto.NewPrivateKey(crypto.Ed25519, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := crypto.NewPolicy(1, crypto.Key{Scheme: crypto.Ed25519, Public: private.Public(), Weight: 3})
	if err != nil {
		t.Fatal(err)
	}
	guarded, err := plain.WithChangeThreshold(2)
	if err != nil {
		t.Fatal(err)
	}
	friend := crypto.Address{7}
	if guarded, err = guarded.WithRecovery(friend, 7*86_400); err != nil {
		t.Fatal(err)
	}
	show := func(p crypto.Policy) (text, object string) {
		body := ledger.Body{Signers: []ledger.Signer{{Address: crypto.Address{1}, Sequence: 1}}, Operations: []ledger.Operation{&ledger.SetPolicy{Policy: p.Encode()}}}
		o := (&cli{home: t.TempDir()}).view(t.Context(), nil, ledger.Network{}, crypto.Hash{}, body).Operations[0]
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var account strings.Builder
		accountResult{Threshold: p.Threshold, guardView: newGuardView(p)}.text(&account)
		return o.line(map[crypto.Address]string{friend: "friend"}) + "\n" + account.String(), string(b)
	}
	text, object := show(guarded)
	for _, want := range []string{", weight 2 to change it again, recovered by friend (" + friend.String() + "), 168h0m0s after announcing it",
		"to change it\t2\n", "recovered by\t" + friend.String() + ", 168h0m0s"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\ndoes not contain %q", text, want)
		}
	}
	for _, want := range []string{`"change_threshold":2`, `"recovery_account":"` + friend.String() + `"`, `"recovery_delay_seconds":604800`} {
		if !strings.Contains(object, want) {
			t.Errorf("%s does not contain %s", object, want)
		}
	}
	if text, object := show(plain); strings.Contains(text+object, "recover") || strings.Contains(text+object, "change_threshold") {
		t.Errorf("a plain policy shows guards: %s %s", text, object)
	}
}
