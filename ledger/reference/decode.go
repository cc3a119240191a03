package reference

import (
	"bytes"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

const (
	maxTxBytes     = 262_144
	maxPolicyBytes = 31_471
	maxSignature   = 20_480
	lastSecond     = 253_402_300_799
	maxPeriod      = 31_622_400
)

// scheme is a row of the page's table of schemes.
type scheme struct {
	keyBytes int
	cost     uint64
}

var schemes = map[uint32]scheme{1: {32, 10}, 2: {33, 42}, 3: {65, 30}, 4: {1312, 15}, 5: {1952, 30}}

// transaction is a decoded transaction.
type transaction struct {
	tx   *pb.Tx
	body *pb.Body
	size int
}

// canonical reads the one encoding of a message: whatever reads otherwise is not written back with the same bytes, or has
// something unknown in it.
func canonical(b []byte, m proto.Message) bool {
	if proto.Unmarshal(b, m) != nil || unknown(m.ProtoReflect()) {
		return false
	}
	return bytes.Equal(marshal(m), b)
}

func marshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // only strings that are not UTF-8, which were refused
	}
	return b
}

func unknown(m protoreflect.Message) bool {
	found := len(m.GetUnknown()) > 0
	m.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case d.Message() == nil:
		case d.IsList():
			for i := range v.List().Len() {
				found = found || unknown(v.List().Get(i).Message())
			}
		default:
			found = found || unknown(v.Message())
		}
		return !found
	})
	return found
}

func isAmount(b []byte) bool   { return len(b) <= 16 && (len(b) == 0 || b[0] != 0) }
func isPositive(b []byte) bool { return len(b) > 0 && isAmount(b) }
func isOptional(b []byte, n int) bool {
	return len(b) == 0 || len(b) == n && !bytes.Equal(b, make([]byte, n))
}

// policy is a decoded policy, and its hash.
type policy struct {
	*pb.Policy
	raw  []byte
	hash hash
}

// forChange is the weight that changes the policy.
func (p *policy) forChange() uint32 {
	if p.ChangeThreshold != 0 {
		return p.ChangeThreshold
	}
	return p.Threshold
}

func (p *policy) cost() (sum uint64) {
	for _, k := range p.Keys {
		sum += schemes[k.Scheme].cost
	}
	return sum
}

// policy returns the policy of an encoding, nil when it breaks a rule. It decodes each only once.
func (l *Ledger) policy(raw []byte) *policy {
	if p, there := l.decoded[string(raw)]; there {
		return p
	}
	var m pb.Policy
	var p *policy
	if len(raw) <= maxPolicyBytes && canonical(raw, &m) && policyStands(&m) {
		p = &policy{&m, bytes.Clone(raw), sum("pacioli.addr.v1\x00", raw)}
	}
	l.decoded[string(raw)] = p
	return p
}

func policyStands(p *pb.Policy) bool {
	if len(p.Keys) < 1 || len(p.Keys) > 16 {
		return false
	}
	var weight uint32
	for i, k := range p.Keys {
		s, accepted := schemes[k.Scheme]
		if !accepted || len(k.PublicKey) != s.keyBytes || k.Weight < 1 || k.Weight > 65_535 {
			return false
		}
		if i > 0 {
			if before := p.Keys[i-1]; before.Scheme > k.Scheme || before.Scheme == k.Scheme && bytes.Compare(before.PublicKey, k.PublicKey) >= 0 {
				return false
			}
		}
		weight += k.Weight
	}
	if p.Threshold < 1 || p.Threshold > weight {
		return false
	}
	if p.ChangeThreshold != 0 && (p.ChangeThreshold <= p.Threshold || p.ChangeThreshold > weight) {
		return false
	}
	if len(p.RecoveryAccount) == 0 {
		return p.RecoveryDelay == 0
	}
	return isOptional(p.RecoveryAccount, 32) && p.RecoveryDelay >= 3_600 && p.RecoveryDelay <= 31_536_000
}

