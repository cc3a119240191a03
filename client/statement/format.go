package statement

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Formats are the names that [Statement.Write] takes.
var Formats = []string{"table", "csv", "json", "hledger", "beancount"}

// Write writes the statement in a format. The same statement gives the same bytes. After an error w has a part of it, which
// is of no use: write to something that can be thrown away.
func (s *Statement) Write(ctx context.Context, w io.Writer, format string) error {
	write := map[string]func(context.Context, *bufio.Writer) error{
		"table": s.table, "csv": s.csv, "json": s.json, "hledger": s.hledger, "beancount": s.beancount,
	}[format]
	if write == nil {
		return fmt.Errorf("format %q: want %s", format, strings.Join(Formats, ", "))
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := write(ctx, out); err != nil {
		return err
	}
	return out.Flush() // holds the first error of writing
}

// Summary says in one line what was proven.
func (s *Statement) Summary() string {
	from := map[Origin]string{
		Beginning: "from its beginning",
		State:     fmt.Sprintf("from entry %d, proven at height %d,", s.Opening.Mark.Entries, s.Opening.Height),
		Cut:       fmt.Sprintf("from its beginning, cut behind height %d,", s.Opening.Height),
	}[s.Opening.Origin]
	to := fmt.Sprintf("to entry %d, proven at height %d by header %d", s.Proof.Mark.Entries, s.Proof.Height, s.Proof.Header)
	if s.Closing.Origin == Cut {
		to += fmt.Sprintf(", cut behind height %d", s.Last)
	}
	text := fmt.Sprintf("complete, %d %s: the journal folds %s %s", s.Count, plural(s.Count, "entry", "entries"), from, to)
	if s.Earlier {
		text += "; the account closed lines before this one was opened, and one of the same asset would have had a journal of " +
			"its own, which is not in here"
	}
	return text
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// decimal writes an amount of the statement's asset.
func (s *Statement) decimal(n *big.Int) string { return Decimal(n, s.Scale) }

// change writes an amount with its sign.
func (s *Statement) change(n *big.Int) string {
	if n.Sign() > 0 {
		return "+" + s.decimal(n)
	}
	return s.decimal(n)
}

// who names the other side of an entry, "" when there is none.
func (e Entry) who() string {
	switch {
	case e.Name != "":
		return e.Name
	case e.Counterparty != crypto.Address{}:
		return e.Counterparty.String()
	}
	return ""
}

// holds says what an entry changed in the pending counters, "" when nothing.
func (s *Statement) holds(e Entry) string {
	var parts []string
	if e.PendingIn.Sign() != 0 {
		parts = append(parts, "pending in "+s.change(e.PendingIn))
	}
	if e.PendingOut.Sign() != 0 {
		parts = append(parts, "pending out "+s.change(e.PendingOut))
	}
	return strings.Join(parts, ", ")
}

// plain makes one line of a stranger's text: nothing in it ends a line or acts on a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// title names the account and its asset.
func (s *Statement) title() string {
	if s.Name == "" {
		return s.Account.String()
	}
	return s.Name + " (" + s.Account.String() + ")"
}

// table writes for people.
func (s *Statement) table(ctx context.Context, w *bufio.Writer) error {
	fmt.Fprintf(w, "Statement of %s in %s\n", s.title(), s.Asset)
	fmt.Fprintf(w, "Blocks %d to %d, %s to %s\n\n", s.First, s.Last, s.FirstTime.Format(time.RFC3339), s.LastTime.Format(time.RFC3339))
	number := max(len("HEIGHT"), len(strconv.FormatUint(s.Last, 10)))
	amount := max(len("BALANCE"), s.widest)
	row := func(time, height, kind, change, balance, rest string) {
		line := fmt.Sprintf("%-20s  %*s  %-15s  %*s  %*s  %s", time, number, height, kind, amount, change, amount, balance, rest)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	total := func(name string, p Point) {
		rest := s.holds(Entry{PendingIn: p.PendingIn, PendingOut: p.PendingOut})
		row("", strconv.FormatUint(p.Height, 10), name, "", s.decimal(p.Balance), strings.TrimSpace(s.Asset+"  "+rest))
	}
	row("TIME", "HEIGHT", "KIND", "AMOUNT", "BALANCE", "COUNTERPARTY")
	total("opening balance", s.Opening)
	for e, err := range s.Entries(ctx) {
		if err != nil {
			return err
		}
		rest := []string{e.who()}
		if pending := s.holds(e); pending != "" {
			rest = append(rest, "["+pending+"]")
		}
		if e.Memo != "" {
			rest = append(rest, strconv.Quote(plain(e.Memo)))
		}
		if e.Reference != "" {
			rest = append(rest, "reference "+e.Reference)
		}
		row(e.Time.Format(time.RFC3339), strconv.FormatUint(e.Height, 10), e.Kind,
			s.change(e.Amount), s.decimal(e.Balance), strings.TrimSpace(strings.Join(rest, "  ")))
	}
	total("closing balance", s.Closing)
	fmt.Fprintf(w, "\n%s\n", s.Summary())
	return nil
}

// columns are those of the CSV, in their order.
var columns = []string{"number", "height", "time", "kind", "tx_id", "operation", "counterparty", "counterparty_name", "amount", "asset", "balance",
	"pending_in", "pending_out", "memo", "reference", "code", "hold"}

// csv writes entries only, for programs: RFC 4180 with a header, and lines that end with a line feed. Memos are one
// line of what can be printed; JSON has them as they are.
func (s *Statement) csv(ctx context.Context, w *bufio.Writer) error {
	out := csv.NewWriter(w)
	_ = out.Write(columns) // its errors are w's, which are seen at the end
	for e, err := range s.Entries(ctx) {
		if err != nil {
			return err
		}
		v := s.view(e)
		operation := ""
		if v.Operation != nil {
			operation = strconv.FormatUint(uint64(*v.Operation), 10)
		}
		_ = out.Write([]string{strconv.FormatUint(v.Number, 10), strconv.FormatUint(v.Height, 10), v.Time, v.Kind, v.TxID, operation, v.Counterparty, v.Name,
			v.Amount, s.Asset, v.Balance, v.PendingIn, v.PendingOut, plain(v.Memo), v.Reference, strconv.FormatUint(uint64(v.Code), 10), v.Hold})
	}
	out.Flush()
	return out.Error()
}

// entryView is an entry in JSON. Amounts are decimals of the asset, signed.
type entryView struct {
	Number       uint64  `json:"number"`
	Height       uint64  `json:"height"`
	Time         string  `json:"time"`
	Kind         string  `json:"kind"`
	TxID         string  `json:"tx_id,omitempty"`
	Operation    *uint32 `json:"operation,omitempty"`
	Counterparty string  `json:"counterparty,omitempty"`
	Name         string  `json:"counterparty_name,omitempty"`
	Amount       string  `json:"amount"`
	Balance      string  `json:"balance"`
	PendingIn    string  `json:"pending_in"`
	PendingOut   string  `json:"pending_out"`
	Memo         string  `json:"memo,omitempty"`
	Reference    string  `json:"reference,omitempty"`
	Code         uint32  `json:"code,omitempty"`
	Hold         string  `json:"hold,omitempty"`
}

func (s *Statement) view(e Entry) entryView {
	v := entryView{Number: e.Number, Height: e.Height, Time: stamp(e.Time), Kind: e.Kind, Name: e.Name,
		Amount: s.decimal(e.Amount), Balance: s.decimal(e.Balance),
		PendingIn: s.decimal(e.PendingIn), PendingOut: s.decimal(e.PendingOut), Memo: e.Memo, Reference: e.Reference, Code: e.Code}
	if e.TxID != (crypto.Hash{}) {
		v.TxID, v.Operation = e.TxID.String(), &e.Operation
	}
	if e.Hold != (crypto.Hash{}) {
		v.Hold = e.Hold.String()
	}
	if e.Counterparty != (crypto.Address{}) {
		v.Counterparty = e.Counterparty.String()
	}
	return v
}

// pointView is one end of the statement in JSON.
type pointView struct {
	Height     uint64      `json:"height"`
	Balance    string      `json:"balance"`
	PendingIn  string      `json:"pending_in"`
	PendingOut string      `json:"pending_out"`
	Entries    uint64      `json:"entries"`
	Head       crypto.Hash `json:"head"`
	Origin     Origin      `json:"origin"`
}

func (s *Statement) pointView(p Point) pointView {
	return pointView{p.Height, s.decimal(p.Balance), s.decimal(p.PendingIn), s.decimal(p.PendingOut), p.Mark.Entries, p.Mark.Head, p.Origin}
}

// statementView is all of the JSON but the entries, which follow as its last field.
type statementView struct {
	ChainID   string         `json:"chain_id"`
	NetworkID crypto.Hash    `json:"network_id"`
	Account   crypto.Address `json:"account"`
	Name      string         `json:"name,omitempty"`
	Asset     string         `json:"asset"`
	AssetID   string         `json:"asset_id"`
	Scale     uint32         `json:"scale"`
	First     uint64         `json:"first_height"`
	FirstTime string         `json:"first_time"`
	Last      uint64         `json:"last_height"`
	LastTime  string         `json:"last_time"`
	Opening   pointView      `json:"opening"`
	Closing   pointView      `json:"closing"`
	Proof     proofView      `json:"proof"`
	Earlier   bool           `json:"earlier_lines"`
	Count     uint64         `json:"count"`
}

type proofView struct {
	Height      uint64      `json:"height"`
	Entries     uint64      `json:"entries"`
	Head        crypto.Hash `json:"head"`
	Header      uint64      `json:"header_height"`
	HeaderHash  string      `json:"header_hash"`
	Incarnation uint64      `json:"incarnation"`
}

// json writes one object, an entry to a line. Entries are written as they come, so the object is put together by hand.
func (s *Statement) json(ctx context.Context, w *bufio.Writer) error {
	encode := func(v any, indent string) ([]byte, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", indent)
		err := e.Encode(v)
		return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
	}
	head, err := encode(statementView{ChainID: s.ChainID, NetworkID: s.NetworkID, Account: s.Account, Name: s.Name,
		Asset: s.Asset, AssetID: hex.EncodeToString(s.AssetID[:]), Scale: s.Scale,
		First: s.First, FirstTime: stamp(s.FirstTime), Last: s.Last, LastTime: stamp(s.LastTime),
		Opening: s.pointView(s.Opening), Closing: s.pointView(s.Closing),
		Proof: proofView{s.Proof.Height, s.Proof.Mark.Entries, s.Proof.Mark.Head, s.Proof.Header, hex.EncodeToString(s.Proof.Hash),
			s.Proof.Mark.Incarnation}, Earlier: s.Earlier, Count: s.Count}, "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s,\n  \"entries\": [", bytes.TrimSuffix(head, []byte("\n}")))
	separator := "\n    "
	for e, err := range s.Entries(ctx) {
		if err != nil {
			return err
		}
		line, err := encode(s.view(e), "")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s%s", separator, line)
		separator = ",\n    "
	}
	if s.Count > 0 {
		fmt.Fprint(w, "\n  ")
	}
	fmt.Fprint(w, "]\n}\n")
	return nil
}
