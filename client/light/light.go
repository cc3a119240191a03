// Package light is how a client gets block headers that it can trust from nodes that it does not trust.
//
// It keeps CometBFT's light client in order: it fixes the root of trust (the genesis file, or a height and hash that the
// user was told), compares every header among all endpoints that answer, fails over between them, and keeps what it has
// verified on disk, so that a command that runs for a second need not start from genesis each time.
//
// # What an attacker gains
//
// Endpoints cannot make it accept a header that fewer than 2/3 of the validators signed. They can withhold (the call
// fails), and all together they can show an old chain end: look at Header.Time. Whoever holds the keys of more than 2/3 of
// the power of a trusted validator set can forge; two endpoints that disagree are an error that names them. Whoever can
// write to the store's directory can plant a chain: it is the user's own, as the wallet's keys are.
//
// What could not be verified is an error, never a warning.
package light

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	cmtlight "github.com/cometbft/cometbft/light"
	"github.com/cometbft/cometbft/light/provider"
	"github.com/cometbft/cometbft/types"
)

const (
	// DefaultTrustPeriod is how old a verified header may be and still vouch for newer ones. It must stay below the time
	// for which evidence is punished (cometbft's default is 48 h), or those who signed a fork go free.
	DefaultTrustPeriod = 24 * time.Hour
	// DefaultMaxClockDrift is how far ahead of our clock a header's time may be.
	DefaultMaxClockDrift = 10 * time.Second

	// keepBlocks bounds the verified blocks in the store, on disk and in memory. With 4 ml_dsa_65 validators one has
	// 21 KB (4 signatures of 3,309 bytes and keys of 1,952), so 100 are 2 MB.
	keepBlocks = 100
	// backLimit bounds the headers that are fetched one by one to reach an old height along the hash links; at 3 ms for
	// each that is 15 s.
	backLimit = 5_000
	// callTimeout bounds one answer of an endpoint.
	callTimeout = 10 * time.Second
	// patience is how long an endpoint may take to reach a height that it says is ahead of it: an idle chain makes a
	// block a second, and the header that proves the newest state is always one ahead.
	patience = 3 * time.Second
	// pollInterval is the pause between two questions while waiting for such a height.
	pollInterval = 50 * time.Millisecond
	// cooldown is how long an endpoint that did not answer, or answered nonsense, is left out.
	cooldown = 10 * time.Second
	// freshness separates, for Latest, endpoints at the chain's end from those that lag behind it.
	freshness = 10 * time.Second
)

var (
	// ErrNotYet is returned for a height that no endpoint has reached.
	ErrNotYet = errors.New("height is not reached yet")
	// ErrPruned is returned for a height that the endpoints have deleted.
	ErrPruned = errors.New("height is pruned at every endpoint")
	// ErrTrustExpired is returned when nothing trusted is young enough. The text says how to go on.
	ErrTrustExpired = errors.New("trust has expired")
)

// Divergence is the error for endpoints that show different blocks at one height: at least one of them lies, or the
// validators signed a fork. None of the blocks is trusted.
type Divergence struct {
	Height uint64
	Claims []Claim // at least two, ordered by endpoint
	Reason string  // what cometbft's detector said, if it was the one to find it
}

// Claim is what one endpoint says.
type Claim struct {
	Endpoint string
	Hash     []byte
}

func (d *Divergence) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "endpoints disagree about block %d", d.Height)
	for i, c := range d.Claims {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		fmt.Fprintf(&b, "%s says %X", c.Endpoint, c.Hash)
	}
	if d.Reason != "" {
		fmt.Fprintf(&b, " (%s)", d.Reason)
	}
	b.WriteString("; remove the endpoint that you do not trust, and tell the validators' operators")
	return b.String()
}

// Root is a header that the user was told about by somebody trusted.
type Root struct {
	Height uint64
	Hash   []byte // 32 bytes
}

// Genesis is trust from the chain's beginning.
type Genesis struct {
	Doc       *types.GenesisDoc // is not changed
	NetworkID []byte            // 32 bytes; nil leaves the first header's AppHash unchecked
}

