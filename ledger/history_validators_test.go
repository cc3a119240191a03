package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// What histories do with the validator set.

// ruling draw operations about the validator set.
var ruling = []func(*history) []step{
	(*history).bond, (*history).bond, (*history).releaseBond, (*history).releaseBond,
	(*history).propose, (*history).propose, (*history).propose, (*history).propose, (*history).propose,
	(*history).approve, (*history).approve, (*history).approve, (*history).approve, (*history).approve, (*history).approve,
	(*history).reactivate,
}

// vote says whether a validator signed the block before.
type vote struct {
	validator [20]byte
	signed    bool
}

func consensusAddress(key []byte) [20]byte {
	h := sha256.Sum256(key)
	return [20]byte(h[:20])
}

func (h *history) parameters() *pb.Parameters {
	m, _ := row(h, &pb.Parameters{}, []byte{0x40})
	return m
}

func (h *history) validators() []*pb.Validator {
	m, _ := row(h, &pb.ValidatorSet{}, []byte{0x60})
	return m.Validators
}

// validator draws one of which something is true, if there is any, else any.
func (h *history) validator(is func(*pb.Validator) bool) *pb.Validator {
	all := h.validators()
	if some := slices.DeleteFunc(slices.Clone(all), func(v *pb.Validator) bool { return !is(v) }); len(some) > 0 && !h.oneIn(12) {
		return draw(h.draws, some...)
	}
	return draw(h.draws, all...)
}

func active(v *pb.Validator) bool   { return v.Power > 0 }
func inactive(v *pb.Validator) bool { return v.InactivePower > 0 }
func operated(v *pb.Validator) bool { return v.Operator != nil }

// operators are those of active validators.
func (h *history) operators() (all []*person) {
	for _, v := range h.validators() {
		if active(v) && operated(v) {
			all = append(all, h.byAddress(v.Operator))
		}
	}
	return all
}

// operator draws one of an active validator, if there is any and mostly.
func (h *history) operator() *person {
	if all := h.operators(); len(all) > 0 && !h.oneIn(20) {
		return draw(h.draws, all...)
	}
	return h.someone()
}

func bondOf(a []byte) []byte { return digest("pacioli.bond.v1\x00", a) }

func (h *history) bonded(who *person) bool {
	return h.reference.Row(slices.Concat([]byte{6}, bondOf(who.address))) != nil
}

func (h *history) bond() []step {
	who := draw(h.draws, h.people[h.firstOperator:]...)
	for range 3 {
		if h.bonded(who) && !h.oneIn(4) {
			who = draw(h.draws, h.people[h.firstOperator:]...)
		}
	}
	if h.oneIn(10) {
		who = h.someone()
	}
	if h.oneIn(25) {
		who = h.byAddress(h.parameters().FeeCollector)
	}
	least := h.parameters().Bond
	amount := new(big.Int).SetUint64(draw(h.draws, least, least, least, least+1, max(least, 1)-1, 1)).Bytes()
	if len(amount) == 0 || h.oneIn(8) {
		amount = h.amount(h.available(who, h.eur))
	}
	if h.oneIn(6) {
		h.holds = append(h.holds, bondOf(who.address)) // which somebody will try to resolve
	}
	return []step{{who, func(i uint32) *pb.Operation {
		return &pb.Operation{Kind: &pb.Operation_Bond{Bond: &pb.Bond{Signer: i, Amount: amount}}}
	}}}
}

func (h *history) releaseBond() []step {
	who := draw(h.draws, h.people[h.firstOperator:]...)
	for range 8 {
		operating := slices.ContainsFunc(h.validators(), func(v *pb.Validator) bool {
			return (active(v) || inactive(v) || v.Left+uint64(h.parameters().BondSeconds) > h.now()) && bytes.Equal(v.Operator, who.address)
		})
		if h.bonded(who) && (!operating || h.oneIn(6)) {
			break
		}
		who = draw(h.draws, h.people[h.firstOperator:]...)
	}
	if !h.bonded(who) && !h.oneIn(6) {
		return h.bond()
	}
	return []step{{who, func(i uint32) *pb.Operation {
		return &pb.Operation{Kind: &pb.Operation_ReleaseBond{ReleaseBond: &pb.ReleaseBond{Signer: i}}}
	}}}
}

