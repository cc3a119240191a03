// Package mempool keeps the transactions that wait for a block. It is the application's own mempool, behind CometBFT's
// mempool.type = "app": CheckTx is [Pool.Check], InsertTx is [Pool.Insert], ReapTxs is [Pool.Reap], PrepareProposal waits
// with [Pool.Wait] and takes [Pool.Propose], and after Commit the application tells [Pool.Committed] what the block held.
// CometBFT does nothing else for such a mempool: no recheck, no eviction, no second sending.
//
// A transaction's way: it is queued (never more than a bound; beyond it, it is shed with a code that says "try again"),
// a worker takes what is queued as one batch, decodes it, asks the ledger about everything but signatures, verifies the
// signatures of the whole batch together, and enters what is good into the pool under one lock. Signatures are the
// dearest part, so everything cheaper is asked first: a flood from accounts without money costs no verification.
//
// In the pool a transaction is known by its replay keys, one for each signer: (account, sequence) or (account,
// valid_until, nonce), the very thing of which the ledger accepts one only. A second transaction with a key that is taken
// is refused, whatever its fee: what a signer has signed first stays its word until it dies. A transaction is ready when
// each of its sequences is the account's next one or follows a ready one; otherwise it is parked until the gap closes.
// Parked ones are the first to go when the pool is full. What draws on an account that has not signed it is not parked.
//
// What waits is paid for: its claims on every account and grant that it draws on fit together (see purse.go).
//
// Being in the pool promises nothing. A block is judged by the ledger alone: nothing here can make a bad transaction
// good, but a mistake here can keep a good one out, or make this node propose badly or run out of memory.
package mempool

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pacioli-ledger/pacioli/app/signature"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Codes of transactions that are turned away although the ledger has nothing against them: the same bytes may be sent
// again later. They begin at CometBFT's abci.CodeTypeRetry.
const (
	Busy      ledger.Code = 32000 // the queue is full, or the node could not look at its state
	Full      ledger.Code = 32001 // the pool is full
	ShareUsed ledger.Code = 32002 // a signer's share of the pool is used up
	FeesHeld  ledger.Code = 32003 // what waits reserves too much of what the payer, or a debited account, has
	Closing   ledger.Code = 32004 // the node is shutting down
	OutOfTurn ledger.Code = 32005 // it draws on an account that has not signed it, and is ahead of its sequence
)

// Verdict is what becomes of a transaction that was sent in. Its code is ledger.OK when it waits in the pool, also when
// it did already; a refusal of the ledger; or, with Retry, one of the codes above.
type Verdict struct {
	Code    ledger.Code
	Retry   bool
	Message string      // for people; empty when accepted
	ID      crypto.Hash // of the transaction; zero for bytes that are none, and when it was not looked at
}

func turnedAway(code ledger.Code, format string, args ...any) Verdict {
	return Verdict{Code: code, Retry: true, Message: fmt.Sprintf(format, args...)}
}

