package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// listing returns the files of a home but for what a process leaves in any home that it looks at.
func listing(t *testing.T, home Home) []string {
	t.Helper()
	var list []string
	if err := files(string(home), func(path string) error {
		if filepath.Base(path) != "LOCK" {
			list = append(list, path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func copyTree(t *testing.T, to, from string) {
	t.Helper()
	if err := files(from, func(path string) error {
		return copyFile(filepath.Join(from, path), filepath.Join(to, path), nil)
	}); err != nil {
		t.Fatal(err)
	}
}

// header returns a block's header, as the RPC shows it.
func (r *running) header(height uint64) string {
	r.t.Helper()
	res, err := http.Get(fmt.Sprintf("%s/commit?height=%d", r.url, height))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var answer struct {
		Result struct {
			SignedHeader struct {
				Header json.RawMessage `json:"header"`
			} `json:"signed_header"`
		} `json:"result"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Result.SignedHeader.Header == nil {
		r.t.Fatalf("header of %d: %v %s", height, err, text)
	}
	return string(answer.Result.SignedHeader.Header)
}

// A validator is backed up under load. The backups are sound; a node restored from one follows the original to the same headers,
// which have the AppHash; a validator without its sign state does not sign; with it, it goes on.
func TestBackup(t *testing.T) {
	n := newNet(t, KeyEd25519)
	n.config.Consensus.IdleBlockInterval = Duration(20 * time.Millisecond)
	n.config.P2P.Listen = freePort(t)
	r := n.start(t)
	folder := filepath.Join(t.TempDir(), "backups")
	ask := func(keep int) (BackupResult, error) {
		return Ask[BackupResult](t.Context(), n.home, "/backup", BackupRequest{Folder: folder, Keep: keep})
	}
	until(t, "first block", func() bool { status, _ := r.get("/startupz"); return status == 200 })
	var results []BackupResult
	for sequence := uint64(1); len(results) < 3; sequence++ {
		r.post(n.pay(t, sequence), "application/octet-stream")
		if sequence%20 != 0 {
			continue
		}
		result, err := ask(2)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, result)
		time.Sleep(50 * time.Millisecond)
	}
	if removed := results[2].Removed; len(removed) != 1 || removed[0] != results[0].Backup {
		t.Errorf("keeping 2, the third removes %v", removed)
	}
	if _, err := Ask[BackupResult](t.Context(), n.home, "/backup", BackupRequest{Folder: filepath.Join(n.home.Data(), "inside")}); err == nil {
		t.Error("backs up into the data folder")
	}
	backup := results[1].Backup
	for _, b := range results[1:] {
		for _, deep := range []bool{false, true} {
			v, err := VerifyBackup(t.Context(), b.Backup, deep, quiet, nil)
			if err != nil || v.Height != b.Height || v.AppHash != b.AppHash || deep && (v.State == nil || len(v.State.Findings) != 0) {
				t.Fatalf("deep %t: %+v %v", deep, v, err)
			}
		}
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 2 {
		t.Errorf("the folder of backups has %v %v", entries, err)
	}
	if err := files(backup, func(path string) error {
		if strings.Contains(path, "key") || strings.Contains(path, "priv_validator") || strings.Contains(path, "wal") {
			t.Errorf("the backup has %s", path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	t.Run("damage", func(t *testing.T) {
		var tables []string
		if err := files(backup, func(path string) error { tables = append(tables, path); return nil }); err != nil {
			t.Fatal(err)
		}
		for _, path := range tables {
			if path == manifestFile {
				continue
			}
			bad := filepath.Join(t.TempDir(), "bad")
			copyTree(t, bad, backup)
			text, err := os.ReadFile(filepath.Join(bad, path))
			if err != nil {
				t.Fatal(err)
			}
			if len(text) == 0 {
				text = []byte{0}
			} else {
				text[len(text)/2] ^= 1
			}
			if err := os.WriteFile(filepath.Join(bad, path), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := VerifyBackup(t.Context(), bad, false, quiet, nil); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%s changed: %v", path, err)
			}
			home := Home(t.TempDir())
			if _, err := home.Restore(t.Context(), bad, false, quiet); err == nil {
				t.Errorf("%s changed: restores", path)
			}
			if left := listing(t, home); len(left) != 0 {
				t.Errorf("%s changed: the refused restore leaves %v", path, left)
			}
			if err := os.Remove(filepath.Join(bad, path)); err != nil {
				t.Fatal(err)
			}
			if _, err := VerifyBackup(t.Context(), bad, false, quiet, nil); err == nil || !strings.Contains(err.Error(), "missing") {
				t.Errorf("%s removed: %v", path, err)
			}
		}
		extra := filepath.Join(t.TempDir(), "extra")
		copyTree(t, extra, backup)
		if err := os.WriteFile(filepath.Join(extra, "data", "app", "999999.sst"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyBackup(t.Context(), extra, false, quiet, nil); err == nil || !strings.Contains(err.Error(), "does not name") {
			t.Errorf("a file too many: %v", err)
		}
	})

	// A full node from the backup follows the original.
	follower := *n
	follower.home = Home(t.TempDir())
	if result, err := follower.home.Restore(t.Context(), backup, true, quiet); err != nil || len(result.Next) != 0 {
		t.Fatalf("%+v %v", result, err)
	}
	if _, err := follower.home.Restore(t.Context(), backup, false, quiet); err == nil || !strings.Contains(err.Error(), "overwrites nothing") {
		t.Errorf("restores over data: %v", err)
	}
	id, err := n.home.ID()
	if err != nil {
		t.Fatal(err)
	}
	follower.config = n.config
	follower.config.P2P.PersistentPeers = []string{id + "@" + n.config.P2P.Listen}
	follower.config.P2P.Listen = "127.0.0.1:0"
	f := follower.start(t)
	_, now := r.get("/livez")
	until(t, "the restored node follows", func() bool { _, h := f.get("/livez"); return h.Height > now.Height+10 && !h.CatchingUp })
	for height := results[1].Height; height <= now.Height+10; height++ {
		if a, b := r.header(height), f.header(height); a != b {
			t.Fatalf("headers of %d differ:\n%s\n%s", height, a, b)
		}
	}
	f.stop()
	if err := f.end(); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}

	// A stopped home can be backed up as well, and the validator can be restored from it.
	offline, err := n.home.Backup(t.Context(), n.config, quiet, BackupRequest{Folder: folder}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := VerifyBackup(t.Context(), offline.Backup, true, quiet, nil); err != nil || v.AppHash != offline.AppHash {
		t.Errorf("%+v %v", v, err)
	}
	restored := *n
	restored.home = Home(t.TempDir())
	for _, path := range []string{"config/priv_validator_key.json", "config/node_key.json"} {
		if err := copyFile(filepath.Join(string(n.home), path), filepath.Join(string(restored.home), path), nil); err != nil {
			t.Fatal(err)
		}
	}
	result, err := restored.home.Restore(t.Context(), offline.Backup, false, quiet)
	if err != nil || len(result.Next) != 1 || !strings.Contains(result.Next[0], "sign state") {
		t.Fatalf("%+v %v", result, err)
	}
	refuses(t, &restored, "is missing beside the validator's key")
	// Its own sign state may have it bound by votes for the next height that nobody but the lost consensus log knows. Others would
	// decide that height without it; here it is alone, and nobody has seen them.
	if err := os.WriteFile(restored.home.SignState(), fmt.Appendf(nil, `{"height":"%d","round":0,"step":3}`, offline.Height), 0o600); err != nil {
		t.Fatal(err)
	}
	r = restored.start(t)

	until(t, "the restored validator goes on", func() bool { _, h := r.get("/livez"); return h.Height > offline.Height+2 })
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

// A restore that is killed at any step leaves the home as it was, or is finished by the next command.
func TestRestoreCrash(t *testing.T) {
	n := newNet(t, KeyEd25519)
	r := n.start(t)
	until(t, "some blocks", func() bool { _, h := r.get("/livez"); return h.Height > 3 })
	folder := t.TempDir()
	made, err := Ask[BackupResult](t.Context(), n.home, "/backup", BackupRequest{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	type killed struct{}
	defer func() { restoreStep = nil }()
	full := Home(t.TempDir())
	var steps []string
	restoreStep = func(name string) { steps = append(steps, name) }
	if _, err := full.Restore(t.Context(), made.Backup, false, quiet); err != nil {
		t.Fatal(err)
	}
	want := listing(t, full)
	if len(steps) != 9 {
		t.Fatalf("steps: %v", steps)
	}
	for _, at := range steps {
		home := Home(t.TempDir())
		key := filepath.Join(string(home), "config", "priv_validator_key.json")
		if err := copyFile(n.home.ValidatorKey(), key, nil); err != nil {
			t.Fatal(err)
		}
		restoreStep = func(name string) {
			if name == at {
				panic(killed{})
			}
		}
		func() {
			defer func() {
				if _, ok := recover().(killed); !ok {
					t.Fatalf("not killed at %s", at)
				}
			}()
			_, err := home.Restore(t.Context(), made.Backup, false, quiet)
			t.Fatalf("goes on at %s: %v", at, err)
		}()
		restoreStep = nil
		if at == "copied" {
			// Deferred calls have removed what a kill would leave; a kill's leftovers do no harm either.
			if err := os.MkdirAll(filepath.Join(home.Data(), restorePartial, "data", "app"), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(home.App()); err == nil {
				t.Error("killed before it was decided, there is a state")
			}
			if _, err := home.Restore(t.Context(), made.Backup, false, quiet); err != nil {
				t.Errorf("again: %v", err)
			}
		} else {
			release, err := home.lock() // as every command and the node do
			if err != nil {
				t.Fatal(err)
			}
			release()
		}
		got := slices.DeleteFunc(listing(t, home), func(path string) bool { return path == "config/priv_validator_key.json" })
		if !slices.Equal(got, want) {
			t.Errorf("killed at %s:\n%v, want\n%v", at, got, want)
		}
	}
	// An end by Ctrl-C is an error like any other.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	home := Home(t.TempDir())
	if _, err := home.Restore(ctx, made.Backup, false, quiet); err == nil || len(listing(t, home)) != 0 {
		t.Errorf("cancelled: %v, and leaves %v", err, listing(t, home))
	}
}
