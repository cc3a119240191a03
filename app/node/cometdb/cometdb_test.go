package cometdb

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	dbm "github.com/cometbft/cometbft-db"
	"github.com/cometbft/cometbft/config"
	"pgregory.net/rapid"
)

func mustOpen(t testing.TB, fs vfs.FS) *DB {
	t.Helper()
	db, err := Provider("data", Options{FS: fs}).Open(&config.DBContext{ID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return db.(*DB)
}

func ok(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Keys and values that no database may take, in every call that takes one.
func TestRefuses(t *testing.T) {
	db := mustOpen(t, vfs.NewMem())
	defer func() { ok(t, db.Close()) }()
	b := db.NewBatch()
	defer b.Close()
	for _, key := range [][]byte{nil, {}} {
		_, got := db.Get(key)
		_, has := db.Has(key)
		for i, err := range []error{got, has, db.Set(key, []byte{1}), db.SetSync(key, []byte{1}), db.Delete(key),
			db.DeleteSync(key), b.Set(key, []byte{1}), b.Delete(key)} {
			if !errors.Is(err, errKeyEmpty) {
				t.Errorf("call %d with key %v: %v", i, key, err)
			}
		}
	}
	for i, err := range []error{db.Set([]byte{1}, nil), db.SetSync([]byte{1}, nil), b.Set([]byte{1}, nil)} {
		if !errors.Is(err, errValueNil) {
			t.Errorf("call %d with a nil value: %v", i, err)
		}
	}
	if _, err := db.Iterator([]byte{}, nil); err == nil {
		t.Error("iterator with an empty start")
	}
	if _, err := db.ReverseIterator(nil, []byte{}); err == nil {
		t.Error("reverse iterator with an empty end")
	}
	ok(t, db.Set([]byte{1}, []byte{})) // an empty value is a value
	if v, err := db.Get([]byte{1}); err != nil || v == nil || len(v) != 0 {
		t.Errorf("empty value: %v, %v", v, err)
	}
	if has, err := db.Has([]byte{1}); err != nil || !has {
		t.Errorf("has the empty value: %t, %v", has, err)
	}
	if v, err := db.Get([]byte{2}); err != nil || v != nil {
		t.Errorf("absent: %v, %v", v, err)
	}
}

func TestBatch(t *testing.T) {
	db := mustOpen(t, vfs.NewMem())
	defer func() { ok(t, db.Close()) }()
	ok(t, db.Set([]byte("a"), []byte("1")))
	for _, sync := range []bool{false, true} {
		b := db.NewBatch()
		ok(t, b.Set([]byte("a"), []byte("2")), b.Delete([]byte("a")), b.Set([]byte("b"), []byte("3")))
		if v, _ := db.Get([]byte("b")); v != nil && !sync {
			t.Error("a batch is visible before it is written")
		}
		write := b.Write
		if sync {
			write = b.WriteSync
		}
		ok(t, write())
		for i, err := range []error{b.Set([]byte("a"), []byte("2")), b.Delete([]byte("a")), b.Write(), b.WriteSync()} {
			if !errors.Is(err, errBatchClosed) {
				t.Errorf("call %d on a written batch: %v", i, err)
			}
		}
		ok(t, b.Close(), b.Close())
		a, _ := db.Get([]byte("a"))
		v, _ := db.Get([]byte("b"))
		if a != nil || string(v) != "3" {
			t.Errorf("after the batch: a is %q, b is %q", a, v)
		}
	}
	b := db.NewBatch()
	ok(t, b.Close(), b.Close())
	if err := b.Write(); !errors.Is(err, errBatchClosed) {
		t.Errorf("write of a closed batch: %v", err)
	}
	ok(t, db.NewBatch().WriteSync())
}

func collect(t rapid.TB, it dbm.Iterator, err error) (keys []string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for ; it.Valid(); it.Next() {
		keys = append(keys, string(it.Key())+"="+string(it.Value()))
	}
	if err := errors.Join(it.Error(), it.Close(), it.Close()); err != nil {
		t.Fatal(err)
	}
	return keys
}

// Every call gives what cometbft-db's memory database gives.
func TestLikeMemDB(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Provider("data", Options{FS: vfs.NewMem()})
		db, err := p.Open(&config.DBContext{ID: "test"})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		mem := dbm.NewMemDB()
		key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 0xfe, 0xff}), 1, 3)
		bound := rapid.OneOf(key, rapid.Just([]byte(nil)))
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value")
				if err := errors.Join(db.Set(k, v), mem.Set(k, v)); err != nil {
					t.Fatal(err)
				}
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if err := errors.Join(db.DeleteSync(k), mem.DeleteSync(k)); err != nil {
					t.Fatal(err)
				}
			},
			"batch": func(t *rapid.T) {
				b, m := db.NewBatch(), mem.NewBatch()
				for _, k := range rapid.SliceOfN(key, 0, 5).Draw(t, "keys") {
					if len(k) == 2 {
						_ = errors.Join(b.Delete(k), m.Delete(k))
					} else {
						_ = errors.Join(b.Set(k, k), m.Set(k, k))
					}
				}
				if err := errors.Join(b.WriteSync(), m.WriteSync()); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				if err := db.Compact(bound.Draw(t, "start"), bound.Draw(t, "end")); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				k := key.Draw(t, "get")
				got, err1 := db.Get(k)
				want, err2 := mem.Get(k)
				if err1 != nil || err2 != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
					t.Fatalf("%x is %x, %v; want %x, %v", k, got, err1, want, err2)
				}
				start, end := bound.Draw(t, "start"), bound.Draw(t, "end")
				it, err := db.Iterator(start, end)
				mi, merr := mem.Iterator(start, end)
				if s, e := it.Domain(); !bytes.Equal(s, start) || !bytes.Equal(e, end) || (s == nil) != (start == nil) || (e == nil) != (end == nil) {
					t.Fatalf("domain [%x, %x), want [%x, %x)", s, e, start, end)
				}
				if got, want := collect(t, it, err), collect(t, closeOnce{mi}, merr); !slices.Equal(got, want) {
					t.Fatalf("[%x, %x): %q, want %q", start, end, got, want)
				}
				it, err = db.ReverseIterator(start, end)
				mi, merr = mem.ReverseIterator(start, end)
				if got, want := collect(t, it, err), collect(t, closeOnce{mi}, merr); !slices.Equal(got, want) {
					t.Fatalf("[%x, %x) reversed: %q, want %q", start, end, got, want)
				}
			},
		})
	})
}

