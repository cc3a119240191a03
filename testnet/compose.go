package testnet

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"github.com/pelletier/go-toml/v2"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	// ContainerUser runs the nodes: the number that images without a user of their own agree on. It owns no file of this machine.
	ContainerUser = 65532
	// ContainerHome is a node's home in its container. Only its folder data can be written.
	ContainerHome = "/srv/pacioli"
	// firstRPCPort is where the ports on this machine begin that the topology leaves open; each node leaves room for ten.
	firstRPCPort = 26657
	projectFile  = "project.toml"
)

// Project is a network of containers, kept in a folder that nobody but its owner can enter:
//
//	docker-compose.yml, .env   what `docker-compose up` reads
//	project.toml               what this struct holds
//	image/VERSION/             what an image is built from: the program, and no key
//	nodes/NAME/                a node's configuration, genesis and keys, which its container is shown; what it stores is in its volume
//	wallet/                    a wallet's home with the keys alice, bob, bank and treasury, for use from this machine
//	monitoring/                what Prometheus and Grafana read, if they are wanted
//
// Keys are readable by everybody, because the user of the containers is nobody on this machine; so the folder is not.
type Project struct {
	Dir      string             `toml:"-"`
	Nodes    []ProjectNode      `toml:"nodes"`
	Topology Topology           `toml:"topology"`
	Images   map[string]Release `toml:"images"`
	Network  string             `toml:"network"` // begins the id of the network: volumes are called by it, so that no network meets the books of another
	Release  string             `toml:"release"` // what the program of nodes without a version calls itself
}

// ProjectNode is one container.
type ProjectNode struct {
	Name      string `toml:"name" json:"name"`
	Role      string `toml:"role" json:"role"`
	KeyType   string `toml:"key_type,omitempty" json:"key_type,omitempty"`
	Container string `toml:"container" json:"container"`
	Address   string `toml:"address" json:"address"` // within the containers' network
	RPCPort   uint16 `toml:"rpc_port" json:"rpc_port"`
	Version   string `toml:"version" json:"version,omitempty"`
}

// Release is what a version is in containers.
type Release struct {
	Image   string `toml:"image"`
	Context string `toml:"context"` // folder that the image is built from, below the project's; "" for an image that is there
}

// GenerateOptions say what a project needs besides its topology.
type GenerateOptions struct {
	Binary  string // program of nodes without a version, static, for Linux
	Version string // what the program calls itself
	// Accounts are funded besides alice, with equal balances of the fee asset in base units: for load.
	Accounts []crypto.Address
	Funds    uint64
}

// current is the name of the version of nodes that name none.
const current = "current"

// Wallet returns the wallet's home.
func (p *Project) Wallet() string { return filepath.Join(p.Dir, "wallet") }

// Home returns a node's folder on this machine: a home without data.
func (p *Project) Home(i int) node.Home {
	return node.Home(filepath.Join(p.Dir, "nodes", p.Topology.Nodes[i].Name))
}

// URLs returns where the nodes are reached from this machine.
func (p *Project) URLs() []string {
	urls := make([]string, len(p.Nodes))
	for i, n := range p.Nodes {
		urls[i] = "http://" + hostPort(n.RPCPort)
	}
	return urls
}

// OpenProject reads a project's folder. A folder without one is an error that is fs.ErrNotExist.
func OpenProject(dir string) (*Project, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving the folder: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, projectFile))
	if err != nil {
		return nil, fmt.Errorf("reading the project: %w", err)
	}
	p := &Project{Dir: dir}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, projectFile), err)
	}
	return p, nil
}

// Generate makes the project of a topology in a folder, or writes one that is there again: then keys, genesis and books stay,
// and nodes, settings, versions and limits follow the topology. What would make another network of it is refused.
func Generate(dir string, t Topology, o GenerateOptions) (*Project, error) {
	t.Nodes = slices.Clone(t.Nodes)
	t.fill()
	if err := t.check(nil); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving the folder: %w", err)
	}
	before, err := OpenProject(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			return nil, notEmpty(dir, projectFile)
		}
	case err != nil:
		return nil, err
	default:
		if err := sameNetwork(before.Topology, t); err != nil {
			return nil, fmt.Errorf("%s holds another network: %w; choose another folder", dir, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the project's folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // before the first key is in it
		return nil, fmt.Errorf("closing the project's folder to others: %w", err)
	}
	p := &Project{Dir: dir, Topology: t, Images: map[string]Release{}, Release: o.Version}
	p.place()
	if err := p.createHomes(before, o); err != nil {
		return nil, err
	}
	doc, err := genesis.Load(node.Home(p.Wallet()).Genesis())
	if err != nil {
		return nil, err
	}
	network, err := genesis.NetworkOf(doc)
	if err != nil {
		return nil, err
	}
	p.Network = network.ID.String()[:8]
	if err := p.createImages(o); err != nil {
		return nil, err
	}
	if err := p.render(); err != nil {
		return nil, err
	}
	text, err := toml.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding the project: %w", err)
	}
	return p, p.write(projectFile, 0o600, text) // last: a folder in which this was interrupted has none
}

