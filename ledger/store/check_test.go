package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// edit changes rows of a closed store behind its back; a nil value deletes.
func edit(t *testing.T, fs vfs.FS, fn func(set func(k, v []byte), get func(k []byte) []byte)) {
	t.Helper()
	db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest,
		Logger: pebbleLogger{&Store{log: slog.New(slog.DiscardHandler)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	fn(func(k, v []byte) {
		var err error
		if v == nil {
			err = db.Delete(k, pebble.Sync)
		} else {
			err = db.Set(k, v, pebble.Sync)
		}
		if err != nil {
			t.Fatal(err)
		}
	}, func(k []byte) []byte {
		v, err := get(db, k)
		if err != nil || v == nil {
			t.Fatalf("row %x: %x, %v", k, v, err)
		}
		return v
	})
}

// Check finds each kind of damage, and the store still opens: what it compares on opening is only the roots.
func TestCheckFinds(t *testing.T) {
	h := history{seed: 8, keys: 500, writes: 200, value: 12}
	base := vfs.NewMem()
	o := small(base)
	o.KeepVersions = 4
	s := mustOpen(t, o)
	mustRun(t, s, h, 1, 12)
	seen := 0
	rep, err := s.Check(context.Background(), nil, func(k, v []byte) error { seen++; return nil })
	if err != nil || !rep.OK() {
		t.Fatalf("sound store: %v, %v", rep.Findings, err)
	}
	if all := rows(t, s); seen != len(all) || rep.Rows+rep.Beside != int64(seen) || rep.Leaves != rep.Rows+treeCount ||
		rep.Beside == 0 || rep.Nodes < rep.Leaves || rep.Index != 12 || rep.FirstHeight != 9 {
		t.Fatalf("report %+v for %d rows", rep, seen)
	}
	rep, err = s.Check(context.Background(), nil, func(k, v []byte) error { return errors.New("the ledger says no") })
	if err != nil || rep.OK() || !strings.Contains(rep.Findings[0], "the ledger says no") || rep.Omitted != int64(seen)-maxFindings {
		t.Errorf("the caller's finding: %+v, %v", rep, err)
	}
	// An inner node and a leaf that only an old height reaches, and ones of the newest.
	var inner, leaf, oldInner []byte
	flat := func() []byte {
		for k := range rows(t, s) {
			if k[0] < 0x80 {
				return flatKey([]byte(k))
			}
		}
		panic("no rows")
	}()
	err = scan(s.db, spaceTree, []byte{5}, []byte{6}, false, func(k, v []byte) error {
		id, _ := parseNodeID(k[1:])
		n, err := parseNode(id, v)
		switch {
		case err != nil:
		case n.leaf() && leaf == nil && n.key[0] != 0:
			leaf = append([]byte{spaceTree}, k...)
		case !n.leaf() && id.version == 9 && oldInner == nil:
			oldInner = append([]byte{spaceTree}, k...)
		case !n.leaf() && id.version == 12 && id.nonce > 1:
			inner = append([]byte{spaceTree}, k...)
		}
		return nil
	})
	if err != nil || inner == nil || leaf == nil || oldInner == nil {
		t.Fatalf("no nodes to damage: %x %x %x %v", inner, leaf, oldInner, err)
	}
	mustClose(t, s)

	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[(at+len(b))%len(b)] ^= 1; return b }
	for _, c := range []struct {
		name, finding string
		damage        func(set func(k, v []byte), get func(k []byte) []byte)
	}{
		{"flipped byte in an inner node", "", func(set func(k, v []byte), get func(k []byte) []byte) {
			b := get(inner)
			set(inner, flip(b, len(b)/2))
		}},
		{"flipped byte in a node of an old height", "hashes to", func(set func(k, v []byte), get func(k []byte) []byte) {
			b := get(oldInner)
			set(oldInner, flip(b, len(b)/2))
		}},
		{"flipped byte in a leaf's value", "hashes to", func(set func(k, v []byte), get func(k []byte) []byte) {
			set(leaf, flip(get(leaf), -1))
		}},
		{"missing node", "is missing", func(set func(k, v []byte), _ func(k []byte) []byte) { set(leaf, nil) }},
		{"missing flat row", "the flat row is missing", func(set func(k, v []byte), _ func(k []byte) []byte) { set(flat, nil) }},
		{"changed flat row", "the flat row ", func(set func(k, v []byte), get func(k []byte) []byte) { set(flat, flip(get(flat), 0)) }},
		{"extra flat row", "is not in tree", func(set func(k, v []byte), _ func(k []byte) []byte) {
			set(flatKey([]byte("\x01extra")), []byte{1})
		}},
		{"flat row swapped for another", "is not in tree", func(set func(k, v []byte), _ func(k []byte) []byte) {
			set(flat, nil)
			set(flatKey([]byte("\x01extra")), []byte{1})
		}},
		{"wrong root in the record of an old height", "the record says", func(set func(k, v []byte), get func(k []byte) []byte) {
			set(heightKey(spaceRecord, 10), flip(get(heightKey(spaceRecord, 10)), 40))
		}},
		{"missing record", "want", func(set func(k, v []byte), _ func(k []byte) []byte) { set(heightKey(spaceRecord, 10), nil) }},
		{"a row that no kind allows", "of a kind", func(set func(k, v []byte), _ func(k []byte) []byte) {
			set(flatKey([]byte("\x00")), []byte{1})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			if _, err := vfs.Clone(base, fs, "db", "db"); err != nil {
				t.Fatal(err)
			}
			edit(t, fs, c.damage)
			s := mustOpen(t, small(fs))
			defer mustClose(t, s)
			rep, err := s.Check(context.Background(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range rep.Findings {
				t.Log(f)
			}
			if rep.OK() || !strings.Contains(strings.Join(rep.Findings, "\n"), c.finding) {
				t.Errorf("%d findings, none with %q", len(rep.Findings), c.finding)
			}
		})
	}
}
