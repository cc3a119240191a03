package node

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
)

// A full node's copy of the data is rolled back by one block and by many, softly and hard, and killed at every step in between. Each
// time it comes back to the same headers: by what it has, or by what it fetches from the validator that it follows.
func TestRollback(t *testing.T) {
	n := newNet(t, KeyEd25519)
	n.config.P2P.Listen = freePort(t)
	n.config.Consensus.IdleBlockInterval = Duration(20 * time.Millisecond)
	r := n.start(t)
	for sequence := uint64(1); ; sequence++ {
		r.post(n.pay(t, sequence), "application/octet-stream")
		if _, h := r.get("/livez"); h.Height > 30 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	folder := t.TempDir()
	made, err := Ask[BackupResult](t.Context(), n.home, "/backup", BackupRequest{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.home.ID()
	if err != nil {
		t.Fatal(err)
	}
	follower := *n
	follower.config.P2P.PersistentPeers, follower.config.P2P.Listen = []string{id + "@" + n.config.P2P.Listen}, "127.0.0.1:0"
	follower.home = Home(t.TempDir())
	if _, err := follower.home.Restore(t.Context(), made.Backup, true, quiet); err != nil {
		t.Fatal(err)
	}
	// follows starts the node, and sees it come to where the validator is.
	follows := func(from uint64) uint64 {
		t.Helper()
		f := follower.start(t)
		_, now := r.get("/livez")
		// Not while it catches up: CometBFT v0.40.0 may panic in block sync when a peer goes, as all do in a node that stops.
		until(t, "the node that was rolled back follows", func() bool { _, h := f.get("/livez"); return h.Height > now.Height && !h.CatchingUp })
		_, h := f.get("/livez")
		for height := from; height < h.Height; height++ {
			if a, b := r.header(height), f.header(height); a != b {
				t.Fatalf("headers of %d differ:\n%s\n%s", height, a, b)
			}
		}
		f.stop()
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		app, _, _ := heights(t, follower)
		return app
	}
	at := follows(2)
	type killed struct{}
	defer func() { restoreStep = nil }()
	for i, c := range []struct {
		back  uint64
		hard  bool
		kills []int // at which step; 0: at none
	}{{1, false, []int{0, 1}}, {1, true, []int{0}}, {10, false, []int{2}}, {12, true, []int{0, 5}}} {
		for _, kill := range c.kills {
			request := RollbackRequest{To: at - c.back, Hard: c.hard}
			if i == 0 && kill == 0 {
				request = RollbackRequest{Blocks: 1}
			}
			steps := 0
			restoreStep = func(string) {
				if steps++; steps == kill {
					panic(killed{})
				}
			}
			func() {
				defer func() {
					if cause := recover(); cause != nil && cause != any(killed{}) {
						panic(cause)
					}
				}()
				if _, err := follower.home.Rollback(follower.config, quiet, request); err != nil {
					t.Fatalf("%+v, killed at step %d: %v", request, kill, err)
				}
			}()
			restoreStep = nil
			whole := kill == 0 || steps < kill
			if !whole && kill%2 == 0 {
				// The same command again goes on; else a start of the node undoes what there is.
				if _, err := follower.home.Rollback(follower.config, quiet, request); err != nil && !strings.Contains(err.Error(), "cannot be rolled back to") {
					t.Fatalf("%+v, killed at step %d, again: %v", request, kill, err)
				}
				whole = true
			}
			if whole {
				to, block := at-c.back, at-c.back
				if !c.hard {
					block++
				}
				if a, b, top := heights(t, follower); a != to || b != to || top != block {
					t.Fatalf("%+v, killed at step %d: application at %d, CometBFT at %d with blocks up to %d, want %d, %d, %d", request, kill, a, b, top, to, to, block)
				}
			}
			at = follows(at - c.back)
		}
	}
	for _, bad := range []RollbackRequest{{To: 1 << 40}, {Blocks: 1 << 40}} {
		if _, err := follower.home.Rollback(follower.config, quiet, bad); err == nil || !strings.Contains(err.Error(), "the node is at height") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

func heights(t *testing.T, n net1) (app, comet, block uint64) {
	t.Helper()
	s, err := n.home.openStore(n.config, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	databases := cometdb.Provider(n.home.Data(), cometdb.Options{})
	defer databases.Close()
	blocks, states, err := openComet(databases)
	if err != nil {
		t.Fatal(err)
	}
	current, err := states.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s.Height(), uint64(current.LastBlockHeight), uint64(blocks.Height())
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
