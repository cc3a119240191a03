package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// signerView is a signer as results show it.
type signerView struct {
	Address  crypto.Address `json:"address"`
	Name     string         `json:"name,omitempty"` // of the key in this home
	Sequence uint64         `json:"sequence,omitempty"`
	Nonce    string         `json:"nonce,omitempty"` // hex
}

// payerView is who paid the fee and the deposits of a transaction, or is to.
type payerView struct {
	Address crypto.Address `json:"address"`
	Name    string         `json:"name,omitempty"`
	As      string         `json:"as"` // signer, the first one; sponsor; or fee_granter
}

// payerOf tells who pays. sponsor is nil when there is none.
func (c *cli) payerOf(body ledger.Body, sponsor *ledger.Sponsor) *payerView {
	v := payerView{body.Payer(), "", "signer"}
	if sponsor != nil {
		v.Address, v.As = sponsor.Address, "sponsor"
	} else if body.FeeGranter != (crypto.Address{}) {
		v.As = "fee_granter"
	}
	v.Name = c.names()[v.Address]
	return &v
}

// payerLine says who paid where it was not the first signer.
func payerLine(w io.Writer, v *payerView) {
	if v != nil && v.As != "signer" {
		fmt.Fprintf(w, "payer\t%s, the %s\n", named(v.Address, v.Name), strings.ReplaceAll(v.As, "_", " "))
	}
}

// taken says what a transaction that fails costs. unit may be empty.
func taken(fee, deposit, unit string) string {
	if unit == "" {
		unit = "base units"
	}
	text := fmt.Sprintf("only its fee of %s %s", fee, unit)
	if strings.Trim(deposit, "0.") != "" {
		text += fmt.Sprintf(" and a deposit of %s %s for new accounts", deposit, unit)
	}
	return text
}

// operationView is an operation as results show it; its kind says which fields it has. Amounts are in decimals of the
// asset, or in base units (amount_base, with asset_id) when the asset is not known here.
type operationView struct {
	Kind       string          `json:"kind"`
	By         crypto.Address  `json:"by"` // in whose name it acts: the sender of a transfer, the issuer of an asset
	To         *crypto.Address `json:"to,omitempty"`
	ToName     string          `json:"to_name,omitempty"`
	Amount     string          `json:"amount,omitempty"`
	Asset      string          `json:"asset,omitempty"`
	AmountBase string          `json:"amount_base,omitempty"`
	AssetID    string          `json:"asset_id,omitempty"`
	Memo       string          `json:"memo,omitempty"`
	Reference  string          `json:"reference,omitempty"`
	Code       uint32          `json:"code,omitempty"`
	Scale      *uint32         `json:"scale,omitempty"`
	MaxSupply  string          `json:"max_supply,omitempty"`
	Metadata   string          `json:"metadata_sha256,omitempty"`
	PolicyHash string          `json:"policy_hash,omitempty"`
	Policy     []keyView       `json:"policy,omitempty"`
	Threshold  uint32          `json:"threshold,omitempty"`
	guardView
	operationDetail
}

// bodyView is a transaction's body as results show it, always decoded from the bytes themselves.
type bodyView struct {
	ID         crypto.Hash     `json:"id"`
	ChainID    string          `json:"chain_id"`
	NetworkID  crypto.Hash     `json:"network_id"`
	Signers    []signerView    `json:"signers"`
	ValidUntil string          `json:"valid_until,omitempty"` // RFC 3339
	MaxFee     string          `json:"max_fee"`
	FeeAsset   string          `json:"fee_asset,omitempty"` // absent: max_fee is in base units
	Operations []operationView `json:"operations"`
}

