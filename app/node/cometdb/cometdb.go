// Package cometdb keeps CometBFT's own databases (blockstore, state, evidence, tx_index) on Pebble v2, each in a folder
// of its own. It stands in for cometbft-db's backends: that module's Pebble backend is version 1, is built with default
// options, and its DeleteSync and Close lose errors.
//
// Durability: WriteSync, SetSync and DeleteSync return when the data is on the disk. Write, Set and Delete return when the
// data is readable; a crash may lose the newest of them, but never one before a later one that was kept, and never part
// of a batch. CometBFT saves a block with WriteSync before it lets the application see it.
//
// Failure: an error of the disk is given to the caller and stays: after the first, every call on that database gives
// ErrBroken, because what is on the disk is not known. CometBFT panics on it, which is right.
package cometdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	dbm "github.com/cometbft/cometbft-db"
	"github.com/cometbft/cometbft/config"

	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/ledger/store/durable"
)

var (
	// ErrBroken: the database reported a failure of the disk. Stop the process and open the database again.
	ErrBroken = errors.New("database is broken: stop the process and start it again")
	// ErrClosed: the database was closed.
	ErrClosed = errors.New("database is closed")

	errKeyEmpty    = errors.New("key is empty")
	errValueNil    = errors.New("value is nil")
	errBatchClosed = errors.New("batch is written or closed")
)

const (
	cacheBytes    = 32 << 20 // per database; CometBFT reads what it wrote last, and caches blocks itself
	memTableBytes = 32 << 20 // CometBFT's default limit of a block is 21 MB, written as one batch of 64 kB parts
)

// Options of the databases. The zero value is right for a node.
type Options struct {
	FS      vfs.FS // nil: the operating system's
	Logger  *slog.Logger
	OnFatal func(name string, err error) // told once per database of the failure that broke it; must end the process, and not call the database
}

// Databases opens databases for node.NewNode and remembers them. Node.Stop leaves tx_index.db open, and a process that
// ends without closing it loses what was not synced: call Close after the node has stopped.
type Databases struct {
	dir string
	o   Options

	mu     sync.Mutex
	open   map[string]*DB
	closed bool
}

// Provider keeps databases in dir, one folder each, named as CometBFT names its own: "blockstore.db" and so on.
func Provider(dir string, o Options) *Databases {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Databases{dir: dir, o: o, open: make(map[string]*DB)}
}

// Open is a config.DBProvider. A database that is open already is given again: CometBFT opens each once, but its tools
// and our own may meet in one process.
func (p *Databases) Open(ctx *config.DBContext) (dbm.DB, error) {
	db, err := p.Named(ctx.ID)
	if err != nil {
		return nil, err // not a DB that is nil
	}
	return db, nil
}

// Named is Open by a name, as "blockstore".
func (p *Databases) Named(name string) (*DB, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("open database %s: %w", name, ErrClosed)
	}
	if name == "" || filepath.Base(name) != name {
		return nil, fmt.Errorf("open database: %q is not a name", name)
	}
	if db := p.open[name]; db != nil && !db.isClosed() {
		return db, nil
	}
	db, err := open(filepath.Join(p.dir, name+".db"), name, p.o)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", name, err)
	}
	p.open[name] = db
	return db, nil
}

// Close closes every database that is still open; twice does nothing. Call it after the node has stopped: a database
// that is closed under a running node gives ErrClosed.
func (p *Databases) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for name, db := range p.open {
		if err := db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close database %s: %w", name, err))
		}
	}
	p.open = nil
	return errors.Join(errs...)
}

// Checkpoint copies every open database into a folder below dir, named as in Provider's. The block store comes first, then
// the state, as CometBFT writes them: so the copy's blocks are never behind its state. Tables are hard links.
func (p *Databases) Checkpoint(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	names := slices.SortedFunc(maps.Keys(p.open), func(a, b string) int {
		return cmp.Or(cmp.Compare(checkpointOrder(a), checkpointOrder(b)), cmp.Compare(a, b))
	})
	for _, name := range names {
		if err := p.open[name].usable(); err != nil {
			return err
		}
		if err := p.open[name].pebble.Checkpoint(filepath.Join(dir, name+".db"), pebble.WithFlushedWAL()); err != nil {
			return fmt.Errorf("copy database %s to %s: %w", name, dir, err)
		}
	}
	return nil
}

