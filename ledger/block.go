// Package ledger is the rulebook: what a transaction is, which ones may stand in a block, and what they do to the state.
//
// It is pure. It is handed a committed state ([Reader]), a block's height and time and the transactions in order, and
// returns writes, receipts and codes; it knows no clock, disk, network, randomness or goroutine. A bug here forks the
// network or loses money. [Block.Apply] is the only way in for every caller: proposer, validator, replay and simulation.
//
// A transaction is refused, or fails, with a [Code]; a failure of the machine is an error, and the block is then
// abandoned; a broken invariant of the whole block is a panic that carries the values.
package ledger

import (
	"crypto/sha256"
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Version is the version of these rules. It stands in every header. A change of the rules raises it, activates at a height,
// and keeps the old rules for the blocks below.
const Version = 1

// Header is what the rules know of a block.
type Header struct {
	Height     uint64
	UnixMillis uint64 // the block's time, milliseconds since 1970, rounded down; never decreases
}

// Authorization is everything that must be true for a transaction to be its signers' own.
type Authorization struct {
	Tx *Tx
	// Fingerprint covers the transaction's bytes and each signer's policy and policy version. Equal fingerprints have
	// equal checks, so a verdict may be remembered by it.
	Fingerprint crypto.Hash
	Checks      []crypto.Check
}

// Verifier verifies signatures. One implementation verifies, another remembers what was verified when the transaction
// came in; verdicts must not differ. See [Direct].
type Verifier interface {
	Verify(Authorization) bool
}

// Direct verifies every signature, one by one.
type Direct struct{}

// Verify implements [Verifier].
func (Direct) Verify(a Authorization) bool {
	for _, c := range a.Checks {
		if !c.Verify() {
			return false
		}
	}
	return true
}

// Block executes one block's transactions over a committed state. It belongs to one goroutine and changes nothing but
// itself: whoever drops it has undone the block.
type Block struct {
	header   Header
	network  Network
	params   Parameters
	state    *state
	verifier Verifier
	fees     Amount // taken by transactions, not yet posted to the collector
	entries  []LineEntry
	broken   []crypto.Hash
	walk     uint64 // number of the last walk of state.balanced
}

// Outcome is what a block did.
type Outcome struct {
	Writes  []Write     // sorted by key, no key twice
	Entries []LineEntry // in the order in which they were made
	Updates []Validator // changed validators, sorted, no key twice
	Broken  []crypto.Hash
}

// NewBlock begins a block over the state that the block before it left.
func NewBlock(base Reader, h Header, v Verifier) (*Block, error) {
	b := &Block{header: h, state: newState(base), verifier: v}
	for _, row := range []struct {
		key    []byte
		decode func([]byte) error
	}{
		{NetworkRow(), func(v []byte) (err error) { b.network, err = DecodeNetwork(v); return }},
		{ParametersRow(), func(v []byte) (err error) { b.params, err = DecodeParameters(v); return }},
	} {
		value, err := base.Get(row.key)
		if err == nil {
			err = row.decode(value)
		}
		if err != nil {
			return nil, fmt.Errorf("beginning block %d: reading the state's row %x: %w", h.Height, row.key, err)
		}
	}
	return b, nil
}

// Network returns the network that the state belongs to.
func (b *Block) Network() Network { return b.network }

// Parameters returns the parameters in force.
func (b *Block) Parameters() Parameters { return b.params }

// execution is one transaction taking effect.
type execution struct {
	*Block
	tx        *Tx
	id        crypto.Hash
	operation uint32
}

// Apply executes a transaction after those applied before. What it returns is the same on every node. On an error the
// block must be abandoned.
func (b *Block) Apply(tx *Tx) (Receipt, error) {
	id := tx.ID(b.network.ID)
	admitted, code := b.admit(tx, id, 0)
	if code != OK {
		return Receipt{TxID: id, Code: code}, b.state.err
	}
	entries, fees := len(b.entries), b.fees
	x := &execution{Block: b, tx: tx, id: id}
	x.charge(admitted)
	receipt := Receipt{TxID: id, Fee: admitted.fee}
	afterFee, entriesAfterFee := b.state.savepoint(), len(b.entries)
	for i, op := range tx.Body.Operations {
		x.operation = uint32(i)
		result, code := op.apply(x)
		if code != OK {
			b.state.undo(afterFee)
			b.entries = b.entries[:entriesAfterFee]
			receipt.Code, receipt.Failed, receipt.Results = code, uint32(i)+1, nil
			break
		}
		receipt.Results = append(receipt.Results, result)
	}
	if !b.balanced(fees) {
		b.state.undo(savepoint{})
		b.entries, b.fees = b.entries[:entries], fees
		b.broken = append(b.broken, id)
		return Receipt{TxID: id, Code: BrokenInvariant}, b.state.err
	}
	b.state.keep()
	return receipt, b.state.err
}

// Check tells what Apply would refuse, without changing anything: admission to the mempool. ahead is how far a sequence
// may be ahead of the next one, for transactions that wait for those before them.
func (b *Block) Check(tx *Tx, ahead uint64) (Code, error) {
	_, code := b.admit(tx, tx.ID(b.network.ID), ahead)
	return code, b.state.err
}

// Authorize returns what [Verifier.Verify] will be asked about a transaction, so that a node can verify many at once
// before it executes them. ok is false when the transaction would be refused before its signatures matter.
func (b *Block) Authorize(tx *Tx) (a Authorization, ok bool, err error) {
	signers, code := b.signers(tx, 0, false)
	if code == OK {
		a, code = b.authorization(tx, signers)
	}
	return a, code == OK, b.state.err
}

// admitted is what admission has found out about a transaction.
type admitted struct {
	signers []signerState
	fee     Amount
}

// signerState is a signer with its account as it is before the transaction.
type signerState struct {
	account Account
	known   bool // the account has a row
	policy  crypto.Policy
}

// admit decides whether a transaction may stand in a block, in the order of the codes: what is cheap first, signatures
// last. It changes nothing.
func (b *Block) admit(tx *Tx, id crypto.Hash, ahead uint64) (admitted, Code) {
	body := &tx.Body
	if len(tx.raw) > int(b.params.MaxTxBytes) {
		return admitted{}, TooLarge
	}
	if body.ValidUntil != 0 && body.ValidUntil*1000 <= b.header.UnixMillis {
		return admitted{}, Expired
	}
	for _, s := range body.Signers {
		if s.Sequence == 0 && body.ValidUntil*1000 > b.header.UnixMillis+uint64(b.params.ReplayWindowSeconds)*1000 {
			return admitted{}, ValidUntilTooFar
		}
	}
	signers, code := b.signers(tx, ahead, true)
	if code != OK {
		return admitted{}, code
	}
	// The structure of the witnesses is looked at before the fee, which depends on it, but refused after it.
	authorization, witnessCode := b.authorization(tx, signers)
	fee := b.params.Fee(len(tx.raw), len(body.Operations), VerificationCost(authorization.Checks))
	if fee.Cmp(body.MaxFee) > 0 {
		return admitted{}, FeeAboveMaximum
	}
	if !b.payable(body.Signers[0].Address, fee) {
		return admitted{}, FeeUnpayable
	}
	if witnessCode != OK {
		return admitted{}, witnessCode
	}
	if !b.verifier.Verify(authorization) {
		return admitted{}, SignatureInvalid
	}
	return admitted{signers, fee}, OK
}

// signers looks up every signer's account and policy and, when replay is asked for, checks its sequence or nonce.
func (b *Block) signers(tx *Tx, ahead uint64, replay bool) ([]signerState, Code) {
	signers := make([]signerState, len(tx.Body.Signers))
	code, nonces := OK, uint64(0)
	for i, s := range tx.Body.Signers {
		st := &signers[i]
		st.account, st.known = b.state.accounts.get(s.Address)
		if !st.known {
			st.account.Policy = crypto.Hash(s.Address)
		}
		bytes := s.Policy
		if bytes == nil {
			// An account without a row always brings its policy. The state may hold it for another account, but which
			// policies stand beside the trees without an account that refers to them is committed to by nothing: a
			// decision that hangs on one would split nodes that restored different snapshots.
			if st.known {
				bytes, _ = b.state.policies.get(st.account.Policy)
			}
			if bytes == nil {
				code = firstCode(code, PolicyUnknown)
				continue
			}
		} else if crypto.DomainAddress.Hash(bytes) != st.account.Policy {
			code = firstCode(code, PolicyMismatch)
			continue
		}
		policy, err := crypto.DecodeRegisteredPolicy(bytes)
		if err != nil { // the bytes are from the state or were validated with the body
			panic(fmt.Sprintf("policy %s of account %s does not decode: %s", st.account.Policy, s.Address, err))
		}
		st.policy = policy
	}
	if code != OK || !replay {
		return signers, code
	}
	for i, s := range tx.Body.Signers {
		next := signers[i].account.Sequence + 1
		switch {
		case s.Sequence == 0:
			nonces++
			if _, used := b.state.nonces.get(nonceKey{tx.Body.ValidUntil, s.Address, s.Nonce}); used {
				code = firstCode(code, NonceUsed)
			}
		case s.Sequence < next:
			code = firstCode(code, SequenceUsed)
		case s.Sequence-next > ahead:
			code = firstCode(code, SequenceGap)
		}
	}
	if nonces > 0 && !b.state.nonceRoom(tx.Body.ValidUntil, nonces, b.params.MaxOpenNonces) {
		code = firstCode(code, ReplayFull)
	}
	return signers, code
}

// authorization collects the signatures to verify. With another code than OK it holds those that could be collected.
func (b *Block) authorization(tx *Tx, signers []signerState) (Authorization, Code) {
	a := Authorization{Tx: tx}
	code := OK
	fingerprint := make([]byte, 0, 32+36*len(signers))
	fingerprint = append(fingerprint, tx.hash[:]...)
	w := 0
	for i := range signers {
		s := &signers[i]
		fingerprint = append(fingerprint, s.account.Policy[:]...)
		fingerprint = appendUint32(fingerprint, s.account.PolicyVersion)
		message := preimage(b.network.ID, tx.sum, s.account.PolicyVersion)
		var weight, lightest uint64
		for ; w < len(tx.Witnesses) && int(tx.Witnesses[w].Signer) == i; w++ {
			witness := tx.Witnesses[w]
			if int(witness.Key) >= len(s.policy.Keys) {
				code = firstCode(code, WitnessUnknown)
				continue
			}
			key := s.policy.Keys[witness.Key]
			weight += uint64(key.Weight)
			if lightest == 0 || uint64(key.Weight) < lightest {
				lightest = uint64(key.Weight)
			}
			a.Checks = append(a.Checks, crypto.Check{Scheme: key.Scheme, PublicKey: key.Public, Message: message, Signature: witness.Signature})
		}
		if tx.Body.Signers[i].Policy != nil {
			a.Checks = append(a.Checks, registration(s.policy)...)
		}
		switch threshold := uint64(s.policy.Threshold); {
		case weight < threshold:
			code = firstCode(code, WitnessMissing)
		case weight-lightest >= threshold:
			code = firstCode(code, WitnessSuperfluous)
		}
	}
	for _, op := range tx.Body.Operations {
		a.Checks = append(a.Checks, op.verification(b.network.ID, &tx.Body, signers[op.By()].account.PolicyVersion)...)
	}
	a.Fingerprint = sha256.Sum256(fingerprint)
	return a, code
}

// firstCode returns the code that is checked first.
func firstCode(a, b Code) Code {
	if a == OK {
		return b
	}
	return min(a, b)
}

// charge uses up every signer's sequence or nonce, registers those that sign for the first time, and takes the fee.
func (x *execution) charge(a admitted) {
	for i, s := range x.tx.Body.Signers {
		account := a.signers[i].account
		if s.Sequence != 0 {
			account.Sequence = s.Sequence
		} else {
			x.state.useNonce(x.tx.Body.ValidUntil, s.Address, s.Nonce)
		}
		if !a.signers[i].known { // and so the transaction carries the policy
			x.state.policies.put(account.Policy, s.Policy)
		}
		x.state.accounts.put(s.Address, account)
	}
	if a.fee.IsZero() {
		return
	}
	payer := LineKey{x.tx.Body.Signers[0].Address, x.params.FeeAsset}
	line, _ := x.state.lines.get(payer)
	line.DebitsPosted, _ = line.DebitsPosted.Add(a.fee) // admit has found it payable
	x.enter(payer, line, Entry{TxID: x.id, Kind: EntryFee, Counterparty: x.params.FeeCollector, Amount: a.fee})
	x.fees, _ = x.fees.Add(a.fee)
}

// payable tells whether an account can pay a fee now, and the collector receive it.
func (b *Block) payable(payer crypto.Address, fee Amount) bool {
	if fee.IsZero() {
		return true
	}
	asset, ok := b.state.asset(b.params.FeeAsset)
	if !ok {
		return false
	}
	line, _ := b.state.lines.get(LineKey{payer, b.params.FeeAsset})
	if _, code := debited(asset, payer, line, fee); code != OK {
		return false
	}
	collector := LineKey{b.params.FeeCollector, b.params.FeeAsset}
	receiving, _ := b.state.lines.get(collector)
	_, code := b.credited(collector, receiving, fee)
	return code == OK
}

// debited returns a line after a debit, or why there can be none.
func debited(asset Asset, account crypto.Address, l Line, amount Amount) (Line, Code) {
	if asset.Issuer == account {
		if room, bounded := l.room(asset.MaxSupply); bounded && amount.Cmp(room) > 0 {
			return l, SupplyExceeded
		}
	} else if amount.Cmp(l.Available()) > 0 {
		return l, InsufficientFunds
	}
	posted, ok := l.DebitsPosted.Add(amount)
	if !ok {
		return l, CounterOverflow
	}
	if _, ok = posted.Add(l.DebitsPending); !ok { // posted and pending debits are always added up
		return l, CounterOverflow
	}
	l.DebitsPosted = posted
	return l, OK
}

// room returns what an issuance line can still issue; bounded is false when that is above 2^128 - 1.
func (l Line) room(maximum Amount) (room Amount, bounded bool) {
	debits, ok := l.DebitsPosted.Add(l.DebitsPending)
	if !ok {
		return Amount{}, true
	}
	if issued, ok := debits.Sub(l.CreditsPosted); ok {
		room, ok = maximum.Sub(issued)
		if !ok {
			return Amount{}, true
		}
		return room, true
	}
	returned, _ := l.CreditsPosted.Sub(debits)
	return maximum.Add(returned)
}

// withinSupply tells whether an issuance line has issued no more than its asset's maximum supply.
func (l Line) withinSupply(maximum Amount) bool {
	debits, ok := l.DebitsPosted.Add(l.DebitsPending)
	if !ok {
		return false
	}
	issued, positive := debits.Sub(l.CreditsPosted)
	return !positive || issued.Cmp(maximum) <= 0
}

// credited returns a line after a credit, or why there can be none. The collector's line keeps room for the fees that
// the block has taken and not yet posted.
func (b *Block) credited(k LineKey, l Line, amount Amount) (Line, Code) {
	var ok bool
	if l.CreditsPosted, ok = l.CreditsPosted.Add(amount); !ok {
		return l, CounterOverflow
	}
	if k == (LineKey{b.params.FeeCollector, b.params.FeeAsset}) {
		if _, ok = l.CreditsPosted.Add(b.fees); !ok {
			return l, CounterOverflow
		}
	}
	return l, OK
}

// move posts a transfer between two different accounts.
func (x *execution) move(asset Asset, id AssetID, from, to crypto.Address, amount Amount) Code {
	debitKey, creditKey := LineKey{from, id}, LineKey{to, id}
	debit, _ := x.state.lines.get(debitKey)
	debit, code := debited(asset, from, debit, amount)
	if code != OK {
		return code
	}
	credit, _ := x.state.lines.get(creditKey)
	if credit, code = x.credited(creditKey, credit, amount); code != OK {
		return code
	}
	x.enter(debitKey, debit, Entry{TxID: x.id, Operation: x.operation, Kind: EntryTransfer, Counterparty: to, Amount: amount})
	x.enter(creditKey, credit, Entry{TxID: x.id, Operation: x.operation, Kind: EntryTransfer, Credit: true, Counterparty: from, Amount: amount})
	return OK
}

// enter writes a changed line with the journal entry that says why.
func (b *Block) enter(k LineKey, l Line, e Entry) {
	l.Entries++
	e.Number, e.Height = l.Entries, b.header.Height
	e.DebitsPending, e.DebitsPosted = l.DebitsPending, l.DebitsPosted
	e.CreditsPending, e.CreditsPosted = l.CreditsPending, l.CreditsPosted
	encoded := e.Encode()
	l.Head = NextHead(l.Head, encoded)
	b.state.lines.put(k, l)
	b.entries = append(b.entries, LineEntry{k, l.Entries, encoded})
}

// End closes the block: it removes dead nonces, punishes evidence, posts the block's fees and checks the invariants.
func (b *Block) End(evidence []Misbehavior) (Outcome, error) {
	b.state.pruneNonces(b.header.UnixMillis)
	updates := b.state.punish(b.header.Height, evidence)
	if !b.fees.IsZero() {
		collector := LineKey{b.params.FeeCollector, b.params.FeeAsset}
		line, _ := b.state.lines.get(collector)
		line.CreditsPosted, _ = line.CreditsPosted.Add(b.fees) // room was kept by credited
		b.enter(collector, line, Entry{Kind: EntryFees, Credit: true, Amount: b.fees})
		b.fees = Amount{}
	}
	b.state.keep()
	if b.state.err != nil {
		return Outcome{}, b.state.err
	}
	b.mustBalance()
	return Outcome{Writes: b.state.writes(), Entries: b.entries, Updates: updates, Broken: b.broken}, nil
}
