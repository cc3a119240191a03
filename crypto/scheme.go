// Package crypto holds what every node and wallet must compute alike: hash domains, signature schemes, account policies
// and addresses. A difference between two releases of this package, for any input whatever, forks the network; a check
// that accepts too much loses somebody's money. So it is deterministic, keeps no state and no cache, and starts nothing.
//
// The rules beside the code are in docs/PROTOCOL.md; testdata/vectors holds them as examples for other implementations.
package crypto

import (
	"errors"
	"fmt"
	"strings"
)

// Scheme is the number of a signature scheme in policies. Numbers are protocol: given once and never reused.
type Scheme uint32

// The schemes. Reserved ones have a number but are not accepted: Supported tells.
const (
	Ed25519      Scheme = 1 // RFC 8032 keys, verified by the cofactored equation of ZIP-215
	Secp256k1    Scheme = 2 // ECDSA over SHA-256(message), 64 bytes r||s, low s
	P256WebAuthn Scheme = 3 // WebAuthn assertions by ECDSA on P-256, for one relying party
	MLDSA44      Scheme = 4 // FIPS 204, category 2, pure, empty context
	MLDSA65      Scheme = 5 // FIPS 204, category 3, pure, empty context
	SLHDSA128s   Scheme = 6 // reserved: FIPS 205, SHA2-128s
	SLHDSA128f   Scheme = 7 // reserved: FIPS 205, SHA2-128f
)

// SeedSize is the length of a private key, in bytes, in every scheme.
const SeedSize = 32

// rules is what a scheme is to the rest of the package. Implementations hold no state and serve any number of goroutines.
type rules interface {
	name() string
	publicKeySize() int
	signatureSize() int    // of what newKey's function makes
	maxSignatureSize() int // the same, or more where signatures have no fixed size
	cost() uint64

	// checkPublicKey is the registration rule, for a key of the right length.
	checkPublicKey(key []byte) error
	// verify is handed a key and a signature of the right lengths, any bytes otherwise, and never panics. Where signatures
	// have no fixed size, every length up to the maximum is right.
	verify(key, message, signature []byte) bool
	// newKey derives the public key from a seed, and a function that signs with it. The function signs the same message
	// with the same bytes every time.
	newKey(seed *[SeedSize]byte) (public []byte, sign func(message []byte) []byte, err error)
}

// rules returns nil for a scheme that is not accepted.
func (s Scheme) rules() rules {
	switch s {
	case Ed25519:
		return ed25519Rules{}
	case Secp256k1:
		return secp256k1Rules{}
	case P256WebAuthn:
		return webAuthnRules{}
	case MLDSA44:
		return mldsa44Rules{}
	case MLDSA65:
		return mldsa65Rules{}
	default:
		return nil
	}
}

// Schemes returns the accepted schemes, ascending.
func Schemes() []Scheme { return []Scheme{Ed25519, Secp256k1, P256WebAuthn, MLDSA44, MLDSA65} }

// ParseScheme reads the name of an accepted scheme. The error lists what there is.
func ParseScheme(name string) (Scheme, error) {
	names := make([]string, 0, len(Schemes()))
	for _, s := range Schemes() {
		if s.String() == name {
			return s, nil
		}
		names = append(names, s.String())
	}
	return 0, fmt.Errorf("unknown signature scheme %q, want one of %s", name, strings.Join(names, ", "))
}

// String returns the name that ParseScheme reads; for a reserved or unknown scheme, words that it refuses.
func (s Scheme) String() string {
	if r := s.rules(); r != nil {
		return r.name()
	}
	switch s {
	case SLHDSA128s:
		return "slh-dsa-128s (reserved)"
	case SLHDSA128f:
		return "slh-dsa-128f (reserved)"
	default:
		return fmt.Sprintf("scheme %d (unknown)", uint32(s))
	}
}

// Supported tells whether keys of the scheme may stand in a policy.
func (s Scheme) Supported() bool { return s.rules() != nil }

// PublicKeySize is the length of a public key in bytes, 0 for a scheme that is not accepted.
func (s Scheme) PublicKeySize() int {
	if r := s.rules(); r != nil {
		return r.publicKeySize()
	}
	return 0
}

