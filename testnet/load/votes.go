package load

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// Vote is the kind of what validators' operators do. Each has to stand in a block; with which code depends on whether a
// validator has lost its power meanwhile, and the audit's second bookkeeping knows.
const Vote = "vote"

// voteEvery is the pause between two proposals.
const voteEvery = 5 * time.Second

// vote has the operators propose another fee, approve, take back and approve again, or leave a proposal to expire; and bond.
func (l *Load) vote(ctx context.Context) {
	s := &story{load: l, name: Vote, random: rand.New(rand.NewPCG(l.o.Seed, 0x766f746573)), fee: l.params.FeeAsset}
	for _, o := range l.o.Operators {
		s.guests = append(s.guests, &guest{address: o.Policy().Address(), keys: o, policy: o.Policy()})
	}
	for n := uint64(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-l.stop:
			return
		case <-time.After(voteEvery):
		}
		l.mu.Lock()
		l.telling++
		l.mu.Unlock()
		s.round(ctx, n)
		l.mu.Lock()
		l.telling--
		l.mu.Unlock()
	}
}

// round is one proposal with what becomes of it.
func (s *story) round(ctx context.Context, n uint64) {
	row, err := s.load.o.Client.Row(ctx, ledger.ParametersRow(), 0)
	if err != nil {
		return // the network is broken just now
	}
	next, err := ledger.DecodeParameters(row.Value)
	if err != nil {
		panic(err) // it is proven
	}
	// Never above what everybody else in this load believes that it is.
	for before := next.FeeBase; next.FeeBase == before; {
		next.FeeBase = s.load.params.FeeBase/2 + s.random.Uint64N(s.load.params.FeeBase/2+1)
	}
	order := s.random.Perm(len(s.guests))
	proposer, others := s.guests[order[0]], order[1:]
	open := time.Hour
	if n%3 == 2 {
		open = 20 * time.Second // nobody will see to it
	}
	id, ok := s.cast(ctx, proposer, &ledger.Propose{Expires: soon(open), Change: &ledger.SetParameters{Before: ledger.ParametersHash(row.Value), Parameters: next}})
	if n == 0 {
		s.cast(ctx, proposer, &ledger.Bond{Amount: s.units(1_000_000)})
	}
	if !ok || n%3 == 2 {
		return
	}
	proposal := ledger.ProposalID(id, 0)
	first := s.guests[others[0]]
	s.cast(ctx, first, &ledger.Approve{Proposal: proposal})
	s.cast(ctx, first, &ledger.Approve{Proposal: proposal, Withdraw: true})
	for _, i := range others { // more than are needed: for the last one there is no such proposal any more
		s.cast(ctx, s.guests[i], &ledger.Approve{Proposal: proposal})
	}
}

// cast makes one transaction of an operator. ok tells whether it took effect.
func (s *story) cast(ctx context.Context, g *guest, o ledger.Operation) (id crypto.Hash, ok bool) {
	p, err := s.build(by(g, o))
	if err != nil {
		panic(err) // a defect of this package
	}
	s.load.settle(ctx, p)
	select {
	case <-p.done:
	case <-ctx.Done():
		return id, false
	}
	if p.claim.Ending == audit.Final && g.registered.IsZero() {
		g.registered = time.Now()
	}
	return p.claim.ID, p.claim.Ending == audit.Final && p.claim.Code == 0
}
