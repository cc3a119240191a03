package ledger

import "github.com/pacioli-ledger/pacioli/crypto/canonical"

// Reactivate gives the signer's validator back the power that it has lost by missing blocks. Nobody has to agree: it was
// voted in, and its operator alone knows that it is back.
type Reactivate struct {
	Signer uint32 // the operator
}

func (r *Reactivate) Kind() Kind { return KindReactivate }
func (r *Reactivate) By() uint32 { return r.Signer }

func decodeReactivate(r *canonical.Reader) Operation {
	return &Reactivate{Signer: r.Uint32(1, "signer")}
}

func (r *Reactivate) encode(w *canonical.Writer) { w.Uint32(1, r.Signer) }

func (r *Reactivate) validate(*Body) error { return nil }

func (r *Reactivate) apply(x *execution) (OperationResult, Code) {
	set := x.state.setCopy()
	i := operated(set, x.account(r.Signer))
	if i < 0 || !set[i].Inactive() {
		return OperationResult{}, ValidatorNotInactive
	}
	set[i].Power, set[i].InactivePower, set[i].Left = set[i].InactivePower, 0, 0
	return OperationResult{}, x.replaceSet(set)
}
