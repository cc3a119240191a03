package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// remembering is a verifier like a node's: it knows what was authorized before, by fingerprint.
type remembering struct {
	known map[crypto.Hash]bool
	asked int
}

func (r *remembering) Verify(a Authorization) bool {
	r.asked++
	if ok, known := r.known[a.Fingerprint]; known {
		return ok
	}
	r.known[a.Fingerprint] = Direct{}.Verify(a)
	return r.known[a.Fingerprint]
}

// TestAuthorize: what is verified when a transaction comes in is what the block asks for, unless a policy has changed in between.
func TestAuthorize(t *testing.T) {
	for i, raw := range seeds(t) {
		w := smallWorld(t)
		v := &remembering{known: map[crypto.Hash]bool{}}
		w.verifier = v
		b := w.next(1001_000)
		for _, before := range seeds(t)[:i] {
			w.apply(before)
		}
		tx, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		a, ok, err := b.Authorize(tx)
		if err != nil || !ok || len(a.Checks) < len(tx.Witnesses) {
			t.Fatalf("seed %d: %+v, %v, %v", i, a, ok, err)
		}
		v.known[a.Fingerprint] = Direct{}.Verify(a)
		known := len(v.known)
		if r := w.apply(raw); r.Code.Refused() || len(v.known) != known {
			t.Fatalf("seed %d: %s, %d verdicts instead of %d: the block asked for something else", i, r.Code, len(v.known), known)
		}
	}
	// The same bytes with another policy, or the same policy after two changes, have another fingerprint: a verdict from before a rotation is worth nothing.
	w := smallWorld(t)
	list := seeds(t)
	b := w.next(1001_000)
	for _, raw := range list[:9] {
		w.apply(raw)
	}
	tx, err := Decode(list[10])
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := b.Authorize(tx)
	w.apply(list[9])
	after, _, _ := b.Authorize(tx)
	if before.Fingerprint == after.Fingerprint {
		t.Fatal("the fingerprint survives a change of the policy")
	}
	account, _ := b.state.accounts.get(tx.Body.Signers[0].Address)
	account.PolicyVersion++
	b.state.accounts.put(tx.Body.Signers[0].Address, account)
	if again, _, _ := b.Authorize(tx); again.Fingerprint == after.Fingerprint {
		t.Fatal("the fingerprint survives a change of the policy's version")
	}
}

// failing answers n reads and fails from then on.
type failing struct {
	Memory
	n int
}

var errDisk = errors.New("the disk is gone")

func (f *failing) Get(key []byte) ([]byte, error) {
	if f.n--; f.n < 0 {
		return nil, errDisk
	}
	return f.Memory.Get(key)
}

// TestReadErrors lets every read of a block fail in turn: the error comes out, whatever the rules made of the missing row.
func TestReadErrors(t *testing.T) {
	w := smallWorld(t)
	list := seeds(t)
	var txs []*Tx
	for _, raw := range list {
		tx, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		txs = append(txs, tx)
	}
	run := func(base Reader) error {
		b, err := NewBlock(base, Header{Height: 1, UnixMillis: 1001_000}, credulous{})
		if err != nil {
			return err
		}
		for _, tx := range txs {
			if _, err := b.Apply(tx); err != nil {
				return err
			}
		}
		_, err = b.End([]Misbehavior{{}}, nil)
		return err
	}
	for n := 0; ; n++ {
		f := &failing{w.memory, n}
		err := run(f)
		if f.n >= 0 {
			if err != nil || n < 20 {
				t.Fatalf("after %d reads: %v", n, err)
			}
			return
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("read %d fails, and the block says %v", n, err)
		}
	}
}

// TestAssetIDCollision: the id of an asset is 16 bytes, and whoever finds two with one id gets nothing for it.
func TestAssetIDCollision(t *testing.T) {
	w := smallWorld(t)
	id := NewAssetID(w.address("alice"), "USD")
	w.memory[string(AssetRow(id))] = Asset{Issuer: w.address("bob"), Code: "XXX", MaxSupply: Units(1)}.encode()
	w.next(1001_000)
	b := w.payment("alice", "bob", Units(1), "EUR")
	b.Operations = []Operation{&CreateAsset{Code: "USD", MaxSupply: Units(1)}}
	if r := w.apply(w.seal(b)); r.Code != AssetExists {
		t.Fatal(r.Code)
	}
}

