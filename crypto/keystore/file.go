package keystore

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/text/unicode/norm"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Errors that a caller tells apart with errors.Is.
var (
	// ErrPassphrase is what unlocking says when the content does not open. A wrong passphrase and a changed file cannot
	// be told apart: the passphrase's key is the only witness for the content.
	ErrPassphrase = errors.New("wrong passphrase, or the key file was changed")

	// ErrDamaged is a file that is not a key file of this version, found without the passphrase.
	ErrDamaged = errors.New("not a valid key file")
)

// Limits on what is read, checked before any of it is used. A hostile file must not cost more than an honest one.
const (
	maxFileSize      = 1 << 20 // a policy of 16 ML-DSA-65 keys takes 63 KB in hex
	maxSecretSize    = 1024    // 16*(2+32) of seeds, 2+32 of path, 2+32 of entropy and 16 of tag make 628
	maxPassphrase    = 1024
	saltSize         = 16
	cipherName       = "xchacha20-poly1305"
	kdfName          = "argon2id"
	fileVersion      = 1
	headerDomain     = "pacioli.keyfile.v1\x00"
	minMemoryKiB     = 8 << 10 // 8 MiB
	maxMemoryKiB     = 1 << 20 // 1 GiB
	maxTime          = 10
	maxParallelism   = 16
	maxDerivationLen = 64
)

// Cost is what guessing one passphrase takes, to us and to a thief. It is written into every file, so files of different
// cost live side by side.
type Cost struct {
	Time        uint32 `json:"time"`        // passes over the memory, 1 to 10
	MemoryKiB   uint32 `json:"memory_kib"`  // 8 MiB to 1 GiB
	Parallelism uint8  `json:"parallelism"` // 1 to 16
}

// DefaultCost is the second recommendation of RFC 9106: 64 MiB, three passes, four lanes. A try takes about a tenth of a
// second of a desktop's four cores.
var DefaultCost = Cost{Time: 3, MemoryKiB: 64 << 10, Parallelism: 4}

// CheapCost is the least that a file may have. It is for tests and local networks whose money is worth nothing.
var CheapCost = Cost{Time: 1, MemoryKiB: minMemoryKiB, Parallelism: 1}

func (c Cost) check() error {
	switch {
	case c.Time < 1 || c.Time > maxTime:
		return fmt.Errorf("kdf.time is %d, want 1 to %d", c.Time, maxTime)
	case c.MemoryKiB < minMemoryKiB || c.MemoryKiB > maxMemoryKiB:
		return fmt.Errorf("kdf.memory_kib is %d, want %d to %d", c.MemoryKiB, minMemoryKiB, maxMemoryKiB)
	case c.Parallelism < 1 || c.Parallelism > maxParallelism:
		return fmt.Errorf("kdf.parallelism is %d, want 1 to %d", c.Parallelism, maxParallelism)
	}
	return nil
}

// hexText is bytes that JSON shows as lower-case hex.
type hexText []byte

func (h hexText) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexText) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// keyFile is the JSON on the disk. Everything but the ciphertext is readable without the passphrase, and bound to the
// ciphertext: it goes into the cipher as associated data. The policy is the one that the account began with, and has neither
// a change threshold nor a recovery account: an account takes those on later, and the ledger remembers them.
type keyFile struct {
	Version    int            `json:"version"`
	Name       string         `json:"name"`
	Address    crypto.Address `json:"address"`
	Threshold  uint32         `json:"threshold"`
	Keys       []fileKey      `json:"keys"`
	KDF        fileKDF        `json:"kdf"`
	Cipher     fileCipher     `json:"cipher"`
	Ciphertext hexText        `json:"ciphertext"`
}

type fileKey struct {
	Scheme    string  `json:"scheme"`
	PublicKey hexText `json:"public_key"`
	Weight    uint32  `json:"weight"`
}

type fileKDF struct {
	Name string `json:"name"`
	Cost
	Salt hexText `json:"salt"`
}

type fileCipher struct {
	Name  string  `json:"name"`
	Nonce hexText `json:"nonce"`
}

// secret is what the ciphertext hides:
//
//	Secret { repeated bytes seeds = 1; string path = 2; bytes entropy = 3; }
//
// The seeds stand in the order of the policy's keys. Path and entropy are there for keys that came from a recovery
// phrase: the entropy is kept so that its owner can see the words again. Whoever opens the file has the money anyway;
// what the entropy adds is the other accounts of the phrase, unless a BIP-39 passphrase, never stored, guards them.
type secret struct {
	seeds   [][]byte
	path    string
	entropy []byte
}

