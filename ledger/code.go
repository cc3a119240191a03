package ledger

import "fmt"

// Code says what became of a transaction. Codes are protocol: numbered once, never reused. The numbers of those that refuse
// ascend in the order in which the rules are checked; those of operations are grouped by what they are about, and the
// first rule of the first operation that fails decides, in the order of docs/PROTOCOL.md.
//
//   - [OK]: every operation took effect, the fee is paid.
//   - 1 to 99, refused: the transaction may not stand in a block. An honest proposer does not propose it, an honest
//     validator rejects the block that holds it; where such a block is nevertheless decided, it has no effect at all.
//   - 100 and above, failed: it stands in a block, the fee is paid, the sequence or nonce is used up, and no operation
//     took effect.
type Code uint32

const (
	OK Code = 0

	Malformed                Code = 1
	TooLarge                 Code = 2
	Expired                  Code = 10
	ValidUntilTooFar         Code = 11
	PolicyUnknown            Code = 20
	PolicyMismatch           Code = 21
	SignerClosed             Code = 22
	SequenceUsed             Code = 30
	SequenceGap              Code = 31
	NonceUsed                Code = 32
	ReplayFull               Code = 33
	FeeAboveMaximum          Code = 40
	FeeUnpayable             Code = 41
	RegistrationAboveMaximum Code = 42
	FeeGrantUnusable         Code = 43
	WitnessMissing           Code = 50
	WitnessUnknown           Code = 51
	WitnessSuperfluous       Code = 52
	SignatureInvalid         Code = 60
	BrokenInvariant          Code = 99

	AssetUnknown             Code = 100
	InsufficientFunds        Code = 101
	SupplyExceeded           Code = 102
	CounterOverflow          Code = 103
	NothingToTransfer        Code = 104
	CeilingExceeded          Code = 105
	DepositAboveMaximum      Code = 106
	DepositUnpayable         Code = 107
	AssetCreationClosed      Code = 110
	AssetExists              Code = 111
	NotIssuer                Code = 112
	ControlMissing           Code = 113
	MaxSupplyRaised          Code = 114
	IssuerLine               Code = 115
	CreditInUse              Code = 116
	PolicyUnchanged          Code = 120
	RecoveryUnavailable      Code = 121
	RecoveryPending          Code = 122
	RecoveryNone             Code = 123
	RecoveryOtherPolicy      Code = 124
	RecoveryTooEarly         Code = 125
	AccountClosed            Code = 130
	LineNotOpen              Code = 131
	LineUnknown              Code = 132
	LineNotEmpty             Code = 133
	LineNotAuthorised        Code = 134
	LineFrozen               Code = 135
	Unchanged                Code = 136
	AccountInUse             Code = 137
	HoldUnknown              Code = 140
	HoldExpired              Code = 141
	HoldNotPermitted         Code = 142
	HoldTooEarly             Code = 143
	HoldPreimageWrong        Code = 144
	HoldAmountExceeded       Code = 145
	HoldExpiryOutOfRange     Code = 146
	HoldBucketFull           Code = 147
	GrantUnknown             Code = 150
	GrantExpired             Code = 151
	GrantOtherReceiver       Code = 152
	GrantExceeded            Code = 153
	NotValidator             Code = 160
	ValidatorUnknown         Code = 161
	ValidatorExists          Code = 162
	ValidatorSetFull         Code = 163
	ValidatorSetEmpty        Code = 164
	ValidatorQuorumLost      Code = 165
	ValidatorPowersUnsound   Code = 166
	ValidatorNotInactive     Code = 167
	ProposalUnknown          Code = 168
	ProposalExpired          Code = 169
	ProposalExpiryOutOfRange Code = 170
	ProposalsFull            Code = 171
	ParametersChanged        Code = 172
	ParametersInvalid        Code = 173
	BondExists               Code = 174
	BondMissing              Code = 175
	BondLocked               Code = 176
)

// Explanation describes a code for people.
type Explanation struct {
	Code    Code
	Name    string // lower case with underscores: what JSON output and logs call it
	Meaning string
	Remedy  string
}

