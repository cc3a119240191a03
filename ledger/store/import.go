package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store/durable"
)

// ErrStream: the records are not those of the state whose tops they were announced with. The state is not at fault, and
// neither is this machine: whoever gave the records is.
var ErrStream = errors.New("snapshot does not give the state that it announces")

// Import builds a store from the records of an exported state. What it has built can be used only when all records have
// come and every tree has the root that the tops say; until then the folder is debris, which the next Import removes.
//
// Everything is checked as it comes, in memory that does not grow with the state: leaves ascend and stand in the right
// tree, no tree has more than its top says, policies and nonces are what the leaf before them commits to, and with its
// last node each tree's hash is its root. The database writes no log: a crash loses what was imported, and the
// import begins again.
//
// Not safe for concurrent use. Apply and Finish may take as long as the disk does.
type Import struct {
	o    Options
	dir  string
	tops Tops
	root [treeCount][32]byte

	store *Store        // for the options of its database
	db    *pebble.DB    // nil: only checked
	batch *pebble.Batch // of db

	tree   int     // that is being imported; treeCount: all have been
	stack  []built // of the tree
	leaves uint64  // of the tree
	nodes  uint64  // of the tree
	last   []byte  // key of its newest leaf
	beside *ledger.Beside

	Leaves uint64 // of all trees so far
	err    error  // sticky
}

// built is a node whose parent has not come yet.
type built struct {
	id      nodeID
	height  uint64
	size    uint64
	least   []byte // key
	hash    [32]byte
	version uint64
}

const (
	importBatchBytes    = 4 << 20
	importMemTableBytes = 32 << 20
)

// NewImport begins to build a store in dir, whose content it removes. With dir "" nothing is built: the records are only
// checked. o.InitialHeight must be the chain's; the sizes of caches are not used.
func NewImport(dir string, o Options, tops *Tops) (*Import, error) {
	if err := tops.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStream, err)
	}
	if o.InitialHeight == 0 {
		o.InitialHeight = 1
	}
	if tops.Height < o.InitialHeight {
		return nil, fmt.Errorf("%w: a state of height %d, and the chain begins with %d", ErrStream, tops.Height, o.InitialHeight)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.CacheBytes, o.MemTableBytes = 8<<20, importMemTableBytes
	i := &Import{o: o, dir: dir, tops: *tops, root: tops.roots()}
	if dir == "" {
		return i, nil
	}
	if err := o.FS.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove what an earlier import has left in %s: %w", dir, err)
	}
	if err := o.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	i.store = &Store{o: o, log: o.Logger}
	po := i.store.pebbleOptions()
	po.DisableWAL = true
	db, err := pebble.Open(dir, po)
	if err != nil {
		return nil, fmt.Errorf("make a database in %s: %w", dir, err)
	}
	i.db, i.batch = db, db.NewBatch()
	return i, nil
}

// Apply takes whole records, in their order. An error that is ErrStream says that they are not the announced state's; any
// other, that this machine could not. After an error nothing more can be applied.
func (i *Import) Apply(records []byte) error {
	if i.err != nil {
		return i.err
	}
	for len(records) > 0 {
		rest, err := i.next(records)
		if err == nil && i.batch != nil && i.batch.Len() >= importBatchBytes {
			err = i.flush()
		}
		if err != nil {
			i.err = err
			return err
		}
		records = rest
	}
	return nil
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrStream, fmt.Errorf(format, args...))
}

func (i *Import) next(b []byte) (rest []byte, err error) {
	if i.tree == treeCount && i.beside == nil {
		return nil, wrong("%d bytes behind the last tree", len(b))
	}
	kind := b[0]
	b = b[1:]
	if (kind == recordBeside) != (i.beside != nil) {
		return nil, wrong("a record of kind %d where rows beside the tree are due: %t", kind, i.beside != nil)
	}
	if kind == recordBeside {
		value, rest, err := takeBytes(b)
		if err != nil || len(value) > maxValueBytes {
			return nil, wrong("%w", errRecord)
		}
		rows, err := i.beside.Take(value)
		if err != nil {
			return nil, wrong("%w", err)
		}
		for _, row := range rows {
			if err := i.set(flatKey(row.Key), row.Value); err != nil {
				return nil, err
			}
		}
		if _, more := i.beside.Next(); !more {
			i.beside = nil
		}
		return rest, nil
	}
	version, w := binary.Uvarint(b)
	if w <= 0 || version == 0 || version > i.tops.Height {
		return nil, wrong("tree %s: node of version %d in a state of height %d", treeNames[i.tree], version, i.tops.Height)
	}
	b = b[w:]
	switch kind {
	case recordLeaf:
		key, b, err := takeBytes(b)
		if err != nil {
			return nil, wrong("%w", errRecord)
		}
		value, b, err := takeBytes(b)
		if err != nil {
			return nil, wrong("%w", errRecord)
		}
		return b, i.leaf(version, bytes.Clone(key), value)
	case recordInner:
		return b, i.inner(version)
	}
	return nil, wrong("a record of kind %d", kind)
}

