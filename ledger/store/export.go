package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// An export is the state of one height as text: JSON objects, one a line, with fixed fields in a fixed order, and hexadecimal in
// small letters. It is canonical: every node writes the same bytes for a height. docs/PROTOCOL.md describes it. With the versions
// that it carries, every root follows from it, so that whoever has a header proven needs to trust nobody for the state.
const exportFormat = "pacioli.export.v1"

// maxExportLine bounds a line: a key and a value in hexadecimal, and their names.
const maxExportLine = 2*(maxKeyBytes+maxValueBytes) + 1024

// ExportHead is the first line.
type ExportHead struct {
	Format  string            `json:"format"`
	ChainID string            `json:"chain_id"`
	Network crypto.Hash       `json:"network_id"`
	Height  uint64            `json:"height"`
	AppHash string            `json:"app_hash"`
	Roots   [treeCount]string `json:"roots"` // in the order of the trees
}

// exportLine is one of those between: a leaf has all but the height, an inner node of a tree height and version, a row beside
// the trees key and value.
type exportLine struct {
	Tree    string `json:"tree,omitempty"`
	Height  int64  `json:"height,omitempty"`
	Version int64  `json:"version,omitempty"`
	Key     string `json:"key,omitempty"`
	Value   string `json:"value,omitempty"`
}

// ExportEnd is the last line.
type ExportEnd struct {
	Rows   int64  `json:"rows"` // leaves and rows beside, without the sentinels
	SHA256 string `json:"sha256"`
}

// Export writes the state of a height. It works on a snapshot, beside everything else, and reaches as far back as rollback does:
// the rows beside the trees follow from what later blocks have overwritten. chainID and network name the ledger.
func (s *Store) Export(ctx context.Context, height uint64, chainID string, network crypto.Hash, to io.Writer) (head ExportHead, end ExportEnd, err error) {
	p, err := s.acquire()
	if err != nil {
		return head, end, err
	}
	defer s.release(p)
	if err := p.meta.retained(height); err != nil {
		return head, end, fmt.Errorf("export: %w", err)
	}
	if height+1 < p.meta.undoFirst {
		return head, end, fmt.Errorf("export height %d: %w (kept for exports: %d to %d)", height, ErrPruned, p.meta.undoFirst-1, p.meta.height)
	}
	rec, err := readRecord(p.snap, height)
	if err != nil {
		return head, end, fmt.Errorf("export: %w", err)
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(to, sum), 1<<20)
	line := func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(append(text, '\n'))
		return err
	}
	head = ExportHead{Format: exportFormat, ChainID: chainID, Network: network, Height: height, AppHash: hex.EncodeToString(rec.appHash[:])}
	for i := range rec.roots {
		head.Roots[i] = hex.EncodeToString(rec.roots[i][:])
	}
	if err := line(head); err != nil {
		return head, end, fmt.Errorf("export: %w", err)
	}
	for i, name := range treeNames {
		d := &treeDB{r: p.snap, prefix: treePrefix(i)}
		root, err := d.readRoot(int64(height))
		if err == nil {
			err = d.export(ctx, root, func(n *node) error {
				l := exportLine{Tree: name, Height: n.height, Version: n.id.version}
				if n.leaf() {
					l.Key, l.Value = hex.EncodeToString(n.key), hex.EncodeToString(n.value)
					end.Rows++
				}
				return line(l)
			})
		}
		if err != nil {
			return head, end, fmt.Errorf("export tree %s at height %d: %w", name, height, err)
		}
		end.Rows-- // the sentinel
	}
	before, err := overwritten(ctx, p, height)
	if err != nil {
		return head, end, fmt.Errorf("export height %d: %w", height, err)
	}
	if err := exportBeside(ctx, p, before, func(key, value []byte) error {
		end.Rows++
		return line(exportLine{Key: hex.EncodeToString(key), Value: hex.EncodeToString(value)})
	}); err != nil {
		return head, end, fmt.Errorf("export height %d: %w", height, err)
	}
	if err := out.Flush(); err != nil {
		return head, end, fmt.Errorf("export: %w", err)
	}
	end.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err := line(end); err != nil {
		return head, end, fmt.Errorf("export: %w", err)
	}
	if err := out.Flush(); err != nil {
		return head, end, fmt.Errorf("export: %w", err)
	}
	return head, end, nil
}

// export visits the nodes below n, children before their parent.
func (d *treeDB) export(ctx context.Context, n *node, visit func(*node) error) error {
	if !n.leaf() {
		for _, id := range []nodeID{n.left, n.right} {
			child, err := d.readNode(id)
			if err != nil {
				return err
			}
			if err := d.export(ctx, child, visit); err != nil {
				return err
			}
		}
	} else if err := ctx.Err(); err != nil {
		return err
	}
	return visit(n)
}

