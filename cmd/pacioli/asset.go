package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// assetFlags describe a new asset.
type assetFlags struct {
	from, maxSupply, metadata string
	keys                      []string
	scale                     uint32
	controls                  []string
}

func (a *assetFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.from, "from", "", "account that becomes the issuer: a key of this home, or an address")
	keyFlag(f, &a.keys)
	f.Uint32Var(&a.scale, "scale", 2, "decimals, 0 to 18, fixed for ever")
	f.StringVar(&a.maxSupply, "max-supply", "", "the most that may ever be issued, in decimals")
	f.StringVar(&a.metadata, "metadata-sha256", "", "SHA-256 of a document about the asset, in hex")
	f.StringSliceVar(&a.controls, "control", nil, "what the issuer can do to holders: "+strings.Join(controls, ", ")+"; they can be given up later, and never added")
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("max-supply")
}

func (a assetFlags) operation(code string) (*ledger.CreateAsset, error) {
	if err := ledger.CheckAssetCode(code); err != nil {
		return nil, usage("CODE: %w", err)
	}
	if a.scale > ledger.MaxScale {
		return nil, usage("--scale %d: want 0 to %d", a.scale, ledger.MaxScale)
	}
	supply, err := ledger.ParseAmount(a.maxSupply, a.scale)
	if err != nil {
		return nil, usage("--max-supply: %w", err)
	}
	if supply.IsZero() {
		return nil, usage("--max-supply: want more than 0")
	}
	op := &ledger.CreateAsset{Code: code, Scale: a.scale, MaxSupply: supply}
	if op.Controls, err = bitsOf[ledger.Controls]("--control", a.controls, controls); err != nil {
		return nil, err
	}
	if a.metadata != "" {
		if op.MetadataHash, err = hex.DecodeString(a.metadata); err != nil || len(op.MetadataHash) != 32 {
			return nil, usage("--metadata-sha256 %q: want 64 hex digits", a.metadata)
		}
	}
	return op, nil
}

func (c *cli) assetCommand() *cobra.Command {
	asset := &cobra.Command{
		Use: "asset", Short: "Create and show assets, and do what an issuer can", Args: commandsOnly, Example: "  pacioli asset show PAC",
		Long: `Create and show assets, and do what an issuer can: authorise, freeze, limit, take back. What it can do is chosen when the
asset is created, with --control, and only ever given up. There is no command to issue: a payment from the issuer's account issues new units, up to the
maximum supply, and a payment to it takes them back.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	asset.AddCommand(c.assetCreate(), c.assetShow(), c.assetSet(), c.assetAuthorise(), c.assetDeauthorise(), c.assetFreeze("freeze"), c.assetFreeze("unfreeze"),
		c.assetLimit(), c.assetClawback())
	return asset
}

func (c *cli) assetCreate() *cobra.Command {
	var a assetFlags
	var s sendFlags
	cmd := &cobra.Command{
		Use: "create CODE --from KEY --max-supply X", Short: "Create an asset, with nothing issued yet", Args: args("CODE"),
		Long: `Create an asset. Its code is unique on the ledger, its scale never changes, and its maximum supply is never raised. Nothing is issued
yet: pay from the issuer to issue. --control says what the issuer can do to those who hold it.

JSON: as pacioli pay.`,
		Example: "  pacioli asset create EUR --from bank --scale 2 --max-supply 1000000000\n  pacioli pay --from bank --to alice 100 EUR",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			op, err := a.operation(args[0])
			if err != nil {
				return err
			}
			from, err := c.payer(a.from, a.keys)
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				if err := c.perform(ctx, b, request{[]payer{from}, []ledger.Operation{op}, s}); err != nil {
					return err
				}
				c.remember(op.Code)
				return nil
			})
		},
	}
	a.add(cmd)
	s.add(cmd)
	return cmd
}

type assetResult struct {
	Code      string         `json:"code"`
	ID        string         `json:"asset_id"`
	Issuer    crypto.Address `json:"issuer"`
	Scale     uint32         `json:"scale"`
	MaxSupply string         `json:"max_supply"`
	Supply    string         `json:"supply"` // issued and not taken back
	Metadata  string         `json:"metadata_sha256,omitempty"`
	Controls  []string       `json:"controls"`
	Frozen    string         `json:"frozen,omitempty"` // in, out or both: of all lines
	Credit    string         `json:"credit_granted"`   // how far lines may be overdrawn, together
	Issuable  string         `json:"issuable"`         // of the maximum supply, without what is granted as credit
	Can       []string       `json:"issuer_can"`
	Cannot    []string       `json:"issuer_cannot"` // for ever
	Height    uint64         `json:"height"`        // of the proven state
	Time      string         `json:"time"`
}

// readTimeout bounds a command that only reads.
const readTimeout = 30 * time.Second

func (c *cli) assetShow() *cobra.Command {
	return &cobra.Command{
		Use: "show CODE", Short: "Show an asset, its supply and what its issuer can still do, proven", Args: args("CODE"), Example: "  pacioli asset show PAC",
		Long: `Show an asset, its supply, and in words what its issuer can still do to those who hold it, and what it never can. Proven.

JSON: code, asset_id, issuer, scale, max_supply, supply, metadata_sha256, controls, frozen, credit_granted, issuable, issuer_can,
issuer_cannot, height, time.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				id, asset, err := b.assetByCode(ctx, args[0])
				if err != nil {
					return err
				}
				line, err := b.Line(ctx, ledger.LineKey{Account: asset.Issuer, Asset: id}, 0)
				if err != nil {
					return err
				}
				c.remember(args[0])
				supply, issued := line.Value.Balance()
				if !issued {
					supply = ledger.Amount{}
				}
				issuable := line.Value.Spendable(asset, ledger.LineKey{Account: asset.Issuer, Asset: id}).Format(asset.Scale)
				r := assetResult{Code: asset.Code, ID: hex.EncodeToString(id[:]), Issuer: asset.Issuer, Scale: asset.Scale, MaxSupply: asset.MaxSupply.Format(asset.Scale),
					Supply: supply.Format(asset.Scale), Metadata: hex.EncodeToString(asset.MetadataHash), Controls: namesOf(asset.Controls, controls),
					Frozen: sidesOf(asset.Frozen), Credit: asset.Credit.Format(asset.Scale), Issuable: issuable, Height: line.Height, Time: line.Time.UTC().Format(time.RFC3339Nano)}
				r.Can, r.Cannot = powers(asset, issuable)
				return c.print(r, func(w io.Writer) {
					fmt.Fprintf(w, "asset\t%s, %d decimals\nissuer\t%s\nsupply\t%s of at most %s\n", r.Code, r.Scale, named(r.Issuer, c.names()[r.Issuer]), r.Supply, r.MaxSupply)
					if r.Metadata != "" {
						fmt.Fprintf(w, "metadata\tsha256 %s\n", r.Metadata)
					}
					if r.Frozen != "" {
						fmt.Fprintf(w, "frozen\t%s, all lines\n", r.Frozen)
					}
					if !asset.Credit.IsZero() {
						fmt.Fprintf(w, "credit\t%s granted to lines, within the maximum supply\n", r.Credit)
					}
					for _, text := range r.Can {
						fmt.Fprintf(w, "issuer can\t%s\n", text)
					}
					for _, text := range r.Cannot {
						fmt.Fprintf(w, "issuer cannot\t%s\n", text)
					}
					fmt.Fprintf(w, "proven\tat height %d\n", r.Height)
				})
			})
		},
	}
}
