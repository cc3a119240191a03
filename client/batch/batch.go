// Package batch pays the rows of a file, each exactly once, however often it is killed and run again.
//
// A payment is known by the payer's own id. The [Journal] says of each id in which transactions it was about to be paid, and
// how they ended. One rule makes it exactly once: a row goes into a new transaction only when every earlier one that has it
// is proven to have had no effect, because it failed in a block or is dead ([client.Client.Settle]); until then the same
// bytes are sent again. The new one is in the journal, synced, before the first byte of it is sent.
//
// A transaction pays many rows, and takes effect as a whole or not at all. So that one bad row does not hold up the others, a
// failed transaction is split at the operation that its receipt blames: that row is tried once more alone, those before it go
// together again, those behind it in transactions half as large. With k bad rows among n this costs at most about log n
// times the fees of n rows, and usually k times half a transaction's.
//
// A bug here pays one user's payments twice or not at all.
package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// DefaultPerTransaction keeps what a failed transaction costs, and has to wait for the next, small; larger ones save
	// little, since most of a fee is for bytes and operations.
	DefaultPerTransaction = 100
	// DefaultInFlight is enough to fill some blocks of a slow network from one account.
	DefaultInFlight = 4
	MaxInFlight     = 64
	// DefaultTimeout is longer than a transaction can live, so that each is usually decided: in a block, or dead.
	DefaultTimeout = 10 * time.Minute
	// maxDead is how often in one run a row is tried again after a transaction that died.
	maxDead = 3
	// progressEvery keeps counting the rows cheap beside paying them.
	progressEvery = 100 * time.Millisecond
)

// Transaction is one that is ready to be sent.
type Transaction struct {
	ID     crypto.Hash
	Raw    []byte
	Before client.Mark // in the payer's journal: see [client.Client.Settle]
}

// Funds is what the account can pay of an asset.
type Funds struct {
	Code   string
	Scale  uint32
	Amount ledger.Amount
	Height uint64 // of the proven state
}

// Chain is where transactions go: [Ledger], and in tests one that loses, delays and forgets them. Build and Send are
// called from several goroutines.
type Chain interface {
	// Build makes a signed transaction of transfers by the account, protected by a nonce of its own. The error wraps
	// client.ErrTooLarge when it would have too many bytes.
	Build(ctx context.Context, transfers []ledger.Transfer) (Transaction, error)
	// Send is [client.Client.Send].
	Send(ctx context.Context, tx Transaction) (client.Final, error)
	// Cost returns what transactions of these transfers cost in all, fees and deposits, beside the transfers themselves, and
	// in which asset: at most, as if no receiver had a line, or exactly, which asks for every receiver's.
	Cost(ctx context.Context, groups [][]ledger.Transfer, exact bool) (ledger.AssetID, ledger.Amount, error)
	// Available returns what the account can pay.
	Available(ctx context.Context, asset ledger.AssetID) (Funds, error)
}

// Status is what became of a row.
type Status string

const (
	Paid    Status = "paid"    // in a block, proven
	Failed  Status = "failed"  // in a block without effect, proven
	Unknown Status = "unknown" // may have been paid, or may yet be, also when nodes say that they refused it: run again
	Unsent  Status = "unsent"  // nothing of it was sent: run again
)

