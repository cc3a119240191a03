package mempool

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/signature"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// genesisSeconds is the time at which the tests' network begins; blocks are a second apart.
const genesisSeconds = 1_800_000_000

// person is somebody with a key.
type person struct {
	name   string
	key    crypto.PrivateKey
	policy []byte
	crypto.Address
	version    uint32 // of the policy
	registered bool   // has signed in a block, so that its transactions need not carry the policy
}

func newPerson(t testing.TB, name string) *person {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := crypto.NewPrivateKey(crypto.Ed25519, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	policy, err := crypto.SingleKey(crypto.Ed25519, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &person{name: name, key: key, policy: policy.Encode(), Address: policy.Address()}
}

// net is a ledger of one imaginary node: a committed state, a pool over it, and a clock that tests move.
type net struct {
	t      testing.TB
	id     crypto.Hash
	asset  ledger.AssetID
	issuer *person
	people []*person
	cache  *signature.Cache
	pool   *Pool

	mu    sync.Mutex
	state ledger.Memory  // replaced, never changed
	wrote []ledger.Write // by the last block
	last  ledger.Header
	clock time.Time
	block func() // called when admission opens the state, outside mu; nil: nothing
}

// balance is what each person begins with; a transfer costs 1,000 to 1,300 in fees.
const balance = 1_000_000_000

func newNet(t testing.TB, people int, change func(*Config)) *net {
	t.Helper()
	return newNetOf(t, people, balance, ledger.DefaultParameters().WithoutDeposits(), change)
}

// newNetOf makes a network with other parameters, in which each person begins with so much.
func newNetOf(t testing.TB, people, balance int, parameters ledger.Parameters, change func(*Config)) *net {
	t.Helper()
	n := &net{t: t, cache: signature.NewCache(100_000), issuer: newPerson(t, "issuer"), clock: time.Unix(genesisSeconds, 0)}
	collector := newPerson(t, "collector")
	g := ledger.Genesis{ChainID: "mempool-test", UnixNanos: genesisSeconds * 1e9, InitialHeight: 1,
		Validators: []ledger.Validator{{Scheme: crypto.Ed25519, PublicKey: newPerson(t, "validator").key.Public(), Power: 1}}}
	g.State.Parameters = parameters.Genesis("EUR", collector.Address)
	g.State.Assets = []ledger.GenesisAsset{{Code: "EUR", Issuer: n.issuer.Address, Scale: 2, MaxSupply: "1000000000000000"}}
	for i := range people {
		n.people = append(n.people, newPerson(t, fmt.Sprint("person ", i)))
	}
	sorted := slices.SortedFunc(slices.Values(n.people), func(a, b *person) int { return slices.Compare(a.Address[:], b.Address[:]) })
	for _, p := range sorted {
		g.State.Accounts = append(g.State.Accounts, ledger.GenesisAccount{Address: p.Address, Balances: []ledger.GenesisBalance{{Asset: "EUR", Amount: fmt.Sprintf("%d.%02d", balance/100, balance%100)}}})
	}
	outcome, network, err := g.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	n.id, n.asset, n.state = network.ID, ledger.NewAssetID(n.issuer.Address, "EUR"), ledger.Memory{}
	n.state.Apply(outcome.Writes)
	n.last = ledger.Header{UnixMillis: genesisSeconds * 1000}
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	n.pool = newPool(cfg, n.admission, n.cache, nil, func() time.Time {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.clock
	})
	t.Cleanup(n.pool.Close)
	return n
}

func (n *net) admission() (ledger.Reader, ledger.Header, func(), error) {
	n.mu.Lock()
	state, last, block := n.state, n.last, n.block
	n.mu.Unlock()
	if block != nil {
		block()
	}
	return state, last, func() {}, nil
}

func (n *net) sleep(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock = n.clock.Add(d)
}

// payment is a transaction to build.
type payment struct {
	from       []*person // signers; the first one pays
	sequence   []uint64  // by signer; 0: the nonce
	nonce      uint64
	validUntil uint64 // seconds after genesis; 0 with a nonce: 300
	amount     uint64 // 0: 1
	memo       string
	policy     []byte // to change the first signer's to
	spoil      bool   // the signature
}

// pay is the usual payment: one signer, a sequence.
func pay(from *person, sequence uint64) payment {
	return payment{from: []*person{from}, sequence: []uint64{sequence}}
}

func payNonce(from *person, nonce uint64) payment {
	return payment{from: []*person{from}, sequence: []uint64{0}, nonce: nonce}
}

func (n *net) build(p payment) []byte {
	n.t.Helper()
	body := ledger.Body{MaxFee: ledger.Units(100_000)}
	for i, from := range p.from {
		s := ledger.Signer{Address: from.Address, Sequence: p.sequence[i]}
		if from.version == 0 && !from.registered {
			s.Policy = from.policy
		}
		if s.Sequence == 0 {
			binary.BigEndian.PutUint64(s.Nonce[:], p.nonce+1)
			if p.validUntil == 0 {
				p.validUntil = 300
			}
		}
		body.Signers = append(body.Signers, s)
	}
	if p.validUntil != 0 {
		body.ValidUntil = genesisSeconds + p.validUntil
	}
	if p.policy != nil {
		next := newPerson(n.t, string(p.policy))
		proof, err := next.key.Sign(ledger.PossessionPreimage(n.id, p.from[0].Address, crypto.DomainAddress.Hash(next.policy), p.from[0].version+1))
		if err != nil {
			n.t.Fatal(err)
		}
		body.Operations = append(body.Operations, &ledger.SetPolicy{Policy: next.policy, Proofs: [][]byte{proof}})
	} else {
		body.Operations = append(body.Operations, &ledger.Transfer{To: n.issuer.Address, Asset: n.asset, Amount: ledger.Units(max(p.amount, 1)), Memo: p.memo})
	}
	encoded := body.Encode()
	var witnesses []ledger.Witness
	for i, from := range p.from {
		signed, err := from.key.Sign(ledger.Preimage(n.id, encoded, from.version))
		if err != nil {
			n.t.Fatal(err)
		}
		if p.spoil {
			signed[40] ^= 1
		}
		witnesses = append(witnesses, ledger.Witness{Signer: uint32(i), Signature: signed})
	}
	return ledger.Assemble(encoded, witnesses, nil)
}

// send sends in a payment as a client and returns the verdict.
func (n *net) send(p payment) Verdict {
	n.t.Helper()
	return n.pool.Check(context.Background(), n.build(p))
}

func (n *net) accept(payments ...payment) {
	n.t.Helper()
	for _, p := range payments {
		if v := n.send(p); v.Code != ledger.OK || v.Retry {
			n.t.Fatalf("a good payment got %s (retry %v): %s", v.Code, v.Retry, v.Message)
		}
	}
}

func (n *net) decode(raw []byte) *ledger.Tx {
	n.t.Helper()
	tx, err := ledger.Decode(raw)
	if err != nil {
		n.t.Fatal(err)
	}
	return tx
}

// commit makes a block of transactions and tells the pool. It returns how many the ledger refused; they are told too.
func (n *net) commit(txs [][]byte) (refusedOnes int) {
	n.t.Helper()
	done, dropped := n.execute(txs)
	n.pool.Committed(n.last, done, n.wrote)
	for tx, code := range dropped {
		n.pool.Refused(tx.Hash(), code)
	}
	return len(dropped)
}

// execute makes a block without telling the pool.
func (n *net) execute(txs [][]byte) (done []*ledger.Tx, dropped map[*ledger.Tx]ledger.Code) {
	n.t.Helper()
	dropped = map[*ledger.Tx]ledger.Code{}
	h := ledger.Header{Height: n.last.Height + 1, UnixMillis: n.last.UnixMillis + 1000}
	block, err := ledger.NewBlock(n.state, h, n.cache)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, raw := range txs {
		tx := n.decode(raw)
		receipt, err := block.Apply(tx)
		if err != nil {
			n.t.Fatal(err)
		}
		if receipt.Code.Refused() {
			dropped[tx] = receipt.Code
		} else {
			done = append(done, tx)
		}
	}
	outcome, err := block.End(nil, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	state := maps.Clone(n.state)
	state.Apply(outcome.Writes)
	n.mu.Lock()
	n.state, n.last, n.wrote, n.clock = state, h, outcome.Writes, n.clock.Add(time.Second)
	n.mu.Unlock()
	return done, dropped
}

// proposed names the transactions of a proposal: the person's number and its sequence, or n and the nonce.
func (n *net) proposed(maxBytes int64) string {
	n.t.Helper()
	return n.names(n.pool.Propose(maxBytes))
}

func (n *net) names(txs [][]byte) string {
	n.t.Helper()
	var names []string
	for _, raw := range txs {
		var name []string
		for _, s := range n.decode(raw).Body.Signers {
			who := slices.IndexFunc(n.people, func(p *person) bool { return p.Address == s.Address })
			if s.Sequence != 0 {
				name = append(name, fmt.Sprintf("%d:%d", who, s.Sequence))
			} else {
				name = append(name, fmt.Sprintf("%d:n%d", who, binary.BigEndian.Uint64(s.Nonce[:])-1))
			}
		}
		names = append(names, strings.Join(name, "+"))
	}
	return strings.Join(names, " ")
}

const everything = 1 << 40

// verify recomputes from nothing what the pool keeps in step, and fails on the first difference.
func (n *net) verify() {
	n.t.Helper()
	n.pool.mu.Lock()
	defer n.pool.mu.Unlock()
	if err := n.pool.waiting.verify(); err != nil {
		n.t.Fatal(err)
	}
}

func (w *waiting) verify() error {
	var bytes, parkedBytes int64
	ready := 0
	counts, sizes := map[*account]int{}, map[*account]int64{}
	claimed, claims := map[*purse]ledger.Amount{}, map[*purse]int{}
	for id, e := range w.byID {
		if e.gone || e.id != id || w.byHash[e.hash] != e {
			return fmt.Errorf("entry %s is not indexed as it should be", id)
		}
		bytes += e.size()
		if e.ready {
			ready++
		} else {
			parkedBytes += e.size()
		}
		if e.ready != (e.inParked == nil) {
			return fmt.Errorf("entry %s is ready: %v, in the parked list: %v", id, e.ready, e.inParked != nil)
		}
		open := true
		for i, a := range e.accounts {
			if w.accounts[a.address] != a || w.byKey[e.keys[i]] != e {
				return fmt.Errorf("entry %s has an account or key that is not the pool's", id)
			}
			counts[a]++
			sizes[a] += e.size()
			if s := e.keys[i].sequence; s != 0 {
				if a.sequenced[s] != e || s < a.next {
					return fmt.Errorf("sequence %d of %s, next %d, is not in its account", s, a.address, a.next)
				}
				open = open && s < a.chain
				if e.ready && s >= a.chain {
					return fmt.Errorf("ready entry %s is behind the chain of %s", id, a.address)
				}
			}
		}
		if !e.ready && open {
			return fmt.Errorf("entry %s is parked within the chain", id)
		}
		if !e.ready && e.open() {
			return fmt.Errorf("entry %s is parked and could be ready", id)
		}
		fee := e.fee(w.multiplier)
		if fee.Cmp(e.maxFee) > 0 || e.coveredTo < w.multiplier || w.rising[e.inRising] != e {
			return fmt.Errorf("entry %s has the fee %s, at most %s, and is covered to %d at %d", id, fee, e.maxFee, e.coveredTo, w.multiplier)
		}
		if !e.ready && e.drawsOnOthers() {
			return fmt.Errorf("entry %s is parked and claims what is another's", id)
		}
		for _, c := range e.claims {
			if w.purses[c.purse.key] != c.purse || c.place.Value != e {
				return fmt.Errorf("entry %s has a claim on a purse that is not the pool's", id)
			}
			want, _ := c.demand(fee, e.fee(e.coveredTo))
			if c.payer && e.fee(e.coveredTo+1).Cmp(e.maxFee) > 0 { // all that it agrees to is reserved
				want, _ = c.demand(fee, e.maxFee)
			}
			if c.amount.Cmp(want) < 0 {
				return fmt.Errorf("entry %s claims %s where it may take %s", id, c.amount, want)
			}
			claimed[c.purse] = plus(claimed[c.purse], c.amount)
			claims[c.purse]++
		}
	}
	for k, p := range w.purses {
		if p.key != k || p.claims.Len() != claims[p] || claims[p] == 0 || p.claimed != claimed[p] {
			return fmt.Errorf("purse %v counts %d claims of %s, it has %d of %s", k, p.claims.Len(), p.claimed, claims[p], claimed[p])
		}
		if !w.sound(p) {
			return fmt.Errorf("purse %v has %s, and %d claims of %s", k, p.funds, claims[p], p.claimed)
		}
	}
	turns := 0
	keys := 0
	for _, a := range w.accounts {
		if a.count == 0 || a.count != counts[a] || a.bytes != sizes[a] {
			return fmt.Errorf("account %s counts %d, %d bytes; it has %d, %d", a.address, a.count, a.bytes, counts[a], sizes[a])
		}
		for s := a.next; s < a.chain; s++ {
			if e := a.sequenced[s]; e == nil || !e.ready {
				return fmt.Errorf("the chain of %s has a hole at %d", a.address, s)
			}
		}
		if has := a.chain > a.next || a.nonces.Len() > 0; has != (a.inTurns != nil) {
			return fmt.Errorf("account %s has something ready: %v, a turn: %v", a.address, has, a.inTurns != nil)
		} else if has {
			turns++
		}
		keys += counts[a]
		if a.count > w.cfg.MaxTxsPerSender || a.bytes > w.cfg.MaxBytesPerSender {
			return fmt.Errorf("account %s has %d transactions of %d bytes", a.address, a.count, a.bytes)
		}
	}
	all := len(w.byID)
	if bytes != w.bytes || parkedBytes != w.parkedBytes || ready != w.ready || w.parked.Len() != all-ready || w.turns.Len() != turns ||
		w.ages.Len() != all || w.fresh.Len()+w.later.Len() != all || len(w.byHash) != all || len(w.rising) != all || len(w.byKey) != keys {
		return fmt.Errorf("the pool's figures are off: %d entries, bytes %d/%d, parked bytes %d/%d, ready %d/%d, parked %d, turns %d/%d, ages %d, offers %d+%d, keys %d/%d",
			all, w.bytes, bytes, w.parkedBytes, parkedBytes, w.ready, ready, w.parked.Len(), w.turns.Len(), turns, w.ages.Len(), w.fresh.Len(), w.later.Len(), len(w.byKey), keys)
	}
	if all > w.cfg.MaxTxs || bytes > w.cfg.MaxBytes {
		return fmt.Errorf("the pool has %d transactions of %d bytes", all, bytes)
	}
	return nil
}
