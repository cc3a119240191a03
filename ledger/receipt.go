package ledger

import (
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// Receipt says what a transaction did. It stands in ExecTxResult.Data, which CometBFT hashes into the next header's
// LastResultsHash: so the effect of a transaction is provable, not only that it was included.
type Receipt struct {
	TxID    crypto.Hash // zero for bytes that are not a transaction
	Code    Code
	Failed  uint32 // 1 + index of the operation that failed; 0: none did
	Fee     Amount // paid by the transaction's payer; 0 when refused
	Results []OperationResult
	Deposit Amount // taken from the payer for new rows; with a failure only those of new accounts
}

// OperationResult says what one operation did; there are as many as operations when Code is OK, else none.
type OperationResult struct {
	Amount   Amount      // moved, reserved, posted, returned or taken back
	Asset    AssetID     // created
	Hold     crypto.Hash // created
	Proposal crypto.Hash // made
	Executed bool        // the vote of validators was decided by it, and its change has taken effect
}

// Encode writes the canonical receipt.
func (r Receipt) Encode() []byte {
	w := canonical.NewWriter(nil)
	writeOptional(w, 1, r.TxID[:])
	w.Uint32(2, uint32(r.Code))
	w.Uint32(3, r.Failed)
	w.Bytes(4, r.Fee.Bytes())
	for _, o := range r.Results {
		ow := canonical.NewWriter(nil)
		ow.Bytes(1, o.Amount.Bytes())
		writeOptional(ow, 2, o.Asset[:])
		writeOptional(ow, 3, o.Hold[:])
		writeOptional(ow, 4, o.Proposal[:])
		ow.Bool(5, o.Executed)
		w.Message(5, ow.Done())
	}
	w.Bytes(6, r.Deposit.Bytes())
	return w.Done()
}

// DecodeReceipt reads a receipt.
func DecodeReceipt(b []byte) (receipt Receipt, err error) {
	r := canonical.NewReader(b)
	readOptional(r, 1, "tx_id", receipt.TxID[:])
	receipt.Code = Code(r.Uint32(2, "code"))
	receipt.Failed = r.Uint32(3, "failed")
	receipt.Fee = readAmount(r, 4, "fee")
	r.Repeated(5, "results", MaxOperations, func(_ int, element []byte) error {
		or := canonical.NewReader(element)
		o := OperationResult{Amount: readAmount(or, 1, "amount")}
		readOptional(or, 2, "asset", o.Asset[:])
		readOptional(or, 3, "hold", o.Hold[:])
		readOptional(or, 4, "proposal", o.Proposal[:])
		o.Executed = or.Bool(5, "executed")
		receipt.Results = append(receipt.Results, o)
		return or.Close()
	})
	receipt.Deposit = readAmount(r, 6, "deposit")
	return receipt, r.Close()
}
