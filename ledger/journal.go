package ledger

import (
	"strconv"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// EntryKind says why a line changed.
type EntryKind uint32

const (
	EntryTransfer EntryKind = 1  // a transfer operation
	EntryFee      EntryKind = 2  // the payer's fee of one transaction
	EntryFees     EntryKind = 3  // the collector's fees of one block
	EntryGenesis  EntryKind = 4  // a balance at the beginning
	EntryHold     EntryKind = 5  // a hold was made: the amount is pending
	EntryPost     EntryKind = 6  // a hold was posted: the amount moved, the rest returned
	EntryVoid     EntryKind = 7  // a hold was voided: the amount returned
	EntryExpire   EntryKind = 8  // a hold expired: the amount returned
	EntryDeposit  EntryKind = 9  // the payer's deposit for a new row
	EntryRefund   EntryKind = 10 // the deposit of a row that has gone
	EntryDeposits EntryKind = 11 // the pool's deposits of one block
	EntryRefunds  EntryKind = 12 // what the pool paid back in one block
	EntryClawback EntryKind = 13 // the issuer took an amount back
)

var entryKinds = [...]string{EntryTransfer: "transfer", EntryFee: "fee", EntryFees: "fees", EntryGenesis: "genesis", EntryHold: "hold",
	EntryPost: "post", EntryVoid: "void", EntryExpire: "expire", EntryDeposit: "deposit", EntryRefund: "refund",
	EntryDeposits: "deposits", EntryRefunds: "refunds", EntryClawback: "clawback"}

// String returns the kind's name.
func (k EntryKind) String() string {
	if k >= 1 && uint64(k) < uint64(len(entryKinds)) {
		return entryKinds[k]
	}
	return "kind_" + strconv.Itoa(int(k))
}

// Entry is one line of a line's journal. Its line keeps the number of its entries and the head of a hash chain over them,
//
//	head(0) = 32 zero bytes
//	head(n) = SHA-256("pacioli.entry.v1\0" || head(n-1) || entry(n))
//
// so that whoever holds the proven line and a list of entries can tell that the list is complete and unchanged. The
// entries themselves are not in the trees: nodes index them.
type Entry struct {
	Number       uint64 // 1, 2, ...
	Height       uint64
	TxID         crypto.Hash // zero for entries of a block or of genesis
	Operation    uint32      // index of the operation; 0 where none made it
	Kind         EntryKind
	Credit       bool
	Counterparty crypto.Address // zero for EntryFees, EntryDeposits and EntryRefunds: they are many
	Amount       Amount
	// The line's counters after the entry.
	DebitsPending, DebitsPosted   Amount
	CreditsPending, CreditsPosted Amount

	Hold      crypto.Hash // of EntryHold to EntryExpire, and of an EntryRefund of a hold's deposit
	Reference Reference   // the caller's, of a transfer or a hold
	Code      uint32      // likewise
}

// LineEntry is an encoded entry with its place: what an index keeps.
type LineEntry struct {
	Line        LineKey
	Incarnation uint64 // of the line: see [Line]
	Number      uint64
	Encoded     []byte
	Noted       bool // the entry is: an index need not decode the others
}

// Noted tells whether the entry has something to be searched by: a hold, a reference or a code.
func (e Entry) Noted() bool {
	return e.Hold != crypto.Hash{} || e.Reference != Reference{} || e.Code != 0
}

// Encode writes the canonical entry.
func (e Entry) Encode() []byte {
	w := canonical.NewWriter(make([]byte, 0, 160))
	w.Uint64(1, e.Number)
	w.Uint64(2, e.Height)
	writeOptional(w, 3, e.TxID[:])
	w.Uint32(4, e.Operation)
	w.Uint32(5, uint32(e.Kind))
	w.Bool(6, e.Credit)
	writeAddress(w, 7, e.Counterparty)
	w.Bytes(8, e.Amount.Bytes())
	w.Bytes(9, e.DebitsPending.Bytes())
	w.Bytes(10, e.DebitsPosted.Bytes())
	w.Bytes(11, e.CreditsPending.Bytes())
	w.Bytes(12, e.CreditsPosted.Bytes())
	writeOptional(w, 13, e.Hold[:])
	writeOptional(w, 14, e.Reference[:])
	w.Uint32(15, e.Code)
	return w.Done()
}

// DecodeEntry reads an entry.
func DecodeEntry(b []byte) (e Entry, err error) {
	r := canonical.NewReader(b)
	e.Number = r.Uint64(1, "number")
	e.Height = r.Uint64(2, "height")
	readOptional(r, 3, "tx_id", e.TxID[:])
	e.Operation = r.Uint32(4, "operation")
	e.Kind = EntryKind(r.Uint32(5, "kind"))
	e.Credit = r.Bool(6, "credit")
	e.Counterparty = readAddress(r, 7, "counterparty")
	e.Amount = readAmount(r, 8, "amount")
	e.DebitsPending = readAmount(r, 9, "debits_pending")
	e.DebitsPosted = readAmount(r, 10, "debits_posted")
	e.CreditsPending = readAmount(r, 11, "credits_pending")
	e.CreditsPosted = readAmount(r, 12, "credits_posted")
	readOptional(r, 13, "hold", e.Hold[:])
	readOptional(r, 14, "reference", e.Reference[:])
	e.Code = r.Uint32(15, "code")
	return e, r.Close()
}

// NextHead returns the head of a journal after one more entry.
func NextHead(head crypto.Hash, entry []byte) crypto.Hash {
	return crypto.DomainEntry.Hash(head[:], entry)
}
