package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/reference"
)

// chain is what honest nodes have reported committed, which must be one chain. Safe for concurrent use.
type chain struct {
	mu       sync.Mutex
	blocks   map[int64]*block
	top      int64
	reported map[int]int64 // by machine: the highest height that it has reported
	places   map[crypto.Hash]place
	marks    map[int]map[mark]cmtproto.BlockID // by honest machine: what it has signed
}

// block is what all nodes must agree on.
type block struct {
	height   int64
	hash     []byte
	appHash  []byte
	answer   [32]byte // of the whole answer of FinalizeBlock: results, events, validator updates
	time     time.Time
	txs      [][]byte
	results  []*abci.ExecTxResult
	evidence []abci.Misbehavior
	votes    []abci.VoteInfo // on the block before
	updates  []abci.ValidatorUpdate
	first    int // machine that reported it first
}

type place struct {
	height int64
	index  int
	code   ledger.Code
}

// mark is what an honest validator signs once.
type mark struct {
	height int64
	round  int32
	kind   cmtproto.SignedMsgType
}

func newChain() *chain {
	return &chain{blocks: map[int64]*block{}, reported: map[int]int64{}, places: map[crypto.Hash]place{}, marks: map[int]map[mark]cmtproto.BlockID{}}
}

// someTx returns the bytes of a committed transaction, nil when there is none.
func (c *chain) someTx(rng *rand.Rand) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range slices.Sorted(maps.Keys(c.blocks)) {
		if txs := c.blocks[h].txs; len(txs) > 0 && rng.IntN(3) != 0 {
			return txs[rng.IntN(len(txs))]
		}
	}
	return nil
}

func (c *chain) height() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.top
}

func (c *chain) place(id crypto.Hash) (place, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.places[id]
	return p, ok
}

// signed takes what a validator signs, and finds an honest one that signs two different things.
func (s *simulation) signed(m *machine, k mark, id cmtproto.BlockID) {
	if m.role.byzantine() {
		return
	}
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	if s.chain.marks[m.index] == nil {
		s.chain.marks[m.index] = map[mark]cmtproto.BlockID{}
	}
	if before, ok := s.chain.marks[m.index][k]; ok && !bytes.Equal(before.Hash, id.Hash) {
		s.finding("honest node %d signs %X and %X at height %d, round %d, type %s", m.index, before.Hash, id.Hash, k.height, k.round, k.kind)
	}
	s.chain.marks[m.index][k] = id
}

// decided takes what a node answers to a decided block.
func (s *simulation) decided(r *run, req *abci.RequestFinalizeBlock, answer *abci.ResponseFinalizeBlock) *block {
	encoded, err := answer.Marshal()
	if err != nil {
		panic(err)
	}
	keys := map[string]bool{}
	for _, u := range answer.ValidatorUpdates {
		if keys[u.PubKey.String()] {
			s.finding("node %d updates a validator twice at height %d", r.index, req.Height)
		}
		keys[u.PubKey.String()] = true
	}
	return &block{height: req.Height, hash: req.Hash, appHash: answer.AppHash, answer: sha256.Sum256(encoded), time: req.Time, txs: req.Txs,
		results: answer.TxResults, evidence: req.Misbehavior, votes: req.DecidedLastCommit.Votes, updates: answer.ValidatorUpdates, first: r.index}
}

// committed takes a block that a node has committed: the first time it becomes the chain's, then it must be the same.
func (s *simulation) committed(r *run, b *block) {
	s.trace.printf(r.index, "commits %d: block %X, AppHash %X, %d transactions, %d pieces of evidence", b.height, b.hash[:6], b.appHash[:6], len(b.txs), len(b.evidence))
	if r.role.byzantine() {
		return
	}
	c := s.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reported[r.index] = max(c.reported[r.index], b.height)
	if have := c.blocks[b.height]; have != nil {
		switch {
		case !bytes.Equal(have.hash, b.hash):
			s.finding("FORK at height %d: node %d commits block %X, node %d block %X", b.height, have.first, have.hash, b.first, b.hash)
		case !bytes.Equal(have.appHash, b.appHash):
			s.finding("FORK at height %d: node %d has the AppHash %X, node %d %X", b.height, have.first, have.appHash, b.first, b.appHash)
		case have.answer != b.answer:
			s.finding("nodes %d and %d differ in results, events or validator updates at height %d", have.first, b.first, b.height)
		}
		return
	}
	if c.top != 0 && b.height != c.top+1 {
		s.finding("node %d commits height %d, which follows on none", r.index, b.height)
	}
	c.blocks[b.height], c.top = b, max(c.top, b.height)
	for i, raw := range b.txs {
		tx, err := ledger.Decode(raw)
		if err != nil {
			s.finding("block %d holds bytes that are no transaction: %v", b.height, err)
			continue
		}
		id, code := tx.ID(s.networkID.ID), ledger.Code(b.results[i].Code)
		if code.Refused() {
			s.finding("block %d holds transaction %s, which the rules refuse: %s", b.height, id, code)
		}
		if p, ok := c.places[id]; ok {
			s.finding("transaction %s stands in block %d and again in block %d", id, p.height, b.height)
		}
		c.places[id] = place{b.height, i, code}
	}
	s.governed(b)
	if len(b.evidence) > 0 {
		s.count.evidence.Add(int64(len(b.evidence)))
		s.count.removed.Add(int64(len(b.updates)))
	}
}

