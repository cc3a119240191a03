// Package sim runs a whole network in one process and in virtual time: 4 to 10 nodes with CometBFT's real consensus,
// evidence and mempool reactors, our real application over a disk that forgets what was not synced, and a network and
// faults that a seed decides. An hour of such a network takes half a minute of a processor.
//
// One seed is one story: a network is founded, clients pay, and for a while anything may fail (partitions of either kind,
// delays, crashes at any write to the disk with replay of consensus's log, keys that sign twice, machines that share a
// key, proposers that lie), though never more than a third of the power is dishonest. Then the network heals, and
// everything that was promised is checked: blocks go on within 15 seconds, there is one chain, what a node reported
// committed is there, every transaction stands in it once, and those that a living pool has are in it; the books balance,
// and the reference ledger says the same of every receipt and row.
//
// A seed repeats the story's plan, not its every step: goroutines are scheduled as the runtime likes. Keep the trace of a
// run that fails.
//
// [Run] has to be called within a bubble of testing/synctest. What cannot be simulated there: sockets, block sync, and
// whatever waits for time while it holds a mutex.
package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	cmtcrypto "github.com/cometbft/cometbft/crypto"
	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	genesisfile "github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// resumeWithin is G6: blocks go on within it once the network is healed.
	resumeWithin = 15 * time.Second
	// settleWithin bounds how long what waits in living pools may take to be committed after that.
	settleWithin = 20 * time.Second
	tick         = 50 * time.Millisecond
)

// plan is what a seed decides before anything happens.
type plan struct {
	roles         []role
	keys          []int // by machine: which validator key it has, -1 for an observer
	powers        []int64
	safety        time.Duration
	timeoutCommit time.Duration
	gossipSleep   time.Duration
	keepVersions  uint64
	delay         time.Duration
	postQuantum   bool // validators have ML-DSA keys
	clients       int
	pause         time.Duration // between a client's transactions

	votes  bool // operators decide about powers, keys and parameters
	missed bool // who misses blocks becomes inactive

	// which faults there are
	partitions, oneWay, cuts, delays, crashes, blackouts bool
}

// draw makes the plan of a seed.
func draw(rng *rand.Rand) *plan {
	half := func() bool { return rng.IntN(2) == 0 }
	p := &plan{safety: 9*time.Second + time.Duration(rng.IntN(6))*time.Second, gossipSleep: 50 * time.Millisecond,
		timeoutCommit: []time.Duration{200, 400, 600}[rng.IntN(3)] * time.Millisecond, delay: time.Duration(1+rng.IntN(40)) * time.Millisecond,
		clients: 3, pause: time.Duration(250+rng.IntN(500)) * time.Millisecond, postQuantum: rng.IntN(12) == 0,
		partitions: half(), oneWay: half(), cuts: half(), delays: half(), crashes: half(), blackouts: half()}
	if half() {
		p.keepVersions = 3
	}
	n := []int{4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6, 7, 7, 7, 10}[rng.IntN(20)]
	total := int64(0)
	weighted := rng.IntN(4) == 0
	for range n {
		power := int64(3)
		if weighted {
			power = 2 + rng.Int64N(3)
		}
		p.powers = append(p.powers, power)
		total += power
	}
	bad := int64(0)
	for v := range n {
		r := role{}
		if rng.IntN(2) == 0 && 3*(bad+p.powers[v]) < total {
			switch rng.IntN(4) {
			case 0:
				r.equivocator = true
			case 1:
				r.proposer = true
			case 2:
				r.equivocator, r.proposer = true, true
			case 3:
				r.twin = true
			}
			bad += p.powers[v]
		}
		p.roles, p.keys = append(p.roles, r), append(p.keys, v)
		if r.twin {
			p.roles, p.keys = append(p.roles, r), append(p.keys, v)
		}
	}
	if rng.IntN(4) == 0 {
		p.roles, p.keys = append(p.roles, role{observer: true}), append(p.keys, -1)
	}
	return p
}

