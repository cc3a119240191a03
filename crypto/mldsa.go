package crypto

import (
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// mldsa44Rules and mldsa65Rules are FIPS 204 ML-DSA, pure, with the empty context: our domain stands in the message,
// since not every signer can set a context. Private keys are the 32-byte seeds, signing is the deterministic variant.
//
// Every string of the right length is a public key (each coefficient has 10 bits and all values are in range), so
// registration asks for nothing more. Keys are parsed at every verification: a cache would halve the price at 22 to 39 KB
// per key, and would be state here. The tests hold circl against filippo.io/mldsa.
type (
	mldsa44Rules struct{}
	mldsa65Rules struct{}
)

func (mldsa44Rules) name() string                { return "ml-dsa-44" }
func (mldsa44Rules) publicKeySize() int          { return mldsa44.PublicKeySize }
func (mldsa44Rules) signatureSize() int          { return mldsa44.SignatureSize }
func (mldsa44Rules) maxSignatureSize() int       { return mldsa44.SignatureSize }
func (mldsa44Rules) cost() uint64                { return 15 }
func (mldsa44Rules) checkPublicKey([]byte) error { return nil }

func (mldsa44Rules) verify(key, message, signature []byte) bool {
	var public mldsa44.PublicKey
	public.Unpack((*[mldsa44.PublicKeySize]byte)(key))
	return mldsa44.Verify(&public, message, nil, signature)
}

func (mldsa44Rules) newKey(seed *[SeedSize]byte) ([]byte, func([]byte) []byte, error) {
	public, private := mldsa44.NewKeyFromSeed(seed)
	return public.Bytes(), func(message []byte) []byte {
		signature := make([]byte, mldsa44.SignatureSize)
		if err := mldsa44.SignTo(private, message, nil, false, signature); err != nil {
			panic("sign ml-dsa-44 with an empty context: " + err.Error()) // only a context above 255 bytes errs
		}
		return signature
	}, nil
}

func (mldsa65Rules) name() string                { return "ml-dsa-65" }
func (mldsa65Rules) publicKeySize() int          { return mldsa65.PublicKeySize }
func (mldsa65Rules) signatureSize() int          { return mldsa65.SignatureSize }
func (mldsa65Rules) maxSignatureSize() int       { return mldsa65.SignatureSize }
func (mldsa65Rules) cost() uint64                { return 30 }
func (mldsa65Rules) checkPublicKey([]byte) error { return nil }

func (mldsa65Rules) verify(key, message, signature []byte) bool {
	var public mldsa65.PublicKey
	public.Unpack((*[mldsa65.PublicKeySize]byte)(key))
	return mldsa65.Verify(&public, message, nil, signature)
}

func (mldsa65Rules) newKey(seed *[SeedSize]byte) ([]byte, func([]byte) []byte, error) {
	public, private := mldsa65.NewKeyFromSeed(seed)
	return public.Bytes(), func(message []byte) []byte {
		signature := make([]byte, mldsa65.SignatureSize)
		if err := mldsa65.SignTo(private, message, nil, false, signature); err != nil {
			panic("sign ml-dsa-65 with an empty context: " + err.Error()) // only a context above 255 bytes errs
		}
		return signature
	}, nil
}
