package client

import (
	"fmt"
	"os"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/genesis"
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
	doc, err := genesis.Parse(text)
	if err != nil {
		return nil, ledger.Genesis{}, err
	}
	g, err := GenesisFromDoc(doc)
	return doc, g, err
}

// GenesisFromDoc is what the ledger makes of CometBFT's genesis document: package genesis, which nodes use too.
func GenesisFromDoc(doc *types.GenesisDoc) (ledger.Genesis, error) { return genesis.FromDoc(doc) }
