package ledger

import (
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// The queue of open holds, by the second in which they expire. The ledger cannot search its rows, so each second has a
// count and numbered slots; what leaves a slot is replaced by the last one of its second. All of it is in the tree "due".

// MaxDueSeconds bounds how many seconds one block looks through: after a pause of the chain of a day that takes nine
// blocks.
const MaxDueSeconds = 10_000

// dueTotals is the row over the whole queue.
type dueTotals struct {
	Through uint64 // every hold that expires up to this Unix second is gone
	Open    uint64 // number of open holds
}

type dueSlot struct {
	second uint64
	slot   uint32
}

func (d dueSlot) row() []byte { return dueSlotRow(d.second, d.slot) }

func (t dueTotals) encode() []byte {
	w := writeRow()
	w.Uint64(1, t.Through)
	w.Uint64(2, t.Open)
	return w.Done()
}

func decodeDueTotals(value []byte) (t dueTotals, err error) {
	r := openRow(value)
	t.Through = r.Uint64(1, "through")
	t.Open = r.Uint64(2, "open")
	return t, r.Close()
}

func encodeHash(h crypto.Hash) []byte { return append([]byte{rowVersion}, h[:]...) }

func decodeHash(value []byte) (h crypto.Hash, err error) {
	if len(value) != 1+len(h) || value[0] != rowVersion {
		return h, fmt.Errorf("row of a slot has %d bytes, want %d", len(value), 1+len(h))
	}
	copy(h[:], value[1:])
	return h, nil
}

// enqueue gives a new hold its place; ok is false when its second is full.
func (s *state) enqueue(second uint64, id crypto.Hash, now uint64) (slot uint32, ok bool) {
	count, _ := s.dueCounts.get(second)
	if count >= MaxHoldsPerSecond {
		return 0, false
	}
	s.dueSlots.put(dueSlot{second, count}, id)
	s.dueCounts.put(second, count+1)
	totals, _ := s.due.get(struct{}{})
	if totals.Open == 0 {
		totals.Through = now
	}
	totals.Open++
	s.due.put(struct{}{}, totals)
	return count, true
}

// dequeue takes a hold from its place.
func (s *state) dequeue(second uint64, slot uint32) {
	count, _ := s.dueCounts.get(second)
	last := dueSlot{second, count - 1}
	if last.slot != slot {
		id, _ := s.dueSlots.get(last)
		moved, _ := s.holds.get(id)
		moved.Slot = slot
		s.holds.put(id, moved)
		s.dueSlots.put(dueSlot{second, slot}, id)
	}
	s.dueSlots.remove(last)
	if count == 1 {
		s.dueCounts.remove(second)
	} else {
		s.dueCounts.put(second, count-1)
	}
	totals, _ := s.due.get(struct{}{})
	totals.Open--
	s.due.put(struct{}{}, totals)
}

// expire resolves the holds whose time has come, within the block's limits. What is left over stays as it is: its parties
// can no longer resolve it, and a later block does.
func (b *Block) expire() {
	now, left := b.now(), b.params.MaxExpiries
	totals, _ := b.state.due.get(struct{}{})
	if totals.Open == 0 || now <= totals.Through {
		return
	}
	last := min(now, totals.Through+MaxDueSeconds)
	through := last
	for second := totals.Through + 1; second <= last; second++ {
		count, _ := b.state.dueCounts.get(second)
		for ; count > 0 && left > 0; count, left = count-1, left-1 {
			id, _ := b.state.dueSlots.get(dueSlot{second, count - 1})
			hold, ok := b.state.holds.get(id)
			if b.state.err != nil {
				return // the block is thrown away
			}
			if !ok {
				panic(fmt.Sprintf("block %d: hold %s of second %d, slot %d, is missing", b.header.Height, id, second, count-1))
			}
			kind := EntryExpire
			if hold.PostAtExpiry && b.passable(hold) == OK {
				kind = EntryPost
			}
			b.resolve(id, hold, kind, hold.Amount, cause{})
		}
		if count > 0 {
			through = second - 1
			break
		}
	}
	totals, _ = b.state.due.get(struct{}{})
	totals.Through = through
	b.state.due.put(struct{}{}, totals)
}
