package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/cometbft/cometbft/libs/cmap"
	cmtlog "github.com/cometbft/cometbft/libs/log"
	"github.com/cometbft/cometbft/libs/service"
	"github.com/cometbft/cometbft/p2p"
	cmtconn "github.com/cometbft/cometbft/p2p/conn"
	"github.com/cosmos/gogoproto/proto"
)

const (
	// maxInFlight bounds what one end has sent and the other not received: what sockets and CometBFT's send queues hold.
	// Beyond it a send is refused, as CometBFT's is when its queue stays full.
	maxInFlight = 1000
	// refusedPause is how long a sender waits that is not taken.
	refusedPause = 100 * time.Millisecond
)

// network carries messages between switchboards. A link from one node to another delivers in order and loses nothing as
// long as the connection lives, as TCP does: a link that is stalled holds back what is sent, until it is not stalled any
// more. A cut ends the connection with what is under way, and the nodes connect again when the cut is healed.
//
// Safe for concurrent use.
type network struct {
	trace *trace

	mu      sync.Mutex
	rng     *rand.Rand // of delays
	boards  []*switchboard
	links   [][]condition // from, to
	changed chan struct{} // closed and replaced when a link changes
	carried int           // messages delivered
}

// condition of the link from one node to another.
type condition struct {
	delay, jitter time.Duration
	stalled       bool // messages wait
	cut           bool // no connection
}

func newNetwork(n int, rng *rand.Rand, t *trace) *network {
	w := &network{rng: rng, trace: t, boards: make([]*switchboard, n), changed: make(chan struct{})}
	for range n {
		w.links = append(w.links, make([]condition, n))
	}
	return w
}

