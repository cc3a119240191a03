package testnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// What a node is for.
const (
	RoleValidator = "validator"
	RoleFull      = "full"   // has everything and signs nothing
	RoleSentry    = "sentry" // a full node that stands before validators, which talk to nobody else
)

// Topology describes a network, whatever it is made of: processes of one machine, or containers. It is what a topology file
// says, and is not changed after Check.
type Topology struct {
	ChainID    string             `toml:"chain_id"`
	Parameters map[string]any     `toml:"parameters"` // of the ledger, by their names in genesis; others are those of `pacioli init`
	Settings   map[string]any     `toml:"settings"`   // of every node, by their names in pacioli.toml, as "consensus.timeout_commit"
	Versions   map[string]Version `toml:"versions"`
	Nodes      []NodeSpec         `toml:"nodes"`
	Containers ContainerSpec      `toml:"containers"`
	Monitoring MonitoringSpec     `toml:"monitoring"`
}

// NodeSpec describes one node.
type NodeSpec struct {
	Name     string         `toml:"name"`
	Role     string         `toml:"role"`
	KeyType  string         `toml:"key_type,omitempty"` // of a validator; ed25519 when left out
	Power    int64          `toml:"power,omitempty"`    // of a validator; genesis.EqualPower when left out
	Sentries []string       `toml:"sentries,omitempty"` // of a validator: names of the only nodes that it talks to
	Version  string         `toml:"version,omitempty"`  // a name of [versions]; the program that runs when left out
	RPCPort  uint16         `toml:"rpc_port,omitempty"` // on 127.0.0.1 of this machine; processes take a free one when left out
	Settings map[string]any `toml:"settings,omitempty"` // of this node, over those of the network
}

// Version is a release of the node.
type Version struct {
	Binary string `toml:"binary"` // path of the program; relative to the topology file
	Image  string `toml:"image"`  // of containers; "" to build one around the binary
}

// ContainerSpec is about containers only.
type ContainerSpec struct {
	Project     string  `toml:"project"`      // name that compose puts before everything; chain_id when left out
	Subnet      string  `toml:"subnet"`       // of the one network that they share
	MemoryMB    int     `toml:"memory_mb"`    // limit of each
	CPUs        float64 `toml:"cpus"`         // limit of each; 0: none
	LogMB       int     `toml:"log_mb"`       // of each, of which the engine keeps three files
	StopSeconds int     `toml:"stop_seconds"` // between SIGTERM and SIGKILL
}

// MonitoringSpec is what the profile `monitoring` adds to containers.
type MonitoringSpec struct {
	Prometheus     string `toml:"prometheus"` // image
	Grafana        string `toml:"grafana"`    // image
	PrometheusPort uint16 `toml:"prometheus_port"`
	GrafanaPort    uint16 `toml:"grafana_port"`
	RetentionDays  int    `toml:"retention_days"`
	ScrapeSeconds  int    `toml:"scrape_seconds"`
	MetricsPort    uint16 `toml:"metrics_port"` // of the nodes, inside the network
}

// MaxNodes bounds a network on one machine: each node has four databases.
const MaxNodes = 48

// Validators is the topology of `pacioli up`: equal validators called node0, node1 and so on. Key types, with commas between,
// are used in turn.
func Validators(count int, keyTypes, chainID string) Topology {
	t := Topology{ChainID: chainID}
	types := strings.Split(keyTypes, ",")
	for i := range count {
		t.Nodes = append(t.Nodes, NodeSpec{Name: fmt.Sprintf("node%d", i), Role: RoleValidator, KeyType: types[i%len(types)]})
	}
	return t
}

