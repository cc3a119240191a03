package ledger

import (
	"unicode"
	"unicode/utf8"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// What the operators of validators can decide together: see propose.go and approve.go.

// MaxValidatorNameBytes bounds what a validator is called.
const MaxValidatorNameBytes = 64

// maxChangeBytes bounds an encoded change: parameters with 256 creators are 9 kB, a key and its proof 24 kB.
const maxChangeBytes = 32 << 10

// ChangeKind is the number of a change's arm in the oneof.
type ChangeKind uint32

const (
	ChangeAddValidator    ChangeKind = 1
	ChangeRemoveValidator ChangeKind = 2
	ChangeSetPower        ChangeKind = 3
	ChangeRotateKey       ChangeKind = 4
	ChangeSetParameters   ChangeKind = 5
)

var changeKinds = [...]string{ChangeAddValidator: "add_validator", ChangeRemoveValidator: "remove_validator", ChangeSetPower: "set_power",
	ChangeRotateKey: "rotate_key", ChangeSetParameters: "set_parameters"}

// String returns the name of the change's field in the .proto.
func (k ChangeKind) String() string {
	if k >= 1 && uint64(k) < uint64(len(changeKinds)) {
		return changeKinds[k]
	}
	return "unknown"
}

// Change is what a proposal would change: an [*AddValidator], [*RemoveValidator], [*SetPower], [*RotateKey] or
// [*SetParameters].
type Change interface {
	Kind() ChangeKind
	// encode writes the fields, the proof of a new key only when it is asked for: in a transaction, and not in a row.
	encode(w *canonical.Writer, proof bool)
	// validate checks what needs no state, the proof left aside.
	validate() error
	// broughtKey returns the consensus key that the change brings in; nil: none.
	broughtKey() *broughtKey
	// enact makes the change, or says why it cannot be made.
	enact(b *Block) Code
}

// broughtKey is a consensus key that nobody has proven to hold but by its proof.
type broughtKey struct {
	operator  crypto.Address
	scheme    crypto.Scheme
	publicKey []byte
	proof     []byte
}

// AddValidator brings a validator into the set.
type AddValidator struct {
	Operator  crypto.Address // who acts for it
	Scheme    crypto.Scheme  // Ed25519 or MLDSA65
	PublicKey []byte
	Power     uint64 // 1 to MaxValidatorPower
	Name      string // at most MaxValidatorNameBytes; for people
	Proof     []byte // a signature over ConsensusKeyPreimage by the key; nil in a row
}

func (c *AddValidator) Kind() ChangeKind { return ChangeAddValidator }

// RemoveValidator takes a validator out of the set.
type RemoveValidator struct{ Validator ConsensusAddress }

func (c *RemoveValidator) Kind() ChangeKind { return ChangeRemoveValidator }

// SetPower gives a validator with power another one.
type SetPower struct {
	Validator ConsensusAddress
	Power     uint64 // 1 to MaxValidatorPower
}

func (c *SetPower) Kind() ChangeKind { return ChangeSetPower }

// RotateKey puts another consensus key in the place of a validator's. The old one stays its operator's, for evidence.
type RotateKey struct {
	Validator ConsensusAddress
	Operator  crypto.Address // the validator's, which the proof names
	Scheme    crypto.Scheme
	PublicKey []byte
	Proof     []byte
}

func (c *RotateKey) Kind() ChangeKind { return ChangeRotateKey }

// SetParameters puts other parameters in force, from the next block on.
type SetParameters struct {
	Before     crypto.Hash // SHA-256 of the value of the parameters' row that this replaces
	Parameters Parameters
}

func (c *SetParameters) Kind() ChangeKind { return ChangeSetParameters }

// ParametersHash returns what names the parameters that a [SetParameters] replaces: SHA-256 of their row's value.
func ParametersHash(row []byte) crypto.Hash { return hashRow(row) }

// EncodeChange writes a change as it stands in a transaction.
func EncodeChange(c Change) []byte { return encodeChange(c, true) }

func encodeChange(c Change, proof bool) []byte {
	kw := canonical.NewWriter(nil)
	c.encode(kw, proof)
	w := canonical.NewWriter(nil)
	w.Message(int(c.Kind()), kw.Done())
	return w.Done()
}

// decodeChange reads a change that stands in a transaction, or, without the proof of a new key, in a row.
func decodeChange(message []byte, proof bool) (Change, error) {
	or := canonical.NewReader(message)
	kind := ChangeKind(or.Next())
	if kind < 1 || int(kind) >= len(changeKinds) {
		or.Fail("", "unknown kind of change, field %d", kind)
		return nil, or.Close()
	}
	inner, _ := or.Message(int(kind), kind.String())
	if err := or.Close(); err != nil {
		return nil, err
	}
	r := canonical.NewReader(inner)
	readProof := func(number int) (p []byte) {
		if proof {
			p = r.Bytes(number, "proof", MaxSignatureBytes)
		}
		return p
	}
	var c Change
	switch kind {
	case ChangeAddValidator:
		a := &AddValidator{}
		r.Fixed(1, "operator", a.Operator[:])
		a.Scheme = crypto.Scheme(r.Uint32(2, "scheme"))
		a.PublicKey = r.Bytes(3, "public_key", maxConsensusKeyBytes)
		a.Power = r.Uint64(4, "power")
		a.Name = r.String(5, "name", MaxValidatorNameBytes)
		a.Proof = readProof(6)
		c = a
	case ChangeRemoveValidator:
		v := &RemoveValidator{}
		r.Fixed(1, "validator", v.Validator[:])
		c = v
	case ChangeSetPower:
		p := &SetPower{}
		r.Fixed(1, "validator", p.Validator[:])
		p.Power = r.Uint64(2, "power")
		c = p
	case ChangeRotateKey:
		k := &RotateKey{}
		r.Fixed(1, "validator", k.Validator[:])
		r.Fixed(2, "operator", k.Operator[:])
		k.Scheme = crypto.Scheme(r.Uint32(3, "scheme"))
		k.PublicKey = r.Bytes(4, "public_key", maxConsensusKeyBytes)
		k.Proof = readProof(5)
		c = k
	case ChangeSetParameters:
		p := &SetParameters{}
		r.Fixed(1, "before", p.Before[:])
		if message, present := r.Message(2, "parameters"); present {
			var err error
			if p.Parameters, err = readParameters(canonical.NewReader(message)); err != nil {
				r.Fail("parameters", "%s", err)
			}
		} else {
			r.Fail("parameters", "missing")
		}
		c = p
	}
	if err := r.Close(); err != nil {
		return nil, canonical.In(kind.String(), err)
	}
	if err := checkChange(c, proof); err != nil {
		return nil, canonical.In(kind.String(), err)
	}
	return c, nil
}

func checkChange(c Change, proof bool) error {
	if err := c.validate(); err != nil {
		return err
	}
	if k := c.broughtKey(); k != nil && proof && (len(k.proof) == 0 || len(k.proof) > MaxSignatureBytes) {
		return canonical.Errorf("proof", "%d bytes, want 1 to %d", len(k.proof), MaxSignatureBytes)
	}
	return nil
}

func (c *AddValidator) encode(w *canonical.Writer, proof bool) {
	w.Message(1, c.Operator[:])
	w.Uint32(2, uint32(c.Scheme))
	w.Bytes(3, c.PublicKey)
	w.Uint64(4, c.Power)
	w.String(5, c.Name)
	if proof {
		w.Bytes(6, c.Proof)
	}
}

func (c *RemoveValidator) encode(w *canonical.Writer, _ bool) { w.Message(1, c.Validator[:]) }

func (c *SetPower) encode(w *canonical.Writer, _ bool) {
	w.Message(1, c.Validator[:])
	w.Uint64(2, c.Power)
}

func (c *RotateKey) encode(w *canonical.Writer, proof bool) {
	w.Message(1, c.Validator[:])
	w.Message(2, c.Operator[:])
	w.Uint32(3, uint32(c.Scheme))
	w.Bytes(4, c.PublicKey)
	if proof {
		w.Bytes(5, c.Proof)
	}
}

func (c *SetParameters) encode(w *canonical.Writer, _ bool) {
	w.Message(1, c.Before[:])
	pw := canonical.NewWriter(nil)
	c.Parameters.write(pw)
	w.Message(2, pw.Done())
}

func (c *AddValidator) validate() error {
	if err := checkNewKey(c.broughtKey()); err != nil {
		return err
	}
	if err := checkPower(c.Power); err != nil {
		return err
	}
	return checkValidatorName(c.Name)
}

func (c *RemoveValidator) validate() error { return nil }
func (c *SetPower) validate() error        { return checkPower(c.Power) }
func (c *RotateKey) validate() error       { return checkNewKey(c.broughtKey()) }

func (c *SetParameters) validate() error {
	if err := c.Parameters.Check(); err != nil {
		return canonical.Errorf("parameters", "%s", err)
	}
	return nil
}

func checkPower(power uint64) error {
	if power == 0 || power > MaxValidatorPower {
		return canonical.Errorf("power", "%d, want 1 to %d", power, uint64(MaxValidatorPower))
	}
	return nil
}

func checkNewKey(k *broughtKey) error {
	switch {
	case k.operator == (crypto.Address{}):
		return canonical.Errorf("operator", "an address of zeros, which is nobody's")
	case k.scheme != crypto.Ed25519 && k.scheme != crypto.MLDSA65:
		return canonical.Errorf("scheme", "%d, want %d or %d", k.scheme, crypto.Ed25519, crypto.MLDSA65)
	case len(k.publicKey) != k.scheme.PublicKeySize():
		return canonical.Errorf("public_key", "%d bytes, want %d", len(k.publicKey), k.scheme.PublicKeySize())
	}
	return nil
}

// checkValidatorName keeps out what would garble a terminal or a log.
func checkValidatorName(name string) error {
	switch {
	case len(name) > MaxValidatorNameBytes:
		return canonical.Errorf("name", "%d bytes, at most %d", len(name), MaxValidatorNameBytes)
	case !utf8.ValidString(name):
		return canonical.Errorf("name", "not valid UTF-8")
	}
	for _, c := range name {
		if unicode.IsControl(c) {
			return canonical.Errorf("name", "has the control character U+%04X", c)
		}
	}
	return nil
}

func (c *AddValidator) broughtKey() *broughtKey {
	return &broughtKey{c.Operator, c.Scheme, c.PublicKey, c.Proof}
}
func (c *RemoveValidator) broughtKey() *broughtKey { return nil }
func (c *SetPower) broughtKey() *broughtKey        { return nil }
func (c *RotateKey) broughtKey() *broughtKey {
	return &broughtKey{c.Operator, c.Scheme, c.PublicKey, c.Proof}
}
func (c *SetParameters) broughtKey() *broughtKey { return nil }

// ConsensusKeyPreimage returns the bytes that a new consensus key signs to prove that somebody holds it, for one operator
// on one network: domain, network, operator, scheme as uint32 big-endian, public key. No vote of CometBFT begins so.
func ConsensusKeyPreimage(network crypto.Hash, operator crypto.Address, scheme crypto.Scheme, publicKey []byte) []byte {
	p := make([]byte, 0, len(crypto.DomainValidator)+32+32+4+len(publicKey))
	p = append(p, crypto.DomainValidator...)
	p = append(p, network[:]...)
	p = append(p, operator[:]...)
	return append(appendUint32(p, uint32(scheme)), publicKey...)
}
