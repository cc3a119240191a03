package chaos

import (
	"slices"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/testnet/proxy"
)

// network is what is broken: processes or containers. Nodes go by their index. One node's methods are called one after another.
type network interface {
	// names, urls and doc describe the network.
	names() []string
	urls() []string
	doc() *types.GenesisDoc
	// start runs a node that does not run. The faulty program is for clocks and disks.
	start(i int, faulty bool) error
	// stop ends a node as an operator would, kill by SIGKILL; both wait until it has ended.
	stop(i int) error
	kill(i int) error
	running(i int) bool
	// exit is the code that a node which has ended by itself ended with; -1: by a signal.
	exit(i int) int
	// configure changes the configuration of a node, from its next start on.
	configure(i int, change func(*node.Config)) error
	// inner are the URLs under which nodes reach each other.
	inner() []string
	pause(i int) error
	resume(i int) error
	// offline takes a node out of the network, without telling anybody, or puts it back. It may not answer meanwhile.
	offline(i int, off bool) error
	// links puts links between nodes, which go by their names, under conditions.
	links(settings ...proxy.Setting) error
	// wipe removes what a node that does not run has stored, but for its keys and what they have signed last.
	wipe(i int) error
	// clock and disk are for nodes that run the faulty program, the clock from its next start on. They leave no trace at 0 and false.
	clock(i int, seconds int) error
	disk(i int, full bool) error
	// twin runs a second node with the key of a node, and makes both sign whatever they see; endTwin ends it and starts the
	// first one as it was.
	twin(i int) error
	endTwin(i int) error
	// wallet is the folder with the operators' keys.
	wallet() string
	// kept says where logs and data are, for people.
	kept() string
	// last returns the end of a node's log.
	last(i, lines int) string
	close()
}

// powersOf is the power of each node in the genesis document, which calls validators by the names of their nodes; 0: it does
// not vote.
func powersOf(names []string, doc *types.GenesisDoc) []int64 {
	powers := make([]int64, len(names))
	for _, v := range doc.Validators {
		if i := slices.Index(names, v.Name); i >= 0 {
			powers[i] = v.Power
		}
	}
	return powers
}
