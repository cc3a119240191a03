package client_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func powers(list ...uint64) (set []ledger.Validator) {
	for i, p := range list {
		key := sha256.Sum256(fmt.Append(nil, i))
		set = append(set, ledger.Validator{Scheme: crypto.Ed25519, PublicKey: key[:], Power: p})
	}
	return set
}

// TestStrengthOf: the worst case is that the largest powers fail first.
func TestStrengthOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		powers  []uint64
		quorum  uint64
		mayFail int
	}{
		{[]uint64{10}, 7, 0}, {[]uint64{10, 10, 10}, 21, 0}, {[]uint64{10, 10, 10, 10}, 27, 1}, {[]uint64{10, 10, 10, 10, 10}, 34, 1},
		{[]uint64{10, 10, 10, 10, 10, 10, 10}, 47, 2}, {[]uint64{40, 10, 10, 10, 10}, 54, 0}, {[]uint64{25, 25, 25, 15, 10, 10}, 74, 1}, {nil, 1, 0},
		{[]uint64{10, 10, 10, 10, 0}, 27, 1},
	} {
		s := client.StrengthOf(powers(c.powers...))
		if s.Quorum != c.quorum || s.MayFail != c.mayFail {
			t.Errorf("%v: %+v, want quorum %d and %d", c.powers, s, c.quorum, c.mayFail)
		}
	}
	set := powers(10, 10, 10, 10)
	set[3].Power, set[3].InactivePower = 0, 10
	if s := client.StrengthOf(set); s.Active != 3 || s.Inactive != 1 || s.Power != 30 || s.MayFail != 0 {
		t.Errorf("with an inactive one: %+v", s)
	}
}

// operator is an account that operates a validator in these tests.
type operator struct {
	*client.Keys
	consensus ed25519.PrivKey
}

func newOperator(name string) operator {
	return operator{clienttest.Signer(name), ed25519.GenPrivKeyFromSecret([]byte(name))}
}

// TestChanged compares what Changed says about random changes of random sets with what the ledger does when a vote is decided.
// One operator has more than two thirds of the power, so that what it proposes is decided at once.
func TestChanged(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	seen, formers := map[ledger.Code]int{}, map[ledger.Code]int{}
	for round := range 60 {
		big := newOperator("big")
		doc, keys := clienttest.Doc("vote", time.Unix(1_700_000_000, 0), big.Address())
		genesis, err := client.GenesisFromDoc(doc)
		if err != nil {
			t.Fatal(err)
		}
		genesis.State.Parameters.Bond, genesis.State.Parameters.BondSeconds = uint64(random.IntN(2))*500_000_000, 40
		operators := []operator{big}
		for i := range keys {
			genesis.Validators[i].Power = 1 + random.Uint64N(30)
			if i == 0 {
				genesis.Validators[i].Power = 240 + random.Uint64N(400)
			} else {
				operators = append(operators, newOperator(fmt.Sprint("small ", i)))
			}
			name := operators[i].Address()
			genesis.State.Validators[i] = ledger.GenesisValidator{PubKey: genesis.Validators[i].PublicKey, Operator: name}
			if i > 0 {
				genesis.State.Accounts = append(genesis.State.Accounts, ledger.GenesisAccount{Address: name, Balances: []ledger.GenesisBalance{{Asset: "PAC", Amount: "600"}}})
			}
		}
		slices.SortFunc(genesis.State.Accounts, func(a, b ledger.GenesisAccount) int { return slices.Compare(a.Address[:], b.Address[:]) })
		outcome, network, err := genesis.Outcome()
		if err != nil {
			t.Fatal(err)
		}
		state := ledger.Memory{}
		for _, w := range outcome.Writes {
			state[string(w.Key)] = w.Value
		}
		set, err := ledger.DecodeValidators(state[string(ledger.ValidatorsRow())])
		if err != nil {
			t.Fatal(err)
		}
		parameters, err := ledger.DecodeParameters(state[string(ledger.ParametersRow())])
		if err != nil {
			t.Fatal(err)
		}
		at := client.Circumstances{Parameters: parameters, Second: 1_700_000_100}
		for range 40 {
			change := randomChange(random, network.ID, set, operators)
			at.Second, at.Bonded = at.Second+random.Uint64N(20), ledger.Amount{}
			if add, ok := change.(*ledger.AddValidator); ok {
				if row := state[string(ledger.HoldRow(ledger.BondID(add.Operator)))]; row != nil {
					bond, err := ledger.DecodeHold(row)
					if err != nil {
						t.Fatal(err)
					}
					at.Bonded = bond.Amount
				}
			}
			want, code := client.Changed(set, change, at)
			got, row, receipt := enacted(t, state, network, parameters, big, change, at.Second)
			if receipt.Code != code {
				t.Fatalf("round %d: %s of %+v: the ledger says %s, Changed says %s", round, change.Kind(), set, receipt.Code, code)
			}
			if code == ledger.OK && !slices.EqualFunc(got, want, sameValidator) {
				t.Fatalf("round %d: %s of %+v:\nledger  %+v\nChanged %+v", round, change.Kind(), set, got, want)
			}
			seen[code]++
			former := slices.IndexFunc(set, func(v ledger.Validator) bool { return !v.Present() && brings(change, v) })
			if former >= 0 {
				formers[code]++
			}
			if client.TallyOf(got, []crypto.Address{big.Address()}).Decided() { // the next change meets what this one has left
				state[string(ledger.ValidatorsRow())], set = row, got
			}
		}
	}
	if formers[ledger.OK] == 0 || formers[ledger.ValidatorExists] == 0 {
		t.Errorf("changes that bring the key of a former validator came out as %v", formers)
	}
	for _, code := range []ledger.Code{ledger.OK, ledger.ValidatorExists, ledger.ValidatorUnknown, ledger.ValidatorQuorumLost, ledger.BondMissing, ledger.Unchanged} {
		if seen[code] == 0 {
			t.Errorf("no change came out as %s: %v", code, seen)
		}
	}
}

