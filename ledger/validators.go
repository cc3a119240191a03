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

	// maxConsensusKeyBytes is the longest consensus key that a row can have.
	maxConsensusKeyBytes = 4096
)

// ConsensusAddress is CometBFT's name for a validator: the first 20 bytes of the SHA-256 of its consensus key.
type ConsensusAddress [20]byte

// Validator is a member of the validator set, present or past. It is active with power, inactive when it has lost its power
// by missing blocks and can have it back, and else former.
type Validator struct {
	Scheme        crypto.Scheme // Ed25519 or MLDSA65
	PublicKey     []byte
	Power         uint64         // 0: CometBFT's set does not have it
	Tombstoned    uint64         // height at which it was removed for equivocation; 0: it was not
	Operator      crypto.Address // who acts for it; zero: nobody, by genesis
	Name          string
	InactivePower uint64 // what it gets back when it is inactive; 0: it is not
	Left          uint64 // Unix second at which it became inactive or former; 0 while it is active
}

// Active tells whether the validator has power.
func (v Validator) Active() bool { return v.Power > 0 }

// Inactive tells whether the validator has lost its power by missing blocks, and can have it back.
func (v Validator) Inactive() bool { return v.InactivePower > 0 }

// Present tells whether the validator is active or inactive.
func (v Validator) Present() bool { return v.Active() || v.Inactive() }

// Status says in a word what the validator is: active, inactive, tombstoned or former.
func (v Validator) Status() string {
	switch {
	case v.Active():
		return "active"
	case v.Inactive():
		return "inactive"
	case v.Tombstoned != 0:
		return "tombstoned"
	}
	return "former"
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
		writeAddress(vw, 5, v.Operator)
		vw.String(6, v.Name)
		vw.Uint64(7, v.InactivePower)
		vw.Uint64(8, v.Left)
		w.Message(1, vw.Done())
	}
	return w.Done()
}

