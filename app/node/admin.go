package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// What an operator asks of a running node goes through a socket in its home, data/admin.sock, which only the node's own
// user can open. It is HTTP with JSON: one path per command, POST, the request in the body, the answer as JSON. It is not
// an interface for others: node and command line are of one version.
//
// The socket is there from the moment that the node serves until it stops. Whoever can open it could read the keys beside
// it as well, so there is no login.

// ErrNotRunning: no node runs on the home.
var ErrNotRunning = errors.New("no node runs on this home")

// AdminSocket returns the path of the socket on which a running node takes its operator's commands.
func (h Home) AdminSocket() string { return filepath.Join(h.Data(), "admin.sock") }

// maxSocketPath is what fits into a socket's address, with the byte that ends it: 108 bytes on Linux, 104 elsewhere.
const maxSocketPath = 103

// shortSocket returns a path to the socket that fits into an address, and what keeps that path valid. On Linux a home with
// a long name is reached through a descriptor of its folder.
func (h Home) shortSocket() (string, io.Closer, error) {
	path := h.AdminSocket()
	if len(path) <= maxSocketPath {
		return path, io.NopCloser(nil), nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the path %s is longer than the %d bytes that a socket's address takes: move the home, or call it by a shorter name", path, maxSocketPath)
	}
	dir, err := os.Open(h.Data())
	if err != nil {
		return "", nil, fmt.Errorf("opening the data folder: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), dir, nil
}

// admin is the server of a running node's operator.
type admin struct {
	http   *http.Server
	closed chan struct{}
	cancel context.CancelFunc
	dir    io.Closer
}

// serveAdmin makes the socket. The home is locked, so a socket that is there is one that a killed node has left.
func (h Home) serveAdmin(handler http.Handler, failed func(error)) (*admin, error) {
	path, dir, err := h.shortSocket()
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("removing the operator's socket of a node that was killed: %w", err), dir.Close())
	}
	// The mode is set before the name exists: at no moment can another user connect.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		if runtime.GOOS != "linux" {
			return nil // elsewhere a socket has no mode before it has a name
		}
		return err
	}}
	listener, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the operator's socket %s: %w", h.AdminSocket(), err), dir.Close())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("making the operator's socket %s: %w", h.AdminSocket(), err), listener.Close(), dir.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &admin{closed: make(chan struct{}), cancel: cancel, dir: dir, http: &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}}
	go func() {
		defer close(a.closed)
		if err := a.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("serving the operator's socket: %w", err))
		}
	}()
	return a, nil
}

// close ends the commands under way and removes the socket. It waits for the commands: they use what is closed next.
func (a *admin) close() {
	a.cancel()
	_ = a.http.Shutdown(context.Background()) // its only error is the context's
	<-a.closed
	_ = a.dir.Close() // of a folder that was only read
}

// adminFailure is the answer to a command that did not work.
type adminFailure struct {
	Error string `json:"error"`
}

// maxAdminBody bounds a request and an answer. The largest are lists of a few thousand lines.
const maxAdminBody = 16 << 20

// command makes an HTTP handler of a function. The context ends when whoever asked goes away, or the node stops.
func command[Request, Answer any](f func(context.Context, Request) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request Request
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&request); err != nil {
			answer(w, http.StatusBadRequest, adminFailure{fmt.Sprintf("reading the command: %s; are node and command line of one version?", err)})
			return
		}
		result, err := f(r.Context(), request)
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, adminFailure{err.Error()})
			return
		}
		answer(w, http.StatusOK, result)
	}
}

// Ask has the node that runs on a home do something, and waits for its answer for as long as ctx lasts. The error is
// ErrNotRunning where none runs.
func Ask[Answer, Request any](ctx context.Context, h Home, path string, request Request) (result Answer, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return result, fmt.Errorf("encoding a command: %w", err)
	}
	socket, dir, err := h.shortSocket()
	if errors.Is(err, fs.ErrNotExist) {
		return result, fmt.Errorf("%w: %s has no data", ErrNotRunning, h)
	}
	if err != nil {
		return result, err
	}
	defer dir.Close()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+path, bytes.NewReader(body))
	if err != nil {
		return result, err
	}
	post.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Transport: transport}).Do(post)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return result, fmt.Errorf("%w: nobody answers on %s", ErrNotRunning, h.AdminSocket())
	}
	if errors.Is(err, fs.ErrPermission) {
		return result, fmt.Errorf("%s belongs to another user: run this as the user that the node runs as: %w", h.AdminSocket(), err)
	}
	if err != nil {
		return result, fmt.Errorf("asking the node on %s: %w", h.AdminSocket(), err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAdminBody))
	if err != nil {
		return result, fmt.Errorf("reading the node's answer: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &result); err != nil {
			return result, fmt.Errorf("reading the node's answer: %w", err)
		}
		return result, nil
	}
	var failure adminFailure
	if json.Unmarshal(text, &failure) != nil || failure.Error == "" {
		return result, fmt.Errorf("the node answers %s: %q; are node and command line of one version?", response.Status, strings.TrimSpace(string(text[:min(len(text), 200)])))
	}
	return result, errors.New(failure.Error)
}

// adminCommands are the commands that a running node takes. Each is a line here and a method.
func (n *Node) adminCommands() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /disk", command(n.Disk))
	mux.Handle("POST /backup", command(n.Backup))
	mux.Handle("POST /snapshot", command(n.Snapshot))
	mux.Handle("POST /export", command(n.Export))
	return mux
}
