package ledger

import "github.com/pacioli-ledger/pacioli/crypto"

// What a transaction can take from whom at the most, by its bytes alone: a mempool reckons with it, so that what waits in
// it can be paid for in whatever order it is executed. None of this decides what a transaction does.

// Outflow is an amount of one asset that a transaction's operations can take from an account.
type Outflow struct {
	Account crypto.Address
	Grant   GrantKey // under which it is taken; zero: the account has signed
	Amount  Amount   // at the most, and at most MaxAmount
}

// Outflows returns what the operations of a transaction can take from lines of an asset, the fee and deposits left aside;
// bonds count in whatever asset is asked for, as the transaction does not name the fee asset:
// one for each account and grant, in the order in which they first come. What operations bring in is not set against it.
func (tx *Tx) Outflows(asset AssetID) []Outflow {
	var flows []Outflow
	type source struct {
		account crypto.Address
		grant   GrantKey
	}
	places := map[source]int{}
	add := func(account crypto.Address, grant GrantKey, amount Amount) {
		at, known := places[source{account, grant}]
		if !known {
			at = len(flows)
			places[source{account, grant}] = at
			flows = append(flows, Outflow{Account: account, Grant: grant})
		}
		sum, ok := flows[at].Amount.Add(amount)
		if !ok {
			sum = MaxAmount
		}
		flows[at].Amount = sum
	}
	moved := func(by uint32, granter crypto.Address, kind Kind, amount Amount) {
		signer := tx.Body.Signers[by].Address
		if granter == (crypto.Address{}) {
			add(signer, GrantKey{}, amount)
		} else {
			add(granter, GrantKey{granter, signer, kind, asset}, amount)
		}
	}
	for _, op := range tx.Body.Operations {
		switch op := op.(type) {
		case *Transfer:
			if op.Asset == asset {
				moved(op.From, op.Granter, KindTransfer, op.Amount)
			}
		case *CreateHold:
			if op.Asset == asset {
				moved(op.Signer, op.Granter, KindCreateHold, op.Amount)
			}
		case *Bond:
			moved(op.Signer, crypto.Address{}, 0, op.Amount)
		case *SetLine: // credit comes out of what the issuer may still issue
			if op.Asset == asset && op.Credit != nil {
				moved(op.Signer, crypto.Address{}, 0, *op.Credit)
			}
		case *SetAsset: // so does a maximum supply that is lowered, to any amount
			if op.Asset == asset && !op.MaxSupply.IsZero() {
				moved(op.Signer, crypto.Address{}, 0, MaxAmount)
			}
		}
	}
	return flows
}

// Limits returns the most that the payer agrees to: the sponsor's limits, if there is one, else the body's.
func (tx *Tx) Limits() (fee, deposit Amount) { return tx.limits() }

// FeeGrant returns the grant under which the payer pays; ok is false when it has signed itself.
func (tx *Tx) FeeGrant() (k GrantKey, ok bool) {
	if grant := tx.payerGrant(); grant != nil {
		return grant.key, true
	}
	return GrantKey{}, false
}

// Deposits returns the most that a transaction can cost its payer in deposits when so many of its parties sign for the
// first time, by the kinds of its operations and by the limit that the payer agrees to.
func (tx *Tx) Deposits(p Parameters, registrations int) Amount {
	sum := uint64(registrations) * p.DepositAccount // at most 17 + 2 * 1,000 times 2^40
	for _, op := range tx.Body.Operations {
		switch op.(type) {
		case *Transfer, *CreateAsset, *SetLine, *OpenLine, *Bond:
			sum += p.DepositLine
		case *CreateHold:
			sum += p.DepositLine + p.DepositHold
		case *SetGrant:
			sum += p.DepositGrant
		}
	}
	_, limit := tx.limits()
	return limit.Min(Units(sum))
}

// Supersedes returns the accounts for which nobody can act any more, behind this transaction, by signatures made before it:
// their policy is replaced, or they are closed. In the order of the operations.
func (tx *Tx) Supersedes() (accounts []crypto.Address) {
	for _, op := range tx.Body.Operations {
		switch op := op.(type) {
		case *SetPolicy:
			accounts = append(accounts, tx.Body.Signers[op.Signer].Address)
		case *CloseAccount:
			accounts = append(accounts, tx.Body.Signers[op.Signer].Address)
		case *FinishRecovery:
			accounts = append(accounts, op.Account)
		}
	}
	return accounts
}

// LineOfRow is the reverse of [LineRow]; ok is false for keys of other rows.
func LineOfRow(key []byte) (k LineKey, ok bool) {
	if len(key) != 1+32+16 || key[0] != rowLine {
		return LineKey{}, false
	}
	copy(k.Account[:], key[1:])
	copy(k.Asset[:], key[33:])
	return k, true
}

// GrantOfRow is the reverse of [GrantRow]; ok is false for keys of other rows.
func GrantOfRow(key []byte) (k GrantKey, ok bool) {
	if len(key) != 1+32+32+1+16 || key[0] != rowGrant {
		return GrantKey{}, false
	}
	copy(k.Granter[:], key[1:])
	copy(k.Grantee[:], key[33:])
	k.Kind = Kind(key[65])
	copy(k.Asset[:], key[66:])
	return k, true
}
