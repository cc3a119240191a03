package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

const (
	defaultPages = 4 // on the way at once; a node answers four times its cores at once, and has others to answer
	maxPages     = 64

	// pageTries is how often a page is asked for before a walk gives up: a node that restarts is back within that.
	pageTries = 6
)

// WalkOptions say what to walk over, and how. The zero value is the newest state.
type WalkOptions struct {
	Height     uint64 // 0: the newest that can be proven
	Pages      int    // asked for at once; 0: 4, at most 64
	PageLeaves uint32 // most rows of a page; 0: proof.MaxLeaves, which is also the most that a node gives

	// Progress is told, on the walk's goroutine, how many of all rows were handed out. Both numbers are proven.
	Progress func(done, total uint64)
}

// Walked is the state that a walk went over.
type Walked struct {
	Height  uint64    // of the state; the header of the next height carries its root
	Time    time.Time // of that header
	AppHash []byte
	Rows    uint64 // all rows of all trees
	Pages   uint64 // answers that it took
}

// Walk hands out every row of the state's trees at one height: provably all of them, each once, as the validators signed
// for. Trees come in the order of ledger.TreeNames, rows within a tree in ascending order of keys. Rows beside the trees
// (policies, nonces) are not among them. row must not keep key and value, and is never called by two goroutines; an error of
// its ends the walk.
//
// Every page is checked on arrival against the hash that the page above it named, up to the AppHash in a verified header, so
// that one node is enough and a lying one is found at its first wrong byte. Rows that were handed out before an error are true,
// but not all. The nodes must keep the height until the end: ErrPruned says that they did not. Memory is bounded by the pages
// on the way, of at most 2 MiB, and their number of places, whatever the size of the state.
func (c *Client) Walk(ctx context.Context, o WalkOptions, row func(key, value []byte) error) (Walked, error) {
	if o.Pages == 0 {
		o.Pages = defaultPages
	}
	if o.Pages < 1 || o.Pages > maxPages {
		return Walked{}, fmt.Errorf("%d pages at once, want 1 to %d", o.Pages, maxPages)
	}
	if o.PageLeaves == 0 {
		o.PageLeaves = proof.MaxLeaves
	}
	network, err := c.Network(ctx, o.Height) // waits for a height to come, and refuses a stale newest one
	if err != nil {
		return Walked{}, pruned(err)
	}
	header, err := c.light.Header(ctx, network.Height+1)
	if err != nil {
		return Walked{}, err
	}
	w := &walk{client: c, options: o, row: row, done: Walked{Height: network.Height, Time: network.Time, AppHash: header.AppHash}}
	ctx, cancel := context.WithCancel(ctx)
	defer w.asking.Wait()
	defer cancel()
	if err := w.run(ctx); err != nil {
		return w.done, fmt.Errorf("walking over the state of height %d: %w", w.done.Height, pruned(err))
	}
	return w.done, nil
}

func pruned(err error) error {
	if refusedQuery(err, query.Pruned) {
		return fmt.Errorf("%w: %w", ErrPruned, err)
	}
	return err
}

// walk is a Walk on its way. Its stack holds what is still to be handed out, the next on top: rows that are here, and places
// whose pages are on the way or still to be asked for.
type walk struct {
	client  *Client
	options WalkOptions
	row     func(key, value []byte) error
	asking  sync.WaitGroup
	stack   []*stretch

	tree  int    // of the last row
	last  []byte // its key
	total uint64 // rows, as the roots of the trees say
	done  Walked
}

// stretch is a part of the order of rows.
type stretch struct {
	rows  []proof.Item // when place is nil
	place *proof.Place

	arrived chan struct{} // closed when content or err is there; nil before it is asked for
	content proof.Content
	err     error
}

