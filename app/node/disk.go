package node

import (
	"context"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
)

// Disk is what a node's data take, and for how long the disk will do.
type Disk struct {
	Parts       map[string]int64 `json:"parts"` // bytes, by what they are: see diskPart
	Used        int64            `json:"used_bytes"`
	Free        int64            `json:"free_bytes"` // of the file system, for this user
	Height      uint64           `json:"height"`
	FirstHeight uint64           `json:"first_height"` // from which on blocks are kept
	FirstState  uint64           `json:"first_state"`  // from which on states are kept

	// Growth is measured over the last hours, at most diskWindow. It says nothing before MeasuredSeconds is a quarter of an hour.
	MeasuredSeconds int64    `json:"measured_seconds"`
	MeasuredHeights uint64   `json:"measured_heights"`
	GrowthPerDay    *int64   `json:"growth_bytes_per_day"` // null: not known yet
	DaysUntilFull   *float64 `json:"days_until_full"`      // null: not known yet, or it does not grow
	Retention       string   `json:"retention"`
	RetentionWants  uint64   `json:"retention_first_height"` // the first height that the policy would keep
	RetentionFrees  int64    `json:"retention_frees_bytes"`  // what it would free by that, from the mean of the heights kept
}

const (
	diskSample  = time.Minute
	diskWindow  = 6 * time.Hour
	diskSettled = 15 * time.Minute // before it, the first flushes and merges of a start are most of what is seen
)

// diskPart names what a file of the data folder belongs to.
func diskPart(relative string) string {
	top, _, _ := strings.Cut(filepath.ToSlash(relative), "/")
	switch {
	case top == "app":
		return "state_and_index"
	case top == "blockstore.db":
		return "blocks"
	case top == "state.db":
		return "results_and_validators"
	case top == "cs.wal":
		return "consensus_log"
	case strings.HasPrefix(top, "snapshots"):
		return "snapshots"
	}
	return "other"
}

// disk watches how a data folder grows. Safe for concurrent use.
type disk struct {
	home Home

	mu      sync.Mutex
	samples []diskPoint // one a minute, at most diskWindow old
}

type diskPoint struct {
	at     time.Time
	height uint64
	bytes  int64
}

func newDisk(home Home) *disk { return &disk{home: home} }

// parts adds up the files of the data folder, as they are long; files that go meanwhile do not count.
func (d *disk) parts() map[string]int64 {
	parts := map[string]int64{}
	_ = filepath.WalkDir(d.home.Data(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		relative, _ := filepath.Rel(d.home.Data(), path) // both begin with the folder
		parts[diskPart(relative)] += occupied(info)
		return nil
	})
	return parts
}

// occupied is what a file takes on the disk: Pebble's logs are longer than what was written to them.
func occupied(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}

func (d *disk) used() (total int64) {
	for _, n := range d.parts() {
		total += n
	}
	return total
}

// sample notes the size, if a minute has passed.
func (d *disk) sample(now time.Time, height uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.samples); n > 0 && now.Sub(d.samples[n-1].at) < diskSample {
		return
	}
	d.samples = append(d.samples, diskPoint{now, height, d.used()})
	for now.Sub(d.samples[0].at) > diskWindow {
		d.samples = d.samples[1:]
	}
}

// growth is the difference between the means of the first and the last third of what was measured, so that a merge of tables
// that is under way changes it little. settled is false when too little was measured.
func (d *disk) growth() (perDay int64, over time.Duration, heights uint64, settled bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.samples)
	if n == 0 {
		return 0, 0, 0, false
	}
	first, last := d.samples[0], d.samples[n-1]
	over, heights = last.at.Sub(first.at), last.height-first.height
	if over < diskSettled || n < 3 {
		return 0, over, heights, false
	}
	mean := func(points []diskPoint) (at float64, bytes float64) {
		for _, p := range points {
			at += p.at.Sub(first.at).Seconds()
			bytes += float64(p.bytes)
		}
		return at / float64(len(points)), bytes / float64(len(points))
	}
	at1, bytes1 := mean(d.samples[:n/3])
	at2, bytes2 := mean(d.samples[n-n/3:])
	return int64((bytes2 - bytes1) / (at2 - at1) * 86400), over, heights, true
}

