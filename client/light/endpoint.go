package light

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cometbft/cometbft/light/provider"
	rpchttp "github.com/cometbft/cometbft/rpc/client/http"
	jsonrpc "github.com/cometbft/cometbft/rpc/jsonrpc/client"
	"github.com/cometbft/cometbft/types"
)

const (
	// maxAnswer bounds one answer of an endpoint in bytes: a page of 100 ml_dsa_65 validators has 270 KB, a commit of
	// 1,000 of them 4.5 MB in base64.
	maxAnswer = 16 << 20
	// validatorsPage is the largest page that the RPC gives.
	validatorsPage = 100
	// maxValidators bounds a validator set; cometbft's own limit for the votes of a block is 10,000.
	maxValidators = 10_000
)

// endpoint is one node that is asked. It notes in witnessed what it showed and how it failed, for cometbft's light client
// only logs and forgets both.
type endpoint struct {
	name      string
	chainID   string
	fetch     func(ctx context.Context, height int64) (*types.LightBlock, error)
	report    func(ctx context.Context, evidence types.Evidence) error
	witnessed *witnessed
	coolUntil time.Time // guarded by Client.mu
}

var _ provider.Provider = (*endpoint)(nil)

// dial makes an endpoint of an RPC address; nothing is sent yet.
func dial(chainID, address string, w *witnessed) (*endpoint, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	web, err := jsonrpc.DefaultHTTPClient(address)
	if err != nil {
		return nil, err
	}
	web.Timeout = callTimeout
	web.Transport = bounded{web.Transport}
	client, err := rpchttp.NewWithClient(address, "/websocket", web)
	if err != nil {
		return nil, err
	}
	name := address
	if u, err := url.Parse(address); err == nil {
		name = u.Redacted() // it stands in errors and logs
	}
	return &endpoint{
		name: name, chainID: chainID, witnessed: w,
		fetch: func(ctx context.Context, height int64) (*types.LightBlock, error) { return fetch(ctx, client, height) },
		report: func(ctx context.Context, evidence types.Evidence) error {
			_, err := client.BroadcastEvidence(ctx, evidence)
			return err
		},
	}, nil
}

// bounded cuts answers off at maxAnswer, for the RPC client reads to the end whatever comes.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxAnswer), response.Body}
	}
	return response, err
}

// The node tells these two cases in words only (rpc/core/env.go of cometbft v0.40).
var (
	saysTooHigh = regexp.MustCompile(`height \d+ must be less than or equal to`)
	saysPruned  = regexp.MustCompile(`height \d+ is not available`)
)

func classify(err error) error {
	switch {
	case saysTooHigh.MatchString(err.Error()):
		return provider.ErrHeightTooHigh
	case saysPruned.MatchString(err.Error()):
		return provider.ErrLightBlockNotFound
	}
	return err
}

// fetch asks for a commit and for the validators who signed it. Height 0 means the newest.
func fetch(ctx context.Context, client *rpchttp.HTTP, height int64) (*types.LightBlock, error) {
	at := &height
	if height == 0 {
		at = nil
	}
	commit, err := client.Commit(ctx, at)
	if err != nil {
		return nil, classify(err)
	}
	if commit.Header == nil || commit.Commit == nil {
		// A node that has no block yet answers so, without an error.
		return nil, provider.ErrHeightTooHigh
	}
	height = commit.Header.Height
	var list []*types.Validator
	for page, perPage := 1, validatorsPage; ; page++ {
		answer, err := client.Validators(ctx, &height, &page, &perPage)
		if err != nil {
			return nil, classify(err)
		}
		list = append(list, answer.Validators...)
		if len(answer.Validators) == 0 || len(list) > maxValidators {
			return nil, bad("validators of block %d: %d of %d, want all and at most %d", height, len(list), answer.Total, maxValidators)
		}
		if len(list) >= answer.Total {
			break
		}
	}
	if slices.Contains(list, nil) {
		return nil, bad("validators of block %d: one is null", height)
	}
	set, err := types.ValidatorSetFromExistingValidators(list)
	if err != nil {
		return nil, bad("validators of block %d: %v", height, err)
	}
	return &types.LightBlock{SignedHeader: &commit.SignedHeader, ValidatorSet: set}, nil
}

func bad(format string, args ...any) error {
	return provider.ErrBadLightBlock{Reason: fmt.Errorf(format, args...)}
}

