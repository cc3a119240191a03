// Package snapshot keeps snapshots of the ledger's state as files: made in the background of a running node, served to
// others, fetched from several of them, checked, and built into a state again.
//
// A snapshot is a folder with a manifest and numbered chunks, the same bytes on every node that makes one of the height
// (docs/decisions/0019). The manifest has the top nodes of all trees, which give the AppHash that a header proves, and
// the hash of every chunk. So whoever knows the header knows at once whether a manifest is of the right state, and refuses
// each chunk that is not the manifest's before it looks into it. That the chunks are those of the state is known when the
// last node of each tree has come (store.Import): until then nothing is used.
//
// # What an attacker gains
//
// A provider cannot make a node take a false state. It can announce a manifest with true tops and false chunks, and
// cost the taker one download; the snapshot and its providers are then left out. It cannot fill the disk: chunks are bounded
// in size and number, nothing is compressed, and the disk is looked at before.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// Format of snapshots, as CometBFT names it. A node takes no other.
const Format = 1

const (
	// ChunkBytes is the most that a chunk has. One is read and sent as a whole within a peer's receiving goroutine, so it
	// is small beside CometBFT's limit of 16 MB; records are at most half as long.
	ChunkBytes = 2 << 20
	// MaxChunks bounds a snapshot: 100,000 chunks are 200 GB, and their hashes 3.4 MB.
	MaxChunks = 100_000
	// MaxManifestBytes is below CometBFT's limit of 4,000,000 bytes for the message that carries it.
	MaxManifestBytes = 3_900_000
)

// Manifest says what a snapshot is and what its chunks hash to.
type Manifest struct {
	UnixMillis uint64      // time of the block
	Network    crypto.Hash // id
	Tops       store.Tops  // with the height
	Bytes      uint64      // of all chunks
	Chunks     []crypto.Hash
}

// Height of the state.
func (m *Manifest) Height() uint64 { return m.Tops.Height }

// Encode writes the manifest: format, height, unix_millis, network, a message for each tree, bytes, the hashes of the chunks.
func (m *Manifest) Encode() []byte {
	w := canonical.NewWriter(nil)
	w.Uint32(1, Format)
	w.Uint64(2, m.Tops.Height)
	w.Uint64(3, m.UnixMillis)
	w.Message(4, m.Network[:])
	for _, t := range m.Tops.Trees {
		top := canonical.NewWriter(nil)
		top.Uint64(1, t.Height)
		top.Uint64(2, t.Size)
		top.Uint64(3, t.Version)
		if t.Height > 0 {
			top.Message(4, t.Left[:])
			top.Message(5, t.Right[:])
		}
		w.Message(5, top.Done())
	}
	w.Uint64(6, m.Bytes)
	for i := range m.Chunks {
		w.Message(7, m.Chunks[i][:])
	}
	return w.Done()
}

// ErrManifest: the bytes are not a manifest that this program takes.
var ErrManifest = errors.New("not a manifest of a snapshot")

// ErrFormat: the snapshot is of a format that this program does not know.
var ErrFormat = errors.New("snapshot of an unknown format: use a newer program")

// Decode reads a manifest and refuses what no snapshot can be.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrManifest, len(b), MaxManifestBytes)
	}
	r := canonical.NewReader(b)
	if format := r.Uint32(1, "format"); format != Format {
		if r.Failed() || format == 0 {
			return nil, fmt.Errorf("%w: it does not name its format", ErrManifest)
		}
		return nil, fmt.Errorf("%w: %d", ErrFormat, format)
	}
	m := new(Manifest)
	m.Tops.Height = r.Uint64(2, "height")
	m.UnixMillis = r.Uint64(3, "unix_millis")
	r.Fixed(4, "network", m.Network[:])
	trees := 0
	r.Repeated(5, "trees", ledger.TreeCount, func(i int, element []byte) error {
		trees++
		top := canonical.NewReader(element)
		t := &m.Tops.Trees[i]
		t.Height = top.Uint64(1, "height")
		t.Size = top.Uint64(2, "size")
		t.Version = top.Uint64(3, "version")
		if t.Height > 0 {
			top.Fixed(4, "left", t.Left[:])
			top.Fixed(5, "right", t.Right[:])
		}
		return top.Close()
	})
	m.Bytes = r.Uint64(6, "bytes")
	r.Repeated(7, "chunks", MaxChunks, func(_ int, element []byte) error {
		if len(element) != len(crypto.Hash{}) {
			return fmt.Errorf("a hash of %d bytes", len(element))
		}
		m.Chunks = append(m.Chunks, crypto.Hash(element))
		return nil
	})
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if trees != ledger.TreeCount {
		return nil, fmt.Errorf("%w: %d trees, want %d", ErrManifest, trees, ledger.TreeCount)
	}
	if err := m.Tops.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if n := uint64(len(m.Chunks)); n == 0 || m.Bytes < n || m.Bytes > n*ChunkBytes {
		return nil, fmt.Errorf("%w: %d bytes in %d chunks", ErrManifest, m.Bytes, n)
	}
	return m, nil
}

const (
	plausibleBytes    = 16 << 20
	plausibleRowBytes = 512 // a row takes some 115; one with a policy of post-quantum keys, a few thousand
)

// Exaggerates tells whether the manifest announces more bytes than its rows are likely to take. The rows are proven with the
// AppHash, the bytes are the word of who made the manifest. So one for which a disk has no room says nothing about the
// disk where it exaggerates: another snapshot may fit.
func (m *Manifest) Exaggerates() bool {
	return m.Bytes > plausibleBytes && (m.Bytes-plausibleBytes)/plausibleRowBytes > m.Tops.Leaves()
}

// Hash is the snapshot's name: SHA-256 of the manifest.
func (m *Manifest) Hash() crypto.Hash { return sha256.Sum256(m.Encode()) }

// ErrChunk: bytes are not the chunk that the manifest names.
var ErrChunk = errors.New("chunk is not the one that the manifest names")

// Check refuses bytes that are not the chunk of that number.
func (m *Manifest) Check(index int, chunk []byte) error {
	if index < 0 || index >= len(m.Chunks) {
		return fmt.Errorf("%w: chunk %d of %d", ErrChunk, index, len(m.Chunks))
	}
	if len(chunk) > ChunkBytes {
		return fmt.Errorf("%w: chunk %d has %d bytes, at most %d", ErrChunk, index, len(chunk), ChunkBytes)
	}
	if sum := crypto.Hash(sha256.Sum256(chunk)); sum != m.Chunks[index] {
		return fmt.Errorf("%w: chunk %d hashes to %s, want %s", ErrChunk, index, sum, m.Chunks[index])
	}
	return nil
}

// Info is what is shown of a snapshot.
type Info struct {
	Height  uint64 `json:"height"`
	Format  uint32 `json:"format"`
	Time    string `json:"time"` // of its block, RFC 3339
	Chunks  int    `json:"chunks"`
	Bytes   uint64 `json:"bytes"`
	Rows    uint64 `json:"rows"`
	AppHash string `json:"app_hash"`
	Network string `json:"network_id"`
	Hash    string `json:"hash"` // of the manifest
}

// Info of the manifest.
func (m *Manifest) Info() Info {
	app := m.Tops.AppHash()
	return Info{Height: m.Height(), Format: Format, Time: time.UnixMilli(int64(m.UnixMillis)).UTC().Format(time.RFC3339Nano), Chunks: len(m.Chunks), Bytes: m.Bytes, Rows: m.Tops.Leaves() - ledger.TreeCount,
		AppHash: hex.EncodeToString(app[:]), Network: m.Network.String(), Hash: m.Hash().String()}
}
