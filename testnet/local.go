// Package testnet makes networks and runs them. A [Topology] says what a network is made of; from it come separate processes
// of one machine on loopback ports ([Local]), and containers ([Project]). Both can be broken in the same ways ([Cluster]).
package testnet

import (
	"bytes"
	"context"
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

	"github.com/pelletier/go-toml/v2"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// MaxLocalValidators bounds a local network: each validator is a process with four databases.
const MaxLocalValidators = 32

// LocalOptions describe a local network to make.
type LocalOptions struct {
	// Topology says what it is made of. Without one it is [Validators] of the three below.
	Topology   *Topology
	Validators int
	KeyType    string // of the validators' keys: node.KeyEd25519 or node.KeyMLDSA65; several, with commas between, are used in turn
	ChainID    string
	// Accounts are funded besides alice, with equal balances of the fee asset in base units: for load.
	Accounts []crypto.Address
	Funds    uint64
	// Links has every node dial the others through a proxy, so that they can be cut off each other: see
	// [Processes]. The network then lives only while the process that holds the proxy does.
	Links bool
	// Configure may change a node's configuration before it is written.
	Configure func(i int, c *node.Config)
}

// Local is a network of processes on this machine, kept in a folder:
//
//	network.toml   what this struct holds
//	wallet/        a wallet's home with the keys alice, bob, bank, treasury and op-NODE of each validator; the passphrase is beside them
//	node0/ ...     the nodes' homes; node.log and node.pid in each
type Local struct {
	Dir     string      `toml:"-"`
	ChainID string      `toml:"chain_id"`
	Nodes   []LocalNode `toml:"nodes"`
	// Links are the addresses of the proxy, by who dials and who is dialled; none without LocalOptions.Links.
	Links    [][]string `toml:"links,omitempty"`
	Topology Topology   `toml:"topology"`
}

// LocalNode is one node of a local network.
type LocalNode struct {
	Name string `toml:"name" json:"name"`
	Role string `toml:"role" json:"role"`
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
	if len(l.Topology.Nodes) != len(l.Nodes) { // an earlier version's
		return nil, fmt.Errorf("%s describes %d nodes and a topology of %d: remove the folder and make the network anew", filepath.Join(dir, networkFile), len(l.Nodes), len(l.Topology.Nodes))
	}
	l.Topology.fill()
	return l, nil
}

// CreateLocal makes a local network in a folder that is empty or does not exist. The description is written last: a folder
// in which this was interrupted has none, and is refused then and can be removed.
func CreateLocal(dir string, o LocalOptions) (*Local, error) {
	var t Topology
	if o.Topology != nil {
		t = *o.Topology
	} else {
		if o.Validators < 1 || o.Validators > MaxLocalValidators {
			return nil, fmt.Errorf("%d validators, want 1 to %d", o.Validators, MaxLocalValidators)
		}
		t = Validators(o.Validators, o.KeyType, o.ChainID)
	}
	t.Nodes = slices.Clone(t.Nodes)
	t.fill()
	if err := t.check(nil); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, notEmpty(dir, networkFile)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving the folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the network's folder: %w", err)
	}
	l := &Local{Dir: dir, ChainID: t.ChainID, Topology: t}
	if err := l.place(o.Links); err != nil {
		return nil, err
	}
	f := l.founding()
	f.adjust, f.funded = o.Configure, map[crypto.Address]ledger.Amount{}
	for _, a := range o.Accounts {
		f.funded[a] = ledger.Units(o.Funds)
	}
	if err := f.create(node.Home(l.Wallet()), l.URLs()); err != nil {
		return nil, err
	}
	return l, l.save()
}

// founding is what makes this network's homes.
func (l *Local) founding() founding {
	return founding{topology: l.Topology, home: l.Home,
		dial: func(from, to int) string {
			if len(l.Links) > 0 {
				return l.Links[from][to]
			}
			return l.Nodes[to].P2P
		},
		place: func(i int, c *node.Config) {
			c.RPC.Listen, c.P2P.Listen = l.Nodes[i].RPC, l.Nodes[i].P2P
			c.Wallet.Nodes = []string{"http://" + l.Nodes[i].RPC} // for `pacioli health --home` and the like
			c.Store.CacheMB, c.Store.TreeCacheNodes = 64, 100_000 // several nodes share this machine's memory
		}}
}

