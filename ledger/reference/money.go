package reference

import pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"

// line returns a line, zeros where there is no row.
func (l *Ledger) line(key lineKey) line {
	if n := l.lines.get(key); n != nil {
		return *n
	}
	return line{}
}

func (l *Ledger) isIssuers(key lineKey) bool { return l.assets.get(key.asset).issuer == key.account }

// passage is that out of a line, or into it.
func (l *Ledger) passage(key lineKey, out bool) code {
	if l.isIssuers(key) {
		return ok
	}
	a, n := l.assets.get(key.asset), l.line(key)
	if a.controls&controlAuthorisation != 0 && n.flags&lineAuthorised == 0 {
		return lineNotAuthorised
	}
	ofLine, ofAsset := uint32(lineFrozenIn), uint32(assetFrozenIn)
	if out {
		ofLine, ofAsset = lineFrozenOut, assetFrozenOut
	}
	if a.controls&controlFreeze != 0 && (n.flags&ofLine != 0 || a.frozen&ofAsset != 0) {
		return lineFrozen
	}
	return ok
}

func (l *Ledger) available(key lineKey) amount {
	a, n := l.assets.get(key.asset), l.line(key)
	owes := n.debitsPosted.plus(n.debitsPending)
	if l.isIssuers(key) {
		return a.maxSupply.plus(n.creditsPosted).minus(owes).minus(a.credit).atLeast(amount{})
	}
	return n.creditsPosted.plus(n.credit).minus(owes).atLeast(amount{})
}

// debitable tells why a line cannot be debited.
func (l *Ledger) debitable(key lineKey, m amount) code {
	if c := l.passage(key, true); c != ok {
		return c
	}
	if m.above(l.available(key)) {
		return pick(l.isIssuers(key), supplyExceeded, insufficientFunds)
	}
	n := l.line(key)
	if !n.debitsPosted.plus(n.debitsPending).plus(m).below(limit) {
		return counterOverflow
	}
	return ok
}

// creditable tells why a line cannot be credited.
func (l *Ledger) creditable(key lineKey, m amount) code {
	if c := l.passage(key, false); c != ok {
		return c
	}
	a, n := l.assets.get(key.asset), l.line(key)
	after := n.creditsPosted.plus(n.creditsPending).plus(m)
	if !l.isIssuers(key) {
		if !n.ceiling.isZero() && after.above(n.debitsPosted.plus(n.ceiling)) {
			return ceilingExceeded
		}
		if a.controls&controlAuthorisation != 0 && !n.cap.isZero() && after.above(n.debitsPosted.plus(n.cap)) {
			return ceilingExceeded
		}
	}
	return l.roomFor(key, m)
}

// roomFor tells whether the counters of a line can grow by a credit.
func (l *Ledger) roomFor(key lineKey, m amount) code {
	n := l.line(key)
	after := n.creditsPosted.plus(n.creditsPending).plus(m)
	if key == (lineKey{l.collector(), l.feeAsset}) {
		after = after.plus(l.total().fees)
	}
	return pick(after.below(limit), ok, counterOverflow)
}

func (l *Ledger) owed(key lineKey) amount {
	n := l.line(key)
	return n.debitsPosted.minus(n.creditsPosted).minus(n.creditsPending).atLeast(amount{})
}

func (l *Ledger) isClosed(a address) bool {
	row := l.accounts.get(a)
	return row != nil && row.closed
}

// open opens a line, at the instance of an account.
func (l *Ledger) open(x *execution, key lineKey, instance address) code {
	if key.account == pool || l.isClosed(key.account) {
		return accountClosed
	}
	if l.lines.get(key) != nil {
		return ok
	}
	var owner account
	if row := l.accounts.get(key.account); row != nil {
		owner = *row
	}
	if owner.optIn && instance != key.account {
		return lineNotOpen
	}
	d, c := l.take(x, l.params().DepositLine, key.account)
	if c != ok {
		return c
	}
	l.lines.put(key, &line{deposit: d, incarnation: owner.closedLines})
	l.holdings.edit(key.account).lines++
	return ok
}

