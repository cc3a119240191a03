package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/big"
	"math/rand"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/crypto"
	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// The codec of the ledger against the code that google's generator makes from the published .proto files: equal bytes for
// whatever is valid, and our decoder accepts exactly what google's accepts, re-encodes to the same bytes, has nothing
// unknown, and passes the rules of docs/PROTOCOL.md, which stand here a second time, over the generated messages.

// oracle tells whether b is the one encoding of a message: google reads it, finds nothing unknown and writes it back.
func oracle(b []byte, m proto.Message) bool {
	if proto.Unmarshal(b, m) != nil || unknown(m.ProtoReflect()) {
		return false
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return err == nil && bytes.Equal(again, b)
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

func amountOK(b []byte) bool { return len(b) <= 16 && (len(b) == 0 || b[0] != 0) }
func optional(b []byte, n int) bool {
	return len(b) == 0 || len(b) == n && !bytes.Equal(b, make([]byte, n))
}

func policyOK(b []byte) bool {
	var m pb.Policy
	if len(b) > crypto.MaxPolicySize || !oracle(b, &m) || len(m.Keys) == 0 || len(m.Keys) > 16 || m.Threshold == 0 {
		return false
	}
	var sum uint32
	for i, k := range m.Keys {
		if k.Weight == 0 || k.Weight > 65535 || len(k.PublicKey) == 0 || len(k.PublicKey) != crypto.Scheme(k.Scheme).PublicKeySize() {
			return false
		}
		if i > 0 {
			p := m.Keys[i-1]
			if p.Scheme > k.Scheme || p.Scheme == k.Scheme && bytes.Compare(p.PublicKey, k.PublicKey) >= 0 {
				return false
			}
		}
		sum += k.Weight
	}
	if m.ChangeThreshold != 0 && (m.ChangeThreshold <= m.Threshold || m.ChangeThreshold > sum) || !optional(m.RecoveryAccount, 32) {
		return false
	}
	if len(m.RecoveryAccount) == 0 && m.RecoveryDelay != 0 || len(m.RecoveryAccount) != 0 && (m.RecoveryDelay < 3600 || m.RecoveryDelay > 365*86400) {
		return false
	}
	return m.Threshold <= sum
}

func bodyOK(raw []byte) bool {
	var m pb.Body
	if !oracle(raw, &m) || m.Version != 1 || m.ValidUntil > 253402300799 || !amountOK(m.MaxFee) {
		return false
	}
	if len(m.Signers) == 0 || len(m.Signers) > 16 || len(m.Operations) == 0 || len(m.Operations) > 1000 {
		return false
	}
	seen := map[string]bool{}
	for _, s := range m.Signers {
		if len(s.Address) != 32 || seen[string(s.Address)] || len(s.Policy) > 0 && !policyOK(s.Policy) {
			return false
		}
		seen[string(s.Address)] = true
		if (s.Sequence == 0) != (len(s.Nonce) == 16) || s.Sequence != 0 && len(s.Nonce) != 0 || len(s.Nonce) != 0 && m.ValidUntil == 0 {
			return false
		}
	}
	if !amountOK(m.MaxDeposit) || !optional(m.FeeGranter, 32) || seen[string(m.FeeGranter)] {
		return false
	}
	once := map[string]bool{}
	for _, o := range m.Operations {
		if !operationOK(&m, o, once) {
			return false
		}
	}
	return true
}

// noteOK: fields 5 to 7 of what moves something, and its amount.
func noteOK(amount, reference []byte, code uint32, memo string) bool {
	return len(amount) > 0 && amountOK(amount) && optional(reference, 16) && code <= 65535 && len(memo) <= 256 && utf8.ValidString(memo)
}

func proofsOK(policy []byte, proofs [][]byte, account []byte) bool {
	var p pb.Policy
	if !policyOK(policy) || proto.Unmarshal(policy, &p) != nil || len(p.Keys) != len(proofs) || bytes.Equal(p.RecoveryAccount, account) {
		return false
	}
	for _, proof := range proofs {
		if len(proof) == 0 || len(proof) > MaxSignatureBytes {
			return false
		}
	}
	return true
}

// operationOK is the tables of docs/PROTOCOL.md. once holds what may stand once in a transaction.
func operationOK(m *pb.Body, o *pb.Operation, once map[string]bool) bool {
	arm := o.ProtoReflect().WhichOneof(o.ProtoReflect().Descriptor().Oneofs().Get(0))
	if arm == nil {
		return false
	}
	kind := o.ProtoReflect().Get(arm).Message()
	by := uint32(kind.Get(kind.Descriptor().Fields().ByNumber(1)).Uint()) // the first field of every operation
	if int64(by) >= int64(len(m.Signers)) {
		return false
	}
	signer := m.Signers[by].Address
	address := func(a []byte) bool { return len(a) == 32 }
	another := func(a []byte) bool { return len(a) == 32 && !bytes.Equal(a, signer) }
	granted := func(granter, to []byte) bool { // who is debited does not pay itself
		debited := signer
		if len(granter) != 0 {
			debited = granter
		}
		return optional(granter, 32) && !bytes.Equal(granter, signer) && address(to) && !bytes.Equal(debited, to)
	}
	limit := func(l *pb.Limit) bool { return amountOK(l.GetAmount()) }
	isOnce := func(key string) bool {
		first := !once[key]
		once[key] = true
		return first
	}
	const year9999 = 253402300799
	switch k := o.Kind.(type) {
	case *pb.Operation_Transfer:
		t := k.Transfer
		return granted(t.Granter, t.To) && len(t.Asset) == 16 && noteOK(t.Amount, t.Reference, t.Code, t.Memo) && t.Balancing <= 3
	case *pb.Operation_CreateAsset:
		c := k.CreateAsset
		if len(c.Code) < 3 || len(c.Code) > 12 || c.Scale > 18 || len(c.MaxSupply) == 0 || !amountOK(c.MaxSupply) ||
			len(c.MetadataHash) != 0 && len(c.MetadataHash) != 32 || c.Controls > 7 {
			return false
		}
		for i, x := range []byte(c.Code) {
			if !(x >= 'A' && x <= 'Z' || i > 0 && x >= '0' && x <= '9') {
				return false
			}
		}
		return true
	case *pb.Operation_SetPolicy:
		return isOnce(fmt.Sprint("policy of signer ", by)) && proofsOK(k.SetPolicy.Policy, k.SetPolicy.Proofs, signer)
	case *pb.Operation_CreateHold:
		h := k.CreateHold
		debited := signer
		if len(h.Granter) != 0 {
			debited = h.Granter
		}
		arbitrated, locked := len(h.Arbiter) != 0, len(h.HashLock) != 0
		return granted(h.Granter, h.To) && len(h.Asset) == 16 && noteOK(h.Amount, h.Reference, h.Code, h.Memo) && h.Balancing <= 1 &&
			h.Expires >= 1 && h.Expires <= year9999 && h.NotBefore < h.Expires &&
			optional(h.Arbiter, 32) && !bytes.Equal(h.Arbiter, h.To) && !bytes.Equal(h.Arbiter, debited) && optional(h.HashLock, 32) &&
			h.PostBy <= 15 && h.VoidBy <= 7 && arbitrated == ((h.PostBy|h.VoidBy)&2 != 0) && (h.PostBy&8 == 0 || locked) &&
			(h.PostBy != 0 || h.PostAtExpiry) && !(h.PostAtExpiry && locked)
	case *pb.Operation_PostHold:
		return address(k.PostHold.Hold) && amountOK(k.PostHold.Amount) && len(k.PostHold.Preimage) <= 64
	case *pb.Operation_VoidHold:
		return address(k.VoidHold.Hold)
	case *pb.Operation_SetAsset:
		a := k.SetAsset
		return len(a.Asset) == 16 && a.DropControls <= 7 && amountOK(a.MaxSupply) && a.Freeze <= 3 && a.Unfreeze <= 3 && a.Freeze&a.Unfreeze == 0 &&
			(a.DropControls != 0 || len(a.MaxSupply) != 0 || a.Freeze != 0 || a.Unfreeze != 0)
	case *pb.Operation_SetLine:
		l := k.SetLine
		return another(l.Account) && len(l.Asset) == 16 && l.Set <= 7 && l.Clear <= 7 && l.Set&l.Clear == 0 && limit(l.Credit) && limit(l.Cap) &&
			(l.Set != 0 || l.Clear != 0 || l.Credit != nil || l.Cap != nil)
	case *pb.Operation_Clawback:
		c := k.Clawback
		return another(c.Account) && len(c.Asset) == 16 && noteOK(c.Amount, c.Reference, c.Code, c.Memo) && c.Balancing <= 1
	case *pb.Operation_OpenLine:
		return len(k.OpenLine.Asset) == 16 && limit(k.OpenLine.Ceiling)
	case *pb.Operation_CloseLine:
		return len(k.CloseLine.Asset) == 16 && address(k.CloseLine.To)
	case *pb.Operation_SetAccount:
		return k.SetAccount.Set == 1 && k.SetAccount.Clear == 0 || k.SetAccount.Set == 0 && k.SetAccount.Clear == 1
	case *pb.Operation_CloseAccount:
		return address(k.CloseAccount.To)
	case *pb.Operation_SetGrant:
		g := k.SetGrant
		return grantOK(signer, g.Grantee, g.Kind, g.Asset) && amountOK(g.PerPeriod) && (len(g.PerPeriod) != 0) == (g.Period != 0) && g.Period <= 31_622_400 &&
			amountOK(g.Total) && (len(g.PerPeriod) != 0 || len(g.Total) != 0) && g.Until >= 1 && g.Until <= year9999 && optional(g.To, 32) &&
			(g.Kind != 0 || len(g.To) == 0)
	case *pb.Operation_RevokeGrant:
		return grantOK(signer, k.RevokeGrant.Grantee, k.RevokeGrant.Kind, k.RevokeGrant.Asset)
	case *pb.Operation_StartRecovery:
		return another(k.StartRecovery.Account) && len(k.StartRecovery.PolicyHash) == 32
	case *pb.Operation_CancelRecovery:
		return address(k.CancelRecovery.Account)
	case *pb.Operation_FinishRecovery:
		f := k.FinishRecovery
		return another(f.Account) && isOnce("recovery of "+string(f.Account)) && proofsOK(f.Policy, f.Proofs, f.Account)
	case *pb.Operation_Bond:
		return len(k.Bond.Amount) > 0 && amountOK(k.Bond.Amount)
	case *pb.Operation_ReleaseBond, *pb.Operation_Reactivate:
		return true
	case *pb.Operation_Propose:
		return k.Propose.Expires >= 1 && k.Propose.Expires <= year9999 && changeOK(k.Propose.Change)
	case *pb.Operation_Approve:
		return len(k.Approve.Proposal) == 32
	}
	return false
}

func changeOK(c *pb.Change) bool {
	brings := func(operator []byte, scheme uint32, key, proof []byte) bool {
		return len(operator) == 32 && optional(operator, 32) && (scheme == 1 && len(key) == 32 || scheme == 5 && len(key) == 1952) &&
			len(proof) > 0 && len(proof) <= MaxSignatureBytes
	}
	power := func(p uint64) bool { return p >= 1 && p <= 1<<50 }
	switch k := c.GetKind().(type) {
	case *pb.Change_AddValidator:
		a := k.AddValidator
		return brings(a.Operator, a.Scheme, a.PublicKey, a.Proof) && power(a.Power) && len(a.Name) <= 64 &&
			!strings.ContainsFunc(a.Name, func(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f })
	case *pb.Change_RemoveValidator:
		return len(k.RemoveValidator.Validator) == 20
	case *pb.Change_SetPower:
		return len(k.SetPower.Validator) == 20 && power(k.SetPower.Power)
	case *pb.Change_RotateKey:
		r := k.RotateKey
		return len(r.Validator) == 20 && brings(r.Operator, r.Scheme, r.PublicKey, r.Proof)
	case *pb.Change_SetParameters:
		return len(k.SetParameters.Before) == 32 && k.SetParameters.Parameters != nil && parametersOK(k.SetParameters.Parameters)
	}
	return false
}

// parametersOK is the table of parameters of docs/PROTOCOL.md.
func parametersOK(p *pb.Parameters) bool {
	for i, a := range p.AssetCreators {
		if len(a) != 32 || i > 0 && bytes.Compare(p.AssetCreators[i-1], a) >= 0 {
			return false
		}
	}
	for _, unit := range []uint64{p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature, p.DepositAccount, p.DepositLine, p.DepositHold, p.DepositGrant,
		p.FeeTargetWeight, p.Bond} {
		if unit > 1<<40 {
			return false
		}
	}
	w, m := p.MissedWindow, p.MaxMissed
	return len(p.FeeAsset) == 16 && len(p.FeeCollector) == 32 && len(p.AssetCreators) <= 256 && p.MaxTxBytes >= 1024 && p.MaxTxBytes <= 262_144 &&
		p.ReplayWindowSeconds >= 1 && p.ReplayWindowSeconds <= 86_400 && p.MaxOpenNonces >= 1 && p.MaxOpenNonces < 1<<32 &&
		p.MaxHoldSeconds >= 1 && p.MaxHoldSeconds <= 315_360_000 && p.MaxExpiries >= 1 && p.MaxExpiries <= 10_000 &&
		p.MaxFeeMultiplier >= 1000 && p.MaxFeeMultiplier <= 1_000_000 && p.BondSeconds >= 1 && p.BondSeconds <= 31_622_400 &&
		(w == 0 && m == 0 || w >= 10 && w <= 100_000 && m >= 1 && m < w)
}

func grantOK(granter, grantee []byte, kind uint32, asset []byte) bool {
	return len(grantee) == 32 && !bytes.Equal(grantee, granter) && (kind == 0 || kind == 1 || kind == 4) && optional(asset, 16) && (kind == 0) == (len(asset) == 0)
}

func txOK(raw []byte) bool {
	var m pb.Tx
	if len(raw) > MaxTxBytes || !oracle(raw, &m) || !bodyOK(m.Body) || len(m.Witnesses) > MaxWitnesses {
		return false
	}
	var b pb.Body
	if proto.Unmarshal(m.Body, &b) != nil {
		return false
	}
	parties := len(b.Signers)
	if p := m.Sponsor; p != nil {
		parties++
		if len(p.Address) != 32 || !amountOK(p.MaxFee) || !amountOK(p.MaxDeposit) || len(p.Policy) > 0 && !policyOK(p.Policy) {
			return false
		}
		number := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
		if number(p.MaxFee).Cmp(number(b.MaxFee)) < 0 || number(p.MaxDeposit).Cmp(number(b.MaxDeposit)) < 0 {
			return false
		}
		for _, s := range b.Signers {
			if bytes.Equal(s.Address, p.Address) {
				return false
			}
		}
	}
	for i, w := range m.Witnesses {
		if int64(w.Signer) >= int64(parties) || w.Key >= 16 || len(w.Signature) == 0 || len(w.Signature) > MaxSignatureBytes {
			return false
		}
		if i > 0 {
			if p := m.Witnesses[i-1]; p.Signer > w.Signer || p.Signer == w.Signer && p.Key >= w.Key {
				return false
			}
		}
	}
	return true
}

// seed is a transaction of the list that vectors, mutations and fuzzing begin with.
type seed struct {
	name string
	raw  []byte
	code Code // OK but for a recovery, which takes its time
}

var seedList []seed // made once: it is the same for all tests

// seeds are transactions of every kind and scheme, all of them admitted, in the order in which they are applied.
func seeds(t testing.TB) (list [][]byte) {
	for _, s := range namedSeeds(t) {
		list = append(list, s.raw)
	}
	return list
}

func namedSeeds(t testing.TB) []seed {
	if seedList != nil {
		return seedList
	}
	w := smallWorld(t)
	w.next(1001_000)
	var list []seed
	put := func(name string, raw []byte, code Code) {
		if r := w.apply(raw); r.Code != code {
			t.Fatalf("seed %q: %s", name, r.Code)
		}
		list = append(list, seed{name, raw, code})
	}
	add := func(name string, b *Body) { put(name, w.seal(b), OK) }
	one := func(name, from string, operations ...Operation) {
		add(name, &Body{Signers: []Signer{w.signer(from)}, MaxFee: Units(500), Operations: operations})
	}
	for _, s := range [][2]string{{"alice", "ed25519"}, {"bob", "secp256k1"}, {"carol", "ml-dsa-44"}, {"dave", "ml-dsa-65"}, {"erin", "hybrid ed25519 and ml-dsa-44"},
		{"team", "two of three by weight, second signature of secp256k1"}, {"mixed", "every scheme in one policy"}} {
		add(s[1], w.payment(s[0], "zoe", Units(100), "EUR"))
	}
	b := w.payment("alice", "bob", Units(100), "EUR")
	b.ValidUntil, b.Signers[0].Sequence, b.Signers[0].Nonce = 1100, 0, [16]byte{1, 2, 3}
	t2 := b.Operations[0].(*Transfer)
	t2.Reference, t2.Code, t2.Memo = Reference{9}, 77, "rent, März"
	add("nonce, valid_until, reference, code, memo", b)
	usd := NewAssetID(w.address("bob"), "USD")
	add("two signers, two assets, a new asset", &Body{Signers: []Signer{w.signer("alice"), w.signer("bob")}, MaxFee: Units(500), ValidUntil: 2000, Operations: []Operation{
		&CreateAsset{Issuer: 1, Code: "USD", Scale: 2, MaxSupply: Units(1e6), MetadataHash: bytes.Repeat([]byte{7}, 32)},
		&Transfer{From: 1, To: w.address("alice"), Asset: usd, Amount: Units(5)},
		&Transfer{From: 0, To: w.address("bob"), Asset: w.asset("EUR"), Amount: Units(5)},
	}})
	proofs := func(p crypto.Policy, account string, version uint32) (proofs [][]byte) {
		message := PossessionPreimage(w.networkID(), w.address(account), p.Hash(), version)
		for _, k := range p.Keys {
			proofs = append(proofs, w.sign(k, message))
		}
		return proofs
	}
	p := w.policy("2 ed25519:alice2 secp256k1:alice3 ed25519:alice4")
	one("set_policy", "alice", &SetPolicy{Policy: p.Encode(), Proofs: proofs(p, "alice", 1)})
	add("after set_policy: policy version 1", w.payment("alice", "bob", Units(1), "EUR"))

	eur, gld := w.asset("EUR"), NewAssetID(w.address("bob"), "GLD")
	ten, hundred, none := Units(10), Units(100), Amount{}
	one("create_asset with controls", "bob", &CreateAsset{Code: "GLD", Scale: 3, MaxSupply: Units(5000), Controls: allControls})
	one("set_line with credit and cap", "bob", &SetLine{Account: w.address("alice"), Asset: gld, Set: LineAuthorised, Clear: lineFrozen, Credit: &ten, Cap: &hundred})
	one("set_line without a limit", "bob", &SetLine{Account: w.address("alice"), Asset: gld, Set: LineFrozenIn, Cap: &none})
	one("set_asset: freeze, lower maximum", "bob", &SetAsset{Asset: gld, MaxSupply: Units(4000), Freeze: lineFrozen})
	one("set_asset: unfreeze, drop a control", "bob", &SetAsset{Asset: gld, DropControls: ControlFreeze, Unfreeze: LineFrozenOut})
	one("clawback", "bob", &Transfer{To: w.address("alice"), Asset: gld, Amount: Units(50)},
		&Clawback{Account: w.address("alice"), Asset: gld, Amount: Units(60), Reference: Reference{8}, Code: 3, Memo: "case 7", Balancing: BalancingDebit})
	one("open_line with a ceiling", "dave", &OpenLine{Asset: usd, Ceiling: &hundred})
	one("set_account", "dave", &SetAccount{OptIn: true})
	one("set_account back", "dave", &SetAccount{})
	one("close_line", "dave", &CloseLine{Asset: usd, To: w.address("alice")})
	lock := sha256.Sum256([]byte("preimage"))
	hold := &CreateHold{To: w.address("bob"), Asset: eur, Amount: Units(40), Reference: Reference{7}, Code: 9, Memo: "order 5", Balancing: BalancingDebit,
		Expires: 1500, NotBefore: 1000, Arbiter: w.address("carol"), HashLock: lock, PostBy: ByReceiver | ByArbiter | ByHolder | ByAnybody, VoidBy: ByReceiver | ByArbiter | ByHolder}
	one("create_hold with every field", "alice", hold, &CreateHold{To: w.address("bob"), Asset: eur, Amount: Units(41), Expires: 1500, PostBy: ByHolder, VoidBy: ByHolder})
	made := BodyID(w.networkID(), mustDecode(t, list[len(list)-1].raw).BodyBytes())
	one("post_hold in part, by the arbiter", "carol", &PostHold{Hold: HoldID(made, 0), Amount: Units(30), Preimage: []byte("preimage")})
	one("void_hold", "alice", &VoidHold{Hold: HoldID(made, 1)})
	one("create_hold posted at expiry", "alice", &CreateHold{To: w.address("bob"), Asset: eur, Amount: Units(42), Expires: 1001 + 86400, PostAtExpiry: true})
	one("set_grant of all kinds", "alice",
		&SetGrant{Grantee: w.address("bob"), For: KindTransfer, Asset: eur, PerPeriod: Units(1000), Period: 60, Total: Units(5000), Until: 5000, To: w.address("carol")},
		&SetGrant{Grantee: w.address("bob"), For: KindCreateHold, Asset: eur, Total: Units(5000), Until: 5000},
		&SetGrant{Grantee: w.address("bob"), PerPeriod: Units(1000), Period: MaxPeriodSeconds, Until: MaxUnixSeconds})
	one("transfer and create_hold under grants", "bob",
		&Transfer{To: w.address("carol"), Asset: eur, Amount: Units(10), Balancing: BalancingDebit, Granter: w.address("alice")},
		&CreateHold{To: w.address("carol"), Asset: eur, Amount: Units(11), Expires: 1600, PostBy: ByReceiver, VoidBy: ByReceiver, Granter: w.address("alice")})
	b = w.payment("bob", "zoe", Units(2), "EUR")
	b.MaxDeposit, b.FeeGranter = Units(1000), w.address("alice")
	add("fee_granter, max_deposit", b)
	one("revoke_grant", "alice", &RevokeGrant{Grantee: w.address("bob"), For: KindTransfer, Asset: eur}, &RevokeGrant{Grantee: w.address("bob")})
	sponsored := func(name string, sponsor *Sponsor) {
		b := w.payment("bob", "zoe", Units(3), "EUR")
		b.MaxFee = Amount{}
		body := b.Encode()
		put(name, w.sponsored(body, w.witnesses(b, body), sponsor, 1), OK)
	}
	sponsored("sponsor with a hybrid policy", &Sponsor{Address: w.address("erin"), MaxFee: Units(500)})
	sponsored("sponsor that signs for the first time", &Sponsor{Address: w.address("zoe"), MaxFee: Units(500), MaxDeposit: Units(7), Policy: w.firstPolicy("zoe").Encode()})
	p = w.policy("1 secp256k1:bob ed25519:bob2 change:2 recovery:carol:3600")
	one("set_policy with a change threshold and a recovery account", "bob", &SetPolicy{Policy: p.Encode(), Proofs: proofs(p, "bob", 1)})
	q := w.policy("1 ml-dsa-44:bob3")
	one("start_recovery", "carol", &StartRecovery{Account: w.address("bob"), PolicyHash: q.Hash()})
	one("cancel_recovery, by the change threshold", "bob", &CancelRecovery{Account: w.address("bob")})
	one("start_recovery again", "carol", &StartRecovery{Account: w.address("bob"), PolicyHash: q.Hash()})
	finish := &Body{Signers: []Signer{w.signer("carol")}, MaxFee: Units(500),
		Operations: []Operation{&FinishRecovery{Account: w.address("bob"), Policy: q.Encode(), Proofs: proofs(q, "bob", RecoveryVersion)}}}
	put("finish_recovery", w.seal(finish), RecoveryTooEarly)
	p = w.policy("1 ed25519:alice5")
	one("set_policy with revoke_grants", "alice", &SetPolicy{Policy: p.Encode(), Proofs: proofs(p, "alice", 2), RevokeGrants: true})
	add("close_account", &Body{Signers: []Signer{w.signer("alice"), w.signer("gone")}, MaxFee: Units(500),
		Operations: []Operation{&CloseAccount{Signer: 1, To: w.address("alice")}}})

	one("bond, release_bond", "dave", &Bond{Amount: Units(10)}, &ReleaseBond{}, &Bond{Amount: Units(11)})
	key := func(scheme crypto.Scheme) (public, proof []byte) { // for dave
		k, err := crypto.NewPrivateKey(scheme, bytes.Repeat([]byte{7}, 32))
		if err == nil {
			proof, err = k.Sign(ConsensusKeyPreimage(w.networkID(), w.address("dave"), scheme, k.Public()))
		}
		if err != nil {
			t.Fatal(err)
		}
		return k.Public(), proof
	}
	a, k := &AddValidator{Operator: w.address("dave"), Scheme: crypto.Ed25519, Power: 10, Name: "süd"}, &RotateKey{Validator: ConsensusAddress{1}, Operator: w.address("dave"), Scheme: crypto.MLDSA65}
	a.PublicKey, a.Proof = key(a.Scheme)
	k.PublicKey, k.Proof = key(k.Scheme)
	next := w.block.nextParameters()
	next.Bond, next.AssetCreators = 7, []crypto.Address{{1}, {2}}
	// No account operates a validator in this world, which its network's id would tell: these are admitted, pay, and fail.
	votes := func(name string, code Code, operations ...Operation) {
		put(name, w.seal(&Body{Signers: []Signer{w.signer("dave")}, MaxFee: Units(500), Operations: operations}), code)
	}
	votes("propose add_validator", NotValidator, &Propose{Expires: 2000, Change: a})
	votes("propose rotate_key", NotValidator, &Propose{Expires: 2000, Change: k})
	votes("propose remove_validator, set_power, set_parameters", NotValidator, &Propose{Expires: 2000, Change: &RemoveValidator{ConsensusAddress{1}}},
		&Propose{Expires: 2001, Change: &SetPower{ConsensusAddress{2}, 1 << 50}}, &Propose{Expires: 2002, Change: &SetParameters{Before: crypto.Hash{3}, Parameters: next}})
	votes("approve, withdraw", NotValidator, &Approve{Proposal: crypto.Hash{4}}, &Approve{Proposal: crypto.Hash{5}, Withdraw: true})
	votes("reactivate", ValidatorNotInactive, &Reactivate{})
	seedList = list
	return list
}

// knowSeeds gives a world the names and keys of the seeds.
func (w *world) knowSeeds() {
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "team", "mixed", "zoe", "gone"} {
		w.address(name)
	}
	for _, text := range []string{"2 ed25519:alice2 secp256k1:alice3 ed25519:alice4", "1 ed25519:alice5",
		"1 secp256k1:bob ed25519:bob2 change:2 recovery:carol:3600", "1 ml-dsa-44:bob3"} {
		w.policy(text)
	}
}

func mustDecode(t testing.TB, raw []byte) *Tx {
	tx, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// field is one field of a message that a mutation takes apart, whatever the schema.
type field struct {
	number   protowire.Number
	kind     protowire.Type
	varint   uint64
	bytes    []byte
	message  []field // of a bytes field that reads as a message, sometimes
	overlong int     // bytes by which the varint, or the length, is longer than it needs to be
}

func dissect(b []byte, r *rand.Rand, depth int) ([]field, bool) {
	var fields []field
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		f := field{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
			if n > 0 && depth < 6 && len(f.bytes) > 0 && r.Intn(4) > 0 {
				if m, ok := dissect(f.bytes, r, depth+1); ok {
					f.message = m
				}
			}
		default:
			return nil, false
		}
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		fields = append(fields, f)
	}
	return fields, true
}

func appendOverlong(b []byte, v uint64, extra int) []byte {
	b = protowire.AppendVarint(b, v)
	for ; extra > 0; extra-- {
		b[len(b)-1] |= 0x80
		b = append(b, 0)
	}
	return b
}

func assemble(fields []field) (b []byte) {
	for _, f := range fields {
		b = protowire.AppendTag(b, f.number, f.kind)
		if f.kind == protowire.VarintType {
			b = appendOverlong(b, f.varint, f.overlong)
			continue
		}
		content := f.bytes
		if f.message != nil {
			content = assemble(f.message)
		}
		b = appendOverlong(b, uint64(len(content)), f.overlong)
		b = append(b, content...)
	}
	return b
}

// mutate changes a little of a message, mostly leaving all lengths around it right.
func mutate(raw []byte, r *rand.Rand) []byte {
	if r.Intn(12) == 0 {
		return mutateBytes(raw, r)
	}
	fields, ok := dissect(raw, r, 0)
	if !ok {
		return mutateBytes(raw, r)
	}
	for n := 1 + r.Intn(2); n > 0; n-- {
		fields = mutateFields(fields, r)
	}
	return assemble(fields)
}

func mutateBytes(raw []byte, r *rand.Rand) []byte {
	b := bytes.Clone(raw)
	switch i := r.Intn(len(b) + 1); r.Intn(4) {
	case 0:
		b = append(b[:i:i], b[min(i+1, len(b)):]...)
	case 1:
		b = append(b[:i:i], append([]byte{byte(r.Intn(256))}, b[i:]...)...)
	case 2:
		b = b[:i]
	default:
		if i < len(b) {
			b[i] ^= 1 << r.Intn(8)
		}
	}
	return b
}

func mutateFields(fields []field, r *rand.Rand) []field {
	if len(fields) == 0 {
		return append(fields, field{number: protowire.Number(1 + r.Intn(9)), varint: uint64(r.Intn(3))})
	}
	i := r.Intn(len(fields))
	f := &fields[i]
	if f.message != nil && r.Intn(5) > 0 {
		f.message = mutateFields(f.message, r)
		return fields
	}
	switch r.Intn(9) {
	case 0: // drop
		return append(fields[:i:i], fields[i+1:]...)
	case 1: // twice
		return append(fields[:i:i], append([]field{*f}, fields[i:]...)...)
	case 2: // swap
		j := r.Intn(len(fields))
		fields[i], fields[j] = fields[j], fields[i]
	case 3:
		f.overlong = 1 + r.Intn(2)
	case 4: // another number
		f.number = protowire.Number(1 + r.Intn(9))
	case 5: // another field
		extra := field{number: protowire.Number(1 + r.Intn(12)), kind: protowire.VarintType, varint: uint64(r.Intn(4))}
		if r.Intn(2) == 0 {
			extra.kind, extra.bytes = protowire.BytesType, make([]byte, []int{0, 1, 16, 32}[r.Intn(4)])
			r.Read(extra.bytes)
		}
		j := r.Intn(len(fields) + 1)
		return append(fields[:j:j], append([]field{extra}, fields[j:]...)...)
	default: // another value
		if f.kind == protowire.VarintType {
			f.varint = []uint64{0, 1, f.varint + 1, f.varint - 1, 1 << 16, 1 << 32, 1<<32 + f.varint, r.Uint64()}[r.Intn(8)]
			return fields
		}
		if f.message != nil {
			f.bytes, f.message = assemble(f.message), nil
		}
		f.bytes = bytes.Clone(f.bytes)
		switch r.Intn(5) {
		case 0:
			f.bytes = nil
		case 1:
			f.bytes = append([]byte{0}, f.bytes...)
		case 2:
			f.bytes = append(f.bytes, byte(r.Intn(256)))
		case 3:
			if len(f.bytes) > 0 {
				f.bytes = f.bytes[:len(f.bytes)-1]
			}
		default:
			if len(f.bytes) > 0 {
				f.bytes[r.Intn(len(f.bytes))] ^= 1 << r.Intn(8)
			}
		}
	}
	return fields
}

// TestDifferentialMutated: 100,000 mutations of real transactions.
func TestDifferentialMutated(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewSource(seed))
	list := seeds(t)
	total := 100_000
	if testing.Short() {
		total = 10_000
	}
	accepted := 0
	for n := range total {
		raw := mutate(list[r.Intn(len(list))], r)
		tx, err := Decode(raw)
		if want := txOK(raw); want != (err == nil) {
			t.Fatalf("seed %d, mutation %d: google and the rules say %v, Decode says %v\n%x", seed, n, want, err, raw)
		}
		if err == nil {
			accepted++
			if again := Assemble(tx.Body.Encode(), tx.Witnesses, tx.Sponsor); !bytes.Equal(again, raw) {
				t.Fatalf("seed %d, mutation %d: encodes to\n%x, was\n%x", seed, n, again, raw)
			}
		}
	}
	t.Logf("%d of %d mutations accepted", accepted, total)
	if accepted < total/50 || accepted > total/2 {
		t.Errorf("%d of %d accepted: the mutations are too wild or too tame to tell anything", accepted, total)
	}
}

