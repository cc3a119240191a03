// Package chaos breaks a network on purpose while signed load runs through it, heals it, and has package audit find out
// whether it kept its promises. What it does is drawn from a seed and printed before it begins; what the network makes of
// it is the network's.
//
// While faults are on, anything may fail but safety: never more than a third of the power is faulty at once, so blocks may be
// late and clients may be told nothing. Then as many nodes are taken away that the others must not commit anything. Then all
// is healed, and blocks have to come within [Heals].
package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/testnet"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
	"github.com/pacioli-ledger/pacioli/testnet/load"
	"github.com/pacioli-ledger/pacioli/testnet/proxy"
)

// Heals is how long a network may take to its next blocks once it is healed.
const Heals = 15 * time.Second

const (
	// comesBack is how long one node may take, after its fault, to get where the others are: with block sync, and the pause
	// of up to 8 s after which its peers dial it.
	comesBack = 60 * time.Second
	// grace is how long a block that was decided before the others went away may take to arrive.
	grace = 2 * time.Second
	// endsItself is how long a node may take to notice that it must not go on: its clock is looked at for ten seconds, once it
	// has caught up.
	endsItself = 60 * time.Second
	// mostClockOffset is the highest node.max_clock_offset: CometBFT fails on a clock that is 60 s late.
	mostClockOffset = 55 * time.Second
	// firstSnapshot is a height at which snapshots have been made for certain: they are made every snapshotInterval heights.
	firstSnapshot    = 2 * snapshotInterval
	snapshotInterval = 50
	// twinPatience is how long two nodes with one key may take to be found out.
	twinPatience = 60 * time.Second
	// startPatience is how long a new network may take to its second block.
	startPatience = 2 * time.Minute
	// payerFunds is what each payer has, in base units of the fee asset: 100,000 payments of 10 kB.
	payerFunds = 1_000_000_000_000
)

// Options say what to break, and how.
type Options struct {
	Dir      string           // of the network; is made
	Topology testnet.Topology // what it is made of
	Program  string           // pacioli
	Source   string           // folder of Pacioli's source, for the faults of clocks and disks; "": those are left out
	Faulty   string           // their program, when it is built already: see [BuildFaulty]
	Discard  bool             // containers are removed after a run with findings too
	Seed     uint64
	Duration time.Duration // of the schedule
	Faults   []Fault
	Rate     float64 // payments a second
	Stories  float64 // of other operations, begun a second
	// Patience multiplies every bound, for machines on which the network is too much; 0: 1.
	Patience int
	// Say is told what happens, line by line.
	Say    func(format string, args ...any)
	Logger *slog.Logger // of the load; nil: none
}

// Report is what came of it.
type Report struct {
	Seed     uint64                  `json:"seed"`
	Duration time.Duration           `json:"duration_ns"`
	Faults   map[Fault]int           `json:"faults"`     // that were done, by kind
	LeftOut  []string                `json:"left_out"`   // faults that could not be done, and why
	Rounds   int                     `json:"rounds"`     // healed
	Longest  time.Duration           `json:"longest_ns"` // from healing to new blocks
	Blocks   int                     `json:"blocks"`
	Txs      int                     `json:"transactions"`
	Failed   int                     `json:"failed"`     // of the transactions
	Kinds    map[string]int          `json:"operations"` // that took effect, by kind
	Claims   map[audit.Ending]int    `json:"claims"`
	Reads    int                     `json:"reads"`   // verified, compared with the second bookkeeping
	Commits  int                     `json:"commits"` // looked through for a validator that signed twice
	Rows     int                     `json:"rows"`
	Evidence int                     `json:"evidence"`
	Gap      time.Duration           `json:"gap_ns"`     // longest between two blocks, faults included
	Returns  map[Fault]time.Duration `json:"returns_ns"` // longest from the end of a fault to the node's being where the others are
	Findings []string                `json:"findings"`
	Kept     string                  `json:"kept"` // folder with everything
}

// run is a run under way.
type run struct {
	o       Options
	net     network
	special int // the only node that can have a wrong clock or a full disk; -1: any
	name    []string
	nodes   []*audit.Node
	power   []int64 // 0 for a validator that has lost its own
	report  Report
	factor  time.Duration
	began   time.Time
	load    *load.Load

	mu      sync.Mutex
	twins   []int
	reads   []audit.Read
	commits []*types.Commit
}

