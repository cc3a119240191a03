package reference

import "math/big"

// undo are the steps that bring the state back to a mark, to be taken from the last to the first.
type undo struct{ steps []func() }

func (u *undo) mark() int { return len(u.steps) }

func (u *undo) back(mark int) {
	for len(u.steps) > mark {
		last := len(u.steps) - 1
		u.steps[last]()
		u.steps = u.steps[:last]
	}
}

// table holds the rows of one kind. A row is never changed where it lies: edit puts a copy in its place.
type table[K comparable, V any] struct {
	undo *undo
	rows map[K]*V
}

func newTable[K comparable, V any](u *undo) table[K, V] { return table[K, V]{u, map[K]*V{}} }

// get returns the row, to be read only, or nil.
func (t table[K, V]) get(key K) *V { return t.rows[key] }

// edit returns a copy of the row, now in the table, that the caller may change at once; a zero row where there was none.
func (t table[K, V]) edit(key K) *V {
	var row V
	if old := t.rows[key]; old != nil {
		row = *old
	}
	t.put(key, &row)
	return &row
}

func (t table[K, V]) put(key K, row *V) {
	old := t.rows[key]
	t.undo.steps = append(t.undo.steps, func() {
		if old == nil {
			delete(t.rows, key)
		} else {
			t.rows[key] = old
		}
	})
	t.rows[key] = row
}

func (t table[K, V]) drop(key K) {
	old := t.rows[key]
	t.undo.steps = append(t.undo.steps, func() { t.rows[key] = old })
	delete(t.rows, key)
}

// amount is an integer without bounds that is never changed; the zero value is 0.
type amount struct{ value *big.Int }

var (
	zero  = new(big.Int)
	limit = amount{new(big.Int).Lsh(big.NewInt(1), 128)} // every counter stays below it
)

func (a amount) big() *big.Int {
	if a.value == nil {
		return zero
	}
	return a.value
}

func units(n uint64) amount              { return amount{new(big.Int).SetUint64(n)} }
func amountOf(b []byte) amount           { return amount{new(big.Int).SetBytes(b)} }
func (a amount) bytes() []byte           { return a.big().Bytes() }
func (a amount) isZero() bool            { return a.big().Sign() == 0 }
func (a amount) plus(b amount) amount    { return amount{new(big.Int).Add(a.big(), b.big())} }
func (a amount) minus(b amount) amount   { return amount{new(big.Int).Sub(a.big(), b.big())} }
func (a amount) above(b amount) bool     { return a.big().Cmp(b.big()) > 0 }
func (a amount) equals(b amount) bool    { return a.big().Cmp(b.big()) == 0 }
func (a amount) atMost(b amount) amount  { return pick(a.above(b), b, a) }
func (a amount) atLeast(b amount) amount { return pick(b.above(a), b, a) }

func pick[V any](condition bool, yes, no V) V {
	if condition {
		return yes
	}
	return no
}
