package testnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// rehearsal is a file in a node's home that has the node lie about its snapshots: "flip" changes a bit of every chunk that
// it sends, "lie" announces manifests of chunks that are not those of the state.
const rehearsal = "rehearsal"

func rehearse(home node.Home) {
	if n, err := strconv.Atoi(os.Getenv("PACIOLI_CHUNK")); err == nil {
		snapshot.RehearsedChunkBytes = n
	}
	how, err := os.ReadFile(filepath.Join(string(home), rehearsal))
	if err != nil {
		return
	}
	flip := func(index int, chunk []byte) []byte {
		chunk = bytes.Clone(chunk)
		chunk[(index*7919+len(chunk)/2)%len(chunk)] ^= 1
		return chunk
	}
	switch string(how) {
	case "flip":
		app.Rehearse.Chunk = func(_ uint64, index int, chunk []byte) []byte { return flip(index, chunk) }
	case "lie":
		app.Rehearse.Chunk = func(_ uint64, index int, chunk []byte) []byte {
			if index == 0 {
				return flip(index, chunk)
			}
			return chunk
		}
		app.Rehearse.Offer = func(m *snapshot.Manifest) *snapshot.Manifest {
			lie := *m
			lie.Chunks = slices.Clone(m.Chunks)
			if chunk, err := snapshot.ReadChunk(filepath.Join(home.Snapshots(), strconv.FormatUint(m.Height(), 10)), 0); err == nil {
				lie.Chunks[0] = sha256.Sum256(flip(0, chunk))
			}
			return &lie
		}
	}
}

// addFull makes the home of a full node that is no validator, connected with some of the others, and does not start it.
func (c *cluster) addFull(peers []int, configure func(*node.Config)) int {
	c.Helper()
	addresses, err := freeAddresses(2)
	if err != nil {
		c.Fatal(err)
	}
	i := len(c.local.Nodes)
	c.local.Nodes = append(c.local.Nodes, LocalNode{Name: fmt.Sprintf("node%d", i), RPC: addresses[0], P2P: addresses[1]})
	config := node.DefaultConfig()
	config.Node.Moniker = c.local.Nodes[i].Name
	config.RPC.Listen, config.P2P.Listen = addresses[0], addresses[1]
	config.Store.CacheMB, config.Store.TreeCacheNodes = 64, 100_000
	for _, p := range peers {
		id, err := c.local.Home(p).ID()
		if err != nil {
			c.Fatal(err)
		}
		config.P2P.PersistentPeers = append(config.P2P.PersistentPeers, id+"@"+c.local.Nodes[p].P2P)
	}
	configure(&config)
	if _, err := node.NewHome(c.local.Home(i), config, node.KeyEd25519); err != nil {
		c.Fatal(err)
	}
	if err := genesis.Save(c.doc, c.local.Home(i).Genesis()); err != nil {
		c.Fatal(err)
	}
	n, err := audit.Open("http://" + addresses[0])
	if err != nil {
		c.Fatal(err)
	}
	c.nodes, c.ended, c.exit = append(c.nodes, n), append(c.ended, nil), append(c.exit, nil)
	return i
}

// snapshots asks a node which it has.
func (c *cluster) snapshots(i int) (list []snapshot.Info) {
	c.Helper()
	response, err := http.Get("http://" + c.local.Nodes[i].RPC + snapshot.Path)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		c.Fatal(err)
	}
	return list
}

// peakMB returns the most memory that a node's process has had.
func (c *cluster) peakMB(i int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.exit[i].Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb >> 10
		}
	}
	return 0
}

// TestStateSync: a new node takes the state of nodes of which one changes the chunks that it sends, one announces a snapshot
// that is not of the state, and one is honest: once by HTTP from servers, once from its peers as CometBFT does it. It
// ends at the honest AppHash, goes on with the chain, and starts again after a kill.
func TestStateSync(t *testing.T) {
	const accounts = 5000
	t.Setenv("PACIOLI_CHUNK", "16384")
	addresses := make([]crypto.Address, accounts)
	for i := range addresses {
		addresses[i] = sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	}
	const honest, flips, lies = 0, 2, 3
	const at = 60
	c := openCluster(t, LocalOptions{Validators: 4, KeyType: node.KeyEd25519, ChainID: "sync", Accounts: addresses, Funds: 1e6,
		Configure: func(i int, c *node.Config) {
			c.Consensus.TimeoutCommit, c.Consensus.IdleBlockInterval = node.Duration(100*time.Millisecond), node.Duration(50*time.Millisecond)
			c.Consensus.TimeoutPropose = node.Duration(2 * time.Second)
			c.Snapshot.Interval, c.Snapshot.Keep = at, 100
			if i == lies {
				c.Snapshot.Interval = 20
			}
		}})
	for i, how := range map[int]string{flips: "flip", lies: "lie"} {
		if err := os.WriteFile(filepath.Join(string(c.local.Home(i)), rehearsal), []byte(how), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.await("the first blocks", 2*time.Minute, func() bool { return c.height(0) >= 2 && c.height(3) >= 2 })
	find := func(i int, height uint64) string {
		for _, s := range c.snapshots(i) {
			if s.Height >= height {
				return s.Hash
			}
		}
		return ""
	}
	c.await("snapshots", 2*time.Minute, func() bool { return find(honest, at) != "" && find(flips, at) != "" && find(lies, at+1) != "" })
	if a, b := find(honest, at), find(flips, at); a != b {
		t.Fatalf("two nodes have the snapshots %s and %s of one height", a, b)
	}
	sync := func(what string, servers []string, peers []int, wants ...string) {
		n := c.addFull(peers, func(config *node.Config) {
			config.StateSync = node.StateSyncConfig{Enable: true, Servers: servers}
			if servers == nil {
				config.StateSync.Servers, config.StateSync.Peers = c.local.URLs()[:2], true
			}
		})
		began := time.Now()
		c.start(n)
		c.await("the new node to follow", 2*time.Minute, func() bool { h := c.height(n); return h > at && h+5 >= c.height(honest) })
		t.Logf("%s, %d accounts: the new node follows after %s, with at most %d MB in memory; %s", what, accounts, time.Since(began).Round(time.Millisecond), c.peakMB(n),
			strings.Join(c.logged(n, "restored snapshot"), ""))
		c.agree(n, honest)
		for _, want := range append(wants, "restored snapshot; the blocks after it") {
			if lines := c.logged(n, want); len(lines) == 0 {
				t.Errorf("%s: the new node's log does not say: %s", what, want)
			}
		}
		// Its history begins with the snapshot.
		if b, err := c.nodes[n].Block(context.Background(), 10); err == nil {
			t.Errorf("%s: it has block 10: %+v", what, b)
		}
		c.signal(n, syscall.SIGKILL)
		c.start(n)
		now := c.height(honest)
		c.await("the new node after a kill", 2*time.Minute, func() bool { return c.height(n) > now })
		c.agree(n, honest)
		c.signal(n, syscall.SIGTERM)
	}
	urls := c.local.URLs()
	sync("by HTTP", []string{urls[flips], urls[honest], urls[lies]}, []int{honest}, "chunk is not the one that the manifest names") // the lie about the manifest, told by one of three, is not even tried
	sync("from peers", nil, []int{honest, flips}, "refuse chunk and leave its sender out")
}
