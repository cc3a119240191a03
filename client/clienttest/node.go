package clienttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtbytes "github.com/cometbft/cometbft/libs/bytes"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/crypto"
	ctypes "github.com/cometbft/cometbft/rpc/core/types"
	rpctypes "github.com/cometbft/cometbft/rpc/jsonrpc/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Node serves a chain as a node does, on a port of its own.
type Node struct {
	*httptest.Server
	Chain *Chain

	mu   sync.Mutex
	lies Lies
	seen int // transactions that came in
}

// Lies are how a node misbehaves. The zero value is an honest node.
type Lies struct {
	Question func(*abci.RequestQuery)                      // changes a question before it is answered
	Answer   func(*abci.RequestQuery, *abci.ResponseQuery) // changes an answer
	Block    func(*types.LightBlock) *types.LightBlock     // changes a header
	Submit   http.HandlerFunc                              // takes transactions in the place of the node
	Down     bool                                          // drops every connection
}

// Serve starts a node; it stops when the test ends.
func (c *Chain) Serve() *Node {
	n := &Node{Chain: c}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+client.SubmitPath, n.submit)
	mux.HandleFunc("POST /{$}", n.rpc)
	n.Server = httptest.NewServer(mux)
	c.T.Cleanup(n.Close)
	return n
}

// Lie makes the node misbehave from now on.
func (n *Node) Lie(l Lies) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lies = l
}

// Submitted returns how many transactions came in.
func (n *Node) Submitted() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen
}

func (n *Node) now() Lies {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lies.Down {
		panic(http.ErrAbortHandler)
	}
	return n.lies
}

// Answer writes the JSON that answers a transaction.
func Answer(w http.ResponseWriter, status int, id crypto.Hash, code ledger.Code, message string, retry bool, height int) {
	w.Header().Set("Content-Type", "application/json")
	if retry {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"id": id, "code": uint32(code), "name": code.String(), "message": message, "retry": retry, "height": height})
}

func (n *Node) submit(w http.ResponseWriter, r *http.Request) {
	lies := n.now()
	n.mu.Lock()
	n.seen++
	n.mu.Unlock()
	if lies.Submit != nil {
		lies.Submit(w, r)
		return
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, ledger.MaxTxBytes+1))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, code, height := n.Chain.check(raw)
	if code != ledger.OK {
		Answer(w, http.StatusUnprocessableEntity, id, code, "as the rules say", false, 0)
		return
	}
	Answer(w, http.StatusOK, id, code, "", false, height)
}

func (n *Node) rpc(w http.ResponseWriter, r *http.Request) {
	lies := n.now()
	var request rpctypes.RPCRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var p struct {
		Height, Page string
		Path         string
		Data         cmtbytes.HexBytes
		Prove        bool
	}
	if err := json.Unmarshal(request.Params, &p); err != nil {
		_ = json.NewEncoder(w).Encode(rpctypes.RPCInvalidParamsError(request.ID, err))
		return
	}
	var result any
	var err error
	switch request.Method {
	case "commit", "validators":
		var block *types.LightBlock
		if block, err = n.Chain.lightBlock(p.Height); err != nil {
			break
		}
		if lies.Block != nil {
			block = lies.Block(block)
		}
		if request.Method == "commit" {
			result = ctypes.ResultCommit{SignedHeader: *block.SignedHeader, CanonicalCommit: true}
			break
		}
		list := block.ValidatorSet.Validators
		result = ctypes.ResultValidators{BlockHeight: block.Height, Validators: list, Count: len(list), Total: len(list)}
	case "abci_query":
		height, _ := strconv.ParseInt(p.Height, 10, 64)
		asked := &abci.RequestQuery{Path: p.Path, Data: p.Data, Height: height, Prove: p.Prove}
		if lies.Question != nil {
			lies.Question(asked)
		}
		answer := n.Chain.query(asked)
		if lies.Answer != nil {
			lies.Answer(asked, answer)
		}
		result = ctypes.ResultABCIQuery{Response: *answer}
	default:
		http.Error(w, "no such method", http.StatusNotFound)
		return
	}
	if err != nil {
		_ = json.NewEncoder(w).Encode(rpctypes.RPCInternalError(request.ID, err))
		return
	}
	_ = json.NewEncoder(w).Encode(rpctypes.NewRPCSuccessResponse(request.ID, result))
}

func (c *Chain) lightBlock(text string) (*types.LightBlock, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tip := int64(len(c.blocks))
	height := tip
	if text != "" {
		height, _ = strconv.ParseInt(text, 10, 64)
	}
	if height > tip {
		return nil, fmt.Errorf("height %d must be less than or equal to the current blockchain height %d", height, tip)
	}
	if height < 1 {
		return nil, errors.New("height must be greater than 0")
	}
	return c.blocks[height-1].light, nil
}

