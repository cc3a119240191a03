package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/testnet"
)

// TestContainers is what `make testnet` does, and what is then said of it: five healthy containers, a payment from this machine,
// a validator that is killed without the payer noticing. It needs a Docker engine and fetches nothing.
func TestContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("runs containers")
	}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("there is no Docker on this machine: nothing of what is said about containers was tested")
	}
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers on this machine: nothing of what is said about containers was tested: %s", out)
	}
	t.Parallel()
	p := program{t, filepath.Join(build(t), "pacioli"), filepath.Join(t.TempDir(), "net")}
	topology := ownTopology(t)
	p.want(1, "hint: make it: pacioli testnet generate", "testnet", "up", "--dir", p.dir)
	p.want(0, "wrote the network testnet-1 of 5 nodes", "testnet", "generate", "--topology", topology, "--out", p.dir)
	project, err := testnet.OpenProject(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	name := project.Topology.Containers.Project
	began := time.Now()
	containers, err := project.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if t.Failed() {
			for i, n := range project.Nodes {
				logs, err := containers.Logs(ctx, i, 15)
				t.Logf("%s:\n%s (%v)", n.Name, logs, err)
			}
		}
		if err := containers.Down(ctx, true); err != nil {
			t.Errorf("removing the containers: %s", err)
		}
		if out, err := exec.CommandContext(ctx, "docker", "image", "rm", "--force", project.Images["current"].Image).CombinedOutput(); err != nil {
			t.Errorf("removing the image: %s: %s", err, out)
		}
		for _, kind := range []string{"ps --all", "volume ls", "network ls"} {
			args := append(strings.Fields(kind), "--quiet", "--filter", "name="+name)
			if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
				t.Errorf("docker %v shows that something stays: %s (%v)", args, out, err)
			}
		}
	})
	up := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, p.path, "testnet", "up", "--dir", p.dir)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), " is healthy, after ") != 5 || !strings.Contains(string(out), "docker kill "+name+"-validator3") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	up()
	t.Logf("five healthy containers after %s", time.Since(began).Round(time.Second))
	wallet := func(args ...string) []string { return append(args, "--home", project.Wallet()) }
	p.want(0, `committed.*proof +header`, wallet("pay", "--from", "alice", "--to", "bob", "12.50", "PAC")...)
	confined(t, project)
	if err := served(t, project); err != nil {
		t.Error(err)
	}

	const killed = 3
	var backup struct {
		Backup string `json:"backup"`
	}
	out, err := containers.Exec(t.Context(), killed, "backup", "create", "--to", "/srv/pacioli/backups", "--output", "json")
	if err != nil || json.Unmarshal([]byte(out), &backup) != nil {
		t.Fatalf("backup of a running node: %s (%v)", out, err)
	}

	// The payer goes on as if nothing had happened: no error, no unknown outcome.
	if out, err := exec.Command("docker", "kill", name+"-validator3").CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", err, out)
	}
	var slowest time.Duration
	for range 5 {
		began := time.Now()
		p.want(0, `committed.*proof +header`, wallet("pay", "--from", "alice", "--to", "bob", "1", "PAC")...)
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("with one validator killed, the slowest of five payments took %s", slowest.Round(time.Millisecond))
	p.want(0, `17\.500000 +PAC`, wallet("balance", "bob")...)
	p.want(1, "validator3 +ended with exit code 137.*1 of 5 containers are not healthy", "testnet", "status", "--dir", p.dir)

	// Its disk is lost, and only its disk: what its key has signed is still known, and it comes back, from its backup. The data
	// folder is where a volume is mounted, which nothing can be renamed over.
	if err := containers.Wipe(t.Context(), 0); err == nil {
		t.Error("a running node was wiped")
	}
	if err := containers.Wipe(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	if out, err := containers.Exec(t.Context(), killed, "backup", "restore", backup.Backup); err != nil {
		t.Fatalf("restoring in the place of a container: %s (%v)", out, err)
	}
	if err := containers.Start(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	rises := func(i int, above uint64) uint64 {
		t.Helper()
		var h client.Readiness
		p.await(fmt.Sprintf("%s to be ready above height %d", project.Nodes[i].Name, above), 90*time.Second, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			var err error
			h, err = client.Ready(ctx, containers.URL(i))
			return err == nil && h.OK && h.Height > above
		})
		return h.Height
	}
	height := rises(killed, rises(0, 0))

	// A node leaves the network and comes back under its address; another stands still for a moment.
	for _, step := range []func(context.Context, int) error{containers.Disconnect, containers.Reconnect, containers.Pause, containers.Resume} {
		if err := step(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
	}
	height = rises(4, height)
	if out, err := containers.Exec(t.Context(), 4, "health"); err != nil || !strings.Contains(out, "ready") {
		t.Errorf("health in the container: %s (%v)", out, err)
	}

	// A sixth is added to the running network.
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port.Close()
	sixth, err := containers.AddNode(t.Context(), testnet.NodeSpec{Name: "full1", Role: testnet.RoleFull, RPCPort: uint16(port.Addr().(*net.TCPAddr).Port)})
	if err != nil {
		t.Fatal(err)
	}
	if project, err = testnet.OpenProject(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := containers.Start(t.Context(), sixth); err != nil {
		t.Fatal(err)
	}
	height = rises(sixth, height)

	// The end, and the same books again.
	p.want(0, "are removed; their books stay", "testnet", "down", "--dir", p.dir)
	if err := containers.Up(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	rises(0, height)
	p.want(0, `17\.500000 +PAC`, wallet("balance", "bob")...)
	t.Logf("all of it took %s", time.Since(began).Round(time.Second))
}

// ownTopology is the topology of `make testnet` under a name, with ports and addresses that nothing else here uses.
func ownTopology(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "testnet", "topology.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var listeners []net.Listener
	changed := regexp.MustCompile(`(?m)^rpc_port = \d+$`).ReplaceAllFunc(text, func([]byte) []byte {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		return fmt.Appendf(nil, "rpc_port = %d", l.Addr().(*net.TCPAddr).Port)
	})
	for _, l := range listeners {
		l.Close() // all were held until all were found, so that no two are equal
	}
	pid := os.Getpid()
	changed = bytes.Replace(changed, []byte(`project = "pacioli-testnet"`),
		fmt.Appendf(nil, "project = \"pacioli-test-%d\"\nsubnet = \"10.%d.%d.0/26\"", pid, 90+pid/256%100, pid%256), 1)
	if len(listeners) != 5 || !bytes.Contains(changed, []byte("subnet")) {
		t.Fatalf("the topology has changed: this test would touch what is not its own:\n%s", changed)
	}
	path := filepath.Join(t.TempDir(), "topology.toml")
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// confined looks at what the engine has made of the project: no key in the image, nobody is root, nothing can be written but
// the volume, and only this machine reaches the RPC.
func confined(t *testing.T, p *testnet.Project) {
	t.Helper()
	for _, n := range p.Nodes {
		out, err := exec.Command("docker", "container", "inspect", n.Container).Output()
		if err != nil {
			t.Fatal(err)
		}
		var all []struct {
			Config     struct{ User string }
			HostConfig struct {
				ReadonlyRootfs, Privileged bool
				CapDrop, SecurityOpt       []string
				Memory                     int64
				PortBindings               map[string][]struct{ HostIp string }
			}
			NetworkSettings struct {
				Ports    map[string][]struct{ HostIp string }
				Networks map[string]any
			}
			Mounts []struct {
				Type, Destination string
				RW                bool
			}
		}
		if err := json.Unmarshal(out, &all); err != nil || len(all) != 1 {
			t.Fatalf("inspecting %s: %v", n.Container, err)
		}
		c := all[0]
		if c.Config.User != "65532:65532" || !c.HostConfig.ReadonlyRootfs || c.HostConfig.Privileged || !slices.Equal(c.HostConfig.CapDrop, []string{"ALL"}) ||
			!slices.Equal(c.HostConfig.SecurityOpt, []string{"no-new-privileges:true"}) || c.HostConfig.Memory != 1<<30 || len(c.NetworkSettings.Networks) != 1 {
			t.Errorf("%s is not confined: %+v", n.Container, c)
		}
		published := 0
		for port, bindings := range c.NetworkSettings.Ports {
			for _, b := range bindings {
				published++
				if port != "26657/tcp" || b.HostIp != "127.0.0.1" {
					t.Errorf("%s publishes %s on %q", n.Container, port, b.HostIp)
				}
			}
		}
		if published != 1 {
			t.Errorf("%s publishes %d ports, want its RPC", n.Container, published)
		}
		for _, m := range c.Mounts {
			if m.RW != (m.Destination == "/srv/pacioli/data" || m.Destination == "/srv/pacioli/backups") || m.RW && m.Type != "volume" {
				t.Errorf("%s is shown %+v", n.Container, m)
			}
		}
	}
	// Not only said of the root, but true.
	out, err := exec.Command("docker", "exec", p.Nodes[0].Container, "/pacioli", "init", "--home", "/elsewhere").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "read-only file system") {
		t.Errorf("a node writes outside its volume: %v: %s", err, out)
	}
	var files []string
	for _, line := range saved(t, p.Images["current"].Image) {
		if !strings.HasSuffix(line, "/") {
			files = append(files, line)
		}
	}
	slices.Sort(files)
	if want := []string{"pacioli", "srv/pacioli/backups/README", "srv/pacioli/data/priv_validator_state.json"}; !slices.Equal(files, want) {
		t.Errorf("the image holds %v, want %v", files, want)
	}
}

// saved lists the files in the layers of an image.
func saved(t *testing.T, image string) (files []string) {
	t.Helper()
	cmd := exec.Command("docker", "image", "save", image)
	stream, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	list := func(r io.Reader, each func(h *tar.Header, r io.Reader)) {
		for archive := tar.NewReader(r); ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("reading the image: %s", err)
			}
			each(h, archive)
		}
	}
	list(stream, func(h *tar.Header, r io.Reader) {
		// Older engines call a layer ID/layer.tar, newer ones blobs/sha256/ID: what is no archive is no layer.
		head := make([]byte, 512)
		n, _ := io.ReadFull(r, head)
		if h.Typeflag != tar.TypeReg || n < 512 || string(head[257:262]) != "ustar" {
			return
		}
		list(io.MultiReader(bytes.NewReader(head), r), func(h *tar.Header, _ io.Reader) { files = append(files, h.Name) })
	})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return files
}

// served asks a node for its metrics, as Prometheus would, and compares them with those that dashboards and alerts use.
func served(t *testing.T, p *testnet.Project) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/metrics", p.Nodes[0].Address, p.Topology.Monitoring.MetricsPort), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	for _, name := range testnet.Metrics {
		if !bytes.Contains(text, []byte("\n# TYPE "+name+" ")) {
			return fmt.Errorf("a node serves no metric %s, which dashboards or alerts use", name)
		}
	}
	return nil
}
