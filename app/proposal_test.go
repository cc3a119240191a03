package app

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	genesisfile "github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// started is a node behind its first block, and a world that knows its state.
func started(t testing.TB, powers ...int64) (*world, *App, block) {
	t.Helper()
	w := newWorld(t, powers...)
	a := open(t, vfs.NewMem(), nil)
	t.Cleanup(func() { closeApp(t, a) })
	initialise(t, a, w)
	b := block{height: 1, time: w.doc.GenesisTime}
	finalize(t, a, b)
	commit(t, a)
	w.sync(a)
	return w, a, b.next(time.Second)
}

func (b block) next(after time.Duration) block {
	return block{height: b.height + 1, time: b.time.Add(after)}
}

// TestOwnProposalsAreAccepted: whatever waits, whatever the state, whatever the limit, ProcessProposal accepts what
// PrepareProposal builds, also on a node that has never seen it, and it fits.
func TestOwnProposalsAreAccepted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	w, a, b := started(t)
	stranger := open(t, vfs.NewMem(), nil)
	defer closeApp(t, stranger)
	initialise(t, stranger, w)
	finalize(t, stranger, block{height: 1, time: w.doc.GenesisTime})
	commit(t, stranger)
	proposed := 0
	for range 40 {
		w.sync(a)
		for range rng.IntN(120) {
			check(t, a, w.random(rng, ledger.Header{UnixMillis: uint64(b.time.UnixMilli())}, nil))
		}
		for range 3 { // rounds: the same pool with other limits and times
			limit := int64(rng.IntN(30_000))
			b.time = b.time.Add(time.Duration(rng.IntN(300)) * time.Millisecond)
			prepare(t, a, &b, limit)
			var list types.Txs
			for _, raw := range b.txs {
				list = append(list, raw)
			}
			if err := list.Validate(limit); err != nil {
				t.Fatalf("height %d: %s", b.height, err)
			}
			if !accepted(t, a, b) || !accepted(t, stranger, b) {
				t.Fatalf("height %d: proposal of %d rejected", b.height, len(b.txs))
			}
			proposed += len(b.txs)
		}
		if x, y := finalize(t, a, b), finalize(t, stranger, b); !bytes.Equal(wire(t, x), wire(t, y)) {
			t.Fatalf("height %d: proposer and stranger differ", b.height)
		}
		commit(t, a)
		commit(t, stranger)
		if len(a.known) != 0 {
			t.Fatalf("height %d: %d proposals kept after the decision", b.height, len(a.known))
		}
		b = b.next(time.Duration(rng.IntN(3000)) * time.Millisecond)
	}
	if proposed < 500 {
		t.Fatalf("only %d proposed", proposed)
	}
}

// TestOversizedProposals: what is within the limit of operations is accepted, one more is not, nor is it executed; where
// the others decide such a block, it is executed as any other.
func TestOversizedProposals(t *testing.T) {
	w, a, b := started(t)
	alice, bob := w.actors[1], w.actors[2]
	batch := make([]ledger.Operation, ledger.MaxOperations)
	for i := range batch {
		batch[i] = &ledger.Transfer{To: bob.address, Asset: w.fee, Amount: ledger.Units(1)}
	}
	for range maxAcceptedOperations / len(batch) {
		b.txs = append(b.txs, w.build(order{signers: []*actor{alice}, operations: batch}))
	}
	if !accepted(t, a, b) {
		t.Fatalf("a block of %d operations is rejected", maxAcceptedOperations)
	}
	b.txs = append(b.txs, w.transfer(alice, bob.address, 1))
	if accepted(t, a, b) {
		t.Fatalf("a block of %d operations is accepted", maxAcceptedOperations+1)
	}
	if len(a.known) != 1 {
		t.Errorf("%d outcomes are kept, want that of the accepted block", len(a.known))
	}
	if results := finalize(t, a, b).TxResults; results[len(results)-1].Code != 0 {
		t.Errorf("the last one of a decided block has the code %d", results[len(results)-1].Code)
	}
	if _, err := New(Options{MaxBlockOperations: maxAcceptedOperations + 1}); err == nil || !strings.Contains(err.Error(), "40000") {
		t.Errorf("a limit that the others reject: %v", err)
	}
}