// closeOnce lets collect close a memory iterator twice, too.
type closeOnce struct{ dbm.Iterator }

func TestIteratorPanicsWhenDone(t *testing.T) {
	db := mustOpen(t, vfs.NewMem())
	defer func() { ok(t, db.Close()) }()
	ok(t, db.Set([]byte{1}, []byte{1}))
	it, err := db.Iterator(nil, nil)
	ok(t, err)
	defer it.Close()
	k := it.Key()
	it.Next()
	if k[0] != 1 || it.Valid() {
		t.Fatalf("key %x, valid %t", k, it.Valid())
	}
	for i, fn := range []func(){it.Next, func() { it.Key() }, func() { it.Value() }} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("call %d did not panic", i)
				}
			}()
			fn()
		}()
	}
}

// Power fails after a write: what was written with sync is there, always; of what was not, a beginning may be.
func TestSyncIsDurable(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		for i, write := range []func(db *DB, k, v []byte) error{
			func(db *DB, k, v []byte) error { return db.SetSync(k, v) },
			func(db *DB, k, v []byte) error {
				b := db.NewBatch()
				return errors.Join(b.Set(k, v), b.WriteSync())
			},
			func(db *DB, k, v []byte) error { // an empty synced batch carries what was written before it
				return errors.Join(db.Set(k, v), db.NewBatch().WriteSync())
			},
			func(db *DB, k, v []byte) error {
				return errors.Join(db.Set([]byte("gone"), v), db.Set(k, v), db.DeleteSync([]byte("gone")))
			},
		} {
			mem := vfs.NewCrashableMem()
			db := mustOpen(t, mem)
			for n := range 20 {
				k := fmt.Appendf(nil, "key%02d", n)
				ok(t, write(db, k, bytes.Repeat([]byte{byte(n)}, 100)))
				ok(t, db.Set(fmt.Appendf(nil, "loose%02d", n), []byte{1}))
				crashed := mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent,
					RNG: rand.New(rand.NewPCG(uint64(n), 0))}))
				for m := range n + 1 {
					if v, err := crashed.Get(fmt.Appendf(nil, "key%02d", m)); err != nil || len(v) != 100 {
						t.Fatalf("write %d, %d%%: key %d of %d is lost: %x, %v", i, percent, m, n, v, err)
					}
				}
				if v, _ := crashed.Get([]byte("gone")); v != nil {
					t.Fatalf("write %d: a synced delete is lost", i)
				}
				ok(t, crashed.Close())
			}
			ok(t, db.Close())
		}
	}
}

