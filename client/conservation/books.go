// Package conservation proves that no money came from nowhere and none went: for every asset, that what was issued less what was
// burned is what all lines hold, that what is held is what the open holds say, and that the pool holds every deposit.
//
// [Run] walks over every row of a state that validators have signed ([client.Client.Walk]), so one node is enough, and it need
// not be trusted: it can refuse to answer, and nothing else. [Books] is the arithmetic alone, for rows from anywhere. It
// trusts neither the rules that made the state nor their invariants: it adds up again, in whole numbers without a limit.
//
// `pacioli fsck` checks more (policies, nonces, the disk), and only for whoever runs the node.
package conservation

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// maxFindings bounds the findings of one asset, and those beside assets: whoever sees a hundred looks elsewhere for the rest.
const maxFindings = 100

// Finding is something that is not as it must be.
type Finding struct {
	Name    string `json:"name"` // stable, for programs
	Message string `json:"message"`
}

// The names of findings. They are stable; new ones may be added.
const (
	Unbalanced    = "unbalanced"     // the lines hold more or less than was issued and not burned
	OverSupply    = "over_supply"    // the supply is negative or above the maximum
	Overdrawn     = "overdrawn"      // a line has paid or promised more than it got and was granted
	HoldsDiffer   = "holds_differ"   // the pending counters are not those of the open holds
	CreditDiffers = "credit_differs" // the credit that the issuer has granted is not that of the lines
	PoolShort     = "pool_short"     // the pool holds less than the deposits that rows remember
	AssetUnknown  = "asset_unknown"  // there are lines of an asset that has no row
	AssetMisnamed = "asset_misnamed" // an asset's id or code is not that of its row
)

// Asset is what the rows say about one asset.
type Asset struct {
	ID     ledger.AssetID
	Known  bool         // it has a row
	Row    ledger.Asset // zero unless Known
	Issued *big.Int     // debits posted of the issuance line, in base units as all that follow
	Burned *big.Int     // credits posted of the issuance line
	Supply *big.Int     // Issued - Burned
	Sum    *big.Int     // balances of all lines but the issuance line
	Held   *big.Int     // pending debits of all lines
	Holds  *big.Int     // amounts of all open holds
	Credit *big.Int     // how far lines may be overdrawn in all

	// Of the asset that fees are paid in, else nil.
	Deposits *big.Int // that rows remember, of all assets
	Pool     *big.Int // balance of the line of the pool, which may have more: deposits whose payer could not be paid back

	Lines     uint64 // all but the issuance line
	Holders   uint64 // those whose balance is not zero
	OpenHolds uint64
	Findings  []Finding
	Omitted   uint64 // findings beyond the first hundred
}

// OK says that nothing is wrong with the asset.
func (a *Asset) OK() bool { return len(a.Findings) == 0 }

func (a *Asset) find(name, format string, args ...any) {
	if len(a.Findings) == maxFindings {
		a.Omitted++
		return
	}
	a.Findings = append(a.Findings, Finding{name, fmt.Sprintf(format, args...)})
}

// Books adds up the rows of one state. Memory grows with the number of assets, of lines that have paid more than they got,
// and of lines and holds with something pending; not with the number of rows.
type Books struct {
	only     *ledger.AssetID // nil: all assets
	assets   map[ledger.AssetID]*tally
	codes    map[ledger.AssetID]string // from the rows by code
	overpaid map[ledger.LineKey]ledger.Line
	pending  map[ledger.LineKey]*pending

	feeAsset *ledger.AssetID // nil before the row of the parameters
	deposits big.Int
	pools    map[ledger.AssetID]ledger.Line // of the deposit pool
}

// tally is an asset while it is added up.
type tally struct {
	row                           ledger.Asset
	known                         bool
	lines, holders, openHolds     uint64
	debits, credits               big.Int // posted
	debitsPending, creditsPending big.Int
	holds, credit                 big.Int
}

// pending is what a line's counters say, less what the open holds say.
type pending struct{ debits, credits big.Int }

// NewBooks begins an audit of one asset, or of all with nil.
func NewBooks(only *ledger.AssetID) *Books {
	return &Books{only: only, assets: map[ledger.AssetID]*tally{}, codes: map[ledger.AssetID]string{},
		overpaid: map[ledger.LineKey]ledger.Line{}, pending: map[ledger.LineKey]*pending{}, pools: map[ledger.AssetID]ledger.Line{}}
}