// SignatureSize is the length in bytes of the signatures that a PrivateKey makes, 0 for a scheme that is not accepted. In
// every scheme but P256WebAuthn no other length verifies.
func (s Scheme) SignatureSize() int {
	if r := s.rules(); r != nil {
		return r.signatureSize()
	}
	return 0
}

// MaxSignatureSize is the length in bytes of the longest signature that can verify, 0 for a scheme that is not accepted.
func (s Scheme) MaxSignatureSize() int {
	if r := s.rules(); r != nil {
		return r.maxSignatureSize()
	}
	return 0
}

// Cost is the price of one verification, key parsing included, in tenths of one ed25519 verification; 0 for a scheme
// that is not accepted. Measured as CPU time on amd64 and rounded (37.5, 159, 56 and 111 us gave 10, 42, 15 and 30; P-256
// took 2.3 to 2.6 times as long as ed25519, and the longest assertion more where SHA-256 has no instructions: 30); it is a
// protocol constant, not a measurement, since fees and block limits count with it. BenchmarkVerify measures again.
func (s Scheme) Cost() uint64 {
	if r := s.rules(); r != nil {
		return r.cost()
	}
	return 0
}

// CheckPublicKey is the registration rule: what a public key must be to enter a policy. It is stricter than verification
// on purpose. A key that passes has one encoding, and only the holder of its private key can sign for it; for ed25519
// keys of small order, verification alone would accept signatures that anybody can make.
func CheckPublicKey(s Scheme, key []byte) error {
	r := s.rules()
	if r == nil {
		return fmt.Errorf("%s is not an accepted signature scheme", s)
	}
	if len(key) != r.publicKeySize() {
		return fmt.Errorf("%s public key has %d bytes, want %d", s, len(key), r.publicKeySize())
	}
	if err := r.checkPublicKey(key); err != nil {
		return fmt.Errorf("%s public key %w", s, err)
	}
	return nil
}

// PrivateKey signs. It is a value to copy freely and to use from any goroutine; the zero value signs nothing. Printing
// it with any verb shows the scheme and never the secret.
type PrivateKey struct {
	scheme Scheme
	public []byte
	// The secrets are in closures: fmt prints the unexported fields of other people's structs without asking Format, also
	// through pointers when the verb is wrong, but of a function never more than its address.
	seed func() []byte
	sign func(message []byte) []byte
}

// NewPrivateKey makes the private key of a 32-byte seed: the seed of RFC 8032 for ed25519, of FIPS 204 for ML-DSA, and
// for secp256k1 and P-256 the scalar itself, big-endian, from 1 to n-1. A P256WebAuthn key made so is its own
// authenticator, for KeystoreRelyingParty.
func NewPrivateKey(s Scheme, seed []byte) (PrivateKey, error) {
	r := s.rules()
	if r == nil {
		return PrivateKey{}, fmt.Errorf("%s is not an accepted signature scheme", s)
	}
	if len(seed) != SeedSize {
		return PrivateKey{}, fmt.Errorf("%s private key has %d bytes, want %d", s, len(seed), SeedSize)
	}
	held := [SeedSize]byte(seed)
	public, sign, err := r.newKey(&held)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%s private key %w", s, err)
	}
	return PrivateKey{s, public, func() []byte { return append([]byte(nil), held[:]...) }, sign}, nil
}

// Scheme returns the scheme, 0 for the zero value.
func (k PrivateKey) Scheme() Scheme { return k.scheme }

// Public returns a copy of the public key, nil for the zero value.
func (k PrivateKey) Public() []byte { return append([]byte(nil), k.public...) }

// Seed returns a copy of the secret, nil for the zero value.
func (k PrivateKey) Seed() []byte {
	if k.seed == nil {
		return nil
	}
	return k.seed()
}

// Sign signs a message, in every scheme with the same bytes every time (RFC 8032, RFC 6979, FIPS 204 deterministic).
// The caller puts the domain in front of the message. The only error is that of the zero value.
func (k PrivateKey) Sign(message []byte) ([]byte, error) {
	if k.sign == nil {
		return nil, errors.New("sign with an empty private key")
	}
	return k.sign(message), nil
}

// Format keeps the secret out of logs and error texts whatever verb somebody prints the key with.
func (k PrivateKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s private key", k.scheme) }

// maxPublicKeySize is the longest public key of an accepted scheme, that of ML-DSA-65.
const maxPublicKeySize = 1952