// rowKinds are the messages besides the transaction: their decoder followed by their encoder, google's message, and the
// rules over its fields.
var rowKinds = []struct {
	name    string
	again   func(b []byte) ([]byte, error)
	message func() proto.Message
	rules   func(m proto.Message) bool
}{
	{"account", row(DecodeAccount, Account.encode), func() proto.Message { return &pb.Account{} },
		func(m proto.Message) bool {
			a := m.(*pb.Account)
			return len(a.Policy) == 32 && amountOK(a.Deposit) && optional(a.ClosedHead, 32) && optional(a.Depositor, 32) && (a.Recovery == nil || len(a.Recovery.Policy) == 32)
		}},
	{"line", row(DecodeLine, Line.encode), func() proto.Message { return &pb.Line{} }, func(m proto.Message) bool {
		l := m.(*pb.Line)
		return amountOK(l.DebitsPending) && amountOK(l.DebitsPosted) && amountOK(l.CreditsPending) && amountOK(l.CreditsPosted) && len(l.Head) == 32 &&
			amountOK(l.Ceiling) && amountOK(l.Credit) && amountOK(l.Cap) && amountOK(l.Deposit) && optional(l.Depositor, 32)
	}},
	{"asset", row(DecodeAsset, Asset.encode), func() proto.Message { return &pb.Asset{} }, func(m proto.Message) bool {
		a := m.(*pb.Asset)
		return len(a.Issuer) == 32 && len(a.Code) <= 12 && a.Scale <= 18 && amountOK(a.MaxSupply) && len(a.MetadataHash) <= 32 && a.Frozen <= 3 &&
			amountOK(a.Credit)
	}},
	{"holdings", row(DecodeHoldings, Holdings.encode), func() proto.Message { return &pb.Holdings{} }, func(proto.Message) bool { return true }},
	{"hold", row(DecodeHold, Hold.encode), func() proto.Message { return &pb.Hold{} }, func(m proto.Message) bool {
		h := m.(*pb.Hold)
		return len(h.From) == 32 && len(h.To) == 32 && len(h.Asset) == 16 && amountOK(h.Amount) && optional(h.Reference, 16) && optional(h.Arbiter, 32) &&
			optional(h.HashLock, 32) && amountOK(h.Deposit) && optional(h.Depositor, 32)
	}},
	{"grant", row(DecodeGrant, Grant.encode), func() proto.Message { return &pb.Grant{} }, func(m proto.Message) bool {
		g := m.(*pb.Grant)
		return amountOK(g.PerPeriod) && amountOK(g.Total) && optional(g.To, 32) && amountOK(g.SpentInPeriod) && amountOK(g.Spent) && amountOK(g.Deposit) && optional(g.Depositor, 32)
	}},
	{"fee rate", row(DecodeFeeRate, FeeRate.encode), func() proto.Message { return &pb.FeeRate{} }, func(proto.Message) bool { return true }},
	{"due totals", row(decodeDueTotals, dueTotals.encode), func() proto.Message { return &pb.DueTotals{} }, func(proto.Message) bool { return true }},
	{"parameters", row(DecodeParameters, Parameters.encode), func() proto.Message { return &pb.Parameters{} }, func(m proto.Message) bool {
		p := m.(*pb.Parameters)
		for _, a := range p.AssetCreators {
			if len(a) != 32 {
				return false
			}
		}
		return len(p.FeeAsset) == 16 && len(p.FeeCollector) == 32 && len(p.AssetCreators) <= 256
	}},
	{"network", row(DecodeNetwork, Network.encode), func() proto.Message { return &pb.Network{} },
		func(m proto.Message) bool { n := m.(*pb.Network); return len(n.ChainId) <= 50 && len(n.Id) == 32 }},
	{"validators", row(DecodeValidators, encodeValidators), func() proto.Message { return &pb.ValidatorSet{} }, func(m proto.Message) bool {
		for _, v := range m.(*pb.ValidatorSet).Validators {
			if !optional(v.Operator, 32) || len(v.Name) > 64 {
				return false
			}
		}
		return len(m.(*pb.ValidatorSet).Validators) <= 100
	}},
	{"bucket", row(decodeBucket, bucket.encode), func() proto.Message { return &pb.Bucket{} },
		func(m proto.Message) bool { return len(m.(*pb.Bucket).Digest) == 32 }},
	{"replay totals", row(decodeReplayTotals, replayTotals.encode), func() proto.Message { return &pb.ReplayTotals{} },
		func(proto.Message) bool { return true }},
	{"numbered nonce", row(decodeNumbered, nonceKey.encodeNumbered), func() proto.Message { return &pb.NumberedNonce{} }, func(m proto.Message) bool {
		n := m.(*pb.NumberedNonce)
		return len(n.Account) == 32 && len(n.Nonce) == 16
	}},
	{"receipt", plain(DecodeReceipt, Receipt.Encode), func() proto.Message { return &pb.Receipt{} }, func(m proto.Message) bool {
		r := m.(*pb.Receipt)
		for _, o := range r.Results {
			if !amountOK(o.Amount) || !optional(o.Asset, 16) || !optional(o.Hold, 32) || !optional(o.Proposal, 32) {
				return false
			}
		}
		return optional(r.TxId, 32) && amountOK(r.Fee) && amountOK(r.Deposit) && len(r.Results) <= 1000
	}},
	{"entry", plain(DecodeEntry, Entry.Encode), func() proto.Message { return &pb.Entry{} }, func(m proto.Message) bool {
		e := m.(*pb.Entry)
		return optional(e.TxId, 32) && optional(e.Counterparty, 32) && amountOK(e.Amount) && amountOK(e.DebitsPending) &&
			amountOK(e.DebitsPosted) && amountOK(e.CreditsPending) && amountOK(e.CreditsPosted) && optional(e.Hold, 32) && optional(e.Reference, 16)
	}},
}

