package testnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/testnet/proxy"
)

// Processes is a local network as a [Cluster]. Its nodes end with the process that holds it.
type Processes struct {
	local   *Local
	program string

	mu    sync.Mutex
	ended map[int]chan struct{} // closed when the node's process has ended
	cmds  map[int]*exec.Cmd
	links *proxy.Proxy // by which nodes dial each other; nil in a network without links
}

// processPatience is how long a node may take to end: it gives itself eight seconds.
const processPatience = 15 * time.Second

// Processes returns the network as a Cluster whose nodes run a program (`pacioli` itself), but for those whose version names
// another. Its links are open from here on, until Close.
func (l *Local) Processes(program string) (*Processes, error) {
	p := &Processes{local: l, program: program, ended: map[int]chan struct{}{}, cmds: map[int]*exec.Cmd{}}
	if len(l.Links) == 0 {
		return p, nil
	}
	var err error
	if p.links, err = proxy.Open(l.routes(func(int, int) bool { return true })); err != nil {
		return nil, err
	}
	return p, nil
}

// routes are the ways by which nodes dial each other, those that are wanted.
func (l *Local) routes(wanted func(from, to int) bool) (routes []proxy.Route) {
	for from, row := range l.Links {
		for to, listen := range row {
			if !wanted(from, to) {
				continue
			}
			routes = append(routes, proxy.Route{Link: proxy.Link{From: l.Nodes[from].Name, To: l.Nodes[to].Name}, Listen: listen, Target: l.Nodes[to].P2P})
		}
	}
	return routes
}

// Close kills every node that it has started, and closes the links.
func (p *Processes) Close() {
	p.mu.Lock()
	for i, cmd := range p.cmds {
		_ = cmd.Process.Kill() // one that has ended is what we want
		<-p.ended[i]
	}
	p.mu.Unlock()
	if p.links != nil {
		_ = p.links.Close() // listeners of ours, which nobody waits for any more
	}
}

// Nodes implements Cluster.
func (p *Processes) Nodes() []NodeSpec { return p.local.Topology.Nodes }

// URL implements Cluster.
func (p *Processes) URL(i int) string { return p.local.URLs()[i] }

// Wallet implements Cluster.
func (p *Processes) Wallet() string { return p.local.Wallet() }

// Home returns a node's home.
func (p *Processes) Home(i int) node.Home { return p.local.Home(i) }

// Program returns what a node runs: its version's binary, or the given one when it has none.
func (l *Local) Program(i int, otherwise string) (string, error) {
	v := l.Topology.Nodes[i].Version
	if v == "" {
		return otherwise, nil
	}
	if b := l.Topology.Versions[v].Binary; b != "" {
		return b, nil
	}
	return "", fmt.Errorf("version %s of %s names no binary, which a process needs", v, l.Nodes[i].Name)
}

// Start implements Cluster.
func (p *Processes) Start(_ context.Context, i int) error {
	program, err := p.local.Program(i, p.program)
	if err != nil {
		return err
	}
	cmd, err := p.local.Start(i, program, true)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended is in ProcessState
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmds[i], p.ended[i] = cmd, ended
	return nil
}

// end sends a signal and waits until the node has ended; when patience is over it kills.
func (p *Processes) end(ctx context.Context, i int, s syscall.Signal) error {
	if err := p.local.Signal(i, s); err != nil {
		return err
	}
	killAt := time.Now().Add(processPatience)
	for {
		if _, ok := p.local.Running(i); !ok {
			break
		}
		if time.Now().After(killAt) {
			_ = p.local.Signal(i, syscall.SIGKILL) // fails when it has just ended
			killAt = time.Now().Add(processPatience)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ending %s: %w", p.local.Nodes[i].Name, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.mu.Lock()
	ended := p.ended[i]
	p.mu.Unlock()
	if ended != nil { // else another process has started it
		<-ended
	}
	return nil
}

// Stop implements Cluster.
func (p *Processes) Stop(ctx context.Context, i int) error { return p.end(ctx, i, syscall.SIGTERM) }

// Kill implements Cluster.
func (p *Processes) Kill(ctx context.Context, i int) error { return p.end(ctx, i, syscall.SIGKILL) }

// Pause implements Cluster. It returns when the node stands still.
func (p *Processes) Pause(ctx context.Context, i int) error {
	if err := p.local.Signal(i, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		s, err := p.State(ctx, i)
		if err != nil || s.Paused || !s.Running {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pausing %s: %w", p.local.Nodes[i].Name, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Resume implements Cluster.
func (p *Processes) Resume(_ context.Context, i int) error {
	return p.local.Signal(i, syscall.SIGCONT)
}

// Disconnect implements Cluster: the links to and from the node carry nothing. Its RPC can still be reached.
func (p *Processes) Disconnect(_ context.Context, i int) error {
	return p.condition(i, proxy.Condition{Stall: true})
}

// Reconnect implements Cluster.
func (p *Processes) Reconnect(_ context.Context, i int) error {
	return p.condition(i, proxy.Condition{})
}

func (p *Processes) condition(i int, c proxy.Condition) error {
	if p.links == nil {
		return errors.New("this network was made without links between its nodes: they cannot be cut off each other")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var settings []proxy.Setting
	for _, r := range p.links.Routes() {
		if name := p.local.Nodes[i].Name; r.From == name || r.To == name {
			settings = append(settings, proxy.Setting{Link: r.Link, Condition: c})
		}
	}
	p.links.Set(settings...)
	return nil
}

// Wipe implements Cluster.
func (p *Processes) Wipe(_ context.Context, i int) error {
	if err := p.local.Home(i).Wipe(); err != nil {
		return fmt.Errorf("wiping %s: %w", p.local.Nodes[i].Name, err)
	}
	return nil
}

// State implements Cluster.
func (p *Processes) State(_ context.Context, i int) (State, error) {
	if process, ok := p.local.Running(i); ok {
		_, state, _ := processStart(process.PID)
		return State{Running: true, Paused: state == "T"}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := p.cmds[i]
	if cmd == nil {
		return State{}, nil
	}
	<-p.ended[i]
	s := State{Ended: true, ExitCode: cmd.ProcessState.ExitCode()}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		s.ExitCode = 128 + int(w.Signal())
	}
	return s, nil
}

// Logs implements Cluster.
func (p *Processes) Logs(_ context.Context, i int, lines int) (string, error) {
	text, err := os.ReadFile(p.local.Log(i))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the log of %s: %w", p.local.Nodes[i].Name, err)
	}
	return lastLines(string(text), lines), nil
}

func lastLines(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Exec implements Cluster.
func (p *Processes) Exec(ctx context.Context, i int, args ...string) (string, error) {
	program, err := p.local.Program(i, p.program)
	if err != nil {
		return "", err
	}
	return run(ctx, program, append(args, "--home", string(p.local.Home(i)))...)
}

// AddNode implements Cluster.
func (p *Processes) AddNode(_ context.Context, n NodeSpec) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, err := p.local.AddNode(n)
	if err != nil {
		return 0, err
	}
	if p.links == nil {
		return i, nil
	}
	return i, p.links.Add(p.local.routes(func(from, to int) bool { return from == i || to == i })...)
}

// run runs a program and returns its standard output; what it says on standard error is in the error.
func run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
