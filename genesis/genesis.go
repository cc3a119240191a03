// Package genesis reads, writes and makes genesis files, which are CometBFT's GenesisDoc with the ledger's state as
// app_state. Node and client both begin with one, and compute the network's id from it.
package genesis

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// FromDoc turns a genesis document into what the ledger makes of it.
func FromDoc(doc *types.GenesisDoc) (ledger.Genesis, error) {
	state, err := ledger.ParseGenesisState(doc.AppState)
	if err != nil {
		return ledger.Genesis{}, err
	}
	if doc.GenesisTime.Before(time.Unix(0, 0)) || doc.GenesisTime.After(time.Unix(0, 1<<63-1)) {
		return ledger.Genesis{}, fmt.Errorf("genesis_time %s is before 1970 or after April 2262, whose nanoseconds do not fit 63 bits", doc.GenesisTime)
	}
	g := ledger.Genesis{ChainID: doc.ChainID, UnixNanos: uint64(doc.GenesisTime.UnixNano()), InitialHeight: uint64(max(doc.InitialHeight, 1)), State: state}
	for i, v := range doc.Validators {
		if v.PubKey == nil {
			return ledger.Genesis{}, fmt.Errorf("validator %d has no pub_key", i)
		}
		var scheme crypto.Scheme // 0, which the ledger refuses, for a type that it does not know
		switch v.PubKey.Type() {
		case cmted25519.KeyType:
			scheme = crypto.Ed25519
		case mldsa65.KeyType:
			scheme = crypto.MLDSA65
		}
		if v.Power < 0 {
			return ledger.Genesis{}, fmt.Errorf("validator %s has power %d", v.PubKey.Address(), v.Power)
		}
		g.Validators = append(g.Validators, ledger.Validator{Scheme: scheme, PublicKey: v.PubKey.Bytes(), Power: uint64(v.Power)})
	}
	if p := state.Parameters; p.Bond > 0 && doc.ConsensusParams != nil && ShortBond(p.BondSeconds, doc.ConsensusParams.Evidence.MaxAgeDuration) {
		return ledger.Genesis{}, fmt.Errorf("bond_seconds is %d and evidence of equivocation counts for %s: a validator could leave, take its bond back and be found out afterwards; want at least %d",
			p.BondSeconds, doc.ConsensusParams.Evidence.MaxAgeDuration, (doc.ConsensusParams.Evidence.MaxAgeDuration+time.Second-1)/time.Second)
	}
	return g, nil
}

// ShortBond tells whether a bond is free before the evidence for which it is there has to have come. CometBFT takes evidence until both its
// times have passed, the one in blocks too: where blocks are slow, longer than this age.
func ShortBond(bondSeconds uint32, evidenceAge time.Duration) bool {
	return time.Duration(bondSeconds)*time.Second < evidenceAge
}

// NetworkOf returns the identity of the network that begins with a genesis document.
func NetworkOf(doc *types.GenesisDoc) (ledger.Network, error) {
	g, err := FromDoc(doc)
	if err != nil {
		return ledger.Network{}, err
	}
	return g.Network()
}

// Limits of blocks and evidence that a new network begins with.
const (
	// MaxBlockBytes: 4 MB are 13,000 transfers. It must exceed 3.4 kB for each validator, or building a block panics.
	MaxBlockBytes = 4 << 20
	// MaxEvidenceBytes has room for the largest evidence, of a light-client attack on ledger.MaxValidators ML-DSA validators, and
	// is all that CometBFT's message takes. What does not fit is not left out: CometBFT proposes nothing that is behind it either,
	// until it expires, so that a liar with much evidence against it would be spared with all that lie after.
	MaxEvidenceBytes = 1 << 20
	// EvidenceHours is how long equivocation can be reported. A light client's trust period must be shorter.
	EvidenceHours = 21 * 24
)

// EqualPower is the voting power of each validator of a set of equals. It is not 1: CometBFT skips block sync on a validator
// whose power is at least a third of the total, in integer division, because the chain cannot have gone on without it. With
// four times 1 that is 1 >= 4/3 = 1: a validator that was away would vote on old heights at once, while it calls itself
// caught up, before app/node's guard has seen the blocks that its key may have signed elsewhere. From 3 on, p < 4p/3 holds.
const EqualPower = 10

// blockSyncs refuses powers that CometBFT takes for a third of the total and that are less.
func blockSyncs(validators []types.GenesisValidator) error {
	var total int64
	for _, v := range validators {
		total += v.Power
	}
	for _, v := range validators {
		if v.Power >= total/3 && 3*v.Power < total {
			return fmt.Errorf("validator %s has power %d of %d, which CometBFT rounds up to a third and then never lets it fetch old blocks: multiply all powers by %d", v.Address, v.Power, total, EqualPower)
		}
	}
	return nil
}

