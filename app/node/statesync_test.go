package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/genesis"
)

// TestStateSyncOnFullDisk: a disk that has no room for a snapshot, or fills up while its chunks come, ends the node at once with
// one message and the exit code of full disks; with room again, the next start goes on.
func TestStateSyncOnFullDisk(t *testing.T) {
	n := newNet(t, KeyEd25519)
	r := n.start(t)
	until(t, "first block", func() bool { status, _ := r.get("/startupz"); return status == 200 })
	info, err := Ask[snapshot.Info](t.Context(), n.home, "/snapshot", SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "two more blocks", func() bool { _, h := r.get("/readyz"); return h.Height > info.Height+2 })
	other := &net1{home: Home(t.TempDir()), config: quick(), doc: n.doc}
	id, err := n.home.ID()
	if err != nil {
		t.Fatal(err)
	}
	other.config.P2P.PersistentPeers = []string{id + "@127.0.0.1:1"} // it fetches no blocks
	other.config.StateSync = StateSyncConfig{Enable: true, Servers: []string{r.url}}
	if _, err := NewHome(other.home, other.config, KeyEd25519); err != nil {
		t.Fatal(err)
	}
	if err := genesis.Save(n.doc, other.home.Genesis()); err != nil {
		t.Fatal(err)
	}
	ends := func(want string) {
		t.Helper()
		began := time.Now()
		failing := &running{t: t, done: make(chan error, 1)}
		go func() {
			failing.done <- Run(t.Context(), other.home, other.config, slog.New(slog.DiscardHandler), "test", nil)
		}()
		err := failing.end()
		exitsWith(t, err, 12, want)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("the message has several lines: %s", err)
		}
		t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), err)
	}

	real := snapshot.FreeBytes
	defer func() { snapshot.FreeBytes = real }()
	snapshot.FreeBytes = func(dir string) (uint64, error) {
		if dir == other.home.fetched() {
			return 100 << 20, nil
		}
		return real(dir)
	}
	ends("state sync: the disk of " + other.home.fetched() + " has 100 MB free, and 512 MB are needed: make room")
	snapshot.FreeBytes = real

	m, err := snapshot.Read(filepath.Join(n.home.Snapshots(), fmt.Sprint(info.Height)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.OpenPartial(other.home.fetched(), m); err != nil {
		t.Fatal(err)
	}
	// What Linux answers to every write here is what it answers on a full disk.
	full := filepath.Join(other.home.fetched(), "000000.chunk.part")
	if err := os.Symlink("/dev/full", full); err != nil {
		t.Fatal(err)
	}
	ends("state sync: writing chunk 0: write " + full + ": no space left on device")
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}

	after := other.start(t)
	if _, h := after.get("/livez"); h.Height != info.Height {
		t.Errorf("with room again it begins at height %d, want %d", h.Height, info.Height)
	}
	for _, r := range []*running{after, r} {
		r.stop()
		if err := r.end(); err != nil {
			t.Error(err)
		}
	}
}

// TestFullDiskStops: whatever a node ends for, when the cause is a full disk it says so.
func TestFullDiskStops(t *testing.T) {
	full := fmt.Errorf("database background work: %w", &os.PathError{Op: "write", Path: "data/app/000004.sst", Err: syscall.ENOSPC})
	exitsWith(t, stop("database_failed", "the application's database failed: %w", full), 12, "no space left on device")
	exitsWith(t, stop("database_failed", "the application's database failed: %w", syscall.EIO), 11, "input/output error")
	for message, want := range map[string]int{"State sync failed": 12, "CONSENSUS FAILURE!!!": 12, "something else": 0} {
		var ended error
		log := cometLogger{log: slog.New(slog.DiscardHandler), stopped: func(err error) { ended = stop("consensus_stopped", "%w", err) }}
		log.Error(message, "err", full)
		if want == 0 && ended != nil {
			t.Errorf("%s ends the node: %v", message, ended)
		}
		if want != 0 {
			exitsWith(t, ended, want, "no space left on device")
		}
	}
	var ended error
	log := cometLogger{log: slog.New(slog.DiscardHandler), stopped: func(err error) { ended = stop("consensus_stopped", "%w", err) }}
	log.Error("CONSENSUS FAILURE!!!", "err", "a panic's text")
	exitsWith(t, ended, 10, "consensus has stopped: a panic's text")
	if errors.Is(ended, syscall.ENOSPC) {
		t.Error("a text is taken for a full disk")
	}
}
