package node

import (
	"slices"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// TestOnlyValid: of a commit that a server gives, what it has invented or moved beside the needed two thirds is left out.
func TestOnlyValid(t *testing.T) {
	var keys []ed25519.PrivKey
	var validators []*types.Validator
	for i := range 4 {
		key := ed25519.GenPrivKeyFromSecret([]byte{byte(i)})
		keys, validators = append(keys, key), append(validators, types.NewValidator(key.PubKey(), 10))
	}
	set := types.NewValidatorSet(validators)
	id := types.BlockID{Hash: make([]byte, 32), PartSetHeader: types.PartSetHeader{Total: 1, Hash: make([]byte, 32)}}
	commit := &types.Commit{Height: 5, BlockID: id}
	for i, v := range set.Validators {
		key := keys[slices.IndexFunc(keys, func(k ed25519.PrivKey) bool { return k.PubKey().Address().String() == v.Address.String() })]
		vote := &cmtproto.Vote{Type: cmtproto.PrecommitType, Height: 5, BlockID: id.ToProto(), Timestamp: time.Unix(1_700_000_000+int64(i), 0).UTC(), ValidatorAddress: v.Address, ValidatorIndex: int32(i)}
		signature, err := key.Sign(types.VoteSignBytes("chain", vote))
		if err != nil {
			t.Fatal(err)
		}
		commit.Signatures = append(commit.Signatures, types.CommitSig{BlockIDFlag: types.BlockIDFlagCommit, ValidatorAddress: v.Address, Timestamp: vote.Timestamp, Signature: signature})
	}
	if got := onlyValid("chain", &types.LightBlock{SignedHeader: &types.SignedHeader{Commit: commit}, ValidatorSet: set}); !slices.EqualFunc(got.Signatures, commit.Signatures, func(a, b types.CommitSig) bool { return a.String() == b.String() }) {
		t.Errorf("a commit that is right became %v", got)
	}
	for name, lie := range map[string]func(*types.CommitSig){
		"another signature": func(s *types.CommitSig) { s.Signature[0] ^= 1 },
		"another time":      func(s *types.CommitSig) { s.Timestamp = s.Timestamp.Add(1) },
		"another validator": func(s *types.CommitSig) { s.ValidatorAddress = set.Validators[0].Address },
		"for nil":           func(s *types.CommitSig) { s.BlockIDFlag = types.BlockIDFlagNil },
	} {
		forged := commit.Clone()
		forged.Signatures[3].Signature = slices.Clone(forged.Signatures[3].Signature)
		lie(&forged.Signatures[3])
		got := onlyValid("chain", &types.LightBlock{SignedHeader: &types.SignedHeader{Commit: forged}, ValidatorSet: set})
		if err := set.VerifyCommit("chain", id, 5, got); err != nil || got.Signatures[3].BlockIDFlag != types.BlockIDFlagAbsent {
			t.Errorf("%s: %v, %v", name, got.Signatures[3], err)
		}
		if set.VerifyCommit("chain", id, 5, forged) == nil {
			t.Errorf("%s: the commit is no lie", name)
		}
	}
}
