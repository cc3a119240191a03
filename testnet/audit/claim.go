package audit

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Ending is what a client was told about a payment in the end.
type Ending string

const (
	Final   Ending = "final"   // stands in a block, verified; it must stand there, once, with this code
	Refused Ending = "refused" // every node that could be reached refused it; it must not stand anywhere
	Unsent  Ending = "unsent"  // no node was handed it; it must not stand anywhere
	Dead    Ending = "dead"    // verified blocks show that it never can take effect; it must not stand anywhere
	Unknown Ending = "unknown" // it may stand in one place, or nowhere
)

// Claim is one payment with what its client was told. Times are microseconds of one clock that never goes back.
type Claim struct {
	ID   crypto.Hash `json:"id"`
	Raw  []byte      `json:"raw"`
	Kind string      `json:"kind"`           // what the load meant by it
	Want uint32      `json:"want,omitempty"` // code that it has to end with, where the load knows
	Sent int64       `json:"sent"`           // before the first node was handed it

	Ending Ending `json:"ending"`
	Code   uint32 `json:"code"`             // of the receipt, or of the refusal
	Height uint64 `json:"height,omitempty"` // of a final one
	Index  uint64 `json:"index,omitempty"`
	Acked  int64  `json:"acked,omitempty"` // when the client was told; 0: never
	Text   string `json:"text,omitempty"`  // why it is unknown, for people

	// Again are the heights that nodes named when they were handed the same bytes again. 0 stands for "taken" and is left out.
	Again []uint64 `json:"again,omitempty"`
}

// MaxClaimLine bounds one line of a record: a transaction of 256 KiB in base64, and the rest.
const MaxClaimLine = 512 << 10

// WriteClaims writes a record, one JSON object in a line.
func WriteClaims(w io.Writer, claims []Claim) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for i := range claims {
		if err := e.Encode(&claims[i]); err != nil {
			return fmt.Errorf("writing the record: %w", err)
		}
	}
	return b.Flush()
}

// ReadClaims reads what WriteClaims wrote.
func ReadClaims(r io.Reader) ([]Claim, error) {
	var claims []Claim
	s := bufio.NewScanner(r)
	s.Buffer(nil, MaxClaimLine)
	for s.Scan() {
		var c Claim
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			return nil, fmt.Errorf("record, line %d: %w", len(claims)+1, err)
		}
		claims = append(claims, c)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading the record behind line %d: %w", len(claims), err)
	}
	return claims, nil
}

// place is where the chain has a transaction.
type place struct {
	height, index uint64
	code          uint32
	sum           [32]byte // SHA-256 of the raw bytes
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.height, q.height), cmp.Compare(p.index, q.index))
}

// settled compares what clients were told with what the chain holds up to a height, and returns what is wrong.
func settled(claims []Claim, places map[crypto.Hash][]place, height uint64) []error {
	var errs []error
	told := map[crypto.Hash]bool{}
	for i := range claims {
		c := &claims[i]
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("payment %s (%s), told %s: %w", c.ID, c.Kind, c.Ending, fmt.Errorf(format, args...)))
		}
		if told[c.ID] {
			fail("stands twice in the record")
		}
		told[c.ID] = true
		at := places[c.ID]
		if len(at) > 1 {
			fail("the chain has it %d times: in blocks %d and %d", len(at), at[0].height, at[1].height)
		}
		for _, p := range at {
			if p.sum != sha256.Sum256(c.Raw) {
				fail("block %d has other bytes under its id than were sent", p.height)
			}
		}
		switch c.Ending {
		case Final:
			switch {
			case c.Acked == 0:
				fail("has no time of its being told")
			case c.Height > height:
				fail("in block %d, the audit ends at %d", c.Height, height)
			case len(at) == 0:
				fail("in block %d number %d, but the chain does not have it", c.Height, c.Index)
			case at[0].height != c.Height || at[0].index != c.Index || at[0].code != c.Code:
				fail("in block %d number %d with code %d, the chain has it in block %d number %d with code %d", c.Height, c.Index, c.Code, at[0].height, at[0].index, at[0].code)
			}
		case Refused, Unsent, Dead:
			if len(at) != 0 {
				fail("the chain has it in block %d", at[0].height)
			}
		case Unknown:
		default:
			fail("no such ending")
		}
		for _, h := range c.Again {
			if len(at) == 0 || at[0].height != h {
				fail("handed in again, a node said that it is in block %d", h)
			}
		}
	}
	return append(errs, ordered(claims, places)...)
}

// ordered checks real time: what was told before another payment was sent stands before it in the chain. The chain is
// the order in question, so one pass is enough: no payment may have been told before one that stands before it was sent.
func ordered(claims []Claim, places map[crypto.Hash][]place) (errs []error) {
	type event struct {
		*Claim
		place
	}
	var events []event
	for i := range claims {
		if at := places[claims[i].ID]; len(at) != 0 {
			events = append(events, event{&claims[i], at[0]})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.compare(b.place) })
	var last *event // the one that was sent last, of those before
	for i := range events {
		e := &events[i]
		if last != nil && e.Acked != 0 && e.Ending == Final && e.Acked < last.Sent {
			errs = append(errs, fmt.Errorf("payment %s was sent %d us after %s was told final, but stands before it: block %d number %d, and %d number %d",
				last.Claim.ID, last.Sent-e.Acked, e.Claim.ID, last.height, last.index, e.height, e.index))
		}
		if last == nil || e.Sent > last.Sent {
			last = e
		}
	}
	return errs
}

// errTooMany ends a list of faults: the first ones say what is wrong.
var errTooMany = errors.New("and more of them")

// maxFaults bounds the faults that a report lists.
const maxFaults = 50
