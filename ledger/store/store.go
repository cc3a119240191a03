// Package store keeps the ledger's state on disk: 19 Merkle trees that commit to it, the flat rows that it is read from,
// the application's index, and what is needed to prove, check and undo. All of it lives in ONE Pebble database, and a
// block reaches that database as ONE batch with ONE sync.
//
// The way of a block: Stage(height, writes) updates the trees and builds the whole batch in memory, and gives the
// AppHash; Commit writes the batch and then publishes the height. CometBFT calls Commit under the mempool's lock, so no
// tree work is left for it. A crash at any instruction leaves the database at the height before or at the height after,
// never between: CometBFT replays what is missing.
//
//	Stage     FinalizeBlock   state read, trees changed in memory, nothing written
//	Commit    Commit          one batch, one sync; after it the height is readable
//
// Who reads what. Execution, admission and plain queries read flat rows through a View and never touch a tree. Proofs and
// checks open tree objects of their own over a Pebble snapshot: iavl's readers race with its writer when they share
// objects, and a snapshot keeps the nodes that pruning deletes meanwhile. The writer's tree objects belong to Stage.
//
// When something fails. A Stage that fails changed nothing: the committed state stays readable, and Stage may be called
// again. A Commit that fails, and any failure that the database reports from its own background work, means that nobody
// here knows what is on the disk: from then on every call gives an error that is ErrBroken, and the process must stop.
// Opening the database again finds out.
//
// A root depends on history, not only on contents: iavl hashes the version in which a node was made. Hence every tree
// saves a version at every height, writes that change nothing are dropped by the same rule on every node, and a state
// cannot be rebuilt by writing its final values.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cosmos/iavl"

	"github.com/pacioli-ledger/pacioli/ledger"
)