// TestDishonestProposals: one refused transaction in an otherwise good block makes everybody reject it; where such a block
// is decided nevertheless, the good ones take effect, the others have none, and nothing stops.
func TestDishonestProposals(t *testing.T) {
	w, a, b := started(t)
	alice, bob := w.actors[1], w.actors[2]
	good := w.transfer(alice, bob.address, 5)
	second := w.transfer(alice, bob.address, 6)
	sequence := alice.sequence
	expired := w.build(order{signers: []*actor{bob}, validUntil: uint64(b.time.Unix()) - 1, operations: []ledger.Operation{&ledger.Transfer{To: alice.address, Asset: w.fee, Amount: ledger.Units(1)}}})
	bob.sequence = 0
	badSignature := w.build(order{signers: []*actor{bob}, spoil: true, operations: []ledger.Operation{&ledger.Transfer{To: alice.address, Asset: w.fee, Amount: ledger.Units(1)}}})
	bob.sequence = 0
	stranger := &actor{name: "nobody", policy: w.policy(1, w.ring.key(t, ed, "nobody"))}
	stranger.address = stranger.policy.Address()
	unpayable := w.transfer(stranger, bob.address, 1)
	gap := w.build(order{signers: []*actor{bob}, sequence: 7, operations: []ledger.Operation{&ledger.Transfer{To: alice.address, Asset: w.fee, Amount: ledger.Units(1)}}})
	huge := make([]byte, 2<<20) // longer than an index row may be
	copy(huge, good)
	for name, bad := range map[string]struct {
		txs  [][]byte
		at   int // of the refused one
		code ledger.Code
	}{
		"garbage":         {[][]byte{good, []byte("garbage"), second}, 1, ledger.Malformed},
		"nothing":         {[][]byte{good, {}, second}, 1, ledger.Malformed},
		"huge":            {[][]byte{good, huge, second}, 1, ledger.Malformed},
		"trailing byte":   {[][]byte{good, append(bytes.Clone(second), 0), second}, 1, ledger.Malformed},
		"twice":           {[][]byte{good, good, second}, 1, ledger.SequenceUsed},
		"out of order":    {[][]byte{second, good}, 0, ledger.SequenceGap},
		"gap":             {[][]byte{good, gap, second}, 1, ledger.SequenceGap},
		"expired":         {[][]byte{good, expired, second}, 1, ledger.Expired},
		"unpayable":       {[][]byte{good, unpayable, second}, 1, ledger.FeeUnpayable},
		"bad signature":   {[][]byte{good, badSignature, second}, 1, ledger.SignatureInvalid},
		"other signature": {[][]byte{good, respoil(second), second}, 1, ledger.SignatureInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := open(t, vfs.NewMem(), nil)
			defer closeApp(t, fresh)
			initialise(t, fresh, w)
			finalize(t, fresh, block{height: 1, time: w.doc.GenesisTime})
			commit(t, fresh)
			b := b
			b.txs = bad.txs
			if accepted(t, a, b) || accepted(t, fresh, b) {
				t.Fatal("accepted")
			}
			answer := finalize(t, fresh, b)
			if x := finalize(t, a, b); !bytes.Equal(wire(t, x), wire(t, answer)) {
				t.Fatal("the node that saw it proposed answers otherwise")
			}
			if got := ledger.Code(answer.TxResults[bad.at].Code); got != bad.code {
				t.Fatalf("code %s, want %s", got, bad.code)
			}
			want := len(bad.txs) - 1
			if name == "out of order" {
				want = 1
			}
			done := 0
			for _, r := range answer.TxResults {
				if r.Code == 0 {
					done++
				}
			}
			if done != want {
				t.Fatalf("%d took effect, want %d", done, want)
			}
			commit(t, fresh)
			audit(t, fresh)
			w.sync(fresh)
			if alice.sequence != sequence-uint64(2-want) || bob.sequence != 0 {
				t.Fatalf("sequences %d and %d", alice.sequence, bob.sequence)
			}
		})
	}
}

// respoil changes the last byte of a transaction, which is of its last signature.
func respoil(raw []byte) []byte {
	raw = bytes.Clone(raw)
	raw[len(raw)-1] ^= 1
	return raw
}

