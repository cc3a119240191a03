package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// resultView is what one operation did, or would do. Amounts are in decimals of the asset, or in base units where the asset
// is not known here.
type resultView struct {
	Kind       string `json:"kind"`
	Amount     string `json:"amount,omitempty"` // moved, reserved, posted, returned or taken back
	Asset      string `json:"asset,omitempty"`
	AmountBase string `json:"amount_base,omitempty"`
	AssetID    string `json:"asset_id,omitempty"` // created
	Hold       string `json:"hold,omitempty"`     // created
	Proposal   string `json:"proposal,omitempty"` // made
	Executed   bool   `json:"executed,omitempty"` // the vote was decided by it, and the change has taken effect

	// Of a hold that was posted or voided, where it is known.
	From     *crypto.Address `json:"from,omitempty"` // whose money it was
	FromName string          `json:"from_name,omitempty"`
	To       *crypto.Address `json:"to,omitempty"` // whom it was posted to
	ToName   string          `json:"to_name,omitempty"`
	Returned string          `json:"returned,omitempty"` // the part that was not posted, in decimals
}

// results shows a receipt's results. An error to find an asset leaves base units: a receipt is shown in any case.
func (c *cli) results(ctx context.Context, b books, body ledger.Body, receipt ledger.Receipt) []resultView {
	var views []resultView
	for i, r := range receipt.Results {
		if i >= len(body.Operations) {
			break
		}
		op := body.Operations[i]
		v := resultView{Kind: op.Kind().String()}
		if r.Asset != (ledger.AssetID{}) {
			v.AssetID = hex.EncodeToString(r.Asset[:])
		}
		if r.Hold != (crypto.Hash{}) {
			v.Hold = r.Hold.String()
		}
		if r.Proposal != (crypto.Hash{}) {
			v.Proposal = r.Proposal.String()
		}
		v.Executed = r.Executed
		if !r.Amount.IsZero() {
			v.AmountBase = r.Amount.String()
			if m, ok := c.movementOf(ctx, b, op); ok && b != nil {
				if a, err := b.asset(ctx, m.asset); err == nil {
					v.Amount, v.Asset, v.AmountBase = r.Amount.Format(a.Scale), a.Code, ""
					v.resolve(op, m, r.Amount, a.Scale, c.names())
				}
			}
		}
		views = append(views, v)
	}
	return views
}

// resolve adds what became of a hold.
func (v *resultView) resolve(op ledger.Operation, m movement, amount ledger.Amount, scale uint32, names map[crypto.Address]string) {
	if m.from == (crypto.Address{}) {
		return
	}
	v.From, v.FromName = &m.from, names[m.from]
	if op.Kind() != ledger.KindPostHold {
		return
	}
	v.To, v.ToName = &m.to, names[m.to]
	if rest, ok := m.held.Sub(amount); ok && !rest.IsZero() {
		v.Returned = rest.Format(scale)
	}
}

// remedy says what to do about an operation that failed, where the code alone does not.
func remedy(operations []ledger.Operation, at uint32, code ledger.Code) string {
	if code == ledger.InsufficientFunds && int(at) < len(operations) && operations[at].Kind() == ledger.KindClawback {
		return "the account has less than that: take less, or with --balancing debit what is there"
	}
	e, _ := ledger.Explain(code)
	return e.Remedy
}

// movement is in which asset an operation moves something, and of a hold that it resolves between whom, and how much was held.
type movement struct {
	asset    ledger.AssetID
	from, to crypto.Address // zero: not of a hold, or not known
	held     ledger.Amount
}

// movementOf returns what an operation moves. Of a hold that is resolved only the transaction that made it says so.
func (c *cli) movementOf(ctx context.Context, b books, op ledger.Operation) (m movement, ok bool) {
	var hold crypto.Hash
	switch o := op.(type) {
	case *ledger.Transfer:
		return movement{asset: o.Asset}, true
	case *ledger.CreateHold:
		return movement{asset: o.Asset}, true
	case *ledger.Clawback:
		return movement{asset: o.Asset}, true
	case *ledger.Bond, *ledger.ReleaseBond:
		if b == nil {
			return m, false
		}
		p, err := b.parameters(ctx)
		return movement{asset: p.FeeAsset}, err == nil
	case *ledger.PostHold:
		hold = o.Hold
	case *ledger.VoidHold:
		hold = o.Hold
	default:
		return m, false
	}
	proven, ok := b.(provenBooks)
	if !ok {
		return m, false
	}
	if h, err := proven.Hold(ctx, hold, 0); err == nil && h.Present {
		return movement{h.Value.Asset, h.Value.From, h.Value.To, h.Value.Amount}, true
	}
	found, _, err := proven.Search(ctx, query.Search{By: query.ByHold, Hold: hold, Limit: 1})
	if err != nil || len(found) == 0 {
		return m, false
	}
	m.asset = found[0].Line.Asset
	if e := found[0].Entry; e.Kind == ledger.EntryHold && found[0].Proven {
		m.from, m.to, m.held = found[0].Line.Account, e.Counterparty, e.Amount
		if e.Credit {
			m.from, m.to = m.to, m.from
		}
	}
	return m, true
}

