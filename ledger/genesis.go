package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Limits of genesis. It is read once and kept whole in memory.
const (
	MaxGenesisAssets   = 1000
	MaxGenesisAccounts = 1_000_000
	// MaxChainIDBytes is CometBFT's limit on chain ids.
	MaxChainIDBytes = 50
)

// Genesis is everything that a network begins with. Its hash is part of the network's id, so that a signature for one
// network is worth nothing on another, also where both have one chain id.
type Genesis struct {
	ChainID       string
	UnixNanos     uint64 // genesis time
	InitialHeight uint64 // from 1
	Validators    []Validator
	State         GenesisState
}

// GenesisState is the ledger's own part, the "app_state" of genesis.json. Amounts are typed in decimals of their asset.
type GenesisState struct {
	Parameters GenesisParameters `json:"parameters"`
	Assets     []GenesisAsset    `json:"assets"`
	Accounts   []GenesisAccount  `json:"accounts"`
	// Validators says who operates the validators of the document. One that is not named here has no operator, and a set
	// without operators can never be changed by vote.
	Validators []GenesisValidator `json:"validators,omitempty"`
}

// GenesisValidator says who operates a validator of the genesis document, and what it is called.
type GenesisValidator struct {
	PubKey   []byte         `json:"pub_key"` // base64 of the consensus key
	Operator crypto.Address `json:"operator"`
	Name     string         `json:"name"`
}

// GenesisParameters are [Parameters] with the fee asset by its code.
type GenesisParameters struct {
	MaxTxBytes          uint32           `json:"max_tx_bytes"`
	ReplayWindowSeconds uint32           `json:"replay_window_seconds"`
	MaxOpenNonces       uint64           `json:"max_open_nonces"`
	FeeAsset            string           `json:"fee_asset"`
	FeeCollector        crypto.Address   `json:"fee_collector"`
	FeeBase             uint64           `json:"fee_base"`
	FeePerByte          uint64           `json:"fee_per_byte"`
	FeePerOperation     uint64           `json:"fee_per_operation"`
	FeePerSignature     uint64           `json:"fee_per_signature"`
	AssetCreators       []crypto.Address `json:"asset_creators,omitempty"`
	DepositAccount      uint64           `json:"deposit_account"`
	DepositLine         uint64           `json:"deposit_line"`
	DepositHold         uint64           `json:"deposit_hold"`
	DepositGrant        uint64           `json:"deposit_grant"`
	MaxHoldSeconds      uint32           `json:"max_hold_seconds"`
	MaxExpiries         uint32           `json:"max_expiries"`
	FeeTargetWeight     uint64           `json:"fee_target_weight"`
	MaxFeeMultiplier    uint32           `json:"max_fee_multiplier"`
	Bond                uint64           `json:"bond"`
	BondSeconds         uint32           `json:"bond_seconds"`
	MissedWindow        uint32           `json:"missed_window"`
	MaxMissed           uint32           `json:"max_missed"`
}

// Genesis returns parameters as genesis has them.
func (p Parameters) Genesis(feeAsset string, collector crypto.Address) GenesisParameters {
	return GenesisParameters{MaxTxBytes: p.MaxTxBytes, ReplayWindowSeconds: p.ReplayWindowSeconds, MaxOpenNonces: p.MaxOpenNonces,
		FeeAsset: feeAsset, FeeCollector: collector, FeeBase: p.FeeBase, FeePerByte: p.FeePerByte, FeePerOperation: p.FeePerOperation,
		FeePerSignature: p.FeePerSignature, AssetCreators: p.AssetCreators, DepositAccount: p.DepositAccount, DepositLine: p.DepositLine,
		DepositHold: p.DepositHold, DepositGrant: p.DepositGrant, MaxHoldSeconds: p.MaxHoldSeconds, MaxExpiries: p.MaxExpiries,
		FeeTargetWeight: p.FeeTargetWeight, MaxFeeMultiplier: p.MaxFeeMultiplier,
		Bond: p.Bond, BondSeconds: p.BondSeconds, MissedWindow: p.MissedWindow, MaxMissed: p.MaxMissed}
}

// WithoutDeposits returns parameters under which rows cost nothing to keep.
func (p Parameters) WithoutDeposits() Parameters {
	p.DepositAccount, p.DepositLine, p.DepositHold, p.DepositGrant = 0, 0, 0, 0
	return p
}

