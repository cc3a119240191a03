package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"pacioli": main}) }

// words is the 24-word phrase of 32 zero bytes, from the test vectors of BIP-39: the account "alice" of the scripts.
var words = strings.TrimSpace(strings.Repeat("abandon ", 23) + "art")

// TestScripts runs testdata/*.txt. Each script has a home with a passphrase and a genesis file, and a node of a chain on
// which alice, whose words are in words.txt, has 1,000 PAC.
func TestScripts(t *testing.T) {
	store, err := keystore.Open(filepath.Join(t.TempDir(), "keys"), keystore.WithCost(keystore.CheapCost))
	if err != nil {
		t.Fatal(err)
	}
	alice, err := store.Recover("alice", keystore.Spec{Kind: "ed25519"}, words, "", "none")
	if err != nil {
		t.Fatal(err)
	}
	key, err := store.Export("alice", "none")
	if err != nil {
		t.Fatal(err)
	}
	chain := clienttest.New(t, "scripts", alice.Address)
	chain.Run(20 * time.Millisecond)
	genesis, err := os.ReadFile(chain.GenesisFile(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			node := chain.Serve()
			env.Values["node"] = node
			env.Setenv("PACIOLI_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("PACIOLI_PASSPHRASE", "none")
			env.Setenv("PACIOLI_NODE", node.URL)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "nobody"))
			env.Setenv("ALICE", alice.Address.String())
			listener, err := net.Listen("tcp", "127.0.0.1:0") // a free port, for a node of the script's own
			if err != nil {
				return err
			}
			_, port, _ := net.SplitHostPort(listener.Addr().String())
			env.Setenv("PORT", port)
			listener.Close()
			config := filepath.Join(env.WorkDir, "home", "config")
			if err := os.MkdirAll(config, 0o700); err != nil {
				return err
			}
			for name, content := range map[string][]byte{
				filepath.Join(config, "genesis.json"):         genesis,
				filepath.Join(env.WorkDir, "alice.key"):       key,
				filepath.Join(env.WorkDir, "words.txt"):       []byte(words + "\n"),
				filepath.Join(env.WorkDir, "passphrase"):      []byte("none\n"),
				filepath.Join(env.WorkDir, "passphrase.bad"):  []byte("some\n"),
				filepath.Join(env.WorkDir, "passphrase.none"): nil,
			} {
				if err := os.WriteFile(name, content, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// exits CODE COMMAND...: the command ends with this very exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := "exit status " + args[0]
				if args[0] == "0" && err != nil || args[0] != "0" && (err == nil || err.Error() != code) {
					ts.Fatalf("%v, want exit code %s", err, args[0])
				}
			},
			// kind NAME SCHEME NEXT ASSET: an account of a scheme is funded by alice, pays, receives, issues an asset of
			// its own, changes its key to NEXT (made here when it is not there), and does all of it again.
			"kind": func(ts *testscript.TestScript, _ bool, args []string) {
				name, scheme, next, asset := args[0], args[1], args[2], args[3]
				do := func(words ...string) { ts.Check(ts.Exec("pacioli", words...)) }
				// A costly derivation would take most of the time of some hundred commands.
				keys, err := keystore.Open(filepath.Join(ts.Getenv("PACIOLI_HOME"), "keys"), keystore.WithCost(keystore.CheapCost))
				ts.Check(err)
				make := func(key, scheme string) {
					if _, _, err := keys.Create(key, keystore.Spec{Kind: scheme}, "none"); !errors.Is(err, keystore.ErrExists) {
						ts.Check(err)
					}
				}
				make("bob", "ed25519")
				make(name, scheme)
				make(next, map[string]string{"secp": "secp256k1", "pass": "p256-webauthn", "small": "ml-dsa-44", "big": "ml-dsa-65", "both": "hybrid", "ed": "ed25519"}[next])
				do("pay", "--from", "alice", "--to", name, "10", "PAC")
				do("asset", "create", asset, "--from", name, "--max-supply", "100")
				for range 2 {
					do("pay", "--from", name, "--to", "bob", "2.5", "PAC")
					do("pay", "--from", "bob", "--to", name, "1", "PAC")
					do("pay", "--from", name, "--to", "bob", "1.25", asset)
					if !strings.Contains(ts.ReadFile("stdout"), "1.25 "+asset) {
						ts.Fatalf("the issue of %s is not shown", asset)
					}
					if next != "" {
						do("account", "rotate", "--from", name, "--to-key", next)
						next = ""
					}
				}
				do("balance", "bob", asset)
				if !strings.HasPrefix(ts.ReadFile("stdout"), "2.50 ") {
					ts.Fatalf("bob's balance of %s is not 2.50:\n%s", asset, ts.ReadFile("stdout"))
				}
			},
			// cheap NAME[:SCHEME]...: makes keys whose passphrase takes no time.
			"cheap": func(ts *testscript.TestScript, _ bool, args []string) {
				keys, err := keystore.Open(filepath.Join(ts.Getenv("PACIOLI_HOME"), "keys"), keystore.WithCost(keystore.CheapCost))
				ts.Check(err)
				for _, arg := range args {
					name, scheme, _ := strings.Cut(arg, ":")
					_, _, err := keys.Create(name, keystore.Spec{Kind: cmp.Or(scheme, "ed25519")}, "none")
					ts.Check(err)
				}
			},
			// lose on|off: the node takes transactions and loses them.
			"lose": func(ts *testscript.TestScript, _ bool, args []string) {
				var lies clienttest.Lies
				if args[0] == "on" {
					lies.Submit = func(w http.ResponseWriter, r *http.Request) {
						raw, _ := io.ReadAll(r.Body)
						if tx, err := ledger.Decode(raw); err == nil {
							clienttest.Answer(w, http.StatusOK, tx.ID(chain.Network.ID), ledger.OK, "", false, 0)
						}
					}
				}
				ts.Value("node").(*clienttest.Node).Lie(lies)
			},
			// omit on|off: the node leaves the second entry of every journal out.
			"omit": func(ts *testscript.TestScript, _ bool, args []string) {
				var lies clienttest.Lies
				if args[0] == "on" {
					lies.Answer = func(q *abci.RequestQuery, a *abci.ResponseQuery) {
						if q.Path != query.PathEntries {
							return
						}
						entries, err := query.DecodeEntries(a.Value)
						ts.Check(err)
						if len(entries) > 1 {
							a.Value = query.EncodeEntries(slices.Delete(entries, 1, 2))
						}
					}
				}
				ts.Value("node").(*clienttest.Node).Lie(lies)
			},
			// plant: a line appears out of nowhere, as much as alice's, in her asset of a code.
			"plant": func(ts *testscript.TestScript, _ bool, args []string) {
				id := ledger.NewAssetID(alice.Address, args[0])
				row := chain.Rows()[string(ledger.LineRow(ledger.LineKey{Account: alice.Address, Asset: id}))]
				chain.Write(ledger.Write{Key: ledger.LineRow(ledger.LineKey{Account: crypto.Address{7}, Asset: id}), Value: []byte(row)})
			},
			// await COMMAND...: it is repeated until it succeeds.
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				for began := time.Now(); ts.Exec(args[0], args[1:]...) != nil; time.Sleep(100 * time.Millisecond) {
					if time.Since(began) > time.Minute {
						ts.Fatalf("%v does not succeed", args)
					}
				}
			},
			// damage FILE: its last line loses its last character but the line's end.
			"damage": func(ts *testscript.TestScript, _ bool, args []string) {
				text := strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text[:len(text)-1]+"\n"), 0o600))
			},
			"sleep": func(_ *testscript.TestScript, _ bool, args []string) {
				d, _ := time.ParseDuration(args[0])
				time.Sleep(d)
			},
			// keep NAME PATTERN: the group of the pattern in the last standard output becomes a variable.
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
				if found == nil {
					ts.Fatalf("no match for %s", args[1])
				}
				ts.Setenv(args[0], found[1])
			},
		},
	})
}

// TestHelp: every command says what it is for and shows how it is called; every flag can be a variable; one that is only
// for others below it says so of a word that is none of them.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" || c.CommandPath() == "pacioli debug" { // cobra's and CometBFT's own
			return
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		if c.HasSubCommands() {
			if err := c.Args(c, []string{"fly"}); err == nil || !strings.Contains(err.Error(), "unknown command") {
				t.Errorf("%s fly: %v", c.CommandPath(), err)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&cli{out: io.Discard, err: io.Discard}))
}

// TestAuditProgress: a walk says every two seconds how far it is, and for how long it will go on.
func TestAuditProgress(t *testing.T) {
	now := time.Unix(1000, 0)
	var said []string
	p := progress{now: func() time.Time { return now }, say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	for done := uint64(0); done <= 1000; done += 10 {
		p.report(done, 1000)
		now = now.Add(100 * time.Millisecond)
	}
	want := []string{"200 of 1000 rows (20%), 8s left", "400 of 1000 rows (40%), 6s left", "600 of 1000 rows (60%), 4s left", "800 of 1000 rows (80%), 2s left", "1000 of 1000 rows (100%), 0s left"}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
}
