package crypto

import (
	"bytes"
	digests "crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// webAuthnRules is ECDSA on P-256 as passkeys and security keys do it: what is signed is not the message but a WebAuthn
// assertion whose challenge is the message's hash. The form is docs/decisions/0010-webauthn.md and "Schemes" of
// docs/PROTOCOL.md.
//
// The client data is JSON, and no parser reads it: parsers differ, and the network would fork where they do. WebAuthn
// Level 2, 5.8.1.1, fixes how browsers write its beginning, so we compare bytes.
type webAuthnRules struct{}

const (
	p256PointSize   = 33 // compressed: 2 or 3, then x
	webAuthnKeySize = p256PointSize + sha256.Size

	minAuthenticatorData = 32 + 1 + 4 // hash of the relying party's id, flags, counter; extensions may follow
	maxAuthenticatorData = 512
	maxClientData        = 1024

	// The person was there, and gave a PIN or a finger. Without the second, whoever finds a security key has the account.
	userPresent, userVerified = 1 << 0, 1 << 2

	clientDataType   = `{"type":"webauthn.get","challenge":"`
	clientDataOrigin = `","origin":"`
	crossOrigin      = `,"crossOrigin":true`

	challengeSize = 43 // 32 bytes in base64url without padding
)

// KeystoreRelyingParty is the relying party of the P256WebAuthn keys that PrivateKey holds, which act as their own
// authenticator. The name ends in a domain that can never have a website (RFC 6761), so no page can ask for such a
// signature, and an account whose keys are files says so.
const KeystoreRelyingParty = "keystore.pacioli.invalid"

const keystoreClientDataEnd = `https://` + KeystoreRelyingParty + `","crossOrigin":false}`

// WebAuthnChallenge returns the challenge of an assertion that signs a message: what a wallet hands to
// navigator.credentials.get, with userVerification "required".
func WebAuthnChallenge(message []byte) [32]byte { return sha256.Sum256(message) }

// WebAuthnPublicKey makes the 65-byte public key that stands in a policy from a relying party's id, as "wallet.example",
// and the credential's point in either SEC1 form: 33 bytes, or 65 bytes, which are the last of what a browser's
// getPublicKey returns.
func WebAuthnPublicKey(relyingParty string, point []byte) ([]byte, error) {
	if relyingParty == "" || len(relyingParty) > 253 {
		return nil, fmt.Errorf("relying party id of %d characters, want 1 to 253", len(relyingParty))
	}
	for _, c := range []byte(relyingParty) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return nil, fmt.Errorf("relying party id %q: want a host name in lower case, without scheme and port", relyingParty)
		}
	}
	if len(point) == 65 {
		if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
			return nil, errors.New("P-256 public key is not an uncompressed point on the curve")
		}
		point = compressP256(point)
	}
	if len(point) != p256PointSize {
		return nil, fmt.Errorf("P-256 public key has %d bytes, want %d or 65", len(point), p256PointSize)
	}
	id := sha256.Sum256([]byte(relyingParty))
	key := append(bytes.Clone(point), id[:]...)
	if err := CheckPublicKey(P256WebAuthn, key); err != nil {
		return nil, err
	}
	return key, nil
}

// WebAuthnSignature makes the signature of the ledger from what a browser returns for an assertion: authenticatorData,
// clientDataJSON and the DER signature, which half of the time has the high s that the ledger refuses. The error says
// what the ledger would refuse whatever the key and the message; Check.Verify tells about those.
func WebAuthnSignature(authenticatorData, clientDataJSON, derSignature []byte) ([]byte, error) {
	a := assertion{authenticatorData: authenticatorData, clientData: clientDataJSON}
	if err := a.check(); err != nil {
		return nil, err
	}
	var err error
	if a.signature, err = lowerForm(derSignature); err != nil {
		return nil, err
	}
	return a.encode(), nil
}

// assertion is the content of a signature.
type assertion struct {
	authenticatorData []byte
	clientData        []byte
	signature         [64]byte // r||s
}

// encode returns the canonical bytes, which decodeAssertion reads:
//
//	Assertion { bytes authenticator_data = 1; bytes client_data = 2; bytes signature = 3; }
func (a *assertion) encode() []byte {
	w := canonical.NewWriter(nil)
	w.Bytes(1, a.authenticatorData)
	w.Bytes(2, a.clientData)
	w.Bytes(3, a.signature[:])
	return w.Done()
}

