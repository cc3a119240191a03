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

// build makes the program that users run, and returns the folder that it is in.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "pacioli"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %s\n%s", err, out)
	}
	return dir
}

// TestTour runs the commands of the README's tour, in order, in one shell, as its reader does.
func TestTour(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network")
	}
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tour, ok := strings.Cut(string(readme), "\n## A tour of two minutes\n")
	if !ok {
		t.Fatal("README.md has no tour")
	}
	tour, _, _ = strings.Cut(tour, "\n## ")
	var script strings.Builder
	script.WriteString("set -eux -o pipefail\n")
	blocks := 0
	for rest := tour; ; blocks++ {
		_, after, ok := strings.Cut(rest, "```sh\n")
		if !ok {
			break
		}
		block, behind, _ := strings.Cut(after, "```")
		script.WriteString(block)
		rest = behind
	}
	if blocks < 5 {
		t.Fatalf("the tour has %d blocks of commands, want at least 5", blocks)
	}
	dir := filepath.Join(t.TempDir(), "tour")
	text := strings.ReplaceAll(script.String(), "/tmp/pacioli-tour", dir)
	text = strings.Replace(text, "make build\n", "", 1) // done below, into another folder
	text = strings.Replace(text, "PATH=$PWD/bin:$PATH", "PATH="+build(t)+":$PATH", 1)
	if strings.Contains(text, "/tmp/pacioli-tour") || strings.Contains(text, "make ") || strings.Contains(text, "$PWD") {
		t.Fatal("the tour would touch what is not the test's")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", text)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the tour fails: %s", err)
	}
	for _, want := range []string{"proof ", "may still fail  0 of 4", "2.125 GOLD", "offline", "node0 ended"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the tour does not show %q", want)
		}
	}
	if n := strings.Count(string(out), "in block ") + strings.Count(string(out), "block  "); n == 0 {
		t.Error("the tour shows no block")
	}
}
