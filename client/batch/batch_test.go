package batch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

var (
	network = crypto.Hash{1}
	payer   = crypto.Address{2}
	coin    = ledger.AssetID{3}
)

// world is a chain that loses requests and answers, keeps transactions for later, lies, and forgets; and a disk that, in a
// crash, keeps of what was not synced any part. Time is counted in ticks.
type world struct {
	t   *testing.T
	dir string

	mu        sync.Mutex
	rng       *rand.Rand
	harsh     bool // it does all of that
	now       uint64
	built     uint64
	most      int // transfers that fit a transaction
	funds     ledger.Amount
	refuses   map[crypto.Address]bool      // receivers whose lines take nothing
	limbo     map[crypto.Hash]*ledger.Body // some node has them
	ended     map[crypto.Hash]client.Final // in a block
	paid      map[ledger.Reference]int     // how often
	fees      ledger.Amount                // of all blocks
	refuse    bool                         // every node refuses everything
	elsewhere map[string]*Earlier          // begun by others
	durable   []byte                       // what is safe of the journal
	points    int                          // passed in this run
	crashAt   int                          // the run is killed at this one; 0: never
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 0)), harsh: true, most: 1000, funds: ledger.Units(1 << 40), refuses: map[crypto.Address]bool{},
		limbo: map[crypto.Hash]*ledger.Body{}, ended: map[crypto.Hash]client.Final{}, paid: map[ledger.Reference]int{}, elsewhere: map[string]*Earlier{}}
}

func (w *world) setHarsh(harsh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.harsh = harsh
}

// chance is true in p of 100 cases of a harsh world.
func (w *world) chance(p int) bool { return w.harsh && w.rng.IntN(100) < p }

func (w *world) Build(_ context.Context, transfers []ledger.Transfer) (Transaction, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	if len(transfers) > w.most {
		return Transaction{}, fmt.Errorf("%d of %d: %w", len(transfers), w.most, client.ErrTooLarge)
	}
	if w.chance(3) {
		return Transaction{}, errors.New("no node answers")
	}
	w.built++
	return w.make(transfers), nil
}

func (w *world) make(transfers []ledger.Transfer) Transaction {
	body := ledger.Body{Signers: []ledger.Signer{{Address: payer}}, ValidUntil: w.now + 12, Operations: operations(transfers)}
	binary.BigEndian.PutUint64(body.Signers[0].Nonce[:], w.built)
	raw := body.Encode()
	return Transaction{ID: ledger.BodyID(network, raw), Raw: raw, Before: client.Mark{Entries: w.built}}
}

func (w *world) Cost(_ context.Context, groups [][]ledger.Transfer, exact bool) (ledger.AssetID, ledger.Amount, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range groups {
		if len(g) > w.most {
			return coin, ledger.Amount{}, client.ErrTooLarge
		}
	}
	cost := uint64(len(groups)) * 100
	if !exact {
		cost += 5 // for receivers that have lines already
	}
	return coin, ledger.Units(cost), nil
}

func (w *world) Available(context.Context, ledger.AssetID) (Funds, error) {
	return Funds{Code: "COIN", Scale: 2, Amount: w.funds, Height: 7}, nil
}

// tick lets time pass, and blocks be made of what waits.
func (w *world) tick() {
	w.now += uint64(w.rng.IntN(4))
	if !w.harsh {
		w.now += 4
	}
	for id, body := range w.sorted() {
		switch {
		case w.now >= body.ValidUntil:
			delete(w.limbo, id)
		case w.rng.IntN(3) == 0:
			w.block(id, body)
		}
	}
}

// sorted goes over the limbo in an order that a seed determines.
func (w *world) sorted() func(yield func(crypto.Hash, *ledger.Body) bool) {
	return func(yield func(crypto.Hash, *ledger.Body) bool) {
		for _, id := range sortedHashes(w.limbo) {
			if !yield(id, w.limbo[id]) {
				return
			}
		}
	}
}

