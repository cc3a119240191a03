package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// NetworkOf returns the identity of the network that begins with a genesis file.
func NetworkOf(doc *types.GenesisDoc) (ledger.Network, error) {
	g, err := client.GenesisFromDoc(doc)
	if err != nil {
		return ledger.Network{}, err
	}
	return g.Network()
}

// Limits of blocks and evidence that a new network begins with.
const (
	// MaxBlockBytes: 4 MB are 13,000 transfers. It must exceed 3.4 kB for each validator, or building a block panics.
	MaxBlockBytes = 4 << 20
	// MaxEvidenceBytes leaves room for a few conflicting votes of ML-DSA validators, 7 kB each, and is small beside a block.
	MaxEvidenceBytes = 256 << 10
	// EvidenceHours is how long equivocation can be reported. A light client's trust period must be shorter.
	EvidenceHours = 21 * 24
)

// NewGenesis puts a genesis document together. Times are cut to milliseconds, which is all that the ledger keeps.
func NewGenesis(chainID string, at time.Time, validators []types.GenesisValidator, state ledger.GenesisState) (*types.GenesisDoc, error) {
	appState, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding app_state: %w", err)
	}
	params := types.DefaultConsensusParams()
	params.Block.MaxBytes = MaxBlockBytes
	params.Evidence.MaxBytes = MaxEvidenceBytes
	params.Evidence.MaxAgeDuration = EvidenceHours * time.Hour
	params.Evidence.MaxAgeNumBlocks = EvidenceHours * 3600 // at one block a second
	params.Validator.PubKeyTypes = []string{KeyEd25519, KeyMLDSA65}
	doc := &types.GenesisDoc{GenesisTime: at.UTC().Truncate(time.Millisecond), ChainID: chainID, InitialHeight: 1, ConsensusParams: params, Validators: validators, AppState: appState}
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if _, err := NetworkOf(doc); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return doc, nil
}

// SaveGenesis writes a genesis file.
func SaveGenesis(doc *types.GenesisDoc, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the folder of the genesis file: %w", err)
	}
	if err := doc.SaveAs(path); err != nil {
		return fmt.Errorf("writing the genesis file: %w", err)
	}
	return nil
}
