package mempool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// randomPayment makes a payment near what is next of random senders: duplicates, gaps, taken keys, several signers,
// changes of policy and expiry included.
func randomPayment(n *net, r *rand.Rand, next map[*person]uint64) payment {
	a, b := n.people[r.IntN(len(n.people))], n.people[r.IntN(len(n.people))]
	ahead := func(p *person) uint64 { return next[p] + 1 + uint64(max(0, r.IntN(8)-3)) }
	p := pay(a, ahead(a))
	switch k := r.IntN(20); {
	case k < 3:
		p = payNonce(a, uint64(r.IntN(50)))
		p.validUntil = n.last.UnixMillis/1000 - genesisSeconds + 1 + uint64(r.IntN(5))
	case k < 6 && a != b:
		p = payment{from: []*person{a, b}, sequence: []uint64{ahead(a), ahead(b)}}
	case k < 7 && a != b:
		p = payment{from: []*person{a, b}, sequence: []uint64{0, ahead(b)}, nonce: uint64(r.IntN(50)),
			validUntil: n.last.UnixMillis/1000 - genesisSeconds + 3}
	case k == 7:
		p.spoil = true
	case k == 8: // to the policy that it has: the transaction fails, and the pool cannot know that
		p.policy = []byte(a.name)
	}
	p.amount = 1 + uint64(r.IntN(2))
	return p
}

// TestProposalsApply makes random traffic and blocks, and asks of every proposal that the ledger refuses nothing of it.
func TestProposalsApply(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for round := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed+round), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed+round, 1))
			n := newNet(t, 8, func(c *Config) {
				c.MaxTxs, c.MaxTxsPerSender, c.MaxGap = 8+r.IntN(30), 2+r.IntN(6), uint64(3+r.IntN(8))
			})
			next := map[*person]uint64{}
			proposed := 0
			for range 60 {
				for range r.IntN(25) {
					p := randomPayment(n, r, next)
					n.send(p)
				}
				n.verify()
				block := n.pool.Propose([]int64{everything, 3000, 800}[r.IntN(3)])
				proposed += len(block)
				if r.IntN(4) == 0 { // another node's block: some of ours, and one that we have not seen
					block = block[:r.IntN(len(block)+1)]
					who := n.people[r.IntN(len(n.people))]
					foreign := pay(who, next[who]+1)
					foreign.memo = "foreign"
					n.commitChecked(append([][]byte{n.build(foreign)}, block...), true, next)
				} else {
					n.commitChecked(block, false, next)
				}
				n.verify()
			}
			if proposed < 100 {
				t.Errorf("only %d transactions were proposed", proposed)
			}
			t.Logf("%d proposed, %+v", proposed, n.pool.Stats())
		})
	}
}

// commitChecked commits a block and notes the sequences. Of a block of this pool nothing may be refused at the time of the
// last block; a second later, when the block is made, only what has expired, and what follows that.
func (n *net) commitChecked(txs [][]byte, foreign bool, next map[*person]uint64) {
	n.t.Helper()
	if !foreign {
		block, err := ledger.NewBlock(n.state, n.last, n.cache)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, raw := range txs {
			if r, err := block.Apply(n.decode(raw)); err != nil || r.Code.Refused() {
				n.t.Fatalf("of the proposal %s the ledger refuses %s: %s, %v", n.names(txs), n.names([][]byte{raw}), r.Code, err)
			}
		}
	}
	done, dropped := n.execute(txs)
	expired := false
	for _, code := range dropped {
		expired = expired || code == ledger.Expired
	}
	n.pool.Committed(n.last, done, n.wrote)
	for tx, code := range dropped {
		if !foreign && !(expired && (code == ledger.Expired || code == ledger.SequenceGap)) {
			n.t.Fatalf("of the proposal %s the ledger refuses %s: %s", n.names(txs), n.names([][]byte{tx.Bytes()}), code)
		}
		n.pool.Refused(tx.Hash(), code)
	}
	for _, tx := range done {
		for _, s := range tx.Body.Signers {
			for _, p := range n.people {
				if p.Address == s.Address && s.Sequence != 0 {
					next[p] = s.Sequence
				}
			}
		}
	}
}

