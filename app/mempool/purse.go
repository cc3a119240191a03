package mempool

import (
	"container/heap"
	"container/list"
	"fmt"
	"slices"
	"sort"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// What waits is reserved for. A transaction draws on purses: the payer's line of the fee asset, by its fee, deposits and
// what its operations take; the lines that its other operations debit in the fee asset; the budget of a grant. On each
// purse the claims of all that waits stay within what there is by the newest state, so that whatever one of them takes,
// the fees of the others can be paid: spam costs whoever sends it, and nobody empties an account before a thousand
// transactions that were admitted for its money.
//
// One exception: a transaction that is alone on a purse only needs what the ledger asks before it executes anything, the
// fee and the deposits of accounts that sign first. Else nobody could pay out all that it has ("balancing"), and nobody
// would be told by a receipt that it has too little. While it waits the purse is closed to others.
//
// The fee that is reserved is that at twice the present multiplier, six full blocks on, but not more than max_fee. When
// the multiplier passes what is reserved for, the claim is made anew, and a transaction goes that its purse no longer
// bears. It also goes when its fee is above its max_fee: were it to wait for cheaper times, whoever signs a low max_fee
// would use the pool for nothing.

// Nobody may hold another's money by what never runs, and pays no fee for it. So a transaction that claims the line of an
// account that has not signed it, as a grant's granter, is in the pool only while it is ready: it is turned away when its
// sequence is ahead, and goes when what it follows goes. It claims nothing of the line when the grant forbids the
// receiver, as it will fail. And an owner comes first: for a transaction that the account has signed itself, such claims of
// others on it give way, the latest first. Else a grantee could keep its granter from revoking the grant.

// purseKey names a purse. Of the two one is zero.
type purseKey struct {
	account crypto.Address  // its line of the fee asset
	grant   ledger.GrantKey // its budget
}

func (k purseKey) isGrant() bool { return k.account == crypto.Address{} }

// purse is what transactions in the pool draw on. There is one for everything that an entry draws on, and no other.
type purse struct {
	key     purseKey
	funds   ledger.Amount // by the state at height
	height  uint64
	until   uint64         // of a grant: the second in which it ends
	to      crypto.Address // of a grant: the only account that may be paid; zero: any
	claimed ledger.Amount  // at most funds, unless there is one claim only
	claims  *list.List     // of *entry: in order of arrival
}

// need is what a transaction needs of a purse.
type need struct {
	payer bool          // the fee is paid from it
	least ledger.Amount // what the ledger asks of it before the operations, besides the fee
	most  ledger.Amount // what can be taken from it at all, besides the fee
}

// draw is what a candidate asks of a purse.
type draw struct {
	need
	key   purseKey
	funds ledger.Amount  // by the state that the transaction was judged by
	until uint64         // of a grant, likewise
	to    crypto.Address // likewise
}

// claim is a draw that has been granted.
type claim struct {
	need
	purse  *purse
	amount ledger.Amount
	place  *list.Element
}

// signed tells whether an account has signed a transaction, as a signer or as its sponsor.
func signed(tx *ledger.Tx, by crypto.Address) bool {
	for _, s := range tx.Body.Signers {
		if s.Address == by {
			return true
		}
	}
	return tx.Sponsor != nil && tx.Sponsor.Address == by
}

// drawsOnOthers tells whether a candidate would claim something of an account that has not signed it.
func (c *candidate) drawsOnOthers() bool {
	for i := range c.draws {
		d := &c.draws[i]
		if !d.key.isGrant() && (d.payer || !d.most.IsZero()) && !signed(c.arrival.tx, d.key.account) {
			return true
		}
	}
	return false
}

// drawsOnOthers tells whether an entry claims something of an account that has not signed it.
func (e *entry) drawsOnOthers() bool {
	for i := range e.claims {
		if k := e.claims[i].purse.key; !k.isGrant() && !signed(e.tx, k.account) {
			return true
		}
	}
	return false
}

// yielding returns the entries that give way to a candidate on the purses of its signers and sponsor: those that claim
// these without the owner's signature, the latest on each purse first. What shares a signer with the candidate stays, as
// the candidate may follow it.
func (w *waiting) yielding(c *candidate) (entries []*entry) {
	for i := range c.draws {
		k := c.draws[i].key
		p := w.purses[k]
		if p == nil || k.isGrant() || !signed(c.arrival.tx, k.account) {
			continue
		}
		for f := p.claims.Back(); f != nil; f = f.Prev() {
			e := f.Value.(*entry)
			shared := slices.ContainsFunc(c.keys, func(k replayKey) bool { return signed(e.tx, k.account) })
			if !shared && !signed(e.tx, k.account) {
				entries = append(entries, e)
			}
		}
	}
	return entries
}

// tariff is what the fee of a transaction depends on.
type tariff struct {
	params           *ledger.Parameters
	size, operations int
	cost             uint64 // of its signatures: ledger.VerificationCost
	maxFee           ledger.Amount
}

func (t *tariff) fee(multiplier uint32) ledger.Amount {
	return t.params.Fee(ledger.FeeRate{Multiplier: multiplier}, t.size, t.operations, t.cost)
}

// reserve returns the fee to reserve at a multiplier at which it can be paid, and the multiplier up to which it suffices.
func (t *tariff) reserve(multiplier uint32) (fee ledger.Amount, upTo uint32) {
	upTo = max(multiplier, min(2*multiplier, t.params.MaxFeeMultiplier))
	if fee = t.fee(upTo); fee.Cmp(t.maxFee) <= 0 {
		return fee, upTo
	}
	above := sort.Search(int(upTo-multiplier), func(i int) bool { return t.fee(multiplier+1+uint32(i)).Cmp(t.maxFee) > 0 })
	return t.maxFee, multiplier + uint32(above)
}

// demand returns what is claimed for a need when so much is reserved for the fee, and what the ledger asks for at once.
func (n *need) demand(fee, reserve ledger.Amount) (amount, least ledger.Amount) {
	if !n.payer {
		return n.most, n.least
	}
	return plus(n.most, reserve), plus(n.least, fee)
}

func plus(a, b ledger.Amount) ledger.Amount {
	if sum, ok := a.Add(b); ok {
		return sum
	}
	return ledger.MaxAmount
}

func minus(a, b ledger.Amount) ledger.Amount {
	if rest, ok := a.Sub(b); ok {
		return rest
	}
	return ledger.Amount{}
}

// bears tells whether funds bear one claim more beside others.
func bears(funds, claimed ledger.Amount, others int, amount, least ledger.Amount) bool {
	if others == 0 {
		return least.Cmp(funds) <= 0
	}
	sum, ok := claimed.Add(amount)
	return ok && sum.Cmp(funds) <= 0
}

// relief is what would be free if certain entries went.
type relief struct {
	counts map[*account]int
	bytes  map[*account]int64
	claims map[*purse]int
	freed  map[*purse]ledger.Amount
}

func (r *relief) add(e *entry) {
	if r.counts == nil {
		r.counts, r.bytes, r.claims, r.freed = map[*account]int{}, map[*account]int64{}, map[*purse]int{}, map[*purse]ledger.Amount{}
	}
	for _, a := range e.accounts {
		r.counts[a]++
		r.bytes[a] += e.size()
	}
	for i := range e.claims {
		p := e.claims[i].purse
		r.claims[p]++
		r.freed[p] = plus(r.freed[p], e.claims[i].amount)
	}
}

// fundsOf returns what there is in the purse of a candidate's draw, by the newer of the two states.
func (w *waiting) fundsOf(c *candidate, d *draw) ledger.Amount {
	if p := w.purses[d.key]; p != nil && p.height >= c.height {
		return p.funds
	}
	return d.funds
}

// multiplierFor returns the multiplier at which a candidate will pay.
func (w *waiting) multiplierFor(c *candidate) uint32 {
	if c.height < w.header.Height && w.multiplier != 0 {
		return w.multiplier
	}
	return c.multiplier
}

// over tells which limit a candidate would pass if what relief counts were gone; a verdict with the code OK when none.
func (w *waiting) over(c *candidate, r *relief) Verdict {
	for _, k := range c.keys {
		a := w.accounts[k.account]
		if a == nil {
			continue
		}
		if a.count-r.counts[a]+1 > w.cfg.MaxTxsPerSender || a.bytes-r.bytes[a]+int64(len(c.arrival.raw)) > w.cfg.MaxBytesPerSender {
			return turnedAway(ShareUsed, "%s has %d transactions of %d bytes waiting, at most %d of %d; send more when some are committed",
				a.address, a.count, a.bytes, w.cfg.MaxTxsPerSender, w.cfg.MaxBytesPerSender)
		}
	}
	multiplier := w.multiplierFor(c)
	fee := c.fee(multiplier)
	if fee.Cmp(c.maxFee) > 0 {
		return refusal(ledger.FeeAboveMaximum)
	}
	reserve, _ := c.reserve(multiplier)
	for i := range c.draws {
		d := &c.draws[i]
		amount, least := d.demand(fee, reserve)
		if amount.IsZero() {
			continue
		}
		p, funds := w.purses[d.key], w.fundsOf(c, d)
		claimed, others := ledger.Amount{}, 0
		if p != nil {
			claimed, others = minus(p.claimed, r.freed[p]), p.claims.Len()-r.claims[p]
		}
		switch {
		case bears(funds, claimed, others, amount, least):
		case others == 0 && !d.key.isGrant():
			return refusal(ledger.FeeUnpayable)
		case others == 0:
			return refusal(ledger.FeeGrantUnusable)
		default:
			return turnedAway(FeesHeld, "%s; the %d transactions that wait reserve %s of it and this one would %s (its fee at twice the present rate, at most max_fee, with deposits and what it pays out); send it again when some are committed",
				d.key.describe(funds), others, claimed, amount)
		}
	}
	return Verdict{}
}

func (k purseKey) describe(funds ledger.Amount) string {
	if k.isGrant() {
		return fmt.Sprintf("the grant of %s to %s allows %s base units of the fee asset", k.grant.Granter, k.grant.Grantee, funds)
	}
	return fmt.Sprintf("%s can spend %s base units of the fee asset", k.account, funds)
}

// room returns the entries that must go for a candidate: its signers' own that are parked and wait for its sequence, the
// last one first, then those that yield to it. The verdict is OK when that is enough.
func (w *waiting) room(c *candidate) (evicted []*entry, v Verdict) {
	var r relief
	if v = w.over(c, &r); v.Code == ledger.OK {
		return nil, v
	}
	gone := map[*entry]bool{}
	enough := func(entries []*entry) bool {
		for _, e := range entries {
			if gone[e] {
				continue
			}
			gone[e] = true
			evicted = append(evicted, e)
			r.add(e)
			if w.over(c, &r).Code == ledger.OK {
				return true
			}
		}
		return false
	}
	for _, k := range c.keys {
		if a := w.accounts[k.account]; a != nil && enough(a.behind(k.sequence)) {
			return evicted, Verdict{}
		}
	}
	if v.Code == FeesHeld && enough(w.yielding(c)) {
		return evicted, Verdict{}
	}
	return nil, v
}

// claimFor enters an entry's claims.
func (w *waiting) claimFor(e *entry, c *candidate) {
	e.tariff = c.tariff
	multiplier := w.multiplierFor(c)
	if w.multiplier == 0 { // the first one ever: from then on the blocks tell
		w.multiplier, w.feeAsset, w.asset = multiplier, c.params.FeeAsset, c.asset
	}
	fee := e.fee(multiplier)
	var reserve ledger.Amount
	reserve, e.coveredTo = e.reserve(multiplier)
	e.claims = make([]claim, 0, len(c.draws))
	for i := range c.draws {
		d := &c.draws[i]
		amount, _ := d.demand(fee, reserve)
		if amount.IsZero() {
			continue
		}
		if d.payer && d.key.isGrant() && (e.dies == 0 || d.until < e.dies) {
			e.dies = d.until
		}
		p := w.purses[d.key]
		if p == nil {
			p = &purse{key: d.key, height: c.height, funds: d.funds, until: d.until, to: d.to, claims: list.New()}
			w.purses[d.key] = p
		}
		p.funds, p.height = w.fundsOf(c, d), max(p.height, c.height)
		p.claimed = plus(p.claimed, amount) // within the funds, or alone
		e.claims = append(e.claims, claim{need: d.need, purse: p, amount: amount, place: p.claims.PushBack(e)})
	}
	heap.Push(&w.rising, e)
}

// release gives back what an entry has claimed.
func (w *waiting) release(e *entry) {
	for i := range e.claims {
		c := &e.claims[i]
		c.purse.claims.Remove(c.place)
		c.purse.claimed = minus(c.purse.claimed, c.amount)
		if c.purse.claims.Len() == 0 {
			delete(w.purses, c.purse.key)
		}
	}
	e.claims = nil
	heap.Remove(&w.rising, e.inRising)
}

// renew makes an entry's claims anew at a multiplier that is above what they cover. It tells whether the entry can stay.
func (w *waiting) renew(e *entry, multiplier uint32) bool {
	fee := e.fee(multiplier)
	if fee.Cmp(e.maxFee) > 0 {
		return false
	}
	var reserve ledger.Amount
	reserve, e.coveredTo = e.reserve(multiplier)
	heap.Fix(&w.rising, e.inRising)
	for i := range e.claims {
		c := &e.claims[i]
		amount, least := c.demand(fee, reserve)
		others := minus(c.purse.claimed, c.amount)
		if !bears(c.purse.funds, others, c.purse.claims.Len()-1, amount, least) {
			return false
		}
		c.purse.claimed, c.amount = plus(others, amount), amount
	}
	return true
}

// sound tells whether a purse bears what is claimed of it.
func (w *waiting) sound(p *purse) bool {
	switch p.claims.Len() {
	case 0:
		return true
	case 1:
		e := p.claims.Front().Value.(*entry)
		for i := range e.claims {
			if c := &e.claims[i]; c.purse == p {
				_, least := c.demand(e.fee(w.multiplier), ledger.Amount{})
				return least.Cmp(p.funds) <= 0
			}
		}
	}
	return p.claimed.Cmp(p.funds) <= 0
}

// reassess takes over what a block has changed: the funds of purses and the multiplier. What can no longer be paid for
// goes, of each purse the latest first. It returns those that have to be judged anew
// because a grant has begun, ends at another time or pays another account.
func (w *waiting) reassess(h ledger.Header, writes []ledger.Write) (again []*entry, dropped uint64) {
	var changed []*purse
	drawnOn := func(k purseKey) *purse { // of a row that has changed; nil: nothing in the pool draws on it
		w.recent.move(k)
		return w.purses[k]
	}
	set := func(p *purse, funds ledger.Amount, until uint64, to crypto.Address) {
		if p.key.isGrant() && (p.until != until || p.to != to || p.funds.IsZero() && !funds.IsZero()) {
			for f := p.claims.Front(); f != nil; f = f.Next() {
				again = append(again, f.Value.(*entry))
			}
		}
		p.funds, p.height, p.until, p.to = funds, h.Height, until, to
		changed = append(changed, p)
	}
	for _, write := range writes { // the asset and the rate come behind the lines, by their keys
		if k, ok := ledger.LineOfRow(write.Key); ok {
			if k.Asset != w.feeAsset && w.feeAsset != (ledger.AssetID{}) {
				continue
			}
			if p := drawnOn(purseKey{account: k.Account}); p != nil {
				line, err := decodeOr(write.Value, ledger.DecodeLine)
				w.must(err)
				set(p, line.Spendable(w.asset, k), 0, crypto.Address{})
			}
		} else if k, ok := ledger.GrantOfRow(write.Key); ok {
			if p := drawnOn(purseKey{grant: k}); p != nil {
				grant, err := decodeOr(write.Value, ledger.DecodeGrant)
				w.must(err)
				set(p, grant.Remaining(h.UnixMillis/1000), grant.Until, grant.To)
			}
		} else if string(write.Key) == string(ledger.AssetRow(w.feeAsset)) {
			// What its issuer can spend depends on both rows: its transactions are judged anew by the state.
			if p := w.purses[purseKey{account: w.asset.Issuer}]; p != nil {
				for f := p.claims.Front(); f != nil; f = f.Next() {
					again = append(again, f.Value.(*entry))
				}
			}
			asset, err := ledger.DecodeAsset(write.Value)
			w.must(err)
			w.asset = asset
			w.recent.move(purseKey{account: w.asset.Issuer})
		} else if string(write.Key) == string(ledger.FeeRateRow()) {
			rate, err := ledger.DecodeFeeRate(write.Value)
			w.must(err)
			w.multiplier = rate.Multiplier
		}
	}
	for len(w.rising) > 0 && w.rising[0].coveredTo < w.multiplier {
		if e := w.rising[0]; !w.renew(e, w.multiplier) {
			w.remove(e)
			dropped++
		}
	}
	for _, p := range changed {
		for !w.sound(p) {
			w.remove(p.claims.Back().Value.(*entry))
			dropped++
		}
	}
	return again, dropped
}

// must panics on a row of the pool's own ledger that does not decode: the state is damaged, and the node with it.
func (w *waiting) must(err error) {
	if err != nil {
		panic("a block of this node has written a row that does not decode: " + err.Error())
	}
}

// decodeOr decodes a row's value; a row that is gone is a zero one.
func decodeOr[V any](value []byte, decode func([]byte) (V, error)) (v V, err error) {
	if value == nil {
		return v, nil
	}
	return decode(value)
}

// ceilings is a heap of entries, the one whose claims cover the lowest multiplier first.
type ceilings []*entry

func (c ceilings) Len() int           { return len(c) }
func (c ceilings) Less(i, j int) bool { return c[i].coveredTo < c[j].coveredTo }
func (c ceilings) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].inRising, c[j].inRising = i, j
}

// Push implements [heap.Interface].
func (c *ceilings) Push(e any) {
	e.(*entry).inRising = len(*c)
	*c = append(*c, e.(*entry))
}

// Pop implements [heap.Interface].
func (c *ceilings) Pop() any {
	last := len(*c) - 1
	e := (*c)[last]
	(*c)[last] = nil
	*c = (*c)[:last]
	return e
}
