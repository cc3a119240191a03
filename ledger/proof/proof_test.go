package proof_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/merkle"
	"github.com/cometbft/cometbft/types"
	ics23 "github.com/cosmos/ics23/go"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

func sha256Sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// refused fails the test unless err is a refusal of this package.
func refused(t testing.TB, err error, what string, args ...any) {
	t.Helper()
	if err == nil {
		t.Fatalf("verified: "+what, args...)
	}
	if !errors.Is(err, proof.ErrInvalid) {
		t.Fatalf("%s: error %v does not wrap ErrInvalid", fmt.Sprintf(what, args...), err)
	}
}

func TestAppHashIsCometsMerkle(t *testing.T) {
	s := filledState(t, "chain", 1, 300)
	if got, want := s.appHash, cometAppHash(t, s.roots); !bytes.Equal(got, want) {
		t.Fatalf("app hash %x, cometbft says %x", got, want)
	}
	if _, err := proof.AppHash(s.roots[1:]); err == nil {
		t.Fatal("app hash over 18 roots")
	}
	if _, err := proof.AppHash(append(slices.Clone(s.roots[1:]), []byte("short"))); err == nil {
		t.Fatal("app hash over a short root")
	}
	if _, err := proof.MakeSimple(s.roots, "t0"); err == nil {
		t.Fatal("proof of a tree that does not exist")
	}
}

func TestEveryKeyProves(t *testing.T) {
	s := filledState(t, "chain", 2, 600)
	r := rand.New(rand.NewSource(3))
	for _, key := range s.keys {
		value := s.values[string(key)]
		p := s.prove(t, key)
		if err := proof.Value(s.appHash, key, value, p); err != nil {
			t.Fatalf("key %x: %v", key, err)
		}
		again, err := proof.DecodeState(p.Encode())
		if err != nil || !bytes.Equal(again.IAVL, p.IAVL) || !bytes.Equal(again.Simple, p.Simple) {
			t.Fatalf("key %x: decoded to %v %v", key, again, err)
		}
		refused(t, proof.Absence(s.appHash, key, p), "a presence as an absence")
		refused(t, proof.Value(s.appHash, key, append(slices.Clone(value), 0), p), "a longer value")
		refused(t, proof.Value(s.appHash, key, value[:len(value)-1], p), "a shorter value")
		refused(t, proof.Value(s.appHash, key, nil, p), "no value")
		other := s.keys[r.Intn(len(s.keys))]
		if !bytes.Equal(other, key) {
			refused(t, proof.Value(s.appHash, other, s.values[string(other)], p), "another key's proof")
			refused(t, proof.Value(s.appHash, other, value, p), "another key's proof and value")
		}
	}
}

func TestEveryGapProves(t *testing.T) {
	s := filledState(t, "chain", 4, 400)
	// Just behind and just before each key, and at the ends of every kind.
	var absent [][]byte
	for _, key := range s.keys {
		before := slices.Clone(key)
		before[len(before)-1]--
		absent = append(absent, append(slices.Clone(key), 0), before, key[:len(key)-1])
	}
	for kind := 1; kind <= 0x6f; kind++ {
		absent = append(absent, []byte{byte(kind)}, append([]byte{byte(kind)}, bytes.Repeat([]byte{0xff}, 40)...))
	}
	proven := 0
	for _, key := range absent {
		if _, present := s.values[string(key)]; present {
			continue
		}
		p := s.prove(t, key)
		if err := proof.Absence(s.appHash, key, p); err != nil {
			t.Fatalf("key %x: %v", key, err)
		}
		refused(t, proof.Value(s.appHash, key, []byte{1}, p), "an absence as a presence")
		proven++
	}
	if proven < 1000 {
		t.Fatalf("only %d gaps", proven)
	}
}

