package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) validatorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validator", Short: "The validators: show, join, change by vote, rotate a key, bond", Args: commandsOnly,
		Long: `The validators of the network. Each has an operator, an account apart from its consensus key. Operators of validators with power
propose changes and approve them; with more than two thirds of the power a change takes effect. --dry-run says, before anybody
signs, how many validators may fail before and after, and which rule would refuse the change.`,
		Example: `  pacioli validator list
  pacioli validator join --node-home /srv/pacioli --from op5 --key-file five.validator.json
  pacioli validator add --key-file five.validator.json --from op1 --dry-run
  pacioli proposal approve ID --from op2`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.validatorList(), c.validatorShow(), c.validatorKey(), c.validatorJoin(), c.validatorAdd(), c.validatorRemove(), c.validatorPower(), c.validatorRotate(),
		c.validatorBond(), c.validatorRelease(), c.validatorReactivate(), c.validatorResetSignState())
	return cmd
}

// validatorView is a validator as results show it.
type validatorView struct {
	Address       string          `json:"address"` // consensus address
	Name          string          `json:"name,omitempty"`
	State         string          `json:"state"` // active, inactive, former or tombstoned
	Power         uint64          `json:"power"`
	InactivePower uint64          `json:"inactive_power,omitempty"` // what reactivate gives back
	KeyType       string          `json:"key_type"`
	PublicKey     string          `json:"public_key"` // hex
	Operator      *crypto.Address `json:"operator,omitempty"`
	OperatorName  string          `json:"operator_name,omitempty"`
	Missed        *uint32         `json:"missed,omitempty"` // blocks of the present window; of active validators, where they are counted
	Left          string          `json:"left,omitempty"`   // since when it has no power
	Tombstoned    uint64          `json:"tombstoned,omitempty"`
	Bond          string          `json:"bond,omitempty"`
	BondAsset     string          `json:"bond_asset,omitempty"`
	BondFreeFrom  string          `json:"bond_free_from,omitempty"` // when its operator can release the bond, as far as this validator goes
}

type validatorsResult struct {
	Validators []validatorView `json:"validators"`
	client.Strength
	MissedWindow uint32 `json:"missed_window"`
	MaxMissed    uint32 `json:"max_missed"`
	BondNeeded   string `json:"bond_needed"`
	Height       uint64 `json:"height"`
	Time         string `json:"time"`
}

// validators reads the set with what stands beside it.
func (c *cli) validators(ctx context.Context, b provenBooks, former bool) (r validatorsResult, err error) {
	set, err := b.Validators(ctx, 0)
	if err != nil {
		return r, err
	}
	parameters, err := b.Parameters(ctx, set.Height)
	if err != nil {
		return r, err
	}
	p := parameters.Value
	asset, err := b.asset(ctx, p.FeeAsset)
	if err != nil {
		return r, err
	}
	names := c.names()
	r = validatorsResult{Validators: []validatorView{}, Strength: client.StrengthOf(set.Value), MissedWindow: p.MissedWindow, MaxMissed: p.MaxMissed,
		BondNeeded: ledger.Units(p.Bond).Format(asset.Scale), Height: set.Height, Time: set.Time.UTC().Format(time.RFC3339)}
	for _, v := range set.Value {
		if !v.Present() && !former {
			continue
		}
		view := validatorView{Address: consensusAddress(v.Address()), Name: v.Name, State: v.Status(), Power: v.Power, InactivePower: v.InactivePower, KeyType: keyTypes[v.Scheme],
			PublicKey: hex.EncodeToString(v.PublicKey), Left: rfc3339(v.Left), Tombstoned: v.Tombstoned}
		if v.Operator != (crypto.Address{}) {
			operator := v.Operator
			view.Operator, view.OperatorName = &operator, names[operator]
			bond, err := b.Bond(ctx, operator, set.Height)
			if err != nil {
				return r, err
			}
			if bond.Present {
				held, err := b.asset(ctx, bond.Value.Asset)
				if err != nil {
					return r, err
				}
				view.Bond, view.BondAsset = bond.Value.Amount.Format(held.Scale), held.Code
				if !v.Present() {
					view.BondFreeFrom = rfc3339(v.Left + uint64(p.BondSeconds))
				}
			}
		}
		if v.Active() && p.MissedWindow > 0 {
			missed, err := b.Missed(ctx, v.Address(), set.Height)
			if err != nil {
				return r, err
			}
			count := uint32(0)
			if missed.Value.Window == set.Height/uint64(p.MissedWindow) { // of the block after, which is the next that counts
				count = missed.Value.Count
			}
			view.Missed = &count
		}
		r.Validators = append(r.Validators, view)
	}
	return r, nil
}