func (w *walk) run(ctx context.Context) error {
	places, err := askHeight(ctx, w.client, "reading the roots of the trees", query.PathTrees, nil, w.done.Height, func(b []byte) ([]proof.Place, error) {
		return proof.OpenRoots(w.done.AppHash, b)
	})
	if err != nil {
		return err
	}
	for i := range slices.Backward(places) {
		w.stack = append(w.stack, &stretch{place: &places[i]})
	}
	// The roots say how many rows there are.
	for i := range slices.Backward(w.stack) {
		s := w.stack[i]
		if err := w.wait(ctx, i); err != nil {
			return err
		}
		w.total += s.content.Size - 1 // each tree's own leaf is no row
	}
	w.progress()
	for len(w.stack) > 0 {
		at := len(w.stack) - 1
		s := w.stack[at]
		if s.place == nil {
			w.stack = w.stack[:at]
			if err := w.handOut(s.rows); err != nil {
				return err
			}
			continue
		}
		if err := w.wait(ctx, at); err != nil {
			return err
		}
		w.stack = w.stack[:at]
		if s.place.Tree != w.tree {
			w.tree, w.last = s.place.Tree, nil
		}
		w.push(s.content.Items)
	}
	if w.done.Rows != w.total {
		return fmt.Errorf("%w: %d rows, the roots of the trees say %d", proof.ErrInvalid, w.done.Rows, w.total)
	}
	return nil
}

// push puts a page's content on the stack.
func (w *walk) push(items []proof.Item) {
	for end := len(items); end > 0; {
		if below := items[end-1].Below; below != nil {
			w.stack = append(w.stack, &stretch{place: below})
			end--
			continue
		}
		begin := end
		for begin > 0 && items[begin-1].Below == nil {
			begin--
		}
		w.stack = append(w.stack, &stretch{rows: items[begin:end]})
		end = begin
	}
}

// wait waits for the page of the stretch at a place of the stack, and sees to it that those that follow are on their way.
func (w *walk) wait(ctx context.Context, at int) error {
	for i, ahead := at, 0; i >= 0 && ahead < w.options.Pages; i-- {
		s := w.stack[i]
		if s.place == nil {
			continue
		}
		ahead++
		if s.arrived != nil {
			continue
		}
		s.arrived = make(chan struct{})
		w.done.Pages++
		w.asking.Go(func() {
			defer close(s.arrived)
			what := fmt.Sprintf("reading tree %s below %x", ledger.TreeNames()[s.place.Tree], s.place.Path)
			s.content, s.err = askHeight(ctx, w.client, what, query.TreePath(ledger.TreeNames()[s.place.Tree]),
				query.TreeData(s.place.Path, w.options.PageLeaves), w.done.Height, s.place.Open)
		})
	}
	s := w.stack[at]
	select {
	case <-s.arrived:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *walk) handOut(rows []proof.Item) error {
	for _, r := range rows {
		if w.last != nil && bytes.Compare(w.last, r.Key) >= 0 {
			return fmt.Errorf("%w: key %x does not sort behind %x", proof.ErrInvalid, r.Key, w.last)
		}
		w.last = r.Key
		if err := w.row(r.Key, r.Value); err != nil {
			return err
		}
		w.done.Rows++
	}
	w.last = bytes.Clone(w.last) // lets go of the page
	w.progress()
	return nil
}

func (w *walk) progress() {
	if w.options.Progress != nil {
		w.options.Progress(w.done.Rows, w.total)
	}
}

// askHeight asks the nodes for something at a height, as [ask] does, and again after a while when none could be reached.
func askHeight[T any](ctx context.Context, c *Client, what, path string, data []byte, height uint64, open func([]byte) (T, error)) (answer T, err error) {
	for try := 1; ; try++ {
		answer, err = ask(ctx, c, what, func(n *node) (T, error) {
			answer, err := n.query(ctx, path, data, height, false)
			if err != nil {
				var none T
				return none, err
			}
			return checked(n, answer, height, open)
		})
		final := errors.Is(err, proof.ErrInvalid) || refusedQuery(err, query.Pruned, query.Malformed, query.NotFound)
		if err == nil || final || try == pageTries || pause(ctx, time.Duration(try)*500*time.Millisecond) != nil {
			return answer, err
		}
		c.log.Info("no node answered, asking again", "question", what, "error", err)
	}
}

func checked[T any](n *node, answer abci.ResponseQuery, height uint64, open func([]byte) (T, error)) (content T, err error) {
	if answer.Height != int64(height) {
		err = fmt.Errorf("%w: answers for height %d, asked for %d", proof.ErrInvalid, answer.Height, height)
	} else {
		content, err = open(answer.Value)
	}
	if err != nil {
		return content, &nodeError{n.name, err}
	}
	return content, nil
}
