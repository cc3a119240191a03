package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/testnet/proxy"
)

// proxyCommand is what `pacioli testnet chaos --containers` runs in a container of its own.
func (c *cli) proxyCommand() *cobra.Command {
	var control string
	var routes []string
	cmd := &cobra.Command{
		Use:     "proxy",
		Short:   "Carry the connections between the nodes of a testnet, badly when told so",
		Hidden:  true,
		Example: `  pacioli testnet proxy --control 127.0.0.1:8080 --route validator0,validator1,:30001,10.5.0.11:26656`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []proxy.Route
			for _, text := range routes {
				parts := strings.Split(text, ",")
				if len(parts) != 4 {
					return usage("--route is %q, want FROM,TO,LISTEN,TARGET", text)
				}
				all = append(all, proxy.Route{Link: proxy.Link{From: parts[0], To: parts[1]}, Listen: parts[2], Target: parts[3]})
			}
			p, err := proxy.Open(all)
			if err != nil {
				return err
			}
			server := &http.Server{Addr: control, Handler: p.Handler(), ReadHeaderTimeout: 5 * time.Second}
			stop := context.AfterFunc(cmd.Context(), func() { _ = server.Close() }) // errs only about a listener that is gone
			defer stop()
			c.say("carry %d links, control at %s", len(all), control)
			if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				return errors.Join(fmt.Errorf("control port: %w", err), p.Close())
			}
			return p.Close()
		},
	}
	f := cmd.Flags()
	f.StringVar(&control, "control", "127.0.0.1:8080", "host:port at which links are set")
	f.StringArrayVar(&routes, "route", nil, "FROM,TO,LISTEN,TARGET: a link; repeatable")
	return cmd
}
