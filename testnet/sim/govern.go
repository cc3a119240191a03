package sim

import (
	"fmt"
	"slices"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtcrypto "github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// operator makes a client act for a validator: it bonds, proposes, approves and reactivates.
type operator struct {
	bonded bool
}

// govern makes an operation of an operator. What an honest node has says what is possible; by the time it stands in a block
// that may be otherwise, so nobody can tell beforehand whether it takes effect.
func (c *client) govern() ledger.Operation {
	o := c.operator
	if !o.bonded {
		o.bonded = true
		return &ledger.Bond{Amount: ledger.Units(1000 + c.rng.Uint64N(1000))}
	}
	set, parameters, proposals := c.s.council()
	own := slices.IndexFunc(set, func(v ledger.Validator) bool { return v.Operator == c.address && v.Present() })
	if own < 0 || set[own].Inactive() {
		return &ledger.Reactivate{} // which fails where the validator was removed
	}
	for id, p := range proposals {
		if approved := slices.Contains(p.Approvals, c.address); !approved || c.rng.IntN(20) == 0 {
			return &ledger.Approve{Proposal: id, Withdraw: approved}
		}
	}
	propose := &ledger.Propose{Expires: uint64(time.Now().Unix()) + 5 + c.rng.Uint64N(100)}
	v := c.rng.IntN(len(c.s.plan.powers))
	key := c.s.consensusKey(v, c.s.plan.postQuantum)
	switch {
	case c.rng.IntN(4) == 0 && parameters != nil:
		p, err := ledger.DecodeParameters(parameters)
		if err != nil {
			panic(err)
		}
		p.FeeBase = 100 + c.rng.Uint64N(3)
		propose.Change = &ledger.SetParameters{Before: ledger.ParametersHash(parameters), Parameters: p}
	case c.s.plan.dishonest(v):
		// A key that nobody has: evidence against the old one still finds its operator.
		next := c.s.consensusKey(2000+v, false)
		of := c.s.operators[v].address
		propose.Change = &ledger.RotateKey{Validator: ledger.ConsensusAddress(key.PubKey().Address()), Operator: of, Scheme: crypto.Ed25519, PublicKey: next.PubKey().Bytes(),
			Proof: signed(next, ledger.ConsensusKeyPreimage(c.s.networkID.ID, of, crypto.Ed25519, next.PubKey().Bytes()))}
	default: // up only: else the dishonest could come to have a third
		first := uint64(c.s.doc.Validators[v].Power)
		propose.Change = &ledger.SetPower{Validator: ledger.ConsensusAddress(key.PubKey().Address()), Power: first + c.rng.Uint64N(first/4)}
	}
	return propose
}

func signed(k cmtcrypto.PrivKey, message []byte) []byte {
	signature, err := k.Sign(message)
	if err != nil {
		panic(err)
	}
	return signature
}

// council reads what operators decide about from the first honest node that runs.
func (s *simulation) council() (set []ledger.Validator, parameters []byte, proposals map[crypto.Hash]ledger.Proposal) {
	for _, m := range s.machines {
		r := m.running()
		if r == nil || r.dead.is() || m.role.byzantine() {
			continue
		}
		set, parameters, proposals, err := r.council()
		if err != nil {
			if !r.dead.is() {
				s.finding("node %d does not tell its validators and proposals: %v", m.index, err)
			}
			continue
		}
		return set, parameters, proposals
	}
	return nil, nil, nil
}

func (r *run) council() (set []ledger.Validator, parameters []byte, proposals map[crypto.Hash]ledger.Proposal, err error) {
	view := r.app.Store().View()
	defer view.Close()
	if view.Height() == 0 {
		return nil, nil, nil, nil
	}
	row, err := view.Get(ledger.ValidatorsRow())
	if err != nil {
		return nil, nil, nil, err
	}
	if set, err = ledger.DecodeValidators(row); err != nil {
		return nil, nil, nil, err
	}
	if parameters, err = view.Get(ledger.ParametersRow()); err != nil {
		return nil, nil, nil, err
	}
	if row, err = view.Get(ledger.ProposalsRow()); err != nil || row == nil {
		return set, parameters, nil, err
	}
	list, err := ledger.DecodeProposals(row)
	if err != nil {
		return nil, nil, nil, err
	}
	proposals = map[crypto.Hash]ledger.Proposal{}
	for _, l := range list {
		if row, err = view.Get(ledger.ProposalRow(l.ID)); err != nil {
			return nil, nil, nil, err
		}
		if proposals[l.ID], err = ledger.DecodeProposal(row); err != nil {
			return nil, nil, nil, err
		}
	}
	return set, parameters, proposals, nil
}

// sameSet holds CometBFT's validators against the ledger's: at the same height the next set has every power of the row, and
// no other.
func (s *simulation) sameSet(r *run) {
	set, _, _, err := r.council()
	if err != nil {
		s.finding("node %d does not tell its validators: %v", r.index, err)
		return
	}
	state := r.consensus.GetState()
	if state.LastBlockHeight != int64(r.app.Store().Height()) {
		return // it goes on meanwhile
	}
	powers := map[string]int64{}
	for _, v := range set {
		if v.Active() {
			powers[fmt.Sprintf("%X", v.Address())] = int64(v.Power)
		}
	}
	for _, v := range state.NextValidators.Validators {
		if name := fmt.Sprintf("%X", []byte(v.Address)); powers[name] != v.VotingPower {
			s.finding("node %d at height %d: CometBFT gives %s the power %d, the ledger %d", r.index, state.LastBlockHeight, name, v.VotingPower, powers[name])
		}
	}
	if len(powers) != state.NextValidators.Size() {
		s.finding("node %d at height %d: CometBFT has %d validators, the ledger %d active ones", r.index, state.LastBlockHeight, state.NextValidators.Size(), len(powers))
	}
}

// governed counts what was decided, by a block that is committed.
func (s *simulation) governed(b *block) {
	for i, raw := range b.txs {
		tx, err := ledger.Decode(raw)
		if err != nil || b.results[i].Code != 0 {
			continue
		}
		switch tx.Body.Operations[0].(type) {
		case *ledger.Propose:
			s.count.proposals.Add(1)
		case *ledger.Approve:
			s.count.approvals.Add(1)
		case *ledger.Reactivate:
			s.count.reactivated.Add(1)
		case *ledger.Bond:
			s.count.bonds.Add(1)
		}
	}
	if len(b.evidence) > 0 {
		return
	}
	fresh := func(u abci.ValidatorUpdate) bool {
		key := ed25519.PubKey(u.PubKey.GetEd25519())
		return len(key) > 0 && !slices.ContainsFunc(s.doc.Validators, func(v types.GenesisValidator) bool { return v.PubKey.Equals(key) })
	}
	rotated := slices.ContainsFunc(b.updates, fresh)
	for _, u := range b.updates {
		switch {
		case fresh(u):
			s.count.rotated.Add(1)
		case u.Power > 0:
			s.count.repowered.Add(1)
		case !rotated: // else it may be the old key
			s.count.inactive.Add(1)
		}
	}
}
