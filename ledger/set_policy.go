package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// SetPolicy replaces the authorisation policy of the signer's account. The address stays. Every key of the new policy
// proves that somebody holds it, so that a mistyped key cannot lock an account; every transaction that was signed before
// dies with the old policy's version.
type SetPolicy struct {
	Signer uint32   // index of the signer whose policy changes
	Policy []byte   // canonical policy
	Proofs [][]byte // a signature over PossessionPreimage by each key of Policy, in its order
	// RevokeGrants ends every grant that the account has given: what a thief of the old keys may have left behind.
	RevokeGrants bool
}

func (s *SetPolicy) Kind() Kind { return KindSetPolicy }
func (s *SetPolicy) By() uint32 { return s.Signer }

func decodeSetPolicy(r *canonical.Reader) Operation {
	s := &SetPolicy{Signer: r.Uint32(1, "signer"), Policy: r.Bytes(2, "policy", crypto.MaxPolicySize), Proofs: readProofs(r, 3)}
	s.RevokeGrants = r.Bool(4, "revoke_grants")
	return s
}

func readProofs(r *canonical.Reader, number int) (proofs [][]byte) {
	r.Repeated(number, "proofs", crypto.MaxPolicyKeys, func(_ int, element []byte) error {
		if len(element) == 0 || len(element) > MaxSignatureBytes {
			return canonical.Errorf("", "%d bytes, want 1 to %d", len(element), MaxSignatureBytes)
		}
		proofs = append(proofs, element)
		return nil
	})
	return proofs
}

func (s *SetPolicy) encode(w *canonical.Writer) {
	w.Uint32(1, s.Signer)
	w.Bytes(2, s.Policy)
	for _, p := range s.Proofs {
		w.Message(3, p)
	}
	w.Bool(4, s.RevokeGrants)
}

func (s *SetPolicy) validate(b *Body) error {
	// One change per signer keeps the version that the proofs name the same for every check of the transaction. It comes
	// before the arithmetic on keys, which a list of a thousand changes would otherwise buy in one transaction.
	changes := 0
	for _, op := range b.Operations {
		if other, ok := op.(*SetPolicy); ok && other.Signer == s.Signer {
			changes++
		}
	}
	if changes > 1 {
		return canonical.Errorf("signer", "signer %d changes its policy twice", s.Signer)
	}
	return checkNewPolicy(b.Signers[s.Signer].Address, s.Policy, s.Proofs)
}

func (s *SetPolicy) governs(*Body) bool { return true }

// checkNewPolicy checks a policy that an account is to get, and the number and size of its proofs. The keys are checked
// with the signatures.
func checkNewPolicy(account crypto.Address, encoded []byte, proofs [][]byte) error {
	policy, err := crypto.DecodeRegisteredPolicy(encoded)
	if err != nil {
		return canonical.In("policy", err)
	}
	if policy.Recovery != nil && policy.Recovery.Account == account {
		return canonical.Errorf("policy.recovery_account", "%s is the account itself", account)
	}
	if len(proofs) != len(policy.Keys) {
		return canonical.Errorf("proofs", "%d, the policy has %d keys", len(proofs), len(policy.Keys))
	}
	for i, p := range proofs {
		if len(p) == 0 || len(p) > MaxSignatureBytes {
			return canonical.Errorf(index("proofs", i), "%d bytes, want 1 to %d", len(p), MaxSignatureBytes)
		}
	}
	return nil
}

// PossessionPreimage returns the bytes that each key of a new policy signs: domain, network, address, hash of the new
// policy, the policy version that the account will have, as uint32 big-endian; [RecoveryVersion] for a recovery.
func PossessionPreimage(network crypto.Hash, account crypto.Address, policyHash crypto.Hash, newVersion uint32) []byte {
	p := make([]byte, 0, len(crypto.DomainPossession)+32+32+32+4)
	p = append(p, crypto.DomainPossession...)
	p = append(p, network[:]...)
	p = append(p, account[:]...)
	p = append(p, policyHash[:]...)
	return appendUint32(p, newVersion)
}

func (s *SetPolicy) verification(network crypto.Hash, b *Body, policyVersion uint32) []crypto.Check {
	return possession(network, b.Signers[s.Signer].Address, s.Policy, s.Proofs, policyVersion+1)
}

// possession returns the checks of a new policy's keys and of the proofs that somebody holds them.
func possession(network crypto.Hash, account crypto.Address, encoded []byte, proofs [][]byte, newVersion uint32) []crypto.Check {
	policy, err := crypto.DecodeRegisteredPolicy(encoded)
	if err != nil {
		panic("policy of a validated operation: " + err.Error())
	}
	message := PossessionPreimage(network, account, policy.Hash(), newVersion)
	checks := registration(policy)
	for i, k := range policy.Keys {
		checks = append(checks, crypto.Check{Scheme: k.Scheme, PublicKey: k.Public, Message: message, Signature: proofs[i]})
	}
	return checks
}

// registration returns the checks of the keys of a policy that a transaction brings. They cost as much as signatures and
// are paid for, verified and remembered with them: to check them when bytes are decoded would be free for strangers.
func registration(policy crypto.Policy) []crypto.Check {
	checks := make([]crypto.Check, len(policy.Keys), 2*len(policy.Keys))
	for i, k := range policy.Keys {
		checks[i] = crypto.Check{Scheme: k.Scheme, PublicKey: k.Public, KeyOnly: true}
	}
	return checks
}

func (s *SetPolicy) apply(x *execution) (OperationResult, Code) {
	address := x.tx.Body.Signers[s.Signer].Address
	account, _ := x.state.accounts.get(address) // exists: the signer was registered when the transaction was admitted
	hash := crypto.DomainAddress.Hash(s.Policy)
	if hash == account.Policy {
		return OperationResult{}, PolicyUnchanged
	}
	account.Policy = hash
	account.PolicyVersion++
	account.Recovery = Recovery{}
	if s.RevokeGrants {
		account.Epoch++
	}
	x.state.accounts.put(address, account)
	x.state.policies.put(hash, s.Policy)
	return OperationResult{}, OK
}
