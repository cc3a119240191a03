package client

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// SimulationHint is one node's word about what a transaction would do now. It is no promise, not even where the node is
// honest: what comes before the transaction may change everything.
type SimulationHint = query.Simulation

// Simulate asks a node what a transaction would do in the next block, its signatures taken to be good: see
// [Draft.Rehearsal]. Nothing is sent on by an honest node; a dishonest one may, so a transaction that must not take effect
// yet is simulated before it is signed.
func (c *Client) Simulate(ctx context.Context, raw []byte) (SimulationHint, error) {
	tx, err := ledger.Decode(raw)
	if err != nil {
		return SimulationHint{}, fmt.Errorf("not a transaction: %w", err)
	}
	id := tx.ID(c.network.ID)
	return ask(ctx, c, "simulating transaction "+id.String(), func(n *node) (SimulationHint, error) {
		answer, err := n.query(ctx, query.PathSimulate, raw, 0, false)
		if err != nil {
			return SimulationHint{}, err
		}
		s, err := query.DecodeSimulation(answer.Value)
		if err == nil && s.Receipt.TxID != id {
			err = fmt.Errorf("answers for transaction %s: it is of another network, or lies", s.Receipt.TxID)
		}
		if err != nil {
			return SimulationHint{}, &nodeError{n.name, err}
		}
		return s, nil
	})
}

// Rehearsal returns the bytes of the draft for [Client.Simulate], without one real signature: in the place of each that it
// has, and of those that it still needs, stand zeros of the right size. Where a policy leaves open which keys sign, the
// heaviest are taken; the size, and with it the fee, may then be another in the end. So it is with signatures of no fixed size.
func (d *Draft) Rehearsal() []byte {
	var witnesses []ledger.Witness
	for i, a := range d.accounts {
		place := func(k int) int {
			return slices.IndexFunc(d.witness, func(w ledger.Witness) bool { return int(w.Signer) == i && int(w.Key) == k })
		}
		signed := func(k int) bool { return place(k) >= 0 }
		order := make([]int, len(a.Policy.Keys))
		for k := range order {
			order[k] = k
		}
		slices.SortStableFunc(order, func(x, y int) int {
			if signed(x) != signed(y) {
				if signed(x) {
					return -1
				}
				return 1
			}
			return cmp.Compare(a.Policy.Keys[y].Weight, a.Policy.Keys[x].Weight)
		})
		sum, need := uint64(0), d.Need(i)
		var chosen []int
		for _, k := range order {
			if sum >= need {
				break
			}
			sum += uint64(a.Policy.Keys[k].Weight)
			chosen = append(chosen, k)
		}
		// What was signed first may be superfluous beside something heavier.
		slices.SortFunc(chosen, func(x, y int) int { return cmp.Compare(a.Policy.Keys[x].Weight, a.Policy.Keys[y].Weight) })
		chosen = slices.DeleteFunc(chosen, func(k int) bool {
			weight := uint64(a.Policy.Keys[k].Weight)
			if sum-weight < need {
				return false
			}
			sum -= weight
			return true
		})
		slices.Sort(chosen)
		for _, k := range chosen {
			size := a.Policy.Keys[k].MaxSignatureSize()
			if at := place(k); at >= 0 {
				size = len(d.witness[at].Signature)
			}
			witnesses = append(witnesses, ledger.Witness{Signer: uint32(i), Key: uint32(k), Signature: make([]byte, size)})
		}
	}
	return ledger.Assemble(d.body, witnesses, d.sponsor)
}
