package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/crypto"
	genesisfile "github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

var background = context.Background()

// ring holds the private keys of all actors, by scheme and public key.
type ring map[string]crypto.PrivateKey

func ringName(s crypto.Scheme, public []byte) string { return fmt.Sprint(s, string(public)) }

// key makes the key of a name, always the same one.
func (r ring) key(t testing.TB, s crypto.Scheme, name string) crypto.Key {
	t.Helper()
	seed := sha256.Sum256([]byte("pacioli app test " + name))
	private, err := crypto.NewPrivateKey(s, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	r[ringName(s, private.Public())] = private
	return crypto.Key{Scheme: s, Public: private.Public(), Weight: 1}
}

func (r ring) sign(t testing.TB, k crypto.Key, message []byte) []byte {
	t.Helper()
	signature, err := r[ringName(k.Scheme, k.Public)].Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// actor is an account with its keys, as its owner's wallet sees it.
type actor struct {
	name     string
	address  crypto.Address
	policy   crypto.Policy
	version  uint32
	known    bool   // brings no policy any more
	sequence uint64 // last one given out
}

// world is a genesis with actors.
type world struct {
	t        testing.TB
	ring     ring
	doc      *types.GenesisDoc
	network  ledger.Network
	fee      ledger.AssetID
	actors   []*actor // all but bank and fees begin with funds, but for the last, who is poor
	bank     *actor
	poor     *actor
	policies map[crypto.Hash]crypto.Policy // every policy ever made
	powers   []int64
	// operators of the first validators.
	operators []crypto.Address
}

const (
	ed  = crypto.Ed25519
	sec = crypto.Secp256k1
	m44 = crypto.MLDSA44
	m65 = crypto.MLDSA65
)

func (w *world) policy(threshold uint32, keys ...crypto.Key) crypto.Policy {
	w.t.Helper()
	p, err := crypto.NewPolicy(threshold, keys...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.policies[p.Hash()] = p
	return p
}

func (w *world) actor(name string, threshold uint32, schemes ...crypto.Scheme) *actor {
	var keys []crypto.Key
	for i, s := range schemes {
		keys = append(keys, w.ring.key(w.t, s, fmt.Sprint(name, i)))
	}
	p := w.policy(threshold, keys...)
	a := &actor{name: name, policy: p, address: p.Address()}
	w.actors = append(w.actors, a)
	return a
}

// newWorld makes a network with validators of both key types, of the given powers; odd ones have ML-DSA keys.
func newWorld(t testing.TB, powers ...int64) *world {
	w := &world{t: t, ring: ring{}, policies: map[crypto.Hash]crypto.Policy{}, powers: powers}
	if len(powers) == 0 {
		w.powers = []int64{10, 10, 10, 10}
	}
	w.bank = w.actor("bank", 1, ed)
	fees := w.policy(1, w.ring.key(t, ed, "fees")).Address()
	for i := range 6 {
		w.actor(fmt.Sprint("single", i), 1, ed)
	}
	w.actor("sec", 1, sec)
	w.actor("m44", 1, m44)
	w.actor("m65", 1, m65)
	w.actor("hybrid", 2, ed, m44)
	w.actor("board", 2, ed, ed, sec)
	w.poor = w.actor("poor", 1, ed)

	for _, a := range w.actors[7:11] {
		w.operators = append(w.operators, a.address)
	}
	p := ledger.DefaultParameters().WithoutDeposits()
	p.MissedWindow, p.MaxMissed = 10, 2
	state := ledger.GenesisState{
		Parameters: p.Genesis("EUR", fees),
		Assets:     []ledger.GenesisAsset{{Code: "EUR", Issuer: w.bank.address, Scale: 2, MaxSupply: "1000000000"}},
	}
	w.fee = ledger.NewAssetID(w.bank.address, "EUR")
	for _, a := range w.actors {
		amount := "100000"
		switch a {
		case w.bank:
			continue
		case w.poor:
			amount = "12" // three transactions or so
		}
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: a.address, Balances: []ledger.GenesisBalance{{Asset: "EUR", Amount: amount}}})
	}
	w.found(state)
	return w
}

// found makes the genesis file of a state.
func (w *world) found(state ledger.GenesisState) {
	t := w.t
	slices.SortFunc(state.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	var validators []types.GenesisValidator
	for i, power := range w.powers {
		seed := sha256.Sum256(fmt.Appendf(nil, "validator %d", i))
		v := types.GenesisValidator{Power: power * genesisfile.EqualPower}
		if i%2 == 0 {
			v.PubKey = cmted25519.GenPrivKeyFromSecret(seed[:]).PubKey()
		} else {
			k, err := crypto.NewPrivateKey(crypto.MLDSA65, seed[:])
			if err != nil {
				t.Fatal(err)
			}
			public, err := mldsa65.NewPubKeyFromBytes(k.Public())
			if err != nil {
				t.Fatal(err)
			}
			v.PubKey = public
		}
		v.Address = v.PubKey.Address()
		validators = append(validators, v)
		if i < len(w.operators) {
			state.Validators = append(state.Validators, ledger.GenesisValidator{PubKey: v.PubKey.Bytes(), Operator: w.operators[i], Name: fmt.Sprint("validator ", i)})
		}
	}
	var err error
	if w.doc, err = genesisfile.New("test-1", time.UnixMilli(1_700_000_000_000), validators, state); err != nil {
		t.Fatal(err)
	}
	if w.network, err = genesisfile.NetworkOf(w.doc); err != nil {
		t.Fatal(err)
	}
}

func (w *world) initChain() *abci.RequestInitChain {
	req := &abci.RequestInitChain{ChainId: w.doc.ChainID, Time: w.doc.GenesisTime, InitialHeight: w.doc.InitialHeight, AppStateBytes: w.doc.AppState}
	for _, v := range w.doc.Validators {
		req.Validators = append(req.Validators, types.TM2PB.NewValidatorUpdate(v.PubKey, v.Power))
	}
	return req
}

// order is what makes a transaction.
type order struct {
	signers    []*actor
	operations []ledger.Operation
	nonce      uint64 // not 0: by nonce, not by sequence
	validUntil uint64
	maxFee     uint64 // 0: plenty
	maxDeposit uint64
	sponsor    *actor // pays
	granter    *actor // pays, under a grant to the first signer
	sequence   uint64 // of the first signer, instead of its next one
	spoil      bool   // the last signature
}

// build signs an order and moves its signers' sequences on.
func (w *world) build(o order) []byte {
	w.t.Helper()
	body := ledger.Body{ValidUntil: o.validUntil, MaxFee: ledger.Units(1 << 40), MaxDeposit: ledger.Units(o.maxDeposit), Operations: o.operations}
	if o.granter != nil {
		body.FeeGranter = o.granter.address
	}
	if o.maxFee != 0 {
		body.MaxFee = ledger.Units(o.maxFee)
	}
	for i, a := range o.signers {
		s := ledger.Signer{Address: a.address}
		if o.nonce != 0 {
			binary.BigEndian.PutUint64(s.Nonce[:], o.nonce)
		} else {
			a.sequence++
			s.Sequence = a.sequence
			if i == 0 && o.sequence != 0 {
				a.sequence--
				s.Sequence = o.sequence
			}
		}
		if !a.known {
			s.Policy = a.policy.Encode()
		}
		body.Signers = append(body.Signers, s)
	}
	raw := body.Encode()
	var witnesses []ledger.Witness
	sign := func(i int, a *actor, need uint32, message []byte) {
		for k, key := range a.policy.Keys[:need] { // every weight is 1
			witnesses = append(witnesses, ledger.Witness{Signer: uint32(i), Key: uint32(k), Signature: w.ring.sign(w.t, key, message)})
		}
	}
	for i, a := range o.signers {
		sign(i, a, body.NeedOf(uint32(i), a.policy), ledger.Preimage(w.network.ID, raw, a.version))
	}
	var sponsor *ledger.Sponsor
	if a := o.sponsor; a != nil {
		sponsor = &ledger.Sponsor{Address: a.address, MaxFee: body.MaxFee, MaxDeposit: body.MaxDeposit}
		if !a.known {
			sponsor.Policy = a.policy.Encode()
		}
		sign(len(o.signers), a, a.policy.Threshold, ledger.SponsorPreimage(w.network.ID, raw, sponsor, a.version))
	}
	if o.spoil {
		last := witnesses[len(witnesses)-1].Signature
		last[len(last)/2] ^= 1
	}
	return ledger.Assemble(raw, witnesses, sponsor)
}

func (w *world) transfer(from *actor, to crypto.Address, amount uint64) []byte {
	return w.build(order{signers: []*actor{from}, operations: []ledger.Operation{&ledger.Transfer{To: to, Asset: w.fee, Amount: ledger.Units(amount)}}})
}

func (w *world) setPolicy(signer uint32, a *actor, p crypto.Policy) *ledger.SetPolicy {
	op := &ledger.SetPolicy{Signer: signer, Policy: p.Encode()}
	message := ledger.PossessionPreimage(w.network.ID, a.address, p.Hash(), a.version+1)
	for _, k := range p.Keys {
		op.Proofs = append(op.Proofs, w.ring.sign(w.t, k, message))
	}
	return op
}

// sync makes every actor what the committed state says.
func (w *world) sync(a *App) {
	w.t.Helper()
	for _, x := range w.actors {
		res, err := a.Query(background, &abci.RequestQuery{Path: query.PathAccount, Data: x.address[:]})
		if err != nil || res.Code != 0 {
			w.t.Fatalf("account of %s: %v %+v", x.name, err, res)
		}
		info, err := query.DecodeAccount(res.Value)
		if err != nil {
			w.t.Fatal(err)
		}
		x.known, x.version, x.sequence, x.policy = info.Known, info.PolicyVersion, info.Sequence, w.policies[info.Policy]
		if len(x.policy.Keys) == 0 {
			w.t.Fatalf("%s has a policy that nobody made", x.name)
		}
	}
}

// random makes one transaction of any kind, good or bad.
func (w *world) random(rng *rand.Rand, header ledger.Header, old [][]byte) []byte {
	pick := func() *actor { return w.actors[rng.IntN(len(w.actors))] }
	a := pick()
	b := pick()
	for b == a {
		b = pick()
	}
	pay := func(from uint32, to crypto.Address, amount uint64) *ledger.Transfer {
		return &ledger.Transfer{From: from, To: to, Asset: w.fee, Amount: ledger.Units(amount), Memo: "rent", Code: uint32(rng.IntN(9))}
	}
	o := order{signers: []*actor{a}, operations: []ledger.Operation{pay(0, b.address, 1+rng.Uint64N(500))}}
	switch n := rng.IntN(100); {
	case n < 30:
	case n < 36: // fails: more than there is
		o.operations = append(o.operations, pay(0, b.address, 1<<50))
	case n < 40: // fails: no such asset
		o.operations = append(o.operations, &ledger.Transfer{To: b.address, Asset: ledger.AssetID{1}, Amount: ledger.Units(1)})
	case n < 46: // issues or burns
		if a != w.bank && rng.IntN(2) == 0 {
			o.operations = []ledger.Operation{pay(0, w.bank.address, 3)}
		} else if a != w.bank {
			o = order{signers: []*actor{w.bank}, operations: []ledger.Operation{pay(0, a.address, 1000)}}
		}
	case n < 52: // of 26*26 codes: some exist
		o.operations = append(o.operations, &ledger.CreateAsset{Code: "X" + string(rune('A'+rng.IntN(26))) + string(rune('A'+rng.IntN(26))), Scale: uint32(rng.IntN(19)), MaxSupply: ledger.Units(1 + rng.Uint64N(1000))})
	case n < 58: // two sign, and pay each other
		o.signers = append(o.signers, b)
		o.operations = append(o.operations, pay(1, a.address, 7))
	case n < 63: // another policy; what this actor signs after it in this block is signed with the old one
		schemes := crypto.Schemes()
		var keys []crypto.Key
		for i := range 1 + rng.IntN(2) {
			keys = append(keys, w.ring.key(w.t, schemes[rng.IntN(len(schemes))], fmt.Sprint(a.name, rng.Uint64(), i)))
		}
		o.operations = append(o.operations, w.setPolicy(0, a, w.policy(1, keys...)))
	case n < 65: // unchanged policy
		o.operations = append(o.operations, w.setPolicy(0, a, a.policy))
	case n < 75: // by nonce, some of them dying soon
		o.nonce, o.validUntil = 1+rng.Uint64N(1000), header.UnixMillis/1000+1+rng.Uint64N(5)
	case n < 77: // by nonce, too far ahead
		o.nonce, o.validUntil = 1, header.UnixMillis/1000+100_000
	case n < 80:
		o.validUntil = header.UnixMillis/1000 - 1 // expired
	case n < 83:
		o.maxFee = 1
	case n < 86:
		o.spoil = true
	case n < 89:
		o.sequence = a.sequence + 1 + rng.Uint64N(40) // a gap
	case n < 92 && len(old) > 0:
		return old[rng.IntN(len(old))] // again
	case n < 94: // garbage
		garbage := make([]byte, rng.IntN(300))
		for i := range garbage {
			garbage[i] = byte(rng.Uint32())
		}
		return garbage
	case n < 96: // a bit falls over
		raw := w.build(o)
		raw[rng.IntN(len(raw))] ^= 1 << rng.IntN(8)
		return raw
	case n < 98: // many operations
		for range 50 {
			o.operations = append(o.operations, pay(0, b.address, 1))
		}
	}
	return w.build(o)
}

// open opens an application. Options that are zero are made small, for memory disks.
func open(t testing.TB, fs vfs.FS, change func(*Options)) *App {
	t.Helper()
	o := Options{Dir: "app", Store: store.Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, TreeCacheNodes: 4000}, Mempool: mempool.DefaultConfig(), SignatureCache: 20_000}
	o.Store.OnFatal = func(err error) { t.Errorf("store broke: %v", err) }
	if change != nil {
		change(&o)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// block is a decided block.
type block struct {
	height   int64
	time     time.Time
	txs      [][]byte
	evidence []abci.Misbehavior
	missed   [][]byte // addresses of those who have not signed the block before
}

func (b block) lastCommit() (c abci.CommitInfo) {
	for _, address := range b.missed {
		c.Votes = append(c.Votes, abci.VoteInfo{Validator: abci.Validator{Address: address, Power: 1}, BlockIdFlag: cmtproto.BlockIDFlagAbsent})
	}
	return c
}

func (b block) finalize() *abci.RequestFinalizeBlock {
	return &abci.RequestFinalizeBlock{Height: b.height, Time: b.time, Txs: b.txs, Misbehavior: b.evidence, DecidedLastCommit: b.lastCommit()}
}

func (b block) process() *abci.RequestProcessProposal {
	return &abci.RequestProcessProposal{Height: b.height, Time: b.time, Txs: b.txs, Misbehavior: b.evidence, ProposedLastCommit: b.lastCommit()}
}

func (b block) prepare(maxTxBytes int64) *abci.RequestPrepareProposal {
	r := &abci.RequestPrepareProposal{Height: b.height, Time: b.time, Misbehavior: b.evidence, MaxTxBytes: maxTxBytes}
	for _, v := range b.lastCommit().Votes {
		r.LocalLastCommit.Votes = append(r.LocalLastCommit.Votes, abci.ExtendedVoteInfo{Validator: v.Validator, BlockIdFlag: v.BlockIdFlag})
	}
	return r
}

func must[V any](t testing.TB) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func initialise(t testing.TB, a *App, w *world) {
	t.Helper()
	res := must[*abci.ResponseInitChain](t)(a.InitChain(background, w.initChain()))
	if !bytes.Equal(res.AppHash, w.network.ID[:]) || len(res.Validators) != 0 || res.ConsensusParams != nil {
		t.Fatalf("InitChain answers %+v", res)
	}
}

func finalize(t testing.TB, a *App, b block) *abci.ResponseFinalizeBlock {
	t.Helper()
	return must[*abci.ResponseFinalizeBlock](t)(a.FinalizeBlock(background, b.finalize()))
}

func commit(t testing.TB, a *App) {
	t.Helper()
	must[*abci.ResponseCommit](t)(a.Commit(background, &abci.RequestCommit{}))
}

func prepare(t testing.TB, a *App, b *block, maxTxBytes int64) {
	t.Helper()
	b.txs = must[*abci.ResponsePrepareProposal](t)(a.PrepareProposal(background, b.prepare(maxTxBytes))).Txs
}

func accepted(t testing.TB, a *App, b block) bool {
	t.Helper()
	return must[*abci.ResponseProcessProposal](t)(a.ProcessProposal(background, b.process())).Status == abci.ResponseProcessProposal_ACCEPT
}

func check(t testing.TB, a *App, raw []byte) ledger.Code {
	t.Helper()
	return ledger.Code(must[*abci.ResponseCheckTx](t)(a.CheckTx(background, &abci.RequestCheckTx{Tx: raw})).Code)
}

// wire is an answer as CometBFT would hash and send it.
func wire(t testing.TB, r *abci.ResponseFinalizeBlock) []byte {
	t.Helper()
	return must[[]byte](t)(r.Marshal())
}

func info(t testing.TB, a *App) *abci.ResponseInfo {
	t.Helper()
	return must[*abci.ResponseInfo](t)(a.Info(background, &abci.RequestInfo{}))
}

// audit checks every row of the committed state.
func audit(t testing.TB, a *App) {
	t.Helper()
	x := ledger.NewAudit()
	v := a.store.View()
	defer v.Close()
	if err := v.Range(nil, nil, func(key, value []byte) error { x.Row(bytes.Clone(key), bytes.Clone(value)); return nil }); err != nil {
		t.Fatal(err)
	}
	x.Close()
	if len(x.Findings) > 0 || x.Rows == 0 {
		t.Fatalf("audit of %d rows at height %d: %s", x.Rows, v.Height(), x.Findings)
	}
}

func closeApp(t testing.TB, a *App) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func encodeJSON(v any) string { b, _ := json.Marshal(v); return string(b) }
