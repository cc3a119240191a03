package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Audit checks a whole state, row by row: that every row decodes, that no line breaks its rule, that for every asset
// debits equal credits, that policies and nonces are what their hashes say. It is what `pacioli fsck` runs.
//
// Rows are given in ascending order of their keys. Memory grows by the number of assets, accounts and buckets, and for the
// while between their two rows by 100 bytes per open nonce.
type Audit struct {
	Rows     uint64
	Accounts uint64
	Lines    uint64
	Findings []string

	sums     sums
	assets   map[AssetID]Asset
	pending  []auditLine
	policies map[crypto.Hash]bool
	wanted   []crypto.Hash
	buckets  map[uint64]bucket
	folded   map[uint64]bucket
	codes    map[AssetID]string
	nonces   uint64
	// unmatched are the nonces whose numbered row has not come yet. Nodes decide by the rows of nonces and commit to the
	// numbered ones, so the two must say the same to the last bit: a snapshot that slipped in another nonce would split
	// the node that restored it from all others.
	unmatched map[nonceKey]uint32
	totals    replayTotals
	network   bool

	accountLines []accountLines // in ascending order
	holdings     map[crypto.Address]Holdings
	pendingLines map[LineKey]*pendingLine
	due          map[dueSlot]crypto.Hash // of open holds whose slot has not come yet
	dueCounts    map[uint64]uint32
	dueTotals    dueTotals
	holds        uint64
	deposits     wide
	params       Parameters
	pools        []auditLine // lines of the pool of deposits
	rate         FeeRate
	closed       map[crypto.Address]bool   // accounts that were closed
	closedLines  map[crypto.Address]uint64 // of accounts that have closed some
	grantsOf     map[crypto.Address]uint64
	bonds        []AssetID // of the bonds
	validators   []Validator
	missed       []ConsensusAddress
	proposals    map[crypto.Hash]Proposal
	listed       []ListedProposal
	assetsOf     map[crypto.Address]uint64
}

type accountLines struct {
	account crypto.Address
	lines   uint64
}

// pendingLine is what the holds of a line have still to explain of its pending counters.
type pendingLine struct{ debits, credits Amount }

type auditLine struct {
	key  LineKey
	line Line
}

// maxFindings bounds a report: whoever sees a hundred findings needs a resync, not the rest of them.
const maxFindings = 100

// NewAudit begins an audit.
func NewAudit() *Audit {
	return &Audit{assets: map[AssetID]Asset{}, policies: map[crypto.Hash]bool{}, buckets: map[uint64]bucket{}, folded: map[uint64]bucket{},
		codes: map[AssetID]string{}, unmatched: map[nonceKey]uint32{}, holdings: map[crypto.Address]Holdings{},
		pendingLines: map[LineKey]*pendingLine{}, due: map[dueSlot]crypto.Hash{}, dueCounts: map[uint64]uint32{},
		closed: map[crypto.Address]bool{}, closedLines: map[crypto.Address]uint64{}, grantsOf: map[crypto.Address]uint64{}, assetsOf: map[crypto.Address]uint64{}, proposals: map[crypto.Hash]Proposal{}}
}

func (a *Audit) find(format string, args ...any) {
	if len(a.Findings) < maxFindings {
		a.Findings = append(a.Findings, fmt.Sprintf(format, args...))
	}
}

