package ledger

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Limits of proposals. With them no row of theirs can grow beyond what decodes.
const (
	// MinVotedTxBytes is the least to which a vote can lower max_tx_bytes: with less, operators whose policies have several ML-DSA keys
	// could not vote to mend it. It is a rule of the vote and not of [Parameters.Check], by which rows are decoded.
	MinVotedTxBytes = 32 << 10
	// MaxProposalSeconds is how long a proposal can be open: 31 days.
	MaxProposalSeconds = 2_678_400
	// MaxProposalsEach is the number of one operator's open proposals.
	MaxProposalsEach = 4
	// MaxProposals is the number of all open proposals, those of operators that were removed since included: 75 kB in one row.
	MaxProposals = 1000
	// MaxApprovals is the number of a proposal's approvals, those of operators that were removed since included: 34 kB.
	MaxApprovals = 1000
)

// Propose proposes a change to the operators of the validators, and approves it. See [Approve] for when it takes effect.
type Propose struct {
	Signer  uint32 // the operator of an active validator
	Expires uint64 // Unix second from which on the proposal is dead
	Change  Change
}

func (p *Propose) Kind() Kind { return KindPropose }
func (p *Propose) By() uint32 { return p.Signer }

func decodePropose(r *canonical.Reader) Operation {
	p := &Propose{Signer: r.Uint32(1, "signer"), Expires: r.Uint64(2, "expires")}
	message, present := r.Message(3, "change")
	if !present {
		r.Fail("change", "missing")
		return p
	}
	var err error
	if p.Change, err = decodeChange(message, true); err != nil {
		r.Fail("change", "%s", err)
	}
	return p
}

func (p *Propose) encode(w *canonical.Writer) {
	w.Uint32(1, p.Signer)
	w.Uint64(2, p.Expires)
	if p.Change != nil {
		w.Message(3, encodeChange(p.Change, true))
	}
}

func (p *Propose) validate(*Body) error {
	switch {
	case p.Expires == 0:
		return canonical.Errorf("expires", "missing, every proposal ends")
	case p.Expires > MaxUnixSeconds:
		return canonical.Errorf("expires", "%d is later than the year 9999", p.Expires)
	case p.Change == nil:
		return canonical.Errorf("change", "missing")
	}
	if err := checkChange(p.Change, true); err != nil {
		return canonical.In("change", canonical.In(p.Change.Kind().String(), err))
	}
	return nil
}

// verification returns the checks of a new consensus key and of the proof that somebody holds it. Without them a mistyped
// key, or one that others hold too, would get power.
func (p *Propose) verification(network crypto.Hash, _ *Body, _ uint32) []crypto.Check {
	k := p.Change.broughtKey()
	if k == nil {
		return nil
	}
	return []crypto.Check{
		{Scheme: k.scheme, PublicKey: k.publicKey, KeyOnly: true},
		{Scheme: k.scheme, PublicKey: k.publicKey, Message: ConsensusKeyPreimage(network, k.operator, k.scheme, k.publicKey), Signature: k.proof},
	}
}

// ProposalID returns the id of the proposal that an operation of a transaction makes.
func ProposalID(txID crypto.Hash, operation uint32) crypto.Hash {
	return crypto.DomainProposal.Hash(txID[:], appendUint32(nil, operation))
}

// Proposal is an open proposal.
type Proposal struct {
	Proposer  crypto.Address
	Expires   uint64           // Unix second
	Height    uint64           // at which it was made
	Change    Change           // without the proof of a new key, which was verified when it was proposed
	Approvals []crypto.Address // ascending; also of operators that have no active validator any more
}

func (p Proposal) encode() []byte {
	w := writeRow()
	w.Message(1, p.Proposer[:])
	w.Uint64(2, p.Expires)
	w.Uint64(3, p.Height)
	w.Bytes(4, encodeChange(p.Change, false))
	for _, a := range p.Approvals {
		w.Message(5, a[:])
	}
	return w.Done()
}

