// Package load makes payments against a network and writes down what the client was told about each of them, for package
// audit to compare with the chain.
//
// It is an open loop: payments are due at fixed times whether or not earlier ones are settled, as customers do not wait
// for each other; so an outage shows as payments that wait, not as payments that were never made. Besides good payments
// it makes bad ones: that must fail, that must be refused, of which only one of two may take effect.
package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// Kinds of payments: what the load means by them.
const (
	Single   = "single"   // one transfer
	Multi    = "multi"    // several transfers in one transaction
	Poor     = "poor"     // more than the payer has: stands in a block, fails
	Partly   = "partly"   // several transfers, the last of which is too much: none may take effect
	Forged   = "forged"   // a signature with a flipped bit: refused
	Reused   = "reused"   // another payment under the nonce of a settled one: refused
	Conflict = "conflict" // two payments under one nonce, sent at the same time: at most one takes effect
	Again    = "again"    // sent several times to different nodes
)

// mix is how often each kind is made, in per cent.
var mix = []struct {
	kind  string
	share int
}{{Single, 60}, {Multi, 12}, {Poor, 6}, {Partly, 4}, {Forged, 4}, {Reused, 4}, {Conflict, 4}, {Again, 6}}

// MayRefuse tells whether nodes may refuse a payment of this kind.
func MayRefuse(kind string) bool { return kind == Forged || kind == Reused || kind == Conflict }

// Options describe a load.
type Options struct {
	Nodes  []string       // URLs
	Client *client.Client // of the same network
	Payers []*Payer       // funded, and used by nobody else
	// Receivers is the number of accounts without keys that are paid besides the payers; 0: 20.
	Receivers int
	Seed      uint64
	Rate      float64         // payments a second, above 0
	Stories   float64         // sequences of other operations that begin each second; 0: none
	Operators []client.Signer // of the validators, two at least, who vote; none: nobody does
	Expected  time.Duration   // before Stop is called; what takes longer is left out of stories
	Count     int             // at most so many; 0: no bound but MaxPayments
	Duration  time.Duration   // 0: until the context ends, or Stop
	// Settle is how long the last payments are waited for at the end; 0: 30 s. What is not settled then is unknown.
	Settle time.Duration
	Logger *slog.Logger // nil: none
}

const (
	// MaxPayments bounds a load: each is remembered with its bytes, 0.4 kB on average and 6 kB at most.
	MaxPayments = 1_000_000
	// maxInFlight bounds the payments that are not settled: ten minutes of an outage at 10 a second. Beyond it payments
	// that are due are skipped and counted.
	maxInFlight = 6_000
	// validFor is how long payments by nonce are valid: longer than any outage that a network is put through here.
	validFor = 5 * time.Minute
	// patience is how long a payment is tried to be handed to any node at all.
	patience = 8 * time.Second
	// resendFirst and resendMost bound the pause before a payment that is not settled is handed to another node: the
	// first may have been killed with its mempool.
	resendFirst, resendMost = 2 * time.Second, 8 * time.Second
	// maxStories bounds the stories under way: each is a goroutine with one transaction at a time.
	maxStories = 400
	// maxResends bounds the payments that are handed in again at the same time.
	maxResends = 16
)

// Progress is how far a load is.
type Progress struct {
	Made    int // payments, also those that could not be sent
	Skipped int // due, but too many were in flight
	Ended   map[audit.Ending]int
	Height  uint64         // newest block whose results are certain
	Stories int            // sequences of other operations that are over
	Told    int            // of them, to their end
	Kinds   map[string]int // operations that took effect, anybody's, by kind
}

// Load is a running load.
type Load struct {
	o        Options
	log      *slog.Logger
	params   ledger.Parameters
	rate     ledger.FeeRate
	network  ledger.Network
	follow   follower
	receiver []crypto.Address
	base     time.Time
	stop     chan struct{}
	stopOnce sync.Once

	mu       sync.Mutex
	random   *rand.Rand
	all      []*payment
	pending  map[crypto.Hash]*payment
	byKey    map[replayKey][]*payment // pending ones
	used     map[replayKey]crypto.Hash
	settled  []*payment // final ones by nonce, whose nonces can be used again; the newest few
	telling  int        // stories under way
	progress Progress
}

// replayKey is what no two payments may have in common.
type replayKey struct {
	sender   crypto.Address
	sequence uint64
	until    uint64
	nonce    [ledger.NonceBytes]byte
}

