// Package audit finds out, after the fact and from outside, whether a network kept its promises. It talks to the nodes'
// RPC only and is written against the published formats: it decodes transactions and receipts with package ledger, and
// shares none of its rules.
//
// What it checks: every node has the same block, results and AppHash at every height; every payment that a client was told
// about stands in the chain exactly where and how the client was told, or not at all ([Claim]); no sequence or nonce is
// used twice; a second bookkeeping of all transactions predicts every receipt, balances at every height, and ends with the
// counters that every node can prove; a payment that was told final before another one was sent stands before it.
//
// What it cannot see: what never reached a block, and forks that no audited node is on.
package audit

import (
	"context"
	"errors"
	"fmt"
	"math/big"
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
	Lines        int // compared with every node's proof
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
	books, err := newBook(o.Genesis, network.ID)
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
			r.fault(books.block(last.Height, last.Time, last.Txs, last.Results)...)
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
	r.Lines = len(books.lines)
	for _, n := range nodes {
		faults, err := books.proven(ctx, n.URL, o.Genesis, r.Height)
		r.fault(faults...)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// proven compares every line and account with what one node proves about them at a height.
func (b *book) proven(ctx context.Context, url string, doc *types.GenesisDoc, height uint64) (faults []error, err error) {
	c, err := client.Dial(ctx, client.Options{Nodes: []string{url}, Genesis: doc})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", url, err)
	}
	keys := make([]ledger.LineKey, 0, len(b.lines))
	for k := range b.lines {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y ledger.LineKey) int { return slices.Compare(x.Account[:], y.Account[:]) })
	for _, k := range keys {
		line, err := c.Line(ctx, k, height)
		if err != nil {
			return faults, err
		}
		want, got := b.lines[k], line.Value
		if number(got.DebitsPosted).Cmp(want.debits) != 0 || number(got.CreditsPosted).Cmp(want.credits) != 0 || !got.DebitsPending.IsZero() || !got.CreditsPending.IsZero() {
			faults = append(faults, fmt.Errorf("node %s proves that %s has debits %s and credits %s at height %d, the book has %s and %s",
				url, k.Account, got.DebitsPosted, got.CreditsPosted, height, want.debits, want.credits))
		}
	}
	for address, want := range b.accounts {
		account, err := c.Account(ctx, address, height)
		if err != nil {
			return faults, err
		}
		if got := account.Value; !account.Present || got.Sequence != want.sequence || got.PolicyVersion != want.version || got.Policy != want.policy.Hash() {
			faults = append(faults, fmt.Errorf("node %s proves that %s has sequence %d and policy version %d at height %d, the book has %d and %d",
				url, address, got.Sequence, got.PolicyVersion, height, want.sequence, want.version))
		}
	}
	return faults, nil
}

// Balance is what the book says an account has; for tests of the audit itself.
func (b *book) balance(k ledger.LineKey) *big.Int {
	l := b.lines[k]
	if l == nil {
		return new(big.Int)
	}
	return new(big.Int).Sub(l.credits, l.debits)
}
