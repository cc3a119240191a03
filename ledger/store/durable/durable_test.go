package durable

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestMarkerNeedsManifest: power fails before each operation on the disk while a database is opened a second time, and every
// name that was not synced survives or not, whatever the order. The database opens, and has what was synced.
func TestMarkerNeedsManifest(t *testing.T) {
	broken := func(wrap func(vfs.FS) vfs.FS) (failed, crashes int) {
		mem := vfs.NewCrashableMem()
		var mu sync.Mutex
		var clones []*vfs.MemFS
		var recording atomic.Bool
		rng := rand.New(rand.NewPCG(1, 0))
		hook := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !recording.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for range 48 {
				clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
			}
			return nil
		}))
		options := func(fs vfs.FS) *pebble.Options {
			return &pebble.Options{FS: wrap(fs), FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}}
		}
		db, err := pebble.Open("db", options(hook))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		recording.Store(true)
		if db, err = pebble.Open("db", options(hook)); err != nil {
			t.Fatal(err)
		}
		recording.Store(false)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for _, c := range clones {
			db, err := pebble.Open("db", options(c))
			if err != nil {
				failed++
				continue
			}
			if v, closer, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
				t.Errorf("after a crash: %q, %v", v, err)
			} else {
				closer.Close()
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
		return failed, len(clones)
	}
	if failed, crashes := broken(Markers); failed > 0 {
		t.Errorf("%d of %d crashes left a database that cannot be opened", failed, crashes)
	}
	if failed, crashes := broken(func(fs vfs.FS) vfs.FS { return fs }); failed == 0 {
		t.Errorf("Pebble by itself survives all of %d crashes: Markers may have become needless", crashes)
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(format)
}