func checkpointOrder(name string) int {
	switch name {
	case "blockstore":
		return 0
	case "state":
		return 1
	}
	return 2
}

// Compact rewrites the tables of every open database, so that what was deleted no longer takes space. It must have returned
// before Close; ctx ends it early, which leaves the databases sound.
func (p *Databases) Compact(ctx context.Context) error {
	p.mu.Lock()
	open := slices.Collect(maps.Values(p.open))
	p.mu.Unlock()
	for _, db := range open {
		if err := db.usable(); err != nil {
			return err
		}
		if err := db.wrote("compact", db.pebble.Compact(ctx, []byte{0}, []byte{0xff}, false)); err != nil {
			return err
		}
	}
	return nil
}

var _ config.DBProvider = (*Databases)(nil).Open

// DB is a cometbft-db database on Pebble v2. Safe for concurrent use, except that Close must not run while another call
// does.
type DB struct {
	name   string
	log    *slog.Logger
	fatal  func(string, error)
	pebble *pebble.DB

	broken atomic.Pointer[error]
	closed atomic.Bool
}

var _ dbm.DB = (*DB)(nil)

func open(dir, name string, o Options) (*DB, error) {
	db := &DB{name: name, log: o.Logger, fatal: o.OnFatal}
	po := &pebble.Options{
		FS:                          durable.Markers(o.FS),
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   cacheBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       64,
		MaxOpenFiles:                1024,
		BytesPerSync:                1 << 20,
		WALBytesPerSync:             1 << 20,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
		Logger:                      logger{db},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { db.fail(fmt.Errorf("background work: %w", err)) },
			DataCorruption:  func(info pebble.DataCorruptionInfo) { db.fail(fmt.Errorf("corrupt file: %s", info)) },
			DiskSlow: func(info pebble.DiskSlowInfo) {
				db.log.Warn("disk is slow; look at the machine's storage", "db", name, "took", info.Duration)
			},
		},
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		po.Levels[i].FilterType = pebble.TableFilter
	}
	var err error
	if db.pebble, err = pebble.Open(dir, po); err != nil {
		return nil, err
	}
	return db, nil
}

// logger keeps Pebble quiet. Pebble relies on Fatalf not returning, so it breaks the database and then holds the goroutine
// until OnFatal has ended the process: see pebbleLogger in ledger/store.
type logger struct{ db *DB }

func (l logger) Infof(string, ...any) {}
func (l logger) Errorf(format string, args ...any) {
	l.db.log.Error("database: "+fmt.Sprintf(format, args...), "db", l.db.name)
}
func (l logger) Fatalf(format string, args ...any) {
	l.db.fail(fmt.Errorf(format, args...))
	select {}
}

func (db *DB) fail(cause error) {
	err := fmt.Errorf("%w: %s: %w", ErrBroken, db.name, cause)
	if db.broken.CompareAndSwap(nil, &err) {
		db.log.Error("database broke; stop the process and start it again", "db", db.name, "err", cause)
		if db.fatal != nil {
			db.fatal(db.name, err)
		}
	}
}

func (db *DB) isClosed() bool { return db.closed.Load() }

func (db *DB) usable() error {
	if p := db.broken.Load(); p != nil {
		return *p
	}
	if db.closed.Load() {
		return fmt.Errorf("%s: %w", db.name, ErrClosed)
	}
	return nil
}

// wrote is what a write gives: its own error, or the failure that Pebble reported to its logger instead.
func (db *DB) wrote(what string, err error) error {
	if p := db.broken.Load(); p != nil {
		return *p
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", what, db.name, err)
	}
	return nil
}

// Get implements dbm.DB: nil when the key is absent, else a copy that is never nil.
func (db *DB) Get(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, errKeyEmpty
	}
	if err := db.usable(); err != nil {
		return nil, err
	}
	v, closer, err := db.pebble.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %x in %s: %w", key, db.name, err)
	}
	out := make([]byte, len(v))
	copy(out, v)
	return out, closer.Close()
}

