package chaos

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/testnet"
	"github.com/pacioli-ledger/pacioli/testnet/proxy"
)

// containers are nodes of a compose project. They dial each other through a proxy that is one more container of their network,
// of the same image, and is told what to do at a port of this machine.
type containers struct {
	ctx     context.Context
	project *testnet.Project
	cluster *testnet.Containers
	genesis *types.GenesisDoc
	control string // URL
	faulty  int    // index of the node that runs the faulty program; -1: none
}

const (
	// insideData is a node's data in its container, faultyDir where the faulty program looks there.
	insideData = testnet.ContainerHome + "/data"
	faultyDir  = insideData + "/chaos"
	// faultyVersion is the name of the faulty program in the topology.
	faultyVersion = "faulty"
	firstRoute    = 30_000
)

// docker runs a command of the engine.
func docker(ctx context.Context, args ...string) (string, error) {
	return dockerWith(ctx, nil, args...)
}

// dockerWith is docker with something to read.
func dockerWith(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

func newContainers(ctx context.Context, p *testnet.Project, faulty int) (*containers, error) {
	cluster, err := p.Containers(ctx)
	if err != nil {
		return nil, err
	}
	// What runs at the end of a run that was interrupted is ended too.
	c := &containers{ctx: context.WithoutCancel(ctx), project: p, cluster: cluster, faulty: faulty}
	if c.genesis, err = genesis.Load(node.Home(p.Wallet()).Genesis()); err != nil {
		return nil, err
	}
	names := map[string]int{}
	for i := range p.Nodes {
		id, err := p.Home(i).ID()
		if err != nil {
			return nil, err
		}
		names[id] = i
	}
	subnet, err := netip.ParsePrefix(p.Topology.Containers.Subnet)
	if err != nil {
		return nil, fmt.Errorf("subnet of the containers: %w", err)
	}
	address := subnet.Masked().Addr().Next().Next() // the first is the gateway; those of the nodes begin at the tenth
	run := []string{"run", "--detach", "--name", c.proxyName(), "--network", p.Topology.Containers.Project, "--ip", address.String(), "--publish", "127.0.0.1::8080",
		"--read-only", "--cap-drop", "ALL", "--no-healthcheck", p.Images["current"].Image, "testnet", "proxy", "--control", "0.0.0.0:8080"}
	for i := range p.Nodes {
		config, err := node.LoadConfig(string(p.Home(i)))
		if err != nil {
			return nil, err
		}
		for n, peer := range config.P2P.PersistentPeers {
			id, _, _ := strings.Cut(peer, "@")
			j := names[id]
			port := firstRoute + len(p.Nodes)*i + j
			config.P2P.PersistentPeers[n] = fmt.Sprintf("%s@%s:%d", id, address, port)
			run = append(run, "--route", fmt.Sprintf("%s,%s,:%d,%s:26656", p.Nodes[i].Name, p.Nodes[j].Name, port, p.Nodes[j].Address))
		}
		if err := c.save(i, config); err != nil {
			return nil, err
		}
	}
	if err := cluster.Build(ctx); err != nil {
		return nil, err
	}
	if _, err := cluster.Compose(ctx, "up", "--no-start"); err != nil {
		return nil, err
	}
	for _, n := range p.Nodes { // one that ends by itself is to be seen, not to be started again
		if _, err := docker(ctx, "update", "--restart", "no", n.Container); err != nil {
			return nil, errors.Join(err, c.remove())
		}
	}
	if _, err := docker(ctx, run...); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	at, err := docker(ctx, "port", c.proxyName(), "8080/tcp")
	if err != nil {
		return nil, errors.Join(err, c.remove())
	}
	c.control = "http://" + strings.Fields(at)[0]
	return c, nil
}

// save writes the configuration that a container is shown, for its user to read.
func (c *containers) save(i int, config node.Config) error {
	home := c.project.Home(i)
	return errors.Join(home.SaveConfig(config), os.Chmod(home.Config(), 0o644))
}

func (c *containers) proxyName() string { return c.project.Topology.Containers.Project + "-proxy" }
func (c *containers) twinName() string  { return c.project.Topology.Containers.Project + "-twin" }

func (c *containers) names() (names []string) {
	for _, n := range c.project.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func (c *containers) urls() []string         { return c.project.URLs() }
func (c *containers) doc() *types.GenesisDoc { return c.genesis }
func (c *containers) wallet() string         { return c.project.Wallet() }
func (c *containers) kept() string           { return c.project.Dir }

func (c *containers) start(i int, _ bool) error { return c.cluster.Start(c.ctx, i) }

func (c *containers) exit(i int) int {
	s, err := c.cluster.State(c.ctx, i)
	if err != nil || !s.Ended {
		return -1
	}
	return s.ExitCode
}

func (c *containers) inner() (urls []string) {
	for _, n := range c.project.Nodes {
		urls = append(urls, "http://"+n.Address+":26657")
	}
	return urls
}

// stop and kill: one that its restart policy has just ended and not yet started again is ended all the same.
func (c *containers) stop(i int) error { return c.cluster.Stop(c.ctx, i) }
func (c *containers) kill(i int) error { return c.cluster.Kill(c.ctx, i) }

func (c *containers) running(i int) bool {
	s, err := c.cluster.State(c.ctx, i)
	return err == nil && s.Running
}

func (c *containers) pause(i int) error  { return c.cluster.Pause(c.ctx, i) }
func (c *containers) resume(i int) error { return c.cluster.Resume(c.ctx, i) }

func (c *containers) links(settings ...proxy.Setting) error {
	body, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, c.control+"/links", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("telling the proxy: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("telling the proxy: %s", answer.Status)
	}
	return nil
}

func (c *containers) wipe(i int) error { return c.cluster.Wipe(c.ctx, i) }

// offline takes a container out of its network, as the engine does it: its packets are lost, and its port on this machine too.
func (c *containers) offline(i int, off bool) error {
	if off {
		return c.cluster.Disconnect(c.ctx, i)
	}
	return c.cluster.Reconnect(c.ctx, i)
}

func (c *containers) clock(i, seconds int) error {
	text := ""
	if seconds != 0 {
		text = fmt.Sprintf("%d\n", seconds)
	}
	return c.put(i, "clock", text)
}

func (c *containers) disk(i int, full bool) error {
	text := ""
	if full {
		text = "full\n"
	}
	return c.put(i, "full", text)
}

// put writes a file into a container's volume, whether it runs or not. It is the containers' user's, who must be able to wipe it. (The
// engine takes the owner from the archive; with --archive, it would look for the user in a file that the image does not have.)
func (c *containers) put(i int, name, text string) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	folder := tar.Header{Typeflag: tar.TypeDir, Name: "chaos/", Mode: 0o755, Uid: testnet.ContainerUser, Gid: testnet.ContainerUser}
	file := tar.Header{Typeflag: tar.TypeReg, Name: "chaos/" + name, Mode: 0o644, Size: int64(len(text)), Uid: testnet.ContainerUser, Gid: testnet.ContainerUser}
	err := errors.Join(w.WriteHeader(&folder), w.WriteHeader(&file))
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("writing a fault: %w", err)
	}
	_, err = dockerWith(c.ctx, &archive, "cp", "-", c.project.Nodes[i].Container+":"+insideData)
	return err
}

