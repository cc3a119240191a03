package testnet

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
	"github.com/pacioli-ledger/pacioli/testnet/load"
)

// TestKillsUnderLoad kills validators with SIGKILL while payments are made: one at a time at random moments, then two,
// then all four, and then holds everything that clients were told against what the chain has. Few kills: TestKillPoints
// has those at chosen places, and `make kills` and `make chaos` have many. See docs/RELIABILITY.md.
func TestKillsUnderLoad(t *testing.T) {
	kills(t, node.KeyEd25519, int(number(t, "PACIOLI_KILLS", 3)), float64(number(t, "PACIOLI_RATE", 40)))
}

// TestKillsMixedKeys is the same for a network in which validators with ed25519 and with ML-DSA-65 sign.
func TestKillsMixedKeys(t *testing.T) {
	kills(t, node.KeyEd25519+","+node.KeyMLDSA65, int(number(t, "PACIOLI_KILLS", 1)), 15)
}

// TestKillsPostQuantum is the same for ML-DSA-65 alone.
func TestKillsPostQuantum(t *testing.T) {
	kills(t, node.KeyMLDSA65, int(number(t, "PACIOLI_KILLS", 0)), 15)
}

func kills(t *testing.T, keyType string, count int, rate float64) {
	if count == 0 {
		t.Skip("set PACIOLI_KILLS: `make kills` does")
	}
	n, random := seed(t)
	payers, err := load.NewPayers(n, 20)
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, keyType, payers)
	began := time.Now()
	c.startAll()
	t.Logf("started in %s", time.Since(began).Round(time.Millisecond))
	l, record := c.pay(payers, n, rate)
	final := func() int { return l.Progress().Ended[audit.Final] }
	c.await("the first payments", heals, func() bool { return final() > 10 })

	var restarts []time.Duration
	deadline := time.Now().Add(time.Duration(number(t, "PACIOLI_MINUTES", 24*60)) * time.Minute)
	done := 0
	for ; done < count && time.Now().Before(deadline); done++ {
		time.Sleep(time.Duration(random.IntN(1200)) * time.Millisecond)
		i := random.IntN(len(c.nodes))
		c.signal(i, syscall.SIGKILL)
		// Three of four go on, also with payments that were made when the fourth was gone.
		height, paid := c.highest(), final()
		c.await(fmt.Sprintf("blocks and payments without node %d", i), heals, func() bool { return c.highest() >= height+2 && final() > paid })
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		height = c.highest()
		c.start(i)
		// It has what the others had, and goes on with them.
		restarts = append(restarts, c.await(fmt.Sprintf("node %d to catch up", i), 2*heals, func() bool { return c.height(i) > height }))
		c.agree(i, (i+1)%len(c.nodes))
	}
	together(c, random, 2, 3*time.Second)
	together(c, random, len(c.nodes), time.Second)

	paid := final()
	c.await("payments after all kills", heals, func() bool { return final() > paid })
	l.Stop()
	claims := <-record
	c.save(claims)
	c.audited(claims)
	judge(t, claims)
	slices.Sort(restarts)
	if len(restarts) > 0 {
		t.Logf("%d kills of one: from start to a block of its own, median %s, longest %s", done, restarts[len(restarts)/2].Round(time.Millisecond), restarts[len(restarts)-1].Round(time.Millisecond))
	}
	t.Logf("took %s", time.Since(began).Round(time.Second))
}

// together kills several nodes at once. Without more than two thirds nothing may be committed; with them it goes on.
func together(c *cluster, random *rand.Rand, count int, pause time.Duration) {
	c.Helper()
	victims := random.Perm(len(c.nodes))[:count]
	for _, i := range victims {
		c.alive(i)
		if err := c.local.Signal(i, syscall.SIGKILL); err != nil {
			c.Fatal(err)
		}
	}
	for _, i := range victims {
		<-c.ended[i]
		c.exit[i] = nil
	}
	heights := func() (list []uint64) {
		for i := range c.nodes {
			if c.exit[i] != nil {
				list = append(list, c.height(i))
			}
		}
		return list
	}
	// The last block before may still be on its way between those that live.
	time.Sleep(2 * time.Second)
	before := heights()
	time.Sleep(pause)
	if after := heights(); !slices.Equal(before, after) || slices.Contains(after, 0) {
		c.Fatalf("with %d of %d validators down, heights went from %v to %v", count, len(c.nodes), before, after)
	}
	for _, i := range victims {
		c.start(i)
	}
	began := time.Now()
	for _, i := range victims {
		c.await(fmt.Sprintf("node %d to answer again", i), 4*heals, func() bool { return c.height(i) != 0 })
	}
	up, height := time.Since(began), c.highest()
	took := c.await(fmt.Sprintf("blocks after %d of %d were killed together", count, len(c.nodes)), heals, func() bool { return c.highest() >= height+2 })
	for i := range c.nodes {
		c.await(fmt.Sprintf("node %d to go on", i), heals, func() bool { return c.height(i) >= height+2 })
	}
	c.Logf("%d killed together: all answer %s after their start, two blocks more %s later", count, up.Round(time.Millisecond), took.Round(time.Millisecond))
}

// judge looks at what became of the payments of each kind.
func judge(t *testing.T, claims []audit.Claim) {
	t.Helper()
	ends := map[string]map[string]int{}
	var wait []time.Duration
	for _, c := range claims {
		if ends[c.Kind] == nil {
			ends[c.Kind] = map[string]int{}
		}
		what := string(c.Ending)
		if c.Code != 0 {
			what += fmt.Sprintf("/%d", c.Code)
		}
		ends[c.Kind][what]++
		switch {
		case c.Ending == audit.Refused && !load.MayRefuse(c.Kind):
			t.Errorf("good payment %s of kind %s was refused: %s", c.ID, c.Kind, c.Text)
		case c.Ending == audit.Final && (c.Kind == load.Forged || c.Kind == load.Reused):
			t.Errorf("payment %s of kind %s is final with code %d", c.ID, c.Kind, c.Code)
		case c.Ending == audit.Final && (c.Code == 0) == (c.Kind == load.Poor || c.Kind == load.Partly):
			t.Errorf("payment %s of kind %s is final with code %d", c.ID, c.Kind, c.Code)
		case c.Ending == audit.Dead && c.Kind != load.Reused && c.Kind != load.Conflict:
			t.Errorf("good payment %s of kind %s is dead: %s", c.ID, c.Kind, c.Text)
		case c.Ending == audit.Unknown && !load.MayRefuse(c.Kind):
			// All nodes were up for a while at the end, and every payment was handed in again. (Of one that must be refused,
			// a node that is killed before it answers leaves open whether it has kept it, until valid_until.)
			t.Errorf("payment %s of kind %s is still unknown at the end: %s", c.ID, c.Kind, c.Text)
		}
		if c.Ending == audit.Final {
			wait = append(wait, time.Duration(c.Acked-c.Sent)*time.Microsecond)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(ends)) {
		t.Logf("%-9s %v", kind, ends[kind])
	}
	if len(wait) == 0 {
		t.Fatal("no payment is final")
	}
	slices.Sort(wait)
	t.Logf("from sent to final: median %s, 99 of 100 %s, longest %s", wait[len(wait)/2].Round(time.Millisecond), wait[len(wait)*99/100].Round(time.Millisecond), wait[len(wait)-1].Round(time.Millisecond))
}
