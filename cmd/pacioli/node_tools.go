package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/render"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Height, peers, power online, and how many validators may still fail",
		Long: `Ask the nodes how they and the validators are. What they say here is not verified: it is for operators, about their own
nodes. The exit code is 1 when no node answers or the network stands still.`,
		Example: `  pacioli status
  pacioli status --node http://10.0.0.1:26657,http://10.0.0.2:26657 --output json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
			defer cancel()
			s, err := client.Survey(ctx, c.nodes)
			if err != nil {
				return hinted(err, "is a node running? --node names others")
			}
			// Of the disk only the node knows that runs on this home, if one does.
			var disk *node.Disk
			if d, err := node.Ask[node.Disk](ctx, node.Home(c.home), "/disk", struct{}{}); err == nil {
				disk = &d
			} else if !errors.Is(err, node.ErrNotRunning) {
				c.say("the node of %s does not say how its disk is: %s", c.home, err)
			}
			result := struct {
				*client.Status
				Disk *node.Disk `json:"disk,omitempty"`
			}{s, disk}
			if err := c.print(result, func(w io.Writer) {
				printStatus(w, s)
				if disk != nil {
					printDisk(w, *disk)
				}
			}); err != nil {
				return err
			}
			if s.Stalled {
				return &problem{err: fmt.Errorf("the network stands still: the newest block, %d, is %s old", s.Height, time.Since(s.Time).Round(time.Second)), name: "stalled",
					hint: "more than two thirds of the voting power must be online; start the validators that are not"}
			}
			return nil
		},
	}
}

func printStatus(w io.Writer, s *client.Status) {
	fmt.Fprintf(w, "chain\t%s\nheight\t%d\t%s ago\n", s.ChainID, s.Height, time.Since(s.Time).Round(100*time.Millisecond))
	fmt.Fprintf(w, "block\t%s\nstate\t%s\n", s.Hash, s.AppHash)
	fmt.Fprintf(w, "power online\t%d of %d\n", s.OnlinePower, s.TotalPower)
	switch {
	case s.MayFail < 0:
		fmt.Fprintf(w, "may still fail\tnone: the network has stopped\n")
	default:
		fmt.Fprintf(w, "may still fail\t%d of %d validators\n", s.MayFail, len(s.Validators))
	}
	fmt.Fprintf(w, "\nVALIDATOR\tNAME\tKEY\tPOWER\tLAST SIGNED\t\n")
	for _, v := range s.Validators {
		state := ""
		switch {
		case !v.Online:
			state = "offline"
		case v.Late > 0:
			state = fmt.Sprintf("late: missing from %d of the last 20 blocks", v.Late)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", v.Address, strings.Trim(calledBy(v.Name), ` "`), v.KeyType, v.Power, v.LastSigned, state)
	}
	fmt.Fprintf(w, "\nNODE\tNAME\tHEIGHT\tPEERS\t\n")
	for _, n := range s.Nodes {
		switch {
		case n.Error != "":
			fmt.Fprintf(w, "%s\t-\t-\t-\tdoes not answer\n", n.URL)
		case n.CatchingUp:
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\tcatching up\n", n.URL, n.Moniker, n.Height, n.Peers)
		default:
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t\n", n.URL, n.Moniker, n.Height, n.Peers)
		}
	}
}

// printDisk shows the disk of the node that runs on this home.
func printDisk(w io.Writer, d node.Disk) {
	size := func(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
	fmt.Fprintf(w, "\nDISK\tused %s\tfree %s\n", size(d.Used), size(d.Free))
	for _, part := range slices.Sorted(maps.Keys(d.Parts)) {
		fmt.Fprintf(w, "%s\t%s\n", strings.ReplaceAll(part, "_", " "), size(d.Parts[part]))
	}
	fmt.Fprintf(w, "kept\tblocks from %d, states from %d\tretention: %s\n", d.FirstHeight, d.FirstState, d.Retention)
	if d.RetentionFrees > 0 {
		fmt.Fprintf(w, "to be freed\t%s\tby retention, up to height %d\n", size(d.RetentionFrees), d.RetentionWants)
	}
	switch {
	case d.GrowthPerDay == nil:
		fmt.Fprintf(w, "growth\tnot known before a quarter of an hour\n")
	case d.DaysUntilFull == nil:
		fmt.Fprintf(w, "growth\t%s a day\tit does not fill up\n", size(*d.GrowthPerDay))
	default:
		fmt.Fprintf(w, "growth\t%s a day\tfull in %.0f days\n", size(*d.GrowthPerDay), *d.DaysUntilFull)
	}
}

// offline is what the commands on a stopped node need.
func (c *cli) offline(cmd *cobra.Command) (node.Home, node.Config, *slog.Logger, error) {
	config, err := c.nodeConfig(cmd.Flags())
	return node.Home(c.home), config, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), err
}

