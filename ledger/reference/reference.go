// Package reference is the ledger a second time, written from docs/PROTOCOL.md alone: plain maps, integers without bounds,
// the generated code of the published messages, and nothing of package ledger. The tests of package ledger drive both with
// the same random histories and compare every code, receipt, row and entry. Where the two differ, one of them or the page
// is wrong.
//
// It is clear before it is fast. The arithmetic of keys is the caller's, and invariants are not checked, since it is there
// to find out whether ledger keeps them.
package reference

import (
	"crypto/sha256"
	"fmt"
	"slices"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

type (
	address = [32]byte
	hash    = [32]byte
	assetID = [16]byte
)

// Entry is one entry of the journal of a line.
type Entry struct {
	Account [32]byte
	Asset   [16]byte
	Encoded []byte
}

// Keys is the arithmetic of the signature schemes.
type Keys struct {
	Verify      func(scheme uint32, publicKey, message, signature []byte) bool
	Registrable func(scheme uint32, publicKey []byte) bool
}

// Ledger is the state and the block that is being applied to it. It is not safe for concurrent use.
type Ledger struct {
	keys      Keys
	networkID hash
	chainID   string
	initial   uint64
	feeAsset  assetID

	undo       undo
	accounts   table[address, account]
	lines      table[lineKey, line]
	assets     table[assetID, asset]
	codes      table[string, assetID]
	holdings   table[address, holdings]
	holds      table[hash, hold]
	grants     table[grantKey, grant]
	policies   table[hash, policy]
	due        table[uint64, []hash] // by second, the holds in the order of their slots
	buckets    table[uint64, bucket]
	nonces     table[nonceKey, uint32]
	totals     table[struct{}, totals]
	parameters table[struct{}, *pb.Parameters]
	sets       table[struct{}, set]
	missed     table[name20, missed]
	proposals  table[hash, proposal]
	order      table[struct{}, []hash] // of the proposals; no row for none

	height  uint64
	millis  uint64
	inForce *pb.Parameters
	began   set                // as the block found it
	powers  map[name20]uint64  // of it
	decoded map[string]*policy // by encoding, nil for what is none
}

type account struct {
	policy        hash
	policyVersion uint32
	sequence      uint64
	optIn, closed bool
	deposit       deposit
	epoch         uint32
	closedLines   uint64
	closedHead    hash
	recovery      *recovery // read-only
}

type recovery struct {
	policy  hash
	readyAt uint64
}

// deposit is what a row has cost.
type deposit struct {
	amount    amount
	depositor []byte // who gets it back; nil: the row's owner, or whom the owner names
}

type lineKey struct {
	account address
	asset   assetID
}

type line struct {
	debitsPending, debitsPosted, creditsPending, creditsPosted amount
	entries                                                    uint64
	head                                                       hash
	flags                                                      uint32
	ceiling, credit, cap                                       amount
	deposit                                                    deposit
	incarnation                                                uint64
}

type asset struct {
	issuer       address
	code         string
	scale        uint32
	maxSupply    amount
	metadataHash []byte
	controls     uint32
	frozen       uint32
	credit       amount
}

type holdings struct{ lines, grants, assets uint64 }

type hold struct {
	from, to           address
	asset              assetID
	amount             amount
	reference          []byte
	code               uint32
	expires, notBefore uint64
	arbiter, hashLock  []byte
	postBy, voidBy     uint32
	postAtExpiry       bool
	deposit            deposit
	slot               uint32
	bond               bool
}

type grantKey struct {
	granter, grantee address
	kind             uint32
	asset            assetID
}

type grant struct {
	perPeriod     amount
	period        uint32
	total         amount
	until         uint64
	to            []byte
	begun         uint64
	periodNumber  uint64
	spentInPeriod amount
	spent         amount
	deposit       deposit
	epoch         uint32
}

type bucket struct {
	digest  hash
	entered []nonceKey // in the order of their numbers; a longer one is a new slice
}

type nonceKey struct {
	second  uint64
	account address
	nonce   [16]byte
}

// totals is what there is one of.
type totals struct {
	multiplier    uint32
	prunedThrough uint64
	openNonces    uint64
	dueThrough    uint64
	openHolds     uint64
	everHeld      bool // there is a row of the queue's totals

	// Of the block.
	fees, taken, paidBack amount
	load                  uint64
	entries               []Entry // appended to only, so that an undone one is overwritten
}

// Bits of controls, of lines' flags, of what is frozen of an asset, of who may resolve a hold, and of balancing.
const (
	controlAuthorisation, controlFreeze, controlClawback = 1, 2, 4
	lineAuthorised, lineFrozenIn, lineFrozenOut          = 1, 2, 4
	assetFrozenIn, assetFrozenOut                        = 1, 2
	byReceiver, byArbiter, byHolder, byAnybody           = 1, 2, 4, 8
	balanceDebit, balanceCredit                          = 1, 2
	grantFees, grantTransfers, grantHolds                = 0, 1, 4
)

// Kinds of entries.
const (
	entryTransfer, entryFee, entryBlockFees, entryGenesis                    = 1, 2, 3, 4
	entryHoldMade, entryHoldPosted, entryHoldVoided, entryHoldExpired        = 5, 6, 7, 8
	entryDepositTaken, entryDepositBack, entryBlockTaken, entryBlockPaidBack = 9, 10, 11, 12
	entryClawback                                                            = 13
)

const maxPerSecond = 65_536 // nonces of one valid_until, and open holds of one expiry

// sum is SHA-256 over a domain and what follows it.
func sum(domain string, parts ...[]byte) (h hash) {
	s := sha256.New()
	s.Write([]byte(domain))
	for _, p := range parts {
		s.Write(p)
	}
	s.Sum(h[:0])
	return h
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// pool is the account without keys that holds the deposits.
var pool = sum("pacioli.addr.v1\x00", []byte("deposits"))

// New returns the first state of a network. The genesis is an encoded Genesis, which must be a valid one.
func New(chainID string, genesis []byte, keys Keys) (*Ledger, error) {
	var g pb.Genesis
	var validators pb.ValidatorSet
	if !canonical(genesis, &g) || len(g.Validators) == 0 || !canonical(g.Validators[1:], &validators) {
		return nil, fmt.Errorf("genesis is not canonical")
	}
	inner := sha256.Sum256(genesis)
	l := &Ledger{keys: keys, networkID: sum("pacioli.net.v1\x00", []byte(chainID), inner[:]), chainID: chainID, initial: g.InitialHeight,
		feeAsset: assetID(g.Parameters.FeeAsset), decoded: map[string]*policy{}}
	u := &l.undo
	l.accounts, l.lines, l.assets = newTable[address, account](u), newTable[lineKey, line](u), newTable[assetID, asset](u)
	l.codes, l.holdings, l.holds = newTable[string, assetID](u), newTable[address, holdings](u), newTable[hash, hold](u)
	l.grants, l.policies, l.due = newTable[grantKey, grant](u), newTable[hash, policy](u), newTable[uint64, []hash](u)
	l.buckets, l.nonces, l.totals = newTable[uint64, bucket](u), newTable[nonceKey, uint32](u), newTable[struct{}, totals](u)
	l.parameters, l.sets, l.missed = newTable[struct{}, *pb.Parameters](u), newTable[struct{}, set](u), newTable[name20, missed](u)
	l.proposals, l.order = newTable[hash, proposal](u), newTable[struct{}, []hash](u)
	l.inForce = g.Parameters
	l.parameters.put(struct{}{}, &g.Parameters)
	l.putSet(setOf(&validators))
	t := l.totals.edit(struct{}{})
	t.multiplier, t.prunedThrough = 1_000, g.UnixNanos/1_000_000_000

	for _, encoded := range g.Assets {
		var a pb.Asset
		if len(encoded) == 0 || !canonical(encoded[1:], &a) {
			return nil, fmt.Errorf("an asset of the genesis is not canonical")
		}
		id := newAssetID(a.Issuer, a.Code)
		l.assets.put(id, &asset{address(a.Issuer), a.Code, a.Scale, amountOf(a.MaxSupply), a.MetadataHash, a.Controls, a.Frozen, amountOf(a.Credit)})
		l.codes.put(a.Code, &id)
		l.holdings.edit(address(a.Issuer)).assets++
		l.openFree(lineKey{address(a.Issuer), id})
	}
	for _, b := range g.Balances {
		id, n := assetID(b.Asset), amountOf(b.Amount)
		from, to := lineKey{l.assets.get(id).issuer, id}, lineKey{address(b.Account), id}
		l.openFree(to)
		l.post(nil, from, counters{debitsPosted: n}, &pb.Entry{Kind: entryGenesis, Counterparty: to.account[:], Amount: n.bytes()})
		l.post(nil, to, counters{creditsPosted: n}, &pb.Entry{Kind: entryGenesis, Credit: true, Counterparty: from.account[:], Amount: n.bytes()})
	}
	if bond := l.params().Bond; bond > 0 {
		for _, v := range l.set() {
			if v.operator != nil {
				l.openFree(lineKey{l.collector(), l.feeAsset})
				l.reserveBond(nil, *v.operator, units(bond))
			}
		}
	}
	u.steps = nil
	return l, nil
}

func newAssetID(issuer []byte, code string) assetID {
	h := sum("pacioli.asset.v1\x00", issuer, []byte(code))
	return assetID(h[:16])
}

// openFree opens a line without a deposit: at genesis, and those of collector and pool.
func (l *Ledger) openFree(key lineKey) {
	if l.lines.get(key) == nil {
		var owner account
		if row := l.accounts.get(key.account); row != nil {
			owner = *row
		}
		l.lines.put(key, &line{incarnation: owner.closedLines})
		l.holdings.edit(key.account).lines++
	}
}

// NetworkID identifies the network to who signs.
func (l *Ledger) NetworkID() [32]byte { return l.networkID }

// Entries returns what was entered since the block began, in this order; after New, what genesis entered.
func (l *Ledger) Entries() []Entry { return l.total().entries }

func (l *Ledger) total() *totals { return l.totals.get(struct{}{}) }

func (l *Ledger) now() uint64 { return l.millis / 1000 }

// BeginBlock begins a block at a time in Unix milliseconds.
func (l *Ledger) BeginBlock(height, unixMillis uint64) {
	l.height, l.millis = height, unixMillis
	t := l.totals.edit(struct{}{})
	t.fees, t.taken, t.paidBack, t.load, t.entries = amount{}, amount{}, amount{}, 0, nil
	l.inForce = l.next()
	l.began, l.powers = l.set(), map[name20]uint64{}
	for _, v := range l.began {
		l.powers[v.address()] = v.power
	}
	l.undo.steps = nil
}

// EndBlock ends a block and returns the validators whose power it changed, in the order of the set. The evidence names
// those who misbehaved, the votes say who signed the block before.
func (l *Ledger) EndBlock(evidence [][20]byte, votes []Vote) []*pb.Validator {
	l.forgetNonces()
	l.expireHolds()
	l.punish(evidence)
	l.countMissed(votes)

	collector := lineKey{l.collector(), l.feeAsset}
	if fees := l.total().fees; !fees.isZero() {
		l.openFree(collector)
		l.post(nil, collector, counters{creditsPosted: fees}, &pb.Entry{Kind: entryBlockFees, Credit: true, Amount: fees.bytes()})
	}
	deposits := lineKey{pool, l.feeAsset}
	if taken := l.total().taken; !taken.isZero() {
		l.openFree(deposits)
		l.post(nil, deposits, counters{creditsPosted: taken}, &pb.Entry{Kind: entryBlockTaken, Credit: true, Amount: taken.bytes()})
	}
	if paid := l.total().paidBack; !paid.isZero() {
		l.openFree(deposits)
		l.post(nil, deposits, counters{debitsPosted: paid}, &pb.Entry{Kind: entryBlockPaidBack, Amount: paid.bytes()})
	}
	l.adaptMultiplier()
	l.undo.steps = nil
	return l.updates()
}

func (l *Ledger) forgetNonces() {
	t := l.totals.edit(struct{}{})
	if t.prunedThrough >= l.now() {
		return
	}
	if t.openNonces == 0 {
		t.prunedThrough = l.now()
		return
	}
	last := min(l.now(), t.prunedThrough+86_400)
	for removed := 0; t.prunedThrough < last && removed < 65_536; {
		t.prunedThrough++
		b := l.buckets.get(t.prunedThrough)
		if b == nil {
			continue
		}
		t.openNonces -= uint64(len(b.entered))
		removed += len(b.entered)
		for _, n := range b.entered {
			l.nonces.drop(n)
		}
		l.buckets.drop(t.prunedThrough)
	}
}

func (l *Ledger) expireHolds() {
	if l.total().openHolds == 0 {
		return
	}
	last := min(l.now(), l.total().dueThrough+10_000)
	left := l.params().MaxExpiries
	for second := l.total().dueThrough + 1; second <= last; second++ {
		for l.due.get(second) != nil && left > 0 {
			ids := *l.due.get(second)
			l.expire(ids[len(ids)-1])
			left--
		}
		if l.due.get(second) != nil {
			return
		}
		l.totals.edit(struct{}{}).dueThrough = second
	}
}

func (l *Ledger) adaptMultiplier() {
	target := l.params().FeeTargetWeight
	if target == 0 {
		return
	}
	t := l.totals.edit(struct{}{})
	// All below 2^63: multipliers are at most 10^6, targets at most 2^40.
	m, load := uint64(t.multiplier), min(t.load, 2*target)
	switch {
	case load > target:
		m += max(1, m*(load-target)/(8*target))
	case load < target:
		m -= m * (target - load) / (8 * target)
	}
	t.multiplier = uint32(min(max(m, 1_000), uint64(l.params().MaxFeeMultiplier)))
}

// counters are additions to those of a line.
type counters struct{ debitsPending, debitsPosted, creditsPending, creditsPosted amount }

// post changes the counters of a line and enters it in the line's journal. The entry has what the caller knows of it. A nil
// execution is a block's, or genesis's.
func (l *Ledger) post(x *execution, key lineKey, c counters, e *pb.Entry) {
	n := l.lines.edit(key)
	n.debitsPending = n.debitsPending.plus(c.debitsPending)
	n.debitsPosted = n.debitsPosted.plus(c.debitsPosted)
	n.creditsPending = n.creditsPending.plus(c.creditsPending)
	n.creditsPosted = n.creditsPosted.plus(c.creditsPosted)
	n.entries++
	e.Number, e.Height = n.entries, l.height
	if len(e.Counterparty) > 0 {
		e.Counterparty = optional(address(e.Counterparty)) // money can be sent to the address of zeros
	}
	if x != nil {
		e.TxId, e.Operation = x.id[:], x.operation
	}
	e.DebitsPending, e.DebitsPosted = n.debitsPending.bytes(), n.debitsPosted.bytes()
	e.CreditsPending, e.CreditsPosted = n.creditsPending.bytes(), n.creditsPosted.bytes()
	encoded := marshal(e)
	n.head = sum("pacioli.entry.v1\x00", n.head[:], encoded)
	t := l.totals.edit(struct{}{})
	t.entries = append(t.entries, Entry{key.account, key.asset, encoded})
}
