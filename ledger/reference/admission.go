package reference

import (
	"crypto/sha256"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// execution is what is known of the transaction that is being applied.
type execution struct {
	*transaction
	id         hash
	bodyHash   hash
	parties    []*party // the signers, and behind them the sponsor
	payer      address
	granted    *grantKey // the grant that the payer pays under
	maxDeposit amount
	fee        amount
	opening    amount // deposits of new accounts
	deposits   amount // all that were taken, those of new accounts included
	operation  uint32
}

// party is a signer or the sponsor.
type party struct {
	address address
	account *account   // as the transaction found it; nil for none
	brought *policy    // the policy that the transaction carries; nil for none
	policy  *policy    // in force
	signer  *pb.Signer // nil for the sponsor
}

// Apply applies a transaction, and returns its code and the bytes of its receipt.
func (l *Ledger) Apply(raw []byte) (code uint32, receipt []byte) {
	t := l.decode(raw)
	if t == nil {
		return malformed, marshal(&pb.Receipt{Code: malformed})
	}
	body := sha256.Sum256(t.tx.Body)
	x := &execution{transaction: t, bodyHash: body, id: sum("pacioli.txid.v1\x00", l.networkID[:], body[:])}
	if c := l.admit(x); c != ok {
		return c, marshal(&pb.Receipt{TxId: x.id[:], Code: c})
	}
	return l.execute(x)
}

// least is the smallest code of rules that are broken.
func least(codes ...code) (smallest code) {
	for _, c := range codes {
		if c != ok && (smallest == ok || c < smallest) {
			smallest = c
		}
	}
	return smallest
}

func (l *Ledger) admit(x *execution) code {
	if x.size > int(l.params().MaxTxBytes) {
		return tooLarge
	}
	for _, step := range []func(*execution) code{l.admitTime, l.admitPolicies, l.admitReplay, l.admitFee, l.admitWitnesses, l.admitSignatures} {
		if c := step(x); c != ok {
			return c
		}
	}
	return ok
}

func (l *Ledger) admitTime(x *execution) code {
	until := x.body.ValidUntil
	if until != 0 && until*1000 <= l.millis {
		return expired
	}
	for _, s := range x.body.Signers {
		if len(s.Nonce) > 0 && until*1000 > l.millis+uint64(l.params().ReplayWindowSeconds)*1000 {
			return validUntilTooFar
		}
	}
	return ok
}

func (l *Ledger) admitPolicies(x *execution) code {
	var codes []code
	add := func(raw []byte, encoded []byte, signer *pb.Signer) {
		p := &party{address: address(raw), signer: signer}
		p.account = l.accounts.get(p.address)
		if len(encoded) > 0 {
			p.brought = l.policy(encoded)
		}
		inForce := p.address
		if p.account != nil {
			inForce = p.account.policy
			p.policy = l.policies.get(inForce)
		} else {
			p.policy = p.brought
		}
		switch {
		case p.brought == nil && p.account == nil:
			codes = append(codes, policyUnknown)
		case p.brought != nil && p.brought.hash != inForce:
			codes = append(codes, policyMismatch)
		}
		if p.account != nil && p.account.closed {
			codes = append(codes, signerClosed)
		}
		x.parties = append(x.parties, p)
	}
	for _, s := range x.body.Signers {
		add(s.Address, s.Policy, s)
	}
	if s := x.tx.Sponsor; s != nil {
		add(s.Address, s.Policy, nil)
	}
	return least(codes...)
}

func (l *Ledger) admitReplay(x *execution) code {
	var codes []code
	var byNonce uint64
	for _, p := range x.parties {
		if p.signer == nil {
			continue
		}
		if len(p.signer.Nonce) > 0 {
			byNonce++
			if l.nonces.get(x.nonceKey(p)) != nil {
				codes = append(codes, nonceUsed)
			}
			continue
		}
		var last uint64
		if p.account != nil {
			last = p.account.sequence
		}
		switch {
		case p.signer.Sequence <= last:
			codes = append(codes, sequenceUsed)
		case p.signer.Sequence > last+1:
			codes = append(codes, sequenceGap)
		}
	}
	if byNonce > 0 {
		var there uint64
		if b := l.buckets.get(x.body.ValidUntil); b != nil {
			there = uint64(len(b.entered))
		}
		if l.total().openNonces+byNonce > l.params().MaxOpenNonces || there+byNonce > maxPerSecond {
			codes = append(codes, replayFull)
		}
	}
	return least(codes...)
}

func (x *execution) nonceKey(p *party) nonceKey {
	return nonceKey{x.body.ValidUntil, p.address, [16]byte(p.signer.Nonce)}
}

// cost is the price of all signatures and keys of a transaction, in tenths of an ed25519 verification. A signature of a key
// that there is not costs nothing: such a transaction is refused.
func (l *Ledger) cost(x *execution) (cost uint64) {
	for _, w := range x.tx.Witnesses {
		if keys := x.parties[w.Signer].policy.Keys; int(w.Key) < len(keys) {
			cost += schemes[keys[w.Key].Scheme].cost
		}
	}
	for _, p := range x.parties {
		if p.brought != nil {
			cost += p.brought.cost()
		}
	}
	for _, o := range x.body.Operations {
		// Keys and proofs.
		if s := o.GetSetPolicy(); s != nil {
			cost += 2 * l.policy(s.Policy).cost()
		}
		if f := o.GetFinishRecovery(); f != nil {
			cost += 2 * l.policy(f.Policy).cost()
		}
		if scheme, key, _, _ := newKey(o); key != nil {
			cost += 2 * schemes[scheme].cost
		}
	}
	return cost
}

func (x *execution) weight(cost uint64) uint64 {
	return uint64(x.size) + 50*uint64(len(x.body.Operations)) + 20*cost
}

// Fee returns what a transaction would pay now, as an amount; nil for one that is refused before that.
func (l *Ledger) Fee(raw []byte) []byte {
	t := l.decode(raw)
	if t == nil {
		return nil
	}
	x := &execution{transaction: t}
	if l.admitPolicies(x) != ok {
		return nil
	}
	return l.fee(x).bytes()
}

func (l *Ledger) fee(x *execution) amount {
	p, cost := l.params(), l.cost(x)
	product := func(a, b uint64) amount {
		n := units(a)
		return amount{n.big().Mul(n.big(), units(b).big())}
	}
	price := units(p.FeeBase).plus(product(p.FeePerByte, uint64(x.size))).
		plus(product(p.FeePerOperation, uint64(len(x.body.Operations)))).plus(product(p.FeePerSignature, cost))
	thousandfold := price.big().Mul(price.big(), units(uint64(l.total().multiplier)).big())
	return amount{thousandfold.Add(thousandfold, units(999).big()).Div(thousandfold, units(1000).big())}
}

func (l *Ledger) admitFee(x *execution) code {
	x.fee = l.fee(x)
	x.payer = x.parties[0].address
	maxFee := amountOf(x.body.MaxFee)
	x.maxDeposit = amountOf(x.body.MaxDeposit)
	if s := x.tx.Sponsor; s != nil {
		x.payer, maxFee, x.maxDeposit = address(s.Address), amountOf(s.MaxFee), amountOf(s.MaxDeposit)
	} else if len(x.body.FeeGranter) > 0 {
		x.payer = address(x.body.FeeGranter)
		x.granted = &grantKey{x.payer, x.parties[0].address, grantFees, assetID{}}
	}
	for _, party := range x.parties {
		if party.account == nil {
			x.opening = x.opening.plus(units(l.params().DepositAccount))
		}
	}
	charge := x.fee.plus(x.opening)
	if x.tx.Sponsor != nil {
		charge = x.fee.plus(x.opening.atLeast(x.maxDeposit))
	}

	if x.fee.above(maxFee) {
		return feeAboveMaximum
	}
	if !charge.isZero() {
		if l.debitable(lineKey{x.payer, l.feeAsset}, charge) != ok {
			return feeUnpayable
		}
		if !l.collectorAfter(x.fee).below(limit) {
			return feeUnpayable
		}
		if x.opening.above(x.maxDeposit) {
			return registrationAboveMaximum
		}
	}
	if x.granted != nil && l.usable(*x.granted, charge, nil) != ok {
		return feeGrantUnusable
	}
	return ok
}

func (a amount) below(b amount) bool { return b.above(a) }

// collectorAfter is what the collector has been and will be credited, with the fees of the block and a further amount.
func (l *Ledger) collectorAfter(more amount) amount {
	n := l.line(lineKey{l.collector(), l.feeAsset})
	return n.creditsPosted.plus(n.creditsPending).plus(l.total().fees).plus(more)
}

func (l *Ledger) admitWitnesses(x *execution) code {
	var codes []code
	for i, p := range x.parties {
		needed := p.policy.Threshold
		if l.changes(x, i) {
			needed = p.policy.forChange()
		}
		var total, lightest uint32
		first := true
		for _, w := range x.tx.Witnesses {
			if int(w.Signer) != i {
				continue
			}
			var weight uint32
			if int(w.Key) < len(p.policy.Keys) {
				weight = p.policy.Keys[w.Key].Weight
			} else {
				codes = append(codes, witnessUnknown)
			}
			total += weight
			if first || weight < lightest {
				lightest, first = weight, false
			}
		}
		if total < needed {
			codes = append(codes, witnessMissing)
		} else if total-lightest >= needed {
			codes = append(codes, witnessSuperfluous)
		}
	}
	return least(codes...)
}

// changes tells whether a party does what takes its change threshold.
func (l *Ledger) changes(x *execution, i int) bool {
	for _, o := range x.body.Operations {
		if int(actor(o)) != i {
			continue
		}
		if o.GetSetPolicy() != nil || o.GetCloseAccount() != nil {
			return true
		}
		if c := o.GetCancelRecovery(); c != nil && address(c.Account) == x.parties[i].address {
			return true
		}
	}
	return false
}

func (l *Ledger) admitSignatures(x *execution) code {
	for _, w := range x.tx.Witnesses {
		p := x.parties[w.Signer]
		var version uint32
		if p.account != nil {
			version = p.account.policyVersion
		}
		message := join([]byte("pacioli.tx.v1\x00"), l.networkID[:], x.bodyHash[:], u32(version))
		if p.signer == nil {
			sponsor := sha256.Sum256(marshal(x.tx.Sponsor))
			message = join([]byte("pacioli.sponsor.v1\x00"), l.networkID[:], x.bodyHash[:], sponsor[:], u32(version))
		}
		if k := p.policy.Keys[w.Key]; !l.keys.Verify(k.Scheme, k.PublicKey, message, w.Signature) {
			return signatureInvalid
		}
	}
	carried := func(p *policy) bool {
		for _, k := range p.Keys {
			if !l.keys.Registrable(k.Scheme, k.PublicKey) {
				return false
			}
		}
		return true
	}
	possessed := func(p *policy, proofs [][]byte, account []byte, version uint32) bool {
		message := join([]byte("pacioli.pop.v1\x00"), l.networkID[:], account, p.hash[:], u32(version))
		for i, k := range p.Keys {
			if !l.keys.Verify(k.Scheme, k.PublicKey, message, proofs[i]) {
				return false
			}
		}
		return carried(p)
	}
	for _, p := range x.parties {
		if p.brought != nil && !carried(p.brought) {
			return signatureInvalid
		}
	}
	for _, o := range x.body.Operations {
		if s := o.GetSetPolicy(); s != nil {
			p := x.parties[s.Signer]
			version := uint32(1)
			if p.account != nil {
				version = p.account.policyVersion + 1
			}
			if !possessed(l.policy(s.Policy), s.Proofs, p.address[:], version) {
				return signatureInvalid
			}
		}
		if f := o.GetFinishRecovery(); f != nil && !possessed(l.policy(f.Policy), f.Proofs, f.Account, 1<<32-1) {
			return signatureInvalid
		}
		if scheme, key, proof, operator := newKey(o); key != nil {
			message := join([]byte("pacioli.validator.v1\x00"), l.networkID[:], operator, u32(scheme), key)
			if !l.keys.Verify(scheme, key, message, proof) || !l.keys.Registrable(scheme, key) {
				return signatureInvalid
			}
		}
	}
	return ok
}