func (c *containers) twinDir() string { return filepath.Join(c.project.Dir, "twin") }

func (c *containers) configure(i int, change func(*node.Config)) error {
	config, err := node.LoadConfig(string(c.project.Home(i)))
	if err != nil {
		return err
	}
	change(&config)
	return c.save(i, config)
}

func (c *containers) twin(i int) error {
	if err := c.stop(i); err != nil {
		return err
	}
	if err := c.configure(i, unguarded); err != nil {
		return err
	}
	dir := c.twinDir()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing an earlier twin: %w", err)
	}
	if err := testnet.CopyHome(string(c.project.Home(i)), dir); err != nil {
		return err
	}
	twin := node.Home(dir)
	if err := os.Remove(twin.NodeKey()); err != nil {
		return fmt.Errorf("giving the twin a node key: %w", err)
	}
	if _, err := p2p.LoadOrGenNodeKey(twin.NodeKey()); err != nil {
		return fmt.Errorf("giving the twin a node key: %w", err)
	}
	// The folder above is closed to others; the containers' user is another one.
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, os.Chmod(path, 0o755)) }); err != nil {
		return fmt.Errorf("opening the twin's files to its user: %w", err)
	}
	image := c.project.Images["current"].Image
	// Its data are in a volume without a name, which goes with it.
	if _, err := docker(c.ctx, "create", "--name", c.twinName(), "--network", c.project.Topology.Containers.Project, "--read-only", "--cap-drop", "ALL", "--no-healthcheck",
		"--volume", twin.Config()+":"+testnet.ContainerHome+"/pacioli.toml:ro", "--volume", filepath.Dir(twin.Genesis())+":"+testnet.ContainerHome+"/config:ro",
		"--volume", insideData, image); err != nil {
		return err
	}
	// The data go from container to container with their owner: this machine's users are not those of the engine.
	var data bytes.Buffer
	var said strings.Builder
	read := exec.CommandContext(c.ctx, "docker", "cp", c.project.Nodes[i].Container+":"+insideData+"/.", "-")
	read.Stdout, read.Stderr = &data, &said
	if err := read.Run(); err != nil {
		return fmt.Errorf("reading the data of %s: %w: %s", c.project.Nodes[i].Name, err, said.String())
	}
	if _, err := dockerWith(c.ctx, &data, "cp", "-", c.twinName()+":"+insideData); err != nil {
		return err
	}
	if err := c.start(i, false); err != nil {
		return err
	}
	_, err := docker(c.ctx, "start", c.twinName())
	return err
}

