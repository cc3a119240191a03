package mempool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// signed signs a body, whose signers are these people in order, and adds a sponsor unless it is nil.
func (n *net) signed(body ledger.Body, signers []*person, sponsor *ledger.Sponsor, by *person) []byte {
	n.t.Helper()
	encoded := body.Encode()
	var witnesses []ledger.Witness
	sign := func(p *person, message []byte) {
		signature, err := p.key.Sign(message)
		if err != nil {
			n.t.Fatal(err)
		}
		witnesses = append(witnesses, ledger.Witness{Signer: uint32(len(witnesses)), Signature: signature})
	}
	for _, p := range signers {
		sign(p, ledger.Preimage(n.id, encoded, p.version))
	}
	if sponsor != nil {
		sign(by, ledger.SponsorPreimage(n.id, encoded, sponsor, by.version))
	}
	return ledger.Assemble(encoded, witnesses, sponsor)
}

// single makes a transaction of one signer with a sequence.
func (n *net) single(p *person, sequence, maxFee uint64, operations ...ledger.Operation) []byte {
	body := ledger.Body{Signers: []ledger.Signer{{Address: p.Address, Sequence: sequence, Policy: p.policy}}, MaxFee: ledger.Units(maxFee),
		MaxDeposit: ledger.Units(1 << 40), Operations: operations}
	return n.signed(body, []*person{p}, nil, nil)
}

func (n *net) transfer(to *person, amount uint64) *ledger.Transfer {
	return &ledger.Transfer{To: to.Address, Asset: n.asset, Amount: ledger.Units(amount)}
}

// funds returns what an account can spend by the committed state.
func (n *net) funds(a crypto.Address) ledger.Amount {
	n.t.Helper()
	var line ledger.Line
	var asset ledger.Asset
	k := ledger.LineKey{Account: a, Asset: n.asset}
	if err := readRow(n.state, ledger.LineRow(k), &line, ledger.DecodeLine); err != nil {
		n.t.Fatal(err)
	}
	if err := readRow(n.state, ledger.AssetRow(n.asset), &asset, ledger.DecodeAsset); err != nil {
		n.t.Fatal(err)
	}
	return line.Spendable(asset, k)
}

// reserved checks that the pool's purses hold what the committed state says, and that nobody's claims exceed it.
func (n *net) reserved() {
	n.t.Helper()
	n.verify()
	n.pool.mu.Lock()
	defer n.pool.mu.Unlock()
	for k, p := range n.pool.waiting.purses {
		if k.isGrant() {
			continue
		}
		if funds := n.funds(k.account); p.funds != funds {
			n.t.Fatalf("the pool says that %s has %s, the state says %s", k.account, p.funds, funds)
		}
		if p.claims.Len() > 1 && p.claimed.Cmp(p.funds) > 0 {
			n.t.Fatalf("%d claims of %s on %s, which has %s", p.claims.Len(), p.claimed, k.account, p.funds)
		}
	}
}

func TestSpamCostsTheSpammer(t *testing.T) {
	const fee, k = 600, 7 // more than a payment costs, and less than twice as much
	n := newNetOf(t, 3, k*fee, ledger.DefaultParameters().WithoutDeposits(), func(c *Config) { c.MaxTxs = 600 })
	spammer, other, third := n.people[0], n.people[1], n.people[2]
	before := n.single(other, 1, fee, n.transfer(third, 1))
	if v := n.pool.Check(context.Background(), before); v.Code != ledger.OK {
		t.Fatalf("%s: %s", v.Code, v.Message)
	}
	accepted := 0
	for i := range uint64(1000) {
		sequence := i + 1
		if i%3 == 0 {
			sequence = 1 + i%400 // also ahead of what is next, and what is taken
		}
		switch v := n.pool.Check(context.Background(), n.single(spammer, sequence, fee, n.transfer(third, 1))); {
		case v.Code == ledger.OK:
			accepted++
		case v.Code == FeesHeld && (!v.Retry || !strings.Contains(v.Message, "can spend 4200") || !strings.Contains(v.Message, "reserve")):
			t.Fatalf("%+v", v)
		case v.Code != FeesHeld && v.Code != ledger.SequenceUsed && v.Code != ledger.SequenceGap:
			t.Fatalf("payment %d: %s: %s", i, v.Code, v.Message)
		}
	}
	n.reserved()
	s := n.pool.Stats()
	if waits := s.Ready + s.Parked - 1; waits > k || waits < k-2 {
		t.Errorf("%d of the spammer's transactions wait, it can pay for %d", waits, k)
	}
	if n.pool.TxOf(before) == nil {
		t.Error("another's transaction went")
	}
	if v := n.pool.Check(context.Background(), n.single(third, 1, fee, n.transfer(other, 1))); v.Code != ledger.OK {
		t.Errorf("another's transaction gets %s: %s", v.Code, v.Message)
	}
	if refused := n.commit(n.pool.Propose(everything)); refused != 0 {
		t.Errorf("%d are refused", refused)
	}
	n.reserved()
}

