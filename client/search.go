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
	// Final is the proven transaction whose operation number Entry.Operation is what was searched for; nil: a block made
	// the entry, when a hold expired, and it stands in the proven journal of the line.
	Final *Final
}

// Search asks the nodes for journal entries by a reference, a hold, or an account and a code, and verifies each: by the
// receipt of its transaction, or by the journal of its line. What is there is proven; that there is no more cannot be. It
// returns at most one page, and where to go on.
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
		if entry.TxID == (crypto.Hash{}) {
			if err := c.inJournal(ctx, s, e, entry); err != nil {
				return nil, nil, err
			}
			found = append(found, f)
			continue
		}
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
		if !answers(s, f) {
			return nil, nil, fmt.Errorf("%w: a node names operation %d of transaction %s, which is not what was searched for", proof.ErrInvalid, entry.Operation, entry.TxID)
		}
		found = append(found, f)
	}
	return found, hits.Next, nil
}

// answers tells whether the proven transaction of something found is what was searched for.
func answers(s query.Search, f Found) bool {
	body := f.Final.Tx.Body
	if f.Final.Receipt.Code != ledger.OK || uint64(f.Entry.Operation) >= uint64(len(body.Operations)) {
		return false
	}
	debited := func(by uint32, granter crypto.Address) crypto.Address {
		if granter != (crypto.Address{}) {
			return granter
		}
		return body.Signers[by].Address
	}
	var from, to crypto.Address
	var reference ledger.Reference
	var code uint32
	var hold crypto.Hash
	switch o := body.Operations[f.Entry.Operation].(type) {
	case *ledger.Transfer:
		from, to, reference, code = debited(o.From, o.Granter), o.To, o.Reference, o.Code
	case *ledger.CreateHold:
		from, to, reference, code = debited(o.Signer, o.Granter), o.To, o.Reference, o.Code
		hold = ledger.HoldID(f.Final.ID, f.Entry.Operation)
	case *ledger.Clawback:
		from, to, reference, code = o.Account, body.Signers[o.Signer].Address, o.Reference, o.Code
	case *ledger.PostHold:
		hold = o.Hold
	case *ledger.VoidHold:
		hold = o.Hold
	}
	switch s.By {
	case query.ByReference:
		return reference == s.Reference
	case query.ByHold:
		return hold == s.Hold
	}
	return code == s.Code && (from == s.Account || to == s.Account)
}

// inJournal verifies an entry that no transaction made: the line's journal, up to its proven head, has it.
func (c *Client) inJournal(ctx context.Context, s query.Search, e ledger.LineEntry, entry ledger.Entry) error {
	line, err := c.Line(ctx, e.Line, 0)
	if err != nil {
		return err
	}
	fail := func(why string) error {
		return fmt.Errorf("%w: a node names entry %d of the journal of %s, %s", proof.ErrInvalid, entry.Number, e.Line.Account, why)
	}
	switch {
	case s.By != query.ByHold || entry.Hold != s.Hold:
		return fail("which is not what was searched for")
	case line.Value.Incarnation != e.Incarnation:
		return fmt.Errorf("entry %d of %s cannot be proven: its line was closed since", entry.Number, e.Line.Account)
	case entry.Number > line.Value.Entries:
		return fail("which has not so many")
	}
	entries, err := c.Journal(ctx, e.Line, Mark{Incarnation: e.Incarnation}, line.Value)
	if err != nil {
		return err
	}
	if entry.Number < 1 || entries[entry.Number-1] != entry {
		return fail("which says something else there")
	}
	return nil
}