var (
	// ErrBroken: what is on the disk is not known, or the database can no longer work. Stop the process and open the
	// store again. Every call after the first such error gives it too.
	ErrBroken = errors.New("store is broken: stop the process and start it again")

	// ErrPruned: the height was committed, but its trees are no longer kept.
	ErrPruned = errors.New("height is pruned")

	// ErrNotCommitted: the height is above the committed one, or below the first.
	ErrNotCommitted = errors.New("height is not committed")

	// ErrMismatch: on opening, the trees do not match the record of the committed height.
	ErrMismatch = errors.New("trees do not match the committed height")

	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Write is one change of state. A nil Value deletes the key. A Value that is not nil may not be empty in the state: ICS-23
// can prove neither an empty value nor the absence of a key next to one.
type Write = ledger.Write

const (
	// maxKeyBytes bounds a state or index key. The ledger's longest are three 32-byte ids and a few counters.
	maxKeyBytes = 1 << 10
	// maxValueBytes bounds one value. A proof carries the value whole, and gRPC's default message limit is 4 MB.
	maxValueBytes = 1 << 20
	// maxNoteBytes bounds the application's note on a height.
	maxNoteBytes = 64 << 10

	// undoHeights bounds how far back Rollback reaches. An undo row holds what a block overwrote: about 1 MB for a
	// block of 10,000 changed rows of 100 bytes, so at most 1 GB is kept on a node that is always full. An operator
	// rolls back a few blocks; anything deeper is a restore from a snapshot.
	undoHeights = 1000

	// minKeepVersions: pruning runs before the new version exists, so the version before it must stay; and the newest
	// state has no header yet, so clients prove against the one before.
	minKeepVersions = 2

	defaultCacheBytes     = 256 << 20
	defaultMemTableBytes  = 64 << 20 // a batch above half of it leaves Pebble's normal path; 50,000 updates are 28 MB
	defaultTreeCacheNodes = 400_000  // about 0.5 kB each: 200 MB
	defaultPruneBudget    = 4
	minTreeCacheNodes     = 64 // per tree; below it one path of a tall tree does not fit
)

// Options of a store. The zero value is a sound archive node.
type Options struct {
	FS             vfs.FS // nil: the operating system's
	CacheBytes     int64  // Pebble's block cache; 0: 256 MB
	MemTableBytes  int64  // Pebble's memtable; 0: 64 MB
	TreeCacheNodes int    // nodes that the writer keeps in memory, over all trees; 0: 400,000
	KeepVersions   uint64 // heights to keep provable, 0: all; at least 2
	PruneBudget    int    // most heights that one block prunes, so that a lowered KeepVersions does not stall it; 0: 4
	InitialHeight  uint64 // height of the first block, consensus; 0: 1. Read only before the first commit.

	Logger *slog.Logger // nil: none
	// OnFatal is told, once, of the failure that broke the store, from whatever goroutine found it. It must see to it that
	// the process ends; it must not call the store, whose calls may never return from then on. nil: nobody is told.
	OnFatal func(error)
}

// Store is the ledger's state on disk.
//
// View, Height, AppHash, Note, Prove, Check, Index and Metrics are safe for concurrent use, also while Stage and Commit
// run. Stage, Discard, Commit and Rollback are for one goroutine (they lock, so a mistake there waits, but does not
// corrupt). Close comes last, after all views are closed.
type Store struct {
	dir string
	db  *pebble.DB
	o   Options
	log *slog.Logger

	broken  atomic.Pointer[error] // the sticky failure, wrapped in ErrBroken
	retain  atomic.Uint64         // heights below are not kept; raised by Retain
	metrics counters

	mu     sync.Mutex // held by Stage, Discard, Commit, Rollback, Close; guards what follows
	trees  [treeCount]*writerTree
	stale  bool // a failed or discarded Stage left the writer's trees changed: load them again before use
	meta   meta // as committed
	staged *staged
	closed bool

	viewMu  sync.Mutex // guards current and the reference counts of all published states
	current *published // nil after Close
}

// writerTree is a tree as Stage uses it.
type writerTree struct {
	tree *iavl.MutableTree
	db   *treeDB
}

// published is a committed height that can be read. The store holds one reference to the newest, every View and every
// running proof one more; the last to let go closes the snapshot.
type published struct {
	meta    meta
	appHash [32]byte
	snap    *pebble.Snapshot
	refs    int
}

// Open opens the store in dir, making it if there is none. It refuses a database of another format, another initial
// height than it was made with, and trees that do not match the record of the committed height (ErrMismatch).
func Open(dir string, o Options) (*Store, error) {
	if o.InitialHeight == 0 {
		o.InitialHeight = 1
	}
	if o.KeepVersions != 0 && o.KeepVersions < minKeepVersions {
		return nil, fmt.Errorf("keep %d versions: at least %d are needed (0 keeps all)", o.KeepVersions, minKeepVersions)
	}
	if o.PruneBudget == 0 {
		o.PruneBudget = defaultPruneBudget
	}
	if o.PruneBudget < 0 || o.TreeCacheNodes < 0 || o.CacheBytes < 0 || o.MemTableBytes < 0 {
		return nil, fmt.Errorf("negative size or budget in %+v", o)
	}
	if o.TreeCacheNodes == 0 {
		o.TreeCacheNodes = defaultTreeCacheNodes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{dir: dir, o: o, log: o.Logger}
	// What Adopt puts aside holds nothing; a crash may have left it.
	if err := s.fs().RemoveAll(dir + asideSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove what was put aside of %s: %w", dir, err)
	}
	db, err := pebble.Open(dir, s.pebbleOptions())
	if err != nil {
		return nil, fmt.Errorf("open database in %s: %w", dir, err)
	}
	s.db = db
	if err := s.load(); err != nil {
		if cerr := db.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close database: %w", cerr))
		}
		return nil, fmt.Errorf("open store in %s: %w", dir, err)
	}
	return s, nil
}

// load reads the committed height and brings the trees to it.
func (s *Store) load() error {
	f, err := get(s.db, formatKey)
	if err != nil {
		return fmt.Errorf("read format: %w", err)
	}
	if f == nil {
		// A crash before this line leaves a database without a format, which the next Open treats as new.
		if err := s.db.Set(formatKey, format, pebble.Sync); err != nil {
			return fmt.Errorf("write format: %w", err)
		}
		if err := s.failure(); err != nil {
			return err
		}
	} else if !bytes.Equal(f, format) {
		return fmt.Errorf("database has format %q, this program knows %q: use the program that made it", f, format)
	}
	b, err := get(s.db, stateKey)
	if err != nil {
		return fmt.Errorf("read heights: %w", err)
	}
	if b == nil {
		s.meta = meta{initial: s.o.InitialHeight, first: s.o.InitialHeight, undoFirst: s.o.InitialHeight + 1}
	} else {
		if s.meta, err = decodeMeta(b); err != nil {
			return err
		}
		if s.meta.initial != s.o.InitialHeight {
			return fmt.Errorf("first height is %d in the database but %d in the options (genesis): wrong folder or genesis",
				s.meta.initial, s.o.InitialHeight)
		}
	}
	var rec record
	if s.meta.height > 0 {
		r, err := readRecord(s.db, s.meta.height)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMismatch, err)
		}
		rec = *r
	}
	if err := s.loadTrees(&rec); err != nil {
		return err
	}
	s.publish(s.meta, rec.appHash)
	return nil
}