func sortedHashes[V any](m map[crypto.Hash]V) []crypto.Hash {
	return slices.SortedFunc(maps.Keys(m), func(a, b crypto.Hash) int { return bytes.Compare(a[:], b[:]) })
}

// block puts a transaction into a block, which it does once.
func (w *world) block(id crypto.Hash, body *ledger.Body) client.Final {
	delete(w.limbo, id)
	f := client.Final{ID: id, Height: w.now, Receipt: ledger.Receipt{TxID: id, Fee: ledger.Units(uint64(99 + len(body.Operations)))}}
	for i, op := range body.Operations {
		if w.refuses[op.(*ledger.Transfer).To] && f.Receipt.Code == ledger.OK {
			f.Receipt.Code, f.Receipt.Failed = ledger.CounterOverflow, uint32(i)+1
		}
	}
	for _, op := range body.Operations {
		if f.Receipt.Code == ledger.OK {
			w.paid[op.(*ledger.Transfer).Reference]++
		}
	}
	w.fees, _ = w.fees.Add(f.Receipt.Fee)
	w.ended[id] = f
	return f
}

func (w *world) Send(_ context.Context, tx Transaction) (client.Final, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	body, err := ledger.DecodeBody(tx.Raw)
	if err != nil || ledger.BodyID(network, tx.Raw) != tx.ID || tx.Before.Entries == 0 {
		w.t.Errorf("sent is %+v: %v", tx, err)
	}
	if !bytes.Contains(w.durable, []byte(tx.ID.String())) {
		w.t.Errorf("transaction %s is sent before it is durable", tx.ID)
	}
	none, unknown := client.Final{ID: tx.ID}, &client.Unknown{ID: tx.ID, Cause: errors.New("no answer")}
	f, ended := w.ended[tx.ID]
	switch {
	case ended && w.chance(20):
		return none, unknown
	case ended:
		return f, nil
	case w.refuse:
		return none, &client.Refusal{ID: tx.ID, Code: ledger.FeeUnpayable}
	case w.now >= body.ValidUntil && w.chance(20):
		return none, unknown // it cannot be proven now
	case w.now >= body.ValidUntil:
		return none, &client.Dead{ID: tx.ID, Height: w.now, Reason: "its valid_until has passed"}
	case w.chance(10): // lost on the way
		return none, unknown
	case w.chance(15): // taken, and the answer is lost
		w.limbo[tx.ID] = body
		return none, unknown
	case w.chance(4): // nobody could be reached
		return none, errors.New("no node answers")
	case w.chance(4): // refused by a node that tells the truth
		return none, &client.Refusal{ID: tx.ID, Code: ledger.FeeUnpayable}
	case w.chance(4): // by one that lies, and sends it on
		w.limbo[tx.ID] = body
		return none, &client.Refusal{ID: tx.ID, Code: ledger.FeeUnpayable}
	}
	f = w.block(tx.ID, body)
	if w.chance(20) {
		return none, unknown
	}
	return f, nil
}

type killed struct{}

