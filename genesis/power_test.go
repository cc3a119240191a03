package genesis

import (
	"strings"
	"testing"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/types"
)

// TestBlockSyncs: every number of equals fetches blocks, whoever has a third may be without it, and a set in which integer
// division makes a third of less is refused.
func TestBlockSyncs(t *testing.T) {
	for _, c := range []struct {
		powers  []int64
		refused bool
	}{
		{[]int64{1}, false}, {[]int64{1, 1}, false}, {[]int64{1, 1, 1}, false}, // each has a third or more
		{[]int64{1, 1, 1, 1}, true}, {[]int64{1, 1, 1, 1, 1}, true}, {[]int64{2, 2, 2, 2}, true}, {[]int64{3, 3, 3, 3}, false},
		{[]int64{1, 1, 1, 1, 1, 1}, false}, {[]int64{4, 1, 1, 1, 1, 1, 1, 1, 1}, false}, {[]int64{100, 1, 1}, false}, {[]int64{3, 3, 2, 2}, true},
	} {
		var set []types.GenesisValidator
		for _, p := range c.powers {
			set = append(set, types.GenesisValidator{PubKey: cmted25519.GenPrivKey().PubKey(), Power: p})
		}
		if err := blockSyncs(set); (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "multiply all powers by 10") {
			t.Errorf("%v: %v, want refused: %t", c.powers, err, c.refused)
		}
	}
	for n := 4; n <= 100; n++ {
		set := make([]types.GenesisValidator, n)
		for i := range set {
			set[i].Power = EqualPower
		}
		if err := blockSyncs(set); err != nil {
			t.Errorf("%d validators: %s", n, err)
		}
	}
}
