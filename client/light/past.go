package light

import (
	"context"
	"errors"
	"fmt"
	"sync"

	cmtmath "github.com/cometbft/cometbft/libs/math"
	"github.com/cometbft/cometbft/light/provider"
	"github.com/cometbft/cometbft/types"
)

// pastWorkers is how many headers Past fetches at once: enough that the way to a node far away is not what it waits for.
const pastWorkers = 8

// pastTrust is the part of the newest trusted validators' power that must have signed an old block.
var pastTrust = cmtmath.Fraction{Numerator: 2, Denominator: 3}

// Past returns the verified headers of many heights at once, however long they have gone by; none of them is kept in the
// store. It is for times of old blocks, of which Header would have to walk thousands of hash links to each.
//
// A block is taken when more than two thirds of the power of the newest trusted validators signed it. Whoever could forge
// one could forge the newest block as well, so nothing more is trusted than Header does. Where the validators are others
// by now, and for heights above all that is verified, it does what Header does. Endpoints are compared as ever. The caller
// bounds the heights: all of the headers are in memory.
func (c *Client) Past(ctx context.Context, heights []uint64) ([]Header, error) {
	blocks := make([]*types.LightBlock, len(heights))
	c.mu.Lock()
	defer c.mu.Unlock()
	latest, err := c.store.latest()
	if err != nil {
		return nil, err
	}
	var old []int
	for i, h := range heights {
		if h == 0 || h > 1<<62 {
			return nil, fmt.Errorf("header at height %d: want a height above 0", h)
		}
		if block, err := c.store.LightBlock(int64(h)); err == nil {
			blocks[i] = block
		} else if latest != nil && int64(h) < latest.Height && !c.expired(latest) {
			old = append(old, i)
		}
	}
	if len(old) != 0 {
		err := c.attempt(ctx, int64(heights[old[len(old)-1]]), func(asked []*endpoint) error {
			return c.signedBy(ctx, asked, latest.ValidatorSet, heights, old, blocks)
		})
		if err != nil {
			return nil, fmt.Errorf("headers from height %d to %d: %w", heights[old[0]], heights[old[len(old)-1]], err)
		}
	}
	headers := make([]Header, len(heights))
	for i, block := range blocks {
		if block == nil {
			if block, err = c.verified(ctx, int64(heights[i])); err != nil {
				return nil, fmt.Errorf("header at height %d: %w", heights[i], err)
			}
		}
		headers[i] = newHeader(block)
	}
	return headers, nil
}

// signedBy fetches those blocks of which the indices are in old and that are not there yet, and takes them when the
// validators signed them. One that too few of them signed stays nil.
func (c *Client) signedBy(ctx context.Context, asked []*endpoint, validators *types.ValidatorSet, heights []uint64, old []int,
	blocks []*types.LightBlock) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(pastWorkers, len(old)) {
		wg.Go(func() {
			for i := range work {
				var err error
				if blocks[i], err = c.signedAt(ctx, asked, validators, int64(heights[i])); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, i := range old {
		if blocks[i] != nil {
			continue // an earlier attempt has it
		}
		select {
		case work <- i:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

func (c *Client) signedAt(ctx context.Context, asked []*endpoint, validators *types.ValidatorSet, height int64) (block *types.LightBlock, err error) {
	var from *endpoint
	defer func() {
		// Blocks of strangers are verified here, by code that panics on what it thinks impossible.
		if r := recover(); r != nil {
			block, err = nil, from.wrong(fmt.Errorf("block %d: %v", height, r))
		}
	}()
	for _, e := range asked {
		shown, err := e.LightBlock(ctx, height)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && block == nil { // those of the others are only compared
			from, block = e, shown
		}
	}
	if block == nil {
		return nil, provider.ErrNoResponse
	}
	if err := verifyCommit(c.options.ChainID, block); err != nil {
		return nil, from.wrong(fmt.Errorf("block %d: %w", height, err))
	}
	err = validators.VerifyCommitLightTrusting(c.options.ChainID, block.Commit, pastTrust)
	if _, others := errors.AsType[types.ErrNotEnoughVotingPowerSigned](err); others {
		return nil, nil
	}
	if err != nil {
		return nil, from.wrong(fmt.Errorf("block %d: %w", height, err))
	}
	return block, nil
}