func (r validatorsResult) text(w io.Writer) {
	fmt.Fprint(w, "VALIDATOR\tNAME\tSTATE\tPOWER\tMISSED\tBOND\tOPERATOR\n")
	for _, v := range r.Validators {
		power, missed, bond, operator := fmt.Sprint(v.Power), "", "", "none"
		if v.InactivePower > 0 {
			power = fmt.Sprintf("0 (%d)", v.InactivePower)
		}
		if v.Missed != nil {
			missed = fmt.Sprintf("%d of %d", *v.Missed, r.MaxMissed)
		}
		if v.Bond != "" {
			bond = v.Bond + " " + v.BondAsset
		}
		if v.Operator != nil {
			operator = named(*v.Operator, v.OperatorName)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Address, strings.Trim(calledBy(v.Name), ` "`), v.State, power, missed, bond, operator)
	}
	fmt.Fprintf(w, "\n%s\nproven at height %d, %s\n", strengthLine(r.Strength), r.Height, r.Time)
}

func (c *cli) validatorList() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the validators, what they have missed and bonded, and how many may fail, proven", Args: args(),
		Long: `List the validators with their operators, the blocks that they have missed in the present window, and bonds; and how many may fail,
the largest powers first. Proven. Who is online is no part of the state: pacioli status asks the nodes.

JSON: validators (address, name, state, power, inactive_power, key_type, public_key, operator, operator_name, missed, left,
tombstoned, bond, bond_asset, bond_free_from), active, inactive, power, quorum, may_fail, missed_window, max_missed, bond_needed, height, time.`,
		Example: "  pacioli validator list\n  pacioli validator list --all --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				r, err := c.validators(ctx, b, all)
				if err != nil {
					return err
				}
				return c.print(r, r.text)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "former validators too")
	return cmd
}

