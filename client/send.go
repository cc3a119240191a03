package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// minPoll and maxPoll bound the pause between two questions for a receipt: a lone transaction is final in 30 ms.
	minPoll = 20 * time.Millisecond
	maxPoll = 500 * time.Millisecond
	// resendAfter is how long a transaction may be pending before the next node gets it too: the first may have been
	// killed with its mempool. The same bytes take effect once, so this costs nothing but traffic.
	resendAfter = 2 * time.Second
)

// Outcome is what became of a transaction. The numbers are the exit codes of the command line.
type Outcome int

const (
	Committed Outcome = 0 // in a block, took effect, proven
	NotSent   Outcome = 1 // nothing was sent: an error on this side
	Rejected  Outcome = 2 // did not take effect and costs nothing: refused, or proven to be dead
	Failed    Outcome = 3 // in a block without effect but for the fee, proven
	Uncertain Outcome = 4 // may have taken effect, or may yet: ask by the id before doing it again
)

// String returns one lower-case word.
func (o Outcome) String() string {
	switch o {
	case Committed:
		return "committed"
	case NotSent:
		return "not_sent"
	case Rejected:
		return "refused"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// OutcomeOf tells what the results of [Client.Send], [Client.Settle] and [Client.Wait] mean.
func OutcomeOf(f Final, err error) Outcome {
	if err == nil {
		if f.Receipt.Code == ledger.OK {
			return Committed
		}
		return Failed
	}
	if _, ok := errors.AsType[*Unknown](err); ok {
		return Uncertain
	}
	if _, ok := errors.AsType[*Refusal](err); ok {
		return Rejected
	}
	if _, ok := errors.AsType[*Dead](err); ok {
		return Rejected
	}
	return NotSent
}

// Refusal is the nodes' word that they did not take a transaction, and nobody else was sent it. A node that lies about
// it can at most send the transaction on, as long as it is valid.
type Refusal struct {
	ID      crypto.Hash
	Code    ledger.Code
	Message string
	Nodes   []string
}

func (e *Refusal) Error() string {
	text := fmt.Sprintf("transaction %s is refused with code %d (%s)", e.ID, uint32(e.Code), e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Dead is the proof that a transaction took no effect and never will.
type Dead struct {
	ID     crypto.Hash
	Height uint64 // of the proven state
	Reason string
}

func (e *Dead) Error() string {
	return fmt.Sprintf("transaction %s did not take effect and never will: %s; proven by the state of height %d", e.ID, e.Reason, e.Height)
}

// Unknown says that a transaction was sent and its end is not known.
type Unknown struct {
	ID    crypto.Hash
	Cause error
}

func (e *Unknown) Error() string {
	return fmt.Sprintf("the outcome of transaction %s is not known: %s", e.ID, e.Cause)
}
func (e *Unknown) Unwrap() error { return e.Cause }

// Submission is a node's word that it took a transaction. That is no promise: see [Client.Wait].
type Submission struct {
	ID     crypto.Hash
	Node   string
	Height uint64 // hint: of the block that holds it already; 0: none
}

// Submit hands the bytes of a transaction to one node, each time to another, and to the next ones while nodes cannot be
// reached, are busy, or refuse. It tries until the context ends. The same bytes may be submitted again at any time.
//
// Errors: *Refusal when every node that could be reached refused; *Unknown when, besides, a node may have taken it or the
// context ended after something was sent; any other: nothing was sent.
func (c *Client) Submit(ctx context.Context, raw []byte) (Submission, error) {
	tx, err := ledger.Decode(raw)
	if err != nil {
		return Submission{}, fmt.Errorf("not a transaction: %w", err)
	}
	id := tx.ID(c.network.ID)
	sent := false // a node may have it
	undecided := func(cause error) (Submission, error) {
		if sent {
			return Submission{ID: id}, &Unknown{id, cause}
		}
		return Submission{ID: id}, fmt.Errorf("transaction %s was not sent: %w", id, cause)
	}
	for delay := minBackoff; ; delay = min(2*delay, maxBackoff) {
		var errs []error
		var refusal *Refusal
		busy := false // a node may take it yet, whatever others say: those may lag behind
		wait := delay
		for _, n := range c.inOrder(c.turn.Add(1)) {
			answer, err := n.submit(ctx, raw)
			switch {
			case err != nil:
				sent = sent || !errors.Is(err, errNotSent)
				errs = append(errs, err)
			case answer.Retry:
				busy = true
				errs = append(errs, &nodeError{n.name, fmt.Errorf("try again later: %s", answer.Message)})
				wait = max(wait, answer.wait)
			case answer.Code != ledger.OK:
				if refusal == nil {
					refusal = &Refusal{ID: id, Code: answer.Code, Message: answer.Message}
				}
				refusal.Nodes = append(refusal.Nodes, n.name)
			case answer.ID != id:
				sent = true
				errs = append(errs, &nodeError{n.name, fmt.Errorf("it says that the transaction's id is %s, but it is %s: it is of another network, or lies", answer.ID, id)})
			default:
				return Submission{ID: id, Node: n.name, Height: answer.Height}, nil
			}
			if ctx.Err() != nil {
				return undecided(join(append(errs, ctx.Err())...))
			}
		}
		if refusal != nil && !busy {
			if sent {
				return undecided(join(append(errs, refusal.cause())...))
			}
			return Submission{ID: id}, refusal
		}
		c.log.Info("no node took the transaction, trying again", "id", id.String(), "in", wait, "error", join(errs...))
		if err := pause(ctx, wait); err != nil {
			if refusal != nil {
				errs = append(errs, refusal.cause())
			}
			return undecided(join(append(errs, err)...))
		}
	}
}

// cause is the refusal as a reason of another error, which must not be taken for a refusal itself.
func (e *Refusal) cause() error { return errors.New(e.Error()) }

// neverConnected tells whether a request failed before anything of it was sent.
func neverConnected(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// Final is the proven end of a transaction: it stands in a block, and this is its receipt.
type Final struct {
	ID          crypto.Hash
	Tx          *ledger.Tx
	Receipt     ledger.Receipt
	Height      uint64    // of the block
	Index       uint64    // in the block
	ProofHeight uint64    // of the header that proves the receipt: Height + 1
	Time        time.Time // of the block

	// What the proof was made with: the number of transactions in the block, whose hash is in Header, and the header above
	// it, which has the hash of the results.
	Total  uint64
	Header light.Header
	Next   light.Header
}

// SignedPower verifies all signatures under a header, where following the chain needs those of two thirds only, and returns
// the voting power behind it and that of all its validators.
func SignedPower(h light.Header) (signed, total int64, err error) {
	b := h.Block
	if err := b.ValidatorSet.VerifyCommit(h.ChainID, b.Commit.BlockID, b.Height, b.Commit); err != nil {
		return 0, 0, fmt.Errorf("signatures of header %d: %w", h.Height, err)
	}
	for i, signature := range b.Commit.Signatures {
		if signature.BlockIDFlag == types.BlockIDFlagCommit {
			signed += b.ValidatorSet.Validators[i].VotingPower
		}
	}
	return signed, b.ValidatorSet.TotalVotingPower(), nil
}

// Find asks the nodes once for a transaction. Not finding it proves nothing: see [Client.Settle]. The error is ErrPruned when
// no node has it and none keeps all blocks: it may be in one that they have deleted.
func (c *Client) Find(ctx context.Context, id crypto.Hash) (f Final, found bool, err error) {
	var errs []error
	missing := false
	for _, n := range c.inOrder(c.preferred.Load()) {
		if f, err = c.receipt(ctx, n, id); err == nil {
			return f, true, nil
		}
		missing = missing || isNotFound(err)
		errs = append(errs, err)
	}
	if missing {
		return Final{}, false, nil
	}
	return Final{}, false, fmt.Errorf("asking for transaction %s: %w", id, join(errs...))
}

// Transaction returns a transaction by its id, which proves all that its signers signed; that it stands in a block, and with
// what effect, is what [Client.Find] proves. Not finding it proves nothing.
func (c *Client) Transaction(ctx context.Context, id crypto.Hash) (tx *ledger.Tx, found bool, err error) {
	var errs []error
	missing := false
	for _, n := range c.inOrder(c.preferred.Load()) {
		if tx, err = c.transaction(ctx, n, id); err == nil {
			return tx, true, nil
		}
		missing = missing || isNotFound(err) || errors.Is(err, ErrPruned)
		errs = append(errs, err)
	}
	if missing {
		return nil, false, nil // or no node has it any more
	}
	return nil, false, fmt.Errorf("asking for transaction %s: %w", id, join(errs...))
}

func (c *Client) transaction(ctx context.Context, n *node, id crypto.Hash) (*ledger.Tx, error) {
	answer, err := n.query(ctx, query.PathTx, id[:], 0, false)
	if err != nil {
		return nil, err
	}
	inclusion, err := proof.DecodeInclusion(answer.Value)
	if err != nil {
		return nil, &nodeError{n.name, err}
	}
	tx, err := ledger.Decode(inclusion.Tx)
	if err != nil {
		return nil, &nodeError{n.name, fmt.Errorf("%w: not a transaction: %w", proof.ErrInvalid, err)}
	}
	if got := tx.ID(c.network.ID); got != id {
		return nil, &nodeError{n.name, fmt.Errorf("%w: answers with transaction %s, asked for %s", proof.ErrInvalid, got, id)}
	}
	return tx, nil
}

// receipt asks one node for a transaction and verifies all of the answer.
func (c *Client) receipt(ctx context.Context, n *node, id crypto.Hash) (f Final, err error) {
	answer, err := n.query(ctx, query.PathTx, id[:], 0, false)
	if err != nil {
		return f, err
	}
	fail := func(format string, args ...any) (Final, error) {
		return Final{}, &nodeError{n.name, fmt.Errorf("%w: receipt: %w", proof.ErrInvalid, fmt.Errorf(format, args...))}
	}
	if answer.Height < 1 || answer.Height >= 1<<62 {
		return fail("height %d", answer.Height)
	}
	inclusion, err := proof.DecodeInclusion(answer.Value)
	if err != nil {
		return Final{}, &nodeError{n.name, err}
	}
	tx, err := ledger.Decode(inclusion.Tx)
	if err != nil {
		return fail("not a transaction: %w", err)
	}
	if got := tx.ID(c.network.ID); got != id {
		return fail("it is of transaction %s", got)
	}
	height := uint64(answer.Height)
	header, err := c.light.Header(ctx, height)
	if err != nil {
		return Final{}, err
	}
	next, err := c.light.Header(ctx, height+1)
	if err != nil {
		return Final{}, err
	}
	if err := proof.Receipt(header.DataHash, next.LastResultsHash, inclusion); err != nil {
		return Final{}, &nodeError{n.name, err}
	}
	result, err := proof.DecodeResult(inclusion.Result)
	if err != nil {
		return Final{}, &nodeError{n.name, err}
	}
	receipt, err := ledger.DecodeReceipt(result.Data)
	if err != nil {
		return fail("%w", err)
	}
	if receipt.TxID != id || uint32(receipt.Code) != result.Code {
		return fail("it says transaction %s with code %d, the result has code %d", receipt.TxID, uint32(receipt.Code), result.Code)
	}
	if receipt.Code.Refused() {
		// A faulty proposer can put bytes into a block that have no effect there. They may have had it in an earlier
		// block, or have it in a later one, so this is not their end.
		return fail("in block %d it is refused with code %d (%s), which is not its end", height, uint32(receipt.Code), receipt.Code)
	}
	c.handedOut(height)
	return Final{ID: id, Tx: tx, Receipt: receipt, Height: height, Index: inclusion.Index, ProofHeight: height + 1, Time: header.Time,
		Total: inclusion.Total, Header: header, Next: next}, nil
}

// Wait waits until a transaction is in a block and returns its proven receipt. When the context ends first, or the nodes
// disagree about the chain, the error is an *Unknown with the id.
func (c *Client) Wait(ctx context.Context, id crypto.Hash) (Final, error) {
	return c.await(ctx, id, func() error { return nil })
}

// await polls for a receipt, each time from the next node, and calls meanwhile between the questions.
func (c *Client) await(ctx context.Context, id crypto.Hash, meanwhile func() error) (Final, error) {
	var last []error // the latest answer of each node that was not "not found"
	delay := minPoll
	for turn := c.preferred.Load(); ; turn++ {
		n := c.inOrder(turn)[0]
		f, err := c.receipt(ctx, n, id)
		if err == nil {
			return f, nil
		}
		if _, forked := errors.AsType[*light.Divergence](err); forked || errors.Is(err, light.ErrTrustExpired) {
			return Final{ID: id}, &Unknown{id, err}
		}
		if ctx.Err() == nil && !isNotFound(err) && !errors.Is(err, ErrPruned) {
			last = append(last[max(0, len(last)-len(c.nodes)+1):], err)
		}
		if err := meanwhile(); err != nil {
			return Final{ID: id}, err
		}
		if pause(ctx, delay) != nil {
			return Final{ID: id}, &Unknown{id, join(append([]error{errors.New("no node has shown it in a block"), ctx.Err()}, last...)...)}
		}
		delay = min(delay*3/2, maxPoll)
	}
}

// Settle waits like [Client.Wait] for a transaction that has been submitted, and does what waiting alone cannot: it hands
// the bytes to the next node when a while has passed, and finds out when they are dead.
//
// When is a transaction dead? No node can prove that a nonce was not used. But what a transaction debits is an entry in the
// journal of that line, and a journal can be proven complete. So once the transaction can stand in no later block (a
// verified header's time has reached valid_until, or the account's proven sequence has passed its own), and the journal
// of its [EvidenceLine] from the mark up to that state does not name it, it took no effect and never will: the error is
// *Dead. Where the journal cannot be had, or was closed with its line, the error stays *Unknown.
//
// from is a place in that journal from before the transaction was first sent ([Built.Before]); the zero value reads the
// whole journal.
func (c *Client) Settle(ctx context.Context, raw []byte, from Mark) (Final, error) {
	tx, err := ledger.Decode(raw)
	if err != nil {
		return Final{}, fmt.Errorf("not a transaction: %w", err)
	}
	id := tx.ID(c.network.ID)
	next := time.Now().Add(resendAfter)
	return c.await(ctx, id, func() error {
		if time.Now().Before(next) {
			return nil
		}
		next = time.Now().Add(resendAfter)
		if err := c.dead(ctx, tx, from); err != nil {
			if _, ok := errors.AsType[*Dead](err); ok {
				return err
			}
			c.log.Debug("cannot tell yet whether the transaction is dead", "id", id.String(), "error", err)
		}
		for _, n := range c.inOrder(c.turn.Add(1)) {
			answer, err := n.submit(ctx, raw)
			if err == nil && !answer.Retry {
				break
			}
			c.log.Debug("resend transaction", "id", id.String(), "node", n.name, "retry", answer.Retry, "error", err)
		}
		return nil
	})
}

// dead returns a *Dead when it can prove that the transaction is; nil when it may still take effect or has; another error
// when it could not find out.
func (c *Client) dead(ctx context.Context, tx *ledger.Tx, from Mark) error {
	id := tx.ID(c.network.ID)
	parameters, err := c.Parameters(ctx, 0)
	if err != nil {
		return err
	}
	height, p := parameters.Height, parameters.Value
	reason := ""
	// parameters.Time is that of block height+1, which had to refuse it, as every later one.
	if v := tx.Body.ValidUntil; v != 0 && !parameters.Time.Before(time.Unix(int64(v), 0)) {
		reason = "its valid_until has passed"
	}
	for _, s := range tx.Body.Signers {
		if s.Sequence == 0 {
			continue
		}
		account, err := c.Account(ctx, s.Address, height)
		if err != nil {
			return err
		}
		switch {
		case account.Value.Sequence >= s.Sequence:
			reason = fmt.Sprintf("sequence %d of %s is used", s.Sequence, s.Address)
		case reason != "":
			return &Dead{id, height, fmt.Sprintf("%s, and sequence %d of %s was never used", reason, s.Sequence, s.Address)}
		}
	}
	if reason == "" {
		return nil
	}
	key, moves := EvidenceLine(&tx.Body, p)
	if !moves {
		// The fee would do, were it certain who has paid it: whoever likes can have sponsored the transaction.
		return errors.New("this transaction moves nothing, so no journal tells for certain")
	}
	if !moves && tx.Sponsor != nil {
		key.Account, from = tx.Sponsor.Address, Mark{} // the mark is of the line that would have paid without it
	}
	line, err := c.Line(ctx, key, height)
	if err != nil {
		return err
	}
	closed := line.Value.Incarnation != from.Incarnation
	if !line.Present { // then it may have been there, have paid, and have been closed
		account, err := c.Account(ctx, key.Account, height)
		if err != nil {
			return err
		}
		closed = account.Value.ClosedLines != 0
	}
	if closed {
		return fmt.Errorf("the line of %s may have been closed since, and its journal with it", key.Account)
	}
	journal, err := c.Journal(ctx, key, from, line.Value, nil)
	if err != nil {
		return err
	}
	defer journal.Close()
	for e, err := range journal.Entries() {
		if err != nil {
			return err
		}
		if e.TxID == id {
			return nil // it stands in a block, and its receipt will turn up
		}
	}
	return &Dead{id, height, fmt.Sprintf("%s, and the journal of %s does not have it", reason, key.Account)}
}

// EvidenceLine returns the line whose journal tells whether a transaction took effect: the first one that it debits, which
// moves tells, else that of its payer in the fee asset. The payer's alone would not do for what moves something: whoever
// likes can sponsor a transaction, and then the fee stands in the sponsor's journal.
func EvidenceLine(b *ledger.Body, p ledger.Parameters) (key ledger.LineKey, moves bool) {
	debited := func(by uint32, granter crypto.Address) crypto.Address {
		if granter != (crypto.Address{}) {
			return granter
		}
		return b.Signers[by].Address
	}
	for _, op := range b.Operations {
		switch o := op.(type) {
		case *ledger.Transfer:
			return ledger.LineKey{Account: debited(o.From, o.Granter), Asset: o.Asset}, true
		case *ledger.CreateHold:
			return ledger.LineKey{Account: debited(o.Signer, o.Granter), Asset: o.Asset}, true
		case *ledger.Clawback:
			return ledger.LineKey{Account: o.Account, Asset: o.Asset}, true
		case *ledger.Bond:
			return ledger.LineKey{Account: b.Signers[o.Signer].Address, Asset: p.FeeAsset}, true
		}
	}
	return ledger.LineKey{Account: b.Payer(), Asset: p.FeeAsset}, false
}

// Send submits a transaction and settles it: the way to pay. It may be called again with the same bytes, also by another
// process after a crash; the original receipt comes back. See [OutcomeOf] for what its results mean.
func (c *Client) Send(ctx context.Context, raw []byte, from Mark) (Final, error) {
	return c.send(ctx, raw, from, false)
}

// SendAgain is Send for bytes that may have been sent before, by this program or another. Then a refusal does not always
// tell that they did not take effect: an account whose policy has changed since, say, is refused for that before anybody
// looks whether the transaction was there. Such a refusal is *Unknown here, unless the transaction is proven to be dead.
func (c *Client) SendAgain(ctx context.Context, raw []byte, from Mark) (Final, error) {
	return c.send(ctx, raw, from, true)
}

func (c *Client) send(ctx context.Context, raw []byte, from Mark, again bool) (Final, error) {
	submission, err := c.Submit(ctx, raw)
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		// An earlier call may have brought it into a block already.
		if f, found, findErr := c.Find(ctx, submission.ID); findErr == nil && found {
			return f, nil
		}
		switch refusal.Code {
		case ledger.Expired, ledger.NonceUsed, ledger.SequenceUsed:
			again = true // what an earlier call has sent is refused like this
		}
		if again && refusal.Code < ledger.FeeAboveMaximum { // not later than for its sequence or nonce; and a node's "not found" proves nothing
			tx, decodeErr := ledger.Decode(raw)
			if decodeErr != nil {
				return Final{}, decodeErr
			}
			deadErr := c.dead(ctx, tx, from)
			if _, ok := errors.AsType[*Dead](deadErr); ok {
				return Final{ID: submission.ID}, deadErr
			}
			return Final{ID: submission.ID}, &Unknown{submission.ID, join(refusal.cause(), deadErr)}
		}
		return Final{ID: submission.ID}, refusal
	}
	if _, unknown := errors.AsType[*Unknown](err); err != nil && (!unknown || ctx.Err() != nil) {
		return Final{ID: submission.ID}, err
	}
	return c.Settle(ctx, raw, from)
}

// Summary says in one line what the operations of a body are, for logs and errors.
func Summary(b ledger.Body) string {
	var kinds []string
	for _, op := range b.Operations {
		kinds = append(kinds, op.Kind().String())
	}
	if len(kinds) > 3 {
		kinds = append(kinds[:3], fmt.Sprintf("and %d more", len(kinds)-3))
	}
	return strings.Join(kinds, ", ")
}
