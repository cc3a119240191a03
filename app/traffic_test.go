package app

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// traffic makes random transactions of every kind of operation, most of which take effect: it looks at the committed state
// and asks for what is possible there. Equal seeds over equal chains give equal transactions.
type traffic struct {
	*world
	rng  *rand.Rand
	gold ledger.AssetID // with every control, issued by the bank as the fee asset is
	born int            // people so far
	sent map[crypto.Address]bool
	now  uint64

	// of the state
	accounts map[crypto.Address]ledger.Account
	lines    map[ledger.LineKey]ledger.Line
	holdings map[crypto.Address]ledger.Holdings
	holds    []openHold
	grants   []openGrant

	set       []ledger.Validator
	proposals []openProposal
	params    []byte // their row
}

type openProposal struct {
	id crypto.Hash
	ledger.Proposal
}

type openHold struct {
	id crypto.Hash
	ledger.Hold
}

type openGrant struct {
	key ledger.GrantKey
	ledger.Grant
}

var secret = []byte("open sesame")

// newTraffic makes a network with people and two assets, whose parameters make everything happen in little time.
func newTraffic(t testing.TB, seed uint64) *traffic {
	w := &world{t: t, ring: ring{}, policies: map[crypto.Hash]crypto.Policy{}, powers: []int64{10, 20, 12, 9, 10, 11, 10}}
	f := &traffic{world: w, rng: rand.New(rand.NewPCG(seed, 7))}
	w.bank = w.actor("bank", 1, ed)
	for range 24 {
		f.birth()
	}
	p := ledger.DefaultParameters()
	p.DepositAccount, p.DepositLine, p.DepositHold, p.DepositGrant = 50, 40, 30, 20
	p.MissedWindow, p.MaxMissed, p.BondSeconds = 10, 2, 600
	for _, a := range w.actors[1:] {
		w.operators = append(w.operators, a.address)
	}
	p.MaxExpiries, p.FeeTargetWeight, p.MaxFeeMultiplier = 5, 40_000, 4_000
	state := ledger.GenesisState{Parameters: p.Genesis("EUR", w.policy(1, w.ring.key(t, ed, "fees")).Address()), Assets: []ledger.GenesisAsset{
		{Code: "EUR", Issuer: w.bank.address, Scale: 2, MaxSupply: "100000000000"},
		{Code: "GOLD", Issuer: w.bank.address, MaxSupply: "1000000000", Controls: []string{"authorisation", "freeze", "clawback"}}}}
	w.fee, f.gold = ledger.NewAssetID(w.bank.address, "EUR"), ledger.NewAssetID(w.bank.address, "GOLD")
	for _, a := range w.actors[1:] {
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: a.address, Balances: []ledger.GenesisBalance{
			{Asset: "EUR", Amount: "100000"}, {Asset: "GOLD", Amount: "5000"}}})
	}
	w.found(state)
	return f
}

// birth makes a person, whose guardian is the bank; every third one has a second key for changes of the policy.
func (f *traffic) birth() *actor {
	f.born++
	name := fmt.Sprint("person ", f.born)
	a := &actor{name: name, policy: f.newPolicy(name, f.born%3 == 0)}
	a.address = a.policy.Address()
	f.actors = append(f.actors, a)
	return a
}

func (f *traffic) newPolicy(name string, second bool) crypto.Policy {
	keys := []crypto.Key{f.ring.key(f.t, ed, name)}
	if second {
		keys = append(keys, f.ring.key(f.t, ed, name+" second"))
	}
	p := must[crypto.Policy](f.t)(f.policy(1, keys...).WithRecovery(f.bank.address, crypto.MinRecoveryDelay))
	if second {
		p = must[crypto.Policy](f.t)(p.WithChangeThreshold(2))
	}
	f.policies[p.Hash()] = p
	return p
}

