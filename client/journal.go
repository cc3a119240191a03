package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

const (
	// journalMemory is how many entries of a journal stay in memory: 10,000 of at most 300 bytes are 3 MB. Longer journals
	// wait in a temporary file.
	journalMemory = 10_000
	// maxEntry bounds an encoded entry: a file that says otherwise is not the one that was written.
	maxEntry = 64 << 10
)

// Mark is a place in a line's journal: the number of entries and the head after them. The zero value is its beginning.
type Mark struct {
	Entries     uint64      `json:"entries"`
	Head        crypto.Hash `json:"head"`
	Incarnation uint64      `json:"incarnation,omitempty"` // of the line: one that was closed and opened again has a new journal
}

// MarkOf returns the place that a proven line's journal has come to.
func MarkOf(l ledger.Line) Mark { return Mark{l.Entries, l.Head, l.Incarnation} }

// Journal is a part of a line's journal, complete and unchanged: its entries fold from the head of one mark to that of
// another. It may be read several times, also at once, until it is closed.
type Journal struct {
	From, To Mark

	first [][]byte // the entries that stay in memory
	rest  *os.File // those after them, each behind its length as 4 bytes; nil: there are none
	name  string   // of rest, while it has one
	size  int64    // of rest, in bytes
	out   *bufio.Writer
}

func (j *Journal) add(encoded []byte) error {
	if len(j.first) < journalMemory {
		j.first = append(j.first, encoded)
		return nil
	}
	if j.rest == nil {
		file, err := os.CreateTemp("", "pacioli-journal-*") // mode 0600
		if err != nil {
			return fmt.Errorf("keeping a long journal: %w", err)
		}
		j.rest, j.name, j.out = file, file.Name(), bufio.NewWriterSize(file, 1<<20)
		// Where an open file can be removed, no crash leaves it behind; else Close removes it.
		if os.Remove(j.name) == nil {
			j.name = ""
		}
	}
	_, err := j.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(encoded))))
	if err == nil {
		_, err = j.out.Write(encoded)
	}
	if err != nil {
		return fmt.Errorf("keeping a long journal: %w", err)
	}
	j.size += 4 + int64(len(encoded))
	return nil
}

// Entries returns the entries in their order. An error ends them: the temporary file could not be read.
func (j *Journal) Entries() iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		for _, encoded := range j.first {
			if e, err := ledger.DecodeEntry(encoded); !yield(e, err) || err != nil {
				return
			}
		}
		if j.rest == nil {
			return
		}
		in := bufio.NewReaderSize(io.NewSectionReader(j.rest, 0, j.size), 1<<20)
		var length [4]byte
		for {
			_, err := io.ReadFull(in, length[:])
			if err == io.EOF {
				return
			}
			var e ledger.Entry
			if n := binary.BigEndian.Uint32(length[:]); err == nil && n > maxEntry {
				err = fmt.Errorf("an entry of %d bytes", n)
			} else if err == nil {
				encoded := make([]byte, n)
				if _, err = io.ReadFull(in, encoded); err == nil {
					e, err = ledger.DecodeEntry(encoded)
				}
			}
			if err != nil {
				yield(ledger.Entry{}, fmt.Errorf("reading the temporary file of a long journal: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Close gives the temporary file back, if there is one.
func (j *Journal) Close() error {
	if j == nil || j.rest == nil {
		return nil
	}
	err := j.rest.Close()
	if j.name != "" {
		err = errors.Join(err, os.Remove(j.name))
	}
	return err
}

// Journal returns the entries of a line behind a mark, up to a proven line: complete and unchanged, for they fold from
// the mark's head to the line's. A mark of another incarnation of the line stands for the beginning. Nothing of what a node says is handed out before. The journal may be of any length; the
// caller closes it. progress, which may be nil, is told after each page how many entries have come; the number begins
// again when the entries of a node do not verify and the next one is asked.
func (c *Client) Journal(ctx context.Context, key ledger.LineKey, from Mark, to ledger.Line,
	progress func(done, total uint64)) (*Journal, error) {
	if from.Incarnation != to.Incarnation {
		from = Mark{Incarnation: to.Incarnation} // the line was closed and opened again since
	}
	if to.Entries < from.Entries {
		return nil, fmt.Errorf("journal from entry %d to %d: want them in this order", from.Entries, to.Entries)
	}
	return ask(ctx, c, fmt.Sprintf("reading journal of %s", key.Account), func(n *node) (_ *Journal, err error) {
		j := &Journal{From: from, To: MarkOf(to)}
		defer func() {
			if err != nil {
				err = errors.Join(err, j.Close())
			}
		}()
		head, next := from.Head, from.Entries+1
		for next <= to.Entries {
			question := query.EntriesData(key, to.Incarnation, next, uint32(min(to.Entries-next+1, query.MaxEntries)))
			answer, err := n.query(ctx, query.PathEntries, question, 0, false)
			if err != nil {
				return nil, err
			}
			page, err := query.DecodeEntries(answer.Value)
			if err != nil || len(page) == 0 {
				return nil, &nodeError{n.name, fmt.Errorf("%w: journal stops before entry %d of %d: %v", proof.ErrInvalid, next, to.Entries, err)}
			}
			for _, encoded := range page {
				e, err := ledger.DecodeEntry(encoded)
				if err == nil && (e.Number != next || next > to.Entries || len(encoded) > maxEntry) {
					err = fmt.Errorf("entry %d of %d bytes is answered", e.Number, len(encoded))
				}
				if err != nil {
					return nil, &nodeError{n.name, fmt.Errorf("%w: journal entry %d of %d: %w", proof.ErrInvalid, next, to.Entries, err)}
				}
				if err := j.add(encoded); err != nil {
					return nil, err
				}
				head, next = ledger.NextHead(head, encoded), next+1
			}
			if progress != nil {
				progress(next-1-from.Entries, to.Entries-from.Entries)
			}
		}
		if head != to.Head {
			return nil, &nodeError{n.name, fmt.Errorf("%w: journal leads to head %s, the line has %s", proof.ErrInvalid, head, to.Head)}
		}
		if j.out != nil {
			if err := j.out.Flush(); err != nil {
				return nil, fmt.Errorf("keeping a long journal: %w", err)
			}
		}
		return j, nil
	})
}
