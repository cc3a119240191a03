package ledger

import (
	"unicode/utf8"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Transfer moves an amount of one asset from a signer's line to another account's line.
//
// A transfer from the asset's issuer mints (the issuance line goes further into debit, up to the maximum supply), a
// transfer to the issuer burns.
type Transfer struct {
	From      uint32 // index of the signer whose line is debited
	To        crypto.Address
	Asset     AssetID
	Amount    Amount    // above 0
	Reference Reference // the caller's own 128-bit id, kept for searching; zero: none
	Code      uint32    // the caller's own kind of transfer, at most 65535; 0: none
	Memo      string    // at most MaxMemoBytes of UTF-8, public
}

// Reference is a caller's own 128-bit id.
type Reference [16]byte

func (t *Transfer) Kind() Kind { return KindTransfer }
func (t *Transfer) By() uint32 { return t.From }

func decodeTransfer(r *canonical.Reader) Operation {
	t := &Transfer{From: r.Uint32(1, "from")}
	r.Fixed(2, "to", t.To[:])
	r.Fixed(3, "asset", t.Asset[:])
	t.Amount = readAmount(r, 4, "amount")
	if r.OptionalFixed(5, "reference", t.Reference[:]) && t.Reference == (Reference{}) {
		r.Fail("reference", "explicit default")
	}
	t.Code = r.Uint32(6, "code")
	t.Memo = r.String(7, "memo", MaxMemoBytes)
	return t
}

func (t *Transfer) encode(w *canonical.Writer) {
	w.Uint32(1, t.From)
	w.Message(2, t.To[:])
	w.Message(3, t.Asset[:])
	w.Bytes(4, t.Amount.Bytes())
	if t.Reference != (Reference{}) {
		w.Message(5, t.Reference[:])
	}
	w.Uint32(6, t.Code)
	w.String(7, t.Memo)
}

func (t *Transfer) validate(b *Body) error {
	switch {
	case b.Signers[t.From].Address == t.To:
		return canonical.Errorf("to", "%s is the sender itself", t.To)
	case t.Amount.IsZero():
		return canonical.Errorf("amount", "missing, want more than 0")
	case t.Code > 65535:
		return canonical.Errorf("code", "%d, at most 65535", t.Code)
	case len(t.Memo) > MaxMemoBytes:
		return canonical.Errorf("memo", "%d bytes, at most %d", len(t.Memo), MaxMemoBytes)
	case !utf8.ValidString(t.Memo):
		return canonical.Errorf("memo", "not valid UTF-8")
	}
	return nil
}

func (t *Transfer) verification(crypto.Hash, *Body, uint32) []crypto.Check { return nil }

func (t *Transfer) apply(x *execution) (OperationResult, Code) {
	asset, ok := x.state.asset(t.Asset)
	if !ok {
		return OperationResult{}, AssetUnknown
	}
	from := x.tx.Body.Signers[t.From].Address
	if code := x.move(asset, t.Asset, from, t.To, t.Amount); code != OK {
		return OperationResult{}, code
	}
	return OperationResult{Amount: t.Amount}, OK
}
