package ledger

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pacioli-ledger/pacioli/crypto"
)

func bigWide(w wide) *big.Int {
	top := new(big.Int).Lsh(new(big.Int).SetUint64(w.top), 128)
	return top.Add(top, bigAmount(w.low))
}

// drawWide draws sums of a few amounts, and what they come to.
func drawWide(t *rapid.T, label string) (w wide, sum *big.Int) {
	sum = new(big.Int)
	var amounts []Amount
	for i := range rapid.IntRange(0, 5).Draw(t, label+" count") {
		a := drawAmount(t, fmt.Sprint(label, " ", i))
		amounts = append(amounts, a)
		sum.Add(sum, bigAmount(a))
	}
	return total(amounts...), sum
}

// TestWide holds sums of amounts against integers without a bound.
func TestWide(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	rapid.Check(t, func(t *rapid.T) {
		v, x := drawWide(t, "v")
		w, y := drawWide(t, "w")
		if bigWide(v).Cmp(x) != 0 {
			t.Fatalf("%v is not %s", v, x)
		}
		if v.less(w) != (x.Cmp(y) < 0) {
			t.Fatalf("%s < %s is %t", x, y, v.less(w))
		}
		if v.fits() != (x.Cmp(limit) < 0) {
			t.Fatalf("%s fits: %t", x, v.fits())
		}
		want := new(big.Int).Sub(x, y)
		switch {
		case want.Sign() < 0:
			want.SetInt64(0)
		case want.Cmp(limit) >= 0:
			want.Sub(limit, big.NewInt(1))
		}
		if got := v.minus(w); bigAmount(got).Cmp(want) != 0 {
			t.Fatalf("%s - %s = %s, want %s", x, y, got, want)
		}
	})
}

