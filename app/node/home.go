package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/genesis"
)

// Home is a node's folder. It is laid out as CometBFT's tools expect it:
//
//	pacioli.toml                    the configuration
//	config/genesis.json             what the network begins with
//	config/node_key.json            the node's name among its peers
//	config/priv_validator_key.json  the validator's key, in plain text: protect the folder
//	config/priv_validator_key.next.json         the key that is to follow it, while there is one (rotate.go)
//	config/priv_validator_key.retired-....json  keys that were followed by another
//	data/priv_validator_state.json  what the key has signed last: never restore it from a backup
//	data/priv_validator_prevote.json  a prevote that the sign state has forgotten for the precommit after it (guard.go)
//	data/app                        the ledger's state
//	data/snapshots                  snapshots of the state, for others
//	data/*.db, data/cs.wal          CometBFT's blocks, state and log
//	data/admin.sock                 where a running node takes its operator's commands
//	keys/                           the wallet's encrypted keys
type Home string

// Config returns the path of the configuration.
func (h Home) Config() string { return filepath.Join(string(h), ConfigFile) }

// Genesis returns the path of the genesis file.
func (h Home) Genesis() string { return filepath.Join(string(h), "config", "genesis.json") }

// NodeKey returns the path of the node's key.
func (h Home) NodeKey() string { return filepath.Join(string(h), "config", "node_key.json") }

// ValidatorKey returns the path of the validator's key.
func (h Home) ValidatorKey() string {
	return filepath.Join(string(h), "config", "priv_validator_key.json")
}

// SignState returns the path of the validator's sign state.
func (h Home) SignState() string {
	return filepath.Join(string(h), "data", "priv_validator_state.json")
}

// lastPrevote returns the path of the prevote before the vote in the sign state.
func (h Home) lastPrevote() string { return filepath.Join(h.Data(), "priv_validator_prevote.json") }

// App returns the folder of the application's database.
func (h Home) App() string { return filepath.Join(string(h), "data", "app") }

// Snapshots returns the folder of the node's snapshots.
func (h Home) Snapshots() string { return filepath.Join(h.Data(), "snapshots") }

// restoring returns the folder in which the state of a snapshot is built, beside the one that it becomes.
func (h Home) restoring() string { return h.App() + ".restoring" }

// Data returns the folder of CometBFT's databases.
func (h Home) Data() string { return filepath.Join(string(h), "data") }

// Validator key types, by CometBFT's names.
const (
	KeyEd25519 = "ed25519"
	KeyMLDSA65 = "ml_dsa_65"
)

// NewHome makes a home folder with new keys, without genesis: validators' public keys go into genesis first. It refuses a
// folder that has a configuration or keys.
func NewHome(h Home, c Config, keyType string) (types.GenesisValidator, error) {
	var none types.GenesisValidator
	if err := c.Check(); err != nil {
		return none, err
	}
	for _, path := range []string{h.Config(), h.ValidatorKey(), h.NodeKey(), h.SignState()} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return none, fmt.Errorf("%s exists: choose another --home, or remove it if nothing in it is needed", path)
		}
	}
	key, err := newKey(keyType)
	if err != nil {
		return none, err
	}
	for _, dir := range []string{filepath.Join(string(h), "config"), h.Data()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return none, fmt.Errorf("making the home folder: %w", err)
		}
	}
	if err := h.SaveConfig(c); err != nil {
		return none, err
	}
	if _, err := p2p.LoadOrGenNodeKey(h.NodeKey()); err != nil {
		return none, fmt.Errorf("making the node key: %w", err)
	}
	pv := privval.NewFilePV(key, h.ValidatorKey(), h.SignState())
	pv.Save()
	return types.GenesisValidator{Address: key.PubKey().Address(), PubKey: key.PubKey(), Power: genesis.EqualPower, Name: c.Node.Moniker}, nil
}

// SaveConfig writes the configuration, over one that is there.
func (h Home) SaveConfig(c Config) error {
	text, err := c.Encode()
	if err != nil {
		return fmt.Errorf("encoding the configuration: %w", err)
	}
	if err := os.MkdirAll(string(h), 0o700); err != nil {
		return fmt.Errorf("making the home folder: %w", err)
	}
	// As a whole or not at all: a node that starts on half a file would run with defaults, without its peers.
	next := h.Config() + ".new"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if err := os.Rename(next, h.Config()); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// ID returns the node's id.
func (h Home) ID() (string, error) {
	key, err := p2p.LoadNodeKey(h.NodeKey())
	if err != nil {
		return "", fmt.Errorf("reading the node key: %w", err)
	}
	return string(key.ID()), nil
}

// ErrNoSignState: a home has a validator's key and does not know what it has signed.
var ErrNoSignState = errors.New("is missing beside the validator's key")

// loadValidator reads the validator's key and sign state. CometBFT's own loader exits the process on a bad file, so the
// files are read here first, for an error that can be returned. A missing sign state beside a key is refused: to begin
// with an empty one could sign twice.
func (h Home) loadValidator() (*privval.FilePV, error) {
	var key privval.FilePVKey
	var state privval.FilePVLastSignState
	for _, file := range []struct {
		path string
		into any
	}{{h.ValidatorKey(), &key}, {h.SignState(), &state}} {
		text, err := os.ReadFile(file.path)
		if errors.Is(err, fs.ErrNotExist) && file.path == h.SignState() {
			return nil, fmt.Errorf("%s %w: without it the key could sign twice", file.path, ErrNoSignState)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the validator's files: %w", err)
		}
		// An object without what must be in it would be read as a state that has signed nothing.
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, fmt.Errorf("%s: %w", file.path, err)
		}
		if err := cmtjson.Unmarshal(text, file.into); err != nil {
			return nil, fmt.Errorf("%s: %w", file.path, err)
		}
		if file.path == h.SignState() && (fields["height"] == nil || fields["round"] == nil || fields["step"] == nil || state.Height < 0) {
			return nil, fmt.Errorf("%s: want height, round and step of the last signature", file.path)
		}
	}
	if key.PrivKey == nil {
		return nil, fmt.Errorf("%s has no priv_key", h.ValidatorKey())
	}
	return privval.LoadFilePV(h.ValidatorKey(), h.SignState()), nil
}

const lockFile = "LOCK"

// lock takes the home folder and the validator's key for this process until it ends, whatever ends it.
func (h Home) lock() (release func(), err error) {
	data, err := h.lockData()
	if err != nil {
		return nil, err
	}
	key, err := flock(h.ValidatorKey(), os.O_RDONLY) // the key may be on a volume that only reads
	if err != nil {
		data()
		return nil, err
	}
	return func() { key.Close(); data() }, nil
}

// lockData takes the home folder alone, which may have no keys yet, and finishes a restore that was interrupted.
func (h Home) lockData() (release func(), err error) {
	if err := os.MkdirAll(h.Data(), 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	f, err := flock(filepath.Join(h.Data(), lockFile), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := h.finishRestore(); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// flock takes a file for this process until it is closed.
func flock(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the node's files: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another process: stop that node first (two nodes with one key sign twice)", path)
	}
	return f, nil
}
