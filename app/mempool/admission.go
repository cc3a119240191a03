package mempool

import (
	"crypto/sha256"
	"fmt"
	"runtime/debug"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// arrival is a transaction on its way into the pool. It belongs to the queue, then to one worker.
type arrival struct {
	raw   []byte
	own   bool         // came from a client of this node, so that the peers do not have it
	reply chan Verdict // with room for one; nil when nobody waits

	hash     crypto.Hash
	tx       *ledger.Tx
	answered bool
	twins    []*arrival // the same bytes again in the same batch: they get this one's verdict
}

// enqueue queues an arrival, or tells why not. It never waits.
func (p *Pool) enqueue(a *arrival) (Verdict, bool) {
	select {
	case <-p.closed:
		return turnedAway(Closing, "the node is shutting down"), false
	default:
	}
	if len(a.raw) > p.cfg.MaxTxBytes {
		p.counts.Refused.Add(1)
		if a.reply == nil {
			return Verdict{}, true // dealt with: the peer's bytes would be no better a second time
		}
		return refused(ledger.TooLarge, "transaction of %d bytes, at most %d", len(a.raw), p.cfg.MaxTxBytes), false
	}
	size := int64(len(a.raw))
	if p.queueBytes.Add(size) > p.cfg.QueueBytes {
		p.queueBytes.Add(-size)
		p.counts.Shed.Add(1)
		return turnedAway(Busy, "the node has more transactions to look at than it can; try again later"), false
	}
	select {
	case p.queue <- a:
		return Verdict{}, true
	default:
		p.queueBytes.Add(-size)
		p.counts.Shed.Add(1)
		return turnedAway(Busy, "the node has more transactions to look at than it can; try again later"), false
	}
}

// work takes batches until the pool is closed. A batch is what is there: a lone transaction waits for nobody, and under
// load the batches fill up by themselves.
func (p *Pool) work() {
	batch := make([]*arrival, 0, p.cfg.BatchSize)
	for {
		select {
		case <-p.closed:
			return
		case a := <-p.queue:
			batch = append(batch[:0], a)
		}
	fill:
		for len(batch) < p.cfg.BatchSize {
			select {
			case a := <-p.queue:
				batch = append(batch, a)
			default:
				break fill
			}
		}
		for _, a := range batch {
			p.queueBytes.Add(-int64(len(a.raw)))
		}
		p.admit(batch)
		clear(batch)
	}
}

// attempts is how often a batch is judged anew because the state has moved on by more blocks than the pool remembers, or
// by a change of policy, while it was judged. The signatures are remembered, so another attempt is cheap.
const attempts = 3

// admit sees a batch through. Every arrival gets its verdict, whatever happens.
func (p *Pool) admit(batch []*arrival) {
	p.counts.Batches.Add(1)
	defer func() {
		if r := recover(); r != nil { // of the pool itself: strangers' bytes are guarded one by one
			p.panicked(r, nil)
		}
		for _, a := range batch {
			if !a.answered {
				p.answer(a, turnedAway(Busy, "the node could not judge the transaction; try again later"))
			}
		}
	}()
	live := p.decode(batch)
	for range attempts {
		if len(live) == 0 {
			return
		}
		live = p.judge(live)
	}
}

func (p *Pool) panicked(r any, a *arrival) {
	p.counts.Panics.Add(1)
	if a == nil {
		p.log.Error("admitting a batch of transactions panicked; report this defect", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		return
	}
	p.log.Error("admitting a transaction panicked, it is refused; report this defect with the bytes", "panic", fmt.Sprint(r),
		"hash", a.hash, "bytes", len(a.raw), "stack", string(debug.Stack()))
}

// answer gives an arrival its verdict, and counts it.
func (p *Pool) answer(a *arrival, v Verdict) {
	a.answered = true
	if a.reply != nil {
		a.reply <- v
	}
	switch {
	case v.Retry:
		p.counts.Shed.Add(1)
	case v.Code != ledger.OK:
		p.counts.Refused.Add(1)
		p.log.Debug("refused a transaction", "tx", v.ID, "code", v.Code.String(), "why", v.Message)
	}
	for _, twin := range a.twins {
		if v.Code == ledger.OK {
			p.counts.Duplicates.Add(1)
		}
		p.answer(twin, v)
	}
}

// decode answers what needs no state, and returns the rest.
func (p *Pool) decode(batch []*arrival) []*arrival {
	live := make([]*arrival, 0, len(batch))
	first := make(map[crypto.Hash]*arrival, len(batch))
	for _, a := range batch {
		a.hash = sha256.Sum256(a.raw)
		if f := first[a.hash]; f != nil {
			f.twins = append(f.twins, a)
			f.own = f.own || a.own
			a.answered = true // with the first
			continue
		}
		first[a.hash] = a
	}
	// The lock is taken once for what is known already, as most of what peers send under load is.
	p.mu.Lock()
	for _, a := range batch {
		if e := p.waiting.byHash[a.hash]; e != nil && !a.answered {
			p.counts.Duplicates.Add(1)
			p.answer(a, Verdict{ID: e.id})
		}
	}
	full := p.waiting.full()
	p.mu.Unlock()
	for _, a := range batch {
		switch {
		case a.answered:
		case full:
			p.answer(a, turnedAway(Full, "the pool of waiting transactions is full; try again later"))
		default:
			if v := p.decodeOne(a); v.Code != ledger.OK {
				p.answer(a, v)
				continue
			}
			live = append(live, a)
		}
	}
	return live
}

func (p *Pool) decodeOne(a *arrival) (v Verdict) {
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r, a)
			v = refused(ledger.Malformed, "the transaction could not be decoded")
		}
	}()
	var err error
	if a.tx, err = decodeTx(a.raw); err != nil {
		return refused(ledger.Malformed, "%s", err)
	}
	return Verdict{}
}

