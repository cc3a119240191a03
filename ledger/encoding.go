package ledger

import (
	"maps"
	"slices"
	"strconv"
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
