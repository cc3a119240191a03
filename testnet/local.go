// Package testnet makes networks and runs them: here, as separate processes of one machine on loopback ports.
package testnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cometbft/cometbft/types"
	"github.com/pelletier/go-toml/v2"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// MaxLocalValidators bounds a local network: each validator is a process with four databases.
const MaxLocalValidators = 32

// Names of a local network's keys, in its wallet.
const (
	KeyAlice    = "alice"    // funded
	KeyBob      = "bob"      // has nothing yet
	KeyBank     = "bank"     // issues the fee asset
	KeyTreasury = "treasury" // receives the fees
)

// The fee asset of a local network.
const (
	FeeAsset       = "PAC"
	FeeAssetScale  = 6
	feeAssetSupply = "1000000000"
	aliceFunds     = "1000000"
)

// LocalOptions describe a local network to make.
type LocalOptions struct {
	Validators int
	KeyType    string // of the validators' keys: node.KeyEd25519 or node.KeyMLDSA65; several, with commas between, are used in turn
	ChainID    string
	// Accounts are funded besides alice, with equal balances of the fee asset in base units: for load.
	Accounts []crypto.Address
	Funds    uint64
	// Configure may change a node's configuration before it is written.
	Configure func(i int, c *node.Config)
}

// Local is a network of processes on this machine, kept in a folder:
//
//	network.toml   what this struct holds
//	wallet/        a wallet's home with the keys alice, bob, bank and treasury; the passphrase is beside them
//	node0/ ...     the nodes' homes; node.log and node.pid in each
type Local struct {
	Dir     string      `toml:"-"`
	ChainID string      `toml:"chain_id"`
	Nodes   []LocalNode `toml:"nodes"`
}

// LocalNode is one node of a local network.
type LocalNode struct {
	Name string `toml:"name" json:"name"`
	RPC  string `toml:"rpc" json:"rpc"` // host:port
	P2P  string `toml:"p2p" json:"p2p"`
}

const networkFile = "network.toml"

// Wallet returns the wallet's home.
func (l *Local) Wallet() string { return filepath.Join(l.Dir, "wallet") }

// Home returns a node's home.
func (l *Local) Home(i int) node.Home { return node.Home(filepath.Join(l.Dir, l.Nodes[i].Name)) }

// Log returns the path of a node's log.
func (l *Local) Log(i int) string { return filepath.Join(l.Dir, l.Nodes[i].Name, "node.log") }

func (l *Local) pidFile(i int) string { return filepath.Join(l.Dir, l.Nodes[i].Name, "node.pid") }

// URLs returns the nodes' URLs.
func (l *Local) URLs() []string {
	urls := make([]string, len(l.Nodes))
	for i, n := range l.Nodes {
		urls[i] = "http://" + n.RPC
	}
	return urls
}

// OpenLocal reads a local network's folder. A folder without one is an error that is fs.ErrNotExist.
func OpenLocal(dir string) (*Local, error) {
	text, err := os.ReadFile(filepath.Join(dir, networkFile))
	if err != nil {
		return nil, fmt.Errorf("reading the network: %w", err)
	}
	l := &Local{Dir: dir}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, networkFile), err)
	}
	return l, nil
}

