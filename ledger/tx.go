package ledger

import (
	"crypto/sha256"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Limits of the format itself. The parameters of a network can only be tighter.
const (
	// MaxTxBytes bounds a transaction. 1,000 transfers with memos of 150 bytes are 240 kB; 16 signers with sixteen
	// ML-DSA-65 signatures each would be 848 kB, and have to share fewer.
	MaxTxBytes = 256 << 10
	// MaxOperations is the number of operations in one transaction: at about 80 bytes each they are 80 kB.
	MaxOperations = 1000
	// MaxSigners is the number of accounts that sign one transaction.
	MaxSigners = 16
	// MaxWitnesses is every key of every signer and of the sponsor.
	MaxWitnesses = (MaxSigners + 1) * crypto.MaxPolicyKeys
	// MaxMemoBytes bounds the memo of one operation.
	MaxMemoBytes = 256
	// MaxSignatureBytes leaves room for the largest reserved scheme (SLH-DSA-SHA2-128f: 17,088 bytes).
	MaxSignatureBytes = 20 << 10

	// NonceBytes is the size of a caller-made nonce.
	NonceBytes = 16

	txVersion = 1
)

// Tx is a signed transaction. It is immutable once decoded, and may be shared by goroutines.
type Tx struct {
	Body      Body
	Witnesses []Witness
	Sponsor   *Sponsor // nil: there is none

	raw  []byte      // the whole transaction as received
	body []byte      // the body as received: what the signers signed
	hash crypto.Hash // SHA-256(raw), which is also CometBFT's name for the transaction
	sum  crypto.Hash // SHA-256(body)
}

// Body is the part of a transaction that its signers agree to.
type Body struct {
	Signers    []Signer
	ValidUntil uint64 // Unix seconds of block time from which on the transaction is dead; 0: never
	MaxFee     Amount // in base units of the fee asset
	Operations []Operation
	MaxDeposit Amount         // most that new rows may cost in deposits, in base units of the fee asset
	FeeGranter crypto.Address // pays under a grant to the first signer; zero: nobody does
}

// Sponsor is an account that pays the fee and the deposits in the signers' place. It may be added when they have signed:
// they do not sign over it, it signs over their body ([SponsorPreimage]), and the body's protection from replay is its own.
type Sponsor struct {
	Address    crypto.Address // none of the signers
	MaxFee     Amount         // these two stand in the place of the body's
	MaxDeposit Amount
	Policy     []byte // as of a signer
}

// Signer is an account that agrees to a transaction; the first one pays, unless somebody does in its place. It is
// protected from replay by the next sequence of the account, or by a nonce that is unique among the account's
// transactions with equal ValidUntil.
type Signer struct {
	Address  crypto.Address
	Sequence uint64 // from 1; 0: the nonce stands instead
	Nonce    [NonceBytes]byte
	Policy   []byte // canonical policy; needed the first time that an account signs
}

// Witness is one signature: key number Key of the policy of signer number Signer. The sponsor's number is that behind the
// last signer's.
type Witness struct {
	Signer    uint32
	Key       uint32
	Signature []byte
}

// Operation is one thing that a transaction does. Each kind has its fields, encoding, checks and effect in one place;
// [operationKinds] is the table of them.
type Operation interface {
	// Kind is the number of the operation's arm in the oneof.
	Kind() Kind
	// By is the index of the signer in whose name the operation acts.
	By() uint32
	encode(w *canonical.Writer)
	// validate checks what needs no state. It runs when a transaction is decoded or signed.
	validate(b *Body) error
	// apply takes effect on the state of the block, or says why not.
	apply(x *execution) (OperationResult, Code)
}

// proving is an operation that carries signatures of its own; policyVersion is that of the signer's account.
type proving interface {
	verification(network crypto.Hash, b *Body, policyVersion uint32) []crypto.Check
}

// governing is an operation that may need the change threshold of the signer's policy.
type governing interface{ governs(b *Body) bool }

// Kind numbers a kind of operation.
type Kind uint32

const (
	KindTransfer       Kind = 1
	KindCreateAsset    Kind = 2
	KindSetPolicy      Kind = 3
	KindCreateHold     Kind = 4
	KindPostHold       Kind = 5
	KindVoidHold       Kind = 6
	KindSetAsset       Kind = 7
	KindSetLine        Kind = 8
	KindClawback       Kind = 9
	KindOpenLine       Kind = 10
	KindCloseLine      Kind = 11
	KindSetAccount     Kind = 12
	KindCloseAccount   Kind = 13
	KindSetGrant       Kind = 14
	KindRevokeGrant    Kind = 15
	KindStartRecovery  Kind = 16
	KindCancelRecovery Kind = 17
	KindFinishRecovery Kind = 18
	KindBond           Kind = 19
	KindReleaseBond    Kind = 20
	KindPropose        Kind = 21
	KindApprove        Kind = 22
	KindReactivate     Kind = 23
)

// operationKinds maps the number of a kind to its name and decoder.
var operationKinds = [...]struct {
	name   string
	decode func(r *canonical.Reader) Operation
}{
	KindTransfer:       {"transfer", decodeTransfer},
	KindCreateAsset:    {"create_asset", decodeCreateAsset},
	KindSetPolicy:      {"set_policy", decodeSetPolicy},
	KindCreateHold:     {"create_hold", decodeCreateHold},
	KindPostHold:       {"post_hold", decodePostHold},
	KindVoidHold:       {"void_hold", decodeVoidHold},
	KindSetAsset:       {"set_asset", decodeSetAsset},
	KindSetLine:        {"set_line", decodeSetLine},
	KindClawback:       {"clawback", decodeClawback},
	KindOpenLine:       {"open_line", decodeOpenLine},
	KindCloseLine:      {"close_line", decodeCloseLine},
	KindSetAccount:     {"set_account", decodeSetAccount},
	KindCloseAccount:   {"close_account", decodeCloseAccount},
	KindSetGrant:       {"set_grant", decodeSetGrant},
	KindRevokeGrant:    {"revoke_grant", decodeRevokeGrant},
	KindStartRecovery:  {"start_recovery", decodeStartRecovery},
	KindCancelRecovery: {"cancel_recovery", decodeCancelRecovery},
	KindFinishRecovery: {"finish_recovery", decodeFinishRecovery},
	KindBond:           {"bond", decodeBond},
	KindReleaseBond:    {"release_bond", decodeReleaseBond},
	KindPropose:        {"propose", decodePropose},
	KindApprove:        {"approve", decodeApprove},
	KindReactivate:     {"reactivate", decodeReactivate},
}

// String returns the kind's name, which is its field's name in the .proto.
func (k Kind) String() string {
	if k >= 1 && uint64(k) < uint64(len(operationKinds)) {
		return operationKinds[k].name
	}
	return "unknown"
}

// Decode reads a transaction. It accepts only the canonical encoding: what it accepts, [Body.Encode] and [Assemble]
// write back byte for byte. The error names the field.
//
// raw must not change afterwards.
func Decode(raw []byte) (*Tx, error) {
	if len(raw) > MaxTxBytes {
		return nil, canonical.Errorf("", "transaction of %d bytes, at most %d", len(raw), MaxTxBytes)
	}
	tx := &Tx{raw: raw, hash: sha256.Sum256(raw)}
	r := canonical.NewReader(raw)
	tx.body = r.Bytes(1, "body", MaxTxBytes)
	r.Repeated(2, "witnesses", MaxWitnesses, func(i int, element []byte) error {
		wr := canonical.NewReader(element)
		w := Witness{Signer: wr.Uint32(1, "signer"), Key: wr.Uint32(2, "key"), Signature: wr.Bytes(3, "signature", MaxSignatureBytes)}
		if w.Signature == nil {
			wr.Fail("signature", "missing")
		}
		if i > 0 {
			if p := tx.Witnesses[i-1]; w.Signer < p.Signer || w.Signer == p.Signer && w.Key <= p.Key {
				wr.Fail("", "witnesses do not ascend by signer and key")
			}
		}
		if w.Key >= crypto.MaxPolicyKeys {
			wr.Fail("key", "%d, a policy has at most %d keys", w.Key, crypto.MaxPolicyKeys)
		}
		tx.Witnesses = append(tx.Witnesses, w)
		return wr.Close()
	})
	if message, present := r.Message(3, "sponsor"); present {
		s, err := decodeSponsor(message)
		if err != nil {
			return nil, canonical.In("sponsor", err)
		}
		tx.Sponsor = &s
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	if tx.body == nil {
		return nil, canonical.Errorf("body", "missing")
	}
	body, err := DecodeBody(tx.body)
	if err != nil {
		return nil, canonical.In("body", err)
	}
	tx.Body = *body
	parties := len(body.Signers)
	if tx.Sponsor != nil {
		parties++
		if err := tx.Sponsor.validate(body); err != nil {
			return nil, canonical.In("sponsor", err)
		}
	}
	if n := len(tx.Witnesses); n > 0 && uint64(tx.Witnesses[n-1].Signer) >= uint64(parties) {
		return nil, canonical.Errorf("witnesses", "signer %d, the transaction has %d", tx.Witnesses[n-1].Signer, parties)
	}
	tx.sum = sha256.Sum256(tx.body)
	return tx, nil
}

// DecodeBody reads a body, which is canonical and passes every check that needs no state.
func DecodeBody(raw []byte) (*Body, error) {
	b := &Body{}
	r := canonical.NewReader(raw)
	if v := r.Uint32(1, "version"); !r.Failed() && v != txVersion {
		r.Fail("version", "%d, this ledger knows version %d", v, txVersion)
	}
	r.Repeated(2, "signers", MaxSigners, func(_ int, element []byte) error {
		s, err := decodeSigner(element)
		b.Signers = append(b.Signers, s)
		return err
	})
	b.ValidUntil = r.Uint64(3, "valid_until")
	b.MaxFee = readAmount(r, 4, "max_fee")
	r.Repeated(5, "operations", MaxOperations, func(_ int, element []byte) error {
		or := canonical.NewReader(element)
		kind := or.Next()
		if kind < 1 || kind >= len(operationKinds) {
			or.Fail("", "unknown kind of operation, field %d", kind)
			return or.Close()
		}
		k := operationKinds[kind]
		message, _ := or.Message(kind, k.name)
		if err := or.Close(); err != nil {
			return err
		}
		kr := canonical.NewReader(message)
		op := k.decode(kr)
		b.Operations = append(b.Operations, op)
		return canonical.In(k.name, kr.Close())
	})
	b.MaxDeposit = readAmount(r, 6, "max_deposit")
	b.FeeGranter = readAddress(r, 7, "fee_granter")
	if err := r.Close(); err != nil {
		return nil, err
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, nil
}

func decodeSigner(element []byte) (s Signer, err error) {
	r := canonical.NewReader(element)
	r.Fixed(1, "address", s.Address[:])
	s.Sequence = r.Uint64(2, "sequence")
	nonce := r.OptionalFixed(3, "nonce", s.Nonce[:])
	if !r.Failed() && nonce == (s.Sequence != 0) {
		r.Fail("", "want a sequence or a nonce, and not both")
	}
	s.Policy = r.Bytes(4, "policy", crypto.MaxPolicySize)
	return s, r.Close()
}

func decodeSponsor(message []byte) (s Sponsor, err error) {
	r := canonical.NewReader(message)
	r.Fixed(1, "address", s.Address[:])
	s.MaxFee = readAmount(r, 2, "max_fee")
	s.MaxDeposit = readAmount(r, 3, "max_deposit")
	s.Policy = r.Bytes(4, "policy", crypto.MaxPolicySize)
	return s, r.Close()
}

func (s *Sponsor) encode() []byte {
	w := canonical.NewWriter(nil)
	w.Message(1, s.Address[:])
	w.Bytes(2, s.MaxFee.Bytes())
	w.Bytes(3, s.MaxDeposit.Bytes())
	w.Bytes(4, s.Policy)
	return w.Done()
}

func (s *Sponsor) validate(b *Body) error {
	for _, signer := range b.Signers {
		if signer.Address == s.Address {
			return canonical.Errorf("address", "%s signs the transaction itself", s.Address)
		}
	}
	// Whoever sees a transaction can sponsor it. With less than the signers agree to, it could be made to fail.
	if s.MaxFee.Cmp(b.MaxFee) < 0 {
		return canonical.Errorf("max_fee", "%s, below that of the signers, %s", s.MaxFee, b.MaxFee)
	}
	if s.MaxDeposit.Cmp(b.MaxDeposit) < 0 {
		return canonical.Errorf("max_deposit", "%s, below that of the signers, %s", s.MaxDeposit, b.MaxDeposit)
	}
	if len(s.Policy) != 0 {
		if _, err := crypto.DecodeRegisteredPolicy(s.Policy); err != nil {
			return canonical.In("policy", err)
		}
	}
	return nil
}

// Validate checks what needs no state: counts, duplicates, references to signers, and each operation's own fields.
func (b *Body) Validate() error {
	if len(b.Signers) == 0 {
		return canonical.Errorf("signers", "missing")
	}
	if len(b.Signers) > MaxSigners {
		return canonical.Errorf("signers", "%d, at most %d", len(b.Signers), MaxSigners)
	}
	for i, s := range b.Signers {
		for _, earlier := range b.Signers[:i] {
			if earlier.Address == s.Address {
				return canonical.Errorf(index("signers", i), "%s signs twice", s.Address)
			}
		}
		if s.Sequence == 0 && b.ValidUntil == 0 {
			return canonical.Errorf("valid_until", "missing, a nonce needs it")
		}
		if s.Sequence != 0 && s.Nonce != ([NonceBytes]byte{}) {
			return canonical.Errorf(index("signers", i), "want a sequence or a nonce, and not both")
		}
		if len(s.Policy) != 0 {
			if _, err := crypto.DecodeRegisteredPolicy(s.Policy); err != nil { // its keys are checked with the signatures
				return canonical.In(index("signers", i), canonical.In("policy", err))
			}
		}
	}
	for _, s := range b.Signers {
		if s.Address == b.FeeGranter && b.FeeGranter != (crypto.Address{}) {
			return canonical.Errorf("fee_granter", "%s signs the transaction itself", s.Address)
		}
	}
	if b.ValidUntil > MaxUnixSeconds {
		return canonical.Errorf("valid_until", "%d is later than the year 9999", b.ValidUntil)
	}
	if len(b.Operations) == 0 {
		return canonical.Errorf("operations", "missing")
	}
	if len(b.Operations) > MaxOperations {
		return canonical.Errorf("operations", "%d, at most %d", len(b.Operations), MaxOperations)
	}
	for i, op := range b.Operations {
		if uint64(op.By()) >= uint64(len(b.Signers)) { // unsigned, or 2^31 would pass on 32-bit machines
			return canonical.Errorf(index("operations", i)+"."+op.Kind().String(), "names signer %d, the transaction has %d", op.By(), len(b.Signers))
		}
		if err := op.validate(b); err != nil {
			return canonical.In(index("operations", i), canonical.In(op.Kind().String(), err))
		}
	}
	return nil
}

// Encode writes the canonical body. It panics on a body that does not pass [Body.Validate]: such a body has no encoding.
func (b *Body) Encode() []byte {
	if err := b.Validate(); err != nil {
		panic("encoding an invalid body: " + err.Error())
	}
	return b.encode()
}

func (b *Body) encode() []byte {
	w := canonical.NewWriter(nil)
	w.Uint32(1, txVersion)
	for _, s := range b.Signers {
		sw := canonical.NewWriter(nil)
		sw.Message(1, s.Address[:])
		if s.Sequence != 0 {
			sw.Uint64(2, s.Sequence)
		} else {
			sw.Message(3, s.Nonce[:])
		}
		sw.Bytes(4, s.Policy)
		w.Message(2, sw.Done())
	}
	w.Uint64(3, b.ValidUntil)
	w.Bytes(4, b.MaxFee.Bytes())
	for _, op := range b.Operations {
		kw := canonical.NewWriter(nil)
		op.encode(kw)
		ow := canonical.NewWriter(nil)
		ow.Message(int(op.Kind()), kw.Done())
		w.Message(5, ow.Done())
	}
	w.Bytes(6, b.MaxDeposit.Bytes())
	writeAddress(w, 7, b.FeeGranter)
	return w.Done()
}

// Assemble puts a body, its witnesses and its sponsor, if there is one, together. Witnesses must ascend by signer and key.
func Assemble(body []byte, witnesses []Witness, sponsor *Sponsor) []byte {
	w := canonical.NewWriter(make([]byte, 0, len(body)+80*len(witnesses)+16))
	w.Bytes(1, body)
	for _, x := range witnesses {
		xw := canonical.NewWriter(nil)
		xw.Uint32(1, x.Signer)
		xw.Uint32(2, x.Key)
		xw.Bytes(3, x.Signature)
		w.Message(2, xw.Done())
	}
	if sponsor != nil {
		w.Message(3, sponsor.encode())
	}
	return w.Done()
}

// Payer returns the account that pays the fee and the deposits.
func (tx *Tx) Payer() crypto.Address {
	if tx.Sponsor != nil {
		return tx.Sponsor.Address
	}
	return tx.Body.Payer()
}

// Payer returns the account that pays unless a sponsor does.
func (b *Body) Payer() crypto.Address {
	if b.FeeGranter != (crypto.Address{}) {
		return b.FeeGranter
	}
	return b.Signers[0].Address
}

// limits returns the most that the payer agrees to.
func (tx *Tx) limits() (fee, deposit Amount) {
	if tx.Sponsor != nil {
		return tx.Sponsor.MaxFee, tx.Sponsor.MaxDeposit
	}
	return tx.Body.MaxFee, tx.Body.MaxDeposit
}

// Bytes returns the transaction as received. The caller must not change it.
func (tx *Tx) Bytes() []byte { return tx.raw }

// BodyBytes returns the body as received. The caller must not change it.
func (tx *Tx) BodyBytes() []byte { return tx.body }

// Hash returns SHA-256 of the whole transaction, signatures included: CometBFT's name for it.
func (tx *Tx) Hash() crypto.Hash { return tx.hash }

// ID returns the transaction's id on a network. It does not depend on the signatures.
func (tx *Tx) ID(network crypto.Hash) crypto.Hash { return txID(network, tx.sum) }

// BodyID returns the id that a transaction with this body has on a network.
func BodyID(network crypto.Hash, body []byte) crypto.Hash { return txID(network, sha256.Sum256(body)) }

func txID(network crypto.Hash, bodySum crypto.Hash) crypto.Hash {
	return crypto.DomainTxID.Hash(network[:], bodySum[:])
}

// Preimage returns the bytes that a signer signs: domain, network, hash of the body, policy version as uint32 big-endian.
// The policy version makes every transaction that was signed before a rotation die with it.
func Preimage(network crypto.Hash, body []byte, policyVersion uint32) []byte {
	return preimage(network, sha256.Sum256(body), policyVersion)
}

func preimage(network, bodySum crypto.Hash, policyVersion uint32) []byte {
	p := make([]byte, 0, len(crypto.DomainTx)+32+32+4)
	p = append(p, crypto.DomainTx...)
	p = append(p, network[:]...)
	p = append(p, bodySum[:]...)
	return appendUint32(p, policyVersion)
}

// SponsorPreimage returns the bytes that a sponsor signs: domain, network, hash of the body, hash of its own message, the
// version of its policy as uint32 big-endian.
func SponsorPreimage(network crypto.Hash, body []byte, s *Sponsor, policyVersion uint32) []byte {
	return sponsorPreimage(network, sha256.Sum256(body), s, policyVersion)
}

func sponsorPreimage(network, bodySum crypto.Hash, s *Sponsor, policyVersion uint32) []byte {
	own := sha256.Sum256(s.encode())
	p := make([]byte, 0, len(crypto.DomainSponsor)+32+32+32+4)
	p = append(p, crypto.DomainSponsor...)
	p = append(p, network[:]...)
	p = append(p, bodySum[:]...)
	p = append(p, own[:]...)
	return appendUint32(p, policyVersion)
}
