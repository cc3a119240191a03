package store

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// twin is what a store that never crashed holds at each height.
type twin struct {
	h      history
	roots  map[uint64][]byte
	states map[uint64]model

	smallest int64 // bytes of the smallest batch
}

func newTwin(t *testing.T, h history, o Options, to uint64) twin {
	t.Helper()
	o.FS = vfs.NewMem()
	s := mustOpen(t, o)
	defer mustClose(t, s)
	w := twin{h, map[uint64][]byte{}, map[uint64]model{0: {}}, math.MaxInt64}
	for height := uint64(1); height <= to; height++ {
		w.roots[height] = mustRun(t, s, h, height, height)[0]
		w.smallest = min(w.smallest, s.Metrics().LastBatchBytes)
		w.states[height] = rows(t, s)
	}
	return w
}

// mustMatch opens what a crash left and compares it with the twin: a height between the acknowledged and the started,
// its root, every row, a sound store, and the same roots for what follows.
func (w twin) mustMatch(t *testing.T, fs vfs.FS, o Options, acked, started uint64, deep bool) {
	t.Helper()
	o.FS, o.OnFatal = fs, nil
	s, err := Open("db", o)
	if err != nil {
		t.Fatalf("after the crash: %v", err)
	}
	defer mustClose(t, s)
	height := s.Height()
	if height < acked || height > started {
		t.Fatalf("height %d is not between %d, acknowledged, and %d, started", height, acked, started)
	}
	if !bytes.Equal(s.AppHash(), w.roots[height]) {
		t.Fatalf("height %d has root %x, the twin's is %x", height, s.AppHash(), w.roots[height])
	}
	sameRows(t, rows(t, s), w.states[height])
	if deep {
		mustBeSound(t, s)
	}
	for next := height + 1; next <= started+1; next++ {
		if got := mustRun(t, s, w.h, next, next); !bytes.Equal(got[0], w.roots[next]) {
			t.Fatalf("height %d, after the crash, has root %x, the twin's is %x", next, got[0], w.roots[next])
		}
	}
	if deep {
		mustBeSound(t, s)
	}
}

// The crash window: enough blocks before it that the database flushes and compacts within it.
const crashFrom, crashTo = 9, 12

func crashHistory() (history, Options) {
	o := small(nil)
	o.KeepVersions, o.MemTableBytes = 4, 2<<20 // a few blocks: flushes fall into the window
	return history{seed: 10, keys: 1500, writes: 260, value: 250}, o
}

// crashStep 1 tries every operation, which takes half a minute: `make crashes`.
var crashStep = flag.Int("store.crashstep", 5, "TestCrashAtEveryWrite lets power fail before every n-th operation on the disk")

// Power fails before operations on the disk, keeping nothing, half, or all of what was not synced.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Run("blocks in the memtable", func(t *testing.T) { crashAtEveryWrite(t, 2<<20, *crashStep) })
	// A batch above half a memtable goes another way through Pebble, which swaps (and syncs) the log for it.
	t.Run("blocks too large for it", func(t *testing.T) { crashAtEveryWrite(t, 512<<10, 4**crashStep) })
}

