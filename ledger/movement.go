package ledger

import "github.com/pacioli-ledger/pacioli/crypto"

// What every movement of an amount has in common: who lets it pass, how much there is, how much fits, and what the lines
// that it opens cost. The rules are those of docs/PROTOCOL.md, "Debit and credit", in its order.

// cause is what made a journal entry; zero for what a block does by itself.
type cause struct {
	tx        crypto.Hash
	operation uint32
}

func (x *execution) cause() cause { return cause{x.id, x.operation} }

// account returns the account of signer number n.
func (x *execution) account(n uint32) crypto.Address { return x.tx.Body.Signers[n].Address }

// now returns the block's time in whole seconds of Unix time.
func (b *Block) now() uint64 { return b.header.UnixMillis / 1000 }

// DepositPool is the account to which deposits are posted. Nobody has its keys: it is the hash of something that is no
// policy.
func DepositPool() crypto.Address {
	return crypto.Address(crypto.DomainAddress.Hash([]byte("deposits")))
}

// passage tells whether the issuer's controls let an amount out of a line (side LineFrozenOut), or in (LineFrozenIn).
func passage(asset Asset, k LineKey, l Line, side LineFlags) Code {
	switch {
	case k.Account == asset.Issuer:
		return OK
	case asset.Controls&ControlAuthorisation != 0 && l.Flags&LineAuthorised == 0:
		return LineNotAuthorised
	case asset.frozen(l, side):
		return LineFrozen
	}
	return OK
}

// frozen tells whether a line, or its whole asset, is frozen on one of the sides.
func (a Asset) frozen(l Line, sides LineFlags) bool {
	return a.Controls&ControlFreeze != 0 && (l.Flags|a.Frozen)&sides != 0
}

// debits returns what a line has given away or promised, and means what that may come to.
func (l Line) debits(asset Asset, k LineKey) (debits, means wide) {
	if k.Account == asset.Issuer {
		return total(l.DebitsPosted, l.DebitsPending, asset.Credit), total(asset.MaxSupply, l.CreditsPosted)
	}
	return total(l.DebitsPosted, l.DebitsPending), total(l.CreditsPosted, l.Credit)
}

// available returns what a line can still pay or promise, at most 2^128 - 1.
func available(asset Asset, k LineKey, l Line) Amount {
	debits, means := l.debits(asset, k)
	return means.minus(debits)
}

// Spendable returns what a line can still pay or promise in its asset, at most 2^128 - 1, whether or not it is frozen.
func (l Line) Spendable(asset Asset, k LineKey) Amount { return available(asset, k, l) }

// debitable tells why a line cannot be debited, or promised from, by an amount.
func debitable(asset Asset, k LineKey, l Line, amount Amount) Code {
	if code := passage(asset, k, l, LineFrozenOut); code != OK {
		return code
	}
	debits, means := l.debits(asset, k)
	if means.less(debits.plus(amount)) {
		if k.Account == asset.Issuer {
			return SupplyExceeded
		}
		return InsufficientFunds
	}
	if !total(l.DebitsPosted, l.DebitsPending, amount).fits() {
		return CounterOverflow
	}
	return OK
}

// creditable tells why a line cannot be credited, or promised to, by an amount. Pending credits count, so that what is
// promised can be kept.
func (b *Block) creditable(asset Asset, k LineKey, l Line, amount Amount) Code {
	if code := passage(asset, k, l, LineFrozenIn); code != OK {
		return code
	}
	credits := total(l.CreditsPosted, l.CreditsPending, amount)
	if k.Account != asset.Issuer {
		above := func(limit Amount) bool { return !limit.IsZero() && total(l.DebitsPosted, limit).less(credits) }
		if above(l.Ceiling) || asset.Controls&ControlAuthorisation != 0 && above(l.Cap) {
			return CeilingExceeded
		}
	}
	if !b.roomFor(k, credits) {
		return CounterOverflow
	}
	return OK
}

// roomFor tells whether a line's posted and pending credits may become this. The collector's line keeps room for the fees
// that the block has taken and not yet posted.
func (b *Block) roomFor(k LineKey, credits wide) bool {
	if k == (LineKey{b.params.FeeCollector, b.params.FeeAsset}) {
		credits = credits.plus(b.totals.fees)
	}
	return credits.fits()
}

// open makes a line of an account exist, at the instance of another account or of its own.
func (x *execution) open(k LineKey, by crypto.Address) Code {
	if k.Account == x.pool {
		return AccountClosed
	}
	if _, ok := x.state.lines.get(k); ok {
		return OK
	}
	account, _ := x.state.accounts.get(k.Account)
	switch {
	case account.Flags&AccountClosedFlag != 0:
		return AccountClosed
	case account.Flags&AccountOptIn != 0 && k.Account != by:
		return LineNotOpen
	}
	if code := x.takeDeposit(x.params.DepositLine); code != OK {
		return code
	}
	x.openLine(k, Line{Deposit: Units(x.params.DepositLine), Depositor: x.depositor(k.Account, x.params.DepositLine), Incarnation: account.ClosedLines})
	return OK
}

// openLine writes a new line.
func (b *Block) openLine(k LineKey, l Line) {
	b.state.lines.put(k, l)
	b.holding(k.Account, func(h *Holdings) { h.Lines++ })
}

// hold changes how many rows an account has.
func (b *Block) holding(account crypto.Address, change func(*Holdings)) {
	h, _ := b.state.holdings.get(account)
	if change(&h); h.none() {
		b.state.holdings.remove(account)
	} else {
		b.state.holdings.put(account, h)
	}
}

