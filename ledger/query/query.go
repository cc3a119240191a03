// Package query is the language between a node and who asks it: paths, codes, and the answers that are neither rows of
// the state nor proofs. Both ends import it; it links neither.
//
//	/store/<tree>/key   data: a state key. The row's value; with its two ICS-23 proof operations when a proof is asked for.
//	                    Height 0 means the newest state that a header exists for, or without proof the newest state.
//	/policy             data: hash of a policy. Its bytes; whoever asks checks the hash.
//	/tx                 data: transaction id. A proof.Inclusion; the height is that of the block.
//	/tx/hash            data: SHA-256 of the raw transaction. The same.
//	/account            data: address. An [Account].
//	/entries            data: [EntriesData]. Journal entries: {repeated bytes entries = 1}.
//	/network            the network's row, without proof.
//	/simulate           data: a transaction, whose signatures are taken to be good. A [Simulation].
//	/lines, /grants     data: see [KeyRange]. The keys of an account's lines, of the grants that it has given: {repeated bytes keys = 1}.
//	/search             data: a [Search]. [Hits] of the node's index.
//	/trees              no data. The roots of all trees at a height: proof.EncodeRoots. Height as above, with proof.
//	/tree/<tree>        data: [TreeData]. A proof.Subtree at a height: a node of the tree with all or the top of what is below it.
package query

import (
	"encoding/binary"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// The paths besides StorePath.
const (
	PathPolicy  = "/policy"
	PathTx      = "/tx"
	PathTxHash  = "/tx/hash"
	PathAccount = "/account"
	PathEntries = "/entries"
	PathNetwork = "/network"
	PathTrees   = "/trees"
)

// StorePath returns the path that asks for rows of a tree.
func StorePath(tree string) string { return "/store/" + tree + "/key" }

// TreePath returns the path that asks for nodes of a tree.
func TreePath(tree string) string { return "/tree/" + tree }

// Codes of answers, in the codespace [Codespace]. They are not codes of transactions.
const (
	Codespace = "pacioli.query"

	Malformed uint32 = 1 // the path or the data is not what the path takes
	NotFound  uint32 = 2 // there is no such thing at this height
	NotYet    uint32 = 3 // the height is not committed, or not provable yet: ask again after the next block
	Pruned    uint32 = 4 // the height is no longer kept
	Failed    uint32 = 5 // the node could not answer; its log says why
)

// MaxData bounds the data of a question in bytes, but of /simulate, which takes a whole transaction; the longest is a
// [Search] with 167.
const MaxData = 1 << 10

// maxTreePath bounds the steps of a path down a tree: an AVL tree of 2^44 leaves is at most 64 high.
const maxTreePath = 64

// MaxEntries bounds one answer of /entries: 1,000 entries of at most 300 bytes are 300 kB.
const MaxEntries = 1000

// Account is what a wallet needs to build an account's next transaction. It is one node's word, not proven: a wrong one
// makes a transaction that is refused, never one that does something else.
type Account struct {
	Height        uint64 // of the state
	UnixMillis    uint64 // time of the last block
	Known         bool   // the account has signed before
	Policy        crypto.Hash
	PolicyVersion uint32
	Sequence      uint64 // the last one committed
	NextSequence  uint64 // the next usable one, counting what waits in the node's mempool
}

// Encode writes the answer.
func (a Account) Encode() []byte {
	w := canonical.NewWriter(nil)
	w.Uint64(1, a.Height)
	w.Uint64(2, a.UnixMillis)
	w.Bool(3, a.Known)
	w.Message(4, a.Policy[:])
	w.Uint32(5, a.PolicyVersion)
	w.Uint64(6, a.Sequence)
	w.Uint64(7, a.NextSequence)
	return w.Done()
}

// DecodeAccount reads the answer.
func DecodeAccount(b []byte) (a Account, err error) {
	r := canonical.NewReader(b)
	a.Height = r.Uint64(1, "height")
	a.UnixMillis = r.Uint64(2, "unix_millis")
	a.Known = r.Bool(3, "known")
	r.Fixed(4, "policy", a.Policy[:])
	a.PolicyVersion = r.Uint32(5, "policy_version")
	a.Sequence = r.Uint64(6, "sequence")
	a.NextSequence = r.Uint64(7, "next_sequence")
	return a, r.Close()
}

// EntriesData asks for up to limit entries of a line, in one of its incarnations, from number on.
func EntriesData(line ledger.LineKey, incarnation, from uint64, limit uint32) []byte {
	data := append(append([]byte(nil), line.Account[:]...), line.Asset[:]...)
	data = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(data, incarnation), from)
	return binary.BigEndian.AppendUint32(data, limit)
}

// ParseEntriesData reads what EntriesData wrote; ok is false when it has another length.
func ParseEntriesData(data []byte) (line ledger.LineKey, incarnation, from uint64, limit uint32, ok bool) {
	if len(data) != len(line.Account)+len(line.Asset)+20 {
		return line, 0, 0, 0, false
	}
	rest := data[copy(line.Account[:], data):]
	rest = rest[copy(line.Asset[:], rest):]
	return line, binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[8:]), binary.BigEndian.Uint32(rest[16:]), true
}

// TreeData asks for the node that path leads to from the root of a tree, a 0 for left and a 1 for right, and for what is
// below it: all, if that is at most so many leaves.
func TreeData(path []byte, leaves uint32) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(path)), leaves), path...)
}

// ParseTreeData reads what TreeData wrote; ok is false for no leaves, more than 64 steps, and steps that are neither 0 nor 1.
func ParseTreeData(data []byte) (path []byte, leaves uint32, ok bool) {
	if len(data) < 4 || len(data) > 4+maxTreePath {
		return nil, 0, false
	}
	leaves, path = binary.BigEndian.Uint32(data), data[4:]
	for _, step := range path {
		if step > 1 {
			return nil, 0, false
		}
	}
	return path, leaves, leaves > 0
}

// EncodeEntries writes the answer of /entries.
func EncodeEntries(entries [][]byte) []byte {
	w := canonical.NewWriter(nil)
	for _, e := range entries {
		w.Message(1, e)
	}
	return w.Done()
}

// DecodeEntries reads the answer of /entries: entries still encoded, as a journal's head is folded over them.
func DecodeEntries(b []byte) (entries [][]byte, err error) {
	r := canonical.NewReader(b)
	r.Repeated(1, "entries", MaxEntries, func(_ int, element []byte) error {
		entries = append(entries, element)
		return nil
	})
	return entries, r.Close()
}
