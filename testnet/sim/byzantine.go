package sim

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/consensus"
	cmtcrypto "github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	cmtcons "github.com/cometbft/cometbft/proto/tendermint/consensus"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// role is how a machine breaks the rules. The zero value is an honest node.
type role struct {
	equivocator bool // its key signs a second vote beside the first
	proposer    bool // it proposes what the rules refuse, and accepts whatever is proposed
	twin        bool // another machine has the same key, and another pool
	observer    bool // honest, and no validator
}

func (r role) byzantine() bool { return r.equivocator || r.proposer || r.twin }

// signer signs for one run with CometBFT's own file signer. When the machine crashes it signs nothing any more, so the
// sign state stays what it was. It writes down what an honest node signs, and an equivocator's second votes are made here.
type signer struct {
	s       *simulation
	machine *machine
	key     cmtcrypto.PrivKey
	board   *switchboard

	mu   sync.Mutex
	pv   *privval.FilePV
	dead bool
}

var errCrashed = errors.New("the machine has crashed")

func (g *signer) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
}

func (g *signer) GetPubKey() (cmtcrypto.PubKey, error) { return g.key.PubKey(), nil }

func (g *signer) SignVote(chainID string, vote *cmtproto.Vote) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return errCrashed
	}
	if err := g.pv.SignVote(chainID, vote); err != nil {
		return err
	}
	g.s.signed(g.machine, mark{vote.Height, vote.Round, vote.Type}, vote.BlockID)
	if g.machine.role.equivocator && g.s.network.dice(2) {
		g.equivocate(chainID, vote)
	}
	return nil
}

func (g *signer) SignProposal(chainID string, p *cmtproto.Proposal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return errCrashed
	}
	if err := g.pv.SignProposal(chainID, p); err != nil {
		return err
	}
	g.s.signed(g.machine, mark{p.Height, p.Round, cmtproto.ProposalType}, p.BlockID)
	return nil
}

// equivocate signs another vote for the same height, round and type, for nil or for a block that nobody has proposed, and
// sends it to some of the peers.
func (g *signer) equivocate(chainID string, vote *cmtproto.Vote) {
	second := *vote
	second.Signature, second.Extension, second.ExtensionSignature = nil, nil, nil
	if len(vote.BlockID.Hash) != 0 && g.s.network.dice(2) {
		second.BlockID = cmtproto.BlockID{}
	} else {
		made := types.BlockID{Hash: bytes.Repeat([]byte{byte(vote.Height)}, 32), PartSetHeader: types.PartSetHeader{Total: 1, Hash: bytes.Repeat([]byte{7}, 32)}}
		second.BlockID = made.ToProto()
	}
	var err error
	if second.Signature, err = g.key.Sign(types.VoteSignBytes(chainID, &second)); err != nil {
		panic(err)
	}
	g.s.count.equivocations.Add(1)
	g.s.trace.printf(g.machine.index, "EQUIVOCATES at %d/%d, type %s", vote.Height, vote.Round, vote.Type)
	for _, p := range g.board.peers.Copy() {
		if !g.s.network.dice(4) {
			p.TrySend(p2p.Envelope{ChannelID: consensus.VoteChannel, Message: &cmtcons.Vote{Vote: &second}})
		}
	}
}

// liar is the application of a byzantine proposer.
type liar struct {
	*observer
	rng *rand.Rand
}

// ways in which a proposer lies.
var ways = []string{"garbage", "duplicate", "replayed", "reordered", "expired", "over-reserved", "forged", "oversize", "operations", "gap", "censored"}

