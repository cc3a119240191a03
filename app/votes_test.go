package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	types "github.com/cometbft/cometbft/proto/tendermint/types"

	genesisfile "github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestVotesArePartOfAProposal: two rounds propose the same block with other commits of the block before. What is decided
// counts, not what was looked at first. Who votes for nothing has not missed the block.
func TestVotesArePartOfAProposal(t *testing.T) {
	w, a, b := started(t, 1, 1, 1, 1)
	commitOf := func(flags ...types.BlockIDFlag) abci.CommitInfo {
		var c abci.CommitInfo
		for i, f := range flags {
			v := w.doc.Validators[i]
			c.Votes = append(c.Votes, abci.VoteInfo{Validator: abci.Validator{Address: v.Address, Power: v.Power}, BlockIdFlag: f})
		}
		return c
	}
	signed, empty, absent := types.BlockIDFlagCommit, types.BlockIDFlagNil, types.BlockIDFlagAbsent
	decided := commitOf(signed, absent, empty, signed)
	for _, c := range []abci.CommitInfo{commitOf(signed, signed, signed, signed), commitOf(absent, signed, signed, signed), decided, commitOf(signed, signed, signed, absent)} {
		request := b.process()
		request.ProposedLastCommit = c
		if answer := must[*abci.ResponseProcessProposal](t)(a.ProcessProposal(background, request)); answer.Status != abci.ResponseProcessProposal_ACCEPT {
			t.Fatal(answer.Status)
		}
	}
	request := b.finalize()
	request.DecidedLastCommit = decided
	must[*abci.ResponseFinalizeBlock](t)(a.FinalizeBlock(background, request))
	commit(t, a)
	view := a.store.View()
	defer view.Close()
	for i, want := range []uint32{0, 1, 0, 0} {
		row := must[[]byte](t)(view.Get(ledger.MissedRow(ledger.ConsensusAddress(w.doc.Validators[i].Address))))
		var got ledger.Missed
		if row != nil {
			got = must[ledger.Missed](t)(ledger.DecodeMissed(row))
		}
		if got.Count != want {
			t.Errorf("validator %d has missed %d blocks, want %d", i, got.Count, want)
		}
	}
	if f := a.Figures(); f.MissedLast != 1 || f.Executed != 5 || f.Execution <= 0 { // the first block, and four proposals
		t.Errorf("%+v", f)
	}
	for i, want := range []uint64{1, 0, 1, 1} {
		if got := a.LastSigned(ledger.ConsensusAddress(w.doc.Validators[i].Address)); got != want {
			t.Errorf("validator %d has last signed block %d, want %d", i, got, want)
		}
	}
	if next := b.next(time.Second); !accepted(t, a, next) {
		t.Fatal("the next block is rejected")
	}
}

// TestUnsoundPowersAreReported: evidence can leave powers to which no vote would lead; the operator is told.
func TestUnsoundPowersAreReported(t *testing.T) {
	for _, c := range []struct {
		powers []int64
		want   bool
	}{{[]int64{10, 1, 1, 1, 1}, true}, {[]int64{10, 10, 10, 10, 10}, false}} {
		w := newWorld(t, c.powers...)
		for i, power := range c.powers {
			w.doc.Validators[i].Power = power // newWorld multiplies, against the very case
		}
		w.network = must[ledger.Network](t)(genesisfile.NetworkOf(w.doc))
		a := open(t, vfs.NewMem(), nil)
		initialise(t, a, w)
		var log bytes.Buffer
		a.log = slog.New(slog.NewTextHandler(&log, nil))
		finalize(t, a, block{height: 1, time: w.doc.GenesisTime, evidence: []abci.Misbehavior{{Type: abci.MisbehaviorType_DUPLICATE_VOTE,
			Validator: abci.Validator{Address: w.doc.Validators[0].Address}}}})
		closeApp(t, a)
		if got := strings.Contains(log.String(), "takes this validator for a third"); got != c.want {
			t.Errorf("powers %v without the first: the log says\n%s", c.powers, log.String())
		}
	}
}