func refused(code ledger.Code, format string, args ...any) Verdict {
	return Verdict{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Admission opens a view of the last committed state: its rows, the header of the block that left it, and the function
// that closes the view. The pool judges one batch by a view and closes it within milliseconds. It is called by several
// goroutines. Where a block may be committed in between, the header is taken first: one that is too old is harmless.
type Admission func() (state ledger.Reader, last ledger.Header, release func(), err error)

// Pool is the mempool. Every method may be called from any goroutine at any time, also while a block is executed or
// committed, and none but Check and Wait waits for anything but a lock that is held for a few milliseconds at most.
type Pool struct {
	cfg       Config
	admission Admission
	cache     *signature.Cache
	log       *slog.Logger
	now       func() time.Time

	queue      chan *arrival
	queueBytes atomic.Int64
	closed     chan struct{}
	closeOnce  sync.Once
	workers    sync.WaitGroup
	counts     counters

	mu      sync.Mutex
	waiting *waiting      // guarded by mu
	readied chan struct{} // guarded by mu: closed, and replaced, when there may be something ready
}

// New starts a pool with its workers; Close ends them. A nil log discards. It panics on a configuration that
// [Config.Check] refuses.
func New(cfg Config, admission Admission, cache *signature.Cache, log *slog.Logger) *Pool {
	return newPool(cfg, admission, cache, log, time.Now)
}

func newPool(cfg Config, admission Admission, cache *signature.Cache, log *slog.Logger, now func() time.Time) *Pool {
	if err := cfg.Check(); err != nil {
		panic(err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg, admission: admission, cache: cache, log: log, now: now,
		queue: make(chan *arrival, cfg.QueueLength), closed: make(chan struct{}),
		waiting: newWaiting(cfg), readied: make(chan struct{})}
	for range cfg.Workers {
		p.workers.Go(p.work)
	}
	return p
}

// Close ends the workers and returns when they have ended. Whoever waits in Check gets the code Closing, whoever waits in
// Wait gets false. What waits in the pool is dropped with it: its senders, and the peers, have it still.
func (p *Pool) Close() {
	p.closeOnce.Do(func() { close(p.closed) })
	p.workers.Wait()
}

// Check takes a transaction from a client and waits for the verdict, or for the end of ctx; in the latter case the
// transaction may still be accepted. raw must not change afterwards.
func (p *Pool) Check(ctx context.Context, raw []byte) Verdict {
	a := &arrival{raw: raw, own: true, reply: make(chan Verdict, 1)}
	if v, ok := p.enqueue(a); !ok {
		return v
	}
	select {
	case v := <-a.reply:
		return v
	case <-ctx.Done():
		return turnedAway(Busy, "no verdict in time; the transaction may still be accepted, and may be sent again")
	case <-p.closed:
		return turnedAway(Closing, "the node is shutting down")
	}
}

// Insert takes a transaction from a peer. It never waits, not even for the pool's lock, as it runs in the goroutine that
// receives the peer's votes. It returns false when the transaction was shed; true says that it will be looked at. CometBFT
// then remembers its hash (for 100,000 others) and drops the same bytes when a peer sends them again, whatever the verdict
// behind the queue: another node has to propose a transaction that this one had no room for. raw must not change afterwards.
func (p *Pool) Insert(raw []byte) bool {
	_, ok := p.enqueue(&arrival{raw: raw})
	return ok
}

// Reap returns transactions to send to the peers, of at most maxBytes together (0 or less: 4 MiB, a message of
// CometBFT's). Those that clients sent here come once, at once. Every transaction that still waits OfferAgainAfter later
// comes again, wherever it came from: CometBFT sends each but once, and a peer that was away has missed it. In a full
// mesh, which validators form, the first sending reaches everybody, so that what peers sent is not sent on before that.
func (p *Pool) Reap(maxBytes int64) [][]byte {
	if maxBytes <= 0 {
		maxBytes = 4 << 20
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.counts.Expired.Add(p.waiting.forgetOld(now))
	return p.waiting.offer(now, maxBytes)
}

// Propose returns ready transactions for a block, of at most maxBytes together as CometBFT counts them in a block. Senders
// take turns in the order in which they came, and those whose transactions the last block took come last; each sender's
// sequences are in order.
//
// Over the state that Committed was last told of, each of them applies without a refusal, but for what is only known when
// the block is built: a grant that was made, used or ended by the transactions before, a valid_until or a grant's end that
// the block's time has passed, and the ledger's memory of nonces running full. The caller applies them in order, leaves out what is refused and says so
// to [Pool.Refused]. The caller must not change them.
func (p *Pool) Propose(maxBytes int64) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.propose(maxBytes)
}

// Refused tells that the ledger has refused a transaction of this hash ([ledger.Tx.Hash]) when a block was built with it
// or decided. It is dropped, but for one that is ahead of another: that is parked when the other is dropped.
func (p *Pool) Refused(hash crypto.Hash, code ledger.Code) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.waiting.byHash[hash]; e != nil && code != ledger.SequenceGap {
		p.waiting.remove(e)
		p.counts.Dropped.Add(1)
	}
}

// Wait waits until there is a ready transaction and returns true, or until ctx ends or the pool is closed and returns
// false.
func (p *Pool) Wait(ctx context.Context) bool {
	for {
		p.mu.Lock()
		ready, readied := p.waiting.ready > 0, p.readied
		p.mu.Unlock()
		if ready {
			return true
		}
		select {
		case <-readied:
		case <-ctx.Done():
			return false
		case <-p.closed:
			return false
		}
	}
}

// Committed tells what a committed block held. The state that Admission opens must be that block's, or a later one's. txs
// are the transactions that took effect or failed, in order, and not those that the ledger refused: these have used up
// nothing. Nil ones are passed over. writes are the rows that the block has changed, in order of their keys.
//
// What the block held goes, and what can no longer stand in a block: other transactions with the same replay keys,
// expired ones, those whose fee has risen above their max_fee, and those that their payer can no longer pay for. Signatures
// are not verified again, except of those whose signer has changed its policy in this block: they pass through admission
// once more.
func (p *Pool) Committed(h ledger.Header, txs []*ledger.Tx, writes []ledger.Write) {
	txs = slices.DeleteFunc(slices.Clone(txs), func(tx *ledger.Tx) bool { return tx == nil })
	p.mu.Lock()
	again, expired, dropped := p.waiting.committed(h, txs, writes, p.now())
	p.counts.Expired.Add(expired)
	p.counts.Dropped.Add(dropped)
	p.signal()
	p.mu.Unlock()
	for _, e := range again {
		if _, ok := p.enqueue(&arrival{raw: e.tx.Bytes(), own: e.offered.IsZero() && e.own}); !ok {
			p.counts.Dropped.Add(1)
			p.log.Info("dropped a transaction whose signer has changed its policy, as the queue is full; its sender may send it again", "tx", e.id, "height", h.Height)
		}
	}
}

// Pending returns the sequence that the next transaction of an account should have: the first one that neither a block
// nor the pool has. ok is false when nothing of the account waits; then the committed state knows.
func (p *Pool) Pending(sender crypto.Address) (next uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.waiting.accounts[sender]
	if a == nil {
		return 0, false
	}
	for next = a.chain; a.sequenced[next] != nil; next++ {
	}
	return next, true
}

// Tx returns a waiting transaction by its hash ([ledger.Tx.Hash]), nil when there is none: decoded and immutable, so that
// whoever meets its bytes in a proposal need not decode them again.
func (p *Pool) Tx(hash crypto.Hash) *ledger.Tx {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.waiting.byHash[hash]; e != nil {
		return e.tx
	}
	return nil
}

// TxOf is [Pool.Tx] for a transaction's bytes.
func (p *Pool) TxOf(raw []byte) *ledger.Tx { return p.Tx(sha256.Sum256(raw)) }

// Stats is what the pool holds and what it has done since it was made.
type Stats struct {
	Ready, Parked int   // transactions in the pool
	Bytes         int64 // of both
	Senders       int   // accounts that they are signed by
	Queued        int   // transactions that wait for a worker
	QueuedBytes   int64 // of those, and of those that the workers have in hand

	Accepted   uint64 // entered into the pool
	Duplicates uint64 // accepted, but in the pool already
	Refused    uint64 // by the ledger, or for a replay key that is taken
	Shed       uint64 // turned away with a code that says to try again, at the queue or behind it
	Evicted    uint64 // parked ones that went to make room
	Expired    uint64 // went by valid_until or MaxAge
	Dropped    uint64 // went because the ledger refused them later, or their fee could not be paid any more
	Batches    uint64 // that the workers took
	Panics     uint64 // of admission, each of them logged: defects

	// RefusedBy counts the refused ones by what was wrong with them.
	RefusedBy [Classes]uint64
}

// Classes is the number of classes of refusals.
const Classes = 6

// ClassNames are what a refused transaction was refused for, in the order of its codes: its form, its time, who signs, its
// sequence or nonce, the fee, its signatures.
var ClassNames = [Classes]string{"form", "time", "signer", "replay", "fee", "signature"}

// class of a code of the ledger: they are numbered by tens, and those of witnesses and signatures are the last.
func class(c ledger.Code) int { return min(int(c)/10, Classes-1) }

func (c *counters) refuse(code ledger.Code) {
	c.Refused.Add(1)
	c.refusedBy[class(code)].Add(1)
}

type counters struct {
	Accepted, Duplicates, Refused, Shed, Expired, Dropped, Batches, Panics atomic.Uint64
	refusedBy                                                              [Classes]atomic.Uint64
}

// Stats returns the pool's figures.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, c := p.waiting, &p.counts
	var by [Classes]uint64
	for i := range by {
		by[i] = c.refusedBy[i].Load()
	}
	return Stats{RefusedBy: by, Ready: w.ready, Parked: w.parked.Len(), Bytes: w.bytes, Senders: len(w.accounts), Queued: len(p.queue), QueuedBytes: p.queueBytes.Load(),
		Accepted: c.Accepted.Load(), Duplicates: c.Duplicates.Load(), Refused: c.Refused.Load(), Shed: c.Shed.Load(), Evicted: w.evicted,
		Expired: c.Expired.Load(), Dropped: c.Dropped.Load(), Batches: c.Batches.Load(), Panics: c.Panics.Load()}
}

// signal wakes those who wait for a ready transaction. The caller holds mu.
func (p *Pool) signal() {
	if p.waiting.ready > 0 {
		close(p.readied)
		p.readied = make(chan struct{})
	}
}
