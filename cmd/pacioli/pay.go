package main

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/ledger"
)

// paymentFlags say what a payment is.
type paymentFlags struct {
	from, to, memo, reference string
	keys                      []string
}

func (p *paymentFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.from, "from", "", "account that pays: a key of this home, or an address")
	keyFlag(f, &p.keys)
	f.StringVar(&p.to, "to", "", "key of this home, or address, that is paid")
	f.StringVar(&p.memo, "memo", "", "text of at most 256 bytes, which everybody can read")
	f.StringVar(&p.reference, "reference", "", "your own 128-bit id, as 32 hex digits or a UUID")
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("to")
}

// transfer looks everything up that a payment names.
func (c *cli) transfer(ctx context.Context, b books, p paymentFlags, amount, code string) (payer, *ledger.Transfer, error) {
	from, err := c.payer(p.from, p.keys)
	if err != nil {
		return from, nil, err
	}
	t := &ledger.Transfer{Memo: p.memo}
	if t.To, err = c.account("--to", p.to); err != nil {
		return from, nil, err
	}
	if t.Reference, err = id128("--reference", p.reference); err != nil {
		return from, nil, err
	}
	var asset ledger.Asset
	if t.Asset, asset, err = b.assetByCode(ctx, code); err != nil {
		return from, nil, err
	}
	if t.Amount, err = ledger.ParseAmount(amount, asset.Scale); err != nil {
		return from, nil, usage("%w (%s)", err, code)
	}
	c.remember(code)
	return from, t, nil
}

// id128 reads 16 bytes, as 32 hex digits or a UUID.
func id128(flag, text string) (id [16]byte, err error) {
	if text == "" {
		return id, nil
	}
	digits := text
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		digits = strings.ReplaceAll(text, "-", "")
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != len(id) {
		return id, usage("%s %q: want 32 hex digits or a UUID", flag, text)
	}
	if copy(id[:], raw); id == [16]byte{} {
		return id, usage("%s %q: must not be zero", flag, text)
	}
	return id, nil
}

func (c *cli) payCommand() *cobra.Command {
	var p paymentFlags
	var s sendFlags
	cmd := &cobra.Command{
		Use: "pay --from KEY --to NAME|ADDRESS AMOUNT CODE", Short: "Pay, and wait until it is final", Args: args("AMOUNT", "CODE"),
		Long: `Pay an amount of an asset, wait until the payment is in a block, and show the receipt with the header that proves it.
A payment from the asset's issuer issues new units, one to the issuer takes them back.

With --nonce the payment is idempotent: it is kept in HOME/outbox before it is sent, and the same command again sends the
same bytes, which take effect once, and shows the original receipt. Other details under a used nonce are an error. Only when
an earlier attempt is proven to be dead (its time is over and the payer's journal does not have it) is it made anew.
Without --nonce a random one is used, and an unfinished payment stays in HOME/outbox as well.

JSON: outcome, id, code, code_name, height, index, proof_height, time, fee, fee_asset, valid_until, signers, operations.`,
		Example: `  pacioli pay --from alice --to bob 12.50 EUR --memo "invoice 7"
  pacioli pay --from alice --to bob 12.50 EUR --nonce 4f5c1d0e-7a0e-4a51-9f5e-0d7c2a9a1b11`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				from, t, err := c.transfer(ctx, b, p, args[0], args[1])
				if err != nil {
					return err
				}
				return c.perform(ctx, b, request{[]payer{from}, []ledger.Operation{t}, s})
			})
		},
	}
	p.add(cmd)
	s.add(cmd)
	return cmd
}
