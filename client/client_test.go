package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

var (
	alice, bob = clienttest.Signer("alice"), clienttest.Signer("bob")
	pac        = ledger.NewAssetID(clienttest.Signer("bank").Address(), "PAC")
)

func soon(t *testing.T) context.Context {
	t.Helper()
	return within(t, 20*time.Second)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// dial opens a client that asks these nodes.
func dial(t *testing.T, nodes ...*clienttest.Node) *client.Client {
	t.Helper()
	o := client.Options{Genesis: nodes[0].Chain.Doc, Dir: t.TempDir()}
	for _, n := range nodes {
		o.Nodes = append(o.Nodes, n.URL)
	}
	c, err := client.Dial(soon(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pay(amount uint64) client.Intent {
	return client.Intent{Signers: []crypto.Address{alice.Address()}, Known: []crypto.Policy{alice.Policy()},
		Operations: []ledger.Operation{&ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(amount)}}}
}

// signed builds and signs.
func signed(t *testing.T, c *client.Client, in client.Intent, by ...client.Signer) ([]byte, *client.Built) {
	t.Helper()
	b, err := c.Build(soon(t), in)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = []client.Signer{alice}
	}
	for _, s := range by {
		if _, err := b.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := b.Raw()
	if err != nil {
		t.Fatal(err)
	}
	return raw, b
}

func balance(t *testing.T, c *client.Client, a crypto.Address) string {
	t.Helper()
	line, err := c.Line(soon(t), ledger.LineKey{Account: a, Asset: pac}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return line.Value.Available().Format(6)
}

func TestPay(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "pay", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	if got := balance(t, c, alice.Address()); got != "1000.000000" {
		t.Fatalf("alice has %s before", got)
	}
	raw, built := signed(t, c, pay(2_500_000))
	f, err := c.Send(soon(t), raw, built.Before)
	if err != nil {
		t.Fatal(err)
	}
	if client.OutcomeOf(f, err) != client.Committed || f.ID != built.ID() || f.ProofHeight != f.Height+1 {
		t.Fatalf("final %+v of %s", f, built.ID())
	}
	if f.Receipt.Fee != built.Fee {
		t.Errorf("the fee was computed as %s and is %s", built.Fee, f.Receipt.Fee)
	}
	// The read after the receipt sees it: it never goes back behind the receipt's height.
	if got := balance(t, c, bob.Address()); got != "2.500000" {
		t.Errorf("bob has %s after", got)
	}
	again, err := c.Send(soon(t), raw, built.Before)
	if err != nil || again.Height != f.Height {
		t.Errorf("sent again: height %d, %v; want the original receipt of height %d", again.Height, err, f.Height)
	}
	if got := balance(t, c, bob.Address()); got != "2.500000" {
		t.Errorf("bob has %s after the same bytes again", got)
	}
	// Now alice is known, so her policy need not be sent, and what she has signed is in her journal.
	in := pay(1)
	in.Known = nil
	raw, built = signed(t, c, in)
	if built.Body().Signers[0].Policy != nil {
		t.Error("the policy of a known account is sent again")
	}
	if f, err = c.Send(soon(t), raw, built.Before); err != nil || f.Receipt.Fee != built.Fee {
		t.Errorf("second payment: %v, fee %s, computed %s", err, f.Receipt.Fee, built.Fee)
	}
}

func TestSequence(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "sequence", alice.Address())
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	for want := uint64(1); want <= 2; want++ {
		in := pay(1)
		in.Sequence = true
		raw, built := signed(t, c, in)
		if s := built.Body().Signers[0].Sequence; s != want || built.Body().ValidUntil != 0 {
			t.Fatalf("sequence %d, want %d, valid until %d", s, want, built.Body().ValidUntil)
		}
		if _, err := c.Send(soon(t), raw, built.Before); err != nil {
			t.Fatal(err)
		}
	}
}

// Every scheme, a hybrid account and several signers pay exactly the fee that was computed.
func TestFeeIsExact(t *testing.T) {
	t.Parallel()
	var signers []client.Signer
	var addresses []crypto.Address
	for _, keys := range [][]crypto.Scheme{{crypto.Ed25519}, {crypto.Secp256k1}, {crypto.MLDSA44}, {crypto.MLDSA65}, {crypto.Ed25519, crypto.MLDSA65}, {crypto.P256WebAuthn}} {
		var private []crypto.PrivateKey
		for _, s := range keys {
			private = append(private, clienttest.Key(s, "fee"))
		}
		k, err := client.NewKeys(private...)
		if err != nil {
			t.Fatal(err)
		}
		signers, addresses = append(signers, k), append(addresses, k.Address())
	}
	chain := clienttest.New(t, "fee", append([]crypto.Address{alice.Address()}, addresses...)...)
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	for i, s := range signers {
		in := client.Intent{Signers: addresses[i : i+1], Known: []crypto.Policy{s.Policy()},
			Operations: []ledger.Operation{&ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(1)}}}
		raw, built := signed(t, c, in, s)
		f, err := c.Send(soon(t), raw, built.Before)
		if err != nil || f.Receipt.Fee != built.Fee || built.Body().MaxFee.Cmp(built.Fee) < 0 {
			t.Errorf("signer %d: %v, fee %s, computed %s, maximum %s", i, err, f.Receipt.Fee, built.Fee, built.Body().MaxFee)
		}
	}
	in := client.Intent{Signers: []crypto.Address{alice.Address(), addresses[4]}, Known: []crypto.Policy{alice.Policy(), signers[4].Policy()}, Operations: []ledger.Operation{
		&ledger.Transfer{From: 0, To: addresses[4], Asset: pac, Amount: ledger.Units(1)}, &ledger.Transfer{From: 1, To: alice.Address(), Asset: pac, Amount: ledger.Units(2)}}}
	raw, built := signed(t, c, in, signers[4], alice)
	if f, err := c.Send(soon(t), raw, built.Before); err != nil || f.Receipt.Fee != built.Fee {
		t.Errorf("two signers: %v, fee %s, computed %s", err, f.Receipt.Fee, built.Fee)
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "failed", alice.Address())
	chain.Run(10 * time.Millisecond)
	c := dial(t, chain.Serve())
	raw, built := signed(t, c, pay(5_000_000_000))
	f, err := c.Send(soon(t), raw, built.Before)
	if o := client.OutcomeOf(f, err); o != client.Failed || f.Receipt.Code != ledger.InsufficientFunds {
		t.Errorf("outcome %s, %+v, %v; want failed for insufficient funds", o, f.Receipt, err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "refused", alice.Address())
	chain.Run(10 * time.Millisecond)
	n, down := chain.Serve(), chain.Serve()
	c := dial(t, n, down)
	down.Close()
	in := client.Intent{Signers: []crypto.Address{bob.Address()}, Known: []crypto.Policy{bob.Policy()}, // bob has nothing
		Operations: []ledger.Operation{&ledger.Transfer{To: alice.Address(), Asset: pac, Amount: ledger.Units(1)}}}
	raw, built := signed(t, c, in, bob)
	f, err := c.Send(soon(t), raw, built.Before)
	r, ok := errors.AsType[*client.Refusal](err)
	if !ok || r.Code != ledger.FeeUnpayable || client.OutcomeOf(f, err) != client.Rejected {
		t.Errorf("outcome %s, %v; want refused with fee_unpayable", client.OutcomeOf(f, err), err)
	}
}

// One node is gone, one is busy: the third gets it.
func TestFailover(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "failover", alice.Address())
	chain.Run(10 * time.Millisecond)
	gone, busy, well := chain.Serve(), chain.Serve(), chain.Serve()
	c := dial(t, gone, busy, well)
	gone.Close()
	busy.Lie(clienttest.Lies{Submit: func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Answer(w, http.StatusServiceUnavailable, crypto.Hash{}, 0, "full", true, 0)
	}})
	for range 3 {
		raw, built := signed(t, c, pay(1))
		if _, err := c.Send(soon(t), raw, built.Before); err != nil {
			t.Fatal(err)
		}
	}
	if well.Submitted() < 3 || busy.Submitted() == 0 {
		t.Errorf("the healthy node got %d, the busy one %d; want all 3, and some tries", well.Submitted(), busy.Submitted())
	}
}

// One node lags behind and refuses what it does not know yet; the others are busy. That is no refusal: a node that was reached
// may take it yet.
func TestRefusedByOneThatLags(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "lags", alice.Address())
	chain.Run(10 * time.Millisecond)
	lagging, busy := chain.Serve(), chain.Serve()
	c := dial(t, lagging, busy)
	lagging.Lie(clienttest.Lies{Submit: func(w http.ResponseWriter, _ *http.Request) {
		clienttest.Answer(w, http.StatusUnprocessableEntity, crypto.Hash{}, ledger.PolicyUnknown, "never heard of", false, 0)
	}})
	var times atomic.Int32
	full := func(w http.ResponseWriter, _ *http.Request) {
		if times.Add(1) == 3 {
			busy.Lie(clienttest.Lies{}) // from the next time on it takes what it is sent
		}
		clienttest.Answer(w, http.StatusServiceUnavailable, crypto.Hash{}, 0, "full", true, 0)
	}
	busy.Lie(clienttest.Lies{Submit: full})
	raw, built := signed(t, c, pay(1))
	if _, err := c.Send(soon(t), raw, built.Before); err != nil || times.Load() < 3 {
		t.Errorf("%d times busy, %v", times.Load(), err)
	}
	// When it stays so, nothing was sent, and nobody may say that it is refused.
	busy.Lie(clienttest.Lies{Submit: full})
	times.Store(10)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	raw, _ = signed(t, c, pay(2))
	_, err := c.Submit(ctx, raw)
	if _, refused := errors.AsType[*client.Refusal](err); err == nil || refused {
		t.Errorf("it ends with %v", err)
	}
}