// rejected takes a proposal that an honest node rejects: it must be a liar's.
func (s *simulation) rejected(m *machine, req *abci.RequestProcessProposal) {
	s.count.rejections.Add(1)
	for _, x := range s.machines {
		if bytes.Equal(x.key.PubKey().Address(), req.ProposerAddress) && !x.role.proposer {
			s.finding("node %d rejects a proposal of node %d, which is no liar, at height %d", m.index, x.index, req.Height)
		}
	}
}

// kept compares what stands on the disk of a machine that starts with what it has reported before: nothing may be lost.
func (s *simulation) kept(r *run, state int64) error {
	c := s.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	had, app, blocks := c.reported[r.index], int64(r.app.Store().Height()), r.blocks.Height()
	if app < had || blocks < had {
		return fmt.Errorf("it had reported height %d committed, its disk has application height %d, block store height %d, state height %d", had, app, blocks, state)
	}
	if app < state {
		return fmt.Errorf("its application is at height %d, CometBFT's state at %d", app, state)
	}
	if b := c.blocks[app]; b != nil && !r.role.byzantine() && !bytes.Equal(b.appHash, r.app.Store().AppHash()) {
		return fmt.Errorf("its disk has the AppHash %X at height %d, the chain has %X", r.app.Store().AppHash(), app, b.appHash)
	}
	return nil
}

// audit goes through the whole chain and every honest node's whole state at the end.
func (s *simulation) audit() {
	c := s.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	encoded, err := s.genesis.Encode()
	if err != nil {
		panic(err)
	}
	book, err := reference.New(s.doc.ChainID, encoded, reference.Keys{
		Verify: func(scheme uint32, key, message, signature []byte) bool {
			return crypto.Check{Scheme: crypto.Scheme(scheme), PublicKey: key, Message: message, Signature: signature}.Verify()
		},
		Registrable: func(scheme uint32, key []byte) bool { return crypto.CheckPublicKey(crypto.Scheme(scheme), key) == nil },
	})
	if err != nil {
		panic(err)
	}
	// One node that has them all shows its whole state for the reference's; the others have its AppHash.
	shown := map[int64]*run{}
	for _, m := range s.machines {
		r := m.running()
		if m.role.byzantine() || r == nil {
			continue
		}
		h := int64(r.app.Store().Height())
		if b := c.blocks[h]; b == nil || !bytes.Equal(b.appHash, r.app.Store().AppHash()) {
			s.finding("node %d ends at height %d with the AppHash %X, which the chain does not have", m.index, h, r.app.Store().AppHash())
			continue
		}
		s.sameSet(r)
		if shown[h] == nil {
			shown[h] = r
		}
	}
	for h := int64(1); h <= c.top; h++ {
		b := c.blocks[h]
		if b == nil {
			s.finding("nobody has reported block %d", h)
			return
		}
		book.BeginBlock(uint64(h), uint64(b.time.UnixMilli()))
		for i, raw := range b.txs {
			code, receipt := book.Apply(raw)
			if code != b.results[i].Code || !bytes.Equal(receipt, b.results[i].Data) {
				s.finding("block %d, transaction %d: code %d, the reference says %d, or another receipt", h, i, b.results[i].Code, code)
			}
		}
		var guilty [][20]byte
		for _, e := range b.evidence {
			guilty = append(guilty, [20]byte(e.Validator.Address))
		}
		var votes []reference.Vote
		for _, v := range b.votes {
			votes = append(votes, reference.Vote{Validator: [20]byte(v.Validator.Address), Signed: v.BlockIdFlag != cmtproto.BlockIDFlagAbsent})
		}
		book.EndBlock(guilty, votes)
		if r := shown[h]; r != nil {
			s.compare(r, h, book.Rows())
		}
	}
}

// compare holds a node's rows against the reference's, and checks its books: debits equal credits, and whatever else
// `pacioli fsck` checks.
func (s *simulation) compare(r *run, height int64, rows map[string][]byte) {
	view := r.app.Store().View()
	defer view.Close()
	if int64(view.Height()) != height {
		return // it went on meanwhile
	}
	books, seen := ledger.NewAudit(), 0
	err := view.Range(nil, nil, func(key, value []byte) error {
		books.Row(bytes.Clone(key), bytes.Clone(value))
		seen++
		if want, ok := rows[string(key)]; !ok || !bytes.Equal(want, value) {
			s.finding("node %d has row %x as %x at height %d, the reference %x", r.index, key, value, height, want)
		}
		return nil
	})
	books.Close()
	if err != nil || len(books.Findings) > 0 || seen != len(rows) {
		s.finding("node %d, %d rows at height %d, the reference has %d: %v %v", r.index, seen, height, len(rows), books.Findings, err)
	}
}
