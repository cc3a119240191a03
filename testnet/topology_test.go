package testnet

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/crypto"
)

// TestTopologyFile reads the file of `make testnet`.
func TestTopologyFile(t *testing.T) {
	topology, err := LoadTopology("topology.toml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, n := range topology.Nodes {
		kinds[n.Role+n.KeyType]++
	}
	if kinds[RoleValidator+node.KeyEd25519] != 3 || kinds[RoleValidator+node.KeyMLDSA65] != 1 || kinds[RoleFull] != 1 || len(kinds) != 3 {
		t.Errorf("the nodes are %v", kinds)
	}
}

// TestTopologyMistakes: each is refused, with the line where there is one, and with what would be right.
func TestTopologyMistakes(t *testing.T) {
	const good = `chain_id = "a-1"
[[nodes]]
name = "one"
role = "validator"
`
	if _, err := ParseTopology([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ text, want string }{
		{good + "rpc_prot = 1\n", "line 5: unknown key nodes.rpc_prot"},
		{"chain = 1\n" + good, "line 1: unknown key chain"},
		{good + "power = \"x\"\n", "line 5, column"},
		{good + "[settings]\n\"rpc.redy_lag\" = \"9s\"\n", `line 6: node "one": unknown setting rpc.redy_lag`},
		{good + "[nodes.settings.rpc]\nready_lag = \"no\"\n", `line 6: node "one": setting rpc.ready_lag: "no" is not duration`},
		{good + "[nodes.settings]\n\"rpc.listen\" = \":1\"\n", "line 6: node \"one\": setting rpc.listen is made from the topology"},
		{good + "[settings.cometbft]\n\"mempool.type\" = \"flood\"\n", "cannot be overridden"},
		{good + "[parameters]\n\nfee_bass = 1\n", `line 7: parameter fee_bass: json: unknown field "fee_bass"`},
		{good + "[parameters]\nfee_asset = \"X\"\n", "line 6: parameter fee_asset is the network's own"},
		{good + "[[nodes]]\nname = \"one\"\nrole = \"full\"\n", `line 6: node "one": there are two`},
		{good + "[[nodes]]\nname = \"two\"\nrole = \"full\"\npower = 5\n", "power and sentries are for validators"},
		{good + "[[nodes]]\nname = \"two\"\nrole = \"observer\"\n", `role is "observer", want validator, full or sentry`},
		{good + "sentries = [\"two\"]\n", `sentry "two" is not a node of the role sentry`},
		{good + "version = \"old\"\n", `version "old" is not in [versions]`},
		{good + "key_type = \"rsa\"\n", `key_type is "rsa"`},
		{good + "rpc_port = 5\n[[nodes]]\nname = \"two\"\nrole = \"full\"\nrpc_port = 5\n", "rpc_port 5 is that of one"},
		{good + "[containers]\nsubnet = \"10.0.0.0/30\"\n", "containers.subnet"},
		{`chain_id = "a-1"`, "no node has the role validator"},
		{strings.Replace(good, "a-1", strings.Repeat("a", 51), 1), "chain_id"},
		{strings.Replace(good, `"one"`, `"One"`, 1), "want a name of lower-case letters"},
	} {
		if _, err := ParseTopology([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\ngives %v, want %q", test.text, err, test.want)
		}
	}
}

// guardedNetwork has a validator behind a sentry.
func guardedNetwork() Topology {
	t := Validators(4, node.KeyEd25519, "guarded-1")
	t.Nodes[3].Sentries = []string{"sentry0"}
	t.Nodes = append(t.Nodes, NodeSpec{Name: "sentry0", Role: RoleSentry})
	t.Parameters = map[string]any{"fee_base": 250}
	t.Settings = map[string]any{"consensus": map[string]any{"timeout_commit": "100ms"}}
	t.Nodes[0].Settings = map[string]any{"rpc.cors_origins": []any{"http://a", "http://b"}}
	return t
}

// TestHomes looks at what a topology makes of homes.
func TestHomes(t *testing.T) {
	topology := guardedNetwork()
	l, err := CreateLocal(t.TempDir(), LocalOptions{Topology: &topology, Links: true})
	if err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLocal(l.Dir); err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(l.Nodes))
	configs := make([]node.Config, len(l.Nodes))
	for i := range l.Nodes {
		if ids[i], err = l.Home(i).ID(); err != nil {
			t.Fatal(err)
		}
		if configs[i], err = node.LoadConfig(string(l.Home(i))); err != nil {
			t.Fatal(err)
		}
	}
	dialled := func(i int) (names []string) {
		for _, p := range configs[i].P2P.PersistentPeers {
			id, address, _ := strings.Cut(p, "@")
			j := slices.Index(ids, id)
			if address != l.Links[i][j] {
				t.Errorf("%s dials %s at %s, not over its link %s", l.Nodes[i].Name, l.Nodes[j].Name, address, l.Links[i][j])
			}
			names = append(names, l.Nodes[j].Name)
		}
		return names
	}
	for i, want := range []string{"node1 node2 sentry0", "node0 node2 sentry0", "node0 node1 sentry0", "sentry0", "node0 node1 node2 node3"} {
		if got := strings.Join(dialled(i), " "); got != want {
			t.Errorf("%s dials %s, want %s", l.Nodes[i].Name, got, want)
		}
	}
	for i, want := range []string{"", "", "", ids[4], ids[3]} {
		cc, err := configs[i].Comet(string(l.Home(i)))
		if err != nil {
			t.Fatal(err)
		}
		if cc.P2P.UnconditionalPeerIDs != want || cc.P2P.PexReactor {
			t.Errorf("%s has the unconditional peers %q and pex %t", l.Nodes[i].Name, cc.P2P.UnconditionalPeerIDs, cc.P2P.PexReactor)
		}
		if private := cc.P2P.PrivatePeerIDs; i == 4 && private != ids[3] || i != 4 && private != "" {
			t.Errorf("%s has the private peers %q", l.Nodes[i].Name, private)
		}
		if inbound := cc.P2P.MaxNumInboundPeers; (inbound == 0) != (i == 3) {
			t.Errorf("%s lets %d peers in", l.Nodes[i].Name, inbound)
		}
		if commit := cc.Consensus.TimeoutCommit.Milliseconds(); commit != 100 {
			t.Errorf("%s has timeout_commit %d ms", l.Nodes[i].Name, commit)
		}
	}
	if got := configs[0].RPC.CORSOrigins; len(got) != 2 || len(configs[1].RPC.CORSOrigins) != 0 {
		t.Errorf("cors_origins are %v", got)
	}
	p, err := l.Topology.parameters(crypto.Address{})
	if err != nil || p.FeeBase != 250 {
		t.Errorf("fee_base is %d (%v), want 250", p.FeeBase, err)
	}
}

// TestFolderOfAnother: what holds a network of the other kind is named, not called empty of networks.
func TestFolderOfAnother(t *testing.T) {
	for file, want := range map[string]string{networkFile: "`pacioli up` starts", projectFile: "`pacioli testnet up` starts", "letter.txt": "holds no network"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if file != projectFile {
			if _, err := Generate(dir, Validators(4, node.KeyEd25519, "other-1"), GenerateOptions{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("generate where %s is: %v", file, err)
			}
		}
		if file != networkFile {
			if _, err := CreateLocal(dir, LocalOptions{Validators: 4, KeyType: node.KeyEd25519, ChainID: "other-1"}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("up where %s is: %v", file, err)
			}
		}
	}
}
