package ledger

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
)

var update = flag.Bool("update", false, "rewrite the files below testdata that are made from the code")

// TestFuzzSeeds writes the seeds of the fuzz targets with -update: real transactions of every kind and scheme. They run
// with the ordinary tests, too.
func TestFuzzSeeds(t *testing.T) {
	for i, raw := range seeds(t) {
		path := filepath.Join("testdata", "fuzz", "FuzzDecodeTx", fmt.Sprintf("seed-%02d", i))
		content := fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", raw)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if committed, err := os.ReadFile(path); err != nil || !bytes.Equal(committed, content) {
			t.Errorf("%s is not what the code makes (%v): run with -update", path, err)
		}
	}
}

// FuzzDecodeTx: an error, or the identical bytes back.
func FuzzDecodeTx(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		tx, err := Decode(raw)
		if err != nil {
			return
		}
		if again := Assemble(tx.Body.Encode(), tx.Witnesses, tx.Sponsor); !bytes.Equal(again, raw) {
			t.Fatalf("encodes to %x", again)
		}
		if !txOK(raw) {
			t.Fatal("google's code, or the rules over it, refuse this")
		}
	})
}

// FuzzDecodeRows does the same for every other message. The first byte chooses the kind.
func FuzzDecodeRows(f *testing.F) {
	w := smallWorld(f)
	w.next(1001_000)
	for _, raw := range seeds(f) {
		w.apply(raw)
	}
	w.end()
	for key, value := range w.memory {
		for i := range rowKinds {
			if _, err := rowKinds[i].again(value[1:]); err == nil {
				f.Add(byte(i), value[1:])
			}
		}
		f.Add(key[0], value)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		k := rowKinds[int(kind)%len(rowKinds)]
		again, err := k.again(b)
		if err == nil && !bytes.Equal(again, b) {
			t.Fatalf("%s encodes to %x", k.name, again)
		}
		m := k.message()
		if want := oracle(b, m) && k.rules(m); want != (err == nil) {
			t.Fatalf("%s: google and the rules say %v, ours says %v", k.name, want, err)
		}
		// Whatever stands in the database, the audit answers.
		a := NewAudit()
		a.Row(append([]byte{kind}, b...), b)
		a.Row(b, b)
		a.Close()
	})
}

// credulous takes every signature for good, so that a mutated body comes as far as one that was signed.
type credulous struct{}

func (credulous) Verify(Authorization) bool { return true }

// FuzzApply applies any bytes after the first n seeds: never a panic, no refused transaction leaves a trace, Check and
// Apply agree, no transaction counts twice, and the state passes the audit.
func FuzzApply(f *testing.F) {
	list := seeds(f)
	for i, raw := range list {
		f.Add(byte(i), raw)
		f.Add(byte(0), raw)
	}
	base := smallWorld(f).memory
	f.Fuzz(func(t *testing.T, n byte, raw []byte) {
		applyAny(t, base, list[:int(n)%(len(list)+1)], raw)
	})
}

func applyAny(t testing.TB, base Memory, before [][]byte, raw []byte) Code {
	tx, err := Decode(raw)
	if err != nil {
		return Malformed
	}
	w := &world{t: t, verifier: credulous{}, memory: maps.Clone(base)}
	b := w.next(1001_000)
	for _, s := range before {
		if r := w.apply(s); r.Code.Refused() {
			t.Fatalf("seed: %s", r.Code)
		}
	}
	writes, entries, fees := b.state.writes(), len(b.entries), b.totals.fees
	check, err := b.Check(tx, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Apply(tx)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code == BrokenInvariant {
		t.Fatalf("an invariant broke")
	}
	if check != r.Code && (check != OK || r.Code.Refused()) {
		t.Fatalf("Check says %s, Apply says %s", check, r.Code)
	}
	if r.Code.Refused() {
		after := b.state.writes()
		same := len(after) == len(writes) && len(b.entries) == entries && b.totals.fees == fees
		for i := range writes {
			same = same && bytes.Equal(after[i].Key, writes[i].Key) && bytes.Equal(after[i].Value, writes[i].Value)
		}
		if !same {
			t.Fatalf("refused with %s, and left a trace", r.Code)
		}
	} else if again, err := b.Apply(tx); err != nil || !again.Code.Refused() {
		t.Fatalf("accepted twice: %+v, %v", again, err)
	}
	encoded := r.Encode()
	if d, err := DecodeReceipt(encoded); err != nil || !bytes.Equal(d.Encode(), encoded) {
		t.Fatalf("receipt %x: %v", encoded, err)
	}
	w.end(Misbehavior{Height: 1}, Misbehavior{Validator: Validator{PublicKey: newKey(t, crypto.Ed25519, "v1").Public()}.Address()})
	return r.Code
}

// TestApplyMutated is FuzzApply over mutations that keep the message's structure, which random bytes rarely do.
func TestApplyMutated(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	list := seeds(t)
	base := smallWorld(t).memory
	codes := map[Code]int{}
	for range 20_000 {
		i := r.Intn(len(list))
		codes[applyAny(t, base, list[:i], mutate(list[i], r))]++
	}
	for _, c := range []Code{OK, PolicyMismatch, SequenceGap, WitnessMissing, AssetUnknown, FeeAboveMaximum} {
		if codes[c] == 0 {
			t.Errorf("no mutation reached %s: %v", c, codes)
		}
	}
	t.Log(codes)
}