// payment is one payment under way. Its fields are guarded by Load.mu, but for those that never change.
type payment struct {
	claim audit.Claim
	payer *Payer // nil: of a story
	key   replayKey
	until uint64
	done  chan struct{} // closed at its end; nil: nobody waits

	receipt  []byte // of a final one
	handed   bool   // a node has it, or may have it
	ended    bool
	resendAt time.Time
	pause    time.Duration
	refused  string // why no node took it when it was handed in again the last time; empty: one did
}

// New prepares a load. The network must answer.
func New(ctx context.Context, o Options) (*Load, error) {
	if o.Rate <= 0 || len(o.Payers) < 2 || o.Client == nil || len(o.Nodes) == 0 {
		return nil, errors.New("a load needs nodes, a client, a rate above 0 and two payers")
	}
	if o.Count == 0 || o.Count > MaxPayments {
		o.Count = MaxPayments
	}
	if o.Receivers == 0 {
		o.Receivers = 20
	}
	if o.Settle == 0 {
		o.Settle = 30 * time.Second
	}
	l := &Load{o: o, log: o.Logger, network: o.Client.NetworkID(), base: time.Now(), stop: make(chan struct{}),
		random:  rand.New(rand.NewChaCha8(wide(o.Seed, "load"))),
		pending: map[crypto.Hash]*payment{}, byKey: map[replayKey][]*payment{}, used: map[replayKey]crypto.Hash{},
		progress: Progress{Ended: map[audit.Ending]int{}, Kinds: map[string]int{}}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for range o.Receivers {
		var a crypto.Address
		for i := range a {
			a[i] = byte(l.random.Uint32())
		}
		l.receiver = append(l.receiver, a)
	}
	parameters, err := o.Client.Parameters(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the parameters: %w", err)
	}
	l.params = parameters.Value
	rate, err := o.Client.FeeRate(ctx, parameters.Height)
	if err != nil {
		return nil, fmt.Errorf("reading the fee rate: %w", err)
	}
	l.rate = rate.Value
	l.follow.client = o.Client
	for _, url := range o.Nodes {
		n, err := audit.Open(url)
		if err != nil {
			return nil, err
		}
		l.follow.nodes = append(l.follow.nodes, n)
	}
	if err := l.follow.begin(ctx); err != nil {
		return nil, fmt.Errorf("finding the chain's end: %w", err)
	}
	return l, nil
}

// now is the time of the record: microseconds that never go back.
func (l *Load) now() int64 { return l.base.UnixMicro() + time.Since(l.base).Microseconds() }

// Progress returns how far the load is.
func (l *Load) Progress() Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.progress
	p.Ended, p.Kinds = maps.Clone(p.Ended), maps.Clone(p.Kinds)
	return p
}

// Stop ends the making of payments; Run then settles and returns.
func (l *Load) Stop() { l.stopOnce.Do(func() { close(l.stop) }) }

// Run makes payments until it has made enough, time is over, or Stop is called; waits for those that are not settled; and
// returns the record. When the context ends first, the record is complete too, with more unknown.
func (l *Load) Run(ctx context.Context) []audit.Claim {
	background, end := context.WithCancel(ctx)
	var helpers, payments sync.WaitGroup
	helpers.Go(func() { l.watch(background) })
	helpers.Go(func() { l.nurse(background) })

	var over <-chan time.Time
	if l.o.Duration > 0 {
		timer := time.NewTimer(l.o.Duration)
		defer timer.Stop()
		over = timer.C
	}
	if l.o.Stories > 0 {
		helpers.Go(func() { l.narrate(background) })
	}
	if len(l.o.Operators) > 1 {
		helpers.Go(func() { l.vote(background) })
	}
	interval := time.Duration(float64(time.Second) / l.o.Rate)
	due := time.Now()
making:
	for made := 0; made < l.o.Count; made++ {
		due = due.Add(interval)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			break making
		case <-l.stop:
			break making
		case <-over:
			break making
		}
		l.make(background, &payments)
	}
	settle := time.Now().Add(l.o.Settle)
	for time.Now().Before(settle) && ctx.Err() == nil {
		l.mu.Lock()
		open := len(l.pending) + l.telling
		l.mu.Unlock()
		if open == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	end()
	payments.Wait()
	helpers.Wait()

	l.mu.Lock()
	defer l.mu.Unlock()
	claims := make([]audit.Claim, len(l.all))
	for i, p := range l.all {
		if !p.ended {
			p.claim.Text = p.open()
			l.end(p, audit.Unknown, 0)
		}
		claims[i] = p.claim
	}
	return claims
}

