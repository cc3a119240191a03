package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"math/bits"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/reference"
	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// The ledger against the reference ledger, which was written from docs/PROTOCOL.md alone: random histories, drawn in
// history_test.go, go through both. After each transaction the codes and the receipts must be equal, after each block all
// rows, entries and validator updates.

// keyring makes keys by name, signs and verifies.
type keyring interface {
	public(scheme uint32, name string) []byte
	sign(scheme uint32, public, message []byte) []byte
	verify(scheme uint32, public, message, signature []byte) bool
	registrable(scheme uint32, public []byte) bool
}

// smallOrder is a key with which anybody can sign, and which no policy may have.
var smallOrder = append([]byte{1}, make([]byte, 31)...)

// pretended keys sign with a hash that everybody can compute. Nobody forges here, so it tells signatures over the right
// bytes from others as well as cryptography does, in a hundredth of the time.
type pretended struct{}

func (pretended) public(scheme uint32, name string) []byte {
	h := sha256.Sum256(fmt.Appendf(nil, "pretended key %d %s", scheme, name))
	return append(h[:], make([]byte, crypto.Scheme(scheme).PublicKeySize()-len(h))...)
}

func (pretended) sign(scheme uint32, public, message []byte) []byte {
	h := sha256.New()
	h.Write([]byte{byte(scheme)})
	h.Write(public[:32])
	h.Write(message)
	return h.Sum(nil)
}

func (p pretended) verify(scheme uint32, public, message, signature []byte) bool {
	return bytes.Equal(signature, p.sign(scheme, public, message))
}

func (pretended) registrable(_ uint32, public []byte) bool { return !bytes.Equal(public, smallOrder) }

// Verify implements [ledger.Verifier].
func (p pretended) Verify(a ledger.Authorization) bool {
	for _, c := range a.Checks {
		if c.KeyOnly && !p.registrable(uint32(c.Scheme), c.PublicKey) ||
			!c.KeyOnly && !p.verify(uint32(c.Scheme), c.PublicKey, c.Message, c.Signature) {
			return false
		}
	}
	return true
}

// real keys are those of package crypto.
type real struct {
	ledger.Direct
	keys map[string]crypto.PrivateKey // by public key
}

func (r real) public(scheme uint32, name string) []byte {
	seed := sha256.Sum256(fmt.Appendf(nil, "key %d %s", scheme, name))
	k, err := crypto.NewPrivateKey(crypto.Scheme(scheme), seed[:])
	if err != nil {
		panic(err)
	}
	r.keys[string(k.Public())] = k
	return k.Public()
}

func (r real) sign(scheme uint32, public, message []byte) []byte {
	k, known := r.keys[string(public)]
	if !known {
		return []byte("nobody has this key")
	}
	signature, err := k.Sign(message)
	if err != nil {
		panic(err)
	}
	return signature
}

func (real) verify(scheme uint32, public, message, signature []byte) bool {
	return crypto.Check{Scheme: crypto.Scheme(scheme), PublicKey: public, Message: message, Signature: signature}.Verify()
}

func (real) registrable(scheme uint32, public []byte) bool {
	return crypto.CheckPublicKey(crypto.Scheme(scheme), public) == nil
}

// pair is both ledgers, side by side.
type pair struct {
	t         *rapid.T
	verifier  ledger.Verifier
	memory    ledger.Memory
	block     *ledger.Block
	reference *reference.Ledger
	height    uint64
	millis    uint64
	seen      *coverage
}

// coverage counts what histories have reached.
type coverage struct {
	codes      map[ledger.Code]int
	operations map[string]int // that took effect, by kind
	validators map[string]int // changes of the set, by kind, and what has become of validators at the end of a block
	entries    map[string]int // by kind; those at the end of a block apart
}

func newCoverage() *coverage {
	return &coverage{map[ledger.Code]int{}, map[string]int{}, map[string]int{}, map[string]int{}}
}

