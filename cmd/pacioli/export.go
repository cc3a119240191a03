package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
)

func printExport(w io.Writer, r node.ExportResult) {
	fmt.Fprintf(w, "file\t%s\nchain\t%s\nnetwork\t%s\nheight\t%d\nstate\t%s\nrows\t%d\nsha256\t%s\n", r.File, r.ChainID, r.Network, r.Height, r.AppHash, r.Rows, r.SHA256)
}

func (c *cli) exportCommand() *cobra.Command {
	var request node.ExportRequest
	cmd := &cobra.Command{
		Use: "export --out FILE", Short: "Write the whole state of a height as canonical text, whether the node runs or not", Args: commandsOnly,
		Long: `Write the whole state of a height as canonical text, one JSON object a line, whether the node of this home runs or not. Every
node writes the same bytes for a height. The roots of all trees and the AppHash follow from the file: "pacioli export verify" derives
them. docs/PROTOCOL.md describes it. It reaches as far back as "pacioli rollback" does.`,
		Example: `  pacioli export --home /srv/pacioli --out state.jsonl
  pacioli export --home /srv/pacioli --height 4711 --out state-4711.jsonl`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if request.File, err = filepath.Abs(request.File); err != nil {
				return fmt.Errorf("finding --out: %w", err)
			}
			result, err := node.Ask[node.ExportResult](cmd.Context(), node.Home(c.home), "/export", request)
			if errors.Is(err, node.ErrNotRunning) {
				h, config, log, oerr := c.offline(cmd)
				if oerr != nil {
					return oerr
				}
				result, err = h.Export(cmd.Context(), config, log, request)
			}
			if err != nil {
				return err
			}
			return c.print(result, func(w io.Writer) { printExport(w, result) })
		},
	}
	cmd.Flags().Uint64Var(&request.Height, "height", 0, "height whose state is written; 0 for the newest")
	cmd.Flags().StringVar(&request.File, "out", "", "file to write; it must not exist")
	_ = cmd.MarkFlagRequired("out")
	cmd.AddCommand(&cobra.Command{
		Use: "verify FILE", Short: "Derive every root in an export again and check the rules of the ledger over it", Args: args("FILE"),
		Long: `Derive every root in an export again from its rows, the AppHash from the roots, and check the rules of the ledger over the
rows. That the AppHash is the network's is what a proven header says: compare it with "state" in "pacioli status" of the
next height, or with the app_hash that "pacioli tx show" proves. The exit code is 1 when anything is wrong.`,
		Example: `  pacioli export verify state.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := node.VerifyExport(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := c.print(result, func(w io.Writer) {
				printExport(w, result)
				fmt.Fprintf(w, "accounts\t%d\nlines\t%d\nfindings\t%d\n", result.Accounts, result.Lines, len(result.Findings))
				for _, f := range result.Findings {
					fmt.Fprintf(w, "  %s\n", f)
				}
			}); err != nil {
				return err
			}
			if n := len(result.Findings); n > 0 {
				return &problem{err: fmt.Errorf("%d findings in the state of height %d", n, result.Height), name: "damaged"}
			}
			return nil
		},
	})
	return cmd
}
