package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

const (
	manifestName = "manifest"
	buildPrefix  = ".building-"
	partSuffix   = ".part"
)

func chunkName(i int) string { return fmt.Sprintf("%06d.chunk", i) }

// Folder holds a node's snapshots, each in a folder named by its height. Safe for concurrent use, but Take, which only one
// goroutine may call.
type Folder struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	have []*Manifest // ascending by height
}

// OpenFolder opens or makes a folder, and removes what an interrupted Take has left.
func OpenFolder(path string, log *slog.Logger) (*Folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of snapshots: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of snapshots: %w", err)
	}
	f := &Folder{path: path, log: log}
	for _, e := range entries {
		at := filepath.Join(path, e.Name())
		if strings.HasPrefix(e.Name(), buildPrefix) {
			if err := os.RemoveAll(at); err != nil {
				return nil, fmt.Errorf("removing a snapshot that was not finished: %w", err)
			}
			continue
		}
		if _, err := strconv.ParseUint(e.Name(), 10, 64); err != nil || !e.IsDir() {
			continue // not ours
		}
		m, err := Read(at)
		if err != nil {
			log.Warn("leave out a snapshot that cannot be read; remove it", "folder", at, "err", err)
			continue
		}
		f.have = append(f.have, m)
	}
	slices.SortFunc(f.have, func(a, b *Manifest) int { return compare(a.Height(), b.Height()) })
	return f, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// List returns what a folder of snapshots holds, the newest first, and changes nothing in it.
func List(path string) ([]Info, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []Info{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the folder of snapshots: %w", err)
	}
	list := []Info{}
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 64); err != nil {
			continue
		}
		m, err := Read(filepath.Join(path, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is being removed
		}
		if err != nil {
			return nil, err
		}
		list = append(list, m.Info())
	}
	slices.SortFunc(list, func(a, b Info) int { return compare(b.Height, a.Height) })
	return list, nil
}

// Read reads the manifest of a snapshot's folder.
func Read(path string) (*Manifest, error) {
	b, err := readBounded(filepath.Join(path, manifestName), MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	m, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func readBounded(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", name, info.Size(), limit)
	}
	return os.ReadFile(name)
}

// ReadChunk reads a chunk of a snapshot's folder, unchecked.
func ReadChunk(path string, index int) ([]byte, error) {
	return readBounded(filepath.Join(path, chunkName(index)), ChunkBytes)
}

// Path of the snapshot of a height.
func (f *Folder) Path(height uint64) string {
	return filepath.Join(f.path, strconv.FormatUint(height, 10))
}

// List returns the snapshots, the newest first.
func (f *Folder) List() []*Manifest {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.Clone(f.have)
	slices.Reverse(list)
	return list
}

// Manifest of a height, nil when there is none.
func (f *Folder) Manifest(height uint64) *Manifest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.have {
		if m.Height() == height {
			return m
		}
	}
	return nil
}

// Chunk returns a chunk; nil when the folder does not have it. It is checked: a node must not hand on what its disk has
// changed, or its peers would take it for a liar.
func (f *Folder) Chunk(height uint64, index int) ([]byte, error) {
	m := f.Manifest(height)
	if m == nil || index < 0 || index >= len(m.Chunks) {
		return nil, nil
	}
	chunk, err := ReadChunk(f.Path(height), index)
	if errors.Is(err, fs.ErrNotExist) && f.Manifest(height) == nil {
		return nil, nil // it was removed meanwhile
	}
	if err == nil {
		err = m.Check(index, chunk)
	}
	if err != nil {
		return nil, fmt.Errorf("reading chunk %d of the snapshot of height %d: %w", index, height, err)
	}
	return chunk, nil
}

// Pace says how much of a processor making a snapshot takes: it rests for so many times as long as it has worked. 0 does
// not rest.
type Pace int

// Background is the pace beside a running node: a quarter of one processor at most.
const Background Pace = 3

// workMoment is how long it works between two rests: short beside a block.
const workMoment = 2 * time.Millisecond

// reserveBytes is what making a snapshot leaves free on the disk.
const reserveBytes = 512 << 20