// TestPresentKeyNeverAbsent gives the absence of a present key every proof that a liar can build from real neighbours.
func TestPresentKeyNeverAbsent(t *testing.T) {
	s := filledState(t, "chain", 5, 400)
	checked := 0
	for i, key := range s.keys {
		name, _ := ledger.TreeOf(key)
		var left, right *ics23.ExistenceProof
		for j := i - 1; j >= 0 && left == nil; j-- {
			if n, _ := ledger.TreeOf(s.keys[j]); n == name {
				left = decode(t, s.prove(t, s.keys[j]).IAVL).GetExist()
			}
		}
		for j := i + 1; j < len(s.keys) && right == nil; j++ {
			if n, _ := ledger.TreeOf(s.keys[j]); n == name {
				right = decode(t, s.prove(t, s.keys[j]).IAVL).GetExist()
			}
		}
		self := decode(t, s.prove(t, key).IAVL).GetExist()
		simple := s.prove(t, key).Simple
		for _, n := range []*ics23.NonExistenceProof{
			{Key: key, Left: left, Right: right}, {Key: key, Left: left}, {Key: key, Right: right}, {Key: key},
			{Key: key, Left: self, Right: right}, {Key: key, Left: left, Right: self}, {Key: key, Left: self, Right: self},
			{Key: key, Left: right, Right: left}, {Key: key, Left: &ics23.ExistenceProof{}, Right: right},
		} {
			b := encode(t, &ics23.CommitmentProof{Proof: &ics23.CommitmentProof_Nonexist{Nonexist: n}})
			refused(t, proof.Absence(s.appHash, key, proof.State{IAVL: b, Simple: simple}), "absence of %x from %v", key, n)
			checked++
		}
		// In another tree the key really is absent: the proof is true there, and refused here.
		for _, other := range []string{"params", "s0", "sf", "validators"} {
			if other != name {
				refused(t, proof.Absence(s.appHash, key, s.proveIn(t, other, key)), "absence of %x in tree %s", key, other)
				checked++
			}
		}
	}
	t.Logf("%d lies refused", checked)
}

func TestOtherRoots(t *testing.T) {
	s := filledState(t, "chain", 6, 300)
	other := filledState(t, "other chain", 6, 300)
	if bytes.Equal(s.appHash, other.appHash) {
		t.Fatal("two chains have one app hash")
	}
	key := s.keys[100]
	value := s.values[string(key)]
	old, oldHash := s.prove(t, key), s.appHash
	absent := append(slices.Clone(key), 7)
	oldAbsent := s.prove(t, absent)

	// The next height writes another key only.
	s.set(t, []byte{0x41, 1, 2, 3}, []byte{1, 2})
	s.commit(t)
	fresh := s.prove(t, key)
	for i, c := range []struct {
		hash []byte
		p    proof.State
		ok   bool
	}{
		{oldHash, old, true}, {s.appHash, fresh, true},
		{s.appHash, old, false}, {oldHash, fresh, false},
		{other.appHash, old, false}, {s.appHash, other.prove(t, key), false},
		{nil, old, false}, {oldHash[:31], old, false}, {append(slices.Clone(oldHash), 0), old, false},
		{oldHash, proof.State{IAVL: fresh.IAVL, Simple: old.Simple}, true}, // the key's own tree did not change
		{oldHash, proof.State{IAVL: old.IAVL, Simple: fresh.Simple}, false},
		{oldHash, proof.State{}, false}, {oldHash, proof.State{IAVL: old.IAVL}, false}, {oldHash, proof.State{Simple: old.Simple}, false},
		{oldHash, proof.State{IAVL: old.Simple, Simple: old.IAVL}, false}, {oldHash, proof.State{IAVL: old.Simple, Simple: old.Simple}, false},
	} {
		err := proof.Value(c.hash, key, value, c.p)
		if c.ok && err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		if !c.ok {
			refused(t, err, "case %d", i)
		}
	}
	if err := proof.Absence(oldHash, absent, oldAbsent); err != nil {
		t.Fatal(err)
	}
	refused(t, proof.Absence(s.appHash, absent, oldAbsent), "an old absence at the next height")
	refused(t, proof.Absence(other.appHash, absent, oldAbsent), "an absence of another chain")
	refused(t, proof.Absence(oldHash, append(slices.Clone(absent), 0), oldAbsent), "an absence of another key in the same gap")
	refused(t, proof.Value(oldHash, []byte{0}, []byte("\x01chain"), s.proveIn(t, "s0", []byte{0})), "the sentinel")
	refused(t, proof.Absence(oldHash, nil, oldAbsent), "the empty key")
	refused(t, proof.Absence(oldHash, []byte{0x70}, oldAbsent), "a key of no tree")
}