func plain[V any](decode func([]byte) (V, error), encode func(V) []byte) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		v, err := decode(b)
		if err != nil {
			return nil, err
		}
		return encode(v), nil
	}
}

func row[V any](decode func([]byte) (V, error), encode func(V) []byte) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		v, err := decode(append([]byte{rowVersion}, b...))
		if err != nil {
			return nil, err
		}
		return encode(v)[1:], nil
	}
}

// sizes are the lengths of the fields that have one.
var sizes = map[string]int{"policy": 32, "head": 32, "issuer": 32, "id": 32, "digest": 32, "account": 32, "nonce": 16, "fee_asset": 16,
	"fee_collector": 32, "asset_creators": 32, "tx_id": 32, "counterparty": 32, "asset": 16, "from": 32, "to": 32, "hold": 32, "reference": 16, "arbiter": 32,
	"hash_lock": 32, "closed_head": 32, "depositor": 32, "operator": 32, "proposal": 32, "proposer": 32}

// drawMessage fills a message at random, with lengths that its rules like to see.
func drawMessage(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		name := string(d.Name())
		value := func() protoreflect.Value {
			switch d.Kind() {
			case protoreflect.BytesKind:
				size, fixed := sizes[name]
				if !fixed || rapid.IntRange(0, 99).Draw(t, "wrong size") == 77 {
					size = rapid.IntRange(0, 16).Draw(t, name+" size")
				}
				b := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, name)
				if !fixed {
					b = bytes.TrimLeft(b, "\x00")
				}
				return protoreflect.ValueOfBytes(b)
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(rapid.StringN(0, 12, 12).Draw(t, name))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(rapid.Bool().Draw(t, name))
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, name) >> rapid.SampledFrom([]int{28, 31, 16, 1, 0}).Draw(t, "shift"))
			default:
				return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, name) >> rapid.IntRange(0, 64).Draw(t, "shift"))
			}
		}
		switch {
		case d.IsList() && d.Message() != nil:
			list := m.Mutable(d).List()
			for range rapid.IntRange(0, 3).Draw(t, name+" count") {
				drawMessage(t, list.AppendMutable().Message())
			}
		case d.IsList():
			list := m.Mutable(d).List()
			for range rapid.IntRange(0, 3).Draw(t, name+" count") {
				list.Append(value())
			}
		case d.Message() == nil:
			m.Set(d, value())
		case rapid.Bool().Draw(t, name+" there"):
			drawMessage(t, m.Mutable(d).Message())
		}
	}
}

