package mempool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/signature"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func TestVerdicts(t *testing.T) {
	n := newNet(t, 4, func(c *Config) { c.MaxTxsPerSender, c.MaxGap = 4, 4 })
	alice, bob, carol := n.people[0], n.people[1], n.people[2]
	poor := newPerson(t, "poor")
	first := n.build(pay(alice, 1))
	other := pay(alice, 1)
	other.amount = 2
	nonce, otherNonce := payNonce(bob, 7), payNonce(bob, 7)
	otherNonce.amount = 2
	bad, expired, far := pay(carol, 1), payNonce(carol, 1), payNonce(carol, 1)
	bad.spoil, expired.validUntil, far.validUntil = true, 1, 5000
	both := payment{from: []*person{carol, alice}, sequence: []uint64{1, 1}}
	unsigned := n.decode(first)
	n.mu.Lock()
	n.last.UnixMillis += 1000 // so that a valid_until one second after genesis has passed
	n.mu.Unlock()
	for _, c := range []struct {
		name    string
		raw     []byte
		code    ledger.Code
		retry   bool
		message string
	}{
		{"bytes that are no transaction", []byte{1, 2, 3}, ledger.Malformed, false, "field number"},
		{"no bytes", nil, ledger.Malformed, false, "body"},
		{"too many bytes", make([]byte, ledger.MaxTxBytes+1), ledger.TooLarge, false, "at most 262144"},
		{"the first payment", first, ledger.OK, false, ""},
		{"the same bytes", first, ledger.OK, false, ""},
		{"the same body with other signatures", ledger.Assemble(unsigned.BodyBytes(), nil, nil), ledger.WitnessMissing, false, ""},
		{"another payment with the same sequence", n.build(other), ledger.SequenceUsed, false, "waits already"},
		{"a second signer's sequence that waits", n.build(both), ledger.SequenceUsed, false, alice.Address.String()},
		{"a nonce", n.build(nonce), ledger.OK, false, ""},
		{"another payment with the same nonce", n.build(otherNonce), ledger.NonceUsed, false, "waits already"},
		{"a bad signature", n.build(bad), ledger.SignatureInvalid, false, ""},
		{"expired", n.build(expired), ledger.Expired, false, ""},
		{"valid too long", n.build(far), ledger.ValidUntilTooFar, false, ""},
		{"far ahead", n.build(pay(carol, 6)), ledger.SequenceGap, false, ""},
		{"just within the gap", n.build(pay(carol, 5)), ledger.OK, false, ""},
		{"without money", n.build(pay(poor, 1)), ledger.FeeUnpayable, false, ""},
	} {
		v := n.pool.Check(context.Background(), c.raw)
		if v.Code != c.code || v.Retry != c.retry || !strings.Contains(v.Message, c.message) {
			t.Errorf("%s: got %s (retry %v) %q, want %s (retry %v) with %q", c.name, v.Code, v.Retry, v.Message, c.code, c.retry, c.message)
		}
		if want := c.code != ledger.Malformed && c.code != ledger.TooLarge; (v.ID != crypto.Hash{}) != want {
			t.Errorf("%s: the verdict has the id %s", c.name, v.ID)
		}
		n.verify()
	}
	if s := n.pool.Stats(); s.Ready != 2 || s.Parked != 1 || s.Accepted != 3 || s.Duplicates != 1 || s.Panics != 0 {
		t.Errorf("stats are %+v", s)
	}
}

func TestSignaturesOfTheUnwantedAreNotVerified(t *testing.T) {
	n := newNet(t, 2, func(c *Config) { c.MaxTxsPerSender, c.MaxGap = 2, 2 })
	poor := newPerson(t, "poor")
	n.accept(pay(n.people[0], 1), pay(n.people[0], 2))
	before := n.cache.Counters().Verified
	taken := pay(n.people[0], 2)
	taken.amount = 5
	for _, p := range []payment{pay(poor, 1), pay(n.people[0], 3), taken} {
		if v := n.send(p); v.Code == ledger.OK {
			t.Fatalf("an unwanted payment is accepted")
		}
	}
	if got := n.cache.Counters().Verified - before; got != 0 {
		t.Errorf("%d signatures of unwanted transactions were verified", got)
	}
}

