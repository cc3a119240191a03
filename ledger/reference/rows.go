package reference

import (
	"encoding/binary"

	pb "github.com/pacioli-ledger/pacioli/proto/pacioliv1"
)

// Rows returns the whole state, also what stands beside the trees: values by key.
func (l *Ledger) Rows() map[string][]byte {
	rows := map[string][]byte{}
	put := func(value []byte, key ...[]byte) { rows[string(join(key...))] = value }

	for key, a := range l.accounts.rows {
		put(a.row(), []byte{0x01}, key[:])
	}
	for key, n := range l.lines.rows {
		put(n.row(), []byte{0x02}, key.account[:], key.asset[:])
	}
	for key, a := range l.assets.rows {
		put(a.row(), []byte{0x03}, key[:])
	}
	for text, id := range l.codes.rows {
		padded := make([]byte, 12)
		copy(padded, text)
		put(versioned(id[:]), []byte{0x04}, padded)
	}
	for key, h := range l.holdings.rows {
		put(h.row(), []byte{0x05}, key[:])
	}
	for key, h := range l.holds.rows {
		put(h.row(), []byte{0x06}, key[:])
	}
	for key, g := range l.grants.rows {
		put(g.row(), []byte{0x07}, key.granter[:], key.grantee[:], []byte{byte(key.kind)}, key.asset[:])
	}
	t := l.total()
	put(versioned(marshal(l.next())), []byte{0x40})
	put(versioned(marshal(&pb.Network{ChainId: l.chainID, Id: l.networkID[:], InitialHeight: l.initial})), []byte{0x41})
	put(l.Row([]byte{0x42}), []byte{0x42})
	for second, b := range l.buckets.rows {
		put(versioned(marshal(&pb.Bucket{Count: uint32(len(b.entered)), Digest: b.digest[:]})), []byte{0x50}, u64(second))
		for i, n := range b.entered {
			number := u32(uint32(i))
			put(versioned(number), []byte{0x81}, u64(second), n.account[:], n.nonce[:])
			put(versioned(marshal(&pb.NumberedNonce{ValidUntil: second, Account: n.account[:], Nonce: n.nonce[:]})), []byte{0x82}, u64(second), number)
		}
	}
	put(versioned(marshal(&pb.ReplayTotals{PrunedThrough: t.prunedThrough, Open: t.openNonces})), []byte{0x51})
	put(l.set().row(), []byte{0x60})
	for name, m := range l.missed.rows {
		put(m.row(), []byte{0x61}, name[:])
	}
	for id, p := range l.proposals.rows {
		put(p.row(), []byte{0x62}, id[:])
	}
	if order := l.Row([]byte{0x63}); order != nil {
		put(order, []byte{0x63})
	}
	for second, queue := range l.due.rows {
		put(versioned(u32(uint32(len(*queue)))), []byte{0x70}, u64(second))
		for slot, id := range *queue {
			put(versioned(id[:]), []byte{0x71}, u64(second), u32(uint32(slot)))
		}
	}
	if t.everHeld {
		put(versioned(marshal(&pb.DueTotals{Through: t.dueThrough, Open: t.openHolds})), []byte{0x72})
	}
	for key, p := range l.policies.rows {
		put(versioned(p.raw), []byte{0x80}, key[:])
	}
	return rows
}

// Row returns the value of one row of an account, line, asset, hold, grant, of holdings, the fee rate, the parameters or the validators, nil where there is none: what who writes transactions
// wants to know meanwhile.
func (l *Ledger) Row(key []byte) []byte {
	switch rest := key[1:]; key[0] {
	case 0x01:
		if a := l.accounts.get(address(rest)); a != nil {
			return a.row()
		}
	case 0x02:
		if n := l.lines.get(lineKey{address(rest[:32]), assetID(rest[32:])}); n != nil {
			return n.row()
		}
	case 0x03:
		if a := l.assets.get(assetID(rest)); a != nil {
			return a.row()
		}
	case 0x05:
		if h := l.holdings.get(address(rest)); h != nil {
			return h.row()
		}
	case 0x06:
		if h := l.holds.get(hash(rest)); h != nil {
			return h.row()
		}
	case 0x07:
		if g := l.grants.get(grantKey{address(rest[:32]), address(rest[32:64]), uint32(rest[64]), assetID(rest[65:])}); g != nil {
			return g.row()
		}
	case 0x40:
		return versioned(marshal(l.next()))
	case 0x60:
		return l.set().row()
	case 0x61:
		if m := l.missed.get(name20(rest)); m != nil {
			return m.row()
		}
	case 0x62:
		if p := l.proposals.get(hash(rest)); p != nil {
			return p.row()
		}
	case 0x63:
		m := &pb.Proposals{}
		for _, id := range l.inOrder() {
			p := l.proposals.get(id)
			m.Proposals = append(m.Proposals, &pb.ListedProposal{Proposal: id[:], Expires: p.expires, Proposer: p.proposer[:]})
		}
		if len(m.Proposals) > 0 {
			return versioned(marshal(m))
		}
	case 0x42:
		return versioned(marshal(&pb.FeeRate{Multiplier: l.total().multiplier}))
	}
	return nil
}

