package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

func (c *cli) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Short: "Make, list, fetch, check and restore snapshots of the ledger's state", Args: commandsOnly,
		Long: `Make, list, fetch, check and restore snapshots of the ledger's state. A snapshot is a folder with a manifest and chunks, the same
bytes on every node that makes one of a height. A node that begins with one need not execute the blocks before it, and does
not have them.

What a snapshot says is compared with headers that the validators have signed before any of it is used: trust begins with the
home's genesis file, or with --trust HEIGHT:HASH. The nodes that --node names need not be trusted.`,
		Example: `  pacioli snapshot create --home /srv/pacioli
  pacioli snapshot fetch --home /srv/second --node http://10.0.0.1:26657,http://10.0.0.2:26657 --to /srv/snapshot`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.snapshotCreate(), c.snapshotList(), c.snapshotVerify(), c.snapshotFetch(), c.snapshotRestore())
	return cmd
}

// snapshotResult is a snapshot and the folder that it is in.
type snapshotResult struct {
	snapshot.Info
	Folder string `json:"folder"`
}

func (c *cli) printSnapshot(info snapshot.Info, folder string, last string) error {
	r := snapshotResult{info, folder}
	return c.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "height\t%d\ntime\t%s\nstate\t%s\nnetwork\t%s\nrows\t%d\nchunks\t%d\nbytes\t%d\nhash\t%s\nfolder\t%s\n", r.Height,
			r.Time, r.AppHash, r.Network, r.Rows, r.Chunks, r.Bytes, r.Hash, r.Folder)
		if last != "" {
			fmt.Fprintln(w, last)
		}
	})
}

// source is where commands take headers from.
func (c *cli) source() (node.StateSource, error) {
	s := node.StateSource{Servers: c.nodes}
	if c.trust != "" {
		trust, err := client.ParseTrust(c.trust)
		if err != nil {
			return s, usage("--trust: %w", err)
		}
		s.Height, s.Hash = trust.Height, fmt.Sprintf("%x", trust.Hash)
	}
	return s, nil
}

// snapshotProblem names what scripts have to tell apart.
func snapshotProblem(err error) error {
	switch {
	case errors.Is(err, snapshot.ErrUntrusted):
		return &problem{err: err, name: "untrusted", hint: "do not use this snapshot; take one of another node"}
	case errors.Is(err, store.ErrStream), errors.Is(err, snapshot.ErrChunk), errors.Is(err, snapshot.ErrManifest):
		return &problem{err: err, name: "damaged", hint: "fetch the snapshot again: pacioli snapshot fetch"}
	case errors.Is(err, snapshot.ErrNone):
		return &problem{err: err, name: "no_snapshot", hint: `see "State sync does not get on" in docs/OPERATING.md`}
	}
	return err
}

func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// everySecond passes a progress on at most once a second.
func (c *cli) everySecond(what string) func(done, all int) {
	var said time.Time
	return func(done, all int) {
		if time.Since(said) > time.Second {
			said = time.Now()
			c.say("%s: chunk %d of %d", what, done, all)
		}
	}
}

func (c *cli) snapshotCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create", Short: "Make a snapshot of the node of this home, whether it runs or not", Args: args(),
		Long: `Make a snapshot of the newest height of the node of this home, whether it runs or not, below data/snapshots. A running node gives
it to others from then on. It goes on meanwhile: the work takes at most a quarter of one processor.`,
		Example: `  pacioli snapshot create --home /srv/pacioli --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := node.Home(c.home)
			info, err := node.Ask[snapshot.Info](cmd.Context(), h, "/snapshot", node.SnapshotRequest{})
			if errors.Is(err, node.ErrNotRunning) {
				_, config, log, oerr := c.offline(cmd)
				if oerr != nil {
					return oerr
				}
				info, err = h.CreateSnapshot(cmd.Context(), config, log)
			}
			if err != nil {
				return err
			}
			return c.printSnapshot(info, filepath.Join(h.Snapshots(), strconv.FormatUint(info.Height, 10)), "")
		},
	}
}

func (c *cli) snapshotList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the snapshots of this home", Args: args(),
		Example: `  pacioli snapshot list --home /srv/pacioli`,
		RunE: func(*cobra.Command, []string) error {
			list, err := node.Home(c.home).ListSnapshots()
			if err != nil {
				return err
			}
			return c.print(map[string]any{"snapshots": list}, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				defer t.Flush()
				fmt.Fprintf(t, "HEIGHT\tTIME\tROWS\tCHUNKS\tBYTES\tSTATE\n")
				for _, i := range list {
					fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%d\t%s\n", i.Height, i.Time, i.Rows, i.Chunks, i.Bytes, i.AppHash)
				}
			})
		},
	}
}

// snapshotFolder is the folder of a snapshot: a height names one of this home.
func (c *cli) snapshotFolder(arg string) string {
	if _, err := strconv.ParseUint(arg, 10, 64); err == nil {
		return filepath.Join(node.Home(c.home).Snapshots(), arg)
	}
	return arg
}

func (c *cli) snapshotVerify() *cobra.Command {
	var alone bool
	cmd := &cobra.Command{
		Use: "verify HEIGHT|FOLDER", Short: "Check every byte of a snapshot, and that its state is the chain's", Args: args("HEIGHT|FOLDER"),
		Long: `Check every byte of a snapshot: each chunk against the manifest, each record up to the roots of all trees, and the AppHash that they