// sameNetwork refuses what genesis would have to change for.
func sameNetwork(before, now Topology) error {
	if before.ChainID != now.ChainID {
		return fmt.Errorf("chain_id is %s there, and %s now", before.ChainID, now.ChainID)
	}
	if !reflect.DeepEqual(flat(before.Parameters), flat(now.Parameters)) {
		return errors.New("its parameters are others")
	}
	if len(now.Nodes) < len(before.Nodes) {
		return fmt.Errorf("it has %d nodes, and now there are %d", len(before.Nodes), len(now.Nodes))
	}
	for i, was := range before.Nodes {
		if is := now.Nodes[i]; is.Name != was.Name || is.Role != was.Role || is.KeyType != was.KeyType || is.Power != was.Power {
			return fmt.Errorf("node %d is %s there (%s %s, power %d), and %s now (%s %s, power %d)", i, was.Name, was.Role, was.KeyType, was.Power, is.Name, is.Role, is.KeyType, is.Power)
		}
	}
	return nil
}

// place gives every node its address and its port on this machine.
func (p *Project) place() {
	taken := map[uint16]bool{p.Topology.Monitoring.GrafanaPort: true, p.Topology.Monitoring.PrometheusPort: true}
	for _, n := range p.Topology.Nodes {
		taken[n.RPCPort] = true
	}
	// The first ten addresses are the engine's, which takes one for the gateway.
	address := netip.MustParsePrefix(p.Topology.Containers.Subnet).Masked().Addr() // checked
	for range 10 {
		address = address.Next()
	}
	next := uint16(firstRPCPort)
	for _, n := range p.Topology.Nodes {
		port := n.RPCPort
		if port == 0 {
			for taken[next] {
				next += 10
			}
			port = next
			taken[port] = true
		}
		p.Nodes = append(p.Nodes, ProjectNode{Name: n.Name, Role: n.Role, KeyType: n.KeyType, Container: p.Topology.Containers.Project + "-" + n.Name,
			Address: address.String(), RPCPort: port, Version: n.Version})
		address = address.Next()
	}
}

// createHomes makes the homes that are missing, and writes all configurations.
func (p *Project) createHomes(before *Project, o GenerateOptions) error {
	f := founding{topology: p.Topology, home: p.Home, funded: map[crypto.Address]ledger.Amount{},
		dial: func(_, to int) string { return p.Nodes[to].Address + ":26656" },
		place: func(_ int, c *node.Config) {
			c.RPC.Listen, c.P2P.Listen = "0.0.0.0:26657", "0.0.0.0:26656"
			c.Metrics.Listen = fmt.Sprintf("0.0.0.0:%d", p.Topology.Monitoring.MetricsPort)
			c.Wallet.Nodes = []string{"http://127.0.0.1:26657"}
			c.CometBFT = map[string]any{"p2p.addr_book_file": "data/addrbook.json"} // what it is by default cannot be written
		}}
	for _, a := range o.Accounts {
		f.funded[a] = ledger.Units(o.Funds)
	}
	wallet := node.Home(p.Wallet())
	first := 0
	if before == nil {
		if err := f.create(wallet, p.URLs()); err != nil {
			return err
		}
	} else {
		first = len(before.Nodes)
		doc, err := genesis.Load(wallet.Genesis())
		if err != nil {
			return err
		}
		for i := first; i < len(p.Nodes); i++ {
			if _, err := f.createHome(i); err != nil {
				return err
			}
			if err := genesis.Save(doc, p.Home(i).Genesis()); err != nil {
				return err
			}
		}
		for i := range p.Nodes {
			if err := f.connect(i); err != nil {
				return err
			}
		}
		c, err := node.LoadConfig(string(wallet))
		if err != nil {
			return err
		}
		c.Wallet.Nodes = p.URLs()
		if err := wallet.SaveConfig(c); err != nil {
			return err
		}
	}
	for i := range p.Nodes {
		h := p.Home(i)
		// The sign state is the volume's. A second one here would let the key sign twice, if somebody started the node from here.
		if i >= first {
			if err := os.RemoveAll(h.Data()); err != nil {
				return fmt.Errorf("removing what the volume holds: %w", err)
			}
		}
		for _, file := range []string{h.Config(), h.Genesis(), h.NodeKey(), h.ValidatorKey()} {
			if err := os.Chmod(file, 0o444); err != nil {
				return fmt.Errorf("opening a file to the containers' user: %w", err)
			}
		}
	}
	return nil
}

