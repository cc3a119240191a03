package testnet

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cometbft/cometbft/p2p"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/testnet/load"
)

// TestGuard starts a copy of a validator's home from a backup while the original goes on: the mistake by which validators
// equivocate. The copy's own sign state knows nothing of what the original has signed since. It must end with an error
// that says so, and the chain must hold no evidence.
func TestGuard(t *testing.T) {
	n, _ := seed(t)
	payers, err := load.NewPayers(n, 4)
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, node.KeyEd25519, payers)
	c.startAll()
	c.await("some blocks", heals, func() bool { return c.height(3) >= 4 })

	// Somebody starts the node once more over the same folder.
	second := exec.Command(os.Args[0], "start", "--home", string(c.local.Home(3)))
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "in use by another process") {
		t.Errorf("a second node over the same home ended with %v:\n%s", err, out)
	}

	// The backup is taken from a stopped node, so that nothing but its age is wrong with it.
	c.signal(3, syscall.SIGTERM)
	backup := node.Home(filepath.Join(c.local.Dir, "backup"))
	if err := CopyHome(string(c.local.Home(3)), string(backup)); err != nil {
		t.Fatal(err)
	}
	c.start(3)

	// With payments, so that the copy's blocks would differ from the original's: two equal votes are no evidence.
	l, record := c.pay(payers, n, 20)
	height := c.highest()
	c.await("the original to sign again", 2*heals, func() bool { return c.height(3) >= height+8 })

	config, err := node.LoadConfig(string(backup))
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freeAddresses(2)
	if err != nil {
		t.Fatal(err)
	}
	config.RPC.Listen, config.P2P.Listen = ports[0], ports[1]
	if err := backup.SaveConfig(config); err != nil {
		t.Fatal(err)
	}
	// Under the original's node id no peer would talk to the copy, and it would be harmless.
	if err := os.Remove(backup.NodeKey()); err != nil {
		t.Fatal(err)
	}
	if _, err := p2p.LoadOrGenNodeKey(backup.NodeKey()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	copied := exec.Command(os.Args[0], "start", "--home", string(backup))
	copied.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	copied.Stdout, copied.Stderr = &out, &out
	if err := copied.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- copied.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(out.String(), "is signed by this validator's key, but not by this node") {
			t.Fatalf("the copy ended with %v:\n%s", err, out.String())
		}
		t.Logf("the copy ended after %s: %v", time.Since(began).Round(time.Millisecond), err)
	case <-time.After(c.factor * 4 * heals):
		_ = copied.Process.Kill() // so that it can be waited for
		<-ended
		t.Fatalf("the copy still runs after %s:\n%s", time.Since(began).Round(time.Second), out.String())
	}
	// Evidence would be in one of the next blocks; the original goes on signing.
	height = c.highest()
	c.await("more blocks", 2*heals, func() bool { return c.height(3) >= height+12 })
	l.Stop()
	r := c.audited(<-record)
	if r.Evidence != 0 {
		t.Errorf("%d pieces of evidence", r.Evidence)
	}
	if e := slices.Concat(c.logged(0, "evidence"), c.logged(3, "CONSENSUS FAILURE")); len(e) != 0 {
		t.Errorf("logs:\n%s", strings.Join(e, "\n"))
	}
}