// A node takes a transaction and loses it, as one that is killed: it goes to the next one.
func TestResend(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "resend", alice.Address())
	chain.Run(10 * time.Millisecond)
	loses, well := chain.Serve(), chain.Serve()
	c := dial(t, loses, well)
	loses.Lie(clienttest.Lies{Submit: swallow(t, chain)})
	for range 2 { // both nodes have their turn
		raw, built := signed(t, c, pay(1))
		if _, err := c.Send(soon(t), raw, built.Before); err != nil {
			t.Fatal(err)
		}
	}
}

// swallow accepts transactions and drops them.
func swallow(t *testing.T, chain *clienttest.Chain) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		tx, err := ledger.Decode(raw)
		if err != nil {
			t.Error(err)
			return
		}
		clienttest.Answer(w, http.StatusOK, tx.ID(chain.Network.ID), 0, "", false, 0)
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "unknown", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	raw, built := signed(t, c, pay(1))
	for name, take := range map[string]http.HandlerFunc{
		"dropped": swallow(t, chain),
		"answers with another id": func(w http.ResponseWriter, _ *http.Request) {
			clienttest.Answer(w, http.StatusOK, crypto.Hash{1}, 0, "", false, 0)
		},
		"breaks off":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"answers nothing": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		"answers garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x1b[31m<html>")) },
		"internal error":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusInternalServerError) },
	} {
		n.Lie(clienttest.Lies{Submit: take})
		f, err := c.Send(within(t, 400*time.Millisecond), raw, built.Before)
		u, ok := errors.AsType[*client.Unknown](err)
		if !ok || u.ID != built.ID() || client.OutcomeOf(f, err) != client.Uncertain {
			t.Errorf("%s: %v, want an unknown outcome with the id", name, err)
		}
	}
	n.Close()
	time.Sleep(200 * time.Millisecond) // what goes out on a kept connection before its end is noticed would count as sent
	f, err := c.Send(within(t, 400*time.Millisecond), raw, built.Before)
	if o := client.OutcomeOf(f, err); o != client.NotSent {
		t.Errorf("no node at all: outcome %s, %v; want not sent", o, err)
	}
}