func TestNobodyRidesBehindOneThatEmptiesTheAccount(t *testing.T) {
	n := newNet(t, 3, nil)
	a, b := n.people[0], n.people[1]
	all := n.transfer(b, balance)
	all.Balancing = ledger.BalancingDebit
	held := func(raw []byte) {
		t.Helper()
		if v := n.pool.Check(context.Background(), raw); v.Code != FeesHeld || !v.Retry {
			t.Fatalf("%s: %s", v.Code, v.Message)
		}
	}
	welcome := func(raw []byte) {
		t.Helper()
		if v := n.pool.Check(context.Background(), raw); v.Code != ledger.OK {
			t.Fatalf("%s: %s", v.Code, v.Message)
		}
	}
	welcome(n.single(a, 1, 2000, all)) // alone it may pay out everything
	for s := uint64(2); s < 100; s++ {
		held(n.single(a, s, 2000, n.transfer(b, 1)))
	}
	// Nor does it come behind others, in whatever order they would be executed.
	welcome(n.single(b, 2, 2000, n.transfer(a, 1)))
	whole := *all
	whole.To = a.Address
	held(n.single(b, 3, 2000, &whole))
	welcome(n.single(b, 1, 2000, n.transfer(a, balance/2)))
	// A hold takes as a transfer does.
	hold := &ledger.CreateHold{To: a.Address, Asset: n.asset, Amount: ledger.Units(balance / 2), Expires: genesisSeconds + 100, PostBy: ledger.ByReceiver}
	held(n.single(b, 3, 2000, hold))
	// Another asset is no matter of the fees'.
	other := *hold
	other.Asset = ledger.AssetID{1}
	welcome(n.single(b, 3, 2000, &other))
	n.reserved()
	if refused := n.commit(n.pool.Propose(everything)); refused != 0 {
		t.Errorf("%d are refused", refused)
	}
	n.reserved()
	if s := n.pool.Stats(); s.Ready+s.Parked != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRisingFees(t *testing.T) {
	p := ledger.DefaultParameters().WithoutDeposits()
	p.FeeTargetWeight = 300 // every block with two transactions is full
	n := newNetOf(t, 4, 1_000_000, p, nil)
	a, b, c := n.people[0], n.people[1], n.people[2]
	low := n.single(c, 2, 700, n.transfer(a, 1)) // parked: its turn never comes
	generous := n.single(b, 2, 100_000, n.transfer(a, 999_000))
	for _, raw := range [][]byte{low, generous, n.single(n.people[3], 5, 700, n.transfer(a, 1))} {
		if v := n.pool.Check(context.Background(), raw); v.Code != ledger.OK {
			t.Fatalf("%s: %s", v.Code, v.Message)
		}
	}
	sequence := uint64(0)
	for range 20 {
		sequence += 2
		n.commit([][]byte{n.single(a, sequence-1, 100_000, n.transfer(b, 1)), n.single(a, sequence, 100_000, n.transfer(c, 1))})
		n.reserved()
	}
	if n.pool.TxOf(low) != nil {
		t.Error("one whose fee is above its max_fee still waits")
	}
	if n.pool.TxOf(generous) == nil {
		t.Error("one that is alone on its account, and can pay its fee, went")
	}
	if s := n.pool.Stats(); s.Dropped != 2 {
		t.Errorf("%+v", s)
	}
	if v := n.pool.Check(context.Background(), low); v.Code != ledger.FeeAboveMaximum || v.Retry {
		t.Errorf("sent again it gets %s", v.Code)
	}
}

func TestASponsorsRotation(t *testing.T) {
	n := newNet(t, 3, nil)
	a, sponsor := n.people[0], n.people[1]
	body := ledger.Body{Signers: []ledger.Signer{{Address: a.Address, Sequence: 1, Policy: a.policy}}, Operations: []ledger.Operation{n.transfer(n.people[2], 1)}}
	raw := n.signed(body, []*person{a}, &ledger.Sponsor{Address: sponsor.Address, MaxFee: ledger.Units(5000), Policy: sponsor.policy}, sponsor)
	if v := n.pool.Check(context.Background(), raw); v.Code != ledger.OK {
		t.Fatalf("%s: %s", v.Code, v.Message)
	}
	rotation := payment{from: []*person{sponsor}, sequence: []uint64{1}, policy: []byte("rotated")}
	n.accept(rotation)
	block := n.pool.Propose(everything)
	if len(block) != 2 || string(block[0]) != string(raw) {
		t.Errorf("proposed %s", n.names(block))
	}
	n.commit([][]byte{n.build(rotation)}) // another node's block, without the sponsored one
	n.settle()
	n.verify()
	if s := n.pool.Stats(); s.Ready+s.Parked != 0 || s.Refused != 1 {
		t.Errorf("%+v: want the sponsored one judged again, and refused", s)
	}
}

// dealer makes random transactions of people who pay for each other.
type dealer struct {
	*net
	r    *rand.Rand
	next map[*person]uint64
}

func (d *dealer) who() *person { return d.people[d.r.IntN(len(d.people))] }

func (d *dealer) other(than *person) *person {
	for {
		if p := d.who(); p != than {
			return p
		}
	}
}

func (d *dealer) deal() []byte {
	r, a := d.r, d.who()
	signers := []*person{a}
	if r.IntN(5) == 0 {
		signers = append(signers, d.other(a))
	}
	now := d.last.UnixMillis / 1000
	body := ledger.Body{MaxFee: ledger.Units(500 + r.Uint64N(5000)), MaxDeposit: ledger.Units(20_000 * r.Uint64N(3)), ValidUntil: now + 1 + r.Uint64N(6)}
	for _, p := range signers {
		s := ledger.Signer{Address: p.Address, Policy: p.policy}
		if r.IntN(3) == 0 {
			s.Nonce[0], s.Nonce[1] = byte(r.Uint32()), 1
		} else {
			s.Sequence = d.next[p] + 1 + uint64(max(0, r.IntN(7)-3))
		}
		body.Signers = append(body.Signers, s)
	}
	amount := func() ledger.Amount {
		if r.IntN(6) == 0 {
			return ledger.MaxAmount
		}
		return ledger.Units(1 + r.Uint64N(uint64(1)<<r.IntN(18)))
	}
	for range 1 + r.IntN(3) {
		by := uint32(r.IntN(len(signers)))
		signer := signers[by]
		var op ledger.Operation
		switch r.IntN(9) {
		case 0, 1, 2:
			op = &ledger.Transfer{From: by, To: d.other(signer).Address, Asset: d.asset, Amount: amount(), Balancing: ledger.Balancing(r.IntN(2))}
		case 3:
			granter := d.other(signer)
			op = &ledger.Transfer{From: by, To: d.other(granter).Address, Asset: d.asset, Amount: amount(), Granter: granter.Address, Balancing: ledger.Balancing(r.IntN(2))}
		case 4:
			op = &ledger.CreateHold{Signer: by, To: d.other(signer).Address, Asset: d.asset, Amount: amount(), Expires: now + 1 + r.Uint64N(20), PostBy: ledger.ByReceiver}
		case 5, 6:
			g := &ledger.SetGrant{Signer: by, Grantee: d.other(signer).Address, Total: ledger.Units(5000 + r.Uint64N(20_000)), Until: now + 5 + r.Uint64N(30)}
			if r.IntN(2) == 0 {
				g.For, g.Asset = ledger.KindTransfer, d.asset
			}
			op = g
		case 7:
			op = &ledger.RevokeGrant{Signer: by, Grantee: d.other(signer).Address, For: ledger.KindFees}
		case 8:
			op = &ledger.CreateAsset{Issuer: by, Code: fmt.Sprint("A", r.IntN(10_000), "X"), MaxSupply: ledger.Units(1)}
		}
		body.Operations = append(body.Operations, op)
	}
	involved := func(p *person) bool { return p == signers[0] || p == signers[len(signers)-1] }
	switch payer := d.who(); {
	case involved(payer):
	case r.IntN(3) == 0:
		return d.signed(body, signers, &ledger.Sponsor{Address: payer.Address, MaxFee: body.MaxFee, MaxDeposit: body.MaxDeposit, Policy: payer.policy}, payer)
	case r.IntN(2) == 0: // with a grant that there is, if any
		for _, p := range d.people {
			k := ledger.GrantKey{Granter: p.Address, Grantee: a.Address}
			if d.state[string(ledger.GrantRow(k))] != nil && !involved(p) {
				body.FeeGranter = p.Address
			}
		}
	}
	return d.signed(body, signers, nil, nil)
}

// TestReservations makes random traffic of people who pay for themselves, for others as sponsors, and under grants, with
// blocks at random and fees that rise and fall. At any time the claims on an account stay within what it can spend, and
// the ledger refuses nothing of a proposal but what another transaction of the same block has spoilt: by its grants.
func TestReservations(t *testing.T) {
	verdicts, spoilt, proposed, highest := map[ledger.Code]int{}, 0, 0, uint32(0)
	for seed := range uint64(8) {
		p := ledger.DefaultParameters()
		p.FeeTargetWeight, p.MaxFeeMultiplier, p.DepositAccount, p.DepositGrant, p.DepositHold = 4000, 20_000, 700, 300, 100
		n := newNetOf(t, 7, 60_000, p, func(c *Config) { c.MaxGap = 8 })
		d := &dealer{net: n, r: rand.New(rand.NewPCG(seed, 3)), next: map[*person]uint64{}}
		for range 60 {
			for range d.r.IntN(40) {
				raw := d.deal()
				v := n.pool.Check(context.Background(), raw)
				verdicts[v.Code]++
			}
			n.reserved()
			block := n.pool.Propose([]int64{everything, 4000}[d.r.IntN(2)])
			if d.r.IntN(3) == 0 { // another node's: some of ours, and what our pool has not seen
				block = append([][]byte{d.deal(), d.deal()}, block[:d.r.IntN(len(block)+1)]...)
			} else {
				proposed += len(block)
				spoilt += n.applies(block)
			}
			done, dropped := n.execute(block)
			n.pool.Committed(n.last, done, n.wrote)
			for tx, code := range dropped {
				n.pool.Refused(tx.Hash(), code)
			}
			n.settle() // some pass through admission again
			n.reserved()
			for _, person := range n.people {
				var account ledger.Account
				if err := readRow(n.state, ledger.AccountRow(person.Address), &account, ledger.DecodeAccount); err != nil {
					t.Fatal(err)
				}
				d.next[person] = account.Sequence
			}
			var rate ledger.FeeRate
			if err := readRow(n.state, ledger.FeeRateRow(), &rate, ledger.DecodeFeeRate); err != nil {
				t.Fatal(err)
			}
			highest = max(highest, rate.Multiplier)
		}
	}
	for _, code := range []ledger.Code{ledger.OK, FeesHeld, ledger.FeeAboveMaximum, ledger.FeeUnpayable, ledger.FeeGrantUnusable} {
		if verdicts[code] < 10 {
			t.Errorf("only %d verdicts %s", verdicts[code], code)
		}
	}
	if proposed < 1000 || highest < 1500 {
		t.Errorf("%d proposed, multiplier up to %d: the test tests too little", proposed, highest)
	}
	t.Logf("%d proposed, of which %d spoilt; multiplier up to %d; verdicts %v", proposed, spoilt, highest, verdicts)
}

// applies applies a proposal at the time of the last block and returns how many are refused because of what another one of
// it did to a grant. Any other refusal is an error.
func (n *net) applies(txs [][]byte) (spoilt int) {
	n.t.Helper()
	block, err := ledger.NewBlock(n.state, n.last, n.cache)
	if err != nil {
		n.t.Fatal(err)
	}
	granted := map[crypto.Address]bool{} // granters whose grants the block has made or ended
	refused := map[crypto.Address]bool{} // signers of what was refused: what follows has a gap
	for _, raw := range txs {
		tx := n.decode(raw)
		r, err := block.Apply(tx)
		if err != nil {
			n.t.Fatal(err)
		}
		if r.Code.Refused() {
			gap := false
			for _, s := range tx.Body.Signers {
				gap = gap || r.Code == ledger.SequenceGap && refused[s.Address]
			}
			if !gap && !granted[tx.Payer()] {
				n.t.Fatalf("of the proposal the ledger refuses %s: %s", n.names([][]byte{raw}), r.Code)
			}
			for _, s := range tx.Body.Signers {
				refused[s.Address] = true
			}
			spoilt++
			continue
		}
		for _, op := range tx.Body.Operations {
			switch op.(type) {
			case *ledger.SetGrant, *ledger.RevokeGrant:
				granted[tx.Body.Signers[op.By()].Address] = true
			}
		}
	}
	return spoilt
}
