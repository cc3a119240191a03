// Package node runs one Pacioli node: CometBFT, the application and the RPC server in one process over one home folder.
//
// Order of starting: lock the folder, open the application, start CometBFT (which replays what the application is
// missing), serve. Order of stopping: stop serving, stop CometBFT, close the application, close CometBFT's databases,
// release the lock. A node whose consensus has stopped ends its process with an error: a node that answers and does not
// advance is worse than none.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cometbft/cometbft/consensus"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	cmtnode "github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	rpccore "github.com/cometbft/cometbft/rpc/core"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Node is a running node.
type Node struct {
	home   Home
	config Config
	log    *slog.Logger
	app    *app.App
	comet  *cmtnode.Node
	server *server

	environment *rpccore.Environment // what CometBFT's RPC works on
	consensus   *consensus.State

	advanced atomic.Int64 // Unix nanoseconds at which the height was last seen to rise
	height   atomic.Uint64
	begun    atomic.Uint64 // height at the start: a node that has only what it had then may be alone

	failOnce sync.Once
	failed   chan error // the first fatal failure
	cause    atomic.Pointer[string]
}

// Run runs the node in home until ctx ends, which is a clean stop and returns nil, or until it fails. ready, if not nil,
// is called once the node serves, with the address of its RPC.
func Run(ctx context.Context, home Home, c Config, log *slog.Logger, version string, ready func(rpcAddress string)) (err error) {
	if err := c.Check(); err != nil {
		return fmt.Errorf("%s: %w", home.Config(), err)
	}
	release, err := home.lock()
	if err != nil {
		return err
	}
	defer release()
	doc, err := genesis.Load(home.Genesis())
	if err != nil {
		return err
	}
	pv, err := home.loadValidator()
	if err != nil {
		return err
	}
	nodeKey, err := p2p.LoadNodeKey(home.NodeKey())
	if err != nil {
		return fmt.Errorf("reading the node key: %w", err)
	}
	n := &Node{home: home, config: c, log: log, failed: make(chan error, 1)}
	n.advanced.Store(time.Now().UnixNano())

	n.app, err = app.New(app.Options{
		Dir: home.App(), Version: version, Logger: log, Mempool: c.pool(),
		IdleBlockInterval: time.Duration(c.Consensus.IdleBlockInterval),
		Store: store.Options{CacheBytes: int64(c.Store.CacheMB) << 20, TreeCacheNodes: c.Store.TreeCacheNodes, KeepVersions: c.Store.KeepVersions,
			InitialHeight: uint64(doc.InitialHeight), OnFatal: func(err error) { n.die(fmt.Errorf("the application's database failed: %w", err)) }},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.app.Close()) }()
	if err := n.checkNetwork(doc); err != nil {
		return err
	}

	cc, err := c.Comet(string(home))
	if err != nil {
		return err
	}
	databases := cometdb.Provider(home.Data(), cometdb.Options{Logger: log, OnFatal: func(name string, err error) { n.die(fmt.Errorf("CometBFT's database %s failed: %w", name, err)) }})
	defer func() { err = errors.Join(err, databases.Close()) }()
	level, _ := logLevel(c.Log.CometBFT)
	logger := cometLogger{log: log, level: level, stopped: func(cause string) { n.fail(fmt.Errorf("consensus has stopped: %s", cause)) }}
	publicKey, err := pv.GetPubKey()
	if err != nil {
		return fmt.Errorf("reading the validator's key: %w", err)
	}
	signer := &guard{PrivValidator: pv, address: publicKey.Address(), signed: pv.LastSignState.Height, look: c.Consensus.DoubleSignCheckHeight,
		commit: func(h int64) *types.Commit { return n.comet.BlockStore().LoadSeenCommit(h) }, decided: n.decided, forbidden: n.fail, own: map[int64][][]byte{}}
	n.comet, err = cmtnode.NewNodeWithContext(ctx, cc, signer, nodeKey,
		app.ClientCreator(n.app, func(call string, cause any) { n.fail(fmt.Errorf("%s failed: %v", call, cause)) }),
		func() (*types.GenesisDoc, error) { return doc, nil },
		databases.Open, cmtnode.DefaultMetricsProvider(cc.Instrumentation), logger)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("building the consensus node: %w", err)
	}
	if err := n.checkStoredGenesis(doc); err != nil {
		return err
	}
	if n.environment, err = n.comet.ConfigureRPC(); err != nil {
		return fmt.Errorf("preparing CometBFT's RPC: %w", err)
	}
	n.consensus = n.environment.ConsensusState.(*consensus.State) // a node's is always this one; a panic says that CometBFT has changed
	n.begun.Store(n.app.Last().Height)                            // with what was replayed
	n.height.Store(n.begun.Load())
	if n.server, err = n.serve(); err != nil {
		return err
	}
	defer n.server.close()
	log.Info("start node", "home", string(home), "chain", doc.ChainID, "height", n.app.Store().Height(), "node_id", string(nodeKey.ID()),
		"validator", publicKey.Address().String(), "key_type", publicKey.Type(), "rpc", n.server.address, "p2p", c.P2P.Listen, "version", version)
	if err := n.comet.Start(); err != nil {
		return fmt.Errorf("starting the consensus node: %w", err)
	}
	watch, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	go n.watch(watch)
	if ready != nil {
		ready(n.server.address)
	}
	if atStart != nil {
		atStart(n)
	}
	select {
	case <-ctx.Done():
		log.Info("stop node", "height", n.app.Last().Height)
	case err = <-n.failed:
		log.Error("stop node", "height", n.app.Last().Height, "err", err)
	}
	n.server.close()
	stopped := make(chan struct{})
	go func() { // Stop itself waits for consensus, which may hang in a call to a broken disk
		defer close(stopped)
		if stopErr := n.comet.Stop(); stopErr != nil {
			log.Error("stop the consensus node", "err", stopErr)
		}
		n.comet.Wait()
	}()
	select {
	case <-stopped:
	case <-time.After(stopPatience):
		// Consensus that panicked may never finish stopping. Everything durable is in databases that survive a kill.
		log.Warn("the consensus node does not stop; leave it", "after", stopPatience.String())
	}
	return err
}