// Options say what to pay and how.
type Options struct {
	Rows    []Row // with different ids
	Journal *Journal
	Chain   Chain

	PerTransaction int           // at most; 0: DefaultPerTransaction
	InFlight       int           // transactions at a time; 0: DefaultInFlight
	Timeout        time.Duration // for the end of each; 0: DefaultTimeout

	// Before is called once, when all checks are done and something is about to be sent. An error ends the run.
	Before func() error
	// Progress is called now and then, and when nothing is under way any more.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct{ Rows, Paid, Failed, InFlight int }

// Result is what became of a row.
type Result struct {
	Row
	Status    Status
	Tx        crypto.Hash // the transaction that decided, or is to decide; zero: none
	Operation int         // in it
	Height    uint64      // of its block; 0: not in one
	Code      ledger.Code // of a row that failed; of an unknown one, the one that nodes refused it with, if they did
	// Fee is the row's share in the fees of all transactions that were made for it, in base units of the fee asset.
	// The shares of all rows add up to what was paid.
	Fee ledger.Amount
}

// Report is the outcome of a run.
type Report struct {
	Results []Result // in the order of the rows
	Counts  map[Status]int
	Fees    ledger.Amount // the sum of the results'
	// Transactions is how many there are in blocks, in all runs.
	Transactions int
	// Sent is how many this run handed to the nodes.
	Sent int
	// Stopped says why the run ended before all that could be done was done; nil: it did not.
	Stopped error
}

// Shortage says that the account cannot pay the rows.
type Shortage struct{ Missing []string }

func (s *Shortage) Error() string { return strings.Join(s.Missing, "; ") + "; nothing was sent" }

// run is one run over a file. The loop in drive owns all of it; other goroutines only talk to the chain.
type run struct {
	Options
	rows    []*row
	at      map[string]int // index of a row by its id
	queue   []int          // rows to be paid, ascending
	resume  []*attempt     // to be sent again first
	largest int            // transfers in a transaction: PerTransaction, and less when they do not fit
	sent    int
	stopped error
	shown   time.Time // when progress was last called
}

// row is what a run knows of a row. What was done about it is in the journal.
type row struct {
	done    bool        // it failed alone in this run, or died too often
	died    int         // transactions in this run
	refused ledger.Code // the nodes' word about its open transaction; 0: none
}

// job is a transaction on its way through a goroutine: it is built, and comes back; then it is sent, and comes back.
type job struct {
	rows    []int
	attempt *attempt // nil until it is in the journal
	resumed bool
	tx      Transaction
	final   client.Final
	err     error
}

// Run pays what is not paid yet. Earlier transactions that may still take effect are sent again and waited for; then
// the sum of what is left, with the fees, is compared with what the account can pay; then the rest is sent.
//
// Errors, with which nothing new was sent: [Problems], *[Shortage], and whatever kept it from finding out. After that all
// there is to say is in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.PerTransaction == 0 {
		o.PerTransaction = DefaultPerTransaction
	}
	if o.InFlight == 0 {
		o.InFlight = DefaultInFlight
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.PerTransaction < 1 || o.PerTransaction > ledger.MaxOperations || o.InFlight < 1 || o.InFlight > MaxInFlight || o.Timeout < 0 {
		return Report{}, fmt.Errorf("%d rows per transaction, %d in flight, timeout %s: want 1 to %d, 1 to %d, above 0", o.PerTransaction, o.InFlight,
			o.Timeout, ledger.MaxOperations, MaxInFlight)
	}
	r := &run{Options: o, at: map[string]int{}, largest: o.PerTransaction}
	for i, row := range o.Rows {
		r.at[row.ID] = i
	}
	if len(r.at) != len(o.Rows) {
		return Report{}, errors.New("an id stands twice")
	}
	problems, err := o.Journal.Check(o.Rows)
	if err != nil {
		return Report{}, err
	}
	if problems != nil {
		return Report{}, problems
	}
	for _, row := range o.Rows {
		if err := o.Journal.adopt(row); err != nil {
			return Report{}, err
		}
	}
	r.resume = o.Journal.open(r.at)
	if len(r.resume) > 0 {
		if err := r.before(); err != nil {
			return Report{}, err
		}
	}
	for range o.Rows {
		r.rows = append(r.rows, &row{})
	}
	r.drive(ctx)
	for i := range r.rows {
		if r.free(i) {
			r.queue = append(r.queue, i)
		}
	}
	if r.stopped == nil && len(r.queue) > 0 {
		if err := r.afford(ctx); err != nil {
			if r.sent == 0 {
				return Report{}, err
			}
			r.stop(err) // what was sent again has an end that is worth showing
		} else if err := r.before(); err != nil {
			return Report{}, err
		}
		r.drive(ctx)
	}
	return r.report(), nil
}

