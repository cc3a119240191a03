package app

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	types "github.com/cometbft/cometbft/proto/tendermint/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// proposal is everything that the outcome of a block depends on, besides the state below it.
type proposal struct {
	header   ledger.Header
	txs      [][]byte
	evidence []ledger.Misbehavior
	votes    []ledger.Vote // on the block before
}

func newProposal(height int64, blockTime time.Time, txs [][]byte, misbehavior []abci.Misbehavior, votes []ledger.Vote) proposal {
	p := proposal{header: ledger.Header{Height: uint64(height), UnixMillis: uint64(blockTime.UnixMilli())}, txs: txs, votes: votes}
	for _, m := range misbehavior {
		e := ledger.Misbehavior{Height: uint64(m.Height)}
		copy(e.Validator[:], m.Validator.Address)
		p.evidence = append(p.evidence, e)
	}
	return p
}

// votesOf reads who signed the block before. PrepareProposal is told by another message than the others, because it may
// also see vote extensions, of which there are none.
func votesOf(last abci.CommitInfo) []ledger.Vote {
	votes := make([]ledger.Vote, len(last.Votes))
	for i, v := range last.Votes {
		votes[i] = vote(v.Validator, v.BlockIdFlag)
	}
	return votes
}

func localVotesOf(last abci.ExtendedCommitInfo) []ledger.Vote {
	votes := make([]ledger.Vote, len(last.Votes))
	for i, v := range last.Votes {
		votes[i] = vote(v.Validator, v.BlockIdFlag)
	}
	return votes
}

// vote tells whether a validator signed. One that signed for nil was there.
func vote(v abci.Validator, flag types.BlockIDFlag) ledger.Vote {
	signed := ledger.Vote{Signed: flag != types.BlockIDFlagAbsent}
	copy(signed.Validator[:], v.Address)
	return signed
}

// key names a proposal by all of its content.
func (p proposal) key() crypto.Hash {
	content := binary.BigEndian.AppendUint64(nil, p.header.Height)
	content = binary.BigEndian.AppendUint64(content, p.header.UnixMillis)
	content = binary.BigEndian.AppendUint64(content, uint64(len(p.txs)))
	for _, tx := range p.txs {
		h := sha256.Sum256(tx)
		content = append(content, h[:]...)
	}
	content = binary.BigEndian.AppendUint64(content, uint64(len(p.evidence)))
	for _, e := range p.evidence {
		content = append(content, e.Validator[:]...)
		content = binary.BigEndian.AppendUint64(content, e.Height)
	}
	for _, v := range p.votes {
		content = append(content, v.Validator[:]...)
		if v.Signed {
			content = append(content, 1)
		} else {
			content = append(content, 0)
		}
	}
	return sha256.Sum256(content)
}

// outcome is an executed proposal.
type outcome struct {
	proposal
	decoded  []*ledger.Tx // nil where the bytes are not a transaction
	receipts []ledger.Receipt
	ledger.Outcome
}

// refused returns the index of the first transaction that may not stand in a block, -1 when there is none.
func (o *outcome) refused() int {
	for i, r := range o.receipts {
		if r.Code.Refused() {
			return i
		}
	}
	return -1
}

// execute applies a proposal to the committed state, with every signature that is not yet known to be good verified in
// batches before. It changes nothing.
func (a *App) execute(p proposal) (*outcome, error) { return a.executeDecoded(p, a.decode(p.txs)) }

// decode decodes transactions, those that wait in the pool for nothing. It returns nil where bytes are none.
func (a *App) decode(txs [][]byte) []*ledger.Tx {
	decoded := make([]*ledger.Tx, len(txs))
	for i, raw := range txs {
		if decoded[i] = a.pool.TxOf(raw); decoded[i] == nil {
			decoded[i], _ = ledger.Decode(raw)
		}
	}
	return decoded
}

func (a *App) executeDecoded(p proposal, decoded []*ledger.Tx) (*outcome, error) {
	base, release, err := a.base()
	if err != nil {
		return nil, err
	}
	defer release()
	began := time.Now()
	block, err := ledger.NewBlock(base, p.header, a.checked)
	if err != nil {
		return nil, err
	}
	o := &outcome{proposal: p, decoded: decoded, receipts: make([]ledger.Receipt, len(p.txs))}
	if err := a.verifyAhead(block, o.decoded); err != nil {
		return nil, err
	}
	for i, tx := range o.decoded {
		if tx == nil {
			o.receipts[i] = ledger.Receipt{Code: ledger.Malformed}
			continue
		}
		if o.receipts[i], err = block.Apply(tx); err != nil {
			return nil, fmt.Errorf("executing transaction %d of block %d: %w", i, p.header.Height, err)
		}
	}
	if o.Outcome, err = block.End(p.evidence, p.votes); err != nil {
		return nil, fmt.Errorf("closing block %d: %w", p.header.Height, err)
	}
	a.mu.Lock()
	a.figures.Execution = time.Since(began)
	a.figures.Executed++
	a.mu.Unlock()
	for _, id := range o.Broken {
		a.log.Error("refuse transaction that breaks an invariant: report this as a defect", "height", p.header.Height, "tx", id.String())
	}
	return o, nil
}

