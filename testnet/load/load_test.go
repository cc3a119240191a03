package load

import (
	"math/rand/v2"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet/audit"
)

// TestPayments builds payments of every kind without a network, and looks whether each is as good or as bad as it is
// meant to be. What becomes of them in a network is tested in package testnet.
func TestPayments(t *testing.T) {
	payers, err := NewPayers(7, 20)
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewPayers(7, 20)
	if err != nil || again[19].Address != payers[19].Address {
		t.Fatalf("one seed makes different payers: %v", err)
	}
	byAddress := map[crypto.Address]*Payer{}
	for _, p := range payers {
		byAddress[p.Address] = p
	}
	l := &Load{o: Options{Payers: payers}, params: ledger.DefaultParameters(), network: ledger.Network{ID: crypto.Hash{3}},
		random: rand.New(rand.NewChaCha8(wide(7, "load"))), receiver: []crypto.Address{{1}, {2}}, progress: Progress{Ended: map[audit.Ending]int{}}}
	seen := map[replayKey]string{}
	ids := map[crypto.Hash]bool{}
	for _, m := range mix {
		for range 60 {
			plans := l.plan(m.kind)
			if len(plans) == 2 && (m.kind != Conflict || plans[0].key != plans[1].key) || len(plans) == 1 && m.kind == Conflict {
				t.Fatalf("%s: %d payments with keys %v", m.kind, len(plans), plans)
			}
			for n, p := range plans {
				raw, err := l.sign(p)
				if err != nil {
					t.Fatalf("%s: %s", m.kind, err)
				}
				tx, err := ledger.Decode(raw)
				if err != nil {
					t.Fatalf("%s: %s", m.kind, err)
				}
				id := tx.ID(l.network.ID)
				if ids[id] {
					t.Fatalf("%s: payment %s was made before", m.kind, id)
				}
				ids[id] = true
				if before, ok := seen[p.key]; ok && p.kind != Reused && n == 0 {
					t.Fatalf("%s: uses what a payment of kind %s has used", m.kind, before)
				}
				seen[p.key] = m.kind
				good := true
				policy := byAddress[tx.Body.Signers[0].Address].keys.Policy()
				for _, w := range tx.Witnesses {
					k := policy.Keys[w.Key]
					good = good && crypto.Check{Scheme: k.Scheme, PublicKey: k.Public, Message: ledger.Preimage(l.network.ID, tx.BodyBytes(), 0), Signature: w.Signature}.Verify()
				}
				if len(tx.Witnesses) != len(policy.Keys) || good == (p.kind == Forged) {
					t.Fatalf("%s by %s: signatures verify: %t", p.kind, p.payer.Name, good)
				}
				if p.key.sequence != 0 && !p.payer.sequenced {
					t.Fatalf("%s pays by sequence", p.payer.Name)
				}
				if pay := (&payment{payer: p.payer, key: p.key, until: p.key.until}); m.kind == Single && p.key.sequence == 0 {
					l.settled = append(l.settled, pay) // whose nonces are used again
				}
			}
		}
	}
	for _, p := range payers {
		if p.inFlight > maxSequenced || p.sequenced == (p.next == 1) {
			t.Errorf("%s: %d payments under way, next sequence %d", p.Name, p.inFlight, p.next)
		}
	}
	// A payment that was never sent leaves its sequence to the next one.
	first := payers[0]
	l.mu.Lock()
	l.end(&payment{payer: first, key: replayKey{sender: first.Address, sequence: 2}}, audit.Unsent, 0)
	l.mu.Unlock()
	if len(first.holes) != 1 || first.holes[0] != 2 || first.inFlight != maxSequenced-1 {
		t.Errorf("holes %v, %d under way", first.holes, first.inFlight)
	}
}
