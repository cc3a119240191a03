package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// SnapshotOptions are about the snapshots that a node makes, serves and takes.
type SnapshotOptions struct {
	Dir      string // folder of the snapshots; "": none are made or served
	Interval uint64 // heights between two of them; 0: none are made by themselves
	Keep     int    // the newest so many stay; 0: all
	// Restore is the folder, beside the database, in which the state of a snapshot that peers offer is built; "": none is taken.
	Restore string
	// Network is the id of the network whose snapshots are taken.
	Network crypto.Hash
	// BlockTime returns the time of a block in Unix milliseconds where the light client knows it; nil: it is not compared.
	BlockTime func(height uint64) (millis uint64, known bool)
}

// snapshots is what the application has to do with them.
type snapshots struct {
	folder *snapshot.Folder // nil: none
	taking chan struct{}    // holds one while a snapshot is made
	work   sync.WaitGroup

	mu      sync.Mutex // held while a chunk is worked on
	restore *restore   // under way
	said    time.Time

	progress atomic.Pointer[Restoring] // of restore; nil: none is under way
}

// restore is a snapshot that peers offer, while its chunks come.
type restore struct {
	manifest *snapshot.Manifest
	build    *store.Import
	next     int // chunk
	bytes    uint64
	senders  map[string]bool
	began    time.Time
	latest   time.Time // when a chunk came last
}

// Restoring tells how far the restoring of a snapshot has come.
type Restoring struct {
	Height     uint64        `json:"height"`
	Done       int           `json:"chunks_done"`
	Chunks     int           `json:"chunks"`
	Bytes      uint64        `json:"bytes_done"`
	TotalBytes uint64        `json:"bytes"`
	Left       time.Duration `json:"left"`   // about; 0: not known yet
	Latest     time.Time     `json:"latest"` // when a chunk came last
}

func (r Restoring) String() string {
	s := fmt.Sprintf("restoring the snapshot of height %d: %d of %d chunks, %d of %d MB", r.Height, r.Done, r.Chunks, r.Bytes>>20, r.TotalBytes>>20)
	if r.Left > 0 {
		s += fmt.Sprintf(", about %s left", r.Left.Round(time.Second))
	}
	return s
}

func (a *App) openSnapshots() (err error) {
	a.snapshots.taking = make(chan struct{}, 1)
	if a.o.Snapshots.Dir == "" {
		return nil
	}
	a.snapshots.folder, err = snapshot.OpenFolder(a.o.Snapshots.Dir, a.log)
	return err
}

func (a *App) closeSnapshots() error {
	a.snapshots.work.Wait()
	a.snapshots.mu.Lock()
	defer a.snapshots.mu.Unlock()
	return a.endRestore()
}

// Snapshots returns the folder of this node's snapshots; nil when it has none.
func (a *App) Snapshots() *snapshot.Folder { return a.snapshots.folder }

// recently is how young a block must be for a snapshot to be made of it: a node that catches up has better things to do.
const recently = time.Minute

// snapshotDue begins a snapshot of the committed height in the background, where its height has one. One that is still
// being made when the next is due goes on, and the next is left out.
func (a *App) snapshotDue(h ledger.Header) {
	o := a.o.Snapshots
	if a.snapshots.folder == nil || o.Interval == 0 || h.Height%o.Interval != 0 || time.Since(time.UnixMilli(int64(h.UnixMillis))) > recently {
		return
	}
	select {
	case a.snapshots.taking <- struct{}{}:
	default:
		a.log.Warn("leave out a snapshot, as the one before is still being made; raise snapshot.interval", "height", h.Height)
		return
	}
	view := a.store.View() // of this height: the next is committed after this call
	a.snapshots.work.Go(func() {
		defer func() { <-a.snapshots.taking }()
		defer view.Close()
		// Only when the new one is whole does the oldest go: there is always one to serve.
		if _, err := a.snapshots.folder.Take(a.done, view, h.UnixMillis, snapshot.Background); err != nil {
			if a.done.Err() == nil {
				a.log.Error("take snapshot; the node goes on without it", "height", h.Height, "err", err)
			}
			return
		}
		if o.Keep > 0 {
			if err := a.snapshots.folder.Keep(o.Keep); err != nil {
				a.log.Error("remove old snapshots", "err", err)
			}
		}
	})
}

