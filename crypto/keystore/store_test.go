package keystore

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
)

var update = flag.Bool("update", false, "write testdata/keyfile_v1.json anew; old files must still open")

const passphrase = "correct horse"

func openCheap(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "keys"), WithCost(CheapCost))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t testing.TB, s *Store, name, kind string) Info {
	t.Helper()
	info, _, err := s.Create(name, Spec{Kind: kind}, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestCreateUnlockSign(t *testing.T) {
	s := openCheap(t)
	for _, kind := range []string{"ed25519", "secp256k1", "p256-webauthn", "ml-dsa-44", "ml-dsa-65", Hybrid} {
		info, phrase, err := s.Create(kind, Spec{Kind: kind, Account: 7}, passphrase)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := s.Unlock(kind, passphrase)
		if err != nil {
			t.Fatal(err)
		}
		if signer.Name() != kind || signer.Address() != info.Address || !signer.Policy().Equal(info.Policy) {
			t.Errorf("%s: unlocked another account", kind)
		}
		want := 1
		if kind == Hybrid {
			want = 2
		}
		p := signer.Policy()
		if len(p.Keys) != want || p.Threshold != uint32(want) {
			t.Errorf("%s: %d keys, threshold %d", kind, len(p.Keys), p.Threshold)
		}
		for i, k := range p.Keys {
			signature, err := signer.Sign(i, []byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			if !(crypto.Check{Scheme: k.Scheme, PublicKey: k.Public, Message: []byte("message"), Signature: signature}).Verify() {
				t.Errorf("%s: signature %d does not verify", kind, i)
			}
		}
		for _, i := range []int{-1, want} {
			if _, err := signer.Sign(i, nil); err == nil {
				t.Errorf("%s: signs with index %d", kind, i)
			}
		}

		words, path, err := s.Words(kind, passphrase)
		if err != nil || words != phrase || path != Path(7) || len(strings.Fields(words)) != 24 {
			t.Errorf("%s: words came back as %q at %s, %v", kind, words, path, err)
		}
		again, err := s.Recover(kind+"-2", Spec{Kind: kind, Account: 7}, phrase, "", "another passphrase")
		if err != nil || again.Address != info.Address {
			t.Errorf("%s: recovered %s of %s, %v", kind, again.Address, info.Address, err)
		}
		for i, spec := range []Spec{{kind, 7}, {kind, 8}} {
			other, err := s.Recover(kind+"-other-"+string(rune('a'+i)), spec, phrase, map[int]string{0: "x", 1: ""}[i], passphrase)
			if err != nil || other.Address == info.Address {
				t.Errorf("%s: another passphrase or account gives the same address, %v", kind, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	s := openCheap(t)
	create(t, s, "alice", "ed25519")
	refused := func(what string, want error, text string, err error) {
		t.Helper()
		if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %v %q", what, err, want, text)
		}
	}
	before, _ := os.ReadFile(s.path("alice"))
	_, _, err := s.Create("alice", Spec{Kind: Hybrid}, passphrase)
	refused("create twice", ErrExists, "alice", err)
	_, err = s.Recover("alice", Spec{Kind: "ed25519"}, testPhrase, "", passphrase)
	refused("recover over it", ErrExists, "alice", err)
	_, err = s.Import(before, passphrase)
	refused("import over it", ErrExists, "alice", err)
	if after, _ := os.ReadFile(s.path("alice")); !bytes.Equal(before, after) {
		t.Error("the file was overwritten")
	}

	_, err = s.Unlock("alice", "wrong")
	refused("wrong passphrase", ErrPassphrase, "wrong passphrase", err)
	_, err = s.Unlock("alice", "")
	refused("empty passphrase", nil, "empty", err)
	_, err = s.Unlock("bob", passphrase)
	refused("missing", ErrNotFound, "bob", err)
	refused("delete with a wrong passphrase", ErrPassphrase, "", s.Delete("alice", "wrong"))
	_, err = s.Export("alice", "wrong")
	refused("export with a wrong passphrase", ErrPassphrase, "", err)
	_, _, err = s.Words("alice", "wrong")
	refused("words with a wrong passphrase", ErrPassphrase, "", err)
	_, _, err = s.Create("bob", Spec{Kind: "ed25519"}, "")
	refused("create with an empty passphrase", nil, "empty", err)
	_, _, err = s.Create("bob", Spec{Kind: "ed25519"}, strings.Repeat("x", maxPassphrase+1))
	refused("create with a long passphrase", nil, "at most 1024", err)
	_, _, err = s.Create("bob", Spec{Kind: "rsa"}, passphrase)
	refused("unknown kind", nil, "ml-dsa-65, or hybrid", err)
	_, err = s.Recover("bob", Spec{Kind: "ed25519"}, strings.Repeat("abandon ", 11)+"about", "", passphrase)
	refused("12 words", nil, "128 bits", err)
	_, err = s.Recover("bob", Spec{Kind: "ed25519", Account: 1 << 31}, testPhrase, "", passphrase)
	refused("account number", nil, "at most 2147483647", err)

	for _, name := range []string{"", "-a", "_a", "A", "a b", "a.b", "../a", "a/b", "é", ".a", "a\x00", strings.Repeat("a", 65)} {
		_, _, err := s.Create(name, Spec{Kind: "ed25519"}, passphrase)
		refused("name "+name, nil, "key name", err)
		_, err = s.Unlock(name, passphrase)
		refused("unlock name "+name, nil, "key name", err)
	}
	for _, name := range []string{"0", strings.Repeat("z", 64), "a-_9"} {
		create(t, s, name, "ed25519")
	}
	if infos, err := s.List(); err != nil || len(infos) != 4 {
		t.Errorf("list has %d, %v: refusals left something", len(infos), err)
	}
}

// What a key file cannot hold must not be lost in silence: the address would be that of another policy.
func TestKeyFileHoldsPlainPoliciesOnly(t *testing.T) {
	s := openCheap(t)
	info := create(t, s, "alice", Hybrid)
	plain, err := crypto.NewPolicy(1, info.Policy.Keys...)
	if err != nil {
		t.Fatal(err)
	}
	change, err := plain.WithChangeThreshold(2)
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := plain.WithRecovery(info.Address, crypto.MinRecoveryDelay)
	if err != nil {
		t.Fatal(err)
	}
	for want, p := range map[bool][]crypto.Policy{true: {plain}, false: {change, recovery}} {
		for _, p := range p {
			if _, err := seal("bob", p, secret{}, CheapCost, passphrase); (err == nil) != want {
				t.Errorf("a file for %+v: %v", p, err)
			}
		}
	}
}

func TestPassphraseIsNormalised(t *testing.T) {
	s := openCheap(t)
	if _, _, err := s.Create("a", Spec{Kind: "ed25519"}, "caf\u00e9"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unlock("a", "cafe\u0301"); err != nil {
		t.Error(err)
	}
	if _, err := s.Unlock("a", "cafe"); !errors.Is(err, ErrPassphrase) {
		t.Error(err)
	}
}

func TestExportImportDelete(t *testing.T) {
	s, other := openCheap(t), openCheap(t)
	info := create(t, s, "alice", Hybrid)
	portable, err := s.Export("alice", passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Import(portable, "wrong"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("import with a wrong passphrase: %v", err)
	}
	if _, err := other.Import(portable[1:], passphrase); !errors.Is(err, ErrDamaged) {
		t.Errorf("import of a damaged file: %v", err)
	}
	if infos, _ := other.List(); len(infos) != 0 {
		t.Fatal("a failed import left a file")
	}
	imported, err := other.Import(portable, passphrase)
	if err != nil || imported.Address != info.Address {
		t.Fatalf("imported %s, %v", imported.Address, err)
	}
	if signer, err := other.Unlock("alice", passphrase); err != nil || signer.Address() != info.Address {
		t.Error(err)
	}
	if err := s.Delete("alice", passphrase); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unlock("alice", passphrase); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted key: %v", err)
	}
	if left, _ := os.ReadDir(s.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Every byte of a file changed in two ways, the second of which turns letters to the other case, and every truncation by
// one. Nothing may unlock, and the file of another account under this name neither.
func TestEveryChangedByteIsFound(t *testing.T) {
	s := openCheap(t)
	create(t, s, "alice", "ed25519")
	content, err := os.ReadFile(s.path("alice"))
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, changed []byte) {
		t.Helper()
		if err := os.WriteFile(s.path("alice"), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unlock("alice", passphrase); !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v\n%s", what, err, changed)
		}
	}
	deep := 0
	for i := range content {
		for _, mask := range []byte{1, 0x20} {
			changed := bytes.Clone(content)
			changed[i] ^= mask
			if _, _, err := decodeFile(changed); err == nil {
				deep++
			}
			try("flip", changed)
		}
	}
	if deep < 100 {
		t.Errorf("only %d changes got as far as the cipher", deep)
	}
	try("truncated", content[:len(content)-1])
	try("longer", append(bytes.Clone(content), '\n'))
	try("empty", nil)
	create(t, s, "bob", "ed25519")
	bob, err := os.ReadFile(s.path("bob"))
	if err != nil {
		t.Fatal(err)
	}
	try("another account's file", bob)
	try("another account's file, renamed", bytes.Replace(bob, []byte(`"bob"`), []byte(`"alice"`), 1))
}

// Parameters that would burn memory or time are refused before any key is derived: all of these together take no time.
func TestHostileFilesAreRefusedFast(t *testing.T) {
	s := openCheap(t)
	create(t, s, "alice", "ed25519")
	content, _ := os.ReadFile(s.path("alice"))
	good, _, err := decodeFile(content)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for name, spoil := range map[string]func(*keyFile){
		"memory above":      func(f *keyFile) { f.KDF.MemoryKiB = maxMemoryKiB + 1 },
		"memory of 4 TiB":   func(f *keyFile) { f.KDF.MemoryKiB = 1<<32 - 1 },
		"memory below":      func(f *keyFile) { f.KDF.MemoryKiB = minMemoryKiB - 1 },
		"time above":        func(f *keyFile) { f.KDF.Time = 11 },
		"time zero":         func(f *keyFile) { f.KDF.Time = 0 },
		"parallelism above": func(f *keyFile) { f.KDF.Parallelism = 17 },
		"parallelism zero":  func(f *keyFile) { f.KDF.Parallelism = 0 },
		"kdf":               func(f *keyFile) { f.KDF.Name = "scrypt" },
		"cipher":            func(f *keyFile) { f.Cipher.Name = "none" },
		"version":           func(f *keyFile) { f.Version = 2 },
		"salt":              func(f *keyFile) { f.KDF.Salt = f.KDF.Salt[1:] },
		"nonce":             func(f *keyFile) { f.Cipher.Nonce = nil },
		"ciphertext":        func(f *keyFile) { f.Ciphertext = make([]byte, maxSecretSize+1) },
		"name":              func(f *keyFile) { f.Name = "../alice" },
		"address":           func(f *keyFile) { f.Address[0] ^= 1 },
		"no keys":           func(f *keyFile) { f.Keys = nil },
		"many keys":         func(f *keyFile) { f.Keys = slices.Repeat(f.Keys, 1000) },
		"threshold":         func(f *keyFile) { f.Threshold = 2 },
		"scheme":            func(f *keyFile) { f.Keys = []fileKey{{"rsa", f.Keys[0].PublicKey, 1}} },
		"weight":            func(f *keyFile) { f.Keys = []fileKey{{"ed25519", f.Keys[0].PublicKey, 0}} },
	} {
		f := good
		spoil(&f)
		text, err := f.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path("alice"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unlock("alice", passphrase); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Import(text, passphrase); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: import says %v", name, err)
		}
	}
	if err := os.WriteFile(s.path("alice"), bytes.Repeat([]byte{' '}, maxFileSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unlock("alice", passphrase); !errors.Is(err, ErrDamaged) {
		t.Errorf("large file: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("refusing took %v", took)
	}
	for _, c := range []Cost{{}, {1, 1, 1}, {11, 65536, 4}, {3, 1 << 21, 4}, {3, 65536, 17}} {
		if _, err := Open(t.TempDir(), WithCost(c)); err == nil {
			t.Errorf("opened with cost %v", c)
		}
	}
}

// Content that its owner could have made, with the right passphrase, and that does not fit together.
func TestContentMustFitTheHeader(t *testing.T) {
	a, _ := crypto.NewPrivateKey(crypto.Ed25519, bytes.Repeat([]byte{1}, 32))
	p, err := crypto.SingleKey(crypto.Ed25519, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	seed := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	for name, c := range map[string]struct {
		secret secret
		good   bool
	}{
		"good":              {secret{seeds: [][]byte{seed(1)}}, true},
		"good with words":   {secret{seeds: [][]byte{seed(1)}, path: "m", entropy: seed(9)}, true},
		"another key":       {secret{seeds: [][]byte{seed(2)}}, false},
		"none":              {secret{}, false},
		"two":               {secret{seeds: [][]byte{seed(1), seed(2)}}, false},
		"short seed":        {secret{seeds: [][]byte{seed(1)[1:]}}, false},
		"short entropy":     {secret{seeds: [][]byte{seed(1)}, entropy: seed(9)[1:]}, false},
		"path out of limit": {secret{seeds: [][]byte{seed(1)}, path: strings.Repeat("m", 65)}, false},
	} {
		content, err := seal("a", p, c.secret, CheapCost, passphrase)
		if err != nil {
			t.Fatal(err)
		}
		f, q, err := decodeFile(content)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = f.open(q, passphrase); (err == nil) != c.good || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyOneOfManyWritersWins(t *testing.T) {
	s := openCheap(t)
	var group sync.WaitGroup
	won := make(chan Info, 8)
	for range cap(won) {
		group.Go(func() {
			info, _, err := s.Create("alice", Spec{Kind: "ed25519"}, passphrase)
			switch {
			case err == nil:
				won <- info
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(won)
	winner, ok := <-won
	if _, second := <-won; !ok || second {
		t.Fatal("not exactly one writer won")
	}
	if signer, err := s.Unlock("alice", passphrase); err != nil || signer.Address() != winner.Address {
		t.Errorf("the file is not the winner's: %v", err)
	}
}

func TestWriteNeverReplaces(t *testing.T) { // the race behind Create's first look, made certain
	s := openCheap(t)
	create(t, s, "alice", "ed25519")
	if err := s.write("alice", []byte("other")); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if _, err := s.Unlock("alice", passphrase); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestListCopesWithLeftovers(t *testing.T) {
	s := openCheap(t)
	if infos, err := s.List(); err != nil || len(infos) != 0 {
		t.Errorf("empty folder lists %v, %v", infos, err)
	}
	alice := create(t, s, "alice", Hybrid)
	content, _ := os.ReadFile(s.path("alice"))
	for name, b := range map[string][]byte{
		".new-123": content[:100], ".new-124": content, ".new-5.json": content, // what a crash leaves
		"notes.txt": nil, "UPPER.json": content, "empty.json": nil, "cut.json": content[:len(content)/2],
		"renamed.json": content,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "folder.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.path("alice"), filepath.Join(s.dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	infos, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
		if (i.Name == "alice") != (i.Err == nil) {
			t.Errorf("%s: %v", i.Name, i.Err)
		}
		if i.Err != nil && !errors.Is(i.Err, ErrDamaged) {
			t.Errorf("%s: %v", i.Name, i.Err)
		}
	}
	if !slices.Equal(names, []string{"alice", "cut", "empty", "folder", "link", "renamed"}) {
		t.Errorf("listed %v", names)
	}
	if infos[0].Address != alice.Address || !infos[0].Policy.Equal(alice.Policy) {
		t.Error("alice is listed wrong")
	}
	create(t, s, "bob", "ed25519") // leftovers are not in the way of the next writer
}

func TestPermissions(t *testing.T) {
	s := openCheap(t)
	create(t, s, "alice", "ed25519")
	mode := func(path string) fs.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if mode(s.dir) != 0o700 || mode(s.path("alice")) != 0o600 {
		t.Errorf("modes %o and %o", mode(s.dir), mode(s.path("alice")))
	}
	if err := os.Chmod(s.path("alice"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unlock("alice", passphrase); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that the group may read: %v", err)
	}
	if err := os.Chmod(s.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder that the group may enter: %v", err)
	}
	if _, err := Open(s.path("alice")); err == nil {
		t.Error("opened a file as a folder")
	}
}

// Nothing of the secret stands in the file.
func TestFileHidesTheSecret(t *testing.T) {
	s := openCheap(t)
	_, phrase, err := s.Create("alice", Spec{Kind: Hybrid}, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	content, _, _, err := s.read("alice")
	if err != nil {
		t.Fatal(err)
	}
	_, hidden, _, err := s.unlock("alice", passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if len(hidden.seeds) != 2 || len(hidden.entropy) != EntropySize {
		t.Fatalf("%d seeds, %d bytes of entropy", len(hidden.seeds), len(hidden.entropy))
	}
	for _, b := range append(hidden.seeds, hidden.entropy) {
		text, _ := hexText(b).MarshalText()
		if bytes.Contains(content, text) || bytes.Contains(content, b) {
			t.Error("a secret stands in the file")
		}
	}
	if strings.Contains(string(content), strings.Fields(phrase)[0]+" ") {
		t.Error("a word stands in the file")
	}
	again, err := s.Recover("again", Spec{Kind: Hybrid}, phrase, "", passphrase)
	if err != nil {
		t.Fatal(err)
	}
	second, f, _, err := s.read(again.Name)
	if err != nil {
		t.Fatal(err)
	}
	var first keyFile
	if err := json.Unmarshal(content, &first); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first.KDF.Salt, f.KDF.Salt) || bytes.Equal(first.Cipher.Nonce, f.Cipher.Nonce) || bytes.Equal(content, second) {
		t.Error("two files share salt or nonce")
	}
}

// A file written by the first release must open for ever. It is -update'd only before that release.
func TestGoldenFileOpens(t *testing.T) {
	path := filepath.Join("testdata", "keyfile_v1.json")
	if *update {
		s := openCheap(t)
		if _, err := s.Recover("golden", Spec{Kind: Hybrid, Account: 1}, testPhrase, "TREZOR", passphrase); err != nil {
			t.Fatal(err)
		}
		content, _, _, err := s.read("golden")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openCheap(t)
	info, err := s.Import(content, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	words, derivation, err := s.Words("golden", passphrase)
	if err != nil || words != testPhrase || derivation != "m/44'/7364963'/1'/0'/0'" {
		t.Errorf("%q at %s, %v", words, derivation, err)
	}
	const want = "pac1pasady65rnqy36ymgrcaw4p6s36ajz7rwuz2tjx8tljctwwklwz7stvvzh5"
	if info.Address.String() != want {
		t.Errorf("address %s, want %s", info.Address, want)
	}
}

func FuzzDecodeFile(f *testing.F) {
	content, err := os.ReadFile(filepath.Join("testdata", "keyfile_v1.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Fuzz(func(t *testing.T, b []byte) {
		file, p, err := decodeFile(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("error is not ErrDamaged: %v", err)
			}
			return
		}
		again, err := file.encode()
		if err != nil || !bytes.Equal(again, b) || p.Check() != nil || file.KDF.Cost.check() != nil {
			t.Errorf("accepted %s", b)
		}
	})
}

func BenchmarkUnlock(b *testing.B) {
	for name, cost := range map[string]Cost{"default": DefaultCost, "cheap": CheapCost} {
		b.Run(name, func(b *testing.B) {
			s, err := Open(b.TempDir()+"/keys", WithCost(cost))
			if err != nil {
				b.Fatal(err)
			}
			create(b, s, "alice", "ed25519")
			for b.Loop() {
				if _, err := s.Unlock("alice", passphrase); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
