package node

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/evidence"
	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
)

// A power failure takes what CometBFT wrote down, without a sync, about evidence that a block has: the pool must refuse that
// evidence all the same, and must not propose it.
func TestRememberEvidence(t *testing.T) {
	n := newNet(t, "ed25519")
	databases := cometdb.Provider(n.home.Data(), cometdb.Options{Logger: slog.New(slog.DiscardHandler)})
	defer databases.Close()
	blocks, states, err := openComet(databases)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	s, err := state.MakeGenesisState(n.doc)
	must(err)
	key := types.NewMockPV()
	val := types.NewValidator(key.PrivKey.PubKey(), 10)
	s.Validators = types.NewValidatorSet([]*types.Validator{val})
	s.LastValidators, s.NextValidators = s.Validators.Copy(), s.Validators.Copy()
	at := time.Now()
	e, err := types.NewMockDuplicateVoteEvidenceWithValidator(1, at, key, n.doc.ChainID)
	must(err)
	commit := &types.Commit{}
	var made []*types.Block
	for h := int64(1); h <= 3; h++ {
		var list types.EvidenceList
		if h == 2 {
			list = types.EvidenceList{e}
		}
		block, err := s.MakeBlock(h, nil, commit, list, val.Address)
		must(err)
		parts, err := block.MakePartSet(types.BlockPartSizeBytes)
		must(err)
		id := types.BlockID{Hash: block.Hash(), PartSetHeader: parts.Header()}
		commit = &types.Commit{Height: h, BlockID: id, Signatures: []types.CommitSig{{BlockIDFlag: types.BlockIDFlagCommit, ValidatorAddress: val.Address, Timestamp: at, Signature: []byte{1}}}}
		blocks.SaveBlock(block, parts, commit)
		made = append(made, block)
		s.LastBlockHeight, s.LastBlockID, s.LastBlockTime = h, id, at
		must(states.Save(s))
	}
	// It was pending, and that it was taken off was not synced either.
	pending, err := databases.Named("evidence")
	must(err)
	encoded, err := types.EvidenceToProto(e)
	must(err)
	value, err := encoded.Marshal()
	must(err)
	must(pending.Set(evidenceRow(pendingEvidence, e), value))
	db, err := openForNode(databases)(&config.DBContext{ID: "evidence"})
	must(err)
	pool, err := evidence.NewPool(db, states, blocks)
	must(err)
	if err := pool.CheckEvidence(made[1].Evidence.Evidence); err == nil || !strings.Contains(err.Error(), "already committed") {
		t.Errorf("evidence that is in a block is taken a second time: %v", err)
	}
	if list, _ := pool.PendingEvidence(-1); len(list) != 0 {
		t.Errorf("it proposes %v", list)
	}
}
