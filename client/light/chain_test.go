package light

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmtversion "github.com/cometbft/cometbft/proto/tendermint/version"
	ctypes "github.com/cometbft/cometbft/rpc/core/types"
	rpctypes "github.com/cometbft/cometbft/rpc/jsonrpc/types"
	"github.com/cometbft/cometbft/types"
	"github.com/cometbft/cometbft/version"
)

const testChainID = "pacioli-test"

var testNetworkID = hash("network")

func hash(s string) []byte { sum := sha256.Sum256([]byte(s)); return sum[:] }

// chain is a chain of signed headers, made without a node.
type chain struct {
	id      string
	keys    []crypto.PrivKey
	powers  []int64
	set     *types.ValidatorSet
	start   time.Time
	initial int64
	blocks  []*types.LightBlock // blocks[i] has height initial+i
}

// ed25519Keys are the same for the same names.
func ed25519Keys(names ...string) (keys []crypto.PrivKey) {
	for _, n := range names {
		keys = append(keys, ed25519.GenPrivKeyFromSecret([]byte(n)))
	}
	return keys
}

func newChain(t testing.TB, start time.Time, length int, keys []crypto.PrivKey) *chain {
	c := &chain{id: testChainID, keys: keys, start: start, initial: 1}
	for range keys {
		c.powers = append(c.powers, 1)
	}
	c.grow(t, length)
	return c
}

func (c *chain) tip() *types.LightBlock { return c.blocks[len(c.blocks)-1] }

func (c *chain) at(height int64) *types.LightBlock { return c.blocks[height-c.initial] }

// grow appends blocks, one for each second.
func (c *chain) grow(t testing.TB, n int) {
	t.Helper()
	if c.set == nil {
		var list []*types.Validator
		for i, k := range c.keys {
			list = append(list, types.NewValidator(k.PubKey(), c.powers[i]))
		}
		c.set = types.NewValidatorSet(list)
	}
	for range n {
		height := c.initial + int64(len(c.blocks))
		h := &types.Header{
			Version: cmtversion.Consensus{Block: version.BlockProtocol}, ChainID: c.id, Height: height,
			Time:           c.start.Add(time.Duration(height-c.initial) * time.Second),
			DataHash:       hash(fmt.Sprint("data", height)),
			ValidatorsHash: c.set.Hash(), NextValidatorsHash: c.set.Hash(), ConsensusHash: hash("consensus"),
			AppHash: hash(fmt.Sprint("app", height)), LastResultsHash: hash(fmt.Sprint("results", height)),
			EvidenceHash: hash("evidence"), ProposerAddress: c.set.Validators[0].Address,
			LastCommitHash: hash("no commit"),
		}
		if len(c.blocks) == 0 {
			h.AppHash = testNetworkID
		} else {
			last := c.tip()
			h.LastBlockID, h.LastCommitHash = last.Commit.BlockID, last.Commit.Hash()
		}
		c.blocks = append(c.blocks, c.sign(t, h, len(c.keys)))
	}
}

// sign makes a light block of a header, signed by the first signers of the set.
func (c *chain) sign(t testing.TB, h *types.Header, signers int) *types.LightBlock {
	t.Helper()
	id := types.BlockID{Hash: h.Hash(), PartSetHeader: types.PartSetHeader{Total: 1, Hash: hash("parts")}}
	return c.signAs(t, h, id, c.id, h.Height, signers)
}

// signAs signs a vote that may be for another block, chain or height than the header's.
func (c *chain) signAs(t testing.TB, h *types.Header, id types.BlockID, chainID string, height int64, signers int) *types.LightBlock {
	t.Helper()
	commit := &types.Commit{Height: h.Height, BlockID: types.BlockID{Hash: h.Hash(), PartSetHeader: id.PartSetHeader}}
	for i, v := range c.set.Validators {
		if i >= signers {
			commit.Signatures = append(commit.Signatures, types.NewCommitSigAbsent())
			continue
		}
		key := c.keys[slices.IndexFunc(c.keys, func(k crypto.PrivKey) bool { return k.PubKey().Equals(v.PubKey) })]
		vote := &types.Vote{Type: cmtproto.PrecommitType, Height: height, BlockID: id, Timestamp: h.Time.Add(time.Millisecond),
			ValidatorAddress: v.Address, ValidatorIndex: int32(i)}
		signature, err := key.Sign(types.VoteSignBytes(chainID, vote.ToProto()))
		if err != nil {
			t.Fatal(err)
		}
		commit.Signatures = append(commit.Signatures, types.CommitSig{BlockIDFlag: types.BlockIDFlagCommit,
			ValidatorAddress: v.Address, Timestamp: vote.Timestamp, Signature: signature})
	}
	return &types.LightBlock{SignedHeader: &types.SignedHeader{Header: h, Commit: commit}, ValidatorSet: c.set}
}

