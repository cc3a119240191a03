package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// A policy can name a recovery account. That account announces a new policy, waits for the policy's delay, during which
// the owner can cancel, and then puts it in force. So lost keys do not lose an account, and a stolen recovery key does not
// take one over from an owner who watches.

// RecoveryVersion stands in the place of the policy version in the proofs of possession of a recovery: they are made
// before it is known which version the account will have.
const RecoveryVersion = 1<<32 - 1

// StartRecovery announces a new policy for another account.
type StartRecovery struct {
	Signer     uint32 // the recovery account
	Account    crypto.Address
	PolicyHash crypto.Hash
}

func (s *StartRecovery) Kind() Kind { return KindStartRecovery }
func (s *StartRecovery) By() uint32 { return s.Signer }

func decodeStartRecovery(r *canonical.Reader) Operation {
	s := &StartRecovery{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "account", s.Account[:])
	r.Fixed(3, "policy_hash", s.PolicyHash[:])
	return s
}

func (s *StartRecovery) encode(w *canonical.Writer) {
	w.Uint32(1, s.Signer)
	w.Message(2, s.Account[:])
	w.Message(3, s.PolicyHash[:])
}

func (s *StartRecovery) validate(b *Body) error { return checkRecovered(b, s.Signer, s.Account) }

func checkRecovered(b *Body, signer uint32, account crypto.Address) error {
	if b.Signers[signer].Address == account {
		return canonical.Errorf("account", "%s is the signer itself", account)
	}
	return nil
}

func (s *StartRecovery) apply(x *execution) (OperationResult, Code) {
	account, recovery, code := x.recoverable(s.Account, s.Signer)
	switch {
	case code != OK:
		return OperationResult{}, code
	case account.Recovery != (Recovery{}):
		return OperationResult{}, RecoveryPending
	case account.Policy == s.PolicyHash:
		return OperationResult{}, PolicyUnchanged
	}
	account.Recovery = Recovery{Policy: s.PolicyHash, ReadyAt: x.now() + uint64(recovery.DelaySeconds)}
	x.state.accounts.put(s.Account, account)
	return OperationResult{}, OK
}

// recoverable returns an account that is not closed and whose policy names a signer as its recovery account.
func (x *execution) recoverable(address crypto.Address, signer uint32) (Account, *crypto.Recovery, Code) {
	account, _ := x.state.accounts.get(address)
	recovery := x.recovery(account)
	if recovery == nil || recovery.Account != x.account(signer) || account.Flags&AccountClosedFlag != 0 {
		return Account{}, nil, RecoveryUnavailable
	}
	return account, recovery, OK
}

// recovery returns the recovery of an account's policy; nil when there is none, or the account has no row.
func (x *execution) recovery(account Account) *crypto.Recovery {
	encoded, ok := x.state.policies.get(account.Policy)
	if !ok {
		return nil
	}
	policy, err := crypto.DecodeRegisteredPolicy(encoded)
	if err != nil {
		panic("policy " + account.Policy.String() + " of an account does not decode: " + err.Error())
	}
	return policy.Recovery
}

// CancelRecovery ends a recovery that was announced.
type CancelRecovery struct {
	Signer  uint32 // the account itself, or its recovery account
	Account crypto.Address
}

func (c *CancelRecovery) Kind() Kind { return KindCancelRecovery }
func (c *CancelRecovery) By() uint32 { return c.Signer }

func decodeCancelRecovery(r *canonical.Reader) Operation {
	c := &CancelRecovery{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "account", c.Account[:])
	return c
}

func (c *CancelRecovery) encode(w *canonical.Writer) {
	w.Uint32(1, c.Signer)
	w.Message(2, c.Account[:])
}

func (c *CancelRecovery) validate(*Body) error { return nil }

func (c *CancelRecovery) governs(b *Body) bool { return b.Signers[c.Signer].Address == c.Account }

func (c *CancelRecovery) apply(x *execution) (OperationResult, Code) {
	account, _ := x.state.accounts.get(c.Account)
	if signer := x.account(c.Signer); signer != c.Account {
		if recovery := x.recovery(account); recovery == nil || recovery.Account != signer {
			return OperationResult{}, RecoveryUnavailable
		}
	}
	if account.Recovery == (Recovery{}) {
		return OperationResult{}, RecoveryNone
	}
	account.Recovery = Recovery{}
	x.state.accounts.put(c.Account, account)
	return OperationResult{}, OK
}

// FinishRecovery puts the announced policy in force, once its time has come. Every grant of the account ends.
type FinishRecovery struct {
	Signer  uint32 // the recovery account
	Account crypto.Address
	Policy  []byte
	Proofs  [][]byte // as of SetPolicy, with RecoveryVersion
}

func (f *FinishRecovery) Kind() Kind { return KindFinishRecovery }
func (f *FinishRecovery) By() uint32 { return f.Signer }

func decodeFinishRecovery(r *canonical.Reader) Operation {
	f := &FinishRecovery{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "account", f.Account[:])
	f.Policy = r.Bytes(3, "policy", crypto.MaxPolicySize)
	f.Proofs = readProofs(r, 4)
	return f
}

func (f *FinishRecovery) encode(w *canonical.Writer) {
	w.Uint32(1, f.Signer)
	w.Message(2, f.Account[:])
	w.Bytes(3, f.Policy)
	for _, p := range f.Proofs {
		w.Message(4, p)
	}
}

func (f *FinishRecovery) validate(b *Body) error {
	if err := checkRecovered(b, f.Signer, f.Account); err != nil {
		return err
	}
	recovered := 0 // see SetPolicy.validate
	for _, op := range b.Operations {
		if other, ok := op.(*FinishRecovery); ok && other.Account == f.Account {
			recovered++
		}
	}
	if recovered > 1 {
		return canonical.Errorf("account", "%s is recovered twice", f.Account)
	}
	return checkNewPolicy(f.Account, f.Policy, f.Proofs)
}

func (f *FinishRecovery) verification(network crypto.Hash, _ *Body, _ uint32) []crypto.Check {
	return possession(network, f.Account, f.Policy, f.Proofs, RecoveryVersion)
}

func (f *FinishRecovery) apply(x *execution) (OperationResult, Code) {
	account, _, code := x.recoverable(f.Account, f.Signer)
	hash := crypto.DomainAddress.Hash(f.Policy)
	switch {
	case code != OK:
		return OperationResult{}, code
	case account.Recovery == (Recovery{}):
		return OperationResult{}, RecoveryNone
	case account.Recovery.Policy != hash:
		return OperationResult{}, RecoveryOtherPolicy
	case x.now() < account.Recovery.ReadyAt:
		return OperationResult{}, RecoveryTooEarly
	}
	account.Policy = hash
	account.PolicyVersion++
	account.Epoch++
	account.Recovery = Recovery{}
	x.state.accounts.put(f.Account, account)
	x.state.policies.put(hash, f.Policy)
	return OperationResult{}, OK
}