func versioned(message []byte) []byte { return append([]byte{1}, message...) }

func (a *account) row() []byte {
	m := &pb.Account{Policy: a.policy[:], PolicyVersion: a.policyVersion, Sequence: a.sequence,
		Flags: pick[uint32](a.optIn, 1, 0) | pick[uint32](a.closed, 2, 0), Deposit: a.deposit.amount.bytes(), Depositor: a.deposit.depositor, Epoch: a.epoch,
		ClosedLines: a.closedLines, ClosedHead: optional(a.closedHead)}
	if r := a.recovery; r != nil {
		m.Recovery = &pb.Recovery{Policy: r.policy[:], ReadyAt: r.readyAt}
	}
	return versioned(marshal(m))
}

func (n *line) row() []byte {
	return versioned(marshal(&pb.Line{DebitsPending: n.debitsPending.bytes(), DebitsPosted: n.debitsPosted.bytes(),
		CreditsPending: n.creditsPending.bytes(), CreditsPosted: n.creditsPosted.bytes(), Entries: n.entries, Head: n.head[:], Flags: n.flags,
		Ceiling: n.ceiling.bytes(), Credit: n.credit.bytes(), Cap: n.cap.bytes(), Deposit: n.deposit.amount.bytes(), Depositor: n.deposit.depositor, Incarnation: n.incarnation}))
}

func (a *asset) row() []byte {
	return versioned(marshal(&pb.Asset{Issuer: a.issuer[:], Code: a.code, Scale: a.scale, MaxSupply: a.maxSupply.bytes(),
		MetadataHash: a.metadataHash, Controls: a.controls, Frozen: a.frozen, Credit: a.credit.bytes()}))
}

func (h *holdings) row() []byte {
	return versioned(marshal(&pb.Holdings{Lines: h.lines, Grants: h.grants, Assets: h.assets}))
}

func (h *hold) row() []byte {
	return versioned(marshal(&pb.Hold{From: h.from[:], To: h.to[:], Asset: h.asset[:], Amount: h.amount.bytes(), Reference: h.reference,
		Code: h.code, Expires: h.expires, NotBefore: h.notBefore, Arbiter: h.arbiter, HashLock: h.hashLock, PostBy: h.postBy, VoidBy: h.voidBy,
		PostAtExpiry: h.postAtExpiry, Deposit: h.deposit.amount.bytes(), Depositor: h.deposit.depositor, Slot: h.slot, Bond: h.bond}))
}

func (m *missed) row() []byte {
	return versioned(marshal(&pb.Missed{Window: m.window, Count: m.count}))
}

func (p *proposal) row() []byte {
	m := &pb.Proposal{Proposer: p.proposer[:], Expires: p.expires, Height: p.height, Change: p.change}
	for _, a := range p.approvals {
		m.Approvals = append(m.Approvals, a[:])
	}
	return versioned(marshal(m))
}

func (g *grant) row() []byte {
	return versioned(marshal(&pb.Grant{PerPeriod: g.perPeriod.bytes(), Period: g.period, Total: g.total.bytes(), Until: g.until, To: g.to,
		Begun: g.begun, PeriodNumber: g.periodNumber, SpentInPeriod: g.spentInPeriod.bytes(), Spent: g.spent.bytes(),
		Deposit: g.deposit.amount.bytes(), Depositor: g.deposit.depositor, Epoch: g.epoch}))
}

func optional(h hash) []byte {
	if h == (hash{}) {
		return nil
	}
	return h[:]
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
