package mempool

import (
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// Config bounds the pool. What a stranger can make the process hold is
//
//	waiting: 4*MaxBytes + 3 KB*MaxTxs   a decoded transaction takes up to 3 bytes beside each byte received (a transfer of
//	                                    60 bytes is a 160-byte operation), plus its entry, its claims, its places in the
//	                                    lists and maps
//	queue:   4*QueueBytes + 200 B*QueueLength, what the workers have in hand included
//	recent:  200 B for each signer of the last 8 blocks, at 22,000 smallest transactions in a block of 4 MB: 35 MB; and
//	         110 B for each account whose funds they have changed, two for each transaction: 39 MB
//
// which with the defaults is 128 + 120 + 64 + 3 + 74 = 389 MB at the very worst, and 76 MB with the pool full of 200-byte
// transfers, at 1,900 bytes each (TestMemory measures it).
type Config struct {
	MaxTxs            int           // transactions in the pool, ready and parked
	MaxBytes          int64         // their bytes as received
	MaxTxsPerSender   int           // share of one account; a transaction counts for each of its signers
	MaxBytesPerSender int64         // likewise
	MaxGap            uint64        // how far a sequence may be ahead of the account's next one
	MaxAge            time.Duration // after which a transaction that no block has taken is forgotten
	Workers           int           // goroutines that admit
	QueueLength       int           // transactions that wait for a worker
	QueueBytes        int64         // their bytes, and of those that the workers have in hand
	BatchSize         int           // most transactions that a worker takes at once
	OfferAgainAfter   time.Duration // after which a waiting transaction is offered to the peers again
	MaxTxBytes        int           // of one transaction
}

// DefaultConfig returns the limits for a validator with 2 cores and 4 GB.
func DefaultConfig() Config {
	return Config{
		// Eight seconds of 5,000 transfers a second: whoever waits longer than that had better be told to come back.
		MaxTxs: 40_000,
		// 40,000 transfers of 200 bytes are 8 MB; this leaves room for four times that, or for 6,000 transactions with
		// hybrid post-quantum signatures of 5.5 kB. It is eight blocks of 4 MB.
		MaxBytes: 32 << 20,
		// An exchange that pays from one account gets 5,000 transactions a second through at 100 ms a block, and it takes
		// 78 accounts to fill the pool.
		MaxTxsPerSender: 512,
		// A sixteenth of the pool, and eight transactions of the largest size.
		MaxBytesPerSender: 2 << 20,
		// The share: a sender that uses all of it in order is never told that it is too far ahead.
		MaxGap: 512,
		// A nonce lives ten minutes by default; a sequence without valid_until should not haunt its sender for longer.
		MaxAge: 10 * time.Minute,
		// Verification is nearly all the work and the only work that cores share; consensus needs the rest of them.
		Workers: 2,
		// 0.2 s of work for two workers at 25 us a signature: more would only be latency.
		QueueLength: 16_384,
		QueueBytes:  16 << 20,
		// Four full batches of 64 signatures: 6 ms. More does not make a signature cheaper (crypto: BenchmarkVerifyAll).
		BatchSize: 256,
		// Many times the life of a transaction at normal load, so that only the stuck ones are sent twice; a full pool of
		// 8 MB sent to 3 peers every 10 s is 2.4 MB a second.
		OfferAgainAfter: 10 * time.Second,
		MaxTxBytes:      ledger.MaxTxBytes,
	}
}

// Check tells which limit is out of its range, if any.
func (c Config) Check() error {
	for _, l := range []struct {
		name           string
		v, least, most int64
	}{
		{"max_txs", int64(c.MaxTxs), 1, 1 << 24},
		{"max_bytes", c.MaxBytes, 1, 1 << 40},
		{"max_txs_per_sender", int64(c.MaxTxsPerSender), 1, int64(c.MaxTxs)},
		{"max_bytes_per_sender", c.MaxBytesPerSender, 1, c.MaxBytes},
		{"max_gap", int64(min(c.MaxGap, 1<<62)), 0, 1 << 20},
		{"max_age", int64(c.MaxAge), int64(time.Second), int64(24 * time.Hour)},
		{"workers", int64(c.Workers), 1, 1024},
		{"queue_length", int64(c.QueueLength), 1, 1 << 20},
		{"queue_bytes", c.QueueBytes, 1, 1 << 32},
		{"batch_size", int64(c.BatchSize), 1, 1 << 16},
		{"offer_again_after", int64(c.OfferAgainAfter), int64(time.Millisecond), int64(24 * time.Hour)},
		{"max_tx_bytes", int64(c.MaxTxBytes), 1, min(ledger.MaxTxBytes, c.MaxBytesPerSender, c.QueueBytes)},
	} {
		if l.v < l.least || l.v > l.most {
			return fmt.Errorf("mempool.%s is %d, want %d to %d", l.name, l.v, l.least, l.most)
		}
	}
	return nil
}
