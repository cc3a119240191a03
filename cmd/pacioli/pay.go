package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/batch"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// paymentFlags say what a payment is.
type paymentFlags struct{ from, key, to, memo, reference string }

func (p *paymentFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.from, "from", "", "account that pays: a key of this home, or an address")
	keyFlag(f, &p.key)
	f.StringVar(&p.to, "to", "", "key of this home, or address, that is paid")
	f.StringVar(&p.memo, "memo", "", "text of at most 256 bytes, which everybody can read")
	f.StringVar(&p.reference, "reference", "", "your own 128-bit id, as 32 hex digits or a UUID")
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("to")
}

// transfer looks everything up that a payment names.
func (c *cli) transfer(ctx context.Context, b books, p paymentFlags, amount, code string) (payer, *ledger.Transfer, error) {
	from, err := c.payer(p.from, p.key)
	if err != nil {
		return from, nil, err
	}
	t := &ledger.Transfer{Memo: p.memo}
	if t.To, err = c.account("--to", p.to); err != nil {
		return from, nil, err
	}
	if t.Reference, err = id128("--reference", p.reference); err != nil {
		return from, nil, err
	}
	var asset ledger.Asset
	if t.Asset, asset, err = b.assetByCode(ctx, code); err != nil {
		return from, nil, err
	}
	if t.Amount, err = ledger.ParseAmount(amount, asset.Scale); err != nil {
		return from, nil, usage("%w (%s)", err, code)
	}
	c.remember(code)
	return from, t, nil
}

// id128 reads 16 bytes, as 32 hex digits or a UUID.
func id128(flag, text string) (id [16]byte, err error) {
	if text == "" {
		return id, nil
	}
	if id, err = client.ParseReference(text); err != nil {
		return id, usage("%s %w", flag, err)
	}
	return id, nil
}

// sendFlags say how a transaction is protected from replay and how long to wait for it.
type sendFlags struct {
	id       string // the payer's own, which the nonce and the reference are derived from
	nonce    string
	sequence bool
	validFor time.Duration
	noWait   bool
	timeout  time.Duration
}

func (s *sendFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.nonce, "nonce", "", "32 hex digits or a UUID that make this idempotent: the same again sends the same bytes")
	f.BoolVar(&s.sequence, "sequence", false, "use the account's next sequence in place of a nonce")
	f.DurationVar(&s.validFor, "valid-for", 0, "after which the transaction is dead (default 5m, with --sequence never)")
	s.addWait(cmd)
}

func (s *sendFlags) addWait(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.noWait, "no-wait", false, "end once a node has taken the transaction, which is no promise")
	cmd.Flags().DurationVar(&s.timeout, "timeout", time.Minute, "how long to wait for finality before the outcome is called unknown")
}

func (s sendFlags) check() error {
	switch {
	case s.sequence && s.nonce != "":
		return usage("--sequence and --nonce exclude each other")
	case s.id != "" && (s.nonce != "" || s.sequence):
		return usage("--id excludes --nonce and --sequence: it makes a nonce")
	case s.validFor < 0:
		return usage("--valid-for %s: want more than 0", s.validFor)
	case s.timeout <= 0:
		return usage("--timeout %s: want more than 0", s.timeout)
	}
	return nil
}

func (c *cli) payCommand() *cobra.Command {
	var p paymentFlags
	var s sendFlags
	cmd := &cobra.Command{
		Use: "pay --from KEY --to NAME|ADDRESS AMOUNT CODE", Short: "Pay, and wait until it is final", Args: args("AMOUNT", "CODE"),
		Long: `Pay an amount of an asset, wait until the payment is in a block, and show the receipt with the header that proves it.
A payment from the asset's issuer issues new units, one to the issuer takes them back.

With --id, any text that names the payment, it is idempotent: it is kept in HOME/outbox before it is sent, and the same
command again sends the same bytes, which take effect once, and shows the original receipt. Other details under a used id are
an error. Only when an earlier attempt is proven to be dead (its time is over and the payer's journal does not have it) is it
made anew. The nonce is derived from the id and the payer's address, and so is the reference, unless one is given. --nonce is
the same with a nonce of your own. Without both a random one is used, and an unfinished payment stays in HOME/outbox as well.

JSON: outcome, id, code, code_name, height, index, proof_height, time, fee, fee_asset, valid_until, signers, operations.`,
		Example: `  pacioli pay --from alice --to bob 12.50 EUR --memo "invoice 7"
  pacioli pay --from alice --to bob 12.50 EUR --id invoice-2026-117`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("id") && s.id == "" {
				return usage("--id is empty")
			}
			if err := s.check(); err != nil {
				return err
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				from, t, err := c.transfer(ctx, b, p, args[0], args[1])
				if err != nil {
					return err
				}
				if s.id != "" && p.reference == "" {
					payment, err := client.NewPayment(from.address, s.id)
					if err != nil {
						return usage("--id: %w", err)
					}
					t.Reference = payment.Reference
				}
				return c.carryOut(ctx, b, from, t, s)
			})
		},
	}
	p.add(cmd)
	s.add(cmd)
	cmd.Flags().StringVar(&s.id, "id", "", "your own id of this payment, 1 to 256 bytes: the same again is paid once")
	return cmd
}