// run runs a batch once; ok is false when it was killed on the way.
func (w *world) run(rows []Row, o Options) (report Report, err error, ok bool) {
	var j *Journal
	w.points = 0
	defer func() {
		if j != nil {
			j.Close()
		}
		p := recover()
		if p == nil {
			return
		}
		if _, is := p.(killed); !is {
			panic(p)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		// The disk has what was synced, and any part of what was written behind it.
		if content, err := os.ReadFile(base(w.dir, network, payer) + ".journal"); err == nil && bytes.HasPrefix(content, w.durable) {
			tail := content[len(w.durable):]
			tail = tail[:w.rng.IntN(len(tail)+1)]
			if err := os.WriteFile(base(w.dir, network, payer)+".journal", append(bytes.Clone(w.durable), tail...), 0o600); err != nil {
				w.t.Error(err)
			}
		}
	}()
	j = &Journal{path: base(w.dir, network, payer) + ".journal", network: network, account: payer,
		earlier: func(id string) (*Earlier, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.elsewhere[id], nil },
		crash: func(string) {
			if w.points++; w.points == w.crashAt {
				panic(killed{})
			}
		},
		sync: func(f *os.File) error {
			content, err := os.ReadFile(f.Name())
			w.mu.Lock()
			defer w.mu.Unlock()
			w.durable = content
			return err
		}}
	if _, err := openJournal(j); err != nil {
		return Report{}, err, true
	}
	o.Rows, o.Journal, o.Chain = rows, j, w
	report, err = Run(context.Background(), o)
	return report, err, true
}

// rows makes n rows; those whose numbers stand in bad are to receivers that take nothing.
func (w *world) rows(n int, bad ...int) (rows []Row) {
	for i := range n {
		row := Row{Line: i + 2, ID: fmt.Sprintf("invoice-%d", i), AssetCode: "COIN", Scale: 2}
		p, err := client.NewPayment(payer, row.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		row.Transfer = ledger.Transfer{To: crypto.Address{9, byte(i), byte(i >> 8)}, Asset: coin, Amount: ledger.Units(uint64(i) + 1), Reference: p.Reference}
		rows = append(rows, row)
	}
	for _, i := range bad {
		w.refuses[rows[i].Transfer.To] = true
	}
	return rows
}

// once checks that no row was paid twice, and with all that each good one was paid.
func (w *world) once(rows []Row, all bool) {
	w.t.Helper()
	w.mu.Lock() // what a killed run had under way may still arrive
	defer w.mu.Unlock()
	for _, row := range rows {
		n := w.paid[row.Transfer.Reference]
		if bad := w.refuses[row.Transfer.To]; n > 1 || all && !bad && n != 1 || bad && n != 0 {
			w.t.Fatalf("%s was paid %d times", row.ID, n)
		}
	}
}

// finish runs until every row is decided, and checks the books.
func (w *world) finish(rows []Row, o Options) Report {
	w.t.Helper()
	w.crashAt = 0
	for range 60 {
		report, err, _ := w.run(rows, o)
		if err != nil && !strings.Contains(err.Error(), "no node") {
			w.t.Fatal(err)
		}
		w.setHarsh(false)
		if err == nil && report.Counts[Unknown]+report.Counts[Unsent] == 0 {
			w.once(rows, true)
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, r := range report.Results {
				if (r.Status == Failed) != w.refuses[r.Transfer.To] {
					w.t.Fatalf("%s is %s", r.ID, r.Status)
				}
				f := w.ended[r.Tx]
				if (r.Status == Paid) != (f.Receipt.Code == ledger.OK) || f.Height != r.Height || r.Code != f.Receipt.Code {
					w.t.Fatalf("%s is %s at height %d, its transaction has code %s at %d", r.ID, r.Status, r.Height, f.Receipt.Code, f.Height)
				}
			}
			if report.Fees != w.fees || report.Transactions != len(w.ended) {
				w.t.Fatalf("fees of %s in %d transactions, the chain took %s in %d", report.Fees, report.Transactions, w.fees, len(w.ended))
			}
			return report
		}
	}
	w.t.Fatal("60 runs do not decide every row")
	return Report{}
}

// TestKilledAnywhere kills a run at each step that there is, on a chain that does what it likes, and goes on.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		for k := 1; ; k++ {
			w := newWorld(t, seed<<32|uint64(k))
			w.harsh = k%2 == 0
			all := w.rows(23, 4, 11, 12)
			rows, o := all[:15], Options{PerTransaction: 5 + int(seed), InFlight: 1 + int(seed)%2*2}
			w.crashAt = k
			_, err, ended := w.run(rows, o)
			if err != nil && !strings.Contains(err.Error(), "no node") {
				t.Fatalf("seed %d, step %d: %v", seed, k, err)
			}
			w.once(rows, false)
			w.setHarsh(true)
			w.finish(all, o) // with more rows than before
			if t.Failed() {
				t.Fatalf("seed %d, killed at step %d", seed, k)
			}
			if ended && k > 40 {
				break
			}
		}
	}
}

