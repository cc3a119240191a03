package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

const (
	// followEvery is the pause between two looks for new blocks. Asking once for everybody's payments, instead of once
	// for each, is what lets two cores carry four validators and their load.
	followEvery = 200 * time.Millisecond
	// maxStep bounds the blocks that are fetched to one verified header: they are held until their chain is checked.
	maxStep = 200
)

// follower reads the chain block by block and believes none of the nodes: the newest header comes from the light client,
// the blocks below it are linked to it by their hashes, and transactions and results hash into the headers.
type follower struct {
	client *client.Client
	nodes  []*audit.Node
	turn   int
	last   *audit.Block // newest block that a verified header stands on
}

// begin takes the newest block that is certain as the beginning.
func (f *follower) begin(ctx context.Context) error {
	header, err := f.client.Headers().Latest(ctx)
	if err != nil {
		return err
	}
	if header.Height < 2 {
		if header, err = f.client.Headers().Header(ctx, 2); err != nil {
			return err
		}
	}
	blocks, err := f.fetch(ctx, header.Height-1, header.Height-1)
	if err != nil {
		return err
	}
	f.last = blocks[0]
	return below(f.last, header)
}

// below checks that a block with its results is the one that a verified header stands on.
func below(b *audit.Block, header light.Header) error {
	if !bytes.Equal(b.Hash, header.Block.LastBlockID.Hash) || !bytes.Equal(b.ResultsHash, header.LastResultsHash) {
		return fmt.Errorf("block %d has hash %X and results hash %X, the verified header above it says %X and %X", b.Height, b.Hash, b.ResultsHash,
			header.Block.LastBlockID.Hash, header.LastResultsHash)
	}
	return nil
}

// step returns the blocks that have become certain, with their results, since the last call: a block is once the header
// above it is.
func (f *follower) step(ctx context.Context) ([]*audit.Block, error) {
	header, err := f.client.Headers().Latest(ctx)
	if err != nil {
		return nil, err
	}
	if header.Height > f.last.Height+1+maxStep {
		if header, err = f.client.Headers().Header(ctx, f.last.Height+1+maxStep); err != nil {
			return nil, err
		}
	}
	if header.Height <= f.last.Height+1 {
		return nil, nil
	}
	blocks, err := f.fetch(ctx, f.last.Height+1, header.Height-1)
	if err != nil {
		return nil, err
	}
	last := f.last
	for _, b := range blocks {
		if err := b.Follows(last); err != nil {
			return nil, err
		}
		last = b
	}
	if err := below(last, header); err != nil {
		return nil, err
	}
	f.last = last
	return blocks, nil
}

// fetch reads blocks from the first node that has all of them.
func (f *follower) fetch(ctx context.Context, from, to uint64) ([]*audit.Block, error) {
	var errs []error
	for range f.nodes {
		n := f.nodes[f.turn%len(f.nodes)]
		blocks := make([]*audit.Block, 0, to-from+1)
		var err error
		for h := from; h <= to && err == nil; h++ {
			var b *audit.Block
			if b, err = n.Block(ctx, h); err == nil {
				blocks = append(blocks, b)
			}
		}
		if err == nil {
			return blocks, nil
		}
		f.turn++
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}
