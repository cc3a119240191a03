package crypto

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/mldsa"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func testKey(t testing.TB, s Scheme, n int) PrivateKey {
	t.Helper()
	seed := DomainTx.Hash([]byte("test key"), []byte{byte(n)})
	key, err := NewPrivateKey(s, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signed(t testing.TB, key PrivateKey, message string) Check {
	t.Helper()
	signature, err := key.Sign([]byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return Check{Scheme: key.Scheme(), PublicKey: key.Public(), Message: []byte(message), Signature: signature}
}

func TestSchemeTable(t *testing.T) {
	type row struct {
		number, public, signature, most int
		cost                            uint64
		name                            string
	}
	var got []row
	for _, s := range Schemes() {
		got = append(got, row{int(s), s.PublicKeySize(), s.SignatureSize(), s.MaxSignatureSize(), s.Cost(), s.String()})
		if parsed, err := ParseScheme(s.String()); err != nil || parsed != s {
			t.Errorf("ParseScheme(%q) = %v, %v", s, parsed, err)
		}
	}
	want := []row{
		{1, 32, 64, 64, 10, "ed25519"},
		{2, 33, 64, 64, 42, "secp256k1"},
		{3, 65, 253, 1608, 30, "p256-webauthn"},
		{4, 1312, 2420, 2420, 15, "ml-dsa-44"},
		{5, 1952, 3309, 3309, 30, "ml-dsa-65"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("schemes are protocol and changed:\n got %v\nwant %v", got, want)
	}
	for _, s := range []Scheme{0, SLHDSA128s, SLHDSA128f, 8, 1<<32 - 1} {
		if s.Supported() || s.PublicKeySize() != 0 || s.SignatureSize() != 0 || s.MaxSignatureSize() != 0 || s.Cost() != 0 {
			t.Errorf("%s is served", s)
		}
		if _, err := ParseScheme(s.String()); err == nil || !strings.Contains(err.Error(), "ed25519, secp256k1, p256-webauthn, ml-dsa-44, ml-dsa-65") {
			t.Errorf("ParseScheme(%q) says %v", s, err)
		}
		if _, err := NewPrivateKey(s, make([]byte, 32)); err == nil {
			t.Errorf("%s makes a private key", s)
		}
		if (Check{Scheme: s}).Verify() || CheckPublicKey(s, nil) == nil {
			t.Errorf("%s verifies or registers", s)
		}
	}
}

func TestSignaturesVerifyAndAreDeterministic(t *testing.T) {
	for _, s := range Schemes() {
		for _, message := range []string{"", "a", strings.Repeat("long ", 10000)} {
			key := testKey(t, s, 1)
			c := signed(t, key, message)
			if !c.Verify() || !VerifyAll([]Check{c})[0] {
				t.Errorf("%s: own signature of %d bytes refused", s, len(message))
			}
			if len(c.Signature) != s.SignatureSize() || len(c.PublicKey) != s.PublicKeySize() {
				t.Errorf("%s: %d bytes of signature, %d of key", s, len(c.Signature), len(c.PublicKey))
			}
			if err := CheckPublicKey(s, c.PublicKey); err != nil {
				t.Error(err)
			}
			again, err := NewPrivateKey(s, key.Seed())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(signed(t, again, message).Signature, c.Signature) {
				t.Errorf("%s: two signatures of one message", s)
			}
			for _, size := range []int{0, s.PublicKeySize() - 1, s.PublicKeySize() + 1} {
				if CheckPublicKey(s, make([]byte, size)) == nil {
					t.Errorf("%s: key of %d bytes registered", s, size)
				}
			}
		}
	}
	if _, err := (PrivateKey{}).Sign(nil); err == nil {
		t.Error("the zero private key signs")
	}
}

// Flips single bits all over key, message and signature: nothing may verify. The key of secp256k1 is left out, since a
// flipped sign of y only makes another key, for which the same holds.
func TestBitFlipsNeverVerify(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, 0))
	for _, s := range Schemes() {
		good := signed(t, testKey(t, s, 2), "flip me")
		for range 200 {
			c := Check{Scheme: s, PublicKey: bytes.Clone(good.PublicKey), Message: bytes.Clone(good.Message), Signature: bytes.Clone(good.Signature)}
			target := [][]byte{c.PublicKey, c.Message, c.Signature, c.Signature}[random.IntN(4)]
			target[random.IntN(len(target))] ^= 1 << random.IntN(8)
			if c.Verify() || VerifyAll([]Check{good, c})[1] {
				t.Fatalf("%s, seed %d: verifies with a flipped bit: %x %x %x", s, seed, c.PublicKey, c.Message, c.Signature)
			}
		}
	}
}

func TestSecp256k1RefusesEverySecondForm(t *testing.T) {
	good := signed(t, testKey(t, Secp256k1, 3), "message")
	var s secp256k1.ModNScalar
	s.SetByteSlice(good.Signature[32:])
	if s.IsOverHalfOrder() {
		t.Fatal("signed with high s")
	}
	n := secp256k1.Params().N
	replace := func(r, s []byte) Check {
		c := good
		c.Signature = append(bytes.Clone(r), s...)
		return c
	}
	high := s.Negate().Bytes()
	zero, whole := make([]byte, 32), n.FillBytes(make([]byte, 32))
	for name, c := range map[string]Check{
		"high s": replace(good.Signature[:32], high[:]),
		"r zero": replace(zero, good.Signature[32:]), "s zero": replace(good.Signature[:32], zero),
		"both zero": replace(zero, zero),
		"r is n":    replace(whole, good.Signature[32:]), "s is n": replace(good.Signature[:32], whole),
	} {
		if c.Verify() {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, seed := range map[string][]byte{"zero": zero, "n": whole, "all ones": bytes.Repeat([]byte{255}, 32)} {
		if _, err := NewPrivateKey(Secp256k1, seed); err == nil {
			t.Errorf("private key %s accepted", name)
		}
	}
	for name, key := range map[string][]byte{
		"x not below the prime": append([]byte{2}, bytes.Repeat([]byte{255}, 32)...),
		"first byte 4":          append([]byte{4}, good.PublicKey[1:]...),
		"first byte 0":          append([]byte{0}, good.PublicKey[1:]...),
		"not on the curve":      append([]byte{2}, append(make([]byte, 31), 5)...),
	} {
		if CheckPublicKey(Secp256k1, key) == nil {
			t.Errorf("key with %s registered", name)
		}
	}
}

func TestMLDSAAgainstASecondImplementation(t *testing.T) {
	const seed = 2
	random := rand.New(rand.NewPCG(seed, 0))
	for _, s := range []Scheme{MLDSA44, MLDSA65} {
		for n := range 20 {
			key := testKey(t, s, n)
			other, err := mldsa.NewPrivateKey(oracleParameters(s), key.Seed())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(other.PublicKey().Bytes(), key.Public()) {
				t.Fatalf("%s key %d: public keys differ", s, n)
			}
			c := signed(t, key, fmt.Sprint("message ", n))
			signature, err := other.SignDeterministic(c.Message, nil)
			if err != nil || !bytes.Equal(signature, c.Signature) {
				t.Fatalf("%s key %d: signatures differ, error %v", s, n, err)
			}
			for range 25 { // 2*20*25 = 1000 mutations
				m := Check{Scheme: s, PublicKey: bytes.Clone(c.PublicKey), Message: bytes.Clone(c.Message), Signature: bytes.Clone(c.Signature)}
				target := [][]byte{m.PublicKey, m.Message, m.Signature, m.Signature}[random.IntN(4)]
				target[random.IntN(len(target))] ^= byte(1 + random.IntN(255))
				if got, oracle := m.Verify(), oracleVerifies(m); got || oracle {
					t.Fatalf("%s, seed %d: mutated, verifies %t, oracle %t", s, seed, got, oracle)
				}
			}
		}
	}
}

// Every mixture of schemes, good and bad: the answer by index is that of Verify.
func TestVerifyAllAnswersLikeVerify(t *testing.T) {
	const seed = 3
	random := rand.New(rand.NewPCG(seed, 0))
	var pool []Check
	for _, s := range Schemes() {
		good := signed(t, testKey(t, s, 4), "pool")
		bad := good
		bad.Message = []byte("pond")
		short := good
		short.Signature = good.Signature[1:]
		pool = append(pool, good, bad, short, Check{Scheme: s})
	}
	pool = append(pool, Check{}, Check{Scheme: SLHDSA128s, PublicKey: make([]byte, 32)})
	for _, size := range []int{0, 1, 2, ed25519BatchSize - 1, ed25519BatchSize, ed25519BatchSize + 1, 2*ed25519BatchSize + 1} {
		checks, good := make([]Check, size), 0
		for i := range checks {
			checks[i] = pool[random.IntN(len(pool))]
			if random.IntN(3) > 0 {
				checks[i] = pool[0] // so that whole batches are good now and then
			}
		}
		for i, ok := range VerifyAll(checks) {
			if ok != checks[i].Verify() {
				t.Errorf("seed %d, %d checks, index %d: %t", seed, size, i, ok)
			}
			if ok {
				good++
			}
		}
		if size > 2 && good == 0 {
			t.Errorf("%d checks and none good", size)
		}
	}
	whole := slices.Repeat([]Check{pool[0]}, 2*ed25519BatchSize)
	if slices.Contains(VerifyAll(whole), false) {
		t.Error("whole good batches refused")
	}
}

func TestPrivateKeyNeverPrints(t *testing.T) {
	seed := bytes.Repeat([]byte{0xab}, 32)
	for _, s := range Schemes() {
		key, err := NewPrivateKey(s, seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
			for _, value := range []any{
				key, &key, []PrivateKey{key}, struct{ Key PrivateKey }{key}, struct{ key PrivateKey }{key},
				&struct{ keys []PrivateKey }{[]PrivateKey{key}}, map[string]PrivateKey{"a": key},
			} {
				text := strings.ToLower(fmt.Sprintf(verb, value))
				if strings.Contains(text, "abab") || strings.Contains(text, "0xab, 0xab") || strings.Contains(text, "171 171") || strings.Contains(text, "ab ab") {
					t.Errorf("%s of %T prints %.200s", verb, value, text)
				}
			}
			if text := fmt.Sprintf(verb, key); text != s.String()+" private key" {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if k := (PrivateKey{}); k.Scheme() != 0 || k.Public() != nil || k.Seed() != nil || fmt.Sprint(k) == "" {
		t.Error("the zero private key is not empty")
	}
}

func FuzzVerify(f *testing.F) {
	for _, s := range Schemes() {
		c := signed(f, testKey(f, s, 5), "fuzz")
		f.Add(uint32(s), c.PublicKey, c.Message, c.Signature)
	}
	f.Fuzz(func(t *testing.T, s uint32, key, message, signature []byte) {
		c := Check{Scheme: Scheme(s), PublicKey: key, Message: message, Signature: signature}
		verdict := c.Verify() // must not panic
		if all := VerifyAll([]Check{c, c}); all[0] != verdict || all[1] != verdict {
			t.Errorf("single %t, batch %v", verdict, all)
		}
		if c.Scheme == MLDSA44 || c.Scheme == MLDSA65 {
			if oracle := oracleVerifies(c); oracle != verdict {
				t.Errorf("verifies %t, oracle %t", verdict, oracle)
			}
		}
		_ = CheckPublicKey(c.Scheme, key) // must not panic
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, s := range Schemes() {
		c := signed(b, testKey(b, s, 6), strings.Repeat("m", 72))
		b.Run(s.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.Verify() {
					b.Fatal("refused")
				}
			}
		})
	}
	for _, c := range webAuthnCases(b) {
		if len(c.check.Signature) != P256WebAuthn.MaxSignatureSize() || !c.want {
			continue
		}
		b.Run("p256-webauthn-longest", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.check.Verify() {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkVerifyAll(b *testing.B) {
	for _, n := range []int{1, 8, 16, 32, 64, 256, 1024} {
		checks := make([]Check, n)
		for i := range checks {
			checks[i] = signed(b, testKey(b, Ed25519, i), fmt.Sprint("message ", i))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if slices.Contains(VerifyAll(checks), false) {
					b.Fatal("refused")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/signature")
		})
	}
}

func BenchmarkSign(b *testing.B) {
	for _, s := range Schemes() {
		key := testKey(b, s, 7)
		b.Run(s.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := key.Sign([]byte("message")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCheckPublicKey(b *testing.B) {
	for _, s := range Schemes() {
		key := testKey(b, s, 8).Public()
		b.Run(s.String(), func(b *testing.B) {
			for b.Loop() {
				if err := CheckPublicKey(s, key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
