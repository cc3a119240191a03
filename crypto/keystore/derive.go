package keystore

import (
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/pacioli-ledger/pacioli/crypto"
)

// CoinType is the second level of our BIP-44 paths: the ASCII letters "pac", 0x706163. Nobody else has it in SLIP-0044
// as of 2026, where it is still to be registered. The test-net number 1 was not taken: other wallets use it, with the
// same curves, so one phrase would give the same keys on foreign networks. It must never change: words on paper lead to
// accounts only through it.
const CoinType = 0x706163

const hardened = 1 << 31

// MaxAccount is the largest account number of a path, since hardened indexes have 31 bits.
const MaxAccount = hardened - 1

// node is one point of a SLIP-0010 tree: a 32-byte private key, here called secret, and the chain code.
type node struct {
	scheme    crypto.Scheme
	secret    [32]byte
	chainCode [32]byte
}

// curveName is the HMAC key that begins each scheme's own tree, so that no two schemes ever share a secret. Those of ML-DSA
// are from the proposal satoshilabs/slips#1968, which near/NEPs#649 and others follow; the proposal is not final, so the
// key file holds the seeds themselves and does not depend on it.
func curveName(s crypto.Scheme) (string, error) {
	switch s {
	case crypto.Ed25519:
		return "ed25519 seed", nil
	case crypto.Secp256k1:
		return "Bitcoin seed", nil
	case crypto.P256WebAuthn:
		return "Nist256p1 seed", nil
	case crypto.MLDSA44:
		return "ML-DSA-44 seed", nil
	case crypto.MLDSA65:
		return "ML-DSA-65 seed", nil
	default:
		return "", fmt.Errorf("no key derivation is defined for %s", s)
	}
}

func split(key []byte, parts ...[]byte) (left, right [32]byte) {
	h := hmac.New(sha512.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	sum := h.Sum(nil)
	return [32]byte(sum[:32]), [32]byte(sum[32:])
}

// master returns the root of a scheme's tree.
func master(s crypto.Scheme, seed []byte) (node, error) {
	name, err := curveName(s)
	if err != nil {
		return node{}, err
	}
	n := node{scheme: s}
	n.secret, n.chainCode = split([]byte(name), seed)
	for order := groupOrder(s); order != nil && !isScalar(n.secret, order); {
		n.secret, n.chainCode = split([]byte(name), n.secret[:], n.chainCode[:]) // SLIP-0010 asks to go on with the result
	}
	return n, nil
}

// groupOrder returns n for the schemes whose secret is a number from 1 to n-1, nil for those where any bytes will do.
// Arithmetic with it takes a time that depends on the secret a little; it runs when a key is made, on its owner's machine.
func groupOrder(s crypto.Scheme) *big.Int {
	switch s {
	case crypto.Secp256k1:
		return secp256k1.Params().N
	case crypto.P256WebAuthn:
		return elliptic.P256().Params().N
	default:
		return nil
	}
}

func isScalar(b [32]byte, order *big.Int) bool {
	k := new(big.Int).SetBytes(b[:])
	return k.Sign() > 0 && k.Cmp(order) < 0
}

// child returns the private child at an index; indexes from 2^31 are hardened, and only the schemes with a group order have
// others.
func (n node) child(index uint32) (node, error) {
	order := groupOrder(n.scheme)
	var data []byte
	switch {
	case index >= hardened:
		data = append([]byte{0}, n.secret[:]...)
	case order != nil:
		private, err := crypto.NewPrivateKey(n.scheme, n.secret[:])
		if err != nil {
			return node{}, err
		}
		data = private.Public()[:33] // the compressed point; a WebAuthn key has a hash behind it
	default:
		return node{}, fmt.Errorf("derive %s child %d: the scheme has hardened children only", n.scheme, index)
	}
	data = binary.BigEndian.AppendUint32(data, index)
	c := node{scheme: n.scheme}
	for {
		c.secret, c.chainCode = split(n.chainCode[:], data)
		if order == nil {
			return c, nil
		}
		if left := new(big.Int).SetBytes(c.secret[:]); left.Cmp(order) < 0 {
			left.Add(left, new(big.Int).SetBytes(n.secret[:]))
			if left.Mod(left, order); left.Sign() > 0 {
				left.FillBytes(c.secret[:])
				return c, nil
			}
		}
		data = append([]byte{1}, c.chainCode[:]...) // SLIP-0010: try again from here
		data = binary.BigEndian.AppendUint32(data, index)
	}
}

// Path returns the derivation path of an account: m/44'/7364963'/account'/0'/0'. It is the same for every scheme, since
// every scheme has its own tree.
func Path(account uint32) string { return fmt.Sprintf("m/44'/%d'/%d'/0'/0'", CoinType, account) }

// derive returns the private key's 32-byte seed at the path of an account.
func derive(s crypto.Scheme, seed []byte, account uint32) ([]byte, error) {
	if account > MaxAccount {
		return nil, fmt.Errorf("derive account %d: at most %d", account, MaxAccount)
	}
	n, err := master(s, seed)
	if err != nil {
		return nil, err
	}
	for _, index := range []uint32{44, CoinType, account, 0, 0} {
		if n, err = n.child(hardened | index); err != nil {
			return nil, err
		}
	}
	return n.secret[:], nil
}
