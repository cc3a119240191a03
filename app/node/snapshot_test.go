package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// payByNonce is a payment that leaves an open nonce.
func (n *net1) payByNonce(t *testing.T, nonce byte) []byte {
	t.Helper()
	b := ledger.Body{MaxFee: ledger.Units(1000), ValidUntil: uint64(time.Now().Unix()) + 500,
		Signers:    []ledger.Signer{{Address: n.policy.Address(), Nonce: [ledger.NonceBytes]byte{nonce}, Policy: n.policy.Encode()}},
		Operations: []ledger.Operation{&ledger.Transfer{To: n.bank, Asset: n.asset, Amount: ledger.Units(1)}}}
	return n.signed(t, b)
}

// TestSnapshotFiles: a running node makes a snapshot; it is fetched, verified and restored into another home, killed at
// every step on the way; and the node that begins with it follows, remembers open nonces, and does not answer for what was before.
func TestSnapshotFiles(t *testing.T) {
	ctx := context.Background()
	n := newNet(t, KeyEd25519)
	port, err := net.Listen("tcp", "127.0.0.1:0") // the other node has to find it
	if err != nil {
		t.Fatal(err)
	}
	n.config.P2P.Listen = port.Addr().String()
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	r := n.start(t)
	until(t, "first block", func() bool { status, _ := r.get("/startupz"); return status == 200 })
	send := func(raw []byte) {
		t.Helper()
		status, s := r.post(raw, "application/octet-stream")
		if status != 200 {
			t.Fatalf("%d %+v", status, s)
		}
		until(t, "payment", func() bool { _, s := r.post(raw, "application/octet-stream"); return s.Height != 0 })
	}
	old, open := n.pay(t, 1), n.payByNonce(t, 7)
	send(old)
	send(open)
	log := slog.New(slog.DiscardHandler)
	info, err := Ask[snapshot.Info](ctx, n.home, "/snapshot", SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := n.home.ListSnapshots(); err != nil || len(list) != 1 || list[0] != info || info.Height == 0 {
		t.Fatalf("%+v, %v; made was %+v", list, err, info)
	}
	source := StateSource{Servers: []string{r.url}}
	other := Home(t.TempDir())
	c := quick()
	id, err := n.home.ID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewHome(other, c, KeyEd25519); err != nil {
		t.Fatal(err)
	}
	if err := genesis.Save(n.doc, other.Genesis()); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "fetched")
	progress := 0
	fetched, err := other.FetchSnapshot(ctx, source, info.Height, to, log, func(string) { progress++ })
	if err != nil || fetched != info || progress == 0 {
		t.Fatalf("%+v, %v, want %+v; %d lines of progress", fetched, err, info, progress)
	}
	if _, err := other.FetchSnapshot(ctx, source, 0, to, log, func(string) {}); err == nil {
		t.Error("a whole snapshot is fetched again")
	}
	verified, err := other.VerifySnapshot(ctx, to, source, log, nil)
	if err != nil || verified != info {
		t.Errorf("%+v, %v", verified, err)
	}
	// One bit of a chunk, in a copy.
	chunk, err := snapshot.ReadChunk(to, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(to, "000000.chunk")
	spoilt := bytes.Clone(chunk)
	spoilt[len(spoilt)/2] ^= 1
	if err := os.WriteFile(name, spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := other.VerifySnapshot(ctx, to, StateSource{}, log, nil); !errors.Is(err, snapshot.ErrChunk) {
		t.Errorf("a flipped bit: %v", err)
	}
	if _, err := other.RestoreSnapshot(ctx, to, source, log, nil); !errors.Is(err, snapshot.ErrChunk) {
		t.Errorf("a flipped bit is restored: %v", err)
	}
	if err := os.WriteFile(name, chunk, 0o600); err != nil {
		t.Fatal(err)
	}
	// Another state of the same network: the manifest's own tops with a changed leaf count.
	manifest, err := os.ReadFile(filepath.Join(to, "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	lie, err := snapshot.Decode(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lie.Tops.Trees {
		if lie.Tops.Trees[i].Height > 0 {
			lie.Tops.Trees[i].Left[0] ^= 1
		}
	}
	if err := os.WriteFile(filepath.Join(to, "manifest"), lie.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := other.RestoreSnapshot(ctx, to, source, log, nil); !errors.Is(err, snapshot.ErrUntrusted) {
		t.Errorf("another state is restored: %v", err)
	}
	if err := os.WriteFile(filepath.Join(to, "manifest"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	signState, err := os.ReadFile(other.SignState())
	if err != nil {
		t.Fatal(err)
	}
	// Killed at every step: nothing is there, or the next command on the home finishes it.
	defer func() { restoreStep = nil }()
	steps := []string{"trusted", "built", "followed", "ready", "before state.db", "before blockstore.db", "before app", "all moved"}
	for i, at := range steps {
		restoreStep = func(name string) {
			if name == at {
				panic(at)
			}
		}
		func() {
			defer func() {
				if cause := recover(); cause != at {
					t.Fatalf("killed at %q: %v", at, cause)
				}
			}()
			_, err := other.RestoreSnapshot(ctx, to, source, log, nil)
			t.Errorf("not killed at %q: %v", at, err)
		}()
		restoreStep = nil
		release, err := other.lockData()
		if err != nil {
			t.Fatalf("after a kill at %q: %v", at, err)
		}
		release()
		_, err = os.Stat(other.App())
		if there := err == nil; there != (i >= 3) {
			t.Errorf("after a kill at %q the state is there: %t", at, there)
		}
		if i < 3 {
			continue
		}
		if check, err := other.CheckState(ctx, c, log, nil); err != nil || len(check.Findings) != 0 || check.Height != info.Height || check.AppHash != info.AppHash {
			t.Errorf("after a kill at %q: %+v, %v", at, check, err)
		}
		if _, err := other.RestoreSnapshot(ctx, to, source, log, nil); err == nil {
			t.Error("a restore overwrites data")
		}
		if i < len(steps)-1 {
			for _, name := range []string{"app", "state.db", "blockstore.db"} {
				if err := os.RemoveAll(filepath.Join(other.Data(), name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if now, err := os.ReadFile(other.SignState()); err != nil || !bytes.Equal(now, signState) {
		t.Errorf("the sign state has changed: %s, %v", now, err)
	}

	c.P2P.PersistentPeers = []string{id + "@" + n.config.P2P.Listen}
	second := &net1{home: other, config: c, doc: n.doc}
	r2 := second.start(t)
	until(t, "the restored node", func() bool {
		status, h := r2.get("/readyz")
		return status == 200 && h.Height > info.Height+20
	})
	if status, s := r2.post(open, "application/octet-stream"); status != 422 || s.Code != ledger.NonceUsed {
		t.Errorf("a nonce that was open in the snapshot: %d %+v", status, s)
	}
	if status, s := r2.post(n.pay(t, 2), "application/octet-stream"); status != 200 {
		t.Errorf("a payment to the restored node: %d %+v", status, s)
	}
	tx, err := ledger.Decode(old)
	if err != nil {
		t.Fatal(err)
	}
	txID := tx.ID(n.network.ID)
	line := ledger.LineKey{Account: n.policy.Address(), Asset: n.asset}
	for path, data := range map[string][]byte{query.PathTx: txID[:], query.PathEntries: query.EntriesData(line, 0, 1, 10)} {
		if code, _ := r.ask(path, data); code != 0 {
			t.Errorf("%s: the first node answers %d", path, code)
		}
		if code, log := r2.ask(path, data); code != query.Pruned {
			t.Errorf("%s: the restored node answers %d %s for what was before it", path, code, log)
		}
	}
	r2.stop()
	if err := r2.end(); err != nil {
		t.Fatal(err)
	}
	if check, err := other.CheckState(ctx, c, log, nil); err != nil || len(check.Findings) != 0 || check.Height <= info.Height {
		t.Errorf("%+v, %v", check, err)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	// Both are stopped at heights of their own; of one height both make the same bytes.
	made, err := other.CreateSnapshot(ctx, c, log)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := other.VerifySnapshot(ctx, filepath.Join(other.Snapshots(), strconv.FormatUint(made.Height, 10)), StateSource{}, log, nil); err != nil || again != made {
		t.Errorf("%+v, %v, want %+v", again, err, made)
	}
	source0, err := store.Open(n.home.App(), store.Options{InitialHeight: 1})
	if err != nil {
		t.Fatal(err)
	}
	if source0.Height() > made.Height {
		if err := source0.Rollback(made.Height, nil); err != nil {
			t.Fatal(err)
		}
	}
	same := source0.Height() == made.Height
	if err := source0.Close(); err != nil {
		t.Fatal(err)
	}
	if first, err := n.home.CreateSnapshot(ctx, n.config, log); same && (err != nil || first != made) {
		t.Errorf("the first node makes %+v, the restored one %+v; %v", first, made, err)
	}
	if !same {
		t.Log("the first node stopped below the restored one: their snapshots were not compared")
	}
}
