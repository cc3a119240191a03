package node

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/METRICS.md again")

const metricsBegin, metricsEnd = "<!-- metrics -->\n", "<!-- end of metrics -->"

// TestMetrics holds docs/METRICS.md against the /metrics of a running node, both ways. CometBFT's own metrics are in a
// registry of the whole process, so this is the one test that serves them.
func TestMetrics(t *testing.T) {
	const page = "../../docs/METRICS.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), metricsBegin)
	table, after, ok := strings.Cut(rest, metricsEnd)
	if !ok {
		t.Fatalf("%s has no table between %q and %q", page, metricsBegin, metricsEnd)
	}
	if *update {
		table = MetricsTable()
		if err := os.WriteFile(page, []byte(before+metricsBegin+table+metricsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	n := newNet(t, "ed25519")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.config.Metrics.Listen = free.Addr().String()
	free.Close()
	r := n.start(t)
	defer r.end()
	defer r.stop()
	var served string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get("http://" + n.config.Metrics.Listen + "/metrics")
		if err == nil {
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if served = string(body); strings.Contains(served, "\npacioli_ready 1\n") && strings.Contains(served, "\npacioli_validators_may_fail 0\n") && strings.Contains(served, "\ncometbft_consensus_validators{") {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node is not ready by its metrics: %v\n%s", err, served)
		}
	}

	kinds, helps := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(served, -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (\S+) (.*)$`).FindAllStringSubmatch(served, -1) {
		helps[m[1]] = m[2]
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\S+)` \\| (\\S+) \\| (.*?) \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		name, kind, label, help := m[1], m[2], strings.Trim(m[3], "` "), m[4]
		documented[name] = true
		if kinds[name] != kind || helps[name] != help {
			t.Errorf("%s is documented as %s, %q; the node serves %s, %q", name, kind, help, kinds[name], helps[name])
		}
		sample := regexp.MustCompile(fmt.Sprintf(`(?m)^%s%s \S+$`, name, map[bool]string{true: "", false: `\{` + label + `="[a-z]+"\}`}[label == ""]))
		if !sample.MatchString(served) {
			t.Errorf("the node serves no %s with the label %q", name, label)
		}
	}
	if len(documented) < 20 {
		t.Errorf("only %d metrics are documented", len(documented))
	}
	for name := range kinds {
		if strings.HasPrefix(name, "pacioli_") && !documented[name] {
			t.Errorf("%s is not documented: go test ./app/node -run TestMetrics -update", name)
		}
	}
	for _, name := range []string{"cometbft_consensus_height", "cometbft_consensus_validators"} { // under their own names
		if kinds[name] == "" {
			t.Errorf("CometBFT's %s is not served", name)
		}
	}
	for _, want := range []string{`pacioli_validators{state="active"} 1`, `pacioli_validator_power 1`} {
		if !strings.Contains(served, want) {
			t.Errorf("not served: %s", want)
		}
	}
}
