package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	policyFormat  = "pacioli.policy"
	policyVersion = 1
	// MaxPolicyFile bounds a policy file: 16 keys and proofs of ML-DSA-65 are 84 kB, and base64, JSON and the view of it
	// for people come to four times that.
	MaxPolicyFile = 512 << 10
)

// PolicyFile is a policy on its way between the people whose keys are in it. Where it is to become the policy of an account
// that has another one, each key proves that somebody holds it, and the proofs are inside of what is signed then: they have to
// be collected first. It belongs to one goroutine.
type PolicyFile struct {
	Policy crypto.Policy
	For    *PolicyFor // nil: no account has been named
	Proofs [][]byte   // one for each key, in their order; nil: missing. Those that are there verify.
}

// PolicyFor is what the proofs are for.
type PolicyFor struct {
	NetworkID crypto.Hash    `json:"network_id"`
	Account   crypto.Address `json:"account"`
	Version   uint32         `json:"policy_version"` // that the account will have; [ledger.RecoveryVersion] for a recovery
}

// NewPolicyFile makes the file of a policy; who may be nil.
func NewPolicyFile(policy crypto.Policy, who *PolicyFor) *PolicyFile {
	return &PolicyFile{Policy: policy, For: who, Proofs: make([][]byte, len(policy.Keys))}
}

// Missing returns which keys have not proven that they are there.
func (f *PolicyFile) Missing() []int {
	var missing []int
	for i, p := range f.Proofs {
		if p == nil {
			missing = append(missing, i)
		}
	}
	return missing
}

// Prove adds the proofs of the keys that a signer holds, and returns how many it added.
func (f *PolicyFile) Prove(s Signer) (added int, err error) {
	if f.For == nil {
		return 0, errors.New("the policy file names no account to make proofs for")
	}
	message := ledger.PossessionPreimage(f.For.NetworkID, f.For.Account, f.Policy.Hash(), f.For.Version)
	for own, k := range s.Policy().Keys {
		i := slices.IndexFunc(f.Policy.Keys, func(key crypto.Key) bool { return key.Scheme == k.Scheme && bytes.Equal(key.Public, k.Public) })
		if i < 0 || f.Proofs[i] != nil {
			continue
		}
		proof, err := s.Sign(own, message)
		if err != nil {
			return added, fmt.Errorf("proving possession of the %s key %d: %w", k.Scheme, i, err)
		}
		if err := f.AddProof(i, proof); err != nil {
			return added, err
		}
		added++
	}
	return added, nil
}

// AddProof adds a proof that was made elsewhere. One that does not verify is an error.
func (f *PolicyFile) AddProof(key int, proof []byte) error {
	if f.For == nil {
		return errors.New("the policy file names no account, and has proofs")
	}
	if key < 0 || key >= len(f.Policy.Keys) {
		return fmt.Errorf("proof of key %d: there is no such key", key)
	}
	k := f.Policy.Keys[key]
	check := crypto.Check{Scheme: k.Scheme, PublicKey: k.Public, Signature: proof,
		Message: ledger.PossessionPreimage(f.For.NetworkID, f.For.Account, f.Policy.Hash(), f.For.Version)}
	if !check.Verify() {
		return fmt.Errorf("proof of key %d does not verify for this policy, account, network and version", key)
	}
	f.Proofs[key] = proof
	return nil
}

// Merge takes over the proofs of another file of the same policy for the same account.
func (f *PolicyFile) Merge(other *PolicyFile) error {
	if !f.Policy.Equal(other.Policy) {
		return fmt.Errorf("they are different policies: %s and %s", f.Policy.Hash(), other.Policy.Hash())
	}
	switch {
	case other.For == nil:
		return nil
	case f.For == nil:
		who := *other.For
		f.For = &who
	case *f.For != *other.For:
		return fmt.Errorf("their proofs are for different accounts, networks or versions: %s version %d and %s version %d", f.For.Account, f.For.Version, other.For.Account, other.For.Version)
	}
	for i, p := range other.Proofs {
		if p != nil {
			f.Proofs[i] = p
		}
	}
	return nil
}

// policyFile is how the file is written.
type policyFile struct {
	Format  string      `json:"format"`
	Version int         `json:"version"`
	Hash    crypto.Hash `json:"policy_hash"`
	Policy  []byte      `json:"policy"`
	For     *PolicyFor  `json:"for,omitempty"`
	Proofs  []fileProof `json:"proofs,omitempty"`
	View    any         `json:"view,omitempty"` // for people only
}

type fileProof struct {
	Key   int    `json:"key"`
	Proof []byte `json:"proof"`
}

// Encode writes the file as JSON. The view is shown to people and ignored by [DecodePolicyFile].
func (f *PolicyFile) Encode(view any) ([]byte, error) {
	out := policyFile{Format: policyFormat, Version: policyVersion, Hash: f.Policy.Hash(), Policy: f.Policy.Encode(), For: f.For, View: view}
	for i, p := range f.Proofs {
		if p != nil {
			out.Proofs = append(out.Proofs, fileProof{i, p})
		}
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing a policy file: %w", err)
	}
	return append(text, '\n'), nil
}

// DecodePolicyFile reads what [PolicyFile.Encode] wrote, and checks everything: the policy could be registered, the hash is
// its own, every proof verifies.
func DecodePolicyFile(text []byte) (*PolicyFile, error) {
	if len(text) > MaxPolicyFile {
		return nil, fmt.Errorf("policy file has %d bytes, at most %d", len(text), MaxPolicyFile)
	}
	var in policyFile
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("policy file: something stands behind its end")
	}
	if in.Format != policyFormat || in.Version != policyVersion {
		return nil, fmt.Errorf("policy file: format %q version %d, want %q version %d", in.Format, in.Version, policyFormat, policyVersion)
	}
	policy, err := crypto.DecodePolicy(in.Policy)
	if err != nil {
		return nil, fmt.Errorf("policy file: policy: %w", err)
	}
	if policy.Hash() != in.Hash {
		return nil, fmt.Errorf("policy file: policy_hash is %s, the policy's is %s", in.Hash, policy.Hash())
	}
	f := NewPolicyFile(policy, in.For)
	for i, p := range in.Proofs {
		if err := f.AddProof(p.Key, p.Proof); err != nil {
			return nil, fmt.Errorf("policy file: proofs[%d]: %w", i, err)
		}
	}
	return f, nil
}