// decodeAssertion keeps parts of b.
func decodeAssertion(b []byte) (a assertion, err error) {
	r := canonical.NewReader(b)
	a.authenticatorData = r.Bytes(1, "authenticator_data", maxAuthenticatorData)
	a.clientData = r.Bytes(2, "client_data", maxClientData)
	r.Fixed(3, "signature", a.signature[:])
	return a, r.Close()
}

// check is what an assertion must be whatever the key and the message.
func (a *assertion) check() error {
	if n := len(a.authenticatorData); n < minAuthenticatorData || n > maxAuthenticatorData {
		return fmt.Errorf("authenticator data has %d bytes, want %d to %d", n, minAuthenticatorData, maxAuthenticatorData)
	}
	if flags := a.authenticatorData[32]; flags&userPresent == 0 || flags&userVerified == 0 {
		return errors.New("the authenticator did not verify its user: ask for userVerification \"required\"")
	}
	if len(a.clientData) > maxClientData {
		return fmt.Errorf("client data has %d bytes, at most %d", len(a.clientData), maxClientData)
	}
	rest, ok := bytes.CutPrefix(a.clientData, []byte(clientDataType))
	if ok && len(rest) >= challengeSize {
		rest, ok = bytes.CutPrefix(rest[challengeSize:], []byte(clientDataOrigin))
	} else {
		ok = false
	}
	if !ok {
		return fmt.Errorf("client data does not begin with %s, %d characters and %s", clientDataType, challengeSize, clientDataOrigin)
	}
	// An origin holds no quote and no backslash, so the next quote ends it. Behind it, browsers that know crossOrigin write
	// it first: a page of the relying party within a page of somebody else's may not collect signatures by stolen clicks.
	end := bytes.IndexByte(rest, '"')
	if end < 1 || bytes.IndexByte(rest[:end], '\\') >= 0 {
		return errors.New("client data has no origin that ends in a quote")
	}
	switch rest = rest[end+1:]; {
	case bytes.HasPrefix(rest, []byte(crossOrigin)):
		return errors.New("the assertion was asked for by a page within another site's page (crossOrigin)")
	case string(rest) == "}", bytes.HasPrefix(rest, []byte{','}):
		return nil
	default:
		return errors.New("client data goes on behind the origin with neither a comma nor the end")
	}
}

// challenge returns the 43 characters of a checked assertion.
func (a *assertion) challenge() []byte { return a.clientData[len(clientDataType):][:challengeSize] }

func (webAuthnRules) name() string          { return "p256-webauthn" }
func (webAuthnRules) publicKeySize() int    { return webAuthnKeySize }
func (webAuthnRules) maxSignatureSize() int { return maxAssertionSize }
func (webAuthnRules) cost() uint64          { return 30 }

// maxAssertionSize is the longest encoding: 1 byte of tag and 2 of length for each of the data, 1 and 1 for the pair.
const maxAssertionSize = (1 + 2 + maxAuthenticatorData) + (1 + 2 + maxClientData) + (1 + 1 + 64)

// signatureSize is that of the assertions of newKey, whose parts all have constant lengths.
func (webAuthnRules) signatureSize() int {
	return (1 + 1 + minAuthenticatorData) + (1 + 2 + len(clientDataType) + challengeSize + len(clientDataOrigin) + len(keystoreClientDataEnd)) +
		(1 + 1 + 64)
}

// checkPublicKey asks of the point a first byte of 2 or 3, and x below the field prime and on the curve. The group has
// prime order, so every such point is a key. The hash behind it may be any: whose it is cannot be told from it.
func (webAuthnRules) checkPublicKey(key []byte) error {
	if _, err := parseP256(key[:p256PointSize]); err != nil {
		return errors.New("does not begin with a compressed point on the curve")
	}
	return nil
}

func (webAuthnRules) verify(key, message, signature []byte) bool {
	a, err := decodeAssertion(signature)
	if err != nil || a.check() != nil || !bytes.Equal(a.authenticatorData[:32], key[p256PointSize:]) {
		return false
	}
	challenge := WebAuthnChallenge(message)
	if string(a.challenge()) != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		return false
	}
	return verifyP256(key[:p256PointSize], a.digest(), a.signature)
}

