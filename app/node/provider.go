package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	cmtlight "github.com/cometbft/cometbft/light"
	cmtstate "github.com/cometbft/cometbft/proto/tendermint/state"
	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/statesync"
	"github.com/cometbft/cometbft/types"
	"github.com/cometbft/cometbft/version"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
)

// StateSource says whom a node believes where a chain stands that it has not executed: the validators that the genesis file
// or a told block leads to, through the RPC of some nodes, which need not be trusted.
type StateSource struct {
	Servers []string // RPC URLs
	Height  uint64   // of a block that somebody trusted has told; 0: trust begins with genesis
	Hash    string   // of that block, in hex
}

// headers is what CometBFT asks about the height of a snapshot, answered from verified headers. It takes the place of
// CometBFT's own provider, which cannot begin with genesis and wants two servers.
type headers struct {
	doc *types.GenesisDoc
	dir string // of the verified headers
	src StateSource
	log *slog.Logger

	mu    sync.Mutex
	light *light.Client
	times map[uint64]uint64 // Unix milliseconds of verified blocks
}

var _ statesync.StateProvider = (*headers)(nil)

func (h Home) headers(doc *types.GenesisDoc, src StateSource, log *slog.Logger) *headers {
	return &headers{doc: doc, dir: filepath.Join(h.Data(), "light"), src: src, log: log, times: map[uint64]uint64{}}
}

// at returns the verified block of a height.
func (h *headers) at(ctx context.Context, height uint64) (*types.LightBlock, error) {
	c, err := h.client(ctx)
	if err != nil {
		return nil, err
	}
	header, err := c.Header(ctx, height)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.times[height] = uint64(header.Time.UnixMilli())
	return header.Block, nil
}

func (h *headers) client(ctx context.Context) (*light.Client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.light != nil {
		return h.light, nil
	}
	if len(h.src.Servers) == 0 {
		return nil, errors.New("no server is given to take headers from: set state_sync.servers")
	}
	network, err := h.network()
	if err != nil {
		return nil, err
	}
	o := light.Options{ChainID: h.doc.ChainID, Endpoints: h.src.Servers, Dir: h.dir, Logger: h.log, Genesis: &light.Genesis{Doc: h.doc, NetworkID: network[:]}}
	if h.src.Height != 0 {
		hash, err := hex.DecodeString(h.src.Hash)
		if err != nil {
			return nil, fmt.Errorf("the trusted hash %q is not hex", h.src.Hash)
		}
		o.Root = &light.Root{Height: h.src.Height, Hash: hash}
	}
	h.light, err = light.Open(ctx, o)
	return h.light, err
}

// network returns the id of the genesis file's network.
func (h *headers) network() (crypto.Hash, error) {
	network, err := genesis.NetworkOf(h.doc)
	return network.ID, err
}

// time returns the time of a block that has been verified.
func (h *headers) time(height uint64) (uint64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.times[height]
	return t, ok
}

// AppHash implements statesync.StateProvider. The hash of a height's state stands in the next header; and the one behind
// that must be there too, for it names the validators of the second block that the node will see.
//
// CometBFT leaves a snapshot out for good when this fails. That is right for a height that nobody has reached, which is a
// lie; but servers that do not answer at the moment say nothing about the snapshot, so they are asked again for a while, and
// then the node ends, to be started again.
func (h *headers) AppHash(ctx context.Context, height uint64) ([]byte, error) {
	for {
		hash, err := h.appHash(ctx, height)
		if err == nil || errors.Is(err, light.ErrNotYet) {
			return hash, err
		}
		final := errors.Is(err, light.ErrTrustExpired) || errors.Is(err, light.ErrPruned)
		if _, diverged := errors.AsType[*light.Divergence](err); diverged {
			final = true
		}
		if !final {
			h.log.Warn("ask for headers again", "height", height, "err", err)
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
			}
		}
		return nil, fmt.Errorf("%w: %w", cmtlight.ErrNoWitnesses, err) // the one error that ends state sync
	}
}

func (h *headers) appHash(ctx context.Context, height uint64) ([]byte, error) {
	if height > 1<<62 {
		return nil, light.ErrNotYet
	}
	// Downwards, so that the first one takes the long way and the others are found or near.
	if _, err := h.at(ctx, height+2); err != nil {
		return nil, err
	}
	next, err := h.at(ctx, height+1)
	if err != nil {
		return nil, err
	}
	if _, err := h.at(ctx, height); err != nil {
		return nil, err
	}
	return next.AppHash, nil
}