// view shows a body. b may be nil: amounts are then in base units.
func (c *cli) view(ctx context.Context, b books, network ledger.Network, id crypto.Hash, body ledger.Body) bodyView {
	v := bodyView{ID: id, ChainID: network.ChainID, NetworkID: network.ID, MaxFee: body.MaxFee.String()}
	names := c.names()
	asset := func(id ledger.AssetID) (ledger.Asset, bool) {
		if b == nil {
			return ledger.Asset{}, false
		}
		a, err := b.asset(ctx, id)
		return a, err == nil
	}
	var feeAsset *ledger.Asset
	if b != nil {
		if p, err := b.parameters(ctx); err == nil {
			if a, ok := asset(p.FeeAsset); ok {
				feeAsset = &a
				v.MaxFee, v.FeeAsset = body.MaxFee.Format(a.Scale), a.Code
			}
		}
	}
	for _, s := range body.Signers {
		sv := signerView{Address: s.Address, Name: names[s.Address], Sequence: s.Sequence}
		if s.Sequence == 0 {
			sv.Nonce = hex.EncodeToString(s.Nonce[:])
		}
		v.Signers = append(v.Signers, sv)
	}
	if body.ValidUntil != 0 {
		v.ValidUntil = time.Unix(int64(body.ValidUntil), 0).UTC().Format(time.RFC3339)
	}
	for _, op := range body.Operations {
		o := operationView{Kind: op.Kind().String(), By: body.Signers[op.By()].Address}
		switch op := op.(type) {
		case *ledger.Transfer:
			o.To, o.ToName, o.Memo, o.Code = &op.To, names[op.To], op.Memo, op.Code
			if op.Reference != (ledger.Reference{}) {
				o.Reference = hex.EncodeToString(op.Reference[:])
			}
			if a, ok := asset(op.Asset); ok {
				o.Amount, o.Asset = op.Amount.Format(a.Scale), a.Code
				from := o.By
				if op.Granter != (crypto.Address{}) {
					from = op.Granter
				}
				o.issues, o.burns = a.Issuer == from, a.Issuer == op.To
			} else {
				o.AmountBase, o.AssetID = op.Amount.String(), hex.EncodeToString(op.Asset[:])
			}
		case *ledger.CreateAsset:
			o.Asset, o.Scale, o.MaxSupply, o.Metadata = op.Code, &op.Scale, op.MaxSupply.Format(op.Scale), hex.EncodeToString(op.MetadataHash)
		case *ledger.SetPolicy:
			if p, err := crypto.DecodePolicy(op.Policy); err == nil {
				o.PolicyHash, o.Policy, o.Threshold = p.Hash().String(), keyViews(p), p.Threshold
				o.guardView = newGuardView(p)
			}
		}
		o.detail(op, names, asset, feeAsset)
		v.Operations = append(v.Operations, o)
	}
	return v
}

// named shows an address with its name in this home.
func named(a crypto.Address, name string) string {
	if name == "" {
		return a.String()
	}
	return name + " (" + a.String() + ")"
}

// line says in words what an operation does.
func (o operationView) line(names map[crypto.Address]string) string {
	by := named(o.By, names[o.By])
	switch o.Kind {
	case ledger.KindTransfer.String():
		what := o.Amount + " " + o.Asset
		if o.AmountBase != "" {
			what = o.AmountBase + " base units of asset " + o.AssetID
		}
		switch {
		case o.everything && o.AmountBase != "":
			what = "all that is available of asset " + o.AssetID
		case o.everything:
			what = "all that is available of its " + o.Asset
			if o.Granter != nil {
				what = "all that is available of the " + o.Asset
			}
		case len(o.Balancing) > 0:
			what = "at most " + what
		}
		verb := "pays"
		if o.issues {
			verb = "issues"
		}
		text := fmt.Sprintf("%s %s %s to %s", by, verb, what, named(*o.To, o.ToName))
		if o.Granter != nil {
			text += " from " + named(*o.Granter, o.GranterName)
		}
		if o.burns {
			text += ", its issuer, who takes it back (burns it)"
		}
		if o.Memo != "" {
			text += fmt.Sprintf(", memo %q", o.Memo)
		}
		if o.Reference != "" {
			text += ", reference " + o.Reference
		}
		return text
	case ledger.KindCreateAsset.String():
		power := "no controls"
		if len(o.Controls) > 0 {
			power = "the controls " + strings.Join(o.Controls, ", ")
		}
		return fmt.Sprintf("%s creates asset %s with %d decimals and at most %s, %s", by, o.Asset, *o.Scale, o.MaxSupply, power)
	case ledger.KindSetPolicy.String():
		text := fmt.Sprintf("%s changes its policy to %d of %d keys, hash %s", by, o.Threshold, len(o.Policy), o.PolicyHash)
		if o.ChangeThreshold != 0 {
			text += fmt.Sprintf(", weight %d to change it again", o.ChangeThreshold)
		}
		if by := o.recovery(names); by != "" {
			text += ", recovered by " + by
		}
		return text
	}
	if o.sentence != "" {
		return by + " " + o.sentence
	}
	return o.Kind
}

