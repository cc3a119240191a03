package testnet

import "context"

// Cluster is a network whose nodes can be broken: processes of this machine, or containers. Nodes go by their index in the
// topology. Methods may be called at the same time for different nodes; for one node one after another, and AddNode alone.
type Cluster interface {
	// Nodes describes the nodes; AddNode appends to them.
	Nodes() []NodeSpec
	// URL is where a node's RPC is reached from this machine.
	URL(i int) string
	// Wallet is the home of a wallet with the keys alice, bob, bank and treasury.
	Wallet() string

	// Start starts a node that does not run, and does not wait until it answers.
	Start(ctx context.Context, i int) error
	// Stop ends a node as an operator would, and waits; when its patience is over it kills.
	Stop(ctx context.Context, i int) error
	// Kill ends a node by SIGKILL and waits until it is gone.
	Kill(ctx context.Context, i int) error
	// Pause stops a node's clock; Resume lets it go on.
	Pause(ctx context.Context, i int) error
	Resume(ctx context.Context, i int) error
	// Disconnect cuts a node off its peers, whose packets are lost from then on; Reconnect ends that. Whether the node's RPC can
	// be reached meanwhile differs.
	Disconnect(ctx context.Context, i int) error
	Reconnect(ctx context.Context, i int) error
	// Wipe removes everything that a node that does not run has stored, but what its key has signed last, without which it
	// could sign twice.
	Wipe(ctx context.Context, i int) error
	// State tells how a node is.
	State(ctx context.Context, i int) (State, error)
	// Logs returns the end of what a node has logged.
	Logs(ctx context.Context, i int, lines int) (string, error)
	// Exec runs the node's program with its home as --home, as `fsck`, and returns what it prints. The node need not run.
	Exec(ctx context.Context, i int, args ...string) (string, error)
	// AddNode makes another node, which does not run yet. One that is called a validator becomes one by vote.
	AddNode(ctx context.Context, n NodeSpec) (int, error)
}

// State is how a node is.
type State struct {
	Running  bool
	Paused   bool
	Ended    bool // it ran and has ended, by itself or not
	ExitCode int  // when it has ended: 128 and the signal's number for one that was killed
}
