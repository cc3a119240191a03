package client

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Signer holds private keys. keystore.Signer is one; [Keys] is another.
type Signer interface {
	// Policy names the keys that the signer holds, all of them.
	Policy() crypto.Policy
	// Sign signs a message, domain in front, with the key at an index of Policy.
	Sign(index int, message []byte) ([]byte, error)
}

// Keys is a signer in memory, for programs that keep keys elsewhere.
type Keys struct {
	policy  crypto.Policy
	private []crypto.PrivateKey
}

// NewKeys makes the signer of an account of which all keys must sign, with weight 1 each.
func NewKeys(private ...crypto.PrivateKey) (*Keys, error) {
	var keys []crypto.Key
	for _, k := range private {
		keys = append(keys, crypto.Key{Scheme: k.Scheme(), Public: k.Public(), Weight: 1})
	}
	policy, err := crypto.NewPolicy(uint32(len(keys)), keys...)
	if err != nil {
		return nil, err
	}
	k := &Keys{policy: policy}
	for _, want := range policy.Keys {
		i := slices.IndexFunc(private, func(p crypto.PrivateKey) bool {
			return p.Scheme() == want.Scheme && bytes.Equal(p.Public(), want.Public)
		})
		k.private = append(k.private, private[i])
	}
	return k, nil
}

// Policy implements [Signer].
func (k *Keys) Policy() crypto.Policy { return k.policy }

// Address returns the address of the account that the keys began.
func (k *Keys) Address() crypto.Address { return k.policy.Address() }

// Sign implements [Signer].
func (k *Keys) Sign(index int, message []byte) ([]byte, error) {
	if index < 0 || index >= len(k.private) {
		return nil, fmt.Errorf("sign with key %d of %d", index, len(k.private))
	}
	return k.private[index].Sign(message)
}

// Draft is a transaction on its way to being signed: the body, for which network it is, and what the accounts of its parties
// ask for. The parties are the body's signers in their order and, behind them, the sponsor if there is one; it may be added
// when the others have signed. A Draft belongs to one goroutine.
type Draft struct {
	// Before is kept in the file for [Client.Settle]. Use it from files of one's own only: a mark from behind the
	// transaction would make it look dead.
	Before *Mark

	network  ledger.Network // ChainID and ID
	body     []byte
	decoded  ledger.Body
	accounts []SigningAccount // of the parties
	sponsor  *ledger.Sponsor  // nil: there is none
	witness  []ledger.Witness // ascending by party and key; each verifies
}

// SigningAccount is what a party's account asks for.
type SigningAccount struct {
	Policy  crypto.Policy // in force
	Version uint32        // of the policy; the signatures cover it
}

// NewDraft makes a draft of a body. There is one account for each of the body's signers, in their order.
func NewDraft(network ledger.Network, body []byte, accounts []SigningAccount) (*Draft, error) {
	decoded, err := ledger.DecodeBody(body)
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if len(accounts) != len(decoded.Signers) {
		return nil, fmt.Errorf("%d policies for %d signers", len(accounts), len(decoded.Signers))
	}
	for i, s := range decoded.Signers {
		if err := accounts[i].fits(s.Address, s.Policy); err != nil {
			return nil, fmt.Errorf("signer %d: %w", i, err)
		}
	}
	return &Draft{network: network, body: body, decoded: *decoded, accounts: accounts}, nil
}

// fits tells whether a policy can be the one of an address, and is the one that the transaction carries, if it does.
func (a SigningAccount) fits(address crypto.Address, carried []byte) error {
	hash := a.Policy.Hash()
	if carried != nil && crypto.DomainAddress.Hash(carried) != hash {
		return fmt.Errorf("the transaction carries another policy of %s than the one it is to be signed by", address)
	}
	if a.Version == 0 && crypto.Hash(address) != hash {
		return fmt.Errorf("policy %s is not the one that %s began with", hash, address)
	}
	return nil
}

