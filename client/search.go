package client

import (
	"context"
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// Found is something that a search has found.
type Found struct {
	Line  ledger.LineKey
	Entry ledger.Entry
	// Final is the proven transaction whose operation number Entry.Operation made the entry; nil: a block made it, when a
	// hold expired.
	Final *Final
	// Proven tells whether the entry is: its transaction says all of it, but for the counters and its number, or it stands in
	// the proven journal of its line. It is not where that journal was closed with its line.
	Proven bool
}

// Search asks the nodes for journal entries by a reference, a hold, or an account and a code, and verifies each: by the
// receipt of its transaction, or by the journal of its line. What is found is proven, with an exception that [Found] names;
// that there is no more cannot be. It returns at most one page, and where to go on.
func (c *Client) Search(ctx context.Context, s query.Search) (found []Found, next []byte, err error) {
	hits, err := ask(ctx, c, "searching", func(n *node) (query.Hits, error) {
		answer, err := n.query(ctx, query.PathSearch, s.Encode(), 0, false)
		if err != nil {
			return query.Hits{}, err
		}
		hits, err := query.DecodeHits(answer.Value)
		if err != nil {
			return query.Hits{}, &nodeError{n.name, fmt.Errorf("%w: %w", proof.ErrInvalid, err)}
		}
		return hits, nil
	})
	if err != nil {
		return nil, nil, err
	}
	finals := map[crypto.Hash]*Final{}
	for _, e := range hits.Entries {
		entry, err := ledger.DecodeEntry(e.Encoded)
		if err != nil {
			return nil, nil, err
		}
		f := Found{Line: e.Line, Entry: entry}
		if entry.TxID != (crypto.Hash{}) {
			if f.Final = finals[entry.TxID]; f.Final == nil {
				final, there, err := c.Find(ctx, entry.TxID)
				if err != nil {
					return nil, nil, err
				}
				if !there {
					return nil, nil, fmt.Errorf("%w: a node names transaction %s, and no node has it", proof.ErrInvalid, entry.TxID)
				}
				f.Final, finals[entry.TxID] = &final, &final
			}
		}
		if !wanted(s, f) {
			return nil, nil, fmt.Errorf("%w: a node names entry %d of %s, which is not what was searched for", proof.ErrInvalid, entry.Number, e.Line.Account)
		}
		switch entry.Kind {
		case ledger.EntryTransfer, ledger.EntryHold, ledger.EntryClawback:
			if f.Proven = f.made(); !f.Proven {
				return nil, nil, fmt.Errorf("%w: a node names entry %d of %s, which transaction %s did not make", proof.ErrInvalid, entry.Number, e.Line.Account, entry.TxID)
			}
		default:
			// The operation that resolves a hold does not say whose it was.
			if f.Proven, err = c.inJournal(ctx, e, entry); err != nil {
				return nil, nil, err
			}
		}
		found = append(found, f)
	}
	return found, hits.Next, nil
}

// wanted tells whether an entry, if it is true, is what was searched for.
func wanted(s query.Search, f Found) bool {
	e := f.Entry
	switch s.By {
	case query.ByReference:
		return e.Reference == s.Reference
	case query.ByHold:
		if e.Hold != s.Hold {
			return false
		}
		if f.Final == nil {
			return true
		}
		body := f.Final.Tx.Body
		if f.Final.Receipt.Code != ledger.OK || uint64(e.Operation) >= uint64(len(body.Operations)) {
			return false
		}
		switch o := body.Operations[e.Operation].(type) {
		case *ledger.PostHold:
			return o.Hold == s.Hold
		case *ledger.VoidHold:
			return o.Hold == s.Hold
		}
		return e.Kind == ledger.EntryHold
	}
	return e.Code == s.Code && f.Line.Account == s.Account
}

// made tells whether the proven transaction made the entry.
func (f Found) made() bool {
	if f.Final == nil || f.Final.Receipt.Code != ledger.OK {
		return false
	}
	e, body := f.Entry, f.Final.Tx.Body
	if uint64(e.Operation) >= uint64(len(body.Operations)) || uint64(e.Operation) >= uint64(len(f.Final.Receipt.Results)) {
		return false
	}
	debited := func(by uint32, granter crypto.Address) crypto.Address {
		if granter != (crypto.Address{}) {
			return granter
		}
		return body.Signers[by].Address
	}
	result := f.Final.Receipt.Results[e.Operation]
	want := ledger.Entry{Height: f.Final.Height, TxID: f.Final.ID, Operation: e.Operation, Amount: result.Amount, Hold: result.Hold}
	var from, to crypto.Address
	var asset ledger.AssetID
	switch o := body.Operations[e.Operation].(type) {
	case *ledger.Transfer:
		from, to, asset = debited(o.From, o.Granter), o.To, o.Asset
		want.Kind, want.Reference, want.Code = ledger.EntryTransfer, o.Reference, o.Code
	case *ledger.CreateHold:
		from, to, asset = debited(o.Signer, o.Granter), o.To, o.Asset
		want.Kind, want.Reference, want.Code = ledger.EntryHold, o.Reference, o.Code
	case *ledger.Clawback:
		from, to, asset = o.Account, body.Signers[o.Signer].Address, o.Asset
		want.Kind, want.Reference, want.Code = ledger.EntryClawback, o.Reference, o.Code
	default:
		return false
	}
	if want.Counterparty, want.Credit = to, false; e.Credit {
		from, want.Counterparty, want.Credit = to, from, true
	}
	// The counters and the number are the line's.
	want.Number, want.DebitsPending, want.DebitsPosted = e.Number, e.DebitsPending, e.DebitsPosted
	want.CreditsPending, want.CreditsPosted = e.CreditsPending, e.CreditsPosted
	return e == want && f.Line == ledger.LineKey{Account: from, Asset: asset}
}

// inJournal tells whether the proven journal of a line has an entry; false: the journal was closed with its line. That it
// has something else is an error.
func (c *Client) inJournal(ctx context.Context, e ledger.LineEntry, entry ledger.Entry) (bool, error) {
	line, err := c.Line(ctx, e.Line, 0)
	if err != nil {
		return false, err
	}
	if !line.Present || line.Value.Incarnation != e.Incarnation {
		return false, nil
	}
	if entry.Number >= 1 && entry.Number <= line.Value.Entries {
		journal, err := c.Journal(ctx, e.Line, Mark{Incarnation: e.Incarnation}, line.Value, nil)
		if err != nil {
			return false, err
		}
		defer journal.Close()
		for have, err := range journal.Entries() {
			if err != nil {
				return false, err
			}
			if have.Number == entry.Number {
				if have == entry {
					return true, nil
				}
				break
			}
		}
	}
	return false, fmt.Errorf("%w: a node names entry %d of the journal of %s, which does not have it", proof.ErrInvalid, entry.Number, e.Line.Account)
}
