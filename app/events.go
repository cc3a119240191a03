package app

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// eventTable documents the events, with their attributes in order: see "Events" in docs/PROTOCOL.md. A test compares the
// two, and with them what blocks emit.
var eventTable = []struct{ name, when, attributes string }{
	{"tx", "a transaction", "id fee fee_payer deposit"},
	{"use_feegrant", "it was paid under a grant", "granter grantee"},
	{"message", "an operation, before its own event", "action module sender msg_index"},
	{"transfer", "a transfer, a hold that is posted (also at its expiry), a clawback", "sender recipient amount asset"},
	{"ledger.asset_created", "create_asset", "asset issuer code"},
	{"ledger.asset_changed", "set_asset", "asset issuer"},
	{"ledger.policy_changed", "set_policy, finish_recovery", "account"},
	{"ledger.hold_created", "create_hold", "hold sender recipient amount asset"},
	{"ledger.hold_posted", "post_hold, before its transfer; a block, at the hold's expiry", "hold amount"},
	{"ledger.hold_voided", "void_hold", "hold amount"},
	{"ledger.hold_expired", "a block", "hold amount sender recipient asset"},
	{"ledger.line_opened", "open_line; not a line that another operation opens", "account asset"},
	{"ledger.line_changed", "set_line", "account asset"},
	{"ledger.line_closed", "close_line", "account asset"},
	{"ledger.clawback", "clawback, before its transfer", "account asset"},
	{"ledger.account_changed", "set_account", "account"},
	{"ledger.account_closed", "close_account", "account"},
	{"set_feegrant", "set_grant of kind 0", "granter grantee"},
	{"revoke_feegrant", "revoke_grant of kind 0", "granter grantee"},
	{"ledger.grant_set", "set_grant of another kind", "granter grantee kind asset"},
	{"ledger.grant_revoked", "revoke_grant of another kind", "granter grantee kind asset"},
	{"ledger.recovery_started", "start_recovery", "account"},
	{"ledger.recovery_cancelled", "cancel_recovery", "account"},
	{"ledger.bond_made", "bond", "operator hold amount"},
	{"ledger.bond_released", "release_bond", "operator amount"},
	{"ledger.proposal_made", "propose", "proposal operator change"},
	{"ledger.proposal_approved", "approve", "proposal operator"},
	{"ledger.proposal_withdrawn", "approve with withdraw", "proposal operator"},
	{"ledger.proposal_executed", "propose, approve: the one by which it takes effect", "proposal"},
	{"ledger.validator_reactivated", "reactivate", "operator"},
	{"ledger.validator_changed", "a block, for each validator whose power it has changed", "validator power status"},
}

// eventAttributes are the attributes of each event.
var eventAttributes = func() map[string][]string {
	m := map[string][]string{}
	for _, e := range eventTable {
		m[e.name] = strings.Fields(e.attributes)
	}
	return m
}()

// event makes one of the table's events; it panics on values that do not match the table.
func event(name string, values ...any) abci.Event {
	attributes := eventAttributes[name]
	if len(attributes) == 0 || len(attributes) != len(values) {
		panic(fmt.Sprintf("event %s with %d values", name, len(values)))
	}
	e := abci.Event{Type: name, Attributes: make([]abci.EventAttribute, len(values))}
	for i, v := range values {
		text := ""
		switch v := v.(type) {
		case string:
			text = v
		case ledger.AssetID:
			text = fmt.Sprintf("%x", v[:])
		case fmt.Stringer:
			text = v.String()
		default:
			panic(fmt.Sprintf("event %s with a %T", name, v))
		}
		key := attributes[i]
		e.Attributes[i] = abci.EventAttribute{Key: key, Value: text, Index: key != "amount" && key != "fee" && key != "deposit"}
	}
	return e
}

// movement is who pays whom, as an entry of the debited line's journal has it.
type movement struct {
	sender, recipient crypto.Address
	amount            ledger.Amount
	asset             ledger.AssetID
}

func (m movement) event() abci.Event {
	return event("transfer", m.sender, m.recipient, m.amount, m.asset)
}

// postedHolds returns who paid whom by the holds that a block's transactions have posted: neither operation nor receipt
// says it. The journal is looked through only when there are such.
func postedHolds(o *outcome) (map[crypto.Hash]movement, error) {
	any := false
	for i, r := range o.receipts {
		for _, op := range operationsOf(o.decoded[i], r) {
			_, post := op.(*ledger.PostHold)
			any = any || post
		}
	}
	if !any {
		return nil, nil
	}
	posted := map[crypto.Hash]movement{}
	for _, line := range o.Entries {
		e, err := ledger.DecodeEntry(line.Encoded)
		if err != nil {
			return nil, fmt.Errorf("reading an entry that the block has made: %w", err)
		}
		if e.Kind == ledger.EntryPost && !e.Credit {
			posted[e.Hold] = movement{line.Line.Account, e.Counterparty, e.Amount, line.Line.Asset}
		}
	}
	return posted, nil
}

// blockEvents describes what a block did besides its transactions: the holds that it let expire. These entries are the
// last of its journal and name no transaction.
func blockEvents(entries []ledger.LineEntry) (events []abci.Event, err error) {
	first := len(entries)
	for first > 0 {
		e, err := ledger.DecodeEntry(entries[first-1].Encoded)
		if err != nil {
			return nil, fmt.Errorf("reading an entry that the block has made: %w", err)
		}
		if e.TxID != (crypto.Hash{}) {
			break
		}
		first--
	}
	for _, line := range entries[first:] {
		e, err := ledger.DecodeEntry(line.Encoded)
		if err != nil {
			return nil, fmt.Errorf("reading an entry that the block has made: %w", err)
		}
		if e.Credit {
			continue
		}
		m := movement{line.Line.Account, e.Counterparty, e.Amount, line.Line.Asset}
		switch e.Kind {
		case ledger.EntryPost:
			events = append(events, event("ledger.hold_posted", e.Hold, e.Amount), m.event())
		case ledger.EntryExpire:
			events = append(events, event("ledger.hold_expired", e.Hold, m.amount, m.sender, m.recipient, m.asset))
		}
	}
	return events, nil
}

