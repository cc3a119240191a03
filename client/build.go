package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// DefaultValidFor is how long a transaction with a nonce stays valid: long enough for a network that has to heal, and half
// of the usual replay window.
const DefaultValidFor = 5 * time.Minute

// Intent is what somebody wants done.
type Intent struct {
	// Signers are the accounts that sign; the first pays the fee. Operations name them by their index.
	Signers    []crypto.Address
	Operations []ledger.Operation

	// Known are policies that the caller holds: of accounts that have not signed before the nodes cannot tell theirs.
	Known []crypto.Policy

	// Sequence uses each account's next sequence: transactions take effect in their order, and never expire unless
	// ValidFor is set. Otherwise a nonce protects from replay.
	Sequence bool
	Nonce    *[ledger.NonceBytes]byte // nil: a random one; the same for all signers
	ValidFor time.Duration            // from the time of the newest block; 0: DefaultValidFor, or for ever with Sequence

	// Who pays instead of the first signer: FeeGranter under a grant for fees to it, named in the body; or Sponsor, which
	// signs too. Zero: nobody does. With a sponsor the body itself allows no fee, so that nobody can take the sponsor off and
	// have the first signer pay; it has to be free of charge or sponsored.
	FeeGranter crypto.Address
	Sponsor    crypto.Address

	// Most that the payer agrees to.
	MaxFee     *ledger.Amount // nil: twice what it costs now where fees adapt to how full blocks are, else exactly that
	MaxDeposit *ledger.Amount // nil: the most that its operations can cost in deposits
}

// Built is a draft with what was found out on the way.
type Built struct {
	*Draft
	Parameters ledger.Parameters
	FeeRate    ledger.FeeRate
	Fee        ledger.Amount // at this rate, in base units of the fee asset, or the most that its signatures may make it
	Height     uint64        // of the state that it was built on
	// Before is the place in the journal of the transaction's [EvidenceLine] before it: [Client.Settle] need not look
	// further back.
	Before Mark
}

// Build makes the draft of a transaction from proven state. What the proof cannot cover, the number of transactions that
// wait in the mempool, is a node's hint: a wrong one gets the transaction refused or delayed.
func (c *Client) Build(ctx context.Context, in Intent) (*Built, error) {
	if len(in.Signers) == 0 {
		return nil, errors.New("no signer")
	}
	parameters, err := c.Parameters(ctx, 0)
	if err != nil {
		return nil, err
	}
	if !parameters.Present {
		return nil, fmt.Errorf("the state of height %d has no parameters", parameters.Height)
	}
	rate, err := c.FeeRate(ctx, parameters.Height)
	if err != nil {
		return nil, err
	}
	b := &Built{Parameters: parameters.Value, FeeRate: rate.Value, Height: parameters.Height}
	body := ledger.Body{Operations: in.Operations}
	if in.Sponsor != (crypto.Address{}) && in.FeeGranter != (crypto.Address{}) {
		return nil, errors.New("either a sponsor or a fee granter can pay, not both")
	}
	body.FeeGranter = in.FeeGranter
	validFor := in.ValidFor
	if validFor == 0 && !in.Sequence {
		validFor = min(DefaultValidFor, time.Duration(b.Parameters.ReplayWindowSeconds)*time.Second)
	}
	if window := time.Duration(b.Parameters.ReplayWindowSeconds) * time.Second; !in.Sequence && validFor > window {
		return nil, fmt.Errorf("valid for %s, this network allows %s with a nonce", validFor, window)
	}
	if validFor < 0 || validFor > 0 && validFor < time.Second {
		return nil, fmt.Errorf("valid for %s, want at least a second", validFor)
	}
	if validFor != 0 {
		body.ValidUntil = uint64(parameters.Time.Unix()) + uint64(validFor/time.Second)
	}
	nonce := in.Nonce
	if nonce == nil {
		nonce = new([ledger.NonceBytes]byte)
		rand.Read(nonce[:]) // never errs
	}
	var accounts []SigningAccount
	for _, address := range in.Signers {
		account, carried, err := c.signingAccount(ctx, address, in.Known, b.Height)
		if err != nil {
			return nil, err
		}
		signer := ledger.Signer{Address: address, Policy: carried}
		if in.Sequence {
			hint, err := c.AccountHint(ctx, address)
			if err != nil {
				return nil, err
			}
			signer.Sequence = max(account.sequence+1, hint.NextSequence)
		} else {
			signer.Nonce = *nonce
		}
		body.Signers = append(body.Signers, signer)
		accounts = append(accounts, account.SigningAccount)
	}
	sponsored := in.Sponsor != (crypto.Address{})
	if in.MaxFee != nil && !sponsored {
		body.MaxFee = *in.MaxFee
	}
	if in.MaxDeposit != nil && !sponsored {
		body.MaxDeposit = *in.MaxDeposit
	} else if !sponsored {
		body.MaxDeposit = DepositCeiling(b.Parameters, body)
	}
	if err := body.Validate(); err != nil {
		return nil, err
	}
	encoded := body.Encode()
	if !sponsored {
		if encoded, err = WithFee(b.Parameters, b.FeeRate, body, accounts); err != nil {
			return nil, err
		}
	}
	if b.Draft, err = NewDraft(c.network, encoded, accounts); err != nil {
		return nil, err
	}
	if sponsored {
		if err := c.sponsor(ctx, b, in); err != nil {
			return nil, err
		}
	}
	if b.Fee, err = b.FeeCeiling(b.Parameters, b.FeeRate); err != nil {
		return nil, err
	}
	if in.MaxFee != nil && b.Fee.Cmp(*in.MaxFee) > 0 {
		return nil, &FeeAboveMaximum{b.Fee, *in.MaxFee}
	}
	evidence, _ := EvidenceLine(&b.decoded, b.Parameters)
	line, err := c.Line(ctx, evidence, b.Height)
	if err != nil {
		return nil, err
	}
	b.Before = MarkOf(line.Value)
	return b, nil
}

