package app

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// alarm is a log handler that counts what the application reports as defects.
type alarm struct{ rang atomic.Int64 }

func (h *alarm) Enabled(context.Context, slog.Level) bool { return true }
func (h *alarm) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "panic") || strings.Contains(r.Message, "defect") {
		h.rang.Add(1)
	}
	return nil
}
func (h *alarm) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *alarm) WithGroup(string) slog.Handler      { return h }

func ask(t testing.TB, a *App, req abci.RequestQuery) *abci.ResponseQuery {
	t.Helper()
	return must[*abci.ResponseQuery](t)(a.Query(background, &req))
}

// queried is a chain of ten random blocks, with what CometBFT would have in its headers.
type queried struct {
	*world
	app     *App
	blocks  []block
	hashes  [][]byte // AppHash by height - 1
	results [][]byte // LastResultsHash of the next header, by height - 1
	alarm   *alarm
}

func newQueried(t testing.TB, keep uint64) *queried {
	q := &queried{world: newWorld(t), alarm: &alarm{}}
	rng := rand.New(rand.NewPCG(4, 0))
	q.app = open(t, vfs.NewMem(), func(o *Options) { o.Store.KeepVersions, o.Logger = keep, slog.New(q.alarm) })
	t.Cleanup(func() { closeApp(t, q.app) })
	initialise(t, q.app, q.world)
	b := block{height: 1, time: q.doc.GenesisTime}
	for range 10 {
		q.sync(q.app)
		for range 30 {
			check(t, q.app, q.random(rng, ledger.Header{UnixMillis: uint64(b.time.UnixMilli())}, nil))
		}
		prepare(t, q.app, &b, 1<<20)
		answer := finalize(t, q.app, b)
		commit(t, q.app)
		q.blocks, q.hashes = append(q.blocks, b), append(q.hashes, answer.AppHash)
		q.results = append(q.results, types.NewResults(answer.TxResults).Hash())
		b = b.next(time.Second)
	}
	return q
}

// TestQueryState: every row, and the absence of others, is proven at every height that is kept.
func TestQueryState(t *testing.T) {
	q := newQueried(t, 4)
	var keys [][]byte
	v := q.app.store.View()
	if err := v.Range(nil, nil, func(key, _ []byte) error { keys = append(keys, bytes.Clone(key)); return nil }); err != nil {
		t.Fatal(err)
	}
	v.Close()
	absent := ledger.AccountRow(crypto.Address{1, 2, 3})
	keys = append(keys, absent, ledger.AccountRow(crypto.Address{}), ledger.AccountRow(crypto.Address(bytes.Repeat([]byte{255}, 32))))
	proven := 0
	for _, key := range keys {
		tree, ok := ledger.TreeOf(key)
		if !ok {
			continue
		}
		for _, height := range []int64{0, 7, 8, 9, 10} {
			res := ask(t, q.app, abci.RequestQuery{Path: query.StorePath(tree), Data: key, Height: height, Prove: true})
			if res.Code != 0 || len(res.ProofOps.GetOps()) != 2 || height != 0 && res.Height != height || height == 0 && res.Height != 9 {
				t.Fatalf("height %d: %+v", height, res)
			}
			state := proof.State{IAVL: res.ProofOps.Ops[0].Data, Simple: res.ProofOps.Ops[1].Data}
			var err error
			if res.Value != nil {
				err = proof.Value(q.hashes[res.Height-1], key, res.Value, state)
			} else {
				err = proof.Absence(q.hashes[res.Height-1], key, state)
			}
			if err != nil {
				t.Fatalf("key %x at %d: %s", key, height, err)
			}
			if proof.Value(q.hashes[5], key, res.Value, state) == nil {
				t.Fatalf("key %x at %d is proven for another height", key, height)
			}
			proven++
		}
		if res := ask(t, q.app, abci.RequestQuery{Path: query.StorePath(tree), Data: key, Height: 6, Prove: true}); res.Code != query.Pruned {
			t.Fatalf("a pruned height: %+v", res)
		}
		for _, height := range []int64{11, math.MaxInt64} {
			if res := ask(t, q.app, abci.RequestQuery{Path: query.StorePath(tree), Data: key, Height: height, Prove: height == 11}); res.Code != query.NotYet {
				t.Fatalf("height %d: %+v", height, res)
			}
		}
		plain := ask(t, q.app, abci.RequestQuery{Path: query.StorePath(tree), Data: key})
		newest := ask(t, q.app, abci.RequestQuery{Path: query.StorePath(tree), Data: key, Height: 10})
		if plain.Code != 0 || plain.Height != 10 || !bytes.Equal(plain.Value, newest.Value) {
			t.Fatalf("key %x: flat %+v, tree %+v", key, plain, newest)
		}
	}
	if proven < 200 {
		t.Fatalf("only %d proofs", proven)
	}
}

