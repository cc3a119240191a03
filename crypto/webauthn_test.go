package crypto

import (
	"bytes"
	digests "crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// passkey is an authenticator with a browser around it, written apart from the code that it tests.
type passkey struct {
	private *ecdsa.PrivateKey
	party   string
}

func newPasskey(t testing.TB, party string, n int) passkey {
	t.Helper()
	seed := DomainTx.Hash([]byte("passkey"), []byte{byte(n)})
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return passkey{private, party}
}

// public is the key as it stands in a policy.
func (p passkey) public(t testing.TB) []byte {
	t.Helper()
	point, err := p.private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	key, err := WebAuthnPublicKey(p.party, point)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// authenticatorData is of a synchronised passkey, with a counter; extensions follow where there are any.
func (p passkey) authenticatorData(flags byte, extensions ...byte) []byte {
	id := sha256.Sum256([]byte(p.party))
	return append(append(id[:], flags, 0, 0, 1, 7), extensions...)
}

// clientData is what a browser writes; end is what follows the origin's characters.
func (p passkey) clientData(message, end string) string {
	challenge := sha256.Sum256([]byte(message))
	return `{"type":"webauthn.get","challenge":"` + base64.RawURLEncoding.EncodeToString(challenge[:]) + `","origin":"https://` + p.party + end
}

func (p passkey) sign(t testing.TB, authenticatorData []byte, clientData string) (der []byte) {
	t.Helper()
	hash := sha256.Sum256([]byte(clientData))
	digest := sha256.Sum256(append(bytes.Clone(authenticatorData), hash[:]...))
	der, err := p.private.Sign(nil, digest[:], digests.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// assemble makes the signature without any of the rules of WebAuthnSignature but the lower s.
func (p passkey) assemble(t testing.TB, authenticatorData []byte, clientData string) []byte {
	t.Helper()
	pair, err := lowerForm(p.sign(t, authenticatorData, clientData))
	if err != nil {
		t.Fatal(err)
	}
	return (&assertion{authenticatorData, []byte(clientData), pair}).encode()
}

const (
	browserEnd = `","crossOrigin":false}`
	chromeEnd  = `","crossOrigin":false,"other_keys_can_be_added_here":"do not compare clientDataJSON against a template. See https://goo.gl/yabPex"}`
	safariEnd  = `"}`
)

func (p passkey) check(t testing.TB, message string, signature []byte) Check {
	return Check{Scheme: P256WebAuthn, PublicKey: p.public(t), Message: []byte(message), Signature: signature}
}

// A browser's answer, with the DER signature of the authenticator, becomes a signature that verifies. Half of the DER
// signatures have the high s.
func TestWebAuthnSignatureOfABrowser(t *testing.T) {
	p := newPasskey(t, "wallet.example", 1)
	high, low := 0, 0
	for i := range 32 {
		message := fmt.Sprint("message ", i)
		end := []string{browserEnd, chromeEnd, safariEnd, `:8443","crossOrigin":false}`}[i%4]
		data := p.authenticatorData([]byte{0x05, 0x1d, 0x0d, 0x85}[i/4%4], map[bool][]byte{true: {0xa1, 0x61, 'x', 1}}[i/4%4 == 3]...)
		client := p.clientData(message, end)
		der := p.sign(t, data, client)
		signature, err := WebAuthnSignature(data, []byte(client), der)
		if err != nil {
			t.Fatal(err)
		}
		if !p.check(t, message, signature).Verify() {
			t.Errorf("message %d: does not verify", i)
		}
		if p.check(t, message+".", signature).Verify() {
			t.Errorf("message %d: verifies for another message", i)
		}
		raw, err := lowerForm(der)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(der, raw[32:]) {
			low++
		} else {
			high++
			a, err := decodeAssertion(signature)
			if err != nil {
				t.Fatal(err)
			}
			new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(raw[32:])).FillBytes(a.signature[32:])
			if p.check(t, message, a.encode()).Verify() {
				t.Errorf("message %d: verifies with the high s that the authenticator gave", i)
			}
		}
	}
	if high < 4 || low < 4 {
		t.Errorf("%d signatures with high s, %d with low: one kind was hardly tried", high, low)
	}
}

// The vector of WebAuthn Level 3, 16.2, ES256 without attestation. Its user was present and not verified, which the ledger
// refuses; everything else must fit. Its s is a high one.
func TestWebAuthnSpecificationVector(t *testing.T) {
	read := func(text string) []byte {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	point := read("04afefa16f97ca9b2d23eb86ccb64098d20db90856062eb249c33a9b672f26df61930a56b87a2fca66334b03458abf879717c12cc68ed73290af2e2664796b9220")
	data := read("bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b51900000000")
	client := []byte(`{"type":"webauthn.get","challenge":"OcDnUhQXulTUPo3JUXT0I97pvzzYBP9tZchXyav01Ag","origin":"https://example.org","crossOrigin":false}`)
	der := read("3046022100f50a4e2e4409249c4a853ba361282f09841df4dd4547a13a87780218deffcd380221008480ac0f0b93538174f575bf11a1dd5d78c6e486013f937295ea13653e331e87")

	if _, err := WebAuthnSignature(data, client, der); err == nil || !strings.Contains(err.Error(), "userVerification") {
		t.Errorf("without user verification: %v", err)
	}
	pair, err := lowerForm(der)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(pair[32:]) == hex.EncodeToString(der[len(der)-32:]) {
		t.Error("the s of the vector is a low one: the test has lost its sense")
	}
	a := assertion{data, client, pair}
	key, err := WebAuthnPublicKey("example.org", point)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key[p256PointSize:], data[:32]) || !verifyP256(key[:p256PointSize], a.digest(), pair) {
		t.Error("the vector's signature or relying party does not fit")
	}
	verified := bytes.Clone(data)
	verified[32] |= userVerified
	b := assertion{verified, client, pair}
	if err := b.check(); err != nil {
		t.Error(err)
	}
	if want := read("39c0e7521417ba54d43e8dc95174f423dee9bf3cd804ff6d65c857c9abf4d408"); string(b.challenge()) != base64.RawURLEncoding.EncodeToString(want) {
		t.Errorf("challenge %s", b.challenge())
	}
}

func TestWebAuthnPublicKey(t *testing.T) {
	p := newPasskey(t, "wallet.example", 2)
	uncompressed, err := p.private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	key := p.public(t)
	id := sha256.Sum256([]byte("wallet.example"))
	if len(key) != P256WebAuthn.PublicKeySize() || !bytes.Equal(key[1:33], uncompressed[1:33]) || key[0] != 2+uncompressed[64]&1 || !bytes.Equal(key[33:], id[:]) {
		t.Errorf("key is %x", key)
	}
	if again, err := WebAuthnPublicKey("wallet.example", key[:33]); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the compressed point makes another key: %v", err)
	}
	if err := CheckPublicKey(P256WebAuthn, key); err != nil {
		t.Error(err)
	}
	if other, err := WebAuthnPublicKey("other.example", uncompressed); err != nil || bytes.Equal(other, key) {
		t.Errorf("another relying party makes the same key: %v", err)
	}
	moved := bytes.Clone(uncompressed)
	moved[64] ^= 1
	for name, c := range map[string]struct {
		party string
		point []byte
	}{
		"no party": {"", uncompressed}, "a URL": {"https://wallet.example", uncompressed}, "a port": {"wallet.example:443", uncompressed},
		"upper case": {"Wallet.example", uncompressed}, "a long party": {strings.Repeat("a", 254), uncompressed},
		"no point": {"wallet.example", nil}, "64 bytes": {"wallet.example", uncompressed[1:]}, "off the curve": {"wallet.example", moved},
		"hybrid form": {"wallet.example", append([]byte{6}, uncompressed[1:]...)}, "32 bytes": {"wallet.example", key[1:33]},
	} {
		if _, err := WebAuthnPublicKey(c.party, c.point); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	prime := elliptic.P256().Params().P
	for name, spoil := range map[string]func(key []byte){
		"x of the prime":        func(key []byte) { prime.FillBytes(key[1:33]) },
		"x not below the prime": func(key []byte) { copy(key[1:], bytes.Repeat([]byte{255}, 32)) },
		"first byte 0":          func(key []byte) { key[0] = 0 },
		"first byte 4":          func(key []byte) { key[0] = 4 },
		"point not on curve":    func(key []byte) { clear(key[1:33]); key[32] = 7 },
		"point at infinity":     func(key []byte) { clear(key[:33]) },
	} {
		bad := bytes.Clone(key)
		spoil(bad)
		if CheckPublicKey(P256WebAuthn, bad) == nil {
			t.Errorf("key with %s registered", name)
		}
	}
}

type webAuthnCase struct {
	name    string
	check   Check
	want    bool
	refusal string // part of what WebAuthnSignature says; empty where it cannot know
}

// webAuthnCases are assertions with a good signature each, and one rule broken in most.
func webAuthnCases(t testing.TB) []webAuthnCase {
	t.Helper()
	const message = "pay 17 PAC" // its challenge has both characters that base64url does not share with base64
	p, n := newPasskey(t, "wallet.example", 3), elliptic.P256().Params().N
	good, client := p.authenticatorData(0x05), p.clientData(message, browserEnd)
	challenge := client[36:79]
	if !strings.ContainsAny(challenge, "-_") {
		t.Fatalf("the challenge %s has none of the characters that differ", challenge)
	}
	var cases []webAuthnCase
	add := func(name string, want bool, refusal string, data []byte, client string) {
		cases = append(cases, webAuthnCase{name, p.check(t, message, p.assemble(t, data, client)), want, refusal})
	}
	replaced := func(old, new string) string {
		if !strings.Contains(client, old) {
			t.Fatalf("%q does not contain %q", client, old)
		}
		return strings.Replace(client, old, new, 1)
	}
	padded := func(size int) string {
		return p.clientData(message, browserEnd[:21]+`,"x":"`+strings.Repeat("x", size-len(client)-7)+`"}`)
	}

	add("as browsers write it", true, "", good, client)
	add("with a further field", true, "", good, p.clientData(message, chromeEnd))
	add("without crossOrigin", true, "", good, p.clientData(message, safariEnd))
	add("an application instead of a page", true, "", good, replaced("https://wallet.example", "android:apk-key-hash:abc"))
	add("all flags", true, "", p.authenticatorData(0xff), client)
	add("512 bytes of authenticator data, 1024 of client data", true, "", p.authenticatorData(0x85, make([]byte, 475)...), padded(1024))
	add("crossOrigin behind a field that no browser puts before it", true, "", good, p.clientData(message, `","x":1,"crossOrigin":true}`))

	add("user not present", false, "userVerification", p.authenticatorData(0x04), client)
	add("user not verified", false, "userVerification", p.authenticatorData(0x01), client)
	add("no flags", false, "userVerification", p.authenticatorData(0xfa), client)
	add("36 bytes of authenticator data", false, "authenticator data has 36 bytes", good[:36], client)
	add("513 bytes of authenticator data", false, "authenticator data has 513 bytes", p.authenticatorData(0x05, make([]byte, 476)...), client)
	add("1025 bytes of client data", false, "client data has 1025 bytes", good, padded(1025))
	add("another relying party", false, "", passkey{p.private, "wallet.example.evil.example"}.authenticatorData(0x05), client)

	add("registration", false, "does not begin", good, replaced("webauthn.get", "webauthn.create"))
	add("payment", false, "does not begin", good, replaced("webauthn.get", "payment.get"))
	add("a blank in front", false, "does not begin", good, " "+client)
	add("blanks behind the colons", false, "does not begin", good, strings.ReplaceAll(client, `":"`, `": "`))
	add("fields in another order", false, "does not begin", good,
		`{"challenge":"`+challenge+`","type":"webauthn.get","origin":"https://wallet.example","crossOrigin":false}`)
	add("a field between type and challenge", false, "does not begin", good, replaced(`","challenge`, `","x":1,"challenge`))
	add("a field between challenge and origin", false, "does not begin", good, replaced(`","origin`, `","x":1,"origin`))
	add("empty client data", false, "does not begin", good, "")
	add("client data that ends in the challenge", false, "does not begin", good, client[:78])
	add("client data that ends behind the challenge", false, "does not begin", good, client[:79])
	add("client data that ends in the origin", false, "no origin", good, client[:100])
	add("no origin", false, "no origin", good, replaced("https://wallet.example", ""))
	add("origin with a backslash", false, "no origin", good, replaced("wallet.example", `wallet.example\`))
	add("a page within another site's page", false, "crossOrigin", good, p.clientData(message, `","crossOrigin":true,"topOrigin":"https://evil.example"}`))
	add("a page within another site's page, nothing more", false, "crossOrigin", good, p.clientData(message, `","crossOrigin":true}`))
	add("something behind the end", false, "neither a comma nor the end", good, p.clientData(message, `"} `))
	add("no end", false, "neither a comma nor the end", good, p.clientData(message, `"`))

	add("challenge of another message", false, "", good, p.clientData(message+"0", browserEnd))
	add("challenge padded", false, "does not begin", good, replaced(challenge, challenge+"="))
	add("challenge in base64", false, "", good, replaced(challenge, strings.NewReplacer("-", "+", "_", "/").Replace(challenge)))
	add("challenge in hex", false, "does not begin", good, replaced(challenge, fmt.Sprintf("%x", sha256.Sum256([]byte(message)))))
	// 43 characters hold 258 bits. The 2 last ones are 0 in the one form that counts.
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, challenge[42])
	add("challenge with bits behind the end", false, "", good, replaced(challenge, challenge[:42]+alphabet[last+1:last+2]))

	whole, err := decodeAssertion(cases[0].check.Signature)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(name string, spoil func(r, s []byte)) {
		a := whole
		spoil(a.signature[:32], a.signature[32:])
		cases = append(cases, webAuthnCase{name, p.check(t, message, a.encode()), false, ""})
	}
	pair("high s", func(_, s []byte) { new(big.Int).Sub(n, new(big.Int).SetBytes(s)).FillBytes(s) })
	pair("s of n", func(_, s []byte) { n.FillBytes(s) })
	pair("s of 0", func(_, s []byte) { clear(s) })
	pair("r of 0", func(r, _ []byte) { clear(r) })
	pair("r of n", func(r, _ []byte) { n.FillBytes(r) })
	pair("r and s of 0", func(r, s []byte) { clear(r); clear(s) })
	pair("r and s exchanged", func(r, s []byte) {
		for i := range r {
			r[i], s[i] = s[i], r[i]
		}
	})

	form := func(name string, write func(w *canonical.Writer)) {
		w := canonical.NewWriter(nil)
		write(w)
		cases = append(cases, webAuthnCase{name, p.check(t, message, w.Done()), false, ""})
	}
	parts := func(w *canonical.Writer, numbers ...int) {
		for _, i := range numbers {
			w.Bytes(i, [][]byte{nil, whole.authenticatorData, whole.clientData, whole.signature[:]}[i])
		}
	}
	form("empty", func(*canonical.Writer) {})
	form("no authenticator data", func(w *canonical.Writer) { parts(w, 2, 3) })
	form("no client data", func(w *canonical.Writer) { parts(w, 1, 3) })
	form("no pair", func(w *canonical.Writer) { parts(w, 1, 2) })
	form("pair first", func(w *canonical.Writer) { parts(w, 3, 1, 2) })
	form("client data twice", func(w *canonical.Writer) { parts(w, 1, 2, 2, 3) })
	form("unknown field", func(w *canonical.Writer) { parts(w, 1, 2, 3); w.Uint32(4, 1) })
	form("pair of 63 bytes", func(w *canonical.Writer) { parts(w, 1, 2); w.Bytes(3, whole.signature[:63]) })
	form("pair of 65 bytes", func(w *canonical.Writer) { parts(w, 1, 2); w.Bytes(3, append(bytes.Clone(whole.signature[:]), 0)) })
	form("DER in place of the pair", func(w *canonical.Writer) { parts(w, 1, 2); w.Bytes(3, p.sign(t, good, client)) })
	overlong := bytes.Clone(cases[0].check.Signature) // 0a 25: the length of 37 in two bytes
	overlong = append([]byte{0x0a, 0xa5, 0x00}, overlong[2:]...)
	cases = append(cases, webAuthnCase{"overlong length", p.check(t, message, overlong), false, ""})
	return cases
}

func TestWebAuthnRules(t *testing.T) {
	accepted := 0
	for _, c := range webAuthnCases(t) {
		if got := c.check.Verify(); got != c.want || VerifyAll([]Check{c.check})[0] != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
		if c.want {
			accepted++
		}
		a, err := decodeAssertion(c.check.Signature)
		if err != nil {
			continue // too long, or no assertion at all
		}
		der := derOf(t, a.signature)
		_, err = WebAuthnSignature(a.authenticatorData, a.clientData, der)
		if c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)) || c.want && err != nil {
			t.Errorf("%s: WebAuthnSignature says %v, want %q", c.name, err, c.refusal)
		}
	}
	if accepted != 7 {
		t.Errorf("%d cases accepted, want 7", accepted)
	}
	// What is too long to be decoded is refused with a reason as well.
	p := newPasskey(t, "wallet.example", 3)
	der := p.sign(t, nil, "")
	if _, err := WebAuthnSignature(make([]byte, 513), nil, der); err == nil || !strings.Contains(err.Error(), "authenticator data has 513 bytes") {
		t.Error(err)
	}
	if _, err := WebAuthnSignature(p.authenticatorData(5), make([]byte, 1025), der); err == nil || !strings.Contains(err.Error(), "client data has 1025 bytes") {
		t.Error(err)
	}
}

func derOf(t testing.TB, pair [64]byte) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(pair[:32]))
		b.AddASN1BigInt(new(big.Int).SetBytes(pair[32:]))
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// The longest assertion reaches the limit, one of a keystore has the length that fees are computed with.
func TestWebAuthnSizes(t *testing.T) {
	longest := 0
	for _, c := range webAuthnCases(t) {
		if c.want {
			longest = max(longest, len(c.check.Signature))
		}
	}
	if longest != P256WebAuthn.MaxSignatureSize() {
		t.Errorf("the longest assertion has %d bytes, the limit is %d", longest, P256WebAuthn.MaxSignatureSize())
	}
	long := webAuthnCases(t)[0].check
	long.Signature = make([]byte, P256WebAuthn.MaxSignatureSize()+1)
	if long.wellFormed() {
		t.Error("a signature above the limit is looked at")
	}
	for _, s := range Schemes() {
		private := testKey(t, s, 1)
		if got := (Key{Scheme: s, Public: private.Public()}).MaxSignatureSize(); got != s.SignatureSize() || got != len(signed(t, private, "m").Signature) {
			t.Errorf("%s: a key of a keystore is reckoned with %d bytes", s, got)
		}
	}
	browser := Key{Scheme: P256WebAuthn, Public: newPasskey(t, "wallet.example", 1).public(t)}
	if got := browser.MaxSignatureSize(); got != P256WebAuthn.MaxSignatureSize() {
		t.Errorf("a browser's key is reckoned with %d bytes", got)
	}
}

// Every bit of an assertion, of the key and of the message flipped, and every truncation.
func TestWebAuthnEveryBit(t *testing.T) {
	good := signed(t, testKey(t, P256WebAuthn, 4), "message")
	for name, pick := range map[string]func(c *Check) *[]byte{
		"signature": func(c *Check) *[]byte { return &c.Signature },
		"key":       func(c *Check) *[]byte { return &c.PublicKey },
		"message":   func(c *Check) *[]byte { return &c.Message },
	} {
		for i := range 8 * len(*pick(&good)) {
			c := good
			target := pick(&c)
			*target = bytes.Clone(*target)
			(*target)[i/8] ^= 1 << (i % 8)
			if c.Verify() {
				t.Errorf("verifies with bit %d of the %s flipped", i, name)
			}
		}
		for i := range len(*pick(&good)) {
			c := good
			*pick(&c) = (*pick(&good))[:i]
			if c.Verify() {
				t.Errorf("verifies with %d bytes of the %s", i, name)
			}
		}
	}
	c := good
	c.Signature = append(bytes.Clone(good.Signature), 0)
	if c.Verify() || !good.Verify() {
		t.Error("verifies with a byte more, or not at all")
	}
}

func TestWebAuthnPrivateKeyRange(t *testing.T) {
	n := elliptic.P256().Params().N
	for name, seed := range map[string][]byte{
		"zero": make([]byte, 32), "n": n.FillBytes(make([]byte, 32)), "all ones": bytes.Repeat([]byte{255}, 32),
	} {
		if _, err := NewPrivateKey(P256WebAuthn, seed); err == nil || !strings.Contains(err.Error(), "1 to n-1") {
			t.Errorf("private key %s: %v", name, err)
		}
	}
	last := new(big.Int).Sub(n, big.NewInt(1)).FillBytes(make([]byte, 32))
	key, err := NewPrivateKey(P256WebAuthn, last)
	if err != nil || !signed(t, key, "m").Verify() {
		t.Errorf("private key n-1: %v", err)
	}
}

func FuzzWebAuthn(f *testing.F) {
	p := newPasskey(f, "wallet.example", 5)
	public := p.public(f)
	for _, end := range []string{browserEnd, chromeEnd, safariEnd, `","crossOrigin":true}`, `\"}`} {
		f.Add("message", p.authenticatorData(0x1d), []byte(p.clientData("message", end)))
	}
	f.Fuzz(func(t *testing.T, message string, data, client []byte) {
		// The rules again, as an expression.
		challenge := sha256.Sum256([]byte(message))
		shape := regexp.MustCompile(`^\{"type":"webauthn\.get","challenge":"([A-Za-z0-9_-]{43})","origin":"[^"\\]+"(\}$|,(?s:(.*))$)`)
		m := shape.FindSubmatch(client)
		sound := m != nil && !bytes.HasPrefix(m[3], []byte(`"crossOrigin":true`)) && len(client) <= 1024 &&
			len(data) >= 37 && len(data) <= 512 && data[32]&5 == 5
		want := sound && string(m[1]) == base64.RawURLEncoding.EncodeToString(challenge[:]) && bytes.Equal(data[:32], public[33:])

		der := p.sign(t, data, string(client))
		signature, err := WebAuthnSignature(data, client, der)
		if err == nil && !sound && m != nil || err != nil && sound {
			t.Errorf("WebAuthnSignature says %v", err)
		}
		check := Check{Scheme: P256WebAuthn, PublicKey: public, Message: []byte(message), Signature: p.assemble(t, data, string(client))}
		if err == nil && !bytes.Equal(signature, check.Signature) {
			t.Errorf("WebAuthnSignature makes %x, want %x", signature, check.Signature)
		}
		if got := check.Verify(); got != want {
			t.Errorf("verifies %t, want %t", got, want)
		}
	})
}
