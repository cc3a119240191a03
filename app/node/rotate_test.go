package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/genesis"
)

// rotating is a home with a key that is to follow, and a guard over it whose consensus is what the test says.
type rotating struct {
	home     Home
	old, new []byte // addresses
	guard    *guard
	height   int64
	set      *types.ValidatorSet
	stopped  error
}

func newRotating(t *testing.T, keyType string) *rotating {
	t.Helper()
	r := &rotating{home: Home(t.TempDir())}
	v, err := NewHome(r.home, quick(), KeyEd25519)
	if err != nil {
		t.Fatal(err)
	}
	next, err := r.home.NewNextKey(keyType)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.home.NewNextKey(keyType)
	if err != nil || again.Address != next.Address {
		t.Fatalf("made twice: %s and then %s, %v", next.Address, again.Address, err)
	}
	r.old, r.new = v.Address, r.key(t, r.home.NextValidatorKey()).PubKey().Address()
	r.open(t)
	r.at(1, r.old)
	return r
}

func (r *rotating) key(t *testing.T, path string) cmtcrypto.PrivKey {
	t.Helper()
	key, err := readKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// open is the start of a node.
func (r *rotating) open(t *testing.T) {
	t.Helper()
	pv, err := r.home.loadValidator()
	if err != nil {
		t.Fatal(err)
	}
	r.stopped = nil
	r.guard = &guard{PrivValidator: pv, address: pv.Key.Address, signed: pv.LastSignState.Height, look: 10, own: map[int64][][]byte{},
		commit: func(int64) *types.Commit { return nil }, decided: func(int64, int32) bool { return false }, forbidden: func(err error) { r.stopped = err },
		round: func() (int64, *types.ValidatorSet) { return r.height, r.set }}
	r.guard.promote = func(next cmtcrypto.PrivKey) (types.PrivValidator, error) { return r.home.promote(pv, next) }
	if next, err := readKey(r.home.NextValidatorKey()); err == nil {
		r.guard.follow(next)
	}
}

// at moves consensus to a height whose set is the keys with these addresses.
func (r *rotating) at(height int64, members ...[]byte) {
	r.height, r.set = height, &types.ValidatorSet{}
	for _, m := range members {
		r.set.Validators = append(r.set.Validators, &types.Validator{Address: m, VotingPower: 10})
	}
}

// votes asks for the key, as consensus does after a block, and signs with it; it returns whose the signature is.
func (r *rotating) votes(t *testing.T) []byte {
	t.Helper()
	key, err := r.guard.GetPubKey()
	if err != nil {
		t.Fatal(err)
	}
	vote := cmtproto.Vote{Type: cmtproto.PrecommitType, Height: r.height, ValidatorAddress: key.Address(), Timestamp: time.Unix(r.height, 0),
		BlockID: cmtproto.BlockID{Hash: bytes.Repeat([]byte{1}, 32), PartSetHeader: cmtproto.PartSetHeader{Total: 1, Hash: bytes.Repeat([]byte{2}, 32)}}}
	if err := r.guard.SignVote("chain", &vote); err != nil {
		t.Fatal(err)
	}
	if !key.VerifySignature(types.VoteSignBytes("chain", &vote), vote.Signature) {
		t.Fatalf("height %d: the signature is not one of %X", r.height, key.Address())
	}
	return key.Address()
}

// TestRotate: the next key signs from the first height in whose set it is, and never where the old one has signed.
func TestRotate(t *testing.T) {
	for _, keyType := range []string{KeyEd25519, KeyMLDSA65} {
		r := newRotating(t, keyType)
		for h := int64(1); h <= 3; h++ {
			r.at(h, r.old)
			if !bytes.Equal(r.votes(t), r.old) {
				t.Fatalf("height %d is signed by the next key", h)
			}
		}
		// Were both in the set in the middle of a height that the old one has signed, that height stays the old one's.
		r.at(3, r.old, r.new)
		if !bytes.Equal(r.votes(t), r.old) {
			t.Fatal("both keys signed height 3")
		}
		r.at(4, r.new)
		for h := int64(4); h <= 6; h++ {
			r.at(h, r.new)
			if !bytes.Equal(r.votes(t), r.new) {
				t.Fatalf("height %d is not signed by the next key", h)
			}
		}
		// The home is that of the new key, at every later start.
		r.open(t)
		if v, err := r.home.Validator(); err != nil || v.Address != fmt.Sprintf("%X", r.new) || v.KeyType != keyType || r.guard.signed != 6 {
			t.Errorf("the home has %+v, %v, signed up to %d", v, err, r.guard.signed)
		}
		if _, err := r.home.NextValidator(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the next key is still there: %v", err)
		}
		if old := r.key(t, r.home.RetiredValidatorKey(r.old)); !bytes.Equal(old.PubKey().Address(), r.old) {
			t.Error("the old key is lost")
		}
	}
}

// TestRotateCrash ends the process before each step of a promotion: the home starts again, the key and the sign state never
// let a height be signed twice, and the change over is made then.
func TestRotateCrash(t *testing.T) {
	defer func() { promoteStep = nil }()
	for i, step := range []string{"keep the old key", "rename the next key", "sign"} {
		r := newRotating(t, KeyEd25519)
		r.at(5, r.old)
		r.votes(t)
		promoteStep = func(s string) error {
			if s == step {
				return errors.New("the process ends here")
			}
			return nil
		}
		r.at(6, r.new)
		if _, err := r.guard.GetPubKey(); err == nil || r.stopped == nil {
			t.Fatalf("%s: goes on with %v, %v", step, err, r.stopped)
		}
		// Nobody looks for another node that has the key.
		n := &Node{failed: make(chan error, 1)}
		n.mayNotSign(r.stopped)
		exitsWith(t, <-n.failed, 10, "taking the next validator key into use at height 6")
		// Whatever the disk has now is all that is left.
		promoteStep = nil
		r.open(t)
		if r.guard.signed != 5 {
			t.Errorf("%s: the sign state is %d, want 5", step, r.guard.signed)
		}
		if renamed := i == 2; bytes.Equal(r.guard.address, r.new) != renamed {
			t.Errorf("%s: starts with key %X", step, r.guard.address)
		}
		if !bytes.Equal(r.votes(t), r.new) {
			t.Errorf("%s: height 6 is not signed by the next key", step)
		}
		if files, _ := filepath.Glob(filepath.Join(string(r.home), "config", "*.new")); len(files) > 0 {
			t.Errorf("%s: leaves %v", step, files)
		}
	}
}

// reaches waits for a height, and stops the node.
func (r *running) reaches(height uint64) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("height %d", height), func() bool { _, h := r.get("/livez"); return h.Height >= height })
	r.stop()
	if err := r.end(); err != nil {
		r.t.Fatal(err)
	}
}