// FeeAboveMaximum is returned when a transaction costs more than the intent allows. Amounts are in base units of the fee asset.
type FeeAboveMaximum struct{ Fee, Maximum ledger.Amount }

func (e *FeeAboveMaximum) Error() string {
	return fmt.Sprintf("the fee is %s base units, above the maximum of %s", e.Fee, e.Maximum)
}

// Sponsor adds a sponsor to a draft, signed or not: see [Draft.AddSponsor]. Of the intent Sponsor, Known, MaxFee and MaxDeposit
// count. The result has the fee with the sponsor's signatures.
func (c *Client) Sponsor(ctx context.Context, d *Draft, in Intent) (*Built, error) {
	parameters, err := c.Parameters(ctx, 0)
	if err != nil {
		return nil, err
	}
	rate, err := c.FeeRate(ctx, parameters.Height)
	if err != nil {
		return nil, err
	}
	b := &Built{Draft: d, Parameters: parameters.Value, FeeRate: rate.Value, Height: parameters.Height}
	if err := c.sponsor(ctx, b, in); err != nil {
		return nil, err
	}
	if b.Fee, err = b.FeeCeiling(b.Parameters, b.FeeRate); err != nil {
		return nil, err
	}
	if in.MaxFee != nil && b.Fee.Cmp(*in.MaxFee) > 0 {
		return nil, &FeeAboveMaximum{b.Fee, *in.MaxFee}
	}
	return b, nil
}

func (c *Client) sponsor(ctx context.Context, b *Built, in Intent) error {
	account, carried, err := c.signingAccount(ctx, in.Sponsor, in.Known, b.Height)
	if err != nil {
		return fmt.Errorf("sponsor: %w", err)
	}
	s := ledger.Sponsor{Address: in.Sponsor, Policy: carried}
	if in.MaxDeposit != nil {
		s.MaxDeposit = *in.MaxDeposit
	} else {
		s.MaxDeposit = DepositCeiling(b.Parameters, b.decoded)
		if carried != nil {
			s.MaxDeposit, _ = s.MaxDeposit.Add(ledger.Units(b.Parameters.DepositAccount)) // far below 2^128
		}
	}
	if in.MaxFee != nil {
		s.MaxFee = *in.MaxFee
		return b.AddSponsor(s, account.SigningAccount)
	}
	// As in WithFee: the fee counts the bytes that say the fee.
	for {
		if err := b.AddSponsor(s, account.SigningAccount); err != nil {
			return err
		}
		fee, err := b.FeeCeiling(b.Parameters, headroom(b.Parameters, b.FeeRate))
		if err != nil {
			return err
		}
		if fee.Cmp(s.MaxFee) <= 0 {
			return nil
		}
		s.MaxFee = fee
	}
}