// TestNoncesPerSecond fills a bucket.
func TestNoncesPerSecond(t *testing.T) {
	w := smallWorld(t)
	p, err := DecodeParameters(w.memory[string(ParametersRow())])
	if err != nil {
		t.Fatal(err)
	}
	p.MaxOpenNonces = 1 << 20
	w.memory[string(ParametersRow())] = p.encode()
	w.memory[string(bucketRow(1100))] = bucket{Count: MaxNoncesPerSecond - 1}.encode()
	w.next(1001_000)
	for i, want := range []Code{OK, ReplayFull} {
		b := w.payment("alice", "bob", Units(1), "EUR")
		b.ValidUntil, b.Signers[0].Sequence, b.Signers[0].Nonce[0] = 1100, 0, byte(i)
		if r := w.apply(w.seal(b)); r.Code != want {
			t.Fatalf("nonce %d: %s", i, r.Code)
		}
	}
	b := w.payment("alice", "bob", Units(1), "EUR")
	b.ValidUntil, b.Signers[0].Sequence = 1101, 0
	if r := w.apply(w.seal(b)); r.Code != OK {
		t.Fatalf("the second beside it: %s", r.Code)
	}
}

// TestUndoEqualsNever: a block with transactions that were refused or failed writes what it would without their operations.
func TestUndoEqualsNever(t *testing.T) {
	outcome := func(withFailures bool) Outcome {
		w := smallWorld(t)
		w.next(1001_000)
		w.knowSeeds()
		for i, raw := range seeds(t) {
			if withFailures {
				name := []string{"zoe", "bank", "bob"}[i%3]
				b := w.payment("alice", name, Units(1e8), "EUR")
				b.Signers[0].Sequence += 5
				w.apply(w.seal(b))
				b.Signers[0].Sequence -= 5
				raw := w.seal(b)
				raw[len(raw)-1] ^= 1
				w.apply(raw)
			}
			w.apply(raw)
		}
		return w.end()
	}
	a, b := outcome(false), outcome(true)
	if !reflect.DeepEqual(a, b) {
		t.Fatal("refused transactions left a trace")
	}
}

// TestGenesisIdentity: whatever is changed in genesis makes another network; the order in which the file lists validators does not.
func TestGenesisIdentity(t *testing.T) {
	w := smallWorld(t)
	w.addAsset("USD", "fed", 2, "100.00")
	w.addValidator("v2", crypto.MLDSA65, 5)
	id := func(g Genesis) crypto.Hash {
		n, err := g.Network()
		if err != nil {
			t.Fatal(err)
		}
		return n.ID
	}
	base := id(w.genesis)
	copyOf := func() Genesis {
		text, err := json.Marshal(w.genesis.State)
		if err != nil {
			t.Fatal(err)
		}
		state, err := ParseGenesisState(text)
		if err != nil {
			t.Fatal(err)
		}
		g := w.genesis
		g.State, g.Validators = state, slices.Clone(g.Validators)
		return g
	}
	if id(copyOf()) != base {
		t.Fatal("genesis does not survive its JSON")
	}
	turned := copyOf()
	slices.Reverse(turned.Validators)
	if id(turned) != base {
		t.Fatal("the order of the validators counts")
	}
	for i, change := range []func(g *Genesis){
		func(g *Genesis) { g.ChainID += "x" },
		func(g *Genesis) { g.UnixNanos++ },
		func(g *Genesis) { g.InitialHeight++ },
		func(g *Genesis) { g.Validators[0].Power++ },
		func(g *Genesis) { g.Validators = g.Validators[:1] },
		func(g *Genesis) { g.State.Parameters.MaxTxBytes++ },
		func(g *Genesis) { g.State.Parameters.ReplayWindowSeconds++ },
		func(g *Genesis) { g.State.Parameters.MaxOpenNonces++ },
		func(g *Genesis) { g.State.Parameters.FeeCollector[0]++ },
		func(g *Genesis) { g.State.Parameters.FeeBase++ },
		func(g *Genesis) { g.State.Parameters.FeePerByte++ },
		func(g *Genesis) { g.State.Parameters.FeePerOperation++ },
		func(g *Genesis) { g.State.Parameters.FeePerSignature++ },
		func(g *Genesis) { g.State.Parameters.FeeAsset = "USD" },
		func(g *Genesis) { g.State.Parameters.AssetCreators = []crypto.Address{{1}} },
		func(g *Genesis) { g.State.Assets[1].Code = "USX" },
		func(g *Genesis) { g.State.Assets[1].Issuer[0]++ },
		func(g *Genesis) { g.State.Assets[1].Scale++ },
		func(g *Genesis) { g.State.Assets[1].MaxSupply = "101.00" },
		func(g *Genesis) { g.State.Assets[1].MetadataHash = fmt.Sprintf("%064x", 1) },
		func(g *Genesis) { g.State.Accounts[0].Balances[0].Amount = "999.99" },
		func(g *Genesis) { g.State.Accounts = g.State.Accounts[1:] },
	} {
		g := copyOf()
		if change(&g); id(g) == base {
			t.Errorf("change %d leaves the network's id as it was", i)
		}
	}
	for _, text := range []string{`{"parameters":{"max_tx_byte":1}}`, `{} {}`, `{}x`, `[]`, ``} {
		if _, err := ParseGenesisState([]byte(text)); err == nil {
			t.Errorf("app_state %s is read", text)
		}
	}
}

