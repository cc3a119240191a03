package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCurrent fails when the committed code is not that of the .proto files: run `go run ./proto/generate`.
func TestCurrent(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		committed, err := os.ReadFile(filepath.Join("..", "pacioliv1", name))
		if err != nil || !bytes.Equal(committed, content) {
			t.Errorf("pacioliv1/%s is not current (%v)", name, err)
		}
	}
	there, err := filepath.Glob("../pacioliv1/*.pb.go")
	if err != nil || len(there) != len(files) {
		t.Errorf("pacioliv1 has %d files, want %d (%v)", len(there), len(files), err)
	}
}
