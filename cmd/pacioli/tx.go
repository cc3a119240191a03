package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/render"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) txCommand() *cobra.Command {
	tx := &cobra.Command{
		Use: "tx", Short: "Look at transactions, and sign them offline with files", Args: commandsOnly,
		Long: `Look at transactions, and sign them offline with files: build on a machine with a network, sign on one without, by one
key after another where several must, and broadcast. A .tx file is JSON with the body, the policies of its signers and the
signatures so far; whoever signs is shown what the body itself says, decoded again, and never the view beside it, with a
fingerprint of that text: signers who read it to each other know that they are shown the same.

Every command that sends takes --out FILE to write a file instead. Signers may pass one file round, or sign copies of it that
tx merge puts together. Where collecting takes longer than a nonce lives (10 minutes, unless the network says otherwise),
build with --sequence.`,
		Example: `  pacioli pay --from board --to bob 1000 EUR --sequence --out 7.tx
  pacioli tx sign 7.tx --key vault --out vault.tx
  pacioli tx merge vault.tx office.tx --out 7-signed.tx
  pacioli tx broadcast 7-signed.tx`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	build := &cobra.Command{
		Use: "build", Short: "Build a transaction and write it to a file, unsigned", Args: commandsOnly,
		Example: "  pacioli tx build pay --from alice --to bob 5 PAC --out 1.tx",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	build.AddCommand(c.txBuildPay(), c.txBuildAsset())
	tx.AddCommand(c.txShow(), build, c.txSign(), c.txMerge(), c.txSponsor(), c.txBundle(), c.txBroadcast(), c.rehearsing(c.txInspect()), c.txFind())
	return tx
}

func (c *cli) txShow() *cobra.Command {
	var wait, verify bool
	var s sendFlags
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a transaction and its proven receipt", Args: args("ID"),
		Long: `Show a transaction and its receipt, proven against the validators' signatures: that it stands in a block, and what it did.
The steps of the proof are shown too; --verify=false leaves out showing them, never the proof. That no node knows it proves nothing:
the exit code is then 4. Its fate is settled by sending the same bytes again (pay --nonce, tx broadcast).

JSON: as pacioli pay, and proof: header, data_hash, signed_power, total_power, next_header, last_results_hash, next_signed_power.`,
		Example: "  pacioli tx show 5d41402abc4b2a76b9719d911017c592ae2f1d8c0c3e3e2f7a6d3b9c1e8f7a60",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := crypto.ParseHash(strings.ToLower(args[0]))
			if err != nil {
				return usage("ID %q: want 64 hex digits", args[0])
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				var f client.Final
				found := true
				if wait {
					f, err = b.Wait(ctx, id)
				} else {
					f, found, err = b.Find(ctx, id)
				}
				if errors.Is(err, client.ErrPruned) {
					return &problem{err: err, code: int(client.Uncertain), name: "pruned", id: id.String(), hint: "--node names a node that keeps all blocks"}
				}
				if err != nil {
					return err
				}
				if !found {
					return &problem{err: fmt.Errorf("no node has transaction %s in a block", id), code: int(client.Uncertain), name: "not_found", id: id.String(),
						hint: "it may still come, unless its valid_until has passed: pacioli tx show --wait " + id.String()}
				}
				if verify {
					return c.finishWithProof(ctx, b, f)
				}
				return c.finish(ctx, b, f)
			})
		},
	}
	cmd.Flags().BoolVar(&verify, "verify", true, "show the steps of the proof, with all validators' signatures verified and counted")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is in a block")
	cmd.Flags().DurationVar(&s.timeout, "timeout", readTimeout, "how long to wait")
	return cmd
}

// buildFlags say how a transaction is built.
type buildFlags struct {
	send       sendFlags
	offline    bool
	number     uint64
	validUntil string
}