func (s secret) encode() []byte {
	w := canonical.NewWriter(nil)
	for _, seed := range s.seeds {
		w.Message(1, seed)
	}
	w.String(2, s.path)
	w.Bytes(3, s.entropy)
	return w.Done()
}

func decodeSecret(b []byte) (secret, error) {
	var s secret
	r := canonical.NewReader(b)
	r.Repeated(1, "seeds", crypto.MaxPolicyKeys, func(_ int, seed []byte) error {
		if len(seed) != crypto.SeedSize {
			return canonical.Errorf("", "%d bytes, want %d", len(seed), crypto.SeedSize)
		}
		s.seeds = append(s.seeds, bytes.Clone(seed))
		return nil
	})
	s.path = r.String(2, "path", maxDerivationLen)
	s.entropy = bytes.Clone(r.Bytes(3, "entropy", EntropySize))
	if err := r.Close(); err != nil {
		return secret{}, err
	}
	if n := len(s.entropy); n != 0 && n != EntropySize {
		return secret{}, canonical.Errorf("entropy", "%d bytes, want %d", n, EntropySize)
	}
	return s, nil
}

// associatedData returns the canonical bytes of the header, behind a domain of their own:
//
//	Header { uint32 version = 1; string name = 2; bytes policy = 3; KDF kdf = 4; Cipher cipher = 5; }
//	KDF    { string name = 1; uint32 time = 2; uint32 memory_kib = 3; uint32 parallelism = 4; bytes salt = 5; }
//	Cipher { string name = 1; bytes nonce = 2; }
//
// The name is in it so that nobody who can write to the folder can swap two accounts; the address follows from the policy.
func (f keyFile) associatedData(p crypto.Policy) []byte {
	kdf := canonical.NewWriter(nil)
	kdf.String(1, f.KDF.Name)
	kdf.Uint32(2, f.KDF.Time)
	kdf.Uint32(3, f.KDF.MemoryKiB)
	kdf.Uint32(4, uint32(f.KDF.Parallelism))
	kdf.Bytes(5, f.KDF.Salt)
	cipher := canonical.NewWriter(nil)
	cipher.String(1, f.Cipher.Name)
	cipher.Bytes(2, f.Cipher.Nonce)
	w := canonical.NewWriter([]byte(headerDomain))
	w.Uint32(1, uint32(f.Version))
	w.String(2, f.Name)
	w.Bytes(3, p.Encode())
	w.Message(4, kdf.Done())
	w.Message(5, cipher.Done())
	return w.Done()
}

// key derives the cipher's key. It needs the memory that the cost says, for as long as it runs.
func (k fileKDF) key(passphrase string) []byte {
	return argon2.IDKey([]byte(norm.NFKD.String(passphrase)), k.Salt, k.Time, k.MemoryKiB, k.Parallelism,
		chacha20poly1305.KeySize)
}

func checkPassphrase(passphrase string) error {
	if passphrase == "" {
		return errors.New("the passphrase is empty")
	}
	if len(passphrase) > maxPassphrase {
		return fmt.Errorf("the passphrase has %d bytes, at most %d", len(passphrase), maxPassphrase)
	}
	return nil
}

// seal encrypts a secret into a key file.
func seal(name string, p crypto.Policy, s secret, cost Cost, passphrase string) ([]byte, error) {
	if err := checkPassphrase(passphrase); err != nil {
		return nil, err
	}
	if err := cost.check(); err != nil {
		return nil, err
	}
	if p.ChangeThreshold != 0 || p.Recovery != nil {
		return nil, errors.New("a key file holds no change threshold and no recovery account: set them on the ledger")
	}
	f := keyFile{
		Version: fileVersion, Name: name, Address: p.Address(), Threshold: p.Threshold,
		KDF:    fileKDF{Name: kdfName, Cost: cost, Salt: make([]byte, saltSize)},
		Cipher: fileCipher{Name: cipherName, Nonce: make([]byte, chacha20poly1305.NonceSizeX)},
	}
	for _, k := range p.Keys {
		f.Keys = append(f.Keys, fileKey{k.Scheme.String(), k.Public, k.Weight})
	}
	rand.Read(f.KDF.Salt) // never errs: without randomness the process dies
	rand.Read(f.Cipher.Nonce)
	key := f.KDF.key(passphrase)
	defer clear(key)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("prepare the cipher of key %q: %w", name, err)
	}
	plain := s.encode()
	defer clear(plain)
	f.Ciphertext = aead.Seal(nil, f.Cipher.Nonce, plain, f.associatedData(p))
	return f.encode()
}

