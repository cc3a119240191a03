package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/mldsa65"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/types"
)

// A validator gets another key in three steps: the new one is made beside the one in use (NewNextKey), the operators vote it
// into the set, and the node takes it into use at the first height in whose set it is, running or at its next start.
//
// On the disk that last step is one rename, of the next key over the one in use, after a copy of the old one was made. The
// home has one sign state, whichever key it is: what the old key has signed binds the new one too, which is stricter than a
// fresh state and leaves nothing between two renames. So at every moment the home has a key and a sign state that it may
// start with: before the rename the old key and its state, after it the new key, which signs only above that state.

// NextValidatorKey returns the path of the key that is to follow the validator's.
func (h Home) NextValidatorKey() string {
	return filepath.Join(string(h), "config", "priv_validator_key.next.json")
}

// RetiredValidatorKey returns the path at which a key is kept that was followed by another.
func (h Home) RetiredValidatorKey(address []byte) string {
	return filepath.Join(string(h), "config", fmt.Sprintf("priv_validator_key.retired-%X.json", address))
}

func newKey(keyType string) (cmtcrypto.PrivKey, error) {
	switch keyType {
	case KeyEd25519:
		return cmted25519.GenPrivKey(), nil
	case KeyMLDSA65:
		k, err := mldsa65.GenPrivKey()
		if err != nil {
			return nil, fmt.Errorf("making a validator key: %w", err)
		}
		return k, nil
	}
	return nil, fmt.Errorf("validator key type %q, want %s or %s", keyType, KeyEd25519, KeyMLDSA65)
}

// NewNextKey makes the key that is to follow. One that is there already is kept and returned: a proposal may name it. Of a
// running node no lock is needed: it takes the file up when it is there.
func (h Home) NewNextKey(keyType string) (Validator, error) {
	if _, err := os.Stat(h.ValidatorKey()); err != nil {
		return Validator{}, fmt.Errorf("this home has no validator key that another one could follow: %w", err)
	}
	_, err := os.Lstat(h.NextValidatorKey())
	if err == nil {
		v, err := h.NextValidator()
		if err == nil && v.KeyType != keyType {
			err = fmt.Errorf("%s exists, with a key of type %s: remove it if no proposal names it, %s", h.NextValidatorKey(), v.KeyType, v.Address)
		}
		return v, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Validator{}, fmt.Errorf("looking for the next validator key: %w", err)
	}
	key, err := newKey(keyType)
	if err != nil {
		return Validator{}, err
	}
	if err := saveKey(key, h.NextValidatorKey()); err != nil {
		return Validator{}, err
	}
	return h.NextValidator()
}

// NextValidator reads the key that is to follow. Without one the error is fs.ErrNotExist.
func (h Home) NextValidator() (Validator, error) { return readValidator(h.NextValidatorKey()) }

// ProvePossession signs a message that says whose key it is with the validator's key, or with the one that is to follow. The
// message has a domain of its own, so that no signature of a vote is one of it, nor the other way round.
func (h Home) ProvePossession(next bool, message []byte) ([]byte, error) {
	path := h.ValidatorKey()
	if next {
		path = h.NextValidatorKey()
	}
	key, err := readKey(path)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(message)
	if err != nil {
		return nil, fmt.Errorf("signing with the validator's key: %w", err)
	}
	return signature, nil
}

// readKey reads a validator key's file. CometBFT's own loader exits the process on a bad file.
func readKey(path string) (cmtcrypto.PrivKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a validator key: %w", err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var key privval.FilePVKey
	if err := cmtjson.Unmarshal(text, &key); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if key.PrivKey == nil {
		return nil, fmt.Errorf("%s has no priv_key", path)
	}
	return key.PrivKey, nil
}

// saveKey writes a validator key's file, durably, as a whole or not at all.
func saveKey(key cmtcrypto.PrivKey, path string) error {
	text, err := cmtjson.MarshalIndent(privval.FilePVKey{Address: key.PubKey().Address(), PubKey: key.PubKey(), PrivKey: key}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding a validator key: %w", err)
	}
	return writeSynced(path, text)
}

