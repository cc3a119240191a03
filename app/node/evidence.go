package node

import (
	"bytes"
	"encoding/binary"
	"fmt"

	dbm "github.com/cometbft/cometbft-db"
	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node/cometdb"
)

// evidenceBlocks is how many of the newest blocks RememberEvidence looks at: more than are made in the half minute in which
// an operating system writes out what nobody has synced.
const evidenceBlocks = 1_000

// What begins the rows of CometBFT's pool of evidence.
const (
	committedEvidence byte = 0x00
	pendingEvidence   byte = 0x01
)

// evidenceRow is the key under which CometBFT's pool of evidence keeps a piece.
func evidenceRow(kind byte, e types.Evidence) []byte {
	return fmt.Appendf([]byte{kind}, "%016X/%X", e.Height(), e.Hash())
}

// RememberEvidence writes down for CometBFT's pool of evidence which evidence stands in the newest blocks. To be called
// after CometBFT's handshake, before the pool opens its database. CometBFT writes that down itself, but syncs it never, and
// forgets it for a block that it replays at its start. After a power failure at most of the validators these would propose
// and accept the same evidence again, and one that remembers would halt: "+2/3 prevoted for an invalid block".
func RememberEvidence(databases *cometdb.Databases) error {
	blocks, states, err := openComet(databases)
	if err != nil {
		return err
	}
	last, err := states.Load()
	if err != nil {
		return fmt.Errorf("reading CometBFT's state: %w", err)
	}
	db, err := databases.Named("evidence")
	if err != nil {
		return err
	}
	none := types.EvidenceList(nil).Hash()
	for h := last.LastBlockHeight; h >= max(blocks.Base(), 1, last.LastBlockHeight-evidenceBlocks+1); h-- {
		meta := blocks.LoadBlockMeta(h)
		if meta == nil || bytes.Equal(meta.Header.EvidenceHash, none) {
			continue
		}
		block := blocks.LoadBlock(h)
		if block == nil {
			continue // pruned
		}
		for _, e := range block.Evidence.Evidence {
			// The value is CometBFT's, a protobuf Int64Value. Nobody reads it.
			if err := db.Set(evidenceRow(committedEvidence, e), binary.AppendUvarint([]byte{0x08}, uint64(e.Height()))); err != nil {
				return err
			}
			if err := db.Delete(evidenceRow(pendingEvidence, e)); err != nil {
				return err
			}
		}
	}
	return nil
}

// openForNode is the config.DBProvider of a node. CometBFT opens the database of evidence when the handshake is done.
func openForNode(databases *cometdb.Databases) config.DBProvider {
	return func(ctx *config.DBContext) (dbm.DB, error) {
		if ctx.ID == "evidence" {
			if err := RememberEvidence(databases); err != nil {
				return nil, fmt.Errorf("writing down what evidence is in blocks: %w", err)
			}
		}
		return databases.Open(ctx)
	}
}