// TakeSnapshot makes a snapshot of the newest committed height now, and waits for it.
func (a *App) TakeSnapshot(ctx context.Context) (*snapshot.Manifest, error) {
	if a.snapshots.folder == nil {
		return nil, errors.New("this node has no folder for snapshots")
	}
	select {
	case a.snapshots.taking <- struct{}{}:
		defer func() { <-a.snapshots.taking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("another snapshot is being made: %w", ctx.Err())
	}
	view := a.store.View()
	defer view.Close()
	if view.Height() == 0 {
		return nil, mempool.ErrNoState
	}
	note, err := a.store.Note(view.Height())
	if err != nil {
		return nil, err
	}
	last, err := decodeNote(note)
	if err != nil {
		return nil, err
	}
	m, err := a.snapshots.folder.Take(ctx, view, last.Header.UnixMillis, snapshot.Background)
	if err == nil && a.o.Snapshots.Keep > 0 {
		err = a.snapshots.folder.Keep(a.o.Snapshots.Keep)
	}
	return m, err
}

// SnapshotTime returns the time of the block that a stopped node's state is of, for the manifest of its snapshot.
func SnapshotTime(s *store.Store) (unixMillis uint64, err error) {
	note, err := s.Note(s.Height())
	if err != nil {
		return 0, err
	}
	last, err := decodeNote(note)
	return last.Header.UnixMillis, err
}

// FinishImport makes the state of a snapshot one that an application opens. The index begins with the block after it.
func FinishImport(i *store.Import, m *snapshot.Manifest) error {
	note := encodeNote(lastBlock{Header: ledger.Header{Height: m.Height(), UnixMillis: m.UnixMillis}})
	return i.Finish(note, []ledger.Write{index.BeginsAt(m.Height() + 1)})
}

// OfferedSnapshots are those that this node gives to others, the newest first.
func (a *App) OfferedSnapshots() []*snapshot.Manifest {
	if a.snapshots.folder == nil {
		return nil
	}
	list := a.snapshots.folder.List()
	if Rehearse.Offer != nil {
		for i := range list {
			list[i] = Rehearse.Offer(list[i])
		}
	}
	return list
}

// SnapshotChunk returns a chunk that others ask for; nil when there is none.
func (a *App) SnapshotChunk(height uint64, index int) ([]byte, error) {
	if a.snapshots.folder == nil {
		return nil, nil
	}
	chunk, err := a.snapshots.folder.Chunk(height, index)
	if err == nil && chunk != nil && Rehearse.Chunk != nil {
		chunk = Rehearse.Chunk(height, index, chunk)
	}
	return chunk, err
}

// ListSnapshots tells peers what this node can give them.
func (a *App) ListSnapshots(context.Context, *abci.RequestListSnapshots) (*abci.ResponseListSnapshots, error) {
	answer := new(abci.ResponseListSnapshots)
	for _, m := range a.OfferedSnapshots() {
		if len(answer.Snapshots) == maxOffered {
			break
		}
		text := m.Encode()
		hash := m.Hash()
		answer.Snapshots = append(answer.Snapshots, &abci.Snapshot{Height: m.Height(), Format: snapshot.Format, Chunks: uint32(len(m.Chunks)), Hash: hash[:], Metadata: text})
	}
	return answer, nil
}

// maxOffered is what CometBFT hands on.
const maxOffered = 10

// LoadSnapshotChunk gives a peer a chunk: one file of at most 2 MB, for CometBFT calls it in the goroutine that receives
// from the peer.
func (a *App) LoadSnapshotChunk(_ context.Context, req *abci.RequestLoadSnapshotChunk) (*abci.ResponseLoadSnapshotChunk, error) {
	answer := new(abci.ResponseLoadSnapshotChunk)
	if req.Format != snapshot.Format {
		return answer, nil
	}
	chunk, err := a.SnapshotChunk(req.Height, int(req.Chunk))
	if err != nil {
		// An answer without the chunk sends the peer elsewhere.
		a.log.Error("serve snapshot; remove it", "err", err)
		return answer, nil
	}
	answer.Chunk = chunk
	return answer, nil
}

// Rehearse has a node lie to those who take snapshots of it, for tests of networks in which one does. Nil but there.
var Rehearse struct {
	Offer func(*snapshot.Manifest) *snapshot.Manifest
	Chunk func(height uint64, index int, chunk []byte) []byte
}

// OfferSnapshot decides on a snapshot of peers. CometBFT gives the AppHash as its light client has verified it, so what
// does not have it is refused before anything is fetched, and so are those who offer it.
func (a *App) OfferSnapshot(_ context.Context, req *abci.RequestOfferSnapshot) (answer *abci.ResponseOfferSnapshot, err error) {
	a.snapshots.mu.Lock()
	defer a.snapshots.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("an offered snapshot made the node panic: report this as a defect", "panic", r, "stack", string(debug.Stack()))
			answer, err = &abci.ResponseOfferSnapshot{Result: abci.ResponseOfferSnapshot_REJECT_SENDER}, nil
		}
	}()
	result := func(r abci.ResponseOfferSnapshot_Result, why error) (*abci.ResponseOfferSnapshot, error) {
		a.log.Warn("refuse snapshot", "height", req.Snapshot.GetHeight(), "answer", r.String(), "why", why)
		return &abci.ResponseOfferSnapshot{Result: r}, nil
	}
	if err := a.endRestore(); err != nil {
		return nil, err
	}
	o := a.o.Snapshots
	if o.Restore == "" || a.store.Height() != 0 {
		return result(abci.ResponseOfferSnapshot_ABORT, fmt.Errorf("this node takes no snapshot: it is at height %d", a.store.Height()))
	}
	s := req.Snapshot
	if s == nil || s.Format != snapshot.Format {
		return result(abci.ResponseOfferSnapshot_REJECT_FORMAT, fmt.Errorf("want format %d", snapshot.Format))
	}
	m, err := snapshot.Decode(s.Metadata)
	if err != nil {
		return result(abci.ResponseOfferSnapshot_REJECT_SENDER, err)
	}
	hash, app := m.Hash(), m.Tops.AppHash()
	millis, known := uint64(0), false
	if o.BlockTime != nil {
		millis, known = o.BlockTime(m.Height())
	}
	switch {
	case m.Height() != s.Height || len(m.Chunks) != int(s.Chunks) || string(hash[:]) != string(s.Hash):
		err = errors.New("it is announced with another height, number of chunks or hash than its manifest says")
	case string(app[:]) != string(req.AppHash):
		err = fmt.Errorf("its AppHash is %X, the verified header says %X", app[:], req.AppHash)
	case o.Network != crypto.Hash{} && m.Network != o.Network:
		err = fmt.Errorf("it is of network %s, this node's is %s", m.Network, o.Network)
	case known && m.UnixMillis != millis:
		err = fmt.Errorf("it is of %d, the verified header says %d ms", m.UnixMillis, millis)
	}
	if err != nil {
		return result(abci.ResponseOfferSnapshot_REJECT_SENDER, err)
	}
	// What is built takes about three times the chunks: tree nodes, flat rows, and both again while they are compacted.
	if err := os.MkdirAll(o.Restore, 0o700); err != nil {
		return nil, err
	}
	if err := snapshot.Room(o.Restore, 4*m.Bytes); err != nil {
		if m.Exaggerates() { // an error would let any peer end the node
			return result(abci.ResponseOfferSnapshot_REJECT, err)
		}
		return nil, err
	}
	build, err := store.NewImport(o.Restore, a.o.Store, &m.Tops)
	if errors.Is(err, store.ErrStream) {
		return result(abci.ResponseOfferSnapshot_REJECT_SENDER, err)
	}
	if err != nil {
		return nil, err
	}
	a.snapshots.restore = &restore{manifest: m, build: build, senders: map[string]bool{}, began: time.Now(), latest: time.Now()}
	a.snapshots.progress.Store(a.snapshots.restore.progress())
	a.log.Info("restore snapshot", "height", m.Height(), "chunks", len(m.Chunks), "bytes", m.Bytes, "rows", m.Tops.Leaves(), "hash", hash.String())
	return &abci.ResponseOfferSnapshot{Result: abci.ResponseOfferSnapshot_ACCEPT}, nil
}

