package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// unsigned puts zeros in the place of the signatures.
func unsigned(t testing.TB, raw []byte) []byte {
	tx := must[*ledger.Tx](t)(ledger.Decode(raw))
	var witnesses []ledger.Witness
	for _, w := range tx.Witnesses {
		witnesses = append(witnesses, ledger.Witness{Signer: w.Signer, Key: w.Key, Signature: make([]byte, len(w.Signature))})
	}
	return ledger.Assemble(tx.BodyBytes(), witnesses, tx.Sponsor)
}

// simulated is a chain that simulates each transaction before a block has it, and compares.
type simulated struct {
	*world
	app  *App
	b    block
	seen map[ledger.Kind]bool
}

// do simulates, executes, and returns the receipt.
func (s *simulated) do(want ledger.Code, raw []byte) ledger.Receipt {
	s.t.Helper()
	before := s.app.store.AppHash()
	answer := ask(s.t, s.app, abci.RequestQuery{Path: query.PathSimulate, Data: unsigned(s.t, raw)})
	if answer.Code != 0 || !bytes.Equal(s.app.store.AppHash(), before) {
		s.t.Fatalf("simulating: %+v", answer)
	}
	told := must[query.Simulation](s.t)(query.DecodeSimulation(answer.Value))
	if told.Height != uint64(s.b.height) || !bytes.Equal(told.Encode(), answer.Value) {
		s.t.Fatalf("simulated in block %d, the next is %d", told.Height, s.b.height)
	}
	s.b.txs = [][]byte{raw}
	done := finalize(s.t, s.app, s.b)
	commit(s.t, s.app)
	s.b = s.b.next(0)
	receipt := must[ledger.Receipt](s.t)(ledger.DecodeReceipt(done.TxResults[0].Data))
	if !reflect.DeepEqual(receipt, told.Receipt) || receipt.Code != want {
		s.t.Fatalf("simulated %+v, executed %+v, want %s", told.Receipt, receipt, want)
	}
	r := s.app.store.Index()
	defer r.Close()
	for _, e := range told.Entries {
		real := must[[][]byte](s.t)(index.Entries(r, e.Line, e.Incarnation, e.Number, 0, 1))
		if len(real) != 1 || !bytes.Equal(real[0], e.Encoded) {
			s.t.Fatalf("entry %d of %s was simulated as %x, and is %x", e.Number, e.Line.Account, e.Encoded, real)
		}
	}
	if !want.Refused() && len(told.Entries) == 0 {
		s.t.Fatal("no entries, and there was a fee")
	}
	for _, op := range must[*ledger.Tx](s.t)(ledger.Decode(raw)).Body.Operations {
		s.seen[op.Kind()] = s.seen[op.Kind()] || want == ledger.OK
	}
	s.sync(s.app)
	return receipt
}

// ops does operations of one account.
func (s *simulated) ops(want ledger.Code, by *actor, operations ...ledger.Operation) ledger.Receipt {
	s.t.Helper()
	return s.do(want, s.build(order{signers: []*actor{by}, operations: operations}))
}

// wait makes a block without transactions after a while.
func (s *simulated) wait(d time.Duration) {
	s.b.time, s.b.txs = s.b.time.Add(d), nil
	finalize(s.t, s.app, s.b)
	commit(s.t, s.app)
	s.b = s.b.next(0)
}

func startSimulated(t *testing.T) *simulated {
	s := &simulated{world: newWorld(t, 1, 1, 1, 1, 1), seen: map[ledger.Kind]bool{}}
	s.app = open(t, vfs.NewMem(), nil)
	t.Cleanup(func() { closeApp(t, s.app) })
	initialise(t, s.app, s.world)
	s.b = block{height: 1, time: s.doc.GenesisTime}
	s.wait(0)
	s.sync(s.app)
	return s
}

