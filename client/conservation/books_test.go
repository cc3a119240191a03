package conservation

import (
	"errors"
	"fmt"
	"math/big"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// state is a set of rows made by hand.
type state map[string][]byte

var (
	bank, shop, ann, ben = crypto.Address{1}, crypto.Address{2}, crypto.Address{3}, crypto.Address{4}
	eur, pac             = ledger.NewAssetID(bank, "EUR"), ledger.NewAssetID(shop, "PAC")
)

func (s state) asset(id ledger.AssetID, issuer crypto.Address, code string, maxSupply uint64) {
	w := canonical.NewWriter([]byte{1})
	w.Message(1, issuer[:])
	w.String(2, code)
	w.Uint32(3, 2)
	w.Bytes(4, ledger.Units(maxSupply).Bytes())
	s[string(ledger.AssetRow(id))] = w.Done()
	s[string(ledger.CodeRow(code))] = append([]byte{1}, id[:]...)
}

// line writes the posted and pending counters of a line.
func (s state) line(account crypto.Address, asset ledger.AssetID, debits, credits, debitsPending, creditsPending uint64) {
	w := canonical.NewWriter([]byte{1})
	w.Bytes(1, ledger.Units(debitsPending).Bytes())
	w.Bytes(2, ledger.Units(debits).Bytes())
	w.Bytes(3, ledger.Units(creditsPending).Bytes())
	w.Bytes(4, ledger.Units(credits).Bytes())
	w.Uint64(5, 1)
	w.Message(6, make([]byte, 32))
	s[string(ledger.LineRow(ledger.LineKey{Account: account, Asset: asset}))] = w.Done()
}

// change rewrites a line.
func (s state) change(t testing.TB, account crypto.Address, asset ledger.AssetID, fields map[int]uint64) {
	t.Helper()
	key := string(ledger.LineRow(ledger.LineKey{Account: account, Asset: asset}))
	l, err := ledger.DecodeLine(s[key])
	if err != nil {
		t.Fatal(err)
	}
	amounts := map[int]ledger.Amount{1: l.DebitsPending, 2: l.DebitsPosted, 3: l.CreditsPending, 4: l.CreditsPosted, 9: l.Credit, 11: l.Deposit}
	for field, n := range fields {
		amounts[field] = ledger.Units(n)
	}
	w := canonical.NewWriter([]byte{1})
	for _, field := range []int{1, 2, 3, 4, 9, 11} {
		w.Bytes(field, amounts[field].Bytes())
		if field == 4 {
			w.Uint64(5, 1)
			w.Message(6, make([]byte, 32))
		}
	}
	s[key] = w.Done()
}

// hold opens a hold, and counts it in the two lines.
func (s state) hold(t testing.TB, id byte, from, to crypto.Address, asset ledger.AssetID, amount, deposit uint64) {
	t.Helper()
	w := canonical.NewWriter([]byte{1})
	w.Message(1, from[:])
	w.Message(2, to[:])
	w.Message(3, asset[:])
	w.Bytes(4, ledger.Units(amount).Bytes())
	w.Uint64(7, 1)
	w.Bytes(14, ledger.Units(deposit).Bytes())
	s[string(ledger.HoldRow(crypto.Hash{id}))] = w.Done()
	line := func(a crypto.Address) ledger.Line {
		l, _, err := s.lookUp(ledger.LineKey{Account: a, Asset: asset})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	pending, _ := line(from).DebitsPending.Add(ledger.Units(amount))
	n, _ := pending.Uint64()
	s.change(t, from, asset, map[int]uint64{1: n})
	pending, _ = line(to).CreditsPending.Add(ledger.Units(amount))
	n, _ = pending.Uint64()
	s.change(t, to, asset, map[int]uint64{3: n})
}

// credit is what the asset's row says that its lines may be overdrawn by.
func (s state) credit(id ledger.AssetID, n uint64) {
	key := string(ledger.AssetRow(id))
	w := canonical.NewWriter(s[key])
	w.Bytes(8, ledger.Units(n).Bytes())
	s[key] = w.Done()
}

// deposits makes EUR the asset of the fees, with deposits of 10 for an account, 20 for a grant and 30 for a line of PAC, and a
// pool that holds so much.
func (s state) deposits(t testing.TB, pool uint64) {
	w := canonical.NewWriter([]byte{1})
	w.Message(4, eur[:])
	w.Message(5, make([]byte, 32))
	s[string(ledger.ParametersRow())] = w.Done()
	w = canonical.NewWriter([]byte{1})
	w.Message(1, make([]byte, 32))
	w.Bytes(5, ledger.Units(10).Bytes())
	s[string(ledger.AccountRow(ann))] = w.Done()
	w = canonical.NewWriter([]byte{1})
	w.Bytes(10, ledger.Units(20).Bytes())
	s[string(ledger.GrantRow(ledger.GrantKey{Granter: ann, Grantee: ben}))] = w.Done()
	s.change(t, ann, pac, map[int]uint64{11: 30})
	s.line(ledger.DepositPool(), eur, 100, 100+pool, 0, 0)
	l, _, _ := s.lookUp(ledger.LineKey{Account: ann, Asset: eur})
	n, _ := l.DebitsPosted.Uint64()
	s.change(t, ann, eur, map[int]uint64{2: n + pool})
}

// sound is a state with nothing wrong.
func sound() state {
	s := state{}
	s.asset(eur, bank, "EUR", 100_000)
	s.asset(pac, shop, "PAC", 1_000)
	s.line(bank, eur, 70_000, 20_000, 0, 0) // issued 700.00, burned 200.00
	s.line(ann, eur, 25_000, 60_000, 0, 0)
	s.line(ben, eur, 0, 15_000, 0, 0)
	s.line(shop, eur, 1, 1, 0, 0)
	s.line(shop, pac, 500, 500, 0, 0) // issued, and burned again
	s.line(ann, pac, 500, 500, 0, 0)
	return s
}

// audit gives the rows in an order made of the seed.
func (s state) audit(t testing.TB, only *ledger.AssetID, seed int64) []*Asset {
	t.Helper()
	b := NewBooks(only)
	var keys []string
	for k := range s {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	rand.New(rand.NewSource(seed)).Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, k := range keys {
		if err := b.Row([]byte(k), s[k]); err != nil {
			t.Fatal(err)
		}
	}
	assets, err := b.Close(s.lookUp)
	if err != nil {
		t.Fatal(err)
	}
	return assets
}

func (s state) lookUp(key ledger.LineKey) (ledger.Line, bool, error) {
	row, ok := s[string(ledger.LineRow(key))]
	if !ok {
		return ledger.Line{}, false, nil
	}
	l, err := ledger.DecodeLine(row)
	return l, true, err
}

// text is an asset in one line.
func text(a *Asset) string {
	return fmt.Sprintf("%s issued %s burned %s supply %s sum %s held %s lines %d holders %d", a.Name(), a.Format(a.Issued), a.Format(a.Burned),
		a.Format(a.Supply), a.Format(a.Sum), a.Format(a.Held), a.Lines, a.Holders)
}

// TestHolds: open holds explain what is pending, of ordinary lines and of the issuer's; credit lets a line be overdrawn; deposits
// lie in the pool.
func TestHolds(t *testing.T) {
	for seed := range int64(20) {
		s := sound()
		s.hold(t, 1, ann, ben, eur, 20_000, 5)
		s.hold(t, 2, ann, ben, eur, 15_000, 0)
		s.hold(t, 3, bank, ann, eur, 50_000, 0) // issued when it is posted
		s.hold(t, 4, ben, bank, eur, 1, 0)
		s.hold(t, 5, shop, ann, pac, 1_000, 0)
		assets := s.audit(t, nil, seed)
		want := []string{
			"EUR issued 700.00 burned 200.00 supply 500.00 sum 500.00 held 850.01 lines 3 holders 2",
			"PAC issued 5.00 burned 5.00 supply 0.00 sum 0.00 held 10.00 lines 1 holders 0",
		}
		for i, a := range assets {
			if text(a) != want[i] || !a.OK() || a.Holds.Cmp(a.Held) != 0 || a.OpenHolds != []uint64{4, 1}[i] || a.Pool != nil {
				t.Fatalf("seed %d: %s with %d holds of %s, %v", seed, text(a), a.OpenHolds, a.Holds, a.Findings)
			}
		}
		s = sound()
		s.change(t, ben, eur, map[int]uint64{2: 16_000, 9: 1_500})
		s.change(t, shop, eur, map[int]uint64{4: 16_001, 9: 500})
		s.credit(eur, 2_000)
		if a := s.audit(t, &eur, seed)[0]; !a.OK() || a.Format(a.Credit) != "20.00" || a.Format(a.Sum) != "500.00" {
			t.Fatalf("seed %d: with credit: %s %v", seed, text(a), a.Findings)
		}
		s = sound()
		s.deposits(t, 65)
		s.hold(t, 1, ann, shop, pac, 0, 5)
		for _, only := range []*ledger.AssetID{nil, &eur} {
			if a := s.audit(t, only, seed)[0]; !a.OK() || a.Format(a.Deposits) != "0.65" || a.Format(a.Pool) != "0.65" || a.Lines != 4 {
				t.Fatalf("seed %d: with deposits of %s in a pool of %s: %s %v", seed, a.Deposits, a.Pool, text(a), a.Findings)
			}
		}
	}
}

func TestBooks(t *testing.T) {
	want := []string{
		"EUR issued 700.00 burned 200.00 supply 500.00 sum 500.00 held 0.00 lines 3 holders 2",
		"PAC issued 5.00 burned 5.00 supply 0.00 sum 0.00 held 0.00 lines 1 holders 0",
	}
	for seed := range int64(20) {
		assets := sound().audit(t, nil, seed)
		for i, a := range assets {
			if text(a) != want[i] || !a.OK() {
				t.Fatalf("seed %d: %s %v, want %s", seed, text(a), a.Findings, want[i])
			}
		}
		if one := sound().audit(t, &pac, seed); len(assets) != 2 || len(one) != 1 || text(one[0]) != want[1] || !one[0].OK() {
			t.Fatalf("seed %d: %d assets, %d of PAC", seed, len(assets), len(one))
		}
	}
	if assets := (state{}).audit(t, nil, 1); len(assets) != 0 {
		t.Errorf("%d assets in an empty state", len(assets))
	}
	fresh := state{}
	fresh.asset(eur, bank, "EUR", 1)
	if a := fresh.audit(t, nil, 1)[0]; !a.OK() || text(a) != "EUR issued 0.00 burned 0.00 supply 0.00 sum 0.00 held 0.00 lines 0 holders 0" {
		t.Errorf("an asset that was never issued: %s %v", text(a), a.Findings)
	}
}

// TestFindings: each thing that can be wrong is found, named, and found in its asset only.
func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(s state)
		want  []string // name: part of the message
	}{
		"a unit too much":     {func(s state) { s.line(ben, eur, 0, 15_001, 0, 0) }, []string{"unbalanced: the lines hold 500.01"}},
		"a unit too few":      {func(s state) { s.line(ben, eur, 1, 15_000, 0, 0) }, []string{"unbalanced: the lines hold 499.99"}},
		"a line is missing":   {func(s state) { delete(s, string(ledger.LineRow(ledger.LineKey{Account: ben, Asset: eur}))) }, []string{"unbalanced: the lines hold 350.00"}},
		"money from nowhere":  {func(s state) { s.line(crypto.Address{9}, eur, 0, 7, 0, 0) }, []string{"unbalanced: the lines hold 500.07"}},
		"issued unseen":       {func(s state) { s.line(bank, eur, 70_001, 20_000, 0, 0) }, []string{"unbalanced: issued 700.01"}},
		"burned unseen":       {func(s state) { s.line(bank, eur, 70_000, 20_001, 0, 0) }, []string{"unbalanced: burned 200.01"}},
		"above the maximum":   {func(s state) { s.asset(eur, bank, "EUR", 49_999) }, []string{"over_supply: maximum 499.99"}},
		"negative supply":     {func(s state) { s.line(bank, eur, 0, 10, 0, 0); s.line(ann, eur, 25_010, 10_000, 0, 0) }, []string{"over_supply: -0.10", "overdrawn"}},
		"overdrawn":           {func(s state) { s.line(ann, eur, 60_001, 60_000, 0, 0); s.line(ben, eur, 0, 50_001, 0, 0) }, []string{"overdrawn: 600.01"}},
		"overdrawn by holds":  {func(s state) { s.line(ann, eur, 25_000, 60_000, 35_001, 0) }, []string{"overdrawn", "holds_differ: pending debits are 350.01", "holds_differ"}},
		"held without a hold": {func(s state) { s.line(ann, eur, 25_000, 60_000, 5, 0); s.line(ben, eur, 0, 15_000, 0, 5) }, []string{"holds_differ: open holds 0.00", "holds_differ: debits that differ by 0.05", "holds_differ: credits by 0.05"}},
		"a hold is missing":   {func(s state) { s.hold(t, 1, ann, ben, eur, 5, 0); delete(s, string(ledger.HoldRow(crypto.Hash{1}))) }, []string{"holds_differ: open holds 0.00", "holds_differ: debits that differ by 0.05", "holds_differ: credits by 0.05"}},
		"a hold of nobody": {func(s state) {
			s.hold(t, 1, ann, ben, eur, 5, 0)
			s.change(t, ann, eur, map[int]uint64{1: 0})
			s.change(t, ben, eur, map[int]uint64{3: 0})
		}, []string{"holds_differ: open holds 0.05", "holds_differ: debits that differ by -0.05", "holds_differ: credits by -0.05"}},
		"a hold of another": {func(s state) {
			s.hold(t, 1, ann, ben, eur, 5, 0)
			s.change(t, ann, eur, map[int]uint64{1: 0})
			s.change(t, shop, eur, map[int]uint64{1: 5, 4: 6})
			s.change(t, ben, eur, map[int]uint64{4: 14_995})
		}, []string{"holds_differ: debits that differ by -0.05", "holds_differ: debits that differ by 0.05"}},
		"beyond its credit": {func(s state) {
			s.credit(eur, 10)
			s.change(t, ann, eur, map[int]uint64{2: 60_011, 9: 10})
			s.change(t, ben, eur, map[int]uint64{4: 50_011})
		}, []string{"overdrawn: was granted 0.10"}},
		"credit unseen":       {func(s state) { s.change(t, ann, eur, map[int]uint64{9: 10}) }, []string{"credit_differs: its lines have 0.10"}},
		"credit of nobody":    {func(s state) { s.credit(eur, 10) }, []string{"credit_differs: grants credit of 0.10"}},
		"credit above supply": {func(s state) { s.credit(eur, 50_001); s.change(t, ann, eur, map[int]uint64{9: 50_001}) }, []string{"over_supply: 500.01 of credit"}},
		"holds above supply":  {func(s state) { s.hold(t, 1, bank, ann, eur, 50_001, 0) }, []string{"over_supply: 500.01 on hold"}},
		"a short pool":        {func(s state) { s.deposits(t, 59) }, []string{"pool_short: the pool holds 0.59, the deposits are 0.60"}},
		"no such asset":       {func(s state) { delete(s, string(ledger.AssetRow(eur))) }, []string{"asset_unknown: 4 lines", "overdrawn"}},
		"another issuer":      {func(s state) { s.asset(eur, ann, "EUR", 100_000) }, []string{"asset_misnamed", "over_supply", "overdrawn"}},
		"no code":             {func(s state) { delete(s, string(ledger.CodeRow("EUR"))) }, []string{"asset_misnamed: under the code \"\""}},
		"two codes":           {func(s state) { s[string(ledger.CodeRow("GBP"))] = append([]byte{1}, eur[:]...) }, []string{"asset_misnamed: GBP"}},
		"a code of nothing":   {func(s state) { s[string(ledger.CodeRow("GBP"))] = append([]byte{1}, make([]byte, 16)...) }, []string{"asset_unknown: 0 lines"}},
	} {
		s := sound()
		c.plant(s)
		var got []Finding
		for _, a := range s.audit(t, nil, 7) {
			if a.ID == pac && !a.OK() {
				t.Errorf("%s: findings in another asset: %v", name, a.Findings)
			}
			got = append(got, a.Findings...)
		}
		for _, w := range c.want {
			kind, part, _ := strings.Cut(w, ": ")
			i := slices.IndexFunc(got, func(f Finding) bool { return f.Name == kind && strings.Contains(f.Message, part) })
			if i < 0 {
				t.Errorf("%s: want %q among %v", name, w, got)
				continue
			}
			got = slices.Delete(got, i, i+1)
		}
		if len(got) != 0 {
			t.Errorf("%s: also found %v", name, got)
		}
		if one := s.audit(t, &pac, 8); len(one) != 1 || !one[0].OK() {
			t.Errorf("%s: an audit of PAC alone: %v", name, one)
		}
	}
}

// TestWideSums: sums of counters pass 128 bits without anything going wrong.
func TestWideSums(t *testing.T) {
	s := sound()
	largest, err := ledger.AmountFromBytes(slices.Repeat([]byte{255}, 16))
	if err != nil {
		t.Fatal(err)
	}
	wide := func(account crypto.Address) {
		w := canonical.NewWriter([]byte{1})
		w.Bytes(2, largest.Bytes())
		w.Bytes(4, largest.Bytes())
		w.Message(6, make([]byte, 32))
		s[string(ledger.LineRow(ledger.LineKey{Account: account, Asset: eur}))] = w.Done()
	}
	for i := range byte(9) {
		wide(crypto.Address{100 + i})
	}
	if a := s.audit(t, &eur, 3)[0]; !a.OK() || a.Lines != 12 || a.Holders != 2 {
		t.Errorf("%s %v", text(a), a.Findings)
	}
	s.line(crypto.Address{99}, eur, 0, 1, 0, 0)
	if a := s.audit(t, &eur, 3)[0]; a.OK() {
		t.Error("one unit beside 2^131 is not seen")
	}
}

func TestManyFindings(t *testing.T) {
	s := sound()
	for i := range byte(150) {
		s.line(crypto.Address{5, i}, eur, 2, 1, 0, 0)
	}
	if a := s.audit(t, nil, 1)[0]; len(a.Findings) != maxFindings || a.Omitted != 51 {
		t.Errorf("%d findings, %d omitted", len(a.Findings), a.Omitted)
	}
}

// TestUnknownRows: of a state with rows that this program does not know nothing is said.
func TestUnknownRows(t *testing.T) {
	for _, row := range [][2]string{
		{"", "\x01"}, {"\x30123", "\x01"}, {"\x02123", "\x01"}, {string(ledger.LineRow(ledger.LineKey{})), "\x02"},
		{string(ledger.AssetRow(eur)), "\x01"}, {string(ledger.CodeRow("EUR")), "\x01"},
	} {
		if err := NewBooks(nil).Row([]byte(row[0]), []byte(row[1])); err == nil || !strings.Contains(err.Error(), "too old") {
			t.Errorf("row %x: %v", row[0], err)
		}
	}
	b := NewBooks(nil)
	for k, v := range sound() {
		if err := b.Row([]byte(k), v); err != nil {
			t.Fatal(err)
		}
	}
	away := errors.New("away")
	if _, err := b.Close(func(ledger.LineKey) (ledger.Line, bool, error) { return ledger.Line{}, false, away }); !errors.Is(err, away) {
		t.Errorf("a lookup that errs: %v", err)
	}
}

func TestFormat(t *testing.T) {
	a := &Asset{Row: ledger.Asset{Scale: 3}}
	for n, want := range map[int64]string{0: "0.000", 5: "0.005", -5: "-0.005", 1234: "1.234", -123456: "-123.456"} {
		if got := a.Format(big.NewInt(n)); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
	if got := (&Asset{}).Format(big.NewInt(-12)); got != "-12" {
		t.Error(got)
	}
}

func BenchmarkBooks(b *testing.B) {
	s := state{}
	for i := range 1000 {
		s.line(crypto.Address{byte(i), byte(i >> 8)}, eur, uint64(i)*1e9, uint64(i)*1e12, 0, 0)
	}
	books := NewBooks(nil)
	for b.Loop() {
		for k, v := range s {
			if err := books.Row([]byte(k), v); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
