package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/cometbft/cometbft/types"
)

// Read is a row that a client was proven: it has verified the proof against a header that the validators have signed.
type Read struct {
	Client  string `json:"client"`
	Node    string `json:"node"` // that was asked, or whatever stands for any of them
	Key     []byte `json:"key"`
	Value   []byte `json:"value,omitempty"`
	Present bool   `json:"present"`
	Height  uint64 `json:"height"`
	Chosen  bool   `json:"chosen,omitempty"` // the client has asked for this height, instead of the newest
}

// WriteReads writes a record of reads, one on a line.
func WriteReads(w io.Writer, reads []Read) error {
	e := json.NewEncoder(w)
	for _, r := range reads {
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("writing the record of reads: %w", err)
		}
	}
	return nil
}

// readTrue compares reads of one height with the state after it.
func readTrue(reads []Read, rows map[string][]byte) (faults []error) {
	for _, r := range reads {
		if want, ok := rows[string(r.Key)]; ok != r.Present || !bytes.Equal(want, r.Value) {
			faults = append(faults, fmt.Errorf("client %s was proven row %x by %s at height %d as %x (present: %t), the book has %x (%t)", r.Client, r.Key, r.Node, r.Height, r.Value, r.Present, want, ok))
		}
	}
	return faults
}

// monotonic finds reads of the newest state that are older than what the same client was shown by the same node before.
func monotonic(reads []Read) (faults []error) {
	type pair struct{ client, node string }
	newest := map[pair]uint64{}
	for _, r := range reads {
		if r.Chosen {
			continue
		}
		p := pair{r.Client, r.Node}
		if r.Height < newest[p] {
			faults = append(faults, fmt.Errorf("client %s was shown height %d by %s, after height %d", r.Client, r.Height, r.Node, newest[p]))
		}
		newest[p] = max(newest[p], r.Height)
	}
	return faults
}

// signedTwice finds validators whose signatures stand under two blocks of one height, or under a block and under none in one
// round, in all the commits that nodes have shown. A validator that changes its mind in a later round does not sign twice: of
// that, commits show only the round that has decided.
func signedTwice(commits []*types.Commit, guilty [][]byte) (faults []error) {
	type vote struct {
		height    int64
		round     int32 // -1: any, for a block
		validator string
	}
	innocent := map[string]bool{}
	for _, g := range guilty {
		innocent[string(g)] = true // it was made to
	}
	said := map[vote]types.BlockID{}
	for _, c := range commits {
		if c == nil {
			continue
		}
		for _, s := range c.Signatures {
			who := string(s.ValidatorAddress)
			if s.BlockIDFlag == types.BlockIDFlagAbsent || innocent[who] {
				continue
			}
			id := s.BlockID(c.BlockID)
			places := []vote{{c.Height, c.Round, who}}
			if s.BlockIDFlag == types.BlockIDFlagCommit {
				places = append(places, vote{c.Height, -1, who})
			}
			for _, v := range places {
				if before, ok := said[v]; ok && !before.Equals(id) {
					faults = append(faults, fmt.Errorf("validator %X has signed %s and %s at height %d", s.ValidatorAddress, before, id, c.Height))
					break
				}
				said[v] = id
			}
		}
	}
	return faults
}