// AddSponsor makes an account pay the fee and the deposits in the signers' place. What the signers have signed stays: they
// do not sign over the sponsor, it signs over their body. A sponsor that was there before goes, with its signatures.
// s.Policy is needed when the account has no row yet.
func (d *Draft) AddSponsor(s ledger.Sponsor, account SigningAccount) error {
	for i, signer := range d.decoded.Signers {
		if signer.Address == s.Address {
			return fmt.Errorf("%s signs the transaction as signer %d: it cannot be the sponsor too", s.Address, i)
		}
	}
	if err := account.fits(s.Address, s.Policy); err != nil {
		return fmt.Errorf("sponsor: %w", err)
	}
	n := len(d.decoded.Signers)
	d.sponsor = &s
	d.accounts = append(slices.Clone(d.accounts[:n]), account)
	d.witness = slices.DeleteFunc(slices.Clone(d.witness), func(w ledger.Witness) bool { return int(w.Signer) >= n })
	return nil
}

// Sponsor returns who pays in the signers' place; nil when nobody does. It must not be changed.
func (d *Draft) Sponsor() *ledger.Sponsor { return d.sponsor }

// Address returns the address of a party.
func (d *Draft) Address(party int) crypto.Address {
	if party == len(d.decoded.Signers) && d.sponsor != nil {
		return d.sponsor.Address
	}
	return d.decoded.Signers[party].Address
}

// Payer returns the account that pays the fee and the deposits.
func (d *Draft) Payer() crypto.Address {
	if d.sponsor != nil {
		return d.sponsor.Address
	}
	return d.decoded.Payer()
}

// Merge adds the signatures that another draft of the same transaction has, and its sponsor if this one has none. Superfluous
// signatures, which the ledger would refuse, are dropped. An error leaves the draft as it was.
func (d *Draft) Merge(other *Draft) error {
	if d.network != other.network {
		return fmt.Errorf("they are for different networks: %s (%s) and %s (%s)", d.network.ID, d.network.ChainID, other.network.ID, other.network.ChainID)
	}
	if !bytes.Equal(d.body, other.body) {
		return fmt.Errorf("they are different transactions: %s and %s", d.ID(), other.ID())
	}
	n := len(d.decoded.Signers)
	for i := range n {
		ours, theirs := d.accounts[i], other.accounts[i]
		if ours.Version != theirs.Version || !ours.Policy.Equal(theirs.Policy) {
			return fmt.Errorf("they name different policies of %s, version %d and version %d: one of the files is from before the account's policy changed",
				d.Address(i), ours.Version, theirs.Version)
		}
	}
	merged := *d
	merged.witness = slices.Clone(d.witness)
	if other.sponsor != nil {
		switch {
		case merged.sponsor == nil:
			if err := merged.AddSponsor(*other.sponsor, other.accounts[n]); err != nil {
				return err
			}
		case !bytes.Equal(merged.preimage(n), other.preimage(n)):
			return fmt.Errorf("they have different sponsors, limits or policies of the sponsor: %s and %s", merged.sponsor.Address, other.sponsor.Address)
		}
	}
	for _, w := range other.witness {
		if !slices.ContainsFunc(merged.witness, func(own ledger.Witness) bool { return own.Signer == w.Signer && own.Key == w.Key }) {
			if err := merged.Add(w); err != nil {
				return err
			}
		}
	}
	for i := range merged.accounts {
		merged.drop(i)
	}
	*d = merged
	return nil
}

// Network returns the network that the transaction is for.
func (d *Draft) Network() ledger.Network { return d.network }

// Body returns what will be signed, decoded from the very bytes. It must not be changed.
func (d *Draft) Body() ledger.Body { return d.decoded }

// BodyBytes returns the bytes of the body. They must not be changed.
func (d *Draft) BodyBytes() []byte { return d.body }

// Accounts returns what the accounts of the parties ask for, the sponsor's behind the signers'. It must not be changed.
func (d *Draft) Accounts() []SigningAccount { return d.accounts }

// Witnesses returns the signatures so far. They must not be changed.
func (d *Draft) Witnesses() []ledger.Witness { return d.witness }

// ID returns the transaction's id, which no signature changes.
func (d *Draft) ID() crypto.Hash { return ledger.BodyID(d.network.ID, d.body) }

