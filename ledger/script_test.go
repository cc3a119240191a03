package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/canonical"
)

// TestScripts runs testdata/scripts. Rewrite the expected outputs with -rewrite, and explain in the commit why a rule of
// the protocol changed.
//
//	genesis [chain=] [time=]                 input: parameters k=v..., asset CODE issuer= scale= max= [controls=a,b], balance NAME AMOUNT CODE, validator KEY power= [operator=NAME] [name=], validators PREFIX N power=
//	block time=SECONDS[.mmm]                 begins a block
//	tx from=(NAME,...) [seq=(N or nonce,...)] [until=SECONDS] [max=AMOUNT] [deposit=AMOUNT] [granter=NAME]
//	   [sponsor=NAME] [sponsor_max=AMOUNT] [sponsor_deposit=AMOUNT] [policy=none|all|NAME] [sign=(SIGNER/KEY,...)]
//	   [forge] [version=N] [network=other]   input: operations; "100x" in front of one repeats it
//	check ... [ahead=N]                      the same, but only asks whether it would be admitted
//	raw                                      input: hex of a transaction
//	again                                    the last transaction's bytes once more
//	end [evidence=(KEY,...)] [missed=(KEY,...)] [writes] [count] ends the block: journal entries, validator updates, kinds of rows
//	                                         written; or their numbers only. Who has not missed the block before has signed it
//	show NAME CODE, account NAME, asset CODE, hold NAME, grant GRANTER GRANTEE KIND [CODE], queue, replay, validators, proposals     rows
//	bond:NAME is the hold that is a bond
//
// In operations, by=NAME is the signer that acts, the first one unless said; CHF@bob is an asset that bob is about to create;
// pool is the pool of deposits. A receipt is printed as code, fee, deposit, then what each operation gave, which for most is
// nothing. Pending counters stand behind the posted ones: 5.00+1.00.
//
//	transfer AMOUNT CODE to= [granter=] [balancing=BITS] [ref=] [code=] [memo=]
//	create_asset CODE scale= max= [controls=]
//	set_policy POLICY... [revoke] [proof=forged|missing]
//	create_hold NAME|- AMOUNT CODE to= expires= [not_before=] [arbiter=] [lock=SECRET] [post=receiver,...] [void=...] [at_expiry] [as transfer]
//	post_hold NAME [AMOUNT CODE] [preimage=], void_hold NAME
//	set_asset CODE [drop=] [max=] [freeze=in,out] [unfreeze=]
//	set_line NAME CODE [set=authorised,in,out] [clear=] [credit=] [cap=]
//	clawback NAME AMOUNT CODE [balancing=1] [ref=] [code=] [memo=]
//	open_line CODE [ceiling=], close_line CODE to=, set_account opt_in=yes|no, close_account to=
//	set_grant NAME for=fees|transfers|holds [CODE] [each= period=] [total=] until= [to=], revoke_grant NAME for= [CODE]
//	start_recovery NAME POLICY..., cancel_recovery NAME, finish_recovery NAME POLICY... [proof=]
//	bond AMOUNT, release_bond, reactivate, approve NAME [withdraw]
//	propose NAME expires= add KEY operator= power= [name=] [proof=forged|OPERATOR], remove KEY, power KEY N, rotate KEY NEWKEY operator= [proof=], parameters [before=none] [k=v...]
func TestScripts(t *testing.T) {
	covered := map[Code]bool{}
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{world: newWorld(t), covered: covered}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.run(d)
		})
	})
	for _, e := range Explanations() {
		if !covered[e.Code] && e.Code != BrokenInvariant { // see TestBrokenInvariant
			t.Errorf("no script shows the code %s", e.Name)
		}
	}
}

type script struct {
	*world
	covered map[Code]bool
	last    []byte
	holds   map[string]crypto.Hash // by name
	made    map[int]string         // names of the holds that a body makes, by operation
	scales  map[crypto.Hash]uint32 // of the holds' assets
	rate    FeeRate

	proposals map[string]crypto.Hash // by name
	proposed  map[int]string         // names of the proposals that a body makes, by operation
	consensus map[string]string      // names of consensus keys, by key
}

func (s *script) run(d *datadriven.TestData) string {
	if s.memory == nil && d.Cmd != "genesis" {
		d.Fatalf(s.t, "the script does not begin with genesis")
	}
	switch d.Cmd {
	case "genesis":
		return s.runGenesis(d)
	case "block":
		text, ok := one(d, "time")
		if !ok {
			d.Fatalf(s.t, "time is missing")
		}
		if s.block != nil {
			d.Fatalf(s.t, "the block before was not ended")
		}
		s.next(parseMillis(s.t, text))
		return ""
	case "tx":
		s.last = s.build(d)
		return s.apply(s.last)
	case "again":
		return s.apply(s.last)
	case "check":
		tx, err := Decode(s.build(d))
		if err != nil {
			return s.malformed(err)
		}
		ahead, _ := strconv.ParseUint(oneOr(d, "ahead", "0"), 10, 64)
		before := s.block.state.savepoint()
		code, err := s.block.Check(tx, ahead)
		if err != nil {
			d.Fatalf(s.t, "%s", err)
		}
		if s.block.state.savepoint() != before {
			d.Fatalf(s.t, "Check has changed the state")
		}
		s.covered[code] = true
		return code.String() + "\n"
	case "raw":
		raw, err := hex.DecodeString(strings.Join(strings.Fields(d.Input), ""))
		if err != nil {
			d.Fatalf(s.t, "%s", err)
		}
		return s.apply(raw)
	case "end":
		return s.runEnd(d)
	case "show":
		return s.showLine(d.CmdArgs[0].Key, d.CmdArgs[1].Key)
	case "account":
		return s.showAccount(d.CmdArgs[0].Key)
	case "asset":
		return s.showAsset(d.CmdArgs[0].Key)
	case "hold":
		return s.showHold(d.CmdArgs[0].Key)
	case "grant":
		return s.showGrant(d)
	case "queue":
		return s.showQueue()
	case "replay":
		return s.showReplay()
	case "validators":
		return s.showValidators()
	case "proposals":
		return s.showProposals()
	}
	d.Fatalf(s.t, "unknown command %s", d.Cmd)
	return ""
}

