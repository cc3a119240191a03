package app

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// FinalizeBlock executes the decided block, or takes the outcome that it has, builds its batch and returns its AppHash.
// It assumes nothing of what ProcessProposal saw: block sync and replay come without it. A panic or an error here stops
// the node: to go on would be to fork.
func (a *App) FinalizeBlock(_ context.Context, req *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	p := newProposal(req.Height, req.Time, req.Txs, req.Misbehavior, votesOf(req.DecidedLastCommit))
	o := a.lookup(p.key())
	if o == nil {
		var err error
		if o, err = a.execute(p); err != nil {
			return nil, err
		}
	}
	writes, entries := o.Writes, o.Entries
	a.mu.Lock()
	genesis := a.genesis
	a.mu.Unlock()
	if genesis != nil {
		writes = overwrite(genesis.outcome.Writes, writes)
		entries = append(slices.Clip(genesis.outcome.Entries), entries...)
	}
	network, err := a.Network()
	if err != nil {
		return nil, err
	}
	answer := &abci.ResponseFinalizeBlock{TxResults: make([]*abci.ExecTxResult, len(o.txs))}
	txs := make([]index.Tx, len(o.txs))
	ids, hashes := make([]crypto.Hash, len(o.txs)), make([]crypto.Hash, len(o.txs))
	posted, err := postedHolds(o)
	if err == nil {
		answer.Events, err = blockEvents(o.Entries)
	}
	if err != nil {
		return nil, fmt.Errorf("finalizing block %d: %w", req.Height, err)
	}
	for i, receipt := range o.receipts {
		data := receipt.Encode()
		answer.TxResults[i] = &abci.ExecTxResult{Code: uint32(receipt.Code), Data: data, Codespace: Codespace, Events: txEvents(o.decoded[i], receipt, posted)}
		if receipt.Code != ledger.OK {
			answer.TxResults[i].Log = receipt.Code.String()
		}
		txs[i] = index.Tx{Raw: o.txs[i], Code: uint32(receipt.Code), Data: data}
		if tx := o.decoded[i]; tx != nil {
			ids[i], hashes[i] = tx.ID(network.ID), tx.Hash()
		}
	}
	for _, v := range o.Updates {
		answer.ValidatorUpdates = append(answer.ValidatorUpdates, abci.ValidatorUpdate{PubKey: publicKey(v), Power: int64(v.Power)})
		a.logValidator(v, req.Height)
	}
	if err := a.logPowers(o.Writes, req.Height); err != nil {
		return nil, fmt.Errorf("finalizing block %d: %w", req.Height, err)
	}
	answer.Events = append(answer.Events, validatorEvents(o.Updates)...)
	note := encodeNote(lastBlock{o.header, uint32(len(o.txs))})
	rows, err := a.prune(network.ID)
	if err != nil {
		return nil, fmt.Errorf("finalizing block %d: %w", req.Height, err)
	}
	rows = append(rows, index.Rows(o.header.Height, txs, ids, hashes, entries)...)
	// A consensus engine that restarted without this process finalizes a height again: what it staged before goes.
	if err := a.store.Discard(); err != nil {
		return nil, fmt.Errorf("finalizing block %d again: %w", req.Height, err)
	}
	answer.AppHash, err = a.store.Stage(o.header.Height, writes, rows, note)
	if err != nil {
		return nil, fmt.Errorf("finalizing block %d: %w", req.Height, err)
	}
	a.mu.Lock()
	a.staged = o
	a.mu.Unlock()
	failpoint.Here("app.finalize")
	return answer, nil
}

// logValidator tells the operator what has become of a validator, and what to do where something is to be done.
func (a *App) logValidator(v ledger.Validator, height int64) {
	who := []any{"height", height, "validator", fmt.Sprintf("%X", v.Address()), "name", v.Name}
	switch status := v.Status(); {
	case status == "inactive":
		a.log.Warn("set validator inactive, which has missed too many blocks: when its node is back, its operator reactivates it", append(who, "power", v.InactivePower)...)
	case status == "tombstoned" && v.Tombstoned == uint64(height):
		a.log.Warn("remove validator for equivocation: its key was used twice, find out by whom", who...)
	case status == "active":
		a.log.Info("change the power of a validator", append(who, "power", v.Power)...)
	default:
		a.log.Info("remove validator", who...)
	}
}

