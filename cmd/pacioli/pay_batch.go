package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/batch"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// batches is the folder of the journals of batches.
func (c *cli) batches() string { return filepath.Join(c.home, "batches") }

// batchFlags say how a file of payments is paid.
type batchFlags struct {
	from, result             string
	keys                     []string
	perTransaction, inFlight int
	validFor, timeout        time.Duration
}

func (c *cli) payBatchCommand() *cobra.Command {
	var f batchFlags
	cmd := &cobra.Command{
		Use: "pay-batch FILE.csv --from KEY", Short: "Pay every row of a CSV file, each exactly once", Args: args("FILE.csv"),
		Long: `Pay every row of a CSV file, each exactly once. The command can be killed at any point and run again, as often as one likes,
also with rows added to the file: what is paid is not paid again, what may still take effect is sent again as the same bytes,
and only what is proven to have had no effect is made anew. When everything is paid it sends nothing and shows the same result.

The file has a header row with the columns id, to, amount, asset, and if you like memo and reference, in any order; quoting is
that of RFC 4180. id is your own name of the payment, 1 to 256 bytes: it stands for one payment from this account for ever,
also in other files and in pay --id, and other details under a used id are an error. to is a key of this home or an address.
The rows' references on the ledger are derived from their ids, unless the file has some.

All rows are checked before anything is sent, and their sum, with fees and deposits, is compared with the balance. Then they are paid
by transactions of up to --per-transaction rows. A transaction that fails is split, so that a row that cannot be paid stops no
other. What became of each row stands in FILE.result.csv when the command ends: id, status, tx, operation (its place in the
transaction), height, code, fee (its share), fee_asset. status is paid, failed (proven to have had no effect; the next run tries
again), unknown (may have been paid, or may yet be) or unsent. Two homes do not know of each other: pay a file from one. Ids are
remembered in HOME/batches and HOME/outbox: back them up. While an account has no payment there, every row is looked for on the
ledger first by its derived reference, but a node could hide it.

Exit codes: 0 all paid, 4 some are unknown: run it again, 3 some failed, 1 some were not sent.

JSON: outcome, account, file, result, rows, paid, failed, unknown, unsent, totals (asset, amount) of what is paid, transactions,
fees, fee_asset, problems (line, id, status, tx, code) of the first rows that are not paid.`,
		Example: `  pacioli pay-batch wages.csv --from treasury
  pacioli pay-batch wages.csv --from treasury --result wages.done.csv --per-transaction 1000`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.payBatch(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "account that pays: a key of this home, or an address")
	keyFlag(flags, &f.keys)
	flags.StringVar(&f.result, "result", "", "file to write the result to (default FILE.result.csv)")
	flags.IntVar(&f.perTransaction, "per-transaction", batch.DefaultPerTransaction, "rows in a transaction at most, 1 to 1000")
	flags.IntVar(&f.inFlight, "in-flight", batch.DefaultInFlight, "transactions under way at a time, 1 to 64")
	flags.DurationVar(&f.validFor, "valid-for", client.DefaultValidFor, "after which a transaction is dead")
	flags.DurationVar(&f.timeout, "timeout", batch.DefaultTimeout, "how long to wait for the end of each transaction")
	_ = cmd.MarkFlagRequired("from")
	return cmd
}

// batchResult is what became of a file.
type batchResult struct {
	Outcome      string         `json:"outcome"`
	Account      crypto.Address `json:"account"`
	File         string         `json:"file"`
	Result       string         `json:"result"`
	Rows         int            `json:"rows"`
	Paid         int            `json:"paid"`
	Failed       int            `json:"failed"`
	Unknown      int            `json:"unknown"`
	Unsent       int            `json:"unsent"`
	Totals       []batchTotal   `json:"totals"`
	Transactions int            `json:"transactions"`
	Fees         string         `json:"fees"`
	FeeAsset     string         `json:"fee_asset"`
	Problems     []batchProblem `json:"problems,omitempty"`
}

type batchTotal struct {
	Asset  string `json:"asset"`
	Amount string `json:"amount"`
}

type batchProblem struct {
	Line   int    `json:"line"`
	ID     string `json:"id"`
	Status string `json:"status"`
	Tx     string `json:"tx,omitempty"`
	Code   string `json:"code,omitempty"`
}

// shownRows is how many rows that are not paid the summary names; the result file has all.
const shownRows = 20

func (r batchResult) text(w io.Writer) {
	fmt.Fprintf(w, "paid\t%d of %d rows\n", r.Paid, r.Rows)
	for _, more := range []struct {
		name string
		n    int
	}{{"failed", r.Failed}, {"unknown", r.Unknown}, {"unsent", r.Unsent}} {
		if more.n > 0 {
			fmt.Fprintf(w, "%s\t%d\n", more.name, more.n)
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "line %d\t%s\n", p.Line, strings.Join(strings.Fields(fmt.Sprintf("%q %s %s %s", p.ID, p.Status, p.Code, p.Tx)), " "))
	}
	if more := r.Rows - r.Paid - len(r.Problems); more > 0 {
		fmt.Fprintf(w, "\tand %d more\n", more)
	}
	for _, t := range r.Totals {
		fmt.Fprintf(w, "total\t%s %s\n", t.Amount, t.Asset)
	}
	fmt.Fprintf(w, "fees\t%s %s, in %d transactions\nresult\t%s\n", r.Fees, r.FeeAsset, r.Transactions, r.Result)
}

func (c *cli) payBatch(ctx context.Context, file string, f batchFlags) error {
	switch {
	case f.perTransaction < 1 || f.perTransaction > ledger.MaxOperations:
		return usage("--per-transaction %d: want 1 to %d", f.perTransaction, ledger.MaxOperations)
	case f.inFlight < 1 || f.inFlight > batch.MaxInFlight:
		return usage("--in-flight %d: want 1 to %d", f.inFlight, batch.MaxInFlight)
	case f.validFor < time.Second:
		return usage("--valid-for %s: want at least a second", f.validFor)
	case f.timeout <= 0:
		return usage("--timeout %s: want more than 0", f.timeout)
	}
	if f.result == "" {
		f.result = file + ".result.csv"
		if base, ok := strings.CutSuffix(file, ".csv"); ok {
			f.result = base + ".result.csv"
		}
	}
	if filepath.Clean(f.result) == filepath.Clean(file) {
		return usage("--result %s is the file with the payments", f.result)
	}
	from, err := c.payer(f.from, f.keys)
	if err != nil {
		return err
	}
	content, err := readFile(file, batch.MaxFileBytes)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	cl, err := c.dial(short)
	if err != nil {
		return err
	}
	b := provenBooks{cl}
	rows, problems, err := c.batchRows(ctx, b, from.address, content)
	if err != nil {
		return err
	}
	journal, err := batch.OpenJournal(c.batches(), b.network().ID, from.address, func(id string) (*batch.Earlier, error) { return c.begun(b, from, id) })
	if errors.Is(err, batch.ErrBusy) {
		return &problem{err: err, name: "busy", hint: "wait for it to end, and run this again"}
	}
	if err != nil {
		return err
	}
	defer journal.Close()
	changed, err := journal.Check(rows)
	if err != nil {
		return err
	}
	if journal.New() && len(problems) == 0 && len(changed) == 0 {
		if changed, err = c.recallRows(ctx, b, from, journal, rows); err != nil {
			return hinted(fmt.Errorf("asking which rows were paid before: %w", err), "nothing was sent; run it again")
		}
	}
	if problems = append(problems, changed...).Sorted(); len(problems) > 0 {
		return &problem{err: fmt.Errorf("%s: %w", file, problems), name: "batch_rows", hint: "mend the file and run it again"}
	}
	parameters, err := b.Parameters(ctx, 0)
	if err != nil {
		return err
	}
	chain := &batch.Ledger{Client: cl, Account: from.address, Known: from.known, ValidFor: f.validFor, Sign: c.signAll(from)}
	fee, err := chain.Available(ctx, parameters.Value.FeeAsset)
	if err != nil {
		return err
	}
	progress, done := c.progress()
	report, err := batch.Run(ctx, batch.Options{Rows: rows, Journal: journal, Chain: chain, PerTransaction: f.perTransaction, InFlight: f.inFlight, Timeout: f.timeout,
		Before:   func() error { return c.clearResult(f.result) },
		Progress: progress})
	done()
	if _, short := errors.AsType[*batch.Shortage](err); short {
		return &problem{err: err, name: ledger.InsufficientFunds.String(), hint: "fund the account, or pay fewer rows, and run it again"}
	}
	if err != nil {
		return err
	}
	return c.finishBatch(report, fee, batchResult{Account: from.address, File: file, Result: f.result})
}

// batchRows reads the file. What it names is looked up once.
func (c *cli) batchRows(ctx context.Context, b provenBooks, from crypto.Address, content []byte) ([]batch.Row, batch.Problems, error) {
	byName := map[string]crypto.Address{}
	for address, name := range c.names() {
		byName[name] = address
	}
	rows, problems, err := batch.ReadRows(bytes.NewReader(content), from, batch.Lookup{
		Account: func(text string) (crypto.Address, error) {
			if a, ok := byName[text]; ok {
				return a, nil
			}
			return c.account("to", text)
		},
		Asset: func(code string) (ledger.AssetID, ledger.Asset, bool, error) {
			id, asset, err := b.AssetByCode(ctx, code, 0)
			if err == nil && asset.Present {
				c.remember(code)
			}
			return id, asset.Value, asset.Present, err
		},
	})
	return rows, problems, err
}

// recallRows asks the ledger for every row that nothing here remembers, and takes what was paid into a new journal: so a
// home that was made from keys alone does not pay again what the one before has paid.
func (c *cli) recallRows(ctx context.Context, b provenBooks, from payer, journal *batch.Journal, rows []batch.Row) (batch.Problems, error) {
	const workers, every = 8, 5 * time.Second
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu       sync.Mutex
		wait     sync.WaitGroup
		next     int
		said     = time.Now()
		recalled []batch.Recalled
		failure  error
	)
	ask := func(row batch.Row) (*batch.Recalled, error) {
		if e, err := c.begun(b, from, row.ID); err != nil || e != nil {
			return nil, err // the outbox remembers it
		}
		f, transfer, err := c.onLedger(ctx, b, from.address, row.ID)
		if err != nil || f == nil {
			return nil, err
		}
		return &batch.Recalled{Row: row, Final: *f.Final, Operation: int(f.Entry.Operation), Transfer: transfer}, nil
	}
	for range workers {
		wait.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				if c.output != "json" && time.Since(said) >= every && i < len(rows) {
					said = time.Now()
					c.say("asked the ledger for %d of %d rows, which this home does not remember", i, len(rows))
				}
				stop := failure != nil || i >= len(rows)
				mu.Unlock()
				if stop {
					return
				}
				r, err := ask(rows[i])
				mu.Lock()
				if err != nil && failure == nil {
					failure = err
					cancel()
				}
				if r != nil {
					recalled = append(recalled, *r)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if failure != nil {
		return nil, failure
	}
	slices.SortFunc(recalled, func(x, y batch.Recalled) int { return cmp.Compare(x.Row.Line, y.Row.Line) })
	problems, err := journal.Recall(recalled)
	if err == nil && problems == nil && len(recalled) > 0 {
		c.say("%d of %d rows were paid before, which this home had no memory of", len(recalled), len(rows))
	}
	return problems, err
}

// begun finds a payment that `pay --id` has begun, in the outbox.
func (c *cli) begun(b provenBooks, from payer, id string) (*batch.Earlier, error) {
	payment, err := client.NewPayment(from.address, id)
	if err != nil {
		return nil, err
	}
	path := c.outboxFile(payment.Nonce)
	d, err := c.outbox(path)
	if err != nil || d == nil {
		return nil, err
	}
	raw, err := d.Raw()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	body := d.Body()
	if d.Network().ID != b.network().ID {
		return nil, nil // a payment on another network says nothing about this one
	}
	transfer, ok := body.Operations[0].(*ledger.Transfer)
	if len(body.Operations) != 1 || len(body.Signers) != 1 || body.Signers[0].Address != from.address || !ok {
		return nil, hinted(fmt.Errorf("%s is no payment by %s", path, from.address), "it has the nonce that belongs to the id %q: look at it before you remove it", id)
	}
	e := &batch.Earlier{Transaction: batch.Transaction{ID: d.ID(), Raw: raw}, Transfer: *transfer}
	if d.Before != nil {
		e.Transaction.Before = *d.Before
	}
	return e, nil
}

// signAll returns a function that signs one draft after the other and unlocks each key once.
func (c *cli) signAll(from payer) func(d *client.Draft, account client.SigningAccount) error {
	var mu sync.Mutex
	unlocked := map[string]*keystore.Signer{}
	return func(d *client.Draft, account client.SigningAccount) error {
		mu.Lock()
		defer mu.Unlock()
		names, err := c.keysFor(from, account)
		if err != nil {
			return err
		}
		for _, name := range names {
			if d.Complete() {
				break
			}
			signer := unlocked[name]
			if signer == nil {
				store, err := c.keys()
				if err != nil {
					return err
				}
				if signer, err = c.unlock(store, name); err != nil {
					return err
				}
				unlocked[name] = signer
			}
			if _, err := d.Sign(signer); err != nil {
				return err
			}
		}
		return nil
	}
}

// clearResult makes sure that the result can be written, before anything is sent, and that none of an earlier run stands
// there while this one is at work.
func (c *cli) clearResult(path string) error {
	if err := batch.ClearResult(path); err != nil {
		return hinted(err, "--result FILE names another file")
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return hinted(fmt.Errorf("the result cannot be written: %w", err), "--result FILE names another file")
	}
	_ = probe.Close()
	return os.Remove(probe.Name())
}

// progress shows how far a batch is: a bar on a terminal, else a line now and then, and nothing beside JSON.
func (c *cli) progress() (show func(batch.Progress), done func()) {
	if c.output == "json" {
		return nil, func() {}
	}
	if f, ok := c.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		drawn := false
		return func(p batch.Progress) {
				drawn = true
				fmt.Fprintf(c.err, "\r%s\x1b[K", bar(p))
			}, func() {
				if drawn {
					fmt.Fprint(c.err, "\r\x1b[K")
				}
			}
	}
	const every = 5 * time.Second
	said := time.Now()
	return func(p batch.Progress) {
		if time.Since(said) >= every {
			said = time.Now()
			c.say("%s", counts(p))
		}
	}, func() {}
}

func counts(p batch.Progress) string {
	text := fmt.Sprintf("%d of %d rows paid", p.Paid, p.Rows)
	if p.Failed > 0 {
		text += fmt.Sprintf(", %d failed", p.Failed)
	}
	if p.InFlight > 0 {
		text += fmt.Sprintf(", %d transactions under way", p.InFlight)
	}
	return text
}

func bar(p batch.Progress) string {
	const width = 30
	full := (p.Paid + p.Failed) * width / max(p.Rows, 1)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + counts(p)
}

// finishBatch writes the result file, shows the summary, and says by its error how it ended.
func (c *cli) finishBatch(report batch.Report, fee batch.Funds, r batchResult) error {
	r.Rows, r.Transactions = len(report.Results), report.Transactions
	r.Paid, r.Failed, r.Unknown, r.Unsent = report.Counts[batch.Paid], report.Counts[batch.Failed], report.Counts[batch.Unknown], report.Counts[batch.Unsent]
	r.Fees, r.FeeAsset = report.Fees.Format(fee.Scale), fee.Code
	r.Totals = []batchTotal{}
	sums, scales := map[string]ledger.Amount{}, map[string]uint32{}
	var order []string
	for _, row := range report.Results {
		if row.Status == batch.Paid {
			if _, ok := sums[row.AssetCode]; !ok {
				order, scales[row.AssetCode] = append(order, row.AssetCode), row.Scale
			}
			sums[row.AssetCode], _ = sums[row.AssetCode].Add(row.Transfer.Amount)
			continue
		}
		if len(r.Problems) < shownRows {
			p := batchProblem{Line: row.Line, ID: row.ID, Status: string(row.Status)}
			if row.Tx != (crypto.Hash{}) {
				p.Tx = row.Tx.String()
			}
			if row.Code != ledger.OK {
				p.Code = row.Code.String()
			}
			r.Problems = append(r.Problems, p)
		}
	}
	for _, code := range order {
		r.Totals = append(r.Totals, batchTotal{code, sums[code].Format(scales[code])})
	}
	var content bytes.Buffer
	err := batch.WriteResult(&content, report, fee)
	if err == nil {
		if err = batch.ClearResult(r.Result); err == nil {
			err = writeFile(r.Result, content.Bytes())
		}
	}
	failure := &problem{hint: "run the same command again: nothing is paid twice"}
	switch {
	case r.Unknown > 0:
		r.Outcome, failure.code = client.Uncertain.String(), int(client.Uncertain)
		failure.err = fmt.Errorf("the outcome of %d of %d rows is not known", r.Unknown, r.Rows)
	case r.Failed > 0:
		r.Outcome, failure.code = client.Failed.String(), int(client.Failed)
		failure.err = fmt.Errorf("%d of %d rows failed", r.Failed, r.Rows)
		failure.hint = "pacioli explain CODE says why; run the same command again when the reason is mended"
	case r.Unsent > 0:
		r.Outcome, failure.code, failure.name = client.NotSent.String(), int(client.NotSent), client.NotSent.String()
		failure.err = fmt.Errorf("%d of %d rows were not sent", r.Unsent, r.Rows)
	default:
		r.Outcome, failure = client.Committed.String(), nil
	}
	if printErr := c.print(r, r.text); printErr != nil {
		return printErr
	}
	if failure == nil {
		return err
	}
	for _, cause := range []error{report.Stopped, err} {
		if cause != nil {
			failure.err = fmt.Errorf("%w: %s", failure.err, cause) // of the rows, whatever the cause alone would be
		}
	}
	return failure
}