func one(d *datadriven.TestData, key string) (string, bool) {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) == 1 {
			return a.Vals[0], true
		}
	}
	return "", false
}

func oneOr(d *datadriven.TestData, key, otherwise string) string {
	if v, ok := one(d, key); ok {
		return v
	}
	return otherwise
}

func many(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func parseMillis(t testing.TB, text string) uint64 {
	a, err := ParseAmount(text, 3)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := a.Uint64()
	return n
}

// settings are the key=value words of a line, and the other words in order.
func settings(line string) (values map[string]string, words []string) {
	values = map[string]string{}
	for _, f := range strings.Fields(line) {
		if k, v, ok := strings.Cut(f, "="); ok {
			values[k] = v
		} else {
			words = append(words, f)
		}
	}
	return values, words
}

func (s *script) runGenesis(d *datadriven.TestData) string {
	t := s.t
	*s.world = *newWorld(t)
	s.proposals, s.consensus = map[string]crypto.Hash{}, map[string]string{}
	s.holds, s.scales, s.rate = map[string]crypto.Hash{}, map[crypto.Hash]uint32{}, FeeRate{minMultiplier}
	if s.genesis.ChainID = oneOr(d, "chain", "test"); s.genesis.ChainID == "long" {
		s.genesis.ChainID = strings.Repeat("x", MaxChainIDBytes+1)
	}
	s.genesis.UnixNanos = parseMillis(t, oneOr(d, "time", "1000")) * 1e6
	number := func(text string) uint64 {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			d.Fatalf(t, "%s", err)
		}
		return n
	}
	for line := range strings.Lines(d.Input) {
		v, words := settings(line)
		switch p := &s.genesis.State.Parameters; words[0] {
		case "parameters":
			for k, v := range v {
				switch k {
				case "max_tx_bytes":
					p.MaxTxBytes = uint32(number(v))
				case "window":
					p.ReplayWindowSeconds = uint32(number(v))
				case "max_open":
					p.MaxOpenNonces = number(v)
				case "fee_asset":
					p.FeeAsset = v
				case "collector":
					p.FeeCollector = s.address(v)
				case "base":
					p.FeeBase = number(v)
				case "byte":
					p.FeePerByte = number(v)
				case "operation":
					p.FeePerOperation = number(v)
				case "signature":
					p.FeePerSignature = number(v)
				case "deposits": // account, line, hold, grant
					for i, n := range strings.Split(v, ",") {
						*[]*uint64{&p.DepositAccount, &p.DepositLine, &p.DepositHold, &p.DepositGrant}[i] = number(n)
					}
				case "max_hold_seconds":
					p.MaxHoldSeconds = uint32(number(v))
				case "max_expiries":
					p.MaxExpiries = uint32(number(v))
				case "target":
					p.FeeTargetWeight = number(v)
				case "max_multiplier":
					p.MaxFeeMultiplier = uint32(number(v))
				case "creators":
					for _, name := range strings.Split(v, ",") {
						p.AssetCreators = append(p.AssetCreators, s.address(name))
					}
					slices.SortFunc(p.AssetCreators, func(a, b crypto.Address) int { return slices.Compare(a[:], b[:]) })
				case "bond":
					p.Bond = number(v)
				case "bond_seconds":
					p.BondSeconds = uint32(number(v))
				case "missed": // window, maximum
					window, most, _ := strings.Cut(v, ",")
					p.MissedWindow, p.MaxMissed = uint32(number(window)), uint32(number(most))
				default:
					d.Fatalf(t, "unknown parameter %s", k)
				}
			}
		case "asset":
			s.addAsset(words[1], v["issuer"], uint32(number(v["scale"])), v["max"])
			if names, ok := v["controls"]; ok {
				s.genesis.State.Assets[len(s.genesis.State.Assets)-1].Controls = strings.Split(names, ",")
			}
		case "balance":
			s.addBalance(words[1], words[2], words[3])
		case "validators": // many of one power, without operators
			for i := range number(words[2]) {
				s.addValidator(fmt.Sprint(words[1], i), crypto.Ed25519, number(v["power"]))
				s.consensusKey(fmt.Sprint(words[1], i), "")
			}
		case "validator":
			s.addValidator(words[1], crypto.Ed25519, number(v["power"]))
			s.consensusKey(words[1], "")
			if operator, ok := v["operator"]; ok {
				s.genesis.State.Validators = append(s.genesis.State.Validators, GenesisValidator{PubKey: s.consensusKey(v["key"], words[1]).Public(), Operator: s.optionalAddress(operator), Name: v["name"]})
			}
		default:
			d.Fatalf(t, "unknown line %q", line)
		}
	}
	if err := s.begin(); err != nil {
		text := err.Error()
		for a, name := range s.names {
			text = strings.ReplaceAll(text, a.String(), name)
		}
		return "error: " + text + "\n"
	}
	return ""
}

func (s *script) scale(code string) uint32 {
	id := s.asset(code)
	var a Asset
	if s.block != nil {
		a, _ = s.block.state.asset(id)
	} else if v := s.memory[string(AssetRow(id))]; v != nil {
		a, _ = DecodeAsset(v)
	}
	return a.Scale
}

