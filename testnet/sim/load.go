package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtmempool "github.com/cometbft/cometbft/mempool"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	clientFunds  = 1_000_000_000
	malloryFunds = 20_000 // the fees of a few dozen payments
	patience     = 2 * time.Second
)

// wallet is an account with its keys.
type wallet struct {
	s       *simulation
	name    string
	keys    []crypto.PrivateKey
	policy  crypto.Policy
	address crypto.Address
}

func newWallet(s *simulation, name string, schemes ...crypto.Scheme) *wallet {
	w := &wallet{s: s, name: name}
	var keys []crypto.Key
	for i, scheme := range schemes {
		seed := sha256.Sum256(fmt.Appendf(nil, "simulated %s %d", name, i))
		k, err := crypto.NewPrivateKey(scheme, seed[:])
		if err != nil {
			panic(err)
		}
		w.keys = append(w.keys, k)
		keys = append(keys, crypto.Key{Scheme: scheme, Public: k.Public(), Weight: 1})
	}
	var err error
	if w.policy, err = crypto.NewPolicy(uint32(len(keys)), keys...); err != nil {
		panic(err)
	}
	w.address = w.policy.Address()
	return w
}

// replay is how a transaction is kept from standing twice: by a sequence, or by a nonce and a time.
type replay struct {
	sequence, nonce, validUntil uint64
}

// sign makes a transaction. It always brings the policy, which a node that knows the account passes over.
func (w *wallet) sign(r replay, operations ...ledger.Operation) []byte {
	signer := ledger.Signer{Address: w.address, Sequence: r.sequence, Policy: w.policy.Encode()}
	if r.sequence == 0 {
		binary.BigEndian.PutUint64(signer.Nonce[:], r.nonce)
	}
	body := ledger.Body{Signers: []ledger.Signer{signer}, ValidUntil: r.validUntil, MaxFee: ledger.Units(1 << 40), MaxDeposit: ledger.Units(1 << 40), Operations: operations}
	raw := body.Encode()
	message := ledger.Preimage(w.s.networkID.ID, raw, 0)
	var witnesses []ledger.Witness
	for i, k := range w.policy.Keys {
		for _, private := range w.keys {
			if string(private.Public()) == string(k.Public) {
				signature, err := private.Sign(message)
				if err != nil {
					panic(err)
				}
				witnesses = append(witnesses, ledger.Witness{Key: uint32(i), Signature: signature})
			}
		}
	}
	return ledger.Assemble(raw, witnesses, nil)
}

// payment is a payment to the bank, made several times in one transaction.
type payment struct {
	amount                      uint64
	sequence, nonce, validUntil uint64
	times                       int
}

func (w *wallet) pay(p payment) []byte {
	var operations []ledger.Operation
	for range max(1, p.times) {
		operations = append(operations, &ledger.Transfer{To: w.s.bank.address, Asset: w.s.money, Amount: ledger.Units(p.amount)})
	}
	return w.sign(replay{p.sequence, p.nonce, p.validUntil}, operations...)
}

// sent is a transaction that a client has sent.
type sent struct {
	id       crypto.Hash
	raw      []byte
	sequence uint64
	fails    bool // it has to stand in a block without effect
	succeeds bool // it has to take effect; of a hold that may have expired, nobody can tell
	// by are the runs of nodes that have accepted it: while one of them is honest and lives, it has to get into a block.
	by   []*run
	when time.Time
}

// client sends transactions of one wallet, to one node after the other, whatever happens to the network.
type client struct {
	*wallet
	rng    *rand.Rand
	byTurn bool // it pays by sequence, one transaction after the other
	// operator is for who acts for a validator, and does nothing else.
	operator *operator

	mu    sync.Mutex
	sent  []*sent
	holds []crypto.Hash // towards this client, made by the others
}

// work makes transactions until stop is closed, and sends again what is not known to be committed: then only that.
func (c *client) work(pause time.Duration, stop <-chan struct{}) {
	var sequence uint64
	stopped, after := false, 3*time.Second
	for {
		time.Sleep(pause/2 + time.Duration(c.rng.Int64N(int64(pause))))
		select {
		case <-stop:
			stopped, after, pause = true, time.Second, 50*time.Millisecond
		default:
		}
		var open []*sent
		for _, t := range c.open() {
			if time.Since(t.when) > after {
				open = append(open, t)
			}
		}
		var t *sent
		switch {
		case len(open) > 0 && (stopped || c.rng.IntN(3) == 0):
			if t = open[c.rng.IntN(len(open))]; c.byTurn {
				t = open[0]
			}
			t.when = time.Now()
			c.s.count.again.Add(1)
		case stopped:
			continue
		default:
			r := replay{nonce: c.rng.Uint64() | 1, validUntil: uint64(time.Now().Unix()) + 300}
			if c.byTurn {
				sequence++
				r = replay{sequence: sequence}
			}
			t = c.transaction(r)
			c.mu.Lock()
			c.sent = append(c.sent, t)
			c.mu.Unlock()
		}
		c.submit(t)
	}
}

