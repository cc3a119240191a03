// Package render says in words what a transaction is, for the person who is about to sign it. The text is the same for the
// same bytes on every machine, but for the names of a local address book and the assets that it knows, which [Fingerprint]
// leaves out: two signers who compare fingerprints have read the same.
//
// Whatever is in the body is in the text. What this package cannot say is an error and must not be signed: a kind of
// operation that it does not know, a flag without a meaning, bytes that are not canonical. A bug here has somebody sign what
// they did not want.
package render

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Context is what is known beside the bytes. Everything in it is optional but the network.
type Context struct {
	Network ledger.Network
	Sponsor *ledger.Sponsor // who pays, if it is not the body's payer

	// Assets are those whose code and scale the caller has proof of. Amounts of others are shown in base units.
	Assets   map[ledger.AssetID]ledger.Asset
	FeeAsset ledger.AssetID

	// Names are those of a local address book. They stand beside the full address, never in its place.
	Names map[crypto.Address]string
}

// version is that of the text's form: signers whose programs differ in it cannot compare fingerprints.
const version = 1

// Text renders the bytes of a body. The lines end in newlines and hold no control characters.
func Text(body []byte, c Context) (string, error) {
	decoded, err := ledger.DecodeBody(body) // strict: no unknown field gets through
	if err != nil {
		return "", fmt.Errorf("this is not shown and must not be signed: body: %w", err)
	}
	p := &page{c: c, body: decoded, assets: map[ledger.AssetID]ledger.Asset{}}
	for id, a := range c.Assets {
		p.assets[id] = a
	}
	p.header(ledger.BodyID(c.Network.ID, body))
	for i, op := range decoded.Operations {
		p.operation(i, op)
	}
	if p.err != nil {
		return "", fmt.Errorf("this is not shown and must not be signed: %w", p.err)
	}
	return p.text.String(), nil
}

// Fingerprint is a short name of what Text says, without what a machine adds of its own, which is the names of the address
// book and the codes and decimals of assets: the first 32 hex digits, in groups of four, of the SHA-256 of that text. Signers
// who read it to each other know that they are shown the same transaction in the same words, also when one of them is
// offline and has proof of no asset. With half as many digits, somebody could prepare two transactions with one fingerprint
// in an hour.
func Fingerprint(body []byte, c Context) (string, error) {
	c.Names, c.Assets = nil, nil
	text, err := Text(body, c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(text))
	digits := hex.EncodeToString(sum[:16])
	var groups []string
	for ; digits != ""; digits = digits[4:] {
		groups = append(groups, digits[:4])
	}
	return strings.Join(groups, " "), nil
}

// Assets returns the assets that a body names, for [Context.Assets].
func Assets(b ledger.Body) []ledger.AssetID {
	var ids []ledger.AssetID
	for _, op := range b.Operations {
		switch o := op.(type) {
		case *ledger.Transfer:
			ids = append(ids, o.Asset)
		case *ledger.CreateHold:
			ids = append(ids, o.Asset)
		case *ledger.SetAsset:
			ids = append(ids, o.Asset)
		case *ledger.SetLine:
			ids = append(ids, o.Asset)
		case *ledger.Clawback:
			ids = append(ids, o.Asset)
		case *ledger.OpenLine:
			ids = append(ids, o.Asset)
		case *ledger.CloseLine:
			ids = append(ids, o.Asset)
		case *ledger.SetGrant:
			ids = append(ids, o.Asset)
		case *ledger.RevokeGrant:
			ids = append(ids, o.Asset)
		}
	}
	return ids
}

// page is a text that is being written.
type page struct {
	c      Context
	body   *ledger.Body
	assets map[ledger.AssetID]ledger.Asset // of the context, and those that the body creates
	text   strings.Builder
	err    error // the first thing that cannot be said
}

func (p *page) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// line writes a label and what stands for it; below is how far it is indented.
func (p *page) line(below int, label, format string, args ...any) {
	fmt.Fprintf(&p.text, "%s%s: %s\n", strings.Repeat("  ", below), label, fmt.Sprintf(format, args...))
}

func (p *page) address(a crypto.Address) string {
	if name := p.c.Names[a]; name != "" {
		return Escape(name) + " (" + a.String() + ")"
	}
	return a.String()
}

func (p *page) amount(id ledger.AssetID, a ledger.Amount) string {
	if asset, ok := p.assets[id]; ok {
		return a.Format(asset.Scale) + " " + Escape(asset.Code)
	}
	return a.String() + " base units of asset " + hex.EncodeToString(id[:])
}

