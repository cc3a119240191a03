package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// A backup is a folder:
//
//	manifest.json      what it is of, and SHA-256 of every other file; written last
//	pacioli.toml       the configuration, for reading: paths and addresses in it are the machine's
//	config/genesis.json
//	data/app           the ledger's state, and CometBFT's databases, by Pebble's checkpoints
//	data/*.db
//
// Neither keys nor the sign state are ever in it. The consensus log is not either: it says what this node has signed for the
// height after, which only the sign state may say. The databases are of one moment, between two commits: CometBFT's blocks
// may be one height above the application's, its state one below, as on a node that was killed, and CometBFT's start
// mends it.
const (
	manifestFile   = "manifest.json"
	backupFormat   = "pacioli.backup.v1"
	maxManifest    = 64 << 20 // 150 bytes a file: room for 400,000 tables
	partialSuffix  = ".partial"
	checkpointName = "backup.partial" // below data, where hard links work
)

// BackupManifest is manifest.json.
type BackupManifest struct {
	Format  string       `json:"format"`
	ChainID string       `json:"chain_id"`
	Network string       `json:"network_id"`
	Height  uint64       `json:"height"`
	AppHash string       `json:"app_hash"`
	Version string       `json:"version"` // of the program that made it
	Created time.Time    `json:"created"`
	Files   []BackupFile `json:"files"`
}

// BackupFile is one file of a backup, by its path with slashes.
type BackupFile struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func (m BackupManifest) bytes() (total int64) {
	for _, f := range m.Files {
		total += f.Bytes
	}
	return total
}

// BackupRequest asks for a backup.
type BackupRequest struct {
	Folder string `json:"folder"` // absolute; the backup becomes a folder in it
	Keep   int    `json:"keep"`   // backups of this network to keep there, with the new one; 0: all
}