func (r *run) before() error {
	if before := r.Before; before != nil {
		r.Before = nil
		return before()
	}
	return nil
}

// latest returns what the journal has of a row, and the latest attempt; nil when there is none.
func (r *run) latest(i int) (p *payment, a *attempt) {
	if p = r.Journal.payments[r.Rows[i].ID]; p != nil {
		a = p.attempts[len(p.attempts)-1]
	}
	return p, a
}

// free tells whether a row may go into a new transaction: the latest one had no effect, hence none had.
func (r *run) free(i int) bool {
	_, a := r.latest(i)
	return !r.rows[i].done && (a == nil || a.end != nil && a.end.Outcome != committed)
}

// limit returns how large the next transaction with a row may be, by how the earlier ones with it ended.
func (r *run) limit(i int) int {
	limit := r.largest
	p, _ := r.latest(i)
	if p == nil {
		return limit
	}
	for _, a := range p.attempts {
		if a.end == nil || a.end.Outcome != failed {
			continue
		}
		blamed, at := int(a.end.Failed)-1, slices.Index(a.ids, r.Rows[i].ID)
		switch {
		case at == blamed:
			limit = 1
		case at > blamed:
			limit = min(limit, max(1, len(a.ids)/2))
		}
	}
	return limit
}

// groups cuts rows into transactions.
func (r *run) groups(queue []int) (groups [][]int) {
	for len(queue) > 0 {
		n, limit := 0, r.largest
		for n < len(queue) {
			if limit = min(limit, r.limit(queue[n])); n >= limit {
				break
			}
			n++
		}
		groups, queue = append(groups, queue[:n]), queue[n:]
	}
	return groups
}

func (r *run) transfers(rows []int) (list []ledger.Transfer) {
	for _, i := range rows {
		list = append(list, r.Rows[i].Transfer)
	}
	return list
}

// afford compares what is to be sent with what the account can pay.
func (r *run) afford(ctx context.Context) error {
	err := r.compare(ctx, false)
	if _, short := errors.AsType[*Shortage](err); short {
		err = r.compare(ctx, true)
	}
	return err
}

func (r *run) compare(ctx context.Context, exact bool) error {
	var groups [][]ledger.Transfer
	needed := map[ledger.AssetID]ledger.Amount{}
	fits := map[ledger.AssetID]bool{}
	var order []ledger.AssetID
	add := func(id ledger.AssetID, a ledger.Amount) {
		if _, ok := needed[id]; !ok {
			order, fits[id] = append(order, id), true
		}
		sum, ok := needed[id].Add(a)
		needed[id], fits[id] = sum, fits[id] && ok
	}
	for _, i := range r.queue {
		add(r.Rows[i].Transfer.Asset, r.Rows[i].Transfer.Amount)
	}
	var feeAsset ledger.AssetID
	var cost ledger.Amount
	for {
		groups = groups[:0]
		for _, g := range r.groups(r.queue) {
			groups = append(groups, r.transfers(g))
		}
		var err error
		if feeAsset, cost, err = r.Chain.Cost(ctx, groups, exact); err == nil {
			break
		}
		if !errors.Is(err, client.ErrTooLarge) || r.largest == 1 {
			return err
		}
		r.largest /= 2
	}
	add(feeAsset, cost)
	var short Shortage
	for _, id := range order {
		f, err := r.Chain.Available(ctx, id)
		if err != nil {
			return err
		}
		if fits[id] && needed[id].Cmp(f.Amount) <= 0 {
			continue
		}
		text := fmt.Sprintf("the rows need %s %s", needed[id].Format(f.Scale), f.Code)
		if !fits[id] {
			text = "the rows need more " + f.Code + " than there can be"
		}
		if id == feeAsset && fits[id] {
			text += fmt.Sprintf(", %s of it for fees and deposits", cost.Format(f.Scale))
		}
		short.Missing = append(short.Missing, fmt.Sprintf("%s, and the account has %s available at height %d", text, f.Amount.Format(f.Scale), f.Height))
	}
	if short.Missing != nil {
		return &short
	}
	return nil
}

