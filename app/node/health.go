package node

import (
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	healthLive = iota
	healthReady
	healthStartup
)

// Health says whether a node is well, and if not, why.
type Health struct {
	ChainID    string   `json:"chain_id,omitempty"`
	OK         bool     `json:"ok"`
	Reasons    []string `json:"reasons,omitempty"`
	Height     uint64   `json:"height"`
	LastRiseMS int64    `json:"last_rise_ms"` // milliseconds since the height was last seen to rise
	CatchingUp bool     `json:"catching_up"`
	Peers      int      `json:"peers"`
	// ClockOffsetMS is how far the clock is ahead of the other validators' by the times in their votes; absent: none came lately.
	ClockOffsetMS *int64 `json:"clock_offset_ms,omitempty"`
	DiskFreeMB    uint64 `json:"disk_free_mb"`
	// Warnings are what needs somebody soon, while the node is well.
	Warnings []string `json:"warnings,omitempty"`
}

// others tells whether a validator is active and not this node's.
func (n *Node) others(v ledger.Validator) bool { return v.Active() && v.Address() != n.own() }

// Health reports on the node.
func (n *Node) Health(kind int) Health {
	since := time.Since(time.Unix(0, n.advanced.Load()))
	h := Health{ChainID: n.chainID, OK: true, Height: n.app.Last().Height, LastRiseMS: since.Milliseconds(), CatchingUp: n.comet.ConsensusReactor().WaitSync(), Peers: n.comet.Switch().Peers().Size()}
	bad := func(format string, args ...any) {
		h.OK = false
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
	}
	if cause := n.cause.Load(); cause != nil {
		bad("the node is stopping: %s", *cause)
	}
	h.DiskFreeMB = n.free.Load() >> 20
	if least := n.config.Node.MinFreeMB; least > 0 && h.DiskFreeMB < 2*least {
		h.Warnings = append(h.Warnings, fmt.Sprintf("the disk of the data has %d MB left: the node stops below %d", h.DiskFreeMB, least))
	}
	clockLimit := time.Duration(n.config.Node.MaxClockOffset)
	off, known := n.clock.offset(time.Now())
	if known {
		ms := off.Milliseconds()
		h.ClockOffsetMS = &ms
	}
	if off.Abs() > clockWarning {
		h.Warnings = append(h.Warnings, fmt.Sprintf("the clock is %s ahead of the other validators': the node stops at %s either way", off.Round(time.Millisecond), clockLimit))
	}
	switch kind {
	case healthReady:
		if r, ok := n.app.Restoring(); ok {
			bad("%s", r)
		} else if h.Height == 0 && n.config.StateSync.Enable {
			bad("looking for a snapshot that a peer offers")
		}
		if off.Abs() > clockLimit {
			bad("the clock is off: %s ahead of the other validators' (limit %s either way)", off.Round(time.Millisecond), clockLimit)
		}
		if h.Peers == 0 && n.power(n.others) > 0 {
			bad("the node has no peers: look at p2p.persistent_peers, the firewall, and p2p.external_address of the peers")
		}
		if h.CatchingUp {
			bad("the node is catching up with its peers")
		}
		if lag := time.Duration(n.config.RPC.ReadyLag); since > lag {
			bad("no block was committed for %s (limit %s): fewer than two thirds of the voting power are connected, or this node is cut off", since.Round(time.Second), lag)
		}
		if h.Height <= n.begun.Load() {
			bad("no block was committed since the node has started")
		}
	case healthStartup:
		if h.Height == 0 {
			bad("no block was committed yet")
		}
	}
	return h
}

// committed tells whether a transaction is in a block already.
func (n *Node) committed(tx *ledger.Tx) (Submission, bool) {
	network, err := n.app.Network()
	if err != nil {
		return Submission{}, false
	}
	id := tx.ID(network.ID)
	r := n.app.Store().Index()
	defer r.Close()
	at, ok, err := index.ByID(r, id)
	if err != nil || !ok {
		return Submission{}, false
	}
	return Submission{ID: id.String(), Code: ledger.OK, Name: ledger.OK.String(), Message: fmt.Sprintf("in block %d already", at.Height), Height: at.Height}, true
}
