package ledger

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// world is a ledger with named accounts and assets, for the tests of this package: its state is a map, and every name
// always has the same keys.
type world struct {
	t        testing.TB
	genesis  Genesis
	memory   Memory
	block    *Block
	height   uint64
	millis   uint64
	verifier Verifier
	names    map[crypto.Address]string
	keys     map[string]crypto.PrivateKey // by public key
	heads    map[LineKey]crypto.Hash      // of journals, folded from the entries
	policies map[string]crypto.Policy     // by their text
	votes    []Vote                       // about the block before the open one
}

// newKey makes the key of a name.
func newKey(t testing.TB, scheme crypto.Scheme, name string) crypto.PrivateKey {
	seed := sha256.Sum256([]byte("pacioli test key " + name))
	k, err := crypto.NewPrivateKey(scheme, seed[:])
	if err != nil {
		t.Fatalf("key %s: %s", name, err)
	}
	return k
}

// policyText describes the policies of the names that do not have a single ed25519 key.
var policyText = map[string]string{
	"bob":   "1 secp256k1:bob",
	"carol": "1 ml-dsa-44:carol",
	"dave":  "1 ml-dsa-65:dave",
	"erin":  "2 ed25519:erin-a ml-dsa-44:erin-b",                      // hybrid: both must sign
	"team":  "3 ed25519:team-a*1 ed25519:team-b*2 secp256k1:team-c*2", // the light key never suffices with nobody else
	"mixed": "4 ed25519:m1 secp256k1:m2 ml-dsa-44:m3 ml-dsa-65:m4",    // every scheme at once
	"board": "2 ed25519:board-a ed25519:board-b ed25519:board-c",      // two of three
	// Any of three pays, two of them change the policy, and the rescuer may replace it after a day.
	"firm": "1 ed25519:firm-a ed25519:firm-b ed25519:firm-c change:2 recovery:rescuer:86400",
	"heir": "1 ed25519:heir recovery:rescuer:3600",
}

// policy makes the policy that a text describes: threshold, then scheme:key*weight, change:weight and
// recovery:name:seconds.
func (w *world) policy(text string) crypto.Policy {
	if p, ok := w.policies[text]; ok {
		return p
	}
	var threshold uint32
	fields := strings.Fields(text)
	if _, err := fmt.Sscan(fields[0], &threshold); err != nil {
		w.t.Fatalf("policy %q: %s", text, err)
	}
	var keys []crypto.Key
	var change, delay uint32
	var rescuer string
	for _, f := range fields[1:] {
		schemeName, rest, _ := strings.Cut(f, ":")
		switch schemeName {
		case "change":
			fmt.Sscan(rest, &change)
			continue
		case "recovery":
			var text string
			rescuer, text, _ = strings.Cut(rest, ":")
			fmt.Sscan(text, &delay)
			continue
		}
		name, weightText, weighted := strings.Cut(rest, "*")
		scheme, err := crypto.ParseScheme(schemeName)
		if err != nil {
			w.t.Fatalf("policy %q: %s", text, err)
		}
		weight := uint32(1)
		if weighted {
			fmt.Sscan(weightText, &weight)
		}
		k := newKey(w.t, scheme, name)
		w.keys[string(k.Public())] = k
		keys = append(keys, crypto.Key{Scheme: scheme, Public: k.Public(), Weight: weight})
	}
	p, err := crypto.NewPolicy(threshold, keys...)
	if err == nil && change != 0 {
		p, err = p.WithChangeThreshold(change)
	}
	if err == nil && rescuer != "" {
		p, err = p.WithRecovery(w.address(rescuer), delay)
	}
	if err != nil {
		w.t.Fatalf("policy %q: %s", text, err)
	}
	if w.policies == nil {
		w.policies = map[string]crypto.Policy{}
	}
	w.policies[text] = p
	return p
}

// firstPolicy is the policy that a name's account begins with.
func (w *world) firstPolicy(name string) crypto.Policy {
	text, ok := policyText[name]
	if !ok {
		text = "1 ed25519:" + name
	}
	return w.policy(text)
}

func (w *world) address(name string) crypto.Address {
	a := DepositPool()
	if name != "pool" {
		a = w.firstPolicy(name).Address()
	}
	w.names[a] = name
	return a
}

func (w *world) name(a crypto.Address) string {
	if n, ok := w.names[a]; ok {
		return n
	}
	if a == (crypto.Address{}) {
		return "-"
	}
	return a.String()
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, verifier: Direct{}, names: map[crypto.Address]string{}, keys: map[string]crypto.PrivateKey{}}
	w.address("pool")
	w.genesis = Genesis{ChainID: "test", UnixNanos: 1000e9, InitialHeight: 1}
	w.genesis.State.Parameters = GenesisParameters{MaxTxBytes: 16 << 10, ReplayWindowSeconds: 600, MaxOpenNonces: 1000,
		FeeAsset: "EUR", FeeCollector: w.address("fees"), FeeBase: 1, MaxHoldSeconds: 86400, MaxExpiries: 3, MaxFeeMultiplier: 8000, BondSeconds: 100}
	return w
}