func (p *page) asset(id ledger.AssetID) string {
	if asset, ok := p.assets[id]; ok {
		return Escape(asset.Code) + " (" + hex.EncodeToString(id[:]) + ", issued by " + p.address(asset.Issuer) + ")"
	}
	return hex.EncodeToString(id[:]) + ", which is not known here"
}

func (p *page) fee(a ledger.Amount) string {
	if asset, ok := p.assets[p.c.FeeAsset]; ok {
		return a.Format(asset.Scale) + " " + Escape(asset.Code)
	}
	return a.String() + " base units of the fee asset"
}

// instant shows a Unix second.
func instant(second uint64) string {
	return time.Unix(int64(second), 0).UTC().Format("2006-01-02 15:04:05 UTC") // at most the year 9999, as decoded
}

// duration shows seconds exactly.
func duration(seconds uint32) string {
	d := time.Duration(seconds) * time.Second
	days := d / (24 * time.Hour)
	if days == 0 {
		return d.String()
	}
	if d %= 24 * time.Hour; d == 0 {
		return fmt.Sprintf("%d days", days)
	}
	return fmt.Sprintf("%d days and %s", days, d)
}

// bits names the bits of a number; one without a name cannot be rendered.
func (p *page) bits(what string, value uint32, names ...string) string {
	var said []string
	for i, name := range names {
		if value&(1<<i) != 0 && name != "" {
			said = append(said, name)
			value &^= 1 << i
		}
	}
	if value != 0 {
		p.fail("%s has bits %#x, which this program cannot name", what, value)
	}
	if said == nil {
		return "nobody"
	}
	return strings.Join(said, ", ")
}

// policy shows a policy key by key.
func (p *page) policy(below int, encoded []byte) {
	policy, err := crypto.DecodeRegisteredPolicy(encoded)
	if err != nil {
		p.fail("policy: %w", err)
		return
	}
	p.line(below, "policy hash", "%s", policy.Hash())
	p.line(below, "to pay", "signatures of weight %d", policy.Threshold)
	p.line(below, "to change it", "signatures of weight %d", policy.ForChange())
	for i, k := range policy.Keys {
		p.line(below, fmt.Sprintf("key %d", i), "weight %d, %s %s", k.Weight, k.Scheme, digits(k.Public))
	}
	if r := policy.Recovery; r != nil {
		p.line(below, "recovery", "%s can put another policy in force, %s after it has announced it", p.address(r.Account), duration(r.DelaySeconds))
	} else {
		p.line(below, "recovery", "none: lost keys lose the account")
	}
}

func (p *page) proofs(proofs [][]byte) {
	for i, proof := range proofs {
		sum := sha256.Sum256(proof)
		p.line(1, fmt.Sprintf("proof of possession by key %d", i), "SHA-256 %x", sum)
	}
}

func (p *page) header(id crypto.Hash) {
	b := p.body
	p.line(0, "Pacioli transaction, text version", "%d", version)
	p.line(0, "network", "%s (%s)", Escape(p.c.Network.ChainID), p.c.Network.ID)
	p.line(0, "transaction", "%s", id)
	for i, s := range b.Signers {
		p.line(0, fmt.Sprintf("signer %d", i), "%s", p.address(s.Address))
		if s.Sequence != 0 {
			p.line(1, "sequence", "%d", s.Sequence)
		} else {
			p.line(1, "nonce", "%x", s.Nonce)
		}
		if s.Policy != nil {
			p.line(1, "brings its policy", "as an account does when it signs for the first time")
			p.policy(1, s.Policy)
		}
	}
	maxFee, maxDeposit := b.MaxFee, b.MaxDeposit
	switch s := p.c.Sponsor; {
	case s != nil:
		p.line(0, "payer", "the sponsor %s", p.address(s.Address))
		maxFee, maxDeposit = s.MaxFee, s.MaxDeposit
		if s.Policy != nil {
			p.line(1, "brings its policy", "as an account does when it signs for the first time")
			p.policy(1, s.Policy)
		}
		p.line(1, "without the sponsor", "the fee would be at most %s and deposits at most %s, of %s", p.fee(b.MaxFee), p.fee(b.MaxDeposit), p.address(b.Payer()))
		if b.FeeGranter != (crypto.Address{}) {
			p.line(1, "under", "a grant for fees to signer 0")
		}
	case b.FeeGranter != (crypto.Address{}):
		p.line(0, "payer", "%s, under its grant for fees to signer 0", p.address(b.FeeGranter))
	default:
		p.line(0, "payer", "signer 0")
	}
	p.line(0, "fee", "at most %s, also when the transaction fails", p.fee(maxFee))
	p.line(0, "deposits", "at most %s", p.fee(maxDeposit))
	if b.ValidUntil != 0 {
		p.line(0, "valid until", "%s", instant(b.ValidUntil))
	} else {
		p.line(0, "valid", "for ever, until a sequence above is used otherwise")
	}
	p.line(0, "operations", "%d, which all take effect or none", len(b.Operations))
}