// resultLines writes what the operations do not say themselves.
func resultLines(w io.Writer, views []resultView, operations []operationView) {
	for i, v := range views {
		var parts []string
		if i < len(operations) && v.Hold == "" && v.Proposal == "" && !v.Executed && (v.Amount == operations[i].Amount && v.AmountBase == operations[i].AmountBase) {
			continue
		}
		if v.Amount != "" {
			what := v.Amount + " " + v.Asset
			switch {
			case v.From != nil && v.To != nil:
				what += " posted from " + named(*v.From, v.FromName) + " to " + named(*v.To, v.ToName)
			case v.From != nil:
				what += " returned to " + named(*v.From, v.FromName)
			}
			parts = append(parts, what)
			if v.Returned != "" {
				parts = append(parts, v.Returned+" "+v.Asset+" returned")
			}
		} else if v.AmountBase != "" {
			parts = append(parts, v.AmountBase+" base units")
		}
		if v.Hold != "" {
			parts = append(parts, "hold "+v.Hold)
		}
		if v.Proposal != "" {
			parts = append(parts, "proposal "+v.Proposal)
		}
		if v.Executed {
			parts = append(parts, "decided: the change takes effect")
		}
		if v.AssetID != "" {
			parts = append(parts, "asset id "+v.AssetID)
		}
		if len(parts) > 0 {
			fmt.Fprintf(w, "result %d\t%s\n", i, strings.Join(parts, ", "))
		}
	}
}

// afterView is a line as it would be after a simulated transaction.
type afterView struct {
	Account        crypto.Address `json:"account"`
	Name           string         `json:"name,omitempty"`
	Asset          string         `json:"asset"`
	Balance        string         `json:"balance"` // posted credits less posted debits; of an issuer what it has issued, negative
	DebitsPending  string         `json:"debits_pending"`
	CreditsPending string         `json:"credits_pending"`
}

// simulationResult is what a transaction would do.
type simulationResult struct {
	Outcome    string          `json:"outcome"` // would_commit, would_fail or would_be_refused
	Proven     bool            `json:"proven"`  // never: it is one node's word
	ID         crypto.Hash     `json:"id"`
	Code       uint32          `json:"code"`
	CodeName   string          `json:"code_name"`
	FailedAt   *uint32         `json:"failed_operation,omitempty"` // index
	Fee        string          `json:"fee"`
	Deposit    string          `json:"deposit"`
	FeeAsset   string          `json:"fee_asset,omitempty"` // absent: fee and deposit are in base units
	Payer      *payerView      `json:"payer"`               // of fee and deposit
	Signers    []signerView    `json:"signers"`
	Operations []operationView `json:"operations"`
	Results    []resultView    `json:"results,omitempty"`
	Change     *changeEffect   `json:"change,omitempty"` // of a proposal or an approval: what it does to the validators
	Balances   []afterView     `json:"balances_after"`
	Height     uint64          `json:"height"` // of the block that it was tried in
	Time       string          `json:"time"`   // of that block
	names      map[crypto.Address]string
}