// Take makes the snapshot of a view's state, which it does not close. It is there when Take returns nil; a crash leaves
// debris that OpenFolder removes. Before and while it writes it looks whether the disk has room.
func (f *Folder) Take(ctx context.Context, view *store.View, unixMillis uint64, pace Pace) (*Manifest, error) {
	began := time.Now()
	height := view.Height()
	fail := func(err error) (*Manifest, error) {
		return nil, fmt.Errorf("taking a snapshot of height %d: %w", height, err)
	}
	if m := f.Manifest(height); m != nil {
		return m, nil
	}
	tops, err := view.Tops()
	if err != nil {
		return fail(err)
	}
	row, err := view.Get(ledger.NetworkRow())
	if err != nil {
		return fail(err)
	}
	network, err := ledger.DecodeNetwork(row)
	if err != nil {
		return fail(err)
	}
	// A row takes some 100 bytes in a snapshot; what is really needed is looked at again with every chunk.
	if err := Room(f.path, reserveBytes+100*tops.Leaves()); err != nil {
		return fail(err)
	}
	m := &Manifest{UnixMillis: unixMillis, Network: network.ID, Tops: *tops}
	building := filepath.Join(f.path, buildPrefix+strconv.FormatUint(height, 10))
	if err := os.RemoveAll(building); err != nil {
		return fail(err)
	}
	if err := os.Mkdir(building, 0o700); err != nil {
		return fail(err)
	}
	err = f.write(ctx, view, m, building, pace)
	if err == nil {
		err = errors.Join(writeSynced(filepath.Join(building, manifestName), m.Encode()), syncFolder(building))
	}
	if err == nil {
		failpoint.Here("snapshot.written")
		err = os.RemoveAll(f.Path(height)) // one that could not be read
	}
	if err == nil {
		err = errors.Join(os.Rename(building, f.Path(height)), syncFolder(f.path))
	}
	if err != nil {
		return fail(errors.Join(err, os.RemoveAll(building)))
	}
	f.mu.Lock()
	f.have = append(f.have, m)
	slices.SortFunc(f.have, func(a, b *Manifest) int { return compare(a.Height(), b.Height()) })
	f.mu.Unlock()
	f.log.Info("take snapshot", "height", height, "chunks", len(m.Chunks), "bytes", m.Bytes, "rows", tops.Leaves(), "took", time.Since(began).Round(time.Millisecond))
	return m, nil
}

// RehearsedChunkBytes is ChunkBytes but in tests, which have small states and want many chunks. Every node of a network must
// have the same.
var RehearsedChunkBytes = ChunkBytes

// write writes the chunks: each holds as many whole records as fit.
func (f *Folder) write(ctx context.Context, view *store.View, m *Manifest, building string, pace Pace) error {
	chunk := make([]byte, 0, RehearsedChunkBytes)
	flush := func() error {
		if len(m.Chunks) == MaxChunks {
			return fmt.Errorf("the state is larger than %d chunks of %d bytes", MaxChunks, ChunkBytes)
		}
		if err := Room(f.path, reserveBytes); err != nil {
			return err
		}
		m.Bytes += uint64(len(chunk))
		m.Chunks = append(m.Chunks, sha256.Sum256(chunk))
		err := writeSynced(filepath.Join(building, chunkName(len(m.Chunks)-1)), chunk)
		chunk = chunk[:0]
		return err
	}
	worked := time.Now()
	err := view.Export(ctx, func(record []byte) error {
		if len(chunk) > 0 && len(chunk)+len(record) > RehearsedChunkBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		chunk = append(chunk, record...)
		if pace == 0 {
			return nil
		}
		if spent := time.Since(worked); spent > workMoment {
			select {
			case <-time.After(time.Duration(pace) * spent):
			case <-ctx.Done():
				return ctx.Err()
			}
			worked = time.Now()
		}
		return nil
	})
	if err == nil && len(chunk) > 0 {
		err = flush()
	}
	return err
}

// Keep removes all but the newest n snapshots.
func (f *Folder) Keep(n int) error {
	for {
		f.mu.Lock()
		if len(f.have) <= n {
			f.mu.Unlock()
			return nil
		}
		oldest := f.have[0]
		f.have = slices.Delete(f.have, 0, 1)
		f.mu.Unlock()
		// Renamed first: half a snapshot must not be taken for a whole one after a crash.
		gone := filepath.Join(f.path, buildPrefix+strconv.FormatUint(oldest.Height(), 10))
		if err := os.Rename(f.Path(oldest.Height()), gone); err != nil {
			return fmt.Errorf("removing the snapshot of height %d: %w", oldest.Height(), err)
		}
		if err := os.RemoveAll(gone); err != nil {
			return fmt.Errorf("removing the snapshot of height %d: %w", oldest.Height(), err)
		}
		f.log.Info("remove snapshot", "height", oldest.Height(), "kept", n)
	}
}