func TestVerifiedOnceInItsLife(t *testing.T) {
	n := newNet(t, 1, nil)
	raw := n.build(pay(n.people[0], 1))
	for range 3 { // from a client, and again from peers
		n.pool.Check(context.Background(), raw)
	}
	proposal := n.pool.Propose(everything)
	if len(proposal) != 1 {
		t.Fatalf("%d proposed, want 1", len(proposal))
	}
	for range 2 { // to process it, and to finalize it
		block, err := ledger.NewBlock(n.state, ledger.Header{Height: 1, UnixMillis: n.last.UnixMillis}, n.cache)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := block.Apply(n.decode(proposal[0])); err != nil || r.Code != ledger.OK {
			t.Fatalf("applying: %s, %v", r.Code, err)
		}
	}
	if got := n.cache.Counters(); got.Verified != 2 || got.Misses != 1 || got.Hits != 2 {
		t.Errorf("counters are %+v, want 1 signature and the key that the first transaction brings verified", got)
	}
	if n.pool.TxOf(raw) == nil {
		t.Error("the pool does not know the bytes that wait in it")
	}
}

func TestOrderWithinABlock(t *testing.T) {
	n := newNet(t, 4, nil)
	a, b, c, d := n.people[0], n.people[1], n.people[2], n.people[3]
	n.accept(pay(a, 1), pay(a, 3), pay(a, 2), payNonce(b, 0), pay(b, 1), pay(c, 2), pay(b, 2), payNonce(b, 1))
	// b's second sequence waits for d's first, which is a payment of d and a.
	n.accept(payment{from: []*person{d, b}, sequence: []uint64{2, 3}}, payment{from: []*person{d, a}, sequence: []uint64{1, 4}})
	n.verify()
	want := "0:1 1:n0 0:2 1:1 0:3 1:2 3:1+0:4 1:n1 3:2+1:3"
	if got := n.proposed(everything); got != want {
		t.Errorf("proposed %s\n    want %s", got, want)
	}
	if again := n.proposed(everything); again != want {
		t.Errorf("a second proposal differs: %s", again)
	}
	for sender, want := range map[*person]uint64{a: 5, b: 4, c: 1, d: 3, newPerson(t, "nobody"): 0} {
		if got, ok := n.pool.Pending(sender.Address); got != want || ok != (want != 0) {
			t.Errorf("next sequence of %s is %d, want %d", sender.Address, got, want)
		}
	}
	// Bytes are counted as CometBFT counts them: with one byte less than two transactions take, one goes in.
	txs := n.pool.Propose(everything)
	two := protoSize(len(txs[0])) + protoSize(len(txs[1]))
	if got := len(n.pool.Propose(two)); got != 2 {
		t.Errorf("%d transactions in the bytes of 2", got)
	}
	// With a byte less the second does not; a later one that is shorter may take its place.
	for _, limit := range []int64{two - 1, two + 1, 3 * two} {
		total, fewer := int64(0), n.pool.Propose(limit)
		for _, tx := range fewer {
			total += protoSize(len(tx))
		}
		if total > limit || string(fewer[0]) != string(txs[0]) || limit < two && string(fewer[1]) == string(txs[1]) {
			t.Errorf("a proposal of %d bytes for %d: %s", total, limit, n.names(fewer))
		}
	}
	if got := n.pool.Propose(10); len(got) != 0 {
		t.Errorf("%d transactions in 10 bytes", len(got))
	}
}

func TestProtoSize(t *testing.T) {
	for _, n := range []int{1, 127, 128, 16383, 16384, 262144} {
		if got, want := protoSize(n), types.ComputeProtoSizeForTxs([]types.Tx{make([]byte, n)}); got != want {
			t.Errorf("%d bytes take %d in a block, CometBFT says %d", n, got, want)
		}
	}
}

