package chaos

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/testnet"
	"github.com/pacioli-ledger/pacioli/testnet/proxy"
)

// processes are nodes of this machine. Each dials each other through the proxy, which is in this process.
type processes struct {
	local   *testnet.Local
	genesis *types.GenesisDoc
	program string
	faulty  string // "": none
	proxy   *proxy.Proxy

	mu    sync.Mutex
	cmds  map[int]*exec.Cmd
	ended map[int]chan struct{}
	again *exec.Cmd // the twin
}

// endPatience is how long a process may take to end: a node gives itself eight seconds.
const endPatience = 20 * time.Second

func newProcesses(l *testnet.Local, program, faulty string) (*processes, error) {
	p := &processes{local: l, program: program, faulty: faulty, cmds: map[int]*exec.Cmd{}, ended: map[int]chan struct{}{}}
	var err error
	if p.genesis, err = genesis.Load(l.Home(0).Genesis()); err != nil {
		return nil, err
	}
	ids := map[string]string{} // addresses by node id
	var routes []proxy.Route
	for i, from := range l.Nodes {
		id, err := l.Home(i).ID()
		if err != nil {
			return nil, err
		}
		ids[id] = from.Name
		for j, to := range l.Nodes {
			if i != j {
				routes = append(routes, proxy.Route{Link: proxy.Link{From: from.Name, To: to.Name}, Listen: "127.0.0.1:0", Target: to.P2P})
			}
		}
	}
	if p.proxy, err = proxy.Open(routes); err != nil {
		return nil, err
	}
	for i := range l.Nodes {
		if err := p.dialThroughProxy(l.Home(i), l.Nodes[i].Name, ids); err != nil {
			return nil, errors.Join(err, p.proxy.Close())
		}
	}
	return p, nil
}

// dialThroughProxy makes a node's peers be reached by the proxy.
func (p *processes) dialThroughProxy(home node.Home, name string, names map[string]string) error {
	c, err := node.LoadConfig(string(home))
	if err != nil {
		return err
	}
	for n, peer := range c.P2P.PersistentPeers {
		id, _, _ := strings.Cut(peer, "@")
		for _, r := range p.proxy.Routes() {
			if r.From == name && r.To == names[id] {
				c.P2P.PersistentPeers[n] = id + "@" + r.Listen
			}
		}
	}
	return home.SaveConfig(c)
}