// look reads the committed state, before a block at a time in Unix milliseconds.
func (f *traffic) look(a *App, millis uint64) {
	f.now, f.sent = millis/1000, map[crypto.Address]bool{}
	f.accounts, f.lines, f.holdings = map[crypto.Address]ledger.Account{}, map[ledger.LineKey]ledger.Line{}, map[crypto.Address]ledger.Holdings{}
	f.holds, f.grants, f.proposals = nil, nil, nil
	row := func(key, value []byte) (err error) {
		switch key[0] {
		case ledger.AccountRow(crypto.Address{})[0]:
			f.accounts[crypto.Address(key[1:])], err = ledger.DecodeAccount(value)
		case ledger.LineRow(ledger.LineKey{})[0]:
			k, _ := ledger.LineOfRow(key)
			f.lines[k], err = ledger.DecodeLine(value)
		case ledger.HoldingsRow(crypto.Address{})[0]:
			f.holdings[crypto.Address(key[1:])], err = ledger.DecodeHoldings(value)
		case ledger.HoldRow(crypto.Hash{})[0]:
			h := openHold{id: crypto.Hash(key[1:])}
			h.Hold, err = ledger.DecodeHold(value)
			f.holds = append(f.holds, h)
		case ledger.GrantRow(ledger.GrantKey{})[0]:
			var g openGrant
			g.key, _ = ledger.GrantOfRow(key)
			g.Grant, err = ledger.DecodeGrant(value)
			f.grants = append(f.grants, g)
		case ledger.ValidatorsRow()[0]:
			f.set, err = ledger.DecodeValidators(value)
		case ledger.ProposalRow(crypto.Hash{})[0]:
			p := openProposal{id: crypto.Hash(key[1:])}
			p.Proposal, err = ledger.DecodeProposal(value)
			f.proposals = append(f.proposals, p)
		case ledger.ParametersRow()[0]:
			f.params = bytes.Clone(value)
		}
		return err
	}
	if a.store.Height() == 0 {
		for _, key := range sortedRows(a.genesis.state) {
			must[struct{}](f.t)(struct{}{}, row([]byte(key), a.genesis.state[key]))
		}
	} else {
		v := a.store.View()
		defer v.Close()
		must[struct{}](f.t)(struct{}{}, v.Range(nil, nil, row))
	}
	f.actors = slices.DeleteFunc(f.actors, func(x *actor) bool { return f.accounts[x.address].Flags&ledger.AccountClosedFlag != 0 })
	for len(f.actors) < 25 {
		f.birth()
	}
	for _, x := range f.actors {
		if account, known := f.accounts[x.address]; known {
			x.known, x.version, x.sequence, x.policy = true, account.PolicyVersion, account.Sequence, f.policies[account.Policy]
		} else {
			x.sequence = 0
		}
	}
}

func sortedRows(m ledger.Memory) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// person picks somebody who has funds and may still sign in this block.
func (f *traffic) person(not ...*actor) *actor {
	for {
		a := f.actors[1+f.rng.IntN(len(f.actors)-1)]
		if !slices.Contains(not, a) && !f.sent[a.address] && f.lines[ledger.LineKey{Account: a.address, Asset: f.fee}] != (ledger.Line{}) {
			return a
		}
	}
}

// shuffled returns all people in a random order.
func (f *traffic) shuffled() []*actor {
	people := slices.Clone(f.actors[1:])
	f.rng.Shuffle(len(people), func(i, j int) { people[i], people[j] = people[j], people[i] })
	return people
}

// quiet tells whether somebody has no line of an asset that could not be closed when what it holds is paid out.
func (f *traffic) quiet(x *actor, asset ledger.AssetID) bool {
	line := f.lines[ledger.LineKey{Account: x.address, Asset: asset}]
	return line.DebitsPending.IsZero() && line.CreditsPending.IsZero() && line.Flags&^ledger.LineAuthorised == 0 && line.CreditsPosted.Cmp(line.DebitsPosted) >= 0 && !f.sent[x.address]
}

func (f *traffic) byAddress(a crypto.Address) *actor {
	if i := slices.IndexFunc(f.actors, func(x *actor) bool { return x.address == a }); i >= 0 && !f.sent[a] {
		return f.actors[i]
	}
	return nil
}