// writeSynced writes a file, durably, as a whole or not at all.
func writeSynced(path string, text []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(next, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// syncDir makes renames in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ResetSignState writes a sign state that lets the key sign nothing at or below a height, for a home that has lost its own, or
// whose own is from a backup. Whether the height is safe is for the caller to know: no other process may have signed above it.
// It is asked for the height when this process holds the home, so no node runs on it meanwhile. What is there and goes further
// is kept, for a sign state never goes back.
func (h Home) ResetSignState(safe func() (height int64, err error)) error {
	release, err := h.lock()
	if err != nil {
		return err
	}
	defer release()
	key, err := readKey(h.ValidatorKey())
	if err != nil {
		return err
	}
	height, err := safe()
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(h.SignState()); err == nil {
		var have privval.FilePVLastSignState
		if cmtjson.Unmarshal(text, &have) == nil && have.Height > height {
			return fmt.Errorf("%s forbids everything up to height %d already, and never goes back to %d", h.SignState(), have.Height, height)
		}
	}
	const precommit = 3 // CometBFT's last step of a round
	pv := privval.NewFilePV(key, h.ValidatorKey(), h.SignState())
	pv.LastSignState.Height, pv.LastSignState.Round, pv.LastSignState.Step = height, math.MaxInt32, precommit
	text, err := cmtjson.MarshalIndent(&pv.LastSignState, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the sign state: %w", err)
	}
	return writeSynced(h.SignState(), text)
}

// promoteStep is called before each step of a promotion; nil but in tests, which end there.
var promoteStep func(step string) error

// promote makes the next key the home's, and keeps the old one aside. What signs afterwards begins with the sign state of the
// old key, without its signature, which would not be one of the new key.
func (h Home) promote(old *privval.FilePV, next cmtcrypto.PrivKey) (*privval.FilePV, error) {
	step := func(name string) error {
		if promoteStep == nil {
			return nil
		}
		return promoteStep(name)
	}
	if err := step("keep the old key"); err != nil {
		return nil, err
	}
	if err := saveKey(old.Key.PrivKey, h.RetiredValidatorKey(old.Key.Address)); err != nil {
		return nil, err
	}
	// A crash here leaves both files and the old key in use; the next start does the same again.
	if err := step("rename the next key"); err != nil {
		return nil, err
	}
	if err := os.Rename(h.NextValidatorKey(), h.ValidatorKey()); err != nil {
		return nil, fmt.Errorf("making the next validator key the one in use: %w", err)
	}
	if err := syncDir(filepath.Dir(h.ValidatorKey())); err != nil {
		return nil, fmt.Errorf("making the next validator key the one in use: %w", err)
	}
	// A crash here leaves the new key with a sign state that forbids all that the old one has signed.
	if err := step("sign"); err != nil {
		return nil, err
	}
	pv := privval.NewFilePV(next, h.ValidatorKey(), h.SignState())
	pv.LastSignState.Height, pv.LastSignState.Round, pv.LastSignState.Step = old.LastSignState.Height, old.LastSignState.Round, old.LastSignState.Step
	return pv, nil
}

// lookForNext takes up a next key that was made while the node runs, drops one that was removed, and has consensus change over
// when the set has it. Consensus itself asks after each block that it makes (guard.GetPubKey); what is left for here is the
// height at which block sync hands over to consensus.
func (n *Node) lookForNext(g *guard) {
	key, err := readKey(n.home.NextValidatorKey())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if n.badNext != err.Error() {
			n.badNext = err.Error()
			n.log.Error("read the next validator key; mend or remove the file", "err", err)
		}
		return
	}
	n.badNext = ""
	if g.follow(key) {
		if key == nil {
			n.log.Warn("the next validator key was removed before it was in the set", "file", n.home.NextValidatorKey())
		} else {
			n.log.Info("the next validator key waits until it is in the set", "validator", key.PubKey().Address().String(), "key_type", key.Type())
		}
	}
	if address := g.following(); address != nil && n.consensus != nil {
		if set := n.consensus.GetRoundState().Validators; set != nil && set.HasAddress(address) {
			n.consensus.SetPrivValidator(g) // which asks for the public key, under consensus's lock
		}
	}
}

// takeUp is the guard's promote.
func (n *Node) takeUp(old *privval.FilePV) func(next cmtcrypto.PrivKey) (types.PrivValidator, error) {
	return func(next cmtcrypto.PrivKey) (types.PrivValidator, error) {
		pv, err := n.home.promote(old, next)
		if err != nil {
			return nil, err
		}
		n.signsWith(pv.Key.Address)
		n.log.Info("sign with the next validator key from now on", "validator", pv.Key.Address.String(), "key_type", pv.Key.PubKey.Type(), "retired", old.Key.Address.String())
		// A copy of this home that has the new key must find it taken, as the old one was. The lock ends with the process.
		if lock, err := flock(n.home.ValidatorKey(), os.O_RDONLY); err != nil {
			n.log.Error("lock the new validator key", "err", err)
		} else {
			n.keyLock.Store(lock)
		}
		old = pv
		return pv, nil
	}
}
