package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
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
	"github.com/pacioli-ledger/pacioli/testnet"
)

// week is a network of real processes and what happens to it, day by day. A day may use what the days before have left; what
// comes new to an operator's life comes here as another day.
type week struct {
	program
	net  *testnet.Local
	five string // home of the fifth node
	rpc  string // of it
	node *process
}

// TestOperatorsWeek: a fifth validator joins a running network of four by the commands of the runbook, its key is rotated to a
// post-quantum one while it runs, it loses its disk, is set inactive, comes back with a snapshot of the others and is
// reactivated. Another one is backed up while it runs, loses its data and comes back from the backup, and one more leaves.
// Somebody pays all the time and notices nothing, nobody loses a vote that he should have, and in the end the books balance
// and are the same everywhere.
func TestOperatorsWeek(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network")
	}
	t.Parallel()
	w := &week{program: program{t, filepath.Join(build(t), "pacioli"), filepath.Join(t.TempDir(), "network")}}
	topology := filepath.Join(t.TempDir(), "topology.toml")
	if err := os.WriteFile(topology, []byte(weekTopology), 0o600); err != nil {
		t.Fatal(err)
	}
	w.net = w.detached("--topology", topology)
	w.five = filepath.Join(w.dir, "five")
	t.Cleanup(func() {
		if t.Failed() && w.node != nil {
			text := w.node.said()
			t.Logf("end of the log of the fifth node:\n%s", text[max(0, len(text)-3000):])
		}
	})
	w.want(0, "shop", w.wallet("keys", "new", "shop")...)
	finish := w.pay()
	for _, day := range []struct {
		name string
		do   func(*week)
	}{
		{"a bond is agreed on", (*week).agreesOnBond},
		{"a fifth validator joins", (*week).joins},
		{"its key is rotated", (*week).rotates},
		{"it loses its disk", (*week).losesDisk},
		{"it comes back from a snapshot", (*week).comesBack},
		{"another one is restored from its backup", (*week).restores},
		{"one leaves", (*week).leaves},
	} {
		began := time.Now()
		day.do(w)
		w.Logf("%s: %s", day.name, time.Since(began).Round(100*time.Millisecond))
	}
	w.closes(finish())
}

// weekTopology is a network whose nodes make snapshots so often that a short test sees some.
const weekTopology = `
chain_id = "week-1"

[settings]
"snapshot.interval" = 20

[[nodes]]
name = "node0"
role = "validator"

[[nodes]]
name = "node1"
role = "validator"

[[nodes]]
name = "node2"
role = "validator"

[[nodes]]
name = "node3"
role = "validator"
`

// pay has alice pay the shop 1 PAC again and again, as a program does that knows of no operator: each payment has an id, and its
// command is repeated until it says how it ended. finish returns how many there were, each of them in a block and proven.
func (w *week) pay() (finish func() int) {
	stop, done := make(chan struct{}), make(chan struct{})
	paid := 0
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond):
			}
			cmd := exec.Command(w.path, w.wallet("pay", "--from", "alice", "--to", "shop", "1", "PAC", "--id", fmt.Sprintf("week-%d", paid))...)
			out, err := cmd.CombinedOutput()
			switch code := cmd.ProcessState.ExitCode(); code {
			case 0:
				paid++
			case 4: // unknown: the same again
				w.Logf("payment %d is not decided: %s", paid, out)
			default:
				w.Errorf("payment %d: exit code %d, %v:\n%s", paid, code, err, out)
				return
			}
		}
	}()
	finish = sync.OnceValue(func() int { close(stop); <-done; return paid })
	w.Cleanup(func() { finish() })
	return finish
}

// closes is the end of the week: every payment was made once, the books balance, and all nodes have the same, the one that has
// lost its place as well.
func (w *week) closes(paid int) {
	w.Helper()
	if paid < 20 {
		w.Errorf("only %d payments in a week", paid)
	}
	w.want(0, fmt.Sprintf(`(^|\n)%d\.000000 +PAC`, paid), w.wallet("balance", "shop", "PAC")...)
	w.want(0, `"ok": ?true`, w.wallet("audit", "--output", "json", "--node", "http://"+w.rpc)...)
	height := status(w.program, "http://"+w.rpc).Height
	homes := map[string]string{"five": w.five}
	for i, n := range w.net.Nodes {
		homes[n.Name] = string(w.net.Home(i))
	}
	states := map[string][]string{} // AppHash and what it is of, and who has it
	for name, home := range homes {
		var r struct {
			Height  uint64 `json:"height"`
			AppHash string `json:"app_hash"`
			SHA256  string `json:"sha256"`
		}
		w.await(name+" to have height "+fmt.Sprint(height), 30*time.Second, func() bool {
			x := w.run("export", "--home", home, "--height", fmt.Sprint(height), "--out", filepath.Join(w.dir, name+".jsonl"), "--output", "json")
			return x.code == 0 && json.Unmarshal([]byte(x.out), &r) == nil
		})
		key := fmt.Sprintf("height %d, AppHash %s, SHA-256 of the export %s", r.Height, r.AppHash, r.SHA256)
		states[key] = append(states[key], name)
	}
	if len(states) != 1 {
		w.Errorf("the nodes' books differ: %v", states)
	}
	w.Logf("%d payments; %v", paid, states)
}