// TestEveryBitOfState flips every bit of every input of both verifiers, and drops, doubles and inserts every byte.
func TestEveryBitOfState(t *testing.T) {
	s := filledState(t, "chain", 7, 500)
	n := 0
	mutate := func(b []byte, check func(changed []byte, what string)) {
		for i := range b {
			for bit := range 8 {
				c := slices.Clone(b)
				c[i] ^= 1 << bit
				check(c, fmt.Sprintf("bit %d of byte %d flipped", bit, i))
				n++
			}
			check(slices.Delete(slices.Clone(b), i, i+1), fmt.Sprintf("byte %d dropped", i))
			check(slices.Insert(slices.Clone(b), i, b[i]^0x55), fmt.Sprintf("byte %d inserted", i))
			check(b[:i], fmt.Sprintf("cut at %d", i))
		}
		check(append(slices.Clone(b), 0), "a byte behind the end")
	}
	for _, i := range []int{0, len(s.keys) / 3, len(s.keys) - 1} {
		key := s.keys[i]
		value, p := s.values[string(key)], s.prove(t, s.keys[i])
		absent := append(slices.Clone(key), 1)
		q := s.prove(t, absent)
		if err := errors.Join(proof.Value(s.appHash, key, value, p), proof.Absence(s.appHash, absent, q)); err != nil {
			t.Fatal(err)
		}
		mutate(p.Encode(), func(b []byte, what string) {
			if p, err := proof.DecodeState(b); err == nil {
				refused(t, proof.Value(s.appHash, key, value, p), "%s of the proof", what)
			}
		})
		mutate(q.Encode(), func(b []byte, what string) {
			if q, err := proof.DecodeState(b); err == nil {
				refused(t, proof.Absence(s.appHash, absent, q), "%s of the proof of absence", what)
			}
		})
		mutate(value, func(b []byte, what string) {
			if !bytes.Equal(b, value) {
				refused(t, proof.Value(s.appHash, key, b, p), "%s of the value", what)
			}
		})
		mutate(key, func(b []byte, what string) {
			if !bytes.Equal(b, key) {
				refused(t, proof.Value(s.appHash, b, value, p), "%s of the key", what)
			}
		})
		mutate(absent, func(b []byte, what string) {
			if !bytes.Equal(b, absent) {
				refused(t, proof.Absence(s.appHash, b, q), "%s of the absent key", what)
			}
		})
		mutate(s.appHash, func(b []byte, what string) {
			if !bytes.Equal(b, s.appHash) {
				refused(t, proof.Value(b, key, value, p), "%s of the app hash", what)
				refused(t, proof.Absence(b, absent, q), "%s of the app hash", what)
			}
		})
	}
	t.Logf("%d bits flipped", n)
}

