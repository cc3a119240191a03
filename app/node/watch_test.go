package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	cmtstate "github.com/cometbft/cometbft/state"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
)

// TestClock feeds the estimate with votes: their way, lies of a few, bursts of old ones.
func TestClock(t *testing.T) {
	const limit = 30 * time.Second
	for name, c := range map[string]struct {
		ahead   map[string]time.Duration // what a validator's votes make of this machine's clock
		burst   bool                     // all in the first second only
		want    time.Duration
		warn    bool
		stopped bool
	}{
		"right":                  {map[string]time.Duration{"a": 0, "b": 0, "c": 0}, false, 0, false, false},
		"nobody votes":           {nil, false, 0, false, false},
		"a little ahead":         {map[string]time.Duration{"a": 2 * time.Second, "b": 2 * time.Second, "c": 2 * time.Second}, false, 2 * time.Second, true, false},
		"too far ahead":          {map[string]time.Duration{"a": 31 * time.Second, "b": 32 * time.Second, "c": 31 * time.Second}, false, 31 * time.Second, true, true},
		"too far behind":         {map[string]time.Duration{"a": -31 * time.Second, "b": -32 * time.Second, "c": -31 * time.Second}, false, -31 * time.Second, true, true},
		"one lies":               {map[string]time.Duration{"a": 0, "b": time.Hour, "c": 0}, false, 0, false, false},
		"one lies the other way": {map[string]time.Duration{"a": 0, "b": -time.Hour, "c": 0}, false, 0, false, false},
		"a burst of old votes":   {map[string]time.Duration{"a": time.Minute, "b": time.Minute, "c": time.Minute}, true, time.Minute, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			var clk clock
			clk.weigh("own", map[string]uint64{"own": 10, "a": 10, "b": 10, "c": 10})
			start := time.Unix(1_700_000_000, 0)
			var warned, stopped bool
			for second := range 20 {
				now := start.Add(time.Duration(second) * time.Second)
				for v, ahead := range c.ahead {
					if c.burst && second > 0 {
						continue
					}
					for way := range 3 { // one vote comes at once, others later
						clk.saw(v, now.Add(-ahead), now.Add(time.Duration(way)*100*time.Millisecond))
					}
				}
				off, warn, stop := clk.check(now.Add(300*time.Millisecond), limit)
				if second == 0 && off != c.want {
					t.Errorf("%s, want %s", off, c.want)
				}
				warned, stopped = warned || warn, stopped || stop
				if stop && second < 10 {
					t.Fatalf("stops after %d seconds", second)
				}
			}
			if warned != c.warn || stopped != c.stopped {
				t.Errorf("warns %t, stops %t", warned, stopped)
			}
			if n := len(clk.samples["a"]); n > 3*6 {
				t.Errorf("%d votes are remembered", n)
			}
		})
	}
}