// superseded says that what anybody has signed before does not count behind what a signs now.
func (f *traffic) superseded(a *actor) { f.sent[a.address] = true }

// transaction makes one. Now and then it makes one that fails or is refused.
func (f *traffic) transaction() []byte {
	rng := f.rng
	a := f.person()
	b := f.person(a)
	asset, amount := f.fee, ledger.Units(1+rng.Uint64N(300))
	if rng.IntN(3) == 0 {
		asset = f.gold
	}
	o := order{signers: []*actor{a}, maxDeposit: 1000}
	do := func(ops ...ledger.Operation) { o.operations = append(o.operations, ops...) }
	reference := ledger.Reference{byte(rng.IntN(3))}
	switch n := rng.IntN(100); {
	case n < 7:
		signer, op := f.governance(a)
		o.signers = []*actor{signer}
		do(op)
	case n < 20:
		do(&ledger.Transfer{To: b.address, Asset: asset, Amount: amount, Memo: "rent", Code: uint32(rng.IntN(9)), Reference: reference, Balancing: ledger.Balancing(rng.IntN(2))})
	case n < 23: // to somebody who may be new, and who may have no line; the bank issues
		o.signers = []*actor{f.bank}
		do(&ledger.Transfer{To: f.actors[len(f.actors)-1-rng.IntN(6)].address, Asset: f.fee, Amount: ledger.Units(1_000_000)})
	case n < 26: // an exchange
		o.signers = append(o.signers, b)
		do(&ledger.Transfer{To: b.address, Asset: f.fee, Amount: amount}, &ledger.Transfer{From: 1, To: a.address, Asset: f.gold, Amount: amount})
	case n < 28:
		do(&ledger.CreateAsset{Code: fmt.Sprintf("X%03d", rng.IntN(1000)), Scale: uint32(rng.IntN(19)), MaxSupply: amount, Controls: ledger.Controls(rng.IntN(8))})
	case n < 30:
		p := f.newPolicy(fmt.Sprint(a.name, rng.Uint64()), rng.IntN(3) == 0)
		op := f.setPolicy(0, a, p)
		op.RevokeGrants = rng.IntN(2) == 0
		do(op)
		defer f.superseded(a)
	case n < 44:
		c := &ledger.CreateHold{To: b.address, Asset: asset, Amount: amount, Expires: f.now + 2 + rng.Uint64N(40), PostBy: ledger.ByReceiver, VoidBy: ledger.ByReceiver, Reference: reference}
		switch rng.IntN(4) {
		case 0:
			c.HashLock, c.PostBy = sha256.Sum256(secret), ledger.ByAnybody
		case 1:
			c.PostAtExpiry, c.NotBefore = true, f.now
		case 2:
			c.Arbiter, c.PostBy, c.VoidBy = f.person(a, b).address, ledger.ByArbiter|ledger.ByHolder, ledger.ByArbiter
		}
		do(c)
	case n < 58 && len(f.holds) > 0:
		h := f.holds[rng.IntN(len(f.holds))]
		resolver := f.byAddress(h.To)
		if h.PostBy&ledger.ByReceiver == 0 && h.Arbiter != (crypto.Address{}) {
			resolver = f.byAddress(h.Arbiter)
		}
		if resolver == nil {
			resolver = a
		}
		o.signers = []*actor{resolver}
		if rng.IntN(3) == 0 {
			do(&ledger.VoidHold{Hold: h.id})
			break
		}
		post := &ledger.PostHold{Hold: h.id}
		if h.HashLock != (crypto.Hash{}) {
			post.Preimage = secret
		} else if rng.IntN(2) == 0 {
			post.Amount = ledger.Units(1)
		}
		do(post)
	case n < 60:
		o.signers = []*actor{f.bank}
		sides := ledger.LineFrozenIn
		if rng.IntN(2) == 0 {
			sides = ledger.LineFrozenOut
		}
		op := &ledger.SetAsset{Asset: f.gold, Unfreeze: ledger.LineFrozenIn | ledger.LineFrozenOut}
		if rng.IntN(20) == 0 {
			op.Freeze, op.Unfreeze = sides, 0
		} else if rng.IntN(2) == 0 {
			op.Unfreeze, op.MaxSupply = 0, ledger.Units(1_000_000_000-rng.Uint64N(1_000_000))
		}
		do(op)
	case n < 66:
		o.signers = []*actor{f.bank}
		op := &ledger.SetLine{Account: a.address, Asset: f.gold, Set: ledger.LineAuthorised}
		switch rng.IntN(7) {
		case 0:
			if op.Clear = ledger.LineFrozenOut | ledger.LineFrozenIn; rng.IntN(3) == 0 {
				op.Set, op.Clear = ledger.LineFrozenOut, 0
			}
		case 2:
			credit := ledger.Units(rng.Uint64N(1000))
			op.Credit = &credit
		case 3:
			limit := ledger.Units(10_000 + rng.Uint64N(1000))
			op.Cap = &limit
		}
		do(op)
	case n < 68:
		o.signers = []*actor{f.bank}
		do(&ledger.Clawback{Account: a.address, Asset: f.gold, Amount: ledger.Units(3), Balancing: ledger.BalancingDebit})
	case n < 71:
		ceiling := ledger.Units(10_000_000_000 + rng.Uint64N(9))
		do(&ledger.OpenLine{Asset: asset, Ceiling: &ceiling})
	case n < 74: // with what there is returned first
		for _, x := range f.shuffled() {
			if f.quiet(x, f.gold) && x != b {
				o.signers = []*actor{x}
				break
			}
		}
		do(&ledger.Transfer{To: f.bank.address, Asset: f.gold, Amount: ledger.MaxAmount, Balancing: ledger.BalancingDebit}, &ledger.CloseLine{Asset: f.gold, To: b.address})
	case n < 76:
		do(&ledger.SetAccount{OptIn: f.accounts[a.address].Flags&ledger.AccountOptIn == 0})
	case n < 78: // somebody leaves, at another's cost
		for _, x := range f.shuffled() {
			h := f.holdings[x.address]
			if x != b && !f.sent[x.address] && h.Grants == 0 && h.Assets == 0 && f.quiet(x, f.gold) && f.quiet(x, f.fee) {
				o.signers, o.sponsor = []*actor{x}, b
				for _, asset := range []ledger.AssetID{f.gold, f.fee} {
					k := ledger.LineKey{Account: x.address, Asset: asset}
					line, ok := f.lines[k]
					if ok && line.Available() != (ledger.Amount{}) {
						do(&ledger.Transfer{To: f.bank.address, Asset: asset, Amount: ledger.MaxAmount, Balancing: ledger.BalancingDebit})
					}
					if ok {
						do(&ledger.CloseLine{Asset: asset, To: b.address})
					}
				}
				do(&ledger.CloseAccount{To: b.address})
				defer f.superseded(x)
				break
			}
		}
	case n < 84:
		g := &ledger.SetGrant{Grantee: b.address, Total: ledger.Units(10_000 + rng.Uint64N(100_000)), Until: f.now + 5 + rng.Uint64N(5000)}
		switch rng.IntN(3) {
		case 0:
			g.For, g.Asset, g.PerPeriod, g.Period = ledger.KindTransfer, asset, ledger.Units(500), uint32(1+rng.IntN(100))
		case 1:
			g.For, g.Asset, g.To = ledger.KindCreateHold, asset, f.person(a, b).address
		}
		do(g)
	case n < 86 && len(f.grants) > 0:
		g := f.grants[rng.IntN(len(f.grants))]
		if granter := f.byAddress(g.key.Granter); granter != nil {
			o.signers = []*actor{granter}
			do(&ledger.RevokeGrant{Grantee: g.key.Grantee, For: g.key.Kind, Asset: g.key.Asset})
		}
	case n < 92 && len(f.grants) > 0:
		g := f.grants[rng.IntN(len(f.grants))]
		grantee, granter := f.byAddress(g.key.Grantee), f.byAddress(g.key.Granter)
		if grantee == nil || granter == nil {
			break
		}
		o.signers = []*actor{grantee}
		to := g.To
		if to == (crypto.Address{}) {
			to = f.person(granter).address
		}
		switch g.key.Kind {
		case ledger.KindFees:
			o.granter = granter
		case ledger.KindTransfer:
			do(&ledger.Transfer{To: to, Asset: g.key.Asset, Amount: ledger.Units(1), Granter: granter.address})
		case ledger.KindCreateHold:
			do(&ledger.CreateHold{To: to, Asset: g.key.Asset, Amount: ledger.Units(1), Granter: granter.address, Expires: f.now + 3, PostBy: ledger.ByReceiver})
		}
	case n < 96:
		o.signers = []*actor{f.bank}
		switch recovery := f.accounts[a.address].Recovery; {
		case recovery == (ledger.Recovery{}):
			p := f.newPolicy(fmt.Sprint(a.name, rng.Uint64()), false)
			do(&ledger.StartRecovery{Account: a.address, PolicyHash: p.Hash()})
		case rng.IntN(3) == 0:
			if rng.IntN(2) == 0 {
				o.signers = []*actor{a}
			}
			do(&ledger.CancelRecovery{Account: a.address})
		default:
			p := f.policies[recovery.Policy]
			op := &ledger.FinishRecovery{Account: a.address, Policy: p.Encode()}
			for _, k := range p.Keys {
				op.Proofs = append(op.Proofs, f.ring.sign(f.t, k, ledger.PossessionPreimage(f.network.ID, a.address, p.Hash(), ledger.RecoveryVersion)))
			}
			do(op)
			defer f.superseded(a)
		}
	case n < 98: // fails
		do(&ledger.Transfer{To: b.address, Asset: asset, Amount: ledger.MaxAmount})
	default: // is refused
		o.maxFee = 1
	}
	if o.operations == nil {
		do(&ledger.Transfer{To: f.bank.address, Asset: f.fee, Amount: amount})
	}
	if o.sponsor == nil && o.granter == nil && rng.IntN(8) == 0 {
		o.sponsor = f.person(append(o.signers, a)...)
	}
	if rng.IntN(5) == 0 {
		o.nonce, o.validUntil = 1+rng.Uint64(), f.now+1+rng.Uint64N(20)
	}
	return f.build(o)
}