// online runs a command against the network, for at most its timeout.
func (c *cli) online(ctx context.Context, s sendFlags, do func(ctx context.Context, b provenBooks) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cl, err := c.dial(ctx)
	if err != nil {
		return err
	}
	return do(ctx, provenBooks{cl})
}

// carryOut builds a transaction of one operation by one key, or takes up an earlier attempt with the same nonce, and sends
// it. What is about to be sent is on the disk before: a crash at any point leaves a file that can be sent again.
func (c *cli) carryOut(ctx context.Context, b provenBooks, from payer, op ledger.Operation, s sendFlags) error {
	nonce, err := id128("--nonce", s.nonce)
	if err != nil {
		return err
	}
	idempotent := s.nonce != "" || s.id != ""
	switch {
	case s.id != "":
		payment, err := client.NewPayment(from.address, s.id)
		if err != nil {
			return usage("--id: %w", err)
		}
		nonce = payment.Nonce
	case !idempotent:
		rand.Read(nonce[:]) // never errs
	}
	path := c.outboxFile(nonce)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the outbox: %w", err)
	}
	if idempotent || s.sequence {
		which := nonce[0]
		if s.sequence {
			which = from.address[0]
		}
		release, err := c.lockOutbox(ctx, which)
		if err != nil {
			return err
		}
		defer release()
	}
	if idempotent {
		earlier, err := c.outbox(path)
		if err != nil {
			return err
		}
		if earlier != nil {
			if err := c.same(earlier, b.network(), from, op, nonce, s.id); err != nil {
				return err
			}
			c.say("sending transaction %s again", earlier.ID())
			err := c.deliver(ctx, b, earlier, s)
			if _, dead := errors.AsType[*client.Dead](err); !dead {
				return err
			}
			c.say("the earlier attempt did not take effect and never will: making it anew")
		}
	}
	built, err := b.Build(ctx, client.Intent{Signers: []crypto.Address{from.address}, Known: from.known, Operations: []ledger.Operation{op},
		Sequence: s.sequence, Nonce: &nonce, ValidFor: s.validFor})
	if err != nil {
		return err
	}
	built.Draft.Before = &built.Before
	key, err := c.keyFor(from, built.Accounts()[0])
	if err != nil {
		return err
	}
	if err := c.sign(built.Draft, key); err != nil {
		return err
	}
	content, err := built.Draft.Encode(c.view(ctx, b, b.network(), built.ID(), built.Body()))
	if err != nil {
		return err
	}
	if err := c.writeOnce(path, content, b.network().ID, from.address, s.id); err != nil {
		return err
	}
	err = c.deliver(ctx, b, built.Draft, s)
	switch o := describe(err); {
	case err != nil && o.code == int(client.Uncertain):
		return &problem{err: err, hint: fmt.Sprintf("ask before doing it again: pacioli tx show %s; or send the same bytes again, which is safe: pacioli tx broadcast %s", built.ID(), path)}
	case !idempotent && !s.noWait:
		if removeErr := os.Remove(path); removeErr != nil {
			c.say("cannot remove %s, which is finished: %s", path, removeErr)
		}
	}
	return err
}

// outboxFile is where a payment with a nonce is kept.
func (c *cli) outboxFile(nonce [ledger.NonceBytes]byte) string {
	return filepath.Join(c.home, "outbox", hex.EncodeToString(nonce[:])+".tx")
}

// writeOnce writes an outbox file. Under an id it does so only when no batch has begun to pay it; a batch that begins
// later finds the file.
func (c *cli) writeOnce(path string, content []byte, network crypto.Hash, from crypto.Address, id string) error {
	if id == "" {
		return writeFile(path, content)
	}
	begun, release, err := batch.Claim(c.batches(), network, from, id)
	if err != nil {
		return err
	}
	defer release()
	if begun {
		return &problem{err: fmt.Errorf("the id %q is being paid, or was paid, by pacioli pay-batch", id), name: "id_reused", hint: "run pay-batch with its file again: it shows what became of it"}
	}
	return writeFile(path, content)
}