give against a verified header. A height names a snapshot of this home. The exit code is 1 when anything is wrong.`,
		Example: `  pacioli snapshot verify /srv/snapshot --home /srv/pacioli --node http://10.0.0.1:26657
  pacioli snapshot verify 120000 --home /srv/pacioli --alone`,
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := c.source()
			if err != nil {
				return err
			}
			last := "the state is the one that the validators have signed"
			if alone {
				source.Servers, last = nil, "whole; whether the state is the chain's was not asked"
			}
			folder := c.snapshotFolder(args[0])
			info, err := node.Home(c.home).VerifySnapshot(cmd.Context(), folder, source, warnings(), c.everySecond("check"))
			if err != nil {
				return snapshotProblem(err)
			}
			return c.printSnapshot(info, folder, last)
		},
	}
	cmd.Flags().BoolVar(&alone, "alone", false, "ask no node: check only that the snapshot is whole and of one state")
	return cmd
}

func (c *cli) snapshotFetch() *cobra.Command {
	var to string
	var height uint64
	cmd := &cobra.Command{
		Use: "fetch --to FOLDER", Short: "Fetch a snapshot from the nodes that --node names", Args: args(),
		Long: `Fetch a snapshot from the nodes that --node names, from all that have it at once. Each chunk is checked as it comes; a node that gives
a false one is not asked again. Interrupted, the same command goes on with the chunks that are there.`,
		Example: `  pacioli snapshot fetch --home /srv/second --node http://10.0.0.1:26657,http://10.0.0.2:26657 --to /srv/snapshot`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source, err := c.source()
			if err != nil {
				return err
			}
			info, err := node.Home(c.home).FetchSnapshot(cmd.Context(), source, height, to, warnings(), func(line string) { c.say("%s", line) })
			if err != nil {
				return snapshotProblem(err)
			}
			return c.printSnapshot(info, to, "")
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "folder to put it into; it must be empty, or hold what an interrupted fetch has left")
	cmd.Flags().Uint64Var(&height, "height", 0, "height of the snapshot, 0 for the newest")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func (c *cli) snapshotRestore() *cobra.Command {
	return &cobra.Command{
		Use: "restore FOLDER", Short: "Put the state of a snapshot into a home that has no data", Args: args("FOLDER"),
		Long: `Put the state of a snapshot into a home that has no data, after comparing it with a verified header: the node begins with the block
after it. Genesis file, configuration, keys and sign state of the home stay as they are. Nothing is overwritten; interrupted,
it leaves the home as it was, or is finished by the next command on the home.`,
		Example: `  pacioli snapshot restore /srv/snapshot --home /srv/second --node http://10.0.0.1:26657,http://10.0.0.2:26657`,
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := c.source()
			if err != nil {
				return err
			}
			info, err := node.Home(c.home).RestoreSnapshot(cmd.Context(), args[0], source, warnings(), c.everySecond("build"))
			if err != nil {
				return snapshotProblem(err)
			}
			return c.printSnapshot(info, args[0], "start the node: it fetches the blocks after this height from its peers")
		},
	}
}
