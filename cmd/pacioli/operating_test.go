package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// curl is as much of it as the runbook uses, so that the test needs none.
const curl = `#!/bin/bash
url=${2#http://}
exec 3<>/dev/tcp/${url%%[:/]*}/$(p=${url#*:}; echo ${p%%/*}) || exit 7
printf 'GET /%s HTTP/1.0\r\n\r\n' "${url#*/}" >&3
cat <&3
`

// TestOperating runs the commands of the runbook, in order, in one shell, on free ports and in a folder of its own.
func TestOperating(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network")
	}
	t.Parallel()
	text := blocks(t, filepath.Join("..", "..", "docs", "OPERATING.md"), "\n## Begin a network", "", 15)
	dir, bin := t.TempDir(), build(t)
	if err := os.WriteFile(filepath.Join(bin, "curl"), []byte(curl), 0o700); err != nil {
		t.Fatal(err)
	}
	const folder = "/tmp/pacioli-operating"
	if strings.Count(text, folder) != 1 || strings.Contains(text, "/srv/") || strings.Contains(text, "make ") {
		t.Fatal("the runbook would touch what is not the test's")
	}
	text = strings.Replace(text, folder, filepath.Join(dir, "operating"), 1)
	text = freePorts(t, text)
	// Whatever ends the script ends its nodes, and shows the ends of their logs when it was an error.
	head := "export PATH=" + bin + `:$PATH
unset PACIOLI_HOME PACIOLI_NODE
trap 'code=$?; set +e; kill -KILL $(jobs -p) 2>&-; test $code = 0 || tail -n 5 $DIR/*.log; exit $code' EXIT
`
	out := shell(t, head+text, 3*time.Minute)
	for _, want := range []string{"ml_dsa_65", "may still fail", "pays 10.000000 PAC", "cometbft_consensus_validators", `"ok":true`, `"may_fail": `,
		"findings      0", "rolled back from height", "exit code 4", "retention: heights 100000", "/backups/clearing-1-0", "/state.jsonl", "with 6 of 6 pages", `"proposer_address"`,
		"then              5 validators, power 50, quorum 34: 1 may fail", "decided: the change takes effect", "pacioli validator reset-sign-state", "nothing up to height"} {
		if !strings.Contains(out, want) {
			t.Errorf("the runbook's commands do not show %q", want)
		}
	}
	// Five homes and a wallet began with one file.
	for line := range strings.Lines(out) {
		if hash, file, ok := strings.Cut(line, "  "+dir); ok && strings.HasSuffix(file, "genesis.json\n") && strings.Count(out, hash) != 5 {
			t.Errorf("genesis files differ: %s", line)
		}
	}
}

// freePorts replaces the ports of the runbook by free ones.
func freePorts(t *testing.T, text string) string {
	t.Helper()
	var pairs []string
	for org := range 6 {
		for port := 26656 + 10*org; port < 26659+10*org; port++ {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close() // all are held until all are found, so that no two are equal
			pairs = append(pairs, fmt.Sprint(port), fmt.Sprint(listener.Addr().(*net.TCPAddr).Port))
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