// TestQueryTree: at every height that is kept, the trees can be walked from the AppHash down to exactly the rows of that height.
func TestQueryTree(t *testing.T) {
	q := newQueried(t, 4)
	want := map[string][]byte{}
	v := q.app.store.View()
	if err := v.Range(nil, nil, func(key, value []byte) error {
		if _, ok := ledger.TreeOf(key); ok {
			want[string(key)] = bytes.Clone(value)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	v.Close()
	for _, leaves := range []uint32{1, 9, math.MaxUint32} {
		for _, height := range []int64{0, 7, 9, 10} {
			res := ask(t, q.app, abci.RequestQuery{Path: query.PathTrees, Height: height})
			if res.Code != 0 || height != 0 && res.Height != height || height == 0 && res.Height != 9 {
				t.Fatalf("roots at height %d: %+v", height, res)
			}
			places := must[[]proof.Place](t)(proof.OpenRoots(q.hashes[res.Height-1], res.Value))
			rows := 0
			for ; len(places) > 0; places = places[1:] {
				p := places[0]
				res := ask(t, q.app, abci.RequestQuery{Path: query.TreePath(ledger.TreeNames()[p.Tree]), Data: query.TreeData(p.Path, leaves), Height: height})
				if res.Code != 0 || height != 0 && res.Height != height {
					t.Fatalf("height %d, place %+v: %+v", height, p, res)
				}
				for _, item := range must[proof.Content](t)(p.Open(res.Value)).Items {
					if item.Below != nil {
						places = append(places, *item.Below)
						continue
					}
					rows++
					if height == 10 && !bytes.Equal(want[string(item.Key)], item.Value) {
						t.Fatalf("row %x is %x, want %x", item.Key, item.Value, want[string(item.Key)])
					}
				}
			}
			if height == 10 && rows != len(want) || rows < 30 {
				t.Fatalf("%d rows at height %d, want %d", rows, height, len(want))
			}
		}
	}
	for _, path := range []string{query.PathTrees, query.TreePath("s4")} {
		for height, code := range map[int64]uint32{6: query.Pruned, 11: query.NotYet, math.MaxInt64: query.NotYet} {
			if res := ask(t, q.app, abci.RequestQuery{Path: path, Data: query.TreeData(nil, 10), Height: height}); res.Code != code || res.Value != nil {
				t.Errorf("%s at height %d: %+v, want code %d", path, height, res, code)
			}
		}
	}
	if res := ask(t, q.app, abci.RequestQuery{Path: query.TreePath("s4"), Data: query.TreeData(make([]byte, 64), 10), Height: 10}); res.Code != query.NotFound {
		t.Errorf("below a leaf: %+v", res)
	}
	if n := q.alarm.rang.Load(); n != 0 {
		t.Errorf("%d defects reported", n)
	}
}

// TestQueryTx: every transaction is found by both names, and proven with what CometBFT has in its headers.
func TestQueryTx(t *testing.T) {
	q := newQueried(t, 0)
	found := 0
	for i, b := range q.blocks {
		data := types.Data{}
		for _, raw := range b.txs {
			data.Txs = append(data.Txs, raw)
		}
		for n, raw := range b.txs {
			tx := must[*ledger.Tx](t)(ledger.Decode(raw))
			id, hash := tx.ID(q.network.ID), tx.Hash()
			byID := ask(t, q.app, abci.RequestQuery{Path: query.PathTx, Data: id[:]})
			byHash := ask(t, q.app, abci.RequestQuery{Path: query.PathTxHash, Data: hash[:]})
			if byID.Code != 0 || !bytes.Equal(byID.Value, byHash.Value) || byID.Height != b.height || byID.Index != int64(n) {
				t.Fatalf("transaction %d of block %d: %+v", n, b.height, byID)
			}
			p := must[proof.Inclusion](t)(proof.DecodeInclusion(byID.Value))
			if err := proof.Receipt(data.Hash(), q.results[i], p); err != nil || !bytes.Equal(p.Tx, raw) {
				t.Fatalf("transaction %d of block %d: %v", n, b.height, err)
			}
			found++
		}
	}
	if found < 50 {
		t.Fatalf("only %d transactions", found)
	}
}

// TestQueryEntries: the journal of every line folds into the head that the state has.
func TestQueryEntries(t *testing.T) {
	q := newQueried(t, 0)
	folded := 0
	for _, x := range q.actors {
		key := ledger.LineKey{Account: x.address, Asset: q.fee}
		row := ask(t, q.app, abci.RequestQuery{Path: query.StorePath(treeOf(ledger.LineRow(key))), Data: ledger.LineRow(key)})
		line := must[ledger.Line](t)(ledger.DecodeLine(row.Value))
		var head crypto.Hash
		for from := uint64(1); from <= line.Entries; {
			res := ask(t, q.app, abci.RequestQuery{Path: query.PathEntries, Data: query.EntriesData(key, 0, from, 7)})
			entries := must[[][]byte](t)(query.DecodeEntries(res.Value))
			if res.Code != 0 || len(entries) == 0 || len(entries) > 7 {
				t.Fatalf("%d entries: %+v", len(entries), res)
			}
			for _, e := range entries {
				head = ledger.NextHead(head, e)
				from++
				folded++
			}
		}
		if head != line.Head {
			t.Fatalf("the journal of %s folds into %s, the line says %s", x.name, head, line.Head)
		}
	}
	if folded < 100 {
		t.Fatalf("only %d entries", folded)
	}
	key := ledger.LineKey{Account: q.actors[1].address, Asset: q.fee}
	for _, c := range []struct {
		from  uint64
		limit uint32
	}{{0, 0}, {math.MaxUint64, math.MaxUint32}, {1 << 40, 1}} {
		res := ask(t, q.app, abci.RequestQuery{Path: query.PathEntries, Data: query.EntriesData(key, 0, c.from, c.limit)})
		if entries, err := query.DecodeEntries(res.Value); res.Code != 0 || err != nil || len(entries) != 0 {
			t.Errorf("entries from %d, at most %d: %d, %+v", c.from, c.limit, len(entries), res)
		}
	}
}

func treeOf(key []byte) string {
	tree, _ := ledger.TreeOf(key)
	return tree
}

// TestQueryRefused: what is not a question gets a code that says so, and never a panic.
func TestQueryRefused(t *testing.T) {
	q := newQueried(t, 0)
	row := ledger.AccountRow(q.bank.address)
	for name, c := range map[string]struct {
		req  abci.RequestQuery
		code uint32
	}{
		"no path":                {abci.RequestQuery{}, query.Malformed},
		"unknown path":           {abci.RequestQuery{Path: "/nothing"}, query.Malformed},
		"other tree":             {abci.RequestQuery{Path: "/store/params/key", Data: row}, query.Malformed},
		"no tree":                {abci.RequestQuery{Path: "/store//key", Data: row}, query.Malformed},
		"short path":             {abci.RequestQuery{Path: "/store/key", Data: row}, query.Malformed},
		"no data":                {abci.RequestQuery{Path: "/store/s0/key"}, query.Malformed},
		"row beside":             {abci.RequestQuery{Path: "/store//key", Data: ledger.PolicyRow(crypto.Hash{})}, query.Malformed},
		"negative height":        {abci.RequestQuery{Path: query.StorePath(treeOf(row)), Data: row, Height: -1}, query.Malformed},
		"least height":           {abci.RequestQuery{Path: query.StorePath(treeOf(row)), Data: row, Height: math.MinInt64, Prove: true}, query.Malformed},
		"short id":               {abci.RequestQuery{Path: query.PathTx, Data: []byte{1}}, query.Malformed},
		"unknown id":             {abci.RequestQuery{Path: query.PathTx, Data: make([]byte, 32)}, query.NotFound},
		"unknown hash":           {abci.RequestQuery{Path: query.PathTxHash, Data: make([]byte, 32)}, query.NotFound},
		"unknown policy":         {abci.RequestQuery{Path: query.PathPolicy, Data: make([]byte, 32)}, query.NotFound},
		"short account":          {abci.RequestQuery{Path: query.PathAccount, Data: make([]byte, 31)}, query.Malformed},
		"no such tree":           {abci.RequestQuery{Path: query.TreePath("s10"), Data: query.TreeData(nil, 1)}, query.Malformed},
		"nodes without data":     {abci.RequestQuery{Path: query.TreePath("s0")}, query.Malformed},
		"no leaves":              {abci.RequestQuery{Path: query.TreePath("s0"), Data: query.TreeData(nil, 0)}, query.Malformed},
		"neither left nor right": {abci.RequestQuery{Path: query.TreePath("s0"), Data: query.TreeData([]byte{2}, 1)}, query.Malformed},
		"too long a path":        {abci.RequestQuery{Path: query.TreePath("s0"), Data: query.TreeData(make([]byte, 65), 1)}, query.Malformed},
		"entries without a line": {abci.RequestQuery{Path: query.PathEntries, Data: make([]byte, 59)}, query.Malformed},
	} {
		res := ask(t, q.app, c.req)
		if res.Code != c.code || res.Log == "" || res.Codespace != query.Codespace || res.Value != nil {
			t.Errorf("%s: %+v, want code %d", name, res, c.code)
		}
	}
	if n := q.alarm.rang.Load(); n != 0 {
		t.Errorf("%d defects reported", n)
	}
	empty := open(t, vfs.NewMem(), nil)
	for _, path := range []string{query.PathNetwork, query.PathAccount, query.StorePath(treeOf(row)), query.PathTrees, query.TreePath("s0")} {
		data := q.bank.address[:]
		if strings.HasPrefix(path, "/tree") {
			data = query.TreeData(nil, 1)
		}
		if strings.HasPrefix(path, "/store") {
			data = row
		}
		if res := ask(t, empty, abci.RequestQuery{Path: path, Data: data, Prove: true}); res.Code != query.NotYet {
			t.Errorf("%s before genesis: %+v", path, res)
		}
	}
	closeApp(t, empty)
	for _, path := range []string{query.PathTx, query.PathAccount, query.PathPolicy, query.PathEntries, query.StorePath(treeOf(row)), query.PathTrees, query.TreePath("s0")} {
		if res := ask(t, empty, abci.RequestQuery{Path: path, Data: make([]byte, 32)}); res.Code == 0 {
			t.Errorf("%s on a closed node: %+v", path, res)
		}
	}
}

// TestQueryPanics: a panic while answering is contained.
func TestQueryPanics(t *testing.T) {
	q := newQueried(t, 0)
	whole := q.app.store
	q.app.store = nil
	res := ask(t, q.app, abci.RequestQuery{Path: query.PathPolicy, Data: make([]byte, 32)})
	q.app.store = whole
	if res.Code != query.Failed || q.alarm.rang.Load() == 0 { // the pool may meet the missing store as well
		t.Fatalf("%+v, %d reports", res, q.alarm.rang.Load())
	}
}

// TestCallsRunTogether: queries and admission run beside execution and commit, as CometBFT lets them. It is worth more with
// -race.
func TestCallsRunTogether(t *testing.T) {
	w, a, b := started(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	rows := [][]byte{ledger.AccountRow(w.bank.address), ledger.NetworkRow()}
	to := w.bank.address
	var txs [][]byte
	for range 200 {
		txs = append(txs, w.transfer(w.actors[1], to, 1))
	}
	work := []func(i int){
		func(i int) { _, _ = a.CheckTx(background, &abci.RequestCheckTx{Tx: txs[i%len(txs)]}) },
		func(i int) { _, _ = a.InsertTx(background, &abci.RequestInsertTx{Tx: txs[(i*7)%len(txs)]}) },
		func(i int) { _, _ = a.ReapTxs(background, &abci.RequestReapTxs{MaxBytes: 10_000}) },
		func(i int) {
			_, _ = a.Query(background, &abci.RequestQuery{Path: query.StorePath(treeOf(rows[i%2])), Data: rows[i%2], Prove: i%3 == 0})
		},
		func(i int) { _, _ = a.Query(background, &abci.RequestQuery{Path: query.PathAccount, Data: to[:]}) },
		func(i int) { _, _ = a.Info(background, &abci.RequestInfo{}) },
	}
	for _, f := range work {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		}()
	}
	committed := 0
	for begin := time.Now(); committed < len(txs) && time.Since(begin) < 10*time.Second || b.height < 30; {
		prepare(t, a, &b, 1<<20)
		if !accepted(t, a, b) {
			t.Error("own proposal rejected")
		}
		finalize(t, a, b)
		commit(t, a)
		committed += len(b.txs)
		b = b.next(time.Second)
	}
	close(stop)
	for range work {
		<-done
	}
	if committed != len(txs) {
		t.Errorf("%d committed, want %d", committed, len(txs))
	}
	audit(t, a)
}

// Queries beyond the bound wait for a place, and give up with whoever asked.
func TestQueriesWait(t *testing.T) {
	_, a, _ := started(t, 1)
	for range cap(a.queries) {
		a.queries <- struct{}{}
	}
	gone, cancel := context.WithCancel(background)
	cancel()
	if r := must[*abci.ResponseQuery](t)(a.Query(gone, &abci.RequestQuery{Path: query.PathNetwork})); r.Code != query.Failed {
		t.Errorf("a query beyond the bound is answered with code %d", r.Code)
	}
	<-a.queries
	if r := must[*abci.ResponseQuery](t)(a.Query(background, &abci.RequestQuery{Path: query.PathNetwork})); r.Code != 0 || len(a.queries) != cap(a.queries)-1 {
		t.Errorf("with one place free: code %d, %d places taken", r.Code, len(a.queries))
	}
}