// verifyAhead verifies a block's unknown signatures in batches over all processors. Verdicts do not depend on it: a
// transaction whose policy changes earlier in the same block is verified again when it is applied.
func (a *App) verifyAhead(block *ledger.Block, txs []*ledger.Tx) error {
	var ahead []ledger.Authorization
	for _, tx := range txs {
		if tx == nil {
			continue
		}
		authorization, ok, err := block.Authorize(tx)
		if err != nil {
			return err
		}
		if ok {
			ahead = append(ahead, authorization)
		}
	}
	a.checked.VerifyMany(ahead, a.o.Workers)
	return nil
}

// keep remembers an executed proposal until its height is decided.
func (a *App) keep(o *outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) < maxKnown {
		a.known[o.key()] = o
	}
}

func (a *App) lookup(key crypto.Hash) *outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[key]
}

// PrepareProposal builds a block from the mempool. With nothing to propose it waits for a first transaction, which gives
// a lone transaction a block at once and an idle chain one block per interval; it does not wait when the last block had
// transactions, for their effect is provable only by the header after it.
//
// A transaction that makes the rules panic is dropped, and an empty block proposed: every pool has that transaction, and
// the chain would end if it stopped one proposer after the other.
func (a *App) PrepareProposal(_ context.Context, req *abci.RequestPrepareProposal) (answer *abci.ResponsePrepareProposal, err error) {
	var applying *ledger.Tx
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("propose an empty block, for building one made the rules panic: report this as a defect", "height", req.Height, "panic", r, "stack", string(debug.Stack()))
			if applying != nil {
				a.pool.Refused(applying.Hash(), ledger.BrokenInvariant)
			}
			answer, err = &abci.ResponsePrepareProposal{}, nil
		}
	}()
	a.mu.Lock()
	idle := a.last.Header.Height != 0 && a.last.Transactions == 0
	a.mu.Unlock()
	if idle && a.o.IdleBlockInterval > 0 {
		ctx, cancel := context.WithTimeout(a.done, a.o.IdleBlockInterval)
		a.pool.Wait(ctx)
		cancel()
	}
	p := newProposal(req.Height, req.Time, nil, req.Misbehavior, localVotesOf(req.LocalLastCommit))
	base, release, err := a.base()
	if err != nil {
		return nil, err
	}
	defer release()
	block, err := ledger.NewBlock(base, p.header, a.checked)
	if err != nil {
		return nil, err
	}
	o := &outcome{}
	operations := 0
	for _, raw := range a.pool.Propose(req.MaxTxBytes) {
		tx := a.pool.TxOf(raw)
		if tx == nil {
			continue // it has left the pool since
		}
		if operations += len(tx.Body.Operations); operations > a.o.MaxBlockOperations && len(p.txs) > 0 {
			break
		}
		applying = tx
		receipt, err := block.Apply(tx)
		if err != nil {
			return nil, fmt.Errorf("preparing block %d: %w", req.Height, err)
		}
		if receipt.Code.Refused() {
			a.pool.Refused(tx.Hash(), receipt.Code) // its payer ran out of funds, or time passed
			continue
		}
		p.txs = append(p.txs, raw)
		o.decoded, o.receipts = append(o.decoded, tx), append(o.receipts, receipt)
	}
	if o.Outcome, err = block.End(p.evidence, p.votes); err != nil {
		return nil, fmt.Errorf("preparing block %d: %w", req.Height, err)
	}
	o.proposal = p
	a.keep(o)
	return &abci.ResponsePrepareProposal{Txs: p.txs}, nil
}

// ProcessProposal accepts exactly the blocks that an honest proposer builds: those in which no transaction is refused,
// and which are not far larger than what anybody proposes (maxAcceptedOperations). What it executes it keeps for
// FinalizeBlock.
func (a *App) ProcessProposal(_ context.Context, req *abci.RequestProcessProposal) (answer *abci.ResponseProcessProposal, err error) {
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("reject proposal that made the rules panic: report this as a defect", "height", req.Height, "panic", r, "stack", string(debug.Stack()))
			answer, err = &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
		}
	}()
	p := newProposal(req.Height, req.Time, req.Txs, req.Misbehavior, votesOf(req.ProposedLastCommit))
	o := a.lookup(p.key())
	if o == nil {
		decoded, operations := a.decode(p.txs), 0
		for _, tx := range decoded {
			if tx != nil {
				operations += len(tx.Body.Operations)
			}
		}
		if operations > maxAcceptedOperations {
			a.log.Warn("reject proposal", "height", req.Height, "proposer", fmt.Sprintf("%X", req.ProposerAddress), "operations", operations, "at_most", maxAcceptedOperations)
			return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
		}
		if o, err = a.executeDecoded(p, decoded); err != nil {
			return nil, err
		}
		a.keep(o)
	}
	if i := o.refused(); i >= 0 {
		a.log.Warn("reject proposal", "height", req.Height, "proposer", fmt.Sprintf("%X", req.ProposerAddress), "transaction", i, "code", o.receipts[i].Code.String())
		return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
	}
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}
