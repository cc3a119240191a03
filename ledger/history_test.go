package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// policy is one that the test has keys of.
type policy struct {
	*pb.Policy
	raw  []byte
	hash []byte // 32
}

// person is an account, present or future, by its first policy.
type person struct {
	name    string
	address []byte // 32
	first   *policy
}

// history draws transactions and blocks. It looks at the reference for what would succeed, and mostly draws that. It knows
// the formats by the generated messages only.
type history struct {
	draws
	*pair
	ring      keyring
	networkID [32]byte

	people        []*person
	previous      []*pb.Validator    // at the end of the block before
	firstOperator int                // among them
	ruling        bool               // much is about the validator set
	policies      map[string]*policy // by hash
	pool          []*policy          // to change to
	eur           []byte
	assets        [][]byte
	holds         [][]byte          // ids, also of some that are gone
	grants        [][]byte          // keys of rows, likewise
	secrets       map[string][]byte // by hash lock
	moments       []uint64          // seconds at whose boundary something happens
	sent          [][]byte          // transactions that were in a block
	waiting       [][]byte          // signed, and to be sent later
	proposed      [][]byte          // ids, also of proposals that are gone
	changes       map[string]string // their kinds
	lazy          map[[20]byte]bool // validators that are out of order
}

func digest(domain string, parts ...[]byte) []byte {
	h := sha256.Sum256(append([]byte(domain), slices.Concat(parts...)...))
	return h[:]
}

func (h *history) policy(threshold, change uint32, recovery []byte, keys ...*pb.Key) *policy {
	m := &pb.Policy{Threshold: threshold, ChangeThreshold: change, RecoveryAccount: recovery, Keys: keys}
	if recovery != nil {
		m.RecoveryDelay = 3_600
	}
	slices.SortFunc(m.Keys, func(a, b *pb.Key) int {
		if a.Scheme != b.Scheme {
			return int(a.Scheme) - int(b.Scheme)
		}
		return bytes.Compare(a.PublicKey, b.PublicKey)
	})
	raw := encode(m)
	p := &policy{m, raw, digest("pacioli.addr.v1\x00", raw)}
	h.policies[string(p.hash)] = p
	return p
}

func (h *history) key(scheme uint32, name string, weight uint32) *pb.Key {
	return &pb.Key{Scheme: scheme, PublicKey: h.ring.public(scheme, name), Weight: weight}
}

func (h *history) person(name string, p *policy) *person {
	who := &person{name, p.hash, p}
	h.people = append(h.people, who)
	return who
}

