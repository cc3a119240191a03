package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// paymentFlags say what a payment is.
type paymentFlags struct {
	from, to, granter string
	keys              []string
	noteFlags
}

// noteFlags are what every movement of an amount can carry, and how its amount is found.
type noteFlags struct {
	memo, reference, balancing string
	code                       uint32
}

func (n *noteFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.memo, "memo", "", "text of at most 256 bytes, which everybody can read")
	f.StringVar(&n.reference, "reference", "", "your own 128-bit id, as 32 hex digits or a UUID: pacioli tx find --reference")
	f.Uint32Var(&n.code, "code", 0, "your own kind of payment, 1 to 65535: pacioli tx find --code")
	f.StringVar(&n.balancing, "balancing", "", "AMOUNT is then the most: debit, at most what is available; credit, at most what the other side owes; both")
}

// read returns what the flags say.
func (n *noteFlags) read() (reference ledger.Reference, balancing ledger.Balancing, err error) {
	if n.code > 65535 {
		return reference, 0, usage("--code %d: want 1 to 65535", n.code)
	}
	switch n.balancing {
	case "":
	case "debit":
		balancing = ledger.BalancingDebit
	case "credit":
		balancing = ledger.BalancingCredit
	case "both":
		balancing = ledger.BalancingDebit | ledger.BalancingCredit
	default:
		return reference, 0, usage("--balancing %q: want debit, credit or both", n.balancing)
	}
	reference, err = id128("--reference", n.reference)
	return reference, balancing, err
}

func (p *paymentFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.from, "from", "", "account that pays: a key of this home, or an address")
	keyFlag(f, &p.keys)
	f.StringVar(&p.to, "to", "", "key of this home, or address, that is paid")
	f.StringVar(&p.granter, "granter", "", "account whose money it is, under a grant to the one that pays: see pacioli pull")
	p.noteFlags.add(cmd)
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("to")
}

// transfer looks everything up that a payment names.
func (c *cli) transfer(ctx context.Context, b books, p paymentFlags, amount, code string) (payer, *ledger.Transfer, error) {
	from, err := c.payer(p.from, p.keys)
	if err != nil {
		return from, nil, err
	}
	t := &ledger.Transfer{Memo: p.memo, Code: p.code}
	if t.To, err = c.account("--to", p.to); err != nil {
		return from, nil, err
	}
	if t.Reference, t.Balancing, err = p.read(); err != nil {
		return from, nil, err
	}
	if p.granter != "" {
		if t.Granter, err = c.account("--granter", p.granter); err != nil {
			return from, nil, err
		}
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
	if id, err = client.ParseReference(text); err != nil {
		return id, usage("%s %w", flag, err)
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

With --id the payment has a name of your own, such as an invoice number, and is made once: when you do not know whether it went
through, give the same command again. It shows the receipt when it did, and else goes on with it. Without --id the same command
again is a second payment. The id in the result is another one, the transaction's.

An id is one payment of one account. Another receiver, amount, asset, memo or reference under it is an error (id_reused), and
nothing is sent; who pays the fee may differ, and stays as it was signed. A payment that is proven to have had no effect, because
its time is over or because it failed in a block, is made anew under its id.

Ids are remembered in HOME/outbox and HOME/batches: back them up with the keys, and use an id in one home only. A home that has
lost them asks the nodes, but a node could hide the payment. --nonce does the same for who keeps numbers of 128 bits instead of names.

With --balancing AMOUNT is the most: "--balancing debit 1000000 EUR" pays out what is there, and the result says how much it was.
With --dry-run nothing is sent: it shows what would happen now, and what would be left; under an id that was paid, the receipt.

JSON: outcome, id, code, code_name, height, index, proof_height, time, fee, fee_asset, deposit, valid_until, signers, operations,
results; with --dry-run as docs/CLI.md says.`,
		Example: `  pacioli pay --from alice --to bob 12.50 EUR --memo "invoice 7"
  pacioli pay --from alice --to bob 12.50 EUR --id invoice-2026-117`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("id") && s.id == "" {
				return usage("--id is empty")
			}
			if err := s.check(); err != nil {
				return err
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				from, t, err := c.transfer(ctx, b, p, args[0], args[1])
				if err != nil {
					return err
				}
				if s.id != "" && p.reference == "" {
					payment, err := client.NewPayment(from.address, s.id)
					if err != nil {
						return usage("--id: %w", err)
					}
					t.Reference = payment.Reference
				}
				return c.perform(ctx, b, request{[]payer{from}, []ledger.Operation{t}, s})
			})
		},
	}
	p.add(cmd)
	s.add(cmd)
	cmd.Flags().StringVar(&s.id, "id", "", "your own name for this payment, 1 to 256 bytes, as an invoice number: the same command again does not pay again")
	return cmd
}