// drawGovernment adds to a plan what operators do. Who is inactive is missing from the power of the honest, of which two thirds
// of all stay at least, so with that the dishonest may have no more than two ninths.
func (p *plan) drawGovernment(rng *rand.Rand) {
	bad, total := int64(0), int64(0)
	for v, power := range p.powers {
		total += power
		if p.dishonest(v) {
			bad += power
		}
	}
	p.missed = 9*bad < 2*total
	p.votes = rng.IntN(2) == 0 || len(p.powers) > 4 && p.missed && rng.IntN(2) == 0 // who is inactive comes back by its operator
}

// dishonest tells whether a validator is.
func (p *plan) dishonest(validator int) bool {
	for i, r := range p.roles {
		if p.keys[i] == validator && r.byzantine() {
			return true
		}
	}
	return false
}

// counters are what a run has seen; a run of many seeds in which one of them stays zero has not tested what it should.
type counters struct {
	crashes, tornLogs, partitions, oneWay, cuts, delays, blackouts           atomic.Int64
	equivocations, rejections, evidence, removed, accepted, committed, again atomic.Int64
	proposals, approvals, bonds, reactivated, rotated, repowered, inactive   atomic.Int64

	mu   sync.Mutex
	lies map[string]int64
}

func (c *counters) lie(way string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lies == nil {
		c.lies = map[string]int64{}
	}
	c.lies[way]++
}

// Report is what came out of a seed.
type Report struct {
	Seed     uint64
	Findings []string
	Seen     map[string]int64 // how often each thing happened
	Virtual  time.Duration
	Resumed  time.Duration // from healing to the last honest node's new block
}

// simulation is one seed under way.
type simulation struct {
	seed      uint64
	plan      *plan
	rng       *rand.Rand
	trace     *trace
	network   *network
	machines  []*machine
	clients   []*client
	operators []*client // by validator, where they vote
	bank      *wallet
	mallory   *wallet
	money     ledger.AssetID
	doc       *types.GenesisDoc
	genesis   ledger.Genesis
	networkID ledger.Network
	chain     *chain
	count     counters

	mu       sync.Mutex
	findings []string
}

// finding writes down what must not be.
func (s *simulation) finding(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.trace.printf(-1, "FINDING: %s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.findings) < 100 {
		s.findings = append(s.findings, text)
	}
}

func (s *simulation) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.findings) > 0
}

// dice is true once in n times.
func (w *network) dice(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n) == 0
}

// Run runs the story of a seed, with real files in dir, which must be empty, and tells it to out.
func Run(seed uint64, dir string, out io.Writer) Report {
	rng := rand.New(rand.NewPCG(seed, 0x9ac1011))
	s := &simulation{seed: seed, plan: draw(rng), rng: rng, trace: &trace{w: out, begun: time.Now()}, chain: newChain()}
	s.plan.drawGovernment(rand.New(rand.NewPCG(seed, 3)))
	s.trace.printf(-1, "seed %d: %+v", seed, *s.plan)
	s.found(dir)
	for _, m := range s.machines {
		if err := s.start(m); err != nil {
			s.finding("node %d does not start: %v", m.index, err)
			return s.report(0)
		}
	}
	stop := make(chan struct{})
	for _, c := range s.clients {
		go c.work(s.plan.pause, stop)
	}
	for _, c := range s.operators {
		go c.work(4*s.plan.pause, stop)
	}
	s.safety()
	resumed := s.heal()
	close(stop)
	if !s.failed() {
		s.settle()
		s.audit()
		for _, c := range s.everybody() {
			c.check()
		}
	}
	return s.report(resumed)
}

