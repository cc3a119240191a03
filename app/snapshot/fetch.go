package snapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Path begins the paths under which a node gives its snapshots by HTTP:
//
//	GET /v1/snapshots                    what there is: a list of Info as JSON, the newest first
//	GET /v1/snapshots/{height}/manifest  the manifest
//	GET /v1/snapshots/{height}/{chunk}   a chunk
const Path = "/v1/snapshots"

var (
	// ErrNone: no source that is left offers a snapshot that can be taken.
	ErrNone = errors.New("no node offers a snapshot that can be taken")
	// ErrUntrusted is wrapped by Trust for a manifest that contradicts what is known of the chain: its sources lie.
	ErrUntrusted = errors.New("the snapshot is not of this chain's state")
)

const (
	maxListBytes = 1 << 20
	maxListed    = 10 // of one node, the newest: as many as CometBFT hands on
	perSource    = 2  // requests to one node at once
	maxFailures  = 3  // in a row, after which a node is left out until the next list
	relistPause  = 2 * time.Second
	maxLists     = 30 // looks at the lists, before it is given up
	// leastRate is what a snapshot must come with, in bytes a second over stallPatience, as long as there is another to try.
	leastRate = 64 << 10
)

// Nobody who answers slowly on purpose may keep the fetch busy for as long as it likes. Tests shorten these.
var (
	requestTimeout = 2 * time.Minute // of a chunk or a manifest: 17 kB/s
	// overtakeAfter is how long a chunk may be under way before a node that has nothing else to do is asked for it as well.
	// So the last chunks wait for the nodes that are quick, not for the slow ones.
	overtakeAfter = 10 * time.Second
	// stallPatience is how long no chunk may come, from nobody: a node that always says that it is busy, alone with its
	// snapshot, would else keep the others' from being tried. Above requestTimeout.
	stallPatience = 3 * time.Minute
)

// Fetch says where from and how a snapshot is fetched.
type Fetch struct {
	Sources []string // URLs of nodes
	Height  uint64   // 0: the newest
	Dir     string   // in which chunks are kept until all have come; a fetch that was interrupted goes on there
	// Trust compares a manifest with verified headers. Its error is ErrUntrusted, or that it cannot tell at the moment.
	Trust func(context.Context, *Manifest) error
	// Use is called with the folder of the whole snapshot. An error that is store.ErrStream says that its chunks do not give
	// its state: then the snapshot is left out, with all who gave it, and the next one is tried. nil: nothing is done with it.
	Use      func(path string, m *Manifest) error
	Progress func(Progress) // may be nil; called after each chunk, by one goroutine at a time
	Log      *slog.Logger
}

// Progress of a fetch.
type Progress struct {
	Height      uint64
	Done, All   int // chunks
	Bytes, Left uint64
	Remaining   time.Duration // about; 0: not known yet
	Sources     int           // that are asked
}

func (p Progress) String() string {
	s := fmt.Sprintf("fetching the snapshot of height %d from %d nodes: %d of %d chunks, %d MB left", p.Height, p.Sources, p.Done, p.All, p.Left>>20)
	if p.Remaining > 0 {
		s += fmt.Sprintf(", about %s", p.Remaining.Round(time.Second))
	}
	return s
}

// source is a node that is asked.
type source struct {
	url     string
	dropped error // it lied, and is not asked any more
	slow    bool  // it has let a request time out: what it alone has comes last
}

// offer is a snapshot that some nodes have.
type offer struct {
	height  uint64
	hash    string
	sources []*source
}

