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

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// balanceView is an account's line in one asset.
type balanceView struct {
	Asset          string `json:"asset"`
	Balance        string `json:"balance"`          // posted credits less posted debits: negative of an issuer, and where credit is used
	Available      string `json:"available"`        // what it can pay; of an issuer, what it can still issue
	Issued         string `json:"issued,omitempty"` // of an issuer only
	CreditsPosted  string `json:"credits_posted"`
	DebitsPosted   string `json:"debits_posted"`
	CreditsPending string `json:"credits_pending"`
	DebitsPending  string `json:"debits_pending"`
	Entries        uint64 `json:"entries"`
	AssetID        string `json:"asset_id"`
	Open           bool   `json:"open"`                 // there is a line
	Authorised     *bool  `json:"authorised,omitempty"` // where the issuer decides who may hold the asset
	Frozen         string `json:"frozen,omitempty"`     // in, out or both: the line, or the whole asset
	Ceiling        string `json:"ceiling,omitempty"`    // most that it may hold, says its owner
	Cap            string `json:"cap,omitempty"`        // most that it may hold, says the issuer
	Credit         string `json:"credit,omitempty"`     // how far it may be overdrawn
	Deposit        string `json:"deposit,omitempty"`    // for the line, in the fee asset

	l ledger.Line
}

// newBalanceView shows a line. feeScale is that of the fee asset.
func newBalanceView(k ledger.LineKey, l ledger.Line, open bool, a ledger.Asset, feeScale uint32) balanceView {
	format := func(amount ledger.Amount) string { return amount.Format(a.Scale) }
	v := balanceView{Asset: a.Code, Available: format(l.Spendable(a, k)), CreditsPosted: format(l.CreditsPosted), DebitsPosted: format(l.DebitsPosted),
		CreditsPending: format(l.CreditsPending), DebitsPending: format(l.DebitsPending), Entries: l.Entries, AssetID: hex.EncodeToString(k.Asset[:]), Open: open, l: l}
	own, negative := l.Balance()
	if v.Balance = format(own); negative {
		v.Balance = "-" + v.Balance
	}
	if a.Issuer == k.Account {
		issued := own
		if !negative {
			issued = ledger.Amount{}
		}
		v.Issued = format(issued)
		return v
	}
	if a.Controls&ledger.ControlAuthorisation != 0 {
		authorised := l.Flags&ledger.LineAuthorised != 0
		v.Authorised = &authorised
	}
	if a.Controls&ledger.ControlFreeze != 0 {
		v.Frozen = sidesOf(l.Flags | a.Frozen)
	}
	for _, limit := range []struct {
		amount ledger.Amount
		into   *string
	}{{l.Ceiling, &v.Ceiling}, {l.Cap, &v.Cap}, {l.Credit, &v.Credit}} {
		if !limit.amount.IsZero() {
			*limit.into = format(limit.amount)
		}
	}
	if !l.Deposit.IsZero() {
		v.Deposit = l.Deposit.Format(feeScale)
	}
	return v
}

// remarks says in words what is special about a line.
func (v balanceView) remarks() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if v.Credit != "" {
		add("%s available with credit of %s", v.Available, v.Credit)
	}
	if v.Issued != "" {
		add("can still be issued, %s are", v.Issued)
	}
	if v.Authorised != nil && !*v.Authorised {
		add("not authorised by the issuer")
	}
	if v.Frozen != "" {
		add("frozen %s", map[string]string{"in": "inwards", "out": "outwards", "both": "both ways"}[v.Frozen])
	}
	if !v.l.DebitsPending.IsZero() {
		add("%s held for others", v.DebitsPending)
	}
	if !v.l.CreditsPending.IsZero() {
		add("%s held for it", v.CreditsPending)
	}
	if v.Ceiling != "" {
		add("ceiling %s", v.Ceiling)
	}
	if v.Cap != "" {
		add("cap %s", v.Cap)
	}
	return strings.Join(parts, ", ")
}

type balanceResult struct {
	Account  crypto.Address `json:"account"`
	Name     string         `json:"name,omitempty"`
	Height   uint64         `json:"height"` // of the proven state
	Time     string         `json:"time"`
	Balances []balanceView  `json:"balances"`
	Complete bool           `json:"complete"` // always: all lines of the account, or all assets that were asked for by name
}