func crashAtEveryWrite(t *testing.T, memTable int64, every int) {
	h, o := crashHistory()
	o.MemTableBytes = memTable
	w := newTwin(t, h, o, crashTo+2)
	if w.smallest < 100_000 {
		t.Fatalf("a batch has %d bytes: too small to be torn", w.smallest)
	}
	mem := vfs.NewCrashableMem()
	fs := &hookFS{FS: mem}
	o.FS = fs
	s := mustOpen(t, o)
	defer mustClose(t, s)
	mustRun(t, s, h, 1, crashFrom-1)

	type crash struct {
		fs             *vfs.MemFS
		op             string
		percent        int
		acked, started uint64
	}
	var mu sync.Mutex
	var crashes []crash
	var acked, started atomic.Uint64
	acked.Store(crashFrom - 1)
	started.Store(crashFrom - 1)
	rng := rand.New(rand.NewPCG(11, 0))
	ops := 0
	fs.set(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		ops++
		if ops%every != 0 {
			return nil
		}
		for _, percent := range []int{0, 50, 100} {
			a := acked.Load() // before the clone: what is acknowledged later may be missing from it
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			crashes = append(crashes, crash{clone, op, percent, a, started.Load()})
		}
		return nil
	}, nil)
	for height := uint64(crashFrom); height <= crashTo; height++ {
		if _, err := s.Stage(height, h.block(height), h.index(height), h.note(height)); err != nil {
			t.Fatal(err)
		}
		started.Store(height)
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		acked.Store(height)
		mu.Lock() // committed means on the disk, now
		crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{}), "return of Commit", 0, height, height})
		mu.Unlock()
		time.Sleep(10 * time.Millisecond) // background work of this block falls into its window, too
	}
	fs.set(nil, nil)
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d operations, %d crashes", ops, len(crashes))
	if ops < 12 {
		t.Fatalf("only %d operations on the disk", ops)
	}
	at := map[uint64]int{}
	for i, c := range crashes {
		t.Run(fmt.Sprintf("%d/%d%%", i, c.percent), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("crash before %s, heights %d to %d", c.op, c.acked, c.started)
				}
			}()
			w.mustMatch(t, c.fs, o, c.acked, c.started, i%20 == 0)
		})
		at[c.acked]++
		crashes[i].fs = nil
	}
	t.Logf("crashes by acknowledged height: %v", at)
}

var errDisk = errors.New("injected: input/output error")

// faultStep 1 tries every operation, which takes minutes.
var faultStep = flag.Int("store.faultstep", 64, "TestFaultAtEveryWrite fails every n-th operation on the disk")

// pebbleDies says that an error of this operation can make Pebble panic while it swaps its log: it does so with a lock in
// the wrong state, which ends the process at once, past any recover. That is a crash, and TestCrashAtEveryWrite has those.
func pebbleDies(op string) bool {
	return strings.HasSuffix(op, ".log") || bytes.Contains(debug.Stack(), []byte("rotateWAL"))
}

// Each operation on the disk fails once: before it happened, and after it happened. The store either goes on, rightly,
// or is broken and says so in every call; opened again it is at a height between acknowledged and started.
func TestFaultAtEveryWrite(t *testing.T) {
	full := func() vfs.CrashCloneCfg {
		return vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 0))}
	}
	for i := range 4 {
		// The log's own operations are tried with blocks so small that the log is not swapped meanwhile.
		persisted, log := i&1 != 0, i&2 != 0
		step := *faultStep
		h, o := crashHistory()
		o.MemTableBytes = 512 << 10 // every block is flushed
		if log {
			h.writes, o.MemTableBytes, step = 12, 32<<20, 1
		}
		w := newTwin(t, h, o, crashTo+2)
		base := vfs.NewCrashableMem()
		o.FS = base
		s := mustOpen(t, o)
		mustRun(t, s, h, 1, crashFrom-1)
		mustClose(t, s)
		broke, survived := 0, 0
		for n := 1; ; n += step {
			mem := base.CrashClone(full())
			fs := &hookFS{FS: mem}
			o := o
			o.FS = fs
			var fatal atomic.Int32
			died := make(chan struct{}) // a process would be ended now
			o.OnFatal = func(error) {
				if fatal.Add(1) == 1 {
					close(died)
				}
			}
			s := mustOpen(t, o)
			var ops atomic.Int64
			var failedOp atomic.Value
			hook := func(op string) error {
				if ops.Add(1) >= int64(n) && failedOp.Load() == nil && (log || !pebbleDies(op)) {
					failedOp.Store(op)
					return errDisk
				}
				return nil
			}
			if persisted {
				fs.set(nil, hook)
			} else {
				fs.set(hook, nil)
			}
			var acked, started atomic.Uint64
			acked.Store(crashFrom - 1)
			started.Store(crashFrom - 1)
			ended := make(chan error, 1)
			go func() { // may stay in Pebble for ever once it has died
				for height := uint64(crashFrom); height <= crashTo; height++ {
					if _, err := s.Stage(height, h.block(height), h.index(height), h.note(height)); err != nil {
						ended <- err
						return
					}
					started.Store(height)
					if err := commitOrPanic(s); err != nil {
						ended <- err
						return
					}
					acked.Store(height)
				}
				ended <- nil
			}()
			var failure error
			returned := true
			select {
			case failure = <-ended:
			case <-died:
				select {
				case failure = <-ended:
				case <-time.After(50 * time.Millisecond):
					failure, returned = s.failure(), false
				}
			}
			op, hit := failedOp.Load().(string)
			where := fmt.Sprintf("operation %d, %s, persisted %t, log %t", n, op, persisted, log)
			if failure != nil {
				broke++
				if !errors.Is(failure, ErrBroken) || !errors.Is(failure, errDisk) && fatal.Load() == 0 {
					t.Fatalf("%s: %v", where, failure)
				}
				select { // OnFatal is called by whoever found the failure, which others may see a moment earlier
				case <-died:
				case <-time.After(10 * time.Second):
				}
				if fatal.Load() != 1 {
					t.Fatalf("%s: OnFatal was called %d times", where, fatal.Load())
				}
			} else {
				survived++
			}
			sure := acked.Load() // before the disk is copied, as begun is read after
			crashed := mem.CrashClone(full())
			bare := mem.CrashClone(vfs.CrashCloneCfg{})
			begun := started.Load()
			if failure != nil && returned {
				mustStayBroken(t, s, where)
			}
			fs.set(nil, nil)
			if returned {
				closeWithin(s, 2*time.Second) // may report the failure that it outlived
			}
			for _, fs := range []*vfs.MemFS{crashed, bare} {
				w.mustMatch(t, fs, o, sure, begun, n%10 == 1)
				if t.Failed() {
					t.Fatal(where)
				}
			}
			if !hit {
				t.Logf("persisted %t, log %t: %d operations, %d broke the store, %d did not", persisted, log, n, broke, survived)
				break
			}
		}
		if broke < 2 {
			t.Errorf("persisted %t, log %t: only %d faults broke the store", persisted, log, broke)
		}
	}
}

