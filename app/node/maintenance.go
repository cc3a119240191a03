package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	cmtinspect "github.com/cometbft/cometbft/inspect"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/state/indexer/block"
	cmtstore "github.com/cometbft/cometbft/store"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/failpoint"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// What operators do to a node that does not run. Each takes the home's lock, so none meets a running node.

// Validator is what others need to know to put a validator into their set.
type Validator struct {
	Address   string
	KeyType   string
	PublicKey []byte
	Genesis   string // the key as genesis.json and CometBFT's tools write it
}

// Validator reads the home's validator key. It needs no lock: nothing is signed.
func (h Home) Validator() (Validator, error) { return readValidator(h.ValidatorKey()) }

func readValidator(path string) (Validator, error) {
	private, err := readKey(path)
	if err != nil {
		return Validator{}, err
	}
	key := private.PubKey()
	text, err := cmtjson.Marshal(key)
	if err != nil {
		return Validator{}, fmt.Errorf("encoding the validator's key: %w", err)
	}
	return Validator{Address: key.Address().String(), KeyType: key.Type(), PublicKey: key.Bytes(), Genesis: string(text)}, nil
}

// Wipe removes everything that a stopped node has stored, but what its key has signed last: without that the key could sign
// twice, or others wait for ever for a vote that they did not get. At its next start the node fetches everything from its peers again.
func (h Home) Wipe() error {
	release, err := h.lock()
	if err != nil {
		return err
	}
	defer release()
	if _, err := os.Stat(h.SignState()); err != nil {
		return fmt.Errorf("looking for the sign state, which is to stay: %w", err)
	}
	entries, err := os.ReadDir(h.Data())
	if err != nil {
		return fmt.Errorf("reading the data folder: %w", err)
	}
	for _, e := range entries {
		if path := filepath.Join(h.Data(), e.Name()); path == h.SignState() || path == h.lastPrevote() || e.Name() == lockFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(h.Data(), e.Name())); err != nil {
			return fmt.Errorf("removing data: %w", err)
		}
	}
	return nil
}

// openStore opens the application's database of a node that has one.
func (h Home) openStore(c Config, log *slog.Logger) (*store.Store, error) {
	if _, err := os.Stat(h.App()); err != nil {
		return nil, fmt.Errorf("this home has no state: %w", err)
	}
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return nil, err
	}
	s, err := store.Open(h.App(), store.Options{InitialHeight: uint64(doc.InitialHeight), CacheBytes: int64(c.Store.CacheMB) << 20, TreeCacheNodes: c.Store.TreeCacheNodes, KeepVersions: c.Store.KeepVersions, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("opening the application's database: %w", err)
	}
	return s, nil
}

// lockStore opens the database of a home that it locks; release closes both.
func (h Home) lockStore(c Config, log *slog.Logger) (s *store.Store, release func() error, err error) {
	unlock, err := h.lock()
	if err != nil {
		return nil, nil, err
	}
	if s, err = h.openStore(c, log); err != nil {
		unlock()
		return nil, nil, err
	}
	return s, func() error { defer unlock(); return s.Close() }, nil
}

// Fsck is what a check of a node's state has found.
type Fsck struct {
	Height   uint64   `json:"height"`
	AppHash  string   `json:"app_hash"`
	Nodes    int64    `json:"merkle_nodes"`
	Rows     int64    `json:"rows"`
	Accounts uint64   `json:"accounts"`
	Lines    uint64   `json:"lines"`
	Findings []string `json:"findings"`
}

// CheckState derives every root again from the raw data and checks every invariant of the ledger. progress may be nil.
func (h Home) CheckState(ctx context.Context, c Config, log *slog.Logger, progress func(string)) (result Fsck, err error) {
	release, err := h.lock()
	if err != nil {
		return result, err
	}
	defer release()
	return h.checkState(ctx, c, log, progress)
}

