package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func TestTreeOf(t *testing.T) {
	seen := map[string]int{}
	for i := range 4000 {
		name, ok := TreeOf(binary.BigEndian.AppendUint32([]byte{0x01}, uint32(i)))
		if !ok || !strings.HasPrefix(name, "s") {
			t.Fatalf("key %d goes to %q", i, name)
		}
		seen[name]++
	}
	if len(seen) != 16 {
		t.Fatalf("keys went to %d shards", len(seen))
	}
	for name, n := range seen {
		if n < 150 || n > 350 { // 250 expected, deviation 15
			t.Errorf("shard %s holds %d of 4000 keys", name, n)
		}
	}
	shard := func(key string) string {
		sum := sha256.Sum256([]byte("pacioli.shard.v1\x00" + key))
		return "s" + hex.EncodeToString(sum[:1])[:1]
	}
	for _, c := range []struct {
		key   string
		name  string
		place int
	}{
		{"\x40a", "params", 1}, {"\x4f", "params", 1}, {"\x50", "replay", 2}, {"\x5f", "replay", 2}, {"\x60", "validators", 19}, {"\x6f", "validators", 19},
		{"\x80", "", PlaceBeside}, {"\xff", "", PlaceBeside}, {"", "", PlaceNone}, {"\x00", "", PlaceNone}, {"\x70", "due", 0}, {"\x7f", "due", 0},
		{"\x01", shard("\x01"), slices.Index(treeNames[:], shard("\x01"))}, {"\x3f\xff", shard("\x3f\xff"), slices.Index(treeNames[:], shard("\x3f\xff"))},
	} {
		name, ok := TreeOf([]byte(c.key))
		if place := PlaceOf([]byte(c.key)); name != c.name || ok != (c.name != "") || place != c.place {
			t.Errorf("key %x: %q, %t, place %d; want %q, place %d", c.key, name, ok, place, c.name, c.place)
		}
	}
	if !slices.IsSorted(treeNames[:]) {
		t.Error("the tree names do not ascend")
	}
}