func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func newHistory(t *rapid.T, ring keyring, verifier ledger.Verifier, seen *coverage, adjust func(*ledger.GenesisParameters)) *history {
	h := &history{draws: draws{source: t}, ring: ring, policies: map[string]*policy{}, secrets: map[string][]byte{}, lazy: map[[20]byte]bool{}, changes: map[string]string{}}
	single := func(name string) *person { return h.person(name, h.policy(1, 0, nil, h.key(1, name, 1))) }
	alice, bank, mint := single("alice"), single("bank"), single("mint")
	fees := single("fees")
	h.person("bob", h.policy(1, 0, nil, h.key(2, "bob", 1)))
	h.person("carol", h.policy(2, 3, nil, h.key(1, "carol-a", 1), h.key(1, "carol-b", 2), h.key(2, "carol-c", 1)))
	h.person("dave", h.policy(2, 0, nil, h.key(1, "dave", 1), h.key(4, "dave", 1)))
	h.person("erin", h.policy(1, 0, alice.address, h.key(1, "erin", 1)))
	for _, name := range []string{"fay", "gus", "hal", "ida", "joe"} {
		single(name) // they come later, without a row and without money
	}
	h.firstOperator = len(h.people)
	for i := range 9 {
		single(fmt.Sprintf("operator %d", i))
	}
	h.pool = []*policy{
		h.policy(1, 0, nil, h.key(1, "new", 1)),
		h.policy(1, 0, alice.address, h.key(1, "new", 1)),
		h.policy(1, 2, bank.address, h.key(1, "new", 1), h.key(2, "new", 1)),
		h.policy(3, 4, alice.address, h.key(1, "new-a", 2), h.key(1, "new-b", 1), h.key(2, "new", 2)),
		h.policy(1, 0, bank.address, h.key(5, "new", 1)),
		h.policy(1, 0, nil, &pb.Key{Scheme: 1, PublicKey: smallOrder, Weight: 1}),
	}
	for _, secret := range [][]byte{{}, []byte("open sesame"), bytes.Repeat([]byte{7}, 64)} {
		h.secrets[string(digest("", secret))] = secret
	}

	few := func(n ...uint64) uint64 { return draw(h.draws, n...) }
	p := new(ledger.GenesisParameters)
	*p = ledger.GenesisParameters{MaxTxBytes: uint32(few(1<<18, 1<<18, 1<<18, 1<<18, 1<<18, 1<<18, 1<<18, 1<<18, 1<<18, 1<<18, 1_500)), ReplayWindowSeconds: uint32(few(10, 5_000)),
		MaxOpenNonces: few(1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 8), FeeAsset: "EUR", FeeCollector: crypto.Address(fees.address),
		FeeBase: few(0, 1, 10), FeePerByte: few(0, 0, 1), FeePerOperation: few(0, 3), FeePerSignature: few(0, 0, 1),
		DepositAccount: few(0, 100), DepositLine: few(0, 50, 50), DepositHold: few(0, 20, 20), DepositGrant: few(0, 70, 70),
		MaxHoldSeconds: uint32(few(10, 20_000)), MaxExpiries: uint32(few(1, 2, 100)),
		FeeTargetWeight: few(0, 4_000, 20_000, 1), MaxFeeMultiplier: uint32(few(1_000, 1_100, 5_000)),
		Bond: few(0, 0, 300), BondSeconds: uint32(few(1, 3, 5, 20_000)), MissedWindow: uint32(few(0, 10, 10, 25))}
	if p.MissedWindow > 0 {
		p.MaxMissed = uint32(few(1, 2, 3, 9))
	}
	if h.oneIn(5) {
		p.AssetCreators = []crypto.Address{crypto.Address(bank.address), crypto.Address(alice.address)}
		slices.SortFunc(p.AssetCreators, func(a, b crypto.Address) int { return bytes.Compare(a[:], b[:]) })
	}
	if adjust != nil {
		adjust(p)
	}
	g := ledger.Genesis{ChainID: "reference", UnixNanos: 1_000e9 + 5e8, InitialHeight: few(1, 7)}
	g.State.Parameters = *p
	most := power(128, 1).String()
	g.State.Assets = []ledger.GenesisAsset{
		{Code: "EUR", Issuer: crypto.Address(bank.address), Scale: 0, MaxSupply: draw(h.draws, "10000000", most)},
		{Code: "CTL", Issuer: crypto.Address(mint.address), Scale: 0, MaxSupply: draw(h.draws, "100000", most), Controls: []string{"authorisation", "freeze", "clawback"}},
		{Code: "TOK", Issuer: crypto.Address(alice.address), Scale: 0, MaxSupply: most},
	}
	for _, a := range g.State.Assets {
		h.assets = append(h.assets, digest("pacioli.asset.v1\x00", a.Issuer[:], []byte(a.Code))[:16])
	}
	h.eur = h.assets[0]
	for i, who := range append(slices.Clone(h.people[:10]), h.people[h.firstOperator:]...) {
		account := ledger.GenesisAccount{Address: crypto.Address(who.address)}
		if who != bank && (who != fees || !h.oneIn(3)) { // the collector's line may be opened later
			account.Balances = append(account.Balances, ledger.GenesisBalance{Asset: "EUR", Amount: draw(h.draws, "90000", "90000", "90000", "90000", "90000", "400")})
		}
		if who != alice && i%2 == 0 {
			account.Balances = append(account.Balances, ledger.GenesisBalance{Asset: "TOK", Amount: draw(h.draws, "1000", power(64, 0).String(), power(120, 0).String())})
		}
		if len(account.Balances) > 0 {
			g.State.Accounts = append(g.State.Accounts, account)
		}
	}
	slices.SortFunc(g.State.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	h.ruling = h.oneIn(3)
	h.found(&g)
	h.pair = newPair(t, g, verifier, ring, seen)
	h.networkID = h.reference.NetworkID()
	return h
}

// authorise makes the asset with controls useful: its issuer lets some have it, and gives them some.
func (h *history) authorise() {
	mint := h.people[2]
	var steps []step
	for _, who := range h.people[3:8] {
		line := &pb.SetLine{Account: who.address, Asset: h.assets[1], Set: 1, Credit: &pb.Limit{Amount: draw(h.draws, nil, []byte{100})}}
		pay := &pb.Transfer{To: who.address, Asset: h.assets[1], Amount: []byte{1, 0}}
		steps = append(steps, step{mint, func(uint32) *pb.Operation { return &pb.Operation{Kind: &pb.Operation_SetLine{SetLine: line}} }},
			step{mint, func(uint32) *pb.Operation { return &pb.Operation{Kind: &pb.Operation_Transfer{Transfer: pay}} }})
	}
	h.send(h.compose(steps))
}

// run draws blocks until there were so many transactions.
func (h *history) run(transactions int) {
	h.begin(h.nextMillis())
	h.authorise()
	h.end(nil, nil)
	for transactions--; transactions > 0; {
		h.begin(h.nextMillis())
		for n := h.below(draw(h.draws, 21, 21, 5)); n > 0 && transactions > 0; n-- {
			h.transaction()
			transactions--
		}
		h.endBlock()
	}
	h.begin(h.nextMillis())
	h.end(nil, nil)
}

func (h *history) now() uint64 { return h.pair.millis / 1000 }

// nextMillis draws the time of the next block: soon, or about a moment at which something happens.
func (h *history) nextMillis() uint64 {
	h.moments = slices.DeleteFunc(h.moments, func(m uint64) bool { return m < h.now() || m > h.now()+20_000 })
	millis := h.pair.millis
	switch n := h.below(16); {
	case n < 3:
		return millis + draw[uint64](h.draws, 0, 1, 499, 1000)
	case n < 8:
		return millis + 1000*uint64(1+h.below(4))
	case n == 15 && h.oneIn(6):
		return millis + 12_000_000 // more seconds than the queue of holds goes through in one block
	case len(h.moments) == 0:
		return millis + 1000
	case n < 12:
		return max(millis, slices.Min(h.moments)*1000+draw[uint64](h.draws, 0, 0, 999)-draw[uint64](h.draws, 0, 0, 1))
	default:
		return max(millis, draw(h.draws, h.moments...)*1000-draw[uint64](h.draws, 0, 1))
	}
}

// transaction applies one: new, again, kept from earlier, or damaged.
func (h *history) transaction() {
	switch n := h.below(64); {
	case n == 63 && len(h.sent) > 0:
		h.send(draw(h.draws, h.sent...))
	case n >= 61 && len(h.waiting) > 0:
		i := h.below(len(h.waiting))
		raw := h.waiting[i]
		h.waiting = slices.Delete(h.waiting, i, i+1)
		h.send(raw)
	case n == 60:
		h.waiting = append(h.waiting, h.draft())
		h.send(h.draft())
	case n == 59:
		h.send(h.damaged(h.draft()))
	default:
		h.send(h.draft())
	}
}

func (h *history) damaged(raw []byte) []byte {
	b := bytes.Clone(raw)
	i := h.below(len(b))
	switch h.below(4) {
	case 0:
		return append(b, 0)
	case 1:
		return b[:i]
	case 2:
		return append(b[:i:i], b[i+1:]...)
	default:
		b[i] ^= 1 << h.below(8)
		return b
	}
}

// send applies a transaction and remembers what it made.
func (h *history) send(raw []byte) {
	receipt := h.apply(raw)
	if receipt.Code.Refused() {
		return
	}
	h.sent = append(h.sent, raw)
	if receipt.Code != ledger.OK {
		return
	}
	var tx pb.Tx
	var body pb.Body
	if proto.Unmarshal(raw, &tx) != nil || proto.Unmarshal(tx.Body, &body) != nil {
		h.t.Fatalf("accepted, but not to be read: %x", raw)
	}
	for i, o := range body.Operations {
		m := o.ProtoReflect()
		h.seen.operations[string(m.WhichOneof(m.Descriptor().Oneofs().Get(0)).Name())]++
		switch k := o.Kind.(type) {
		case *pb.Operation_CreateAsset:
			h.assets = append(h.assets, bytes.Clone(receipt.Results[i].Asset[:]))
		case *pb.Operation_CreateHold:
			h.holds = append(h.holds, bytes.Clone(receipt.Results[i].Hold[:]))
			h.moments = append(h.moments, k.CreateHold.Expires, k.CreateHold.NotBefore)
		case *pb.Operation_SetGrant:
			g := k.SetGrant
			asset := g.Asset
			if asset == nil {
				asset = make([]byte, 16)
			}
			h.grants = append(h.grants, slices.Concat([]byte{7}, body.Signers[g.Signer].Address, g.Grantee, []byte{byte(g.Kind)}, asset))
			h.moments = append(h.moments, g.Until, h.now()+uint64(g.Period))
		case *pb.Operation_StartRecovery:
			h.moments = append(h.moments, h.now()+3_600)
		case *pb.Operation_Propose, *pb.Operation_Approve, *pb.Operation_ReleaseBond:
			h.remember(o, receipt.Results[i])
		}
	}
	if body.ValidUntil != 0 {
		h.moments = append(h.moments, body.ValidUntil)
	}
}

// What the reference's rows say.

func row[M proto.Message](h *history, m M, key ...[]byte) (M, bool) {
	value := h.reference.Row(slices.Concat(key...))
	if value == nil {
		return m, false
	}
	if err := proto.Unmarshal(value[1:], m); err != nil {
		h.t.Fatal(err)
	}
	return m, true
}

func (h *history) account(a []byte) (*pb.Account, bool) { return row(h, &pb.Account{}, []byte{1}, a) }
func (h *history) asset(id []byte) *pb.Asset {
	m, _ := row(h, &pb.Asset{}, []byte{3}, id)
	return m
}
func (h *history) line(a, asset []byte) (*pb.Line, bool) {
	return row(h, &pb.Line{}, []byte{2}, a, asset)
}

// policyOf is what an account signs with now, and the version of it.
func (h *history) policyOf(who *person) (*policy, uint32) {
	a, there := h.account(who.address)
	if !there {
		return who.first, 0
	}
	p := h.policies[string(a.Policy)]
	if p == nil {
		h.t.Fatalf("%s has the policy %x, of which there are no keys", who.name, a.Policy)
	}
	return p, a.PolicyVersion
}

func (h *history) closed(who *person) bool {
	a, _ := h.account(who.address)
	return a.Flags&2 != 0
}

func number(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

// available is what a line can be debited.
func (h *history) available(who *person, asset []byte) *big.Int {
	l, _ := h.line(who.address, asset)
	a := h.asset(asset)
	n := number(l.CreditsPosted)
	if bytes.Equal(a.Issuer, who.address) {
		n.Add(n, number(a.MaxSupply)).Sub(n, number(a.Credit))
	} else {
		n.Add(n, number(l.Credit))
	}
	n.Sub(n, number(l.DebitsPosted)).Sub(n, number(l.DebitsPending))
	if n.Sign() < 0 {
		n.SetInt64(0)
	}
	return n
}

// Who and what.

// someone draws an account, newcomers and closed ones seldom.
func (h *history) someone() *person {
	who := draw(h.draws, h.people[:8]...)
	if h.oneIn(6) {
		who = draw(h.draws, h.people...)
	}
	if h.closed(who) && !h.oneIn(8) {
		return h.people[0]
	}
	return who
}

func (h *history) otherThan(not ...*person) *person {
	for {
		if who := draw(h.draws, h.people...); h.oneIn(8) || !h.closed(who) {
			if !slices.Contains(not, who) {
				return who
			}
		}
	}
}

func (h *history) byAddress(a []byte) *person {
	i := slices.IndexFunc(h.people, func(p *person) bool { return bytes.Equal(p.address, a) })
	if i < 0 {
		return h.people[0]
	}
	return h.people[i]
}

func (h *history) someAsset() []byte {
	if h.oneIn(40) {
		return bytes.Repeat([]byte{9}, 16)
	}
	return draw(h.draws, append([][]byte{h.eur, h.assets[1], h.assets[1], h.assets[2]}, h.assets...)...)
}

// holder draws somebody who has something of an asset, if that is easily found.
func (h *history) holder(asset []byte) *person {
	for range 5 {
		if who := h.someone(); h.available(who, asset).Sign() > 0 {
			return who
		}
	}
	return h.someone()
}

var boundaries = []*big.Int{big.NewInt(1), power(64, 1), power(64, 0), power(127, 0), power(128, 1)}

// amount draws an amount of which so much is available.
func (h *history) amount(available *big.Int) []byte {
	n := big.NewInt(int64(1 + h.below(60)))
	switch c := h.below(16); {
	case c < 9:
	case c < 11:
		n.Div(available, big.NewInt(int64(1+h.below(3))))
	case c == 11:
		n.Set(available)
	case c == 12:
		n.Add(available, big.NewInt(1))
	default:
		n.Set(draw(h.draws, boundaries...))
		if n.Cmp(available) > 0 && !h.oneIn(6) {
			n.Set(available)
		}
	}
	if n.Sign() == 0 && !h.oneIn(30) {
		n.SetInt64(1)
	}
	if n.BitLen() > 128 {
		n = power(128, 1)
	}
	return n.Bytes()
}

func (h *history) callers() (reference []byte, code uint32, memo string) {
	if h.oneIn(4) {
		return bytes.Repeat([]byte{byte(1 + h.below(9))}, 16), draw[uint32](h.draws, 0, 65_535), draw(h.draws, "", "rent, März")
	}
	return nil, 0, ""
}

// step is an operation in the name of somebody whose index among the signers is not known yet.
type step struct {
	who  *person
	make func(signer uint32) *pb.Operation
}

// kinds draw operations; what stands twice is drawn twice as often.
var kinds = []func(*history) []step{
	(*history).transfer, (*history).transfer, (*history).transfer, (*history).transfer, (*history).transfer, (*history).transfer,
	(*history).createAsset, (*history).setPolicy,
	(*history).createHold, (*history).createHold, (*history).createHold, (*history).createHold, (*history).createHold,
	(*history).postHold, (*history).postHold, (*history).voidHold,
	(*history).setAsset, (*history).setLine, (*history).setLine, (*history).setLine, (*history).setLine, (*history).clawback,
	(*history).openLine, (*history).openLine, (*history).closeLine, (*history).setAccount, (*history).closeAccount, (*history).windDown,
	(*history).setGrant, (*history).setGrant, (*history).setGrant, (*history).revokeGrant,
	(*history).startRecovery, (*history).startRecovery, (*history).cancelRecovery, (*history).finishRecovery, (*history).finishRecovery,
}

// grant draws a grant of a kind that was given, mostly one that is still there.
func (h *history) grant(kind byte) (key []byte, m *pb.Grant) {
	for range 4 {
		if len(h.grants) == 0 {
			return nil, nil
		}
		key = draw(h.draws, h.grants...)
		if key[65] != kind {
			continue
		}
		if m, there := row(h, &pb.Grant{}, key); there || h.oneIn(10) {
			return key, m
		}
	}
	return nil, nil
}

// passes tells whether a line is authorised and not frozen, where that matters.
func (h *history) passes(who *person, asset []byte) bool {
	a := h.asset(asset)
	l, _ := h.line(who.address, asset)
	return bytes.Equal(a.Issuer, who.address) || (a.Controls&1 == 0 || l.Flags&1 != 0) && (a.Controls&2 == 0 || a.Frozen == 0 && l.Flags&6 == 0)
}

// receiver draws somebody who may receive an asset, if that is easily found.
func (h *history) receiver(from *person, asset []byte) *person {
	for range 4 {
		to := draw(h.draws, h.people[:8]...)
		if to != from && h.passes(to, asset) {
			return to
		}
	}
	if issuer := h.byAddress(h.asset(asset).Issuer); issuer != from && !h.oneIn(3) {
		return issuer
	}
	return h.otherThan(from)
}

// debited draws who pays what to whom, perhaps under a grant.
func (h *history) debited(kind byte) (signer, from, to *person, asset []byte, granted bool) {
	asset = h.someAsset()
	from = h.holder(asset)
	to = h.receiver(from, asset)
	for _, who := range []*person{from, to} {
		if !h.passes(who, asset) && !h.oneIn(8) {
			asset = draw(h.draws, h.eur, h.eur, h.assets[2])
			from = h.holder(asset)
			to = h.receiver(from, asset)
			break
		}
	}
	if h.oneIn(5) {
		if key, g := h.grant(kind); key != nil {
			from, signer, asset = h.byAddress(key[1:33]), h.byAddress(key[33:65]), key[66:]
			if to = h.receiver(from, asset); len(g.To) > 0 && !h.oneIn(4) && !bytes.Equal(g.To, from.address) {
				to = h.byAddress(g.To)
			}
			return signer, from, to, asset, true
		}
	}
	if h.oneIn(60) {
		return h.otherThan(from), from, to, asset, true
	}
	return from, from, to, asset, false
}

// owing finds somebody else who owes some of an asset to its issuer, or nobody.
func (h *history) owing(from *person, asset []byte) *person {
	for _, who := range h.people[:8] {
		if l, _ := h.line(who.address, asset); who != from && number(l.DebitsPosted).Cmp(number(l.CreditsPosted)) > 0 && !bytes.Equal(h.asset(asset).Issuer, who.address) {
			return who
		}
	}
	return nil
}

// rich draws somebody who can pay a fee.
func (h *history) rich(price uint64) (who *person) {
	for range 6 {
		if who = h.someone(); h.available(who, h.eur).Cmp(new(big.Int).SetUint64(price)) >= 0 {
			break
		}
	}
	return who
}

// balancing draws whether as much as there is will do. Of the fee asset there is less when the fee is paid.
func (h *history) balancing(from *person, asset []byte) uint32 {
	if l, _ := h.line(from.address, asset); h.oneIn(6) || !bytes.Equal(h.asset(asset).Issuer, from.address) && number(l.CreditsPosted).BitLen() > 0 && h.oneIn(3) {
		return 1
	}
	return 0
}

func granter(granted bool, from *person) []byte {
	if granted {
		return from.address
	}
	return nil
}

func (h *history) transfer() []step {
	signer, from, to, asset, granted := h.debited(1)
	o := &pb.Transfer{To: to.address, Asset: asset, Amount: h.amount(h.available(from, asset)), Granter: granter(granted, from),
		Balancing: h.balancing(from, asset)}
	if l, _ := h.line(to.address, asset); len(l.Ceiling) > 0 && h.oneIn(2) {
		room := number(l.DebitsPosted)
		room.Add(room, number(l.Ceiling)).Sub(room, number(l.CreditsPosted)).Sub(room, number(l.CreditsPending))
		if room.Add(room, big.NewInt(int64(h.below(2)))); room.Sign() > 0 && room.BitLen() <= 128 {
			o.Amount = room.Bytes() // all that goes in, or one more
		}
	}
	if who := h.owing(from, asset); who != nil && h.oneIn(3) {
		o.To, o.Amount, o.Balancing = who.address, power(128, 1).Bytes(), 3
	} else if h.oneIn(12) {
		o.Balancing |= 2
		if issuer := h.byAddress(h.asset(asset).Issuer); issuer != from && !granted && !h.oneIn(4) {
			o.To = issuer.address
		}
	}
	o.Reference, o.Code, o.Memo = h.callers()
	if h.oneIn(200) {
		o.To = digest("pacioli.addr.v1\x00", []byte("deposits"))
	}
	return []step{{signer, func(i uint32) *pb.Operation {
		o.From = i
		return &pb.Operation{Kind: &pb.Operation_Transfer{Transfer: o}}
	}}}
}

func (h *history) createAsset() []step {
	o := &pb.CreateAsset{Code: draw(h.draws, "USD", "SEK", "NOK", "A23456789012", "EUR"), Scale: draw[uint32](h.draws, 2, 0, 18),
		MaxSupply: draw(h.draws, big.NewInt(100), big.NewInt(1_000_000), power(128, 1)).Bytes(), Controls: draw[uint32](h.draws, 0, 0, 2, 4, 6, 7)}
	if h.oneIn(3) {
		o.MetadataHash = make([]byte, 32)
	}
	return []step{{h.someone(), func(i uint32) *pb.Operation {
		o.Issuer = i
		return &pb.Operation{Kind: &pb.Operation_CreateAsset{CreateAsset: o}}
	}}}
}

// proofs are those that the keys of a policy are somebody's.
func (h *history) proofs(p *policy, account []byte, version uint32) (proofs [][]byte) {
	if h.oneIn(30) {
		version++
	}
	message := slices.Concat([]byte("pacioli.pop.v1\x00"), h.networkID[:], account, p.hash, binary.BigEndian.AppendUint32(nil, version))
	for _, k := range p.Keys {
		proofs = append(proofs, h.ring.sign(k.Scheme, k.PublicKey, message))
	}
	return proofs
}

// successor draws a policy for an account.
func (h *history) successor(of *person) *policy {
	for {
		p := draw(h.draws, append([]*policy{of.first}, h.pool[:5]...)...)
		if h.oneIn(40) {
			p = draw(h.draws, h.pool...)
		}
		if now, _ := h.policyOf(of); p == now && !h.oneIn(30) {
			continue
		}
		if !bytes.Equal(p.RecoveryAccount, of.address) || h.oneIn(20) {
			return p
		}
	}
}

func (h *history) setPolicy() []step {
	who := h.someone()
	p := h.successor(who)
	_, version := h.policyOf(who)
	o := &pb.SetPolicy{Policy: p.raw, Proofs: h.proofs(p, who.address, version+1), RevokeGrants: h.oneIn(3)}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_SetPolicy{SetPolicy: o}}
	}}}
}

