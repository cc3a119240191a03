package mempool

import (
	"cmp"
	"container/heap"
	"container/list"
	"slices"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// waiting is the set of transactions that wait for a block. It knows neither clock nor lock: Pool guards it and tells it
// the time.
type waiting struct {
	cfg      Config
	header   ledger.Header // of the last block that committed was told of
	recent   recent
	arrivals uint64

	byHash   map[crypto.Hash]*entry // by hash of the bytes
	byID     map[crypto.Hash]*entry
	byKey    map[replayKey]*entry
	accounts map[crypto.Address]*account // those that have signed an entry

	bytes       int64
	parkedBytes int64
	ready       int // entries that are ready
	evicted     uint64
	stranded    []*entry // cut off by the removal under way, and to go with it
	committing  bool     // a block is being taken over: what is stranded will be judged anew
	lost        []*entry // what was stranded meanwhile

	parked *list.List // of *entry: oldest first
	ages   *list.List // of *entry: all, oldest first
	fresh  *list.List // of *entry: from clients, not yet offered to the peers
	later  *list.List // of *entry: the others, by when they are due to be offered
	turns  *list.List // of *account: those with something ready, in the order in which they take turns
	dying  deadlines  // entries that die at a time
	rising ceilings   // all entries, by the multiplier that their claims cover
	purses map[purseKey]*purse

	// of the ledger, as the blocks and the first candidate have told
	multiplier uint32 // of the fee rate; 0: not known yet
	feeAsset   ledger.AssetID
	asset      ledger.Asset // that fees are paid in
	round      uint64       // number of the last proposal
}

// replayKey is what the ledger accepts once only. It is comparable; sequence is 0 where a nonce stands.
type replayKey struct {
	account              crypto.Address
	sequence, validUntil uint64
	nonce                [ledger.NonceBytes]byte
}

func keyOf(b *ledger.Body, s ledger.Signer) replayKey {
	if s.Sequence != 0 {
		return replayKey{account: s.Address, sequence: s.Sequence}
	}
	return replayKey{account: s.Address, validUntil: b.ValidUntil, nonce: s.Nonce}
}

// entry is a transaction that waits.
type entry struct {
	tx       *ledger.Tx
	hash, id crypto.Hash
	keys     []replayKey      // by signer
	accounts []*account       // by signer
	depends  []crypto.Address // accounts whose policy or epoch it counts on: its signers, the sponsor, granters
	ends     []crypto.Address // accounts for which nothing that was signed before counts behind it
	number   uint64           // in order of arrival
	arrived  time.Time
	own      bool
	offered  time.Time // last; zero: never
	due      time.Time // to be offered again, when in later
	ordered  bool      // it has a sequence among its keys
	ready    bool
	gone     bool

	tariff
	claims    []claim
	coveredTo uint32 // the multiplier up to which the claims cover the fee
	inRising  int    // index

	inParked, inAges, inOffers, inNonces *list.Element
	inDying                              int    // index, -1: none
	dies                                 uint64 // the second of block time from which on it can be in no block; 0: it may live on
}

func (e *entry) size() int64 { return int64(len(e.tx.Bytes())) }

// account is what waits of one signer.
type account struct {
	address   crypto.Address
	count     int
	bytes     int64
	next      uint64            // the first sequence that no block has used
	chain     uint64            // the first sequence from next on that is not ready
	sequenced map[uint64]*entry // by the account's sequence
	nonces    *list.List        // of *entry: those without any sequence whose first signer it is; always ready
	inTurns   *list.Element

	// of the proposal number round only
	round  uint64
	cursor uint64        // its next sequence behind those proposed
	nonce  *list.Element // its first nonce behind those proposed
	queued bool          // it will have another turn
}

// candidate is a transaction that the ledger accepts over the state at height.
type candidate struct {
	arrival *arrival
	id      crypto.Hash
	height  uint64
	keys    []replayKey // by signer
	used    []uint64    // by signer: the last sequence that its account has used
	depends []crypto.Address
	tariff
	multiplier uint32
	asset      ledger.Asset // that fees are paid in
	draws      []draw       // no purse twice

	authorization ledger.Authorization
}

// standing is what the pool says to a candidate.
type standing int

const (
	welcome  standing = iota
	known             // it is in the pool already
	stale             // it has to be judged by a later state
	unwanted          // the verdict says why
)

func newWaiting(cfg Config) *waiting {
	return &waiting{cfg: cfg, recent: newRecent(),
		byHash: map[crypto.Hash]*entry{}, byID: map[crypto.Hash]*entry{}, byKey: map[replayKey]*entry{}, accounts: map[crypto.Address]*account{},
		purses: map[purseKey]*purse{}, parked: list.New(), ages: list.New(), fresh: list.New(), later: list.New(), turns: list.New()}
}

// fits tells whether there is room for a transaction of so many bytes once all that may go for it has gone: what is
// parked, when it is ready.
func (w *waiting) fits(size int64, ready bool) bool {
	count, bytes := len(w.byID), w.bytes
	if ready {
		count, bytes = count-w.parked.Len(), bytes-w.parkedBytes
	}
	return count < w.cfg.MaxTxs && bytes+size <= w.cfg.MaxBytes
}

// consider tells what enter would do with a candidate if its signatures are good. It changes nothing, and is asked before
// they are verified, so that a sender who is over its share costs no verification.
func (w *waiting) consider(c *candidate) (standing, Verdict) {
	tx := c.arrival.tx
	if w.byID[c.id] != nil {
		return known, Verdict{}
	}
	// Blocks may have been committed since the state was opened. What they used up is remembered for a while.
	if c.height+recentHeights < w.header.Height {
		return stale, Verdict{}
	}
	if u := tx.Body.ValidUntil; u != 0 && u*1000 <= w.header.UnixMillis {
		return unwanted, refused(ledger.Expired, "valid_until has passed in block %d", w.header.Height)
	}
	for _, a := range c.depends {
		if w.recent.rotated[a] > c.height {
			return stale, Verdict{}
		}
	}
	for i := range c.draws {
		if k := c.draws[i].key; w.purses[k] == nil && w.recent.movedAt(k) > c.height {
			return stale, Verdict{}
		}
	}
	ready := true
	for i, k := range c.keys {
		taken, name := ledger.NonceUsed, "nonce"
		if k.sequence != 0 {
			taken, name = ledger.SequenceUsed, "sequence"
		}
		a := w.accounts[k.account]
		if w.recent.uses(k) || a != nil && k.sequence != 0 && k.sequence < a.next {
			return unwanted, refused(taken, "a transaction of %s with the same %s was committed in the meantime", k.account, name)
		}
		if other := w.byKey[k]; other != nil {
			return unwanted, refused(taken, "transaction %s of %s with the same %s waits already", other.id, k.account, name)
		}
		if k.sequence != 0 {
			first := w.next(k.account, c.used[i])
			if a != nil {
				first = a.chain
			}
			ready = ready && k.sequence == first
		}
	}
	if !ready && c.drawsOnOthers() {
		return unwanted, turnedAway(OutOfTurn, "it draws on an account that has not signed it, under a grant, and its sequence is ahead of what is committed or waits; send it again behind those before it")
	}
	if !w.fits(int64(len(c.arrival.raw)), ready) {
		return unwanted, turnedAway(Full, "the pool of waiting transactions is full; try again later")
	}
	if _, v := w.room(c); v.Code != ledger.OK {
		return unwanted, v
	}
	return welcome, Verdict{}
}

// behind returns the account's parked transactions behind a sequence, the last one first. They go for one with that
// sequence when the account's share is used up, as it is what they wait for.
func (a *account) behind(sequence uint64) (parked []*entry) {
	if sequence == 0 {
		return nil
	}
	for s, e := range a.sequenced {
		if s > sequence && !e.ready {
			parked = append(parked, e)
		}
	}
	slices.SortFunc(parked, func(e, f *entry) int { return cmp.Compare(f.sequenceOf(a), e.sequenceOf(a)) })
	return parked
}

func (e *entry) sequenceOf(a *account) uint64 { return e.keys[slices.Index(e.accounts, a)].sequence }

// enter enters a candidate whose signatures are good, if it is welcome.
func (w *waiting) enter(c *candidate, now time.Time) (standing, Verdict) {
	s, v := w.consider(c)
	if s != welcome {
		return s, v
	}
	evicted, _ := w.room(c)
	for _, e := range evicted {
		w.evict(e)
	}
	if len(evicted) > 0 { // it may have followed, by another signer's sequence, what was cut off by that
		if s, v := w.consider(c); s != welcome {
			return s, v
		}
	}
	for !w.fits(int64(len(c.arrival.raw)), false) {
		w.evict(w.parked.Front().Value.(*entry))
	}
	w.insert(c, now)
	return welcome, Verdict{}
}

// next returns an account's first unused sequence, of which a state said what the last used one is.
func (w *waiting) next(address crypto.Address, used uint64) uint64 {
	if a := w.accounts[address]; a != nil {
		return a.next
	}
	return max(used, w.recent.sequences[address].sequence) + 1
}

func (w *waiting) evict(e *entry) {
	w.remove(e)
	w.evicted++
}

func (w *waiting) insert(c *candidate, now time.Time) {
	tx, keys := c.arrival.tx, c.keys
	w.arrivals++
	e := &entry{tx: tx, hash: tx.Hash(), id: c.id, keys: keys, depends: c.depends, ends: tx.Supersedes(), number: w.arrivals, arrived: now, own: c.arrival.own, inDying: -1, dies: tx.Body.ValidUntil}
	w.byHash[e.hash], w.byID[e.id] = e, e
	w.bytes += e.size()
	for i, k := range keys {
		a := w.accounts[k.account]
		if a == nil {
			next := w.next(k.account, c.used[i])
			a = &account{address: k.account, next: next, chain: next, sequenced: map[uint64]*entry{}, nonces: list.New()}
			w.accounts[k.account] = a
		}
		e.accounts = append(e.accounts, a)
		a.count++
		a.bytes += e.size()
		w.byKey[k] = e
		if k.sequence != 0 {
			e.ordered = true
			a.sequenced[k.sequence] = e
		}
	}
	w.claimFor(e, c)
	e.inAges = w.ages.PushBack(e)
	if e.dies != 0 {
		heap.Push(&w.dying, e)
	}
	if e.own {
		e.inOffers = w.fresh.PushBack(e)
	} else {
		e.due = now.Add(w.cfg.OfferAgainAfter)
		e.inOffers = w.later.PushBack(e)
	}
	if !e.ordered {
		e.ready = true
		w.ready++
		e.inNonces = e.accounts[0].nonces.PushBack(e)
		w.settle(e.accounts[0])
		return
	}
	e.inParked = w.parked.PushBack(e)
	w.parkedBytes += e.size()
	w.promote(e.accounts...)
}

// settle gives an account its turn iff it has something ready.
func (w *waiting) settle(a *account) {
	switch has := a.nonces.Len() > 0 || a.chain > a.next; {
	case has && a.inTurns == nil:
		a.inTurns = w.turns.PushBack(a)
	case !has && a.inTurns != nil:
		w.turns.Remove(a.inTurns)
		a.inTurns = nil
	}
}

// promote makes ready what has become so from the accounts' chains on.
func (w *waiting) promote(accounts ...*account) {
	work := slices.Clone(accounts)
	for len(work) > 0 {
		a := work[len(work)-1]
		work = work[:len(work)-1]
		e := a.sequenced[a.chain]
		if e == nil || !e.open() {
			continue
		}
		e.ready = true
		w.ready++
		w.parked.Remove(e.inParked)
		e.inParked = nil
		w.parkedBytes -= e.size()
		for i, b := range e.accounts {
			if e.keys[i].sequence != 0 {
				b.chain++
				w.settle(b)
				work = append(work, b)
			}
		}
	}
}

// open tells whether each of a parked transaction's sequences is the one that its account's chain waits for.
func (e *entry) open() bool {
	for i, a := range e.accounts {
		if k := e.keys[i]; k.sequence != 0 && k.sequence != a.chain {
			return false
		}
	}
	return true
}

// cut parks what was ready in an account from a sequence on, and whatever followed it in other accounts. What claims the
// money of an account that has not signed it may not be parked: remove takes it out.
func (w *waiting) cut(a *account, from uint64) {
	end := a.chain
	a.chain = from
	w.settle(a)
	for s := from; s < end; s++ {
		e := a.sequenced[s]
		if e == nil || !e.ready {
			continue
		}
		e.ready = false
		w.ready--
		e.inParked = w.parked.PushBack(e)
		w.parkedBytes += e.size()
		if e.drawsOnOthers() {
			w.stranded = append(w.stranded, e)
		}
		for i, b := range e.accounts {
			if t := e.keys[i].sequence; t != 0 && t < b.chain {
				w.cut(b, t)
			}
		}
	}
}

// advance moves an account on to a sequence that a block has left it at. The caller removes the entries below it and
// promotes the account.
func (w *waiting) advance(a *account, next uint64) {
	if next <= a.next {
		return
	}
	a.next, a.chain = next, max(a.chain, next)
	w.settle(a)
}

// remove takes an entry out. Those that were ready because of it are parked, or go too when they may not be parked.
func (w *waiting) remove(e *entry) {
	w.takeOut(e)
	for len(w.stranded) > 0 {
		last := len(w.stranded) - 1
		f := w.stranded[last]
		w.stranded[last] = nil
		w.stranded = w.stranded[:last]
		if f.gone {
			continue
		}
		w.takeOut(f)
		if w.committing {
			w.lost = append(w.lost, f)
		}
	}
}

func (w *waiting) takeOut(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	delete(w.byHash, e.hash)
	delete(w.byID, e.id)
	w.bytes -= e.size()
	if e.ready {
		w.ready--
	} else {
		w.parked.Remove(e.inParked)
		w.parkedBytes -= e.size()
	}
	w.ages.Remove(e.inAges)
	if e.offered.IsZero() && e.own {
		w.fresh.Remove(e.inOffers)
	} else {
		w.later.Remove(e.inOffers)
	}
	if e.inDying >= 0 {
		heap.Remove(&w.dying, e.inDying)
	}
	w.release(e)
	if e.inNonces != nil {
		e.accounts[0].nonces.Remove(e.inNonces)
		w.settle(e.accounts[0])
	}
	for i, a := range e.accounts {
		k := e.keys[i]
		delete(w.byKey, k)
		a.count--
		a.bytes -= e.size()
		if k.sequence != 0 {
			delete(a.sequenced, k.sequence)
			if k.sequence >= a.next && k.sequence < a.chain {
				w.cut(a, k.sequence)
			}
		}
	}
	for _, a := range e.accounts {
		if a.count == 0 {
			if a.inTurns != nil {
				w.turns.Remove(a.inTurns)
				a.inTurns = nil
			}
			delete(w.accounts, a.address)
		}
	}
}

// committed removes what a block has used up and what has died with it or can no longer be paid for, and promotes what
// follows. It returns the transactions that must pass through admission again, in order of arrival, how many have expired,
// and how many could not be paid for.
func (w *waiting) committed(h ledger.Header, txs []*ledger.Tx, writes []ledger.Write, now time.Time) (again []*entry, expired, dropped uint64) {
	w.header = h
	w.recent.begin(h.Height)
	w.committing = true
	defer func() { w.committing, w.lost = false, nil }()
	var doomed []*entry
	touched := map[crypto.Address]*account{}
	rotated := map[crypto.Address]bool{}
	for _, tx := range txs {
		for _, s := range tx.Body.Signers {
			k := keyOf(&tx.Body, s)
			w.recent.use(k)
			a := w.accounts[s.Address]
			if a == nil {
				continue
			}
			touched[s.Address] = a
			if k.sequence == 0 {
				if e := w.byKey[k]; e != nil {
					doomed = append(doomed, e)
				}
				continue
			}
			if k.sequence < a.next+uint64(len(a.sequenced)) { // the usual case; else it is cheaper to look at all there are
				for q := a.next; q <= k.sequence; q++ {
					if e := a.sequenced[q]; e != nil {
						doomed = append(doomed, e)
					}
				}
			} else {
				for q, e := range a.sequenced { // in any order: removing is what happens to all of them
					if q <= k.sequence {
						doomed = append(doomed, e)
					}
				}
			}
			w.advance(a, k.sequence+1)
		}
		for _, a := range tx.Supersedes() {
			w.recent.rotate(a)
			rotated[a] = true
		}
	}
	// Every account has moved on before the first entry goes, so that what follows in an account is not parked in between.
	for _, e := range doomed {
		w.remove(e)
	}
	if len(rotated) > 0 { // looks at the whole pool: about a millisecond, paid for by the fee of a policy change
		for _, e := range w.byID {
			if slices.ContainsFunc(e.depends, func(a crypto.Address) bool { return rotated[a] }) {
				again = append(again, e)
			}
		}
	}
	others, dropped := w.reassess(h, writes)
	again = append(again, others...)
	slices.SortFunc(again, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
	again = slices.Compact(again)
	for _, e := range again {
		w.remove(e)
	}
	for len(w.dying) > 0 && w.dying[0].dies*1000 <= h.UnixMillis {
		w.remove(w.dying[0])
		expired++
	}
	expired += w.forgetOld(now)
	if len(w.lost) > 0 { // what they followed may come back before them
		again = append(again, w.lost...)
		slices.SortFunc(again, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
		again = slices.Compact(again)
	}
	for _, tx := range txs { // in the block's order
		for _, s := range tx.Body.Signers {
			a := touched[s.Address]
			if a == nil || a.count == 0 {
				continue
			}
			delete(touched, s.Address)
			w.promote(a)
			if a.inTurns != nil {
				w.turns.MoveToBack(a.inTurns)
			}
		}
	}
	return again, expired, dropped
}

// forgetOld removes what has waited for MaxAge.
func (w *waiting) forgetOld(now time.Time) (expired uint64) {
	for f := w.ages.Front(); f != nil && now.Sub(f.Value.(*entry).arrived) >= w.cfg.MaxAge; f = w.ages.Front() {
		w.remove(f.Value.(*entry))
		expired++
	}
	return expired
}

// offer returns what is due to be sent to the peers, of at most maxBytes.
func (w *waiting) offer(now time.Time, maxBytes int64) (txs [][]byte) {
	room := maxBytes
	take := func(e *entry, from *list.List) bool {
		size := protoSize(len(e.tx.Bytes()))
		if size > room && size <= maxBytes {
			return false // goes into the next message
		}
		if size <= maxBytes { // one that is larger than a message can never be sent, and nothing waits behind it
			room -= size
			txs = append(txs, e.tx.Bytes())
		}
		from.Remove(e.inOffers)
		e.offered, e.due = now, now.Add(w.cfg.OfferAgainAfter)
		e.inOffers = w.later.PushBack(e)
		return true
	}
	for f := w.fresh.Front(); f != nil && take(f.Value.(*entry), w.fresh); f = w.fresh.Front() {
	}
	for f := w.later.Front(); f != nil && !now.Before(f.Value.(*entry).due) && take(f.Value.(*entry), w.later); f = w.later.Front() {
	}
	return txs
}

// protoSize is what a transaction of n bytes takes in a block: see types.ComputeProtoSizeForTxs of CometBFT. A tag of one
// byte, the length as a varint, the bytes.
func protoSize(n int) int64 {
	size := int64(n) + 2
	for v := n; v >= 0x80; v >>= 7 {
		size++
	}
	return size
}

// maxMisfits is how many transactions a proposal may find too large for the room that is left before it is called full.
const maxMisfits = 32

// propose chooses ready transactions, of at most maxBytes. It changes nothing but the accounts' places in this round.
func (w *waiting) propose(maxBytes int64) (txs [][]byte) {
	w.round++
	queue := make([]*account, 0, w.turns.Len())
	begin := func(a *account) {
		if a.round != w.round {
			a.round, a.cursor, a.nonce, a.queued = w.round, a.next, a.nonces.Front(), false
		}
	}
	push := func(a *account) {
		begin(a)
		if !a.queued {
			a.queued = true
			queue = append(queue, a)
		}
	}
	for f := w.turns.Front(); f != nil; f = f.Next() {
		push(f.Value.(*account))
	}
	ended := map[crypto.Address]bool{} // what counts on them would be refused behind what is proposed already
	proposable := func(e *entry) bool {
		if len(ended) > 0 && slices.ContainsFunc(e.depends, func(a crypto.Address) bool { return ended[a] }) {
			return false
		}
		for i, a := range e.accounts {
			begin(a)
			if s := e.keys[i].sequence; s != 0 && s != a.cursor {
				return false
			}
		}
		return true
	}
	misfits := 0
	for ; len(queue) > 0; queue = queue[1:] {
		a := queue[0]
		a.queued = false
		// Of the account's next sequence and its next nonce the one that came first.
		e := a.sequenced[a.cursor]
		if e != nil && (!e.ready || !proposable(e)) {
			e = nil // it waits for another signer, who will give this account a turn again
		}
		if a.nonce != nil {
			if n := a.nonce.Value.(*entry); proposable(n) && (e == nil || n.number < e.number) {
				e = n
			}
		}
		if e == nil {
			continue
		}
		size := protoSize(len(e.tx.Bytes()))
		if size > maxBytes {
			if misfits++; misfits == maxMisfits {
				break
			}
			continue // nor may anything of this account that is behind it overtake it
		}
		maxBytes -= size
		txs = append(txs, e.tx.Bytes())
		if e.inNonces != nil {
			a.nonce = a.nonce.Next()
		}
		for i, b := range e.accounts {
			if e.keys[i].sequence != 0 {
				b.cursor++
			}
		}
		for _, a := range e.ends {
			ended[a] = true
		}
		push(a)
		for _, b := range e.accounts {
			push(b)
		}
	}
	return txs
}

// deadlines is a heap of entries, the one that dies first, by its valid_until or by that of the grant that pays for it.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].dies < d[j].dies }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].inDying, d[j].inDying = i, j
}

// Push implements [heap.Interface].
func (d *deadlines) Push(e any) {
	e.(*entry).inDying = len(*d)
	*d = append(*d, e.(*entry))
}

// Pop implements [heap.Interface].
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	e.inDying = -1
	return e
}

// recentHeights is for how many blocks it is remembered what they used up. A transaction that was judged by an older state
// is judged again. Judging a batch takes some 10 ms, less than one block; at 8 blocks of 4 MB of the smallest
// transactions (22,000) it is 8 * 22,000 * 200 B = 35 MB, and usually a hundredth of it.
const recentHeights = 8

// recent remembers what the last blocks have used up, for transactions that were judged before.
type recent struct {
	sequences map[crypto.Address]mark
	nonces    map[replayKey]uint64      // height
	rotated   map[crypto.Address]uint64 // height of the last change of policy
	moved     map[crypto.Address]uint64 // height of the last change of what it can spend
	used      map[ledger.GrantKey]uint64
	blocks    []usedUp // oldest first
}

// mark is the last sequence that an account has used, and the height.
type mark struct{ sequence, height uint64 }

type usedUp struct {
	height  uint64
	keys    []replayKey
	rotated []crypto.Address
	moved   []crypto.Address
	used    []ledger.GrantKey
}

func newRecent() recent {
	return recent{sequences: map[crypto.Address]mark{}, nonces: map[replayKey]uint64{}, rotated: map[crypto.Address]uint64{},
		moved: map[crypto.Address]uint64{}, used: map[ledger.GrantKey]uint64{}}
}

// begin begins a block and forgets those that are too old.
func (r *recent) begin(height uint64) {
	for len(r.blocks) > 0 && r.blocks[0].height+recentHeights <= height {
		b := &r.blocks[0]
		for _, k := range b.keys {
			if k.sequence != 0 && r.sequences[k.account].height == b.height {
				delete(r.sequences, k.account)
			}
			if k.sequence == 0 && r.nonces[k] == b.height {
				delete(r.nonces, k)
			}
		}
		forget(r.rotated, b.rotated, b.height)
		forget(r.moved, b.moved, b.height)
		forget(r.used, b.used, b.height)
		r.blocks = append(r.blocks[:0], r.blocks[1:]...)
	}
	r.blocks = append(r.blocks, usedUp{height: height})
}

func (r *recent) use(k replayKey) {
	b := &r.blocks[len(r.blocks)-1]
	b.keys = append(b.keys, k)
	if k.sequence == 0 {
		r.nonces[k] = b.height
	} else {
		r.sequences[k.account] = mark{max(k.sequence, r.sequences[k.account].sequence), b.height}
	}
}

func (r *recent) rotate(a crypto.Address) {
	b := &r.blocks[len(r.blocks)-1]
	b.rotated = append(b.rotated, a)
	r.rotated[a] = b.height
}

// forget removes the keys whose last height this is.
func forget[K comparable](last map[K]uint64, keys []K, height uint64) {
	for _, k := range keys {
		if last[k] == height {
			delete(last, k)
		}
	}
}

// move remembers that the funds of a purse have changed.
func (r *recent) move(k purseKey) {
	b := &r.blocks[len(r.blocks)-1]
	if r.movedAt(k) == b.height {
		return
	}
	if k.isGrant() {
		b.used = append(b.used, k.grant)
		r.used[k.grant] = b.height
	} else {
		b.moved = append(b.moved, k.account)
		r.moved[k.account] = b.height
	}
}

// movedAt returns the height of the last change of a purse's funds, 0 when none of the last blocks has changed them.
func (r *recent) movedAt(k purseKey) uint64 {
	if k.isGrant() {
		return r.used[k.grant]
	}
	return r.moved[k.account]
}

// uses tells whether one of the last blocks has used a replay key up.
func (r *recent) uses(k replayKey) bool {
	if k.sequence != 0 {
		return k.sequence <= r.sequences[k.account].sequence
	}
	_, used := r.nonces[k]
	return used
}