// TestDifferentialRows: random messages of every other kind, whole and mutated.
func TestDifferentialRows(t *testing.T) {
	for _, k := range rowKinds {
		t.Run(k.name, func(t *testing.T) {
			accepted, total := 0, 0
			same := func(fatalf func(string, ...any), b []byte) {
				total++
				m := k.message()
				want := oracle(b, m) && k.rules(m)
				again, err := k.again(b)
				if want != (err == nil) {
					fatalf("google and the rules say %v, ours says %v\n%x", want, err, b)
				}
				if err == nil {
					accepted++
					if !bytes.Equal(again, b) {
						fatalf("encodes to %x, was %x", again, b)
					}
				}
			}
			r := rand.New(rand.NewSource(2))
			rapid.Check(t, func(t *rapid.T) {
				m := k.message()
				drawMessage(t, m.ProtoReflect())
				b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				same(t.Fatalf, b)
				if _, err := k.again(b); err == nil {
					for range 1000 {
						same(t.Fatalf, mutate(b, r))
					}
				}
			})
			t.Logf("%d of %d accepted", accepted, total)
			if accepted == 0 {
				t.Error("no message was ever accepted")
			}
		})
	}
}

// TestDifferentialBody: what we write, google reads with the same values, and writes the same.
func TestDifferentialBody(t *testing.T) {
	kinds := map[Kind]bool{}
	for _, raw := range seeds(t) {
		tx, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		var m pb.Body
		if !oracle(tx.BodyBytes(), &m) {
			t.Fatalf("google does not write %x", tx.BodyBytes())
		}
		b := &tx.Body
		if m.ValidUntil != b.ValidUntil || !bytes.Equal(m.MaxFee, b.MaxFee.Bytes()) || len(m.Signers) != len(b.Signers) || len(m.Operations) != len(b.Operations) {
			t.Fatalf("%v\n%+v", &m, b)
		}
		for i, s := range b.Signers {
			g := m.Signers[i]
			if !bytes.Equal(g.Address, s.Address[:]) || g.GetSequence() != s.Sequence || !bytes.Equal(g.Policy, s.Policy) ||
				s.Sequence == 0 && !bytes.Equal(g.GetNonce(), s.Nonce[:]) {
				t.Fatalf("%v\n%+v", g, s)
			}
		}
		if !bytes.Equal(m.MaxDeposit, b.MaxDeposit.Bytes()) || !bytes.Equal(m.FeeGranter, addressBytes(b.FeeGranter)) {
			t.Fatalf("%v\n%+v", &m, b)
		}
		for i, o := range b.Operations {
			kinds[o.Kind()] = true
			if want := generated(o); !proto.Equal(m.Operations[i], want) {
				t.Fatalf("operation %d: %v\nwant %v", i, m.Operations[i], want)
			}
		}
		var whole pb.Tx
		if !oracle(raw, &whole) || (whole.Sponsor == nil) != (tx.Sponsor == nil) {
			t.Fatalf("google reads %v", &whole)
		}
		if s := tx.Sponsor; s != nil && !proto.Equal(whole.Sponsor, &pb.Sponsor{Address: s.Address[:], MaxFee: s.MaxFee.Bytes(),
			MaxDeposit: s.MaxDeposit.Bytes(), Policy: s.Policy}) {
			t.Fatalf("sponsor %v\n%+v", whole.Sponsor, s)
		}
	}
	if want := len(operationKinds) - 1; len(kinds) != want {
		t.Errorf("the seeds have %d kinds of operation of %d", len(kinds), want)
	}
}

