package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/batch"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// sendFlags are those of every command that sends a transaction: how it is protected from replay, who pays for it and at
// most what, whether it is sent or written to a file, and how long to wait for it.
type sendFlags struct {
	id       string // the payer's own, which the nonce and the reference are derived from
	nonce    string
	sequence bool
	validFor time.Duration

	sponsor, feeGranter string
	maxFee, maxDeposit  string // decimals of the fee asset
	out                 string // file to write instead of sending
	dryRun              bool   // simulate instead of sending

	noWait  bool
	timeout time.Duration
}

func (s *sendFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.nonce, "nonce", "", "32 hex digits or a UUID that make this idempotent: the same again sends the same bytes")
	f.BoolVar(&s.sequence, "sequence", false, "use the next sequence of each account in place of a nonce: for signing that takes its time")
	f.DurationVar(&s.validFor, "valid-for", 0, "after which the transaction is dead (default 5m; with --out as long as a nonce allows; with --sequence never)")
	s.addPaying(cmd)
	s.addWait(cmd)
}

// addPaying adds the flags for who pays, at most what, and for writing a file instead.
func (s *sendFlags) addPaying(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.out, "out", "", "write the transaction, unsigned, to this file instead of sending it: tx sign, tx merge and tx broadcast go on")
	f.BoolVar(&s.dryRun, "dry-run", false, "send nothing: show what it would do now, by one node's word, which is no promise; the exit code is the one it would end with")
	f.StringVar(&s.sponsor, "sponsor", "", "account that pays the fee and deposits instead, and signs too")
	f.StringVar(&s.feeGranter, "fee-granter", "", "account that pays the fee and deposits under a grant for fees to the first signer")
	f.StringVar(&s.maxFee, "max-fee", "", "most that the fee may be, in decimals of the fee asset (default: what it costs now, or twice that where fees adapt)")
	f.StringVar(&s.maxDeposit, "max-deposit", "", "most that deposits for new rows may be, in decimals of the fee asset (default: as many as it could open)")
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
		return usage("--id makes a nonce of its own: leave --nonce and --sequence out")
	case s.validFor < 0:
		return usage("--valid-for %s: want more than 0", s.validFor)
	case s.timeout <= 0:
		return usage("--timeout %s: want more than 0", s.timeout)
	case s.sponsor != "" && s.feeGranter != "":
		return usage("--sponsor and --fee-granter exclude each other")
	case s.dryRun && (s.out != "" || s.noWait):
		return usage("--dry-run sends and writes nothing, so --out and --no-wait say nothing")
	case s.out != "" && s.noWait:
		return usage("--out sends nothing, so --no-wait says nothing")
	}
	return s.checkOut()
}