// operationsOf returns the operations that took effect.
func operationsOf(tx *ledger.Tx, r ledger.Receipt) []ledger.Operation {
	if tx == nil || r.Code != ledger.OK {
		return nil
	}
	return tx.Body.Operations
}

// txEvents describes a transaction.
func txEvents(tx *ledger.Tx, receipt ledger.Receipt, posted map[crypto.Hash]movement) []abci.Event {
	if tx == nil || receipt.Code.Refused() {
		return nil
	}
	events := []abci.Event{event("tx", receipt.TxID, receipt.Fee, tx.Payer(), receipt.Deposit)}
	if grant, ok := tx.FeeGrant(); ok {
		events = append(events, event("use_feegrant", grant.Granter, grant.Grantee))
	}
	for i, op := range operationsOf(tx, receipt) {
		signer := tx.Body.Signers[op.By()].Address
		events = append(events, event("message", op.Kind().String(), "ledger", signer, strconv.Itoa(i)))
		events = append(events, operationEvents(op, signer, receipt.Results[i], posted)...)
	}
	return events
}

// operationEvents describes an operation that took effect.
func operationEvents(op ledger.Operation, signer crypto.Address, r ledger.OperationResult, posted map[crypto.Hash]movement) []abci.Event {
	debited := func(granter crypto.Address) crypto.Address {
		if granter != (crypto.Address{}) {
			return granter
		}
		return signer
	}
	one := func(name string, values ...any) []abci.Event { return []abci.Event{event(name, values...)} }
	switch op := op.(type) {
	case *ledger.Transfer:
		return []abci.Event{movement{debited(op.Granter), op.To, r.Amount, op.Asset}.event()}
	case *ledger.CreateAsset:
		return one("ledger.asset_created", r.Asset, signer, op.Code)
	case *ledger.SetPolicy:
		return one("ledger.policy_changed", signer)
	case *ledger.CreateHold:
		return one("ledger.hold_created", r.Hold, debited(op.Granter), op.To, r.Amount, op.Asset)
	case *ledger.PostHold:
		return []abci.Event{event("ledger.hold_posted", op.Hold, r.Amount), posted[op.Hold].event()}
	case *ledger.VoidHold:
		return one("ledger.hold_voided", op.Hold, r.Amount)
	case *ledger.SetAsset:
		return one("ledger.asset_changed", op.Asset, signer)
	case *ledger.SetLine:
		return one("ledger.line_changed", op.Account, op.Asset)
	case *ledger.Clawback:
		return []abci.Event{event("ledger.clawback", op.Account, op.Asset), movement{op.Account, signer, r.Amount, op.Asset}.event()}
	case *ledger.OpenLine:
		return one("ledger.line_opened", signer, op.Asset)
	case *ledger.CloseLine:
		return one("ledger.line_closed", signer, op.Asset)
	case *ledger.SetAccount:
		return one("ledger.account_changed", signer)
	case *ledger.CloseAccount:
		return one("ledger.account_closed", signer)
	case *ledger.SetGrant:
		if op.For == ledger.KindFees {
			return one("set_feegrant", signer, op.Grantee)
		}
		return one("ledger.grant_set", signer, op.Grantee, op.For, op.Asset)
	case *ledger.RevokeGrant:
		if op.For == ledger.KindFees {
			return one("revoke_feegrant", signer, op.Grantee)
		}
		return one("ledger.grant_revoked", signer, op.Grantee, op.For, op.Asset)
	case *ledger.StartRecovery:
		return one("ledger.recovery_started", op.Account)
	case *ledger.CancelRecovery:
		return one("ledger.recovery_cancelled", op.Account)
	case *ledger.FinishRecovery:
		return one("ledger.policy_changed", op.Account)
	case *ledger.Bond:
		return one("ledger.bond_made", signer, r.Hold, r.Amount)
	case *ledger.ReleaseBond:
		return one("ledger.bond_released", signer, r.Amount)
	case *ledger.Propose:
		return executed(one("ledger.proposal_made", r.Proposal, signer, op.Change.Kind()), r.Proposal, r.Executed)
	case *ledger.Approve:
		name := "ledger.proposal_approved"
		if op.Withdraw {
			name = "ledger.proposal_withdrawn"
		}
		return executed(one(name, op.Proposal, signer), op.Proposal, r.Executed)
	case *ledger.Reactivate:
		return one("ledger.validator_reactivated", signer)
	}
	panic(fmt.Sprintf("operation %s has no event", op.Kind()))
}

func executed(events []abci.Event, proposal crypto.Hash, executed bool) []abci.Event {
	if executed {
		events = append(events, event("ledger.proposal_executed", proposal))
	}
	return events
}

// validatorEvents describes what a block has changed of the validators' powers.
func validatorEvents(changed []ledger.Validator) (events []abci.Event) {
	for _, v := range changed {
		address := v.Address()
		events = append(events, event("ledger.validator_changed", strings.ToUpper(hex.EncodeToString(address[:])), strconv.FormatUint(v.Power, 10), v.Status()))
	}
	return events
}
