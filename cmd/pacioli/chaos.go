package main

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/testnet"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
	"github.com/pacioli-ledger/pacioli/testnet/chaos"
)

func (c *cli) chaosCommand() *cobra.Command {
	var o chaos.Options
	var faults, topology, keyType string
	var validators int
	var inContainers, verbose bool
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Make a network, break it by a schedule under load, heal it, and audit what it did",
		Long: `Make a network of processes on this machine, or of containers, and break it: by a schedule that is drawn from --seed and printed first. Signed
load of every operation runs meanwhile. Each round has a safety phase, in which one node after another is killed, paused, cut off,
slowed down, robbed of its disk or of the right time, wiped, or doubled; then too few are left, and nothing may be committed; then
everything is healed, and blocks have to come within 15 s.

Afterwards every block of every node is read and held against what clients were told, and against a second bookkeeping that
shares no rule with the nodes. What must not be is a finding; with findings the exit code is 3.

The folder with the nodes' data, their logs and the record of all transactions is kept, and has to be empty at the beginning.

Wrong clocks and full disks need Go and Pacioli's source (--source): the program for them is built over a changed standard library.`,
		Example: `  pacioli testnet chaos --duration 3m
  pacioli testnet chaos --seed 42 --duration 3h --dir /var/tmp/chaos --output json
  pacioli testnet chaos --containers --topology testnet/topology.toml --duration 10m
  pacioli testnet chaos --faults kill,pause --duration 1m
  pacioli testnet chaos --faults -clock-90s,-disk-full`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Faults, err = chaos.ParseFaults(faults); err != nil {
				return usage("%s", err)
			}
			if o.Duration < 10*time.Second {
				return usage("--duration is %s, want at least 10s", o.Duration)
			}
			if !cmd.Flags().Changed("seed") {
				o.Seed = rand.Uint64N(1_000_000)
			}
			o.Topology = chaos.Topology(validators, keyType)
			if topology != "" {
				if o.Topology, err = testnet.LoadTopology(topology); err != nil {
					return err
				}
			}
			if o.Dir == "" {
				if o.Dir, err = os.MkdirTemp("", "pacioli-chaos."); err != nil {
					return fmt.Errorf("making a folder: %w", err)
				}
			}
			if o.Dir, err = filepath.Abs(o.Dir); err != nil {
				return fmt.Errorf("resolving --dir: %w", err)
			}
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			o.Say = func(format string, args ...any) { c.say(format, args...) }
			if verbose {
				o.Logger = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
			breakIt := chaos.Processes
			if inContainers {
				breakIt = chaos.Containers
			}
			report, err := breakIt(cmd.Context(), o)
			if err != nil {
				return hinted(err, "logs and data are in %s", o.Dir)
			}
			if err := c.print(report, func(w io.Writer) { printChaos(w, report) }); err != nil {
				return err
			}
			if len(report.Findings) > 0 {
				return &problem{err: fmt.Errorf("%d findings", len(report.Findings)), code: 3, name: "findings",
					hint: "logs, data and the record of all transactions are in " + report.Kept}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&o.Seed, "seed", 0, "draws the schedule and the load; a random one when left out")
	f.DurationVar(&o.Duration, "duration", 3*time.Minute, "of the schedule, about; the audit comes on top")
	f.StringVar(&faults, "faults", "all", "those to do, with commas; with a - before the first name, those to leave out")
	f.StringVar(&o.Dir, "dir", "", "folder for the network; a new one under the system's folder for temporary files when left out")
	f.BoolVar(&inContainers, "containers", false, "break containers, which needs Docker with compose; else processes")
	f.StringVar(&topology, "topology", "", "file that describes the network, instead of the two flags below; whatever it says, snapshots are made every 50 heights")
	f.IntVar(&validators, "validators", 4, "number of validators; one full node comes with them")
	f.StringVar(&keyType, "validator-key-type", node.KeyEd25519, "ed25519 or ml_dsa_65; several with commas are used in turn")
	f.Float64Var(&o.Rate, "rate", 20, "payments a second")
	f.Float64Var(&o.Stories, "stories", 0.5, "sequences of other operations that begin each second")
	f.StringVar(&o.Source, "source", "", "folder of Pacioli's source, to build the program for wrong clocks and full disks from")
	f.IntVar(&o.Patience, "patience", 1, "multiplies every bound, for machines on which the network is too much")
	f.BoolVar(&verbose, "verbose", false, "say what the load sees")
	return cmd
}

func printChaos(w io.Writer, r chaos.Report) {
	list := func(m map[string]int) string {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
		}
		return strings.Join(parts, ", ")
	}
	faults, total := map[string]int{}, 0
	for f, n := range r.Faults {
		faults[string(f)] = n
		total += n
	}
	claims := map[string]int{}
	for _, e := range []audit.Ending{audit.Final, audit.Refused, audit.Unsent, audit.Dead, audit.Unknown} {
		claims[string(e)] = r.Claims[e]
	}
	fmt.Fprintf(w, "seed                 %d\n", r.Seed)
	fmt.Fprintf(w, "took                 %s\n", r.Duration.Round(time.Second))
	fmt.Fprintf(w, "faults               %d: %s\n", total, list(faults))
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "left out             %s\n", l)
	}
	fmt.Fprintf(w, "healed               %d times, new blocks after at most %s\n", r.Rounds, r.Longest.Round(time.Millisecond))
	fmt.Fprintf(w, "blocks               %d, longest gap %s\n", r.Blocks, r.Gap.Round(time.Millisecond))
	fmt.Fprintf(w, "transactions         %d, %d of them failed\n", r.Txs, r.Failed)
	fmt.Fprintf(w, "operations           %s\n", list(r.Kinds))
	fmt.Fprintf(w, "clients were told    %s\n", list(claims))
	fmt.Fprintf(w, "reads compared       %d\n", r.Reads)
	fmt.Fprintf(w, "commits looked at    %d\n", r.Commits)
	fmt.Fprintf(w, "rows of the state    %d, proven by each node\n", r.Rows)
	fmt.Fprintf(w, "evidence             %d\n", r.Evidence)
	for _, f := range chaos.All {
		if d, ok := r.Returns[f]; ok {
			fmt.Fprintf(w, "back after %-10s at most %s\n", f, d.Round(time.Millisecond))
		}
	}
	fmt.Fprintf(w, "findings             %d\n", len(r.Findings))
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %s\n", f)
	}
	fmt.Fprintf(w, "kept                 %s\n", r.Kept)
}
