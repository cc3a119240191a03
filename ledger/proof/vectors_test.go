package proof_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// hexBytes is written as lower-case hex.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// stateVector is one question to Value (when value is given) or Absence, and whether the answer holds.
type stateVector struct {
	Name    string   `json:"name"`
	AppHash hexBytes `json:"app_hash"`
	Tree    string   `json:"tree"`
	Key     hexBytes `json:"key"`
	Value   hexBytes `json:"value,omitempty"`
	Proof   hexBytes `json:"proof"`
	Holds   bool     `json:"holds"`
}

// receiptVector is one question to Receipt.
type receiptVector struct {
	Name            string   `json:"name"`
	DataHash        hexBytes `json:"data_hash"`
	LastResultsHash hexBytes `json:"last_results_hash"`
	Proof           hexBytes `json:"proof"`
	Index           uint64   `json:"index"`
	Total           uint64   `json:"total"`
	Code            uint32   `json:"code"`
	Data            hexBytes `json:"data,omitempty"`
	Holds           bool     `json:"holds"`
}

// subtreeVector is one answer about a part of a tree, at a place that is proven by the roots under the AppHash and by the
// answers above it.
type subtreeVector struct {
	Name    string        `json:"name"`
	AppHash hexBytes      `json:"app_hash"`
	Roots   hexBytes      `json:"roots"`
	Tree    string        `json:"tree"`
	Path    hexBytes      `json:"path"` // a byte for each step: 0 left, 1 right
	Hash    hexBytes      `json:"hash"` // of the node at the path
	Subtree hexBytes      `json:"subtree"`
	Size    uint64        `json:"size"`
	Rows    [][2]hexBytes `json:"rows"`
	Stops   []hexBytes    `json:"stops"` // paths of the nodes that are shown by their hash only
	Holds   bool          `json:"holds"`
}

func makeSubtreeVectors(t *testing.T) (list []subtreeVector) {
	s := newStored(t, 12, 4, 14)
	add := func(name string, p proof.Place, b []byte, holds bool) {
		v := subtreeVector{Name: name, AppHash: s.store.AppHash(), Roots: s.roots(t), Tree: ledger.TreeNames()[p.Tree], Path: p.Path, Hash: p.Hash[:],
			Subtree: b, Rows: [][2]hexBytes{}, Stops: []hexBytes{}, Holds: holds}
		if c, err := p.Open(b); err == nil {
			v.Size = c.Size
			for _, item := range c.Items {
				if item.Below != nil {
					v.Stops = append(v.Stops, item.Below.Path)
				} else {
					v.Rows = append(v.Rows, [2]hexBytes{item.Key, item.Value})
				}
			}
		}
		list = append(list, v)
	}
	params := s.largest(t)
	whole := s.subtree(t, params, proof.MaxLeaves)
	add("a whole tree", params, whole.Encode(), true)
	top := s.subtree(t, params, 4).Encode()
	add("the top of a tree", params, top, true)
	content, err := params.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	below := *content.Items[len(content.Items)-1].Below
	add("below the top", below, s.subtree(t, below, 4).Encode(), true)
	for _, p := range s.places(t) {
		if len(s.subtree(t, p, 10)) == 1 {
			add("a tree with its own leaf only", p, s.subtree(t, p, 10).Encode(), true)
			break
		}
	}
	last := len(whole) - 1
	changed := func(change func(s proof.Subtree) proof.Subtree) []byte { return change(slices.Clone(whole)).Encode() }
	add("a leaf left out", params, changed(func(s proof.Subtree) proof.Subtree { return s[:last] }), false)
	add("another value", params, changed(func(s proof.Subtree) proof.Subtree { s[last].Value = []byte{1}; return s }), false)
	add("another version", params, changed(func(s proof.Subtree) proof.Subtree { s[last].Version++; return s }), false)
	add("another size", params, changed(func(s proof.Subtree) proof.Subtree { s[0].Size--; return s }), false)
	add("nothing but its hash", params, proof.Subtree{{Hash: params.Hash[:]}}.Encode(), false)
	add("of another place", below, top, false)
	add("an unknown field", params, append(whole.Encode(), 0x12, 1, 0), false)
	return list
}

func TestSubtreeVectors(t *testing.T) {
	for _, v := range golden(t, "subtree.json", makeSubtreeVectors(t)) {
		places, err := proof.OpenRoots(v.AppHash, v.Roots)
		if err != nil {
			t.Fatal(err)
		}
		place := places[slices.Index(ledger.TreeNames(), v.Tree)]
		if len(v.Path) > 0 {
			place = proof.Place{Tree: place.Tree, Path: v.Path, Hash: [32]byte(v.Hash)}
		}
		c, err := place.Open(v.Subtree)
		if v.Holds != (err == nil) || !bytes.Equal(place.Hash[:], v.Hash) {
			t.Errorf("%s: %v", v.Name, err)
		}
		if err == nil && (c.Size != v.Size || len(c.Items) != len(v.Rows)+len(v.Stops)) {
			t.Errorf("%s: size %d, %d items", v.Name, c.Size, len(c.Items))
		}
	}
}

