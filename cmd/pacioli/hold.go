package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// resolvers are the names of the bits of [ledger.Resolvers].
var resolvers = []string{"receiver", "arbiter", "holder", "anybody"}

// holdFlags say what a hold is. A preset sets some of them and offers the rest.
type holdFlags struct {
	deedFlags
	noteFlags
	to, granter, arbiter, expires, notBefore string
	hash                                     string // hex, or "new"
	postBy, voidBy                           []string
	postAtExpiry                             bool
	expiresFlag                              string // how the flag of its end is called
}

// addParties adds the flags that every hold has.
func (h *holdFlags) addParties(cmd *cobra.Command) {
	h.deedFlags.add(cmd, "account whose money is held")
	f := cmd.Flags()
	h.expiresFlag = "--expires"
	f.StringVar(&h.to, "to", "", "key of this home, or address, that the money is held for")
	f.StringVar(&h.granter, "granter", "", "account whose money it is, under a grant for holds to --from")
	h.noteFlags.add(cmd)
	_ = cmd.MarkFlagRequired("to")
}

const expiresHelp = "when it ends by itself: a time, or how long from now, such as 720h"

// operation looks everything up that a hold names.
func (c *cli) holdOperation(ctx context.Context, b provenBooks, from crypto.Address, h holdFlags, amount, code string) (*ledger.CreateHold, error) {
	op := &ledger.CreateHold{Memo: h.memo, Code: h.code, PostAtExpiry: h.postAtExpiry}
	var err error
	if op.To, err = c.account("--to", h.to); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		flag, text string
		into       *crypto.Address
	}{{"--granter", h.granter, &op.Granter}, {"--arbiter", h.arbiter, &op.Arbiter}} {
		if f.text == "" {
			continue
		}
		if *f.into, err = c.account(f.flag, f.text); err != nil {
			return nil, err
		}
	}
	if op.Reference, op.Balancing, err = h.read(); err != nil {
		return nil, err
	}
	if op.Balancing&ledger.BalancingCredit != 0 {
		return nil, usage("--balancing %s: a hold takes debit only", h.balancing)
	}
	if op.PostBy, err = bitsOf[ledger.Resolvers]("--post-by", h.postBy, resolvers); err != nil {
		return nil, err
	}
	if op.VoidBy, err = bitsOf[ledger.Resolvers]("--void-by", h.voidBy, resolvers[:3]); err != nil {
		return nil, err
	}
	if op.Asset, op.Amount, err = c.amountOf(ctx, b, "", amount, code); err != nil {
		return nil, err
	}
	before, err := c.earlier(from, h.send)
	if err != nil {
		return nil, err
	}
	old, again := before.(*ledger.CreateHold)
	var relative bool
	if op.Expires, relative, err = c.moment(ctx, b, h.expiresFlag, h.expires); err != nil {
		return nil, err
	}
	if relative && again {
		op.Expires = old.Expires
	}
	if h.notBefore != "" {
		if op.NotBefore, relative, err = c.moment(ctx, b, "--not-before", h.notBefore); err != nil {
			return nil, err
		}
		if relative && again {
			op.NotBefore = old.NotBefore
		}
	}
	switch {
	case h.hash == "new" && again:
		op.HashLock = old.HashLock
	case h.hash == "new" && h.send.dryRun:
		rand.Read(op.HashLock[:]) // any will do, and nobody is to wonder what a file of a secret is for
	case h.hash == "new":
		if op.HashLock, err = c.newPreimage(); err != nil {
			return nil, err
		}
	case h.hash != "":
		if op.HashLock, err = crypto.ParseHash(strings.ToLower(h.hash)); err != nil {
			return nil, usage("--hash %q: want 64 hex digits, the SHA-256 of the preimage", h.hash)
		}
	}
	return op, nil
}

// preimagePath is where the preimage of a lock that was made here is kept.
func (c *cli) preimagePath(lock crypto.Hash) string {
	return filepath.Join(c.home, "preimages", lock.String())
}

// newPreimage makes the secret of a hash lock and keeps it, durably, before anything depends on it.
func (c *cli) newPreimage() (lock crypto.Hash, err error) {
	preimage := make([]byte, 32)
	rand.Read(preimage) // never errs
	lock = sha256.Sum256(preimage)
	path := c.preimagePath(lock)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return lock, fmt.Errorf("making the folder of preimages: %w", err)
	}
	if err := writeFile(path, []byte(hex.EncodeToString(preimage)+"\n")); err != nil {
		return lock, err
	}
	c.say("the preimage of the lock %s is in %s: whoever knows it can have the hold posted", lock, path)
	return lock, nil
}

