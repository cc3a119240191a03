// Package app is the ledger as CometBFT sees it: the sixteen calls of ABCI over the rulebook (package ledger), the state
// on disk (ledger/store), the signature cache and the mempool.
//
// The way of a block. PrepareProposal executes what the mempool offers and keeps what the rules accept; ProcessProposal
// executes a proposal and rejects it when a transaction in it would be refused, which no honest proposer lets happen;
// FinalizeBlock takes the outcome of the block it is told to, or executes it when this node has not seen it proposed
// (replay, block sync); Commit writes one batch. An outcome is found again by everything that it depends on, so a
// proposal is executed once on every node. Nothing but Commit changes the committed state.
//
// A panic is recovered only where strangers' bytes enter: CheckTx, InsertTx, ProcessProposal and Query. In FinalizeBlock
// and Commit it must stop the node; package node sees to that.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/app/signature"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Options of an application. The zero value of everything but Dir or Store.FS is sound.
type Options struct {
	Dir     string // folder of the application's database
	Store   store.Options
	Mempool mempool.Config // zero: mempool.DefaultConfig()

	// SignatureCache is the number of transactions whose signatures are remembered as verified; 0: 100,000, which with
	// 32 bytes and the map's overhead are about 10 MB.
	SignatureCache int
	// Workers is the number of goroutines that verify signatures; 0: one per processor.
	Workers int
	// IdleBlockInterval is how long a proposer waits for a first transaction before it proposes an empty block; 0: it
	// does not wait. It must stay well below CometBFT's timeout_propose.
	IdleBlockInterval time.Duration
	// MaxBlockOperations bounds what this node proposes in one block, up to 40,000; 0: 20,000, about a second of execution.
	MaxBlockOperations int

	Snapshots SnapshotOptions
	// Retain says, after each commit, the height from which on this node keeps history: states, rows of the index, and
	// CometBFT's blocks, which it asks to be deleted below it. It must not go down, and is called from Commit alone. 0 and
	// nil: all.
	Retain func(ledger.Header) uint64

	Version string
	Logger  *slog.Logger // nil: none
}

// App is an ABCI application. All methods may be called concurrently, as CometBFT does without locks between: queries
// and admission run beside execution. The calls of the consensus connection come one after another.
type App struct {
	abci.BaseApplication // vote extensions: not used

	o       Options
	log     *slog.Logger
	store   *store.Store
	pool    *mempool.Pool
	checked *signature.Cache
	queries chan struct{} // a place for each query that is being answered
	// simulations has a place for each simulation: of strangers' transactions, which take a processor for some
	// milliseconds and cost them nothing. At most half of the processors are ever at it.
	simulations chan struct{}
	done        context.Context // ends the wait for a first transaction when the application closes
	close       context.CancelFunc
	snapshots   snapshots

	// committing is held by Commit, and by Hold, which so keeps the committed height where it is.
	committing sync.Mutex
	retain     atomic.Uint64 // what Retain has last said

	mu      sync.Mutex
	last    lastBlock                // of the committed height
	genesis *genesis                 // between InitChain and the first commit
	known   map[crypto.Hash]*outcome // of proposals for the next height, by everything they depend on
	staged  *outcome                 // of the block between FinalizeBlock and Commit
	figures Figures
	signed  map[ledger.ConsensusAddress]uint64 // the last block that each is known to have signed
}

// Figures are what the application has measured, for the node to publish.
type Figures struct {
	Execution    time.Duration // of the newest block that was executed
	Executed     uint64        // blocks, also those of proposals that were not decided
	Transactions int           // of the newest block
	// MissedLast is how many validators have not signed the block before the newest one.
	MissedLast int
}

// Figures returns what was measured.
func (a *App) Figures() Figures {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.figures
}

// LastSigned returns the newest block that a validator is known to have signed; 0: none since this process runs.
func (a *App) LastSigned(v ledger.ConsensusAddress) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.signed[v]
}

// note keeps who has signed the block before. The caller holds mu.
func (a *App) note(o *outcome) {
	a.figures.Transactions, a.figures.MissedLast = len(o.txs), 0
	signed := make(map[ledger.ConsensusAddress]uint64, len(o.votes))
	for _, v := range o.votes {
		if signed[v.Validator] = a.signed[v.Validator]; v.Signed {
			signed[v.Validator] = o.header.Height - 1
		} else {
			a.figures.MissedLast++
		}
	}
	a.signed = signed
}

// lastBlock is what the application remembers of the committed block: the note that the store keeps with its height.
type lastBlock struct {
	Header       ledger.Header
	Transactions uint32
}

// genesis is a state that no block has committed yet. CometBFT begins again with InitChain after a crash before the
// first commit, so it lives in memory only.
type genesis struct {
	network ledger.Network
	state   ledger.Memory
	outcome ledger.Outcome
}

const (
	// defaultBlockOperations is what a node proposes in one block unless its options say otherwise.
	defaultBlockOperations = 20_000
	// maxAcceptedOperations is what a node accepts in a proposal, so that no single proposer makes all others execute for
	// longer than a round takes. It is the same on every node, or votes would split, and generous, so that nobody's own
	// limit comes near it. A block that is decided is executed whatever its size.
	maxAcceptedOperations = 2 * defaultBlockOperations
)

