package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// ErrStale is returned when the newest state that the nodes prove is older than MaxStaleness: the chain has stopped, the
// nodes lag or hide blocks, or this machine's clock is wrong.
var ErrStale = errors.New("the newest state that the nodes prove is too old")

// ErrPruned is wrapped when the nodes no longer keep the state of the height that was asked for, from the beginning or since
// a walk began: ask for a newer one, or a node that keeps more heights (store.keep_versions).
var ErrPruned = errors.New("the nodes no longer keep that height")

// Proven is a value that the validators have signed for.
type Proven[T any] struct {
	Value   T
	Present bool      // there is a row; when not, that is proven too
	Height  uint64    // of the state; the header of the next height carries its root
	Time    time.Time // of that next header: the value was in force until then
}

// behind is a node that has not reached what the client has handed out before.
type behind struct{ height, floor uint64 }

func (b *behind) Error() string {
	return fmt.Sprintf("answers for height %d, behind height %d that was read before", b.height, b.floor)
}

// Row returns a row of the state at a height, or proves that there is none. Height 0 means the newest state that can be
// proven, which is no older than MaxStaleness and not behind anything that this client has handed out. A height that is
// not reached yet, and a fresh one when all are stale, is waited for, up to 15 seconds.
//
// A node whose answer does not verify is passed over. The error, when no node is left, names what each of them did.
func (c *Client) Row(ctx context.Context, key []byte, height uint64) (Proven[[]byte], error) {
	return ask(ctx, c, fmt.Sprintf("reading row %x", key), func(n *node) (Proven[[]byte], error) { return c.row(ctx, n, key, height) })
}

// ask puts a question to the nodes, one after the other, beginning with the one that answered last, until one answers
// with what verifies. When some only had not reached the height yet, or had nothing fresh, it asks again.
func ask[T any](ctx context.Context, c *Client, what string, one func(n *node) (T, error)) (answer T, err error) {
	deadline := time.Now().Add(patience)
	for delay := 25 * time.Millisecond; ; delay = min(2*delay, 500*time.Millisecond) {
		var errs []error
		again := false
		first := c.preferred.Load()
		for i, n := range c.inOrder(first) {
			if answer, err = one(n); err == nil {
				c.preferred.CompareAndSwap(first, first+uint32(i))
				return answer, nil
			}
			if ctx.Err() != nil {
				return answer, fmt.Errorf("%s: %w", what, join(append(errs, err)...))
			}
			// Headers come from all nodes, so asking another one cannot mend these.
			if _, forked := errors.AsType[*light.Divergence](err); forked || errors.Is(err, light.ErrTrustExpired) {
				return answer, fmt.Errorf("%s: %w", what, err)
			}
			_, lags := errors.AsType[*behind](err)
			// A network that was stopped and started again has its first new block in some seconds.
			again = again || lags || refusedQuery(err, query.NotYet) || errors.Is(err, light.ErrNotYet) || errors.Is(err, ErrStale)
			if errors.Is(err, proof.ErrInvalid) {
				c.log.Warn("node gave an answer that does not verify", "node", n.name, "question", what, "error", err)
			}
			errs = append(errs, err)
		}
		err = fmt.Errorf("%s: %w", what, join(errs...))
		if !again || time.Now().After(deadline) {
			return answer, err
		}
		if pause(ctx, delay) != nil {
			return answer, err
		}
	}
}