// decode reads a transaction and holds it against the rules that need no state; nil is malformed.
func (l *Ledger) decode(raw []byte) *transaction {
	var tx pb.Tx
	var body pb.Body
	if len(raw) > maxTxBytes || !canonical(raw, &tx) || !canonical(tx.Body, &body) || !l.bodyStands(&body) {
		return nil
	}
	parties := len(body.Signers)
	if s := tx.Sponsor; s != nil {
		parties++
		if len(s.Address) != 32 || !isAmount(s.MaxFee) || !isAmount(s.MaxDeposit) || len(s.Policy) > 0 && l.policy(s.Policy) == nil {
			return nil
		}
		if amountOf(body.MaxFee).above(amountOf(s.MaxFee)) || amountOf(body.MaxDeposit).above(amountOf(s.MaxDeposit)) {
			return nil
		}
		for _, signer := range body.Signers {
			if bytes.Equal(signer.Address, s.Address) {
				return nil
			}
		}
	}
	if len(tx.Witnesses) > 272 {
		return nil
	}
	for i, w := range tx.Witnesses {
		if int(w.Signer) >= parties || w.Key >= 16 || len(w.Signature) < 1 || len(w.Signature) > maxSignature {
			return nil
		}
		if i > 0 {
			if before := tx.Witnesses[i-1]; before.Signer > w.Signer || before.Signer == w.Signer && before.Key >= w.Key {
				return nil
			}
		}
	}
	return &transaction{&tx, &body, len(raw)}
}

func (l *Ledger) bodyStands(b *pb.Body) bool {
	if b.Version != 1 || b.ValidUntil > lastSecond || !isAmount(b.MaxFee) || !isAmount(b.MaxDeposit) || !isOptional(b.FeeGranter, 32) {
		return false
	}
	if len(b.Signers) < 1 || len(b.Signers) > 16 || len(b.Operations) < 1 || len(b.Operations) > 1_000 {
		return false
	}
	seen := map[string]bool{}
	for _, s := range b.Signers {
		if len(s.Address) != 32 || seen[string(s.Address)] || bytes.Equal(s.Address, b.FeeGranter) {
			return false
		}
		seen[string(s.Address)] = true
		byNonce := len(s.Nonce) > 0
		if byNonce == (s.Sequence > 0) || byNonce && (len(s.Nonce) != 16 || b.ValidUntil == 0) {
			return false
		}
		if len(s.Policy) > 0 && l.policy(s.Policy) == nil {
			return false
		}
	}
	changed, recovered := map[uint32]bool{}, map[string]bool{}
	for _, o := range b.Operations {
		if o.Kind == nil || int(actor(o)) >= len(b.Signers) {
			return false
		}
		if !l.operationStands(o, b.Signers[actor(o)].Address) {
			return false
		}
		switch k := o.Kind.(type) {
		case *pb.Operation_SetPolicy:
			if changed[k.SetPolicy.Signer] {
				return false
			}
			changed[k.SetPolicy.Signer] = true
		case *pb.Operation_FinishRecovery:
			if recovered[string(k.FinishRecovery.Account)] {
				return false
			}
			recovered[string(k.FinishRecovery.Account)] = true
		}
	}
	return true
}

// actor is the index of the signer in whose name an operation acts.
func actor(o *pb.Operation) uint32 {
	switch k := o.Kind.(type) {
	case *pb.Operation_Transfer:
		return k.Transfer.From
	case *pb.Operation_CreateAsset:
		return k.CreateAsset.Issuer
	case *pb.Operation_SetPolicy:
		return k.SetPolicy.Signer
	case *pb.Operation_CreateHold:
		return k.CreateHold.Signer
	case *pb.Operation_PostHold:
		return k.PostHold.Signer
	case *pb.Operation_VoidHold:
		return k.VoidHold.Signer
	case *pb.Operation_SetAsset:
		return k.SetAsset.Signer
	case *pb.Operation_SetLine:
		return k.SetLine.Signer
	case *pb.Operation_Clawback:
		return k.Clawback.Signer
	case *pb.Operation_OpenLine:
		return k.OpenLine.Signer
	case *pb.Operation_CloseLine:
		return k.CloseLine.Signer
	case *pb.Operation_SetAccount:
		return k.SetAccount.Signer
	case *pb.Operation_CloseAccount:
		return k.CloseAccount.Signer
	case *pb.Operation_SetGrant:
		return k.SetGrant.Signer
	case *pb.Operation_RevokeGrant:
		return k.RevokeGrant.Signer
	case *pb.Operation_StartRecovery:
		return k.StartRecovery.Signer
	case *pb.Operation_CancelRecovery:
		return k.CancelRecovery.Signer
	case *pb.Operation_FinishRecovery:
		return k.FinishRecovery.Signer
	case *pb.Operation_Bond:
		return k.Bond.Signer
	case *pb.Operation_ReleaseBond:
		return k.ReleaseBond.Signer
	case *pb.Operation_Propose:
		return k.Propose.Signer
	case *pb.Operation_Approve:
		return k.Approve.Signer
	case *pb.Operation_Reactivate:
		return k.Reactivate.Signer
	}
	panic("an operation without a kind")
}

