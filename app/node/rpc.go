package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	rpcserver "github.com/cometbft/cometbft/rpc/jsonrpc/server"

	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// server is the one port of a node: CometBFT's RPC as it is, and beside it
//
//	POST /v1/transactions   submit the raw bytes of a transaction
//	GET  /v1/snapshots      the snapshots that others may fetch: see snapshot.Path
//	GET  /livez             the process runs
//	GET  /readyz            the node advances: 200, or 503 with reasons
//	GET  /startupz          the node has started: 200 once a block is committed
//
// Submission has a path of its own because CometBFT's broadcast calls refuse bytes that the node has seen before, so that
// a client could not tell a repeated payment from a refused one.
type server struct {
	http    *http.Server
	address string
	closed  chan struct{}
}

func (n *Node) serve() (*server, error) {
	if n.config.RPC.Listen == "" {
		return &server{closed: make(chan struct{})}, nil
	}
	routes := n.environment.GetRoutes()
	logger := cometLogger{log: n.log, level: 4, stopped: func(error) {}}.With("module", "rpc")
	mux := http.NewServeMux()
	limits := n.comet.Config().RPC
	sockets := rpcserver.NewWebsocketManager(routes, rpcserver.ReadLimit(limits.MaxBodyBytes), rpcserver.WriteChanCapacity(limits.WebSocketWriteBufferSize),
		rpcserver.OnDisconnect(func(remote string) { _ = n.comet.EventBus().UnsubscribeAll(context.Background(), remote) }))
	sockets.SetLogger(logger)
	mux.HandleFunc("/websocket", sockets.WebsocketHandler)
	rpcserver.RegisterRPCFuncs(mux, routes, logger)
	mux.HandleFunc("POST /v1/transactions", n.submit)
	n.snapshotPages(mux)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, n.Health(healthLive)) })
	for path, kind := range map[string]int{"GET /readyz": healthReady, "GET /startupz": healthStartup} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			h := n.Health(kind)
			status := http.StatusOK
			if !h.OK {
				status = http.StatusServiceUnavailable
			}
			answer(w, status, h)
		})
	}
	listener, err := rpcserver.Listen("tcp://"+n.config.RPC.Listen, n.config.RPC.MaxConnections)
	if err != nil {
		return nil, fmt.Errorf("listening on rpc.listen = %s: %w", n.config.RPC.Listen, err)
	}
	s := &server{
		http: &http.Server{
			Handler:           n.crossOrigin(rpcserver.RecoverAndLogHandler(http.MaxBytesHandler(mux, limits.MaxBodyBytes), logger)),
			ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: limits.TimeoutBroadcastTxCommit + time.Second,
			IdleTimeout: 2 * time.Minute, MaxHeaderBytes: limits.MaxHeaderBytes,
		},
		address: listener.Addr().(*net.TCPAddr).String(),
		closed:  make(chan struct{}),
	}
	go func() {
		defer close(s.closed)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			n.fail(stop("rpc_failed", "serving RPC on %s: %w", s.address, err))
		}
	}()
	return s, nil
}

// close stops serving; twice does nothing. Requests under way get a second to finish.
func (s *server) close() {
	if s.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.closed
}

// crossOrigin lets the pages of configured origins call.
func (n *Node) crossOrigin(next http.Handler) http.Handler {
	origins := n.config.RPC.CORSOrigins
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" && (slices.Contains(origins, origin) || slices.Contains(origins, "*")) {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Set("Vary", "Origin")
			if r.Method == http.MethodOptions {
				w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
				w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the status is sent; a reader that went away is not ours to handle
}

// Submission is the answer to POST /v1/transactions.
type Submission struct {
	ID      string      `json:"id,omitempty"`
	Code    ledger.Code `json:"code"`
	Name    string      `json:"name"`
	Message string      `json:"message,omitempty"`
	Retry   bool        `json:"retry,omitempty"`
	Height  uint64      `json:"height,omitempty"` // of the block that has the transaction already
}

// submit admits a transaction: 200 accepted, or in a block already; 422 refused; 503 not now. The same bytes may be sent
// again at any time.
func (n *Node) submit(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, ledger.MaxTxBytes))
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		answer(w, status, Submission{Code: ledger.TooLarge, Name: ledger.TooLarge.String(), Message: fmt.Sprintf("reading the transaction: %s", err)})
		return
	}
	if kind := r.Header.Get("Content-Type"); kind != "" && !strings.HasPrefix(kind, "application/octet-stream") {
		answer(w, http.StatusUnsupportedMediaType, Submission{Code: ledger.Malformed, Name: ledger.Malformed.String(), Message: "want the raw bytes as application/octet-stream"})
		return
	}
	tx, decodeErr := ledger.Decode(raw)
	if decodeErr == nil {
		if s, ok := n.committed(tx); ok {
			answer(w, http.StatusOK, s)
			return
		}
	}
	verdict := n.app.Pool().Check(r.Context(), raw)
	if decodeErr == nil && verdict.Code != ledger.OK && !verdict.Retry {
		// It may have come into a block between the two looks: then its own nonce is used, and that is no refusal.
		if s, ok := n.committed(tx); ok {
			answer(w, http.StatusOK, s)
			return
		}
	}
	if verdict.Code != ledger.OK && !verdict.Retry && n.comet.ConsensusReactor().WaitSync() {
		// Its state is an old one: what is wrong by it may be right by the newest.
		verdict.Code, verdict.Retry, verdict.Message = mempool.Busy, true, fmt.Sprintf("this node is catching up, at height %d: %s", n.app.Last().Height, verdict.Message)
	}
	s := Submission{Code: verdict.Code, Name: verdict.Code.String(), Message: verdict.Message, Retry: verdict.Retry}
	if verdict.ID != (crypto.Hash{}) {
		s.ID = verdict.ID.String()
	}
	switch {
	case verdict.Retry:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, s)
	case verdict.Code != ledger.OK:
		answer(w, http.StatusUnprocessableEntity, s)
	default:
		answer(w, http.StatusOK, s)
	}
}
