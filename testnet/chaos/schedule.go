package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault is a way to break a network.
type Fault string

// The faults. Each is of one node, but for those that say otherwise.
const (
	Kill       Fault = "kill"       // SIGKILL
	Pause      Fault = "pause"      // SIGSTOP, or docker pause
	Disconnect Fault = "disconnect" // nothing gets to the node or from it, and nobody is told
	Reject     Fault = "reject"     // its connections are closed, and new ones refused
	OneWay     Fault = "one-way"    // nobody hears the node, and it hears everybody; or the other way round
	Delay      Fault = "delay"      // every link of the network is slow, and its speed bounded
	DiskFull   Fault = "disk-full"  // every write fails with ENOSPC
	Roll       Fault = "roll"       // one node after another is stopped and started as an operator would
	Wipe       Fault = "wipe"       // it loses all that it has stored but its keys and what they have signed last
	Twin       Fault = "twin"       // a second node signs with its key, and hears of other transactions
	Behind90   Fault = "clock-90s"  // its clock is 90 s late
	Behind45   Fault = "clock-45s"
	Ahead90    Fault = "clock+90s"
	// Long cuts one node off for longer than CometBFT tries to reach it at short intervals.
	Long Fault = "long-cut"
)

// All faults, in the order in which help names them.
var All = []Fault{Kill, Pause, Disconnect, Reject, OneWay, Delay, DiskFull, Roll, Wipe, Twin, Behind90, Behind45, Ahead90, Long}

// ParseFaults reads a list with commas; "" and "all" are all faults. A name with a "-" before it leaves that one out.
func ParseFaults(text string) ([]Fault, error) {
	if text == "" || text == "all" {
		return slices.Clone(All), nil
	}
	var faults []Fault
	for i, name := range strings.Split(text, ",") {
		name = strings.TrimSpace(name)
		without, out := strings.CutPrefix(name, "-")
		if i == 0 && out {
			faults = slices.Clone(All)
		}
		if !slices.Contains(All, Fault(without)) {
			var names []string
			for _, f := range All {
				names = append(names, string(f))
			}
			return nil, fmt.Errorf("there is no fault %q: the faults are %s", without, strings.Join(names, ", "))
		}
		// One of 170 s fits into a run of twelve minutes.
		faults = slices.DeleteFunc(faults, func(f Fault) bool { return f == Fault(without) })
		if !out {
			faults = append(faults, Fault(name))
		}
	}
	return faults, nil
}

// clock returns by how much a fault puts a clock off; 0 for other faults.
func (f Fault) clock() time.Duration {
	switch f {
	case Behind90:
		return -90 * time.Second
	case Behind45:
		return -45 * time.Second
	case Ahead90:
		return 90 * time.Second
	}
	return 0
}

// Step is one fault of the schedule.
type Step struct {
	Before time.Duration `json:"before"` // since the step before was over
	Fault  Fault         `json:"fault"`
	Node   int           `json:"node"` // -1: all
	For    time.Duration `json:"for"`
	Inward bool          `json:"inward,omitempty"` // of a one-way partition: it is the node that hears nobody; of a wipe: its snapshot comes from peers
	Slow   time.Duration `json:"slow,omitempty"`   // of a delay
}

// Round is a safety phase and what heals it: after the steps several nodes are taken away at once, so that the others must
// not commit anything; then everything is healed and must go on.
type Round struct {
	Steps []Step        `json:"steps"`
	Down  []int         `json:"down"` // nodes that are taken away together; none when no number of them would stop the network
	Hard  bool          `json:"hard"` // they are killed, else cut off
	For   time.Duration `json:"for"`
}

const (
	// roundSteps is how many faults come before the network has to heal.
	roundSteps = 12
	// recovers is what a step costs besides its own time: the nodes' restart and catching up.
	recovers = 3 * time.Second
	// downCosts is what the phase with too few nodes and the healing cost.
	downCosts = 15 * time.Second
	// longCut is above the 20 attempts, 5 to 8 s apart, after which CometBFT's pauses grow to minutes.
	longCut = 170 * time.Second
)

// cost is how long a step takes, about.
func (s Step) cost(nodes int) time.Duration {
	switch c := s.Before + s.For + recovers; s.Fault {
	case Roll:
		return c + time.Duration(nodes)*recovers
	case Twin, Wipe:
		return c + 2*recovers
	case DiskFull, Behind90, Behind45, Ahead90: // two starts, and what a node waits before it ends
		return c + 5*recovers
	default:
		return c
	}
}

