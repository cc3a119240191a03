package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pacioli-ledger/pacioli/client/statement"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// statementFlags are what `statement` is asked for.
type statementFlags struct {
	asset, from, to, format string
	memos                   bool
	timeout                 time.Duration
}

func (c *cli) statementCommand() *cobra.Command {
	var f statementFlags
	cmd := &cobra.Command{
		Use: "statement NAME|ADDRESS --asset CODE", Short: "Show every entry of an account in an asset, proven complete", Args: args("NAME|ADDRESS"),
		Long: `Show every entry of an account in an asset, from the beginning or --from, to the newest state that can be proven or --to.
The list is checked against the heads of the account's journal, which the validators signed: nothing is missing, added or
changed, or there is an error and no statement. --from and --to take a height, a date (2026-01-31, in UTC, both days are in) or a
time (2026-01-31T12:00:00Z).

Formats: table, for people; csv, one line for each entry; json; hledger and beancount, journals for these programs, with the
closing balance as an assertion. Amounts are what an entry changed in the posted balance; what a hold makes pending is
shown beside it. A line on standard error says what was proven. --output json is --format json.

JSON: chain_id, network_id, account, name, asset, asset_id, scale, first_height, first_time, last_height, last_time, opening and
closing: height, balance, pending_in, pending_out, entries, head, origin; proof: height, entries, head, header_height,
header_hash, incarnation; earlier_lines, count, entries: number, height, time, kind, tx_id, operation, counterparty, counterparty_name, amount, balance,
pending_in, pending_out, memo, reference, code, hold.`,
		Example: `  pacioli statement alice --asset EUR
  pacioli statement alice --asset EUR --from 2026-01-01 --to 2026-01-31 --format hledger > january.journal`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.statementRequest(cmd, &f, args[0])
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: f.timeout}, func(ctx context.Context, b provenBooks) error {
				return c.statement(ctx, b, r, f.format)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.asset, "asset", "", "code of the asset")
	flags.StringVar(&f.from, "from", "", "height, date or time that the statement begins with (default the account's first entry)")
	flags.StringVar(&f.to, "to", "", "height, date or time that it ends with (default the newest state that can be proven)")
	flags.StringVar(&f.format, "format", "table", strings.Join(statement.Formats[:len(statement.Formats)-1], ", ")+" or "+statement.Formats[len(statement.Formats)-1])
	flags.BoolVar(&f.memos, "memos", true, "look up memos, which costs a question for each transaction")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long it may take")
	_ = cmd.MarkFlagRequired("asset")
	for flag, words := range map[string][]string{"from": nil, "to": nil, "format": statement.Formats} { // "from" is no key here
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

// statementRequest reads what the flags say.
func (c *cli) statementRequest(cmd *cobra.Command, f *statementFlags, account string) (r statement.Request, err error) {
	if c.output == "json" {
		if cmd.Flags().Changed("format") && f.format != "json" {
			return r, usage("--output json and --format %s exclude each other", f.format)
		}
		f.format = "json"
	}
	if !slices.Contains(statement.Formats, f.format) {
		return r, usage("--format %q: want %s", f.format, strings.Join(statement.Formats, ", "))
	}
	if f.timeout <= 0 {
		return r, usage("--timeout %s: want more than 0", f.timeout)
	}
	if err := ledger.CheckAssetCode(f.asset); err != nil {
		return r, usage("--asset: %w", err)
	}
	r = statement.Request{Asset: f.asset, Memos: f.memos, Names: c.names(), Progress: c.reading()}
	if f.from != "" {
		if r.First, err = statement.ParseBound(f.from, false); err != nil {
			return r, usage("--from %w", err)
		}
	}
	if f.to != "" {
		if r.Last, err = statement.ParseBound(f.to, true); err != nil {
			return r, usage("--to %w", err)
		}
	}
	r.Account, err = c.account("account", account)
	return r, err
}

// reading shows how far a long statement is: on a terminal in place, elsewhere every few seconds, and nothing beside JSON.
func (c *cli) reading() func(what string, done, total uint64) {
	if c.output == "json" {
		return nil
	}
	const often, seldom = 200 * time.Millisecond, 10 * time.Second
	file, ok := c.err.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	last := time.Now()
	return func(what string, done, total uint64) {
		if !terminal && time.Since(last) > seldom {
			last = time.Now()
			c.say("%s: %d of %d", what, done, total)
		} else if terminal && total > 1000 && (time.Since(last) > often || done == total) {
			last = time.Now()
			fmt.Fprintf(c.err, "\r\x1b[K%s: %d of %d", what, done, total)
			if done == total {
				fmt.Fprint(c.err, "\r\x1b[K")
			}
		}
	}
}

// statement writes one. Nothing of it is on standard output before all of it is verified.
func (c *cli) statement(ctx context.Context, b provenBooks, r statement.Request, format string) (err error) {
	s, err := statement.Read(ctx, b.Client, r)
	if errors.Is(err, statement.ErrNoAsset) {
		return &problem{err: err, name: "asset_unknown", hint: "codes are upper case"}
	}
	if closed, ok := errors.AsType[*statement.Closed](err); ok {
		hint := "give --to a height before it was closed, or --from one after"
		if closed.Height > 1 {
			hint = fmt.Sprintf("give --to %d for what was there before, or --from %d for what came after", closed.Height-1, closed.Height+1)
		}
		return &problem{err: err, name: "line_closed", hint: hint}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	file, err := os.CreateTemp("", "pacioli-statement-*")
	if err != nil {
		return fmt.Errorf("writing the statement: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := s.Write(ctx, file, format); err != nil {
		return err
	}
	if _, err = file.Seek(0, io.SeekStart); err == nil {
		_, err = io.Copy(c.out, file)
	}
	if err != nil {
		return fmt.Errorf("writing the statement: %w", err)
	}
	c.remember(r.Asset)
	if format != "table" && c.output != "json" { // which say it themselves
		c.say("%s", s.Summary())
	}
	return nil
}