func (p *processes) names() (names []string) {
	for _, n := range p.local.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func (p *processes) urls() []string         { return p.local.URLs() }
func (p *processes) doc() *types.GenesisDoc { return p.genesis }
func (p *processes) inner() []string        { return p.urls() }
func (p *processes) wallet() string         { return p.local.Wallet() }
func (p *processes) kept() string           { return p.local.Dir }

// chaosDir is where the faulty program of a node looks.
func (p *processes) chaosDir(i int) string { return filepath.Join(string(p.local.Home(i)), "chaos") }

func (p *processes) start(i int, faulty bool) error {
	program := p.program
	var env []string
	if faulty {
		if err := os.MkdirAll(p.chaosDir(i), 0o700); err != nil {
			return fmt.Errorf("making the folder of a fault: %w", err)
		}
		program, env = p.faulty, []string{chaosDir + "=" + p.chaosDir(i)}
	}
	cmd, err := p.local.StartWith(i, program, true, env)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended, its log says
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmds[i], p.ended[i] = cmd, ended
	return nil
}

func (p *processes) exit(i int) int {
	p.mu.Lock()
	cmd, ended := p.cmds[i], p.ended[i]
	p.mu.Unlock()
	if cmd == nil {
		return -1
	}
	select { // it may be gone and not yet waited for
	case <-ended:
		return cmd.ProcessState.ExitCode()
	case <-time.After(endPatience):
		return -1
	}
}

func (p *processes) running(i int) bool { _, ok := p.local.Running(i); return ok }

// end sends a signal and waits; what does not end is killed.
func (p *processes) end(i int, s syscall.Signal) error {
	p.mu.Lock()
	ended := p.ended[i]
	p.mu.Unlock()
	if ended == nil || !p.running(i) {
		return nil
	}
	if err := p.local.Signal(i, s); err != nil && p.running(i) {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(endPatience):
	}
	if err := p.local.Signal(i, syscall.SIGKILL); err != nil && p.running(i) {
		return err
	}
	<-ended
	return nil
}

func (p *processes) stop(i int) error   { return p.end(i, syscall.SIGTERM) }
func (p *processes) kill(i int) error   { return p.end(i, syscall.SIGKILL) }
func (p *processes) pause(i int) error  { return p.local.Signal(i, syscall.SIGSTOP) }
func (p *processes) resume(i int) error { return p.local.Signal(i, syscall.SIGCONT) }

func (p *processes) links(settings ...proxy.Setting) error { p.proxy.Set(settings...); return nil }

func (p *processes) offline(i int, off bool) error {
	var all []proxy.Setting
	for _, r := range p.proxy.Routes() {
		if name := p.local.Nodes[i].Name; r.From == name || r.To == name {
			all = append(all, proxy.Setting{Link: r.Link, Condition: proxy.Condition{Stall: off}})
		}
	}
	p.proxy.Set(all...)
	return nil
}

func (p *processes) wipe(i int) error { return p.local.Home(i).Wipe() }

func (p *processes) clock(i, seconds int) error {
	return p.set(i, "clock", seconds != 0, fmt.Sprintf("%d\n", seconds))
}
func (p *processes) disk(i int, full bool) error { return p.set(i, "full", full, "full\n") }

func (p *processes) set(i int, name string, on bool, text string) error {
	if err := os.MkdirAll(p.chaosDir(i), 0o700); err != nil {
		return fmt.Errorf("making the folder of a fault: %w", err)
	}
	if !on {
		text = ""
	}
	if err := os.WriteFile(filepath.Join(p.chaosDir(i), name), []byte(text), 0o600); err != nil {
		return fmt.Errorf("setting a fault: %w", err)
	}
	return nil
}

// unguarded has a node not look for signatures of its key by others, guarded has it do so again.
func unguarded(c *node.Config) { c.Consensus.DoubleSignCheckHeight = 0 }
func guarded(c *node.Config) {
	c.Consensus.DoubleSignCheckHeight = node.DefaultConfig().Consensus.DoubleSignCheckHeight
}

func (p *processes) configure(i int, change func(*node.Config)) error {
	c, err := node.LoadConfig(string(p.local.Home(i)))
	if err != nil {
		return err
	}
	change(&c)
	return p.local.Home(i).SaveConfig(c)
}

func (p *processes) twinHome() node.Home { return node.Home(filepath.Join(p.local.Dir, "twin")) }

func (p *processes) twin(i int) error {
	home, twin := p.local.Home(i), p.twinHome()
	if err := p.stop(i); err != nil {
		return err
	}
	if err := p.configure(i, unguarded); err != nil {
		return err
	}
	if err := os.RemoveAll(string(twin)); err != nil {
		return fmt.Errorf("removing an earlier twin: %w", err)
	}
	if err := testnet.CopyHome(string(home), string(twin)); err != nil {
		return err
	}
	// Under the first one's node id no peer would talk to it.
	if err := os.Remove(twin.NodeKey()); err != nil {
		return fmt.Errorf("giving the twin a node key: %w", err)
	}
	if _, err := p2p.LoadOrGenNodeKey(twin.NodeKey()); err != nil {
		return fmt.Errorf("giving the twin a node key: %w", err)
	}
	c, err := node.LoadConfig(string(twin))
	if err != nil {
		return err
	}
	if c.RPC.Listen, err = freeAddress(); err != nil {
		return err
	}
	if c.P2P.Listen, err = freeAddress(); err != nil {
		return err
	}
	if err := twin.SaveConfig(c); err != nil {
		return err
	}
	if err := p.start(i, false); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(p.local.Dir, "twin", "node.log"))
	if err != nil {
		return fmt.Errorf("opening the twin's log: %w", err)
	}
	defer log.Close()
	p.again = exec.Command(p.program, "start", "--home", string(twin))
	p.again.Stdout, p.again.Stderr = log, log
	p.again.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.again.Start(); err != nil {
		p.again = nil
		return fmt.Errorf("starting the twin: %w", err)
	}
	return nil
}

func (p *processes) endTwin(i int) error {
	if p.again != nil {
		_ = p.again.Process.Kill() // one that has ended is what is wanted
		_ = p.again.Wait()
		p.again = nil
	}
	if err := p.stop(i); err != nil {
		return err
	}
	if err := p.configure(i, guarded); err != nil {
		return err
	}
	return p.start(i, false)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (p *processes) last(i, lines int) string {
	text, err := os.ReadFile(p.local.Log(i))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text), lines)
}

func lastLines(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (p *processes) close() {
	if p.again != nil {
		_ = p.again.Process.Kill()
		_ = p.again.Wait()
	}
	for i := range p.local.Nodes {
		if p.running(i) {
			_ = p.resume(i) // a paused one would not hear
			_ = p.kill(i)
		}
	}
	_ = p.proxy.Close()
}
