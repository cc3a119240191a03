package ledger

import (
	"bytes"
	"math/rand"
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
	changes := map[uint32]bool{}
	for _, o := range m.Operations {
		switch k := o.Kind.(type) {
		case *pb.Operation_Transfer:
			t := k.Transfer
			if int(t.From) >= len(m.Signers) || len(t.To) != 32 || len(t.Asset) != 16 || len(t.Amount) == 0 || !amountOK(t.Amount) ||
				!optional(t.Reference, 16) || t.Code > 65535 || len(t.Memo) > 256 || !utf8.ValidString(t.Memo) ||
				bytes.Equal(t.To, m.Signers[t.From].Address) {
				return false
			}
		case *pb.Operation_CreateAsset:
			c := k.CreateAsset
			if int(c.Issuer) >= len(m.Signers) || len(c.Code) < 3 || len(c.Code) > 12 || c.Scale > 18 || len(c.MaxSupply) == 0 ||
				!amountOK(c.MaxSupply) || len(c.MetadataHash) != 0 && len(c.MetadataHash) != 32 {
				return false
			}
			for i, x := range []byte(c.Code) {
				if !(x >= 'A' && x <= 'Z' || i > 0 && x >= '0' && x <= '9') {
					return false
				}
			}
		case *pb.Operation_SetPolicy:
			s := k.SetPolicy
			if int(s.Signer) >= len(m.Signers) || changes[s.Signer] || !policyOK(s.Policy) {
				return false
			}
			changes[s.Signer] = true
			var p pb.Policy
			if proto.Unmarshal(s.Policy, &p); len(p.Keys) != len(s.Proofs) {
				return false
			}
			for _, proof := range s.Proofs {
				if len(proof) == 0 || len(proof) > MaxSignatureBytes {
					return false
				}
			}
		default:
			return false
		}
	}
	return true
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
	for i, w := range m.Witnesses {
		if int(w.Signer) >= len(b.Signers) || w.Key >= 16 || len(w.Signature) == 0 || len(w.Signature) > MaxSignatureBytes {
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

// seeds are transactions of every kind and scheme, all of them admitted and successful.
func seeds(t testing.TB) [][]byte {
	w := smallWorld(t)
	w.next(1001_000)
	var list [][]byte
	add := func(b *Body) {
		raw := w.seal(b)
		if r := w.apply(raw); r.Code != OK {
			t.Fatalf("seed %d: %s", len(list), r.Code)
		}
		list = append(list, raw)
	}
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "team", "mixed"} {
		add(w.payment(name, "zoe", Units(100), "EUR"))
	}
	b := w.payment("alice", "bob", Units(100), "EUR")
	b.ValidUntil, b.Signers[0].Sequence, b.Signers[0].Nonce = 1100, 0, [16]byte{1, 2, 3}
	t2 := b.Operations[0].(*Transfer)
	t2.Reference, t2.Code, t2.Memo = Reference{9}, 77, "rent, März"
	add(b)
	add(&Body{Signers: []Signer{w.signer("alice"), w.signer("bob")}, MaxFee: Units(500), ValidUntil: 2000, Operations: []Operation{
		&CreateAsset{Issuer: 1, Code: "USD", Scale: 2, MaxSupply: Units(1e6), MetadataHash: bytes.Repeat([]byte{7}, 32)},
		&Transfer{From: 1, To: w.address("alice"), Asset: NewAssetID(w.address("bob"), "USD"), Amount: Units(5)},
		&Transfer{From: 0, To: w.address("bob"), Asset: w.asset("EUR"), Amount: Units(5)},
	}})
	p := w.policy("2 ed25519:alice2 secp256k1:alice3 ed25519:alice4")
	message := PossessionPreimage(w.networkID(), w.address("alice"), p.Hash(), 1)
	change := &SetPolicy{Policy: p.Encode()}
	for _, k := range p.Keys {
		change.Proofs = append(change.Proofs, w.sign(k, message))
	}
	add(&Body{Signers: []Signer{w.signer("alice")}, MaxFee: Units(500), Operations: []Operation{change}})
	add(w.payment("alice", "bob", Units(1), "EUR"))
	return list
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
		func(m proto.Message) bool { return len(m.(*pb.Account).Policy) == 32 }},
	{"line", row(DecodeLine, Line.encode), func() proto.Message { return &pb.Line{} }, func(m proto.Message) bool {
		l := m.(*pb.Line)
		return amountOK(l.DebitsPending) && amountOK(l.DebitsPosted) && amountOK(l.CreditsPending) && amountOK(l.CreditsPosted) && len(l.Head) == 32
	}},
	{"asset", row(DecodeAsset, Asset.encode), func() proto.Message { return &pb.Asset{} }, func(m proto.Message) bool {
		a := m.(*pb.Asset)
		return len(a.Issuer) == 32 && len(a.Code) <= 12 && a.Scale <= 18 && amountOK(a.MaxSupply) && len(a.MetadataHash) <= 32
	}},
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
			if !amountOK(o.Amount) || !optional(o.Asset, 16) {
				return false
			}
		}
		return optional(r.TxId, 32) && amountOK(r.Fee) && len(r.Results) <= 1000
	}},
	{"entry", plain(DecodeEntry, Entry.Encode), func() proto.Message { return &pb.Entry{} }, func(m proto.Message) bool {
		e := m.(*pb.Entry)
		return optional(e.TxId, 32) && optional(e.Counterparty, 32) && amountOK(e.Amount) && amountOK(e.DebitsPending) &&
			amountOK(e.DebitsPosted) && amountOK(e.CreditsPending) && amountOK(e.CreditsPosted)
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
	"fee_collector": 32, "asset_creators": 32, "tx_id": 32, "counterparty": 32, "asset": 16}

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
		for i, o := range b.Operations {
			ok := false
			switch o := o.(type) {
			case *Transfer:
				g := m.Operations[i].GetTransfer()
				ok = g.From == o.From && bytes.Equal(g.To, o.To[:]) && bytes.Equal(g.Asset, o.Asset[:]) && bytes.Equal(g.Amount, o.Amount.Bytes()) &&
					(g.Reference == nil && o.Reference == Reference{} || bytes.Equal(g.Reference, o.Reference[:])) && g.Code == o.Code && g.Memo == o.Memo
			case *CreateAsset:
				g := m.Operations[i].GetCreateAsset()
				ok = g.Issuer == o.Issuer && g.Code == o.Code && g.Scale == o.Scale && bytes.Equal(g.MaxSupply, o.MaxSupply.Bytes()) && bytes.Equal(g.MetadataHash, o.MetadataHash)
			case *SetPolicy:
				g := m.Operations[i].GetSetPolicy()
				ok = g.Signer == o.Signer && bytes.Equal(g.Policy, o.Policy) && len(g.Proofs) == len(o.Proofs)
				for n := range o.Proofs {
					ok = ok && bytes.Equal(g.Proofs[n], o.Proofs[n])
				}
			}
			if !ok {
				t.Fatalf("operation %d: %v\n%+v", i, m.Operations[i], o)
			}
		}
	}
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