func (c *cli) balanceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "balance NAME|ADDRESS [CODE...]", Short: "Show balances, proven against the validators' signatures",
		Args: func(_ *cobra.Command, given []string) error {
			if len(given) == 0 {
				return usage("NAME|ADDRESS is missing")
			}
			return nil
		},
		Long: `Show balances, each proven against the validators' signatures, all at one height. Without CODE these are all lines of the
account, and that there is no other is proven too. Available is what can be paid: without what is held for others, with what the
issuer grants as credit, whether or not the line is frozen. A line with credit shows its own balance first, which may be negative.

JSON: account, name, height, time, complete, balances: asset, asset_id, open, balance, available, issued, credits_posted, debits_posted,
credits_pending, debits_pending, entries, authorised, frozen, ceiling, cap, credit, deposit.`,
		Example: "  pacioli balance alice\n  pacioli balance alice EUR PAC --output json",
		RunE: func(cmd *cobra.Command, args []string) error {
			account, err := c.account("account", args[0])
			if err != nil {
				return err
			}
			for _, code := range args[1:] {
				if err := ledger.CheckAssetCode(code); err != nil {
					return usage("%w", err)
				}
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				return c.balance(ctx, b, account, args[1:])
			})
		},
	}
}

func (c *cli) balance(ctx context.Context, b provenBooks, account crypto.Address, codes []string) error {
	parameters, err := b.Parameters(ctx, 0)
	if err != nil {
		return err
	}
	r := balanceResult{Account: account, Name: c.names()[account], Balances: []balanceView{}, Complete: true}
	if len(codes) == 0 {
		lines, err := b.Lines(ctx, account, 0)
		if err != nil {
			return err
		}
		r.Height, r.Time = lines.Height, lines.Time.UTC().Format(time.RFC3339Nano)
		fee, err := b.Asset(ctx, parameters.Value.FeeAsset, lines.Height)
		if err != nil {
			return err
		}
		hasFee := false
		for _, l := range lines.Rows {
			asset, err := b.Asset(ctx, l.Key.Asset, lines.Height)
			if err != nil {
				return err
			}
			hasFee = hasFee || l.Key.Asset == parameters.Value.FeeAsset
			r.Balances = append(r.Balances, newBalanceView(l.Key, l.Line, true, asset.Value, fee.Value.Scale))
		}
		if !hasFee {
			r.Balances = append(r.Balances, newBalanceView(ledger.LineKey{Account: account, Asset: parameters.Value.FeeAsset}, ledger.Line{}, false, fee.Value, fee.Value.Scale))
		}
		slices.SortFunc(r.Balances, func(x, y balanceView) int {
			if (x.Asset == fee.Value.Code) != (y.Asset == fee.Value.Code) {
				if x.Asset == fee.Value.Code {
					return -1
				}
				return 1
			}
			return strings.Compare(x.Asset, y.Asset)
		})
		return c.print(r, r.text)
	}
	r.Height, r.Time = parameters.Height, parameters.Time.UTC().Format(time.RFC3339Nano)
	fee, err := b.Asset(ctx, parameters.Value.FeeAsset, r.Height)
	if err != nil {
		return err
	}
	for _, code := range codes {
		id, asset, err := b.AssetByCode(ctx, code, r.Height)
		if err != nil {
			return err
		}
		if !asset.Present {
			return &problem{err: fmt.Errorf("there is no asset %s at height %d", code, r.Height), name: "asset_unknown", hint: "codes are upper case"}
		}
		k := ledger.LineKey{Account: account, Asset: id}
		line, err := b.Line(ctx, k, r.Height)
		if err != nil {
			return err
		}
		r.Balances = append(r.Balances, newBalanceView(k, line.Value, line.Present, asset.Value, fee.Value.Scale))
		c.remember(code)
	}
	return c.print(r, r.text)
}

func (r balanceResult) text(w io.Writer) {
	for _, v := range r.Balances {
		first := v.Available
		if v.Credit != "" {
			first = v.Balance // its own, which may be below 0; what is available stands behind it
		}
		fmt.Fprintf(w, "%s\t%s", first, v.Asset)
		if remarks := v.remarks(); remarks != "" {
			fmt.Fprintf(w, "\t%s", remarks)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "proven at height %d, %s\n", r.Height, r.Time)
}
