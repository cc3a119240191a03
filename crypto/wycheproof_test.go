package crypto

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/big"
	"slices"
	"testing"

	"filippo.io/mldsa"
	"github.com/c2sp/wycheproof"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Vectors of project Wycheproof (C2SP), which its Go module embeds; go.mod pins their version.

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

type wycheproofCase struct {
	ID        int      `json:"tcId"`
	Comment   string   `json:"comment"`
	Message   hexBytes `json:"msg"`
	Context   hexBytes `json:"ctx"`
	Signature hexBytes `json:"sig"`
	Mu        hexBytes `json:"mu"`
	Random    hexBytes `json:"rnd"`
	Result    string   `json:"result"`
}

type wycheproofGroup struct {
	PublicKey json.RawMessage  `json:"publicKey"`
	Seed      hexBytes         `json:"privateSeed"`
	Tests     []wycheproofCase `json:"tests"`
}

func wycheproofGroups(t *testing.T, file string) []wycheproofGroup {
	t.Helper()
	content, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Count  int               `json:"numberOfTests"`
		Groups []wycheproofGroup `json:"testGroups"`
	}
	if err := json.Unmarshal(content, &parsed); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range parsed.Groups {
		count += len(g.Tests)
	}
	if count == 0 || count != parsed.Count {
		t.Fatalf("%s: read %d cases of %d", file, count, parsed.Count)
	}
	return parsed.Groups
}

func unmarshal[T any](t *testing.T, raw json.RawMessage) (v T) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// zip215Accepts lists the ed25519 cases that Wycheproof calls invalid and ZIP-215 accepts, because the cofactored
// equation holds. It is empty: the file has no case with parts of small order (ours are in edgeCases), so everything it
// calls invalid must fail here too.
var zip215Accepts []int

func TestWycheproofEd25519(t *testing.T) {
	for _, g := range wycheproofGroups(t, "ed25519_test.json") {
		public := unmarshal[struct{ PK hexBytes }](t, g.PublicKey).PK
		checks := make([]Check, len(g.Tests))
		for i, c := range g.Tests {
			checks[i] = Check{Scheme: Ed25519, PublicKey: public, Message: c.Message, Signature: c.Signature}
		}
		batch := VerifyAll(checks)
		for i, c := range g.Tests {
			want := c.Result == "valid" || slices.Contains(zip215Accepts, c.ID)
			if single := checks[i].Verify(); single != want || batch[i] != want {
				t.Errorf("case %d (%s): single %t, batch %t, want %t", c.ID, c.Comment, single, batch[i], want)
			}
		}
	}
}

func TestWycheproofSecp256k1(t *testing.T) {
	highS := 0
	for _, g := range wycheproofGroups(t, "ecdsa_secp256k1_sha256_p1363_test.json") {
		public, err := secp256k1.ParsePubKey(unmarshal[struct{ Uncompressed hexBytes }](t, g.PublicKey).Uncompressed)
		if err != nil {
			t.Fatal(err)
		}
		key := public.SerializeCompressed()
		for _, c := range g.Tests {
			want := c.Result == "valid"
			if want {
				// The one difference: ECDSA takes s and n-s, we take the lower. Its twin must then verify.
				var s secp256k1.ModNScalar
				s.SetByteSlice(c.Signature[32:])
				if s.IsOverHalfOrder() {
					highS++
					if (Check{Scheme: Secp256k1, PublicKey: key, Message: c.Message, Signature: c.Signature}).Verify() {
						t.Errorf("case %d: high s accepted", c.ID)
					}
					s.Negate()
					s.PutBytesUnchecked(c.Signature[32:])
				}
			}
			if got := (Check{Scheme: Secp256k1, PublicKey: key, Message: c.Message, Signature: c.Signature}).Verify(); got != want {
				t.Errorf("case %d (%s): %t, want %t", c.ID, c.Comment, got, want)
			}
		}
	}
	if highS == 0 {
		t.Error("no case with high s: the rule was not tried")
	}
}

