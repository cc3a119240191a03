package testnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
	"github.com/pacioli-ledger/pacioli/testnet/load"
)

// The nodes of these tests are this very test binary, started again with the arguments of `pacioli start`.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "start" && os.Args[2] == "--home" {
		os.Exit(startNode(node.Home(os.Args[3])))
	}
	os.Exit(m.Run())
}

func startNode(home node.Home) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	rehearse(home)
	c, err := node.LoadConfig(string(home))
	if err == nil {
		err = node.Run(ctx, home, c, node.NewLogger(c.Log, os.Stderr), "test", nil)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pacioli:", err)
		return 1
	}
	return 0
}

// number reads a setting of the tests from the environment.
func number(t testing.TB, name string, value uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return value
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// seed returns the seed of a test: printed, and PACIOLI_SEED repeats it. What it repeats is who is killed after how long,
// and which payments are made; what processes do in between is theirs.
func seed(t *testing.T) (uint64, *rand.Rand) {
	n := number(t, "PACIOLI_SEED", uint64(time.Now().UnixNano())%1_000_000)
	t.Logf("seed: PACIOLI_SEED=%d", n)
	return n, rand.New(rand.NewPCG(n, 0))
}

// heals is how long a network may take to go on once more than two thirds are up: the promise is 15 s.
// PACIOLI_PATIENCE multiplies it, and all other bounds, for machines on which four validators are too many.
const heals = 15 * time.Second

// cluster is a network of processes under test.
type cluster struct {
	testing.TB
	local  *Local
	doc    *types.GenesisDoc
	client *client.Client
	nodes  []*audit.Node
	ended  []chan struct{} // closed when the node's process has ended
	exit   []*exec.Cmd
	factor time.Duration
}

// newCluster makes a network of four for kills and does not start it.
func newCluster(t *testing.T, keyType string, payers []*load.Payer) *cluster {
	t.Helper()
	return openCluster(t, LocalOptions{Validators: 4, KeyType: keyType, ChainID: "chaos", Accounts: load.Addresses(payers), Funds: 1e12,
		Configure: func(_ int, c *node.Config) {
			// Blocks as fast as they come would keep two cores busy with empty work.
			c.Consensus.TimeoutCommit = node.Duration(100 * time.Millisecond)
			// A dead proposer's turn takes half of what it takes by default, so that more kills fit into the time.
			c.Consensus.TimeoutPropose, c.Consensus.IdleBlockInterval = node.Duration(time.Second), node.Duration(500*time.Millisecond)
		}})
}

// openCluster makes a network and does not start it. PACIOLI_KEEP names a folder in which its own is kept.
func openCluster(t testing.TB, o LocalOptions) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	if keep := os.Getenv("PACIOLI_KEEP"); keep != "" {
		dir = filepath.Join(keep, fmt.Sprintf("%s-%d", t.Name(), os.Getpid()))
	}
	c := &cluster{TB: t, factor: time.Duration(number(t, "PACIOLI_PATIENCE", 1))}
	var err error
	if c.local, err = CreateLocal(dir, o); err != nil {
		t.Fatal(err)
	}
	c.ended, c.exit = make([]chan struct{}, len(c.local.Nodes)), make([]*exec.Cmd, len(c.local.Nodes))
	if c.doc, err = genesis.Load(c.local.Home(0).Genesis()); err != nil {
		t.Fatal(err)
	}
	for _, url := range c.local.URLs() {
		n, err := audit.Open(url)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	t.Cleanup(func() {
		for i := range c.exit {
			if c.exit[i] != nil {
				_ = c.exit[i].Process.Kill() // one that has ended is what we want
				<-c.ended[i]
			}
		}
		if t.Failed() {
			for i := range c.local.Nodes {
				t.Logf("end of the log of node %d:\n%s", i, c.logEnd(i, 25))
			}
		}
	})
	return c
}

func (c *cluster) logEnd(i, lines int) string {
	text, err := os.ReadFile(c.local.Log(i))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// logged returns the lines of a node's log that hold a text.
func (c *cluster) logged(i int, text string) (lines []string) {
	f, err := os.Open(c.local.Log(i))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		if strings.Contains(s.Text(), text) {
			lines = append(lines, s.Text())
		}
	}
	return lines
}

func (c *cluster) start(i int) { c.Helper(); c.startWith(i) }

// startWith starts a node with more variables in its environment.
func (c *cluster) startWith(i int, env ...string) {
	c.Helper()
	cmd, err := c.local.StartWith(i, os.Args[0], true, env)
	if err != nil {
		c.Fatal(err)
	}
	ended := make(chan struct{})
	c.exit[i], c.ended[i] = cmd, ended
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended is in ProcessState
}

// signal sends a signal to a node and waits until it has ended.
func (c *cluster) signal(i int, s syscall.Signal) {
	c.Helper()
	c.alive(i)
	if err := c.local.Signal(i, s); err != nil {
		c.Fatal(err)
	}
	select {
	case <-c.ended[i]:
	case <-time.After(c.factor * heals):
		c.Fatalf("node %d does not end on %s", i, s)
	}
	c.exit[i] = nil
}

// alive fails the test when a node has ended by itself.
func (c *cluster) alive(i int) {
	c.Helper()
	if c.exit[i] == nil {
		return
	}
	select {
	case <-c.ended[i]:
		state := c.exit[i].ProcessState
		c.exit[i] = nil
		c.Fatalf("node %d ended by itself: %s", i, state)
	default:
	}
}

// height asks a node, 0 when it does not answer.
func (c *cluster) height(i int) uint64 {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := c.nodes[i].Status(ctx)
	if err != nil {
		return 0
	}
	return s.Height
}

// highest asks all nodes.
func (c *cluster) highest() (height uint64) {
	for i := range c.nodes {
		if c.exit[i] != nil {
			height = max(height, c.height(i))
		}
	}
	return height
}

// await waits until done is true and returns how long it took. Nodes that end by themselves fail the test.
func (c *cluster) await(what string, bound time.Duration, done func() bool) time.Duration {
	c.Helper()
	began := time.Now()
	for !done() {
		for i := range c.nodes {
			c.alive(i)
		}
		if took := time.Since(began); took > c.factor*bound {
			var heights []string
			for i := range c.nodes {
				heights = append(heights, strconv.FormatUint(c.height(i), 10))
			}
			c.Fatalf("waited %s for %s; heights %s", took.Round(time.Millisecond), what, strings.Join(heights, " "))
		}
		time.Sleep(25 * time.Millisecond)
	}
	return time.Since(began)
}

// startAll starts every node and waits for a block.
func (c *cluster) startAll() {
	c.Helper()
	for i := range c.nodes {
		c.start(i)
	}
	c.await("the first blocks", 60*time.Second, func() bool { return c.height(0) >= 2 && c.height(3) >= 2 })
	var err error
	if c.client, err = client.Dial(context.Background(), client.Options{Nodes: c.local.URLs(), Genesis: c.doc}); err != nil {
		c.Fatal(err)
	}
}

// agree compares two nodes at the newest height that both have executed for certain.
func (c *cluster) agree(i, j int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h := min(c.height(i), c.height(j)) - 1 // a node tells of a block when it has stored it, and executes it then
	a, err := c.nodes[i].Block(ctx, h)
	if err != nil {
		c.Fatal(err)
	}
	b, err := c.nodes[j].Block(ctx, h)
	if err != nil {
		c.Fatal(err)
	}
	if !bytes.Equal(a.Hash, b.Hash) || !bytes.Equal(a.AppHash, b.AppHash) || !bytes.Equal(a.NextAppHash, b.NextAppHash) {
		c.Fatalf("nodes %d and %d differ at height %d: blocks %X and %X, AppHash %X and %X, after it %X and %X", i, j, h, a.Hash, b.Hash, a.AppHash, b.AppHash, a.NextAppHash, b.NextAppHash)
	}
}

// pay starts a load.
func (c *cluster) pay(payers []*load.Payer, seed uint64, rate float64) (l *load.Load, record chan []audit.Claim) {
	c.Helper()
	var logger *slog.Logger
	if os.Getenv("PACIOLI_VERBOSE") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := load.New(ctx, load.Options{Nodes: c.local.URLs(), Client: c.client, Payers: payers, Seed: seed, Rate: rate, Settle: c.factor * 30 * time.Second, Logger: logger})
	if err != nil {
		c.Fatal(err)
	}
	record = make(chan []audit.Claim, 1)
	go func() { record <- l.Run(ctx) }()
	c.Cleanup(cancel)
	return l, record
}

// save writes the record beside the nodes' folders, when those are kept.
func (c *cluster) save(claims []audit.Claim) {
	c.Helper()
	if os.Getenv("PACIOLI_KEEP") == "" {
		return
	}
	f, err := os.Create(filepath.Join(c.local.Dir, "record.ndjson"))
	if err != nil {
		c.Fatal(err)
	}
	if err := errors.Join(audit.WriteClaims(f, claims), f.Close()); err != nil {
		c.Fatal(err)
	}
	c.Logf("record: %s", f.Name())
}

// audited waits until every node has all that clients were told about, runs the audit over everything and reports.
func (c *cluster) audited(claims []audit.Claim) audit.Report {
	c.Helper()
	end := c.highest()
	for i := range c.nodes {
		// Three more blocks: those above confirm what was told.
		c.await(fmt.Sprintf("node %d to have everything", i), 2*heals, func() bool { return c.height(i) >= end+3 })
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), c.factor*10*time.Minute)
	defer cancel()
	r, err := audit.Run(ctx, audit.Options{Nodes: c.local.URLs(), Genesis: c.doc, Claims: claims})
	if err != nil {
		c.Fatalf("audit: %s", err)
	}
	c.Logf("audit in %s: %d blocks on %d nodes, %d transactions, %d of them failed, %d operations, %d rows proven by each node, longest gap between blocks %s before block %d, payments %v",
		time.Since(began).Round(time.Millisecond), r.Blocks, r.Nodes, r.Transactions, r.Failed, r.Operations, r.Rows, r.LongestGap.Round(time.Millisecond), r.GapHeight, r.Claims)
	for _, fault := range r.Faults {
		c.Errorf("audit: %s", fault)
	}
	return r
}