// LoadTopology reads a topology file. Paths in it are made absolute: they are relative to the file's folder.
func LoadTopology(path string) (Topology, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Topology{}, fmt.Errorf("reading the topology: %w", err)
	}
	t, err := ParseTopology(text)
	if err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return t, fmt.Errorf("resolving %s: %w", path, err)
	}
	for name, v := range t.Versions {
		if v.Binary != "" && !filepath.IsAbs(v.Binary) {
			v.Binary = filepath.Join(folder, v.Binary)
			t.Versions[name] = v
		}
	}
	return t, nil
}

// ParseTopology reads and checks what a topology file says. An unknown key is an error that names its line.
func ParseTopology(text []byte) (Topology, error) {
	var t Topology
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&t)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var unknown []string
		for _, e := range strict.Errors {
			line, _ := e.Position()
			unknown = append(unknown, fmt.Sprintf("line %d: unknown key %s", line, strings.Join(e.Key(), ".")))
		}
		return t, errors.New(strings.Join(unknown, "; "))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := bad.Position()
		return t, fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	if err != nil {
		return t, err
	}
	t.fill()
	return t, t.check(keyLines(text))
}

// keyLines finds the line of every key, as "parameters.fee_base" or "nodes.2.settings.rpc.ready_lag". What a free table holds
// is checked after it is decoded, when the decoder no longer knows.
func keyLines(text []byte) map[string]int {
	lines, count := map[string]int{}, map[string]int{}
	var p unstable.Parser
	p.Reset(text)
	var prefix string
	name := func(keys unstable.Iterator) (joined string, line int) {
		var parts []string
		for keys.Next() {
			n := keys.Node()
			if line == 0 && n.Raw.Length > 0 {
				line = p.Shape(n.Raw).Start.Line
			}
			parts = append(parts, string(n.Data))
		}
		return strings.Join(parts, "."), line
	}
	for p.NextExpression() {
		e := p.Expression()
		key, line := name(e.Key())
		switch e.Kind {
		case unstable.ArrayTable:
			prefix = fmt.Sprintf("%s.%d.", key, count[key])
			count[key]++
		case unstable.Table:
			if first, rest, ok := strings.Cut(key, "."); ok && count[first] > 0 { // [nodes.settings] belongs to the node above
				key = fmt.Sprintf("%s.%d.%s", first, count[first]-1, rest)
			}
			prefix = key + "."
		case unstable.KeyValue:
			lines[prefix+key] = line
		}
	}
	return lines
}

// fill puts in what is left out.
func (t *Topology) fill() {
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.Role == RoleValidator {
			if n.KeyType == "" {
				n.KeyType = node.KeyEd25519
			}
			if n.Power == 0 {
				n.Power = genesis.EqualPower
			}
		}
	}
	c, m := &t.Containers, &t.Monitoring
	set(&c.Project, t.ChainID)
	set(&c.Subnet, "10.87.26.0/24")
	set(&c.MemoryMB, 1024)
	set(&c.LogMB, 20)
	set(&c.StopSeconds, 60)
	set(&m.Prometheus, "prom/prometheus:v3.5.0")
	set(&m.Grafana, "grafana/grafana:12.1.0")
	set(&m.PrometheusPort, 9090)
	set(&m.GrafanaPort, 3000)
	set(&m.RetentionDays, 15)
	set(&m.ScrapeSeconds, 5)
	set(&m.MetricsPort, 26660)
}