// createImages writes what images are built from. A tag follows from what is in the image, so a node never runs an old one.
func (p *Project) createImages(o GenerateOptions) error {
	for _, n := range p.Topology.Nodes {
		v, name := Version{Binary: o.Binary}, current
		if n.Version != "" {
			v, name = p.Topology.Versions[n.Version], n.Version
		}
		if _, done := p.Images[name]; done {
			continue
		}
		if v.Image != "" {
			p.Images[name] = Release{Image: v.Image}
			continue
		}
		text, err := os.ReadFile(v.Binary)
		if err != nil {
			return fmt.Errorf("reading the program for the image: %w", err)
		}
		if err := static(text); err != nil {
			return fmt.Errorf("%s %w", v.Binary, err)
		}
		version := o.Version
		if name != current {
			version = name
		}
		context := path.Join("image", name)
		// As a new file: one that runs cannot be written to.
		if err := p.write(path.Join(context, "pacioli"), 0o755, text); err != nil {
			return err
		}
		if err := p.write(path.Join(context, "home", "data", "priv_validator_state.json"), 0o600, []byte(freshSignState)); err != nil {
			return err
		}
		if err := p.write(path.Join(context, "home", "backups", "README"), 0o600, []byte(backupsReadme)); err != nil {
			return err
		}
		dockerfile, err := p.execute("Dockerfile", map[string]any{"Version": version})
		if err != nil {
			return err
		}
		if err := p.write(path.Join(context, "Dockerfile"), 0o644, dockerfile); err != nil {
			return err
		}
		sum := sha256.New()
		for _, part := range [][]byte{text, dockerfile, []byte(freshSignState), []byte(backupsReadme)} {
			fmt.Fprintf(sum, "%d.", len(part))
			sum.Write(part)
		}
		p.Images[name] = Release{Image: "pacioli-testnet:" + hex.EncodeToString(sum.Sum(nil)[:6]), Context: "./" + context}
	}
	return nil
}

// backupsReadme has the image hold a folder for backups: a volume gets its owner from there.
const backupsReadme = "Backups of this node: /pacioli backup create --to /srv/pacioli/backups\n"

// freshSignState is that of a key that has signed nothing.
const freshSignState = `{"height":"0","round":0,"step":0}` + "\n"

// static refuses a program that needs files which an empty image does not have.
func static(text []byte) error {
	f, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		return errors.New("is not a program for Linux: build it there with `make build`")
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return errors.New("needs shared libraries, which an empty image does not have: build it with `make build`")
		}
	}
	return nil
}

//go:embed template
var templates embed.FS

// render writes what follows from the project.
func (p *Project) render() error {
	return fs.WalkDir(templates, "template", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "Dockerfile" {
			return err
		}
		name = strings.TrimPrefix(name, "template/")
		text, err := p.execute(name, nil)
		if err != nil {
			return err
		}
		if name == "env" {
			name = ".env"
		}
		return p.write(name, 0o644, text)
	})
}

// execute fills in a template.
func (p *Project) execute(name string, more map[string]any) ([]byte, error) {
	text, err := templates.ReadFile(path.Join("template", name))
	if err != nil {
		return nil, err
	}
	if path.Ext(name) == ".json" {
		return text, nil // dashboards: their braces are Grafana's
	}
	// Grafana and Prometheus have templates of their own in double braces; ours are told apart by what they may hold.
	left, right := "{{", "}}"
	if strings.HasPrefix(name, "monitoring/") {
		left, right = "<<", ">>"
	}
	t, err := template.New(name).Delims(left, right).Option("missingkey=error").Funcs(template.FuncMap{"q": quote}).Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	type container struct {
		ProjectNode
		Folder, Image, Context string
	}
	var nodes []container
	for _, n := range p.Nodes {
		version := n.Version
		if version == "" {
			version = current
		}
		nodes = append(nodes, container{n, "./nodes/" + n.Name, p.Images[version].Image, p.Images[version].Context})
	}
	values := map[string]any{"Generated": "Made by `pacioli testnet generate`, which writes it again: change the topology instead.",
		"Topology": p.Topology, "Containers": p.Topology.Containers, "Monitoring": p.Topology.Monitoring, "Nodes": nodes, "User": ContainerUser, "Home": ContainerHome,
		"Network": p.Network, "GoMemoryMB": p.Topology.Containers.MemoryMB * 9 / 10, "MetricsPort": p.Topology.Monitoring.MetricsPort}
	for k, v := range more {
		values[k] = v
	}
	var b bytes.Buffer
	if err := t.Execute(&b, values); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// quote writes a text as YAML and Dockerfiles read it, and JSON. A dollar sign would begin a variable in compose files.
func quote(text string) (string, error) {
	b, err := json.Marshal(text)
	return strings.ReplaceAll(string(b), "$", "$$"), err
}

// write writes a file of the project, as a whole or not at all, whatever the mask of this process is.
func (p *Project) write(name string, mode fs.FileMode, text []byte) error {
	file := filepath.Join(p.Dir, filepath.FromSlash(name))
	// Below the project's own folder, which is closed, others' programs may look: containers are shown some of it.
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", file, err)
	}
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	_, err = io.Copy(f, bytes.NewReader(text))
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
