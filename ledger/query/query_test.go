package query

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// TestSearchAndBack: every question is read as it was written, and no part of it is one.
func TestSearchAndBack(t *testing.T) {
	for _, s := range []Search{
		{By: ByReference, Reference: ledger.Reference{1}, Limit: 7},
		{By: ByHold, Hold: crypto.Hash{31: 1}, After: []byte{1, 2}},
		{By: ByCode, Account: crypto.Address{5}, Code: 65535, Limit: 1<<32 - 1, After: bytes.Repeat([]byte{9}, MaxCursor)},
	} {
		data := s.Encode()
		got, ok := ParseSearch(data)
		if !ok || got.By != s.By || got.Reference != s.Reference || got.Hold != s.Hold || got.Account != s.Account || got.Code != s.Code ||
			got.Limit != s.Limit || !bytes.Equal(got.After, s.After) {
			t.Errorf("%+v is read as %+v, %t", s, got, ok)
		}
		if len(data) > MaxData {
			t.Errorf("%d bytes", len(data))
		}
		for n := range len(s.Key()) + 4 {
			if got, ok := ParseSearch(data[:n]); ok {
				t.Errorf("the first %d bytes of %+v are read as %+v", n, s, got)
			}
		}
	}
}

// TestKeyRange: a list has all rows of one account and no other's, from the last answer on.
func TestKeyRange(t *testing.T) {
	full := bytes.Repeat([]byte{0xff}, 32)
	accounts := []crypto.Address{{}, {31: 1}, {31: 2}, crypto.Address(full)}
	var keys [][]byte
	for _, a := range accounts {
		for _, id := range []ledger.AssetID{{}, {1}, ledger.AssetID(full[:16])} {
			keys = append(keys, ledger.LineRow(ledger.LineKey{Account: a, Asset: id}))
		}
	}
	for i, a := range accounts {
		own := keys[3*i : 3*i+3]
		for after := range 4 {
			data := a[:]
			if after > 0 {
				data = own[after-1][1:]
			}
			start, end, ok := KeyRange(PathLines, data)
			if !ok {
				t.Fatalf("%x is no question", data)
			}
			var in [][]byte
			for _, k := range keys {
				if bytes.Compare(k, start) >= 0 && bytes.Compare(k, end) < 0 {
					in = append(in, k)
				}
			}
			if !slices.EqualFunc(in, own[after:], bytes.Equal) {
				t.Errorf("account %d after %d: %x", i, after, in)
			}
			if list, err := DecodeLines(EncodeKeys(in), a); err != nil || len(list) != len(in) {
				t.Errorf("%v, %v", list, err)
			}
		}
	}
	for _, n := range []int{0, 31, 33, 47, 49, 81, 100} {
		if _, _, ok := KeyRange(PathLines, make([]byte, n)); ok {
			t.Errorf("%d bytes are a question for lines", n)
		}
	}
	if _, _, ok := KeyRange(PathGrants, make([]byte, 81)); !ok {
		t.Error("the end of a list of grants is no question for the next page")
	}
	if _, _, ok := KeyRange(PathTx, make([]byte, 32)); ok {
		t.Error("another path is taken")
	}
	grant := ledger.GrantKey{Granter: accounts[1], Grantee: accounts[3], Kind: ledger.KindTransfer, Asset: ledger.AssetID{7}}
	list, err := DecodeGrants(EncodeKeys([][]byte{ledger.GrantRow(grant)}), accounts[1])
	if err != nil || len(list) != 1 || list[0] != grant {
		t.Errorf("%+v, %v", list, err)
	}
	for name, bad := range map[string][][]byte{"another's": {ledger.GrantRow(grant), keys[0]}, "twice": {ledger.GrantRow(grant), ledger.GrantRow(grant)},
		"short": {ledger.GrantRow(grant)[:80]}} {
		if _, err := DecodeGrants(EncodeKeys(bad), accounts[1]); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}