func (s *script) amount(text, code string) Amount {
	if text == "max" {
		return MaxAmount
	}
	a, err := ParseAmount(text, s.scale(code))
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// build makes a transaction's bytes.
func (s *script) build(d *datadriven.TestData) []byte {
	t := s.t
	b := &Body{MaxFee: Units(1e12)}
	if p := s.genesis.State.Parameters; p.DepositAccount|p.DepositLine|p.DepositHold|p.DepositGrant != 0 {
		b.MaxDeposit = Units(1e12)
	}
	feeAmount := func(key string, to *Amount) {
		if text, ok := one(d, key); ok {
			*to = s.amount(text, s.genesis.State.Parameters.FeeAsset)
		}
	}
	feeAmount("max", &b.MaxFee)
	feeAmount("deposit", &b.MaxDeposit)
	if name, ok := one(d, "granter"); ok {
		b.FeeGranter = s.address(name)
	}
	s.made, s.proposed = map[int]string{}, map[int]string{}
	if text, ok := one(d, "until"); ok {
		b.ValidUntil, _ = strconv.ParseUint(text, 10, 64)
	}
	from, seq := many(d, "from"), many(d, "seq")
	for i, name := range from {
		signer := s.signer(name)
		if i < len(seq) {
			n, err := strconv.ParseUint(seq[i], 10, 64)
			if signer.Sequence = n; err != nil {
				signer.Sequence = 0
				copy(signer.Nonce[:], seq[i])
			}
		}
		switch policy := oneOr(d, "policy", ""); policy {
		case "":
		case "none":
			signer.Policy = nil
		case "all":
			p, _ := s.policyOf(signer.Address)
			signer.Policy = p.Encode()
		default:
			signer.Policy = s.firstPolicy(policy).Encode()
		}
		b.Signers = append(b.Signers, signer)
	}
	for line := range strings.Lines(d.Input) {
		times := 1
		if first, rest, ok := strings.Cut(line, "x "); ok {
			if n, err := strconv.Atoi(first); err == nil {
				times, line = n, rest
			}
		}
		for range times {
			b.Operations = append(b.Operations, s.operation(d, from, line, len(b.Operations)))
		}
	}
	if hasKey(d, "sponsor") { // who pays agrees to no less than the signers do
		if !hasKey(d, "max") {
			b.MaxFee = Amount{}
		}
		if !hasKey(d, "deposit") {
			b.MaxDeposit = Amount{}
		}
	}
	body := b.encode()
	for i, name := range s.made {
		s.holds[name] = HoldID(BodyID(s.networkID(), body), uint32(i))
	}
	for i, name := range s.proposed {
		s.proposals[name] = ProposalID(BodyID(s.networkID(), body), uint32(i))
	}
	var sponsor *Sponsor
	if name, ok := one(d, "sponsor"); ok {
		sponsor = &Sponsor{Address: s.address(name), MaxFee: Units(1e12), MaxDeposit: Units(40)}
		feeAmount("sponsor_max", &sponsor.MaxFee)
		feeAmount("sponsor_deposit", &sponsor.MaxDeposit)
		if _, known := s.account(sponsor.Address); !known {
			sponsor.Policy = s.firstPolicy(name).Encode()
		}
	}
	var witnesses []Witness
	if sign := many(d, "sign"); sign != nil || hasKey(d, "sign") {
		for _, text := range sign {
			var w Witness
			if text == "" {
				continue
			}
			if _, err := fmt.Sscanf(text, "%d/%d", &w.Signer, &w.Key); err != nil {
				d.Fatalf(t, "sign: %q: %s", text, err)
			}
			var address crypto.Address
			if int(w.Signer) < len(b.Signers) {
				address = b.Signers[w.Signer].Address
			} else {
				address = sponsor.Address
			}
			p, version := s.policyOf(address)
			message := Preimage(s.networkID(), body, version)
			if int(w.Signer) == len(b.Signers) {
				message = SponsorPreimage(s.networkID(), body, sponsor, version)
			}
			w.Signature = make([]byte, 64)
			if int(w.Key) < len(p.Keys) {
				w.Signature = s.sign(p.Keys[w.Key], message)
			}
			witnesses = append(witnesses, w)
		}
	} else {
		witnesses = s.witnesses(b, body)
	}
	if text, ok := one(d, "version"); ok || hasKey(d, "network") {
		p, version := s.policyOf(b.Signers[0].Address)
		if ok {
			n, _ := strconv.ParseUint(text, 10, 32)
			version = uint32(n)
		}
		network := s.networkID()
		if hasKey(d, "network") {
			network[0] ^= 1
		}
		witnesses[0].Signature = s.sign(p.Keys[witnesses[0].Key], Preimage(network, body, version))
	}
	if hasKey(d, "forge") {
		forged := slices.Clone(witnesses[0].Signature)
		forged[7] ^= 1
		witnesses[0].Signature = forged
	}
	if sponsor != nil && !hasKey(d, "sign") {
		return s.sponsored(body, witnesses, sponsor, len(b.Signers))
	}
	return Assemble(body, witnesses, sponsor)
}

func hasKey(d *datadriven.TestData, key string) bool {
	return slices.ContainsFunc(d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == key })
}

// bits adds up the values of the names in a list.
func (s *script) bits(list string, names map[string]uint32) (sum uint32) {
	for _, name := range strings.Split(list, ",") {
		if name == "" {
			continue
		}
		v, ok := names[name]
		if !ok {
			n, err := strconv.ParseUint(name, 10, 32)
			if err != nil {
				s.t.Fatalf("%q is none of %v", name, names)
			}
			v = uint32(n)
		}
		sum |= v
	}
	return sum
}

var (
	controlBits  = map[string]uint32{"authorisation": 1, "freeze": 2, "clawback": 4}
	lineBits     = map[string]uint32{"authorised": uint32(LineAuthorised), "in": uint32(LineFrozenIn), "out": uint32(LineFrozenOut)}
	resolverBits = map[string]uint32{"receiver": 1, "arbiter": 2, "holder": 4, "anybody": 8}
	grantKinds   = map[string]uint32{"fees": uint32(KindFees), "transfers": uint32(KindTransfer), "holds": uint32(KindCreateHold)}
)

// limit reads an optional limit.
func (s *script) limit(v map[string]string, key, code string) *Amount {
	text, ok := v[key]
	if !ok {
		return nil
	}
	a := s.amount(text, code)
	return &a
}

// optionalAddress is zero for a name that is not given.
func (s *script) optionalAddress(name string) crypto.Address {
	if name == "" {
		return crypto.Address{}
	}
	return s.address(name)
}

// possess signs for every key of a new policy.
func (s *script) possess(account crypto.Address, p crypto.Policy, version uint32, how string) (proofs [][]byte) {
	message := PossessionPreimage(s.networkID(), account, p.Hash(), version)
	for _, k := range p.Keys {
		proofs = append(proofs, s.sign(k, message))
	}
	switch how {
	case "forged":
		proofs[len(proofs)-1][3] ^= 1
	case "missing":
		proofs = proofs[:len(proofs)-1]
	}
	return proofs
}

