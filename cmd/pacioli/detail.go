package main

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// operationDetail is what the views of operations have beside transfers, new assets and policies. Amounts are in decimals of
// the operation's asset, or with a "b" behind in base units where it is not known here.
type operationDetail struct {
	Granter      *crypto.Address `json:"granter,omitempty"`
	GranterName  string          `json:"granter_name,omitempty"`
	Balancing    []string        `json:"balancing,omitempty"`
	Account      *crypto.Address `json:"account,omitempty"` // what is done is done to it
	AccountName  string          `json:"account_name,omitempty"`
	Hold         string          `json:"hold,omitempty"`
	Expires      string          `json:"expires,omitempty"`
	NotBefore    string          `json:"not_before,omitempty"`
	Arbiter      *crypto.Address `json:"arbiter,omitempty"`
	HashLock     string          `json:"hash_lock,omitempty"`
	Preimage     string          `json:"preimage,omitempty"`
	PostBy       []string        `json:"post_by,omitempty"`
	VoidBy       []string        `json:"void_by,omitempty"`
	PostAtExpiry bool            `json:"post_at_expiry,omitempty"`
	Controls     []string        `json:"controls,omitempty"` // of a new asset; of set_asset those that are given up
	Freeze       string          `json:"freeze,omitempty"`   // in, out or both
	Unfreeze     string          `json:"unfreeze,omitempty"`
	Authorise    *bool           `json:"authorise,omitempty"`
	Credit       string          `json:"credit,omitempty"`
	Cap          string          `json:"cap,omitempty"` // or none
	Ceiling      string          `json:"ceiling,omitempty"`
	OptIn        *bool           `json:"opt_in,omitempty"`
	For          string          `json:"for,omitempty"` // what a grant is for: transfer, hold or fees
	PerPeriod    string          `json:"per_period,omitempty"`
	Period       uint32          `json:"period_seconds,omitempty"`
	Total        string          `json:"total,omitempty"`
	Until        string          `json:"until,omitempty"`
	RevokeGrants bool            `json:"revoke_grants,omitempty"`

	Proposal string        `json:"proposal,omitempty"`
	Withdraw bool          `json:"withdraw,omitempty"`
	Change   *changeDetail `json:"change,omitempty"` // that is proposed

	sentence   string // without who does it
	everything bool   // a transfer of all that is available
	issues     bool   // it is the asset's issuer that pays
	burns      bool   // it is the asset's issuer that is paid
}

// ifOwn limits to whom a deposit goes that is paid back.
const ifOwn = " if the account put it down itself, else back to who did"

// hold says in words what a hold is: whose money, for whom, until when and what then, and who decides before that.
func (o operationView) hold(amount string, names map[crypto.Address]string) string {
	text := "holds " + amount
	if len(o.Balancing) > 0 {
		text = "holds at most " + amount
	}
	if o.Granter != nil {
		text += " from " + named(*o.Granter, o.GranterName)
	}
	text += " for " + named(*o.To, o.ToName) + " until " + o.Expires + ", then " + atExpiry(o.PostAtExpiry)
	if o.NotBefore != "" {
		text += "; not posted before " + o.NotBefore
	}
	text += "; " + resolved(o.PostBy, o.VoidBy)
	if o.Arbiter != nil {
		text += "; arbiter " + named(*o.Arbiter, names[*o.Arbiter])
	}
	if o.HashLock != "" {
		text += "; hash lock " + o.HashLock
	}
	if o.Memo != "" {
		text += fmt.Sprintf("; memo %q", o.Memo)
	}
	if o.Reference != "" {
		text += "; reference " + o.Reference
	}
	return text
}

// atExpiry says what becomes of a hold at its end.
func atExpiry(posted bool) string {
	if posted {
		return "PAID"
	}
	return "returned"
}

// resolved says who may end a hold before its time.
func resolved(postBy, voidBy []string) string {
	or := func(list []string) string {
		if len(list) == 0 {
			return "nobody"
		}
		return strings.Join(list, " or ")
	}
	return "posted by " + or(postBy) + ", voided by " + or(voidBy)
}

