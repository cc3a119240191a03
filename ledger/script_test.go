package ledger

import (
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
//	genesis                                  input: parameters k=v..., asset CODE issuer= scale= max=, balance NAME AMOUNT CODE, validator NAME power=
//	block time=SECONDS[.mmm]                 begins a block
//	tx from=(NAME,...) [seq=(N or nonce,...)] [until=SECONDS] [max=AMOUNT] [policy=none|all|NAME] [sign=(SIGNER/KEY,...)]
//	   [forge] [version=N] [network=other]   input: operations; "100x" in front of one repeats it
//	check ... [ahead=N]                      the same, but only asks whether it would be admitted
//	raw                                      input: hex of a transaction
//	again                                    the last transaction's bytes once more
//	end [evidence=(NAME,...)]                ends the block: journal entries, validator updates, kinds of rows written
//	show NAME CODE, account NAME, replay     rows
//
// In operations, by=NAME is the signer that acts, the first one unless said; CHF@bob is an asset that bob is about to create.
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
		l := s.line(d.CmdArgs[0].Key, d.CmdArgs[1].Key)
		balance, negative := l.Balance()
		sign := ""
		if negative {
			sign = "-"
		}
		scale := s.scale(d.CmdArgs[1].Key)
		return fmt.Sprintf("debits %s credits %s balance %s%s available %s entries %d\n", l.DebitsPosted.Format(scale),
			l.CreditsPosted.Format(scale), sign, balance.Format(scale), l.Available().Format(scale), l.Entries)
	case "account":
		a, known := s.account(s.address(d.CmdArgs[0].Key))
		if !known {
			return "no row\n"
		}
		p, _ := s.policyOf(s.address(d.CmdArgs[0].Key))
		return fmt.Sprintf("sequence %d, policy version %d, threshold %d of %d keys\n", a.Sequence, a.PolicyVersion, p.Threshold, len(p.Keys))
	case "replay":
		return s.showReplay()
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
				case "creators":
					for _, name := range strings.Split(v, ",") {
						p.AssetCreators = append(p.AssetCreators, s.address(name))
					}
					slices.SortFunc(p.AssetCreators, func(a, b crypto.Address) int { return slices.Compare(a[:], b[:]) })
				default:
					d.Fatalf(t, "unknown parameter %s", k)
				}
			}
		case "asset":
			s.addAsset(words[1], v["issuer"], uint32(number(v["scale"])), v["max"])
		case "balance":
			s.addBalance(words[1], words[2], words[3])
		case "validator":
			s.addValidator(words[1], crypto.Ed25519, number(v["power"]))
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
	if text, ok := one(d, "max"); ok {
		b.MaxFee = s.amount(text, s.genesis.State.Parameters.FeeAsset)
	}
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
			b.Operations = append(b.Operations, s.operation(d, from, line))
		}
	}
	body := b.encode()
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
			p, version := s.policyOf(b.Signers[w.Signer].Address)
			w.Signature = make([]byte, 64)
			if int(w.Key) < len(p.Keys) {
				w.Signature = s.sign(p.Keys[w.Key], Preimage(s.networkID(), body, version))
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
	return Assemble(body, witnesses, nil)
}

func hasKey(d *datadriven.TestData, key string) bool {
	return slices.ContainsFunc(d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == key })
}

func (s *script) operation(d *datadriven.TestData, from []string, line string) Operation {
	v, words := settings(line)
	by := uint32(0)
	if name, ok := v["by"]; ok {
		by = uint32(slices.Index(from, name))
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			by = uint32(n)
		}
	}
	switch words[0] {
	case "transfer":
		o := &Transfer{From: by, To: s.address(v["to"]), Asset: s.asset(words[2]), Amount: s.amount(words[1], words[2]), Memo: v["memo"]}
		if strings.HasPrefix(o.Memo, "*") {
			n, _ := strconv.Atoi(o.Memo[1:])
			o.Memo = strings.Repeat("m", n)
		}
		copy(o.Reference[:], v["ref"])
		code, _ := strconv.ParseUint(v["code"], 10, 32)
		o.Code = uint32(code)
		return o
	case "create_asset":
		scale, _ := strconv.ParseUint(v["scale"], 10, 32)
		supply, err := ParseAmount(v["max"], uint32(min(scale, 18)))
		if err != nil {
			d.Fatalf(s.t, "%s", err)
		}
		return &CreateAsset{Issuer: by, Code: words[1], Scale: uint32(scale), MaxSupply: supply}
	case "set_policy":
		p := s.policy(strings.Join(words[1:], " "))
		account := s.address(from[by])
		_, version := s.policyOf(account)
		o := &SetPolicy{Signer: by, Policy: p.Encode()}
		message := PossessionPreimage(s.networkID(), account, p.Hash(), version+1)
		for _, k := range p.Keys {
			o.Proofs = append(o.Proofs, s.sign(k, message))
		}
		switch v["proof"] {
		case "forged":
			o.Proofs[len(o.Proofs)-1][3] ^= 1
		case "missing":
			o.Proofs = o.Proofs[:len(o.Proofs)-1]
		}
		return o
	}
	d.Fatalf(s.t, "unknown operation %q", line)
	return nil
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
		s.t.Fatalf("Check says %s, Apply says %s", check, r.Code)
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
	if r.Failed != 0 {
		text += fmt.Sprintf(", operation %d", r.Failed-1)
	}
	return text + "\n"
}

func (s *script) runEnd(d *datadriven.TestData) string {
	var evidence []Misbehavior
	for _, name := range many(d, "evidence") {
		v := Validator{PublicKey: newKey(s.t, crypto.Ed25519, name).Public()}
		evidence = append(evidence, Misbehavior{Validator: v.Address(), Height: s.height - 1})
	}
	o := s.end(evidence...)
	var out strings.Builder
	for _, le := range o.Entries {
		e, err := DecodeEntry(le.Encoded)
		if err != nil {
			s.t.Fatal(err)
		}
		asset, _ := DecodeAsset(s.memory[string(AssetRow(le.Line.Asset))])
		side := "debit"
		if e.Credit {
			side = "credit"
		}
		kind := map[EntryKind]string{EntryTransfer: "transfer", EntryFee: "fee", EntryFees: "fees"}[e.Kind]
		fmt.Fprintf(&out, "%s %s #%d: %s %s %s, with %s, debits %s credits %s\n", s.name(le.Line.Account), asset.Code, e.Number, kind, side,
			e.Amount.Format(asset.Scale), s.name(e.Counterparty), e.DebitsPosted.Format(asset.Scale), e.CreditsPosted.Format(asset.Scale))
	}
	for _, u := range o.Updates {
		fmt.Fprintf(&out, "validator %x...: power %d, tombstoned %d\n", u.PublicKey[:4], u.Power, u.Tombstoned)
	}
	if hasKey(d, "writes") {
		names := map[byte]string{rowAccount: "account", rowLine: "line", rowAsset: "asset", rowCode: "code", rowBucket: "bucket", rowReplay: "replay",
			rowValidators: "validators", rowPolicy: "policy", rowNonce: "nonce", rowNonceNumber: "nonce number"}
		for _, w := range o.Writes {
			verb := "write"
			if w.Value == nil {
				verb = "delete"
			}
			tree, ok := TreeOf(w.Key)
			if !ok {
				tree = "beside the trees"
			}
			fmt.Fprintf(&out, "%s %s (%s)\n", verb, names[w.Key[0]], tree)
		}
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