// preimage reads what opens a lock: what was given, or what was kept here; nil: neither.
func (c *cli) preimage(given string, lock crypto.Hash) ([]byte, error) {
	if given == "" {
		content, err := os.ReadFile(c.preimagePath(lock))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the preimage: %w", err)
		}
		given = strings.TrimSpace(string(content))
	}
	p, err := hex.DecodeString(given)
	if err != nil || len(p) == 0 || len(p) > ledger.MaxPreimageBytes {
		return nil, usage("--preimage: want 1 to %d bytes in hex", ledger.MaxPreimageBytes)
	}
	return p, nil
}

// makeHold is the command of a hold or of a preset.
func (c *cli) makeHold(cmd *cobra.Command, h *holdFlags) *cobra.Command {
	cmd.Args = args("AMOUNT", "CODE")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.do(cmd.Context(), h.deedFlags, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
			op, err := c.holdOperation(ctx, b, from.address, *h, args[0], args[1])
			return []ledger.Operation{op}, err
		})
	}
	h.addParties(cmd)
	return cmd
}

func (c *cli) holdCommand() *cobra.Command {
	hold := &cobra.Command{
		Use: "hold", Short: "Hold money for somebody: make, post, void, show and list holds", Args: commandsOnly, Example: "  pacioli hold list alice",
		Long: `A hold is a payment in two steps: it reserves an amount, which is then posted (paid, in whole or in part), voided (returned),
or ends by itself when it expires. Who may do what is decided when it is made. Ready-made kinds: pacioli escrow, pacioli
schedule, pacioli lock.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	hold.AddCommand(c.holdCreate(), c.holdPost(), c.holdVoid(), c.holdShow(), c.holdList())
	return hold
}

func (c *cli) holdCreate() *cobra.Command {
	h := &holdFlags{}
	cmd := c.makeHold(&cobra.Command{
		Use: "create --from KEY --to NAME|ADDRESS AMOUNT CODE --expires WHEN", Short: "Reserve an amount for another account",
		Long: `Reserve an amount for another account. It no longer is available to the one, and not yet to the other. The result has the
hold's id, by which it is posted and voided.

With --hash new a secret is made and kept in HOME/preimages; whoever posts the hold must reveal it. The same command with
the same --nonce keeps the secret and the times of the first.

JSON: as pacioli pay; results[0].hold is the id.`,
		Example: "  pacioli hold create --from alice --to shop 80 EUR --expires 72h --post-by receiver --void-by receiver,holder",
	}, h)
	f := cmd.Flags()
	f.StringVar(&h.expires, "expires", "", expiresHelp)
	f.StringVar(&h.notBefore, "not-before", "", "before which it cannot be posted: a time, or how long from now")
	f.StringVar(&h.arbiter, "arbiter", "", "account that may post or void, as --post-by and --void-by say")
	f.StringVar(&h.hash, "hash", "", "SHA-256, in hex, of what posting must reveal; new: make the secret here")
	f.StringSliceVar(&h.postBy, "post-by", []string{"receiver"}, "who may post: "+strings.Join(resolvers, ", ")+" (anybody with --hash only)")
	f.StringSliceVar(&h.voidBy, "void-by", []string{"receiver"}, "who may void: "+strings.Join(resolvers[:3], ", "))
	f.BoolVar(&h.postAtExpiry, "post-at-expiry", false, "pay it when it expires, and do not return it")
	_ = cmd.MarkFlagRequired("expires")
	return cmd
}

func (c *cli) escrowCommand() *cobra.Command {
	h := &holdFlags{postBy: []string{"arbiter", "holder"}, voidBy: []string{"arbiter", "receiver"}}
	cmd := c.makeHold(&cobra.Command{
		Use: "escrow --from KEY --to NAME|ADDRESS --arbiter NAME|ADDRESS AMOUNT CODE", Short: "Hold a payment until an arbiter, or who pays, releases it",
		Long: `Hold a payment until it is released: the arbiter or who pays may post it, the arbiter or the receiver may void it. When nobody
does, it returns at --expires. It is pacioli hold create with these resolvers.

JSON: as pacioli hold create.`,
		Example: "  pacioli escrow --from buyer --to shop --arbiter judge 80 EUR --expires 720h",
	}, h)
	cmd.Flags().StringVar(&h.arbiter, "arbiter", "", "key of this home, or address, that decides")
	cmd.Flags().StringVar(&h.expires, "expires", "720h", expiresHelp)
	_ = cmd.MarkFlagRequired("arbiter")
	return cmd
}

func (c *cli) scheduleCommand() *cobra.Command {
	h := &holdFlags{voidBy: []string{"holder"}, postAtExpiry: true}
	cmd := c.makeHold(&cobra.Command{
		Use: "schedule --from KEY --to NAME|ADDRESS AMOUNT CODE --at WHEN", Short: "Pay at a later time; until then who pays may void it",
		Long: `Pay at a later time. The amount is reserved now, and paid by the ledger itself in the first block after that time. Until then
who pays may take it back: pacioli hold void. Where the line is frozen at that moment it returns.

JSON: as pacioli hold create.`,
		Example: "  pacioli schedule --from alice --to landlord 900 EUR --at 2027-01-01T00:00:00Z",
	}, h)
	h.expiresFlag = "--at"
	cmd.Flags().StringVar(&h.expires, "at", "", "when it is paid: a time, or how long from now, such as 720h")
	_ = cmd.MarkFlagRequired("at")
	return cmd
}

func (c *cli) lockCommand() *cobra.Command {
	h := &holdFlags{postBy: []string{"receiver"}, voidBy: []string{"receiver"}}
	cmd := c.makeHold(&cobra.Command{
		Use: "lock --from KEY --to NAME|ADDRESS AMOUNT CODE --expires WHEN [--hash HEX]", Short: "Hold a payment that the receiver gets by revealing a secret",
		Long: `Hold a payment that the receiver can post only by revealing the secret whose SHA-256 is the lock; without that it returns at
--expires. Two of them with one lock, on two ledgers or in two assets, make an exchange: who has made the secret gives the
other side the shorter time.

Without --hash a secret is made and kept in HOME/preimages. JSON: as pacioli hold create.`,
		Example: "  pacioli lock --from alice --to bob 5 PAC --expires 48h\n  pacioli lock --from bob --to alice 4 EUR --expires 24h --hash 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	}, h)
	cmd.Flags().StringVar(&h.expires, "expires", "", expiresHelp)
	cmd.Flags().StringVar(&h.hash, "hash", "new", "SHA-256, in hex, of the secret; new: make one here")
	_ = cmd.MarkFlagRequired("expires")
	return cmd
}

// openHold reads a hold that somebody wants to resolve.
func (c *cli) openHold(ctx context.Context, b provenBooks, text string) (crypto.Hash, client.Proven[ledger.Hold], error) {
	id, err := crypto.ParseHash(strings.ToLower(text))
	if err != nil {
		return id, client.Proven[ledger.Hold]{}, usage("ID %q: want 64 hex digits", text)
	}
	hold, err := b.Hold(ctx, id, 0)
	if err == nil && !hold.Present {
		err = &problem{err: fmt.Errorf("there is no open hold %s at height %d", id, hold.Height), name: ledger.HoldUnknown.String(),
			hint: "it may have been resolved: pacioli tx find --hold " + id.String()}
	}
	return id, hold, err
}

func (c *cli) holdPost() *cobra.Command {
	var d deedFlags
	var amount, preimage string
	cmd := &cobra.Command{
		Use: "post ID --from KEY", Short: "Pay a hold out, in whole or in part; the rest returns", Args: args("ID"),
		Long: `Pay a hold out, in whole or with --amount in part; what is not posted returns at once, and the hold is over. Where it is
locked by a hash, --preimage gives the secret; one that was made in this home is found by itself.

JSON: as pacioli pay; results[0].amount is what was paid.`,
		Example: "  pacioli hold post 5d41402abc4b2a76b9719d911017c592ae2f1d8c0c3e3e2f7a6d3b9c1e8f7a60 --from shop --amount 75",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), d, func(ctx context.Context, b provenBooks, from payer) ([]ledger.Operation, error) {
				id, err := crypto.ParseHash(strings.ToLower(args[0]))
				if err != nil {
					return nil, usage("ID %q: want 64 hex digits", args[0])
				}
				op := &ledger.PostHold{Hold: id}
				var asset ledger.AssetID
				// What was sent under a nonce may be sent again when the hold is gone, and with it its asset and lock.
				before, err := c.earlier(from.address, d.send)
				if err != nil {
					return nil, err
				}
				if old, again := before.(*ledger.PostHold); again {
					op.Preimage = old.Preimage
					if preimage != "" {
						op.Preimage, err = c.preimage(preimage, crypto.Hash{})
					}
					m, _ := c.movementOf(ctx, b, op)
					asset = m.asset
				} else {
					var hold client.Proven[ledger.Hold]
					if _, hold, err = c.openHold(ctx, b, args[0]); err != nil {
						return nil, err
					}
					asset = hold.Value.Asset
					if hold.Value.HashLock != (crypto.Hash{}) || preimage != "" {
						op.Preimage, err = c.preimage(preimage, hold.Value.HashLock)
					}
				}
				if err != nil {
					return nil, err
				}
				if amount != "" {
					a, err := b.asset(ctx, asset)
					if err != nil {
						return nil, err
					}
					if op.Amount, err = ledger.ParseAmount(amount, a.Scale); err != nil || op.Amount.IsZero() {
						return nil, usage("--amount %q: want more than 0, in decimals of %s", amount, a.Code)
					}
				}
				return []ledger.Operation{op}, nil
			})
		},
	}
	d.add(cmd, "account that posts: the receiver, the arbiter or the holder, as the hold says")
	cmd.Flags().StringVar(&amount, "amount", "", "how much of it, in decimals (default: all)")
	cmd.Flags().StringVar(&preimage, "preimage", "", "hex of the secret of its hash lock")
	return cmd
}

func (c *cli) holdVoid() *cobra.Command {
	var d deedFlags
	cmd := &cobra.Command{
		Use: "void ID --from KEY", Short: "Return a hold to the account whose money it is", Args: args("ID"),
		Long:    "Return a hold to the account whose money it is. An issuer with the control clawback may void every hold in its asset.\n\nJSON: as pacioli pay.",
		Example: "  pacioli hold void 5d41402abc4b2a76b9719d911017c592ae2f1d8c0c3e3e2f7a6d3b9c1e8f7a60 --from judge",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := crypto.ParseHash(strings.ToLower(args[0]))
			if err != nil {
				return usage("ID %q: want 64 hex digits", args[0])
			}
			return c.do(cmd.Context(), d, func(context.Context, provenBooks, payer) ([]ledger.Operation, error) {
				return []ledger.Operation{&ledger.VoidHold{Hold: id}}, nil
			})
		},
	}
	d.add(cmd, "account that voids")
	return cmd
}

// holdView is an open hold as results show it.
type holdView struct {
	ID           crypto.Hash     `json:"hold"`
	From         crypto.Address  `json:"from"`
	FromName     string          `json:"from_name,omitempty"`
	To           crypto.Address  `json:"to"`
	ToName       string          `json:"to_name,omitempty"`
	Amount       string          `json:"amount"`
	Asset        string          `json:"asset"`
	Expires      string          `json:"expires"`
	NotBefore    string          `json:"not_before,omitempty"`
	PostAtExpiry bool            `json:"post_at_expiry"`
	PostBy       []string        `json:"post_by"`
	VoidBy       []string        `json:"void_by"`
	Arbiter      *crypto.Address `json:"arbiter,omitempty"`
	ArbiterName  string          `json:"arbiter_name,omitempty"`
	HashLock     string          `json:"hash_lock,omitempty"`
	Reference    string          `json:"reference,omitempty"`
	Code         uint32          `json:"code,omitempty"`
}

func rfc3339(second uint64) string {
	if second == 0 {
		return ""
	}
	return time.Unix(int64(second), 0).UTC().Format(time.RFC3339)
}

func (c *cli) holdView(ctx context.Context, b books, id crypto.Hash, h ledger.Hold) (holdView, error) {
	asset, err := b.asset(ctx, h.Asset)
	if err != nil {
		return holdView{}, err
	}
	names := c.names()
	v := holdView{ID: id, From: h.From, FromName: names[h.From], To: h.To, ToName: names[h.To], Amount: h.Amount.Format(asset.Scale), Asset: asset.Code,
		Expires: rfc3339(h.Expires), NotBefore: rfc3339(h.NotBefore), PostAtExpiry: h.PostAtExpiry,
		PostBy: namesOf(h.PostBy, resolvers), VoidBy: namesOf(h.VoidBy, resolvers), Code: h.Code}
	if h.Arbiter != (crypto.Address{}) {
		v.Arbiter, v.ArbiterName = &h.Arbiter, names[h.Arbiter]
	}
	if h.HashLock != (crypto.Hash{}) {
		v.HashLock = h.HashLock.String()
	}
	if h.Reference != (ledger.Reference{}) {
		v.Reference = hex.EncodeToString(h.Reference[:])
	}
	return v, nil
}

func (v holdView) text(w io.Writer) {
	fmt.Fprintf(w, "hold\t%s\namount\t%s %s\nfrom\t%s\nto\t%s\n", v.ID, v.Amount, v.Asset, named(v.From, v.FromName), named(v.To, v.ToName))
	end := "returns"
	if v.PostAtExpiry {
		end = "is paid"
	}
	fmt.Fprintf(w, "expires\t%s, and then %s\n", v.Expires, end)
	if v.NotBefore != "" {
		fmt.Fprintf(w, "not before\t%s\n", v.NotBefore)
	}
	or := func(list []string) string {
		if len(list) == 0 {
			return "nobody"
		}
		return strings.Join(list, " or ")
	}
	fmt.Fprintf(w, "posted by\t%s\nvoided by\t%s\n", or(v.PostBy), or(v.VoidBy))
	if v.Arbiter != nil {
		fmt.Fprintf(w, "arbiter\t%s\n", named(*v.Arbiter, v.ArbiterName))
	}
	if v.HashLock != "" {
		fmt.Fprintf(w, "hash lock\t%s\n", v.HashLock)
	}
	if v.Reference != "" {
		fmt.Fprintf(w, "reference\t%s\n", v.Reference)
	}
	if v.Code != 0 {
		fmt.Fprintf(w, "code\t%d\n", v.Code)
	}
}

func (c *cli) holdShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show an open hold, proven", Args: args("ID"),
		Long: `Show an open hold, proven. That there is none is proven too; pacioli tx find --hold shows what became of it.

JSON: hold, from, to, amount, asset, expires, not_before, post_at_expiry, post_by, void_by, arbiter, hash_lock, reference, code,
height, time.`,
		Example: "  pacioli hold show 5d41402abc4b2a76b9719d911017c592ae2f1d8c0c3e3e2f7a6d3b9c1e8f7a60",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				id, hold, err := c.openHold(ctx, b, args[0])
				if err != nil {
					return err
				}
				v, err := c.holdView(ctx, b, id, hold.Value)
				if err != nil {
					return err
				}
				r := struct {
					holdView
					Height uint64 `json:"height"`
					Time   string `json:"time"`
				}{v, hold.Height, hold.Time.UTC().Format(time.RFC3339Nano)}
				return c.print(r, func(w io.Writer) {
					v.text(w)
					fmt.Fprintf(w, "proven\tat height %d\n", r.Height)
				})
			})
		},
	}
}

func (c *cli) holdList() *cobra.Command {
	return &cobra.Command{
		Use: "list NAME|ADDRESS", Short: "List the open holds of an account, complete and proven", Args: args("NAME|ADDRESS"),
		Long: `List the open holds that an account has made and those that are for it. The list is proven to be complete: it is found by
going through the journals of all its lines. Holds of which the account is only the arbiter are not among them.

JSON: account, name, height, time, holds: as pacioli hold show.`,
		Example: "  pacioli hold list alice",
		RunE: func(cmd *cobra.Command, args []string) error {
			account, err := c.account("account", args[0])
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: time.Minute}, func(ctx context.Context, b provenBooks) error {
				return c.listHolds(ctx, b, account)
			})
		},
	}
}

func (c *cli) listHolds(ctx context.Context, b provenBooks, account crypto.Address) error {
	holds, err := b.Holds(ctx, account)
	if err != nil {
		return err
	}
	r := struct {
		Account crypto.Address `json:"account"`
		Name    string         `json:"name,omitempty"`
		Height  uint64         `json:"height"`
		Time    string         `json:"time"`
		Holds   []holdView     `json:"holds"`
	}{account, c.names()[account], holds.Height, holds.Time.UTC().Format(time.RFC3339Nano), []holdView{}}
	for _, h := range holds.Rows {
		v, err := c.holdView(ctx, b, h.ID, h.Hold)
		if err != nil {
			return err
		}
		r.Holds = append(r.Holds, v)
	}
	slices.SortStableFunc(r.Holds, func(x, y holdView) int { return strings.Compare(x.Expires, y.Expires) })
	return c.print(r, func(w io.Writer) {
		for _, v := range r.Holds {
			direction, other := "for", named(v.To, v.ToName)
			if v.From != account {
				direction, other = "from", named(v.From, v.FromName)
			}
			terms := resolved(v.PostBy, v.VoidBy)
			if v.NotBefore != "" {
				terms += "; not posted before " + v.NotBefore
			}
			if v.Arbiter != nil {
				terms += "; arbiter " + named(*v.Arbiter, c.names()[*v.Arbiter])
			}
			if v.HashLock != "" {
				terms += "; hash lock " + v.HashLock
			}
			fmt.Fprintf(w, "%s\t%s %s\t%s %s\tuntil %s\tthen %s\t%s\n", v.ID, v.Amount, v.Asset, direction, other, v.Expires, atExpiry(v.PostAtExpiry), terms)
		}
		fmt.Fprintf(w, "%d open holds, proven to be all at height %d\n", len(r.Holds), r.Height)
	})
}