// loadTrees makes fresh tree objects at the committed height and compares their roots with that height's record.
func (s *Store) loadTrees(rec *record) error {
	for i := range s.trees {
		if err := s.reloadTree(i); err != nil {
			return fmt.Errorf("%w: tree %s at height %d: %w; %s", ErrMismatch, treeNames[i], s.meta.height, err, mismatchHelp)
		}
		if s.meta.height > 0 && !bytes.Equal(s.trees[i].tree.Hash(), rec.roots[i][:]) {
			return fmt.Errorf("%w: tree %s at height %d has root %x, the record says %x; %s", ErrMismatch,
				treeNames[i], s.meta.height, s.trees[i].tree.Hash(), rec.roots[i], mismatchHelp)
		}
	}
	if s.meta.height > 0 && appHash(&rec.roots) != rec.appHash {
		return fmt.Errorf("%w: roots of height %d give AppHash %x, the record says %x; %s", ErrMismatch,
			s.meta.height, appHash(&rec.roots), rec.appHash, mismatchHelp)
	}
	return nil
}

const mismatchHelp = "the disk lost or changed data: run fsck to see what, then restore a backup or a snapshot, or resync"

// reloadTree loads tree i at the committed height, with an empty cache.
func (s *Store) reloadTree(i int) error {
	db := &treeDB{r: s.db, prefix: treePrefix(i)}
	tree := iavl.NewMutableTree(db, s.treeCacheNodes(), true, iavl.NewNopLogger(), iavl.InitialVersionOption(s.meta.initial))
	// Never Load(): it takes the newest version that it finds. The committed height decides.
	latest, err := tree.LoadVersion(int64(s.meta.height))
	if err != nil {
		return err
	}
	if latest != int64(s.meta.height) {
		return fmt.Errorf("newest version is %d, want %d", latest, s.meta.height)
	}
	s.trees[i] = &writerTree{tree: tree, db: db}
	return nil
}

// treeCacheNodes is one tree's part of the cache. Nearly all nodes are in the 16 shards; the other trees get the same,
// since their caches fill only as far as they have nodes.
func (s *Store) treeCacheNodes() int { return max(s.o.TreeCacheNodes/16, minTreeCacheNodes) }

// fail makes the store broken. The first failure is kept and reported.
func (s *Store) fail(cause error) {
	err := fmt.Errorf("%w: %w", ErrBroken, cause)
	if s.broken.CompareAndSwap(nil, &err) {
		s.log.Error("store broke; stop the process and start it again", "err", cause)
		if s.o.OnFatal != nil {
			s.o.OnFatal(err)
		}
	}
}

