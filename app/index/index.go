// Package index lays out the rows by which a node finds transactions and journal entries. They are not hashed and not
// consensus: they go into the same batch as the block they belong to, so they are never behind the state, and can be
// built again from the blocks.
//
//	0x00                                    -> height(8) of the first block whose rows are kept; absent: of the first block
//	0x01 tx_id(32)                          -> position
//	0x02 SHA-256 of the raw bytes(32)       -> position
//	0x03 height(8) index(4)                 -> {bytes raw = 1; uint32 code = 2; bytes data = 3; bool omitted = 4}
//	0x04 account(32) asset(16) incarnation(8) number(8) -> journal entry
//	0x05 height(8)                          -> the keys of the block's first entry in each journal, one behind the other
//	0x06 reference(16) height(8) entry(64)            -> nothing: entry is a key of 0x04 without its first byte
//	0x07 hold(32) height(8) entry(64)                 -> nothing
//	0x08 account(32) code(2) height(8) entry(64)      -> nothing
//
// By reference and code are found transfers, holds made and clawbacks, whose operations say both; by hold its making and
// its end. Of the two entries of a movement the debited side is kept; by code, the account's.
//
// A position is height(8) || index(4), all integers big-endian.
package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

const (
	rowBase  byte = 0x00
	rowID    byte = 0x01
	rowHash  byte = 0x02
	rowTx    byte = 0x03
	rowEntry byte = 0x04
	rowFirst byte = 0x05

	rowReference byte = 0x06
	rowHold      byte = 0x07
	rowCode      byte = 0x08
)

// ErrOmitted: the block holds bytes that are too long for any transaction. Only more than two thirds of dishonest voting
// power can decide such a block; it must not stop this node, so the bytes are left out, and with them every proof that is
// made from the whole block.
var ErrOmitted = errors.New("the index does not keep bytes that are too long for a transaction")

// Reader reads index rows of one committed height.
type Reader interface {
	// Get returns a row's value, nil when there is none.
	Get(key []byte) ([]byte, error)
	// Range calls fn for every row with a key in [start, end), ascending, or descending when reverse, until fn gives an
	// error, and returns that error.
	Range(start, end []byte, reverse bool, fn func(key, value []byte) error) error
}

// Position is the place of a transaction.
type Position struct {
	Height uint64
	Index  uint32
}

// Tx is a transaction as it stands in a block, with its result.
type Tx struct {
	Raw  []byte
	Code uint32
	Data []byte // the receipt
}

// Rows returns the rows of one block. ids are the transactions' ids, zero for bytes that are not a transaction; a
// position of an id is written only where the transaction was not refused, so that a refused copy of a transaction in a
// dishonest proposer's block never hides the real one.
func Rows(height uint64, txs []Tx, ids []crypto.Hash, hashes []crypto.Hash, entries []ledger.LineEntry) []ledger.Write {
	rows := make([]ledger.Write, 0, 3*len(txs)+len(entries))
	for i, tx := range txs {
		at := appendPosition(nil, Position{height, uint32(i)})
		if !ledger.Code(tx.Code).Refused() {
			rows = append(rows, ledger.Write{Key: append([]byte{rowID}, ids[i][:]...), Value: at},
				ledger.Write{Key: append([]byte{rowHash}, hashes[i][:]...), Value: at})
		}
		w := canonical.NewWriter(nil)
		omitted := len(tx.Raw) > ledger.MaxTxBytes
		if !omitted {
			w.Bytes(1, tx.Raw)
		}
		w.Uint32(2, tx.Code)
		w.Bytes(3, tx.Data)
		w.Bool(4, omitted)
		rows = append(rows, ledger.Write{Key: append([]byte{rowTx}, at...), Value: w.Done()})
	}
	var firsts []byte
	seen := map[journal]bool{}
	for _, e := range entries {
		key := entryKey(e.Line, e.Incarnation, e.Number)
		rows = append(rows, ledger.Write{Key: key, Value: e.Encoded})
		if j := (journal{e.Line, e.Incarnation}); !seen[j] {
			seen[j] = true
			firsts = append(firsts, key...)
		}
		if !e.Noted {
			continue
		}
		entry, err := ledger.DecodeEntry(e.Encoded)
		if err != nil { // it was encoded a moment ago
			panic(fmt.Sprintf("entry %d of %s does not decode: %s", e.Number, e.Line.Account, err))
		}
		for _, key := range searchKeys(key, entry) {
			rows = append(rows, ledger.Write{Key: key, Value: []byte{}})
		}
	}
	if firsts != nil {
		rows = append(rows, ledger.Write{Key: firstKey(height), Value: firsts})
	}
	return rows
}

