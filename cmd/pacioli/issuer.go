package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// What an issuer does with its asset and with the lines of those who hold it.

// controls are the names of the bits of [ledger.Controls].
var controls = []string{"authorisation", "freeze", "clawback"}

// sides reads in, out or both.
func sides(flag, text string) (ledger.LineFlags, error) {
	switch text {
	case "":
		return 0, nil
	case "in":
		return ledger.LineFrozenIn, nil
	case "out":
		return ledger.LineFrozenOut, nil
	case "both":
		return ledger.LineFrozenIn | ledger.LineFrozenOut, nil
	}
	return 0, usage("%s %q: want in, out or both", flag, text)
}

// sidesOf is sides the other way round; "" for none.
func sidesOf(f ledger.LineFlags) string {
	switch f & (ledger.LineFrozenIn | ledger.LineFrozenOut) {
	case ledger.LineFrozenIn:
		return "in"
	case ledger.LineFrozenOut:
		return "out"
	case 0:
		return ""
	}
	return "both"
}

// powers says in words what an issuer can still do to those who hold its asset, and what it never can.
func powers(a ledger.Asset, issuable string) (can, cannot []string) {
	can = append(can, fmt.Sprintf("issue up to %s %s more", issuable, a.Code), "lower the maximum supply", "let chosen accounts overdraw their lines, within the maximum supply")
	for _, x := range []struct {
		control  ledger.Controls
		can, not string
	}{
		{ledger.ControlAuthorisation, "decide who may hold the asset, withdraw that, and how much each may hold", "decide who may hold the asset"},
		{ledger.ControlFreeze, "freeze one line or the whole asset, and unfreeze it", "freeze anything"},
		{ledger.ControlClawback, "take amounts back from those who hold them, and void holds", "take anything back"},
	} {
		if a.Controls&x.control != 0 {
			can = append(can, x.can)
		} else {
			cannot = append(cannot, x.not)
		}
	}
	if a.Controls != 0 {
		can = append(can, "give any of these controls up, for ever")
	}
	return can, append(cannot, "raise the maximum supply, or change code and decimals")
}

func (c *cli) assetSet() *cobra.Command {
	var d deedFlags
	var drop []string
	var supply, freeze, unfreeze string
	cmd := &cobra.Command{
		Use: "set CODE --from ISSUER", Short: "Lower the maximum supply, give controls up, freeze or unfreeze the whole asset", Args: args("CODE"),
		Long: `Change an asset in the only directions that there are: the maximum supply goes down, controls are given up for ever, and the
whole asset is frozen or unfrozen. pacioli asset freeze CODE does the last for people.

JSON: as pacioli pay.`,
		Example: "  pacioli asset set EUR --from bank --max-supply 500000 --drop-control clawback",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, _ payer) ([]ledger.Operation, error) {
				id, _, err := b.assetByCode(ctx, args[0])
				if err != nil {
					return nil, err
				}
				op := &ledger.SetAsset{Asset: id}
				if op.DropControls, err = bitsOf[ledger.Controls]("--drop-control", drop, controls); err != nil {
					return nil, err
				}
				if supply != "" {
					if _, op.MaxSupply, err = c.amountOf(ctx, b, "--max-supply", supply, args[0]); err != nil {
						return nil, err
					}
				}
				if op.Freeze, err = sides("--freeze", freeze); err != nil {
					return nil, err
				}
				if op.Unfreeze, err = sides("--unfreeze", unfreeze); err != nil {
					return nil, err
				}
				return []ledger.Operation{op}, nil
			})
		},
	}
	d.add(cmd, "issuer")
	f := cmd.Flags()
	f.StringSliceVar(&drop, "drop-control", nil, "controls to give up for ever: "+strings.Join(controls, ", "))
	f.StringVar(&supply, "max-supply", "", "the new maximum supply, in decimals: lower than it is")
	f.StringVar(&freeze, "freeze", "", "what all lines stop: in, out or both")
	f.StringVar(&unfreeze, "unfreeze", "", "what all lines may do again: in, out or both")
	return cmd
}

// lineOf is a command by which an issuer sets something on the line of an account.
func (c *cli) lineOf(use, short, long, example string, set func(cmd *cobra.Command) func(ctx context.Context, b provenBooks, code string, op *ledger.SetLine) error) *cobra.Command {
	var d deedFlags
	cmd := &cobra.Command{Use: use + " CODE NAME|ADDRESS --from ISSUER", Short: short, Args: args("CODE", "NAME|ADDRESS"), Long: long + "\n\nJSON: as pacioli pay.", Example: example}
	fill := set(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, _ payer) ([]ledger.Operation, error) {
			id, _, err := b.assetByCode(ctx, args[0])
			if err != nil {
				return nil, err
			}
			op := &ledger.SetLine{Asset: id}
			if op.Account, err = c.account("account", args[1]); err != nil {
				return nil, err
			}
			return []ledger.Operation{op}, fill(ctx, b, args[0], op)
		})
	}
	d.add(cmd, "issuer")
	return cmd
}

func (c *cli) assetAuthorise() *cobra.Command {
	return c.lineOf("authorise", "Let an account hold an asset that needs authorisation",
		"Let an account hold and pay an asset whose issuer controls that. Its line is opened when it has none.", "  pacioli asset authorise EUR alice --from bank",
		func(*cobra.Command) func(context.Context, provenBooks, string, *ledger.SetLine) error {
			return func(_ context.Context, _ provenBooks, _ string, op *ledger.SetLine) error {
				op.Set = ledger.LineAuthorised
				return nil
			}
		})
}

