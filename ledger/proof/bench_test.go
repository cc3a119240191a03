package proof_test

import (
	"fmt"
	"testing"

	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

func BenchmarkState(b *testing.B) {
	s := filledState(b, "bench", 1, 20_000)
	key := s.keys[len(s.keys)/2]
	absent := append(append([]byte(nil), key...), 1)
	value, p, q := s.values[string(key)], s.prove(b, key), s.prove(b, absent)
	b.Run("value", func(b *testing.B) {
		for b.Loop() {
			if err := proof.Value(s.appHash, key, value, p); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(p.Encode())), "proof-bytes")
	})
	b.Run("absence", func(b *testing.B) {
		for b.Loop() {
			if err := proof.Absence(s.appHash, absent, q); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(q.Encode())), "proof-bytes")
	})
}

func BenchmarkReceipt(b *testing.B) {
	for _, n := range []int{1, 100, 1_000, 10_000} {
		txs, results := block(n)
		dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
		p, err := proof.MakeInclusion(txs, results, n/3)
		if err != nil {
			b.Fatal(err)
		}
		encoded := p.Encode()
		b.Run(fmt.Sprintf("make/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := proof.MakeInclusion(txs, results, n/3); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("check/%d", n), func(b *testing.B) {
			for b.Loop() {
				p, err := proof.DecodeInclusion(encoded)
				if err != nil {
					b.Fatal(err)
				}
				if err := proof.Receipt(dataHash, resultsHash, p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(encoded)), "proof-bytes")
		})
	}
}