// Run fetches a snapshot: the newest that can be trusted, from all nodes that have it, each chunk checked as it comes.
// Who gives a false chunk or announces a false state is dropped for good; who does not answer is asked again later. Who
// answers slowly delays the fetch by no more than the limits above, once each, where others are quick.
func (f *Fetch) Run(ctx context.Context) (*Manifest, error) {
	var sources []*source
	for _, url := range f.Sources {
		if !strings.Contains(url, "://") {
			url = "http://" + url
		}
		sources = append(sources, &source{url: strings.TrimSuffix(url, "/")})
	}
	refused, stalled := map[string]bool{}, map[string]bool{}
	for look := 1; ; look++ {
		offers, errs := f.list(ctx, sources, refused)
		late := func(o *offer) bool {
			return stalled[o.hash] || !slices.ContainsFunc(o.sources, func(s *source) bool { return !s.slow && s.dropped == nil })
		}
		later := false
		for len(offers) > 0 {
			slices.SortStableFunc(offers, func(a, b *offer) int { return boolCompare(late(a), late(b)) })
			o := offers[0]
			offers = offers[1:]
			rate := 0
			if !late(o) && len(offers) > 0 && !late(offers[0]) {
				rate = leastRate
			}
			m, err := f.try(ctx, o, refused, rate)
			if err == nil {
				return m, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if machine, ok := errors.AsType[machineError](err); ok {
				return nil, machine.error
			}
			stalled[o.hash] = stalled[o.hash] || errors.Is(err, errStalled)
			f.Log.Warn("leave out a snapshot for now", "height", o.height, "hash", o.hash, "why", err)
			errs = append(errs, fmt.Errorf("height %d: %w", o.height, err))
			later = true
		}
		if !later && look > 1 || look == maxLists {
			for _, s := range sources {
				if s.dropped != nil {
					errs = append(errs, fmt.Errorf("%s was dropped: %w", s.url, s.dropped))
				}
			}
			return nil, errors.Join(append([]error{ErrNone}, errs...)...)
		}
		select {
		case <-time.After(relistPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// machineError is a failure of this machine, which no other node can mend.
type machineError struct{ error }

// errStalled: too little of the snapshot has come for stallPatience.
var errStalled = errors.New("no chunk comes, or too few for a snapshot beside which there are others,")

// boolCompare sorts false before true.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// list asks all nodes what they have: first what more than one has, the newest first, and of one height what most have. What
// one node alone has may be its invention, which costs a download to find out.
func (f *Fetch) list(ctx context.Context, sources []*source, refused map[string]bool) (offers []*offer, errs []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	byHash := map[string]*offer{}
	for _, s := range sources {
		if s.dropped != nil {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			text, err := s.get(ctx, "", maxListBytes)
			var infos []Info
			if err == nil {
				err = json.Unmarshal(text, &infos)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.url, err))
				return
			}
			taken := 0
			for _, i := range infos {
				if i.Format != Format || refused[i.Hash] || f.Height != 0 && i.Height != f.Height {
					continue
				}
				if taken++; taken > maxListed {
					break
				}
				o := byHash[i.Hash]
				if o == nil {
					o = &offer{height: i.Height, hash: i.Hash}
					byHash[i.Hash] = o
				}
				if o.height == i.Height && !slices.Contains(o.sources, s) {
					o.sources = append(o.sources, s)
				}
			}
		})
	}
	wg.Wait()
	begun := ""
	if m, err := Read(f.Dir); err == nil {
		begun = m.Hash().String()
	}
	for _, o := range byHash {
		offers = append(offers, o)
	}
	slices.SortFunc(offers, func(a, b *offer) int {
		return cmp.Or(boolCompare(a.hash != begun, b.hash != begun), // go on with what was begun
			cmp.Compare(min(len(b.sources), 2), min(len(a.sources), 2)), cmp.Compare(b.height, a.height), cmp.Compare(len(b.sources), len(a.sources)), strings.Compare(a.hash, b.hash))
	})
	return offers, errs
}

// statusError is an answer that is not 200.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d: %s", e.status, e.text) }

// idlePause is how often a worker without work looks for some.
const idlePause = 100 * time.Millisecond

// web bounds connections, and follows no node elsewhere.
var web = &http.Client{
	Transport:     &http.Transport{MaxConnsPerHost: 2 * perSource, ResponseHeaderTimeout: 30 * time.Second, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (s *source) get(ctx context.Context, part string, limit int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+Path+part, nil)
	if err != nil {
		return nil, err
	}
	response, err := web.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // what has come is enough for an error
		return nil, &statusError{response.StatusCode, strconv.QuoteToASCII(strings.TrimSpace(string(text)))}
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrChunk, limit)
	}
	return content, err
}

// try fetches one snapshot, with at least a rate in bytes a second, and uses it.
func (f *Fetch) try(ctx context.Context, o *offer, refused map[string]bool, rate int) (*Manifest, error) {
	m, err := f.manifest(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := f.Trust(ctx, m); errors.Is(err, ErrUntrusted) {
		refused[o.hash] = true
		f.drop(o.sources, err)
		return nil, err
	} else if err != nil {
		return nil, err
	}
	p, err := OpenPartial(f.Dir, m)
	if err != nil {
		return nil, machineError{err}
	}
	left := m.Bytes / uint64(len(m.Chunks)) * uint64(p.Missing())
	ours := func(err error) error {
		if errors.Is(err, ErrNoRoom) && m.Exaggerates() {
			return err
		}
		return machineError{err}
	}
	if err := Room(f.Dir, left+reserveBytes); err != nil {
		return nil, ours(err)
	}
	if n := len(m.Chunks) - p.Missing(); n > 0 {
		f.Log.Info("go on with a snapshot that was begun", "height", m.Height(), "chunks", len(m.Chunks), "have", n)
	}
	if err := f.chunks(ctx, o, p, rate); err != nil {
		return nil, err
	}
	if f.Use == nil {
		return m, nil
	}
	err = f.Use(f.Dir, m)
	if errors.Is(err, store.ErrStream) || errors.Is(err, ErrManifest) {
		refused[o.hash] = true
		f.drop(o.sources, err)
		return nil, errors.Join(err, os.RemoveAll(f.Dir))
	}
	if err != nil {
		return nil, ours(err)
	}
	return m, nil
}

func (f *Fetch) drop(sources []*source, why error) {
	for _, s := range sources {
		if s.dropped == nil {
			s.dropped = why
			f.Log.Warn("drop a node: it gave what is false", "node", s.url, "why", why)
		}
	}
}

// manifest asks all nodes that have the snapshot at once, and takes the first answer that is right.
func (f *Fetch) manifest(ctx context.Context, o *offer) (*Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	type answer struct {
		from *source
		text []byte
		err  error
	}
	answers := make(chan answer, len(o.sources))
	asked := 0
	for _, s := range o.sources {
		if s.dropped != nil {
			continue
		}
		asked++
		go func() { // ends with ctx
			text, err := s.get(ctx, fmt.Sprintf("/%d/manifest", o.height), MaxManifestBytes)
			answers <- answer{s, text, err}
		}()
	}
	var errs []error
	for range asked {
		a := <-answers
		err := a.err
		if err == nil && crypto.Hash(sha256.Sum256(a.text)).String() != o.hash {
			err = fmt.Errorf("%w: it has another hash than was announced", ErrManifest)
		}
		var m *Manifest
		if err == nil {
			m, err = Decode(a.text)
		}
		if err == nil && m.Height() != o.height {
			err = fmt.Errorf("%w: of height %d, announced is %d", ErrManifest, m.Height(), o.height)
		}
		if err == nil {
			return m, nil
		}
		if errors.Is(err, ErrManifest) {
			f.drop([]*source{a.from}, err)
		}
		a.from.slow = a.from.slow || errors.Is(err, context.DeadlineExceeded)
		errs = append(errs, fmt.Errorf("%s: %w", a.from.url, err))
	}
	return nil, errors.Join(append(errs, errors.New("nobody gives its manifest"))...)
}

// flight is a chunk that is being fetched, from one node or several.
type flight struct {
	began  time.Time
	from   []*source
	ctx    context.Context
	cancel context.CancelFunc // when it has come
}

// chunks fetches what is missing, from all nodes that have the snapshot at once, with at least a rate in bytes a second.
func (f *Fetch) chunks(ctx context.Context, o *offer, p *Partial, rate int) error {
	m := p.Manifest
	if p.Missing() == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stalled atomic.Bool
	stall := time.AfterFunc(stallPatience, func() { stalled.Store(true); cancel() })
	defer stall.Stop()
	var mu sync.Mutex // guards what follows, p, and the sources' dropped and slow
	var todo []int
	for i := range m.Chunks {
		if !p.Has(i) {
			todo = append(todo, i)
		}
	}
	flights := map[int]*flight{}
	// next returns a chunk to ask a node for; nil when there is none at the moment.
	next := func(s *source) (index int, at *flight) {
		mu.Lock()
		defer mu.Unlock()
		if len(todo) > 0 {
			index, todo = todo[0], todo[1:]
			at = &flight{began: time.Now()}
			at.ctx, at.cancel = context.WithCancel(ctx)
			flights[index] = at
		} else {
			for i, other := range flights { // the oldest
				if time.Since(other.began) > overtakeAfter && !slices.Contains(other.from, s) && (at == nil || other.began.Before(at.began)) {
					index, at = i, other
				}
			}
		}
		if at != nil {
			at.from = append(at.from, s)
		}
		return index, at
	}
	// land ends a node's part in a flight. What nobody else is fetching is still to do. mu is held.
	land := func(index int, at *flight, s *source) {
		at.from = slices.DeleteFunc(at.from, func(other *source) bool { return other == s })
		if !p.Has(index) && len(at.from) > 0 {
			return
		}
		at.cancel()
		if flights[index] == at {
			delete(flights, index)
			if !p.Has(index) {
				todo = append(todo, index)
			}
		}
	}
	came := 0 // bytes since the timer was set
	var errs []error
	var broken error
	alive := slices.DeleteFunc(slices.Clone(o.sources), func(s *source) bool { return s.dropped != nil })
	began, had, active := time.Now(), p.Missing(), perSource*len(alive) // requests at once
	var wg sync.WaitGroup
	work := func(s *source) {
		failures := 0
		for ctx.Err() == nil {
			index, at := next(s)
			if at == nil {
				select {
				case <-time.After(idlePause):
					continue
				case <-ctx.Done():
					return
				}
			}
			chunk, err := func() ([]byte, error) {
				ctx, cancel := context.WithTimeout(at.ctx, requestTimeout)
				defer cancel()
				return s.get(ctx, fmt.Sprintf("/%d/%d", m.Height(), index), ChunkBytes)
			}()
			mu.Lock()
			if ctx.Err() != nil || err != nil && p.Has(index) { // overtaken
				land(index, at, s)
				mu.Unlock()
				if ctx.Err() != nil {
					return
				}
				continue
			}
			if status, ok := errors.AsType[*statusError](err); ok && status.status == http.StatusServiceUnavailable {
				land(index, at, s)
				mu.Unlock()
				select { // it sends enough
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
				continue
			}
			if err == nil {
				err = p.Put(index, chunk)
				if err != nil && !errors.Is(err, ErrChunk) { // our disk
					broken = err
					cancel()
				}
			}
			land(index, at, s)
			if err == nil {
				failures = 0
				if came += len(chunk); came >= rate*int(stallPatience/time.Second) {
					came = 0
					stall.Reset(stallPatience)
				}
				if f.Progress != nil {
					done := had - p.Missing()
					pr := Progress{Height: m.Height(), Done: len(m.Chunks) - p.Missing(), All: len(m.Chunks), Sources: (active + perSource - 1) / perSource, Left: m.Bytes / uint64(len(m.Chunks)) * uint64(p.Missing())}
					pr.Bytes = m.Bytes - pr.Left
					pr.Remaining = time.Since(began) / time.Duration(done) * time.Duration(p.Missing())
					f.Progress(pr)
				}
				if p.Missing() == 0 {
					cancel()
				}
				mu.Unlock()
				continue
			}
			s.slow = s.slow || errors.Is(err, context.DeadlineExceeded)
			failures++
			status, answered := errors.AsType[*statusError](err)
			gone := answered && status.status == http.StatusNotFound
			lied := errors.Is(err, ErrChunk)
			if lied {
				f.drop([]*source{s}, err)
			}
			stop := lied || gone || failures >= maxFailures || s.dropped != nil
			if stop {
				active--
				errs = append(errs, fmt.Errorf("%s: %w", s.url, err))
			}
			mu.Unlock()
			if stop {
				return
			}
			select {
			case <-time.After(time.Duration(failures) * 500 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
	for _, s := range alive {
		for range perSource {
			wg.Go(func() { work(s) })
		}
	}
	wg.Wait()
	switch {
	case broken != nil:
		return machineError{broken}
	case p.Missing() == 0:
		return nil
	case stalled.Load():
		errs = append(errs, fmt.Errorf("%w for %s", errStalled, stallPatience))
	}
	return fmt.Errorf("%d of %d chunks are missing, and no node is left that gives them: %w", p.Missing(), len(m.Chunks), errors.Join(errs...))
}
