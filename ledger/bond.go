package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// A bond is what the operator of a validator loses when the validator equivocates: a hold from the operator to the account
// that collects the fees when it is made. It stands in no queue and never expires; nobody can post or void it. Evidence
// posts it, its operator releases it when it answers for no validator any more.

// BondID returns the id of the hold that is an operator's bond.
func BondID(operator crypto.Address) crypto.Hash { return crypto.DomainBond.Hash(operator[:]) }

// Bond makes the signer's bond.
type Bond struct {
	Signer uint32
	Amount Amount // above 0, in base units of the fee asset
}

func (o *Bond) Kind() Kind { return KindBond }
func (o *Bond) By() uint32 { return o.Signer }

func decodeBond(r *canonical.Reader) Operation {
	return &Bond{Signer: r.Uint32(1, "signer"), Amount: readAmount(r, 2, "amount")}
}

func (o *Bond) encode(w *canonical.Writer) {
	w.Uint32(1, o.Signer)
	w.Bytes(2, o.Amount.Bytes())
}

func (o *Bond) validate(*Body) error {
	if o.Amount.IsZero() {
		return canonical.Errorf("amount", "missing, want more than 0")
	}
	return nil
}

func (o *Bond) apply(x *execution) (OperationResult, Code) {
	signer := x.account(o.Signer)
	if _, bonded := x.state.holds.get(BondID(signer)); bonded {
		return OperationResult{}, BondExists
	}
	if x.collects(signer) {
		return OperationResult{}, HoldNotPermitted
	}
	if code := x.open(LineKey{x.params.FeeCollector, x.params.FeeAsset}, signer); code != OK {
		return OperationResult{}, code
	}
	if code := x.reserveBond(signer, o.Amount, x.cause()); code != OK {
		return OperationResult{}, code
	}
	return OperationResult{Amount: o.Amount, Hold: BondID(signer)}, OK
}

// reserveBond makes an operator's bond. The collector's line is open.
func (b *Block) reserveBond(operator crypto.Address, amount Amount, by cause) Code {
	asset, _ := b.state.asset(b.params.FeeAsset)
	from, to := LineKey{operator, b.params.FeeAsset}, LineKey{b.params.FeeCollector, b.params.FeeAsset}
	debit, _ := b.state.lines.get(from)
	credit, _ := b.state.lines.get(to)
	if code := debitable(asset, from, debit, amount); code != OK {
		return code
	}
	if code := b.creditable(asset, to, credit, amount); code != OK {
		return code
	}
	id := BondID(operator)
	b.state.holds.put(id, Hold{From: operator, To: to.Account, Asset: from.Asset, Amount: amount, Bond: true})
	debit.DebitsPending = debit.DebitsPending.mustAdd(amount)
	credit.CreditsPending = credit.CreditsPending.mustAdd(amount)
	b.enterPair(from, debit, to, credit, Entry{Kind: EntryHold, Amount: amount, Hold: id}, by)
	return OK
}

// ReleaseBond returns the signer's bond.
type ReleaseBond struct {
	Signer uint32
}

func (o *ReleaseBond) Kind() Kind { return KindReleaseBond }
func (o *ReleaseBond) By() uint32 { return o.Signer }

func decodeReleaseBond(r *canonical.Reader) Operation {
	return &ReleaseBond{Signer: r.Uint32(1, "signer")}
}

func (o *ReleaseBond) encode(w *canonical.Writer) { w.Uint32(1, o.Signer) }

func (o *ReleaseBond) validate(*Body) error { return nil }

func (o *ReleaseBond) apply(x *execution) (OperationResult, Code) {
	signer := x.account(o.Signer)
	id := BondID(signer)
	bond, ok := x.state.holds.get(id)
	if !ok {
		return OperationResult{}, BondMissing
	}
	set, _ := x.state.validators.get(struct{}{})
	for _, v := range set {
		// Evidence may come for as long as the bond is locked, also against a key that was rotated or removed.
		if v.Operator == signer && x.answers(v) {
			return OperationResult{}, BondLocked
		}
	}
	x.resolve(id, bond, EntryVoid, bond.Amount, x.cause())
	return OperationResult{Amount: bond.Amount}, OK
}
