// Package proxy carries the TCP connections between nodes, and carries them badly when told so: slowly, in one direction
// only, or not at all. It works without root and without the kernel's help. Nodes authenticate each other by their keys,
// so a node reaches another one as id@proxy:port and notices nothing else of it.
//
// A link has a direction. Whoever dialed, bytes from a to b travel under the condition of the link a to b.
package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Condition says how a link carries bytes. The zero value carries them at once.
type Condition struct {
	// Cut closes what is connected and refuses what connects, as a firewall that rejects. One direction is enough: TCP
	// needs both.
	Cut bool `json:"cut,omitempty"`
	// Stall holds every byte until it is lifted, as a cable that is pulled: nobody is told. The other direction goes on.
	Stall bool `json:"stall,omitempty"`
	// Delay is added to every byte, and up to Jitter more. The order stays.
	Delay  time.Duration `json:"delay,omitempty"`
	Jitter time.Duration `json:"jitter,omitempty"`
	// BytesPerSecond bounds each connection; 0: no bound.
	BytesPerSecond int `json:"bytes_per_second,omitempty"`
}

// Link is a direction between two nodes.
type Link struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Route is a listener of the proxy: who dials it means From, and is connected with Target, where To listens.
type Route struct {
	Link
	Listen string `json:"listen"`
	Target string `json:"target"`
}

// Setting is a link with its condition.
type Setting struct {
	Link
	Condition
}

const (
	// chunkBytes and maxChunks bound what a connection holds in one direction: 4 MB, which is a block. Who sends more waits.
	chunkBytes, maxChunks = 16 << 10, 256
	dialTimeout           = 5 * time.Second
)

// Proxy carries connections until it is closed. It is safe for concurrent use.
type Proxy struct {
	routes    []Route
	listeners []net.Listener

	mu      sync.Mutex
	links   map[Link]Condition
	changed chan struct{} // closed when a condition changes
	conns   map[*connection]struct{}
	closed  bool
	tasks   sync.WaitGroup
}

// connection is a pair of sockets.
type connection struct {
	Link
	dialer, target net.Conn
	done           chan struct{}
	once           sync.Once
}

func (c *connection) close() {
	c.once.Do(func() {
		close(c.done)
		_ = c.dialer.Close() // whatever was to come is lost, which is the purpose
		_ = c.target.Close()
	})
}

// Open listens on all routes. A route whose Listen has port 0 gets a free one: see Routes.
func Open(routes []Route) (*Proxy, error) {
	p := &Proxy{links: map[Link]Condition{}, changed: make(chan struct{}), conns: map[*connection]struct{}{}}
	if err := p.Add(routes...); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Add listens on more routes, as Open does; on an error those before the one that failed are open.
func (p *Proxy) Add(routes ...Route) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range routes {
		l, err := net.Listen("tcp", r.Listen)
		if err != nil {
			return fmt.Errorf("listening for connections from %s to %s: %w", r.From, r.To, err)
		}
		r.Listen = l.Addr().String()
		p.routes, p.listeners = append(p.routes, r), append(p.listeners, l)
		p.tasks.Go(func() { p.accept(r, l) })
	}
	return nil
}

// Routes returns the routes with the addresses at which they listen.
func (p *Proxy) Routes() []Route {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.routes)
}

// Set puts links under conditions; links that are not named stay as they are.
func (p *Proxy) Set(settings ...Setting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range settings {
		if s.Condition == (Condition{}) {
			delete(p.links, s.Link)
		} else {
			p.links[s.Link] = s.Condition
		}
		if s.Cut {
			for c := range p.conns {
				if c.Link == s.Link || c.Link == (Link{s.To, s.From}) {
					c.close()
				}
			}
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Heal lifts every condition.
func (p *Proxy) Heal() {
	var all []Setting
	for _, s := range p.Settings() {
		all = append(all, Setting{Link: s.Link})
	}
	p.Set(all...)
}

// Settings returns the links that are not as they should be.
func (p *Proxy) Settings() []Setting {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Setting
	for l, c := range p.links {
		all = append(all, Setting{l, c})
	}
	return all
}

// condition returns a link's condition, and what is closed when it changes.
func (p *Proxy) condition(l Link) (Condition, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[l], p.changed
}

// Close ends everything.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	for c := range p.conns {
		c.close()
	}
	p.mu.Unlock()
	p.tasks.Wait()
	return errors.Join(errs...)
}

func (p *Proxy) accept(r Route, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		p.tasks.Go(func() { p.carry(r, conn) })
	}
}