// schedule draws the rounds that fill a duration. powers are the nodes' voting powers, 0 for those that do not vote. The
// same seed draws the same. Each fault comes once before any comes again. A twin comes once in all, and last in its round: its
// validator loses its power for it, so special, the only node for clocks and disks unless it is -1, is not chosen for it.
func schedule(seed uint64, duration time.Duration, faults []Fault, powers []int64, special int) []Round {
	random := rand.New(rand.NewPCG(seed, 0x6368616f73))
	var deck []Fault
	twin := slices.Contains(faults, Twin)
	// One of 170 s fits into a run of twelve minutes.
	faults = slices.DeleteFunc(slices.Clone(faults), func(f Fault) bool { return f == Twin || f == Long && duration < 4*longCut })
	powers = slices.Clone(powers)
	validators := func() (list []int) {
		for i, p := range powers {
			if p > 0 {
				list = append(list, i)
			}
		}
		return list
	}
	between := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(random.Int64N(int64(high-low)))).Round(100 * time.Millisecond)
	}
	longest := min(max(duration/30, 6*time.Second), 40*time.Second)
	var rounds []Round
	var spent time.Duration
	for len(rounds) == 0 || spent+downCosts+3*recovers < duration {
		var r Round
		last := duration - spent - downCosts // what is left for steps
		withTwin := twin && (len(rounds) > 0 || duration < 10*time.Minute)
		twinStep := Step{Before: between(time.Second, 3*time.Second), Fault: Twin, For: 5 * time.Second}
		if withTwin {
			last -= twinStep.cost(len(powers))
		}
		for len(r.Steps) < roundSteps && len(faults) > 0 {
			if len(deck) == 0 {
				deck = slices.Clone(faults)
				random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			s := Step{Before: between(500*time.Millisecond, 3*time.Second), Fault: deck[0], Node: random.IntN(len(powers)), For: between(3*time.Second, longest),
				Inward: random.IntN(2) == 0}
			switch s.Fault {
			case Delay:
				s.Node, s.Slow = -1, between(50*time.Millisecond, 300*time.Millisecond)
			case Roll:
				s.Node, s.For = -1, 0
			case Long:
				s.For = longCut
			case Wipe:
				s.For = 0
			case Behind45, Behind90, Ahead90: // of one that votes, or nothing is shown
				s.Node = validators()[random.IntN(len(validators()))]
			}
			if special >= 0 && (s.Fault == DiskFull || s.Fault.clock() != 0) {
				s.Node = special
			}
			if s.Fault == Wipe && s.Node == len(powers)-1 {
				s.Node-- // the last one keeps the whole chain, for the audit
			}
			if s.Fault != OneWay && s.Fault != Wipe {
				s.Inward = false
			}
			c := s.cost(len(powers))
			if c > last && len(r.Steps) > 0 {
				break
			}
			last -= c
			spent += c
			deck = deck[1:]
			r.Steps = append(r.Steps, s)
		}
		if withTwin && len(validators()) >= 4 {
			v := slices.DeleteFunc(validators(), func(i int) bool { return i == special })
			twinStep.Node = v[random.IntN(len(v))]
			r.Steps = append(r.Steps, twinStep)
			spent += twinStep.cost(len(powers))
			powers[twinStep.Node] = 0
			twin = false
		}
		r.Down, r.Hard, r.For = tooMany(random, powers), random.IntN(2) == 0, between(3*time.Second, 6*time.Second)
		spent += downCosts
		rounds = append(rounds, r)
		if len(faults) == 0 {
			break
		}
	}
	return rounds
}

// tooMany draws the fewest validators without which the others have no more than two thirds of the power.
func tooMany(random *rand.Rand, powers []int64) (down []int) {
	var total, left int64
	for _, p := range powers {
		total += p
	}
	left = total
	for _, i := range random.Perm(len(powers)) {
		if 3*left <= 2*total {
			break
		}
		if powers[i] > 0 {
			down = append(down, i)
			left -= powers[i]
		}
	}
	if left == 0 { // nobody would be there to be asked
		return nil
	}
	slices.Sort(down)
	return down
}

// text says a step in words.
func (s Step) text(names []string) string {
	who := "every node"
	if s.Node >= 0 {
		who = names[s.Node]
	}
	switch s.Fault {
	case Kill:
		return fmt.Sprintf("kill %s, start it %s later", who, s.For)
	case Pause:
		return fmt.Sprintf("pause %s for %s", who, s.For)
	case Disconnect:
		return fmt.Sprintf("pull the cable of %s for %s", who, s.For)
	case Reject:
		return fmt.Sprintf("close the connections of %s and refuse new ones for %s", who, s.For)
	case Long:
		return fmt.Sprintf("refuse the connections of %s for %s", who, s.For)
	case OneWay:
		if s.Inward {
			return fmt.Sprintf("let nothing get to %s for %s", who, s.For)
		}
		return fmt.Sprintf("let nothing get from %s for %s", who, s.For)
	case Delay:
		return fmt.Sprintf("delay every link by %s and a fifth of that at random, and bound it to 1 Mbit/s, for %s", s.Slow, s.For)
	case DiskFull:
		return fmt.Sprintf("fill the disk of %s for %s", who, s.For)
	case Roll:
		return "stop and start every node, one after another"
	case Wipe:
		from := "servers"
		if s.Inward {
			from = "peers"
		}
		return fmt.Sprintf("wipe %s, which then takes a snapshot from its %s", who, from)
	case Twin:
		return fmt.Sprintf("run a twin with the key of %s", who)
	default:
		return fmt.Sprintf("put the clock of %s off by %s for %s", who, s.Fault.clock(), s.For)
	}
}

// Lines says a schedule in words.
func Lines(rounds []Round, names []string) (lines []string) {
	for n, r := range rounds {
		lines = append(lines, fmt.Sprintf("round %d of %d", n+1, len(rounds)))
		for _, s := range r.Steps {
			lines = append(lines, fmt.Sprintf("  after %-5s %s", s.Before, s.text(names)))
		}
		if len(r.Down) > 0 {
			var down []string
			for _, i := range r.Down {
				down = append(down, names[i])
			}
			how := "cut off"
			if r.Hard {
				how = "kill"
			}
			lines = append(lines, fmt.Sprintf("  %s %s together for %s: nothing may be committed", how, strings.Join(down, " and "), r.For))
		}
		lines = append(lines, "  heal: blocks within 15 s, and every node gets to the same state")
	}
	return lines
}