func (l *liar) PrepareProposal(ctx context.Context, req *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	answer, err := l.App.PrepareProposal(ctx, req)
	if err != nil || l.rng.IntN(4) == 0 {
		return answer, err
	}
	way := ways[l.rng.IntN(len(ways))]
	if way == "operations" && l.rng.IntN(4) != 0 {
		way = "duplicate" // the former takes the processors a tenth of a second for each node
	}
	txs := slices.Clone(answer.Txs)
	m := l.s.mallory
	seconds := uint64(req.Time.Unix())
	switch way {
	case "garbage":
		b := make([]byte, 1+l.rng.IntN(300))
		for i := range b {
			b[i] = byte(l.rng.Uint32())
		}
		txs = append(txs, b)
	case "duplicate":
		if len(txs) == 0 {
			txs = append(txs, m.pay(payment{amount: 1, nonce: l.rng.Uint64(), validUntil: seconds + 100}))
		}
		txs = append(txs, txs[l.rng.IntN(len(txs))])
	case "replayed":
		old := l.s.chain.someTx(l.rng)
		if old == nil {
			return answer, nil
		}
		txs = slices.Insert(txs, l.rng.IntN(len(txs)+1), old)
	case "reordered":
		txs = append(txs, m.pay(payment{amount: 1, sequence: 2}), m.pay(payment{amount: 1, sequence: 1}))
	case "expired":
		txs = append(txs, m.pay(payment{amount: 1, nonce: l.rng.Uint64(), validUntil: seconds}))
	case "over-reserved": // the first ones take what the fees of the last ones need
		for i := range uint64(30) {
			txs = append(txs, m.pay(payment{amount: malloryFunds / 4, nonce: 1 + i, validUntil: seconds + 100}))
		}
	case "forged":
		raw := m.pay(payment{amount: 1, nonce: l.rng.Uint64(), validUntil: seconds + 100})
		raw[len(raw)-1-l.rng.IntN(60)] ^= 1
		txs = append(txs, raw)
	case "oversize":
		txs = append(txs, make([]byte, ledger.MaxTxBytes+1))
	case "operations":
		txs = nil
		for i := range uint64(41) {
			txs = append(txs, m.pay(payment{amount: 1, nonce: 1 + i, validUntil: seconds + 100, times: ledger.MaxOperations}))
		}
	case "gap":
		txs = append(txs, m.pay(payment{amount: 1, sequence: 5}))
	case "censored":
		txs = nil
	}
	l.s.count.lie(way)
	l.s.trace.printf(l.run.index, "LIES at height %d: %s, %d transactions", req.Height, way, len(txs))
	return &abci.ResponsePrepareProposal{Txs: txs}, nil
}

func (l *liar) ProcessProposal(context.Context, *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}

// twin is the application of a machine that shares its key with another: it sees to it that the two propose different blocks.
type twin struct{ *observer }

func (t *twin) PrepareProposal(ctx context.Context, req *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	answer, err := t.App.PrepareProposal(ctx, req)
	if err == nil && t.run.index%2 == 0 && len(answer.Txs) > 0 {
		answer.Txs = answer.Txs[:len(answer.Txs)-1]
	}
	return answer, err
}

// observer is an application that tells the simulation what a node decides. What it reports from a node that has crashed
// meanwhile is dropped: nobody can have learned of it.
type observer struct {
	*app.App
	run     *run
	s       *simulation
	decided *block
}

func (o *observer) ProcessProposal(ctx context.Context, req *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	answer, err := o.App.ProcessProposal(ctx, req)
	if err == nil && answer.Status == abci.ResponseProcessProposal_REJECT && !o.run.role.byzantine() && !o.run.dead.is() {
		o.s.rejected(o.run.machine, req)
	}
	return answer, err
}

func (o *observer) FinalizeBlock(ctx context.Context, req *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	answer, err := o.App.FinalizeBlock(ctx, req)
	if err == nil {
		o.decided = o.s.decided(o.run, req, answer)
	}
	return answer, err
}

func (o *observer) Commit(ctx context.Context, req *abci.RequestCommit) (*abci.ResponseCommit, error) {
	answer, err := o.App.Commit(ctx, req)
	if err == nil && !o.run.dead.is() {
		o.s.committed(o.run, o.decided)
	}
	return answer, err
}