// row asks one node and verifies the answer: it is for the key and the height that were asked for, and the header that
// the validators signed for the next height has it under its root.
func (c *Client) row(ctx context.Context, n *node, key []byte, height uint64) (p Proven[[]byte], err error) {
	tree, ok := ledger.TreeOf(key)
	if !ok {
		return p, fmt.Errorf("row %x is in no Merkle tree, so it cannot be proven", key)
	}
	floor := c.lowest()
	answer, err := n.query(ctx, query.StorePath(tree), key, height, true)
	if err != nil {
		return p, err
	}
	fail := func(format string, args ...any) (Proven[[]byte], error) {
		return Proven[[]byte]{}, &nodeError{n.name, fmt.Errorf("%w: %s", proof.ErrInvalid, fmt.Sprintf(format, args...))}
	}
	switch {
	case !bytes.Equal(answer.Key, key):
		return fail("answers for key %x", answer.Key)
	case answer.Height < 1 || answer.Height >= 1<<62:
		return fail("answers for height %d", answer.Height)
	case height != 0 && uint64(answer.Height) != height:
		return fail("answers for height %d, asked for %d", answer.Height, height)
	}
	p.Height, p.Present, p.Value = uint64(answer.Height), len(answer.Value) != 0, answer.Value
	if height == 0 && p.Height < floor {
		return Proven[[]byte]{}, &nodeError{n.name, &behind{p.Height, floor}}
	}
	if answer.ProofOps == nil || len(answer.ProofOps.Ops) != 2 {
		return fail("no proof of two operations")
	}
	iavl, simple := answer.ProofOps.Ops[0], answer.ProofOps.Ops[1]
	if iavl.Type != "ics23:iavl" || !bytes.Equal(iavl.Key, key) || simple.Type != "ics23:simple" || string(simple.Key) != tree {
		return fail("its proof is for %s %x under %s %q", iavl.Type, iavl.Key, simple.Type, simple.Key)
	}
	var header light.Header
	if height == 0 {
		header, err = c.light.Header(ctx, p.Height+1)
	} else {
		header, err = c.past(ctx, p.Height+1)
	}
	if err != nil {
		return Proven[[]byte]{}, err
	}
	state := proof.State{IAVL: iavl.Data, Simple: simple.Data}
	if p.Present {
		err = proof.Value(header.AppHash, key, p.Value, state)
	} else {
		err = proof.Absence(header.AppHash, key, state)
	}
	if err != nil {
		return Proven[[]byte]{}, &nodeError{n.name, err}
	}
	p.Time = header.Time
	if height == 0 {
		if age := time.Since(header.Time); age > c.maxStaleness {
			return Proven[[]byte]{}, &nodeError{n.name, fmt.Errorf("%w: height %d of %s", ErrStale, p.Height, header.Time.UTC().Format(time.RFC3339))}
		}
	}
	c.handedOut(p.Height)
	return p, nil
}

// past returns the verified header of a height that may have gone by long ago.
func (c *Client) past(ctx context.Context, height uint64) (light.Header, error) {
	headers, err := c.light.Past(ctx, []uint64{height})
	if err != nil {
		return light.Header{}, err
	}
	return headers[0], nil
}

// decoded turns a proven row into a proven value. A proven row that does not decode is of a newer protocol.
func decoded[T any](row Proven[[]byte], err error, decode func([]byte) (T, error)) (Proven[T], error) {
	p := Proven[T]{Present: row.Present, Height: row.Height, Time: row.Time}
	if err == nil && row.Present {
		if p.Value, err = decode(row.Value); err != nil {
			err = fmt.Errorf("a proven row of height %d does not decode, is this program too old? %w", row.Height, err)
		}
	}
	if err != nil {
		return Proven[T]{}, err
	}
	return p, nil
}

// Account returns an account; height 0 is the newest. An account that has never signed has no row: its policy is then the
// one that its address is the hash of.
func (c *Client) Account(ctx context.Context, address crypto.Address, height uint64) (Proven[ledger.Account], error) {
	row, err := c.Row(ctx, ledger.AccountRow(address), height)
	p, err := decoded(row, err, ledger.DecodeAccount)
	if err == nil && !p.Present {
		p.Value.Policy = crypto.Hash(address)
	}
	return p, err
}

// Line returns the position of an account in an asset; height 0 is the newest. Without a row all counters are 0.
func (c *Client) Line(ctx context.Context, key ledger.LineKey, height uint64) (Proven[ledger.Line], error) {
	row, err := c.Row(ctx, ledger.LineRow(key), height)
	return decoded(row, err, ledger.DecodeLine)
}

// Asset returns an asset by its id; height 0 is the newest.
func (c *Client) Asset(ctx context.Context, id ledger.AssetID, height uint64) (Proven[ledger.Asset], error) {
	row, err := c.Row(ctx, ledger.AssetRow(id), height)
	return decoded(row, err, ledger.DecodeAsset)
}

