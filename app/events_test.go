package app

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

var update = flag.Bool("update", false, "write the table of events into docs/PROTOCOL.md")

// TestEventsAreDocumented compares the table in docs/PROTOCOL.md with that of the code.
func TestEventsAreDocumented(t *testing.T) {
	const page, begin, end = "../docs/PROTOCOL.md", "<!-- events -->\n", "<!-- end of events -->"
	var table strings.Builder
	table.WriteString("| Event | Of what | Attributes |\n|---|---|---|\n")
	for _, e := range eventTable {
		fmt.Fprintf(&table, "| `%s` | %s | `%s` |\n", e.name, e.when, strings.Join(strings.Fields(e.attributes), "`, `"))
	}
	text := string(must[[]byte](t)(os.ReadFile(page)))
	before, rest, ok := strings.Cut(text, begin)
	documented, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no place for the events", page)
	}
	if documented == table.String() {
		return
	}
	if !*update {
		t.Fatalf("%s documents other events; run go test ./app -run TestEventsAreDocumented -update\n%s", page, table.String())
	}
	if err := os.WriteFile(page, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// seenEvents collects what blocks emit, and compares it with the table.
type seenEvents map[string]int

func (s seenEvents) add(t *testing.T, events []abci.Event) {
	t.Helper()
	for _, e := range events {
		s[e.Type]++
		var keys []string
		for _, a := range e.Attributes {
			keys = append(keys, a.Key)
			if a.Value == "" {
				t.Errorf("%s of the event %s is empty", a.Key, e.Type)
			}
		}
		if got, want := strings.Join(keys, " "), strings.Join(eventAttributes[e.Type], " "); got != want {
			t.Errorf("event %s has %s, documented are %s", e.Type, got, want)
		}
	}
}

// complete fails for every event of the table that was not seen.
func (s seenEvents) complete(t *testing.T) {
	t.Helper()
	for _, e := range eventTable {
		if s[e.name] == 0 {
			t.Errorf("no event %s", e.name)
		}
	}
}

// TestEvents shows the events of a transfer, of a hold that is posted and of one that expires.
func TestEvents(t *testing.T) {
	w, a, b := started(t)
	x, y := w.actors[1], w.actors[2]
	show := func(events []abci.Event) string {
		var lines []string
		for _, e := range events {
			line := e.Type
			for _, at := range e.Attributes {
				line += " " + at.Key + "=" + at.Value
			}
			lines = append(lines, line)
		}
		text := strings.Join(lines, "\n")
		for _, p := range []*actor{x, y} {
			text = strings.ReplaceAll(text, p.address.String(), p.name)
		}
		return strings.ReplaceAll(text, fmt.Sprintf("%x", w.fee), "EUR")
	}
	hold := func(expires uint64) *ledger.CreateHold {
		return &ledger.CreateHold{To: y.address, Asset: w.fee, Amount: ledger.Units(9), Expires: expires, PostBy: ledger.ByReceiver}
	}
	now := uint64(b.time.Unix())
	b.txs = [][]byte{w.build(order{signers: []*actor{x}, sponsor: y, operations: []ledger.Operation{
		&ledger.Transfer{To: y.address, Asset: w.fee, Amount: ledger.MaxAmount, Balancing: ledger.BalancingDebit},
		&ledger.Transfer{To: y.address, Asset: w.fee, Amount: ledger.Units(1)}}})} // fails, and has moved nothing
	answer := finalize(t, a, b)
	id, fee := receiptOf(t, answer.TxResults[0])
	if got, want := show(answer.TxResults[0].Events), fmt.Sprintf("tx id=%s fee=%s fee_payer=%s deposit=0", id, fee, y.name); got != want {
		t.Errorf("a failed transaction has the events\n%s\nwant\n%s", got, want)
	}
	commit(t, a)
	w.sync(a)
	b = block{height: b.height + 1, time: b.time}
	b.txs = [][]byte{w.build(order{signers: []*actor{x}, operations: []ledger.Operation{
		&ledger.Transfer{To: y.address, Asset: w.fee, Amount: ledger.Units(5)}, hold(now + 50), hold(now + 1)}})}
	answer = finalize(t, a, b)
	id, fee = receiptOf(t, answer.TxResults[0])
	want := fmt.Sprintf(`tx id=%[1]s fee=%[2]s fee_payer=%[3]s deposit=0
message action=transfer module=ledger sender=%[3]s msg_index=0
transfer sender=%[3]s recipient=%[4]s amount=5 asset=EUR
message action=create_hold module=ledger sender=%[3]s msg_index=1
ledger.hold_created hold=%[5]s sender=%[3]s recipient=%[4]s amount=9 asset=EUR
message action=create_hold module=ledger sender=%[3]s msg_index=2
ledger.hold_created hold=%[6]s sender=%[3]s recipient=%[4]s amount=9 asset=EUR`, id, fee, x.name, y.name, ledger.HoldID(id, 1), ledger.HoldID(id, 2))
	if got := show(answer.TxResults[0].Events); got != want || len(answer.Events) != 0 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	commit(t, a)
	first, second := ledger.HoldID(id, 1), ledger.HoldID(id, 2)
	w.sync(a)
	b = block{height: b.height + 1, time: b.time.Add(2e9)}
	b.txs = [][]byte{w.build(order{signers: []*actor{y}, operations: []ledger.Operation{&ledger.PostHold{Hold: first, Amount: ledger.Units(4)}}})}
	answer = finalize(t, a, b)
	id, fee = receiptOf(t, answer.TxResults[0])
	want = fmt.Sprintf(`tx id=%[1]s fee=%[2]s fee_payer=%[4]s deposit=0
message action=post_hold module=ledger sender=%[4]s msg_index=0
ledger.hold_posted hold=%[5]s amount=4
transfer sender=%[3]s recipient=%[4]s amount=4 asset=EUR`, id, fee, x.name, y.name, first)
	if got := show(answer.TxResults[0].Events); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := show(answer.Events), fmt.Sprintf("ledger.hold_expired hold=%s amount=9 sender=%s recipient=%s asset=EUR", second, x.name, y.name); got != want {
		t.Errorf("the block has the events\n%s\nwant\n%s", got, want)
	}
	commit(t, a)
}

func receiptOf(t *testing.T, r *abci.ExecTxResult) (id crypto.Hash, fee ledger.Amount) {
	t.Helper()
	receipt := must[ledger.Receipt](t)(ledger.DecodeReceipt(r.Data))
	return receipt.TxID, receipt.Fee
}
