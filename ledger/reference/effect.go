package reference

import (
	"crypto/sha256"
	"slices"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// execute gives an admitted transaction its effect.
func (l *Ledger) execute(x *execution) (code uint32, receipt []byte) {
	l.undo.steps = nil
	for _, p := range x.parties {
		if p.account == nil {
			l.policies.put(p.policy.hash, p.policy)
			l.accounts.put(p.address, &account{policy: p.policy.hash, deposit: x.deposit(l.params().DepositAccount, p.address)})
		}
		switch {
		case p.signer == nil:
		case len(p.signer.Nonce) > 0:
			l.enterNonce(x.nonceKey(p))
		default:
			l.accounts.edit(p.address).sequence = p.signer.Sequence
		}
	}
	if x.granted != nil {
		l.use(*x.granted, x.fee.plus(x.opening))
	}
	t := l.totals.edit(struct{}{})
	t.fees = t.fees.plus(x.fee)
	t.load += x.weight(l.cost(x))
	if !x.fee.isZero() {
		l.post(x, lineKey{x.payer, l.feeAsset}, counters{debitsPosted: x.fee},
			&pb.Entry{Kind: entryFee, Counterparty: l.params().FeeCollector, Amount: x.fee.bytes()})
	}
	if !x.opening.isZero() {
		l.postTaken(x, x.opening)
	}

	r := &pb.Receipt{TxId: x.id[:], Fee: x.fee.bytes()}
	mark := l.undo.mark()
	for i, o := range x.body.Operations {
		x.operation = uint32(i)
		result := &pb.OperationResult{}
		if c := l.operate(x, o, result); c != ok {
			l.undo.back(mark)
			r.Code, r.Failed, r.Results, r.Deposit = c, uint32(i)+1, nil, x.opening.bytes()
			return c, marshal(r)
		}
		r.Results = append(r.Results, result)
	}
	r.Deposit = x.deposits.bytes()
	return ok, marshal(r)
}

func (l *Ledger) enterNonce(key nonceKey) {
	b := l.buckets.edit(key.second)
	number := uint32(len(b.entered))
	b.entered = append(b.entered, key)
	b.digest = sum("pacioli.replay.v1\x00", b.digest[:], key.account[:], key.nonce[:])
	l.nonces.put(key, &number)
	l.totals.edit(struct{}{}).openNonces++
}

func (l *Ledger) operate(x *execution, o *pb.Operation, result *pb.OperationResult) code {
	signer := x.parties[actor(o)].address
	if l.isClosed(signer) {
		return accountClosed
	}
	switch k := o.Kind.(type) {
	case *pb.Operation_Transfer:
		return l.transfer(x, signer, k.Transfer, result)
	case *pb.Operation_CreateAsset:
		return l.createAsset(x, signer, k.CreateAsset, result)
	case *pb.Operation_SetPolicy:
		return l.setPolicy(signer, k.SetPolicy)
	case *pb.Operation_CreateHold:
		return l.createHold(x, signer, k.CreateHold, result)
	case *pb.Operation_PostHold:
		return l.postHold(x, signer, k.PostHold, result)
	case *pb.Operation_VoidHold:
		return l.voidHold(x, signer, k.VoidHold, result)
	case *pb.Operation_SetAsset:
		return l.setAsset(signer, k.SetAsset)
	case *pb.Operation_SetLine:
		return l.setLine(x, signer, k.SetLine)
	case *pb.Operation_Clawback:
		return l.clawback(x, signer, k.Clawback, result)
	case *pb.Operation_OpenLine:
		return l.openLine(x, signer, k.OpenLine)
	case *pb.Operation_CloseLine:
		return l.closeLine(x, signer, k.CloseLine)
	case *pb.Operation_SetAccount:
		return l.setAccount(signer, k.SetAccount)
	case *pb.Operation_CloseAccount:
		return l.closeAccount(x, signer, k.CloseAccount)
	case *pb.Operation_SetGrant:
		return l.setGrant(x, signer, k.SetGrant)
	case *pb.Operation_RevokeGrant:
		return l.revokeGrant(x, signer, k.RevokeGrant)
	case *pb.Operation_StartRecovery:
		return l.startRecovery(signer, k.StartRecovery)
	case *pb.Operation_CancelRecovery:
		return l.cancelRecovery(signer, k.CancelRecovery)
	case *pb.Operation_FinishRecovery:
		return l.finishRecovery(signer, k.FinishRecovery)
	case *pb.Operation_Bond:
		return l.bond(x, signer, k.Bond, result)
	case *pb.Operation_ReleaseBond:
		return l.releaseBond(x, signer, result)
	case *pb.Operation_Propose:
		return l.propose(x, signer, k.Propose, result)
	case *pb.Operation_Approve:
		return l.approve(signer, k.Approve, result)
	case *pb.Operation_Reactivate:
		return l.reactivate(signer)
	}
	panic("an operation without a kind")
}

func (l *Ledger) transfer(x *execution, signer address, t *pb.Transfer, result *pb.OperationResult) code {
	id, to, from := assetID(t.Asset), address(t.To), signer
	if l.assets.get(id) == nil {
		return assetUnknown
	}
	var granted *grantKey
	if len(t.Granter) > 0 {
		from = address(t.Granter)
		granted = &grantKey{from, signer, grantTransfers, id}
		if c := l.usable(*granted, amount{}, t.To); c != ok {
			return c
		}
	}
	debited, credited := lineKey{from, id}, lineKey{to, id}
	if c := l.open(x, credited, from); c != ok {
		return c
	}
	m := amountOf(t.Amount)
	if t.Balancing&balanceDebit != 0 {
		m = m.atMost(l.available(debited))
	}
	if t.Balancing&balanceCredit != 0 {
		m = m.atMost(l.owed(credited))
	}
	if c := l.move(granted, debited, credited, m); c != ok {
		return c
	}
	l.post(x, debited, counters{debitsPosted: m},
		&pb.Entry{Kind: entryTransfer, Counterparty: to[:], Amount: m.bytes(), Reference: t.Reference, Code: t.Code})
	l.post(x, credited, counters{creditsPosted: m},
		&pb.Entry{Kind: entryTransfer, Credit: true, Counterparty: from[:], Amount: m.bytes(), Reference: t.Reference, Code: t.Code})
	result.Amount = m.bytes()
	return ok
}

// move checks what a transfer and a hold have in common, and uses the grant.
func (l *Ledger) move(granted *grantKey, debited, credited lineKey, m amount) code {
	if m.isZero() {
		return nothingToTransfer
	}
	if granted != nil {
		if c := l.usable(*granted, m, credited.account[:]); c != ok {
			return c
		}
		l.use(*granted, m)
	}
	if c := l.debitable(debited, m); c != ok {
		return c
	}
	return l.creditable(credited, m)
}

func (l *Ledger) createAsset(x *execution, signer address, o *pb.CreateAsset, result *pb.OperationResult) code {
	if creators := l.params().AssetCreators; len(creators) > 0 &&
		!slices.ContainsFunc(creators, func(b []byte) bool { return string(b) == string(signer[:]) }) {
		return assetCreationClosed
	}
	id := newAssetID(signer[:], o.Code)
	if l.codes.get(o.Code) != nil || l.assets.get(id) != nil {
		return assetExists
	}
	l.assets.put(id, &asset{issuer: signer, code: o.Code, scale: o.Scale, maxSupply: amountOf(o.MaxSupply), metadataHash: o.MetadataHash, controls: o.Controls})
	l.codes.put(o.Code, &id)
	l.holdings.edit(signer).assets++
	if c := l.open(x, lineKey{signer, id}, signer); c != ok {
		return c
	}
	result.Asset = id[:]
	return ok
}

func (l *Ledger) setPolicy(signer address, o *pb.SetPolicy) code {
	p := l.policy(o.Policy)
	if l.accounts.get(signer).policy == p.hash {
		return policyUnchanged
	}
	l.replacePolicy(signer, p, o.RevokeGrants)
	return ok
}

func (l *Ledger) replacePolicy(of address, p *policy, revokeGrants bool) {
	l.policies.put(p.hash, p)
	a := l.accounts.edit(of)
	a.policy, a.recovery = p.hash, nil
	a.policyVersion++
	if revokeGrants {
		a.epoch++
	}
}

func (l *Ledger) createHold(x *execution, signer address, o *pb.CreateHold, result *pb.OperationResult) code {
	id, to, from := assetID(o.Asset), address(o.To), signer
	if l.assets.get(id) == nil {
		return assetUnknown
	}
	if o.Expires <= l.now() || o.Expires > l.now()+uint64(l.params().MaxHoldSeconds) {
		return holdExpiryOutOfRange
	}
	var granted *grantKey
	if len(o.Granter) > 0 {
		from = address(o.Granter)
		granted = &grantKey{from, signer, grantHolds, id}
		if c := l.usable(*granted, amount{}, o.To); c != ok {
			return c
		}
	}
	debited, credited := lineKey{from, id}, lineKey{to, id}
	if c := l.open(x, credited, from); c != ok {
		return c
	}
	d, c := l.take(x, l.params().DepositHold, from)
	if c != ok {
		return c
	}
	m := amountOf(o.Amount)
	if o.Balancing&balanceDebit != 0 {
		m = m.atMost(l.available(debited))
	}
	if c := l.move(granted, debited, credited, m); c != ok {
		return c
	}
	var queue []hash
	if q := l.due.get(o.Expires); q != nil {
		queue = *q
	}
	if len(queue) >= maxPerSecond {
		return holdBucketFull
	}
	h := &hold{from: from, to: to, asset: id, amount: m, reference: o.Reference, code: o.Code, expires: o.Expires, notBefore: o.NotBefore,
		arbiter: o.Arbiter, hashLock: o.HashLock, postBy: o.PostBy, voidBy: o.VoidBy, postAtExpiry: o.PostAtExpiry,
		deposit: d, slot: uint32(len(queue))}
	key := sum("pacioli.hold.v1\x00", x.id[:], u32(x.operation))
	l.post(x, debited, counters{debitsPending: m}, h.entry(entryHoldMade, key, false, m))
	l.post(x, credited, counters{creditsPending: m}, h.entry(entryHoldMade, key, true, m))
	l.holds.put(key, h)
	queue = append(queue, key)
	l.due.put(o.Expires, &queue)
	t := l.totals.edit(struct{}{})
	if t.openHolds == 0 {
		t.dueThrough = l.now()
	}
	t.openHolds++
	t.everHeld = true
	result.Amount, result.Hold = m.bytes(), key[:]
	return ok
}

// entry begins an entry about a hold.
func (h *hold) entry(kind uint32, id hash, credit bool, m amount) *pb.Entry {
	counterparty := pick(credit, h.from, h.to)
	return &pb.Entry{Kind: kind, Credit: credit, Counterparty: counterparty[:], Amount: m.bytes(), Hold: id[:], Reference: h.reference, Code: h.code}
}

// part tells whether an account has one of the parts that the bits name.
func (h *hold) part(a address, bits uint32) bool {
	return bits&byReceiver != 0 && a == h.to || bits&byArbiter != 0 && string(a[:]) == string(h.arbiter) ||
		bits&byHolder != 0 && a == h.from || bits&byAnybody != 0
}

func (l *Ledger) postHold(x *execution, signer address, o *pb.PostHold, result *pb.OperationResult) code {
	id := hash(o.Hold)
	h := l.holds.get(id)
	if h == nil {
		return holdUnknown
	}
	if h.bond {
		return holdNotPermitted
	}
	if l.now() >= h.expires {
		return holdExpired
	}
	if !h.part(signer, h.postBy) {
		return holdNotPermitted
	}
	if l.now() < h.notBefore {
		return holdTooEarly
	}
	if len(h.hashLock) > 0 {
		if revealed := sha256.Sum256(o.Preimage); string(revealed[:]) != string(h.hashLock) {
			return holdPreimageWrong
		}
	} else if len(o.Preimage) > 0 {
		return holdPreimageWrong
	}
	m := amountOf(o.Amount)
	if m.above(h.amount) {
		return holdAmountExceeded
	}
	if m.isZero() {
		m = h.amount
	}
	if c := l.passage(lineKey{h.from, h.asset}, true); c != ok {
		return c
	}
	if c := l.passage(lineKey{h.to, h.asset}, false); c != ok {
		return c
	}
	l.resolve(x, id, entryHoldPosted, m)
	result.Amount = m.bytes()
	return ok
}

func (l *Ledger) voidHold(x *execution, signer address, o *pb.VoidHold, result *pb.OperationResult) code {
	id := hash(o.Hold)
	h := l.holds.get(id)
	if h == nil {
		return holdUnknown
	}
	if h.bond {
		return holdNotPermitted
	}
	if l.now() >= h.expires {
		return holdExpired
	}
	a := l.assets.get(h.asset)
	if !h.part(signer, h.voidBy|1) && !(a.issuer == signer && a.controls&controlClawback != 0) {
		return holdNotPermitted
	}
	l.resolve(x, id, entryHoldVoided, amount{})
	result.Amount = h.amount.bytes()
	return ok
}

// resolve ends a hold, of which some is posted.
func (l *Ledger) resolve(x *execution, id hash, kind uint32, posted amount) {
	h := l.holds.get(id)
	shown := pick(kind == entryHoldPosted, posted, h.amount)
	back := amount{}.minus(h.amount)
	l.post(x, lineKey{h.from, h.asset}, counters{debitsPending: back, debitsPosted: posted}, h.entry(kind, id, false, shown))
	l.post(x, lineKey{h.to, h.asset}, counters{creditsPending: back, creditsPosted: posted}, h.entry(kind, id, true, shown))

	l.holds.drop(id)
	queue := *l.due.get(h.expires)
	last := len(queue) - 1
	if moved := queue[last]; moved != id {
		queue = slices.Clone(queue)
		queue[h.slot] = moved
		l.holds.edit(moved).slot = h.slot
	}
	if queue = queue[:last:last]; last == 0 {
		l.due.drop(h.expires)
	} else {
		l.due.put(h.expires, &queue)
	}
	l.totals.edit(struct{}{}).openHolds--
	l.payBack(x, h.from, h.deposit, id[:]) // if possible
}

// expire ends a hold at the end of a block.
func (l *Ledger) expire(id hash) {
	h := l.holds.get(id)
	if h.postAtExpiry && l.passage(lineKey{h.from, h.asset}, true) == ok && l.passage(lineKey{h.to, h.asset}, false) == ok {
		l.resolve(nil, id, entryHoldPosted, h.amount)
	} else {
		l.resolve(nil, id, entryHoldExpired, amount{})
	}
}

// issued tells why an account may not act for the issuer of an asset.
func (l *Ledger) issued(id assetID, signer address) code {
	switch a := l.assets.get(id); {
	case a == nil:
		return assetUnknown
	case a.issuer != signer:
		return notIssuer
	}
	return ok
}

// withinSupply tells whether the issuer's line keeps its rule with another maximum supply and other credits.
func (l *Ledger) withinSupply(id assetID, issuer address, credit, maxSupply amount) bool {
	n := l.line(lineKey{issuer, id})
	return !n.debitsPosted.plus(n.debitsPending).minus(n.creditsPosted).plus(credit).above(maxSupply)
}

func (l *Ledger) setAsset(signer address, o *pb.SetAsset) code {
	id := assetID(o.Asset)
	if c := l.issued(id, signer); c != ok {
		return c
	}
	before := *l.assets.get(id)
	if o.DropControls&^before.controls != 0 || o.Freeze|o.Unfreeze != 0 && before.controls&controlFreeze == 0 {
		return controlMissing
	}
	after := before
	after.controls &^= o.DropControls
	after.frozen = after.frozen&^o.Unfreeze | o.Freeze
	if len(o.MaxSupply) > 0 {
		after.maxSupply = amountOf(o.MaxSupply)
		if after.maxSupply.above(before.maxSupply) {
			return maxSupplyRaised
		}
		if !l.withinSupply(id, signer, before.credit, after.maxSupply) {
			return supplyExceeded
		}
	}
	if after.controls == before.controls && after.frozen == before.frozen && after.maxSupply.equals(before.maxSupply) {
		return unchanged
	}
	l.assets.put(id, &after)
	return ok
}

func (l *Ledger) setLine(x *execution, signer address, o *pb.SetLine) code {
	id := assetID(o.Asset)
	if c := l.issued(id, signer); c != ok {
		return c
	}
	a := *l.assets.get(id)
	flags := o.Set | o.Clear
	if (flags&lineAuthorised != 0 || o.Cap != nil) && a.controls&controlAuthorisation == 0 ||
		flags&(lineFrozenIn|lineFrozenOut) != 0 && a.controls&controlFreeze == 0 {
		return controlMissing
	}
	key := lineKey{address(o.Account), id}
	there := l.lines.get(key) != nil
	if c := l.open(x, key, signer); c != ok {
		return c
	}
	before := *l.lines.get(key)
	after := before
	after.flags = after.flags&^o.Clear | o.Set
	if o.Cap != nil {
		after.cap = amountOf(o.Cap.Amount)
	}
	if o.Credit != nil {
		after.credit = amountOf(o.Credit.Amount)
		a.credit = a.credit.minus(before.credit).plus(after.credit)
		if !a.credit.below(limit) || !l.withinSupply(id, signer, a.credit, a.maxSupply) {
			return supplyExceeded
		}
		if before.debitsPosted.plus(before.debitsPending).above(before.creditsPosted.plus(after.credit)) {
			return creditInUse
		}
	}
	if there && after.flags == before.flags && after.cap.equals(before.cap) && after.credit.equals(before.credit) {
		return unchanged
	}
	l.lines.put(key, &after)
	l.assets.put(id, &a)
	return ok
}

func (l *Ledger) clawback(x *execution, signer address, o *pb.Clawback, result *pb.OperationResult) code {
	id := assetID(o.Asset)
	if c := l.issued(id, signer); c != ok {
		return c
	}
	if l.assets.get(id).controls&controlClawback == 0 {
		return controlMissing
	}
	holder, issuer := lineKey{address(o.Account), id}, lineKey{signer, id}
	n := l.line(holder)
	left := n.creditsPosted.minus(n.debitsPosted).minus(n.debitsPending)
	m := amountOf(o.Amount)
	if o.Balancing&balanceDebit != 0 {
		m = m.atMost(left.atLeast(amount{}))
	}
	if m.isZero() {
		return nothingToTransfer
	}
	if m.above(left) {
		return insufficientFunds
	}
	if !n.debitsPosted.plus(n.debitsPending).plus(m).below(limit) {
		return counterOverflow
	}
	if i := l.line(issuer); !i.creditsPosted.plus(i.creditsPending).plus(m).below(limit) {
		return counterOverflow
	}
	l.post(x, holder, counters{debitsPosted: m},
		&pb.Entry{Kind: entryClawback, Counterparty: signer[:], Amount: m.bytes(), Reference: o.Reference, Code: o.Code})
	l.post(x, issuer, counters{creditsPosted: m},
		&pb.Entry{Kind: entryClawback, Credit: true, Counterparty: holder.account[:], Amount: m.bytes(), Reference: o.Reference, Code: o.Code})
	result.Amount = m.bytes()
	return ok
}

func (l *Ledger) openLine(x *execution, signer address, o *pb.OpenLine) code {
	id := assetID(o.Asset)
	a := l.assets.get(id)
	if a == nil {
		return assetUnknown
	}
	if a.issuer == signer {
		return issuerLine
	}
	key := lineKey{signer, id}
	there := l.lines.get(key) != nil
	if c := l.open(x, key, signer); c != ok {
		return c
	}
	n := l.lines.edit(key)
	changed := !there
	if o.Ceiling != nil {
		ceiling := amountOf(o.Ceiling.Amount)
		changed = changed || !ceiling.equals(n.ceiling)
		n.ceiling = ceiling
	}
	return pick(changed, ok, unchanged)
}

func (l *Ledger) closeLine(x *execution, signer address, o *pb.CloseLine) code {
	id := assetID(o.Asset)
	key := lineKey{signer, id}
	n := l.lines.get(key)
	if n == nil {
		return lineUnknown
	}
	if l.isIssuers(key) {
		return issuerLine
	}
	a := *l.assets.get(id)
	if a.controls&controlFreeze != 0 && (a.frozen != 0 || n.flags&(lineFrozenIn|lineFrozenOut) != 0) {
		return lineFrozen
	}
	if !n.creditsPosted.equals(n.debitsPosted) || !n.creditsPending.isZero() || !n.debitsPending.isZero() || key == (lineKey{l.collector(), l.feeAsset}) {
		return lineNotEmpty
	}
	l.lines.drop(key)
	l.release(signer, func(h *holdings) { h.lines-- })
	a.credit = a.credit.minus(n.credit)
	l.assets.put(id, &a)
	owner := l.accounts.edit(signer)
	owner.closedLines++
	owner.closedHead = sum("pacioli.closed.v1\x00", owner.closedHead[:], id[:], u64(n.incarnation), u64(n.entries), n.head[:])
	return l.payBack(x, address(o.To), n.deposit, nil)
}

// release counts a row of an account less.
func (l *Ledger) release(of address, less func(*holdings)) {
	h := l.holdings.edit(of)
	if less(h); *h == (holdings{}) {
		l.holdings.drop(of)
	}
}

func (l *Ledger) setAccount(signer address, o *pb.SetAccount) code {
	a := l.accounts.edit(signer)
	if a.optIn == (o.Set == 1) {
		return unchanged
	}
	a.optIn = o.Set == 1
	return ok
}

func (l *Ledger) closeAccount(x *execution, signer address, o *pb.CloseAccount) code {
	operating := l.set().find(func(v *validator) bool { return v.present() && v.operatedBy(signer) }) >= 0
	if l.holdings.get(signer) != nil || l.collects(signer) || operating || l.holds.get(bondID(signer)) != nil {
		return accountInUse
	}
	a := l.accounts.edit(signer)
	d := a.deposit
	a.closed, a.recovery, a.deposit = true, nil, deposit{}
	return l.payBack(x, address(o.To), d, nil)
}

func grantOf(granter address, grantee []byte, kind uint32, asset []byte) grantKey {
	key := grantKey{granter: granter, grantee: address(grantee), kind: kind}
	copy(key.asset[:], asset)
	return key
}

func (l *Ledger) setGrant(x *execution, signer address, o *pb.SetGrant) code {
	key := grantOf(signer, o.Grantee, o.Kind, o.Asset)
	if o.Kind != grantFees && l.assets.get(key.asset) == nil {
		return assetUnknown
	}
	if l.now() >= o.Until {
		return grantExpired
	}
	var d deposit
	if before := l.grants.get(key); before != nil {
		d = before.deposit
	} else {
		var c code
		if d, c = l.take(x, l.params().DepositGrant, signer); c != ok {
			return c
		}
		l.holdings.edit(signer).grants++
	}
	l.grants.put(key, &grant{perPeriod: amountOf(o.PerPeriod), period: o.Period, total: amountOf(o.Total), until: o.Until, to: o.To,
		begun: l.now(), deposit: d, epoch: l.accounts.get(signer).epoch})
	return ok
}

func (l *Ledger) revokeGrant(x *execution, signer address, o *pb.RevokeGrant) code {
	key := grantOf(signer, o.Grantee, o.Kind, o.Asset)
	g := l.grants.get(key)
	if g == nil {
		return grantUnknown
	}
	l.grants.drop(key)
	l.release(signer, func(h *holdings) { h.grants-- })
	l.payBack(x, signer, g.deposit, nil) // if possible
	return ok
}

// recoverable returns an account that names the signer as its recovery account, or nil.
func (l *Ledger) recoverable(of []byte, signer address) *account {
	a := l.accounts.get(address(of))
	if a == nil || l.isClosed(address(of)) || string(l.policies.get(a.policy).RecoveryAccount) != string(signer[:]) {
		return nil
	}
	return a
}

func (l *Ledger) startRecovery(signer address, o *pb.StartRecovery) code {
	a := l.recoverable(o.Account, signer)
	switch {
	case a == nil:
		return recoveryUnavailable
	case a.recovery != nil:
		return recoveryPending
	case a.policy == hash(o.PolicyHash):
		return policyUnchanged
	}
	l.accounts.edit(address(o.Account)).recovery =
		&recovery{hash(o.PolicyHash), l.now() + uint64(l.policies.get(a.policy).RecoveryDelay)}
	return ok
}

func (l *Ledger) cancelRecovery(signer address, o *pb.CancelRecovery) code {
	of := address(o.Account)
	if signer != of && l.recoverable(o.Account, signer) == nil {
		return recoveryUnavailable
	}
	if l.accounts.get(of).recovery == nil {
		return recoveryNone
	}
	l.accounts.edit(of).recovery = nil
	return ok
}

func (l *Ledger) finishRecovery(signer address, o *pb.FinishRecovery) code {
	a, p := l.recoverable(o.Account, signer), l.policy(o.Policy)
	switch {
	case a == nil:
		return recoveryUnavailable
	case a.recovery == nil:
		return recoveryNone
	case a.recovery.policy != p.hash:
		return recoveryOtherPolicy
	case l.now() < a.recovery.readyAt:
		return recoveryTooEarly
	}
	l.replacePolicy(address(o.Account), p, true)
	return ok
}
