package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A history is a chain of blocks that depends on nothing but its parameters, so that two stores can be given the same
// blocks whatever happened to them.
type history struct {
	seed   int64
	keys   int // how many different keys there are
	writes int // writes per block
	value  int // bytes per value
}

// testKey gives the i-th key: mostly of the shards, some of every other kind.
func testKey(i int) []byte {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	kind := byte(0x01 + i%3)
	switch i % 20 {
	case 15:
		kind = 0x70
	case 16:
		kind = 0x40
	case 17:
		kind = 0x50
	case 18:
		kind = 0x60
	case 19:
		kind = 0x80
	}
	return append([]byte{kind}, h[:20]...)
}

// block gives the writes of a height: updates, insertions, deletions, and writes that change nothing.
func (h history) block(height uint64) []Write {
	rng := rand.New(rand.NewSource(h.seed<<20 + int64(height)))
	picked := make(map[int]bool)
	var w []Write
	for range h.writes {
		i := rng.Intn(h.keys)
		if picked[i] {
			continue
		}
		picked[i] = true
		var v []byte
		switch rng.Intn(10) {
		case 0: // delete, present or not
		case 1: // the key's fixed value: often what is there
			v = bytes.Repeat([]byte{byte(i) | 1}, h.value)
		default:
			v = make([]byte, h.value)
			rng.Read(v)
		}
		w = append(w, Write{Key: testKey(i), Value: v})
	}
	sortWrites(w)
	return w
}

func (h history) index(height uint64) []Write {
	return []Write{{Key: heightKey('h', height), Value: []byte(fmt.Sprint("block ", height))}}
}

func (h history) note(height uint64) []byte { return fmt.Appendf(nil, "note of %d", height) }

func sortWrites(w []Write) {
	slices.SortFunc(w, func(a, b Write) int { return bytes.Compare(a.Key, b.Key) })
}

// model is the state as a plain map.
type model map[string]string

func (m model) apply(writes []Write) {
	for _, w := range writes {
		if w.Value == nil {
			delete(m, string(w.Key))
		} else {
			m[string(w.Key)] = string(w.Value)
		}
	}
}

func small(fs vfs.FS) Options {
	return Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, TreeCacheNodes: 2000}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { t.Errorf("store broke: %v", err) }
	}
	s, err := Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// mustRun stages and commits heights from..to of the history and gives the AppHashes.
func mustRun(t testing.TB, s *Store, h history, from, to uint64) [][]byte {
	t.Helper()
	var roots [][]byte
	for height := from; height <= to; height++ {
		root, err := s.Stage(height, h.block(height), h.index(height), h.note(height))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(root, s.AppHash()) || s.Height() != height {
			t.Fatalf("staged %x at height %d, committed %x at %d", root, height, s.AppHash(), s.Height())
		}
		roots = append(roots, root)
	}
	return roots
}

// rows reads all flat rows.
func rows(t testing.TB, s *Store) model {
	t.Helper()
	v := s.View()
	defer v.Close()
	m := make(model)
	if err := v.Range(nil, nil, func(k, val []byte) error { m[string(k)] = string(val); return nil }); err != nil {
		t.Fatal(err)
	}
	return m
}

func sameRows(t testing.TB, got, want model) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok {
			t.Fatalf("row %x is missing", k)
		} else if g != v {
			t.Fatalf("row %x is %x, want %x", k, g, v)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Fatalf("row %x should not be there", k)
		}
	}
}

func mustBeSound(t testing.TB, s *Store) Report {
	t.Helper()
	rep, err := s.Check(context.Background(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK() {
		t.Fatalf("findings at height %d: %d and %d more, the first: %s", rep.Height, len(rep.Findings), rep.Omitted, rep.Findings[0])
	}
	return rep
}

// hookFS calls hooks around every operation that changes the disk. A hook's error becomes the operation's: from before,
// the operation did not happen; from after, it did.
type hookFS struct {
	vfs.FS
	mu            sync.Mutex
	before, after func(op string) error
}

func (f *hookFS) set(before, after func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *hookFS) do(op string, fn func() error) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return err
		}
	}
	if err := fn(); err != nil {
		return err
	}
	if after != nil {
		return after(op)
	}
	return nil
}

func (f *hookFS) file(op, name string, open func() (vfs.File, error)) (file vfs.File, err error) {
	err = f.do(op+" "+name, func() error {
		file, err = open()
		return err
	})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	return &hookFile{File: file, fs: f, name: name}, nil
}

func (f *hookFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file("create", name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *hookFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.file("open", name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *hookFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	// Not MemFS.ReuseForWrite: it takes a read lock twice, and a crash clone that comes between waits for ever.
	return f.file("reuse", to, func() (vfs.File, error) {
		if err := f.FS.Rename(from, to); err != nil {
			return nil, err
		}
		return f.FS.OpenReadWrite(to, c)
	})
}

func (f *hookFS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &hookFile{File: d, fs: f, name: name}, nil
}

func (f *hookFS) Rename(from, to string) error {
	return f.do("rename "+to, func() error { return f.FS.Rename(from, to) })
}

func (f *hookFS) Link(from, to string) error {
	return f.do("link "+to, func() error { return f.FS.Link(from, to) })
}

func (f *hookFS) Remove(name string) error {
	return f.do("remove "+name, func() error { return f.FS.Remove(name) })
}

func (f *hookFS) Unwrap() vfs.FS { return f.FS }

type hookFile struct {
	vfs.File
	fs   *hookFS
	name string
}

func (f *hookFile) Write(b []byte) (n int, err error) {
	err = f.fs.do("write "+f.name, func() error { n, err = f.File.Write(b); return err })
	return n, err
}

func (f *hookFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.fs.do("write "+f.name, func() error { n, err = f.File.WriteAt(b, at); return err })
	return n, err
}

func (f *hookFile) Sync() error { return f.fs.do("sync "+f.name, f.File.Sync) }

func (f *hookFile) SyncData() error { return f.fs.do("sync "+f.name, f.File.SyncData) }

func (f *hookFile) SyncTo(n int64) (full bool, err error) {
	err = f.fs.do("sync "+f.name, func() error { full, err = f.File.SyncTo(n); return err })
	return full, err
}
