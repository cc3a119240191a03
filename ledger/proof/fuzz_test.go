package proof_test

import (
	"bytes"
	"testing"

	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

// FuzzState looks for a panic, for bytes that decode and do not encode back, and for a second proof that verifies.
func FuzzState(f *testing.F) {
	s := filledState(f, "fuzz", 1, 200)
	key := s.keys[20]
	value := s.values[string(key)]
	absent := append(bytes.Clone(key), 1)
	present, absence := s.prove(f, key).Encode(), s.prove(f, absent).Encode()
	f.Add(present)
	f.Add(absence)
	f.Add(s.prove(f, s.keys[21]).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := proof.DecodeState(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Encode(), b) {
			t.Fatalf("%x encodes back to %x", b, p.Encode())
		}
		if proof.Value(s.appHash, key, value, p) == nil && !bytes.Equal(b, present) {
			t.Fatalf("a second proof of the value: %x", b)
		}
		if proof.Absence(s.appHash, absent, p) == nil && !bytes.Equal(b, absence) {
			t.Fatalf("a second proof of the absence: %x", b)
		}
		if proof.Value(s.appHash, key, append(bytes.Clone(value), 1), p) == nil || proof.Absence(s.appHash, key, p) == nil {
			t.Fatalf("a proof of a lie: %x", b)
		}
	})
}

// FuzzInclusion is the same for receipts.
func FuzzInclusion(f *testing.F) {
	txs, results := block(11)
	dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
	var true11 [][]byte
	for i := range txs {
		p, err := proof.MakeInclusion(txs, results, i)
		if err != nil {
			f.Fatal(err)
		}
		true11 = append(true11, p.Encode())
		f.Add(p.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := proof.DecodeInclusion(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Encode(), b) {
			t.Fatalf("%x encodes back to %x", b, p.Encode())
		}
		if proof.Receipt(dataHash, resultsHash, p) == nil && !bytes.Equal(b, true11[p.Index]) {
			t.Fatalf("a second proof of transaction %d: %x", p.Index, b)
		}
	})
}