// theValidator finds a validator by its consensus address or the beginning of it, its name, or its operator.
func (c *cli) theValidator(set []ledger.Validator, text string) (ledger.Validator, error) {
	operator, _ := c.account("VALIDATOR", text) // or it is none
	var found []ledger.Validator
	for _, v := range set {
		address := consensusAddress(v.Address())
		switch {
		case address == strings.ToUpper(text), v.Present() && v.Operator != (crypto.Address{}) && v.Operator == operator:
			return v, nil
		case v.Present() && (v.Name == text || len(text) >= 6 && strings.HasPrefix(address, strings.ToUpper(text))):
			found = append(found, v)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return ledger.Validator{}, &problem{err: fmt.Errorf("no validator %q", text), name: ledger.ValidatorUnknown.String(),
			hint: "give its consensus address (or 6 digits of it), name or operator, as pacioli validator list shows them"}
	}
	return ledger.Validator{}, hinted(fmt.Errorf("%d validators are %q", len(found), text), "give the whole consensus address, as pacioli validator list shows it")
}

func (c *cli) validatorShow() *cobra.Command {
	return &cobra.Command{
		Use: "show VALIDATOR", Short: "Show one validator, proven", Args: args("VALIDATOR"), Example: "  pacioli validator show bank-five\n  pacioli validator show op5",
		Long: `Show one validator: by consensus address or the first digits of it, by name, or by its operator. Proven.

JSON: the fields of one of validator list, with height and time.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				set, err := b.Validators(ctx, 0)
				if err != nil {
					return err
				}
				one, err := c.theValidator(set.Value, args[0])
				if err != nil {
					return err
				}
				all, err := c.validators(ctx, b, true)
				if err != nil {
					return err
				}
				for _, v := range all.Validators {
					if v.Address == consensusAddress(one.Address()) {
						r := struct {
							validatorView
							Height uint64 `json:"height"`
							Time   string `json:"time"`
						}{v, all.Height, all.Time}
						return c.print(r, func(w io.Writer) { v.text(w, all) })
					}
				}
				return fmt.Errorf("validator %s has left between two reads: run it again", consensusAddress(one.Address()))
			})
		},
	}
}

func (v validatorView) text(w io.Writer, r validatorsResult) {
	fmt.Fprintf(w, "validator\t%s%s\nstate\t%s\npower\t%d\n", v.Address, calledBy(v.Name), v.State, v.Power)
	if v.InactivePower > 0 {
		fmt.Fprintf(w, "\tpacioli validator reactivate gives back %d\n", v.InactivePower)
	}
	if v.Left != "" {
		fmt.Fprintf(w, "without power\tsince %s\n", v.Left)
	}
	if v.Tombstoned > 0 {
		fmt.Fprintf(w, "tombstoned\tfor equivocation, by block %d\n", v.Tombstoned)
	}
	fmt.Fprintf(w, "key\t%s %s\n", v.KeyType, short(v.PublicKey))
	if v.Operator != nil {
		fmt.Fprintf(w, "operator\t%s\n", named(*v.Operator, v.OperatorName))
	}
	if v.Missed != nil {
		fmt.Fprintf(w, "missed\t%d blocks of this window of %d; beyond %d it loses its power\n", *v.Missed, r.MissedWindow, r.MaxMissed)
	}
	if v.Bond != "" {
		fmt.Fprintf(w, "bond\t%s %s\n", v.Bond, v.BondAsset)
	}
	if v.BondFreeFrom != "" {
		fmt.Fprintf(w, "bond free\tfrom %s\n", v.BondFreeFrom)
	}
	fmt.Fprintf(w, "proven\tat height %d, %s\n", r.Height, r.Time)
}

// validatorFile is a consensus key with the proof that somebody holds it for an operator: what a new validator gives to those
// who vote it in, and what a rotation needs. It holds no secret.
type validatorFile struct {
	ChainID   string         `json:"chain_id"`
	NetworkID crypto.Hash    `json:"network_id"`
	Operator  crypto.Address `json:"operator"`
	Name      string         `json:"name,omitempty"`
	KeyType   string         `json:"key_type"`
	PublicKey string         `json:"public_key"` // hex
	Validator string         `json:"validator"`  // consensus address
	Proof     string         `json:"proof"`      // hex
}

// maxValidatorFile bounds a file: an ML-DSA-65 key and signature are 10.5 kB in hex.
const maxValidatorFile = 64 << 10

// proveKey makes the file of a home's validator key, or of the one that is to follow it.
func proveKey(h node.Home, next bool, operator crypto.Address, name string) (f validatorFile, err error) {
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return f, err
	}
	network, err := genesis.NetworkOf(doc)
	if err != nil {
		return f, err
	}
	v, err := h.Validator()
	if next {
		v, err = h.NextValidator()
	}
	if err != nil {
		return f, hinted(err, "--home names a node's home; pacioli init makes one")
	}
	scheme, err := schemeOfKeyType(v.KeyType)
	if err != nil {
		return f, err
	}
	proof, err := h.ProvePossession(next, ledger.ConsensusKeyPreimage(network.ID, operator, scheme, v.PublicKey))
	if err != nil {
		return f, err
	}
	return validatorFile{network.ChainID, network.ID, operator, name, v.KeyType, hex.EncodeToString(v.PublicKey), v.Address, hex.EncodeToString(proof)}, nil
}

// key checks the file and returns what of it goes into a change.
func (f validatorFile) key(network ledger.Network) (scheme crypto.Scheme, public, proof []byte, err error) {
	if f.NetworkID != network.ID {
		return 0, nil, nil, &problem{err: fmt.Errorf("the key file is for network %s (%s), the nodes are of network %s (%s)", f.NetworkID, f.ChainID, network.ID, network.ChainID), name: "other_network"}
	}
	if scheme, err = schemeOfKeyType(f.KeyType); err != nil {
		return 0, nil, nil, fmt.Errorf("key file: %w", err)
	}
	if public, err = hex.DecodeString(f.PublicKey); err == nil {
		err = crypto.CheckPublicKey(scheme, public)
	}
	if err != nil {
		return 0, nil, nil, fmt.Errorf("key file: public_key: %w", err)
	}
	if proof, err = hex.DecodeString(f.Proof); err != nil {
		return 0, nil, nil, fmt.Errorf("key file: proof: %w", err)
	}
	check := crypto.Check{Scheme: scheme, PublicKey: public, Message: ledger.ConsensusKeyPreimage(network.ID, f.Operator, scheme, public), Signature: proof}
	if !check.Verify() {
		return 0, nil, nil, hinted(fmt.Errorf("key file: the proof is not one by this key for operator %s on this network", f.Operator), "have its maker make it again: pacioli validator key --home HOME --operator %s", f.Operator)
	}
	return scheme, public, proof, nil
}

func readValidatorFile(path string) (f validatorFile, err error) {
	content, err := readFile(path, maxValidatorFile)
	if err == nil {
		err = json.Unmarshal(content, &f)
	}
	if err != nil {
		return f, fmt.Errorf("key file %s: %w", path, err)
	}
	return f, nil
}

// writeValidatorFile writes a key file, or with no path shows it.
func (c *cli) writeValidatorFile(f validatorFile, path string) error {
	content, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding a key file: %w", err)
	}
	if path == "" {
		fmt.Fprintf(c.out, "%s\n", content)
		return nil
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing a key file: %w", err)
	}
	r := struct {
		validatorFile
		File string `json:"file"`
	}{f, path}
	return c.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "validator\t%s%s (%s)\noperator\t%s\nfile\t%s\n", f.Validator, calledBy(f.Name), f.KeyType, f.Operator, path)
	})
}

func (c *cli) validatorKey() *cobra.Command {
	var operator, name, out, keyType string
	var next bool
	cmd := &cobra.Command{
		Use: "key --operator NAME|ADDRESS", Short: "Write the public validator key of a node's home, with the proof that it is there", Args: args(),
		Long: `Write a file with the public validator key of this node's home and a proof, for one operator on one network, that the home holds it:
what "validator add --key-file" of the others takes. There is no secret in it. With --next it is the key that is to follow, which
is made when it is not there: for "validator rotate --key-file".

JSON: the file: chain_id, network_id, operator, name, key_type, public_key, validator, proof.`,
		Example: `  pacioli validator key --home /srv/pacioli --operator pac1p... --out five.validator.json
  pacioli validator key --home /srv/pacioli --operator pac1p... --next --validator-key-type ml_dsa_65 --out next.validator.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := (sendFlags{out: out}).checkOut(); err != nil {
				return err
			}
			by, err := c.account("--operator", operator)
			if err != nil {
				return err
			}
			h := node.Home(c.home)
			if next {
				if _, err := h.NewNextKey(keyType); err != nil {
					return err
				}
			} else if cmd.Flags().Changed("validator-key-type") {
				return usage("--validator-key-type is of a key that is made: want --next")
			}
			f, err := proveKey(h, next, by, nameOf(h, name))
			if err != nil {
				return err
			}
			return c.writeValidatorFile(f, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&operator, "operator", "", "account that acts for the validator")
	f.StringVar(&name, "name", "", "what the validator is to be called (default: the node's moniker)")
	f.StringVar(&out, "out", "", "file to write (default: standard output)")
	f.BoolVar(&next, "next", false, "the key that is to follow the validator's: made when it is not there")
	f.StringVar(&keyType, "validator-key-type", node.KeyEd25519, "of --next: ed25519 or ml_dsa_65")
	_ = cmd.MarkFlagRequired("operator")
	return cmd
}

// nameOf is what a home's validator is called.
func nameOf(h node.Home, name string) string {
	if config, err := node.LoadConfig(string(h)); err == nil && name == "" {
		return config.Node.Moniker
	}
	return name
}

func (c *cli) validatorJoin() *cobra.Command {
	var d deedFlags
	var nodeHome, name, file, amount string
	var early bool
	cmd := &cobra.Command{
		Use: "join --from OPERATOR --key-file FILE", Short: "Bond, and write the key file with which the others vote this node's validator in", Args: args(),
		Long: `The new operator's part in joining: it makes the bond that the network asks for, unless that is there, and writes the key file that
the present operators give to "validator add". The node must run and have caught up: a validator that has power before it
follows the chain counts as one that has failed.

JSON: as pacioli validator key, with file; when a bond is made, on standard error what pacioli pay shows.`,
		Example: "  pacioli validator join --node-home /srv/pacioli --from op5 --key-file five.validator.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.send.check(); err != nil {
				return err
			}
			if err := (sendFlags{out: file}).checkOut(); err != nil {
				return err
			}
			if d.send.out != "" || d.send.noWait {
				return usage("join waits for its bond: make one by pacioli validator bond --out FILE, and then join")
			}
			from, err := c.payer(d.from, d.keys)
			if err != nil {
				return err
			}
			h := node.Home(nodeHome)
			if nodeHome == "" {
				h = node.Home(c.home)
			}
			return c.online(cmd.Context(), d.send, func(ctx context.Context, b provenBooks) error {
				if !early {
					if err := following(ctx, h); err != nil {
						return err
					}
				}
				f, err := proveKey(h, false, from.address, nameOf(h, name))
				if err != nil {
					return err
				}
				if _, _, _, err := f.key(b.network()); err != nil {
					return err
				}
				op, err := c.bondOf(ctx, b, from.address, amount)
				if err != nil {
					return err
				}
				if op != nil {
					quiet := *c
					quiet.out = c.err // the result is the key file
					if err := quiet.perform(ctx, b, request{[]payer{from}, []ledger.Operation{op}, d.send}); err != nil || d.send.dryRun {
						return err
					}
				} else if d.send.dryRun {
					c.say("no bond would be made: what the network asks for is there")
					return nil
				}
				if err := c.writeValidatorFile(f, file); err != nil {
					return err
				}
				c.say("Now give it to an operator of a validator, who runs: pacioli validator add --key-file %s --from OPERATOR", file)
				return nil
			})
		},
	}
	d.add(cmd, "the operator of the new validator")
	f := cmd.Flags()
	f.StringVar(&nodeHome, "node-home", "", "home of the node, when it is not that of the wallet")
	f.StringVar(&name, "name", "", "what the validator is to be called (default: the node's moniker)")
	f.StringVar(&file, "key-file", "", "file to write")
	f.StringVar(&amount, "bond", "", "bond in decimals of the fee asset (default: what the network asks for)")
	f.BoolVar(&early, "before-it-follows", false, "also when the node does not run here, or has not caught up")
	_ = cmd.MarkFlagRequired("key-file")
	return cmd
}