// The sync test can fail: without sync, a crash loses the row.
func TestUnsyncedMayBeLost(t *testing.T) {
	mem := vfs.NewCrashableMem()
	db := mustOpen(t, mem)
	ok(t, db.Set([]byte("loose"), []byte{1}))
	crashed := mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	if v, err := crashed.Get([]byte("loose")); err != nil || v != nil {
		t.Errorf("an unsynced row survived a crash that kept nothing unsynced: %x, %v", v, err)
	}
	ok(t, crashed.Close(), db.Close())
}

// A failed sync is reported by the call, and by every later one; nothing is swallowed.
func TestFailedSync(t *testing.T) {
	for i, write := range []func(db *DB) error{
		func(db *DB) error { return db.SetSync([]byte("k"), []byte("v")) },
		func(db *DB) error { return db.DeleteSync([]byte("k")) },
		func(db *DB) error {
			b := db.NewBatch()
			return errors.Join(b.Set([]byte("k"), []byte("v")), b.WriteSync())
		},
	} {
		toggle := errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Writes)}
		told := make(chan struct{}, 2)
		p := Provider("data", Options{FS: errorfs.Wrap(vfs.NewMem(), &toggle),
			OnFatal: func(name string, err error) {
				if told <- struct{}{}; name != "test" || !errors.Is(err, ErrBroken) {
					t.Errorf("told of %s: %v", name, err)
				}
			}})
		d, err := p.Open(&config.DBContext{ID: "test"})
		ok(t, err)
		db := d.(*DB)
		toggle.On()
		// Pebble means the process to end within the call, which so may never return; it must not return nil.
		returned := make(chan error, 1)
		go func() { returned <- write(db) }()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("write %d on a failing disk: nobody was told", i)
		}
		select {
		case err := <-returned:
			if !errors.Is(err, ErrBroken) {
				t.Errorf("write %d on a failing disk: %v", i, err)
			}
		case <-time.After(50 * time.Millisecond):
		}
		toggle.Off()
		_, got := db.Get([]byte("k"))
		_, it := db.Iterator(nil, nil)
		for j, err := range []error{got, it, db.Set([]byte("k"), []byte("v")), db.Delete([]byte("k")), db.NewBatch().Write(), db.Compact(nil, nil)} {
			if !errors.Is(err, ErrBroken) {
				t.Errorf("write %d, then call %d: %v", i, j, err)
			}
		}
		if n := len(told); n != 0 {
			t.Errorf("told %d times more", n)
		}
	}
}

// The node leaves tx_index open: closing all closes it, and nothing that was written is lost.
func TestCloseAll(t *testing.T) {
	mem := vfs.NewCrashableMem()
	p := Provider("data", Options{FS: mem})
	names := []string{"blockstore", "state", "evidence", "tx_index"}
	for _, name := range names {
		db, err := p.Open(&config.DBContext{ID: name})
		ok(t, err, db.Set([]byte(name), []byte{1}))
		again, err := p.Open(&config.DBContext{ID: name})
		if ok(t, err); again != db {
			t.Errorf("%s was opened twice", name)
		}
		if name == "state" {
			ok(t, db.Close(), db.Close())
			if _, err := db.Get([]byte("state")); !errors.Is(err, ErrClosed) {
				t.Errorf("get on a closed database: %v", err)
			}
			if err := db.NewBatch().Write(); !errors.Is(err, ErrClosed) {
				t.Errorf("batch on a closed database: %v", err)
			}
		}
	}
	for _, name := range []string{"", "../x", "a/b"} {
		if _, err := p.Open(&config.DBContext{ID: name}); err == nil {
			t.Errorf("opened %q", name)
		}
	}
	ok(t, p.Close(), p.Close())
	if _, err := p.Open(&config.DBContext{ID: "state"}); !errors.Is(err, ErrClosed) {
		t.Errorf("open after close: %v", err)
	}
	p = Provider("data", Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})})
	for _, name := range names {
		db, err := p.Open(&config.DBContext{ID: name})
		ok(t, err)
		if v, err := db.Get([]byte(name)); err != nil || len(v) != 1 {
			t.Errorf("%s after close and a crash: %x, %v", name, v, err)
		}
	}
	ok(t, p.Close())
}