// carry connects a dialer with its target until one of them ends, or the link is cut.
func (p *Proxy) carry(r Route, dialer net.Conn) {
	there, _ := p.condition(r.Link)
	back, _ := p.condition(Link{r.To, r.From})
	if there.Cut || back.Cut {
		_ = dialer.Close()
		return
	}
	target, err := net.DialTimeout("tcp", r.Target, dialTimeout)
	if err != nil { // the node is down: as if nobody listened
		_ = dialer.Close()
		return
	}
	c := &connection{Link: r.Link, dialer: dialer, target: target, done: make(chan struct{})}
	p.mu.Lock()
	if p.closed || p.links[r.Link].Cut || p.links[Link{r.To, r.From}].Cut {
		p.mu.Unlock()
		c.close()
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pipe(c, dialer, target, r.Link) })
	both.Go(func() { p.pipe(c, target, dialer, Link{r.To, r.From}) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// chunk is what was read at once, and when it is to be handed on.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pipe carries one direction of a connection. Its end closes the connection, once what was read before is delivered.
func (p *Proxy) pipe(c *connection, from, to net.Conn, link Link) {
	chunks := make(chan chunk, maxChunks)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(chunks)
		var last time.Time
		for {
			b := make([]byte, chunkBytes)
			n, err := from.Read(b)
			if n > 0 {
				condition, _ := p.condition(link)
				due := time.Now().Add(condition.Delay)
				if condition.Jitter > 0 {
					due = due.Add(rand.N(condition.Jitter))
				}
				if due.Before(last) { // bytes of a stream do not overtake each other
					due = last
				}
				last = due
				select {
				case chunks <- chunk{b[:n], due}:
				case <-c.done:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	defer reading.Wait()
	defer c.close()
	for next := range chunks {
		if !p.hold(c, link, next) {
			return
		}
		if _, err := to.Write(next.bytes); err != nil {
			return
		}
	}
}

// hold waits until a chunk may be handed on; false: the connection has ended.
func (p *Proxy) hold(c *connection, link Link, next chunk) bool {
	wait := func(d time.Duration) bool {
		if d <= 0 {
			return true
		}
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return true
		case <-c.done:
			return false
		}
	}
	if !wait(time.Until(next.due)) {
		return false
	}
	for {
		condition, changed := p.condition(link)
		if !condition.Stall {
			return condition.BytesPerSecond <= 0 || wait(time.Duration(len(next.bytes))*time.Second/time.Duration(condition.BytesPerSecond))
		}
		select {
		case <-changed:
		case <-c.done:
			return false
		}
	}
}

// maxControlBytes bounds what the control port is sent: every link of a hundred nodes.
const maxControlBytes = 4 << 20

// Handler is the control port, for a proxy that runs as a process of its own: GET /links returns the links that are under a
// condition, PUT /links sets those that it is sent, DELETE /links heals all. Whoever reaches it can break the network, which
// is what the network is for.
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /links", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p.Settings()) // who asked has gone
	})
	mux.HandleFunc("PUT /links", func(w http.ResponseWriter, r *http.Request) {
		var settings []Setting
		d := json.NewDecoder(io.LimitReader(r.Body, maxControlBytes))
		d.DisallowUnknownFields()
		if err := d.Decode(&settings); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, s := range settings {
			if s.From == "" || s.To == "" {
				http.Error(w, "a link needs from and to", http.StatusBadRequest)
				return
			}
		}
		p.Set(settings...)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /links", func(w http.ResponseWriter, _ *http.Request) {
		p.Heal()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