// decides makes a proposal as the first operator and approves it as the others, until it is decided.
func (w *week) decides(first string, others []string, args ...string) {
	w.Helper()
	r := w.want(0, `proposal [0-9a-f]{64}`, w.wallet(append(args, "--from", first)...)...)
	id := regexp.MustCompile(`proposal ([0-9a-f]{64})`).FindStringSubmatch(r.out)[1]
	for i, who := range others {
		pattern := "committed"
		if i == len(others)-1 {
			w.want(0, "decides|decided", w.wallet("proposal", "approve", id[:8], "--from", who, "--dry-run")...)
			pattern = "decided: the change takes effect"
		} else {
			w.want(0, who, w.wallet("proposal", "show", id[:8])...)
		}
		w.want(0, pattern, w.wallet("proposal", "approve", id, "--from", who)...)
	}
	w.want(0, "no open proposals", w.wallet("proposal", "list")...)
}

// validators is `pacioli validator list`.
func (w *week) validators() (r validatorsResult) {
	w.Helper()
	out := w.want(0, "", w.wallet("validator", "list", "--all", "--output", "json")...).out
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		w.Fatalf("%s: %s", err, out)
	}
	return r
}

// fifth is the validator that op-five operates; of several the one that is present.
func (w *week) fifth() (found validatorView) {
	w.Helper()
	for _, v := range w.validators().Validators {
		if v.OperatorName == "op-five" && (found.Address == "" || v.State == "active" || v.State == "inactive") {
			found = v
		}
	}
	return found
}

func (w *week) agreesOnBond() {
	before := w.validators()
	if before.Active != 4 || before.MayFail != 1 || before.Quorum != 27 {
		w.Fatalf("begins with %+v", before)
	}
	w.want(3, `proposal_expiry_out_of_range`, w.wallet("params", "set", "bond=1", "--from", "op-node0", "--expires", "2000h", "--dry-run")...)
	w.want(1, `"bonds=1": want KEY=VALUE`, w.wallet("params", "set", "bonds=1", "--from", "op-node0")...)
	w.want(0, `bond: 0 -> 5000000.*10 of 40 power, 27 decide`, w.wallet("params", "set", "bond=5000000", "--from", "op-node0", "--dry-run")...)
	w.decides("op-node0", []string{"op-node1", "op-node2"}, "params", "set", "bond=5000000")
	w.want(0, `bond +5000000\n`, w.wallet("params", "show")...)
}

func (w *week) joins() {
	w.want(0, "op-five", w.wallet("keys", "new", "op-five")...)
	w.want(0, "committed", w.wallet("pay", "--from", "alice", "--to", "op-five", "100", "PAC")...)
	id := regexp.MustCompile(`network +([0-9a-f]{64})`).FindStringSubmatch(w.want(0, "network", w.wallet("params", "show")...).out)[1]

	var addresses []string
	var held []net.Listener // until both are found, so that they differ
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.Fatal(err)
		}
		addresses = append(addresses, listener.Addr().String())
		held = append(held, listener)
	}
	for _, listener := range held {
		listener.Close()
	}
	w.rpc = addresses[0]
	init := []string{"init", "--home", w.five, "--moniker", "bank-five", "--join", w.net.URLs()[0], "--rpc.listen", addresses[0], "--p2p.listen", addresses[1]}
	w.want(1, "--network-id is missing.*the nodes say "+id, init...)
	w.want(1, "are of network "+id+".*nothing was made", append(init, "--network-id", strings.Repeat("00", 32))...)
	w.want(0, id, append(init, "--network-id", id)...)

	file := filepath.Join(w.dir, "five.validator.json")
	join := w.wallet("validator", "join", "--node-home", w.five, "--from", "op-five", "--key-file", file)
	w.want(1, "hint: start it", join...)
	w.starts()
	w.want(0, `bank-five.*Now give it to an operator`, join...)

	add := []string{"validator", "add", "--key-file", file}
	w.want(3, `refused by +validator_quorum_lost.*would fail with code 165`, w.wallet(append(add, "--power", "1000", "--from", "op-node0", "--dry-run")...)...)
	w.want(3, `not_validator`, w.wallet(append(add, "--from", "op-five", "--dry-run")...)...)
	w.want(0, `now +4 validators, power 40, quorum 27: 1 may fail.*then +5 validators, power 50, quorum 34: 1 may fail`, w.wallet(append(add, "--from", "op-node0", "--dry-run")...)...)
	w.decides("op-node0", []string{"op-node1", "op-node2"}, add...)
	w.signs(5)
	if v := w.fifth(); v.State != "active" || v.Name != "bank-five" || v.Bond != "5.000000" || v.Power != 10 {
		w.Fatalf("joined as %+v", v)
	}
}