// txResult is a transaction that was sent, as every command shows it.
type txResult struct {
	Outcome     string          `json:"outcome"` // committed, failed or submitted
	ID          crypto.Hash     `json:"id"`
	Code        uint32          `json:"code"`
	CodeName    string          `json:"code_name"`
	FailedAt    *uint32         `json:"failed_operation,omitempty"` // index
	Height      uint64          `json:"height,omitempty"`           // of the block
	Index       *uint64         `json:"index,omitempty"`            // in the block
	ProofHeight uint64          `json:"proof_height,omitempty"`     // of the verified header that proves the receipt
	Time        string          `json:"time,omitempty"`             // of the block, RFC 3339
	Fee         string          `json:"fee,omitempty"`
	FeeAsset    string          `json:"fee_asset,omitempty"`
	ValidUntil  string          `json:"valid_until,omitempty"`
	Payer       *payerView      `json:"payer"` // of fee and deposit
	Signers     []signerView    `json:"signers"`
	Operations  []operationView `json:"operations"`
	Deposit     string          `json:"deposit,omitempty"` // for new rows, paid back when they go
	Results     []resultView    `json:"results,omitempty"` // one per operation
	Proof       *proofView      `json:"proof,omitempty"`
	Differs     []parameterDiff `json:"parameters_changed,omitempty"` // that it proposes, where the parameters before are still to be had
}

// proofView is how inclusion and effect of a transaction were proven. Hashes are hex.
type proofView struct {
	Header          string `json:"header"` // hash of the block's header
	DataHash        string `json:"data_hash"`
	SignedPower     int64  `json:"signed_power"`
	TotalPower      int64  `json:"total_power"`
	NextHeader      string `json:"next_header"`
	LastResultsHash string `json:"last_results_hash"`
	NextSignedPower int64  `json:"next_signed_power"`
	NextTotalPower  int64  `json:"next_total_power"`
	Transactions    uint64 `json:"transactions"` // in the block
}

// finish shows a final transaction; its error is nil or says that it failed.
func (c *cli) finish(ctx context.Context, b provenBooks, f client.Final) error {
	return c.show(ctx, b, f, nil)
}

// finishWithProof is finish with the steps of the proof.
func (c *cli) finishWithProof(ctx context.Context, b provenBooks, f client.Final) error {
	p := &proofView{Header: hex.EncodeToString(f.Header.Hash), DataHash: hex.EncodeToString(f.Header.DataHash), NextHeader: hex.EncodeToString(f.Next.Hash),
		LastResultsHash: hex.EncodeToString(f.Next.LastResultsHash), Transactions: f.Total}
	var err error
	if p.SignedPower, p.TotalPower, err = client.SignedPower(f.Header); err != nil {
		return err
	}
	if p.NextSignedPower, p.NextTotalPower, err = client.SignedPower(f.Next); err != nil {
		return err
	}
	return c.show(ctx, b, f, p)
}

