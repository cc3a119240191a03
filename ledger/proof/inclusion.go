package proof

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/bits"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

const (
	// MaxTotal bounds the transactions of a block: cometbft allows blocks of 100 MiB, and no signed transaction has
	// fewer than 100 bytes, so 2^20 cannot be reached.
	MaxTotal = 1 << 20
	// maxAunts is the longest audit path among MaxTotal leaves: log2 of it.
	maxAunts = 20
	// maxShape bounds Inclusion.Shape: with every bit of total-1 set, the trees on the right edge have 2^19, 2^18, ... 1
	// leaves and one more leaf follows; each takes a leaf and as many aunts as it is high: 20+190+1 hashes. One of them is
	// left out, but the bound keeps it.
	maxShape = 20 + 20*19/2 + 1
	// MaxTx bounds the transaction in bytes. The node's limit is lower; this one keeps a client's memory.
	MaxTx = 1 << 20
	// MaxResult bounds the encoded result in bytes: a receipt is smaller than the transaction's own limit.
	MaxResult = 1 << 20
	// MaxInclusion bounds the encoding: the two above, 251 hashes of 34 bytes (8.5 KB) and the numbers.
	MaxInclusion = MaxTx + MaxResult + 16<<10
)

// Result is the part of a transaction's outcome that the validators sign. The ledger sets no gas.
type Result struct {
	Code uint32 // 0 for success
	Data []byte // the receipt
}

// EncodeResult returns what stands under LastResultsHash for one transaction: cometbft's deterministic ExecTxResult,
// {uint32 code = 1; bytes data = 2}, without gas. It is empty for code 0 without data.
func EncodeResult(code uint32, data []byte) []byte {
	w := canonical.NewWriter(nil)
	w.Uint32(1, code)
	w.Bytes(2, data)
	return w.Done()
}

// DecodeResult reads what EncodeResult wrote, of at most MaxResult bytes. Data points into b. A result with gas is
// refused: no block of this ledger holds one.
func DecodeResult(b []byte) (Result, error) {
	if len(b) > MaxResult {
		return Result{}, invalid("result has %d bytes, at most %d", len(b), MaxResult)
	}
	r := canonical.NewReader(b)
	result := Result{Code: r.Uint32(1, "code"), Data: r.Bytes(2, "data", MaxResult)}
	if err := r.Close(); err != nil {
		return Result{}, invalid("result: %v", err)
	}
	return result, nil
}

// Inclusion proves which place a transaction has in a block and what it did there.
//
// # What an audit path proves, and what Shape adds
//
// A path of RFC 6962 proves that an item is a leaf of the tree, and nothing about numbers: the path of item 4 of 5 is one
// aunt on the left, and so is that of item 1 of 2; item 0 has the same three aunts in trees of 5, 6, 7 and 8. The header
// does not tell how many transactions its block has. So a pair (Index, Total) that merely fits the paths is one of
// several, and a node could number a transaction wrongly.
//
// What equal numbers in both paths do prove is that transaction and result belong together: equal (Index, Total) walk
// the same turns from the root, both trees have the same form (cometbft refuses a block whose results are not as many as
// its transactions), so both walks end at the same leaf.
//
// Shape proves Total, and with it Index. Reading the bits of Total-1 from the top, the tree of transactions has on its
// right edge one perfect subtree of 2^k leaves for each set bit k, and then a last single leaf. Shape opens the first
// leaf of each of them (that of the one that holds Index is left out: TxAunts opens it): the transaction's hash, then its
// k aunts inside the subtree. Take a block of n transactions and a claimed Total of t, both above 1. In both readings the
// root's left child is a perfect tree; an opened leaf at depth k below it shows that it has 2^k leaves, for leaves and
// inner nodes are hashed under different prefixes. So both have the same left side, and the argument repeats for the
// right child, until one reading says "a single leaf" and the hash's prefix decides. Hence t = n. It rests on the header
// being signed by honest validators, who build the tree as the rule says, and on SHA-256.
//
// The price is half of log2(Total) squared hashes at worst: none for one transaction, 15 for 32, 46 (1.5 KiB) for 1,000.
type Inclusion struct {
	Tx           []byte // raw bytes as they stand in the block
	Result       []byte // as EncodeResult writes it
	Index, Total uint64 // 0 <= Index < Total <= MaxTotal
	TxAunts      [][]byte
	ResultAunts  [][]byte
	Shape        [][]byte
}

