package batch

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// MaxRows bounds a file: 100,000 rows take about 60 MB while they are paid, and 100 transactions of 1,000.
	MaxRows = 100_000
	// MaxFileBytes bounds a file: 100,000 rows with ids and memos of 256 bytes each, an address, and quotes.
	MaxFileBytes = 64 << 20
	// shownProblems is how many problems of a file an error names.
	shownProblems = 20
)

// Row is one payment of a file.
type Row struct {
	Line      int    // in the file, from 1
	ID        string // the payer's own
	AssetCode string
	Scale     uint32 // of the asset
	Transfer  ledger.Transfer
}

// Problem is what is wrong with a line of a file.
type Problem struct {
	Line int
	Text string
}

// Problems are all that is wrong with a file, ascending by line.
type Problems []Problem

func (p Problems) Error() string {
	var text strings.Builder
	noun := "problems"
	if len(p) == 1 {
		noun = "problem"
	}
	fmt.Fprintf(&text, "the file has %d %s, and nothing was sent", len(p), noun)
	for _, one := range p[:min(len(p), shownProblems)] {
		fmt.Fprintf(&text, "\nline %d: %s", one.Line, one.Text)
	}
	if len(p) > shownProblems {
		fmt.Fprintf(&text, "\nand %d more", len(p)-shownProblems)
	}
	return text.String()
}

// Sorted returns the problems ascending by line.
func (p Problems) Sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return p
}

// Lookup resolves what the cells of a file name. Each distinct text is asked for once.
type Lookup struct {
	// Account reads a name or an address.
	Account func(text string) (crypto.Address, error)
	// Asset finds an asset by its code. An error ends the reading: nothing could be found out.
	Asset func(code string) (id ledger.AssetID, asset ledger.Asset, found bool, err error)
}

// columns are those that a file may have; the first four it must have.
var columns = []string{"id", "to", "amount", "asset", "memo", "reference"}

// ReadRows reads a file of payments from an account: CSV as RFC 4180 has it, with a header row that names the columns, in
// any order. All problems of all rows are found in one go; rows without a problem are returned beside them. The error is
// for a file that cannot be read at all, or an asset that cannot be looked up.
func ReadRows(file io.Reader, from crypto.Address, look Lookup) ([]Row, Problems, error) {
	limited := &io.LimitedReader{R: file, N: MaxFileBytes + 1}
	buffered := bufio.NewReader(limited)
	if mark, _ := buffered.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) { // spreadsheets begin UTF-8 with it
		_, _ = buffered.Discard(3)
	}
	r := csv.NewReader(buffered)
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, errors.New("the file is empty: want a header row, as id,to,amount,asset,memo")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the header row: %w", err)
	}
	var problems Problems
	report := func(line int, format string, args ...any) {
		problems = append(problems, Problem{line, fmt.Sprintf(format, args...)})
	}
	at := map[string]int{}
	for i, name := range header {
		switch _, twice := at[name]; {
		case !slices.Contains(columns, name):
			report(1, "unknown column %q: want %s", name, strings.Join(columns, ", "))
		case twice:
			report(1, "column %q stands twice", name)
		}
		at[name] = i
	}
	for _, name := range columns[:4] {
		if _, ok := at[name]; !ok {
			report(1, "column %q is missing", name)
		}
	}
	if problems != nil {
		return nil, problems, nil // without the columns nothing of a row can be told
	}
	type account struct {
		address crypto.Address
		err     error
	}
	type asset struct {
		id    ledger.AssetID
		asset ledger.Asset
		found bool
	}
	accounts, assets, lines := map[string]account{}, map[string]asset{}, map[string]int{}
	var rows []Row
	for count := 0; ; count++ {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if limited.N <= 0 {
			return nil, nil, fmt.Errorf("the file has more than %d bytes: split it", MaxFileBytes)
		}
		if count == MaxRows {
			return nil, nil, fmt.Errorf("the file has more than %d rows: split it", MaxRows)
		}
		if err != nil {
			parse, ok := errors.AsType[*csv.ParseError](err)
			if !ok {
				return nil, nil, fmt.Errorf("reading the file: %w", err)
			}
			if errors.Is(err, csv.ErrFieldCount) {
				report(parse.StartLine, "%d cells, the header row has %d", len(record), len(header))
				continue
			}
			// Where a quoted cell ends is not known from here on.
			report(parse.StartLine, "%s; what follows was not looked at", parse.Err)
			break
		}
		line, _ := r.FieldPos(0)
		cell := func(name string) string {
			if i, ok := at[name]; ok {
				return record[i]
			}
			return ""
		}
		before := len(problems)
		row := Row{Line: line, ID: cell("id"), AssetCode: cell("asset")}
		payment, err := client.NewPayment(from, row.ID)
		if err != nil {
			report(line, "%s", err)
		} else if earlier, ok := lines[row.ID]; ok {
			report(line, "id %q stands in line %d already", row.ID, earlier)
		} else {
			lines[row.ID] = line
		}
		to, ok := accounts[cell("to")]
		if !ok {
			if to.address, to.err = look.Account(cell("to")); cell("to") == "" {
				to.err = errors.New("to is empty")
			}
			accounts[cell("to")] = to
		}
		switch {
		case to.err != nil:
			report(line, "%s", to.err)
		case to.address == from:
			report(line, "to %q is the account that pays", cell("to"))
		}
		of, ok := assets[row.AssetCode]
		if !ok {
			if ledger.CheckAssetCode(row.AssetCode) == nil {
				if of.id, of.asset, of.found, err = look.Asset(row.AssetCode); err != nil {
					return nil, nil, err
				}
			}
			assets[row.AssetCode] = of
		}
		row.Scale = of.asset.Scale
		amount, err := ledger.ParseAmount(cell("amount"), row.Scale)
		switch {
		case !of.found:
			report(line, "there is no asset %q; codes are upper case", row.AssetCode)
		case err != nil:
			report(line, "%s", err)
		case amount.IsZero():
			report(line, "the amount is 0")
		}
		reference := payment.Reference
		if text := cell("reference"); text != "" {
			if reference, err = client.ParseReference(text); err != nil {
				report(line, "reference %s", err)
			}
		}
		memo := cell("memo")
		if len(memo) > ledger.MaxMemoBytes || !utf8.ValidString(memo) {
			report(line, "the memo has %d bytes, want at most %d of UTF-8", len(memo), ledger.MaxMemoBytes)
		}
		if len(problems) == before {
			row.Transfer = ledger.Transfer{To: to.address, Asset: of.id, Amount: amount, Reference: reference, Memo: memo}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 && problems == nil {
		return nil, nil, errors.New("the file has a header row and no payment")
	}
	return rows, problems, nil
}

// Differs names the first detail in which two transfers differ; "" when they are the same.
func Differs(a, b ledger.Transfer) string {
	switch {
	case a.To != b.To:
		return "receiver"
	case a.Asset != b.Asset:
		return "asset"
	case a.Amount != b.Amount:
		return "amount"
	case a.Memo != b.Memo:
		return "memo"
	case a.Reference != b.Reference:
		return "reference"
	case a != b:
		return "content"
	}
	return ""
}
