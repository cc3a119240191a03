package store

import "fmt"

// IndexReader reads the application's index at one committed height. The index is not hashed and can be rebuilt from
// blocks. It is a View of the index: close it soon.
type IndexReader struct{ v *View }

// Index opens the index as it was committed with the newest height.
func (s *Store) Index() IndexReader { return IndexReader{s.View()} }

// Height that the index belongs to.
func (r IndexReader) Height() uint64 { return r.v.Height() }

// Get gives a copy of a row's value; nil when there is no such row, empty but not nil when the row is empty.
func (r IndexReader) Get(key []byte) ([]byte, error) {
	if err := r.v.ready(); err != nil {
		return nil, err
	}
	b, err := get(r.v.p.snap, indexKey(key))
	if err != nil {
		return nil, fmt.Errorf("read index key %x: %w", key, err)
	}
	return b, nil
}

// Range calls fn for every row with a key in [start, end), ascending, or descending when reverse is set, until fn gives
// an error, and returns that error. A nil end means the last key. fn must copy what it keeps, and the caller must bound
// the range or stop fn: the index has as many rows as the network has history.
func (r IndexReader) Range(start, end []byte, reverse bool, fn func(key, value []byte) error) error {
	if err := r.v.ready(); err != nil {
		return err
	}
	return scan(r.v.p.snap, spaceIndex, start, end, reverse, fn)
}

// Close ends the reader; twice does nothing.
func (r IndexReader) Close() { r.v.Close() }