// starts starts the fifth node and waits until it follows.
func (w *week) starts() {
	w.Helper()
	w.node = w.begin("start", "--home", w.five)
	w.await("the fifth node to follow", 60*time.Second, func() bool {
		select {
		case <-w.node.ended:
			w.Fatal("the fifth node has ended")
		default:
		}
		return w.run("health", "--node", "http://"+w.rpc).code == 0
	})
}

// stops stops it.
func (w *week) stops() {
	w.Helper()
	if err := w.node.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.Fatal(err)
	}
	w.exits(w.node, 0, "stop node")
}

// signs waits until the set has so many validators and all of them sign.
func (w *week) signs(count int) {
	w.Helper()
	w.await(fmt.Sprintf("%d validators to sign", count), 60*time.Second, func() bool {
		s := status(w.program, w.net.URLs()[0])
		return len(s.Validators) == count && s.OnlinePower == s.TotalPower
	})
}

func (w *week) rotates() {
	old := w.fifth()
	w.want(1, "names the home of the validator's node", w.wallet("validator", "rotate", "--node-home", string(w.net.Home(0)), "--from", "op-five")...)
	w.decides("op-five", []string{"op-node0", "op-node1", "op-node2"}, "validator", "rotate", "--node-home", w.five, "--validator-key-type", "ml_dsa_65")
	w.await("the new key to be in use", 30*time.Second, func() bool {
		return strings.Contains(w.node.said(), "sign with the next validator key from now on")
	})
	now := w.fifth()
	if now.Address == old.Address || now.KeyType != "ml_dsa_65" || now.Power != old.Power || now.Name != old.Name {
		w.Fatalf("after the rotation of %+v: %+v", old, now)
	}
	w.signs(5)
	w.want(0, now.Address, "show-validator", "--home", w.five, "--output", "json")
	if _, err := os.Stat(filepath.Join(w.five, "config", "priv_validator_key.retired-"+old.Address+".json")); err != nil {
		w.Error(err)
	}
	// A restart goes on with the new key.
	w.stops()
	w.starts()
	w.signs(5)
}

func (w *week) losesDisk() {
	w.decides("op-node0", []string{"op-node1", "op-node2", "op-node3"}, "params", "set", "missed_window=20", "max_missed=15")
	w.stops()
	if err := os.RemoveAll(filepath.Join(w.five, "data")); err != nil {
		w.Fatal(err)
	}
	w.want(1, "pacioli validator reset-sign-state", "start", "--home", w.five)
	w.await("it to be set inactive", 90*time.Second, func() bool { return w.fifth().State == "inactive" })
	if r := w.validators(); r.Active != 4 || r.Inactive != 1 || r.MayFail != 1 {
		w.Errorf("without it: %+v", r.Strength)
	}
	// A home whose key signs elsewhere gets no sign state.
	twin := filepath.Join(w.dir, "twin")
	if err := os.CopyFS(filepath.Join(twin, "config"), os.DirFS(filepath.Join(string(w.net.Home(1)), "config"))); err != nil {
		w.Fatal(err)
	}
	config, err := os.ReadFile(w.net.Home(1).Config())
	if err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(twin, "pacioli.toml"), config, 0o600); err != nil {
		w.Fatal(err)
	}
	w.want(1, "it signs on another machine", "validator", "reset-sign-state", "--home", twin, "--node", w.net.URLs()[0])
	if _, err := os.Stat(filepath.Join(twin, "data", "priv_validator_state.json")); err == nil {
		w.Error("a sign state was written for a key that signs elsewhere")
	}
	w.want(0, "nothing up to height", "validator", "reset-sign-state", "--home", w.five, "--node", strings.Join(w.net.URLs(), ","))
}

