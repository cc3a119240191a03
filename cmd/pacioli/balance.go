package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// balanceView is an account's line in one asset.
type balanceView struct {
	Asset          string `json:"asset"`
	Available      string `json:"available"`        // what it can pay; of an issuer, what it can still issue
	Issued         string `json:"issued,omitempty"` // of an issuer only
	CreditsPosted  string `json:"credits_posted"`
	DebitsPosted   string `json:"debits_posted"`
	CreditsPending string `json:"credits_pending"`
	DebitsPending  string `json:"debits_pending"`
	Entries        uint64 `json:"entries"`
}

type balanceResult struct {
	Account  crypto.Address `json:"account"`
	Name     string         `json:"name,omitempty"`
	Height   uint64         `json:"height"` // of the proven state
	Time     string         `json:"time"`
	Balances []balanceView  `json:"balances"`
	Complete bool           `json:"complete"` // whether these are all assets that were asked for by name
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
		Long: `Show balances, each proven against the validators' signatures, all at one height. Without CODE the assets are the one
that fees are paid in and those that this home has met: which other assets an account holds cannot be proven complete,
so name the codes that matter.

JSON: account, name, height, time, complete, balances: asset, available, issued, credits_posted, debits_posted,
credits_pending, debits_pending, entries.`,
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
	height := parameters.Height
	r := balanceResult{Account: account, Name: c.names()[account], Height: height, Time: parameters.Time.UTC().Format(time.RFC3339Nano),
		Balances: []balanceView{}, Complete: len(codes) > 0}
	asked := len(codes) > 0
	if !asked {
		fee, err := b.Asset(ctx, parameters.Value.FeeAsset, height)
		if err != nil {
			return err
		}
		codes = append([]string{fee.Value.Code}, slices.DeleteFunc(c.seenCodes(), func(s string) bool { return s == fee.Value.Code })...)
	}
	for _, code := range codes {
		id, asset, err := b.AssetByCode(ctx, code, height)
		if err != nil {
			return err
		}
		if !asset.Present {
			if !asked {
				continue // remembered from another network
			}
			return &problem{err: fmt.Errorf("there is no asset %s at height %d", code, height), name: "asset_unknown", hint: "codes are upper case"}
		}
		line, err := b.Line(ctx, ledger.LineKey{Account: account, Asset: id}, height)
		if err != nil {
			return err
		}
		if !asked && !line.Present && len(r.Balances) > 0 {
			continue
		}
		l, scale := line.Value, asset.Value.Scale
		v := balanceView{code, l.Available().Format(scale), "", l.CreditsPosted.Format(scale), l.DebitsPosted.Format(scale),
			l.CreditsPending.Format(scale), l.DebitsPending.Format(scale), l.Entries}
		if asset.Value.Issuer == account {
			issued, negative := l.Balance()
			if !negative {
				issued = ledger.Amount{}
			}
			v.Issued = issued.Format(scale)
			if left, ok := asset.Value.MaxSupply.Sub(issued); ok {
				v.Available = left.Format(scale)
			}
		}
		r.Balances = append(r.Balances, v)
		if asked {
			c.remember(code)
		}
	}
	return c.print(r, func(w io.Writer) {
		for _, v := range r.Balances {
			fmt.Fprintf(w, "%s\t%s", v.Available, v.Asset)
			if v.Issued != "" {
				fmt.Fprintf(w, "\tcan still be issued, %s are", v.Issued)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "proven at height %d, %s\n", r.Height, r.Time)
	})
}
