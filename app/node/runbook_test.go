package node

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSettingsInRunbook holds the table of settings in docs/OPERATING.md against the settings.
func TestSettingsInRunbook(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "OPERATING.md"))
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	var table strings.Builder
	table.WriteString("| Key and flag | Variable | Default | What it is for |\n|---|---|---|---|\n")
	for _, k := range c.Keys() {
		value := k.Value()
		if value == "" {
			value = "none"
		}
		fmt.Fprintf(&table, "| `%s` | `%s` | %s | %s |\n", k.Name, k.Env, value, strings.ReplaceAll(k.Comment, "|", "\\|"))
	}
	if !strings.Contains(string(page), "\n\n"+table.String()+"\n") {
		t.Errorf("docs/OPERATING.md has another table of settings than this program, which has:\n%s", table.String())
	}
	for _, name := range slices.Sorted(maps.Keys(fixed)) {
		if line := fmt.Sprintf("\n- `%s`: %s", name, fixed[name]); !strings.Contains(string(page), line) {
			t.Errorf("docs/OPERATING.md does not say which settings of CometBFT are fixed:%s", line)
		}
	}
}
