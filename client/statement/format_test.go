package statement

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"iter"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
)

var update = flag.Bool("update", false, "write the golden files")

func party(n byte) crypto.Address { return crypto.Address(bytes.Repeat([]byte{n}, 32)) }

// step is an entry of a made-up statement: what it changes.
type step struct {
	kind                  string
	amount, in, out       int64
	counterparty          crypto.Address
	name, memo, reference string
	code                  uint32
}

// sample makes a statement out of steps, six hours apart.
func sample(asset string, scale uint32, opening string, steps ...step) *Statement {
	start := time.Date(2026, 1, 30, 9, 0, 0, 0, time.UTC)
	number := func(text string) *big.Int { n, _ := new(big.Int).SetString(text, 10); return n }
	s := &Statement{ChainID: "sample", NetworkID: crypto.Hash{1}, Account: party(2), Name: "alice", Asset: asset, Scale: scale, First: 100, Last: 200,
		FirstTime: start, LastTime: start.Add(72 * time.Hour), Count: uint64(len(steps)),
		Opening: Point{Height: 99, Mark: client.Mark{Entries: 7, Head: crypto.Hash{3}}, Origin: State, Balance: number(opening), PendingIn: new(big.Int), PendingOut: new(big.Int)},
		Proof:   Proof{Height: 200, Mark: client.Mark{Entries: 7 + uint64(len(steps)), Head: crypto.Hash{4}}, Header: 201, Hash: []byte{5, 6}}}
	var entries []Entry
	balance, in, out := s.Opening.Balance, new(big.Int), new(big.Int)
	s.widest = len(Decimal(balance, scale))
	for i, p := range steps {
		balance = new(big.Int).Add(balance, big.NewInt(p.amount))
		in, out = new(big.Int).Add(in, big.NewInt(p.in)), new(big.Int).Add(out, big.NewInt(p.out))
		e := Entry{Number: 8 + uint64(i), Height: 100 + 10*uint64(i), Time: start.Add(time.Duration(i) * 6 * time.Hour), Kind: p.kind, Counterparty: p.counterparty, Name: p.name,
			Amount: big.NewInt(p.amount), Balance: balance, PendingIn: big.NewInt(p.in), PendingOut: big.NewInt(p.out), Memo: p.memo, Reference: p.reference, Code: p.code}
		if p.out != 0 || p.in != 0 {
			e.Hold = crypto.Hash{0xee}
		}
		if p.kind != "fees" {
			e.TxID = crypto.Hash{byte(i + 1)}
		}
		s.widest = max(s.widest, len(Decimal(balance, scale)), 1+len(Decimal(e.Amount, scale)))
		entries = append(entries, e)
	}
	s.Closing = Point{Height: 200, Mark: s.Proof.Mark, Origin: State, Balance: balance, PendingIn: in, PendingOut: out}
	s.Entries = func(context.Context) iter.Seq2[Entry, error] {
		return func(yield func(Entry, error) bool) {
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
	return s
}

// hostile are memos that mean something to one of the formats, or to a terminal.
var hostile = []string{
	`plain`, `date:1999-01-01`, `[1999-01-01] date2:2001/2/3, tag:x`, "one\n2026-01-31 * injected\n    assets:pacioli:alice  999.00 EUR\n    equity:x",
	`"quoted" \ and \" ; # | (code) * ! @ {} = 5`, "\x1b[31mred\u202e\x00\r", `=HYPERLINK("http://x")`, "comment\nend comment", "  spaces  and\ttabs ", "süß € \u2028 line", "\\",
}

func samples() map[string]*Statement {
	var steps []step
	for i, m := range hostile {
		steps = append(steps, step{kind: "transfer", amount: int64(100*i + 1), counterparty: party(9), name: "bob", memo: m})
	}
	reference := "000102030405060708090a0b0c0d0e0f"
	return map[string]*Statement{
		"memos": sample("EUR", 2, "0", steps...),
		"kinds": sample("EUR2", 2, "12345",
			step{kind: "transfer", amount: 500, counterparty: party(9), name: "shop_1", memo: "rent", reference: reference, code: 7},
			step{kind: "transfer", amount: -20000, counterparty: party(8)},
			step{kind: "fee", amount: -1, counterparty: party(7), name: "collector"},
			step{kind: "hold", out: 300, counterparty: party(9), name: "shop-1"},
			step{kind: "hold", in: 44, counterparty: party(9), name: "shop--1"},
			step{kind: "post", amount: -250, out: -300, counterparty: party(9), name: "shop-1_", memo: "part"},
			step{kind: "void", in: -4, counterparty: party(9), name: "bob"},
			step{kind: "fees", amount: 12},
			step{kind: "deposit", amount: -100, counterparty: party(6)},
			step{kind: "kind_77", amount: 5},
			step{kind: "kind_78"}),
		"whole":   sample("TRUE", 0, "-7", step{kind: "transfer", amount: 7, counterparty: party(9)}, step{kind: "genesis", amount: -1 << 62, counterparty: party(9)}),
		"precise": sample("WEI", 18, "340282366920", step{kind: "transfer", amount: 1, counterparty: party(9)}),
		"empty":   sample("EUR", 2, "0"),
	}
}

func write(t *testing.T, s *Statement, format string) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(t.Context(), &b, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The bytes of every format are what the golden files have: programs read them.
func TestGolden(t *testing.T) {
	for name, s := range samples() {
		for _, format := range Formats {
			file := filepath.Join("testdata", name+"."+format)
			got := write(t, s, format)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%s differs from what is written (%v):\n%s", file, err, got)
			}
			if again := write(t, s, format); again != got {
				t.Errorf("%s differs when it is written again", file)
			}
		}
	}
	if err := samples()["empty"].Write(t.Context(), new(bytes.Buffer), "pdf"); err == nil {
		t.Error("format pdf is written")
	}
}

func TestJSONAndCSV(t *testing.T) {
	for name, s := range samples() {
		var v struct {
			statementView
			Entries []entryView `json:"entries"`
		}
		decoder := json.NewDecoder(strings.NewReader(write(t, s, "json")))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows, err := csv.NewReader(strings.NewReader(write(t, s, "csv"))).ReadAll()
		if err != nil || len(rows) != int(s.Count)+1 || !slices.Equal(rows[0], columns) {
			t.Fatalf("%s: CSV of %d rows, %v", name, len(rows), err)
		}
		if uint64(len(v.Entries)) != s.Count || v.Closing.Balance != s.decimal(s.Closing.Balance) {
			t.Errorf("%s: %d entries, closing %s", name, len(v.Entries), v.Closing.Balance)
		}
		i := 0
		for e := range s.Entries(t.Context()) {
			row := rows[i+1]
			if v.Entries[i].Memo != e.Memo || v.Entries[i].Amount != s.decimal(e.Amount) || row[8] != s.decimal(e.Amount) || row[10] != s.decimal(e.Balance) {
				t.Errorf("%s: entry %d reads back as %+v and %q", name, i, v.Entries[i], row)
			}
			if memo := plain(e.Memo); row[13] != memo {
				t.Errorf("%s: memo %q reads back from CSV as %q", name, memo, row[13])
			}
			i++
		}
	}
}

// Nothing that a stranger wrote acts on a terminal or begins a line.
func TestTable(t *testing.T) {
	text := write(t, samples()["memos"], "table")
	for _, bad := range []string{"\x1b", "\u202e", "\r", "\x00", "\n2026-01-31 * injected", "\u2028"} {
		if strings.Contains(text, bad) {
			t.Errorf("the table has %q", bad)
		}
	}
	if lines := strings.Count(text, "\n"); lines != len(hostile)+8 {
		t.Errorf("%d lines:\n%s", lines, text)
	}
}

// checked is what a small reader of hledger and beancount files found.
type checked struct {
	balances     map[string]*big.Rat
	transactions int
	asserted     string
}

func number(t *testing.T, text string) *big.Rat {
	t.Helper()
	if !regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`).MatchString(text) {
		t.Errorf("amount %q", text)
	}
	r, _ := new(big.Rat).SetString(text)
	return r
}

// readHledger reads the subset that is written: comments, directives, transactions with two spaces before an amount.
func readHledger(t *testing.T, text string) checked {
	t.Helper()
	c := checked{balances: map[string]*big.Rat{}}
	directive := regexp.MustCompile(`^(decimal-mark \.|account [a-z0-9:_-]+|commodity 0\.[0-9]* ("[A-Z0-9]+"|[A-Z]+))$`)
	head := regexp.MustCompile(`^20[0-9]{2}-[0-9]{2}-[0-9]{2} \* [a-z0-9 _-]+$`)
	posting := regexp.MustCompile(`^    ([a-z0-9:_-]+)(?:  (\S+) ("[A-Z0-9]+"|[A-Z]+))?(?: +(?:= (\S+) ("[A-Z0-9]+"|[A-Z]+)))?$`)
	var sum, left *big.Rat
	var open string // the posting without an amount
	finish := func() {
		if open != "" {
			c.balances[open], sum = new(big.Rat).Sub(left, sum), new(big.Rat)
		}
		if sum != nil && sum.Sign() != 0 {
			t.Errorf("a transaction does not balance: %s", sum)
		}
		sum, open, left = nil, "", new(big.Rat)
	}
	finish()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			finish()
		case strings.HasPrefix(line, ";"), directive.MatchString(line):
		case head.MatchString(line):
			finish()
			sum = new(big.Rat)
			c.transactions++
		case strings.HasPrefix(line, "    ; ") && sum != nil && sum.Sign() == 0:
		case posting.MatchString(line) && sum != nil:
			m := posting.FindStringSubmatch(line)
			if c.balances[m[1]] == nil {
				c.balances[m[1]] = new(big.Rat)
			}
			switch {
			case m[2] != "":
				n := number(t, m[2])
				c.balances[m[1]].Add(c.balances[m[1]], n)
				sum.Add(sum, n)
			case m[4] != "":
				n := number(t, m[4])
				sum.Add(sum, new(big.Rat).Sub(n, c.balances[m[1]]))
				c.balances[m[1]].Set(n)
			default:
				open, left = m[1], c.balances[m[1]]
			}
			if m[4] != "" {
				c.asserted = m[4]
				if n := number(t, m[4]); n.Cmp(c.balances[m[1]]) != 0 {
					t.Errorf("%s has %s, asserted is %s", m[1], c.balances[m[1]], n)
				}
			}
		default:
			t.Errorf("line %q is not of the subset", line)
		}
	}
	finish()
	return c
}

// readBeancount reads the subset that is written.
func readBeancount(t *testing.T, text string) checked {
	t.Helper()
	const day, account, currency, quoted = `20[0-9]{2}-[0-9]{2}-[0-9]{2}`, `((?:Assets|Equity|Income|Expenses)(?::[A-Z0-9][A-Za-z0-9-]*)+)`, `([A-Z][A-Z0-9-]{0,22}[A-Z0-9])`, `"(?:[^"\\]|\\["\\])*"`
	c := checked{balances: map[string]*big.Rat{}}
	head := regexp.MustCompile(`^` + day + ` \* ` + quoted + ` ` + quoted + `$`)
	meta := regexp.MustCompile(`^  [a-z][a-z]+: ` + quoted + `$`)
	posting := regexp.MustCompile(`^  ` + account + `  (\S+) ` + currency + `$`)
	balance := regexp.MustCompile(`^` + day + ` balance ` + account + `  (\S+) ~ 0(?:\.0+)? ` + currency + `$`)
	openings := regexp.MustCompile(`^` + day + ` open ` + account + ` ` + currency + `$`)
	commodity := regexp.MustCompile(`^` + day + ` commodity ` + currency + `$`)
	opened := map[string]bool{}
	sum := new(big.Rat)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			if sum.Sign() != 0 {
				t.Errorf("a transaction does not balance: %s", sum)
			}
		case strings.HasPrefix(line, ";"), commodity.MatchString(line), meta.MatchString(line):
		case head.MatchString(line):
			c.transactions++
		case posting.MatchString(line):
			m := posting.FindStringSubmatch(line)
			if c.balances[m[1]] == nil {
				c.balances[m[1]] = new(big.Rat)
			}
			n := number(t, m[2])
			c.balances[m[1]].Add(c.balances[m[1]], n)
			sum.Add(sum, n)
		case balance.MatchString(line):
			m := balance.FindStringSubmatch(line)
			c.asserted = m[2]
			if have := c.balances[m[1]]; have == nil && number(t, m[2]).Sign() != 0 || have != nil && have.Cmp(number(t, m[2])) != 0 {
				t.Errorf("%s has %v, asserted is %s", m[1], have, m[2])
			}
		case openings.MatchString(line):
			name := openings.FindStringSubmatch(line)[1]
			if opened[name] {
				t.Errorf("%s is opened twice", name)
			}
			opened[name] = true
		default:
			t.Errorf("line %q is not of the subset", line)
		}
	}
	for name := range c.balances {
		if !opened[name] {
			t.Errorf("%s is not opened", name)
		}
	}
	return c
}

// The files say the closing balance, by their own arithmetic, and have a transaction for each entry that changed it.
func TestPlainTextAccounting(t *testing.T) {
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			posted := 0
			accounts := map[string]*big.Rat{}
			unit := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(s.Scale)), nil))
			for e := range s.Entries(t.Context()) {
				if e.Amount.Sign() != 0 {
					posted++
					other := strings.Join(e.other(), ":")
					if accounts[other] == nil {
						accounts[other] = new(big.Rat)
					}
					accounts[other].Sub(accounts[other], new(big.Rat).Quo(new(big.Rat).SetInt(e.Amount), unit))
				}
			}
			opened := 0
			if s.Opening.Balance.Sign() != 0 {
				opened = 1
			}
			h := readHledger(t, write(t, s, "hledger"))
			b := readBeancount(t, write(t, s, "beancount"))
			want := s.decimal(s.Closing.Balance)
			if h.asserted != want || b.asserted != want || h.transactions != posted+opened+1 || b.transactions != posted+opened {
				t.Errorf("asserted %s and %s, want %s; %d and %d transactions for %d entries", h.asserted, b.asserted, want, h.transactions, b.transactions, posted)
			}
			for other, amount := range accounts {
				bean := beanAccount(strings.Split(other, ":"))
				if h.balances[other] == nil || h.balances[other].Cmp(amount) != 0 || b.balances[bean] == nil || b.balances[bean].Cmp(amount) != 0 {
					t.Errorf("%s has %v and %v, want %s", other, h.balances[other], b.balances[bean], amount)
				}
			}
		})
	}
}

// hledger itself loads the files, with the balance of the statement.
func TestHledger(t *testing.T) {
	program, err := exec.LookPath("hledger")
	if err != nil {
		t.Skip("hledger is not installed")
	}
	for name, s := range samples() {
		file := filepath.Join(t.TempDir(), name+".journal")
		if err := os.WriteFile(file, []byte(write(t, s, "hledger")), 0o600); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) string {
			command := exec.Command(program, append([]string{"-f", file}, args...)...)
			command.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			out, err := command.CombinedOutput()
			if err != nil {
				t.Errorf("%s: hledger %q: %v\n%s", name, args, err, out)
			}
			return string(out)
		}
		run("check", "--strict", "balancednoautoconversion")
		rows, err := csv.NewReader(strings.NewReader(run("balance", "assets:pacioli:alice$", "-E", "-N", "-O", "csv"))).ReadAll()
		want := s.decimal(s.Closing.Balance) + " " + s.Asset
		if err != nil || len(rows) != 2 || strings.ReplaceAll(rows[1][1], `"`, "") != want && !(s.Closing.Balance.Sign() == 0 && rows[1][1] == "0") {
			t.Errorf("%s: hledger has %q, want %s (%v)", name, rows, want, err)
		}
		if name == "memos" {
			if out := run("print", "date:..2026-01-30"); strings.Contains(out, "1999-") && !strings.Contains(out, "2026-01-30") || strings.Contains(run("accounts"), "equity:x") {
				t.Errorf("a memo had a meaning:\n%s", out)
			}
			if out := run("register", "date:1990..2020"); out != "" {
				t.Errorf("a memo changed a date:\n%s", out)
			}
		}
	}
}