func (h *history) createHold() []step {
	signer, from, to, asset, granted := h.debited(4)
	o := &pb.CreateHold{To: to.address, Asset: asset, Amount: h.amount(h.available(from, asset)), Granter: granter(granted, from),
		Balancing: h.balancing(from, asset), PostBy: 1 + uint32(h.below(7)), VoidBy: uint32(h.below(8))}
	o.Reference, o.Code, o.Memo = h.callers()
	if who := h.owing(from, asset); who != nil && h.oneIn(3) {
		to = who
		o.To, o.Amount = who.address, []byte{1}
	}
	o.Expires = h.now() + draw[uint64](h.draws, 1, 2, 3, 3, 4, 5, 5, 9, uint64(h.parameters().MaxHoldSeconds))
	if h.oneIn(30) {
		o.Expires = h.now() + draw(h.draws, 0, uint64(h.parameters().MaxHoldSeconds)+1)
	}
	if h.oneIn(5) {
		o.NotBefore = h.now() + draw[uint64](h.draws, 0, 1, 2)
		o.Expires = max(o.Expires, o.NotBefore+1)
	}
	if (o.PostBy|o.VoidBy)&2 != 0 {
		o.Arbiter = h.otherThan(from, to).address
	}
	switch h.below(4) {
	case 0:
		secret := draw(h.draws, []byte{}, []byte("open sesame"), bytes.Repeat([]byte{7}, 64))
		o.HashLock = digest("", secret)
		o.PostBy |= draw[uint32](h.draws, 0, 8)
	case 1, 2:
		o.PostAtExpiry = h.oneIn(2)
	}
	return []step{{signer, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_CreateHold{CreateHold: o}}
	}}}
}