// TestDebitAndCredit holds the rules of "Debit and credit" against the page, written with integers without a bound.
func TestDebitAndCredit(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	issuer, holder, id := crypto.Address{1}, crypto.Address{2}, AssetID{3}
	rapid.Check(t, func(t *rapid.T) {
		asset := Asset{Issuer: issuer, MaxSupply: drawAmount(t, "max"), Credit: drawAmount(t, "asset credit"),
			Controls: Controls(rapid.Uint32Range(0, 7).Draw(t, "controls")), Frozen: LineFlags(rapid.Uint32Range(0, 3).Draw(t, "frozen")) << 1}
		l := Line{DebitsPending: drawAmount(t, "dpend"), DebitsPosted: drawAmount(t, "dp"), CreditsPending: drawAmount(t, "cpend"), CreditsPosted: drawAmount(t, "cp"),
			Flags: LineFlags(rapid.Uint32Range(0, 7).Draw(t, "flags")), Ceiling: drawAmount(t, "ceiling"), Credit: drawAmount(t, "credit"), Cap: drawAmount(t, "cap")}
		amount, fees := drawAmount(t, "amount"), drawAmount(t, "fees")
		if rapid.Bool().Draw(t, "no limits") {
			l.Ceiling, l.Cap, asset.Controls = Amount{}, Amount{}, 0
		}
		if rapid.Bool().Draw(t, "little") { // so that the sums of three come near 2^128, and not always beyond
			l.DebitsPending, l.CreditsPending, amount = Units(1), Units(2), Units(rapid.Uint64Range(0, 3).Draw(t, "units"))
		}
		k := LineKey{holder, id}
		issues := rapid.Bool().Draw(t, "issuer")
		if issues {
			k.Account = issuer
		}
		b := &Block{params: Parameters{FeeAsset: id, FeeCollector: crypto.Address{9}}, totals: totals{fees: fees}}
		collects := rapid.Bool().Draw(t, "collector")
		if collects {
			b.params.FeeCollector = k.Account
		}

		sum := func(amounts ...Amount) *big.Int {
			n := new(big.Int)
			for _, a := range amounts {
				n.Add(n, bigAmount(a))
			}
			return n
		}
		passes := func(side LineFlags) Code {
			switch {
			case issues:
				return OK
			case asset.Controls&ControlAuthorisation != 0 && l.Flags&LineAuthorised == 0:
				return LineNotAuthorised
			case asset.Controls&ControlFreeze != 0 && (l.Flags&side != 0 || asset.Frozen&side != 0):
				return LineFrozen
			}
			return OK
		}
		left := new(big.Int).Sub(sum(l.CreditsPosted, l.Credit), sum(l.DebitsPosted, l.DebitsPending))
		short := InsufficientFunds
		if issues {
			left = new(big.Int).Sub(sum(asset.MaxSupply, l.CreditsPosted), sum(l.DebitsPosted, l.DebitsPending, asset.Credit))
			short = SupplyExceeded
		}
		debit := passes(LineFrozenOut)
		switch {
		case debit != OK:
		case left.Cmp(bigAmount(amount)) < 0:
			debit = short
		case sum(l.DebitsPosted, l.DebitsPending, amount).Cmp(limit) >= 0:
			debit = CounterOverflow
		}
		if got := debitable(asset, k, l, amount); got != debit && !(left.Sign() < 0 && amount.IsZero()) {
			t.Fatalf("debit: %s, want %s", got, debit)
		}
		want := new(big.Int).Set(left)
		if want.Sign() < 0 {
			want.SetInt64(0)
		} else if want.Cmp(limit) >= 0 {
			want.Sub(limit, big.NewInt(1))
		}
		if got := available(asset, k, l); bigAmount(got).Cmp(want) != 0 {
			t.Fatalf("available %s, want %s", got, want)
		}
		credits := sum(l.CreditsPosted, l.CreditsPending, amount)
		room := new(big.Int).Set(credits)
		if collects {
			room.Add(room, bigAmount(fees))
		}
		above := func(most Amount) bool {
			return !issues && !most.IsZero() && credits.Cmp(sum(l.DebitsPosted, most)) > 0
		}
		credit := passes(LineFrozenIn)
		switch {
		case credit != OK:
		case above(l.Ceiling), asset.Controls&ControlAuthorisation != 0 && above(l.Cap):
			credit = CeilingExceeded
		case room.Cmp(limit) >= 0:
			credit = CounterOverflow
		}
		if got := b.creditable(asset, k, l, amount); got != credit {
			t.Fatalf("credit: %s, want %s", got, credit)
		}
		if got, want := lineHolds(asset, k, l), left.Sign() >= 0 && sum(l.DebitsPosted, l.DebitsPending).Cmp(limit) < 0 &&
			sum(l.CreditsPosted, l.CreditsPending).Cmp(limit) < 0; got != want {
			t.Fatalf("the rule of the line holds: %t, want %t", got, want)
		}
	})
}

// TestFee holds fees against the page, to the largest that the parameters and the formats allow.
func TestFee(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := DefaultParameters()
		unit := rapid.OneOf(rapid.SampledFrom([]uint64{0, 1, MaxFeeUnit}), rapid.Uint64Range(0, MaxFeeUnit))
		p.FeeBase, p.FeePerByte, p.FeePerOperation, p.FeePerSignature = unit.Draw(t, "base"), unit.Draw(t, "byte"), unit.Draw(t, "operation"), unit.Draw(t, "signature")
		size, operations := rapid.IntRange(0, MaxTxBytes).Draw(t, "size"), rapid.IntRange(0, MaxOperations).Draw(t, "operations")
		cost := rapid.Uint64Range(0, 1<<20).Draw(t, "cost") // a transaction full of proofs of recoveries costs less than 2^20
		rate := FeeRate{rapid.OneOf(rapid.SampledFrom([]uint32{1000, 1001, MaxFeeMultiplier}), rapid.Uint32Range(1000, MaxFeeMultiplier)).Draw(t, "multiplier")}
		want := new(big.Int)
		for _, x := range [][2]uint64{{p.FeeBase, 1}, {p.FeePerByte, uint64(size)}, {p.FeePerOperation, uint64(operations)}, {p.FeePerSignature, cost}} {
			want.Add(want, new(big.Int).Mul(new(big.Int).SetUint64(x[0]), new(big.Int).SetUint64(x[1])))
		}
		want.Mul(want, big.NewInt(int64(rate.Multiplier)))
		want.Add(want, big.NewInt(999)).Div(want, big.NewInt(1000))
		if got := p.Fee(rate, size, operations, cost); bigAmount(got).Cmp(want) != 0 {
			t.Fatalf("fee %s, want %s", got, want)
		}
	})
}