// Row takes the next row.
func (a *Audit) Row(key, value []byte) {
	a.Rows++
	if len(key) == 0 || len(key) != keyLengths[key[0]] {
		a.find("row %x has a key of %d bytes, which no kind of row has", key, len(key))
		return
	}
	var err error
	switch kind := key[0]; kind {
	case rowAccount:
		var account Account
		if account, err = DecodeAccount(value); err == nil {
			a.Accounts++
			a.wanted = append(a.wanted, account.Policy)
			a.deposits = a.deposits.plus(account.Deposit)
			address := crypto.Address(key[1:])
			if account.Flags&AccountClosedFlag != 0 {
				a.closed[address] = true
			}
			if account.ClosedLines != 0 {
				a.closedLines[address] = account.ClosedLines
			}
			if (account.ClosedLines == 0) != (account.ClosedHead == crypto.Hash{}) {
				a.find("account %s has closed %d lines, and the head %s over them", address, account.ClosedLines, account.ClosedHead)
			}
		}
	case rowLine:
		var l auditLine
		if l.line, err = DecodeLine(value); err == nil {
			a.Lines++
			copy(l.key.Account[:], key[1:])
			copy(l.key.Asset[:], key[33:])
			a.sums.change(l.key.Asset, Line{}, l.line)
			// The rule of a line depends on its asset's row, which comes later: only lines that an ordinary account
			// could not have wait for it.
			if !lineHolds(Asset{}, l.key, l.line) {
				a.pending = append(a.pending, l)
			}
			if n := len(a.accountLines); n == 0 || a.accountLines[n-1].account != l.key.Account {
				a.accountLines = append(a.accountLines, accountLines{account: l.key.Account})
			}
			a.accountLines[len(a.accountLines)-1].lines++
			a.deposits = a.deposits.plus(l.line.Deposit)
			if closed := a.closedLines[l.key.Account]; l.line.Incarnation > closed {
				a.find("line %s/%x is incarnation %d, its account has closed %d lines", l.key.Account, l.key.Asset, l.line.Incarnation, closed)
			}
			if !l.line.DebitsPending.IsZero() || !l.line.CreditsPending.IsZero() {
				a.pendingLines[l.key] = &pendingLine{l.line.DebitsPending, l.line.CreditsPending}
			}
			if l.key.Account == DepositPool() {
				a.pools = append(a.pools, l)
			}
		}
	case rowAsset:
		var asset Asset
		if asset, err = DecodeAsset(value); err == nil {
			id := AssetID(key[1:])
			if NewAssetID(asset.Issuer, asset.Code) != id {
				a.find("asset %s has the id %x, which is not that of its issuer and code", asset.Code, id)
			}
			a.assets[id] = asset
			a.sums.changeAsset(id, Asset{}, asset)
			a.assetsOf[asset.Issuer]++
		}
	case rowCode:
		var id AssetID
		if id, err = DecodeAssetID(value); err == nil {
			if _, twice := a.codes[id]; twice {
				a.find("asset %x has two codes", id)
			}
			a.codes[id] = strings.TrimRight(string(key[1:]), "\x00")
		}
	case rowHoldings:
		var h Holdings
		if h, err = DecodeHoldings(value); err == nil {
			if h.none() {
				a.find("row %x of holdings says that there are none", key)
			}
			a.holdings[crypto.Address(key[1:])] = h
		}
	case rowHold:
		var h Hold
		if h, err = DecodeHold(value); err == nil {
			a.hold(crypto.Hash(key[1:]), h)
		}
	case rowGrant:
		var g Grant
		if g, err = DecodeGrant(value); err == nil {
			a.grantsOf[crypto.Address(key[1:33])]++
			a.deposits = a.deposits.plus(g.Deposit)
		}
	case rowFeeRate:
		var f FeeRate
		if f, err = DecodeFeeRate(value); err == nil {
			a.rate = f
		}
	case rowDueCount:
		var n uint32
		if n, err = decodeNumber(value); err == nil {
			a.dueCounts[unixSecond(key)] = n
		}
	case rowDueSlot:
		var id crypto.Hash
		if id, err = decodeHash(value); err == nil {
			slot := dueSlot{unixSecond(key), uint32(key[9])<<24 | uint32(key[10])<<16 | uint32(key[11])<<8 | uint32(key[12])}
			if a.due[slot] != id || slot.slot >= a.dueCounts[slot.second] {
				a.find("row %x of the queue of holds does not fit the hold %s or the number of its second", key, id)
			}
			delete(a.due, slot)
		}
	case rowDue:
		a.dueTotals, err = decodeDueTotals(value)
	case rowParameters:
		if a.params, err = DecodeParameters(value); err == nil {
			err = a.params.Check()
		}
	case rowNetwork:
		_, err = DecodeNetwork(value)
		a.network = true
	case rowBucket:
		var b bucket
		if b, err = decodeBucket(value); err == nil {
			a.buckets[unixSecond(key)] = b
		}
	case rowReplay:
		a.totals, err = decodeReplayTotals(value)
	case rowValidators:
		if a.validators, err = DecodeValidators(value); err == nil {
			a.checkSet()
		}
	case rowMissed:
		var m Missed
		if m, err = DecodeMissed(value); err == nil {
			a.missed = append(a.missed, ConsensusAddress(key[1:]))
			if m.Count == 0 {
				a.find("row %x of missed blocks says that there are none", key)
			}
		}
	case rowProposal:
		var p Proposal
		if p, err = DecodeProposal(value); err == nil {
			a.proposals[crypto.Hash(key[1:])] = p
		}
	case rowProposals:
		if a.listed, err = DecodeProposals(value); err == nil && len(a.listed) == 0 {
			a.find("row %x of the open proposals says that there are none", key)
		}
	case rowPolicy:
		var policy crypto.Policy
		if policy, err = DecodePolicyRow(value); err == nil {
			if hash := policy.Hash(); crypto.Hash(key[1:]) != hash {
				a.find("policy row %x holds the policy %s", key, hash)
			} else {
				a.policies[hash] = true
			}
		}
	case rowNonce:
		var number uint32
		if number, err = decodeNumber(value); err == nil {
			a.nonces++
			k := nonceKey{validUntil: unixSecond(key)}
			copy(k.account[:], key[9:])
			copy(k.nonce[:], key[41:])
			a.unmatched[k] = number
		}
	case rowNonceNumber:
		var k nonceKey
		if k, err = decodeNumbered(value); err == nil {
			second := unixSecond(key)
			next := a.folded[second].Count
			if number, ok := a.unmatched[k]; !ok || number != next || k.validUntil != second || !bytes.Equal(key, nonceNumberRow(second, next)) {
				a.find("row %x of a numbered nonce does not fit the nonce's own row, or the number before", key)
			}
			delete(a.unmatched, k)
			a.folded[second] = a.folded[second].add(k.account, k.nonce)
		}
	default:
		a.find("row %x has an unknown kind", key)
	}
	if err != nil {
		a.find("row %x: %s", key, err)
	}
}