func TestHostileState(t *testing.T) {
	s := filledState(t, "chain", 8, 200)
	key := s.keys[50]
	value, p := s.values[string(key)], s.prove(t, key)
	exist := decode(t, p.IAVL)

	batch := &ics23.CommitmentProof{Proof: &ics23.CommitmentProof_Batch{Batch: &ics23.BatchProof{Entries: []*ics23.BatchEntry{
		{Proof: &ics23.BatchEntry_Exist{Exist: exist.GetExist()}}}}}}
	if !ics23.VerifyMembership(ics23.IavlSpec, rootOf(t, s, key), batch, key, value) {
		t.Fatal("the batch would not even be true")
	}
	compressed := ics23.Compress(batch)
	// The library panics on this one: a path index beyond the table.
	wild := &ics23.CommitmentProof{Proof: &ics23.CommitmentProof_Compressed{Compressed: &ics23.CompressedBatchProof{
		Entries: []*ics23.CompressedBatchEntry{{Proof: &ics23.CompressedBatchEntry_Exist{Exist: &ics23.CompressedExistenceProof{
			Key: key, Value: value, Leaf: exist.GetExist().Leaf, Path: []int32{7}}}}}}}}
	deep := decode(t, p.IAVL)
	for len(deep.GetExist().Path) <= 64 {
		deep.GetExist().Path = append(deep.GetExist().Path, exist.GetExist().Path[0])
	}
	noLeaf := decode(t, p.IAVL)
	noLeaf.GetExist().Leaf = nil
	for name, b := range map[string][]byte{
		"batch":            encode(t, batch),
		"compressed":       encode(t, compressed),
		"wild compressed":  encode(t, wild),
		"empty message":    {},
		"empty exist":      {0x0a, 0},
		"empty nonexist":   {0x12, 0},
		"too deep":         encode(t, deep),
		"no leaf":          encode(t, noLeaf),
		"unknown field":    append(slices.Clone(p.IAVL), 0x7a, 1, 0),
		"exist twice":      append(slices.Clone(p.IAVL), p.IAVL...),
		"group":            append(slices.Clone(p.IAVL), 0x7b, 0x7c),
		"long length":      longLength(p.IAVL),
		"too large":        make([]byte, proof.MaxState+1),
		"SMT leaf":         smt(t, p.IAVL),
		"explicit default": append(slices.Clone(p.IAVL), 0x1a, 0),
	} {
		for field, q := range map[string]proof.State{
			"iavl": {IAVL: b, Simple: p.Simple}, "simple": {IAVL: p.IAVL, Simple: b}, "both": {IAVL: b, Simple: b},
		} {
			refused(t, proof.Value(s.appHash, key, value, q), "%s in %s", name, field)
			refused(t, proof.Absence(s.appHash, key, q), "%s in %s", name, field)
		}
	}
	// Of these the hashes alone would refuse a lie; the limit has to refuse them before any hashing.
	err := proof.Value(s.appHash, key, value, proof.State{IAVL: encode(t, deep), Simple: p.Simple})
	if err == nil || !strings.Contains(err.Error(), "levels, at most 64") {
		t.Fatalf("65 levels: %v", err)
	}
	if _, err := proof.DecodeState(make([]byte, proof.MaxState+1)); !errors.Is(err, proof.ErrInvalid) {
		t.Fatalf("oversized proof: %v", err)
	}
	if _, err := proof.DecodeState(nil); !errors.Is(err, proof.ErrInvalid) {
		t.Fatalf("empty proof: %v", err)
	}
	// One leaf alone in both neighbours: the library's search for a common parent runs off the paths.
	lone := newState(t, "lone")
	lone.commit(t)
	for _, k := range [][]byte{{0x41}, {0x01, 2}} {
		if err := proof.Absence(lone.appHash, k, lone.prove(t, k)); err != nil {
			t.Fatalf("absence in a tree with only the sentinel: %v", err)
		}
		left := decode(t, lone.prove(t, k).IAVL).GetNonexist().Left
		b := encode(t, &ics23.CommitmentProof{Proof: &ics23.CommitmentProof_Nonexist{
			Nonexist: &ics23.NonExistenceProof{Key: k, Left: left, Right: left}}})
		refused(t, proof.Absence(lone.appHash, k, proof.State{IAVL: b, Simple: lone.prove(t, k).Simple}), "one leaf twice")
	}
}