// TestKilledAgainAndAgain kills one run after the other, while the file grows, and in the end mends the bad rows.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		w := newWorld(t, seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		all := w.rows(40, 3, 17, 18, 39)
		o := Options{PerTransaction: 1 + rng.IntN(12), InFlight: 1 + rng.IntN(4)}
		for n := 10; n <= len(all); n += 2 {
			w.crashAt = 1 + rng.IntN(30)
			if _, err, _ := w.run(all[:n], o); err != nil && !strings.Contains(err.Error(), "no node") {
				t.Fatalf("seed %d: %v", seed, err)
			}
			w.once(all, false)
		}
		if r := w.finish(all, o); r.Counts[Failed] != 4 {
			t.Fatalf("seed %d: %v", seed, r.Counts)
		}
		clear(w.refuses)
		first := w.finish(all, o)
		built := w.built
		again := w.finish(all, o)
		if w.built != built || again.Sent != 0 {
			t.Errorf("seed %d: with everything paid %d transactions were built and %d sent", seed, w.built-built, again.Sent)
		}
		var a, b bytes.Buffer
		if WriteResult(&a, first, Funds{}) != nil || WriteResult(&b, again, Funds{}) != nil || a.String() != b.String() {
			t.Errorf("seed %d: the results of two runs differ:\n%s\n%s", seed, &a, &b)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestSplitting: what bad rows cost the others.
func TestSplitting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		rows, per    int
		bad          []int
		transactions int // in blocks
	}{
		{"none", 1000, 1000, nil, 1},
		{"by default", 1000, 0, nil, 10},
		{"one in the middle", 100, 100, []int{50}, 4}, // all; before; alone; behind
		{"the first", 100, 100, []int{0}, 3},          // all; alone; behind (49 and 50)
		{"the last", 100, 100, []int{99}, 3},
		{"every one", 16, 16, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 0},
		{"too large", 100, 100, nil, 4},
	} {
		w := newWorld(t, 1)
		w.harsh = false
		if c.name == "too large" {
			w.most = 30
		}
		r := w.finish(w.rows(c.rows, c.bad...), Options{PerTransaction: c.per, InFlight: 1})
		if r.Counts[Failed] != len(c.bad) || c.transactions != 0 && r.Transactions > c.transactions+1 {
			t.Errorf("%s: %v in %d transactions, want %d", c.name, r.Counts, r.Transactions, c.transactions)
		}
		// n rows go through transactions of n, n/2, n/4 ... rows; were only the bad one left out each time, it would be n*n/2.
		if ops, ok := w.fees.Sub(ledger.Units(99 * uint64(r.Transactions))); c.name == "every one" && (!ok || ops.Cmp(ledger.Units(80)) > 0) {
			t.Errorf("%s: %s operations in %d transactions", c.name, ops, r.Transactions)
		}
	}
}