// found makes keys, genesis and machines.
func (s *simulation) found(dir string) {
	n := len(s.plan.roles)
	s.network = newNetwork(n, rand.New(rand.NewPCG(s.seed, 2)), s.trace)
	s.calm()
	var validators []types.GenesisValidator
	var keys []cmtcrypto.PrivKey
	for v, power := range s.plan.powers {
		k := s.consensusKey(v, s.plan.postQuantum)
		keys = append(keys, k)
		validators = append(validators, types.GenesisValidator{Address: k.PubKey().Address(), PubKey: k.PubKey(), Power: power * genesisfile.EqualPower})
	}
	s.bank, s.mallory = newWallet(s, "bank", crypto.Ed25519), newWallet(s, "mallory", crypto.Ed25519)
	fees := newWallet(s, "fees", crypto.Ed25519)
	schemes := [][]crypto.Scheme{{crypto.Ed25519}, {crypto.Secp256k1}, {crypto.Ed25519, crypto.Ed25519}}
	parameters := ledger.DefaultParameters()
	parameters.FeeTargetWeight = 20_000 // so low that the fee moves
	parameters.MissedWindow, parameters.MaxMissed = 0, 0
	if s.plan.missed {
		parameters.MissedWindow, parameters.MaxMissed = 10, 2
	}
	state := ledger.GenesisState{Parameters: parameters.Genesis("EUR", fees.address),
		Assets: []ledger.GenesisAsset{{Code: "EUR", Issuer: s.bank.address, MaxSupply: "1000000000000"}}}
	fund := func(w *wallet, amount uint64) {
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: w.address, Balances: []ledger.GenesisBalance{{Asset: "EUR", Amount: fmt.Sprint(amount)}}})
	}
	for i := range s.plan.clients {
		c := &client{wallet: newWallet(s, fmt.Sprint("client", i), schemes[i%len(schemes)]...), rng: rand.New(rand.NewPCG(s.seed, uint64(100+i))), byTurn: i == 0}
		s.clients = append(s.clients, c)
		fund(c.wallet, clientFunds)
	}
	fund(s.mallory, malloryFunds)
	for v := range s.plan.powers {
		if !s.plan.votes {
			break
		}
		c := &client{wallet: newWallet(s, fmt.Sprint("operator", v), crypto.Ed25519), rng: rand.New(rand.NewPCG(s.seed, uint64(200+v))), operator: &operator{}}
		s.operators = append(s.operators, c)
		fund(c.wallet, clientFunds)
		state.Validators = append(state.Validators, ledger.GenesisValidator{PubKey: validators[v].PubKey.Bytes(), Operator: c.address, Name: c.name})
	}
	slices.SortFunc(state.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	s.money = ledger.NewAssetID(s.bank.address, "EUR")
	var err error
	if s.doc, err = genesisfile.New("sim-1", time.Now(), validators, state); err != nil {
		panic(err)
	}
	if s.genesis, err = genesisfile.FromDoc(s.doc); err != nil {
		panic(err)
	}
	if s.networkID, err = genesisfile.NetworkOf(s.doc); err != nil {
		panic(err)
	}
	for i, r := range s.plan.roles {
		m := &machine{index: i, role: r, dir: filepath.Join(dir, fmt.Sprint("node", i)), rng: rand.New(rand.NewPCG(s.seed, uint64(1000+i))), disk: vfs.NewCrashableMem()}
		if r.observer {
			m.key = s.consensusKey(1000, false)
		} else {
			m.key = keys[s.plan.keys[i]]
		}
		if err := os.MkdirAll(m.dir, 0o700); err != nil {
			panic(err)
		}
		s.machines = append(s.machines, m)
	}
}

func (s *simulation) consensusKey(number int, postQuantum bool) cmtcrypto.PrivKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "simulated validator %d", number))
	if !postQuantum {
		return cmted25519.GenPrivKeyFromSecret(seed[:])
	}
	k, err := mldsa65.GenPrivKeyFromSeed(seed[:])
	if err != nil {
		panic(err)
	}
	return k
}

// calm takes all faults off the network.
func (s *simulation) calm() {
	s.network.set(func(int, int, condition) condition { return condition{delay: s.plan.delay, jitter: s.plan.delay / 2} })
}

