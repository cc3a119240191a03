package keystore

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cosmos/go-bip39"
	"golang.org/x/text/unicode/norm"
)

// EntropySize is what a new recovery phrase carries, in bytes: 256 bits in 24 words. Shorter phrases exist in BIP-39 but are
// not used here: 12 words carry 128 bits, which would be the weakest part of an ML-DSA-65 key.
const EntropySize = 32

const (
	bitsPerWord = 11 // the list has 2048 words
	maxPhrase   = 1024
)

// No error here quotes a word: error texts end up in logs and screenshots.
var errChecksum = errors.New("recovery phrase: the checksum is wrong; a word is mistaken or two are swapped")

// encodeMnemonic returns the BIP-39 words for 16, 20, 24, 28 or 32 bytes: the entropy and its checksum, one bit of
// SHA-256 for each 32 bits of entropy, cut into numbers of 11 bits.
func encodeMnemonic(entropy []byte) string {
	digest := sha256.Sum256(entropy)
	bits := append(slices.Clone(entropy), digest[0])
	words := make([]string, (8*len(entropy)+len(entropy)/4)/bitsPerWord)
	for i := range words {
		index := 0
		for b := i * bitsPerWord; b < (i+1)*bitsPerWord; b++ {
			index = index<<1 | int(bits[b/8]>>(7-b%8)&1)
		}
		words[i] = bip39.EnglishWordList[index]
	}
	return strings.Join(words, " ")
}

// decodeMnemonic returns the entropy of a phrase of 12, 15, 18, 21 or 24 English words. Case, Unicode form and the
// amount of white space do not matter. The checksum does.
func decodeMnemonic(phrase string) ([]byte, error) {
	if len(phrase) > maxPhrase {
		return nil, fmt.Errorf("recovery phrase: %d bytes, at most %d", len(phrase), maxPhrase)
	}
	words := strings.Fields(strings.ToLower(norm.NFKD.String(phrase)))
	switch len(words) {
	case 12, 15, 18, 21, 24:
	default:
		return nil, fmt.Errorf("recovery phrase: %d words, want 24", len(words))
	}
	bits := make([]byte, (len(words)*bitsPerWord+7)/8)
	for i, word := range words {
		index, found := bip39.ReverseWordMap[word]
		if !found {
			return nil, fmt.Errorf("recovery phrase: word %d is not in the English BIP-39 list", i+1)
		}
		for j := range bitsPerWord {
			b := i*bitsPerWord + j
			bits[b/8] |= byte(index>>(bitsPerWord-1-j)&1) << (7 - b%8)
		}
	}
	entropy := bits[:len(words)*bitsPerWord*32/33/8]
	if encodeMnemonic(entropy) != strings.Join(words, " ") {
		return nil, errChecksum
	}
	return entropy, nil
}

// mnemonicSeed stretches the words of the entropy and the BIP-39 passphrase, which may be empty and is in nobody's file, to
// the 64 bytes from which keys are derived. Every passphrase gives a valid seed: a mistaken one opens other, empty accounts.
func mnemonicSeed(entropy []byte, passphrase string) ([]byte, error) {
	words := encodeMnemonic(entropy) // ASCII, hence in every Unicode normal form
	seed, err := pbkdf2.Key(sha512.New, words, []byte("mnemonic"+norm.NFKD.String(passphrase)), 2048, 64)
	if err != nil {
		return nil, fmt.Errorf("stretch the recovery phrase: %w", err)
	}
	return seed, nil
}