// operates picks who operates a validator that is as it should be, and may still sign in this block.
func (f *traffic) operates(is func(ledger.Validator) bool) (*actor, ledger.Validator) {
	for _, i := range f.rng.Perm(len(f.set)) {
		if v := f.set[i]; is(v) {
			if a := f.byAddress(v.Operator); a != nil {
				return a, v
			}
		}
	}
	return nil, ledger.Validator{}
}

// governance makes an operation of who validates, or would: of a, where it finds nobody else for it.
func (f *traffic) governance(a *actor) (*actor, ledger.Operation) {
	rng := f.rng
	switch n := rng.IntN(10); {
	case n < 2: // few, for who has a bond cannot leave
		for _, h := range f.holds {
			if x := f.byAddress(h.From); h.Bond && x != nil && rng.IntN(3) != 0 {
				return x, &ledger.ReleaseBond{}
			}
		}
		if rng.IntN(4) == 0 {
			return a, &ledger.ReleaseBond{}
		}
		return a, &ledger.Bond{Amount: ledger.Units(1 + rng.Uint64N(20))}
	case n == 2:
		if x, _ := f.operates(ledger.Validator.Inactive); x != nil {
			return x, &ledger.Reactivate{}
		}
		return a, &ledger.Reactivate{}
	case n < 8 && len(f.proposals) > 0:
		p := f.proposals[rng.IntN(len(f.proposals))]
		approved := func(v ledger.Validator) bool { return slices.Contains(p.Approvals, v.Operator) }
		if x, _ := f.operates(func(v ledger.Validator) bool { return v.Active() && !approved(v) }); x != nil && rng.IntN(8) != 0 {
			return x, &ledger.Approve{Proposal: p.id}
		}
		if x, _ := f.operates(func(v ledger.Validator) bool { return v.Active() && approved(v) }); x != nil {
			return x, &ledger.Approve{Proposal: p.id, Withdraw: true}
		}
	}
	proposer, _ := f.operates(ledger.Validator.Active)
	if proposer == nil {
		return a, &ledger.Reactivate{}
	}
	of := f.set[rng.IntN(len(f.set))]
	key := f.ring.key(f.t, ed, fmt.Sprint("consensus ", rng.IntN(20)))
	proof := func(operator crypto.Address) []byte {
		return f.ring.sign(f.t, key, ledger.ConsensusKeyPreimage(f.network.ID, operator, key.Scheme, key.Public))
	}
	propose := &ledger.Propose{Expires: f.now + 100 + rng.Uint64N(9000)}
	switch rng.IntN(8) {
	case 0:
		propose.Change = &ledger.SetPower{Validator: of.Address(), Power: 80 + rng.Uint64N(60)}
	case 1:
		propose.Change = &ledger.RemoveValidator{Validator: of.Address()}
	case 2:
		p := must[ledger.Parameters](f.t)(ledger.DecodeParameters(f.params))
		p.FeeBase = 100 + rng.Uint64N(3)
		propose.Change = &ledger.SetParameters{Before: ledger.ParametersHash(f.params), Parameters: p}
	case 3:
		if of.Operator != (crypto.Address{}) {
			propose.Change = &ledger.RotateKey{Validator: of.Address(), Operator: of.Operator, Scheme: key.Scheme, PublicKey: key.Public, Proof: proof(of.Operator)}
			break
		}
		fallthrough
	default:
		propose.Change = &ledger.AddValidator{Operator: a.address, Scheme: key.Scheme, PublicKey: key.Public, Power: 100, Name: "one more", Proof: proof(a.address)}
	}
	return proposer, propose
}

