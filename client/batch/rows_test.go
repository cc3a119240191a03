package batch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

var errLookup = errors.New("no node answers")

// lookup knows bob, the payer "me", and COIN with two decimals; it cannot find out about DARK.
var lookup = Lookup{
	Account: func(text string) (crypto.Address, error) {
		switch text {
		case "bob":
			return crypto.Address{5}, nil
		case "me":
			return payer, nil
		}
		return crypto.Address{}, fmt.Errorf("to %q is nobody", text)
	},
	Asset: func(code string) (ledger.AssetID, ledger.Asset, bool, error) {
		switch code {
		case "COIN":
			return coin, ledger.Asset{Code: code, Scale: 2}, true, nil
		case "DARK":
			return coin, ledger.Asset{}, false, errLookup
		}
		return ledger.AssetID{}, ledger.Asset{}, false, nil
	},
}

func TestReadRows(t *testing.T) {
	t.Parallel()
	// A spreadsheet's mark and line ends, columns in another order, quotes, lines and commas in cells, an empty line.
	file := "\xef\xbb\xbfto,asset,id,amount,reference,memo\r\n" +
		"bob,COIN,\"a, \"\"1\"\"\",1.5,,\"two\r\nlines\"\r\n" +
		"\r\n" +
		"bob,COIN,b,0.01,4f5c1d0e-7a0e-4a51-9f5e-0d7c2a9a1b11,\r\n"
	rows, problems, err := ReadRows(strings.NewReader(file), payer, lookup)
	if err != nil || problems != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v, %v", len(rows), problems, err)
	}
	payment, err := client.NewPayment(payer, `a, "1"`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Row{
		{2, `a, "1"`, "COIN", 2, ledger.Transfer{To: crypto.Address{5}, Asset: coin, Amount: ledger.Units(150), Reference: payment.Reference, Memo: "two\nlines"}},
		{5, "b", "COIN", 2, ledger.Transfer{To: crypto.Address{5}, Asset: coin, Amount: ledger.Units(1), Reference: ledger.Reference{0x4f, 0x5c, 0x1d, 0x0e, 0x7a, 0x0e, 0x4a, 0x51, 0x9f, 0x5e, 0x0d, 0x7c, 0x2a, 0x9a, 0x1b, 0x11}}},
	} {
		if rows[i] != want {
			t.Errorf("row %d is %+v, want %+v", i, rows[i], want)
		}
	}
}

// TestBadFiles: what is said about files that cannot be paid.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	const header = "id,to,amount,asset,memo,reference\n"
	for _, c := range []struct{ file, want string }{
		{"", "the file is empty: want a header row"},
		{"\xef\xbb\xbf", "the file is empty"},
		{header, "no payment"},
		{"id,to,amount,asset\n\n\n", "no payment"},
		{"id,to,amount\n", `line 1: column "asset" is missing`},
		{"id,to,amount,asset,id\n", `line 1: column "id" stands twice`},
		{"id,to,amount,asset, memo\n", `line 1: unknown column " memo"`},
		{`"id` + "\n", "reading the header row"},
		{header + "a,bob,1,COIN,,\nb,bob,1,COIN,\"x,\nc,me,1,COIN,,\n", `line 3: extraneous or missing " in quoted-field; what follows was not looked at`},
		{header + "a,bob,1,COIN,x\"y,\n", `line 2: bare " in non-quoted-field`},
		{header + "a,,1,COIN,,\n", "line 2: to is empty"},
		{header + "a,me,1,COIN,,\n", `line 2: to "me" is the account that pays`},
		{header + "a,bob,1,coin,,\n", `line 2: there is no asset "coin"; codes are upper case`},
		{header + "a,bob,1,DARK,,\n", "no node answers"},
		{header + "a,bob,\"1,000\",COIN,,\n", `line 2: amount "1,000": ',' is not a digit`},
		{header + "a,bob,-1,COIN,,\n", `line 2: amount "-1"`},
		{header + "a,bob, 1,COIN,,\n", `line 2: amount " 1"`},
		{header + "a,bob,1.001,COIN,,\n", "has 3 decimals, the asset has 2"},
		{header + "a,bob,1e3,COIN,,\n", `line 2: amount "1e3"`},
		{header + "a,bob,0.00,COIN,,\n", "line 2: the amount is 0"},
		{header + "a,bob,1,COIN," + strings.Repeat("x", 257) + ",\n", "line 2: the memo has 257 bytes, want at most 256"},
		{header + "a,bob,1,COIN,\xff,\n", "line 2: the memo has 1 bytes, want at most 256 of UTF-8"},
		{header + "a,bob,1,COIN,,xyz\n", `line 2: reference "xyz": want 32 hex digits or a UUID`},
		{header + strings.Repeat("y", 257) + ",bob,1,COIN,,\n", "line 2: the payment id has 257 bytes"},
		{header + "a,bob,1,COIN,\"two\nlines\",\na,bob,1,COIN,,\n", `line 4: id "a" stands in line 2 already`},
		{header + ",,,,,\n", "the file has 3 problems, and nothing was sent\nline 2: the payment id is empty\nline 2: to is empty\nline 2: there is no asset"},
		{"id,to,amount,asset\n" + strings.Repeat("a;bob;1;COIN\n", 25), "line 21: 1 cells, the header row has 4\nand 5 more"},
	} {
		_, problems, err := ReadRows(strings.NewReader(c.file), payer, lookup)
		if err == nil {
			err = problems
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want %s", c.file, err, c.want)
		}
	}
	long := "id,to,amount,asset\n" + strings.Repeat("a,bob,1,COIN\n", MaxRows+1)
	if _, _, err := ReadRows(strings.NewReader(long), payer, lookup); err == nil || !strings.Contains(err.Error(), "more than 100000 rows") {
		t.Errorf("too long: %v", err)
	}
}

func FuzzReadRows(f *testing.F) {
	f.Add([]byte("id,to,amount,asset\na,bob,1,COIN\n"))
	f.Add([]byte("\xef\xbb\xbfid,to,amount,asset,memo,reference\r\n\"a\n\",bob,0.01,COIN,\"\",4f5c1d0e7a0e4a519f5e0d7c2a9a1b11\r\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		rows, problems, err := ReadRows(strings.NewReader(string(file)), payer, lookup)
		if err == nil && problems == nil && len(rows) == 0 {
			t.Error("nothing is said about a file without a payment")
		}
		seen := map[string]bool{}
		for _, r := range rows {
			body := ledger.Body{Signers: []ledger.Signer{{Address: payer, Sequence: 1}}, Operations: []ledger.Operation{&r.Transfer}}
			if err := body.Validate(); err != nil || seen[r.ID] {
				t.Errorf("%+v: %v, twice %t", r, err, seen[r.ID])
			}
			seen[r.ID] = true
		}
	})
}

func TestClearResult(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.csv")
	if err := ClearResult(path); err != nil {
		t.Errorf("no file: %v", err)
	}
	for text, ok := range map[string]bool{strings.Join(resultHeader, ",") + "\na,paid\n": true, strings.Join(resultHeader, ",") + "\r\n": true, "": false, "id,to\n": false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := ClearResult(path)
		if _, statErr := os.Stat(path); ok != (err == nil) || ok != (statErr != nil) || !ok && !errors.Is(err, ErrNoResult) {
			t.Errorf("%q: %v, %v", text, err, statErr)
		}
	}
}
