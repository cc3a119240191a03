package reference

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// Rows returns the whole state, also what stands beside the trees: values by key.
func (l *Ledger) Rows() map[string][]byte {
	rows := map[string][]byte{}
	put := func(value []byte, key ...[]byte) {
		var k []byte
		for _, part := range key {
			k = append(k, part...)
		}
		rows[string(k)] = append([]byte{1}, value...)
	}
	row := func(m proto.Message, key ...[]byte) { put(marshal(m), key...) }

	for key, a := range l.accounts.rows {
		m := &pb.Account{Policy: a.policy[:], PolicyVersion: a.policyVersion, Sequence: a.sequence,
			Flags: pick[uint32](a.optIn, 1, 0) | pick[uint32](a.closed, 2, 0), Deposit: a.deposit.bytes(), Epoch: a.epoch,
			ClosedLines: a.closedLines, ClosedHead: optional(a.closedHead)}
		if r := a.recovery; r != nil {
			m.Recovery = &pb.Recovery{Policy: r.policy[:], ReadyAt: r.readyAt}
		}
		row(m, []byte{0x01}, key[:])
	}
	for key, n := range l.lines.rows {
		row(&pb.Line{DebitsPending: n.debitsPending.bytes(), DebitsPosted: n.debitsPosted.bytes(), CreditsPending: n.creditsPending.bytes(),
			CreditsPosted: n.creditsPosted.bytes(), Entries: n.entries, Head: n.head[:], Flags: n.flags, Ceiling: n.ceiling.bytes(),
			Credit: n.credit.bytes(), Cap: n.cap.bytes(), Deposit: n.deposit.bytes(), Incarnation: n.incarnation},
			[]byte{0x02}, key.account[:], key.asset[:])
	}
	for key, a := range l.assets.rows {
		row(&pb.Asset{Issuer: a.issuer[:], Code: a.code, Scale: a.scale, MaxSupply: a.maxSupply.bytes(), MetadataHash: a.metadataHash,
			Controls: a.controls, Frozen: a.frozen, Credit: a.credit.bytes()}, []byte{0x03}, key[:])
	}
	for text, id := range l.codes.rows {
		padded := make([]byte, 12)
		copy(padded, text)
		put(id[:], []byte{0x04}, padded)
	}
	for key, h := range l.holdings.rows {
		row(&pb.Holdings{Lines: h.lines, Grants: h.grants, Assets: h.assets}, []byte{0x05}, key[:])
	}
	for key, h := range l.holds.rows {
		row(&pb.Hold{From: h.from[:], To: h.to[:], Asset: h.asset[:], Amount: h.amount.bytes(), Reference: h.reference, Code: h.code,
			Expires: h.expires, NotBefore: h.notBefore, Arbiter: h.arbiter, HashLock: h.hashLock, PostBy: h.postBy, VoidBy: h.voidBy,
			PostAtExpiry: h.postAtExpiry, Deposit: h.deposit.bytes(), Slot: h.slot}, []byte{0x06}, key[:])
	}
	for key, g := range l.grants.rows {
		row(&pb.Grant{PerPeriod: g.perPeriod.bytes(), Period: g.period, Total: g.total.bytes(), Until: g.until, To: g.to, Begun: g.begun,
			PeriodNumber: g.periodNumber, SpentInPeriod: g.spentInPeriod.bytes(), Spent: g.spent.bytes(), Deposit: g.deposit.bytes(),
			Epoch: g.epoch}, []byte{0x07}, key.granter[:], key.grantee[:], []byte{byte(key.kind)}, key.asset[:])
	}
	t := l.total()
	row(l.params, []byte{0x40})
	row(&pb.Network{ChainId: l.chainID, Id: l.networkID[:], InitialHeight: l.initial}, []byte{0x41})
	row(&pb.FeeRate{Multiplier: t.multiplier}, []byte{0x42})
	for second, b := range l.buckets.rows {
		row(&pb.Bucket{Count: uint32(len(b.entered)), Digest: b.digest[:]}, []byte{0x50}, u64(second))
		for number, n := range b.entered {
			put(u32(uint32(number)), []byte{0x81}, u64(second), n.account[:], n.nonce[:])
			row(&pb.NumberedNonce{ValidUntil: second, Account: n.account[:], Nonce: n.nonce[:]}, []byte{0x82}, u64(second), u32(uint32(number)))
		}
	}
	row(&pb.ReplayTotals{PrunedThrough: t.prunedThrough, Open: t.openNonces}, []byte{0x51})
	row(&pb.ValidatorSet{Validators: l.validators}, []byte{0x60})
	for second, queue := range l.due.rows {
		put(u32(uint32(len(*queue))), []byte{0x70}, u64(second))
		for slot, id := range *queue {
			put(id[:], []byte{0x71}, u64(second), u32(uint32(slot)))
		}
	}
	if t.everHeld {
		row(&pb.DueTotals{Through: t.dueThrough, Open: t.openHolds}, []byte{0x72})
	}
	for key, p := range l.policies.rows {
		put(p.raw, []byte{0x80}, key[:])
	}
	return rows
}

func optional(h hash) []byte {
	if h == (hash{}) {
		return nil
	}
	return h[:]
}