// hold draws a hold, mostly an open one, and somebody who may perhaps resolve it.
func (h *history) hold(bits func(*pb.Hold) uint32) ([]byte, *pb.Hold, *person) {
	for range 6 {
		if len(h.holds) == 0 {
			break
		}
		id := draw(h.draws, h.holds...)
		m, there := row(h, &pb.Hold{}, []byte{6}, id)
		if !there {
			if h.oneIn(20) {
				return id, m, h.someone()
			}
			h.holds = slices.DeleteFunc(h.holds, func(other []byte) bool { return bytes.Equal(other, id) })
			continue
		}
		who := h.someone()
		switch b := bits(m); {
		case h.oneIn(12):
		case b&1 != 0 && h.oneIn(2):
			who = h.byAddress(m.To)
		case b&2 != 0 && h.oneIn(2):
			who = h.byAddress(m.Arbiter)
		case b&4 != 0:
			who = h.byAddress(m.From)
		case b&1 != 0:
			who = h.byAddress(m.To)
		case b&2 != 0:
			who = h.byAddress(m.Arbiter)
		}
		return id, m, who
	}
	if h.oneIn(20) {
		return make([]byte, 32), &pb.Hold{}, h.someone()
	}
	return nil, nil, nil
}

func (h *history) postHold() []step {
	id, m, who := h.hold(func(m *pb.Hold) uint32 { return m.PostBy })
	if id == nil {
		return h.createHold()
	}
	o := &pb.PostHold{Hold: id}
	switch h.below(4) {
	case 0:
		o.Amount = []byte{1}
	case 1:
		o.Amount = m.Amount
	case 2:
		if h.oneIn(4) {
			o.Amount = h.amount(number(m.Amount))
		}
	}
	if len(m.HashLock) > 0 {
		o.Preimage = h.secrets[string(m.HashLock)]
	}
	if h.oneIn(30) {
		o.Preimage = []byte("wrong")
	}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_PostHold{PostHold: o}}
	}}}
}