// GenesisAsset is an asset that exists from the beginning.
type GenesisAsset struct {
	Code         string         `json:"code"`
	Issuer       crypto.Address `json:"issuer"`
	Scale        uint32         `json:"scale"`
	MaxSupply    string         `json:"max_supply"`
	MetadataHash string         `json:"metadata_hash,omitempty"` // hex
	Controls     []string       `json:"controls,omitempty"`      // of "authorisation", "freeze", "clawback"
}

// GenesisAccount is an account with balances from the beginning. They are issued by their assets' issuers.
type GenesisAccount struct {
	Address  crypto.Address   `json:"address"`
	Balances []GenesisBalance `json:"balances"`
}

// GenesisBalance is one balance.
type GenesisBalance struct {
	Asset  string `json:"asset"`
	Amount string `json:"amount"`
}

// ParseGenesisState reads app_state. Unknown keys and anything behind the end are errors.
func ParseGenesisState(text []byte) (GenesisState, error) {
	var s GenesisState
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("reading app_state of genesis: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("reading app_state of genesis: something stands behind its end")
	}
	return s, nil
}

// Network says which network a state belongs to.
type Network struct {
	ChainID       string
	ID            crypto.Hash
	InitialHeight uint64
}

func (n Network) encode() []byte {
	w := writeRow()
	w.String(1, n.ChainID)
	w.Message(2, n.ID[:])
	w.Uint64(3, n.InitialHeight)
	return w.Done()
}

// DecodeNetwork reads the network's row.
func DecodeNetwork(value []byte) (n Network, err error) {
	r := openRow(value)
	n.ChainID = r.String(1, "chain_id", MaxChainIDBytes)
	r.Fixed(2, "id", n.ID[:])
	n.InitialHeight = r.Uint64(3, "initial_height")
	return n, r.Close()
}

// resolved is genesis with its codes, amounts and order resolved: what is encoded and what becomes state.
type resolved struct {
	validators []Validator
	params     Parameters
	assets     []Asset
	balances   []resolvedBalance
}

type resolvedBalance struct {
	line   LineKey
	amount Amount
}

func (g Genesis) resolve() (r resolved, err error) {
	if g.ChainID == "" || len(g.ChainID) > MaxChainIDBytes {
		return r, fmt.Errorf("chain_id has %d bytes, want 1 to %d", len(g.ChainID), MaxChainIDBytes)
	}
	if g.InitialHeight == 0 {
		return r, fmt.Errorf("initial_height is 0, want at least 1")
	}
	if r.validators, err = checkValidators(g.Validators); err != nil {
		return r, err
	}
	if len(g.State.Assets) > MaxGenesisAssets || len(g.State.Accounts) > MaxGenesisAccounts {
		return r, fmt.Errorf("%d assets and %d accounts, at most %d and %d", len(g.State.Assets), len(g.State.Accounts), MaxGenesisAssets, MaxGenesisAccounts)
	}
	position := map[string]int{}
	for i, a := range g.State.Assets {
		at := index("assets", i)
		if _, twice := position[a.Code]; twice {
			return r, canonical.Errorf(at, "code %s stands twice", a.Code)
		}
		supply, err := ParseAmount(a.MaxSupply, min(a.Scale, MaxScale))
		if err != nil {
			return r, canonical.Errorf(at, "max_supply: %s", err)
		}
		metadata, err := hex.DecodeString(a.MetadataHash)
		if err != nil {
			return r, canonical.Errorf(at, "metadata_hash: %s", err)
		}
		controls, err := ParseControls(a.Controls)
		if err != nil {
			return r, canonical.Errorf(at, "controls: %s", err)
		}
		created := CreateAsset{Code: a.Code, Scale: a.Scale, MaxSupply: supply, MetadataHash: metadata, Controls: controls}
		if err := created.validate(nil); err != nil {
			return r, canonical.In(at, err)
		}
		position[a.Code] = i
		r.assets = append(r.assets, Asset{Issuer: a.Issuer, Code: a.Code, Scale: a.Scale, MaxSupply: supply, MetadataHash: metadata, Controls: controls})
	}
	p := g.State.Parameters
	r.params = Parameters{MaxTxBytes: p.MaxTxBytes, ReplayWindowSeconds: p.ReplayWindowSeconds, MaxOpenNonces: p.MaxOpenNonces,
		FeeCollector: p.FeeCollector, FeeBase: p.FeeBase, FeePerByte: p.FeePerByte, FeePerOperation: p.FeePerOperation,
		FeePerSignature: p.FeePerSignature, AssetCreators: p.AssetCreators, DepositAccount: p.DepositAccount,
		DepositLine: p.DepositLine, DepositHold: p.DepositHold, DepositGrant: p.DepositGrant, MaxHoldSeconds: p.MaxHoldSeconds,
		MaxExpiries: p.MaxExpiries, FeeTargetWeight: p.FeeTargetWeight, MaxFeeMultiplier: p.MaxFeeMultiplier,
		Bond: p.Bond, BondSeconds: p.BondSeconds, MissedWindow: p.MissedWindow, MaxMissed: p.MaxMissed}
	i, ok := position[p.FeeAsset]
	if !ok {
		return r, canonical.Errorf("parameters.fee_asset", "%q is not one of the assets", p.FeeAsset)
	}
	if r.assets[i].Issuer == p.FeeCollector {
		return r, canonical.Errorf("parameters.fee_collector", "%s issues the fee asset, want another account", p.FeeCollector)
	}
	// A frozen collector, or payers without authorisation, could stop a network for good.
	if r.assets[i].Controls != 0 {
		return r, canonical.Errorf(index("assets", i), "%s is the fee asset, and has controls", p.FeeAsset)
	}
	r.params.FeeAsset = NewAssetID(r.assets[i].Issuer, p.FeeAsset)
	if err := r.params.Check(); err != nil {
		return r, err
	}
	for i, a := range g.State.Accounts {
		at := index("accounts", i)
		if i > 0 && bytes.Compare(g.State.Accounts[i-1].Address[:], a.Address[:]) >= 0 {
			return r, canonical.Errorf(at, "addresses do not ascend at %s", a.Address)
		}
		seen := ""
		for _, b := range a.Balances {
			n, ok := position[b.Asset]
			switch {
			case !ok:
				return r, canonical.Errorf(at, "asset %q is not one of the assets", b.Asset)
			case b.Asset <= seen:
				return r, canonical.Errorf(at, "balances do not ascend at %s", b.Asset)
			case a.Address == DepositPool():
				return r, canonical.Errorf(at, "%s is the pool of deposits", a.Address)
			case r.assets[n].Issuer == a.Address:
				return r, canonical.Errorf(at, "%s issues %s and has no balance of it", a.Address, b.Asset)
			}
			seen = b.Asset
			amount, err := ParseAmount(b.Amount, r.assets[n].Scale)
			if err != nil {
				return r, canonical.Errorf(at, "balance of %s: %s", b.Asset, err)
			}
			if amount.IsZero() {
				return r, canonical.Errorf(at, "balance of %s is 0, leave it out", b.Asset)
			}
			r.balances = append(r.balances, resolvedBalance{LineKey{a.Address, NewAssetID(r.assets[n].Issuer, b.Asset)}, amount})
		}
	}
	return r, r.resolveOperators(g.State.Validators)
}