func (f *buildFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.send.nonce, "nonce", "", "32 hex digits or a UUID (default random)")
	flags.BoolVar(&f.send.sequence, "sequence", false, "use the account's next sequence in place of a nonce: for signing that takes its time")
	flags.DurationVar(&f.send.validFor, "valid-for", 0, "after which it is dead (default as long as a nonce allows, with --sequence never)")
	f.send.addPaying(cmd)
	flags.BoolVar(&f.offline, "offline", false, "ask no node: take assets and parameters from the genesis file; needs --sequence-number or --valid-until")
	flags.Uint64Var(&f.number, "sequence-number", 0, "offline: the account's sequence to use, from 1")
	flags.StringVar(&f.validUntil, "valid-until", "", "offline: time after which it is dead, as 2026-01-31T12:00:00Z; needed with a nonce, at most the replay window ahead")
	_ = cmd.MarkFlagRequired("out")
}

const offlineHelp = `
With --offline nothing is asked for: assets and parameters are those of the genesis file, the account is taken to have the
policy that it began with, and the policy goes with the transaction.

JSON: file, and the transaction as tx inspect shows it.`

func (c *cli) txBuildPay() *cobra.Command {
	var p paymentFlags
	var f buildFlags
	cmd := &cobra.Command{
		Use: "pay --from KEY --to NAME|ADDRESS AMOUNT CODE --out FILE", Short: "Build a payment", Args: args("AMOUNT", "CODE"),
		Long:    "Build a payment and write it to a file, unsigned. No passphrase is needed: nothing is signed." + offlineHelp,
		Example: "  pacioli tx build pay --from alice --to bob 5 PAC --out 1.tx\n  pacioli tx build pay --offline --sequence-number 1 --from alice --to bob 5 PAC --out 1.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.build(cmd.Context(), f, func(ctx context.Context, b books) (payer, ledger.Operation, error) {
				return asOperation(c.transfer(ctx, b, p, args[0], args[1]))
			})
		},
	}
	p.add(cmd)
	f.add(cmd)
	return cmd
}

func asOperation(from payer, t *ledger.Transfer, err error) (payer, ledger.Operation, error) {
	return from, t, err
}

func (c *cli) txBuildAsset() *cobra.Command {
	var a assetFlags
	var f buildFlags
	cmd := &cobra.Command{
		Use: "asset CODE --from KEY --max-supply X --out FILE", Short: "Build the creation of an asset", Args: args("CODE"),
		Long:    "Build the creation of an asset and write it to a file, unsigned." + offlineHelp,
		Example: "  pacioli tx build asset EUR --from bank --scale 2 --max-supply 1000000 --out eur.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := a.operation(args[0])
			if err != nil {
				return err
			}
			return c.build(cmd.Context(), f, func(context.Context, books) (payer, ledger.Operation, error) {
				from, err := c.payer(a.from, a.keys)
				return from, op, err
			})
		},
	}
	a.add(cmd)
	f.add(cmd)
	return cmd
}

// build makes the draft of one operation and writes it to a file.
func (c *cli) build(ctx context.Context, f buildFlags, what func(ctx context.Context, b books) (payer, ledger.Operation, error)) error {
	f.send.timeout = readTimeout
	if err := f.send.check(); err != nil {
		return err
	}
	if f.offline {
		b, err := c.genesis()
		if err != nil {
			return err
		}
		from, op, err := what(ctx, b)
		if err != nil {
			return err
		}
		d, err := c.buildOffline(ctx, b, f, from, op)
		if err != nil {
			return err
		}
		return c.writeDraft(ctx, b, d, f.send.out)
	}
	if f.number != 0 || f.validUntil != "" {
		return usage("--sequence-number and --valid-until belong to --offline; use --sequence and --valid-for")
	}
	return c.online(ctx, f.send, func(ctx context.Context, b provenBooks) error {
		from, op, err := what(ctx, b)
		if err != nil {
			return err
		}
		return c.perform(ctx, b, request{[]payer{from}, []ledger.Operation{op}, f.send})
	})
}