// safety lets anything happen for a while.
func (s *simulation) safety() {
	end := time.Now().Add(s.plan.safety)
	next := time.Now().Add(2 * time.Second) // a few blocks first
	var healAt time.Time
	for time.Now().Before(end) && !s.failed() {
		time.Sleep(tick)
		if !healAt.IsZero() && time.Now().After(healAt) {
			s.trace.printf(-1, "the network is whole again")
			s.calm()
			healAt = time.Time{}
		}
		s.revive(false)
		s.network.dial()
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(300*time.Millisecond + time.Duration(s.rng.Int64N(int64(2*time.Second))))
		if s.strike(healAt.IsZero()) {
			healAt = time.Now().Add(500*time.Millisecond + time.Duration(s.rng.Int64N(int64(5*time.Second))))
		}
	}
}

// strike makes one fault, of those that the plan has. It tells whether the network is to be healed later; while it is not
// whole, only crashes come on top.
func (s *simulation) strike(whole bool) (broken bool) {
	var faults []func() bool
	if s.plan.crashes {
		faults = append(faults, s.strikeOne)
		if s.plan.blackouts && s.rng.IntN(4) == 0 {
			faults = append(faults, s.strikeAll)
		}
	}
	if whole && s.plan.delays {
		faults = append(faults, s.slow)
	}
	if whole && (s.plan.partitions || s.plan.oneWay || s.plan.cuts) {
		faults = append(faults, s.divide)
	}
	return len(faults) > 0 && faults[s.rng.IntN(len(faults))]()
}

// strikeOne has one machine crash at one of its next writes to the disk.
func (s *simulation) strikeOne() bool {
	if r := s.machines[s.rng.IntN(len(s.machines))].running(); r != nil {
		r.light(s.rng.IntN(120))
	}
	return false
}

// strikeAll has all machines crash at this moment.
func (s *simulation) strikeAll() bool {
	s.count.blackouts.Add(1)
	for _, m := range s.machines {
		if r := m.running(); r != nil {
			r.crash("blackout")
		}
	}
	return false
}

// slow makes some of the links slow.
func (s *simulation) slow() bool {
	s.count.delays.Add(1)
	s.trace.printf(-1, "SLOW links")
	s.network.set(func(_, _ int, c condition) condition {
		if s.rng.IntN(3) == 0 {
			c.delay, c.jitter = time.Duration(s.rng.IntN(1500))*time.Millisecond, 100*time.Millisecond
		}
		return c
	})
	return true
}

// divide parts the network in two: messages wait in both directions, or in one, or the connections break.
func (s *simulation) divide() bool {
	first := sides(s.rng, len(s.machines))
	if s.rng.IntN(4) == 0 { // one alone
		clear(first)
		first[s.rng.IntN(len(first))] = true
	}
	var kinds []*atomic.Int64
	if s.plan.partitions {
		kinds = append(kinds, &s.count.partitions)
	}
	if s.plan.oneWay {
		kinds = append(kinds, &s.count.oneWay)
	}
	if s.plan.cuts {
		kinds = append(kinds, &s.count.cuts)
	}
	kind := kinds[s.rng.IntN(len(kinds))]
	kind.Add(1)
	oneWay, cut := kind == &s.count.oneWay, kind == &s.count.cuts
	s.trace.printf(-1, "PARTITION %v, one way %t, cut %t", first, oneWay, cut)
	s.network.set(func(from, to int, c condition) condition {
		if first[from] != first[to] && (!oneWay || first[from]) {
			c.stalled, c.cut = !cut, cut
		}
		return c
	})
	return true
}

// revive buries nodes that have crashed, and starts their machines again when it is time: at once when all are to run.
func (s *simulation) revive(all bool) {
	for _, m := range s.machines {
		r := m.running()
		if r == nil || !r.dead.is() {
			continue
		}
		if m.back.IsZero() {
			synctest.Wait() // what the crash interrupted has come to rest
			r.bury()
			m.back = time.Now().Add(time.Duration(m.rng.Int64N(int64(3 * time.Second))))
		}
		if all || time.Now().After(m.back) {
			m.back = time.Time{}
			if err := s.restart(m); err != nil {
				if now := m.running(); now == nil {
					s.finding("node %d does not start after a crash: %v", m.index, err)
				}
			}
		}
	}
}