func (s *script) operation(d *datadriven.TestData, from []string, line string, at int) Operation {
	v, words := settings(line)
	by := uint32(0)
	if name, ok := v["by"]; ok {
		by = uint32(slices.Index(from, name))
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			by = uint32(n)
		}
	}
	number := func(key string) uint64 {
		n, err := strconv.ParseUint(v[key], 10, 64)
		if err != nil && v[key] != "" {
			d.Fatalf(s.t, "%s", err)
		}
		return n
	}
	var reference Reference
	copy(reference[:], v["ref"])
	code, balancing := uint32(number("code")), Balancing(number("balancing"))
	memo := v["memo"]
	if strings.HasPrefix(memo, "*") {
		n, _ := strconv.Atoi(memo[1:])
		memo = strings.Repeat("m", n)
	}
	assetOf := func(i int) (id AssetID) {
		if i < len(words) {
			id = s.asset(words[i])
		}
		return id
	}
	switch words[0] {
	case "transfer":
		return &Transfer{From: by, To: s.address(v["to"]), Asset: assetOf(2), Amount: s.amount(words[1], words[2]), Reference: reference, Code: code,
			Memo: memo, Balancing: balancing, Granter: s.optionalAddress(v["granter"])}
	case "create_asset":
		scale := uint32(number("scale"))
		supply, err := ParseAmount(v["max"], min(scale, 18))
		if err != nil {
			d.Fatalf(s.t, "%s", err)
		}
		return &CreateAsset{Issuer: by, Code: words[1], Scale: scale, MaxSupply: supply, Controls: Controls(s.bits(v["controls"], controlBits))}
	case "set_policy":
		revoke := words[len(words)-1] == "revoke"
		if revoke {
			words = words[:len(words)-1]
		}
		p, account := s.policy(strings.Join(words[1:], " ")), s.address(from[by])
		_, version := s.policyOf(account)
		return &SetPolicy{Signer: by, Policy: p.Encode(), Proofs: s.possess(account, p, version+1, v["proof"]), RevokeGrants: revoke}
	case "create_hold":
		if words[1] != "-" {
			s.made[at] = words[1]
		}
		o := &CreateHold{Signer: by, To: s.address(v["to"]), Asset: assetOf(3), Amount: s.amount(words[2], words[3]), Reference: reference, Code: code,
			Memo: memo, Balancing: balancing, Granter: s.optionalAddress(v["granter"]), Expires: number("expires"), NotBefore: number("not_before"),
			Arbiter: s.optionalAddress(v["arbiter"]), PostBy: Resolvers(s.bits(v["post"], resolverBits)), VoidBy: Resolvers(s.bits(v["void"], resolverBits)),
			PostAtExpiry: slices.Contains(words, "at_expiry")}
		if secret, ok := v["lock"]; ok {
			o.HashLock = sha256.Sum256([]byte(secret))
		}
		return o
	case "post_hold":
		o := &PostHold{Signer: by, Hold: s.holdID(words[1]), Preimage: []byte(v["preimage"])}
		if n, ok := strings.CutPrefix(v["preimage"], "*"); ok {
			times, _ := strconv.Atoi(n)
			o.Preimage = []byte(strings.Repeat("p", times))
		}
		if len(words) > 2 {
			o.Amount = s.amount(words[2], words[3])
		}
		return o
	case "void_hold":
		return &VoidHold{Signer: by, Hold: s.holdID(words[1])}
	case "set_asset":
		o := &SetAsset{Signer: by, Asset: assetOf(1), DropControls: Controls(s.bits(v["drop"], controlBits)),
			Freeze: LineFlags(s.bits(v["freeze"], lineBits)), Unfreeze: LineFlags(s.bits(v["unfreeze"], lineBits))}
		if text, ok := v["max"]; ok {
			o.MaxSupply = s.amount(text, words[1])
		}
		return o
	case "set_line":
		return &SetLine{Signer: by, Account: s.address(words[1]), Asset: assetOf(2), Set: LineFlags(s.bits(v["set"], lineBits)),
			Clear: LineFlags(s.bits(v["clear"], lineBits)), Credit: s.limit(v, "credit", words[2]), Cap: s.limit(v, "cap", words[2])}
	case "clawback":
		return &Clawback{Signer: by, Account: s.address(words[1]), Asset: assetOf(3), Amount: s.amount(words[2], words[3]), Reference: reference,
			Code: code, Memo: memo, Balancing: balancing}
	case "open_line":
		return &OpenLine{Signer: by, Asset: assetOf(1), Ceiling: s.limit(v, "ceiling", words[1])}
	case "close_line":
		return &CloseLine{Signer: by, Asset: assetOf(1), To: s.address(v["to"])}
	case "set_account":
		return &SetAccount{Signer: by, OptIn: v["opt_in"] == "yes"}
	case "close_account":
		return &CloseAccount{Signer: by, To: s.address(v["to"])}
	case "set_grant":
		o := &SetGrant{Signer: by, Grantee: s.address(words[1]), For: Kind(s.bits(v["for"], grantKinds)), Asset: assetOf(2), Period: uint32(number("period")),
			Until: number("until"), To: s.optionalAddress(v["to"])}
		unit := s.genesis.State.Parameters.FeeAsset
		if len(words) > 2 {
			unit = words[2]
		}
		if each := s.limit(v, "each", unit); each != nil {
			o.PerPeriod = *each
		}
		if all := s.limit(v, "total", unit); all != nil {
			o.Total = *all
		}
		return o
	case "revoke_grant":
		return &RevokeGrant{Signer: by, Grantee: s.address(words[1]), For: Kind(s.bits(v["for"], grantKinds)), Asset: assetOf(2)}
	case "start_recovery":
		return &StartRecovery{Signer: by, Account: s.address(words[1]), PolicyHash: s.policy(strings.Join(words[2:], " ")).Hash()}
	case "cancel_recovery":
		return &CancelRecovery{Signer: by, Account: s.address(words[1])}
	case "finish_recovery":
		p, account := s.policy(strings.Join(words[2:], " ")), s.address(words[1])
		return &FinishRecovery{Signer: by, Account: account, Policy: p.Encode(), Proofs: s.possess(account, p, RecoveryVersion, v["proof"])}
	}
	switch feeAsset := s.genesis.State.Parameters.FeeAsset; words[0] {
	case "bond":
		return &Bond{Signer: by, Amount: s.amount(words[1], feeAsset)}
	case "release_bond":
		return &ReleaseBond{Signer: by}
	case "reactivate":
		return &Reactivate{Signer: by}
	case "approve":
		return &Approve{Signer: by, Proposal: s.proposalID(words[1]), Withdraw: len(words) > 2}
	case "propose":
		s.proposed[at] = words[1]
		return &Propose{Signer: by, Expires: number("expires"), Change: s.change(v, words[2:], number)}
	}
	d.Fatalf(s.t, "unknown operation %q", line)
	return nil
}