// ErrNoRoom is wrapped by the error of Room.
var ErrNoRoom = errors.New("make room")

// Room refuses when the disk of path has less free space than bytes.
func Room(path string, bytes uint64) error {
	free, err := FreeBytes(path)
	if err != nil {
		return err
	}
	if free < bytes {
		return fmt.Errorf("the disk of %s has %d MB free, and %d MB are needed: %w", path, free>>20, bytes>>20, ErrNoRoom)
	}
	return nil
}

// FreeBytes is what is left for this user on the disk of a folder. It is a variable for tests.
var FreeBytes = func(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("asking how much is free on the disk of %s: %w", dir, err)
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}

// writeSynced writes a file that is on the disk when it returns.
func writeSynced(name string, content []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		failpoint.Here("snapshot.write")
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Partial is a snapshot of which not all chunks have come: a folder with the manifest and the chunks that were verified. A
// process that is killed goes on with what is there.
type Partial struct {
	Path     string
	Manifest *Manifest
	have     []bool
	missing  int
}

// OpenPartial opens or makes the folder for a snapshot. What is in it of another snapshot is removed.
func OpenPartial(path string, m *Manifest) (*Partial, error) {
	p := &Partial{Path: path, Manifest: m, have: make([]bool, len(m.Chunks)), missing: len(m.Chunks)}
	if found, err := Read(path); err == nil && found.Hash() == m.Hash() {
		for i := range m.Chunks {
			// Read again: what a crash has left of a chunk may be anything.
			if chunk, err := ReadChunk(path, i); err == nil && m.Check(i, chunk) == nil {
				p.have[i] = true
				p.missing--
			}
		}
		return p, nil
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, fmt.Errorf("removing what was fetched of another snapshot: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder for the snapshot: %w", err)
	}
	if err := writeSynced(filepath.Join(path, manifestName), m.Encode()); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	return p, nil
}

// Missing is the number of chunks that have not come.
func (p *Partial) Missing() int { return p.missing }

// Has tells whether a chunk has come.
func (p *Partial) Has(index int) bool { return index >= 0 && index < len(p.have) && p.have[index] }

// Put takes a chunk. The error is ErrChunk where it is not the one that the manifest names.
func (p *Partial) Put(index int, chunk []byte) error {
	if err := p.Manifest.Check(index, chunk); err != nil {
		return err
	}
	if p.have[index] {
		return nil
	}
	name := filepath.Join(p.Path, chunkName(index))
	if err := os.WriteFile(name+partSuffix, chunk, 0o600); err != nil {
		return fmt.Errorf("writing chunk %d: %w", index, err)
	}
	if err := os.Rename(name+partSuffix, name); err != nil {
		return fmt.Errorf("writing chunk %d: %w", index, err)
	}
	p.have[index] = true
	p.missing--
	return nil
}

// Build builds a store in dir of a whole snapshot; with dir "" it only checks. note and index rows are the application's.
func Build(ctx context.Context, path string, m *Manifest, dir string, o store.Options, finish func(*store.Import) error, progress func(done, all int)) (err error) {
	i, err := store.NewImport(dir, o, &m.Tops)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	total := uint64(0)
	for n := range m.Chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk, err := ReadChunk(path, n)
		if err == nil {
			err = m.Check(n, chunk)
		}
		if err == nil {
			total += uint64(len(chunk))
			err = i.Apply(chunk)
		}
		if err != nil {
			return fmt.Errorf("chunk %d of %d: %w", n, len(m.Chunks), err)
		}
		if progress != nil {
			progress(n+1, len(m.Chunks))
		}
	}
	if total != m.Bytes {
		return fmt.Errorf("%w: %d bytes, the manifest says %d", ErrManifest, total, m.Bytes)
	}
	if finish == nil {
		return i.Finish(nil, nil)
	}
	return finish(i)
}
