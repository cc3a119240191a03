package ledger

import "fmt"

// Code says what became of a transaction. Codes are protocol: numbered once, never reused. Their numbers ascend in the
// order in which the rules are checked, so the code of a transaction is the smallest one that applies to the first
// operation that fails.
//
//   - [OK]: every operation took effect, the fee is paid.
//   - 1 to 99, refused: the transaction may not stand in a block. An honest proposer does not propose it, an honest
//     validator rejects the block that holds it; where such a block is nevertheless decided, it has no effect at all.
//   - 100 and above, failed: it stands in a block, the fee is paid, the sequence or nonce is used up, and no operation
//     took effect.
type Code uint32

const (
	OK Code = 0

	Malformed          Code = 1
	TooLarge           Code = 2
	Expired            Code = 10
	ValidUntilTooFar   Code = 11
	PolicyUnknown      Code = 20
	PolicyMismatch     Code = 21
	SequenceUsed       Code = 30
	SequenceGap        Code = 31
	NonceUsed          Code = 32
	ReplayFull         Code = 33
	FeeAboveMaximum    Code = 40
	FeeUnpayable       Code = 41
	WitnessMissing     Code = 50
	WitnessUnknown     Code = 51
	WitnessSuperfluous Code = 52
	SignatureInvalid   Code = 60
	BrokenInvariant    Code = 99

	AssetUnknown        Code = 100
	InsufficientFunds   Code = 101
	SupplyExceeded      Code = 102
	CounterOverflow     Code = 103
	AssetCreationClosed Code = 110
	AssetExists         Code = 111
	PolicyUnchanged     Code = 120
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
	{SequenceUsed, "sequence_used", "The signer's sequence was used by an earlier transaction.", "Ask for the transaction that used it; build a new one with the next sequence only if that was another payment."},
	{SequenceGap, "sequence_gap", "The signer's sequence is not the next one.", "Send the transactions with the sequences before it first."},
	{NonceUsed, "nonce_used", "The signer has used this nonce with this valid_until.", "The payment was made already: ask for it by its id."},
	{ReplayFull, "replay_full", "The ledger remembers as many open nonces as the parameter max_open_nonces allows, or 65,536 of this valid_until.", "Use another valid_until or a sequence, or try again later."},
	{FeeAboveMaximum, "fee_above_maximum", "The fee is above the max_fee that the signers agreed to.", "Sign again with a higher max_fee."},
	{FeeUnpayable, "fee_unpayable", "The first signer cannot pay the fee.", "Fund the account with the fee asset."},
	{WitnessMissing, "witness_missing", "The signatures of a signer do not reach its policy's threshold.", "Collect more signatures."},
	{WitnessUnknown, "witness_unknown", "A witness names a key that the signer's policy does not have.", "Sign with a key of the policy."},
	{WitnessSuperfluous, "witness_superfluous", "A signer has more signatures than its policy needs.", "Leave out what the threshold does not need."},
	{SignatureInvalid, "signature_invalid", "A signature or a proof of possession does not verify, or a new key is not one that its scheme admits.", "Sign the bytes of this transaction, for this network and the account's present policy version."},
	{BrokenInvariant, "broken_invariant", "The transaction would have broken an invariant of the ledger, and was undone as a whole.", "Report it: this is a defect of the ledger."},
	{AssetUnknown, "asset_unknown", "There is no asset with this id.", "Check the asset; create it first."},
	{InsufficientFunds, "insufficient_funds", "The sender has less available than the amount.", "Fund the account, or pay less."},
	{SupplyExceeded, "supply_exceeded", "The issuer would pass the asset's maximum supply.", "Issue less."},
	{CounterOverflow, "counter_overflow", "A counter of a line would pass 2^128 - 1.", "Use another account."},
	{AssetCreationClosed, "asset_creation_closed", "The parameters allow only certain accounts to create assets, and this is none of them.", "Ask one of them."},
	{AssetExists, "asset_exists", "An asset with this code, or with the id that it would have, exists.", "Choose another code."},
	{PolicyUnchanged, "policy_unchanged", "The new policy is the account's present one.", "Nothing to do."},
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
