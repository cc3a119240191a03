package crypto

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is a SHA-256 digest. Its text form is 64 lower-case hex digits.
type Hash [32]byte

// String returns 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is ParseHash.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// ParseHash reads what [Hash.String] writes and nothing else: a hash has one spelling, so that text can be compared.
func ParseHash(text string) (Hash, error) {
	var h Hash
	if len(text) != 2*len(h) {
		return Hash{}, fmt.Errorf("parse hash: %d characters, want %d hex digits", len(text), 2*len(h))
	}
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Hash{}, fmt.Errorf("parse hash: character %q at %d is not a lower-case hex digit", c, i)
		}
	}
	if _, err := hex.Decode(h[:], []byte(text)); err != nil {
		return Hash{}, fmt.Errorf("parse hash: %w", err)
	}
	return h, nil
}

// Domain is the prefix of everything that is hashed or signed for one purpose. Every domain ends in its only zero byte,
// so none is a prefix of another and bytes made for one purpose never pass for another.
type Domain string

// The domains. A new meaning of the bytes behind a domain takes a new number in its name; a used name is never given
// another meaning, for a signature under it may still exist.
const (
	DomainTx         Domain = "pacioli.tx.v1\x00"        // what signers of a transaction sign
	DomainNetwork    Domain = "pacioli.net.v1\x00"       // network id, from chain id and genesis
	DomainTxID       Domain = "pacioli.txid.v1\x00"      // transaction id, free of signatures
	DomainAddress    Domain = "pacioli.addr.v1\x00"      // policy hash, which is the address of an account
	DomainAsset      Domain = "pacioli.asset.v1\x00"     // asset id
	DomainShard      Domain = "pacioli.shard.v1\x00"     // which state shard a key lives in
	DomainEntry      Domain = "pacioli.entry.v1\x00"     // journal entries
	DomainReplay     Domain = "pacioli.replay.v1\x00"    // nonces of unordered transactions
	DomainPossession Domain = "pacioli.pop.v1\x00"       // proof that the owner of a new policy holds its keys
	DomainSponsor    Domain = "pacioli.sponsor.v1\x00"   // what the sponsor of a transaction signs
	DomainHold       Domain = "pacioli.hold.v1\x00"      // hold id
	DomainClosed     Domain = "pacioli.closed.v1\x00"    // chain over the closed lines of an account
	DomainValidator  Domain = "pacioli.validator.v1\x00" // proof that somebody holds a new consensus key
	DomainProposal   Domain = "pacioli.proposal.v1\x00"  // id of a proposal of the validators' operators
	DomainBond       Domain = "pacioli.bond.v1\x00"      // id of the hold that is an operator's bond
	DomainPayment    Domain = "pacioli.payment.v1\x00"   // nonce and reference of a payment, from the payer's own id: wallets only
)

// Domains returns all domains. The test that they are prefix-free, and any check that a foreign protocol's messages
// cannot begin like ours, goes over this list.
func Domains() []Domain {
	return []Domain{
		DomainTx, DomainNetwork, DomainTxID, DomainAddress, DomainAsset, DomainShard, DomainEntry, DomainReplay,
		DomainPossession, DomainSponsor, DomainHold, DomainClosed, DomainPayment,
		DomainValidator, DomainProposal, DomainBond,
	}
}

// Hash returns SHA-256 over the domain and the parts, one behind the other. Parts have no separators: where more than
// one of them varies in length, the caller hands over their hashes instead.
func (d Domain) Hash(parts ...[]byte) Hash {
	h := sha256.New()
	h.Write([]byte(d))
	for _, p := range parts {
		h.Write(p)
	}
	var sum Hash
	h.Sum(sum[:0])
	return sum
}
