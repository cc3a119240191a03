package app

import (
	"bytes"
	"flag"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

var (
	mutations   = flag.Int("mutations", 20_000, "bytes that TestMutations tries on the decoder and CheckTx")
	trafficSeed = flag.Uint64("seed", 12, "seed of the traffic that TestMutations mutates")
)

// seeds are good transactions of every kind and scheme.
func seeds(w *world) (txs [][]byte) {
	pay := &ledger.Transfer{To: w.poor.address, Asset: w.fee, Amount: ledger.Units(3), Reference: ledger.Reference{1}, Code: 7, Memo: "rent"}
	for _, a := range w.actors {
		if a == w.poor {
			continue
		}
		txs = append(txs, w.build(order{signers: []*actor{a}, operations: []ledger.Operation{pay}}))
	}
	a, b := w.actors[1], w.actors[2]
	txs = append(txs,
		w.build(order{signers: []*actor{a, b}, operations: []ledger.Operation{pay, &ledger.Transfer{From: 1, To: a.address, Asset: w.fee, Amount: ledger.Units(1)}}}),
		w.build(order{signers: []*actor{a}, operations: []ledger.Operation{&ledger.CreateAsset{Code: "GOLD", Scale: 3, MaxSupply: ledger.Units(5), MetadataHash: make([]byte, 32)}}}),
		w.build(order{signers: []*actor{b}, operations: []ledger.Operation{w.setPolicy(0, b, w.policy(1, w.ring.key(w.t, sec, "next")))}}),
		w.build(order{signers: []*actor{w.actors[3]}, nonce: 1, validUntil: uint64(w.doc.GenesisTime.Unix()) + 60, operations: []ledger.Operation{pay}}))
	return txs
}

// resign makes a transaction of a body that anybody wrote, with signatures of the actors in it, so that what is behind
// admission is reached. nil: the bytes are not a body.
func (w *world) resign(body []byte) []byte {
	b, err := ledger.DecodeBody(body)
	if err != nil {
		return nil
	}
	var witnesses []ledger.Witness
	for i, s := range b.Signers {
		for _, a := range w.actors {
			if a.address != s.Address {
				continue
			}
			for k, key := range a.policy.Keys[:a.policy.Threshold] {
				if key.Scheme == ed { // the others take too long
					signature, err := w.ring[ringName(key.Scheme, key.Public)].Sign(ledger.Preimage(w.network.ID, body, a.version))
					if err != nil {
						panic(err)
					}
					witnesses = append(witnesses, ledger.Witness{Signer: uint32(i), Key: uint32(k), Signature: signature})
				}
			}
		}
	}
	return ledger.Assemble(body, witnesses, nil)
}

// checked runs bytes through CheckTx. What is accepted must be canonical.
func checked(t testing.TB, a *App, rings *alarm, raw []byte) ledger.Code {
	given := bytes.Clone(raw)
	code := check(t, a, raw)
	if rings.rang.Load() != 0 || a.pool.Stats().Panics != 0 {
		t.Fatalf("a defect was reported for %x", given)
	}
	tx, err := ledger.Decode(raw)
	if code == ledger.OK && err != nil {
		t.Fatalf("accepted %x, which does not decode: %s", given, err)
	}
	if err == nil {
		if code == ledger.Malformed {
			t.Fatalf("%x decodes and is malformed", given)
		}
		if again := ledger.Assemble(tx.Body.Encode(), tx.Witnesses, tx.Sponsor); !bytes.Equal(again, given) {
			t.Fatalf("decoded and encoded again:\n%x, was\n%x", again, given)
		}
	}
	if !bytes.Equal(given, raw) {
		t.Fatal("CheckTx changed the bytes")
	}
	return code
}

// FuzzCheckTx: no bytes crash admission, and what it accepts is canonical. Bytes that are a body are signed and tried too.
func FuzzCheckTx(f *testing.F) {
	w := newWorld(f)
	rings := &alarm{}
	a := open(f, vfs.NewMem(), func(o *Options) { o.Logger = slog.New(rings); o.Store.OnFatal = nil })
	f.Cleanup(func() { closeApp(f, a) })
	initialise(f, a, w)
	finalize(f, a, block{height: 1, time: w.doc.GenesisTime})
	commit(f, a)
	for _, raw := range seeds(w) {
		f.Add(raw)
		f.Add(must[*ledger.Tx](f)(ledger.Decode(raw)).BodyBytes())
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		checked(t, a, rings, raw)
		if signed := w.resign(raw); signed != nil {
			checked(t, a, rings, signed)
		}
	})
}