func (h *history) voidHold() []step {
	id, m, who := h.hold(func(m *pb.Hold) uint32 { return m.VoidBy })
	if id == nil {
		return h.createHold()
	}
	if h.oneIn(4) && len(m.Asset) > 0 {
		who = h.byAddress(h.asset(m.Asset).Issuer)
	}
	o := &pb.VoidHold{Hold: id}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_VoidHold{VoidHold: o}}
	}}}
}

// issued draws an asset, one with controls preferably, and mostly its issuer.
func (h *history) issued() ([]byte, *pb.Asset, *person) {
	asset := h.someAsset()
	for range 3 {
		if h.asset(asset).Controls == 0 {
			asset = h.someAsset()
		}
	}
	m := h.asset(asset)
	if h.oneIn(25) {
		return asset, m, h.someone()
	}
	return asset, m, h.byAddress(m.Issuer)
}

func (h *history) setAsset() []step {
	asset, m, who := h.issued()
	o := &pb.SetAsset{Asset: asset}
	switch n := h.below(12); {
	case n == 11:
		o.DropControls = 1 << h.below(3)
		if m.Controls&o.DropControls == 0 && !h.oneIn(4) {
			o.DropControls = m.Controls
		}
	case n > 8 && h.oneIn(2):
		limit := number(m.MaxSupply)
		o.MaxSupply = draw(h.draws, limit.Sub(limit, big.NewInt(1)).Bytes(), limit.Rsh(limit, 1).Bytes(), []byte{1}, number(m.MaxSupply).Bytes())
		if h.oneIn(6) {
			o.MaxSupply = power(128, 1).Bytes()
		}
	}
	if o.DropControls == 0 && len(o.MaxSupply) == 0 || h.oneIn(6) {
		if o.Freeze = 1 + uint32(h.below(3)); m.Frozen != 0 && !h.oneIn(6) {
			o.Freeze, o.Unfreeze = 0, m.Frozen
		} else if !h.oneIn(3) {
			return h.setLine()
		}
	}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_SetAsset{SetAsset: o}}
	}}}
}

func (h *history) setLine() []step {
	asset, a, who := h.issued()
	holder := h.otherThan(who)
	if h.oneIn(2) {
		if holder = draw(h.draws, h.people[:8]...); holder == who {
			holder = h.otherThan(who)
		}
	}
	l, _ := h.line(holder.address, asset)
	o := &pb.SetLine{Account: holder.address, Asset: asset}
	switch n := h.below(10); {
	case a.Controls&1 != 0 && l.Flags&1 == 0 && n < 8:
		o.Set = 1
	case a.Controls&2 != 0 && l.Flags&6 != 0 && n < 6:
		o.Clear = l.Flags & 6
	case a.Controls&2 != 0 && n < 1:
		o.Set = 2 + 2*uint32(h.below(3))
	case a.Controls&1 != 0 && n == 2:
		o.Clear = 1
	case a.Controls&1 != 0 && n < 5:
		o.Cap = &pb.Limit{Amount: draw(h.draws, big.NewInt(0), big.NewInt(30), big.NewInt(100_000), power(127, 0)).Bytes()}
	case n == 9 && h.oneIn(2):
		o.Set = uint32(h.below(8))
		o.Clear = uint32(h.below(8)) &^ o.Set
	default:
		o.Credit = &pb.Limit{Amount: draw(h.draws, big.NewInt(0), big.NewInt(10), big.NewInt(500), number(l.DebitsPosted), power(127, 0)).Bytes()}
		if bytes.Equal(o.Credit.Amount, l.Credit) && !h.oneIn(10) {
			o.Credit.Amount = append([]byte{1}, o.Credit.Amount[:min(8, len(o.Credit.Amount))]...)
		}
	}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_SetLine{SetLine: o}}
	}}}
}

