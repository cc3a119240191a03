package light

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cmtstore "github.com/cometbft/cometbft/light/store"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// errStore marks failures of the store, which no endpoint can mend.
var errStore = errors.New("light store")

const (
	blockSuffix = ".block"
	markerName  = "chain.json"
	tempPrefix  = ".new-"
	// maxBlockFile bounds a file that is read, in bytes: 10,000 validators of 5.3 KB each.
	maxBlockFile = 64 << 20
	// staleAfter is the age at which a temporary file is one that a killed process left.
	staleAfter = time.Hour
)

// store keeps verified light blocks, in memory and, when it has a directory, in one file each: SHA-256 of the rest, then
// the protobuf form of cometbft's LightBlock, under the height as 20 digits. It implements cometbft's light/store.Store.
//
// No lock is held on the directory, so that several processes can share it: files appear whole by rename, a file that
// another process prunes is a block not found, and a file that does not pass every check that needs no trust (checksum,
// chain, the signatures of 2/3 of the validators that stand in it) is removed and fetched again. Nothing is synced: what a
// crash tears fails its checksum.
type store struct {
	dir     string // "" for none
	chainID string

	mu     sync.Mutex
	blocks map[int64]*types.LightBlock
}

var _ cmtstore.Store = (*store)(nil)

// marker says whose blocks a directory holds.
type marker struct {
	ChainID   string `json:"chain_id"`
	NetworkID string `json:"network_id,omitempty"` // hex; empty if it was made without a genesis file
}

// openStore opens or makes the store of a chain and refuses another chain's.
func openStore(dir, chainID string, networkID []byte) (*store, error) {
	s := &store{dir: dir, chainID: chainID, blocks: map[int64]*types.LightBlock{}}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: make directory: %w", errStore, err)
	}
	own := marker{chainID, hex.EncodeToString(networkID)}
	text, err := json.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("%w: encode %s: %w", errStore, markerName, err)
	}
	// A link fails if the name is taken, so of two processes that start together one makes it and both read it.
	path := filepath.Join(dir, markerName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := s.write(append(text, '\n'), func(temp string) error { return os.Link(temp, path) }); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	text, err = os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	var found marker
	if err := json.Unmarshal(text, &found); err != nil || found.ChainID == "" {
		return nil, fmt.Errorf("%w: %s does not say which chain it is of; delete the directory", errStore, path)
	}
	if found.ChainID != chainID || found.NetworkID != "" && own.NetworkID != "" && found.NetworkID != own.NetworkID {
		return nil, fmt.Errorf("%w: %s belongs to chain %q (network %s), not to %q (network %s); give another directory or delete this one",
			errStore, dir, found.ChainID, orUnknown(found.NetworkID), chainID, orUnknown(own.NetworkID))
	}
	s.sweep()
	return s, nil
}

func orUnknown(id string) string {
	if id == "" {
		return "unknown"
	}
	return id
}

func (s *store) name() string {
	if s.dir == "" {
		return "the store in memory"
	}
	return "light store " + s.dir
}

// sweep removes temporary files that a killed process left. Its failures cost only disk space.
func (s *store) sweep() {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), tempPrefix) && time.Since(info.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(s.dir, e.Name()))
		}
	}
}

// write puts content into a new file of mode 0600 and hands its name to place, which renames or links it.
func (s *store) write(content []byte, place func(temp string) error) error {
	f, err := os.CreateTemp(s.dir, tempPrefix+"*")
	if err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	defer os.Remove(f.Name()) // gone already if it was renamed
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = place(f.Name())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return nil
}

func (s *store) path(height int64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d%s", height, blockSuffix))
}

// SaveLightBlock stores a verified block. One that differs from the stored block of its height is refused.
func (s *store) SaveLightBlock(b *types.LightBlock) error {
	if b == nil || b.SignedHeader == nil || b.Header == nil || b.Height <= 0 {
		return fmt.Errorf("%w: save a block without a height", errStore)
	}
	if old, err := s.LightBlock(b.Height); err == nil {
		if !bytes.Equal(old.Hash(), b.Hash()) {
			return fmt.Errorf("%w: %s holds block %X at height %d, and %X is verified too: the validators signed a fork",
				errStore, s.name(), old.Hash(), b.Height, b.Hash())
		}
		return nil
	}
	b.ValidatorSet.TotalVotingPower() // is computed and kept at first use; from now on the block is only read
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != "" {
		message, err := b.ToProto()
		if err != nil {
			return fmt.Errorf("%w: encode block %d: %w", errStore, b.Height, err)
		}
		body, err := message.Marshal()
		if err != nil {
			return fmt.Errorf("%w: encode block %d: %w", errStore, b.Height, err)
		}
		sum := sha256.Sum256(body)
		err = s.write(append(sum[:], body...), func(temp string) error { return os.Rename(temp, s.path(b.Height)) })
		if err != nil {
			return err
		}
	}
	s.blocks[b.Height] = b
	return nil
}

// DeleteLightBlock forgets a block; one that is not there is no error.
func (s *store) DeleteLightBlock(height int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forget(height)
}