// FuzzFinalizeBlock: no transactions and no evidence stop a node, and whatever they do, the books balance. The bytes are
// cut into transactions; those that are a body are signed.
func FuzzFinalizeBlock(f *testing.F) {
	w := newWorld(f)
	rings := &alarm{}
	var a *App
	var b block
	begin := func(t testing.TB) {
		a = open(t, vfs.NewMem(), func(o *Options) { o.Logger = slog.New(rings); o.Store.OnFatal = nil })
		initialise(t, a, w)
		b = block{height: 1, time: w.doc.GenesisTime}
	}
	begin(f)
	f.Cleanup(func() { closeApp(f, a) })
	txs := seeds(w)
	for i, raw := range txs {
		f.Add(raw, must[*ledger.Tx](f)(ledger.Decode(raw)).BodyBytes(), txs[(i+1)%len(txs)], []byte(w.doc.Validators[0].Address), int64(i), uint16(1000*i))
	}
	f.Fuzz(func(t *testing.T, first, second, third, address []byte, evidenceHeight int64, after uint16) {
		b.txs = [][]byte{first, second, first, third}
		for _, raw := range b.txs {
			if signed := w.resign(raw); signed != nil {
				b.txs = append(b.txs, signed)
			}
		}
		b.time = b.time.Add(time.Duration(after) * time.Millisecond)
		for range after % 3 {
			b.evidence = append(b.evidence, abci.Misbehavior{Type: abci.MisbehaviorType(after), Validator: abci.Validator{Address: address, Power: int64(after)}, Height: evidenceHeight, Time: b.time})
		}
		rejected := !accepted(t, a, b)
		answer := finalize(t, a, b)
		if len(answer.TxResults) != len(b.txs) {
			t.Fatalf("%d results for %d transactions", len(answer.TxResults), len(b.txs))
		}
		refused := false
		for _, r := range answer.TxResults {
			refused = refused || ledger.Code(r.Code).Refused()
		}
		if refused != rejected {
			t.Fatalf("rejected: %t, refused: %t", rejected, refused)
		}
		commit(t, a)
		if rings.rang.Load() != 0 {
			t.Fatal("a defect was reported")
		}
		if b.height%16 == 0 {
			audit(t, a)
		}
		if validators(t, a) == 0 {
			t.Fatal("no validator left")
		}
		b = block{height: b.height + 1, time: b.time}
		if b.height > 512 {
			audit(t, a)
			closeApp(t, a)
			begin(t)
		}
	})
}

