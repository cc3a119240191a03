package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: see the Makefile.
var version = "unknown"

// shownModules are the modules whose version decides how a node behaves.
var shownModules = []string{
	"github.com/cometbft/cometbft", "github.com/cosmos/iavl", "github.com/cosmos/ics23/go", "github.com/cockroachdb/pebble/v2",
	"github.com/cloudflare/circl", "github.com/hdevalence/ed25519consensus", "github.com/oasisprotocol/curve25519-voi",
}

type versionResult struct {
	Version string            `json:"version"`
	Commit  string            `json:"commit"`
	Go      string            `json:"go"`
	System  string            `json:"system"`
	Modules map[string]string `json:"modules"`
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say what this program was built from", Args: args(), Example: "  pacioli version --output json",
		RunE: func(*cobra.Command, []string) error {
			r := versionResult{Version: version, Commit: "unknown", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Modules: map[string]string{}}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					switch s.Key {
					case "vcs.revision":
						r.Commit = s.Value
					case "vcs.modified":
						if s.Value == "true" {
							r.Commit += " (changed)"
						}
					}
				}
				for _, m := range info.Deps {
					r.Modules[m.Path] = m.Version
				}
			}
			for path := range r.Modules {
				shown := false
				for _, s := range shownModules {
					shown = shown || s == path
				}
				if !shown {
					delete(r.Modules, path)
				}
			}
			return c.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "pacioli\t%s\ncommit\t%s\ngo\t%s %s\n", r.Version, r.Commit, r.Go, r.System)
				for _, m := range shownModules {
					if v := r.Modules[m]; v != "" {
						fmt.Fprintf(w, "%s\t%s\n", m, v)
					}
				}
			})
		},
	}
}