// Has implements dbm.DB.
func (db *DB) Has(key []byte) (bool, error) {
	v, err := db.Get(key)
	return v != nil, err
}

// Set implements dbm.DB.
func (db *DB) Set(key, value []byte) error { return db.set(key, value, pebble.NoSync) }

// SetSync implements dbm.DB.
func (db *DB) SetSync(key, value []byte) error { return db.set(key, value, pebble.Sync) }

func (db *DB) set(key, value []byte, o *pebble.WriteOptions) error {
	if err := check(key, value); err != nil {
		return err
	}
	if err := db.usable(); err != nil {
		return err
	}
	return db.wrote("set", db.pebble.Set(key, value, o))
}

func check(key, value []byte) error {
	if len(key) == 0 {
		return errKeyEmpty
	}
	if value == nil {
		return errValueNil
	}
	return nil
}

// Delete implements dbm.DB.
func (db *DB) Delete(key []byte) error { return db.delete(key, pebble.NoSync) }

// DeleteSync implements dbm.DB.
func (db *DB) DeleteSync(key []byte) error { return db.delete(key, pebble.Sync) }

func (db *DB) delete(key []byte, o *pebble.WriteOptions) error {
	if len(key) == 0 {
		return errKeyEmpty
	}
	if err := db.usable(); err != nil {
		return err
	}
	return db.wrote("delete", db.pebble.Delete(key, o))
}

// Compact implements dbm.DB. nil bounds mean the first and the last key.
func (db *DB) Compact(start, end []byte) error {
	if err := db.usable(); err != nil {
		return err
	}
	if start == nil {
		start = []byte{}
	}
	if end == nil {
		it, err := db.pebble.NewIter(nil)
		if err != nil {
			return fmt.Errorf("compact %s: %w", db.name, err)
		}
		if it.Last() {
			end = append(bytes.Clone(it.Key()), 0)
		}
		if err := it.Close(); err != nil {
			return fmt.Errorf("compact %s: %w", db.name, err)
		}
	}
	if bytes.Compare(start, end) >= 0 {
		return nil // nothing lies between
	}
	return db.wrote("compact", db.pebble.Compact(context.Background(), start, end, true))
}

// Close implements dbm.DB. Closing twice does nothing.
func (db *DB) Close() error {
	if !db.closed.CompareAndSwap(false, true) {
		return nil
	}
	if err := db.pebble.Close(); err != nil {
		return fmt.Errorf("close %s: %w", db.name, err)
	}
	return nil
}

// Print implements dbm.DB: one line per row, for debugging.
func (db *DB) Print() error {
	it, err := db.Iterator(nil, nil)
	if err != nil {
		return err
	}
	for ; it.Valid(); it.Next() {
		fmt.Printf("[%X]:\t[%X]\n", it.Key(), it.Value())
	}
	return errors.Join(it.Error(), it.Close())
}

// Stats implements dbm.DB.
func (db *DB) Stats() map[string]string {
	if db.usable() != nil {
		return map[string]string{"database.type": "pebble v2"}
	}
	m := db.pebble.Metrics()
	return map[string]string{
		"database.type":       "pebble v2",
		"database.disk_bytes": fmt.Sprint(m.DiskSpaceUsage()),
		"database.metrics":    m.String(),
	}
}

// NewBatch implements dbm.DB.
func (db *DB) NewBatch() dbm.Batch {
	if db.usable() != nil {
		return &batch{db: db} // its writes give the error
	}
	return &batch{db: db, b: db.pebble.NewBatch()}
}

// batch is a dbm.Batch; for one goroutine. b is nil once it is written or closed.
type batch struct {
	db *DB
	b  *pebble.Batch
}

func (b *batch) usable() error {
	if err := b.db.usable(); err != nil {
		return err
	}
	if b.b == nil {
		return errBatchClosed
	}
	return nil
}

