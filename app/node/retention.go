package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cometbft/cometbft/evidence"
	cmtstate "github.com/cometbft/cometbft/proto/tendermint/state"
	"github.com/cometbft/cometbft/state"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Least limits of history, see Config.Check.
const (
	minRetainHeights = 100
	minRetainTime    = time.Minute
	minRetainBytes   = 2 << 30 // the databases' logs take up to 1 GB of it, whatever the chain
)

const (
	// retainEvery: CometBFT syncs two databases whenever it deletes blocks, so it is asked once in so many.
	retainEvery = 10
	// retainStep bounds the heights that are asked to go at once: CometBFT deletes them while consensus waits, and the
	// application deletes four with each block. So where many are to go, four go for each new one.
	retainStep = 4 * retainEvery
	// measureEvery: the data folder has some hundred files; their sizes are asked for once in so many heights.
	measureEvery = 100
	// compactAfter: the least heights that were deleted before tables are rewritten to give the space back.
	compactAfter = 5000
)

// retention decides from which height on this node keeps history, and sees to it that the space comes back.
//
// Height by height, in this order of writes, so that a crash between two of them leaves more than needed, never less: the
// application's commit; CometBFT's deletion of blocks and states (RetainHeight), which for as long as evidence may name
// a height leaves its header, commit and validators; when evidence can no longer name it, those, by sweep. CometBFT itself
// never deletes them once it has left them.
type retention struct {
	policy RetentionConfig
	look   uint64 // heights below the newest that the guard of the validator's key reads
	blocks state.BlockStore
	states state.Store
	block  *cometdb.DB // under blocks and states, for what they leave
	state  *cometdb.DB
	used   func() int64 // bytes of the data folder
	// offered is the oldest height of which peers can have a snapshot from here, after which they need the blocks; 0: none.
	offered func() uint64
	log     *slog.Logger

	keep    atomic.Uint64 // the answer: heights from here on are kept
	cut     uint64        // where the limit of bytes has cut
	removed atomic.Uint64 // heights that went since the tables were last rewritten
	wake    chan struct{}
}

func newRetention(policy RetentionConfig, look uint64, blocks state.BlockStore, states state.Store, databases *cometdb.Databases, used func() int64, offered func() uint64, log *slog.Logger) (*retention, error) {
	r := &retention{policy: policy, look: look, blocks: blocks, states: states, used: used, offered: offered, log: log, wake: make(chan struct{}, 1)}
	var err error
	if r.block, err = databases.Named("blockstore"); err != nil {
		return nil, err
	}
	if r.state, err = databases.Named("state"); err != nil {
		return nil, err
	}
	r.keep.Store(uint64(max(blocks.Base(), 0)))
	return r, nil
}

// limited tells whether anything is ever to go.
func (r *retention) limited() bool { return r.policy != RetentionConfig{} }

// from is called after each commit, by one goroutine, and gives the height from which on history is kept; 0: all.
func (r *retention) from(last ledger.Header) (uint64, error) {
	keep := r.keep.Load()
	if !r.limited() {
		return 0, nil
	}
	if keep == 0 {
		keep = uint64(max(r.blocks.Base(), 0))
	}
	if keep == 0 || last.Height%retainEvery != 0 {
		return keep, nil
	}
	want, err := r.want(last, keep)
	if err != nil {
		return 0, err
	}
	want = min(want, keep+retainStep)
	if err := r.sweep(last); err != nil {
		return 0, err
	}
	if want > keep {
		r.removed.Add(want - keep)
		r.keep.Store(want)
		keep = want
	}
	// A limit of bytes waits for the space that its cut gives back; else it is enough to do it now and then.
	if removed := r.removed.Load(); removed >= max(compactAfter, (last.Height-keep)/2) || r.cut != 0 && keep >= r.cut && removed > 0 {
		select {
		case r.wake <- struct{}{}:
		default: // it is at it
		}
	}
	return keep, nil
}

