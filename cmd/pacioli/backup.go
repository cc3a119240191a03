package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
)

func (c *cli) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup", Short: "Back up a node's data, check a backup, restore one", Args: commandsOnly,
		Long: `Back up a node's data, check a backup, restore one. A backup has the ledger's state and index, the blocks, genesis and the
configuration, all of one moment. Keys and the sign state are never in it.`,
		Example: `  pacioli backup create --home /srv/pacioli --to /backup --keep 7`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.backupCreate(), c.backupVerify(), c.backupRestore())
	return cmd
}

func printBackup(w io.Writer, r node.BackupResult) {
	fmt.Fprintf(w, "backup\t%s\nchain\t%s\nnetwork\t%s\nheight\t%d\nstate\t%s\nfiles\t%d\nbytes\t%d\n", r.Backup, r.ChainID, r.Network, r.Height, r.AppHash, r.Files, r.Bytes)
	for _, old := range r.Removed {
		fmt.Fprintf(w, "removed\t%s\n", old)
	}
	if r.State != nil {
		fmt.Fprintf(w, "rows\t%d\nfindings\t%d\n", r.State.Rows, len(r.State.Findings))
		for _, f := range r.State.Findings {
			fmt.Fprintf(w, "  %s\n", f)
		}
	}
	for _, next := range r.Next {
		fmt.Fprintf(w, "to do\t%s\n", next)
	}
}

func (c *cli) backupCreate() *cobra.Command {
	var request node.BackupRequest
	cmd := &cobra.Command{
		Use: "create --to FOLDER", Short: "Back up the node of this home, whether it runs or not", Args: args(),
		Long: `Back up the node of this home, whether it runs or not, into a new folder below --to that is named after chain and height. A
running node goes on: blocks wait some milliseconds.

On the same file system as the node's data the backup is hard links, made at once: it takes no space at first, and what the node
rewrites later stays with the backup as well. It does not outlive the disk. On another file system it is a copy.`,
		Example: `  pacioli backup create --home /srv/pacioli --to /backup
  pacioli backup create --home /srv/pacioli --to /backup --keep 7 --output json`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if request.Keep < 0 {
				return usage("--keep %d: want 0 or more", request.Keep)
			}
			if request.Folder, err = filepath.Abs(request.Folder); err != nil {
				return fmt.Errorf("finding --to: %w", err)
			}
			result, err := node.Ask[node.BackupResult](cmd.Context(), node.Home(c.home), "/backup", request)
			if errors.Is(err, node.ErrNotRunning) {
				h, config, log, oerr := c.offline(cmd)
				if oerr != nil {
					return oerr
				}
				result, err = h.Backup(cmd.Context(), config, log, request, version)
			}
			if err != nil {
				return err
			}
			return c.print(result, func(w io.Writer) { printBackup(w, result) })
		},
	}
	cmd.Flags().StringVar(&request.Folder, "to", "", "folder of backups")
	cmd.Flags().IntVar(&request.Keep, "keep", 0, "backups of this network to keep in the folder, the oldest beyond it are removed; 0 keeps all")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func (c *cli) backupVerify() *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use: "verify BACKUP", Short: "Compare a backup's files with its manifest; with --deep check its state as fsck does", Args: args("BACKUP"),
		Long: `Compare a backup's files with its manifest. With --deep a copy is made beside the backup and opened: every root is derived
again, every rule of the ledger is checked. The exit code is 1 when anything is wrong.`,
		Example: `  pacioli backup verify /backup/clearing-1-000000004711 --deep`,
		RunE: func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			result, err := node.VerifyBackup(cmd.Context(), args[0], deep, log, func(line string) { c.say("%s", line) })
			if err != nil {
				return err
			}
			if err := c.print(result, func(w io.Writer) { printBackup(w, result) }); err != nil {
				return err
			}
			if result.State != nil && len(result.State.Findings) > 0 {
				return &problem{err: fmt.Errorf("%d findings: do not restore this backup", len(result.State.Findings)), name: "damaged"}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "open a copy and check its state")
	return cmd
}

func (c *cli) backupRestore() *cobra.Command {
	var newKeys bool
	cmd := &cobra.Command{
		Use: "restore BACKUP", Short: "Put a backup into a home that has no data", Args: args("BACKUP"),
		Long: `Put a backup into a home that has no data: a new one, or one whose data were lost or moved away. Keys, sign state, configuration
and genesis that are there stay. Nothing is overwritten; interrupted, it leaves the home as it was, or is finished by the next
command on the home.

A validator's sign state is not in the backup. Where the newest one is still there, the validator goes on with it. Where it is
lost, the node refuses to start until it has one that forbids everything that the key can have signed: see "Lost sign state"
in docs/OPERATING.md.`,
		Example: `  pacioli backup restore /backup/clearing-1-000000004711 --home /srv/pacioli
  pacioli backup restore /backup/clearing-1-000000004711 --home /srv/archive --new-keys`,
		RunE: func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			result, err := node.Home(c.home).Restore(cmd.Context(), args[0], newKeys, log)
			if err != nil {
				return err
			}
			return c.print(result, func(w io.Writer) { printBackup(w, result) })
		},
	}
	cmd.Flags().BoolVar(&newKeys, "new-keys", false, "make new keys, for a node that is no validator")
	return cmd
}
