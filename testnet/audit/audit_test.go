package audit

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// chain is a ledger without consensus: the rulebook over a map, which the book must agree with.
type chain struct {
	doc     *types.GenesisDoc
	network ledger.Network
	state   ledger.Memory
	keys    []*client.Keys
	asset   ledger.AssetID
	params  ledger.Parameters
	height  uint64
	at      time.Time
	blocks  []chainBlock
}

type chainBlock struct {
	height  uint64
	at      time.Time
	txs     [][]byte
	results []Result
}

func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{state: ledger.Memory{}, at: time.Unix(1_700_000_000, 0)}
	p := ledger.DefaultParameters()
	state := ledger.GenesisState{Assets: []ledger.GenesisAsset{{Code: "PAC", Scale: 2, MaxSupply: "50000"}}}
	for i, s := range []crypto.Scheme{crypto.Ed25519, crypto.Ed25519, crypto.Secp256k1, crypto.MLDSA44, crypto.MLDSA65, crypto.Ed25519, crypto.Ed25519} {
		seed := bytes.Repeat([]byte{byte(i + 1)}, crypto.SeedSize)
		k, err := crypto.NewPrivateKey(s, seed)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := client.NewKeys(k)
		if err != nil {
			t.Fatal(err)
		}
		c.keys = append(c.keys, keys)
	}
	// The last two are the issuer and the collector.
	state.Assets[0].Issuer = c.keys[5].Address()
	for _, k := range c.keys[:5] {
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: k.Address(), Balances: []ledger.GenesisBalance{{Asset: "PAC", Amount: "2000.00"}}})
	}
	slices.SortFunc(state.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	state.Parameters = p.Genesis("PAC", c.keys[6].Address())
	key := cmted25519.GenPrivKeyFromSecret([]byte("validator")).PubKey()
	var err error
	if c.doc, err = genesis.New("audit", c.at, []types.GenesisValidator{{Address: key.Address(), PubKey: key, Power: 1}}, state); err != nil {
		t.Fatal(err)
	}
	g, err := genesis.FromDoc(c.doc)
	if err != nil {
		t.Fatal(err)
	}
	outcome, network, err := g.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	c.network = network
	c.state.Apply(outcome.Writes)
	c.asset = ledger.NewAssetID(c.keys[5].Address(), "PAC")
	if c.params, err = ledger.DecodeParameters(c.state[string(ledger.ParametersRow())]); err != nil {
		t.Fatal(err)
	}
	return c
}