func (c *cli) buildOffline(ctx context.Context, b *genesisBooks, f buildFlags, from payer, op ledger.Operation) (*client.Draft, error) {
	body := ledger.Body{Operations: []ledger.Operation{op}}
	first := slices.IndexFunc(from.known, func(p crypto.Policy) bool { return p.Address() == from.address })
	if first < 0 {
		return nil, hinted(fmt.Errorf("no key of this home has the policy that %s began with, and offline no other can be looked up", from.address), "leave --offline out")
	}
	policy := from.known[first]
	signer := ledger.Signer{Address: from.address, Policy: policy.Encode(), Sequence: f.number}
	if f.send.sequence || f.send.validFor != 0 {
		return nil, usage("--sequence and --valid-for need a node; offline give --sequence-number or --valid-until")
	}
	if f.validUntil != "" {
		until, err := time.Parse(time.RFC3339, f.validUntil)
		if err != nil || until.Unix() < 1 {
			return nil, usage("--valid-until %q: want a time such as 2026-01-31T12:00:00Z", f.validUntil)
		}
		body.ValidUntil = uint64(until.Unix())
	}
	switch {
	case f.send.sponsor != "":
		return nil, usage("--sponsor needs a node; tx sponsor adds one to a file")
	case f.number == 0 && f.validUntil == "":
		return nil, usage("--offline needs --sequence-number, or --valid-until for a nonce")
	case f.number != 0 && f.send.nonce != "":
		return nil, usage("--sequence-number and --nonce exclude each other")
	case f.number == 0 && f.send.nonce == "":
		rand.Read(signer.Nonce[:]) // never errs
	case f.number == 0:
		nonce, err := id128("--nonce", f.send.nonce)
		if err != nil {
			return nil, err
		}
		signer.Nonce = nonce
	}
	body.Signers = []ledger.Signer{signer}
	parameters, err := b.parameters(ctx)
	if err != nil {
		return nil, err
	}
	rate, err := b.feeRate(ctx)
	if err != nil {
		return nil, err
	}
	in, _, err := c.intent(ctx, b, request{[]payer{from}, []ledger.Operation{op}, sendFlags{feeGranter: f.send.feeGranter, maxFee: f.send.maxFee, maxDeposit: f.send.maxDeposit}})
	if err != nil {
		return nil, err
	}
	body.FeeGranter, body.MaxDeposit = in.FeeGranter, client.DepositCeiling(parameters, body)
	if in.MaxDeposit != nil {
		body.MaxDeposit = *in.MaxDeposit
	}
	if in.MaxFee != nil {
		body.MaxFee = *in.MaxFee
	}
	accounts := []client.SigningAccount{{Policy: policy}}
	encoded, err := client.WithFee(parameters, rate, body, accounts)
	if err != nil {
		return nil, err
	}
	return client.NewDraft(b.network(), encoded, accounts)
}

// draftResult is a draft as results show it.
type draftResult struct {
	File        string       `json:"file"`
	Transaction bodyView     `json:"transaction"`
	Complete    bool         `json:"complete"` // every signature that is needed is there
	Signatures  []signedView `json:"signatures"`
	Text        string       `json:"text"`        // what is signed, in words
	Fingerprint string       `json:"fingerprint"` // of the text without names
}

type signedView struct {
	Address       crypto.Address `json:"address"`
	Sponsor       bool           `json:"sponsor,omitempty"`
	PolicyVersion uint32         `json:"policy_version"`
	Weight        uint64         `json:"weight"`    // of the signatures so far
	Threshold     uint64         `json:"threshold"` // that the weight has to reach
	Keys          []signedKey    `json:"keys"`
}

type signedKey struct {
	keyView
	Signed bool `json:"signed"`
}

// rendering says in words what a draft is. What it cannot say must not be signed. b may be nil.
func (c *cli) rendering(ctx context.Context, b books, d *client.Draft) (text, fingerprint string, err error) {
	rc := render.Context{Network: d.Network(), Sponsor: d.Sponsor(), Names: c.names(), Assets: map[ledger.AssetID]ledger.Asset{}}
	if b != nil {
		ids := render.Assets(d.Body())
		if p, err := b.parameters(ctx); err == nil {
			rc.FeeAsset = p.FeeAsset
			ids = append(ids, p.FeeAsset)
		}
		for _, id := range ids {
			if _, ok := rc.Assets[id]; ok {
				continue
			}
			if a, err := b.asset(ctx, id); err == nil { // else it is shown in base units
				rc.Assets[id] = a
			}
		}
	}
	if text, err = render.Text(d.BodyBytes(), rc); err != nil {
		return "", "", err
	}
	fingerprint, err = render.Fingerprint(d.BodyBytes(), rc)
	return text, fingerprint, err
}

