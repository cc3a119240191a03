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
	Sponsor    *signerVector   `json:"sponsor,omitempty"` // its preimage covers sponsor_bytes
	Body       json.RawMessage `json:"body"`
	BodyBytes  hexBytes        `json:"body_bytes"`
	SponsorOf  json.RawMessage `json:"sponsor_fields,omitempty"`
	SponsorRaw hexBytes        `json:"sponsor_bytes,omitempty"`
	Possession hexBytes        `json:"possession_preimage,omitempty"`
	Holds      []hexBytes      `json:"hold_ids,omitempty"` // by operation
	Witnesses  []witnessVector `json:"witnesses"`
	Tx         hexBytes        `json:"tx"`
	TxID       hexBytes        `json:"tx_id"`
	Hash       hexBytes        `json:"hash"`
	Receipt    json.RawMessage `json:"receipt"`
	ReceiptRaw hexBytes        `json:"receipt_bytes"`
}

func TestTxVectors(t *testing.T) {
	w := smallWorld(t)
	w.next(1001_000)
	w.knowSeeds()
	network := w.networkID()
	party := func(a crypto.Address, message func(version uint32) []byte) signerVector {
		p, version := w.policyOf(a)
		v := signerVector{Policy: p.Encode(), Address: a[:], AddressText: a, PolicyVersion: version, Preimage: message(version)}
		for _, k := range p.Keys {
			v.Keys = append(v.Keys, keyVector{k.Scheme.String(), w.keys[string(k.Public)].Seed(), k.Public})
		}
		return v
	}
	var vectors []txVector
	for _, s := range namedSeeds(t) {
		tx := mustDecode(t, s.raw)
		v := txVector{Name: s.name, Body: decoded(t, tx.BodyBytes(), &pb.Body{}), BodyBytes: tx.BodyBytes(), Tx: s.raw}
		id, hash := tx.ID(network), tx.Hash()
		v.NetworkID, v.TxID, v.Hash = network[:], id[:], hash[:]
		for _, s := range tx.Body.Signers {
			v.Signers = append(v.Signers, party(s.Address, func(version uint32) []byte { return Preimage(network, tx.BodyBytes(), version) }))
		}
		if s := tx.Sponsor; s != nil {
			sponsor := party(s.Address, func(version uint32) []byte { return SponsorPreimage(network, tx.BodyBytes(), s, version) })
			v.Sponsor, v.SponsorRaw, v.SponsorOf = &sponsor, s.encode(), decoded(t, s.encode(), &pb.Sponsor{})
		}
		for _, x := range tx.Witnesses {
			v.Witnesses = append(v.Witnesses, witnessVector{x.Signer, x.Key, x.Signature})
		}
		for i, op := range tx.Body.Operations {
			switch o := op.(type) {
			case *SetPolicy:
				a := tx.Body.Signers[o.Signer].Address
				account, _ := w.account(a)
				v.Possession = PossessionPreimage(network, a, crypto.DomainAddress.Hash(o.Policy), account.PolicyVersion+1)
			case *FinishRecovery:
				v.Possession = PossessionPreimage(network, o.Account, crypto.DomainAddress.Hash(o.Policy), RecoveryVersion)
			case *CreateHold:
				hold := HoldID(id, uint32(i))
				v.Holds = append(v.Holds, hold[:])
			}
		}
		r := w.apply(s.raw)
		if r.Code != s.code {
			t.Fatalf("%s: %s", v.Name, r.Code)
		}
		v.Receipt, v.ReceiptRaw = decoded(t, r.Encode(), &pb.Receipt{}), r.Encode()
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
	DepositPool hexBytes      `json:"deposit_pool"`
	Before      []rowVector   `json:"rows_of_genesis"`
	Entries     []entryVector `json:"entries"`
	Rows        []rowVector   `json:"rows_after_the_block"`
}

type entryVector struct {
	Account     hexBytes        `json:"account"`
	Asset       hexBytes        `json:"asset"`
	Incarnation uint64          `json:"incarnation,omitempty"`
	Fields      json.RawMessage `json:"fields"`
	Encoded     hexBytes        `json:"encoded"`
	Before      hexBytes        `json:"head_before"`
	After       hexBytes        `json:"head_after"`
}

type depositVectors struct {
	AppState     GenesisState `json:"app_state"`
	DepositPool  hexBytes     `json:"deposit_pool"`
	Transactions []struct {
		Tx      hexBytes        `json:"tx"`
		Body    json.RawMessage `json:"body"`
		Receipt json.RawMessage `json:"receipt"`
		Encoded hexBytes        `json:"receipt_bytes"`
	} `json:"transactions"`
	Entries []entryVector `json:"entries"`
	Rows    []rowVector   `json:"rows_after_the_block"`
}

// TestDepositVectors: the first block, at 1001 seconds, of a network with deposits and fees that adapt.
func TestDepositVectors(t *testing.T) {
	w, txs, receipts, o := richWorld(t)
	pool := DepositPool()
	v := depositVectors{AppState: w.genesis.State, DepositPool: pool[:], Rows: rowVectors(t, w.memory)}
	v.Transactions = make([]struct {
		Tx      hexBytes        `json:"tx"`
		Body    json.RawMessage `json:"body"`
		Receipt json.RawMessage `json:"receipt"`
		Encoded hexBytes        `json:"receipt_bytes"`
	}, len(txs))
	for i, raw := range txs {
		x := &v.Transactions[i]
		x.Tx, x.Body = raw, decoded(t, mustDecode(t, raw).BodyBytes(), &pb.Body{})
		x.Receipt, x.Encoded = decoded(t, receipts[i].Encode(), &pb.Receipt{}), receipts[i].Encode()
	}
	outcome, _, err := w.genesis.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	heads := map[LineKey]crypto.Hash{}
	for _, e := range outcome.Entries {
		heads[e.Line] = NextHead(heads[e.Line], e.Encoded)
	}
	kinds := map[EntryKind]bool{}
	for _, e := range o.Entries {
		before := heads[e.Line]
		if e.Number == 1 {
			before = crypto.Hash{}
		}
		after := NextHead(before, e.Encoded)
		heads[e.Line] = after
		v.Entries = append(v.Entries, entryVector{e.Line.Account[:], e.Line.Asset[:], e.Incarnation, decoded(t, e.Encoded, &pb.Entry{}), e.Encoded, before[:], after[:]})
		entry, err := DecodeEntry(e.Encoded)
		if err != nil {
			t.Fatal(err)
		}
		kinds[entry.Kind] = true
	}
	for _, kind := range []EntryKind{EntryDeposit, EntryRefund, EntryDeposits, EntryRefunds} {
		if !kinds[kind] {
			t.Errorf("no entry of kind %s", kind)
		}
	}
	compareVectors(t, "deposits.json", v)
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
	pool := DepositPool()
	v.DepositPool, v.Before = pool[:], rowVectors(t, w.memory)
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
	for _, s := range namedSeeds(t) {
		if r := w.apply(s.raw); r.Code != s.code {
			t.Fatalf("%s: %s", s.name, r.Code)
		}
	}
	for _, e := range w.end().Entries {
		before, after := heads[e.Line], NextHead(heads[e.Line], e.Encoded)
		heads[e.Line] = after
		v.Entries = append(v.Entries, entryVector{e.Line.Account[:], e.Line.Asset[:], e.Incarnation, decoded(t, e.Encoded, &pb.Entry{}), e.Encoded, before[:], after[:]})
	}
	for line, head := range heads {
		l, err := DecodeLine(w.memory[string(LineRow(line))])
		if err != nil || l.Head != head {
			t.Fatalf("line %x ends at the head %s, its entries at %s (%v)", line, l.Head, head, err)
		}
	}
	v.Rows = rowVectors(t, w.memory)
	seen := map[string]bool{}
	for _, r := range v.Rows {
		seen[r.Kind] = true
	}
	if len(seen)+len(validatorRows) != len(rowNames) {
		t.Errorf("the vectors have rows of %d kinds, there are %d, and those of validators.json", len(seen), len(rowNames))
	}
	compareVectors(t, "ledger.json", v)
}

// validatorRows are the kinds of rows that stand in validators.json only.
var validatorRows = []byte{rowMissed, rowProposal, rowProposals}

type validatorVectors struct {
	AppState      GenesisState  `json:"app_state"`
	GenesisSet    hexBytes      `json:"validators_of_genesis"` // the value of their row
	NetworkID     hexBytes      `json:"network_id"`
	ConsensusKeys []keyVector   `json:"consensus_keys"`
	Blocks        []blockVector `json:"blocks"`
}

type blockVector struct {
	Height       uint64         `json:"height"`
	Seconds      uint64         `json:"unix_seconds"`
	Transactions []provenVector `json:"transactions"`
	Evidence     []hexBytes     `json:"evidence,omitempty"` // consensus addresses
	Missed       []hexBytes     `json:"missed,omitempty"`   // named by the last commit as absent
	Entries      []entryVector  `json:"entries"`
	Updates      []struct {
		Scheme    uint32   `json:"scheme"`
		PublicKey hexBytes `json:"public_key"`
		Power     uint64   `json:"power"`
	} `json:"updates"`
	Rows []rowVector `json:"rows"` // of the parameters, validators and holds
}

type provenVector struct {
	Tx        hexBytes        `json:"tx"`
	Body      json.RawMessage `json:"body"`
	TxID      hexBytes        `json:"tx_id"`
	Consensus hexBytes        `json:"consensus_preimage,omitempty"`
	Receipt   json.RawMessage `json:"receipt"`
	Encoded   hexBytes        `json:"receipt_bytes"`
}

// TestValidatorVectors: blocks of a network in which every kind of change is voted for, a validator misses blocks and another
// lies.
func TestValidatorVectors(t *testing.T) {
	w := newWorld(t)
	p := &w.genesis.State.Parameters
	p.Bond, p.BondSeconds, p.MissedWindow, p.MaxMissed = 500, 50, 10, 1
	w.addAsset("EUR", "bank", 2, "1000000.00")
	var v validatorVectors
	key := func(name string, scheme crypto.Scheme) crypto.PrivateKey {
		k := newKey(t, scheme, name)
		v.ConsensusKeys = append(v.ConsensusKeys, keyVector{scheme.String(), k.Seed(), k.Public()})
		return k
	}
	address := func(k crypto.PrivateKey) ConsensusAddress { return Validator{PublicKey: k.Public()}.Address() }
	operators := []string{"op0", "op1", "op2", "op3", "op4", "op5"}
	var keys []crypto.PrivateKey
	for i, name := range operators {
		w.addBalance(name, "100.00", "EUR")
		if i < 5 {
			w.addValidator("v"+name, crypto.Ed25519, 10)
			keys = append(keys, key("v"+name, crypto.Ed25519))
			w.genesis.State.Validators = append(w.genesis.State.Validators, GenesisValidator{PubKey: keys[i].Public(), Operator: w.address(name), Name: "validator " + name})
		}
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	network := w.networkID()
	v.AppState, v.GenesisSet, v.NetworkID = w.genesis.State, w.memory[string(ValidatorsRow())], network[:]
	outcome, _, err := w.genesis.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	heads := map[LineKey]crypto.Hash{}
	for _, e := range outcome.Entries {
		heads[e.Line] = NextHead(heads[e.Line], e.Encoded)
	}
	kinds, changes, codes, rows := map[Kind]bool{}, map[ChangeKind]bool{}, map[Code]bool{}, map[string]bool{}
	var block *blockVector
	do := func(name string, op Operation) Receipt {
		t.Helper()
		raw := w.seal(&Body{Signers: []Signer{w.signer(name)}, MaxFee: Units(1e9), Operations: []Operation{op}})
		tx, r := mustDecode(t, raw), w.apply(raw)
		id := tx.ID(network)
		x := provenVector{Tx: raw, Body: decoded(t, tx.BodyBytes(), &pb.Body{}), TxID: id[:], Receipt: decoded(t, r.Encode(), &pb.Receipt{}), Encoded: r.Encode()}
		kinds[op.Kind()], codes[r.Code] = true, true
		if o, ok := op.(*Propose); ok {
			changes[o.Change.Kind()] = true
			if k := o.Change.broughtKey(); k != nil {
				x.Consensus = ConsensusKeyPreimage(network, k.operator, k.scheme, k.publicKey)
			}
		}
		block.Transactions = append(block.Transactions, x)
		return r
	}
	vote := func(change Change) {
		t.Helper()
		r := do("op0", &Propose{Expires: w.millis/1000 + 60, Change: change})
		if r.Code != OK {
			t.Fatalf("%s: %s", change.Kind(), r.Code)
		}
		for _, name := range operators[1:] {
			if a := do(name, &Approve{Proposal: r.Results[0].Proposal}); a.Code == OK && a.Results[0].Executed {
				return
			}
		}
		t.Fatalf("%s was not enacted", change.Kind())
	}
	blocks := []struct {
		do               func()
		evidence, missed []int
	}{
		{do: func() {
			do("op5", &Bond{Amount: Units(500)})
			k := key("vop5", crypto.MLDSA65)
			keys = append(keys, k)
			proof, err := k.Sign(ConsensusKeyPreimage(network, w.address("op5"), k.Scheme(), k.Public()))
			if err != nil {
				t.Fatal(err)
			}
			vote(&AddValidator{Operator: w.address("op5"), Scheme: k.Scheme(), PublicKey: k.Public(), Power: 12, Name: "sixth", Proof: proof})
			do("op1", &Propose{Expires: 2000, Change: &RemoveValidator{Validator: address(keys[0])}})
		}, missed: []int{3, 4}},
		{do: func() {
			p := w.block.nextParameters()
			before := ParametersHash(p.encode())
			p.FeeBase = 2
			vote(&SetParameters{Before: before, Parameters: p})
			do("op4", &ReleaseBond{})
			do("op5", &Reactivate{})
		}, missed: []int{4}}, // the second one: inactive
		{do: func() {
			k := key("vop2 again", crypto.Ed25519)
			proof, err := k.Sign(ConsensusKeyPreimage(network, w.address("op2"), k.Scheme(), k.Public()))
			if err != nil {
				t.Fatal(err)
			}
			vote(&RotateKey{Validator: address(keys[2]), Operator: w.address("op2"), Scheme: k.Scheme(), PublicKey: k.Public(), Proof: proof})
		}},
		{do: func() { do("op4", &Reactivate{}) }, evidence: []int{2}}, // a rotated key
		{do: func() {
			vote(&SetPower{Validator: address(keys[1]), Power: 11})
			vote(&RemoveValidator{Validator: address(keys[3])})
		}},
		{do: func() {}}, // bond_seconds later
		{do: func() { do("op3", &ReleaseBond{}) }},
	}
	for i, b := range blocks {
		millis := w.millis + 1000
		if i == len(blocks)-2 {
			millis += 50_000
		}
		w.next(millis)
		v.Blocks = append(v.Blocks, blockVector{Height: w.height, Seconds: millis / 1000})
		block = &v.Blocks[i]
		b.do()
		var evidence []Misbehavior
		for _, n := range b.evidence {
			a := address(keys[n])
			block.Evidence, evidence = append(block.Evidence, a[:]), append(evidence, Misbehavior{Validator: a, Height: w.height - 1})
		}
		w.votes = nil
		for _, n := range b.missed {
			a := address(keys[n])
			block.Missed, w.votes = append(block.Missed, a[:]), append(w.votes, Vote{Validator: a})
		}
		o := w.end(evidence...)
		for _, e := range o.Entries {
			before, after := heads[e.Line], NextHead(heads[e.Line], e.Encoded)
			heads[e.Line] = after
			block.Entries = append(block.Entries, entryVector{e.Line.Account[:], e.Line.Asset[:], e.Incarnation, decoded(t, e.Encoded, &pb.Entry{}), e.Encoded, before[:], after[:]})
		}
		for _, u := range o.Updates {
			block.Updates = append(block.Updates, struct {
				Scheme    uint32   `json:"scheme"`
				PublicKey hexBytes `json:"public_key"`
				Power     uint64   `json:"power"`
			}{uint32(u.Scheme), u.PublicKey, u.Power})
		}
		for _, r := range rowVectors(t, w.memory) {
			switch r.Kind {
			case "parameters", "validators", "hold", "missed", "proposal", "proposals":
				block.Rows, rows[r.Kind] = append(block.Rows, r), true
			}
		}
	}
	for _, k := range []Kind{KindBond, KindReleaseBond, KindPropose, KindApprove, KindReactivate} {
		if !kinds[k] {
			t.Errorf("no %s", k)
		}
	}
	if len(changes) != len(changeKinds)-1 || len(rows) != 6 || !codes[BondLocked] || !codes[ValidatorNotInactive] {
		t.Errorf("changes %v, rows %v, codes %v: want more", changes, rows, codes)
	}
	compareVectors(t, "validators.json", v)
}

// rowNames are the kinds of rows.
var rowNames = map[byte]struct {
	name string
	m    proto.Message
}{rowAccount: {"account", &pb.Account{}}, rowLine: {"line", &pb.Line{}}, rowAsset: {"asset", &pb.Asset{}}, rowCode: {"code", nil},
	rowParameters: {"parameters", &pb.Parameters{}}, rowNetwork: {"network", &pb.Network{}}, rowBucket: {"bucket", &pb.Bucket{}},
	rowReplay: {"replay totals", &pb.ReplayTotals{}}, rowValidators: {"validators", &pb.ValidatorSet{}}, rowPolicy: {"policy", &pb.Policy{}},
	rowNonce: {"nonce", nil}, rowNonceNumber: {"numbered nonce", &pb.NumberedNonce{}}, rowHoldings: {"holdings", &pb.Holdings{}},
	rowHold: {"hold", &pb.Hold{}}, rowGrant: {"grant", &pb.Grant{}}, rowFeeRate: {"fee rate", &pb.FeeRate{}}, rowDueCount: {"due count", nil},
	rowDueSlot: {"due slot", nil}, rowDue: {"due totals", &pb.DueTotals{}}, rowMissed: {"missed", &pb.Missed{}}, rowProposal: {"proposal", &pb.Proposal{}},
	rowProposals: {"proposals", &pb.Proposals{}}}

func rowVectors(t *testing.T, m Memory) (rows []rowVector) {
	for _, key := range sortedStrings(m) {
		k := rowNames[key[0]]
		if key[0] == rowPolicy && len(m[key]) > 1000 {
			continue // they stand in tx.json
		}
		r := rowVector{Kind: k.name, Key: hexBytes(key), Value: m[key]}
		r.Tree, _ = TreeOf([]byte(key))
		if k.m != nil {
			proto.Reset(k.m)
			r.Fields = decoded(t, m[key][1:], k.m)
		}
		rows = append(rows, r)
	}
	return rows
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
	negativeOperations(t, w, base, body, add)
	compareVectors(t, "negative.json", vectors)
}

// negativeOperations breaks each rule of each operation's table, of the sponsor and of the fee_granter once.
func negativeOperations(t *testing.T, w *world, base func() *Body, body func(string, func(*Body)), add func(string, []byte)) {
	alice, bob, carol, eur := w.address("alice"), w.address("bob"), w.address("carol"), w.asset("EUR")
	op := func(name string, operations ...Operation) { body(name, func(b *Body) { b.Operations = operations }) }
	witness := []Witness{{0, 0, bytes.Repeat([]byte{1}, 64)}}
	// message writes an operation of a kind whose fields the encoder would never write.
	message := func(name string, kind Kind, fields ...field) {
		raw := base().encode()
		raw = edit(t, raw, []int{4}, func([]field) []field {
			return []field{{number: protowire.Number(kind), kind: protowire.BytesType, bytes: assemble(fields)}}
		})
		add(name, Assemble(raw, witness, nil))
	}
	number := func(n protowire.Number, v uint64) field { return field{number: n, varint: v} }
	text := func(n protowire.Number, b []byte) field { return field{number: n, kind: protowire.BytesType, bytes: b} }

	body("fee_granter that signs", func(b *Body) { b.FeeGranter = alice })
	enough := base().MaxFee
	sponsor := func(name string, s Sponsor) { add(name, Assemble(base().encode(), witness, &s)) }
	sponsor("sponsor that signs", Sponsor{Address: alice, MaxFee: enough})
	sponsor("sponsor with a policy without keys", Sponsor{Address: bob, MaxFee: enough, Policy: crypto.Policy{Threshold: 1}.Encode()})
	sponsor("sponsor that pays less than the signers agree to", Sponsor{Address: bob, MaxFee: Units(1)})
	deposits := base()
	deposits.MaxDeposit = Units(2)
	add("sponsor that deposits less than the signers agree to", Assemble(deposits.encode(), witness, &Sponsor{Address: bob, MaxFee: enough, MaxDeposit: Units(1)}))
	wireSponsor := func(name string, fields ...field) {
		add(name, append(Assemble(base().encode(), witness, nil), assemble([]field{text(3, assemble(fields))})...))
	}
	wireSponsor("sponsor without an address")
	wireSponsor("sponsor with an amount with a leading zero", text(1, bob[:]), text(2, []byte{0, 1}))
	wireSponsor("unknown field of a sponsor", text(1, bob[:]), number(5, 1))
	add("witness behind the sponsor's", Assemble(base().encode(), []Witness{{2, 0, []byte{1}}}, &Sponsor{Address: bob, MaxFee: enough}))

	op("transfer with balancing 4", &Transfer{To: bob, Asset: eur, Amount: Units(1), Balancing: 4})
	op("transfer granted by the signer itself", &Transfer{To: bob, Asset: eur, Amount: Units(1), Granter: alice})
	op("transfer from the granter to itself", &Transfer{To: bob, Asset: eur, Amount: Units(1), Granter: bob})
	message("transfer granted by an address of zeros", KindTransfer, text(2, bob[:]), text(3, eur[:]), text(4, []byte{1}), text(9, make([]byte, 32)))
	op("create_asset with controls 8", &CreateAsset{Code: "ABC", MaxSupply: Units(1), Controls: 8})
	for _, who := range []struct {
		name string
		p    crypto.Policy
	}{{"set_policy with the account as its own recovery account", w.policy("1 ed25519:alice recovery:alice:3600")},
		{"set_policy with a change threshold above all weights", crypto.Policy{Threshold: 1, ChangeThreshold: 3, Keys: w.policy("1 ed25519:k1 ed25519:k2").Keys}},
		{"set_policy with a change threshold that is the threshold", crypto.Policy{Threshold: 1, ChangeThreshold: 1, Keys: w.policy("1 ed25519:k1 ed25519:k2").Keys}},
		{"set_policy with a recovery delay below an hour", crypto.Policy{Threshold: 1, Keys: w.policy("1 ed25519:k1").Keys, Recovery: &crypto.Recovery{Account: bob, DelaySeconds: 3599}}},
		{"set_policy with a recovery delay above a year", crypto.Policy{Threshold: 1, Keys: w.policy("1 ed25519:k1").Keys, Recovery: &crypto.Recovery{Account: bob, DelaySeconds: 31_536_001}}}} {
		op(who.name, &SetPolicy{Policy: who.p.Encode(), Proofs: slices.Repeat([][]byte{make([]byte, 64)}, len(who.p.Keys))})
	}
	hold := func(name string, change func(h *CreateHold)) {
		h := &CreateHold{To: bob, Asset: eur, Amount: Units(1), Expires: 1500, PostBy: ByReceiver}
		change(h)
		op("create_hold "+name, h)
	}
	hold("to the holder", func(h *CreateHold) { h.To = alice })
	hold("of nothing", func(h *CreateHold) { h.Amount = Amount{} })
	hold("with the code 65536", func(h *CreateHold) { h.Code = 65536 })
	hold("with a memo of 257 bytes", func(h *CreateHold) { h.Memo = strings.Repeat("m", 257) })
	hold("with balancing 2", func(h *CreateHold) { h.Balancing = BalancingCredit })
	hold("granted by the signer itself", func(h *CreateHold) { h.Granter = alice })
	hold("from the granter to itself", func(h *CreateHold) { h.Granter = bob })
	hold("that never expires", func(h *CreateHold) { h.Expires = 0 })
	hold("that expires after the year 9999", func(h *CreateHold) { h.Expires = MaxUnixSeconds + 1 })
	hold("with not_before at expires", func(h *CreateHold) { h.NotBefore = 1500 })
	hold("with the receiver as arbiter", func(h *CreateHold) { h.Arbiter, h.VoidBy = bob, ByArbiter })
	hold("with the holder as arbiter", func(h *CreateHold) { h.Arbiter, h.VoidBy = alice, ByArbiter })
	hold("with the granter as arbiter", func(h *CreateHold) { h.Granter, h.Arbiter, h.VoidBy = carol, carol, ByArbiter })
	hold("with an arbiter without a right", func(h *CreateHold) { h.Arbiter = carol })
	hold("with a right of no arbiter", func(h *CreateHold) { h.VoidBy = ByArbiter })
	hold("with post_by 16", func(h *CreateHold) { h.PostBy = 16 })
	hold("with void_by 8", func(h *CreateHold) { h.VoidBy = 8 })
	hold("that anybody may post without a lock", func(h *CreateHold) { h.PostBy = ByAnybody })
	hold("that nobody may post", func(h *CreateHold) { h.PostBy = 0 })
	hold("posted at expiry in spite of a lock", func(h *CreateHold) { h.PostAtExpiry, h.HashLock = true, crypto.Hash{1} })
	message("create_hold with a lock of zeros", KindCreateHold, text(2, bob[:]), text(3, eur[:]), text(4, []byte{1}), number(10, 1500), text(13, make([]byte, 32)), number(14, 1))
	message("create_hold with post_at_expiry 2", KindCreateHold, text(2, bob[:]), text(3, eur[:]), text(4, []byte{1}), number(10, 1500), number(16, 2))
	message("post_hold without a hold", KindPostHold)
	op("post_hold with a preimage of 65 bytes", &PostHold{Preimage: make([]byte, 65)})
	message("post_hold with an empty preimage", KindPostHold, text(2, make([]byte, 32)), text(4, nil))
	message("void_hold of 31 bytes", KindVoidHold, text(2, make([]byte, 31)))
	op("set_asset that changes nothing", &SetAsset{Asset: eur})
	op("set_asset that drops control 8", &SetAsset{Asset: eur, DropControls: 8})
	message("set_asset that freezes 4", KindSetAsset, text(2, eur[:]), number(5, 4))
	message("set_asset that unfreezes 4", KindSetAsset, text(2, eur[:]), number(6, 4))
	op("set_asset that freezes and unfreezes", &SetAsset{Asset: eur, Freeze: LineFrozenIn, Unfreeze: lineFrozen})
	op("set_line of the issuer", &SetLine{Account: alice, Asset: eur, Set: LineAuthorised})
	op("set_line that changes nothing", &SetLine{Account: bob, Asset: eur})
	op("set_line that sets 8", &SetLine{Account: bob, Asset: eur, Set: 8})
	op("set_line that clears 8", &SetLine{Account: bob, Asset: eur, Clear: 8})
	op("set_line that sets and clears", &SetLine{Account: bob, Asset: eur, Set: allLineFlags, Clear: LineAuthorised})
	message("set_line with a limit of an explicit 0", KindSetLine, text(2, bob[:]), text(3, eur[:]), text(6, assemble([]field{text(1, nil)})))
	message("set_line with an unknown field of a limit", KindSetLine, text(2, bob[:]), text(3, eur[:]), text(7, assemble([]field{number(2, 1)})))
	op("clawback from the issuer", &Clawback{Account: alice, Asset: eur, Amount: Units(1)})
	op("clawback of nothing", &Clawback{Account: bob, Asset: eur})
	op("clawback with balancing 2", &Clawback{Account: bob, Asset: eur, Amount: Units(1), Balancing: BalancingCredit})
	op("clawback with the code 65536", &Clawback{Account: bob, Asset: eur, Amount: Units(1), Code: 65536})
	message("open_line without an asset", KindOpenLine)
	message("close_line without a receiver", KindCloseLine, text(2, eur[:]))
	message("set_account that changes nothing", KindSetAccount)
	message("set_account that sets and clears", KindSetAccount, number(2, 1), number(3, 1))
	message("set_account that sets closed", KindSetAccount, number(2, 2))
	message("close_account without a receiver", KindCloseAccount)
	grant := func(name string, change func(g *SetGrant)) {
		g := &SetGrant{Grantee: bob, For: KindTransfer, Asset: eur, Total: Units(1), Until: 5000}
		change(g)
		op("set_grant "+name, g)
	}
	grant("to itself", func(g *SetGrant) { g.Grantee = alice })
	grant("of kind 2", func(g *SetGrant) { g.For = KindCreateAsset })
	grant("for fees with an asset", func(g *SetGrant) { g.For = KindFees })
	grant("for transfers without an asset", func(g *SetGrant) { g.Asset = AssetID{} })
	grant("per period without a period", func(g *SetGrant) { g.PerPeriod = Units(1) })
	grant("with a period of nothing", func(g *SetGrant) { g.Period = 1 })
	grant("with a period above 366 days", func(g *SetGrant) { g.PerPeriod, g.Period = Units(1), MaxPeriodSeconds+1 })
	grant("without a limit", func(g *SetGrant) { g.Total = Amount{} })
	grant("without an end", func(g *SetGrant) { g.Until = 0 })
	grant("until after the year 9999", func(g *SetGrant) { g.Until = MaxUnixSeconds + 1 })
	grant("for fees to somebody", func(g *SetGrant) { g.For, g.Asset, g.To = KindFees, AssetID{}, carol })
	op("revoke_grant to itself", &RevokeGrant{Grantee: alice})
	op("revoke_grant of kind 5", &RevokeGrant{Grantee: bob, For: KindPostHold, Asset: eur})
	op("revoke_grant for holds without an asset", &RevokeGrant{Grantee: bob, For: KindCreateHold})
	op("start_recovery of the signer", &StartRecovery{Account: alice})
	message("start_recovery without a policy", KindStartRecovery, text(2, bob[:]))
	message("cancel_recovery without an account", KindCancelRecovery)
	p := w.policy("1 ed25519:k1 ed25519:k2")
	proofs := [][]byte{make([]byte, 64), make([]byte, 64)}
	op("finish_recovery of the signer", &FinishRecovery{Account: alice, Policy: p.Encode(), Proofs: proofs})
	op("finish_recovery without a policy", &FinishRecovery{Account: bob, Proofs: proofs})
	op("finish_recovery with one proof of two", &FinishRecovery{Account: bob, Policy: p.Encode(), Proofs: proofs[:1]})
	own := w.policy("1 ed25519:k1 ed25519:k2 recovery:bob:3600")
	op("finish_recovery to a policy with the account as its recovery account", &FinishRecovery{Account: bob, Policy: own.Encode(), Proofs: proofs})
	op("finish_recovery twice", &FinishRecovery{Account: bob, Policy: p.Encode(), Proofs: proofs}, &FinishRecovery{Account: bob, Policy: p.Encode(), Proofs: proofs})
	op("bond of nothing", &Bond{})
	change := func(name string, c Change) { op("propose to "+name, &Propose{Expires: 5000, Change: c}) }
	wire := func(name string, fields ...field) { // a change whose fields the encoder would never write
		message("propose to "+name, KindPropose, number(2, 5000), text(3, assemble(fields)))
	}
	operator, consensus, consensusAddress := bob, bytes.Repeat([]byte{3}, 32), make([]byte, 20)
	adding := func(name string, alter func(*AddValidator)) {
		c := &AddValidator{Operator: operator, Scheme: crypto.Ed25519, PublicKey: consensus, Power: 1, Proof: []byte{1}}
		alter(c)
		change("add "+name, c)
	}
	op("propose without an end", &Propose{Change: &RemoveValidator{}})
	op("propose until after the year 9999", &Propose{Expires: MaxUnixSeconds + 1, Change: &RemoveValidator{}})
	op("propose nothing", &Propose{Expires: 5000})
	wire("change nothing")
	wire("change in an unknown way", text(6, nil))
	wire("change two things", text(2, assemble([]field{text(1, consensusAddress)})), text(3, assemble([]field{text(1, consensusAddress), number(2, 1)})))
	adding("an operator of zeros", func(c *AddValidator) { c.Operator = crypto.Address{} })
	adding("a key of scheme 2", func(c *AddValidator) { c.Scheme, c.PublicKey = crypto.Secp256k1, make([]byte, 33) })
	adding("a key of 31 bytes", func(c *AddValidator) { c.PublicKey = consensus[:31] })
	adding("an ed25519 key as ml-dsa-65", func(c *AddValidator) { c.Scheme = crypto.MLDSA65 })
	adding("no power", func(c *AddValidator) { c.Power = 0 })
	adding("a power above 2^50", func(c *AddValidator) { c.Power = MaxValidatorPower + 1 })
	adding("a name of 65 bytes", func(c *AddValidator) { c.Name = strings.Repeat("n", 65) })
	adding("a name with a line break", func(c *AddValidator) { c.Name = "a\nb" })
	adding("a name with U+009B", func(c *AddValidator) { c.Name = "\u009b" })
	adding("a name that is no UTF-8", func(c *AddValidator) { c.Name = "\xff" })
	adding("no proof", func(c *AddValidator) { c.Proof = nil })
	adding("a proof of 20,481 bytes", func(c *AddValidator) { c.Proof = make([]byte, MaxSignatureBytes+1) })
	wire("remove a validator of 19 bytes", text(2, assemble([]field{text(1, consensusAddress[:19])})))
	wire("remove a validator with an unknown field", text(2, assemble([]field{text(1, consensusAddress), number(2, 1)})))
	change("set no power", &SetPower{})
	change("set a power above 2^50", &SetPower{Power: MaxValidatorPower + 1})
	change("rotate for an operator of zeros", &RotateKey{Scheme: crypto.Ed25519, PublicKey: consensus, Proof: []byte{1}})
	change("rotate without a key", &RotateKey{Operator: operator, Scheme: crypto.Ed25519, Proof: []byte{1}})
	change("rotate without a proof", &RotateKey{Operator: operator, Scheme: crypto.Ed25519, PublicKey: consensus})
	wire("set no parameters", text(5, assemble([]field{text(1, make([]byte, 32))})))
	parameters := DefaultParameters()
	setting := func(name string, alter func(*Parameters)) {
		c := &SetParameters{Parameters: parameters}
		alter(&c.Parameters)
		change("set "+name, c)
	}
	setting("bond above 2^40", func(p *Parameters) { p.Bond = MaxFeeUnit + 1 })
	setting("bond_seconds 0", func(p *Parameters) { p.BondSeconds = 0 })
	setting("bond_seconds above 366 days", func(p *Parameters) { p.BondSeconds = MaxBondSeconds + 1 })
	setting("missed_window 9", func(p *Parameters) { p.MissedWindow, p.MaxMissed = 9, 1 })
	setting("missed_window above 100,000", func(p *Parameters) { p.MissedWindow = MaxMissedWindow + 1 })
	setting("max_missed without a window", func(p *Parameters) { p.MissedWindow = 0 })
	setting("max_missed 0", func(p *Parameters) { p.MaxMissed = 0 })
	setting("max_missed of the whole window", func(p *Parameters) { p.MaxMissed = p.MissedWindow })
	message("approve without a proposal", KindApprove)
	message("approve with withdraw 2", KindApprove, text(2, make([]byte, 32)), number(3, 2))
	for kind := KindTransfer; int(kind) < len(operationKinds); kind++ {
		message(kind.String()+" by signer 2^32", kind, number(1, 1<<32))
	}
	seen := map[Kind]bool{}
	for _, s := range namedSeeds(t) {
		tx := mustDecode(t, s.raw)
		at := slices.IndexFunc(part(t, tx.BodyBytes()), func(f field) bool { return f.number == 5 })
		for i, op := range tx.Body.Operations {
			if kind := op.Kind(); !seen[kind] {
				seen[kind] = true
				raw := edit(t, tx.BodyBytes(), []int{at + i, 0}, func(f []field) []field { return append(f, number(20, 1)) })
				add(kind.String()+" with an unknown field", Assemble(raw, tx.Witnesses, tx.Sponsor))
			}
		}
	}
}
