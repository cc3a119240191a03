package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/pacioli-ledger/pacioli/app/node"
)

// Containers is a network of containers as a [Cluster]. It speaks to the engine by the command `docker`, and to compose by
// `docker compose` or, where that is missing, `docker-compose`. The containers live on when this process ends.
type Containers struct {
	project *Project
	compose []string // how compose is called

	mu sync.Mutex // AddNode changes project
}

// ErrNoDocker says that no engine can be asked.
var ErrNoDocker = errors.New("no Docker engine answers")

// Containers returns the project as a Cluster.
func (p *Project) Containers(ctx context.Context) (*Containers, error) {
	if _, err := run(ctx, "docker", "version", "--format", "{{.Server.Version}}"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDocker, err)
	}
	c := &Containers{project: p, compose: []string{"docker", "compose"}}
	if _, err := run(ctx, "docker", "compose", "version"); err != nil {
		if _, err := exec.LookPath("docker-compose"); err != nil {
			return nil, errors.New("neither `docker compose` nor `docker-compose` is installed")
		}
		c.compose = []string{"docker-compose"}
	}
	return c, nil
}

// ComposeCommand is how a person calls compose for this project.
func (c *Containers) ComposeCommand() string { return strings.Join(c.compose, " ") }

// Compose runs compose for this project, whatever folder and environment this process has.
func (c *Containers) Compose(ctx context.Context, args ...string) (string, error) {
	all := append(c.compose[1:len(c.compose):len(c.compose)], "--project-directory", c.project.Dir, "-f", filepath.Join(c.project.Dir, "docker-compose.yml"),
		"--project-name", c.project.Topology.Containers.Project)
	return run(ctx, c.compose[0], append(all, args...)...)
}

// Build builds the images that the engine does not have, with the engine's own builder: nothing is fetched.
func (c *Containers) Build(ctx context.Context) error {
	for _, r := range c.project.Images {
		if r.Context == "" {
			continue
		}
		if _, err := run(ctx, "docker", "image", "inspect", "--format", "{{.Id}}", r.Image); err == nil {
			continue // the tag says what is in it
		}
		if _, err := run(ctx, "docker", "build", "--quiet", "--tag", r.Image, filepath.Join(c.project.Dir, r.Context)); err != nil {
			return fmt.Errorf("building the image %s: %w", r.Image, err)
		}
	}
	return nil
}

// Up builds images and starts every node that does not run; what has changed in the project is made anew, over the same volumes.
func (c *Containers) Up(ctx context.Context, monitoring bool) error {
	if err := c.Build(ctx); err != nil {
		return err
	}
	args := []string{"up", "--detach"}
	if monitoring {
		args = append([]string{"--profile", "monitoring"}, args...)
	}
	if _, err := c.Compose(ctx, args...); err != nil {
		if strings.Contains(err.Error(), "overlaps") {
			return fmt.Errorf("%w\nanother network of this machine has addresses in %s: choose another containers.subnet in the topology, and generate again", err, c.project.Topology.Containers.Subnet)
		}
		return fmt.Errorf("starting the containers: %w", err)
	}
	return nil
}

// Down ends and removes the containers and their network, and the books of all nodes only when asked to.
func (c *Containers) Down(ctx context.Context, volumes bool) error {
	args := []string{"--profile", "monitoring", "down", "--remove-orphans"}
	if volumes {
		args = append(args, "--volumes")
	}
	if _, err := c.Compose(ctx, args...); err != nil {
		return fmt.Errorf("removing the containers: %w", err)
	}
	return nil
}

func (c *Containers) node(i int) ProjectNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.project.Nodes[i]
}

// docker runs a command of the engine about one node.
func (c *Containers) docker(ctx context.Context, args ...string) error {
	_, err := run(ctx, "docker", args...)
	return err
}

// Nodes implements Cluster.
func (c *Containers) Nodes() []NodeSpec { return c.project.Topology.Nodes }

// URL implements Cluster.
func (c *Containers) URL(i int) string { return "http://" + hostPort(c.node(i).RPCPort) }

// Wallet implements Cluster.
func (c *Containers) Wallet() string { return c.project.Wallet() }

// Home returns the folder of a node's configuration and keys; what it has stored is in its volume.
func (c *Containers) Home(i int) node.Home { return c.project.Home(i) }

// Start implements Cluster.
func (c *Containers) Start(ctx context.Context, i int) error {
	if s, err := c.State(ctx, i); err == nil && (s.Running || s.Ended) {
		return c.docker(ctx, "start", c.node(i).Container)
	}
	_, err := c.Compose(ctx, "up", "--detach", "--no-deps", c.node(i).Name)
	return err
}

// Stop implements Cluster.
func (c *Containers) Stop(ctx context.Context, i int) error {
	return c.docker(ctx, "stop", "--time", strconv.Itoa(c.project.Topology.Containers.StopSeconds), c.node(i).Container)
}