// New puts a genesis document together. Times are cut to milliseconds, which is all that the ledger keeps.
func New(chainID string, at time.Time, validators []types.GenesisValidator, state ledger.GenesisState) (*types.GenesisDoc, error) {
	appState, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding app_state: %w", err)
	}
	params := types.DefaultConsensusParams()
	params.Version.App = ledger.Version
	params.Block.MaxBytes = MaxBlockBytes
	params.Evidence.MaxBytes = MaxEvidenceBytes
	params.Evidence.MaxAgeDuration = EvidenceHours * time.Hour
	params.Evidence.MaxAgeNumBlocks = EvidenceHours * 3600 // at one block a second
	params.Validator.PubKeyTypes = []string{cmted25519.KeyType, mldsa65.KeyType}
	doc := &types.GenesisDoc{GenesisTime: at.UTC().Truncate(time.Millisecond), ChainID: chainID, InitialHeight: 1, ConsensusParams: params, Validators: validators, AppState: appState}
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if err := blockSyncs(doc.Validators); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if _, err := NetworkOf(doc); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return doc, nil
}

// SetEvidenceAge changes how long equivocation can be reported, before anything is signed. A short time is for test networks: nodes
// keep headers and commits for so long, whatever they prune, and a light client may trust a header for no longer.
func SetEvidenceAge(doc *types.GenesisDoc, age time.Duration) error {
	if age < time.Second {
		return fmt.Errorf("evidence counts for %s, want at least 1s", age)
	}
	doc.ConsensusParams.Evidence.MaxAgeDuration = age
	doc.ConsensusParams.Evidence.MaxAgeNumBlocks = int64(age / time.Second) // at one block a second
	if err := doc.ValidateAndComplete(); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return nil
}

// Save writes a genesis file.
func Save(doc *types.GenesisDoc, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the folder of the genesis file: %w", err)
	}
	if err := doc.SaveAs(path); err != nil {
		return fmt.Errorf("writing the genesis file: %w", err)
	}
	return nil
}

// Parse reads a genesis document. CometBFT would put the time of reading where genesis_time is missing, which makes another
// network of every reading, and would panic on a validator without a key.
func Parse(text []byte) (*types.GenesisDoc, error) {
	var doc types.GenesisDoc
	if err := cmtjson.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if doc.GenesisTime.IsZero() {
		return nil, errors.New("genesis_time is missing")
	}
	for i, v := range doc.Validators {
		if v.PubKey == nil {
			return nil, fmt.Errorf("validator %d has no pub_key", i)
		}
	}
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, err
	}
	if err := checkParams(doc.ConsensusParams); err != nil {
		return nil, fmt.Errorf("consensus_params.%w", err)
	}
	return &doc, nil
}

// checkParams refuses parameters of CometBFT with which the chain would end one day. Nothing changes them after genesis, and
// neither the network's id nor a header has them all in it.
func checkParams(p *types.ConsensusParams) error {
	for _, want := range []string{cmted25519.KeyType, mldsa65.KeyType} {
		if !slices.Contains(p.Validator.PubKeyTypes, want) {
			return fmt.Errorf("validator.pub_key_types is %v, want also %s: CometBFT stops for good when a vote brings in a key of another type", p.Validator.PubKeyTypes, want)
		}
	}
	if h := p.ABCI.VoteExtensionsEnableHeight; h != 0 {
		return fmt.Errorf("abci.vote_extensions_enable_height is %d, want 0: there are none", h)
	}
	// Header, commit of the largest set, and evidence come first; what is left is for transactions. Below 0 CometBFT panics
	// whenever it builds a block.
	maxBytes := p.Block.MaxBytes
	if maxBytes == -1 {
		maxBytes = types.MaxBlockSizeBytes
	}
	if least := types.MaxOverheadForBlock + types.MaxHeaderBytes + types.MaxCommitBytes(ledger.MaxValidators) + p.Evidence.MaxBytes + ledger.MaxTxBytes; maxBytes < least {
		return fmt.Errorf("block.max_bytes is %d, want at least %d: %d validators' signatures, evidence and one transaction", maxBytes, least, ledger.MaxValidators)
	}
	return nil
}

// Load reads and checks a genesis file. CometBFT's reader ignores unknown keys of its own part; ours does not.
func Load(path string) (*types.GenesisDoc, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: get the genesis file of the network from another operator, or begin a network of your own with `pacioli init`", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the genesis file: %w", err)
	}
	doc, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := NetworkOf(doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return doc, nil
}