// TestClockMinority: validators with less than a third of the power stop no node that has the right time, whomever it hears
// beside them, and a wrong clock is noticed as long as a quorum is heard.
func TestClockMinority(t *testing.T) {
	equal := map[string]uint64{"own": 10, "a": 10, "b": 10, "c": 10}
	for name, c := range map[string]struct {
		powers map[string]uint64
		own    string
		ahead  map[string]time.Duration
		want   time.Duration
		known  bool
	}{
		"only the liar is heard":           {equal, "own", map[string]time.Duration{"a": time.Hour}, 0, false},
		"the liar and one more":            {equal, "own", map[string]time.Duration{"a": time.Hour, "b": 0}, 0, true},
		"the liar early and one more":      {equal, "own", map[string]time.Duration{"a": -time.Hour, "b": 0}, 0, true},
		"own clock off, one down":          {equal, "own", map[string]time.Duration{"a": time.Minute, "b": time.Minute}, time.Minute, true},
		"own clock off, one lies":          {equal, "own", map[string]time.Duration{"a": time.Minute, "b": time.Minute, "c": -time.Hour}, 0, true},
		"no validator, one lies":           {map[string]uint64{"a": 10, "b": 10, "c": 10, "d": 10}, "own", map[string]time.Duration{"a": time.Hour, "b": 1, "c": 2, "d": 3}, 2, true},
		"many liars with little power":     {map[string]uint64{"own": 40, "big": 40, "a": 1, "b": 1, "c": 1}, "own", map[string]time.Duration{"big": 5, "a": time.Hour, "b": time.Hour, "c": time.Hour}, 5, true},
		"who is not in the set":            {equal, "own", map[string]time.Duration{"x": time.Hour, "y": time.Hour, "z": time.Hour}, 0, false},
		"alone in the set":                 {map[string]uint64{"own": 10}, "own", nil, 0, false},
		"half early, half late, all heard": {map[string]uint64{"a": 10, "b": 10}, "own", map[string]time.Duration{"a": -time.Hour, "b": time.Second}, time.Second, true},
	} {
		var clk clock
		clk.weigh(c.own, c.powers)
		now := time.Unix(1_700_000_000, 0)
		for v, ahead := range c.ahead {
			clk.saw(v, now.Add(-ahead), now)
		}
		if got, known := clk.offset(now); got != c.want || known != c.known {
			t.Errorf("%s: %s, %t, want %s, %t", name, got, known, c.want, c.known)
		}
	}
}

// TestClockOldVotes: a node that comes back to a chain that stood still goes through its rounds with votes that are as old.
func TestClockOldVotes(t *testing.T) {
	for name, c := range map[string]struct {
		vote  place
		peers []place
		old   bool
	}{
		"with the peers":        {place{5, 0}, []place{{5, 0}, {5, 0}, {5, 0}}, false},
		"a block behind":        {place{5, 0}, []place{{6, 0}, {6, 0}, {6, 0}}, false},
		"blocks behind":         {place{5, 0}, []place{{7, 0}, {7, 0}, {5, 0}}, true},
		"rounds behind":         {place{5, 3}, []place{{5, 80}, {5, 80}}, true},
		"one peer says so":      {place{5, 3}, []place{{5, 80}, {5, 3}, {5, 3}}, false},
		"peers that come later": {place{5, 3}, []place{{5, 0}, {5, 1}, {4, 9}}, false},
		"no peers":              {place{5, 3}, nil, false},
	} {
		if got := old(c.vote, c.peers); got != c.old {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestDisk: a node does not start on a disk that is nearly full, says so while it runs low, and stops before it is full.
func TestDisk(t *testing.T) {
	n := newNet(t, "ed25519")
	real := snapshot.FreeBytes
	defer func() { snapshot.FreeBytes = real }()
	left := make(chan uint64, 1)
	left <- 600 << 20
	snapshot.FreeBytes = func(dir string) (uint64, error) {
		if dir != n.home.Data() {
			return 0, fmt.Errorf("%s is asked about", dir)
		}
		free := <-left
		left <- free
		return free, nil
	}
	r := n.start(t)
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == 200 })
	if _, h := r.get("/livez"); h.DiskFreeMB != 600 || len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "the disk of the data has 600 MB left") {
		t.Errorf("%+v", h)
	}
	<-left
	left <- 500 << 20
	exitsWith(t, r.end(), 12, "has 500 MB left, less than node.min_free_mb = 512")

	r = &running{t: t, done: make(chan error, 1)}
	r.done <- Run(t.Context(), n.home, n.config, slog.New(slog.DiscardHandler), "test", nil)
	exitsWith(t, r.end(), 12, "has 500 MB left")
}

