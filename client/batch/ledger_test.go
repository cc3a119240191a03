package batch

import (
	"fmt"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestOnAChain pays a file under the ledger's real rules, over HTTP, with proofs. One receiver's line is full.
func TestOnAChain(t *testing.T) {
	t.Parallel()
	alice, bob, full := clienttest.Signer("alice"), clienttest.Signer("bob"), clienttest.Signer("full")
	chain := clienttest.New(t, "batch", alice.Address(), bob.Address(), full.Address())
	chain.Run(10 * time.Millisecond)
	c, err := client.Dial(t.Context(), client.Options{Nodes: []string{chain.Serve().URL}, Genesis: chain.Doc})
	if err != nil {
		t.Fatal(err)
	}
	do := func(by *client.Keys, ops ...ledger.Operation) {
		t.Helper()
		b, err := c.Build(t.Context(), client.Intent{Signers: []crypto.Address{by.Address()}, Known: []crypto.Policy{by.Policy()}, Operations: ops})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Sign(by); err != nil {
			t.Fatal(err)
		}
		raw, err := b.Raw()
		if err != nil {
			t.Fatal(err)
		}
		if f, err := c.Send(t.Context(), raw, b.Before); client.OutcomeOf(f, err) != client.Committed {
			t.Fatalf("code %s: %v", f.Receipt.Code, err)
		}
	}
	// All that can be credited to full's line has been: it gets everything but 1,000, passes it on, and gets 1,000 of it back.
	big := ledger.NewAssetID(alice.Address(), "BIG")
	most, _ := ledger.MaxAmount.Sub(ledger.Units(1000))
	do(alice, &ledger.CreateAsset{Code: "BIG", Scale: 1, MaxSupply: ledger.MaxAmount}, &ledger.Transfer{To: full.Address(), Asset: big, Amount: most})
	do(full, &ledger.Transfer{To: bob.Address(), Asset: big, Amount: most})
	do(bob, &ledger.Transfer{To: full.Address(), Asset: big, Amount: ledger.Units(1000)})

	var rows []Row
	var sum uint64
	for i := range 40 {
		row := Row{Line: i + 2, ID: fmt.Sprint("row ", i), AssetCode: "BIG", Scale: 1}
		payment, err := client.NewPayment(alice.Address(), row.ID)
		if err != nil {
			t.Fatal(err)
		}
		row.Transfer = ledger.Transfer{To: bob.Address(), Asset: big, Amount: ledger.Units(uint64(i) + 1), Reference: payment.Reference}
		if i == 13 {
			row.Transfer.To = full.Address()
		} else {
			sum += uint64(i) + 1
		}
		rows = append(rows, row)
	}
	l := &Ledger{Client: c, Account: alice.Address(), Known: []crypto.Policy{alice.Policy()}, Sign: func(d *client.Draft, _ client.SigningAccount) error {
		_, err := d.Sign(alice)
		return err
	}}
	if f, err := l.Available(t.Context(), big); err != nil || f.Amount != ledger.Units(1000) {
		t.Fatalf("the issuer can pay %s, want 1000: %v", f.Amount, err)
	}
	before, err := c.Line(t.Context(), ledger.LineKey{Account: bob.Address(), Asset: big}, 0)
	if err != nil {
		t.Fatal(err)
	}
	pac := ledger.NewAssetID(clienttest.Signer("bank").Address(), "PAC")
	funds, err := l.Available(t.Context(), pac)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var report Report
	for range 2 {
		j, err := OpenJournal(dir, c.NetworkID().ID, alice.Address(), nil)
		if err != nil {
			t.Fatal(err)
		}
		report, err = Run(t.Context(), Options{Rows: rows, Journal: j, Chain: l, PerTransaction: 20})
		j.Close()
		if err != nil || report.Stopped != nil || report.Counts[Paid] != 39 || report.Counts[Failed] != 1 {
			t.Fatalf("%v, %v, %v", report.Counts, err, report.Stopped)
		}
	}
	if report.Sent != 1 {
		t.Errorf("the second run sent %d, want only the row that had failed", report.Sent)
	}
	if r := report.Results[13]; r.Status != Failed || r.Code != ledger.CounterOverflow || r.Operation != 0 || r.Height == 0 {
		t.Errorf("the full line's row: %+v", r)
	}
	for _, r := range report.Results {
		f, found, err := c.Find(t.Context(), r.Tx)
		if err != nil || !found {
			t.Fatalf("%s: %v", r.ID, err)
		}
		if op := f.Tx.Body.Operations[r.Operation].(*ledger.Transfer); *op != r.Transfer || f.Height != r.Height || f.Receipt.Code != r.Code {
			t.Errorf("%s is said to be operation %d of %s: %+v", r.ID, r.Operation, r.Tx, op)
		}
	}
	after, err := c.Line(t.Context(), ledger.LineKey{Account: bob.Address(), Asset: big}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := after.Value.Available().Sub(before.Value.Available()); got != ledger.Units(sum) {
		t.Errorf("bob got %s, want %d", got, sum)
	}
	left, err := l.Available(t.Context(), pac)
	if err != nil {
		t.Fatal(err)
	}
	if spent, _ := funds.Amount.Sub(left.Amount); spent != report.Fees {
		t.Errorf("the rows' shares of the fees are %s, the account paid %s", report.Fees, spent)
	}
	// What it would cost is what it costs, when nothing fails.
	j, err := OpenJournal(t.TempDir(), c.NetworkID().ID, alice.Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	asset, cost, err := l.Cost(t.Context(), [][]ledger.Transfer{{rows[0].Transfer, rows[1].Transfer}, {rows[2].Transfer}}, true)
	if err != nil || asset != pac {
		t.Fatal(err)
	}
	report, err = Run(t.Context(), Options{Rows: rows[:3], Journal: j, Chain: l, PerTransaction: 2})
	if err != nil || report.Fees != cost {
		t.Errorf("fees of %s, said before %s: %v", report.Fees, cost, err)
	}
}