// open says why a payment has no end.
func (p *payment) open() string {
	switch {
	case p.claim.Text != "": // when it was handed in the first time
	case p.handed:
		p.claim.Text = "a node took it, and no block that was read has it"
	default:
		p.claim.Text = "no node has answered yet"
	}
	if p.refused != "" {
		return p.claim.Text + "; handed in again: " + p.refused
	}
	return p.claim.Text
}

// end settles a payment, once. It wants l.mu.
func (l *Load) end(p *payment, ending audit.Ending, code uint32) {
	if p.ended {
		return
	}
	p.ended = true
	p.claim.Ending, p.claim.Code = ending, code
	if ending != audit.Unknown {
		p.claim.Acked = l.now()
	}
	l.progress.Ended[ending]++
	if p.done != nil {
		close(p.done)
	}
	delete(l.pending, p.claim.ID)
	same := slices.DeleteFunc(l.byKey[p.key], func(q *payment) bool { return q == p })
	if len(same) == 0 {
		delete(l.byKey, p.key)
	} else {
		l.byKey[p.key] = same
	}
	if p.key.sequence != 0 {
		p.payer.inFlight--
		if ending == audit.Unsent || ending == audit.Refused {
			p.payer.holes = append(p.payer.holes, p.key.sequence)
		}
	}
}

// narrate begins stories at a fixed rate until Stop, and waits for those under way.
func (l *Load) narrate(ctx context.Context) {
	var telling sync.WaitGroup
	defer telling.Wait()
	tick := time.NewTicker(time.Duration(float64(time.Second) / l.o.Stories))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		full := l.telling >= maxStories
		if full {
			l.progress.Skipped++
		} else {
			l.telling++
		}
		l.mu.Unlock()
		if full {
			continue
		}
		telling.Go(func() {
			l.tell(ctx, n)
			l.mu.Lock()
			l.telling--
			l.mu.Unlock()
		})
	}
}

// make builds the payments of one turn and sends them.
func (l *Load) make(ctx context.Context, payments *sync.WaitGroup) {
	l.mu.Lock()
	if len(l.pending) >= maxInFlight {
		l.progress.Skipped++
		l.mu.Unlock()
		return
	}
	kind, n := Single, l.random.IntN(100)
	for _, m := range mix {
		if n -= m.share; n < 0 {
			kind = m.kind
			break
		}
	}
	plans := l.plan(kind)
	l.mu.Unlock()
	for _, p := range plans {
		payments.Go(func() { l.pay(ctx, p) })
	}
}

// plan is a payment that is not signed yet.
type plan struct {
	kind       string
	payer      *Payer
	key        replayKey
	policy     bool // to be carried
	operations []ledger.Operation
	extra      int // times that it is handed in again
	flip       int // a bit of the signature to flip
}

// plan decides on the payments of one turn. It wants l.mu: everything random is drawn here, in order.
func (l *Load) plan(kind string) []plan {
	payer := l.o.Payers[l.random.IntN(len(l.o.Payers))]
	sequenced := payer.sequenced && kind != Forged && kind != Reused && kind != Conflict &&
		(payer.inFlight < maxSequenced || len(payer.holes) > 0)
	p := plan{kind: kind, payer: payer, policy: payer.carries(), flip: l.random.IntN(512)}
	transfer := func(amount ledger.Amount) ledger.Operation {
		to := l.receiver[l.random.IntN(len(l.receiver))]
		if other := l.o.Payers[l.random.IntN(len(l.o.Payers))]; other != payer && l.random.IntN(2) == 0 {
			to = other.Address
		}
		return &ledger.Transfer{To: to, Asset: l.params.FeeAsset, Amount: amount, Memo: kind}
	}
	small := func() ledger.Amount { return ledger.Units(1 + l.random.Uint64N(1000)) }
	// More than anybody has: no balance reaches 2^64 base units here.
	tooMuch, _ := ledger.Units(1<<64 - 1).Add(small())
	switch kind {
	case Multi, Partly:
		for range 2 + l.random.IntN(8) {
			p.operations = append(p.operations, transfer(small()))
		}
		if kind == Partly {
			p.operations = append(p.operations, transfer(tooMuch))
		}
	case Poor:
		p.operations = []ledger.Operation{transfer(tooMuch)}
	default:
		p.operations = []ledger.Operation{transfer(small())}
	}
	if kind == Again {
		p.extra = 1 + l.random.IntN(3)
	}
	p.key = replayKey{sender: payer.Address}
	switch {
	case sequenced && len(payer.holes) > 0:
		p.key.sequence = slices.Min(payer.holes)
		payer.holes = slices.DeleteFunc(payer.holes, func(s uint64) bool { return s == p.key.sequence })
		payer.inFlight++
	case sequenced:
		p.key.sequence = payer.next
		payer.next++
		payer.inFlight++
	default:
		p.key.until = uint64(time.Now().Add(validFor).Unix())
		for i := range p.key.nonce {
			p.key.nonce[i] = byte(l.random.Uint32())
		}
	}
	if kind == Reused {
		live := slices.DeleteFunc(l.settled, func(q *payment) bool { return q.until < uint64(time.Now().Unix())+60 })
		l.settled = live
		if len(live) == 0 {
			p.kind = Single
			return []plan{p}
		}
		old := live[l.random.IntN(len(live))]
		p.payer, p.key, p.policy = old.payer, old.key, old.payer.carries()
		if p.operations[0].(*ledger.Transfer).To == p.payer.Address { // the payer has changed
			p.operations[0].(*ledger.Transfer).To = l.receiver[0]
		}
		p.operations[0].(*ledger.Transfer).Code = 1 // so that it is another payment for certain
	}
	if kind == Conflict {
		q := p
		q.operations = []ledger.Operation{transfer(small())}
		q.operations[0].(*ledger.Transfer).Code = 2
		return []plan{p, q}
	}
	return []plan{p}
}