// overwritten gives the rows beside the trees that blocks above a height have changed, as they were at it; nil: absent.
func overwritten(ctx context.Context, p *published, height uint64) (map[string][]byte, error) {
	rows := map[string][]byte{}
	for h := p.meta.height; h > height; h-- { // what a lower block overwrote is older: it wins
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		undo, err := get(p.snap, heightKey(spaceUndo, h))
		if err != nil {
			return nil, fmt.Errorf("read undo row of height %d: %w", h, err)
		}
		if undo == nil {
			return nil, fmt.Errorf("undo row of height %d is missing", h)
		}
		for len(undo) > 0 {
			key, old, rest, err := nextUndo(undo)
			if err != nil {
				return nil, fmt.Errorf("undo row of height %d: %w", h, err)
			}
			if undo = rest; treeIndex(key) == beside {
				rows[string(key)] = bytes.Clone(old)
			}
		}
	}
	return rows, nil
}

// exportBeside gives the rows beside the trees in order: those of the snapshot, but for what was overwritten since.
func exportBeside(ctx context.Context, p *published, before map[string][]byte, row func(key, value []byte) error) error {
	gone := make([]string, 0, len(before))
	for key := range before {
		gone = append(gone, key)
	}
	slices.Sort(gone)
	old := func(until []byte) error { // those that sort before a key; nil: all
		for len(gone) > 0 && (until == nil || gone[0] < string(until)) {
			if value := before[gone[0]]; value != nil {
				if err := row([]byte(gone[0]), value); err != nil {
					return err
				}
			}
			gone = gone[1:]
		}
		return nil
	}
	err := scan(p.snap, spaceFlat, nil, nil, false, func(key, value []byte) error {
		if treeIndex(key) != beside {
			return ctx.Err()
		}
		if err := old(key); err != nil {
			return err
		}
		if len(gone) > 0 && gone[0] == string(key) {
			return nil // it comes before the next key
		}
		return row(key, value)
	})
	if err != nil {
		return err
	}
	return old(nil)
}

// errExport: a file is not an export, or was changed.
var errExport = errors.New("not a sound export")

// Exported is what VerifyExport has found.
type Exported struct {
	Head  ExportHead
	End   ExportEnd
	Nodes int64

	parts [treeCount + 1]int64 // where each tree's lines begin, and the rows beside
	end   int64                // where the last line begins
}

