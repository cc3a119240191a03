package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/app/snapshot"
	"github.com/pacioli-ledger/pacioli/client/light"
)

// stateSync gives a node without any data the state of a snapshot, before CometBFT runs: fetched from the servers that the
// headers come from, all at once, and compared with verified headers. A node that is stopped meanwhile has nothing, and goes
// on with the chunks that it has at the next start. Where no server offers a snapshot, CometBFT asks its peers for one.
//
// done is false when ctx has ended.
func (n *Node) stateSync(ctx context.Context, databases *cometdb.Databases, source *headers) (done bool, err error) {
	if !n.config.StateSync.Enable || n.app.Store().Height() != 0 {
		return true, os.RemoveAll(n.home.fetched())
	}
	blocks, states, err := openComet(databases)
	if err != nil {
		return false, err
	}
	have, err := states.Load()
	if err != nil {
		return false, fmt.Errorf("reading CometBFT's state: %w", err)
	}
	if blocks.Height() != 0 || have.LastBlockHeight != 0 {
		return true, nil // it executes the blocks that it has
	}
	if n.config.StateSync.Peers {
		return true, nil
	}
	var state atomic.Pointer[string]
	say := func(text string) { state.Store(&text) }
	say("looking for a snapshot")
	served, err := n.serveWaiting(func() string {
		if r, ok := n.app.Restoring(); ok {
			return r.String()
		}
		return *state.Load()
	})
	if err != nil {
		return false, err
	}
	defer served()
	n.log.Info("look for a snapshot", "servers", n.config.StateSync.Servers)
	var said time.Time
	f := snapshot.Fetch{Sources: n.config.StateSync.Servers, Dir: n.home.fetched(), Trust: source.trust, Log: n.log,
		Use: func(path string, m *snapshot.Manifest) error { return n.app.Restore(ctx, path, m) },
		Progress: func(p snapshot.Progress) {
			say(p.String())
			if time.Since(said) > 5*time.Second {
				said = time.Now()
				n.log.Info(p.String())
			}
		}}
	_, err = f.Run(ctx)
	switch {
	case ctx.Err() != nil:
		return false, nil
	case errors.Is(err, snapshot.ErrNone):
		n.log.Warn("no server has a snapshot that can be taken; ask the peers", "err", err)
	case diskIsFull(err):
		return false, stop("disk_full", "state sync: %w; it goes on with the chunks that it has", err)
	case err != nil:
		return false, fmt.Errorf("state sync: %w", err)
	}
	return true, os.RemoveAll(n.home.fetched())
}

// fetched returns the folder in which the chunks of a snapshot are kept until all have come.
func (h Home) fetched() string { return filepath.Join(h.Data(), "fetching") }

// trust compares a manifest with the verified headers.
func (h *headers) trust(ctx context.Context, m *snapshot.Manifest) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	verified, err := h.appHash(ctx, m.Height())
	if errors.Is(err, light.ErrNotYet) {
		return fmt.Errorf("its height has no header yet: %w", err)
	}
	if err != nil {
		return err
	}
	network, err := h.network()
	if err != nil {
		return err
	}
	millis, _ := h.time(m.Height())
	switch app := m.Tops.AppHash(); {
	case string(app[:]) != string(verified):
		return fmt.Errorf("%w: its AppHash is %X, the verified header says %X", snapshot.ErrUntrusted, app[:], verified)
	case m.UnixMillis != millis:
		return fmt.Errorf("%w: it is of %d, the verified header says %d ms", snapshot.ErrUntrusted, m.UnixMillis, millis)
	case m.Network != network:
		return fmt.Errorf("%w: it is of network %s, this node's is %s", snapshot.ErrUntrusted, m.Network, network)
	}
	return nil
}

// serveWaiting answers for the health of a node that does not run yet.
func (n *Node) serveWaiting(reason func() string) (stop func(), err error) {
	if n.config.RPC.Listen == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", n.config.RPC.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on rpc.listen = %s: %w", n.config.RPC.Listen, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, Health{ChainID: n.chainID, OK: true})
	})
	for _, path := range []string{"GET /readyz", "GET /startupz"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusServiceUnavailable, Health{ChainID: n.chainID, Reasons: []string{"state sync: " + reason()}, CatchingUp: true})
		})
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }() // ends with Close, below
	return func() { _ = server.Close(); <-ended }, nil
}
