package app

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// replica is a node of TestHistoryIndependence, with its own settings.
type replica struct {
	name       string
	processors int // GOMAXPROCS while it executes
	proposals  bool
	restarts   int // about one in so many blocks it is closed and opened again, with the next of its options
	options    []func(*Options)

	disk *vfs.MemFS
	app  *App
	runs int
}

func (r *replica) open(t *testing.T) {
	r.app = open(t, r.disk, r.options[r.runs%len(r.options)])
	r.runs++
}

// TestHistoryIndependence runs 200 blocks of 100 random transactions of every kind on nodes with different processors, caches,
// retention and restarts. Every answer, with its AppHash, results and validator updates, must be the same.
func TestHistoryIndependence(t *testing.T) {
	const blocks, perBlock, seed = 200, 100, 1
	rng := rand.New(rand.NewPCG(seed, 0))
	f := newTraffic(t, seed)
	roomy := func(o *Options) { o.Store.MemTableBytes, o.Store.CacheBytes = 16<<20, 16<<20 }
	archive := func(o *Options) { roomy(o); o.Store.KeepVersions = 0 }
	tight := func(o *Options) {
		o.Store.KeepVersions, o.Store.TreeCacheNodes, o.Workers, o.SignatureCache = 2, 1, 1, 16
		o.Store.MemTableBytes = 4 << 20
	}
	replicas := []*replica{
		{name: "proposer", processors: 2, proposals: true, restarts: 70, options: []func(*Options){archive}},
		{name: "one processor, hardly any cache", processors: 1, restarts: 1000, options: []func(*Options){tight}},
		{name: "restarts with other settings", processors: 2, restarts: 8, options: []func(*Options){archive, tight,
			func(o *Options) { roomy(o); o.Store.KeepVersions, o.Store.PruneBudget, o.Workers = 10, 1, 3 },
			func(o *Options) { roomy(o); o.Store.KeepVersions, o.Store.PruneBudget = 3, 50 }}},
		{name: "many processors", processors: 8, proposals: true, restarts: 25, options: []func(*Options){func(o *Options) {
			roomy(o)
			o.Store.KeepVersions, o.Workers = 5, 8
			o.Retain = func(last ledger.Header) uint64 { return last.Height - min(last.Height, 30) }
		}}},
	}
	for _, r := range replicas {
		r.disk = vfs.NewMem()
		r.open(t)
		initialise(t, r.app, f.world)
		defer func() { closeApp(t, r.app) }()
	}
	proposer, events := replicas[0], seenEvents{}
	now := f.doc.GenesisTime
	took, codes, updates, multipliers := map[ledger.Kind]int{}, map[ledger.Code]int{}, 0, map[uint32]bool{}
	for height := int64(1); height <= blocks; height++ {
		now = now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
		if rng.IntN(25) == 0 {
			now = now.Add(61 * time.Minute) // recoveries get ready, holds pile up to expire, nonces die
		}
		next := block{height: height, time: now}
		if rng.IntN(40) == 0 {
			next.evidence = evidence(rng, f.world, height)
		}
		f.look(proposer.app, uint64(now.UnixMilli()))
		next.missed = f.missed(height)
		pooled := height > 1 && rng.IntN(4) == 0
		for range perBlock {
			raw := f.transaction()
			if pooled {
				check(t, proposer.app, raw)
			} else {
				next.txs = append(next.txs, raw)
			}
		}
		if pooled {
			prepare(t, proposer.app, &next, 1<<20)
		}
		var want []byte
		for _, r := range replicas {
			before := runtime.GOMAXPROCS(r.processors)
			if r.proposals && rng.IntN(2) == 0 && accepted(t, r.app, next) != pooled && pooled {
				t.Fatalf("block %d: %s rejects what the proposer's pool gave", height, r.name)
			}
			answer := finalize(t, r.app, next)
			got := wire(t, answer)
			if rng.IntN(r.restarts) == 0 && height > 1 { // before the commit: the block is executed again
				closeApp(t, r.app)
				r.open(t)
				if again := wire(t, finalize(t, r.app, next)); !bytes.Equal(again, got) {
					t.Fatalf("block %d: %s answers otherwise after a restart", height, r.name)
				}
			}
			commit(t, r.app)
			if rng.IntN(r.restarts) == 0 {
				closeApp(t, r.app)
				r.open(t)
			}
			runtime.GOMAXPROCS(before)
			if want == nil {
				want = got
				updates += len(answer.ValidatorUpdates)
				events.add(t, answer.Events)
				for i, x := range answer.TxResults {
					codes[ledger.Code(x.Code)]++
					events.add(t, x.Events)
					if x.Code == 0 {
						for _, kind := range kindsOf(must[*ledger.Tx](t)(ledger.Decode(next.txs[i]))) {
							took[kind]++
						}
					}
				}
			} else if !bytes.Equal(got, want) {
				t.Fatalf("block %d: %s answers otherwise than %s", height, r.name, proposer.name)
			}
		}
		var rate ledger.FeeRate
		base, release, err := proposer.app.base()
		if err == nil {
			rate, err = ledger.DecodeFeeRate(must[[]byte](t)(base.Get(ledger.FeeRateRow())))
			release()
		}
		if err != nil {
			t.Fatal(err)
		}
		multipliers[rate.Multiplier] = true
	}
	for _, r := range replicas {
		audit(t, r.app)
	}
	samePruned(t, replicas[0].app, replicas[3].app)
	events.complete(t)
	if codes[ledger.BrokenInvariant] != 0 {
		t.Errorf("%d transactions would have broken an invariant", codes[ledger.BrokenInvariant])
	}
	for _, kind := range everyKind() {
		if took[kind] < 3 {
			t.Errorf("operation %s (%d) took effect %d times: the test tests too little", kind, kind, took[kind])
		}
	}
	sum := 0
	for _, n := range codes {
		sum += n
	}
	if codes[ledger.OK] < sum*6/10 || sum < blocks*perBlock*8/10 || updates == 0 || len(multipliers) < 10 {
		t.Errorf("%d of %d transactions took effect, %d validator updates, %d fee rates: the test tests too little", codes[ledger.OK], sum, updates, len(multipliers))
	}
	t.Logf("took effect %v; codes %v; %d updates; %d fee rates; restarts %d, %d, %d, %d", took, codes, updates, len(multipliers),
		replicas[0].runs-1, replicas[1].runs-1, replicas[2].runs-1, replicas[3].runs-1)
}

