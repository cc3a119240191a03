package audit

import (
	"bytes"
	"context"
	"fmt"
	"time"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
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
	validators map[uint64]*types.ValidatorSet // by the height at which they vote, from that of the last block on to two above it
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
	set := make([]*types.Validator, len(doc.Validators))
	for i, v := range doc.Validators {
		set[i] = types.NewValidator(v.PubKey, v.Power)
	}
	b := &book{validators: map[uint64]*types.ValidatorSet{}}
	for i := range uint64(2) {
		b.validators[g.InitialHeight+i] = types.NewValidatorSet(set)
	}
	b.Ledger, err = reference.New(doc.ChainID, encoded, reference.Keys{
		Verify: func(scheme uint32, key, message, signature []byte) bool {
			return crypto.Check{Scheme: crypto.Scheme(scheme), PublicKey: key, Message: message, Signature: signature}.Verify()
		},
		Registrable: func(scheme uint32, key []byte) bool { return crypto.CheckPublicKey(crypto.Scheme(scheme), key) == nil },
	})
	return b, err
}

// block enters a block and returns what is wrong with it. The commit is that of the block before; nil: nobody is said to
// have signed it, or not.
func (b *book) block(height uint64, at time.Time, txs [][]byte, results []Result, evidence []types.Evidence, commit *types.Commit) (errs []error) {
	b.BeginBlock(height, uint64(at.UnixMilli()))
	for i, raw := range txs {
		if err := b.transaction(raw, results[i]); err != nil {
			errs = append(errs, fmt.Errorf("block %d, transaction %d: %w", height, i, err))
		}
	}
	var guilty [][20]byte
	for _, e := range evidence {
		switch e := e.(type) {
		case *types.DuplicateVoteEvidence:
			guilty = append(guilty, [20]byte(e.VoteA.ValidatorAddress))
		case *types.LightClientAttackEvidence:
			for _, v := range e.ByzantineValidators {
				guilty = append(guilty, [20]byte(v.Address))
			}
		}
	}
	votes, err := b.votes(height, commit)
	if err != nil {
		errs = append(errs, err)
	}
	updates := b.EndBlock(guilty, votes)
	next := b.validators[height+1].Copy()
	var changes []*types.Validator
	for _, u := range updates {
		var key cmtcrypto.PubKey = ed25519.PubKey(u.PublicKey)
		if u.Scheme == uint32(crypto.MLDSA65) {
			pq, err := mldsa65.NewPubKeyFromBytes(u.PublicKey)
			if err != nil {
				return append(errs, fmt.Errorf("block %d makes a validator of no key: %w", height, err))
			}
			key = pq
		}
		changes = append(changes, types.NewValidator(key, int64(u.Power)))
	}
	if err := next.UpdateWithChangeSet(changes); err != nil {
		errs = append(errs, fmt.Errorf("block %d changes the validators in a way that consensus cannot: %w", height, err))
	}
	b.validators[height+2] = next
	delete(b.validators, height-1)
	return errs
}

// votes tells who signed the block before. A commit gives no name for who did not: its places are those of the set.
func (b *book) votes(height uint64, commit *types.Commit) (votes []reference.Vote, err error) {
	set := b.validators[height-1]
	if commit == nil || set == nil { // the first block
		return nil, nil
	}
	if commit.Size() != set.Size() {
		return nil, fmt.Errorf("block %d has a commit of %d validators, the book has %d", height, commit.Size(), set.Size())
	}
	for i, v := range set.Validators {
		votes = append(votes, reference.Vote{Validator: [20]byte(v.Address), Signed: commit.Signatures[i].BlockIDFlag != types.BlockIDFlagAbsent})
	}
	return votes, nil
}

// elected tells what is wrong with the validators that a block's header names. It comes before the block is entered.
func (b *book) elected(block *Block) error {
	if set := b.validators[block.Height]; !bytes.Equal(set.Hash(), block.Validators) {
		return fmt.Errorf("block %d names the validators %X, the book has %d with %X", block.Height, block.Validators, set.Size(), set.Hash())
	}
	if set := b.validators[block.Height+1]; !bytes.Equal(set.Hash(), block.NextValidators) {
		return fmt.Errorf("block %d names the next validators %X, the book has %d with %X", block.Height, block.NextValidators, set.Size(), set.Hash())
	}
	return nil
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

// proven compares the whole state, row by row, with what one node proves at a height. Trust begins with genesis unless a
// header is given.
func (b *book) proven(ctx context.Context, url string, doc *types.GenesisDoc, trust *client.Trust, height uint64, rows map[string][]byte) (faults []error, err error) {
	c, err := client.Dial(ctx, client.Options{Nodes: []string{url}, Genesis: doc, Trust: trust})
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
