package reference

import (
	"bytes"
	"crypto/sha256"
	"slices"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

const (
	maxValidators      = 100
	openProposals      = 4     // of one proposer
	allOpenProposals   = 1_000 // and approvals of one
	maxProposalSeconds = 2_678_400
)

// validator is an entry of the set: active, inactive, or former.
type validator struct {
	scheme        uint32
	publicKey     string
	power         uint64
	inactivePower uint64
	tombstoned    uint64
	operator      *address // nil for none
	name          string
	left          uint64
}

// name20 is CometBFT's name for a validator.
type name20 = [20]byte

func (v *validator) address() name20 {
	h := sha256.Sum256([]byte(v.publicKey))
	return name20(h[:20])
}

func (v *validator) active() bool   { return v.power > 0 }
func (v *validator) inactive() bool { return v.inactivePower > 0 }
func (v *validator) present() bool  { return v.active() || v.inactive() }

func (v *validator) operatedBy(a address) bool { return v.operator != nil && *v.operator == a }

// set is the validators in ascending order of scheme and key. It is never changed where it lies.
type set []validator

// missed is how many blocks of a window a validator has not signed.
type missed struct {
	window uint64
	count  uint32
}

type proposal struct {
	proposer        address
	expires, height uint64
	change          []byte
	approvals       []address // ascending
}

// Vote says whether a validator signed the block before.
type Vote struct {
	Validator [20]byte
	Signed    bool
}

func setOf(m *pb.ValidatorSet) (s set) {
	for _, v := range m.Validators {
		s = append(s, validator{v.Scheme, string(v.PublicKey), v.Power, v.InactivePower, v.Tombstoned, accountOf(v.Operator), v.Name, v.Left})
	}
	return s
}

func accountOf(b []byte) *address {
	if len(b) == 0 {
		return nil
	}
	a := address(b)
	return &a
}

func (v *validator) message() *pb.Validator {
	m := &pb.Validator{Scheme: v.scheme, PublicKey: []byte(v.publicKey), Power: v.power, InactivePower: v.inactivePower, Tombstoned: v.tombstoned,
		Name: v.name, Left: v.left}
	if v.operator != nil {
		m.Operator = v.operator[:]
	}
	return m
}

func (s set) row() []byte {
	m := &pb.ValidatorSet{}
	for i := range s {
		m.Validators = append(m.Validators, s[i].message())
	}
	return versioned(marshal(m))
}

func (s set) count(is func(*validator) bool) (n int) {
	for i := range s {
		if is(&s[i]) {
			n++
		}
	}
	return n
}

func (s set) lastActive(v *validator) bool { return v.active() && s.count((*validator).active) == 1 }

// find returns the index of the first entry of which something is true, or -1.
func (s set) find(is func(*validator) bool) int {
	for i := range s {
		if is(&s[i]) {
			return i
		}
	}
	return -1
}

func (s set) named(name []byte) int {
	return s.find(func(v *validator) bool { return v.address() == name20(name) })
}

func (s set) byKey(scheme uint32, key string) int {
	return s.find(func(v *validator) bool { return v.scheme == scheme && v.publicKey == key })
}

// insert puts an entry in its place, which may be that of a former one with its key.
func (s set) insert(v validator) set {
	s = slices.Clone(s)
	if i := s.byKey(v.scheme, v.publicKey); i >= 0 {
		s[i] = v
		return s
	}
	s = append(s, v)
	slices.SortFunc(s, func(a, b validator) int {
		if a.scheme != b.scheme {
			return int(a.scheme) - int(b.scheme)
		}
		return bytes.Compare([]byte(a.publicKey), []byte(b.publicKey))
	})
	return s
}

// moreThanTwoThirds of a sum of at most 100 powers of at most 2^50, twice.
func moreThanTwoThirds(part, whole uint64) bool { return 3*part > 2*whole }

func (l *Ledger) set() set { return *l.sets.get(struct{}{}) }

func (l *Ledger) putSet(s set) { l.sets.put(struct{}{}, &s) }

// params are those in force: a block goes on to its end with those that it began with.
func (l *Ledger) params() *pb.Parameters { return l.inForce }

// next are the parameters of the row, in force from the next block on.
func (l *Ledger) next() *pb.Parameters { return *l.parameters.get(struct{}{}) }

func (l *Ledger) collector() address { return address(l.params().FeeCollector) }

// collects tells whether an account receives the fees, or will.
func (l *Ledger) collects(a address) bool {
	return a == l.collector() || a == address(l.next().FeeCollector)
}

func bondID(operator address) hash { return sum("pacioli.bond.v1\x00", operator[:]) }

func (l *Ledger) bond(x *execution, signer address, o *pb.Bond, result *pb.OperationResult) code {
	id := bondID(signer)
	if l.holds.get(id) != nil {
		return bondExists
	}
	if l.collects(signer) {
		return holdNotPermitted
	}
	debited, credited := lineKey{signer, l.feeAsset}, lineKey{l.collector(), l.feeAsset}
	if c := l.open(x, credited, signer); c != ok {
		return c
	}
	m := amountOf(o.Amount)
	if c := l.move(nil, debited, credited, m); c != ok {
		return c
	}
	l.reserveBond(x, signer, m)
	result.Amount, result.Hold = m.bytes(), id[:]
	return ok
}

func (l *Ledger) reserveBond(x *execution, operator address, m amount) {
	id := bondID(operator)
	h := &hold{from: operator, to: l.collector(), asset: l.feeAsset, amount: m, bond: true}
	l.post(x, lineKey{h.from, h.asset}, counters{debitsPending: m}, h.entry(entryHoldMade, id, false, m))
	l.post(x, lineKey{h.to, h.asset}, counters{creditsPending: m}, h.entry(entryHoldMade, id, true, m))
	l.holds.put(id, h)
}

// endBond ends a bond, which is either posted whole or returned.
func (l *Ledger) endBond(x *execution, operator address, kind uint32) {
	id := bondID(operator)
	h := l.holds.get(id)
	posted := pick(kind == entryHoldPosted, h.amount, amount{})
	back := amount{}.minus(h.amount)
	l.post(x, lineKey{h.from, h.asset}, counters{debitsPending: back, debitsPosted: posted}, h.entry(kind, id, false, h.amount))
	l.post(x, lineKey{h.to, h.asset}, counters{creditsPending: back, creditsPosted: posted}, h.entry(kind, id, true, h.amount))
	l.holds.drop(id)
}

func (l *Ledger) releaseBond(x *execution, signer address, result *pb.OperationResult) code {
	h := l.holds.get(bondID(signer))
	if h == nil {
		return bondMissing
	}
	locked := func(v *validator) bool {
		return v.operatedBy(signer) && (v.present() || v.left+uint64(l.params().BondSeconds) > l.now())
	}
	if l.set().find(locked) >= 0 {
		return bondLocked
	}
	l.endBond(x, signer, entryHoldVoided)
	result.Amount = h.amount.bytes()
	return ok
}

// operates tells whether an account is operator of an active validator.
func (l *Ledger) operates(a address) bool {
	return l.set().find(func(v *validator) bool { return v.active() && v.operatedBy(a) }) >= 0
}

func (l *Ledger) propose(x *execution, signer address, o *pb.Propose, result *pb.OperationResult) code {
	if !l.operates(signer) {
		return notValidator
	}
	if o.Expires <= l.now() || o.Expires > l.now()+maxProposalSeconds {
		return proposalExpiryOutOfRange
	}
	own := 0
	for _, id := range l.inOrder() {
		switch p := l.proposals.get(id); {
		case p.expires <= l.now():
			l.dropProposal(id)
		case p.proposer == signer:
			own++
		}
	}
	if own >= openProposals || len(l.inOrder()) >= allOpenProposals {
		return proposalsFull
	}
	mark := l.undo.mark()
	if c := l.enact(o.Change); c != ok {
		return c
	}
	l.undo.back(mark)

	id := sum("pacioli.proposal.v1\x00", x.id[:], u32(x.operation))
	change := marshal(withoutProof(o.Change))
	l.proposals.put(id, &proposal{proposer: signer, expires: o.Expires, height: l.height, change: change, approvals: []address{signer}})
	order := append(slices.Clone(l.inOrder()), id)
	l.order.put(struct{}{}, &order)
	result.Proposal = id[:]
	return l.decide(id, result)
}

func (l *Ledger) approve(signer address, o *pb.Approve, result *pb.OperationResult) code {
	if !l.operates(signer) {
		return notValidator
	}
	id := hash(o.Proposal)
	p := l.proposals.get(id)
	if p == nil {
		return proposalUnknown
	}
	if p.expires <= l.now() {
		return proposalExpired
	}
	if slices.Contains(p.approvals, signer) != o.Withdraw {
		return unchanged
	}
	if !o.Withdraw && len(p.approvals) >= allOpenProposals {
		return proposalsFull
	}
	p = l.proposals.edit(id)
	if o.Withdraw {
		p.approvals = slices.DeleteFunc(slices.Clone(p.approvals), func(a address) bool { return a == signer })
	} else {
		p.approvals = append(slices.Clone(p.approvals), signer)
		slices.SortFunc(p.approvals, func(a, b address) int { return bytes.Compare(a[:], b[:]) })
	}
	if len(p.approvals) == 0 {
		l.dropProposal(id)
		return ok
	}
	return l.decide(id, result)
}

// decide enacts a proposal that has the power.
func (l *Ledger) decide(id hash, result *pb.OperationResult) code {
	p := l.proposals.get(id)
	var approving, all uint64
	for _, v := range l.set() {
		all += v.power
		if v.operator != nil && slices.Contains(p.approvals, *v.operator) {
			approving += v.power
		}
	}
	if !moreThanTwoThirds(approving, all) {
		return ok
	}
	var change pb.Change
	if !canonical(p.change, &change) {
		panic("a proposal is not canonical")
	}
	if c := l.enact(&change); c != ok {
		return c
	}
	l.dropProposal(id)
	result.Executed = true
	return ok
}

// inOrder returns the open proposals in the order in which they were made.
func (l *Ledger) inOrder() []hash {
	if order := l.order.get(struct{}{}); order != nil {
		return *order
	}
	return nil
}

func (l *Ledger) dropProposal(id hash) {
	l.proposals.drop(id)
	order := slices.DeleteFunc(slices.Clone(l.inOrder()), func(other hash) bool { return other == id })
	if len(order) == 0 {
		l.order.drop(struct{}{})
	} else {
		l.order.put(struct{}{}, &order)
	}
}

func (l *Ledger) reactivate(signer address) code {
	s := slices.Clone(l.set())
	i := s.find(func(v *validator) bool { return v.inactive() && v.operatedBy(signer) })
	if i < 0 {
		return validatorNotInactive
	}
	s[i].power, s[i].inactivePower, s[i].left = s[i].inactivePower, 0, 0
	l.putSet(s)
	return l.sound()
}

// withoutProof is a change as it stands in the state.
func withoutProof(c *pb.Change) *pb.Change {
	switch k := c.Kind.(type) {
	case *pb.Change_AddValidator:
		a := k.AddValidator
		return &pb.Change{Kind: &pb.Change_AddValidator{AddValidator: &pb.AddValidator{Operator: a.Operator, Scheme: a.Scheme, PublicKey: a.PublicKey,
			Power: a.Power, Name: a.Name}}}
	case *pb.Change_RotateKey:
		r := k.RotateKey
		return &pb.Change{Kind: &pb.Change_RotateKey{RotateKey: &pb.RotateKey{Validator: r.Validator, Operator: r.Operator, Scheme: r.Scheme, PublicKey: r.PublicKey}}}
	}
	return c
}

// enact carries a change out, or tells why it cannot be.
func (l *Ledger) enact(c *pb.Change) code {
	s := slices.Clone(l.set())
	switch k := c.Kind.(type) {
	case *pb.Change_AddValidator:
		a := k.AddValidator
		operator := address(a.Operator)
		if s.find(func(v *validator) bool { return v.present() && v.operatedBy(operator) }) >= 0 || l.taken(s, a.Scheme, a.PublicKey, operator) {
			return validatorExists
		}
		if l.params().Bond > 0 {
			if h := l.holds.get(bondID(operator)); h == nil || units(l.params().Bond).above(h.amount) {
				return bondMissing
			}
		}
		s, roomy := l.room(s, a.Scheme, a.PublicKey)
		if !roomy {
			return validatorSetFull
		}
		l.putSet(s.insert(validator{scheme: a.Scheme, publicKey: string(a.PublicKey), power: a.Power, operator: &operator, name: a.Name}))
	case *pb.Change_RemoveValidator:
		i := s.named(k.RemoveValidator.Validator)
		if i < 0 || !s[i].present() {
			return validatorUnknown
		}
		l.leave(s, i)
		l.putSet(s)
	case *pb.Change_SetPower:
		i := s.named(k.SetPower.Validator)
		if i < 0 || !s[i].active() {
			return validatorUnknown
		}
		if s[i].power == k.SetPower.Power {
			return unchanged
		}
		s[i].power = k.SetPower.Power
		l.putSet(s)
	case *pb.Change_RotateKey:
		r := k.RotateKey
		i := s.named(r.Validator)
		if i < 0 || !s[i].present() || !s[i].operatedBy(address(r.Operator)) {
			return validatorUnknown
		}
		if l.taken(s, r.Scheme, r.PublicKey, address(r.Operator)) {
			return validatorExists
		}
		fresh := s[i]
		fresh.scheme, fresh.publicKey, fresh.tombstoned = r.Scheme, string(r.PublicKey), 0
		s, roomy := l.room(s, r.Scheme, r.PublicKey)
		if !roomy {
			return validatorSetFull
		}
		i = s.named(r.Validator)
		l.leave(s, i)
		l.putSet(s.insert(fresh))
	case *pb.Change_SetParameters:
		return l.setParameters(k.SetParameters)
	}
	return l.sound()
}

// taken tells whether a key is not free for a new entry of an operator.
func (l *Ledger) taken(s set, scheme uint32, key []byte, operator address) bool {
	i := s.byKey(scheme, string(key))
	if i < 0 {
		return false
	}
	waits := s[i].left+uint64(l.params().BondSeconds) > l.now()
	return s[i].present() || s[i].tombstoned > 0 || waits && !s[i].operatedBy(operator)
}

// room makes room for a key in a full set.
func (l *Ledger) room(s set, scheme uint32, key []byte) (set, bool) {
	if len(s) < maxValidators || s.byKey(scheme, string(key)) >= 0 {
		return s, true
	}
	goes := -1
	for i, v := range s {
		if !v.present() && v.left+uint64(l.params().BondSeconds) <= l.now() && (goes < 0 || v.left < s[goes].left) {
			goes = i
		}
	}
	if goes < 0 {
		return s, false
	}
	return slices.Delete(slices.Clone(s), goes, goes+1), true
}

// leave makes a validator a former one, in a set that is the caller's own.
func (l *Ledger) leave(s set, i int) {
	s[i].power, s[i].inactivePower, s[i].left = 0, 0, l.now()
	l.forgetMissed(s[i].address())
}

func (l *Ledger) forgetMissed(name name20) {
	if l.missed.get(name) != nil {
		l.missed.drop(name)
	}
}

// sound tells what is wrong with the set after a change.
func (l *Ledger) sound() code {
	var total, kept uint64
	for _, v := range l.set() {
		total += v.power
		kept += min(v.power, l.powers[v.address()])
	}
	if total == 0 {
		return validatorSetEmpty
	}
	if !moreThanTwoThirds(kept, total) {
		return validatorQuorumLost
	}
	for _, v := range l.set() {
		if v.active() && v.power >= total/3 && 3*v.power < total {
			return validatorPowersUnsound
		}
	}
	return ok
}

func (l *Ledger) setParameters(o *pb.SetParameters) code {
	now := versioned(marshal(l.next()))
	if before := sha256.Sum256(now); !bytes.Equal(before[:], o.Before) {
		return parametersChanged
	}
	p := o.Parameters
	collector := address(p.FeeCollector)
	if assetID(p.FeeAsset) != l.feeAsset || l.isClosed(collector) || collector == pool || l.assets.get(l.feeAsset).issuer == collector || l.holds.get(bondID(collector)) != nil || p.MaxTxBytes < 32768 && p.MaxTxBytes < l.next().MaxTxBytes {
		return parametersInvalid
	}
	if bytes.Equal(versioned(marshal(p)), now) {
		return unchanged
	}
	l.parameters.put(struct{}{}, &p)
	return ok
}

// The end of a block.

// punish takes the place and the bond of who is named by evidence.
func (l *Ledger) punish(evidence [][20]byte) {
	var guilty []address // with bonds
	for i := range l.set() {
		v := l.set()[i]
		if !slices.Contains(evidence, v.address()) || v.tombstoned > 0 || l.set().lastActive(&v) {
			continue
		}
		l.tombstone(i)
		if v.operator == nil {
			continue
		}
		for j, other := range l.set() {
			if other.present() && other.operatedBy(*v.operator) && !l.set().lastActive(&other) {
				l.tombstone(j)
			}
		}
		if l.holds.get(bondID(*v.operator)) != nil && !slices.Contains(guilty, *v.operator) {
			guilty = append(guilty, *v.operator)
		}
	}
	for _, operator := range guilty {
		l.endBond(nil, operator, entryHoldPosted)
	}
}

func (l *Ledger) tombstone(i int) {
	s := slices.Clone(l.set())
	if s[i].present() {
		l.leave(s, i)
	}
	s[i].tombstoned = l.height
	l.putSet(s)
}

// countMissed counts who did not sign the block before, and takes the power of who does not any more.
func (l *Ledger) countMissed(votes []Vote) {
	w := uint64(l.params().MissedWindow)
	if w == 0 {
		return
	}
	for i := range l.set() {
		s := slices.Clone(l.set())
		v := &s[i]
		name := v.address()
		if !v.active() || !slices.Contains(votes, Vote{name, false}) {
			continue
		}
		now := missed{window: (l.height - 1) / w}
		count := uint64(1)
		if row := l.missed.get(name); row != nil && row.window == now.window {
			count += uint64(row.count)
		}
		var power, all uint64
		for j, other := range s {
			all += other.power + other.inactivePower
			if j != i {
				power += other.power
			}
		}
		if count > uint64(l.params().MaxMissed) && v.operator != nil && s.count((*validator).active)-1 >= 4 && moreThanTwoThirds(power, all) {
			v.power, v.inactivePower, v.left = 0, v.power, l.now()
			l.forgetMissed(name)
			l.putSet(s)
			continue
		}
		now.count = uint32(min(count, 1<<32-1))
		l.missed.put(name, &now)
	}
}

// updates are the validators whose power the block has changed, in the order of the set.
func (l *Ledger) updates() (changed []*pb.Validator) {
	all := l.set()
	for _, v := range l.began {
		if all.byKey(v.scheme, v.publicKey) < 0 {
			v.power = 0
			all = all.insert(v)
		}
	}
	for _, v := range all {
		if v.power != l.powers[v.address()] {
			changed = append(changed, v.message())
		}
	}
	return changed
}

// The form of the operations.

func changeStands(c *pb.Change) bool {
	if c == nil {
		return false
	}
	key := func(scheme uint32, key, proof []byte) bool {
		return (scheme == 1 || scheme == 5) && len(key) == schemes[scheme].keyBytes && len(proof) >= 1 && len(proof) <= maxSignature
	}
	power := func(p uint64) bool { return p >= 1 && p <= 1<<50 }
	switch k := c.Kind.(type) {
	case *pb.Change_AddValidator:
		a := k.AddValidator
		return isAddress(a.Operator) && key(a.Scheme, a.PublicKey, a.Proof) && power(a.Power) && nameStands(a.Name)
	case *pb.Change_RemoveValidator:
		return len(k.RemoveValidator.Validator) == 20
	case *pb.Change_SetPower:
		return len(k.SetPower.Validator) == 20 && power(k.SetPower.Power)
	case *pb.Change_RotateKey:
		r := k.RotateKey
		return len(r.Validator) == 20 && isAddress(r.Operator) && key(r.Scheme, r.PublicKey, r.Proof)
	case *pb.Change_SetParameters:
		return len(k.SetParameters.Before) == 32 && parametersStand(k.SetParameters.Parameters)
	}
	return false
}

func isAddress(b []byte) bool { return len(b) == 32 && isOptional(b, 32) }

func nameStands(name string) bool {
	if len(name) > 64 {
		return false
	}
	for _, r := range name {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}

func parametersStand(p *pb.Parameters) bool {
	if p == nil || len(p.FeeAsset) != 16 || len(p.FeeCollector) != 32 || len(p.AssetCreators) > 256 {
		return false
	}
	for i, a := range p.AssetCreators {
		if len(a) != 32 || i > 0 && bytes.Compare(p.AssetCreators[i-1], a) >= 0 {
			return false
		}
	}
	in := func(n, least, most uint64) bool { return n >= least && n <= most }
	for _, price := range []uint64{p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature, p.DepositAccount, p.DepositLine, p.DepositHold,
		p.DepositGrant, p.FeeTargetWeight, p.Bond} {
		if price > 1<<40 {
			return false
		}
	}
	if p.MissedWindow == 0 {
		if p.MaxMissed != 0 {
			return false
		}
	} else if !in(uint64(p.MissedWindow), 10, 100_000) || !in(uint64(p.MaxMissed), 1, uint64(p.MissedWindow)-1) {
		return false
	}
	return in(uint64(p.MaxTxBytes), 1_024, 262_144) && in(uint64(p.ReplayWindowSeconds), 1, 86_400) && in(p.MaxOpenNonces, 1, 1<<32-1) &&
		in(uint64(p.MaxHoldSeconds), 1, 315_360_000) && in(uint64(p.MaxExpiries), 1, 10_000) && in(uint64(p.MaxFeeMultiplier), 1_000, 1_000_000) &&
		in(uint64(p.BondSeconds), 1, 31_622_400)
}

// newKey is the consensus key that an operation brings, with the operator it is for; nil for none.
func newKey(o *pb.Operation) (scheme uint32, key, proof, operator []byte) {
	c := o.GetPropose().GetChange()
	if a := c.GetAddValidator(); a != nil {
		return a.Scheme, a.PublicKey, a.Proof, a.Operator
	}
	if r := c.GetRotateKey(); r != nil {
		return r.Scheme, r.PublicKey, r.Proof, r.Operator
	}
	return 0, nil, nil, nil
}
