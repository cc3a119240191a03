// Package client is how a program uses a ledger that it does not trust: it builds and signs transactions, sends them to
// several nodes, waits until they are final, and reads balances, accounts and assets.
//
// Everything it hands out as a fact is verified against headers that more than two thirds of the validators signed
// (client/light), and then by the proofs of ledger/proof; what cannot be verified is an error, never a warning. What is
// only a node's word has Hint in its name. A bug here misleads one user.
//
// The way of a payment: [Client.Build] reads what it needs and computes the fee, [Draft.Sign] signs, [Client.Send] hands
// the bytes to one node after the other until a block holds them and the receipt is proven. The same bytes may be sent
// as often as one likes: they take effect at most once, and the original receipt comes back. What can become of them is an
// [Outcome].
package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// DefaultMaxStaleness is how far behind our clock the newest state may be. A chain makes a block a second when idle;
	// a minute leaves room for clocks that differ and for a validator's restart.
	DefaultMaxStaleness = time.Minute

	// patience is how long a read waits for a node to reach the state that is asked for: some block times.
	patience = 15 * time.Second
)

// Trust is a header that somebody trusted has told the user about.
type Trust = light.Root

// ParseTrust reads HEIGHT:HASH, with the hash in hex as `pacioli status` and CometBFT print it.
func ParseTrust(text string) (*Trust, error) {
	h, x, ok := strings.Cut(text, ":")
	height, err := strconv.ParseUint(h, 10, 63)
	hash, hexErr := hex.DecodeString(x)
	if !ok || err != nil || height == 0 || hexErr != nil || len(hash) != 32 {
		return nil, fmt.Errorf("trust %q: want HEIGHT:HASH, a height from 1 and 64 hex digits", text)
	}
	return &Trust{Height: height, Hash: hash}, nil
}

// Options say which nodes to ask, and what to trust instead of them.
type Options struct {
	// Nodes are URLs, as http://127.0.0.1:26657. Each serves CometBFT's RPC and the ledger's /v1 on one port.
	Nodes []string

	// One of the three roots of trust is needed; with Genesis the network's id is known without asking anybody.
	Genesis     *types.GenesisDoc // complete, as from [ParseGenesis]
	GenesisFile string
	Trust       *Trust // wins over genesis as a starting point

	ChainID string // needed with Trust alone
	Dir     string // of the verified headers; "" keeps them in memory

	TrustPeriod  time.Duration // 0: light.DefaultTrustPeriod
	MaxStaleness time.Duration // 0: DefaultMaxStaleness

	Logger *slog.Logger // failovers and lies; nil drops them
}

// Client talks to the nodes of one network. It is safe for concurrent use. Its reads of the newest state never go back
// behind a height that it has handed out before.
type Client struct {
	log          *slog.Logger
	light        *light.Client
	nodes        []*node
	genesis      *ledger.Genesis // nil when only a header is trusted
	evidenceAge  time.Duration   // by that genesis; 0: unknown
	network      ledger.Network
	maxStaleness time.Duration

	preferred atomic.Uint32 // index of the node that answered the last read
	turn      atomic.Uint32 // for the nodes that get transactions, one after the other

	mu    sync.Mutex
	floor uint64 // newest height handed out
}

// Dial checks the options and finds the root of trust. It needs a node that answers, unless Dir holds headers that are
// young enough and Genesis is given.
func Dial(ctx context.Context, o Options) (*Client, error) {
	c := &Client{log: o.Logger, maxStaleness: o.MaxStaleness}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.maxStaleness == 0 {
		c.maxStaleness = DefaultMaxStaleness
	}
	if len(o.Nodes) == 0 {
		return nil, errors.New("no node is given")
	}
	for _, address := range o.Nodes {
		n, err := newNode(address)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	lo := light.Options{ChainID: o.ChainID, Root: o.Trust, TrustPeriod: o.TrustPeriod, Logger: o.Logger}
	for _, n := range c.nodes {
		lo.Endpoints = append(lo.Endpoints, n.name)
	}
	if o.Dir != "" {
		lo.Dir = filepath.Join(o.Dir, "light")
	}
	doc := o.Genesis
	if doc == nil && o.GenesisFile != "" {
		var err error
		if doc, _, err = ReadGenesis(o.GenesisFile); err != nil {
			return nil, err
		}
	}
	if doc != nil {
		g, err := GenesisFromDoc(doc)
		if err != nil {
			return nil, fmt.Errorf("genesis: %w", err)
		}
		if c.network, err = g.Network(); err != nil {
			return nil, fmt.Errorf("genesis: %w", err)
		}
		c.genesis = &g
		if doc.ConsensusParams != nil {
			c.evidenceAge = doc.ConsensusParams.Evidence.MaxAgeDuration
		}
		lo.Genesis = &light.Genesis{Doc: doc, NetworkID: c.network.ID[:]}
	}
	var err error
	if c.light, err = light.Open(ctx, lo); err != nil {
		return nil, err
	}
	if c.genesis == nil {
		// The header is trusted, so the state below it says which network this is.
		network, err := c.Network(ctx, 0)
		if err != nil {
			return nil, fmt.Errorf("reading which network this is: %w", err)
		}
		if !network.Present || network.Value.ChainID != o.ChainID {
			return nil, fmt.Errorf("the state is of chain %q, want %q", network.Value.ChainID, o.ChainID)
		}
		c.network = network.Value
	}
	return c, nil
}

// NetworkID returns the identity of the network that the client was opened for.
func (c *Client) NetworkID() ledger.Network { return c.network }

// Genesis returns the genesis that the client trusts; ok is false when it trusts a header instead.
func (c *Client) Genesis() (g ledger.Genesis, ok bool) {
	if c.genesis == nil {
		return ledger.Genesis{}, false
	}
	return *c.genesis, true
}

// EvidenceAge returns how long evidence of equivocation counts, which the network has had since its genesis. Only the genesis file proves
// it: a client that trusts a header instead takes the word of the first node that answers.
func (c *Client) EvidenceAge(ctx context.Context) (time.Duration, error) {
	if c.evidenceAge != 0 {
		return c.evidenceAge, nil
	}
	var errs []error
	for _, n := range c.inOrder(c.preferred.Load()) {
		answer, err := n.rpc.ConsensusParams(ctx, nil)
		if err == nil {
			return answer.ConsensusParams.Evidence.MaxAgeDuration, nil
		}
		errs = append(errs, &nodeError{n.name, err})
	}
	return 0, fmt.Errorf("asking how long evidence counts: %w", join(errs...))
}

// Headers returns the client of verified headers.
func (c *Client) Headers() *light.Client { return c.light }

// inOrder returns the nodes from number first on.
func (c *Client) inOrder(first uint32) []*node {
	k := int(first % uint32(len(c.nodes)))
	return append(append(make([]*node, 0, len(c.nodes)), c.nodes[k:]...), c.nodes[:k]...)
}

// handedOut raises the height below which no read of the newest state goes.
func (c *Client) handedOut(height uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = max(c.floor, height)
}

func (c *Client) lowest() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// joined is several errors in one line, each text once.
type joined []error

func (j joined) Error() string {
	var texts []string
	for _, err := range j {
		if text := err.Error(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// join is errors.Join for texts that are read in one line.
func join(errs ...error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return joined(errs)
}