// maxKnown bounds the outcomes that wait for a decision: one per round of a height, and rounds are few. Beyond it the
// outcome is dropped and FinalizeBlock executes again.
const maxKnown = 4

// New opens the application's database and returns an application that can be used without a CometBFT node.
func New(o Options) (*App, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SignatureCache == 0 {
		o.SignatureCache = 100_000
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxBlockOperations == 0 {
		o.MaxBlockOperations = defaultBlockOperations
	}
	if o.MaxBlockOperations < 0 || o.MaxBlockOperations > maxAcceptedOperations {
		return nil, fmt.Errorf("at most %d operations in a proposed block, want 1 to %d: the others reject larger ones", o.MaxBlockOperations, maxAcceptedOperations)
	}
	if o.Mempool == (mempool.Config{}) {
		o.Mempool = mempool.DefaultConfig()
	}
	if o.Store.Logger == nil {
		o.Store.Logger = o.Logger
	}
	s, err := store.Open(o.Dir, o.Store)
	if err != nil {
		return nil, fmt.Errorf("opening the application's database %s: %w", o.Dir, err)
	}
	a := &App{o: o, log: o.Logger, store: s, checked: signature.NewCache(o.SignatureCache), known: map[crypto.Hash]*outcome{}}
	// A proof reads a few dozen tree nodes or hashes a whole block: more at once than this would only take the processors
	// from consensus. The others wait.
	a.queries = make(chan struct{}, 4*runtime.GOMAXPROCS(0))
	a.simulations = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
	a.done, a.close = context.WithCancel(context.Background())
	if h := s.Height(); h != 0 {
		note, err := s.Note(h)
		if err == nil {
			a.last, err = decodeNote(note)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reading the note of height %d: %w", h, err), s.Close())
		}
	}
	if err := a.openSnapshots(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	a.pool = mempool.New(o.Mempool, a.admission, a.checked, o.Logger)
	return a, nil
}

// Close ends the application. CometBFT must have been stopped before.
func (a *App) Close() error {
	a.close()
	a.pool.Close()
	return errors.Join(a.closeSnapshots(), a.store.Close())
}

// Hold runs f while no block is committed, for a copy of the node's databases that are of one height. CometBFT's block store
// is then at that height or one above it, its state at that height or one below: what a node that was killed may have too.
// Consensus waits meanwhile, so f must be quick.
func (a *App) Hold(f func(height uint64) error) error {
	a.committing.Lock()
	defer a.committing.Unlock()
	return f(a.store.Height())
}

// Store returns the state on disk, for read-only use by the node: metrics, proofs, checks.
func (a *App) Store() *store.Store { return a.store }

// Pool returns the mempool.
func (a *App) Pool() *mempool.Pool { return a.pool }

// Signatures returns the signature cache, for its counters.
func (a *App) Signatures() *signature.Cache { return a.checked }

// Last returns the header of the committed block; the zero value before the first.
func (a *App) Last() ledger.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last.Header
}

// Network returns the network that this node's state belongs to; an error before InitChain.
func (a *App) Network() (ledger.Network, error) {
	base, release, err := a.base()
	if err != nil {
		return ledger.Network{}, err
	}
	defer release()
	row, err := base.Get(ledger.NetworkRow())
	if err != nil {
		return ledger.Network{}, err
	}
	return ledger.DecodeNetwork(row)
}

// base returns the state that the next block is executed over, with the function that releases it.
func (a *App) base() (ledger.Reader, func(), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.Header.Height == 0 {
		if a.genesis == nil {
			return nil, nil, mempool.ErrNoState
		}
		return a.genesis.state, func() {}, nil
	}
	view := a.store.View()
	return view, view.Close, nil
}

// admission opens the committed state for the mempool, with the header of the block that left it.
func (a *App) admission() (ledger.Reader, ledger.Header, func(), error) {
	last := a.Last() // before the state: a header that is one block old only makes admission a little more lenient
	base, release, err := a.base()
	return base, last, release, err
}

// Info tells CometBFT what is committed, so that it can replay what is missing.
func (a *App) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	return &abci.ResponseInfo{
		Data: "pacioli", Version: a.o.Version, AppVersion: ledger.Version,
		LastBlockHeight: int64(a.store.Height()), LastBlockAppHash: a.store.AppHash(),
	}, nil
}

// encodeNote writes the note that the store keeps with a height.
func encodeNote(l lastBlock) []byte {
	w := canonical.NewWriter(nil)
	w.Uint64(1, l.Header.Height)
	w.Uint64(2, l.Header.UnixMillis)
	w.Uint32(3, l.Transactions)
	return w.Done()
}

func decodeNote(b []byte) (l lastBlock, err error) {
	r := canonical.NewReader(b)
	l.Header.Height = r.Uint64(1, "height")
	l.Header.UnixMillis = r.Uint64(2, "unix_millis")
	l.Transactions = r.Uint32(3, "transactions")
	return l, r.Close()
}