// CreateLocal makes a local network in a folder that is empty or does not exist. The description is written last: a folder
// in which this was interrupted has none, and is refused then and can be removed.
func CreateLocal(dir string, o LocalOptions) (*Local, error) {
	if o.Validators < 1 || o.Validators > MaxLocalValidators {
		return nil, fmt.Errorf("%d validators, want 1 to %d", o.Validators, MaxLocalValidators)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty and holds no network (no %s): choose another folder, or remove it", dir, networkFile)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving the folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the network's folder: %w", err)
	}
	l := &Local{Dir: dir, ChainID: o.ChainID}
	addresses, err := freeAddresses(2 * o.Validators)
	if err != nil {
		return nil, err
	}
	for i := range o.Validators {
		l.Nodes = append(l.Nodes, LocalNode{Name: fmt.Sprintf("node%d", i), RPC: addresses[2*i], P2P: addresses[2*i+1]})
	}
	state, err := l.createWallet(o)
	if err != nil {
		return nil, err
	}
	configs, validators := make([]node.Config, o.Validators), make([]types.GenesisValidator, o.Validators)
	ids := make([]string, o.Validators)
	keyTypes := strings.Split(o.KeyType, ",")
	for i := range l.Nodes {
		c := node.DefaultConfig()
		c.Node.Moniker = l.Nodes[i].Name
		c.RPC.Listen, c.P2P.Listen = l.Nodes[i].RPC, l.Nodes[i].P2P
		c.Store.CacheMB, c.Store.TreeCacheNodes = 64, 100_000 // several nodes share this machine's memory
		if o.Configure != nil {
			o.Configure(i, &c)
		}
		configs[i] = c
		if validators[i], err = node.NewHome(l.Home(i), c, keyTypes[i%len(keyTypes)]); err != nil {
			return nil, err
		}
		if ids[i], err = l.Home(i).ID(); err != nil {
			return nil, err
		}
	}
	doc, err := genesis.New(o.ChainID, time.Now(), validators, state)
	if err != nil {
		return nil, err
	}
	for i, c := range configs {
		for j, n := range l.Nodes {
			if j != i {
				c.P2P.PersistentPeers = append(c.P2P.PersistentPeers, ids[j]+"@"+n.P2P)
			}
		}
		if err := l.Home(i).SaveConfig(c); err != nil {
			return nil, err
		}
		if err := genesis.Save(doc, l.Home(i).Genesis()); err != nil {
			return nil, err
		}
	}
	wallet := node.DefaultConfig()
	wallet.Wallet.Nodes = l.URLs()
	wallet.Wallet.PassphraseFile = filepath.Join(l.Wallet(), "passphrase")
	if err := node.Home(l.Wallet()).SaveConfig(wallet); err != nil {
		return nil, err
	}
	if err := genesis.Save(doc, node.Home(l.Wallet()).Genesis()); err != nil {
		return nil, err
	}
	text, err := toml.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encoding the network: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, networkFile), text, 0o600); err != nil {
		return nil, fmt.Errorf("writing the network: %w", err)
	}
	return l, nil
}

// createWallet makes the keys and returns the state that funds them.
func (l *Local) createWallet(o LocalOptions) (ledger.GenesisState, error) {
	var none ledger.GenesisState
	var random [24]byte
	if _, err := rand.Read(random[:]); err != nil {
		return none, fmt.Errorf("making a passphrase: %w", err)
	}
	passphrase := hex.EncodeToString(random[:])
	if err := os.MkdirAll(l.Wallet(), 0o700); err != nil {
		return none, fmt.Errorf("making the wallet's folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.Wallet(), "passphrase"), []byte(passphrase+"\n"), 0o600); err != nil {
		return none, fmt.Errorf("writing the passphrase: %w", err)
	}
	// The passphrase has 192 random bits and stands beside the keys: a costly derivation would protect nothing.
	keys, err := keystore.Open(filepath.Join(l.Wallet(), "keys"), keystore.WithCost(keystore.CheapCost))
	if err != nil {
		return none, err
	}
	address := map[string]crypto.Address{}
	for _, name := range []string{KeyAlice, KeyBob, KeyBank, KeyTreasury} {
		info, _, err := keys.Create(name, keystore.Spec{Kind: crypto.Ed25519.String()}, passphrase)
		if err != nil {
			return none, fmt.Errorf("making the key %s: %w", name, err)
		}
		address[name] = info.Address
	}
	p := ledger.DefaultParameters()
	state := ledger.GenesisState{
		Parameters: p.Genesis(FeeAsset, address[KeyTreasury]),
		Assets:     []ledger.GenesisAsset{{Code: FeeAsset, Issuer: address[KeyBank], Scale: FeeAssetScale, MaxSupply: feeAssetSupply}},
		Accounts:   []ledger.GenesisAccount{{Address: address[KeyAlice], Balances: []ledger.GenesisBalance{{Asset: FeeAsset, Amount: aliceFunds}}}},
	}
	for _, a := range o.Accounts {
		state.Accounts = append(state.Accounts, ledger.GenesisAccount{Address: a,
			Balances: []ledger.GenesisBalance{{Asset: FeeAsset, Amount: ledger.Units(o.Funds).Format(FeeAssetScale)}}})
	}
	slices.SortFunc(state.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	return state, nil
}

// freeAddresses finds free loopback ports. They are held open until all are found, so that no two are equal; between here
// and the node's start another process could take one, and the node would then say so.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer listener.Close()
		addresses[i] = listener.Addr().String()
	}
	return addresses, nil
}

