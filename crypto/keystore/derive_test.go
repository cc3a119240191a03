package keystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cosmos/go-bip39"

	"github.com/pacioli-ledger/pacioli/crypto"
)

func readVectors[T any](t *testing.T, name string) []T {
	t.Helper()
	content, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []T }
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) == 0 {
		t.Fatalf("%s has no vectors", name)
	}
	return file.Vectors
}

type bip39Vector struct {
	Entropy hexText
	Phrase  string
	Seed    hexText
}

func TestBIP39Vectors(t *testing.T) {
	long := 0
	for _, v := range readVectors[bip39Vector](t, "bip39.json") {
		if got := encodeMnemonic(v.Entropy); got != v.Phrase {
			t.Errorf("entropy %x gives %q, want %q", v.Entropy, got, v.Phrase)
		}
		entropy, err := decodeMnemonic(v.Phrase)
		if err != nil || !bytes.Equal(entropy, v.Entropy) {
			t.Errorf("%q gives %x, %v", v.Phrase, entropy, err)
		}
		seed, err := mnemonicSeed(entropy, "TREZOR")
		if err != nil || !bytes.Equal(seed, v.Seed) {
			t.Errorf("%q gives seed %x, %v", v.Phrase, seed, err)
		}
		if len(strings.Fields(v.Phrase)) == 24 {
			long++
		}
	}
	if long < 8 {
		t.Errorf("only %d phrases of 24 words", long)
	}
}

const (
	testPhrase = "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless"
)

func TestPhraseFormsAndErrors(t *testing.T) {
	want, err := decodeMnemonic(testPhrase)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]string{
		"upper case":         strings.ToUpper(testPhrase),
		"tabs and newlines":  "\n\t" + strings.ReplaceAll(testPhrase, " ", "\r\n ") + "  ",
		"ideographic spaces": strings.ReplaceAll(testPhrase, " ", "\u3000"),
		"full-width letters": strings.Replace(testPhrase, "letter", "ｌｅｔｔｅｒ", 1),
	} {
		if got, err := decodeMnemonic(form); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	words := strings.Fields(testPhrase)
	swapped := strings.Join(append([]string{words[1], words[0]}, words[2:]...), " ")
	for phrase, want := range map[string]string{
		"":                             "0 words",
		strings.Join(words[:23], " "):  "23 words",
		testPhrase + " bless":          "25 words",
		strings.Repeat("abandon ", 24): "checksum", // the library's IsMnemonicValid takes this one
		swapped:                        "checksum",
		strings.Replace(testPhrase, "bless", "secretword", 1): "word 24",
		strings.Repeat("a", maxPhrase+1):                      "1025 bytes",
	} {
		_, err := decodeMnemonic(phrase)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", phrase, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secretword") || strings.Contains(err.Error(), "letter")) {
			t.Errorf("the error quotes the phrase: %v", err)
		}
	}
	if _, err := decodeMnemonic(strings.TrimSpace(strings.Repeat("abandon ", 23) + "art")); err != nil {
		t.Error(err)
	}
	// Every wrong last word of the 2048 but the 7 others whose checksum fits by chance: 24 words carry 8 bits of it.
	good := 0
	for _, w := range bip39.EnglishWordList {
		if _, err := decodeMnemonic(strings.Join(words[:23], " ") + " " + w); err == nil {
			good++
		}
	}
	if good != 8 {
		t.Errorf("%d last words fit, want 2048/256", good)
	}
}

func TestBIP39PassphraseIsNormalised(t *testing.T) {
	composed, err := mnemonicSeed(make([]byte, 32), "caf\u00e9")
	if err != nil {
		t.Fatal(err)
	}
	decomposed, _ := mnemonicSeed(make([]byte, 32), "cafe\u0301")
	plain, _ := mnemonicSeed(make([]byte, 32), "cafe")
	if !bytes.Equal(composed, decomposed) || bytes.Equal(composed, plain) {
		t.Error("the Unicode form of the passphrase changes the seed, or its accent does not")
	}
}

type slip10Vector struct {
	Scheme       string
	Seed         hexText
	Path         string
	ChainCode    hexText `json:"chain_code"`
	Private      hexText
	Public       hexText
	PublicSHA256 hexText `json:"public_sha256"`
}

