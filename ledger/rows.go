package ledger

import (
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// The state is a set of rows. The first byte of a row's key is its kind, which also decides the Merkle tree that commits
// to it ([TreeOf]). Within a kind all keys have one length, so no key is a prefix of another. A row's value is a version
// byte and a canonical message, and so is never empty.
const (
	rowAccount byte = 0x01 // || address(32)
	rowLine    byte = 0x02 // || address(32) || asset(16)
	rowAsset   byte = 0x03 // || asset(16)
	rowCode    byte = 0x04 // || code, padded with zeros to 12 bytes

	rowParameters byte = 0x40
	rowNetwork    byte = 0x41

	rowBucket byte = 0x50 // || valid_until(8)
	rowReplay byte = 0x51

	rowValidators byte = 0x60

	rowPolicy      byte = 0x80 // || hash(32): beside the trees, authenticated by its key
	rowNonce       byte = 0x81 // || valid_until(8) || address(32) || nonce(16): beside, authenticated by the bucket's digest
	rowNonceNumber byte = 0x82 // || valid_until(8) || number(4)

	rowVersion = 0x01
)

// Write is a change of one row. Value nil deletes it.
type Write struct{ Key, Value []byte }

// Reader reads rows of one consistent state. It may be used by several goroutines.
type Reader interface {
	// Get returns a row's value, nil when there is none. The caller must not change it. An error is a failure of the
	// machine, never a property of the key.
	Get(key []byte) ([]byte, error)
}

// Memory is a Reader over a map: the state of a chain before its first block, and of tests.
type Memory map[string][]byte

// Get implements [Reader].
func (m Memory) Get(key []byte) ([]byte, error) { return m[string(key)], nil }

// Apply puts writes into the map.
func (m Memory) Apply(writes []Write) {
	for _, w := range writes {
		if w.Value == nil {
			delete(m, string(w.Key))
		} else {
			m[string(w.Key)] = w.Value
		}
	}
}

// Account is what the ledger keeps of an account once it has signed. Before that there is no row, and the address is
// itself the hash of the policy.
type Account struct {
	Policy        crypto.Hash // hash of the policy in force
	PolicyVersion uint32      // number of changes of the policy
	Sequence      uint64      // the last one used; 0: none
}

// Line is the position of one account in one asset.
//
// The counters only ever grow. Of an ordinary line debits (posted and pending) never pass the posted credits. The line of
// an asset's issuer in that asset is its issuance line: its debits may pass its credits, by at most the maximum supply.
type Line struct {
	DebitsPending, DebitsPosted   Amount
	CreditsPending, CreditsPosted Amount
	Entries                       uint64      // number of journal entries
	Head                          crypto.Hash // of the journal: see [Entry]
}

// Available returns what an ordinary line can pay.
func (l Line) Available() Amount {
	debits, ok := l.DebitsPosted.Add(l.DebitsPending)
	if !ok {
		return Amount{}
	}
	available, ok := l.CreditsPosted.Sub(debits)
	if !ok {
		return Amount{}
	}
	return available
}

// Balance returns posted credits less posted debits; negative tells that debits are greater, as on an issuance line.
func (l Line) Balance() (balance Amount, negative bool) {
	if b, ok := l.CreditsPosted.Sub(l.DebitsPosted); ok {
		return b, false
	}
	b, _ := l.DebitsPosted.Sub(l.CreditsPosted)
	return b, true
}

// Asset is what the ledger keeps of an asset. Its supply is the balance of the issuer's line.
type Asset struct {
	Issuer       crypto.Address
	Code         string
	Scale        uint32
	MaxSupply    Amount
	MetadataHash []byte
}

// LineKey names a line.
type LineKey struct {
	Account crypto.Address
	Asset   AssetID
}

// AccountRow returns the key of an account's row.
func AccountRow(a crypto.Address) []byte { return append([]byte{rowAccount}, a[:]...) }

// LineRow returns the key of a line's row.
func LineRow(k LineKey) []byte {
	return append(append([]byte{rowLine}, k.Account[:]...), k.Asset[:]...)
}

// AssetRow returns the key of an asset's row.
func AssetRow(id AssetID) []byte { return append([]byte{rowAsset}, id[:]...) }

// CodeRow returns the key of the row that holds the id of the asset with a code.
func CodeRow(code string) []byte {
	key := make([]byte, 1+MaxCodeBytes)
	key[0] = rowCode
	copy(key[1:], code)
	return key
}

// PolicyRow returns the key of the row that holds the bytes of the policy with a hash.
func PolicyRow(hash crypto.Hash) []byte { return append([]byte{rowPolicy}, hash[:]...) }

// ParametersRow returns the key of the parameters' row.
func ParametersRow() []byte { return []byte{rowParameters} }

// NetworkRow returns the key of the row that says which network this state belongs to.
func NetworkRow() []byte { return []byte{rowNetwork} }

// ValidatorsRow returns the key of the validators' row.
func ValidatorsRow() []byte { return []byte{rowValidators} }

func bucketRow(validUntil uint64) []byte { return appendUint64([]byte{rowBucket}, validUntil) }

func nonceRow(validUntil uint64, a crypto.Address, nonce [NonceBytes]byte) []byte {
	return append(append(appendUint64([]byte{rowNonce}, validUntil), a[:]...), nonce[:]...)
}

func nonceNumberRow(validUntil uint64, number uint32) []byte {
	return appendUint32(appendUint64([]byte{rowNonceNumber}, validUntil), number)
}

// writeRow begins a row's value; openRow reads what it began.
func writeRow() *canonical.Writer { return canonical.NewWriter([]byte{rowVersion}) }

func openRow(value []byte) *canonical.Reader {
	if len(value) == 0 || value[0] != rowVersion {
		r := canonical.NewReader(nil)
		r.Fail("version", "a row begins with the byte %d", rowVersion)
		return r
	}
	return canonical.NewReader(value[1:])
}

func (a Account) encode() []byte {
	w := writeRow()
	w.Message(1, a.Policy[:])
	w.Uint32(2, a.PolicyVersion)
	w.Uint64(3, a.Sequence)
	return w.Done()
}

// DecodeAccount reads an account's row.
func DecodeAccount(value []byte) (a Account, err error) {
	r := openRow(value)
	r.Fixed(1, "policy", a.Policy[:])
	a.PolicyVersion = r.Uint32(2, "policy_version")
	a.Sequence = r.Uint64(3, "sequence")
	return a, r.Close()
}

func (l Line) encode() []byte {
	w := writeRow()
	w.Bytes(1, l.DebitsPending.Bytes())
	w.Bytes(2, l.DebitsPosted.Bytes())
	w.Bytes(3, l.CreditsPending.Bytes())
	w.Bytes(4, l.CreditsPosted.Bytes())
	w.Uint64(5, l.Entries)
	w.Message(6, l.Head[:])
	return w.Done()
}

// DecodeLine reads a line's row.
func DecodeLine(value []byte) (l Line, err error) {
	r := openRow(value)
	l.DebitsPending = readAmount(r, 1, "debits_pending")
	l.DebitsPosted = readAmount(r, 2, "debits_posted")
	l.CreditsPending = readAmount(r, 3, "credits_pending")
	l.CreditsPosted = readAmount(r, 4, "credits_posted")
	l.Entries = r.Uint64(5, "entries")
	r.Fixed(6, "head", l.Head[:])
	return l, r.Close()
}

func (a Asset) encode() []byte {
	w := writeRow()
	w.Message(1, a.Issuer[:])
	w.String(2, a.Code)
	w.Uint32(3, a.Scale)
	w.Bytes(4, a.MaxSupply.Bytes())
	w.Bytes(5, a.MetadataHash)
	return w.Done()
}

// DecodeAsset reads an asset's row.
func DecodeAsset(value []byte) (a Asset, err error) {
	r := openRow(value)
	r.Fixed(1, "issuer", a.Issuer[:])
	a.Code = r.String(2, "code", MaxCodeBytes)
	if a.Scale = r.Uint32(3, "scale"); a.Scale > MaxScale { // a row can come from a stranger, with a proof that nobody checked yet
		r.Fail("scale", "%d, at most %d", a.Scale, MaxScale)
	}
	a.MaxSupply = readAmount(r, 4, "max_supply")
	a.MetadataHash = r.Bytes(5, "metadata_hash", 32)
	return a, r.Close()
}

func encodeAssetID(id AssetID) []byte { return append([]byte{rowVersion}, id[:]...) }

// DecodeAssetID reads the row of an asset code.
func DecodeAssetID(value []byte) (id AssetID, err error) {
	if len(value) != 1+len(id) || value[0] != rowVersion {
		return id, fmt.Errorf("row of an asset code has %d bytes, want %d", len(value), 1+len(id))
	}
	copy(id[:], value[1:])
	return id, nil
}

func encodePolicy(policy []byte) []byte { return append([]byte{rowVersion}, policy...) }

// DecodePolicyRow reads a policy's row. The caller knows the policy's hash, and so need not trust who gave it the row.
func DecodePolicyRow(value []byte) (crypto.Policy, error) {
	if len(value) < 1 || value[0] != rowVersion {
		return crypto.Policy{}, fmt.Errorf("row of a policy does not begin with the byte %d", rowVersion)
	}
	return crypto.DecodeRegisteredPolicy(value[1:])
}
