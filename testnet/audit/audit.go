// Package audit finds out, after the fact and from outside, whether a network kept its promises. It talks to the nodes'
// RPC only and is written against the published formats: it shares none of the rules of package ledger, but has those of
// package reference.
//
// What it checks: every node has the same block, results and AppHash at every height; every payment that a client was told
// about stands in the chain exactly where and how the client was told, or not at all ([Claim]); no sequence or nonce is
// used twice; a second bookkeeping of all transactions predicts every receipt, and ends with the very rows that every
// node proves to be its whole state, journals of all lines included; a payment that was told final before another one was sent stands before it.
//
// What it cannot see: what never reached a block, and forks that no audited node is on.
package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"crypto/sha256"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Options say what to audit. All nodes must answer and hold the whole chain.
type Options struct {
	Nodes   []string // URLs
	Genesis *types.GenesisDoc
	Claims  []Claim
	// Height is the newest block to look at, 0: the lowest of the nodes' newest ones whose results are certain.
	Height uint64
	// Evidence allows blocks to hold evidence of misbehaviour.
	Evidence bool
}

// Report is what was found.
type Report struct {
	Nodes        int
	Height       uint64 // of the state that was audited
	Blocks       int
	Transactions int
	Failed       int // of them: no effect but for the fee
	Operations   int
	Rows         int // of the state, each compared with every node's proof
	Claims       map[Ending]int
	LongestGap   time.Duration // between two blocks' times
	GapHeight    uint64        // of the later of the two
	Evidence     int
	Faults       []error // nil: every promise was kept
}

// Err joins the faults.
func (r Report) Err() error { return errors.Join(r.Faults...) }

func (r *Report) fault(errs ...error) {
	for _, err := range errs {
		switch {
		case err == nil:
		case len(r.Faults) < maxFaults:
			r.Faults = append(r.Faults, err)
		case len(r.Faults) == maxFaults:
			r.Faults = append(r.Faults, errTooMany)
		}
	}
}

// Run audits. The error is for what kept it from looking; what it found wrong is in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	r := Report{Nodes: len(o.Nodes), Claims: map[Ending]int{}}
	network, err := genesis.NetworkOf(o.Genesis)
	if err != nil {
		return r, fmt.Errorf("genesis: %w", err)
	}
	books, err := newBook(o.Genesis)
	if err != nil {
		return r, fmt.Errorf("genesis: %w", err)
	}
	if len(o.Nodes) == 0 {
		return r, errors.New("no node to audit")
	}
	nodes := make([]*Node, len(o.Nodes))
	end := o.Height
	for i, url := range o.Nodes {
		if nodes[i], err = Open(url); err != nil {
			return r, err
		}
		s, err := nodes[i].Status(ctx)
		if err != nil {
			return r, err
		}
		if s.Earliest > network.InitialHeight {
			return r, fmt.Errorf("node %s has blocks from %d on only, an audit needs all from %d", url, s.Earliest, network.InitialHeight)
		}
		// A node tells of a block when it has stored it, and executes it then.
		if o.Height == 0 && (end == 0 || s.Height-1 < end) {
			end = s.Height - 1
		}
		if s.Height < end {
			return r, fmt.Errorf("node %s is at height %d, the audit is to end at %d", url, s.Height, end)
		}
	}
	if end <= network.InitialHeight {
		return r, fmt.Errorf("the chain has %d blocks, an audit needs two", end)
	}
	places := map[crypto.Hash][]place{}
	var last *Block
	for h := network.InitialHeight; h <= end; h++ {
		blocks := make([]*Block, len(nodes))
		errs := make([]error, len(nodes))
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() { blocks[i], errs[i] = n.Block(ctx, h) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return r, err
		}
		for i, b := range blocks[1:] {
			if err := blocks[0].same(b); err != nil {
				r.fault(fmt.Errorf("nodes %s and %s differ: %w", nodes[0].URL, nodes[i+1].URL, err))
			}
		}
		b := blocks[0]
		r.Blocks++
		r.Evidence += len(b.Evidence)
		if len(b.Evidence) > 0 && !o.Evidence {
			r.fault(fmt.Errorf("block %d holds evidence of misbehaviour: %s", h, b.Evidence[0]))
		}
		if last != nil {
			r.fault(b.Follows(last))
			if gap := b.Time.Sub(last.Time); last.Height > network.InitialHeight && gap > r.LongestGap { // genesis time is not a block's
				r.LongestGap, r.GapHeight = gap, h
			}
			// The header above has confirmed the results.
			r.fault(books.block(last.Height, last.Time, last.Txs, last.Results, last.Evidence)...)
			for i, raw := range last.Txs {
				if tx, err := ledger.Decode(raw); err == nil {
					id := tx.ID(network.ID)
					places[id] = append(places[id], place{last.Height, uint64(i), last.Results[i].Code, sha256.Sum256(raw)})
				}
			}
		}
		last = b
	}
	r.Height = end - 1
	r.Transactions, r.Failed, r.Operations = books.txs, books.failed, books.operations
	for _, c := range o.Claims {
		r.Claims[c.Ending]++
	}
	r.fault(settled(o.Claims, places, r.Height)...)
	rows := books.provable()
	r.Rows = len(rows)
	for _, n := range nodes {
		faults, err := books.proven(ctx, n.URL, o.Genesis, r.Height, rows)
		r.fault(faults...)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}