func (w *world) addAsset(code, issuer string, scale uint32, supply string) {
	w.genesis.State.Assets = append(w.genesis.State.Assets, GenesisAsset{Code: code, Issuer: w.address(issuer), Scale: scale, MaxSupply: supply})
}

func (w *world) addBalance(name, amount, code string) {
	a := w.address(name)
	accounts := &w.genesis.State.Accounts
	i := slices.IndexFunc(*accounts, func(g GenesisAccount) bool { return g.Address == a })
	if i < 0 {
		i = len(*accounts)
		*accounts = append(*accounts, GenesisAccount{Address: a})
	}
	(*accounts)[i].Balances = append((*accounts)[i].Balances, GenesisBalance{code, amount})
}

func (w *world) addValidator(name string, scheme crypto.Scheme, power uint64) {
	w.genesis.Validators = append(w.genesis.Validators, Validator{Scheme: scheme, PublicKey: newKey(w.t, scheme, name).Public(), Power: power})
}

// begin makes the state of genesis.
func (w *world) begin() error {
	if len(w.genesis.Validators) == 0 {
		w.addValidator("v1", crypto.Ed25519, 10)
	}
	accounts := w.genesis.State.Accounts
	slices.SortFunc(accounts, func(a, b GenesisAccount) int { return slices.Compare(a.Address[:], b.Address[:]) })
	for _, a := range accounts {
		slices.SortFunc(a.Balances, func(a, b GenesisBalance) int { return strings.Compare(a.Asset, b.Asset) })
	}
	outcome, _, err := w.genesis.Outcome()
	if err != nil {
		return err
	}
	w.memory = Memory{}
	w.memory.Apply(outcome.Writes)
	w.heads = map[LineKey]crypto.Hash{}
	w.fold(outcome)
	w.millis, w.height = w.genesis.UnixNanos/1e6, w.genesis.InitialHeight-1
	w.audit()
	return nil
}

// smallWorld is what most tests begin with: EUR at scale 2, issued by bank, with a little at everybody's.
func smallWorld(t testing.TB) *world {
	w := newWorld(t)
	w.addAsset("EUR", "bank", 2, "1000000.00")
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "team", "mixed"} {
		w.addBalance(name, "1000.00", "EUR")
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	return w
}

// next begins a block. One that is open must have been ended.
func (w *world) next(millis uint64) *Block {
	w.t.Helper()
	w.height++
	w.millis = millis
	b, err := NewBlock(w.memory, Header{Height: w.height, UnixMillis: millis}, w.verifier)
	if err != nil {
		w.t.Fatal(err)
	}
	w.block = b
	return b
}

// end closes the open block, makes its writes the state and audits that.
func (w *world) end(evidence ...Misbehavior) Outcome {
	w.t.Helper()
	o, err := w.block.End(evidence, w.votes)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 1; i < len(o.Writes); i++ {
		if string(o.Writes[i-1].Key) >= string(o.Writes[i].Key) {
			w.t.Fatalf("writes do not ascend at %x", o.Writes[i].Key)
		}
	}
	for _, row := range o.Writes {
		if row.Value != nil && string(w.memory[string(row.Key)]) == string(row.Value) {
			w.t.Fatalf("row %x is written without a change", row.Key)
		}
	}
	w.memory.Apply(o.Writes)
	w.block = nil
	w.audit()
	if w.heads != nil {
		w.fold(o)
	}
	return o
}

// fold continues the journals by a block's entries, and wants each line to end where they do.
func (w *world) fold(o Outcome) {
	w.t.Helper()
	for _, e := range o.Entries {
		if e.Number == 1 {
			delete(w.heads, e.Line) // of an earlier incarnation
		}
		w.heads[e.Line] = NextHead(w.heads[e.Line], e.Encoded)
	}
	for _, row := range o.Writes {
		if row.Key[0] != rowLine || row.Value == nil {
			continue
		}
		l, err := DecodeLine(row.Value)
		if k := (LineKey{crypto.Address(row.Key[1:33]), AssetID(row.Key[33:])}); err != nil || l.Entries > 0 && l.Head != w.heads[k] {
			w.t.Fatalf("line %s/%x ends at the head %s, its entries at %s (%v)", w.name(k.Account), k.Asset, l.Head, w.heads[k], err)
		}
	}
}

func (w *world) audit() {
	w.t.Helper()
	a := NewAudit()
	for _, key := range sortedStrings(w.memory) {
		a.Row([]byte(key), w.memory[key])
	}
	a.Close()
	if len(a.Findings) > 0 {
		w.t.Fatalf("audit after block %d:\n%s", w.height, strings.Join(a.Findings, "\n"))
	}
}

