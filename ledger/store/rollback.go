package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pacioli-ledger/pacioli/failpoint"
)

// Rollback takes the store back to a kept height, for an operator whose node computed a wrong state (CometBFT's
// `rollback` is its counterpart there). Heights above to are gone: their nodes, records, notes and undo rows.
//
// Flat rows come back from the undo rows that each block left: what every row that it changed held before. The trees
// could give back only hashed rows, and only by a walk over the whole state; the rows beside them exist nowhere else. Undo
// rows cost the size of what was overwritten, are kept for at most 1,000 heights and never leave the kept window, so
// Rollback reaches as far as both (RollbackFloor).
//
// index, when not nil, is called for each height that goes, newest first, and gives the index rows to put or delete for
// it; nil leaves the index as it is, which is right only for an index that is rebuilt from blocks.
//
// All of it is one batch with one sync. A crash before it leaves the store as it was, after it rolled back; Rollback may
// then be called again. What is staged is discarded. After an error that is ErrBroken the process must stop; after any
// other the store is as it was.
func (s *Store) Rollback(to uint64, index func(height uint64) ([]Write, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.meta.retained(to); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	if to == s.meta.height {
		return s.discard()
	}
	if to < s.meta.undoFirst-1 {
		return fmt.Errorf("roll back to height %d: %w (undo rows reach back to %d); restore a backup or a snapshot instead",
			to, ErrPruned, s.meta.undoFirst-1)
	}
	if err := s.discard(); err != nil {
		return err
	}
	rec, err := readRecord(s.db, to)
	if err != nil {
		return fmt.Errorf("roll back to height %d: %w", to, err)
	}
	m := s.meta
	m.height = to
	m.undoFirst = min(m.undoFirst, to+1)

	b := s.db.NewBatch()
	if err := s.rollback(b, to, index); err != nil {
		return errors.Join(fmt.Errorf("roll back from height %d to %d: %w", s.meta.height, to, err), b.Close())
	}
	if err := b.Set(stateKey, m.encode(), nil); err != nil {
		return errors.Join(err, b.Close())
	}
	failpoint.Here("rollback.commit")
	if err := b.Commit(pebble.Sync); err != nil {
		s.fail(fmt.Errorf("roll back to height %d: %w", to, err))
	}
	if err := s.failure(); err != nil {
		return err
	}
	failpoint.Here("rollback.committed")
	s.meta = m
	if err := s.loadTrees(rec); err != nil {
		s.fail(fmt.Errorf("rolled back to height %d, then: %w", to, err))
		return s.failure()
	}
	s.stale = false
	s.publish(m, rec.appHash)
	s.log.Info("rolled back; CometBFT must be rolled back to the same height", "height", to)
	return b.Close()
}

func (s *Store) rollback(b *pebble.Batch, to uint64, index func(uint64) ([]Write, error)) error {
	for h := s.meta.height; h > to; h-- {
		undo, err := get(s.db, heightKey(spaceUndo, h))
		if err != nil {
			return fmt.Errorf("read undo row of height %d: %w", h, err)
		}
		if undo == nil {
			return fmt.Errorf("undo row of height %d is missing", h)
		}
		for len(undo) > 0 {
			key, old, rest, err := nextUndo(undo)
			if err != nil {
				return fmt.Errorf("undo row of height %d: %w", h, err)
			}
			undo = rest
			// Later writes to a batch win: going down, the oldest value is written last.
			if old == nil {
				err = b.Delete(flatKey(key), nil)
			} else {
				err = b.Set(flatKey(key), old, nil)
			}
			if err != nil {
				return err
			}
		}
		if index != nil {
			rows, err := index(h)
			if err == nil {
				err = checkIndex(rows)
			}
			if err != nil {
				return fmt.Errorf("index rows of height %d: %w", h, err)
			}
			for _, w := range rows {
				if w.Value == nil {
					err = b.Delete(indexKey(w.Key), nil)
				} else {
					err = b.Set(indexKey(w.Key), w.Value, nil)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	errs := []error{
		b.DeleteRange(heightKey(spaceUndo, to+1), []byte{spaceUndo + 1}, nil),
		b.DeleteRange(heightKey(spaceRecord, to+1), []byte{spaceRecord + 1}, nil),
	}
	for i := range treeNames {
		d := treeDB{prefix: treePrefix(i)}
		// Nodes of later versions are only reached from later versions. Those of version `to` and before are all still
		// there: pruning never passes the oldest kept height.
		errs = append(errs, b.DeleteRange(d.key(nodeID{int64(to) + 1, 0}.key()), after(d.prefix), nil))
	}
	return errors.Join(errs...)
}

// RollbackFloor is the lowest height that Rollback can reach now.
func (s *Store) RollbackFloor() uint64 {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	if s.current == nil || s.current.meta.height == 0 {
		return 0
	}
	return min(s.current.meta.undoFirst-1, s.current.meta.height)
}
