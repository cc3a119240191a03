package ledger

import (
	"maps"
	"slices"
	"strconv"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// MaxUnixSeconds is the last second of the year 9999: no time in the ledger is later, so that seconds times 1,000 fit
// 64 bits everywhere.
const MaxUnixSeconds = 253402300799

func appendUint32(b []byte, v uint32) []byte {
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func appendUint64(b []byte, v uint64) []byte {
	return appendUint32(appendUint32(b, uint32(v>>32)), uint32(v))
}

// index names an element of a repeated field in an error.
func index(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// sortedKeys returns a map's keys in ascending order: the only way in which a map is walked here.
func sortedKeys[V any](m map[uint64]V) []uint64 { return slices.Sorted(maps.Keys(m)) }

// readAddress reads an optional address, which is absent when it is zero.
func readAddress(r *canonical.Reader, number int, field string) (a crypto.Address) {
	readOptional(r, number, field, a[:])
	return a
}

// readOptional reads optional fixed bytes, which are absent when they are all zero.
func readOptional(r *canonical.Reader, number int, field string, dst []byte) {
	if r.OptionalFixed(number, field, dst) && isZero(dst) {
		r.Fail(field, "explicit default")
	}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func writeAddress(w *canonical.Writer, number int, a crypto.Address) { writeOptional(w, number, a[:]) }

func writeOptional(w *canonical.Writer, number int, b []byte) {
	if !isZero(b) {
		w.Message(number, b)
	}
}

// readLimit reads an optional limit; nil tells that it is not to be set.
func readLimit(r *canonical.Reader, number int, field string) *Amount {
	message, present := r.Message(number, field)
	if !present {
		return nil
	}
	lr := canonical.NewReader(message)
	amount := readAmount(lr, 1, "amount")
	if err := lr.Close(); err != nil {
		r.Fail(field, "%s", err)
	}
	return &amount
}

func writeLimit(w *canonical.Writer, number int, limit *Amount) {
	if limit != nil {
		lw := canonical.NewWriter(nil)
		lw.Bytes(1, limit.Bytes())
		w.Message(number, lw.Done())
	}
}
