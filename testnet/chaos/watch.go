package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
	"github.com/pacioli-ledger/pacioli/testnet/load"
)

const (
	// watchEvery is the pause between two looks at a node: short of a block every time, and far more often than a fault.
	watchEvery = 300 * time.Millisecond
	// watchPatience bounds one read. A client waits longer for a node that is behind what it has read before.
	watchPatience = 5 * time.Second
	// watchBack is how far behind the newest height a read of the past is.
	watchBack = 20
)

// watch has one client for each node, and one for all of them, read payers' accounts and balances until the returned function
// is called, and collects what each node shows as the signatures of its newest block.
func (r *run) watch(ctx context.Context, all *client.Client, payers []*load.Payer) (stop func(), err error) {
	parameters, err := all.Parameters(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the parameters: %w", err)
	}
	var keys [][]byte
	for _, p := range payers {
		keys = append(keys, ledger.AccountRow(p.Address), ledger.LineRow(ledger.LineKey{Account: p.Address, Asset: parameters.Value.FeeAsset}))
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	for i, url := range r.net.urls() {
		one, err := client.Dial(ctx, client.Options{Nodes: []string{url}, Genesis: r.net.doc()})
		if err != nil {
			cancel()
			return nil, err
		}
		watching.Go(func() { r.look(ctx, "of-"+r.name[i], r.name[i], one, keys, r.o.Seed+uint64(i)+1) })
		watching.Go(func() { r.collect(ctx, r.nodes[i]) })
	}
	watching.Go(func() { r.look(ctx, "of-all", "all", all, keys, r.o.Seed) })
	return func() { cancel(); watching.Wait() }, nil
}

// look reads rows one after another. What a client is not told is no read.
func (r *run) look(ctx context.Context, name, node string, c *client.Client, keys [][]byte, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0x7265616473))
	newest := uint64(0)
	for ; ctx.Err() == nil; sleep(ctx, watchEvery) {
		key, height := keys[random.IntN(len(keys))], uint64(0)
		if newest > watchBack && random.IntN(5) == 0 {
			height = newest - random.Uint64N(watchBack)
		}
		asking, cancel := context.WithTimeout(ctx, watchPatience)
		p, err := c.Row(asking, key, height)
		cancel()
		if err != nil {
			continue
		}
		newest = max(newest, p.Height)
		r.mu.Lock()
		r.reads = append(r.reads, audit.Read{Client: name, Node: node, Key: key, Value: p.Value, Present: p.Present, Height: p.Height, Chosen: height != 0})
		r.mu.Unlock()
	}
}

// collect keeps what a node shows as the signatures of its newest block.
func (r *run) collect(ctx context.Context, n *audit.Node) {
	last := int64(0)
	for ; ctx.Err() == nil; sleep(ctx, watchEvery) {
		asking, cancel := context.WithTimeout(ctx, watchPatience)
		c, err := n.Commit(asking)
		cancel()
		if err != nil || c == nil || c.Height == last {
			continue
		}
		last = c.Height
		r.mu.Lock()
		r.commits = append(r.commits, c)
		r.mu.Unlock()
	}
}
