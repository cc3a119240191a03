package store

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pacioli-ledger/pacioli/failpoint"
)

// staged is a block whose batch is built and not yet written.
type staged struct {
	meta    meta
	appHash [32]byte
	batch   *pebble.Batch
}

// Stage builds the batch of the block at height and gives the AppHash; nothing is written before Commit. height follows
// the committed one (or is the initial height). writes are sorted by key, each key once; a Write that changes nothing is
// dropped, by comparing with the committed value, so that every node makes the same tree nodes. index rows are put or
// deleted in the order given. note is kept with the height. The slices are not kept after Stage returns.
//
// A block that is staged must be committed or discarded before the next Stage. An error leaves nothing staged and the
// committed state untouched.
func (s *Store) Stage(height uint64, writes []Write, index []Write, note []byte) (root []byte, err error) {
	begin := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	if s.staged != nil {
		return nil, fmt.Errorf("stage height %d: height %d is staged already: commit or discard it first",
			height, s.staged.meta.height)
	}
	next := s.meta.height + 1
	if s.meta.height == 0 {
		next = s.meta.initial
	}
	if height != next {
		return nil, fmt.Errorf("stage height %d: the next height is %d", height, next)
	}
	groups, err := group(writes)
	if err != nil {
		return nil, fmt.Errorf("stage height %d: %w", height, err)
	}
	if err := checkIndex(index); err != nil {
		return nil, fmt.Errorf("stage height %d: %w", height, err)
	}
	if len(note) > maxNoteBytes {
		return nil, fmt.Errorf("stage height %d: note of %d bytes, at most %d", height, len(note), maxNoteBytes)
	}
	if s.stale {
		if err := s.restoreTrees(); err != nil {
			return nil, fmt.Errorf("stage height %d: load trees again: %w", height, err)
		}
	}
	st, err := s.build(height, groups, index, note)
	if err != nil {
		s.stale = true
		return nil, fmt.Errorf("stage height %d: %w", height, err)
	}
	if err := s.failure(); err != nil { // the database broke while the block was built
		return nil, errors.Join(err, st.batch.Close())
	}
	s.staged = st
	failpoint.Here("store.stage")
	s.metrics.stageNanos.Store(int64(time.Since(begin)))
	return append([]byte(nil), st.appHash[:]...), nil
}

func (s *Store) usable() error {
	if s.closed {
		return ErrClosed
	}
	return s.failure()
}

// restoreTrees throws the writer's trees away and loads them at the committed height.
func (s *Store) restoreTrees() error {
	rec := new(record)
	if s.meta.height > 0 {
		var err error
		if rec, err = readRecord(s.db, s.meta.height); err != nil {
			return err
		}
	}
	if err := s.loadTrees(rec); err != nil {
		return err
	}
	s.stale = false
	return nil
}

// group checks the writes and deals them out to the trees, keeping their order; the last group is beside the trees.
func group(writes []Write) (groups [treeCount + 1][]Write, err error) {
	for i, w := range writes {
		switch {
		case i > 0 && bytes.Compare(writes[i-1].Key, w.Key) >= 0:
			return groups, fmt.Errorf("write %d: key %x does not sort after %x", i, w.Key, writes[i-1].Key)
		case len(w.Key) > maxKeyBytes:
			return groups, fmt.Errorf("write %d: key of %d bytes, at most %d", i, len(w.Key), maxKeyBytes)
		case w.Value != nil && len(w.Value) == 0:
			return groups, fmt.Errorf("write %d: key %x has an empty value, which cannot be proven", i, w.Key)
		case len(w.Value) > maxValueBytes:
			return groups, fmt.Errorf("write %d: value of %d bytes, at most %d", i, len(w.Value), maxValueBytes)
		}
		g := treeIndex(w.Key)
		if g < 0 {
			return groups, fmt.Errorf("write %d: no tree holds key %x", i, w.Key)
		}
		groups[g] = append(groups[g], w)
	}
	return groups, nil
}

func checkIndex(index []Write) error {
	for i, w := range index {
		if len(w.Key) == 0 || len(w.Key) > maxKeyBytes {
			return fmt.Errorf("index row %d: key of %d bytes, want 1 to %d", i, len(w.Key), maxKeyBytes)
		}
		if len(w.Value) > maxValueBytes {
			return fmt.Errorf("index row %d: value of %d bytes, at most %d", i, len(w.Value), maxValueBytes)
		}
	}
	return nil
}