// lockOutbox keeps two processes that are given one nonce at the same moment from both finding no earlier attempt, and
// sending two transactions that differ in their times; and two that pay by sequence from taking the same one, in which case
// equal payments would be one transaction. The lock is on one of 256 files, so that they do not pile up.
func (c *cli) lockOutbox(ctx context.Context, which byte) (release func(), err error) {
	path := filepath.Join(c.home, "outbox", fmt.Sprintf(".lock-%02x", which))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the outbox: %w", err)
	}
	for waited := false; ; waited = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking the outbox: %w", err)
		}
		if !waited {
			c.say("waiting for another process that sends from this outbox")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, hinted(fmt.Errorf("another process holds %s: %w", path, ctx.Err()), "nothing was sent by this one; run it again")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// outbox reads an earlier attempt; nil when there is none.
func (c *cli) outbox(path string) (*client.Draft, error) {
	content, err := readFile(path, client.MaxDraftFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := client.DecodeDraft(content)
	if err != nil {
		return nil, hinted(fmt.Errorf("%s: %w", path, err), "this file is the record of an earlier attempt: look at it before you remove it")
	}
	return d, nil
}

// same tells whether an earlier attempt does exactly what is asked for now.
func (c *cli) same(d *client.Draft, network ledger.Network, from payer, op ledger.Operation, nonce [16]byte, id string) error {
	body := d.Body()
	what, name, used := "nonce", "nonce_reused", hex.EncodeToString(nonce[:])
	if id != "" {
		what, name, used = "id", "id_reused", strconv.Quote(id)
	}
	differs := func(field string) error {
		return &problem{err: fmt.Errorf("the %s %s was used for another transaction, %s, with another %s", what, used, d.ID(), field), name: name,
			hint: "pacioli tx show " + d.ID().String() + "; another payment needs another " + what}
	}
	if d.Network().ID != network.ID {
		return differs("network")
	}
	if len(body.Signers) != 1 || body.Signers[0].Address != from.address || body.Signers[0].Nonce != nonce {
		return differs("sender")
	}
	if len(body.Operations) != 1 || body.Operations[0].Kind() != op.Kind() {
		return differs("kind of operation")
	}
	old, okOld := body.Operations[0].(*ledger.Transfer)
	now, okNow := op.(*ledger.Transfer)
	if okOld && okNow {
		for _, f := range []struct {
			name string
			same bool
		}{{"receiver", old.To == now.To}, {"asset", old.Asset == now.Asset}, {"amount", old.Amount == now.Amount}, {"memo", old.Memo == now.Memo}, {"reference", old.Reference == now.Reference}} {
			if !f.same {
				return differs(f.name)
			}
		}
	}
	// Whatever the operation is, its encoding decides.
	ours := body
	ours.Operations = []ledger.Operation{op}
	if !bytes.Equal(ours.Encode(), d.BodyBytes()) {
		return differs("content")
	}
	return nil
}

// sign unlocks a key and signs.
func (c *cli) sign(d *client.Draft, key string) error {
	store, err := c.keys()
	if err != nil {
		return err
	}
	passphrase, err := c.passphrase(false)
	if err != nil {
		return err
	}
	signer, err := store.Unlock(key, passphrase)
	if err != nil {
		return err
	}
	added, err := d.Sign(signer)
	if err == nil && added == 0 {
		err = hinted(fmt.Errorf("key %s has nothing to sign in transaction %s", key, d.ID()), "its keys are in none of the signers' policies, or have signed already")
	}
	return err
}

// deliver sends a signed draft, waits for its end and shows it.
func (c *cli) deliver(ctx context.Context, b provenBooks, d *client.Draft, s sendFlags) error {
	raw, err := d.Raw()
	if err != nil {
		return hinted(err, "pacioli tx sign adds signatures")
	}
	if s.noWait {
		if _, err := b.Submit(ctx, raw); err != nil {
			return err
		}
		v := c.view(ctx, b, b.network(), d.ID(), d.Body())
		r := txResult{Outcome: "submitted", ID: d.ID(), CodeName: ledger.OK.String(), ValidUntil: v.ValidUntil, Signers: v.Signers, Operations: v.Operations}
		if err := c.print(r, r.text); err != nil {
			return err
		}
		c.say("a node has taken it, which is no promise: pacioli tx show %s", d.ID())
		return nil
	}
	from := client.Mark{}
	if d.Before != nil {
		from = *d.Before
	}
	f, err := b.Send(ctx, raw, from)
	if err != nil {
		return err
	}
	// The receipt is proven; showing it must not fail because the time to wait is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.finish(ctx, b, f)
}