// following tells whether the node of a home runs and has caught up.
func following(ctx context.Context, h node.Home) error {
	config, err := node.LoadConfig(string(h))
	if err != nil {
		return hinted(err, "--node-home names the home of the node")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ready, err := client.Ready(ctx, config.RPC.Listen)
	if err == nil && !ready.OK {
		err = fmt.Errorf("it is not ready: %s", strings.Join(ready.Reasons, "; "))
	}
	if err == nil {
		// Another node may have the port.
		var own string
		var s *client.Status
		if own, err = h.ID(); err == nil {
			if s, err = client.Survey(ctx, []string{config.RPC.Listen}); err == nil && s.Nodes[0].NodeID != own {
				err = fmt.Errorf("another node, %s, answers on %s", s.Nodes[0].NodeID, config.RPC.Listen)
			}
		}
	}
	if err != nil {
		return hinted(fmt.Errorf("the node of %s: %w", h, err), "start it, and wait until pacioli health --node http://%s says that it is ready; --before-it-follows goes on regardless", config.RPC.Listen)
	}
	return nil
}

// bondOf is the bond that an operator still has to make; nil for none. amount is in decimals, "" for what the network asks for.
func (c *cli) bondOf(ctx context.Context, b provenBooks, operator crypto.Address, amount string) (ledger.Operation, error) {
	parameters, err := b.Parameters(ctx, 0)
	if err != nil {
		return nil, err
	}
	needed := ledger.Units(parameters.Value.Bond)
	asset, err := b.asset(ctx, parameters.Value.FeeAsset)
	if err != nil {
		return nil, err
	}
	wanted := needed
	if amount != "" {
		if wanted, err = ledger.ParseAmount(amount, asset.Scale); err != nil {
			return nil, usage("--bond: %w (%s)", err, asset.Code)
		}
	}
	bond, err := b.Bond(ctx, operator, parameters.Height)
	if err != nil {
		return nil, err
	}
	switch have := bond.Value.Amount; {
	case bond.Present && have.Cmp(wanted) >= 0, wanted.IsZero():
		return nil, nil
	case bond.Present:
		return nil, &problem{err: fmt.Errorf("the bond is %s %s, and %s are wanted", have.Format(asset.Scale), asset.Code, wanted.Format(asset.Scale)), name: ledger.BondExists.String(),
			hint: "a bond cannot be raised: pacioli validator release, and then again"}
	case wanted.Cmp(needed) < 0:
		return nil, usage("--bond %s: the network asks for %s %s", amount, needed.Format(asset.Scale), asset.Code)
	}
	return &ledger.Bond{Amount: wanted}, nil
}
