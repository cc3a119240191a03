package client_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
)

// TestNewPayment holds the derivation against the vector of docs/PROTOCOL.md.
func TestNewPayment(t *testing.T) {
	var from crypto.Address
	for i := range from {
		from[i] = byte(i)
	}
	p, err := client.NewPayment(from, "invoice-2026-117")
	if err != nil {
		t.Fatal(err)
	}
	const nonce, reference = "b0359aae615eca6bfcda886e1890ea93", "162555809cfa469cde0bf7ea786193cf"
	if hex.EncodeToString(p.Nonce[:]) != nonce || hex.EncodeToString(p.Reference[:]) != reference {
		t.Errorf("%x %x", p.Nonce, p.Reference)
	}
	sum := sha256.Sum256([]byte("pacioli.payment.v1\x00" + string(from[:]) + "invoice-2026-117"))
	if hex.EncodeToString(sum[:]) != nonce+reference {
		t.Errorf("by hand: %x", sum)
	}
	for id, ok := range map[string]bool{"": false, "x": true, strings.Repeat("x", 256): true, strings.Repeat("x", 257): false, "\xff": false, "Rechnung 7 für Jürgen\n": true} {
		if _, err := client.NewPayment(from, id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestParseReference(t *testing.T) {
	for text, ok := range map[string]bool{"4f5c1d0e7a0e4a519f5e0d7c2a9a1b11": true, "4f5c1d0e-7a0e-4a51-9f5e-0d7c2a9a1b11": true, "": false, "4f5c": false,
		"4f5c1d0e-7a0e4a51-9f5e-0d7c2a9a1b1111": false, strings.Repeat("0", 32): false, strings.Repeat("x", 32): false} {
		id, err := client.ParseReference(text)
		if (err == nil) != ok || ok && hex.EncodeToString(id[:]) != strings.ReplaceAll(text, "-", "") {
			t.Errorf("%q: %x, %v", text, id, err)
		}
	}
}