// Process is a node's process.
type Process struct {
	PID   int
	Start string // when it started, in the kernel's ticks: with it a reused id is not taken for the node
}

// Running returns a node's process, if it runs.
func (l *Local) Running(i int) (Process, bool) {
	text, err := os.ReadFile(l.pidFile(i))
	if err != nil {
		return Process{}, false
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	p := Process{Start: start}
	if p.PID, err = strconv.Atoi(pid); err != nil || p.PID <= 0 {
		return Process{}, false
	}
	if now, state, ok := processStart(p.PID); !ok || now != start || state == "Z" {
		return Process{}, false
	}
	return p, true
}

// processStart reads when a process started and its state from /proc; ok is false when there is no such process.
func processStart(pid int) (start, state string, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", false
	}
	// The second field is the program's name in parentheses and may hold spaces.
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", "", false
	}
	return fields[19], fields[0], true
}

// Start starts a node's process with the given program (`pacioli` itself). Its output goes to its log. With bound set, the
// process ends when this one does; else it goes on. The command is returned for its Wait.
func (l *Local) Start(i int, program string, bound bool, extra ...string) (*exec.Cmd, error) {
	if p, ok := l.Running(i); ok {
		return nil, fmt.Errorf("%s runs already, as process %d", l.Nodes[i].Name, p.PID)
	}
	log, err := os.OpenFile(l.Log(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", l.Nodes[i].Name, err)
	}
	defer log.Close()
	cmd := exec.Command(program, append([]string{"start", "--home", string(l.Home(i))}, extra...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if bound {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", l.Nodes[i].Name, err)
	}
	start, _, _ := processStart(cmd.Process.Pid)
	if err := os.WriteFile(l.pidFile(i), fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, start), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the process id of %s: %w", l.Nodes[i].Name, err), cmd.Process.Kill())
	}
	return cmd, nil
}

// Signal sends a signal to a node's process; an error when it does not run.
func (l *Local) Signal(i int, s syscall.Signal) error {
	p, ok := l.Running(i)
	if !ok {
		return fmt.Errorf("%s does not run", l.Nodes[i].Name)
	}
	if err := syscall.Kill(p.PID, s); err != nil {
		return fmt.Errorf("signalling %s, process %d: %w", l.Nodes[i].Name, p.PID, err)
	}
	return nil
}

// Stop ends every running node: SIGTERM, and SIGKILL for those that are still there when patience is over. It returns the
// names of the nodes that it ended.
func (l *Local) Stop(ctx context.Context, patience time.Duration) ([]string, error) {
	var ended []string
	var errs []error
	running := map[int]bool{}
	for i := range l.Nodes {
		if _, ok := l.Running(i); ok {
			errs = append(errs, l.Signal(i, syscall.SIGTERM))
			running[i] = true
			ended = append(ended, l.Nodes[i].Name)
		}
	}
	deadline := time.Now().Add(patience)
	for len(running) > 0 {
		for i := range running {
			if _, ok := l.Running(i); !ok {
				delete(running, i)
				_ = os.Remove(l.pidFile(i)) // a stale file does no harm: it is checked against the process
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			for i := range running {
				errs = append(errs, l.Signal(i, syscall.SIGKILL))
			}
			deadline = time.Now().Add(5 * time.Second)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ended, errors.Join(errs...)
}

// Exists tells whether a folder holds a local network.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, networkFile))
	return !errors.Is(err, fs.ErrNotExist)
}