// BackupResult is a backup that was made, checked or restored.
type BackupResult struct {
	Backup  string   `json:"backup"` // its folder
	Network string   `json:"network_id"`
	ChainID string   `json:"chain_id"`
	Height  uint64   `json:"height"`
	AppHash string   `json:"app_hash"`
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`
	Removed []string `json:"removed,omitempty"` // older backups
	State   *Fsck    `json:"state,omitempty"`   // what a deep check has found
	Next    []string `json:"next,omitempty"`    // what is still to do after a restore
}

func (m BackupManifest) result(folder string) BackupResult {
	return BackupResult{Backup: folder, Network: m.Network, ChainID: m.ChainID, Height: m.Height, AppHash: strings.ToLower(m.AppHash), Files: len(m.Files), Bytes: m.bytes()}
}

// Backup makes a backup of the running node. Commits wait while the databases are linked, some milliseconds.
func (n *Node) Backup(ctx context.Context, request BackupRequest) (BackupResult, error) {
	n.backups.Lock() // one at a time: they share a folder
	defer n.backups.Unlock()
	return n.home.backup(ctx, request, n.version, func(dir string) (BackupManifest, error) {
		var m BackupManifest
		err := n.app.Hold(func(uint64) (err error) {
			m, err = copyDatabases(n.app.Store(), n.databases, dir)
			return err
		})
		return m, err
	})
}

// Backup makes a backup of a node that does not run.
func (h Home) Backup(ctx context.Context, c Config, log *slog.Logger, request BackupRequest, version string) (result BackupResult, err error) {
	s, release, err := h.lockStore(c, log)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	databases := cometdb.Provider(h.Data(), cometdb.Options{Logger: log})
	defer func() { err = errors.Join(err, databases.Close()) }()
	for _, name := range cometDatabases {
		if _, err := databases.Named(name); err != nil {
			return result, err
		}
	}
	return h.backup(ctx, request, version, func(dir string) (BackupManifest, error) { return copyDatabases(s, databases, dir) })
}

// cometDatabases are those that a node of ours has. There is no tx_index: CometBFT's indexer is off.
var cometDatabases = []string{"blockstore", "state", "evidence"}

// copyDatabases makes checkpoints below dir. Nothing may be committed meanwhile.
func copyDatabases(s *store.Store, databases *cometdb.Databases, dir string) (m BackupManifest, err error) {
	if m.Height = s.Height(); m.Height == 0 {
		return m, errors.New("no block was committed yet: there is nothing to back up")
	}
	m.AppHash = hex.EncodeToString(s.AppHash())
	if err := databases.Checkpoint(dir); err != nil {
		return m, err
	}
	return m, s.Checkpoint(filepath.Join(dir, "app"))
}

// backup makes links below data, where they are quick, and then moves or copies them to where they are wanted.
func (h Home) backup(ctx context.Context, request BackupRequest, version string, databases func(dir string) (BackupManifest, error)) (result BackupResult, err error) {
	if !filepath.IsAbs(request.Folder) || request.Keep < 0 {
		return result, fmt.Errorf("backup to %q, keeping %d: want an absolute path and 0 or more", request.Folder, request.Keep)
	}
	data, err := filepath.Abs(h.Data())
	if err != nil {
		return result, fmt.Errorf("finding the data folder: %w", err)
	}
	if relative, err := filepath.Rel(data, request.Folder); err == nil && filepath.IsLocal(relative) {
		return result, fmt.Errorf("%s is in the data folder, which a restore wants empty: choose another one, best on another disk", request.Folder)
	}
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return result, err
	}
	network, err := genesis.NetworkOf(doc)
	if err != nil {
		return result, err
	}
	work := filepath.Join(h.Data(), checkpointName) // of a process that was killed, if it is there: the home is ours
	if err := os.RemoveAll(work); err != nil {
		return result, fmt.Errorf("removing a backup that was interrupted: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.MkdirAll(filepath.Join(work, "data"), 0o700); err != nil {
		return result, fmt.Errorf("making a folder for the backup: %w", err)
	}
	m, err := databases(filepath.Join(work, "data"))
	if err != nil {
		return result, err
	}
	for from, to := range map[string]string{h.Config(): ConfigFile, h.Genesis(): "config/genesis.json"} {
		if err := copyFile(from, filepath.Join(work, to), nil); err != nil {
			return result, err
		}
	}
	m.Format, m.Version, m.Created, m.ChainID, m.Network = backupFormat, version, time.Now().UTC().Truncate(time.Second), network.ChainID, network.ID.String()

	final := filepath.Join(request.Folder, backupName(m))
	if _, err := os.Lstat(final); err == nil {
		return result, fmt.Errorf("%s exists: this height is backed up", final)
	}
	partial := final + partialSuffix
	if err := os.RemoveAll(partial); err != nil {
		return result, fmt.Errorf("removing a backup that was interrupted: %w", err)
	}
	if err := os.MkdirAll(request.Folder, 0o700); err != nil {
		return result, fmt.Errorf("making the folder of backups: %w", err)
	}
	done := false
	defer func() {
		if !done {
			_ = os.RemoveAll(partial) // an error is being returned; the next backup removes it too
		}
	}()
	if err := files(work, func(path string) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("backing up: %w", err)
		}
		sum := sha256.New()
		counted := &tally{w: sum}
		if err := linkOrCopy(filepath.Join(work, path), filepath.Join(partial, path), counted); err != nil {
			return err
		}
		m.Files = append(m.Files, BackupFile{filepath.ToSlash(path), counted.n, hex.EncodeToString(sum.Sum(nil))})
		return nil
	}); err != nil {
		return result, err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return result, fmt.Errorf("encoding the manifest: %w", err)
	}
	if err := copyFrom(bytes.NewReader(text), filepath.Join(partial, manifestFile), nil); err != nil {
		return result, err
	}
	failpoint.Here("backup.write")
	if err := syncFolders(partial); err != nil {
		return result, err
	}
	// A crash before this line leaves a folder that no command takes for a backup.
	failpoint.Here("backup.written")
	if err := os.Rename(partial, final); err != nil {
		return result, fmt.Errorf("naming the backup: %w", err)
	}
	done = true
	if err := syncFolder(request.Folder); err != nil {
		return result, err
	}
	result = m.result(final)
	if request.Keep > 0 {
		result.Removed, err = prune(request.Folder, m, request.Keep)
	}
	return result, err
}

// backupName sorts by height.
func backupName(m BackupManifest) string { return fmt.Sprintf("%s-%012d", m.ChainID, m.Height) }

// prune removes the oldest backups of a network from a folder, until so many are left. What is no backup of this network stays.
func prune(folder string, of BackupManifest, keep int) (removed []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("looking for older backups: %w", err)
	}
	type old struct {
		path   string
		height uint64
	}
	var backups []old
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if m, err := readManifest(path); err == nil && m.Network == of.Network && backupName(m) == e.Name() {
			backups = append(backups, old{path, m.Height})
		}
	}
	slices.SortFunc(backups, func(a, b old) int { return cmp.Compare(b.height, a.height) })
	for _, b := range backups[min(keep, len(backups)):] {
		// The manifest first: what is left by a crash is no backup any more.
		if err := errors.Join(os.Remove(filepath.Join(b.path, manifestFile)), os.RemoveAll(b.path)); err != nil {
			return removed, fmt.Errorf("removing an older backup: %w", err)
		}
		removed = append(removed, b.path)
	}
	return removed, nil
}

// safePath is what a manifest may name: nothing outside of its folder, and no key.
var safePath = regexp.MustCompile(`^(pacioli\.toml|config/genesis\.json|data/(app|blockstore\.db|state\.db|evidence\.db)/[A-Za-z0-9][A-Za-z0-9._-]*)$`)

func readManifest(folder string) (m BackupManifest, err error) {
	file, err := os.Open(filepath.Join(folder, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s is not a backup: it has no %s", folder, manifestFile)
	}
	if err != nil {
		return m, fmt.Errorf("reading the backup: %w", err)
	}
	defer file.Close()
	d := json.NewDecoder(io.LimitReader(file, maxManifest))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if m.Format != backupFormat {
		return m, fmt.Errorf("%s has format %q, this program knows %q", file.Name(), m.Format, backupFormat)
	}
	for i, f := range m.Files {
		if !safePath.MatchString(f.Path) || i > 0 && m.Files[i-1].Path >= f.Path {
			return m, fmt.Errorf("%s names file %q, which is not one of a backup, or not in order", file.Name(), f.Path)
		}
	}
	return m, nil
}

// take reads every file of a backup, compares it with the manifest, and copies it to where the function says, if it says.
func take(ctx context.Context, folder string, to func(path string) string) (BackupManifest, error) {
	m, err := readManifest(folder)
	if err != nil {
		return m, err
	}
	want := map[string]bool{manifestFile: true}
	for _, f := range m.Files {
		want[f.Path] = true
		if err := ctx.Err(); err != nil {
			return m, err
		}
		in, err := os.Open(filepath.Join(folder, filepath.FromSlash(f.Path)))
		if errors.Is(err, fs.ErrNotExist) {
			return m, fmt.Errorf("the backup is damaged: %s is missing", f.Path)
		}
		if err != nil {
			return m, fmt.Errorf("reading the backup: %w", err)
		}
		sum := sha256.New()
		counted := &tally{w: sum}
		if out := to(f.Path); out != "" {
			err = copyFrom(in, out, counted)
		} else if _, err = io.Copy(counted, in); err != nil {
			err = fmt.Errorf("reading the backup: %w", err)
		}
		in.Close()
		if err != nil {
			return m, err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 || counted.n != f.Bytes {
			return m, fmt.Errorf("the backup is damaged: %s has %d bytes and SHA-256 %s, the manifest says %d and %s", f.Path, counted.n, got, f.Bytes, f.SHA256)
		}
	}
	for _, needed := range []string{"config/genesis.json", "data/app/", "data/blockstore.db/", "data/state.db/"} {
		if !slices.ContainsFunc(m.Files, func(f BackupFile) bool { return strings.HasPrefix(f.Path, needed) }) {
			return m, fmt.Errorf("the backup is damaged: it has no %s", needed)
		}
	}
	return m, files(folder, func(path string) error {
		if !want[filepath.ToSlash(path)] {
			return fmt.Errorf("the backup is damaged: the manifest does not name %s, which is in its folder", path)
		}
		return nil
	})
}

// VerifyBackup compares every file with the manifest. deep opens a copy, in a folder beside it that is removed again, and checks
// every root and every rule of the ledger, as fsck does.
func VerifyBackup(ctx context.Context, folder string, deep bool, log *slog.Logger, progress func(string)) (result BackupResult, err error) {
	if !deep {
		m, err := take(ctx, folder, func(string) string { return "" })
		return m.result(folder), err
	}
	work, err := os.MkdirTemp(filepath.Dir(filepath.Clean(folder)), ".pacioli-verify-*")
	if err != nil {
		return result, fmt.Errorf("making a folder for the copy that is opened: %w", err)
	}
	defer os.RemoveAll(work)
	m, err := take(ctx, folder, func(path string) string { return filepath.Join(work, filepath.FromSlash(path)) })
	if err != nil {
		return result, err
	}
	result = m.result(folder)
	state, err := Home(work).checkState(ctx, DefaultConfig(), log, progress)
	if err != nil {
		return result, err
	}
	result.State = &state
	if state.Height != m.Height || !strings.EqualFold(state.AppHash, m.AppHash) { // older backups have it in capitals
		return result, fmt.Errorf("the backup's state is of height %d with AppHash %s, the manifest says %d and %s", state.Height, state.AppHash, m.Height, m.AppHash)
	}
	databases := cometdb.Provider(Home(work).Data(), cometdb.Options{Logger: log})
	defer func() { err = errors.Join(err, databases.Close()) }()
	blocks, states, err := openComet(databases)
	if err != nil {
		return result, err
	}
	current, err := states.Load()
	if err != nil {
		return result, fmt.Errorf("reading CometBFT's state: %w", err)
	}
	app, block, at := int64(m.Height), blocks.Height(), current.LastBlockHeight
	if block < app || block > app+1 || at > app || at < app-1 || block > at+1 {
		return result, fmt.Errorf("the backup is not of one moment: the application is at height %d, CometBFT's blocks at %d, its state at %d", app, block, at)
	}
	if network, err := stateNetwork(Home(work), log); err != nil || network.ID.String() != m.Network {
		return result, errors.Join(fmt.Errorf("the state belongs to network %s, the manifest says %s", network.ID, m.Network), err)
	}
	return result, nil
}

// stateNetwork reads which network the state in a home belongs to.
func stateNetwork(h Home, log *slog.Logger) (network ledger.Network, err error) {
	s, err := h.openStore(DefaultConfig(), log)
	if err != nil {
		return network, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	view := s.View()
	defer view.Close()
	row, err := view.Get(ledger.NetworkRow())
	if err != nil {
		return network, err
	}
	return ledger.DecodeNetwork(row)
}

// The folders of a restore, below data. A restore that was interrupted has changed nothing that a node reads until restoreReady
// is there, and with the name all that is to come; from then on whoever locks the home finishes it.
const (
	restorePartial = "restore.partial"
	restoreReady   = "restore.ready"
)

// hasNoData refuses a home in which a restore would overwrite something.
func (h Home) hasNoData() error {
	for _, name := range []string{"app", "blockstore.db", "state.db", "evidence.db", "cs.wal"} {
		path := filepath.Join(h.Data(), name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: a restore overwrites nothing. Move what is in %s away, all but %s", path, h.Data(), filepath.Base(h.SignState()))
		}
	}
	return nil
}

// Restore puts a backup into a home that has no data: a new one, or one whose disk was lost. It never brings back keys or a sign
// state, and changes none that is there. newKeys makes keys for a node that has none; such a node is not a validator.
func (h Home) Restore(ctx context.Context, folder string, newKeys bool, log *slog.Logger) (result BackupResult, err error) {
	release, err := h.lockData()
	if err != nil {
		return result, err
	}
	defer release()
	if err := h.hasNoData(); err != nil {
		return result, err
	}
	has := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	if newKeys && (has(h.ValidatorKey()) || has(h.NodeKey()) || has(h.SignState())) {
		return result, fmt.Errorf("%s has keys or a sign state: without --new-keys they stay", h)
	}
	partial := filepath.Join(h.Data(), restorePartial)
	if err := os.RemoveAll(partial); err != nil {
		return result, fmt.Errorf("removing a restore that was interrupted: %w", err)
	}
	ready := false
	defer func() {
		if !ready {
			_ = os.RemoveAll(partial) // an error is being returned; the next restore removes it too
		}
	}()
	m, err := take(ctx, folder, func(path string) string { return filepath.Join(partial, filepath.FromSlash(path)) })
	if err != nil {
		return result, err
	}
	doc, err := genesis.Load(filepath.Join(partial, "config", "genesis.json"))
	if err != nil {
		return result, err
	}
	if has(h.Genesis()) {
		there, err := genesis.Load(h.Genesis())
		if err != nil {
			return result, err
		}
		want, err1 := cmtjson.Marshal(doc)
		got, err2 := cmtjson.Marshal(there)
		if err := errors.Join(err1, err2); err != nil {
			return result, err
		}
		if !bytes.Equal(want, got) {
			return result, fmt.Errorf("%s describes chain %s, the backup is of chain %s with another genesis: choose the right home", h.Genesis(), there.ChainID, doc.ChainID)
		}
	}
	if err := syncFolders(partial); err != nil {
		return result, err
	}
	if newKeys {
		if err := h.makeKeys(m.Height); err != nil {
			return result, err
		}
	}
	step("copied")
	// A crash before this line leaves the home as it was, but for keys that were asked for and a folder that nobody reads.
	if err := os.Rename(partial, filepath.Join(h.Data(), restoreReady)); err != nil {
		return result, fmt.Errorf("restoring: %w", err)
	}
	ready = true
	step("ready")
	if err := h.finishRestore(); err != nil {
		return result, fmt.Errorf("%w; the next command on this home goes on", err)
	}
	result = m.result(folder)
	switch {
	case !has(h.ValidatorKey()):
		result.Next = append(result.Next, "put config/node_key.json and config/priv_validator_key.json back from where you keep them, or restore with --new-keys for a node that is no validator")
	case !has(h.SignState()):
		result.Next = append(result.Next, fmt.Sprintf("this key has no sign state: before it may sign, see \"Lost sign state\" in docs/OPERATING.md; "+
			"the node refuses to start until then. Never take %s from an old copy", filepath.Base(h.SignState())))
	}
	return result, nil
}

// makeKeys gives a home keys that nobody has seen. The sign state forbids what the restored chain has behind it, in case somebody
// exchanges the key for one that has signed there.
func (h Home) makeKeys(height uint64) error {
	for _, dir := range []string{filepath.Dir(h.NodeKey()), h.Data()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the home folder: %w", err)
		}
	}
	if _, err := p2p.LoadOrGenNodeKey(h.NodeKey()); err != nil {
		return fmt.Errorf("making the node key: %w", err)
	}
	pv := privval.NewFilePV(cmted25519.GenPrivKey(), h.ValidatorKey(), h.SignState())
	pv.LastSignState.Height, pv.LastSignState.Step = int64(height), 3
	pv.Save()
	return nil
}

// restoreStep is called between the steps of a restore; nil but in tests, which end it there.
var restoreStep func(string)

func step(name string) {
	if restoreStep != nil {
		restoreStep(name)
	}
}

// finishRestore moves what a restore has made ready to its place. It may be interrupted and called again. A file that the home
// has is the operator's and stays.
func (h Home) finishRestore() error {
	ready := filepath.Join(h.Data(), restoreReady)
	if _, err := os.Lstat(ready); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	move := func(from, to string) error {
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			return nil // moved before an interruption
		}
		if _, err := os.Lstat(to); err == nil {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		step("before " + filepath.Base(to))
		if err := os.Rename(from, to); err != nil {
			return err
		}
		return syncFolder(filepath.Dir(to))
	}
	err := move(filepath.Join(ready, ConfigFile), h.Config())
	if err == nil {
		err = move(filepath.Join(ready, "config", "genesis.json"), h.Genesis())
	}
	for _, name := range []string{"evidence.db", "state.db", "blockstore.db", "app"} {
		if err == nil {
			err = move(filepath.Join(ready, "data", name), filepath.Join(h.Data(), name))
		}
	}
	step("all moved")
	if err == nil {
		err = os.RemoveAll(ready)
	}
	if err == nil {
		err = syncFolder(h.Data())
	}
	if err != nil {
		return fmt.Errorf("moving what was restored to its place: %w", err)
	}
	return nil
}

// files calls f with the path of every file below a folder, in order.
func files(folder string, f func(relative string) error) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading %s: %w", folder, err)
		}
		if entry.IsDir() {
			return nil
		}
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		return f(relative)
	})
}

// tally counts what is written through it.
type tally struct {
	w io.Writer
	n int64
}

func (c *tally) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// linkOrCopy makes a second name of a file, or a copy on another file system, and has also, which may be nil, see what is in it.
func linkOrCopy(from, to string, also io.Writer) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	if os.Link(from, to) != nil {
		return copyFile(from, to, also)
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	defer in.Close()
	if _, err := io.Copy(also, in); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return nil
}

func copyFile(from, to string, also io.Writer) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	defer in.Close()
	return copyFrom(in, to, also)
}

// copyFrom writes a new file and waits until it is on the disk.
func copyFrom(in io.Reader, to string, also io.Writer) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	defer func() {
		if cerr := out.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("writing: %w", cerr)
		}
	}()
	if also != nil {
		in = io.TeeReader(in, also)
	}
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// syncFolders makes the names of all files below a folder durable.
func syncFolders(folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return syncFolder(path)
	})
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing a folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return nil
}
