package node

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
)

// sweepRestored removes what is left of a state sync that a kill has ended: the state that was being built, and the folders
// in which CometBFT collects chunks.
func (h Home) sweepRestored() error {
	left, err := filepath.Glob(filepath.Join(h.Data(), "tm-statesync*"))
	if err != nil {
		return err
	}
	for _, path := range append(left, h.restoring()) {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing what is left of a state sync: %w", err)
		}
	}
	return nil
}

const (
	// chunksAtOnce bounds the chunks that are being sent: each is 2 MB in memory, 16 MB in all, and the disk has better to do.
	chunksAtOnce = 8
	// chunksPerHost bounds those to one host, which else could hold all with readers that are slow on purpose. It is what
	// snapshot.Fetch asks of one node at once.
	chunksPerHost = 2
	// chunkPatience is how long sending one may take: 2 MB in 2 minutes are 17 kB/s.
	chunkPatience = 2 * time.Minute
)

// sending counts the chunks that are being sent. Safe for concurrent use.
type sending struct {
	mu   sync.Mutex
	all  int
	host map[string]int
}

// begin tells whether one more may be sent to a host. If so, end must be called.
func (s *sending) begin(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == chunksAtOnce || s.host[host] == chunksPerHost {
		return false
	}
	s.all++
	s.host[host]++
	return true
}

func (s *sending) end(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.host[host]--; s.host[host] == 0 {
		delete(s.host, host)
	}
}

// remoteHost names the host that has sent a request. Who has one address of IPv6 has the 2^64 beside it.
func remoteHost(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	address := at.Addr().Unmap()
	if address.Is6() {
		return netip.PrefixFrom(address.WithZone(""), 64).Masked().String()
	}
	return address.String()
}

// snapshotPages adds the pages to the node's server.
func (n *Node) snapshotPages(mux *http.ServeMux) {
	sending := &sending{host: map[string]int{}}
	mux.HandleFunc("GET "+snapshot.Path, func(w http.ResponseWriter, _ *http.Request) {
		list := []snapshot.Info{}
		for _, m := range n.app.OfferedSnapshots() {
			list = append(list, m.Info())
		}
		answer(w, http.StatusOK, list)
	})
	mux.HandleFunc("GET "+snapshot.Path+"/{height}/{part}", func(w http.ResponseWriter, r *http.Request) {
		height, err := strconv.ParseUint(r.PathValue("height"), 10, 64)
		offered := n.app.OfferedSnapshots()
		at := slices.IndexFunc(offered, func(m *snapshot.Manifest) bool { return m.Height() == height })
		if err != nil || at < 0 {
			http.Error(w, "this node has no snapshot of that height", http.StatusNotFound)
			return
		}
		host := remoteHost(r)
		if !sending.begin(host) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the node is sending enough chunks, in all or to you; ask again", http.StatusServiceUnavailable)
			return
		}
		defer sending.end(host)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(chunkPatience)) // else the server's own holds
		var content []byte
		if part := r.PathValue("part"); part == "manifest" {
			content = offered[at].Encode()
		} else {
			index, err := strconv.Atoi(part)
			if err != nil {
				http.Error(w, "want a chunk's number or manifest", http.StatusNotFound)
				return
			}
			if content, err = n.app.SnapshotChunk(height, index); err != nil {
				n.log.Error("serve snapshot; remove it", "err", err)
			}
			if content == nil {
				http.Error(w, "this node has no such chunk", http.StatusNotFound)
				return
			}
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content) // a reader that went away is not ours to handle
	})
}
