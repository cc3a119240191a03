package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
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
		"two lines closed that owe each other": func(w *world, x *execution) {
			for _, name := range []string{"bob", "carol"} {
				x.overdraw(key(w, "dave"), key(w, name), Units(10))
			}
			for _, name := range []string{"bob", "carol", "dave", "erin", "team", "mixed", "alice", "bank", "fees"} {
				x.state.lines.remove(key(w, name))
			}
			x.totals.fees = Amount{}
		},
		"an incarnation without a closing": func(w *world, x *execution) {
			l, _ := x.state.lines.get(key(w, "bob"))
			l.Incarnation++
			x.state.lines.put(key(w, "bob"), l)
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
	w.block.End(nil, nil)
}

// richWorld is a state with a row of every kind: deposits, holds of three seconds, grants, credit, closed and opened lines, a
// closed account, a recovery, nonces.
func richWorld(t testing.TB) (w *world, txs [][]byte, receipts []Receipt, o Outcome) {
	w = newWorld(t)
	p := &w.genesis.State.Parameters
	p.DepositAccount, p.DepositLine, p.DepositHold, p.DepositGrant, p.FeeTargetWeight = 10, 5, 3, 4, 100
	w.addAsset("EUR", "bank", 2, "1000000.00")
	for _, name := range []string{"alice", "bob", "carol", "heir", "rescuer"} {
		w.addBalance(name, "1000.00", "EUR")
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.next(1001_000)
	do := func(from []string, operations ...Operation) {
		t.Helper()
		b := &Body{MaxFee: Units(1e9), MaxDeposit: Units(1e9), Operations: operations, ValidUntil: 1100}
		for i, name := range from {
			b.Signers = append(b.Signers, w.signer(name))
			if i > 0 {
				b.Signers[i].Sequence = 0
			}
		}
		raw := w.seal(b)
		r := w.apply(raw)
		if r.Code != OK {
			t.Fatalf("%s: %s, operation %d", from, r.Code, r.Failed)
		}
		txs, receipts = append(txs, raw), append(receipts, r)
	}
	alice, bob, carol, eur, usd := w.address("alice"), w.address("bob"), w.address("carol"), w.asset("EUR"), NewAssetID(w.address("alice"), "USD")
	credit := Units(50)
	do([]string{"alice", "bob"}, &CreateAsset{Code: "USD", Scale: 2, MaxSupply: Units(1000), Controls: allControls},
		&SetLine{Account: bob, Asset: usd, Set: LineAuthorised, Credit: &credit},
		&Transfer{To: bob, Asset: usd, Amount: Units(100)},
		&Transfer{From: 1, To: alice, Asset: usd, Amount: Units(130)})
	do([]string{"bob", "carol"}, &OpenLine{Signer: 1, Asset: usd}, &CloseLine{Signer: 1, Asset: usd, To: bob}, &OpenLine{Signer: 1, Asset: usd})
	hold := func(expires uint64) *CreateHold {
		return &CreateHold{To: bob, Asset: eur, Amount: Units(7), Expires: expires, PostBy: ByReceiver, VoidBy: ByReceiver}
	}
	do([]string{"alice"}, hold(1500), hold(1500), hold(1600), &CreateHold{To: carol, Asset: eur, Amount: Units(9), Expires: 1500, PostAtExpiry: true})
	do([]string{"alice"}, &SetGrant{Grantee: bob, For: KindTransfer, Asset: eur, Total: Units(100), Until: 5000}, &SetGrant{Grantee: bob, PerPeriod: Units(9), Period: 60, Until: 5000})
	do([]string{"heir"}, &SetAccount{OptIn: true})
	do([]string{"rescuer"}, &StartRecovery{Account: w.address("heir"), PolicyHash: crypto.Hash{1}})
	do([]string{"bob", "gone"}, &CloseAccount{Signer: 1, To: bob})
	return w, txs, receipts, w.end()
}

// votedWorld is a state with the rows of the validators' operators: active, inactive and tombstoned validators, bonds, missed blocks and
// proposals.
func votedWorld(t testing.TB) *world {
	w := newWorld(t)
	p := &w.genesis.State.Parameters
	p.Bond, p.MissedWindow, p.MaxMissed = 7, 10, 1
	w.addAsset("EUR", "bank", 2, "1000000.00")
	for i := range 7 {
		validator, operator := fmt.Sprint("v", i), fmt.Sprint("op", i)
		w.addBalance(operator, "1000.00", "EUR")
		w.addValidator(validator, crypto.Ed25519, 10)
		w.genesis.State.Validators = append(w.genesis.State.Validators, GenesisValidator{PubKey: w.genesis.Validators[i].PublicKey, Operator: w.address(operator), Name: validator})
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	is := func(i int) ConsensusAddress { return w.genesis.Validators[i].Address() }
	propose := func(i int, change Change) Operation {
		return &Propose{Expires: 2000 + uint64(i), Change: change}
	}
	for i, operations := range [][]Operation{{propose(0, &RemoveValidator{is(1)}), propose(1, &SetPower{is(2), 11})}, {propose(2, &SetPower{is(3), 12})}} {
		w.next(1001_000 + uint64(i)*1000)
		signer := w.signer(fmt.Sprint("op", i))
		signer.Sequence = 0 // a nonce, so that the totals of nonces can be wrong
		if r := w.apply(w.seal(&Body{Signers: []Signer{signer}, ValidUntil: 1100, MaxFee: Units(1e9), Operations: operations})); r.Code != OK {
			t.Fatalf("%s: %s", operations[0].Kind(), r.Code)
		}
		w.votes = []Vote{{is(4), i == 0}, {is(5), false}}
		w.end([]Misbehavior{{is(6), 1}}[i:]...)
	}
	return w
}

// findings audits a state.
func findings(m Memory) []string {
	a := NewAudit()
	for _, key := range sortedStrings(m) {
		a.Row([]byte(key), m[key])
	}
	a.Close()
	return a.Findings
}

// changes returns the values of a row with one field changed, by the field's name, where other rows say what it has to be.
func changes(t testing.TB, value []byte, kind byte) map[string][]byte {
	more := func(a Amount) Amount { return a.mustAdd(Units(1)) }
	out := map[string][]byte{}
	switch kind {
	case rowAccount:
		a, err := DecodeAccount(value)
		if err != nil {
			t.Fatal(err)
		}
		change := func(name string, f func(*Account)) { b := a; f(&b); out[name] = b.encode() }
		change("policy", func(a *Account) { a.Policy[0] ^= 1 })
		change("deposit", func(a *Account) { a.Deposit = more(a.Deposit) })
		if a.ClosedLines > 0 {
			change("closed_lines", func(a *Account) { a.ClosedLines = 0 })
			change("closed_head", func(a *Account) { a.ClosedHead = crypto.Hash{} })
		}
		if a.Flags&AccountClosedFlag == 0 {
			change("flags", func(a *Account) { a.Flags |= AccountClosedFlag })
		}
	case rowLine:
		l, err := DecodeLine(value)
		if err != nil {
			t.Fatal(err)
		}
		change := func(name string, f func(*Line)) { b := l; f(&b); out[name] = b.encode() }
		change("debits_pending", func(l *Line) { l.DebitsPending = more(l.DebitsPending) })
		change("debits_posted", func(l *Line) { l.DebitsPosted = more(l.DebitsPosted) })
		change("credits_pending", func(l *Line) { l.CreditsPending = more(l.CreditsPending) })
		change("credits_posted", func(l *Line) { l.CreditsPosted = more(l.CreditsPosted) })
		change("both posted", func(l *Line) { // balances, but an overdrawn line is overdrawn more
			l.DebitsPosted, l.CreditsPosted = l.DebitsPosted.wrappingAdd(Units(1<<40)), l.CreditsPosted.wrappingSub(Units(1<<40))
		})
		change("credit", func(l *Line) { l.Credit = more(l.Credit) })
		change("deposit", func(l *Line) { l.Deposit = more(l.Deposit) })
		change("incarnation", func(l *Line) { l.Incarnation += 2 })
	case rowAsset:
		a, err := DecodeAsset(value)
		if err != nil {
			t.Fatal(err)
		}
		change := func(name string, f func(*Asset)) { b := a; f(&b); out[name] = b.encode() }
		change("issuer", func(a *Asset) { a.Issuer[0] ^= 1 })
		change("code", func(a *Asset) { a.Code += "X" })
		if a.Code == "EUR" { // an issuance line that an ordinary account could have does not wait for its asset's row
			change("max_supply", func(a *Asset) { a.MaxSupply = Units(1) })
		}
		change("credit", func(a *Asset) { a.Credit = more(a.Credit) })
	case rowHold:
		h, err := DecodeHold(value)
		if err != nil {
			t.Fatal(err)
		}
		change := func(name string, f func(*Hold)) { b := h; f(&b); out[name] = b.encode() }
		change("from", func(h *Hold) { h.From[0] ^= 1 })
		change("to", func(h *Hold) { h.To[0] ^= 1 })
		change("from and to", func(h *Hold) { h.From, h.To = h.To, h.From })
		change("asset", func(h *Hold) { h.Asset[0] ^= 1 })
		change("amount up", func(h *Hold) { h.Amount = more(h.Amount) })
		change("amount down", func(h *Hold) { h.Amount = h.Amount.mustSub(Units(1)) })
		change("expires", func(h *Hold) { h.Expires++ })
		change("slot", func(h *Hold) { h.Slot++ })
		change("deposit", func(h *Hold) { h.Deposit = more(h.Deposit) })
	case rowGrant:
		g, err := DecodeGrant(value)
		if err != nil {
			t.Fatal(err)
		}
		g.Deposit = more(g.Deposit)
		out["deposit"] = g.encode()
	case rowFeeRate:
		// Above the parameter it may be, where a vote has lowered that, but not above what a parameter can be.
		out["multiplier below 1.000"], out["multiplier above the most"] = FeeRate{999}.encode(), FeeRate{MaxFeeMultiplier + 1}.encode()
	case rowParameters:
		p, err := DecodeParameters(value)
		if err != nil {
			t.Fatal(err)
		}
		p.MaxExpiries = 0
		out["max_expiries"] = p.encode()
	case rowValidators:
		set, err := DecodeValidators(value)
		if err != nil {
			t.Fatal(err)
		}
		for i := range set {
			change := func(name string, f func(v *Validator)) {
				changed := slices.Clone(set)
				f(&changed[i])
				out[fmt.Sprint(set[i].Status(), " ", set[i].Name, ": ", name)] = encodeValidators(changed)
			}
			change("power above the most", func(v *Validator) { v.Power = MaxValidatorPower + 1 })
			change("inactive power above the most", func(v *Validator) { v.Power, v.InactivePower = 0, MaxValidatorPower+1 })
			change("active and inactive", func(v *Validator) { v.Power, v.InactivePower = 10, 10 })
			change("active and left", func(v *Validator) { v.Power, v.Left = 10, 1000 })
			change("gone and never left", func(v *Validator) { v.Power, v.Left = 0, 0 })
			change("active and tombstoned", func(v *Validator) { v.Power, v.InactivePower, v.Left, v.Tombstoned = 10, 0, 0, 1 })
			if i > 0 && set[i].Present() && set[0].Present() && set[i].Operator != (crypto.Address{}) {
				change("another's operator", func(v *Validator) { v.Operator = set[0].Operator })
			}
			if i > 0 {
				change("out of order", func(v *Validator) { *v, set[i-1] = set[i-1], *v })
				set, _ = DecodeValidators(value)
			}
		}
		for i := range set {
			set[i].leave(1000)
		}
		out["no power at all"] = encodeValidators(set)
	case rowMissed:
		m, err := DecodeMissed(value)
		if err != nil {
			t.Fatal(err)
		}
		m.Count = 0
		out["count"] = m.encode()
	case rowProposal:
		p, err := DecodeProposal(value)
		if err != nil {
			t.Fatal(err)
		}
		change := func(name string, f func(*Proposal)) { b := p; f(&b); out[name] = b.encode() }
		change("proposer", func(p *Proposal) { p.Proposer[0] ^= 1 })
		change("expires", func(p *Proposal) { p.Expires++ })
		change("approvals, none,", func(p *Proposal) { p.Approvals = nil })
		change("approvals, twice one,", func(p *Proposal) { p.Approvals = append(p.Approvals[:1:1], p.Approvals[0]) })
		change("power", func(p *Proposal) { p.Change = &SetPower{Power: MaxValidatorPower + 1} })
	case rowProposals:
		list, err := DecodeProposals(value)
		if err != nil {
			t.Fatal(err)
		}
		change := func(name string, f func([]ListedProposal) []ListedProposal) {
			out[name] = encodeProposals(f(slices.Clone(list)))
		}
		change("proposal", func(l []ListedProposal) []ListedProposal { l[0].ID[0] ^= 1; return l })
		change("proposer", func(l []ListedProposal) []ListedProposal { l[0].Proposer[0] ^= 1; return l })
		change("expires", func(l []ListedProposal) []ListedProposal { l[0].Expires++; return l })
		change("list, one proposal less,", func(l []ListedProposal) []ListedProposal { return l[1:] })
		change("list, one proposal twice,", func(l []ListedProposal) []ListedProposal { return append(l, l[0]) })
		change("list, empty,", func([]ListedProposal) []ListedProposal { return nil })
	case rowDue:
		d, err := decodeDueTotals(value)
		if err != nil {
			t.Fatal(err)
		}
		out["open"], out["through"] = dueTotals{d.Through, d.Open + 1}.encode(), dueTotals{1600, d.Open}.encode()
	case rowReplay:
		r, err := decodeReplayTotals(value)
		if err != nil {
			t.Fatal(err)
		}
		out["open"], out["pruned_through"] = replayTotals{r.PrunedThrough, r.Open + 1}.encode(), replayTotals{1100, r.Open}.encode()
	}
	return out
}

// TestAudit changes one row of a good state in every way, and wants a finding.
func TestAudit(t *testing.T) {
	w, _, _, _ := richWorld(t)
	voted := votedWorld(t)
	// Rows of which other rows cover every bit.
	covered := map[byte]bool{rowCode: true, rowHoldings: true, rowBucket: true, rowPolicy: true, rowNonce: true, rowNonceNumber: true,
		rowDueCount: true, rowDueSlot: true}
	// Without its row an account begins again, and no other row speaks of missed blocks.
	optional := map[byte]bool{rowAccount: true, rowMissed: true}
	seen := map[byte]bool{}
	for _, memory := range []Memory{w.memory, voted.memory} {
		if f := findings(memory); len(f) != 0 {
			t.Fatal(f)
		}
		for _, key := range sortedStrings(memory) {
			seen[key[0]] = true
			try := func(what string, change func(m Memory)) {
				t.Helper()
				m := maps.Clone(memory)
				change(m)
				if len(findings(m)) == 0 {
					t.Errorf("%s of row %x (%s) is not found", what, key, rowNames[key[0]].name)
				}
			}
			try("a longer key", func(m Memory) { m[key+"\x00"] = m[key] })
			try("a shorter key", func(m Memory) { m[key[:len(key)-1]] = m[key] })
			try("an empty value", func(m Memory) { m[key] = nil })
			try("another version", func(m Memory) { m[key] = append([]byte{2}, m[key][1:]...) })
			try("a trailing byte", func(m Memory) { m[key] = append(bytes.Clone(m[key]), 0) })
			if len(key) > 1 && key[0] != rowAccount && key[0] != rowPolicy && key[0] != rowGrant { // grants are only counted
				try("another key", func(m Memory) {
					other := []byte(key)
					other[len(other)-1] ^= 1
					m[string(other)] = m[key]
					delete(m, key)
				})
			}
			if !optional[key[0]] {
				try("the absence", func(m Memory) { delete(m, key) })
			}
			for name, value := range changes(t, memory[key], key[0]) {
				try("another "+name, func(m Memory) { m[key] = value })
			}
			for i := range memory[key] {
				for bit := 0; covered[key[0]] && bit < 8; bit++ {
					try(fmt.Sprintf("a flipped bit, %d of byte %d,", bit, i), func(m Memory) { m[key] = bytes.Clone(m[key]); m[key][i] ^= 1 << bit })
				}
			}
		}
	}
	if len(seen) != len(rowNames) {
		t.Errorf("the state has rows of %d kinds, there are %d", len(seen), len(rowNames))
	}
	m := maps.Clone(w.memory)
	m[string(CodeRow("AAA"))] = m[string(CodeRow("EUR"))]
	if len(findings(m)) == 0 {
		t.Error("a second code of an asset is not found")
	}
	m = maps.Clone(w.memory)
	m[string(ProposalsRow())] = encodeProposals(nil)
	if len(findings(m)) == 0 {
		t.Error("an empty list of proposals is not found")
	}
	m = maps.Clone(w.memory)
	var list []ListedProposal
	for i := range byte(MaxProposalsEach + 1) {
		l := ListedProposal{ID: crypto.Hash{i}, Expires: 2000}
		list = append(list, l)
		m[string(ProposalRow(l.ID))] = Proposal{Proposer: l.Proposer, Expires: l.Expires, Height: 1, Change: &RemoveValidator{}, Approvals: []crypto.Address{{}}}.encode()
	}
	m[string(ProposalsRow())] = encodeProposals(list)
	if len(findings(m)) == 0 {
		t.Error("too many proposals of one operator are not found")
	}
	m = maps.Clone(w.memory)
	m[string(HoldingsRow(crypto.Address{1}))] = Holdings{Lines: 1}.encode()
	if len(findings(m)) == 0 {
		t.Error("holdings of an account that has nothing are not found")
	}
	m = maps.Clone(w.memory)
	for key, value := range m { // the queue and the hold agree on a slot behind the last one
		if h, err := DecodeHold(value); key[0] == rowHold && err == nil && h.Expires == 1600 {
			id := crypto.Hash([]byte(key[1:]))
			h.Slot = 5
			m[key] = h.encode()
			delete(m, string(dueSlotRow(1600, 0)))
			m[string(dueSlotRow(1600, 5))] = encodeHash(id)
		}
	}
	if len(findings(m)) == 0 {
		t.Error("a gap in the queue is not found")
	}
	m = maps.Clone(w.memory)
	extra := string(nonceRow(1100, crypto.Address{1}, [16]byte{}))
	for _, key := range sortedStrings(m) {
		if key[0] == rowNonce {
			m[extra] = m[key]
			delete(m, key)
			break
		}
	}
	if len(findings(m)) == 0 {
		t.Error("an exchanged nonce is not found")
	}
}