// A transaction that was taken and dropped is proven dead once its time is over, and only then.
func TestDead(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "dead", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	other, before := signed(t, c, pay(7)) // something else in the journal behind the mark
	raw, built := signed(t, c, pay(1))
	if _, err := c.Send(soon(t), other, before.Before); err != nil {
		t.Fatal(err)
	}
	n.Lie(clienttest.Lies{Submit: swallow(t, chain)})
	f, err := c.Send(within(t, 3*time.Second), raw, built.Before)
	if o := client.OutcomeOf(f, err); o != client.Uncertain {
		t.Fatalf("before valid_until: %s, %v", o, err)
	}
	chain.Advance(client.DefaultValidFor + time.Second) // light clients allow ten seconds of drift
	c2, err := client.Dial(soon(t), client.Options{Nodes: []string{n.URL}, Genesis: chain.Doc})
	if err == nil {
		f, err = c2.Send(within(t, 5*time.Second), raw, built.Before)
	}
	if o := client.OutcomeOf(f, err); o == client.Committed || o == client.Rejected {
		t.Fatalf("headers from the future: %s, %v", o, err)
	}
}

// The same with a short validity, so that the chain's clock need not run ahead of ours.
func TestDeadInTime(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "dead2", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	in := pay(1)
	in.ValidFor = 2 * time.Second
	raw, built := signed(t, c, in)
	n.Lie(clienttest.Lies{Submit: swallow(t, chain)})
	f, err := c.Send(soon(t), raw, built.Before)
	if _, ok := errors.AsType[*client.Dead](err); !ok || client.OutcomeOf(f, err) != client.Rejected {
		t.Fatalf("after valid_until: %v, want a proof that it is dead", err)
	}
	// A node that hides the receipt of a transaction that did land cannot make it dead: the journal has it.
	in.ValidFor = 3 * time.Second
	n.Lie(clienttest.Lies{})
	landed, earlier := signed(t, c, in)
	if _, err := c.Send(soon(t), landed, earlier.Before); err != nil {
		t.Fatal(err)
	}
	n.Lie(clienttest.Lies{Submit: swallow(t, chain), Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if q.Path == query.PathTx {
			*a = abci.ResponseQuery{Code: query.NotFound, Log: "never heard of it"}
		}
	}})
	f, err = c.Send(within(t, 7*time.Second), landed, earlier.Before)
	if o := client.OutcomeOf(f, err); o != client.Uncertain {
		t.Errorf("hidden receipt: %s, %v; want unknown", o, err)
	}
	// Nor can one that leaves the entry out, or answers with another line's journal.
	n.Lie(clienttest.Lies{Submit: swallow(t, chain), Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		switch q.Path {
		case query.PathTx:
			*a = abci.ResponseQuery{Code: query.NotFound}
		case query.PathEntries:
			a.Value = nil
		}
	}})
	f, err = c.Send(within(t, 3*time.Second), landed, earlier.Before)
	if o := client.OutcomeOf(f, err); o != client.Uncertain {
		t.Errorf("hidden journal: %s, %v; want unknown", o, err)
	}
}

