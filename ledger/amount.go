package ledger

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// MaxScale is the largest number of decimals that an asset may have. 2^128 is 3.4e38, so that even at this scale an
// asset can count 10^20 whole units.
const MaxScale = 18

// Amount is an unsigned 128-bit integer that counts base units of one asset (or of a counter's total). Its zero value
// is 0, and values compare with ==. All arithmetic is checked: nothing wraps unless the method says so.
type Amount struct{ hi, lo uint64 }

// MaxAmount is 2^128 - 1.
var MaxAmount = Amount{1<<64 - 1, 1<<64 - 1}

// Units makes an amount of n base units.
func Units(n uint64) Amount { return Amount{lo: n} }

// IsZero tells whether a is 0.
func (a Amount) IsZero() bool { return a == Amount{} }

// Cmp returns -1, 0 or +1 as a is less than, equal to or greater than b.
func (a Amount) Cmp(b Amount) int {
	switch {
	case a == b:
		return 0
	case a.hi < b.hi || a.hi == b.hi && a.lo < b.lo:
		return -1
	}
	return 1
}

// Add returns a + b; ok is false when that passes 2^128 - 1.
func (a Amount) Add(b Amount) (sum Amount, ok bool) {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, carry := bits.Add64(a.hi, b.hi, carry)
	return Amount{hi, lo}, carry == 0
}

// Sub returns a - b; ok is false when b is greater than a.
func (a Amount) Sub(b Amount) (difference Amount, ok bool) {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, borrow := bits.Sub64(a.hi, b.hi, borrow)
	return Amount{hi, lo}, borrow == 0
}

// wrappingAdd and wrappingSub are arithmetic modulo 2^128, for sums that are only compared with each other.
func (a Amount) wrappingAdd(b Amount) Amount { s, _ := a.Add(b); return s }
func (a Amount) wrappingSub(b Amount) Amount { d, _ := a.Sub(b); return d }

// mustAdd and mustSub are for sums and differences that a check before has shown to fit. Where it has not, that is a defect
// of the rules, and the node stops rather than lose money.
func (a Amount) mustAdd(b Amount) Amount {
	s, ok := a.Add(b)
	if !ok {
		panic(fmt.Sprintf("%s + %s passes 2^128 - 1", a, b))
	}
	return s
}

func (a Amount) mustSub(b Amount) Amount {
	d, ok := a.Sub(b)
	if !ok {
		panic(fmt.Sprintf("%s - %s is negative", a, b))
	}
	return d
}

// wide is a sum of amounts that need not fit 128 bits. At most 2^64 amounts fit it.
type wide struct {
	top uint64
	low Amount
}

// total adds amounts up, exactly.
func total(amounts ...Amount) (w wide) {
	for _, a := range amounts {
		w = w.plus(a)
	}
	return w
}

func (w wide) plus(a Amount) wide {
	low, ok := w.low.Add(a)
	if !ok { // low is then what is left of the sum modulo 2^128
		w.top++
	}
	return wide{w.top, low}
}

func (w wide) less(v wide) bool { return w.top < v.top || w.top == v.top && w.low.Cmp(v.low) < 0 }

// fits tells whether the sum is an amount.
func (w wide) fits() bool { return w.top == 0 }

// minus returns w - v, but no less than 0 and no more than MaxAmount.
func (w wide) minus(v wide) Amount {
	if w.less(v) {
		return Amount{}
	}
	top := w.top - v.top
	low, ok := w.low.Sub(v.low)
	if !ok {
		top--
	}
	if top != 0 {
		return MaxAmount
	}
	return low
}

// perMille returns n * thousandths / 1000, rounded up.
func perMille(n uint64, thousandths uint32) Amount {
	hi, lo := bits.Mul64(n, uint64(thousandths))
	lo, carry := bits.Add64(lo, 999, 0)
	hi += carry
	q, r := hi/1000, hi%1000
	lo, _ = bits.Div64(r, lo, 1000)
	return Amount{q, lo}
}

// Min returns the smaller of a and b.
func (a Amount) Min(b Amount) Amount {
	if b.Cmp(a) < 0 {
		return b
	}
	return a
}