// TestClockStops: a node whose clock is off says so in its health, and ends.
func TestClockStops(t *testing.T) {
	n := newNet(t, "ed25519")
	powers := votingPowers
	votingPowers = func(*Node) map[string]uint64 { return map[string]uint64{"a": 1, "b": 1, "c": 1} }
	defer func() { votingPowers = powers }()
	n.config.Node.MaxClockOffset = Duration(time.Second)
	started := make(chan *Node, 1)
	atStart = func(n *Node) { started <- n }
	defer func() { atStart = nil }()
	r := n.start(t)
	running := <-started
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == 200 })
	feed, stopFeeding := context.WithCancel(t.Context())
	defer stopFeeding()
	vote := func() {
		now := time.Now()
		for _, v := range []string{"a", "b", "c"} {
			running.clock.saw(v, now.Add(-3*time.Second), now)
		}
	}
	running.clock.weigh("", votingPowers(nil)) // as the next look at the machine does
	vote()
	go func() {
		for ; feed.Err() == nil; time.Sleep(100 * time.Millisecond) {
			vote()
		}
	}()
	running.clock.mu.Lock()
	running.clock.beyond = time.Now().Add(5*time.Second - clockPatience) // half as long as it may be
	running.clock.mu.Unlock()
	status, h := r.get("/readyz")
	if status != 503 || len(h.Reasons) != 1 || !strings.Contains(h.Reasons[0], "the clock is off: 3s ahead") || h.ClockOffsetMS == nil || *h.ClockOffsetMS != 3000 {
		t.Errorf("%d %+v", status, h)
	}
	exitsWith(t, r.end(), 13, "the clock of this machine is 3s ahead")
}

func exitsWith(t *testing.T, err error, code int, want string) {
	t.Helper()
	s, ok := errors.AsType[*Stop](err)
	if !ok || s.Code != code || s.Hint == "" || !strings.Contains(err.Error(), want) {
		t.Errorf("Run returns %v, want exit code %d and %q", err, code, want)
	}
}

// TestStopsInDocs holds the table of exit codes against docs/CLI.md. Codes are distinct, and none is one of the wallet's.
func TestStopsInDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/CLI.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| Exit code | Name | What to do |\n|---|---|---|\n"
	seen := map[int]bool{}
	for _, s := range Stops() {
		if seen[s.Code] || s.Code < 10 || s.Code > 63 {
			t.Errorf("exit code %d", s.Code)
		}
		seen[s.Code] = true
		table += fmt.Sprintf("| %d | `%s` | %s |\n", s.Code, s.Name, s.Hint)
	}
	if !strings.Contains(string(page), "\n\n"+table+"\n") {
		t.Errorf("docs/CLI.md has another table of exit codes than this program, which has:\n%s", table)
	}
}

// TestClockBehindItsBlocks: a clock that stands before the newest block is found before CometBFT panics over it.
func TestClockBehindItsBlocks(t *testing.T) {
	now := time.Now()
	state := cmtstate.State{LastBlockHeight: 7, LastBlockTime: now.Add(31 * time.Second)}
	exitsWith(t, checkClock(state, now, 30*time.Second), 13, "31s before the time of its newest block (7; limit 30s)")
	state.LastBlockTime = now.Add(29 * time.Second)
	if err := checkClock(state, now, 30*time.Second); err != nil {
		t.Error(err)
	}
	if err := checkClock(cmtstate.State{LastBlockTime: now.Add(time.Hour)}, now, 30*time.Second); err != nil {
		t.Errorf("a genesis that is still to come: %v", err)
	}
}

// TestFailPointWarning: a node says that its environment is about to kill it.
func TestFailPointWarning(t *testing.T) {
	for setting, want := range map[string]string{"PACIOLI_FAIL_AT=store.commit:3": "variable=PACIOLI_FAIL_AT point=store.commit:3", "FAIL_TEST_INDEX=4": "variable=FAIL_TEST_INDEX point=4", "PACIOLI_LOG_LEVEL=info": ""} {
		t.Run(setting, func(t *testing.T) {
			name, value, _ := strings.Cut(setting, "=")
			t.Setenv(name, value)
			var log strings.Builder
			if err := Run(t.Context(), Home(t.TempDir()), quick(), slog.New(slog.NewTextHandler(&log, nil)), "test", nil); err == nil {
				t.Error("a node without a home runs")
			}
			if warned := strings.Contains(log.String(), "level=WARN"); warned != (want != "") || !strings.Contains(log.String(), want) {
				t.Errorf("want %q, the log is %q", want, log.String())
			}
		})
	}
}