// encode returns the one form that a key file has.
func (f keyFile) encode() ([]byte, error) {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode key file %q: %w", f.Name, err)
	}
	return append(text, '\n'), nil
}

// decodeFile reads a key file and checks everything that needs no passphrase. Errors are ErrDamaged, with the reason.
func decodeFile(content []byte) (keyFile, crypto.Policy, error) {
	f, p, err := parseFile(content)
	if err != nil {
		return keyFile{}, crypto.Policy{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, p, nil
}

func parseFile(content []byte) (keyFile, crypto.Policy, error) {
	var f keyFile
	fail := func(format string, args ...any) (keyFile, crypto.Policy, error) {
		return keyFile{}, crypto.Policy{}, fmt.Errorf(format, args...)
	}
	if len(content) > maxFileSize {
		return fail("%d bytes, at most %d", len(content), maxFileSize)
	}
	if err := json.Unmarshal(content, &f); err != nil {
		return fail("%w", err)
	}
	if f.Version != fileVersion {
		return fail("version is %d, want %d", f.Version, fileVersion)
	}
	// encoding/json forgives unknown and repeated fields and wrong case. We do not: one byte off, and the file is not ours.
	if again, err := f.encode(); err != nil || !bytes.Equal(again, content) {
		return fail("not in the form in which it was written")
	}
	if err := checkName(f.Name); err != nil {
		return fail("%w", err)
	}
	if f.KDF.Name != kdfName {
		return fail("kdf.name is %q, want %q", f.KDF.Name, kdfName)
	}
	if err := f.KDF.Cost.check(); err != nil {
		return fail("%w", err)
	}
	if len(f.KDF.Salt) != saltSize {
		return fail("kdf.salt has %d bytes, want %d", len(f.KDF.Salt), saltSize)
	}
	if f.Cipher.Name != cipherName {
		return fail("cipher.name is %q, want %q", f.Cipher.Name, cipherName)
	}
	if len(f.Cipher.Nonce) != chacha20poly1305.NonceSizeX {
		return fail("cipher.nonce has %d bytes, want %d", len(f.Cipher.Nonce), chacha20poly1305.NonceSizeX)
	}
	if n := len(f.Ciphertext); n > maxSecretSize {
		return fail("ciphertext has %d bytes, at most %d", n, maxSecretSize)
	}
	p := crypto.Policy{Threshold: f.Threshold}
	for i, k := range f.Keys {
		scheme, err := crypto.ParseScheme(k.Scheme)
		if err != nil {
			return fail("keys[%d].scheme: %w", i, err)
		}
		p.Keys = append(p.Keys, crypto.Key{Scheme: scheme, Public: k.PublicKey, Weight: k.Weight})
	}
	if err := p.Check(); err != nil {
		return fail("%w", err)
	}
	if f.Address != p.Address() {
		return fail("address is not that of the keys, which is %s", p.Address())
	}
	return f, p, nil
}

// open decrypts a file that decodeFile returned, and checks that the seeds are those of the public keys.
func (f keyFile) open(p crypto.Policy, passphrase string) (secret, []crypto.PrivateKey, error) {
	if err := checkPassphrase(passphrase); err != nil {
		return secret{}, nil, err
	}
	key := f.KDF.key(passphrase)
	defer clear(key)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return secret{}, nil, fmt.Errorf("prepare the cipher of key %q: %w", f.Name, err)
	}
	plain, err := aead.Open(nil, f.Cipher.Nonce, f.Ciphertext, f.associatedData(p))
	if err != nil {
		return secret{}, nil, ErrPassphrase
	}
	defer clear(plain)
	s, err := decodeSecret(plain)
	if err != nil {
		return secret{}, nil, fmt.Errorf("%w: content: %w", ErrDamaged, err)
	}
	if len(s.seeds) != len(p.Keys) {
		return secret{}, nil, fmt.Errorf("%w: %d secrets for %d keys", ErrDamaged, len(s.seeds), len(p.Keys))
	}
	private := make([]crypto.PrivateKey, len(p.Keys))
	for i, k := range p.Keys {
		if private[i], err = crypto.NewPrivateKey(k.Scheme, s.seeds[i]); err != nil {
			return secret{}, nil, fmt.Errorf("%w: keys[%d]: %w", ErrDamaged, i, err)
		}
		if !bytes.Equal(private[i].Public(), k.Public) {
			return secret{}, nil, fmt.Errorf("%w: keys[%d]: the secret is that of another key", ErrDamaged, i)
		}
	}
	return s, private, nil
}
