package crypto

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Limits of a policy.
const (
	// MaxPolicyKeys is enough for a board, and bounds one signer's verifications at 16 times the dearest scheme.
	MaxPolicyKeys = 16

	// MaxKeyWeight keeps every sum of weights within 16*65535, so uint32 arithmetic never overflows.
	MaxKeyWeight = 1<<16 - 1

	// MaxPolicySize is the longest encoding, in bytes: a threshold of at most 16*65535 takes 1 byte of tag and 3 of
	// varint; a key takes 1+1 for the scheme, 1+2 and 1952 (ML-DSA-65) for the public key, 1+3 for the weight, and
	// 1+2 in front of it as an element.
	MaxPolicySize = (1 + 3) + MaxPolicyKeys*((1+2)+(1+1)+(1+2+1952)+(1+3))
)

// Key is one key of a policy with what its signature weighs.
type Key struct {
	Scheme Scheme
	Public []byte
	Weight uint32 // 1 to 65535
}

// Policy says whose signatures act for an account: any set of its keys whose weights add up to the threshold. Mixed
// schemes make hybrid accounts; a 2-of-2 of a classical and a post-quantum key stands as long as one of them does.
//
// A Policy is valid when it comes from NewPolicy, SingleKey or DecodePolicy. It is read-only from then on, so any number of
// goroutines may share it.
type Policy struct {
	Threshold uint32
	Keys      []Key // strictly ascending by scheme, then public key bytes
}

// NewPolicy makes a policy, sorting the keys. The caller's keys are copied.
func NewPolicy(threshold uint32, keys ...Key) (Policy, error) {
	p := Policy{Threshold: threshold, Keys: slices.Clone(keys)}
	for i := range p.Keys {
		p.Keys[i].Public = bytes.Clone(p.Keys[i].Public)
	}
	slices.SortStableFunc(p.Keys, compareKeys)
	if err := p.Check(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// SingleKey makes the policy of an ordinary account: one key, which suffices.
func SingleKey(s Scheme, public []byte) (Policy, error) {
	return NewPolicy(1, Key{Scheme: s, Public: public, Weight: 1})
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Scheme, b.Scheme), bytes.Compare(a.Public, b.Public))
}

// Check tells whether the policy may be registered. Errors are *canonical.Error and name the field, as "keys[1].weight".
func (p Policy) Check() error {
	if err := p.checkForm(); err != nil {
		return err
	}
	for i, k := range p.Keys {
		if err := CheckPublicKey(k.Scheme, k.Public); err != nil {
			return keyError(i, "public_key", "%v", err)
		}
	}
	return nil
}

// checkForm is Check without the arithmetic on keys.
func (p Policy) checkForm() error {
	if len(p.Keys) == 0 {
		return canonical.Errorf("keys", "none, want at least 1")
	}
	if len(p.Keys) > MaxPolicyKeys {
		return canonical.Errorf("keys", "%d, at most %d", len(p.Keys), MaxPolicyKeys)
	}
	var sum uint32 // at most 16*65535, no overflow
	for i, k := range p.Keys {
		if !k.Scheme.Supported() {
			return keyError(i, "scheme", "%s is not an accepted signature scheme", k.Scheme)
		}
		if len(k.Public) != k.Scheme.PublicKeySize() {
			return keyError(i, "public_key", "%d bytes, want %d for %s", len(k.Public), k.Scheme.PublicKeySize(), k.Scheme)
		}
		if k.Weight < 1 || k.Weight > MaxKeyWeight {
			return keyError(i, "weight", "%d, want 1 to %d", k.Weight, MaxKeyWeight)
		}
		sum += k.Weight
		if i > 0 {
			switch c := compareKeys(p.Keys[i-1], k); {
			case c == 0:
				return keyError(i, "public_key", "stands twice")
			case c > 0:
				return canonical.Errorf("keys", "not in ascending order at %d", i)
			}
		}
	}
	if p.Threshold < 1 {
		return canonical.Errorf("threshold", "0, want at least 1")
	}
	if p.Threshold > sum {
		return canonical.Errorf("threshold", "%d, but all keys together weigh %d: nobody could ever sign", p.Threshold, sum)
	}
	return nil
}

func keyError(i int, field, format string, args ...any) error {
	return canonical.In(fmt.Sprintf("keys[%d]", i), canonical.Errorf(field, format, args...))
}

// Encode returns the canonical bytes, which DecodePolicy reads:
//
//	Policy { uint32 threshold = 1; repeated Key keys = 2; }
//	Key    { uint32 scheme = 1; bytes public_key = 2; uint32 weight = 3; }
func (p Policy) Encode() []byte {
	w := canonical.NewWriter(nil)
	w.Uint32(1, p.Threshold)
	for _, k := range p.Keys {
		kw := canonical.NewWriter(nil)
		kw.Uint32(1, uint32(k.Scheme))
		kw.Bytes(2, k.Public)
		kw.Uint32(3, k.Weight)
		w.Message(2, kw.Done())
	}
	return w.Done()
}

// DecodePolicy reads a policy and checks it. What it accepts, Encode writes back byte for byte. It keeps no part of b.
// For an ed25519 key the check costs as much as a verification.
func DecodePolicy(b []byte) (Policy, error) {
	p, err := DecodeRegisteredPolicy(b)
	if err != nil {
		return Policy{}, err
	}
	if err := p.Check(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// DecodeRegisteredPolicy is DecodePolicy without CheckPublicKey, for bytes that DecodePolicy accepted when they entered
// the state: the caller read them from there, or has compared their hash with one from there. Bytes from anybody else go
// through DecodePolicy, or an account may be opened that everybody can sign for.
func DecodeRegisteredPolicy(b []byte) (Policy, error) {
	if len(b) > MaxPolicySize {
		return Policy{}, canonical.Errorf("", "policy has %d bytes, at most %d", len(b), MaxPolicySize)
	}
	var p Policy
	r := canonical.NewReader(b)
	p.Threshold = r.Uint32(1, "threshold")
	r.Repeated(2, "keys", MaxPolicyKeys, func(_ int, element []byte) error {
		kr := canonical.NewReader(element)
		k := Key{Scheme: Scheme(kr.Uint32(1, "scheme"))}
		k.Public = bytes.Clone(kr.Bytes(2, "public_key", maxPublicKeySize))
		k.Weight = kr.Uint32(3, "weight")
		p.Keys = append(p.Keys, k)
		return kr.Close()
	})
	if err := r.Close(); err != nil {
		return Policy{}, err
	}
	if err := p.checkForm(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// Hash returns the hash of the encoding under DomainAddress.
func (p Policy) Hash() Hash { return DomainAddress.Hash(p.Encode()) }

// Address returns the address of an account that begins with this policy. The address stays when the policy is replaced.
func (p Policy) Address() Address { return Address(p.Hash()) }

// Equal tells whether two policies have the same encoding.
func (p Policy) Equal(q Policy) bool { return bytes.Equal(p.Encode(), q.Encode()) }
