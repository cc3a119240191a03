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
	rowAccount  byte = 0x01 // || address(32)
	rowLine     byte = 0x02 // || address(32) || asset(16)
	rowAsset    byte = 0x03 // || asset(16)
	rowCode     byte = 0x04 // || code, padded with zeros to 12 bytes
	rowHoldings byte = 0x05 // || address(32)
	rowHold     byte = 0x06 // || hold(32)
	rowGrant    byte = 0x07 // || granter(32) || grantee(32) || kind(1) || asset(16)

	rowParameters byte = 0x40
	rowNetwork    byte = 0x41
	rowFeeRate    byte = 0x42

	rowBucket byte = 0x50 // || valid_until(8)
	rowReplay byte = 0x51

	rowValidators byte = 0x60
	rowMissed     byte = 0x61 // || consensus address(20)
	rowProposal   byte = 0x62 // || proposal(32)
	rowProposals  byte = 0x63

	rowDueCount byte = 0x70 // || second(8)
	rowDueSlot  byte = 0x71 // || second(8) || slot(4)
	rowDue      byte = 0x72

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
	Flags         AccountFlags
	Deposit       Amount         // for this row, in base units of the fee asset
	Depositor     crypto.Address // see [Line]
	Epoch         uint32         // the account's grants of other epochs are void
	ClosedLines   uint64         // number of its lines that were closed; a new line's incarnation
	ClosedHead    crypto.Hash    // of the chain over them: see [NextClosed]
	Recovery      Recovery       // zero: none was started
}

// AccountFlags are bits.
type AccountFlags uint32

const (
	AccountOptIn      AccountFlags = 1 // lines are opened by the account itself only
	AccountClosedFlag AccountFlags = 2 // for ever
)

// Recovery is the announcement of a new policy by the recovery account.
type Recovery struct {
	Policy  crypto.Hash
	ReadyAt uint64 // Unix second from which on it can be put in force
}

// Line is the position of one account in one asset.
//
// The posted counters only ever grow. Of an ordinary line debits (posted and pending) never pass the posted credits and the
// credit that the issuer grants. The line of an asset's issuer in that asset is its issuance line: its debits may pass its
// credits, by at most the maximum supply.
type Line struct {
	DebitsPending, DebitsPosted   Amount
	CreditsPending, CreditsPosted Amount
	Entries                       uint64      // number of journal entries
	Head                          crypto.Hash // of the journal: see [Entry]
	Flags                         LineFlags
	Ceiling                       Amount         // most that it may hold, says its owner; 0: no limit
	Credit                        Amount         // how far it may be overdrawn, says the issuer
	Cap                           Amount         // most that it may hold, says the issuer; 0: no limit
	Deposit                       Amount         // for this row, in base units of the fee asset
	Depositor                     crypto.Address // who put it down and gets it back; zero: the row's owner
	// Incarnation tells the journals of a line apart that was closed and opened again: it is the number of lines that the
	// account had closed when this one was opened.
	Incarnation uint64
}

// LineFlags are bits.
type LineFlags uint32

const (
	LineAuthorised LineFlags = 1
	LineFrozenIn   LineFlags = 2
	LineFrozenOut  LineFlags = 4

	lineFrozen   = LineFrozenIn | LineFrozenOut
	allLineFlags = LineAuthorised | lineFrozen
)

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
	Controls     Controls
	Frozen       LineFlags // LineFrozenIn, LineFrozenOut: of all its lines
	Credit       Amount    // sum of the credits of its lines
}

// Holdings says how many rows an account has, which all have to go before it can be closed. While it has none there is no
// row of them.
type Holdings struct{ Lines, Grants, Assets uint64 }

func (h Holdings) none() bool { return h == Holdings{} }

// Hold is an open hold.
type Hold struct {
	From, To     crypto.Address
	Asset        AssetID
	Amount       Amount
	Reference    Reference
	Code         uint32
	Expires      uint64         // Unix second
	NotBefore    uint64         // Unix second; 0: it can be posted at once
	Arbiter      crypto.Address // zero: none
	HashLock     crypto.Hash    // zero: none
	PostBy       Resolvers
	VoidBy       Resolvers
	PostAtExpiry bool
	Deposit      Amount         // for this row, in base units of the fee asset
	Depositor    crypto.Address // see [Line]; the owner is the holder
	Slot         uint32         // its place among the holds that expire in the same second
	Bond         bool           // it is the bond of a validator's operator, and stands in no queue: see bond.go
}

