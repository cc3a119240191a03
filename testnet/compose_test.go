package testnet

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"gopkg.in/yaml.v3"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/genesis"
)

var update = flag.Bool("update", false, "write the expected files again")

// program writes a program that does nothing, and needs an interpreter or not.
func program(t *testing.T, interpreter bool) string {
	t.Helper()
	header := make([]byte, 64+56)
	copy(header, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(header[16:], 2)  // executable
	le.PutUint16(header[18:], 62) // for x86-64
	le.PutUint32(header[20:], 1)
	le.PutUint64(header[32:], 64) // program headers follow
	le.PutUint16(header[52:], 64)
	le.PutUint16(header[54:], 56)
	le.PutUint16(header[56:], 1)
	le.PutUint32(header[64:], 1) // to be loaded
	if interpreter {
		le.PutUint32(header[64:], 3)
	}
	path := filepath.Join(t.TempDir(), "pacioli")
	if err := os.WriteFile(path, header, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGenerate looks at the project of the topology of `make testnet`.
func TestGenerate(t *testing.T) {
	topology, err := LoadTopology("topology.toml")
	if err != nil {
		t.Fatal(err)
	}
	topology.Nodes[1].Version = "old" // one that runs another release
	topology.Versions = map[string]Version{"old": {Image: "pacioli:0.1"}}
	dir, o := filepath.Join(t.TempDir(), "net"), GenerateOptions{Binary: program(t, false), Version: "test"}
	p, err := Generate(dir, topology, o)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, p)
	composeReads(t, p)
	keysStay(t, p)

	// Again, with what may change: keys and genesis stay, a node is added, settings follow.
	before := contents(t, p)
	topology.Nodes = append(topology.Nodes, NodeSpec{Name: "full1", Role: RoleFull})
	topology.Settings["rpc.ready_lag"] = "30s"
	if p, err = Generate(dir, topology, o); err != nil {
		t.Fatal(err)
	}
	after := contents(t, p)
	for name, text := range before {
		if (strings.HasSuffix(name, "_key.json") || strings.HasSuffix(name, "genesis.json") || strings.Contains(name, "wallet/keys")) && !bytes.Equal(after[name], text) {
			t.Errorf("%s has changed", name)
		}
	}
	c, err := node.LoadConfig(string(p.Home(0)))
	if err != nil || len(c.P2P.PersistentPeers) != 5 || time.Duration(c.RPC.ReadyLag) != 30*time.Second {
		t.Errorf("after a node was added, validator0 has the peers %v and ready_lag %s (%v)", c.P2P.PersistentPeers, time.Duration(c.RPC.ReadyLag), err)
	}
	if !bytes.Equal(after["nodes/full1/config/genesis.json"], after["wallet/config/genesis.json"]) {
		t.Error("the added node has another genesis")
	}
	if got := p.Nodes[5]; got.Address != "10.87.26.15" || got.RPCPort != 26707 {
		t.Errorf("the added node is %+v", got)
	}
	keysStay(t, p)
	composeReads(t, p)

	for _, test := range []struct {
		change func(*Topology)
		want   string
	}{
		{func(t *Topology) { t.ChainID = "other-1" }, "chain_id is testnet-1 there"},
		{func(t *Topology) { t.Parameters = map[string]any{"fee_base": 7} }, "parameters"},
		{func(t *Topology) { t.Nodes[0].Power = 11 }, "node 0 is validator0 there"},
		{func(t *Topology) { t.Nodes = t.Nodes[:3] }, "has 6 nodes, and now there are 3"},
	} {
		other := topology
		other.Nodes = slices.Clone(topology.Nodes)
		test.change(&other)
		if _, err := Generate(dir, other, o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("another network over this one: %v, want %q", err, test.want)
		}
	}
	if _, err := Generate(filepath.Join(t.TempDir(), "x"), topology, GenerateOptions{Binary: program(t, true)}); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("a program with an interpreter: %v", err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Generate(full, topology, o); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("into somebody's folder: %v", err)
	}
}

// contents reads all files of a project, by names below it.
func contents(t *testing.T, p *Project) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(p.Dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		short, _ := filepath.Rel(p.Dir, name)
		all[filepath.ToSlash(short)] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// golden compares what is generated with what is expected, to the letter; -update writes it.
func golden(t *testing.T, p *Project) {
	t.Helper()
	tag, network := regexp.MustCompile(`pacioli-testnet:[0-9a-f]{12}`), regexp.MustCompile(`(?m)-[0-9a-f]{8}( # the network's id.*)?$`)
	for _, name := range []string{"docker-compose.yml", ".env", "image/current/Dockerfile", "monitoring/prometheus/prometheus.yml"} {
		text, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		text = tag.ReplaceAll(text, []byte("pacioli-testnet:TAG"))
		text = network.ReplaceAll(text, []byte("-NETWORK$1"))
		want := filepath.Join("testdata", "project", strings.TrimPrefix(filepath.Base(name), "."))
		if *update {
			if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(want, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if expected, err := os.ReadFile(want); err != nil || !bytes.Equal(expected, text) {
			t.Errorf("%s is not %s (%v): look at it, then -update:\n%s", name, want, err, text)
		}
	}
}

// composeReads has the project read by compose-go, which is docker compose v2's own reader, and by docker-compose 1.29 where
// it is installed, and looks at what they make of it.
func composeReads(t *testing.T, p *Project) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(p.Dir, "docker-compose.yml")}, cli.WithWorkingDirectory(p.Dir),
		cli.WithEnvFiles(), cli.WithDotEnv, cli.WithProfiles([]string{"monitoring"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("docker compose v2 would refuse the project: %s", err)
	}
	if project.Name != p.Topology.Containers.Project || len(project.Services) != len(p.Nodes)+2 {
		t.Errorf("the project %s has %d services, want %s and %d", project.Name, len(project.Services), p.Topology.Containers.Project, len(p.Nodes)+2)
	}
	for name, s := range project.Services {
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is published on %q", name, port.HostIP)
			}
		}
		if s.Privileged || len(s.CapDrop) != 1 || s.NetworkMode != "" || len(s.Networks) != 1 || s.Logging == nil || s.MemLimit == 0 {
			t.Errorf("%s is not confined: %+v", name, s)
		}
		if strings.Contains("prometheus grafana", name) {
			if !slices.Equal(s.Profiles, []string{"monitoring"}) {
				t.Errorf("%s has the profiles %v", name, s.Profiles)
			}
			continue
		}
		if !s.ReadOnly || s.User != "65532:65532" || s.Restart != "unless-stopped" || s.StopGracePeriod == nil || len(s.Profiles) > 0 || len(s.Ports) != 1 || len(s.Secrets) != 2 {
			t.Errorf("%s is not as it should be: %+v", name, s)
		}
		writable := 0
		for _, v := range s.Volumes {
			if !v.ReadOnly {
				writable++
				if v.Type != "volume" || v.Target != "/srv/pacioli/data" && v.Target != "/srv/pacioli/backups" {
					t.Errorf("%s may write to %s", name, v.Target)
				}
			}
		}
		if writable != 2 {
			t.Errorf("%s may write to %d places", name, writable)
		}
	}
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Log("docker-compose is not installed: version 1.29 has not read the project")
		return
	}
	cmd := exec.CommandContext(t.Context(), "docker-compose", "--profile", "monitoring", "config", "--services")
	cmd.Dir = p.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker-compose refuses the project: %s\n%s", err, out)
	}
	if got := strings.Fields(string(out)); len(got) != len(p.Nodes)+2 {
		t.Errorf("docker-compose sees the services %v", got)
	}
}