// searchKeys returns the keys of the rows by which an entry is found. They follow from the entry and its own key alone, so
// that a rollback can name them.
func searchKeys(entryKey []byte, e ledger.Entry) (keys [][]byte) {
	add := func(s query.Search) {
		key := binary.BigEndian.AppendUint64(searchPrefix(s), e.Height)
		keys = append(keys, append(key, entryKey[1:]...))
	}
	switch e.Kind {
	case ledger.EntryTransfer, ledger.EntryHold, ledger.EntryClawback:
		if e.Reference != (ledger.Reference{}) && !e.Credit {
			add(query.Search{By: query.ByReference, Reference: e.Reference})
		}
		if e.Code != 0 {
			add(query.Search{By: query.ByCode, Account: crypto.Address(entryKey[1:33]), Code: e.Code})
		}
	}
	switch e.Kind {
	case ledger.EntryHold, ledger.EntryPost, ledger.EntryVoid, ledger.EntryExpire:
		if !e.Credit {
			add(query.Search{By: query.ByHold, Hold: e.Hold})
		}
	}
	return keys
}

// searchPrefix returns what the rows begin with that a search looks through.
func searchPrefix(s query.Search) []byte {
	key := s.Key()
	key[0] = map[query.SearchBy]byte{query.ByReference: rowReference, query.ByHold: rowHold, query.ByCode: rowCode}[s.By]
	return key
}

// Search returns entries that were searched for, ascending by height. The caller bounds the search's limit.
func Search(r Reader, s query.Search) (hits query.Hits, err error) {
	prefix := searchPrefix(s)
	const rest = 8 + entryKeyBytes - 1
	if len(s.After) != 0 && len(s.After) != rest {
		return hits, fmt.Errorf("%w: cursor of %d bytes, want %d", ErrCursor, len(s.After), rest)
	}
	start := prefix
	if len(s.After) != 0 {
		start = append(slices.Concat(prefix, s.After), 0)
	}
	end := slices.Concat(prefix, bytes.Repeat([]byte{0xff}, rest+1))
	var keys [][]byte
	err = r.Range(start, end, false, func(key, _ []byte) error {
		if len(key) != len(prefix)+rest {
			return fmt.Errorf("index row %x has a wrong length: rebuild the index", key)
		}
		if len(keys) == int(s.Limit) {
			return errEnough
		}
		keys = append(keys, append([]byte(nil), key[len(prefix):]...))
		return nil
	})
	if errors.Is(err, errEnough) && len(keys) > 0 {
		hits.Next = keys[len(keys)-1]
	} else if err != nil {
		return hits, fmt.Errorf("searching the index: %w", err)
	}
	for _, k := range keys {
		key := append([]byte{rowEntry}, k[8:]...)
		encoded, err := r.Get(key)
		if err == nil && encoded == nil {
			err = errors.New("there is no such entry: rebuild the index")
		}
		if err != nil {
			return query.Hits{}, fmt.Errorf("reading index row %x: %w", key, err)
		}
		e := ledger.LineEntry{Encoded: encoded, Noted: true}
		k = k[8:]
		k = k[copy(e.Line.Account[:], k):]
		k = k[copy(e.Line.Asset[:], k):]
		e.Incarnation, e.Number = binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[8:])
		hits.Entries = append(hits.Entries, e)
	}
	return hits, nil
}

