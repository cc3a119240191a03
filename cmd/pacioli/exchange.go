package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) exchangeCommand() *cobra.Command {
	var d deedFlags
	var with string
	cmd := &cobra.Command{
		Use: "exchange --from KEY --with NAME|ADDRESS AMOUNT CODE AMOUNT CODE --out FILE", Short: "Exchange two assets with another account, both or neither",
		Args: args("AMOUNT", "CODE", "AMOUNT", "CODE"),
		Long: `Exchange two assets: --from gives the first amount and gets the second from --with, in one transaction that both sign, so that
both payments happen or neither. The file goes to each side, who looks at it and signs: pacioli tx sign FILE; then either
broadcasts it. --sequence leaves them the time that they need. The first signer pays the fee.

Without --out both sides' keys must be in this home, and it is sent at once. JSON: as tx inspect with --out, else as pacioli pay.`,
		Example: "  pacioli exchange --from alice --with bob 10 EUR 11 USD --sequence --out exchange.tx\n  pacioli tx sign exchange.tx --key alice",
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := d.send.check(); err != nil {
				return err
			}
			from, err := c.payer(d.from, nil)
			if err != nil {
				return err
			}
			other, err := c.party("--with", with, nil)
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), d.send, func(ctx context.Context, b provenBooks) error {
				gives := &ledger.Transfer{From: 0, To: other.address}
				gets := &ledger.Transfer{From: 1, To: from.address}
				if gives.Asset, gives.Amount, err = c.amountOf(ctx, b, "", given[0], given[1]); err != nil {
					return err
				}
				if gets.Asset, gets.Amount, err = c.amountOf(ctx, b, "", given[2], given[3]); err != nil {
					return err
				}
				if strings.EqualFold(given[1], given[3]) {
					return usage("both amounts are in %s: an exchange is of two assets", given[1])
				}
				return c.perform(ctx, b, request{[]payer{from, other}, []ledger.Operation{gives, gets}, d.send})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.from, "from", "", "account that gives the first amount: a key of this home, or an address")
	f.StringVar(&with, "with", "", "account that gives the second one")
	d.send.add(cmd)
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("with")
	return cmd
}
