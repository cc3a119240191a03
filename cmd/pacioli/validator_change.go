package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// proposalFlags are those of every command that makes a proposal.
type proposalFlags struct {
	deedFlags
	expires string
}

// defaultExpiry is how long a proposal is open: operators are people, who have weekends.
const defaultExpiry = 7 * 24 * time.Hour

const proposes = `

It makes a proposal, which its maker has approved; the other operators approve it by pacioli proposal approve. It takes effect
with more than two thirds of the power, and for the signing of blocks two blocks later.

JSON: as pacioli pay, its result with proposal and executed, and parameters_changed (name, from, to); with --dry-run also change: change, vote (power, needed, total, open),
decides, before and after (active, inactive, power, quorum, may_fail), refused_by, parameters_changed (name, from, to).`

func (p *proposalFlags) add(cmd *cobra.Command) {
	p.deedFlags.add(cmd, "operator of a validator")
	cmd.Flags().StringVar(&p.expires, "expires", defaultExpiry.String(), "when the proposal ends: a time such as 2026-01-31T12:00:00Z, or how long from now, at most 744h")
}

// propose makes a proposal of a change.
func (c *cli) propose(ctx context.Context, p proposalFlags, change func(ctx context.Context, b provenBooks, from payer) (ledger.Change, error)) error {
	return c.do(ctx, p.deedFlags, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
		what, err := change(ctx, b, from)
		if err != nil {
			return nil, err
		}
		op := &ledger.Propose{Change: what}
		relative := false
		if op.Expires, relative, err = c.moment(ctx, b, "--expires", p.expires); err != nil {
			return nil, err
		}
		// The same again is the same bytes: what was made up from the clock is taken from the earlier attempt.
		earlier, err := c.earlier(from.address, p.send)
		if err != nil {
			return nil, err
		}
		if old, ok := earlier.(*ledger.Propose); ok && relative && bytes.Equal(ledger.EncodeChange(old.Change), ledger.EncodeChange(what)) {
			op.Expires = old.Expires
		}
		return []ledger.Operation{op}, nil
	})
}

// onValidator is a command that proposes something about one validator.
func (c *cli) onValidator(cmd *cobra.Command, change func(v ledger.Validator, args []string) (ledger.Change, error)) *cobra.Command {
	var p proposalFlags
	cmd.Long += proposes
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.propose(cmd.Context(), p, func(ctx context.Context, b provenBooks, _ payer) (ledger.Change, error) {
			set, err := b.Validators(ctx, 0)
			if err != nil {
				return nil, err
			}
			v, err := c.theValidator(set.Value, args[0])
			if err != nil {
				return nil, err
			}
			return change(v, args)
		})
	}
	p.add(cmd)
	return cmd
}

func (c *cli) validatorAdd() *cobra.Command {
	var p proposalFlags
	var file, name string
	var power uint64
	cmd := &cobra.Command{
		Use: "add --key-file FILE --from OPERATOR", Short: "Propose to add a validator", Args: args(),
		Long:    "Propose to add the validator whose operator has made the key file, by pacioli validator join or validator key." + proposes,
		Example: "  pacioli validator add --key-file five.validator.json --from op1 --dry-run\n  pacioli validator add --key-file five.validator.json --from op1 --power 10",
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := readValidatorFile(file)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("name") {
				f.Name = name
			}
			return c.propose(cmd.Context(), p, func(ctx context.Context, b provenBooks, _ payer) (ledger.Change, error) {
				change := &ledger.AddValidator{Operator: f.Operator, Power: power, Name: f.Name}
				var err error
				if change.Scheme, change.PublicKey, change.Proof, err = f.key(b.network()); err != nil {
					return nil, err
				}
				if power == 0 {
					set, err := b.Validators(ctx, 0)
					if err != nil {
						return nil, err
					}
					if change.Power, err = equalPower(set.Value); err != nil {
						return nil, err
					}
				}
				return change, nil
			})
		},
	}
	p.add(cmd)
	f := cmd.Flags()
	f.StringVar(&file, "key-file", "", "key file of the new validator")
	f.Uint64Var(&power, "power", 0, "its voting power (default: that of the others, when they are equal)")
	f.StringVar(&name, "name", "", "what it is to be called (default: as in the key file)")
	_ = cmd.MarkFlagRequired("key-file")
	return cmd
}