// heal takes away every fault but dishonesty, and waits until every honest node commits new blocks. It returns how long
// that took.
func (s *simulation) heal() time.Duration {
	if s.failed() {
		return 0
	}
	begun := time.Now()
	s.trace.printf(-1, "HEALING")
	s.plan.crashes = false
	s.calm()
	for _, m := range s.machines {
		if r := m.running(); r != nil {
			r.quench()
		}
	}
	s.revive(true)
	s.network.dial()
	from := s.chain.height()
	for {
		time.Sleep(tick)
		s.revive(true)
		s.network.dial()
		slowest := int64(1 << 62)
		for _, m := range s.machines {
			if !m.role.byzantine() {
				h := int64(0)
				if r := m.running(); r != nil && !r.dead.is() {
					h = int64(r.app.Last().Height)
				}
				slowest = min(slowest, h)
			}
		}
		took := time.Since(begun)
		if slowest >= from+2 {
			s.trace.printf(-1, "HEALED: every honest node is at height %d or above after %s", slowest, took)
			return took
		}
		if s.failed() {
			return took
		}
		if took > resumeWithin {
			s.finding("%s after the network was healed, the slowest honest node is at height %d; the highest was at %d", took, slowest, from)
			return took
		}
	}
}

// everybody is who sends transactions.
func (s *simulation) everybody() []*client { return append(slices.Clone(s.clients), s.operators...) }

// open tells whether a transaction is not committed.
func (s *simulation) open() bool {
	return slices.ContainsFunc(s.everybody(), func(c *client) bool { return len(c.open()) > 0 })
}

// settle waits until everything is committed: what a living pool owes, and what clients send until they see it in a block.
func (s *simulation) settle() {
	end := time.Now().Add(settleWithin)
	for {
		time.Sleep(tick)
		s.network.dial()
		var t *sent
		var by *run
		for _, c := range s.everybody() {
			if t, by = c.owed(); t != nil {
				break
			}
		}
		if t == nil && !s.open() {
			break
		}
		if s.failed() {
			return
		}
		if time.Now().After(end) && t == nil {
			for _, c := range s.everybody() {
				for _, t := range c.open() {
					s.finding("transaction %s of %s, which is good and is sent again and again, is in no block %s after the network healed; %d nodes have accepted it, and crashed or are dishonest", t.id, c.name, settleWithin, len(t.by))
				}
			}
			return
		}
		if time.Now().After(end) {
			s.finding("transaction %s was accepted by node %d, which is honest and has lived ever since, and is in no block after %s: its pool is %+v", t.id, by.index, settleWithin, by.app.Pool().Stats())
			return
		}
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

func (s *simulation) report(resumed time.Duration) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.count
	seen := map[string]int64{"crashes": c.crashes.Load(), "torn logs": c.tornLogs.Load(), "partitions": c.partitions.Load(), "one-way partitions": c.oneWay.Load(),
		"cuts": c.cuts.Load(), "slow links": c.delays.Load(), "blackouts": c.blackouts.Load(), "equivocations": c.equivocations.Load(),
		"rejected proposals": c.rejections.Load(), "pieces of evidence": c.evidence.Load(), "removed validators": c.removed.Load(),
		"transactions accepted": c.accepted.Load(), "transactions committed": c.committed.Load(), "transactions sent again": c.again.Load(),
		"proposals": c.proposals.Load(), "approvals": c.approvals.Load(), "bonds": c.bonds.Load(), "validators back": c.reactivated.Load(),
		"rotated keys": c.rotated.Load(), "changed powers": c.repowered.Load(), "inactive validators": c.inactive.Load(),
		"blocks": s.chain.height(), "messages": int64(s.network.carried)}
	for _, way := range ways {
		c.mu.Lock()
		seen["lie: "+way] = c.lies[way]
		c.mu.Unlock()
	}
	return Report{Seed: s.seed, Findings: slices.Clone(s.findings), Seen: seen, Virtual: time.Since(s.trace.begun), Resumed: resumed}
}
