package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/ledger"
)

type codeResult struct {
	Code    uint32 `json:"code"`
	Name    string `json:"name"`
	Class   string `json:"class"` // ok, refused or failed
	Meaning string `json:"meaning"`
	Remedy  string `json:"remedy"`
}

func newCodeResult(e ledger.Explanation) codeResult {
	class := "ok"
	if e.Code.Refused() {
		class = "refused"
	} else if e.Code.Failed() {
		class = "failed"
	}
	return codeResult{uint32(e.Code), e.Name, class, e.Meaning, e.Remedy}
}

func (c *cli) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [CODE]", Short: "Say what a transaction's code means and what to do; without CODE, list all",
		Args:    cobra.MaximumNArgs(1),
		Example: "  pacioli explain 101\n  pacioli explain insufficient_funds",
		RunE: func(_ *cobra.Command, args []string) error {
			all := ledger.Explanations()
			if len(args) == 0 {
				result := struct {
					Codes []codeResult `json:"codes"`
				}{}
				for _, e := range all {
					result.Codes = append(result.Codes, newCodeResult(e))
				}
				return c.print(result, func(w io.Writer) {
					for _, r := range result.Codes {
						fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", r.Code, r.Name, r.Class, r.Meaning)
					}
				})
			}
			i := slices.IndexFunc(all, func(e ledger.Explanation) bool {
				return e.Name == args[0] || strconv.FormatUint(uint64(e.Code), 10) == args[0]
			})
			if i < 0 {
				return &problem{err: fmt.Errorf("there is no code %q", args[0]), name: "usage",
					hint: "pacioli explain lists all codes of transactions; names of errors on this side, as not_sent or line_closed, are in docs/CLI.md"}
			}
			r := newCodeResult(all[i])
			return c.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "code\t%d\nname\t%s\nclass\t%s\nmeaning\t%s\nremedy\t%s\n", r.Code, r.Name, r.Class, r.Meaning, r.Remedy)
			})
		},
	}
}