// part is what one group contributes to a block.
type part struct {
	batch *pebble.Batch
	root  [32]byte
	undo  []byte
	err   error
}

// build makes the batch. The trees are worked on in parallel, each by one goroutine with a batch of its own; the parts
// are put together in the order of the groups, so the batch is the same whatever the scheduler does.
func (s *Store) build(height uint64, groups [treeCount + 1][]Write, index []Write, note []byte) (*staged, error) {
	m := s.meta
	m.height = height
	pruneTo := uint64(0) // prune heights up to and including this one
	keep := s.retain.Load()
	if n := s.o.KeepVersions; n > 0 && height > n {
		keep = max(keep, height-n+1)
	}
	if keep = min(keep, height-min(height, minKeepVersions-1)); keep > m.first {
		pruneTo = min(keep-1, m.first+uint64(s.o.PruneBudget)-1)
		m.first = pruneTo + 1
	}
	m.undoFirst = max(m.undoFirst, m.first+1)
	if height > undoHeights {
		m.undoFirst = max(m.undoFirst, height+1-undoHeights)
	}

	var parts [treeCount + 1]part
	work := make(chan int, len(parts))
	for g := range parts {
		work <- g
	}
	close(work)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(parts)) {
		wg.Go(func() {
			for g := range work {
				parts[g].batch = s.db.NewBatch()
				if g == beside {
					parts[g].err = s.stageFlat(&parts[g], groups[g], nil)
				} else {
					parts[g].err = s.stageTree(&parts[g], g, height, pruneTo, groups[g])
				}
			}
		})
	}
	wg.Wait()

	st := &staged{meta: m, batch: s.db.NewBatch()}
	rec := record{note: note}
	var undo []byte
	var errs []error
	for g := range parts {
		if err := parts[g].err; err != nil {
			errs = append(errs, err)
			continue
		}
		if g != beside {
			rec.roots[g] = parts[g].root
		}
		undo = append(undo, parts[g].undo...)
		errs = append(errs, st.batch.Apply(parts[g].batch, nil))
	}
	rec.appHash = appHash(&rec.roots)
	st.appHash = rec.appHash

	for _, w := range index {
		if w.Value == nil {
			errs = append(errs, st.batch.Delete(indexKey(w.Key), nil))
		} else {
			errs = append(errs, st.batch.Set(indexKey(w.Key), w.Value, nil))
		}
	}
	errs = append(errs, st.batch.Set(heightKey(spaceRecord, height), rec.encode(), nil))
	if height > m.initial { // there is no state before the first height to go back to
		errs = append(errs, st.batch.Set(heightKey(spaceUndo, height), undo, nil))
	}
	// Records and undo rows go with what they belong to. A range of one is still a point: Pebble keeps a range
	// tombstone per file, and one per block would be many.
	for h := s.meta.first; h < m.first; h++ {
		errs = append(errs, st.batch.Delete(heightKey(spaceRecord, h), nil))
	}
	for h := s.meta.undoFirst; h < m.undoFirst; h++ {
		errs = append(errs, st.batch.Delete(heightKey(spaceUndo, h), nil))
	}
	errs = append(errs, st.batch.Set(stateKey, m.encode(), nil))

	for g := range parts {
		errs = append(errs, parts[g].batch.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, st.batch.Close())
	}
	return st, nil
}