// drive sends everything that is to be sent, at most InFlight at a time, and returns when nothing is under way any more.
func (r *run) drive(ctx context.Context) {
	events := make(chan job, r.InFlight) // never blocks, so that a goroutine always ends
	flying := 0
	start := func(j job, do func(j *job)) {
		flying++
		go func() { do(&j); events <- j }()
	}
	build := func(j *job) { j.tx, j.err = r.Chain.Build(ctx, r.transfers(j.rows)) }
	send := func(j *job) {
		limited, cancel := context.WithTimeout(ctx, r.Timeout)
		defer cancel()
		j.final, j.err = r.Chain.Send(limited, j.tx)
	}
	for {
		for flying < r.InFlight && r.stop(ctx.Err()) == nil {
			if len(r.resume) > 0 {
				a := r.resume[0]
				r.resume = r.resume[1:]
				r.sent++
				start(job{attempt: a, tx: a.tx, resumed: true}, send)
			} else if rows := r.next(); rows != nil {
				start(job{rows: rows}, build)
			} else {
				break
			}
		}
		r.progress(flying)
		if flying == 0 {
			return
		}
		j := <-events
		flying--
		r.Journal.crash("an event")
		switch {
		case j.attempt != nil:
			r.settle(j)
		case r.built(&j):
			r.Journal.crash("before sending")
			r.sent++
			start(j, send)
		}
	}
}

// stop ends the run as far as nothing is started any more; the first reason counts.
func (r *run) stop(err error) error {
	if r.stopped == nil {
		r.stopped = err
	}
	return r.stopped
}

// next takes the rows of one transaction from the queue; nil when it is empty.
func (r *run) next() []int {
	if len(r.queue) == 0 {
		return nil
	}
	// No transaction is larger than this, so looking further would be for nothing.
	group := slices.Clone(r.groups(r.queue[:min(len(r.queue), r.largest)])[0])
	r.queue = r.queue[len(group):]
	return group
}

// again puts rows back where they were.
func (r *run) again(rows ...int) {
	r.queue = append(slices.Clone(r.queue), rows...)
	slices.Sort(r.queue)
}

// built takes a transaction into the journal; false when it is not to be sent.
func (r *run) built(j *job) bool {
	switch {
	case r.stopped != nil:
		return false
	case errors.Is(j.err, client.ErrTooLarge) && len(j.rows) > 1:
		r.largest = min(r.largest, len(j.rows)/2)
		r.again(j.rows...)
		return false
	case j.err != nil:
		r.stop(j.err)
		return false
	}
	rows := make([]Row, len(j.rows))
	for k, i := range j.rows {
		rows[k] = r.Rows[i]
	}
	taken, err := r.Journal.begin(j.tx, rows)
	if taken >= 0 {
		// Somebody began to pay this row while we were at work: that transaction decides.
		if err = r.Journal.adopt(rows[taken]); err == nil {
			r.resume = append(r.resume, r.Journal.payments[rows[taken].ID].attempts[0])
			r.again(slices.Delete(j.rows, taken, taken+1)...)
			return false
		}
	}
	j.attempt = r.Journal.attempts[j.tx.ID]
	if err != nil {
		if j.attempt != nil {
			j.attempt.unsent = true
		}
		r.stop(err)
		return false
	}
	return true
}