// depositor returns who is written into a row as the one that put its deposit down. Deposits go back to whom they came
// from: could a row's owner collect what somebody else paid for it, opening rows at other people's expense would pay.
func (x *execution) depositor(owner crypto.Address, deposit uint64) crypto.Address {
	if deposit == 0 || x.payer == owner {
		return crypto.Address{}
	}
	return x.payer
}

// takeDeposit debits the payer for a new row.
func (x *execution) takeDeposit(units uint64) Code {
	if units == 0 {
		return OK
	}
	d := Units(units)
	if x.maxDeposit.Cmp(x.deposit.mustAdd(d)) < 0 { // both below 2^64
		return DepositAboveMaximum
	}
	if !x.canPay(x.payer, d) {
		return DepositUnpayable
	}
	if x.payerGrant != nil {
		if x.payerGrant.usable(x.Block, d) != OK {
			return DepositUnpayable
		}
		x.payerGrant.use(x.Block, d)
	}
	x.payDeposit(d)
	return OK
}

// payDeposit posts a deposit that the payer is known to be able to pay.
func (x *execution) payDeposit(d Amount) {
	k := LineKey{x.payer, x.params.FeeAsset}
	line, _ := x.state.lines.get(k)
	line.DebitsPosted = line.DebitsPosted.mustAdd(d)
	x.enter(k, line, Entry{Kind: EntryDeposit, Counterparty: x.pool, Amount: d}, x.cause())
	x.deposit = x.deposit.mustAdd(d)
	x.totals.deposits = x.totals.deposits.mustAdd(d)
}

// giveBack returns the deposit of a row that has gone: to another depositor where that is possible, and else it stays in
// the pool; to the account that the row's owner names, or not at all.
func (x *execution) giveBack(deposit Amount, depositor, to crypto.Address) Code {
	if depositor != (crypto.Address{}) {
		x.payBack(depositor, deposit, crypto.Hash{}, x.cause())
		return OK
	}
	return x.payBack(to, deposit, crypto.Hash{}, x.cause())
}

// payBack credits an account with the deposit of a row that has gone.
func (b *Block) payBack(to crypto.Address, d Amount, hold crypto.Hash, by cause) Code {
	if d.IsZero() {
		return OK
	}
	k := LineKey{to, b.params.FeeAsset}
	line, ok := b.state.lines.get(k)
	switch {
	case !ok:
		return LineUnknown
	case !b.roomFor(k, total(line.CreditsPosted, line.CreditsPending, d)):
		return CounterOverflow
	}
	line.CreditsPosted = line.CreditsPosted.mustAdd(d)
	b.enter(k, line, Entry{Kind: EntryRefund, Credit: true, Counterparty: b.pool, Amount: d, Hold: hold}, by)
	b.totals.refunds = b.totals.refunds.mustAdd(d)
	return OK
}

// canPay tells whether an account can be debited by an amount of the fee asset.
func (b *Block) canPay(account crypto.Address, amount Amount) bool {
	asset, ok := b.state.asset(b.params.FeeAsset)
	if !ok {
		return false
	}
	k := LineKey{account, b.params.FeeAsset}
	line, _ := b.state.lines.get(k)
	return debitable(asset, k, line, amount) == OK
}

// prepare is what transfers and holds have in common before their lines change: the grant, the receiver's line, deposits,
// and the amount, which balancing lowers.
func (x *execution) prepare(asset Asset, from, to LineKey, amount Amount, balancing Balancing, grant *spending, deposit uint64) (Amount, Code) {
	if grant != nil {
		if code := grant.usable(x.Block, Amount{}); code != OK {
			return Amount{}, code
		}
	}
	if code := x.open(to, from.Account); code != OK {
		return Amount{}, code
	}
	if code := x.takeDeposit(deposit); code != OK {
		return Amount{}, code
	}
	if balancing&BalancingDebit != 0 {
		line, _ := x.state.lines.get(from)
		amount = amount.Min(available(asset, from, line))
	}
	if balancing&BalancingCredit != 0 {
		line, _ := x.state.lines.get(to)
		amount = amount.Min(total(line.DebitsPosted).minus(total(line.CreditsPosted, line.CreditsPending)))
	}
	if amount.IsZero() {
		return Amount{}, NothingToTransfer
	}
	if grant != nil {
		if code := grant.usable(x.Block, amount); code != OK {
			return Amount{}, code
		}
		grant.use(x.Block, amount)
	}
	return amount, OK
}

// enterBoth writes the two lines of a movement, with an entry for each.
func (x *execution) enterBoth(from LineKey, debit Line, to LineKey, credit Line, e Entry) {
	x.enterPair(from, debit, to, credit, e, x.cause())
}

func (b *Block) enterPair(from LineKey, debit Line, to LineKey, credit Line, e Entry, by cause) {
	e.Counterparty = to.Account
	b.enter(from, debit, e, by)
	e.Counterparty, e.Credit = from.Account, true
	b.enter(to, credit, e, by)
}

// enter writes a changed line with the journal entry that says why.
func (b *Block) enter(k LineKey, l Line, e Entry, by cause) {
	l.Entries++
	e.TxID, e.Operation = by.tx, by.operation
	e.Number, e.Height = l.Entries, b.header.Height
	e.DebitsPending, e.DebitsPosted = l.DebitsPending, l.DebitsPosted
	e.CreditsPending, e.CreditsPosted = l.CreditsPending, l.CreditsPosted
	encoded := e.Encode()
	l.Head = NextHead(l.Head, encoded)
	b.state.lines.put(k, l)
	b.entries = append(b.entries, LineEntry{k, l.Incarnation, l.Entries, encoded, e.Noted()})
}