// failure is the sticky error, or nil.
func (s *Store) failure() error {
	if p := s.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// publish makes a committed height readable and lets go of the one before.
func (s *Store) publish(m meta, appHash [32]byte) {
	p := &published{meta: m, appHash: appHash, snap: s.db.NewSnapshot(), refs: 1}
	s.viewMu.Lock()
	old := s.current
	s.current = p
	s.viewMu.Unlock()
	if old != nil {
		s.release(old)
	}
}

func (s *Store) acquire() (*published, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	if s.current == nil {
		return nil, ErrClosed
	}
	s.current.refs++
	return s.current, nil
}

func (s *Store) release(p *published) {
	s.viewMu.Lock()
	p.refs--
	last := p.refs == 0
	s.viewMu.Unlock()
	if last {
		if err := p.snap.Close(); err != nil {
			s.log.Error("snapshot did not close", "height", p.meta.height, "err", err)
		}
	}
}

// Height is the committed height, 0 before the first commit and after Close.
func (s *Store) Height() uint64 {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	if s.current == nil {
		return 0
	}
	return s.current.meta.height
}

// FirstHeight is the oldest height that can still be proven; above Height before the first commit.
func (s *Store) FirstHeight() uint64 {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	if s.current == nil {
		return 0
	}
	return s.current.meta.first
}

// InitialHeight is the height of the first block.
func (s *Store) InitialHeight() uint64 {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	if s.current == nil {
		return 0
	}
	return s.current.meta.initial
}

// Retain has the following blocks prune the heights below one, in their budget, beside what KeepVersions prunes. The newest
// two are always kept. A lower height than before has no effect. Safe for concurrent use.
func (s *Store) Retain(height uint64) {
	for {
		old := s.retain.Load()
		if height <= old || s.retain.CompareAndSwap(old, height) {
			return
		}
	}
}

// Checkpoint makes a copy of the database in a folder that does not exist: hard links to its tables, copies of its log. It is
// of the height that is committed when Checkpoint begins, if nothing is committed until it returns. Safe for concurrent use.
func (s *Store) Checkpoint(dir string) error {
	p, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release(p)
	if err := s.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("copy the database to %s: %w", dir, err)
	}
	return s.failure()
}

// Compact rewrites the tables, so that what was deleted no longer takes space. It may take long and runs beside everything else; ctx
// ends it early, which leaves the database sound. It must have returned before Close.
func (s *Store) Compact(ctx context.Context) error {
	if err := s.failure(); err != nil {
		return err
	}
	if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
		return fmt.Errorf("compact the database: %w", err)
	}
	return s.failure()
}

// AppHash of the committed height; nil before the first commit and after Close.
func (s *Store) AppHash() []byte {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	if s.current == nil || s.current.meta.height == 0 {
		return nil
	}
	return append([]byte(nil), s.current.appHash[:]...)
}

// Note gives back what Stage was given as note for a retained height. Errors: ErrPruned, ErrNotCommitted, ErrBroken.
func (s *Store) Note(height uint64) ([]byte, error) {
	p, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release(p)
	if err := p.meta.retained(height); err != nil {
		return nil, err
	}
	rec, err := readRecord(p.snap, height)
	if err != nil {
		return nil, err
	}
	return rec.note, nil
}

// retained refuses heights whose trees are not there.
func (m meta) retained(height uint64) error {
	switch {
	case height > m.height || height < m.initial:
		return fmt.Errorf("height %d: %w (committed: %d, first: %d)", height, ErrNotCommitted, m.height, m.initial)
	case height < m.first:
		return fmt.Errorf("height %d: %w (kept: %d to %d)", height, ErrPruned, m.first, m.height)
	}
	return nil
}

// View is the state at one committed height. It never changes, whatever is committed or pruned meanwhile. Safe for
// concurrent use. An open View makes the database keep what was overwritten since: close it soon.
type View struct {
	s    *Store
	p    *published
	err  error // why there is nothing to read
	once sync.Once
}

// View opens a view at the committed height. It costs one lock and no disk access. On a broken or closed store the
// view's reads give the error.
func (s *Store) View() *View {
	p, err := s.acquire()
	return &View{s: s, p: p, err: err}
}

// Height that the view shows; 0 before the first commit.
func (v *View) Height() uint64 {
	if v.p == nil {
		return 0
	}
	return v.p.meta.height
}

func (v *View) ready() error {
	if v.err != nil {
		return v.err
	}
	return v.s.failure()
}

