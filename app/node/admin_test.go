package node

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node's operator is answered through the socket, whatever the length of the home's path; nobody else can open it, and it
// goes with the node.
func TestAdmin(t *testing.T) {
	type question struct{ Word string }
	type reply struct{ Words []string }
	mux := http.NewServeMux()
	mux.Handle("POST /echo", command(func(_ context.Context, q question) (reply, error) { return reply{[]string{q.Word}}, nil }))
	mux.Handle("POST /fail", command(func(context.Context, question) (reply, error) { return reply{}, errors.New("no reason at all") }))
	begun := make(chan struct{})
	mux.Handle("POST /wait", command(func(ctx context.Context, _ question) (reply, error) {
		close(begun)
		<-ctx.Done()
		return reply{}, ctx.Err()
	}))
	ctx := t.Context()
	for name, home := range map[string]Home{"short": Home(t.TempDir()), "long": Home(filepath.Join(t.TempDir(), strings.Repeat("x", 200)))} {
		begun = make(chan struct{})
		if _, err := Ask[reply](ctx, home, "/echo", question{"a"}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: without a node: %v", name, err)
		}
		if err := os.MkdirAll(home.Data(), 0o755); err != nil {
			t.Fatal(err)
		}
		a, err := home.serveAdmin(mux, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(home.AdminSocket()); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the socket: %v %v", name, info.Mode(), err)
		}
		if r, err := Ask[reply](ctx, home, "/echo", question{"hello"}); err != nil || len(r.Words) != 1 || r.Words[0] != "hello" {
			t.Errorf("%s: %v %v", name, r, err)
		}
		if _, err := Ask[reply](ctx, home, "/fail", question{}); err == nil || err.Error() != "no reason at all" {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Ask[reply](ctx, home, "/unknown", question{}); err == nil || !strings.Contains(err.Error(), "of one version") {
			t.Errorf("%s: %v", name, err)
		}
		done := make(chan error, 1)
		go func() { _, err := Ask[reply](ctx, home, "/wait", question{}); done <- err }()
		<-begun
		a.close()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: a command under way does not end with the node", name)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: a command under way outlives the node", name)
		}
		if _, err := os.Lstat(home.AdminSocket()); err == nil {
			t.Errorf("%s: the socket stays", name)
		}
		// What a killed node has left is no obstacle.
		if err := os.WriteFile(home.AdminSocket(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Ask[reply](ctx, home, "/echo", question{"a"}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: with a socket that nobody serves: %v", name, err)
		}
		if a, err = home.serveAdmin(mux, func(err error) { t.Error(err) }); err != nil {
			t.Fatal(err)
		}
		a.close()
	}
}
