package node

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// guard stands before a validator's key and keeps it from signing while another node signs with it.
//
// The key's own sign state (data/priv_validator_state.json) never lets it sign two things at one height, round and step.
// That does not help when the state was lost or restored from a backup, or when the key runs on two machines. So before
// the first signature at a height, the guard searches the blocks below, back to the sign state that the node started with,
// for signatures of this key that this process did not make. Finding one, it never signs again, and the node stops.
//
// It goes on looking at every height, not only at the first: block sync ends some blocks before the chain's end, and the
// other node may have begun to sign only then. A node that runs a backup is so stopped at the first block that it sees the
// original sign. What remains is an original that begins within the same block as its copy.
//
// While it catches up, a node also votes nil at heights that are decided already. Nobody needs such a vote, and a peer
// that is one block ahead would take it for equivocation beside the original's. So it is not signed.
//
// CometBFT's own double_sign_check_height looks for any signature of the key and so finds the node's own: a network of
// which a third or more was restarted could then not go on.
type guard struct {
	types.PrivValidator
	address []byte
	signed  int64  // last height in the sign state when the node started: what is above was signed by this process, or by another
	look    uint64 // blocks below the first signature to search; 0: do not search at all
	commit  func(height int64) *types.Commit
	// decided tells whether more than two thirds have precommitted a block in a round of the height that consensus is at.
	// It is called from consensus, with consensus's lock held.
	decided   func(height int64, round int32) bool
	forbidden func(error)

	mu      sync.Mutex
	checked int64              // every block up to here has been searched
	own     map[int64][][]byte // precommits of this process by height, above checked
	err     error              // why nothing may be signed
}

// errDecided leaves the vote out, and consensus goes on. CometBFT logs it as an error; cometLogger makes that debug.
var errDecided = errors.New("the height is decided: a vote for nil is of no use")

// check searches the blocks below a height that have not been searched.
func (g *guard) check(height int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil || g.look == 0 {
		return g.err
	}
	for h := max(g.checked+1, g.signed+1, height-int64(min(g.look, 1<<31)), 1); h < height; h++ {
		if commit := g.commit(h); commit != nil {
			for _, s := range commit.Signatures {
				if bytes.Equal(s.ValidatorAddress, g.address) && s.BlockIDFlag != types.BlockIDFlagAbsent && !g.made(h, s.Signature) {
					g.err = fmt.Errorf("block %d is signed by this validator's key, but not by this node, which last signed height %d before it started: another node signs with the key, or the sign state is from a backup. "+
						"Make sure that no other node runs with this key, wait until %d blocks have passed without a signature of it, and start again", h, g.signed, g.look)
					g.forbidden(g.err)
					return g.err
				}
			}
		}
		delete(g.own, h)
	}
	g.checked = max(g.checked, height-1)
	return nil
}

// made tells whether this process has made a signature.
func (g *guard) made(height int64, signature []byte) bool {
	for _, own := range g.own[height] {
		if bytes.Equal(own, signature) {
			return true
		}
	}
	return false
}

// SignVote implements types.PrivValidator.
func (g *guard) SignVote(chainID string, vote *cmtproto.Vote) error {
	if err := g.check(vote.Height); err != nil {
		return err
	}
	precommit := vote.Type == cmtproto.PrecommitType
	if precommit && len(vote.BlockID.Hash) == 0 && g.decided(vote.Height, vote.Round) {
		return errDecided
	}
	if err := g.PrivValidator.SignVote(chainID, vote); err != nil {
		return err
	}
	if precommit && g.look != 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.own[vote.Height] = append(g.own[vote.Height], bytes.Clone(vote.Signature))
	}
	return nil
}

// SignProposal implements types.PrivValidator.
func (g *guard) SignProposal(chainID string, proposal *cmtproto.Proposal) error {
	if err := g.check(proposal.Height); err != nil {
		return err
	}
	return g.PrivValidator.SignProposal(chainID, proposal)
}

// GetPubKey implements types.PrivValidator.
func (g *guard) GetPubKey() (cmtcrypto.PubKey, error) { return g.PrivValidator.GetPubKey() }
