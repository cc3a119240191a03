package ledger

import (
	"crypto/sha256"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// A hold is a transfer in two phases: it reserves an amount on the holder's line for the receiver, until it is posted, in
// whole or in part, voided, or expires. It is resolved exactly once. Who may resolve it, and how, is decided when it is
// made. See also due.go for what happens at its expiry.

// MaxPreimageBytes bounds what opens a hash lock.
const MaxPreimageBytes = 64

// MaxHoldsPerSecond bounds the holds that expire in one second, and so the queue of one second.
const MaxHoldsPerSecond = 1 << 16

// Resolvers says who may resolve a hold. Its values are bits.
type Resolvers uint32

const (
	ByReceiver Resolvers = 1
	ByArbiter  Resolvers = 2
	ByHolder   Resolvers = 4
	ByAnybody  Resolvers = 8 // who knows the preimage of the hash lock; for posting only
)

// CreateHold reserves an amount.
type CreateHold struct {
	Signer    uint32 // whose line holds, unless there is a Granter
	To        crypto.Address
	Asset     AssetID
	Amount    Amount // above 0
	Reference Reference
	Code      uint32
	Memo      string
	Balancing Balancing // 0 or BalancingDebit
	Granter   crypto.Address

	Expires      uint64         // Unix second from which on it can be resolved by its expiry only
	NotBefore    uint64         // Unix second before which it cannot be posted
	Arbiter      crypto.Address // zero: none
	HashLock     crypto.Hash    // SHA-256 of what posting has to reveal; zero: none
	PostBy       Resolvers
	VoidBy       Resolvers
	PostAtExpiry bool // it is posted at its expiry, and not voided
}

func (c *CreateHold) Kind() Kind { return KindCreateHold }
func (c *CreateHold) By() uint32 { return c.Signer }

func decodeCreateHold(r *canonical.Reader) Operation {
	c := &CreateHold{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "to", c.To[:])
	r.Fixed(3, "asset", c.Asset[:])
	c.Amount = readAmount(r, 4, "amount")
	c.Reference, c.Code, c.Memo = readNote(r)
	c.Balancing = Balancing(r.Uint32(8, "balancing"))
	c.Granter = readAddress(r, 9, "granter")
	c.Expires = r.Uint64(10, "expires")
	c.NotBefore = r.Uint64(11, "not_before")
	c.Arbiter = readAddress(r, 12, "arbiter")
	readOptional(r, 13, "hash_lock", c.HashLock[:])
	c.PostBy = Resolvers(r.Uint32(14, "post_by"))
	c.VoidBy = Resolvers(r.Uint32(15, "void_by"))
	c.PostAtExpiry = r.Bool(16, "post_at_expiry")
	return c
}

func (c *CreateHold) encode(w *canonical.Writer) {
	w.Uint32(1, c.Signer)
	w.Message(2, c.To[:])
	w.Message(3, c.Asset[:])
	w.Bytes(4, c.Amount.Bytes())
	writeNote(w, c.Reference, c.Code, c.Memo)
	w.Uint32(8, uint32(c.Balancing))
	writeAddress(w, 9, c.Granter)
	w.Uint64(10, c.Expires)
	w.Uint64(11, c.NotBefore)
	writeAddress(w, 12, c.Arbiter)
	writeOptional(w, 13, c.HashLock[:])
	w.Uint32(14, uint32(c.PostBy))
	w.Uint32(15, uint32(c.VoidBy))
	w.Bool(16, c.PostAtExpiry)
}

func (c *CreateHold) validate(b *Body) error {
	if err := checkDebited(b, c.Signer, c.Granter, c.To); err != nil {
		return err
	}
	if err := checkNote(c.Amount, c.Code, c.Memo); err != nil {
		return err
	}
	arbitrated, locked := c.Arbiter != (crypto.Address{}), c.HashLock != (crypto.Hash{})
	switch {
	case c.Balancing > BalancingDebit:
		return canonical.Errorf("balancing", "%d, want 0 or %d", c.Balancing, BalancingDebit)
	case c.Expires == 0:
		return canonical.Errorf("expires", "missing, every hold ends")
	case c.Expires > MaxUnixSeconds:
		return canonical.Errorf("expires", "%d is later than the year 9999", c.Expires)
	case c.NotBefore >= c.Expires:
		return canonical.Errorf("not_before", "%d is not before expires, %d", c.NotBefore, c.Expires)
	case arbitrated && (c.Arbiter == c.To || c.Arbiter == debitedAccount(b, c.Signer, c.Granter)):
		return canonical.Errorf("arbiter", "%s is a party of the hold", c.Arbiter)
	case c.PostBy > ByReceiver|ByArbiter|ByHolder|ByAnybody:
		return canonical.Errorf("post_by", "%d, at most 15", c.PostBy)
	case c.VoidBy > ByReceiver|ByArbiter|ByHolder:
		return canonical.Errorf("void_by", "%d, at most 7", c.VoidBy)
	case arbitrated != ((c.PostBy|c.VoidBy)&ByArbiter != 0):
		return canonical.Errorf("arbiter", "want an arbiter if and only if it may post or void")
	case c.PostBy&ByAnybody != 0 && !locked:
		return canonical.Errorf("post_by", "anybody may post, and there is no hash_lock")
	case c.PostBy == 0 && !c.PostAtExpiry:
		return canonical.Errorf("post_by", "missing, nobody could ever post the hold")
	case c.PostAtExpiry && locked:
		return canonical.Errorf("post_at_expiry", "a hash_lock would have no effect")
	}
	return nil
}

// HoldID returns the id of the hold that an operation of a transaction makes.
func HoldID(txID crypto.Hash, operation uint32) crypto.Hash {
	return crypto.DomainHold.Hash(txID[:], appendUint32(nil, operation))
}

func (c *CreateHold) apply(x *execution) (OperationResult, Code) {
	asset, ok := x.state.asset(c.Asset)
	if !ok {
		return OperationResult{}, AssetUnknown
	}
	if now := x.now(); c.Expires <= now || c.Expires > now+uint64(x.params.MaxHoldSeconds) {
		return OperationResult{}, HoldExpiryOutOfRange
	}
	from := LineKey{debitedAccount(&x.tx.Body, c.Signer, c.Granter), c.Asset}
	to := LineKey{c.To, c.Asset}
	grant := x.spending(c.Granter, c.Signer, KindCreateHold, c.Asset, c.To)
	amount, code := x.prepare(asset, from, to, c.Amount, c.Balancing, grant, x.params.DepositHold)
	if code != OK {
		return OperationResult{}, code
	}
	debit, _ := x.state.lines.get(from)
	credit, _ := x.state.lines.get(to)
	if code := debitable(asset, from, debit, amount); code != OK {
		return OperationResult{}, code
	}
	if code := x.creditable(asset, to, credit, amount); code != OK {
		return OperationResult{}, code
	}
	id := HoldID(x.id, x.operation)
	slot, ok := x.state.enqueue(c.Expires, id, x.now())
	if !ok {
		return OperationResult{}, HoldBucketFull
	}
	x.state.holds.put(id, Hold{From: from.Account, To: c.To, Asset: c.Asset, Amount: amount, Reference: c.Reference, Code: c.Code,
		Expires: c.Expires, NotBefore: c.NotBefore, Arbiter: c.Arbiter, HashLock: c.HashLock, PostBy: c.PostBy, VoidBy: c.VoidBy,
		PostAtExpiry: c.PostAtExpiry, Deposit: Units(x.params.DepositHold),
		Depositor: x.depositor(from.Account, x.params.DepositHold), Slot: slot})
	debit.DebitsPending = debit.DebitsPending.mustAdd(amount)
	credit.CreditsPending = credit.CreditsPending.mustAdd(amount)
	x.enterBoth(from, debit, to, credit, Entry{Kind: EntryHold, Amount: amount, Hold: id, Reference: c.Reference, Code: c.Code})
	return OperationResult{Amount: amount, Hold: id}, OK
}

// PostHold carries a hold out. What is not posted returns to the holder.
type PostHold struct {
	Signer   uint32
	Hold     crypto.Hash
	Amount   Amount // 0: the whole
	Preimage []byte // of the hash lock; at most MaxPreimageBytes
}

func (p *PostHold) Kind() Kind { return KindPostHold }
func (p *PostHold) By() uint32 { return p.Signer }

func decodePostHold(r *canonical.Reader) Operation {
	p := &PostHold{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "hold", p.Hold[:])
	p.Amount = readAmount(r, 3, "amount")
	p.Preimage = r.Bytes(4, "preimage", MaxPreimageBytes)
	return p
}

func (p *PostHold) encode(w *canonical.Writer) {
	w.Uint32(1, p.Signer)
	w.Message(2, p.Hold[:])
	w.Bytes(3, p.Amount.Bytes())
	w.Bytes(4, p.Preimage)
}

func (p *PostHold) validate(*Body) error {
	if len(p.Preimage) > MaxPreimageBytes {
		return canonical.Errorf("preimage", "%d bytes, at most %d", len(p.Preimage), MaxPreimageBytes)
	}
	return nil
}

func (p *PostHold) apply(x *execution) (OperationResult, Code) {
	hold, code := x.openHold(p.Hold)
	if code != OK {
		return OperationResult{}, code
	}
	locked := hold.HashLock != (crypto.Hash{})
	switch signer := x.account(p.Signer); {
	case hold.PostBy&(hold.part(signer)|ByAnybody) == 0:
		return OperationResult{}, HoldNotPermitted
	case x.now() < hold.NotBefore:
		return OperationResult{}, HoldTooEarly
	case locked && sha256.Sum256(p.Preimage) != hold.HashLock, !locked && p.Preimage != nil:
		return OperationResult{}, HoldPreimageWrong
	case p.Amount.Cmp(hold.Amount) > 0:
		return OperationResult{}, HoldAmountExceeded
	}
	amount := p.Amount
	if amount.IsZero() {
		amount = hold.Amount
	}
	if code := x.passable(hold); code != OK {
		return OperationResult{}, code
	}
	x.resolve(p.Hold, hold, EntryPost, amount, x.cause())
	return OperationResult{Amount: amount}, OK
}

// VoidHold returns a hold to the holder.
type VoidHold struct {
	Signer uint32
	Hold   crypto.Hash
}

func (v *VoidHold) Kind() Kind { return KindVoidHold }
func (v *VoidHold) By() uint32 { return v.Signer }

func decodeVoidHold(r *canonical.Reader) Operation {
	v := &VoidHold{Signer: r.Uint32(1, "signer")}
	r.Fixed(2, "hold", v.Hold[:])
	return v
}

func (v *VoidHold) encode(w *canonical.Writer) {
	w.Uint32(1, v.Signer)
	w.Message(2, v.Hold[:])
}

func (v *VoidHold) validate(*Body) error { return nil }

func (v *VoidHold) apply(x *execution) (OperationResult, Code) {
	hold, code := x.openHold(v.Hold)
	if code != OK {
		return OperationResult{}, code
	}
	asset, _ := x.state.asset(hold.Asset)
	signer := x.account(v.Signer)
	// The receiver can always decline: nobody else's money could otherwise keep its line open, or fill its ceiling.
	if (hold.VoidBy|ByReceiver)&hold.part(signer) == 0 && !(signer == asset.Issuer && asset.Controls&ControlClawback != 0) {
		return OperationResult{}, HoldNotPermitted
	}
	x.resolve(v.Hold, hold, EntryVoid, hold.Amount, x.cause())
	return OperationResult{Amount: hold.Amount}, OK
}

// openHold returns a hold that can still be resolved by its parties.
func (x *execution) openHold(id crypto.Hash) (Hold, Code) {
	hold, ok := x.state.holds.get(id)
	switch {
	case !ok:
		return Hold{}, HoldUnknown
	case hold.Bond:
		return Hold{}, HoldNotPermitted
	case x.now() >= hold.Expires:
		return Hold{}, HoldExpired
	}
	return hold, OK
}

// part returns what an account is to a hold.
func (h Hold) part(a crypto.Address) (part Resolvers) {
	if a == h.To {
		part |= ByReceiver
	}
	if a == h.Arbiter {
		part |= ByArbiter
	}
	if a == h.From {
		part |= ByHolder
	}
	return part
}

// passable tells whether a hold may be posted as far as its issuer is concerned.
func (b *Block) passable(h Hold) Code {
	asset, _ := b.state.asset(h.Asset)
	from, to := LineKey{h.From, h.Asset}, LineKey{h.To, h.Asset}
	debit, _ := b.state.lines.get(from)
	if code := passage(asset, from, debit, LineFrozenOut); code != OK {
		return code
	}
	credit, _ := b.state.lines.get(to)
	return passage(asset, to, credit, LineFrozenIn)
}

// resolve ends a hold: by posting amount, or by returning it all, as kind says. That the counters have room for what is
// posted was seen to when the hold was made, for the sum of pending and posted does not grow.
func (b *Block) resolve(id crypto.Hash, h Hold, kind EntryKind, amount Amount, by cause) {
	from, to := LineKey{h.From, h.Asset}, LineKey{h.To, h.Asset}
	debit, _ := b.state.lines.get(from)
	credit, _ := b.state.lines.get(to)
	debit.DebitsPending = debit.DebitsPending.mustSub(h.Amount)
	credit.CreditsPending = credit.CreditsPending.mustSub(h.Amount)
	if kind == EntryPost {
		debit.DebitsPosted = debit.DebitsPosted.mustAdd(amount)
		credit.CreditsPosted = credit.CreditsPosted.mustAdd(amount)
	}
	b.enterPair(from, debit, to, credit, Entry{Kind: kind, Amount: amount, Hold: id, Reference: h.Reference, Code: h.Code}, by)
	b.state.holds.remove(id)
	if !h.Bond {
		b.state.dequeue(h.Expires, h.Slot)
	}
	depositor := h.Depositor
	if depositor == (crypto.Address{}) {
		depositor = h.From
	}
	b.payBack(depositor, h.Deposit, id, by) // where that cannot be, the pool keeps it
}
