package node

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// The node's own metrics, all named pacioli_*, beside CometBFT's, which keep their names. They are read from where the
// figures are when Prometheus asks; nothing is counted for them alone on the way of a block. docs/METRICS.md is made of
// this table, and a test compares it with a running node.

// metric is one name. Its values come out of one reading of the node.
type metric struct {
	name    string
	counter bool // else a gauge
	help    string
	label   string // "" for a single value
	values  func(r *reading) []labelled
}

type labelled struct {
	label string
	value float64
}

func gauge(name, help string, value func(*reading) float64) metric {
	return metric{name: "pacioli_" + name, help: help, values: func(r *reading) []labelled { return []labelled{{"", value(r)}} }}
}

func counter(name, help string, value func(*reading) uint64) metric {
	m := gauge(name, help, func(r *reading) float64 { return float64(value(r)) })
	m.counter = true
	return m
}

func vector(name, label, help string, values func(*reading) []labelled) metric {
	return metric{name: "pacioli_" + name, label: label, help: help, values: values}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metricTable is every metric of the node's own.
var metricTable = []metric{
	gauge("height", "Height of the newest committed block.", func(r *reading) float64 { return float64(r.health.Height) }),
	gauge("block_age_seconds", "Seconds since the height was last seen to rise.", func(r *reading) float64 { return float64(r.health.LastRiseMS) / 1000 }),
	gauge("ready", "1 while /readyz says 200, else 0.", func(r *reading) float64 { return truth(r.health.OK) }),
	gauge("catching_up", "1 while the node fetches blocks that its peers have, else 0.", func(r *reading) float64 { return truth(r.health.CatchingUp) }),
	gauge("peers", "Connected peers.", func(r *reading) float64 { return float64(r.health.Peers) }),
	gauge("first_height", "First height whose state this node can prove.", func(r *reading) float64 { return float64(r.store.FirstHeight) }),
	gauge("first_block", "First block that this node keeps.", func(r *reading) float64 { return float64(r.n.comet.BlockStore().Base()) }),

	vector("mempool_txs", "state", "Transactions in memory: ready for a block, parked behind a gap of their sender's sequence, queued to be looked at.", func(r *reading) []labelled {
		return []labelled{{"parked", float64(r.pool.Parked)}, {"queued", float64(r.pool.Queued)}, {"ready", float64(r.pool.Ready)}}
	}),
	gauge("mempool_bytes", "Bytes of the ready and parked transactions.", func(r *reading) float64 { return float64(r.pool.Bytes) }),
	counter("mempool_accepted_total", "Transactions that were accepted.", func(r *reading) uint64 { return r.pool.Accepted }),
	{name: "pacioli_mempool_refused_total", counter: true, label: "class", help: "Transactions that were refused, by what was wrong with them.", values: func(r *reading) (all []labelled) {
		for i, name := range mempool.ClassNames {
			all = append(all, labelled{name, float64(r.pool.RefusedBy[i])})
		}
		return all
	}},
	counter("mempool_shed_total", "Transactions that were turned away for now: the queue or the pool was full.", func(r *reading) uint64 { return r.pool.Shed }),
	counter("mempool_evicted_total", "Parked transactions that went to make room.", func(r *reading) uint64 { return r.pool.Evicted }),
	counter("mempool_expired_total", "Waiting transactions whose time was over.", func(r *reading) uint64 { return r.pool.Expired }),
	counter("mempool_dropped_total", "Waiting transactions that could not be paid for or applied any more.", func(r *reading) uint64 { return r.pool.Dropped }),
	counter("mempool_panics_total", "Panics of admission, each of them logged: report them.", func(r *reading) uint64 { return r.pool.Panics }),

	gauge("block_transactions", "Transactions of the newest block.", func(r *reading) float64 { return float64(r.figures.Transactions) }),
	gauge("block_execution_seconds", "Time that the newest execution of a block took.", func(r *reading) float64 { return r.figures.Execution.Seconds() }),
	gauge("block_stage_seconds", "Time that the newest block took to be built into trees and a batch.", func(r *reading) float64 { return r.store.LastStage.Seconds() }),
	gauge("block_commit_seconds", "Time that the newest block's batch took to be written, mostly the disk's sync.", func(r *reading) float64 { return r.store.LastCommit.Seconds() }),
	gauge("block_batch_bytes", "Bytes of the newest block's batch.", func(r *reading) float64 { return float64(r.store.LastBatchBytes) }),
	counter("blocks_executed_total", "Blocks that were executed, also those of proposals that were not decided.", func(r *reading) uint64 { return r.figures.Executed }),

	counter("store_write_stalls_total", "Times that the application's database has held writes back.", func(r *reading) uint64 { return uint64(r.store.WriteStalls) }),
	counter("store_slow_disk_total", "Disk operations that the application's database found slow.", func(r *reading) uint64 { return uint64(r.store.SlowDisk) }),
	gauge("store_bytes", "Size of the application's database on disk.", func(r *reading) float64 {
		if r.store.Pebble == nil {
			return 0
		}
		return float64(r.store.Pebble.DiskSpaceUsage())
	}),
	gauge("data_bytes", "Size of all that stands in the data folder, CometBFT's databases included; at most 30 seconds old.", func(r *reading) float64 { return r.n.dataBytes() }),
	gauge("disk_free_bytes", "What is left on the disk of the data folder.", func(r *reading) float64 { return float64(r.n.free.Load()) }),

	vector("validators", "state", "Validators: active; inactive, which have missed too many blocks; missing, active ones that have not signed the last block but one.", func(r *reading) []labelled {
		return []labelled{{"active", r.count(ledger.Validator.Active)}, {"inactive", r.count(ledger.Validator.Inactive)}, {"missing", float64(r.figures.MissedLast)}}
	}),
	gauge("validators_may_fail", "How many validators, the strongest first, can fail before the chain stops; -1 when it has stopped.", func(r *reading) float64 { return float64(r.mayFail()) }),
	gauge("validator_power", "Voting power of this node's own validator; 0: it has none.", func(r *reading) float64 { return float64(r.own().Power) }),
	gauge("validator_missed_blocks", "Blocks that this node's own validator has missed in the newest window in which it missed any.", func(r *reading) float64 { return float64(r.n.missed()) }),

	gauge("clock_offset_seconds", "How far the clock is ahead of the other validators', by the times in their votes; 0 also when none came lately.", func(r *reading) float64 {
		if r.health.ClockOffsetMS == nil {
			return 0
		}
		return float64(*r.health.ClockOffsetMS) / 1000
	}),
	counter("signature_cache_hits_total", "Transactions whose signatures were known to be good.", func(r *reading) uint64 { return r.n.app.Signatures().Counters().Hits }),
	counter("signature_cache_misses_total", "Transactions whose signatures had to be verified.", func(r *reading) uint64 { return r.n.app.Signatures().Counters().Misses }),
	counter("signatures_verified_total", "Signatures that were verified.", func(r *reading) uint64 { return r.n.app.Signatures().Counters().Verified }),
}

// metrics is the table as Prometheus collects it.
type metrics struct{ n *Node }

func (m metric) description() *prometheus.Desc {
	var labels []string
	if m.label != "" {
		labels = []string{m.label}
	}
	return prometheus.NewDesc(m.name, m.help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (c metrics) Describe(out chan<- *prometheus.Desc) {
	for _, m := range metricTable {
		out <- m.description()
	}
}

// Collect implements [prometheus.Collector].
func (c metrics) Collect(out chan<- prometheus.Metric) {
	r := c.n.read()
	for _, m := range metricTable {
		kind := prometheus.GaugeValue
		if m.counter {
			kind = prometheus.CounterValue
		}
		for _, v := range m.values(r) {
			var labels []string
			if m.label != "" {
				labels = []string{v.label}
			}
			out <- prometheus.MustNewConstMetric(m.description(), kind, v.value, labels...)
		}
	}
}

// reading is the node at one moment.
type reading struct {
	n          *Node
	health     Health
	pool       mempool.Stats
	store      store.Metrics
	figures    app.Figures
	validators []ledger.Validator
}

func (n *Node) read() *reading {
	return &reading{n: n, health: n.Health(healthReady), pool: n.app.Pool().Stats(), store: n.app.Store().Metrics(), figures: n.app.Figures(), validators: n.validators()}
}

// validators returns the set of the committed state; nil while there is none.
func (n *Node) validators() []ledger.Validator {
	view := n.app.Store().View()
	defer view.Close()
	row, err := view.Get(ledger.ValidatorsRow())
	if err != nil || row == nil {
		return nil
	}
	set, err := ledger.DecodeValidators(row)
	if err != nil {
		return nil
	}
	return set
}

// missed is how many blocks the own validator has missed in its newest window.
func (n *Node) missed() uint32 {
	view := n.app.Store().View()
	defer view.Close()
	row, err := view.Get(ledger.MissedRow(n.own()))
	if err != nil || row == nil {
		return 0
	}
	m, err := ledger.DecodeMissed(row)
	if err != nil {
		return 0
	}
	return m.Count
}

// power is what those validators have together of which something is true.
func (n *Node) power(is func(ledger.Validator) bool) (sum uint64) {
	for _, v := range n.validators() {
		if is(v) {
			sum += v.Power
		}
	}
	return sum
}

func (r *reading) count(is func(ledger.Validator) bool) (count float64) {
	for _, v := range r.validators {
		count += truth(is(v))
	}
	return count
}

func (r *reading) own() ledger.Validator {
	for _, v := range r.validators {
		if v.Address() == r.n.own() {
			return v
		}
	}
	return ledger.Validator{}
}

// recentlySigned is how many of the newest blocks a validator may be missing from before it counts as away. A block is made
// as soon as two thirds have signed, so a healthy but slower validator is missing from some of them.
const recentlySigned = 3

// mayFail is how many of those that sign can go, the strongest first, with more than two thirds of the power left.
func (r *reading) mayFail() int {
	var signing []uint64
	var left, total uint64
	for _, v := range r.validators {
		total += v.Power
		if v.Active() && r.n.app.LastSigned(v.Address())+recentlySigned >= r.health.Height {
			signing = append(signing, v.Power)
			left += v.Power
		}
	}
	if r.health.LastRiseMS > time.Duration(r.n.config.RPC.ReadyLag).Milliseconds() {
		return -1
	}
	slices.Sort(signing)
	may := -1
	for ; left*3 > total*2; may++ {
		last := len(signing) - 1
		left -= signing[last]
		signing = signing[:last]
	}
	return may
}

// MetricsTable is the table of docs/METRICS.md.
func MetricsTable() string {
	var b strings.Builder
	b.WriteString("| Name | Type | Label | Meaning |\n|---|---|---|---|\n")
	for _, m := range metricTable {
		kind, label := "gauge", ""
		if m.counter {
			kind = "counter"
		}
		if m.label != "" {
			label = "`" + m.label + "`"
		}
		b.WriteString("| `" + m.name + "` | " + kind + " | " + label + " | " + m.help + " |\n")
	}
	return b.String()
}