func TestTurnsGoRound(t *testing.T) {
	n := newNet(t, 3, nil)
	for s := uint64(1); s <= 3; s++ {
		for _, p := range n.people {
			n.accept(pay(p, s))
		}
	}
	size := protoSize(len(n.pool.Propose(everything)[0]))
	var got []string
	for range 5 {
		block := n.pool.Propose(2 * size)
		got = append(got, n.names(block))
		n.commit(block)
		n.verify()
	}
	if want := "0:1 1:1|2:1 0:2|1:2 2:2|0:3 1:3|2:3"; strings.Join(got, "|") != want {
		t.Errorf("blocks are %s, want %s", strings.Join(got, "|"), want)
	}
}

func TestParkedArePromoted(t *testing.T) {
	n := newNet(t, 2, nil)
	a := n.people[0]
	n.accept(pay(a, 4), pay(a, 3))
	if got := n.proposed(everything); got != "" {
		t.Errorf("parked ones are proposed: %s", got)
	}
	// 1 comes by another node's block, 2 by this node's pool.
	n.commit([][]byte{n.build(pay(a, 1))})
	n.accept(pay(a, 2))
	n.verify()
	if got, want := n.proposed(everything), "0:2 0:3 0:4"; got != want {
		t.Errorf("proposed %s, want %s", got, want)
	}
	// When 2 is refused by a block, what follows it is parked again, and promoted when another 2 comes.
	n.pool.Refused(n.decode(n.build(pay(a, 2))).Hash(), ledger.FeeUnpayable)
	n.verify()
	if s := n.pool.Stats(); s.Ready != 0 || s.Parked != 2 || s.Dropped != 1 {
		t.Errorf("after a refusal stats are %+v", s)
	}
	// One that the ledger refused because of another's absence stays.
	n.pool.Refused(n.decode(n.build(pay(a, 3))).Hash(), ledger.SequenceGap)
	if s := n.pool.Stats(); s.Parked != 2 {
		t.Errorf("after a gap %+v", s)
	}
	instead := pay(a, 2)
	instead.amount = 9
	n.accept(instead)
	if got, want := n.proposed(everything), "0:2 0:3 0:4"; got != want {
		t.Errorf("proposed %s, want %s", got, want)
	}
	// A block that holds another 2 takes this one's place; 3 and 4 follow all the same.
	n.commit([][]byte{n.build(pay(a, 2))})
	n.verify()
	if got, want := n.proposed(everything), "0:3 0:4"; got != want {
		t.Errorf("proposed %s, want %s", got, want)
	}
	n.commit(n.pool.Propose(everything))
	n.verify()
	if s := n.pool.Stats(); s.Ready != 0 || s.Parked != 0 || s.Senders != 0 || s.Bytes != 0 {
		t.Errorf("an empty pool has %+v", s)
	}
}

func TestASharedTransactionGoesWithEitherSigner(t *testing.T) {
	n := newNet(t, 2, nil)
	a, b := n.people[0], n.people[1]
	n.accept(pay(a, 1), payment{from: []*person{a, b}, sequence: []uint64{2, 1}}, pay(a, 3), pay(b, 2))
	if got, want := n.proposed(everything), "0:1 0:2+1:1 0:3 1:2"; got != want {
		t.Fatalf("proposed %s, want %s", got, want)
	}
	// b's first sequence is used by another payment: the shared one dies, a's 3 is parked, b's 2 is not.
	n.commit([][]byte{n.build(pay(b, 1))})
	n.verify()
	if got, want := n.proposed(everything), "0:1 1:2"; got != want {
		t.Errorf("proposed %s, want %s", got, want)
	}
}