// consensusKey draws a key that has no entry, mostly, and its proof by who is to operate it.
func (h *history) consensusKey(operator []byte) (scheme uint32, key, proof []byte) {
	for range 6 {
		n := h.below(16)
		scheme = []uint32{1, 1, 5}[n%3]
		key = h.ring.public(scheme, fmt.Sprintf("v%d", n))
		i := slices.IndexFunc(h.validators(), func(v *pb.Validator) bool { return bytes.Equal(v.PublicKey, key) })
		if i < 0 || h.oneIn(8) || !active(h.validators()[i]) && h.oneIn(2) {
			break
		}
	}
	if h.oneIn(60) {
		scheme, key = 1, smallOrder
	}
	signed := slices.Concat([]byte("pacioli.validator.v1\x00"), h.networkID[:], operator, binary.BigEndian.AppendUint32(nil, scheme), key)
	if h.oneIn(60) {
		signed[len(signed)-1] ^= 1
	}
	return scheme, key, h.ring.sign(scheme, key, signed)
}

// power draws that of a validator: about a third and two thirds of all there is, or no matter what.
func (h *history) power() uint64 {
	var all uint64
	for _, v := range h.validators() {
		all += v.Power
	}
	if !h.oneIn(3) {
		return draw[uint64](h.draws, 1, 2, 9, 10, 10, 11)
	}
	edge := draw(h.draws, all/3, all/4, all/5, all/6, all/7, all/2, 1<<50)
	return min(max(edge+uint64(h.below(4)), 2)-1, 1<<50)
}

func (h *history) change() *pb.Change {
	switch h.below(10) {
	case 0, 1, 2:
		who := h.otherThan(h.operators()...)
		if candidates := h.people[h.firstOperator:]; !h.oneIn(8) {
			who = draw(h.draws, candidates...)
			for range 6 {
				if slices.Contains(h.operators(), who) || h.parameters().Bond > 0 && !h.bonded(who) {
					who = draw(h.draws, candidates...)
				}
			}
			if h.parameters().Bond > 0 && !h.bonded(who) && !h.oneIn(4) {
				return h.change()
			}
		}
		a := &pb.AddValidator{Operator: who.address, Power: h.power(), Name: draw(h.draws, "", "north", "süd", string(bytes.Repeat([]byte("n"), 64)))}
		a.Scheme, a.PublicKey, a.Proof = h.consensusKey(a.Operator)
		return &pb.Change{Kind: &pb.Change_AddValidator{AddValidator: a}}
	case 3:
		who := active
		if h.oneIn(4) {
			who = inactive
		}
		name := consensusAddress(h.validator(who).PublicKey)
		return &pb.Change{Kind: &pb.Change_RemoveValidator{RemoveValidator: &pb.RemoveValidator{Validator: name[:]}}}
	case 4, 5:
		v := h.validator(active)
		name := consensusAddress(v.PublicKey)
		return &pb.Change{Kind: &pb.Change_SetPower{SetPower: &pb.SetPower{Validator: name[:], Power: h.power()}}}
	case 6, 7:
		v := h.validator(func(v *pb.Validator) bool { return operated(v) && (active(v) || inactive(v)) })
		name := consensusAddress(v.PublicKey)
		r := &pb.RotateKey{Validator: name[:], Operator: v.Operator}
		if r.Operator == nil || h.oneIn(20) {
			r.Operator = h.someone().address
		}
		r.Scheme, r.PublicKey, r.Proof = h.consensusKey(r.Operator)
		return &pb.Change{Kind: &pb.Change_RotateKey{RotateKey: r}}
	}
	p := h.parameters()
	before := sha256.Sum256(h.reference.Row([]byte{0x40}))
	for range 1 + h.below(2) {
		switch h.below(12) {
		case 0:
			p.FeeBase = draw[uint64](h.draws, 0, 1, 10, 11)
		case 1:
			p.FeeCollector = draw(h.draws, h.people...).address
		case 2, 3:
			p.Bond = draw[uint64](h.draws, 0, 300, 500)
		case 4:
			p.BondSeconds = draw[uint32](h.draws, 1, 3, 3, 31_622_400)
		case 5, 6:
			p.MissedWindow, p.MaxMissed = 0, 0
			if !h.oneIn(4) {
				p.MissedWindow = draw[uint32](h.draws, 10, 11, 30)
				p.MaxMissed = draw(h.draws, 1, 1, 2, 5, p.MissedWindow-1)
			}
		case 7:
			p.DepositHold, p.DepositLine = draw[uint64](h.draws, 0, 21), draw[uint64](h.draws, 0, 51)
		case 8:
			p.MaxExpiries, p.MaxHoldSeconds = draw[uint32](h.draws, 1, 2, 50), draw[uint32](h.draws, 11, 20_000)
		case 9:
			p.MaxFeeMultiplier, p.FeeTargetWeight = draw[uint32](h.draws, 1_000, 1_200, 5_000), draw[uint64](h.draws, 0, 4_000)
		case 10:
			p.AssetCreators = draw(h.draws, nil, [][]byte{h.people[1].address})
		case 11:
			if h.oneIn(5) {
				p.FeeAsset = h.someAsset()
			}
		}
	}
	if h.oneIn(12) {
		before[0] ^= 1
	}
	return &pb.Change{Kind: &pb.Change_SetParameters{SetParameters: &pb.SetParameters{Before: before[:], Parameters: p}}}
}

