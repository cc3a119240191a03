package ledger

import (
	"bytes"
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Beside is what stands beside the trees for one row of a tree: the policy of an account, the nonces of a bucket. It is how
// a snapshot carries them: behind the row that commits to them, checked as they come, so that neither end needs a list.
//
// Rows that nothing commits to (policies that no account has any more) do not belong to a snapshot. No rule reads them.
type Beside struct {
	policy crypto.Hash // of an account
	bucket bucket      // of a second
	second uint64
	nonces bool // it is a bucket
	folded bucket
	taken  bool // the policy has come
}

// BesideOf returns what stands beside a tree's row; nil where nothing does. The error says that the row does not decode.
func BesideOf(key, value []byte) (*Beside, error) {
	if len(key) == 0 || len(key) != keyLengths[key[0]] {
		return nil, nil
	}
	switch key[0] {
	case rowAccount:
		account, err := DecodeAccount(value)
		if err != nil {
			return nil, fmt.Errorf("row %x: %w", key, err)
		}
		return &Beside{policy: account.Policy}, nil
	case rowBucket:
		b, err := decodeBucket(value)
		if err != nil {
			return nil, fmt.Errorf("row %x: %w", key, err)
		}
		if b.Count > MaxNoncesPerSecond {
			return nil, fmt.Errorf("row %x: a bucket of %d nonces, at most %d", key, b.Count, MaxNoncesPerSecond)
		}
		return &Beside{bucket: b, second: unixSecond(key), nonces: true}, nil
	}
	return nil, nil
}

// Next returns the key of the row that comes next; ok is false when all have come.
func (b *Beside) Next() (key []byte, ok bool) {
	if b.nonces {
		return nonceNumberRow(b.second, b.folded.Count), b.folded.Count < b.bucket.Count
	}
	return PolicyRow(b.policy), !b.taken
}

// Take checks the value of the row that comes next, and returns every row beside the trees that it makes: of a nonce also
// the row by which it is found. With the last nonce of a bucket the bucket's digest is checked.
func (b *Beside) Take(value []byte) ([]Write, error) {
	key, ok := b.Next()
	if !ok {
		return nil, fmt.Errorf("row %x: there are more rows than the tree commits to", key)
	}
	if !b.nonces {
		policy, err := DecodePolicyRow(value)
		if err != nil {
			return nil, fmt.Errorf("row %x: %w", key, err)
		}
		if hash := policy.Hash(); hash != b.policy {
			return nil, fmt.Errorf("row %x holds the policy %s", key, hash)
		}
		b.taken = true
		return []Write{{key, value}}, nil
	}
	k, err := decodeNumbered(value)
	if err != nil {
		return nil, fmt.Errorf("row %x: %w", key, err)
	}
	if k.validUntil != b.second || !bytes.Equal(k.encodeNumbered(), value) {
		return nil, fmt.Errorf("row %x of a numbered nonce is of second %d", key, k.validUntil)
	}
	number := b.folded.Count
	b.folded = b.folded.add(k.account, k.nonce)
	if b.folded.Count == b.bucket.Count && b.folded != b.bucket {
		return nil, fmt.Errorf("the nonces of second %d do not have the digest of their bucket", b.second)
	}
	return []Write{{k.row(), encodeNumber(number)}, {key, value}}, nil
}
