// Package audit finds out, after the fact and from outside, whether a network kept its promises. It talks to the nodes'
// RPC only and is written against the published formats: it shares none of the rules of package ledger, but has those of
// package reference.
//
// What it checks: every node has the same block, results and AppHash at every height; every payment that a client was told
// about stands in the chain exactly where and how the client was told, or not at all ([Claim]); no sequence or nonce is
// used twice; no validator signed two blocks at one height; what clients were proven was true at its height, and never older than before; a second bookkeeping of all transactions, votes and evidence predicts every receipt and every set of validators, and ends with the very rows that every
// node proves to be its whole state, journals of all lines included; a payment that was told final before another one was sent stands before it.
//
// What it cannot see: what never reached a block, and forks that no audited node is on.
package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"crypto/sha256"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Options say what to audit. All nodes must answer, and one of them must hold the whole chain; of the others, which may have
// begun with a snapshot or pruned, what they hold is compared.
type Options struct {
	Nodes   []string // URLs
	Genesis *types.GenesisDoc
	Claims  []Claim
	// Height is the newest block to look at, 0: the lowest of the nodes' newest ones whose results are certain.
	Height uint64
	// Guilty are the addresses of validators that were made to sign twice: evidence against anybody else is a fault.
	Guilty [][]byte
	// Reads are what clients were proven, each client's and node's in the order in which they were made.
	Reads []Read
	// Commits are what nodes have shown as the signatures of a block while it was their newest one. Each node keeps what came
	// to it; the block above tells only what came to its proposer.
	Commits []*types.Commit
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
	Reads        int     // compared with the second bookkeeping at their height
	Commits      int     // looked through for a validator that signed twice
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
	from := make([]uint64, len(o.Nodes)) // where a node's blocks begin
	whole := -1                          // a node with all of them
	end := o.Height
	for i, url := range o.Nodes {
		if nodes[i], err = Open(url); err != nil {
			return r, err
		}
		s, err := nodes[i].Status(ctx)
		if err != nil {
			return r, err
		}
		if from[i] = s.Earliest; whole < 0 && s.Earliest <= network.InitialHeight {
			whole = i
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
	if whole < 0 {
		return r, fmt.Errorf("no node has all blocks from %d on, which an audit needs: they begin at %d", network.InitialHeight, from)
	}
	reads := map[uint64][]Read{}
	for _, read := range o.Reads {
		reads[read.Height] = append(reads[read.Height], read)
	}
	commits := slices.Clone(o.Commits)
	places := map[crypto.Hash][]place{}
	var last *Block
	for h := network.InitialHeight; h <= end; h++ {
		blocks := make([]*Block, len(nodes))
		errs := make([]error, len(nodes))
		var wg sync.WaitGroup
		for i, n := range nodes {
			if h < from[i] {
				continue
			}
			wg.Go(func() {
				for range 4 { // a machine that does too much may be late with an answer
					if blocks[i], errs[i] = n.Block(ctx, h); errs[i] == nil || ctx.Err() != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return r, err
		}
		b := blocks[whole]
		for i, other := range blocks {
			if other == nil {
				continue
			}
			if err := b.Same(other); err != nil {
				r.fault(fmt.Errorf("nodes %s and %s differ: %w", nodes[whole].URL, nodes[i].URL, err))
			}
		}
		commits = append(commits, b.LastCommit)
		r.Blocks++
		r.Evidence += len(b.Evidence)
		r.fault(innocent(b, o.Guilty)...)
		if last != nil {
			r.fault(b.Follows(last))
			if gap := b.Time.Sub(last.Time); last.Height > network.InitialHeight && gap > r.LongestGap { // genesis time is not a block's
				r.LongestGap, r.GapHeight = gap, h
			}
			// The header above has confirmed the results.
			r.fault(books.elected(last))
			r.fault(books.block(last.Height, last.Time, last.Txs, last.Results, last.Evidence, last.LastCommit)...)
			if of := reads[last.Height]; len(of) > 0 {
				r.fault(readTrue(of, books.provable())...)
				r.Reads += len(of)
			}
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
	r.fault(monotonic(o.Reads)...)
	for _, n := range nodes {
		c, err := n.Commit(ctx)
		if err != nil {
			return r, err
		}
		commits = append(commits, c)
	}
	r.Commits = len(commits)
	r.fault(signedTwice(commits, o.Guilty)...)
	rows := books.provable()
	r.Rows = len(rows)
	for i, n := range nodes {
		// Who has not the first block cannot show how genesis leads to the last one, in which all nodes agree.
		var trust *client.Trust
		if from[i] > network.InitialHeight {
			trust = &client.Trust{Height: last.Height, Hash: last.Hash}
		}
		faults, err := books.proven(ctx, n.URL, o.Genesis, trust, r.Height, rows)
		r.fault(faults...)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// innocent tells which evidence in a block is against a validator that should not have signed twice.
func innocent(b *Block, guilty [][]byte) (faults []error) {
	for _, e := range b.Evidence {
		var named [][]byte
		switch e := e.(type) {
		case *types.DuplicateVoteEvidence:
			named = [][]byte{e.VoteA.ValidatorAddress}
		case *types.LightClientAttackEvidence:
			for _, v := range e.ByzantineValidators {
				named = append(named, v.Address)
			}
		}
		for _, address := range named {
			if !slices.ContainsFunc(guilty, func(g []byte) bool { return bytes.Equal(g, address) }) {
				faults = append(faults, fmt.Errorf("block %d holds evidence that validator %X signed twice: %s", b.Height, address, e))
			}
		}
	}
	return faults
}
