package testnet

// Metrics are the metrics that the dashboards and alerts of a project use. A test compares them with those, and with what a
// node serves; docs/METRICS.md says what they mean.
var Metrics = []string{
	"cometbft_consensus_block_interval_seconds",
	"cometbft_consensus_block_size_bytes",
	"cometbft_consensus_byzantine_validators",
	"cometbft_consensus_rounds",
	"cometbft_consensus_total_txs",
	"cometbft_state_block_processing_time",
	"pacioli_block_age_seconds",
	"pacioli_block_commit_seconds",
	"pacioli_catching_up",
	"pacioli_clock_offset_seconds",
	"pacioli_data_bytes",
	"pacioli_disk_free_bytes",
	"pacioli_height",
	"pacioli_mempool_panics_total",
	"pacioli_mempool_txs",
	"pacioli_peers",
	"pacioli_ready",
	"pacioli_store_slow_disk_total",
	"pacioli_validator_missed_blocks",
	"pacioli_validators",
	"pacioli_validators_may_fail",
	"process_cpu_seconds_total",
	"process_max_fds",
	"process_open_fds",
	"process_resident_memory_bytes",
}