func (h *history) propose() []step {
	expires := h.now() + draw[uint64](h.draws, 1, 2, 5, 60, 4_000, 4_000, 2_678_400)
	if h.oneIn(40) {
		expires = h.now() + draw[uint64](h.draws, 0, 2_678_401)
	}
	change := h.change()
	return []step{{h.operator(), func(i uint32) *pb.Operation {
		return &pb.Operation{Kind: &pb.Operation_Propose{Propose: &pb.Propose{Signer: i, Expires: expires, Change: change}}}
	}}}
}

// approve lets one operator approve, or all that have not yet; or one takes it back.
func (h *history) approve() (steps []step) {
	open, _ := row(h, &pb.Proposals{}, []byte{0x63})
	var id []byte
	if len(open.Proposals) > 0 && !h.oneIn(30) {
		for range 4 {
			listed := draw(h.draws, open.Proposals...)
			if id = listed.Proposal; listed.Expires > h.now() {
				break
			}
		}
	} else if len(h.proposed) > 0 && h.oneIn(3) {
		id = draw(h.draws, h.proposed...)
	} else {
		return h.propose()
	}
	p, _ := row(h, &pb.Proposal{}, []byte{0x62}, id)
	approved := func(who *person) bool {
		return slices.ContainsFunc(p.Approvals, func(a []byte) bool { return bytes.Equal(a, who.address) })
	}
	step := func(who *person, withdraw bool) step {
		return step{who, func(i uint32) *pb.Operation {
			return &pb.Operation{Kind: &pb.Operation_Approve{Approve: &pb.Approve{Signer: i, Proposal: id, Withdraw: withdraw}}}
		}}
	}
	switch n := h.below(8); {
	case n == 0 && len(p.Approvals) > 0:
		who := h.byAddress(draw(h.draws, p.Approvals...))
		return append(steps, step(who, true))
	case n < 6:
		for _, who := range h.operators() {
			if !approved(who) && len(steps) < 16 {
				steps = append(steps, step(who, false))
			}
		}
		if len(steps) > 1 && h.oneIn(3) {
			steps = steps[:len(steps)-1-h.below(min(3, len(steps)-1))]
		} else if len(steps) > 1 {
			steps = h.enough(p, steps)
		}
		if len(steps) > 0 {
			return steps
		}
	}
	who := h.operator()
	return append(steps, step(who, approved(who) != h.oneIn(8)))
}

// enough leaves out the approvals that come when the proposal is gone already.
func (h *history) enough(p *pb.Proposal, steps []step) []step {
	var all, for_ uint64
	power := map[string]uint64{}
	for _, v := range h.validators() {
		all += v.Power
		power[string(v.Operator)] += v.Power
	}
	for _, a := range p.Approvals {
		for_ += power[string(a)]
	}
	for i, s := range steps {
		if for_ += power[string(s.who.address)]; 3*for_ > 2*all {
			return steps[:i+1]
		}
	}
	return steps
}

func (h *history) reactivate() []step {
	v := h.validator(func(v *pb.Validator) bool { return inactive(v) && operated(v) })
	if !inactive(v) && !h.oneIn(6) {
		return h.approve()
	}
	who := h.someone()
	if operated(v) {
		who = h.byAddress(v.Operator)
	}
	return []step{{who, func(i uint32) *pb.Operation {
		return &pb.Operation{Kind: &pb.Operation_Reactivate{Reactivate: &pb.Reactivate{Signer: i}}}
	}}}
}

