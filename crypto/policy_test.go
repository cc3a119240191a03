package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

func TestDomainsArePrefixFree(t *testing.T) {
	for i, d := range Domains() {
		if strings.IndexByte(string(d), 0) != len(d)-1 {
			t.Errorf("%q does not end in its only zero byte", d)
		}
		if !strings.HasPrefix(string(d), "pacioli.") {
			t.Errorf("%q does not name the project", d)
		}
		for j, e := range Domains() {
			if i != j && strings.HasPrefix(string(d), string(e)) {
				t.Errorf("%q begins with %q", d, e)
			}
		}
	}
}

func TestDomainHash(t *testing.T) {
	// printf 'pacioli.addr.v1\0abc' | sha256sum
	const want = "1a4cb506e72fe1feb5bafcf62784318674f59bdaf2f9ae918fa81881eec68007"
	if got := DomainAddress.Hash([]byte("a"), nil, []byte("bc")).String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHashText(t *testing.T) {
	h := DomainTx.Hash()
	var back struct{ H Hash }
	text, err := json.Marshal(struct{ H Hash }{h})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &back); err != nil || back.H != h {
		t.Errorf("%s came back as %s, %v", text, back.H, err)
	}
	for _, bad := range []string{"", h.String()[1:], h.String() + "0", strings.ToUpper(h.String()), "g" + h.String()[1:]} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func testPolicy(t testing.TB) Policy {
	t.Helper()
	p, err := NewPolicy(3,
		Key{MLDSA65, testKey(t, MLDSA65, 1).Public(), 2},
		Key{Ed25519, testKey(t, Ed25519, 2).Public(), 1},
		Key{Secp256k1, testKey(t, Secp256k1, 1).Public(), 1},
		Key{Ed25519, testKey(t, Ed25519, 1).Public(), 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// guardedPolicy is testPolicy with every optional field.
func guardedPolicy(t testing.TB) Policy {
	t.Helper()
	p, err := testPolicy(t).WithChangeThreshold(4)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.WithRecovery(Address{1, 31: 2}, MinRecoveryDelay); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicyRoundTrip(t *testing.T) {
	single, err := SingleKey(Ed25519, testKey(t, Ed25519, 1).Public())
	if err != nil {
		t.Fatal(err)
	}
	all := []Policy{single, testPolicy(t), guardedPolicy(t)}
	for i, p := range all {
		for _, q := range all[:i] {
			if p.Equal(q) || p.Hash() == q.Hash() {
				t.Error("two policies are equal")
			}
		}
	}
	for _, p := range all {
		if !slices.IsSortedFunc(p.Keys, compareKeys) {
			t.Error("keys are not sorted")
		}
		for _, decode := range []func([]byte) (Policy, error){DecodePolicy, DecodeRegisteredPolicy} {
			encoded := p.Encode()
			q, err := decode(encoded)
			if err != nil {
				t.Fatal(err)
			}
			clear(encoded) // the policy must not live in the caller's bytes
			if !reflect.DeepEqual(q, p) || !q.Equal(p) || q.Hash() != p.Hash() || Hash(q.Address()) != p.Hash() {
				t.Error("came back different")
			}
		}
	}
}

func TestPolicyForChange(t *testing.T) {
	plain := testPolicy(t) // threshold 3, weights of 5
	for weight, want := range map[uint32]uint32{3: 0, 4: 4, 5: 5} {
		p, err := plain.WithChangeThreshold(weight)
		if err != nil || p.ForChange() != weight || p.ChangeThreshold != want || p.Threshold != 3 {
			t.Errorf("change threshold %d: field %d, ForChange %d, %v", weight, p.ChangeThreshold, p.ForChange(), err)
		}
	}
	for _, weight := range []uint32{0, 1, 2, 6, 1<<32 - 1} {
		if _, err := plain.WithChangeThreshold(weight); err == nil {
			t.Errorf("change threshold %d accepted", weight)
		}
	}
	if plain.ForChange() != 3 || plain.ChangeThreshold != 0 {
		t.Error("a policy without a change threshold asks for another weight than its threshold, or was changed")
	}
	guarded := guardedPolicy(t)
	if back, err := guarded.WithChangeThreshold(3); err != nil || back.ChangeThreshold != 0 || *back.Recovery != *guarded.Recovery {
		t.Errorf("the change threshold is not taken back: %v", err)
	}
	for _, delay := range []uint32{MinRecoveryDelay, MaxRecoveryDelay} {
		p, err := plain.WithRecovery(Address{9}, delay)
		if err != nil || *p.Recovery != (Recovery{Address{9}, delay}) || plain.Recovery != nil {
			t.Errorf("recovery delay %d: %v", delay, err)
		}
	}
	if _, err := plain.WithRecovery(Address{}, MinRecoveryDelay); err == nil {
		t.Error("the zero address recovers")
	}
}

func TestMaxPolicySizeIsReached(t *testing.T) {
	var keys []Key
	for i := range MaxPolicyKeys {
		public := make([]byte, MLDSA65.PublicKeySize())
		public[0] = byte(i)
		keys = append(keys, Key{MLDSA65, public, MaxKeyWeight})
	}
	p, err := NewPolicy(MaxPolicyKeys*MaxKeyWeight-1, keys...)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.WithChangeThreshold(MaxPolicyKeys * MaxKeyWeight); err != nil {
		t.Fatal(err)
	}
	if p, err = p.WithRecovery(Address(bytes.Repeat([]byte{255}, 32)), MaxRecoveryDelay); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Encode()); n != MaxPolicySize {
		t.Errorf("the largest policy has %d bytes, the limit is %d", n, MaxPolicySize)
	}
	if _, err := DecodePolicy(p.Encode()); err != nil {
		t.Error(err)
	}
	for _, s := range Schemes() {
		if s.PublicKeySize() > maxPublicKeySize {
			t.Errorf("keys of %s are above maxPublicKeySize", s)
		}
	}
}

type policyFault struct {
	name, field string // the field that the error names; empty when the fault is in the message itself
	encoded     []byte
	check       error // what Policy.Check says of the value; nil when there is no such value
}

// policyFaults returns policies with one rule broken each: first rules of the value, then those of the encoding.
func policyFaults(t testing.TB) []policyFault {
	t.Helper()
	identity := append([]byte{1}, make([]byte, 31)...)
	var faults []policyFault
	for _, c := range []struct {
		name, field string
		spoil       func(p *Policy)
	}{
		{"no keys", "keys", func(p *Policy) { p.Keys = nil }},
		{"17 keys", "keys", func(p *Policy) { p.Keys = slices.Repeat(p.Keys[:1], 17) }},
		{"keys swapped", "keys", func(p *Policy) { p.Keys[0], p.Keys[1] = p.Keys[1], p.Keys[0] }},
		{"schemes swapped", "keys", func(p *Policy) { p.Keys[2], p.Keys[3] = p.Keys[3], p.Keys[2] }},
		{"key twice", "keys[1].public_key", func(p *Policy) { p.Keys[1] = p.Keys[0] }},
		{"key twice, other weight", "keys[1].public_key", func(p *Policy) { p.Keys[1] = p.Keys[0]; p.Keys[1].Weight = 7 }},
		{"no scheme", "keys[0].scheme", func(p *Policy) { p.Keys[0].Scheme = 0 }},
		{"reserved scheme", "keys[2].scheme", func(p *Policy) { p.Keys[2].Scheme = SLHDSA128s }},
		{"unknown scheme", "keys[3].scheme", func(p *Policy) { p.Keys[3].Scheme = 99 }},
		{"no key", "keys[0].public_key", func(p *Policy) { p.Keys[0].Public = nil }},
		{"short key", "keys[3].public_key", func(p *Policy) { p.Keys[3].Public = p.Keys[3].Public[1:] }},
		{"key of another scheme", "keys[2].public_key", func(p *Policy) { p.Keys[2].Public = p.Keys[0].Public }},
		{"small-order key", "keys[0].public_key", func(p *Policy) { p.Keys[0].Public = identity }},
		{"no weight", "keys[1].weight", func(p *Policy) { p.Keys[1].Weight = 0 }},
		{"weight 65536", "keys[1].weight", func(p *Policy) { p.Keys[1].Weight = 65536 }},
		{"no threshold", "threshold", func(p *Policy) { p.Threshold = 0 }},
		{"threshold above the sum", "threshold", func(p *Policy) { p.Threshold = 6 }},
		{"change threshold of the threshold", "change_threshold", func(p *Policy) { p.ChangeThreshold = 3 }},
		{"change threshold below the threshold", "change_threshold", func(p *Policy) { p.ChangeThreshold = 2 }},
		{"change threshold above the sum", "change_threshold", func(p *Policy) { p.ChangeThreshold = 6 }},
		{"recovery account of zeros", "recovery_account", func(p *Policy) { p.Recovery = &Recovery{Address{}, MinRecoveryDelay} }},
		{"recovery without a delay", "recovery_delay", func(p *Policy) { p.Recovery = &Recovery{Address{1}, 0} }},
		{"recovery delay below an hour", "recovery_delay", func(p *Policy) { p.Recovery = &Recovery{Address{1}, 3_599} }},
		{"recovery delay above a year", "recovery_delay", func(p *Policy) { p.Recovery = &Recovery{Address{1}, 31_536_001} }},
	} {
		p := testPolicy(t)
		c.spoil(&p)
		faults = append(faults, policyFault{c.name, c.field, p.Encode(), p.Check()})
		if p.Check() == nil {
			t.Errorf("%s: Check finds nothing", c.name)
		}
	}

	p, err := SingleKey(Ed25519, testKey(t, Ed25519, 1).Public())
	if err != nil {
		t.Fatal(err)
	}
	good := p.Encode() // 08 01, 12 26 and a key of 0x26 bytes
	if _, err := DecodePolicy(good); err != nil {
		t.Fatal(err)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	account := append([]byte{4<<3 | 2, 32}, bytes.Repeat([]byte{1}, 32)...)
	delay := []byte{5 << 3, 0x90, 0x1c} // 3600
	if _, err := DecodePolicy(join(good, account, delay)); err != nil {
		t.Fatal(err)
	}
	return append(faults, []policyFault{
		{name: "empty", field: "keys"},
		{name: "unknown field", encoded: join(good, []byte{6 << 3, 1})},
		{name: "unknown field of a key", field: "keys[0]", encoded: join(good[:3], []byte{good[3] + 2}, good[4:], []byte{4 << 3, 1})},
		{name: "threshold twice", field: "threshold", encoded: join(good[:2], good)},
		{name: "threshold behind the keys", encoded: join(good[2:], good[:2])},
		{name: "overlong threshold", field: "threshold", encoded: join([]byte{8, 0x81, 0}, good[2:])},
		{name: "threshold of 33 bits", field: "threshold", encoded: join([]byte{8, 0x81, 0x80, 0x80, 0x80, 0x10}, good[2:])},
		{name: "threshold as bytes", field: "threshold", encoded: join([]byte{1<<3 | 2, 1, 1}, good[2:])},
		{name: "explicit change threshold of 0", field: "change_threshold", encoded: join(good, []byte{3 << 3, 0})},
		{name: "change threshold in front of the keys", encoded: join(good[:2], []byte{3 << 3, 2}, good[2:])},
		{name: "change threshold twice", field: "change_threshold", encoded: join(good, []byte{3 << 3, 2, 3 << 3, 2})},
		{name: "recovery account of 31 bytes", field: "recovery_account", encoded: join(good, []byte{4<<3 | 2, 31}, bytes.Repeat([]byte{1}, 31), delay)},
		{name: "recovery account of 33 bytes", field: "recovery_account", encoded: join(good, []byte{4<<3 | 2, 33}, bytes.Repeat([]byte{1}, 33), delay)},
		{name: "recovery account twice", field: "recovery_account", encoded: join(good, account, account, delay)},
		{name: "recovery delay without an account", field: "recovery_account", encoded: join(good, delay)},
		{name: "recovery delay in front of the account", encoded: join(good, delay, account)},
		{name: "recovery delay of 33 bits", field: "recovery_delay", encoded: join(good, account, []byte{5 << 3, 0x80, 0x80, 0x80, 0x80, 0x10})},
		{name: "overlong recovery delay", field: "recovery_delay", encoded: join(good, account, []byte{5 << 3, 0x90, 0x9c, 0x00})},
		{name: "trailing byte", encoded: join(good, []byte{0})},
		{name: "truncated", field: "keys", encoded: good[:len(good)-1]},
		{name: "too long", encoded: make([]byte, MaxPolicySize+1)},
	}...)
}

// Every rule broken once. The error must name the field.
func TestPolicyRules(t *testing.T) {
	for _, f := range policyFaults(t) {
		_, err := DecodePolicy(f.encoded)
		e, ok := errors.AsType[*canonical.Error](err)
		if !ok || e.Field != f.field {
			t.Errorf("%s: decoding says %v, want an error at %q", f.name, err, f.field)
		}
		if f.check == nil {
			continue
		}
		if e, ok := errors.AsType[*canonical.Error](f.check); !ok || e.Field != f.field {
			t.Errorf("%s: Check says %v, want an error at %q", f.name, f.check, f.field)
		}
	}
	p := testPolicy(t)
	p.Threshold = 5 // exactly the sum
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	// What DecodeRegisteredPolicy leaves out is the arithmetic on keys, and nothing else.
	for _, f := range policyFaults(t) {
		if _, err := DecodeRegisteredPolicy(f.encoded); (err == nil) != (f.name == "small-order key") {
			t.Errorf("%s: DecodeRegisteredPolicy says %v", f.name, err)
		}
	}
}

func FuzzDecodePolicy(f *testing.F) {
	f.Add(testPolicy(f).Encode())
	f.Add(guardedPolicy(f).Encode())
	single, _ := SingleKey(Ed25519, testKey(f, Ed25519, 1).Public())
	f.Add(single.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePolicy(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Encode(), b) {
			t.Errorf("accepted %x, encodes as %x", b, p.Encode())
		}
		if err := p.Check(); err != nil {
			t.Errorf("accepted %x: %v", b, err)
		}
	})
}

func TestAddressRoundTrip(t *testing.T) {
	for _, a := range []Address{{}, testPolicy(t).Address(), Address(bytes.Repeat([]byte{255}, 32))} {
		text := a.String()
		if len(text) != AddressLength || !strings.HasPrefix(text, "pac1p") || text != strings.ToLower(text) {
			t.Errorf("unexpected form %s", text)
		}
		for _, form := range []string{text, strings.ToUpper(text)} {
			if b, err := ParseAddress(form); err != nil || b != a {
				t.Errorf("%s came back as %s, %v", form, b, err)
			}
		}
		marshalled, err := json.Marshal(map[string]Address{"a": a})
		if err != nil {
			t.Fatal(err)
		}
		var back map[string]Address
		if err := json.Unmarshal(marshalled, &back); err != nil || back["a"] != a {
			t.Errorf("%s came back as %v, %v", marshalled, back, err)
		}
	}
}

const bech32Alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

func TestAddressFindsEveryWrongCharacter(t *testing.T) {
	text := testPolicy(t).Address().String()
	for i := range text {
		for c := byte(0); c < 128; c++ {
			if c == text[i] {
				continue
			}
			if _, err := ParseAddress(text[:i] + string(c) + text[i+1:]); err == nil {
				t.Errorf("%q at %d accepted", c, i)
			}
		}
	}
	const seed = 4
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20000 { // two to four wrong ones of the alphabet behind the prefix
		b := []byte(text)
		for _, i := range random.Perm(len(b) - 4)[:2+random.IntN(3)] {
			for old := b[4+i]; b[4+i] == old; {
				b[4+i] = bech32Alphabet[random.IntN(32)]
			}
		}
		if _, err := ParseAddress(string(b)); err == nil {
			t.Fatalf("seed %d: %s accepted", seed, b)
		}
	}
}

func TestAddressErrorsSayWhatIsWrong(t *testing.T) {
	a := testPolicy(t).Address()
	text := a.String()
	symbols, err := bech32.ConvertBits(a[:], 8, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	with := func(encode func(string, []byte) (string, error), prefix string, data ...byte) string {
		s, err := encode(prefix, data)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	padding := append([]byte{1}, symbols...)
	padding[52] |= 1
	wrong := []byte(text)
	wrong[20] = map[bool]byte{true: 'p', false: 'q'}[wrong[20] == 'q']
	// A valid string of two characters less, made up to 63 bytes with a Kelvin sign in the place of a K.
	var kelvin string
	for i := byte(0); kelvin == ""; i++ {
		short := strings.ToUpper(with(bech32.EncodeM, "pac", append([]byte{1, i}, symbols[:49]...)...))
		if at := strings.LastIndexByte(short, 'K'); at > 0 {
			kelvin = short[:at] + "\u212a" + short[at+1:]
		}
	}
	if len(kelvin) != AddressLength {
		t.Fatalf("%q has %d bytes", kelvin, len(kelvin))
	}
	for input, want := range map[string]string{
		kelvin:                 "bech32 alphabet",
		"":                     `does not begin with "pac1"`,
		"hello":                `does not begin with "pac1"`,
		text[4:]:               `does not begin with "pac1"`,
		" " + text:             "bech32 alphabet",
		text[:62]:              "62 characters, want 63",
		text + "q":             "64 characters, want 63",
		string(wrong):          "bad checksum",
		text[:62] + "b":        "bech32 alphabet",
		"PAC1" + text[4:]:      "upper and lower case are mixed",
		"Pac1" + text[4:]:      "upper and lower case are mixed",
		"pac1pé" + text[7:]:    "bech32 alphabet",
		"pac1p\x00" + text[6:]: "bech32 alphabet",
		with(bech32.EncodeM, "bc", append([]byte{1}, symbols...)...):  `does not begin with "pac1"`,
		with(bech32.Encode, "pac", append([]byte{1}, symbols...)...):  "checksum is of bech32, want bech32m",
		with(bech32.EncodeM, "pac", append([]byte{0}, symbols...)...): "version 0, want 1",
		with(bech32.EncodeM, "pac", append([]byte{2}, symbols...)...): "version 2, want 1",
		with(bech32.EncodeM, "pac", padding...):                       "padding",
		with(bech32.EncodeM, "pac", padding[:52]...):                  "62 characters, want 63",
	} {
		_, err := ParseAddress(input)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", input, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: the error offers a checksum: %v", input, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(testPolicy(f).Address().String())
	f.Add(strings.ToUpper(testPolicy(f).Address().String()))
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err == nil && a.String() != text && strings.ToUpper(a.String()) != text {
			t.Errorf("accepted %q, which is %s", text, a)
		}
	})
}

func BenchmarkDecodePolicy(b *testing.B) {
	p, err := SingleKey(Ed25519, testKey(b, Ed25519, 1).Public())
	if err != nil {
		b.Fatal(err)
	}
	encoded := p.Encode()
	for name, decode := range map[string]func([]byte) (Policy, error){"checked": DecodePolicy, "registered": DecodeRegisteredPolicy} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := decode(encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDomainHash(b *testing.B) {
	part := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		DomainShard.Hash(part, part[:8])
	}
}
