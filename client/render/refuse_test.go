package render

import (
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// alien is an operation of a kind that a later ledger may have.
type alien struct{ *ledger.Transfer }

func (alien) Kind() ledger.Kind { return 99 }

// What the ledger may learn and this package has not is refused: the strict decoder lets none of it through today.
func TestRefusesWhatItDoesNotKnow(t *testing.T) {
	for want, op := range map[string]ledger.Operation{
		"operation 0 is of kind 99": alien{&ledger.Transfer{}},
		"balancing has bits 0x4":    &ledger.Transfer{Balancing: 5},
		"post_by has bits 0x10":     &ledger.CreateHold{PostBy: 17},
		"void_by has bits 0x8":      &ledger.CreateHold{VoidBy: 8},
		"controls has bits 0x8":     &ledger.CreateAsset{Controls: 8},
		"line flags has bits 0x80":  &ledger.SetLine{Set: 128},
		"a grant for kind 7":        &ledger.SetGrant{For: 7},
		"policy: ":                  &ledger.SetPolicy{},
	} {
		p := &page{body: &ledger.Body{Signers: []ledger.Signer{{Address: crypto.Address{1}}}}, assets: map[ledger.AssetID]ledger.Asset{}}
		p.operation(0, op)
		if p.err == nil || !strings.Contains(p.err.Error(), want) {
			t.Errorf("%T: %v, want %q", op, p.err, want)
		}
	}
}