// sign makes a transaction of payer number i.
func (c *chain) sign(t *testing.T, i int, s ledger.Signer, until uint64, policy crypto.Policy, version uint32, keys *client.Keys, operations ...ledger.Operation) []byte {
	t.Helper()
	s.Address = c.keys[i].Address()
	if c.state[string(ledger.AccountRow(s.Address))] == nil {
		s.Policy = policy.Encode()
	}
	accounts := []client.SigningAccount{{Policy: policy, Version: version}}
	body, err := client.WithFee(c.params, ledger.FeeRate{Multiplier: 1000}, ledger.Body{Signers: []ledger.Signer{s}, ValidUntil: until, Operations: operations, MaxDeposit: ledger.Units(100_000)}, accounts)
	if err != nil {
		t.Fatal(err)
	}
	d, err := client.NewDraft(c.network, body, accounts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sign(keys); err != nil {
		t.Fatal(err)
	}
	return ledger.Assemble(body, d.Witnesses(), nil)
}

// block executes a block and returns the results.
func (c *chain) block(t *testing.T, txs ...[]byte) []Result {
	t.Helper()
	c.height++
	c.at = c.at.Add(time.Second)
	b, err := ledger.NewBlock(c.state, ledger.Header{Height: c.height, UnixMillis: uint64(c.at.UnixMilli())}, ledger.Direct{})
	if err != nil {
		t.Fatal(err)
	}
	var results []Result
	for _, raw := range txs {
		tx, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Apply(tx)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, Result{uint32(r.Code), r.Encode()})
	}
	outcome, err := b.End(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.state.Apply(outcome.Writes)
	c.blocks = append(c.blocks, chainBlock{c.height, c.at, txs, results})
	return results
}

// TestBook runs random transactions of every kind through the rulebook and the book; both must see the same, and the
// book must notice every falsified receipt and every block that could not have been.
func TestBook(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	c := newChain(t)
	b, err := newBook(c.doc)
	if err != nil {
		t.Fatal(err)
	}
	sequences := map[int]uint64{}
	codes := map[uint32]int{}
	for range 60 {
		var txs [][]byte
		for range random.IntN(6) {
			i := random.IntN(6)
			var operations []ledger.Operation
			for range 1 + random.IntN(3) {
				to := c.keys[(i+1+random.IntN(6))%7].Address()
				// Sometimes more than a payer has, or than the issuer may issue.
				operations = append(operations, &ledger.Transfer{To: to, Asset: c.asset, Amount: ledger.Units(1 + random.Uint64N(200_000)*random.Uint64N(3)*random.Uint64N(8))})
			}
			switch random.IntN(12) {
			case 0:
				operations = append(operations, &ledger.CreateAsset{Code: "AB" + string(rune('A'+random.IntN(6))), MaxSupply: ledger.Units(5)})
			case 1:
				operations = append(operations, &ledger.Transfer{To: c.keys[6].Address(), Asset: ledger.AssetID{9}, Amount: ledger.Units(1)})
			}
			s := ledger.Signer{}
			until := uint64(0)
			if random.IntN(2) == 0 {
				s.Sequence = sequences[i] + 1
			} else {
				until = uint64(c.at.Unix()) + 300
				for j := range s.Nonce {
					s.Nonce[j] = byte(random.Uint32())
				}
			}
			raw := c.sign(t, i, s, until, c.keys[i].Policy(), 0, c.keys[i], operations...)
			// What the rulebook refuses may not be in a block; try it on a block that is dropped.
			trial, err := ledger.NewBlock(c.state, ledger.Header{Height: c.height + 1, UnixMillis: uint64(c.at.Add(time.Second).UnixMilli())}, ledger.Direct{})
			if err != nil {
				t.Fatal(err)
			}
			refused := false
			for _, other := range append(slices.Clone(txs), raw) {
				tx, err := ledger.Decode(other)
				if err != nil {
					t.Fatal(err)
				}
				r, err := trial.Apply(tx)
				if err != nil {
					t.Fatal(err)
				}
				refused = r.Code.Refused()
			}
			if refused {
				continue
			}
			if s.Sequence != 0 {
				sequences[i]++
			}
			txs = append(txs, raw)
		}
		results := c.block(t, txs...)
		for _, r := range results {
			codes[r.Code]++
		}
		if errs := b.block(c.height, c.at, txs, results, nil, nil); errs != nil {
			t.Fatal(errs)
		}
	}
	for _, code := range []ledger.Code{ledger.OK, ledger.InsufficientFunds, ledger.AssetUnknown} {
		if codes[uint32(code)] == 0 {
			t.Errorf("no transaction with code %s among %v", code, codes)
		}
	}
	same := func() {
		t.Helper()
		rows := b.provable()
		for key, value := range c.state {
			if _, ok := ledger.TreeOf([]byte(key)); ok && string(value) != string(rows[key]) {
				t.Errorf("row %x is %x, the book says %x", key, value, rows[key])
			}
			delete(rows, key)
		}
		if len(rows) != 0 {
			t.Errorf("%d rows are in the book only", len(rows))
		}
	}
	same()

	// A change of keys, after which the old ones are worth nothing.
	policy := c.keys[1].Policy()
	message := ledger.PossessionPreimage(c.network.ID, c.keys[0].Address(), policy.Hash(), 1)
	proof, err := c.keys[1].Sign(0, message)
	if err != nil {
		t.Fatal(err)
	}
	sequences[0]++
	c.accept(t, b, c.sign(t, 0, ledger.Signer{Sequence: sequences[0]}, 0, c.keys[0].Policy(), 0, c.keys[0], &ledger.SetPolicy{Policy: policy.Encode(), Proofs: [][]byte{proof}}))
	pay := func(amount uint64) ledger.Operation {
		return &ledger.Transfer{To: c.keys[6].Address(), Asset: c.asset, Amount: ledger.Units(amount)}
	}
	sequences[0]++
	good := c.sign(t, 0, ledger.Signer{Sequence: sequences[0]}, 0, policy, 1, c.keys[1], pay(1))
	c.accept(t, b, good)

	results := c.block(t, good) // the rulebook refuses it, and the book must too, whatever the receipt says
	refuse := func(what, want string, raw []byte, r Result, at time.Time) {
		t.Helper()
		b, err := newBook(c.doc) // each time anew: what is refused changes nothing, and what is falsified might
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range c.blocks[:len(c.blocks)-1] {
			b.block(block.height, block.at, block.txs, block.results, nil, nil)
		}
		errs := b.block(c.height, at, [][]byte{raw}, []Result{r}, nil, nil)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v, want %q", what, errs, want)
		}
	}
	refuse("refused transaction", "refused with code 30", good, results[0], c.at)
	receipt := func(raw []byte, change func(r *ledger.Receipt)) Result {
		tx, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		r := ledger.Receipt{TxID: tx.ID(c.network.ID), Fee: tx.Body.MaxFee}
		for range tx.Body.Operations {
			r.Results = append(r.Results, ledger.OperationResult{Amount: ledger.Units(1)})
		}
		change(&r)
		return Result{uint32(r.Code), r.Encode()}
	}
	keep := func(*ledger.Receipt) {}
	refuse("sequence twice", "refused with code 30", good, receipt(good, keep), c.at)
	next := c.sign(t, 0, ledger.Signer{Sequence: sequences[0] + 1}, 0, policy, 1, c.keys[1], pay(1))
	forged := bytes.Clone(next)
	forged[len(forged)-1] ^= 1
	refuse("forged", "refused with code 60", forged, receipt(forged, keep), c.at)
	old := c.sign(t, 0, ledger.Signer{Sequence: sequences[0] + 1}, 0, c.keys[0].Policy(), 0, c.keys[0], pay(1))
	refuse("old keys", "refused with code 60", old, receipt(old, keep), c.at)
	refuse("other transaction's receipt", "has the receipt", next, receipt(old, keep), c.at)
	refuse("wrong fee", "has the receipt", next, receipt(next, func(r *ledger.Receipt) { r.Fee = ledger.Units(1) }), c.at)
	refuse("receipt of a failure", "has code 101, want 0", next, receipt(next, func(r *ledger.Receipt) { r.Code, r.Failed, r.Results = ledger.InsufficientFunds, 1, nil }), c.at)
	next = c.sign(t, 0, ledger.Signer{Sequence: sequences[0] + 1}, 0, policy, 1, c.keys[1], pay(1<<50))
	refuse("receipt of a success", "has code 0, want 101", next, receipt(next, func(r *ledger.Receipt) { r.Results[0].Amount = ledger.Units(1 << 50) }), c.at)
	until := uint64(c.at.Unix()) + 100
	late := c.sign(t, 0, ledger.Signer{Nonce: [16]byte{1}}, until, policy, 1, c.keys[1], pay(1))
	refuse("expired", "refused with code 10", late, receipt(late, keep), time.Unix(int64(until), 0))
	refuse("too early", "refused with code 11", late, receipt(late, keep), c.at.Add(-time.Hour))
	b.block(c.height, c.at, nil, nil, nil, nil)
	same()
	b.BeginBlock(c.height+1, uint64(c.at.UnixMilli())+1000_000)
	b.EndBlock(nil, nil)
	if string(b.provable()["\x51"]) == string(c.state["\x51"]) {
		t.Error("a block more leaves the book as it was")
	}
}

