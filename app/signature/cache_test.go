package signature

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// authorization makes one with a good signature of each scheme named; spoil makes the last one bad.
func authorization(t testing.TB, n int, spoil bool, schemes ...crypto.Scheme) ledger.Authorization {
	t.Helper()
	a := ledger.Authorization{Fingerprint: sha256.Sum256(fmt.Appendf(nil, "%d %v %v", n, spoil, schemes))}
	for i, s := range schemes {
		seed := sha256.Sum256(fmt.Appendf(nil, "seed %d %d", n%50, i))
		key, err := crypto.NewPrivateKey(s, seed[:])
		if err != nil {
			t.Fatal(err)
		}
		message := fmt.Appendf(nil, "message %d", n)
		signed, err := key.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		if spoil && i == len(schemes)-1 {
			message = append(message, 0)
		}
		a.Checks = append(a.Checks, crypto.Check{Scheme: s, PublicKey: key.Public(), Message: message, Signature: signed})
	}
	return a
}

func TestVerifyOnce(t *testing.T) {
	c := NewCache(100)
	a := authorization(t, 1, false, crypto.Ed25519, crypto.Secp256k1)
	for range 3 {
		if !c.Verify(a) {
			t.Fatal("good signatures do not verify")
		}
	}
	if got, want := c.Counters(), (Counters{Hits: 2, Misses: 1, Verified: 2}); got != want {
		t.Errorf("counters are %+v, want %+v", got, want)
	}
	bad := authorization(t, 2, true, crypto.Ed25519)
	for range 2 {
		if c.Verify(bad) {
			t.Fatal("a bad signature verifies")
		}
	}
	if got, want := c.Counters(), (Counters{Hits: 2, Misses: 3, Verified: 4}); got != want {
		t.Errorf("after bad ones counters are %+v, want %+v: a bad verdict is not remembered", got, want)
	}
}

func TestVerifyManyAgreesWithDirect(t *testing.T) {
	var auths []ledger.Authorization
	for n := range 300 {
		schemes := []crypto.Scheme{crypto.Ed25519}
		switch n % 7 {
		case 3:
			schemes = []crypto.Scheme{crypto.Ed25519, crypto.MLDSA44}
		case 5:
			schemes = []crypto.Scheme{crypto.Secp256k1, crypto.Ed25519}
		}
		auths = append(auths, authorization(t, n, n%11 == 4, schemes...))
	}
	auths = append(auths, auths[0], auths[4], ledger.Authorization{Fingerprint: sha256.Sum256(nil)})
	for _, workers := range []int{0, 1, 2, 5} {
		c := NewCache(1000)
		for round := range 2 {
			good := c.VerifyMany(auths, workers)
			for i, a := range auths {
				if want := (ledger.Direct{}).Verify(a); good[i] != want {
					t.Fatalf("%d workers, round %d: verdict %d is %v, Direct says %v", workers, round, i, good[i], want)
				}
				if round == 1 && good[i] != c.Verify(a) {
					t.Fatalf("Verify and VerifyMany differ on %d", i)
				}
			}
		}
	}
}

// TestAForgedPayerIsFoundOutFirst: a payer's bad signature costs its transaction one verification, alone and among others.
func TestAForgedPayerIsFoundOutFirst(t *testing.T) {
	many := make([]crypto.Scheme, 200)
	for i := range many {
		many[i] = crypto.Ed25519
	}
	forged := authorization(t, 1, true, crypto.Ed25519)
	for _, payer := range []int{0, 1, 150} {
		a := authorization(t, 2, false, many...)
		a.Fingerprint[1]++
		a.Checks[0], a.Payer = forged.Checks[0], payer
		late := authorization(t, 3, false, many...) // the payer's second one is bad
		late.Checks[1], late.Payer = forged.Checks[0], 2
		early := authorization(t, 4, false, many...) // behind the payer's: one chunk of 64 goes, not all
		early.Checks[1], early.Payer = forged.Checks[0], 1
		good := authorization(t, 5, false, crypto.Ed25519, crypto.Ed25519)
		c := NewCache(100)
		if c.Verify(a) || c.Counters().Verified != 1 {
			t.Errorf("payer of %d: %+v, want a bad verdict by one verification", payer, c.Counters())
		}
		c = NewCache(100)
		if got := fmt.Sprint(c.VerifyMany([]ledger.Authorization{a, good, late}, 2)); got != "[false true false]" || c.Counters().Verified != 1+2+2 {
			t.Errorf("payer of %d: %s with %+v, want one verification of the first, two of each other", payer, got, c.Counters())
		}
		c = NewCache(100)
		if c.Verify(early) || c.Counters().Verified != 1+chunk {
			t.Errorf("%+v, want an end behind the first chunk", c.Counters())
		}
	}
}

func TestOldestGoes(t *testing.T) {
	c := NewCache(32) // two a shard
	var prints []crypto.Hash
	for n := range 5 {
		prints = append(prints, crypto.Hash{7, byte(n)})
		c.remember(prints[n])
		c.remember(prints[n]) // twice is once
	}
	for n, want := range []bool{false, false, false, true, true} {
		if c.knows(prints[n]) != want {
			t.Errorf("number %d of 5 is known: %v, want %v", n, !want, want)
		}
	}
	if s := c.shard(prints[0]); len(s.known) != 2 || len(s.ring) != 2 {
		t.Errorf("a shard for 2 holds %d in its map and %d in its ring", len(s.known), len(s.ring))
	}
}

func TestPanicIsABadSignature(t *testing.T) {
	hostile := authorization(t, 1, false, crypto.Ed25519)
	poison := string(hostile.Checks[0].Message)
	verifyAll = func(checks []crypto.Check) []bool {
		for _, c := range checks {
			if string(c.Message) == poison {
				panic("hostile bytes")
			}
		}
		return crypto.VerifyAll(checks)
	}
	defer func() { verifyAll = crypto.VerifyAll }()
	c := NewCache(100)
	auths := []ledger.Authorization{authorization(t, 2, false, crypto.Ed25519), hostile, authorization(t, 3, false, crypto.Ed25519)}
	for range 2 {
		if got := fmt.Sprint(c.VerifyMany(auths, 2)); got != "[true false true]" {
			t.Errorf("verdicts are %s, want the hostile one alone to be bad", got)
		}
	}
	if c.Verify(hostile) {
		t.Error("a signature whose verification panics is good")
	}
}

func TestConcurrently(t *testing.T) {
	c := NewCache(64)
	var auths []ledger.Authorization
	for n := range 100 {
		auths = append(auths, authorization(t, n, n%5 == 0, crypto.Ed25519))
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range auths {
				i = (i + 25*g) % len(auths)
				if c.Verify(auths[i]) != (i%5 != 0) {
					t.Errorf("verdict %d is wrong", i)
				}
			}
			for i, good := range c.VerifyMany(auths, 3) {
				if good != (i%5 != 0) {
					t.Errorf("verdict %d of many is wrong", i)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkVerifyMany(b *testing.B) {
	var auths []ledger.Authorization
	for n := range 1024 {
		auths = append(auths, authorization(b, n, false, crypto.Ed25519))
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				NewCache(len(auths)).VerifyMany(auths, workers)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(auths)), "us/signature")
		})
	}
	b.Run("single", func(b *testing.B) {
		for b.Loop() {
			c := NewCache(len(auths))
			for _, a := range auths {
				c.Verify(a)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(auths)), "us/signature")
	})
	b.Run("remembered", func(b *testing.B) {
		c := NewCache(len(auths))
		c.VerifyMany(auths, 1)
		for b.Loop() {
			c.Verify(auths[0])
		}
	})
}