func addressBytes(a crypto.Address) []byte {
	if a == (crypto.Address{}) {
		return nil
	}
	return a[:]
}

// generated writes an operation as google's message, field by field.
func generated(op Operation) *pb.Operation {
	reference := func(r Reference) []byte {
		if r == (Reference{}) {
			return nil
		}
		return r[:]
	}
	limit := func(a *Amount) *pb.Limit {
		if a == nil {
			return nil
		}
		return &pb.Limit{Amount: a.Bytes()}
	}
	asset := func(id AssetID) []byte {
		if id == (AssetID{}) {
			return nil
		}
		return id[:]
	}
	switch o := op.(type) {
	case *Transfer:
		return &pb.Operation{Kind: &pb.Operation_Transfer{Transfer: &pb.Transfer{From: o.From, To: o.To[:], Asset: o.Asset[:], Amount: o.Amount.Bytes(),
			Reference: reference(o.Reference), Code: o.Code, Memo: o.Memo, Balancing: uint32(o.Balancing), Granter: addressBytes(o.Granter)}}}
	case *CreateAsset:
		return &pb.Operation{Kind: &pb.Operation_CreateAsset{CreateAsset: &pb.CreateAsset{Issuer: o.Issuer, Code: o.Code, Scale: o.Scale,
			MaxSupply: o.MaxSupply.Bytes(), MetadataHash: o.MetadataHash, Controls: uint32(o.Controls)}}}
	case *SetPolicy:
		return &pb.Operation{Kind: &pb.Operation_SetPolicy{SetPolicy: &pb.SetPolicy{Signer: o.Signer, Policy: o.Policy, Proofs: o.Proofs, RevokeGrants: o.RevokeGrants}}}
	case *CreateHold:
		h := &pb.CreateHold{Signer: o.Signer, To: o.To[:], Asset: o.Asset[:], Amount: o.Amount.Bytes(), Reference: reference(o.Reference), Code: o.Code, Memo: o.Memo,
			Balancing: uint32(o.Balancing), Granter: addressBytes(o.Granter), Expires: o.Expires, NotBefore: o.NotBefore, Arbiter: addressBytes(o.Arbiter),
			PostBy: uint32(o.PostBy), VoidBy: uint32(o.VoidBy), PostAtExpiry: o.PostAtExpiry}
		if o.HashLock != (crypto.Hash{}) {
			h.HashLock = o.HashLock[:]
		}
		return &pb.Operation{Kind: &pb.Operation_CreateHold{CreateHold: h}}
	case *PostHold:
		return &pb.Operation{Kind: &pb.Operation_PostHold{PostHold: &pb.PostHold{Signer: o.Signer, Hold: o.Hold[:], Amount: o.Amount.Bytes(), Preimage: o.Preimage}}}
	case *VoidHold:
		return &pb.Operation{Kind: &pb.Operation_VoidHold{VoidHold: &pb.VoidHold{Signer: o.Signer, Hold: o.Hold[:]}}}
	case *SetAsset:
		return &pb.Operation{Kind: &pb.Operation_SetAsset{SetAsset: &pb.SetAsset{Signer: o.Signer, Asset: o.Asset[:], DropControls: uint32(o.DropControls),
			MaxSupply: o.MaxSupply.Bytes(), Freeze: uint32(o.Freeze) / 2, Unfreeze: uint32(o.Unfreeze) / 2}}}
	case *SetLine:
		return &pb.Operation{Kind: &pb.Operation_SetLine{SetLine: &pb.SetLine{Signer: o.Signer, Account: o.Account[:], Asset: o.Asset[:], Set: uint32(o.Set),
			Clear: uint32(o.Clear), Credit: limit(o.Credit), Cap: limit(o.Cap)}}}
	case *Clawback:
		return &pb.Operation{Kind: &pb.Operation_Clawback{Clawback: &pb.Clawback{Signer: o.Signer, Account: o.Account[:], Asset: o.Asset[:], Amount: o.Amount.Bytes(),
			Reference: reference(o.Reference), Code: o.Code, Memo: o.Memo, Balancing: uint32(o.Balancing)}}}
	case *OpenLine:
		return &pb.Operation{Kind: &pb.Operation_OpenLine{OpenLine: &pb.OpenLine{Signer: o.Signer, Asset: o.Asset[:], Ceiling: limit(o.Ceiling)}}}
	case *CloseLine:
		return &pb.Operation{Kind: &pb.Operation_CloseLine{CloseLine: &pb.CloseLine{Signer: o.Signer, Asset: o.Asset[:], To: o.To[:]}}}
	case *SetAccount:
		if o.OptIn {
			return &pb.Operation{Kind: &pb.Operation_SetAccount{SetAccount: &pb.SetAccount{Signer: o.Signer, Set: 1}}}
		}
		return &pb.Operation{Kind: &pb.Operation_SetAccount{SetAccount: &pb.SetAccount{Signer: o.Signer, Clear: 1}}}
	case *CloseAccount:
		return &pb.Operation{Kind: &pb.Operation_CloseAccount{CloseAccount: &pb.CloseAccount{Signer: o.Signer, To: o.To[:]}}}
	case *SetGrant:
		return &pb.Operation{Kind: &pb.Operation_SetGrant{SetGrant: &pb.SetGrant{Signer: o.Signer, Grantee: o.Grantee[:], Kind: uint32(o.For), Asset: asset(o.Asset),
			PerPeriod: o.PerPeriod.Bytes(), Period: o.Period, Total: o.Total.Bytes(), Until: o.Until, To: addressBytes(o.To)}}}
	case *RevokeGrant:
		return &pb.Operation{Kind: &pb.Operation_RevokeGrant{RevokeGrant: &pb.RevokeGrant{Signer: o.Signer, Grantee: o.Grantee[:], Kind: uint32(o.For), Asset: asset(o.Asset)}}}
	case *StartRecovery:
		return &pb.Operation{Kind: &pb.Operation_StartRecovery{StartRecovery: &pb.StartRecovery{Signer: o.Signer, Account: o.Account[:], PolicyHash: o.PolicyHash[:]}}}
	case *CancelRecovery:
		return &pb.Operation{Kind: &pb.Operation_CancelRecovery{CancelRecovery: &pb.CancelRecovery{Signer: o.Signer, Account: o.Account[:]}}}
	case *FinishRecovery:
		return &pb.Operation{Kind: &pb.Operation_FinishRecovery{FinishRecovery: &pb.FinishRecovery{Signer: o.Signer, Account: o.Account[:], Policy: o.Policy, Proofs: o.Proofs}}}
	case *Bond:
		return &pb.Operation{Kind: &pb.Operation_Bond{Bond: &pb.Bond{Signer: o.Signer, Amount: o.Amount.Bytes()}}}
	case *ReleaseBond:
		return &pb.Operation{Kind: &pb.Operation_ReleaseBond{ReleaseBond: &pb.ReleaseBond{Signer: o.Signer}}}
	case *Propose:
		return &pb.Operation{Kind: &pb.Operation_Propose{Propose: &pb.Propose{Signer: o.Signer, Expires: o.Expires, Change: generatedChange(o.Change)}}}
	case *Approve:
		return &pb.Operation{Kind: &pb.Operation_Approve{Approve: &pb.Approve{Signer: o.Signer, Proposal: o.Proposal[:], Withdraw: o.Withdraw}}}
	case *Reactivate:
		return &pb.Operation{Kind: &pb.Operation_Reactivate{Reactivate: &pb.Reactivate{Signer: o.Signer}}}
	}
	return nil
}

