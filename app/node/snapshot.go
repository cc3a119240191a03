package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Snapshots as files: made by a node that runs or not, fetched from others, checked, and put into a home.

// SnapshotRequest asks a running node for a snapshot of its newest height.
type SnapshotRequest struct{}

// Snapshot answers the operator's command.
func (n *Node) Snapshot(ctx context.Context, _ SnapshotRequest) (snapshot.Info, error) {
	m, err := n.app.TakeSnapshot(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	return m.Info(), nil
}

// CreateSnapshot makes the snapshot of a stopped node's height.
func (h Home) CreateSnapshot(ctx context.Context, c Config, log *slog.Logger) (info snapshot.Info, err error) {
	s, release, err := h.lockStore(c, log)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if s.Height() == 0 {
		return info, errors.New("this node has no state yet: it waits for the first block")
	}
	millis, err := app.SnapshotTime(s)
	if err != nil {
		return info, err
	}
	folder, err := snapshot.OpenFolder(h.Snapshots(), log)
	if err != nil {
		return info, err
	}
	view := s.View()
	defer view.Close()
	m, err := folder.Take(ctx, view, millis, 0)
	if err != nil {
		return info, err
	}
	return m.Info(), folder.Keep(max(c.Snapshot.Keep, 1))
}

// ListSnapshots returns the home's snapshots, the newest first. It changes nothing, so the node may run.
func (h Home) ListSnapshots() ([]snapshot.Info, error) {
	return snapshot.List(h.Snapshots())
}

// VerifySnapshot checks every byte of a snapshot's folder, and compares its state with headers of the chain that the home's
// genesis file, or what source says, leads to; without servers only that it is whole, and of one state.
func (h Home) VerifySnapshot(ctx context.Context, path string, source StateSource, log *slog.Logger, progress func(done, all int)) (info snapshot.Info, err error) {
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return info, err
	}
	m, err := snapshot.Read(path)
	if err != nil {
		return info, err
	}
	if len(source.Servers) > 0 {
		if err := h.headers(doc, source, log).trust(ctx, m); err != nil {
			return info, err
		}
	}
	return m.Info(), snapshot.Build(ctx, path, m, "", store.Options{InitialHeight: uint64(doc.InitialHeight)}, nil, progress)
}

// FetchSnapshot fetches a snapshot from nodes into a folder, which is one of a snapshot when it has all. It goes on with one
// that was interrupted.
func (h Home) FetchSnapshot(ctx context.Context, source StateSource, height uint64, to string, log *slog.Logger, progress func(string)) (info snapshot.Info, err error) {
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return info, err
	}
	if m, err := snapshot.Read(to); err == nil {
		if p, err := snapshot.OpenPartial(to, m); err == nil && p.Missing() == 0 {
			return info, fmt.Errorf("%s has a whole snapshot already, of height %d: choose another folder", to, m.Height())
		}
	} else if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return info, fmt.Errorf("%s is not empty, and is not the folder of a snapshot: choose another", to)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return info, fmt.Errorf("making the folder of the snapshot: %w", err)
	}
	var said time.Time
	f := snapshot.Fetch{Sources: source.Servers, Height: height, Dir: to, Trust: h.headers(doc, source, log).trust, Log: log,
		Use: func(path string, m *snapshot.Manifest) error {
			return snapshot.Build(ctx, path, m, "", store.Options{InitialHeight: uint64(doc.InitialHeight)}, nil, nil)
		},
		Progress: func(p snapshot.Progress) {
			if time.Since(said) > time.Second {
				said = time.Now()
				progress(p.String())
			}
		}}
	m, err := f.Run(ctx)
	if err != nil {
		return info, err
	}
	return m.Info(), nil
}

// RestoreSnapshot puts the state of a snapshot into a home without data, with CometBFT's own state for the blocks after it.
// Both are compared with verified headers before they are used. Keys and sign state are not touched. Interrupted, it leaves
// the home as it was, or is finished by the next command on it.
func (h Home) RestoreSnapshot(ctx context.Context, path string, source StateSource, log *slog.Logger, progress func(done, all int)) (info snapshot.Info, err error) {
	release, err := h.lockData()
	if err != nil {
		return info, err
	}
	defer release()
	if err := h.hasNoData(); err != nil {
		return info, err
	}
	partial := filepath.Join(h.Data(), restorePartial)
	if err := os.RemoveAll(partial); err != nil {
		return info, fmt.Errorf("removing a restore that was interrupted: %w", err)
	}
	ready := false
	defer func() {
		if !ready {
			_ = os.RemoveAll(partial) // an error is being returned; the next restore removes it too
		}
	}()
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return info, err
	}
	m, err := snapshot.Read(path)
	if err != nil {
		return info, err
	}
	headers := h.headers(doc, source, log)
	if err := headers.trust(ctx, m); err != nil {
		return info, err
	}
	data := filepath.Join(partial, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return info, err
	}
	if err := snapshot.Room(data, 4*m.Bytes); err != nil {
		return info, err
	}
	step("trusted")
	o := store.Options{InitialHeight: uint64(doc.InitialHeight), Logger: log}
	state := filepath.Join(data, "app")
	if err := snapshot.Build(ctx, path, m, state, o, func(i *store.Import) error { return app.FinishImport(i, m) }, progress); err != nil {
		return info, err
	}
	step("built")
	if err := checkBuilt(state, o, m); err != nil {
		return info, err
	}
	databases := cometdb.Provider(data, cometdb.Options{Logger: log})
	hash := m.Tops.AppHash()
	if err := errors.Join(follow(ctx, databases, m.Height(), hash[:], headers), databases.Close()); err != nil {
		return info, err
	}
	if err := syncFolders(partial); err != nil {
		return info, err
	}
	step("followed")
	// A crash before this line leaves the home as it was, but for a folder that nobody reads.
	if err := os.Rename(partial, filepath.Join(h.Data(), restoreReady)); err != nil {
		return info, fmt.Errorf("restoring: %w", err)
	}
	ready = true
	step("ready")
	if err := h.finishRestore(); err != nil {
		return info, fmt.Errorf("%w; the next command on this home goes on", err)
	}
	return m.Info(), nil
}

// checkBuilt opens what was built: what is on the disk has the roots that were verified.
func checkBuilt(path string, o store.Options, m *snapshot.Manifest) error {
	s, err := store.Open(path, o)
	if err != nil {
		return err
	}
	hash := m.Tops.AppHash()
	if s.Height() != m.Height() || string(s.AppHash()) != string(hash[:]) {
		err = fmt.Errorf("restored height %d with AppHash %X, want %d with %X", s.Height(), s.AppHash(), m.Height(), hash[:])
	}
	return errors.Join(err, s.Close())
}
