package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) proposalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "proposal", Short: "What the operators of validators have proposed: show, approve, withdraw", Args: commandsOnly,
		Example: "  pacioli proposal list\n  pacioli proposal show 3f9a21\n  pacioli proposal approve 3f9a21 --from op2 --dry-run",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.proposalList(), c.proposalShow(), c.proposalVote(false), c.proposalVote(true))
	return cmd
}

// proposalView is a proposal as results show it.
type proposalView struct {
	ID           crypto.Hash      `json:"id"`
	Proposer     crypto.Address   `json:"proposer"`
	ProposerName string           `json:"proposer_name,omitempty"`
	Height       uint64           `json:"proposed_at"` // height
	Expires      string           `json:"expires"`
	Expired      bool             `json:"expired"`
	Approvals    []crypto.Address `json:"approvals"`
	changeEffect
}

func (c *cli) proposalView(ctx context.Context, b provenBooks, p client.OpenProposal, at time.Time) (proposalView, error) {
	effect, err := c.effect(ctx, b, p.Proposal.Change, p.Proposal.Approvals)
	if err != nil {
		return proposalView{}, err
	}
	return proposalView{p.ID, p.Proposal.Proposer, c.names()[p.Proposal.Proposer], p.Proposal.Height, rfc3339(p.Proposal.Expires),
		p.Proposal.Expires <= uint64(at.Unix()), p.Proposal.Approvals, *effect}, nil
}

func (c *cli) proposalList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the open proposals, proven and complete", Args: args(), Example: "  pacioli proposal list",
		Long: `List what the operators of validators have proposed and not decided: proven, and proven to be all. One that has expired is dead,
and listed until somebody proposes again.

JSON: proposals (id, proposer, proposer_name, proposed_at, expires, expired, approvals, change, vote (power, needed, total, open),
decides, before, after, refused_by, parameters_changed), height, time.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				list, err := b.Proposals(ctx, 0)
				if err != nil {
					return err
				}
				r := struct {
					Proposals []proposalView `json:"proposals"`
					Height    uint64         `json:"height"`
					Time      string         `json:"time"`
				}{[]proposalView{}, list.Height, list.Time.UTC().Format(time.RFC3339)}
				for _, p := range list.Rows {
					v, err := c.proposalView(ctx, b, p, list.Time)
					if err != nil {
						return err
					}
					r.Proposals = append(r.Proposals, v)
				}
				names := c.names()
				return c.print(r, func(w io.Writer) {
					for _, v := range r.Proposals {
						until := "until " + v.Expires
						if v.Expired {
							until = "expired at " + v.Expires
						}
						names := v.names(names)
						fmt.Fprintf(w, "%s\t%s\n", v.ID, v.Change.sentence(names))
						for _, d := range v.Differs {
							fmt.Fprintf(w, "\t%s: %s -> %s\n", d.Name, d.From, d.To)
						}
						fmt.Fprintf(w, "\tby %s, %s\n\t%s\n", named(v.Proposer, names[v.Proposer]), until, voteLine(v.Vote, names))
					}
					if len(r.Proposals) == 0 {
						fmt.Fprint(w, "no open proposals\n")
					}
					fmt.Fprintf(w, "proven\tat height %d, %s\n", r.Height, r.Time)
				})
			})
		},
	}
}

// theProposal finds an open proposal by its id or the beginning of it.
func (c *cli) theProposal(ctx context.Context, b provenBooks, text string) (client.OpenProposal, client.Listed[client.OpenProposal], error) {
	list, err := b.Proposals(ctx, 0)
	if err != nil {
		return client.OpenProposal{}, list, err
	}
	var found []client.OpenProposal
	for _, p := range list.Rows {
		if len(text) >= 4 && strings.HasPrefix(p.ID.String(), strings.ToLower(text)) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], list, nil
	case 0:
		return client.OpenProposal{}, list, &problem{err: fmt.Errorf("there is no open proposal %q", text), name: ledger.ProposalUnknown.String(),
			hint: "give an id, or at least 4 digits of one, as pacioli proposal list shows them: what was decided, withdrawn or has expired is gone"}
	}
	return client.OpenProposal{}, list, usage("ID %q: %d proposals begin with it", text, len(found))
}

func (c *cli) proposalShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a proposal, who has approved it and what it would do, proven", Args: args("ID"), Example: "  pacioli proposal show 3f9a21",
		Long: `Show a proposal: what it changes, who has approved it, and how many validators may fail before and after. Proven, as of the newest
state. ID is the proposal's id or the beginning of it.