// TestSmallSteps: the fee is rounded up, also by a thousandth; a block above the target raises the rate by a thousandth at least.
func TestSmallSteps(t *testing.T) {
	for _, c := range []struct {
		units      uint64
		multiplier uint32
		want       uint64
	}{{0, 1001, 0}, {1, 1000, 1}, {1, 1001, 2}, {999, 1001, 1000}, {1000, 1001, 1001}, {1001, 1001, 1003}, {1, 1_000_000, 1000}} {
		if got := (Parameters{FeeBase: c.units}).Fee(FeeRate{c.multiplier}, 0, 0, 0); got != Units(c.want) {
			t.Errorf("%d units at %d are %s, want %d", c.units, c.multiplier, got, c.want)
		}
	}
	p := Parameters{FeeTargetWeight: MaxFeeUnit, MaxFeeMultiplier: 2000}
	for _, c := range []struct {
		from uint32
		load uint64
		want uint32
	}{{1000, MaxFeeUnit, 1000}, {1000, MaxFeeUnit + 1, 1001}, {1999, MaxFeeUnit + 1, 2000}, {2000, MaxFeeUnit + 1, 2000}, {1000, 2 * MaxFeeUnit, 1125},
		{1000, 1<<64 - 1, 1125}, {2000, MaxFeeUnit - 1, 2000}, {2000, 0, 1750}, {1142, 0, 1000}, {1143, 0, 1001}} {
		if got := (FeeRate{c.from}).Next(p, c.load); got.Multiplier != c.want {
			t.Errorf("from %d by %d to %d, want %d", c.from, c.load, got.Multiplier, c.want)
		}
	}
}

// TestFeeRate holds the multiplier's steps against the page.
func TestFeeRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := DefaultParameters()
		p.FeeTargetWeight = rapid.OneOf(rapid.SampledFrom([]uint64{0, 1, 2, 7, MaxFeeUnit}), rapid.Uint64Range(0, MaxFeeUnit)).Draw(t, "target")
		p.MaxFeeMultiplier = rapid.OneOf(rapid.SampledFrom([]uint32{1000, 1001, MaxFeeMultiplier}), rapid.Uint32Range(1000, MaxFeeMultiplier)).Draw(t, "maximum")
		m := rapid.Uint32Range(1000, p.MaxFeeMultiplier).Draw(t, "multiplier")
		around := p.FeeTargetWeight
		load := rapid.OneOf(rapid.SampledFrom([]uint64{0, around - min(around, 1), around, around + 1, 2 * around, 2*around + 1, 1<<64 - 1}), rapid.Uint64(),
			rapid.Uint64Range(0, 2*around)).Draw(t, "load")
		got := FeeRate{m}.Next(p, load).Multiplier
		if p.FeeTargetWeight == 0 {
			if got != m {
				t.Fatalf("without a target the rate goes from %d to %d", m, got)
			}
			return
		}
		target, l, rate := new(big.Int).SetUint64(around), new(big.Int).SetUint64(load), big.NewInt(int64(m))
		if twice := new(big.Int).Lsh(target, 1); l.Cmp(twice) > 0 {
			l = twice
		}
		step := func(x *big.Int) *big.Int { // rate * x / (8 * target)
			return x.Mul(x, rate).Div(x, new(big.Int).Lsh(target, 3))
		}
		want := new(big.Int).Set(rate)
		switch l.Cmp(target) {
		case 1:
			if up := step(new(big.Int).Sub(l, target)); up.Sign() > 0 {
				want.Add(want, up)
			} else {
				want.Add(want, big.NewInt(1))
			}
		case -1:
			want.Sub(want, step(new(big.Int).Sub(target, l)))
		}
		if want.Cmp(big.NewInt(1000)) < 0 {
			want.SetInt64(1000)
		} else if most := big.NewInt(int64(p.MaxFeeMultiplier)); want.Cmp(most) > 0 {
			want.Set(most)
		}
		if want.Uint64() != uint64(got) {
			t.Fatalf("from %d by %d of %d to %d, want %s", m, load, around, got, want)
		}
		if change := int64(got) - int64(m); change > int64(m)/8+1 || -change > int64(m)/8 {
			t.Fatalf("from %d to %d is more than an eighth", m, got)
		}
	})
}