// note shows the caller's own data.
func (p *page) note(reference ledger.Reference, code uint32, memo string) {
	if reference != (ledger.Reference{}) {
		p.line(1, "reference", "%x", reference)
	}
	if code != 0 {
		p.line(1, "code", "%d", code)
	}
	if memo != "" {
		p.line(1, "memo", `"%s"`, Escape(memo))
	}
}

// moved shows an amount that may be a ceiling.
func (p *page) moved(asset ledger.AssetID, amount ledger.Amount, b ledger.Balancing) {
	if b == 0 {
		p.line(1, "amount", "%s", p.amount(asset, amount))
		return
	}
	p.line(1, "amount, can be balanced: at most", "%s", p.amount(asset, amount))
	p.line(1, "balanced to", "%s", p.bits("balancing", uint32(b), "at most what the debited line has available", "at most what the credited line owes"))
}

// debited shows whose line an operation debits.
func (p *page) debited(by uint32, granter crypto.Address) {
	if granter != (crypto.Address{}) {
		p.line(1, "from", "%s, under its grant to the signer", p.address(granter))
		return
	}
	p.line(1, "from", "%s", p.address(p.body.Signers[by].Address))
}

func (p *page) irrevocable(format string, args ...any) { p.line(1, "IRREVOCABLE", format, args...) }

func (p *page) limit(label string, asset ledger.AssetID, a *ledger.Amount, none string) {
	switch {
	case a == nil:
	case a.IsZero():
		p.line(1, label, "%s", none)
	default:
		p.line(1, label, "%s", p.amount(asset, *a))
	}
}

func (p *page) controls(c ledger.Controls) string {
	return p.bits("controls", uint32(c), "authorisation (only lines that the issuer authorises, up to its caps)", "freeze (of lines or the whole asset)",
		"clawback (taking back what is available, and voiding holds)")
}

func (p *page) lineFlags(f ledger.LineFlags) string {
	return p.bits("line flags", uint32(f), "authorised", "frozen for what comes in", "frozen for what goes out")
}

func (p *page) grantOf(grantee crypto.Address, kind ledger.Kind, asset ledger.AssetID) {
	p.line(1, "grantee", "%s", p.address(grantee))
	switch kind {
	case ledger.KindFees:
		p.line(1, "for", "fees and deposits of the grantee's transactions")
		return
	case ledger.KindTransfer:
		p.line(1, "for", "transfers")
	case ledger.KindCreateHold:
		p.line(1, "for", "holds")
	default:
		p.fail("a grant for kind %d, which this program does not know", kind)
	}
	p.line(1, "asset", "%s", p.asset(asset))
}

