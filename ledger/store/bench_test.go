package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand"
	"testing"
	"time"
)

// benchStore makes a store on the real disk with n accounts of 64 bytes, in big blocks.
func benchStore(b *testing.B, dir string, n int) *Store {
	b.Helper()
	s, err := Open(dir, Options{KeepVersions: 10, TreeCacheNodes: 4 * n})
	if err != nil {
		b.Fatal(err)
	}
	const block = 50_000
	for from := 0; from < n; from += block {
		commitAccounts(b, s, func(yield func(int)) {
			for i := from; i < min(from+block, n); i++ {
				yield(i)
			}
		})
	}
	for range 12 { // so that no measured block prunes one of the big ones
		commitAccounts(b, s, func(yield func(int)) { yield(0) })
	}
	return s
}

func account(i int) []byte {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return append([]byte{0x01}, h[:20]...)
}

// commitAccounts gives new values to accounts in one block, and the bytes of the block's batch.
func commitAccounts(b *testing.B, s *Store, each func(yield func(int))) (stageNanos, commitNanos, bytes int64) {
	b.Helper()
	var w []Write
	each(func(i int) {
		v := make([]byte, 64)
		v[0] = 1
		binary.BigEndian.PutUint64(v[8:], s.Height())
		binary.BigEndian.PutUint64(v[16:], uint64(i))
		w = append(w, Write{Key: account(i), Value: v})
	})
	sortWrites(w)
	if _, err := s.Stage(s.Height()+1, w, nil, nil); err != nil {
		b.Fatal(err)
	}
	if err := s.Commit(); err != nil {
		b.Fatal(err)
	}
	m := s.Metrics()
	return int64(m.LastStage), int64(m.LastCommit), m.LastBatchBytes
}

// BenchmarkCommit stages and commits blocks. sha256x is the block's time over that of SHA-256 of the same batch bytes on
// one core: what is left when nothing but hashing must be done.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%dkaccounts", n/1000), func(b *testing.B) {
			var s *Store
			dir := b.TempDir() // of this level: the sub-benchmarks share the store
			for _, updates := range []int{1000, 10_000} {
				b.Run(fmt.Sprintf("%dkupdates", updates/1000), func(b *testing.B) {
					if s == nil {
						s = benchStore(b, dir, n)
					}
					rng := rand.New(rand.NewSource(1))
					var stage, commit, size int64
					b.ResetTimer()
					for range b.N {
						seen := make(map[int]bool, updates)
						st, co, by := commitAccounts(b, s, func(yield func(int)) {
							for len(seen) < updates {
								if i := rng.Intn(n); !seen[i] {
									seen[i] = true
									yield(i)
								}
							}
						})
						stage, commit, size = stage+st, commit+co, size+by
					}
					b.StopTimer()
					per := func(v int64) float64 { return float64(v) / float64(b.N) }
					buf := make([]byte, size/int64(b.N))
					begin := time.Now()
					for range 10 {
						sha256.Sum256(buf)
					}
					hash := float64(time.Since(begin)) / 10
					b.ReportMetric(per(stage)/1e6, "ms/stage")
					b.ReportMetric(per(commit)/1e6, "ms/commit")
					b.ReportMetric(per(stage+commit)/float64(updates)/1e3, "µs/update")
					b.ReportMetric(per(size)/1e6, "MB/block")
					b.ReportMetric(per(stage+commit)/hash, "sha256x")
				})
			}
			if s != nil {
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProve(b *testing.B) {
	s := benchStore(b, b.TempDir(), 100_000)
	for name, key := range map[string]func(int) []byte{
		"presence": account, "absence": func(i int) []byte { return append(account(i), 1) },
	} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				if _, err := s.Prove(key(i*7919%100_000), s.Height()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkGet(b *testing.B) {
	s := benchStore(b, b.TempDir(), 100_000)
	b.Run("100kaccounts", func(b *testing.B) {
		v := s.View()
		defer v.Close()
		for i := range b.N {
			if got, err := v.Get(account(i * 7919 % 100_000)); err != nil || got == nil {
				b.Fatal(got, err)
			}
		}
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