// TestFeeRateReturns: whatever a busy time has made of the rate, a thousandfold falls back within 60 empty blocks.
func TestFeeRateReturns(t *testing.T) {
	p := DefaultParameters()
	p.MaxFeeMultiplier = MaxFeeMultiplier
	rate, blocks := FeeRate{MaxFeeMultiplier}, 0
	for rate.Multiplier > minMultiplier {
		rate = rate.Next(p, 0)
		blocks++
	}
	if blocks > 60 {
		t.Errorf("%d empty blocks", blocks)
	}
	for blocks = 0; rate.Multiplier < MaxFeeMultiplier; blocks++ {
		rate = rate.Next(p, 1<<63)
	}
	if blocks > 60 {
		t.Errorf("%d full blocks", blocks)
	}
}

// TestQueue drives the queue of holds against lists by second: the last one takes the place of the one that goes.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newState(Memory{})
		model := map[uint64][]crypto.Hash{}
		var open []crypto.Hash
		second := map[crypto.Hash]uint64{}
		through, made := uint64(0), 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := s.savepoint()
			if len(open) == 0 || rapid.IntRange(0, 2).Draw(t, "what") > 0 {
				made++
				id := crypto.Hash(sha256.Sum256(fmt.Append(nil, made)))
				expires, now := rapid.Uint64Range(100, 103).Draw(t, "expires"), rapid.Uint64Range(1, 99).Draw(t, "now")
				enqueue := func() {
					slot, ok := s.enqueue(expires, id, now)
					if !ok || int(slot) != len(model[expires]) {
						t.Fatalf("slot %d, %t, want %d", slot, ok, len(model[expires]))
					}
					s.holds.put(id, Hold{Expires: expires, Slot: slot})
				}
				enqueue()
				if rapid.Bool().Draw(t, "undone once") {
					s.undo(before)
					enqueue()
				}
				if len(open) == 0 {
					through = now
				}
				model[expires] = append(model[expires], id)
				open, second[id] = append(open, id), expires
			} else {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				id := open[i]
				open = slices.Delete(open, i, i+1)
				h, _ := s.holds.get(id)
				s.holds.remove(id)
				s.dequeue(h.Expires, h.Slot)
				list := model[h.Expires]
				at := slices.Index(list, id)
				list[at] = list[len(list)-1]
				model[h.Expires] = list[:len(list)-1]
			}
			totals, _ := s.due.get(struct{}{})
			if totals.Open != uint64(len(open)) || totals.Through != through {
				t.Fatalf("%+v, want %d open and through %d", totals, len(open), through)
			}
			for expires := uint64(100); expires <= 103; expires++ {
				count, there := s.dueCounts.get(expires)
				if int(count) != len(model[expires]) || there != (count > 0) {
					t.Fatalf("second %d has %d, %t, want %d", expires, count, there, len(model[expires]))
				}
				for slot, id := range model[expires] {
					got, _ := s.dueSlots.get(dueSlot{expires, uint32(slot)})
					if h, ok := s.holds.get(id); got != id || !ok || h.Slot != uint32(slot) || h.Expires != expires {
						t.Fatalf("second %d slot %d: %s, want %s with %+v", expires, slot, got, id, h)
					}
				}
				if _, ok := s.dueSlots.get(dueSlot{expires, count}); ok {
					t.Fatalf("second %d has a slot %d behind its last", expires, count)
				}
			}
		}
	})
}