func (h *history) clawback() []step {
	asset, a, who := h.issued()
	if a.Controls&4 == 0 && !h.oneIn(4) {
		asset, who = h.assets[1], h.byAddress(h.asset(h.assets[1]).Issuer)
	}
	holder := h.holder(asset)
	if holder == who {
		holder = h.otherThan(who)
	}
	o := &pb.Clawback{Account: holder.address, Asset: asset, Amount: h.amount(h.available(holder, asset)), Balancing: draw[uint32](h.draws, 0, 1)}
	o.Reference, o.Code, o.Memo = h.callers()
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_Clawback{Clawback: o}}
	}}}
}

func (h *history) openLine() []step {
	asset := h.someAsset()
	who := h.someone()
	if bytes.Equal(h.asset(asset).Issuer, who.address) && !h.oneIn(10) {
		who = h.otherThan(who)
	}
	l, there := h.line(who.address, asset)
	o := &pb.OpenLine{Asset: asset}
	if there && len(l.Ceiling) == 0 && !h.oneIn(12) {
		o.Ceiling = &pb.Limit{Amount: append([]byte{byte(1 + h.below(2)), 0}, l.CreditsPosted[:min(14, len(l.CreditsPosted))]...)}
	} else if there && !h.oneIn(12) || h.oneIn(3) {
		o.Ceiling = &pb.Limit{Amount: draw(h.draws, big.NewInt(0), big.NewInt(40), big.NewInt(200_000), power(128, 1)).Bytes()}
	}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_OpenLine{OpenLine: o}}
	}}}
}

func (h *history) close(who *person, asset, to []byte) step {
	o := &pb.CloseLine{Asset: asset, To: to}
	return step{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_CloseLine{CloseLine: o}}
	}}
}

func (h *history) closeLine() []step {
	who, asset := h.someone(), h.someAsset()
	for range 8 {
		l, there := h.line(who.address, asset)
		if there && bytes.Equal(l.CreditsPosted, l.DebitsPosted) && !bytes.Equal(h.asset(asset).Issuer, who.address) {
			break
		}
		who, asset = h.otherThan(), h.someAsset()
	}
	to := draw(h.draws, who, who, h.someone())
	return []step{h.close(who, asset, to.address)}
}

func (h *history) setAccount() []step {
	who := h.someone()
	a, _ := h.account(who.address)
	o := &pb.SetAccount{Set: 1}
	if a.Flags&1 != 0 != h.oneIn(15) {
		o = &pb.SetAccount{Clear: 1}
	} else if h.oneIn(2) {
		who = h.otherThan(h.people[:8]...)
	}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_SetAccount{SetAccount: o}}
	}}}
}

func (h *history) closeAccount() []step {
	who := h.someone()
	if !h.oneIn(3) {
		who = h.otherThan(h.people[:8]...)
	}
	if _, holding := row(h, &pb.Holdings{}, []byte{5}, who.address); holding && !h.oneIn(6) {
		return h.windDown()
	}
	o := &pb.CloseAccount{To: h.otherThan(who).address}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_CloseAccount{CloseAccount: o}}
	}}}
}

// windDown pays out all lines of an account, closes them, and perhaps the account.
func (h *history) windDown() (steps []step) {
	who := h.otherThan(h.people[:4]...)
	heir := draw(h.draws, h.people[:4]...)
	for i := range h.assets {
		asset := h.assets[len(h.assets)-1-i] // the fee asset last
		if _, there := h.line(who.address, asset); !there {
			continue
		}
		if h.available(who, asset).Sign() > 0 || bytes.Equal(asset, h.eur) {
			o := &pb.Transfer{To: heir.address, Asset: asset, Amount: power(128, 1).Bytes(), Balancing: 1}
			steps = append(steps, step{who, func(i uint32) *pb.Operation {
				o.From = i
				return &pb.Operation{Kind: &pb.Operation_Transfer{Transfer: o}}
			}})
		}
		steps = append(steps, h.close(who, asset, heir.address))
	}
	for _, key := range h.grants {
		if _, there := row(h, &pb.Grant{}, key); there && bytes.Equal(key[1:33], who.address) && len(steps) < 20 {
			steps = append([]step{h.revoke(key)}, steps...)
		}
	}
	if h.oneIn(2) || len(steps) == 0 {
		o := &pb.CloseAccount{To: heir.address}
		steps = append(steps, step{who, func(i uint32) *pb.Operation {
			o.Signer = i
			return &pb.Operation{Kind: &pb.Operation_CloseAccount{CloseAccount: o}}
		}})
		if h.oneIn(10) {
			steps = append(steps, h.close(who, h.eur, heir.address))
		}
	}
	return steps
}

func (h *history) setGrant() []step {
	who := h.someone()
	grantee := h.otherThan(who)
	o := &pb.SetGrant{Grantee: grantee.address, Kind: draw[uint32](h.draws, 0, 1, 4), Until: h.now() + draw[uint64](h.draws, 2, 5, 30, 4_000, 10_000)}
	if h.oneIn(25) {
		o.Until = h.now()
	}
	if o.Kind != 0 {
		o.Asset = h.someAsset()
		if h.oneIn(3) {
			o.To = h.otherThan(who).address
		}
	}
	limits := func() []byte {
		return draw(h.draws, big.NewInt(100_000), big.NewInt(500), big.NewInt(20), power(64, 0), power(128, 1)).Bytes()
	}
	n := h.below(3)
	if n != 1 {
		o.PerPeriod, o.Period = limits(), draw[uint32](h.draws, 1, 2, 5, 3_600, 31_622_400)
	}
	if n != 0 {
		o.Total = limits()
	}
	return []step{{who, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_SetGrant{SetGrant: o}}
	}}}
}

func (h *history) revoke(key []byte) step {
	o := &pb.RevokeGrant{Grantee: key[33:65], Kind: uint32(key[65])}
	if o.Kind != 0 {
		o.Asset = key[66:]
	}
	return step{h.byAddress(key[1:33]), func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_RevokeGrant{RevokeGrant: o}}
	}}
}

