package testnet

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// breakable is a cluster under test.
type breakable struct {
	testing.TB
	Cluster
	ctx    context.Context
	factor time.Duration
}

func (b *breakable) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// height is 0 for a node that does not answer.
func (b *breakable) height(i int) uint64 {
	n, err := audit.Open(b.URL(i))
	b.must(err)
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
	defer cancel()
	s, err := n.Status(ctx)
	if err != nil {
		return 0
	}
	return s.Height
}

func (b *breakable) await(what string, done func() bool) {
	b.Helper()
	for began := time.Now(); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > b.factor*60*time.Second {
			for i, n := range b.Nodes() {
				logs, _ := b.Logs(b.ctx, i, 12)
				b.Logf("%s is at height %d:\n%s", n.Name, b.height(i), logs)
			}
			b.Fatalf("waited for %s", what)
		}
	}
}

// rises waits until a node is above a height by so many blocks.
func (b *breakable) rises(i int, above, blocks uint64) {
	b.Helper()
	b.await(fmt.Sprintf("%s to be above height %d", b.Nodes()[i].Name, above+blocks), func() bool { return b.height(i) >= above+blocks })
}

// TestProcesses breaks a network of processes in every way, one of whose validators is behind a sentry.
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	topology := guardedNetwork()
	l, err := CreateLocal(t.TempDir(), LocalOptions{Topology: &topology, Links: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Processes(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	b := &breakable{TB: t, Cluster: p, ctx: t.Context(), factor: time.Duration(number(t, "PACIOLI_PATIENCE", 1))}
	const shy, sentry = 3, 4
	for i := range b.Nodes() {
		b.must(b.Start(b.ctx, i))
	}
	b.rises(0, 0, 2)
	b.rises(shy, 0, 2)
	if h, err := client.Ready(b.ctx, b.URL(shy)); err != nil || h.Peers != 1 {
		t.Errorf("the validator behind a sentry has %d peers (%v), want 1", h.Peers, err)
	}

	// Without its sentry the validator behind it is alone; the other three go on.
	b.must(b.Disconnect(b.ctx, sentry))
	time.Sleep(500 * time.Millisecond) // what was under way arrives
	alone, height := b.height(shy), b.height(0)
	b.rises(0, height, 3)
	if now := b.height(shy); now > alone+1 {
		t.Errorf("behind a sentry that is cut off the height has risen from %d to %d", alone, now)
	}
	b.must(b.Reconnect(b.ctx, sentry))
	b.rises(shy, b.height(0), 1)

	b.must(b.Pause(b.ctx, 1))
	if s, err := b.State(b.ctx, 1); err != nil || !s.Paused {
		t.Errorf("a paused node is %+v (%v)", s, err)
	}
	b.rises(0, b.height(0), 2)
	b.must(b.Resume(b.ctx, 1))
	b.rises(1, b.height(0), 1)

	// A disk is lost; what the key has signed is not.
	b.must(b.Kill(b.ctx, 2))
	if s, err := b.State(b.ctx, 2); err != nil || !s.Ended || s.ExitCode != 137 {
		t.Errorf("a killed node is %+v (%v)", s, err)
	}
	b.must(b.Wipe(b.ctx, 2))
	signed, err := os.ReadFile(l.Home(2).SignState())
	if err != nil || strings.Contains(string(signed), `"height": "0"`) {
		t.Errorf("after a wipe the sign state is %s (%v)", signed, err)
	}
	if err := b.Wipe(b.ctx, 0); err == nil {
		t.Error("a running node was wiped")
	}
	b.must(b.Start(b.ctx, 2))
	b.rises(2, b.height(0), 1)

	added, err := b.AddNode(b.ctx, NodeSpec{Name: "full0", Role: RoleFull})
	b.must(err)
	b.must(b.Start(b.ctx, added))
	b.rises(added, b.height(0), 1)

	b.must(b.Stop(b.ctx, added))
	if s, err := b.State(b.ctx, added); err != nil || s != (State{Ended: true}) {
		t.Errorf("a node that was stopped is %+v (%v)", s, err)
	}
	if logs, err := b.Logs(b.ctx, added, 5); err != nil || !strings.Contains(logs, "stop node") {
		t.Errorf("the end of its log is %q (%v)", logs, err)
	}
}