// Every lie about a row is an error, and never a value.
func TestLiesAboutRows(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "lies", alice.Address(), bob.Address())
	other := clienttest.New(t, "lies", bob.Address()) // the same chain id and validators, another genesis
	n := chain.Serve()
	for range 3 {
		chain.Block()
		other.Block()
	}
	liar := other.Serve()
	c := dial(t, n)
	key := ledger.AssetRow(pac)
	if _, err := c.Row(soon(t), key, 0); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Account(soon(t), alice.Address(), 0); err != nil || p.Present {
		t.Fatalf("alice has not signed: %+v, %v", p, err)
	}
	otherKey := ledger.ParametersRow()
	answer := func(change func(a *abci.ResponseQuery)) clienttest.Lies {
		return clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
			if strings.HasPrefix(q.Path, "/store/") {
				change(a)
			}
		}}
	}
	lies := map[string]clienttest.Lies{
		"answers for another key, and says so": {Question: func(q *abci.RequestQuery) { q.Path, q.Data = query.StorePath("params"), otherKey }},
		"answers for another key, and hides it": {Question: func(q *abci.RequestQuery) { q.Path, q.Data = query.StorePath("params"), otherKey },
			Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Key = key }},
		"older height than was handed out": {Question: func(q *abci.RequestQuery) { q.Height = 1 }},
		"names another key":                answer(func(a *abci.ResponseQuery) { a.Key[len(a.Key)-1] ^= 1 }),
		"names another height":             answer(func(a *abci.ResponseQuery) { a.Height-- }),
		"names height 0":                   answer(func(a *abci.ResponseQuery) { a.Height = 0 }),
		"names a negative height":          answer(func(a *abci.ResponseQuery) { a.Height = -1 }),
		"names a height that is not there": answer(func(a *abci.ResponseQuery) { a.Height = 1 << 40 }),
		"changes the value":                answer(func(a *abci.ResponseQuery) { a.Value[len(a.Value)-1] ^= 1 }),
		"hides the value":                  answer(func(a *abci.ResponseQuery) { a.Value = nil }),
		"gives no proof":                   answer(func(a *abci.ResponseQuery) { a.ProofOps = nil }),
		"gives half a proof":               answer(func(a *abci.ResponseQuery) { a.ProofOps.Ops = a.ProofOps.Ops[:1] }),
		"swaps the proof":                  answer(func(a *abci.ResponseQuery) { o := a.ProofOps.Ops; o[0], o[1] = o[1], o[0] }),
		"refuses":                          answer(func(a *abci.ResponseQuery) { a.Code, a.Log = query.Failed, "no \x1b[31m disk" }),
	}
	for name, l := range lies {
		n.Lie(l)
		p, err := c.Row(within(t, 300*time.Millisecond), key, 0)
		if err == nil {
			t.Errorf("%s: row of height %d is believed", name, p.Height)
		} else if strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: a node's control characters reach the terminal: %q", name, err)
		}
	}
	n.Lie(clienttest.Lies{Question: func(q *abci.RequestQuery) { q.Height++ }})
	if p, err := c.Row(within(t, 300*time.Millisecond), key, 2); err == nil {
		t.Errorf("height 2 was asked for, height %d is believed", p.Height)
	}
	// The whole proof, byte by byte.
	n.Lie(clienttest.Lies{})
	var size [2]int
	n.Lie(answer(func(a *abci.ResponseQuery) { size = [2]int{len(a.ProofOps.Ops[0].Data), len(a.ProofOps.Ops[1].Data)} }))
	good, err := c.Row(soon(t), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	for op := range size {
		for i := range size[op] {
			n.Lie(answer(func(a *abci.ResponseQuery) { a.ProofOps.Ops[op].Data[i] ^= 1 << (i % 8) }))
			if _, err := c.Row(soon(t), key, good.Height); !errors.Is(err, proof.ErrInvalid) {
				t.Fatalf("operation %d, byte %d flipped: %v", op, i, err)
			}
		}
	}
	// Another network with the same chain id and the same validators.
	if _, err := client.Dial(within(t, 2*time.Second), client.Options{Nodes: []string{liar.URL}, Genesis: chain.Doc}); err == nil {
		t.Error("a node of another network is believed")
	}
	n.Lie(clienttest.Lies{})
	mixed := dial(t, n)
	if _, err := mixed.Row(soon(t), key, 0); err != nil {
		t.Fatal(err)
	}
	// A header that too few have signed.
	n.Lie(clienttest.Lies{Block: func(b *types.LightBlock) *types.LightBlock {
		commit := *b.Commit
		commit.Signatures = append([]types.CommitSig(nil), commit.Signatures...)
		commit.Signatures[0], commit.Signatures[1] = types.NewCommitSigAbsent(), types.NewCommitSigAbsent()
		return &types.LightBlock{SignedHeader: &types.SignedHeader{Header: b.Header, Commit: &commit}, ValidatorSet: b.ValidatorSet}
	}})
	chain.Block()
	if p, err := mixed.Row(within(t, time.Second), key, 0); err == nil {
		t.Errorf("a header signed by half of the validators is believed: height %d", p.Height)
	}
	// A value that one node proves is one, however the other one lies.
	honest, lying := chain.Serve(), chain.Serve()
	both := dial(t, lying, honest)
	lying.Lie(lies["changes the value"])
	if _, err := both.Row(soon(t), key, 0); err != nil {
		t.Errorf("one honest node is not enough: %v", err)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "stale", alice.Address())
	n := chain.Serve()
	c, err := client.Dial(soon(t), client.Options{Nodes: []string{n.URL}, Genesis: chain.Doc, MaxStaleness: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if _, err := c.Parameters(within(t, 300*time.Millisecond), 0); !errors.Is(err, client.ErrStale) {
		t.Errorf("a chain that stands still: %v, want ErrStale", err)
	}
	if _, err := c.Parameters(soon(t), 1); err != nil {
		t.Errorf("an old height that was asked for: %v", err)
	}
	chain.Run(20 * time.Millisecond)
	if _, err := c.Parameters(soon(t), 0); err != nil {
		t.Errorf("a new block is waited for: %v", err)
	}
}

func TestLiesAboutReceipts(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "receipts", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	raw, built := signed(t, c, pay(1))
	f, err := c.Send(soon(t), raw, built.Before)
	if err != nil {
		t.Fatal(err)
	}
	otherRaw, otherBuilt := signed(t, c, pay(2))
	if _, err := c.Send(soon(t), otherRaw, otherBuilt.Before); err != nil {
		t.Fatal(err)
	}
	inclusion := func(change func(p *proof.Inclusion)) clienttest.Lies {
		return clienttest.Lies{Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) {
			p, err := proof.DecodeInclusion(a.Value)
			if err != nil {
				t.Error(err)
			}
			change(&p)
			a.Value = p.Encode()
		}}
	}
	other := otherBuilt.ID()
	for name, l := range map[string]clienttest.Lies{
		"receipt of another transaction": {Question: func(q *abci.RequestQuery) { q.Data = other[:] }},
		"another height":                 {Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Height-- }},
		"height 0":                       {Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Height = 0 }},
		"another result": inclusion(func(p *proof.Inclusion) {
			p.Result = proof.EncodeResult(uint32(ledger.InsufficientFunds), ledger.Receipt{TxID: built.ID(), Code: ledger.InsufficientFunds}.Encode())
		}),
		"another index": inclusion(func(p *proof.Inclusion) { p.Index, p.Total = 1, 2 }),
		"other bytes":   inclusion(func(p *proof.Inclusion) { p.Tx = otherRaw }),
		"nothing":       {Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Value = nil }},
	} {
		n.Lie(l)
		if got, found, err := c.Find(soon(t), built.ID()); err == nil || found {
			t.Errorf("%s: %+v is believed", name, got)
		}
		if _, err := c.Wait(within(t, 100*time.Millisecond), built.ID()); client.OutcomeOf(client.Final{}, err) != client.Uncertain {
			t.Errorf("%s: %v, want an unknown outcome", name, err)
		}
	}
	n.Lie(clienttest.Lies{})
	if got, found, err := c.Find(soon(t), built.ID()); err != nil || !found || got.Height != f.Height {
		t.Errorf("the truth: %+v, %v", got, err)
	}
	if _, found, err := c.Find(soon(t), crypto.Hash{1}); err != nil || found {
		t.Errorf("an unknown id: %v, %v", found, err)
	}
}

