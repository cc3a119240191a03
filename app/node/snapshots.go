package node

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	// chunksAtOnce bounds the chunks that are being sent: each is 2 MB in memory, and the disk has better to do.
	chunksAtOnce = 4
	// chunkPatience is how long sending one may take: 2 MB in 2 minutes are 17 kB/s.
	chunkPatience = 2 * time.Minute
)

// snapshotPages adds the pages to the node's server.
func (n *Node) snapshotPages(mux *http.ServeMux) {
	sending := make(chan struct{}, chunksAtOnce)
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
		select {
		case sending <- struct{}{}:
			defer func() { <-sending }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the node is sending enough chunks; ask again", http.StatusServiceUnavailable)
			return
		}
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
