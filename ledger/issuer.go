package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// What an issuer can do to the holders of its asset, beyond issuing. All of it was foreseeable when the asset was made:
// [Controls] can be dropped and never be added, and the maximum supply can only be lowered.

// SetAsset drops controls, lowers the maximum supply, freezes or unfreezes the whole asset.
type SetAsset struct {
	Signer       uint32 // the issuer
	Asset        AssetID
	DropControls Controls
	MaxSupply    Amount    // 0: as it is
	Freeze       LineFlags // LineFrozenIn, LineFrozenOut
	Unfreeze     LineFlags
}

func (s *SetAsset) Kind() Kind { return KindSetAsset }
func (s *SetAsset) By() uint32 { return s.Signer }

// On the wire an asset's freezes are numbered 1 and 2, a line's 2 and 4.
func decodeSetAsset(r *canonical.Reader) Operation {
	s := &SetAsset{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "asset", s.Asset[:])
	s.DropControls = Controls(r.Uint32(3, "drop_controls"))
	s.MaxSupply = readAmount(r, 4, "max_supply")
	s.Freeze = readSides(r, 5, "freeze")
	s.Unfreeze = readSides(r, 6, "unfreeze")
	return s
}

func readSides(r *canonical.Reader, number int, field string) LineFlags {
	sides := r.Uint32(number, field)
	if sides > 3 {
		r.Fail(field, "%d, at most 3", sides)
	}
	return LineFlags(sides << 1)
}

func (s *SetAsset) encode(w *canonical.Writer) {
	w.Uint32(1, s.Signer)
	w.Message(2, s.Asset[:])
	w.Uint32(3, uint32(s.DropControls))
	w.Bytes(4, s.MaxSupply.Bytes())
	w.Uint32(5, uint32(s.Freeze)>>1)
	w.Uint32(6, uint32(s.Unfreeze)>>1)
}

func (s *SetAsset) validate(*Body) error {
	switch {
	case s.DropControls > allControls:
		return canonical.Errorf("drop_controls", "%d, at most %d", s.DropControls, allControls)
	case s.Freeze&^lineFrozen != 0:
		return canonical.Errorf("freeze", "%d, want in, out or both", s.Freeze)
	case s.Unfreeze&^lineFrozen != 0:
		return canonical.Errorf("unfreeze", "%d, want in, out or both", s.Unfreeze)
	case s.Freeze&s.Unfreeze != 0:
		return canonical.Errorf("unfreeze", "freezes and unfreezes one side")
	case s.DropControls == 0 && s.MaxSupply.IsZero() && s.Freeze == 0 && s.Unfreeze == 0:
		return canonical.Errorf("", "changes nothing")
	}
	return nil
}

func (s *SetAsset) apply(x *execution) (OperationResult, Code) {
	asset, code := x.issued(s.Asset, s.Signer)
	if code != OK {
		return OperationResult{}, code
	}
	if asset.Controls&s.DropControls != s.DropControls || s.Freeze|s.Unfreeze != 0 && asset.Controls&ControlFreeze == 0 {
		return OperationResult{}, ControlMissing
	}
	changed := asset
	if !s.MaxSupply.IsZero() {
		if s.MaxSupply.Cmp(asset.MaxSupply) > 0 {
			return OperationResult{}, MaxSupplyRaised
		}
		changed.MaxSupply = s.MaxSupply
		if !x.withinSupply(s.Asset, changed) {
			return OperationResult{}, SupplyExceeded
		}
	}
	changed.Controls &^= s.DropControls
	changed.Frozen = changed.Frozen&^s.Unfreeze | s.Freeze
	if changed.MaxSupply == asset.MaxSupply && changed.Controls == asset.Controls && changed.Frozen == asset.Frozen {
		return OperationResult{}, Unchanged
	}
	x.state.assets.put(s.Asset, changed)
	return OperationResult{}, OK
}

// issued returns an asset that a signer has issued.
func (x *execution) issued(id AssetID, signer uint32) (Asset, Code) {
	asset, ok := x.state.asset(id)
	switch {
	case !ok:
		return Asset{}, AssetUnknown
	case asset.Issuer != x.account(signer):
		return Asset{}, NotIssuer
	}
	return asset, OK
}

// withinSupply tells whether what is issued and the credit that is granted stay within an asset's maximum supply.
func (b *Block) withinSupply(id AssetID, asset Asset) bool {
	k := LineKey{asset.Issuer, id}
	line, _ := b.state.lines.get(k)
	debits, means := line.debits(asset, k)
	return !means.less(debits)
}

// SetLine authorises, freezes or limits one holder's line.
type SetLine struct {
	Signer  uint32 // the issuer
	Account crypto.Address
	Asset   AssetID
	Set     LineFlags
	Clear   LineFlags
	Credit  *Amount // how far the line may be overdrawn; nil: as it is
	Cap     *Amount // most that it may hold, 0 for no limit; nil: as it is
}

func (s *SetLine) Kind() Kind { return KindSetLine }
func (s *SetLine) By() uint32 { return s.Signer }

func decodeSetLine(r *canonical.Reader) Operation {
	s := &SetLine{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "account", s.Account[:])
	r.Fixed(3, "asset", s.Asset[:])
	s.Set = LineFlags(r.Uint32(4, "set"))
	s.Clear = LineFlags(r.Uint32(5, "clear"))
	s.Credit = readLimit(r, 6, "credit")
	s.Cap = readLimit(r, 7, "cap")
	return s
}