// AssetByCode returns the asset that has a code, with its id; height 0 is the newest.
func (c *Client) AssetByCode(ctx context.Context, code string, height uint64) (ledger.AssetID, Proven[ledger.Asset], error) {
	if err := ledger.CheckAssetCode(code); err != nil {
		return ledger.AssetID{}, Proven[ledger.Asset]{}, err
	}
	row, err := c.Row(ctx, ledger.CodeRow(code), height)
	id, err := decoded(row, err, ledger.DecodeAssetID)
	if err != nil || !id.Present {
		return ledger.AssetID{}, Proven[ledger.Asset]{Height: id.Height, Time: id.Time}, err
	}
	asset, err := c.Asset(ctx, id.Value, id.Height)
	if err == nil && (!asset.Present || asset.Value.Code != code || ledger.NewAssetID(asset.Value.Issuer, code) != id.Value) {
		err = fmt.Errorf("the proven state of height %d is inconsistent: code %s names asset %x, which is %q", id.Height, code, id.Value, asset.Value.Code)
	}
	return id.Value, asset, err
}

// Parameters returns the rules in force; height 0 is the newest.
func (c *Client) Parameters(ctx context.Context, height uint64) (Proven[ledger.Parameters], error) {
	row, err := c.Row(ctx, ledger.ParametersRow(), height)
	return decoded(row, err, ledger.DecodeParameters)
}

// FeeRate returns the rate that fees are multiplied by in the block after a height; height 0 is the newest.
func (c *Client) FeeRate(ctx context.Context, height uint64) (Proven[ledger.FeeRate], error) {
	row, err := c.Row(ctx, ledger.FeeRateRow(), height)
	return decoded(row, err, ledger.DecodeFeeRate)
}

// Hold returns an open hold; height 0 is the newest. One that was resolved has no row any more.
func (c *Client) Hold(ctx context.Context, id crypto.Hash, height uint64) (Proven[ledger.Hold], error) {
	row, err := c.Row(ctx, ledger.HoldRow(id), height)
	return decoded(row, err, ledger.DecodeHold)
}

// Grant returns a grant; height 0 is the newest.
func (c *Client) Grant(ctx context.Context, key ledger.GrantKey, height uint64) (Proven[ledger.Grant], error) {
	row, err := c.Row(ctx, ledger.GrantRow(key), height)
	return decoded(row, err, ledger.DecodeGrant)
}

// Network returns what the state says about the network it belongs to; height 0 is the newest.
func (c *Client) Network(ctx context.Context, height uint64) (Proven[ledger.Network], error) {
	row, err := c.Row(ctx, ledger.NetworkRow(), height)
	return decoded(row, err, ledger.DecodeNetwork)
}

// Policy returns the policy with a hash, which a proven account names. The hash itself proves it.
func (c *Client) Policy(ctx context.Context, hash crypto.Hash) (crypto.Policy, error) {
	return ask(ctx, c, "reading policy "+hash.String(), func(n *node) (crypto.Policy, error) {
		answer, err := n.query(ctx, query.PathPolicy, hash[:], 0, false)
		if err != nil {
			return crypto.Policy{}, err
		}
		policy, err := crypto.DecodePolicy(answer.Value)
		if err != nil {
			return crypto.Policy{}, &nodeError{n.name, fmt.Errorf("%w: policy: %w", proof.ErrInvalid, err)}
		}
		if policy.Hash() != hash {
			return crypto.Policy{}, &nodeError{n.name, fmt.Errorf("%w: answers with policy %s", proof.ErrInvalid, policy.Hash())}
		}
		return policy, nil
	})
}

// AccountHint returns one node's word about an account, with what waits in its mempool counted in. It proves nothing:
// use it for what at worst gets a transaction refused, as the next sequence is.
func (c *Client) AccountHint(ctx context.Context, address crypto.Address) (query.Account, error) {
	return ask(ctx, c, "asking about account "+address.String(), func(n *node) (query.Account, error) {
		answer, err := n.query(ctx, query.PathAccount, address[:], 0, false)
		if err != nil {
			return query.Account{}, err
		}
		a, err := query.DecodeAccount(answer.Value)
		if err != nil {
			return query.Account{}, &nodeError{n.name, err}
		}
		return a, nil
	})
}
