package testnet

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
	"github.com/pacioli-ledger/pacioli/testnet/load"
)

// cometFailPoints are the places at which CometBFT ends the process by itself: the calls of libs/fail of v0.40.0.
const cometFailPoints = 10

// TestKillPoints ends a validator at every fail point, CometBFT's and ours, the first and a later time that it gets there,
// while payments are made. It restarts unaided each time, and at the end the second bookkeeping has its AppHash, its
// receipts and every row. It is alone, so that what it lost nobody gives back to it.
func TestKillPoints(t *testing.T) {
	n, random := seed(t)
	payers, err := load.NewPayers(n, 10)
	if err != nil {
		t.Fatal(err)
	}
	c := openCluster(t, LocalOptions{Validators: 1, KeyType: node.KeyEd25519, ChainID: "points", Accounts: load.Addresses(payers), Funds: 1e12,
		Configure: func(_ int, c *node.Config) {
			c.Consensus.TimeoutCommit, c.Consensus.IdleBlockInterval = node.Duration(30*time.Millisecond), node.Duration(200*time.Millisecond)
		}})
	c.start(0)
	c.await("the first blocks", 60*time.Second, func() bool { return c.height(0) >= 2 })
	if c.client, err = client.Dial(context.Background(), client.Options{Nodes: c.local.URLs(), Genesis: c.doc}); err != nil {
		t.Fatal(err)
	}
	l, record := c.pay(payers, n, 20)
	var points []string // variables
	for i := range cometFailPoints {
		points = append(points, fmt.Sprintf("FAIL_TEST_INDEX=%d", i))
	}
	for _, name := range failpoint.Names {
		points = append(points, failpoint.Variable+"="+name, fmt.Sprintf("%s=%s:%d", failpoint.Variable, name, 2+random.IntN(30)))
	}
	random.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	passes := int(number(t, "PACIOLI_POINTS", 1))
	for range passes {
		for _, point := range points {
			height := c.height(0)
			c.signal(0, syscall.SIGKILL)
			c.startWith(0, point)
			select {
			case <-c.ended[0]:
				c.exit[0] = nil
			case <-time.After(c.factor * 2 * heals):
				t.Fatalf("%s: the node gets by, or never there", point)
			}
			if end := c.logEnd(0, 3); strings.Contains(end, "panic") {
				t.Fatalf("%s: %s", point, end)
			}
			c.start(0)
			c.await("blocks after "+point, 2*heals, func() bool { return c.height(0) > height+1 })
		}
	}
	final := func() int { return l.Progress().Ended[audit.Final] }
	paid := final()
	c.await("payments at the end", heals, func() bool { return final() > paid })
	l.Stop()
	claims := <-record
	c.save(claims)
	r := c.audited(claims)
	for _, wrong := range load.Judge(claims) {
		t.Error(wrong)
	}
	t.Logf("%d ends at %d points, %d blocks, %d payments final", passes*len(points), cometFailPoints+len(failpoint.Names), r.Blocks, r.Claims[audit.Final])
}

// TestLostVotes ends one of two validators when the sign state has a vote and nobody else does, at each of the votes of two
// blocks, one of which is its own proposal; takes everything from it but what it has signed last; and starts it again. It must
// not sign anything else at that place, and without its vote there is no further block.
func TestLostVotes(t *testing.T) {
	c := openCluster(t, LocalOptions{Validators: 2, KeyType: node.KeyEd25519, ChainID: "votes", Configure: func(_ int, c *node.Config) {
		c.Consensus.TimeoutCommit, c.Consensus.IdleBlockInterval = node.Duration(30*time.Millisecond), node.Duration(200*time.Millisecond)
	}})
	c.start(0)
	c.start(1)
	c.await("the first blocks", 60*time.Second, func() bool { return c.height(1) >= 2 })
	for votes := 5; votes < 9; votes++ {
		height := c.height(0)
		c.signal(1, syscall.SIGKILL)
		c.startWith(1, fmt.Sprintf("%s=sign.vote:%d", failpoint.Variable, votes))
		select {
		case <-c.ended[1]:
			c.exit[1] = nil
		case <-time.After(c.factor * 2 * heals):
			t.Fatalf("it has not signed %d votes", votes)
		}
		if err := c.local.Home(1).Wipe(); err != nil {
			t.Fatal(err)
		}
		c.start(1)
		c.await(fmt.Sprintf("blocks after vote %d was lost", votes), 2*heals, func() bool { return c.height(1) > height+4 })
	}
	again := len(c.logged(1, "signed earlier"))
	if again == 0 {
		t.Error("no vote was lost: the test has lost its sense")
	}
	t.Logf("%d votes were sent that had been signed earlier", again)
}