// Get gives a copy of the value of a state key, nil when there is none.
func (v *View) Get(key []byte) ([]byte, error) {
	if err := v.ready(); err != nil {
		return nil, err
	}
	b, err := get(v.p.snap, flatKey(key))
	if err != nil {
		return nil, fmt.Errorf("read state key %x at height %d: %w", key, v.p.meta.height, err)
	}
	return b, nil
}

// Range calls fn for every state key in [start, end) in ascending order until fn gives an error, and returns that error.
// A nil end means the last key. fn must copy what it keeps.
func (v *View) Range(start, end []byte, fn func(key, value []byte) error) error {
	if err := v.ready(); err != nil {
		return err
	}
	return scan(v.p.snap, spaceFlat, start, end, false, fn)
}

// Close ends the view. Reading it afterwards is a mistake that may panic. Closing twice does nothing.
func (v *View) Close() {
	v.once.Do(func() {
		if v.p != nil {
			v.s.release(v.p)
		}
	})
}

// scan calls fn for every row of a keyspace within [start, end); keys are given without the keyspace's byte.
func scan(r pebble.Reader, space byte, start, end []byte, reverse bool, fn func(key, value []byte) error) (err error) {
	o := &pebble.IterOptions{LowerBound: append([]byte{space}, start...), UpperBound: []byte{space + 1}}
	if end != nil {
		o.UpperBound = append([]byte{space}, end...)
	}
	if bytes.Compare(o.LowerBound, o.UpperBound) >= 0 {
		return nil
	}
	it, err := r.NewIter(o)
	if err != nil {
		return fmt.Errorf("iterate keyspace %q: %w", space, err)
	}
	defer closeInto(&err, it)
	step, ok := it.Next, false
	if reverse {
		step, ok = it.Prev, it.Last()
	} else {
		ok = it.First()
	}
	for ; ok; ok = step() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("read row %x: %w", it.Key(), err)
		}
		if err := fn(it.Key()[1:], v); err != nil {
			return err
		}
	}
	return nil // the iterator's own error comes with Close
}

func closeInto(err *error, c io.Closer) {
	if cerr := c.Close(); cerr != nil && *err == nil {
		*err = cerr
	}
}

// Close closes the database. What was staged and not committed is lost, as it would be in a crash. All views must be
// closed before. Closing twice does nothing. On a broken store Close may not return (Pebble waits for work that cannot
// end): end the process without it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.discard()
	s.viewMu.Lock()
	p := s.current
	s.current = nil
	s.viewMu.Unlock()
	if p != nil {
		s.release(p)
	}
	if cerr := s.db.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close database: %w", cerr))
	}
	return err
}

// counters are written by the database's goroutines and by Stage and Commit.
type counters struct {
	stageNanos, commitNanos, batchBytes atomic.Int64
	stalls, slowDisk                    atomic.Int64
}

// Metrics of the store, for the node to publish.
type Metrics struct {
	Height, FirstHeight uint64
	LastStage           time.Duration // time that the newest Stage took
	LastCommit          time.Duration // time that the newest Commit took, mostly the sync
	LastBatchBytes      int64         // size of the newest block's batch
	WriteStalls         int64         // times that Pebble held writes back since Open
	SlowDisk            int64         // disk operations that Pebble reported as slow since Open
	Pebble              *pebble.Metrics
}

// Metrics gives the current figures. Pebble is nil on a closed store.
func (s *Store) Metrics() Metrics {
	m := Metrics{
		Height: s.Height(), FirstHeight: s.FirstHeight(),
		LastStage:      time.Duration(s.metrics.stageNanos.Load()),
		LastCommit:     time.Duration(s.metrics.commitNanos.Load()),
		LastBatchBytes: s.metrics.batchBytes.Load(),
		WriteStalls:    s.metrics.stalls.Load(),
		SlowDisk:       s.metrics.slowDisk.Load(),
	}
	if p, err := s.acquire(); err == nil {
		m.Pebble = s.db.Metrics()
		s.release(p)
	}
	return m
}