// set changes the conditions of all links.
func (w *network) set(change func(from, to int, c condition) condition) {
	w.mu.Lock()
	for i := range w.links {
		for j := range w.links[i] {
			w.links[i][j] = change(i, j, w.links[i][j])
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
	var broken []*peer
	for i, b := range w.boards {
		for j := range w.boards {
			if b != nil && (w.links[i][j].cut || w.links[j][i].cut) {
				if p, ok := b.peers.Get(nodeID(j)).(*peer); ok {
					broken = append(broken, p)
				}
			}
		}
	}
	w.mu.Unlock()
	for _, p := range broken {
		p.host.StopPeerForError(p, errCut)
	}
}

var errCut = errors.New("connection reset")

// attach puts a node's switchboard on the network, in the place of an earlier one.
func (w *network) attach(b *switchboard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boards[b.index] = b
}

// dial connects every pair of nodes that can be connected and is not.
func (w *network) dial() {
	for i := range w.boards {
		for j := range i {
			w.mu.Lock()
			a, b := w.boards[i], w.boards[j]
			open := a != nil && b != nil && !a.dead.is() && !b.dead.is() && !w.links[i][j].cut && !w.links[j][i].cut &&
				!w.links[i][j].stalled && !w.links[j][i].stalled
			w.mu.Unlock()
			if open && !a.peers.Has(nodeID(j)) && !b.peers.Has(nodeID(i)) {
				connect(a, b)
			}
		}
	}
}

// condition of a link now, and the channel that is closed when it changes.
func (w *network) condition(from, to int) (condition, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.links[from][to], w.changed
}

// due is when a message that is sent now arrives.
func (w *network) due(from, to int) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.links[from][to]
	d := c.delay
	if c.jitter > 0 {
		d += time.Duration(w.rng.Int64N(int64(c.jitter)))
	}
	return time.Now().Add(d)
}

func nodeID(index int) p2p.ID { return p2p.ID(fmt.Sprintf("%040x", index+1)) }

// switchboard is a node's end of the network. It stands in the place of CometBFT's switch.
type switchboard struct {
	service.BaseService
	index    int
	network  *network
	dead     *latch // the node has crashed: nothing leaves or reaches it any more
	peers    *p2p.PeerSet
	names    []string // of the reactors, in the order in which they were added
	reactors map[string]p2p.Reactor
	channels map[byte]channel
}

type channel struct {
	reactor p2p.Reactor
	message proto.Message
}

var _ p2p.Switcher = (*switchboard)(nil)

func newSwitchboard(index int, w *network, dead *latch, log cmtlog.Logger) *switchboard {
	b := &switchboard{index: index, network: w, dead: dead, peers: p2p.NewPeerSet(), reactors: map[string]p2p.Reactor{}, channels: map[byte]channel{}}
	b.BaseService = *service.NewBaseService(log, "switchboard", b)
	return b
}

func (b *switchboard) AddReactor(name string, r p2p.Reactor) p2p.Reactor {
	for _, c := range r.GetChannels() {
		b.channels[c.ID] = channel{r, c.MessageType}
	}
	b.names = append(b.names, name)
	b.reactors[name] = r
	r.SetSwitch(b)
	return r
}

func (b *switchboard) OnStart() error {
	for _, name := range b.names {
		if err := b.reactors[name].Start(); err != nil {
			return fmt.Errorf("starting reactor %s: %w", name, err)
		}
	}
	return nil
}

func (b *switchboard) OnStop() {
	for _, p := range b.peers.Copy() {
		b.StopPeerForError(p, errCut)
	}
	for _, name := range b.names {
		if err := b.reactors[name].Stop(); err != nil {
			b.Logger.Error("stop reactor", "reactor", name, "err", err)
		}
	}
}

// connect makes a connection between two switchboards.
func connect(a, b *switchboard) {
	p, q := newPeer(a, b.index), newPeer(b, a.index)
	p.far, q.far = q, p
	for _, x := range []*peer{p, q} {
		for _, name := range x.host.names {
			x.host.reactors[name].InitPeer(x)
		}
		if err := x.Start(); err != nil {
			panic(err)
		}
	}
	for _, x := range []*peer{p, q} {
		if err := x.host.peers.Add(x); err != nil {
			panic(fmt.Errorf("connecting %d and %d: %w", a.index, b.index, err))
		}
	}
	for _, x := range []*peer{p, q} {
		for _, name := range x.host.names {
			x.host.reactors[name].AddPeer(x)
		}
		go x.receive()
	}
}

// StopPeerForError ends a connection. The other end learns of it at once.
func (b *switchboard) StopPeerForError(remote p2p.Peer, reason any) {
	p := remote.(*peer)
	if !p.IsRunning() {
		return
	}
	if reason != any(errCut) {
		b.network.trace.printf(b.index, "ends the connection to node %s: %v", p.remote, reason)
	}
	p.end(reason)
	go p.far.end(errCut)
}

func (b *switchboard) StopPeerGracefully(p p2p.Peer) { b.StopPeerForError(p, errCut) }
func (b *switchboard) Reactor(name string) (p2p.Reactor, bool) {
	r, ok := b.reactors[name]
	return r, ok
}
func (b *switchboard) RemoveReactor(string, p2p.Reactor)               { panic("no reactor is ever removed") }
func (b *switchboard) Peers() p2p.IPeerSet                             { return b.peers }
func (b *switchboard) NumPeers() (outbound, inbound, dialing int)      { return b.peers.Size(), 0, 0 }
func (b *switchboard) MaxNumOutboundPeers() int                        { return len(b.network.boards) }
func (b *switchboard) AddPersistentPeers([]string) error               { return nil }
func (b *switchboard) AddPrivatePeerIDs([]string) error                { return nil }
func (b *switchboard) AddUnconditionalPeerIDs([]string) error          { return nil }
func (b *switchboard) DialPeerWithAddress(*p2p.NetAddress) error       { return nil }
func (b *switchboard) DialPeersAsync([]string) error                   { return nil }
func (b *switchboard) IsDialingOrExistingAddress(*p2p.NetAddress) bool { return true }
func (b *switchboard) IsPeerPersistent(*p2p.NetAddress) bool           { return true }
func (b *switchboard) IsPeerUnconditional(p2p.ID) bool                 { return true }
func (b *switchboard) MarkPeerAsGood(p2p.Peer)                         {}
func (b *switchboard) NodeInfo() p2p.NodeInfo {
	return p2p.DefaultNodeInfo{DefaultNodeID: nodeID(b.index)}
}
func (b *switchboard) Log() cmtlog.Logger            { return b.Logger }
func (b *switchboard) BroadcastAsync(e p2p.Envelope) { b.TryBroadcast(e) }
func (b *switchboard) TryBroadcast(e p2p.Envelope) {
	b.peers.ForEach(func(p p2p.Peer) { p.TrySend(e) })
}

// peer is one end of a connection: at host, it stands for the node at the other end.
type peer struct {
	service.BaseService
	host   *switchboard
	remote p2p.ID
	index  int // of remote
	far    *peer
	data   *cmap.CMap
	ended  sync.Once

	mu      sync.Mutex
	arrived []parcel // sent by the other end, not received yet
	more    chan struct{}
}

type parcel struct {
	channel byte
	bytes   []byte
	due     time.Time
}

var _ p2p.Peer = (*peer)(nil)

func newPeer(host *switchboard, index int) *peer {
	p := &peer{host: host, index: index, remote: nodeID(index), data: cmap.NewCMap(), more: make(chan struct{}, 1)}
	p.BaseService = *service.NewBaseService(nil, "peer", p)
	return p
}

func (p *peer) end(reason any) {
	p.ended.Do(func() {
		_ = p.Stop()
		for _, name := range p.host.names {
			p.host.reactors[name].RemovePeer(p, reason)
		}
		p.host.peers.Remove(p)
	})
}

// Send hands a message to the network, and waits a little when it is not taken, as CometBFT's does: what sends proposals
// tries again at once, and virtual time would stand still for ever. Whoever holds a mutex calls TrySend.
func (p *peer) Send(e p2p.Envelope) bool {
	if p.TrySend(e) {
		return true
	}
	time.Sleep(refusedPause)
	return false
}

// TrySend hands a message to the network, encoded as on the wire. It never waits.
func (p *peer) TrySend(e p2p.Envelope) bool {
	if !p.IsRunning() {
		return false
	}
	if p.host.dead.is() {
		return true // nobody hears it
	}
	if _, ok := p.far.host.channels[e.ChannelID]; !ok {
		return false
	}
	message := e.Message
	if w, ok := message.(p2p.Wrapper); ok {
		message = w.Wrap()
	}
	bytes, err := proto.Marshal(message)
	if err != nil {
		panic(fmt.Errorf("encoding a %T: %w", e.Message, err))
	}
	due := p.host.network.due(p.host.index, p.index)
	q := p.far
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.arrived) >= maxInFlight {
		return false
	}
	q.arrived = append(q.arrived, parcel{e.ChannelID, bytes, due})
	select {
	case q.more <- struct{}{}:
	default:
	}
	return true
}