// operation renders one operation. A kind that is not here is refused: adding one to the ledger fails this package's tests.
func (p *page) operation(i int, op ledger.Operation) {
	by := p.body.Signers[op.By()].Address
	p.line(0, fmt.Sprintf("operation %d", i), "%s, in the name of signer %d, %s", strings.ReplaceAll(op.Kind().String(), "_", " "), op.By(), p.address(by))
	switch o := op.(type) {
	case *ledger.Transfer:
		p.debited(o.From, o.Granter)
		p.line(1, "to", "%s", p.address(o.To))
		p.moved(o.Asset, o.Amount, o.Balancing)
		p.note(o.Reference, o.Code, o.Memo)
		p.irrevocable("only the receiver can pay it back")
	case *ledger.CreateAsset:
		id := ledger.NewAssetID(by, o.Code)
		p.assets[id] = ledger.Asset{Issuer: by, Code: o.Code, Scale: o.Scale}
		p.line(1, "code", "%s", Escape(o.Code))
		p.line(1, "asset id", "%x", id)
		p.line(1, "decimals", "%d", o.Scale)
		p.line(1, "maximum supply", "%s", p.amount(id, o.MaxSupply))
		if o.MetadataHash != nil {
			p.line(1, "document", "SHA-256 %x", o.MetadataHash)
		}
		if o.Controls != 0 {
			p.line(1, "the issuer keeps", "%s", p.controls(o.Controls))
		} else {
			p.line(1, "the issuer keeps", "no control over holders")
		}
		p.irrevocable("code and decimals stay for ever; maximum supply and controls can only be lowered")
	case *ledger.SetPolicy:
		p.line(1, "account", "%s", p.address(by))
		p.policy(1, o.Policy)
		p.proofs(o.Proofs)
		if o.RevokeGrants {
			p.line(1, "grants", "every grant that the account has given ends")
		} else {
			p.line(1, "grants", "those that the account has given stay")
		}
		p.irrevocable("keys that are not listed have no say any more, and what they signed is dead")
	case *ledger.CreateHold:
		p.debited(o.Signer, o.Granter)
		p.line(1, "for", "%s", p.address(o.To))
		p.moved(o.Asset, o.Amount, o.Balancing)
		if o.NotBefore != 0 {
			p.line(1, "not to be posted before", "%s", instant(o.NotBefore))
		}
		p.line(1, "expires", "%s", instant(o.Expires))
		if o.PostAtExpiry {
			p.line(1, "at expiry", "it is posted: the receiver gets it")
		} else {
			p.line(1, "at expiry", "it is voided: the amount returns")
		}
		if o.Arbiter != (crypto.Address{}) {
			p.line(1, "arbiter", "%s", p.address(o.Arbiter))
		}
		if o.HashLock != (crypto.Hash{}) {
			p.line(1, "hash lock", "posting reveals what has SHA-256 %s", o.HashLock)
		}
		p.line(1, "can be posted by", "%s", p.bits("post_by", uint32(o.PostBy), "the receiver", "the arbiter", "the holder", "anybody who reveals the preimage"))
		p.line(1, "can be voided by", "%s", p.bits("void_by", uint32(o.VoidBy), "the receiver", "the arbiter", "the holder"))
		p.note(o.Reference, o.Code, o.Memo)
	case *ledger.PostHold:
		p.line(1, "hold", "%s", o.Hold)
		if o.Amount.IsZero() {
			p.line(1, "amount", "the whole")
		} else {
			p.line(1, "amount", "%s base units of the hold's asset; the rest returns", o.Amount)
		}
		if o.Preimage != nil {
			p.line(1, "reveals", "%x", o.Preimage)
		}
		p.irrevocable("a hold is resolved once")
	case *ledger.VoidHold:
		p.line(1, "hold", "%s", o.Hold)
		p.line(1, "amount", "the whole returns to the holder")
		p.irrevocable("a hold is resolved once")
	case *ledger.SetAsset:
		p.line(1, "asset", "%s", p.asset(o.Asset))
		if o.DropControls != 0 {
			p.line(1, "the issuer gives up", "%s", p.controls(o.DropControls))
		}
		if !o.MaxSupply.IsZero() {
			p.line(1, "maximum supply is lowered to", "%s", p.amount(o.Asset, o.MaxSupply))
		}
		if o.Freeze != 0 {
			p.line(1, "all lines become", "%s", p.lineFlags(o.Freeze))
		}
		if o.Unfreeze != 0 {
			p.line(1, "all lines cease to be", "%s", p.lineFlags(o.Unfreeze))
		}
		if o.DropControls != 0 || !o.MaxSupply.IsZero() {
			p.irrevocable("controls that are given up never come back, and the maximum supply is never raised")
		}
	case *ledger.SetLine:
		p.line(1, "asset", "%s", p.asset(o.Asset))
		p.line(1, "holder", "%s", p.address(o.Account))
		if o.Set != 0 {
			p.line(1, "the line becomes", "%s", p.lineFlags(o.Set))
		}
		if o.Clear != 0 {
			p.line(1, "the line ceases to be", "%s", p.lineFlags(o.Clear))
		}
		p.limit("may be overdrawn by", o.Asset, o.Credit, "nothing")
		p.limit("may hold at most", o.Asset, o.Cap, "no limit")
	case *ledger.Clawback:
		p.line(1, "from", "%s", p.address(o.Account))
		p.line(1, "to", "the issuer, %s", p.address(by))
		p.moved(o.Asset, o.Amount, o.Balancing)
		p.note(o.Reference, o.Code, o.Memo)
		p.irrevocable("only the issuer can pay it back")
	case *ledger.OpenLine:
		p.line(1, "asset", "%s", p.asset(o.Asset))
		p.limit("may hold at most", o.Asset, o.Ceiling, "no limit")
	case *ledger.CloseLine:
		p.line(1, "asset", "%s", p.asset(o.Asset))
		p.line(1, "its deposit goes to", "%s", p.address(o.To))
	case *ledger.SetAccount:
		if o.OptIn {
			p.line(1, "opt-in", "on: only the account itself opens lines")
		} else {
			p.line(1, "opt-in", "off: whoever pays the account opens lines")
		}
	case *ledger.CloseAccount:
		p.line(1, "account", "%s", p.address(by))
		p.line(1, "its deposit goes to", "%s", p.address(o.To))
		p.irrevocable("the account is closed for ever; what is paid to it is refused")
	case *ledger.SetGrant:
		p.line(1, "granter", "%s", p.address(by))
		p.grantOf(o.Grantee, o.For, o.Asset)
		amount := func(a ledger.Amount) string {
			if o.For == ledger.KindFees {
				return p.fee(a)
			}
			return p.amount(o.Asset, a)
		}
		if !o.PerPeriod.IsZero() {
			p.line(1, "at most", "%s in each period of %s", amount(o.PerPeriod), duration(o.Period))
		}
		if !o.Total.IsZero() {
			p.line(1, "in all at most", "%s", amount(o.Total))
		} else {
			p.line(1, "in all at most", "no limit")
		}
		p.line(1, "until", "%s", instant(o.Until))
		if o.To != (crypto.Address{}) {
			p.line(1, "paying only", "%s", p.address(o.To))
		} else if o.For != ledger.KindFees {
			p.line(1, "paying", "anybody")
		}
	case *ledger.RevokeGrant:
		p.line(1, "granter", "%s", p.address(by))
		p.grantOf(o.Grantee, o.For, o.Asset)
	case *ledger.StartRecovery:
		p.line(1, "account", "%s", p.address(o.Account))
		p.line(1, "announces the policy with hash", "%s", o.PolicyHash)
	case *ledger.CancelRecovery:
		p.line(1, "account", "%s", p.address(o.Account))
		p.line(1, "ends", "the recovery that was announced")
	case *ledger.FinishRecovery:
		p.line(1, "account", "%s", p.address(o.Account))
		p.policy(1, o.Policy)
		p.proofs(o.Proofs)
		p.line(1, "grants", "every grant that the account has given ends")
		p.irrevocable("keys that are not listed have no say any more, and what they signed is dead")
	case *ledger.Bond:
		p.line(1, "amount", "%s of %s, held for who collects the fees", p.fee(o.Amount), p.address(by))
		p.line(1, "it answers for", "the validator that the account operates, or will operate")
		p.irrevocable("the whole is lost when the validator equivocates; it can be released only some time after the validator has left")
	case *ledger.ReleaseBond:
		p.line(1, "amount", "the whole bond of %s returns", p.address(by))
	case *ledger.Propose:
		p.line(1, "until", "%s", instant(o.Expires))
		p.change(o.Change)
		p.line(1, "approved by", "the signer, and takes effect at once when more than two thirds of the power have approved")
	case *ledger.Approve:
		p.line(1, "proposal", "%s", o.Proposal)
		if o.Withdraw {
			p.line(1, "approval", "is taken back")
		} else {
			p.line(1, "approval", "is given; the proposal takes effect at once when more than two thirds of the power have approved")
		}
	case *ledger.Reactivate:
		p.line(1, "validator", "that of %s, which has missed blocks, gets its power back", p.address(by))
	default:
		p.fail("operation %d is of kind %d, which this program does not know", i, op.Kind())
	}
}