func (i *Import) leaf(version uint64, key, value []byte) error {
	name := treeNames[i.tree]
	i.leaves++
	i.Leaves++
	switch {
	case i.leaves > i.tops.Trees[i.tree].Size:
		return wrong("tree %s has more than the %d leaves that its top says", name, i.tops.Trees[i.tree].Size)
	case len(key) == 0 || len(key) > maxKeyBytes || len(value) == 0 || len(value) > maxValueBytes:
		return wrong("tree %s: leaf with a key of %d and a value of %d bytes", name, len(key), len(value))
	case i.leaves > 1 && bytes.Compare(i.last, key) >= 0:
		return wrong("tree %s: leaf %x does not sort after %x", name, key, i.last)
	case len(i.stack) > maxTreeHeight:
		return wrong("tree %s is higher than %d", name, maxTreeHeight)
	}
	i.last = key
	if i.leaves == 1 {
		if k, v := sentinel(i.tree); !bytes.Equal(k, key) || !bytes.Equal(v, value) {
			return wrong("tree %s begins with %x = %x, which is not its sentinel", name, key, value)
		}
	} else {
		if treeIndex(key) != i.tree {
			return wrong("tree %s holds key %x, which is not its", name, key)
		}
		if err := i.set(flatKey(key), value); err != nil {
			return err
		}
		b, err := ledger.BesideOf(key, value)
		if err != nil {
			return wrong("%w", err)
		}
		if b != nil {
			if _, more := b.Next(); more {
				i.beside = b
			}
		}
	}
	n := node{id: nodeID{version: int64(version)}, size: 1, key: key, value: value}
	n.hash = n.leafSum()
	return i.push(&n, key)
}

func (i *Import) inner(version uint64) error {
	k := len(i.stack) - 2
	if k < 0 {
		return wrong("tree %s: a node without two children", treeNames[i.tree])
	}
	left, right := i.stack[k], i.stack[k+1]
	i.stack = i.stack[:k]
	n := node{id: nodeID{version: int64(version)}, height: int64(max(left.height, right.height)) + 1, size: int64(left.size + right.size),
		key: right.least, left: left.id, right: right.id}
	if n.height > maxTreeHeight {
		return wrong("tree %s is higher than %d", treeNames[i.tree], maxTreeHeight)
	}
	if version < max(left.version, right.version) {
		return wrong("tree %s: node of version %d above nodes of versions %d and %d", treeNames[i.tree], version, left.version, right.version)
	}
	n.hash = n.innerSum(left.hash, right.hash)
	return i.push(&n, left.least)
}

// push puts a node on the stack and writes it. A tree's last node is its root.
func (i *Import) push(n *node, least []byte) error {
	last := i.leaves == i.tops.Trees[i.tree].Size && len(i.stack) == 0
	switch {
	case !last:
		// iavl numbers the nodes of a version; all that matters is that each has a name of its own, and that only roots
		// have the names 0 and 1.
		n.id.nonce = uint32(i.nodes) + 2
	case uint64(n.id.version) == i.tops.Height:
		n.id.nonce = 1
	default:
		// The root was made by an earlier block, and is named as pruning names such a root. Under its first name it would
		// pass for a kept version, and the next pruning would walk over all heights between.
		n.id.nonce = 0
	}
	i.nodes++
	if err := i.set((&treeDB{prefix: treePrefix(i.tree)}).key(n.id.key()), n.encode()); err != nil {
		return err
	}
	i.stack = append(i.stack, built{n.id, uint64(n.height), uint64(n.size), least, n.hash, uint64(n.id.version)})
	if !last {
		return nil
	}
	if n.hash != i.root[i.tree] {
		return wrong("tree %s has the root %x, announced is %x", treeNames[i.tree], n.hash, i.root[i.tree])
	}
	if n.id.nonce == 0 {
		d := treeDB{prefix: treePrefix(i.tree)}
		if err := i.set(d.key(nodeID{int64(i.tops.Height), 1}.key()), nodeID{n.id.version, 1}.key()); err != nil {
			return err
		}
	}
	i.tree++
	i.stack, i.leaves, i.nodes, i.last = i.stack[:0], 0, 0, nil
	return nil
}

func (i *Import) set(key, value []byte) error {
	if i.db == nil {
		return nil
	}
	if err := i.batch.Set(key, value, nil); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	return nil
}

