package light

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	"github.com/cometbft/cometbft/types"
)

// recently is a genesis time that makes a chain of a few blocks end about now.
func recently(blocks int) time.Time {
	return time.Now().UTC().Truncate(time.Millisecond).Add(-time.Duration(blocks) * time.Second)
}

func fourKeys() []crypto.PrivKey { return ed25519Keys("a", "b", "c", "d") }

func options(c *chain, dir string, nodes ...*node) Options {
	o := Options{Genesis: c.genesis(), Dir: dir}
	for _, n := range nodes {
		o.Endpoints = append(o.Endpoints, n.URL)
	}
	return o
}

func open(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fails checks an error by parts of its text.
func fails(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("error %q does not say %q", err, p)
		}
	}
}

func TestHonest(t *testing.T) {
	pq, err := mldsa65.GenPrivKeyFromSeed(hash("seed"))
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]crypto.PrivKey{
		"ed25519": fourKeys(), "ml_dsa_65": {pq}, "mixed": append(ed25519Keys("a", "b", "c"), pq), "110 validators": manyKeys(110),
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, recently(12), 12, keys)
			for nodes := 1; nodes <= 2; nodes++ {
				var served []*node
				for range nodes {
					served = append(served, serve(t, c))
				}
				client := open(t, options(c, "", served...))
				for _, height := range []uint64{1, 7, 3, 2, 11, 12} {
					h, err := client.Header(t.Context(), height)
					if err != nil {
						t.Fatal(err)
					}
					want := c.at(int64(height))
					if h.Height != height || h.ChainID != c.id || !h.Time.Equal(want.Time) || !bytes.Equal(h.Hash, want.Hash()) ||
						!bytes.Equal(h.AppHash, want.AppHash) || !bytes.Equal(h.DataHash, want.DataHash) ||
						!bytes.Equal(h.LastResultsHash, want.LastResultsHash) || !bytes.Equal(h.ValidatorsHash, c.set.Hash()) ||
						h.Block.Height != want.Height {
						t.Fatalf("header %d is %+v", height, h)
					}
				}
				if h, err := client.Latest(t.Context()); err != nil || h.Height != 12 {
					t.Fatalf("latest %v, %v", h.Height, err)
				}
				if _, err := client.Header(t.Context(), 0); err == nil {
					t.Fatal("header at height 0")
				}
			}
		})
	}
}

func manyKeys(n int) []crypto.PrivKey {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("v", i))
	}
	return ed25519Keys(names...)
}

func TestInitialHeight(t *testing.T) {
	c := &chain{id: testChainID, keys: fourKeys(), powers: []int64{1, 1, 1, 1}, start: recently(5), initial: 1000}
	c.grow(t, 5)
	client := open(t, options(c, "", serve(t, c)))
	if h, err := client.Latest(t.Context()); err != nil || h.Height != 1004 {
		t.Fatalf("latest %d, %v", h.Height, err)
	}
}

// TestPower signs the header with ever fewer validators: exactly 2/3 of the power is not enough.
func TestPower(t *testing.T) {
	for _, keys := range [][]crypto.PrivKey{ed25519Keys("a", "b", "c"), ed25519Keys("a", "b", "c", "d", "e", "f")} {
		c := newChain(t, recently(8), 8, keys)
		n := serve(t, c)
		for signers := 0; signers <= len(keys); signers++ {
			enough := signers*3 > len(keys)*2
			for _, height := range []int64{2, 5} { // adjacent to the root, and not
				client := open(t, options(c, "", n))
				n.set(func(n *node) { n.forged = map[int64]*types.LightBlock{height: c.sign(t, c.at(height).Header, signers)} })
				_, err := client.Header(t.Context(), uint64(height))
				if enough && err != nil {
					t.Fatalf("%d of %d: %v", signers, len(keys), err)
				}
				if !enough && err == nil {
					t.Fatalf("%d of %d validators are enough at height %d", signers, len(keys), height)
				}
				n.set(func(n *node) { n.forged = nil })
			}
			// The root of trust as well.
			n.set(func(n *node) { n.forged = map[int64]*types.LightBlock{1: c.sign(t, c.at(1).Header, signers)} })
			if _, err := Open(t.Context(), options(c, "", n)); enough != (err == nil) {
				t.Fatalf("root signed by %d of %d: %v", signers, len(keys), err)
			}
			n.set(func(n *node) { n.forged = nil })
		}
	}
}