// settle takes the end of a transaction into the journal, and decides what is next for its rows.
func (r *run) settle(j job) {
	var own []int // rows of this file; a transaction of an earlier one may have others
	for _, id := range j.attempt.ids {
		if i, ok := r.at[id]; ok {
			own = append(own, i)
		}
	}
	e := end{Outcome: failed, Height: j.final.Height, Code: j.final.Receipt.Code, Failed: j.final.Receipt.Failed, Fee: j.final.Receipt.Fee}
	switch client.OutcomeOf(j.final, j.err) {
	case client.Committed:
		e.Outcome = committed
	case client.Failed:
	case client.Rejected:
		refusal, ok := errors.AsType[*client.Refusal](j.err)
		if ok {
			// A node's word, and only as good as the node: the rows wait until the transaction is proven to be dead. What
			// made it be refused is about the account or the fee, so the others would be, too.
			for _, i := range own {
				r.rows[i].refused = refusal.Code
			}
			if !j.resumed {
				r.stop(j.err)
			}
			return
		}
		e = end{Outcome: dead}
		for _, i := range own {
			if r.rows[i].died++; r.rows[i].died >= maxDead {
				r.rows[i].done = true
				r.stop(j.err)
			}
		}
	case client.NotSent:
		j.attempt.unsent = !j.resumed
		r.stop(j.err)
		return
	default:
		return // unknown: the next run sends the same bytes again
	}
	err := r.Journal.finish(j.attempt, e)
	if err != nil {
		r.stop(err)
	}
	// One that was adopted may have failed long ago: its row is tried again at once.
	if e.Outcome == failed && len(j.attempt.ids) == 1 && !j.attempt.adopted {
		for _, i := range own {
			r.rows[i].done = true
		}
	}
	if !j.resumed { // what resumed transactions leave is put into the queue when all of them have ended
		r.again(slices.DeleteFunc(own, func(i int) bool { return !r.free(i) })...)
	}
}

func (r *run) progress(flying int) {
	if r.Progress == nil || flying > 0 && time.Since(r.shown) < progressEvery {
		return
	}
	r.shown = time.Now()
	p := Progress{Rows: len(r.Rows), InFlight: flying}
	for i := range r.Rows {
		switch s, _ := r.status(i); s {
		case Paid:
			p.Paid++
		case Failed:
			p.Failed++
		}
	}
	r.Progress(p)
}

// status tells what is known of a row.
func (r *run) status(i int) (Status, *attempt) {
	_, a := r.latest(i)
	switch {
	case a == nil:
		return Unsent, nil
	case a.end == nil && a.unsent:
		return Unsent, nil
	case a.end == nil:
		return Unknown, a
	case a.end.Outcome == committed:
		return Paid, a
	case a.end.Outcome == failed && len(a.ids) == 1:
		return Failed, a
	}
	return Unsent, nil
}

// share returns the part of a transaction's fee that falls on its operation at an index: the parts add up to the fee.
func share(fee ledger.Amount, at, of int) ledger.Amount {
	n, ok := fee.Uint64()
	if !ok || n > 1<<53 { // 2^53 times 1,000 operations fits 64 bits
		if at == 0 {
			return fee
		}
		return ledger.Amount{}
	}
	return ledger.Units(n*uint64(at+1)/uint64(of) - n*uint64(at)/uint64(of))
}

func (r *run) report() Report {
	out := Report{Counts: map[Status]int{}, Sent: r.sent, Stopped: r.stopped}
	transactions := map[crypto.Hash]bool{}
	for i, of := range r.Rows {
		result := Result{Row: of}
		var a *attempt
		if result.Status, a = r.status(i); a != nil {
			result.Tx, result.Operation = a.tx.ID, slices.Index(a.ids, of.ID)
			if a.end != nil {
				result.Height, result.Code = a.end.Height, a.end.Code
			} else {
				result.Code = r.rows[i].refused
			}
		}
		if p, _ := r.latest(i); p != nil {
			for _, a := range p.attempts {
				if a.end == nil || a.end.Outcome == dead {
					continue
				}
				transactions[a.tx.ID] = true
				result.Fee, _ = result.Fee.Add(share(a.end.Fee, slices.Index(a.ids, of.ID), len(a.ids)))
			}
		}
		out.Fees, _ = out.Fees.Add(result.Fee)
		out.Counts[result.Status]++
		out.Results = append(out.Results, result)
	}
	out.Transactions = len(transactions)
	return out
}