// DecodeProposal reads an open proposal's row.
func DecodeProposal(value []byte) (p Proposal, err error) {
	r := openRow(value)
	r.Fixed(1, "proposer", p.Proposer[:])
	p.Expires = r.Uint64(2, "expires")
	p.Height = r.Uint64(3, "height")
	change := r.Bytes(4, "change", maxChangeBytes)
	r.Repeated(5, "approvals", MaxApprovals, func(i int, element []byte) error {
		var a crypto.Address
		if len(element) != len(a) {
			return canonical.Errorf("", "%d bytes, want %d", len(element), len(a))
		}
		copy(a[:], element)
		if i > 0 && compareAddresses(p.Approvals[i-1], a) >= 0 {
			return canonical.Errorf("", "approvals do not ascend at %s", a)
		}
		p.Approvals = append(p.Approvals, a)
		return nil
	})
	if err := r.Close(); err != nil {
		return p, err
	}
	if p.Change, err = decodeChange(change, false); err != nil {
		return p, canonical.In("change", err)
	}
	return p, nil
}

// ListedProposal is an open proposal in the list of them.
type ListedProposal struct {
	ID       crypto.Hash
	Expires  uint64 // Unix second
	Proposer crypto.Address
}

func encodeProposals(list []ListedProposal) []byte {
	w := writeRow()
	for _, p := range list {
		pw := canonical.NewWriter(nil)
		pw.Message(1, p.ID[:])
		pw.Uint64(2, p.Expires)
		pw.Message(3, p.Proposer[:])
		w.Message(1, pw.Done())
	}
	return w.Done()
}

// DecodeProposals reads the row that lists the open proposals, in the order in which they were made.
func DecodeProposals(value []byte) (list []ListedProposal, err error) {
	r := openRow(value)
	r.Repeated(1, "proposals", MaxProposals, func(_ int, element []byte) error {
		var p ListedProposal
		pr := canonical.NewReader(element)
		pr.Fixed(1, "proposal", p.ID[:])
		p.Expires = pr.Uint64(2, "expires")
		pr.Fixed(3, "proposer", p.Proposer[:])
		list = append(list, p)
		return pr.Close()
	})
	return list, r.Close()
}

func hashRow(value []byte) crypto.Hash { return sha256.Sum256(value) }

func (p *Propose) apply(x *execution) (OperationResult, Code) {
	signer := x.account(p.Signer)
	if !x.votes(signer) {
		return OperationResult{}, NotValidator
	}
	if now := x.now(); p.Expires <= now || p.Expires > now+MaxProposalSeconds {
		return OperationResult{}, ProposalExpiryOutOfRange
	}
	x.state.dropProposals(func(l ListedProposal) bool { return l.Expires <= x.now() })
	list, _ := x.state.proposalList.get(struct{}{})
	own := 0
	for _, l := range list {
		if l.Proposer == signer {
			own++
		}
	}
	if own >= MaxProposalsEach || len(list) >= MaxProposals {
		return OperationResult{}, ProposalsFull
	}
	if code := x.enactable(p.Change); code != OK {
		return OperationResult{}, code
	}
	id := ProposalID(x.id, x.operation)
	x.state.proposalList.put(struct{}{}, append(slices.Clone(list), ListedProposal{ID: id, Expires: p.Expires, Proposer: signer}))
	proposal := Proposal{Proposer: signer, Expires: p.Expires, Height: x.header.Height, Change: p.Change, Approvals: []crypto.Address{signer}}
	executed, code := x.decide(id, proposal)
	return OperationResult{Proposal: id, Executed: executed}, code
}

// enactable tells whether a change could be made now, without making it.
func (b *Block) enactable(c Change) Code {
	before := b.state.savepoint()
	code := c.enact(b)
	b.state.undo(before)
	return code
}

// decide makes a proposal's change when more than two thirds of the power is for it, and else keeps the proposal.
func (b *Block) decide(id crypto.Hash, p Proposal) (executed bool, code Code) {
	var power, all uint64 // at most 100 times 2^50
	set, _ := b.state.validators.get(struct{}{})
	for _, v := range set {
		all += v.Power
		if _, approved := slices.BinarySearchFunc(p.Approvals, v.Operator, compareAddresses); approved && v.Operator != (crypto.Address{}) {
			power += v.Power
		}
	}
	if 3*power <= 2*all {
		b.state.proposals.put(id, p)
		return false, OK
	}
	if code := p.Change.enact(b); code != OK {
		return false, code
	}
	b.state.proposals.remove(id)
	b.state.dropProposals(func(l ListedProposal) bool { return l.ID == id })
	return true, OK
}