// TestVerifiedOnce: from CheckTx to FinalizeBlock a transaction's signatures are verified once on the node that it was sent
// to, and once on a node that sees it in a proposal first.
func TestVerifiedOnce(t *testing.T) {
	w, a, b := started(t)
	other := open(t, vfs.NewMem(), nil)
	defer closeApp(t, other)
	initialise(t, other, w)
	finalize(t, other, block{height: 1, time: w.doc.GenesisTime})
	commit(t, other)
	signatures := uint64(0)
	for _, from := range w.actors {
		if from == w.poor {
			continue
		}
		if code := check(t, a, w.transfer(from, w.poor.address, 1)); code != ledger.OK {
			t.Fatalf("%s: %s", from.name, code)
		}
		signatures += uint64(from.policy.Threshold)
	}
	// The keys of the policies that are brought along are checked beside the signatures, and count too.
	once := a.Signatures().Counters().Verified
	if once < signatures || once > 3*signatures {
		t.Fatalf("CheckTx verified %d, of %d signatures", once, signatures)
	}
	prepare(t, a, &b, 1<<20)
	if len(b.txs) != len(w.actors)-1 {
		t.Fatalf("%d proposed, want %d", len(b.txs), len(w.actors)-1)
	}
	for range 2 { // rounds
		if !accepted(t, a, b) || !accepted(t, other, b) {
			t.Fatal("rejected")
		}
		b.time = b.time.Add(time.Millisecond)
	}
	finalize(t, a, b)
	finalize(t, other, b)
	for _, x := range []*App{a, other} {
		commit(t, x)
		if got := x.Signatures().Counters().Verified; got != once {
			t.Errorf("%d verified, want %d", got, once)
		}
	}
}

// TestPanicsOfTheRules: a transaction that makes the rules panic neither stops a proposer nor gets a vote.
func TestPanicsOfTheRules(t *testing.T) {
	w, a, b := started(t)
	if code := check(t, a, w.transfer(w.actors[1], w.bank.address, 1)); code != ledger.OK {
		t.Fatal(code)
	}
	prepare(t, a, &b, 1<<20)
	raw := b.txs[0]
	tx := a.pool.TxOf(raw)
	if tx == nil {
		t.Fatal("not in the pool")
	}
	tx.Body.Operations = nil // the ledger looks for them by index while it charges the fee
	tx.Body.Signers = nil
	b = b.next(time.Second)
	prepare(t, a, &b, 1<<20)
	if len(b.txs) != 0 || a.pool.TxOf(raw) != nil {
		t.Fatalf("%d proposed; still in the pool: %t", len(b.txs), a.pool.TxOf(raw) != nil)
	}
	b = block{height: 2, time: b.time.Add(time.Second)}
	if !accepted(t, a, b) {
		t.Fatal("an empty block is rejected")
	}
}

