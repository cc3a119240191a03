package crypto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// The vectors under testdata/vectors are for other implementations, and hold this one to what it once published: a
// difference is a change of the protocol, to be explained in the commit that makes it.
//
//	go test ./crypto -run Vectors -update

var update = flag.Bool("update", false, "write the files under testdata instead of checking them")

type keyVector struct {
	Scheme    string `json:"scheme"`
	Number    Scheme `json:"scheme_number"`
	Seed      string `json:"seed"`
	PublicKey string `json:"public_key"`
	Weight    uint32 `json:"weight"`
	Signature string `json:"signature"` // of the message of the account
}

type accountVector struct {
	Name            string      `json:"name"`
	Threshold       uint32      `json:"threshold"`
	Keys            []keyVector `json:"keys"` // in the order of the policy
	ChangeThreshold uint32      `json:"change_threshold,omitempty"`
	RecoveryAccount *Address    `json:"recovery_account,omitempty"`
	RecoveryDelay   uint32      `json:"recovery_delay,omitempty"`
	Policy          string      `json:"policy"`
	AddressHash     Hash        `json:"address_hash"`
	Address         Address     `json:"address"`
	Message         string      `json:"message"`
}

func accountVectors(t *testing.T) []accountVector {
	t.Helper()
	var vectors []accountVector
	addGuarded := func(name string, threshold, change uint32, recovery *Recovery, weight func(i int) uint32, schemes ...Scheme) {
		v := accountVector{Name: name, Threshold: threshold, Message: hex.EncodeToString(append([]byte(DomainTx), name...))}
		message, _ := hex.DecodeString(v.Message)
		var keys []Key
		private := map[string]PrivateKey{}
		for i, s := range schemes {
			k, err := NewPrivateKey(s, bytes.Repeat([]byte{byte(i + 1)}, SeedSize))
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, Key{s, k.Public(), weight(i)})
			private[string(k.Public())] = k
		}
		p, err := NewPolicy(threshold, keys...)
		if err != nil {
			t.Fatal(err)
		}
		if change != 0 {
			if p, err = p.WithChangeThreshold(change); err != nil {
				t.Fatal(err)
			}
			v.ChangeThreshold = change
		}
		if recovery != nil {
			if p, err = p.WithRecovery(recovery.Account, recovery.DelaySeconds); err != nil {
				t.Fatal(err)
			}
			v.RecoveryAccount, v.RecoveryDelay = &recovery.Account, recovery.DelaySeconds
		}
		for _, k := range p.Keys {
			signer := private[string(k.Public)]
			signature, err := signer.Sign(message)
			if err != nil {
				t.Fatal(err)
			}
			v.Keys = append(v.Keys, keyVector{
				k.Scheme.String(), k.Scheme, hex.EncodeToString(signer.Seed()), hex.EncodeToString(k.Public), k.Weight,
				hex.EncodeToString(signature),
			})
		}
		v.Policy, v.AddressHash, v.Address = hex.EncodeToString(p.Encode()), p.Hash(), p.Address()
		vectors = append(vectors, v)
	}
	add := func(name string, threshold uint32, weight func(i int) uint32, schemes ...Scheme) {
		addGuarded(name, threshold, 0, nil, weight, schemes...)
	}
	one := func(int) uint32 { return 1 }
	for _, s := range Schemes() {
		add("single "+s.String(), 1, one, s)
	}
	add("hybrid, 2 of ed25519 and ml-dsa-65", 2, one, Ed25519, MLDSA65)
	add("weighted, all schemes", 70000, func(i int) uint32 { return uint32(40000 + i) }, MLDSA65, MLDSA44, P256WebAuthn, Secp256k1, Ed25519)
	addGuarded("all of two keys to change the policy, one to pay", 1, 2, nil, one, Ed25519, Secp256k1)
	addGuarded("one key, and a recovery account after a week", 1, 0, &Recovery{vectors[0].Address, 7 * 86_400}, one, Ed25519)
	addGuarded("two of three to pay, three to change the policy, recovery after a year", 2, 3,
		&Recovery{vectors[1].Address, MaxRecoveryDelay}, one, Ed25519, Secp256k1, MLDSA44)
	return vectors
}

