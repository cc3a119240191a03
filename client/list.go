package client

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// Lists that are complete. A node says which rows an account has; each is proven, and so is how many there are
// ([ledger.Holdings]): a list with as many proven rows as that leaves none out.

// Listed is a complete list of rows at one height.
type Listed[T any] struct {
	Rows   []T // in the order of their keys
	Height uint64
	Time   time.Time
}

// HeldLine is a line with its name.
type HeldLine struct {
	Key  ledger.LineKey
	Line ledger.Line
}

// GivenGrant is a grant with its name.
type GivenGrant struct {
	Key   ledger.GrantKey
	Grant ledger.Grant
}

// maxListed bounds a list: each row takes a question and a proof.
const maxListed = 10_000

// Holdings returns how many rows an account has; height 0 is the newest. Without a row it has none.
func (c *Client) Holdings(ctx context.Context, account crypto.Address, height uint64) (Proven[ledger.Holdings], error) {
	row, err := c.Row(ctx, ledger.HoldingsRow(account), height)
	return decoded(row, err, ledger.DecodeHoldings)
}

// Lines returns every line of an account: proven, and proven to be all. Height 0 is the newest; at an older one the list
// cannot be had when a line was closed since.
func (c *Client) Lines(ctx context.Context, account crypto.Address, height uint64) (Listed[HeldLine], error) {
	return listed(ctx, c, height, account, "lines", query.PathLines,
		func(h ledger.Holdings) uint64 { return h.Lines },
		func(b []byte) ([]ledger.LineKey, error) { return query.DecodeLines(b, account) },
		ledger.LineRow,
		func(k ledger.LineKey, height uint64) (HeldLine, bool, error) {
			p, err := c.Line(ctx, k, height)
			return HeldLine{k, p.Value}, p.Present, err
		})
}

// Grants returns every grant that an account has given, also those that are worth nothing any more: proven, and proven to
// be all. Height 0 is the newest; at an older one the list cannot be had when a grant was revoked since.
func (c *Client) Grants(ctx context.Context, granter crypto.Address, height uint64) (Listed[GivenGrant], error) {
	return listed(ctx, c, height, granter, "grants", query.PathGrants,
		func(h ledger.Holdings) uint64 { return h.Grants },
		func(b []byte) ([]ledger.GrantKey, error) { return query.DecodeGrants(b, granter) },
		ledger.GrantRow,
		func(k ledger.GrantKey, height uint64) (GivenGrant, bool, error) {
			p, err := c.Grant(ctx, k, height)
			return GivenGrant{k, p.Value}, p.Present, err
		})
}

// listed makes a complete list. A row that goes between the proven height and the node's answer makes one short, so the
// newest is asked for again, some times.
func listed[K, T any](ctx context.Context, c *Client, height uint64, account crypto.Address, what, path string, count func(ledger.Holdings) uint64,
	decode func([]byte) ([]K, error), row func(K) []byte, prove func(K, uint64) (T, bool, error)) (list Listed[T], err error) {
	for try := 0; ; try++ {
		holdings, err := c.Holdings(ctx, account, height)
		if err != nil {
			return Listed[T]{}, err
		}
		list = Listed[T]{Height: holdings.Height, Time: holdings.Time}
		want := count(holdings.Value)
		if want > maxListed {
			return Listed[T]{}, fmt.Errorf("%s has %d %s: a list has at most %d", account, want, what, maxListed)
		}
		if want == 0 {
			return list, nil
		}
		if list.Rows, err = proveListed(ctx, c, list.Height, account, want, what, path, decode, row, prove); err == nil {
			return list, nil
		}
		if height != 0 || try == 2 || ctx.Err() != nil {
			return Listed[T]{}, err
		}
	}
}