// dropProposals removes open proposals.
func (s *state) dropProposals(drop func(ListedProposal) bool) {
	list, _ := s.proposalList.get(struct{}{})
	var kept []ListedProposal
	for _, l := range list {
		if drop(l) {
			s.proposals.remove(l.ID)
		} else {
			kept = append(kept, l)
		}
	}
	switch {
	case len(kept) == len(list):
	case len(kept) == 0:
		s.proposalList.remove(struct{}{})
	default:
		s.proposalList.put(struct{}{}, kept)
	}
}

// enact of the changes of the set, in the order in which their rules are written in docs/PROTOCOL.md.

func (c *AddValidator) enact(b *Block) Code {
	set := b.state.setCopy()
	if operated(set, c.Operator) >= 0 {
		return ValidatorExists
	}
	added := Validator{Scheme: c.Scheme, PublicKey: c.PublicKey, Power: c.Power, Operator: c.Operator, Name: c.Name}
	if code := b.keyFree(set, added); code != OK {
		return code
	}
	if bond, ok := b.state.holds.get(BondID(c.Operator)); b.params.Bond > 0 && (!ok || bond.Amount.Cmp(Units(b.params.Bond)) < 0) {
		return BondMissing
	}
	set, code := b.placed(set, added)
	if code != OK {
		return code
	}
	return b.replaceSet(set)
}

func (c *RemoveValidator) enact(b *Block) Code {
	set := b.state.setCopy()
	i := named(set, c.Validator)
	if i < 0 || !set[i].Present() {
		return ValidatorUnknown
	}
	set[i].leave(b.now())
	return b.replaceSet(set)
}

func (c *SetPower) enact(b *Block) Code {
	set := b.state.setCopy()
	i := named(set, c.Validator)
	switch {
	case i < 0 || !set[i].Active():
		return ValidatorUnknown
	case set[i].Power == c.Power:
		return Unchanged
	}
	set[i].Power = c.Power
	return b.replaceSet(set)
}

func (c *RotateKey) enact(b *Block) Code {
	set := b.state.setCopy()
	i := named(set, c.Validator)
	if i < 0 || !set[i].Present() || set[i].Operator != c.Operator {
		return ValidatorUnknown
	}
	old := set[i]
	rotated := Validator{Scheme: c.Scheme, PublicKey: c.PublicKey, Power: old.Power, InactivePower: old.InactivePower, Left: old.Left,
		Operator: old.Operator, Name: old.Name}
	if code := b.keyFree(set, rotated); code != OK {
		return code
	}
	set[i].leave(b.now())
	set, code := b.placed(set, rotated)
	if code != OK {
		return code
	}
	return b.replaceSet(set)
}

func (c *SetParameters) enact(b *Block) Code {
	row := b.nextParameters()
	switch p := c.Parameters; {
	case hashRow(row.encode()) != c.Before:
		return ParametersChanged
	case p.FeeAsset != row.FeeAsset || !b.mayCollect(p.FeeCollector) || p.MaxTxBytes < min(row.MaxTxBytes, MinVotedTxBytes):
		return ParametersInvalid
	case bytes.Equal(p.encode(), row.encode()):
		return Unchanged
	}
	b.state.params.put(struct{}{}, c.Parameters)
	return OK
}

// nextParameters returns the parameters of the next block. This block goes on with those with which it began.
func (b *Block) nextParameters() Parameters {
	p, _ := b.state.params.get(struct{}{})
	return p
}

// collects tells whether an account receives the fees of this block or of the next.
func (b *Block) collects(a crypto.Address) bool {
	return a == b.params.FeeCollector || a == b.nextParameters().FeeCollector
}

// mayCollect tells whether an account can receive fees from now on.
func (b *Block) mayCollect(a crypto.Address) bool {
	account, _ := b.state.accounts.get(a)
	asset, _ := b.state.asset(b.params.FeeAsset)
	_, bonded := b.state.holds.get(BondID(a))
	return account.Flags&AccountClosedFlag == 0 && a != asset.Issuer && a != b.pool && !bonded
}