// DecodeValidators reads the validators' row. They are in ascending order of scheme and key.
func DecodeValidators(value []byte) (set []Validator, err error) {
	r := openRow(value)
	r.Repeated(1, "validators", MaxValidators, func(_ int, element []byte) error {
		vr := canonical.NewReader(element)
		v := Validator{Scheme: crypto.Scheme(vr.Uint32(1, "scheme")), PublicKey: vr.Bytes(2, "public_key", maxConsensusKeyBytes)}
		v.Power = vr.Uint64(3, "power")
		v.Tombstoned = vr.Uint64(4, "tombstoned")
		v.Operator = readAddress(vr, 5, "operator")
		v.Name = vr.String(6, "name", MaxValidatorNameBytes)
		v.InactivePower = vr.Uint64(7, "inactive_power")
		v.Left = vr.Uint64(8, "left")
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

// setCopy returns the set, which the caller may change.
func (s *state) setCopy() []Validator {
	set, _ := s.validators.get(struct{}{})
	return slices.Clone(set)
}

// named returns the place of the validator with a consensus address, -1 when there is none.
func named(set []Validator, a ConsensusAddress) int {
	return slices.IndexFunc(set, func(v Validator) bool { return v.Address() == a })
}

// operated returns the place of an operator's present validator, of which there is at most one; -1 when there is none.
func operated(set []Validator, operator crypto.Address) int {
	if operator == (crypto.Address{}) {
		return -1
	}
	return slices.IndexFunc(set, func(v Validator) bool { return v.Operator == operator && v.Present() })
}

// votes tells whether an account is the operator of an active validator.
func (b *Block) votes(operator crypto.Address) bool {
	set, _ := b.state.validators.get(struct{}{})
	i := operated(set, operator)
	return i >= 0 && set[i].Active()
}

// leave makes a present validator a former one.
func (v *Validator) leave(now uint64) { v.Power, v.InactivePower, v.Left = 0, 0, now }

// keyFree tells why a consensus key cannot enter the set: it is there, or was removed for equivocation, or evidence of what it
// did for another operator, or for none, may still come and would cost the new one the bond.
func (b *Block) keyFree(set []Validator, added Validator) Code {
	i, found := slices.BinarySearchFunc(set, added, compareValidators)
	switch {
	case !found:
		return OK
	case set[i].Present() || set[i].Tombstoned != 0:
		return ValidatorExists
	case set[i].Operator != added.Operator && b.answers(set[i]):
		return ValidatorExists
	}
	return OK
}

// answers tells whether evidence against a validator may still cost its operator the bond.
func (b *Block) answers(v Validator) bool {
	return v.Present() || v.Left+uint64(b.params.BondSeconds) > b.now()
}

// placed returns the set with one more entry, in the place of the former one of its key; in a full set, in the place of the
// one that has been out for longest, if its operator's bond need not wait for evidence any more.
func (b *Block) placed(set []Validator, added Validator) ([]Validator, Code) {
	i, found := slices.BinarySearchFunc(set, added, compareValidators)
	if found {
		set[i] = added
		return set, OK
	}
	if len(set) >= MaxValidators {
		oldest := -1
		for i, v := range set {
			if !b.answers(v) && (oldest < 0 || v.Left < set[oldest].Left) {
				oldest = i
			}
		}
		if oldest < 0 {
			return nil, ValidatorSetFull
		}
		set = slices.Delete(set, oldest, oldest+1)
		i, _ = slices.BinarySearchFunc(set, added, compareValidators)
	}
	return slices.Insert(set, i, added), OK
}

// replaceSet puts a changed set in the place of the present one, unless the chain could not go on with it.
func (b *Block) replaceSet(set []Validator) Code {
	var total, active, known uint64 // powers are at most 100 times 2^50
	begun := b.state.validators.cell(struct{}{}).first
	for _, v := range set {
		total += v.Power
		if v.Active() {
			active++
		}
		if i, found := slices.BinarySearchFunc(begun, v, compareValidators); found {
			known += min(v.Power, begun[i].Power)
		}
	}
	switch {
	case active == 0:
		return ValidatorSetEmpty
	case 3*known <= 2*total:
		return ValidatorQuorumLost
	}
	if _, unsound := UnsoundPower(set); unsound {
		return ValidatorPowersUnsound
	}
	b.state.putSet(set)
	return OK
}

// UnsoundPower returns the first validator that CometBFT takes for a third of the total, in integer division, though it has less: it then
// never lets it fetch old blocks. Votes cannot make such a set. Evidence and missed blocks can, as what they do to a set has to
// happen whatever is left: see docs/PROTOCOL.md.
func UnsoundPower(set []Validator) (v Validator, unsound bool) {
	var total uint64 // at most 100 times 2^50
	for _, v := range set {
		total += v.Power
	}
	for _, v := range set {
		if v.Active() && v.Power >= total/3 && 3*v.Power < total {
			return v, true
		}
	}
	return Validator{}, false
}

// putSet writes the set. The missed blocks of who is not active any more are forgotten.
func (s *state) putSet(set []Validator) {
	before, _ := s.validators.get(struct{}{})
	for _, v := range before {
		if i, found := slices.BinarySearchFunc(set, v, compareValidators); v.Active() && !(found && set[i].Active()) {
			if a := v.Address(); s.hasMissed(a) {
				s.missed.remove(a)
			}
		}
	}
	s.validators.put(struct{}{}, set)
}

func (s *state) hasMissed(a ConsensusAddress) bool {
	_, ok := s.missed.get(a)
	return ok
}

// punish removes every validator that is named by evidence, once, with the one that its operator has now, and posts the
// operator's bond. CometBFT stops for good when a block's updates name a key twice, name one that is not in the set, or
// leave the set empty; evidence can repeat a validator within a block and name one that is long gone. So each named
// validator is looked up in the ledger's own set, and the last one with power keeps it: a chain with one proven liar can be
// mended by its operators, a halted one only by hand.
func (b *Block) punish(evidence []Misbehavior) {
	if len(evidence) == 0 {
		return
	}
	set, changed := b.state.setCopy(), false
	last := func(i int) bool {
		others := 0
		for j, v := range set {
			if j != i && v.Active() {
				others++
			}
		}
		return set[i].Active() && others == 0
	}
	tombstone := func(i int) {
		if set[i].Tombstoned, changed = b.header.Height, true; set[i].Present() {
			set[i].leave(b.now())
		}
	}
	var guilty []crypto.Address
	for i, v := range set {
		address := v.Address()
		named := slices.ContainsFunc(evidence, func(m Misbehavior) bool { return m.Validator == address })
		if !named || set[i].Tombstoned != 0 || last(i) {
			continue
		}
		tombstone(i)
		if j := operated(set, v.Operator); j >= 0 && !last(j) { // which has another key now
			tombstone(j)
		}
		guilty = append(guilty, v.Operator)
	}
	if changed {
		b.state.putSet(set)
	}
	for _, operator := range guilty {
		id := BondID(operator)
		if bond, ok := b.state.holds.get(id); ok {
			b.resolve(id, bond, EntryPost, bond.Amount, cause{})
		}
	}
}

// updates returns what the block has changed of the powers: the difference between its beginning and its end, key by key.
// However it came about, no key stands there twice, and none with power 0 that CometBFT does not have.
func (s *state) updates() (changed []Validator) {
	if len(s.validators.changed) == 0 {
		return nil
	}
	c := s.validators.cell(struct{}{})
	before, after := c.first, c.value
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && compareValidators(before[0], after[0]) < 0:
			if v := before[0]; v.Power != 0 { // a former one has power 0 and makes room, so this does not come
				v.Power = 0
				changed = append(changed, v)
			}
			before = before[1:]
		case len(before) == 0 || compareValidators(after[0], before[0]) < 0:
			if after[0].Power != 0 {
				changed = append(changed, after[0])
			}
			after = after[1:]
		default:
			if before[0].Power != after[0].Power {
				changed = append(changed, after[0])
			}
			before, after = before[1:], after[1:]
		}
	}
	return changed
}
