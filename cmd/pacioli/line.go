package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) lineCommand() *cobra.Command {
	line := &cobra.Command{
		Use: "line", Short: "Open, limit and close your own lines: what an account holds in an asset", Args: commandsOnly,
		Long: `An account has a line in each asset that it holds, opened by the first payment to it. pacioli balance shows them. A line takes a
deposit, which is paid back when it is closed. What the asset's issuer can do to a line: pacioli asset.`,
		Example: "  pacioli line open EUR --from alice",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	line.AddCommand(c.lineOpen(), c.lineLimit(), c.lineClose())
	return line
}

func (c *cli) lineOpen() *cobra.Command {
	var d deedFlags
	var ceiling string
	cmd := &cobra.Command{
		Use: "open CODE --from KEY", Short: "Open a line in an asset, before anybody pays", Args: args("CODE"),
		Long: `Open a line in an asset before anybody pays: needed by accounts that have opted in (pacioli account opt-in) and where the
issuer authorises lines. With --ceiling it never holds more than that.

JSON: as pacioli pay.`,
		Example: "  pacioli line open EUR --from alice --ceiling 500",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, _ payer) ([]ledger.Operation, error) {
				id, _, err := b.assetByCode(ctx, args[0])
				if err != nil {
					return nil, err
				}
				c.remember(args[0])
				limit, err := c.limitOf(ctx, b, "--ceiling", ceiling, args[0])
				return []ledger.Operation{&ledger.OpenLine{Asset: id, Ceiling: limit}}, err
			})
		},
	}
	d.add(cmd, "account whose line it is")
	cmd.Flags().StringVar(&ceiling, "ceiling", "", "the most that it may hold, in decimals (default: no limit)")
	return cmd
}

func (c *cli) lineLimit() *cobra.Command {
	var d deedFlags
	var ceiling string
	cmd := &cobra.Command{
		Use: "limit CODE --from KEY --ceiling X|none", Short: "Set the most that your line may hold", Args: args("CODE"),
		Long:    "Set the most that your line in an asset may hold; payments that would pass it fail.\n\nJSON: as pacioli pay.",
		Example: "  pacioli line limit EUR --from alice --ceiling 1000",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, _ payer) ([]ledger.Operation, error) {
				id, _, err := b.assetByCode(ctx, args[0])
				if err != nil {
					return nil, err
				}
				limit, err := c.limitOf(ctx, b, "--ceiling", ceiling, args[0])
				return []ledger.Operation{&ledger.OpenLine{Asset: id, Ceiling: limit}}, err
			})
		},
	}
	d.add(cmd, "account whose line it is")
	cmd.Flags().StringVar(&ceiling, "ceiling", "", "the most that it may hold, in decimals, or none")
	_ = cmd.MarkFlagRequired("ceiling")
	return cmd
}

func (c *cli) lineClose() *cobra.Command {
	var d deedFlags
	var to string
	cmd := &cobra.Command{
		Use: "close CODE --from KEY", Short: "Close an empty line, and get its deposit back", Args: args("CODE"),
		Long: `Close a line that holds, owes and promises nothing. Its deposit goes back to who has put it down; what the account itself has
put down goes to --to. A line that is opened again begins a new journal.

JSON: as pacioli pay.`,
		Example: "  pacioli line close EUR --from alice",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
				id, _, err := b.assetByCode(ctx, args[0])
				if err != nil {
					return nil, err
				}
				op := &ledger.CloseLine{Asset: id, To: from.address}
				if to != "" {
					op.To, err = c.account("--to", to)
				}
				return []ledger.Operation{op}, err
			})
		},
	}
	d.add(cmd, "account whose line it is")
	cmd.Flags().StringVar(&to, "to", "", "account that receives the deposit, on its line of the fee asset (default: --from)")
	return cmd
}