// TestSameEverywhere: one block, many times, from maps with other orders: always the same writes and receipts.
func TestSameEverywhere(t *testing.T) {
	var first Outcome
	var receipts []byte
	for i := range 5 {
		w := smallWorld(t)
		w.memory = maps.Clone(w.memory)
		w.next(1001_000)
		var all []byte
		for _, raw := range seeds(t) {
			all = append(all, w.apply(raw).Encode()...)
		}
		o := w.end(Misbehavior{})
		if i == 0 {
			first, receipts = o, all
		} else if !reflect.DeepEqual(o, first) || !bytes.Equal(all, receipts) {
			t.Fatal("the same block had another outcome")
		}
	}
}

// TestDefaultParameters: what `pacioli init` proposes is in range, and the dearest transaction's fee is far from 2^64.
func TestDefaultParameters(t *testing.T) {
	if err := DefaultParameters().Check(); err != nil {
		t.Fatal(err)
	}
	p := Parameters{FeeBase: MaxFeeUnit, FeePerByte: MaxFeeUnit, FeePerOperation: MaxFeeUnit, FeePerSignature: MaxFeeUnit}
	dearest := uint64(0)
	for _, s := range crypto.Schemes() {
		dearest = max(dearest, s.Cost())
	}
	if fee, ok := p.Fee(FeeRate{1000}, MaxTxBytes, MaxOperations, dearest*2*MaxWitnesses).Uint64(); !ok || fee >= 1<<59 || fee <= MaxFeeUnit*MaxTxBytes {
		t.Fatalf("the dearest fee is %d", fee)
	}
}

// TestPosting holds the rules of lines against integers without a bound, pending counters included.
func TestPosting(t *testing.T) {
	max128 := bigAmount(MaxAmount)
	// Posted debits fit, and with the pending ones they do not: too rare to wait for.
	most, _ := MaxAmount.Sub(Units(2))
	full := Line{DebitsPending: Units(1), DebitsPosted: most, CreditsPosted: most}
	if code := debitable(Asset{MaxSupply: MaxAmount}, LineKey{}, full, Units(2)); code != CounterOverflow {
		t.Fatalf("debits that only fit without the pending ones: %s", code)
	}
	rapid.Check(t, func(t *rapid.T) {
		l := Line{DebitsPending: drawAmount(t, "debits pending"), DebitsPosted: drawAmount(t, "debits posted"), CreditsPosted: drawAmount(t, "credits posted")}
		amount, supply := drawAmount(t, "amount"), drawAmount(t, "supply")
		issuer := rapid.Bool().Draw(t, "issuer")
		// Make it a line that can be: what breaks its rule already is taken back.
		sum, ok := l.DebitsPosted.Add(l.DebitsPending)
		if !ok {
			sum, l.DebitsPending = l.DebitsPosted, Amount{}
		}
		switch issued, positive := sum.Sub(l.CreditsPosted); {
		case !issuer && sum.Cmp(l.CreditsPosted) > 0:
			l.CreditsPosted = sum
		case issuer && positive && issued.Cmp(supply) > 0:
			supply = issued
		}
		debits := bigAmount(sum)
		after := new(big.Int).Add(debits, bigAmount(amount))
		want := OK
		switch net := new(big.Int).Sub(after, bigAmount(l.CreditsPosted)); {
		case issuer && net.Cmp(bigAmount(supply)) > 0:
			want = SupplyExceeded
		case !issuer && net.Sign() > 0:
			want = InsufficientFunds
		case after.Cmp(max128) > 0:
			want = CounterOverflow
		}
		asset := Asset{MaxSupply: supply}
		account := crypto.Address{1}
		if issuer {
			asset.Issuer = account
		}
		code := debitable(asset, LineKey{Account: account}, l, amount)
		if code != want {
			t.Fatalf("%+v less %s of a supply of %s, issuer %v: %s, want %s", l, amount, supply, issuer, code, want)
		}
		if code == OK {
			got := l
			if got.DebitsPosted = l.DebitsPosted.mustAdd(amount); !lineHolds(asset, LineKey{Account: account}, got) {
				t.Fatalf("%+v breaks the line's rule", got)
			}
		}
	})
}