// checkOut keeps a file that is there from being lost.
func (s sendFlags) checkOut() error {
	if s.out == "" {
		return nil
	}
	if _, err := os.Lstat(s.out); err == nil {
		return usage("--out %s exists", s.out)
	}
	return nil
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

// request is one transaction that a command wants.
type request struct {
	signers    []payer // operations name them by their index; the first one pays, unless the flags name another
	operations []ledger.Operation
	send       sendFlags
}

// perform is the way of every command that changes something: it builds the transaction that is asked for, has the keys of
// this home sign it, sends it, waits until it is final and shows it; with --out it writes it to a file instead, unsigned. With
// a nonce that was used before it takes up the earlier attempt. What is about to be sent is on the disk before: a crash at
// any point leaves a file that can be sent again.
//
// Call it within [cli.online], after sendFlags.check.
func (c *cli) perform(ctx context.Context, b provenBooks, r request) (err error) {
	defer func() { err = c.dear(ctx, b, err) }()
	for _, op := range r.operations {
		if t, ok := op.(*ledger.Transfer); ok && t.Amount.IsZero() {
			return usage("the amount is 0: want more than 0")
		}
	}
	in, sponsor, err := c.intent(ctx, b, r)
	if err != nil {
		return err
	}
	nonce := *in.Nonce
	idempotent := r.send.nonce != "" || r.send.id != ""
	path := c.outboxFile(nonce)
	var earlier *client.Draft
	if r.send.dryRun {
		if idempotent {
			var done bool
			if earlier, done, err = c.rehearseAgain(ctx, b, r, nonce, path); done || err != nil {
				return err
			}
		}
		built, err := buildAnew(ctx, b, in, earlier)
		if err != nil {
			return err
		}
		return c.rehearse(ctx, b, built.Draft)
	}
	if r.send.out != "" {
		built, err := b.Build(ctx, in)
		if err != nil {
			return err
		}
		return c.writeDraft(ctx, b, built.Draft, r.send.out)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the outbox: %w", err)
	}
	if idempotent || r.send.sequence {
		locks := []byte{nonce[0]}
		if r.send.sequence {
			locks = nil
			for _, s := range r.signers {
				locks = append(locks, s.address[0])
			}
		}
		slices.Sort(locks) // the same order in every process, or two could wait for each other
		for _, which := range slices.Compact(locks) {
			release, err := c.lockOutbox(ctx, which)
			if err != nil {
				return err
			}
			defer release()
		}
	}
	if idempotent {
		if earlier, err = c.outbox(path); err != nil {
			return err
		}
		if earlier != nil {
			if err := c.same(earlier, b.network(), r, nonce); err != nil {
				return err
			}
		}
		if done, err := c.recall(ctx, b, r, earlier); done || err != nil {
			return err
		}
		if earlier != nil {
			if again, err := c.sendAgain(ctx, b, earlier, in, r.send); !again {
				return err
			}
		}
	}
	built, err := buildAnew(ctx, b, in, earlier)
	if err != nil {
		return err
	}
	built.Draft.Before = &built.Before
	if _, _, err := c.rendering(ctx, b, built.Draft); err != nil {
		return err
	}
	parties := r.signers
	if sponsor != nil {
		parties = append(slices.Clone(parties), *sponsor)
	}
	for i, p := range parties {
		keys, err := c.keysFor(p, built.Accounts()[i])
		if err != nil {
			return err
		}
		if err := c.sign(built.Draft, i, keys...); err != nil {
			return err
		}
	}
	if _, err := built.Raw(); err != nil {
		return &problem{err: err, name: "incomplete", hint: "nothing was sent; --out FILE writes the transaction, for others to sign with pacioli tx sign"}
	}
	content, err := built.Draft.Encode(c.view(ctx, b, b.network(), built.ID(), built.Body()))
	if err != nil {
		return err
	}
	if err := c.writeOnce(path, content, b.network().ID, r.signers[0].address, r.send.id); err != nil {
		return err
	}
	err = c.deliver(ctx, b, built.Draft, r.send)
	switch o := describe(err); {
	case err != nil && o.code == int(client.Uncertain):
		return &problem{err: err, hint: fmt.Sprintf("ask before doing it again: pacioli tx show %s; or send the same bytes again, which is safe: pacioli tx broadcast %s", built.ID(), path)}
	case !idempotent && !r.send.noWait:
		if removeErr := os.Remove(path); removeErr != nil {
			c.say("cannot remove %s, which is finished: %s", path, removeErr)
		}
	}
	return err
}

// buildAnew makes a transaction, after an earlier attempt that is proven to have had no effect; nil: there was none. One
// that failed has used its nonce up, for its valid_until: under the same nonce each needs another one.
func buildAnew(ctx context.Context, b provenBooks, in client.Intent, earlier *client.Draft) (*client.Built, error) {
	built, err := b.Build(ctx, in)
	if err != nil || earlier == nil {
		return built, err
	}
	// Attempts that follow fast on each other have pushed it ahead a little.
	const near = 60 // seconds
	if last, now := earlier.Body().ValidUntil, built.Body().ValidUntil; last >= now && last-now < near {
		in.ValidFor = cmp.Or(in.ValidFor, client.DefaultValidFor) + time.Duration(last-now+1)*time.Second
		return b.Build(ctx, in)
	}
	return built, nil
}

// intent is what a request says to the client, and the sponsor, nil when there is none. Its nonce is set also where
// sequences are used: it names the file in the outbox.
func (c *cli) intent(ctx context.Context, b books, r request) (in client.Intent, sponsor *payer, err error) {
	nonce, err := id128("--nonce", r.send.nonce)
	if err != nil {
		return in, nil, err
	}
	switch {
	case r.send.id != "":
		payment, err := client.NewPayment(r.signers[0].address, r.send.id)
		if err != nil {
			return in, nil, usage("--id: %w", err)
		}
		nonce = payment.Nonce
	case r.send.nonce == "":
		rand.Read(nonce[:]) // never errs
	}
	in = client.Intent{Operations: r.operations, Sequence: r.send.sequence, Nonce: &nonce, ValidFor: r.send.validFor}
	for _, s := range r.signers {
		in.Signers = append(in.Signers, s.address)
		in.Known = append(in.Known, s.known...)
	}
	if r.send.out != "" && in.ValidFor == 0 && !in.Sequence {
		// Others are to sign: all the time that a nonce gives.
		parameters, err := b.parameters(ctx)
		if err != nil {
			return in, nil, err
		}
		in.ValidFor = time.Duration(parameters.ReplayWindowSeconds) * time.Second
		c.say("the signatures and tx broadcast have %s: --sequence gives them as long as they need", in.ValidFor)
	}
	if r.send.sponsor != "" {
		p, err := c.party("--sponsor", r.send.sponsor, nil)
		if err != nil {
			return in, nil, err
		}
		sponsor, in.Sponsor, in.Known = &p, p.address, append(in.Known, p.known...)
	}
	if r.send.feeGranter != "" {
		if in.FeeGranter, err = c.account("--fee-granter", r.send.feeGranter); err != nil {
			return in, nil, err
		}
	}
	if in.MaxFee, err = feeAmount(ctx, b, "--max-fee", r.send.maxFee); err != nil {
		return in, nil, err
	}
	in.MaxDeposit, err = feeAmount(ctx, b, "--max-deposit", r.send.maxDeposit)
	return in, sponsor, err
}

// dear says in decimals of the fee asset that a fee is above its maximum. Other errors are left as they are.
func (c *cli) dear(ctx context.Context, b books, err error) error {
	dear, ok := errors.AsType[*client.FeeAboveMaximum](err)
	if !ok {
		return err
	}
	parameters, failed := b.parameters(ctx)
	if failed != nil {
		return err
	}
	asset, failed := b.asset(ctx, parameters.FeeAsset)
	if failed != nil {
		return err
	}
	return hinted(fmt.Errorf("the fee is %s %s, above the maximum of %s", dear.Fee.Format(asset.Scale), asset.Code, dear.Maximum.Format(asset.Scale)),
		"nothing was sent; give a higher --max-fee")
}

// feeAmount reads decimals of the fee asset; nil when there are none.
func feeAmount(ctx context.Context, b books, flag, text string) (*ledger.Amount, error) {
	if text == "" {
		return nil, nil
	}
	parameters, err := b.parameters(ctx)
	if err != nil {
		return nil, err
	}
	asset, err := b.asset(ctx, parameters.FeeAsset)
	if err != nil {
		return nil, err
	}
	a, err := ledger.ParseAmount(text, asset.Scale)
	if err != nil {
		return nil, usage("%s: %w (%s)", flag, err, asset.Code)
	}
	return &a, nil
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
	if begun != nil {
		return inBatch(id)
	}
	return writeFile(path, content)
}

// inBatch is the error for an id that batches go on with: they do not look into the outbox any more.
func inBatch(id string) error {
	return &problem{err: fmt.Errorf("the id %q is being paid, or was paid, by pacioli pay-batch", id), name: "id_reused",
		hint: "run pay-batch with its file again: it shows what became of it, and goes on with it"}
}

// recall finds a payment by its id where the outbox does not have its end: in the memory of batches, and, when nothing here
// remembers it, on the ledger. done: it was paid, and is shown.
func (c *cli) recall(ctx context.Context, b provenBooks, r request, earlier *client.Draft) (done bool, err error) {
	id := r.send.id
	if id == "" {
		return false, nil
	}
	from := r.signers[0].address
	wanted, ok := r.operations[0].(*ledger.Transfer)
	if !ok || len(r.operations) != 1 {
		return false, nil
	}
	differs := func(tx crypto.Hash, field string) error {
		return &problem{err: fmt.Errorf("the id %q was used for another transaction, %s, with another %s", id, tx, field), name: "id_reused",
			hint: "pacioli tx show " + tx.String() + " shows that payment; this one was not sent, and needs an id of its own"}
	}
	begun, release, err := batch.Claim(c.batches(), b.network().ID, from, id)
	if err != nil {
		return false, err
	}
	release()
	switch {
	case begun != nil:
		if field := batch.Differs(begun.Transfer, *wanted); field != "" {
			return false, differs(begun.Tx, field)
		}
		if earlier != nil && earlier.ID() == begun.Tx && (begun.Paid || !begun.Ended) {
			return false, nil // the outbox has the very bytes
		}
		if !begun.Paid {
			return false, inBatch(id)
		}
		f, found, err := b.Find(ctx, begun.Tx)
		if err != nil {
			return false, err
		}
		if !found {
			return false, hinted(fmt.Errorf("the id %q was paid by pacioli pay-batch in transaction %s, and no node shows it now", id, begun.Tx),
				"nothing was sent; ask a node that keeps all blocks: pacioli tx show %s", begun.Tx)
		}
		c.say("paid already, by pacioli pay-batch, in transaction %s", begun.Tx)
		return true, c.finish(ctx, b, f)
	case earlier != nil:
		return false, nil
	}
	f, t, err := c.onLedger(ctx, b, from, id)
	if err != nil {
		return false, hinted(fmt.Errorf("asking whether the id %q was paid before: %w", id, err), "nothing was sent; run it again")
	}
	if f == nil {
		return false, nil
	}
	if field := batch.Differs(t, *wanted); field != "" {
		return false, differs(f.Final.ID, field)
	}
	c.say("paid already, in transaction %s, which this home had no memory of", f.Final.ID)
	return true, c.finish(ctx, b, *f.Final)
}

// onLedger asks the nodes for a payment by the reference that is derived from its id; nil when they show none. What is found
// is proven; a node could keep it back, so this stands in for a lost memory but does not replace one. Its transfer is
// returned as if the payer were the only signer.
func (c *cli) onLedger(ctx context.Context, b provenBooks, from crypto.Address, id string) (*client.Found, ledger.Transfer, error) {
	payment, err := client.NewPayment(from, id)
	if err != nil {
		return nil, ledger.Transfer{}, usage("--id: %w", err)
	}
	s := query.Search{By: query.ByReference, Reference: payment.Reference}
	for {
		found, next, err := b.Search(ctx, s)
		if err != nil {
			return nil, ledger.Transfer{}, err
		}
		for _, f := range found {
			if f.Final == nil || f.Entry.Kind != ledger.EntryTransfer || !f.Proven {
				continue
			}
			body := f.Final.Tx.Body
			// Anybody can use the reference; the payer's own signature is what counts.
			if t, ok := body.Operations[f.Entry.Operation].(*ledger.Transfer); ok && body.Signers[t.From].Address == from {
				transfer := *t
				transfer.From = 0
				return &f, transfer, nil
			}
		}
		if len(next) == 0 || bytes.Equal(next, s.After) {
			return nil, ledger.Transfer{}, nil
		}
		s.After = next
	}
}

// sendAgain takes up an earlier attempt. again: it is proven to have had no effect, so that it may be made anew.
func (c *cli) sendAgain(ctx context.Context, b provenBooks, earlier *client.Draft, in client.Intent, s sendFlags) (again bool, err error) {
	var sponsor crypto.Address
	if earlier.Sponsor() != nil {
		sponsor = earlier.Sponsor().Address
	}
	if sponsor != in.Sponsor || earlier.Body().FeeGranter != in.FeeGranter {
		c.say("the earlier attempt goes on as it was signed, with the one who pays its fee; --sponsor and --fee-granter count only when it is made anew")
	}
	var f client.Final
	found := false
	if s.noWait {
		// Once it has failed, a node would only refuse it.
		if f, found, err = b.Find(ctx, earlier.ID()); err != nil && !errors.Is(err, client.ErrPruned) {
			return false, err
		}
	}
	if !found {
		c.say("sending transaction %s again", earlier.ID())
		if s.noWait {
			return false, c.deliver(ctx, b, earlier, s)
		}
		if f, err = c.await(ctx, earlier, b.SendAgain); err != nil {
			if _, dead := errors.AsType[*client.Dead](err); dead {
				c.say("the earlier attempt did not take effect and never will: making it anew")
				return true, nil
			}
			return false, err
		}
	}
	if f.Receipt.Code != ledger.OK {
		c.say("the earlier attempt failed (%s) and cost its fee: making it anew", f.Receipt.Code)
		return true, nil
	}
	return false, c.conclude(ctx, b, f)
}

// rehearseAgain is --dry-run under an id or a nonce. done: it was used before, and what became of it is shown; else earlier
// is an attempt that has failed, if there is one.
func (c *cli) rehearseAgain(ctx context.Context, b provenBooks, r request, nonce [ledger.NonceBytes]byte, path string) (earlier *client.Draft, done bool, err error) {
	if earlier, err = c.outbox(path); err != nil {
		return nil, false, err
	}
	if earlier != nil {
		if err := c.same(earlier, b.network(), r, nonce); err != nil {
			return nil, false, err
		}
	}
	if done, err := c.recall(ctx, b, r, earlier); done || err != nil || earlier == nil {
		return nil, done, err
	}
	f, found, err := b.Find(ctx, earlier.ID())
	switch {
	case err != nil && !errors.Is(err, client.ErrPruned):
		return nil, false, err
	case !found:
		return nil, false, &problem{err: fmt.Errorf("transaction %s was made for this already, and no node shows its end", earlier.ID()), code: int(client.Uncertain),
			name: "unknown", id: earlier.ID().String(), hint: "without --dry-run the same bytes are sent again, which is safe"}
	case f.Receipt.Code != ledger.OK:
		c.say("the earlier attempt failed (%s) and cost its fee: without --dry-run it is made anew", f.Receipt.Code)
		return earlier, false, nil
	}
	c.say("sent already, as transaction %s: nothing would be sent", f.ID)
	return nil, true, c.finish(ctx, b, f)
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

// same tells whether an earlier attempt does exactly what is asked for now. Who pays the fee, and at most how much, is no
// part of that.
func (c *cli) same(d *client.Draft, network ledger.Network, r request, nonce [16]byte) error {
	body := d.Body()
	what, name, used := "nonce", "nonce_reused", hex.EncodeToString(nonce[:])
	if r.send.id != "" {
		what, name, used = "id", "id_reused", strconv.Quote(r.send.id)
	}
	differs := func(field string) error {
		return &problem{err: fmt.Errorf("the %s %s was used for another transaction, %s, with another %s", what, used, d.ID(), field), name: name,
			hint: "pacioli tx show " + d.ID().String() + " shows it; this one was not sent, and needs another " + what}
	}
	if d.Network().ID != network.ID {
		return differs("network")
	}
	if len(body.Signers) != len(r.signers) {
		return differs("number of signers")
	}
	for i, s := range body.Signers {
		if s.Address != r.signers[i].address || s.Nonce != nonce {
			return differs("sender")
		}
	}
	if len(body.Operations) != len(r.operations) {
		return differs("number of operations")
	}
	for i, now := range r.operations {
		if body.Operations[i].Kind() != now.Kind() {
			return differs("kind of operation")
		}
		old, okOld := body.Operations[i].(*ledger.Transfer)
		now, okNow := now.(*ledger.Transfer)
		if !okOld || !okNow {
			continue
		}
		for _, f := range []struct {
			name string
			same bool
		}{{"receiver", old.To == now.To}, {"asset", old.Asset == now.Asset}, {"amount", old.Amount == now.Amount}, {"memo", old.Memo == now.Memo}, {"reference", old.Reference == now.Reference}} {
			if !f.same {
				return differs(f.name)
			}
		}
	}
	// Whatever the operations are, their encoding decides.
	ours := body
	ours.Operations = r.operations
	if !bytes.Equal(ours.Encode(), d.BodyBytes()) {
		return differs("content")
	}
	return nil
}

// anyParty has [cli.sign] sign for every party whose policy has a key.
const anyParty = -1

// sign unlocks keys and signs with those that are needed, for one party of a draft or for all. That none of them has anything
// to sign is an error.
func (c *cli) sign(d *client.Draft, party int, keys ...string) error {
	store, err := c.keys()
	if err != nil {
		return err
	}
	total := 0
	for i, key := range keys {
		if i > 0 && (d.Complete() || party != anyParty && d.Missing()[party] == 0) {
			break
		}
		signer, err := c.unlock(store, key)
		if err != nil {
			return err
		}
		var added int
		if party == anyParty {
			added, err = d.Sign(signer)
		} else {
			added, err = d.SignAs(party, signer)
		}
		if err != nil {
			return err
		}
		total += added
	}
	if total > 0 {
		return nil
	}
	which := "key " + keys[0] + " has"
	if len(keys) > 1 {
		which = fmt.Sprintf("none of the %d keys has", len(keys))
	}
	return hinted(fmt.Errorf("%s nothing to sign in transaction %s", which, d.ID()), "its keys are in none of the signers' policies, or enough have signed already")
}

// unlock asks for the passphrase of a key and opens it.
func (c *cli) unlock(store *keystore.Store, key string) (*keystore.Signer, error) {
	passphrase, err := c.passphrase(false)
	if err != nil {
		return nil, err
	}
	return store.Unlock(key, passphrase)
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
		r := txResult{Outcome: "submitted", ID: d.ID(), CodeName: ledger.OK.String(), ValidUntil: v.ValidUntil, Payer: c.payerOf(d.Body(), d.Sponsor()), Signers: v.Signers, Operations: v.Operations,
			Differs: proposedParameters(ctx, b, d.Body(), 0)}
		if err := c.print(r, r.text); err != nil {
			return err
		}
		c.say("a node has taken it, which is no promise: pacioli tx show %s", d.ID())
		return nil
	}
	f, err := c.await(ctx, d, b.Send)
	if err != nil {
		return err
	}
	return c.conclude(ctx, b, f)
}

// await sends a signed draft and waits for its end.
func (c *cli) await(ctx context.Context, d *client.Draft, send func(context.Context, []byte, client.Mark) (client.Final, error)) (client.Final, error) {
	raw, err := d.Raw()
	if err != nil {
		return client.Final{}, hinted(err, "pacioli tx sign adds signatures")
	}
	from := client.Mark{}
	if d.Before != nil {
		from = *d.Before
	}
	return send(ctx, raw, from)
}

// conclude shows the end of a transaction.
func (c *cli) conclude(ctx context.Context, b provenBooks, f client.Final) error {
	// The receipt is proven; showing it must not fail because the time to wait is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.finish(ctx, b, f)
}