// operationStands holds one operation of a signer against the tables of the page.
func (l *Ledger) operationStands(o *pb.Operation, signer []byte) bool {
	isSigner := func(b []byte) bool { return bytes.Equal(b, signer) }
	callers := func(reference []byte, code uint32, memo string) bool {
		return isOptional(reference, 16) && code <= 65_535 && len(memo) <= 256
	}
	// debited returns the account that a transfer or a hold takes from, nil for a granter that may not be.
	debited := func(granter []byte) []byte {
		switch {
		case len(granter) == 0:
			return signer
		case !isOptional(granter, 32) || isSigner(granter):
			return nil
		}
		return granter
	}
	switch k := o.Kind.(type) {
	case *pb.Operation_Transfer:
		t := k.Transfer
		from := debited(t.Granter)
		return from != nil && len(t.To) == 32 && !bytes.Equal(t.To, from) && len(t.Asset) == 16 && isPositive(t.Amount) &&
			callers(t.Reference, t.Code, t.Memo) && t.Balancing <= 3
	case *pb.Operation_CreateAsset:
		c := k.CreateAsset
		if len(c.Code) < 3 || len(c.Code) > 12 {
			return false
		}
		for i, x := range []byte(c.Code) {
			if letter, digit := x >= 'A' && x <= 'Z', x >= '0' && x <= '9'; !letter && (i == 0 || !digit) {
				return false
			}
		}
		return c.Scale <= 18 && isPositive(c.MaxSupply) && (len(c.MetadataHash) == 0 || len(c.MetadataHash) == 32) && c.Controls <= 7
	case *pb.Operation_SetPolicy:
		return l.successorStands(k.SetPolicy.Policy, k.SetPolicy.Proofs, signer)
	case *pb.Operation_CreateHold:
		h := k.CreateHold
		from := debited(h.Granter)
		if from == nil || len(h.To) != 32 || bytes.Equal(h.To, from) || len(h.Asset) != 16 || !isPositive(h.Amount) ||
			!callers(h.Reference, h.Code, h.Memo) || h.Balancing > 1 {
			return false
		}
		if h.Expires < 1 || h.Expires > lastSecond || h.NotBefore >= h.Expires || !isOptional(h.Arbiter, 32) || !isOptional(h.HashLock, 32) {
			return false
		}
		arbiter, locked := len(h.Arbiter) > 0, len(h.HashLock) > 0
		if arbiter && (bytes.Equal(h.Arbiter, from) || bytes.Equal(h.Arbiter, h.To)) || h.PostBy > 15 || h.VoidBy > 7 {
			return false
		}
		if arbiter != ((h.PostBy|h.VoidBy)&2 != 0) {
			return false
		}
		return (locked || h.PostBy&8 == 0) && (!locked || !h.PostAtExpiry) && (h.PostBy != 0 || h.PostAtExpiry)
	case *pb.Operation_PostHold:
		return len(k.PostHold.Hold) == 32 && isAmount(k.PostHold.Amount) && len(k.PostHold.Preimage) <= 64
	case *pb.Operation_VoidHold:
		return len(k.VoidHold.Hold) == 32
	case *pb.Operation_SetAsset:
		s := k.SetAsset
		return len(s.Asset) == 16 && s.DropControls <= 7 && isAmount(s.MaxSupply) && s.Freeze <= 3 && s.Unfreeze <= 3 &&
			s.Freeze&s.Unfreeze == 0 && (s.DropControls != 0 || len(s.MaxSupply) > 0 || s.Freeze != 0 || s.Unfreeze != 0)
	case *pb.Operation_SetLine:
		s := k.SetLine
		return len(s.Account) == 32 && !isSigner(s.Account) && len(s.Asset) == 16 && s.Set <= 7 && s.Clear <= 7 && s.Set&s.Clear == 0 &&
			isAmount(s.Credit.GetAmount()) && isAmount(s.Cap.GetAmount()) && (s.Set != 0 || s.Clear != 0 || s.Credit != nil || s.Cap != nil)
	case *pb.Operation_Clawback:
		c := k.Clawback
		return len(c.Account) == 32 && !isSigner(c.Account) && len(c.Asset) == 16 && isPositive(c.Amount) &&
			callers(c.Reference, c.Code, c.Memo) && c.Balancing <= 1
	case *pb.Operation_OpenLine:
		return len(k.OpenLine.Asset) == 16 && isAmount(k.OpenLine.Ceiling.GetAmount())
	case *pb.Operation_CloseLine:
		return len(k.CloseLine.Asset) == 16 && len(k.CloseLine.To) == 32
	case *pb.Operation_SetAccount:
		return k.SetAccount.Set <= 1 && k.SetAccount.Clear == 1-k.SetAccount.Set
	case *pb.Operation_CloseAccount:
		return len(k.CloseAccount.To) == 32
	case *pb.Operation_SetGrant:
		g := k.SetGrant
		return len(g.Grantee) == 32 && !isSigner(g.Grantee) && grantKindStands(g.Kind, g.Asset) &&
			isAmount(g.PerPeriod) && g.Period <= maxPeriod && (g.Period > 0) == (len(g.PerPeriod) > 0) &&
			isAmount(g.Total) && (len(g.PerPeriod) > 0 || len(g.Total) > 0) && g.Until >= 1 && g.Until <= lastSecond &&
			isOptional(g.To, 32) && (g.Kind != 0 || len(g.To) == 0)
	case *pb.Operation_RevokeGrant:
		g := k.RevokeGrant
		return len(g.Grantee) == 32 && !isSigner(g.Grantee) && grantKindStands(g.Kind, g.Asset)
	case *pb.Operation_StartRecovery:
		return len(k.StartRecovery.Account) == 32 && !isSigner(k.StartRecovery.Account) && len(k.StartRecovery.PolicyHash) == 32
	case *pb.Operation_CancelRecovery:
		return len(k.CancelRecovery.Account) == 32
	case *pb.Operation_FinishRecovery:
		f := k.FinishRecovery
		return len(f.Account) == 32 && !isSigner(f.Account) && l.successorStands(f.Policy, f.Proofs, f.Account)
	case *pb.Operation_Bond:
		return isPositive(k.Bond.Amount)
	case *pb.Operation_ReleaseBond, *pb.Operation_Reactivate:
		return true
	case *pb.Operation_Propose:
		return k.Propose.Expires >= 1 && k.Propose.Expires <= lastSecond && changeStands(k.Propose.Change)
	case *pb.Operation_Approve:
		return len(k.Approve.Proposal) == 32
	}
	return false
}

func grantKindStands(kind uint32, asset []byte) bool {
	if kind == 0 {
		return len(asset) == 0
	}
	return (kind == 1 || kind == 4) && len(asset) == 16 && isOptional(asset, 16)
}

// successorStands tells whether a policy may become that of an account, by its form.
func (l *Ledger) successorStands(raw []byte, proofs [][]byte, account []byte) bool {
	p := l.policy(raw)
	if p == nil || len(proofs) != len(p.Keys) || bytes.Equal(p.RecoveryAccount, account) {
		return false
	}
	for _, proof := range proofs {
		if len(proof) < 1 || len(proof) > maxSignature {
			return false
		}
	}
	return true
}
