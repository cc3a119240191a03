package ledger

import (
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// Audit checks a whole state, row by row: that every row decodes, that no line breaks its rule, that for every asset
// debits equal credits, that policies and nonces are what their hashes say. It is what `pacioli fsck` runs.
//
// Rows are given in any order but with those of a bucket's numbered nonces ascending, as a scan of the keys does.
// Memory grows by the number of assets, accounts and buckets.
type Audit struct {
	Rows     uint64
	Accounts uint64
	Lines    uint64
	Findings []string

	sums     sums
	assets   map[AssetID]Asset
	pending  []auditLine
	policies map[crypto.Hash]bool
	wanted   []crypto.Hash
	buckets  map[uint64]bucket
	folded   map[uint64]bucket
	nonces   uint64
	totals   replayTotals
	network  bool
}

type auditLine struct {
	key  LineKey
	line Line
}

// maxFindings bounds a report: whoever sees a hundred findings needs a resync, not the rest of them.
const maxFindings = 100

// NewAudit begins an audit.
func NewAudit() *Audit {
	return &Audit{assets: map[AssetID]Asset{}, policies: map[crypto.Hash]bool{}, buckets: map[uint64]bucket{}, folded: map[uint64]bucket{}}
}

func (a *Audit) find(format string, args ...any) {
	if len(a.Findings) < maxFindings {
		a.Findings = append(a.Findings, fmt.Sprintf(format, args...))
	}
}

// Row takes the next row.
func (a *Audit) Row(key, value []byte) {
	a.Rows++
	if len(key) == 0 {
		a.find("a row has an empty key")
		return
	}
	var err error
	switch kind := key[0]; kind {
	case rowAccount:
		var account Account
		if account, err = DecodeAccount(value); err == nil {
			a.Accounts++
			a.wanted = append(a.wanted, account.Policy)
		}
	case rowLine:
		var l auditLine
		if l.line, err = DecodeLine(value); err == nil && len(key) == 1+32+16 {
			a.Lines++
			copy(l.key.Account[:], key[1:])
			copy(l.key.Asset[:], key[33:])
			a.sums.change(l.key.Asset, Line{}, l.line)
			// The rule of a line depends on its asset's row, which comes later: only lines that an ordinary account
			// could not have wait for it.
			if !lineHolds(Asset{}, l.key, l.line) {
				a.pending = append(a.pending, l)
			}
		}
	case rowAsset:
		var asset Asset
		if asset, err = DecodeAsset(value); err == nil {
			id := AssetID(key[1:])
			if NewAssetID(asset.Issuer, asset.Code) != id {
				a.find("asset %s has the id %x, which is not that of its issuer and code", asset.Code, id)
			}
			a.assets[id] = asset
		}
	case rowCode:
		_, err = DecodeAssetID(value)
	case rowParameters:
		var p Parameters
		if p, err = DecodeParameters(value); err == nil {
			err = p.Check()
		}
	case rowNetwork:
		_, err = DecodeNetwork(value)
		a.network = true
	case rowBucket:
		var b bucket
		if b, err = decodeBucket(value); err == nil && len(key) == 9 {
			a.buckets[unixSecond(key)] = b
		}
	case rowReplay:
		a.totals, err = decodeReplayTotals(value)
	case rowValidators:
		_, err = DecodeValidators(value)
	case rowPolicy:
		var policy crypto.Policy
		if policy, err = DecodePolicyRow(value); err == nil {
			if hash := policy.Hash(); len(key) != 33 || crypto.Hash(key[1:]) != hash {
				a.find("policy row %x holds the policy %s", key, hash)
			} else {
				a.policies[hash] = true
			}
		}
	case rowNonce:
		_, err = decodeNumber(value)
		a.nonces++
	case rowNonceNumber:
		var k nonceKey
		if k, err = decodeNumbered(value); err == nil && len(key) == 13 {
			second := unixSecond(key)
			a.folded[second] = a.folded[second].add(k.account, k.nonce)
		}
	default:
		a.find("row %x has an unknown kind", key)
	}
	if err != nil {
		a.find("row %x: %s", key, err)
	}
}

func unixSecond(key []byte) (s uint64) {
	for _, c := range key[1:9] {
		s = s<<8 | uint64(c)
	}
	return s
}

// Close checks what needs all rows.
func (a *Audit) Close() {
	if !a.network {
		a.find("the state does not say which network it belongs to")
	}
	for _, l := range a.pending {
		asset, ok := a.assets[l.key.Asset]
		if !ok || !lineHolds(asset, l.key, l.line) {
			a.find("line %s/%x is overdrawn: %+v", l.key.Account, l.key.Asset, l.line)
		}
	}
	for _, s := range a.sums.assets {
		asset, ok := a.assets[s.id]
		if !ok {
			a.find("asset %x has lines and no row", s.id)
		}
		if s.debitsPosted != s.credited || s.debitsPending != s.creditsPending {
			a.find("asset %s does not balance: posted debits %s and credits %s, pending debits %s and credits %s",
				asset.Code, s.debitsPosted, s.credited, s.debitsPending, s.creditsPending)
		}
	}
	for _, hash := range a.wanted {
		if !a.policies[hash] {
			a.find("policy %s of an account is missing", hash)
		}
	}
	for _, second := range sortedKeys(a.buckets) {
		if a.buckets[second] != a.folded[second] {
			a.find("the nonces of second %d do not have the digest of their bucket", second)
		}
	}
	for _, second := range sortedKeys(a.folded) {
		if _, ok := a.buckets[second]; !ok {
			a.find("second %d has nonces and no bucket", second)
		}
	}
	var open uint64
	for _, second := range sortedKeys(a.buckets) {
		open += uint64(a.buckets[second].Count)
	}
	if open != a.totals.Open || open != a.nonces {
		a.find("%d nonces in buckets, %d by their total, %d rows", open, a.totals.Open, a.nonces)
	}
}
