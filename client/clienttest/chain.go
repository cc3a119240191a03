// Package clienttest is a ledger without a network, for the tests of whatever talks to one: real rules on a real store,
// real headers signed by real validators, and HTTP servers that answer as nodes do, or lie as they are told.
//
// A block is made by calling [Chain.Block], or every few milliseconds by [Chain.Run]. It has no consensus and no mempool:
// it tests clients, never the node.
package clienttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	cmtcrypto "github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmtversion "github.com/cometbft/cometbft/proto/tendermint/version"
	"github.com/cometbft/cometbft/types"
	"github.com/cometbft/cometbft/version"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// journal names the journal of a line in one of its incarnations.
type journal struct {
	line        ledger.LineKey
	incarnation uint64
}

// Chain is a ledger with all its blocks in memory. It is safe for concurrent use.
type Chain struct {
	T       testing.TB
	Doc     *types.GenesisDoc
	Network ledger.Network

	keys []cmtcrypto.PrivKey
	set  *types.ValidatorSet

	mu      sync.Mutex
	store   *store.Store
	genesis ledger.Memory
	outcome ledger.Outcome
	blocks  []*block // blocks[i] has height i+1
	pool    [][]byte
	planted []ledger.Write         // into the next block's state, by no rule
	placed  map[crypto.Hash][2]int // height and index by transaction id
	entries map[journal][][]byte
	clock   time.Duration // added to the time of new blocks
}

type block struct {
	light   *types.LightBlock
	txs     [][]byte
	results []proof.Result
}

// Key makes a key that is the same for the same name.
func Key(scheme crypto.Scheme, name string) crypto.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	k, err := crypto.NewPrivateKey(scheme, seed[:])
	if err != nil {
		panic(err)
	}
	return k
}

// Signer makes the signer of an account of one ed25519 key.
func Signer(name string) *client.Keys {
	k, err := client.NewKeys(Key(crypto.Ed25519, name))
	if err != nil {
		panic(err)
	}
	return k
}

// Operator makes the signer of the account that operates a validator. It has nothing.
func Operator(i int) *client.Keys { return Signer(fmt.Sprintf("operator %d", i)) }

// Doc is a genesis document for four validators with operators, with the asset PAC of 6 decimals, issued by "bank", which pays the fees,
// and 1,000 PAC for each of the accounts.
func Doc(chainID string, start time.Time, accounts ...crypto.Address) (*types.GenesisDoc, []cmtcrypto.PrivKey) {
	bank := Signer("bank").Address()
	p := ledger.DefaultParameters()
	state := ledger.GenesisState{
		Parameters: p.Genesis("PAC", Signer("collector").Address()),
		Assets:     []ledger.GenesisAsset{{Code: "PAC", Issuer: bank, Scale: 6, MaxSupply: "1000000000"}},
	}
	slices.SortFunc(accounts, func(a, b crypto.Address) int { return bytes.Compare(a[:], b[:]) })
	for _, a := range accounts {
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: a, Balances: []ledger.GenesisBalance{{Asset: "PAC", Amount: "1000"}}})
	}
	params := types.DefaultConsensusParams()
	params.Validator.PubKeyTypes = []string{ed25519.KeyType, mldsa65.KeyType} // a vote can bring in either
	doc := &types.GenesisDoc{ChainID: chainID, GenesisTime: start, InitialHeight: 1, ConsensusParams: params}
	var keys []cmtcrypto.PrivKey
	for i := range 4 {
		k := ed25519.GenPrivKeyFromSecret(fmt.Appendf(nil, "validator %d", i))
		keys = append(keys, k)
		state.Validators = append(state.Validators, ledger.GenesisValidator{PubKey: k.PubKey().Bytes(), Operator: Operator(i).Address(), Name: fmt.Sprintf("validator-%d", i)})
		doc.Validators = append(doc.Validators, types.GenesisValidator{PubKey: k.PubKey(), Power: 1})
	}
	var err error
	if doc.AppState, err = json.Marshal(state); err != nil {
		panic(err)
	}
	if err := doc.ValidateAndComplete(); err != nil {
		panic(err)
	}
	return doc, keys
}

// New makes a chain with two blocks, which began some minutes ago.
func New(t testing.TB, chainID string, accounts ...crypto.Address) *Chain {
	t.Helper()
	return NewPast(t, chainID, 0, accounts...)
}

