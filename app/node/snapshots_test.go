package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
)

// slowReader is an answer that nobody reads before read is closed.
type slowReader struct {
	*httptest.ResponseRecorder
	begun chan<- struct{}
	read  <-chan struct{}
}

func (s slowReader) Write(b []byte) (int, error) {
	s.begun <- struct{}{}
	<-s.read
	return s.ResponseRecorder.Write(b)
}

// TestSlowReaders: a host that reads slowly holds its own two places and no others', and all of them give theirs back.
func TestSlowReaders(t *testing.T) {
	n := newNet(t, KeyEd25519)
	started := make(chan *Node, 1)
	atStart = func(n *Node) { started <- n }
	defer func() { atStart = nil }()
	r := n.start(t)
	until(t, "first block", func() bool { status, _ := r.get("/startupz"); return status == 200 })
	node := <-started
	info, err := node.Snapshot(t.Context(), SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	node.snapshotPages(mux)
	ask := func(host string, w http.ResponseWriter) {
		request := httptest.NewRequest(http.MethodGet, fmt.Sprintf("%s/%d/0", snapshot.Path, info.Height), nil)
		request.RemoteAddr = host
		mux.ServeHTTP(w, request)
	}
	status := func(host string) int {
		w := httptest.NewRecorder()
		ask(host, w)
		if w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s is not told when to ask again", host)
		}
		return w.Code
	}
	begun, read := make(chan struct{}, chunksAtOnce), make(chan struct{})
	done := make(chan int, chunksAtOnce)
	hold := func(host string) {
		w := slowReader{httptest.NewRecorder(), begun, read}
		go func() { ask(host, w); done <- w.Code }()
		<-begun
	}
	for i, host := range []string{"10.0.0.1:%d", "[::ffff:10.0.0.2]:%d", "[2001:db8::%[1]d]:%[1]d", "[2001:db8:0:1::1]:%d"} {
		for port := range chunksPerHost {
			hold(fmt.Sprintf(host, 1000+port))
		}
		if code := status(fmt.Sprintf(host, 2000)); code != http.StatusServiceUnavailable {
			t.Errorf("%s gets one more: %d", host, code)
		}
		want := http.StatusOK
		if (i+1)*chunksPerHost == chunksAtOnce {
			want = http.StatusServiceUnavailable // no more in all
		}
		if code := status("10.0.0.9:1"); code != want {
			t.Errorf("with %d hosts that read slowly another gets %d, want %d", i+1, code, want)
		}
	}
	close(read)
	for range chunksAtOnce {
		if code := <-done; code != http.StatusOK {
			t.Errorf("a slow reader gets %d", code)
		}
	}
	if code := status("10.0.0.1:1"); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}