// change renders what a proposal would change.
func (p *page) change(change ledger.Change) {
	p.line(1, "proposes", "%s", strings.ReplaceAll(change.Kind().String(), "_", " "))
	key := func(scheme crypto.Scheme, public, proof []byte) {
		p.line(2, "consensus key", "%s %s", scheme, digits(public))
		p.line(2, "consensus address", "%X", ledger.Validator{PublicKey: public}.Address())
		p.line(2, "proof of possession by that key", "SHA-256 %x", sha256.Sum256(proof))
	}
	switch o := change.(type) {
	case *ledger.AddValidator:
		p.line(2, "operator", "%s", p.address(o.Operator))
		p.line(2, "name", `"%s"`, Escape(o.Name))
		p.line(2, "power", "%d", o.Power)
		key(o.Scheme, o.PublicKey, o.Proof)
	case *ledger.RemoveValidator:
		p.line(2, "consensus address", "%X", o.Validator)
	case *ledger.SetPower:
		p.line(2, "consensus address", "%X", o.Validator)
		p.line(2, "power", "%d", o.Power)
	case *ledger.RotateKey:
		p.line(2, "of the validator with the consensus address", "%X", o.Validator)
		p.line(2, "operator", "%s", p.address(o.Operator))
		key(o.Scheme, o.PublicKey, o.Proof)
	case *ledger.SetParameters:
		p.line(2, "in the place of the parameters with SHA-256", "%s", o.Before)
		p.parameters(o.Parameters)
	default:
		p.fail("a change of kind %d, which this program does not know", change.Kind())
	}
}