func newPair(t *rapid.T, g ledger.Genesis, verifier ledger.Verifier, ring keyring, seen *coverage) *pair {
	encoded, err := g.Encode()
	if err != nil {
		t.Fatalf("genesis: %s", err)
	}
	outcome, _, err := g.Outcome()
	if err != nil {
		t.Fatalf("genesis: %s", err)
	}
	p := &pair{t: t, verifier: verifier, memory: ledger.Memory{}, seen: seen, height: g.InitialHeight - 1, millis: g.UnixNanos / 1e6}
	p.reference, err = reference.New(g.ChainID, encoded, reference.Keys{Verify: ring.verify, Registrable: ring.registrable})
	if err != nil {
		t.Fatal(err)
	}
	p.compare(outcome)
	return p
}

func (p *pair) begin(millis uint64) {
	p.height++
	p.millis = millis
	b, err := ledger.NewBlock(p.memory, ledger.Header{Height: p.height, UnixMillis: millis}, p.verifier)
	if err != nil {
		p.t.Fatal(err)
	}
	p.block = b
	p.reference.BeginBlock(p.height, millis)
}

// apply puts a transaction through both and returns what became of it.
func (p *pair) apply(raw []byte) ledger.Receipt {
	var receipt ledger.Receipt
	tx, err := ledger.Decode(raw)
	if err != nil {
		receipt.Code = ledger.Malformed
	} else {
		// What admission to a node's memory says is what the block says.
		admission, err := p.block.Check(tx, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		if receipt, err = p.block.Apply(tx); err != nil {
			p.t.Fatal(err)
		}
		if refused := receipt.Code.Refused(); refused && admission != receipt.Code || !refused && admission != ledger.OK {
			p.t.Fatalf("Check says %s, Apply %s, of\n%s", admission, receipt.Code, show(raw))
		}
	}
	code, encoded := p.reference.Apply(raw)
	p.seen.codes[receipt.Code]++
	if uint32(receipt.Code) != code || !bytes.Equal(receipt.Encode(), encoded) {
		var theirs pb.Receipt
		if e := proto.Unmarshal(encoded, &theirs); e != nil {
			p.t.Fatal(e)
		}
		p.t.Fatalf("at %d ms the ledger says %s of operation %d (%v), the reference %s:\n%+v\n%s\n%s", p.millis, receipt.Code, int(receipt.Failed)-1, err,
			ledger.Code(code), receipt, &theirs, show(raw))
	}
	return receipt
}

func (p *pair) end(evidence [][20]byte, votes []vote) {
	var misbehavior []ledger.Misbehavior
	for _, name := range evidence {
		misbehavior = append(misbehavior, ledger.Misbehavior{Validator: name, Height: p.height})
	}
	var ours []ledger.Vote
	var theirs []reference.Vote
	for _, v := range votes {
		ours = append(ours, ledger.Vote{Validator: v.validator, Signed: v.signed})
		theirs = append(theirs, reference.Vote{Validator: v.validator, Signed: v.signed})
	}
	outcome, err := p.block.End(misbehavior, ours)
	if err != nil {
		p.t.Fatal(err)
	}
	updates := p.reference.EndBlock(evidence, theirs)
	if len(outcome.Broken) > 0 {
		p.t.Fatalf("block %d: transactions %x would have broken an invariant", p.height, outcome.Broken)
	}
	same := slices.EqualFunc(outcome.Updates, updates, func(a ledger.Validator, b *pb.Validator) bool {
		return uint32(a.Scheme) == b.Scheme && bytes.Equal(a.PublicKey, b.PublicKey) && a.Power == b.Power && a.Tombstoned == b.Tombstoned && a.InactivePower == b.InactivePower && a.Left == b.Left
	})
	if !same {
		p.t.Fatalf("block %d: the ledger changes the validators %v, the reference %v", p.height, outcome.Updates, updates)
	}
	p.compare(outcome)
}

// compare takes over the writes of a block and holds all that there is against the reference.
func (p *pair) compare(outcome ledger.Outcome) {
	p.memory.Apply(outcome.Writes)
	entries := p.reference.Entries()
	for i := range max(len(entries), len(outcome.Entries)) {
		switch {
		case i == len(entries) || i == len(outcome.Entries):
			p.t.Fatalf("block %d: the ledger made %d entries, the reference %d", p.height, len(outcome.Entries), len(entries))
		case outcome.Entries[i].Line != ledger.LineKey{Account: entries[i].Account, Asset: entries[i].Asset} ||
			!bytes.Equal(outcome.Entries[i].Encoded, entries[i].Encoded):
			var ours, theirs pb.Entry
			proto.Unmarshal(outcome.Entries[i].Encoded, &ours)
			proto.Unmarshal(entries[i].Encoded, &theirs)
			p.t.Fatalf("block %d, entry %d: the ledger has\n%v %v\nthe reference\n%x %v", p.height, i, outcome.Entries[i].Line, &ours, entries[i].Account, &theirs)
		}
	}
	for _, e := range outcome.Entries {
		entry, err := ledger.DecodeEntry(e.Encoded)
		if err != nil {
			p.t.Fatal(err)
		}
		kind := entry.Kind.String()
		if entry.TxID == (crypto.Hash{}) {
			kind += " by a block"
		}
		p.seen.entries[kind]++
	}
	if p.height%8 == 0 {
		p.audit()
	}
	rows := p.reference.Rows()
	if maps.EqualFunc(p.memory, rows, bytes.Equal) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if !bytes.Equal(p.memory[key], rows[key]) {
			p.t.Fatalf("block %d, row %x: the ledger has\n%s\nthe reference\n%s", p.height, key, showRow(key, p.memory[key]), showRow(key, rows[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.memory)) {
		if rows[key] == nil {
			p.t.Fatalf("block %d, row %x: the ledger has\n%s\nthe reference nothing", p.height, key, showRow(key, p.memory[key]))
		}
	}
}

// audit asks the ledger's own audit of a whole state.
func (p *pair) audit() {
	a := ledger.NewAudit()
	for _, key := range slices.Sorted(maps.Keys(p.memory)) {
		a.Row([]byte(key), p.memory[key])
	}
	a.Close()
	if len(a.Findings) > 0 {
		p.t.Fatalf("audit after block %d: %q", p.height, a.Findings)
	}
}

// rowMessages are the messages of rows by the first byte of their keys.
var rowMessages = map[byte]proto.Message{0x01: &pb.Account{}, 0x02: &pb.Line{}, 0x03: &pb.Asset{}, 0x05: &pb.Holdings{}, 0x06: &pb.Hold{},
	0x07: &pb.Grant{}, 0x40: &pb.Parameters{}, 0x41: &pb.Network{}, 0x42: &pb.FeeRate{}, 0x50: &pb.Bucket{}, 0x51: &pb.ReplayTotals{},
	0x60: &pb.ValidatorSet{}, 0x61: &pb.Missed{}, 0x62: &pb.Proposal{}, 0x63: &pb.Proposals{}, 0x72: &pb.DueTotals{}, 0x80: &pb.Policy{}, 0x82: &pb.NumberedNonce{}}

func showRow(key string, value []byte) string {
	if m := rowMessages[key[0]]; m != nil && len(value) > 0 {
		m = proto.Clone(m)
		if proto.Unmarshal(value[1:], m) == nil {
			return fmt.Sprintf("%x (%v)", value, m)
		}
	}
	return fmt.Sprintf("%x", value)
}

func show(raw []byte) string {
	var tx pb.Tx
	var body pb.Body
	if proto.Unmarshal(raw, &tx) != nil || proto.Unmarshal(tx.Body, &body) != nil {
		return fmt.Sprintf("%x", raw)
	}
	tx.Body = nil
	return fmt.Sprintf("%v\n%v", &body, &tx)
}

// rapidly runs histories: as many as there should be by default, from the default seed, unless rapid's own flags say
// otherwise. A failure prints its seed.
func rapidly(t *testing.T, histories int, property func(*rapid.T)) {
	t.Helper()
	for name, value := range map[string]string{"rapid.checks": fmt.Sprint(histories), "rapid.seed": "1"} {
		f := flag.Lookup(name)
		if f.Value.String() != f.DefValue {
			continue
		}
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { flag.Set(name, f.DefValue) })
	}
	rapid.Check(t, property)
}

// TestReference runs 1,000 histories of 100 transactions.
func TestReference(t *testing.T) {
	histories := 1_000
	if testing.Short() {
		histories = 100
	}
	seen := newCoverage()
	rapidly(t, histories, func(rt *rapid.T) { newHistory(rt, pretended{}, pretended{}, seen, nil).run(100) })
	total := 0
	for _, n := range seen.codes {
		total += n
	}
	t.Logf("operations that took effect: %v", seen.operations)
	t.Logf("entries: %v", seen.entries)
	t.Logf("validators: %v", seen.validators)
	for _, e := range ledger.Explanations() {
		t.Logf("%6d %s", seen.codes[e.Code], e.Name)
	}
	if seen.codes[ledger.OK]*20 < total*9 {
		t.Errorf("%d of %d transactions took effect: the histories are too wild to tell much", seen.codes[ledger.OK], total)
	}
	if testing.Short() {
		return
	}
	// Nothing leads to a broken invariant. A full bucket is in TestReferenceBucketFull.
	for _, e := range ledger.Explanations() {
		if seen.codes[e.Code] == 0 && e.Code != ledger.BrokenInvariant && e.Code != ledger.HoldBucketFull {
			t.Errorf("no history reaches %s", e.Name)
		}
	}
	kinds := (&pb.Operation{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range kinds.Len() {
		if kind := string(kinds.Get(i).Name()); seen.operations[kind] < 20 {
			t.Errorf("only %d operations %s took effect", seen.operations[kind], kind)
		}
	}
	for _, what := range []string{"add_validator", "remove_validator", "set_power", "rotate_key", "set_parameters", "set inactive", "tombstoned", "tombstoned when former",
		"forfeited a bond", "gave way"} {
		if seen.validators[what] < 5 {
			t.Errorf("%s: only %d times", what, seen.validators[what])
		}
	}
	for kind := ledger.EntryKind(1); kind <= ledger.EntryClawback; kind++ {
		if seen.entries[kind.String()]+seen.entries[kind.String()+" by a block"] == 0 {
			t.Errorf("no history makes an entry of the kind %s", kind)
		}
	}
	for _, kind := range []ledger.EntryKind{ledger.EntryPost, ledger.EntryExpire, ledger.EntryRefund} {
		if seen.entries[kind.String()+" by a block"] == 0 {
			t.Errorf("no history makes an entry of the kind %s by the end of a block", kind)
		}
	}
}

// TestReferenceSigned is the same with real keys and signatures.
func TestReferenceSigned(t *testing.T) {
	seen := newCoverage()
	ring := real{keys: map[string]crypto.PrivateKey{}}
	rapidly(t, 10, func(rt *rapid.T) { newHistory(rt, ring, ring, seen, nil).run(40) })
	if !testing.Short() && (seen.codes[ledger.OK] < 100 || seen.codes[ledger.SignatureInvalid] == 0) { // rapid makes a fifth of the histories when it is to be short
		t.Errorf("%v", seen.codes)
	}
}

// TestReferenceBucketFull makes as many holds of one second as there may be, and one more, and lets some of them expire.
func TestReferenceBucketFull(t *testing.T) {
	if testing.Short() {
		t.Skip("65,536 holds take a while")
	}
	seen := newCoverage()
	rapidly(t, 1, func(rt *rapid.T) {
		h := newHistory(rt, pretended{}, pretended{}, seen, func(p *ledger.GenesisParameters) {
			p.MaxTxBytes, p.MaxHoldSeconds, p.MaxExpiries, p.DepositHold = 1<<18, 20_000, 10_000, 0
			p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature = 1, 0, 0, 0
			p.FeeTargetWeight, p.AssetCreators = 0, nil
		})
		h.careful = true
		alice, bob := h.people[0], h.people[4]
		expires := h.now() + 10_100
		hold := func(n int) (steps []step) {
			for range n {
				o := &pb.CreateHold{To: bob.address, Asset: h.assets[2], Amount: []byte{1}, Expires: expires, PostBy: 1, VoidBy: 1}
				steps = append(steps, step{alice, func(uint32) *pb.Operation { return &pb.Operation{Kind: &pb.Operation_CreateHold{CreateHold: o}} }})
			}
			return steps
		}
		h.begin(h.now()*1000 + 1000)
		for tries := 0; seen.operations["create_hold"] < 65_536 && tries < 200; tries++ { // some are refused
			h.send(h.compose(hold(min(65_536-seen.operations["create_hold"], 1_000))))
		}
		for tries := 0; seen.codes[ledger.HoldBucketFull] == 0 && tries < 20; tries++ {
			h.send(h.compose(hold(1)))
		}
		h.end(nil, nil)
		if len(h.holds) != 65_536 || seen.codes[ledger.HoldBucketFull] != 1 {
			rt.Fatalf("%d holds: %v", len(h.holds), seen.codes)
		}
		for range 2 { // the first block goes through 10,000 seconds and does not get there
			h.begin((expires + 1) * 1000)
			h.end(nil, nil)
		}
		if n := seen.entries[ledger.EntryExpire.String()+" by a block"]; n != 20_000 {
			rt.Fatalf("%d entries of holds that expired", n)
		}
	})
}

// TestReferenceCollector fills the line that the fees go to, up to the last unit that it can hold.
func TestReferenceCollector(t *testing.T) {
	seen := newCoverage()
	rapidly(t, 20, func(rt *rapid.T) {
		h := newHistory(rt, pretended{}, pretended{}, seen, func(p *ledger.GenesisParameters) {
			p.MaxTxBytes, p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature, p.FeeTargetWeight = 1<<18, 10, 0, 0, 0, 0
			p.DepositAccount, p.DepositLine = 0, 0
		})
		h.careful = true
		bank, fees, alice := h.people[1], h.people[3], h.people[0]
		pay := func(from, to *person, n *big.Int) step {
			return step{from, func(i uint32) *pb.Operation {
				return &pb.Operation{Kind: &pb.Operation_Transfer{Transfer: &pb.Transfer{From: i, To: to.address, Asset: h.eur, Amount: n.Bytes(), Balancing: 1}}}
			}}
		}
		// The collector closes a line before fees open another one, which some histories' genesis has not.
		h.begin(h.now()*1000 + 1000)
		closed := func() uint64 { a, _ := h.account(fees.address); return uint64(a.GetClosedLines()) }
		for tries := 0; closed() == 0 && tries < 20; tries++ { // a sponsor that is drawn may be too poor
			h.send(h.compose([]step{
				{alice, func(uint32) *pb.Operation {
					return &pb.Operation{Kind: &pb.Operation_SetAccount{SetAccount: &pb.SetAccount{Set: 1}}}
				}},
				{fees, func(i uint32) *pb.Operation {
					return &pb.Operation{Kind: &pb.Operation_OpenLine{OpenLine: &pb.OpenLine{Signer: i, Asset: h.assets[2]}}}
				}},
				h.close(fees, h.assets[2], fees.address),
			}))
		}
		h.end(nil, nil)
		if closed() != 1 {
			rt.Fatalf("the collector has closed %d lines: %v", closed(), seen.codes)
		}
		h.begin(h.now()*1000 + 1000)
		h.send(h.compose([]step{pay(bank, fees, power(128, 1)), pay(fees, alice, power(100, 0))}))
		h.end(nil, nil)
		for range 4 {
			h.begin(h.now()*1000 + 1000)
			for range 12 {
				l, _ := h.line(fees.address, h.eur)
				left := power(128, 0)
				left.Sub(left, number(l.CreditsPosted)) // without the fees of this block
				some := draw(h.draws, left, new(big.Int).Sub(left, big.NewInt(int64(h.below(140)))), big.NewInt(int64(1+h.below(20))))
				if some.Sign() <= 0 {
					some.SetInt64(1)
				}
				h.send(h.compose([]step{draw(h.draws, pay(alice, fees, some), pay(alice, fees, some), pay(fees, alice, some), pay(alice, bank, some))}))
			}
			h.end(nil, nil)
		}
	})
	for _, code := range []ledger.Code{ledger.FeeUnpayable, ledger.CounterOverflow, ledger.OK} {
		if seen.codes[code] == 0 {
			t.Errorf("nothing is %s: %v", code, seen.codes)
		}
	}
}

// TestReferenceOverflow sends amounts round until no counter can take them any more.
func TestReferenceOverflow(t *testing.T) {
	seen := newCoverage()
	rapidly(t, 50, func(rt *rapid.T) {
		h := newHistory(rt, pretended{}, pretended{}, seen, func(p *ledger.GenesisParameters) {
			p.MaxTxBytes, p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature, p.FeeTargetWeight = 1<<18, 0, 0, 0, 0, 0
			p.DepositAccount, p.DepositLine, p.DepositHold, p.AssetCreators = 0, 0, 0, nil
		})
		h.careful = true
		issuer, circle := h.people[2], []*person{h.people[0], h.people[3], h.people[2]}
		h.begin(h.now()*1000 + 1000)
		big128 := power(128, 1).Bytes()
		h.send(h.compose([]step{{issuer, func(i uint32) *pb.Operation {
			return &pb.Operation{Kind: &pb.Operation_CreateAsset{CreateAsset: &pb.CreateAsset{Issuer: i, Code: "BIG", MaxSupply: big128, Controls: 4}}}
		}}}))
		asset := h.assets[len(h.assets)-1]
		move := func(from, to *person, n []byte) step {
			return step{from, func(i uint32) *pb.Operation {
				return &pb.Operation{Kind: &pb.Operation_Transfer{Transfer: &pb.Transfer{From: i, To: to.address, Asset: asset, Amount: n}}}
			}}
		}
		h.send(h.compose([]step{move(issuer, circle[0], power(127, 0).Bytes())}))
		for range 60 {
			from := h.below(3)
			to := circle[(from+1+h.below(2))%3]
			n := draw(h.draws, power(127, 0), power(126, 0), power(127, 1), big.NewInt(1), h.available(circle[from], asset))
			s := move(circle[from], to, n.Bytes())
			switch {
			case n.Sign() == 0:
				s = move(circle[from], to, big128)
			case to == issuer && h.below(2) == 0:
				holder := circle[from].address
				s = step{issuer, func(i uint32) *pb.Operation {
					return &pb.Operation{Kind: &pb.Operation_Clawback{Clawback: &pb.Clawback{Signer: i, Account: holder, Asset: asset, Amount: n.Bytes()}}}
				}}
			case h.below(6) == 0:
				s.make = func(i uint32) *pb.Operation {
					return &pb.Operation{Kind: &pb.Operation_CreateHold{CreateHold: &pb.CreateHold{Signer: i, To: to.address, Asset: asset, Amount: n.Bytes(),
						Expires: h.now() + 1 + uint64(h.below(3)), PostAtExpiry: true}}}
				}
			}
			h.send(h.compose([]step{s}))
			if h.below(5) == 0 {
				h.end(nil, nil)
				h.begin(h.now()*1000 + 1000)
			}
		}
		h.end(nil, nil)
	})
	if !testing.Short() && (seen.codes[ledger.CounterOverflow] < 100 || seen.codes[ledger.OK] < 500) {
		t.Errorf("%v", seen.codes)
	}
}

// draws are choices out of few. Rapid's own generators prefer small numbers, which would shift the weights of what is drawn.
type draws struct {
	source  *rapid.T
	careful bool // nothing unlikely happens
}

var coin = rapid.Bool()

// below draws from 0 to n-1, evenly.
func (d draws) below(n int) int {
	for {
		drawn := 0
		for range bits.Len(uint(n - 1)) {
			drawn <<= 1
			if coin.Draw(d.source, "") {
				drawn++
			}
		}
		if drawn < n {
			return drawn
		}
	}
}

// oneIn is true once in n draws.
func (d draws) oneIn(n int) bool { return !d.careful && d.below(n) == n-1 }

// draw picks one element; the first is the simplest.
func draw[V any](d draws, list ...V) V { return list[d.below(len(list))] }

func power(exponent uint, less int64) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), exponent)
	return n.Sub(n, big.NewInt(less))
}
