package node

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cometbft/cometbft/consensus"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// TestGuardLooks walks a guard over heights whose commits hold, or do not hold, signatures of its key.
func TestGuardLooks(t *testing.T) {
	pv := types.NewMockPV()
	key, err := pv.GetPubKey()
	if err != nil {
		t.Fatal(err)
	}
	block := cmtproto.BlockID{Hash: bytes.Repeat([]byte{1}, 32), PartSetHeader: cmtproto.PartSetHeader{Total: 1, Hash: bytes.Repeat([]byte{2}, 32)}}
	for _, c := range []struct {
		name    string
		signed  int64  // by the sign state
		look    uint64 // blocks
		foreign int64  // height at which the key signs elsewhere
		flag    types.BlockIDFlag
		first   int64 // height of the first vote
		stops   int64 // height at which the guard stops; 0: never
	}{
		{"nobody else", 5, 10, 0, 0, 6, 0},
		{"found at the first vote", 5, 10, 8, types.BlockIDFlagCommit, 12, 12},
		{"for nil", 5, 10, 8, types.BlockIDFlagNil, 12, 12},
		{"just above the sign state", 7, 10, 8, types.BlockIDFlagCommit, 12, 12},
		{"below the sign state it is its own", 8, 10, 8, types.BlockIDFlagCommit, 12, 0},
		{"below what is searched", 5, 3, 8, types.BlockIDFlagCommit, 12, 0},
		{"begins later", 5, 10, 15, types.BlockIDFlagCommit, 7, 16},
		{"begins later, with the copy's first vote", 5, 10, 7, types.BlockIDFlagCommit, 7, 8},
		{"without a search", 5, 0, 8, types.BlockIDFlagCommit, 12, 0},
	} {
		commits := map[int64]*types.Commit{}
		var forbidden error
		g := &guard{PrivValidator: pv, address: key.Address(), signed: c.signed, look: c.look, own: map[int64][][]byte{},
			commit: func(h int64) *types.Commit { return commits[h] }, decided: func(int64, int32) bool { return false }, forbidden: func(err error) { forbidden = err }}
		sign := func(h int64) (types.CommitSig, error) {
			vote := cmtproto.Vote{Type: cmtproto.PrecommitType, Height: h, BlockID: block, ValidatorAddress: key.Address()}
			err := g.SignVote("chain", &vote)
			return types.CommitSig{BlockIDFlag: types.BlockIDFlagCommit, ValidatorAddress: key.Address(), Signature: vote.Signature}, err
		}
		foreign := func(h int64) {
			if h == c.foreign {
				commits[h] = &types.Commit{Height: h, Signatures: []types.CommitSig{types.NewCommitSigAbsent(), {BlockIDFlag: c.flag, ValidatorAddress: key.Address(), Signature: []byte("another's")}}}
			}
		}
		for h := int64(1); h < c.first; h++ {
			foreign(h)
		}
		stopped := int64(0)
		for h := c.first; h < c.first+12 && stopped == 0; h++ {
			own, err := sign(h)
			if err != nil {
				stopped = h
				if forbidden == nil || !strings.Contains(err.Error(), "another node signs with the key") {
					t.Errorf("%s: %v, told %v", c.name, err, forbidden)
				}
				if _, err := sign(h + 1); err == nil {
					t.Errorf("%s: signs again after it has stopped", c.name)
				}
				continue
			}
			commits[h] = &types.Commit{Height: h, Signatures: []types.CommitSig{own}}
			foreign(h)
		}
		if stopped != c.stops {
			t.Errorf("%s: stops at %d, want %d", c.name, stopped, c.stops)
		}
		if len(g.own) > 2 {
			t.Errorf("%s: remembers %d heights", c.name, len(g.own))
		}
	}
}

// TestGuardDecided is the vote for nil at a height that is decided.
func TestGuardDecided(t *testing.T) {
	pv := types.NewMockPV()
	key, err := pv.GetPubKey()
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{PrivValidator: pv, address: key.Address(), look: 10, own: map[int64][][]byte{},
		commit: func(int64) *types.Commit { return nil }, decided: func(h int64, r int32) bool { return h == 3 && r == 1 }, forbidden: func(err error) { t.Error(err) }}
	block := cmtproto.BlockID{Hash: bytes.Repeat([]byte{1}, 32), PartSetHeader: cmtproto.PartSetHeader{Total: 1, Hash: bytes.Repeat([]byte{2}, 32)}}
	for _, c := range []struct {
		kind  cmtproto.SignedMsgType
		round int32
		id    cmtproto.BlockID
		signs bool
	}{
		{cmtproto.PrecommitType, 1, cmtproto.BlockID{}, false},
		{cmtproto.PrecommitType, 1, block, true},
		{cmtproto.PrecommitType, 2, cmtproto.BlockID{}, true},
		{cmtproto.PrevoteType, 1, cmtproto.BlockID{}, true},
	} {
		vote := cmtproto.Vote{Type: c.kind, Height: 3, Round: c.round, BlockID: c.id}
		if err := g.SignVote("chain", &vote); (err == nil) != c.signs || (len(vote.Signature) != 0) != c.signs {
			t.Errorf("%s in round %d for %X: %v", c.kind, c.round, c.id.Hash, err)
		}
	}
}

// TestCometLoggerDecided: the vote that is left out on purpose is no error in the log; any other that is not signed is.
func TestCometLoggerDecided(t *testing.T) {
	for err, want := range map[error]string{errDecided: "level=DEBUG", io.ErrUnexpectedEOF: "level=ERROR"} {
		var text bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cometLogger{log: logger, level: slog.LevelDebug}.Error("failed signing vote", "height", 5, "vote", nil, "err", err)
		if !strings.Contains(text.String(), want) {
			t.Errorf("%v: want %s:\n%s", err, want, text.String())
		}
		text.Reset()
		cometLogger{log: logger, level: slog.LevelError}.Error("failed signing vote", "err", err)
		if (text.Len() == 0) != (err == errDecided) {
			t.Errorf("%v at level error: %q", err, text.String())
		}
	}
}

// TestEndInLog: the mark of the last height is made up for once, and an intact log stays as it is.
func TestEndInLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wal")
	if err := endInLog(file, 7); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log is made: %v", err)
	}
	with := func(f func(log *consensus.BaseWAL)) {
		t.Helper()
		log, err := consensus.NewWAL(file)
		if err == nil {
			err = log.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		f(log)
		if err := log.Stop(); err != nil {
			t.Error(err)
		}
		log.Wait()
	}
	with(func(log *consensus.BaseWAL) {
		if err := log.WriteSync(consensus.EndHeightMessage{Height: 6}); err != nil {
			t.Fatal(err)
		}
	})
	size := func() int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	for _, height := range []int64{0, 6} {
		if err := endInLog(file, height); err != nil || size() != before {
			t.Errorf("height %d: %v, %d bytes, were %d", height, err, size(), before)
		}
	}
	if err := endInLog(file, 7); err != nil || size() <= before {
		t.Errorf("a mark that is missing: %v, %d bytes, were %d", err, size(), before)
	}
	with(func(log *consensus.BaseWAL) {
		reader, found, err := log.SearchForEndHeight(7, &consensus.WALSearchOptions{})
		if err != nil || !found {
			t.Fatalf("found %t, %v", found, err)
		}
		reader.Close()
	})
	before = size()
	if err := endInLog(file, 7); err != nil || size() != before {
		t.Errorf("again: %v, %d bytes, were %d", err, size(), before)
	}
}