func sortedStrings[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (w *world) account(a crypto.Address) (Account, bool) {
	if w.block != nil {
		return w.block.state.accounts.get(a)
	}
	value := w.memory[string(AccountRow(a))]
	if value == nil {
		return Account{}, false
	}
	account, err := DecodeAccount(value)
	if err != nil {
		w.t.Fatal(err)
	}
	return account, true
}

// policyOf returns the policy in force and its version.
func (w *world) policyOf(a crypto.Address) (crypto.Policy, uint32) {
	account, known := w.account(a)
	if !known {
		return w.firstPolicy(w.name(a)), 0
	}
	var encoded []byte
	if w.block != nil {
		encoded, _ = w.block.state.policies.get(account.Policy)
	} else {
		encoded = w.memory[string(PolicyRow(account.Policy))][1:]
	}
	p, err := crypto.DecodePolicy(encoded)
	if err != nil {
		w.t.Fatalf("policy of %s: %s", w.name(a), err)
	}
	return p, account.PolicyVersion
}

func (w *world) networkID() crypto.Hash {
	n, err := DecodeNetwork(w.memory[string(NetworkRow())])
	if err != nil {
		w.t.Fatal(err)
	}
	return n.ID
}

func (w *world) sign(k crypto.Key, message []byte) []byte {
	private, ok := w.keys[string(k.Public)]
	if !ok {
		w.t.Fatalf("nobody here has the key %x", k.Public[:8])
	}
	s, err := private.Sign(message)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// witnesses signs a body with as many keys of each signer as it needs, the first ones first.
func (w *world) witnesses(b *Body, body []byte) []Witness {
	var witnesses []Witness
	for i, s := range b.Signers {
		p, version := w.policyOf(s.Address)
		message := Preimage(w.networkID(), body, version)
		for _, k := range quorum(p, b.NeedOf(uint32(i), p)) {
			witnesses = append(witnesses, Witness{uint32(i), uint32(k), w.sign(p.Keys[k], message)})
		}
	}
	return witnesses
}

// sponsored adds a sponsor and its signatures to what the signers have signed.
func (w *world) sponsored(body []byte, witnesses []Witness, s *Sponsor, number int) []byte {
	p, version := w.policyOf(s.Address)
	message := SponsorPreimage(w.networkID(), body, s, version)
	for _, k := range quorum(p, p.Threshold) {
		witnesses = append(witnesses, Witness{uint32(number), uint32(k), w.sign(p.Keys[k], message)})
	}
	return Assemble(body, witnesses, s)
}

// quorum chooses keys that reach a weight, and none that is not needed.
func quorum(p crypto.Policy, need uint32) []int {
	var chosen []int
	weight := uint32(0)
	for i, k := range p.Keys {
		if weight < need {
			chosen = append(chosen, i)
			weight += k.Weight
		}
	}
	return slices.DeleteFunc(chosen, func(i int) bool {
		if weight-p.Keys[i].Weight >= need {
			weight -= p.Keys[i].Weight
			return true
		}
		return false
	})
}

// seal encodes and signs a body, which may be invalid, and returns the transaction's bytes.
func (w *world) seal(b *Body) []byte {
	body := b.encode()
	return Assemble(body, w.witnesses(b, body), nil)
}

// signer names an account with its next sequence, and brings the policy when the account is new.
func (w *world) signer(name string) Signer {
	s := Signer{Address: w.address(name)}
	account, known := w.account(s.Address)
	s.Sequence = account.Sequence + 1
	if !known {
		s.Policy = w.firstPolicy(name).Encode()
	}
	return s
}

// asset finds the id of a code; "CHF@bob" is one that bob is about to create.
func (w *world) asset(code string) AssetID {
	if code, issuer, ok := strings.Cut(code, "@"); ok {
		return NewAssetID(w.address(issuer), code)
	}
	for _, a := range w.genesis.State.Assets {
		if a.Code == code {
			return NewAssetID(a.Issuer, code)
		}
	}
	id := AssetID{}
	copy(id[:], "none:"+code)
	if w.block != nil {
		if found, ok := w.block.state.assetByCode(code); ok {
			return found
		}
	} else if v := w.memory[string(CodeRow(code))]; v != nil {
		id, _ = DecodeAssetID(v)
	}
	return id
}

// payment is a body of one transfer.
func (w *world) payment(from, to string, amount Amount, code string) *Body {
	return &Body{Signers: []Signer{w.signer(from)}, MaxFee: Units(1e9),
		Operations: []Operation{&Transfer{To: w.address(to), Asset: w.asset(code), Amount: amount}}}
}

// apply decodes and applies; bytes that are no transaction get the code that the application gives them.
func (w *world) apply(raw []byte) Receipt {
	w.t.Helper()
	tx, err := Decode(raw)
	if err != nil {
		return Receipt{Code: Malformed}
	}
	r, err := w.block.Apply(tx)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) line(account, code string) Line {
	k := LineKey{w.address(account), w.asset(code)}
	if w.block != nil {
		l, _ := w.block.state.lines.get(k)
		return l
	}
	value := w.memory[string(LineRow(k))]
	if value == nil {
		return Line{}
	}
	l, err := DecodeLine(value)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}