func (r *run) say(format string, args ...any) {
	r.o.Say("%7.1f s  %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// find notes what must not be.
func (r *run) find(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.report.Findings = append(r.report.Findings, text)
	r.mu.Unlock()
	r.say("FINDING: %s", text)
}

// Topology is what is broken when nothing else is asked for: validators, and with them one full node.
func Topology(validators int, keyTypes string) testnet.Topology {
	t := testnet.Validators(validators, keyTypes, "chaos-1")
	t.Nodes = append(t.Nodes, testnet.NodeSpec{Name: "full0", Role: "full"})
	// Blocks as fast as they come would keep this machine busy with empty work.
	t.Settings = map[string]any{"consensus.timeout_commit": "100ms", "store.cache_mb": int64(64), "store.tree_cache_nodes": int64(100_000)}
	t.Containers.Project, t.Containers.Subnet = "pacioli-chaos", "10.213.71.0/24"
	return t
}

// Processes makes a network of processes on this machine, breaks it as the options say, and audits it. The report counts, the
// error is for what kept the run from being one. The network's folder is kept.
func Processes(ctx context.Context, o Options) (Report, error) {
	r, payers, faulty, err := newRun(ctx, o)
	if err != nil {
		return r.report, err
	}
	o = r.o
	l, err := testnet.CreateLocal(o.Dir, testnet.LocalOptions{Topology: &o.Topology, Accounts: load.Addresses(payers), Funds: payerFunds})
	if err != nil {
		return r.report, err
	}
	p, err := newProcesses(l, o.Program, faulty)
	if err != nil {
		return r.report, err
	}
	defer p.close()
	r.net = p
	return r.run(ctx, payers)
}

// Containers is Processes for a network of containers. They are removed at the end of a run without findings, and kept, killed,
// after another; the logs are written beside the project.
func Containers(ctx context.Context, o Options) (Report, error) {
	r, payers, faulty, err := newRun(ctx, o)
	if err != nil {
		return r.report, err
	}
	o = r.o
	special := -1 // wrong clocks and full disks are this one's
	if faulty != "" {
		for i, n := range o.Topology.Nodes {
			if n.Role == "validator" && n.Version == "" {
				special = i
			}
		}
		if special < 0 {
			return r.report, errors.New("no validator of this topology runs the present version, which wrong clocks and full disks are for")
		}
		o.Topology.Nodes = slices.Clone(o.Topology.Nodes)
		o.Topology.Nodes[special].Version = faultyVersion
		versions := map[string]testnet.Version{faultyVersion: {Binary: faulty}}
		maps.Copy(versions, o.Topology.Versions)
		o.Topology.Versions = versions
	}
	p, err := testnet.Generate(o.Dir, o.Topology, testnet.GenerateOptions{Binary: o.Program, Version: "chaos", Accounts: load.Addresses(payers), Funds: payerFunds})
	if err != nil {
		return r.report, err
	}
	c, err := newContainers(ctx, p, special)
	if err != nil {
		return r.report, err
	}
	r.net, r.special = c, special
	report, err := r.run(ctx, payers)
	err = errors.Join(err, c.keepLogs())
	if !o.Discard && (err != nil || len(report.Findings) > 0) {
		c.close()
		return report, err
	}
	return report, errors.Join(err, c.remove())
}

func newRun(ctx context.Context, o Options) (r *run, payers []*load.Payer, faulty string, err error) {
	r = &run{o: o, factor: time.Duration(max(o.Patience, 1)), began: time.Now(), special: -1,
		report: Report{Seed: o.Seed, Faults: map[Fault]int{}, Returns: map[Fault]time.Duration{}, Findings: []string{}, LeftOut: []string{}, Kept: o.Dir}}
	validators := 0
	for _, n := range o.Topology.Nodes {
		if n.Role == "validator" {
			validators++
		}
	}
	if validators < 4 {
		return r, nil, "", fmt.Errorf("%d validators: with fewer than 4 none may fail", validators)
	}
	if payers, err = load.NewPayers(o.Seed, 20); err != nil {
		return r, nil, "", err
	}
	// For who is wiped, whatever the topology says.
	settings := map[string]any{}
	maps.Copy(settings, o.Topology.Settings)
	settings["snapshot.interval"], settings["snapshot.keep"] = int64(snapshotInterval), int64(4)
	r.o.Topology.Settings = settings
	return r, payers, r.faulty(ctx), nil
}

// faulty builds the program for clocks and disks, and leaves those faults out, loudly, when it cannot.
func (r *run) faulty(ctx context.Context) string {
	needs := func(f Fault) bool { return f == DiskFull || f.clock() != 0 }
	if !slices.ContainsFunc(r.o.Faults, needs) {
		return ""
	}
	var program string
	if r.o.Faulty != "" {
		return r.o.Faulty
	}
	err := errors.New("no --source is given")
	if r.o.Source != "" {
		var dir string
		if dir, err = os.MkdirTemp("", "pacioli-faulty."); err == nil {
			r.say("build the program for wrong clocks and full disks: the standard library is compiled anew, which takes minutes the first time")
			program, err = BuildFaulty(ctx, r.o.Source, dir)
		}
	}
	if err == nil {
		return program
	}
	for _, f := range r.o.Faults {
		if needs(f) {
			r.report.LeftOut = append(r.report.LeftOut, fmt.Sprintf("%s: %s", f, err))
		}
	}
	r.o.Faults = slices.DeleteFunc(slices.Clone(r.o.Faults), needs)
	r.say("LEFT OUT, wrong clocks and full disks: %s", err)
	return ""
}

// run breaks the network that is in r.net.
func (r *run) run(ctx context.Context, payers []*load.Payer) (Report, error) {
	r.name = r.net.names()
	r.power = powersOf(r.name, r.net.doc())
	for _, url := range r.net.urls() {
		n, err := audit.Open(url)
		if err != nil {
			return r.report, err
		}
		r.nodes = append(r.nodes, n)
	}
	rounds := schedule(r.o.Seed, r.o.Duration, r.o.Faults, r.power, r.special)
	r.o.Say("seed %d; the schedule:", r.o.Seed)
	for _, line := range Lines(rounds, r.name) {
		r.o.Say("%s", line)
	}
	for i := range r.name {
		if err := r.net.start(i, false); err != nil {
			return r.report, err
		}
	}
	if _, ok := r.await(ctx, startPatience, func() bool {
		for i := range r.name {
			if r.height(ctx, i) < 2 {
				return false
			}
		}
		return true
	}); !ok {
		return r.report, fmt.Errorf("the network makes no blocks; the end of the log of %s:\n%s", r.name[0], r.net.last(0, 20))
	}
	r.say("the network runs")
	c, err := client.Dial(ctx, client.Options{Nodes: r.net.urls(), Genesis: r.net.doc(), Logger: r.o.Logger})
	if err != nil {
		return r.report, err
	}
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	operators, err := r.operators()
	if err != nil {
		return r.report, err
	}
	if r.load, err = load.New(ctx, load.Options{Operators: operators, Nodes: r.net.urls(), Client: c, Payers: payers, Seed: r.o.Seed, Rate: r.o.Rate, Stories: r.o.Stories, Expected: r.o.Duration, Settle: r.factor * 40 * time.Second, Logger: r.o.Logger}); err != nil {
		return r.report, err
	}
	stopWatching, err := r.watch(ctx, c, payers)
	if err != nil {
		return r.report, err
	}
	defer stopWatching()
	record := make(chan []audit.Claim, 1)
	go func() { record <- r.load.Run(loading) }()

	began := time.Now()
	for n, round := range rounds {
		for _, s := range round.Steps {
			if err := r.step(ctx, s); err != nil {
				return r.report, err
			}
		}
		if err := r.heal(ctx, round); err != nil {
			return r.report, err
		}
		r.report.Rounds = n + 1
		p := r.load.Progress()
		r.say("round %d of %d is over: height %d, %d payments made, %d final", n+1, len(rounds), p.Height, p.Made, p.Ended[audit.Final])
	}
	r.report.Duration = time.Since(began)
	r.say("settle")
	r.load.Stop()
	var claims []audit.Claim
	select {
	case claims = <-record:
	case <-ctx.Done():
		return r.report, ctx.Err()
	}
	p := r.load.Progress()
	r.report.Kinds = p.Kinds
	r.say("%d of %d stories were told to their end", p.Told, p.Stories)
	stopWatching()
	if err := r.keep(claims); err != nil {
		return r.report, err
	}
	return r.report, r.audit(ctx, claims)
}

// operators unlocks the keys of the validators' operators.
func (r *run) operators() (list []client.Signer, err error) {
	wallet := r.net.wallet()
	passphrase, err := os.ReadFile(filepath.Join(wallet, "passphrase"))
	if err != nil {
		return nil, fmt.Errorf("reading the wallet's passphrase: %w", err)
	}
	keys, err := keystore.Open(filepath.Join(wallet, "keys"), keystore.WithCost(keystore.CheapCost))
	if err != nil {
		return nil, err
	}
	for i, power := range r.power {
		if power == 0 {
			continue
		}
		s, err := keys.Unlock(testnet.OperatorKey(r.name[i]), strings.TrimSpace(string(passphrase)))
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// keep writes the record beside the network.
func (r *run) keep(claims []audit.Claim) error {
	f, err := os.Create(filepath.Join(r.o.Dir, "record.ndjson"))
	if err != nil {
		return fmt.Errorf("keeping the record: %w", err)
	}
	reads, err := os.Create(filepath.Join(r.o.Dir, "reads.ndjson"))
	if err != nil {
		return errors.Join(fmt.Errorf("keeping the reads: %w", err), f.Close())
	}
	return errors.Join(audit.WriteClaims(f, claims), f.Close(), audit.WriteReads(reads, r.reads), reads.Close())
}

// height asks a node; 0 when it does not answer.
func (r *run) height(ctx context.Context, i int) uint64 {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := r.nodes[i].Status(ctx)
	if err != nil {
		return 0
	}
	return s.Height
}

// heights asks all nodes at once; those that do not answer have 0.
func (r *run) heights(ctx context.Context) []uint64 {
	heights := make([]uint64, len(r.nodes))
	var wg sync.WaitGroup
	for i := range r.nodes {
		wg.Go(func() { heights[i] = r.height(ctx, i) })
	}
	wg.Wait()
	return heights
}

// await waits until done is true, for so long at most, and returns how long it took.
func (r *run) await(ctx context.Context, bound time.Duration, done func() bool) (time.Duration, bool) {
	began := time.Now()
	for {
		if done() {
			return time.Since(began), true
		}
		if time.Since(began) > r.factor*bound || ctx.Err() != nil {
			return time.Since(began), false
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// around returns every link from a node, to it, or both, under a condition.
func (r *run) around(i int, from, to bool, c proxy.Condition) (settings []proxy.Setting) {
	for j, other := range r.name {
		if j == i {
			continue
		}
		if from {
			settings = append(settings, proxy.Setting{Link: proxy.Link{From: r.name[i], To: other}, Condition: c})
		}
		if to {
			settings = append(settings, proxy.Setting{Link: proxy.Link{From: other, To: r.name[i]}, Condition: c})
		}
	}
	return settings
}

// step does one fault, undoes it, and waits until its node is where the others are.
func (r *run) step(ctx context.Context, s Step) error {
	sleep(ctx, s.Before)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.say("%s", s.text(r.name))
	r.report.Faults[s.Fault]++
	mayEnd := false // its node may end by itself
	var err error
	i := s.Node
	linked := func(from, to bool, c proxy.Condition) error {
		err := r.net.links(r.around(i, from, to, c)...)
		sleep(ctx, s.For)
		return errors.Join(err, r.net.links(r.around(i, from, to, proxy.Condition{})...))
	}
	switch s.Fault {
	case Kill:
		err = r.net.kill(i)
		sleep(ctx, s.For)
		err = errors.Join(err, r.net.start(i, false))
	case Pause:
		err = r.net.pause(i)
		sleep(ctx, s.For)
		err = errors.Join(err, r.net.resume(i))
	case Disconnect:
		err = r.net.offline(i, true)
		sleep(ctx, s.For)
		err = errors.Join(err, r.net.offline(i, false))
	case Reject, Long:
		err = linked(true, true, proxy.Condition{Cut: true})
	case OneWay:
		err = linked(!s.Inward, s.Inward, proxy.Condition{Stall: true})
	case Delay:
		var slow, well []proxy.Setting
		for j := range r.name {
			slow = append(slow, r.around(j, true, false, proxy.Condition{Delay: s.Slow, Jitter: s.Slow / 5, BytesPerSecond: 1_000_000 / 8})...)
			well = append(well, r.around(j, true, false, proxy.Condition{})...)
		}
		err = r.net.links(slow...)
		sleep(ctx, s.For)
		err = errors.Join(err, r.net.links(well...))
	case Wipe:
		err = r.wipe(ctx, s)
	case Roll:
		for j := range r.name {
			err = errors.Join(err, r.net.stop(j), r.net.start(j, false))
			if err == nil {
				err = r.back(ctx, j, s.Fault)
			}
		}
	case DiskFull:
		err = errors.Join(r.net.stop(i), r.net.disk(i, false), r.net.clock(i, 0), r.net.start(i, true))
		if err == nil {
			err = r.back(ctx, i, s.Fault)
		}
		err = errors.Join(err, r.net.disk(i, true))
		r.ends(ctx, s, 10, 11, 12)
		sleep(ctx, s.For)
		err = errors.Join(err, r.net.disk(i, false), r.net.stop(i), r.net.start(i, false))
	case Twin:
		mayEnd = true
		err = r.twin(ctx, i)
	default:
		err = r.clock(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.text(r.name), err)
	}
	for j := range r.name {
		if !r.net.running(j) {
			if j != i || !mayEnd {
				r.find("%s has ended by itself; the end of its log:\n%s", r.name[j], r.net.last(j, 10))
			}
			if err := r.net.start(j, false); err != nil {
				return err
			}
		}
	}
	if i >= 0 {
		return r.back(ctx, i, s.Fault)
	}
	return ctx.Err()
}

// ends waits until a node has ended by itself, with one of these codes.
func (r *run) ends(ctx context.Context, s Step, codes ...int) {
	took, ok := r.await(ctx, endsItself, func() bool { return !r.net.running(s.Node) })
	code := -1
	if ok {
		code = r.net.exit(s.Node)
	}
	switch {
	case ctx.Err() != nil:
	case !ok:
		r.find("%s still runs %s after %s has begun, and should have ended by itself; the end of its log:\n%s", r.name[s.Node], took.Round(time.Millisecond), s.Fault, r.net.last(s.Node, 10))
	case !slices.Contains(codes, code):
		r.find("%s has ended with code %d under %s, want one of %d; the end of its log:\n%s", r.name[s.Node], code, s.Fault, codes, r.net.last(s.Node, 10))
	default:
		r.say("%s has ended by itself with code %d, after %s", r.name[s.Node], code, took.Round(100*time.Millisecond))
	}
}

// clock puts a node's clock off. Beyond the node's own limit it has to end and to say why. The smaller offset is below the
// highest limit that can be set: with that, CometBFT itself has to bear it.
func (r *run) clock(ctx context.Context, s Step) error {
	i, offset, limit := s.Node, s.Fault.clock(), node.DefaultConfig().Node.MaxClockOffset
	bears := offset.Abs() <= mostClockOffset
	if bears {
		limit = node.Duration(mostClockOffset)
	}
	err := errors.Join(r.net.stop(i), r.net.disk(i, false), r.net.clock(i, int(offset/time.Second)),
		r.net.configure(i, func(c *node.Config) { c.Node.MaxClockOffset = limit }), r.net.start(i, true))
	if err != nil {
		return err
	}
	if bears {
		err = r.back(ctx, i, s.Fault)
		sleep(ctx, s.For)
		if !r.net.running(i) {
			r.find("%s has ended with code %d, with a clock that is off by %s and a limit of %s; the end of its log:\n%s", r.name[i], r.net.exit(i), offset, time.Duration(limit), r.net.last(i, 10))
		}
	} else {
		codes := []int{13}
		if offset < -mostClockOffset { // CometBFT may refuse the others' blocks first, as too far in the future
			codes = append(codes, 10)
		}
		r.ends(ctx, s, codes...)
		sleep(ctx, s.For)
	}
	return errors.Join(err, r.net.stop(i), r.net.clock(i, 0), r.net.configure(i, func(c *node.Config) { c.Node.MaxClockOffset = node.DefaultConfig().Node.MaxClockOffset }),
		r.net.start(i, false))
}

// wipe takes everything that a node has stored, and has it begin with a snapshot of the others.
func (r *run) wipe(ctx context.Context, s Step) error {
	i := s.Node
	if _, ok := r.await(ctx, startPatience, func() bool { return slices.Max(r.heights(ctx)) > firstSnapshot }); !ok {
		return errors.Join(ctx.Err(), fmt.Errorf("no snapshot can be there: heights %v", r.heights(ctx)))
	}
	var servers []string
	for j, url := range r.net.inner() {
		if j != i {
			servers = append(servers, url)
		}
	}
	err := errors.Join(r.net.kill(i), r.net.wipe(i), r.net.configure(i, func(c *node.Config) {
		c.StateSync = node.StateSyncConfig{Enable: true, Servers: servers, Peers: s.Inward}
	}))
	if err != nil {
		return err
	}
	if err := errors.Join(r.net.start(i, false), r.back(ctx, i, s.Fault)); err != nil {
		return err
	}
	status, err := r.nodes[i].Status(ctx)
	switch {
	case err != nil:
		r.find("%s does not answer after its wipe: %s", r.name[i], err)
	case status.Earliest <= 1:
		r.find("%s has fetched every block after its wipe, instead of a snapshot", r.name[i])
	default:
		r.say("%s has its blocks from %d on", r.name[i], status.Earliest)
	}
	return nil
}

// back waits until a node is where the others are, and goes on with them.
func (r *run) back(ctx context.Context, i int, f Fault) error {
	target := slices.Max(r.heights(ctx)) + 1
	took, ok := r.await(ctx, comesBack, func() bool { return r.height(ctx, i) >= target })
	if !ok && ctx.Err() == nil {
		r.find("%s is at height %d, %s after its fault (%s), and has to get to %d; heights %v; the end of its log:\n%s", r.name[i], r.height(ctx, i), took.Round(time.Millisecond), f, target,
			r.heights(ctx), r.net.last(i, 10))
	}
	r.report.Returns[f] = max(r.report.Returns[f], took)
	return ctx.Err()
}

// twin runs a second node with the key of a validator, until it has been found out.
func (r *run) twin(ctx context.Context, i int) error {
	if err := r.net.twin(i); err != nil {
		return err
	}
	var address []byte
	for _, v := range r.net.doc().Validators {
		if v.Name == r.name[i] {
			address = v.Address
		}
	}
	took, ok := r.await(ctx, twinPatience, func() bool {
		for j := range r.nodes {
			if j != i {
				if set, err := r.nodes[j].Validators(ctx); err == nil {
					return !slices.ContainsFunc(set, func(v audit.Validator) bool { return bytes.Equal(v.Address, address) })
				}
			}
		}
		return false
	})
	if ok {
		r.say("%s has lost its power, %s after its twin was started", r.name[i], took.Round(100*time.Millisecond))
		r.power[i] = 0
		r.twins = append(r.twins, i)
	} else if ctx.Err() == nil {
		r.find("a twin of %s has signed for %s and is not punished", r.name[i], took.Round(time.Second))
	}
	return r.net.endTwin(i)
}

// heal takes so many nodes away that the others must not commit anything, and then heals everything.
func (r *run) heal(ctx context.Context, round Round) error {
	var err error
	sleep(ctx, time.Second)
	r.refresh(ctx)
	if len(round.Down) > 0 {
		var down []string
		for _, i := range round.Down {
			down = append(down, r.name[i])
			if round.Hard {
				err = errors.Join(err, r.net.kill(i))
			} else {
				err = errors.Join(err, r.net.links(r.around(i, true, true, proxy.Condition{Stall: true})...))
			}
		}
		if err != nil {
			return err
		}
		r.say("%s taken away together: nothing may be committed", strings.Join(down, " and "))
		sleep(ctx, r.factor*grace)
		before := r.heights(ctx)
		sleep(ctx, round.For)
		for i, after := range r.heights(ctx) {
			// With a twin that was not punished, which is a finding already, the others may be enough.
			if 3*r.powerWithout(round.Down) <= 2*r.powerWithout(nil) && before[i] != 0 && after != 0 && before[i] != after {
				r.find("%s went from height %d to %d without more than two thirds of the power", r.name[i], before[i], after)
			}
		}
	}
	last := slices.Max(r.heights(ctx))
	began := time.Now()
	for _, i := range round.Down {
		if round.Hard {
			err = errors.Join(err, r.net.start(i, false))
		} else {
			err = errors.Join(err, r.net.links(r.around(i, true, true, proxy.Condition{})...))
		}
	}
	if err != nil {
		return err
	}
	_, ok := r.await(ctx, Heals, func() bool { return slices.Max(r.heights(ctx)) >= last+2 })
	took := time.Since(began)
	if !ok && ctx.Err() == nil {
		r.find("%s after healing there is no new block: heights %v, before that %d", took.Round(time.Millisecond), r.heights(ctx), last)
		r.await(ctx, comesBack, func() bool { return slices.Max(r.heights(ctx)) >= last+2 })
		took = time.Since(began)
	}
	r.report.Longest = max(r.report.Longest, took)
	r.say("healed: two blocks more %s later", took.Round(time.Millisecond))
	for i := range r.name {
		if !r.net.running(i) {
			r.find("%s does not run after healing; the end of its log:\n%s", r.name[i], r.net.last(i, 10))
			if err := r.net.start(i, false); err != nil {
				return err
			}
		}
		if err := r.back(ctx, i, "healing"); err != nil {
			return err
		}
	}
	return r.agree(ctx)
}

// refresh takes over the power that validators have by now: one that missed too many blocks, or had a twin, has none.
func (r *run) refresh(ctx context.Context) {
	for _, n := range r.nodes {
		set, err := n.Validators(ctx)
		if err != nil {
			continue
		}
		for i, name := range r.name {
			r.power[i] = 0
			for _, v := range r.net.doc().Validators {
				if at := slices.IndexFunc(set, func(s audit.Validator) bool { return v.Name == name && bytes.Equal(s.Address, v.Address) }); at >= 0 {
					r.power[i] = set[at].Power
				}
			}
		}
		return
	}
}

// powerWithout is the power of all but some nodes.
func (r *run) powerWithout(down []int) (power int64) {
	for i, p := range r.power {
		if !slices.Contains(down, i) {
			power += p
		}
	}
	return power
}

// agree compares all nodes at the newest height that all have executed for certain.
func (r *run) agree(ctx context.Context) error {
	h := slices.Min(r.heights(ctx))
	if h < 3 {
		return ctx.Err() // one does not answer, which is a finding already
	}
	var first *audit.Block
	for i, n := range r.nodes {
		b, err := n.Block(ctx, h-1)
		if err != nil {
			r.find("%s cannot tell its block %d after healing: %s", r.name[i], h-1, err)
			continue
		}
		if first == nil {
			first = b
		}
		if err := first.Same(b); err != nil {
			r.find("nodes differ after healing: %s has, and another has, %s", r.name[i], err)
		}
	}
	return ctx.Err()
}

// audit waits until every node has all that clients were told, and finds out whether it was true.
func (r *run) audit(ctx context.Context, claims []audit.Claim) error {
	target := slices.Max(r.heights(ctx)) + 3 // the blocks above confirm what was told
	if _, ok := r.await(ctx, comesBack, func() bool { return slices.Min(r.heights(ctx)) >= target }); !ok {
		return fmt.Errorf("not every node got to height %d for the audit: %v", target, r.heights(ctx))
	}
	r.say("audit %d claims", len(claims))
	var guilty [][]byte
	for _, i := range r.twins {
		for _, v := range r.net.doc().Validators {
			if v.Name == r.name[i] {
				guilty = append(guilty, v.Address)
			}
		}
	}
	a, err := audit.Run(ctx, audit.Options{Nodes: r.net.urls(), Genesis: r.net.doc(), Claims: claims, Guilty: guilty, Reads: r.reads, Commits: r.commits})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	r.report.Blocks, r.report.Txs, r.report.Failed, r.report.Claims = a.Blocks, a.Transactions, a.Failed, a.Claims
	r.report.Rows, r.report.Evidence, r.report.Gap = a.Rows, a.Evidence, a.LongestGap
	r.report.Reads, r.report.Commits = a.Reads, a.Commits
	for _, f := range a.Faults {
		r.find("audit: %s", f)
	}
	for _, f := range load.Judge(claims) {
		r.find("load: %s", f)
	}
	return nil
}
