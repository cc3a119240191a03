package crypto

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/hdevalence/ed25519consensus"
	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
)

// edgeCase is a signature that some ed25519 verifiers accept and others refuse. ZIP-215 accepts all of them.
type edgeCase struct {
	check      Check
	registered bool // whether CheckPublicKey takes the key
}

// torsion returns the eight points of small order, the identity first.
func torsion(t testing.TB) []*curve.EdwardsPoint {
	t.Helper()
	// A generator of the torsion subgroup: a point of order 8, from ZIP-215's list.
	var y curve.CompressedEdwardsY
	encoded, _ := hex.DecodeString("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
	if _, err := y.SetBytes(encoded); err != nil {
		t.Fatal(err)
	}
	generator := new(curve.EdwardsPoint)
	if _, err := generator.SetCompressedY(&y); err != nil {
		t.Fatal(err)
	}
	points := []*curve.EdwardsPoint{new(curve.EdwardsPoint).Identity()}
	for len(points) < 8 {
		points = append(points, new(curve.EdwardsPoint).Add(points[len(points)-1], generator))
	}
	if !new(curve.EdwardsPoint).Add(points[7], generator).IsIdentity() || points[4].IsIdentity() {
		t.Fatal("the generator does not have order 8")
	}
	return points
}

func encode(p *curve.EdwardsPoint) []byte {
	var y curve.CompressedEdwardsY
	y.SetEdwardsPoint(p)
	return append([]byte(nil), y[:]...)
}

// smallOrderEncodings returns all 14 strings that decode to a point of small order: 8 canonical ones, 2 with the sign of
// x = 0 set, and 4 with y raised by the field prime.
func smallOrderEncodings(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, p := range torsion(t) {
		out = append(out, encode(p))
	}
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	littleEndian := func(y *big.Int, sign byte) []byte {
		b := y.FillBytes(make([]byte, 32))
		for i := range 16 {
			b[i], b[31-i] = b[31-i], b[i]
		}
		b[31] |= sign << 7
		return b
	}
	minusOne := new(big.Int).Sub(prime, big.NewInt(1))
	out = append(out, littleEndian(big.NewInt(1), 1), littleEndian(minusOne, 1)) // x = 0 with a sign
	for sign := range byte(2) {
		out = append(out, littleEndian(prime, sign), littleEndian(new(big.Int).Add(prime, big.NewInt(1)), sign))
	}
	return out
}

// edgeCases returns 14*14 signatures of small-order keys, valid for every message, and 8*8 signatures whose key and R
// carry each part of small order. The seed of the latter is fixed.
func edgeCases(t testing.TB) []edgeCase {
	t.Helper()
	var cases []edgeCase
	for _, a := range smallOrderEncodings(t) {
		for _, r := range smallOrderEncodings(t) {
			signature := append(append([]byte(nil), r...), make([]byte, 32)...)
			cases = append(cases, edgeCase{check: Check{Scheme: Ed25519, PublicKey: a, Message: []byte("pacioli"), Signature: signature}})
		}
	}
	wide := func(parts ...[]byte) *scalar.Scalar {
		h := sha512.New()
		for _, p := range parts {
			h.Write(p)
		}
		s := new(scalar.Scalar)
		if _, err := s.SetBytesModOrderWide(h.Sum(nil)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	secret, nonce := wide([]byte("mixed-order secret")), wide([]byte("mixed-order nonce"))
	base := func(s *scalar.Scalar) *curve.EdwardsPoint {
		return new(curve.EdwardsPoint).MulBasepoint(curve.ED25519_BASEPOINT_TABLE, s)
	}
	message := []byte("pacioli")
	for i, ta := range torsion(t) {
		a := encode(new(curve.EdwardsPoint).Add(base(secret), ta))
		for _, tr := range torsion(t) {
			r := encode(new(curve.EdwardsPoint).Add(base(nonce), tr))
			s := new(scalar.Scalar).Mul(wide(r, a, message), secret)
			s.Add(s, nonce)
			var encoded [32]byte
			if err := s.ToBytes(encoded[:]); err != nil {
				t.Fatal(err)
			}
			check := Check{Scheme: Ed25519, PublicKey: a, Message: message, Signature: append(r, encoded[:]...)}
			cases = append(cases, edgeCase{check: check, registered: i == 0})
		}
	}
	return cases
}

func TestEd25519SingleBatchAndOracleAgreeOnEdgeCases(t *testing.T) {
	cases := edgeCases(t)
	if len(cases) != 196+64 {
		t.Fatalf("%d cases, want 196+64", len(cases))
	}
	key, err := NewPrivateKey(Ed25519, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	signature, _ := key.Sign([]byte("honest"))
	honest := Check{Scheme: Ed25519, PublicKey: key.Public(), Message: []byte("honest"), Signature: signature}
	for i, c := range cases {
		single := c.check.Verify()
		batch := VerifyAll([]Check{honest, c.check, honest})
		oracle := ed25519consensus.Verify(c.check.PublicKey, c.check.Message, c.check.Signature)
		if !single || !batch[1] || !oracle {
			t.Errorf("case %d (A %x, R %x): single %t, batch %t, oracle %t, want all true", i, c.check.PublicKey,
				c.check.Signature[:32], single, batch[1], oracle)
		}
		if !batch[0] || !batch[2] {
			t.Errorf("case %d: a good signature failed beside it", i)
		}
		if err := CheckPublicKey(Ed25519, c.check.PublicKey); (err == nil) != c.registered {
			t.Errorf("case %d: registration of %x says %v", i, c.check.PublicKey, err)
		}
	}

	// All at once, and again with one bad signature: the verdicts of the others stay.
	checks := make([]Check, len(cases))
	for i, c := range cases {
		checks[i] = c.check
	}
	for i, ok := range VerifyAll(checks) {
		if !ok {
			t.Errorf("case %d fails in the batch of all", i)
		}
	}
	bad := 200 // a mixed-order one
	checks[bad].Message = []byte("another")
	for i, ok := range VerifyAll(checks) {
		if ok != (i != bad) {
			t.Errorf("case %d: %t beside a bad signature", i, ok)
		}
	}
}

// The same points with something wrong that ZIP-215 does refuse.
func TestEd25519RefusesWhatZIP215Refuses(t *testing.T) {
	key, err := NewPrivateKey(Ed25519, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("message")
	good, _ := key.Sign(message)
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := new(big.Int)
	for i := range 32 {
		s.Lsh(s, 8).Or(s, big.NewInt(int64(good[63-i])))
	}
	highS := append([]byte(nil), good...)
	for i, b := range s.Add(s, order).FillBytes(make([]byte, 32)) {
		highS[63-i] = b
	}
	offCurve := append([]byte{2}, make([]byte, 31)...) // y = 2 has no x
	for name, c := range map[string]Check{
		"s raised by the group order": {Scheme: Ed25519, PublicKey: key.Public(), Message: message, Signature: highS},
		"R off the curve":             {Scheme: Ed25519, PublicKey: key.Public(), Message: message, Signature: append(append([]byte(nil), offCurve...), good[32:]...)},
		"A off the curve":             {Scheme: Ed25519, PublicKey: offCurve, Message: message, Signature: good},
	} {
		if c.Verify() || VerifyAll([]Check{c, c})[1] || ed25519consensus.Verify(c.PublicKey, c.Message, c.Signature) {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := CheckPublicKey(Ed25519, offCurve); err == nil {
		t.Error("a key off the curve may register")
	}
}

// All 38 strings whose y is not below the field prime, with either sign: those that decode are refused for that reason
// and no other, though some of them have an order above 8.
func TestEd25519RegistersCanonicalKeysOnly(t *testing.T) {
	decoded, large := 0, 0
	for low := 0xed; low <= 0xff; low++ {
		for _, high := range []byte{0x7f, 0xff} {
			key := append([]byte{byte(low)}, append(bytes.Repeat([]byte{0xff}, 30), high)...)
			var y curve.CompressedEdwardsY
			var point curve.EdwardsPoint
			if _, err := y.SetBytes(key); err != nil {
				t.Fatal(err)
			}
			err := CheckPublicKey(Ed25519, key)
			if _, off := point.SetCompressedY(&y); off != nil {
				if err == nil {
					t.Errorf("%x is off the curve and registered", key)
				}
				continue
			}
			decoded++
			if !point.IsSmallOrder() {
				large++
			}
			if err == nil || !strings.Contains(err.Error(), "canonically") {
				t.Errorf("%x: %v, want a word about its encoding", key, err)
			}
		}
	}
	if decoded < 10 || large == 0 {
		t.Errorf("only %d of the strings decode, %d to points of large order", decoded, large)
	}
}