// decodeTx is ledger.Decode but for the test of what a panic does.
var decodeTx = ledger.Decode

// collect is the verifier that a batch is judged with: it keeps what it is asked, to be verified with the others.
type collect struct {
	asked ledger.Authorization
	any   bool
}

// Verify implements [ledger.Verifier].
func (c *collect) Verify(a ledger.Authorization) bool {
	c.asked, c.any = a, true
	return true
}

// judge judges arrivals by the state and enters the good ones. It returns those that must be judged once more.
func (p *Pool) judge(live []*arrival) (again []*arrival) {
	state, last, release, err := p.admission()
	if err != nil {
		p.log.Error("opening the state to admit transactions; they are turned away", "error", err)
		return nil // admit answers
	}
	defer release()
	verifier := &collect{}
	var block *ledger.Block
	candidates := make([]candidate, 0, len(live))
	auths := make([]ledger.Authorization, 0, len(live))
	for _, a := range live {
		if block == nil {
			if block, err = ledger.NewBlock(state, last, verifier); err != nil {
				p.log.Error("reading the state to admit transactions; they are turned away", "error", err)
				return nil
			}
		}
		*verifier = collect{}
		c, v, err := p.examine(state, last, block, verifier, a)
		switch {
		case err != nil:
			p.log.Error("reading the state to admit transactions; they are turned away", "error", err)
			return nil
		case v.Code != ledger.OK:
			p.answer(a, v)
			if v.Code == ledger.Malformed { // it has panicked, and may have left the block half done
				block = nil
			}
		default:
			candidates = append(candidates, c)
			auths = append(auths, verifier.asked)
		}
	}
	good := p.cache.VerifyMany(auths, 1) // the workers are the parallelism
	verdicts := make([]Verdict, len(candidates))
	stale := make([]bool, len(candidates))
	p.mu.Lock()
	now := p.now()
	for i := range candidates {
		c := &candidates[i]
		if !good[i] {
			e, _ := ledger.Explain(ledger.SignatureInvalid)
			verdicts[i] = refused(ledger.SignatureInvalid, "%s", e.Meaning)
			verdicts[i].ID = c.id
			continue
		}
		verdicts[i], stale[i] = p.waiting.enter(c, now)
		switch {
		case stale[i], verdicts[i].Code != ledger.OK:
		case c.known:
			p.counts.Duplicates.Add(1)
		default:
			p.counts.Accepted.Add(1)
		}
	}
	p.signal()
	p.mu.Unlock()
	for i, c := range candidates {
		if stale[i] {
			again = append(again, c.arrival)
		} else {
			p.answer(c.arrival, verdicts[i])
		}
	}
	return again
}

// examine asks the ledger everything about a transaction but its signatures, which verifier collects.
func (p *Pool) examine(state ledger.Reader, last ledger.Header, block *ledger.Block, verifier *collect, a *arrival) (c candidate, v Verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r, a)
			v, err = refused(ledger.Malformed, "the transaction could not be judged"), nil
		}
	}()
	c = candidate{arrival: a, id: a.tx.ID(block.Network().ID), height: last.Height}
	code, err := checkTx(block, a.tx, p.cfg.MaxGap)
	if err != nil {
		return c, v, fmt.Errorf("checking transaction %s: %w", c.id, err)
	}
	if code != ledger.OK {
		e, _ := ledger.Explain(code)
		v = refused(code, "%s %s", e.Meaning, e.Remedy)
		v.ID = c.id
		return c, v, nil
	}
	if !verifier.any {
		panic("the ledger accepted a transaction without asking for its signatures")
	}
	body := &a.tx.Body
	c.used = make([]uint64, len(body.Signers))
	for i, s := range body.Signers {
		if s.Sequence == 0 {
			continue
		}
		var account ledger.Account
		if err := readRow(state, ledger.AccountRow(s.Address), &account, ledger.DecodeAccount); err != nil {
			return c, v, err
		}
		c.used[i] = account.Sequence
	}
	params := block.Parameters()
	c.fee = params.Fee(len(a.raw), len(body.Operations), ledger.VerificationCost(verifier.asked.Checks))
	if c.fee.IsZero() {
		return c, v, nil
	}
	payer := body.Signers[0].Address
	var line ledger.Line
	if err := readRow(state, ledger.LineRow(ledger.LineKey{Account: payer, Asset: params.FeeAsset}), &line, ledger.DecodeLine); err != nil {
		return c, v, err
	}
	c.funds = line.Available()
	if c.fee.Cmp(c.funds) > 0 {
		c.issues = true // the ledger found the fee payable all the same: the payer issues the fee asset
	}
	return c, v, nil
}

// checkTx is ledger.Block.Check but for the test of what a panic does.
var checkTx = (*ledger.Block).Check

// readRow reads a row into v, which stays as it is when there is none.
func readRow[V any](state ledger.Reader, key []byte, v *V, decode func([]byte) (V, error)) error {
	value, err := state.Get(key)
	if err == nil && value != nil {
		*v, err = decode(value)
	}
	if err != nil {
		return fmt.Errorf("reading the state's row %x: %w", key, err)
	}
	return nil
}