func (b *Books) of(id ledger.AssetID) *tally {
	t := b.assets[id]
	if t == nil {
		t = new(tally)
		b.assets[id] = t
	}
	return t
}

func (b *Books) pendingOf(key ledger.LineKey) *pending {
	p := b.pending[key]
	if p == nil {
		p = new(pending)
		b.pending[key] = p
	}
	return p
}

func (b *Books) asked(id ledger.AssetID) bool { return b.only == nil || *b.only == id }

func number(a ledger.Amount) *big.Int { return new(big.Int).SetBytes(a.Bytes()) }

// A kind of row is the first byte of its key.
var (
	kindAccount    = ledger.AccountRow(crypto.Address{})[0]
	kindLine       = ledger.LineRow(ledger.LineKey{})[0]
	kindAsset      = ledger.AssetRow(ledger.AssetID{})[0]
	kindCode       = ledger.CodeRow("")[0]
	kindHoldings   = ledger.HoldingsRow(crypto.Address{})[0]
	kindHold       = ledger.HoldRow(crypto.Hash{})[0]
	kindGrant      = ledger.GrantRow(ledger.GrantKey{})[0]
	kindParameters = ledger.ParametersRow()[0]
	kindNetwork    = ledger.NetworkRow()[0]
	kindFeeRate    = ledger.FeeRateRow()[0]
	kindValidators = ledger.ValidatorsRow()[0]
	kindMissed     = ledger.MissedRow(ledger.ConsensusAddress{})[0]
	kindProposal   = ledger.ProposalRow(crypto.Hash{})[0]
	kindProposals  = ledger.ProposalsRow()[0]
)

// keyLengths has the kinds that this program knows. A row of another one may be money that it would leave out.
var keyLengths = map[byte]int{
	kindAccount: len(ledger.AccountRow(crypto.Address{})), kindLine: len(ledger.LineRow(ledger.LineKey{})),
	kindAsset: len(ledger.AssetRow(ledger.AssetID{})), kindCode: len(ledger.CodeRow("")),
	kindHoldings: len(ledger.HoldingsRow(crypto.Address{})), kindHold: len(ledger.HoldRow(crypto.Hash{})),
	kindGrant: len(ledger.GrantRow(ledger.GrantKey{})), kindParameters: 1, kindNetwork: 1, kindFeeRate: 1, kindValidators: 1,
	kindMissed: len(ledger.MissedRow(ledger.ConsensusAddress{})), kindProposal: len(ledger.ProposalRow(crypto.Hash{})), kindProposals: 1,
	0x50: 9, 0x51: 1, // open nonces
	0x70: 9, 0x71: 13, 0x72: 1, // the queue of holds, which says nothing that the holds do not
}

// Row takes a row, in any order, and keeps nothing of the two slices. An error means that this program does not know what the
// row is, so that nothing can be said about the state.
func (b *Books) Row(key, value []byte) error {
	if len(key) == 0 || keyLengths[key[0]] != len(key) {
		return fmt.Errorf("row %x is of a kind that this program does not know: is it too old?", key)
	}
	var err error
	switch key[0] {
	case kindAccount:
		var a ledger.Account
		a, err = ledger.DecodeAccount(value)
		b.deposit(a.Deposit)
	case kindLine:
		var k ledger.LineKey
		copy(k.Asset[:], key[1+copy(k.Account[:], key[1:]):])
		var l ledger.Line
		if l, err = ledger.DecodeLine(value); err == nil {
			b.line(k, l)
		}
	case kindAsset:
		id := ledger.AssetID(key[1:])
		if !b.asked(id) {
			return nil
		}
		t := b.of(id)
		t.row, err = ledger.DecodeAsset(value)
		t.row.MetadataHash = bytes.Clone(t.row.MetadataHash)
		t.known = true
	case kindCode:
		var id ledger.AssetID
		if id, err = ledger.DecodeAssetID(value); err == nil && b.asked(id) {
			code := strings.TrimRight(string(key[1:]), "\x00")
			if other, twice := b.codes[id]; twice {
				code = other + "+" + code
			}
			b.codes[id] = code
		}
	case kindHold:
		var h ledger.Hold
		if h, err = ledger.DecodeHold(value); err == nil {
			b.hold(h)
		}
	case kindGrant:
		var g ledger.Grant
		g, err = ledger.DecodeGrant(value)
		b.deposit(g.Deposit)
	case kindParameters:
		var p ledger.Parameters
		p, err = ledger.DecodeParameters(value)
		b.feeAsset = &p.FeeAsset
	}
	if err != nil {
		return fmt.Errorf("row %x does not decode, is this program too old? %w", key, err)
	}
	return nil
}