// take takes a deposit from the payer for a row of an owner.
func (l *Ledger) take(x *execution, price uint64, owner address) (taken deposit, c code) {
	taken = x.deposit(price, owner)
	return taken, l.takeFrom(x, taken.amount)
}

// deposit is what a row of an owner remembers of its price.
func (x *execution) deposit(price uint64, owner address) deposit {
	if price == 0 || x.payer == owner {
		return deposit{amount: units(price)}
	}
	return deposit{units(price), x.payer[:]}
}

func (l *Ledger) takeFrom(x *execution, d amount) code {
	if d.isZero() {
		return ok
	}
	if x.deposits.plus(d).above(x.maxDeposit) {
		return depositAboveMaximum
	}
	if l.debitable(lineKey{x.payer, l.feeAsset}, d) != ok {
		return depositUnpayable
	}
	if x.granted != nil {
		if l.usable(*x.granted, d, nil) != ok {
			return depositUnpayable
		}
		l.use(*x.granted, d)
	}
	l.postTaken(x, d)
	return ok
}

func (l *Ledger) postTaken(x *execution, d amount) {
	x.deposits = x.deposits.plus(d)
	t := l.totals.edit(struct{}{})
	t.taken = t.taken.plus(d)
	l.post(x, lineKey{x.payer, l.feeAsset}, counters{debitsPosted: d},
		&pb.Entry{Kind: entryDepositTaken, Counterparty: pool[:], Amount: d.bytes()})
}

// payBack pays a deposit back, to an account unless it came from another one, of a hold or of anything else.
func (l *Ledger) payBack(x *execution, to address, back deposit, hold []byte) code {
	if back.depositor != nil {
		l.payBackTo(x, address(back.depositor), back.amount, hold) // if possible
		return ok
	}
	return l.payBackTo(x, to, back.amount, hold)
}

func (l *Ledger) payBackTo(x *execution, to address, d amount, hold []byte) code {
	if d.isZero() {
		return ok
	}
	key := lineKey{to, l.feeAsset}
	if l.lines.get(key) == nil {
		return lineUnknown
	}
	if c := l.roomFor(key, d); c != ok {
		return c
	}
	t := l.totals.edit(struct{}{})
	t.paidBack = t.paidBack.plus(d)
	l.post(x, key, counters{creditsPosted: d},
		&pb.Entry{Kind: entryDepositBack, Credit: true, Counterparty: pool[:], Amount: d.bytes(), Hold: hold})
	return ok
}

// usable tells why a grant cannot be used for an amount, paying an account (nil: nobody).
func (l *Ledger) usable(key grantKey, m amount, paid []byte) code {
	g := l.grants.get(key)
	var epoch uint32
	if granter := l.accounts.get(key.granter); granter != nil {
		epoch = granter.epoch
	}
	if g == nil || g.epoch != epoch {
		return grantUnknown
	}
	if l.now() >= g.until {
		return grantExpired
	}
	if len(g.to) > 0 && string(g.to) != string(paid) {
		return grantOtherReceiver
	}
	if !g.perPeriod.isZero() {
		var spent amount
		if g.periodNumber == l.period(g) {
			spent = g.spentInPeriod
		}
		if spent.plus(m).above(g.perPeriod) {
			return grantExceeded
		}
	}
	if !g.total.isZero() && g.spent.plus(m).above(g.total) {
		return grantExceeded
	}
	return ok
}

func (l *Ledger) period(g *grant) uint64 { return (l.now() - g.begun) / uint64(g.period) }

func (l *Ledger) use(key grantKey, m amount) {
	g := l.grants.edit(key)
	if !g.perPeriod.isZero() {
		if n := l.period(g); n != g.periodNumber {
			g.periodNumber, g.spentInPeriod = n, amount{}
		}
		g.spentInPeriod = g.spentInPeriod.plus(m)
	}
	if !g.total.isZero() {
		g.spent = g.spent.plus(m)
	}
}