func (h *history) revokeGrant() []step {
	key, _ := h.grant(draw[byte](h.draws, 0, 1, 4))
	if key == nil {
		return h.setGrant()
	}
	if h.oneIn(40) {
		key = slices.Concat(key[:33], key[1:33], key[65:])
	}
	return []step{h.revoke(key)}
}

// recoverable draws an account that names a recovery account, if that is easily found, and its recovery account.
func (h *history) recoverable(recovering bool) (of, by *person, started *pb.Recovery) {
	for range 8 {
		of = h.someone()
		a, there := h.account(of.address)
		p, _ := h.policyOf(of)
		if by = h.byAddress(p.RecoveryAccount); there && p.RecoveryAccount != nil && (!recovering || a.Recovery != nil) && by != of {
			if h.oneIn(20) {
				by = h.otherThan(of)
			}
			return of, by, a.Recovery
		}
	}
	if of = h.someone(); h.oneIn(4) {
		a, _ := h.account(of.address)
		return of, h.otherThan(of), a.Recovery
	}
	return nil, nil, nil
}

func (h *history) startRecovery() []step {
	of, by, started := h.recoverable(false)
	if of == nil || started != nil && !h.oneIn(5) {
		return h.setPolicy()
	}
	o := &pb.StartRecovery{Account: of.address, PolicyHash: h.successor(of).hash}
	return []step{{by, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_StartRecovery{StartRecovery: o}}
	}}}
}

func (h *history) cancelRecovery() []step {
	of, by, started := h.recoverable(true)
	if of == nil || started == nil && !h.oneIn(5) {
		return h.transfer()
	}
	if h.oneIn(2) {
		by = of
	}
	o := &pb.CancelRecovery{Account: of.address}
	return []step{{by, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_CancelRecovery{CancelRecovery: o}}
	}}}
}

func (h *history) finishRecovery() []step {
	of, by, started := h.recoverable(true)
	if of == nil || started == nil && !h.oneIn(5) {
		return h.startRecovery()
	}
	p := h.successor(of)
	if started != nil && !h.oneIn(10) {
		if announced := h.policies[string(started.Policy)]; announced != nil { // or a hash of nothing was
			p = announced
		}
	}
	if started != nil && started.ReadyAt > h.now() && !h.oneIn(10) {
		return h.transfer()
	}
	o := &pb.FinishRecovery{Account: of.address, Policy: p.raw, Proofs: h.proofs(p, of.address, 1<<32-1)}
	return []step{{by, func(i uint32) *pb.Operation {
		o.Signer = i
		return &pb.Operation{Kind: &pb.Operation_FinishRecovery{FinishRecovery: o}}
	}}}
}

// draft draws a transaction.
func (h *history) draft() []byte {
	var steps []step
	for n := draw(h.draws, 1, 1, 1, 1, 1, 2, 2, 3); n > 0; n-- {
		if h.ruling && h.oneIn(2) || h.oneIn(16) {
			steps = append(steps, draw(h.draws, ruling...)(h)...)
		} else {
			steps = append(steps, draw(h.draws, kinds...)(h)...)
		}
	}
	return h.compose(steps)
}

// compose makes a transaction of operations and signs it.
func (h *history) compose(steps []step) []byte {
	var signers []*person
	for _, s := range steps {
		if !slices.Contains(signers, s.who) {
			signers = append(signers, s.who)
		}
	}
	if h.oneIn(20) {
		if who := h.someone(); !slices.Contains(signers, who) {
			signers = append(signers, who)
		}
	}
	body := &pb.Body{Version: 1, MaxFee: h.most(), MaxDeposit: h.most()}
	var sponsor *pb.Sponsor
	var sponsoring *person
	rate, _ := row(h, &pb.FeeRate{}, []byte{0x42})
	p := h.parameters()
	price := (p.FeeBase+600*p.FeePerByte+3*p.FeePerOperation+40*p.FeePerSignature)*uint64(rate.Multiplier)/1_000 + p.DepositAccount + 2*p.DepositLine
	poor := h.available(signers[0], h.eur).Cmp(new(big.Int).SetUint64(price)) < 0
	switch n := h.below(10); {
	case n == 0 || poor && n < 4:
		if who := h.rich(price); !slices.Contains(signers, who) {
			// The sponsor has to have what it agrees to, and to agree to what the signers do.
			rows := new(big.Int).SetUint64(p.DepositAccount + 3*p.DepositLine + p.DepositHold + p.DepositGrant).Bytes()
			sponsoring, sponsor = who, &pb.Sponsor{Address: who.address, MaxFee: h.most(), MaxDeposit: draw(h.draws, rows, rows, rows, h.most())}
			if !h.oneIn(20) {
				body.MaxFee, body.MaxDeposit = nil, nil
			}
			if h.carries(who) {
				sponsor.Policy = who.first.raw
			}
		}
	case n == 1 || poor && (n < 9 || !h.oneIn(3)):
		for _, key := range h.grants {
			if granter := key[1:33]; key[65] == 0 && bytes.Equal(key[33:65], signers[0].address) && !slices.Contains(signers, h.byAddress(granter)) {
				body.FeeGranter = granter
			}
		}
		if body.FeeGranter == nil && poor {
			if who := h.rich(price); !slices.Contains(signers, who) {
				signers = append([]*person{who}, signers...)
			}
		}
	case n == 9 && h.oneIn(20):
		body.FeeGranter = h.otherThan(signers...).address
	}
	for _, s := range steps {
		body.Operations = append(body.Operations, s.make(uint32(slices.Index(signers, s.who))))
	}

	if h.oneIn(3) {
		body.ValidUntil = h.now() + 1 + uint64(h.below(int(min(h.parameters().ReplayWindowSeconds, 12))))
		if h.oneIn(25) {
			body.ValidUntil = h.now() + draw(h.draws, 0, 1, uint64(h.parameters().ReplayWindowSeconds), uint64(h.parameters().ReplayWindowSeconds)+1, 20_000)
		}
	}
	for _, who := range signers {
		s := &pb.Signer{Address: who.address}
		if body.ValidUntil != 0 && !h.oneIn(4) {
			s.Nonce = append(make([]byte, 15), byte(h.below(32)))
		} else {
			a, _ := h.account(who.address)
			if s.Sequence = a.Sequence + 1; h.oneIn(100) {
				s.Sequence = max(1, s.Sequence+2-uint64(h.below(3)))
			}
		}
		if h.carries(who) {
			s.Policy = who.first.raw
			if _, there := h.account(who.address); there && !h.oneIn(4) {
				p, _ := h.policyOf(who)
				s.Policy = p.raw
			}
		}
		body.Signers = append(body.Signers, s)
	}
	if h.oneIn(40) {
		h.spoil(body, sponsor)
	}
	if h.oneIn(25) {
		h.price(body, sponsor, func() []byte { return h.sign(body, sponsor, signers, sponsoring) })
	}
	return h.sign(body, sponsor, signers, sponsoring)
}

