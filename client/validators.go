package client

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

// The validators of a network, and what their operators have proposed: proven as everything that this package reads. The
// rules are in docs/PROTOCOL.md; who wants to know what a change would do to the network's strength asks [Changed].

// Validators returns the validators, former ones included, in the order of the set; height 0 is the newest.
func (c *Client) Validators(ctx context.Context, height uint64) (Proven[[]ledger.Validator], error) {
	row, err := c.Row(ctx, ledger.ValidatorsRow(), height)
	p, err := decoded(row, err, ledger.DecodeValidators)
	if err == nil && !p.Present {
		err = fmt.Errorf("the proven state of height %d is inconsistent: it has no validators", p.Height)
	}
	return p, err
}

// Missed returns how many blocks of the present window a validator has missed, and of which window that is; height 0 is the
// newest. Without a row it has missed none.
func (c *Client) Missed(ctx context.Context, validator ledger.ConsensusAddress, height uint64) (Proven[ledger.Missed], error) {
	row, err := c.Row(ctx, ledger.MissedRow(validator), height)
	return decoded(row, err, ledger.DecodeMissed)
}

// Bond returns the bond of an operator; height 0 is the newest.
func (c *Client) Bond(ctx context.Context, operator crypto.Address, height uint64) (Proven[ledger.Hold], error) {
	return c.Hold(ctx, ledger.BondID(operator), height)
}

// Proposal returns an open proposal; height 0 is the newest. One that was enacted or withdrawn has no row any more, and one
// that has expired may have none.
func (c *Client) Proposal(ctx context.Context, id crypto.Hash, height uint64) (Proven[ledger.Proposal], error) {
	row, err := c.Row(ctx, ledger.ProposalRow(id), height)
	return decoded(row, err, ledger.DecodeProposal)
}

// OpenProposal is a proposal with its id.
type OpenProposal struct {
	ID       crypto.Hash
	Proposal ledger.Proposal
}

// Proposals returns every proposal that is kept, in the order in which they were made: proven, and proven to be all. Those that
// have expired are among them until somebody proposes again. Height 0 is the newest.
func (c *Client) Proposals(ctx context.Context, height uint64) (Listed[OpenProposal], error) {
	row, err := c.Row(ctx, ledger.ProposalsRow(), height)
	named, err := decoded(row, err, ledger.DecodeProposals)
	if err != nil {
		return Listed[OpenProposal]{}, err
	}
	list := Listed[OpenProposal]{Height: named.Height, Time: named.Time}
	for _, l := range named.Value {
		p, err := c.Proposal(ctx, l.ID, list.Height)
		if err != nil {
			return Listed[OpenProposal]{}, err
		}
		if !p.Present || p.Value.Proposer != l.Proposer || p.Value.Expires != l.Expires {
			return Listed[OpenProposal]{}, fmt.Errorf("the proven state of height %d is inconsistent: proposal %s is listed, and is not there as listed", list.Height, l.ID)
		}
		list.Rows = append(list.Rows, OpenProposal{l.ID, p.Value})
	}
	return list, nil
}

// Strength says how much a set of validators stands.
type Strength struct {
	Active   int    `json:"active"`   // validators with power
	Inactive int    `json:"inactive"` // those that have lost it by missing blocks
	Power    uint64 `json:"power"`    // of all active ones
	Quorum   uint64 `json:"quorum"`   // least power with which there are blocks, and with which operators decide: more than two thirds
	// MayFail is how many active validators can fail in the worst case, which is the largest powers first, with a quorum left.
	MayFail int `json:"may_fail"`
}

// StrengthOf returns the strength of a set whose active validators all work.
func StrengthOf(set []ledger.Validator) Strength {
	var s Strength
	var powers []int64
	for _, v := range set {
		switch {
		case v.Active():
			s.Active++
			s.Power += v.Power
			powers = append(powers, int64(v.Power))
		case v.Inactive():
			s.Inactive++
		}
	}
	s.Quorum = s.Power*2/3 + 1 // powers are at most 100 times 2^50
	s.MayFail = max(mayFail(powers, int64(s.Power)), 0)
	return s
}

// Circumstances are what decides, beside the set, whether a change can be made.
type Circumstances struct {
	Parameters ledger.Parameters
	Second     uint64        // Unix time of the block
	Bonded     ledger.Amount // by the operator of a validator that is added
	// Begun is the set at the beginning of the block; nil: the set itself. Changes of one block are measured against it together.
	Begun []ledger.Validator
}

