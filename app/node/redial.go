package node

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cometbft/cometbft/p2p"
)

// redialEvery is the pause between two attempts to reach persistent peers that are not connected. CometBFT tries twenty
// times, five to eight seconds apart, then at pauses that grow to days: two nodes that were cut off each other for three
// minutes would then not find each other for four more. It also looks up a peer's name once, at its start, and never dials a
// peer whose name was not known then, as that of a container that starts later.
const redialEvery = 2 * time.Second

// redial dials persistent peers that are not connected until ctx ends.
func (n *Node) redial(ctx context.Context) {
	if len(n.config.P2P.PersistentPeers) == 0 {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(redialEvery + rand.N(redialEvery)): // two that dial each other at the same moment hinder each other
		}
		sw := n.comet.Switch()
		for _, peer := range n.config.P2P.PersistentPeers {
			id, _, _ := strings.Cut(peer, "@")
			if p2p.ID(strings.ToLower(id)) == n.comet.NodeInfo().ID() || sw.Peers().Has(p2p.ID(strings.ToLower(id))) {
				continue
			}
			address, err := p2p.NewNetAddressString(peer) // looks the name up anew
			if err != nil {
				n.log.Debug("look up peer", "peer", peer, "err", err)
				continue
			}
			go func() {
				if err := sw.DialPeerWithAddress(address); err != nil { // also when it is being dialled already
					n.log.Debug("dial peer", "peer", peer, "err", err)
				}
			}()
		}
	}
}