func (c *cli) assetDeauthorise() *cobra.Command {
	return c.lineOf("deauthorise", "Withdraw an authorisation: the line keeps what it has, and can neither pay nor be paid",
		"Withdraw an authorisation. The line keeps what it has, and can neither pay nor be paid until it is authorised again.", "  pacioli asset deauthorise EUR alice --from bank",
		func(*cobra.Command) func(context.Context, provenBooks, string, *ledger.SetLine) error {
			return func(_ context.Context, _ provenBooks, _ string, op *ledger.SetLine) error {
				op.Clear = ledger.LineAuthorised
				return nil
			}
		})
}

func (c *cli) assetLimit() *cobra.Command {
	return c.lineOf("limit", "Set how far an account may overdraw its line, and the most that it may hold",
		"Set the credit of an account's line, which is how far it may be overdrawn, or its cap, the most that it may hold (only with the\ncontrol authorisation).",
		"  pacioli asset limit EUR alice --from bank --credit 200\n  pacioli asset limit EUR alice --from bank --cap none",
		func(cmd *cobra.Command) func(context.Context, provenBooks, string, *ledger.SetLine) error {
			var credit, limit string
			cmd.Flags().StringVar(&credit, "credit", "", "how far it may be overdrawn, in decimals, or none")
			cmd.Flags().StringVar(&limit, "cap", "", "the most that it may hold, in decimals, or none")
			return func(ctx context.Context, b provenBooks, code string, op *ledger.SetLine) (err error) {
				if credit == "" && limit == "" {
					return usage("--credit or --cap is missing")
				}
				if op.Credit, err = c.limitOf(ctx, b, "--credit", credit, code); err != nil {
					return err
				}
				op.Cap, err = c.limitOf(ctx, b, "--cap", limit, code)
				return err
			}
		})
}

func (c *cli) assetFreeze(verb string) *cobra.Command {
	var d deedFlags
	var side string
	cmd := &cobra.Command{
		Use: verb + " CODE [NAME|ADDRESS] --from ISSUER",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) < 2 {
				return args("CODE")(cmd, given)
			}
			return args("CODE", "NAME|ADDRESS")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			flags, err := sides("--side", side)
			if err != nil {
				return err
			}
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, _ payer) ([]ledger.Operation, error) {
				id, _, err := b.assetByCode(ctx, args[0])
				if err != nil {
					return nil, err
				}
				if len(args) == 1 {
					op := &ledger.SetAsset{Asset: id, Freeze: flags}
					if verb == "unfreeze" {
						op.Freeze, op.Unfreeze = 0, flags
					}
					return []ledger.Operation{op}, nil
				}
				op := &ledger.SetLine{Asset: id, Set: flags}
				if verb == "unfreeze" {
					op.Set, op.Clear = 0, flags
				}
				op.Account, err = c.account("account", args[1])
				return []ledger.Operation{op}, err
			})
		},
	}
	if verb == "freeze" {
		cmd.Short = "Stop what comes in, goes out or both, of one account or of the whole asset"
		cmd.Long = "Stop what comes in, goes out or both, of one account's line, or without NAME|ADDRESS of all lines. Payments to and from the\nissuer itself count for the other side's line.\n\nJSON: as pacioli pay."
		cmd.Example = "  pacioli asset freeze EUR alice --from bank --side out\n  pacioli asset freeze EUR --from bank"
	} else {
		cmd.Short = "End a freeze, of one account or of the whole asset"
		cmd.Long = "End a freeze of one account's line, or without NAME|ADDRESS that of all lines. The two are independent.\n\nJSON: as pacioli pay."
		cmd.Example = "  pacioli asset unfreeze EUR alice --from bank"
	}
	d.add(cmd, "issuer")
	cmd.Flags().StringVar(&side, "side", "both", "in, out or both")
	return cmd
}

func (c *cli) assetClawback() *cobra.Command {
	var d deedFlags
	var n noteFlags
	cmd := &cobra.Command{
		Use: "clawback CODE NAME|ADDRESS AMOUNT --from ISSUER", Short: "Take an amount back from an account", Args: args("CODE", "NAME|ADDRESS", "AMOUNT"),
		Long: `Take an amount back from an account, whether or not its line is frozen: what it has available, not what is held (pacioli hold
void returns that first). With --balancing debit AMOUNT is the most.

JSON: as pacioli pay.`,
		Example: "  pacioli asset clawback EUR alice 100 --from bank --memo \"court order 7\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, _ payer) ([]ledger.Operation, error) {
				op := &ledger.Clawback{Memo: n.memo, Code: n.code}
				var err error
				if op.Reference, op.Balancing, err = n.read(); err != nil {
					return nil, err
				}
				if op.Balancing&ledger.BalancingCredit != 0 {
					return nil, usage("--balancing %s: a clawback takes debit only", n.balancing)
				}
				if op.Account, err = c.account("account", args[1]); err != nil {
					return nil, err
				}
				op.Asset, op.Amount, err = c.amountOf(ctx, b, "", args[2], args[0])
				return []ledger.Operation{op}, err
			})
		},
	}
	d.add(cmd, "issuer")
	n.add(cmd)
	return cmd
}
