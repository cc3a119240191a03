package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// foundView is something that a search has found.
type foundView struct {
	ID        string         `json:"id,omitempty"` // of the transaction; absent: a block made it
	Operation *uint32        `json:"operation,omitempty"`
	Height    uint64         `json:"height"`
	Time      string         `json:"time,omitempty"` // of the block, where a transaction made it
	Kind      string         `json:"kind"`           // transfer, hold, post, void, expire or clawback
	From      crypto.Address `json:"from"`
	FromName  string         `json:"from_name,omitempty"`
	To        crypto.Address `json:"to"`
	ToName    string         `json:"to_name,omitempty"`
	Amount    string         `json:"amount"`
	Asset     string         `json:"asset"`
	Hold      string         `json:"hold,omitempty"`
	Reference string         `json:"reference,omitempty"`
	Code      uint32         `json:"code,omitempty"`
	Proven    bool           `json:"proven"` // false: whose it was can no longer be, since the line was closed
}

func (c *cli) txFind() *cobra.Command {
	var reference, hold, account, after string
	var code, limit uint32
	cmd := &cobra.Command{
		Use: "find --reference ID | --hold ID | --account NAME --code N", Short: "Find transactions by your own reference or code, or by a hold; each is proven", Args: args(),
		Long: `Find payments, holds and clawbacks by the reference that they carry, or by an account and the code that they carry; or everything
that happened to a hold. Nodes keep an index, and each hit is proven by its receipt, or where a block made it (a hold that
expired) by the journal. That no hit was left out cannot be proven: the journal of a line is complete, an index is a node's word.

JSON: found (id, operation, height, time, kind, from, to, amount, asset, hold, reference, code, proven), next (give it as --after), complete
(always false).`,
		Example: "  pacioli tx find --reference 4f5c1d0e-7a0e-4a51-9f5e-0d7c2a9a1b11\n  pacioli tx find --account shop --code 7",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := query.Search{Limit: limit}
			if limit < 1 || limit > query.MaxHits {
				return usage("--limit %d: want 1 to %d", limit, query.MaxHits)
			}
			given := 0
			var err error
			if reference != "" {
				given++
				s.By = query.ByReference
				if s.Reference, err = id128("--reference", reference); err != nil {
					return err
				}
			}
			if hold != "" {
				given++
				s.By = query.ByHold
				if s.Hold, err = crypto.ParseHash(strings.ToLower(hold)); err != nil || s.Hold == (crypto.Hash{}) {
					return usage("--hold %q: want 64 hex digits", hold)
				}
			}
			if account != "" || code != 0 {
				given++
				s.By, s.Code = query.ByCode, code
				if account == "" || code == 0 || code > 65535 {
					return usage("--account and --code belong together, and a code is 1 to 65535")
				}
				if s.Account, err = c.account("--account", account); err != nil {
					return err
				}
			}
			if given != 1 {
				return usage("give --reference, or --hold, or --account with --code")
			}
			if after != "" {
				if s.After, err = hex.DecodeString(after); err != nil || len(s.After) > query.MaxCursor {
					return usage("--after %q: want what an earlier search has ended with", after)
				}
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error { return c.find(ctx, b, s) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&reference, "reference", "", "your own 128-bit id, as 32 hex digits or a UUID")
	f.StringVar(&hold, "hold", "", "id of a hold")
	f.StringVar(&account, "account", "", "key of this home, or address: with --code")
	f.Uint32Var(&code, "code", 0, "your own kind of payment, 1 to 65535: with --account")
	f.StringVar(&after, "after", "", "go on where an earlier search has ended")
	f.Uint32Var(&limit, "limit", 50, fmt.Sprintf("how many at most, 1 to %d", query.MaxHits))
	return cmd
}

func (c *cli) find(ctx context.Context, b provenBooks, s query.Search) error {
	found, next, err := b.Search(ctx, s)
	if err != nil {
		return err
	}
	r := struct {
		Found    []foundView `json:"found"`
		Next     string      `json:"next,omitempty"`
		Complete bool        `json:"complete"`
	}{[]foundView{}, hex.EncodeToString(next), false}
	names := c.names()
	for _, x := range found {
		e := x.Entry
		v := foundView{Height: e.Height, Kind: e.Kind.String(), From: x.Line.Account, To: e.Counterparty, Code: e.Code, Proven: x.Proven}
		if e.Credit {
			v.From, v.To = v.To, v.From
		}
		v.FromName, v.ToName = names[v.From], names[v.To]
		if x.Final != nil {
			v.ID, v.Operation, v.Time = x.Final.ID.String(), &e.Operation, x.Final.Time.UTC().Format(time.RFC3339Nano)
		}
		asset, err := b.asset(ctx, x.Line.Asset)
		if err != nil {
			return err
		}
		v.Amount, v.Asset = e.Amount.Format(asset.Scale), asset.Code
		if e.Hold != (crypto.Hash{}) {
			v.Hold = e.Hold.String()
		}
		if e.Reference != (ledger.Reference{}) {
			v.Reference = hex.EncodeToString(e.Reference[:])
		}
		r.Found = append(r.Found, v)
	}
	return c.print(r, func(w io.Writer) {
		for _, v := range r.Found {
			by := "block " + fmt.Sprint(v.Height)
			if v.ID != "" {
				by = v.ID
			}
			fmt.Fprintf(w, "%s\t%s\t%s %s\tfrom %s\tto %s\theight %d\n", by, v.Kind, v.Amount, v.Asset, named(v.From, v.FromName), named(v.To, v.ToName), v.Height)
		}
		fmt.Fprintf(w, "%d found, each proven; that there is no other is a node's word\n", len(r.Found))
		if r.Next != "" {
			fmt.Fprintf(w, "there may be more: --after %s\n", r.Next)
		}
	})
}