// detail fills in what an operation has beside what [cli.view] knows. asset finds an asset, and tells whether it is known;
// feeAsset is nil where that is not known.
func (o *operationView) detail(op ledger.Operation, names map[crypto.Address]string, asset func(ledger.AssetID) (ledger.Asset, bool), feeAsset *ledger.Asset) {
	unit, scale, known := "", uint32(0), false
	in := func(id ledger.AssetID) {
		var a ledger.Asset
		if a, known = asset(id); known {
			unit, scale, o.Asset = a.Code, a.Scale, a.Code
		} else {
			unit, o.AssetID = "base units of asset "+hex.EncodeToString(id[:]), hex.EncodeToString(id[:])
		}
	}
	format := func(a ledger.Amount) string {
		if known {
			return a.Format(scale)
		}
		return a.String() + "b"
	}
	amount := func(a ledger.Amount) string {
		if known {
			o.Amount = a.Format(scale)
			return o.Amount + " " + unit
		}
		o.AmountBase = a.String()
		return o.AmountBase + " " + unit
	}
	limit := func(a *ledger.Amount) string {
		switch {
		case a == nil:
			return ""
		case a.IsZero():
			return "none"
		}
		return format(*a)
	}
	address := func(a crypto.Address) *crypto.Address {
		if a == (crypto.Address{}) {
			return nil
		}
		return &a
	}
	who := func(a crypto.Address) string { return named(a, names[a]) }
	note := func(reference ledger.Reference, code uint32, memo string, balancing ledger.Balancing) {
		o.Memo, o.Code, o.Balancing = memo, code, namesOf(balancing, []string{"debit", "credit"})
		if reference != (ledger.Reference{}) {
			o.Reference = hex.EncodeToString(reference[:])
		}
	}
	to := func(a crypto.Address) { o.To, o.ToName = &a, names[a] }
	account := func(a crypto.Address) { o.Account, o.AccountName = &a, names[a] }
	switch op := op.(type) {
	case *ledger.Transfer:
		o.Granter, o.GranterName, o.Balancing = address(op.Granter), names[op.Granter], namesOf(op.Balancing, []string{"debit", "credit"})
		o.everything = op.Amount == ledger.MaxAmount && op.Balancing&ledger.BalancingDebit != 0
	case *ledger.CreateAsset:
		o.Controls = namesOf(op.Controls, controls)
	case *ledger.SetPolicy:
		o.RevokeGrants = op.RevokeGrants
	case *ledger.CreateHold:
		in(op.Asset)
		to(op.To)
		note(op.Reference, op.Code, op.Memo, op.Balancing)
		o.Granter, o.GranterName, o.Arbiter, o.Expires, o.NotBefore = address(op.Granter), names[op.Granter], address(op.Arbiter), rfc3339(op.Expires), rfc3339(op.NotBefore)
		o.PostBy, o.VoidBy, o.PostAtExpiry = namesOf(op.PostBy, resolvers), namesOf(op.VoidBy, resolvers), op.PostAtExpiry
		if op.HashLock != (crypto.Hash{}) {
			o.HashLock = op.HashLock.String()
		}
		o.sentence = o.hold(amount(op.Amount), names)
	case *ledger.PostHold:
		o.Hold, o.sentence = op.Hold.String(), "posts hold "+op.Hold.String()
		if op.Preimage != nil {
			o.Preimage = hex.EncodeToString(op.Preimage)
		}
	case *ledger.VoidHold:
		o.Hold, o.sentence = op.Hold.String(), "voids hold "+op.Hold.String()
	case *ledger.SetAsset:
		in(op.Asset)
		o.Controls, o.Freeze, o.Unfreeze = namesOf(op.DropControls, controls), sidesOf(op.Freeze), sidesOf(op.Unfreeze)
		var parts []string
		if len(o.Controls) > 0 {
			parts = append(parts, "gives up "+strings.Join(o.Controls, " and ")+" for ever")
		}
		if !op.MaxSupply.IsZero() {
			o.MaxSupply = format(op.MaxSupply)
			parts = append(parts, "maximum supply "+o.MaxSupply)
		}
		if o.Freeze != "" {
			parts = append(parts, "freezes "+o.Freeze)
		}
		if o.Unfreeze != "" {
			parts = append(parts, "unfreezes "+o.Unfreeze)
		}
		o.sentence = "changes the asset " + unit + ": " + strings.Join(parts, ", ")
	case *ledger.SetLine:
		in(op.Asset)
		account(op.Account)
		o.Freeze, o.Unfreeze, o.Credit, o.Cap = sidesOf(op.Set), sidesOf(op.Clear), limit(op.Credit), limit(op.Cap)
		var parts []string
		if (op.Set|op.Clear)&ledger.LineAuthorised != 0 {
			authorise := op.Set&ledger.LineAuthorised != 0
			o.Authorise = &authorise
			parts = append(parts, map[bool]string{true: "authorised", false: "no longer authorised"}[authorise])
		}
		for _, f := range []struct{ text, value string }{{"freezes ", o.Freeze}, {"unfreezes ", o.Unfreeze}, {"credit ", o.Credit}, {"cap ", o.Cap}} {
			if f.value != "" {
				parts = append(parts, f.text+f.value)
			}
		}
		o.sentence = fmt.Sprintf("sets the line in %s of %s: %s", unit, who(op.Account), strings.Join(parts, ", "))
	case *ledger.Clawback:
		in(op.Asset)
		account(op.Account)
		note(op.Reference, op.Code, op.Memo, op.Balancing)
		o.sentence = fmt.Sprintf("takes %s back from %s", amount(op.Amount), who(op.Account))
	case *ledger.OpenLine:
		in(op.Asset)
		o.Ceiling, o.sentence = limit(op.Ceiling), "opens its line in "+unit
		if o.Ceiling != "" {
			o.sentence += ", ceiling " + o.Ceiling
		}
	case *ledger.CloseLine:
		in(op.Asset)
		to(op.To)
		o.sentence = fmt.Sprintf("closes its line in %s, its deposit goes to %s%s", unit, who(op.To), ifOwn)
	case *ledger.SetAccount:
		o.OptIn, o.sentence = &op.OptIn, map[bool]string{true: "opens its lines itself from now on", false: "lets whoever pays open lines"}[op.OptIn]
	case *ledger.CloseAccount:
		to(op.To)
		o.sentence = "closes its account for ever, its deposit goes to " + who(op.To) + ifOwn
	case *ledger.SetGrant:
		account(op.Grantee)
		o.For, o.Period, o.Until = kindName(op.For), op.Period, rfc3339(op.Until)
		if op.For == ledger.KindFees {
			unit, o.Asset, known = "the fee asset", "", feeAsset != nil
			if known {
				unit, o.Asset, scale = feeAsset.Code, feeAsset.Code, feeAsset.Scale
			}
		} else {
			in(op.Asset)
		}
		var parts []string
		if !op.PerPeriod.IsZero() {
			o.PerPeriod = format(op.PerPeriod)
			parts = append(parts, fmt.Sprintf("%s per %s", o.PerPeriod, time.Duration(op.Period)*time.Second))
		}
		if !op.Total.IsZero() {
			o.Total = format(op.Total)
			parts = append(parts, o.Total+" in all")
		}
		o.sentence = fmt.Sprintf("lets %s spend %s of %s, for %s, until %s", who(op.Grantee), strings.Join(parts, " and "), unit, o.For, o.Until)
		if op.To != (crypto.Address{}) {
			to(op.To)
			o.sentence += ", to " + who(op.To) + " only"
		}
	case *ledger.RevokeGrant:
		account(op.Grantee)
		o.For = kindName(op.For)
		if op.For != ledger.KindFees {
			in(op.Asset)
		}
		o.sentence = fmt.Sprintf("ends the grant for %s to %s", o.For, who(op.Grantee))
	case *ledger.StartRecovery:
		account(op.Account)
		o.PolicyHash, o.sentence = op.PolicyHash.String(), "starts the recovery of "+who(op.Account)+" with policy "+op.PolicyHash.String()
	case *ledger.CancelRecovery:
		account(op.Account)
		o.sentence = "cancels the recovery of " + who(op.Account)
	case *ledger.FinishRecovery:
		account(op.Account)
		if p, err := crypto.DecodePolicy(op.Policy); err == nil {
			o.PolicyHash, o.Policy, o.Threshold, o.guardView = p.Hash().String(), keyViews(p), p.Threshold, newGuardView(p)
		}
		o.sentence = "finishes the recovery of " + who(op.Account) + " with policy " + o.PolicyHash
	case *ledger.Bond:
		unit = "base units of the fee asset"
		if feeAsset != nil {
			unit, scale, known, o.Asset = feeAsset.Code, feeAsset.Scale, true, feeAsset.Code
		}
		o.sentence = "bonds " + amount(op.Amount) + " for its validator"
	case *ledger.ReleaseBond:
		o.sentence = "takes its bond back"
	case *ledger.Propose:
		o.Expires, o.Change = rfc3339(op.Expires), newChangeDetail(op.Change)
		o.sentence = "proposes, until " + o.Expires + ", to " + o.Change.sentence(names)
	case *ledger.Approve:
		o.Proposal, o.Withdraw = op.Proposal.String(), op.Withdraw
		o.sentence = map[bool]string{false: "approves proposal ", true: "withdraws its approval of proposal "}[op.Withdraw] + o.Proposal
	case *ledger.Reactivate:
		o.sentence = "takes back the power that its validator has lost by missing blocks"
	}
}