JSON: one of the proposals of proposal list, with height and time.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				p, list, err := c.theProposal(ctx, b, args[0])
				if err != nil {
					return err
				}
				return c.printProposal(ctx, b, p, list.Height, list.Time)
			})
		},
	}
}

// printProposal shows a proposal as it is at a height.
func (c *cli) printProposal(ctx context.Context, b provenBooks, p client.OpenProposal, height uint64, at time.Time) error {
	v, err := c.proposalView(ctx, b, p, at)
	if err != nil {
		return err
	}
	r := struct {
		proposalView
		Height uint64 `json:"height"`
		Time   string `json:"time"`
	}{v, height, at.UTC().Format(time.RFC3339)}
	names := v.names(c.names())
	return c.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "proposal\t%s\nproposed by\t%s, at height %d\n", v.ID, named(v.Proposer, names[v.Proposer]), v.Height)
		if v.Expired {
			fmt.Fprintf(w, "EXPIRED\tat %s\n", v.Expires)
		} else {
			fmt.Fprintf(w, "open until\t%s\n", v.Expires)
		}
		for _, a := range v.Approvals {
			fmt.Fprintf(w, "approved by\t%s\n", named(a, names[a]))
		}
		v.changeEffect.text(w, names)
		fmt.Fprintf(w, "proven\tat height %d, %s\n", r.Height, r.Time)
	})
}

func (c *cli) proposalVote(withdraw bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: "approve ID --from OPERATOR", Short: "Approve a proposal", Args: args("ID"),
		Long: `Approve a proposal. With the approvals of operators whose validators have more than two thirds of the power it takes effect at once.
--dry-run says how many validators may fail before and after.`,
		Example: "  pacioli proposal approve 3f9a21 --from op2 --dry-run\n  pacioli proposal approve 3f9a21 --from op2",
	}
	if withdraw {
		cmd.Use, cmd.Short = "withdraw ID --from OPERATOR", "Withdraw an approval; a proposal that nobody approves is gone"
		cmd.Long, cmd.Example = "Withdraw an approval. A proposal that nobody approves any more is gone.", "  pacioli proposal withdraw 3f9a21 --from op2"
	}
	cmd.Long += "\n\nDoing it again costs nothing: it is looked at first, and not sent. The result is then that of pacioli proposal show."
	return c.byOperator(cmd, func(ctx context.Context, b provenBooks, from payer, s sendFlags, args []string) (ledger.Operation, error) {
		// A whole id is taken as it is, so that the same command can be given again when the proposal is gone.
		id, err := crypto.ParseHash(strings.ToLower(args[0]))
		if err != nil {
			p, _, err := c.theProposal(ctx, b, args[0])
			if err != nil {
				return nil, err
			}
			id = p.ID
		}
		op := &ledger.Approve{Proposal: id, Withdraw: withdraw}
		if s.nonce != "" || s.dryRun || s.out != "" {
			return op, nil // these have an answer of their own to the same again
		}
		p, err := b.Proposal(ctx, id, 0)
		if err != nil {
			return nil, err
		}
		if !p.Present || slices.Contains(p.Value.Approvals, from.address) == withdraw {
			return op, nil
		}
		state := "has approved it already"
		if withdraw {
			state = "has not approved it"
		}
		c.say("%s %s: nothing was sent", named(from.address, c.names()[from.address]), state)
		return nil, c.printProposal(ctx, b, client.OpenProposal{ID: id, Proposal: p.Value}, p.Height, p.Time)
	})
}

func (c *cli) paramsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "params", Short: "The network's parameters: show, and change by vote", Args: commandsOnly, Example: "  pacioli params show\n  pacioli params set fee_base=200 --from op1 --dry-run",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.paramsShow(), c.paramsSet())
	return cmd
}