// equalPower is the power of every active validator.
func equalPower(set []ledger.Validator) (uint64, error) {
	var power uint64
	for _, v := range set {
		if v.Active() && power != 0 && v.Power != power {
			return 0, usage("--power is missing: the validators have different powers")
		}
		power = max(power, v.Power)
	}
	return power, nil
}

func (c *cli) validatorRemove() *cobra.Command {
	return c.onValidator(&cobra.Command{
		Use: "remove VALIDATOR --from OPERATOR", Short: "Propose to remove a validator", Args: args("VALIDATOR"),
		Long:    "Propose to remove a validator. Its operator's bond is free after bond_seconds, in which evidence can still come.",
		Example: "  pacioli validator remove bank-five --from op1 --dry-run",
	}, func(v ledger.Validator, _ []string) (ledger.Change, error) {
		return &ledger.RemoveValidator{Validator: v.Address()}, nil
	})
}

func (c *cli) validatorPower() *cobra.Command {
	return c.onValidator(&cobra.Command{
		Use: "power VALIDATOR POWER --from OPERATOR", Short: "Propose another voting power for a validator", Args: args("VALIDATOR", "POWER"),
		Long: "Propose another voting power for a validator.", Example: "  pacioli validator power bank-five 20 --from op1 --dry-run",
	}, func(v ledger.Validator, args []string) (ledger.Change, error) {
		power, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil || power == 0 || power > ledger.MaxValidatorPower {
			return nil, usage("POWER %q: want 1 to %d; pacioli validator remove takes it all", args[1], uint64(ledger.MaxValidatorPower))
		}
		return &ledger.SetPower{Validator: v.Address(), Power: power}, nil
	})
}

func (c *cli) validatorRotate() *cobra.Command {
	var p proposalFlags
	var nodeHome, keyType, file string
	cmd := &cobra.Command{
		Use: "rotate --from OPERATOR", Short: "Propose another consensus key for the operator's own validator", Args: args(),
		Long: `Propose another consensus key for the validator that --from operates. With --node-home the key is made there, in
config/priv_validator_key.next.json, unless it is there already; with --key-file it was made by "validator key --next" on the
node's machine. The node, running or stopped, takes the key into use at the first block whose set has it, by itself, and keeps
the old one as config/priv_validator_key.retired-ADDRESS.json.` + proposes,
		Example: `  pacioli validator rotate --node-home /srv/pacioli --validator-key-type ml_dsa_65 --from op5
  pacioli validator rotate --key-file next.validator.json --from op5`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" && (nodeHome != "" || cmd.Flags().Changed("validator-key-type")) {
				return usage("--key-file has a key: --node-home and --validator-key-type are of one that is made")
			}
			return c.propose(cmd.Context(), p, func(ctx context.Context, b provenBooks, from payer) (ledger.Change, error) {
				set, err := b.Validators(ctx, 0)
				if err != nil {
					return nil, err
				}
				i := slices.IndexFunc(set.Value, func(v ledger.Validator) bool { return v.Present() && v.Operator == from.address })
				if i < 0 {
					return nil, &problem{err: fmt.Errorf("%s operates no validator", from.address), name: ledger.ValidatorUnknown.String(), hint: "pacioli validator list shows the operators"}
				}
				f, err := c.nextKey(node.Home(nodeHome), keyType, file, from.address, set.Value[i])
				if err != nil {
					return nil, err
				}
				if f.Operator != from.address {
					return nil, usage("--key-file: its proof is for operator %s, and --from is %s", f.Operator, from.address)
				}
				change := &ledger.RotateKey{Validator: set.Value[i].Address(), Operator: from.address}
				change.Scheme, change.PublicKey, change.Proof, err = f.key(b.network())
				return change, err
			})
		},
	}
	p.add(cmd)
	f := cmd.Flags()
	f.StringVar(&nodeHome, "node-home", "", "home of the node, in which the new key is made (default: --home)")
	f.StringVar(&keyType, "validator-key-type", node.KeyEd25519, "of the new key: ed25519 or ml_dsa_65")
	f.StringVar(&file, "key-file", "", "key file that was made by validator key --next")
	return cmd
}