// Kill implements Cluster. A container that is killed on purpose is not started again by its restart policy.
func (c *Containers) Kill(ctx context.Context, i int) error {
	if err := c.docker(ctx, "kill", c.node(i).Container); err != nil {
		return err
	}
	return c.docker(ctx, "wait", c.node(i).Container)
}

// Pause implements Cluster.
func (c *Containers) Pause(ctx context.Context, i int) error {
	return c.docker(ctx, "pause", c.node(i).Container)
}

// Resume implements Cluster.
func (c *Containers) Resume(ctx context.Context, i int) error {
	return c.docker(ctx, "unpause", c.node(i).Container)
}

// Disconnect implements Cluster: the container leaves the network. Its RPC cannot be reached from this machine meanwhile.
func (c *Containers) Disconnect(ctx context.Context, i int) error {
	return c.docker(ctx, "network", "disconnect", c.project.Topology.Containers.Project, c.node(i).Container)
}

// Reconnect implements Cluster: the container comes back under the address that its peers know.
func (c *Containers) Reconnect(ctx context.Context, i int) error {
	n := c.node(i)
	return c.docker(ctx, "network", "connect", "--ip", n.Address, "--alias", n.Name, c.project.Topology.Containers.Project, n.Container)
}

// Wipe implements Cluster.
func (c *Containers) Wipe(ctx context.Context, i int) error {
	if s, err := c.State(ctx, i); err != nil || s.Running {
		return errors.Join(err, fmt.Errorf("%s has to be there and stopped", c.node(i).Container))
	}
	_, err := c.Exec(ctx, i, "wipe", "--yes")
	return err
}

// State implements Cluster.
func (c *Containers) State(ctx context.Context, i int) (State, error) {
	s, err := c.inspect(ctx, i)
	return s.State, err
}

// Healthy tells what the engine says of a node's health: starting, healthy, unhealthy, and "" for one that does not run.
func (c *Containers) Healthy(ctx context.Context, i int) (health string, err error) {
	s, err := c.inspect(ctx, i)
	return s.health, err
}

type inspected struct {
	State
	health string
}

func (c *Containers) inspect(ctx context.Context, i int) (inspected, error) {
	out, err := run(ctx, "docker", "container", "inspect", "--format", "{{json .State}}", c.node(i).Container)
	if err != nil {
		return inspected{}, err
	}
	var s struct {
		Status   string
		ExitCode int
		Health   struct{ Status string }
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return inspected{}, fmt.Errorf("state of %s: %w", c.node(i).Container, err)
	}
	up := s.Status == "running" || s.Status == "paused" || s.Status == "restarting"
	in := inspected{State: State{Running: up, Paused: s.Status == "paused", Ended: s.Status == "exited" || s.Status == "dead"}}
	if in.Ended {
		in.ExitCode = s.ExitCode
	}
	if s.Status == "running" {
		in.health = s.Health.Status
	}
	return in, nil
}

// Logs implements Cluster.
func (c *Containers) Logs(ctx context.Context, i int, lines int) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", "logs", "--tail", strconv.Itoa(lines), c.node(i).Container)
	out, err := cmd.CombinedOutput() // nodes log to standard error
	if err != nil {
		return "", fmt.Errorf("reading the log of %s: %w: %s", c.node(i).Container, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Exec implements Cluster: in the container when it runs, else in another one that sees what it would see, but no network.
func (c *Containers) Exec(ctx context.Context, i int, args ...string) (string, error) {
	n := c.node(i)
	s, err := c.State(ctx, i)
	if err != nil {
		return "", err
	}
	if s.Running {
		return run(ctx, "docker", append([]string{"exec", n.Container, "/pacioli"}, args...)...)
	}
	version := n.Version
	if version == "" {
		version = current
	}
	return run(ctx, "docker", append([]string{"run", "--rm", "--volumes-from", n.Container, "--network", "none", "--read-only", "--cap-drop", "ALL",
		"--log-driver", "none", "--no-healthcheck", c.project.Images[version].Image}, args...)...)
}

// AddNode implements Cluster. The container is made when it is first started.
func (c *Containers) AddNode(_ context.Context, n NodeSpec) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.project.Topology
	t.Nodes = append(t.Nodes[:len(t.Nodes):len(t.Nodes)], n)
	context := c.project.Images[current].Context
	if context == "" {
		return 0, errors.New("no node of this project has an image that was built here")
	}
	next, err := Generate(c.project.Dir, t, GenerateOptions{Binary: filepath.Join(c.project.Dir, context, "pacioli"), Version: c.project.Release})
	if err != nil {
		return 0, err
	}
	c.project = next
	return len(next.Nodes) - 1, nil
}
