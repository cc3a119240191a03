package ledger

import (
	"unicode/utf8"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Transfer moves an amount of one asset from one account's line to another's.
//
// A transfer from the asset's issuer mints (the issuance line goes further into debit, up to the maximum supply), a
// transfer to the issuer burns.
type Transfer struct {
	From      uint32 // index of the signer, whose line is debited unless there is a Granter
	To        crypto.Address
	Asset     AssetID
	Amount    Amount         // above 0
	Reference Reference      // the caller's own 128-bit id, kept for searching; zero: none
	Code      uint32         // the caller's own kind of transfer, at most 65535; 0: none
	Memo      string         // at most MaxMemoBytes of UTF-8, public
	Balancing Balancing      // Amount is then a ceiling, and the receipt says what was moved
	Granter   crypto.Address // whose line is debited, under a grant to the signer; zero: the signer's own
}

// Reference is a caller's own 128-bit id.
type Reference [16]byte

// Balancing makes an amount a ceiling. Its values are bits.
type Balancing uint32

const (
	BalancingDebit  Balancing = 1 // at most what the debited line has available
	BalancingCredit Balancing = 2 // at most what the credited line owes
)

func (t *Transfer) Kind() Kind { return KindTransfer }
func (t *Transfer) By() uint32 { return t.From }

func decodeTransfer(r *canonical.Reader) Operation {
	t := &Transfer{From: r.Uint32(1, "from")}
	r.Fixed(2, "to", t.To[:])
	r.Fixed(3, "asset", t.Asset[:])
	t.Amount = readAmount(r, 4, "amount")
	t.Reference, t.Code, t.Memo = readNote(r)
	t.Balancing = Balancing(r.Uint32(8, "balancing"))
	t.Granter = readAddress(r, 9, "granter")
	return t
}

func (t *Transfer) encode(w *canonical.Writer) {
	w.Uint32(1, t.From)
	w.Message(2, t.To[:])
	w.Message(3, t.Asset[:])
	w.Bytes(4, t.Amount.Bytes())
	writeNote(w, t.Reference, t.Code, t.Memo)
	w.Uint32(8, uint32(t.Balancing))
	writeAddress(w, 9, t.Granter)
}

func (t *Transfer) validate(b *Body) error {
	if t.Balancing > BalancingDebit|BalancingCredit {
		return canonical.Errorf("balancing", "%d, want 0 to 3", t.Balancing)
	}
	if err := checkDebited(b, t.From, t.Granter, t.To); err != nil {
		return err
	}
	return checkNote(t.Amount, t.Code, t.Memo)
}

// debitedAccount returns the account whose line an operation of signer number by debits.
func debitedAccount(b *Body, by uint32, granter crypto.Address) crypto.Address {
	if granter != (crypto.Address{}) {
		return granter
	}
	return b.Signers[by].Address
}

func checkDebited(b *Body, by uint32, granter, to crypto.Address) error {
	switch {
	case granter == b.Signers[by].Address && granter != (crypto.Address{}):
		return canonical.Errorf("granter", "%s is the signer itself", granter)
	case debitedAccount(b, by, granter) == to:
		return canonical.Errorf("to", "%s is the sender itself", to)
	}
	return nil
}

// A note is what the caller of a movement adds for itself: fields 5 to 7 of every operation that moves something.
func readNote(r *canonical.Reader) (reference Reference, code uint32, memo string) {
	readOptional(r, 5, "reference", reference[:])
	return reference, r.Uint32(6, "code"), r.String(7, "memo", MaxMemoBytes)
}

func writeNote(w *canonical.Writer, reference Reference, code uint32, memo string) {
	writeOptional(w, 5, reference[:])
	w.Uint32(6, code)
	w.String(7, memo)
}

func checkNote(amount Amount, code uint32, memo string) error {
	switch {
	case amount.IsZero():
		return canonical.Errorf("amount", "missing, want more than 0")
	case code > 65535:
		return canonical.Errorf("code", "%d, at most 65535", code)
	case len(memo) > MaxMemoBytes:
		return canonical.Errorf("memo", "%d bytes, at most %d", len(memo), MaxMemoBytes)
	case !utf8.ValidString(memo):
		return canonical.Errorf("memo", "not valid UTF-8")
	}
	return nil
}

func (t *Transfer) apply(x *execution) (OperationResult, Code) {
	asset, ok := x.state.asset(t.Asset)
	if !ok {
		return OperationResult{}, AssetUnknown
	}
	from := LineKey{debitedAccount(&x.tx.Body, t.From, t.Granter), t.Asset}
	to := LineKey{t.To, t.Asset}
	grant := x.spending(t.Granter, t.From, KindTransfer, t.Asset, t.To)
	amount, code := x.prepare(asset, from, to, t.Amount, t.Balancing, grant, 0)
	if code != OK {
		return OperationResult{}, code
	}
	debit, _ := x.state.lines.get(from)
	credit, _ := x.state.lines.get(to)
	if code := debitable(asset, from, debit, amount); code != OK {
		return OperationResult{}, code
	}
	if code := x.creditable(asset, to, credit, amount); code != OK {
		return OperationResult{}, code
	}
	debit.DebitsPosted = debit.DebitsPosted.mustAdd(amount)
	credit.CreditsPosted = credit.CreditsPosted.mustAdd(amount)
	x.enterBoth(from, debit, to, credit, Entry{Kind: EntryTransfer, Amount: amount, Reference: t.Reference, Code: t.Code})
	return OperationResult{Amount: amount}, OK
}