func generatedChange(change Change) *pb.Change {
	switch c := change.(type) {
	case *AddValidator:
		return &pb.Change{Kind: &pb.Change_AddValidator{AddValidator: &pb.AddValidator{Operator: c.Operator[:], Scheme: uint32(c.Scheme), PublicKey: c.PublicKey,
			Power: c.Power, Name: c.Name, Proof: c.Proof}}}
	case *RemoveValidator:
		return &pb.Change{Kind: &pb.Change_RemoveValidator{RemoveValidator: &pb.RemoveValidator{Validator: c.Validator[:]}}}
	case *SetPower:
		return &pb.Change{Kind: &pb.Change_SetPower{SetPower: &pb.SetPower{Validator: c.Validator[:], Power: c.Power}}}
	case *RotateKey:
		return &pb.Change{Kind: &pb.Change_RotateKey{RotateKey: &pb.RotateKey{Validator: c.Validator[:], Operator: c.Operator[:], Scheme: uint32(c.Scheme),
			PublicKey: c.PublicKey, Proof: c.Proof}}}
	case *SetParameters:
		p := c.Parameters
		m := &pb.Parameters{MaxTxBytes: p.MaxTxBytes, ReplayWindowSeconds: p.ReplayWindowSeconds, MaxOpenNonces: p.MaxOpenNonces, FeeAsset: p.FeeAsset[:],
			FeeCollector: p.FeeCollector[:], FeeBase: p.FeeBase, FeePerByte: p.FeePerByte, FeePerOperation: p.FeePerOperation, FeePerSignature: p.FeePerSignature,
			DepositAccount: p.DepositAccount, DepositLine: p.DepositLine, DepositHold: p.DepositHold, DepositGrant: p.DepositGrant, MaxHoldSeconds: p.MaxHoldSeconds,
			MaxExpiries: p.MaxExpiries, FeeTargetWeight: p.FeeTargetWeight, MaxFeeMultiplier: p.MaxFeeMultiplier, Bond: p.Bond, BondSeconds: p.BondSeconds,
			MissedWindow: p.MissedWindow, MaxMissed: p.MaxMissed}
		for _, a := range p.AssetCreators {
			m.AssetCreators = append(m.AssetCreators, a[:])
		}
		return &pb.Change{Kind: &pb.Change_SetParameters{SetParameters: &pb.SetParameters{Before: c.Before[:], Parameters: m}}}
	}
	return nil
}