// commitOrPanic commits; Pebble panics on some failures of the disk, which ends a real process there and then.
func commitOrPanic(s *Store) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.fail(fmt.Errorf("panic: %v", r))
			err = s.failure()
		}
	}()
	return s.Commit()
}

func mustStayBroken(t *testing.T, s *Store, where string) {
	t.Helper()
	_, staged := s.Stage(s.Height()+1, nil, nil, nil)
	_, proved := s.Prove(testKey(0), s.Height())
	_, noted := s.Note(s.Height())
	_, checked := s.Check(t.Context(), nil, nil)
	v := s.View()
	defer v.Close()
	_, read := v.Get(testKey(0))
	r := s.Index()
	defer r.Close()
	_, indexed := r.Get([]byte{1})
	for i, err := range []error{staged, s.Commit(), s.Discard(), s.Rollback(s.Height(), nil), proved, noted, checked, read, indexed} {
		if !errors.Is(err, ErrBroken) {
			t.Fatalf("%s: call %d on the broken store: %v", where, i, err)
		}
	}
}

// closeWithin closes a broken store, which Pebble does not promise to be able to.
func closeWithin(s *Store, d time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		_ = s.Close()
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
	runtime.Gosched()
}

// A Stage that cannot read changes nothing; the next one works.
func TestStageFailureIsNotFatal(t *testing.T) {
	h := history{seed: 12, keys: 300, writes: 100, value: 10}
	s := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, s)
	twin := mustOpen(t, small(vfs.NewMem()))
	defer mustClose(t, twin)
	mustRun(t, s, h, 1, 3)
	want := mustRun(t, twin, h, 1, 5)
	before := rows(t, s)
	// A flat row that disagrees with the tree stands for any failure inside the trees.
	var key []byte
	for k := range before {
		if k[0] < 0x80 {
			key = []byte(k)
		}
	}
	if err := s.db.Delete(flatKey(key), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(4, []Write{{Key: key, Value: []byte("x")}}, nil, nil); !errors.Is(err, ErrMismatch) || errors.Is(err, ErrBroken) {
		t.Fatalf("stage: %v", err)
	}
	sameRows(t, rows(t, s), before)
	if err := s.db.Set(flatKey(key), []byte(before[string(key)]), nil); err != nil {
		t.Fatal(err)
	}
	if got := mustRun(t, s, h, 4, 5); !bytes.Equal(got[1], want[4]) {
		t.Errorf("root %x, want %x", got[1], want[4])
	}
	mustBeSound(t, s)
}