func TestCommittedInTheMeantime(t *testing.T) {
	for _, c := range []struct {
		name string
		p    func(*net) payment
		code ledger.Code
	}{
		{"sequence", func(n *net) payment { return pay(n.people[0], 1) }, ledger.SequenceUsed},
		{"nonce", func(n *net) payment { return payNonce(n.people[0], 1) }, ledger.NonceUsed},
		{"policy", func(n *net) payment {
			return payment{from: []*person{n.people[0]}, sequence: []uint64{1}, policy: []byte("rotated")}
		}, ledger.SequenceUsed},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet(t, 1, nil)
			raw := n.build(c.p(n))
			late := raw
			want := c.code
			if c.name == "policy" { // signed before the policy changed, with a nonce of its own
				late, want = n.build(payNonce(n.people[0], 5)), ledger.PolicyMismatch
			}
			// The block is committed while the pool judges the same transaction by the state before.
			n.block = func() {
				n.mu.Lock()
				n.block = nil
				n.mu.Unlock()
				n.commit([][]byte{raw})
			}
			if v := n.pool.Check(context.Background(), late); v.Code != want {
				t.Errorf("verdict is %s, want %s", v.Code, want)
			}
			n.verify()
			if s := n.pool.Stats(); s.Ready+s.Parked != 0 {
				t.Errorf("a stale transaction slipped in")
			}
		})
	}
	t.Run("many blocks", func(t *testing.T) {
		n := newNet(t, 1, nil)
		raw := n.build(pay(n.people[0], 1))
		n.block = func() {
			n.mu.Lock()
			n.block = nil
			n.mu.Unlock()
			n.commit([][]byte{raw})
			for range recentHeights { // just enough for the first to be forgotten
				n.commit(nil)
			}
		}
		if v := n.pool.Check(context.Background(), raw); v.Code != ledger.SequenceUsed {
			t.Errorf("verdict is %s, want sequence_used", v.Code)
		}
		if r := n.pool.waiting.recent; len(r.sequences)+len(r.nonces)+len(r.rotated) != 0 || len(r.blocks) != recentHeights {
			t.Errorf("after %d empty blocks the memory of recent ones holds %d sequences and %d blocks", recentHeights, len(r.sequences), len(r.blocks))
		}
	})
}

func TestChangeOfPolicy(t *testing.T) {
	n := newNet(t, 2, nil)
	a, b := n.people[0], n.people[1]
	n.accept(pay(b, 1), pay(a, 1))
	n.accept(payment{from: []*person{a}, sequence: []uint64{2}, policy: []byte("rotated")}, pay(a, 3), payNonce(a, 1), payment{from: []*person{b, a}, sequence: []uint64{2, 4}})
	block := n.pool.Propose(everything)
	if got, want := n.names(block), "1:1 0:1 0:2"; got != want {
		t.Errorf("proposed %s, want %s: what was signed before a change of policy does not apply behind it", got, want)
	}
	if refused := n.commit(block); refused != 0 {
		t.Errorf("%d were refused", refused)
	}
	n.settle()
	n.verify()
	if s := n.pool.Stats(); s.Ready+s.Parked != 0 || s.Refused != 3 {
		t.Errorf("after the change of policy %+v, want the three that were signed before refused", s)
	}
	rotated := newPerson(t, "rotated")
	a.key, a.version = rotated.key, 1
	n.accept(pay(a, 3))
	// One that changes nothing leaves the others as they were.
	n.accept(payment{from: []*person{a}, sequence: []uint64{4}, policy: []byte("rotated")}, pay(a, 5))
	n.commit(n.pool.Propose(everything))
	n.settle()
	n.verify()
	if got := n.proposed(everything); got != "0:5" {
		t.Errorf("proposed %q, want 0:5", got)
	}
}

// settle waits until the workers have nothing left to do.
func (n *net) settle() {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); n.pool.Stats().QueuedBytes != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("the workers do not come to an end: %+v", n.pool.Stats())
		}
	}
}