// explanations lists every code, in ascending order.
var explanations = []Explanation{
	{OK, "ok", "Every operation took effect and the fee is paid.", "Nothing to do."},
	{Malformed, "malformed", "The bytes are not a canonical transaction; the message names the field.", "Mend the field and sign again."},
	{TooLarge, "too_large", "The transaction has more bytes than the parameter max_tx_bytes.", "Split its operations over several transactions."},
	{Expired, "expired", "valid_until is not after the block's time.", "This transaction can no longer take effect. Build a new one, with a later valid_until."},
	{ValidUntilTooFar, "valid_until_too_far", "valid_until is further ahead than the parameter replay_window_seconds allows for a nonce.", "Use a nearer valid_until, or a sequence."},
	{PolicyUnknown, "policy_unknown", "A signer has not signed before and the transaction does not carry its policy.", "Put the policy into the signer."},
	{PolicyMismatch, "policy_mismatch", "The policy in the transaction is not the one that the signer's account has.", "Use the account's present policy, or leave it out."},
	{SignerClosed, "signer_closed", "A signer's account was closed.", "Use another account: closing is for ever."},
	{SequenceUsed, "sequence_used", "The signer's sequence was used by an earlier transaction.", "Ask for the transaction that used it; build a new one with the next sequence only if that was another payment."},
	{SequenceGap, "sequence_gap", "The signer's sequence is not the next one.", "Send the transactions with the sequences before it first."},
	{NonceUsed, "nonce_used", "The signer has used this nonce with this valid_until.", "The payment was made already: ask for it by its id."},
	{ReplayFull, "replay_full", "The ledger remembers as many open nonces as the parameter max_open_nonces allows, or 65,536 of this valid_until.", "Use another valid_until or a sequence, or try again later."},
	{FeeAboveMaximum, "fee_above_maximum", "The fee is above the max_fee that the signers agreed to.", "Sign again with a higher max_fee."},
	{FeeUnpayable, "fee_unpayable", "The payer cannot pay the fee and the deposits of accounts that sign for the first time.", "Fund the payer with the fee asset, or let a sponsor pay."},
	{RegistrationAboveMaximum, "registration_above_maximum", "The deposits of accounts that sign for the first time are above the max_deposit that was agreed to.", "Sign again with a higher max_deposit."},
	{FeeGrantUnusable, "fee_grant_unusable", "The first signer has no grant from the fee_granter that covers the fee now.", "Ask the granter for a grant for fees, or pay the fee yourself."},
	{WitnessMissing, "witness_missing", "The signatures of a signer do not reach its policy's threshold.", "Collect more signatures."},
	{WitnessUnknown, "witness_unknown", "A witness names a key that the signer's policy does not have.", "Sign with a key of the policy."},
	{WitnessSuperfluous, "witness_superfluous", "A signer has more signatures than its policy needs.", "Leave out what the threshold does not need."},
	{SignatureInvalid, "signature_invalid", "A signature or a proof of possession does not verify, or a new key is not one that its scheme admits.", "Sign the bytes of this transaction, for this network and the account's present policy version."},
	{BrokenInvariant, "broken_invariant", "The transaction would have broken an invariant of the ledger, and was undone as a whole.", "Report it: this is a defect of the ledger."},
	{AssetUnknown, "asset_unknown", "There is no asset with this id.", "Check the asset; create it first."},
	{InsufficientFunds, "insufficient_funds", "The debited account has less available than the amount.", "Fund the account, or pay less."},
	{SupplyExceeded, "supply_exceeded", "The issuer would pass the asset's maximum supply.", "Issue less."},
	{CounterOverflow, "counter_overflow", "A counter of a line would pass 2^128 - 1.", "Use another account."},
	{NothingToTransfer, "nothing_to_transfer", "A balancing amount came to 0: nothing is available, or nothing is owed.", "Nothing to do, or fund the account."},
	{CeilingExceeded, "ceiling_exceeded", "The credited line would hold more than its ceiling, or than its issuer's cap.", "Pay less, or let the receiver or the issuer raise the limit."},
	{DepositAboveMaximum, "deposit_above_maximum", "The deposits for new rows are above the max_deposit that was agreed to.", "Sign again with a higher max_deposit: deposits are paid back when the rows go."},
	{DepositUnpayable, "deposit_unpayable", "The payer cannot pay the deposit for a new row.", "Fund the payer with the fee asset, or let a sponsor pay."},
	{AssetCreationClosed, "asset_creation_closed", "The parameters allow only certain accounts to create assets, and this is none of them.", "Ask one of them."},
	{AssetExists, "asset_exists", "An asset with this code, or with the id that it would have, exists.", "Choose another code."},
	{NotIssuer, "not_issuer", "The signer is not the asset's issuer.", "Only the issuer may do this."},
	{ControlMissing, "control_missing", "The asset was made without this control, or its issuer has dropped it.", "Nothing can be done: controls are never added."},
	{MaxSupplyRaised, "max_supply_raised", "The new maximum supply is above the present one.", "Choose a lower one: it is only ever lowered."},
	{IssuerLine, "issuer_line", "This cannot be done to the issuer's own line.", "Nothing to do: it stays as long as the asset."},
	{CreditInUse, "credit_in_use", "The line is overdrawn by more than the new credit.", "Grant as much credit as is used, or wait until it is paid back."},
	{PolicyUnchanged, "policy_unchanged", "The new policy is the account's present one.", "Nothing to do."},
	{RecoveryUnavailable, "recovery_unavailable", "The account has never signed or was closed, or its policy does not name the signer as recovery account.", "Recover from the account that the policy names."},
	{RecoveryPending, "recovery_pending", "A recovery of the account was started before.", "Finish it or cancel it first."},
	{RecoveryNone, "recovery_none", "No recovery of the account was started.", "Start one first; it may have been cancelled."},
	{RecoveryOtherPolicy, "recovery_other_policy", "The policy is not the one that was announced.", "Finish with the announced policy, or cancel and start again."},
	{RecoveryTooEarly, "recovery_too_early", "The delay of the recovery is not over.", "Wait until the recovery is ready."},
	{AccountClosed, "account_closed", "The account was closed, or is the pool of deposits.", "Ask the receiver for another account: closing is for ever."},
	{LineNotOpen, "line_not_open", "The receiver takes only assets for which it has opened a line itself.", "Ask the receiver to open a line for the asset."},
	{LineUnknown, "line_unknown", "The account has no line in the asset, or the receiver of a deposit has none in the fee asset.", "Check the asset; open the line first."},
	{LineNotEmpty, "line_not_empty", "The line still holds, owes or promises something.", "Transfer what it holds and resolve its holds first."},
	{LineNotAuthorised, "line_not_authorised", "The asset's issuer has not authorised the line.", "Ask the issuer to authorise the line."},
	{LineFrozen, "line_frozen", "The issuer has frozen the line or the asset in this direction.", "Ask the issuer."},
	{Unchanged, "unchanged", "Everything is already as the operation would have it.", "Nothing to do."},
	{AccountInUse, "account_in_use", "The account still has lines, grants or assets, receives the fees, or operates a validator.", "Close its lines and revoke its grants first, and have its validator removed; an issuer cannot close its account."},
	{HoldUnknown, "hold_unknown", "There is no open hold with this id.", "Look at the line's journal: it may have been resolved."},
	{HoldExpired, "hold_expired", "The hold's time is over.", "Nothing to do: its expiry resolves it."},
	{HoldNotPermitted, "hold_not_permitted", "The hold does not let the signer do this.", "Ask who may: it was decided when the hold was made."},
	{HoldTooEarly, "hold_too_early", "The hold cannot be posted before its not_before.", "Wait until then."},
	{HoldPreimageWrong, "hold_preimage_wrong", "The preimage does not open the hold's lock, or the hold has none.", "Use the preimage whose SHA-256 is the lock; none without a lock."},
	{HoldAmountExceeded, "hold_amount_exceeded", "The amount is above what the hold reserves.", "Post at most the hold's amount."},
	{HoldExpiryOutOfRange, "hold_expiry_out_of_range", "expires is not after the block's time, or further ahead than the parameter max_hold_seconds.", "Choose another expires."},
	{HoldBucketFull, "hold_bucket_full", "65,536 holds expire in that second already.", "Choose another second."},
	{GrantUnknown, "grant_unknown", "There is no such grant, or the granter has ended all of that time.", "Ask the granter for a grant."},
	{GrantExpired, "grant_expired", "The grant's time is over.", "Ask the granter for a new one, or choose a later until."},
	{GrantOtherReceiver, "grant_other_receiver", "The grant pays another account only.", "Pay the account that the grant names."},
	{GrantExceeded, "grant_exceeded", "The amount is above what the grant still allows, now or in all.", "Spend less, wait for the next period, or ask the granter."},
	{NotValidator, "not_validator", "The signer is not the operator of a validator with power.", "Sign with the operator's account; reactivate a validator that has lost its power."},
	{ValidatorUnknown, "validator_unknown", "No validator that this could be done to has this consensus address, or it has another operator.", "Look at the list of validators."},
	{ValidatorExists, "validator_exists", "The operator has a validator already, or the consensus key is that of one, of one that was removed for equivocation, or of another operator's that left less than bond_seconds ago.", "Use another operator, or make a new consensus key."},
	{ValidatorSetFull, "validator_set_full", "The list has 100 validators, and none of the former ones may be forgotten yet.", "Wait until a former one has been out for bond_seconds."},
	{ValidatorSetEmpty, "validator_set_empty", "No validator would be left with power.", "Add another one first."},
	{ValidatorQuorumLost, "validator_quorum_lost", "Two thirds of the new power or less would be that of the block's validators: the chain could stop.", "Change less at a time: smaller powers first, and the next change some blocks later."},
	{ValidatorPowersUnsound, "validator_powers_unsound", "CometBFT would take a validator's power for a third of the total, which it is not, and never let it fetch old blocks.", "Multiply all powers by ten, or choose another power."},
	{ValidatorNotInactive, "validator_not_inactive", "The signer is not the operator of a validator that has lost its power by missing blocks.", "Nothing to do; a validator that was removed can only be added again, by vote."},
	{ProposalUnknown, "proposal_unknown", "There is no open proposal with this id.", "Look at the list of proposals: it may have been enacted, or have expired."},
	{ProposalExpired, "proposal_expired", "The proposal's time is over.", "Propose it again."},
	{ProposalExpiryOutOfRange, "proposal_expiry_out_of_range", "expires is not after the block's time, or more than 31 days ahead.", "Choose another expires."},
	{ProposalsFull, "proposals_full", "The signer has four open proposals, or there are 1,000 in all, or the proposal has 1,000 approvals.", "Withdraw a proposal, or wait until one is enacted or expires."},
	{ParametersChanged, "parameters_changed", "The parameters are not those that the proposal replaces.", "Propose again, beginning with the present parameters."},
	{ParametersInvalid, "parameters_invalid", "The proposal changes the fee asset, or its collector of fees is closed, issues the fee asset, has a bond or is the pool of deposits, or max_tx_bytes is lowered to below 32,768.", "Keep the fee asset, choose another collector, and leave operators room to vote."},
	{BondExists, "bond_exists", "The operator has a bond already.", "Nothing to do; release it first for another amount."},
	{BondMissing, "bond_missing", "The operator has no bond, or one below the parameter bond.", "Bond at least that amount from the operator's account."},
	{BondLocked, "bond_locked", "The bond answers for a validator, or for one that left less than bond_seconds ago.", "Have the validator removed, then wait until bond_seconds are over."},
}

// Explanations lists every code in ascending order.
func Explanations() []Explanation { return append([]Explanation(nil), explanations...) }

// Explain returns the description of a code; ok is false for a number that is not a code.
func Explain(c Code) (e Explanation, ok bool) {
	for _, e := range explanations {
		if e.Code == c {
			return e, true
		}
	}
	return Explanation{}, false
}

// String returns the code's name.
func (c Code) String() string {
	if e, ok := Explain(c); ok {
		return e.Name
	}
	return fmt.Sprintf("code_%d", uint32(c))
}

// Refused tells whether a transaction with this code may not stand in a block.
func (c Code) Refused() bool { return c != OK && c < 100 }

// Failed tells whether a transaction with this code stands in a block without effect, its fee paid.
func (c Code) Failed() bool { return c >= 100 }