func (e *endpoint) String() string  { return e.name }
func (e *endpoint) ChainID() string { return e.chainID }

// ReportEvidence hands the node evidence that validators signed a fork, which only a light client may have seen.
// cometbft's detector calls it with the other endpoint's blocks.
func (e *endpoint) ReportEvidence(ctx context.Context, evidence types.Evidence) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return e.report(ctx, evidence)
}

// wrong notes that the endpoint gave a block that does not verify, and returns the error.
func (e *endpoint) wrong(err error) error {
	e.witnessed.fault(e, err)
	return err
}

// LightBlock asks for a block, 0 for the newest, and waits a little for one that is ahead. Any error but the context's is
// noted; to cometbft all of them but a bad block are "no response", which is the one that makes it neither sleep for half
// a minute nor drop the endpoint.
func (e *endpoint) LightBlock(ctx context.Context, height int64) (*types.LightBlock, error) {
	deadline := time.Now().Add(patience)
	for {
		block, err := e.once(ctx, height)
		if err == nil {
			e.witnessed.saw(e, block)
			return block, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, provider.ErrHeightTooHigh) && time.Now().Before(deadline) {
			select {
			case <-time.After(pollInterval):
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		e.witnessed.fault(e, err)
		if b, ok := errors.AsType[provider.ErrBadLightBlock](err); ok {
			return nil, b
		}
		return nil, provider.ErrNoResponse
	}
}

// once asks once and checks everything that needs no trust: form, chain, height, and that header, commit and validators
// belong together. Here strangers' bytes enter, and cometbft panics on some of them.
func (e *endpoint) once(ctx context.Context, height int64) (block *types.LightBlock, err error) {
	defer func() {
		if r := recover(); r != nil {
			block, err = nil, bad("%v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	block, err = e.fetch(ctx, height)
	if err != nil {
		return nil, err
	}
	if block == nil {
		return nil, bad("no block")
	}
	if err := block.ValidateBasic(e.chainID); err != nil {
		return nil, bad("block %d: %v", height, err)
	}
	if height != 0 && block.Height != height {
		return nil, bad("block %d is asked for and %d answered", height, block.Height)
	}
	return block, nil
}

// witnessed is what the endpoints showed and how they failed during one call of the client. It is safe for concurrent use.
type witnessed struct {
	mu     sync.Mutex
	claims map[int64][]Claim
	newest int64 // the height that was shown last
	failed []fault
}

type fault struct {
	from *endpoint
	err  error
}

func (w *witnessed) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claims, w.failed, w.newest = map[int64][]Claim{}, nil, 0
}

func (w *witnessed) saw(e *endpoint, b *types.LightBlock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claims == nil {
		w.claims = map[int64][]Claim{}
	}
	w.newest = b.Height
	for _, c := range w.claims[b.Height] {
		if c.Endpoint == e.name && bytes.Equal(c.Hash, b.Hash()) {
			return
		}
	}
	w.claims[b.Height] = append(w.claims[b.Height], Claim{e.name, b.Hash()})
}

func (w *witnessed) fault(e *endpoint, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, fault{e, err})
}

func (w *witnessed) faults() []fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.failed)
}

// divergence returns the lowest height that was shown with different hashes, nil if there is none. One endpoint that
// shows two blocks at a height counts as well.
func (w *witnessed) divergence() *Divergence {
	w.mu.Lock()
	defer w.mu.Unlock()
	lowest := int64(0)
	for height, claims := range w.claims {
		differs := slices.ContainsFunc(claims, func(c Claim) bool { return !bytes.Equal(c.Hash, claims[0].Hash) })
		if differs && (lowest == 0 || height < lowest) {
			lowest = height
		}
	}
	if lowest == 0 {
		return nil
	}
	return &Divergence{Height: uint64(lowest), Claims: sorted(w.claims[lowest])}
}

// last returns the height that was shown last.
func (w *witnessed) last() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest
}

// at returns what was shown at a height.
func (w *witnessed) at(height int64) []Claim {
	w.mu.Lock()
	defer w.mu.Unlock()
	return sorted(w.claims[height])
}

func sorted(claims []Claim) []Claim {
	claims = slices.Clone(claims)
	slices.SortFunc(claims, func(a, b Claim) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	return claims
}
