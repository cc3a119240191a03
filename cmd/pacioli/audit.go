package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/conservation"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// auditFinding is the exit code of an audit that found something.
const auditFinding = 5

// auditAsset is what an audit says about an asset. Amounts are in its decimals.
type auditAsset struct {
	Asset     string                 `json:"asset"` // empty when there are lines, and no asset that they could be of
	AssetID   string                 `json:"asset_id"`
	Issuer    *crypto.Address        `json:"issuer,omitempty"`
	Scale     uint32                 `json:"scale"`
	MaxSupply string                 `json:"max_supply"`
	Issued    string                 `json:"issued"`
	Burned    string                 `json:"burned"`
	Supply    string                 `json:"supply"`
	LineSum   string                 `json:"line_sum"` // balances of all lines but the issuer's
	Lines     uint64                 `json:"lines"`
	Holders   uint64                 `json:"holders"` // lines whose balance is not 0
	Held      string                 `json:"held"`    // pending debits of all lines
	Holds     string                 `json:"holds"`   // amounts of all open holds
	OpenHolds uint64                 `json:"open_holds"`
	Credit    string                 `json:"credit"`             // by which lines may be overdrawn
	Deposits  string                 `json:"deposits,omitempty"` // of the asset that fees are paid in only, with the pool
	Pool      string                 `json:"pool,omitempty"`
	OK        bool                   `json:"ok"`
	Findings  []conservation.Finding `json:"findings"`
	Omitted   uint64                 `json:"findings_omitted"`
}

type auditResult struct {
	Height  uint64       `json:"height"`
	Time    string       `json:"time"`
	AppHash string       `json:"app_hash"`
	Rows    uint64       `json:"rows"`
	Pages   uint64       `json:"pages"`
	OK      bool         `json:"ok"`
	Assets  []auditAsset `json:"assets"`
}

func (c *cli) auditCommand() *cobra.Command {
	var code string
	var height uint64
	cmd := &cobra.Command{
		Use: "audit", Short: "Prove that the books balance: issued less burned is what all lines hold",
		Args: args(),
		Long: `Prove for every asset, or for one, that issued less burned is the supply, that the supply is what all lines but the
issuer's hold, that no line is overdrawn beyond its credit, that what is held is what the open holds say, and that the
pool holds the deposits of all rows; all at one height.

It reads every row of the state and checks each against the validators' signatures, so no node can leave out, add or
change one, and one node that is not trusted is enough. That takes about a minute for a million rows; the node must keep the
height until then (store.keep_versions). When it does not, the audit begins anew once, unless --height was given.

The exit code is 5 when the books are not in order. JSON: height, time, app_hash, rows, pages, ok, assets: asset,
asset_id, issuer, scale, max_supply, issued, burned, supply, line_sum, lines, holders, held, holds, open_holds, credit, deposits
and pool (of the asset that fees are paid in), ok, findings (name, message), findings_omitted.`,
		Example: "  pacioli audit\n  pacioli audit --asset EUR --height 120000 --node https://books.example.org --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if code != "" {
				if err := ledger.CheckAssetCode(code); err != nil {
					return usage("--asset: %w", err)
				}
			}
			if height == 0 && cmd.Flags().Changed("height") {
				return usage("--height 0: heights begin at 1; leave it out for the newest state")
			}
			return c.audit(cmd.Context(), code, height)
		},
	}
	cmd.Flags().StringVar(&code, "asset", "", "code of the asset to audit (default all)")
	cmd.Flags().Uint64Var(&height, "height", 0, "height of the state to audit (default the newest that can be proven)")
	return cmd
}

