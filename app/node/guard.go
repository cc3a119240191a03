package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/libs/protoio"
	"github.com/cometbft/cometbft/privval"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/failpoint"
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
//
// A node that has lost its blocks and its consensus log, but not its sign state, cannot sign again what it had signed when it
// was killed, and nobody else may have got it. Where all validators that are left are needed, the others would wait for that
// vote for ever. So the guard gives consensus the signed vote itself, for the block that it was for.
//
// It also holds the key that is to follow (rotate.go), and changes over at the first height in whose set that one is.
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
	// prevote is the file in which the prevote is kept that the sign state, which has one vote, forgets for a precommit.
	prevote string
	// again gives consensus a vote of this validator's, of which the index is left to be found. It must not wait: it is called
	// from consensus, with consensus's lock held.
	again func(*types.Vote)

	mu      sync.Mutex
	checked int64              // every block up to here has been searched
	own     map[int64][][]byte // precommits of this process by height, above checked
	err     error              // why nothing may be signed

	// The key that is to follow; nil when there is none. Its address is in nextAddress.
	next        cmtcrypto.PrivKey
	nextAddress []byte
	last        int64 // highest height at which this process has signed, or begun to
	// round returns the height that consensus is at and its validators. It is called from consensus, with consensus's lock
	// held, or before there is consensus.
	round func() (height int64, set *types.ValidatorSet)
	// promote makes the next key the home's, for good, and returns what signs with it from then on.
	promote func(next cmtcrypto.PrivKey) (types.PrivValidator, error)
}

// errDecided leaves the vote out, and consensus goes on. CometBFT logs it as an error; cometLogger makes that debug.
var errDecided = errors.New("the height is decided: a vote for nil is of no use")

// errChangeOver: this machine could not take the next key into use. Nobody else signs with it.
var errChangeOver = errors.New("taking the next validator key into use")

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
						"Make sure that no other node runs with this key, and then, with this node stopped: pacioli validator reset-sign-state, which waits until %d blocks have passed without a signature of it", h, g.signed, g.look)
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
	g.begin(vote.Height)
	precommit := vote.Type == cmtproto.PrecommitType
	if precommit && len(vote.BlockID.Hash) == 0 && g.decided(vote.Height, vote.Round) {
		return errDecided
	}
	if precommit {
		g.keepPrevote(vote.Height, vote.Round)
	}
	if err := g.PrivValidator.SignVote(chainID, vote); err != nil {
		g.repeat(vote.Height)
		return err
	}
	failpoint.Here("sign.vote")
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
	g.begin(proposal.Height)
	if err := g.PrivValidator.SignProposal(chainID, proposal); err != nil {
		return err
	}
	failpoint.Here("sign.proposal")
	return nil
}

// lastSigned returns what the key in use has signed last; nil for a signer that does not tell.
func (g *guard) lastSigned() *privval.FilePVLastSignState {
	if pv, ok := g.PrivValidator.(*privval.FilePV); ok {
		return &pv.LastSignState
	}
	return nil
}

// keepPrevote writes the prevote of a round down before its precommit takes its place in the sign state. It is not synced,
// and a failure to write it is none to sign: it is needed only where the data are taken away on purpose (Home.Wipe).
func (g *guard) keepPrevote(height int64, round int32) {
	last := g.lastSigned()
	if last == nil || last.Height != height || last.Round != round || last.Step != stepPrevote {
		return
	}
	text, err := json.Marshal(last)
	if err == nil {
		next := g.prevote + ".new"
		if err = os.WriteFile(next, text, 0o600); err == nil {
			_ = os.Rename(next, g.prevote)
		}
	}
}

// repeat gives consensus the votes of a height that the key has signed and that it will not sign again.
func (g *guard) repeat(height int64) {
	last := g.lastSigned()
	if last == nil {
		return
	}
	var prevote privval.FilePVLastSignState
	if text, err := os.ReadFile(g.prevote); err == nil {
		_ = json.Unmarshal(text, &prevote) // what cannot be read is no vote
	}
	for _, s := range []privval.FilePVLastSignState{prevote, *last} {
		if s.Height != height || s.Step < stepPrevote {
			continue
		}
		if vote := votedFor(s, g.address); vote != nil {
			g.again(vote)
		}
	}
}

// Steps of privval.FilePVLastSignState.
const stepPrevote = 2 // a precommit has 3, a proposal 1

// votedFor returns the vote that a sign state is of, with what it was signed over; nil when it cannot be read.
func votedFor(s privval.FilePVLastSignState, address []byte) *types.Vote {
	var signed cmtproto.CanonicalVote
	if err := protoio.UnmarshalDelimited(s.SignBytes, &signed); err != nil {
		return nil
	}
	vote := &types.Vote{Type: signed.Type, Height: signed.Height, Round: int32(signed.Round), Timestamp: signed.Timestamp, ValidatorAddress: address, Signature: s.Signature}
	if id := signed.BlockID; id != nil {
		vote.BlockID = types.BlockID{Hash: id.Hash, PartSetHeader: types.PartSetHeader{Total: id.PartSetHeader.Total, Hash: id.PartSetHeader.Hash}}
	}
	return vote
}

// begin notes a height at which the key in use is about to sign: the next key must not sign there.
func (g *guard) begin(height int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, height)
}

// GetPubKey implements types.PrivValidator. Consensus calls it after each block, when it has gone on to the next height and
// before anything is signed there, and keeps the answer until the next block: so this is where the keys change over.
func (g *guard) GetPubKey() (cmtcrypto.PubKey, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.changeOver(); err != nil {
		g.err = err
		g.forbidden(err)
		return nil, err
	}
	return g.PrivValidator.GetPubKey()
}

// changeOver makes the next key the one in use when it is in the set of the height that consensus is at. The key before has
// then left the set, or, if somebody has put both in, has not signed at this height: no height has signatures of both.
func (g *guard) changeOver() error {
	if g.next == nil || g.err != nil {
		return nil
	}
	height, set := g.round()
	if set == nil || !set.HasAddress(g.nextAddress) || max(g.last, g.signed) >= height {
		return nil
	}
	pv, err := g.promote(g.next)
	if err != nil {
		return fmt.Errorf("%w at height %d: %w", errChangeOver, height, err)
	}
	g.PrivValidator, g.address, g.next, g.nextAddress = pv, g.nextAddress, nil, nil
	return nil
}

// follow sets the key that is to follow; nil for none. It returns whether that is a change.
func (g *guard) follow(next cmtcrypto.PrivKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if next == nil {
		was := g.next != nil
		g.next, g.nextAddress = nil, nil
		return was
	}
	address := next.PubKey().Address()
	if bytes.Equal(address, g.address) || bytes.Equal(address, g.nextAddress) {
		return false
	}
	g.next, g.nextAddress = next, address
	return true
}

// following returns the address of the key that is to follow; nil for none.
func (g *guard) following() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nextAddress
}