// Options say whom to trust and whom to ask.
type Options struct {
	ChainID string // may be empty when Genesis names it
	// Endpoints are RPC addresses of nodes, as http://127.0.0.1:26657. All that answer are compared with each other. A
	// single one, or the only one that answers, serves as its own witness: its headers are still verified by the
	// validators' signatures, but a fork that the validators themselves signed could not be noticed.
	Endpoints     []string
	Dir           string        // of the store, created with mode 0700; "" keeps it in memory
	TrustPeriod   time.Duration // 0 means DefaultTrustPeriod
	MaxClockDrift time.Duration // 0 means DefaultMaxClockDrift
	// Genesis or Root must be given. With both, trust starts from Root, and Genesis only says whose directory it must be:
	// that Root is of the genesis file's network is then the word of whoever told it.
	Genesis *Genesis
	Root    *Root
	Logger  *slog.Logger // failovers, at level info; nil drops them

	now func() time.Time // the clock, for tests
}

// Header is a verified header. Its slices belong to the store and must not be changed.
type Header struct {
	ChainID         string
	Height          uint64
	Time            time.Time
	AppHash         []byte // of the state after block Height-1
	DataHash        []byte // over the transactions of this block
	LastResultsHash []byte // over the results of block Height-1
	Hash            []byte
	ValidatorsHash  []byte
	Block           *types.LightBlock // the whole, with commit and validators; must not be changed
}

func newHeader(b *types.LightBlock) Header {
	return Header{b.ChainID, uint64(b.Height), b.Time, b.AppHash, b.DataHash, b.LastResultsHash, b.Hash(), b.ValidatorsHash, b}
}

// Client answers with verified headers. It is safe for concurrent use; headers that are not in the store are verified one
// call at a time. Several processes may share a directory.
type Client struct {
	options   Options
	store     *store
	endpoints []*endpoint
	witnessed *witnessed

	mu     sync.Mutex       // held while headers are fetched and verified
	comet  *cmtlight.Client // over the endpoints in active; nil until it is needed
	active []*endpoint
}

