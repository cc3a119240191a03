package store

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/pacioli-ledger/pacioli/ledger/store/durable"
)

// pebbleOptions spells out every option that matters: Pebble's defaults are for small databases (8 MB cache, 4 MB
// memtable, no bloom filters, the oldest disk format).
func (s *Store) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          durable.Markers(s.o.FS),
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   s.o.CacheBytes,
		MemTableSize:                uint64(s.o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       64,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                4096,
		BytesPerSync:                1 << 20,
		WALBytesPerSync:             1 << 20,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
		Logger:                      pebbleLogger{s},
		EventListener: &pebble.EventListener{
			// Pebble tries a failed flush or compaction again for ever, and writes stall meanwhile. A validator that
			// hangs is worse than one that stops and says why.
			BackgroundError: func(err error) { s.fail(fmt.Errorf("database background work: %w", err)) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.fail(fmt.Errorf("database file is corrupt: %s", info))
			},
			DiskSlow: func(info pebble.DiskSlowInfo) {
				s.metrics.slowDisk.Add(1)
				s.log.Warn("disk is slow; look at the machine's storage", "op", info.OpType.String(), "took", info.Duration)
			},
			WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
				s.metrics.stalls.Add(1)
				s.log.Warn("database holds writes back until compactions catch up", "reason", info.Reason)
			},
		},
	}
	if o.CacheSize == 0 {
		o.CacheSize = defaultCacheBytes
	}
	if o.MemTableSize == 0 {
		o.MemTableSize = defaultMemTableBytes
	}
	// Most reads are of one key that is either in the newest file or deep down: a filter saves the levels between.
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].FilterType = pebble.TableFilter
	}
	return o
}

// pebbleLogger keeps Pebble quiet: its information goes to metrics, its errors to the log, and what it thinks should end
// the process ends the store.
//
// Pebble relies on Fatalf not returning. Were it to return after an edit of the manifest that is on the disk and was
// reported as failed, Pebble would write the same table a second time, and no later start could compact the two. So the
// calling goroutine stays here, with whatever locks it holds, until OnFatal has ended the process.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.log.Error("database: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf("database: "+format, args...))
	select {}
}
