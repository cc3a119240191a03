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
	"slices"

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
	// Checks are those of the payer's witnesses first, so that a stranger who names a payer without its signature is found
	// out by the first of them.
	Checks []crypto.Check
	// Payer is the number of checks of the witnesses of who answers for the fee: the sponsor, else the first signer, who
	// pays or whose grant for fees does.
	Payer int
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
	rate     FeeRate
	pool     crypto.Address // DepositPool
	state    *state
	verifier Verifier
	totals   totals
	entries  []LineEntry
	broken   []crypto.Hash
	walk     uint64 // number of the last walk of state.balanced
}

// totals are what transactions have paid and the block has not yet posted, so that no line is touched by all of them.
type totals struct {
	fees     Amount // for the collector
	deposits Amount // for the pool
	refunds  Amount // from the pool
	load     uint64 // weight of the transactions
}

// Outcome is what a block did.
type Outcome struct {
	Writes  []Write     // sorted by key, no key twice
	Entries []LineEntry // in the order in which they were made
	Updates []Validator // validators whose power the block has changed, sorted, no key twice
	Broken  []crypto.Hash
}

// NewBlock begins a block over the state that the block before it left.
func NewBlock(base Reader, h Header, v Verifier) (*Block, error) {
	b := &Block{header: h, pool: DepositPool(), state: newState(base), verifier: v}
	for _, row := range []struct {
		key    []byte
		decode func([]byte) error
	}{
		{NetworkRow(), func(v []byte) (err error) { b.network, err = DecodeNetwork(v); return }},
		{ParametersRow(), func(v []byte) (err error) { b.params, err = DecodeParameters(v); return }},
		{FeeRateRow(), func(v []byte) (err error) { b.rate, err = DecodeFeeRate(v); return }},
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

// Entries returns the journal entries that the block's transactions have made so far. The caller must not change them.
func (b *Block) Entries() []LineEntry { return b.entries }

// FeeRate returns the rate at which the block's transactions pay.
func (b *Block) FeeRate() FeeRate { return b.rate }

// execution is one transaction taking effect.
type execution struct {
	*Block
	tx         *Tx
	id         crypto.Hash
	operation  uint32
	payer      crypto.Address
	payerGrant *spending // under which the payer pays; nil: it has signed
	maxDeposit Amount
	deposit    Amount // taken so far
}

// Apply executes a transaction after those applied before. What it returns is the same on every node. On an error the
// block must be abandoned.
func (b *Block) Apply(tx *Tx) (Receipt, error) {
	id := tx.ID(b.network.ID)
	admitted, code := b.admit(tx, id, 0)
	if code != OK {
		return Receipt{TxID: id, Code: code}, b.state.err
	}
	entries, before := len(b.entries), b.totals
	x := &execution{Block: b, tx: tx, id: id, payer: tx.Payer(), payerGrant: tx.payerGrant()}
	_, x.maxDeposit = tx.limits()
	x.charge(admitted)
	receipt := Receipt{TxID: id, Fee: admitted.fee}
	afterFee, entriesAfterFee, totalsAfterFee, depositAfterFee := b.state.savepoint(), len(b.entries), b.totals, x.deposit
	for i, op := range tx.Body.Operations {
		x.operation = uint32(i)
		result, code := x.perform(op)
		if code != OK {
			b.state.undo(afterFee)
			b.entries, b.totals, x.deposit = b.entries[:entriesAfterFee], totalsAfterFee, depositAfterFee
			receipt.Code, receipt.Failed, receipt.Results = code, uint32(i)+1, nil
			break
		}
		receipt.Results = append(receipt.Results, result)
	}
	receipt.Deposit = x.deposit
	if !b.balanced(before) {
		b.state.undo(savepoint{})
		b.entries, b.totals = b.entries[:entries], before
		b.broken = append(b.broken, id)
		return Receipt{TxID: id, Code: BrokenInvariant}, b.state.err
	}
	b.state.keep()
	return receipt, b.state.err
}

// perform lets one operation take effect.
func (x *execution) perform(op Operation) (OperationResult, Code) {
	if account, _ := x.state.accounts.get(x.account(op.By())); account.Flags&AccountClosedFlag != 0 {
		return OperationResult{}, AccountClosed // by an operation before
	}
	return op.apply(x)
}

// payerGrant returns the grant under which the payer pays; nil when it has signed itself.
func (tx *Tx) payerGrant() *spending {
	if tx.Sponsor != nil || tx.Body.FeeGranter == (crypto.Address{}) {
		return nil
	}
	return &spending{key: GrantKey{Granter: tx.Body.FeeGranter, Grantee: tx.Body.Signers[0].Address, Kind: KindFees}}
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
	parties       []signerState
	fee           Amount
	registrations Amount // deposits of the accounts that sign for the first time
	weight        uint64
}

// signerState is a signer, or the sponsor, with its account as it is before the transaction.
type signerState struct {
	address crypto.Address
	brought []byte // the policy in the transaction
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
	parties, code := b.signers(tx, ahead, true)
	if code != OK {
		return admitted{}, code
	}
	// The structure of the witnesses is looked at before the fee, which depends on it, but refused after it.
	authorization, witnessCode := b.authorization(tx, parties)
	cost := VerificationCost(authorization.Checks)
	a := admitted{parties: parties, fee: b.params.Fee(b.rate, len(tx.raw), len(body.Operations), cost),
		weight: Weight(len(tx.raw), len(body.Operations), cost)}
	for _, p := range parties {
		if !p.known {
			a.registrations = a.registrations.mustAdd(Units(b.params.DepositAccount)) // 17 times 2^40
		}
	}
	if code := b.payable(tx, a); code != OK {
		return admitted{}, code
	}
	if witnessCode != OK {
		return admitted{}, witnessCode
	}
	if !b.verifier.Verify(authorization) {
		return admitted{}, SignatureInvalid
	}
	return a, OK
}

// payable tells why the payer cannot pay what a transaction costs before its operations, or the collector not receive it.
func (b *Block) payable(tx *Tx, a admitted) Code {
	maxFee, maxDeposit := tx.limits()
	if a.fee.Cmp(maxFee) > 0 {
		return FeeAboveMaximum
	}
	charge := a.fee.mustAdd(a.registrations) // below 2^80
	if tx.Sponsor != nil && a.registrations.Cmp(maxDeposit) < 0 {
		// A sponsor without the means for the deposits could make others' transactions fail.
		var ok bool
		if charge, ok = a.fee.Add(maxDeposit); !ok {
			return FeeUnpayable
		}
	}
	if !charge.IsZero() {
		collector := LineKey{b.params.FeeCollector, b.params.FeeAsset}
		receiving, _ := b.state.lines.get(collector)
		if !b.canPay(tx.Payer(), charge) || !b.roomFor(collector, total(receiving.CreditsPosted, receiving.CreditsPending, a.fee)) {
			return FeeUnpayable
		}
	}
	if a.registrations.Cmp(maxDeposit) > 0 {
		return RegistrationAboveMaximum
	}
	if grant := tx.payerGrant(); grant != nil && grant.usable(b, charge) != OK {
		return FeeGrantUnusable
	}
	return OK
}

// signers looks up the account and policy of every signer and of the sponsor, who comes last, and, when replay is asked
// for, checks the signers' sequences and nonces.
func (b *Block) signers(tx *Tx, ahead uint64, replay bool) ([]signerState, Code) {
	parties := make([]signerState, 0, len(tx.Body.Signers)+1)
	for _, s := range tx.Body.Signers {
		parties = append(parties, signerState{address: s.Address, brought: s.Policy})
	}
	if s := tx.Sponsor; s != nil {
		parties = append(parties, signerState{address: s.Address, brought: s.Policy})
	}
	code, nonces := OK, uint64(0)
	for i := range parties {
		if c := b.lookUp(&parties[i]); c != OK {
			code = firstCode(code, c)
		}
	}
	if code != OK || !replay {
		return parties, code
	}
	for i, s := range tx.Body.Signers {
		next := parties[i].account.Sequence + 1
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
	return parties, code
}

// lookUp finds a party's account and the policy in force.
func (b *Block) lookUp(p *signerState) Code {
	p.account, p.known = b.state.accounts.get(p.address)
	if !p.known {
		p.account.Policy = crypto.Hash(p.address)
	}
	bytes := p.brought
	if bytes == nil {
		// An account without a row always brings its policy. The state may hold it for another account, but which
		// policies stand beside the trees without an account that refers to them is committed to by nothing: a
		// decision that hangs on one would split nodes that restored different snapshots.
		if p.known {
			bytes, _ = b.state.policies.get(p.account.Policy)
		}
		if bytes == nil {
			return PolicyUnknown
		}
	} else if crypto.DomainAddress.Hash(bytes) != p.account.Policy {
		return PolicyMismatch
	}
	policy, err := crypto.DecodeRegisteredPolicy(bytes)
	if err != nil { // the bytes are from the state or were validated with the body
		panic(fmt.Sprintf("policy %s of account %s does not decode: %s", p.account.Policy, p.address, err))
	}
	p.policy = policy
	if p.account.Flags&AccountClosedFlag != 0 {
		return SignerClosed
	}
	return OK
}

// authorization collects the signatures to verify. With another code than OK it holds those that could be collected.
func (b *Block) authorization(tx *Tx, parties []signerState) (Authorization, Code) {
	a := Authorization{Tx: tx}
	code := OK
	fingerprint := make([]byte, 0, 32+36*len(parties))
	fingerprint = append(fingerprint, tx.hash[:]...)
	w := 0
	for i := range parties {
		s := &parties[i]
		fingerprint = append(fingerprint, s.account.Policy[:]...)
		fingerprint = appendUint32(fingerprint, s.account.PolicyVersion)
		var message []byte
		need := uint64(s.policy.Threshold)
		if i < len(tx.Body.Signers) {
			message = preimage(b.network.ID, tx.sum, s.account.PolicyVersion)
			if tx.Body.governed(uint32(i)) {
				need = uint64(s.policy.ForChange())
			}
		} else {
			message = sponsorPreimage(b.network.ID, tx.sum, tx.Sponsor, s.account.PolicyVersion)
		}
		var weight, lightest uint64
		first := len(a.Checks)
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
		switch {
		case i == 0:
			a.Payer = len(a.Checks)
		case i == len(tx.Body.Signers): // the sponsor
			a.Payer = len(a.Checks) - first
			a.Checks = slices.Concat(a.Checks[first:], a.Checks[:first])
		}
		if s.brought != nil {
			a.Checks = append(a.Checks, registration(s.policy)...)
		}
		switch {
		case weight < need:
			code = firstCode(code, WitnessMissing)
		case weight-lightest >= need:
			code = firstCode(code, WitnessSuperfluous)
		}
	}
	for _, op := range tx.Body.Operations {
		if p, ok := op.(proving); ok {
			a.Checks = append(a.Checks, p.verification(b.network.ID, &tx.Body, parties[op.By()].account.PolicyVersion)...)
		}
	}
	a.Fingerprint = sha256.Sum256(fingerprint)
	return a, code
}

// governed tells whether a signer needs its policy's change threshold.
func (b *Body) governed(signer uint32) bool {
	for _, op := range b.Operations {
		if g, ok := op.(governing); ok && op.By() == signer && g.governs(b) {
			return true
		}
	}
	return false
}

// NeedOf returns the weight that the signatures of a signer with a policy must have for this body.
func (b *Body) NeedOf(signer uint32, policy crypto.Policy) uint32 {
	if b.governed(signer) {
		return policy.ForChange()
	}
	return policy.Threshold
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
	for i, p := range a.parties {
		account := p.account
		if i < len(x.tx.Body.Signers) {
			if s := x.tx.Body.Signers[i]; s.Sequence != 0 {
				account.Sequence = s.Sequence
			} else {
				x.state.useNonce(x.tx.Body.ValidUntil, s.Address, s.Nonce)
			}
		}
		if !p.known { // and so the transaction carries the policy
			account.Deposit, account.Depositor = Units(x.params.DepositAccount), x.depositor(p.address, x.params.DepositAccount)
			x.state.policies.put(account.Policy, p.brought)
		}
		if !p.known || i < len(x.tx.Body.Signers) {
			x.state.accounts.put(p.address, account)
		}
	}
	x.totals.load += a.weight
	if x.payerGrant != nil {
		x.payerGrant.use(x.Block, a.fee.mustAdd(a.registrations))
	}
	if !a.fee.IsZero() {
		k := LineKey{x.payer, x.params.FeeAsset}
		line, _ := x.state.lines.get(k)
		line.DebitsPosted = line.DebitsPosted.mustAdd(a.fee) // admit has found it payable
		x.enter(k, line, Entry{Kind: EntryFee, Counterparty: x.params.FeeCollector, Amount: a.fee}, x.cause())
		x.totals.fees = x.totals.fees.mustAdd(a.fee)
	}
	if !a.registrations.IsZero() {
		x.payDeposit(a.registrations)
	}
}

// End closes the block: it removes dead nonces, lets holds expire, punishes evidence, counts who has missed the block
// before, posts the block's fees and deposits, adapts the fee rate and checks the invariants.
func (b *Block) End(evidence []Misbehavior, votes []Vote) (Outcome, error) {
	b.state.pruneNonces(b.header.UnixMillis)
	b.expire()
	b.punish(evidence)
	b.countMissed(votes)
	b.post(b.params.FeeCollector, EntryFees, true, b.totals.fees)
	b.post(b.pool, EntryDeposits, true, b.totals.deposits)
	b.post(b.pool, EntryRefunds, false, b.totals.refunds)
	if next := b.rate.Next(b.params, b.totals.load); next != b.rate {
		b.state.feeRate.put(struct{}{}, next)
	}
	b.totals = totals{}
	b.state.keep()
	if b.state.err != nil {
		return Outcome{}, b.state.err
	}
	b.mustBalance()
	return Outcome{Writes: b.state.writes(), Entries: b.entries, Updates: b.state.updates(), Broken: b.broken}, nil
}

// post enters one of the block's totals on a line of the fee asset. That there is room was seen to when the amounts were
// taken.
func (b *Block) post(account crypto.Address, kind EntryKind, credit bool, amount Amount) {
	if amount.IsZero() {
		return
	}
	k := LineKey{account, b.params.FeeAsset}
	line := b.existing(k)
	if credit {
		line.CreditsPosted = line.CreditsPosted.mustAdd(amount)
	} else {
		line.DebitsPosted = line.DebitsPosted.mustAdd(amount)
	}
	b.enter(k, line, Entry{Kind: kind, Credit: credit, Amount: amount}, cause{})
}

// existing returns a line that the ledger itself credits, and makes it if it has no row: nobody pays a deposit for it.
func (b *Block) existing(k LineKey) Line {
	if _, ok := b.state.lines.get(k); !ok {
		closed, _ := b.state.accounts.get(k.Account)
		b.openLine(k, Line{Incarnation: closed.ClosedLines})
	}
	line, _ := b.state.lines.get(k)
	return line
}
