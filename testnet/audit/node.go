package audit

import (
	"bytes"
	"context"
	"fmt"
	"time"

	rpchttp "github.com/cometbft/cometbft/rpc/client/http"
	jsonrpc "github.com/cometbft/cometbft/rpc/jsonrpc/client"
	"github.com/cometbft/cometbft/types"
)

// callTimeout bounds one answer of a node that is audited: 4 MB of block in base64 from a busy machine.
const callTimeout = 15 * time.Second

// Node is one node's RPC. It is safe for concurrent use.
type Node struct {
	URL string
	rpc *rpchttp.HTTP
}

// Open makes a Node of a URL such as http://127.0.0.1:26657. Nothing is sent.
func Open(url string) (*Node, error) {
	web, err := jsonrpc.DefaultHTTPClient(url)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", url, err)
	}
	web.Timeout = callTimeout
	n := &Node{URL: url}
	if n.rpc, err = rpchttp.NewWithClient(url, "/websocket", web); err != nil {
		return nil, fmt.Errorf("node %s: %w", url, err)
	}
	return n, nil
}

// Status is what a node says about itself.
type Status struct {
	Earliest, Height uint64
	AppHash          []byte // of the newest header: of the state one height before
	CatchingUp       bool
}

// Status asks how far the node is.
func (n *Node) Status(ctx context.Context) (Status, error) {
	s, err := n.rpc.Status(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("node %s: status: %w", n.URL, err)
	}
	i := s.SyncInfo
	return Status{uint64(i.EarliestBlockHeight), uint64(i.LatestBlockHeight), i.LatestAppHash, i.CatchingUp}, nil
}

// Validator is a member of the set that signs.
type Validator struct {
	Address []byte
	Power   int64
}

// Validators asks for the newest validator set, of at most a hundred.
func (n *Node) Validators(ctx context.Context) ([]Validator, error) {
	page, perPage := 1, 100
	got, err := n.rpc.Validators(ctx, nil, &page, &perPage)
	if err != nil {
		return nil, fmt.Errorf("node %s: validators: %w", n.URL, err)
	}
	var set []Validator
	for _, v := range got.Validators {
		set = append(set, Validator{v.Address, v.VotingPower})
	}
	return set, nil
}

// Commit asks for the signatures of the newest block, as they have come to this node.
func (n *Node) Commit(ctx context.Context) (*types.Commit, error) {
	got, err := n.rpc.Commit(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("node %s: commit: %w", n.URL, err)
	}
	return got.Commit, nil
}

// Result is the hashed part of a transaction's result.
type Result struct {
	Code uint32
	Data []byte // the receipt
}

// Block is a block with its results, as one node has them. That the parts belong together is checked: the hash is
// computed from the header, the header's DataHash from the transactions.
type Block struct {
	Height      uint64
	Time        time.Time
	Hash        []byte
	LastHash    []byte // of the block before
	AppHash     []byte // of the state before this block
	LastResults []byte // over the results of the block before
	Validators  []byte // hash of the set that votes about this block
	Txs         [][]byte
	Evidence    []types.Evidence
	LastCommit  *types.Commit // who signed the block before

	NextValidators []byte // hash of the set of the next block

	Results     []Result
	ResultsHash []byte // computed from them: the next header must have it
	NextAppHash []byte // as the node has stored it with the results: the next header must have it
}

// Block reads a block and its results.
func (n *Node) Block(ctx context.Context, height uint64) (*Block, error) {
	h := int64(height)
	fail := func(format string, args ...any) (*Block, error) {
		return nil, fmt.Errorf("node %s: block %d: %w", n.URL, height, fmt.Errorf(format, args...))
	}
	got, err := n.rpc.Block(ctx, &h)
	if err != nil {
		return fail("%w", err)
	}
	if got.Block == nil || got.Block.Height != h {
		return fail("it answers with another block")
	}
	b := got.Block
	if err := b.ValidateBasic(); err != nil { // hashes of transactions, evidence and last commit against the header
		return fail("%w", err)
	}
	if !bytes.Equal(b.Hash(), got.BlockID.Hash) {
		return fail("its hash is %X, the node says %X", b.Hash(), got.BlockID.Hash)
	}
	results, err := n.rpc.BlockResults(ctx, &h)
	if err != nil {
		return fail("results: %w", err)
	}
	if len(results.TxsResults) != len(b.Txs) {
		return fail("%d results for %d transactions", len(results.TxsResults), len(b.Txs))
	}
	block := &Block{Height: height, Time: b.Time, Hash: b.Hash(), LastHash: b.LastBlockID.Hash, AppHash: b.AppHash, LastResults: b.LastResultsHash,
		Validators: b.ValidatorsHash, NextValidators: b.NextValidatorsHash, Evidence: b.Evidence.Evidence, LastCommit: b.LastCommit, ResultsHash: types.NewResults(results.TxsResults).Hash(), NextAppHash: results.AppHash}
	for i, tx := range b.Txs {
		block.Txs = append(block.Txs, tx)
		block.Results = append(block.Results, Result{results.TxsResults[i].Code, results.TxsResults[i].Data})
	}
	return block, nil
}

// Follows tells what is wrong with a block behind another one of the same node.
func (b *Block) Follows(last *Block) error {
	switch {
	case b.Height != last.Height+1:
		return fmt.Errorf("block %d behind block %d", b.Height, last.Height)
	case !bytes.Equal(b.LastHash, last.Hash):
		return fmt.Errorf("block %d names %X as the one before, which is %X", b.Height, b.LastHash, last.Hash)
	case !bytes.Equal(b.LastResults, last.ResultsHash):
		return fmt.Errorf("block %d has results hash %X, those of block %d hash to %X", b.Height, b.LastResults, last.Height, last.ResultsHash)
	case !bytes.Equal(b.AppHash, last.NextAppHash):
		return fmt.Errorf("block %d has AppHash %X, the node kept %X with block %d", b.Height, b.AppHash, last.NextAppHash, last.Height)
	case b.Time.Before(last.Time):
		return fmt.Errorf("block %d is of %s, before block %d of %s", b.Height, b.Time, last.Height, last.Time)
	}
	return nil
}

// Same tells where two nodes' blocks of one height differ.
func (b *Block) Same(other *Block) error {
	for _, c := range []struct {
		what  string
		x, y  []byte
		state uint64
	}{
		{"block hash", b.Hash, other.Hash, b.Height}, {"AppHash", b.AppHash, other.AppHash, b.Height},
		{"results hash", b.ResultsHash, other.ResultsHash, b.Height}, {"AppHash after it", b.NextAppHash, other.NextAppHash, b.Height},
	} {
		if !bytes.Equal(c.x, c.y) {
			return fmt.Errorf("block %d: %s %X and %X", c.state, c.what, c.x, c.y)
		}
	}
	return nil
}