func (c *cli) showDraft(ctx context.Context, b books, d *client.Draft, file string) (draftResult, error) {
	r := draftResult{File: file, Transaction: c.view(ctx, b, d.Network(), d.ID(), d.Body()), Complete: d.Complete()}
	var err error
	if r.Text, r.Fingerprint, err = c.rendering(ctx, b, d); err != nil {
		return r, err
	}
	missing := d.Missing()
	for i, a := range d.Accounts() {
		v := signedView{Address: d.Address(i), Sponsor: i == len(d.Body().Signers), PolicyVersion: a.Version, Threshold: d.Need(i), Weight: d.Need(i) - missing[i]}
		for k, key := range keyViews(a.Policy) {
			signed := false
			for _, w := range d.Witnesses() {
				signed = signed || int(w.Signer) == i && int(w.Key) == k
			}
			v.Keys = append(v.Keys, signedKey{key, signed})
		}
		r.Signatures = append(r.Signatures, v)
	}
	return r, nil
}

func (r draftResult) text(w io.Writer) {
	fmt.Fprintf(w, "%sfingerprint: %s\n\n", r.Text, r.Fingerprint)
	for i, s := range r.Signatures {
		party := fmt.Sprintf("signer %d", i)
		if s.Sponsor {
			party = "sponsor"
		}
		fmt.Fprintf(w, "%s\tsignatures of weight %d of %d\n", party, s.Weight, s.Threshold)
		for _, k := range s.Keys {
			state := "not signed"
			if k.Signed {
				state = "signed"
			}
			public := k.PublicKey
			if len(public) > 16 {
				public = public[:16] + "..."
			}
			fmt.Fprintf(w, "key\t%s %s: %s\n", k.Scheme, public, state)
		}
		if s.Weight < s.Threshold {
			fmt.Fprintf(w, "missing\tsignatures of weight %d for %s\n", s.Threshold-s.Weight, s.Address)
		}
	}
}

// writeDraft writes a draft to a file and shows it.
func (c *cli) writeDraft(ctx context.Context, b books, d *client.Draft, path string) error {
	r, err := c.showDraft(ctx, b, d, path)
	if err != nil {
		return err
	}
	content, err := d.Encode(r.Transaction)
	if err != nil {
		return err
	}
	if err := writeFile(path, content); err != nil {
		return err
	}
	return c.print(r, func(w io.Writer) {
		r.text(w)
		fmt.Fprintf(w, "file\t%s\n", path)
	})
}

// readDraft reads a transaction file. Where this home has a genesis file, the transaction must be of that network.
func (c *cli) readDraft(path string) (*client.Draft, books, error) {
	content, err := readFile(path, client.MaxDraftFile)
	if err != nil {
		return nil, nil, err
	}
	d, err := client.DecodeDraft(content)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	file, named := c.genesisPath()
	if _, err := os.Stat(file); err != nil && !named {
		return d, nil, nil
	}
	b, err := c.genesis()
	if err != nil {
		return nil, nil, err
	}
	if b.network().ID != d.Network().ID {
		return nil, nil, &problem{err: fmt.Errorf("%s is for network %s (%s), and %s is of network %s (%s)", path, d.Network().ID, d.Network().ChainID,
			file, b.network().ID, b.network().ChainID), name: "other_network"}
	}
	return d, b, nil
}

func (c *cli) txInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Show what a transaction file does, and who has signed it", Args: args("FILE"),
		Long: `Show in words what a transaction file does, decoded from the bytes that are signed, and whose signatures verify. Amounts are in
decimals when the genesis file of this home has the asset, else in base units; the fingerprint is of what is shown, but for names.

JSON: file, complete, signatures, text, fingerprint, transaction: id, chain_id, network_id, signers, valid_until, max_fee, fee_asset, operations.`,
		Example: "  pacioli tx inspect 1.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, b, err := c.readDraft(args[0])
			if err != nil {
				return err
			}
			r, err := c.showDraft(cmd.Context(), b, d, args[0])
			if err != nil {
				return err
			}
			return c.print(r, r.text)
		},
	}
}