func rootOf(t testing.TB, s *ledgerState, key []byte) []byte {
	name, _ := ledger.TreeOf(key)
	return s.roots[slices.Index(ledger.TreeNames(), name)]
}

// longLength writes the outer length of a proof with one byte more than it needs.
func longLength(b []byte) []byte {
	n, w := binary.Uvarint(b[1:])
	long := append([]byte{b[0]}, byte(n)|0x80, byte(n>>7)|0x80, 0x80, 0)
	return append(long, b[1+w:]...)
}

func smt(t testing.TB, b []byte) []byte {
	p := decode(t, b)
	p.GetExist().Leaf = ics23.SmtSpec.LeafSpec
	return encode(t, p)
}

func TestReceiptOfEveryPosition(t *testing.T) {
	for n := 1; n <= 70; n++ {
		txs, results := block(n)
		var comet types.Txs
		var cometResults []*abci.ExecTxResult
		for i := range txs {
			comet = append(comet, txs[i])
			cometResults = append(cometResults, &abci.ExecTxResult{Code: results[i].Code, Data: results[i].Data, Log: "not hashed"})
		}
		encoded := types.NewResults(cometResults)
		dataHash, resultsHash := []byte(comet.Hash()), []byte(encoded.Hash())
		if !bytes.Equal(dataHash, proof.DataHash(txs)) || !bytes.Equal(resultsHash, proof.ResultsHash(results)) {
			t.Fatalf("%d transactions: roots differ from cometbft's", n)
		}
		for i := range n {
			p, err := proof.MakeInclusion(txs, results, i)
			if err != nil {
				t.Fatal(err)
			}
			if err := proof.Receipt(dataHash, resultsHash, p); err != nil {
				t.Fatalf("transaction %d of %d: %v", i, n, err)
			}
			if theirs := comet.Proof(i).Proof; len(theirs.Aunts) != len(p.TxAunts) || !slices.EqualFunc(theirs.Aunts, p.TxAunts, bytes.Equal) {
				t.Fatalf("transaction %d of %d: aunts differ from cometbft's", i, n)
			}
			if theirs := encoded.ProveResult(i); !slices.EqualFunc(theirs.Aunts, p.ResultAunts, bytes.Equal) {
				t.Fatalf("result %d of %d: aunts differ from cometbft's", i, n)
			}
			again, err := proof.DecodeInclusion(p.Encode())
			if err != nil || !bytes.Equal(again.Encode(), p.Encode()) {
				t.Fatalf("transaction %d of %d: decoded to %v, %v", i, n, again, err)
			}
			if err := proof.Receipt(dataHash, resultsHash, again); err != nil {
				t.Fatal(err)
			}
			r, err := proof.DecodeResult(again.Result)
			if err != nil || r.Code != results[i].Code || !bytes.Equal(r.Data, results[i].Data) {
				t.Fatalf("result %d of %d: %v, %v", i, n, r, err)
			}
			refused(t, proof.Receipt(resultsHash, dataHash, p), "the hashes swapped")
			refused(t, proof.Receipt(resultsHash, resultsHash, p), "another block's data hash")
		}
	}
}