func (s *SetLine) encode(w *canonical.Writer) {
	w.Uint32(1, s.Signer)
	w.Message(2, s.Account[:])
	w.Message(3, s.Asset[:])
	w.Uint32(4, uint32(s.Set))
	w.Uint32(5, uint32(s.Clear))
	writeLimit(w, 6, s.Credit)
	writeLimit(w, 7, s.Cap)
}

func (s *SetLine) validate(b *Body) error {
	switch {
	case b.Signers[s.Signer].Address == s.Account:
		return canonical.Errorf("account", "%s is the issuer itself", s.Account)
	case s.Set > allLineFlags:
		return canonical.Errorf("set", "%d, at most %d", s.Set, allLineFlags)
	case s.Clear > allLineFlags:
		return canonical.Errorf("clear", "%d, at most %d", s.Clear, allLineFlags)
	case s.Set&s.Clear != 0:
		return canonical.Errorf("clear", "sets and clears one flag")
	case s.Set == 0 && s.Clear == 0 && s.Credit == nil && s.Cap == nil:
		return canonical.Errorf("", "changes nothing")
	}
	return nil
}

func (s *SetLine) apply(x *execution) (OperationResult, Code) {
	asset, code := x.issued(s.Asset, s.Signer)
	if code != OK {
		return OperationResult{}, code
	}
	touched := s.Set | s.Clear
	if (touched&LineAuthorised != 0 || s.Cap != nil) && asset.Controls&ControlAuthorisation == 0 ||
		touched&lineFrozen != 0 && asset.Controls&ControlFreeze == 0 {
		return OperationResult{}, ControlMissing
	}
	k := LineKey{s.Account, s.Asset}
	_, existed := x.state.lines.get(k)
	if code := x.open(k, asset.Issuer); code != OK {
		return OperationResult{}, code
	}
	line, _ := x.state.lines.get(k)
	changed := line
	if s.Credit != nil {
		changed.Credit = *s.Credit
		granted, ok := asset.Credit.mustSub(line.Credit).Add(*s.Credit)
		if asset.Credit = granted; !ok || !x.withinSupply(s.Asset, asset) {
			return OperationResult{}, SupplyExceeded
		}
		if debits, means := changed.debits(asset, k); means.less(debits) {
			return OperationResult{}, CreditInUse
		}
	}
	if s.Cap != nil {
		changed.Cap = *s.Cap
	}
	changed.Flags = changed.Flags&^s.Clear | s.Set
	if existed && changed == line {
		return OperationResult{}, Unchanged
	}
	x.state.lines.put(k, changed)
	x.state.assets.put(s.Asset, asset)
	return OperationResult{}, OK
}

// Clawback takes an amount back from a holder.
type Clawback struct {
	Signer    uint32 // the issuer
	Account   crypto.Address
	Asset     AssetID
	Amount    Amount // above 0
	Reference Reference
	Code      uint32
	Memo      string
	Balancing Balancing // 0 or BalancingDebit
}

func (c *Clawback) Kind() Kind { return KindClawback }
func (c *Clawback) By() uint32 { return c.Signer }

func decodeClawback(r *canonical.Reader) Operation {
	c := &Clawback{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "account", c.Account[:])
	r.Fixed(3, "asset", c.Asset[:])
	c.Amount = readAmount(r, 4, "amount")
	c.Reference, c.Code, c.Memo = readNote(r)
	c.Balancing = Balancing(r.Uint32(8, "balancing"))
	return c
}

func (c *Clawback) encode(w *canonical.Writer) {
	w.Uint32(1, c.Signer)
	w.Message(2, c.Account[:])
	w.Message(3, c.Asset[:])
	w.Bytes(4, c.Amount.Bytes())
	writeNote(w, c.Reference, c.Code, c.Memo)
	w.Uint32(8, uint32(c.Balancing))
}

func (c *Clawback) validate(b *Body) error {
	switch {
	case b.Signers[c.Signer].Address == c.Account:
		return canonical.Errorf("account", "%s is the issuer itself", c.Account)
	case c.Balancing > BalancingDebit:
		return canonical.Errorf("balancing", "%d, want 0 or %d", c.Balancing, BalancingDebit)
	}
	return checkNote(c.Amount, c.Code, c.Memo)
}

func (c *Clawback) apply(x *execution) (OperationResult, Code) {
	asset, code := x.issued(c.Asset, c.Signer)
	if code != OK {
		return OperationResult{}, code
	}
	if asset.Controls&ControlClawback == 0 {
		return OperationResult{}, ControlMissing
	}
	from, to := LineKey{c.Account, c.Asset}, LineKey{asset.Issuer, c.Asset}
	debit, _ := x.state.lines.get(from)
	credit, _ := x.state.lines.get(to)
	// What the holder has, not what it may overdraw.
	owned := total(debit.CreditsPosted).minus(total(debit.DebitsPosted, debit.DebitsPending))
	amount := c.Amount
	if c.Balancing&BalancingDebit != 0 {
		amount = amount.Min(owned)
	}
	switch {
	case amount.IsZero():
		return OperationResult{}, NothingToTransfer
	case owned.Cmp(amount) < 0:
		return OperationResult{}, InsufficientFunds
	case !total(debit.DebitsPosted, debit.DebitsPending, amount).fits(),
		!x.roomFor(to, total(credit.CreditsPosted, credit.CreditsPending, amount)):
		return OperationResult{}, CounterOverflow
	}
	debit.DebitsPosted = debit.DebitsPosted.mustAdd(amount)
	credit.CreditsPosted = credit.CreditsPosted.mustAdd(amount)
	x.enterBoth(from, debit, to, credit, Entry{Kind: EntryClawback, Amount: amount, Reference: c.Reference, Code: c.Code})
	return OperationResult{Amount: amount}, OK
}
