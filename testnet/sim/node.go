package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	abci "github.com/cometbft/cometbft/abci/types"
	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/consensus"
	cmtcrypto "github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/evidence"
	cmtmempool "github.com/cometbft/cometbft/mempool"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
	sm "github.com/cometbft/cometbft/state"
	cmtstore "github.com/cometbft/cometbft/store"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// machine is a place for a node: what stays when the node crashes. A node that runs on it is a run.
type machine struct {
	index int
	role  role
	key   cmtcrypto.PrivKey // of its validator; two twins share one
	dir   string            // real files: the sign state and consensus's log
	rng   *rand.Rand

	disk *vfs.MemFS // of the next run
	runs int        // so far
	back time.Time  // when a machine that is down starts again

	mu  sync.Mutex
	now *run // nil: it is down
}

// running returns the run that is under way, nil when the machine is down.
func (m *machine) running() *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// run is one life of a node: from its start to its crash.
type run struct {
	*machine
	s         *simulation
	number    int
	app       *app.App
	mempool   *cmtmempool.AppMempool
	consensus *consensus.State
	blocks    *cmtstore.BlockStore
	board     *switchboard
	signer    *signer
	wal       string
	bus       *types.EventBus

	mem    *vfs.MemFS
	dead   latch
	once   sync.Once
	fuse   chan int // holds the number of disk writes after which the machine crashes, while there is one
	unsync int      // percent of what is not synced that a crash leaves on the disk
	left   *remains
}

// remains are what a crash leaves.
type remains struct {
	disk *vfs.MemFS
	wal  map[string][]byte
}

// crash cuts the machine off at this very moment: nothing that it does from now on leaves it, and what stands on its disk
// is what was synced, with a random share of the rest. It may be called in the middle of a write to the disk. The
// goroutines of the dead node go on over a disk that nobody will read, until [run.bury] ends them.
func (r *run) crash(why string) {
	r.once.Do(func() {
		r.dead.set()
		r.signer.kill()
		left := &remains{wal: map[string][]byte{}}
		c := vfs.CrashCloneCfg{UnsyncedDataPercent: r.unsync, RNG: rand.New(rand.NewPCG(uint64(r.number), uint64(r.index)))}
		left.disk = r.mem.CrashClone(c)
		files, err := os.ReadDir(r.wal)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			panic(err)
		}
		for _, f := range files {
			if left.wal[f.Name()], err = os.ReadFile(filepath.Join(r.wal, f.Name())); err != nil {
				panic(err)
			}
		}
		r.left = left
		r.s.count.crashes.Add(1)
		r.s.trace.printf(r.index, "CRASHES (%s), keeps %d%% of what was not synced", why, r.unsync)
	})
}

// burn counts a write to the disk, and crashes the machine at the one that its fuse says.
func (r *run) burn(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || r.dead.is() {
		return nil
	}
	select {
	case n := <-r.fuse:
		if n == 0 {
			r.crash("at a write to " + op.Path)
			return nil
		}
		r.fuse <- n - 1
	default:
	}
	return nil
}

// light sets the fuse: the machine crashes at the n-th write from now.
func (r *run) light(n int) {
	select {
	case r.fuse <- n:
	default: // it burns already
	}
}

// quench takes the fuse away.
func (r *run) quench() {
	select {
	case <-r.fuse:
	default:
	}
}

// bury ends the goroutines of a node that has crashed that would go on for ever. Its databases stay open: routines of
// CometBFT's that nobody waits for still read them.
func (r *run) bury() {
	_ = r.board.Stop()
	_ = r.bus.Stop()
}