// keysStay looks where keys are: in folders that are closed to others, shown to one container each, and in no image.
func keysStay(t *testing.T, p *Project) {
	t.Helper()
	if info, err := os.Stat(p.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the project's folder: %v (%v)", info.Mode(), err)
	}
	if info, err := os.Stat(p.Wallet()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the wallet's folder: %v (%v)", info.Mode(), err)
	}
	keys := 0
	for name, text := range contents(t, p) {
		secret := bytes.Contains(text, []byte("priv_key"))
		if secret {
			keys++
		}
		if in := strings.HasPrefix(name, "nodes/"); secret && !in {
			t.Errorf("%s holds a key", name)
		}
		if strings.HasPrefix(name, "nodes/") && strings.Contains(name, "/data/") {
			t.Errorf("%s is a second sign state", name)
		}
		if strings.HasPrefix(name, "image/") && !slices.Contains([]string{"Dockerfile", "pacioli", "priv_validator_state.json", "README"}, filepath.Base(name)) {
			t.Errorf("%s goes into an image", name)
		}
	}
	if keys != 2*len(p.Nodes) {
		t.Errorf("%d files hold keys, want two for each node", keys)
	}
	for i := range p.Nodes {
		if _, err := genesis.Load(p.Home(i).Genesis()); err != nil {
			t.Error(err)
		}
		for _, file := range []string{p.Home(i).Config(), p.Home(i).Genesis(), p.Home(i).NodeKey(), p.Home(i).ValidatorKey()} {
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o444 {
				t.Errorf("%s: %v (%v), want what the containers' user can read", file, info.Mode(), err)
			}
		}
	}
}

