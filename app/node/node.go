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
	cmtstate "github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Node is a running node.
type Node struct {
	home    Home
	config  Config
	chainID string
	log     *slog.Logger
	app     *app.App
	comet   *cmtnode.Node
	server  *server

	version   string
	databases *cometdb.Databases        // CometBFT's
	backups   sync.Mutex                // held while a backup is made
	retention atomic.Pointer[retention] // nil while CometBFT replays blocks at the start
	disk      *disk

	environment *rpccore.Environment // what CometBFT's RPC works on
	consensus   *consensus.State

	advanced atomic.Int64 // Unix nanoseconds at which the height was last seen to rise
	height   atomic.Uint64
	begun    atomic.Uint64 // height at the start: a node that has only what it had then may be alone

	keyLock   atomic.Pointer[os.File] // of a validator key that was taken into use while the node ran
	badNext   string                  // the last complaint about the file of the next key
	begin     cmtstate.State          // CometBFT's state before the node starts: where consensus is until there is consensus
	clock     clock
	free      atomic.Uint64                           // bytes on the disk of the data, as last asked
	validator atomic.Pointer[ledger.ConsensusAddress] // of the key that this node signs with

	sizeMu sync.Mutex // guards the two below
	size   float64    // of the data, as last walked
	sizeAt time.Time

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
	for _, variable := range []string{failpoint.Variable, "FAIL_TEST_INDEX"} { // ours, and CometBFT's
		if at, set := os.LookupEnv(variable); set {
			log.Warn("this variable is for tests: it kills the node, as kill -9 would, when it comes to the point that it names; unset it and start again", "variable", variable, "point", at)
		}
	}
	release, err := home.lock()
	if err != nil {
		return err
	}
	defer release()
	n := &Node{home: home, config: c, log: log, version: version, failed: make(chan error, 1)}
	defer func() { n.keyLock.Load().Close() }() // nil: an error that nobody needs
	doc, err := genesis.Load(home.Genesis())
	if err != nil {
		return err
	}
	n.chainID = doc.ChainID
	pv, err := home.loadValidator()
	if err != nil {
		return err
	}
	nodeKey, err := p2p.LoadNodeKey(home.NodeKey())
	if err != nil {
		return fmt.Errorf("reading the node key: %w", err)
	}
	if err := n.checkDisk(); err != nil {
		return err
	}
	n.advanced.Store(time.Now().UnixNano())

	// What a killed process has left of a snapshot that it took.
	if err := home.sweepRestored(); err != nil {
		return err
	}
	network, err := genesis.NetworkOf(doc)
	if err != nil {
		return err
	}
	source := home.headers(doc, c.StateSync.source(), log)
	snapshots := app.SnapshotOptions{Dir: home.Snapshots(), Interval: c.Snapshot.Interval, Keep: c.Snapshot.Keep, Network: network.ID, BlockTime: source.time}
	if c.StateSync.Enable {
		snapshots.Restore = home.restoring()
	}
	n.app, err = app.New(app.Options{
		Snapshots: snapshots,
		Dir:       home.App(), Version: version, Logger: log, Mempool: c.pool(),
		IdleBlockInterval: time.Duration(c.Consensus.IdleBlockInterval),
		Store: store.Options{CacheBytes: int64(c.Store.CacheMB) << 20, TreeCacheNodes: c.Store.TreeCacheNodes, KeepVersions: c.Store.KeepVersions,
			InitialHeight: uint64(doc.InitialHeight), OnFatal: func(err error) { n.die(stop("database_failed", "the application's database failed: %w", err)) }},
		Retain: n.retain,
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
	databases := cometdb.Provider(home.Data(), cometdb.Options{Logger: log, OnFatal: func(name string, err error) {
		n.die(stop("database_failed", "CometBFT's database %s failed: %w", name, err))
	}})
	defer func() { err = errors.Join(err, databases.Close()) }()
	n.databases = databases
	if done, err := n.stateSync(ctx, databases, source); !done || err != nil {
		return err
	}
	if err := follow(ctx, databases, n.app.Store().Height(), n.app.Store().AppHash(), source); err != nil {
		return err
	}
	level, _ := logLevel(c.Log.CometBFT)
	logger := cometLogger{log: log, level: level, stopped: func(cause error) { n.fail(stop("consensus_stopped", "%w", cause)) }}
	if _, states, err := openComet(databases); err != nil {
		return err
	} else if n.begin, err = states.Load(); err != nil {
		return fmt.Errorf("reading CometBFT's state: %w", err)
	}
	if err := checkClock(n.begin, time.Now(), time.Duration(c.Node.MaxClockOffset)); err != nil {
		return err
	}
	if n.begin.IsEmpty() {
		if n.begin, err = cmtstate.MakeGenesisState(doc); err != nil {
			return fmt.Errorf("genesis: %w", err)
		}
	}
	signer := &guard{PrivValidator: pv, address: pv.Key.Address, signed: pv.LastSignState.Height, look: c.Consensus.DoubleSignCheckHeight,
		commit: func(h int64) *types.Commit { return n.comet.BlockStore().LoadSeenCommit(h) }, decided: n.decided, forbidden: n.mayNotSign, prevote: home.lastPrevote(), again: n.voteAgain, own: map[int64][][]byte{},
		round: n.round, promote: n.takeUp(pv)}
	n.lookForNext(signer)
	publicKey, err := signer.GetPubKey() // which changes over to a key that has come into the set while the node was down
	if err != nil {
		return err
	}
	n.signsWith(publicKey.Address())
	n.comet, err = cmtnode.NewNodeWithContext(ctx, cc, signer, nodeKey,
		app.ClientCreator(n.app, func(call string, cause any) { n.fail(stop("consensus_stopped", "%s failed: %w", call, asError(cause))) }),
		func() (*types.GenesisDoc, error) { return doc, nil },
		openForNode(databases), cmtnode.DefaultMetricsProvider(cc.Instrumentation), logger, cmtnode.StateProvider(source))
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
	n.disk = newDisk(home)
	kept, err := newRetention(c.Retention, c.Consensus.DoubleSignCheckHeight, n.comet.BlockStore(), n.environment.StateStore, databases, n.disk.used, n.oldestOffered, log)
	if err != nil {
		return err
	}
	n.retention.Store(kept)
	defer kept.running(n.app.Store(), databases)()
	n.consensus = n.environment.ConsensusState.(*consensus.State) // a node's is always this one; a panic says that CometBFT has changed
	if err := endInLog(cc.Consensus.WalFile(), n.consensus.GetState().LastBlockHeight); err != nil {
		return err
	}
	// What the disk has already shown to be signed elsewhere needs no vote to be found.
	if err := signer.check(n.comet.BlockStore().Height() + 1); err != nil {
		return err
	}
	n.lookForNext(signer)              // what was replayed may have changed the set
	n.begun.Store(n.app.Last().Height) // with what was replayed
	n.height.Store(n.begun.Load())
	if n.server, err = n.serve(); err != nil {
		return err
	}
	defer n.server.close()
	operator, err := home.serveAdmin(n.adminCommands(), n.fail)
	if err != nil {
		return err
	}
	defer operator.close() // before the databases close, which its commands use
	log.Info("start node", "home", string(home), "chain", doc.ChainID, "height", n.app.Store().Height(), "node_id", string(nodeKey.ID()),
		"validator", publicKey.Address().String(), "key_type", publicKey.Type(), "rpc", n.server.address, "p2p", c.P2P.Listen, "version", version)
	if err := n.comet.Start(); err != nil {
		return fmt.Errorf("starting the consensus node: %w", err)
	}
	watch, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	go n.watch(watch, signer)
	go n.redial(watch)
	go n.watchVotes(watch)
	if c.Metrics.Listen != "" {
		prometheus.MustRegister(metrics{n})
		defer prometheus.Unregister(metrics{n})
	}
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

// mayNotSign ends the node for what the guard has found.
func (n *Node) mayNotSign(err error) {
	name := "key_in_use"
	if errors.Is(err, errChangeOver) {
		name = "consensus_stopped" // the error says what of the home could not be written
	}
	n.fail(stop(name, "%w", err))
}

// signsWith notes the address of the key that this node signs with from now on.
func (n *Node) signsWith(address types.Address) {
	own := ledger.ConsensusAddress(address)
	n.validator.Store(&own)
}

// own returns the address of the key that this node signs with.
func (n *Node) own() ledger.ConsensusAddress { return *n.validator.Load() }

// atStart is called with a node that has started; nil but in tests.
var atStart func(*Node)

// stopPatience is how long a stopping node waits for CometBFT. A container engine kills after 10 s by default.
const stopPatience = 8 * time.Second

// restorePatience is how long a restore through peers waits for a chunk.
const restorePatience = 90 * time.Second

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
	code := 1
	if s, ok := errors.AsType[*Stop](err); ok {
		code = s.Code
	}
	exit(code)
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

// retain is what the application asks after each commit: from which height on to keep history. A failure to find out ends
// the node: the same disk has what it needs to go on.
func (n *Node) retain(last ledger.Header) uint64 {
	r := n.retention.Load()
	if r == nil {
		return 0
	}
	height, err := r.from(last)
	if err != nil {
		n.fail(fmt.Errorf("deciding at height %d what history to keep: %w", last.Height, err))
	}
	return height
}

// oldestOffered is the height of the oldest snapshot that peers can have from here; 0: there is none.
func (n *Node) oldestOffered() (oldest uint64) {
	for _, m := range n.app.OfferedSnapshots() {
		if h := m.Height(); oldest == 0 || h < oldest {
			oldest = h
		}
	}
	return oldest
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

// endInLog writes into consensus's log that a height is done, where that is missing. CometBFT replays the log from that mark on,
// and writes it between the block and the state. A node that was killed there executes the block when it starts, and does not make
// up for the mark: killed once more at the next height, it would not find again what it has signed there, nor its own proposal.
func endInLog(file string, height int64) (err error) {
	if _, err := os.Stat(file); err != nil || height == 0 {
		return nil // consensus makes the log
	}
	log, err := consensus.NewWAL(file)
	if err != nil {
		return fmt.Errorf("opening consensus's log: %w", err)
	}
	if err := log.Start(); err != nil {
		return fmt.Errorf("opening consensus's log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Stop()); log.Wait() }()
	reader, found, err := log.SearchForEndHeight(height, &consensus.WALSearchOptions{IgnoreDataCorruptionErrors: true})
	if err != nil {
		return fmt.Errorf("searching consensus's log: %w", err)
	}
	if found {
		return reader.Close()
	}
	return log.WriteSync(consensus.EndHeightMessage{Height: height})
}

// voteAgain gives consensus a vote that this validator has signed earlier, when the vote is of the height that consensus is
// at.
func (n *Node) voteAgain(vote *types.Vote) {
	go func() { // consensus, which holds its lock, is the caller
		rs := n.consensus.GetRoundState()
		index, validator := rs.Validators.GetByAddress(vote.ValidatorAddress)
		if rs.Height != vote.Height || validator == nil {
			return
		}
		vote.ValidatorIndex = index
		n.log.Info("send a vote that was signed earlier and may not have been sent", "height", vote.Height, "round", vote.Round, "type", vote.Type.String())
		_, _ = n.consensus.AddVote(vote, "") // to a queue, always
	}()
}

// round tells the guard where consensus is. Consensus itself calls it, under its lock.
func (n *Node) round() (int64, *types.ValidatorSet) {
	if n.consensus == nil {
		return max(n.begin.LastBlockHeight+1, n.begin.InitialHeight), n.begin.Validators
	}
	return n.consensus.Height, n.consensus.Validators
}

// watch notes when the height rises, and a validator key that is to follow.
func (n *Node) watch(ctx context.Context, signer *guard) {
	tick, look := time.NewTicker(200*time.Millisecond), time.NewTicker(time.Second)
	defer tick.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			n.lookForNext(signer)
			n.watchMachine()
		case <-tick.C:
			if r, ok := n.app.Restoring(); ok && time.Since(r.Latest) > restorePatience {
				// CometBFT asks for the snapshots of its peers only once, and goes on asking for chunks that nobody has any more.
				n.fail(fmt.Errorf("state sync does not get on: no chunk of the snapshot of height %d has come for %s, as the peers that had it have removed it or were left out; start again", r.Height, restorePatience))
			}
			if h := n.app.Last().Height; h != n.height.Load() {
				n.height.Store(h)
				n.advanced.Store(time.Now().UnixNano())
			}
			n.disk.sample(time.Now(), n.height.Load())
		}
	}
}

// votingPowers returns who votes, by address, with what power; a test has others vote than the chain's validators.
var votingPowers = func(n *Node) map[string]uint64 {
	powers := map[string]uint64{}
	for _, v := range n.validators() {
		if a := v.Address(); v.Active() {
			powers[string(a[:])] = v.Power
		}
	}
	return powers
}

// watchMachine looks at what the node stands on: its disk and its clock.
func (n *Node) watchMachine() {
	if err := n.checkDisk(); err != nil {
		n.fail(err)
	}
	limit := time.Duration(n.config.Node.MaxClockOffset)
	own := n.own()
	n.clock.weigh(string(own[:]), votingPowers(n))
	off, warn, end := n.clock.check(time.Now(), limit)
	if warn {
		n.log.Warn("the clock is off, by the times in the other validators' votes; look at this machine's time service", "ahead", off.Round(time.Millisecond).String(), "stop_above", limit.String())
	}
	if end {
		n.fail(stop("clock_off", "the clock of this machine is %s ahead of the other validators' (limit %s either way, for %s)", off.Round(time.Millisecond), limit, clockPatience))
	}
}
