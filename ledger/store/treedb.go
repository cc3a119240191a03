package store

import (
	"errors"

	corestore "cosmossdk.io/core/store"
	"github.com/cockroachdb/pebble/v2"
	iavldb "github.com/cosmos/iavl/db"
)

var (
	_ iavldb.DB          = (*treeDB)(nil)
	_ corestore.Batch    = (*treeBatch)(nil)
	_ corestore.Iterator = (*treeIterator)(nil)
)

// treeDB is one tree's part of the database as iavl sees it. Reads come from r; writes go to sink, the block's batch for
// this tree, and reach the disk only when the store commits that batch. That is the whole secret of atomicity: by itself
// iavl writes its batch whenever it passes 100 kB, in the middle of SaveVersion, and a crash there leaves a database
// that cannot be loaded.
//
// Not safe for concurrent writing; one goroutine works on one tree at a time.
type treeDB struct {
	r      pebble.Reader
	prefix []byte
	sink   *pebble.Batch // nil when the tree is only read

	// moved counts the roots that pruning has rewritten under nonce 0. iavl renames the cached node in place, so its
	// LRU can never find the entry again to evict it: each such root stays in memory for good. See (*Store).reloadTree.
	moved int
}

func (d *treeDB) key(k []byte) []byte {
	return append(append(make([]byte, 0, len(d.prefix)+len(k)), d.prefix...), k...)
}

func (d *treeDB) Get(k []byte) ([]byte, error) { return get(d.r, d.key(k)) }

func (d *treeDB) Has(k []byte) (bool, error) {
	_, closer, err := d.r.Get(d.key(k))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

func (d *treeDB) Iterator(start, end []byte) (corestore.Iterator, error) {
	return d.iterate(start, end, false)
}

func (d *treeDB) ReverseIterator(start, end []byte) (corestore.Iterator, error) {
	return d.iterate(start, end, true)
}

func (d *treeDB) iterate(start, end []byte, reverse bool) (corestore.Iterator, error) {
	lower, upper := d.key(start), after(d.prefix)
	if end != nil {
		upper = d.key(end)
	}
	it, err := d.r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	if reverse {
		it.Last()
	} else {
		it.First()
	}
	return &treeIterator{it: it, start: start, end: end, skip: len(d.prefix), reverse: reverse}, nil
}

func (d *treeDB) Close() error                           { return nil } // the store owns the database
func (d *treeDB) NewBatch() corestore.Batch              { return &treeBatch{d} }
func (d *treeDB) NewBatchWithSize(_ int) corestore.Batch { return &treeBatch{d} }

// treeBatch appends to the block's batch. Write does nothing, and a size of 0 keeps iavl from ever writing early.
type treeBatch struct{ d *treeDB }

var errReadOnly = errors.New("tree is open for reading only")

func (b *treeBatch) Set(key, value []byte) error {
	if b.d.sink == nil {
		return errReadOnly
	}
	if n := len(key); n == 13 && key[0] == 's' && string(key[9:]) == "\x00\x00\x00\x00" {
		b.d.moved++
	}
	return b.d.sink.Set(b.d.key(key), value, nil)
}

func (b *treeBatch) Delete(key []byte) error {
	if b.d.sink == nil {
		return errReadOnly
	}
	return b.d.sink.Delete(b.d.key(key), nil)
}

func (b *treeBatch) Write() error              { return nil }
func (b *treeBatch) WriteSync() error          { return nil }
func (b *treeBatch) Close() error              { return nil }
func (b *treeBatch) GetByteSize() (int, error) { return 0, nil }

type treeIterator struct {
	it         *pebble.Iterator
	start, end []byte
	skip       int
	reverse    bool
}

func (i *treeIterator) Domain() (start, end []byte) { return i.start, i.end }
func (i *treeIterator) Valid() bool                 { return i.it.Valid() }
func (i *treeIterator) Key() []byte                 { return append([]byte(nil), i.it.Key()[i.skip:]...) }
func (i *treeIterator) Value() []byte               { return append([]byte{}, i.it.Value()...) }
func (i *treeIterator) Error() error                { return i.it.Error() }
func (i *treeIterator) Close() error                { return i.it.Close() }

func (i *treeIterator) Next() {
	if !i.it.Valid() {
		panic("store: Next on a tree iterator that is not valid")
	}
	if i.reverse {
		i.it.Prev()
	} else {
		i.it.Next()
	}
}
