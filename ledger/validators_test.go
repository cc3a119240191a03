package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	"github.com/cometbft/cometbft/types"
	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// believing takes every signature to be good: what is tested here is who may do what, and signing is dear.
type believing struct{}

func (believing) Verify(Authorization) bool { return true }

// electorate is a world whose validators vote, miss blocks and lie at random, beside the set that CometBFT has of them.
type electorate struct {
	*world
	t        *rapid.T
	comet    *types.ValidatorSet
	voters   []*types.Validator // of the block before: who is asked for a vote on it
	people   []string           // who may operate
	keys     []Validator        // consensus keys that come and go
	executed int
	inactive int // validators and blocks
	seen     map[Code]int
}

func cometValidator(t interface{ Fatal(...any) }, v Validator) *types.Validator {
	if v.Scheme == crypto.MLDSA65 {
		k, err := mldsa65.NewPubKeyFromBytes(v.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return types.NewValidator(k, int64(v.Power))
	}
	return types.NewValidator(cmted25519.PubKey(v.PublicKey), int64(v.Power))
}

// set returns the set as the last block has left it.
func (e *electorate) set() []Validator {
	set, err := DecodeValidators(e.memory[string(ValidatorsRow())])
	if err != nil {
		e.t.Fatal(err)
	}
	return set
}

// do applies one operation of somebody, unsigned.
func (e *electorate) do(name string, op Operation) Receipt {
	b := &Body{Signers: []Signer{e.signer(name)}, MaxFee: Units(1e12), Operations: []Operation{op}}
	raw := Assemble(b.Encode(), []Witness{{Signature: make([]byte, 64)}}, nil)
	tx, err := Decode(raw)
	if err != nil {
		e.t.Fatal(err)
	}
	r, err := e.block.Apply(tx)
	if err != nil || r.Code.Refused() {
		e.t.Fatalf("%s: %s, %v", op.Kind(), r.Code, err)
	}
	e.seen[r.Code]++
	if r.Code == OK && r.Results[0].Executed {
		e.executed++
	}
	return r
}

func (e *electorate) somebody() string { return rapid.SampledFrom(e.people).Draw(e.t, "who") }
func (e *electorate) someKey() Validator {
	return rapid.SampledFrom(e.keys).Draw(e.t, "key")
}

func (e *electorate) power() uint64 {
	return rapid.OneOf(rapid.Uint64Range(1, 40), rapid.Just[uint64](MaxValidatorPower)).Draw(e.t, "power")
}

func (e *electorate) someChange() Change {
	k := e.someKey()
	switch rapid.IntRange(0, 6).Draw(e.t, "change") {
	case 0, 1, 2:
		return &AddValidator{Operator: e.address(e.somebody()), Scheme: k.Scheme, PublicKey: k.PublicKey, Power: e.power(), Proof: []byte{1}}
	case 3:
		return &RemoveValidator{Validator: k.Address()}
	case 4:
		other := e.someKey() // mostly a right one, or hardly any rotation would ever be enacted
		operator := e.address(e.somebody())
		set, _ := e.block.state.validators.get(struct{}{})
		if i := named(set, other.Address()); i >= 0 && set[i].Operator != (crypto.Address{}) {
			operator = set[i].Operator
		}
		return &RotateKey{Validator: other.Address(), Operator: operator, Scheme: k.Scheme, PublicKey: k.PublicKey, Proof: []byte{1}}
	}
	return &SetPower{Validator: k.Address(), Power: e.power()}
}

// step does something at random.
func (e *electorate) step() {
	list, _ := e.block.state.proposalList.get(struct{}{})
	switch n := rapid.IntRange(0, 9).Draw(e.t, "step"); {
	case n < 6: // a proposal that everybody approves, as far as it goes
		r := e.do(e.somebody(), &Propose{Expires: e.millis/1000 + uint64(rapid.IntRange(1, 60).Draw(e.t, "for")), Change: e.someChange()})
		if r.Code != OK || r.Results[0].Executed {
			return
		}
		for _, name := range e.people {
			if r := e.do(name, &Approve{Proposal: r.Results[0].Proposal}); r.Code == OK && r.Results[0].Executed {
				break
			}
		}
	case n == 6 && len(list) > 0:
		e.do(e.somebody(), &Approve{Proposal: rapid.SampledFrom(list).Draw(e.t, "proposal").ID, Withdraw: rapid.Bool().Draw(e.t, "withdraw")})
	case n == 7:
		e.do(e.somebody(), &Reactivate{})
	case n == 8:
		e.do(e.somebody(), &ReleaseBond{})
	default:
		e.do(e.somebody(), &Bond{Amount: Units(10)})
	}
}

// close ends the block, tells CometBFT's set, and compares the two.
func (e *electorate) close(evidence []Misbehavior) {
	before := e.set()
	o := e.end(evidence...)
	var changes []*types.Validator
	for i, v := range o.Updates {
		if i > 0 && compareValidators(o.Updates[i-1], v) >= 0 {
			e.t.Fatalf("updates do not ascend: %v", o.Updates)
		}
		changes = append(changes, cometValidator(e.t, v))
	}
	e.voters = slices.Clone(e.comet.Validators)
	if len(changes) > 0 { // as state.updateState does
		if err := e.comet.UpdateWithChangeSet(changes); err != nil {
			e.t.Fatalf("block %d halts CometBFT: %s\nbefore %v\nafter %v\nupdates %v", e.height, err, before, e.set(), o.Updates)
		}
	}
	e.comet.IncrementProposerPriority(1)
	active := 0
	for _, v := range e.set() {
		address := v.Address()
		_, known := e.comet.GetByAddress(address[:])
		if v.Active() {
			active++
		}
		if v.Inactive() {
			e.inactive++
		}
		if (known != nil) != v.Active() || known != nil && known.VotingPower != int64(v.Power) {
			e.t.Fatalf("block %d: the ledger has %+v, CometBFT %v", e.height, v, known)
		}
	}
	if active != e.comet.Size() {
		e.t.Fatalf("block %d: the ledger has %d active validators, CometBFT %d", e.height, active, e.comet.Size())
	}
}

// TestUpdatesNeverHalt feeds random votes, evidence and missed blocks into the real set of CometBFT, block by block. Whatever
// comes together in one block, the set takes it: an error there would end the chain for good.
func TestUpdatesNeverHalt(t *testing.T) {
	var keys []Validator
	for i := range 9 {
		sum := sha256.Sum256(fmt.Appendf(nil, "consensus %d", i))
		v := Validator{Scheme: crypto.Ed25519, PublicKey: sum[:]}
		if i%4 == 3 {
			v = Validator{Scheme: crypto.MLDSA65, PublicKey: bytes.Repeat(sum[:], 61)}
		}
		keys = append(keys, v)
	}
	executed, inactive, seen := 0, 0, map[Code]int{}
	rapid.Check(t, func(rt *rapid.T) {
		e := &electorate{world: newWorld(t), t: rt, people: []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6"}, keys: keys, seen: seen}
		e.verifier = believing{}
		p, fewest := &e.genesis.State.Parameters, 1
		p.BondSeconds, p.Bond = uint32(rapid.IntRange(1, 50).Draw(rt, "bond_seconds")), uint64(rapid.SampledFrom([]int{0, 10}).Draw(rt, "bond"))
		if rapid.Bool().Draw(rt, "count") {
			p.MissedWindow = 10
			p.MaxMissed = uint32(rapid.IntRange(1, 4).Draw(rt, "max_missed"))
		}
		e.addAsset("EUR", "bank", 2, "1000000000")
		for _, name := range e.people {
			e.addBalance(name, "10000", "EUR")
		}
		if v := rapid.IntRange(0, 1).Draw(rt, "many"); v == 1 && p.MissedWindow > 0 { // or nobody is ever set inactive
			fewest = 5
		}
		equal := rapid.Bool().Draw(rt, "equal")
		for i := range rapid.IntRange(fewest, 7).Draw(rt, "validators") {
			v := keys[i]
			if v.Power = 10; !equal {
				v.Power = e.power()
			}
			e.genesis.Validators = append(e.genesis.Validators, v)
			e.genesis.State.Validators = append(e.genesis.State.Validators, GenesisValidator{PubKey: v.PublicKey, Operator: e.address(e.people[i])})
		}
		if err := e.begin(); err != nil {
			rt.Fatal(err)
		}
		var first []*types.Validator
		for _, v := range e.set() {
			first = append(first, cometValidator(rt, v))
		}
		e.comet = types.NewValidatorSet(first)
		for range rapid.IntRange(6, 25).Draw(rt, "blocks") {
			e.next(e.millis + uint64(rapid.IntRange(0, 30).Draw(rt, "seconds"))*1000)
			for range rapid.IntRange(1, 5).Draw(rt, "steps") {
				e.step()
			}
			e.votes = nil
			for _, v := range e.voters {
				e.votes = append(e.votes, Vote{Validator: ConsensusAddress(v.Address), Signed: rapid.IntRange(0, 3).Draw(rt, "signed") > 0})
			}
			var evidence []Misbehavior
			if rapid.IntRange(0, 3).Draw(rt, "lies") == 0 {
				for _, k := range rapid.SliceOfN(rapid.SampledFrom(keys), 1, 3).Draw(rt, "liars") {
					evidence = append(evidence, Misbehavior{Validator: k.Address(), Height: e.height - 1})
				}
			}
			e.close(evidence)
		}
		executed, inactive = executed+e.executed, inactive+e.inactive
	})
	for _, code := range []Code{OK, ValidatorExists, ValidatorUnknown, ValidatorQuorumLost, ValidatorPowersUnsound, BondLocked, NotValidator} {
		if seen[code] == 0 && !t.Failed() {
			t.Errorf("nothing gave %s: %v", code, seen)
		}
	}
	if (executed < 50 || inactive == 0) && !t.Failed() {
		t.Errorf("%d changes were enacted, %d times was one inactive: want more", executed, inactive)
	}
}
