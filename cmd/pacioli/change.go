package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/render"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// What the operators of validators decide, in words and in its effect on what the network tolerates.

// consensusAddress is how results show a validator: as CometBFT and `pacioli status` do.
func consensusAddress(a ledger.ConsensusAddress) string {
	return strings.ToUpper(hex.EncodeToString(a[:]))
}

// keyTypes are CometBFT's names of consensus keys, which operators meet in genesis files and status.
var keyTypes = map[crypto.Scheme]string{crypto.Ed25519: "ed25519", crypto.MLDSA65: "ml_dsa_65"}

func schemeOfKeyType(name string) (crypto.Scheme, error) {
	for s, n := range keyTypes {
		if n == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("validator key type %q, want ed25519 or ml_dsa_65", name)
}

// changeDetail is a change as results show it.
type changeDetail struct {
	Kind       string            `json:"kind"`
	Validator  string            `json:"validator,omitempty"` // consensus address, as of the set; of a key that is new, its own
	Replaces   string            `json:"replaces,omitempty"`  // of rotate_key: the validator whose key goes
	Name       string            `json:"name,omitempty"`      // of the validator: the one to be, or where the set is known that of the present one
	Operator   *crypto.Address   `json:"operator,omitempty"`
	KeyType    string            `json:"key_type,omitempty"`
	PublicKey  string            `json:"public_key,omitempty"` // hex
	Power      uint64            `json:"power,omitempty"`
	Before     string            `json:"before,omitempty"` // SHA-256 of the parameters that are replaced
	Parameters map[string]string `json:"parameters,omitempty"`
	order      []parameter
}

func newChangeDetail(change ledger.Change) *changeDetail {
	d := &changeDetail{Kind: change.Kind().String()}
	key := func(operator crypto.Address, scheme crypto.Scheme, public []byte) {
		sum := sha256.Sum256(public)
		d.Operator, d.KeyType, d.PublicKey, d.Validator = &operator, keyTypes[scheme], hex.EncodeToString(public), consensusAddress(ledger.ConsensusAddress(sum[:20]))
	}
	switch c := change.(type) {
	case *ledger.AddValidator:
		key(c.Operator, c.Scheme, c.PublicKey)
		d.Name, d.Power = c.Name, c.Power
	case *ledger.RemoveValidator:
		d.Validator = consensusAddress(c.Validator)
	case *ledger.SetPower:
		d.Validator, d.Power = consensusAddress(c.Validator), c.Power
	case *ledger.RotateKey:
		key(c.Operator, c.Scheme, c.PublicKey)
		d.Replaces = consensusAddress(c.Validator)
	case *ledger.SetParameters:
		d.Before, d.order, d.Parameters = c.Before.String(), namedParameters(c.Parameters), map[string]string{}
		for _, p := range d.order {
			d.Parameters[p.Name] = p.Value
		}
	}
	return d
}

// sentence says what the change does, behind "proposes to".
func (d *changeDetail) sentence(names map[crypto.Address]string) string {
	switch d.Kind {
	case ledger.ChangeAddValidator.String():
		return fmt.Sprintf("add validator %s%s with power %d and an %s key, operated by %s", d.Validator, calledBy(d.Name), d.Power, d.KeyType, named(*d.Operator, names[*d.Operator]))
	case ledger.ChangeRemoveValidator.String():
		return "remove validator " + d.Validator + calledBy(d.Name)
	case ledger.ChangeSetPower.String():
		return fmt.Sprintf("give validator %s%s power %d", d.Validator, calledBy(d.Name), d.Power)
	case ledger.ChangeRotateKey.String():
		return fmt.Sprintf("put the %s key %s in the place of validator %s%s, operated by %s", d.KeyType, d.Validator, d.Replaces, calledBy(d.Name), named(*d.Operator, names[*d.Operator]))
	case ledger.ChangeSetParameters.String():
		return "put other parameters in force"
	}
	return d.Kind
}

// calledBy shows a validator's name, which its operator has chosen.
func calledBy(name string) string {
	if name == "" {
		return ""
	}
	return ` "` + render.Escape(name) + `"`
}

// changeEffect is what a proposal or an approval does to the validators.
type changeEffect struct {
	Change  *changeDetail    `json:"change"`
	Vote    client.Tally     `json:"vote"` // with this approval
	Decides bool             `json:"decides"`
	Before  client.Strength  `json:"before"`
	After   *client.Strength `json:"after,omitempty"` // once it takes effect; absent for parameters and for what is refused
	// Signing is the power after the change of those who sign now, by the nodes' word; -1: they do not say. When it is not above
	// two thirds of what After has, the chain stops.
	Signing int64 `json:"signing_after"`
	// RefusedBy is the rule that does not let the change take effect as the set is now.
	RefusedBy string          `json:"refused_by,omitempty"`
	Differs   []parameterDiff `json:"parameters_changed,omitempty"`
	// ShortBond is how many seconds evidence of equivocation counts, where the parameters let go of a bond before.
	ShortBond int64 `json:"evidence_seconds,omitempty"`
	code      ledger.Code
	operates  map[crypto.Address]string // validators' names, by their operators
}

// names adds to those of this home whose operator an account is, where it has no other name here.
func (e *changeEffect) names(home map[crypto.Address]string) map[crypto.Address]string {
	all := maps.Clone(home)
	for operator, validator := range e.operates {
		if all[operator] == "" {
			all[operator] = "operator of" + calledBy(validator)
		}
	}
	return all
}

// parameterDiff is one parameter that changes.
type parameterDiff struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// effectOf judges the first proposal or approval of a body; nil when it has none. It is judged at the newest proven state.
func (c *cli) effectOf(ctx context.Context, b provenBooks, body ledger.Body) (*changeEffect, error) {
	for _, op := range body.Operations {
		switch op := op.(type) {
		case *ledger.Propose:
			return c.effect(ctx, b, op.Change, []crypto.Address{body.Signers[op.Signer].Address})
		case *ledger.Approve:
			p, err := b.Proposal(ctx, op.Proposal, 0)
			if err != nil || !p.Present || op.Withdraw {
				return nil, err
			}
			return c.effect(ctx, b, p.Value.Change, append(p.Value.Approvals, body.Signers[op.Signer].Address))
		}
	}
	return nil, nil
}

// effect judges a change and the approvals that it has.
func (c *cli) effect(ctx context.Context, b provenBooks, change ledger.Change, approvals []crypto.Address) (*changeEffect, error) {
	set, err := b.Validators(ctx, 0)
	if err != nil {
		return nil, err
	}
	parameters, err := b.Parameters(ctx, set.Height)
	if err != nil {
		return nil, err
	}
	e := &changeEffect{Change: newChangeDetail(change), Before: client.StrengthOf(set.Value), Vote: client.TallyOf(set.Value, approvals)}
	e.Decides, e.Signing, e.operates = e.Vote.Decided(), -1, map[crypto.Address]string{}
	for _, v := range set.Value {
		if address := consensusAddress(v.Address()); v.Name != "" && (address == e.Change.Validator || address == e.Change.Replaces) {
			e.Change.Name = v.Name
		}
		if v.Present() && v.Name != "" {
			e.operates[v.Operator] = v.Name
		}
	}
	if next, ok := change.(*ledger.SetParameters); ok {
		row, err := b.Row(ctx, ledger.ParametersRow(), set.Height)
		if err != nil {
			return nil, err
		}
		e.Differs = parametersDiffer(parameters.Value, next.Parameters)
		if ledger.ParametersHash(row.Value) != next.Before {
			e.refuse(ledger.ParametersChanged)
		}
		if age, err := b.EvidenceAge(ctx); err == nil && genesis.ShortBond(next.Parameters.BondSeconds, age) {
			e.ShortBond = int64(age / time.Second)
		}
		return e, nil
	}
	at := client.Circumstances{Parameters: parameters.Value, Second: uint64(set.Time.Unix())}
	if add, ok := change.(*ledger.AddValidator); ok {
		bond, err := b.Bond(ctx, add.Operator, set.Height)
		if err != nil {
			return nil, err
		}
		at.Bonded = bond.Value.Amount
	}
	after, code := client.Changed(set.Value, change, at)
	if code != ledger.OK {
		e.refuse(code)
		return e, nil
	}
	s := client.StrengthOf(after)
	e.After = &s
	if now, err := client.Survey(ctx, c.nodes); err == nil { // who is away stands in no state
		e.Signing = 0
		for _, v := range after {
			address := v.Address()
			if i := slices.IndexFunc(now.Validators, func(vs client.ValidatorStatus) bool { return vs.Address == fmt.Sprintf("%X", address[:]) }); i < 0 || now.Validators[i].Online {
				e.Signing += int64(v.Power) // a new one is expected to come
			}
		}
	}
	return e, nil
}

// stops tells whether those who sign now would be too few after the change.
func (e *changeEffect) stops() bool {
	return e.After != nil && e.Signing >= 0 && uint64(e.Signing) < e.After.Quorum
}

func (e *changeEffect) refuse(code ledger.Code) { e.code, e.RefusedBy = code, code.String() }

func parametersDiffer(before, after ledger.Parameters) []parameterDiff {
	diffs := []parameterDiff{}
	old := namedParameters(before)
	for i, p := range namedParameters(after) {
		if p.Value != old[i].Value {
			diffs = append(diffs, parameterDiff{p.Name, old[i].Value, p.Value})
		}
	}
	return diffs
}

// proposedParameters compares the parameters that a body proposes with those of a height, 0 the newest; nil when it proposes
// none, or for others than those.
func proposedParameters(ctx context.Context, b provenBooks, body ledger.Body, height uint64) []parameterDiff {
	for _, op := range body.Operations {
		p, ok := op.(*ledger.Propose)
		if !ok {
			continue
		}
		next, ok := p.Change.(*ledger.SetParameters)
		if !ok {
			continue
		}
		row, err := b.Row(ctx, ledger.ParametersRow(), height)
		if err != nil || ledger.ParametersHash(row.Value) != next.Before {
			return nil
		}
		if now, err := ledger.DecodeParameters(row.Value); err == nil {
			return parametersDiffer(now, next.Parameters)
		}
	}
	return nil
}

// text writes the effect; e may be nil.
func (e *changeEffect) text(w io.Writer, names map[crypto.Address]string) {
	if e == nil {
		return
	}
	names = e.names(names)
	fmt.Fprintf(w, "change\t%s\n", e.Change.sentence(names))
	for _, d := range e.Differs {
		fmt.Fprintf(w, "parameter\t%s: %s -> %s\n", d.Name, d.From, d.To)
	}
	if e.ShortBond > 0 {
		fmt.Fprintf(w, "WARNING\tbond_seconds is shorter than the %d seconds for which evidence of equivocation counts: a validator could leave, take its bond back and be found out afterwards\n", e.ShortBond)
	}
	if e.RefusedBy != "" {
		x, _ := ledger.Explain(e.code)
		fmt.Fprintf(w, "refused by\t%s: %s %s\n", e.RefusedBy, x.Meaning, x.Remedy)
	}
	fmt.Fprintf(w, "now\t%s\n", strengthLine(e.Before))
	if e.After != nil {
		fmt.Fprintf(w, "then\t%s\n", strengthLine(*e.After))
		if e.After.MayFail < e.Before.MayFail {
			fmt.Fprintf(w, "WARNING\tfewer validators may fail after the change: %d, now %d\n", e.After.MayFail, e.Before.MayFail)
		}
	}
	if e.stops() {
		fmt.Fprintf(w, "WARNING\tTHE CHAIN WOULD STOP: validators with power %d sign now, and the quorum would be %d; bring those that are away back first\n", e.Signing, e.After.Quorum)
	}
	fmt.Fprintf(w, "vote\t%s\n", voteLine(e.Vote, names))
}

func strengthLine(s client.Strength) string {
	text := fmt.Sprintf("%d validators, power %d, quorum %d: %d may fail", s.Active, s.Power, s.Quorum, s.MayFail)
	if s.Inactive > 0 {
		text += fmt.Sprintf(" (%d inactive)", s.Inactive)
	}
	return text
}

func voteLine(t client.Tally, names map[crypto.Address]string) string {
	text := fmt.Sprintf("%d of %d power, %d decide", t.Power, t.Total, t.Needed)
	if t.Decided() {
		return text + ": decided"
	}
	var open []string
	for _, a := range t.Open {
		open = append(open, named(a, names[a]))
	}
	return text + "; not yet: " + strings.Join(open, ", ")
}

// parameter is one of a network's rules with its name in genesis.json. Amounts are in base units of the fee asset.
type parameter struct{ Name, Value string }

// namedParameters lists all parameters.
func namedParameters(q ledger.Parameters) []parameter {
	number := func(n uint64) string { return fmt.Sprint(n) }
	var creators []string
	for _, a := range q.AssetCreators {
		creators = append(creators, a.String())
	}
	return []parameter{
		{"max_tx_bytes", number(uint64(q.MaxTxBytes))}, {"replay_window_seconds", number(uint64(q.ReplayWindowSeconds))}, {"max_open_nonces", number(q.MaxOpenNonces)},
		{"fee_asset", hex.EncodeToString(q.FeeAsset[:])}, {"fee_collector", q.FeeCollector.String()}, {"fee_base", number(q.FeeBase)},
		{"fee_per_byte", number(q.FeePerByte)}, {"fee_per_operation", number(q.FeePerOperation)}, {"fee_per_signature", number(q.FeePerSignature)},
		{"asset_creators", cmp.Or(strings.Join(creators, ","), "everybody")}, {"deposit_account", number(q.DepositAccount)}, {"deposit_line", number(q.DepositLine)},
		{"deposit_hold", number(q.DepositHold)}, {"deposit_grant", number(q.DepositGrant)}, {"max_hold_seconds", number(uint64(q.MaxHoldSeconds))},
		{"max_expiries", number(uint64(q.MaxExpiries))}, {"fee_target_weight", number(q.FeeTargetWeight)}, {"max_fee_multiplier", number(uint64(q.MaxFeeMultiplier))},
		{"bond", number(q.Bond)}, {"bond_seconds", number(uint64(q.BondSeconds))}, {"missed_window", number(uint64(q.MissedWindow))}, {"max_missed", number(uint64(q.MaxMissed))},
	}
}
