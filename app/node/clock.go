package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cometbft/cometbft/consensus"
	cmtstate "github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/types"
)

const (
	// clockWindow is how long a vote counts for the estimate. It is below clockPatience, so that one burst of old votes
	// stops no node.
	clockWindow = 5 * time.Second
	// clockPatience is how long the clock has to be off before the node stops.
	clockPatience = 10 * time.Second
	// clockWarning is the offset from which on the node says something.
	clockWarning = time.Second
)

// clock estimates how far this machine's clock is from those of the other validators, by the times in their votes.
//
// A vote carries its signer's time and takes a moment to come, so receipt less that time is the offset plus the way. Of each
// validator the least of the last seconds is taken, and of these the median by power. The own validator counts with what it
// thinks itself, no offset. There is an estimate only while more than two thirds of the power is heard: then less than a third
// that lies is less than half of what is heard, and does not move the median beyond what honest ones say, not even while
// others are down or cut off. A positive offset means that the own clock is ahead.
//
// Votes that are old when they come, to a node that is behind its peers, would make its clock look ahead: the caller
// leaves them out. All methods may be called from any goroutine.
type clock struct {
	mu      sync.Mutex
	own     string              // validator of this node
	powers  map[string]uint64   // of the set's validators
	samples map[string][]sample // by validator, of the last clockWindow
	beyond  time.Time           // since when the offset is above the limit; zero: it is not
	warned  time.Time
}

type sample struct {
	at     time.Time // of this machine, with the monotonic clock
	offset time.Duration
}

// weigh tells the clock who votes, and with what power. It knows nothing before.
func (c *clock) weigh(own string, powers map[string]uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own, c.powers = own, powers
}

// saw enters a vote.
func (c *clock) saw(validator string, signed, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.samples == nil {
		c.samples = map[string][]sample{}
	}
	// The wall clocks are compared: signed has no monotonic part.
	c.samples[validator] = append(c.trim(c.samples[validator], received), sample{received, received.Sub(signed)})
}

func (c *clock) trim(s []sample, now time.Time) []sample {
	return slices.DeleteFunc(s, func(s sample) bool { return now.Sub(s.at) > clockWindow })
}

// offset returns the estimate; false when no votes came lately.
func (c *clock) offset(now time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.estimate(now)
}

func (c *clock) estimate(now time.Time) (time.Duration, bool) {
	type said struct {
		offset time.Duration
		power  uint64
	}
	var least []said
	var heard, all uint64 // powers are at most 100 times 2^50
	for v, s := range c.samples {
		if s = c.trim(s, now); len(s) == 0 {
			delete(c.samples, v)
			continue
		}
		c.samples[v] = s
		if power := c.powers[v]; power > 0 && v != c.own {
			least = append(least, said{slices.MinFunc(s, func(a, b sample) int { return cmp.Compare(a.offset, b.offset) }).offset, power})
			heard += power
		}
	}
	if len(least) == 0 {
		return 0, false
	}
	if power := c.powers[c.own]; power > 0 {
		least = append(least, said{0, power})
		heard += power
	}
	for _, power := range c.powers {
		all += power
	}
	if 3*heard <= 2*all {
		return 0, false
	}
	slices.SortFunc(least, func(a, b said) int { return cmp.Compare(a.offset, b.offset) })
	// Where one half of the power is below a gap and the other above it, both ends are medians; the nearer to zero harms less.
	var below uint64
	var median time.Duration
	for i, s := range least {
		if below += s.power; 2*below < heard {
			continue
		}
		if median = s.offset; 2*below == heard && least[i+1].offset.Abs() < median.Abs() {
			median = least[i+1].offset
		}
		break
	}
	return median, true
}

// check tells whether the clock has been further off than the limit for clockPatience, and whether to warn.
func (c *clock) check(now time.Time, limit time.Duration) (off time.Duration, warn, stop bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	off, known := c.estimate(now)
	if !known || off.Abs() <= limit {
		c.beyond = time.Time{}
	} else if c.beyond.IsZero() {
		c.beyond = now
	}
	if known && off.Abs() > clockWarning && now.Sub(c.warned) > time.Minute {
		c.warned, warn = now, true
	}
	return off, warn, !c.beyond.IsZero() && now.Sub(c.beyond) >= clockPatience
}

// checkClock refuses to start with a clock that is behind the newest block by more than the limit. CometBFT would panic, with
// no exit code of ours, when it finds in its log that the others have accepted a block which is a minute ahead of the clock.
func checkClock(state cmtstate.State, now time.Time, limit time.Duration) error {
	if behind := state.LastBlockTime.Sub(now); state.LastBlockHeight > 0 && behind > limit {
		return stop("clock_off", "the clock of this machine says %s, %s before the time of its newest block (%d; limit %s)", now.UTC().Format(time.RFC3339), behind.Round(time.Second), state.LastBlockHeight, limit)
	}
	return nil
}

// watchVotes feeds the clock with the votes of the other validators.
func (n *Node) watchVotes(ctx context.Context) {
	const name = "pacioli-clock"
	for ctx.Err() == nil {
		votes, err := n.comet.EventBus().Subscribe(ctx, name, types.EventQueryVote, 1000)
		if err != nil {
			return // the node is stopping
		}
		for open := true; open; {
			select {
			case <-ctx.Done():
				return
			case <-votes.Canceled(): // a moment's burst was more than the buffer holds
				open = false
			case message := <-votes.Out():
				received := time.Now()
				vote, ok := message.Data().(types.EventDataVote)
				if own := n.own(); ok && string(vote.Vote.ValidatorAddress) != string(own[:]) && !n.behind(vote.Vote.Height, vote.Vote.Round) {
					n.clock.saw(string(vote.Vote.ValidatorAddress), vote.Vote.Timestamp, received)
				}
			}
		}
		_ = n.comet.EventBus().UnsubscribeAll(context.Background(), name) // it is gone already where it was cancelled
	}
}

// behind tells whether most peers are well above a height, or in a later round of it, so that its votes are old. Peers give a
// node the votes of the round that it is in: one that comes back to a chain that has stood still for an hour goes through all
// rounds since, and gets votes that are an hour old, for as long as that takes.
func (n *Node) behind(height int64, round int32) bool {
	var at []place
	for _, peer := range n.comet.Switch().Peers().Copy() {
		if state, ok := peer.Get(types.PeerStateKey).(*consensus.PeerState); ok {
			rs := state.GetRoundState()
			at = append(at, place{rs.Height, rs.Round})
		}
	}
	return n.comet.ConsensusReactor().WaitSync() || old(place{height, round}, at)
}

// place is where in consensus a node is.
type place struct {
	height int64
	round  int32
}

// old tells whether a vote is, by where the peers are. One that lies about that can only silence the clock.
func old(vote place, peers []place) bool {
	ahead := 0
	for _, p := range peers {
		if p.height > vote.height+1 || p.height == vote.height && p.round > vote.round {
			ahead++
		}
	}
	return ahead*2 > len(peers)
}
