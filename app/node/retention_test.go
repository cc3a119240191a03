package node

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// TestHeights runs a validator for many heights as fast as it goes, with a payment now and then, under a policy
// of retention. What it keeps must be bounded: rows of every database always, and with PACIOLI_HEIGHTS=100000 or so
// the bytes on the disk as well (`make heights`, which prints the size over time).
func TestHeights(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a thousand blocks")
	}
	heights, keep := uint64(1200), uint64(300)
	text, long := os.LookupEnv("PACIOLI_HEIGHTS")
	if long {
		var err error
		if heights, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
		keep = 5000
	}
	n := newNet(t, KeyEd25519)
	if home := os.Getenv("PACIOLI_HEIGHTS_HOME"); home != "" { // on a disk rather than in the folder of tests
		if err := os.CopyFS(home, os.DirFS(string(n.home))); err != nil {
			t.Fatal(err)
		}
		n.home = Home(home)
		if err := os.Chmod(n.home.SignState(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Evidence counts for more heights than are kept, however fast they are made: CometBFT leaves headers behind for it, which
	// must go when it counts no more.
	evidenceAge := keep + 200
	n.doc.ConsensusParams.Evidence.MaxAgeDuration, n.doc.ConsensusParams.Evidence.MaxAgeNumBlocks = time.Millisecond, int64(evidenceAge)
	if err := genesis.Save(n.doc, n.home.Genesis()); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.network, err = genesis.NetworkOf(n.doc); err != nil {
		t.Fatal(err)
	}
	n.config.Consensus.IdleBlockInterval = 0
	n.config.Retention.Heights = keep
	if long {
		n.config.Store = DefaultConfig().Store
	}

	var inside *Node
	atStart = func(running *Node) { inside = running }
	defer func() { atStart = nil }()
	r := n.start(t)
	sequence := uint64(1)
	first := n.pay(t, sequence)
	var sizes []int64
	report := heights / 40
	begin, next := time.Now(), report
	for paid := uint64(0); ; time.Sleep(20 * time.Millisecond) {
		_, h := r.get("/livez")
		if h.Height >= paid+10 { // alice has so many coins
			if status, s := r.post(n.pay(t, sequence), "application/octet-stream"); status != http.StatusOK {
				t.Fatalf("payment %d: %+v", sequence, s)
			}
			sequence, paid = sequence+1, h.Height
		}
		if h.Height >= next {
			disk, err := Ask[Disk](t.Context(), n.home, "/disk", struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, disk.Used-disk.Parts["consensus_log"]) // of which CometBFT keeps 1 GB, whatever is pruned
			if long {
				t.Logf("%6.0f s  height %6d  blocks from %6d  states from %6d  %6.1f MB  %v", time.Since(begin).Seconds(), disk.Height, disk.FirstHeight, disk.FirstState, float64(disk.Used)/1e6, disk.Parts)
				fmt.Fprintf(os.Stderr, "%6.0f s  height %6d  blocks from %6d  states from %6d  %6.1f MB\n", time.Since(begin).Seconds(), disk.Height, disk.FirstHeight, disk.FirstState, float64(disk.Used)/1e6)
			}
			next = h.Height + report
		}
		if h.Height >= heights {
			break
		}
		select {
		case err := <-r.done:
			t.Fatalf("the node ends: %v", err)
		default:
		}
	}
	t.Logf("%d heights and %d payments in %s", heights, sequence-1, time.Since(begin).Round(time.Second))

	// A pruned node says that it has pruned, not that there was nothing.
	tx, err := ledger.Decode(first)
	if err != nil {
		t.Fatal(err)
	}
	id := tx.ID(n.network.ID)
	line := ledger.LineKey{Account: n.policy.Address(), Asset: n.asset}
	view := inside.app.Store().View()
	row, err := view.Get(ledger.LineRow(line))
	view.Close()
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.DecodeLine(row)
	if err != nil {
		t.Fatal(err)
	}
	for what, q := range map[string]struct {
		path string
		data []byte
		want uint32
	}{
		"a pruned payment":          {query.PathTx, id[:], query.Pruned},
		"a payment that never was":  {query.PathTx, make([]byte, 32), query.Pruned},
		"the beginning of a line":   {query.PathEntries, query.EntriesData(line, l.Incarnation, 1, 10), query.Pruned},
		"the newest of a line":      {query.PathEntries, query.EntriesData(line, l.Incarnation, l.Entries, 10), 0},
		"what a line does not have": {query.PathEntries, query.EntriesData(line, l.Incarnation, l.Entries+1000, 10), 0},
		"an account without line":   {query.PathEntries, query.EntriesData(ledger.LineKey{Account: crypto.Address{1}}, 0, 1, 10), query.Pruned},
	} {
		if code, log := r.ask(q.path, q.data); code != q.want {
			t.Errorf("%s: code %d (%s), want %d", what, code, log, q.want)
		}
	}
	keptFrom := inside.retention.Load().keep.Load()
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if keptFrom < heights-keep-2*retainStep {
		t.Errorf("keeps from height %d on at height %d, with a limit of %d", keptFrom, heights, keep)
	}

	// Rows, which do not depend on when tables were last merged.
	release, err := n.home.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	s, err := n.home.openStore(n.config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	databases := cometdb.Provider(n.home.Data(), cometdb.Options{})
	defer databases.Close()
	blocks, _, err := openComet(databases)
	if err != nil {
		t.Fatal(err)
	}
	most := int(keep + 200) // what a step leaves, and headers for evidence
	for h := uint64(1); h < uint64(blocks.Base()); h++ {
		if blocks.LoadBlockMeta(int64(h)) != nil {
			most++
			if old := uint64(blocks.Height()) - h; old > evidenceAge+2*retainStep {
				t.Fatalf("the header of block %d is kept, which is %d blocks old, and of which evidence counts for %d", h, old, evidenceAge)
			}
		}
	}
	if most == int(keep+200) {
		t.Error("CometBFT has left no header: what this test is about does not happen")
	}
	for name, perHeight := range map[string]int{"blockstore": 5, "state": 3} {
		db, err := databases.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if rows := countRows(t, db); rows > perHeight*most+10 {
			t.Errorf("database %s has %d rows after %d heights of which %d are kept, want at most %d a height", name, rows, heights, keep, perHeight)
		}
	}
	var index int
	reader := s.Index()
	if err := reader.Range(nil, nil, false, func([]byte, []byte) error { index++; return nil }); err != nil {
		t.Fatal(err)
	}
	reader.Close()
	// A payment has eight rows, and the fees of its block three. It is in one block of ten.
	if index > 2*most {
		t.Errorf("the index has %d rows after %d heights of which %d are kept", index, heights, keep)
	}
	if got := s.FirstHeight(); got < heights-uint64(most) {
		t.Errorf("states are kept from height %d on", got)
	}
	before := newDisk(n.home).used()
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := databases.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB, %.1f MB after all tables were merged", float64(before)/1e6, float64(newDisk(n.home).used())/1e6)
	if long {
		// The last quarter of the run may not take more than the second one did, but for what a merge has not come to yet.
		quarter := len(sizes) / 4
		if most, now := maximum(sizes[quarter:2*quarter]), maximum(sizes[3*quarter:]); now > most+most/10 {
			t.Errorf("the disk grows: %.1f MB at most in the second quarter, %.1f MB in the last", float64(most)/1e6, float64(now)/1e6)
		}
	}
}

func maximum(list []int64) (m int64) {
	for _, n := range list {
		m = max(m, n)
	}
	return m
}

func countRows(t *testing.T, db *cometdb.DB) (rows int) {
	t.Helper()
	it, err := db.Iterator(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ; it.Valid(); it.Next() {
		rows++
	}
	return rows
}

// ask sends a query and returns its code.
func (r *running) ask(path string, data []byte) (uint32, string) {
	r.t.Helper()
	res, err := http.Get(fmt.Sprintf("%s/abci_query?path=%q&data=0x%x", r.url, path, data))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var answer struct {
		Result struct {
			Response struct {
				Code uint32 `json:"code"`
				Log  string `json:"log"`
			} `json:"response"`
		} `json:"result"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		r.t.Fatalf("%s: %s", err, text)
	}
	return answer.Result.Response.Code, answer.Result.Response.Log
}