func TestVectorsAccounts(t *testing.T) {
	vectors := accountVectors(t)
	compareVectors(t, "accounts.json", "seed -> public key -> policy -> address, and signatures over a message; bytes in hex", vectors)

	// The vectors must be good by the public rules too, not only stable.
	for _, v := range vectors {
		encoded, _ := hex.DecodeString(v.Policy)
		p, err := DecodePolicy(encoded)
		if err != nil || p.Address() != v.Address || p.Threshold != v.Threshold || len(p.Keys) != len(v.Keys) {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if p.ChangeThreshold != v.ChangeThreshold || (p.Recovery == nil) != (v.RecoveryAccount == nil) ||
			p.Recovery != nil && *p.Recovery != (Recovery{*v.RecoveryAccount, v.RecoveryDelay}) {
			t.Errorf("%s: change threshold or recovery came back different", v.Name)
		}
		message, _ := hex.DecodeString(v.Message)
		for i, k := range v.Keys {
			signature, _ := hex.DecodeString(k.Signature)
			if !(Check{Scheme: k.Number, PublicKey: p.Keys[i].Public, Message: message, Signature: signature}).Verify() {
				t.Errorf("%s: signature %d does not verify", v.Name, i)
			}
		}
	}
}

type refusalVector struct {
	Name  string `json:"name"`
	Field string `json:"field"` // where the error of this implementation points
	Input string `json:"input"`
}

func TestVectorsRefusals(t *testing.T) {
	var policies []refusalVector
	for _, f := range policyFaults(t) {
		if len(f.encoded) > MaxPolicySize {
			continue // 31 KB of zeros teach nothing
		}
		policies = append(policies, refusalVector{f.name, f.field, hex.EncodeToString(f.encoded)})
	}
	compareVectors(t, "policies_refused.json", "policies, each with one rule broken; bytes in hex", policies)
}

type ed25519Vector struct {
	PublicKey string `json:"public_key"`
	Message   string `json:"message"`
	Signature string `json:"signature"`
	Verifies  bool   `json:"verifies"`
	Registers bool   `json:"registers"` // whether the key may enter a policy
}

func TestVectorsEd25519(t *testing.T) {
	var vectors []ed25519Vector
	for _, c := range edgeCases(t) {
		vectors = append(vectors, ed25519Vector{
			hex.EncodeToString(c.check.PublicKey), hex.EncodeToString(c.check.Message), hex.EncodeToString(c.check.Signature),
			c.check.Verify(), CheckPublicKey(Ed25519, c.check.PublicKey) == nil,
		})
	}
	compareVectors(t, "ed25519_zip215.json",
		"196 pairs of small-order encodings of A and R with s = 0, then 64 pairs with all parts of small order", vectors)
}

type webAuthnVector struct {
	Name      string `json:"name"`
	PublicKey string `json:"public_key"`
	Message   string `json:"message"`
	Signature string `json:"signature"`
	Verifies  bool   `json:"verifies"`
}

func TestVectorsWebAuthn(t *testing.T) {
	var vectors []webAuthnVector
	for _, c := range webAuthnCases(t) {
		vectors = append(vectors, webAuthnVector{
			c.name, hex.EncodeToString(c.check.PublicKey), hex.EncodeToString(c.check.Message), hex.EncodeToString(c.check.Signature), c.check.Verify(),
		})
	}
	compareVectors(t, "p256_webauthn.json",
		"assertions for the relying party wallet.example, all with a good ECDSA signature but those about r and s; bytes in hex", vectors)
}

func compareVectors(t *testing.T, name, comment string, vectors any) {
	t.Helper()
	got, err := json.MarshalIndent(struct {
		Comment string `json:"comment"`
		Vectors any    `json:"vectors"`
	}{comment, vectors}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", "vectors", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what is computed now; -update writes it, and the commit says why", path)
	}
}
