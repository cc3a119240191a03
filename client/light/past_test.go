package light

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cometbft/cometbft/types"
)

// recent opens a client that trusts a block near the end of the chain.
func recent(t *testing.T, c *chain, nodes ...*node) *Client {
	t.Helper()
	o := options(c, "", nodes...)
	o.Root = &Root{Height: uint64(c.tip().Height) - 1, Hash: c.at(c.tip().Height - 1).Hash()}
	return open(t, o)
}

// Old headers are verified by who signed them, without the hundreds of headers in between, and are not kept.
func TestPast(t *testing.T) {
	c := newChain(t, recently(400), 400, fourKeys())
	n := serve(t, c)
	client := recent(t, c, n)
	before := n.requests()
	heights := []uint64{1, 7, 250, 399, 400}
	headers, err := client.Past(t.Context(), heights)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range headers {
		if want := c.at(int64(heights[i])); h.Height != heights[i] || !bytes.Equal(h.Hash, want.Hash()) || !h.Time.Equal(want.Time) {
			t.Errorf("header %d is %+v", heights[i], h)
		}
	}
	if asked := n.requests() - before; asked > 20 {
		t.Errorf("%d requests for five headers", asked)
	}
	if first, err := client.store.FirstLightBlockHeight(); err != nil || first != 399 {
		t.Errorf("the store begins with %d (%v), want the trusted block 399", first, err)
	}
	if _, err := client.Past(t.Context(), []uint64{3, 0}); err == nil {
		t.Error("header at height 0")
	}
	n.set(func(n *node) { n.lowest = 100 })
	if _, err := client.Past(t.Context(), []uint64{200, 50}); !errors.Is(err, ErrPruned) {
		t.Errorf("a pruned height: %v", err)
	}
}

func TestPastForged(t *testing.T) {
	c := newChain(t, recently(50), 50, fourKeys())
	usurpers := newChain(t, c.start, 50, ed25519Keys("w", "x", "y", "z"))
	later := copyHeader(c.at(4).Header)
	later.Time = later.Time.AddDate(0, 0, 1)
	n, honest := serve(t, c), serve(t, c)
	for name, block := range map[string]*types.LightBlock{
		"half signed": c.sign(t, c.at(4).Header, 2), "another time": {SignedHeader: &types.SignedHeader{Header: later, Commit: c.at(4).Commit}, ValidatorSet: c.set},
		"other validators": usurpers.at(4), "another height": c.at(5),
	} {
		n.set(func(n *node) { n.forged[4] = block })
		if _, err := recent(t, c, n).Past(t.Context(), []uint64{4}); err == nil {
			t.Errorf("%s verified", name)
		}
	}
	// Signed by all, which only the validators themselves can do: the other node shows it.
	n.set(func(n *node) { n.forged[4] = c.sign(t, later, 4) })
	d, ok := errors.AsType[*Divergence](func() error { _, err := recent(t, c, n, honest).Past(t.Context(), []uint64{3, 4, 5}); return err }())
	if !ok || d.Height != 4 || len(d.Claims) != 2 {
		t.Errorf("two blocks at height 4: %v", d)
	}
	// A node that does not answer is passed over.
	n.set(func(n *node) { n.down = true })
	client := open(t, options(c, "", honest, n))
	if _, err := client.Header(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	if h, err := client.Past(t.Context(), []uint64{4}); err != nil || !bytes.Equal(h[0].Hash, c.at(4).Hash()) {
		t.Errorf("with one node down: %v", err)
	}
}

// Validators that are others by now cannot vouch for an old block: the hash links do.
func TestPastValidators(t *testing.T) {
	c := newChain(t, recently(40), 20, fourKeys())
	next := newChain(t, c.start, 1, ed25519Keys("e", "f", "g", "h"))
	last := copyHeader(c.tip().Header)
	last.NextValidatorsHash = next.set.Hash()
	c.blocks[len(c.blocks)-1] = c.sign(t, last, 4)
	old := c.at(3)
	c.keys, c.set = next.keys, next.set
	c.grow(t, 20)
	n := serve(t, c)
	o := Options{ChainID: c.id, Endpoints: []string{n.URL}, Root: &Root{Height: 39, Hash: c.at(39).Hash()}}
	h, err := open(t, o).Past(t.Context(), []uint64{3, 30})
	if err != nil || !bytes.Equal(h[0].Hash, old.Hash()) || h[1].Height != 30 {
		t.Errorf("an old block of other validators: %v", err)
	}
}