func (c *cli) paramsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the network's id and the parameters in force, proven", Args: args(), Example: "  pacioli params show",
		Long: `Show which network it is, and the parameters in force, by their names in genesis.json. Amounts are in base units of the fee asset. Proven. pacioli fees shows
what they mean for a payment.

JSON: chain_id, network_id, parameters, height, time.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				p, err := b.Parameters(ctx, 0)
				if err != nil {
					return err
				}
				list := namedParameters(p.Value)
				r := struct {
					ChainID    string            `json:"chain_id"`
					NetworkID  crypto.Hash       `json:"network_id"`
					Parameters map[string]string `json:"parameters"`
					Height     uint64            `json:"height"`
					Time       string            `json:"time"`
				}{b.network().ChainID, b.network().ID, map[string]string{}, p.Height, p.Time.UTC().Format(time.RFC3339)}
				for _, x := range list {
					r.Parameters[x.Name] = x.Value
				}
				return c.print(r, func(w io.Writer) {
					fmt.Fprintf(w, "chain\t%s\nnetwork\t%s\n", r.ChainID, r.NetworkID)
					for _, x := range list {
						fmt.Fprintf(w, "%s\t%s\n", x.Name, x.Value)
					}
					fmt.Fprintf(w, "proven\tat height %d, %s\n", r.Height, r.Time)
				})
			})
		},
	}
}

func (c *cli) paramsSet() *cobra.Command {
	var p proposalFlags
	cmd := &cobra.Command{
		Use: "set KEY=VALUE... --from OPERATOR", Short: "Propose other parameters", Args: atLeast(1, "KEY=VALUE"),
		Long: `Propose other values of parameters, by their names in genesis.json (pacioli params show). All others stay; fee_asset cannot change.
fee_collector takes a name or an address, asset_creators several with commas between, or "everybody".` + proposes,
		Example: "  pacioli params set fee_base=200 max_missed=100 --from op1 --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.propose(cmd.Context(), p, func(ctx context.Context, b provenBooks, _ payer) (ledger.Change, error) {
				row, err := b.Row(ctx, ledger.ParametersRow(), 0)
				if err != nil {
					return nil, err
				}
				now, err := ledger.DecodeParameters(row.Value)
				if err != nil {
					return nil, err
				}
				next, err := c.withParameters(now, args)
				if err != nil {
					return nil, err
				}
				return &ledger.SetParameters{Before: ledger.ParametersHash(row.Value), Parameters: next}, nil
			})
		},
	}
	p.add(cmd)
	return cmd
}

// withParameters sets parameters by their names in genesis.json.
func (c *cli) withParameters(now ledger.Parameters, settings []string) (ledger.Parameters, error) {
	text, err := json.Marshal(now.Genesis("", now.FeeCollector))
	if err != nil {
		return now, fmt.Errorf("encoding parameters: %w", err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return now, fmt.Errorf("encoding parameters: %w", err)
	}
	delete(fields, "fee_asset")
	for _, s := range settings {
		key, value, ok := strings.Cut(s, "=")
		if _, known := fields[key]; !ok || !known {
			return now, usage("%q: want KEY=VALUE with a KEY of pacioli params show, other than fee_asset", s)
		}
		switch key {
		case "fee_collector":
			a, err := c.account(key, value)
			if err != nil {
				return now, err
			}
			value = `"` + a.String() + `"`
		case "asset_creators":
			list := []crypto.Address{}
			for _, who := range strings.Split(value, ",") {
				if value == "everybody" {
					break
				}
				a, err := c.account(key, who)
				if err != nil {
					return now, err
				}
				list = append(list, a)
			}
			sorted, err := json.Marshal(sortedAddresses(list))
			if err != nil {
				return now, fmt.Errorf("encoding parameters: %w", err)
			}
			value = string(sorted)
		}
		if !json.Valid([]byte(value)) {
			return now, usage("%q: want a number", s)
		}
		fields[key] = json.RawMessage(value)
	}
	if text, err = json.Marshal(fields); err != nil {
		return now, fmt.Errorf("encoding parameters: %w", err)
	}
	var g ledger.GenesisParameters
	if err := json.Unmarshal(text, &g); err != nil {
		return now, usage("%w", err)
	}
	next := ledger.Parameters{MaxTxBytes: g.MaxTxBytes, ReplayWindowSeconds: g.ReplayWindowSeconds, MaxOpenNonces: g.MaxOpenNonces, FeeAsset: now.FeeAsset,
		FeeCollector: g.FeeCollector, FeeBase: g.FeeBase, FeePerByte: g.FeePerByte, FeePerOperation: g.FeePerOperation, FeePerSignature: g.FeePerSignature,
		AssetCreators: g.AssetCreators, DepositAccount: g.DepositAccount, DepositLine: g.DepositLine, DepositHold: g.DepositHold, DepositGrant: g.DepositGrant,
		MaxHoldSeconds: g.MaxHoldSeconds, MaxExpiries: g.MaxExpiries, FeeTargetWeight: g.FeeTargetWeight, MaxFeeMultiplier: g.MaxFeeMultiplier,
		Bond: g.Bond, BondSeconds: g.BondSeconds, MissedWindow: g.MissedWindow, MaxMissed: g.MaxMissed}
	if err := next.Check(); err != nil {
		return now, usage("%w", err)
	}
	return next, nil
}