// FuzzQuery: no question makes a node panic, and what is answered with a proof is proven.
func FuzzQuery(f *testing.F) {
	q := newQueried(f, 4)
	row := ledger.AccountRow(q.bank.address)
	for _, path := range []string{query.StorePath(treeOf(row)), query.PathAccount, query.PathEntries, query.PathNetwork, query.PathPolicy, query.PathTx, query.PathTxHash, query.PathSimulate, query.PathLines,
		query.PathGrants, query.PathSearch, "/", "/store//key"} {
		for _, data := range [][]byte{nil, row, q.bank.address[:], query.EntriesData(ledger.LineKey{Account: q.bank.address, Asset: q.fee}, 0, 1, 10)} {
			f.Add(path, data, int64(0), false)
			f.Add(path, data, int64(8), true)
		}
	}
	f.Fuzz(func(t *testing.T, path string, data []byte, height int64, prove bool) {
		res := ask(t, q.app, abci.RequestQuery{Path: path, Data: data, Height: height, Prove: prove})
		if q.alarm.rang.Load() != 0 || res.Code == query.Failed {
			t.Fatalf("%+v", res)
		}
		if res.Code != 0 && res.Value != nil {
			t.Fatalf("refused with a value: %+v", res)
		}
		if ops := res.ProofOps.GetOps(); ops != nil {
			state := proof.State{IAVL: ops[0].Data, Simple: ops[1].Data}
			err := proof.Absence(q.hashes[res.Height-1], data, state)
			if res.Value != nil {
				err = proof.Value(q.hashes[res.Height-1], data, res.Value, state)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestMutations mutates good transactions at random, on every processor and without the fuzzer's instrumentation: it is
// how many executions are had in little time (-mutations). The fuzzer finds the new paths, this one the rare bytes.
func TestMutations(t *testing.T) {
	f := newTraffic(t, *trafficSeed)
	rings := &alarm{}
	a := open(t, vfs.NewMem(), func(o *Options) {
		o.Logger = slog.New(rings)
		o.Mempool.Workers = runtime.GOMAXPROCS(0)
		o.Mempool.QueueBytes = 64 << 20
	})
	defer closeApp(t, a)
	initialise(t, a, f.world)
	good := everyKindAccepted(t, f, a)
	begin := time.Now()
	var left atomic.Int64
	left.Store(int64(*mutations))
	var mu sync.Mutex
	codes := map[ledger.Code]int{}
	var all sync.WaitGroup
	const askers = 64 // so that batches fill: CheckTx waits for its verdict
	for n := range askers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 5))
			counts := map[ledger.Code]int{}
			for left.Add(-1) >= 0 {
				counts[checked(t, a, rings, mutate(rng, good))]++
			}
			mu.Lock()
			defer mu.Unlock()
			for c, k := range counts {
				codes[c] += k
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	t.Logf("%d mutations in %s, %.0f a second, codes %v", *mutations, took.Round(time.Millisecond), float64(*mutations)/took.Seconds(), codes)
	for _, code := range []ledger.Code{ledger.OK, ledger.Malformed, ledger.SignatureInvalid, ledger.WitnessMissing, ledger.SequenceUsed, ledger.NonceUsed} {
		if codes[code] == 0 {
			t.Errorf("no mutation got the code %s", code)
		}
	}
}

// everyKindAccepted commits some blocks and returns transactions with every kind of operation, and every way to pay, that wait in
// the pool.
func everyKindAccepted(t testing.TB, f *traffic, a *App) (good [][]byte) {
	t.Helper()
	millis := func(b block) uint64 { return uint64(b.time.UnixMilli()) }
	b := block{time: f.doc.GenesisTime}
	for range 35 { // so that there are holds, grants, and recoveries, which take an hour
		b = block{height: b.height + 1, time: b.time.Add(2 * time.Minute)}
		f.look(a, millis(b))
		for range 60 {
			b.txs = append(b.txs, f.transaction())
		}
		finalize(t, a, b)
		commit(t, a)
	}
	// Newcomers whom nobody owes anything: they can leave. Of the others, by luck, nobody may.
	b = block{height: b.height + 1, time: b.time.Add(time.Minute)}
	f.look(a, millis(b))
	for range 6 {
		b.txs = append(b.txs, f.build(order{signers: []*actor{f.bank}, maxDeposit: 1000, operations: []ledger.Operation{
			&ledger.Transfer{To: f.birth().address, Asset: f.fee, Amount: ledger.Units(1_000_000)}}}))
	}
	for _, r := range finalize(t, a, b).TxResults {
		if r.Code != 0 {
			t.Fatalf("a newcomer gets nothing: %s", ledger.Code(r.Code))
		}
	}
	commit(t, a)
	missing := map[ledger.Kind]int{}
	for _, kind := range everyKind() {
		missing[kind] = 2
	}
	for range 400 {
		f.look(a, millis(b))
		for _, x := range f.actors {
			if next, waits := a.pool.Pending(x.address); waits {
				x.sequence = next - 1
			}
		}
		for range 60 {
			raw := f.transaction()
			kinds := kindsOf(must[*ledger.Tx](t)(ledger.Decode(raw)))
			if !slices.ContainsFunc(kinds, func(k ledger.Kind) bool { return missing[k] > 0 }) || check(t, a, raw) != ledger.OK {
				continue
			}
			good = append(good, raw)
			for _, k := range kinds {
				if missing[k]--; missing[k] <= 0 {
					delete(missing, k)
				}
			}
		}
		if len(missing) == 0 {
			return good
		}
	}
	t.Fatalf("no transactions are accepted with %v", missing)
	return nil
}

// mutate changes a copy of one of the good ones a little, or not at all.
func mutate(rng *rand.Rand, good [][]byte) []byte {
	raw := bytes.Clone(good[rng.IntN(len(good))])
	for range rng.IntN(4) {
		i := rng.IntN(len(raw))
		switch rng.IntN(6) {
		case 0:
			raw[i] ^= 1 << rng.IntN(8)
		case 1:
			raw[i] = byte(rng.Uint32())
		case 2: // cut out
			raw = append(raw[:i], raw[min(len(raw), i+1+rng.IntN(8)):]...)
		case 3: // put in
			raw = append(raw[:i:i], append([]byte{byte(rng.Uint32())}, raw[i:]...)...)
		case 4: // from elsewhere
			other := good[rng.IntN(len(good))]
			j := rng.IntN(len(other))
			copy(raw[i:], other[j:min(len(other), j+rng.IntN(64))])
		case 5:
			raw = raw[:i]
		}
		if len(raw) == 0 {
			return raw
		}
	}
	return raw
}

// TestResigned makes sure that the fuzz targets get past signatures: a changed body that is signed again takes effect.
func TestResigned(t *testing.T) {
	w, a, b := started(t)
	raw := w.transfer(w.actors[1], w.bank.address, 5)
	body := must[*ledger.Tx](t)(ledger.Decode(raw)).Body
	body.Operations = []ledger.Operation{&ledger.Transfer{To: crypto.Address{9}, Asset: w.fee, Amount: ledger.Units(77)}}
	b.txs = [][]byte{w.resign(body.Encode())}
	if answer := finalize(t, a, b); answer.TxResults[0].Code != 0 {
		t.Fatalf("%+v", answer.TxResults[0])
	}
	if w.resign([]byte("no body")) != nil {
		t.Fatal("signs anything")
	}
}
