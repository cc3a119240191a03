package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) accountOptIn() *cobra.Command {
	var d deedFlags
	cmd := &cobra.Command{
		Use: "opt-in on|off --from KEY", Short: "Take only assets for which the account has opened a line itself", Args: args("on|off"),
		Long: `With opt-in on, nobody can pay the account an asset for which it has not opened a line (pacioli line open). Off is the
beginning: whoever pays opens the line. What is there already stays.

JSON: as pacioli pay.`,
		Example: "  pacioli account opt-in on --from alice", ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "on" && args[0] != "off" {
				return usage("%q: want on or off", args[0])
			}
			return c.do(cmd.Context(), d, func(context.Context, provenBooks, payer) ([]ledger.Operation, error) {
				return []ledger.Operation{&ledger.SetAccount{OptIn: args[0] == "on"}}, nil
			})
		},
	}
	d.add(cmd, "account that chooses")
	return cmd
}

func (c *cli) accountClose() *cobra.Command {
	var d deedFlags
	var to string
	var sweep, yes bool
	cmd := &cobra.Command{
		Use: "close --from KEY --to NAME|ADDRESS", Short: "Close an account for ever, and get its deposit back", Args: args(),
		Long: `Close an account for ever. It must have no lines, grants or assets of its own; what is in the way is named. --sweep builds the
whole transaction: everything that the account holds goes to --to, its grants are revoked, its lines closed, and then the
account, all or nothing. The deposits that it has put down go to --to as well, which needs a line in the fee asset.

Holds must be resolved first, and what is frozen, overdrawn, or an asset that the account issues stays in the way. Who pays
the account by mistake afterwards gets an error. JSON: as pacioli pay.`,
		Example: "  pacioli account close --from old --to alice --sweep --dry-run\n  pacioli account close --from old --to alice --sweep",
		RunE: func(cmd *cobra.Command, _ []string) error {
			receiver, err := c.account("--to", to)
			if err != nil {
				return err
			}
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
				if receiver == from.address {
					return nil, usage("--to is the account that closes")
				}
				if old, err := c.earlierOperations(from.address, d.send); err != nil || old != nil {
					return old, err // it may have been done: nothing is left to look at
				}
				operations, obstacles, err := c.closing(ctx, b, from.address, receiver, sweep)
				if err != nil {
					return nil, err
				}
				if len(obstacles) > 0 {
					hint := "close its lines and revoke its grants first"
					if !sweep {
						hint += "; --sweep does all that can be done, in one transaction"
					}
					return nil, &problem{err: fmt.Errorf("in the way of closing %s: %s", from.address, strings.Join(obstacles, "; ")), name: ledger.AccountInUse.String(), hint: hint}
				}
				if d.send.dryRun || d.send.out != "" {
					return operations, nil
				}
				return operations, c.confirm(yes, fmt.Sprintf("Close %s for ever, in %d operations?", from.address, len(operations)))
			})
		},
	}
	d.add(cmd, "account that closes")
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "account that receives the deposits, and with --sweep everything else")
	f.BoolVar(&sweep, "sweep", false, "move everything to --to, revoke grants and close lines in the same transaction")
	f.BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

// closing returns the operations that close an account, and what no operation of its own can move out of the way.
func (c *cli) closing(ctx context.Context, b provenBooks, account, to crypto.Address, sweep bool) (operations []ledger.Operation, obstacles []string, err error) {
	lines, err := b.Lines(ctx, account, 0)
	if err != nil {
		return nil, nil, err
	}
	holdings, err := b.Holdings(ctx, account, lines.Height)
	if err != nil {
		return nil, nil, err
	}
	parameters, err := b.Parameters(ctx, lines.Height)
	if err != nil {
		return nil, nil, err
	}
	grants, err := b.Grants(ctx, account, 0)
	if err != nil {
		return nil, nil, err
	}
	if n := holdings.Value.Assets; n > 0 {
		obstacles = append(obstacles, fmt.Sprintf("it issues %d assets, which is for ever", n))
	}
	var last, closings []ledger.Operation // the fee asset is swept last: it pays for the rest
	for _, l := range lines.Rows {
		asset, err := b.Asset(ctx, l.Key.Asset, lines.Height)
		if err != nil {
			return nil, nil, err
		}
		code, scale := asset.Value.Code, asset.Value.Scale
		if asset.Value.Issuer == account {
			continue // named above
		}
		balance, negative := l.Line.Balance()
		isFee := l.Key.Asset == parameters.Value.FeeAsset
		frozen := (l.Line.Flags | asset.Value.Frozen) & (ledger.LineFrozenIn | ledger.LineFrozenOut)
		switch {
		case !l.Line.DebitsPending.IsZero() || !l.Line.CreditsPending.IsZero():
			obstacles = append(obstacles, fmt.Sprintf("its line in %s has holds, %s out and %s in (pacioli hold list)", code, l.Line.DebitsPending.Format(scale), l.Line.CreditsPending.Format(scale)))
		case negative:
			obstacles = append(obstacles, fmt.Sprintf("its line in %s is overdrawn by %s", code, balance.Format(scale)))
		case frozen != 0 && asset.Value.Controls&ledger.ControlFreeze != 0:
			obstacles = append(obstacles, fmt.Sprintf("its line in %s is frozen", code))
		case isFee && !l.Line.Credit.IsZero():
			obstacles = append(obstacles, fmt.Sprintf("its line in %s may be overdrawn by %s, so what is left of it after the fee cannot be swept", code, l.Line.Credit.Format(scale)))
		case !sweep:
			obstacles = append(obstacles, fmt.Sprintf("its line in %s, which holds %s", code, balance.Format(scale)))
		}
		// Whatever is there by then, but no more than the account's own where the issuer grants credit.
		pay := &ledger.Transfer{To: to, Asset: l.Key.Asset, Amount: ledger.MaxAmount, Balancing: ledger.BalancingDebit}
		if !l.Line.Credit.IsZero() {
			pay.Amount = balance
		}
		switch {
		case isFee && !balance.IsZero():
			last = append(last, pay)
		case !balance.IsZero():
			operations = append(operations, pay)
		}
		closings = append(closings, &ledger.CloseLine{Asset: l.Key.Asset, To: to})
	}
	for _, g := range grants.Rows {
		if !sweep {
			obstacles = append(obstacles, fmt.Sprintf("its grant for %s to %s", kindName(g.Key.Kind), g.Key.Grantee))
			continue
		}
		operations = append(operations, &ledger.RevokeGrant{Grantee: g.Key.Grantee, For: g.Key.Kind, Asset: g.Key.Asset})
	}
	operations = append(append(append(operations, last...), closings...), &ledger.CloseAccount{To: to})
	if len(operations) > ledger.MaxOperations {
		obstacles = append(obstacles, fmt.Sprintf("it takes %d operations, and one transaction has at most %d", len(operations), ledger.MaxOperations))
	}
	return operations, obstacles, nil
}
