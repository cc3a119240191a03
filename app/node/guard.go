package node

import (
	"bytes"
	"fmt"
	"sync"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// guard stands before a validator's key and keeps it from signing while another node may be signing with it.
//
// The key's own sign state (data/priv_validator_state.json) never lets it sign two things at one height, round and step.
// That does not help when the state was lost or restored from a backup, or when the key runs on two machines. So before
// its first signature after a start, the guard searches the last blocks, which by then have been fetched from the peers,
// for signatures of this key at heights above the sign state: this node did not make those. Finding one, it never signs,
// and the node stops.
//
// CometBFT's own double_sign_check_height looks for any signature of the key and so finds the node's own: a network of
// which a third or more was restarted could then not go on.
type guard struct {
	types.PrivValidator
	address   []byte
	signed    int64  // last height in the sign state when the node started
	look      uint64 // blocks to search; 0: none
	commit    func(height int64) *types.Commit
	forbidden func(error)

	mu      sync.Mutex
	checked bool
	err     error // why nothing may be signed
}

// check runs the search once, before the first signature at a height.
func (g *guard) check(height int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.checked {
		return g.err
	}
	g.checked = true
	for h := height - 1; h > 0 && h > g.signed && h >= height-int64(g.look); h-- {
		commit := g.commit(h)
		if commit == nil {
			break
		}
		for _, s := range commit.Signatures {
			// A vote for nil counts too: it is a signature. An absent one has no address.
			if bytes.Equal(s.ValidatorAddress, g.address) {
				g.err = fmt.Errorf("block %d is signed by this validator's key, but this node last signed height %d: another node signs with the key, or the sign state is from a backup. "+
					"Make sure that no other node runs with this key, wait until %d blocks have passed without a signature of it, and start again", h, g.signed, g.look)
				g.forbidden(g.err)
				return g.err
			}
		}
	}
	return nil
}

func (g *guard) SignVote(chainID string, vote *cmtproto.Vote) error {
	if err := g.check(vote.Height); err != nil {
		return err
	}
	return g.PrivValidator.SignVote(chainID, vote)
}

func (g *guard) SignProposal(chainID string, proposal *cmtproto.Proposal) error {
	if err := g.check(proposal.Height); err != nil {
		return err
	}
	return g.PrivValidator.SignProposal(chainID, proposal)
}

func (g *guard) GetPubKey() (cmtcrypto.PubKey, error) { return g.PrivValidator.GetPubKey() }