func (a *App) endRestore() error {
	r := a.snapshots.restore
	a.snapshots.restore = nil
	a.snapshots.progress.Store(nil)
	if r == nil {
		return nil
	}
	return r.build.Close()
}

// ApplySnapshotChunk takes a chunk. One that is not the manifest's is fetched again, from others than who sent it. Where
// the chunks are the manifest's and do not give its state, the manifest lies: the snapshot is left out with all who gave of it.
func (a *App) ApplySnapshotChunk(_ context.Context, req *abci.RequestApplySnapshotChunk) (answer *abci.ResponseApplySnapshotChunk, err error) {
	a.snapshots.mu.Lock()
	defer a.snapshots.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("a chunk made the node panic: report this as a defect", "chunk", req.Index, "from", req.Sender, "panic", r, "stack", string(debug.Stack()))
			answer, err = &abci.ResponseApplySnapshotChunk{Result: abci.ResponseApplySnapshotChunk_REJECT_SNAPSHOT, RejectSenders: []string{req.Sender}}, a.endRestore()
		}
	}()
	r := a.snapshots.restore
	if r == nil {
		return &abci.ResponseApplySnapshotChunk{Result: abci.ResponseApplySnapshotChunk_RETRY_SNAPSHOT}, nil
	}
	index := int(req.Index)
	if err := r.manifest.Check(index, req.Chunk); err != nil {
		a.log.Warn("refuse chunk and leave its sender out", "height", r.manifest.Height(), "chunk", index, "from", req.Sender, "why", err)
		return &abci.ResponseApplySnapshotChunk{Result: abci.ResponseApplySnapshotChunk_RETRY, RefetchChunks: []uint32{req.Index}, RejectSenders: []string{req.Sender}}, nil
	}
	accept := &abci.ResponseApplySnapshotChunk{Result: abci.ResponseApplySnapshotChunk_ACCEPT}
	if index < r.next {
		return accept, nil
	}
	if index > r.next { // CometBFT gives them in order
		return &abci.ResponseApplySnapshotChunk{Result: abci.ResponseApplySnapshotChunk_RETRY_SNAPSHOT}, a.endRestore()
	}
	r.senders[req.Sender] = true
	err = r.build.Apply(req.Chunk)
	if err == nil {
		r.next++
		r.bytes += uint64(len(req.Chunk))
		r.latest = time.Now()
		a.snapshots.progress.Store(r.progress())
		if r.next < len(r.manifest.Chunks) {
			if time.Since(a.snapshots.said) > sayEvery {
				a.snapshots.said = time.Now()
				a.log.Info(r.progress().String())
			}
			return accept, nil
		}
		if r.bytes != r.manifest.Bytes {
			err = fmt.Errorf("%w: %d bytes, the manifest says %d", store.ErrStream, r.bytes, r.manifest.Bytes)
		} else {
			err = FinishImport(r.build, r.manifest)
		}
	}
	if errors.Is(err, store.ErrStream) {
		a.log.Warn("refuse snapshot and leave out who gave of it", "height", r.manifest.Height(), "chunk", index, "from", slices.Sorted(maps.Keys(r.senders)), "why", err)
		return &abci.ResponseApplySnapshotChunk{Result: abci.ResponseApplySnapshotChunk_REJECT_SNAPSHOT, RejectSenders: slices.Sorted(maps.Keys(r.senders))}, a.endRestore()
	}
	if err == nil {
		err = a.adopt(r)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restoring the snapshot of height %d: %w", r.manifest.Height(), err), a.endRestore())
	}
	return accept, a.endRestore()
}