// digest is what the authenticator signed.
func (a *assertion) digest() [32]byte {
	h := sha256.New()
	h.Write(a.authenticatorData)
	clientDataHash := sha256.Sum256(a.clientData)
	h.Write(clientDataHash[:])
	return [32]byte(h.Sum(nil))
}

// newKey makes a software authenticator: it always verifies its user, who gave the passphrase of the key file, and always
// counts 0, as authenticators without a counter do.
func (webAuthnRules) newKey(seed *[SeedSize]byte) ([]byte, func([]byte) []byte, error) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		return nil, nil, errors.New("is not from 1 to n-1")
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		panic("encode a P-256 public key: " + err.Error()) // errs only on keys that were put together by hand
	}
	public, err := WebAuthnPublicKey(KeystoreRelyingParty, point)
	if err != nil {
		panic("encode a WebAuthn public key: " + err.Error()) // both parts are our own
	}
	authenticatorData := make([]byte, minAuthenticatorData)
	copy(authenticatorData, public[p256PointSize:])
	authenticatorData[32] = userPresent | userVerified
	return public, func(message []byte) []byte {
		challenge := WebAuthnChallenge(message)
		a := assertion{
			authenticatorData: authenticatorData,
			clientData:        []byte(clientDataType + base64.RawURLEncoding.EncodeToString(challenge[:]) + clientDataOrigin + keystoreClientDataEnd),
		}
		digest := a.digest()
		der, err := private.Sign(nil, digest[:], digests.SHA256) // no randomness: RFC 6979
		if err != nil {
			panic("sign by RFC 6979: " + err.Error()) // errs only on another curve or hash
		}
		signature, err := WebAuthnSignature(a.authenticatorData, a.clientData, der)
		if err != nil {
			panic("wrap an assertion: " + err.Error()) // all parts are our own
		}
		return signature
	}, nil
}

// p256HalfOrder is (n-1)/2, the highest s.
var p256HalfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// parseP256 reads a compressed point: first byte 2 or 3, x below the prime and on the curve.
func parseP256(point []byte) (*ecdsa.PublicKey, error) {
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), point)
	if x == nil {
		return nil, errors.New("not a compressed point on the curve")
	}
	uncompressed := make([]byte, 65)
	uncompressed[0] = 4
	x.FillBytes(uncompressed[1:33])
	y.FillBytes(uncompressed[33:])
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
}

// compressP256 is for a point that was checked.
func compressP256(uncompressed []byte) []byte {
	return append([]byte{2 | uncompressed[64]&1}, uncompressed[1:33]...)
}

// lowerForm reads a DER signature and returns r||s with the lower s.
func lowerForm(der []byte) (pair [64]byte, err error) {
	input := cryptobyte.String(der)
	var numbers cryptobyte.String
	r, s := new(big.Int), new(big.Int)
	if !input.ReadASN1(&numbers, asn1.SEQUENCE) || !input.Empty() ||
		!numbers.ReadASN1Integer(r) || !numbers.ReadASN1Integer(s) || !numbers.Empty() {
		return pair, errors.New("signature is not the DER of two integers")
	}
	n := elliptic.P256().Params().N
	if r.Sign() <= 0 || r.Cmp(n) >= 0 || s.Sign() <= 0 || s.Cmp(n) >= 0 {
		return pair, errors.New("signature holds a number that is not from 1 to n-1")
	}
	if s.Cmp(p256HalfOrder) > 0 {
		s.Sub(n, s)
	}
	r.FillBytes(pair[:32])
	s.FillBytes(pair[32:])
	return pair, nil
}

// verifyP256 is ECDSA with one form of every signature: r from 1 to n-1, s from 1 to (n-1)/2.
func verifyP256(point []byte, digest [32]byte, signature [64]byte) bool {
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if r.Sign() == 0 || r.Cmp(elliptic.P256().Params().N) >= 0 || s.Sign() == 0 || s.Cmp(p256HalfOrder) > 0 {
		return false
	}
	public, err := parseP256(point)
	return err == nil && ecdsa.Verify(public, digest[:], r, s)
}