// missed are those who have not signed the block before: now and then somebody is away for some blocks.
func (f *traffic) missed(height int64) (addresses [][]byte) {
	if len(f.set) == 0 || height%10 > 4 {
		return nil
	}
	address := f.set[int(height/10)%len(f.set)].Address()
	return [][]byte{address[:]}
}

// kindsOf counts what a transaction has: its kinds of operations, and "sponsor" and "fee grant" as 100 and 101.
func kindsOf(tx *ledger.Tx) (kinds []ledger.Kind) {
	for _, op := range tx.Body.Operations {
		kinds = append(kinds, op.Kind())
	}
	if tx.Sponsor != nil {
		kinds = append(kinds, withSponsor)
	} else if tx.Body.FeeGranter != (crypto.Address{}) {
		kinds = append(kinds, withFeeGrant)
	}
	slices.SortFunc(kinds, cmp.Compare[ledger.Kind])
	return slices.Compact(kinds)
}

const (
	withSponsor  ledger.Kind = 100
	withFeeGrant ledger.Kind = 101
)

// everyKind is what traffic has to bring.
func everyKind() (kinds []ledger.Kind) {
	for k := ledger.KindTransfer; k.String() != "unknown"; k++ {
		kinds = append(kinds, k)
	}
	return append(kinds, withSponsor, withFeeGrant)
}

// TestTraffic: equal seeds give equal transactions.
func TestTraffic(t *testing.T) {
	var first [][]byte
	for round := range 2 {
		f := newTraffic(t, 3)
		a := open(t, vfs.NewMem(), nil)
		initialise(t, a, f.world)
		f.look(a, uint64(f.doc.GenesisTime.UnixMilli()))
		var txs [][]byte
		for range 50 {
			txs = append(txs, f.transaction())
		}
		closeApp(t, a)
		if round == 0 {
			first = txs
		} else if !slices.EqualFunc(first, txs, bytes.Equal) {
			t.Error("equal seeds give other transactions")
		}
	}
}
