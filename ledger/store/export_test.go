package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Two stores with different settings, one of which has gone on and one of which has been rolled back, export a height as the same bytes;
// the roots follow from them, and from no others.
func TestExport(t *testing.T) {
	h := history{seed: 21, keys: 60, writes: 25, value: 12}
	fs := vfs.NewMem()
	s := mustOpen(t, small(fs))
	defer func() { mustClose(t, s) }()
	o := small(vfs.NewMem())
	o.KeepVersions = 5
	pruned := mustOpen(t, o)
	defer func() { mustClose(t, pruned) }()
	export := func(s *Store, height uint64) []byte {
		t.Helper()
		var b bytes.Buffer
		if _, _, err := s.Export(t.Context(), height, "chain", crypto.Hash{7}, &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	states, texts := map[uint64]model{}, map[uint64][]byte{}
	for height := uint64(1); height <= 12; height++ {
		mustRun(t, s, h, height, height)
		mustRun(t, pruned, h, height, height)
		states[height], texts[height] = rows(t, s), export(s, height)
	}
	for height := uint64(1); height <= 12; height++ {
		if !bytes.Equal(export(s, height), texts[height]) {
			t.Errorf("height %d is exported differently once there are blocks above it", height)
		}
		if height >= pruned.RollbackFloor() {
			if !bytes.Equal(export(pruned, height), texts[height]) {
				t.Errorf("height %d is exported differently by a store that prunes", height)
			}
		} else if _, _, err := pruned.Export(t.Context(), height, "chain", crypto.Hash{7}, new(bytes.Buffer)); !errors.Is(err, ErrPruned) {
			t.Errorf("export of pruned height %d: %v", height, err)
		}
		got := model{}
		x, err := VerifyExport(t.Context(), bytes.NewReader(texts[height]), func(key, value []byte) error {
			got.apply([]Write{{Key: bytes.Clone(key), Value: bytes.Clone(value)}})
			return nil
		})
		if err != nil || x.Head.Height != height {
			t.Fatalf("height %d: %+v %v", height, x.Head, err)
		}
		sameRows(t, got, states[height])
		ordered, last := model{}, []byte(nil)
		if err := x.Ascending(t.Context(), bytes.NewReader(texts[height]), func(key, value []byte) error {
			if bytes.Compare(last, key) >= 0 {
				t.Errorf("row %x comes after %x", key, last)
			}
			last = bytes.Clone(key)
			ordered.apply([]Write{{Key: bytes.Clone(key), Value: bytes.Clone(value)}})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		sameRows(t, ordered, states[height])
		proof := mustProve(t, s, testKey(1), height)
		if x.Head.AppHash != hex.EncodeToString(proof.AppHash) {
			t.Errorf("height %d has AppHash %s in its export", height, x.Head.AppHash)
		}
	}
	// Every byte counts.
	text := texts[3]
	for i := 0; i < len(text); i += 1 + len(text)/500 {
		for _, c := range []byte{'0', 'f', '\n'} {
			bad := bytes.Clone(text)
			if bad[i] == c {
				continue
			}
			bad[i] = c
			if _, err := VerifyExport(t.Context(), bytes.NewReader(bad), nil); !errors.Is(err, errExport) {
				t.Fatalf("byte %d changed from %q to %q: %v", i, text[i], c, err)
			}
		}
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i := range lines[:len(lines)-1] {
		short := append(bytes.Join(lines[:i], nil), bytes.Join(lines[i+1:], nil)...)
		twice := append(bytes.Join(lines[:i+1], nil), bytes.Join(lines[i:], nil)...)
		for what, bad := range map[string][]byte{"removed": short, "doubled": twice, "the last": bytes.Join(lines[:i], nil)} {
			if _, err := VerifyExport(t.Context(), bytes.NewReader(bad), nil); !errors.Is(err, errExport) {
				t.Fatalf("line %d %s: %v", i, what, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Export(ctx, 12, "chain", crypto.Hash{7}, new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled export: %v", err)
	}
}