// comesBack state-syncs the fifth node: it has its keys, a new sign state, and no data.
func (w *week) comesBack() {
	w.want(3, "validator_not_inactive", w.wallet("validator", "reactivate", "--from", "op-node0", "--dry-run")...)
	w.want(0, "", "config", "--home", w.five, "--write", "--state_sync.enable", "--state_sync.servers", strings.Join(w.net.URLs()[:2], ","))
	w.starts()
	if text := w.node.said(); !strings.Contains(text, "look for a snapshot") {
		w.Errorf("the node did not look for a snapshot:\n%s", text)
	}
	if first := firstBlock(w.program, w.rpc); first < 20 { // the first snapshot is of height 20
		w.Errorf("the first block of the node that was state-synced is %d", first)
	}
	w.want(0, "committed", w.wallet("validator", "reactivate", "--from", "op-five")...)
	w.signs(5)
	if v := w.fifth(); v.State != "active" || v.Power != 10 {
		w.Errorf("after it was reactivated: %+v", v)
	}
}

// firstBlock returns the first block that a node has.
func firstBlock(p program, rpc string) int {
	p.Helper()
	response, err := http.Get("http://" + rpc + "/status")
	if err != nil {
		p.Fatal(err)
	}
	defer response.Body.Close()
	var r struct {
		Result struct {
			SyncInfo struct {
				EarliestBlockHeight int `json:"earliest_block_height,string"`
			} `json:"sync_info"`
		} `json:"result"`
	}
	if err := json.NewDecoder(response.Body).Decode(&r); err != nil {
		p.Fatal(err)
	}
	return r.Result.SyncInfo.EarliestBlockHeight
}

// restores backs the second validator up while it runs, has it lose all its data, and brings it back. Its sign state is lost as
// well: what the backup has instead is none, and the node does not sign before the network was seen to be without its key.
func (w *week) restores() {
	home := string(w.net.Home(1))
	var made struct {
		Backup string `json:"backup"`
		Height uint64 `json:"height"`
	}
	out := w.want(0, "", "backup", "create", "--home", home, "--to", filepath.Join(w.dir, "backups"), "--output", "json").out
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Height == 0 {
		w.Fatalf("backup create: %v: %s", err, out)
	}
	w.want(0, `findings +0`, "backup", "verify", made.Backup, "--deep")

	if err := w.net.Signal(1, syscall.SIGKILL); err != nil {
		w.Fatal(err)
	}
	w.await("node1 to end", 20*time.Second, func() bool { _, ok := w.net.Running(1); return !ok })
	w.want(1, "overwrites nothing", "backup", "restore", made.Backup, "--home", home)
	if err := os.RemoveAll(filepath.Join(home, "data")); err != nil {
		w.Fatal(err)
	}
	w.want(0, `Lost sign state`, "backup", "restore", made.Backup, "--home", home)
	w.want(1, "pacioli validator reset-sign-state", "start", "--home", home)
	w.want(0, "nothing up to height", "validator", "reset-sign-state", "--home", home, "--node", strings.Join([]string{w.net.URLs()[0], w.net.URLs()[2]}, ","))
	w.want(0, "Try next", "up", "--dir", w.dir, "--detach")
	w.await("node1 to follow", 60*time.Second, func() bool { return w.run("health", "--node", w.net.URLs()[1]).code == 0 })
	if first := firstBlock(w.program, w.net.Nodes[1].RPC); first != 1 {
		w.Errorf("the first block of the node that was restored is %d", first)
	}
	// Windows of missed blocks end at their heights: it depends on them whether, and when, it was away for too much of one.
	w.await("node1 to sign, reactivated if need be", 60*time.Second, func() bool {
		for _, v := range w.validators().Validators {
			if v.OperatorName == "op-node1" && v.State == "inactive" {
				w.want(0, "committed", w.wallet("validator", "reactivate", "--from", "op-node1")...)
			}
		}
		s := status(w.program, w.net.URLs()[0])
		return len(s.Validators) == 5 && s.OnlinePower == s.TotalPower
	})
}

func (w *week) leaves() {
	w.want(3, "bond_locked|bond_missing", w.wallet("validator", "release", "--from", "op-node3", "--dry-run")...)
	w.decides("op-node0", []string{"op-node1", "op-node2", "op-five"}, "validator", "remove", "node3")
	w.await("the set to be without it", 30*time.Second, func() bool { return len(status(w.program, w.net.URLs()[0]).Validators) == 4 })
	if r := w.validators(); r.Active != 4 || r.MayFail != 1 {
		w.Errorf("after one has left: %+v", r.Strength)
	}
	// It goes on as a full node.
	if h, err := client.Ready(w.Context(), w.net.URLs()[3]); err != nil || !h.OK {
		w.Errorf("the node of the validator that has left: %+v, %v", h, err)
	}
}