// TestNumbersAreProven claims every wrong index and total, with every shape that a liar can take from a true proof or
// build for the claim. Without Shape many of them verify: the test counts them, to be sure that it asks something.
func TestNumbersAreProven(t *testing.T) {
	fitting := 0
	for n := 1; n <= 33; n++ {
		txs, results := block(n)
		hashes := make([][]byte, n)
		for i := range txs {
			hashes[i] = sha256Sum(txs[i])
		}
		dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
		for i := range n {
			p, _ := proof.MakeInclusion(txs, results, i)
			for total := 1; total <= 40; total++ {
				for index := range total {
					if total == n && index == i {
						continue
					}
					comet := merkle.Proof{Total: int64(total), Index: int64(index), LeafHash: p2leaf(hashes[i]), Aunts: p.TxAunts}
					if comet.Verify(dataHash, hashes[i]) != nil {
						continue // the paths alone refuse it
					}
					fitting++
					q := p
					q.Index, q.Total = uint64(index), uint64(total)
					refused(t, proof.Receipt(dataHash, resultsHash, q), "%d of %d as %d of %d", i, n, index, total)
					// The shape of a block that really has this total, made of the same transactions as far as they go.
					fake := append(slices.Clone(txs), make([][]byte, 40)...)[:total]
					fake[index] = txs[i]
					f, err := proof.MakeInclusion(fake, make([]proof.Result, total), index)
					if err != nil {
						t.Fatal(err)
					}
					q.Shape = f.Shape
					refused(t, proof.Receipt(dataHash, resultsHash, q), "%d of %d as %d of %d with its shape", i, n, index, total)
					// Openings of the right length from other places of the true tree.
					for j := range n {
						o, _ := proof.MakeInclusion(txs, results, j)
						q.Shape = append(append([][]byte{hashes[j]}, o.TxAunts...), o.Shape...)
						if len(q.Shape) > len(f.Shape) {
							q.Shape = q.Shape[:len(f.Shape)]
						}
						if len(q.Shape) <= 211 {
							refused(t, proof.Receipt(dataHash, resultsHash, q), "%d of %d as %d of %d, patched", i, n, index, total)
						}
					}
				}
			}
		}
	}
	if fitting < 1000 {
		t.Fatalf("only %d wrong numbers fitted the paths", fitting)
	}
	t.Logf("%d wrong numbers fit the audit path and are refused for their shape", fitting)
}

func p2leaf(item []byte) []byte { return sha256Sum(append([]byte{0}, item...)) }

// TestEveryBitOfReceipt flips every bit of proofs at several places, and of the roots.
func TestEveryBitOfReceipt(t *testing.T) {
	bits := 0
	for _, at := range [][2]int{{1, 0}, {2, 1}, {5, 0}, {5, 4}, {8, 3}, {21, 7}, {33, 32}} {
		txs, results := block(at[0])
		dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
		p, err := proof.MakeInclusion(txs, results, at[1])
		if err != nil {
			t.Fatal(err)
		}
		b := p.Encode()
		for i := range b {
			for bit := range 8 {
				c := slices.Clone(b)
				c[i] ^= 1 << bit
				bits++
				if q, err := proof.DecodeInclusion(c); err == nil {
					refused(t, proof.Receipt(dataHash, resultsHash, q), "bit %d of byte %d of %d/%d", bit, i, at[1], at[0])
				}
			}
			for _, c := range [][]byte{b[:i], slices.Delete(slices.Clone(b), i, i+1), slices.Insert(slices.Clone(b), i, b[i]^0x55)} {
				if q, err := proof.DecodeInclusion(c); err == nil {
					refused(t, proof.Receipt(dataHash, resultsHash, q), "byte %d cut, dropped or inserted", i)
				}
			}
		}
		for i := range 256 {
			d, r := slices.Clone(dataHash), slices.Clone(resultsHash)
			d[i/8] ^= 1 << (i % 8)
			refused(t, proof.Receipt(d, resultsHash, p), "another data hash")
			r[i/8] ^= 1 << (i % 8)
			refused(t, proof.Receipt(dataHash, r, p), "another results hash")
		}
		refused(t, proof.Receipt(dataHash[:31], resultsHash, p), "a short data hash")
		refused(t, proof.Receipt(dataHash, nil, p), "no results hash")
	}
	t.Logf("%d bits flipped", bits)
}

// TestResultOfAnother pairs each transaction with each other one's result.
func TestResultOfAnother(t *testing.T) {
	txs, results := block(13)
	dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
	for i := range txs {
		for j := range txs {
			if i == j {
				continue
			}
			p, _ := proof.MakeInclusion(txs, results, i)
			o, _ := proof.MakeInclusion(txs, results, j)
			p.Result, p.ResultAunts = o.Result, o.ResultAunts
			for _, pair := range [][2]uint64{{p.Index, p.Total}, {o.Index, o.Total}} {
				p.Index, p.Total = pair[0], pair[1]
				refused(t, proof.Receipt(dataHash, resultsHash, p), "transaction %d with result %d", i, j)
			}
		}
	}
}