// transaction makes one of any kind.
func (c *client) transaction(r replay) *sent {
	if c.operator != nil {
		return c.make(r, &sent{when: time.Now()}, c.govern())
	}
	s := c.s
	other := s.clients[c.rng.IntN(len(s.clients))]
	for other == c {
		other = s.clients[c.rng.IntN(len(s.clients))]
	}
	t := &sent{when: time.Now(), sequence: r.sequence}
	pay := &ledger.Transfer{To: other.address, Asset: s.money, Amount: ledger.Units(1 + c.rng.Uint64N(1000)), Memo: "rent"}
	var operations []ledger.Operation
	var hold crypto.Hash
	c.mu.Lock()
	if len(c.holds) > 0 && c.rng.IntN(2) == 0 {
		hold, c.holds = c.holds[0], c.holds[1:]
	}
	c.mu.Unlock()
	switch n := c.rng.IntN(10); {
	case hold != crypto.Hash{}: // it may have expired, or never been made
		operations = append(operations, &ledger.PostHold{Hold: hold})
		if c.rng.IntN(3) == 0 {
			operations = []ledger.Operation{&ledger.VoidHold{Hold: hold}}
		}
	case n == 0:
		t.fails = true
		operations = append(operations, pay, &ledger.PostHold{Hold: crypto.Hash{byte(n), 1}}) // which nobody has made
	case n == 1:
		t.succeeds = true
		for range 1 + c.rng.IntN(5) {
			operations = append(operations, pay)
		}
	case n <= 3:
		operations = append(operations, &ledger.CreateHold{To: other.address, Asset: s.money, Amount: ledger.Units(5), Expires: uint64(time.Now().Unix()) + 3 + c.rng.Uint64N(10),
			PostBy: ledger.ByReceiver, VoidBy: ledger.ByReceiver})
	default:
		t.succeeds = true
		operations = append(operations, pay)
	}
	c.make(r, t, operations...)
	if _, ok := operations[0].(*ledger.CreateHold); ok {
		other.mu.Lock()
		other.holds = append(other.holds, ledger.HoldID(t.id, 0))
		other.mu.Unlock()
	}
	return t
}

// make signs what a transaction is to do.
func (c *client) make(r replay, t *sent, operations ...ledger.Operation) *sent {
	t.raw = c.sign(r, operations...)
	tx, err := ledger.Decode(t.raw)
	if err != nil {
		panic(fmt.Errorf("a client made what is no transaction: %w", err))
	}
	t.id = tx.ID(c.s.networkID.ID)
	return t
}

// submit sends a transaction to a random node that answers.
func (c *client) submit(t *sent) {
	r := c.s.machines[c.rng.IntN(len(c.s.machines))].running()
	if r == nil || r.dead.is() {
		return
	}
	answer := make(chan *abci.ResponseCheckTx, 1)
	if err := r.mempool.CheckTx(t.raw, func(a *abci.ResponseCheckTx) { answer <- a }, cmtmempool.TxInfo{}); err != nil {
		return // the node has seen it
	}
	select {
	case a := <-answer:
		if r.dead.is() {
			return // the node crashed before it could answer
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case a.Code == abci.CodeTypeOK:
			t.by = append(t.by, r)
			c.s.count.accepted.Add(1)
		case a.Code < abci.CodeTypeRetry:
			// It stands in a block by now, or in the pool under its replay key; settle finds out if it never comes.
			if _, done := c.s.chain.place(t.id); !done {
				c.s.trace.printf(r.index, "refuses %s of %s: %s", t.id, c.name, ledger.Code(a.Code))
			}
		}
	case <-time.After(patience):
	}
}

// open returns what is not committed, oldest first.
func (c *client) open() (open []*sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.sent {
		if _, done := c.s.chain.place(t.id); !done {
			open = append(open, t)
		}
	}
	return open
}

// owed returns a transaction that has to be committed and is not: an honest node that has lived ever since has accepted it.
func (c *client) owed() (t *sent, by *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.sent {
		if _, done := c.s.chain.place(t.id); done {
			continue
		}
		for _, r := range t.by {
			if !r.dead.is() && !r.role.byzantine() {
				return t, r
			}
		}
	}
	return nil, nil
}

// check holds what became of the client's transactions against what they are.
func (c *client) check() {
	for _, t := range c.sent {
		p, done := c.s.chain.place(t.id)
		if done {
			c.s.count.committed.Add(1)
		}
		if done && (t.fails && p.code == ledger.OK || t.succeeds && p.code != ledger.OK) {
			c.s.finding("transaction %s of %s has the code %s in block %d; it must fail: %t", t.id, c.name, p.code, p.height, t.fails)
		}
	}
}