// place gives ports to the nodes of the topology that have none yet.
func (l *Local) place(links bool) error {
	have, count := len(l.Nodes), len(l.Topology.Nodes)
	need := 2 * (count - have)
	if links {
		need += count*count - have*have
	}
	addresses, err := freeAddresses(need)
	if err != nil {
		return err
	}
	next := func() string { a := addresses[0]; addresses = addresses[1:]; return a }
	for _, n := range l.Topology.Nodes[have:] {
		placed := LocalNode{Name: n.Name, Role: n.Role, RPC: next(), P2P: next()}
		if n.RPCPort != 0 {
			placed.RPC = hostPort(n.RPCPort)
		}
		l.Nodes = append(l.Nodes, placed)
	}
	if links {
		for len(l.Links) < count {
			l.Links = append(l.Links, nil)
		}
		for from := range l.Links {
			for len(l.Links[from]) < count {
				l.Links[from] = append(l.Links[from], next())
			}
		}
	}
	return nil
}

// save writes the description, as a whole or not at all.
func (l *Local) save() error {
	text, err := toml.Marshal(l)
	if err != nil {
		return fmt.Errorf("encoding the network: %w", err)
	}
	path := filepath.Join(l.Dir, networkFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("writing the network: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the network: %w", err)
	}
	return nil
}

// AddNode makes the home of another node, with new keys and the network's genesis. It dials those that are there; they dial
// it from their next start on. One that is called a validator becomes one when the others vote for it.
func (l *Local) AddNode(n NodeSpec) (int, error) {
	i := len(l.Nodes)
	t := l.Topology
	t.Nodes = append(slices.Clone(t.Nodes), n)
	t.fill()
	if err := t.check(nil); err != nil {
		return 0, err
	}
	next := &Local{Dir: l.Dir, ChainID: l.ChainID, Nodes: slices.Clone(l.Nodes), Topology: t}
	for _, row := range l.Links {
		next.Links = append(next.Links, slices.Clone(row))
	}
	if err := next.place(len(l.Links) > 0); err != nil {
		return 0, err
	}
	doc, err := genesis.Load(node.Home(l.Wallet()).Genesis())
	if err != nil {
		return 0, err
	}
	f := next.founding()
	if _, err := f.createHome(i); err != nil {
		return 0, err
	}
	if err := genesis.Save(doc, next.Home(i).Genesis()); err != nil {
		return 0, err
	}
	if err := f.connect(i); err != nil {
		return 0, err
	}
	id, err := next.Home(i).ID()
	if err != nil {
		return 0, err
	}
	for j := range l.Nodes {
		if !slices.Contains(t.peers(j), i) {
			continue
		}
		c, err := node.LoadConfig(string(next.Home(j))) // what its operator has changed since stays
		if err != nil {
			return 0, err
		}
		c.P2P.PersistentPeers = append(c.P2P.PersistentPeers, id+"@"+f.dial(j, i))
		if err := next.Home(j).SaveConfig(c); err != nil {
			return 0, err
		}
	}
	wallet := node.Home(l.Wallet())
	c, err := node.LoadConfig(string(wallet))
	if err != nil {
		return 0, err
	}
	c.Wallet.Nodes = append(c.Wallet.Nodes, "http://"+next.Nodes[i].RPC)
	if err := wallet.SaveConfig(c); err != nil {
		return 0, err
	}
	if n.Role == RoleValidator { // it has nothing yet
		if _, err := createKey(wallet, OperatorKey(n.Name)); err != nil {
			return 0, err
		}
	}
	if err := next.save(); err != nil {
		return 0, err
	}
	*l = *next
	return i, nil
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
	return l.StartWith(i, program, bound, nil, extra...)
}

// StartWith is Start with more variables in the environment, as "NAME=value".
func (l *Local) StartWith(i int, program string, bound bool, env []string, extra ...string) (*exec.Cmd, error) {
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
	cmd.Env = append(os.Environ(), env...)
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