// TestEvidence feeds what FinalizeBlock makes of evidence into CometBFT's own validator set, which stops a chain for good
// when it does not like an update.
func TestEvidence(t *testing.T) {
	type piece struct {
		validator int // -1: a stranger
		height    int64
	}
	for name, c := range map[string]struct {
		powers []int64
		blocks [][]piece
		left   int
	}{
		"none":                       {[]int64{1, 1, 1, 1}, [][]piece{{}}, 4},
		"two pieces, one validator":  {[]int64{1, 1, 1, 1}, [][]piece{{{0, 1}, {0, 1}}}, 3},
		"two heights, one validator": {[]int64{1, 1, 1, 1}, [][]piece{{{1, 1}, {1, 2}}}, 3},
		"again in later blocks":      {[]int64{1, 1, 1, 1}, [][]piece{{{1, 1}}, {{1, 1}}, {}, {{1, 2}, {1, 3}}}, 3},
		"a stranger":                 {[]int64{1, 1, 1, 1}, [][]piece{{{-1, 1}}}, 4},
		"all at once":                {[]int64{1, 1, 1, 1}, [][]piece{{{0, 1}, {1, 1}, {2, 1}, {3, 1}}}, 1},
		"all, one after the other":   {[]int64{1, 2, 3, 4}, [][]piece{{{3, 1}}, {{2, 1}}, {{1, 1}}, {{0, 1}}, {{0, 1}}}, 1},
		"the only one":               {[]int64{5}, [][]piece{{{0, 1}, {0, 1}}}, 1},
		"nearly all power":           {[]int64{ledger.MaxValidatorPower / genesisfile.EqualPower, 1, 1}, [][]piece{{{0, 1}}}, 2},
		"future and odd heights":     {[]int64{1, 1, 1, 1}, [][]piece{{{0, math.MaxInt64}, {1, 0}, {2, -5}}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := started(t, c.powers...)
			set := cometSet(t, w)
			for _, pieces := range c.blocks {
				for _, p := range pieces {
					m := abci.Misbehavior{Type: abci.MisbehaviorType_LIGHT_CLIENT_ATTACK, Height: p.height, Time: b.time, TotalVotingPower: 4}
					m.Validator.Address = bytes.Repeat([]byte{7}, 20)
					if p.validator >= 0 {
						m.Validator.Address = w.doc.Validators[p.validator].Address
					}
					b.evidence = append(b.evidence, m)
				}
				// Another round's proposal without the evidence is another block.
				if !accepted(t, a, block{height: b.height, time: b.time}) || !accepted(t, a, b) {
					t.Fatal("rejected")
				}
				answer := finalize(t, a, b)
				commit(t, a)
				updates := must[[]*types.Validator](t)(types.PB2TM.ValidatorUpdates(answer.ValidatorUpdates))
				for _, u := range updates {
					if u.VotingPower != 0 {
						t.Fatalf("evidence gives %s power %d", u.Address, u.VotingPower)
					}
				}
				if err := set.UpdateWithChangeSet(updates); err != nil {
					t.Fatalf("CometBFT would stop for good: %s", err)
				}
				b = b.next(time.Second)
			}
			if set.Size() != c.left {
				t.Fatalf("%d validators left, want %d", set.Size(), c.left)
			}
			if state := validators(t, a); state != c.left {
				t.Fatalf("%d validators left in the state, want %d", state, c.left)
			}
		})
	}
}

func validators(t testing.TB, a *App) (withPower int) {
	v := a.store.View()
	defer v.Close()
	set := must[[]ledger.Validator](t)(ledger.DecodeValidators(must[[]byte](t)(v.Get(ledger.ValidatorsRow()))))
	for _, x := range set {
		if x.Power > 0 {
			withPower++
		}
	}
	return withPower
}

// TestCrashBetweenCalls clones the disk between every two calls of a block, opens the clone, and lets it continue as
// CometBFT would: it asks Info and replays what is missing.
func TestCrashBetweenCalls(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		rng := rand.New(rand.NewPCG(uint64(percent), 1))
		w := newWorld(t)
		disk := vfs.NewCrashableMem()
		a := open(t, disk, nil)
		var chain []block
		var hashes [][]byte
		type crash struct {
			disk   *vfs.MemFS
			height int64 // committed
			where  string
		}
		var crashes []crash
		cut := func(where string) {
			where = fmt.Sprintf("%d%% unsynced kept, block %d, %s", percent, len(chain)+1, where)
			crashes = append(crashes, crash{disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), int64(len(chain)), where})
		}
		cut("before InitChain")
		initialise(t, a, w)
		cut("after InitChain")
		for height := int64(1); height <= 4; height++ {
			b := block{height: height, time: w.doc.GenesisTime.Add(time.Duration(height) * time.Second)}
			w.sync(a)
			for range 20 {
				check(t, a, w.random(rng, ledger.Header{UnixMillis: uint64(b.time.UnixMilli())}, nil))
			}
			cut("after CheckTx")
			prepare(t, a, &b, 1<<20)
			cut("after PrepareProposal")
			if !accepted(t, a, b) {
				t.Fatal("rejected")
			}
			cut("after ProcessProposal")
			hash := finalize(t, a, b).AppHash
			cut("after FinalizeBlock")
			commit(t, a)
			chain, hashes = append(chain, b), append(hashes, hash)
			cut("after Commit")
		}
		closeApp(t, a)
		for _, c := range crashes {
			x := open(t, c.disk, nil)
			got := info(t, x)
			if got.LastBlockHeight != c.height || c.height > 0 && !bytes.Equal(got.LastBlockAppHash, hashes[c.height-1]) {
				t.Fatalf("%s: Info says %+v", c.where, got)
			}
			if c.height == 0 {
				initialise(t, x, w)
			} else if _, err := x.InitChain(background, w.initChain()); err == nil {
				t.Fatalf("%s: InitChain over a state", c.where)
			}
			for _, b := range chain[c.height:] {
				if got := finalize(t, x, b).AppHash; !bytes.Equal(got, hashes[b.height-1]) {
					t.Fatalf("%s: block %d replayed has AppHash %x, had %x", c.where, b.height, got, hashes[b.height-1])
				}
				commit(t, x)
			}
			audit(t, x)
			closeApp(t, x)
		}
	}
}