// nextKey is the key that a rotation brings in.
func (c *cli) nextKey(h node.Home, keyType, file string, operator crypto.Address, now ledger.Validator) (validatorFile, error) {
	if file != "" {
		return readValidatorFile(file)
	}
	if h == "" {
		h = node.Home(c.home)
	}
	// A key in the wrong home would be one that no node ever signs with.
	own, err := h.Validator()
	if err != nil {
		return validatorFile{}, hinted(err, "--node-home names the home of the node; on another machine, pacioli validator key --next there and --key-file here")
	}
	if own.Address != consensusAddress(now.Address()) {
		return validatorFile{}, hinted(fmt.Errorf("%s has validator key %s, and the validator is %s", h, own.Address, consensusAddress(now.Address())), "--node-home names the home of the validator's node")
	}
	if _, err := h.NewNextKey(keyType); err != nil {
		return validatorFile{}, err
	}
	return proveKey(h, true, operator, "")
}

// byOperator is a command by which an operator does one thing; no operation: it is done already, and was shown.
func (c *cli) byOperator(cmd *cobra.Command, what func(ctx context.Context, b provenBooks, from payer, s sendFlags, args []string) (ledger.Operation, error)) *cobra.Command {
	var d deedFlags
	cmd.Long += "\n\nJSON: as pacioli pay."
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
			op, err := what(ctx, b, from, d.send, args)
			if op == nil {
				return nil, err
			}
			return []ledger.Operation{op}, err
		})
	}
	d.add(cmd, "operator of a validator")
	return cmd
}

func (c *cli) validatorBond() *cobra.Command {
	return c.byOperator(&cobra.Command{
		Use: "bond [AMOUNT] --from OPERATOR", Short: "Bond an amount of the fee asset for the validator that one operates, or is to", Args: cobra.MaximumNArgs(1),
		Long: `Bond an amount of the fee asset, by default what the network asks for. It is held until pacioli validator release, which is possible
bond_seconds after the last validator of the account has left; a validator that signs two blocks at one height loses it.`,
		Example: "  pacioli validator bond --from op5\n  pacioli validator bond 5000 --from op5",
	}, func(ctx context.Context, b provenBooks, from payer, _ sendFlags, given []string) (ledger.Operation, error) {
		amount := ""
		if len(given) == 1 {
			amount = given[0]
		}
		op, err := c.bondOf(ctx, b, from.address, amount)
		if err == nil && op == nil {
			err = hinted(fmt.Errorf("nothing to bond: the network asks for no bond, or it is there"), "give AMOUNT to bond one regardless")
		}
		return op, err
	})
}

func (c *cli) validatorRelease() *cobra.Command {
	return c.byOperator(&cobra.Command{
		Use: "release --from OPERATOR", Short: "Take the bond back", Args: args(),
		Long:    "Take the bond back, when the account operates no validator any more and bond_seconds have passed since it did.",
		Example: "  pacioli validator release --from op5",
	}, func(context.Context, provenBooks, payer, sendFlags, []string) (ledger.Operation, error) {
		return &ledger.ReleaseBond{}, nil
	})
}

func (c *cli) validatorReactivate() *cobra.Command {
	return c.byOperator(&cobra.Command{
		Use: "reactivate --from OPERATOR", Short: "Take the power back that the validator has lost by missing blocks", Args: args(),
		Long:    "Take the power back that the operator's validator has lost by missing blocks. No vote is needed. See that its node follows first.",
		Example: "  pacioli health --node http://127.0.0.1:26657 && pacioli validator reactivate --from op5",
	}, func(context.Context, provenBooks, payer, sendFlags, []string) (ledger.Operation, error) {
		return &ledger.Reactivate{}, nil
	})
}