// The signature inside an assertion, in the form of the ledger and in DER as authenticators give it.
func TestWycheproofP256(t *testing.T) {
	highS, cases := 0, 0
	for _, file := range []string{"ecdsa_secp256r1_sha256_p1363_test.json", "ecdsa_secp256r1_sha256_test.json"} {
		for _, g := range wycheproofGroups(t, file) {
			key := compressP256(unmarshal[struct{ Uncompressed hexBytes }](t, g.PublicKey).Uncompressed)
			for _, c := range g.Tests {
				cases++
				digest := sha256.Sum256(c.Message)
				if file == "ecdsa_secp256r1_sha256_test.json" {
					pair, err := lowerForm(c.Signature)
					if got, want := err == nil && verifyP256(key, digest, pair), c.Result == "valid"; got != want {
						t.Errorf("DER case %d (%s): %t, want %t", c.ID, c.Comment, got, want)
					}
					continue
				}
				if len(c.Signature) != 64 {
					if c.Result == "valid" {
						t.Errorf("case %d (%s) is valid with %d bytes", c.ID, c.Comment, len(c.Signature))
					}
					continue
				}
				pair, want := [64]byte(c.Signature), c.Result == "valid"
				if s := new(big.Int).SetBytes(pair[32:]); want && s.Cmp(p256HalfOrder) > 0 {
					highS++
					if verifyP256(key, digest, pair) {
						t.Errorf("case %d: high s accepted", c.ID)
					}
					s.Sub(elliptic.P256().Params().N, s).FillBytes(pair[32:])
				}
				if got := verifyP256(key, digest, pair); got != want {
					t.Errorf("case %d (%s): %t, want %t", c.ID, c.Comment, got, want)
				}
			}
		}
	}
	if highS == 0 || cases < 700 {
		t.Errorf("%d cases, %d with high s: the rules were hardly tried", cases, highS)
	}
}

func oracleParameters(s Scheme) mldsa.Parameters {
	if s == MLDSA44 {
		return mldsa.MLDSA44()
	}
	return mldsa.MLDSA65()
}

// oracleVerifies is filippo.io/mldsa, which shares no code with circl.
func oracleVerifies(c Check) bool {
	public, err := mldsa.NewPublicKey(oracleParameters(c.Scheme), c.PublicKey)
	return err == nil && mldsa.Verify(public, c.Message, c.Signature, nil) == nil
}

func TestWycheproofMLDSA(t *testing.T) {
	for scheme, file := range map[Scheme]string{MLDSA44: "mldsa_44_verify_test.json", MLDSA65: "mldsa_65_verify_test.json"} {
		for _, g := range wycheproofGroups(t, file) {
			public := unmarshal[hexBytes](t, g.PublicKey)
			for _, c := range g.Tests {
				// Signatures under a context are valid, but not ours: our context is empty.
				want := c.Result == "valid" && len(c.Context) == 0
				check := Check{Scheme: scheme, PublicKey: public, Message: c.Message, Signature: c.Signature}
				if got, oracle := check.Verify(), oracleVerifies(check); got != want || oracle != want {
					t.Errorf("%s case %d (%s): %t, oracle %t, want %t", scheme, c.ID, c.Comment, got, oracle, want)
				}
			}
		}
	}
}

func TestWycheproofMLDSASigning(t *testing.T) {
	for scheme, file := range map[Scheme]string{
		MLDSA44: "mldsa_44_sign_seed_test.json", MLDSA65: "mldsa_65_sign_seed_test.json",
	} {
		signed := 0
		for _, g := range wycheproofGroups(t, file) {
			key, err := NewPrivateKey(scheme, g.Seed)
			if len(g.Seed) != SeedSize {
				if err == nil {
					t.Errorf("%s: a seed of %d bytes makes a key", scheme, len(g.Seed))
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range g.Tests {
				// Left out: failures of inputs that Sign does not have (context), and cases given by mu alone.
				if c.Result != "valid" || len(c.Context) != 0 || len(c.Random) != 0 || len(c.Mu) != 0 && c.Message == nil {
					continue
				}
				signed++
				if got, err := key.Sign(c.Message); err != nil || !slices.Equal(got, c.Signature) {
					t.Errorf("%s case %d (%s): another signature, error %v", scheme, c.ID, c.Comment, err)
				}
			}
		}
		if signed < 50 {
			t.Errorf("%s: only %d cases signed", scheme, signed)
		}
	}
}