func TestLimits(t *testing.T) {
	n := newNet(t, 6, func(c *Config) { c.MaxTxs, c.MaxTxsPerSender, c.MaxGap = 6, 3, 10 })
	a, b, c, d := n.people[0], n.people[1], n.people[2], n.people[3]
	n.accept(pay(a, 1), pay(a, 2), pay(a, 3))
	if v := n.send(pay(a, 4)); v.Code != ShareUsed || !v.Retry {
		t.Errorf("beyond the share the verdict is %s", v.Code)
	}
	if v := n.send(payment{from: []*person{d, a}, sequence: []uint64{1, 4}}); v.Code != ShareUsed {
		t.Errorf("beyond the second signer's share the verdict is %s", v.Code)
	}
	// A sender's parked ones make room for the one that they wait for, the last one first.
	n.accept(pay(b, 2), pay(b, 3), pay(b, 4))
	n.accept(pay(b, 1))
	n.verify()
	if next, _ := n.pool.Pending(b.Address); n.pool.Stats().Evicted != 1 || next != 4 {
		t.Errorf("evicted %d, next %d; want b's 4 evicted", n.pool.Stats().Evicted, next)
	}
	// The pool is full of ready ones now.
	if v := n.send(pay(c, 1)); v.Code != Full || !v.Retry {
		t.Errorf("on a full pool the verdict is %s", v.Code)
	}
	shed := n.pool.Stats().Shed
	n.pool.Insert(n.build(pay(c, 1)))
	for deadline := time.Now().Add(10 * time.Second); n.pool.Stats().Shed != shed+1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a peer's transaction was not shed on a full pool")
		}
	}
	n.commit(n.pool.Propose(everything))
	// Parked ones of anybody make room for ready ones, but not for parked ones.
	n.accept(pay(a, 6), pay(a, 7), pay(b, 6), pay(b, 7), pay(c, 3), pay(c, 4))
	if v := n.send(pay(d, 3)); v.Code != Full {
		t.Errorf("a parked one on a pool full of parked ones gets %s", v.Code)
	}
	n.accept(pay(d, 1), pay(d, 2))
	n.verify()
	if s := n.pool.Stats(); s.Ready != 2 || s.Parked != 4 || s.Evicted != 3 {
		t.Errorf("stats are %+v, want 2 ready, 4 parked, 3 evicted in all", s)
	}
	if _, waits := n.pool.Pending(a.Address); waits {
		t.Error("the oldest parked ones were not those that went")
	}
}

func TestLimitsInBytes(t *testing.T) {
	size := int64(0)
	{
		n := newNet(t, 1, nil)
		size = int64(len(n.build(pay(n.people[0], 1))))
	}
	n := newNet(t, 4, func(c *Config) {
		c.MaxTxBytes = int(size) + 10
		c.MaxBytes, c.MaxBytesPerSender = 3*size+20, 2*size+10
	})
	n.accept(pay(n.people[0], 1), pay(n.people[0], 2))
	if v := n.send(pay(n.people[0], 3)); v.Code != ShareUsed {
		t.Errorf("beyond the share of bytes the verdict is %s", v.Code)
	}
	n.accept(pay(n.people[1], 1))
	if v := n.send(pay(n.people[2], 1)); v.Code != Full {
		t.Errorf("beyond the pool's bytes the verdict is %s", v.Code)
	}
	long := pay(n.people[3], 1)
	long.memo = "eleven byte"
	if v := n.send(long); v.Code != ledger.TooLarge || v.Retry {
		t.Errorf("a large transaction gets %s", v.Code)
	}
	if !n.pool.Insert(n.build(long)) {
		t.Error("a peer is asked to send a transaction again that is too large")
	}
	n.verify()
}

func TestFeesAreHeld(t *testing.T) {
	n := newNet(t, 2, nil)
	a := n.people[0]
	spend := pay(a, 1)
	spend.amount = balance - 1100 // which leaves enough for the fee of one more
	n.accept(spend)
	n.commit(n.pool.Propose(everything))
	n.accept(pay(a, 3))
	n.accept(pay(a, 2)) // in place of the parked one, which would hold the fee that it needs
	n.verify()
	if s := n.pool.Stats(); s.Ready != 1 || s.Evicted != 1 {
		t.Errorf("stats are %+v", s)
	}
	if v := n.send(pay(a, 3)); v.Code != FeesHeld || !v.Retry {
		t.Errorf("a second payment gets %s, want the fees held", v.Code)
	}
	// The issuer of the fee asset pays with money that it makes.
	for s := uint64(1); s <= 3; s++ {
		p := pay(n.issuer, s)
		body := n.decode(n.build(payment{from: []*person{a}, sequence: []uint64{9}})).Body
		body.Signers = []ledger.Signer{{Address: p.from[0].Address, Sequence: s, Policy: n.issuer.policy}}
		body.Operations = []ledger.Operation{&ledger.Transfer{To: a.Address, Asset: n.asset, Amount: ledger.Units(1)}}
		encoded := body.Encode()
		signed, err := n.issuer.key.Sign(ledger.Preimage(n.id, encoded, 0))
		if err != nil {
			t.Fatal(err)
		}
		if v := n.pool.Check(context.Background(), ledger.Assemble(encoded, []ledger.Witness{{Signature: signed}}, nil)); v.Code != ledger.OK {
			t.Errorf("the issuer's payment %d gets %s: %s", s, v.Code, v.Message)
		}
	}
	n.verify()
}