// resolveOperators writes into the set who operates its validators.
func (r *resolved) resolveOperators(list []GenesisValidator) error {
	for i, v := range list {
		at := index("validators", i)
		n := slices.IndexFunc(r.validators, func(m Validator) bool { return bytes.Equal(m.PublicKey, v.PubKey) })
		switch {
		case n < 0:
			return canonical.Errorf(at, "pub_key is not that of a validator of this genesis")
		case r.validators[n].Operator != (crypto.Address{}):
			return canonical.Errorf(at, "its validator stands twice")
		case v.Operator == (crypto.Address{}):
			return canonical.Errorf(at, "operator is missing")
		case operated(r.validators, v.Operator) >= 0:
			return canonical.Errorf(at, "%s operates another validator", v.Operator)
		}
		if err := checkValidatorName(v.Name); err != nil {
			return canonical.In(at, err)
		}
		r.validators[n].Operator, r.validators[n].Name = v.Operator, v.Name
	}
	return nil
}

// Encode writes the canonical genesis, whose SHA-256 goes into the network's id.
func (g Genesis) Encode() ([]byte, error) {
	r, err := g.resolve()
	if err != nil {
		return nil, err
	}
	w := canonical.NewWriter(nil)
	w.Uint64(1, g.UnixNanos)
	w.Uint64(2, g.InitialHeight)
	w.Message(3, encodeValidators(r.validators))
	pw := canonical.NewWriter(nil)
	r.params.write(pw)
	w.Message(4, pw.Done())
	for _, a := range r.assets {
		w.Message(5, a.encode())
	}
	for _, b := range r.balances {
		bw := canonical.NewWriter(nil)
		bw.Message(1, b.line.Account[:])
		bw.Message(2, b.line.Asset[:])
		bw.Bytes(3, b.amount.Bytes())
		w.Message(6, bw.Done())
	}
	return w.Done(), nil
}

