package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet"
)

// The tests of this file run the program as its users do: real processes on this machine, one network at a time.

// program is a pacioli binary with a network's folder.
type program struct {
	*testing.T
	path string
	dir  string
}

// TestNetworks runs the tests of this file with one binary.
func TestNetworks(t *testing.T) {
	if testing.Short() {
		t.Skip("runs networks")
	}
	t.Parallel()
	path := filepath.Join(build(t), "pacioli")
	for name, test := range map[string]func(program){"foreground": upInForeground, "seven": sevenValidators, "refusals": refusals} {
		t.Run(name, func(t *testing.T) { test(program{t, path, filepath.Join(t.TempDir(), "network")}) })
	}
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

// run runs a command to its end, at most a minute.
func (p program) run(args ...string) result {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() < 0) {
		p.Fatalf("pacioli %s: %s\n%s%s", strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// want runs a command and compares its exit code, and what it prints with a pattern.
func (p program) want(code int, pattern string, args ...string) result {
	p.Helper()
	r := p.run(args...)
	if r.code != code || !regexp.MustCompile("(?s)"+pattern).MatchString(r.out+r.err) {
		p.Fatalf("pacioli %s: exit code %d, want %d and %q:\n%s%s", strings.Join(args, " "), r.code, code, pattern, r.out, r.err)
	}
	return r
}

// detached brings the network up and has it brought down at the end of the test.
func (p program) detached(args ...string) *testnet.Local {
	p.Helper()
	p.Cleanup(func() {
		if l, err := testnet.OpenLocal(p.dir); err == nil {
			if p.Failed() {
				for i := range l.Nodes {
					text, _ := os.ReadFile(l.Log(i))
					p.Logf("end of the log of node %d:\n%s", i, text[max(0, len(text)-2000):])
				}
			}
			if _, err := l.Stop(context.Background(), downPatience); err != nil {
				p.Errorf("ending the network: %s", err)
			}
		}
	})
	p.want(0, "Try next", append([]string{"up", "--dir", p.dir, "--detach"}, args...)...)
	l, err := testnet.OpenLocal(p.dir)
	if err != nil {
		p.Fatal(err)
	}
	return l
}

func (p program) wallet(args ...string) []string {
	return append(args, "--home", filepath.Join(p.dir, "wallet"))
}

// process is a command that runs while the test does other things.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	text  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// begin starts a command; the end of the test kills it.
func (p program) begin(args ...string) *process {
	p.Helper()
	x := &process{cmd: exec.Command(p.path, args...), ended: make(chan struct{})}
	x.cmd.Stdout, x.cmd.Stderr = x, x
	x.cmd.WaitDelay = 5 * time.Second
	if err := x.cmd.Start(); err != nil {
		p.Fatal(err)
	}
	go func() { _ = x.cmd.Wait(); close(x.ended) }() // how it ended is in ProcessState
	p.Cleanup(func() { _ = x.cmd.Process.Kill(); <-x.ended })
	return x
}

func (p program) await(what string, limit time.Duration, done func() bool) {
	p.Helper()
	for began := time.Now(); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > limit {
			p.Fatalf("waited %s for %s", limit, what)
		}
	}
}

// exits waits for a command's end.
func (p program) exits(x *process, code int, want string) {
	p.Helper()
	select {
	case <-x.ended:
	case <-time.After(30 * time.Second):
		p.Fatalf("%v does not end:\n%s", x.cmd.Args, x.said())
	}
	if got := x.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(x.said(), want) {
		p.Fatalf("%v: exit code %d, want %d and %q:\n%s", x.cmd.Args, got, code, want, x.said())
	}
}

func status(p program, nodes ...string) (s client.Status) {
	p.Helper()
	args := p.wallet("status", "--output", "json")
	if len(nodes) > 0 {
		args = append(args, "--node", strings.Join(nodes, ","))
	}
	if r := p.run(args...); json.Unmarshal([]byte(r.out), &s) != nil {
		p.Fatalf("status: exit code %d:\n%s%s", r.code, r.out, r.err)
	}
	return s
}

// upInForeground runs a network of one in the foreground and ends it both ways; the same folder goes on with its books.
func upInForeground(p program) {
	var height uint64
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		x := p.begin("up", "--dir", p.dir, "--validators", "1")
		p.await("the welcome", time.Minute, func() bool { return strings.Contains(x.said(), "Ctrl-C ends the network") })
		l, err := testnet.OpenLocal(p.dir)
		if err != nil {
			p.Fatal(err)
		}
		if now := status(p); now.Height <= height || now.MayFail != 0 || len(now.Validators) != 1 {
			p.Errorf("after height %d: %+v", height, now)
		} else {
			height = now.Height
		}
		p.want(0, `^9\d{5}\.\d+ +PAC`, p.wallet("balance", "alice")...) // paid bob 10 and a fee
		if err := x.cmd.Process.Signal(s); err != nil {
			p.Fatal(err)
		}
		p.exits(x, 0, "stop the nodes")
		if node, ok := l.Running(0); ok {
			p.Fatalf("after %s process %d still runs", s, node.PID)
		}
	}
	p.want(1, "has 1 validators: leave --validators out", "up", "--dir", p.dir, "--validators", "4")
	p.want(0, "no node was running", "down", "--dir", p.dir)
	p.want(1, "reading the network.*hint: --dir names", "down", "--dir", filepath.Join(p.dir, "wallet"))
}

// sevenValidators is a larger network with keys of both kinds in its set: two may fail, a third stops it, their restart
// by the command that `up` prints heals it, and a rolled back node comes to the same state as the others.
func sevenValidators(p program) {
	l := p.detached("--validators", "7", "--validator-key-type", "ed25519,ml_dsa_65")
	s := status(p)
	kinds := map[string]int{}
	for _, v := range s.Validators {
		kinds[v.KeyType]++
	}
	if kinds["ed25519"] != 4 || kinds["ml_dsa_65"] != 3 {
		p.Fatalf("validators' keys: %v", kinds)
	}
	// Who votes twice pays once.
	r := p.want(0, `parameter +max_open_nonces: \d+ -> 77\n.*proposal [0-9a-f]{64}`, p.wallet("params", "set", "max_open_nonces=77", "--from", "op-node0")...)
	id := regexp.MustCompile(`proposal ([0-9a-f]{64})`).FindStringSubmatch(r.out)[1]
	p.want(0, `proposal +`+id+`.*op-node0 \(\S+\) has approved it already: nothing was sent`, p.wallet("proposal", "approve", id[:8], "--from", "op-node0")...)
	p.want(0, `op-node1 \(\S+\) has not approved it: nothing was sent`, p.wallet("proposal", "withdraw", id, "--from", "op-node1")...)
	p.want(0, "committed", p.wallet("proposal", "withdraw", id, "--from", "op-node0")...)
	for _, i := range []int{5, 6} {
		if err := l.Signal(i, syscall.SIGKILL); err != nil {
			p.Fatal(err)
		}
	}
	// Four ed25519 and one ml_dsa_65 are left: nothing is final without the post-quantum signature.
	p.want(0, "committed.*proof +header", p.wallet("pay", "--from", "alice", "--to", "bob", "1", "PAC")...)
	p.await("two to count as offline", 30*time.Second, func() bool { return status(p).MayFail == 0 })
	if err := l.Signal(4, syscall.SIGKILL); err != nil {
		p.Fatal(err)
	}
	if r := p.run(p.wallet("pay", "--from", "alice", "--to", "bob", "1", "PAC", "--timeout", "3s")...); r.code != 4 && r.code != 1 {
		p.Errorf("a payment without two thirds: exit code %d\n%s%s", r.code, r.out, r.err)
	}

	// Back: by the command that a foreground `up` prints.
	p.want(0, "Try next.*node0 runs already", "up", "--dir", p.dir, "--detach")
	p.await("node6 to follow", 30*time.Second, func() bool { return p.run("health", "--node", "http://"+l.Nodes[6].RPC).code == 0 })
	p.want(0, "committed", p.wallet("pay", "--from", "alice", "--to", "bob", "1", "PAC")...)

	// One block back, and forth again.
	if err := l.Signal(6, syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
	p.await("node6 to end", 20*time.Second, func() bool { _, ok := l.Running(6); return !ok })
	p.want(0, `rolled back from height \d+ to \d+`, "rollback", "--home", string(l.Home(6)))
	p.want(0, `rolled back from height \d+ to \d+`, "rollback", "--hard", "--home", string(l.Home(6)))
	p.want(0, `findings +0`, "fsck", "--home", string(l.Home(6)))
	p.want(0, "Try next", "up", "--dir", p.dir, "--detach")
	p.await("node6 to follow", 30*time.Second, func() bool { return p.run("health", "--node", "http://"+l.Nodes[6].RPC).code == 0 })
	same(p, l, 0, 6)
}

// same compares the state of two nodes at the newest height that both have.
func same(p program, l *testnet.Local, i, j int) {
	p.Helper()
	p.await(fmt.Sprintf("nodes %d and %d at one height", i, j), 30*time.Second, func() bool {
		a, b := status(p, l.URLs()[i]), status(p, l.URLs()[j])
		if a.Height == b.Height && a.AppHash != b.AppHash {
			p.Fatalf("height %d: node %d has state %s, node %d %s", a.Height, i, a.AppHash, j, b.AppHash)
		}
		return a.Height == b.Height && a.Height > 0
	})
}

// refusals: what a node does not start on, each with exit code 1 and a text that says what to do, while the network
// goes on. Its validators have ML-DSA keys, and it is stopped and started as a whole.
func refusals(p program) {
	l := p.detached("--validators", "4", "--validator-key-type", "ml_dsa_65")
	p.want(0, "node0 ended.*node3 ended", "down", "--dir", p.dir)
	p.want(0, "no node was running", "down", "--dir", p.dir)
	p.want(0, "Try next", "up", "--dir", p.dir, "--detach")
	p.want(0, `^\d+\.\d+ +PAC.*proven at height`, p.wallet("balance", "bob")...)
	if s := status(p); s.Validators[0].KeyType != "ml_dsa_65" || s.MayFail != 1 {
		p.Errorf("status: %+v", s)
	}

	home := l.Home(3)
	p.want(1, "in use by another process: stop that node first", "start", "--home", string(home))
	p.want(1, "in use by another process", "fsck", "--home", string(home))
	p.want(1, "in use by another process", "rollback", "--home", string(home))
	if err := l.Signal(3, syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
	p.await("node3 to end", 20*time.Second, func() bool { _, ok := l.Running(3); return !ok })

	// Another process has the port.
	p.want(1, "rpc.listen = "+l.Nodes[0].RPC+": .*address already in use", "start", "--home", string(home), "--rpc.listen", l.Nodes[0].RPC)
	p.want(1, "address already in use", "start", "--home", string(home), "--p2p.listen", l.Nodes[0].P2P)

	// Settings.
	config, err := os.ReadFile(home.Config())
	if err != nil {
		p.Fatal(err)
	}
	set := func(text string) {
		p.Helper()
		if err := os.WriteFile(home.Config(), []byte(text), 0o600); err != nil {
			p.Fatal(err)
		}
	}
	set(strings.Replace(string(config), "moniker", "monicker", 1))
	p.want(1, `pacioli.toml: line \d+: unknown key node.monicker`, "start", "--home", string(home))
	set(string(config) + "\n'mempool.type' = 'flood'\n")
	p.want(1, `"mempool.type" cannot be overridden: the mempool is the application's`, "start", "--home", string(home))
	set(strings.Replace(string(config), "timeout_propose = '2s'", "timeout_propose = '1s'", 1))
	p.want(1, `consensus.timeout_propose is 1s, want at least`, "start", "--home", string(home))
	set(string(config))
	p.want(1, `no such file.*hint: pacioli init makes`, "start", "--home", filepath.Join(p.dir, "nothing"))

	// Genesis: missing, broken, of another network; one that only reads does no harm.
	genesis, err := os.ReadFile(home.Genesis())
	if err != nil {
		p.Fatal(err)
	}
	if err := os.Remove(home.Genesis()); err != nil {
		p.Fatal(err)
	}
	p.want(1, `genesis.json is missing: get the genesis file`, "start", "--home", string(home))
	for _, c := range []struct{ text, want string }{
		{"{}", "genesis"},
		{string(genesis[:len(genesis)/2]), "genesis"},
		{strings.Replace(string(genesis), `"local-1"`, `"local-2"`, 1), `belongs to chain local-1, network .* describes chain local-2, network .*: choose the right --home`},
	} {
		if err := os.WriteFile(home.Genesis(), []byte(c.text), 0o600); err != nil {
			p.Fatal(err)
		}
		p.want(1, c.want, "start", "--home", string(home))
	}
	if err := os.WriteFile(home.Genesis(), genesis, 0o400); err != nil {
		p.Fatal(err)
	}
	if err := os.Chmod(home.Genesis(), 0o400); err != nil {
		p.Fatal(err)
	}

	// The sign state is never made anew.
	if err := os.Remove(home.SignState()); err != nil {
		p.Fatal(err)
	}
	p.want(1, "is missing beside the validator's key: without it the key could sign twice", "start", "--home", string(home))
	if err := os.WriteFile(home.SignState(), []byte("{}"), 0o600); err != nil {
		p.Fatal(err)
	}
	p.want(1, "want height, round and step of the last signature", "start", "--home", string(home))
	// It is lost for good: the runbook's way back.
	lost := fmt.Appendf(nil, `{"height":"%d","round":0,"step":3}`, status(p, l.URLs()[0]).Height+1)
	if err := os.WriteFile(home.SignState(), lost, 0o600); err != nil {
		p.Fatal(err)
	}

	// After all of it the node goes on where it was.
	p.begin("start", "--home", string(home))
	p.await("node3 to follow", 30*time.Second, func() bool { return p.run("health", "--node", "http://"+l.Nodes[3].RPC).code == 0 })
	p.await("node3 to sign again", 30*time.Second, func() bool { return status(p).MayFail == 1 })
	same(p, l, 0, 3)
	p.files(l)
}

// files moves a payment between two homes by files, and has two organisations sign one transaction.
func (p program) files(l *testnet.Local) {
	p.Helper()
	// The vault has keys and the genesis file, and no way to a node.
	vault := filepath.Join(p.dir, "vault")
	cold := func(args ...string) []string {
		return append(args, "--home", vault, "--node", "http://127.0.0.1:1", "--passphrase-file", filepath.Join(p.dir, "wallet", "passphrase"))
	}
	if err := os.MkdirAll(filepath.Join(vault, "config"), 0o700); err != nil {
		p.Fatal(err)
	}
	genesis, err := os.ReadFile(l.Home(0).Genesis())
	if err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vault, "config", "genesis.json"), genesis, 0o600); err != nil {
		p.Fatal(err)
	}
	passphrase, err := os.ReadFile(filepath.Join(p.dir, "wallet", "passphrase"))
	if err != nil {
		p.Fatal(err)
	}
	keys, err := keystore.Open(filepath.Join(vault, "keys"), keystore.WithCost(keystore.CheapCost))
	if err != nil {
		p.Fatal(err)
	}
	carol, _, err := keys.Create("carol", keystore.Spec{Kind: keystore.Hybrid}, strings.TrimSpace(string(passphrase)))
	if err != nil {
		p.Fatal(err)
	}
	address := carol.Address.String()
	p.want(0, "committed", p.wallet("pay", "--from", "alice", "--to", address, "100", "PAC")...)
	bob := regexp.MustCompile(`pac1p\w+`).FindString(p.want(0, "address", p.wallet("keys", "show", "bob")...).out)
	file, signed := filepath.Join(p.dir, "1.tx"), filepath.Join(p.dir, "1.signed.tx")
	p.want(0, "not signed", cold("tx", "build", "pay", "--offline", "--sequence-number", "1", "--from", "carol", "--to", bob, "7", "PAC", "--out", file)...)
	p.want(0, "missing +signatures of weight 2", p.wallet("tx", "inspect", file)...)
	p.want(1, "signatures are missing", p.wallet("tx", "broadcast", file)...)
	p.want(0, "ml-dsa-65 .*: signed", cold("tx", "sign", file, "--key", "carol", "--yes", "--out", signed)...)
	p.want(1, "connecting to|nodes|refused", cold("tx", "broadcast", signed)...)
	first := p.want(0, "committed.*pays 7.000000 PAC to bob", p.wallet("tx", "broadcast", signed)...)
	if again := p.want(0, "committed", p.wallet("tx", "broadcast", signed)...); again.out != first.out {
		p.Errorf("sent twice:\n%s\nand then\n%s", first.out, again.out)
	}

	// Two accounts exchange: both pay, or none. Such a transaction is built by a program; each side signs at home.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl, err := client.Dial(ctx, client.Options{Nodes: l.URLs(), GenesisFile: l.Home(0).Genesis()})
	if err != nil {
		p.Fatal(err)
	}
	to, err := crypto.ParseAddress(bob)
	if err != nil {
		p.Fatal(err)
	}
	id, _, err := cl.AssetByCode(ctx, testnet.FeeAsset, 0)
	if err != nil {
		p.Fatal(err)
	}
	bobs, err := keystore.Open(filepath.Join(p.dir, "wallet", "keys"))
	if err != nil {
		p.Fatal(err)
	}
	signer, err := bobs.Unlock("bob", strings.TrimSpace(string(passphrase)))
	if err != nil {
		p.Fatal(err)
	}
	built, err := cl.Build(ctx, client.Intent{Signers: []crypto.Address{carol.Address, to}, Known: []crypto.Policy{carol.Policy, signer.Policy()}, ValidFor: 2 * time.Minute,
		Operations: []ledger.Operation{
			&ledger.Transfer{From: 0, To: to, Asset: id, Amount: ledger.Units(5_000_000)},
			&ledger.Transfer{From: 1, To: carol.Address, Asset: id, Amount: ledger.Units(2_000_000)},
		}})
	if err != nil {
		p.Fatal(err)
	}
	text, err := built.Draft.Encode(nil)
	if err != nil {
		p.Fatal(err)
	}
	both := filepath.Join(p.dir, "both.tx")
	if err := os.WriteFile(both, text, 0o600); err != nil {
		p.Fatal(err)
	}
	p.want(0, "missing +signatures of weight 2", p.wallet("tx", "sign", both, "--key", "bob", "--yes")...)
	p.want(1, "signatures are missing: those for "+address, p.wallet("tx", "broadcast", both)...)
	p.want(0, "ed25519 .*: signed.*ml-dsa-65 .*: signed", cold("tx", "sign", both, "--key", "carol", "--yes")...)
	p.want(0, "committed.*pays 5.000000 PAC to bob.*pays 2.000000 PAC to", p.wallet("tx", "broadcast", both)...)
	p.want(0, `^20\.000000 +PAC`, p.wallet("balance", "bob", "PAC")...) // 10 of the first payment, 7, and 5 less 2
}
