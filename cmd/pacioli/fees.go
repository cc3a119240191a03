package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// priceView is what a payment costs now.
type priceView struct {
	Scheme string `json:"scheme"`
	Bytes  int    `json:"bytes"`
	Fee    string `json:"fee"`
}

type feesResult struct {
	Asset            string      `json:"fee_asset"`
	Multiplier       string      `json:"multiplier"`
	MaxMultiplier    string      `json:"max_multiplier"`
	Adapting         bool        `json:"adapting"`
	TargetWeight     uint64      `json:"fee_target_weight"`
	Base             string      `json:"fee_base"`
	PerByte          string      `json:"fee_per_byte"`
	PerOperation     string      `json:"fee_per_operation"`
	PerVerification  string      `json:"fee_per_ed25519_verification"`
	DepositAccount   string      `json:"deposit_account"`
	DepositLine      string      `json:"deposit_line"`
	DepositHold      string      `json:"deposit_hold"`
	DepositGrant     string      `json:"deposit_grant"`
	Payments         []priceView `json:"payment"`
	MaxBytes         uint32      `json:"max_tx_bytes"`
	ReplayWindow     uint32      `json:"replay_window_seconds"`
	MaxHold          uint32      `json:"max_hold_seconds"`
	ExpiriesPerBlock uint32      `json:"max_expiries"`
	Height           uint64      `json:"height"`
	Time             string      `json:"time"`
}

func (c *cli) feesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fees", Short: "Show what transactions and rows cost now, proven", Args: args(),
		Long: `Show what transactions cost now, and what deposits rows take, proven. A fee is (base + bytes + operations + verifications) times the
multiplier, which follows how full blocks are, by at most an eighth from block to block. The payments shown are by nonce, by an
account that has signed before, without memo or reference.

JSON: fee_asset, multiplier, max_multiplier, adapting, fee_target_weight, fee_base, fee_per_byte, fee_per_operation,
fee_per_ed25519_verification, deposit_account, deposit_line, deposit_hold, deposit_grant, payment (scheme, bytes, fee), max_tx_bytes,
replay_window_seconds, max_hold_seconds, max_expiries, height, time.`,
		Example: "  pacioli fees",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, c.fees)
		},
	}
}

func (c *cli) fees(ctx context.Context, b provenBooks) error {
	parameters, err := b.Parameters(ctx, 0)
	if err != nil {
		return err
	}
	rate, err := b.FeeRate(ctx, parameters.Height)
	if err != nil {
		return err
	}
	p := parameters.Value
	asset, err := b.asset(ctx, p.FeeAsset)
	if err != nil {
		return err
	}
	units := func(n uint64) string { return ledger.Units(n).Format(asset.Scale) }
	r := feesResult{Asset: asset.Code, Multiplier: ledger.Units(uint64(rate.Value.Multiplier)).Format(3), MaxMultiplier: ledger.Units(uint64(p.MaxFeeMultiplier)).Format(3),
		Adapting: p.FeeTargetWeight != 0, TargetWeight: p.FeeTargetWeight, Base: units(p.FeeBase), PerByte: units(p.FeePerByte), PerOperation: units(p.FeePerOperation),
		PerVerification: units(10 * p.FeePerSignature), DepositAccount: units(p.DepositAccount), DepositLine: units(p.DepositLine), DepositHold: units(p.DepositHold),
		DepositGrant: units(p.DepositGrant), MaxBytes: p.MaxTxBytes, ReplayWindow: p.ReplayWindowSeconds, MaxHold: p.MaxHoldSeconds, ExpiriesPerBlock: p.MaxExpiries,
		Height: parameters.Height, Time: parameters.Time.UTC().Format(time.RFC3339Nano)}
	for _, kind := range []struct {
		name    string
		schemes []crypto.Scheme
	}{{"ed25519", []crypto.Scheme{crypto.Ed25519}}, {"ml-dsa-44", []crypto.Scheme{crypto.MLDSA44}}, {"hybrid", []crypto.Scheme{crypto.Ed25519, crypto.MLDSA65}}} {
		body := ledger.Body{Signers: []ledger.Signer{{Address: crypto.Address{1}, Nonce: [ledger.NonceBytes]byte{1}}}, ValidUntil: uint64(parameters.Time.Unix()),
			MaxFee: ledger.Units(1 << 16), Operations: []ledger.Operation{&ledger.Transfer{To: crypto.Address{2}, Asset: p.FeeAsset, Amount: ledger.Units(1 << 24)}},
			MaxDeposit: ledger.Units(p.DepositLine)}
		var witnesses []ledger.Witness
		cost := uint64(0)
		for i, s := range kind.schemes {
			cost += s.Cost()
			witnesses = append(witnesses, ledger.Witness{Key: uint32(i), Signature: make([]byte, s.SignatureSize())})
		}
		size := len(ledger.Assemble(body.Encode(), witnesses, nil))
		r.Payments = append(r.Payments, priceView{kind.name, size, p.Fee(rate.Value, size, 1, cost).Format(asset.Scale)})
	}
	return c.print(r, func(w io.Writer) {
		for _, v := range r.Payments {
			fmt.Fprintf(w, "a payment\t%s %s\t%s, %d bytes\n", v.Fee, r.Asset, v.Scheme, v.Bytes)
		}
		adapting := fmt.Sprintf("follows how full blocks are, up to %s", r.MaxMultiplier)
		if !r.Adapting {
			adapting = "fixed"
		}
		fmt.Fprintf(w, "multiplier\t%s\t%s\n", r.Multiplier, adapting)
		fmt.Fprintf(w, "fee\t%s\tfor each transaction\n\t%s\tfor each byte\n\t%s\tfor each operation\n\t%s\tfor each ed25519 verification; other schemes as their cost\n",
			r.Base, r.PerByte, r.PerOperation, r.PerVerification)
		fmt.Fprintf(w, "deposit\t%s\tfor an account that signs for the first time\n\t%s\tfor a line\n\t%s\tfor a hold\n\t%s\tfor a grant; paid back when they go\n",
			r.DepositAccount, r.DepositLine, r.DepositHold, r.DepositGrant)
		fmt.Fprintf(w, "proven\tat height %d\n", r.Height)
	})
}
