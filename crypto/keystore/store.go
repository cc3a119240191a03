// Package keystore keeps the private keys of accounts on a disk: one encrypted file per account, in a folder that only
// its owner can enter, and recovery phrases of 24 words that bring the accounts back without the files.
//
// A file is one account, and an account is a policy of one or more keys: a hybrid account of an ed25519 and an ML-DSA-65 key
// has one name, one address, one passphrase. The names of accounts, their addresses and public keys are readable by
// whoever reads the file; seeds and words are not.
//
// Losing a file costs nothing while the words are on paper; losing both loses the account. A crash at any point leaves
// either the whole file or none under its name.
package keystore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Errors that a caller tells apart with errors.Is.
var (
	ErrExists   = errors.New("a key of this name exists already")
	ErrNotFound = errors.New("no key of this name")
)

// MaxNameLength is the most characters of a key's name.
const MaxNameLength = 64

const suffix = ".json"

// checkName allows what is a file name everywhere and an argument nowhere: lower-case letters, digits, "_" and "-", the
// first a letter or digit.
func checkName(name string) error {
	bad := len(name) == 0 || len(name) > MaxNameLength || name[0] == '_' || name[0] == '-'
	for i := range len(name) {
		c := name[i]
		bad = bad || (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-'
	}
	if bad {
		return fmt.Errorf("key name %q: want 1 to %d of a-z, 0-9, _ and -, beginning with a letter or digit", name, MaxNameLength)
	}
	return nil
}

// Hybrid is the kind of an account that needs an ed25519 and an ML-DSA-65 signature for everything: safe while either
// scheme is.
const Hybrid = "hybrid"

// Spec says what keys an account has.
type Spec struct {
	Kind    string // the name of a scheme, or Hybrid
	Account uint32 // account number in the path below the recovery phrase, 0 to 2^31-1
}

// schemes returns the schemes of the keys; all of them have to sign.
func (s Spec) schemes() ([]crypto.Scheme, error) {
	if s.Kind == Hybrid {
		return []crypto.Scheme{crypto.Ed25519, crypto.MLDSA65}, nil
	}
	scheme, err := crypto.ParseScheme(s.Kind)
	if err != nil {
		return nil, fmt.Errorf("%w, or %s", err, Hybrid)
	}
	return []crypto.Scheme{scheme}, nil
}

// Store is a folder of key files. It holds no state of its own: any number of goroutines and processes may use a folder
// at once.
type Store struct {
	dir  string
	cost Cost
}

// Option changes what Open makes.
type Option func(*Store)

// WithCost sets the cost of new files; see DefaultCost and CheapCost. Old files keep theirs.
func WithCost(c Cost) Option { return func(s *Store) { s.cost = c } }

// Open opens a folder, and makes it when it is missing. A folder that others may enter is refused.
func Open(dir string, options ...Option) (*Store, error) {
	s := &Store{dir: dir, cost: DefaultCost}
	for _, o := range options {
		o(s)
	}
	if err := s.cost.check(); err != nil {
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open keystore %s: not a folder", dir)
	}
	if othersMay(info) {
		return nil, fmt.Errorf("open keystore %s: others may enter it (mode %#o); run: chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return s, nil
}

// othersMay tells whether group or others have any right. Windows has no such bits, and Go reports all of them as set.
func othersMay(info fs.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}

// Info is what a key file says without the passphrase. Only the passphrase proves it: before trusting the address of a
// folder that others could write to, Unlock.
type Info struct {
	Name    string
	Address crypto.Address
	Policy  crypto.Policy
	Err     error // why the file cannot be used; the fields above, but for Name, are then empty
}

// Create makes a new account from fresh randomness and returns its recovery phrase, to be written on paper. The phrase can
// be shown again with [Store.Words].
func (s *Store) Create(name string, spec Spec, passphrase string) (info Info, phrase string, err error) {
	entropy := make([]byte, EntropySize)
	rand.Read(entropy) // never errs: without randomness the process dies
	if info, err = s.make(name, spec, entropy, "", passphrase); err != nil {
		return Info{}, "", fmt.Errorf("create key %q: %w", name, err)
	}
	return info, encodeMnemonic(entropy), nil
}

// Recover makes the account of a recovery phrase of 24 words. The BIP-39 passphrase, mostly empty, is part of the secret
// and stored nowhere; passphrase is that of the file and may be a new one. Kind and account must be those of old, or
// another account comes out: compare the address.
func (s *Store) Recover(name string, spec Spec, phrase, bip39Passphrase, passphrase string) (Info, error) {
	entropy, err := decodeMnemonic(phrase)
	if err == nil && len(entropy) != EntropySize {
		err = fmt.Errorf("recovery phrase: shorter than 24 words, which carries only %d bits", 8*len(entropy))
	}
	var info Info
	if err == nil {
		info, err = s.make(name, spec, entropy, bip39Passphrase, passphrase)
	}
	if err != nil {
		return Info{}, fmt.Errorf("recover key %q: %w", name, err)
	}
	return info, nil
}

func (s *Store) make(name string, spec Spec, entropy []byte, bip39Passphrase, passphrase string) (Info, error) {
	if err := checkName(name); err != nil {
		return Info{}, err
	}
	if _, err := os.Lstat(s.path(name)); err == nil { // write decides; this spares the work and the words
		return Info{}, ErrExists
	}
	schemes, err := spec.schemes()
	if err != nil {
		return Info{}, err
	}
	root, err := mnemonicSeed(entropy, bip39Passphrase)
	if err != nil {
		return Info{}, err
	}
	defer clear(root)
	var keys []crypto.Key
	seeds := map[string][]byte{} // by public key; looked up, never ranged over
	for _, scheme := range schemes {
		seed, err := derive(scheme, root, spec.Account)
		if err != nil {
			return Info{}, err
		}
		private, err := crypto.NewPrivateKey(scheme, seed)
		if err != nil {
			return Info{}, err
		}
		keys = append(keys, crypto.Key{Scheme: scheme, Public: private.Public(), Weight: 1})
		seeds[string(private.Public())] = seed
	}
	policy, err := crypto.NewPolicy(uint32(len(keys)), keys...)
	if err != nil {
		return Info{}, err
	}
	hidden := secret{path: Path(spec.Account), entropy: entropy}
	for _, k := range policy.Keys {
		hidden.seeds = append(hidden.seeds, seeds[string(k.Public)])
	}
	content, err := seal(name, policy, hidden, s.cost, passphrase)
	if err != nil {
		return Info{}, err
	}
	if err := s.write(name, content); err != nil {
		return Info{}, err
	}
	return Info{Name: name, Address: policy.Address(), Policy: policy}, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name+suffix) }

// write puts a whole file under a name that must be free. The bytes are on the disk before the name is, and the name is
// given by a hard link, which unlike a rename never replaces a file: of two writers one wins, also between processes.
// A crash leaves at most a temporary file, whose name begins with a dot and which nobody reads.
func (s *Store) write(name string, content []byte) (err error) {
	temporary, err := os.CreateTemp(s.dir, ".new-*") // mode 0600, O_EXCL
	if err != nil {
		return fmt.Errorf("make a temporary file: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(content)
	if err == nil {
		err = temporary.Sync()
	}
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", temporary.Name(), err)
	}
	if err := os.Link(temporary.Name(), s.path(name)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return ErrExists
		}
		return fmt.Errorf("name the key file: %w", err)
	}
	return s.syncDir()
}

// syncDir makes names durable. After an error the file may or may not be there after a power loss; it is never half there.
func (s *Store) syncDir() error {
	if runtime.GOOS == "windows" { // cannot sync a folder
		return nil
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("open the folder to sync it: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	return nil
}

// read returns the content of a key file with what it says without the passphrase.
func (s *Store) read(name string) ([]byte, keyFile, crypto.Policy, error) {
	fail := func(err error) ([]byte, keyFile, crypto.Policy, error) { return nil, keyFile{}, crypto.Policy{}, err }
	if err := checkName(name); err != nil {
		return fail(err)
	}
	info, err := os.Lstat(s.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(ErrNotFound)
	case err != nil:
		return fail(err)
	case !info.Mode().IsRegular(): // a link could lead out of the folder, a pipe would block
		return fail(fmt.Errorf("%w: not a regular file", ErrDamaged))
	case othersMay(info):
		return fail(fmt.Errorf("others may read %s (mode %#o); run: chmod 600 %s", s.path(name), info.Mode().Perm(), s.path(name)))
	case info.Size() > maxFileSize:
		return fail(fmt.Errorf("%w: %d bytes, at most %d", ErrDamaged, info.Size(), maxFileSize))
	}
	opened, err := os.Open(s.path(name))
	if err != nil {
		return fail(err)
	}
	defer opened.Close()
	content, err := io.ReadAll(io.LimitReader(opened, maxFileSize+1)) // it may have grown since
	if err != nil {
		return fail(err)
	}
	f, p, err := decodeFile(content)
	if err != nil {
		return fail(err)
	}
	if f.Name != name {
		return fail(fmt.Errorf("%w: the file is that of key %q", ErrDamaged, f.Name))
	}
	return content, f, p, nil
}

// List returns all keys by ascending name, without any passphrase. A file that cannot be used does not hide the others; its
// Info has the reason.
func (s *Store) List() ([]Info, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list keystore %s: %w", s.dir, err)
	}
	var infos []Info
	for _, e := range entries {
		name, isKey := strings.CutSuffix(e.Name(), suffix)
		if !isKey || checkName(name) != nil {
			continue
		}
		_, _, p, err := s.read(name)
		if err != nil {
			infos = append(infos, Info{Name: name, Err: fmt.Errorf("key %q: %w", name, err)})
			continue
		}
		infos = append(infos, Info{Name: name, Address: p.Address(), Policy: p})
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// Signer is an unlocked account. Any number of goroutines may use it. The secrets stay in the memory of the process
// until it ends: Go gives no way to erase them for sure.
type Signer struct {
	name    string
	policy  crypto.Policy
	private []crypto.PrivateKey // in the order of the policy
}

// Name returns the name of the key file.
func (s *Signer) Name() string { return s.name }

// Policy returns the policy that the account was made with. On the ledger it may have another since.
func (s *Signer) Policy() crypto.Policy { return s.policy }

// Address returns the account's address.
func (s *Signer) Address() crypto.Address { return s.policy.Address() }

// Sign signs a message, domain in front, with the policy's key at an index.
func (s *Signer) Sign(index int, message []byte) ([]byte, error) {
	if index < 0 || index >= len(s.private) {
		return nil, fmt.Errorf("sign with key %q: index %d, but it has %d keys", s.name, index, len(s.private))
	}
	return s.private[index].Sign(message)
}

// Unlock decrypts a key. It takes the time and the memory of the file's cost. The error is ErrNotFound, ErrPassphrase,
// ErrDamaged, or one of the disk.
func (s *Store) Unlock(name, passphrase string) (*Signer, error) {
	_, _, signer, err := s.unlock(name, passphrase)
	if err != nil {
		return nil, fmt.Errorf("unlock key %q: %w", name, err)
	}
	return signer, nil
}

func (s *Store) unlock(name, passphrase string) ([]byte, secret, *Signer, error) {
	content, f, p, err := s.read(name)
	if err != nil {
		return nil, secret{}, nil, err
	}
	hidden, private, err := f.open(p, passphrase)
	if err != nil {
		return nil, secret{}, nil, err
	}
	return content, hidden, &Signer{name: name, policy: p, private: private}, nil
}

// Words returns the recovery phrase of a key and its path, for the owner's eyes. With a BIP-39 passphrase the words alone
// do not bring the account back.
func (s *Store) Words(name, passphrase string) (phrase, path string, err error) {
	_, hidden, _, err := s.unlock(name, passphrase)
	if err == nil && len(hidden.entropy) == 0 {
		err = errors.New("it was not made from a recovery phrase")
	}
	if err != nil {
		return "", "", fmt.Errorf("show the words of key %q: %w", name, err)
	}
	return encodeMnemonic(hidden.entropy), hidden.path, nil
}

// Export returns a key as bytes for [Store.Import] on another machine: the file itself, still encrypted. The passphrase is
// asked for so that nobody carries away a backup that does not open.
func (s *Store) Export(name, passphrase string) ([]byte, error) {
	content, _, _, err := s.unlock(name, passphrase)
	if err != nil {
		return nil, fmt.Errorf("export key %q: %w", name, err)
	}
	return content, nil
}

// Import stores what Export returned, under the name that it has in there, which must be free. It is stored as it is, at
// the cost that it was made with.
func (s *Store) Import(portable []byte, passphrase string) (Info, error) {
	f, p, err := decodeFile(portable)
	if err == nil {
		_, _, err = f.open(p, passphrase)
	}
	if err == nil {
		err = s.write(f.Name, portable)
	}
	if err != nil {
		return Info{}, fmt.Errorf("import key %q: %w", f.Name, err)
	}
	return Info{Name: f.Name, Address: p.Address(), Policy: p}, nil
}

// Delete removes a key. It asks for the passphrase as a proof of intent; whoever forgot it can still remove the file.
func (s *Store) Delete(name, passphrase string) error {
	_, _, _, err := s.unlock(name, passphrase)
	if err == nil {
		err = os.Remove(s.path(name))
	}
	if err == nil {
		err = s.syncDir()
	}
	if err != nil {
		return fmt.Errorf("delete key %q: %w", name, err)
	}
	return nil
}
