package mempool

import (
	"crypto/sha256"
	"errors"
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
		p.counts.refuse(ledger.TooLarge)
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
		p.admit(batch)
		for _, a := range batch { // only now, so that a batch's bytes are bounded with the queue's
			p.queueBytes.Add(-int64(len(a.raw)))
		}
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
		p.counts.refuse(v.Code)
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
	full := !p.waiting.fits(1, true)
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

// ErrNoState is what [Admission] answers while the chain has not been initialised.
var ErrNoState = errors.New("the node has no state yet: it waits for the first block")

// judge judges arrivals by the state and enters the good ones. It returns those that must be judged once more.
func (p *Pool) judge(live []*arrival) (again []*arrival) {
	state, last, release, err := p.admission()
	switch {
	case errors.Is(err, ErrNoState):
		return nil // admit answers
	case err != nil:
		p.log.Error("opening the state to admit transactions; they are turned away", "error", err)
		return nil
	}
	defer release()
	x := &examination{state: state, last: last}
	var candidates []*candidate
	for _, a := range live {
		c, v, err := p.examine(x, a)
		switch {
		case err != nil:
			p.log.Error("reading the state to admit transactions; they are turned away", "error", err)
			return nil
		case v.Code != ledger.OK:
			v.ID = c.id
			p.answer(a, v)
		default:
			candidates = append(candidates, c)
		}
	}
	// settle asks the pool about each candidate and keeps those that it welcomes.
	settle := func(ask func(*candidate) (standing, Verdict)) {
		kept := candidates[:0]
		for _, c := range candidates {
			s, v := ask(c)
			v.ID = c.id
			switch s {
			case welcome:
				kept = append(kept, c)
			case stale:
				again = append(again, c.arrival)
			case known:
				p.counts.Duplicates.Add(1)
				p.answer(c.arrival, v)
			case unwanted:
				p.answer(c.arrival, v)
			}
		}
		candidates = kept
	}
	p.mu.Lock()
	settle(p.waiting.consider)
	p.mu.Unlock()

	auths := make([]ledger.Authorization, len(candidates))
	for i, c := range candidates {
		auths[i] = c.authorization
	}
	good := p.cache.VerifyMany(auths, 1) // the workers are the parallelism
	now, next := p.now(), 0
	p.mu.Lock()
	settle(func(c *candidate) (standing, Verdict) {
		if next++; !good[next-1] {
			return unwanted, refusal(ledger.SignatureInvalid)
		}
		return p.waiting.enter(c, now)
	})
	p.signal()
	p.mu.Unlock()
	p.counts.Accepted.Add(uint64(len(candidates)))
	for _, c := range candidates {
		p.answer(c.arrival, Verdict{ID: c.id})
	}
	return again
}

func refusal(code ledger.Code) Verdict {
	e, _ := ledger.Explain(code)
	return refused(code, "%s %s", e.Meaning, e.Remedy)
}

// examination is one batch's look at the state. It belongs to one goroutine.
type examination struct {
	state    ledger.Reader
	last     ledger.Header
	block    *ledger.Block // nil: to be begun
	verifier collect
	params   *ledger.Parameters // which outlives the examination, with the transactions that are admitted
	asset    ledger.Asset       // that fees are paid in
}

func (x *examination) begin() (err error) {
	if x.block, err = ledger.NewBlock(x.state, x.last, &x.verifier); err != nil {
		return err
	}
	params := x.block.Parameters()
	x.params = &params
	return readRow(x.state, ledger.AssetRow(x.block.Parameters().FeeAsset), &x.asset, ledger.DecodeAsset)
}

// examine asks the ledger everything about a transaction but its signatures, and collects these. An error is a failure of
// the state.
func (p *Pool) examine(x *examination, a *arrival) (c *candidate, v Verdict, err error) {
	c = &candidate{arrival: a, height: x.last.Height}
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r, a)
			v, err = refused(ledger.Malformed, "the transaction could not be judged"), nil
			x.block = nil // may be half changed
		}
	}()
	if x.block == nil {
		if err := x.begin(); err != nil {
			return c, v, err
		}
	}
	c.id = a.tx.ID(x.block.Network().ID)
	x.verifier = collect{}
	code, err := checkTx(x.block, a.tx, p.cfg.MaxGap)
	if err != nil {
		return c, v, fmt.Errorf("checking transaction %s: %w", c.id, err)
	}
	if code != ledger.OK {
		return c, refusal(code), nil
	}
	if !x.verifier.any {
		panic("the ledger accepted a transaction without asking for its signatures")
	}
	c.authorization = x.verifier.asked
	return c, v, x.account(c)
}

