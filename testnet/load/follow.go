package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
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
// those below it are linked to it by their hashes, and transactions and results hash into the headers.
type follower struct {
	client *client.Client
	nodes  []*audit.Node
	turn   int
	last   *audit.Block // newest block that is linked to a verified header
}

// begin takes the newest block as the beginning.
func (f *follower) begin(ctx context.Context) error {
	header, err := f.client.Headers().Latest(ctx)
	if err != nil {
		return err
	}
	blocks, err := f.fetch(ctx, header.Height, header.Height)
	if err != nil {
		return err
	}
	if !bytes.Equal(blocks[0].Hash, header.Hash) {
		return fmt.Errorf("block %d has hash %X, its verified header %X", header.Height, blocks[0].Hash, header.Hash)
	}
	f.last = blocks[0]
	return nil
}

// step returns the blocks that have become final in every part since the last call: the results of a block are known for
// certain once the header above it is.
func (f *follower) step(ctx context.Context) ([]*audit.Block, error) {
	header, err := f.client.Headers().Latest(ctx)
	if err != nil {
		return nil, err
	}
	if header.Height > f.last.Height+maxStep {
		if header, err = f.client.Headers().Header(ctx, f.last.Height+maxStep); err != nil {
			return nil, err
		}
	}
	if header.Height <= f.last.Height {
		return nil, nil
	}
	blocks, err := f.fetch(ctx, f.last.Height+1, header.Height)
	if err != nil {
		return nil, err
	}
	chain := append([]*audit.Block{f.last}, blocks...)
	for i, b := range blocks {
		if err := b.Follows(chain[i]); err != nil {
			return nil, err
		}
	}
	newest := blocks[len(blocks)-1]
	if !bytes.Equal(newest.Hash, header.Hash) {
		return nil, fmt.Errorf("block %d has hash %X, its verified header %X", header.Height, newest.Hash, header.Hash)
	}
	f.last = newest
	return chain[:len(chain)-1], nil
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