// checkState is CheckState of a home that is ours.
func (h Home) checkState(ctx context.Context, c Config, log *slog.Logger, progress func(string)) (result Fsck, err error) {
	s, err := h.openStore(c, log)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	audit := ledger.NewAudit()
	report, err := s.Check(ctx, progress, func(key, value []byte) error {
		audit.Row(bytes.Clone(key), bytes.Clone(value))
		return nil
	})
	if err != nil {
		return result, err
	}
	audit.Close()
	result = Fsck{Height: report.Height, AppHash: hex.EncodeToString(report.AppHash), Nodes: report.Nodes, Rows: report.Rows + report.Beside,
		Accounts: audit.Accounts, Lines: audit.Lines, Findings: append([]string{}, report.Findings...)}
	if report.Omitted > 0 {
		result.Findings = append(result.Findings, fmt.Sprintf("and %d more of this kind", report.Omitted))
	}
	if report.Height > 0 {
		result.Findings = append(result.Findings, audit.Findings...)
	}
	return result, nil
}

// Rolled is where a rollback has led.
type Rolled struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Removed are the blocks that are no longer there, to be fetched from peers: those above the first that is executed again.
	Removed int `json:"removed_blocks"`
}

// RollbackRequest says how far to go back.
type RollbackRequest struct {
	To     uint64 // height; 0: Blocks below where the node is
	Blocks uint64
	Hard   bool // remove the block above To as well
}

// Rollback takes CometBFT and the application back together, for a node that has computed a wrong state. The next start executes
// the block above the height again, or with Hard fetches it from peers, as it does with those above it. What the
// validator's key has signed stays signed: the sign state is not touched.
//
// It may be ended at any point. The application goes first, in one step; CometBFT follows block by block. In between,
// a start of the node replays what the application is missing, so that the rollback is undone as far as it has not come; the
// same request again goes on.
func (h Home) Rollback(c Config, log *slog.Logger, request RollbackRequest) (rolled Rolled, err error) {
	s, release, err := h.lockStore(c, log)
	if err != nil {
		return rolled, err
	}
	defer func() { err = errors.Join(err, release()) }()
	databases := cometdb.Provider(h.Data(), cometdb.Options{Logger: log})
	defer func() { err = errors.Join(err, databases.Close()) }()
	blocks, states, err := openComet(databases)
	if err != nil {
		return rolled, err
	}
	current, err := states.Load()
	if err != nil {
		return rolled, fmt.Errorf("reading CometBFT's state: %w", err)
	}
	app, comet := s.Height(), uint64(current.LastBlockHeight)
	rolled.From = max(app, comet)
	if app > comet { // it was killed between two writes
		return rolled, fmt.Errorf("the application is at height %d and CometBFT at %d: start the node once, so that it replays what is missing", app, comet)
	}
	if request.To == 0 && app < comet && !(request.Blocks == 1 && app+1 == comet) {
		return rolled, fmt.Errorf("the application is at height %d and CometBFT at %d: a rollback was interrupted; give the height, %d, to go on with it, or start the node once to undo it", app, comet, app)
	}
	if rolled.To = request.To; rolled.To == 0 {
		if request.Blocks >= rolled.From {
			return rolled, fmt.Errorf("the node is at height %d: there is nothing %d blocks below to roll back to", rolled.From, request.Blocks)
		}
		rolled.To = rolled.From - request.Blocks
	}
	if rolled.To >= rolled.From && !(request.Hard && rolled.To == rolled.From && uint64(blocks.Height()) > rolled.To) {
		return rolled, fmt.Errorf("the node is at height %d: it cannot be rolled back to %d", rolled.From, rolled.To)
	}
	if err := rollbackReaches(s, blocks, states, rolled.To); err != nil {
		return rolled, err
	}
	if app < rolled.To {
		return rolled, fmt.Errorf("the application is at height %d, below %d: start the node once, so that it replays what is missing", app, rolled.To)
	}
	if app > rolled.To {
		if err := s.Rollback(rolled.To, func(height uint64) ([]ledger.Write, error) { return undoIndex(s, height) }); err != nil {
			return rolled, fmt.Errorf("rolling the application back: %w", err)
		}
	}
	step("application rolled back")
	for {
		// CometBFT's own function goes one block at a time: first it removes the block that a rollback has left.
		top := uint64(blocks.Height())
		at, err := states.Load()
		if err != nil {
			return rolled, fmt.Errorf("reading CometBFT's state: %w", err)
		}
		state0 := uint64(at.LastBlockHeight)
		if state0 == rolled.To && (top == rolled.To || !request.Hard) {
			break
		}
		remove := request.Hard || state0 > rolled.To+1 || top > state0
		if remove {
			if err := forgetEvidence(databases, blocks, int64(top)); err != nil {
				return rolled, err
			}
		}
		if _, _, err := state.Rollback(blocks, states, remove); err != nil {
			return rolled, fmt.Errorf("rolling CometBFT back from height %d (the application is at %d now; the same command again goes on, a start of the node undoes it): %w", state0, s.Height(), err)
		}
		if remove {
			rolled.Removed++
		}
		step("CometBFT rolled back")
		failpoint.Here("rollback.comet")
	}
	return rolled, nil
}

