package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/failpoint"
)

// operation does what an operator asks for: its words are a name, a home, and a folder or a height.
func operation(words []string) error {
	ctx, log, h := context.Background(), slog.New(slog.DiscardHandler), Home(words[1])
	switch words[0] {
	case "snapshot":
		info, err := h.CreateSnapshot(ctx, quick(), log)
		if err != nil {
			return err
		}
		_, err = h.VerifySnapshot(ctx, filepath.Join(h.Snapshots(), strconv.FormatUint(info.Height, 10)), StateSource{}, log, nil)
		return err
	case "backup":
		made, err := h.Backup(ctx, quick(), log, BackupRequest{Folder: words[2]}, "test")
		if err != nil {
			return err
		}
		_, err = VerifyBackup(ctx, made.Backup, true, log, nil)
		return err
	case "rollback":
		to, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return err
		}
		_, err = h.Rollback(quick(), log, RollbackRequest{To: to})
		return err
	}
	return errors.New("no such operation")
}

// TestOperationsKilled kills an operator's operation at each of its fail points, in a process of its own. What is left is
// sound, and the same operation again ends well.
func TestOperationsKilled(t *testing.T) {
	const variable = "PACIOLI_NODE_OPERATION"
	if words := os.Getenv(variable); words != "" {
		if err := operation(strings.Fields(words)); err != nil {
			t.Fatal(err)
		}
		return
	}
	n := newNet(t, KeyEd25519)
	r := n.start(t)
	until(t, "blocks to roll back", func() bool { _, h := r.get("/readyz"); return h.Height >= 15 })
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	check := func(what string) Fsck {
		t.Helper()
		state, err := n.home.CheckState(t.Context(), n.config, log, nil)
		if err != nil || len(state.Findings) != 0 {
			t.Fatalf("%s: %+v, %v", what, state, err)
		}
		return state
	}
	height := check("at the beginning").Height
	for _, point := range append([]string{"snapshot.write:2"}, failpoint.Operations...) {
		name, _, _ := strings.Cut(point, ".")
		words := []string{name, string(n.home)}
		switch name {
		case "snapshot":
			if err := os.RemoveAll(n.home.Snapshots()); err != nil {
				t.Fatal(err)
			}
		case "backup":
			words = append(words, t.TempDir())
		case "rollback":
			height -= 3
			words = append(words, fmt.Sprint(height))
		}
		command := exec.Command(os.Args[0], "-test.run", "^TestOperationsKilled$")
		command.Env = append(os.Environ(), variable+"="+strings.Join(words, " "), failpoint.Variable+"="+point)
		out, err := command.CombinedOutput()
		if status, _ := command.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: it gets by: %v\n%s", point, err, out)
		}
		check("killed at " + point)
		if list, err := snapshot.List(n.home.Snapshots()); name == "snapshot" && (err != nil || len(list) != 0) {
			t.Errorf("%s: what is left is a snapshot: %+v, %v", point, list, err)
		}
		if err := operation(words); err != nil {
			t.Errorf("again after %s: %v", point, err)
		}
		if after := check("again after " + point); after.Height != height {
			t.Errorf("%s: the state is at height %d, want %d", point, after.Height, height)
		}
		if n.height(t) != int64(height) && name == "rollback" && n.height(t) != int64(height)+1 {
			t.Errorf("%s: CometBFT's blocks are at height %d, the state is at %d", point, n.height(t), height)
		}
	}
	r = n.start(t) // it executes the block again that the last rollback has left, and has signed what would come after it
	if _, h := r.get("/livez"); h.Height != height+1 {
		t.Errorf("it starts at height %d, want %d", h.Height, height+1)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	check("at the end")
}