// signing is what a transaction needs to know of an account that signs it.
type signing struct {
	SigningAccount
	sequence uint64
}

// signingAccount reads an account at a height; carried is the policy that the transaction must bring, nil when the ledger has it.
func (c *Client) signingAccount(ctx context.Context, address crypto.Address, policies []crypto.Policy, height uint64) (s signing, carried []byte, err error) {
	account, err := c.Account(ctx, address, height)
	if err != nil {
		return s, nil, err
	}
	policy, held := known(policies, account.Value.Policy)
	switch {
	case held:
	case account.Present:
		if policy, err = c.Policy(ctx, account.Value.Policy); err != nil {
			return s, nil, err
		}
	default:
		return s, nil, fmt.Errorf("%s has not signed before, and its policy is not given", address)
	}
	if !account.Present {
		carried = policy.Encode()
	}
	return signing{SigningAccount{policy, account.Value.PolicyVersion}, account.Value.Sequence}, carried, nil
}

// Combine makes the operations and signers of several drafts those of one transaction, in which all take effect or none:
// what an exchange is. Their signatures do not count for it.
func Combine(drafts ...*Draft) (signers []crypto.Address, policies []crypto.Policy, operations []ledger.Operation, err error) {
	for _, d := range drafts {
		if d.network != drafts[0].network {
			return nil, nil, nil, fmt.Errorf("they are for different networks: %s (%s) and %s (%s)", drafts[0].network.ID, drafts[0].network.ChainID, d.network.ID, d.network.ChainID)
		}
		index := make([]uint32, len(d.decoded.Signers))
		for i, s := range d.decoded.Signers {
			at := slices.Index(signers, s.Address)
			if at < 0 {
				at = len(signers)
				signers, policies = append(signers, s.Address), append(policies, d.accounts[i].Policy)
			}
			index[i] = uint32(at)
		}
		for i, op := range d.decoded.Operations {
			moved, err := actingBy(op, index[op.By()])
			if err != nil {
				return nil, nil, nil, fmt.Errorf("operation %d of %s: %w", i, d.ID(), err)
			}
			operations = append(operations, moved)
		}
	}
	return signers, policies, operations, nil
}

// actingBy returns an operation in the name of another signer.
func actingBy(op ledger.Operation, signer uint32) (ledger.Operation, error) {
	switch o := op.(type) {
	case *ledger.Transfer:
		c := *o
		c.From = signer
		return &c, nil
	case *ledger.CreateAsset:
		c := *o
		c.Issuer = signer
		return &c, nil
	case *ledger.SetPolicy:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.CreateHold:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.PostHold:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.VoidHold:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.SetAsset:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.SetLine:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.Clawback:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.OpenLine:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.CloseLine:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.SetAccount:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.CloseAccount:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.SetGrant:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.RevokeGrant:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.StartRecovery:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.CancelRecovery:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.FinishRecovery:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.Bond:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.ReleaseBond:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.Propose:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.Approve:
		c := *o
		c.Signer = signer
		return &c, nil
	case *ledger.Reactivate:
		c := *o
		c.Signer = signer
		return &c, nil
	}
	return nil, fmt.Errorf("a kind that this program does not know: %d", op.Kind())
}

// NewSetPolicy makes the operation by which an account's policy becomes that of a signer, each key of which proves that it
// is there. version is the one of the policy that the account has now. The account is the transaction's first signer.
func NewSetPolicy(network crypto.Hash, account crypto.Address, version uint32, next Signer) (*ledger.SetPolicy, error) {
	policy := next.Policy()
	op := &ledger.SetPolicy{Policy: policy.Encode()}
	message := ledger.PossessionPreimage(network, account, policy.Hash(), version+1)
	for i, k := range policy.Keys {
		proof, err := next.Sign(i, message)
		if err != nil {
			return nil, fmt.Errorf("proving possession of the new %s key %d: %w", k.Scheme, i, err)
		}
		op.Proofs = append(op.Proofs, proof)
	}
	return op, nil
}

// known finds a policy by its hash.
func known(policies []crypto.Policy, hash crypto.Hash) (crypto.Policy, bool) {
	for _, p := range policies {
		if p.Hash() == hash {
			return p, true
		}
	}
	return crypto.Policy{}, false
}