// rollbackReaches refuses a height whose state or block is not kept any more on one of both sides.
func rollbackReaches(s *store.Store, blocks *cmtstore.BlockStore, states state.Store, to uint64) error {
	r := s.Index()
	defer r.Close()
	first, err := index.Base(r)
	if err != nil {
		return err
	}
	// The state's undo rows, the rows of the index, the block, and the validators who signed it.
	lowest := max(min(s.RollbackFloor(), s.Height()), first, uint64(blocks.Base()), s.InitialHeight())
	if to < lowest {
		return fmt.Errorf("height %d is too far back: this node keeps what a rollback needs from height %d on; restore a backup of that height or below instead", to, lowest)
	}
	if blocks.LoadBlockMeta(int64(to)) == nil {
		return fmt.Errorf("block %d is not kept: restore a backup instead", to)
	}
	if _, err := states.LoadValidators(int64(to)); err != nil {
		return fmt.Errorf("the validators of height %d are not kept: restore a backup instead: %w", to, err)
	}
	return nil
}

// forgetEvidence removes the notes that a block's evidence is in a block, before the block goes: CometBFT would refuse the same
// block from a peer for bringing evidence twice.
func forgetEvidence(databases *cometdb.Databases, blocks *cmtstore.BlockStore, height int64) error {
	block := blocks.LoadBlock(height)
	if block == nil || len(block.Evidence.Evidence) == 0 {
		return nil
	}
	db, err := databases.Named("evidence")
	if err != nil {
		return err
	}
	for _, e := range block.Evidence.Evidence {
		if err := db.DeleteSync(evidenceRow(committedEvidence, e)); err != nil {
			return err
		}
	}
	return nil
}

// undoIndex returns the deletions of a block's index rows.
func undoIndex(s *store.Store, height uint64) ([]ledger.Write, error) {
	r := s.Index()
	defer r.Close()
	view := s.View()
	defer view.Close()
	row, err := view.Get(ledger.NetworkRow())
	if err != nil {
		return nil, err
	}
	network, err := ledger.DecodeNetwork(row)
	if err != nil {
		return nil, err
	}
	return index.Undo(r, height, network.ID)
}

func openComet(databases *cometdb.Databases) (*cmtstore.BlockStore, state.Store, error) {
	blockDB, err := databases.Named("blockstore")
	if err != nil {
		return nil, nil, err
	}
	stateDB, err := databases.Named("state")
	if err != nil {
		return nil, nil, err
	}
	return cmtstore.NewBlockStore(blockDB), state.NewStore(stateDB, state.StoreOptions{}), nil
}

// Inspect serves CometBFT's RPC over the databases of a node that does not run, until ctx ends: for looking at what a
// node that no longer starts has on its disk.
func (h Home) Inspect(ctx context.Context, c Config, log *slog.Logger, listen string) (err error) {
	release, err := h.lock()
	if err != nil {
		return err
	}
	defer release()
	if _, err := os.Stat(filepath.Join(h.Data(), "blockstore.db")); err != nil {
		return fmt.Errorf("this home has no blocks: %w", err)
	}
	databases := cometdb.Provider(h.Data(), cometdb.Options{Logger: log})
	defer func() { err = errors.Join(err, databases.Close()) }()
	blocks, states, err := openComet(databases)
	if err != nil {
		return err
	}
	cc, err := c.Comet(string(h))
	if err != nil {
		return err
	}
	doc, err := genesis.Load(h.Genesis())
	if err != nil {
		return err
	}
	txs, blockIndex, err := block.IndexerFromConfig(cc, databases.Open, doc.ChainID)
	if err != nil {
		return fmt.Errorf("opening CometBFT's index: %w", err)
	}
	cc.RPC.ListenAddress = "tcp://" + listen
	if err := cmtinspect.New(cc.RPC, blocks, states, txs, blockIndex).Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving on %s: %w", listen, err)
	}
	return nil
}
