package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// echo answers with what it is sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

func open(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := Open([]Route{{Link{"a", "b"}, "127.0.0.1:0", target}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Routes()[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answer sends a text and returns what comes back within a time.
func answer(t *testing.T, c net.Conn, text string, within time.Duration) (string, error) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	b := make([]byte, len(text))
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	n, err := io.ReadFull(c, b)
	return string(b[:n]), err
}

const soon, never = 5 * time.Second, 150 * time.Millisecond

func TestCut(t *testing.T) {
	for _, link := range []Link{{"a", "b"}, {"b", "a"}} {
		p := open(t, echo(t))
		c := dial(t, p)
		if got, err := answer(t, c, "hello", soon); got != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		p.Set(Setting{link, Condition{Cut: true}})
		if got, err := answer(t, c, "hello", soon); err == nil {
			t.Errorf("a cut link answers %q", got)
		}
		if got, err := answer(t, dial(t, p), "hello", soon); err == nil {
			t.Errorf("a cut link takes connections, and answers %q", got)
		}
		p.Set(Setting{Link{"a", "c"}, Condition{Stall: true}}) // of others
		p.Set(Setting{Link: link})
		if got, err := answer(t, dial(t, p), "again", soon); got != "again" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// TestStall holds one direction: what was sent arrives when it is lifted, whole and in order.
func TestStall(t *testing.T) {
	for _, link := range []Link{{"a", "b"}, {"b", "a"}} {
		p := open(t, echo(t))
		c := dial(t, p)
		if _, err := answer(t, c, "hello", soon); err != nil {
			t.Fatal(err)
		}
		p.Set(Setting{link, Condition{Stall: true}})
		if got, err := answer(t, c, "held", never); err == nil || got != "" {
			t.Errorf("a stalled link answers %q", got)
		}
		p.Heal()
		b := make([]byte, 4)
		c.SetReadDeadline(time.Now().Add(soon))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "held" {
			t.Errorf("after the stall %q, %v", b, err)
		}
		if n := len(p.Settings()); n != 0 {
			t.Errorf("%d links are under a condition after healing", n)
		}
	}
}

// TestOneWay sees that the other direction of a stalled connection goes on.
func TestOneWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := open(t, l.Addr().String())
	p.Set(Setting{Link{"a", "b"}, Condition{Stall: true}})
	c := dial(t, p)
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	c.Write([]byte("up"))
	there.Write([]byte("down"))
	b := make([]byte, 4)
	c.SetReadDeadline(time.Now().Add(soon))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "down" {
		t.Errorf("b to a: %q, %v", b, err)
	}
	there.SetReadDeadline(time.Now().Add(never))
	if n, err := there.Read(b); err == nil {
		t.Errorf("a to b: %q", b[:n])
	}
}

func TestDelayAndBandwidth(t *testing.T) {
	p := open(t, echo(t))
	c := dial(t, p)
	p.Set(Setting{Link{"a", "b"}, Condition{Delay: 60 * time.Millisecond, Jitter: 20 * time.Millisecond}}, Setting{Link{"b", "a"}, Condition{Delay: 40 * time.Millisecond}})
	began := time.Now()
	if got, err := answer(t, c, "hello", soon); got != "hello" || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%q after %s, %v", got, time.Since(began), err)
	}
	p.Heal()
	p.Set(Setting{Link{"b", "a"}, Condition{BytesPerSecond: 1 << 20}})
	began = time.Now()
	long := string(bytes.Repeat([]byte("0123456789abcdef"), 256<<10/16))
	if got, err := answer(t, c, long, soon); got != long || time.Since(began) < 200*time.Millisecond {
		t.Errorf("%d of %d bytes after %s, %v", len(got), len(long), time.Since(began), err)
	}
}

func TestHandler(t *testing.T) {
	p := open(t, echo(t))
	s := httptest.NewServer(p.Handler())
	defer s.Close()
	call := func(method, body string) (int, []Setting) {
		request, err := http.NewRequest(method, s.URL+"/links", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var settings []Setting
		if method == http.MethodGet {
			if err := json.NewDecoder(r.Body).Decode(&settings); err != nil {
				t.Fatal(err)
			}
		}
		return r.StatusCode, settings
	}
	want := Setting{Link{"a", "b"}, Condition{Stall: true, Delay: time.Second}}
	body, err := json.Marshal([]Setting{want})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := call(http.MethodPut, string(body)); code != http.StatusNoContent {
		t.Fatal(code)
	}
	if _, got := call(http.MethodGet, ""); len(got) != 1 || got[0] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "[{}]", `[{"from":"a","to":"b","loss":1}]`} {
		if code, _ := call(http.MethodPut, bad); code != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, code)
		}
	}
	if code, _ := call(http.MethodDelete, ""); code != http.StatusNoContent || len(p.Settings()) != 0 {
		t.Errorf("%d, %v", code, p.Settings())
	}
}