func TestHostileInclusion(t *testing.T) {
	txs, results := block(5)
	dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
	for name, change := range map[string]func(*proof.Inclusion){
		"no tx":         func(p *proof.Inclusion) { p.Tx = nil },
		"large tx":      func(p *proof.Inclusion) { p.Tx = make([]byte, proof.MaxTx+1) },
		"large result":  func(p *proof.Inclusion) { p.Result = make([]byte, proof.MaxResult+1) },
		"total 0":       func(p *proof.Inclusion) { p.Total, p.Index = 0, 0 },
		"huge total":    func(p *proof.Inclusion) { p.Total = 1 << 63 },
		"all ones":      func(p *proof.Inclusion) { p.Total, p.Index = 1<<64-1, 1<<64-2 },
		"index = total": func(p *proof.Inclusion) { p.Index = p.Total },
		"no aunts":      func(p *proof.Inclusion) { p.TxAunts = nil },
		"aunt short":    func(p *proof.Inclusion) { p.TxAunts[0] = p.TxAunts[0][:31] },
		"nil aunt":      func(p *proof.Inclusion) { p.ResultAunts[0] = nil },
		"long path":     func(p *proof.Inclusion) { p.TxAunts = make([][]byte, 1000) },
		"no shape":      func(p *proof.Inclusion) { p.Shape = nil },
		"long shape":    func(p *proof.Inclusion) { p.Shape = append(p.Shape, p.Shape[0]) },
		"endless shape": func(p *proof.Inclusion) { p.Shape = make([][]byte, 1000) },
		"empty":         func(p *proof.Inclusion) { *p = proof.Inclusion{} },
	} {
		p, err := proof.MakeInclusion(txs, results, 2)
		if err != nil {
			t.Fatal(err)
		}
		change(&p)
		refused(t, proof.Receipt(dataHash, resultsHash, p), "%s", name)
		if q, err := proof.DecodeInclusion(p.Encode()); err == nil {
			refused(t, proof.Receipt(dataHash, resultsHash, q), "%s, decoded", name)
		}
	}
	// A result with gas is none of ours, even when the header commits to it.
	gas, _ := (&abci.ExecTxResult{Code: 1, GasUsed: 5}).Marshal()
	p := proof.Inclusion{Tx: []byte("tx"), Result: gas, Total: 1}
	refused(t, proof.Receipt(proof.DataHash([][]byte{[]byte("tx")}), p2leaf(gas), p), "a result with gas")
	for _, index := range []int{-1, 5, 6} {
		if _, err := proof.MakeInclusion(txs, results, index); err == nil {
			t.Fatalf("made a proof of transaction %d of 5", index)
		}
	}
	if _, err := proof.MakeInclusion(txs, results[1:], 0); err == nil || !strings.Contains(err.Error(), "4 results") {
		t.Fatalf("4 results for 5 transactions: %v", err)
	}
}

// TestLargeBlock keeps the arithmetic of maxShape and maxAunts honest.
func TestLargeBlock(t *testing.T) {
	const n = 1<<14 - 1 + 1 // every bit of n-1 is set: the longest shape of its size
	txs, results := block(n)
	for _, i := range []int{0, n / 2, n - 1} {
		p, err := proof.MakeInclusion(txs, results, i)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.TxAunts) != 14 || len(p.Shape) > 14+14*13/2+1 {
			t.Fatalf("%d aunts, %d hashes of shape", len(p.TxAunts), len(p.Shape))
		}
		if err := proof.Receipt(proof.DataHash(txs), proof.ResultsHash(results), p); err != nil {
			t.Fatal(err)
		}
	}
}
