package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) grantCommand() *cobra.Command {
	grant := &cobra.Command{
		Use: "grant", Short: "Let another account spend from yours, within limits", Args: commandsOnly, Example: "  pacioli grant list alice",
		Long: `A grant lets another account spend from yours: for payments, for holds or for fees, in one asset, up to an amount in each
period and in all, until a time. It moves nothing by itself, and more than is there cannot be spent. A merchant's
subscription is a grant with --per-period, and pacioli pull takes what is due.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	grant.AddCommand(c.grantCreate(), c.grantRevoke(), c.grantShow(), c.grantList())
	return grant
}

// grantKinds are what grants are for, by their names.
var grantKinds = map[string]ledger.Kind{"transfer": ledger.KindTransfer, "hold": ledger.KindCreateHold, "fees": ledger.KindFees}

func kindName(k ledger.Kind) string {
	for name, kind := range grantKinds {
		if kind == k {
			return name
		}
	}
	return k.String()
}

const kindHelp = "what it is for: transfer, hold, or fees (fees and deposits, without CODE)"

// grantArgs takes a grantee and, but for fees, a code, after some other arguments.
func grantArgs(kind *string, before ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		names := append(before[:len(before):len(before)], "GRANTEE")
		if *kind != "fees" {
			names = append(names, "CODE")
		}
		return args(names...)(cmd, given)
	}
}

// grantKey reads what names a grant.
func (c *cli) grantKey(ctx context.Context, b books, granter crypto.Address, grantee, kind string, code []string) (ledger.GrantKey, ledger.Asset, error) {
	k := ledger.GrantKey{Granter: granter}
	var asset ledger.Asset
	var ok bool
	var err error
	if k.Kind, ok = grantKinds[kind]; !ok {
		return k, asset, usage("--kind %q: want transfer, hold or fees", kind)
	}
	if k.Grantee, err = c.account("GRANTEE", grantee); err != nil {
		return k, asset, err
	}
	if k.Kind == ledger.KindFees {
		p, err := b.parameters(ctx)
		if err != nil {
			return k, asset, err
		}
		asset, err = b.asset(ctx, p.FeeAsset)
		return k, asset, err
	}
	k.Asset, asset, err = b.assetByCode(ctx, code[0])
	return k, asset, err
}

func (c *cli) grantCreate() *cobra.Command {
	var d deedFlags
	var kind, perPeriod, total, until, to string
	var period time.Duration
	cmd := &cobra.Command{
		Use: "create GRANTEE CODE --from KEY --until WHEN", Short: "Give a grant, or replace the one that is there", Args: grantArgs(&kind),
		Long: `Give a grant, or replace the one with the same grantee, kind and asset; what was spent then counts from 0 again. At least one
of --per-period (with --period) and --total is needed. --to binds it to one receiver.

JSON: as pacioli pay.`,
		Example: "  pacioli grant create merchant EUR --from customer --per-period 10 --period 720h --to merchant --until 8760h\n" +
			"  pacioli grant create newcomer --kind fees --from sponsor --total 1 --until 720h",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
				k, asset, err := c.grantKey(ctx, b, from.address, args[0], kind, args[1:])
				if err != nil {
					return nil, err
				}
				op := &ledger.SetGrant{Grantee: k.Grantee, For: k.Kind, Asset: k.Asset}
				if perPeriod == "" && total == "" {
					return nil, usage("--per-period or --total is missing")
				}
				if (perPeriod == "") != (period == 0) {
					return nil, usage("--per-period and --period belong together")
				}
				if period%time.Second != 0 || period < 0 || period > ledger.MaxPeriodSeconds*time.Second {
					return nil, usage("--period %s: want whole seconds, at most %s", period, ledger.MaxPeriodSeconds*time.Second)
				}
				op.Period = uint32(period / time.Second)
				for _, f := range []struct {
					flag, text string
					into       *ledger.Amount
				}{{"--per-period", perPeriod, &op.PerPeriod}, {"--total", total, &op.Total}} {
					if f.text == "" {
						continue
					}
					if *f.into, err = ledger.ParseAmount(f.text, asset.Scale); err != nil || f.into.IsZero() {
						return nil, usage("%s %q: want more than 0, in decimals of %s", f.flag, f.text, asset.Code)
					}
				}
				relative := false
				if op.Until, relative, err = c.moment(ctx, b, "--until", until); err != nil {
					return nil, err
				}
				before, err := c.earlier(from.address, d.send)
				if err != nil {
					return nil, err
				}
				if old, again := before.(*ledger.SetGrant); again && relative {
					op.Until = old.Until
				}
				if to != "" {
					if op.To, err = c.account("--to", to); err != nil {
						return nil, err
					}
				}
				return []ledger.Operation{op}, nil
			})
		},
	}
	d.add(cmd, "account that gives the grant")
	f := cmd.Flags()
	f.StringVar(&kind, "kind", "transfer", kindHelp)
	f.StringVar(&perPeriod, "per-period", "", "most in one period, in decimals")
	f.DurationVar(&period, "period", 0, "length of a period, such as 720h; the first begins now")
	f.StringVar(&total, "total", "", "most in all, in decimals")
	f.StringVar(&until, "until", "", "when it ends: a time, or how long from now, such as 8760h")
	f.StringVar(&to, "to", "", "the only account that may be paid (default: any)")
	_ = cmd.MarkFlagRequired("until")
	return cmd
}

func (c *cli) grantRevoke() *cobra.Command {
	var d deedFlags
	var kind string
	cmd := &cobra.Command{
		Use: "revoke GRANTEE CODE --from KEY", Short: "End a grant, and get its deposit back", Args: grantArgs(&kind),
		Long: "End a grant that the account has given, and get its deposit back.\n\nJSON: as pacioli pay.", Example: "  pacioli grant revoke merchant EUR --from customer",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
				k, _, err := c.grantKey(ctx, b, from.address, args[0], kind, args[1:])
				if err != nil {
					return nil, err
				}
				op := []ledger.Operation{&ledger.RevokeGrant{Grantee: k.Grantee, For: k.Kind, Asset: k.Asset}}
				// What was sent under a nonce may be sent again when the grant is gone.
				if before, err := c.earlier(from.address, d.send); err != nil || before != nil || d.send.out != "" {
					return op, err
				}
				g, err := b.Grant(ctx, k, 0)
				if err == nil && !g.Present {
					err = &problem{err: fmt.Errorf("%s has given %s no such grant at height %d; nothing was sent", from.address, k.Grantee, g.Height), name: ledger.GrantUnknown.String(),
						hint: "pacioli grant list shows those that it has given; --kind names another kind"}
				}
				return op, err
			})
		},
	}
	d.add(cmd, "account that has given the grant")
	cmd.Flags().StringVar(&kind, "kind", "transfer", kindHelp)
	return cmd
}

// grantView is a grant as results show it.
type grantView struct {
	Granter     crypto.Address  `json:"granter"`
	GranterName string          `json:"granter_name,omitempty"`
	Grantee     crypto.Address  `json:"grantee"`
	GranteeName string          `json:"grantee_name,omitempty"`
	Kind        string          `json:"kind"`
	Asset       string          `json:"asset"`
	PerPeriod   string          `json:"per_period,omitempty"`
	Period      uint32          `json:"period_seconds,omitempty"`
	Total       string          `json:"total,omitempty"`
	Spent       string          `json:"spent,omitempty"` // in all, where there is a total
	Remaining   string          `json:"remaining"`       // now
	Until       string          `json:"until"`
	To          *crypto.Address `json:"to,omitempty"`
	State       string          `json:"state"` // open, used_up, expired, or void: the granter has ended all of its time
}

func (c *cli) grantView(ctx context.Context, b provenBooks, k ledger.GrantKey, g ledger.Grant, granter ledger.Account, now uint64) (grantView, error) {
	id := k.Asset
	if k.Kind == ledger.KindFees {
		p, err := b.parameters(ctx)
		if err != nil {
			return grantView{}, err
		}
		id = p.FeeAsset
	}
	asset, err := b.asset(ctx, id)
	if err != nil {
		return grantView{}, err
	}
	names := c.names()
	left := g.Remaining(now)
	v := grantView{Granter: k.Granter, GranterName: names[k.Granter], Grantee: k.Grantee, GranteeName: names[k.Grantee], Kind: kindName(k.Kind), Asset: asset.Code,
		Period: g.Period, Until: rfc3339(g.Until), State: "open"}
	if !g.PerPeriod.IsZero() {
		v.PerPeriod = g.PerPeriod.Format(asset.Scale)
	}
	if !g.Total.IsZero() {
		v.Total, v.Spent = g.Total.Format(asset.Scale), g.Spent.Format(asset.Scale)
	}
	if g.To != (crypto.Address{}) {
		v.To = &g.To
	}
	switch {
	case g.Epoch != granter.Epoch:
		v.State, left = "void", ledger.Amount{}
	case now >= g.Until:
		v.State = "expired"
	case left.IsZero():
		v.State = "used_up"
	}
	v.Remaining = left.Format(asset.Scale)
	return v, nil
}

// terms says in words what a grant allows.
func (v grantView) terms() string {
	var parts []string
	if v.PerPeriod != "" {
		parts = append(parts, fmt.Sprintf("%s per %s", v.PerPeriod, time.Duration(v.Period)*time.Second))
	}
	if v.Total != "" {
		parts = append(parts, fmt.Sprintf("%s in all, %s spent", v.Total, v.Spent))
	}
	return strings.Join(parts, ", ") + " (" + v.Asset + ")"
}

func (c *cli) grantShow() *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "show GRANTER GRANTEE CODE", Short: "Show a grant, proven", Args: grantArgs(&kind, "GRANTER"),
		Long: `Show a grant and what it still allows, proven. Its money is what the granter has: pacioli balance shows that.

JSON: granter, grantee, kind, asset, per_period, period_seconds, total, spent, remaining, until, to, state, height, time.`,
		Example: "  pacioli grant show customer merchant EUR",
		RunE: func(cmd *cobra.Command, args []string) error {
			granter, err := c.account("GRANTER", args[0])
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				k, _, err := c.grantKey(ctx, b, granter, args[1], kind, args[2:])
				if err != nil {
					return err
				}
				g, err := b.Grant(ctx, k, 0)
				if err != nil {
					return err
				}
				if !g.Present {
					return &problem{err: fmt.Errorf("%s has given %s no such grant at height %d", granter, k.Grantee, g.Height), name: ledger.GrantUnknown.String(),
						hint: "pacioli grant list shows those that it has given; --kind names another kind"}
				}
				account, err := b.Account(ctx, granter, g.Height)
				if err != nil {
					return err
				}
				v, err := c.grantView(ctx, b, k, g.Value, account.Value, uint64(g.Time.Unix()))
				if err != nil {
					return err
				}
				r := struct {
					grantView
					Height uint64 `json:"height"`
					Time   string `json:"time"`
				}{v, g.Height, g.Time.UTC().Format(time.RFC3339Nano)}
				return c.print(r, func(w io.Writer) {
					fmt.Fprintf(w, "granter\t%s\ngrantee\t%s\nfor\t%s\nterms\t%s\nremaining\t%s %s\nuntil\t%s\n", named(v.Granter, v.GranterName), named(v.Grantee, v.GranteeName),
						v.Kind, v.terms(), v.Remaining, v.Asset, v.Until)
					if v.To != nil {
						fmt.Fprintf(w, "pays only\t%s\n", named(*v.To, c.names()[*v.To]))
					}
					fmt.Fprintf(w, "state\t%s\nproven\tat height %d\n", v.State, r.Height)
				})
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "transfer", kindHelp)
	return cmd
}

func (c *cli) grantList() *cobra.Command {
	return &cobra.Command{
		Use: "list NAME|ADDRESS", Short: "List the grants that an account has given, complete and proven", Args: args("NAME|ADDRESS"),
		Long: `List the grants that an account has given, also those that are worth nothing any more. Each is proven, and so is how many there
are. Those that it has been given stand with their granters.

JSON: account, name, height, time, grants: as pacioli grant show.`,
		Example: "  pacioli grant list customer",
		RunE: func(cmd *cobra.Command, args []string) error {
			account, err := c.account("account", args[0])
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				grants, err := b.Grants(ctx, account, 0)
				if err != nil {
					return err
				}
				granter, err := b.Account(ctx, account, grants.Height)
				if err != nil {
					return err
				}
				r := struct {
					Account crypto.Address `json:"account"`
					Name    string         `json:"name,omitempty"`
					Height  uint64         `json:"height"`
					Time    string         `json:"time"`
					Grants  []grantView    `json:"grants"`
				}{account, c.names()[account], grants.Height, grants.Time.UTC().Format(time.RFC3339Nano), []grantView{}}
				for _, g := range grants.Rows {
					v, err := c.grantView(ctx, b, g.Key, g.Grant, granter.Value, uint64(grants.Time.Unix()))
					if err != nil {
						return err
					}
					r.Grants = append(r.Grants, v)
				}
				return c.print(r, func(w io.Writer) {
					for _, v := range r.Grants {
						fmt.Fprintf(w, "%s\t%s\t%s\tuntil %s\t%s\n", named(v.Grantee, v.GranteeName), v.Kind, v.terms(), v.Until, v.State)
					}
					fmt.Fprintf(w, "%d grants, proven to be all at height %d\n", len(r.Grants), r.Height)
				})
			})
		},
	}
}

func (c *cli) pullCommand() *cobra.Command {
	var p paymentFlags
	var s sendFlags
	var from, by string
	cmd := &cobra.Command{
		Use: "pull --from NAME|ADDRESS --to KEY AMOUNT CODE", Short: "Take what a grant allows from another account, such as a subscription", Args: args("AMOUNT", "CODE"),
		Long: `Take what a grant allows from the account that gave it. It is signed by --to, or by --by where the grant is to another
account, and that one pays the fee. It is pacioli pay with --granter.

JSON: as pacioli pay.`,
		Example: "  pacioli pull --from customer --to merchant 10 EUR --reference 4f5c1d0e-7a0e-4a51-9f5e-0d7c2a9a1b11",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			p.granter, p.from = from, by
			if p.from == "" {
				p.from = p.to
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				signer, t, err := c.transfer(ctx, b, p, args[0], args[1])
				if err != nil {
					return err
				}
				return c.perform(ctx, b, request{[]payer{signer}, []ledger.Operation{t}, s})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "account that gave the grant: a key of this home, or an address")
	f.StringVar(&p.to, "to", "", "key of this home, or address, that is paid")
	f.StringVar(&by, "by", "", "account that the grant is to, and that signs (default: --to)")
	keyFlag(f, &p.keys)
	p.noteFlags.add(cmd)
	s.add(cmd)
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}