// price sets max_fee to what a transaction will cost, or to a little less.
func (h *history) price(body *pb.Body, sponsor *pb.Sponsor, sign func() []byte) {
	limit := &body.MaxFee
	if sponsor != nil {
		limit = &sponsor.MaxFee
	}
	for _, *limit = range [][]byte{{1}, {1, 0}} {
		if fee := h.reference.Fee(sign()); len(fee) == len(*limit) {
			*limit = number(fee).Sub(number(fee), big.NewInt(int64(draw(h.draws, 0, 0, 1, 10)))).Bytes()
			return
		}
	}
}

// most draws a max_fee or a max_deposit.
func (h *history) most() []byte {
	if h.oneIn(60) {
		return draw(h.draws, nil, []byte{1}, []byte{20}, []byte{60}, []byte{1, 0})
	}
	return []byte{1, 0, 0, 0}
}

// carries draws whether a transaction carries the policy of a signer.
func (h *history) carries(who *person) bool {
	_, there := h.account(who.address)
	return !there && !h.oneIn(50) || there && h.oneIn(12)
}

// spoil changes one field of a transaction at random.
func (h *history) spoil(body *pb.Body, sponsor *pb.Sponsor) {
	operation := draw(h.draws, body.Operations...).ProtoReflect()
	kind := operation.WhichOneof(operation.Descriptor().Oneofs().Get(0))
	m := operation.Mutable(kind).Message()
	if h.oneIn(4) {
		m = body.ProtoReflect()
	} else if h.oneIn(8) {
		m = draw(h.draws, body.Signers...).ProtoReflect()
	} else if sponsor != nil && h.oneIn(3) {
		m = sponsor.ProtoReflect()
	}
	fields := m.Descriptor().Fields()
	d := fields.Get(h.below(fields.Len()))
	switch {
	case d.IsList():
		if list := m.Mutable(d).List(); h.oneIn(2) || list.Len() == 0 {
			m.Clear(d)
		} else {
			list.Append(list.Get(0))
		}
	case d.Message() != nil:
		if m.Has(d) {
			m.Clear(d)
		} else {
			m.Mutable(d)
		}
	case d.Kind() == protoreflect.BytesKind:
		value := draw(h.draws, nil, make([]byte, 16), make([]byte, 32), h.someone().address, body.Signers[0].Address, h.someAsset(), []byte{0, 1}, []byte{1},
			bytes.Repeat([]byte{255}, 17), bytes.Repeat([]byte{255}, 16), bytes.Repeat([]byte{1}, 65))
		m.Set(d, protoreflect.ValueOfBytes(value))
	case d.Kind() == protoreflect.StringKind:
		m.Set(d, protoreflect.ValueOfString(draw(h.draws, "", "AB", "1AB", "ABc", "ABCDEFGHIJKLM", string(bytes.Repeat([]byte("x"), 256)), string(bytes.Repeat([]byte("x"), 257)))))
	case d.Kind() == protoreflect.BoolKind:
		m.Set(d, protoreflect.ValueOfBool(!m.Get(d).Bool()))
	case d.Kind() == protoreflect.Uint32Kind:
		m.Set(d, protoreflect.ValueOfUint32(draw[uint32](h.draws, 0, 1, 2, 3, 4, 7, 8, 16, 18, 19, 65_535, 65_536, 31_622_400, 31_622_401, 1<<32-1)))
	default:
		m.Set(d, protoreflect.ValueOfUint64(draw[uint64](h.draws, 0, 1, h.now(), h.now()+1, 253_402_300_799, 253_402_300_800, 1<<64-1)))
	}
}

// sign encodes a body and signs it with as many keys as each signer needs, mostly.
func (h *history) sign(body *pb.Body, sponsor *pb.Sponsor, signers []*person, sponsoring *person) []byte {
	encoded := encode(body)
	tx := &pb.Tx{Body: encoded, Sponsor: sponsor}
	sum := digest("", encoded)
	for i, who := range append(slices.Clone(signers), sponsoring) {
		if who == nil {
			continue
		}
		p, version := h.policyOf(who)
		message := slices.Concat([]byte("pacioli.tx.v1\x00"), h.networkID[:], sum, binary.BigEndian.AppendUint32(nil, version))
		if i == len(signers) {
			message = slices.Concat([]byte("pacioli.sponsor.v1\x00"), h.networkID[:], sum, digest("", encode(sponsor)), binary.BigEndian.AppendUint32(nil, version))
		}
		need := p.Threshold
		for _, o := range body.Operations {
			c := o.GetCancelRecovery()
			if p.ChangeThreshold != 0 && (o.GetSetPolicy() != nil && int(o.GetSetPolicy().Signer) == i || o.GetCloseAccount() != nil && int(o.GetCloseAccount().Signer) == i ||
				c != nil && int(c.Signer) == i && bytes.Equal(c.Account, who.address)) {
				need = p.ChangeThreshold
			}
		}
		if h.oneIn(100) {
			need = draw(h.draws, 0, p.Threshold, max(p.Threshold, p.ChangeThreshold))
		}
		for _, k := range h.quorum(p, need) {
			signature := h.ring.sign(p.Keys[k].Scheme, p.Keys[k].PublicKey, message)
			if h.oneIn(150) {
				signature[0] ^= 1
			}
			tx.Witnesses = append(tx.Witnesses, &pb.Witness{Signer: uint32(i), Key: uint32(k), Signature: signature})
		}
		if h.oneIn(200) {
			k := len(p.Keys) + h.below(2)
			tx.Witnesses = append(tx.Witnesses, &pb.Witness{Signer: uint32(i), Key: uint32(k), Signature: []byte{1}})
		}
	}
	return encode(tx)
}

// quorum draws keys that reach a weight, mostly none too many, in ascending order.
func (h *history) quorum(p *policy, need uint32) (chosen []int) {
	start := h.below(len(p.Keys))
	var weight uint32
	for i := range p.Keys {
		if k := (start + i) % len(p.Keys); weight < need {
			chosen = append(chosen, k)
			weight += p.Keys[k].Weight
		}
	}
	slices.Sort(chosen)
	if h.oneIn(60) {
		return chosen
	}
	return slices.DeleteFunc(chosen, func(k int) bool {
		if spare := weight - p.Keys[k].Weight; spare >= need {
			weight = spare
			return true
		}
		return false
	})
}