// TestSimulationIsExact: for every kind of operation, the simulated receipt and journal entries are those that the next
// block makes, whether the transaction takes effect, fails or is refused; and nothing but the block changes the state.
func TestSimulationIsExact(t *testing.T) {
	s := startSimulated(t)
	a, b, c, d, e := s.actors[1], s.actors[2], s.actors[3], s.actors[4], s.actors[5]
	gbp := ledger.NewAssetID(a.address, "GBP")
	units := func(n uint64) *ledger.Amount { u := ledger.Units(n); return &u }
	now := func() uint64 { return uint64(s.b.time.Unix()) }

	s.ops(ledger.OK, s.bank, &ledger.Transfer{To: a.address, Asset: s.fee, Amount: ledger.Units(5), Reference: ledger.Reference{7}, Code: 9})
	s.ops(ledger.InsufficientFunds, s.poor, &ledger.Transfer{To: a.address, Asset: s.fee, Amount: ledger.Units(5)}, &ledger.Transfer{To: a.address, Asset: s.fee, Amount: ledger.Units(1 << 50)})
	if r := s.ops(ledger.OK, s.poor, &ledger.Transfer{To: a.address, Asset: s.fee, Amount: ledger.MaxAmount, Balancing: ledger.BalancingDebit}); r.Results[0].Amount.IsZero() {
		t.Error("nothing was moved")
	}
	s.do(ledger.FeeUnpayable, s.transfer(s.poor, a.address, 1))
	s.do(ledger.SequenceGap, s.build(order{signers: []*actor{a}, sequence: 900, operations: []ledger.Operation{&ledger.SetAccount{OptIn: true}}}))
	s.do(ledger.OK, s.build(order{signers: []*actor{a, s.actors[10]}, operations: []ledger.Operation{&ledger.SetAccount{Signer: 1, OptIn: true}}}))

	s.ops(ledger.OK, a, &ledger.CreateAsset{Code: "GBP", Scale: 2, MaxSupply: ledger.Units(1000), Controls: ledger.ControlAuthorisation | ledger.ControlFreeze | ledger.ControlClawback})
	s.ops(ledger.OK, a, &ledger.SetLine{Account: b.address, Asset: gbp, Set: ledger.LineAuthorised, Credit: units(5)}, &ledger.Transfer{To: b.address, Asset: gbp, Amount: ledger.Units(100)})
	s.ops(ledger.LineNotAuthorised, a, &ledger.Transfer{To: c.address, Asset: gbp, Amount: ledger.Units(100)})
	s.ops(ledger.OK, a, &ledger.SetAsset{Asset: gbp, MaxSupply: ledger.Units(500), Freeze: ledger.LineFrozenIn})
	s.ops(ledger.OK, a, &ledger.Clawback{Account: b.address, Asset: gbp, Amount: ledger.Units(10)})

	hold := func() crypto.Hash {
		r := s.ops(ledger.OK, b, &ledger.CreateHold{To: c.address, Asset: s.fee, Amount: ledger.Units(30), Expires: now() + 100, Arbiter: d.address,
			PostBy: ledger.ByReceiver, VoidBy: ledger.ByArbiter, Reference: ledger.Reference{8}})
		return r.Results[0].Hold
	}
	s.ops(ledger.OK, c, &ledger.PostHold{Hold: hold(), Amount: ledger.Units(20)})
	s.ops(ledger.OK, d, &ledger.VoidHold{Hold: hold()})
	s.ops(ledger.HoldNotPermitted, e, &ledger.VoidHold{Hold: hold()})

	s.ops(ledger.OK, d, &ledger.OpenLine{Asset: gbp, Ceiling: units(9)})
	s.ops(ledger.LineFrozen, d, &ledger.CloseLine{Asset: gbp, To: d.address})
	s.ops(ledger.OK, a, &ledger.SetAsset{Asset: gbp, Unfreeze: ledger.LineFrozenIn})
	s.ops(ledger.OK, d, &ledger.CloseLine{Asset: gbp, To: d.address})
	s.ops(ledger.OK, b, &ledger.SetGrant{Grantee: e.address, Asset: s.fee, For: ledger.KindTransfer, Total: ledger.Units(50), Until: now() + 1000})
	s.ops(ledger.OK, e, &ledger.Transfer{To: c.address, Asset: s.fee, Amount: ledger.Units(40), Granter: b.address})
	s.ops(ledger.GrantExceeded, e, &ledger.Transfer{To: c.address, Asset: s.fee, Amount: ledger.Units(40), Granter: b.address})
	s.ops(ledger.OK, b, &ledger.RevokeGrant{Grantee: e.address, Asset: s.fee, For: ledger.KindTransfer})

	recoverable := must[crypto.Policy](t)(s.policy(1, s.ring.key(t, m65, "recoverable")).WithRecovery(c.address, crypto.MinRecoveryDelay))
	s.policies[recoverable.Hash()] = recoverable
	s.ops(ledger.OK, e, s.setPolicy(0, e, recoverable))
	next := s.policy(1, s.ring.key(t, sec, "recovered"))
	s.ops(ledger.OK, c, &ledger.StartRecovery{Account: e.address, PolicyHash: next.Hash()})
	s.ops(ledger.OK, e, &ledger.CancelRecovery{Account: e.address})
	s.ops(ledger.OK, c, &ledger.StartRecovery{Account: e.address, PolicyHash: next.Hash()})
	finish := &ledger.FinishRecovery{Account: e.address, Policy: next.Encode()}
	for _, k := range next.Keys {
		finish.Proofs = append(finish.Proofs, s.ring.sign(t, k, ledger.PossessionPreimage(s.network.ID, e.address, next.Hash(), 1<<32-1)))
	}
	s.ops(ledger.RecoveryTooEarly, c, finish)
	s.wait(crypto.MinRecoveryDelay * time.Second)
	s.ops(ledger.OK, c, finish)

	s.ops(ledger.OK, d, &ledger.Transfer{To: a.address, Asset: s.fee, Amount: ledger.MaxAmount, Balancing: ledger.BalancingDebit},
		&ledger.CloseLine{Asset: s.fee, To: a.address}, &ledger.CloseAccount{To: a.address})
	s.do(ledger.SignerClosed, s.transfer(d, a.address, 1))
	operators, member := s.actors[7:11], func(i int) (a ledger.ConsensusAddress) { copy(a[:], s.doc.Validators[i].Address); return a }
	s.ops(ledger.OK, b, &ledger.Bond{Amount: ledger.Units(10)})
	s.ops(ledger.BondExists, b, &ledger.Bond{Amount: ledger.Units(10)})
	s.ops(ledger.OK, b, &ledger.ReleaseBond{})
	fresh := s.ring.key(t, m65, "fresh consensus key")
	add := &ledger.AddValidator{Operator: b.address, Scheme: fresh.Scheme, PublicKey: fresh.Public, Power: 10,
		Proof: s.ring.sign(t, fresh, ledger.ConsensusKeyPreimage(s.network.ID, b.address, fresh.Scheme, fresh.Public))}
	s.ops(ledger.NotValidator, b, &ledger.Propose{Expires: now() + 100, Change: add})
	r := s.ops(ledger.OK, operators[0], &ledger.Propose{Expires: now() + 100, Change: add}, &ledger.Propose{Expires: now() + 100, Change: &ledger.RemoveValidator{Validator: member(4)}})
	for i, o := range operators[1:] { // 40 of 50 decide
		if r := s.ops(ledger.OK, o, &ledger.Approve{Proposal: r.Results[0].Proposal}); r.Results[0].Executed != (i == 2) {
			t.Errorf("approval %d is %+v", i, r.Results[0])
		}
	}
	s.ops(ledger.Unchanged, operators[0], &ledger.Approve{Proposal: r.Results[1].Proposal})
	s.ops(ledger.ValidatorNotInactive, operators[1], &ledger.Reactivate{})
	for range 5 { // three of them in one window of ten blocks
		away := member(1)
		s.b.missed = [][]byte{away[:]}
		s.wait(0)
	}
	s.ops(ledger.OK, operators[1], &ledger.Reactivate{})
	for k := ledger.KindTransfer; k.String() != "unknown"; k++ {
		if !s.seen[k] {
			t.Errorf("no %s was simulated", k)
		}
	}
	audit(t, s.app)
}