// Network returns the identity of the network that begins with g.
func (g Genesis) Network() (Network, error) {
	encoded, err := g.Encode()
	if err != nil {
		return Network{}, err
	}
	sum := sha256.Sum256(encoded)
	return Network{ChainID: g.ChainID, ID: crypto.DomainNetwork.Hash([]byte(g.ChainID), sum[:]), InitialHeight: g.InitialHeight}, nil
}

// Outcome returns the state that g describes, as writes and journal entries of height 0.
func (g Genesis) Outcome() (Outcome, Network, error) {
	r, err := g.resolve()
	if err != nil {
		return Outcome{}, Network{}, err
	}
	network, err := g.Network()
	if err != nil {
		return Outcome{}, Network{}, err
	}
	base := Memory{string(NetworkRow()): network.encode(), string(ParametersRow()): r.params.encode(),
		string(FeeRateRow()): FeeRate{minMultiplier}.encode()}
	b, err := NewBlock(base, Header{UnixMillis: g.UnixNanos / 1e6}, Direct{})
	if err != nil {
		return Outcome{}, Network{}, err
	}
	for _, a := range r.assets {
		id := NewAssetID(a.Issuer, a.Code)
		b.state.assets.put(id, a)
		b.state.codes.put(a.Code, id)
		b.holding(a.Issuer, func(h *Holdings) { h.Assets++ })
		b.openLine(LineKey{a.Issuer, id}, Line{})
	}
	for _, balance := range r.balances {
		asset, _ := b.state.asset(balance.line.Asset)
		if code := b.issueAtGenesis(asset, balance); code != OK {
			return Outcome{}, Network{}, fmt.Errorf("balance of %s in %s: %s", balance.line.Account, asset.Code, strings.ReplaceAll(code.String(), "_", " "))
		}
	}
	b.state.validators.put(struct{}{}, r.validators)
	for _, v := range r.validators {
		if v.Operator == (crypto.Address{}) || r.params.Bond == 0 {
			continue
		}
		if code := b.bondAtGenesis(v.Operator); code != OK {
			return Outcome{}, Network{}, fmt.Errorf("bond of %s, who operates a validator: %s", v.Operator, strings.ReplaceAll(code.String(), "_", " "))
		}
	}
	outcome, err := b.End(nil, nil)
	if err != nil {
		return Outcome{}, Network{}, err
	}
	outcome.Updates = nil // CometBFT begins with this set
	for _, key := range [][]byte{NetworkRow(), ParametersRow(), FeeRateRow()} {
		outcome.Writes = append(outcome.Writes, Write{key, base[string(key)]})
	}
	slices.SortFunc(outcome.Writes, func(a, b Write) int { return bytes.Compare(a.Key, b.Key) })
	return outcome, network, nil
}

// issueAtGenesis posts a balance from its asset's issuer.
func (b *Block) issueAtGenesis(asset Asset, r resolvedBalance) Code {
	issuance := LineKey{asset.Issuer, r.line.Asset}
	line, _ := b.state.lines.get(issuance)
	if code := debitable(asset, issuance, line, r.amount); code != OK {
		return code
	}
	line.DebitsPosted = line.DebitsPosted.mustAdd(r.amount)
	b.openLine(r.line, Line{})
	receiving, _ := b.state.lines.get(r.line)
	receiving.CreditsPosted = r.amount
	if asset.Controls&ControlAuthorisation != 0 {
		receiving.Flags = LineAuthorised
	}
	b.enterPair(issuance, line, r.line, receiving, Entry{Kind: EntryGenesis, Amount: r.amount}, cause{})
	return OK
}

// bondAtGenesis makes an operator's bond.
func (b *Block) bondAtGenesis(operator crypto.Address) Code {
	if operator == b.params.FeeCollector {
		return HoldNotPermitted
	}
	b.existing(LineKey{b.params.FeeCollector, b.params.FeeAsset})
	return b.reserveBond(operator, Units(b.params.Bond), cause{})
}

var controlNames = []string{"authorisation", "freeze", "clawback"}

// ParseControls reads the names of controls, each at most once.
func ParseControls(names []string) (c Controls, err error) {
	for _, name := range names {
		i := slices.Index(controlNames, name)
		if i < 0 {
			return 0, fmt.Errorf("%q, want some of %s", name, strings.Join(controlNames, ", "))
		}
		if c&(1<<i) != 0 {
			return 0, fmt.Errorf("%q stands twice", name)
		}
		c |= 1 << i
	}
	return c, nil
}

// Names returns the names of controls, in the order of their bits.
func (c Controls) Names() (names []string) {
	for i, name := range controlNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}