// Open checks the options, opens the store, and fetches and verifies the root of trust if the store holds nothing that is
// young enough. A store that belongs to another chain, or contradicts Root, is refused.
func Open(ctx context.Context, options Options) (*Client, error) {
	o := options
	if o.TrustPeriod == 0 {
		o.TrustPeriod = DefaultTrustPeriod
	}
	if o.MaxClockDrift == 0 {
		o.MaxClockDrift = DefaultMaxClockDrift
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	c := &Client{options: o, witnessed: new(witnessed)}
	for _, address := range o.Endpoints {
		e, err := dial(o.ChainID, address, c.witnessed)
		if err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", address, err)
		}
		c.endpoints = append(c.endpoints, e)
	}
	var networkID []byte
	if o.Genesis != nil {
		networkID = o.Genesis.NetworkID
	}
	var err error
	if c.store, err = openStore(o.Dir, o.ChainID, networkID); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func checkOptions(o *Options) error {
	if o.Genesis == nil && o.Root == nil {
		return errors.New("light client: neither genesis nor a trusted height and hash is given")
	}
	if g := o.Genesis; g != nil {
		if g.Doc == nil {
			return errors.New("light client: genesis document is missing")
		}
		if o.ChainID == "" {
			o.ChainID = g.Doc.ChainID
		}
		if g.Doc.ChainID != o.ChainID {
			return fmt.Errorf("light client: genesis is of chain %q, want %q", g.Doc.ChainID, o.ChainID)
		}
		if len(g.NetworkID) != 0 && len(g.NetworkID) != 32 {
			return fmt.Errorf("light client: network id has %d bytes, want 32", len(g.NetworkID))
		}
	}
	if r := o.Root; r != nil && (r.Height == 0 || r.Height > 1<<62 || len(r.Hash) != 32) {
		return fmt.Errorf("light client: trusted height %d with a hash of %d bytes, want a height above 0 and 32 bytes", r.Height, len(r.Hash))
	}
	switch {
	case o.ChainID == "" || len(o.ChainID) > types.MaxChainIDLen:
		return fmt.Errorf("light client: chain id %q, want 1 to %d bytes", o.ChainID, types.MaxChainIDLen)
	case o.TrustPeriod < 0 || o.MaxClockDrift < 0:
		return fmt.Errorf("light client: trust period %v and clock drift %v, want positive ones", o.TrustPeriod, o.MaxClockDrift)
	case len(o.Endpoints) == 0:
		return errors.New("light client: no endpoint is given")
	}
	return nil
}

// start makes sure that the store holds a trusted block to go on from.
func (c *Client) start(ctx context.Context) error {
	latest, err := c.store.latest()
	if err != nil {
		return err
	}
	usable := latest != nil && !c.expired(latest)
	if r := c.options.Root; r != nil {
		stored, err := c.store.LightBlock(int64(r.Height))
		switch {
		case err == nil && !bytes.Equal(stored.Hash(), r.Hash):
			return fmt.Errorf("%s trusts block %X at height %d, and %X is given: one of them is of a fork; "+
				"ask the validators' operators, and delete the directory if the given one is right",
				c.store.name(), stored.Hash(), r.Height, r.Hash)
		case err == nil && usable:
			return nil
		case usable:
			// What the store trusts must lead to the given block as well.
			block, err := c.verified(ctx, int64(r.Height))
			if err != nil {
				return fmt.Errorf("verify the given block %d against %s: %w", r.Height, c.store.name(), err)
			}
			if !bytes.Equal(block.Hash(), r.Hash) {
				return fmt.Errorf("trusted hash of height %d is %X, but %s leads to %X: one of them is of a fork; "+
					"ask the validators' operators, and delete the directory if the given one is right",
					r.Height, r.Hash, c.store.name(), block.Hash())
			}
			return nil
		}
		return c.trust(ctx, int64(r.Height), func(block *types.LightBlock) error {
			if !bytes.Equal(block.Hash(), r.Hash) {
				return fmt.Errorf("hash is %X, trusted is %X", block.Hash(), r.Hash)
			}
			return nil
		})
	}
	if usable {
		return nil
	}
	height := max(c.options.Genesis.Doc.InitialHeight, 1)
	validators, err := genesisValidators(c.options.Genesis.Doc)
	if err != nil {
		return err
	}
	err = c.trust(ctx, height, func(block *types.LightBlock) error {
		g := c.options.Genesis
		switch {
		case !bytes.Equal(block.ValidatorsHash, validators.Hash()):
			return fmt.Errorf("validators %X signed it, the genesis file names %X", block.ValidatorsHash, validators.Hash())
		case len(g.NetworkID) != 0 && !bytes.Equal(block.AppHash, g.NetworkID):
			return fmt.Errorf("it is of network %X, the genesis file of %X", []byte(block.AppHash), g.NetworkID)
		case !g.Doc.GenesisTime.IsZero() && !block.Time.Equal(g.Doc.GenesisTime):
			return fmt.Errorf("its time is %v, the genesis file says %v", block.Time, g.Doc.GenesisTime)
		}
		return nil
	})
	if errors.Is(err, ErrPruned) {
		return fmt.Errorf("trust from genesis needs block %d, which no endpoint has any more; add an endpoint that keeps it, "+
			"or give --trust HEIGHT:HASH of a recent block, as somebody you trust tells it: %w", height, err)
	}
	return err
}

// genesisValidators returns the set that signs the first block.
func genesisValidators(doc *types.GenesisDoc) (*types.ValidatorSet, error) {
	if len(doc.Validators) == 0 {
		return nil, errors.New("genesis file names no validators, so trust cannot start from it; give --trust HEIGHT:HASH")
	}
	var list []*types.Validator
	for i, v := range doc.Validators {
		if v.PubKey == nil || v.Power <= 0 {
			return nil, fmt.Errorf("genesis file: validator %d has no key or no power", i)
		}
		list = append(list, types.NewValidator(v.PubKey, v.Power))
	}
	set := new(types.ValidatorSet)
	if err := set.UpdateWithChangeSet(list); err != nil {
		return nil, fmt.Errorf("genesis file: validators: %w", err)
	}
	return set, nil
}

func (c *Client) expired(b *types.LightBlock) bool {
	return cmtlight.HeaderExpired(b.SignedHeader, c.options.TrustPeriod, c.options.now())
}

func (c *Client) errExpired(b *types.LightBlock) error {
	return fmt.Errorf("%w: the newest trusted block, %d of %s, is older than %v; give --trust HEIGHT:HASH of a recent block, "+
		"as somebody you trust tells it", ErrTrustExpired, b.Height, b.Time.UTC().Format(time.RFC3339), c.options.TrustPeriod)
}

// trust fetches a block that becomes trusted because of what check knows about it, and stores it.
func (c *Client) trust(ctx context.Context, height int64, check func(*types.LightBlock) error) error {
	return c.attempt(ctx, height, func(asked []*endpoint) error {
		var first *types.LightBlock
		for _, e := range asked {
			block, err := e.LightBlock(ctx, height)
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue // noted; another endpoint may have it
			}
			if first != nil {
				continue // fetched only to be compared
			}
			err = check(block)
			if err == nil {
				err = verifyCommit(c.options.ChainID, block)
			}
			if err != nil {
				// No other block can be right about what check compares, so this endpoint is wrong or ours is another chain.
				return e.wrong(fmt.Errorf("block %d of %s cannot be trusted: %w", height, e.name, err))
			}
			first = block
		}
		switch {
		case first == nil:
			return provider.ErrNoResponse
		case c.expired(first):
			return c.errExpired(first)
		case !first.Time.Before(c.options.now().Add(c.options.MaxClockDrift)):
			return fmt.Errorf("block %d is of %v, which is in the future; is this machine's clock right?", height, first.Time)
		}
		if d := c.witnessed.divergence(); d != nil {
			return d
		}
		return c.store.SaveLightBlock(first)
	})
}