// brings tells whether a change brings in the key of a validator.
func brings(change ledger.Change, v ledger.Validator) bool {
	switch c := change.(type) {
	case *ledger.AddValidator:
		return slices.Equal(c.PublicKey, v.PublicKey)
	case *ledger.RotateKey:
		return slices.Equal(c.PublicKey, v.PublicKey)
	}
	return false
}

func sameValidator(a, b ledger.Validator) bool {
	return a.Address() == b.Address() && a.Power == b.Power && a.InactivePower == b.InactivePower && a.Operator == b.Operator && a.Left == b.Left && a.Name == b.Name
}

func randomChange(random *rand.Rand, network crypto.Hash, set []ledger.Validator, operators []operator) ledger.Change {
	one := set[random.IntN(len(set))]
	unknown := ledger.ConsensusAddress{1}
	address := one.Address()
	if random.IntN(6) == 0 {
		address = unknown
	}
	fresh := newOperator(fmt.Sprint("new ", random.IntN(3)))
	prove := func(operator crypto.Address, key ed25519.PrivKey) (public, proof []byte) {
		public = key.PubKey().Bytes()
		proof, err := key.Sign(ledger.ConsensusKeyPreimage(network, operator, crypto.Ed25519, public))
		if err != nil {
			panic(err)
		}
		return public, proof
	}
	power := 1 + random.Uint64N(40)
	if random.IntN(4) == 0 {
		power = 5_000
	}
	switch random.IntN(4) {
	case 0:
		who := fresh.Address()
		if random.IntN(3) == 0 {
			who = operators[random.IntN(len(operators))].Address()
		}
		c := &ledger.AddValidator{Operator: who, Scheme: crypto.Ed25519, Power: power, Name: "new"}
		c.PublicKey, c.Proof = prove(who, fresh.consensus)
		return c
	case 1:
		return &ledger.RemoveValidator{Validator: address}
	case 2:
		if random.IntN(5) == 0 {
			power = max(one.Power, 1)
		}
		return &ledger.SetPower{Validator: address, Power: power}
	}
	c := &ledger.RotateKey{Validator: address, Operator: one.Operator, Scheme: crypto.Ed25519}
	c.PublicKey, c.Proof = prove(one.Operator, fresh.consensus)
	return c
}