func TestExpiry(t *testing.T) {
	n := newNet(t, 3, func(c *Config) { c.MaxAge = time.Minute })
	early, late := payNonce(n.people[0], 1), payNonce(n.people[0], 2)
	early.validUntil, late.validUntil = 3, 4
	chain := pay(n.people[1], 1)
	chain.validUntil = 3
	n.accept(early, late, chain, pay(n.people[1], 2))
	n.commit(nil)
	n.commit(nil)
	if s := n.pool.Stats(); s.Ready != 4 {
		t.Errorf("before the time %+v", s)
	}
	n.commit(nil) // 3 seconds after genesis
	n.verify()
	if s := n.pool.Stats(); s.Ready != 1 || s.Parked != 1 || s.Expired != 2 {
		t.Errorf("after 3 seconds %+v", s)
	}
	n.sleep(56 * time.Second)
	n.pool.Reap(0)
	if s := n.pool.Stats(); s.Expired != 2 {
		t.Errorf("after 59 seconds %+v", s)
	}
	n.sleep(time.Second)
	n.pool.Reap(0)
	n.verify()
	if s := n.pool.Stats(); s.Ready+s.Parked != 0 || s.Expired != 4 {
		t.Errorf("after a minute %+v", s)
	}
}

func TestOffers(t *testing.T) {
	n := newNet(t, 3, func(c *Config) { c.OfferAgainAfter = 10 * time.Second })
	n.accept(pay(n.people[0], 1), pay(n.people[0], 3))
	n.pool.Insert(n.build(pay(n.people[1], 1)))
	for n.pool.Stats().Accepted != 3 {
		time.Sleep(time.Millisecond)
	}
	reap := func(max int64) string {
		t.Helper()
		defer n.verify()
		return n.names(n.pool.Reap(max))
	}
	if got := reap(0); got != "0:1 0:3" {
		t.Errorf("first offered: %q, want the client's two", got)
	}
	if got := reap(0); got != "" {
		t.Errorf("offered twice at once: %q", got)
	}
	n.sleep(10*time.Second - 1)
	if got := reap(0); got != "" {
		t.Errorf("offered again before the time: %q", got)
	}
	n.sleep(1)
	one := int64(len(n.build(pay(n.people[1], 1)))) + 4
	got := []string{reap(one), reap(one), reap(one), reap(one)}
	if fmt.Sprint(got) != "[1:1 0:1 0:3 ]" {
		t.Errorf("offered again: %q, want one at a time, the peer's first, as it is due first", got)
	}
	n.commit(n.pool.Propose(everything))
	n.sleep(10 * time.Second)
	if got := reap(0); got != "0:3" {
		t.Errorf("after a block %q is offered, want what still waits", got)
	}
	if got := reap(5); got != "" {
		t.Errorf("a message of 5 bytes holds %q", got)
	}
	n.sleep(10 * time.Second)
	if got := reap(5); got != "" {
		t.Errorf("a message of 5 bytes holds %q", got)
	}
	if got := reap(0); got != "" {
		t.Errorf("what fits no message is tried again at once: %q", got)
	}
}

func TestInsertNeverWaits(t *testing.T) {
	stuck, release := make(chan struct{}, 10), make(chan struct{})
	n := newNet(t, 1, func(c *Config) { c.Workers, c.QueueLength, c.BatchSize, c.QueueBytes = 2, 10, 1, 1<<20 })
	n.mu.Lock()
	n.block = func() { stuck <- struct{}{}; <-release }
	n.mu.Unlock()
	a := n.people[0]
	n.pool.Insert(n.build(pay(a, 1)))
	n.pool.Insert(n.build(pay(a, 2)))
	<-stuck
	<-stuck // both workers
	n.pool.mu.Lock()
	began := time.Now()
	taken := 0
	for s := uint64(3); s < 30; s++ {
		if n.pool.Insert(n.build(pay(a, s))) {
			taken++
		}
	}
	if taken != 10 {
		t.Errorf("a queue of 10 took %d", taken)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("27 insertions into a full queue took %s", d)
	}
	n.pool.mu.Unlock()
	if v := n.send(pay(a, 30)); v.Code != Busy || !v.Retry {
		t.Errorf("a client gets %s when the queue is full", v.Code)
	}
	n.mu.Lock()
	n.block = nil
	n.mu.Unlock()
	close(release)
	n.settle()
	if s := n.pool.Stats(); s.Accepted != 12 || s.Shed != 18 {
		t.Errorf("stats are %+v, want 12 accepted and 18 shed", s)
	}
	// The queue's bytes are bounded too.
	n.pool.cfg.QueueBytes = 100
	if n.pool.Insert(n.build(pay(a, 40))) {
		t.Error("a queue of 100 bytes takes more")
	}
}