// want is where the policy would cut, reading at most a step's headers, never beyond what others need.
func (r *retention) want(last ledger.Header, keep uint64) (uint64, error) {
	want := keep
	if n := r.policy.Heights; n > 0 && last.Height > n {
		want = max(want, last.Height-n+1)
	}
	if age := time.Duration(r.policy.Time); age > 0 {
		oldest := time.UnixMilli(int64(last.UnixMillis)).Add(-age)
		for h := want; h < min(last.Height, keep+retainStep); h++ {
			meta := r.blocks.LoadBlockMeta(int64(h))
			if meta == nil || !meta.Header.Time.Before(oldest) {
				break
			}
			want = h + 1
		}
	}
	if r.policy.Bytes > 0 {
		// A tenth at a time, and the next when the space of the last has come back: tables shrink only when they are rewritten.
		if keep >= r.cut && r.removed.Load() == 0 && last.Height%measureEvery == 0 && r.used() > r.policy.Bytes {
			r.cut = keep + max(1, (last.Height-keep)/10)
			r.log.Info("the data folder is above its limit; delete the oldest heights", "below", r.cut, "bytes", r.used(), "limit", r.policy.Bytes)
		}
		want = max(want, r.cut)
	}
	// What the guard of the validator's key reads, and whoever is a moment behind.
	want = min(want, last.Height-min(last.Height, max(r.look+1, minRetainHeights)))
	if snapshot := r.offered(); snapshot != 0 {
		want = min(want, snapshot)
	}
	return max(want, keep), nil
}

// sweptKey is our row in CometBFT's block database: the height up to which sweep has been.
var sweptKey = []byte("pacioli:swept")

func (r *retention) swept() (uint64, error) {
	row, err := r.block.Get(sweptKey)
	if err != nil || row == nil {
		return 0, err
	}
	if len(row) != 8 {
		return 0, fmt.Errorf("row %s of CometBFT's block database has %d bytes, want 8", sweptKey, len(row))
	}
	return binary.BigEndian.Uint64(row), nil
}

// sweep deletes what CometBFT has left of heights that it pruned while evidence could still name them: header, commit and
// validators. Nobody but the evidence pool reads them, which asks for none that has expired. Rows with a whole validator set
// stay: later heights refer to them, and there is one per change.
func (r *retention) sweep(last ledger.Header) error {
	from, err := r.swept()
	if err != nil {
		return err
	}
	base := uint64(r.blocks.Base())
	if from == 0 { // nothing was ever pruned
		return r.block.SetSync(sweptKey, binary.BigEndian.AppendUint64(nil, base))
	}
	params, err := r.states.LoadConsensusParams(int64(last.Height))
	if err != nil {
		return fmt.Errorf("reading how long evidence counts: %w", err)
	}
	now := time.UnixMilli(int64(last.UnixMillis))
	blocks, states := r.block.NewBatch(), r.state.NewBatch()
	defer blocks.Close()
	defer states.Close()
	to := from
	for ; to < min(base, from+2*retainStep); to++ {
		meta := r.blocks.LoadBlockMeta(int64(to))
		if meta != nil && !evidence.IsEvidenceExpired(int64(last.Height), now, int64(to), meta.Header.Time, params.Evidence) {
			break
		}
		for _, kind := range []string{"H", "C", "EC"} {
			if err := blocks.Delete(fmt.Appendf(nil, "%s:%d", kind, to)); err != nil {
				return err
			}
		}
		key := fmt.Appendf(nil, "validatorsKey:%d", to)
		row, err := r.state.Get(key)
		if err != nil {
			return err
		}
		var info cmtstate.ValidatorsInfo
		if err := info.Unmarshal(row); err != nil {
			return fmt.Errorf("row %s of CometBFT's state: %w", key, err)
		}
		if info.ValidatorSet == nil && row != nil {
			if err := states.Delete(key); err != nil {
				return err
			}
		}
	}
	if to == from {
		return nil
	}
	if err := blocks.Set(sweptKey, binary.BigEndian.AppendUint64(nil, to)); err != nil {
		return err
	}
	// Without a sync, the states first: what a crash brings back is deleted again, or is a few rows that nobody reads.
	if err := states.Write(); err != nil {
		return err
	}
	return blocks.Write()
}

// reclaim rewrites the tables when enough has been deleted, until ctx ends. Pebble would do so by itself, in its own time;
// CometBFT's keys have heights in decimals, so that deleted rows lie scattered among the kept ones, and nothing drops whole
// tables.
func (r *retention) reclaim(ctx context.Context, s *store.Store, databases *cometdb.Databases) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		removed, begin, before := r.removed.Load(), time.Now(), r.used()
		err := s.Compact(ctx)
		if err == nil {
			err = databases.Compact(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.log.Warn("give the space of deleted heights back; the databases try by themselves", "err", err)
		} else {
			r.log.Info("gave the space of deleted heights back", "heights", removed, "bytes", before-r.used(), "took", time.Since(begin).Round(time.Millisecond).String())
		}
		r.removed.Add(-removed)
	}
}

// running is reclaim in a goroutine; the function that is returned ends it and waits.
func (r *retention) running(s *store.Store, databases *cometdb.Databases) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { r.reclaim(ctx, s, databases) })
	return func() { cancel(); wait.Wait() }
}
