package app

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	abci "github.com/cometbft/cometbft/abci/types"
	cryptoproto "github.com/cometbft/cometbft/proto/tendermint/crypto"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// queryError is a refusal of a query.
type queryError struct {
	code uint32
	what string
}

func (e *queryError) Error() string { return e.what }

func refuse(code uint32, format string, args ...any) error {
	return &queryError{code, fmt.Sprintf(format, args...)}
}

// Query answers from committed state; package query lists the paths. Answers without proof are this node's word: the
// client package verifies everything that it hands out.
func (a *App) Query(ctx context.Context, req *abci.RequestQuery) (answer *abci.ResponseQuery, err error) {
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("query made the node panic: report this as a defect", "path", req.Path, "data", fmt.Sprintf("%x", req.Data), "panic", r, "stack", string(debug.Stack()))
			answer, err = &abci.ResponseQuery{Code: query.Failed, Codespace: query.Codespace, Log: "the node failed to answer"}, nil
		}
	}()
	select {
	case a.queries <- struct{}{}:
		defer func() { <-a.queries }()
	case <-ctx.Done():
		return &abci.ResponseQuery{Code: query.Failed, Codespace: query.Codespace, Log: "the node is busy with other queries"}, nil
	}
	answer = &abci.ResponseQuery{Codespace: query.Codespace, Key: req.Data}
	if req.Path == query.PathSimulate {
		answer.Key = nil // up to 256 KiB, which whoever asks has
	}
	if err := a.answer(ctx, req, answer); err != nil {
		*answer = abci.ResponseQuery{Code: query.Failed, Codespace: query.Codespace, Log: err.Error(), Key: req.Data}
		var refused *queryError
		switch {
		case errors.As(err, &refused):
			answer.Code = refused.code
		case errors.Is(err, store.ErrPruned), errors.Is(err, index.ErrPruned):
			answer.Code = query.Pruned
		case errors.Is(err, store.ErrNotCommitted), errors.Is(err, mempool.ErrNoState):
			answer.Code = query.NotYet
		default:
			a.log.Error("answer query", "path", req.Path, "err", err)
		}
	}
	return answer, nil
}

func (a *App) answer(ctx context.Context, req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	limit := query.MaxData
	if req.Path == query.PathSimulate {
		limit = ledger.MaxTxBytes
	}
	if len(req.Data) > limit {
		return refuse(query.Malformed, "data of %d bytes, at most %d", len(req.Data), limit)
	}
	if req.Height < 0 {
		return refuse(query.Malformed, "height %d, want 0 or more", req.Height)
	}
	if tree, ok := strings.CutPrefix(req.Path, "/store/"); ok {
		if tree, ok = strings.CutSuffix(tree, "/key"); ok {
			return a.queryRow(tree, req, answer)
		}
	}
	if tree, ok := strings.CutPrefix(req.Path, "/tree/"); ok {
		return a.queryTree(tree, req, answer)
	}
	switch req.Path {
	case query.PathTrees:
		height := a.provable(req)
		roots, err := a.store.Roots(height)
		answer.Value, answer.Height = proof.EncodeRoots(roots), int64(height)
		return err
	case query.PathNetwork:
		base, release, err := a.base()
		if err != nil {
			return err
		}
		defer release()
		answer.Height = int64(a.Last().Height)
		answer.Value, err = base.Get(ledger.NetworkRow())
		return err
	case query.PathPolicy:
		var hash crypto.Hash
		if err := fixed(req.Data, hash[:]); err != nil {
			return err
		}
		view := a.store.View()
		defer view.Close()
		row, err := view.Get(ledger.PolicyRow(hash))
		if err != nil {
			return err
		}
		if row == nil {
			return refuse(query.NotFound, "no account has registered the policy %s", hash)
		}
		answer.Value, answer.Height = row[1:], int64(view.Height())
		return nil
	case query.PathTx, query.PathTxHash:
		return a.queryTx(req, answer)
	case query.PathAccount:
		var address crypto.Address
		if err := fixed(req.Data, address[:]); err != nil {
			return err
		}
		info, err := a.accountInfo(address)
		answer.Value, answer.Height = info.Encode(), int64(info.Height)
		return err
	case query.PathEntries:
		return a.queryEntries(req, answer)
	case query.PathSimulate:
		return a.querySimulation(ctx, req, answer)
	case query.PathLines, query.PathGrants:
		return a.queryKeys(req, answer)
	case query.PathSearch:
		return a.querySearch(req, answer)
	}
	return refuse(query.Malformed, "unknown path %q, want /store/<tree>/key, /trees, /tree/<tree>, /policy, /tx, /tx/hash, /account, /entries, /network, /simulate, /lines, /grants or /search", req.Path)
}

