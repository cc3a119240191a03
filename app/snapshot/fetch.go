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
	maxListBytes   = 1 << 20
	maxListed      = 1000
	requestTimeout = 2 * time.Minute // of one chunk: 17 kB/s
	perSource      = 2               // requests to one node at once
	maxFailures    = 3               // in a row, after which a node is left out until the next list
	relistPause    = 2 * time.Second
	maxLists       = 30 // looks at the lists, before it is given up
)

// stallPatience is how long no chunk may come, from nobody: a node that always says that it is busy, alone with its
// snapshot, would else keep the others' from being tried. Above requestTimeout. Tests shorten it.
var stallPatience = 3 * time.Minute

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
}

// offer is a snapshot that some nodes have.
type offer struct {
	height  uint64
	hash    string
	sources []*source
}

// Run fetches a snapshot: the newest that can be trusted, from all nodes that have it, each chunk checked as it comes.
// Who gives a false chunk or announces a false state is dropped for good; who does not answer is asked again later.
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
		offers, errs := f.list(ctx, sources, refused, stalled)
		later := false
		for _, o := range offers {
			m, err := f.try(ctx, o, refused)
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

// errStalled: no chunk of the snapshot has come for stallPatience.
var errStalled = errors.New("no chunk comes")

// list asks all nodes what they have: first what more than one has, the newest first, and of one height what most have. What
// one node alone has may be its invention, which costs a download to find out. What has stalled comes last.
func (f *Fetch) list(ctx context.Context, sources []*source, refused, stalled map[string]bool) (offers []*offer, errs []error) {
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
			for _, i := range infos[:min(len(infos), maxListed)] {
				if i.Format != Format || refused[i.Hash] || f.Height != 0 && i.Height != f.Height {
					continue
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
	late := func(o *offer) int {
		if stalled[o.hash] {
			return 1
		}
		return 0
	}
	slices.SortFunc(offers, func(a, b *offer) int {
		if c := cmp.Compare(late(a), late(b)); c != 0 {
			return c
		}
		if (a.hash == begun) != (b.hash == begun) { // go on with what was begun
			if a.hash == begun {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(min(len(b.sources), 2), min(len(a.sources), 2)), cmp.Compare(b.height, a.height), cmp.Compare(len(b.sources), len(a.sources)), strings.Compare(a.hash, b.hash))
	})
	return offers, errs
}

// statusError is an answer that is not 200.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d: %s", e.status, e.text) }

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

// try fetches one snapshot and uses it.
func (f *Fetch) try(ctx context.Context, o *offer, refused map[string]bool) (*Manifest, error) {
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
	if err := f.chunks(ctx, o, p); err != nil {
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

func (f *Fetch) manifest(ctx context.Context, o *offer) (*Manifest, error) {
	var errs []error
	for _, s := range o.sources {
		if s.dropped != nil {
			continue
		}
		text, err := func() ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			return s.get(ctx, fmt.Sprintf("/%d/manifest", o.height), MaxManifestBytes)
		}()
		if err == nil && crypto.Hash(sha256.Sum256(text)).String() != o.hash {
			err = fmt.Errorf("%w: it has another hash than was announced", ErrManifest)
		}
		var m *Manifest
		if err == nil {
			m, err = Decode(text)
		}
		if err == nil && m.Height() != o.height {
			err = fmt.Errorf("%w: of height %d, announced is %d", ErrManifest, m.Height(), o.height)
		}
		if err == nil {
			return m, nil
		}
		if errors.Is(err, ErrManifest) {
			f.drop([]*source{s}, err)
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.url, err))
	}
	return nil, errors.Join(append(errs, errors.New("nobody gives its manifest"))...)
}

// chunks fetches what is missing, from all nodes that have the snapshot at once.
func (f *Fetch) chunks(ctx context.Context, o *offer, p *Partial) error {
	m := p.Manifest
	todo := make(chan int, len(m.Chunks))
	for i := range m.Chunks {
		if !p.Has(i) {
			todo <- i
		}
	}
	if p.Missing() == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stalled atomic.Bool
	stall := time.AfterFunc(stallPatience, func() { stalled.Store(true); cancel() })
	defer stall.Stop()
	var mu sync.Mutex // guards what follows, p, and the sources' dropped
	var errs []error
	var broken error
	alive := slices.DeleteFunc(slices.Clone(o.sources), func(s *source) bool { return s.dropped != nil })
	began, had, active := time.Now(), p.Missing(), perSource*len(alive) // requests at once
	var wg sync.WaitGroup
	work := func(s *source) {
		failures := 0
		for {
			var index int
			select {
			case index = <-todo:
			case <-ctx.Done():
				return
			}
			chunk, err := func() ([]byte, error) {
				ctx, cancel := context.WithTimeout(ctx, requestTimeout)
				defer cancel()
				return s.get(ctx, fmt.Sprintf("/%d/%d", m.Height(), index), ChunkBytes)
			}()
			if ctx.Err() != nil {
				return
			}
			if status, ok := errors.AsType[*statusError](err); ok && status.status == http.StatusServiceUnavailable {
				todo <- index
				select { // it sends enough
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
				continue
			}
			mu.Lock()
			if err == nil {
				err = p.Put(index, chunk)
				if err != nil && !errors.Is(err, ErrChunk) { // our disk
					broken = err
					cancel()
				}
			}
			if err == nil {
				failures = 0
				stall.Reset(stallPatience)
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
			todo <- index
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
