package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// The database's keyspaces, by first byte:
//
//	'a' || state key            current value of every state key, hashed or beside
//	'b' || height               record of a retained height: AppHash, roots, the application's note
//	'm' || "format" | "state"   format of the database; heights (see meta)
//	't' || tree || iavl key     nodes of tree number `tree` (one byte)
//	'u' || height               undo row: what the flat rows held before that height
//	'x' || index key            rows of the application's index, never hashed
//
// Heights are 8 bytes, big endian, so that rows of heights sort by height.
const (
	spaceFlat   = 'a'
	spaceRecord = 'b'
	spaceMeta   = 'm'
	spaceTree   = 't'
	spaceUndo   = 'u'
	spaceIndex  = 'x'
)

// format is written once, when a database is made. A program that knows another format refuses to open it.
var (
	formatKey = []byte("mformat")
	format    = []byte("pacioli.store.v1")
	stateKey  = []byte("mstate")
)

func flatKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), spaceFlat), key...)
}
func indexKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), spaceIndex), key...)
}
func treePrefix(i int) []byte { return []byte{spaceTree, byte(i)} }

func heightKey(space byte, height uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), space), height)
}

// after gives the smallest key above every key that begins with prefix. No prefix here ends in 0xff.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}

// get copies a row's value; nil when the row is absent.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(v)) // never nil: an index row may be empty and yet present
	copy(out, v)
	return out, closer.Close()
}

// meta is the one row that says what is committed: 0x01 || height || first || undoFirst || initial.
type meta struct {
	height    uint64 // last committed, 0 before the first commit
	first     uint64 // oldest height whose trees and record are kept
	undoFirst uint64 // oldest height that has an undo row: Rollback reaches undoFirst-1
	initial   uint64 // height of the first commit; the trees' first version
}

func (m meta) encode() []byte {
	b := []byte{0x01}
	for _, v := range [...]uint64{m.height, m.first, m.undoFirst, m.initial} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) != 33 || b[0] != 0x01 {
		return meta{}, fmt.Errorf("row of heights: %d bytes %x, want 33 beginning with 01", len(b), b)
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	m := meta{u(0), u(1), u(2), u(3)}
	if m.initial == 0 || m.first < m.initial || m.height < m.first || m.undoFirst < m.first {
		return meta{}, fmt.Errorf("row of heights: impossible %+v", m)
	}
	return m, nil
}

// record is what is kept of one height: 0x01 || AppHash || 19 roots in the order of treeNames || note.
type record struct {
	appHash [32]byte
	roots   [treeCount][32]byte
	note    []byte
}

const recordBytes = 1 + 32 + treeCount*32 // without the note

func (r *record) encode() []byte {
	b := make([]byte, 0, recordBytes+len(r.note))
	b = append(append(b, 0x01), r.appHash[:]...)
	for i := range r.roots {
		b = append(b, r.roots[i][:]...)
	}
	return append(b, r.note...)
}

func decodeRecord(b []byte) (*record, error) {
	if len(b) < recordBytes || b[0] != 0x01 {
		return nil, fmt.Errorf("record of %d bytes, want at least %d beginning with 01", len(b), recordBytes)
	}
	r := new(record)
	b = b[1+copy(r.appHash[:], b[1:]):]
	for i := range r.roots {
		b = b[copy(r.roots[i][:], b):]
	}
	r.note = b
	return r, nil
}

// readRecord reads the record of a height that the caller knows to be retained.
func readRecord(r pebble.Reader, height uint64) (*record, error) {
	b, err := get(r, heightKey(spaceRecord, height))
	if err != nil {
		return nil, fmt.Errorf("read record of height %d: %w", height, err)
	}
	if b == nil {
		return nil, fmt.Errorf("record of height %d is missing", height)
	}
	rec, err := decodeRecord(b)
	if err != nil {
		return nil, fmt.Errorf("height %d: %w", height, err)
	}
	return rec, nil
}

// An undo row is a list of (uvarint length || key || 0x00) for a key that was absent and (uvarint length || key || 0x01
// || uvarint length || value) for one that held value.

func appendUndo(b, key, old []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	if old == nil {
		return append(b, 0x00)
	}
	return append(binary.AppendUvarint(append(b, 0x01), uint64(len(old))), old...)
}

// nextUndo takes the first entry off an undo row. old is nil when the key was absent.
func nextUndo(b []byte) (key, old, rest []byte, err error) {
	key, b, err = takeBytes(b)
	if err != nil || len(b) == 0 {
		return nil, nil, nil, io.ErrUnexpectedEOF
	}
	switch b[0] {
	case 0x00:
		return key, nil, b[1:], nil
	case 0x01:
		old, rest, err = takeBytes(b[1:])
		return key, old, rest, err
	}
	return nil, nil, nil, fmt.Errorf("undo entry marked %02x", b[0])
}

func takeBytes(b []byte) (head, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return b[w : w+int(n)], b[w+int(n):], nil
}