// agree shows what is to be signed, and asks. What cannot be shown cannot be agreed to.
func (c *cli) agree(ctx context.Context, b books, d *client.Draft, file string, yes bool) error {
	r, err := c.showDraft(ctx, b, d, file)
	if err != nil {
		return err
	}
	if !yes {
		w := tabwriter.NewWriter(c.err, 0, 4, 2, ' ', 0)
		r.text(w)
		if err := w.Flush(); err != nil {
			return fmt.Errorf("showing the transaction: %w", err)
		}
	}
	return c.confirm(yes, "Sign this?")
}

func (c *cli) txSign() *cobra.Command {
	var keys []string
	var out string
	var yes bool
	cmd := &cobra.Command{
		Use: "sign FILE --key NAME", Short: "Sign a transaction file, offline", Args: args("FILE"),
		Long: `Show what a transaction file does, ask, and add the signatures of a key that are needed. The file is replaced, or --out is
written. Without a terminal --yes is needed.

JSON: as tx inspect.`,
		Example: "  pacioli tx sign 1.tx --key alice",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, b, err := c.readDraft(args[0])
			if err != nil {
				return err
			}
			if err := (sendFlags{out: out}).checkOut(); err != nil {
				return err
			}
			if out == "" {
				out = args[0]
			}
			if err := c.agree(ctx, b, d, args[0], yes); err != nil {
				return err
			}
			if err := c.sign(d, anyParty, keys...); err != nil {
				return err
			}
			return c.writeDraft(ctx, b, d, out)
		},
	}
	cmd.Flags().StringSliceVar(&keys, "key", nil, "NAME[,NAME] of the keys of this home that sign")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: replace FILE)")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func (c *cli) txBroadcast() *cobra.Command {
	var s sendFlags
	cmd := &cobra.Command{
		Use: "broadcast FILE", Short: "Send a signed transaction file, and wait until it is final", Args: args("FILE"),
		Long: `Send a signed transaction file and wait until it is final. Doing it again is safe: it takes effect once, and the original
receipt is shown.

JSON: as pacioli pay.`,
		Example: "  pacioli tx broadcast 1.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			d, _, err := c.readDraft(args[0])
			if err != nil {
				return err
			}
			// A mark that somebody else set could hide the transaction's own entry: the whole journal is looked at.
			d.Before = nil
			if _, err := d.Raw(); err != nil {
				name := ""
				if errors.Is(err, client.ErrIncomplete) {
					name = "incomplete"
				}
				return &problem{err: err, name: name, hint: "pacioli tx sign adds signatures"}
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				if err := ofNetwork(b, d, args[0]); err != nil {
					return err
				}
				err := c.deliver(ctx, b, d, s)
				if _, dead := errors.AsType[*client.Dead](err); dead {
					return hinted(err, "this file can never take effect: build a new one")
				}
				return err
			})
		},
	}
	s.addWait(cmd)
	return cmd
}