// rehearse shows what a draft would do now. Its error says that it would not take effect.
func (c *cli) rehearse(ctx context.Context, b provenBooks, d *client.Draft) error {
	s, err := b.Simulate(ctx, d.Rehearsal())
	if err != nil {
		return err
	}
	code := s.Receipt.Code
	v := c.view(ctx, b, b.network(), d.ID(), d.Body())
	r := simulationResult{Outcome: "would_commit", ID: d.ID(), Code: uint32(code), CodeName: code.String(), Fee: s.Receipt.Fee.String(),
		Deposit: s.Receipt.Deposit.String(), Payer: c.payerOf(d.Body(), d.Sponsor()), Signers: v.Signers, Operations: v.Operations, Results: c.results(ctx, b, d.Body(), s.Receipt),
		Balances: []afterView{}, Height: s.Height, Time: time.UnixMilli(int64(s.UnixMillis)).UTC().Format(time.RFC3339Nano)}
	if p, err := b.parameters(ctx); err == nil {
		if a, err := b.asset(ctx, p.FeeAsset); err == nil {
			r.Fee, r.Deposit, r.FeeAsset = s.Receipt.Fee.Format(a.Scale), s.Receipt.Deposit.Format(a.Scale), a.Code
		}
	}
	if r.Change, err = c.effectOf(ctx, b, d.Body()); err != nil {
		return err
	}
	names := c.names()
	r.names = names
	last := map[ledger.LineKey]ledger.Entry{}
	var order []ledger.LineKey
	for _, e := range s.Entries {
		entry, err := ledger.DecodeEntry(e.Encoded)
		if err != nil {
			return err
		}
		if _, seen := last[e.Line]; !seen {
			order = append(order, e.Line)
		}
		last[e.Line] = entry
	}
	for _, k := range order {
		scale, unit := uint32(0), "base units of "+hex.EncodeToString(k.Asset[:])
		if a, err := b.asset(ctx, k.Asset); err == nil {
			scale, unit = a.Scale, a.Code
		}
		e := last[k]
		balance, negative := ledger.Line{DebitsPosted: e.DebitsPosted, CreditsPosted: e.CreditsPosted}.Balance()
		text := balance.Format(scale)
		if negative {
			text = "-" + text
		}
		r.Balances = append(r.Balances, afterView{k.Account, names[k.Account], unit, text, e.DebitsPending.Format(scale), e.CreditsPending.Format(scale)})
	}
	var failure error
	if code != ledger.OK {
		e, _ := ledger.Explain(code)
		p := &problem{name: code.String(), hint: e.Remedy, id: d.ID().String()}
		if code.Refused() {
			r.Outcome, p.code = "would_be_refused", int(client.Rejected)
			p.err = fmt.Errorf("the transaction would be refused with code %d (%s)", uint32(code), code)
		} else {
			at := max(s.Receipt.Failed, 1) - 1
			r.Outcome, p.code, r.FailedAt = "would_fail", int(client.Failed), &at
			p.hint = remedy(d.Body().Operations, at, code)
			p.err = fmt.Errorf("the transaction would fail with code %d (%s) at operation %d: it would take %s", uint32(code), code, at, taken(r.Fee, r.Deposit, r.FeeAsset))
		}
		failure = p
	}
	if err := c.print(r, r.text); err != nil {
		return err
	}
	return failure
}

func (r simulationResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s\tcode %d (%s)\n", strings.ReplaceAll(r.Outcome, "_", " "), r.Code, r.CodeName)
	for _, o := range r.Operations {
		fmt.Fprintf(w, "operation\t%s\n", o.line(r.names))
	}
	resultLines(w, r.Results, r.Operations)
	r.Change.text(w, r.names)
	unit := r.FeeAsset
	if unit == "" {
		unit = "base units"
	}
	fmt.Fprintf(w, "fee\t%s %s\ndeposit\t%s %s\n", r.Fee, unit, r.Deposit, unit)
	payerLine(w, r.Payer)
	for _, b := range r.Balances {
		text := fmt.Sprintf("%s %s", b.Balance, b.Asset)
		if strings.Trim(b.DebitsPending+b.CreditsPending, "0.") != "" {
			text += fmt.Sprintf(", pending %s out and %s in", b.DebitsPending, b.CreditsPending)
		}
		fmt.Fprintf(w, "after\t%s: %s\n", named(b.Account, b.Name), text)
	}
	fmt.Fprintf(w, "nothing was sent\tone node's word for block %d, not proven and no promise\n", r.Height)
}

// rehearsing gives a command on a transaction file the flag --dry-run.
func (c *cli) rehearsing(cmd *cobra.Command) *cobra.Command {
	dryRun, show := false, cmd.RunE
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "ask a node what it would do now, its signatures taken to be good: one node's word, and no promise")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !dryRun {
			return show(cmd, args)
		}
		d, _, err := c.readDraft(args[0])
		if err != nil {
			return err
		}
		return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
			if b.network().ID != d.Network().ID {
				return &problem{err: fmt.Errorf("%s is for network %s (%s), the nodes are of network %s (%s)", args[0], d.Network().ID, d.Network().ChainID,
					b.network().ID, b.network().ChainID), name: "other_network"}
			}
			return c.rehearse(ctx, b, d)
		})
	}
	return cmd
}