// TestBookVotes: the book counts who has missed a block as the rulebook does, and knows from then on who votes.
func TestBookVotes(t *testing.T) {
	c := newChain(t)
	var set []types.GenesisValidator
	for i := range 5 {
		key := cmted25519.GenPrivKeyFromSecret([]byte{byte(i)}).PubKey()
		set = append(set, types.GenesisValidator{Address: key.Address(), PubKey: key, Power: 10})
	}
	g, err := genesis.FromDoc(c.doc)
	if err != nil {
		t.Fatal(err)
	}
	g.State.Parameters.MissedWindow, g.State.Parameters.MaxMissed = 10, 3
	g.State.Validators = nil
	for i, v := range set { // who has no operator is never set inactive
		g.State.Validators = append(g.State.Validators, ledger.GenesisValidator{PubKey: v.PubKey.Bytes(), Operator: crypto.Address{0xa0, byte(i)}})
	}
	doc, err := genesis.New("audit", c.at, set, g.State)
	if err != nil {
		t.Fatal(err)
	}
	if g, err = genesis.FromDoc(doc); err != nil {
		t.Fatal(err)
	}
	outcome, _, err := g.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	state := ledger.Memory{}
	state.Apply(outcome.Writes)
	b, err := newBook(doc)
	if err != nil {
		t.Fatal(err)
	}
	whole := b.validators[1].Hash()
	for h := uint64(1); h <= 8; h++ {
		at := c.at.Add(time.Duration(h) * time.Second)
		var commit *types.Commit
		var votes []ledger.Vote
		if h > 1 {
			commit = &types.Commit{}
			for i, v := range b.validators[h-1].Validators {
				signature := types.CommitSig{BlockIDFlag: types.BlockIDFlagCommit, ValidatorAddress: v.Address}
				if i == 2 && h < 6 {
					signature = types.NewCommitSigAbsent() // as CometBFT has it: without a name
				}
				commit.Signatures = append(commit.Signatures, signature)
				votes = append(votes, ledger.Vote{Validator: ledger.ConsensusAddress(v.Address), Signed: signature.BlockIDFlag != types.BlockIDFlagAbsent})
			}
		}
		// Absent in the commits of blocks 2 to 5, inactive by block 5, and no more in the set that votes about block 7.
		header := &Block{Height: h, Validators: whole, NextValidators: whole}
		left := b.validators[h].Hash()
		if h >= 7 {
			header.Validators = left
		}
		if h >= 6 {
			header.NextValidators = b.validators[h+1].Hash()
		}
		if err := b.elected(header); err != nil {
			t.Error(err)
		}
		if h >= 7 == bytes.Equal(left, whole) {
			t.Errorf("block %d: the set is %X, and was %X in the beginning", h, left, whole)
		}
		if h == 7 {
			header.Validators = whole
			if b.elected(header) == nil {
				t.Error("the set of before is taken")
			}
			if _, err := b.votes(h+1, &types.Commit{Signatures: make([]types.CommitSig, 5)}); err == nil {
				t.Error("a commit of five is taken")
			}
		}
		block, err := ledger.NewBlock(state, ledger.Header{Height: h, UnixMillis: uint64(at.UnixMilli())}, ledger.Direct{})
		if err != nil {
			t.Fatal(err)
		}
		if outcome, err = block.End(nil, votes); err != nil {
			t.Fatal(err)
		}
		state.Apply(outcome.Writes)
		if errs := b.block(h, at, nil, nil, nil, commit); errs != nil {
			t.Fatal(errs)
		}
		rows := b.provable()
		for key, value := range state {
			if _, ok := ledger.TreeOf([]byte(key)); ok && string(value) != string(rows[key]) {
				t.Errorf("block %d: row %x is %x, the book says %x", h, key, value, rows[key])
			}
		}
	}
}