// TestChanged: an id stands for one payment for ever.
func TestChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.harsh = false
	rows := w.rows(3)
	w.finish(rows, Options{})
	for field, change := range map[string]func(t *ledger.Transfer){
		"receiver": func(t *ledger.Transfer) { t.To[5]++ }, "asset": func(t *ledger.Transfer) { t.Asset[5]++ },
		"amount": func(t *ledger.Transfer) { t.Amount = ledger.Units(77) }, "memo": func(t *ledger.Transfer) { t.Memo = "x" },
		"reference": func(t *ledger.Transfer) { t.Reference[5]++ },
	} {
		other := append([]Row(nil), rows...)
		change(&other[1].Transfer)
		built := w.built
		_, err, _ := w.run(append(other, w.rows(5)[4]), Options{})
		if p, ok := errors.AsType[Problems](err); !ok || len(p) != 1 || p[0].Line != 3 || !strings.Contains(p[0].Text, "with another "+field) || w.built != built {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestElsewhere: a payment that was begun under its id by another command is taken over, before the run and during it.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.harsh = false
	rows := w.rows(6)
	begun := func(i int) {
		w.built++
		w.elsewhere[rows[i].ID] = &Earlier{w.make([]ledger.Transfer{rows[i].Transfer}), rows[i].Transfer}
	}
	begun(2)
	tx := w.elsewhere[rows[2].ID].Transaction
	body, err := ledger.DecodeBody(tx.Raw)
	if err != nil {
		t.Fatal(err)
	}
	w.block(tx.ID, body)
	// Row 4 is begun once the run has looked, while its transaction is built.
	racing := &racingChain{world: w, do: func() { begun(4) }}
	j, err := OpenJournal(w.dir, network, payer, func(id string) (*Earlier, error) { return w.elsewhere[id], nil })
	if err != nil {
		t.Fatal(err)
	}
	j.sync = func(f *os.File) (err error) { w.durable, err = os.ReadFile(f.Name()); return err }
	report, err := Run(t.Context(), Options{Rows: rows, Journal: j, Chain: racing, InFlight: 1})
	if err != nil || report.Counts[Paid] != 6 {
		t.Fatalf("%v: %v", report.Counts, err)
	}
	w.once(rows, true)
	if a, b := report.Results[2].Tx, report.Results[4].Tx; a != tx.ID || b != w.elsewhere[rows[4].ID].Transaction.ID {
		t.Errorf("rows 2 and 4 were paid by %s and %s", a, b)
	}
	if _, err := OpenJournal(w.dir, network, payer, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
	j.Close()
	for id, want := range map[string]bool{"invoice-2": true, "invoice-5": true, "invoice-6": false} {
		got, release, err := Claim(w.dir, network, payer, id)
		if err != nil || (got != nil) != want || want && !got.Paid {
			t.Errorf("claim of %s: %v, %v", id, got, err)
		}
		release()
	}
	// With other details it is a problem.
	more := w.rows(8)
	begun2 := more[7].Transfer
	begun2.Amount = ledger.Units(1)
	w.elsewhere[more[7].ID] = &Earlier{w.make([]ledger.Transfer{begun2}), begun2}
	if _, err, _ := w.run(more, Options{}); err == nil || !strings.Contains(err.Error(), `line 9: id "invoice-7" was used with another amount`) {
		t.Errorf("begun with other details: %v", err)
	}
}

type racingChain struct {
	*world
	do func()
}

func (c *racingChain) Build(ctx context.Context, transfers []ledger.Transfer) (Transaction, error) {
	tx, err := c.world.Build(ctx, transfers)
	if c.do != nil {
		c.do()
		c.do = nil
	}
	return tx, err
}

// TestShortage: nothing is sent when the account cannot pay all of it.
func TestShortage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.harsh = false
	rows := w.rows(10) // 55 base units, and 200 of fees
	called := 0
	o := Options{PerTransaction: 5, InFlight: 1, Before: func() error { called++; return nil }}
	w.funds = ledger.Units(254)
	_, err, _ := w.run(rows, o)
	if _, ok := errors.AsType[*Shortage](err); !ok || err.Error() != "the rows need 2.55 COIN, 2.00 of it for fees and deposits, and the account has 2.54 available at height 7; nothing was sent" || w.built != 0 || called != 0 {
		t.Errorf("%d built, %d called: %v", w.built, called, err)
	}
	w.funds = ledger.Units(255)
	if r, err, _ := w.run(rows, o); err != nil || r.Counts[Paid] != 10 || called != 1 {
		t.Errorf("%v, %d called: %v", r.Counts, called, err)
	}
	rows = w.rows(12)
	rows[10].Transfer.Amount, rows[11].Transfer.Amount = ledger.MaxAmount, ledger.MaxAmount
	if _, err, _ := w.run(rows, o); err == nil || !strings.Contains(err.Error(), "more COIN than there can be") {
		t.Error(err)
	}
	w.refuses = map[crypto.Address]bool{}
	o.Before = func() error { return errors.New("no") }
	if _, err, _ := w.run(w.rows(11), o); err == nil || err.Error() != "no" {
		t.Error(err)
	}
}

// TestJournalFile: a torn end is mended, damage is not overlooked, and finished transactions make room.
func TestJournalFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.harsh = false
	rows := w.rows(30)
	w.finish(rows, Options{PerTransaction: 3, InFlight: 1})
	path := base(w.dir, network, payer) + ".journal"
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tail := range []string{"x", "00000000 {}\n", strings.Repeat("\x00", 100)} {
		write(append(bytes.Clone(whole), tail...))
		if r := w.finish(rows, Options{}); r.Sent != 0 {
			t.Errorf("behind %q: %d sent", tail, r.Sent)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, whole) {
			t.Errorf("the tail %q was not cut off", tail)
		}
	}
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	write(bad)
	if _, err, _ := w.run(rows, Options{}); err == nil || !strings.Contains(err.Error(), "is damaged at byte") {
		t.Errorf("damaged: %v", err)
	}
	write(whole)
	other := &Journal{path: path, network: crypto.Hash{7}, account: payer, crash: func(string) {}, sync: (*os.File).Sync}
	if _, err := openJournal(other); err == nil || !strings.Contains(err.Error(), "not the journal of this account and network") {
		t.Errorf("of another network: %v", err)
	}
	// Rewriting keeps everything but the bytes of what has ended.
	j, err := OpenJournal(w.dir, network, payer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.rewrite(); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if now, _ := os.ReadFile(path); len(now) >= len(whole) {
		t.Errorf("%d bytes, rewritten %d", len(whole), len(now))
	}
	if r := w.finish(rows, Options{}); r.Sent != 0 || r.Counts[Paid] != 30 {
		t.Errorf("after rewriting: %d sent, %v", r.Sent, r.Counts)
	}
}

// TestDiskFull: when the journal cannot be written nothing more is sent.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for at := range 7 {
		w := newWorld(t, 1)
		w.harsh = false
		rows := w.rows(9)
		j, err := OpenJournal(w.dir, network, payer, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		j.sync = func(f *os.File) (err error) {
			if n++; n > at {
				return errors.New("no space left")
			}
			w.durable, err = os.ReadFile(f.Name())
			return err
		}
		r, err := Run(t.Context(), Options{Rows: rows, Journal: j, Chain: w, PerTransaction: 3, InFlight: 1})
		j.Close()
		if r.Counts[Unknown] != 0 { // what did not come into the journal was not sent
			t.Errorf("full after %d: %v", at, r.Counts)
		}
		if at < 6 && (err != nil || r.Stopped == nil || !strings.Contains(r.Stopped.Error(), "no space left")) || r.Sent != (at+1)/2 {
			t.Errorf("full after %d: %v, %v, %d sent", at, err, r.Stopped, r.Sent)
		}
		w.finish(rows, Options{PerTransaction: 3, InFlight: 1})
	}
}