// expiring is a world with holds from alice to bob, each of 1, that expire in these seconds.
func expiring(t testing.TB, maxExpiries uint32, seconds ...uint64) *world {
	w := newWorld(t)
	w.genesis.State.Parameters.MaxExpiries, w.genesis.State.Parameters.MaxHoldSeconds = maxExpiries, MaxHoldSeconds
	w.addAsset("EUR", "bank", 2, "1000000.00")
	w.addBalance("alice", "1000.00", "EUR")
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.next(1001_000)
	b := &Body{Signers: []Signer{w.signer("alice")}, MaxFee: Units(1e9)}
	for _, s := range seconds {
		b.Operations = append(b.Operations, &CreateHold{To: w.address("bob"), Asset: w.asset("EUR"), Amount: Units(1), Expires: s, PostBy: ByReceiver})
	}
	if r := w.apply(w.seal(b)); r.Code != OK {
		t.Fatal(r.Code)
	}
	w.end()
	return w
}

func (w *world) due() dueTotals {
	t, err := decodeDueTotals(w.memory[string([]byte{rowDue})])
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// TestPauseWithHolds: after a pause of a day the queue needs nine blocks of 10,000 seconds each, and no hold is lost.
func TestPauseWithHolds(t *testing.T) {
	last := uint64(1001 + 86_400)
	w := expiring(t, 10, 1002, 1001+MaxDueSeconds, 1001+MaxDueSeconds+1, last, last+1)
	open := []uint64{3, 2, 2, 2, 2, 2, 2, 2, 1} // after each block: the first two, the third, and the one of the last second
	for i, want := range open {
		w.next(last * 1000)
		w.end()
		through := min(last, 1001+uint64(i+1)*MaxDueSeconds)
		if got := w.due(); got.Open != want || got.Through != through {
			t.Fatalf("after block %d: %+v, want %d open, through %d", i+1, got, want, through)
		}
	}
	w.next(last*1000 + 999)
	if o := w.end(); w.due().Open != 1 || len(o.Entries) != 0 {
		t.Fatalf("%+v: a hold expired a second early", w.due())
	}
	w.next((last + 1) * 1000)
	w.end()
	if w.due() != (dueTotals{last + 1, 0}) {
		t.Fatalf("%+v", w.due())
	}
	if l := w.line("alice", "EUR"); !l.DebitsPending.IsZero() || l.DebitsPosted != Units(1) { // the fee
		t.Fatalf("%+v", l)
	}
}

// TestPauseOfYears: with the longest hold and the longest pause the walk stays bounded, and the arithmetic right.
func TestPauseOfYears(t *testing.T) {
	w := expiring(t, 10, 1001+MaxHoldSeconds)
	now := uint64(1001 + MaxHoldSeconds)
	for blocks := 1; ; blocks++ {
		w.next(now * 1000)
		w.block.state.due.put(struct{}{}, dueTotals{Through: max(w.due().Through, now-25_000), Open: 1}) // but for the last three blocks
		w.end()
		if w.due().Open == 0 {
			if blocks != 3 {
				t.Fatalf("%d blocks", blocks)
			}
			return
		}
	}
}

// TestExpiriesShareBlocks: the limit on expiries is over all seconds of a block together, the highest slot of the earliest second first,
// and every hold expires exactly once.
func TestExpiriesShareBlocks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(rt, "holds")
		var seconds []uint64
		for range n {
			seconds = append(seconds, rapid.Uint64Range(1002, 1006).Draw(rt, "second"))
		}
		limit := rapid.Uint32Range(1, 7).Draw(rt, "limit")
		w := expiring(t, limit, seconds...)
		left, clock := slices.Clone(seconds), uint64(1001)
		seen := map[crypto.Hash]bool{}
		for len(left) > 0 {
			clock += rapid.Uint64Range(0, 3).Draw(rt, "pause")
			w.next(clock * 1000)
			o := w.end()
			due := 0
			slices.Sort(left)
			for due < len(left) && left[due] <= clock && due < int(limit) {
				due++
			}
			if len(o.Entries) != 2*due {
				rt.Fatalf("%d entries at %d, want %d holds of %v", len(o.Entries), clock, due, left)
			}
			for i := 0; i < len(o.Entries); i += 2 {
				e, err := DecodeEntry(o.Entries[i].Encoded)
				if err != nil || seen[e.Hold] || e.Kind != EntryExpire {
					rt.Fatalf("%+v, %v", e, err)
				}
				seen[e.Hold] = true
			}
			left = left[due:]
			if len(left) == 0 {
				break
			}
			through := clock
			if left[0] <= clock {
				through = left[0] - 1
			}
			if got := w.due(); got.Open != uint64(len(left)) || got.Through != through && clock > 1001 {
				rt.Fatalf("%+v, want %d open, through %d", got, len(left), through)
			}
		}
		if len(seen) != n {
			rt.Fatalf("%d of %d holds expired", len(seen), n)
		}
	})
}

