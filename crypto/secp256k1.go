package crypto

import (
	"crypto/sha256"
	"errors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// secp256k1Rules is ECDSA over SHA-256(message) with compressed keys and signatures r||s of two big-endian 32-byte
// numbers. Of the two signatures s and n-s that ECDSA accepts only the lower one counts, so that nobody but the signer can
// make a second valid form of a signature.
type secp256k1Rules struct{}

func (secp256k1Rules) name() string          { return "secp256k1" }
func (secp256k1Rules) publicKeySize() int    { return secp256k1.PubKeyBytesLenCompressed }
func (secp256k1Rules) signatureSize() int    { return 64 }
func (secp256k1Rules) maxSignatureSize() int { return 64 }
func (secp256k1Rules) cost() uint64          { return 42 }

// checkPublicKey asks for a first byte of 2 or 3 and for x below the field prime and on the curve. The group has prime
// order, so every such point is a key.
func (secp256k1Rules) checkPublicKey(key []byte) error {
	if _, err := secp256k1.ParsePubKey(key); err != nil {
		return errors.New("is not a compressed point on the curve")
	}
	return nil
}

func (secp256k1Rules) verify(key, message, signature []byte) bool {
	public, err := secp256k1.ParsePubKey(key)
	if err != nil {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(signature[:32]) || s.SetByteSlice(signature[32:]) { // true means not below n
		return false
	}
	if r.IsZero() || s.IsZero() || s.IsOverHalfOrder() {
		return false
	}
	digest := sha256.Sum256(message)
	return ecdsa.NewSignature(&r, &s).Verify(digest[:], public)
}

func (secp256k1Rules) newKey(seed *[SeedSize]byte) ([]byte, func([]byte) []byte, error) {
	var k secp256k1.ModNScalar
	if k.SetBytes(seed) != 0 || k.IsZero() {
		return nil, nil, errors.New("is not from 1 to n-1")
	}
	private := secp256k1.NewPrivateKey(&k)
	return private.PubKey().SerializeCompressed(), func(message []byte) []byte {
		digest := sha256.Sum256(message)
		signature := ecdsa.Sign(private, digest[:]) // RFC 6979, low s
		r, s := signature.R(), signature.S()
		out := make([]byte, 64)
		r.PutBytesUnchecked(out[:32])
		s.PutBytesUnchecked(out[32:])
		return out
	}, nil
}