func proveListed[K, T any](ctx context.Context, c *Client, height uint64, account crypto.Address, want uint64, what, path string,
	decode func([]byte) ([]K, error), row func(K) []byte, prove func(K, uint64) (T, bool, error)) ([]T, error) {
	return ask(ctx, c, fmt.Sprintf("listing the %s of %s", what, account), func(n *node) ([]T, error) {
		var rows []T
		var last []byte // row of the page before: one row named twice would hide another
		for data, seen := account[:], 0; ; {
			answer, err := n.query(ctx, path, data, 0, false)
			if err != nil {
				return nil, err
			}
			keys, err := decode(answer.Value)
			if err != nil {
				return nil, &nodeError{n.name, fmt.Errorf("%w: %w", proof.ErrInvalid, err)}
			}
			// Rows that came after the proven height are dropped; a node that names too many of them is not listened to.
			if seen += len(keys); seen > 2*maxListed {
				return nil, &nodeError{n.name, fmt.Errorf("%w: names more than %d %s", proof.ErrInvalid, 2*maxListed, what)}
			}
			if len(keys) > 0 && bytes.Compare(row(keys[0]), last) <= 0 {
				return nil, &nodeError{n.name, fmt.Errorf("%w: names %s again", proof.ErrInvalid, what)}
			}
			for _, k := range keys {
				r, present, err := prove(k, height)
				if err != nil {
					return nil, err
				}
				if present {
					rows = append(rows, r)
				}
			}
			if len(keys) < query.MaxKeys || uint64(len(rows)) >= want {
				break
			}
			last = row(keys[len(keys)-1])
			data = last[1:]
		}
		if uint64(len(rows)) != want {
			return nil, &nodeError{n.name, fmt.Errorf("names %d of the %d %s that %s is proven to have at height %d", len(rows), want, what, account, height)}
		}
		return rows, nil
	})
}

// OpenHold is an open hold with its id.
type OpenHold struct {
	ID   crypto.Hash
	Hold ledger.Hold
}

// Holds returns every open hold that an account has made or that is for it, at one height: proven, and proven to be all, for
// it goes through the complete journals of all lines of the account. They are in the order in which they were made, by line.
func (c *Client) Holds(ctx context.Context, account crypto.Address) (Listed[OpenHold], error) {
	lines, err := c.Lines(ctx, account, 0)
	if err != nil {
		return Listed[OpenHold]{}, err
	}
	list := Listed[OpenHold]{Height: lines.Height, Time: lines.Time}
	for _, l := range lines.Rows {
		if l.Line.DebitsPending.IsZero() && l.Line.CreditsPending.IsZero() {
			continue // no hold is open
		}
		ids, err := c.openHolds(ctx, l)
		if err != nil {
			return Listed[OpenHold]{}, err
		}
		for _, id := range ids {
			hold, err := c.Hold(ctx, id, lines.Height)
			if err != nil {
				return Listed[OpenHold]{}, err
			}
			if !hold.Present {
				return Listed[OpenHold]{}, fmt.Errorf("the proven state of height %d is inconsistent: the journal of %s has hold %s open, and there is none", lines.Height, account, id)
			}
			list.Rows = append(list.Rows, OpenHold{id, hold.Value})
		}
	}
	return list, nil
}

// openHolds goes through the journal of a line for the holds that are open at its end, in the order in which they were made.
func (c *Client) openHolds(ctx context.Context, l HeldLine) ([]crypto.Hash, error) {
	journal, err := c.Journal(ctx, l.Key, Mark{Incarnation: l.Line.Incarnation}, l.Line, nil)
	if err != nil {
		return nil, err
	}
	defer journal.Close()
	made := map[crypto.Hash]uint64{} // number of the entry
	for e, err := range journal.Entries() {
		if err != nil {
			return nil, err
		}
		switch e.Kind {
		case ledger.EntryHold:
			made[e.Hold] = e.Number
		case ledger.EntryPost, ledger.EntryVoid, ledger.EntryExpire:
			delete(made, e.Hold)
		}
	}
	return slices.SortedFunc(maps.Keys(made), func(x, y crypto.Hash) int { return cmp.Compare(made[x], made[y]) }), nil
}
