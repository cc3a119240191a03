package ledger

import (
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Approve approves a proposal, or takes an approval back. With the approvals of operators whose validators have more than
// two thirds of the power, the change takes effect at once. Where the set has changed since, the proposal is measured
// against the present one: an approval of who has left it counts for nothing, and again once its operator is back.
type Approve struct {
	Signer   uint32 // the operator of an active validator
	Proposal crypto.Hash
	Withdraw bool // the approval is taken back
}

func (a *Approve) Kind() Kind { return KindApprove }
func (a *Approve) By() uint32 { return a.Signer }

func decodeApprove(r *canonical.Reader) Operation {
	a := &Approve{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "proposal", a.Proposal[:])
	a.Withdraw = r.Bool(3, "withdraw")
	return a
}

func (a *Approve) encode(w *canonical.Writer) {
	w.Uint32(1, a.Signer)
	w.Message(2, a.Proposal[:])
	w.Bool(3, a.Withdraw)
}

func (a *Approve) validate(*Body) error { return nil }

func (a *Approve) apply(x *execution) (OperationResult, Code) {
	signer := x.account(a.Signer)
	if !x.votes(signer) {
		return OperationResult{}, NotValidator
	}
	proposal, ok := x.state.proposals.get(a.Proposal)
	at, approved := slices.BinarySearchFunc(proposal.Approvals, signer, compareAddresses)
	switch {
	case !ok:
		return OperationResult{}, ProposalUnknown
	case x.now() >= proposal.Expires:
		return OperationResult{}, ProposalExpired
	case approved != a.Withdraw:
		return OperationResult{}, Unchanged
	case a.Withdraw:
		proposal.Approvals = slices.Delete(slices.Clone(proposal.Approvals), at, at+1)
	case len(proposal.Approvals) >= MaxApprovals:
		return OperationResult{}, ProposalsFull
	default:
		proposal.Approvals = slices.Insert(slices.Clone(proposal.Approvals), at, signer)
	}
	if len(proposal.Approvals) == 0 {
		x.state.dropProposals(func(l ListedProposal) bool { return l.ID == a.Proposal })
		return OperationResult{}, OK
	}
	executed, code := x.decide(a.Proposal, proposal)
	return OperationResult{Executed: executed}, code
}