// forecast puts it together.
func (d *disk) forecast() (Disk, error) {
	f := Disk{Parts: d.parts()}
	for _, n := range f.Parts {
		f.Used += n
	}
	free, err := snapshot.FreeBytes(d.home.Data())
	if err != nil {
		return f, err
	}
	f.Free = int64(free)
	perDay, over, heights, settled := d.growth()
	f.MeasuredSeconds, f.MeasuredHeights = int64(over.Seconds()), heights
	if settled {
		f.GrowthPerDay = &perDay
		if perDay > 0 {
			days := float64(f.Free) / float64(perDay)
			f.DaysUntilFull = &days
		}
	}
	return f, nil
}

// Disk reports on the node's disk: what its data take, how fast they grow, and what the policy of retention would still free.
func (n *Node) Disk(context.Context, struct{}) (Disk, error) {
	f, err := n.disk.forecast()
	if err != nil {
		return f, err
	}
	last := n.app.Last()
	r := n.retention.Load()
	f.Height, f.FirstState, f.FirstHeight = last.Height, n.app.Store().FirstHeight(), uint64(max(n.comet.BlockStore().Base(), 0))
	f.Retention, f.RetentionWants = r.policy.String(), f.FirstHeight
	if r.policy.Heights > 0 && last.Height > r.policy.Heights {
		f.RetentionWants = max(f.RetentionWants, last.Height-r.policy.Heights+1)
	}
	if age := time.Duration(r.policy.Time); age > 0 {
		f.RetentionWants = max(f.RetentionWants, r.firstSince(f.FirstHeight, last.Height, time.UnixMilli(int64(last.UnixMillis)).Add(-age)))
	}
	if oldest := n.oldestOffered(); oldest != 0 {
		f.RetentionWants = max(f.FirstHeight, min(f.RetentionWants, oldest))
	}
	if heights := last.Height - min(last.Height, f.FirstHeight) + 1; f.RetentionWants > f.FirstHeight {
		f.RetentionFrees = int64(float64(f.Used) / float64(heights) * float64(f.RetentionWants-f.FirstHeight))
	}
	if over := f.Used - r.policy.Bytes; r.policy.Bytes > 0 && over > 0 {
		f.RetentionFrees = max(f.RetentionFrees, over)
	}
	return f, nil
}

// firstSince finds the first height whose block is not older than a time.
func (r *retention) firstSince(low, high uint64, oldest time.Time) uint64 {
	for low < high {
		middle := (low + high) / 2
		if meta := r.blocks.LoadBlockMeta(int64(middle)); meta == nil || meta.Header.Time.Before(oldest) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// String says what is kept, for people.
func (c RetentionConfig) String() string {
	var limits []string
	if c.Heights > 0 {
		limits = append(limits, "heights "+strconv.FormatUint(c.Heights, 10))
	}
	if c.Time > 0 {
		limits = append(limits, "time "+time.Duration(c.Time).String())
	}
	if c.Bytes > 0 {
		limits = append(limits, "bytes "+strconv.FormatInt(c.Bytes, 10))
	}
	if limits == nil {
		return "everything"
	}
	return strings.Join(limits, ", ")
}

// checkDisk tells why the node must not go on writing. What cannot be asked is no reason to stop.
func (n *Node) checkDisk() error {
	least := n.config.Node.MinFreeMB << 20
	free, err := snapshot.FreeBytes(n.home.Data())
	if err != nil || least == 0 {
		return nil
	}
	n.free.Store(free)
	if free < least {
		return stop("disk_full", "the disk of %s has %d MB left, less than node.min_free_mb = %d: the node stops before a write fails", n.home.Data(), free>>20, n.config.Node.MinFreeMB)
	}
	return nil
}

// folderAge is how old the figure of the data's size may be: to walk through some thousand files is not for every scrape.
const folderAge = 30 * time.Second

// dataBytes is what the node's data take on disk.
func (n *Node) dataBytes() float64 {
	n.sizeMu.Lock()
	defer n.sizeMu.Unlock()
	if time.Since(n.sizeAt) >= folderAge {
		n.size, n.sizeAt = float64(n.disk.used()), time.Now()
	}
	return n.size
}