// preimage is what the keys of a party sign.
func (d *Draft) preimage(signer int) []byte {
	if signer == len(d.decoded.Signers) {
		return ledger.SponsorPreimage(d.network.ID, d.body, d.sponsor, d.accounts[signer].Version)
	}
	return ledger.Preimage(d.network.ID, d.body, d.accounts[signer].Version)
}

// weight is the weight of the signatures of a signer so far, and of the lightest of them.
func (d *Draft) weight(signer int) (sum, lightest uint64) {
	for _, w := range d.witness {
		if int(w.Signer) == signer {
			weight := uint64(d.accounts[signer].Policy.Keys[w.Key].Weight)
			if sum += weight; lightest == 0 || weight < lightest {
				lightest = weight
			}
		}
	}
	return sum, lightest
}

// Need returns the weight that the signatures of a party must have: its policy's threshold, or the one for changes where an
// operation of its asks for that.
func (d *Draft) Need(signer int) uint64 {
	return uint64(d.decoded.NeedOf(uint32(signer), d.accounts[signer].Policy))
}

// Missing returns how much weight each party's signatures lack; all zeros for a complete draft.
func (d *Draft) Missing() []uint64 {
	missing := make([]uint64, len(d.accounts))
	for i := range d.accounts {
		if sum, _ := d.weight(i); sum < d.Need(i) {
			missing[i] = d.Need(i) - sum
		}
	}
	return missing
}

// Complete tells whether what every party needs is reached.
func (d *Draft) Complete() bool { return slices.Max(d.Missing()) == 0 }

// Sign adds the signatures of every key that the signer holds and that is still needed, for whichever party, the heaviest
// first, since the ledger refuses superfluous ones. It returns how many it added. An error leaves the draft as it was.
func (d *Draft) Sign(s Signer) (added int, err error) {
	before := slices.Clone(d.witness)
	for party := range d.accounts {
		n, err := d.SignAs(party, s)
		if err != nil {
			d.witness = before
			return 0, err
		}
		added += n
	}
	return added, nil
}

// SignAs is [Draft.Sign] for one party: who sponsors a transaction need not agree to it with a key that is also one of its
// sender's.
func (d *Draft) SignAs(party int, s Signer) (added int, err error) {
	before := slices.Clone(d.witness)
	defer func() {
		if err != nil {
			d.witness, added = before, 0
		}
	}()
	held := s.Policy().Keys
	keys := d.accounts[party].Policy.Keys
	order := make([]int, len(keys))
	for k := range order {
		order[k] = k
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(keys[y].Weight, keys[x].Weight) })
	for _, k := range order {
		if sum, _ := d.weight(party); sum >= d.Need(party) {
			break
		}
		own := slices.IndexFunc(held, func(h crypto.Key) bool { return h.Scheme == keys[k].Scheme && bytes.Equal(h.Public, keys[k].Public) })
		if own < 0 || slices.ContainsFunc(d.witness, func(w ledger.Witness) bool { return int(w.Signer) == party && int(w.Key) == k }) {
			continue
		}
		signature, err := s.Sign(own, d.preimage(party))
		if err != nil {
			return added, fmt.Errorf("signing for %s: %w", d.Address(party), err)
		}
		if err := d.Add(ledger.Witness{Signer: uint32(party), Key: uint32(k), Signature: signature}); err != nil {
			return added, err
		}
		added++
	}
	// A heavy signature may have made an earlier, light one superfluous; the ledger would refuse the transaction.
	d.drop(party)
	return added, nil
}

// drop removes the lightest signatures of a signer while the rest suffices.
func (d *Draft) drop(signer int) {
	for {
		sum, lightest := d.weight(signer)
		if sum-lightest < d.Need(signer) {
			return
		}
		i := slices.IndexFunc(d.witness, func(w ledger.Witness) bool {
			return int(w.Signer) == signer && uint64(d.accounts[signer].Policy.Keys[w.Key].Weight) == lightest
		})
		d.witness = slices.Delete(d.witness, i, i+1)
	}
}

