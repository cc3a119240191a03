package crypto

// Check is one thing to verify: a signature, or with KeyOnly that a key may be registered, which costs about as much.
type Check struct {
	Scheme    Scheme
	PublicKey []byte
	Message   []byte
	Signature []byte
	KeyOnly   bool // ask CheckPublicKey, and nothing about Message and Signature
}

// wellFormed tells whether the scheme is accepted and the lengths are its own.
func (c Check) wellFormed() bool {
	r := c.Scheme.rules()
	if r == nil || len(c.PublicKey) != r.publicKeySize() {
		return false
	}
	size, most := r.signatureSize(), r.maxSignatureSize()
	return len(c.Signature) == size || size < most && len(c.Signature) <= most
}

// Verify tells whether the signature is the key's for the message. It answers for any bytes and never panics. Of the
// key it asks less than CheckPublicKey: an ed25519 key of small order verifies here, because ZIP-215 says so and because
// the rule must be that of VerifyAll; such keys are kept out at registration.
func (c Check) Verify() bool {
	if c.KeyOnly {
		return CheckPublicKey(c.Scheme, c.PublicKey) == nil
	}
	return c.wellFormed() && c.Scheme.rules().verify(c.PublicKey, c.Message, c.Signature)
}

// VerifyAll verifies many signatures in the calling goroutine and answers by index, for each what Verify answers. The
// ed25519 ones go by batch, at 0.6 of the price while all are good (BenchmarkVerifyAll); a batch that fails is checked one by one.
func VerifyAll(checks []Check) []bool {
	verdicts := make([]bool, len(checks))
	batch := make([]int, 0, min(len(checks), ed25519BatchSize)) // indexes into checks
	for i, c := range checks {
		if c.Scheme != Ed25519 || c.KeyOnly {
			verdicts[i] = c.Verify()
			continue
		}
		if !c.wellFormed() {
			continue
		}
		if batch = append(batch, i); len(batch) == ed25519BatchSize {
			verifyEd25519Batch(checks, batch, verdicts)
			batch = batch[:0]
		}
	}
	verifyEd25519Batch(checks, batch, verdicts)
	return verdicts
}
