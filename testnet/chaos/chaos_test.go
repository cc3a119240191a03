package chaos

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/testnet"
)

// TestSchedule draws schedules: the same from the same seed, every fault that fits, one twin that comes last in its round, and so
// many nodes down that the others have no two thirds.
func TestSchedule(t *testing.T) {
	powers := []int64{10, 10, 10, 10, 0}
	for seed := range uint64(200) {
		rounds := schedule(seed, 3*time.Hour, All, powers, 2)
		if !reflect.DeepEqual(rounds, schedule(seed, 3*time.Hour, All, powers, 2)) {
			t.Fatalf("seed %d draws two schedules", seed)
		}
		left, seen := slices.Clone(powers), map[Fault]int{}
		var total, took time.Duration
		for n, r := range rounds {
			for i, s := range r.Steps {
				seen[s.Fault]++
				took += s.Before + s.For
				total += s.cost(len(powers))
				if s.Fault == Twin {
					if i != len(r.Steps)-1 || s.Node == 2 || left[s.Node] == 0 {
						t.Fatalf("seed %d, round %d: a twin of node %d as step %d of %d", seed, n, s.Node, i, len(r.Steps))
					}
					left[s.Node] = 0
				}
				if (s.Fault == DiskFull || s.Fault.clock() != 0) && s.Node != 2 {
					t.Fatalf("seed %d: %s of node %d, only node 2 can", seed, s.Fault, s.Node)
				}
			}
			var up, all int64
			for i, p := range left {
				all += p
				if !slices.Contains(r.Down, i) {
					up += p
				}
			}
			if len(r.Down) == 0 || 3*up > 2*all || up == 0 {
				t.Fatalf("seed %d, round %d: %d of %d are up without %v", seed, n, up, all, r.Down)
			}
		}
		if seen[Twin] != 1 || took > 3*time.Hour || total < 2*time.Hour {
			t.Fatalf("seed %d: %d twins, %s of faults, %s in all", seed, seen[Twin], took, total)
		}
		for _, f := range All {
			if seen[f] == 0 {
				t.Errorf("seed %d never draws %s", seed, f)
			}
		}
		if lines := Lines(rounds, []string{"a", "b", "c", "d", "e"}); len(lines) < 100 {
			t.Fatalf("%d lines", len(lines))
		}
	}
	if reflect.DeepEqual(schedule(1, time.Hour, All, powers, -1), schedule(2, time.Hour, All, powers, -1)) {
		t.Error("two seeds draw one schedule")
	}
}

func TestParseFaults(t *testing.T) {
	for text, want := range map[string]int{"": len(All), "all": len(All), "kill": 1, "kill, pause": 2, "-twin": len(All) - 1, "-twin,-kill": len(All) - 2, "flood": -1, "kill,-flood": -1} {
		if got, err := ParseFaults(text); (err != nil) != (want < 0) || err == nil && len(got) != want {
			t.Errorf("%q: %v, %v; want %d", text, got, err, want)
		}
	}
}

// TestChaosContainers breaks a network of containers for three minutes, or for PACIOLI_CHAOS, with PACIOLI_FAULTS
// (all but two of the clocks), drawn from PACIOLI_SEED. It needs Docker.
func TestChaosContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network")
	}
	if err := exec.Command("docker", "version").Run(); err != nil {
		t.Skipf("no Docker engine answers: %s", err)
	}
	o := Options{Dir: t.TempDir(), Discard: true, Topology: Topology(4, "ed25519"), Seed: 7, Duration: 3 * time.Minute, Rate: 10, Stories: 0.5,
		Say: func(format string, args ...any) { t.Logf(format, args...) }}
	o.Topology.Containers.Project, o.Topology.Containers.Subnet = "pacioli-chaos-test", "10.213.72.0/24"
	for i := range o.Topology.Nodes { // others of this machine have those that are given by default
		o.Topology.Nodes[i].RPCPort = uint16(28657 + 10*i)
	}
	var err error
	if text := os.Getenv("PACIOLI_CHAOS"); text != "" {
		if o.Duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("PACIOLI_SEED"); text != "" {
		if o.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("PACIOLI_PATIENCE"); text != "" {
		if o.Patience, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	// Full disks and wrong clocks need a program of their own, whose whole standard library is compiled again: two minutes of both
	// processors, which CI does not have. PACIOLI_FAULTY names one that was built before; then one of the clocks is off, the seed
	// says which. Without it PACIOLI_FAULTS=all builds it.
	clocks := []string{string(Behind90), string(Behind45), string(Ahead90)}
	left := int(o.Seed % 3)
	faults := "-" + clocks[(left+1)%3] + ",-" + clocks[(left+2)%3]
	if os.Getenv("PACIOLI_FAULTY") == "" {
		faults += ",-" + clocks[left] + ",-" + string(DiskFull)
	}
	if text := os.Getenv("PACIOLI_FAULTS"); text != "" {
		faults = text
	}
	o.Source, o.Faulty = filepath.Join("..", ".."), os.Getenv("PACIOLI_FAULTY")
	if o.Faults, err = ParseFaults(faults); err != nil {
		t.Fatal(err)
	}
	o.Program = filepath.Join(t.TempDir(), "pacioli")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", o.Program, "./cmd/pacioli")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", err, out)
	}
	// What an interrupted run has left is in the way.
	if p, err := testnet.OpenProject(o.Dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a new folder holds the project %v, %v", p, err)
	}
	r, err := Containers(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	for _, left := range r.LeftOut {
		t.Logf("LEFT OUT: %s", left)
	}
	if len(r.Findings) > 0 {
		t.Errorf("%d findings:\n%s", len(r.Findings), strings.Join(r.Findings, "\n"))
	}
	if r.Rounds == 0 || r.Txs < 100 || r.Blocks < 20 {
		t.Errorf("%d rounds, %d transactions, %d blocks: that shows little", r.Rounds, r.Txs, r.Blocks)
	}
}