// receive hands what arrives to the reactors, as CometBFT does: one message after the other.
func (p *peer) receive() {
	for {
		p.mu.Lock()
		var next []parcel
		next, p.arrived = p.arrived, nil
		p.mu.Unlock()
		if next == nil {
			select {
			case <-p.more:
				continue
			case <-p.Quit():
				return
			}
		}
		for _, m := range next {
			if wait := time.Until(m.due); wait > 0 {
				select {
				case <-time.After(wait):
				case <-p.Quit():
					return
				}
			}
			for {
				c, changed := p.host.network.condition(p.index, p.host.index)
				if !c.stalled {
					break
				}
				select {
				case <-changed:
				case <-p.Quit():
					return
				}
			}
			if !p.IsRunning() || p.host.dead.is() {
				return
			}
			if err := p.deliver(m); err != nil {
				p.host.StopPeerForError(p, err)
				return
			}
		}
	}
}

// deliver does what CometBFT's peers do with the bytes of a message.
func (p *peer) deliver(m parcel) error {
	c := p.host.channels[m.channel]
	if f, ok := c.reactor.(p2p.MsgBytesFilter); ok {
		if err := f.FilterMsgBytes(m.channel, p, m.bytes); err != nil {
			return err
		}
	}
	message := reflect.New(reflect.TypeOf(c.message).Elem()).Interface().(proto.Message)
	if err := proto.Unmarshal(m.bytes, message); err != nil {
		return fmt.Errorf("decoding a message on channel %#x: %w", m.channel, err)
	}
	if w, ok := message.(p2p.Unwrapper); ok {
		inner, err := w.Unwrap()
		if err != nil {
			return fmt.Errorf("unwrapping a message on channel %#x: %w", m.channel, err)
		}
		message = inner
	}
	p.host.network.mu.Lock()
	p.host.network.carried++
	p.host.network.mu.Unlock()
	c.reactor.Receive(p2p.Envelope{ChannelID: m.channel, Src: p, Message: message})
	return nil
}

func (p *peer) FlushStop()                       { _ = p.Stop() }
func (p *peer) ID() p2p.ID                       { return p.remote }
func (p *peer) RemoteIP() net.IP                 { return net.IPv4(127, 0, 0, byte(p.index+1)) }
func (p *peer) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: p.RemoteIP(), Port: 26656} }
func (p *peer) IsOutbound() bool                 { return true }
func (p *peer) IsPersistent() bool               { return true }
func (p *peer) CloseConn() error                 { return nil }
func (p *peer) NodeInfo() p2p.NodeInfo           { return p2p.DefaultNodeInfo{DefaultNodeID: p.remote} }
func (p *peer) Status() cmtconn.ConnectionStatus { return cmtconn.ConnectionStatus{} }
func (p *peer) SocketAddr() *p2p.NetAddress      { return p2p.NewNetAddressIPPort(p.RemoteIP(), 26656) }
func (p *peer) Set(key string, value any)        { p.data.Set(key, value) }
func (p *peer) Get(key string) any               { return p.data.Get(key) }
func (p *peer) SetRemovalFailed()                {}
func (p *peer) GetRemovalFailed() bool           { return false }

// sides returns a random division of the nodes into two.
func sides(rng *rand.Rand, n int) (inFirst []bool) {
	inFirst = make([]bool, n)
	first := 1 + rng.IntN(n-1)
	for _, i := range rng.Perm(n)[:first] {
		inFirst[i] = true
	}
	if !slices.Contains(inFirst, false) {
		panic("a side is empty")
	}
	return inFirst
}