// account finds out what a transaction uses up and draws on.
func (x *examination) account(c *candidate) error {
	tx := c.arrival.tx
	body, strangers := &tx.Body, 0
	look := func(address crypto.Address) (account ledger.Account, err error) {
		if err = readRow(x.state, ledger.AccountRow(address), &account, ledger.DecodeAccount); account.Policy == (crypto.Hash{}) {
			strangers++ // it has no row: it signs for the first time
		}
		c.depends = append(c.depends, address)
		return account, err
	}
	for _, s := range body.Signers {
		account, err := look(s.Address)
		if err != nil {
			return err
		}
		c.keys = append(c.keys, keyOf(body, s))
		c.used = append(c.used, account.Sequence)
	}
	if tx.Sponsor != nil {
		if _, err := look(tx.Sponsor.Address); err != nil {
			return err
		}
	}
	c.asset, c.multiplier = x.asset, x.block.FeeRate().Multiplier
	c.tariff = tariff{params: x.params, size: len(tx.Bytes()), operations: len(body.Operations), cost: ledger.VerificationCost(c.authorization.Checks)}
	c.maxFee, _ = tx.Limits()
	registrations := ledger.Amount{}
	for range strangers {
		registrations = plus(registrations, ledger.Units(x.params.DepositAccount))
	}
	most := tx.Deposits(*x.params, strangers)
	if s := tx.Sponsor; s != nil && registrations.Cmp(s.MaxDeposit) < 0 { // which the ledger wants it to have
		registrations, most = s.MaxDeposit, s.MaxDeposit
	}
	pays := draw{key: purseKey{account: tx.Payer()}, need: need{payer: true, least: registrations, most: most}}
	if grant, ok := tx.FeeGrant(); ok {
		budget := pays
		budget.key = purseKey{grant: grant}
		var err error
		if budget.funds, budget.until, budget.to, err = x.budget(grant); err != nil {
			return err
		}
		c.draws = append(c.draws, budget)
		c.depends = append(c.depends, grant.Granter)
	}
	places := map[crypto.Address]int{pays.key.account: len(c.draws)}
	c.draws = append(c.draws, pays)
	for _, o := range tx.Outflows(x.params.FeeAsset) {
		amount := o.Amount
		if o.Grant != (ledger.GrantKey{}) {
			// Nobody reserves another's money beyond what it was granted, or for whom the grant does not pay.
			budget, until, to, err := x.budget(o.Grant)
			if err != nil {
				return err
			}
			c.draws = append(c.draws, draw{key: purseKey{grant: o.Grant}, need: need{most: amount}, funds: budget, until: until, to: to})
			if amount = amount.Min(budget); forbidden(body, o.Grant, to) {
				amount = ledger.Amount{}
			}
		}
		at, known := places[o.Account]
		if !known {
			at = len(c.draws)
			places[o.Account] = at
			c.draws = append(c.draws, draw{key: purseKey{account: o.Account}})
		}
		c.draws[at].most = plus(c.draws[at].most, amount)
	}
	for i := range c.draws {
		d := &c.draws[i]
		if d.key.isGrant() {
			continue
		}
		var line ledger.Line
		k := ledger.LineKey{Account: d.key.account, Asset: x.params.FeeAsset}
		if err := readRow(x.state, ledger.LineRow(k), &line, ledger.DecodeLine); err != nil {
			return err
		}
		d.funds = line.Spendable(x.asset, k)
	}
	return nil
}

// forbidden tells whether one of the operations under a grant that pays one account only would pay another one.
func forbidden(body *ledger.Body, k ledger.GrantKey, to crypto.Address) bool {
	if to == (crypto.Address{}) {
		return false
	}
	for _, op := range body.Operations {
		switch op := op.(type) {
		case *ledger.Transfer:
			if k == (ledger.GrantKey{Granter: op.Granter, Grantee: body.Signers[op.From].Address, Kind: ledger.KindTransfer, Asset: op.Asset}) && op.To != to {
				return true
			}
		case *ledger.CreateHold:
			if k == (ledger.GrantKey{Granter: op.Granter, Grantee: body.Signers[op.Signer].Address, Kind: ledger.KindCreateHold, Asset: op.Asset}) && op.To != to {
				return true
			}
		}
	}
	return false
}

// budget returns what a grant allows by the state, when it ends and whom alone it pays; zero when there is none.
func (x *examination) budget(k ledger.GrantKey) (left ledger.Amount, until uint64, to crypto.Address, err error) {
	var grant ledger.Grant
	var granter ledger.Account
	if err = readRow(x.state, ledger.GrantRow(k), &grant, ledger.DecodeGrant); err != nil {
		return left, 0, to, err
	}
	if err = readRow(x.state, ledger.AccountRow(k.Granter), &granter, ledger.DecodeAccount); err != nil {
		return left, 0, to, err
	}
	if grant.Epoch == granter.Epoch {
		left = grant.Remaining(x.last.UnixMillis / 1000)
	}
	return left, grant.Until, grant.To, nil
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
