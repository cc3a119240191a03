package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// The files below testdata/vectors are for other implementations: whoever makes the same bytes from the same fields speaks
// the protocol. Run with -update to write them, and explain in the commit why the protocol changed.

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func compareVectors(t *testing.T, name string, v any) {
	t.Helper()
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "vectors", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, text.Bytes()) {
		t.Errorf("%s is not what the code makes: this is a change of the protocol, run with -update if it is meant", path)
	}
}

// fieldsJSON writes a message with the names of the .proto, in their order, bytes as hex; absent fields are left out.
func fieldsJSON(t *testing.T, m protoreflect.Message) json.RawMessage {
	var out bytes.Buffer
	value := func(v protoreflect.Value) {
		var text []byte
		var err error
		switch x := v.Interface().(type) {
		case []byte:
			text, err = json.Marshal(hexBytes(x))
		case protoreflect.Message:
			text = fieldsJSON(t, x)
		default:
			text, err = json.Marshal(x)
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	out.WriteByte('{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		if !m.Has(d) {
			continue
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.WriteString(`"` + string(d.Name()) + `":`)
		if !d.IsList() {
			value(m.Get(d))
			continue
		}
		out.WriteByte('[')
		for n := range m.Get(d).List().Len() {
			if n > 0 {
				out.WriteByte(',')
			}
			value(m.Get(d).List().Get(n))
		}
		out.WriteByte(']')
	}
	out.WriteByte('}')
	return out.Bytes()
}

func decoded(t *testing.T, b []byte, m proto.Message) json.RawMessage {
	if !oracle(b, m) {
		t.Fatalf("google does not read %x", b)
	}
	return fieldsJSON(t, m.ProtoReflect())
}

type keyVector struct {
	Scheme    string   `json:"scheme"`
	Seed      hexBytes `json:"seed"`
	PublicKey hexBytes `json:"public_key"`
}

type signerVector struct {
	Keys          []keyVector    `json:"keys"`
	Policy        hexBytes       `json:"policy"`
	Address       hexBytes       `json:"address"`
	AddressText   crypto.Address `json:"address_text"`
	PolicyVersion uint32         `json:"policy_version"`
	Preimage      hexBytes       `json:"preimage"`
}

type witnessVector struct {
	Signer    uint32   `json:"signer"`
	Key       uint32   `json:"key"`
	Signature hexBytes `json:"signature"`
}

type txVector struct {
	Name       string          `json:"name"`
	NetworkID  hexBytes        `json:"network_id"`
	Signers    []signerVector  `json:"signers"`
	Body       json.RawMessage `json:"body"`
	BodyBytes  hexBytes        `json:"body_bytes"`
	Possession hexBytes        `json:"possession_preimage,omitempty"`
	Witnesses  []witnessVector `json:"witnesses"`
	Tx         hexBytes        `json:"tx"`
	TxID       hexBytes        `json:"tx_id"`
	Hash       hexBytes        `json:"hash"`
}

func TestTxVectors(t *testing.T) {
	names := []string{"ed25519", "secp256k1", "ml-dsa-44", "ml-dsa-65", "hybrid ed25519 and ml-dsa-44", "two of three by weight, second signature of secp256k1",
		"every scheme in one policy", "nonce, valid_until, reference, code, memo", "two signers, two assets, a new asset", "set_policy", "after set_policy: policy version 1"}
	w := smallWorld(t)
	w.next(1001_000)
	var vectors []txVector
	for i, raw := range seeds(t) {
		tx, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		v := txVector{Name: names[i], Body: decoded(t, tx.BodyBytes(), &pb.Body{}), BodyBytes: tx.BodyBytes(), Tx: raw}
		network, id, hash := w.networkID(), tx.ID(w.networkID()), tx.Hash()
		v.NetworkID, v.TxID, v.Hash = network[:], id[:], hash[:]
		for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "team", "mixed"} {
			w.address(name) // so that the signers have names
		}
		for _, s := range tx.Body.Signers {
			p, version := w.policyOf(s.Address)
			sv := signerVector{Policy: p.Encode(), Address: s.Address[:], AddressText: s.Address, PolicyVersion: version, Preimage: Preimage(network, tx.BodyBytes(), version)}
			for _, k := range p.Keys {
				sv.Keys = append(sv.Keys, keyVector{k.Scheme.String(), w.keys[string(k.Public)].Seed(), k.Public})
			}
			v.Signers = append(v.Signers, sv)
		}
		for _, x := range tx.Witnesses {
			v.Witnesses = append(v.Witnesses, witnessVector{x.Signer, x.Key, x.Signature})
		}
		if s, ok := tx.Body.Operations[0].(*SetPolicy); ok {
			w.policy("2 ed25519:alice2 secp256k1:alice3 ed25519:alice4")
			v.Possession = PossessionPreimage(network, tx.Body.Signers[0].Address, crypto.DomainAddress.Hash(s.Policy), 1)
		}
		if r := w.apply(raw); r.Code != OK {
			t.Fatalf("%s: %s", v.Name, r.Code)
		}
		vectors = append(vectors, v)
	}
	compareVectors(t, "tx.json", vectors)
}

type rowVector struct {
	Kind   string          `json:"kind"`
	Key    hexBytes        `json:"key"`
	Tree   string          `json:"tree"`
	Value  hexBytes        `json:"value"`
	Fields json.RawMessage `json:"fields,omitempty"`
}

type ledgerVectors struct {
	Genesis struct {
		ChainID   string          `json:"chain_id"`
		AppState  GenesisState    `json:"app_state"`
		Fields    json.RawMessage `json:"fields"`
		Encoded   hexBytes        `json:"encoded"`
		NetworkID hexBytes        `json:"network_id"`
	} `json:"genesis"`
	Receipts []struct {
		TxName  string          `json:"tx"`
		Fields  json.RawMessage `json:"fields"`
		Encoded hexBytes        `json:"encoded"`
	} `json:"receipts"`
	Entries []entryVector `json:"entries"`
	Rows    []rowVector   `json:"rows_after_the_block"`
}

type entryVector struct {
	Account hexBytes        `json:"account"`
	Asset   hexBytes        `json:"asset"`
	Fields  json.RawMessage `json:"fields"`
	Encoded hexBytes        `json:"encoded"`
	Before  hexBytes        `json:"head_before"`
	After   hexBytes        `json:"head_after"`
}

// TestLedgerVectors: genesis, and all that the transactions of tx.json do as the first block, at 1001 seconds.
func TestLedgerVectors(t *testing.T) {
	var v ledgerVectors
	w := smallWorld(t)
	encoded, err := w.genesis.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id := w.networkID()
	v.Genesis.ChainID, v.Genesis.AppState, v.Genesis.Encoded, v.Genesis.NetworkID = w.genesis.ChainID, w.genesis.State, encoded, id[:]
	v.Genesis.Fields = decoded(t, encoded, &pb.Genesis{})
	heads := map[LineKey]crypto.Hash{}
	for key, value := range w.memory {
		if key[0] == rowLine {
			l, err := DecodeLine(value)
			if err != nil {
				t.Fatal(err)
			}
			heads[LineKey{crypto.Address([]byte(key[1:33])), AssetID([]byte(key[33:]))}] = l.Head
		}
	}
	w.next(1001_000)
	for i, raw := range seeds(t) {
		r := w.apply(raw)
		if i == 0 || i == 8 {
			v.Receipts = append(v.Receipts, struct {
				TxName  string          `json:"tx"`
				Fields  json.RawMessage `json:"fields"`
				Encoded hexBytes        `json:"encoded"`
			}{[]string{0: "ed25519", 8: "two signers, two assets, a new asset"}[i], decoded(t, r.Encode(), &pb.Receipt{}), r.Encode()})
		}
	}
	failed := w.apply(w.seal(w.payment("bob", "alice", Units(1e9), "EUR")))
	if failed.Code != InsufficientFunds {
		t.Fatal(failed.Code)
	}
	v.Receipts = append(v.Receipts, struct {
		TxName  string          `json:"tx"`
		Fields  json.RawMessage `json:"fields"`
		Encoded hexBytes        `json:"encoded"`
	}{"insufficient_funds", decoded(t, failed.Encode(), &pb.Receipt{}), failed.Encode()})
	for _, e := range w.end().Entries {
		before, after := heads[e.Line], NextHead(heads[e.Line], e.Encoded)
		heads[e.Line] = after
		v.Entries = append(v.Entries, entryVector{e.Line.Account[:], e.Line.Asset[:], decoded(t, e.Encoded, &pb.Entry{}), e.Encoded, before[:], after[:]})
	}
	for line, head := range heads {
		l, err := DecodeLine(w.memory[string(LineRow(line))])
		if err != nil || l.Head != head {
			t.Fatalf("line %x ends at the head %s, its entries at %s (%v)", line, l.Head, head, err)
		}
	}
	kinds := map[byte]struct {
		name string
		m    proto.Message
	}{rowAccount: {"account", &pb.Account{}}, rowLine: {"line", &pb.Line{}}, rowAsset: {"asset", &pb.Asset{}}, rowCode: {"code", nil},
		rowParameters: {"parameters", &pb.Parameters{}}, rowNetwork: {"network", &pb.Network{}}, rowBucket: {"bucket", &pb.Bucket{}},
		rowReplay: {"replay totals", &pb.ReplayTotals{}}, rowValidators: {"validators", &pb.ValidatorSet{}}, rowPolicy: {"policy", &pb.Policy{}},
		rowNonce: {"nonce", nil}, rowNonceNumber: {"numbered nonce", &pb.NumberedNonce{}}}
	for _, key := range sortedStrings(w.memory) {
		k := kinds[key[0]]
		if key[0] == rowPolicy && len(w.memory[key]) > 1000 {
			continue // they stand in tx.json
		}
		r := rowVector{Kind: k.name, Key: hexBytes(key), Value: w.memory[key]}
		r.Tree, _ = TreeOf([]byte(key))
		if k.m != nil {
			r.Fields = decoded(t, w.memory[key][1:], k.m)
		}
		v.Rows = append(v.Rows, r)
	}
	compareVectors(t, "ledger.json", v)
}

type negativeVector struct {
	Name  string   `json:"name"`
	Tx    hexBytes `json:"tx"`
	Field string   `json:"field"`
	Error string   `json:"error"`
}

// part reads one level of a message, without guessing at what is inside.
func part(t *testing.T, b []byte) []field {
	var fields []field
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		f := field{number: number, kind: kind}
		b = b[n:]
		if kind == protowire.VarintType {
			f.varint, n = protowire.ConsumeVarint(b)
		} else {
			f.bytes, n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatal("not a message")
		}
		b = b[n:]
		fields = append(fields, f)
	}
	return fields
}

