package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// build puts the program that users run into a folder and returns that. It is a copy of this test, which is the program when
// it goes by its name (TestMain): linking it once more for every test would take longer than some of them.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pacioli"), program, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// blocks returns the commands of a page's blocks that are marked sh, of which there must be at least some, between two texts.
func blocks(t *testing.T, page, from, to string, least int) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), from)
	if !ok {
		t.Fatalf("%s has no %q", page, from)
	}
	if to != "" {
		rest, _, _ = strings.Cut(rest, to)
	}
	var script strings.Builder
	n := 0
	for ; ; n++ {
		_, after, ok := strings.Cut(rest, "```sh\n")
		if !ok {
			break
		}
		block, behind, _ := strings.Cut(after, "```")
		script.WriteString(block)
		rest = behind
	}
	if n < least {
		t.Fatalf("%s has %d blocks of commands, want at least %d", page, n, least)
	}
	return script.String()
}

// shell runs commands in one bash that ends at the first error, and returns what they print.
func shell(t *testing.T, text string, limit time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -eux -o pipefail\n"+text)
	cmd.WaitDelay = 10 * time.Second // nodes that it has left behind hold its output open
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the commands fail: %s", err)
	}
	return string(out)
}

// TestTour runs the commands of the README's tour, in order, in one shell, as its reader does.
func TestTour(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network")
	}
	t.Parallel()
	text := blocks(t, filepath.Join("..", "..", "README.md"), "\n## A tour of two minutes\n", "\n## ", 5)
	dir := filepath.Join(t.TempDir(), "tour")
	text = strings.ReplaceAll(text, "/tmp/pacioli-tour", dir)
	text = strings.Replace(text, "make build\n", "", 1) // done below, into another folder
	text = strings.Replace(text, "PATH=$PWD/bin:$PATH", "PATH="+build(t)+":$PATH", 1)
	if strings.Contains(text, "/tmp/pacioli-tour") || strings.Contains(text, "make ") || strings.Contains(text, "$PWD") {
		t.Fatal("the tour would touch what is not the test's")
	}
	out := shell(t, text, 3*time.Minute)
	for _, want := range []string{"proof ", "may still fail  0 of 4", "2.125 GOLD", "offline", "node0 ended"} {
		if !strings.Contains(out, want) {
			t.Errorf("the tour does not show %q", want)
		}
	}
	if n := strings.Count(out, "in block ") + strings.Count(out, "block  "); n == 0 {
		t.Error("the tour shows no block")
	}
}
