package audit

import (
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// book is the ledger a second time: plain maps and big integers, written from the rules' text and sharing no rule with
// package ledger but the decoders. It is told every transaction with its receipt, predicts the receipt, and keeps the
// balances that must come out.
type book struct {
	network    crypto.Hash
	fee        struct{ base, perByte, perOperation, perSignature int64 }
	window     uint64 // seconds
	feeAsset   ledger.AssetID
	collector  crypto.Address
	creators   map[crypto.Address]bool // empty: everybody
	assets     map[ledger.AssetID]bookAsset
	codes      map[string]bool
	accounts   map[crypto.Address]*bookAccount
	lines      map[ledger.LineKey]*bookLine
	nonces     map[bookNonce]uint64 // height that used it
	txs        int
	failed     int
	operations int
}

type bookAsset struct {
	issuer  crypto.Address
	maximum *big.Int
}

type bookAccount struct {
	policy   crypto.Policy
	version  uint32
	sequence uint64
}

type bookLine struct{ debits, credits *big.Int }

type bookNonce struct {
	account crypto.Address
	until   uint64
	nonce   [ledger.NonceBytes]byte
}

// verificationCost is the published price list: tenths of one ed25519 verification by scheme number.
var verificationCost = map[crypto.Scheme]int64{1: 10, 2: 42, 4: 15, 5: 30}

// newBook opens the book with what genesis says.
func newBook(doc *types.GenesisDoc, network crypto.Hash) (*book, error) {
	state, err := ledger.ParseGenesisState(doc.AppState)
	if err != nil {
		return nil, err
	}
	p := state.Parameters
	b := &book{network: network, window: uint64(p.ReplayWindowSeconds), collector: p.FeeCollector, creators: map[crypto.Address]bool{},
		assets: map[ledger.AssetID]bookAsset{}, codes: map[string]bool{}, accounts: map[crypto.Address]*bookAccount{},
		lines: map[ledger.LineKey]*bookLine{}, nonces: map[bookNonce]uint64{}}
	b.fee.base, b.fee.perByte, b.fee.perOperation, b.fee.perSignature = int64(p.FeeBase), int64(p.FeePerByte), int64(p.FeePerOperation), int64(p.FeePerSignature)
	for _, a := range p.AssetCreators {
		b.creators[a] = true
	}
	ids, scales := map[string]ledger.AssetID{}, map[string]uint32{}
	for _, a := range state.Assets {
		maximum, err := decimal(a.MaxSupply, a.Scale)
		if err != nil {
			return nil, err
		}
		ids[a.Code], scales[a.Code] = ledger.NewAssetID(a.Issuer, a.Code), a.Scale
		b.assets[ids[a.Code]] = bookAsset{a.Issuer, maximum}
		b.codes[a.Code] = true
	}
	b.feeAsset = ids[p.FeeAsset]
	for _, account := range state.Accounts {
		for _, balance := range account.Balances {
			amount, err := decimal(balance.Amount, scales[balance.Asset])
			if err != nil {
				return nil, err
			}
			id := ids[balance.Asset]
			b.post(ledger.LineKey{Account: b.assets[id].issuer, Asset: id}, ledger.LineKey{Account: account.Address, Asset: id}, amount)
		}
	}
	return b, nil
}

// decimal reads digits with at most scale of them behind a point.
func decimal(text string, scale uint32) (*big.Int, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if uint32(len(fraction)) > scale {
		return nil, fmt.Errorf("amount %q has more than %d decimals", text, scale)
	}
	n, ok := new(big.Int).SetString(whole+fraction+strings.Repeat("0", int(scale)-len(fraction)), 10)
	if !ok {
		return nil, fmt.Errorf("amount %q is not a number", text)
	}
	return n, nil
}

func number(a ledger.Amount) *big.Int { return new(big.Int).SetBytes(a.Bytes()) }

func (b *book) line(k ledger.LineKey) *bookLine {
	l := b.lines[k]
	if l == nil {
		l = &bookLine{new(big.Int), new(big.Int)}
		b.lines[k] = l
	}
	return l
}

func (b *book) post(from, to ledger.LineKey, amount *big.Int) {
	b.line(from).debits.Add(b.line(from).debits, amount)
	b.line(to).credits.Add(b.line(to).credits, amount)
}

// canPay tells whether a line may be debited, and with which code not.
func (b *book) canPay(k ledger.LineKey, amount *big.Int) ledger.Code {
	var l bookLine
	if have := b.lines[k]; have != nil {
		l = *have
	} else {
		l = bookLine{new(big.Int), new(big.Int)}
	}
	room := new(big.Int).Sub(l.credits, l.debits)
	code := ledger.InsufficientFunds
	if a := b.assets[k.Asset]; a.issuer == k.Account {
		room.Add(room, a.maximum)
		code = ledger.SupplyExceeded
	}
	if room.Cmp(amount) < 0 {
		return code
	}
	return ledger.OK
}

// block enters a block and returns what is wrong with it.
func (b *book) block(height uint64, at time.Time, txs [][]byte, results []Result) (errs []error) {
	fees := new(big.Int)
	for i, raw := range txs {
		if err := b.transaction(height, at, raw, results[i], fees); err != nil {
			errs = append(errs, fmt.Errorf("block %d, transaction %d: %w", height, i, err))
		}
	}
	if fees.Sign() != 0 {
		l := b.line(ledger.LineKey{Account: b.collector, Asset: b.feeAsset})
		l.credits.Add(l.credits, fees)
	}
	return append(errs, b.balanced(height)...)
}

// balanced checks that money neither came to be nor vanished.
func (b *book) balanced(height uint64) (errs []error) {
	sums := map[ledger.AssetID]*big.Int{}
	for k, l := range b.lines {
		if sums[k.Asset] == nil {
			sums[k.Asset] = new(big.Int)
		}
		sums[k.Asset].Add(sums[k.Asset], l.debits).Sub(sums[k.Asset], l.credits)
		if k.Account != b.assets[k.Asset].issuer && l.debits.Cmp(l.credits) > 0 {
			errs = append(errs, fmt.Errorf("block %d: %s is overdrawn", height, k.Account))
		}
	}
	for id, sum := range sums {
		if sum.Sign() != 0 {
			errs = append(errs, fmt.Errorf("block %d: debits less credits of asset %x are %s, want 0", height, id, sum))
		}
	}
	return errs
}

// transaction enters one transaction.
func (b *book) transaction(height uint64, at time.Time, raw []byte, result Result, fees *big.Int) error {
	tx, err := ledger.Decode(raw)
	if err != nil {
		return fmt.Errorf("not a transaction: %w", err)
	}
	receipt, err := ledger.DecodeReceipt(result.Data)
	if err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	body := &tx.Body
	switch {
	case uint32(receipt.Code) != result.Code:
		return fmt.Errorf("result has code %d, its receipt %d", result.Code, receipt.Code)
	case receipt.TxID != tx.ID(b.network):
		return fmt.Errorf("receipt is for %s, the transaction is %s", receipt.TxID, tx.ID(b.network))
	case receipt.Code >= 1 && receipt.Code <= 99:
		return fmt.Errorf("stands in a block although refused with code %d", receipt.Code)
	case body.ValidUntil != 0 && int64(body.ValidUntil)*1000 <= at.UnixMilli():
		return fmt.Errorf("valid until %d, in a block of %s", body.ValidUntil, at)
	}
	b.txs++
	b.operations += len(body.Operations)
	cost, err := b.signed(tx)
	if err != nil {
		return err
	}
	for _, s := range body.Signers {
		account := b.accounts[s.Address]
		if s.Sequence != 0 {
			if s.Sequence != account.sequence+1 {
				return fmt.Errorf("sequence %d of %s follows %d", s.Sequence, s.Address, account.sequence)
			}
			account.sequence = s.Sequence
			continue
		}
		key := bookNonce{s.Address, body.ValidUntil, s.Nonce}
		if before, used := b.nonces[key]; used {
			return fmt.Errorf("nonce %x of %s was used in block %d", s.Nonce, s.Address, before)
		}
		if int64(body.ValidUntil)*1000 > at.UnixMilli()+int64(b.window)*1000 {
			return fmt.Errorf("nonce valid until %d, further than %d s after %s", body.ValidUntil, b.window, at)
		}
		b.nonces[key] = height
	}
	fee := big.NewInt(b.fee.base + b.fee.perByte*int64(len(raw)) + b.fee.perOperation*int64(len(body.Operations)) + b.fee.perSignature*cost)
	payer := ledger.LineKey{Account: body.Signers[0].Address, Asset: b.feeAsset}
	switch {
	case fee.Cmp(number(receipt.Fee)) != 0:
		return fmt.Errorf("fee %s, want %s", receipt.Fee, fee)
	case fee.Cmp(number(body.MaxFee)) > 0:
		return fmt.Errorf("fee %s, the signers agreed to %s", fee, body.MaxFee)
	case b.canPay(payer, fee) != ledger.OK:
		return fmt.Errorf("%s cannot pay the fee of %s", payer.Account, fee)
	}
	l := b.line(payer)
	l.debits.Add(l.debits, fee)
	fees.Add(fees, fee)

	var undo []func()
	want, failed := ledger.OK, uint32(0)
	for i, op := range body.Operations {
		code, back := b.operation(body, op)
		if back != nil {
			undo = append(undo, back)
		}
		if code != ledger.OK {
			want, failed = code, uint32(i)+1
			for j := len(undo) - 1; j >= 0; j-- {
				undo[j]()
			}
			b.failed++
			break
		}
		if t, ok := op.(*ledger.Transfer); ok && want == ledger.OK && receipt.Code == ledger.OK && receipt.Results[i].Amount != t.Amount {
			return fmt.Errorf("operation %d moved %s, want %s", i, receipt.Results[i].Amount, t.Amount)
		}
	}
	if receipt.Code != want || receipt.Failed != failed {
		return fmt.Errorf("code %d at operation %d, want %d at %d", receipt.Code, receipt.Failed, want, failed)
	}
	return nil
}

// signed checks that every signer's policy is satisfied, and returns what verifying it cost.
func (b *book) signed(tx *ledger.Tx) (cost int64, err error) {
	w := 0
	for i, s := range tx.Body.Signers {
		account := b.accounts[s.Address]
		if account == nil {
			if crypto.Hash(s.Address) != crypto.DomainAddress.Hash(s.Policy) {
				return 0, fmt.Errorf("%s signs for the first time, with a policy that is not its own", s.Address)
			}
			policy, err := crypto.DecodePolicy(s.Policy)
			if err != nil {
				return 0, fmt.Errorf("policy of %s: %w", s.Address, err)
			}
			account = &bookAccount{policy: policy}
			b.accounts[s.Address] = account
		}
		if len(s.Policy) != 0 {
			if crypto.DomainAddress.Hash(s.Policy) != account.policy.Hash() {
				return 0, fmt.Errorf("%s brings another policy than its account has", s.Address)
			}
			cost += keysCost(account.policy) // registration of its keys, each time that they are brought
		}
		message := ledger.Preimage(b.network, tx.BodyBytes(), account.version)
		weight := uint32(0)
		for ; w < len(tx.Witnesses) && tx.Witnesses[w].Signer == uint32(i); w++ {
			x := tx.Witnesses[w]
			if int(x.Key) >= len(account.policy.Keys) {
				return 0, fmt.Errorf("signature by key %d of %s, which has %d", x.Key, s.Address, len(account.policy.Keys))
			}
			key := account.policy.Keys[x.Key]
			if !(crypto.Check{Scheme: key.Scheme, PublicKey: key.Public, Message: message, Signature: x.Signature}).Verify() {
				return 0, fmt.Errorf("signature of %s does not verify", s.Address)
			}
			weight += key.Weight
			cost += verificationCost[key.Scheme]
		}
		if weight < account.policy.Threshold {
			return 0, fmt.Errorf("signatures of %s weigh %d, want %d", s.Address, weight, account.policy.Threshold)
		}
	}
	for _, op := range tx.Body.Operations {
		if set, ok := op.(*ledger.SetPolicy); ok {
			policy, err := crypto.DecodePolicy(set.Policy)
			if err != nil {
				return 0, fmt.Errorf("new policy: %w", err)
			}
			cost += 2 * keysCost(policy) // registration and proof of possession
		}
	}
	return cost, nil
}

func keysCost(p crypto.Policy) (cost int64) {
	for _, k := range p.Keys {
		cost += verificationCost[k.Scheme]
	}
	return cost
}

// operation takes effect, and returns how to take it back.
func (b *book) operation(body *ledger.Body, op ledger.Operation) (ledger.Code, func()) {
	by := body.Signers[op.By()].Address
	switch o := op.(type) {
	case *ledger.Transfer:
		if _, ok := b.assets[o.Asset]; !ok {
			return ledger.AssetUnknown, nil
		}
		amount := number(o.Amount)
		from, to := ledger.LineKey{Account: by, Asset: o.Asset}, ledger.LineKey{Account: o.To, Asset: o.Asset}
		if code := b.canPay(from, amount); code != ledger.OK {
			return code, nil
		}
		b.post(from, to, amount)
		return ledger.OK, func() { b.post(from, to, new(big.Int).Neg(amount)) }
	case *ledger.CreateAsset:
		id := ledger.NewAssetID(by, o.Code)
		if len(b.creators) > 0 && !b.creators[by] {
			return ledger.AssetCreationClosed, nil
		}
		if _, taken := b.assets[id]; taken || b.codes[o.Code] {
			return ledger.AssetExists, nil
		}
		b.assets[id], b.codes[o.Code] = bookAsset{by, number(o.MaxSupply)}, true
		return ledger.OK, func() { delete(b.assets, id); delete(b.codes, o.Code) }
	case *ledger.SetPolicy:
		account := b.accounts[by]
		policy, err := crypto.DecodePolicy(o.Policy)
		if err != nil || policy.Hash() == account.policy.Hash() {
			return ledger.PolicyUnchanged, nil
		}
		before := *account
		account.policy, account.version = policy, account.version+1
		return ledger.OK, func() { account.policy, account.version = before.policy, before.version }
	}
	panic(fmt.Sprintf("the audit does not know operations of kind %s: teach book.go the rule", op.Kind()))
}
