package ledger

import (
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawAmount draws amounts of every size, often at the edges.
func drawAmount(t *rapid.T, label string) Amount {
	edge := []uint64{0, 1, 9, 10, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	half := rapid.OneOf(rapid.SampledFrom(edge), rapid.Uint64())
	return Amount{half.Draw(t, label+" high"), half.Draw(t, label+" low")}
}

// TestAmountArithmetic holds amounts against integers without a bound.
func TestAmountArithmetic(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawAmount(t, "a"), drawAmount(t, "b")
		x, y := bigAmount(a), bigAmount(b)
		if a.Cmp(b) != x.Cmp(y) || a.IsZero() != (x.Sign() == 0) {
			t.Fatalf("%s and %s compare wrong", a, b)
		}
		want := new(big.Int).Add(x, y)
		if sum, ok := a.Add(b); ok != (want.Cmp(limit) < 0) || ok && bigAmount(sum).Cmp(want) != 0 {
			t.Fatalf("%s + %s = %s, %v", a, b, sum, ok)
		}
		if bigAmount(a.wrappingAdd(b)).Cmp(want.Mod(want, limit)) != 0 {
			t.Fatalf("%s + %s wraps wrong", a, b)
		}
		want = new(big.Int).Sub(x, y)
		if d, ok := a.Sub(b); ok != (want.Sign() >= 0) || ok && bigAmount(d).Cmp(want) != 0 {
			t.Fatalf("%s - %s = %s, %v", a, b, d, ok)
		}
		if least := a.Min(b); least.Cmp(a) > 0 || least.Cmp(b) > 0 || least != a && least != b {
			t.Fatalf("the smaller of %s and %s is %s", a, b, least)
		}
		if a.String() != x.String() {
			t.Fatalf("%s is written %s", x, a)
		}
		if back, err := AmountFromBytes(a.Bytes()); err != nil || back != a {
			t.Fatalf("%s comes back as %s, %v", a, back, err)
		}
		if n, ok := a.Uint64(); ok != x.IsUint64() || ok && n != x.Uint64() {
			t.Fatalf("%s as 64 bits is %d, %v", a, n, ok)
		}
		scale := rapid.Uint32Range(0, MaxScale).Draw(t, "scale")
		text := a.Format(scale)
		if back, err := ParseAmount(text, scale); err != nil || back != a {
			t.Fatalf("%s at scale %d is written %s and read %s, %v", x, scale, text, back, err)
		}
		var fromText Amount
		if raw, err := a.MarshalText(); err != nil || fromText.UnmarshalText(raw) != nil || fromText != a {
			t.Fatalf("%s as text: %s", a, raw)
		}
	})
}

func TestParseAmountRefuses(t *testing.T) {
	for _, text := range []string{"", ".", ".5", "5.", "1.234", "-1", "+1", "1e3", "1,000", " 1", "1 ", "0x10", "1.2.3", "١", "1_000",
		"3402823669209384634633746074317682114.56", strings.Repeat("9", 60)} {
		if a, err := ParseAmount(text, 2); err == nil {
			t.Errorf("%q is read as %s", text, a)
		}
	}
	if a, err := ParseAmount("3402823669209384634633746074317682114.55", 2); err != nil || a != MaxAmount {
		t.Errorf("the largest amount is read as %s, %v", a, err)
	}
	if a, err := ParseAmount("007.1", 2); err != nil || a != Units(710) {
		t.Errorf("007.1 is read as %s, %v", a, err)
	}
}

func bigAmount(a Amount) *big.Int { return new(big.Int).SetBytes(a.Bytes()) }
