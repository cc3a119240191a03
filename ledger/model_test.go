package ledger

import (
	"fmt"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// model is the ledger written a second time, naively: maps, unbounded integers, no undo log, no rows. It knows accounts and
// assets by name.
type model struct {
	seconds  uint64
	window   uint64
	maxOpen  int
	base     int64
	perByte  int64
	perOp    int64
	balances map[string]*big.Int // "account/asset"; of an issuer: minus what it has issued
	issuers  map[string]string   // by asset
	supplies map[string]*big.Int
	seqs     map[string]uint64
	known    map[string]bool
	policies map[string]string // the key that an account signs with now
	nonces   map[string]uint64 // "account/until/nonce" to until
}

func (m *model) balance(account, asset string) *big.Int {
	b := m.balances[account+"/"+asset]
	if b == nil {
		b = new(big.Int)
		m.balances[account+"/"+asset] = b
	}
	return b
}

func (m *model) clone() map[string]*big.Int {
	c := map[string]*big.Int{}
	for k, v := range m.balances {
		c[k] = new(big.Int).Set(v)
	}
	return c
}

// pay moves money, or says why not.
func (m *model) pay(from, to, asset string, amount *big.Int) Code {
	issuer, ok := m.issuers[asset]
	if !ok {
		return AssetUnknown
	}
	left := new(big.Int).Sub(m.balance(from, asset), amount)
	switch {
	case from == issuer && new(big.Int).Neg(left).Cmp(m.supplies[asset]) > 0:
		return SupplyExceeded
	case from != issuer && left.Sign() < 0:
		return InsufficientFunds
	}
	m.balances[from+"/"+asset] = left
	m.balance(to, asset).Add(m.balance(to, asset), amount)
	return OK
}

type modelOp struct {
	kind   string // pay, create, rekey
	by     int
	to     string
	asset  string
	amount *big.Int
	key    string
}

type modelTx struct {
	signers []string
	seqs    []uint64 // 0: the nonce
	nonce   string
	until   uint64
	carry   []bool
	keys    []string // who signs for each signer
	maxFee  int64
	size    int
	ops     []modelOp
}

func (m *model) apply(tx modelTx) (Code, int64) {
	if tx.until != 0 && tx.until <= m.seconds {
		return Expired, 0
	}
	for _, s := range tx.seqs {
		if s == 0 && tx.until > m.seconds+m.window {
			return ValidUntilTooFar, 0
		}
	}
	least := func(codes []Code) Code {
		code := OK
		for _, c := range codes {
			if c != OK && (code == OK || c < code) {
				code = c
			}
		}
		return code
	}
	var codes []Code
	for i, s := range tx.signers {
		switch {
		case !tx.carry[i] && !m.known[s]:
			codes = append(codes, PolicyUnknown)
		case tx.carry[i] && m.policies[s] != s: // what is carried is always the first policy
			codes = append(codes, PolicyMismatch)
		}
	}
	if c := least(codes); c != OK {
		return c, 0
	}
	fresh := 0
	for i, s := range tx.signers {
		switch {
		case tx.seqs[i] == 0:
			fresh++
			if _, used := m.nonces[fmt.Sprint(s, tx.until, tx.nonce)]; used {
				codes = append(codes, NonceUsed)
			}
		case tx.seqs[i] <= m.seqs[s]:
			codes = append(codes, SequenceUsed)
		case tx.seqs[i] > m.seqs[s]+1:
			codes = append(codes, SequenceGap)
		}
	}
	if fresh > 0 && len(m.nonces)+fresh > m.maxOpen {
		codes = append(codes, ReplayFull)
	}
	if c := least(codes); c != OK {
		return c, 0
	}
	fee := m.base + m.perByte*int64(tx.size) + m.perOp*int64(len(tx.ops))
	if fee > tx.maxFee {
		return FeeAboveMaximum, 0
	}
	payer := tx.signers[0]
	if m.pay(payer, "pot", "EUR", big.NewInt(fee)) != OK {
		return FeeUnpayable, 0
	}
	for i, s := range tx.signers {
		if tx.keys[i] != m.policies[s] {
			m.pay("pot", payer, "EUR", big.NewInt(fee))
			return SignatureInvalid, 0
		}
	}
	for i, s := range tx.signers {
		m.known[s] = true
		if tx.seqs[i] != 0 {
			m.seqs[s] = tx.seqs[i]
		} else {
			m.nonces[fmt.Sprint(s, tx.until, tx.nonce)] = tx.until
		}
	}
	before := m.clone()
	oldPolicies := map[string]string{}
	var created []string
	for _, o := range tx.ops {
		who := tx.signers[o.by]
		code := OK
		switch o.kind {
		case "pay":
			code = m.pay(who, o.to, o.asset, o.amount)
		case "create":
			if _, taken := m.issuers[o.asset]; taken {
				code = AssetExists
				break
			}
			m.issuers[o.asset], m.supplies[o.asset] = who, o.amount
			created = append(created, o.asset)
		case "rekey":
			if m.policies[who] == o.key {
				code = PolicyUnchanged
				break
			}
			oldPolicies[who] = m.policies[who]
			m.policies[who] = o.key
		}
		if code != OK {
			m.balances = before
			for _, a := range created {
				delete(m.issuers, a)
			}
			for who, p := range oldPolicies {
				m.policies[who] = p
			}
			return code, fee
		}
	}
	return OK, fee
}

func (m *model) end() {
	for k, until := range m.nonces {
		if until <= m.seconds {
			delete(m.nonces, k)
		}
	}
	m.pay("pot", "fees", "EUR", m.balance("pot", "EUR"))
	m.balances["pot/EUR"] = new(big.Int)
}

func bigAmount(a Amount) *big.Int { return new(big.Int).SetBytes(a.Bytes()) }

// TestModel runs random histories through the ledger and the model, and compares every code, fee, balance, sequence and
// nonce. world.end audits the whole state after each block.
func TestModel(t *testing.T) {
	reached := map[Code]int{}
	rapid.Check(t, func(rt *rapid.T) { runModel(t, rt, reached) })
	t.Log(reached)
	for _, c := range []Code{OK, Expired, ValidUntilTooFar, PolicyUnknown, PolicyMismatch, SequenceUsed, SequenceGap, NonceUsed, ReplayFull,
		FeeAboveMaximum, FeeUnpayable, SignatureInvalid, AssetUnknown, InsufficientFunds, SupplyExceeded, AssetExists, PolicyUnchanged} {
		if reached[c] == 0 && !testing.Short() {
			t.Errorf("no history reached %s", c)
		}
	}
}

func runModel(t *testing.T, rt *rapid.T, reached map[Code]int) {
	names := []string{"alice", "anna", "zoe", "bank", "fees", "adam"}
	assets := []string{"EUR", "EUR", "USD", "SEK"}
	w := newWorld(t)
	w.genesis.State.Parameters.ReplayWindowSeconds, w.genesis.State.Parameters.MaxOpenNonces = 10, 5
	w.genesis.State.Parameters.FeePerByte, w.genesis.State.Parameters.FeePerOperation = 1, 3
	w.addAsset("EUR", "bank", 0, "20000")
	m := &model{window: 10, maxOpen: 5, base: 1, perByte: 1, perOp: 3, balances: map[string]*big.Int{}, issuers: map[string]string{"EUR": "bank"},
		supplies: map[string]*big.Int{"EUR": big.NewInt(20000)}, seqs: map[string]uint64{}, known: map[string]bool{}, policies: map[string]string{},
		nonces: map[string]uint64{}}
	for _, n := range names {
		m.policies[n] = n
		if n != "bank" && n != "adam" {
			w.addBalance(n, "4000", "EUR")
			m.pay("bank", n, "EUR", big.NewInt(4000))
		}
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	millis := uint64(1000_000)
	for range rapid.IntRange(2, 6).Draw(rt, "blocks") {
		millis += rapid.SampledFrom([]uint64{0, 1, 999, 1000, 3000, 12000}).Draw(rt, "pause")
		w.next(millis)
		m.seconds = millis / 1000
		for range rapid.IntRange(3, 15).Draw(rt, "transactions") {
			tx, raw := drawTx(w, m, rt, names, assets)
			d, err := Decode(raw)
			if err != nil {
				rt.Fatalf("%s", err)
			}
			r, err := w.block.Apply(d)
			if err != nil {
				rt.Fatal(err)
			}
			code, fee := m.apply(tx)
			reached[r.Code]++
			if r.Code != code || bigAmount(r.Fee).Int64() != fee {
				rt.Fatalf("the ledger says %s with the fee %s, the model %s with %d, of %+v", r.Code, r.Fee, code, fee, tx)
			}
		}
		w.end()
		m.end()
		compareModel(w, m, rt, names, assets)
	}
}

func drawTx(w *world, m *model, rt *rapid.T, names, assets []string) (modelTx, []byte) {
	tx := modelTx{nonce: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "nonce"), maxFee: 5000}
	if rapid.IntRange(0, 15).Draw(rt, "stingy") == 13 {
		tx.maxFee = 100
	}
	if rapid.Bool().Draw(rt, "limited") {
		tx.until = uint64(int(m.seconds) + rapid.SampledFrom([]int{5, 9, 10, 1, 2, 5, 9, 3, 0, 11}).Draw(rt, "until"))
	}
	first := rapid.IntRange(0, len(names)-1).Draw(rt, "signer")
	b := &Body{MaxFee: Units(uint64(tx.maxFee)), ValidUntil: tx.until}
	for i := range rapid.SampledFrom([]int{1, 1, 2}).Draw(rt, "signers") {
		name := names[(first+i)%len(names)]
		s := Signer{Address: w.address(name)}
		if tx.until != 0 && rapid.Bool().Draw(rt, "by nonce") {
			copy(s.Nonce[:], tx.nonce)
		} else if s.Sequence = m.seqs[name] + 1; rapid.IntRange(0, 9).Draw(rt, "wrong sequence") == 7 {
			s.Sequence = max(1, s.Sequence+uint64(rapid.IntRange(0, 2).Draw(rt, "sequence"))-1)
		}
		carry := !m.known[name]
		if rapid.IntRange(0, 11).Draw(rt, "carry") == 9 {
			carry = !carry
		}
		if carry {
			s.Policy = w.firstPolicy(name).Encode()
		}
		key := m.policies[name]
		if rapid.IntRange(0, 15).Draw(rt, "forge") == 13 {
			key = "adam"
		}
		b.Signers = append(b.Signers, s)
		tx.signers, tx.seqs, tx.carry, tx.keys = append(tx.signers, name), append(tx.seqs, s.Sequence), append(tx.carry, carry), append(tx.keys, key)
	}
	rekeyed := map[int]bool{}
	for range rapid.IntRange(1, 4).Draw(rt, "operations") {
		o := modelOp{kind: rapid.SampledFrom([]string{"pay", "pay", "pay", "pay", "pay", "create", "rekey"}).Draw(rt, "kind"), by: rapid.IntRange(0, len(tx.signers)-1).Draw(rt, "by")}
		o.asset = rapid.SampledFrom(assets).Draw(rt, "asset")
		o.amount = big.NewInt(int64(rapid.SampledFrom([]int{1, 10, 700, 3000, 9000}).Draw(rt, "amount")))
		who := tx.signers[o.by]
		id := NewAssetID(w.address("alice"), o.asset) // only the first issuer's counts; before that it is unknown
		if issuer, ok := m.issuers[o.asset]; ok {
			id = NewAssetID(w.address(issuer), o.asset)
		} else if o.kind == "pay" {
			o.asset = "none"
			id = AssetID{1}
		}
		amount, err := AmountFromBytes(o.amount.Bytes())
		if err != nil {
			rt.Fatal(err)
		}
		switch o.kind {
		case "pay":
			if o.to = rapid.SampledFrom(names).Draw(rt, "to"); o.to == who {
				continue
			}
			b.Operations = append(b.Operations, &Transfer{From: uint32(o.by), To: w.address(o.to), Asset: id, Amount: amount})
		case "create":
			b.Operations = append(b.Operations, &CreateAsset{Issuer: uint32(o.by), Code: o.asset, MaxSupply: amount})
		case "rekey":
			if rekeyed[o.by] {
				continue
			}
			rekeyed[o.by] = true
			o.key = rapid.SampledFrom([]string{who, "key1", "key2"}).Draw(rt, "key")
			p := w.policy("1 ed25519:" + o.key)
			_, version := w.policyOf(w.address(who))
			proof := w.sign(p.Keys[0], PossessionPreimage(w.networkID(), w.address(who), p.Hash(), version+1))
			b.Operations = append(b.Operations, &SetPolicy{Signer: uint32(o.by), Policy: p.Encode(), Proofs: [][]byte{proof}})
		}
		tx.ops = append(tx.ops, o)
	}
	if len(tx.ops) == 0 {
		o := modelOp{kind: "pay", to: "nobody", asset: "EUR", amount: big.NewInt(1)}
		tx.ops = append(tx.ops, o)
		b.Operations = append(b.Operations, &Transfer{To: w.address("nobody"), Asset: w.asset("EUR"), Amount: Units(1)})
	}
	body := b.Encode()
	var witnesses []Witness
	for i, s := range b.Signers {
		_, version := w.policyOf(s.Address)
		witnesses = append(witnesses, Witness{Signer: uint32(i), Signature: w.sign(w.policy("1 ed25519:" + tx.keys[i]).Keys[0], Preimage(w.networkID(), body, version))})
	}
	raw := Assemble(body, witnesses, nil)
	tx.size = len(raw)
	return tx, raw
}

func compareModel(w *world, m *model, rt *rapid.T, names, assets []string) {
	for _, name := range append([]string{"nobody"}, names...) {
		for _, asset := range assets {
			issuer, ok := m.issuers[asset]
			if !ok {
				continue
			}
			value := w.memory[string(LineRow(LineKey{w.address(name), NewAssetID(w.address(issuer), asset)}))]
			balance, negative := Amount{}, false
			if value != nil {
				l, err := DecodeLine(value)
				if err != nil {
					rt.Fatal(err)
				}
				balance, negative = l.Balance()
			}
			got := bigAmount(balance)
			if negative {
				got.Neg(got)
			}
			if got.Cmp(m.balance(name, asset)) != 0 {
				rt.Fatalf("balance of %s in %s is %s, the model says %s", name, asset, got, m.balance(name, asset))
			}
		}
		a, known := w.account(w.address(name))
		if known != m.known[name] || a.Sequence != m.seqs[name] {
			rt.Fatalf("%s has the sequence %d (%v), the model says %d (%v)", name, a.Sequence, known, m.seqs[name], m.known[name])
		}
		if known && a.Policy != w.policy("1 ed25519:"+m.policies[name]).Hash() {
			rt.Fatalf("%s has another policy than the model's, %s", name, m.policies[name])
		}
	}
	open := 0
	for key := range w.memory {
		if key[0] == rowNonce {
			open++
		}
	}
	if open != len(m.nonces) {
		rt.Fatalf("%d nonces, the model says %d", open, len(m.nonces))
	}
	var total big.Int
	for k, v := range m.balances {
		if k[len(k)-3:] == "EUR" {
			total.Add(&total, v)
		}
	}
	if total.Sign() != 0 {
		rt.Fatalf("the model itself does not balance: %s", &total)
	}
}