// VerifyExport reads an export and derives everything in it that follows from the rest: each tree's root from its leaves up, the
// AppHash from the roots, the count and the sum. It checks that the text is canonical, so that equal states are equal files.
// row is called for every row but the sentinels, in the order of the file, which is ascending within each tree.
func VerifyExport(ctx context.Context, from io.Reader, row func(key, value []byte) error) (x Exported, err error) {
	in := bufio.NewReaderSize(from, 1<<20)
	sum := sha256.New()
	number := 0
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: line %d: %s", errExport, number, fmt.Sprintf(format, args...))
	}
	// read takes a line; more is whether another follows it.
	read := func() (text []byte, more bool, err error) {
		number++
		for {
			part, err := in.ReadSlice('\n')
			if text = append(text, part...); err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return nil, false, bad("the file ends: %s", err)
			}
			if len(text) > maxExportLine {
				return nil, false, bad("longer than %d bytes", maxExportLine)
			}
		}
		_, err = in.Peek(1)
		return text, err == nil, nil
	}
	into := func(text []byte, v any) error {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			return bad("%s", err)
		}
		if again, err := json.Marshal(v); err != nil || !bytes.Equal(append(again, '\n'), text) {
			return bad("not written as an export writes it")
		}
		return nil
	}
	text, more, err := read()
	if err != nil {
		return x, err
	}
	if err := into(text, &x.Head); err != nil {
		return x, err
	}
	if x.Head.Format != exportFormat {
		return x, bad("format is %q, this program knows %q", x.Head.Format, exportFormat)
	}
	sum.Write(text)
	at := int64(len(text)) // bytes read before the line
	x.parts[0] = at
	var roots [treeCount][32]byte
	var rows int64
	tree := 0
	type done struct { // a subtree that has no parent yet
		hash         [32]byte
		height, size int64
	}
	var stack []done
	var last []byte
	closeTree := func() error {
		if tree >= treeCount {
			return nil
		}
		if len(stack) != 1 {
			return bad("tree %s ends with %d parts that have no common root", treeNames[tree], len(stack))
		}
		if roots[tree] = stack[0].hash; hex.EncodeToString(roots[tree][:]) != x.Head.Roots[tree] {
			return bad("tree %s has root %x, the first line says %s", treeNames[tree], roots[tree], x.Head.Roots[tree])
		}
		stack, last = stack[:0], nil
		tree++
		x.parts[tree] = at
		return nil
	}
	for more {
		if err := ctx.Err(); err != nil {
			return x, err
		}
		if text, more, err = read(); err != nil {
			return x, err
		}
		if !more {
			break
		}
		length := int64(len(text))
		sum.Write(text)
		var l exportLine
		if err := into(text, &l); err != nil {
			return x, err
		}
		key, err1 := hex.DecodeString(l.Key)
		value, err2 := hex.DecodeString(l.Value)
		if err := errors.Join(err1, err2); err != nil || strings.ToLower(l.Key+l.Value) != l.Key+l.Value {
			return x, bad("key or value is not hexadecimal in small letters")
		}
		if tree < treeCount && l.Tree != treeNames[tree] {
			if err := closeTree(); err != nil {
				return x, err
			}
		}
		at += length
		switch {
		case tree < treeCount && l.Tree != treeNames[tree], tree == treeCount && l.Tree != "":
			return x, bad("tree %q is not the next", l.Tree)
		case tree == treeCount:
			if treeIndex(key) != beside || l.Height != 0 || l.Version != 0 || last != nil && bytes.Compare(last, key) >= 0 {
				return x, bad("key %x is not beside the trees, or not in order", key)
			}
			last = key
		case l.Version < 1 || uint64(l.Version) > x.Head.Height:
			return x, bad("version %d is above the height, or below 1", l.Version)
		case l.Height == 0:
			first, _ := sentinel(tree)
			if isFirst := last == nil; isFirst != bytes.Equal(key, first) || !isFirst && treeIndex(key) != tree || bytes.Compare(last, key) >= 0 || len(value) == 0 {
				return x, bad("key %x is not in tree %s, or not in order, or without value", key, l.Tree)
			}
			n := node{id: nodeID{version: l.Version}, size: 1, key: key, value: value}
			stack = append(stack, done{n.leafSum(), 0, 1})
			x.Nodes++
			if last = key; bytes.Equal(key, first) {
				continue
			}
		default:
			if len(stack) < 2 || l.Key != "" || l.Value != "" {
				return x, bad("an inner node without two children, or with a key")
			}
			left, right := stack[len(stack)-2], stack[len(stack)-1]
			if l.Height != max(left.height, right.height)+1 {
				return x, bad("a node of height %d above ones of %d and %d", l.Height, left.height, right.height)
			}
			n := node{id: nodeID{version: l.Version}, height: l.Height, size: left.size + right.size}
			stack = append(stack[:len(stack)-2], done{n.innerSum(left.hash, right.hash), l.Height, n.size})
			x.Nodes++
			continue
		}
		rows++
		if row != nil {
			if err := row(key, value); err != nil {
				return x, bad("%s", err)
			}
		}
	}
	if err := closeTree(); err != nil {
		return x, err
	}
	x.end = at
	if tree != treeCount {
		return x, bad("the trees end with %s", treeNames[max(tree-1, 0)])
	}
	if got := appHash(&roots); hex.EncodeToString(got[:]) != x.Head.AppHash {
		return x, bad("the roots give AppHash %x, the first line says %s", got, x.Head.AppHash)
	}
	if err := into(text, &x.End); err != nil {
		return x, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != x.End.SHA256 || rows != x.End.Rows {
		return x, bad("%d rows with SHA-256 %s, the last line says %d and %s", rows, got, x.End.Rows, x.End.SHA256)
	}
	return x, nil
}

// Ascending calls row for every row but the sentinels of an export that VerifyExport has found sound, in ascending order of all
// their keys, as Audit takes them.
func (x Exported) Ascending(ctx context.Context, from io.ReaderAt, row func(key, value []byte) error) error {
	type part struct {
		in         *bufio.Reader
		key, value []byte // of the next row; nil: there is none
	}
	next := func(p *part) error {
		for {
			text, err := p.in.ReadBytes('\n')
			if err == io.EOF {
				p.key = nil
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the export: %w", err)
			}
			var l exportLine
			if err := json.Unmarshal(text, &l); err != nil {
				return fmt.Errorf("read the export: %w", err)
			}
			if l.Key == "" || l.Tree != "" && l.Key == "00" {
				continue // an inner node, or a sentinel
			}
			var err1, err2 error
			p.key, err1 = hex.DecodeString(l.Key)
			p.value, err2 = hex.DecodeString(l.Value)
			return errors.Join(err1, err2)
		}
	}
	var parts [treeCount + 1]part
	for i := range parts {
		end := x.end
		if i < treeCount {
			end = x.parts[i+1]
		}
		parts[i].in = bufio.NewReaderSize(io.NewSectionReader(from, x.parts[i], end-x.parts[i]), 64<<10)
		if err := next(&parts[i]); err != nil {
			return err
		}
	}
	for {
		var least *part
		for i := range parts {
			if p := &parts[i]; p.key != nil && (least == nil || bytes.Compare(p.key, least.key) < 0) {
				least = p
			}
		}
		if least == nil {
			return nil
		}
		if err := errors.Join(ctx.Err(), row(least.key, least.value)); err != nil {
			return err
		}
		if err := next(least); err != nil {
			return err
		}
	}
}
