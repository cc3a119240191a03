package load

import (
	"fmt"
	"strings"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// Judge tells which claims did not end as the load meant them to, whatever was done to the network. It looks at what
// clients were told, and the audit at whether that was true. All nodes have to have been well for a while at the end.
func Judge(claims []audit.Claim) (wrong []error) {
	for _, c := range claims {
		fail := func(format string, args ...any) {
			wrong = append(wrong, fmt.Errorf("transaction %s of kind %s %s", c.ID, c.Kind, fmt.Sprintf(format, args...)))
		}
		mayFail := c.Kind == Poor || c.Kind == Partly
		if strings.HasPrefix(c.Kind, storyKind) {
			// A story ends where nobody takes its next transaction for longer than the load has patience.
			if c.Ending != audit.Unsent && (c.Ending != audit.Final || c.Code != c.Want) {
				fail("ended as %s with code %d (%s), and has to be final with code %d (%s): %s", c.Ending, c.Code, ledger.Code(c.Code), c.Want, ledger.Code(c.Want), c.Text)
			}
			continue
		}
		if c.Kind == Vote {
			if c.Ending != audit.Final {
				fail("ended as %s with code %d, and has to stand in a block: %s", c.Ending, c.Code, c.Text)
			}
			continue
		}
		switch c.Ending {
		case audit.Refused:
			if !MayRefuse(c.Kind) {
				fail("was refused: %s", c.Text)
			}
		case audit.Final:
			if c.Kind == Forged || c.Kind == Reused || (c.Code != 0) != mayFail {
				fail("is final with code %d", c.Code)
			}
		case audit.Dead:
			if !MayRefuse(c.Kind) {
				fail("is dead: %s", c.Text)
			}
		case audit.Unknown:
			// Every one was handed in again. (Of one that has to be refused, a node that is killed before it answers leaves
			// open whether it has kept it, until it is no longer valid: then it is dead.)
			if !MayRefuse(c.Kind) {
				fail("is still unknown at the end: %s", c.Text)
			}
		}
	}
	return wrong
}