func copyHeader(h *types.Header) *types.Header { c := *h; return &c }

// TestForged serves one forged block at a height and wants it refused, next to the root of trust and away from it.
func TestForged(t *testing.T) {
	c := newChain(t, recently(8), 8, fourKeys())
	n := serve(t, c)
	flip := func(b []byte) []byte {
		if len(b) == 0 { // the first header names no last block
			return hash("something")
		}
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	fields := map[string]func(*types.Header){
		"Version.Block":      func(h *types.Header) { h.Version.Block++ },
		"Version.App":        func(h *types.Header) { h.Version.App++ },
		"ChainID":            func(h *types.Header) { h.ChainID = "pacioli-tesu" },
		"Height":             func(h *types.Header) { h.Height++ },
		"Time":               func(h *types.Header) { h.Time = h.Time.Add(1) },
		"LastBlockID.Hash":   func(h *types.Header) { h.LastBlockID.Hash = flip(h.LastBlockID.Hash) },
		"LastBlockID.Parts":  func(h *types.Header) { h.LastBlockID.PartSetHeader.Hash = flip(h.LastBlockID.PartSetHeader.Hash) },
		"LastBlockID.Total":  func(h *types.Header) { h.LastBlockID.PartSetHeader.Total++ },
		"LastCommitHash":     func(h *types.Header) { h.LastCommitHash = flip(h.LastCommitHash) },
		"DataHash":           func(h *types.Header) { h.DataHash = flip(h.DataHash) },
		"ValidatorsHash":     func(h *types.Header) { h.ValidatorsHash = flip(h.ValidatorsHash) },
		"NextValidatorsHash": func(h *types.Header) { h.NextValidatorsHash = flip(h.NextValidatorsHash) },
		"ConsensusHash":      func(h *types.Header) { h.ConsensusHash = flip(h.ConsensusHash) },
		"AppHash":            func(h *types.Header) { h.AppHash = flip(h.AppHash) },
		"LastResultsHash":    func(h *types.Header) { h.LastResultsHash = flip(h.LastResultsHash) },
		"EvidenceHash":       func(h *types.Header) { h.EvidenceHash = flip(h.EvidenceHash) },
		"ProposerAddress":    func(h *types.Header) { h.ProposerAddress = flip(h.ProposerAddress) },
	}
	other := newChain(t, c.start, 8, ed25519Keys("e", "f", "g", "h"))
	forge := func(height int64) map[string]*types.LightBlock {
		honest := c.at(height)
		list := map[string]*types.LightBlock{}
		for name, change := range fields {
			h := copyHeader(honest.Header)
			change(h)
			list[name] = &types.LightBlock{SignedHeader: &types.SignedHeader{Header: h, Commit: honest.Commit}, ValidatorSet: c.set}
			// The same with the commit's words made to fit, so that only the signatures are wrong.
			commit := *honest.Commit
			commit.BlockID.Hash, commit.Height = h.Hash(), h.Height
			list[name+", commit made to fit"] = &types.LightBlock{SignedHeader: &types.SignedHeader{Header: h, Commit: &commit}, ValidatorSet: c.set}
		}
		id := honest.Commit.BlockID
		list["signed for another chain"] = c.signAs(t, honest.Header, id, "pacioli-tesu", height, 4)
		list["signed for another height"] = c.signAs(t, honest.Header, id, c.id, height+1, 4)
		list["signed for another block"] = c.signAs(t, honest.Header, types.BlockID{Hash: hash("x"), PartSetHeader: id.PartSetHeader}, c.id, height, 4)
		list["signed for other parts"] = func() *types.LightBlock {
			b := c.sign(t, honest.Header, 4)
			b.Commit.BlockID.PartSetHeader.Hash = hash("other parts")
			return b
		}()
		list["another chain's validators"] = other.at(height)
		list["our header, other validators"] = &types.LightBlock{SignedHeader: honest.SignedHeader, ValidatorSet: other.set}
		list["another height"] = c.at(height + 1)
		list["votes for nil"] = func() *types.LightBlock {
			b := c.signAs(t, honest.Header, types.BlockID{}, c.id, height, 4)
			for i := range b.Commit.Signatures {
				b.Commit.Signatures[i].BlockIDFlag = types.BlockIDFlagNil
			}
			return b
		}()
		list["one signature for all"] = func() *types.LightBlock {
			b := c.sign(t, honest.Header, 4)
			for i := range b.Commit.Signatures {
				b.Commit.Signatures[i] = b.Commit.Signatures[0]
			}
			return b
		}()
		for i := range 3 { // 2/3 of 4 are 3, so two broken signatures are too many
			list[fmt.Sprint("two broken signatures ", i)] = func() *types.LightBlock {
				b := c.sign(t, honest.Header, 4)
				b.Commit.Signatures[i].Signature = flip(b.Commit.Signatures[i].Signature)
				b.Commit.Signatures[i+1].Timestamp = b.Commit.Signatures[i+1].Timestamp.Add(1)
				return b
			}()
		}
		return list
	}
	count := 0
	for _, height := range []int64{1, 2, 5} {
		for name, block := range forge(height) {
			var client *Client
			if height > 1 {
				client = open(t, options(c, "", n))
			}
			n.set(func(n *node) { n.forged = map[int64]*types.LightBlock{height: block} })
			var err error
			if height == 1 {
				_, err = Open(t.Context(), options(c, "", n))
			} else {
				_, err = client.Header(t.Context(), uint64(height))
			}
			if err == nil {
				t.Errorf("height %d verified: %s", height, name)
			}
			n.set(func(n *node) { n.forged = nil })
			count++
			if height > 1 { // the client is none the worse
				if _, err := client.Header(t.Context(), uint64(height)); err != nil {
					t.Errorf("after %s at %d: %v", name, height, err)
				}
			}
		}
	}
	t.Logf("%d forged blocks refused", count)
}

func TestGenesisMismatch(t *testing.T) {
	c := newChain(t, recently(5), 5, fourKeys())
	n := serve(t, c)
	for name, change := range map[string]func(*Options){
		"validators":        func(o *Options) { o.Genesis.Doc.Validators = o.Genesis.Doc.Validators[:3] },
		"of network":        func(o *Options) { o.Genesis.NetworkID = hash("another network") },
		"its time":          func(o *Options) { o.Genesis.Doc.GenesisTime = o.Genesis.Doc.GenesisTime.Add(time.Second) },
		"another chain":     func(o *Options) { o.Genesis.Doc.ChainID = "pacioli-main" },
		"genesis is of":     func(o *Options) { o.ChainID = "pacioli-main" },
		"no power":          func(o *Options) { o.Genesis.Doc.Validators[1].Power = 0 },
		"names no valid":    func(o *Options) { o.Genesis.Doc.Validators = nil },
		"duplicate":         func(o *Options) { o.Genesis.Doc.Validators[1] = o.Genesis.Doc.Validators[0] },
		"want 32":           func(o *Options) { o.Genesis.NetworkID = []byte("short") },
		"neither genesis":   func(o *Options) { o.Genesis = nil },
		"document is miss":  func(o *Options) { o.Genesis.Doc = nil },
		"no endpoint":       func(o *Options) { o.Endpoints = nil },
		"want positive":     func(o *Options) { o.TrustPeriod = -1 },
		"a height above 0":  func(o *Options) { o.Root = &Root{Height: 0, Hash: hash("x")} },
		"0 bytes, want a":   func(o *Options) { o.Root = &Root{Height: 3} },
		"trusted is":        func(o *Options) { o.Root = &Root{Height: 3, Hash: hash("x")} },
		"in the future":     func(o *Options) { o.now = func() time.Time { return c.start.Add(-time.Hour) } },
		"--trust HEIGHT:HA": func(o *Options) { o.TrustPeriod = 2 * time.Second },
	} {
		o := options(c, "", n)
		change(&o)
		_, err := Open(t.Context(), o)
		fails(t, err, name)
	}
	// Trust by hash needs no genesis, nor its validators.
	client := open(t, Options{ChainID: c.id, Endpoints: []string{n.URL}, Root: &Root{Height: 3, Hash: c.at(3).Hash()}})
	for _, height := range []uint64{5, 2, 1} { // 1 and 2 by the hash links backwards
		if h, err := client.Header(t.Context(), height); err != nil || !bytes.Equal(h.Hash, c.at(int64(height)).Hash()) {
			t.Fatalf("height %d: %v", height, err)
		}
	}
}

func TestBackwardsForged(t *testing.T) {
	c := newChain(t, recently(9), 9, fourKeys())
	n := serve(t, c)
	h := copyHeader(c.at(4).Header)
	h.AppHash = hash("stolen")
	for name, block := range map[string]*types.LightBlock{
		"hash link": c.sign(t, h, 4), "unsigned": c.sign(t, c.at(4).Header, 2), "out of order": c.at(3),
	} {
		client := open(t, Options{ChainID: c.id, Endpoints: []string{n.URL}, Root: &Root{Height: 7, Hash: c.at(7).Hash()}})
		n.set(func(n *node) { n.forged[4] = block })
		if _, err := client.Header(t.Context(), 4); err == nil {
			t.Errorf("%s verified", name)
		}
		if name != "unsigned" { // of a header on the way only the hash counts
			if _, err := client.Header(t.Context(), 3); err == nil {
				t.Errorf("%s verified on the way", name)
			}
		}
		n.set(func(n *node) { delete(n.forged, 4) })
	}
}

func TestExpiry(t *testing.T) {
	c := newChain(t, recently(100), 100, fourKeys())
	n := serve(t, c)
	dir := t.TempDir()
	clock := c.start.Add(20 * time.Second)
	o := options(c, dir, n)
	o.TrustPeriod, o.now = 30*time.Second, func() time.Time { return clock }
	o.MaxClockDrift = time.Hour // the chain is ahead of this test's clock
	client := open(t, o)
	if _, err := client.Header(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	// Block 1 alone is too old by now; block 20 vouches for what comes and, by hash links, for what was.
	clock = c.start.Add(45 * time.Second)
	for _, height := range []uint64{40, 10} {
		if h, err := client.Header(t.Context(), height); err != nil || !bytes.Equal(h.Hash, c.at(int64(height)).Hash()) {
			t.Fatalf("height %d: %v", height, err)
		}
	}
	clock = c.start.Add(200 * time.Second)
	_, err := client.Header(t.Context(), 90)
	if !errors.Is(err, ErrTrustExpired) {
		t.Fatalf("expired: %v", err)
	}
	fails(t, err, "--trust HEIGHT:HASH", "40")
	// A new process cannot start from genesis either; with a recent hash it can.
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrTrustExpired) {
		t.Fatalf("reopened: %v", err)
	}
	clock = c.start.Add(110 * time.Second)
	o.Root = &Root{Height: 95, Hash: c.at(95).Hash()}
	client = open(t, o)
	if _, err := client.Header(t.Context(), 99); err != nil {
		t.Fatal(err)
	}
	o.Root = nil // from now on the store is enough
	if _, err := open(t, o).Latest(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A hash that the store's own chain contradicts is refused, whether stored or to be verified.
	for _, height := range []uint64{95, 97, 50} {
		o.Root = &Root{Height: height, Hash: hash("fork")}
		_, err := Open(t.Context(), o)
		fails(t, err, "one of them is of a fork")
	}
}

func TestPrunedAndNotYet(t *testing.T) {
	c := newChain(t, recently(10), 10, fourKeys())
	n, m := serve(t, c), serve(t, c)
	n.set(func(n *node) { n.lowest = 4 })
	_, err := Open(t.Context(), options(c, "", n))
	if !errors.Is(err, ErrPruned) {
		t.Fatalf("pruned: %v", err)
	}
	fails(t, err, "no endpoint has any more", "--trust HEIGHT:HASH")

	client := open(t, options(c, "", n, m)) // m still has it
	began := time.Now()
	if _, err = client.Header(t.Context(), 11); !errors.Is(err, ErrNotYet) {
		t.Fatalf("block of the future: %v", err)
	}
	if waited := time.Since(began); waited < patience || waited > 4*patience {
		t.Fatalf("waited %v", waited)
	}
	// One that comes in time is waited for.
	time.AfterFunc(300*time.Millisecond, func() {
		n.set(func(*node) { m.set(func(*node) { c.grow(t, 1) }) })
	})
	if h, err := client.Header(t.Context(), 11); err != nil || h.Height != 11 {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err = client.Header(ctx, 12); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("after the deadline: %v", err)
	}
}

func TestFailover(t *testing.T) {
	c := newChain(t, recently(30), 30, fourKeys())
	for name, breaks := range map[string]func(*node){
		"down":     func(n *node) { n.down = true },
		"garbage":  func(n *node) { n.garbage = `{"jsonrpc":"2.0","id":0,"result":{"signed_header":null}}` },
		"no json":  func(n *node) { n.garbage = "<html>" },
		"pruned":   func(n *node) { n.lowest = 29 },
		"unsigned": func(n *node) { n.forged[20] = c.sign(t, c.at(20).Header, 1) },
	} {
		for broken := range 2 {
			nodes := []*node{serve(t, c), serve(t, c)}
			client := open(t, options(c, "", nodes...))
			nodes[broken].set(breaks)
			began := time.Now()
			if h, err := client.Header(t.Context(), 20); err != nil || !bytes.Equal(h.Hash, c.at(20).Hash()) {
				t.Fatalf("node %d is %s: %v", broken, name, err)
			}
			if h, err := client.Latest(t.Context()); err != nil || h.Height != 30 {
				t.Fatalf("node %d is %s: latest %d, %v", broken, name, h.Height, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Fatalf("node %d is %s: took %v", broken, name, took)
			}
			if name == "down" {
				nodes[1-broken].set(breaks)
				_, err := client.Header(t.Context(), 21)
				fails(t, err, nodes[1-broken].URL)
				// Nothing is dropped for good: cometbft's own client would want a new process now.
				nodes[1-broken].set(func(n *node) { n.down = false })
				if _, err := client.Header(t.Context(), 21); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestLagging has a witness some blocks behind; cometbft would sleep for half a minute.
func TestLagging(t *testing.T) {
	c := newChain(t, recently(100), 100, fourKeys())
	ahead, behind := serve(t, c), serve(t, c)
	client := open(t, options(c, "", ahead, behind))
	behind.set(func(n *node) { n.lag = 2 })
	began := time.Now()
	if h, err := client.Latest(t.Context()); err != nil || h.Height != 98 {
		t.Fatalf("latest %d, %v", h.Height, err)
	}
	behind.set(func(n *node) { n.lag = 60 }) // that one is no longer at the chain's end
	if h, err := client.Latest(t.Context()); err != nil || h.Height != 100 {
		t.Fatalf("latest %d, %v", h.Height, err)
	}
	if took := time.Since(began); took > patience {
		t.Fatalf("took %v", took)
	}
}

func TestDivergence(t *testing.T) {
	c := newChain(t, recently(12), 12, fourKeys())
	h := copyHeader(c.at(9).Header)
	h.AppHash = hash("other books")
	for name, block := range map[string]*types.LightBlock{
		"a fork signed by all":   c.sign(t, h, 4),
		"another block unsigned": c.sign(t, h, 0),
		"signed by one":          c.sign(t, h, 1),
	} {
		for liar := range 3 {
			nodes := []*node{serve(t, c), serve(t, c), serve(t, c)}
			dir := t.TempDir()
			client := open(t, options(c, dir, nodes...))
			nodes[liar].set(func(n *node) { n.forged[9] = block })
			_, err := client.Header(t.Context(), 9)
			if liar == 0 && name != "a fork signed by all" {
				// The primary's block verifies for nobody: an endpoint that fails, not two that disagree.
				if err != nil {
					t.Errorf("%s at the primary: %v", name, err)
				}
				continue
			}
			d, ok := errors.AsType[*Divergence](err)
			if !ok {
				t.Errorf("%s at node %d: %v", name, liar, err)
				continue
			}
			fails(t, err, nodes[0].URL, nodes[1].URL, nodes[2].URL, fmt.Sprintf("%X", []byte(block.Hash())), fmt.Sprintf("%X", []byte(c.at(9).Hash())))
			if d.Height != 9 {
				t.Errorf("divergence at height %d", d.Height)
			}
			if files, _ := filepath.Glob(filepath.Join(dir, "*9.block")); len(files) != 0 {
				t.Errorf("%s at node %d: block 9 is stored", name, liar)
			}
			// Evidence goes to the nodes if the validators signed both, for only a light client has seen it.
			evidence := 0
			for _, n := range nodes {
				n.set(func(n *node) { evidence += n.evidence })
			}
			if (evidence != 0) != (name == "a fork signed by all") {
				t.Errorf("%s at node %d: %d pieces of evidence", name, liar, evidence)
			}
			if _, err := client.Header(t.Context(), 9); err == nil {
				t.Errorf("%s at node %d: accepted at the second try", name, liar)
			}
		}
	}
	// At the root of trust.
	n, m := serve(t, c), serve(t, c)
	first := copyHeader(c.at(1).Header)
	first.DataHash = hash("other data")
	m.set(func(n *node) { n.forged[1] = c.sign(t, first, 4) })
	_, err := Open(t.Context(), options(c, "", n, m))
	if _, ok := errors.AsType[*Divergence](err); !ok {
		t.Fatalf("at the root: %v", err)
	}
}

// TestNewValidators follows a chain whose validators are replaced one after the other.
func TestNewValidators(t *testing.T) {
	c := newChain(t, recently(60), 10, fourKeys())
	first := c.genesis()
	all := ed25519Keys("a", "b", "c", "d", "e", "f", "g", "h")
	for step := 1; step <= 4; step++ {
		next := &chain{keys: all[step : step+4], powers: []int64{1, 1, 1, 1}}
		var list []*types.Validator
		for _, k := range next.keys {
			list = append(list, types.NewValidator(k.PubKey(), 1))
		}
		next.set = types.NewValidatorSet(list)
		// The last block of the old set announces the new one.
		last := copyHeader(c.tip().Header)
		last.NextValidatorsHash = next.set.Hash()
		c.blocks[len(c.blocks)-1] = c.sign(t, last, 4)
		c.keys, c.set = next.keys, next.set
		c.grow(t, 10)
	}
	n := serve(t, c)
	o := options(c, "", n)
	o.Genesis = first
	client := open(t, o)
	if h, err := client.Header(t.Context(), 50); err != nil || !bytes.Equal(h.Hash, c.at(50).Hash()) {
		t.Fatalf("height 50: %v", err)
	}
	// Validators that were never announced: the chain of trust breaks.
	usurpers := ed25519Keys("w", "x", "y", "z")
	fork := newChain(t, c.start, 50, usurpers)
	n.set(func(n *node) {
		for h := int64(12); h <= 50; h++ {
			n.forged[h] = fork.at(h)
		}
	})
	if _, err := open(t, o).Header(t.Context(), 50); err == nil {
		t.Fatal("usurpers' block verified")
	}
}

func TestRestart(t *testing.T) {
	c := newChain(t, recently(40), 40, fourKeys())
	n := serve(t, c)
	dir := filepath.Join(t.TempDir(), "deep", "light")
	if h, err := open(t, options(c, dir, n)).Latest(t.Context()); err != nil || h.Height != 40 {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("directory: %v, %v", info, err)
	}
	n.set(func(n *node) { n.down = true })
	before := n.requests()
	client := open(t, options(c, dir, n)) // neither genesis nor tip is fetched
	if h, err := client.Header(t.Context(), 40); err != nil || !bytes.Equal(h.AppHash, c.at(40).AppHash) {
		t.Fatal(err)
	}
	if n.requests() != before {
		t.Fatal("the node was asked")
	}
	n.set(func(n *node) { n.down = false })

	// Another chain, and another network of the same name.
	o := options(c, dir, n)
	o.Genesis.NetworkID = hash("another network")
	_, err := Open(t.Context(), o)
	fails(t, err, dir, "belongs to chain", "another directory")
	_, err = Open(t.Context(), Options{ChainID: "pacioli-main", Dir: dir, Endpoints: o.Endpoints, Root: &Root{1, hash("x")}})
	fails(t, err, dir, `belongs to chain "pacioli-test"`)

	// Every kind of damage to the newest file: it is never used, and replaced by what is verified.
	path := filepath.Join(dir, fmt.Sprintf("%020d.block", 40))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	forgedHeader := copyHeader(c.at(40).Header)
	forgedHeader.AppHash = hash("stolen")
	damage := map[string][]byte{
		"empty": {}, "short": good[:20], "torn": good[:len(good)-1], "longer": append(bytes.Clone(good), 0),
		"unsigned":       file(t, c.sign(t, forgedHeader, 2)),
		"another height": file(t, c.at(39)),
		"another chain":  file(t, otherChainBlock(t, c)),
		"no block":       checked(nil),
		"nonsense":       checked([]byte("nonsense")),
	}
	for i := 0; i < len(good); i += 7 {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		damage[fmt.Sprint("byte ", i)] = flipped
	}
	for name, content := range damage {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := open(t, options(c, dir, n)).Header(t.Context(), 40)
		if err != nil || !bytes.Equal(h.Hash, c.at(40).Hash()) {
			t.Fatalf("%s: %v", name, err)
		}
		if again, _ := os.ReadFile(path); !bytes.Equal(again, good) {
			t.Fatalf("%s: the file was not replaced", name)
		}
	}
	// All gone but the marker: trust starts again.
	files, _ := filepath.Glob(filepath.Join(dir, "*.block"))
	for _, f := range files {
		_ = os.Remove(f)
	}
	if _, err := open(t, options(c, dir, n)).Latest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, markerName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), options(c, dir, n))
	fails(t, err, markerName, "delete the directory")
}

func otherChainBlock(t *testing.T, c *chain) *types.LightBlock {
	o := &chain{id: "pacioli-main", keys: c.keys, powers: c.powers, start: c.start, initial: 40}
	o.grow(t, 1)
	return o.at(40)
}

// file is what the store would write for a block that it does not check.
func file(t *testing.T, b *types.LightBlock) []byte {
	message, err := b.ToProto()
	if err != nil {
		t.Fatal(err)
	}
	body, err := message.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return checked(body)
}

func checked(body []byte) []byte { return append(hash(string(body)), body...) }

func TestPruning(t *testing.T) {
	c := newChain(t, recently(400), 400, fourKeys())
	n := serve(t, c)
	dir := t.TempDir()
	client := open(t, options(c, dir, n))
	for height := uint64(100); height <= 380; height++ {
		if _, err := client.Header(t.Context(), height); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.block"))
	if len(files) != keepBlocks || client.store.Size() != keepBlocks || len(client.store.blocks) != keepBlocks {
		t.Fatalf("%d files, size %d, want %d", len(files), client.store.Size(), keepBlocks)
	}
	for _, height := range []uint64{270, 390, 279} {
		if h, err := client.Header(t.Context(), height); err != nil || h.Height != height {
			t.Fatalf("height %d: %v", height, err)
		}
	}
}

// TestSharedDirectory has several clients, as several processes, on one directory.
func TestSharedDirectory(t *testing.T) {
	c := newChain(t, recently(300), 300, fourKeys())
	n := serve(t, c)
	dir := t.TempDir()
	stale := filepath.Join(dir, tempPrefix+"1")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Chtimes(stale, time.Now().Add(-2*staleAfter), time.Now().Add(-2*staleAfter))
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			for round := range 12 {
				client, err := Open(context.Background(), options(c, dir, n))
				if err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
				for i := range 6 {
					height := uint64(1 + (worker*53+round*31+i*97)%300)
					h, err := client.Header(context.Background(), height)
					if err != nil || !bytes.Equal(h.Hash, c.at(int64(height)).Hash()) {
						t.Errorf("worker %d, height %d: %v", worker, height, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
	// One client for many goroutines.
	client := open(t, options(c, "", n))
	for worker := range 4 {
		wg.Go(func() {
			for i := range 20 {
				if _, err := client.Header(context.Background(), uint64(1+(worker*71+i*13)%300)); err != nil {
					t.Errorf("worker %d: %v", worker, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestHostileAnswers wants an error, not a crash or an endless loop, for answers that no node gives.
func TestHostileAnswers(t *testing.T) {
	c := newChain(t, recently(9), 9, fourKeys())
	n := serve(t, c)
	key := `{"type":"tendermint/PubKeyEd25519","value":"` + base64.StdEncoding.EncodeToString(c.keys[0].PubKey().Bytes()) + `"}`
	one := func(power string) string {
		return `{"address":"` + c.keys[0].PubKey().Address().String() + `","pub_key":` + key + `,"voting_power":"` + power + `","proposer_priority":"0"}`
	}
	for i, answers := range []map[string]string{
		{"commit": `null`}, {"commit": `{}`}, {"commit": `{"signed_header":{"header":null,"commit":null}}`},
		{"commit": `{"signed_header":{"header":{"height":"-5"},"commit":{"height":"5"}}}`},
		{"commit": `{"signed_header":{"header":{"height":"5"},"commit":{"height":"5","signatures":[null]}}}`},
		{"validators": `null`}, {"validators": `{}`},
		{"validators": `{"validators":[null],"total":"1"}`},
		{"validators": `{"validators":[{}],"total":"1"}`},
		{"validators": `{"validators":[` + one("1") + `],"total":"-1"}`},
		{"validators": `{"validators":[` + one("-1") + `],"total":"1"}`},
		{"validators": `{"validators":[` + one("9223372036854775807") + `,` + one("9223372036854775807") + `],"total":"2"}`},
		{"validators": `{"validators":[` + strings.Repeat(one("1")+",", 999) + one("1") + `],"total":"9000000"}`}, // pages without end
	} {
		client := open(t, options(c, "", n))
		n.set(func(n *node) { n.answers = answers })
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond) // a node without a block yet is waited for
		if _, err := client.Header(ctx, 5); err == nil {
			t.Errorf("case %d verified", i)
		}
		cancel()
		n.set(func(n *node) { n.answers = nil })
		if _, err := client.Header(t.Context(), 5); err != nil {
			t.Errorf("after case %d: %v", i, err)
		}
	}
}

func TestBoundedAnswer(t *testing.T) {
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		page := bytes.Repeat([]byte(" "), 1<<20)
		for range 2 * maxAnswer >> 20 {
			if _, err := w.Write(page); err != nil {
				return
			}
		}
		fmt.Fprint(w, `{"jsonrpc":"2.0","id":0,"result":{}}`)
	}))
	defer endless.Close()
	c := newChain(t, recently(9), 9, fourKeys())
	o := options(c, "")
	o.Endpoints = []string{strings.Replace(endless.URL, "http://", "http://user:secret@", 1)}
	_, err := Open(t.Context(), o)
	fails(t, err, "user:xxxxx@", "unexpected end of JSON input") // no password in an error, and the answer cut off
	if strings.Contains(err.Error(), "secret") {
		t.Fatal(err)
	}
}