// keyLengths are the lengths of the keys of each kind of row; 0: there is no such kind.
var keyLengths = [256]int{
	rowAccount: 33, rowLine: 49, rowAsset: 17, rowCode: 1 + MaxCodeBytes, rowParameters: 1, rowNetwork: 1, rowBucket: 9,
	rowReplay: 1, rowValidators: 1, rowMissed: 21, rowProposal: 33, rowProposals: 1, rowPolicy: 33, rowNonce: 57, rowNonceNumber: 13,
	rowHoldings: 33, rowHold: 33, rowGrant: 82, rowFeeRate: 1, rowDueCount: 9, rowDueSlot: 13, rowDue: 1,
}

// hold takes an open hold.
func (a *Audit) hold(id crypto.Hash, h Hold) {
	a.deposits = a.deposits.plus(h.Deposit)
	a.sums.changeHold(Hold{}, h)
	if h.Bond {
		if id != BondID(h.From) || h != (Hold{From: h.From, To: h.To, Asset: h.Asset, Amount: h.Amount, Bond: true}) {
			a.find("bond %s of %s is not what a bond is: %+v", id, h.From, h)
		}
		a.bonds = append(a.bonds, h.Asset)
	} else {
		a.holds++
		slot := dueSlot{h.Expires, h.Slot}
		if other, twice := a.due[slot]; twice {
			a.find("holds %s and %s have one place in the queue", other, id)
		}
		a.due[slot] = id
	}
	explain := func(k LineKey, of func(*pendingLine) *Amount) {
		if p := a.pendingLines[k]; p != nil {
			if left, ok := of(p).Sub(h.Amount); ok {
				*of(p) = left
				return
			}
		}
		a.find("hold %s of %s is not in the pending counters of line %s/%x", id, h.Amount, k.Account, k.Asset)
	}
	explain(LineKey{h.From, h.Asset}, func(p *pendingLine) *Amount { return &p.debits })
	explain(LineKey{h.To, h.Asset}, func(p *pendingLine) *Amount { return &p.credits })
}

func compareLines(a, b LineKey) int {
	if c := bytes.Compare(a.Account[:], b.Account[:]); c != 0 {
		return c
	}
	return compareAssetIDs(a.Asset, b.Asset)
}

