package ledger

import (
	"strings"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// MaxCodeBytes is the longest asset code.
const MaxCodeBytes = 12

// AssetID names an asset: the first 16 bytes of the hash of its issuer and code, so that a client knows the id before
// the asset exists. Finding a second asset with a given id takes about 2^128 hashes.
type AssetID [16]byte

// NewAssetID derives the id of an asset.
func NewAssetID(issuer crypto.Address, code string) AssetID {
	h := crypto.DomainAsset.Hash(issuer[:], []byte(code))
	return AssetID(h[:16])
}

// CreateAsset brings an asset into being, with the signer as its issuer and nothing issued. Codes are unique on a
// ledger, so that one code never names two assets.
type CreateAsset struct {
	Issuer       uint32 // index of the signer
	Code         string // 3 to 12 of A-Z and 0-9, a letter first
	Scale        uint32 // decimals, 0 to MaxScale, fixed for ever
	MaxSupply    Amount // above 0
	MetadataHash []byte // SHA-256 of a document about the asset, or nothing
	Controls     Controls
}

// Controls are what an issuer can do to the holders of an asset. They are chosen when it is created and only ever dropped.
// Its values are bits.
type Controls uint32

const (
	// ControlAuthorisation lets only lines receive and send that the issuer has authorised, and lets it cap them.
	ControlAuthorisation Controls = 1
	// ControlFreeze lets the issuer stop what comes in, goes out or both, of one line or of all.
	ControlFreeze Controls = 2
	// ControlClawback lets the issuer take back what is available, and void holds.
	ControlClawback Controls = 4

	allControls = ControlAuthorisation | ControlFreeze | ControlClawback
)

func (c *CreateAsset) Kind() Kind { return KindCreateAsset }
func (c *CreateAsset) By() uint32 { return c.Issuer }

func decodeCreateAsset(r *canonical.Reader) Operation {
	return &CreateAsset{
		Issuer:       r.Uint32(1, "issuer"),
		Code:         r.String(2, "code", MaxCodeBytes),
		Scale:        r.Uint32(3, "scale"),
		MaxSupply:    readAmount(r, 4, "max_supply"),
		MetadataHash: r.Bytes(5, "metadata_hash", 32),
		Controls:     Controls(r.Uint32(6, "controls")),
	}
}

func (c *CreateAsset) encode(w *canonical.Writer) {
	w.Uint32(1, c.Issuer)
	w.String(2, c.Code)
	w.Uint32(3, c.Scale)
	w.Bytes(4, c.MaxSupply.Bytes())
	w.Bytes(5, c.MetadataHash)
	w.Uint32(6, uint32(c.Controls))
}

func (c *CreateAsset) validate(*Body) error {
	if err := CheckAssetCode(c.Code); err != nil {
		return err
	}
	switch {
	case c.Scale > MaxScale:
		return canonical.Errorf("scale", "%d, at most %d", c.Scale, MaxScale)
	case c.MaxSupply.IsZero():
		return canonical.Errorf("max_supply", "missing, want more than 0")
	case len(c.MetadataHash) != 0 && len(c.MetadataHash) != 32:
		return canonical.Errorf("metadata_hash", "%d bytes, want 32", len(c.MetadataHash))
	case c.Controls > allControls:
		return canonical.Errorf("controls", "%d, at most %d", c.Controls, allControls)
	}
	return nil
}

// CheckAssetCode tells what is wrong with an asset code, if anything.
func CheckAssetCode(code string) error {
	const letters, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	if len(code) < 3 || len(code) > MaxCodeBytes || !strings.Contains(letters, code[:1]) || strings.Trim(code, letters+digits) != "" {
		return canonical.Errorf("code", "%q, want 3 to %d of A-Z and 0-9, a letter first", code, MaxCodeBytes)
	}
	return nil
}

func (c *CreateAsset) apply(x *execution) (OperationResult, Code) {
	issuer := x.tx.Body.Signers[c.Issuer].Address
	if !x.params.mayCreateAssets(issuer) {
		return OperationResult{}, AssetCreationClosed
	}
	if _, taken := x.state.assetByCode(c.Code); taken {
		return OperationResult{}, AssetExists
	}
	id := NewAssetID(issuer, c.Code)
	// Two pairs of issuer and code with one id take 2^64 hashes, which somebody can afford: the later one must not take
	// the earlier asset over.
	if _, taken := x.state.asset(id); taken {
		return OperationResult{}, AssetExists
	}
	x.state.assets.put(id, Asset{Issuer: issuer, Code: c.Code, Scale: c.Scale, MaxSupply: c.MaxSupply, MetadataHash: c.MetadataHash, Controls: c.Controls})
	x.state.codes.put(c.Code, id)
	x.holding(issuer, func(h *Holdings) { h.Assets++ })
	if code := x.open(LineKey{issuer, id}, issuer); code != OK {
		return OperationResult{}, code
	}
	return OperationResult{Asset: id}, OK
}