// verifyCommit checks that more than 2/3 of the block's own validators signed it.
func verifyCommit(chainID string, b *types.LightBlock) error {
	if err := b.ValidateBasic(chainID); err != nil {
		return err
	}
	return b.ValidatorSet.VerifyCommitLight(chainID, b.Commit.BlockID, b.Height, b.Commit)
}

// Header returns the verified header at exactly this height. A height that is a little ahead is waited for.
//
// Errors: ErrNotYet, ErrPruned, ErrTrustExpired, *Divergence, the context's, or what the endpoints said.
func (c *Client) Header(ctx context.Context, height uint64) (Header, error) {
	if height == 0 || height > 1<<62 {
		return Header{}, fmt.Errorf("header at height %d: want a height above 0", height)
	}
	if block, err := c.store.LightBlock(int64(height)); err == nil {
		return newHeader(block), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	block, err := c.verified(ctx, int64(height))
	if err != nil {
		return Header{}, fmt.Errorf("header at height %d: %w", height, err)
	}
	return newHeader(block), nil
}

// Latest returns the newest verified header that all endpoints at the chain's end have, or the newest in the store if
// that is newer. Endpoints that all lag make it old: the caller judges Header.Time.
func (c *Client) Latest(ctx context.Context) (Header, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var block *types.LightBlock
	err := c.attempt(ctx, 0, func(asked []*endpoint) error {
		tips := make([]*types.LightBlock, len(asked))
		var wg sync.WaitGroup
		for i, e := range asked {
			wg.Go(func() { tips[i], _ = e.LightBlock(ctx, 0) }) // the endpoint notes its error
		}
		wg.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
		// The lowest of the fresh tips is one that all of them have. A liar can only lower it by blocks this young.
		var fresh []*endpoint
		lowest := int64(0)
		for _, needFresh := range []bool{true, false} {
			for i, tip := range tips {
				if tip != nil && (!needFresh || tip.Time.After(c.options.now().Add(-freshness))) {
					fresh = append(fresh, asked[i])
					if lowest == 0 || tip.Height < lowest {
						lowest = tip.Height
					}
				}
			}
			if len(fresh) != 0 {
				break
			}
		}
		if len(fresh) == 0 {
			return provider.ErrNoResponse
		}
		stored, err := c.store.latest()
		if err != nil {
			return err
		}
		if stored != nil && stored.Height >= lowest {
			block = stored
			return nil
		}
		block, err = c.verify(ctx, fresh, lowest)
		return err
	})
	if err != nil {
		return Header{}, fmt.Errorf("latest header: %w", err)
	}
	return newHeader(block), nil
}

// verified returns the block at a height from the store, or verifies it. It wants c.mu.
func (c *Client) verified(ctx context.Context, height int64) (block *types.LightBlock, err error) {
	if block, err := c.store.LightBlock(height); err == nil {
		return block, nil
	}
	err = c.attempt(ctx, height, func(asked []*endpoint) (err error) {
		block, err = c.verify(ctx, asked, height)
		return err
	})
	return block, err
}

// attempt runs do with the endpoints that are thought to be well, and again without those that failed, until it succeeds,
// none is left, or the error is one that no other endpoint can mend. It wants c.mu.
func (c *Client) attempt(ctx context.Context, height int64, do func(asked []*endpoint) error) error {
	asked := slices.DeleteFunc(slices.Clone(c.endpoints), func(e *endpoint) bool { return e.coolUntil.After(c.options.now()) })
	if len(asked) == 0 {
		asked = slices.Clone(c.endpoints)
	}
	var faults []fault
	for {
		c.witnessed.reset()
		err := do(asked)
		failed := c.witnessed.faults()
		for _, f := range failed {
			faults = append(faults, f)
			c.comet = nil // it may have dropped the endpoint for good
			if !errors.Is(f.err, provider.ErrHeightTooHigh) && !errors.Is(f.err, provider.ErrLightBlockNotFound) {
				f.from.coolUntil = c.options.now().Add(cooldown)
				c.options.Logger.Info("leave out endpoint", "endpoint", f.from.name, "for", cooldown, "error", f.err)
			}
		}
		if d := c.divergence(err); d != nil {
			c.comet = nil
			// cometbft stops at the first that disagrees; the user wants to see on which side each of them stands.
			var wg sync.WaitGroup
			for _, e := range asked {
				wg.Go(func() { _, _ = e.LightBlock(ctx, int64(d.Height)) })
			}
			wg.Wait()
			d.Claims = c.witnessed.at(int64(d.Height))
			// cometbft stores a block although a witness shows another one, when that is not signed well either.
			_ = c.store.DeleteLightBlock(int64(d.Height))
			return d
		}
		if err == nil {
			return nil
		}
		c.comet = nil
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrTrustExpired) || errors.Is(err, errStore) {
			return err
		}
		rest := slices.DeleteFunc(slices.Clone(asked), func(e *endpoint) bool {
			return slices.ContainsFunc(failed, func(f fault) bool { return f.from == e })
		})
		if len(rest) == len(asked) {
			// Nobody failed to answer, and yet it does not verify: it is the first one's block.
			faults = append(faults, fault{asked[0], err})
			asked[0].coolUntil = c.options.now().Add(cooldown)
			rest = rest[1:]
		}
		if asked = rest; len(asked) == 0 {
			return verdict(faults, err)
		}
	}
}

