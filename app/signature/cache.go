// Package signature sees to it that a node verifies a transaction's signatures once in its life. A transaction is
// verified when it comes in, in batches and on several cores; when it is proposed, voted on and executed the verdict is
// remembered. Blocks that arrive without having passed through the mempool (block sync, replay) are verified by the same
// [Cache.VerifyMany] before they are executed.
//
// A verdict that is wrong here, or a fingerprint that is remembered without its signatures having verified, loses money:
// the ledger asks nobody else.
package signature

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// DefaultEntries covers the mempool's 40,000 transactions five times over: a transaction is still remembered after
	// 160,000 others came in behind it, which at 5,000 a second is half a minute of waiting. A forgotten one is only
	// verified again. At 112 bytes each (see [Cache]) they take 22 MB.
	DefaultEntries = 200_000

	// shards keeps the mempool's workers and the executing goroutine from waiting for each other: a lock is held for
	// one map operation, about 100 ns.
	shards = 16

	// chunk is how many signatures a goroutine takes at a time: one full ed25519 batch of crypto.VerifyAll. Fewer raise
	// the price of each signature; more leave a core idle at the end, 64 being 1.5 ms of work.
	chunk = 64
)

// Cache remembers the fingerprints of authorizations that have verified. It implements [ledger.Verifier], answers what
// [ledger.Direct] would answer, and may be used by any number of goroutines.
//
// Only good verdicts are remembered: a bad transaction is refused where it came in and not asked about again, and
// strangers could otherwise fill the memory for free. When the memory is full the oldest verdict goes.
//
// An entry takes 32 bytes in its shard's ring and 32 bytes in its map, which Go keeps between 7/16 and 7/8 full with a
// control byte each: 32 + 33*16/7 = 107 bytes at worst, 112 with the ring's rounding.
type Cache struct {
	shards   [shards]shard
	hits     atomic.Uint64
	misses   atomic.Uint64
	verified atomic.Uint64
}

// shard holds the fingerprints whose first byte is its number modulo the number of shards. mu guards the rest.
type shard struct {
	mu    sync.Mutex
	known map[crypto.Hash]struct{}
	ring  []crypto.Hash // the known ones in the order in which they came; the oldest is at next once the ring is full
	next  int
}

// Counters are what a cache has done since it was made.
type Counters struct {
	Hits     uint64 // authorizations that were remembered
	Misses   uint64 // authorizations that had to be verified
	Verified uint64 // signatures verified for them
}

// NewCache makes a cache that remembers the given number of authorizations, rounded up to a multiple of 16. It panics on
// less than 1, which is a mistake in the configuration that nobody checked.
func NewCache(entries int) *Cache {
	if entries < 1 {
		panic(fmt.Sprintf("a signature cache of %d entries", entries))
	}
	c := &Cache{}
	for i := range c.shards {
		c.shards[i].known = map[crypto.Hash]struct{}{}
		c.shards[i].ring = make([]crypto.Hash, 0, (entries+shards-1)/shards)
	}
	return c
}

// Counters returns what the cache has done so far.
func (c *Cache) Counters() Counters {
	return Counters{Hits: c.hits.Load(), Misses: c.misses.Load(), Verified: c.verified.Load()}
}

// Verify implements [ledger.Verifier].
func (c *Cache) Verify(a ledger.Authorization) bool {
	if c.knows(a.Fingerprint) {
		c.hits.Add(1)
		return true
	}
	c.misses.Add(1)
	for _, good := range c.verify(a.Checks) {
		if !good {
			return false
		}
	}
	c.remember(a.Fingerprint)
	return true
}

// VerifyMany answers for many authorizations by index, for each what [Cache.Verify] answers. The signatures of those
// that are not remembered are verified together, by at most the given number of goroutines including the calling one.
func (c *Cache) VerifyMany(auths []ledger.Authorization, workers int) []bool {
	verdicts := make([]bool, len(auths))
	var checks []crypto.Check
	var owners []int // by check: index into auths
	for i, a := range auths {
		verdicts[i] = true
		if c.knows(a.Fingerprint) {
			c.hits.Add(1)
			continue
		}
		c.misses.Add(1)
		checks = append(checks, a.Checks...)
		for range a.Checks {
			owners = append(owners, i)
		}
	}
	good := make([]bool, len(checks))
	var taken atomic.Int64
	work := func() {
		for {
			end := int(taken.Add(chunk))
			start := end - chunk
			if start >= len(checks) {
				return
			}
			end = min(end, len(checks))
			copy(good[start:end], c.verify(checks[start:end]))
		}
	}
	var helpers sync.WaitGroup
	for range min(workers, (len(checks)+chunk-1)/chunk) - 1 {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
	for k, i := range owners {
		verdicts[i] = verdicts[i] && good[k]
	}
	for i, a := range auths {
		if verdicts[i] {
			c.remember(a.Fingerprint)
		}
	}
	return verdicts
}

// verifyAll is crypto.VerifyAll but for the test of what a panic does.
var verifyAll = crypto.VerifyAll

// verify verifies signatures in the calling goroutine. crypto promises not to panic on any bytes; should a library under
// it break that promise, the one signature that causes it is bad and the others are judged as always.
func (c *Cache) verify(checks []crypto.Check) (good []bool) {
	c.verified.Add(uint64(len(checks)))
	defer func() {
		if recover() == nil {
			return
		}
		good = make([]bool, len(checks))
		for i := range checks {
			good[i] = verifyAlone(checks[i : i+1])
		}
	}()
	return verifyAll(checks)
}

func verifyAlone(check []crypto.Check) (good bool) {
	defer func() {
		if recover() != nil {
			good = false
		}
	}()
	return verifyAll(check)[0]
}

func (c *Cache) shard(fingerprint crypto.Hash) *shard { return &c.shards[fingerprint[0]%shards] }

func (c *Cache) knows(fingerprint crypto.Hash) bool {
	s := c.shard(fingerprint)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.known[fingerprint]
	return known
}

func (c *Cache) remember(fingerprint crypto.Hash) {
	s := c.shard(fingerprint)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.known[fingerprint]; known {
		return
	}
	if len(s.ring) < cap(s.ring) {
		s.ring = append(s.ring, fingerprint)
	} else {
		delete(s.known, s.ring[s.next])
		s.ring[s.next] = fingerprint
		s.next = (s.next + 1) % len(s.ring)
	}
	s.known[fingerprint] = struct{}{}
}
