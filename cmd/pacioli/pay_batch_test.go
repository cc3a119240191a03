package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/batch"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestPayBatchKilled kills a real process again and again while it pays a file that grows, and looks into the payer's
// journal, which is proven complete, for what was paid.
func TestPayBatchKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys, err := keystore.Open(filepath.Join(dir, "home", "keys"), keystore.WithCost(keystore.CheapCost))
	if err != nil {
		t.Fatal(err)
	}
	alice, _, err := keys.Create("alice", keystore.Spec{Kind: "ed25519"}, "none")
	if err != nil {
		t.Fatal(err)
	}
	chain := clienttest.New(t, "killed", alice.Address)
	chain.Run(20 * time.Millisecond)
	node := chain.Serve()
	file := filepath.Join(dir, "rows.csv")
	write := func(n int) {
		t.Helper()
		text := "id,to,amount,asset\n"
		for i := range n {
			// The amounts tell the rows apart.
			text += fmt.Sprintf("row %d,%s,0.%06d,PAC\n", i, clienttest.Signer(fmt.Sprint(i%7)).Address(), i+1)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "pacioli", "pay-batch", file, "--from", "alice", "--per-transaction", "3", "--in-flight", "3",
			"--home", filepath.Join(dir, "home"), "--genesis", chain.GenesisFile(dir), "--node", node.URL)
		cmd.Env = append(os.Environ(), "PACIOLI_PASSPHRASE=none")
		return cmd
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	const rows, kills = 300, 10
	for k := range kills {
		write(rows * (k + 1) / kills)
		cmd := command()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
	}
	out, err := command().CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d of %d rows", rows, rows)) {
		t.Fatalf("seed %d: %v\n%s", seed, err, out)
	}
	result, err := os.ReadFile(filepath.Join(dir, "rows.result.csv"))
	if err != nil || strings.Count(string(result), ",paid,") != rows {
		t.Errorf("seed %d: %v:\n%s", seed, err, result)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{Nodes: []string{node.URL}, Genesis: chain.Doc})
	if err != nil {
		t.Fatal(err)
	}
	key := ledger.LineKey{Account: alice.Address, Asset: ledger.NewAssetID(clienttest.Signer("bank").Address(), "PAC")}
	line, err := c.Line(ctx, key, 0)
	if err != nil {
		t.Fatal(err)
	}
	journal, err := c.Journal(ctx, key, client.Mark{}, line.Value, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	paid := map[uint64]int{}
	for e, err := range journal.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		if amount, _ := e.Amount.Uint64(); e.Kind == ledger.EntryTransfer && !e.Credit {
			paid[amount]++
		}
	}
	for i := range uint64(rows) {
		if paid[i+1] != 1 {
			t.Errorf("seed %d: row %d was paid %d times", seed, i, paid[i+1])
		}
	}
	if len(paid) != rows {
		t.Errorf("seed %d: %d payments, want %d", seed, len(paid), rows)
	}
	var home = &cli{home: filepath.Join(dir, "home")}
	if begun, release, err := batch.Claim(home.batches(), c.NetworkID().ID, alice.Address, "row 7"); err != nil || begun == nil {
		t.Errorf("the journal does not know row 7: %v", err)
	} else {
		release()
	}
}

func TestProgress(t *testing.T) {
	for want, p := range map[string]batch.Progress{
		"[..............................] 0 of 3 rows paid":                                     {Rows: 3},
		"[####################..........] 1 of 3 rows paid, 1 failed, 2 transactions under way": {Rows: 3, Paid: 1, Failed: 1, InFlight: 2},
		"[##############################] 3 of 3 rows paid":                                     {Rows: 3, Paid: 3},
	} {
		if got := bar(p); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