func TestTheSameBytesInOneBatch(t *testing.T) {
	stuck, release := make(chan struct{}, 10), make(chan struct{})
	n := newNet(t, 2, func(c *Config) { c.Workers = 1 })
	n.mu.Lock()
	n.block = func() { stuck <- struct{}{}; <-release }
	n.mu.Unlock()
	n.pool.Insert(n.build(pay(n.people[0], 1)))
	<-stuck
	verdicts := make(chan Verdict, 6)
	bad := pay(n.people[1], 2)
	bad.spoil = true
	for _, raw := range [][]byte{n.build(pay(n.people[1], 1)), n.build(bad), []byte("rubbish")} {
		for range 2 {
			go func() { verdicts <- n.pool.Check(context.Background(), raw) }()
		}
	}
	for n.pool.Stats().Queued < 6 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	codes := map[ledger.Code]int{}
	for range 6 {
		select {
		case v := <-verdicts:
			codes[v.Code]++
		case <-time.After(10 * time.Second):
			t.Fatalf("a client gets no verdict; others got %v", codes)
		}
	}
	if codes[ledger.OK] != 2 || codes[ledger.SignatureInvalid] != 2 || codes[ledger.Malformed] != 2 {
		t.Errorf("verdicts are %v", codes)
	}
	if s := n.pool.Stats(); s.Batches != 2 || s.Accepted != 2 || s.Duplicates != 1 || s.Refused != 4 {
		t.Errorf("stats are %+v", s)
	}
	if got := n.cache.Counters().Verified; got != 5 {
		t.Errorf("%d checks were made, want 3 signatures and the keys that the two good ones bring", got)
	}
}

func TestCheckGivesUp(t *testing.T) {
	release := make(chan struct{})
	n := newNet(t, 1, nil)
	n.mu.Lock()
	n.block = func() { <-release }
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if v := n.pool.Check(ctx, n.build(pay(n.people[0], 1))); v.Code != Busy || !v.Retry {
		t.Errorf("without a verdict in time a client gets %s", v.Code)
	}
	verdict := make(chan Verdict)
	go func() { verdict <- n.pool.Check(context.Background(), n.build(pay(n.people[0], 2))) }()
	for n.pool.Stats().Batches < 2 {
		time.Sleep(time.Millisecond)
	}
	closed := make(chan struct{})
	go func() { n.pool.Close(); close(closed) }()
	if v := <-verdict; v.Code != Closing || !v.Retry {
		t.Errorf("a client gets %s when the pool closes", v.Code)
	}
	close(release)
	<-closed
	if n.pool.Insert(n.build(pay(n.people[0], 3))) {
		t.Error("a closed pool takes transactions")
	}
	if n.pool.Wait(context.Background()) != (n.pool.Stats().Ready > 0) {
		t.Error("Wait on a closed pool does not say what there is")
	}
}