// ErrCursor: the search is to go on where no answer has ended.
var ErrCursor = errors.New("not the cursor of an earlier answer")

type journal struct {
	line        ledger.LineKey
	incarnation uint64
}

// Undo returns the deletions of the rows of the newest block, for a rollback.
func Undo(r Reader, height uint64, network crypto.Hash) ([]ledger.Write, error) {
	return deletions(r, height, network)
}

// Base returns the height of the first block whose rows are kept; 0: nothing was ever pruned.
func Base(r Reader) (uint64, error) {
	v, err := r.Get([]byte{rowBase})
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("index row of the first kept block has %d bytes, want 8: rebuild the index", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// BeginsAt returns the row which says that the rows of the blocks from a height on are kept: of a node whose state came with a
// snapshot, and the blocks before it never.
func BeginsAt(height uint64) ledger.Write {
	return ledger.Write{Key: []byte{rowBase}, Value: binary.BigEndian.AppendUint64(nil, height)}
}

// Prune returns the deletions of the rows of the blocks in [from, to), and the row that says so. They are all rows of those
// blocks: of their transactions, of the journal entries that they made, and by which those are found. Blocks are pruned
// in the order of their heights, each once.
func Prune(r Reader, from, to uint64, network crypto.Hash) ([]ledger.Write, error) {
	var rows []ledger.Write
	for height := from; height < to; height++ {
		block, err := deletions(r, height, network)
		if err != nil {
			return nil, err
		}
		rows = append(rows, block...)
	}
	return append(rows, BeginsAt(to)), nil
}

// deletions returns the deletions of all rows of a block, of which the blocks above it need none.
func deletions(r Reader, height uint64, network crypto.Hash) ([]ledger.Write, error) {
	txs, _, err := block(r, height) // what was left out was no transaction, and has no other row
	if err != nil {
		return nil, err
	}
	var rows []ledger.Write
	for i, tx := range txs {
		rows = append(rows, ledger.Write{Key: append([]byte{rowTx}, appendPosition(nil, Position{height, uint32(i)})...)})
		decoded, err := ledger.Decode(tx.Raw)
		if err != nil || ledger.Code(tx.Code).Refused() {
			continue // it has no other row
		}
		id, hash := decoded.ID(network), decoded.Hash()
		rows = append(rows, ledger.Write{Key: append([]byte{rowID}, id[:]...)}, ledger.Write{Key: append([]byte{rowHash}, hash[:]...)})
	}
	firsts, err := r.Get(firstKey(height))
	if err != nil {
		return nil, fmt.Errorf("reading the index of block %d: %w", height, err)
	}
	if len(firsts)%entryKeyBytes != 0 {
		return nil, fmt.Errorf("index row of the entries of block %d has %d bytes: rebuild the index", height, len(firsts))
	}
	for key := range slices.Chunk(firsts, entryKeyBytes) {
		end := slices.Concat(key[:entryKeyBytes-8], binary.BigEndian.AppendUint64(nil, 1<<64-1), []byte{0})
		err := r.Range(key, end, false, func(key, value []byte) error {
			entry, err := ledger.DecodeEntry(append([]byte(nil), value...))
			if err != nil {
				return fmt.Errorf("%w: rebuild the index", err)
			}
			if entry.Height > height { // those of genesis are lower, and go with the first block
				return errEnough
			}
			rows = append(rows, ledger.Write{Key: append([]byte(nil), key...)})
			for _, k := range searchKeys(key, entry) {
				rows = append(rows, ledger.Write{Key: k})
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, fmt.Errorf("reading the entries of block %d: %w", height, err)
		}
	}
	if firsts != nil {
		rows = append(rows, ledger.Write{Key: firstKey(height)})
	}
	return rows, nil
}

func appendPosition(b []byte, p Position) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, p.Height), p.Index)
}

const entryKeyBytes = 1 + 32 + 16 + 8 + 8

func entryKey(line ledger.LineKey, incarnation, number uint64) []byte {
	key := make([]byte, 0, entryKeyBytes+1) // with room for an end that is one byte longer
	key = append(append(append(key, rowEntry), line.Account[:]...), line.Asset[:]...)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key, incarnation), number)
}