func (c *cli) audit(ctx context.Context, code string, height uint64) error {
	dialling, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	cl, err := c.dial(dialling)
	if err != nil {
		return err
	}
	p := progress{say: c.say, now: time.Now}
	r, err := conservation.Run(ctx, cl, conservation.Options{Code: code, Walk: client.WalkOptions{Height: height, Progress: p.report}, Restarted: func(height uint64) {
		c.say("the node no longer keeps height %d: beginning anew at a newer one", height)
		p.start = time.Time{}
	}})
	switch {
	case errors.Is(err, conservation.ErrNoAsset):
		return &problem{err: err, name: "asset_unknown", hint: "codes are upper case"}
	case errors.Is(err, client.ErrPruned):
		return &problem{err: err, name: "pruned", hint: "ask a node that keeps more heights (store.keep_versions), or a newer height"}
	case err != nil:
		return err
	}
	result := auditResult{Height: r.Height, Time: r.Time.UTC().Format(time.RFC3339Nano), AppHash: hex.EncodeToString(r.AppHash), Rows: r.Rows, Pages: r.Pages,
		OK: r.OK(), Assets: []auditAsset{}}
	bad := 0
	for _, a := range r.Assets {
		v := auditAsset{AssetID: hex.EncodeToString(a.ID[:]), Scale: a.Row.Scale, MaxSupply: a.Row.MaxSupply.Format(a.Row.Scale), Issued: a.Format(a.Issued),
			Burned: a.Format(a.Burned), Supply: a.Format(a.Supply), LineSum: a.Format(a.Sum), Lines: a.Lines, Holders: a.Holders, Held: a.Format(a.Held),
			Holds: a.Format(a.Holds), OpenHolds: a.OpenHolds, Credit: a.Format(a.Credit), OK: a.OK(), Findings: append([]conservation.Finding{}, a.Findings...), Omitted: a.Omitted}
		if a.Known {
			v.Asset, v.Issuer = a.Row.Code, &a.Row.Issuer
		}
		if a.Pool != nil {
			v.Deposits, v.Pool = a.Format(a.Deposits), a.Format(a.Pool)
		}
		if !a.OK() {
			bad++
		}
		result.Assets = append(result.Assets, v)
	}
	if err := c.print(result, result.text); err != nil {
		return err
	}
	if bad > 0 {
		return &problem{err: fmt.Errorf("the books of %d of %d assets are not in order at height %d", bad, len(r.Assets), r.Height), code: auditFinding,
			name: "audit_finding", hint: "this is what the validators have signed: keep the output, tell the operators, and stop accepting these assets"}
	}
	return nil
}

func (a auditAsset) name() string {
	if a.Asset == "" {
		return a.AssetID
	}
	return a.Asset
}

func (r auditResult) text(w io.Writer) {
	if len(r.Assets) > 0 {
		fmt.Fprintln(w, "ASSET\tISSUED\tBURNED\tSUPPLY\tIN LINES\tLINES\tHOLDERS\tHELD\tIN HOLDS\t")
	}
	for _, a := range r.Assets {
		verdict := "ok"
		if !a.OK {
			verdict = "WRONG"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", a.name(), a.Issued, a.Burned, a.Supply, a.LineSum, a.Lines, a.Holders, a.Held, a.Holds, verdict)
	}
	for _, a := range r.Assets {
		for _, f := range a.Findings {
			fmt.Fprintf(w, "%s: %s: %s\n", a.name(), f.Name, f.Message)
		}
		if a.Omitted > 0 {
			fmt.Fprintf(w, "%s: and %d findings more\n", a.name(), a.Omitted)
		}
	}
	for _, a := range r.Assets {
		if a.Pool != "" {
			fmt.Fprintf(w, "deposits of all rows %s %s, in their pool %s\n", a.Deposits, a.name(), a.Pool)
		}
	}
	fmt.Fprintf(w, "proven over all %d rows of height %d, %s\n", r.Rows, r.Height, r.Time)
}

// progress tells every few seconds how far a walk is, and how long it still takes at the speed so far.
type progress struct {
	say         func(format string, args ...any)
	now         func() time.Time
	start, last time.Time
}

const progressEvery = 2 * time.Second

func (p *progress) report(done, total uint64) {
	now := p.now()
	if p.start.IsZero() {
		p.start, p.last = now, now
	}
	if done == 0 || now.Sub(p.last) < progressEvery {
		return
	}
	p.last = now
	left := time.Duration(float64(now.Sub(p.start)) / float64(done) * float64(total-done))
	p.say("%d of %d rows (%d%%), %s left", done, total, done*100/total, left.Round(time.Second))
}
