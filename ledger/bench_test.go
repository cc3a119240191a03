package ledger

import (
	"fmt"
	"testing"
)

var benchNames = []string{"alice", "carol", "mixed"} // ed25519; ml-dsa-44; one key of every scheme

func BenchmarkDecodeTx(b *testing.B) {
	w := smallWorld(b)
	for _, name := range benchNames {
		body := w.payment(name, "zoe", Units(100), "EUR")
		first := w.seal(body)
		body.Signers[0].Policy = nil // as every later one
		later := w.seal(body)
		for what, raw := range map[string][]byte{"first": first, "later": later} {
			b.Run(fmt.Sprintf("%s/%s", name, what), func(b *testing.B) {
				b.SetBytes(int64(len(raw)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Decode(raw); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	batch := w.payment("alice", "zoe", Units(1), "EUR")
	batch.Signers[0].Policy = nil
	for range 999 {
		batch.Operations = append(batch.Operations, batch.Operations[0])
	}
	raw := w.seal(batch)
	b.Run("1000 transfers", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	w := smallWorld(b)
	body := w.payment("alice", "zoe", Units(100), "EUR")
	body.Signers[0].Policy = nil
	raw := w.seal(body)
	tx, err := Decode(raw)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		Assemble(tx.Body.Encode(), tx.Witnesses, tx.Sponsor)
	}
}

// BenchmarkBlock1000Transfers executes a block of 1,000 payments by 1,000 accounts to 1,000 others: signatures taken for
// good, as a node does that verified them when they came in, and verified here, one by one.
func BenchmarkBlock1000Transfers(b *testing.B) {
	w := newWorld(b)
	w.addAsset("EUR", "bank", 2, "1000000.00")
	name := func(i int) string { return fmt.Sprintf("payer-%d", i) }
	for i := range 1000 {
		w.addBalance(name(i), "100.00", "EUR")
	}
	if err := w.begin(); err != nil {
		b.Fatal(err)
	}
	apply := func(w *world, txs []*Tx) {
		for _, tx := range txs {
			if r, err := w.block.Apply(tx); err != nil || r.Code != OK {
				b.Fatal(r.Code, err)
			}
		}
	}
	make1000 := func() (txs []*Tx) {
		for i := range 1000 {
			tx, err := Decode(w.seal(w.payment(name(i), name((i+500)%1000), Units(1), "EUR")))
			if err != nil {
				b.Fatal(err)
			}
			txs = append(txs, tx)
		}
		return txs
	}
	first := make1000()
	w.next(1001_000)
	apply(w, first)
	w.end()
	txs := make1000()
	for _, v := range []Verifier{credulous{}, Direct{}} {
		b.Run(fmt.Sprintf("%T", v), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				block, err := NewBlock(w.memory, Header{Height: 2, UnixMillis: 1002_000}, v)
				if err != nil {
					b.Fatal(err)
				}
				w.block = block
				apply(w, txs)
				if _, err := block.End(nil, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/tx")
		})
	}
}