// beancount itself loads the files, with the balance of the statement.
func TestBeancount(t *testing.T) {
	check, err := exec.LookPath("bean-check")
	if err != nil {
		t.Skip("beancount is not installed")
	}
	report, err := exec.LookPath("bean-query")
	if err != nil {
		t.Skip("bean-query is not installed")
	}
	for name, s := range samples() {
		file := filepath.Join(t.TempDir(), name+".beancount")
		if err := os.WriteFile(file, []byte(write(t, s, "beancount")), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(check, "--no-cache", file).CombinedOutput(); err != nil || len(out) != 0 {
			t.Errorf("%s: bean-check: %v\n%s", name, err, out)
		}
		out, err := exec.Command(report, "-q", "-f", "csv", file, "select sum(number) as total where account = '"+beanAccount(s.own())+"'").Output()
		want := s.decimal(s.Closing.Balance)
		rows := strings.Fields(string(out))
		got := new(big.Rat)
		if len(rows) == 2 {
			got, _ = got.SetString(rows[1])
		}
		if wanted, _ := new(big.Rat).SetString(want); err != nil || got == nil || got.Cmp(wanted) != 0 {
			t.Errorf("%s: beancount has %q, want %s (%v)", name, rows, want, err)
		}
	}
}

func TestBeanAccountsDiffer(t *testing.T) {
	seen := map[string]string{}
	const letters = "a-_1"
	var walk func(name string)
	walk = func(name string) {
		if name != "" {
			bean := beanAccount([]string{name})
			if other, ok := seen[bean]; ok {
				t.Errorf("%q and %q are both %q", name, other, bean)
			}
			seen[bean] = name
			if !regexp.MustCompile(`^[A-Z0-9][A-Za-z0-9-]*$`).MatchString(bean) {
				t.Errorf("%q becomes %q", name, bean)
			}
		}
		if len(name) == 6 {
			return
		}
		for _, c := range letters {
			if name != "" || c == 'a' || c == '1' {
				walk(name + string(c))
			}
		}
	}
	walk("")
	if len(seen) < 1000 {
		t.Errorf("only %d names", len(seen))
	}
}

func TestParseBound(t *testing.T) {
	at := func(text string) time.Time { v, _ := time.Parse(time.RFC3339Nano, text); return v }
	for _, c := range []struct {
		text string
		last bool
		want Bound
	}{
		{"7", false, Bound{Height: 7}}, {"7", true, Bound{Height: 7}},
		{"2026-01-31", false, Bound{Time: at("2026-01-31T00:00:00Z")}}, {"2026-01-31", true, Bound{Time: at("2026-02-01T00:00:00Z")}},
		{"2026-01-31T12:00:00+01:00", false, Bound{Time: at("2026-01-31T11:00:00Z")}}, {"2026-01-31T12:00:00Z", true, Bound{Time: at("2026-01-31T12:00:00.000000001Z")}},
	} {
		if b, err := ParseBound(c.text, c.last); err != nil || b.Height != c.want.Height || !b.Time.Equal(c.want.Time) {
			t.Errorf("%s, last %v: %+v, %v", c.text, c.last, b, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "2026-02-30", "2026-1-1", "yesterday", "99999999999999999999"} {
		if b, err := ParseBound(text, false); err == nil {
			t.Errorf("%q is %+v", text, b)
		}
	}
}

func TestDecimal(t *testing.T) {
	for _, c := range []struct {
		n     string
		scale uint32
		want  string
	}{{"0", 0, "0"}, {"0", 2, "0.00"}, {"-5", 2, "-0.05"}, {"-123", 2, "-1.23"}, {"7", 0, "7"}, {"340282366920938463463374607431768211455", 18, "340282366920938463463.374607431768211455"}} {
		n, _ := new(big.Int).SetString(c.n, 10)
		if got := Decimal(n, c.scale); got != c.want {
			t.Errorf("%s at scale %d is %s, want %s", c.n, c.scale, got, c.want)
		}
	}
}