// TestStress has clients, peers, gossip and blocks at once; it is for the race detector. At the end the pool is drained,
// and its books have to balance.
func TestStress(t *testing.T) {
	n := newNet(t, 24, func(c *Config) {
		c.MaxTxs, c.MaxTxsPerSender, c.MaxGap, c.QueueLength, c.BatchSize = 150, 12, 12, 256, 32
		c.OfferAgainAfter = time.Second
	})
	// The transactions are made before, or signing would be most of the test.
	var txs [][]byte
	for _, p := range n.people {
		for s := uint64(1); s <= 20; s++ {
			txs = append(txs, n.build(pay(p, s)))
		}
		for k := range uint64(5) {
			txs = append(txs, n.build(payNonce(p, k)))
		}
		twice := pay(p, 5)
		twice.amount = 7
		txs = append(txs, n.build(twice), []byte("rubbish"))
	}
	var stop atomic.Bool
	var senders, others sync.WaitGroup
	for g := range 4 {
		senders.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			for i := range 1500 {
				// Mostly in order, with neighbours swapped: gaps open and close.
				at := (i*4 + r.IntN(30)) % len(txs)
				if g%2 == 0 {
					n.pool.Check(context.Background(), txs[at])
				} else if !n.pool.Insert(txs[at]) {
					runtime.Gosched()
				}
			}
		})
	}
	committed := map[crypto.Hash]bool{}
	others.Go(func() {
		for !stop.Load() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			n.pool.Wait(ctx)
			cancel()
			block := n.pool.Propose(5000)
			done, dropped := n.execute(block)
			if len(dropped) != 0 {
				t.Errorf("%d of a proposal are refused", len(dropped))
			}
			n.pool.Committed(n.last, done, n.wrote)
			for _, tx := range done {
				if committed[tx.ID(n.id)] {
					t.Errorf("%s is committed twice", tx.ID(n.id))
				}
				committed[tx.ID(n.id)] = true
			}
		}
	})
	others.Go(func() {
		for !stop.Load() {
			n.pool.Reap(4000)
			n.pool.Stats()
			n.pool.Pending(n.people[0].Address)
			n.verify()
			time.Sleep(time.Millisecond)
		}
	})
	senders.Wait()
	n.settle()
	stop.Store(true)
	others.Wait()
	n.verify()
	// What was shed is sent again until every sequence is in a block.
	for range 200 {
		for _, raw := range txs {
			n.pool.Check(context.Background(), raw)
		}
		block := n.pool.Propose(everything)
		if len(block) == 0 {
			break
		}
		if refused := n.commit(block); refused != 0 {
			t.Errorf("%d of a proposal are refused", refused)
		}
	}
	for i, p := range n.people {
		var account ledger.Account
		if err := readRow(n.state, ledger.AccountRow(p.Address), &account, ledger.DecodeAccount); err != nil || account.Sequence != 20 {
			t.Errorf("person %d is at sequence %d, want 20 (%v)", i, account.Sequence, err)
		}
	}
	n.verify()
	n.settle()
	s := n.pool.Stats()
	if s.Ready+s.Parked != 0 || s.Bytes != 0 || s.Senders != 0 || s.QueuedBytes != 0 || s.Panics != 0 {
		t.Errorf("drained, the pool has %+v", s)
	}
	t.Logf("%+v", s)
}

// TestMemory measures what a pool full of small payments takes, against the arithmetic of Config.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("signs 20,000 payments")
	}
	n := newNet(t, 40, nil)
	txs := make([][]byte, 0, 20_000)
	for s := uint64(1); s <= 500; s++ {
		for _, p := range n.people {
			txs = append(txs, n.build(pay(p, s)))
		}
	}
	bytes := 0
	before := heapBytes()
	for i, raw := range txs {
		for !n.pool.Insert(append([]byte(nil), raw...)) {
			time.Sleep(time.Millisecond)
		}
		bytes += len(raw)
		txs[i] = nil
	}
	n.settle()
	s := n.pool.Stats()
	if s.Ready != 20_000 {
		t.Fatalf("stats are %+v", s)
	}
	each := float64(heapBytes()-before+uint64(bytes)) / 20_000 // txs gave its bytes back meanwhile
	t.Logf("a payment of %d bytes takes %.0f bytes in the pool", bytes/20_000, each)
	if limit := float64(4*bytes/20_000 + 2000); each > limit {
		t.Errorf("a payment takes %.0f bytes, Config reckons with %.0f", each, limit)
	}
	runtime.KeepAlive(n)
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkInsert is admission of payments from the queue into the pool; with batches of one each signature is verified
// alone. A payment that carries its policy, as an account's first does, costs the check of the policy's key besides.
func BenchmarkInsert(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) { benchmarkAdmission(b, workers, 256, true) })
	}
	b.Run("workers=1,batch=1", func(b *testing.B) { benchmarkAdmission(b, 1, 1, true) })
	b.Run("workers=1,policy", func(b *testing.B) { benchmarkAdmission(b, 1, 256, false) })
}

func benchmarkAdmission(b *testing.B, workers, batch int, registered bool) {
	const people, each = 40, 200
	var txs [][]byte
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		n := newNet(b, people, func(c *Config) { c.Workers, c.BatchSize = workers, batch })
		var first [][]byte
		for _, p := range n.people {
			first = append(first, n.build(pay(p, 1)))
		}
		n.commit(first)
		if txs == nil {
			for s := uint64(1); s <= each; s++ {
				for _, p := range n.people {
					p.registered = registered
					txs = append(txs, n.build(pay(p, s+1)))
				}
			}
		}
		b.StartTimer()
		for _, raw := range txs {
			for !n.pool.Insert(raw) {
				time.Sleep(100 * time.Microsecond)
			}
		}
		for n.pool.Stats().Accepted < uint64(len(txs)) {
			time.Sleep(100 * time.Microsecond)
		}
		b.StopTimer()
		n.pool.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N*people*each)/b.Elapsed().Seconds(), "tx/s")
}

// BenchmarkPropose is a proposal of everything in a pool of 8,000, and the block's removal from it.
func BenchmarkPropose(b *testing.B) {
	n := newNet(b, 40, nil)
	for s := uint64(1); s <= 200; s++ {
		for _, p := range n.people {
			n.pool.Insert(n.build(pay(p, s)))
		}
	}
	for n.pool.Stats().Ready < 8000 {
		time.Sleep(time.Millisecond)
	}
	for b.Loop() {
		n.pool.Propose(everything)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*8000), "ns/tx")
}
