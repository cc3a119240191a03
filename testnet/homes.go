package testnet

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Names of a network's keys, in its wallet.
const (
	KeyAlice    = "alice"    // funded
	KeyBob      = "bob"      // has nothing yet
	KeyBank     = "bank"     // issues the fee asset
	KeyTreasury = "treasury" // receives the fees
)

// OperatorKey returns the name of the key, in the network's wallet, of the account that operates a validator.
func OperatorKey(node string) string { return "op-" + node }

// The fee asset of a network.
const (
	FeeAsset       = "PAC"
	FeeAssetScale  = 6
	feeAssetSupply = "1000000000"
	aliceFunds     = "1000000"
	operatorFunds  = "1000" // for votes, and for a bond where operators agree on one
)

// founding is a network that is being put into folders: one home for each node and one for a wallet. Processes and containers
// differ in where nodes listen and how they reach each other, and in nothing else.
type founding struct {
	topology Topology
	home     func(i int) node.Home
	dial     func(from, to int) string        // host:port under which a node dials another
	place    func(i int, c *node.Config)      // sets where it listens, and what its machine is like
	funded   map[crypto.Address]ledger.Amount // besides alice
	adjust   func(i int, c *node.Config)      // may be nil; the caller's last word on a node's configuration
}

// create makes all homes and the wallet's. The wallet asks the given URLs.
func (f founding) create(wallet node.Home, urls []string) error {
	state, err := f.createWallet(wallet)
	if err != nil {
		return err
	}
	var validators []types.GenesisValidator
	for i, n := range f.topology.Nodes {
		v, err := f.createHome(i)
		if err != nil {
			return err
		}
		if n.Role == RoleValidator {
			v.Power = n.Power
			validators = append(validators, v)
			operated := &state.Validators[len(validators)-1] // as createWallet has put them, in the order of the nodes
			operated.PubKey, operated.Name = v.PubKey.Bytes(), n.Name
		}
	}
	doc, err := genesis.New(f.topology.ChainID, time.Now(), validators, state)
	if err != nil {
		return err
	}
	for i := range f.topology.Nodes {
		if err := f.connect(i); err != nil {
			return err
		}
		if err := genesis.Save(doc, f.home(i).Genesis()); err != nil {
			return err
		}
	}
	c := node.DefaultConfig()
	c.Wallet.Nodes = urls
	c.Wallet.PassphraseFile = "passphrase" // beside the configuration, so that the folder can be moved
	if err := wallet.SaveConfig(c); err != nil {
		return err
	}
	return genesis.Save(doc, wallet.Genesis())
}

// createHome makes the home of one node, with new keys, and connects it with nobody.
func (f founding) createHome(i int) (types.GenesisValidator, error) {
	c, err := f.config(i)
	if err != nil {
		return types.GenesisValidator{}, err
	}
	keyType := f.topology.Nodes[i].KeyType
	if keyType == "" {
		keyType = node.KeyEd25519 // of a full node, whose key no validator set knows
	}
	return node.NewHome(f.home(i), c, keyType)
}

// config is a node's configuration without its peers.
func (f founding) config(i int) (node.Config, error) {
	n := f.topology.Nodes[i]
	c := node.DefaultConfig()
	c.Node.Moniker = n.Name
	f.place(i, &c)
	for _, settings := range []map[string]any{f.topology.Settings, n.Settings} {
		flattened := flat(settings)
		for _, key := range slices.Sorted(maps.Keys(flattened)) {
			if err := configure(&c, key, flattened[key]); err != nil {
				return c, fmt.Errorf("node %s: %w", n.Name, err)
			}
		}
	}
	if f.adjust != nil {
		f.adjust(i, &c)
	}
	return c, nil
}

// connect writes a node's configuration with its peers, whose homes exist. All are dialled for ever, and nobody learns of
// others: what is not in the topology is not in the network.
func (f founding) connect(i int) error {
	c, err := f.config(i)
	if err != nil {
		return err
	}
	t := &f.topology
	id := map[int]string{}
	for j := range t.Nodes {
		if id[j], err = f.home(j).ID(); err != nil {
			return err
		}
	}
	for _, j := range t.peers(i) {
		c.P2P.PersistentPeers = append(c.P2P.PersistentPeers, id[j]+"@"+f.dial(i, j))
	}
	ids := func(names []int) string {
		var list []string
		for _, j := range names {
			list = append(list, id[j])
		}
		return strings.Join(list, ",")
	}
	override := func(key, value string) {
		c.CometBFT = maps.Clone(c.CometBFT)
		if c.CometBFT == nil {
			c.CometBFT = map[string]any{}
		}
		c.CometBFT[key] = value
	}
	if sentries := t.Nodes[i].Sentries; len(sentries) > 0 {
		// Its sentries are let in whatever the limit, and nobody else is.
		c.P2P.PEX, c.P2P.MaxInbound = false, 0
		override("p2p.unconditional_peer_ids", ids(t.peers(i)))
	}
	if behind := t.guarded(i); len(behind) > 0 {
		override("p2p.unconditional_peer_ids", ids(behind))
		override("p2p.private_peer_ids", ids(behind)) // never told to others, should pex be on
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf("node %s: %w", t.Nodes[i].Name, err)
	}
	return f.home(i).SaveConfig(c)
}

