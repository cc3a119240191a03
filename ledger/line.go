package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// What the owner of a line and of an account does with them.

// OpenLine opens the signer's own line in an asset, or sets its ceiling.
type OpenLine struct {
	Signer  uint32
	Asset   AssetID
	Ceiling *Amount // most that the line may hold, 0 for no limit; nil: as it is
}

func (o *OpenLine) Kind() Kind { return KindOpenLine }
func (o *OpenLine) By() uint32 { return o.Signer }

func decodeOpenLine(r *canonical.Reader) Operation {
	o := &OpenLine{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "asset", o.Asset[:])
	o.Ceiling = readLimit(r, 3, "ceiling")
	return o
}

func (o *OpenLine) encode(w *canonical.Writer) {
	w.Uint32(1, o.Signer)
	w.Message(2, o.Asset[:])
	writeLimit(w, 3, o.Ceiling)
}

func (o *OpenLine) validate(*Body) error { return nil }

func (o *OpenLine) apply(x *execution) (OperationResult, Code) {
	asset, ok := x.state.asset(o.Asset)
	signer := x.account(o.Signer)
	switch {
	case !ok:
		return OperationResult{}, AssetUnknown
	case asset.Issuer == signer:
		return OperationResult{}, IssuerLine
	}
	k := LineKey{signer, o.Asset}
	_, existed := x.state.lines.get(k)
	if code := x.open(k, signer); code != OK {
		return OperationResult{}, code
	}
	line, _ := x.state.lines.get(k)
	if existed && (o.Ceiling == nil || *o.Ceiling == line.Ceiling) {
		return OperationResult{}, Unchanged
	}
	if o.Ceiling != nil {
		line.Ceiling = *o.Ceiling
		x.state.lines.put(k, line)
	}
	return OperationResult{}, OK
}

// CloseLine removes the signer's own empty line and pays its deposit back. A line that is opened again is a new
// incarnation with a journal of its own; the end of the old one stays in the account's chain of closed lines.
type CloseLine struct {
	Signer uint32
	Asset  AssetID
	To     crypto.Address // who receives the deposit, on its line of the fee asset, if the account itself put it down
}

func (c *CloseLine) Kind() Kind { return KindCloseLine }
func (c *CloseLine) By() uint32 { return c.Signer }

func decodeCloseLine(r *canonical.Reader) Operation {
	c := &CloseLine{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "asset", c.Asset[:])
	r.Fixed(3, "to", c.To[:])
	return c
}

func (c *CloseLine) encode(w *canonical.Writer) {
	w.Uint32(1, c.Signer)
	w.Message(2, c.Asset[:])
	w.Message(3, c.To[:])
}

func (c *CloseLine) validate(*Body) error { return nil }

// NextClosed continues an account's chain over its closed lines.
func NextClosed(head crypto.Hash, asset AssetID, l Line) crypto.Hash {
	return crypto.DomainClosed.Hash(head[:], asset[:], appendUint64(appendUint64(nil, l.Incarnation), l.Entries), l.Head[:])
}

func (c *CloseLine) apply(x *execution) (OperationResult, Code) {
	signer := x.account(c.Signer)
	k := LineKey{signer, c.Asset}
	line, ok := x.state.lines.get(k)
	if !ok {
		return OperationResult{}, LineUnknown
	}
	asset, _ := x.state.asset(c.Asset)
	switch {
	case asset.Issuer == signer:
		return OperationResult{}, IssuerLine
	case asset.frozen(line, lineFrozen): // or a freeze would be shed by closing and opening
		return OperationResult{}, LineFrozen
	case !line.empty() || k == LineKey{x.params.FeeCollector, x.params.FeeAsset}:
		return OperationResult{}, LineNotEmpty
	}
	x.state.lines.remove(k)
	x.holding(signer, func(h *Holdings) { h.Lines-- })
	if !line.Credit.IsZero() {
		asset.Credit = asset.Credit.mustSub(line.Credit)
		x.state.assets.put(c.Asset, asset)
	}
	account, _ := x.state.accounts.get(signer)
	account.ClosedLines++
	account.ClosedHead = NextClosed(account.ClosedHead, c.Asset, line)
	x.state.accounts.put(signer, account)
	return OperationResult{}, x.giveBack(line.Deposit, line.Depositor, c.To)
}

// empty tells whether a line holds, owes and promises nothing.
func (l Line) empty() bool {
	return l.CreditsPosted == l.DebitsPosted && l.DebitsPending.IsZero() && l.CreditsPending.IsZero()
}

// SetAccount sets or clears a flag of the signer's account.
type SetAccount struct {
	Signer uint32
	OptIn  bool // lines of the account are opened by itself only; false: by whoever pays it
}

func (s *SetAccount) Kind() Kind { return KindSetAccount }
func (s *SetAccount) By() uint32 { return s.Signer }

func decodeSetAccount(r *canonical.Reader) Operation {
	s := &SetAccount{Signer: r.Uint32(1, "signer")}
	set, clear := r.Uint32(2, "set"), r.Uint32(3, "clear")
	if !r.Failed() && !(set == 1 && clear == 0 || set == 0 && clear == 1) {
		r.Fail("", "want set or clear of 1, and not both")
	}
	s.OptIn = set == 1
	return s
}

func (s *SetAccount) encode(w *canonical.Writer) {
	w.Uint32(1, s.Signer)
	if s.OptIn {
		w.Uint32(2, 1)
	} else {
		w.Uint32(3, 1)
	}
}

func (s *SetAccount) validate(*Body) error { return nil }

func (s *SetAccount) apply(x *execution) (OperationResult, Code) {
	signer := x.account(s.Signer)
	account, _ := x.state.accounts.get(signer)
	if s.OptIn == (account.Flags&AccountOptIn != 0) {
		return OperationResult{}, Unchanged
	}
	account.Flags ^= AccountOptIn
	x.state.accounts.put(signer, account)
	return OperationResult{}, OK
}

// CloseAccount ends the signer's account for ever. Its row stays, with its sequence and its policy: nothing that was
// signed for it can come back, and no earlier policy of it either.
type CloseAccount struct {
	Signer uint32
	To     crypto.Address // who receives the deposit, on its line of the fee asset, if the account itself put it down
}

func (c *CloseAccount) Kind() Kind { return KindCloseAccount }
func (c *CloseAccount) By() uint32 { return c.Signer }

func decodeCloseAccount(r *canonical.Reader) Operation {
	c := &CloseAccount{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "to", c.To[:])
	return c
}

func (c *CloseAccount) encode(w *canonical.Writer) {
	w.Uint32(1, c.Signer)
	w.Message(2, c.To[:])
}

func (c *CloseAccount) validate(*Body) error { return nil }
func (c *CloseAccount) governs(*Body) bool   { return true }

func (c *CloseAccount) apply(x *execution) (OperationResult, Code) {
	signer := x.account(c.Signer)
	if _, held := x.state.holdings.get(signer); held || x.collects(signer) { // who has a bond has the line that it stands on
		return OperationResult{}, AccountInUse
	}
	if set, _ := x.state.validators.get(struct{}{}); operated(set, signer) >= 0 {
		return OperationResult{}, AccountInUse
	}
	account, _ := x.state.accounts.get(signer)
	deposit, depositor := account.Deposit, account.Depositor
	account.Flags |= AccountClosedFlag
	account.Recovery, account.Deposit, account.Depositor = Recovery{}, Amount{}, crypto.Address{}
	x.state.accounts.put(signer, account)
	return OperationResult{}, x.giveBack(deposit, depositor, c.To)
}