// TestDifferentialPolicy: policies with every optional field there and not there, whole and mutated.
func TestDifferentialPolicy(t *testing.T) {
	w := smallWorld(t)
	plain := w.policy("2 ed25519:a*3 secp256k1:b ed25519:c")
	change, err := plain.WithChangeThreshold(4)
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := plain.WithRecovery(w.address("bob"), crypto.MinRecoveryDelay)
	if err != nil {
		t.Fatal(err)
	}
	both, err := change.WithRecovery(w.address("bob"), crypto.MaxRecoveryDelay)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewSource(4))
	accepted, refused := 0, 0
	for _, p := range []crypto.Policy{plain, change, recovery, both} {
		good := p.Encode()
		for i := range 5000 {
			b := good
			if i > 0 {
				b = mutate(good, r)
			}
			want := policyOK(b)
			q, err := crypto.DecodeRegisteredPolicy(b)
			if want != (err == nil) || i == 0 && err != nil {
				t.Fatalf("google and the rules say %v, ours says %v\n%x", want, err, b)
			}
			if err != nil {
				refused++
				continue
			}
			if accepted++; !bytes.Equal(q.Encode(), b) {
				t.Fatalf("encodes to %x, was %x", q.Encode(), b)
			}
			var m pb.Policy
			if err := proto.Unmarshal(b, &m); err != nil || m.Threshold != q.Threshold || m.ChangeThreshold != q.ChangeThreshold {
				t.Fatalf("google reads other thresholds of %x, %v", b, err)
			}
			if has := q.Recovery != nil; has != (len(m.RecoveryAccount) > 0) ||
				has && (!bytes.Equal(m.RecoveryAccount, q.Recovery.Account[:]) || m.RecoveryDelay != q.Recovery.DelaySeconds) {
				t.Fatalf("google reads another recovery of %x", b)
			}
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted < 200 || refused < 200 {
		t.Errorf("%d accepted, %d refused: the mutations are too wild or too tame to tell anything", accepted, refused)
	}
}
