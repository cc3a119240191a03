package conservation

import (
	"context"
	"errors"
	"fmt"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Options of an audit. The zero value audits all assets in the newest state.
type Options struct {
	Code string // of the one asset to audit; "": all. The walk is the same, for a line can be anywhere.
	Walk client.WalkOptions

	// Restarted is told when the nodes gave up the height during the walk, before the audit begins anew at a newer one. That
	// happens once, and only when no height was asked for.
	Restarted func(height uint64)
}

// Report is what an audit found in a state that is proven to be whole.
type Report struct {
	client.Walked
	Assets []*Asset // in the order of their codes
}

// OK says that nothing is wrong.
func (r Report) OK() bool {
	for _, a := range r.Assets {
		if !a.OK() {
			return false
		}
	}
	return true
}

// ErrNoAsset is wrapped when there is no asset of the code that was asked for.
var ErrNoAsset = errors.New("there is no such asset")

// Run audits a state. What is wrong with the books is in the report; an error means that nothing can be said about them.
func Run(ctx context.Context, c *client.Client, o Options) (Report, error) {
	r, err := run(ctx, c, o)
	if errors.Is(err, client.ErrPruned) && o.Walk.Height == 0 && r.Height != 0 && ctx.Err() == nil {
		if o.Restarted != nil {
			o.Restarted(r.Height)
		}
		r, err = run(ctx, c, o)
	}
	return r, err
}

func run(ctx context.Context, c *client.Client, o Options) (r Report, err error) {
	var only *ledger.AssetID
	if o.Code != "" {
		id, asset, err := c.AssetByCode(ctx, o.Code, o.Walk.Height)
		if err != nil {
			return r, err
		}
		if !asset.Present {
			return r, fmt.Errorf("%w: %s, at height %d", ErrNoAsset, o.Code, asset.Height)
		}
		only = &id
	}
	books := NewBooks(only)
	if r.Walked, err = c.Walk(ctx, o.Walk, books.Row); err != nil {
		return r, err
	}
	r.Assets, err = books.Close(func(key ledger.LineKey) (ledger.Line, bool, error) {
		line, err := c.Line(ctx, key, r.Height)
		return line.Value, line.Present, err
	})
	return r, err
}