// TestMonitoring reads rules and dashboards, and compares the metrics that they use with the list that a node is held against.
func TestMonitoring(t *testing.T) {
	topology, err := LoadTopology("topology.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Generate(filepath.Join(t.TempDir(), "net"), topology, GenerateOptions{Binary: program(t, false), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	var expressions []string
	files := contents(t, p)
	for name, text := range files {
		if !strings.HasPrefix(name, "monitoring/") {
			continue
		}
		var any map[string]any
		if err := yaml.Unmarshal(text, &any); err != nil { // JSON is YAML
			t.Errorf("%s: %s", name, err)
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				For                 string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(files["monitoring/prometheus/alerts.yml"]))
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile(filepath.Join("..", "docs", "OPERATING.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			expressions = append(expressions, r.Expr)
			if r.Alert == "" || r.Annotations["summary"] == "" || r.Labels["severity"] != "warning" && r.Labels["severity"] != "critical" {
				t.Errorf("alert %+v has no name, summary or severity", r)
			}
			if section := r.Annotations["section"]; !bytes.Contains(runbook, []byte("\n### "+section+"\n")) {
				t.Errorf("alert %s: docs/OPERATING.md has no section %q", r.Alert, section)
			}
		}
	}
	var board struct {
		UID    string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(files["monitoring/grafana/dashboards/pacioli.json"], &board); err != nil {
		t.Fatal(err)
	}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	if len(expressions) < 20 {
		t.Fatalf("only %d expressions were found", len(expressions))
	}
	used := map[string]bool{}
	for _, e := range expressions {
		if err := balanced(e); err != nil {
			t.Errorf("%q: %s", e, err)
		}
		for _, name := range metricNames(e) {
			used[name] = true
		}
	}
	described, err := os.ReadFile(filepath.Join("..", "docs", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range used {
		if strings.HasPrefix(name, "pacioli_") && !bytes.Contains(described, []byte("\n| `"+name+"` | ")) {
			t.Errorf("docs/METRICS.md does not describe %s, which rules or dashboards use", name)
		}
	}
	if got := slices.Sorted(maps.Keys(used)); !slices.Equal(got, Metrics) {
		t.Errorf("rules and dashboards use\n%s\nthe list has\n%s", strings.Join(got, "\n"), strings.Join(Metrics, "\n"))
	}
}

var metricPattern = regexp.MustCompile(`\b[a-z][a-z0-9]*_[a-z0-9_]+\b`)

// metricNames finds the metrics of an expression. A histogram is served as several, which go by its name here.
func metricNames(expression string) (names []string) {
	expression = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(expression, "")
	for _, name := range metricPattern.FindAllString(expression, -1) {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if name != "histogram_quantile" && name != "avg_over_time" && name != "predict_linear" {
			names = append(names, name)
		}
	}
	return names
}

// balanced looks for the mistakes that are made when expressions are written by hand.
func balanced(expression string) error {
	var open []rune
	pairs := map[rune]rune{')': '(', ']': '[', '}': '{'}
	for _, r := range expression {
		switch r {
		case '(', '[', '{':
			open = append(open, r)
		case ')', ']', '}':
			if len(open) == 0 || open[len(open)-1] != pairs[r] {
				return fmt.Errorf("%c closes nothing", r)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 || strings.Count(expression, `"`)%2 != 0 {
		return fmt.Errorf("something is left open")
	}
	return nil
}