// Grant is what one account may spend from another.
type Grant struct {
	PerPeriod     Amount         // 0: no such limit
	Period        uint32         // seconds
	Total         Amount         // 0: no such limit
	Until         uint64         // Unix second
	To            crypto.Address // the only account that may be paid; zero: any
	Begun         uint64         // Unix second at which it was given: the first period's beginning
	PeriodNumber  uint64         // of the period in which it was used last
	SpentInPeriod Amount         // in that period, if PerPeriod is there
	Spent         Amount         // in all, if Total is there
	Deposit       Amount         // for this row, in base units of the fee asset
	Depositor     crypto.Address // see [Line]; the owner is the granter
	Epoch         uint32         // of the granter's account when it was given
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

// HoldingsRow returns the key of the row of an account's holdings.
func HoldingsRow(a crypto.Address) []byte { return append([]byte{rowHoldings}, a[:]...) }

// HoldRow returns the key of an open hold's row.
func HoldRow(id crypto.Hash) []byte { return append([]byte{rowHold}, id[:]...) }

// GrantRow returns the key of a grant's row.
func GrantRow(k GrantKey) []byte {
	key := append(append([]byte{rowGrant}, k.Granter[:]...), k.Grantee[:]...)
	return append(append(key, byte(k.Kind)), k.Asset[:]...)
}

// FeeRateRow returns the key of the row of the fee rate.
func FeeRateRow() []byte { return []byte{rowFeeRate} }

func dueCountRow(second uint64) []byte { return appendUint64([]byte{rowDueCount}, second) }

func dueSlotRow(second uint64, slot uint32) []byte {
	return appendUint32(appendUint64([]byte{rowDueSlot}, second), slot)
}

// PolicyRow returns the key of the row that holds the bytes of the policy with a hash.
func PolicyRow(hash crypto.Hash) []byte { return append([]byte{rowPolicy}, hash[:]...) }

// ParametersRow returns the key of the parameters' row.
func ParametersRow() []byte { return []byte{rowParameters} }

// NetworkRow returns the key of the row that says which network this state belongs to.
func NetworkRow() []byte { return []byte{rowNetwork} }

// ValidatorsRow returns the key of the validators' row.
func ValidatorsRow() []byte { return []byte{rowValidators} }

// MissedRow returns the key of the row of the blocks that a validator has missed.
func MissedRow(v ConsensusAddress) []byte { return append([]byte{rowMissed}, v[:]...) }

// ProposalRow returns the key of an open proposal's row.
func ProposalRow(id crypto.Hash) []byte { return append([]byte{rowProposal}, id[:]...) }

// ProposalsRow returns the key of the row that lists the open proposals.
func ProposalsRow() []byte { return []byte{rowProposals} }

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
	w.Uint32(4, uint32(a.Flags))
	w.Bytes(5, a.Deposit.Bytes())
	w.Uint32(6, a.Epoch)
	w.Uint64(7, a.ClosedLines)
	writeOptional(w, 8, a.ClosedHead[:])
	if a.Recovery != (Recovery{}) {
		rw := canonical.NewWriter(nil)
		rw.Message(1, a.Recovery.Policy[:])
		rw.Uint64(2, a.Recovery.ReadyAt)
		w.Message(9, rw.Done())
	}
	writeAddress(w, 10, a.Depositor)
	return w.Done()
}

// DecodeAccount reads an account's row.
func DecodeAccount(value []byte) (a Account, err error) {
	r := openRow(value)
	r.Fixed(1, "policy", a.Policy[:])
	a.PolicyVersion = r.Uint32(2, "policy_version")
	a.Sequence = r.Uint64(3, "sequence")
	a.Flags = AccountFlags(r.Uint32(4, "flags"))
	a.Deposit = readAmount(r, 5, "deposit")
	a.Epoch = r.Uint32(6, "epoch")
	a.ClosedLines = r.Uint64(7, "closed_lines")
	readOptional(r, 8, "closed_head", a.ClosedHead[:])
	if message, present := r.Message(9, "recovery"); present {
		rr := canonical.NewReader(message)
		rr.Fixed(1, "policy", a.Recovery.Policy[:])
		a.Recovery.ReadyAt = rr.Uint64(2, "ready_at")
		if err := rr.Close(); err != nil {
			return a, canonical.In("recovery", err)
		}
	}
	a.Depositor = readAddress(r, 10, "depositor")
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
	w.Uint32(7, uint32(l.Flags))
	w.Bytes(8, l.Ceiling.Bytes())
	w.Bytes(9, l.Credit.Bytes())
	w.Bytes(10, l.Cap.Bytes())
	w.Bytes(11, l.Deposit.Bytes())
	w.Uint64(12, l.Incarnation)
	writeAddress(w, 13, l.Depositor)
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
	l.Flags = LineFlags(r.Uint32(7, "flags"))
	l.Ceiling = readAmount(r, 8, "ceiling")
	l.Credit = readAmount(r, 9, "credit")
	l.Cap = readAmount(r, 10, "cap")
	l.Deposit = readAmount(r, 11, "deposit")
	l.Incarnation = r.Uint64(12, "incarnation")
	l.Depositor = readAddress(r, 13, "depositor")
	return l, r.Close()
}