// createWallet makes the keys and returns the state that funds them.
func (f founding) createWallet(home node.Home) (ledger.GenesisState, error) {
	var none ledger.GenesisState
	var random [24]byte
	if _, err := rand.Read(random[:]); err != nil {
		return none, fmt.Errorf("making a passphrase: %w", err)
	}
	passphrase := hex.EncodeToString(random[:])
	if err := os.MkdirAll(string(home), 0o700); err != nil {
		return none, fmt.Errorf("making the wallet's folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(string(home), "passphrase"), []byte(passphrase+"\n"), 0o600); err != nil {
		return none, fmt.Errorf("writing the passphrase: %w", err)
	}
	address := map[string]crypto.Address{}
	names := []string{KeyAlice, KeyBob, KeyBank, KeyTreasury}
	for _, n := range f.topology.Nodes {
		if n.Role == RoleValidator {
			names = append(names, OperatorKey(n.Name))
		}
	}
	for _, name := range names {
		var err error
		if address[name], err = createKey(home, name); err != nil {
			return none, err
		}
	}
	parameters, err := f.topology.parameters(address[KeyTreasury])
	if err != nil {
		return none, fmt.Errorf("parameter %w", err)
	}
	state := ledger.GenesisState{
		Parameters: parameters,
		Assets:     []ledger.GenesisAsset{{Code: FeeAsset, Issuer: address[KeyBank], Scale: FeeAssetScale, MaxSupply: feeAssetSupply}},
		Accounts:   []ledger.GenesisAccount{{Address: address[KeyAlice], Balances: []ledger.GenesisBalance{{Asset: FeeAsset, Amount: aliceFunds}}}},
	}
	for _, n := range f.topology.Nodes {
		if n.Role == RoleValidator {
			operator := address[OperatorKey(n.Name)]
			state.Validators = append(state.Validators, ledger.GenesisValidator{Operator: operator})
			state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: operator, Balances: []ledger.GenesisBalance{{Asset: FeeAsset, Amount: operatorFunds}}})
		}
	}
	for a, amount := range f.funded {
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: a,
			Balances: []ledger.GenesisBalance{{Asset: FeeAsset, Amount: amount.Format(FeeAssetScale)}}})
	}
	slices.SortFunc(state.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	return state, nil
}

// createKey makes a key in the network's wallet.
func createKey(wallet node.Home, name string) (crypto.Address, error) {
	passphrase, err := os.ReadFile(filepath.Join(string(wallet), "passphrase"))
	if err != nil {
		return crypto.Address{}, fmt.Errorf("reading the wallet's passphrase: %w", err)
	}
	// The passphrase has 192 random bits and stands beside the keys: a costly derivation would protect nothing.
	keys, err := keystore.Open(filepath.Join(string(wallet), "keys"), keystore.WithCost(keystore.CheapCost))
	if err != nil {
		return crypto.Address{}, err
	}
	info, _, err := keys.Create(name, keystore.Spec{Kind: crypto.Ed25519.String()}, strings.TrimSpace(string(passphrase)))
	if err != nil {
		return crypto.Address{}, fmt.Errorf("making the key %s: %w", name, err)
	}
	return info.Address, nil
}

// notEmpty refuses a folder that has something in it, but not the file that makes it a network of the kind that is asked for.
func notEmpty(dir, want string) error {
	for file, kind := range map[string]string{networkFile: "processes, which `pacioli up` starts", projectFile: "containers, which `pacioli testnet up` starts"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			return fmt.Errorf("%s holds a network of %s: choose another folder", dir, kind)
		}
	}
	return fmt.Errorf("%s is not empty and holds no network (no %s): choose another folder, or remove it", dir, want)
}

// CopyHome copies the folder of a node to one that is not there yet, but for its log, its process number and its sockets.
func CopyHome(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if e.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if name := e.Name(); name == "node.log" || name == "node.pid" || !e.Type().IsRegular() {
			return nil
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}