func (s *store) forget(height int64) error {
	delete(s.blocks, height)
	if s.dir == "" {
		return nil
	}
	if err := os.Remove(s.path(height)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return nil
}

// LightBlock returns the block at a height, or cometbft's ErrLightBlockNotFound.
func (s *store) LightBlock(height int64) (*types.LightBlock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(height)
}

func (s *store) get(height int64) (*types.LightBlock, error) {
	if b, ok := s.blocks[height]; ok {
		return b, nil
	}
	if s.dir == "" || height <= 0 {
		return nil, cmtstore.ErrLightBlockNotFound
	}
	info, err := os.Stat(s.path(height))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cmtstore.ErrLightBlockNotFound
	}
	var content []byte
	if err == nil && info.Size() <= maxBlockFile {
		content, err = os.ReadFile(s.path(height))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cmtstore.ErrLightBlockNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	b, err := decodeBlock(content, s.chainID, height)
	if err != nil {
		// It is never used. Removed, it is fetched again, and verified as anything fetched.
		if err := s.forget(height); err != nil {
			return nil, err
		}
		return nil, cmtstore.ErrLightBlockNotFound
	}
	s.blocks[height] = b
	return b, nil
}

// decodeBlock reads a file and checks all that can be checked without trust.
func decodeBlock(content []byte, chainID string, height int64) (b *types.LightBlock, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("block file: %v", r)
		}
	}()
	if len(content) < sha256.Size {
		return nil, errors.New("block file is too short")
	}
	if sum := sha256.Sum256(content[sha256.Size:]); !bytes.Equal(sum[:], content[:sha256.Size]) {
		return nil, errors.New("block file has a wrong checksum")
	}
	message := new(cmtproto.LightBlock)
	if err := message.Unmarshal(content[sha256.Size:]); err != nil {
		return nil, err
	}
	if b, err = types.LightBlockFromProto(message); err != nil {
		return nil, err
	}
	if err := verifyCommit(chainID, b); err != nil {
		return nil, err
	}
	if b.Height != height {
		return nil, fmt.Errorf("block file of height %d holds %d", height, b.Height)
	}
	return b, nil
}

// heights returns the heights that are known, ascending, without reading the files.
func (s *store) heights() ([]int64, error) {
	var list []int64
	for h := range s.blocks {
		list = append(list, h)
	}
	if s.dir != "" {
		entries, err := os.ReadDir(s.dir)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errStore, err)
		}
		for _, e := range entries {
			digits, ok := strings.CutSuffix(e.Name(), blockSuffix)
			if h, err := strconv.ParseInt(digits, 10, 64); ok && err == nil && h > 0 && len(digits) == 20 {
				list = append(list, h)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// find returns the first block in the order of heights (the last, if down) that wants says is wanted and that can be read.
func (s *store) find(down bool, wants func(height int64) bool) (*types.LightBlock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.heights()
	if err != nil {
		return nil, err
	}
	if down {
		slices.Reverse(list)
	}
	for _, h := range list {
		if !wants(h) {
			continue
		}
		if b, err := s.get(h); err == nil {
			return b, nil
		} else if !errors.Is(err, cmtstore.ErrLightBlockNotFound) {
			return nil, err
		}
	}
	return nil, cmtstore.ErrLightBlockNotFound
}

func anyHeight(int64) bool { return true }

// latest returns the newest block, nil if there is none.
func (s *store) latest() (*types.LightBlock, error) {
	b, err := s.find(true, anyHeight)
	if errors.Is(err, cmtstore.ErrLightBlockNotFound) {
		return nil, nil
	}
	return b, err
}

// above returns the lowest block above a height.
func (s *store) above(height int64) (*types.LightBlock, error) {
	return s.find(false, func(h int64) bool { return h > height })
}

// LightBlockBefore returns the highest block below a height.
func (s *store) LightBlockBefore(height int64) (*types.LightBlock, error) {
	return s.find(true, func(h int64) bool { return h < height })
}

// LastLightBlockHeight returns the newest height, -1 if there is none.
func (s *store) LastLightBlockHeight() (int64, error) { return heightOf(s.find(true, anyHeight)) }

// FirstLightBlockHeight returns the oldest height, -1 if there is none.
func (s *store) FirstLightBlockHeight() (int64, error) { return heightOf(s.find(false, anyHeight)) }

func heightOf(b *types.LightBlock, err error) (int64, error) {
	switch {
	case errors.Is(err, cmtstore.ErrLightBlockNotFound):
		return -1, nil
	case err != nil:
		return 0, err
	}
	return b.Height, nil
}

// Prune removes the oldest blocks until at most size are left.
func (s *store) Prune(size uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.heights()
	if err != nil {
		return err
	}
	for i := 0; i < len(list)-int(size); i++ {
		if err := s.forget(list[i]); err != nil {
			return err
		}
	}
	return nil
}

// Size returns the number of blocks.
func (s *store) Size() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _ := s.heights()
	return uint16(min(len(list), 1<<16-1))
}