func (b *Books) deposit(a ledger.Amount) {
	if !a.IsZero() {
		b.deposits.Add(&b.deposits, number(a))
	}
}

func (b *Books) hold(h ledger.Hold) {
	b.deposit(h.Deposit)
	if !b.asked(h.Asset) {
		return
	}
	t, amount := b.of(h.Asset), number(h.Amount)
	t.openHolds++
	t.holds.Add(&t.holds, amount)
	from := ledger.LineKey{Account: h.From, Asset: h.Asset}
	p := b.pendingOf(from)
	p.debits.Sub(&p.debits, amount)
	b.settle(from, p)
	to := ledger.LineKey{Account: h.To, Asset: h.Asset}
	p = b.pendingOf(to)
	p.credits.Sub(&p.credits, amount)
	b.settle(to, p)
}

func (b *Books) line(k ledger.LineKey, l ledger.Line) {
	b.deposit(l.Deposit)
	if !b.asked(k.Asset) {
		return
	}
	if k.Account == ledger.DepositPool() {
		b.pools[k.Asset] = l
	}
	t := b.of(k.Asset)
	t.lines++
	if l.DebitsPosted != l.CreditsPosted {
		t.holders++
	}
	t.debits.Add(&t.debits, number(l.DebitsPosted))
	t.credits.Add(&t.credits, number(l.CreditsPosted))
	if !l.DebitsPending.IsZero() || !l.CreditsPending.IsZero() {
		t.debitsPending.Add(&t.debitsPending, number(l.DebitsPending))
		t.creditsPending.Add(&t.creditsPending, number(l.CreditsPending))
		p := b.pendingOf(k)
		p.debits.Add(&p.debits, number(l.DebitsPending))
		p.credits.Add(&p.credits, number(l.CreditsPending))
		b.settle(k, p)
	}
	if !l.Credit.IsZero() {
		t.credit.Add(&t.credit, number(l.Credit))
	}
	// Which line is the issuance line is known when all assets are.
	paid, fits := l.DebitsPosted.Add(l.DebitsPending)
	if means, ok := l.CreditsPosted.Add(l.Credit); !fits || ok && paid.Cmp(means) > 0 {
		b.overpaid[k] = l
	}
}

// settle forgets a line whose counters are what its holds say.
func (b *Books) settle(k ledger.LineKey, p *pending) {
	if p.debits.Sign() == 0 && p.credits.Sign() == 0 {
		delete(b.pending, k)
	}
}

