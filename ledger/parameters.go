package ledger

import (
	"fmt"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// MaxReplayWindowSeconds bounds how far ahead valid_until may be for a nonce: a day. At one bucket a second the ledger
// then looks at 86,400 rows at the most when the chain goes on after a long pause.
const MaxReplayWindowSeconds = 86400

// MaxFeeUnit bounds each of the four fee parameters, so that the fee of the largest transaction fits 64 bits:
// (1 + 2^18 bytes + 1,000 operations + 2^20 verification units) * 2^40 < 2^61. The units are those of the signatures and
// keys that fit its bytes, each checked twice at most.
const MaxFeeUnit = 1 << 40

// MaxAssetCreators bounds the list of accounts that may create assets: 256 addresses are 8 kB in one row.
const MaxAssetCreators = 256

// Parameters are the rules of a network that are numbers. They are consensus data: one row of the state.
type Parameters struct {
	MaxTxBytes          uint32 // 1,024 to MaxTxBytes
	ReplayWindowSeconds uint32 // 1 to MaxReplayWindowSeconds
	MaxOpenNonces       uint64 // at least 1; 4,000,000 nonces take about 120 bytes each beside the trees

	FeeAsset        AssetID        // what fees are paid in
	FeeCollector    crypto.Address // who receives them, once a block
	FeeBase         uint64         // base units of the fee asset per transaction
	FeePerByte      uint64         // per byte of the whole transaction
	FeePerOperation uint64
	FeePerSignature uint64 // per tenth of the cost of one ed25519 verification: see crypto.Scheme.Cost

	AssetCreators []crypto.Address // who may create assets, ascending; empty: everybody

	// Deposits in base units of the fee asset, for each row that stays until its owner removes it.
	DepositAccount, DepositLine, DepositHold, DepositGrant uint64

	MaxHoldSeconds uint32 // 1 to MaxHoldSeconds, from the making of a hold to its expiry
	MaxExpiries    uint32 // 1 to MaxExpiries, holds that expire in one block

	FeeTargetWeight  uint64 // weight of a block at which fees stay as they are: see [Weight]; 0: they do not adapt
	MaxFeeMultiplier uint32 // in thousandths, 1000 to MaxFeeMultiplier

	Bond         uint64 // base units of the fee asset that the operator of a new validator has to have bonded
	BondSeconds  uint32 // 1 to MaxBondSeconds, from the end of a validator to that of its bond
	MissedWindow uint32 // blocks in which those are counted that a validator misses; 0: nobody loses its power by it
	MaxMissed    uint32 // of them, that a validator may miss; below MissedWindow
}

// Limits of parameters.
const (
	MaxHoldSeconds   = 315_360_000 // ten years
	MaxExpiries      = 10_000
	MaxFeeMultiplier = 1_000_000  // a thousandfold
	MaxBondSeconds   = 31_622_400 // a year
	MinMissedWindow  = 10
	MaxMissedWindow  = 100_000 // more than a day at one block a second
)

// DefaultParameters are the rules that `pacioli init` proposes. The fee asset and the collector are the caller's to set.
//
// MaxMissed is near MissedWindow because a vote that comes after two thirds have decided is not in the next block: who is
// far from the others misses most blocks, and yet is there. But a proposer's own vote is in its block. So a validator with a
// hundredth of the power or more that works misses 990 of 1,000 at the most, and one that is gone misses all.
func DefaultParameters() Parameters {
	return Parameters{MaxTxBytes: 128 << 10, ReplayWindowSeconds: 600, MaxOpenNonces: 4_000_000,
		FeeBase: 100, FeePerByte: 1, FeePerOperation: 20, FeePerSignature: 5,
		DepositAccount: 5_000, DepositLine: 5_000, DepositHold: 1_000, DepositGrant: 5_000,
		MaxHoldSeconds: 31_622_400, MaxExpiries: 1_000, FeeTargetWeight: 2_000_000, MaxFeeMultiplier: 100_000,
		BondSeconds: 1_814_400, MissedWindow: 1_000, MaxMissed: 990}
}

// Check tells which parameter is out of its range, if any.
func (p Parameters) Check() error {
	bound := func(name string, v, low, high uint64) error {
		if v < low || v > high {
			return fmt.Errorf("parameter %s is %d, want %d to %d", name, v, low, high)
		}
		return nil
	}
	for _, err := range []error{
		bound("max_tx_bytes", uint64(p.MaxTxBytes), 1024, MaxTxBytes),
		bound("replay_window_seconds", uint64(p.ReplayWindowSeconds), 1, MaxReplayWindowSeconds),
		bound("max_open_nonces", p.MaxOpenNonces, 1, 1<<32-1),
		bound("fee_base", p.FeeBase, 0, MaxFeeUnit),
		bound("fee_per_byte", p.FeePerByte, 0, MaxFeeUnit),
		bound("fee_per_operation", p.FeePerOperation, 0, MaxFeeUnit),
		bound("fee_per_signature", p.FeePerSignature, 0, MaxFeeUnit),
		bound("deposit_account", p.DepositAccount, 0, MaxFeeUnit),
		bound("deposit_line", p.DepositLine, 0, MaxFeeUnit),
		bound("deposit_hold", p.DepositHold, 0, MaxFeeUnit),
		bound("deposit_grant", p.DepositGrant, 0, MaxFeeUnit),
		bound("max_hold_seconds", uint64(p.MaxHoldSeconds), 1, MaxHoldSeconds),
		bound("max_expiries", uint64(p.MaxExpiries), 1, MaxExpiries),
		bound("fee_target_weight", p.FeeTargetWeight, 0, MaxFeeUnit),
		bound("max_fee_multiplier", uint64(p.MaxFeeMultiplier), minMultiplier, MaxFeeMultiplier),
		bound("bond", p.Bond, 0, MaxFeeUnit),
		bound("bond_seconds", uint64(p.BondSeconds), 1, MaxBondSeconds),
		p.checkMissed(),
		bound("asset_creators", uint64(len(p.AssetCreators)), 0, MaxAssetCreators),
	} {
		if err != nil {
			return err
		}
	}
	for i, a := range p.AssetCreators {
		if i > 0 && string(p.AssetCreators[i-1][:]) >= string(a[:]) {
			return fmt.Errorf("parameter asset_creators does not ascend at %s", a)
		}
	}
	return nil
}

func (p Parameters) checkMissed() error {
	switch w := p.MissedWindow; {
	case w == 0 && p.MaxMissed != 0:
		return fmt.Errorf("parameter max_missed is %d, want 0 while missed_window is 0", p.MaxMissed)
	case w == 0:
		return nil
	case w < MinMissedWindow || w > MaxMissedWindow:
		return fmt.Errorf("parameter missed_window is %d, want 0 or %d to %d", w, MinMissedWindow, MaxMissedWindow)
	case p.MaxMissed == 0 || p.MaxMissed >= w:
		return fmt.Errorf("parameter max_missed is %d, want 1 to %d, below missed_window", p.MaxMissed, w-1)
	}
	return nil
}

func (p Parameters) mayCreateAssets(a crypto.Address) bool {
	for _, c := range p.AssetCreators {
		if c == a {
			return true
		}
	}
	return len(p.AssetCreators) == 0
}

// Fee returns the fee of a transaction, in base units of the fee asset: a function of its size, its number of operations
// and the cost of its signatures ([VerificationCost]), and of the rate that the block before has left. So a wallet knows
// it exactly before it sends, but for what blocks in between do to the rate.
func (p Parameters) Fee(rate FeeRate, size, operations int, verificationCost uint64) Amount {
	units := p.FeeBase + p.FeePerByte*uint64(size) + p.FeePerOperation*uint64(operations) + p.FeePerSignature*verificationCost
	return perMille(units, rate.Multiplier)
}

// Weight returns how much of a block a transaction fills: about a byte's worth of each of a node's means. It decides
// nothing but the rate of fees.
func Weight(size, operations int, verificationCost uint64) uint64 {
	return uint64(size) + 50*uint64(operations) + 20*verificationCost
}

// minMultiplier is the multiplier of a network that is not full: one.
const minMultiplier = 1000

// FeeRate is what the fullness of past blocks makes of fees.
type FeeRate struct {
	Multiplier uint32 // in thousandths, from 1000 to the parameter MaxFeeMultiplier
}

func (f FeeRate) encode() []byte {
	w := writeRow()
	w.Uint32(1, f.Multiplier)
	return w.Done()
}

// DecodeFeeRate reads the row of the fee rate.
func DecodeFeeRate(value []byte) (f FeeRate, err error) {
	r := openRow(value)
	f.Multiplier = r.Uint32(1, "multiplier")
	return f, r.Close()
}

// Next returns the rate after a block whose transactions weigh load together. It rises by at most an eighth when the block
// was twice as full as the target or more, and falls by at most an eighth when it was empty: as the base fee of EIP-1559.
func (f FeeRate) Next(p Parameters, load uint64) FeeRate {
	target, m := p.FeeTargetWeight, uint64(f.Multiplier)
	if target == 0 {
		return f
	}
	switch load = min(load, 2*target); {
	case load > target:
		m += max(1, m*(load-target)/(8*target)) // below 2^20 * 2^40
	case load < target:
		m -= m * (target - load) / (8 * target)
	}
	return FeeRate{uint32(min(max(m, minMultiplier), uint64(p.MaxFeeMultiplier)))}
}

// VerificationCost sums the cost of checks, in tenths of one ed25519 verification: one for each witness, for each proof of
// possession, and for each key of a policy that the transaction carries.
func VerificationCost(checks []crypto.Check) (cost uint64) {
	for _, c := range checks {
		cost += c.Scheme.Cost()
	}
	return cost
}

func (p Parameters) write(w *canonical.Writer) {
	w.Uint32(1, p.MaxTxBytes)
	w.Uint32(2, p.ReplayWindowSeconds)
	w.Uint64(3, p.MaxOpenNonces)
	w.Message(4, p.FeeAsset[:])
	w.Message(5, p.FeeCollector[:])
	w.Uint64(6, p.FeeBase)
	w.Uint64(7, p.FeePerByte)
	w.Uint64(8, p.FeePerOperation)
	w.Uint64(9, p.FeePerSignature)
	for _, a := range p.AssetCreators {
		w.Message(10, a[:])
	}
	w.Uint64(11, p.DepositAccount)
	w.Uint64(12, p.DepositLine)
	w.Uint64(13, p.DepositHold)
	w.Uint64(14, p.DepositGrant)
	w.Uint32(15, p.MaxHoldSeconds)
	w.Uint32(16, p.MaxExpiries)
	w.Uint64(17, p.FeeTargetWeight)
	w.Uint32(18, p.MaxFeeMultiplier)
	w.Uint64(19, p.Bond)
	w.Uint32(20, p.BondSeconds)
	w.Uint32(21, p.MissedWindow)
	w.Uint32(22, p.MaxMissed)
}

func (p Parameters) encode() []byte {
	w := writeRow()
	p.write(w)
	return w.Done()
}

// DecodeParameters reads the parameters' row.
func DecodeParameters(value []byte) (p Parameters, err error) { return readParameters(openRow(value)) }

func readParameters(r *canonical.Reader) (p Parameters, err error) {
	p.MaxTxBytes = r.Uint32(1, "max_tx_bytes")
	p.ReplayWindowSeconds = r.Uint32(2, "replay_window_seconds")
	p.MaxOpenNonces = r.Uint64(3, "max_open_nonces")
	r.Fixed(4, "fee_asset", p.FeeAsset[:])
	r.Fixed(5, "fee_collector", p.FeeCollector[:])
	p.FeeBase = r.Uint64(6, "fee_base")
	p.FeePerByte = r.Uint64(7, "fee_per_byte")
	p.FeePerOperation = r.Uint64(8, "fee_per_operation")
	p.FeePerSignature = r.Uint64(9, "fee_per_signature")
	r.Repeated(10, "asset_creators", MaxAssetCreators, func(_ int, element []byte) error {
		var a crypto.Address
		if len(element) != len(a) {
			return canonical.Errorf("", "%d bytes, want %d", len(element), len(a))
		}
		copy(a[:], element)
		p.AssetCreators = append(p.AssetCreators, a)
		return nil
	})
	p.DepositAccount = r.Uint64(11, "deposit_account")
	p.DepositLine = r.Uint64(12, "deposit_line")
	p.DepositHold = r.Uint64(13, "deposit_hold")
	p.DepositGrant = r.Uint64(14, "deposit_grant")
	p.MaxHoldSeconds = r.Uint32(15, "max_hold_seconds")
	p.MaxExpiries = r.Uint32(16, "max_expiries")
	p.FeeTargetWeight = r.Uint64(17, "fee_target_weight")
	p.MaxFeeMultiplier = r.Uint32(18, "max_fee_multiplier")
	p.Bond = r.Uint64(19, "bond")
	p.BondSeconds = r.Uint32(20, "bond_seconds")
	p.MissedWindow = r.Uint32(21, "missed_window")
	p.MaxMissed = r.Uint32(22, "max_missed")
	return p, r.Close()
}