// deedFlags are those of a command by which one account does something.
type deedFlags struct {
	from string
	keys []string
	send sendFlags
}

func (d *deedFlags) add(cmd *cobra.Command, who string) {
	f := cmd.Flags()
	f.StringVar(&d.from, "from", "", who+": a key of this home, or an address")
	keyFlag(f, &d.keys)
	d.send.add(cmd)
	_ = cmd.MarkFlagRequired("from")
}

// do carries out what an account wants: what returns the operations, of which it is signer 0; none: there is
// nothing to do.
func (c *cli) do(ctx context.Context, d deedFlags, what func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error)) error {
	if err := d.send.check(); err != nil {
		return err
	}
	from, err := c.payer(d.from, d.keys)
	if err != nil {
		return err
	}
	return c.online(ctx, d.send, func(ctx context.Context, b provenBooks) error {
		operations, err := what(ctx, b, from)
		if err != nil || len(operations) == 0 {
			return err
		}
		return c.perform(ctx, b, request{[]payer{from}, operations, d.send})
	})
}

// amountOf reads an amount of an asset that is named by its code.
func (c *cli) amountOf(ctx context.Context, b books, flag, text, code string) (ledger.AssetID, ledger.Amount, error) {
	id, asset, err := b.assetByCode(ctx, code)
	if err != nil {
		return id, ledger.Amount{}, err
	}
	amount, err := ledger.ParseAmount(text, asset.Scale)
	if err != nil {
		if flag != "" {
			err = fmt.Errorf("%s: %w", flag, err)
		}
		return id, amount, usage("%w (%s)", err, code)
	}
	c.remember(code)
	return id, amount, nil
}

// limitOf reads an amount or "none".
func (c *cli) limitOf(ctx context.Context, b books, flag, text, code string) (*ledger.Amount, error) {
	if text == "" {
		return nil, nil
	}
	if text == "none" {
		return new(ledger.Amount), nil
	}
	_, amount, err := c.amountOf(ctx, b, flag, text, code)
	return &amount, err
}

// moment reads a time, as 2026-01-31T12:00:00Z, or how long from the newest block's time on.
func (c *cli) moment(ctx context.Context, b provenBooks, flag, text string) (second uint64, relative bool, err error) {
	if d, err := time.ParseDuration(text); err == nil {
		if d < time.Second {
			return 0, false, usage("%s %s: want at least 1s", flag, text)
		}
		p, err := b.Parameters(ctx, 0)
		if err != nil {
			return 0, false, err
		}
		return uint64(p.Time.Add(d).Unix()), true, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Unix() < 1 || at.Unix() > ledger.MaxUnixSeconds {
		return 0, false, usage("%s %q: want a time such as 2026-01-31T12:00:00Z, or how long from now, such as 720h", flag, text)
	}
	return uint64(at.Unix()), false, nil
}

// earlier returns the operation that a nonce was used for before, or nil: what a command makes up itself (times from now
// on, a preimage) must be the same when it is given again.
func (c *cli) earlier(from crypto.Address, s sendFlags) (ledger.Operation, error) {
	operations, err := c.earlierOperations(from, s)
	if err != nil || len(operations) == 0 {
		return nil, err
	}
	return operations[0], nil
}

// earlierOperations returns all operations that a nonce was used for; nil: it was not.
func (c *cli) earlierOperations(from crypto.Address, s sendFlags) ([]ledger.Operation, error) {
	var nonce [ledger.NonceBytes]byte
	switch {
	case s.id != "":
		payment, err := client.NewPayment(from, s.id)
		if err != nil {
			return nil, usage("--id: %w", err)
		}
		nonce = payment.Nonce
	case s.nonce != "":
		var err error
		if nonce, err = id128("--nonce", s.nonce); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	d, err := c.outbox(c.outboxFile(nonce))
	if err != nil || d == nil {
		return nil, err
	}
	return d.Body().Operations, nil
}

// bitsOf reads a list of words as bits.
func bitsOf[B ~uint32](flag string, given []string, names []string) (bits B, err error) {
	for _, g := range given {
		i := slices.Index(names, g)
		if i < 0 {
			return 0, usage("%s %q: want %s", flag, g, strings.Join(names, ", "))
		}
		bits |= 1 << i
	}
	return bits, nil
}

// namesOf is bitsOf the other way round.
func namesOf[B ~uint32](bits B, names []string) []string {
	list := []string{}
	for i, name := range names {
		if bits&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return list
}
