package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/client"
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

// Who approves a change that leaves too few who sign must see it before signing.
func TestChangeThatWouldStopTheChain(t *testing.T) {
	for _, c := range []struct {
		signing int64
		after   *client.Strength
		stops   bool
	}{
		{26, &client.Strength{Active: 4, Power: 40, Quorum: 27}, true},
		{0, &client.Strength{Active: 4, Power: 40, Quorum: 27}, true},
		{27, &client.Strength{Active: 4, Power: 40, Quorum: 27}, false},
		{-1, &client.Strength{Active: 4, Power: 40, Quorum: 27}, false}, // the nodes do not say
		{0, nil, false}, // of parameters, or refused
	} {
		e := &changeEffect{Change: newChangeDetail(&ledger.RemoveValidator{}), After: c.after, Signing: c.signing}
		var text strings.Builder
		e.text(&text, nil)
		want := "WARNING\tTHE CHAIN WOULD STOP: validators with power "
		if e.stops() != c.stops || strings.Contains(text.String(), want) != c.stops {
			t.Errorf("power %d signs of %+v: stops %v\n%s", c.signing, c.after, e.stops(), text.String())
		}
		object, err := json.Marshal(e)
		if err != nil || !strings.Contains(string(object), fmt.Sprintf(`"signing_after":%d`, c.signing)) {
			t.Errorf("%s, %v", object, err)
		}
	}
}