// consensusKey returns the consensus key of a name, of which otherwise says it where it is empty; pq: in front asks for ML-DSA-65.
func (s *script) consensusKey(name, otherwise string) crypto.PrivateKey {
	if name == "" {
		name = otherwise
	}
	k := newKey(s.t, crypto.Ed25519, name)
	if strings.HasPrefix(name, "pq") {
		k = newKey(s.t, crypto.MLDSA65, name)
	}
	s.consensus[string(k.Public())] = name
	return k
}

func (s *script) consensusAddress(name string) ConsensusAddress {
	return Validator{PublicKey: s.consensusKey(name, "").Public()}.Address()
}

// consensusProof proves possession of a new consensus key.
func (s *script) consensusProof(k crypto.PrivateKey, operator crypto.Address, how string) []byte {
	switch how {
	case "none":
		return nil
	case "", "forged":
	default:
		operator = s.address(how)
	}
	proof, err := k.Sign(ConsensusKeyPreimage(s.networkID(), operator, k.Scheme(), k.Public()))
	if err != nil {
		s.t.Fatal(err)
	}
	if how == "forged" {
		proof[7] ^= 1
	}
	return proof
}

func (s *script) change(v map[string]string, words []string, number func(string) uint64) Change {
	operator := s.optionalAddress(v["operator"])
	switch words[0] {
	case "add":
		k := s.consensusKey(words[1], "")
		name := v["name"]
		if strings.HasPrefix(name, "*") {
			n, _ := strconv.Atoi(name[1:])
			name = strings.Repeat("n", n)
		}
		return &AddValidator{Operator: operator, Scheme: k.Scheme(), PublicKey: k.Public(), Power: number("power"), Name: name, Proof: s.consensusProof(k, operator, v["proof"])}
	case "remove":
		return &RemoveValidator{Validator: s.consensusAddress(words[1])}
	case "power":
		power, _ := strconv.ParseUint(words[2], 10, 64)
		return &SetPower{Validator: s.consensusAddress(words[1]), Power: power}
	case "rotate":
		k := s.consensusKey(words[2], "")
		return &RotateKey{Validator: s.consensusAddress(words[1]), Operator: operator, Scheme: k.Scheme(), PublicKey: k.Public(), Proof: s.consensusProof(k, operator, v["proof"])}
	case "parameters":
		p := s.block.nextParameters()
		o := &SetParameters{Before: ParametersHash(p.encode())}
		for _, key := range sortedStrings(v) {
			switch key {
			case "expires", "by":
			case "before":
				o.Before = crypto.Hash{1}
			case "fee_asset":
				p.FeeAsset = s.asset(v[key])
			case "collector":
				p.FeeCollector = s.address(v[key])
			case "base":
				p.FeeBase = number(key)
			case "bond":
				p.Bond = number(key)
			case "bond_seconds":
				p.BondSeconds = uint32(number(key))
			case "max_missed":
				p.MaxMissed = uint32(number(key))
			default:
				s.t.Fatalf("unknown parameter %s", key)
			}
		}
		o.Parameters = p
		return o
	}
	s.t.Fatalf("unknown change %v", words)
	return nil
}

// proposalID finds a proposal by its name; names that no proposal has got name none.
func (s *script) proposalID(name string) crypto.Hash {
	if id, ok := s.proposals[name]; ok {
		return id
	}
	return sha256.Sum256([]byte("no proposal " + name))
}

func (s *script) proposalName(id crypto.Hash) string {
	for name, proposal := range s.proposals { // no two names have one proposal
		if proposal == id {
			return name
		}
	}
	return "-"
}

