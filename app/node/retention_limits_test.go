package node

import (
	"log/slog"
	"testing"
	"time"

	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// oneASecond are blocks of which one was made in each second.
type oneASecond struct{ state.BlockStore }

func (oneASecond) LoadBlockMeta(height int64) *types.BlockMeta {
	return &types.BlockMeta{Header: types.Header{Height: height, Time: time.Unix(height, 0)}}
}

// limitedTo returns the retention of a node whose data folder has so many bytes, and that offers a snapshot of a height.
func limitedTo(policy RetentionConfig, used, offered *uint64) *retention {
	return &retention{policy: policy, blocks: oneASecond{}, used: func() int64 { return int64(*used) }, offered: func() uint64 { return *offered }, log: slog.New(slog.DiscardHandler)}
}

func wants(t *testing.T, r *retention, height, keep, want uint64) {
	t.Helper()
	got, err := r.want(ledger.Header{Height: height, UnixMillis: height * 1000}, keep)
	if err != nil || got != want {
		t.Errorf("at height %d with all from %d on: wants %d, %v, want %d", height, keep, got, err, want)
	}
}

// TestRetentionByTime: blocks older than the limit go, a step at a time, but never what the guard of the key or a snapshot's peers need.
func TestRetentionByTime(t *testing.T) {
	var used, offered uint64
	r := limitedTo(RetentionConfig{Time: Duration(300 * time.Second)}, &used, &offered)
	wants(t, r, 200, 1, 1)
	wants(t, r, 301, 1, 1)
	wants(t, r, 311, 1, 11)            // block 11 is 300 s old, and stays
	wants(t, r, 1000, 1, 1+retainStep) // no more headers are read than a step's
	wants(t, r, 1000, 690, 700)        // and on from where it stopped
	r.look = 400
	wants(t, r, 1000, 590, 599) // the guard reads 401
	r.look, offered = 0, 650
	wants(t, r, 1000, 640, 650)
	wants(t, r, 1000, 660, 660) // what is gone is gone
	r.policy.Time, offered = Duration(time.Second), 0
	wants(t, r, 1000, 890, 1000-minRetainHeights)
}

// TestRetentionByBytes: above the limit the oldest tenth goes, and the next one only when the space of that has come back.
func TestRetentionByBytes(t *testing.T) {
	used, offered := uint64(90), uint64(0)
	r := limitedTo(RetentionConfig{Bytes: 100}, &used, &offered)
	wants(t, r, 1000, 1, 1)
	used = 101
	wants(t, r, 1010, 1, 1) // it is asked for every hundred heights
	wants(t, r, 1100, 1, 1+1099/10)
	wants(t, r, 1200, 50, 1+1099/10) // it is not there yet
	r.removed.Store(109)
	wants(t, r, 1200, 110, 110) // the space has not come back
	r.removed.Store(0)
	wants(t, r, 1200, 110, 110+1090/10)
	used = 100
	wants(t, r, 1300, 219, 219)
}
