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

// Cost implements [Chain]. The first transaction is built; the others differ from it in their operations only.
func (l *Ledger) Cost(ctx context.Context, groups [][]ledger.Transfer) (asset ledger.AssetID, total ledger.Amount, err error) {
	built, err := l.draft(ctx, groups[0])
	if err != nil {
		return asset, total, err
	}
	body := built.Body()
	for _, transfers := range groups {
		body.Operations, body.MaxFee = operations(transfers), ledger.Amount{}
		encoded, err := client.WithFee(built.Parameters, body, built.Accounts())
		if err != nil {
			return asset, total, err
		}
		fee, err := client.FeeCeiling(built.Parameters, encoded, built.Accounts())
		if err != nil {
			return asset, total, err
		}
		var ok bool
		if total, ok = total.Add(fee); !ok {
			return asset, total, fmt.Errorf("the fees of %d transactions pass the largest amount", len(groups))
		}
	}
	return built.Parameters.FeeAsset, total, nil
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
	f = Funds{Code: asset.Value.Code, Scale: asset.Value.Scale, Height: asset.Height, Amount: line.Value.Available()}
	if asset.Value.Issuer == l.Account {
		issued, negative := line.Value.Balance()
		if !negative {
			issued = ledger.Amount{}
		}
		f.Amount, _ = asset.Value.MaxSupply.Sub(issued)
	}
	return f, nil
}