func set[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Names go into host names, container names and paths.
var (
	namePattern    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	projectPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,40}$`)
)

// check refuses what does not work. lines says where a key of a free table stands; it may be nil.
func (t *Topology) check(lines map[string]int) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	at := func(key string) string {
		if line := lines[key]; line > 0 {
			return fmt.Sprintf("line %d: ", line)
		}
		return ""
	}
	if t.ChainID == "" || len(t.ChainID) > ledger.MaxChainIDBytes {
		bad("chain_id is %q, want 1 to %d characters", t.ChainID, ledger.MaxChainIDBytes)
	}
	if len(t.Nodes) > MaxNodes {
		bad("%d nodes, want at most %d", len(t.Nodes), MaxNodes)
	}
	byName, ports, validators := map[string]*NodeSpec{}, map[uint16]string{}, 0
	for i := range t.Nodes {
		n := &t.Nodes[i]
		named := fmt.Sprintf("node %q", n.Name)
		where := at(fmt.Sprintf("nodes.%d.name", i)) + named
		if !namePattern.MatchString(n.Name) || n.Name == "wallet" || n.Name == "prometheus" || n.Name == "grafana" {
			bad("%s: want a name of lower-case letters, digits and hyphens that begins with a letter, and is not wallet, prometheus or grafana", where)
		}
		if byName[n.Name] != nil {
			bad("%s: there are two", where)
		}
		byName[n.Name] = n
		if n.RPCPort != 0 {
			if other, twice := ports[n.RPCPort]; twice {
				bad("%s: rpc_port %d is that of %s", where, n.RPCPort, other)
			}
			ports[n.RPCPort] = n.Name
		}
		switch n.Role {
		case RoleValidator:
			validators++
			if n.KeyType != node.KeyEd25519 && n.KeyType != node.KeyMLDSA65 {
				bad("%s: key_type is %q, want %s or %s", where, n.KeyType, node.KeyEd25519, node.KeyMLDSA65)
			}
			if n.Power < 0 {
				bad("%s: power is %d, want more than 0", where, n.Power)
			}
		case RoleFull, RoleSentry:
			if n.KeyType != "" || n.Power != 0 || len(n.Sentries) > 0 {
				bad("%s: key_type, power and sentries are for validators", where)
			}
		default:
			bad("%s: role is %q, want %s, %s or %s", where, n.Role, RoleValidator, RoleFull, RoleSentry)
		}
		if _, ok := t.Versions[n.Version]; n.Version != "" && !ok {
			bad("%s: version %q is not in [versions]", where, n.Version)
		}
		c, sound := node.DefaultConfig(), true
		for _, s := range []struct {
			prefix   string
			settings map[string]any
		}{{"settings.", t.Settings}, {fmt.Sprintf("nodes.%d.settings.", i), n.Settings}} {
			for _, key := range slices.Sorted(maps.Keys(flat(s.settings))) {
				if err := configure(&c, key, flat(s.settings)[key]); err != nil {
					bad("%s%s: %w", at(s.prefix+key), named, err)
					sound = false
				}
			}
		}
		if err := c.Check(); err != nil && sound {
			bad("%s: %w", where, err)
		}
	}
	if validators == 0 {
		bad("no node has the role %s", RoleValidator)
	}
	for i, n := range t.Nodes {
		for _, name := range n.Sentries {
			if s := byName[name]; s == nil || s.Role != RoleSentry {
				bad("%snode %q: sentry %q is not a node of the role %s", at(fmt.Sprintf("nodes.%d.sentries", i)), n.Name, name, RoleSentry)
			}
		}
	}
	for name, v := range t.Versions {
		if !namePattern.MatchString(name) || v.Binary == "" && v.Image == "" {
			bad("version %q: want a name of lower-case letters, digits and hyphens, and a binary or an image", name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(t.Parameters)) {
		if _, err := t.parameters(crypto.Address{}, key); err != nil {
			bad("%sparameter %w", at("parameters."+key), err)
		}
	}
	if !projectPattern.MatchString(t.Containers.Project) && t.Containers.Project != "" {
		bad("containers.project is %q, want lower-case letters, digits, hyphens and underscores", t.Containers.Project)
	}
	if t.Containers.Subnet != "" {
		if p, err := netip.ParsePrefix(t.Containers.Subnet); err != nil || !p.Addr().Is4() || p.Bits() > 26 {
			bad("containers.subnet is %q, want an IPv4 network of at least 64 addresses, as 10.87.26.0/24", t.Containers.Subnet)
		}
	}
	if c := t.Containers; c.MemoryMB < 0 || c.MemoryMB > 0 && c.MemoryMB < 256 || c.CPUs < 0 || c.LogMB < 0 || c.StopSeconds < 0 {
		bad("containers: memory_mb is %d, cpus %g, log_mb %d, stop_seconds %d; want at least 256 MB, and nothing below 0", c.MemoryMB, c.CPUs, c.LogMB, c.StopSeconds)
	}
	return errors.Join(errs...)
}

// flat gives nested tables the names with dots that settings have.
func flat(settings map[string]any) map[string]any {
	out := map[string]any{}
	var walk func(prefix string, m map[string]any)
	walk = func(prefix string, m map[string]any) {
		for key, v := range m {
			if inner, ok := v.(map[string]any); ok {
				walk(prefix+key+".", inner)
			} else {
				out[prefix+key] = v
			}
		}
	}
	walk("", settings)
	return out
}

// ours are the settings that make the network, and that a topology therefore cannot set.
var ours = []string{"node.moniker", "rpc.listen", "p2p.listen", "p2p.external_address", "p2p.persistent_peers", "metrics.listen", "wallet.nodes",
	"wallet.passphrase_file", "wallet.genesis", "cometbft.p2p.unconditional_peer_ids", "cometbft.p2p.private_peer_ids"}

// configure changes one setting.
func configure(c *node.Config, name string, value any) error {
	if slices.Contains(ours, name) {
		return fmt.Errorf("setting %s is made from the topology", name)
	}
	if override, ok := strings.CutPrefix(name, "cometbft."); ok {
		c.CometBFT = maps.Clone(c.CometBFT)
		if c.CometBFT == nil {
			c.CometBFT = map[string]any{}
		}
		c.CometBFT[override] = value
		return nil
	}
	for _, k := range c.Keys() {
		if k.Name == name {
			text := fmt.Sprint(value)
			if list, ok := value.([]any); ok {
				var items []string
				for _, item := range list {
					items = append(items, fmt.Sprint(item))
				}
				text = strings.Join(items, ",")
			}
			return k.Set(text)
		}
	}
	return fmt.Errorf("unknown setting %s", name)
}

// parameters returns the ledger's parameters: the defaults, and over them those of the topology, or only those that are named.
func (t *Topology) parameters(collector crypto.Address, only ...string) (ledger.GenesisParameters, error) {
	p := ledger.DefaultParameters().Genesis(FeeAsset, collector)
	for _, key := range slices.Sorted(maps.Keys(t.Parameters)) {
		if len(only) > 0 && !slices.Contains(only, key) {
			continue
		}
		if key == "fee_asset" || key == "fee_collector" {
			return p, fmt.Errorf("%s is the network's own", key)
		}
		text, err := json.Marshal(map[string]any{key: t.Parameters[key]})
		if err != nil {
			return p, fmt.Errorf("%s: %w", key, err)
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return p, fmt.Errorf("%s: %w", key, err)
		}
	}
	return p, nil
}

// peers returns which nodes a node dials: a validator behind sentries only those, everybody else all that are not behind any,
// and a sentry also the validators that it stands before.
func (t *Topology) peers(i int) (peers []int) {
	n := t.Nodes[i]
	for j, other := range t.Nodes {
		switch {
		case j == i:
		case len(n.Sentries) > 0:
			if slices.Contains(n.Sentries, other.Name) {
				peers = append(peers, j)
			}
		case len(other.Sentries) == 0 || slices.Contains(other.Sentries, n.Name):
			peers = append(peers, j)
		}
	}
	return peers
}

// guarded returns the validators before which a sentry stands.
func (t *Topology) guarded(i int) (behind []int) {
	for j, other := range t.Nodes {
		if slices.Contains(other.Sentries, t.Nodes[i].Name) {
			behind = append(behind, j)
		}
	}
	return behind
}

// hostPort joins an address on this machine.
func hostPort(port uint16) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) }