// closeHoldings checks what accounts are said to have against what there is.
func (a *Audit) closeHoldings() {
	count := map[crypto.Address]Holdings{}
	for _, l := range a.accountLines {
		h := count[l.account]
		h.Lines += l.lines
		count[l.account] = h
	}
	for _, address := range slices.SortedFunc(maps.Keys(a.grantsOf), compareAddresses) {
		h := count[address]
		h.Grants = a.grantsOf[address]
		count[address] = h
	}
	for _, address := range slices.SortedFunc(maps.Keys(a.assetsOf), compareAddresses) {
		h := count[address]
		h.Assets = a.assetsOf[address]
		count[address] = h
	}
	for _, address := range slices.SortedFunc(maps.Keys(count), compareAddresses) {
		if a.closed[address] {
			a.find("account %s is closed, and has %+v", address, count[address])
		}
		if count[address] != a.holdings[address] {
			a.find("account %s has %+v, its row of holdings says %+v", address, count[address], a.holdings[address])
		}
		delete(a.holdings, address)
	}
	for _, address := range slices.SortedFunc(maps.Keys(a.holdings), compareAddresses) {
		a.find("account %s has nothing, its row of holdings says %+v", address, a.holdings[address])
	}
}

func compareAddresses(a, b crypto.Address) int { return bytes.Compare(a[:], b[:]) }

// closeHolds checks what is pending and the queue of holds.
func (a *Audit) closeHolds() {
	for _, k := range slices.SortedFunc(maps.Keys(a.pendingLines), compareLines) {
		if p := a.pendingLines[k]; *p != (pendingLine{}) {
			a.find("line %s/%x has pending debits of %s and credits of %s that no hold explains", k.Account, k.Asset, p.debits, p.credits)
		}
	}
	var queued uint64
	for _, second := range sortedKeys(a.dueCounts) {
		queued += uint64(a.dueCounts[second])
		if second <= a.dueTotals.Through {
			a.find("holds expire in second %d, and all through second %d are gone", second, a.dueTotals.Through)
		}
	}
	if len(a.due) != 0 {
		a.find("%d holds have no place in the queue", len(a.due))
	}
	if a.holds != a.dueTotals.Open || a.holds != queued {
		a.find("%d holds, %d by the queue's total, %d by its seconds", a.holds, a.dueTotals.Open, queued)
	}
	pool := Line{}
	for _, l := range a.pools {
		if l.key.Asset == a.params.FeeAsset {
			pool = l.line
		}
	}
	if total(pool.CreditsPosted).minus(total(pool.DebitsPosted)).Cmp(a.deposits.minus(wide{})) < 0 {
		a.find("the pool holds less than the deposits of all rows, %s", a.deposits.minus(wide{}))
	}
	// A vote that lowers max_fee_multiplier does not lower the rate itself: the next block does, if fees adapt at all.
	if a.rate.Multiplier < minMultiplier || a.rate.Multiplier > MaxFeeMultiplier {
		a.find("the multiplier of fees is %d, want %d to %d", a.rate.Multiplier, minMultiplier, MaxFeeMultiplier)
	}
}

func compareAssetIDs(a, b AssetID) int { return bytes.Compare(a[:], b[:]) }

func unixSecond(key []byte) (s uint64) {
	for _, c := range key[1:9] {
		s = s<<8 | uint64(c)
	}
	return s
}

// checkSet checks the validator set by itself.
func (a *Audit) checkSet() {
	for i, v := range a.validators {
		at := v.Address()
		if i > 0 && compareValidators(a.validators[i-1], v) >= 0 {
			a.find("the validators do not ascend at %x", at)
		}
		switch {
		case v.Power > MaxValidatorPower || v.InactivePower > MaxValidatorPower:
			a.find("validator %x has the power %d and the inactive power %d, at most %d", at, v.Power, v.InactivePower, uint64(MaxValidatorPower))
		case v.Active() && (v.Inactive() || v.Left != 0):
			a.find("validator %x is active, and has left at %d with the inactive power %d", at, v.Left, v.InactivePower)
		case !v.Active() && v.Left == 0:
			a.find("validator %x is %s, and has never left", at, v.Status())
		case v.Present() && v.Tombstoned != 0:
			a.find("validator %x was removed for equivocation at height %d, and is present", at, v.Tombstoned)
		case v.Present() && v.Operator != (crypto.Address{}) && operated(a.validators, v.Operator) != i:
			a.find("validator %x and another one have the operator %s", at, v.Operator)
		}
	}
	if !slices.ContainsFunc(a.validators, Validator.Active) {
		a.find("no validator has power")
	}
}

