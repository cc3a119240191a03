package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// A grant lets one account spend from another's line: for one kind of operation, in one asset, up to an amount in each
// period and in all, until a time. A grant for fees lets it pay its fees and deposits from there.

// KindFees is the kind of grants for fees and deposits. No operation has it.
const KindFees Kind = 0

// MaxPeriodSeconds bounds the period of a grant: 366 days.
const MaxPeriodSeconds = 31_622_400

// GrantKey names a grant.
type GrantKey struct {
	Granter, Grantee crypto.Address
	Kind             Kind    // KindFees, KindTransfer or KindCreateHold
	Asset            AssetID // zero for KindFees: it is the fee asset, whichever that is
}

// SetGrant gives a grant, or replaces one: what was spent then counts from 0 again.
type SetGrant struct {
	Signer    uint32 // the granter
	Grantee   crypto.Address
	For       Kind
	Asset     AssetID // zero for KindFees
	PerPeriod Amount  // most in one period; 0: no such limit
	Period    uint32  // seconds, there if and only if PerPeriod is
	Total     Amount  // most in all; 0: no such limit
	Until     uint64  // Unix second from which on the grant is worth nothing
	To        crypto.Address
}

func (s *SetGrant) Kind() Kind { return KindSetGrant }
func (s *SetGrant) By() uint32 { return s.Signer }

func decodeSetGrant(r *canonical.Reader) Operation {
	s := &SetGrant{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "grantee", s.Grantee[:])
	s.For = Kind(r.Uint32(3, "kind"))
	readOptional(r, 4, "asset", s.Asset[:])
	s.PerPeriod = readAmount(r, 5, "per_period")
	s.Period = r.Uint32(6, "period")
	s.Total = readAmount(r, 7, "total")
	s.Until = r.Uint64(8, "until")
	s.To = readAddress(r, 9, "to")
	return s
}

func (s *SetGrant) encode(w *canonical.Writer) {
	w.Uint32(1, s.Signer)
	w.Message(2, s.Grantee[:])
	w.Uint32(3, uint32(s.For))
	writeOptional(w, 4, s.Asset[:])
	w.Bytes(5, s.PerPeriod.Bytes())
	w.Uint32(6, s.Period)
	w.Bytes(7, s.Total.Bytes())
	w.Uint64(8, s.Until)
	writeAddress(w, 9, s.To)
}

func (s *SetGrant) validate(b *Body) error {
	if err := checkGrant(b.Signers[s.Signer].Address, s.Grantee, s.For, s.Asset); err != nil {
		return err
	}
	switch {
	case s.PerPeriod.IsZero() != (s.Period == 0):
		return canonical.Errorf("period", "want a period if and only if there is a per_period")
	case s.Period > MaxPeriodSeconds:
		return canonical.Errorf("period", "%d seconds, at most %d", s.Period, MaxPeriodSeconds)
	case s.PerPeriod.IsZero() && s.Total.IsZero():
		return canonical.Errorf("total", "missing, want a total, a per_period or both")
	case s.Until == 0:
		return canonical.Errorf("until", "missing, every grant ends")
	case s.Until > MaxUnixSeconds:
		return canonical.Errorf("until", "%d is later than the year 9999", s.Until)
	case s.For == KindFees && s.To != (crypto.Address{}):
		return canonical.Errorf("to", "a grant for fees pays nobody else")
	}
	return nil
}

func checkGrant(granter, grantee crypto.Address, kind Kind, asset AssetID) error {
	switch {
	case granter == grantee:
		return canonical.Errorf("grantee", "%s is the granter itself", grantee)
	case kind != KindFees && kind != KindTransfer && kind != KindCreateHold:
		return canonical.Errorf("kind", "%d, want 0 for fees, %d for transfers or %d for holds", kind, KindTransfer, KindCreateHold)
	case (kind == KindFees) != (asset == AssetID{}):
		return canonical.Errorf("asset", "want an asset, and none for fees")
	}
	return nil
}

func (s *SetGrant) apply(x *execution) (OperationResult, Code) {
	if _, ok := x.state.asset(s.Asset); s.For != KindFees && !ok {
		return OperationResult{}, AssetUnknown
	}
	if s.Until <= x.now() {
		return OperationResult{}, GrantExpired
	}
	granter := x.account(s.Signer)
	k := GrantKey{granter, s.Grantee, s.For, s.Asset}
	before, existed := x.state.grants.get(k)
	deposit, depositor := before.Deposit, before.Depositor
	if !existed {
		deposit, depositor = Units(x.params.DepositGrant), x.depositor(granter, x.params.DepositGrant)
		if code := x.takeDeposit(x.params.DepositGrant); code != OK {
			return OperationResult{}, code
		}
		x.holding(granter, func(h *Holdings) { h.Grants++ })
	}
	account, _ := x.state.accounts.get(granter)
	x.state.grants.put(k, Grant{PerPeriod: s.PerPeriod, Period: s.Period, Total: s.Total, Until: s.Until, To: s.To,
		Begun: x.now(), Deposit: deposit, Depositor: depositor, Epoch: account.Epoch})
	return OperationResult{}, OK
}