// start begins a run over what is on the machine's disk, in the order of node.Run: application, databases, handshake,
// reactors. What is missing of node.Run is what cannot run in virtual time: sockets, block sync, and the proposer's wait
// for a first transaction, which holds a mutex that others wait for.
func (s *simulation) start(m *machine) (err error) {
	m.runs++
	r := &run{machine: m, s: s, number: m.runs, mem: m.disk, fuse: make(chan int, 1), unsync: []int{0, 30, 100}[m.rng.IntN(3)]}
	r.wal = filepath.Join(m.dir, fmt.Sprint("wal", r.number))
	r.signer = s.newSigner(m)
	if s.plan.crashes && r.number > 1 && m.rng.IntN(4) == 0 {
		r.light(m.rng.IntN(40)) // it crashes while it recovers
	}
	log := cometTrace{trace: s.trace, node: m.index, dead: &r.dead, stopped: func(cause string) {
		s.finding("node %d: consensus has stopped: %s", m.index, cause)
	}}
	disk := errorfs.Wrap(r.mem, errorfs.InjectorFunc(r.burn))
	pool := mempool.DefaultConfig()
	pool.Workers, pool.OfferAgainAfter = 1, 2*time.Second
	r.app, err = app.New(app.Options{Dir: "app", Version: "sim", Mempool: pool, SignatureCache: 20_000, Workers: 1,
		Logger: slog.New(appTrace{s.trace, m.index, &r.dead}),
		Store: store.Options{FS: disk, CacheBytes: 1 << 20, MemTableBytes: 256 << 10, TreeCacheNodes: 4000, KeepVersions: s.plan.keepVersions,
			OnFatal: func(err error) { s.finding("node %d: the application's database broke: %v", m.index, err) }}})
	if err != nil {
		return fmt.Errorf("opening the application: %w", err)
	}
	databases := cometdb.Provider("data", cometdb.Options{FS: disk, OnFatal: func(name string, err error) {
		s.finding("node %d: CometBFT's database %s broke: %v", m.index, name, err)
	}})

	settings := node.DefaultConfig()
	cc, err := settings.Comet(m.dir)
	if err != nil {
		return err
	}
	cc.Consensus.TimeoutPropose, cc.Consensus.TimeoutCommit = time.Second, s.plan.timeoutCommit
	cc.Consensus.PeerGossipSleepDuration = s.plan.gossipSleep
	cc.Mempool.ReapInterval = 20 * time.Millisecond
	cc.Mempool.MaxBatchBytes = 128 << 10
	cc.Consensus.SetWalFile(filepath.Join(r.wal, "wal"))

	var dbErr error
	open := func(id string) *cometdb.DB {
		db, err := databases.Open(&cmtcfg.DBContext{ID: id, Config: cc})
		dbErr = errors.Join(dbErr, err)
		d, _ := db.(*cometdb.DB)
		return d
	}
	blockDB, stateDB := open("blockstore"), open("state")
	if dbErr != nil {
		return dbErr
	}
	r.blocks = cmtstore.NewBlockStore(blockDB)
	stateStore := sm.NewStore(stateDB, sm.StoreOptions{})
	state, err := stateStore.LoadFromDBOrGenesisDoc(s.doc)
	if err != nil {
		return fmt.Errorf("loading CometBFT's state: %w", err)
	}
	if err := s.kept(r, state.LastBlockHeight); err != nil {
		return err
	}

	seen := &observer{App: r.app, run: r, s: s}
	var application abci.Application = seen
	if m.role.proposer {
		application = &liar{observer: seen, rng: rand.New(rand.NewPCG(m.rng.Uint64(), 5))}
	} else if m.role.twin {
		application = &twin{seen}
	}
	conns := proxy.NewAppConns(app.ClientCreator(application, func(call string, cause any) {
		if !r.dead.is() {
			s.finding("node %d: %s failed: %v", m.index, call, cause)
		}
	}), proxy.NopMetrics())
	r.bus = types.NewEventBusWithBufferCapacity(cc.EventBusBufferCapacity)
	r.bus.SetLogger(log)
	if err := errors.Join(conns.Start(), r.bus.Start()); err != nil {
		return err
	}
	handshaker := consensus.NewHandshaker(stateStore, state, r.blocks, s.doc)
	handshaker.SetLogger(log)
	handshaker.SetEventBus(r.bus)
	if err := handshaker.HandshakeWithContext(context.Background(), conns); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if state, err = stateStore.Load(); err != nil {
		return fmt.Errorf("loading CometBFT's state again: %w", err)
	}
	r.mempool = cmtmempool.NewAppMempool(cc.Mempool, conns.Mempool(), cmtmempool.WithAMLogger(log))
	evidenceDB := open("evidence")
	if dbErr != nil {
		return dbErr
	}
	if err := node.RememberEvidence(databases); err != nil {
		return err
	}
	pending, err := evidence.NewPool(evidenceDB, stateStore, r.blocks)
	if err != nil {
		return fmt.Errorf("opening the pool of evidence: %w", err)
	}
	pending.SetLogger(log)
	executor := sm.NewBlockExecutor(stateStore, log, conns.Consensus(), r.mempool, pending, r.blocks,
		sm.BlockExecutorWithBlockTimeTolerance(cc.Consensus.BlockTimeTolerance))
	r.consensus = consensus.NewState(cc.Consensus, state.Copy(), executor, r.blocks, r.mempool, pending)
	r.consensus.SetLogger(log)
	r.consensus.SetPrivValidator(r.signer)
	r.board = newSwitchboard(m.index, s.network, &r.dead, log)
	r.signer.board = r.board

	gossip := consensus.NewReactor(r.consensus, false)
	gossip.SetLogger(log)
	gossip.SetEventBus(r.bus)
	offers := cmtmempool.NewAppReactor(cc.Mempool, r.mempool, false)
	offers.SetLogger(log)
	accusations := evidence.NewReactor(pending)
	accusations.SetLogger(log)
	r.board.AddReactor("MEMPOOL", offers)
	r.board.AddReactor("CONSENSUS", gossip)
	r.board.AddReactor("EVIDENCE", accusations)
	if err := r.board.Start(); err != nil {
		return fmt.Errorf("starting consensus: %w", err)
	}
	s.network.attach(r.board)
	m.mu.Lock()
	m.now = r
	m.mu.Unlock()
	s.trace.printf(m.index, "starts, run %d, at height %d", r.number, r.app.Store().Height())
	return nil
}

// restart starts a machine again over what its crash has left. The last record of consensus's log may be torn.
func (s *simulation) restart(m *machine) error {
	old := m.running()
	m.mu.Lock()
	m.now = nil
	m.mu.Unlock()
	m.disk = old.left.disk
	dir := filepath.Join(m.dir, fmt.Sprint("wal", m.runs+1))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, content := range old.left.wal {
		if name == "wal" && len(content) > 200 && m.rng.IntN(3) == 0 {
			content = append(content, content[:1+m.rng.IntN(100)]...)
			s.count.tornLogs.Add(1)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return s.start(m)
}

// newSigner opens the machine's sign state, which is a real file: what was returned is in it.
func (s *simulation) newSigner(m *machine) *signer {
	key, state := filepath.Join(m.dir, "key.json"), filepath.Join(m.dir, "sign_state.json")
	if m.runs == 1 {
		pv := privval.NewFilePV(m.key, key, state)
		pv.Save()
	}
	return &signer{pv: privval.LoadFilePV(key, state), key: m.key, machine: m, s: s}
}
