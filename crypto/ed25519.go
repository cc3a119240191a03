package crypto

import (
	"errors"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// ed25519Rules verifies by ZIP-215: s canonical, A and R any encoding of any point on the curve, and the cofactored
// equation. It is the only rule under which single and batch verification agree on every input (Chalkias, Garillot,
// Nikolaenko 2020, "Taming the many EdDSAs"); the standard library's rule disagrees with any batch on inputs that
// anybody can make, and nodes that took different routes would fork. Nothing else here may call an ed25519 verifier.
type ed25519Rules struct{}

var zip215 = &ed25519.Options{Verify: ed25519.VerifyOptionsZIP_215}

func (ed25519Rules) name() string          { return "ed25519" }
func (ed25519Rules) publicKeySize() int    { return ed25519.PublicKeySize }
func (ed25519Rules) signatureSize() int    { return ed25519.SignatureSize }
func (ed25519Rules) maxSignatureSize() int { return ed25519.SignatureSize }
func (ed25519Rules) cost() uint64          { return 10 }

// checkPublicKey asks for the canonical encoding of a point of the prime-order subgroup other than the identity, which
// is what every honest key is. A key with a part of small order would verify the signatures of its neighbours too.
func (ed25519Rules) checkPublicKey(key []byte) error {
	var y curve.CompressedEdwardsY
	if _, err := y.SetBytes(key); err != nil {
		return errors.New("is not a point encoding")
	}
	var point curve.EdwardsPoint
	if _, err := point.SetCompressedY(&y); err != nil {
		return errors.New("is not on the curve")
	}
	if !y.IsCanonicalVartime() {
		return errors.New("is not canonically encoded")
	}
	if point.IsSmallOrder() {
		return errors.New("has small order: anybody could sign for it")
	}
	if !point.IsTorsionFree() {
		return errors.New("is not in the prime-order subgroup")
	}
	return nil
}

func (ed25519Rules) verify(key, message, signature []byte) bool {
	return ed25519.VerifyWithOptions(key, message, signature, zip215)
}

func (ed25519Rules) newKey(seed *[SeedSize]byte) ([]byte, func([]byte) []byte, error) {
	private := ed25519.NewKeyFromSeed(seed[:])
	public := append([]byte(nil), private[SeedSize:]...)
	return public, func(message []byte) []byte { return ed25519.Sign(private, message) }, nil
}

// ed25519BatchSize is the most signatures in one batch. One bad signature costs its whole batch a second verification,
// so a small batch bounds what an attacker gains by mixing one in; beyond this size the price per signature no longer
// falls (BenchmarkVerifyAll).
const ed25519BatchSize = 64

// verifyEd25519Batch verifies the checks at the given indexes and writes their verdicts.
//
// A batch is weighted with random numbers that the library draws from the operating system (nil means that). They cannot
// change a verdict that matters: a batch of good signatures passes under any weights, since each term of the sum is zero
// after the cofactor; one that fails is decided one by one, without weights; and one with a bad signature passes with
// probability 2^-128, against weights that its maker could not know.
func verifyEd25519Batch(checks []Check, batch []int, verdicts []bool) {
	if len(batch) > 1 {
		v := ed25519.NewBatchVerifierWithCapacity(len(batch))
		for _, i := range batch {
			v.AddWithOptions(checks[i].PublicKey, checks[i].Message, checks[i].Signature, zip215)
		}
		if v.VerifyBatchOnly(nil) {
			for _, i := range batch {
				verdicts[i] = true
			}
			return
		}
	}
	for _, i := range batch {
		verdicts[i] = checks[i].Verify()
	}
}