// atStart is called with a node that has started; nil but in tests.
var atStart func(*Node)

// stopPatience is how long a stopping node waits for CometBFT. A container engine kills after 10 s by default.
const stopPatience = 8 * time.Second

// fail records the first fatal failure, which ends Run.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		text := err.Error()
		n.cause.Store(&text)
		n.failed <- err
	})
}

// die ends the process at once, for a database that no longer knows what is on its disk: the goroutine that found out holds
// the database's locks and will not give them back, so nothing can be closed. It is a crash, which the databases survive.
func (n *Node) die(err error) {
	n.log.Error("end the process at once; look at the disk, then start again", "err", err)
	exit(1)
}

// exit is os.Exit but in tests.
var exit = os.Exit

// decided tells the guard whether a round of the present height has a decision. Consensus itself calls it, under its lock,
// so its state is read as it stands.
func (n *Node) decided(height int64, round int32) bool {
	rs := &n.consensus.RoundState
	if rs.Height != height || rs.Votes == nil {
		return false
	}
	precommits := rs.Votes.Precommits(round)
	if precommits == nil {
		return false
	}
	id, ok := precommits.TwoThirdsMajority()
	return ok && !id.IsZero()
}

// checkNetwork refuses a data folder that belongs to another network than the genesis file.
func (n *Node) checkNetwork(doc *types.GenesisDoc) error {
	if n.app.Store().Height() == 0 {
		return nil
	}
	have, err := n.app.Network()
	if err != nil {
		return fmt.Errorf("reading which network the state belongs to: %w", err)
	}
	want, err := genesis.NetworkOf(doc)
	if err != nil {
		return err
	}
	if have != want {
		return fmt.Errorf("the data in %s belongs to chain %s, network %s; %s describes chain %s, network %s: choose the right --home, or put the right genesis file there",
			n.home.App(), have.ChainID, have.ID, n.home.Genesis(), want.ChainID, want.ID)
	}
	return nil
}

// checkStoredGenesis compares the genesis file with the one that CometBFT put into its database at the very first start and
// has used ever since. Whoever starts a node with a draft, waits in vain for a block, and puts the final file there, would
// run on the draft.
func (n *Node) checkStoredGenesis(doc *types.GenesisDoc) error {
	used, err := cmtjson.Marshal(n.comet.GenesisDoc())
	if err != nil {
		return fmt.Errorf("encoding the genesis that CometBFT has stored: %w", err)
	}
	file, err := cmtjson.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encoding genesis: %w", err)
	}
	if bytes.Equal(used, file) {
		return nil
	}
	if n.app.Store().Height() == 0 {
		return fmt.Errorf("%s has changed since this node was first started, and CometBFT keeps to what it read then: no block was committed yet, so remove everything in %s but %s, and start again",
			n.home.Genesis(), n.home.Data(), filepath.Base(n.home.SignState()))
	}
	n.log.Warn("the genesis file differs from what this node began with, in what does not make another network; the file has no effect", "file", n.home.Genesis())
	return nil
}

// watch notes when the height rises.
func (n *Node) watch(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if h := n.app.Last().Height; h != n.height.Load() {
				n.height.Store(h)
				n.advanced.Store(time.Now().UnixNano())
			}
		}
	}
}