// divergence finds out whether endpoints disagreed, from what they showed and from what cometbft's detector says.
func (c *Client) divergence(err error) *Divergence {
	if d := c.witnessed.divergence(); d != nil {
		return d
	}
	if d, ok := errors.AsType[*Divergence](err); ok {
		return d
	}
	_, conflict := errors.AsType[cmtlight.ErrConflictingHeaders](err)
	_, priorities := errors.AsType[cmtlight.ErrProposerPrioritiesDiverge](err)
	if conflict || priorities || errors.Is(err, cmtlight.ErrLightClientAttack) {
		height := c.witnessed.last()
		return &Divergence{Height: uint64(height), Claims: c.witnessed.at(height), Reason: err.Error()}
	}
	return nil
}

// verdict makes one error of what the endpoints failed with.
func verdict(faults []fault, last error) error {
	notYet, pruned := true, true
	var texts []string
	for _, f := range faults {
		high, gone := errors.Is(f.err, provider.ErrHeightTooHigh), errors.Is(f.err, provider.ErrLightBlockNotFound)
		notYet = notYet && high
		pruned = pruned && (gone || high)
		text := f.from.name + ": " + f.err.Error()
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	said := strings.Join(texts, "; ")
	switch {
	case len(faults) == 0:
		return last
	case notYet:
		return fmt.Errorf("%w (%s)", ErrNotYet, said)
	case pruned:
		return fmt.Errorf("%w (%s)", ErrPruned, said)
	}
	return fmt.Errorf("no endpoint gave a block that verifies: %s", said)
}

// verify obtains one block that is not in the store by the asked endpoints. It wants c.mu.
func (c *Client) verify(ctx context.Context, asked []*endpoint, height int64) (block *types.LightBlock, err error) {
	defer func() {
		// Blocks of strangers are verified here, by code that panics on what it thinks impossible.
		if r := recover(); r != nil {
			block, err = nil, asked[0].wrong(fmt.Errorf("block %d: %v", height, r))
		}
	}()
	first, err := c.store.FirstLightBlockHeight()
	if err != nil {
		return nil, err
	}
	if height < first {
		return c.back(ctx, asked, height)
	}
	latest, err := c.store.latest()
	if err != nil {
		return nil, err
	}
	if latest == nil {
		return nil, fmt.Errorf("%w: %s is empty; was it deleted?", errStore, c.store.name())
	}
	if height > latest.Height && c.expired(latest) {
		return nil, c.errExpired(latest)
	}
	if c.comet == nil || !slices.Equal(c.active, asked) {
		witnesses := make([]provider.Provider, 0, len(asked))
		for _, e := range asked[1:] {
			witnesses = append(witnesses, e)
		}
		if len(witnesses) == 0 {
			witnesses = append(witnesses, asked[0])
		}
		c.comet, err = cmtlight.NewClientFromTrustedStore(c.options.ChainID, c.options.TrustPeriod, asked[0], witnesses, c.store,
			cmtlight.PruningSize(keepBlocks), cmtlight.MaxClockDrift(c.options.MaxClockDrift), cmtlight.MaxBlockLag(time.Second))
		if err != nil {
			return nil, err
		}
		c.active = slices.Clone(asked)
	}
	block, err = c.comet.VerifyLightBlockAtHeight(ctx, height, c.options.now())
	if err == nil {
		return block, nil
	}
	if _, old := errors.AsType[cmtlight.ErrOldHeaderExpired](err); old && height < latest.Height {
		// The trusted block below is too old to vouch; the one above vouches by its hash links.
		return c.back(ctx, asked, height)
	}
	if _, failed := errors.AsType[cmtlight.ErrVerificationFailed](err); failed {
		// It is the primary's block, which cometbft may have replaced meanwhile.
		if primary, ok := c.comet.Primary().(*endpoint); ok {
			return nil, primary.wrong(err)
		}
	}
	return nil, err
}

// back walks down the hash links from the lowest trusted block above a height. Headers on the way are checked by their
// hash alone, which is all that trust needs, and are not stored.
func (c *Client) back(ctx context.Context, asked []*endpoint, height int64) (*types.LightBlock, error) {
	above, err := c.store.above(height)
	if err != nil {
		return nil, err
	}
	if hops := above.Height - height; hops > backLimit {
		return nil, fmt.Errorf("%w: height is %d blocks below the nearest trusted one, %d, and at most %d are walked; "+
			"give --trust HEIGHT:HASH of a block nearer to it", ErrTrustExpired, hops, above.Height, backLimit)
	}
	trusted := above
	for trusted.Height > height {
		block, err := asked[0].LightBlock(ctx, trusted.Height-1)
		if err != nil {
			return nil, err
		}
		if err := cmtlight.VerifyBackwards(block.Header, trusted.Header); err != nil {
			return nil, asked[0].wrong(fmt.Errorf("block %d: %w", block.Height, err))
		}
		trusted = block
	}
	if err := verifyCommit(c.options.ChainID, trusted); err != nil {
		return nil, asked[0].wrong(fmt.Errorf("block %d: %w", height, err))
	}
	return trusted, c.store.SaveLightBlock(trusted)
}