// NewPast makes a chain whose clock is behind by a while, which [Chain.Advance] can make up for: no client takes headers from
// the future.
func NewPast(t testing.TB, chainID string, behind time.Duration, accounts ...crypto.Address) *Chain {
	t.Helper()
	start := time.Now().UTC().Add(-behind - 5*time.Minute).Truncate(time.Millisecond)
	doc, keys := Doc(chainID, start, accounts...)
	g, err := client.GenesisFromDoc(doc)
	if err != nil {
		t.Fatal(err)
	}
	c := &Chain{T: t, Doc: doc, keys: keys, clock: -behind, placed: map[crypto.Hash][2]int{}, entries: map[journal][][]byte{}, genesis: ledger.Memory{}}
	if c.outcome, c.Network, err = g.Outcome(); err != nil {
		t.Fatal(err)
	}
	c.genesis.Apply(c.outcome.Writes)
	if c.store, err = store.Open("", store.Options{FS: vfs.NewMem(), CacheBytes: 64 << 20, MemTableBytes: 16 << 20, TreeCacheNodes: 100_000}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.mu.Lock(); defer c.mu.Unlock(); _ = c.store.Close() })
	var list []*types.Validator
	for _, k := range keys {
		list = append(list, types.NewValidator(k.PubKey(), 1))
	}
	c.set = types.NewValidatorSet(list)
	c.Block()
	c.Block()
	return c
}

// GenesisFile writes the genesis file below dir and returns its path.
func (c *Chain) GenesisFile(dir string) string {
	text, err := cmtjson.MarshalIndent(c.Doc, "", " ")
	if err != nil {
		c.T.Fatal(err)
	}
	path := filepath.Join(dir, "genesis.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		c.T.Fatal(err)
	}
	return path
}

// Height returns the height of the newest block.
func (c *Chain) Height() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(len(c.blocks))
}

// Header returns the header at a height.
func (c *Chain) Header(height uint64) *types.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocks[height-1].light.Header
}

// Advance moves the chain's clock ahead for the blocks that follow.
func (c *Chain) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock += d
}

// Put puts a transaction into the next block, whatever it is.
func (c *Chain) Put(raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool = append(c.pool, raw)
}

// Write puts rows into the state of the next block, whatever they are: for what the rules would never write. A nil value
// deletes; of several writes of one key the last one counts.
func (c *Chain) Write(rows ...ledger.Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.planted = append(c.planted, rows...)
}

// Rows returns the rows that the trees hold after the newest block.
func (c *Chain) Rows() map[string]string {
	view := c.store.View()
	defer view.Close()
	rows := map[string]string{}
	if err := view.Range(nil, nil, func(key, value []byte) error {
		if _, ok := ledger.TreeOf(key); ok {
			rows[string(key)] = string(value)
		}
		return nil
	}); err != nil {
		c.T.Fatal(err)
	}
	return rows
}

// Run makes a block every interval until the test ends.
func (c *Chain) Run(interval time.Duration) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(interval):
				c.Block()
			}
		}
	})
	c.T.Cleanup(func() { close(done); wg.Wait() })
}

// base returns the state that the next block is executed over.
func (c *Chain) base() (ledger.Reader, func()) {
	if len(c.blocks) == 0 {
		return c.genesis, func() {}
	}
	view := c.store.View()
	return view, view.Close
}

// next begins a block after the newest one, for executing or for checking.
func (c *Chain) next(at time.Time) (*ledger.Block, func()) {
	base, release := c.base()
	b, err := ledger.NewBlock(base, ledger.Header{Height: uint64(len(c.blocks)) + 1, UnixMillis: uint64(at.UnixMilli())}, ledger.Direct{})
	if err != nil {
		panic(err)
	}
	return b, release
}

// check is what a node's mempool would say: code, and the height of the block that has the transaction already.
func (c *Chain) check(raw []byte) (id crypto.Hash, code ledger.Code, height int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx, err := ledger.Decode(raw)
	if err != nil {
		return id, ledger.Malformed, 0
	}
	id = tx.ID(c.Network.ID)
	if at, ok := c.placed[id]; ok {
		return id, ledger.OK, at[0]
	}
	b, release := c.next(c.blocks[len(c.blocks)-1].light.Time)
	defer release()
	code, err = b.Check(tx, 0)
	if err != nil {
		panic(err)
	}
	if code == ledger.OK && !slices.ContainsFunc(c.pool, func(other []byte) bool { return bytes.Equal(other, raw) }) {
		c.pool = append(c.pool, raw)
	}
	return id, code, 0
}