// edit changes the fields of the message that a path of positions leads to, and leaves every length around it right.
func edit(t *testing.T, b []byte, path []int, change func([]field) []field) []byte {
	fields := part(t, b)
	if len(path) == 0 {
		return assemble(change(fields))
	}
	fields[path[0]].bytes = edit(t, fields[path[0]].bytes, path[1:], change)
	return assemble(fields)
}

func TestNegativeVectors(t *testing.T) {
	w := smallWorld(t)
	base := func() *Body {
		b := w.payment("alice", "bob", Units(500), "EUR")
		b.ValidUntil = 2000
		return b
	}
	good := w.seal(base())
	var vectors []negativeVector
	add := func(name string, raw []byte) {
		_, err := Decode(raw)
		e, ok := errors.AsType[*canonical.Error](err)
		if !ok {
			t.Errorf("%s: accepted, or an error without a field: %v", name, err)
			return
		}
		if txOK(raw) {
			t.Errorf("%s: google and the rules accept it", name)
		}
		if len(raw) < 8<<10 { // the few that are long by nature are checked here and not written down
			vectors = append(vectors, negativeVector{name, raw, e.Field, e.What})
		}
	}
	body := func(name string, change func(b *Body)) {
		b := base()
		change(b)
		raw := b.encode()
		add(name, Assemble(raw, []Witness{{0, 0, bytes.Repeat([]byte{1}, 64)}}, nil))
	}
	wire := func(name string, path []int, change func([]field) []field) { add(name, edit(t, good, path, change)) }
	transfer := func(change func(x *Transfer)) func(b *Body) {
		return func(b *Body) { change(b.Operations[0].(*Transfer)) }
	}
	text := func(s string) field { return field{number: 7, kind: protowire.BytesType, bytes: []byte(s)} }

	// The positions in good: tx {0 body {0 version, 1 signer {0 address, 1 sequence, 2 policy}, 2 valid_until, 3 max_fee,
	// 4 operation {0 transfer {0 to, 1 asset, 2 amount}}}, 1 witness {0 signature}}.
	add("empty", nil)
	add("truncated", good[:len(good)-1])
	add("a byte behind the end", append(slices.Clone(good), 0))
	add("tag longer than it needs to be", append([]byte{0x8a, 0x00}, good[1:]...))
	add("too long", Assemble(base().encode(), slices.Repeat([]Witness{{0, 0, make([]byte, MaxSignatureBytes)}}, 14), nil))
	wire("body missing", nil, func(f []field) []field { return f[1:] })
	wire("unknown field of the transaction", nil, func(f []field) []field { return append(f, field{number: 4, varint: 1}) })
	wire("unknown field of the body", []int{0}, func(f []field) []field { return append(f, field{number: 8, varint: 1}) })
	wire("unknown field of a signer", []int{0, 1}, func(f []field) []field { return append(f, field{number: 5, varint: 1}) })
	wire("unknown field of a transfer", []int{0, 4, 0}, func(f []field) []field { return append(f, field{number: 10, varint: 1}) })
	wire("unknown field of a witness", []int{1}, func(f []field) []field { return append(f, field{number: 4, varint: 1}) })
	wire("field twice", []int{0}, func(f []field) []field { return slices.Insert(f, 2, f[2]) })
	wire("field twice, later", []int{0}, func(f []field) []field { return append(f, f[2]) })
	wire("fields in another order", []int{0, 4, 0}, func(f []field) []field { f[0], f[1] = f[1], f[0]; return f })
	wire("varint longer than it needs to be", []int{0}, func(f []field) []field { f[2].overlong = 1; return f })
	wire("length longer than it needs to be", []int{0}, func(f []field) []field { f[3].overlong = 1; return f })
	wire("explicit default of a number", []int{0, 4, 0}, func(f []field) []field { return slices.Insert(f, 0, field{number: 1}) })
	wire("explicit default of bytes", []int{0}, func(f []field) []field { f[3].bytes = nil; return f })
	wire("explicit default of a text", []int{0, 4, 0}, func(f []field) []field { return append(f, text("")) })
	wire("explicit default of a reference", []int{0, 4, 0}, func(f []field) []field {
		return append(f, field{number: 5, kind: protowire.BytesType, bytes: make([]byte, 16)})
	})
	wire("sequence 0", []int{0, 1}, func(f []field) []field { f[1].varint = 0; return f })
	wire("wrong wire type", []int{0}, func(f []field) []field {
		f[2] = field{number: 3, kind: protowire.BytesType, bytes: []byte{1}}
		return f
	})
	wire("number above 32 bits", []int{0, 4, 0}, func(f []field) []field { return slices.Insert(f, 0, field{number: 1, varint: 1 << 32}) })
	wire("text that is not UTF-8", []int{0, 4, 0}, func(f []field) []field { return append(f, text("\xff")) })
	wire("version missing", []int{0}, func(f []field) []field { return f[1:] })
	wire("version 2", []int{0}, func(f []field) []field { f[0].varint = 2; return f })
	wire("address of 31 bytes", []int{0, 4, 0}, func(f []field) []field { f[0].bytes = f[0].bytes[1:]; return f })
	wire("address missing", []int{0, 1}, func(f []field) []field { return f[1:] })
	wire("asset of 17 bytes", []int{0, 4, 0}, func(f []field) []field { f[1].bytes = append(slices.Clone(f[1].bytes), 1); return f })
	wire("amount with a leading zero", []int{0, 4, 0}, func(f []field) []field { f[2].bytes = append([]byte{0}, f[2].bytes...); return f })
	wire("amount of 17 bytes", []int{0, 4, 0}, func(f []field) []field { f[2].bytes = bytes.Repeat([]byte{1}, 17); return f })
	wire("neither sequence nor nonce", []int{0, 1}, func(f []field) []field { return slices.Delete(f, 1, 2) })
	wire("sequence and nonce", []int{0, 1}, func(f []field) []field {
		return slices.Insert(f, 2, field{number: 3, kind: protowire.BytesType, bytes: make([]byte, 16)})
	})
	wire("operation without a kind", []int{0, 4}, func([]field) []field { return nil })
	wire("operation of an unknown kind", []int{0, 4}, func(f []field) []field { f[0].number = 99; return f })
	wire("operation of two kinds", []int{0, 4}, func(f []field) []field {
		return append(f, field{number: 2, kind: protowire.BytesType})
	})
	wire("witness without a signature", []int{1}, func([]field) []field { return nil })
	wire("witness of signer 1 of 1", []int{1}, func(f []field) []field { return slices.Insert(f, 0, field{number: 1, varint: 1}) })
	wire("witness of key 16", []int{1}, func(f []field) []field { return slices.Insert(f, 0, field{number: 2, varint: 16}) })
	wire("witness twice", nil, func(f []field) []field { return append(f, f[1]) })
	body("no signers", func(b *Body) { b.Signers = nil })
	body("17 signers", func(b *Body) {
		for i := range 16 {
			b.Signers = append(b.Signers, Signer{Address: crypto.Address{byte(i)}, Sequence: 1})
		}
	})
	body("signer twice", func(b *Body) { b.Signers = append(b.Signers, b.Signers[0]) })
	body("nonce without valid_until", func(b *Body) { b.Signers[0].Sequence, b.ValidUntil = 0, 0 })
	body("valid_until after the year 9999", func(b *Body) { b.ValidUntil = MaxUnixSeconds + 1 })
	body("no operations", func(b *Body) { b.Operations = nil })
	body("1001 operations", func(b *Body) { b.Operations = slices.Repeat(b.Operations, 1001) })
	body("transfer by signer 1 of 1", transfer(func(x *Transfer) { x.From = 1 }))
	body("transfer to the sender", transfer(func(x *Transfer) { x.To = w.address("alice") }))
	body("transfer of nothing", transfer(func(x *Transfer) { x.Amount = Amount{} }))
	body("transfer with the code 65536", transfer(func(x *Transfer) { x.Code = 65536 }))
	body("memo of 257 bytes", transfer(func(x *Transfer) { x.Memo = strings.Repeat("m", 257) }))
	create := func(name string, c CreateAsset) { body(name, func(b *Body) { b.Operations = []Operation{&c} }) }
	create("asset code of 2 characters", CreateAsset{Code: "AB", MaxSupply: Units(1)})
	create("asset code of 13 characters", CreateAsset{Code: "ABCDEFGHIJKLM", MaxSupply: Units(1)})
	create("asset code in lower case", CreateAsset{Code: "abc", MaxSupply: Units(1)})
	create("asset code that begins with a digit", CreateAsset{Code: "1BC", MaxSupply: Units(1)})
	create("scale 19", CreateAsset{Code: "ABC", Scale: 19, MaxSupply: Units(1)})
	create("no supply", CreateAsset{Code: "ABC"})
	create("metadata hash of 31 bytes", CreateAsset{Code: "ABC", MaxSupply: Units(1), MetadataHash: make([]byte, 31)})
	p := w.policy("1 ed25519:k1 ed25519:k2")
	proofs := [][]byte{make([]byte, 64), make([]byte, 64)}
	change := func(name string, policy []byte, proofs ...[]byte) {
		body(name, func(b *Body) { b.Operations = []Operation{&SetPolicy{Policy: policy, Proofs: proofs}} })
	}
	change("set_policy without a policy", nil, proofs...)
	change("set_policy with one proof of two", p.Encode(), proofs[0])
	change("set_policy with an empty proof", p.Encode(), proofs[0], nil)
	body("set_policy twice", func(b *Body) {
		b.Operations = slices.Repeat([]Operation{&SetPolicy{Policy: p.Encode(), Proofs: proofs}}, 2)
	})
	bad := func(name string, q crypto.Policy) {
		body(name, func(b *Body) { b.Signers[0].Policy = q.Encode() })
	}
	bad("policy without keys", crypto.Policy{Threshold: 1})
	bad("threshold 0", crypto.Policy{Keys: p.Keys})
	bad("threshold above all weights", crypto.Policy{Threshold: 3, Keys: p.Keys})
	bad("keys in another order", crypto.Policy{Threshold: 1, Keys: []crypto.Key{p.Keys[1], p.Keys[0]}})
	bad("key twice", crypto.Policy{Threshold: 1, Keys: []crypto.Key{p.Keys[0], p.Keys[0]}})
	one := func(k crypto.Key) crypto.Policy { return crypto.Policy{Threshold: 1, Keys: []crypto.Key{k}} }
	bad("weight 0", one(crypto.Key{Scheme: crypto.Ed25519, Public: p.Keys[0].Public}))
	bad("weight 65536", one(crypto.Key{Scheme: crypto.Ed25519, Public: p.Keys[0].Public, Weight: 65536}))
	bad("reserved scheme", one(crypto.Key{Scheme: crypto.SLHDSA128s, Public: make([]byte, 32), Weight: 1}))
	bad("key of 31 bytes", one(crypto.Key{Scheme: crypto.Ed25519, Public: make([]byte, 31), Weight: 1}))
	compareVectors(t, "negative.json", vectors)
}
