package client

import (
	"fmt"
	"os"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// MaxGenesisFile bounds a genesis file in bytes: a million accounts with two balances each are about 200 MB.
const MaxGenesisFile = 512 << 20

// ReadGenesis reads a genesis.json as CometBFT writes it, and what the ledger makes of it.
func ReadGenesis(path string) (*types.GenesisDoc, ledger.Genesis, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, ledger.Genesis{}, fmt.Errorf("reading genesis: %w", err)
	}
	if info.Size() > MaxGenesisFile {
		return nil, ledger.Genesis{}, fmt.Errorf("genesis %s has %d bytes, at most %d", path, info.Size(), MaxGenesisFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, ledger.Genesis{}, fmt.Errorf("reading genesis: %w", err)
	}
	doc, g, err := ParseGenesis(text)
	if err != nil {
		return nil, ledger.Genesis{}, fmt.Errorf("genesis %s: %w", path, err)
	}
	return doc, g, nil
}

// ParseGenesis is [ReadGenesis] for a file's content.
func ParseGenesis(text []byte) (*types.GenesisDoc, ledger.Genesis, error) {
	doc := &types.GenesisDoc{}
	if err := cmtjson.Unmarshal(text, doc); err != nil {
		return nil, ledger.Genesis{}, err
	}
	// CometBFT would put the present time in its place, and every reader would compute another network.
	if doc.GenesisTime.IsZero() {
		return nil, ledger.Genesis{}, fmt.Errorf("genesis_time is missing")
	}
	for i, v := range doc.Validators {
		if v.PubKey == nil { // ValidateAndComplete would dereference it
			return nil, ledger.Genesis{}, fmt.Errorf("validators[%d].pub_key is missing", i)
		}
	}
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, ledger.Genesis{}, err
	}
	g, err := GenesisFromDoc(doc)
	return doc, g, err
}

// GenesisFromDoc is what the ledger makes of CometBFT's genesis document. Nodes and clients use the same function, for
// the network's id depends on it: [ledger.Genesis.Network]. The document must be complete; see [ParseGenesis].
func GenesisFromDoc(doc *types.GenesisDoc) (ledger.Genesis, error) {
	if doc.GenesisTime.Before(time.Unix(0, 0)) {
		return ledger.Genesis{}, fmt.Errorf("genesis_time %s is before 1970", doc.GenesisTime)
	}
	if doc.InitialHeight < 1 {
		return ledger.Genesis{}, fmt.Errorf("initial_height is %d, want at least 1", doc.InitialHeight)
	}
	state, err := ledger.ParseGenesisState(doc.AppState)
	if err != nil {
		return ledger.Genesis{}, err
	}
	g := ledger.Genesis{ChainID: doc.ChainID, UnixNanos: uint64(doc.GenesisTime.UnixNano()), InitialHeight: uint64(doc.InitialHeight), State: state}
	for i, v := range doc.Validators {
		var scheme crypto.Scheme
		switch v.PubKey.(type) {
		case ed25519.PubKey:
			scheme = crypto.Ed25519
		case mldsa65.PubKey, *mldsa65.PubKey:
			scheme = crypto.MLDSA65
		default:
			return ledger.Genesis{}, fmt.Errorf("validators[%d].pub_key is of type %T, want ed25519 or ml_dsa_65", i, v.PubKey)
		}
		if v.Power < 1 {
			return ledger.Genesis{}, fmt.Errorf("validators[%d].power is %d, want at least 1", i, v.Power)
		}
		g.Validators = append(g.Validators, ledger.Validator{Scheme: scheme, PublicKey: v.PubKey.Bytes(), Power: uint64(v.Power)})
	}
	return g, nil
}