// Close returns the assets in the order of their codes, those without a row last. line looks up one line in the same state; it
// is asked for issuance lines that have not paid more than they got (all was burned again), and its error ends the audit.
func (b *Books) Close(line func(ledger.LineKey) (l ledger.Line, present bool, err error)) ([]*Asset, error) {
	var assets []*Asset
	byID := map[ledger.AssetID]*Asset{}
	ids := slices.Collect(maps.Keys(b.assets))
	for id := range b.codes {
		if b.assets[id] == nil {
			b.of(id)
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		a, err := b.asset(id, line)
		if err != nil {
			return nil, err
		}
		assets = append(assets, a)
		byID[id] = a
	}
	for _, k := range slices.SortedFunc(maps.Keys(b.overpaid), compareLines) {
		if a := byID[k.Asset]; !a.Known || k.Account != a.Row.Issuer {
			l := b.overpaid[k]
			a.find(Overdrawn, "line of %s has debits of %s and %s pending, credits of %s, and was granted %s", k.Account, a.Format(number(l.DebitsPosted)),
				a.Format(number(l.DebitsPending)), a.Format(number(l.CreditsPosted)), a.Format(number(l.Credit)))
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(b.pending), compareLines) {
		a, p := byID[k.Asset], b.pending[k]
		a.find(HoldsDiffer, "line of %s has pending debits that differ by %s from its open holds, pending credits by %s", k.Account,
			a.Format(&p.debits), a.Format(&p.credits))
	}
	slices.SortFunc(assets, func(x, y *Asset) int {
		switch {
		case x.Known != y.Known && x.Known:
			return -1
		case x.Known != y.Known:
			return 1
		case x.Row.Code != y.Row.Code:
			return strings.Compare(x.Row.Code, y.Row.Code)
		}
		return bytes.Compare(x.ID[:], y.ID[:])
	})
	return assets, nil
}

func compareLines(x, y ledger.LineKey) int {
	if c := bytes.Compare(x.Asset[:], y.Asset[:]); c != 0 {
		return c
	}
	return bytes.Compare(x.Account[:], y.Account[:])
}

// asset draws the balance of one asset.
func (b *Books) asset(id ledger.AssetID, line func(ledger.LineKey) (l ledger.Line, present bool, err error)) (*Asset, error) {
	t := b.assets[id]
	a := &Asset{ID: id, Known: t.known, Row: t.row, Lines: t.lines, Holders: t.holders, Held: &t.debitsPending, Holds: &t.holds,
		Credit: &t.credit, OpenHolds: t.openHolds}
	var issuance ledger.Line
	if t.known {
		k := ledger.LineKey{Account: t.row.Issuer, Asset: id}
		var present bool
		if issuance, present = b.overpaid[k]; !present {
			var err error
			if issuance, present, err = line(k); err != nil {
				return nil, fmt.Errorf("reading the issuance line of %s: %w", t.row.Code, err)
			}
		}
		if present {
			a.Lines--
		}
		if issuance.DebitsPosted != issuance.CreditsPosted {
			a.Holders--
		}
	} else {
		a.find(AssetUnknown, "there are %d lines of asset %x, or a code for it, and no such asset", t.lines, id)
	}
	a.Issued, a.Burned = number(issuance.DebitsPosted), number(issuance.CreditsPosted)
	a.Supply = new(big.Int).Sub(a.Issued, a.Burned)
	credits := new(big.Int).Sub(&t.credits, a.Burned)
	debits := new(big.Int).Sub(&t.debits, a.Issued)
	a.Sum = new(big.Int).Sub(credits, debits)
	if a.Sum.Cmp(a.Supply) != 0 {
		a.find(Unbalanced, "issued %s less burned %s is %s, but the lines hold %s", a.Format(a.Issued), a.Format(a.Burned), a.Format(a.Supply), a.Format(a.Sum))
	}
	if t.debitsPending.Cmp(&t.creditsPending) != 0 || t.debitsPending.Cmp(&t.holds) != 0 {
		a.find(HoldsDiffer, "pending debits are %s, pending credits %s, open holds %s", a.Format(&t.debitsPending), a.Format(&t.creditsPending), a.Format(&t.holds))
	}
	if b.feeAsset != nil && *b.feeAsset == id {
		pool := b.pools[id]
		a.Deposits, a.Pool = &b.deposits, new(big.Int).Sub(number(pool.CreditsPosted), number(pool.DebitsPosted))
		if a.Pool.Cmp(a.Deposits) < 0 {
			a.find(PoolShort, "the pool holds %s, the deposits are %s", a.Format(a.Pool), a.Format(a.Deposits))
		}
	}
	if t.known {
		committed := new(big.Int).Add(a.Supply, number(issuance.DebitsPending))
		committed.Add(committed, number(t.row.Credit))
		if a.Supply.Sign() < 0 || committed.Cmp(number(t.row.MaxSupply)) > 0 {
			a.find(OverSupply, "the supply is %s, with %s on hold by the issuer and %s of credit granted, the maximum %s", a.Format(a.Supply),
				a.Format(number(issuance.DebitsPending)), a.Format(number(t.row.Credit)), a.Format(number(t.row.MaxSupply)))
		}
		if t.credit.Cmp(number(t.row.Credit)) != 0 {
			a.find(CreditDiffers, "the asset grants credit of %s, its lines have %s", a.Format(number(t.row.Credit)), a.Format(&t.credit))
		}
		if want := ledger.NewAssetID(t.row.Issuer, t.row.Code); want != id {
			a.find(AssetMisnamed, "asset %s has the id %x, its issuer and code give %x", t.row.Code, id, want)
		}
		if code := b.codes[id]; code != t.row.Code {
			a.find(AssetMisnamed, "asset %s is listed under the code %q", t.row.Code, code)
		}
	}
	return a, nil
}

// Name is the asset's code, or its id in hex when it has no row.
func (a *Asset) Name() string {
	if a.Known {
		return a.Row.Code
	}
	return hex.EncodeToString(a.ID[:])
}

// Format writes base units in decimals of the asset, with a minus sign where they are negative.
func (a *Asset) Format(n *big.Int) string {
	digits := new(big.Int).Abs(n).String()
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
	}
	scale := int(a.Row.Scale)
	if scale == 0 {
		return sign + digits
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale+1-len(digits)) + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}