// sign builds and signs a planned payment.
func (l *Load) sign(p plan) ([]byte, error) {
	policy := p.payer.keys.Policy()
	signer := ledger.Signer{Address: p.payer.Address, Sequence: p.key.sequence, Nonce: p.key.nonce}
	if p.policy {
		signer.Policy = policy.Encode()
	}
	accounts := []client.SigningAccount{{Policy: policy}}
	planned := ledger.Body{Signers: []ledger.Signer{signer}, ValidUntil: p.key.until, Operations: p.operations}
	planned.MaxDeposit = client.DepositCeiling(l.params, planned)
	body, err := client.WithFee(l.params, l.rate, planned, accounts)
	if err != nil {
		return nil, err
	}
	draft, err := client.NewDraft(l.network, body, accounts)
	if err != nil {
		return nil, err
	}
	if _, err := draft.Sign(p.payer.keys); err != nil {
		return nil, err
	}
	witnesses := draft.Witnesses()
	if p.kind == Forged {
		witnesses = slices.Clone(witnesses)
		last := &witnesses[len(witnesses)-1]
		last.Signature = slices.Clone(last.Signature)
		bit := p.flip % (8 * len(last.Signature))
		last.Signature[bit/8] ^= 1 << (bit % 8)
	}
	return ledger.Assemble(body, witnesses, nil), nil
}