// Encode returns the wire form: canonical protobuf {bytes tx = 1; bytes result = 2; uint64 index = 3; uint64 total = 4;
// repeated bytes tx_aunts = 5; repeated bytes result_aunts = 6; repeated bytes shape = 7}. It does not check the limits.
func (p Inclusion) Encode() []byte {
	w := canonical.NewWriter(nil)
	w.Bytes(1, p.Tx)
	w.Bytes(2, p.Result)
	w.Uint64(3, p.Index)
	w.Uint64(4, p.Total)
	for number, hashes := range [][][]byte{5: p.TxAunts, 6: p.ResultAunts, 7: p.Shape} {
		for _, h := range hashes {
			w.Message(number, h)
		}
	}
	return w.Done()
}

// DecodeInclusion reads the wire form, of at most MaxInclusion bytes. The fields point into b.
func DecodeInclusion(b []byte) (Inclusion, error) {
	if len(b) > MaxInclusion {
		return Inclusion{}, invalid("inclusion has %d bytes, at most %d", len(b), MaxInclusion)
	}
	r := canonical.NewReader(b)
	p := Inclusion{
		Tx:     r.Bytes(1, "tx", MaxTx),
		Result: r.Bytes(2, "result", MaxResult),
		Index:  r.Uint64(3, "index"),
		Total:  r.Uint64(4, "total"),
	}
	hashes := func(number int, field string, limit int) (list [][]byte) {
		r.Repeated(number, field, limit, func(_ int, h []byte) error {
			if len(h) != hashSize {
				return canonical.Errorf("", "%d bytes, want %d", len(h), hashSize)
			}
			list = append(list, h)
			return nil
		})
		return list
	}
	p.TxAunts = hashes(5, "tx_aunts", maxAunts)
	p.ResultAunts = hashes(6, "result_aunts", maxAunts)
	p.Shape = hashes(7, "shape", maxShape)
	if err := r.Close(); err != nil {
		return Inclusion{}, invalid("inclusion: %v", err)
	}
	return p, p.limits()
}

// limits are checked again by Receipt, because an Inclusion need not come from DecodeInclusion.
func (p Inclusion) limits() error {
	switch {
	case len(p.Tx) == 0:
		return invalid("tx: missing")
	case len(p.Tx) > MaxTx:
		return invalid("tx: %d bytes, at most %d", len(p.Tx), MaxTx)
	case len(p.Result) > MaxResult:
		return invalid("result: %d bytes, at most %d", len(p.Result), MaxResult)
	case p.Total > MaxTotal:
		return invalid("total: %d, at most %d", p.Total, MaxTotal)
	case p.Index >= p.Total:
		return invalid("index: %d is not below total %d", p.Index, p.Total)
	case len(p.TxAunts) > maxAunts:
		return invalid("tx_aunts: more than %d", maxAunts)
	case len(p.ResultAunts) > maxAunts:
		return invalid("result_aunts: more than %d", maxAunts)
	case len(p.Shape) > maxShape:
		return invalid("shape: more than %d", maxShape)
	}
	for _, hashes := range [...][][]byte{p.TxAunts, p.ResultAunts, p.Shape} {
		for _, h := range hashes {
			if len(h) != hashSize {
				return invalid("a hash has %d bytes, want %d", len(h), hashSize)
			}
		}
	}
	return nil
}

// Receipt returns nil if p.Tx is transaction p.Index of the p.Total ones of the block whose header has this DataHash, and
// p.Result its result under the LastResultsHash of the next header. Both headers must be of one chain and adjacent; that
// is the caller's part. Inclusion says what the proof rests on.
func Receipt(dataHash, lastResultsHash []byte, p Inclusion) error {
	if len(dataHash) != hashSize {
		return invalid("data hash has %d bytes, want %d", len(dataHash), hashSize)
	}
	if len(lastResultsHash) != hashSize {
		return invalid("last results hash has %d bytes, want %d", len(lastResultsHash), hashSize)
	}
	if err := p.limits(); err != nil {
		return err
	}
	if _, err := DecodeResult(p.Result); err != nil {
		return err
	}
	txHash := sha256.Sum256(p.Tx)
	txLeaf := leafHash(txHash[:])
	root, err := rootFrom(txLeaf, p.Index, p.Total, p.TxAunts)
	if err != nil {
		return invalid("tx_aunts: %v", err)
	}
	if !bytes.Equal(root, dataHash) {
		return invalid("tx_aunts: lead to %x, the header says %x", root, dataHash)
	}
	root, err = rootFrom(leafHash(p.Result), p.Index, p.Total, p.ResultAunts)
	if err != nil {
		return invalid("result_aunts: %v", err)
	}
	if !bytes.Equal(root, lastResultsHash) {
		return invalid("result_aunts: lead to %x, the next header says %x", root, lastResultsHash)
	}
	root, err = rootFromShape(txLeaf, p)
	if err != nil {
		return invalid("shape: %v", err)
	}
	if !bytes.Equal(root, dataHash) {
		return invalid("shape: leads to %x, the header says %x", root, dataHash)
	}
	return nil
}

