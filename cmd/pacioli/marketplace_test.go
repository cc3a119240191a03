package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMarketplace runs the worked example's commands, in order, in one shell, on a network of four validators.
func TestMarketplace(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network")
	}
	t.Parallel()
	text := blocks(t, filepath.Join("..", "..", "examples", "marketplace", "README.md"), "# A marketplace\n", "", 12)
	const folder = "/tmp/pacioli-market"
	dir := filepath.Join(t.TempDir(), "market")
	text = strings.ReplaceAll(text, folder, dir)
	if strings.Contains(text, folder) || strings.Contains(text, "make ") || strings.Contains(text, "$PWD") {
		t.Fatal("the example would touch what is not the test's")
	}
	// Whatever ends the script ends its network.
	head := "export PATH=" + build(t) + ":$PATH\nunset PACIOLI_NODE\ntrap 'code=$?; set +e; pacioli down --dir " + dir + "; exit $code' EXIT\n"
	out := shell(t, head+text, 3*time.Minute)
	for _, want := range []string{
		"paid    6 of 6 rows", "authorisation", "(grant_exceeded)", "(line_frozen)", "payout-2026-05-courier,paid,",
		// The shop's month: 80 + 45 of two sales, 20 refunded, 10.50 of commission.
		"closing balance             94.50", "EUR    800.00  0.00    800.00",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the example does not show %q", want)
		}
	}
	if n := strings.Count(out, `memo "flowers in May"`); n == 0 {
		t.Error("the subscription was not pulled")
	}
}