// logPowers tells the operator where evidence or missed blocks have left powers to which no vote would have led.
func (a *App) logPowers(writes []ledger.Write, height int64) error {
	i := slices.IndexFunc(writes, func(w ledger.Write) bool { return bytes.Equal(w.Key, ledger.ValidatorsRow()) })
	if i < 0 {
		return nil
	}
	set, err := ledger.DecodeValidators(writes[i].Value)
	if err != nil {
		return fmt.Errorf("decoding the validators: %w", err)
	}
	if v, unsound := ledger.UnsoundPower(set); unsound {
		a.log.Warn("CometBFT takes this validator for a third of the power, and lets it fetch no old blocks: vote for another power of any validator before its node is stopped",
			"height", height, "validator", fmt.Sprintf("%X", v.Address()), "name", v.Name, "power", v.Power)
	}
	return nil
}

// Commit writes the finalized block: one batch, one sync. A crash before it loses nothing, for CometBFT replays the block.
func (a *App) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	a.committing.Lock()
	defer a.committing.Unlock()
	a.mu.Lock()
	o := a.staged
	a.mu.Unlock()
	if o == nil {
		return nil, fmt.Errorf("commit without a finalized block")
	}
	if err := a.store.Commit(); err != nil {
		return nil, fmt.Errorf("committing block %d: %w", o.header.Height, err)
	}
	failpoint.Here("app.commit")
	a.mu.Lock()
	a.last = lastBlock{o.header, uint32(len(o.txs))}
	a.genesis, a.staged = nil, nil
	a.note(o)
	clear(a.known)
	a.mu.Unlock()
	a.pool.Committed(o.header, o.took(), o.Writes)
	a.snapshotDue(o.header)
	if len(o.txs) > 0 {
		a.log.Info("commit block", "height", o.header.Height, "transactions", len(o.txs), "writes", len(o.Writes))
	} else {
		a.log.Debug("commit block", "height", o.header.Height, "transactions", 0)
	}
	if a.o.Retain != nil {
		// What is deleted below it is what the state just committed does not need: it is on the disk.
		a.retain.Store(a.o.Retain(o.header))
		a.store.Retain(a.retain.Load())
	}
	return &abci.ResponseCommit{RetainHeight: int64(a.retain.Load())}, nil
}

// pruneBlocks bounds the blocks whose rows of the index one block deletes. Each costs about what writing them has cost, so
// that a lowered policy does not stall a node that was an archive.
const pruneBlocks = 4

// prune returns the deletions of rows of the index that are no longer to be kept. They go with the block's batch.
func (a *App) prune(network crypto.Hash) ([]ledger.Write, error) {
	retain := a.retain.Load()
	if retain == 0 {
		return nil, nil
	}
	r := a.store.Index()
	defer r.Close()
	base, err := index.Base(r)
	if err != nil {
		return nil, err
	}
	base = max(base, a.store.InitialHeight())
	if base >= retain {
		return nil, nil
	}
	rows, err := index.Prune(r, base, min(retain, base+pruneBlocks), network)
	if err != nil {
		return nil, fmt.Errorf("pruning the index from block %d on: %w", base, err)
	}
	return rows, nil
}

// took returns the transactions that took effect or failed, in order.
func (o *outcome) took() []*ledger.Tx {
	var txs []*ledger.Tx
	for i, r := range o.receipts {
		if !r.Code.Refused() {
			txs = append(txs, o.decoded[i])
		}
	}
	return txs
}

// overwrite merges two sorted lists of writes; where both have a key, the second wins.
func overwrite(first, second []ledger.Write) []ledger.Write {
	merged := make([]ledger.Write, 0, len(first)+len(second))
	for len(first) > 0 && len(second) > 0 {
		switch c := bytes.Compare(first[0].Key, second[0].Key); {
		case c < 0:
			merged, first = append(merged, first[0]), first[1:]
		case c > 0:
			merged, second = append(merged, second[0]), second[1:]
		default:
			merged, first, second = append(merged, second[0]), first[1:], second[1:]
		}
	}
	return append(append(merged, first...), second...)
}
