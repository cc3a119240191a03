package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	cmtcfg "github.com/cometbft/cometbft/config"
	cmtinspect "github.com/cometbft/cometbft/inspect"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/state/indexer/block"
	cmtstore "github.com/cometbft/cometbft/store"

	"github.com/pacioli-ledger/pacioli/app/index"
	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// What operators do to a node that does not run. Each takes the home's lock, so none meets a running node.

// Validator is what others need to know to put a validator into their set.
type Validator struct {
	Address   string `json:"address"`
	KeyType   string `json:"key_type"`
	PublicKey []byte `json:"public_key"`
	// Genesis is the key as genesis.json and CometBFT's tools write it.
	Genesis string `json:"genesis"`
}

// Validator reads the home's validator key. It needs no lock: nothing is signed.
func (h Home) Validator() (Validator, error) {
	if _, err := os.Stat(h.ValidatorKey()); err != nil {
		return Validator{}, fmt.Errorf("reading the validator's key: %w", err)
	}
	key, err := privval.LoadFilePVEmptyState(h.ValidatorKey(), "").GetPubKey()
	if err != nil {
		return Validator{}, fmt.Errorf("reading the validator's key: %w", err)
	}
	text, err := cmtjson.Marshal(key)
	if err != nil {
		return Validator{}, fmt.Errorf("encoding the validator's key: %w", err)
	}
	return Validator{Address: key.Address().String(), KeyType: key.Type(), PublicKey: key.Bytes(), Genesis: string(text)}, nil
}

// openStore opens the application's database of a node that has one.
func (h Home) openStore(c Config, log *slog.Logger) (*store.Store, error) {
	if _, err := os.Stat(h.App()); err != nil {
		return nil, fmt.Errorf("this home has no state: %w", err)
	}
	s, err := store.Open(h.App(), store.Options{CacheBytes: int64(c.Store.CacheMB) << 20, TreeCacheNodes: c.Store.TreeCacheNodes, KeepVersions: c.Store.KeepVersions, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("opening the application's database: %w", err)
	}
	return s, nil
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
	result = Fsck{Height: report.Height, AppHash: fmt.Sprintf("%X", report.AppHash), Nodes: report.Nodes, Rows: report.Rows + report.Beside,
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
}

// Rollback takes CometBFT and the application back by one block together, for a node that has computed a wrong state. The
// block is executed again at the next start, or with hard removed and fetched from peers again. What the validator's key
// has signed stays signed: the sign state is not touched.
func (h Home) Rollback(c Config, log *slog.Logger, hard bool) (rolled Rolled, err error) {
	release, err := h.lock()
	if err != nil {
		return rolled, err
	}
	defer release()
	s, err := h.openStore(c, log)
	if err != nil {
		return rolled, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	databases := cometdb.Provider(h.Data(), cometdb.Options{Logger: log})
	defer func() { err = errors.Join(err, databases.Close()) }()
	blocks, states, err := openComet(databases)
	if err != nil {
		return rolled, err
	}
	rolled.From = s.Height()
	// The application first: should the process end in between, CometBFT finds it one block behind and replays that.
	if rolled.To = rolled.From - 1; rolled.From == 0 || rolled.From == 1 {
		return rolled, fmt.Errorf("the node is at height %d: there is nothing to roll back to", rolled.From)
	}
	current, err := states.Load()
	if err != nil {
		return rolled, fmt.Errorf("reading CometBFT's state: %w", err)
	}
	if uint64(current.LastBlockHeight) == rolled.From {
		if err := s.Rollback(rolled.To, func(height uint64) ([]ledger.Write, error) { return undoIndex(s, height) }); err != nil {
			return rolled, fmt.Errorf("rolling the application back: %w", err)
		}
	} else if uint64(current.LastBlockHeight) != rolled.From+1 {
		return rolled, fmt.Errorf("the application is at height %d and CometBFT at %d: start the node once, so that it replays what is missing", rolled.From, current.LastBlockHeight)
	}
	height, _, err := state.Rollback(blocks, states, hard)
	if err != nil {
		return rolled, fmt.Errorf("rolling CometBFT back (the application is at height %d now, which a start of the node mends): %w", s.Height(), err)
	}
	rolled.To = uint64(height)
	return rolled, nil
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
	blockDB, err := databases.Open(&cmtcfg.DBContext{ID: "blockstore"})
	if err != nil {
		return nil, nil, err
	}
	stateDB, err := databases.Open(&cmtcfg.DBContext{ID: "state"})
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