func (c *chain) genesis() *Genesis {
	doc := &types.GenesisDoc{ChainID: c.id, GenesisTime: c.start, InitialHeight: c.initial}
	for i, k := range c.keys {
		doc.Validators = append(doc.Validators, types.GenesisValidator{PubKey: k.PubKey(), Power: c.powers[i]})
	}
	slices.Reverse(doc.Validators) // the order in the file does not matter
	return &Genesis{Doc: doc, NetworkID: testNetworkID}
}

// node serves a chain as a node's RPC does. Its fields may be changed while it runs, under mu.
type node struct {
	*httptest.Server
	mu       sync.Mutex
	chain    *chain
	lowest   int64
	lag      int64                       // blocks behind the chain's tip
	forged   map[int64]*types.LightBlock // instead of the chain's
	down     bool
	garbage  string
	answers  map[string]string // raw results by method
	evidence int
	asked    int
}

func serve(t testing.TB, c *chain) *node {
	n := &node{chain: c, forged: map[int64]*types.LightBlock{}}
	n.Server = httptest.NewServer(http.HandlerFunc(n.handle))
	t.Cleanup(n.Close)
	return n
}

func (n *node) set(change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *node) requests() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *node) handle(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if n.down {
		panic(http.ErrAbortHandler)
	}
	if n.garbage != "" {
		fmt.Fprint(w, n.garbage)
		return
	}
	var request rpctypes.RPCRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if request.Method == "broadcast_evidence" {
		n.evidence++
		_ = json.NewEncoder(w).Encode(rpctypes.NewRPCSuccessResponse(request.ID, ctypes.ResultBroadcastEvidence{}))
		return
	}
	if raw, ok := n.answers[request.Method]; ok {
		_ = json.NewEncoder(w).Encode(rpctypes.RPCResponse{JSONRPC: "2.0", ID: request.ID, Result: json.RawMessage(raw)})
		return
	}
	var params struct{ Height, Page string }
	_ = json.Unmarshal(request.Params, &params)
	block, err := n.block(params.Height)
	if err != nil {
		_ = json.NewEncoder(w).Encode(rpctypes.RPCInternalError(request.ID, err))
		return
	}
	var result any
	switch request.Method {
	case "commit":
		result = ctypes.ResultCommit{SignedHeader: *block.SignedHeader, CanonicalCommit: true}
	case "validators":
		all := block.ValidatorSet.Validators
		page, _ := strconv.Atoi(params.Page)
		from := min((page-1)*100, len(all))
		part := all[from:min(from+100, len(all))]
		result = ctypes.ResultValidators{BlockHeight: block.Height, Validators: part, Count: len(part), Total: len(all)}
	default:
		http.Error(w, "no such method", http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(rpctypes.NewRPCSuccessResponse(request.ID, result))
}

func (n *node) block(text string) (*types.LightBlock, error) {
	tip := n.chain.tip().Height - n.lag
	height := tip
	if text != "" {
		height, _ = strconv.ParseInt(text, 10, 64)
	}
	switch {
	case height > tip:
		return nil, fmt.Errorf("height %d must be less than or equal to the current blockchain height %d", height, tip)
	case height < max(n.lowest, n.chain.initial):
		return nil, fmt.Errorf("height %d is not available, lowest height is %d", height, n.lowest)
	case height <= 0:
		return nil, errors.New("height must be greater than 0")
	}
	if forged, ok := n.forged[height]; ok {
		return forged, nil
	}
	return n.chain.at(height), nil
}
