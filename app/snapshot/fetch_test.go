package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// child is the environment's variable that makes this test binary fetch and build, so that its memory can be told from that
// of the test. Its value is the sources, the AppHash and a folder.
const child = "PACIOLI_SNAPSHOT_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(child); text != "" {
		os.Exit(fetchAlone(strings.Fields(text)))
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// state makes a store with a real genesis and, for each account, a line and a row of holdings of the sizes that they have.
func state(t testing.TB, accounts int) *store.Store {
	t.Helper()
	RehearsedChunkBytes = ChunkBytes
	if accounts <= 10_000 {
		RehearsedChunkBytes = 16 << 10
	}
	t.Cleanup(func() { RehearsedChunkBytes = ChunkBytes })
	key := ed25519.GenPrivKeyFromSecret([]byte("validator"))
	p := ledger.DefaultParameters()
	doc, err := genesis.New("snapshots", time.Unix(1_700_000_000, 0), []types.GenesisValidator{{PubKey: key.PubKey(), Address: key.PubKey().Address(), Power: 10}},
		ledger.GenesisState{Parameters: p.Genesis("EUR", crypto.Address{1}), Assets: []ledger.GenesisAsset{{Code: "EUR", Issuer: crypto.Address{2}, Scale: 2, MaxSupply: "1000"}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := genesis.FromDoc(doc)
	if err != nil {
		t.Fatal(err)
	}
	outcome, _, err := g.Outcome()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.TempDir(), store.Options{KeepVersions: 2, CacheBytes: 64 << 20, MemTableBytes: 32 << 20, TreeCacheNodes: max(400_000, 4*accounts)})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(writes []ledger.Write) {
		slices.SortFunc(writes, func(a, b ledger.Write) int { return bytes.Compare(a.Key, b.Key) })
		if _, err := s.Stage(s.Height()+1, writes, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	commit(outcome.Writes)
	perBlock := max(10_000, accounts/2) // few blocks write each inner node of the tree less often
	for from := 0; from < accounts; from += perBlock {
		var writes []ledger.Write
		for i := from; i < min(from+perBlock, accounts); i++ {
			address := crypto.Address(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))))
			value := append([]byte{1}, bytes.Repeat(address[:], 3)...)
			writes = append(writes, ledger.Write{Key: ledger.LineRow(ledger.LineKey{Account: address}), Value: value}, ledger.Write{Key: ledger.HoldingsRow(address), Value: []byte{1, 8, 1}})
		}
		commit(writes)
	}
	commit(nil)
	return s
}

// take makes the snapshot of a store.
func take(t testing.TB, s *store.Store) (*Folder, *Manifest) {
	t.Helper()
	f, err := OpenFolder(filepath.Join(t.TempDir(), "snapshots"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	view := s.View()
	defer view.Close()
	m, err := f.Take(context.Background(), view, 1_700_000_001_000, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f, m
}

// serve gives a folder's snapshots as a node does, spoilt by how.
type provider struct {
	url    string
	asked  atomic.Int64 // chunks
	chunks sync.Map     // numbers that were asked for

	manifest func(w http.ResponseWriter, text []byte) // nil: sent as it is
}

func serve(t testing.TB, f *Folder, offer func(*Manifest) *Manifest, chunk func(w http.ResponseWriter, index int, chunk []byte)) *provider {
	t.Helper()
	p := new(provider)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, _ *http.Request) {
		list := []Info{}
		for _, m := range f.List() {
			list = append(list, offer(m).Info())
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("GET "+Path+"/{height}/{part}", func(w http.ResponseWriter, r *http.Request) {
		height, _ := strconv.ParseUint(r.PathValue("height"), 10, 64)
		m := f.Manifest(height)
		if m == nil {
			http.NotFound(w, r)
			return
		}
		if r.PathValue("part") == "manifest" {
			if text := offer(m).Encode(); p.manifest != nil {
				p.manifest(w, text)
			} else {
				_, _ = w.Write(text)
			}
			return
		}
		index, _ := strconv.Atoi(r.PathValue("part"))
		p.asked.Add(1)
		p.chunks.Store(index, true)
		content, err := f.Chunk(height, index)
		if err != nil || content == nil {
			http.NotFound(w, r)
			return
		}
		chunk(w, index, content)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func honestly(m *Manifest) *Manifest                   { return m }
func whole(w http.ResponseWriter, _ int, chunk []byte) { _, _ = w.Write(chunk) }
func flipped(w http.ResponseWriter, i int, chunk []byte) {
	bad := bytes.Clone(chunk)
	bad[i%len(bad)] ^= 0x40
	_, _ = w.Write(bad)
}

// trickle sends a byte a second for as long as somebody reads.
func trickle(w http.ResponseWriter, b []byte) {
	for i := range b {
		if _, err := w.Write(b[i : i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// trusting trusts one AppHash.
func trusting(hash [32]byte) func(context.Context, *Manifest) error {
	return func(_ context.Context, m *Manifest) error {
		if got := m.Tops.AppHash(); got != hash {
			return fmt.Errorf("%w: %x, want %x", ErrUntrusted, got, hash)
		}
		return nil
	}
}

// TestFetch: whatever the others send, what one honest node has is fetched, and who lied is not asked again.
func TestFetch(t *testing.T) {
	s := state(t, 2000)
	defer s.Close()
	f, m := take(t, s)
	if len(m.Chunks) < 10 {
		t.Fatalf("only %d chunks", len(m.Chunks))
	}
	if again, same := take(t, s); same.Hash() != m.Hash() {
		t.Fatalf("the same state gives %s and %s", m.Hash(), again.List()[0].Hash())
	}
	hash := m.Tops.AppHash()
	otherChunk := func(w http.ResponseWriter, i int, _ []byte) {
		c, _ := f.Chunk(m.Height(), (i+1)%len(m.Chunks))
		_, _ = w.Write(c)
	}
	for name, bad := range map[string]struct {
		offer   func(*Manifest) *Manifest
		chunk   func(http.ResponseWriter, int, []byte)
		dropped string
	}{
		"flipped":   {honestly, flipped, "drop a node"},
		"truncated": {honestly, func(w http.ResponseWriter, _ int, c []byte) { _, _ = w.Write(c[:len(c)/2]) }, "drop a node"},
		"swapped":   {honestly, otherChunk, "drop a node"},
		"empty":     {honestly, func(http.ResponseWriter, int, []byte) {}, "drop a node"},
		"endless": {honestly, func(w http.ResponseWriter, _ int, c []byte) {
			for {
				if _, err := w.Write(bytes.Repeat(c[:1], 1<<20)); err != nil {
					return
				}
			}
		}, "drop a node"},
		"missing": {honestly, func(w http.ResponseWriter, _ int, _ []byte) { http.Error(w, "no", http.StatusNotFound) }, ""},
		"broken":  {honestly, func(w http.ResponseWriter, _ int, _ []byte) { http.Error(w, "no", http.StatusInternalServerError) }, ""},
		"another state": {func(m *Manifest) *Manifest {
			lie := *m
			for i := range lie.Tops.Trees {
				if lie.Tops.Trees[i].Height > 0 {
					lie.Tops.Trees[i].Right[7] ^= 1
				}
			}
			return &lie
		}, whole, "drop a node"},
		"chunks of another state": {func(m *Manifest) *Manifest { // the manifest fits what it sends, and the right tops
			lie := *m
			lie.Chunks = slices.Clone(m.Chunks)
			lie.Chunks[3], lie.Chunks[4] = lie.Chunks[4], lie.Chunks[3]
			return &lie
		}, func(w http.ResponseWriter, i int, c []byte) {
			if i == 3 || i == 4 {
				c, _ = f.Chunk(m.Height(), 7-i)
			}
			_, _ = w.Write(c)
		}, "drop a node"},
		"more chunks than it has": {func(m *Manifest) *Manifest {
			lie := *m
			lie.Chunks = append(slices.Clone(m.Chunks), m.Chunks[0])
			lie.Bytes += 100
			return &lie
		}, func(w http.ResponseWriter, i int, c []byte) { _, _ = w.Write(c) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			liar, honest := serve(t, f, bad.offer, bad.chunk), serve(t, f, honestly, whole)
			var log bytes.Buffer
			dir := filepath.Join(t.TempDir(), "fetched")
			built := filepath.Join(t.TempDir(), "state")
			fetch := Fetch{Sources: []string{liar.url, honest.url}, Dir: dir, Trust: trusting(hash), Log: slog.New(slog.NewTextHandler(&log, nil)),
				Use: func(path string, m *Manifest) error {
					return Build(context.Background(), path, m, built, store.Options{}, nil, nil)
				}}
			got, err := fetch.Run(t.Context())
			if err != nil || got.Hash() != m.Hash() {
				t.Fatalf("%v; %s", err, log.String())
			}
			r, err := store.Open(built, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if !bytes.Equal(r.AppHash(), s.AppHash()) {
				t.Errorf("AppHash %x, want %x", r.AppHash(), s.AppHash())
			}
			if bad.dropped != "" && !strings.Contains(log.String(), bad.dropped) {
				// Where another snapshot has the same height, which is tried first is by its hash.
				if liar.asked.Load() > 0 {
					t.Errorf("it is not dropped: %s", log.String())
				}
			}
			if n := liar.asked.Load(); bad.dropped != "" && name != "chunks of another state" && n > 2*perSource {
				t.Errorf("a liar was asked %d times", n)
			}
		})
	}
	t.Run("stalled", func(t *testing.T) {
		patience := stallPatience
		stallPatience = 500 * time.Millisecond
		defer func() { stallPatience = patience }()
		for name, invent := range map[string]func(*Manifest){
			"always busy":        func(*Manifest) {},
			"larger than a disk": func(m *Manifest) { m.Chunks = slices.Repeat(m.Chunks[:1], MaxChunks); m.Bytes = MaxChunks * ChunkBytes },
		} {
			// A folder in which the liar's snapshot was begun makes it the first that is tried.
			lie := *m
			lie.Chunks = slices.Clone(m.Chunks)
			lie.Chunks[1][0] ^= 1
			invent(&lie)
			dir := filepath.Join(t.TempDir(), "fetched")
			if _, err := OpenPartial(dir, &lie); err != nil {
				t.Fatal(err)
			}
			liar := serve(t, f, func(*Manifest) *Manifest { return &lie }, func(w http.ResponseWriter, _ int, _ []byte) { http.Error(w, "busy", http.StatusServiceUnavailable) })
			honest := serve(t, f, honestly, whole)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := (&Fetch{Sources: []string{liar.url, honest.url}, Dir: dir, Trust: trusting(hash), Log: quiet()}).Run(ctx)
			if err != nil || got.Hash() != m.Hash() {
				t.Errorf("%s: %v", name, err)
			}
			if name == "always busy" && liar.asked.Load() == 0 {
				t.Errorf("%s: the liar was not asked first", name)
			}
		}
	})
	t.Run("slow", func(t *testing.T) {
		request, overtake, patience := requestTimeout, overtakeAfter, stallPatience
		defer func() { requestTimeout, overtakeAfter, stallPatience = request, overtake, patience }()
		overtakeAfter = 200 * time.Millisecond
		invented := *m
		invented.Chunks = slices.Repeat(m.Chunks[:1], len(m.Chunks))
		invention := func(*Manifest) *Manifest { return &invented }
		trickled := func(w http.ResponseWriter, _ int, c []byte) { trickle(w, c) }
		often := time.NewTicker(400 * time.Millisecond) // 40 kB a second of all liars together
		defer often.Stop()
		for _, c := range []struct {
			name              string
			request, patience time.Duration
			offer             func(*Manifest) *Manifest
			chunk             func(http.ResponseWriter, int, []byte)
			manifest          func(http.ResponseWriter, []byte)
		}{
			{"chunks", request, patience, honestly, trickled, nil},
			{"the manifest", request, patience, honestly, whole, trickle},
			{"the manifest of an invention", 500 * time.Millisecond, patience, invention, whole, trickle},
			{"chunks of an invention", 500 * time.Millisecond, time.Second, invention, trickled, nil},
			{"an invention, whole chunks", request, time.Second, invention, func(w http.ResponseWriter, _ int, _ []byte) {
				select {
				case <-often.C:
				case <-time.After(5 * time.Second): // the test is over
				}
				first, _ := f.Chunk(m.Height(), 0)
				_, _ = w.Write(first)
			}, nil},
		} {
			requestTimeout, stallPatience = c.request, c.patience
			var sources []string
			var liars []*provider
			for range 2 { // what two have is tried before what one has
				liar := serve(t, f, c.offer, c.chunk)
				liar.manifest = c.manifest
				liars, sources = append(liars, liar), append(sources, liar.url)
			}
			honest := serve(t, f, honestly, whole)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			began := time.Now()
			got, err := (&Fetch{Sources: append(sources, honest.url), Dir: filepath.Join(t.TempDir(), "fetched"), Trust: trusting(hash), Log: quiet()}).Run(ctx)
			cancel()
			took := time.Since(began).Round(time.Millisecond)
			if err != nil || got.Hash() != m.Hash() || took > 6*time.Second {
				t.Errorf("%s: after %s: %v", c.name, took, err)
			}
			if c.manifest == nil && (liars[0].asked.Load() == 0 || liars[1].asked.Load() == 0) {
				t.Errorf("%s: the liars were not asked", c.name)
			}
			t.Logf("%s: %s; the liars were asked for %d and %d chunks of %d", c.name, took, liars[0].asked.Load(), liars[1].asked.Load(), len(m.Chunks))
		}
	})
	t.Run("alone", func(t *testing.T) {
		liar := serve(t, f, honestly, flipped)
		_, err := (&Fetch{Sources: []string{liar.url}, Dir: t.TempDir(), Trust: trusting(hash), Log: quiet()}).Run(t.Context())
		if !errors.Is(err, ErrNone) || !errors.Is(err, ErrChunk) {
			t.Errorf("%v", err)
		}
	})
	t.Run("resumed", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "fetched")
		ctx, cancel := context.WithCancel(t.Context())
		first := serve(t, f, honestly, whole)
		_, err := (&Fetch{Sources: []string{first.url}, Dir: dir, Trust: trusting(hash), Log: quiet(), Progress: func(p Progress) {
			if p.Done == 5 {
				cancel()
			}
		}}).Run(ctx)
		if err == nil {
			t.Fatal("it was not interrupted")
		}
		// What a crash has torn is fetched again.
		p, err := OpenPartial(dir, m)
		if err != nil || p.Missing() == 0 || p.Missing() > len(m.Chunks)-5 {
			t.Fatalf("%v, %d missing", err, p.Missing())
		}
		had := slices.Index(p.have, true)
		if err := os.Truncate(filepath.Join(dir, chunkName(had)), 10); err != nil {
			t.Fatal(err)
		}
		second := serve(t, f, honestly, whole)
		if _, err := (&Fetch{Sources: []string{second.url}, Dir: dir, Trust: trusting(hash), Log: quiet()}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, there := range p.have {
			if _, asked := second.chunks.Load(i); asked == (there && i != had) {
				t.Errorf("chunk %d was there: %t; asked for again: %t", i, there, asked)
			}
		}
	})
}

// TestManifest: what is no manifest is refused, and one is read as it was written.
func TestManifest(t *testing.T) {
	s := state(t, 300)
	defer s.Close()
	_, m := take(t, s)
	text := m.Encode()
	back, err := Decode(text)
	if err != nil || back.Hash() != m.Hash() || !bytes.Equal(back.Encode(), text) {
		t.Fatalf("%v", err)
	}
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1 << (i % 8)
		if other, err := Decode(bad); err == nil && !bytes.Equal(other.Encode(), bad) {
			t.Errorf("byte %d: read as another manifest", i)
		}
		if _, err := Decode(text[:i]); err == nil && i < len(text) && i > 0 {
			if other, _ := Decode(text[:i]); len(other.Chunks) == len(m.Chunks) {
				t.Errorf("the first %d bytes are a manifest", i)
			}
		}
	}
	if _, err := Decode(append([]byte{0x08, 0x02}, text[2:]...)); !errors.Is(err, ErrFormat) {
		t.Errorf("another format: %v", err)
	}
	if _, err := Decode(make([]byte, MaxManifestBytes+1)); !errors.Is(err, ErrManifest) {
		t.Errorf("too long: %v", err)
	}
}

// fetchAlone fetches and builds in a process of its own, and prints how long it took and its peak of memory.
func fetchAlone(args []string) int {
	var hash [32]byte
	if _, err := fmt.Sscanf(args[1], "%x", &hash); err != nil {
		b, _ := hexBytes(args[1])
		copy(hash[:], b)
	}
	began := time.Now()
	var fetched time.Duration
	built := filepath.Join(args[2], "state")
	f := Fetch{Sources: strings.Split(args[0], ","), Dir: filepath.Join(args[2], "fetched"), Trust: trusting(hash), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Use: func(path string, m *Manifest) error {
			fetched = time.Since(began)
			return Build(context.Background(), path, m, built, store.Options{}, nil, nil)
		}}
	m, err := f.Run(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	took := time.Since(began)
	status, _ := os.ReadFile("/proc/self/status")
	peak := "unknown"
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			peak = strings.TrimSpace(rest)
		}
	}
	fmt.Printf("%d chunks of %d MB fetched in %s, built and verified in %s more, at most %s of memory\n", len(m.Chunks), m.Bytes>>20,
		fetched.Round(time.Millisecond), (took - fetched).Round(time.Millisecond), peak)
	return 0
}

func hexBytes(text string) (b []byte, err error) {
	for i := 0; i+1 < len(text); i += 2 {
		n, err := strconv.ParseUint(text[i:i+2], 16, 8)
		if err != nil {
			return nil, err
		}
		b = append(b, byte(n))
	}
	return b, nil
}

// TestFetchAccounts fetches the state of many accounts from one honest and one poisoned provider, in a process of its own, and
// reports time and memory. `make statesync-million` runs it with a million.
func TestFetchAccounts(t *testing.T) {
	accounts := 5000
	if text := os.Getenv("PACIOLI_SYNC_ACCOUNTS"); text != "" {
		var err error
		if accounts, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	s := state(t, accounts)
	t.Logf("%d accounts made in %s", accounts, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	f, m := take(t, s)
	t.Logf("snapshot of %d rows taken in %s", m.Info().Rows, time.Since(began).Round(time.Millisecond))
	honest, poisoned := serve(t, f, honestly, whole), serve(t, f, honestly, flipped)
	hash := m.Tops.AppHash()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%s %x %s", child, poisoned.url, honest.url, hash, dir))
	var log bytes.Buffer
	cmd.Stderr = io.MultiWriter(&log, io.Discard)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	t.Logf("%s", bytes.TrimSpace(out))
	if !strings.Contains(log.String(), "drop a node") || poisoned.asked.Load() > 2*perSource {
		t.Errorf("the poisoned provider was asked %d times: %s", poisoned.asked.Load(), log.String())
	}
	r, err := store.Open(filepath.Join(dir, "state"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !bytes.Equal(r.AppHash(), s.AppHash()) || r.Height() != s.Height() {
		t.Errorf("height %d with AppHash %x, want %d with %x", r.Height(), r.AppHash(), s.Height(), s.AppHash())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
