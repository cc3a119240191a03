package render_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/pacioli-ledger/pacioli/client/render"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

var update = flag.Bool("update", false, "write the golden files anew")

func key(t testing.TB, scheme crypto.Scheme, name string) crypto.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := crypto.NewPrivateKey(scheme, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return crypto.Key{Scheme: scheme, Public: k.Public(), Weight: 1}
}

func policy(t testing.TB, threshold uint32, keys ...crypto.Key) crypto.Policy {
	t.Helper()
	p, err := crypto.NewPolicy(threshold, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// world is what the bodies of these tests are made of.
type world struct {
	alice, bob, carol, dora crypto.Policy
	shared                  crypto.Policy // with everything that a policy can have
	eur                     ledger.AssetID
	context                 render.Context
}

func newWorld(t testing.TB) world {
	w := world{alice: policy(t, 1, key(t, crypto.Ed25519, "alice")), bob: policy(t, 1, key(t, crypto.Secp256k1, "bob")),
		carol: policy(t, 1, key(t, crypto.Ed25519, "carol")), dora: policy(t, 1, key(t, crypto.Ed25519, "dora"))}
	w.shared = policy(t, 2, key(t, crypto.Ed25519, "one"), key(t, crypto.MLDSA44, "two"), key(t, crypto.Secp256k1, "three"))
	w.shared = must[crypto.Policy](t)(w.shared.WithChangeThreshold(3))
	w.shared = must[crypto.Policy](t)(w.shared.WithRecovery(w.dora.Address(), 3*24*3600+90))
	w.eur = ledger.NewAssetID(w.dora.Address(), "EUR")
	pac := ledger.NewAssetID(w.dora.Address(), "PAC")
	w.context = render.Context{Network: ledger.Network{ChainID: "golden", ID: crypto.Hash{7}}, FeeAsset: pac,
		Assets: map[ledger.AssetID]ledger.Asset{w.eur: {Issuer: w.dora.Address(), Code: "EUR", Scale: 2}, pac: {Issuer: w.dora.Address(), Code: "PAC", Scale: 6}},
		Names:  map[crypto.Address]string{w.alice.Address(): "alice", w.carol.Address(): "carol"}}
	return w
}

func amount(n uint64) *ledger.Amount { a := ledger.Units(n); return &a }

// operations has one operation of each kind, every field of which is set.
func (w world) operations() []ledger.Operation {
	bob, carol, dora := w.bob.Address(), w.carol.Address(), w.dora.Address()
	proofs := [][]byte{{1}, {2}, {3}}
	return []ledger.Operation{
		&ledger.Transfer{To: carol, Asset: w.eur, Amount: ledger.Units(1250), Reference: ledger.Reference{1}, Code: 7, Memo: `for the "roof" \ Grüße`, Balancing: ledger.BalancingDebit | ledger.BalancingCredit, Granter: dora},
		&ledger.CreateAsset{Code: "GOLD", Scale: 3, MaxSupply: ledger.Units(5_000_000), MetadataHash: bytes.Repeat([]byte{9}, 32), Controls: ledger.ControlAuthorisation | ledger.ControlFreeze | ledger.ControlClawback},
		&ledger.SetPolicy{Policy: w.shared.Encode(), Proofs: proofs, RevokeGrants: true},
		&ledger.CreateHold{To: carol, Asset: w.eur, Amount: ledger.Units(99), Reference: ledger.Reference{2}, Code: 8, Memo: "escrow", Balancing: ledger.BalancingDebit, Granter: dora, Expires: 1_900_000_000,
			NotBefore: 1_800_000_000, Arbiter: bob, HashLock: crypto.Hash{5}, PostBy: ledger.ByReceiver | ledger.ByArbiter | ledger.ByHolder | ledger.ByAnybody, VoidBy: ledger.ByReceiver | ledger.ByArbiter | ledger.ByHolder},
		&ledger.PostHold{Hold: crypto.Hash{6}, Amount: ledger.Units(98), Preimage: []byte("open sesame")},
		&ledger.VoidHold{Hold: crypto.Hash{7}},
		&ledger.SetAsset{Asset: w.eur, DropControls: ledger.ControlClawback, MaxSupply: ledger.Units(1_000_000), Freeze: ledger.LineFrozenIn, Unfreeze: ledger.LineFrozenOut},
		&ledger.SetLine{Account: carol, Asset: w.eur, Set: ledger.LineAuthorised, Clear: ledger.LineFrozenIn | ledger.LineFrozenOut, Credit: amount(500), Cap: amount(0)},
		&ledger.Clawback{Account: carol, Asset: w.eur, Amount: ledger.Units(3), Reference: ledger.Reference{3}, Code: 9, Memo: "by court order", Balancing: ledger.BalancingDebit},
		&ledger.OpenLine{Asset: w.eur, Ceiling: amount(70_000)},
		&ledger.CloseLine{Asset: w.eur, To: carol},
		&ledger.SetAccount{OptIn: true},
		&ledger.CloseAccount{To: carol},
		&ledger.SetGrant{Grantee: carol, For: ledger.KindTransfer, Asset: w.eur, PerPeriod: ledger.Units(1000), Period: 2_592_000, Total: ledger.Units(12_000), Until: 1_900_000_000, To: dora},
		&ledger.RevokeGrant{Grantee: carol, For: ledger.KindCreateHold, Asset: w.eur},
		&ledger.StartRecovery{Account: carol, PolicyHash: crypto.Hash{8}},
		&ledger.CancelRecovery{Account: carol},
		&ledger.FinishRecovery{Account: carol, Policy: w.shared.Encode(), Proofs: proofs},
		&ledger.Bond{Amount: ledger.Units(1_000_000_000)},
		&ledger.ReleaseBond{},
		&ledger.Propose{Expires: 1_900_000_000, Change: w.changes()[0]},
		&ledger.Approve{Proposal: crypto.Hash{9}},
		&ledger.Reactivate{},
	}
}

// changes has one change of each kind, every field of which is set.
func (w world) changes() []ledger.Change {
	p := ledger.DefaultParameters()
	p.FeeAsset, p.FeeCollector, p.AssetCreators, p.Bond = w.eur, w.dora.Address(), []crypto.Address{{1}, {2}}, 5
	return []ledger.Change{
		&ledger.AddValidator{Operator: w.carol.Address(), Scheme: crypto.MLDSA65, PublicKey: bytes.Repeat([]byte{7}, 1952), Power: 10, Name: "Blank \u202eäöü", Proof: []byte{1}},
		&ledger.RemoveValidator{Validator: ledger.ConsensusAddress{1, 2}},
		&ledger.SetPower{Validator: ledger.ConsensusAddress{1, 3}, Power: 20},
		&ledger.RotateKey{Validator: ledger.ConsensusAddress{1, 4}, Operator: w.bob.Address(), Scheme: crypto.Ed25519, PublicKey: bytes.Repeat([]byte{8}, 32), Proof: []byte{2}},
		&ledger.SetParameters{Before: crypto.Hash{10}, Parameters: p},
	}
}

// The same for every kind of change that can be proposed, and every parameter.
func TestEveryChange(t *testing.T) {
	w := newWorld(t)
	said := func(c ledger.Change) string {
		t.Helper()
		return apart(t, w.body(&ledger.Propose{Expires: 1_900_000_000, Change: c}), w.context)
	}
	changes := w.changes()
	for k := ledger.ChangeKind(1); k.String() != "unknown"; k++ {
		if int(k) > len(changes) || changes[k-1].Kind() != k {
			t.Fatalf("the change %s is not in the table of this test", k)
		}
	}
	var vary func(name string, at reflect.Value, change ledger.Change, before string)
	vary = func(name string, at reflect.Value, change ledger.Change, before string) {
		switch x := at.Addr().Interface().(type) {
		case *ledger.Parameters:
			for f := range at.NumField() {
				again := w.changes()[change.Kind()-1]
				v := reflect.ValueOf(again).Elem().FieldByName("Parameters").Field(f)
				vary(name+"."+at.Type().Field(f).Name, v, again, before)
			}
			return
		case *crypto.Scheme: // and with it the key
			add, ok := change.(*ledger.AddValidator)
			if ok {
				add.Scheme, add.PublicKey = crypto.Ed25519, add.PublicKey[:32]
			} else {
				*x, change.(*ledger.RotateKey).PublicKey = crypto.MLDSA65, make([]byte, 1952)
			}
		case *uint32:
			*x++
		case *uint64:
			*x++
		case *string:
			*x += "x"
		case *[]byte:
			(*x)[0] ^= 1
		case *[]crypto.Address:
			*x = (*x)[:1]
		default:
			at.Index(0).SetUint(at.Index(0).Uint() ^ 1) // an address, a hash, an asset
		}
		if at.IsZero() {
			t.Errorf("%s is not set in the table of this test", name)
		}
		if after := said(change); after == before {
			t.Errorf("%s is changed and the text stays:\n%s", name, after)
		}
	}
	for i, c := range changes {
		fields := reflect.TypeOf(c).Elem()
		for f := range fields.NumField() {
			again := w.changes()[i]
			vary(c.Kind().String()+"."+fields.Field(f).Name, reflect.ValueOf(again).Elem().Field(f), again, said(c))
		}
	}
}

func (w world) body(operations ...ledger.Operation) ledger.Body {
	return ledger.Body{Signers: []ledger.Signer{{Address: w.alice.Address(), Sequence: 4}, {Address: w.bob.Address(), Nonce: [16]byte{4}, Policy: w.bob.Encode()}},
		ValidUntil: 1_799_999_999, MaxFee: ledger.Units(1500), Operations: operations, MaxDeposit: ledger.Units(2_000_000), FeeGranter: w.dora.Address()}
}

func text(t testing.TB, b ledger.Body, c render.Context) string {
	t.Helper()
	if err := b.Validate(); err != nil {
		t.Fatalf("the test's body: %v", err)
	}
	said, err := render.Text(b.Encode(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range said {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("the text holds %U", r)
		}
	}
	return said
}

// apart is the text without the hashes, in which every change is seen whatever the rest says.
func apart(t testing.TB, b ledger.Body, c render.Context) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(text(t, b, c)) {
		if !strings.HasPrefix(line, "transaction: ") && !strings.Contains(line, "policy hash: ") && !strings.Contains(line, "asset id: ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// Every kind of operation, and every field of each and of everything around it, changes the text. A kind or a field that is
// added to the ledger fails this test until it is rendered and stands here.
func TestEveryField(t *testing.T) {
	w := newWorld(t)
	operations := w.operations()
	kinds := 0
	for k := ledger.Kind(1); k.String() != "unknown"; k++ {
		kinds++
		if kinds > len(operations) || operations[kinds-1].Kind() != k {
			t.Fatalf("operation %s is not in the table of this test", k)
		}
	}
	// Fields for which another value has to be chosen with care; by kind and name.
	special := map[string]any{
		"create_asset.Code": "SILVER", "transfer.Balancing": ledger.BalancingDebit, "clawback.Balancing": ledger.Balancing(0), "create_hold.Balancing": ledger.Balancing(0),
		"create_hold.PostBy": ledger.ByReceiver | ledger.ByArbiter | ledger.ByHolder, "create_hold.VoidBy": ledger.ByArbiter,
		"create_asset.Controls": ledger.ControlFreeze, "set_asset.DropControls": ledger.ControlFreeze,
		"set_asset.Freeze": ledger.LineFlags(0), "set_asset.Unfreeze": ledger.LineFlags(0), "set_line.Set": ledger.LineFlags(0), "set_line.Clear": ledger.LineFrozenIn,
		"set_grant.For": ledger.KindCreateHold, "revoke_grant.For": ledger.KindTransfer,
	}
	changedPolicy := must[crypto.Policy](t)(w.shared.WithChangeThreshold(2)).Encode()
	for i, op := range operations {
		before := apart(t, w.body(op), w.context)
		if named := render.Assets(w.body(op)); reflect.ValueOf(op).Elem().FieldByName("Asset").IsValid() != (len(named) == 1) {
			t.Errorf("%s names the assets %x", op.Kind(), named)
		}
		fields := reflect.TypeOf(op).Elem()
		for f := range fields.NumField() {
			name := op.Kind().String() + "." + fields.Field(f).Name
			changed := w.operations()[i]
			v := reflect.ValueOf(changed).Elem().Field(f)
			if v.IsZero() && name != "set_line.Cap" && v.Kind() != reflect.Uint32 && v.Kind() != reflect.Bool {
				t.Errorf("%s is not set in the table of this test", name)
			}
			if s, ok := special[name]; ok {
				v.Set(reflect.ValueOf(s).Convert(v.Type()))
				delete(special, name)
			} else {
				switch x := v.Addr().Interface().(type) {
				case *uint32:
					*x++ // also the index of the signer
				case *uint64:
					*x++
				case *bool:
					*x = !*x
					if hold, ok := changed.(*ledger.CreateHold); ok { // at expiry without a hash lock only
						hold.HashLock, hold.PostBy = crypto.Hash{}, ledger.ByArbiter
						other := *hold
						other.PostAtExpiry = false
						before = apart(t, w.body(&other), w.context)
					}
				case *string:
					*x += "x"
				case *crypto.Address:
					x[31] ^= 1
				case *crypto.Hash:
					x[31] ^= 1
				case *ledger.AssetID:
					x[15] ^= 1
				case *ledger.Reference:
					x[15] ^= 1
				case *ledger.Amount:
					*x, _ = x.Add(ledger.Units(1))
				case **ledger.Amount:
					more, _ := (*x).Add(ledger.Units(1))
					*x = nil
					if unset := apart(t, w.body(changed), w.context); unset == before {
						t.Errorf("%s left out is not seen", name)
					}
					*x = &more
				case *[]byte:
					if fields.Field(f).Name == "Policy" {
						*x = changedPolicy
					} else {
						(*x)[len(*x)-1] ^= 1
					}
				case *[][]byte:
					(*x)[2] = []byte{4}
				case *ledger.Change: // see TestEveryChange for its own fields
					*x = w.changes()[1]
				default:
					t.Fatalf("%s has a type that this test cannot change", name)
				}
			}
			if after := apart(t, w.body(changed), w.context); after == before {
				t.Errorf("%s is changed and the text stays:\n%s", name, after)
			}
		}
	}
	for name := range special {
		t.Errorf("%s is no field", name)
	}
}

// The same for what stands around the operations.
func TestEveryFieldAround(t *testing.T) {
	w := newWorld(t)
	op := func() ledger.Operation { return &ledger.OpenLine{Asset: w.eur} }
	base := w.body(op())
	sponsor := ledger.Sponsor{Address: w.carol.Address(), MaxFee: ledger.Units(5), MaxDeposit: ledger.Units(6), Policy: w.carol.Encode()}
	for name, change := range map[string]func(b *ledger.Body, c *render.Context){
		"Body.Signers":           func(b *ledger.Body, _ *render.Context) { b.Signers = b.Signers[:1] },
		"Body.ValidUntil":        func(b *ledger.Body, _ *render.Context) { b.ValidUntil++ },
		"Body.MaxFee":            func(b *ledger.Body, _ *render.Context) { b.MaxFee = ledger.Units(1501) },
		"Body.Operations":        func(b *ledger.Body, _ *render.Context) { b.Operations = append(b.Operations, op()) },
		"Body.MaxDeposit":        func(b *ledger.Body, _ *render.Context) { b.MaxDeposit = ledger.Units(2) },
		"Body.FeeGranter":        func(b *ledger.Body, _ *render.Context) { b.FeeGranter = crypto.Address{} },
		"Signer.Address":         func(b *ledger.Body, _ *render.Context) { b.Signers[0].Address[3] ^= 1 },
		"Signer.Sequence":        func(b *ledger.Body, _ *render.Context) { b.Signers[0].Sequence++ },
		"Signer.Nonce":           func(b *ledger.Body, _ *render.Context) { b.Signers[1].Nonce[3] ^= 1 },
		"Signer.Policy":          func(b *ledger.Body, _ *render.Context) { b.Signers[1].Policy = nil },
		"Sponsor":                func(_ *ledger.Body, c *render.Context) { c.Sponsor = nil },
		"Sponsor.Address":        func(_ *ledger.Body, c *render.Context) { c.Sponsor.Address[3] ^= 1 },
		"Sponsor.MaxFee":         func(_ *ledger.Body, c *render.Context) { c.Sponsor.MaxFee = ledger.Units(7) },
		"Sponsor.MaxDeposit":     func(_ *ledger.Body, c *render.Context) { c.Sponsor.MaxDeposit = ledger.Units(7) },
		"Sponsor.Policy":         func(_ *ledger.Body, c *render.Context) { c.Sponsor.Policy = nil },
		"Policy.Threshold":       policyChange(t, w, func(p *crypto.Policy) { p.Threshold = 1 }),
		"Policy.Keys":            policyChange(t, w, func(p *crypto.Policy) { p.Keys = p.Keys[:2] }),
		"Policy.ChangeThreshold": policyChange(t, w, func(p *crypto.Policy) { p.ChangeThreshold = 0 }),
		"Policy.Recovery":        policyChange(t, w, func(p *crypto.Policy) { p.Recovery = nil }),
		"Key.Scheme":             policyChange(t, w, func(p *crypto.Policy) { p.Keys[0] = key(t, crypto.Secp256k1, "x"); p.Keys = p.Keys[:1] }),
		"Key.Public":             policyChange(t, w, func(p *crypto.Policy) { p.Keys[0] = key(t, crypto.Ed25519, "x") }),
		"Key.Weight":             policyChange(t, w, func(p *crypto.Policy) { p.Keys[2].Weight = 2 }),
		"Recovery.Account":       policyChange(t, w, func(p *crypto.Policy) { p.Recovery.Account[3] ^= 1 }),
		"Recovery.DelaySeconds":  policyChange(t, w, func(p *crypto.Policy) { p.Recovery.DelaySeconds++ }),
	} {
		context := func() (ledger.Body, render.Context) {
			b, c, s := base, w.context, sponsor
			b.Signers, b.Operations = append([]ledger.Signer(nil), base.Signers...), []ledger.Operation{op()}
			if strings.HasPrefix(name, "Policy") || strings.HasPrefix(name, "Key") || strings.HasPrefix(name, "Recovery") {
				b.Signers[1].Policy = w.shared.Encode()
			}
			c.Sponsor = &s
			return b, c
		}
		b, c := context()
		before := apart(t, b, c)
		change(&b, &c)
		if after := apart(t, b, c); after == before {
			t.Errorf("%s is changed and the text stays:\n%s", name, after)
		}
	}
	for _, s := range []struct {
		of     any
		fields int
	}{{ledger.Body{}, 6}, {ledger.Signer{}, 4}, {ledger.Sponsor{}, 4}, {crypto.Policy{}, 4}, {crypto.Key{}, 3}, {crypto.Recovery{}, 2}} {
		if n := reflect.TypeOf(s.of).NumField(); n != s.fields {
			t.Errorf("%T has %d fields, this test changes %d", s.of, n, s.fields)
		}
	}
}

func policyChange(t *testing.T, w world, change func(p *crypto.Policy)) func(*ledger.Body, *render.Context) {
	return func(b *ledger.Body, _ *render.Context) {
		p := must[crypto.Policy](t)(crypto.DecodePolicy(w.shared.Encode()))
		p.ChangeThreshold = 3
		change(&p)
		if len(p.Keys) < 3 {
			p.Threshold, p.ChangeThreshold = 1, 0
		}
		if p.ChangeThreshold == p.Threshold {
			p.ChangeThreshold = 0
		}
		b.Signers[1].Policy = p.Encode()
	}
}

// The golden files are what people read: a change of theirs is a change of the text's version.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	unknown := w.context
	unknown.Assets, unknown.Names = nil, nil
	sponsored := w.context
	sponsored.Sponsor = &ledger.Sponsor{Address: w.carol.Address(), MaxFee: ledger.Units(2000), MaxDeposit: ledger.Units(1), Policy: w.carol.Encode()}
	operations := w.operations()
	exchange := w.body(&ledger.Transfer{From: 0, To: w.bob.Address(), Asset: w.eur, Amount: ledger.Units(1250)}, &ledger.Transfer{From: 1, To: w.alice.Address(), Asset: w.context.FeeAsset, Amount: ledger.Units(13_100_000)})
	exchange.FeeGranter = crypto.Address{}
	for name, c := range map[string]struct {
		body    ledger.Body
		context render.Context
	}{
		"every":     {w.body(operations...), w.context},
		"unknown":   {w.body(operations[0], operations[6], operations[13]), unknown},
		"sponsored": {w.body(operations[9]), sponsored},
		"exchange":  {exchange, w.context},
		"changes": {w.body(&ledger.Propose{Expires: 1_900_000_000, Change: w.changes()[1]}, &ledger.Propose{Expires: 1_900_000_000, Change: w.changes()[2]},
			&ledger.Propose{Expires: 1_900_000_000, Change: w.changes()[3]}, &ledger.Propose{Expires: 1_900_000_000, Change: w.changes()[4]},
			&ledger.Approve{Proposal: crypto.Hash{9}, Withdraw: true}), unknown},
	} {
		said := text(t, c.body, c.context)
		print, err := render.Fingerprint(c.body.Encode(), c.context)
		if err != nil {
			t.Fatal(err)
		}
		said += "fingerprint: " + print + "\n"
		path := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(said), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if said != string(want) {
			t.Errorf("%s is rendered as\n%s\nwant\n%s", name, said, want)
		}
	}
}

// Names and what is known of assets are local: they change the text and not the fingerprint.
func TestFingerprint(t *testing.T) {
	w := newWorld(t)
	body := w.body(w.operations()[0])
	b := body.Encode()
	print := func(c render.Context) string { return must[string](t)(render.Fingerprint(b, c)) }
	other := w.context
	other.Names = map[crypto.Address]string{w.alice.Address(): "my friend"}
	if print(other) != print(w.context) {
		t.Error("the fingerprint depends on names")
	}
	other.Assets = nil
	if print(other) != print(w.context) {
		t.Error("the fingerprint depends on what is known of assets")
	}
	if said, _ := render.Text(b, other); said == text(t, body, w.context) {
		t.Error("the text does not depend on what is known of assets")
	}
	body.MaxFee = ledger.Units(7)
	if again, _ := render.Fingerprint(body.Encode(), w.context); again == print(w.context) {
		t.Error("the fingerprint does not depend on the fee")
	}
	if want := 32 + 7; len(print(other)) != want {
		t.Errorf("fingerprint %q", print(other))
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"plain, 12.50 EUR":     "plain, 12.50 EUR",
		"Grüße 東京 שלום नमस्ते": "Grüße 東京 שלום नमस्ते",
		"a\nfee: 0":               `a\u{a}fee: 0`,
		"\x1b[31mred":             `\u{1b}[31mred`,
		"pay \u202e001\u202c":     `pay \u{202e}001\u{202c}`,
		"\u2066x\u2069":           `\u{2066}x\u{2069}`,
		"zero\u200bwidth\ufeff":   `zero\u{200b}width\u{feff}`,
		"join\u200dsoft\u00ad":    `join\u{200d}soft\u{ad}`,
		"no\u00a0break":           `no\u{a0}break`,
		"line\u2028para\u2029":    `line\u{2028}para\u{2029}`,
		"\u0301mark":              `\u{301}mark`,
		"e\u0301":                 "e\u0301",
		"e\u20dd":                 `e\u{20dd}`,
		"\u3164\u2800\u115f":      `\u{3164}\u{2800}\u{115f}`,
		"x\ufe0f":                 `x\u{fe0f}`,
		"\U000e0041":              `\u{e0041}`,
		"\ue000":                  `\u{e000}`,
		`quote " and \u{41}`:      `quote \" and \\u{41}`,
		"not utf-8: \xff\xfe end": `not utf-8: \x{ff}\x{fe} end`,
		"":                        "",
	} {
		if got := render.Escape(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
	}
}

// What cannot be said is an error.
func TestRefuses(t *testing.T) {
	w := newWorld(t)
	b := w.body(&ledger.OpenLine{Asset: w.eur})
	raw := b.Encode()
	for name, changed := range map[string][]byte{
		"unknown field":     append(bytes.Clone(raw), 0x42, 0x01, 0x01), // field 8
		"unknown operation": bytes.Replace(raw, []byte{0x2a, 0x14, 0x52}, []byte{0x2a, 0x14, 0x7a}, 1),
		"empty":             nil,
		"cut":               raw[:len(raw)-1],
	} {
		if bytes.Equal(changed, raw) {
			t.Fatalf("%s: nothing was changed in %x", name, raw)
		}
		if said, err := render.Text(changed, w.context); err == nil {
			t.Errorf("%s is rendered:\n%s", name, said)
		}
		if _, err := render.Fingerprint(changed, w.context); err == nil {
			t.Errorf("%s has a fingerprint", name)
		}
	}
}
