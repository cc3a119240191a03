package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/store"
)

// ExportRequest asks for a file with the state of a height.
type ExportRequest struct {
	Height uint64 `json:"height"` // 0: the newest
	File   string `json:"file"`   // absolute; it must not exist
}

// ExportResult is an export that was made or checked.
type ExportResult struct {
	File    string            `json:"file"`
	ChainID string            `json:"chain_id"`
	Network string            `json:"network_id"`
	Height  uint64            `json:"height"`
	AppHash string            `json:"app_hash"`
	Roots   map[string]string `json:"roots"`
	Rows    int64             `json:"rows"`
	SHA256  string            `json:"sha256"` // of all lines but the last

	Accounts uint64   `json:"accounts,omitempty"` // of a checked one
	Lines    uint64   `json:"lines,omitempty"`
	Findings []string `json:"findings,omitempty"`
}

func exportResult(file string, head store.ExportHead, end store.ExportEnd) ExportResult {
	roots := map[string]string{}
	for i, name := range ledger.TreeNames() {
		roots[name] = head.Roots[i]
	}
	return ExportResult{File: file, ChainID: head.ChainID, Network: head.Network.String(), Height: head.Height, AppHash: head.AppHash, Roots: roots, Rows: end.Rows, SHA256: end.SHA256}
}

// Export writes the state of a height of the running node to a file.
func (n *Node) Export(ctx context.Context, request ExportRequest) (ExportResult, error) {
	return export(ctx, n.app.Store(), request)
}

// Export writes the state of a height of a node that does not run to a file.
func (h Home) Export(ctx context.Context, c Config, log *slog.Logger, request ExportRequest) (result ExportResult, err error) {
	s, release, err := h.lockStore(c, log)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	return export(ctx, s, request)
}

func export(ctx context.Context, s *store.Store, request ExportRequest) (result ExportResult, err error) {
	if !filepath.IsAbs(request.File) {
		return result, fmt.Errorf("export to %q: want an absolute path", request.File)
	}
	if request.Height == 0 {
		request.Height = s.Height()
	}
	view := s.View()
	row, err := view.Get(ledger.NetworkRow())
	view.Close()
	if err != nil {
		return result, err
	}
	network, err := ledger.DecodeNetwork(row)
	if err != nil {
		return result, err
	}
	if _, err := os.Lstat(request.File); err == nil {
		return result, fmt.Errorf("%s exists: choose another name", request.File)
	}
	partial := request.File + partialSuffix
	out, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return result, fmt.Errorf("making the file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(partial) // there is an error to report already
		}
	}()
	head, end, err := s.Export(ctx, request.Height, network.ChainID, network.ID, out)
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return result, fmt.Errorf("writing %s: %w", request.File, err)
	}
	// A crash before this line leaves no file of that name.
	if err := os.Rename(partial, request.File); err != nil {
		return result, fmt.Errorf("naming the file: %w", err)
	}
	return exportResult(request.File, head, end), syncFolder(filepath.Dir(request.File))
}

// VerifyExport derives the roots and the AppHash of an export again, and checks the rules of the ledger over its rows. Whether the
// AppHash is the network's, only a proven header says: that of the next height has it.
func VerifyExport(ctx context.Context, file string) (result ExportResult, err error) {
	in, err := os.Open(file)
	if err != nil {
		return result, fmt.Errorf("reading the export: %w", err)
	}
	defer in.Close()
	x, err := store.VerifyExport(ctx, in, nil)
	if err != nil {
		return result, fmt.Errorf("%s: %w", file, err)
	}
	result = exportResult(file, x.Head, x.End)
	audit := ledger.NewAudit()
	var own []byte // the network's row
	if err := x.Ascending(ctx, in, func(key, value []byte) error {
		if string(key) == string(ledger.NetworkRow()) {
			own = value
		}
		audit.Row(key, value)
		return nil
	}); err != nil {
		return result, err
	}
	audit.Close()
	result.Accounts, result.Lines, result.Findings = audit.Accounts, audit.Lines, audit.Findings
	network, err := ledger.DecodeNetwork(own)
	if err != nil || network.ChainID != x.Head.ChainID || network.ID != x.Head.Network {
		result.Findings = append(result.Findings, fmt.Sprintf("the state is of chain %s, network %s, the first line says %s, %s", network.ChainID, network.ID, x.Head.ChainID, x.Head.Network))
	}
	return result, nil
}
