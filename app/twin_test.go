package app

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestTwins runs one chain on three nodes that do everything differently and must agree on every byte:
//
//	a  a proposer: mempool, signature cache, PrepareProposal, ProcessProposal, outcomes kept and taken again
//	b  block sync and replay: FinalizeBlock and Commit only, on a disk that loses what was not synced whenever it likes
//	c  one processor, a signature cache of 16, hardly any tree cache, two provable heights
//
// Some blocks are such as only a dishonest majority decides; they must do the same on all three.
func TestTwins(t *testing.T) {
	const blocks, perBlock = 80, 50
	for _, seed := range []uint64{1, 2} {
		twins(t, seed, blocks, perBlock)
	}
}

func twins(t *testing.T, seed uint64, blocks, perBlock int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, 10, 20, 5, 1)
	disk := vfs.NewCrashableMem()
	a := open(t, vfs.NewMem(), nil)
	b := open(t, disk, nil)
	c := open(t, vfs.NewMem(), func(o *Options) {
		o.Workers, o.SignatureCache, o.Store.TreeCacheNodes, o.Store.KeepVersions = 1, 16, 1, 2
	})
	defer func() { closeApp(t, a); closeApp(t, b); closeApp(t, c) }()
	for _, x := range []*App{a, b, c} {
		initialise(t, x, w)
	}
	set := cometSet(t, w)
	var chain []block
	var answers [][]byte
	codes := map[ledger.Code]int{}
	var old [][]byte
	refusedBlocks, crashes := 0, 0
	now := w.doc.GenesisTime
	for len(chain) < blocks {
		height := int64(len(chain) + 1)
		now = now.Add(time.Duration(rng.IntN(2000))*time.Millisecond + time.Duration(rng.IntN(1e6)))
		if rng.IntN(20) == 0 {
			now = now.Add(11 * time.Minute) // every open nonce dies
		}
		next := block{height: height, time: now}
		for rng.IntN(8) == 0 {
			next.evidence = append(next.evidence, evidence(rng, w, height)...)
		}
		w.sync(a)
		header := ledger.Header{Height: uint64(height), UnixMillis: uint64(now.UnixMilli())}
		var sent [][]byte
		for range perBlock {
			raw := w.random(rng, header, old)
			sent = append(sent, raw)
			codes[check(t, a, raw)]++
		}
		prepare(t, a, &next, int64(3000+rng.IntN(200_000)))
		if !accepted(t, a, next) || !accepted(t, c, next) {
			t.Fatalf("block %d: own proposal rejected", height)
		}
		if rng.IntN(5) == 0 { // a dishonest majority
			bad := next
			bad.txs = append(append([][]byte{}, next.txs...), sent[rng.IntN(len(sent))], []byte("garbage"))
			bad.txs = append(bad.txs, next.txs...) // everything twice
			rng.Shuffle(len(bad.txs), func(i, j int) { bad.txs[i], bad.txs[j] = bad.txs[j], bad.txs[i] })
			if accepted(t, a, bad) || accepted(t, c, bad) {
				t.Fatalf("block %d: garbage accepted", height)
			}
			refusedBlocks++
			next = bad
		}
		old = append(old, next.txs...)
		answer := finalize(t, a, next)
		if rng.IntN(6) == 0 { // CometBFT restarts alone, and finalizes again
			if again := finalize(t, a, next); !bytes.Equal(wire(t, again), wire(t, answer)) {
				t.Fatalf("block %d: finalized again, another answer", height)
			}
		}
		for i, r := range answer.TxResults {
			if r.Code != 0 {
				codes[ledger.Code(r.Code)]++
			}
			if receipt, err := ledger.DecodeReceipt(r.Data); err != nil || uint32(receipt.Code) != r.Code {
				t.Fatalf("block %d: result %d: %v, receipt of code %s: %v", height, i, r.Code, receipt.Code, err)
			}
		}
		commit(t, a)
		chain, answers = append(chain, next), append(answers, wire(t, answer))

		one := runtime.GOMAXPROCS(1)
		fromC := wire(t, finalize(t, c, next))
		runtime.GOMAXPROCS(one)
		commit(t, c)
		if !bytes.Equal(fromC, answers[height-1]) {
			t.Fatalf("block %d: c answers otherwise", height)
		}

		// b is at most a few blocks behind, and crashes before, between and after its calls.
		for b.store.Height() < uint64(height) && rng.IntN(3) > 0 {
			replay := chain[b.store.Height()]
			if got := wire(t, finalize(t, b, replay)); !bytes.Equal(got, answers[replay.height-1]) {
				t.Fatalf("block %d: b answers otherwise", replay.height)
			}
			if rng.IntN(3) > 0 {
				commit(t, b)
			}
			if rng.IntN(4) == 0 {
				crashes++
				before := b.store.Height()
				disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				closeApp(t, b)
				b = open(t, disk, nil)
				if got := info(t, b).LastBlockHeight; uint64(got) != before {
					t.Fatalf("height %d after a crash at %d", got, before)
				}
				if before == 0 {
					initialise(t, b, w)
				} else if !bytes.Equal(b.store.AppHash(), appHash(t, answers[before-1])) {
					t.Fatalf("another AppHash after a crash at %d", before)
				}
			}
		}
		updates := must[[]*types.Validator](t)(types.PB2TM.ValidatorUpdates(answer.ValidatorUpdates))
		if err := set.UpdateWithChangeSet(updates); err != nil || set.IsNilOrEmpty() {
			t.Fatalf("block %d: CometBFT would stop for good: %v (updates %s)", height, err, encodeJSON(answer.ValidatorUpdates))
		}
	}
	for b.store.Height() < uint64(blocks) {
		replay := chain[b.store.Height()]
		if got := wire(t, finalize(t, b, replay)); !bytes.Equal(got, answers[replay.height-1]) {
			t.Fatalf("block %d: b answers otherwise", replay.height)
		}
		commit(t, b)
	}
	for _, x := range []*App{a, b, c} {
		audit(t, x)
	}
	if crashes == 0 || refusedBlocks == 0 {
		t.Fatalf("%d crashes, %d dishonest blocks: the test has lost its sense", crashes, refusedBlocks)
	}
	for _, code := range []ledger.Code{ledger.OK, ledger.Malformed, ledger.Expired, ledger.ValidUntilTooFar, ledger.SequenceUsed, ledger.FeeAboveMaximum,
		ledger.FeeUnpayable, ledger.SignatureInvalid, ledger.AssetUnknown, ledger.InsufficientFunds, ledger.AssetExists, ledger.PolicyUnchanged} {
		if codes[code] == 0 {
			t.Errorf("no transaction got the code %s", code)
		}
	}
	t.Logf("seed %d: %d blocks (%d of a dishonest majority), %d crashes, codes %v", seed, blocks, refusedBlocks, crashes, codes)
}

func appHash(t *testing.T, answer []byte) []byte {
	var r abci.ResponseFinalizeBlock
	if err := r.Unmarshal(answer); err != nil {
		t.Fatal(err)
	}
	return r.AppHash
}

// cometSet is CometBFT's validator set at genesis.
func cometSet(t testing.TB, w *world) *types.ValidatorSet {
	var list []*types.Validator
	for _, v := range w.doc.Validators {
		list = append(list, types.NewValidator(v.PubKey, v.Power))
	}
	return types.NewValidatorSet(list)
}

// evidence makes one or two pieces against a validator of genesis, or against a stranger.
func evidence(rng *rand.Rand, w *world, height int64) []abci.Misbehavior {
	v := w.doc.Validators[rng.IntN(len(w.doc.Validators))]
	m := abci.Misbehavior{Type: abci.MisbehaviorType_DUPLICATE_VOTE, Validator: abci.Validator{Address: v.Address, Power: v.Power}, Height: rng.Int64N(height + 1)}
	switch rng.IntN(4) {
	case 0:
		return []abci.Misbehavior{m, m}
	case 1:
		m.Validator.Address = []byte("nobody")
	}
	return []abci.Misbehavior{m}
}
