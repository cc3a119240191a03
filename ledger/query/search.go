package query

import (
	"encoding/binary"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// PathSearch takes a [Search].
const PathSearch = "/search"

// MaxHits bounds one answer of /search: 200 of at most 700 bytes.
const MaxHits = 200

// MaxCursor bounds the cursor of a search in bytes.
const MaxCursor = 128

// SearchBy says what is searched by.
type SearchBy byte

const (
	ByReference SearchBy = 1 // transfers, holds made and clawbacks with a reference
	ByHold      SearchBy = 2 // the making and the end of a hold
	ByCode      SearchBy = 3 // transfers, holds made and clawbacks with a code, in the journals of an account
)

// Search asks a node's index for journal entries. One side of each movement is found, the debited one; by code, that of
// the account. What failed is not found: it has no effect, and so no entry.
type Search struct {
	By        SearchBy
	Reference ledger.Reference
	Hold      crypto.Hash
	Account   crypto.Address
	Code      uint32 // 1 to 65535
	Limit     uint32 // 0: MaxHits
	After     []byte // Next of the answer before; nil: from the beginning
}

// Key returns the fixed part of the question: by, and what is searched for.
func (s Search) Key() []byte {
	key := []byte{byte(s.By)}
	switch s.By {
	case ByReference:
		return append(key, s.Reference[:]...)
	case ByHold:
		return append(key, s.Hold[:]...)
	}
	return binary.BigEndian.AppendUint16(append(key, s.Account[:]...), uint16(s.Code))
}

// Encode writes the question: Key || limit(4) || cursor.
func (s Search) Encode() []byte {
	return append(binary.BigEndian.AppendUint32(s.Key(), s.Limit), s.After...)
}

// ParseSearch reads a question; ok is false when it is none.
func ParseSearch(data []byte) (s Search, ok bool) {
	if len(data) < 1 {
		return s, false
	}
	s.By, data = SearchBy(data[0]), data[1:]
	take := func(dst []byte) bool {
		if len(data) < len(dst) {
			return false
		}
		data = data[copy(dst, data):]
		return true
	}
	var code [2]byte
	switch s.By {
	case ByReference:
		ok = take(s.Reference[:]) && s.Reference != ledger.Reference{}
	case ByHold:
		ok = take(s.Hold[:]) && s.Hold != crypto.Hash{}
	case ByCode:
		ok = take(s.Account[:]) && take(code[:]) && code != [2]byte{}
		s.Code = uint32(binary.BigEndian.Uint16(code[:]))
	}
	var limit [4]byte
	if !ok || !take(limit[:]) || len(data) > MaxCursor {
		return s, false
	}
	s.Limit = binary.BigEndian.Uint32(limit[:])
	s.After = data
	return s, true
}

// Hits is the answer of /search: one node's word. That a hit is true can be found out from its transaction, or from its
// line's journal; that no other was left out cannot.
type Hits struct {
	Entries []ledger.LineEntry // ascending by height
	Next    []byte             // where to go on; nil: these were the last
}

// Encode writes the answer.
func (h Hits) Encode() []byte {
	w := canonical.NewWriter(nil)
	for _, e := range h.Entries {
		w.Message(1, encodeLineEntry(e))
	}
	w.Bytes(2, h.Next)
	return w.Done()
}

// DecodeHits reads the answer.
func DecodeHits(b []byte) (h Hits, err error) {
	r := canonical.NewReader(b)
	r.Repeated(1, "hits", MaxHits, func(_ int, element []byte) error {
		e, err := decodeLineEntry(element)
		h.Entries = append(h.Entries, e)
		return err
	})
	h.Next = r.Bytes(2, "next", MaxCursor)
	return h, r.Close()
}
