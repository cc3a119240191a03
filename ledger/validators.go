package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Limits of the validator set.
const (
	// MaxValidators keeps the evidence of a light-client attack by a third of ML-DSA-65 validators below CometBFT's
	// limit of 1 MiB: 100 of them make 604 kB.
	MaxValidators = 100
	// MaxValidatorPower keeps the total below CometBFT's MaxInt64/8 with room for a hundredfold.
	MaxValidatorPower = 1 << 50
)

// ConsensusAddress is CometBFT's name for a validator: the first 20 bytes of the SHA-256 of its consensus key.
type ConsensusAddress [20]byte

// Validator is a member of the validator set, present or past.
type Validator struct {
	Scheme     crypto.Scheme // Ed25519 or MLDSA65
	PublicKey  []byte
	Power      uint64 // 0: not in the set
	Tombstoned uint64 // height at which it was removed for equivocation; 0: it was not
}

// Address returns CometBFT's name for the validator.
func (v Validator) Address() ConsensusAddress {
	sum := sha256.Sum256(v.PublicKey)
	return ConsensusAddress(sum[:20])
}

// Misbehavior is evidence, as CometBFT reports it, that a validator broke the rules of consensus.
type Misbehavior struct {
	Validator ConsensusAddress
	Height    uint64 // at which it did
}

func encodeValidators(set []Validator) []byte {
	w := writeRow()
	for _, v := range set {
		vw := canonical.NewWriter(nil)
		vw.Uint32(1, uint32(v.Scheme))
		vw.Bytes(2, v.PublicKey)
		vw.Uint64(3, v.Power)
		vw.Uint64(4, v.Tombstoned)
		w.Message(1, vw.Done())
	}
	return w.Done()
}

// DecodeValidators reads the validators' row. They are in ascending order of scheme and key.
func DecodeValidators(value []byte) (set []Validator, err error) {
	r := openRow(value)
	r.Repeated(1, "validators", MaxValidators, func(_ int, element []byte) error {
		vr := canonical.NewReader(element)
		v := Validator{Scheme: crypto.Scheme(vr.Uint32(1, "scheme")), PublicKey: vr.Bytes(2, "public_key", 4096)}
		v.Power = vr.Uint64(3, "power")
		v.Tombstoned = vr.Uint64(4, "tombstoned")
		set = append(set, v)
		return vr.Close()
	})
	return set, r.Close()
}

func compareValidators(a, b Validator) int {
	if a.Scheme != b.Scheme {
		return int(a.Scheme) - int(b.Scheme)
	}
	return bytes.Compare(a.PublicKey, b.PublicKey)
}

// checkValidators checks a whole set, as genesis gives it: sorted here, no duplicates, powers in range, known schemes.
func checkValidators(set []Validator) ([]Validator, error) {
	if len(set) == 0 {
		return nil, fmt.Errorf("no validators, want 1 to %d", MaxValidators)
	}
	if len(set) > MaxValidators {
		return nil, fmt.Errorf("%d validators, at most %d", len(set), MaxValidators)
	}
	set = slices.SortedFunc(slices.Values(set), compareValidators)
	for i, v := range set {
		if v.Scheme != crypto.Ed25519 && v.Scheme != crypto.MLDSA65 {
			return nil, fmt.Errorf("validator %x: scheme %s, want ed25519 or ml-dsa-65", v.Address(), v.Scheme)
		}
		if len(v.PublicKey) != v.Scheme.PublicKeySize() {
			return nil, fmt.Errorf("validator %x: key of %d bytes, want %d", v.Address(), len(v.PublicKey), v.Scheme.PublicKeySize())
		}
		if v.Power == 0 || v.Power > MaxValidatorPower {
			return nil, fmt.Errorf("validator %x: power %d, want 1 to %d", v.Address(), v.Power, uint64(MaxValidatorPower))
		}
		if v.Tombstoned != 0 {
			return nil, fmt.Errorf("validator %x: tombstoned at %d, before the first block", v.Address(), v.Tombstoned)
		}
		if i > 0 && compareValidators(set[i-1], v) == 0 {
			return nil, fmt.Errorf("validator %x stands twice", v.Address())
		}
	}
	return set, nil
}

// punish takes the power of every validator that is named by evidence, once, and returns those it changed in the order
// of the set. CometBFT stops for good when a block's updates name a key twice, name one that is not in the set, or leave
// the set empty; evidence can repeat a validator within a block and name one that is long gone. So each named validator
// is looked up in the ledger's own set, and the last one with power keeps it: a chain with one proven liar can be mended
// by its operators, a halted one only by hand.
func (s *state) punish(height uint64, evidence []Misbehavior) []Validator {
	if len(evidence) == 0 {
		return nil
	}
	set, _ := s.validators.get(struct{}{})
	set = slices.Clone(set)
	left := 0
	for _, v := range set {
		if v.Power > 0 {
			left++
		}
	}
	var updates []Validator
	for i, v := range set {
		address := v.Address()
		named := slices.ContainsFunc(evidence, func(m Misbehavior) bool { return m.Validator == address })
		if !named || v.Power == 0 || left == 1 {
			continue
		}
		left--
		set[i].Power, set[i].Tombstoned = 0, height
		updates = append(updates, set[i])
	}
	if updates != nil {
		s.validators.put(struct{}{}, set)
	}
	return updates
}