// Uint64 returns a when it fits 64 bits.
func (a Amount) Uint64() (n uint64, ok bool) { return a.lo, a.hi == 0 }

// times10 returns 10*a + digit.
func (a Amount) times10(digit uint64) (Amount, bool) {
	carryHi, lo := bits.Mul64(a.lo, 10)
	over, hi := bits.Mul64(a.hi, 10)
	hi, carry := bits.Add64(hi, carryHi, 0)
	if over != 0 || carry != 0 {
		return Amount{}, false
	}
	return Amount{hi, lo}.Add(Units(digit))
}

// divide10 returns a/10 and the remainder.
func (a Amount) divide10() (Amount, uint64) {
	hi, r := a.hi/10, a.hi%10
	lo, r := bits.Div64(r, a.lo, 10)
	return Amount{hi, lo}, r
}

// Bytes returns the canonical encoding: big-endian without leading zeros, nothing at all for 0.
func (a Amount) Bytes() []byte {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(a.hi >> (56 - 8*i))
		b[8+i] = byte(a.lo >> (56 - 8*i))
	}
	for i, c := range b {
		if c != 0 {
			return b[i:]
		}
	}
	return nil
}

// AmountFromBytes reads what [Amount.Bytes] writes. Leading zeros and more than 16 bytes are errors.
func AmountFromBytes(b []byte) (Amount, error) {
	if len(b) > 16 {
		return Amount{}, fmt.Errorf("%d bytes, an amount has at most 16", len(b))
	}
	if len(b) > 0 && b[0] == 0 {
		return Amount{}, fmt.Errorf("an amount has no leading zero bytes")
	}
	var a Amount
	for _, c := range b {
		a.hi = a.hi<<8 | a.lo>>56
		a.lo = a.lo<<8 | uint64(c)
	}
	return a, nil
}

// readAmount reads an optional amount field; absence is 0.
func readAmount(r *canonical.Reader, number int, field string) Amount {
	b := r.Bytes(number, field, 16)
	a, err := AmountFromBytes(b)
	if err != nil {
		r.Fail(field, "%s", err)
	}
	return a
}

// String returns a in base units, in decimal.
func (a Amount) String() string { return a.Format(0) }

// Format writes a with scale decimals: 1234 at scale 2 is "12.34". Trailing zeros stay, so that every amount of an asset
// has the same number of decimals. scale is at most MaxScale.
func (a Amount) Format(scale uint32) string {
	var digits [40]byte
	i := len(digits)
	for n := 0; !a.IsZero() || n <= int(scale); n++ {
		var d uint64
		a, d = a.divide10()
		i--
		digits[i] = byte('0' + d)
	}
	text := string(digits[i:])
	if scale == 0 {
		return text
	}
	point := len(text) - int(scale)
	return text[:point] + "." + text[point:]
}

// ParseAmount reads what a person types for an asset with scale decimals, at most MaxScale: digits, and at most one point with at most
// scale digits behind it. Signs, exponents, spaces and separators are errors, as is a value above 2^128 - 1.
func ParseAmount(text string, scale uint32) (Amount, error) {
	whole, fraction, pointed := strings.Cut(text, ".")
	if whole == "" || pointed && fraction == "" {
		return Amount{}, fmt.Errorf("amount %q: want digits, or digits with a point between them", text)
	}
	if len(fraction) > int(scale) {
		return Amount{}, fmt.Errorf("amount %q has %d decimals, the asset has %d", text, len(fraction), scale)
	}
	var a Amount
	for _, c := range []byte(whole + fraction + strings.Repeat("0", int(scale)-len(fraction))) {
		if c < '0' || c > '9' {
			return Amount{}, fmt.Errorf("amount %q: %q is not a digit", text, c)
		}
		var ok bool
		if a, ok = a.times10(uint64(c - '0')); !ok {
			return Amount{}, fmt.Errorf("amount %q is above the largest amount, %s", text, MaxAmount.Format(scale))
		}
	}
	return a, nil
}

// MarshalText writes base units in decimal.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads base units in decimal.
func (a *Amount) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAmount(string(text), 0)
	return err
}