func (c *cli) fsckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fsck",
		Short: "Derive every root of a stopped node's state again and check every rule",
		Long: `Derive every root of a stopped node's state again from its raw data, compare the current rows with the trees, and check
the rules of the ledger over all of them: balances, overdrafts, policies, nonces. The exit code is 1 when it finds anything.`,
		Example: `  pacioli fsck --home /srv/pacioli`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, config, log, err := c.offline(cmd)
			if err != nil {
				return err
			}
			result, err := h.CheckState(cmd.Context(), config, log, func(line string) { c.say("%s", line) })
			if errors.Is(err, store.ErrMismatch) {
				return hinted(err, "a state that cannot be opened is thrown away with %s, and fetched from the peers again at the next start", h.App())
			}
			if err != nil {
				return err
			}
			if err := c.print(result, func(w io.Writer) {
				fmt.Fprintf(w, "height\t%d\nstate\t%s\nMerkle nodes\t%d\nrows\t%d\naccounts\t%d\nlines\t%d\nfindings\t%d\n",
					result.Height, result.AppHash, result.Nodes, result.Rows, result.Accounts, result.Lines, len(result.Findings))
				for _, f := range result.Findings {
					fmt.Fprintf(w, "  %s\n", f)
				}
			}); err != nil {
				return err
			}
			if n := len(result.Findings); n > 0 {
				return &problem{err: fmt.Errorf("%d findings: do not run this node on this data", n), name: "damaged",
					hint: fmt.Sprintf("move %s away and start again: the node executes the blocks that it has once more; see docs/OPERATING.md", h.App())}
			}
			return nil
		},
	}
}

func (c *cli) rollbackCommand() *cobra.Command {
	request := node.RollbackRequest{Blocks: 1}
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Take a stopped node back by one block or more, application and CometBFT together",
		Long: `Take a stopped node back by one block or more, application and CometBFT together, for a node that has computed a wrong state.
The next start executes the block above that height again; with --hard it is removed and fetched from the peers, as all
blocks above it are. What the validator's key has signed stays signed.

It reaches back as far as both sides keep what they need, at most 1,000 blocks. A command that was interrupted is given
again, or undone by a start of the node.`,
		Example: `  pacioli rollback --home /srv/pacioli
  pacioli rollback --home /srv/pacioli --to 4711
  pacioli rollback --home /srv/pacioli --blocks 5 --hard`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("to") && cmd.Flags().Changed("blocks") {
				return usage("--to and --blocks: want one of them")
			}
			if request.Blocks == 0 || cmd.Flags().Changed("to") && request.To == 0 {
				return usage("want --blocks of at least 1, or --to with a height of at least 1")
			}
			h, config, log, err := c.offline(cmd)
			if err != nil {
				return err
			}
			rolled, err := h.Rollback(config, log, request)
			if err != nil {
				return err
			}
			return c.print(rolled, func(w io.Writer) {
				fmt.Fprintf(w, "rolled back from height %d to %d, removed %d blocks\n", rolled.From, rolled.To, rolled.Removed)
			})
		},
	}
	cmd.Flags().Uint64Var(&request.To, "to", 0, "height to go back to")
	cmd.Flags().Uint64Var(&request.Blocks, "blocks", 1, "blocks to go back by")
	cmd.Flags().BoolVar(&request.Hard, "hard", false, "remove the block above that height too")
	return cmd
}

func (c *cli) inspectCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:     "inspect",
		Short:   "Serve CometBFT's RPC over the data of a stopped node, to look at it",
		Example: `  pacioli inspect --home /srv/pacioli --listen 127.0.0.1:26657`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, config, log, err := c.offline(cmd)
			if err != nil {
				return err
			}
			c.say("serving on http://%s until Ctrl-C", listen)
			return h.Inspect(cmd.Context(), config, log, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:26657", "host:port")
	return cmd
}