// Block makes a block of what is in the pool.
func (c *Chain) Block() {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now().UTC().Add(c.clock).Truncate(time.Millisecond)
	h := &types.Header{Version: cmtversion.Consensus{Block: version.BlockProtocol}, ChainID: c.Doc.ChainID, Height: int64(len(c.blocks)) + 1,
		ValidatorsHash: c.set.Hash(), NextValidatorsHash: c.set.Hash(), ConsensusHash: sum("consensus"), EvidenceHash: sum("evidence"),
		ProposerAddress: c.set.Validators[0].Address, LastCommitHash: sum("none")}
	if len(c.blocks) == 0 {
		at = c.Doc.GenesisTime // as CometBFT has it
		h.AppHash, h.LastResultsHash = c.Network.ID[:], proof.ResultsHash(nil)
	} else {
		last := c.blocks[len(c.blocks)-1]
		if !at.After(last.light.Time) {
			at = last.light.Time.Add(time.Millisecond)
		}
		h.AppHash, h.LastResultsHash = c.store.AppHash(), proof.ResultsHash(last.results)
		h.LastBlockID, h.LastCommitHash = last.light.Commit.BlockID, last.light.Commit.Hash()
	}
	h.Time = at
	b := &block{txs: c.pool}
	c.pool = nil
	executing, release := c.next(at)
	for i, raw := range b.txs {
		receipt := ledger.Receipt{Code: ledger.Malformed}
		if tx, err := ledger.Decode(raw); err == nil {
			if receipt, err = executing.Apply(tx); err != nil {
				panic(err)
			}
			if !receipt.Code.Refused() {
				c.placed[receipt.TxID] = [2]int{int(h.Height), i}
			}
		}
		b.results = append(b.results, proof.Result{Code: uint32(receipt.Code), Data: receipt.Encode()})
	}
	outcome, err := executing.End(nil, nil)
	release()
	if err != nil {
		panic(err)
	}
	writes, entries := outcome.Writes, outcome.Entries
	if len(c.blocks) == 0 {
		// The first commit writes genesis too; what the block wrote over it wins.
		merged := ledger.Memory{}
		for k, v := range c.genesis {
			merged[k] = v
		}
		merged.Apply(writes)
		writes = nil
		for k, v := range merged {
			writes = append(writes, ledger.Write{Key: []byte(k), Value: v})
		}
		slices.SortFunc(writes, compareWrites)
		entries = append(slices.Clone(c.outcome.Entries), entries...)
	}
	if len(c.planted) > 0 {
		last := map[string][]byte{}
		for _, w := range append(slices.Clone(writes), c.planted...) {
			last[string(w.Key)] = w.Value
		}
		writes, c.planted = nil, nil
		for k, v := range last {
			writes = append(writes, ledger.Write{Key: []byte(k), Value: v})
		}
		slices.SortFunc(writes, compareWrites)
	}
	for _, e := range entries {
		j := journal{e.Line, e.Incarnation}
		c.entries[j] = append(c.entries[j], e.Encoded)
	}
	if _, err := c.store.Stage(uint64(h.Height), writes, index.Rows(uint64(h.Height), nil, nil, nil, entries), nil); err != nil {
		panic(err)
	}
	if err := c.store.Commit(); err != nil {
		panic(err)
	}
	h.DataHash = proof.DataHash(b.txs)
	b.light = c.sign(h, len(c.keys))
	c.blocks = append(c.blocks, b)
}

func compareWrites(a, b ledger.Write) int { return bytes.Compare(a.Key, b.Key) }

func sum(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// sign makes a light block of a header, signed by the first validators of the set.
func (c *Chain) sign(h *types.Header, signers int) *types.LightBlock {
	id := types.BlockID{Hash: h.Hash(), PartSetHeader: types.PartSetHeader{Total: 1, Hash: sum("parts")}}
	commit := &types.Commit{Height: h.Height, BlockID: id}
	for i, v := range c.set.Validators {
		if i >= signers {
			commit.Signatures = append(commit.Signatures, types.NewCommitSigAbsent())
			continue
		}
		key := c.keys[slices.IndexFunc(c.keys, func(k cmtcrypto.PrivKey) bool { return k.PubKey().Equals(v.PubKey) })]
		vote := &types.Vote{Type: cmtproto.PrecommitType, Height: h.Height, BlockID: id, Timestamp: h.Time.Add(time.Millisecond),
			ValidatorAddress: v.Address, ValidatorIndex: int32(i)}
		signature, err := key.Sign(types.VoteSignBytes(h.ChainID, vote.ToProto()))
		if err != nil {
			panic(err)
		}
		commit.Signatures = append(commit.Signatures, types.CommitSig{BlockIDFlag: types.BlockIDFlagCommit,
			ValidatorAddress: v.Address, Timestamp: vote.Timestamp, Signature: signature})
	}
	return &types.LightBlock{SignedHeader: &types.SignedHeader{Header: h, Commit: commit}, ValidatorSet: c.set}
}

// storePath takes a path of a row apart.
func storePath(path string) (tree string, ok bool) {
	tree, ok = strings.CutPrefix(path, "/store/")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(tree, "/key")
}