// Add adds a signature that was made elsewhere. One that does not verify, or stands already, is an error.
func (d *Draft) Add(w ledger.Witness) error {
	if int(w.Signer) >= len(d.accounts) || int(w.Key) >= len(d.accounts[w.Signer].Policy.Keys) {
		return fmt.Errorf("signature by key %d of signer %d: there is no such key", w.Key, w.Signer)
	}
	key := d.accounts[w.Signer].Policy.Keys[w.Key]
	check := crypto.Check{Scheme: key.Scheme, PublicKey: key.Public, Message: d.preimage(int(w.Signer)), Signature: w.Signature}
	if !check.Verify() {
		return fmt.Errorf("signature by key %d of signer %d does not verify for this body, network and policy version", w.Key, w.Signer)
	}
	at, found := slices.BinarySearchFunc(d.witness, w, func(a, b ledger.Witness) int {
		return cmp.Or(cmp.Compare(a.Signer, b.Signer), cmp.Compare(a.Key, b.Key))
	})
	if found {
		return fmt.Errorf("key %d of signer %d has signed already", w.Key, w.Signer)
	}
	d.witness = slices.Insert(d.witness, at, w)
	return nil
}

// ErrIncomplete is wrapped by the error for a draft that lacks signatures.
var ErrIncomplete = errors.New("signatures are missing")

// Raw returns the bytes to send.
func (d *Draft) Raw() ([]byte, error) {
	for i, missing := range d.Missing() {
		if missing != 0 {
			return nil, fmt.Errorf("%w: those for %s have the weight %d of %d", ErrIncomplete, d.Address(i), d.Need(i)-missing, d.Need(i))
		}
	}
	raw := ledger.Assemble(d.body, d.witness, d.sponsor)
	if _, err := ledger.Decode(raw); err != nil {
		return nil, fmt.Errorf("the assembled transaction: %w", err)
	}
	return raw, nil
}

// ErrTooLarge is wrapped by the error for a transaction that would have more bytes than the network takes.
var ErrTooLarge = errors.New("the transaction is too large")

// FeeCeiling returns the fee of a body once it is signed, in base units of the fee asset, at a rate: exactly, when all keys of
// each policy must sign or they are of one scheme and weight; else the most that any sufficient set of keys can cost. A passkey
// of a browser, whose signatures have no fixed size, counts with the longest.
func FeeCeiling(p ledger.Parameters, rate ledger.FeeRate, body []byte, accounts []SigningAccount) (ledger.Amount, error) {
	return feeCeiling(p, rate, body, accounts, nil)
}

// FeeCeiling returns the fee of the draft once all parties have signed, as the function of this name.
func (d *Draft) FeeCeiling(p ledger.Parameters, rate ledger.FeeRate) (ledger.Amount, error) {
	return feeCeiling(p, rate, d.body, d.accounts, d.sponsor)
}

