// Package statement makes account statements that need not be believed: the complete list of what changed one line, an
// account's position in one asset, between two heights, without a gap.
//
// The line keeps a hash chain over its entries, and its row is proven against headers that the validators signed
// (package client). A statement is read from one proven head to another. Where the nodes no longer keep the state that a
// period begins or ends with, the journal is read from its beginning to a head that can be proven, and cut: every entry
// carries its height under the chain, so a cut leaves nothing out either. What was done stands in the statement.
//
// Amounts are what an entry changed in the posted balance, computed from the counters before and after it. What only
// changes pending counters, as a hold does, has amount 0 and says what became pending. A bug here misleads one user.
package statement

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Bound is one end of a period. The zero value is the line's beginning, or the newest state that can be proven.
type Bound struct {
	Height uint64    // of the first block that is in, or of the last; 0: by time
	Time   time.Time // the first block of this time or later is the first; the last before it is the last
}

// ParseBound reads a height, a date as 2026-01-31 (in UTC, the whole day is in) or a time in RFC 3339.
func ParseBound(text string, last bool) (Bound, error) {
	if height, err := strconv.ParseUint(text, 10, 62); err == nil && height > 0 {
		return Bound{Height: height}, nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		if last {
			day = day.AddDate(0, 0, 1)
		}
		return Bound{Time: day}, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		if last {
			at = at.Add(1) // a block of this very time is in
		}
		return Bound{Time: at}, nil
	}
	return Bound{}, fmt.Errorf("%q: want a height from 1, a date as 2026-01-31, or a time as 2026-01-31T12:00:00Z", text)
}

// Request says which statement is wanted.
type Request struct {
	Account crypto.Address
	Asset   string // code
	First   Bound
	Last    Bound
	Memos   bool // look up the transactions for their memos
	Names   map[crypto.Address]string
	// Progress, which may be nil, is told how far a part of the work is. It is called by one goroutine at a time.
	Progress func(what string, done, total uint64)
}

// Origin says why an end of a statement can be relied on.
type Origin string

const (
	Beginning Origin = "beginning" // the journal's own, with all counters 0
	State     Origin = "state"     // the line's row of this height, proven
	Cut       Origin = "cut"       // a place in a journal that was folded to a proven head
)

// Point is the line at one end of a statement.
type Point struct {
	Height     uint64 // the state after this block
	Mark       client.Mark
	Origin     Origin
	Balance    *big.Int // posted credits less posted debits, in base units
	PendingIn  *big.Int // pending credits
	PendingOut *big.Int // pending debits
}

// Proof is the proven state that a statement rests on.
type Proof struct {
	Height  uint64      // of the state
	Mark    client.Mark // of the line in it
	Header  uint64      // height of the header whose root the line was proven under: Height + 1
	Hash    []byte      // of that header
	Missing bool        // the line has no row, which is proven as well: there is no entry
}

// Entry is one line of a statement. Amounts are in base units, and never nil.
type Entry struct {
	Number       uint64
	Height       uint64
	Time         time.Time // of its block
	Kind         string
	TxID         crypto.Hash // zero: of a block, or of genesis
	Operation    uint32      // index in the transaction
	Counterparty crypto.Address
	Name         string      // of the counterparty, where it is known here
	Amount       *big.Int    // what it changed in the balance
	Balance      *big.Int    // after it
	PendingIn    *big.Int    // what it changed in the pending credits
	PendingOut   *big.Int    // what it changed in the pending debits
	Hold         crypto.Hash // that it is about; zero: none
	Reference    string      // the caller's, in hex; "": none
	Code         uint32      // likewise
	Memo         string      // of the operation; "" when there is none or it was not looked up
}