func (b *batch) Set(key, value []byte) error {
	if err := check(key, value); err != nil {
		return err
	}
	if err := b.usable(); err != nil {
		return err
	}
	return b.b.Set(key, value, nil)
}

func (b *batch) Delete(key []byte) error {
	if len(key) == 0 {
		return errKeyEmpty
	}
	if err := b.usable(); err != nil {
		return err
	}
	return b.b.Delete(key, nil)
}

func (b *batch) Write() error     { return b.write(pebble.NoSync) }
func (b *batch) WriteSync() error { return b.write(pebble.Sync) }

func (b *batch) write(o *pebble.WriteOptions) error {
	if err := b.usable(); err != nil {
		return err
	}
	if b.b.Empty() && o.GetSync() {
		// Pebble skips an empty batch and its sync, but our caller may count on what was written before being durable.
		if err := b.b.LogData([]byte{0}, nil); err != nil {
			return err
		}
	}
	if o.GetSync() {
		failpoint.Here("comet.write")
	}
	if err := b.db.wrote("write batch", b.b.Commit(o)); err != nil {
		return err
	}
	if o.GetSync() {
		failpoint.Here("comet.written")
	}
	return b.Close()
}

func (b *batch) Close() error {
	if b.b == nil {
		return nil
	}
	p := b.b
	b.b = nil
	return p.Close()
}

// Iterator implements dbm.DB. It sees the database as it was when it was made.
func (db *DB) Iterator(start, end []byte) (dbm.Iterator, error) { return db.iterate(start, end, false) }

// ReverseIterator implements dbm.DB.
func (db *DB) ReverseIterator(start, end []byte) (dbm.Iterator, error) {
	return db.iterate(start, end, true)
}

func (db *DB) iterate(start, end []byte, reverse bool) (dbm.Iterator, error) {
	if start != nil && len(start) == 0 || end != nil && len(end) == 0 {
		return nil, errKeyEmpty
	}
	if err := db.usable(); err != nil {
		return nil, err
	}
	it := &iterator{db: db, start: bytes.Clone(start), end: bytes.Clone(end), reverse: reverse}
	if start != nil && end != nil && bytes.Compare(start, end) >= 0 {
		return it, nil // an empty domain: Pebble would refuse the bounds
	}
	p, err := db.pebble.NewIter(&pebble.IterOptions{LowerBound: it.start, UpperBound: it.end})
	if err != nil {
		return nil, fmt.Errorf("iterate %s: %w", db.name, err)
	}
	it.it = p
	if reverse {
		it.it.Last()
	} else {
		it.it.First()
	}
	return it, nil
}

// iterator is a dbm.Iterator; for one goroutine. it is nil for an empty domain and after Close.
type iterator struct {
	db         *DB
	start, end []byte
	reverse    bool
	it         *pebble.Iterator
	err        error
}

func (i *iterator) Domain() (start, end []byte) { return i.start, i.end }

func (i *iterator) Valid() bool { return i.err == nil && i.it != nil && i.it.Valid() }

func (i *iterator) mustBeValid() {
	if !i.Valid() {
		panic("cometdb: iterator of " + i.db.name + " is not valid")
	}
}

func (i *iterator) Next() {
	i.mustBeValid()
	if i.reverse {
		i.it.Prev()
	} else {
		i.it.Next()
	}
}

// Key gives a copy: callers of CometBFT keep keys.
func (i *iterator) Key() []byte {
	i.mustBeValid()
	return append([]byte{}, i.it.Key()...)
}

// Value gives a copy. A value that cannot be read ends the iteration with Error.
func (i *iterator) Value() []byte {
	i.mustBeValid()
	v, err := i.it.ValueAndErr()
	if err != nil {
		i.err = fmt.Errorf("read value of %x in %s: %w", i.it.Key(), i.db.name, err)
		return nil
	}
	return append([]byte{}, v...)
}

func (i *iterator) Error() error {
	if i.err == nil && i.it != nil {
		return i.it.Error()
	}
	return i.err
}

func (i *iterator) Close() error {
	if i.it == nil {
		return nil
	}
	it := i.it
	i.it = nil
	return it.Close()
}