// accept runs one transaction, which must take effect, through both.
func (c *chain) accept(t *testing.T, b *book, raw []byte) {
	t.Helper()
	results := c.block(t, raw)
	if results[0].Code != 0 {
		t.Fatalf("code %d", results[0].Code)
	}
	if errs := b.block(c.height, c.at, [][]byte{raw}, results, nil, nil); errs != nil {
		t.Fatal(errs)
	}
}

// TestSettled falsifies a record in every way that the audit must notice.
func TestSettled(t *testing.T) {
	claim := func(n byte, ending Ending, sent, acked int64, height, index uint64) Claim {
		return Claim{ID: crypto.Hash{n}, Raw: []byte{n}, Kind: "k", Sent: sent, Acked: acked, Ending: ending, Height: height, Index: index}
	}
	record := func() []Claim {
		return []Claim{claim(1, Final, 10, 20, 5, 0), claim(2, Final, 15, 30, 5, 1), claim(3, Final, 40, 60, 7, 0),
			claim(4, Refused, 41, 42, 0, 0), claim(5, Unknown, 43, 0, 0, 0), claim(6, Unknown, 44, 0, 0, 0), claim(7, Dead, 44, 50, 0, 0), claim(8, Unsent, 45, 46, 0, 0)}
	}
	places := func() map[crypto.Hash][]place {
		m := map[crypto.Hash][]place{}
		for n, p := range map[byte]place{1: {height: 5}, 2: {height: 5, index: 1}, 3: {height: 7}, 5: {height: 8}} {
			p.sum = sha256.Sum256([]byte{n})
			m[crypto.Hash{n}] = []place{p}
		}
		return m
	}
	if errs := settled(record(), places(), 9); errs != nil {
		t.Fatalf("a true record: %v", errs)
	}
	put := func(m map[crypto.Hash][]place, n byte, height uint64) {
		m[crypto.Hash{n}] = append(m[crypto.Hash{n}], place{height: height, sum: sha256.Sum256([]byte{n})})
	}
	for _, c := range []struct {
		name, want string
		change     func(r []Claim, m map[crypto.Hash][]place)
	}{
		{"other height", "the chain has it in block 5", func(r []Claim, _ map[crypto.Hash][]place) { r[0].Height = 4 }},
		{"other index", "number 1 with code 0, the chain has it in block 5 number 0", func(r []Claim, _ map[crypto.Hash][]place) { r[0].Index = 1 }},
		{"other code", "with code 7", func(r []Claim, _ map[crypto.Hash][]place) { r[0].Code = 7 }},
		{"lost", "does not have it", func(_ []Claim, m map[crypto.Hash][]place) { delete(m, crypto.Hash{2}) }},
		{"beyond the audit", "the audit ends at 9", func(r []Claim, m map[crypto.Hash][]place) { r[2].Height = 10 }},
		{"twice", "2 times", func(_ []Claim, m map[crypto.Hash][]place) { put(m, 3, 9) }},
		{"unknown twice", "2 times", func(_ []Claim, m map[crypto.Hash][]place) { put(m, 5, 9) }},
		{"refused and there", "told refused", func(_ []Claim, m map[crypto.Hash][]place) { put(m, 4, 9) }},
		{"dead and there", "told dead", func(_ []Claim, m map[crypto.Hash][]place) { put(m, 7, 9) }},
		{"unsent and there", "told unsent", func(_ []Claim, m map[crypto.Hash][]place) { put(m, 8, 9) }},
		{"other bytes", "other bytes", func(r []Claim, _ map[crypto.Hash][]place) { r[1].Raw = []byte{9} }},
		{"no such ending", "no such ending", func(r []Claim, _ map[crypto.Hash][]place) { r[5].Ending = "" }},
		{"one record twice", "stands twice", func(r []Claim, _ map[crypto.Hash][]place) { r[1] = r[0] }},
		{"again elsewhere", "handed in again", func(r []Claim, _ map[crypto.Hash][]place) { r[0].Again = []uint64{6} }},
		{"against real time", "stands before it", func(r []Claim, _ map[crypto.Hash][]place) { r[0].Sent, r[1].Acked = 35, 30 }},
		{"never told", "no time", func(r []Claim, _ map[crypto.Hash][]place) { r[2].Acked = 0 }},
	} {
		r, m := record(), places()
		c.change(r, m)
		if errs := settled(r, m, 9); len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, errs, c.want)
		}
	}
}