// edge is one of the perfect subtrees on the right edge of a tree: 2^height leaves from first on.
type edge struct {
	first  uint64
	height int
}

// edges returns the subtrees on the right edge of a tree of total leaves, from the left: one for each set bit of total-1,
// and the last leaf. total must be at least 1.
func edges(total uint64) []edge {
	var list []edge
	first := uint64(0)
	for rest := total - 1; rest != 0; {
		height := bits.Len64(rest) - 1
		list = append(list, edge{first, height})
		first += 1 << height
		rest -= 1 << height
	}
	return append(list, edge{first, 0})
}

// holds tells whether the leaf at index is in the subtree.
func (e edge) holds(index uint64) bool { return index >= e.first && index-e.first < 1<<e.height }

// rootFromShape computes the root of the tree of transactions from an opened leaf in each subtree on its right edge.
func rootFromShape(txLeaf []byte, p Inclusion) ([]byte, error) {
	list := edges(p.Total)
	peaks := make([][]byte, len(list))
	shape := p.Shape
	for i, e := range list {
		leaf, index, aunts := txLeaf, p.Index-e.first, p.TxAunts
		if e.holds(p.Index) {
			// rootFrom has seen that there are enough of them for this position.
			aunts = aunts[:e.height]
		} else {
			if len(shape) < 1+e.height {
				return nil, errPathLength
			}
			leaf, index, aunts, shape = leafHash(shape[0]), 0, shape[1:1+e.height], shape[1+e.height:]
		}
		peak, err := rootFrom(leaf, index, 1<<e.height, aunts)
		if err != nil {
			return nil, err
		}
		peaks[i] = peak
	}
	if len(shape) != 0 {
		return nil, errPathLength
	}
	root := peaks[len(peaks)-1]
	for i := len(peaks) - 2; i >= 0; i-- {
		root = innerHash(peaks[i], root)
	}
	return root, nil
}

// DataHash returns the root over a block's transactions: over SHA-256 of each, as cometbft's Txs.Hash.
func DataHash(txs [][]byte) []byte { return merkleRoot(txHashes(txs)) }

// ResultsHash returns the root over a block's results, as the next header carries it.
func ResultsHash(results []Result) []byte { return merkleRoot(encodeResults(results)) }

func txHashes(txs [][]byte) [][]byte {
	list := make([][]byte, len(txs))
	for i, tx := range txs {
		sum := sha256.Sum256(tx)
		list[i] = sum[:]
	}
	return list
}

func encodeResults(results []Result) [][]byte {
	list := make([][]byte, len(results))
	for i, r := range results {
		list[i] = EncodeResult(r.Code, r.Data)
	}
	return list
}

// MakeInclusion is the prover's side: it proves transaction index of a block with all its transactions and results, at
// the cost of hashing all of them. Tx aliases txs[index].
func MakeInclusion(txs [][]byte, results []Result, index int) (Inclusion, error) {
	if len(txs) != len(results) {
		return Inclusion{}, fmt.Errorf("prove transaction %d: %d transactions and %d results", index, len(txs), len(results))
	}
	if index < 0 || index >= len(txs) || len(txs) > MaxTotal {
		return Inclusion{}, fmt.Errorf("prove transaction %d of %d, want at most %d", index, len(txs), MaxTotal)
	}
	encoded := encodeResults(results)
	hashes := txHashes(txs)
	p := Inclusion{Tx: txs[index], Result: encoded[index], Index: uint64(index), Total: uint64(len(txs))}
	_, p.TxAunts = merklePath(hashes, p.Index)
	_, p.ResultAunts = merklePath(encoded, p.Index)
	for _, e := range edges(p.Total) {
		if !e.holds(p.Index) {
			_, aunts := merklePath(hashes[e.first:e.first+1<<e.height], 0)
			p.Shape = append(append(p.Shape, hashes[e.first]), aunts...)
		}
	}
	if err := p.limits(); err != nil {
		return Inclusion{}, fmt.Errorf("prove transaction %d: %w", index, err)
	}
	return p, nil
}