func firstKey(height uint64) []byte { return binary.BigEndian.AppendUint64([]byte{rowFirst}, height) }

// ByID finds a transaction by its id; ok is false when no block has it.
func ByID(r Reader, id crypto.Hash) (Position, bool, error) { return position(r, rowID, id) }

// ByHash finds a transaction by the SHA-256 of its bytes, which is CometBFT's name for it.
func ByHash(r Reader, hash crypto.Hash) (Position, bool, error) { return position(r, rowHash, hash) }

func position(r Reader, kind byte, name crypto.Hash) (Position, bool, error) {
	v, err := r.Get(append([]byte{kind}, name[:]...))
	if err != nil || v == nil {
		return Position{}, false, err
	}
	if len(v) != 12 {
		return Position{}, false, fmt.Errorf("index row of transaction %s has %d bytes, want 12: rebuild the index", name, len(v))
	}
	return Position{binary.BigEndian.Uint64(v), binary.BigEndian.Uint32(v[8:])}, true, nil
}

// Block returns all transactions of a block in their order; the error is ErrOmitted when not all of it is kept.
func Block(r Reader, height uint64) ([]Tx, error) {
	txs, omitted, err := block(r, height)
	if err == nil && omitted >= 0 {
		return nil, fmt.Errorf("reading the index of block %d: %w: transaction %d", height, ErrOmitted, omitted)
	}
	return txs, err
}

// block is Block, and names a transaction whose bytes are left out; -1: there is none.
func block(r Reader, height uint64) (txs []Tx, omitted int, err error) {
	omitted = -1
	start := append([]byte{rowTx}, appendPosition(nil, Position{Height: height})...)
	end := append([]byte{rowTx}, appendPosition(nil, Position{Height: height + 1})...)
	err = r.Range(start, end, false, func(_, value []byte) error {
		c := canonical.NewReader(append([]byte(nil), value...))
		txs = append(txs, Tx{Raw: c.Bytes(1, "raw", ledger.MaxTxBytes), Code: c.Uint32(2, "code"), Data: c.Bytes(3, "data", 1<<20)})
		if c.Bool(4, "omitted") {
			omitted = len(txs) - 1
		}
		return c.Close()
	})
	if err != nil {
		return nil, omitted, fmt.Errorf("reading the index of block %d: %w", height, err)
	}
	return txs, omitted, nil
}

// ErrPruned: the rows of the block that is asked for, or may be, are no longer kept.
var ErrPruned = errors.New("the index of this node does not reach back so far: ask a node that keeps more")

// Entries returns up to limit encoded journal entries of a line, in one of its incarnations, from number on, ascending. The
// caller bounds limit. The error is ErrPruned when entries from that number on are no longer kept. made tells how many entries
// the journal has, as far as the caller knows; of a journal that ended, 0.
func Entries(r Reader, line ledger.LineKey, incarnation, from, made uint64, limit int) ([][]byte, error) {
	var entries [][]byte
	base, err := Base(r)
	if err != nil {
		return nil, err
	}
	from = max(from, 1) // entries are numbered from 1
	first := uint64(0)
	err = r.Range(entryKey(line, incarnation, from), append(entryKey(line, incarnation, 1<<64-1), 0), false, func(key, value []byte) error {
		if first == 0 {
			first = binary.BigEndian.Uint64(key[entryKeyBytes-8:])
		}
		if len(entries) == limit {
			return errEnough
		}
		entries = append(entries, append([]byte(nil), value...))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("reading the journal of %s: %w", line.Account, err)
	}
	// A journal has no gaps: what is missing at its beginning is pruned.
	if base != 0 && (first > from || first == 0 && (made == 0 || from <= made)) {
		return nil, fmt.Errorf("reading entry %d of the journal of %s: %w (kept: from block %d on)", from, line.Account, ErrPruned, base)
	}
	return entries, nil
}

// errEnough ends a walk over rows.
var errEnough = errors.New("enough")