func (c *containers) endTwin(i int) error {
	if out, err := docker(c.ctx, "logs", c.twinName()); err == nil {
		if err := os.WriteFile(filepath.Join(c.twinDir(), "node.log"), []byte(out), 0o600); err != nil {
			return fmt.Errorf("keeping the twin's log: %w", err)
		}
	}
	if _, err := docker(c.ctx, "rm", "--force", "--volumes", c.twinName()); err != nil {
		return err
	}
	if err := c.stop(i); err != nil {
		return err
	}
	if err := c.configure(i, guarded); err != nil {
		return err
	}
	return c.start(i, false)
}

func (c *containers) last(i, lines int) string {
	text, err := c.cluster.Logs(c.ctx, i, lines)
	if err != nil {
		return err.Error()
	}
	return text
}

// keepLogs writes what the containers have logged beside the project.
func (c *containers) keepLogs() error {
	var errs []error
	for _, n := range append(c.names(), "proxy") {
		out, err := docker(c.ctx, "logs", c.project.Topology.Containers.Project+"-"+n)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.project.Dir, n+".log"), []byte(out), 0o600)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// remove ends everything and removes it, volumes too.
func (c *containers) remove() error {
	for _, name := range []string{c.proxyName(), c.twinName()} {
		_, _ = docker(c.ctx, "rm", "--force", "--volumes", name) // one that is not there is what is wanted
	}
	for i := range c.project.Nodes {
		_ = c.resume(i) // a paused one cannot be removed
	}
	if err := c.cluster.Down(c.ctx, true); err != nil {
		return err
	}
	for _, image := range c.project.Images {
		if image.Context != "" { // one that was built here; another network may use it too, and then it stays
			_, _ = docker(c.ctx, "image", "rm", image.Image)
		}
	}
	return nil
}

func (c *containers) close() {
	for i := range c.project.Nodes {
		_ = c.resume(i)
		_ = c.kill(i)
	}
	_, _ = docker(c.ctx, "rm", "--force", "--volumes", c.proxyName(), c.twinName())
}