func (c *cli) showNodeIDCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show-node-id", Short: "Print this node's id, by which peers know it", Example: `  pacioli show-node-id`, Args: args(),
		RunE: func(*cobra.Command, []string) error {
			id, err := node.Home(c.home).ID()
			if err != nil {
				return err
			}
			return c.print(map[string]string{"node_id": id}, func(w io.Writer) { fmt.Fprintln(w, id) })
		},
	}
}

func (c *cli) showValidatorCommand() *cobra.Command {
	var operator string
	cmd := &cobra.Command{
		Use: "show-validator", Short: "Print this node's validator key, for others' genesis", Args: args(),
		Long: `Print this node's validator key, for the genesis file of a network that is about to begin. --operator names the account that will act
for the validator: its keys need not be in this home. For a network that runs: pacioli validator join.

JSON: address, key_type, public_key, genesis, operator, name.`,
		Example: `  pacioli show-validator --operator pac1p... --output json > bank-one.json`,
		RunE: func(*cobra.Command, []string) error {
			h := node.Home(c.home)
			v, err := h.Validator()
			if err != nil {
				return err
			}
			shown := shownValidator{Address: v.Address, KeyType: v.KeyType, PublicKey: hex.EncodeToString(v.PublicKey), Genesis: v.Genesis}
			if operator != "" {
				by, err := c.account("--operator", operator)
				if err != nil {
					return err
				}
				shown.Operator, shown.Name = &by, nameOf(h, "")
			}
			return c.print(shown, func(w io.Writer) { fmt.Fprintln(w, v.Genesis) })
		},
	}
	cmd.Flags().StringVar(&operator, "operator", "", "key or address of the account that acts for the validator")
	return cmd
}

// healthCommand is what a container's health check and a script ask.
func (c *cli) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "health",
		Short:   "Ask a node whether it is ready: exit code 0 if it is, 1 if not",
		Example: `  pacioli health --node http://127.0.0.1:26657`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			h, err := client.Ready(ctx, c.nodes[0])
			if err != nil {
				return err
			}
			if err := c.print(h, func(w io.Writer) {
				fmt.Fprintf(w, "chain\t%s\nready\t%t\nheight\t%d\npeers\t%d\n", render.Escape(h.ChainID), h.OK, h.Height, h.Peers)
			}); err != nil {
				return err
			}
			if !h.OK {
				return &problem{err: fmt.Errorf("not ready: %v", h.Reasons), name: "not_ready"}
			}
			return nil
		},
	}
}

// debugPages are what a report to the maintainers needs of a running node. None of them shows a key.
var debugPages = []string{"readyz", "status", "net_info", "dump_consensus_state", "consensus_params", "unconfirmed_txs"}

// maxDebugPage bounds one of them, in bytes.
const maxDebugPage = 64 << 20

// debugCommand collects what maintainers ask for. CometBFT's own command writes a configuration of its own into the home,
// and panics without its global settings.
func (c *cli) debugCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "debug --out FILE", Short: "Collect a running node's state into a .zip, for a report", Args: args(),
		Long: `Collect what a running node says of itself, its peers and its consensus, the configuration of this home and the version of
this program into a .zip, for a report to the maintainers. No key goes in; addresses of peers do. Add the log yourself.`,
		Example: "  pacioli debug --home /srv/pacioli --node http://127.0.0.1:26657 --out report.zip",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Lstat(out); err == nil {
				return usage("--out %s exists", out)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			var content bytes.Buffer
			z := zip.NewWriter(&content)
			add := func(name string, text []byte) {
				if w, err := z.Create(name); err == nil {
					_, _ = w.Write(text) // to memory
				}
			}
			answered := 0
			for _, page := range debugPages {
				text, err := fetch(ctx, strings.TrimSuffix(c.nodes[0], "/")+"/"+page)
				if err != nil {
					text = []byte(err.Error()) // that it does not answer is worth reporting
				} else {
					answered++
				}
				add(page+".json", text)
			}
			if config, err := os.ReadFile(node.Home(c.home).Config()); err == nil {
				add(node.ConfigFile, config)
			}
			add("version.txt", []byte(version+"\n"))
			if err := z.Close(); err != nil {
				return fmt.Errorf("packing: %w", err)
			}
			if err := writeFile(out, content.Bytes()); err != nil {
				return err
			}
			result := struct {
				File     string `json:"file"`
				Answered int    `json:"answered"` // pages that the node has given
			}{out, answered}
			return c.print(result, func(w io.Writer) {
				fmt.Fprintf(w, "wrote %s, with %d of %d pages of %s\n", out, answered, len(debugPages), c.nodes[0])
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, maxDebugPage))
}