// TestInitChainAgain: CometBFT begins again with InitChain after a crash before the first commit, perhaps with another
// genesis in the same process; nothing of the first must be left.
func TestInitChainAgain(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t, 3, 3)
	a := open(t, vfs.NewMem(), nil)
	defer closeApp(t, a)
	initialise(t, a, other)
	// A liar is in both sets of validators, so that the outcomes differ.
	b := block{height: 1, time: w.doc.GenesisTime, evidence: []abci.Misbehavior{{Type: abci.MisbehaviorType_DUPLICATE_VOTE, Validator: abci.Validator{Address: w.doc.Validators[0].Address}}}}
	if !accepted(t, a, b) {
		t.Fatal("rejected")
	}
	finalize(t, a, b)
	initialise(t, a, w)
	if _, err := a.Commit(background, &abci.RequestCommit{}); err == nil {
		t.Fatal("commits the block of another genesis")
	}
	fresh := open(t, vfs.NewMem(), nil)
	defer closeApp(t, fresh)
	initialise(t, fresh, w)
	if x, y := finalize(t, a, b), finalize(t, fresh, b); !bytes.Equal(wire(t, x), wire(t, y)) {
		t.Fatal("the first genesis shows through")
	}
	commit(t, a)
	if n := must[ledger.Network](t)(a.Network()); n != w.network {
		t.Fatalf("network %+v", n)
	}
	audit(t, a)
}

// TestRefusedGenesis: InitChain refuses what no chain can begin with.
func TestRefusedGenesis(t *testing.T) {
	w := newWorld(t)
	a := open(t, vfs.NewMem(), nil)
	defer closeApp(t, a)
	for name, change := range map[string]func(*abci.RequestInitChain){
		"before 1970":        func(r *abci.RequestInitChain) { r.Time = time.Unix(-1, 0) },
		"after 2262":         func(r *abci.RequestInitChain) { r.Time = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) },
		"year 1":             func(r *abci.RequestInitChain) { r.Time = time.Time{} },
		"height 0":           func(r *abci.RequestInitChain) { r.InitialHeight = 0 },
		"negative height":    func(r *abci.RequestInitChain) { r.InitialHeight = -1 },
		"no validators":      func(r *abci.RequestInitChain) { r.Validators = nil },
		"negative power":     func(r *abci.RequestInitChain) { r.Validators[0].Power = -1 },
		"validator twice":    func(r *abci.RequestInitChain) { r.Validators[0] = r.Validators[2] },
		"no key":             func(r *abci.RequestInitChain) { r.Validators[0].PubKey.Sum = nil },
		"no state":           func(r *abci.RequestInitChain) { r.AppStateBytes = nil },
		"unknown key":        func(r *abci.RequestInitChain) { r.AppStateBytes = []byte(`{"surprise": 1}`) },
		"behind the end":     func(r *abci.RequestInitChain) { r.AppStateBytes = append(r.AppStateBytes, "{}"...) },
		"no chain id":        func(r *abci.RequestInitChain) { r.ChainId = "" },
		"endless chain id":   func(r *abci.RequestInitChain) { r.ChainId = strings.Repeat("x", 51) },
		"validators too far": func(r *abci.RequestInitChain) { r.Validators[0].Power = math.MaxInt64 },
	} {
		req := w.initChain()
		change(req)
		if _, err := a.InitChain(background, req); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := a.FinalizeBlock(background, block{height: 1, time: w.doc.GenesisTime}.finalize()); err == nil {
		t.Error("finalizes without a genesis")
	}
	if code := check(t, a, w.transfer(w.actors[1], w.bank.address, 1)); uint32(code) < abci.CodeTypeRetry {
		t.Errorf("CheckTx without a genesis: %s", code)
	}
	initialise(t, a, w)
	if _, err := a.Commit(background, &abci.RequestCommit{}); err == nil {
		t.Error("commits nothing")
	}
	for _, height := range []int64{-1, 0, 2, math.MaxInt64} {
		if _, err := a.FinalizeBlock(background, block{height: height, time: w.doc.GenesisTime}.finalize()); err == nil {
			t.Errorf("finalizes height %d first", height)
		}
	}
}