// found draws the validators of a genesis, and who operates them: a few, or so many that there is no room for more.
func (h *history) found(g *ledger.Genesis) {
	operators := h.people[h.firstOperator:]
	add := func(scheme uint32, name string, power uint64, operator *person) {
		v := ledger.Validator{Scheme: crypto.Scheme(scheme), PublicKey: h.ring.public(scheme, name), Power: power}
		g.Validators = append(g.Validators, v)
		if operator != nil {
			g.State.Validators = append(g.State.Validators, ledger.GenesisValidator{PubKey: v.PublicKey, Operator: crypto.Address(operator.address), Name: name})
		}
	}
	crowded := h.ruling && h.oneIn(6)
	if crowded {
		g.State.Parameters.BondSeconds = draw[uint32](h.draws, 1, 1, 3)
	}
	for i := range draw(h.draws, 3, 4, 5, 6, 7) {
		operator := operators[i]
		if h.oneIn(12) {
			operator = nil
		}
		power := draw[uint64](h.draws, 10, 10, 10, 10, 1)
		if crowded {
			power *= 1_000
		}
		add([]uint32{1, 1, 5}[i%3], fmt.Sprintf("v%d", i), power, operator)
	}
	if crowded {
		for i := draw(h.draws, 0, 1, 2); len(g.Validators) < 100-i; {
			add(1, fmt.Sprintf("crowd %d", len(g.Validators)), 1, nil)
		}
	}
}

// votes draws who signed the block before: some validators are out of order for long.
func (h *history) votes() (all []vote) {
	for _, v := range h.validators() {
		name := consensusAddress(v.PublicKey)
		if v.Power == 0 && !h.oneIn(4) {
			continue
		}
		if h.oneIn(30) {
			h.lazy[name] = !h.lazy[name]
		}
		all = append(all, vote{name, !h.lazy[name] && !h.oneIn(20) || h.oneIn(10)})
	}
	if h.oneIn(10) {
		all = append(all, vote{[20]byte{1}, false})
	}
	return all
}

// evidence draws who has misbehaved, by name.
func (h *history) evidence() (names [][20]byte) {
	if !h.oneIn(8) {
		return nil
	}
	for range 1 + h.below(3) {
		v := draw(h.draws, append(h.validators(), &pb.Validator{PublicKey: []byte("nobody")})...)
		names = append(names, consensusAddress(v.PublicKey))
	}
	return names
}

// remember notes what an operation about the validator set leaves behind.
func (h *history) remember(o *pb.Operation, result ledger.OperationResult) {
	id := o.GetApprove().GetProposal()
	if p := o.GetPropose(); p != nil {
		id = bytes.Clone(result.Proposal[:])
		h.proposed = append(h.proposed, id)
		h.moments = append(h.moments, p.Expires)
		kind := p.Change.ProtoReflect()
		h.changes[string(id)] = string(kind.WhichOneof(kind.Descriptor().Oneofs().Get(0)).Name())
	}
	if result.Executed {
		h.seen.validators[h.changes[string(id)]]++
		h.moments = append(h.moments, h.now()+uint64(h.parameters().BondSeconds))
	}
}

// endBlock ends a block and counts what has become of the validators.
func (h *history) endBlock() {
	before := h.validators()
	bonds := map[string]bool{}
	for _, v := range before {
		bonds[string(v.Operator)] = operated(v) && h.bonded(h.byAddress(v.Operator))
	}
	h.end(h.evidence(), h.votes())
	after := map[string]*pb.Validator{}
	for _, v := range h.validators() {
		after[string(v.PublicKey)] = v
	}
	for _, v := range h.previous {
		if after[string(v.PublicKey)] == nil {
			h.seen.validators["gave way"]++
		}
	}
	h.previous = h.validators()
	for _, v := range before {
		switch now := after[string(v.PublicKey)]; {
		case now.Tombstoned > 0 && v.Tombstoned == 0 && (active(v) || inactive(v)):
			h.seen.validators["tombstoned"]++
		case now.Tombstoned > 0 && v.Tombstoned == 0:
			h.seen.validators["tombstoned when former"]++
		case inactive(now) && !inactive(v):
			h.seen.validators["set inactive"]++
		}
		if bonds[string(v.Operator)] && !h.bonded(h.byAddress(v.Operator)) {
			h.seen.validators["forfeited a bond"]++
		}
	}
}
