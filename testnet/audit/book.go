package audit

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/reference"
)

// book is the ledger a second time: the reference, which was written from docs/PROTOCOL.md and shares no rule with the
// nodes. It is told every block, predicts every receipt, and ends with every row that the nodes must be able to prove.
type book struct {
	*reference.Ledger
	validators map[string][]byte // public keys by CometBFT's names
	txs        int
	failed     int
	operations int
}

// newBook opens the book with what genesis says.
func newBook(doc *types.GenesisDoc) (*book, error) {
	g, err := genesis.FromDoc(doc)
	if err != nil {
		return nil, err
	}
	encoded, err := g.Encode()
	if err != nil {
		return nil, err
	}
	b := &book{validators: map[string][]byte{}}
	for _, v := range g.Validators {
		name := v.Address()
		b.validators[string(name[:])] = v.PublicKey
	}
	b.Ledger, err = reference.New(doc.ChainID, encoded, reference.Keys{
		Verify: func(scheme uint32, key, message, signature []byte) bool {
			return crypto.Check{Scheme: crypto.Scheme(scheme), PublicKey: key, Message: message, Signature: signature}.Verify()
		},
		Registrable: func(scheme uint32, key []byte) bool { return crypto.CheckPublicKey(crypto.Scheme(scheme), key) == nil },
	})
	return b, err
}

// block enters a block and returns what is wrong with it.
func (b *book) block(height uint64, at time.Time, txs [][]byte, results []Result, evidence []types.Evidence) (errs []error) {
	b.BeginBlock(height, uint64(at.UnixMilli()))
	for i, raw := range txs {
		if err := b.transaction(raw, results[i]); err != nil {
			errs = append(errs, fmt.Errorf("block %d, transaction %d: %w", height, i, err))
		}
	}
	var guilty [][]byte
	for _, e := range evidence {
		switch e := e.(type) {
		case *types.DuplicateVoteEvidence:
			guilty = append(guilty, b.validators[string(e.VoteA.ValidatorAddress)])
		case *types.LightClientAttackEvidence:
			for _, v := range e.ByzantineValidators {
				guilty = append(guilty, b.validators[string(v.Address)])
			}
		}
	}
	b.EndBlock(guilty)
	return errs
}

// transaction enters one transaction.
func (b *book) transaction(raw []byte, result Result) error {
	code, receipt := b.Apply(raw)
	b.txs++
	if tx, err := ledger.Decode(raw); err == nil {
		b.operations += len(tx.Body.Operations)
	}
	switch {
	case code >= 1 && code <= 99:
		return fmt.Errorf("stands in the block with code %d, and has to be refused with code %d (%s)", result.Code, code, ledger.Code(code))
	case code != result.Code:
		return fmt.Errorf("has code %d, want %d (%s)", result.Code, code, ledger.Code(code))
	case !bytes.Equal(receipt, result.Data):
		want, _ := ledger.DecodeReceipt(receipt)
		got, err := ledger.DecodeReceipt(result.Data)
		return fmt.Errorf("has the receipt %+v (%v), want %+v", got, err, want)
	}
	if code != 0 {
		b.failed++
	}
	return nil
}

// proven compares the whole state, row by row, with what one node proves at a height.
func (b *book) proven(ctx context.Context, url string, doc *types.GenesisDoc, height uint64, rows map[string][]byte) (faults []error, err error) {
	c, err := client.Dial(ctx, client.Options{Nodes: []string{url}, Genesis: doc})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", url, err)
	}
	seen := 0
	_, err = c.Walk(ctx, client.WalkOptions{Height: height}, func(key, value []byte) error {
		seen++
		want, ok := rows[string(key)]
		switch {
		case !ok:
			faults = append(faults, fmt.Errorf("node %s proves a row %x at height %d that the book does not have", url, key, height))
		case !bytes.Equal(value, want):
			faults = append(faults, fmt.Errorf("node %s proves row %x at height %d as %x, the book has %x", url, key, height, value, want))
		}
		return nil
	})
	if err != nil {
		return faults, err
	}
	if seen < len(rows) && len(faults) == 0 {
		faults = append(faults, fmt.Errorf("node %s proves %d rows at height %d, the book has %d", url, seen, height, len(rows)))
	}
	return faults, nil
}

// provable returns the rows that stand in trees.
func (b *book) provable() map[string][]byte {
	rows := b.Rows()
	for key := range rows {
		if _, ok := ledger.TreeOf([]byte(key)); !ok {
			delete(rows, key)
		}
	}
	return rows
}
