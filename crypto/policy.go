package crypto

import (
	"bytes"
	"cmp"
	"crypto/sha256"
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

	// MinRecoveryDelay and MaxRecoveryDelay bound the seconds between the start of a recovery and its effect: below an
	// hour nobody would see it coming, above a year nobody would live to use it.
	MinRecoveryDelay = 3_600
	MaxRecoveryDelay = 31_536_000

	// MaxPolicySize is the longest encoding, in bytes: each threshold, of at most 16*65535, takes 1 byte of tag and 3 of
	// varint; a key takes 1+1 for the scheme, 1+2 and 1952 (ML-DSA-65) for the public key, 1+3 for the weight, and
	// 1+2 in front of it as an element; the recovery account takes 1+1 and 32, its delay 1+4.
	MaxPolicySize = 2*(1+3) + MaxPolicyKeys*((1+2)+(1+1)+(1+2+1952)+(1+3)) + (1 + 1 + 32) + (1 + 4)
)

// Key is one key of a policy with what its signature weighs.
type Key struct {
	Scheme Scheme
	Public []byte
	Weight uint32 // 1 to 65535
}

// MaxSignatureSize is the length in bytes of the longest signature by this key that a wallet has to reckon with. For keys
// that a PrivateKey holds it is exact, also for the one scheme without a fixed size: nothing but a PrivateKey makes assertions
// for its relying party.
func (k Key) MaxSignatureSize() int {
	keystore := sha256.Sum256([]byte(KeystoreRelyingParty))
	if k.Scheme == P256WebAuthn && bytes.HasSuffix(k.Public, keystore[:]) {
		return k.Scheme.SignatureSize()
	}
	return k.Scheme.MaxSignatureSize()
}

// Policy says whose signatures act for an account: any set of its keys whose weights add up to the threshold. Mixed
// schemes make hybrid accounts; a 2-of-2 of a classical and a post-quantum key stands as long as one of them does.
//
// To pay and to hand the account over are different dangers, so a policy may ask for more weight to change itself, and may
// name another account that can bring this one back when its keys are lost.
//
// A Policy is valid when it comes from NewPolicy, SingleKey, the With methods or DecodePolicy. It is read-only from then on,
// so any number of goroutines may share it.
type Policy struct {
	Threshold uint32
	Keys      []Key // strictly ascending by scheme, then public key bytes

	// ChangeThreshold is the weight that changes the policy; 0 when it is Threshold, and otherwise above it. ForChange
	// answers for both. A lower one would let fewer keys take the account than may spend from it.
	ChangeThreshold uint32

	Recovery *Recovery // nil: lost keys lose the account
}

// Recovery names the account that may replace a policy whose keys are lost or stolen. The delay is the time that the keys
// have to object, so an unfaithful recovery account gets nothing from an owner who looks in time.
type Recovery struct {
	Account      Address // not zero
	DelaySeconds uint32  // MinRecoveryDelay to MaxRecoveryDelay
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

// WithChangeThreshold returns the policy with another weight that changes it: from Threshold, which is what a policy has
// without this, to the sum of the weights.
func (p Policy) WithChangeThreshold(weight uint32) (Policy, error) {
	if p.ChangeThreshold = weight; weight == p.Threshold {
		p.ChangeThreshold = 0 // the one encoding of "the same"
	} else if weight == 0 {
		return Policy{}, canonical.Errorf("change_threshold", "0, want %d or more", p.Threshold)
	}
	if err := p.Check(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// WithRecovery returns the policy with a recovery account, and the seconds from the start of a recovery to its effect.
func (p Policy) WithRecovery(account Address, delaySeconds uint32) (Policy, error) {
	p.Recovery = &Recovery{Account: account, DelaySeconds: delaySeconds}
	if err := p.Check(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// ForChange returns the weight that it takes to change the policy: to replace it, to close the account, to cancel a recovery.
// It is never below Threshold.
func (p Policy) ForChange() uint32 { return max(p.Threshold, p.ChangeThreshold) }

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
	if p.ChangeThreshold != 0 && p.ChangeThreshold <= p.Threshold {
		return canonical.Errorf("change_threshold", "%d, want more than the threshold %d, or none where it is the same",
			p.ChangeThreshold, p.Threshold)
	}
	if p.ChangeThreshold > sum {
		return canonical.Errorf("change_threshold", "%d, but all keys together weigh %d: nobody could ever change the policy",
			p.ChangeThreshold, sum)
	}
	if r := p.Recovery; r != nil {
		if r.Account == (Address{}) {
			return canonical.Errorf("recovery_account", "all zero: nobody could ever recover")
		}
		if r.DelaySeconds < MinRecoveryDelay || r.DelaySeconds > MaxRecoveryDelay {
			return canonical.Errorf("recovery_delay", "%d seconds, want %d to %d", r.DelaySeconds, MinRecoveryDelay, MaxRecoveryDelay)
		}
	}
	return nil
}

func keyError(i int, field, format string, args ...any) error {
	return canonical.In(fmt.Sprintf("keys[%d]", i), canonical.Errorf(field, format, args...))
}

// Encode returns the canonical bytes, which DecodePolicy reads:
//
//	Policy { uint32 threshold = 1; repeated Key keys = 2; uint32 change_threshold = 3;
//	         bytes recovery_account = 4; uint32 recovery_delay = 5; }
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
	w.Uint32(3, p.ChangeThreshold)
	if r := p.Recovery; r != nil {
		w.Bytes(4, r.Account[:])
		w.Uint32(5, r.DelaySeconds)
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
	p.ChangeThreshold = r.Uint32(3, "change_threshold")
	var recovery Recovery
	named := r.OptionalFixed(4, "recovery_account", recovery.Account[:])
	recovery.DelaySeconds = r.Uint32(5, "recovery_delay")
	switch {
	case named:
		p.Recovery = &recovery
	case recovery.DelaySeconds != 0:
		r.Fail("recovery_account", "missing beside a recovery delay")
	}
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
