package client

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// MaxPaymentIDBytes bounds a payer's own id of a payment.
const MaxPaymentIDBytes = 256

// Payment is what a payer's own id of a payment becomes in a transaction: a nonce, which keeps it from being paid twice, and
// a reference, by which both sides find it in their journals.
type Payment struct {
	Nonce     [ledger.NonceBytes]byte
	Reference ledger.Reference
}

// NewPayment derives them from the address that pays and the id, any text of 1 to 256 bytes of UTF-8: the two halves of
//
//	SHA-256("pacioli.payment.v1\0" || address(32) || id)
//
// The ledger knows nothing of this: it is a convention of wallets. The id itself does not appear on the ledger, but
// whoever guesses it can tell.
func NewPayment(from crypto.Address, id string) (p Payment, err error) {
	switch {
	case id == "":
		return p, errors.New("the payment id is empty")
	case len(id) > MaxPaymentIDBytes:
		return p, fmt.Errorf("the payment id has %d bytes, at most %d", len(id), MaxPaymentIDBytes)
	case !utf8.ValidString(id):
		return p, fmt.Errorf("the payment id %q is not valid UTF-8", id)
	}
	h := crypto.DomainPayment.Hash(from[:], []byte(id))
	copy(p.Nonce[:], h[:16])
	copy(p.Reference[:], h[16:])
	return p, nil
}

// ParseReference reads 16 bytes that are not all zero, as 32 hex digits or a UUID.
func ParseReference(text string) (id [16]byte, err error) {
	digits := text
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		digits = strings.ReplaceAll(text, "-", "")
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%q: want 32 hex digits or a UUID", text)
	}
	if copy(id[:], raw); id == [16]byte{} {
		return id, fmt.Errorf("%q: must not be zero", text)
	}
	return id, nil
}
