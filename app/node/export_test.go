package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A height that is exported by the running node, and again when it has gone on and stopped, is the same file. Its AppHash is in the
// header of the next height, and its rows keep the rules.
func TestExport(t *testing.T) {
	n := newNet(t, KeyEd25519)
	r := n.start(t)
	for sequence := uint64(1); sequence <= 20; sequence++ {
		r.post(n.pay(t, sequence), "application/octet-stream")
		time.Sleep(10 * time.Millisecond)
	}
	until(t, "some blocks", func() bool { _, h := r.get("/livez"); return h.Height > 2 })
	first := filepath.Join(t.TempDir(), "first")
	a, err := Ask[ExportResult](t.Context(), n.home, "/export", ExportRequest{File: first})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ask[ExportResult](t.Context(), n.home, "/export", ExportRequest{File: first}); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over a file that exists: %v", err)
	}
	until(t, "more blocks", func() bool { _, h := r.get("/livez"); return h.Height > a.Height+2 })
	if header := r.header(a.Height + 1); !strings.Contains(header, `"app_hash":"`+strings.ToUpper(a.AppHash)+`"`) {
		t.Errorf("the next header does not have AppHash %s: %s", a.AppHash, header)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "second")
	if _, err := n.home.Export(t.Context(), n.config, quiet, ExportRequest{Height: a.Height, File: second}); err != nil {
		t.Fatal(err)
	}
	one, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Errorf("the two differ:\n%s\n%s", one, two)
	}
	v, err := VerifyExport(t.Context(), first)
	if err != nil || len(v.Findings) != 0 || v.AppHash != a.AppHash || v.Accounts == 0 || v.Lines == 0 || v.SHA256 != a.SHA256 {
		t.Errorf("%+v %v", v, err)
	}
	if err := os.WriteFile(first, bytes.Replace(one, []byte(`"version":1,`), []byte(`"version":2,`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyExport(t.Context(), first); err == nil || !strings.Contains(err.Error(), "not a sound export") {
		t.Errorf("with another version of a node: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(first), "*"+partialSuffix)); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
