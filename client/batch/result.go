package batch

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// resultHeader is the header row of a result file.
var resultHeader = []string{"id", "status", "tx", "operation", "height", "code", "fee", "fee_asset"}

// WriteResult writes what became of each row as CSV, in the order of the rows. code is the receipt's by name, "ok" for what
// is paid, or the one that nodes refused an unknown row with. Fees are in decimals of the fee asset.
func WriteResult(w io.Writer, r Report, fee Funds) error {
	out := csv.NewWriter(w)
	if err := out.Write(resultHeader); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	for _, row := range r.Results {
		record := []string{row.ID, string(row.Status), "", "", "", "", row.Fee.Format(fee.Scale), fee.Code}
		if row.Tx != (crypto.Hash{}) {
			record[2], record[3] = row.Tx.String(), strconv.Itoa(row.Operation)
		}
		if row.Height != 0 {
			record[4] = strconv.FormatUint(row.Height, 10)
		}
		if row.Status == Paid || row.Code != ledger.OK {
			record[5] = row.Code.String()
		}
		if err := out.Write(record); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
	}
	out.Flush()
	return out.Error()
}

// ErrNoResult is wrapped by the error for a file that stands where a result is to be written and is none.
var ErrNoResult = errors.New("it is not a result of an earlier run")

// ClearResult removes the result of an earlier run, so that none stands there while its rows are being paid. Any other
// file is an error.
func ClearResult(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the result file: %w", err)
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 1024)).ReadString('\n')
	if strings.TrimRight(line, "\r\n") != strings.Join(resultHeader, ",") {
		return fmt.Errorf("%s: %w", path, ErrNoResult)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the result of an earlier run: %w", err)
	}
	return nil
}