func fixed(data, dst []byte) error {
	if len(data) != len(dst) {
		return refuse(query.Malformed, "data of %d bytes, this path takes %d", len(data), len(dst))
	}
	copy(dst, data)
	return nil
}

func (a *App) queryRow(tree string, req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	if of, ok := ledger.TreeOf(req.Data); !ok || of != tree {
		return refuse(query.Malformed, "key %x is not in tree %q", req.Data, tree)
	}
	if !req.Prove && req.Height == 0 {
		view := a.store.View()
		defer view.Close()
		value, err := view.Get(req.Data)
		answer.Value, answer.Height = value, int64(view.Height())
		return err
	}
	p, err := a.store.Prove(req.Data, a.provable(req))
	if err != nil {
		return err
	}
	answer.Value, answer.Height = p.Value, int64(p.Height)
	if req.Prove {
		ops := make([]cryptoproto.ProofOp, len(p.Ops))
		for i, op := range p.Ops {
			ops[i] = cryptoproto.ProofOp{Type: op.Type, Key: op.Key, Data: op.Data}
		}
		answer.ProofOps = &cryptoproto.ProofOps{Ops: ops}
	}
	return nil
}

// provable returns the height that a question is about: 0 means the newest that can be proven. The root of a height stands
// in the next header, so that is one behind the newest.
func (a *App) provable(req *abci.RequestQuery) uint64 {
	if req.Height != 0 {
		return uint64(req.Height)
	}
	if height := a.store.Height(); height > 0 {
		return height - 1
	}
	return 0
}

// queryTree shows a part of a tree. At most 2,048 leaves, or 4,095 reads, are a few dozen milliseconds of one core.
func (a *App) queryTree(tree string, req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	number := slices.Index(ledger.TreeNames(), tree)
	path, leaves, ok := query.ParseTreeData(req.Data)
	if number < 0 || !ok {
		return refuse(query.Malformed, "tree %q and data %x are not a question for nodes", tree, req.Data)
	}
	height := a.provable(req)
	nodes, err := a.store.Subtree(number, height, path, int(min(leaves, proof.MaxLeaves)), proof.MaxSubtree/2)
	if errors.Is(err, store.ErrNoNode) {
		return refuse(query.NotFound, "%s", err)
	}
	if err != nil {
		return err
	}
	subtree := make(proof.Subtree, len(nodes))
	for i, n := range nodes {
		subtree[i] = proof.Node(n)
	}
	answer.Value, answer.Height = subtree.Encode(), int64(height)
	return nil
}

func (a *App) queryTx(req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	var name crypto.Hash
	if err := fixed(req.Data, name[:]); err != nil {
		return err
	}
	r := a.store.Index()
	defer r.Close()
	find := index.ByID
	if req.Path == query.PathTxHash {
		find = index.ByHash
	}
	at, ok, err := find(r, name)
	if err != nil {
		return err
	}
	if !ok {
		base, err := index.Base(r)
		if err != nil {
			return err
		}
		if base != 0 {
			return refuse(query.Pruned, "no block from height %d to %d has the transaction %s: %s", base, r.Height(), name, index.ErrPruned)
		}
		return refuse(query.NotFound, "no block up to height %d has the transaction %s", r.Height(), name)
	}
	block, err := index.Block(r, at.Height)
	if err != nil {
		return err
	}
	if int(at.Index) >= len(block) {
		return fmt.Errorf("index says transaction %s is number %d of block %d, which has %d: rebuild the index", name, at.Index, at.Height, len(block))
	}
	txs, results := make([][]byte, len(block)), make([]proof.Result, len(block))
	for i, tx := range block {
		txs[i], results[i] = tx.Raw, proof.Result{Code: tx.Code, Data: tx.Data}
	}
	inclusion, err := proof.MakeInclusion(txs, results, int(at.Index))
	if err != nil {
		return err
	}
	answer.Value, answer.Height, answer.Index = inclusion.Encode(), int64(at.Height), int64(at.Index)
	return nil
}