// Changed returns the set as a change would leave it, and the rule that refuses the change, ledger.OK for none: what a vote
// that is decided does, said before it. A change that leaves the set as it is, as that of parameters, is not judged here.
func Changed(set []ledger.Validator, change ledger.Change, c Circumstances) ([]ledger.Validator, ledger.Code) {
	next := slices.Clone(set)
	at := func(a ledger.ConsensusAddress) int {
		return slices.IndexFunc(next, func(v ledger.Validator) bool { return v.Address() == a })
	}
	leave := func(i int) { next[i].Power, next[i].InactivePower, next[i].Left = 0, 0, c.Second }
	answers := func(v ledger.Validator) bool {
		return v.Present() || v.Left+uint64(c.Parameters.BondSeconds) > c.Second
	}
	free := func(added ledger.Validator) bool {
		i := at(added.Address())
		return i < 0 || !next[i].Present() && next[i].Tombstoned == 0 && (next[i].Operator == added.Operator || !answers(next[i]))
	}
	place := func(added ledger.Validator) ledger.Code {
		if i := at(added.Address()); i >= 0 {
			next[i] = added
			return ledger.OK
		}
		if len(next) >= ledger.MaxValidators {
			oldest := -1
			for j, v := range next {
				if !answers(v) && (oldest < 0 || v.Left < next[oldest].Left) {
					oldest = j
				}
			}
			if oldest < 0 {
				return ledger.ValidatorSetFull
			}
			next = slices.Delete(next, oldest, oldest+1)
		}
		next = append(next, added)
		slices.SortFunc(next, compareKeys)
		return ledger.OK
	}
	switch change := change.(type) {
	case *ledger.AddValidator:
		if slices.ContainsFunc(next, func(v ledger.Validator) bool { return v.Present() && v.Operator == change.Operator }) {
			return set, ledger.ValidatorExists
		}
		added := ledger.Validator{Scheme: change.Scheme, PublicKey: change.PublicKey, Power: change.Power, Operator: change.Operator, Name: change.Name}
		if !free(added) {
			return set, ledger.ValidatorExists
		}
		if c.Parameters.Bond > 0 && c.Bonded.Cmp(ledger.Units(c.Parameters.Bond)) < 0 {
			return set, ledger.BondMissing
		}
		if code := place(added); code != ledger.OK {
			return set, code
		}
	case *ledger.RemoveValidator:
		i := at(change.Validator)
		if i < 0 || !next[i].Present() {
			return set, ledger.ValidatorUnknown
		}
		leave(i)
	case *ledger.SetPower:
		i := at(change.Validator)
		switch {
		case i < 0 || !next[i].Active():
			return set, ledger.ValidatorUnknown
		case next[i].Power == change.Power:
			return set, ledger.Unchanged
		}
		next[i].Power = change.Power
	case *ledger.RotateKey:
		i := at(change.Validator)
		if i < 0 || !next[i].Present() || next[i].Operator != change.Operator {
			return set, ledger.ValidatorUnknown
		}
		rotated := next[i]
		rotated.Scheme, rotated.PublicKey, rotated.Tombstoned = change.Scheme, change.PublicKey, 0
		if !free(rotated) {
			return set, ledger.ValidatorExists
		}
		leave(i)
		if code := place(rotated); code != ledger.OK {
			return set, code
		}
	default:
		return set, ledger.OK
	}
	begun := c.Begun
	if begun == nil {
		begun = set
	}
	return next, sound(begun, next)
}

// sound tells which rule refuses a set that follows another one.
func sound(begun, next []ledger.Validator) ledger.Code {
	total, known, active := uint64(0), uint64(0), 0
	for _, v := range next {
		total += v.Power
		if v.Active() {
			active++
		}
		for _, b := range begun {
			if b.Address() == v.Address() {
				known += min(b.Power, v.Power)
			}
		}
	}
	switch {
	case active == 0:
		return ledger.ValidatorSetEmpty
	case 3*known <= 2*total:
		return ledger.ValidatorQuorumLost
	}
	if _, unsound := ledger.UnsoundPower(next); unsound {
		return ledger.ValidatorPowersUnsound
	}
	return ledger.OK
}

// compareKeys is the order of the set.
func compareKeys(a, b ledger.Validator) int {
	return cmp.Or(cmp.Compare(a.Scheme, b.Scheme), slices.Compare(a.PublicKey, b.PublicKey))
}

// Tally is how far the vote on a proposal is.
type Tally struct {
	Power  uint64           `json:"power"`  // of the active validators whose operators have approved
	Needed uint64           `json:"needed"` // with which it is decided
	Total  uint64           `json:"total"`
	Open   []crypto.Address `json:"open"` // operators of active validators that have not approved
}

// TallyOf counts approvals as the ledger does: by the present set.
func TallyOf(set []ledger.Validator, approvals []crypto.Address) Tally {
	t := Tally{Open: []crypto.Address{}}
	for _, v := range set {
		t.Total += v.Power
		switch {
		case !v.Active() || v.Operator == (crypto.Address{}):
		case slices.Contains(approvals, v.Operator):
			t.Power += v.Power
		default:
			t.Open = append(t.Open, v.Operator)
		}
	}
	t.Needed = t.Total*2/3 + 1
	return t
}

// Decided tells whether the approvals suffice.
func (t Tally) Decided() bool { return t.Power >= t.Needed }

// Commit returns the signatures on a block as the next block has them, which that one's header proves: no node can leave one out.
// Those that come with a header prove only that two thirds have signed it. The error is light.ErrNotYet until there is a next
// block.
func (c *Client) Commit(ctx context.Context, height uint64) (*types.Commit, error) {
	next, err := c.light.Header(ctx, height+1)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, n := range c.inOrder(c.preferred.Load()) {
		h := int64(height)
		answer, err := n.rpc.Commit(ctx, &h)
		if err == nil && (answer.Commit == nil || !bytes.Equal(answer.Commit.Hash(), next.Block.LastCommitHash)) {
			err = fmt.Errorf("%w: the signatures on block %d are not those that the header of block %d names", proof.ErrInvalid, height, height+1)
		}
		if err == nil {
			return answer.Commit, nil
		}
		errs = append(errs, &nodeError{n.name, err})
	}
	return nil, fmt.Errorf("asking for the signatures on block %d: %w", height, join(errs...))
}