// Commit implements statesync.StateProvider.
func (h *headers) Commit(ctx context.Context, height uint64) (*types.Commit, error) {
	block, err := h.at(ctx, height)
	if err != nil {
		return nil, err
	}
	return onlyValid(h.doc.ChainID, block), nil
}

// onlyValid returns a block's commit without what is in it beside the signatures that verify. Light clients verify no more
// than two thirds need, and a server can put anything into the rest: CometBFT panics on it at every start, and the guard would
// take it for a signature of this validator's key.
func onlyValid(chainID string, block *types.LightBlock) *types.Commit {
	commit := block.Commit.Clone()
	for i, s := range commit.Signatures {
		_, v := block.ValidatorSet.GetByIndex(int32(i))
		if s.BlockIDFlag == types.BlockIDFlagAbsent || v != nil && bytes.Equal(v.Address, s.ValidatorAddress) && v.PubKey.VerifySignature(commit.VoteSignBytes(chainID, int32(i)), s.Signature) {
			continue
		}
		commit.Signatures[i] = types.NewCommitSigAbsent()
	}
	return commit
}

// State implements statesync.StateProvider: what CometBFT's state is after the block of a height.
func (h *headers) State(ctx context.Context, height uint64) (state.State, error) {
	var blocks [3]*types.LightBlock
	for i := range blocks {
		var err error
		if blocks[i], err = h.at(ctx, height+uint64(i)); err != nil {
			return state.State{}, err
		}
	}
	last, current, next := blocks[0], blocks[1], blocks[2]
	// Nothing in this chain changes CometBFT's own parameters after genesis. The servers are not asked: a header commits only to
	// the limits of a block, so they could give a node an age of evidence with which it refuses the others' blocks.
	params := *h.doc.ConsensusParams
	if hash := params.Hash(); !bytes.Equal(hash, current.ConsensusHash) {
		return state.State{}, fmt.Errorf("the consensus_params of the genesis file hash to %X, the verified header of block %d says %X: get the network's genesis file", hash, current.Height, []byte(current.ConsensusHash))
	}
	return state.State{
		ChainID: h.doc.ChainID, InitialHeight: max(h.doc.InitialHeight, 1),
		Version:         cmtstate.Version{Consensus: current.Version, Software: version.TMCoreSemVer},
		LastBlockHeight: last.Height, LastBlockTime: last.Time, LastBlockID: last.Commit.BlockID,
		AppHash: current.AppHash, LastResultsHash: current.LastResultsHash,
		LastValidators: last.ValidatorSet, Validators: current.ValidatorSet, NextValidators: next.ValidatorSet,
		LastHeightValidatorsChanged: next.Height, ConsensusParams: params, LastHeightConsensusParamsChanged: current.Height,
	}, nil
}

// follow brings CometBFT's databases to the height of an application that was restored from a snapshot. They hold no block
// yet: the node fetches those after the height. It does nothing where CometBFT has blocks, or nothing was restored, and
// can be done again after a crash at any line.
func follow(ctx context.Context, databases *cometdb.Databases, height uint64, appHash []byte, source *headers) error {
	blocks, states, err := openComet(databases)
	if err != nil {
		return err
	}
	if height == 0 || blocks.Height() != 0 {
		return nil
	}
	have, err := states.Load()
	if err != nil {
		return fmt.Errorf("reading CometBFT's state: %w", err)
	}
	if uint64(have.LastBlockHeight) != height || blocks.LoadSeenCommit(int64(height)) == nil {
		fail := func(err error) error {
			return fmt.Errorf("the ledger's state was restored to height %d, and CometBFT does not know of it yet: %w", height, err)
		}
		at, err := source.State(ctx, height)
		if err != nil {
			return fail(err)
		}
		if !bytes.Equal(at.AppHash, appHash) {
			return fail(fmt.Errorf("the verified header says AppHash %X, the state has %X", at.AppHash, appHash))
		}
		commit, err := source.Commit(ctx, height)
		if err != nil {
			return fail(err)
		}
		if err := states.Bootstrap(at); err != nil {
			return fail(err)
		}
		if err := blocks.SaveSeenCommit(int64(height), commit); err != nil {
			return fail(err)
		}
	}
	// CometBFT forgets this at every start, and does not start without it as long as there is no block.
	if err := states.SetOfflineStateSyncHeight(int64(height)); err != nil {
		return fmt.Errorf("noting where CometBFT's blocks begin: %w", err)
	}
	return nil
}