func makeStateVectors(t *testing.T) (list []stateVector) {
	s := filledState(t, "vectors", 11, 120)
	add := func(name string, key, value []byte, p []byte, holds bool) {
		tree, _ := ledger.TreeOf(key)
		list = append(list, stateVector{name, s.appHash, tree, key, value, p, holds})
	}
	kinds := map[string]bool{}
	for _, key := range s.keys {
		tree, _ := ledger.TreeOf(key)
		if kinds[tree] {
			continue
		}
		kinds[tree] = true
		add("value in "+tree, key, s.values[string(key)], s.prove(t, key).Encode(), true)
		absent := append(slices.Clone(key), 0)
		add("absence in the tree of "+hex.EncodeToString(absent), absent, nil, s.prove(t, absent).Encode(), true)
	}
	for _, key := range [][]byte{{0x40}, append([]byte{0x4f}, bytes.Repeat([]byte{0xff}, 8)...)} {
		add("absence at an end of params", key, nil, s.prove(t, key).Encode(), true)
	}
	key, other := s.keys[7], s.keys[8]
	value, p := s.values[string(key)], s.prove(t, key)
	add("another value", key, append(slices.Clone(value), 0), p.Encode(), false)
	add("another key", other, value, p.Encode(), false)
	add("absence of a present key", key, nil, p.Encode(), false)
	add("absence proven in another tree", key, nil, s.proveIn(t, "params", key).Encode(), false)
	add("the sentinel", []byte{0}, []byte("\x01vectors"), s.proveIn(t, "params", []byte{0}).Encode(), false)
	add("unknown field in ics23", key, value, proof.State{IAVL: append(slices.Clone(p.IAVL), 0x7a, 0), Simple: p.Simple}.Encode(), false)
	add("unknown field in the proof", key, value, append(p.Encode(), 0x1a, 1, 0), false)
	add("long varint in ics23", key, value, proof.State{IAVL: longLength(p.IAVL), Simple: p.Simple}.Encode(), false)
	absent := append(slices.Clone(key), 0)
	q := decode(t, s.prove(t, absent).IAVL)
	q.GetNonexist().Key = other
	add("absence that names another key", absent, nil, proof.State{IAVL: encode(t, q), Simple: p.Simple}.Encode(), false)
	return list
}

func makeReceiptVectors(t *testing.T) (list []receiptVector) {
	for _, at := range [][2]int{{1, 0}, {2, 0}, {2, 1}, {3, 1}, {5, 4}, {7, 6}, {8, 5}, {100, 42}} {
		txs, results := block(at[0])
		p, err := proof.MakeInclusion(txs, results, at[1])
		if err != nil {
			t.Fatal(err)
		}
		dataHash, resultsHash := proof.DataHash(txs), proof.ResultsHash(results)
		add := func(name string, p proof.Inclusion, holds bool) {
			r := results[at[1]]
			list = append(list, receiptVector{name, dataHash, resultsHash, p.Encode(), p.Index, p.Total, r.Code, r.Data, holds})
		}
		add("true", p, true)
		if at[0] == 5 {
			q := p
			q.Index, q.Total = 1, 2
			add("4 of 5 as 1 of 2: the paths fit, the shape does not", q, false)
			q.Shape = [][]byte{sha256Sum(txs[0])}
			add("4 of 5 as 1 of 2: the shape has the length for it", q, false)
		}
		if at[0] == 8 {
			q := p
			q.Result = proof.EncodeResult(0, []byte("another receipt"))
			add("another result", q, false)
			q = p
			q.Tx = []byte("another transaction")
			add("another transaction", q, false)
			q = p
			q.Shape = nil
			add("no shape", q, false)
		}
	}
	return list
}

// golden compares a list with its file, or writes the file, and returns what the file says.
func golden[V any](t *testing.T, file string, list []V) (stored []V) {
	t.Helper()
	path := filepath.Join("testdata", "vectors", file)
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("%s differs from what is made now: a change of protocol, or a mistake (-update writes it)", path)
	}
	if err := json.Unmarshal(want, &stored); err != nil {
		t.Fatal(err)
	}
	return stored
}

func TestStateVectors(t *testing.T) {
	for _, v := range golden(t, "state.json", makeStateVectors(t)) {
		p, err := proof.DecodeState(v.Proof)
		if err == nil && v.Value != nil {
			err = proof.Value(v.AppHash, v.Key, v.Value, p)
		} else if err == nil {
			err = proof.Absence(v.AppHash, v.Key, p)
		}
		if v.Holds != (err == nil) {
			t.Errorf("%s: %v", v.Name, err)
		}
		if tree, _ := ledger.TreeOf(v.Key); tree != v.Tree {
			t.Errorf("%s: tree %q, want %q", v.Name, tree, v.Tree)
		}
	}
}

func TestReceiptVectors(t *testing.T) {
	for _, v := range golden(t, "receipt.json", makeReceiptVectors(t)) {
		p, err := proof.DecodeInclusion(v.Proof)
		if err == nil {
			err = proof.Receipt(v.DataHash, v.LastResultsHash, p)
		}
		if v.Holds != (err == nil) {
			t.Errorf("%s (%d of %d): %v", v.Name, v.Index, v.Total, err)
		}
		if v.Holds {
			r, err := proof.DecodeResult(p.Result)
			if err != nil || r.Code != v.Code || !bytes.Equal(r.Data, v.Data) || p.Index != v.Index || p.Total != v.Total {
				t.Errorf("%s: reads as %v, index %d of %d, %v", v.Name, r, p.Index, p.Total, err)
			}
		}
	}
}