func (a Asset) encode() []byte {
	w := writeRow()
	w.Message(1, a.Issuer[:])
	w.String(2, a.Code)
	w.Uint32(3, a.Scale)
	w.Bytes(4, a.MaxSupply.Bytes())
	w.Bytes(5, a.MetadataHash)
	w.Uint32(6, uint32(a.Controls))
	w.Uint32(7, uint32(a.Frozen)>>1)
	w.Bytes(8, a.Credit.Bytes())
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
	a.Controls = Controls(r.Uint32(6, "controls"))
	a.Frozen = readSides(r, 7, "frozen")
	a.Credit = readAmount(r, 8, "credit")
	return a, r.Close()
}

func (h Holdings) encode() []byte {
	w := writeRow()
	w.Uint64(1, h.Lines)
	w.Uint64(2, h.Grants)
	w.Uint64(3, h.Assets)
	return w.Done()
}

// DecodeHoldings reads the row of an account's holdings.
func DecodeHoldings(value []byte) (h Holdings, err error) {
	r := openRow(value)
	h.Lines = r.Uint64(1, "lines")
	h.Grants = r.Uint64(2, "grants")
	h.Assets = r.Uint64(3, "assets")
	return h, r.Close()
}

func (h Hold) encode() []byte {
	w := writeRow()
	w.Message(1, h.From[:])
	w.Message(2, h.To[:])
	w.Message(3, h.Asset[:])
	w.Bytes(4, h.Amount.Bytes())
	writeOptional(w, 5, h.Reference[:])
	w.Uint32(6, h.Code)
	w.Uint64(7, h.Expires)
	w.Uint64(8, h.NotBefore)
	writeAddress(w, 9, h.Arbiter)
	writeOptional(w, 10, h.HashLock[:])
	w.Uint32(11, uint32(h.PostBy))
	w.Uint32(12, uint32(h.VoidBy))
	w.Bool(13, h.PostAtExpiry)
	w.Bytes(14, h.Deposit.Bytes())
	w.Uint32(15, h.Slot)
	writeAddress(w, 16, h.Depositor)
	w.Bool(17, h.Bond)
	return w.Done()
}

// DecodeHold reads a hold's row.
func DecodeHold(value []byte) (h Hold, err error) {
	r := openRow(value)
	r.Fixed(1, "from", h.From[:])
	r.Fixed(2, "to", h.To[:])
	r.Fixed(3, "asset", h.Asset[:])
	h.Amount = readAmount(r, 4, "amount")
	readOptional(r, 5, "reference", h.Reference[:])
	h.Code = r.Uint32(6, "code")
	h.Expires = r.Uint64(7, "expires")
	h.NotBefore = r.Uint64(8, "not_before")
	h.Arbiter = readAddress(r, 9, "arbiter")
	readOptional(r, 10, "hash_lock", h.HashLock[:])
	h.PostBy = Resolvers(r.Uint32(11, "post_by"))
	h.VoidBy = Resolvers(r.Uint32(12, "void_by"))
	h.PostAtExpiry = r.Bool(13, "post_at_expiry")
	h.Deposit = readAmount(r, 14, "deposit")
	h.Slot = r.Uint32(15, "slot")
	h.Depositor = readAddress(r, 16, "depositor")
	h.Bond = r.Bool(17, "bond")
	return h, r.Close()
}

func (g Grant) encode() []byte {
	w := writeRow()
	w.Bytes(1, g.PerPeriod.Bytes())
	w.Uint32(2, g.Period)
	w.Bytes(3, g.Total.Bytes())
	w.Uint64(4, g.Until)
	writeAddress(w, 5, g.To)
	w.Uint64(6, g.Begun)
	w.Uint64(7, g.PeriodNumber)
	w.Bytes(8, g.SpentInPeriod.Bytes())
	w.Bytes(9, g.Spent.Bytes())
	w.Bytes(10, g.Deposit.Bytes())
	w.Uint32(11, g.Epoch)
	writeAddress(w, 12, g.Depositor)
	return w.Done()
}

// DecodeGrant reads a grant's row.
func DecodeGrant(value []byte) (g Grant, err error) {
	r := openRow(value)
	g.PerPeriod = readAmount(r, 1, "per_period")
	g.Period = r.Uint32(2, "period")
	g.Total = readAmount(r, 3, "total")
	g.Until = r.Uint64(4, "until")
	g.To = readAddress(r, 5, "to")
	g.Begun = r.Uint64(6, "begun")
	g.PeriodNumber = r.Uint64(7, "period_number")
	g.SpentInPeriod = readAmount(r, 8, "spent_in_period")
	g.Spent = readAmount(r, 9, "spent")
	g.Deposit = readAmount(r, 10, "deposit")
	g.Epoch = r.Uint32(11, "epoch")
	g.Depositor = readAddress(r, 12, "depositor")
	return g, r.Close()
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