// stageTree brings tree g to its version of this height.
func (s *Store) stageTree(p *part, g int, height, pruneTo uint64, writes []Write) error {
	// Roots that pruning moved stay in iavl's cache for good (see treeDB.moved). Before they outnumber the cache, start
	// again with an empty one. On an idle network that is once in a long while, on a busy one roots seldom move.
	if s.trees[g].db.moved > max(s.treeCacheNodes(), 1000) {
		if err := s.reloadTree(g); err != nil {
			return fmt.Errorf("tree %s: load again: %w", treeNames[g], err)
		}
	}
	t := s.trees[g]
	t.db.sink = p.batch
	defer func() { t.db.sink = nil }()

	// Prune first: afterwards the newest version would be one that the database does not hold yet.
	if pruneTo > 0 {
		if err := t.tree.DeleteVersionsTo(int64(pruneTo)); err != nil {
			return fmt.Errorf("tree %s: prune to height %d: %w", treeNames[g], pruneTo, err)
		}
	}
	if s.meta.height == 0 {
		if _, err := t.tree.Set(sentinel(g)); err != nil {
			return fmt.Errorf("tree %s: set sentinel: %w", treeNames[g], err)
		}
	}
	if err := s.stageFlat(p, writes, t); err != nil {
		return fmt.Errorf("tree %s: %w", treeNames[g], err)
	}
	root, version, err := t.tree.SaveVersion()
	if err != nil {
		return fmt.Errorf("tree %s: save version: %w", treeNames[g], err)
	}
	if version != int64(height) || len(root) != len(p.root) {
		return fmt.Errorf("tree %s: saved version %d with root %x, want version %d", treeNames[g], version, root, height)
	}
	copy(p.root[:], root)
	return nil
}

// stageFlat puts the writes that change something into the flat rows, the undo row, and the tree if there is one.
func (s *Store) stageFlat(p *part, writes []Write, t *writerTree) error {
	for _, w := range writes {
		row := flatKey(w.Key)
		old, err := get(s.db, row)
		if err != nil {
			return fmt.Errorf("read state key %x: %w", w.Key, err)
		}
		if (old == nil) == (w.Value == nil) && bytes.Equal(old, w.Value) {
			continue
		}
		p.undo = appendUndo(p.undo, w.Key, old)
		if w.Value == nil {
			if t != nil {
				if _, removed, err := t.tree.Remove(w.Key); err != nil {
					return fmt.Errorf("remove key %x: %w", w.Key, err)
				} else if !removed {
					return fmt.Errorf("remove key %x: %w: it has a flat row but no leaf", w.Key, ErrMismatch)
				}
			}
			if err := p.batch.Delete(row, nil); err != nil {
				return err
			}
			continue
		}
		if t != nil {
			// The tree keeps key and value in its cache: give it copies, so that neither the caller's later writing
			// nor the block's bytes behind the slices stay with it.
			key, value := bytes.Clone(w.Key), bytes.Clone(w.Value)
			if had, err := t.tree.Set(key, value); err != nil {
				return fmt.Errorf("set key %x: %w", w.Key, err)
			} else if had != (old != nil) {
				return fmt.Errorf("set key %x: %w: had a leaf: %t, had a flat row: %t", w.Key, ErrMismatch, had, old != nil)
			}
		}
		if err := p.batch.Set(row, w.Value, nil); err != nil {
			return err
		}
	}
	return nil
}

// Discard throws away what is staged, if anything. The trees are loaded again at the next Stage, with empty caches.
func (s *Store) Discard() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	return s.discard()
}

func (s *Store) discard() error {
	if s.staged == nil {
		return nil
	}
	st := s.staged
	s.staged, s.stale = nil, true
	return st.batch.Close()
}

// Commit writes the staged block, waits until it is on the disk, and publishes its height. When it gives an error, the
// error is ErrBroken (or that nothing was staged, or that the store is closed): the block may or may not be on the disk.
//
// On some failures (a new log file cannot be made) Pebble panics, with a lock in a state that ends the process at once.
// That is as good as a crash: no later call can be made.
func (s *Store) Commit() error {
	begin := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	st := s.staged
	if st == nil {
		return errors.New("commit: nothing is staged")
	}
	s.metrics.batchBytes.Store(int64(st.batch.Len()))
	// A crash before this line loses the block: CometBFT has it and replays it.
	failpoint.Here("store.commit")
	if err := st.batch.Commit(pebble.Sync); err != nil {
		s.fail(fmt.Errorf("commit height %d: %w", st.meta.height, err))
	}
	// Pebble reports a failed write to its logger and then returns nil.
	if err := s.failure(); err != nil {
		return err
	}
	// A crash after this line loses nothing.
	failpoint.Here("store.committed")
	s.staged = nil
	s.meta = st.meta
	s.publish(st.meta, st.appHash)
	if err := st.batch.Close(); err != nil {
		s.log.Error("batch did not close", "height", st.meta.height, "err", err)
	}
	s.metrics.commitNanos.Store(int64(time.Since(begin)))
	return nil
}