func (c *cli) show(ctx context.Context, b provenBooks, f client.Final, steps *proofView) error {
	v := c.view(ctx, b, b.network(), f.ID, f.Tx.Body)
	r := txResult{Outcome: client.OutcomeOf(f, nil).String(), ID: f.ID, Code: uint32(f.Receipt.Code), CodeName: f.Receipt.Code.String(),
		Height: f.Height, Index: &f.Index, ProofHeight: f.ProofHeight, Time: f.Time.UTC().Format(time.RFC3339Nano), Fee: f.Receipt.Fee.String(),
		ValidUntil: v.ValidUntil, Payer: c.payerOf(f.Tx.Body, f.Tx.Sponsor), Signers: v.Signers, Operations: v.Operations, Deposit: f.Receipt.Deposit.String(), Results: c.results(ctx, b, f.Tx.Body, f.Receipt), Proof: steps,
		Differs: proposedParameters(ctx, b, f.Tx.Body, f.Height-1)}
	if p, err := b.parameters(ctx); err == nil {
		if a, err := b.asset(ctx, p.FeeAsset); err == nil {
			r.Fee, r.Deposit, r.FeeAsset = f.Receipt.Fee.Format(a.Scale), f.Receipt.Deposit.Format(a.Scale), a.Code
		}
	}
	var failure error
	if f.Receipt.Code != ledger.OK {
		at := max(f.Receipt.Failed, 1) - 1
		r.FailedAt = &at
		failure = &problem{err: fmt.Errorf("transaction %s is in block %d, and failed with code %d (%s) at operation %d: it took %s",
			f.ID, f.Height, uint32(f.Receipt.Code), f.Receipt.Code, at, taken(r.Fee, r.Deposit, r.FeeAsset)), code: int(client.Failed), name: f.Receipt.Code.String(), hint: remedy(f.Tx.Body.Operations, at, f.Receipt.Code), id: f.ID.String()}
	}
	if err := c.print(r, r.text); err != nil {
		return err
	}
	return failure
}

func (r txResult) text(w io.Writer) {
	names := map[crypto.Address]string{}
	for _, s := range r.Signers {
		names[s.Address] = s.Name
	}
	fmt.Fprintf(w, "%s\t%s\n", r.Outcome, r.ID)
	for _, o := range r.Operations {
		fmt.Fprintf(w, "operation\t%s\n", o.line(names))
	}
	for _, d := range r.Differs {
		fmt.Fprintf(w, "parameter\t%s: %s -> %s\n", d.Name, d.From, d.To)
	}
	resultLines(w, r.Results, r.Operations)
	if strings.Trim(r.Deposit, "0.") != "" {
		fmt.Fprintf(w, "deposit\t%s\n", strings.TrimSpace(r.Deposit+" "+r.FeeAsset))
	}
	payerLine(w, r.Payer)
	if r.Height == 0 {
		return
	}
	fmt.Fprintf(w, "fee\t%s\nblock\t%d, transaction %d, %s\nproof\theader %d, signed by the validators\n",
		strings.TrimSpace(r.Fee+" "+r.FeeAsset), r.Height, *r.Index, r.Time, r.ProofHeight)
	if p := r.Proof; p != nil {
		fmt.Fprintf(w, "verified\theader %d, %s, signed by %d of %d voting power\n", r.Height, p.Header, p.SignedPower, p.TotalPower)
		fmt.Fprintf(w, "\tits data hash %s has the transaction as number %d of %d\n", p.DataHash, *r.Index, p.Transactions)
		fmt.Fprintf(w, "\theader %d, %s, signed by %d of %d voting power\n", r.ProofHeight, p.NextHeader, p.NextSignedPower, p.NextTotalPower)
		fmt.Fprintf(w, "\tits results hash %s has the receipt as number %d of %d\n", p.LastResultsHash, *r.Index, p.Transactions)
	}
}
