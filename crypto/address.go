package crypto

import (
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcutil/bech32"
)

// Address names an account: the hash of the policy that it began with.
type Address [32]byte

// Text form: bech32m (BIP-350) with prefix "pac"; its data are one 5-bit symbol, the version, which is 1, and the 32
// bytes in 52 symbols. That is the layout of a segwit address, so existing decoders fit, and every address begins with
// "pac1p". 3 + 1 + 1 + 52 + 6 = 63 characters, below the 90 up to which any 4 wrong characters are detected.
const (
	AddressPrefix = "pac"

	// AddressLength is the number of characters of every address.
	AddressLength = len(AddressPrefix) + 1 + 1 + 52 + 6

	addressVersion = 1
)

// String returns the 63 lower-case characters of the address.
func (a Address) String() string {
	symbols, err := bech32.ConvertBits(a[:], 8, 5, true)
	if err != nil {
		panic("spread an address to 5-bit symbols: " + err.Error()) // errs only on a wrong bit count
	}
	text, err := bech32.EncodeM(AddressPrefix, append([]byte{addressVersion}, symbols...))
	if err != nil {
		panic("encode an address as bech32m: " + err.Error()) // errs only on symbols above 31
	}
	return text
}

// ParseAddress reads an address in lower case, or in upper case throughout as QR codes have it. The error says what is
// wrong in words for the person who typed it; any one to four wrong characters are found.
func ParseAddress(text string) (Address, error) {
	symbols, err := decodeAddress(text)
	if err != nil {
		return Address{}, fmt.Errorf("parse address: %w", err)
	}
	if symbols[0] != addressVersion {
		return Address{}, fmt.Errorf("parse address: version %d, want %d", symbols[0], addressVersion)
	}
	bytes, err := bech32.ConvertBits(symbols[1:], 5, 8, false) // errs on padding that is not zero
	if err != nil {
		return Address{}, errors.New("parse address: the padding behind the last byte is not zero")
	}
	return Address(bytes), nil
}

// decodeAddress returns the 53 symbols between prefix and checksum.
func decodeAddress(text string) ([]byte, error) {
	for i := range len(text) {
		// Before any change of case: the Kelvin sign, of three bytes, has the lower case "k".
		if text[i] <= ' ' || text[i] > '~' {
			return nil, errors.New("a character does not belong to the bech32 alphabet")
		}
	}
	lower := strings.ToLower(text)
	if text != lower && text != strings.ToUpper(text) {
		return nil, errors.New("upper and lower case are mixed")
	}
	// Prefix and length come before the checksum: whoever pastes another chain's address, or half of ours, learns that.
	if prefix, _, found := cutLast(lower, '1'); !found || prefix != AddressPrefix {
		return nil, fmt.Errorf("does not begin with %q", AddressPrefix+"1")
	}
	if len(text) != AddressLength {
		return nil, fmt.Errorf("%d characters, want %d", len(text), AddressLength)
	}
	_, symbols, version, err := bech32.DecodeGeneric(lower)
	if err != nil {
		if _, ok := errors.AsType[bech32.ErrInvalidChecksum](err); ok {
			// The library's text offers the checksum that would fit, an invitation to send money to a wrong address.
			return nil, errors.New("bad checksum: a character is mistyped or missing")
		}
		return nil, errors.New("a character does not belong to the bech32 alphabet")
	}
	if version != bech32.VersionM {
		return nil, errors.New("checksum is of bech32, want bech32m")
	}
	return symbols, nil
}

// cutLast cuts text around its last separator.
func cutLast(text string, separator byte) (before, after string, found bool) {
	i := strings.LastIndexByte(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

// MarshalText is String.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddress.
func (a *Address) UnmarshalText(text []byte) error {
	parsed, err := ParseAddress(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