func (c *cli) txMerge() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "merge FILE FILE... --out FILE", Short: "Put the signatures of copies of one transaction file together", Args: atLeast(2, "FILE"),
		Long: `Put the signatures of several copies of one transaction together, and its sponsor if one of them has it. Files of different
transactions, networks or policies are an error. Signatures that are not needed are left out: the ledger refuses them.

JSON: as tx inspect.`,
		Example: "  pacioli tx merge alice.tx bob.tx --out both.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := (sendFlags{out: out}).checkOut(); err != nil {
				return err
			}
			d, b, err := c.readDraft(args[0])
			if err != nil {
				return err
			}
			for _, path := range args[1:] {
				other, _, err := c.readDraft(path)
				if err != nil {
					return err
				}
				if err := d.Merge(other); err != nil {
					return &problem{err: fmt.Errorf("%s and %s do not merge: %w", args[0], path, err), name: "other_transaction",
						hint: "pacioli tx inspect shows each; operations of different transactions are put into one by tx bundle"}
				}
			}
			return c.writeDraft(cmd.Context(), b, d, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func (c *cli) txSponsor() *cobra.Command {
	var s sendFlags
	var keys []string
	var yes bool
	cmd := &cobra.Command{
		Use: "sponsor FILE --sponsor KEY", Short: "Pay the fee of somebody's transaction, signed or not", Args: args("FILE"),
		Long: `Add an account that pays the fee and the deposits of a transaction in its signers' place, and sign for it. What the signers
have signed stays: the sponsor signs over their transaction. The sponsor is shown what it does, pays at most --max-fee and
--max-deposit, and may be taken off again by whoever has the file: it must not be relied on by others before it is in a block.

JSON: as tx inspect.`,
		Example: "  pacioli tx sponsor 1.tx --sponsor shop\n  pacioli tx broadcast 1.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			s.timeout = readTimeout
			if err := s.check(); err != nil {
				return err
			}
			d, _, err := c.readDraft(args[0])
			if err != nil {
				return err
			}
			p, err := c.party("--sponsor", s.sponsor, keys)
			if err != nil {
				return err
			}
			in := client.Intent{Sponsor: p.address, Known: p.known}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				if err := ofNetwork(b, d, args[0]); err != nil {
					return err
				}
				if in.MaxFee, err = feeAmount(ctx, b, "--max-fee", s.maxFee); err != nil {
					return err
				}
				if in.MaxDeposit, err = feeAmount(ctx, b, "--max-deposit", s.maxDeposit); err != nil {
					return err
				}
				built, err := b.Sponsor(ctx, d, in)
				if err != nil {
					return c.dear(ctx, b, err)
				}
				party := len(d.Body().Signers)
				names, err := c.keysFor(p, built.Accounts()[party])
				if err != nil {
					return err
				}
				if err := c.agree(ctx, b, d, args[0], yes); err != nil {
					return err
				}
				if err := c.sign(d, party, names...); err != nil {
					return err
				}
				out := s.out
				if out == "" {
					out = args[0]
				}
				return c.writeDraft(ctx, b, d, out)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.sponsor, "sponsor", "", "account that pays: a key of this home, or an address")
	keyFlag(f, &keys)
	f.StringVar(&s.maxFee, "max-fee", "", "most that the fee may be, in decimals of the fee asset (default: what it costs now, or twice that where fees adapt)")
	f.StringVar(&s.maxDeposit, "max-deposit", "", "most that deposits for new rows may be, in decimals of the fee asset (default: as many as it could open)")
	f.StringVar(&s.out, "out", "", "file to write (default: replace FILE)")
	f.BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("sponsor")
	return cmd
}

func (c *cli) txBundle() *cobra.Command {
	var s sendFlags
	cmd := &cobra.Command{
		Use: "bundle FILE FILE... --out FILE", Short: "Make one transaction of several: all of them take effect or none", Args: atLeast(2, "FILE"),
		Long: `Make one transaction of the operations of several files, to be signed by all their signers: an exchange of two assets
between two people, a payout from several accounts. Signatures in the files are not taken over: everybody signs the whole.
The first signer of the first file pays the fee, unless --sponsor or --fee-granter names another.

JSON: as tx inspect.`,
		Example: "  pacioli pay --from alice --to bob 10 EUR --out a.tx\n  pacioli pay --from BOBS-ADDRESS --to alice 11 USD --out b.tx\n  pacioli tx bundle a.tx b.tx --sequence --out swap.tx",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			if s.out == "" {
				return usage("--out is missing: others have to sign the file")
			}
			var drafts []*client.Draft
			for _, path := range args {
				d, _, err := c.readDraft(path)
				if err != nil {
					return err
				}
				drafts = append(drafts, d)
			}
			signers, policies, operations, err := client.Combine(drafts...)
			if err != nil {
				return err
			}
			r := request{operations: operations, send: s}
			for i, a := range signers {
				r.signers = append(r.signers, payer{address: a, known: policies[i : i+1]})
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				if err := ofNetwork(b, drafts[0], args[0]); err != nil {
					return err
				}
				return c.perform(ctx, b, r)
			})
		},
	}
	s.add(cmd)
	return cmd
}

// ofNetwork tells whether a draft is for the network of the nodes.
func ofNetwork(b books, d *client.Draft, file string) error {
	if b.network().ID == d.Network().ID {
		return nil
	}
	return &problem{err: fmt.Errorf("%s is for network %s (%s), the nodes are of network %s (%s)", file, d.Network().ID, d.Network().ChainID,
		b.network().ID, b.network().ChainID), name: "other_network"}
}

// atLeast checks that an argument stands often enough.
func atLeast(n int, name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, given []string) error {
		if len(given) < n {
			return usage("%s is missing: want at least %d", name, n)
		}
		return nil
	}
}
