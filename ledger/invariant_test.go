package ledger

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// planted is an operation with a defect in its effect, which the invariants must catch.
type planted struct {
	Transfer
	effect func(x *execution)
}

func (p *planted) encode(w *canonical.Writer) { p.Transfer.encode(w) }

func (p *planted) apply(x *execution) (OperationResult, Code) {
	result, code := p.Transfer.apply(x)
	p.effect(x)
	return result, code
}

// TestBrokenInvariant plants one defect of each kind in the rules, and wants the transaction undone and reported.
func TestBrokenInvariant(t *testing.T) {
	key := func(w *world, name string) LineKey { return LineKey{w.address(name), w.asset("EUR")} }
	for name, effect := range map[string]func(w *world, x *execution){
		"money from nowhere": func(w *world, x *execution) {
			l, _ := x.state.lines.get(key(w, "bob"))
			l.CreditsPosted, _ = l.CreditsPosted.Add(Units(1))
			x.state.lines.put(key(w, "bob"), l)
		},
		"money gone": func(w *world, x *execution) {
			l, _ := x.state.lines.get(key(w, "bob"))
			l.DebitsPosted, _ = l.DebitsPosted.Add(Units(1))
			x.state.lines.put(key(w, "bob"), l)
		},
		"overdrawn": func(w *world, x *execution) { x.overdraw(key(w, "zoe"), key(w, "bob"), Units(1)) },
		"above the supply": func(w *world, x *execution) {
			x.overdraw(key(w, "bank"), key(w, "bob"), Units(1e9))
		},
		"debits that went down": func(w *world, x *execution) {
			for name, amount := range map[string]Amount{"alice": Amount{}.wrappingSub(Units(150)), "carol": Units(150)} {
				l, _ := x.state.lines.get(key(w, name))
				l.DebitsPosted = l.DebitsPosted.wrappingAdd(amount)
				x.state.lines.put(key(w, name), l)
			}
		},
		"credits that went down": func(w *world, x *execution) {
			for name, amount := range map[string]Amount{"bob": Amount{}.wrappingSub(Units(150)), "carol": Units(150)} {
				l, _ := x.state.lines.get(key(w, name))
				l.CreditsPosted = l.CreditsPosted.wrappingAdd(amount)
				x.state.lines.put(key(w, name), l)
			}
		},
		"a line closed with something on it": func(w *world, x *execution) { x.closeOnto(key(w, "bob"), key(w, "carol")) },
		"a line closed with something on it, and opened again": func(w *world, x *execution) {
			x.closeOnto(key(w, "bob"), key(w, "carol"))
			x.state.lines.put(key(w, "bob"), Line{Incarnation: 1})
		},
		"a pending debit alone": func(w *world, x *execution) {
			l, _ := x.state.lines.get(key(w, "alice"))
			l.DebitsPending = Units(1)
			x.state.lines.put(key(w, "alice"), l)
		},
		"a fee that nobody paid": func(_ *world, x *execution) { x.totals.fees, _ = x.totals.fees.Add(Units(1)) },
		"an asset that is not there": func(w *world, x *execution) {
			x.state.lines.put(LineKey{Account: w.address("bob")}, Line{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := smallWorld(t)
			w.next(1001_000)
			w.apply(w.seal(w.payment("alice", "bob", Units(100), "EUR")))
			w.end()
			w.next(1002_000)
			tx, err := Decode(w.seal(w.payment("alice", "bob", Units(100), "EUR")))
			if err != nil {
				t.Fatal(err)
			}
			good := *tx
			tx.Body.Operations = []Operation{&planted{*tx.Body.Operations[0].(*Transfer), func(x *execution) { effect(w, x) }}}
			r, err := w.block.Apply(tx)
			if err != nil || r.Code != BrokenInvariant || !r.Fee.IsZero() {
				t.Fatalf("%+v, %v", r, err)
			}
			if len(w.block.entries) != 0 || w.block.totals != (totals{}) || len(w.block.state.writes()) != 0 {
				t.Fatal("the transaction left something behind")
			}
			if len(w.block.broken) != 1 || w.block.broken[0] != r.TxID {
				t.Fatal("the transaction is not reported")
			}
			if r, _ := w.block.Apply(&good); r.Code != OK {
				t.Fatalf("the block does not go on: %s", r.Code)
			}
			if o := w.end(); len(o.Broken) != 1 {
				t.Fatal("the outcome does not report it")
			}
		})
	}
}

// closeOnto removes a line and writes what it says onto another one, so that the sums stay right.
func (x *execution) closeOnto(gone, other LineKey) {
	l, _ := x.state.lines.get(gone)
	x.state.lines.remove(gone)
	o, _ := x.state.lines.get(other)
	o.CreditsPosted, o.DebitsPosted = o.CreditsPosted.mustAdd(l.CreditsPosted), o.DebitsPosted.mustAdd(l.DebitsPosted)
	x.state.lines.put(other, o)
}

// TestEmptiedAndClosed: a line may be emptied and closed, opened and used again in one transaction.
func TestEmptiedAndClosed(t *testing.T) {
	w := smallWorld(t)
	w.next(1001_000)
	b := w.payment("alice", "bob", Units(100), "EUR")
	eur := w.asset("EUR")
	b.Operations = []Operation{&Transfer{To: w.address("bob"), Asset: eur, Amount: MaxAmount, Balancing: BalancingDebit},
		&CloseLine{Asset: eur, To: w.address("bob")}, &OpenLine{Asset: eur}}
	if r := w.apply(w.seal(b)); r.Code != OK {
		t.Fatalf("%s at operation %d", r.Code, r.Failed)
	}
	w.end()
	if l, _ := newState(w.memory).lines.get(LineKey{w.address("alice"), eur}); l.Incarnation != 1 || l.Entries != 0 {
		t.Fatalf("alice's line is %+v", l)
	}
}

// overdraw moves an amount without asking.
func (x *execution) overdraw(from, to LineKey, amount Amount) {
	debit, _ := x.state.lines.get(from)
	debit.DebitsPosted, _ = debit.DebitsPosted.Add(amount)
	x.state.lines.put(from, debit)
	credit, _ := x.state.lines.get(to)
	credit.CreditsPosted, _ = credit.CreditsPosted.Add(amount)
	x.state.lines.put(to, credit)
}

// TestBlockMustBalance: what slips past the transactions stops the node.
func TestBlockMustBalance(t *testing.T) {
	w := smallWorld(t)
	w.next(1001_000)
	k := LineKey{w.address("bob"), w.asset("EUR")}
	l, _ := w.block.state.lines.get(k)
	l.CreditsPosted, _ = l.CreditsPosted.Add(Units(1))
	w.block.state.lines.put(k, l)
	w.block.state.keep()
	defer func() {
		if text, _ := recover().(string); !strings.Contains(text, "does not balance") {
			t.Fatalf("panic %q", text)
		}
	}()
	w.block.End(nil)
}

// TestAudit changes one row of a good state in every way, and wants a finding.
func TestAudit(t *testing.T) {
	w := smallWorld(t)
	w.next(1001_000)
	b := w.payment("alice", "bob", Units(100), "EUR")
	b.ValidUntil, b.Signers[0].Sequence = 1100, 0
	if r := w.apply(w.seal(b)); r.Code != OK {
		t.Fatal(r.Code)
	}
	b = w.payment("bob", "zoe", Units(100), "EUR")
	b.ValidUntil, b.Signers[0].Sequence = 1100, 0
	w.apply(w.seal(b))
	w.end()
	audit := func(m Memory) []string {
		a := NewAudit()
		for _, key := range sortedStrings(m) {
			a.Row([]byte(key), m[key])
		}
		a.Close()
		return a.Findings
	}
	if f := audit(w.memory); len(f) != 0 {
		t.Fatal(f)
	}
	free := map[byte]bool{rowAccount: true, rowReplay: true, rowValidators: true, rowNetwork: true, rowParameters: true, rowFeeRate: true}
	for _, key := range sortedStrings(w.memory) {
		try := func(what string, change func(m Memory)) {
			m := Memory{}
			for k, v := range w.memory {
				m[k] = v
			}
			change(m)
			if len(audit(m)) == 0 {
				t.Errorf("%s of row %x is not found", what, key)
			}
		}
		try("a longer key", func(m Memory) { m[key+"\x00"] = m[key] })
		try("a shorter key", func(m Memory) { m[key[:len(key)-1]] = m[key] })
		try("an empty value", func(m Memory) { m[key] = nil })
		try("another version", func(m Memory) { m[key] = append([]byte{2}, m[key][1:]...) })
		try("a trailing byte", func(m Memory) { m[key] = append(bytes.Clone(m[key]), 0) })
		if key[0] != rowAccount && key[0] != rowParameters && key[0] != rowValidators && key[0] != rowReplay { // an account without its row begins again
			try("the absence", func(m Memory) { delete(m, key) })
		}
		for i := range w.memory[key] {
			if key[0] == rowAsset || free[key[0]] || key[0] == rowLine { // not every bit of these is covered by another row
				continue
			}
			try("a flipped bit", func(m Memory) { m[key] = bytes.Clone(m[key]); m[key][i] ^= 1 })
		}
	}
	m := Memory{}
	for k, v := range w.memory {
		m[k] = v
	}
	m[string(CodeRow("AAA"))] = m[string(CodeRow("EUR"))]
	if len(audit(m)) == 0 {
		t.Error("a second code of an asset is not found")
	}
	delete(m, string(CodeRow("AAA")))
	extra := string(nonceRow(1100, crypto.Address{1}, [16]byte{}))
	for _, key := range sortedStrings(m) {
		if key[0] == rowNonce {
			m[extra] = m[key]
			delete(m, key)
			break
		}
	}
	if len(audit(m)) == 0 {
		t.Error("an exchanged nonce is not found")
	}
}
