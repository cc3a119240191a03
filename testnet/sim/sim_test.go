package sim

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The environment of a child process: the seed that it is to run, and the file for its trace.
const (
	seedVariable  = "PACIOLI_SIM_SEED"
	traceVariable = "PACIOLI_SIM_TRACE"
)

var (
	seedCount = flag.Int("seeds", 200, "TestSeeds: how many seeds")
	firstSeed = flag.Uint64("first", 1, "TestSeeds: the first seed")
	keep      = flag.String("keep", "", "TestSeeds: folder for the traces of seeds that fail; a temporary one when empty")
	parallel  = flag.Int("processes", runtime.NumCPU(), "TestSeeds: how many seeds at once")
)

// enough is how many seeds have to fail until the others would only say it again; with -failfast, one.
func enough() int {
	if f := flag.Lookup("test.failfast"); f != nil && f.Value.String() == "true" {
		return 1
	}
	return 10
}

// childPatience is how long a child may take: a hundred times what it takes on a quiet machine.
const childPatience = 2 * time.Minute

// marker begins the line on which a child gives its report.
const marker = "REPORT "

// TestSeed runs the one seed of the environment, as a process of its own: CometBFT's log leaves goroutines behind that
// would keep the bubble from ending, so the process ends instead.
func TestSeed(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv(seedVariable), 10, 64)
	if err != nil {
		t.Skip("run by TestSeeds, or by `make sim SEED=n`")
	}
	var out io.Writer = os.Stderr
	if name := os.Getenv(traceVariable); name != "" {
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		out = file
	}
	dir, err := os.MkdirTemp(scratch(), "sim")
	if err != nil {
		t.Fatal(err)
	}
	// Package os/signal starts its goroutine now, outside of the bubble; CometBFT's log asks for SIGHUP within it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if name := os.Getenv("PACIOLI_SIM_PROFILE"); name != "" {
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := Run(seed, dir, out)
		encoded, err := json.Marshal(r)
		if err != nil {
			panic(err)
		}
		os.RemoveAll(dir)
		pprof.StopCPUProfile()
		fmt.Printf("\n%s%s\n", marker, encoded)
		code := 0
		if len(r.Findings) > 0 {
			code = 1
		}
		syscall.Exit(code) // not os.Exit, with which go test takes a test that ends so for one that hides its failure
	})
}

// scratch is a folder in memory where there is one: sign states and logs are real files that are synced all the time.
func scratch() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// child runs a seed in a process of its own.
func child(seed uint64, traces string) (r Report, cpu time.Duration, err error) {
	trace := filepath.Join(traces, fmt.Sprintf("seed-%d.log", seed))
	cmd := exec.Command(os.Args[0], "-test.run=^TestSeed$")
	cmd.Env = append(os.Environ(), fmt.Sprint(seedVariable, "=", seed), traceVariable+"="+trace, fmt.Sprint("GOMAXPROCS=", 1+seed%4/3), "GOGC=400")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return r, 0, err
	}
	// Where somebody waits for time with a mutex that others wait for, virtual time stands still; the signal makes it say who.
	hung := time.AfterFunc(childPatience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	runErr := cmd.Wait()
	hung.Stop()
	cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	for line := range strings.Lines(stdout.String()) {
		if text, ok := strings.CutPrefix(line, marker); ok {
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				return r, cpu, err
			}
			if len(r.Findings) == 0 {
				err = os.Remove(trace)
			}
			return r, cpu, err
		}
	}
	// It died: a panic of ours, or time that stood still.
	if err := os.WriteFile(trace+".died", append(stdout.Bytes(), stderr.Bytes()...), 0o600); err != nil {
		return r, cpu, err
	}
	text := stdout.String() + stderr.String()
	return Report{Seed: seed, Findings: []string{fmt.Sprintf("the process died (%v): %.1500s", runErr, text)}}, cpu, nil
}

// TestSeeds runs many seeds, each in a process of its own, and says what they have seen between them.
func TestSeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 200 processes")
	}
	traces, count := *keep, *seedCount
	if traces == "" {
		var err error
		if traces, err = os.MkdirTemp("", "sim-traces"); err != nil {
			t.Fatal(err)
		}
	} else if err := os.MkdirAll(traces, 0o700); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	seeds := make(chan uint64)
	seen, in := map[string]int64{}, map[string]int{}
	var failed []uint64
	var cpu, virtual, slowest time.Duration
	done, begun := 0, time.Now()
	for range *parallel {
		all.Go(func() {
			for seed := range seeds {
				r, took, err := child(seed, traces)
				mu.Lock()
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				done++
				cpu, virtual, slowest = cpu+took, virtual+r.Virtual, max(slowest, r.Resumed)
				for what, n := range r.Seen {
					seen[what] += n
					if n > 0 {
						in[what]++
					}
				}
				if len(r.Findings) > 0 {
					failed = append(failed, seed)
					t.Errorf("seed %d (make sim SEED=%d; trace in %s):\n  %s", seed, seed, traces, strings.Join(r.Findings, "\n  "))
				}
				if done%100 == 0 {
					fmt.Printf("%d of %d seeds, %d failed, %s\n", done, count, len(failed), time.Since(begun).Round(time.Second))
				}
				mu.Unlock()
			}
		})
	}
	for i := range count {
		mu.Lock()
		stop := len(failed) >= enough()
		mu.Unlock()
		if stop {
			break
		}
		seeds <- *firstSeed + uint64(i)
	}
	close(seeds)
	all.Wait()
	t.Logf("%d of %d seeds, %s of virtual time, %s of processors, %s: %d failed; the longest to resume took %s", done, count, virtual.Round(time.Second), cpu.Round(time.Second), time.Since(begun).Round(time.Second), len(failed), slowest.Round(time.Millisecond))
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%8d %-28s in %d seeds", seen[what], what, in[what])
		if seen[what] == 0 && done >= 200 {
			t.Errorf("no seed has seen any %s: what it is for was not tested", what)
		}
	}
	if len(failed) == 0 && *keep == "" {
		os.RemoveAll(traces)
	}
}