// feeCeiling is [FeeCeiling] with a sponsor, whose account is then the last one.
func feeCeiling(p ledger.Parameters, rate ledger.FeeRate, body []byte, accounts []SigningAccount, sponsor *ledger.Sponsor) (ledger.Amount, error) {
	decoded, err := ledger.DecodeBody(body)
	if err != nil {
		return ledger.Amount{}, err
	}
	var cost uint64
	var witnesses []ledger.Witness
	for i, a := range accounts {
		keys := a.Policy.Keys
		// No sufficient set without superfluous keys has more keys than the lightest ones that reach the threshold.
		weights := make([]uint32, len(keys))
		order := make([]int, len(keys))
		for k, key := range keys {
			weights[k], order[k] = key.Weight, k
		}
		slices.Sort(weights)
		count, sum := 0, uint64(0)
		for ; count < len(keys) && sum < uint64(decoded.NeedOf(uint32(i), a.Policy)); count++ {
			sum += uint64(weights[count])
		}
		price := func(k int) uint64 {
			return p.FeePerSignature*keys[k].Scheme.Cost() + p.FeePerByte*uint64(keys[k].MaxSignatureSize())
		}
		// Of equal prices the later key comes first: the index 0 takes no bytes.
		slices.SortFunc(order, func(x, y int) int { return cmp.Or(cmp.Compare(price(y), price(x)), cmp.Compare(y, x)) })
		chosen := order[:count]
		slices.Sort(chosen)
		for _, k := range chosen {
			cost += keys[k].Scheme.Cost()
			witnesses = append(witnesses, ledger.Witness{Signer: uint32(i), Key: uint32(k), Signature: make([]byte, keys[k].MaxSignatureSize())})
		}
	}
	// A policy in the body costs a check of each of its keys, a new one also a proof of possession by each.
	brought := func(encoded []byte, each uint64) error {
		if len(encoded) == 0 {
			return nil
		}
		policy, err := crypto.DecodePolicy(encoded)
		for _, k := range policy.Keys {
			cost += each * k.Scheme.Cost()
		}
		return err
	}
	for i, s := range decoded.Signers {
		if err := brought(s.Policy, 1); err != nil {
			return ledger.Amount{}, fmt.Errorf("policy of signer %d: %w", i, err)
		}
	}
	if sponsor != nil {
		if err := brought(sponsor.Policy, 1); err != nil {
			return ledger.Amount{}, fmt.Errorf("policy of the sponsor: %w", err)
		}
	}
	for i, op := range decoded.Operations {
		var policy []byte
		switch o := op.(type) {
		case *ledger.SetPolicy:
			policy = o.Policy
		case *ledger.FinishRecovery:
			policy = o.Policy
		case *ledger.Propose:
			// A new consensus key costs as one of a new policy.
			switch change := o.Change.(type) {
			case *ledger.AddValidator:
				cost += 2 * change.Scheme.Cost()
			case *ledger.RotateKey:
				cost += 2 * change.Scheme.Cost()
			}
		}
		if err := brought(policy, 2); err != nil {
			return ledger.Amount{}, fmt.Errorf("policy of operation %d: %w", i, err)
		}
	}
	raw := ledger.Assemble(body, witnesses, sponsor)
	if len(raw) > int(p.MaxTxBytes) {
		return ledger.Amount{}, fmt.Errorf("%w: it would have %d bytes, this network takes %d: split its operations", ErrTooLarge, len(raw), p.MaxTxBytes)
	}
	return p.Fee(rate, len(raw), len(decoded.Operations), cost), nil
}

// headroom is the rate up to which a transaction may wait for its block: twice the present one, which takes at least six
// full blocks to reach.
func headroom(p ledger.Parameters, rate ledger.FeeRate) ledger.FeeRate {
	if p.FeeTargetWeight == 0 {
		return rate
	}
	return ledger.FeeRate{Multiplier: max(rate.Multiplier, min(2*rate.Multiplier, p.MaxFeeMultiplier))}
}

// WithFee returns the encoded body with max_fee set, unless it is there: to its fee ceiling, and where fees adapt to how
// full blocks are, to twice that.
func WithFee(p ledger.Parameters, rate ledger.FeeRate, body ledger.Body, accounts []SigningAccount) ([]byte, error) {
	if err := body.Validate(); err != nil {
		return nil, err
	}
	if len(accounts) != len(body.Signers) {
		return nil, fmt.Errorf("%d policies for %d signers", len(accounts), len(body.Signers))
	}
	if !body.MaxFee.IsZero() {
		return body.Encode(), nil
	}
	// The fee counts the bytes that say the fee. Each round can only raise it, and it has at most 16 bytes.
	for {
		encoded := body.Encode()
		fee, err := FeeCeiling(p, headroom(p, rate), encoded, accounts)
		if err != nil {
			return nil, err
		}
		if fee.Cmp(body.MaxFee) <= 0 {
			return encoded, nil
		}
		body.MaxFee = fee
	}
}

// DepositCeiling returns the most that a body can cost in deposits: as if nothing that it needs were there.
func DepositCeiling(p ledger.Parameters, body ledger.Body) ledger.Amount {
	var units uint64 // 1,000 operations and 17 accounts, at most 2 * 2^40 each
	for _, s := range body.Signers {
		if len(s.Policy) != 0 {
			units += p.DepositAccount
		}
	}
	for _, op := range body.Operations {
		switch op.(type) {
		case *ledger.Transfer, *ledger.CreateAsset, *ledger.SetLine, *ledger.OpenLine, *ledger.Bond:
			units += p.DepositLine
		case *ledger.CreateHold:
			units += p.DepositLine + p.DepositHold
		case *ledger.SetGrant:
			units += p.DepositGrant
		}
	}
	return ledger.Units(units)
}
