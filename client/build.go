package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	for i, address := range in.Signers {
		account, err := c.Account(ctx, address, b.Height)
		if err != nil {
			return nil, err
		}
		signer := ledger.Signer{Address: address}
		policy, held := known(in.Known, account.Value.Policy)
		switch {
		case held:
		case account.Present:
			if policy, err = c.Policy(ctx, account.Value.Policy); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("signer %d, %s, has not signed before, and its policy is not given", i, address)
		}
		if !account.Present {
			signer.Policy = policy.Encode()
		}
		if in.Sequence {
			signer.Sequence = account.Value.Sequence + 1
			hint, err := c.AccountHint(ctx, address)
			if err != nil {
				return nil, err
			}
			signer.Sequence = max(signer.Sequence, hint.NextSequence)
		} else {
			signer.Nonce = *nonce
		}
		body.Signers = append(body.Signers, signer)
		accounts = append(accounts, SigningAccount{policy, account.Value.PolicyVersion})
	}
	if in.MaxFee != nil {
		body.MaxFee = *in.MaxFee
	}
	if in.MaxDeposit != nil {
		body.MaxDeposit = *in.MaxDeposit
	} else {
		body.MaxDeposit = DepositCeiling(b.Parameters, body)
	}
	encoded, err := WithFee(b.Parameters, b.FeeRate, body, accounts)
	if err != nil {
		return nil, err
	}
	if b.Draft, err = NewDraft(c.network, encoded, accounts); err != nil {
		return nil, err
	}
	if b.Fee, err = FeeCeiling(b.Parameters, b.FeeRate, encoded, accounts); err != nil {
		return nil, err
	}
	if in.MaxFee != nil && b.Fee.Cmp(*in.MaxFee) > 0 {
		return nil, fmt.Errorf("the fee is %s base units, above the maximum of %s", b.Fee, *in.MaxFee)
	}
	evidence, _ := EvidenceLine(&b.decoded, b.Parameters)
	line, err := c.Line(ctx, evidence, b.Height)
	if err != nil {
		return nil, err
	}
	b.Before = MarkOf(line.Value)
	return b, nil
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