func TestTrustHeader(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "trust", alice.Address())
	chain.Block()
	n := chain.Serve()
	root, err := client.ParseTrust("2:" + chain.Header(2).Hash().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(soon(t), client.Options{Nodes: []string{n.URL}, ChainID: "trust", Trust: root})
	if err != nil {
		t.Fatal(err)
	}
	if c.NetworkID() != chain.Network {
		t.Errorf("network %+v, want %+v", c.NetworkID(), chain.Network)
	}
	root.Hash[0] ^= 1
	if _, err := client.Dial(soon(t), client.Options{Nodes: []string{n.URL}, ChainID: "trust", Trust: root}); err == nil {
		t.Error("a header with another hash is trusted")
	}
	for _, bad := range []string{"", "2", "0:" + strings.Repeat("00", 32), "2:00", "-1:" + strings.Repeat("00", 32), "2:" + strings.Repeat("0g", 32)} {
		if _, err := client.ParseTrust(bad); err == nil {
			t.Errorf("trust %q is read", bad)
		}
	}
}

func TestPolicyAndHint(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "policy", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	raw, built := signed(t, c, pay(1))
	if _, err := c.Send(soon(t), raw, built.Before); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Policy(soon(t), crypto.Hash(alice.Address())); err != nil || !p.Equal(alice.Policy()) {
		t.Errorf("policy %v, %v", p, err)
	}
	if h, err := c.AccountHint(soon(t), alice.Address()); err != nil || !h.Known || h.NextSequence != 1 {
		t.Errorf("hint %+v, %v", h, err)
	}
	n.Lie(clienttest.Lies{Answer: func(_ *abci.RequestQuery, a *abci.ResponseQuery) { a.Value = bob.Policy().Encode() }})
	if _, err := c.Policy(soon(t), crypto.Hash(alice.Address())); !errors.Is(err, proof.ErrInvalid) {
		t.Errorf("another policy: %v", err)
	}
}