// Statement is a proven list of entries. It is immutable, and safe for concurrent use until it is closed.
type Statement struct {
	ChainID   string
	NetworkID crypto.Hash
	Account   crypto.Address
	Name      string // of the account, where it is known here
	Asset     string // code
	AssetID   ledger.AssetID
	Scale     uint32

	// The period: blocks from First to Last, both included. When First is Last + 1 there is no block in it.
	First, Last         uint64
	FirstTime, LastTime time.Time // of these blocks

	Opening, Closing Point
	Proof            Proof
	Count            uint64 // of entries
	// Earlier tells that the account closed lines in the period before this one was opened. One of them may have been of the
	// same asset: it had a journal of its own, which is not in here, and ended with nothing on it.
	Earlier bool

	// Entries returns them in their order. An error ends them. It asks the nodes for block times and memos as it goes, so
	// what is written from it is complete only at its end.
	Entries func(ctx context.Context) iter.Seq2[Entry, error]

	widest int // digits and sign of the widest amount or balance, as decimals
	close  func() error
}

// Close gives back what a long statement keeps on the disk.
func (s *Statement) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// batch is how many entries get their times and memos together: the largest page of a journal.
const batch = 1000

// reader is what Read has at hand.
type reader struct {
	client *client.Client
	Request
}