// enacted proposes a change in a block over a state, and returns the set after it, and its row.
func enacted(t *testing.T, state ledger.Memory, network ledger.Network, p ledger.Parameters, by operator, change ledger.Change, second uint64) ([]ledger.Validator, []byte, ledger.Receipt) {
	t.Helper()
	policy := by.Policy()
	body := ledger.Body{Signers: []ledger.Signer{{Address: by.Address(), Sequence: 1, Policy: policy.Encode()}}, MaxFee: ledger.Units(1 << 40), MaxDeposit: ledger.Units(1 << 40),
		Operations: []ledger.Operation{&ledger.Propose{Expires: second + 3600, Change: change}}}
	account := []client.SigningAccount{{Policy: policy}}
	// The client's fee is the ledger's, for every kind of change.
	ceiling, err := client.FeeCeiling(p, ledger.FeeRate{Multiplier: 1000}, body.Encode(), account)
	if err != nil {
		t.Fatal(err)
	}
	body.MaxFee = ceiling
	d, err := client.NewDraft(network, body.Encode(), account)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sign(by); err != nil {
		t.Fatal(err)
	}
	raw, err := d.Raw()
	if err != nil {
		t.Fatal(err)
	}
	tx, err := ledger.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ledger.NewBlock(state, ledger.Header{Height: 2, UnixMillis: second * 1000}, ledger.Direct{})
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := block.Apply(tx)
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Code.Refused() {
		t.Fatalf("%s is refused: %s", change.Kind(), receipt.Code)
	}
	if receipt.Code == ledger.OK && !receipt.Results[0].Executed {
		t.Fatalf("%s was not decided by who has two thirds", change.Kind())
	}
	outcome, err := block.End(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	row := state[string(ledger.ValidatorsRow())]
	for _, w := range outcome.Writes {
		if string(w.Key) == string(ledger.ValidatorsRow()) {
			row = w.Value
		}
	}
	set, err := ledger.DecodeValidators(row)
	if err != nil {
		t.Fatal(err)
	}
	return set, row, receipt
}

// TestTallyOf: approvals count by the present set, and only those of operators of active validators.
func TestTallyOf(t *testing.T) {
	t.Parallel()
	a, b, c, gone := crypto.Address{1}, crypto.Address{2}, crypto.Address{3}, crypto.Address{4}
	set := powers(10, 10, 10, 10)
	set[0].Operator, set[1].Operator, set[2].Operator = a, b, c // the last has none
	for _, x := range []struct {
		approvals []crypto.Address
		power     uint64
		decided   bool
	}{{[]crypto.Address{a}, 10, false}, {[]crypto.Address{a, gone}, 10, false}, {[]crypto.Address{a, b}, 20, false}, {[]crypto.Address{a, b, c}, 30, true}, {[]crypto.Address{{}}, 0, false}} {
		tally := client.TallyOf(set, x.approvals)
		if tally.Power != x.power || tally.Decided() != x.decided || tally.Needed != 27 || len(tally.Open) != 3-int(x.power/10) {
			t.Errorf("%v: %+v", x.approvals, tally)
		}
	}
	set[2].Power, set[2].InactivePower = 0, 10
	if tally := client.TallyOf(set, []crypto.Address{a, b, c}); tally.Power != 20 || tally.Total != 30 || tally.Decided() {
		t.Errorf("an inactive one votes: %+v", tally)
	}
}

// TestVote: a proposal is made, read with its approvals, approved and decided; every step of it is proven.
func TestVote(t *testing.T) {
	t.Parallel()
	var funded []crypto.Address
	for i := range 4 {
		funded = append(funded, clienttest.Operator(i).Address())
	}
	chain := clienttest.New(t, "vote", funded...)
	chain.Run(5 * time.Millisecond)
	c := dial(t, chain.Serve())
	set, err := c.Validators(t.Context(), 0)
	if err != nil || client.StrengthOf(set.Value) != (client.Strength{Active: 4, Power: 4, Quorum: 3, MayFail: 1}) {
		t.Fatalf("%+v, %v", set, err)
	}
	for _, v := range set.Value {
		if !slices.Contains(funded, v.Operator) || v.Name == "" {
			t.Errorf("validator %+v", v)
		}
	}
	row, err := c.Row(t.Context(), ledger.ParametersRow(), 0)
	if err != nil {
		t.Fatal(err)
	}
	next, err := ledger.DecodeParameters(row.Value)
	if err != nil {
		t.Fatal(err)
	}
	next.FeeBase++
	vote := func(i int, op ledger.Operation) ledger.OperationResult {
		t.Helper()
		by := clienttest.Operator(i)
		built, err := c.Build(t.Context(), client.Intent{Signers: []crypto.Address{by.Address()}, Known: []crypto.Policy{by.Policy()}, Operations: []ledger.Operation{op}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := built.Sign(by); err != nil {
			t.Fatal(err)
		}
		raw, err := built.Raw()
		if err != nil {
			t.Fatal(err)
		}
		final, err := c.Send(t.Context(), raw, built.Before)
		if err != nil || final.Receipt.Code != ledger.OK {
			t.Fatalf("%+v, %v", final.Receipt, err)
		}
		return final.Receipt.Results[0]
	}
	expires := uint64(row.Time.Unix()) + 3600
	id := vote(0, &ledger.Propose{Expires: expires, Change: &ledger.SetParameters{Before: ledger.ParametersHash(row.Value), Parameters: next}}).Proposal
	other := vote(1, &ledger.Propose{Expires: expires + 1, Change: &ledger.RemoveValidator{Validator: set.Value[0].Address()}}).Proposal
	list, err := c.Proposals(t.Context(), 0)
	if err != nil || len(list.Rows) != 2 || list.Rows[0].ID != id || list.Rows[1].ID != other || list.Rows[0].Proposal.Proposer != clienttest.Operator(0).Address() {
		t.Fatalf("%+v, %v", list, err)
	}
	if r := vote(1, &ledger.Approve{Proposal: id}); r.Executed {
		t.Error("decided by half")
	}
	if p, err := c.Proposal(t.Context(), id, 0); err != nil || len(p.Value.Approvals) != 2 || client.TallyOf(set.Value, p.Value.Approvals).Power != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if r := vote(2, &ledger.Approve{Proposal: id}); !r.Executed {
		t.Error("not decided by three of four")
	}
	vote(1, &ledger.Approve{Proposal: other, Withdraw: true})
	if list, err = c.Proposals(t.Context(), 0); err != nil || len(list.Rows) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if p, err := c.Parameters(t.Context(), 0); err != nil || p.Value.FeeBase != next.FeeBase {
		t.Errorf("fee_base is %d, %v, want %d", p.Value.FeeBase, err, next.FeeBase)
	}
	if bond, err := c.Bond(t.Context(), funded[0], 0); err != nil || bond.Present {
		t.Errorf("%+v, %v", bond, err)
	}
	if missed, err := c.Missed(t.Context(), set.Value[0].Address(), 0); err != nil || missed.Present {
		t.Errorf("%+v, %v", missed, err)
	}
}