// TestInitialHeight: a chain may begin anywhere.
func TestInitialHeight(t *testing.T) {
	w := newWorld(t)
	w.doc.InitialHeight = 1000
	w.network = must[ledger.Network](t)(networkOf(w))
	disk := vfs.NewMem()
	begin := func(o *Options) { o.Store.InitialHeight = 1000 }
	a := open(t, disk, begin)
	initialise(t, a, w)
	b := block{height: 1000, time: w.doc.GenesisTime}
	first := finalize(t, a, b).AppHash
	commit(t, a)
	closeApp(t, a)
	a = open(t, disk, begin)
	defer closeApp(t, a)
	if got := info(t, a); got.LastBlockHeight != 1000 || !bytes.Equal(got.LastBlockAppHash, first) {
		t.Fatalf("Info says %+v", got)
	}
	finalize(t, a, b.next(time.Second))
	commit(t, a)
}

// TestIdleProposer: a proposer waits for a first transaction on an idle chain, not behind a block with transactions, and
// not when the node closes.
func TestIdleProposer(t *testing.T) {
	const interval = 300 * time.Millisecond
	w := newWorld(t)
	a := open(t, vfs.NewMem(), func(o *Options) { o.IdleBlockInterval = interval })
	initialise(t, a, w)
	b := block{height: 1, time: w.doc.GenesisTime}
	took := func() time.Duration {
		begin := time.Now()
		prepare(t, a, &b, 1<<20)
		return time.Since(begin)
	}
	step := func() {
		finalize(t, a, b)
		commit(t, a)
		b = b.next(time.Second)
	}
	if d := took(); d > interval/2 {
		t.Errorf("the first block took %s", d)
	}
	step()
	if d := took(); d < interval || len(b.txs) > 0 {
		t.Errorf("an idle block took %s, has %d", d, len(b.txs))
	}
	w.sync(a)
	raw := w.transfer(w.actors[1], w.bank.address, 1)
	go func() {
		time.Sleep(interval / 6)
		check(t, a, raw)
	}()
	if d := took(); d > interval*2/3 || len(b.txs) != 1 {
		t.Errorf("the first transaction waited %s, %d proposed", d, len(b.txs))
	}
	step()
	if d := took(); d > interval/2 {
		t.Errorf("the block behind a transaction took %s", d)
	}
	step()
	go func() {
		time.Sleep(interval / 6)
		a.close()
	}()
	if d := took(); d > interval*2/3 {
		t.Errorf("closing waited %s", d)
	}
	closeApp(t, a)
}

func networkOf(w *world) (ledger.Network, error) {
	g := ledger.Genesis{ChainID: w.doc.ChainID, UnixNanos: uint64(w.doc.GenesisTime.UnixNano()), InitialHeight: uint64(w.doc.InitialHeight)}
	var err error
	if g.State, err = ledger.ParseGenesisState(w.doc.AppState); err != nil {
		return ledger.Network{}, err
	}
	for _, v := range w.doc.Validators {
		scheme := crypto.Ed25519
		if v.PubKey.Type() != "ed25519" {
			scheme = crypto.MLDSA65
		}
		g.Validators = append(g.Validators, ledger.Validator{Scheme: scheme, PublicKey: v.PubKey.Bytes(), Power: uint64(v.Power)})
	}
	return g.Network()
}