// TestGrantPeriods uses a grant at random times, against a list of what was spent when.
func TestGrantPeriods(t *testing.T) {
	key := GrantKey{crypto.Address{1}, crypto.Address{2}, KindTransfer, AssetID{3}}
	type use struct {
		at     uint64
		amount *big.Int
	}
	rapid.Check(t, func(t *rapid.T) {
		b := &Block{state: newState(Memory{})}
		begun := rapid.Uint64Range(1, 1<<40).Draw(t, "begun")
		g := Grant{Begun: begun, Until: begun + rapid.Uint64Range(1, 4*MaxPeriodSeconds).Draw(t, "until")}
		if rapid.Bool().Draw(t, "by period") {
			g.PerPeriod, g.Period = drawAmount(t, "per period"), rapid.OneOf(rapid.Uint32Range(1, 5), rapid.Uint32Range(1, MaxPeriodSeconds)).Draw(t, "period")
			if g.PerPeriod.IsZero() {
				g.Period = 0
			}
		}
		if g.Period == 0 || rapid.Bool().Draw(t, "in all") {
			if g.Total = drawAmount(t, "total"); g.Total.IsZero() {
				g.Total = Units(1)
			}
		}
		b.state.grants.put(key, g)
		var uses []use
		for now := begun; now < g.Until+3 && len(uses) < 40; now += rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(0, uint64(g.Period)+1)).Draw(t, "pause") + 1 {
			b.header.UnixMillis = now*1000 + rapid.Uint64Range(0, 999).Draw(t, "millis")
			amount := drawAmount(t, "amount")
			if rapid.Bool().Draw(t, "little") {
				amount = Units(rapid.Uint64Range(0, 9).Draw(t, "units"))
			}
			inPeriod, all := bigAmount(amount), bigAmount(amount)
			for _, u := range uses {
				all = new(big.Int).Add(all, u.amount)
				if g.Period != 0 && (u.at-begun)/uint64(g.Period) == (now-begun)/uint64(g.Period) {
					inPeriod = new(big.Int).Add(inPeriod, u.amount)
				}
			}
			want := OK
			switch {
			case now >= g.Until:
				want = GrantExpired
			case !g.PerPeriod.IsZero() && inPeriod.Cmp(bigAmount(g.PerPeriod)) > 0, !g.Total.IsZero() && all.Cmp(bigAmount(g.Total)) > 0:
				want = GrantExceeded
			}
			s := &spending{key: key}
			if got := s.usable(b, amount); got != want {
				t.Fatalf("%s at %d of %+v: %s, want %s", amount, now, g, got, want)
			}
			stored, _ := b.state.grants.get(key)
			left := stored.Remaining(now)
			if (want == OK) != (amount.Cmp(left) <= 0) && !(want == GrantExpired && amount.IsZero()) {
				t.Fatalf("%s at %d: %s, and %s remain", amount, now, want, left)
			}
			if want == OK {
				s.use(b, amount)
				uses = append(uses, use{now, bigAmount(amount)})
			}
		}
	})
}