// Restore builds the state of a whole snapshot, which the caller trusts, and puts it into the place of the empty one, before
// CometBFT runs. The error is store.ErrStream where the chunks do not give the state.
func (a *App) Restore(ctx context.Context, path string, m *snapshot.Manifest) error {
	a.snapshots.mu.Lock()
	defer a.snapshots.mu.Unlock()
	r := &restore{manifest: m, bytes: 0, began: time.Now(), latest: time.Now()}
	defer a.snapshots.progress.Store(nil)
	if err := snapshot.Room(path, 4*m.Bytes); err != nil {
		return err
	}
	err := snapshot.Build(ctx, path, m, a.o.Snapshots.Restore, a.o.Store, func(i *store.Import) error { return FinishImport(i, m) }, func(done, all int) {
		r.next, r.bytes, r.latest = done, m.Bytes/uint64(all)*uint64(done), time.Now()
		a.snapshots.progress.Store(r.progress())
		if time.Since(a.snapshots.said) > sayEvery {
			a.snapshots.said = time.Now()
			a.log.Info(r.progress().String())
		}
	})
	if err != nil {
		return err
	}
	return a.adopt(r)
}

// sayEvery is the pause between two lines of progress.
const sayEvery = 5 * time.Second

// adopt puts the state that was built into the place of the empty one. From then on Info names its height.
func (a *App) adopt(r *restore) error {
	if err := a.store.Adopt(a.o.Snapshots.Restore); err != nil {
		return err
	}
	note, err := a.store.Note(a.store.Height())
	if err != nil {
		return err
	}
	last, err := decodeNote(note)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.last = last
	a.genesis, a.staged = nil, nil
	clear(a.known)
	a.mu.Unlock()
	a.pool.Committed(last.Header, nil, nil)
	a.log.Info("restored snapshot; the blocks after it come from peers", "height", last.Header.Height, "app_hash", fmt.Sprintf("%X", a.store.AppHash()), "took", time.Since(r.began).Round(time.Millisecond))
	return nil
}

// Restoring tells whether a snapshot is being restored, and how far that has come.
func (a *App) Restoring() (Restoring, bool) {
	if p := a.snapshots.progress.Load(); p != nil {
		return *p, true
	}
	return Restoring{}, false
}

func (r *restore) progress() *Restoring {
	p := &Restoring{Height: r.manifest.Height(), Done: r.next, Chunks: len(r.manifest.Chunks), Bytes: r.bytes, TotalBytes: r.manifest.Bytes, Latest: r.latest}
	if p.Done > 0 && p.Done < p.Chunks {
		p.Left = time.Duration(float64(r.latest.Sub(r.began)) / float64(p.Bytes) * float64(p.TotalBytes-p.Bytes))
	}
	return p
}
