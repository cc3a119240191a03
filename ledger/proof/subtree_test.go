package proof_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/store"
	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// stored is a state in a real store, after blocks that made, changed and deleted rows.
type stored struct {
	store  *store.Store
	height uint64
	rows   map[string]string
}

func newStored(t testing.TB, seed int64, blocks, writes int) *stored {
	s, err := store.Open("", store.Options{FS: vfs.NewMem(), CacheBytes: 4 << 20, MemTableBytes: 4 << 20, TreeCacheNodes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	st := &stored{s, uint64(blocks), map[string]string{}}
	r := rand.New(rand.NewSource(seed))
	for height := 1; height <= blocks; height++ {
		changed := map[string]string{}
		for range writes {
			key := binary.BigEndian.AppendUint32([]byte{[]byte{1, 2, 3, 0x40, 0x50, 0x60}[r.Intn(6)]}, uint32(r.Intn(8*writes))*2654435761)
			value := make([]byte, 1+r.Intn(120))
			r.Read(value)
			if value[0] = 1; r.Intn(9) == 0 {
				value = nil
			}
			changed[string(key)] = string(value)
		}
		var w []store.Write
		for k, v := range changed {
			if v == "" {
				delete(st.rows, k)
				w = append(w, store.Write{Key: []byte(k)})
				continue
			}
			st.rows[k] = v
			w = append(w, store.Write{Key: []byte(k), Value: []byte(v)})
		}
		slices.SortFunc(w, func(a, b store.Write) int { return bytes.Compare(a.Key, b.Key) })
		if _, err := s.Stage(uint64(height), w, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

func (s *stored) roots(t testing.TB) []byte {
	t.Helper()
	roots, err := s.store.Roots(s.height)
	if err != nil {
		t.Fatal(err)
	}
	return proof.EncodeRoots(roots)
}

func (s *stored) places(t testing.TB) []proof.Place {
	t.Helper()
	places, err := proof.OpenRoots(s.store.AppHash(), s.roots(t))
	if err != nil {
		t.Fatal(err)
	}
	return places
}

func (s *stored) subtree(t testing.TB, p proof.Place, leaves int) proof.Subtree {
	t.Helper()
	nodes, err := s.store.Subtree(p.Tree, s.height, p.Path, leaves, proof.MaxSubtree/2)
	if err != nil {
		t.Fatal(err)
	}
	subtree := make(proof.Subtree, len(nodes))
	for i, n := range nodes {
		subtree[i] = proof.Node(n)
	}
	return subtree
}

// largest returns the place of the tree with the most leaves.
func (s *stored) largest(t testing.TB) (p proof.Place) {
	t.Helper()
	most := uint64(0)
	for _, place := range s.places(t) {
		if c, err := place.Open(s.subtree(t, place, 8).Encode()); err != nil {
			t.Fatal(err)
		} else if c.Size > most {
			most, p = c.Size, place
		}
	}
	return p
}

func TestSubtreeWalk(t *testing.T) {
	s := newStored(t, 1, 30, 150)
	for _, leaves := range []int{1, 5, 64, proof.MaxLeaves} {
		seen, answers := map[string]string{}, 0
		queue := s.places(t)
		if len(queue) != ledger.TreeCount {
			t.Fatalf("%d roots", len(queue))
		}
		for ; len(queue) > 0; queue = queue[1:] {
			answers++
			encoded := s.subtree(t, queue[0], leaves).Encode()
			c, err := queue[0].Open(encoded)
			if err != nil {
				t.Fatalf("%d leaves, place %+v: %v", leaves, queue[0], err)
			}
			if again, err := proof.DecodeSubtree(encoded); err != nil || !bytes.Equal(again.Encode(), encoded) {
				t.Fatalf("place %+v does not encode back: %v", queue[0], err)
			}
			for _, item := range c.Items {
				if item.Below != nil {
					queue = append(queue, *item.Below)
					continue
				}
				seen[string(item.Key)] = string(item.Value)
			}
		}
		if len(seen) != len(s.rows) {
			t.Fatalf("%d leaves: %d rows seen, want %d", leaves, len(seen), len(s.rows))
		}
		for k, v := range s.rows {
			if seen[k] != v {
				t.Fatalf("%d leaves: row %x is %x, want %x", leaves, k, seen[k], v)
			}
		}
		t.Logf("%d rows in %d answers of at most %d leaves", len(seen), answers, leaves)
	}
}

// TestSubtreeBits: no bit of an answer, and no other place, goes unnoticed.
func TestSubtreeBits(t *testing.T) {
	s := newStored(t, 2, 6, 60)
	p := s.largest(t)
	for _, leaves := range []int{6, proof.MaxLeaves} {
		encoded := s.subtree(t, p, leaves).Encode()
		want, err := p.Open(encoded)
		if err != nil {
			t.Fatal(err)
		}
		for at := range encoded {
			for _, bit := range []int{at % 8, (at + 3) % 8} {
				bad := bytes.Clone(encoded)
				bad[at] ^= 1 << bit
				_, err := p.Open(bad)
				refused(t, err, "bit %d of byte %d of %d", bit, at, len(encoded))
			}
			_, err := p.Open(encoded[:at])
			refused(t, err, "the first %d bytes of %d", at, len(encoded))
		}
		_, err = p.Open(append(bytes.Clone(encoded), 0x0a, 0))
		refused(t, err, "an empty node more")
		others := []func(*proof.Place){
			func(p *proof.Place) { p.Hash[0] ^= 1 }, func(p *proof.Place) { p.Tree = -1 }, func(p *proof.Place) { p.Tree = ledger.TreeCount },
			func(p *proof.Place) { p.Path = make([]byte, 65) }, func(p *proof.Place) { p.Most = want.Size - 1 }, func(p *proof.Place) { p.Above = 3 },
		}
		if leaves == proof.MaxLeaves { // inner nodes alone are in any tree that has their hash
			others = append(others, func(p *proof.Place) { p.Tree++ }, func(p *proof.Place) { p.Path = []byte{1} })
		}
		for _, other := range others {
			q := p
			other(&q)
			_, err := q.Open(encoded)
			refused(t, err, "another place %+v", q)
		}
	}
	roots := s.roots(t)
	for at := range roots {
		bad := bytes.Clone(roots)
		bad[at] ^= 1
		_, err := proof.OpenRoots(s.store.AppHash(), bad)
		refused(t, err, "roots with byte %d changed", at)
		_, err = proof.OpenRoots(s.store.AppHash(), roots[:at])
		refused(t, err, "%d bytes of the roots", at)
	}
	_, err := proof.OpenRoots(s.store.AppHash(), append(bytes.Clone(roots), roots[:34]...))
	refused(t, err, "a root too many")
	_, err = proof.OpenRoots(nil, roots)
	refused(t, err, "no app hash")
}

// made is a tree made by hand, with its hashes taken as docs/PROTOCOL.md says, by no code of the packages.
type made struct {
	left, right *made
	node        proof.Node
	cut         bool
}

func rowNode(key, value string) *made {
	return &made{node: proof.Node{Version: 3, Key: []byte(key), Value: []byte(value)}}
}

func pair(left, right *made) *made {
	n := proof.Node{Version: 5, Height: max(left.node.Height, right.node.Height) + 1, Size: max(left.node.Size, 1) + max(right.node.Size, 1)}
	return &made{left: left, right: right, node: n}
}

func (m *made) hash() []byte {
	size := m.node.Size
	if m.left == nil {
		size = 1
	}
	b := binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(nil, int64(m.node.Height)), int64(size)), int64(m.node.Version))
	bytesOf := func(v []byte) { b = append(binary.AppendUvarint(b, uint64(len(v))), v...) }
	if m.left == nil {
		bytesOf(m.node.Key)
		bytesOf(sha256Sum(m.node.Value))
	} else {
		bytesOf(m.left.hash())
		bytesOf(m.right.hash())
	}
	return sha256Sum(b)
}

func (m *made) nodes() (s proof.Subtree) {
	if m.cut {
		return proof.Subtree{{Hash: m.hash()}}
	}
	s = append(s, m.node)
	if m.left != nil {
		s = append(append(s, m.left.nodes()...), m.right.nodes()...)
	}
	return s
}

// place is where the tree would stand as the whole tree "params".
func (m *made) place() proof.Place {
	return proof.Place{Tree: slices.Index(ledger.TreeNames(), ledger.TreeParams), Hash: [sha256.Size]byte(m.hash())}
}

// TestSubtreeShape: what hashes as it should, and yet is no tree of the ledger, is refused; with valid hashes only
// validators could make it.
func TestSubtreeShape(t *testing.T) {
	own := func() *made { return rowNode("\x00", "\x01params") }
	deep := own()
	for i := range 70 {
		deep = pair(deep, rowNode(fmt.Sprintf("\x40%03d", i), "v"))
	}
	cut := func(m *made) *made { m.cut = true; return m }
	grown := func(m *made, change func(*proof.Node)) *made { change(&m.node); return m }
	for name, c := range map[string]struct {
		m    *made
		want string // "": it holds
	}{
		"two leaves":             {pair(own(), rowNode("\x40", "v")), ""},
		"only its own leaf":      {own(), ""},
		"three leaves":           {pair(pair(own(), rowNode("\x40", "v")), rowNode("\x41", "w")), ""},
		"stops at a leaf":        {pair(own(), cut(rowNode("\x40", "v"))), ""},
		"stops at its own leaf":  {pair(cut(own()), rowNode("\x40", "v")), ""},
		"stops at an inner node": {pair(own(), cut(pair(rowNode("\x40", "v"), rowNode("\x41", "w")))), ""},
		"stops at once":          {cut(pair(own(), rowNode("\x40", "v"))), "uppermost"},
		"keys fall":              {pair(own(), pair(rowNode("\x41", "v"), rowNode("\x40", "w"))), "sort"},
		"a key twice":            {pair(own(), pair(rowNode("\x40", "v"), rowNode("\x40", "v"))), "sort"},
		"its own leaf last":      {pair(rowNode("\x40", "v"), own()), "begins with"},
		"no leaf of its own":     {pair(rowNode("\x40", "v"), rowNode("\x41", "w")), "begins with"},
		"leaf of another tree":   {pair(rowNode("\x00", "\x01replay"), rowNode("\x40", "v")), "begins with"},
		"key of another tree":    {pair(own(), rowNode("\x50", "v")), "belong"},
		"key beside the trees":   {pair(own(), rowNode("\x80", "v")), "belong"},
		"key of no tree":         {pair(own(), rowNode("\x00\x00", "v")), "belong"},
		"size too small":         {grown(pair(own(), pair(rowNode("\x40", "v"), rowNode("\x41", "w"))), func(n *proof.Node) { n.Size = 2 }), "sizes"},
		"size too small, left":   {grown(pair(pair(own(), rowNode("\x40", "v")), cut(rowNode("\x41", "w"))), func(n *proof.Node) { n.Size = 2 }), "left child"},
		"size too small, right":  {grown(pair(cut(own()), pair(rowNode("\x41", "w"), rowNode("\x42", "w"))), func(n *proof.Node) { n.Size = 2 }), "sizes"},
		"size too large":         {grown(pair(own(), rowNode("\x40", "v")), func(n *proof.Node) { n.Size = 3 }), "sizes"},
		"height too large":       {grown(pair(own(), rowNode("\x40", "v")), func(n *proof.Node) { n.Height = 2 }), "heights"},
		"height too small":       {grown(pair(own(), pair(rowNode("\x40", "v"), rowNode("\x41", "w"))), func(n *proof.Node) { n.Height = 1 }), "stands below"},
		"too deep":               {deep, "neither"},
		"empty value":            {pair(own(), rowNode("\x40", "")), "neither"},
		"empty key":              {pair(own(), rowNode("", "v")), "neither"},
		"no version":             {pair(own(), grown(rowNode("\x40", "v"), func(n *proof.Node) { n.Version = 0 })), "neither"},
		"version too large":      {pair(own(), grown(rowNode("\x40", "v"), func(n *proof.Node) { n.Version = 1 << 62 })), "neither"},
		"long key":               {pair(own(), rowNode("\x40"+strings.Repeat("k", 1<<10), "v")), "at most"},
		"long value":             {pair(own(), rowNode("\x40", strings.Repeat("v", 1<<20+1))), "at most"},
	} {
		content, err := c.m.place().Open(c.m.nodes().Encode())
		if c.want == "" {
			if err != nil || content.Size != max(c.m.node.Size, 1) {
				t.Errorf("%s: %+v, %v", name, content, err)
			}
			continue
		}
		refused(t, err, "%s", name)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// A subtree below the root, whose place says how high and large it is.
	whole := pair(pair(own(), rowNode("\x40", "v")), cut(pair(rowNode("\x41", "w"), rowNode("\x42", "x"))))
	content, err := whole.place().Open(whole.nodes().Encode())
	if err != nil {
		t.Fatal(err)
	}
	below := *content.Items[1].Below
	whole.right.cut = false
	if c, err := below.Open(whole.right.nodes().Encode()); err != nil || c.Size != 2 || below.Most != 2 || below.Above != 2 || !bytes.Equal(below.Path, []byte{1}) {
		t.Errorf("below the root: %+v %+v %v", below, c, err)
	}
	below.Most = 1
	_, err = below.Open(whole.right.nodes().Encode())
	refused(t, err, "more leaves than the node above leaves room for")
	below.Most, below.Above = 2, 1
	_, err = below.Open(whole.right.nodes().Encode())
	refused(t, err, "a node as high as the one above")
	// Bytes and nodes without end.
	_, err = proof.DecodeSubtree(make([]byte, proof.MaxSubtree+1))
	refused(t, err, "too many bytes")
	_, err = proof.DecodeSubtree(slices.Repeat(proof.Subtree{own().node}, 2*proof.MaxLeaves).Encode())
	refused(t, err, "too many nodes")
	_, err = proof.DecodeSubtree(bytes.Repeat([]byte{0x0a}, 1000))
	refused(t, err, "garbage")
	_, err = whole.place().Open(nil)
	refused(t, err, "nothing")
	_, err = whole.place().Open(append(whole.nodes(), rowNode("\x43", "y").node).Encode())
	refused(t, err, "a leaf behind the end")
}

// TestSubtreeProto: generated code writes the same bytes.
func TestSubtreeProto(t *testing.T) {
	s := newStored(t, 4, 5, 50)
	for _, leaves := range []int{3, proof.MaxLeaves} {
		subtree := s.subtree(t, s.largest(t), leaves)
		message := &pb.Subtree{}
		for _, n := range subtree {
			message.Nodes = append(message.Nodes, &pb.Node{Height: n.Height, Size: n.Size, Version: n.Version, Key: n.Key, Value: n.Value, Hash: n.Hash})
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		if err != nil || !bytes.Equal(b, subtree.Encode()) {
			t.Errorf("generated code writes %x, %v; want %x", b, err, subtree.Encode())
		}
	}
	roots := &pb.Roots{}
	if err := proto.Unmarshal(s.roots(t), roots); err != nil || len(roots.Roots) != ledger.TreeCount {
		t.Errorf("%d roots, %v", len(roots.Roots), err)
	}
}

// FuzzSubtree looks for a panic, for bytes that decode and do not encode back, and for a second answer that is accepted.
func FuzzSubtree(f *testing.F) {
	s := newStored(f, 3, 12, 40)
	p := s.largest(f)
	var rows int
	for _, leaves := range []int{1, 4, 20, proof.MaxLeaves} {
		b := s.subtree(f, p, leaves).Encode()
		c, err := p.Open(b)
		if err != nil {
			f.Fatal(err)
		}
		rows = int(c.Size) - 1
		f.Add(b)
	}
	f.Add(pair(rowNode("\x00", "\x01params"), rowNode("\x40", "v")).nodes().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		subtree, err := proof.DecodeSubtree(b)
		if err == nil && !bytes.Equal(subtree.Encode(), b) {
			t.Fatalf("%x encodes back to %x", b, subtree.Encode())
		}
		c, openErr := p.Open(b)
		if openErr != nil {
			if c.Items != nil {
				t.Fatalf("content of a refused answer: %x", b)
			}
			return
		}
		// Where an answer stops is the node's choice; what it shows is not.
		var last []byte
		for _, item := range c.Items {
			switch {
			case item.Below != nil:
			case s.rows[string(item.Key)] != string(item.Value) || bytes.Compare(last, item.Key) >= 0:
				t.Fatalf("accepts the row %x = %x: %x", item.Key, item.Value, b)
			default:
				last = item.Key
			}
		}
		if int(c.Size) != rows+1 {
			t.Fatalf("accepts %d rows of %d: %x", c.Size-1, rows, b)
		}
	})
}

// BenchmarkSubtree checks pages of 2,048 rows, as a walk does.
func BenchmarkSubtree(b *testing.B) {
	m := []*made{rowNode("\x00", "\x01params")}
	for i := 1; i < proof.MaxLeaves; i++ {
		m = append(m, rowNode(string(binary.BigEndian.AppendUint32(append([]byte{0x40}, make([]byte, 44)...), uint32(i))), strings.Repeat("v", 110)))
	}
	for len(m) > 1 {
		for i := 0; i < len(m); i += 2 {
			m[i/2] = pair(m[i], m[i+1])
		}
		m = m[:len(m)/2]
	}
	place, encoded := m[0].place(), m[0].nodes().Encode()
	b.SetBytes(int64(len(encoded)))
	for b.Loop() {
		if _, err := place.Open(encoded); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(proof.MaxLeaves*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