// Read makes a statement from what the client proves. A node whose entries do not lead to the proven head is passed over;
// the error, when none is left, names what each of them did.
func Read(ctx context.Context, c *client.Client, r Request) (*Statement, error) {
	id, asset, err := c.AssetByCode(ctx, r.Asset, 0)
	if err != nil {
		return nil, err
	}
	if !asset.Present {
		return nil, fmt.Errorf("%w %s at height %d", ErrNoAsset, r.Asset, asset.Height)
	}
	network := c.NetworkID()
	s := &Statement{ChainID: network.ChainID, NetworkID: network.ID, Account: r.Account,
		Name: r.Names[r.Account], Asset: r.Asset, AssetID: id, Scale: asset.Value.Scale}
	key := ledger.LineKey{Account: r.Account, Asset: id}
	newest, err := c.Line(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	x := &reader{c, r}
	if err := x.period(ctx, s, newest.Height); err != nil {
		return nil, err
	}

	// The proven line that the journal is folded to, and the mark that it is folded from.
	end := newest
	if s.Last < newest.Height {
		if line, err := c.Line(ctx, key, s.Last); err == nil {
			end = line
		} else if !gone(err) {
			return nil, err
		}
	}
	var begin client.Proven[ledger.Line]
	s.Opening.Origin = Beginning
	if s.First > 1 {
		line, err := c.Line(ctx, key, s.First-1)
		switch {
		case err == nil:
			begin, s.Opening.Origin = line, State
		case gone(err):
			s.Opening.Origin = Cut
		default:
			return nil, err
		}
	}
	if s.Opening.Origin == State && !begin.Present {
		s.Opening.Origin = Beginning
	}
	if begin.Present && (!end.Present || end.Value.Incarnation != begin.Value.Incarnation) {
		closed, err := x.closing(ctx, s, key, end.Height)
		if err != nil {
			return nil, err
		}
		closed.there = begin.Height
		return nil, closed
	}
	if !begin.Present && !end.Present {
		// Without a row there are no entries to fold, also of a line that had some and was closed.
		closed, err := x.closing(ctx, s, key, end.Height)
		if err != nil {
			return nil, err
		}
		if closed.Height != 0 || closed.unsure {
			return nil, closed
		}
	}
	journal, err := c.Journal(ctx, key, client.MarkOf(begin.Value), end.Value, func(done, total uint64) { x.progress("entries", done, total) })
	if err != nil {
		return nil, err
	}
	s.close = journal.Close
	header, err := c.Headers().Past(ctx, []uint64{end.Height + 1})
	if err == nil {
		s.Proof = Proof{Height: end.Height, Mark: client.MarkOf(end.Value), Header: header[0].Height, Hash: header[0].Hash, Missing: !end.Present}
		err = s.measure(journal, begin.Value, end)
	}
	if err == nil {
		s.Earlier, err = x.earlier(ctx, s, end)
	}
	if err != nil {
		return nil, errors.Join(err, journal.Close())
	}
	s.Entries = func(ctx context.Context) iter.Seq2[Entry, error] { return x.entries(ctx, s, journal, begin.Value) }
	return s, nil
}

var (
	// ErrNoAsset is returned for an asset that does not exist.
	ErrNoAsset = errors.New("there is no asset")
	// ErrClosed is returned for a period in which the line was closed: its journal ended with it.
	ErrClosed = errors.New("the account's line of this asset was closed in this period")
)

// Closed is the error for a period in which the line was closed. It is an [ErrClosed].
type Closed struct {
	Height uint64 // of the block that closed it, the last one that did; 0: the nodes no longer keep what tells
	there  uint64 // a height at which there was a line; 0: none is known
	end    uint64 // height at which there is none, or another one
	unsure bool   // it is not known whether a line of this asset was closed, or only others of the account
}

func (e *Closed) Error() string {
	const ask = "; a period that ends before it was closed has a statement, and one that begins after that"
	switch {
	case e.Height != 0:
		return fmt.Sprintf("%s: block %d closed it%s", ErrClosed, e.Height, ask)
	case e.unsure && e.there == 0:
		return fmt.Sprintf("%s, or another line of the account was: there is none at height %d, and the nodes no longer keep what tells them apart%s",
			ErrClosed, e.end, ask)
	}
	return fmt.Sprintf("%s: it was there at height %d and was closed by height %d%s", ErrClosed, e.there, e.end, ask)
}

func (e *Closed) Unwrap() error { return ErrClosed }

// maxClosings is how many blocks in which the account closed lines are looked at.
const maxClosings = 64

// closing finds the last block of the period, up to end, that closed the line. The account counts the lines that it has
// closed, so the blocks that closed any are found by halving, and the row before such a block tells whether it closed this
// one. A line that was opened and closed in one block, which is in no state, is not found.
func (x *reader) closing(ctx context.Context, s *Statement, key ledger.LineKey, end uint64) (*Closed, error) {
	e := &Closed{end: end}
	closed := func(height uint64) (uint64, error) {
		if height == 0 {
			return 0, nil // genesis closes nothing
		}
		account, err := x.client.Account(ctx, x.Account, height)
		return account.Value.ClosedLines, err
	}
	after, err := closed(end)
	if err != nil || after == 0 {
		return e, err
	}
	before, err := closed(s.First - 1)
	if err != nil && !gone(err) {
		return nil, err // where it is gone, before is 0
	}
	for range maxClosings {
		if after <= before {
			return e, nil
		}
		low, high := s.First, end // the first height with this count is in low..high
		for low < high {
			middle := low + (high-low)/2
			count, err := closed(middle)
			switch {
			case err != nil && !gone(err):
				return nil, err
			case err != nil || count < after:
				low = middle + 1
			default:
				high = middle
			}
		}
		var line client.Proven[ledger.Line]
		if low > 1 {
			if line, err = x.client.Line(ctx, key, low-1); gone(err) {
				break
			} else if err != nil {
				return nil, err
			}
		}
		if line.Present {
			e.Height = low
			return e, nil
		}
		if after, err = closed(low - 1); gone(err) {
			break
		} else if err != nil {
			return nil, err
		}
		end = low - 1
	}
	e.unsure = true
	return e, nil
}

// earlier tells whether the account closed lines in the period before its line of the end was opened. A line's
// incarnation is the number of lines that its account had closed by then.
func (x *reader) earlier(ctx context.Context, s *Statement, end client.Proven[ledger.Line]) (bool, error) {
	closed := func(height uint64) (uint64, error) {
		account, err := x.client.Account(ctx, x.Account, height)
		return account.Value.ClosedLines, err
	}
	if s.Opening.Mark.Entries > 0 {
		return false, nil // this one was open when the period began
	}
	after, before := end.Value.Incarnation, uint64(0)
	if !end.Present {
		var err error
		if after, err = closed(end.Height); err != nil {
			return false, err
		}
	}
	if after > 0 && s.First > 1 {
		var err error
		if before, err = closed(s.First - 1); err != nil && !gone(err) {
			return false, err
		}
	}
	return after > before, nil
}

// gone tells whether an error says that a state, or the way to its header, is no longer there.
func gone(err error) bool {
	return errors.Is(err, client.ErrPruned) || errors.Is(err, light.ErrPruned) || errors.Is(err, light.ErrTrustExpired)
}

func (x *reader) progress(what string, done, total uint64) {
	if x.Progress != nil {
		x.Progress(what, done, total)
	}
}

// period turns the bounds into heights. newest is the newest state that can be proven.
func (x *reader) period(ctx context.Context, s *Statement, newest uint64) error {
	s.First, s.Last = 1, newest
	if b := x.Last; b.Height != 0 {
		if b.Height > newest {
			return fmt.Errorf("the period ends at height %d, and the newest state that can be proven has height %d", b.Height, newest)
		}
		s.Last = b.Height
	} else if !b.Time.IsZero() {
		after, err := x.firstBlock(ctx, b.Time, newest+1)
		if err != nil {
			return err
		}
		if after <= 1 {
			return fmt.Errorf("the period ends before %s, and the network's first block is later", b.Time.UTC().Format(time.RFC3339))
		}
		s.Last = min(after-1, newest)
	}
	if b := x.First; b.Height != 0 {
		s.First = b.Height
	} else if !b.Time.IsZero() {
		var err error
		if s.First, err = x.firstBlock(ctx, b.Time, newest+1); err != nil {
			return err
		}
		if s.First > newest {
			return fmt.Errorf("the period begins at %s, and the newest state that can be proven, of height %d, is older", b.Time.UTC().Format(time.RFC3339), newest)
		}
	}
	// Two times between which there was no block make an empty period.
	if s.First > s.Last+1 || s.First == s.Last+1 && (x.First.Height != 0 || x.Last.Height != 0) {
		return fmt.Errorf("the period begins at height %d and ends at height %d: want them in this order", s.First, s.Last)
	}
	headers, err := x.client.Headers().Past(ctx, []uint64{s.First, s.Last})
	if err != nil {
		return err
	}
	s.FirstTime, s.LastTime = headers[0].Time.UTC(), headers[1].Time.UTC()
	return nil
}

// firstBlock returns the height of the first block of a time or later, or limit + 1 when all up to limit are before it.
func (x *reader) firstBlock(ctx context.Context, at time.Time, limit uint64) (uint64, error) {
	low, high := uint64(1), limit+1 // the answer is in low..high
	pruned := uint64(0)
	for low < high {
		middle := low + (high-low)/2
		headers, err := x.client.Headers().Past(ctx, []uint64{middle})
		switch {
		case errors.Is(err, light.ErrPruned):
			pruned, low = middle, middle+1
		case err != nil:
			return 0, err
		case headers[0].Time.Before(at):
			low = middle + 1
		default:
			high = middle
		}
	}
	if pruned != 0 && pruned == low-1 {
		return 0, fmt.Errorf("which block was the first of %s cannot be told: %w up to height %d; give a height, or a node that keeps more blocks",
			at.UTC().Format(time.RFC3339), light.ErrPruned, pruned)
	}
	return low, nil
}

// measure walks over the verified journal, without asking anybody: the two ends, the number of entries, the widest amount.
func (s *Statement) measure(journal *client.Journal, begin ledger.Line, end client.Proven[ledger.Line]) error {
	// The mark is folded along only where the statement is cut.
	at, counters, height := journal.From, counterOf(begin), uint64(0)
	point := func(height uint64, origin Origin) Point {
		return Point{height, at, origin, counters.balance(), counters.pendingIn, counters.pendingOut}
	}
	first := s.First
	if first == 1 {
		first = 0 // entries of genesis
	}
	opened := false
	closing := State
	for e, err := range journal.Entries() {
		if err != nil {
			return err
		}
		if e.Height < height || e.Height > end.Height || s.Opening.Origin == State && e.Height < first {
			return fmt.Errorf("the proven journal is inconsistent: entry %d has height %d, after %d and up to %d: is this program too old?",
				e.Number, e.Height, height, end.Height)
		}
		height = e.Height
		if !opened && e.Height >= first {
			s.Opening, opened = point(s.First-1, s.Opening.Origin), true
		}
		if e.Height > s.Last {
			closing = Cut
			break
		}
		after := countersAfter(e)
		if opened {
			s.Count++
			s.widest = max(s.widest, len(Decimal(after.balance(), s.Scale)),
				1+len(Decimal(new(big.Int).Sub(after.balance(), counters.balance()), s.Scale)))
		}
		counters = after
		at.Entries, at.Head = e.Number, ledger.NextHead(at.Head, e.Encode())
	}
	if !opened {
		s.Opening = point(s.First-1, s.Opening.Origin)
	}
	if s.Last < end.Height {
		closing = Cut
	}
	s.Closing = point(s.Last, closing)
	s.widest = max(s.widest, len(Decimal(s.Opening.Balance, s.Scale)), len(Decimal(s.Closing.Balance, s.Scale)))
	if closing == State {
		if !end.Present {
			s.Closing.Origin = Beginning
		}
		if line := counterOf(end.Value); at != client.MarkOf(end.Value) || counters.differs(line) {
			return fmt.Errorf("the proven journal is inconsistent: its last entry, %d with head %s, leaves other counters than the line "+
				"of height %d has: is this program too old?",
				at.Entries, at.Head, end.Height)
		}
	}
	return nil
}

// counters are a line's, as numbers that can be subtracted.
type counters struct{ debits, credits, pendingOut, pendingIn *big.Int }

func counterOf(l ledger.Line) counters {
	number := func(a ledger.Amount) *big.Int { return new(big.Int).SetBytes(a.Bytes()) }
	return counters{number(l.DebitsPosted), number(l.CreditsPosted), number(l.DebitsPending), number(l.CreditsPending)}
}

func countersAfter(e ledger.Entry) counters {
	return counterOf(ledger.Line{DebitsPending: e.DebitsPending, DebitsPosted: e.DebitsPosted,
		CreditsPending: e.CreditsPending, CreditsPosted: e.CreditsPosted})
}

func (c counters) balance() *big.Int { return new(big.Int).Sub(c.credits, c.debits) }

func (c counters) differs(o counters) bool {
	return c.debits.Cmp(o.debits) != 0 || c.credits.Cmp(o.credits) != 0 || c.pendingOut.Cmp(o.pendingOut) != 0 || c.pendingIn.Cmp(o.pendingIn) != 0
}

// Decimal writes base units with the decimals of an asset: -5 at scale 2 is "-0.05".
func Decimal(n *big.Int, scale uint32) string {
	digits := new(big.Int).Abs(n).String()
	if missing := int(scale) + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	if point := len(digits) - int(scale); scale > 0 {
		digits = digits[:point] + "." + digits[point:]
	}
	if n.Sign() < 0 {
		return "-" + digits
	}
	return digits
}

// entries gives the entries of the period their times and memos, a batch at a time.
func (x *reader) entries(ctx context.Context, s *Statement, journal *client.Journal, begin ledger.Line) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		before, done := counterOf(begin), uint64(0)
		var pending []Entry
		flush := func() bool {
			err := x.resolve(ctx, pending)
			for _, e := range pending {
				if err != nil {
					break
				}
				if !yield(e, nil) {
					return false
				}
			}
			if err != nil {
				yield(Entry{}, err)
				return false
			}
			done += uint64(len(pending))
			x.progress("block times", done, s.Count)
			pending = pending[:0]
			return true
		}
		for e, err := range journal.Entries() {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if e.Height > s.Last {
				break
			}
			after := countersAfter(e)
			if e.Number > s.Opening.Mark.Entries {
				reference := ""
				if e.Reference != (ledger.Reference{}) {
					reference = hex.EncodeToString(e.Reference[:])
				}
				pending = append(pending, Entry{
					Number: e.Number, Height: e.Height, Kind: e.Kind.String(), TxID: e.TxID, Operation: e.Operation,
					Counterparty: e.Counterparty, Name: x.Names[e.Counterparty], Hold: e.Hold, Reference: reference, Code: e.Code,
					Amount: new(big.Int).Sub(after.balance(), before.balance()), Balance: after.balance(),
					PendingIn:  new(big.Int).Sub(after.pendingIn, before.pendingIn),
					PendingOut: new(big.Int).Sub(after.pendingOut, before.pendingOut),
				})
			}
			before = after
			if len(pending) == batch && !flush() {
				return
			}
		}
		if len(pending) > 0 {
			flush()
		}
	}
}

