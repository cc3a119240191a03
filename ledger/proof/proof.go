// Package proof checks what a node says against a block header that the caller already trusts: that a value stands in the
// state under a key, that nothing stands there, or that a transaction had its place and its result in a block.
//
// It is pure: no clock, no network, no tree and no node is linked, so that a wallet can carry it. Who hands it a header
// must have verified the header (client/light does); who hands it anything else need not trust it. A bug here makes a
// client believe a balance or a receipt that the validators never signed.
//
// State of the block at height H is committed to by the AppHash in the header at H+1, results of block H by
// LastResultsHash in the header at H+1, its transactions by DataHash in the header at H. Asking the right header is the
// caller's part; an answer for another height or chain fails here because its roots are others.
//
// Every function is safe for concurrent use and changes none of its arguments.
package proof

import (
	"errors"
	"fmt"
)

// ErrInvalid is wrapped by every error of this package: what was claimed is not proven. The text behind it says which
// check refused. A caller may take it as the mark of an endpoint that lies, is broken, or answers for another height.
var ErrInvalid = errors.New("proof does not hold")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// hashSize is the length in bytes of every root, leaf and aunt: SHA-256 throughout.
const hashSize = 32
