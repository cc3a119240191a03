package load

import (
	"testing"

	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// TestJudge has good records, and every kind of ending that must not be.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		claim audit.Claim
		wrong bool
	}{
		{audit.Claim{Kind: Single, Ending: audit.Final}, false},
		{audit.Claim{Kind: Single, Ending: audit.Final, Code: 101}, true},
		{audit.Claim{Kind: Single, Ending: audit.Refused}, true},
		{audit.Claim{Kind: Single, Ending: audit.Dead}, true},
		{audit.Claim{Kind: Single, Ending: audit.Unknown}, true},
		{audit.Claim{Kind: Single, Ending: audit.Unsent}, false},
		{audit.Claim{Kind: Poor, Ending: audit.Final}, true},
		{audit.Claim{Kind: Poor, Ending: audit.Final, Code: 101}, false},
		{audit.Claim{Kind: Forged, Ending: audit.Refused}, false},
		{audit.Claim{Kind: Forged, Ending: audit.Final}, true},
		{audit.Claim{Kind: Forged, Ending: audit.Dead}, false},
		{audit.Claim{Kind: Poor, Ending: audit.Dead}, true},
		{audit.Claim{Kind: Conflict, Ending: audit.Dead}, false},
		{audit.Claim{Kind: storyKind + "hold", Ending: audit.Final, Code: 5, Want: 5}, false},
		{audit.Claim{Kind: storyKind + "hold", Ending: audit.Final, Want: 5}, true},
		{audit.Claim{Kind: storyKind + "hold", Ending: audit.Dead}, true},
		{audit.Claim{Kind: storyKind + "hold", Ending: audit.Unsent}, false},
		{audit.Claim{Kind: Vote, Ending: audit.Final, Code: 150}, false},
		{audit.Claim{Kind: Vote, Ending: audit.Refused}, true},
		{audit.Claim{Kind: Vote, Ending: audit.Unknown}, true},
	} {
		if wrong := Judge([]audit.Claim{c.claim}); (len(wrong) > 0) != c.wrong {
			t.Errorf("%+v: %v, want wrong: %t", c.claim, wrong, c.wrong)
		}
	}
}

// TestOpen: a payment whose end is not known has a cause.
func TestOpen(t *testing.T) {
	for want, p := range map[string]*payment{
		"no node has answered yet":                                                 {},
		"a node took it, and no block that was read has it":                        {handed: true},
		"a node took it, and no block that was read has it; handed in again: busy": {handed: true, refused: "busy"},
		"connection reset; handed in again: busy":                                  {handed: true, refused: "busy", claim: audit.Claim{Text: "connection reset"}},
	} {
		if got := p.open(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
