package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	cryptoproto "github.com/cometbft/cometbft/proto/tendermint/crypto"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// InitChain builds the state of genesis and returns the network's id as the AppHash of the first header: so whoever
// verifies that header knows that the chain began with this very genesis. Nothing is written before the first Commit.
func (a *App) InitChain(_ context.Context, req *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	state, err := ledger.ParseGenesisState(req.AppStateBytes)
	if err != nil {
		return nil, err
	}
	if req.Time.Before(time.Unix(0, 0)) || req.Time.After(time.Unix(0, 1<<63-1)) {
		return nil, fmt.Errorf("genesis: genesis_time %s is before 1970 or after April 2262, whose nanoseconds do not fit 63 bits", req.Time)
	}
	if req.InitialHeight < 1 {
		return nil, fmt.Errorf("genesis: initial_height is %d, want at least 1", req.InitialHeight)
	}
	// CometBFT stops for good when a vote brings in a key of a type that the genesis does not permit.
	if p := req.ConsensusParams; p != nil && p.Validator != nil {
		for _, want := range []string{cmted25519.KeyType, mldsa65.KeyType} {
			if !slices.Contains(p.Validator.PubKeyTypes, want) {
				return nil, fmt.Errorf("genesis: consensus_params.validator.pub_key_types is %v, want also %s", p.Validator.PubKeyTypes, want)
			}
		}
	}
	g := ledger.Genesis{ChainID: req.ChainId, UnixNanos: uint64(req.Time.UnixNano()), InitialHeight: uint64(req.InitialHeight), State: state}
	for _, v := range req.Validators {
		scheme, key := validatorKey(v.PubKey)
		if v.Power < 0 {
			return nil, fmt.Errorf("genesis: validator %x has power %d", key, v.Power)
		}
		g.Validators = append(g.Validators, ledger.Validator{Scheme: scheme, PublicKey: key, Power: uint64(v.Power)})
	}
	outcome, network, err := g.Outcome()
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	memory := ledger.Memory{}
	memory.Apply(outcome.Writes)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.Header.Height != 0 {
		return nil, fmt.Errorf("genesis of chain %s: this node's state is at height %d already", req.ChainId, a.last.Header.Height)
	}
	a.genesis = &genesis{network: network, state: memory, outcome: outcome}
	a.staged = nil
	clear(a.known) // executed over another genesis, if any
	a.log.Info("initialise chain", "chain", req.ChainId, "network", network.ID.String(), "height", req.InitialHeight,
		"validators", len(req.Validators), "assets", len(state.Assets), "accounts", len(state.Accounts))
	return &abci.ResponseInitChain{AppHash: network.ID[:]}, nil
}

// validatorKey reads a consensus key as CometBFT gives it. An unknown type becomes scheme 0, which genesis refuses.
func validatorKey(key cryptoproto.PublicKey) (crypto.Scheme, []byte) {
	switch k := key.Sum.(type) {
	case *cryptoproto.PublicKey_Ed25519:
		return crypto.Ed25519, k.Ed25519
	case *cryptoproto.PublicKey_Mldsa65:
		return crypto.MLDSA65, k.Mldsa65
	}
	return 0, nil
}

// publicKey is the reverse of validatorKey for a validator of the ledger's own set.
func publicKey(v ledger.Validator) cryptoproto.PublicKey {
	if v.Scheme == crypto.MLDSA65 {
		return cryptoproto.PublicKey{Sum: &cryptoproto.PublicKey_Mldsa65{Mldsa65: v.PublicKey}}
	}
	return cryptoproto.PublicKey{Sum: &cryptoproto.PublicKey_Ed25519{Ed25519: v.PublicKey}}
}