// TestSimulationIsBounded: what is no transaction, or too long, is refused; and only so many run at once.
func TestSimulationIsBounded(t *testing.T) {
	s := startSimulated(t)
	raw := s.transfer(s.bank, s.actors[1].address, 1)
	for name, data := range map[string][]byte{"nothing": nil, "garbage": {1, 2, 3}, "cut off": raw[:len(raw)-1], "more behind": append(bytes.Clone(raw), 0),
		"too long": make([]byte, ledger.MaxTxBytes+1)} {
		if r := ask(t, s.app, abci.RequestQuery{Path: query.PathSimulate, Data: data}); r.Code != query.Malformed || r.Value != nil || r.Log == "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := ask(t, s.app, abci.RequestQuery{Path: query.PathNetwork, Data: make([]byte, query.MaxData+1)}); r.Code != query.Malformed {
		t.Errorf("a long question on another path: %+v", r)
	}
	for range cap(s.app.simulations) {
		s.app.simulations <- struct{}{}
	}
	gone, cancel := context.WithCancel(background)
	cancel()
	// The select for a place among all queries may see the context first: both answers are a refusal of the node.
	if r := must[*abci.ResponseQuery](t)(s.app.Query(gone, &abci.RequestQuery{Path: query.PathSimulate, Data: raw})); r.Code != query.Failed || r.Value != nil {
		t.Errorf("a simulation beyond the bound: %+v", r)
	}
	for range cap(s.app.simulations) {
		<-s.app.simulations
	}
	if r := ask(t, s.app, abci.RequestQuery{Path: query.PathSimulate, Data: raw}); r.Code != 0 || len(s.app.simulations) != 0 {
		t.Errorf("with all places free: %+v", r)
	}
	empty := open(t, vfs.NewMem(), nil)
	defer closeApp(t, empty)
	if r := ask(t, empty, abci.RequestQuery{Path: query.PathSimulate, Data: raw}); r.Code != query.NotYet {
		t.Errorf("before genesis: %+v", r)
	}
}