// RevokeGrant ends a grant.
type RevokeGrant struct {
	Signer  uint32 // the granter
	Grantee crypto.Address
	For     Kind
	Asset   AssetID // zero for KindFees
}

func (g *RevokeGrant) Kind() Kind { return KindRevokeGrant }
func (g *RevokeGrant) By() uint32 { return g.Signer }

func decodeRevokeGrant(r *canonical.Reader) Operation {
	g := &RevokeGrant{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "grantee", g.Grantee[:])
	g.For = Kind(r.Uint32(3, "kind"))
	readOptional(r, 4, "asset", g.Asset[:])
	return g
}

func (g *RevokeGrant) encode(w *canonical.Writer) {
	w.Uint32(1, g.Signer)
	w.Message(2, g.Grantee[:])
	w.Uint32(3, uint32(g.For))
	writeOptional(w, 4, g.Asset[:])
}

func (g *RevokeGrant) validate(b *Body) error {
	return checkGrant(b.Signers[g.Signer].Address, g.Grantee, g.For, g.Asset)
}

func (g *RevokeGrant) apply(x *execution) (OperationResult, Code) {
	granter := x.account(g.Signer)
	k := GrantKey{granter, g.Grantee, g.For, g.Asset}
	grant, ok := x.state.grants.get(k)
	if !ok {
		return OperationResult{}, GrantUnknown
	}
	x.state.grants.remove(k)
	x.holding(granter, func(h *Holdings) { h.Grants-- })
	if grant.Depositor != (crypto.Address{}) {
		granter = grant.Depositor
	}
	x.payBack(granter, grant.Deposit, crypto.Hash{}, x.cause()) // where that cannot be, the pool keeps it
	return OperationResult{}, OK
}

// spending is the use of a grant: to pay an account, or nobody in particular.
type spending struct {
	key GrantKey
	to  crypto.Address
}

// spending returns the grant under which an operation spends; nil when it spends the signer's own.
func (x *execution) spending(granter crypto.Address, by uint32, kind Kind, asset AssetID, to crypto.Address) *spending {
	if granter == (crypto.Address{}) {
		return nil
	}
	return &spending{GrantKey{granter, x.account(by), kind, asset}, to}
}

// usable tells why a grant cannot be used for an amount.
func (s *spending) usable(b *Block, amount Amount) Code {
	grant, ok := b.state.grants.get(s.key)
	account, _ := b.state.accounts.get(s.key.Granter)
	switch {
	case !ok || grant.Epoch != account.Epoch:
		return GrantUnknown
	case b.now() >= grant.Until:
		return GrantExpired
	case grant.To != (crypto.Address{}) && grant.To != s.to:
		return GrantOtherReceiver
	}
	_, spent := grant.inPeriod(b.now())
	if !grant.PerPeriod.IsZero() && total(grant.PerPeriod).less(total(spent, amount)) ||
		!grant.Total.IsZero() && total(grant.Total).less(total(grant.Spent, amount)) {
		return GrantExceeded
	}
	return OK
}

// inPeriod returns the number of the period that a time is in, and what has been spent in it. Periods follow each other
// from the moment at which the grant was given.
func (g Grant) inPeriod(now uint64) (number uint64, spent Amount) {
	if g.Period == 0 {
		return 0, Amount{}
	}
	if number = (now - g.Begun) / uint64(g.Period); number == g.PeriodNumber {
		spent = g.SpentInPeriod
	}
	return number, spent
}

// Remaining returns what a grant still allows at a time, in Unix seconds, as far as it can be told without the granter's
// account and line: 0 when it has expired.
func (g Grant) Remaining(now uint64) Amount {
	if now >= g.Until {
		return Amount{}
	}
	left := MaxAmount
	if _, spent := g.inPeriod(max(now, g.Begun)); !g.PerPeriod.IsZero() {
		left = left.Min(total(g.PerPeriod).minus(total(spent)))
	}
	if !g.Total.IsZero() {
		left = left.Min(total(g.Total).minus(total(g.Spent)))
	}
	return left
}

// use counts an amount for which the grant was found usable.
func (s *spending) use(b *Block, amount Amount) {
	grant, _ := b.state.grants.get(s.key)
	if !grant.PerPeriod.IsZero() {
		number, spent := grant.inPeriod(b.now())
		grant.PeriodNumber, grant.SpentInPeriod = number, spent.mustAdd(amount)
	}
	if !grant.Total.IsZero() {
		grant.Spent = grant.Spent.mustAdd(amount)
	}
	b.state.grants.put(s.key, grant)
}