// parameters shows all of them, with the names that a genesis file has for them.
func (p *page) parameters(v ledger.Parameters) {
	p.line(2, "fee_asset", "%x", v.FeeAsset)
	p.line(2, "fee_collector", "%s", p.address(v.FeeCollector))
	for _, n := range []struct {
		name  string
		value uint64
	}{
		{"max_tx_bytes", uint64(v.MaxTxBytes)}, {"replay_window_seconds", uint64(v.ReplayWindowSeconds)}, {"max_open_nonces", v.MaxOpenNonces},
		{"fee_base", v.FeeBase}, {"fee_per_byte", v.FeePerByte}, {"fee_per_operation", v.FeePerOperation}, {"fee_per_signature", v.FeePerSignature},
		{"deposit_account", v.DepositAccount}, {"deposit_line", v.DepositLine}, {"deposit_hold", v.DepositHold}, {"deposit_grant", v.DepositGrant},
		{"max_hold_seconds", uint64(v.MaxHoldSeconds)}, {"max_expiries", uint64(v.MaxExpiries)}, {"fee_target_weight", v.FeeTargetWeight},
		{"max_fee_multiplier", uint64(v.MaxFeeMultiplier)}, {"bond", v.Bond}, {"bond_seconds", uint64(v.BondSeconds)},
		{"missed_window", uint64(v.MissedWindow)}, {"max_missed", uint64(v.MaxMissed)},
	} {
		p.line(2, n.name, "%d", n.value)
	}
	if len(v.AssetCreators) == 0 {
		p.line(2, "asset_creators", "everybody")
	}
	for _, a := range v.AssetCreators {
		p.line(2, "one of the asset_creators", "%s", p.address(a))
	}
}

// digits shows a public key; post-quantum keys have thousands of digits, which nobody compares.
func digits(public []byte) string {
	if len(public) > 100 {
		sum := sha256.Sum256(public)
		return "SHA-256 " + hex.EncodeToString(sum[:])
	}
	return hex.EncodeToString(public)
}

// Escape makes text visible, and harmless to the reader of a line: what has no shape of its own, or changes the shape of its
// neighbours, is shown as \u{HEX}. These are all characters that Unicode does not count as letters, marks, numbers,
// punctuation or symbols (control characters, those that turn the direction of writing, joiners, private and unassigned
// ones), spaces but the common one, variation selectors and enclosing marks, letters that look like nothing, and a mark without a
// letter before it. The backslash and the quote are escaped by a backslash; bytes that are not UTF-8 are \x{HEX}.
func Escape(text string) string {
	var b strings.Builder
	alone := true // no letter before
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x{%02x}`, text[0])
			alone = true
		case r == '\\' || r == '"':
			b.WriteByte('\\')
			b.WriteRune(r)
			alone = true
		case !unicode.IsPrint(r), unicode.Is(unicode.Me, r), unicode.Is(unicode.Variation_Selector, r), unicode.Is(blank, r), unicode.IsMark(r) && alone:
			fmt.Fprintf(&b, `\u{%x}`, r)
			alone = true
		default:
			b.WriteRune(r)
			alone = r == ' '
		}
		text = text[size:]
	}
	return b.String()
}

// blank are characters that count as printable and show nothing.
var blank = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x034f, Hi: 0x034f, Stride: 1}, {Lo: 0x115f, Hi: 0x1160, Stride: 1}, {Lo: 0x17b4, Hi: 0x17b5, Stride: 1},
	{Lo: 0x2800, Hi: 0x2800, Stride: 1}, {Lo: 0x3164, Hi: 0x3164, Stride: 1}, {Lo: 0xffa0, Hi: 0xffa0, Stride: 1}}}

// Policy renders a policy key by key.
func Policy(policy crypto.Policy, names map[crypto.Address]string) (string, error) {
	p := &page{c: Context{Names: names}}
	p.policy(0, policy.Encode())
	return p.text.String(), p.err
}
