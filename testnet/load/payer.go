package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
)

// Payer is an account that pays, with its keys.
type Payer struct {
	Name    string
	Address crypto.Address
	keys    *client.Keys

	sequenced bool // pays by sequence; the others by nonce

	// Guarded by Load.mu.
	registered time.Time // when a payment of it was final, so that the ledger knows its policy; zero: not yet
	next       uint64    // sequence
	holes      []uint64  // sequences of payments that were never sent
	inFlight   int
}

// schemes is what the payers' keys are, over and over: mostly ed25519, one account of each other kind, and one hybrid
// that needs a classical and a post-quantum signature.
var schemes = [][]crypto.Scheme{
	{crypto.Ed25519}, {crypto.Ed25519}, {crypto.Secp256k1}, {crypto.Ed25519}, {crypto.MLDSA65}, {crypto.Ed25519},
	{crypto.Ed25519, crypto.MLDSA65}, {crypto.Ed25519}, {crypto.Ed25519}, {crypto.MLDSA44},
}

// maxSequenced bounds the payments of one account that wait for each other's sequence. More would test only patience.
const maxSequenced = 4

// catchUp is for how long a payer goes on carrying its policy: a node that was killed has to catch up before it knows it.
const catchUp = time.Minute

// carries tells whether a payment has to carry the payer's policy.
func (p *Payer) carries() bool { return p.registered.IsZero() || time.Since(p.registered) < catchUp }

// NewPayers derives n payers from a seed; the same seed makes the same keys. They are for test networks: whoever knows
// the seed has the keys. Every fifth pays by sequence.
func NewPayers(seed uint64, n int) ([]*Payer, error) {
	random := rand.NewChaCha8(wide(seed, "payers"))
	payers := make([]*Payer, n)
	for i := range payers {
		var private []crypto.PrivateKey
		name := ""
		for _, s := range schemes[i%len(schemes)] {
			private64 := make([]byte, crypto.SeedSize)
			random.Read(private64)
			k, err := crypto.NewPrivateKey(s, private64)
			if err != nil {
				return nil, fmt.Errorf("key of payer %d: %w", i, err)
			}
			private = append(private, k)
			name += "-" + s.String()
		}
		keys, err := client.NewKeys(private...)
		if err != nil {
			return nil, fmt.Errorf("keys of payer %d: %w", i, err)
		}
		payers[i] = &Payer{Name: fmt.Sprintf("payer%d%s", i, name), Address: keys.Address(), keys: keys, sequenced: i%5 == 0, next: 1}
	}
	return payers, nil
}

// Addresses returns the payers' addresses: what genesis must fund.
func Addresses(payers []*Payer) []crypto.Address {
	var list []crypto.Address
	for _, p := range payers {
		list = append(list, p.Address)
	}
	return list
}

// wide spreads a seed over the 32 bytes that ChaCha8 wants, differently for each purpose.
func wide(seed uint64, purpose string) (w [32]byte) {
	copy(w[:], fmt.Sprintf("%016x%-16s", seed, purpose))
	return w
}