// closeValidators checks what refers to the validator set, and the proposals.
func (a *Audit) closeValidators() {
	if a.validators == nil {
		a.find("the state does not say who its validators are")
	}
	for _, m := range a.missed {
		if i := named(a.validators, m); i < 0 || !a.validators[i].Active() {
			a.find("blocks are counted that %x has missed, which is no active validator", m)
		}
	}
	for _, asset := range a.bonds {
		if asset != a.params.FeeAsset {
			a.find("a bond is in the asset %x, fees are paid in %x", asset, a.params.FeeAsset)
		}
	}
	own := map[crypto.Address]int{}
	for i, l := range a.listed {
		if own[l.Proposer]++; own[l.Proposer] == MaxProposalsEach+1 {
			a.find("%s has more than %d open proposals", l.Proposer, MaxProposalsEach)
		}
		p, ok := a.proposals[l.ID]
		if !ok || p.Proposer != l.Proposer || p.Expires != l.Expires || len(p.Approvals) == 0 {
			a.find("proposal %s is number %d of the list, and its row does not fit it", l.ID, i)
		}
		delete(a.proposals, l.ID)
	}
	if len(a.proposals) != 0 {
		a.find("%d proposals are not in the list of them", len(a.proposals))
	}
}

// Close checks what needs all rows.
func (a *Audit) Close() {
	if !a.network {
		a.find("the state does not say which network it belongs to")
	}
	for _, l := range a.pending {
		asset, ok := a.assets[l.key.Asset]
		if !ok || !lineHolds(asset, l.key, l.line) {
			a.find("line %s/%x is overdrawn: %+v", l.key.Account, l.key.Asset, l.line)
		}
	}
	for _, s := range a.sums.assets {
		asset, ok := a.assets[s.id]
		if !ok {
			a.find("asset %x has lines and no row", s.id)
		}
		if s.debitsPosted != s.credited || s.debitsPending != s.creditsPending {
			a.find("asset %s does not balance: posted debits %s and credits %s, pending debits %s and credits %s",
				asset.Code, s.debitsPosted, s.credited, s.debitsPending, s.creditsPending)
		}
		if s.lineCredit != s.assetCredit {
			a.find("asset %s grants credit of %s, its lines have %s", asset.Code, s.assetCredit, s.lineCredit)
		}
	}
	a.closeHoldings()
	a.closeHolds()
	a.closeValidators()
	for _, id := range slices.SortedFunc(maps.Keys(a.assets), compareAssetIDs) {
		if code, ok := a.codes[id]; !ok || code != a.assets[id].Code {
			a.find("asset %x has the code %q, its row by code says %q", id, a.assets[id].Code, code)
		}
	}
	if len(a.codes) != len(a.assets) {
		a.find("%d assets, %d codes of assets", len(a.assets), len(a.codes))
	}
	for _, hash := range a.wanted {
		if !a.policies[hash] {
			a.find("policy %s of an account is missing", hash)
		}
	}
	for _, second := range sortedKeys(a.buckets) {
		if a.buckets[second] != a.folded[second] {
			a.find("the nonces of second %d do not have the digest of their bucket", second)
		}
		if second <= a.totals.PrunedThrough {
			a.find("the bucket of second %d is there, and all through second %d have been removed", second, a.totals.PrunedThrough)
		}
	}
	for _, second := range sortedKeys(a.folded) {
		if _, ok := a.buckets[second]; !ok {
			a.find("second %d has nonces and no bucket", second)
		}
	}
	var open uint64
	for _, second := range sortedKeys(a.buckets) {
		open += uint64(a.buckets[second].Count)
	}
	if len(a.unmatched) != 0 {
		a.find("%d nonces have no number", len(a.unmatched))
	}
	if open != a.totals.Open || open != a.nonces {
		a.find("%d nonces in buckets, %d by their total, %d rows", open, a.totals.Open, a.nonces)
	}
}