func (a *App) queryEntries(req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	line, incarnation, from, limit, ok := query.ParseEntriesData(req.Data)
	if !ok {
		return refuse(query.Malformed, "data of %d bytes is not a question for entries", len(req.Data))
	}
	// The state before the index, which is then never the older one.
	made, err := a.entriesMade(line, incarnation)
	if err != nil {
		return err
	}
	r := a.store.Index()
	defer r.Close()
	entries, err := index.Entries(r, line, incarnation, from, made, int(min(limit, query.MaxEntries)))
	if err != nil {
		return err
	}
	answer.Value, answer.Height = query.EncodeEntries(entries), int64(r.Height())
	return nil
}

// entriesMade returns how many entries a line's journal has; 0 for one that ended with its line.
func (a *App) entriesMade(key ledger.LineKey, incarnation uint64) (uint64, error) {
	view := a.store.View()
	defer view.Close()
	row, err := view.Get(ledger.LineRow(key))
	if err != nil || row == nil {
		return 0, err
	}
	line, err := ledger.DecodeLine(row)
	if err != nil || line.Incarnation != incarnation {
		return 0, err
	}
	return line.Entries, nil
}

// querySimulation tries a transaction out. It executes what nobody has paid for, so only some run at once.
func (a *App) querySimulation(ctx context.Context, req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	tx, err := ledger.Decode(req.Data)
	if err != nil {
		return refuse(query.Malformed, "not a transaction: %s", err)
	}
	select {
	case a.simulations <- struct{}{}:
		defer func() { <-a.simulations }()
	case <-ctx.Done():
		return refuse(query.Failed, "the node is busy with other simulations")
	}
	base, last, release, err := a.admission()
	if err != nil {
		return err
	}
	defer release()
	s, err := query.Simulate(base, last, tx)
	if err != nil {
		return err
	}
	answer.Value, answer.Height = s.Encode(), int64(last.Height)
	return nil
}

// queryKeys lists rows of an account, from the newest state.
func (a *App) queryKeys(req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	start, end, ok := query.KeyRange(req.Path, req.Data)
	if !ok {
		return refuse(query.Malformed, "data of %d bytes is neither an account nor the end of an earlier answer", len(req.Data))
	}
	view := a.store.View()
	defer view.Close()
	var keys [][]byte
	err := view.Range(start, end, func(key, _ []byte) error {
		if len(keys) == query.MaxKeys {
			return errEnough
		}
		keys = append(keys, append([]byte(nil), key...))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	answer.Value, answer.Height = query.EncodeKeys(keys), int64(view.Height())
	return nil
}

// errEnough ends a walk over rows.
var errEnough = errors.New("enough")

func (a *App) querySearch(req *abci.RequestQuery, answer *abci.ResponseQuery) error {
	s, ok := query.ParseSearch(req.Data)
	if !ok {
		return refuse(query.Malformed, "data of %d bytes is not a question for a search", len(req.Data))
	}
	if s.Limit == 0 || s.Limit > query.MaxHits {
		s.Limit = query.MaxHits
	}
	r := a.store.Index()
	defer r.Close()
	hits, err := index.Search(r, s)
	if errors.Is(err, index.ErrCursor) {
		return refuse(query.Malformed, "%s", err)
	}
	if err != nil {
		return err
	}
	answer.Value, answer.Height = hits.Encode(), int64(r.Height())
	return nil
}

func (a *App) accountInfo(address crypto.Address) (query.Account, error) {
	last := a.Last() // before the state, which may so be newer than the height says, and never older
	base, release, err := a.base()
	if err != nil {
		return query.Account{}, err
	}
	defer release()
	info := query.Account{Height: last.Height, UnixMillis: last.UnixMillis, Policy: crypto.Hash(address)}
	row, err := base.Get(ledger.AccountRow(address))
	if err != nil {
		return query.Account{}, err
	}
	if row != nil {
		account, err := ledger.DecodeAccount(row)
		if err != nil {
			return query.Account{}, err
		}
		info.Known, info.Policy, info.PolicyVersion, info.Sequence = true, account.Policy, account.PolicyVersion, account.Sequence
	}
	info.NextSequence = info.Sequence + 1
	if next, ok := a.pool.Pending(address); ok {
		info.NextSequence = max(info.NextSequence, next)
	}
	return info, nil
}
