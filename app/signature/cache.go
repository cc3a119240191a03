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
	return c.VerifyMany([]ledger.Authorization{a}, 1)[0]
}

// VerifyMany answers for many authorizations by index, for each what [Cache.Verify] answers. The signatures of those
// that are not remembered are verified together, by at most the given number of goroutines including the calling one.
//
// They go in three waves: of each transaction the first signature of its payer, the payer's others, everything else. What
// has failed in one has no part in the next. So whoever names a payer that has not signed gets one verification for it,
// however many signatures and keys the transaction has. The verdicts are the same in any order.
func (c *Cache) VerifyMany(auths []ledger.Authorization, workers int) []bool {
	verdicts := make([]bool, len(auths))
	missed := make([]int, 0, len(auths)) // indexes into auths
	for i, a := range auths {
		verdicts[i] = true
		if c.knows(a.Fingerprint) {
			c.hits.Add(1)
			continue
		}
		c.misses.Add(1)
		missed = append(missed, i)
	}
	for wave := range 3 {
		var checks []crypto.Check
		var owners []int // by check: index into auths
		for _, i := range missed {
			if !verdicts[i] {
				continue
			}
			part := waveOf(auths[i], wave)
			checks = append(checks, part...)
			for range part {
				owners = append(owners, i)
			}
		}
		c.verifyTogether(checks, owners, verdicts, workers)
	}
	for _, i := range missed {
		if verdicts[i] {
			c.remember(auths[i].Fingerprint)
		}
	}
	return verdicts
}

// waveOf returns an authorization's checks of one of the three waves of VerifyMany.
func waveOf(a ledger.Authorization, wave int) []crypto.Check {
	first := min(1, len(a.Checks))
	payer := max(first, a.Payer)
	switch wave {
	case 0:
		return a.Checks[:first]
	case 1:
		return a.Checks[first:payer]
	}
	return a.Checks[payer:]
}

// verifyTogether verifies checks and makes the verdicts of the owners of bad ones false. What is left of an owner when a
// chunk begins and one of its checks is known to be bad is not verified.
func (c *Cache) verifyTogether(checks []crypto.Check, owners []int, verdicts []bool, workers int) {
	if len(checks) == 0 {
		return
	}
	var taken atomic.Int64
	var mu sync.Mutex // guards verdicts
	work := func() {
		for {
			end := int(taken.Add(chunk))
			start := end - chunk
			if start >= len(checks) {
				return
			}
			end = min(end, len(checks))
			mu.Lock()
			part, of := make([]crypto.Check, 0, end-start), make([]int, 0, end-start)
			for k := start; k < end; k++ {
				if verdicts[owners[k]] {
					part, of = append(part, checks[k]), append(of, owners[k])
				}
			}
			mu.Unlock()
			good := c.verify(part)
			mu.Lock()
			for k, i := range of {
				verdicts[i] = verdicts[i] && good[k]
			}
			mu.Unlock()
		}
	}
	var helpers sync.WaitGroup
	for range min(workers, (len(checks)+chunk-1)/chunk) - 1 {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
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