// samePruned checks that the index of a node that prunes has exactly those rows of an archive's that are of blocks which it keeps.
func samePruned(t *testing.T, archive, pruned *App) {
	rows := func(a *App) map[string][]byte {
		r := a.Store().Index()
		defer r.Close()
		m := map[string][]byte{}
		if err := r.Range(nil, nil, false, func(key, value []byte) error { m[string(key)] = bytes.Clone(value); return nil }); err != nil {
			t.Fatal(err)
		}
		return m
	}
	want, got := rows(archive), rows(pruned)
	base := binary.BigEndian.Uint64(got["\x00"])
	if last := pruned.Last().Height; base < last-40 || base > last-20 || pruned.Store().FirstHeight() < base {
		t.Errorf("at height %d, the index is kept from height %d on, states from %d", last, base, pruned.Store().FirstHeight())
	}
	delete(got, "\x00")
	kinds := map[byte]int{}
	for key, value := range want {
		var height uint64
		switch key[0] {
		case 1, 2: // by id and by hash
			height = binary.BigEndian.Uint64(value)
		case 3, 5: // transactions, first entries
			height = binary.BigEndian.Uint64([]byte(key[1:]))
		case 4:
			height = must[ledger.Entry](t)(ledger.DecodeEntry(value)).Height
		case 6:
			height = binary.BigEndian.Uint64([]byte(key[1+16:]))
		case 7:
			height = binary.BigEndian.Uint64([]byte(key[1+32:]))
		case 8:
			height = binary.BigEndian.Uint64([]byte(key[1+32+2:]))
		}
		if height < base {
			kinds[key[0]]++
			delete(want, key)
		}
	}
	for key := range want {
		if _, ok := got[key]; !ok {
			t.Errorf("row %x is gone with a block below %d, and is not of one", key, base)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("row %x is left of a block below %d", key, base)
		}
	}
	if len(kinds) != 8 {
		t.Errorf("of %v rows of each kind are pruned: the test tests too little", kinds)
	}
}