// TestListsAndSearches: the lines and grants of an account are listed in pages, journal entries are found by reference, code
// and hold, and a rollback takes exactly the newest block's rows back.
func TestListsAndSearches(t *testing.T) {
	s := startSimulated(t)
	a, b, c := s.actors[1], s.actors[2], s.actors[3]
	reference := ledger.Reference{1}
	pay := func(n uint64) ledger.Operation {
		return &ledger.Transfer{To: b.address, Asset: s.fee, Amount: ledger.Units(n), Reference: reference, Code: 300}
	}
	find := func(q query.Search) (found []string, next []byte) {
		t.Helper()
		r := ask(t, s.app, abci.RequestQuery{Path: query.PathSearch, Data: q.Encode()})
		if r.Code != 0 {
			t.Fatalf("search %+v: %+v", q, r)
		}
		hits := must[query.Hits](t)(query.DecodeHits(r.Value))
		for _, h := range hits.Entries {
			e := must[ledger.Entry](t)(ledger.DecodeEntry(h.Encoded))
			found = append(found, fmt.Sprintf("%s %s", e.Kind, e.Amount))
		}
		return found, hits.Next
	}
	rows := func() (n int) {
		r := s.app.store.Index()
		defer r.Close()
		if err := r.Range(nil, nil, false, func([]byte, []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.ops(ledger.OK, a, pay(1), pay(2), &ledger.Transfer{To: b.address, Asset: s.fee, Amount: ledger.Units(9)})
	s.ops(ledger.OK, a, pay(3))
	s.ops(ledger.InsufficientFunds, a, pay(4), pay(1<<50))
	made := s.ops(ledger.OK, a, &ledger.CreateHold{To: c.address, Asset: s.fee, Amount: ledger.Units(5), Expires: uint64(s.b.time.Unix()) + 50, PostBy: ledger.ByReceiver, Reference: reference})
	byReference := query.Search{By: query.ByReference, Reference: reference, Limit: 3}
	first, next := find(byReference)
	byReference.After = next
	second, end := find(byReference)
	if want := []string{"transfer 1", "transfer 2", "transfer 3", "hold 5"}; !slices.Equal(append(first, second...), want) || len(first) != 3 || end != nil {
		t.Errorf("by reference %v and %v, want %v", first, second, want)
	}
	for _, x := range []*actor{a, b} {
		if got, _ := find(query.Search{By: query.ByCode, Account: x.address, Code: 300}); !slices.Equal(got, []string{"transfer 1", "transfer 2", "transfer 3"}) {
			t.Errorf("by code of %s: %v", x.name, got)
		}
	}
	if got, _ := find(query.Search{By: query.ByCode, Account: c.address, Code: 300}); got != nil {
		t.Errorf("by code of an account that has none: %v", got)
	}
	// The block in which the hold expires, and back.
	before := rows()
	s.wait(100 * time.Second)
	byHold := query.Search{By: query.ByHold, Hold: made.Results[0].Hold}
	if got, _ := find(byHold); !slices.Equal(got, []string{"hold 5", "expire 5"}) {
		t.Errorf("by hold: %v", got)
	}
	r := s.app.store.Index()
	undo := must[[]ledger.Write](t)(index.Undo(r, uint64(s.b.height)-1, s.network.ID))
	r.Close()
	if len(undo) != rows()-before {
		t.Errorf("%d rows are undone, the block wrote %d", len(undo), rows()-before)
	}
	if err := s.app.store.Rollback(uint64(s.b.height)-2, func(uint64) ([]ledger.Write, error) { return undo, nil }); err != nil {
		t.Fatal(err)
	}
	if got, _ := find(byHold); !slices.Equal(got, []string{"hold 5"}) || rows() != before {
		t.Errorf("by hold after the rollback: %v, %d rows, want %d", got, rows(), before)
	}
}

// TestLists: keys come in pages that go on where the one before has ended, and no other account's are among them.
func TestLists(t *testing.T) {
	s := startSimulated(t)
	a := s.actors[1]
	top := crypto.Address(bytes.Repeat([]byte{0xff}, 32))
	var operations []ledger.Operation
	for i := range ledger.MaxOperations {
		grantee := crypto.Address(sha256.Sum256(fmt.Append(nil, i)))
		operations = append(operations, &ledger.SetGrant{Grantee: grantee, Total: ledger.Units(1), Until: uint64(s.b.time.Unix()) + 9})
	}
	s.ops(ledger.OK, a, operations...)
	s.ops(ledger.OK, a, &ledger.SetGrant{Grantee: top, Total: ledger.Units(1), Until: uint64(s.b.time.Unix()) + 9})
	s.ops(ledger.OK, s.actors[2], &ledger.SetGrant{Grantee: a.address, Total: ledger.Units(1), Until: uint64(s.b.time.Unix()) + 9})
	var all []ledger.GrantKey
	for data := a.address[:]; ; {
		r := ask(t, s.app, abci.RequestQuery{Path: query.PathGrants, Data: data})
		page := must[[]ledger.GrantKey](t)(query.DecodeGrants(r.Value, a.address))
		if all = append(all, page...); len(page) < query.MaxKeys {
			break
		}
		data = ledger.GrantRow(page[len(page)-1])[1:]
	}
	if len(all) != ledger.MaxOperations+1 || all[len(all)-1].Grantee != top {
		t.Errorf("%d grants", len(all))
	}
	r := ask(t, s.app, abci.RequestQuery{Path: query.PathLines, Data: a.address[:]})
	if lines := must[[]ledger.LineKey](t)(query.DecodeLines(r.Value, a.address)); len(lines) != 1 || lines[0] != (ledger.LineKey{Account: a.address, Asset: s.fee}) {
		t.Errorf("lines %v", lines)
	}
	if _, err := query.DecodeLines(r.Value, s.actors[2].address); err == nil {
		t.Error("the lines of another account are taken")
	}
}

// TestListsAndSearchesRefused: what is not a question gets a code that says so.
func TestListsAndSearchesRefused(t *testing.T) {
	s := startSimulated(t)
	search := func(q query.Search, cut int) []byte { d := q.Encode(); return d[:len(d)-cut] }
	for name, c := range map[string]abci.RequestQuery{
		"lines of nobody":        {Path: query.PathLines},
		"lines after half a key": {Path: query.PathLines, Data: make([]byte, 40)},
		"grants after a line":    {Path: query.PathGrants, Data: make([]byte, 48)},
		"search for nothing":     {Path: query.PathSearch},
		"unknown search":         {Path: query.PathSearch, Data: make([]byte, 37)},
		"zero reference":         {Path: query.PathSearch, Data: search(query.Search{By: query.ByReference}, 0)},
		"half a reference":       {Path: query.PathSearch, Data: search(query.Search{By: query.ByReference, Reference: ledger.Reference{1}}, 5)},
		"no limit":               {Path: query.PathSearch, Data: search(query.Search{By: query.ByHold, Hold: crypto.Hash{1}}, 1)},
		"zero code":              {Path: query.PathSearch, Data: search(query.Search{By: query.ByCode, Account: s.bank.address}, 0)},
		"bad cursor":             {Path: query.PathSearch, Data: search(query.Search{By: query.ByHold, Hold: crypto.Hash{1}, After: []byte{1}}, 0)},
		"long cursor":            {Path: query.PathSearch, Data: search(query.Search{By: query.ByHold, Hold: crypto.Hash{1}, After: make([]byte, query.MaxCursor+1)}, 0)},
	} {
		if r := ask(t, s.app, c); r.Code != query.Malformed || r.Log == "" || r.Value != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
