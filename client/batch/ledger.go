package batch

import (
	"context"
	"fmt"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Ledger is the [Chain] that a client talks to.
type Ledger struct {
	Client   *client.Client
	Account  crypto.Address  // that pays
	Known    []crypto.Policy // as in [client.Intent]
	ValidFor time.Duration   // of each transaction; 0: client.DefaultValidFor
	// Sign signs for the account. It is called from several goroutines.
	Sign func(d *client.Draft, account client.SigningAccount) error
}

func (l *Ledger) draft(ctx context.Context, transfers []ledger.Transfer) (*client.Built, error) {
	return l.Client.Build(ctx, client.Intent{Signers: []crypto.Address{l.Account}, Known: l.Known, Operations: operations(transfers), ValidFor: l.ValidFor})
}

func operations(transfers []ledger.Transfer) (list []ledger.Operation) {
	for _, t := range transfers {
		list = append(list, &t)
	}
	return list
}

// Build implements [Chain].
func (l *Ledger) Build(ctx context.Context, transfers []ledger.Transfer) (Transaction, error) {
	built, err := l.draft(ctx, transfers)
	if err != nil {
		return Transaction{}, err
	}
	if err := l.Sign(built.Draft, built.Accounts()[0]); err != nil {
		return Transaction{}, err
	}
	raw, err := built.Raw()
	return Transaction{ID: built.ID(), Raw: raw, Before: built.Before}, err
}

// Send implements [Chain].
func (l *Ledger) Send(ctx context.Context, tx Transaction) (client.Final, error) {
	return l.Client.Send(ctx, tx.Raw, tx.Before)
}

// Cost implements [Chain]. The first transaction is built; the others differ from it in their operations only. Of the
// deposits the first transaction's are those that it allows, for an account that signs for the first time.
func (l *Ledger) Cost(ctx context.Context, groups [][]ledger.Transfer, exact bool) (asset ledger.AssetID, total ledger.Amount, err error) {
	built, err := l.draft(ctx, groups[0])
	if err != nil {
		return asset, total, err
	}
	p, body := built.Parameters, built.Body()
	opened := map[ledger.LineKey]bool{}
	fits := true
	add := func(a ledger.Amount) {
		sum, ok := total.Add(a)
		total, fits = sum, fits && ok
	}
	body.Operations = nil
	add(client.DepositCeiling(p, body)) // of the account's own row
	for _, transfers := range groups {
		body.Operations, body.MaxFee = operations(transfers), ledger.Amount{}
		body.MaxDeposit = client.DepositCeiling(p, body)
		encoded, err := client.WithFee(p, built.FeeRate, body, built.Accounts())
		if err != nil {
			return asset, total, err
		}
		fee, err := client.FeeCeiling(p, built.FeeRate, encoded, built.Accounts())
		if err != nil {
			return asset, total, err
		}
		add(fee)
		for _, t := range transfers {
			key := ledger.LineKey{Account: t.To, Asset: t.Asset}
			if opened[key] || p.DepositLine == 0 {
				continue
			}
			opened[key] = true
			if exact {
				line, err := l.Client.Line(ctx, key, built.Height)
				if err != nil {
					return asset, total, err
				}
				if line.Present {
					continue
				}
			}
			add(ledger.Units(p.DepositLine))
		}
	}
	if !fits {
		return asset, total, fmt.Errorf("the fees of %d transactions pass the largest amount", len(groups))
	}
	return p.FeeAsset, total, nil
}

// Available implements [Chain].
func (l *Ledger) Available(ctx context.Context, id ledger.AssetID) (f Funds, err error) {
	asset, err := l.Client.Asset(ctx, id, 0)
	if err != nil {
		return f, err
	}
	line, err := l.Client.Line(ctx, ledger.LineKey{Account: l.Account, Asset: id}, asset.Height)
	if err != nil {
		return f, err
	}
	f = Funds{Code: asset.Value.Code, Scale: asset.Value.Scale, Height: asset.Height}
	// What may be spent beyond what is there: the supply of an issuer, less the credit that it gives, and credit given to others.
	beyond := line.Value.Credit
	if asset.Value.Issuer == l.Account {
		beyond = less(asset.Value.MaxSupply, asset.Value.Credit)
	}
	f.Amount = line.Value.Available()
	if balance, negative := line.Value.Balance(); negative {
		f.Amount = less(less(beyond, balance), line.Value.DebitsPending)
		return f, nil
	} else if pending := line.Value.DebitsPending; f.Amount.IsZero() && pending.Cmp(balance) > 0 {
		beyond = less(beyond, less(pending, balance))
	}
	sum, ok := f.Amount.Add(beyond)
	if !ok {
		sum = ledger.MaxAmount
	}
	f.Amount = sum
	return f, nil
}

// less is a difference that does not go below 0.
func less(a, b ledger.Amount) ledger.Amount {
	difference, ok := a.Sub(b)
	if !ok {
		return ledger.Amount{}
	}
	return difference
}
