package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/testnet"
)

// healthyPatience is how long containers may take until all are healthy: on two loaded cores half a minute.
const healthyPatience = 3 * time.Minute

func (c *cli) testnetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "testnet",
		Short: "A network in containers: make it, start it, look at it, end it",
		Long: `Make a network of containers from a topology file, start it, look at it, and end it. Docker is needed, with compose as a
plugin or as docker-compose 1.29 or later; nothing is fetched, but for Prometheus and Grafana if they are wanted.`,
		Example: `  pacioli testnet generate --topology testnet/topology.toml --out .pacioli/testnet
  pacioli testnet up
  pacioli testnet down`,
		Args: commandsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.testnetGenerateCommand(), c.testnetUpCommand(), c.testnetStatusCommand(), c.testnetDownCommand(), c.chaosCommand(), c.proxyCommand())
	return cmd
}

var defaultTestnet = filepath.Join(".pacioli", "testnet")

func (c *cli) testnetGenerateCommand() *cobra.Command {
	var topology, out, binary string
	cmd := &cobra.Command{
		Use:   "generate --topology FILE --out DIR",
		Short: "Write a docker-compose project for the network that a topology file describes",
		Long: `Write a docker-compose project for the network that a topology file describes: keys and genesis, a wallet with the funded
key alice, an image around this program, dashboards and alerts. "docker-compose up" in that folder starts it.

In a folder that holds the network already, keys, genesis and books stay, and the rest follows the file: settings, versions,
limits, and nodes that were added to it. What would make another network is refused.`,
		Example: `  pacioli testnet generate --topology testnet/topology.toml --out .pacioli/testnet`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := testnet.LoadTopology(topology)
			if errors.Is(err, fs.ErrNotExist) {
				return hinted(err, "testnet/topology.toml in the source is one to begin with")
			}
			if err != nil {
				return err
			}
			if binary == "" {
				if binary, err = os.Executable(); err != nil {
					return fmt.Errorf("finding this program: %w", err)
				}
			}
			p, err := testnet.Generate(out, t, testnet.GenerateOptions{Binary: binary, Version: version})
			if err != nil {
				return err
			}
			return c.print(newProjectView(p), func(w io.Writer) {
				fmt.Fprintf(w, "wrote the network %s of %d nodes to %s\n\nStart it:\n  pacioli testnet up --dir %s\nor by hand:\n  cd %s && docker-compose up --detach\n",
					t.ChainID, len(p.Nodes), p.Dir, out, out)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&topology, "topology", "", "file that describes the network")
	f.StringVar(&out, "out", "", "folder to write to; it will be closed to other users, because keys are in it")
	f.StringVar(&binary, "binary", "", "static program for the image (default: this one)")
	_ = cmd.MarkFlagRequired("topology")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// projectView is a project as results show it.
type projectView struct {
	Dir     string                `json:"dir"`
	ChainID string                `json:"chain_id"`
	Wallet  string                `json:"wallet"`
	Nodes   []testnet.ProjectNode `json:"nodes"`
	Compose string                `json:"compose,omitempty"` // how compose is called on this machine
}

func newProjectView(p *testnet.Project) projectView {
	return projectView{Dir: p.Dir, ChainID: p.Topology.ChainID, Wallet: p.Wallet(), Nodes: p.Nodes}
}

// containers opens the project of a folder and finds the engine.
func (c *cli) containers(ctx context.Context, dir string) (*testnet.Project, *testnet.Containers, error) {
	p, err := testnet.OpenProject(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, hinted(err, "make it: pacioli testnet generate --topology FILE --out %s", dir)
	}
	if err != nil {
		return nil, nil, err
	}
	containers, err := p.Containers(ctx)
	if errors.Is(err, testnet.ErrNoDocker) {
		return nil, nil, hinted(err, "install Docker and start it, and see that this user may use it; `pacioli up` needs none")
	}
	return p, containers, err
}

func (c *cli) testnetUpCommand() *cobra.Command {
	var dir string
	var monitoring bool
	cmd := &cobra.Command{
		Use:   "up --dir DIR",
		Short: "Build the image, start the containers, and wait until all are healthy",
		Long: `Build the image, start the containers of a generated project, and wait until all are healthy. Done again, it starts what does
not run and applies what was generated anew; the books stay.`,
		Example: `  pacioli testnet up --dir .pacioli/testnet
  pacioli testnet up --dir .pacioli/testnet --monitoring`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			p, containers, err := c.containers(ctx, dir)
			if err != nil {
				return err
			}
			c.say("build the image and start %d containers", len(p.Nodes))
			if err := containers.Up(ctx, monitoring); err != nil {
				return err
			}
			if err := c.awaitHealthy(ctx, p, containers); err != nil {
				return err
			}
			v := newProjectView(p)
			v.Compose = containers.ComposeCommand()
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			return c.print(v, func(w io.Writer) { printTestnet(w, p, v, program, dir, monitoring) })
		},
	}
	testnetDir(cmd, &dir)
	cmd.Flags().BoolVar(&monitoring, "monitoring", false, "Prometheus and Grafana too; their images are fetched")
	return cmd
}

func testnetDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", defaultTestnet, "folder that pacioli testnet generate has written")
}

// awaitHealthy waits until the engine calls every node healthy, and tells of each that becomes so.
func (c *cli) awaitHealthy(ctx context.Context, p *testnet.Project, containers *testnet.Containers) error {
	ctx, cancel := context.WithTimeout(ctx, healthyPatience)
	defer cancel()
	began, healthy := time.Now(), map[int]bool{}
	for {
		var waiting []string
		for i, n := range p.Nodes {
			if healthy[i] {
				continue
			}
			health, err := containers.Healthy(ctx, i)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if health == "healthy" {
				healthy[i] = true
				c.say("%s is healthy, after %.0f s (%d of %d)", n.Name, time.Since(began).Seconds(), len(healthy), len(p.Nodes))
				continue
			}
			waiting = append(waiting, n.Name)
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return hinted(fmt.Errorf("not healthy: %s: %w", strings.Join(waiting, ", "), ctx.Err()), "docker logs %s-%s says why", p.Topology.Containers.Project, waiting[0])
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func printTestnet(w io.Writer, p *testnet.Project, v projectView, program, dir string, monitoring bool) {
	fmt.Fprintf(w, "The network %s runs in %d containers.\n\n", v.ChainID, len(v.Nodes))
	for i, n := range v.Nodes {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", n.Container, p.URLs()[i], strings.TrimSpace(n.Role+" "+n.KeyType))
	}
	if m := p.Topology.Monitoring; monitoring {
		fmt.Fprintf(w, "  Grafana\thttp://127.0.0.1:%d\n  Prometheus\thttp://127.0.0.1:%d\n", m.GrafanaPort, m.PrometheusPort)
	}
	last := v.Nodes[0]
	for _, n := range v.Nodes {
		if n.Role == testnet.RoleValidator {
			last = n
		}
	}
	fmt.Fprintf(w, "\nPay from this machine; what it prints is proven:\n  %s pay --from alice --to bob 12.50 PAC --home %s\n", program, v.Wallet)
	fmt.Fprintf(w, "Kill a validator, and pay again:\n  docker kill %s\n", last.Container)
	fmt.Fprintf(w, "Watch:\n  %s testnet status --dir %s\n  docker logs --follow %s\n", program, dir, v.Nodes[0].Container)
	if !monitoring {
		fmt.Fprintf(w, "  %s testnet up --dir %s --monitoring\n", program, dir)
	}
	fmt.Fprintf(w, "End it; the books stay, until --volumes:\n  %s testnet down --dir %s\n", program, dir)
}

func (c *cli) testnetStatusCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "status --dir DIR",
		Short:   "What the engine says of the containers, and the nodes of themselves",
		Example: `  pacioli testnet status --dir .pacioli/testnet --output json`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			p, containers, err := c.containers(ctx, dir)
			if err != nil {
				return err
			}
			type view struct {
				testnet.ProjectNode
				URL     string   `json:"url"`
				State   string   `json:"state"`
				Health  string   `json:"health,omitempty"`
				Height  uint64   `json:"height,omitempty"`
				Peers   int      `json:"peers,omitempty"`
				Reasons []string `json:"reasons,omitempty"`
			}
			result := struct {
				Dir   string `json:"dir"`
				Nodes []view `json:"nodes"`
			}{p.Dir, []view{}}
			unwell := 0
			for i, n := range p.Nodes {
				v := view{ProjectNode: n, URL: p.URLs()[i], State: "not there"}
				if s, err := containers.State(ctx, i); err == nil {
					switch {
					case s.Paused:
						v.State = "paused"
					case s.Running:
						v.State = "running"
					case s.Ended:
						v.State = fmt.Sprintf("ended with exit code %d", s.ExitCode)
					default:
						v.State = "made"
					}
				}
				if v.State == "running" {
					if v.Health, err = containers.Healthy(ctx, i); err != nil {
						return err
					}
					ask, cancel := context.WithTimeout(ctx, 3*time.Second)
					if h, err := client.Ready(ask, v.URL); err == nil {
						v.Height, v.Peers, v.Reasons = h.Height, h.Peers, h.Reasons
					}
					cancel()
				}
				if v.Health != "healthy" {
					unwell++
				}
				result.Nodes = append(result.Nodes, v)
			}
			if err := c.print(result, func(w io.Writer) {
				for _, v := range result.Nodes {
					fmt.Fprintf(w, "%s\t%s\t%s\theight %d\t%d peers\t%s\n", v.Name, v.State, v.Health, v.Height, v.Peers, strings.Join(v.Reasons, "; "))
				}
			}); err != nil {
				return err
			}
			if unwell > 0 {
				return &problem{err: fmt.Errorf("%d of %d containers are not healthy", unwell, len(p.Nodes)), name: "not_ready",
					hint: "docker logs CONTAINER says why; pacioli testnet up --dir " + dir + " starts what does not run"}
			}
			return nil
		},
	}
	testnetDir(cmd, &dir)
	return cmd
}

func (c *cli) testnetDownCommand() *cobra.Command {
	var dir string
	var volumes bool
	cmd := &cobra.Command{
		Use:   "down --dir DIR",
		Short: "Remove the containers and their network; the books stay in their volumes",
		Long: `Remove the containers of a project and their network. The books stay in their volumes, and "testnet up" goes on with them.
With --volumes they are removed too, all of them: the network then begins again at its genesis, with the same keys.`,
		Example: `  pacioli testnet down --dir .pacioli/testnet
  pacioli testnet down --dir .pacioli/testnet --volumes`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, containers, err := c.containers(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if err := containers.Down(cmd.Context(), volumes); err != nil {
				return err
			}
			result := struct {
				Dir     string `json:"dir"`
				Volumes bool   `json:"volumes_removed"`
			}{p.Dir, volumes}
			return c.print(result, func(w io.Writer) {
				if volumes {
					fmt.Fprintf(w, "the containers of %s are removed, and their books\n", p.Topology.ChainID)
					return
				}
				fmt.Fprintf(w, "the containers of %s are removed; their books stay\n", p.Topology.ChainID)
			})
		},
	}
	testnetDir(cmd, &dir)
	cmd.Flags().BoolVar(&volumes, "volumes", false, "remove the books too")
	return cmd
}

func (c *cli) wipeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "wipe --yes",
		Short: "Remove what a stopped node has stored; its keys, and what they have signed last, stay",
		Long: `Remove everything that a stopped node has stored, to start over from its peers: blocks, state, index. Configuration, genesis and
keys stay, and the sign state does, without which the validator's key could sign twice.`,
		Example: `  pacioli wipe --yes --home /srv/pacioli`,
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			h := node.Home(c.home)
			if !yes {
				return usage("this removes the books in %s, which peers have to have: say --yes", h.Data())
			}
			if err := h.Wipe(); err != nil {
				return err
			}
			return c.print(map[string]string{"home": c.home}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is empty but for the sign state; the next start fetches everything from the peers\n", h.Data())
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}