func TestWait(t *testing.T) {
	n := newNet(t, 1, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	n.accept(pay(n.people[0], 2))
	if n.pool.Wait(ctx) {
		t.Error("Wait returns true for a parked transaction")
	}
	waited := make(chan bool)
	go func() { waited <- n.pool.Wait(context.Background()) }()
	n.accept(pay(n.people[0], 1))
	if !<-waited {
		t.Error("Wait returns false although a transaction is ready")
	}
	n.commit(n.pool.Propose(everything))
	go func() { waited <- n.pool.Wait(context.Background()) }()
	n.pool.Close()
	if <-waited {
		t.Error("Wait returns true when the pool is closed")
	}
}

func TestWaitForPromotionByABlock(t *testing.T) {
	n := newNet(t, 1, nil)
	n.accept(pay(n.people[0], 2))
	waited := make(chan bool)
	go func() { waited <- n.pool.Wait(context.Background()) }()
	time.Sleep(5 * time.Millisecond)
	n.commit([][]byte{n.build(pay(n.people[0], 1))})
	if !<-waited {
		t.Error("Wait returns false although a block made a transaction ready")
	}
}

func TestPanicsAreRefusals(t *testing.T) {
	n := newNet(t, 3, nil)
	hostile := string(n.build(pay(n.people[0], 1)))
	decodeTx = func(raw []byte) (*ledger.Tx, error) {
		if string(raw) == hostile {
			panic("hostile bytes")
		}
		return ledger.Decode(raw)
	}
	defer func() { decodeTx, checkTx = ledger.Decode, (*ledger.Block).Check }()
	if v := n.pool.Check(context.Background(), []byte(hostile)); v.Code != ledger.Malformed || v.Retry {
		t.Errorf("bytes whose decoding panics get %s", v.Code)
	}
	checkTx = func(b *ledger.Block, tx *ledger.Tx, ahead uint64) (ledger.Code, error) {
		if tx.Body.Signers[0].Address == n.people[1].Address {
			panic("hostile transaction")
		}
		return b.Check(tx, ahead)
	}
	if v := n.send(pay(n.people[1], 1)); v.Code != ledger.Malformed || v.ID == (crypto.Hash{}) {
		t.Errorf("a transaction whose judging panics gets %s", v.Code)
	}
	n.accept(pay(n.people[2], 1))
	if s := n.pool.Stats(); s.Panics != 2 || s.Ready != 1 {
		t.Errorf("stats are %+v", s)
	}
}

func TestStateFails(t *testing.T) {
	n := newNet(t, 1, nil)
	broken := errors.New("disk on fire")
	for name, admission := range map[string]Admission{
		"none":    func() (ledger.Reader, ledger.Header, func(), error) { return nil, ledger.Header{}, nil, ErrNoState },
		"opening": func() (ledger.Reader, ledger.Header, func(), error) { return nil, ledger.Header{}, nil, broken },
		"reading": func() (ledger.Reader, ledger.Header, func(), error) {
			return failing{broken, nil}, ledger.Header{}, func() {}, nil
		},
		"later": func() (ledger.Reader, ledger.Header, func(), error) {
			return failing{broken, n.state}, ledger.Header{}, func() {}, nil
		},
		"panic": func() (ledger.Reader, ledger.Header, func(), error) { panic("the store is closed") },
	} {
		var said bytes.Buffer
		p := New(DefaultConfig(), admission, signature.NewCache(10), slog.New(slog.NewTextHandler(&said, nil)))
		if v := p.Check(context.Background(), n.build(pay(n.people[0], 1))); v.Code != Busy || !v.Retry {
			t.Errorf("%s: the verdict is %s", name, v.Code)
		}
		p.Close()
		// A node that waits for a snapshot has nothing to complain about; any other is in trouble.
		if quiet := name == "none"; quiet != (said.Len() == 0) {
			t.Errorf("%s: the log is %q", name, &said)
		}
	}
}

// failing is a state on a broken disk; what memory has of the network and parameters can be read.
type failing struct {
	err    error
	memory ledger.Memory
}

func (f failing) Get(key []byte) ([]byte, error) {
	if f.memory != nil && (string(key) == string(ledger.NetworkRow()) || string(key) == string(ledger.ParametersRow())) {
		return f.memory.Get(key)
	}
	return nil, f.err
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"max_txs":      func(c *Config) { c.MaxTxs = 0 },
		"max_age":      func(c *Config) { c.MaxAge = 0 },
		"max_tx_bytes": func(c *Config) { c.MaxTxBytes = ledger.MaxTxBytes + 1 },
		"queue_bytes":  func(c *Config) { c.QueueBytes = 0 },
		"workers":      func(c *Config) { c.Workers = -1 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a bad %s is reported as %v", name, err)
		}
	}
}