func (i *Import) flush() error {
	if err := i.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := i.store.failure(); err != nil {
		return err
	}
	err := i.batch.Close()
	i.batch = i.db.NewBatch()
	return err
}

// Finish checks that all has come, and makes the folder a store at the announced height, synced and closed. note is kept
// with the height, as Stage's is. history begins a chain of blocks anew: index, undo rows and proofs reach back to here.
func (i *Import) Finish(note []byte, index []Write) error {
	if i.err != nil {
		return i.err
	}
	if i.tree != treeCount || i.beside != nil {
		return wrong("it ends within tree %s, after %d of %d leaves", treeNames[min(i.tree, treeCount-1)], i.Leaves, i.tops.Leaves())
	}
	if i.db == nil {
		return nil
	}
	if len(note) > maxNoteBytes {
		return fmt.Errorf("import: note of %d bytes, at most %d", len(note), maxNoteBytes)
	}
	if err := checkIndex(index); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	h := i.tops.Height
	rec := record{appHash: appHash(&i.root), roots: i.root, note: note}
	m := meta{height: h, first: h, undoFirst: h + 1, initial: i.o.InitialHeight}
	errs := []error{i.batch.Set(heightKey(spaceRecord, h), rec.encode(), nil), i.batch.Set(stateKey, m.encode(), nil), i.batch.Set(formatKey, format, nil)}
	for _, w := range index {
		errs = append(errs, i.batch.Set(indexKey(w.Key), w.Value, nil))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := i.flush(); err != nil {
		return err
	}
	// Without a log, what is in memory is durable once it is flushed into tables, which are synced.
	if err := i.db.Flush(); err != nil {
		return fmt.Errorf("import: flush: %w", err)
	}
	err := i.Close()
	if err == nil {
		err = durable.SyncDir(i.o.FS, filepath.Dir(i.dir))
	}
	return err
}

// Close ends the import. Where Finish has not been called the folder stays as debris. Twice does nothing.
func (i *Import) Close() error {
	if i.db == nil {
		return nil
	}
	if i.err == nil {
		i.err = errors.New("import is closed")
	}
	err := errors.Join(i.batch.Close(), i.db.Close())
	i.db = nil
	return err
}

const (
	asideSuffix = ".empty"
	// adoptPatience is how long readers of the empty state may take; each answers one query.
	adoptPatience = 10 * time.Second
)

// Adopt puts the store that Import has built in dir, which must be beside the store's own folder, into its place. The store
// must not have committed anything, and becomes one that has committed the imported height. Readers find it closed for a
// moment. A crash leaves the one or the other. After an error that is ErrBroken the process must stop; any other leaves
// the store as it was.
func (s *Store) Adopt(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if s.meta.height != 0 {
		return fmt.Errorf("adopt %s: the store is at height %d, and only an empty one can become another", dir, s.meta.height)
	}
	if err := s.discard(); err != nil {
		return err
	}
	// Look first: what cannot be opened must not take the place.
	o := s.o
	o.OnFatal = nil
	probe, err := Open(dir, o)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	height := probe.Height()
	if err := probe.Close(); err != nil || height == 0 {
		return errors.Join(fmt.Errorf("adopt %s: it has no state", dir), err)
	}
	s.viewMu.Lock()
	p := s.current
	s.current = nil
	s.viewMu.Unlock()
	for deadline := time.Now().Add(adoptPatience); ; time.Sleep(time.Millisecond) {
		s.viewMu.Lock()
		alone := p.refs == 1
		if !alone && time.Now().After(deadline) {
			s.current = p
			s.viewMu.Unlock()
			return fmt.Errorf("adopt %s: somebody has been reading the empty state for %s", dir, adoptPatience)
		}
		s.viewMu.Unlock()
		if alone {
			break
		}
	}
	s.release(p)
	if err := s.exchange(dir); err != nil {
		s.fail(fmt.Errorf("adopt %s: %w", dir, err))
		return s.failure()
	}
	s.stale = false
	return nil
}

func (s *Store) exchange(dir string) error {
	if err := s.db.Close(); err != nil {
		return err
	}
	fs, parent := s.fs(), filepath.Dir(s.dir)
	if err := fs.Rename(s.dir, s.dir+asideSuffix); err != nil {
		return err
	}
	// A crash before this line leaves no folder: the next Open makes an empty store, which is what this one was.
	if err := fs.Rename(dir, s.dir); err != nil {
		return err
	}
	if err := durable.SyncDir(fs, parent); err != nil {
		return err
	}
	if err := fs.RemoveAll(s.dir + asideSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := pebble.Open(s.dir, s.pebbleOptions())
	if err != nil {
		return err
	}
	s.db = db
	return s.load()
}

func (s *Store) fs() vfs.FS {
	if s.o.FS != nil {
		return s.o.FS
	}
	return vfs.Default
}