// pay makes one payment and hands it in. What becomes of it is seen by watch.
func (l *Load) pay(ctx context.Context, plan plan) {
	raw, err := l.sign(plan)
	if err != nil {
		panic(fmt.Sprintf("building a payment of kind %s by %s: %s", plan.kind, plan.payer.Name, err)) // a defect of this package
	}
	tx, err := ledger.Decode(raw)
	if err != nil {
		panic(fmt.Sprintf("a payment of kind %s by %s does not decode: %s", plan.kind, plan.payer.Name, err))
	}
	p := &payment{payer: plan.payer, key: plan.key, until: plan.key.until, pause: resendFirst,
		claim: audit.Claim{ID: tx.ID(l.network.ID), Raw: raw, Kind: plan.kind}}
	l.enter(p)
	ended := l.handed(p, l.handIn(ctx, p))
	for range plan.extra {
		if ended || ctx.Err() != nil {
			return
		}
		l.again(ctx, p)
		select {
		case <-time.After(time.Duration(50+100*plan.extra) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// enter writes a payment into the record, before any node hears of it.
func (l *Load) enter(p *payment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.claim.Sent = l.now()
	l.all = append(l.all, p)
	l.progress.Made++
	l.pending[p.claim.ID] = p
	l.byKey[p.key] = append(l.byKey[p.key], p)
}

// handIn hands a payment to nodes until one takes it.
func (l *Load) handIn(ctx context.Context, p *payment) error {
	submitting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := l.o.Client.Submit(submitting, p.claim.Raw)
	return err
}

// handed notes what came of handing a payment in, and tells whether it has ended without a block.
func (l *Load) handed(p *payment, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	refusal, refused := errors.AsType[*client.Refusal](err)
	_, unknown := errors.AsType[*client.Unknown](err)
	switch {
	case refused:
		if p.ended && p.claim.Ending == audit.Final {
			// Every node refused what stands in a block. Let the audit say so.
			p.claim.Ending = audit.Refused
			p.claim.Text = "seen in a block, and refused by every node: " + err.Error()
			break
		}
		p.claim.Text = err.Error()
		l.end(p, audit.Refused, uint32(refusal.Code))
	case unknown:
		p.claim.Text = err.Error()
		fallthrough
	case err == nil:
		p.handed = true
		p.resendAt = time.Now().Add(p.pause)
		// Somebody else's payment under this nonce may be settled already; then no block will have this one.
		if by, taken := l.used[p.key]; taken && by != p.claim.ID {
			l.end(p, audit.Dead, 0)
		}
	default:
		p.claim.Text = err.Error()
		l.end(p, audit.Unsent, 0)
	}
	return p.ended && p.claim.Ending != audit.Final
}

// again hands a payment in again, to the next node.
func (l *Load) again(ctx context.Context, p *payment) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := l.o.Client.Submit(ctx, p.claim.Raw)
	l.mu.Lock()
	if p.refused = ""; err != nil {
		p.refused = err.Error()
	}
	l.mu.Unlock()
	if err != nil {
		l.log.Debug("hand payment in again", "id", p.claim.ID.String(), "error", err)
		return
	}
	if s.Height != 0 {
		l.mu.Lock()
		p.claim.Again = append(p.claim.Again, s.Height)
		l.mu.Unlock()
	}
}

// nurse hands payments that are not settled to other nodes from time to time.
func (l *Load) nurse(ctx context.Context) {
	slots := make(chan struct{}, maxResends)
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var due []*payment
		l.mu.Lock()
		now := time.Now()
		for _, p := range l.pending {
			if p.handed && now.After(p.resendAt) {
				due = append(due, p)
			}
		}
		// The oldest first, and for an account the smallest sequence, on which the others wait.
		slices.SortFunc(due, func(a, b *payment) int { return int(a.claim.Sent - b.claim.Sent) })
		due = due[:min(len(due), maxResends)]
		for _, p := range due {
			p.pause = min(2*p.pause, resendMost)
			p.resendAt = now.Add(p.pause)
		}
		l.mu.Unlock()
		for _, p := range due {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer func() { <-slots }()
				l.again(ctx, p)
			})
		}
	}
}

// watch follows the chain and settles payments.
func (l *Load) watch(ctx context.Context) {
	for {
		blocks, err := l.follow.step(ctx)
		if err != nil && ctx.Err() == nil {
			l.log.Debug("follow the chain", "error", err)
		}
		if len(blocks) > 0 {
			l.see(blocks)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(followEvery):
		}
	}
}

// see settles what new blocks decide.
func (l *Load) see(blocks []*audit.Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range blocks {
		l.progress.Height = b.Height
		for i, raw := range b.Txs {
			tx, err := ledger.Decode(raw)
			if err != nil {
				continue // the audit reports it
			}
			id := tx.ID(l.network.ID)
			if b.Results[i].Code == 0 {
				for _, o := range tx.Body.Operations {
					l.progress.Kinds[o.Kind().String()]++
				}
			}
			for _, s := range tx.Body.Signers {
				key := replayKey{s.Address, s.Sequence, tx.Body.ValidUntil, s.Nonce}
				l.used[key] = id
				for _, loser := range slices.Clone(l.byKey[key]) {
					if loser.claim.ID != id && loser.handed {
						l.end(loser, audit.Dead, 0)
					}
				}
			}
			if p := l.pending[id]; p != nil {
				p.claim.Height, p.claim.Index = b.Height, uint64(i)
				if p.payer != nil && p.payer.registered.IsZero() {
					p.payer.registered = time.Now()
				}
				p.receipt = b.Results[i].Data
				l.end(p, audit.Final, b.Results[i].Code)
				if p.key.sequence == 0 && p.payer != nil {
					if l.settled = append(l.settled, p); len(l.settled) > 200 {
						l.settled = l.settled[1:]
					}
				}
			}
		}
		for _, p := range l.pending {
			if p.handed && p.until != 0 && int64(p.until)*1000 <= b.Time.UnixMilli() {
				l.end(p, audit.Dead, 0)
			}
		}
	}
}
