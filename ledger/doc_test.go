package ledger

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestCodesTable: the table in docs/PROTOCOL.md is that of the code.
func TestCodesTable(t *testing.T) {
	const path, begin, end = "../docs/PROTOCOL.md", "<!-- codes -->\n", "<!-- end of codes -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table of codes", path)
	}
	var table strings.Builder
	table.WriteString("| Code | Name | Meaning | Remedy |\n|---|---|---|---|\n")
	last := -1
	for _, e := range Explanations() {
		fmt.Fprintf(&table, "| %d | `%s` | %s | %s |\n", e.Code, e.Name, e.Meaning, e.Remedy)
		if int(e.Code) <= last || strings.ContainsAny(e.Meaning+e.Remedy, "|\n") || e.Name != e.Code.String() {
			t.Errorf("explanation of %d is out of order, or does not fit a table", e.Code)
		}
		last = int(e.Code)
	}
	want := []byte(before + begin + table.String() + end + after)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(want, text) {
		t.Errorf("the table of codes in %s is not that of the code: run with -update", path)
	}
}