func walk(t *testing.T, scheme crypto.Scheme, seed []byte, path string) node {
	t.Helper()
	n, err := master(scheme, seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range strings.Split(path, "/")[1:] {
		digits, hard := strings.CutSuffix(step, "'")
		index, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			t.Fatal(err)
		}
		if hard {
			index |= hardened
		}
		if n, err = n.child(uint32(index)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestSLIP10Vectors(t *testing.T) {
	count := map[string]int{}
	for _, v := range readVectors[slip10Vector](t, "slip0010.json") {
		scheme, err := crypto.ParseScheme(v.Scheme)
		if err != nil {
			t.Fatal(err)
		}
		n := walk(t, scheme, v.Seed, v.Path)
		if !bytes.Equal(n.chainCode[:], v.ChainCode) {
			t.Errorf("%s %s: chain code %x, want %x", v.Scheme, v.Path, n.chainCode, v.ChainCode)
		}
		key, err := crypto.NewPrivateKey(scheme, n.secret[:])
		if err != nil {
			t.Fatal(err)
		}
		if scheme == crypto.MLDSA65 {
			if got := sha256.Sum256(key.Public()); !bytes.Equal(got[:], v.PublicSHA256) {
				t.Errorf("%s %s: public key hashes to %x, want %x", v.Scheme, v.Path, got, v.PublicSHA256)
			}
		} else if !bytes.Equal(n.secret[:], v.Private) || !bytes.Equal(key.Public()[:len(v.Public)], v.Public) {
			t.Errorf("%s %s: private %x, public %x", v.Scheme, v.Path, n.secret, key.Public())
		}
		count[v.Scheme]++
	}
	if count["ed25519"] != 12 || count["secp256k1"] != 12 || count["p256-webauthn"] != 16 || count["ml-dsa-65"] != 12 {
		t.Errorf("vectors by scheme: %v", count)
	}
}

// Our own regression values: what a phrase gives on our path, in each scheme. If one changes, the words on the users' papers
// lead elsewhere. They were computed a second time in Python. ML-DSA-44 has no published vector of any tree; it is the code of ML-DSA-65 with another name.
func TestOurPathIsStable(t *testing.T) {
	if got := Path(3); got != "m/44'/7364963'/3'/0'/0'" {
		t.Errorf("path is %s", got)
	}
	entropy, _ := decodeMnemonic(testPhrase)
	root, err := mnemonicSeed(entropy, "")
	if err != nil {
		t.Fatal(err)
	}
	for scheme, want := range map[crypto.Scheme]string{
		crypto.Ed25519:      "1aabbaff04d1daed308224b3b6c41afe344017cf964e8f5a03925d60c4c81817",
		crypto.Secp256k1:    "12a66c37c56b8fd02d592bb8f0e2fa33ffda0864901493d9eb4accc6ab4f8de2",
		crypto.P256WebAuthn: "f845737a3754c2a08a9e5ec3612ed4d8c0e65ca44f6a9738131dbc3872105a78",
		crypto.MLDSA44:      "7f8ebefeca91375aed3d077630bd319ce259bf30f339a5cc6cbb5374d860c5f9",
		crypto.MLDSA65:      "256c4831df5b4c8ba02866554582c074989233312b4295af9078739d58f0368c",
	} {
		seed, err := derive(scheme, root, 3)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(seed) != want {
			t.Errorf("%s: %x, want %s", scheme, seed, want)
		}
		stepwise := walk(t, scheme, root, Path(3))
		if !bytes.Equal(stepwise.secret[:], seed) {
			t.Errorf("%s: the path as text leads elsewhere", scheme)
		}
		if other, _ := derive(scheme, root, 4); bytes.Equal(other, seed) {
			t.Errorf("%s: accounts 3 and 4 are one", scheme)
		}
	}
	if _, err := derive(crypto.Ed25519, root, hardened); err == nil {
		t.Error("account 2^31 wraps round")
	}
	if _, err := master(crypto.SLHDSA128s, root); err == nil {
		t.Error("a reserved scheme has a tree")
	}
	n, err := master(crypto.MLDSA65, root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.child(0); err == nil {
		t.Error("ml-dsa has a child that is not hardened")
	}
}