// TestRotateAtStart: a node whose next key has come into the set while it was down takes it into use at its start. Its
// network has no other validator, so that without it there would be no block.
func TestRotateAtStart(t *testing.T) {
	n := newNet(t, KeyEd25519)
	next, err := n.home.NewNextKey(KeyMLDSA65)
	if err != nil {
		t.Fatal(err)
	}
	key, err := readKey(n.home.NextValidatorKey())
	if err != nil {
		t.Fatal(err)
	}
	old := n.doc.Validators[0].Address
	n.doc.Validators = []types.GenesisValidator{{Address: key.PubKey().Address(), PubKey: key.PubKey(), Power: 10}}
	if err := genesis.Save(n.doc, n.home.Genesis()); err != nil {
		t.Fatal(err)
	}
	r := n.start(t)
	r.reaches(2)
	if v, err := n.home.Validator(); err != nil || v.Address != next.Address {
		t.Errorf("the home has key %s, %v, want %s", v.Address, err, next.Address)
	}
	if _, err := os.Stat(n.home.RetiredValidatorKey(old)); err != nil {
		t.Error(err)
	}
	r = n.start(t)
	r.reaches(4)
}

// TestBadNextKey: a broken file of the next key is an error in the log, and the node goes on with the key that it has.
func TestBadNextKey(t *testing.T) {
	n := newNet(t, KeyEd25519)
	if err := os.WriteFile(n.home.NextValidatorKey(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.home.NewNextKey(KeyEd25519); err == nil || !strings.Contains(err.Error(), "has no priv_key") {
		t.Errorf("over a broken file: %v", err)
	}
	r := n.start(t)
	r.reaches(2)
}