// TestRecord writes and reads a record.
func TestRecord(t *testing.T) {
	claims := []Claim{{ID: crypto.Hash{1}, Raw: bytes.Repeat([]byte{7}, 200_000), Kind: "x", Sent: 1, Ending: Final, Code: 101, Height: 5, Index: 6, Acked: 9, Again: []uint64{5}}, {ID: crypto.Hash{2}, Ending: Unknown, Text: "because"}}
	var b bytes.Buffer
	if err := WriteClaims(&b, claims); err != nil {
		t.Fatal(err)
	}
	read, err := ReadClaims(bytes.NewReader(b.Bytes()))
	if err != nil || len(read) != 2 || !bytes.Equal(read[0].Raw, claims[0].Raw) || read[0].Again[0] != 5 || read[1].Text != "because" {
		t.Fatalf("%v, %v", read, err)
	}
	if _, err := ReadClaims(strings.NewReader("{}\nx\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
}

// TestReads falsifies reads, and commits, in every way that the audit must notice.
func TestReads(t *testing.T) {
	rows := map[string][]byte{"a": {1}, "b": {}}
	good := []Read{{Client: "x", Node: "n", Key: []byte("a"), Value: []byte{1}, Present: true, Height: 5}, {Client: "x", Node: "n", Key: []byte("c"), Height: 6}, {Client: "x", Node: "n", Key: []byte("d"), Height: 2, Chosen: true},
		{Client: "x", Node: "m", Key: []byte("b"), Present: true, Height: 3}, {Client: "y", Node: "n", Key: []byte("c"), Height: 4}, {Client: "x", Node: "n", Key: []byte("c"), Height: 6}}
	if faults := append(readTrue(good, rows), monotonic(good)...); len(faults) != 0 {
		t.Errorf("true reads: %v", faults)
	}
	for what, r := range map[string]Read{"another value": {Key: []byte("a"), Value: []byte{2}, Present: true}, "hidden": {Key: []byte("b")}, "invented": {Key: []byte("c"), Present: true}} {
		if len(readTrue([]Read{r}, rows)) != 1 {
			t.Errorf("%s: not noticed", what)
		}
	}
	if faults := monotonic(append(good, Read{Client: "x", Node: "n", Height: 5})); len(faults) != 1 {
		t.Errorf("an older read: %v", faults)
	}
}

// TestSignedTwice falsifies commits.
func TestSignedTwice(t *testing.T) {
	block := func(b byte) types.BlockID { return types.BlockID{Hash: bytes.Repeat([]byte{b}, 32)} }
	commit := func(height int64, round int32, id types.BlockID, flags ...types.BlockIDFlag) *types.Commit {
		c := &types.Commit{Height: height, Round: round, BlockID: id}
		for i, f := range flags {
			s := types.CommitSig{BlockIDFlag: f}
			if f != types.BlockIDFlagAbsent {
				s.ValidatorAddress = bytes.Repeat([]byte{byte(i)}, 20)
			}
			c.Signatures = append(c.Signatures, s)
		}
		return c
	}
	const absent, signed, none = types.BlockIDFlagAbsent, types.BlockIDFlagCommit, types.BlockIDFlagNil
	// Another node has seen other signatures; in another height everything is new; validator 0 had no block in the first round.
	good := []*types.Commit{nil, commit(5, 0, block(1), signed, signed, signed, absent), commit(5, 0, block(1), signed, absent, signed, none), commit(6, 0, block(2), none, signed, signed, signed),
		commit(6, 1, block(2), signed, signed, signed, signed)}
	if faults := signedTwice(good, nil); len(faults) != 0 {
		t.Errorf("good commits: %v", faults)
	}
	for what, bad := range map[string]*types.Commit{"two blocks": commit(5, 0, block(3), absent, signed), "two blocks in two rounds": commit(5, 1, block(3), absent, signed), "a block and none": commit(5, 0, block(1), absent, none)} {
		all := append(slices.Clone(good), bad)
		if faults := signedTwice(all, nil); len(faults) != 1 {
			t.Errorf("%s: %v", what, faults)
		}
		if faults := signedTwice(all, [][]byte{bytes.Repeat([]byte{1}, 20)}); len(faults) != 0 {
			t.Errorf("%s by who was made to: %v", what, faults)
		}
	}
}