// TestRefused: what nodes refuse is not known to be dead, and keeps the rest from being sent.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.harsh, w.refuse = false, true
	rows := w.rows(6)
	o := Options{PerTransaction: 2, InFlight: 1}
	for range 2 {
		r, err, _ := w.run(rows, o)
		if err != nil || r.Counts[Unknown] < 2 || r.Counts[Unknown]+r.Counts[Unsent] != 6 || r.Results[0].Status != Unknown || r.Results[0].Code != ledger.FeeUnpayable || r.Results[5].Status != Unsent {
			t.Fatalf("%v, %+v: %v", r.Counts, r.Results[0], err)
		}
		if _, ok := errors.AsType[*client.Refusal](r.Stopped); !ok {
			t.Errorf("stopped by %v", r.Stopped)
		}
	}
	w.refuse = false
	w.finish(rows, o)
	// Interrupted before it began.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j, err := OpenJournal(w.dir, network, payer, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	r, err := Run(ctx, Options{Rows: w.rows(7), Journal: j, Chain: w})
	if err != nil || r.Counts[Paid] != 6 || r.Counts[Unsent] != 1 || r.Sent != 0 || !errors.Is(r.Stopped, context.Canceled) {
		t.Errorf("%v, %d sent, %v, %v", r.Counts, r.Sent, err, r.Stopped)
	}
}