// memoOf returns the memo of an operation, of those kinds that move something.
func memoOf(op ledger.Operation) string {
	switch op := op.(type) {
	case *ledger.Transfer:
		return op.Memo
	case *ledger.CreateHold:
		return op.Memo
	case *ledger.Clawback:
		return op.Memo
	}
	return ""
}

// noted tells whether the operation of an entry of this kind can have a memo.
func noted(kind string) bool {
	return kind == ledger.EntryTransfer.String() || kind == ledger.EntryHold.String() || kind == ledger.EntryClawback.String()
}

// resolve fills in the times of some entries, and the memos.
func (x *reader) resolve(ctx context.Context, entries []Entry) error {
	var heights []uint64
	for _, e := range entries {
		heights = append(heights, max(e.Height, 1)) // genesis has the time of the first block
	}
	heights = slices.Compact(heights) // they ascend
	headers, err := x.client.Headers().Past(ctx, heights)
	if err != nil {
		return fmt.Errorf("the times of blocks: %w", err)
	}
	i := 0
	for k := range entries {
		for heights[i] != max(entries[k].Height, 1) {
			i++
		}
		entries[k].Time = headers[i].Time.UTC()
	}
	if !x.Memos {
		return nil
	}
	var ids []crypto.Hash
	for _, e := range entries {
		if e.TxID != (crypto.Hash{}) && noted(e.Kind) {
			ids = append(ids, e.TxID)
		}
	}
	slices.SortFunc(ids, func(a, b crypto.Hash) int { return strings.Compare(string(a[:]), string(b[:])) })
	txs, err := x.transactions(ctx, slices.Compact(ids))
	if err != nil {
		return err
	}
	for k := range entries {
		e := &entries[k]
		tx := txs[e.TxID]
		if tx != nil && noted(e.Kind) && int(e.Operation) < len(tx.Body.Operations) {
			e.Memo = memoOf(tx.Body.Operations[e.Operation])
		}
	}
	return nil
}

// transactions fetches transactions by their ids, eight at once. One that no node has any more is not in the result.
func (x *reader) transactions(ctx context.Context, ids []crypto.Hash) (map[crypto.Hash]*ledger.Tx, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([]*ledger.Tx, len(ids))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(8, len(ids)) {
		wg.Go(func() {
			for i := range work {
				tx, ok, err := x.client.Transaction(ctx, ids[i])
				if err != nil {
					cancel(err)
				} else if ok {
					found[i] = tx
				}
			}
		})
	}
	for i := range ids {
		select {
		case work <- i:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("memos: %w", err)
	}
	txs := map[crypto.Hash]*ledger.Tx{}
	for i, tx := range found {
		if tx != nil {
			txs[ids[i]] = tx
		}
	}
	return txs, nil
}