// query answers as the application does.
func (c *Chain) query(r *abci.RequestQuery) *abci.ResponseQuery {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := &abci.ResponseQuery{Key: r.Data, Codespace: query.Codespace}
	refuse := func(code uint32, what string) *abci.ResponseQuery {
		return &abci.ResponseQuery{Code: code, Log: what, Codespace: query.Codespace, Key: r.Data}
	}
	view := c.store.View()
	defer view.Close()
	if tree, ok := storePath(r.Path); ok {
		if of, _ := ledger.TreeOf(r.Data); of != tree {
			return refuse(query.Malformed, "not in this tree")
		}
		height := uint64(r.Height)
		if height == 0 {
			height = view.Height() - 1
		}
		p, err := c.store.Prove(r.Data, height)
		if errors.Is(err, store.ErrNotCommitted) {
			return refuse(query.NotYet, err.Error())
		}
		if err != nil {
			return refuse(query.Failed, err.Error())
		}
		answer.Value, answer.Height, answer.ProofOps = p.Value, int64(p.Height), &cmtproto.ProofOps{}
		for _, op := range p.Ops {
			answer.ProofOps.Ops = append(answer.ProofOps.Ops, cmtproto.ProofOp{Type: op.Type, Key: op.Key, Data: op.Data})
		}
		return answer
	}
	if tree, ok := strings.CutPrefix(r.Path, "/tree"); ok {
		height := uint64(r.Height)
		if height == 0 {
			height = view.Height() - 1
		}
		value, err := c.nodes(tree, height, r.Data)
		switch {
		case errors.Is(err, store.ErrPruned):
			return refuse(query.Pruned, err.Error())
		case errors.Is(err, store.ErrNotCommitted):
			return refuse(query.NotYet, err.Error())
		case err != nil:
			return refuse(query.Malformed, err.Error())
		}
		answer.Value, answer.Height = value, int64(height)
		return answer
	}
	answer.Height = int64(view.Height())
	var hash crypto.Hash
	switch copy(hash[:], r.Data); r.Path {
	case query.PathPolicy:
		row, err := view.Get(ledger.PolicyRow(hash))
		if err != nil || row == nil {
			return refuse(query.NotFound, "no such policy")
		}
		answer.Value = row[1:]
	case query.PathTx:
		at, ok := c.placed[hash]
		if !ok {
			return refuse(query.NotFound, "no block has it")
		}
		b := c.blocks[at[0]-1]
		inclusion, err := proof.MakeInclusion(b.txs, b.results, at[1])
		if err != nil {
			return refuse(query.Failed, err.Error())
		}
		answer.Value, answer.Height = inclusion.Encode(), int64(at[0])
	case query.PathAccount:
		info := query.Account{Height: view.Height(), UnixMillis: uint64(c.blocks[len(c.blocks)-1].light.Time.UnixMilli()), Policy: hash}
		if row, _ := view.Get(ledger.AccountRow(crypto.Address(hash))); row != nil {
			account, err := ledger.DecodeAccount(row)
			if err != nil {
				return refuse(query.Failed, err.Error())
			}
			info.Known, info.Policy, info.PolicyVersion, info.Sequence = true, account.Policy, account.PolicyVersion, account.Sequence
		}
		info.NextSequence = info.Sequence + 1
		answer.Value = info.Encode()
	case query.PathEntries:
		line, incarnation, from, limit, ok := query.ParseEntriesData(r.Data)
		if !ok || from < 1 {
			return refuse(query.Malformed, "not a question for entries")
		}
		all := c.entries[journal{line, incarnation}]
		start := min(from-1, uint64(len(all)))
		answer.Value = query.EncodeEntries(all[start:min(start+uint64(limit), uint64(len(all)))])
	case query.PathSimulate:
		tx, err := ledger.Decode(r.Data)
		if err != nil {
			return refuse(query.Malformed, err.Error())
		}
		s, err := query.Simulate(view, ledger.Header{Height: view.Height(), UnixMillis: uint64(c.blocks[len(c.blocks)-1].light.Time.UnixMilli())}, tx)
		if err != nil {
			return refuse(query.Failed, err.Error())
		}
		answer.Value = s.Encode()
	case query.PathLines, query.PathGrants:
		start, end, ok := query.KeyRange(r.Path, r.Data)
		if !ok {
			return refuse(query.Malformed, "not a question for keys")
		}
		var keys [][]byte
		if err := view.Range(start, end, func(key, _ []byte) error {
			if len(keys) < query.MaxKeys {
				keys = append(keys, bytes.Clone(key))
			}
			return nil
		}); err != nil {
			return refuse(query.Failed, err.Error())
		}
		answer.Value = query.EncodeKeys(keys)
	case query.PathSearch:
		s, ok := query.ParseSearch(r.Data)
		if !ok {
			return refuse(query.Malformed, "not a question for a search")
		}
		if s.Limit == 0 || s.Limit > query.MaxHits {
			s.Limit = query.MaxHits
		}
		found := c.store.Index()
		defer found.Close()
		hits, err := index.Search(found, s)
		if err != nil {
			return refuse(query.Malformed, err.Error())
		}
		answer.Value = hits.Encode()
	default:
		return refuse(query.Malformed, "unknown path "+r.Path)
	}
	return answer
}

// nodes answers /trees ("s") and /tree/<tree> ("/<tree>").
func (c *Chain) nodes(tree string, height uint64, data []byte) ([]byte, error) {
	if tree == "s" {
		roots, err := c.store.Roots(height)
		return proof.EncodeRoots(roots), err
	}
	path, leaves, ok := query.ParseTreeData(data)
	if !ok {
		return nil, errors.New("not a question for nodes")
	}
	nodes, err := c.store.Subtree(slices.Index(ledger.TreeNames(), tree[1:]), height, path, int(min(leaves, proof.MaxLeaves)), proof.MaxSubtree/2)
	subtree := make(proof.Subtree, len(nodes))
	for i, n := range nodes {
		subtree[i] = proof.Node(n)
	}
	return subtree.Encode(), err
}
