package ledger

import (
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Replay protection by nonce. A nonce lives in the bucket of its transaction's valid_until, a whole second of Unix time.
// A transaction is accepted iff valid_until is after the block's time, and a bucket is removed exactly when it is not:
// so the ledger forgets a nonce in the very block from which on the transaction is dead anyway.
//
// The nonces stand beside the Merkle trees; each bucket has a running digest over them in the tree "replay", by which a
// snapshot of them can be checked:
//
//	digest(0) = 32 zero bytes
//	digest(n) = SHA-256("pacioli.replay.v1\0" || digest(n-1) || address(32) || nonce(16))

// bucket is the row of one second: how many nonces it has and the digest over them in their order.
type bucket struct {
	Count  uint32
	Digest crypto.Hash
}

// replayTotals is the row over all buckets.
type replayTotals struct {
	PrunedThrough uint64 // every bucket up to this Unix second has been removed
	Open          uint64 // number of nonces in all buckets
}

type nonceKey struct {
	validUntil uint64
	account    crypto.Address
	nonce      [NonceBytes]byte
}

type nonceNumber struct {
	validUntil uint64
	number     uint32
}

func (k nonceKey) row() []byte    { return nonceRow(k.validUntil, k.account, k.nonce) }
func (k nonceNumber) row() []byte { return nonceNumberRow(k.validUntil, k.number) }

func (b bucket) encode() []byte {
	w := writeRow()
	w.Uint32(1, b.Count)
	w.Message(2, b.Digest[:])
	return w.Done()
}

func decodeBucket(value []byte) (b bucket, err error) {
	r := openRow(value)
	b.Count = r.Uint32(1, "count")
	r.Fixed(2, "digest", b.Digest[:])
	return b, r.Close()
}

func (t replayTotals) encode() []byte {
	w := writeRow()
	w.Uint64(1, t.PrunedThrough)
	w.Uint64(2, t.Open)
	return w.Done()
}

func decodeReplayTotals(value []byte) (t replayTotals, err error) {
	r := openRow(value)
	t.PrunedThrough = r.Uint64(1, "pruned_through")
	t.Open = r.Uint64(2, "open")
	return t, r.Close()
}

func encodeNumber(n uint32) []byte { return appendUint32([]byte{rowVersion}, n) }

func decodeNumber(value []byte) (uint32, error) {
	if len(value) != 5 || value[0] != rowVersion {
		return 0, fmt.Errorf("row of a nonce has %d bytes, want 5", len(value))
	}
	return uint32(value[1])<<24 | uint32(value[2])<<16 | uint32(value[3])<<8 | uint32(value[4]), nil
}

// encodeNumbered writes the row that finds a nonce by its number. The second stands in the row's value too, so that the
// row decodes without its key.
func (k nonceKey) encodeNumbered() []byte {
	w := canonical.NewWriter([]byte{rowVersion})
	w.Uint64(1, k.validUntil)
	w.Message(2, k.account[:])
	w.Message(3, k.nonce[:])
	return w.Done()
}

func decodeNumbered(value []byte) (k nonceKey, err error) {
	r := openRow(value)
	k.validUntil = r.Uint64(1, "valid_until")
	r.Fixed(2, "account", k.account[:])
	r.Fixed(3, "nonce", k.nonce[:])
	return k, r.Close()
}

// add continues a bucket's digest by one nonce.
func (b bucket) add(account crypto.Address, nonce [NonceBytes]byte) bucket {
	return bucket{b.Count + 1, crypto.DomainReplay.Hash(b.Digest[:], account[:], nonce[:])}
}

// MaxNoncesPerSecond bounds a bucket, and so the work of the block that removes it: 65,536 nonces are 131,072 deleted
// rows. Without it everybody's round valid_until could make one block remove millions. A window of ten minutes has room
// for 39 million nonces, ten times the default of max_open_nonces.
const MaxNoncesPerSecond = 1 << 16

// nonceRoom tells whether n more nonces fit.
func (s *state) nonceRoom(validUntil, n, maxOpen uint64) bool {
	totals, _ := s.replay.get(struct{}{})
	b, _ := s.buckets.get(validUntil)
	return totals.Open+n <= maxOpen && uint64(b.Count)+n <= MaxNoncesPerSecond
}

// useNonce enters a nonce, which the caller has found unused.
func (s *state) useNonce(validUntil uint64, account crypto.Address, nonce [NonceBytes]byte) {
	k := nonceKey{validUntil, account, nonce}
	b, _ := s.buckets.get(validUntil)
	s.nonces.put(k, b.Count)
	s.numbers.put(nonceNumber{validUntil, b.Count}, k)
	s.buckets.put(validUntil, b.add(account, nonce))
	totals, _ := s.replay.get(struct{}{})
	totals.Open++
	s.replay.put(struct{}{}, totals)
}

// MaxNoncesPruned bounds the nonces that one block removes; the bucket that reaches it is still removed whole. After a pause
// of the chain all that were open may be due at once. What waits for a later block is harmless: its transactions are dead.
const MaxNoncesPruned = MaxNoncesPerSecond

// pruneNonces removes the buckets that are not after the block's time, oldest first, within the block's limits.
func (s *state) pruneNonces(unixMillis uint64) {
	totals, began := s.replay.get(struct{}{})
	now := unixMillis / 1000
	if now <= totals.PrunedThrough {
		return
	}
	if !began || totals.Open == 0 { // there is no bucket to look for
		totals.PrunedThrough = now
		s.replay.put(struct{}{}, totals)
		return
	}
	last := min(now, totals.PrunedThrough+MaxReplayWindowSeconds)
	for pruned := uint32(0); totals.PrunedThrough < last && pruned < MaxNoncesPruned; {
		totals.PrunedThrough++
		second := totals.PrunedThrough
		b, ok := s.buckets.get(second)
		if !ok {
			continue
		}
		for n := range b.Count {
			number := nonceNumber{second, n}
			if k, ok := s.numbers.get(number); ok {
				s.nonces.remove(k)
			}
			s.numbers.remove(number)
		}
		s.buckets.remove(second)
		totals.Open -= uint64(b.Count)
		pruned += b.Count
	}
	s.replay.put(struct{}{}, totals)
}
