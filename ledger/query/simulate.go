package query

import (
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Simulation is what a transaction would do in the next block, were it the first in it and the block's time that of the
// newest one. It is one node's word and no promise: what comes before it may change everything.
type Simulation struct {
	Height     uint64 // of the block that it was tried in: one above the newest
	UnixMillis uint64 // the block's time
	Receipt    ledger.Receipt
	Entries    []ledger.LineEntry // that it would add to journals, in the order in which they are made
}

// maxSimulatedEntries bounds what one transaction adds to journals: of each of its operations a deposit for the line, one
// for the hold, two sides and a deposit paid back; and the fee and the registrations.
const maxSimulatedEntries = 5*ledger.MaxOperations + 2

// accepting takes every signature to be good: what is simulated is rarely signed.
type accepting struct{}

// Verify implements [ledger.Verifier].
func (accepting) Verify(ledger.Authorization) bool { return true }

// Simulate applies a transaction to the state that the newest block, whose header is last, has left. Its signatures need
// only have the right sizes, on which the fee depends. The state is not changed. An error is a failure of the machine.
func Simulate(base ledger.Reader, last ledger.Header, tx *ledger.Tx) (Simulation, error) {
	s := Simulation{Height: last.Height + 1, UnixMillis: last.UnixMillis}
	b, err := ledger.NewBlock(base, ledger.Header{Height: s.Height, UnixMillis: s.UnixMillis}, accepting{})
	if err != nil {
		return Simulation{}, err
	}
	if s.Receipt, err = b.Apply(tx); err != nil {
		return Simulation{}, fmt.Errorf("simulating transaction %s: %w", tx.ID(b.Network().ID), err)
	}
	s.Entries = b.Entries()
	return s, nil
}

// Encode writes the answer.
func (s Simulation) Encode() []byte {
	w := canonical.NewWriter(nil)
	w.Uint64(1, s.Height)
	w.Uint64(2, s.UnixMillis)
	w.Message(3, s.Receipt.Encode())
	for _, e := range s.Entries {
		w.Message(4, encodeLineEntry(e))
	}
	return w.Done()
}

// DecodeSimulation reads the answer. The entries are canonical.
func DecodeSimulation(b []byte) (s Simulation, err error) {
	r := canonical.NewReader(b)
	s.Height = r.Uint64(1, "height")
	s.UnixMillis = r.Uint64(2, "unix_millis")
	receipt, _ := r.Message(3, "receipt")
	r.Repeated(4, "entries", maxSimulatedEntries, func(_ int, element []byte) error {
		e, err := decodeLineEntry(element)
		s.Entries = append(s.Entries, e)
		return err
	})
	if err := r.Close(); err != nil {
		return Simulation{}, err
	}
	s.Receipt, err = ledger.DecodeReceipt(receipt)
	return s, canonical.In("receipt", err)
}

// encodeLineEntry writes {account = 1; asset = 2; incarnation = 3; entry = 4}.
func encodeLineEntry(e ledger.LineEntry) []byte {
	w := canonical.NewWriter(nil)
	w.Message(1, e.Line.Account[:])
	w.Message(2, e.Line.Asset[:])
	w.Uint64(3, e.Incarnation)
	w.Bytes(4, e.Encoded)
	return w.Done()
}

func decodeLineEntry(b []byte) (e ledger.LineEntry, err error) {
	r := canonical.NewReader(b)
	r.Fixed(1, "account", e.Line.Account[:])
	r.Fixed(2, "asset", e.Line.Asset[:])
	e.Incarnation = r.Uint64(3, "incarnation")
	e.Encoded = r.Bytes(4, "entry", maxEntryBytes)
	if err := r.Close(); err != nil {
		return e, err
	}
	entry, err := ledger.DecodeEntry(e.Encoded)
	e.Number, e.Noted = entry.Number, entry.Noted()
	return e, canonical.In("entry", err)
}

// maxEntryBytes bounds an encoded entry: 5 amounts, 3 hashes, a reference, 4 numbers and 15 tags, and room.
const maxEntryBytes = 512

// PathSimulate takes an encoded transaction.
const PathSimulate = "/simulate"

// PathLines and PathGrants list the rows of an account: see [KeyRange].
const (
	PathLines  = "/lines"
	PathGrants = "/grants"
)

// MaxKeys bounds one answer of /lines and /grants: 1,000 keys of 82 bytes.
const MaxKeys = 1000

// KeyRange returns which rows a question for the lines or grants of an account lists: those with a key in [start, end). The
// data is the account, or the last key of the answer before without its first byte. ok is false when it is neither.
func KeyRange(path string, data []byte) (start, end []byte, ok bool) {
	var account crypto.Address
	if len(data) < len(account) {
		return nil, nil, false
	}
	copy(account[:], data)
	var first []byte // the least possible key
	switch path {
	case PathLines:
		first = ledger.LineRow(ledger.LineKey{Account: account})
	case PathGrants:
		first = ledger.GrantRow(ledger.GrantKey{Granter: account})
	default:
		return nil, nil, false
	}
	end = append([]byte(nil), first[:1+len(account)]...)
	for range len(first) - len(end) + 1 {
		end = append(end, 0xff) // longer than any key, and so above them all
	}
	switch len(data) {
	case len(account):
		return first, end, true
	case len(first) - 1:
		return append(append(first[:1:1], data...), 0), end, true
	}
	return nil, nil, false
}

// EncodeKeys writes the answer of /lines and /grants.
func EncodeKeys(keys [][]byte) []byte { return EncodeEntries(keys) }

// DecodeLines reads the answer of /lines for an account: ascending keys.
func DecodeLines(b []byte, account crypto.Address) ([]ledger.LineKey, error) {
	return decodeKeys(b, func(key []byte) (k ledger.LineKey, same []byte) {
		k.Account = account
		copy(k.Asset[:], key[1+len(account):])
		return k, ledger.LineRow(k)
	}, len(ledger.LineRow(ledger.LineKey{})))
}

// DecodeGrants reads the answer of /grants for a granter: ascending keys.
func DecodeGrants(b []byte, granter crypto.Address) ([]ledger.GrantKey, error) {
	return decodeKeys(b, func(key []byte) (k ledger.GrantKey, same []byte) {
		k.Granter = granter
		rest := key[1+len(granter):]
		rest = rest[copy(k.Grantee[:], rest):]
		k.Kind = ledger.Kind(rest[0])
		copy(k.Asset[:], rest[1:])
		return k, ledger.GrantRow(k)
	}, len(ledger.GrantRow(ledger.GrantKey{})))
}

func decodeKeys[K any](b []byte, parse func(key []byte) (K, []byte), length int) (keys []K, err error) {
	r := canonical.NewReader(b)
	last := ""
	r.Repeated(1, "keys", MaxKeys, func(_ int, key []byte) error {
		if len(key) != length {
			return canonical.Errorf("", "key of %d bytes, want %d", len(key), length)
		}
		k, same := parse(key)
		if string(same) != string(key) || string(key) <= last {
			return canonical.Errorf("", "key %x is of another account, or not behind the one before", key)
		}
		last = string(key)
		keys = append(keys, k)
		return nil
	})
	return keys, r.Close()
}