// showValidators shows the set, and what is counted of missed blocks.
func (s *script) showValidators() string {
	set, _ := scriptRow(s, func(s *state) *table[struct{}, []Validator] { return s.validators }, struct{}{})
	var lines []string
	for _, v := range set {
		out := fmt.Sprintf("%s: power %d", s.consensus[string(v.PublicKey)], v.Power)
		if v.Operator != (crypto.Address{}) {
			out += ", operator " + s.name(v.Operator)
		}
		if v.Name != "" {
			out += fmt.Sprintf(", name %q", v.Name)
		}
		if v.InactivePower != 0 {
			out += fmt.Sprintf(", inactive %d", v.InactivePower)
		}
		if v.Left != 0 {
			out += fmt.Sprintf(", left %d", v.Left)
		}
		if v.Tombstoned != 0 {
			out += fmt.Sprintf(", tombstoned %d", v.Tombstoned)
		}
		if m, ok := scriptRow(s, func(s *state) *table[ConsensusAddress, Missed] { return s.missed }, v.Address()); ok {
			out += fmt.Sprintf(", missed %d of window %d", m.Count, m.Window)
		}
		lines = append(lines, out+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (s *script) showProposals() string {
	list, _ := scriptRow(s, func(s *state) *table[struct{}, []ListedProposal] { return s.proposalList }, struct{}{})
	var out strings.Builder
	for _, l := range list {
		p, ok := scriptRow(s, func(s *state) *table[crypto.Hash, Proposal] { return s.proposals }, l.ID)
		if !ok || p.Proposer != l.Proposer || p.Expires != l.Expires {
			s.t.Fatalf("the list has %+v, the row says %+v", l, p)
		}
		var approvals []string
		for _, a := range p.Approvals {
			approvals = append(approvals, s.name(a))
		}
		slices.Sort(approvals)
		fmt.Fprintf(&out, "%s: %s by %s at height %d, expires %d, approved by %s\n", s.proposalName(l.ID), p.Change.Kind(), s.name(p.Proposer), p.Height, p.Expires,
			strings.Join(approvals, " "))
	}
	return out.String()
}

// holdID finds a hold by its name; names that no hold has got name none.
func (s *script) holdID(name string) crypto.Hash {
	if operator, ok := strings.CutPrefix(name, "bond:"); ok {
		return BondID(s.address(operator))
	}
	if id, ok := s.holds[name]; ok {
		return id
	}
	return sha256.Sum256([]byte("no hold " + name))
}

func (s *script) holdName(id crypto.Hash) string {
	for name, hold := range s.holds { // no two names have one hold
		if hold == id {
			return name
		}
	}
	for a, name := range s.names {
		if BondID(a) == id {
			return "bond:" + name
		}
	}
	return "-"
}

func (s *script) malformed(err error) string {
	if _, ok := err.(*canonical.Error); !ok {
		s.t.Fatalf("the error is a %T: %s", err, err)
	}
	text := err.Error()
	for a, name := range s.names {
		text = strings.ReplaceAll(text, a.String(), name)
	}
	s.covered[Malformed] = true
	return "malformed: " + text + "\n"
}

func (s *script) apply(raw []byte) string {
	tx, err := Decode(raw)
	if err != nil {
		return s.malformed(err)
	}
	if again := Assemble(tx.Body.Encode(), tx.Witnesses, tx.Sponsor); string(again) != string(raw) {
		s.t.Fatalf("encodes to %x, was %x", again, raw)
	}
	check, err := s.block.Check(tx, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := s.block.Apply(tx)
	if err != nil {
		s.t.Fatal(err)
	}
	if check != r.Code && (check != OK || r.Code.Refused()) {
		s.t.Fatalf("Check says %s, Apply says %s: %+v", check, r.Code, tx.Body.Operations[len(tx.Body.Operations)-1])
	}
	decoded, err := DecodeReceipt(r.Encode())
	if err != nil || string(decoded.Encode()) != string(r.Encode()) {
		s.t.Fatalf("receipt %+v does not survive its encoding: %+v, %v", r, decoded, err)
	}
	s.covered[r.Code] = true
	if r.Code.Refused() {
		return r.Code.String() + "\n"
	}
	feeScale := s.scale(s.genesis.State.Parameters.FeeAsset)
	text := fmt.Sprintf("%s, fee %s", r.Code, r.Fee.Format(feeScale))
	if !r.Deposit.IsZero() {
		text += ", deposit " + r.Deposit.Format(feeScale)
	}
	if r.Failed != 0 {
		text += fmt.Sprintf(", operation %d", r.Failed-1)
	}
	var last string
	times := 1
	flush := func() {
		if times > 1 {
			text += fmt.Sprintf(" (%d times)", times)
		}
		times = 1
	}
	for i, o := range r.Results {
		now := s.result(tx.Body.Operations[i], o)
		if i > 0 && now == last && now != "" {
			times++
			continue
		}
		flush()
		if last = now; now != "" {
			text += "; " + now
		}
	}
	flush()
	return text + "\n"
}

// result describes what one operation gave.
func (s *script) result(op Operation, o OperationResult) string {
	asset := func(id AssetID) (string, uint32) {
		a, _ := s.block.state.asset(id)
		return a.Code, a.Scale
	}
	text := op.Kind().String()
	switch op := op.(type) {
	case *Transfer:
		code, scale := asset(op.Asset)
		text += " " + o.Amount.Format(scale) + " " + code
	case *CreateHold:
		code, scale := asset(op.Asset)
		s.scales[o.Hold] = scale
		text += " " + s.holdName(o.Hold) + " " + o.Amount.Format(scale) + " " + code
		if _, ok := s.block.state.holds.get(o.Hold); !ok {
			s.t.Fatalf("the receipt names the hold %s, which is not there", o.Hold)
		}
	case *Clawback:
		code, scale := asset(op.Asset)
		text += " " + o.Amount.Format(scale) + " " + code
	case *PostHold:
		text += " " + s.holdName(op.Hold) + " " + o.Amount.Format(s.scales[op.Hold])
	case *VoidHold:
		text += " " + s.holdName(op.Hold) + " " + o.Amount.Format(s.scales[op.Hold])
	case *CreateAsset:
		code, _ := asset(o.Asset)
		text += " " + code
	case *Bond:
		text += " " + o.Amount.Format(s.scale(s.genesis.State.Parameters.FeeAsset))
		if h, ok := s.block.state.holds.get(o.Hold); !ok || !h.Bond {
			s.t.Fatalf("the receipt names the bond %s, which is there as %+v", o.Hold, h)
		}
	case *ReleaseBond:
		text += " " + o.Amount.Format(s.scale(s.genesis.State.Parameters.FeeAsset))
	case *Propose:
		text += " " + s.proposalName(o.Proposal)
		if o.Executed {
			text += ", executed"
		}
	case *Approve:
		if !o.Executed {
			return ""
		}
		text += " " + s.proposalName(op.Proposal) + ", executed"
	default:
		if o != (OperationResult{}) {
			s.t.Fatalf("%s gives %+v", text, o)
		}
		return ""
	}
	return text
}

func (s *script) runEnd(d *datadriven.TestData) string {
	var evidence []Misbehavior
	for _, name := range many(d, "evidence") {
		evidence = append(evidence, Misbehavior{Validator: s.consensusAddress(name), Height: s.height - 1})
	}
	set, err := DecodeValidators(s.memory[string(ValidatorsRow())])
	if err != nil {
		s.t.Fatal(err)
	}
	s.votes = nil
	missed := many(d, "missed")
	for _, v := range set {
		if v.Active() {
			s.votes = append(s.votes, Vote{Validator: v.Address(), Signed: !slices.Contains(missed, s.consensus[string(v.PublicKey)])})
		}
	}
	for _, name := range missed { // also those that are not in the set
		s.votes = append(s.votes, Vote{Validator: s.consensusAddress(name)})
	}
	o := s.end(evidence...)
	if hasKey(d, "count") {
		kinds := map[string]int{}
		for _, le := range o.Entries {
			e, err := DecodeEntry(le.Encoded)
			if err != nil {
				s.t.Fatal(err)
			}
			kinds[e.Kind.String()]++
		}
		var out strings.Builder
		for _, kind := range sortedStrings(kinds) {
			fmt.Fprintf(&out, "%d entries of kind %s\n", kinds[kind], kind)
		}
		return out.String()
	}
	var out strings.Builder
	for _, le := range o.Entries {
		e, err := DecodeEntry(le.Encoded)
		if err != nil {
			s.t.Fatal(err)
		}
		if again := e.Encode(); string(again) != string(le.Encoded) {
			s.t.Fatalf("entry %x encodes to %x", le.Encoded, again)
		}
		asset, _ := DecodeAsset(s.memory[string(AssetRow(le.Line.Asset))])
		side := "debit"
		if e.Credit {
			side = "credit"
		}
		incarnation := ""
		if le.Incarnation != 0 {
			incarnation = fmt.Sprintf(" (incarnation %d)", le.Incarnation)
		}
		fmt.Fprintf(&out, "%s %s%s #%d: %s %s %s, with %s, debits %s credits %s", s.name(le.Line.Account), asset.Code, incarnation, e.Number, e.Kind, side,
			e.Amount.Format(asset.Scale), s.name(e.Counterparty), counters(e.DebitsPosted, e.DebitsPending, asset.Scale),
			counters(e.CreditsPosted, e.CreditsPending, asset.Scale))
		if e.Hold != (crypto.Hash{}) {
			fmt.Fprintf(&out, ", %s", s.holdName(e.Hold))
		}
		if e.Reference != (Reference{}) || e.Code != 0 {
			fmt.Fprintf(&out, ", ref %q code %d", strings.TrimRight(string(e.Reference[:]), "\x00"), e.Code)
		}
		if e.TxID == (crypto.Hash{}) && e.Kind != EntryFees && e.Kind != EntryDeposits && e.Kind != EntryRefunds {
			out.WriteString(", by the block")
		}
		out.WriteByte('\n')
	}
	for _, u := range o.Updates {
		fmt.Fprintf(&out, "validator %x...: power %d, tombstoned %d\n", u.PublicKey[:4], u.Power, u.Tombstoned)
	}
	if hasKey(d, "writes") {
		for _, w := range o.Writes {
			verb := "write"
			if w.Value == nil {
				verb = "delete"
			}
			tree, ok := TreeOf(w.Key)
			if !ok {
				tree = "beside the trees"
			}
			if rowNames[w.Key[0]].name == "" {
				s.t.Fatalf("row %x has no name here", w.Key)
			}
			fmt.Fprintf(&out, "%s %s (%s)\n", verb, rowNames[w.Key[0]].name, tree)
		}
	}
	if rate, err := DecodeFeeRate(s.memory[string(FeeRateRow())]); err != nil {
		s.t.Fatal(err)
	} else if rate != s.rate {
		s.rate = rate
		fmt.Fprintf(&out, "fees at %s\n", Units(uint64(rate.Multiplier)).Format(3))
	}
	return out.String()
}

func (s *script) showReplay() string {
	var out strings.Builder
	for _, key := range sortedStrings(s.memory) {
		switch key[0] {
		case rowBucket:
			b, _ := decodeBucket(s.memory[key])
			fmt.Fprintf(&out, "second %d: %d nonces\n", unixSecond([]byte(key)), b.Count)
		case rowReplay:
			t, _ := decodeReplayTotals(s.memory[key])
			fmt.Fprintf(&out, "removed through %d, %d open\n", t.PrunedThrough, t.Open)
		case rowNonce:
			fmt.Fprintf(&out, "nonce of %s: %q\n", s.name(crypto.Address([]byte(key[9:41]))), strings.TrimRight(key[41:], "\x00"))
		}
	}
	return out.String()
}

// counters writes a posted counter, and the pending one behind it when there is something.
func counters(posted, pending Amount, scale uint32) string {
	if pending.IsZero() {
		return posted.Format(scale)
	}
	return posted.Format(scale) + "+" + pending.Format(scale)
}

// scriptRow reads a row of the open block, or of the state. Of the block, what is provisional counts.
func scriptRow[K comparable, V any](s *script, of func(*state) *table[K, V], k K) (v V, ok bool) {
	if s.block != nil {
		return of(s.block.state).get(k)
	}
	return of(newState(s.memory)).get(k)
}

// deposit describes the deposit of a row; that of somebody else than the row's owner with who put it down.
func (s *script) deposit(amount Amount, depositor crypto.Address) string {
	if amount.IsZero() {
		return ""
	}
	out := ", deposit " + amount.Format(s.scale(s.genesis.State.Parameters.FeeAsset))
	if depositor != (crypto.Address{}) {
		out += " of " + s.name(depositor)
	}
	return out
}

func (s *script) showLine(name, code string) string {
	k := LineKey{s.address(name), s.asset(code)}
	l, ok := scriptRow(s, func(s *state) *table[LineKey, Line] { return s.lines }, k)
	if !ok {
		return "no row\n"
	}
	asset, _ := scriptRow(s, func(s *state) *table[AssetID, Asset] { return s.assets }, k.Asset)
	balance, negative := l.Balance()
	sign := ""
	if negative {
		sign = "-"
	}
	out := fmt.Sprintf("debits %s credits %s balance %s%s available %s entries %d", counters(l.DebitsPosted, l.DebitsPending, asset.Scale),
		counters(l.CreditsPosted, l.CreditsPending, asset.Scale), sign, balance.Format(asset.Scale), l.Spendable(asset, k).Format(asset.Scale), l.Entries)
	for i, flag := range []string{"authorised", "frozen in", "frozen out"} {
		if l.Flags&(1<<i) != 0 {
			out += ", " + flag
		}
	}
	for _, limit := range []struct {
		name   string
		amount Amount
		scale  uint32
	}{{"ceiling", l.Ceiling, asset.Scale}, {"credit", l.Credit, asset.Scale}, {"cap", l.Cap, asset.Scale}} {
		if !limit.amount.IsZero() {
			out += ", " + limit.name + " " + limit.amount.Format(limit.scale)
		}
	}
	out += s.deposit(l.Deposit, l.Depositor)
	if l.Incarnation != 0 {
		out += fmt.Sprintf(", incarnation %d", l.Incarnation)
	}
	return out + "\n"
}

func (s *script) showAccount(name string) string {
	address := s.address(name)
	out := "no row"
	if a, known := s.account(address); known {
		p, _ := s.policyOf(address)
		out = fmt.Sprintf("sequence %d, policy version %d, threshold %d of %d keys", a.Sequence, a.PolicyVersion, p.Threshold, len(p.Keys))
		if p.ChangeThreshold != 0 {
			out += fmt.Sprintf(", %d to change", p.ChangeThreshold)
		}
		if p.Recovery != nil {
			out += fmt.Sprintf(", recovery by %s after %d seconds", s.name(p.Recovery.Account), p.Recovery.DelaySeconds)
		}
		if a.Flags&AccountOptIn != 0 {
			out += ", opt-in"
		}
		if a.Flags&AccountClosedFlag != 0 {
			out += ", closed"
		}
		out += s.deposit(a.Deposit, a.Depositor)
		if a.Epoch != 0 {
			out += fmt.Sprintf(", epoch %d", a.Epoch)
		}
		if a.ClosedLines != 0 {
			out += fmt.Sprintf(", closed lines %d, head %x", a.ClosedLines, a.ClosedHead[:4])
		}
		if a.Recovery != (Recovery{}) {
			out += fmt.Sprintf(", recovery ready at %d", a.Recovery.ReadyAt)
		}
	}
	if h, ok := scriptRow(s, func(s *state) *table[crypto.Address, Holdings] { return s.holdings }, address); ok {
		out += fmt.Sprintf(", holdings: lines %d, grants %d, assets %d", h.Lines, h.Grants, h.Assets)
	}
	return out + "\n"
}

func (s *script) showAsset(code string) string {
	a, ok := scriptRow(s, func(s *state) *table[AssetID, Asset] { return s.assets }, s.asset(code))
	if !ok {
		return "no row\n"
	}
	out := fmt.Sprintf("issuer %s, scale %d, maximum %s, controls [%s]", s.name(a.Issuer), a.Scale, a.MaxSupply.Format(a.Scale),
		strings.Join(a.Controls.Names(), " "))
	if a.Frozen&LineFrozenIn != 0 {
		out += ", frozen in"
	}
	if a.Frozen&LineFrozenOut != 0 {
		out += ", frozen out"
	}
	if !a.Credit.IsZero() {
		out += ", credit " + a.Credit.Format(a.Scale)
	}
	return out + "\n"
}

func (s *script) showHold(name string) string {
	h, ok := scriptRow(s, func(s *state) *table[crypto.Hash, Hold] { return s.holds }, s.holdID(name))
	if !ok {
		return "no row\n"
	}
	asset, _ := scriptRow(s, func(s *state) *table[AssetID, Asset] { return s.assets }, h.Asset)
	out := fmt.Sprintf("%s %s from %s to %s, expires %d slot %d, not before %d, arbiter %s, post by %d, void by %d", h.Amount.Format(asset.Scale), asset.Code,
		s.name(h.From), s.name(h.To), h.Expires, h.Slot, h.NotBefore, s.name(h.Arbiter), h.PostBy, h.VoidBy)
	if h.HashLock != (crypto.Hash{}) {
		out += ", locked"
	}
	if h.Bond {
		out += ", bond"
	}
	if h.PostAtExpiry {
		out += ", posted at expiry"
	}
	return out + s.deposit(h.Deposit, h.Depositor) + "\n"
}

func (s *script) showGrant(d *datadriven.TestData) string {
	k := GrantKey{Granter: s.address(d.CmdArgs[0].Key), Grantee: s.address(d.CmdArgs[1].Key), Kind: Kind(s.bits(d.CmdArgs[2].Key, grantKinds))}
	scale := s.scale(s.genesis.State.Parameters.FeeAsset)
	if len(d.CmdArgs) > 3 {
		k.Asset, scale = s.asset(d.CmdArgs[3].Key), s.scale(d.CmdArgs[3].Key)
	}
	g, ok := scriptRow(s, func(s *state) *table[GrantKey, Grant] { return s.grants }, k)
	if !ok {
		return "no row\n"
	}
	out := fmt.Sprintf("begun %d, until %d, to %s, epoch %d", g.Begun, g.Until, s.name(g.To), g.Epoch)
	if !g.PerPeriod.IsZero() {
		out += fmt.Sprintf(", %s of %s in period %d of %d seconds", g.SpentInPeriod.Format(scale), g.PerPeriod.Format(scale), g.PeriodNumber, g.Period)
	}
	if !g.Total.IsZero() {
		out += fmt.Sprintf(", %s of %s in all", g.Spent.Format(scale), g.Total.Format(scale))
	}
	return out + s.deposit(g.Deposit, g.Depositor) + "\n"
}

// showQueue shows the queue of holds, as the last block has left it.
func (s *script) showQueue() string {
	var out strings.Builder
	for _, key := range sortedStrings(s.memory) {
		switch key[0] {
		case rowDueCount:
			n, _ := decodeNumber(s.memory[key])
			fmt.Fprintf(&out, "second %d: %d holds\n", unixSecond([]byte(key)), n)
		case rowDueSlot:
			id, _ := decodeHash(s.memory[key])
			fmt.Fprintf(&out, "second %d slot %d: %s\n", unixSecond([]byte(key)), key[12], s.holdName(id))
		case rowDue:
			t, _ := decodeDueTotals(s.memory[key])
			fmt.Fprintf(&out, "gone through %d, %d open\n", t.Through, t.Open)
		}
	}
	return out.String()
}
