package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pacioli-ledger/pacioli/app/node"
)

func (c *cli) startCommand() *cobra.Command {
	config := node.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run the node of this home until it is told to stop",
		Long: `Run the node of this home until SIGTERM or Ctrl-C, which end it cleanly with exit code 0. A node that does not start ends
with exit code 1, one that cannot go on with: 10 its consensus has stopped, 11 a database has failed, 12 its disk is nearly
full, 13 its clock is off, 14 its key signs elsewhere, 15 it cannot serve. It says why. Logs go to standard error.

Every setting of pacioli.toml is a flag and an environment variable here.`,
		Example: `  pacioli start --home /srv/pacioli
  PACIOLI_LOG_LEVEL=debug pacioli start --rpc.listen 127.0.0.1:36657`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			inForce, err := c.nodeConfig(cmd.Flags())
			if err != nil {
				return err
			}
			log := node.NewLogger(inForce.Log, os.Stderr)
			return node.Run(cmd.Context(), node.Home(c.home), inForce, log, version, nil)
		},
	}
	settingFlags(cmd.Flags(), &config)
	return cmd
}

// settingFlags makes a flag of every setting. That of a bool means true when it stands alone.
func settingFlags(f *pflag.FlagSet, config *node.Config) {
	for _, k := range config.Keys() {
		flag := f.VarPF(k, k.Name, "", k.Comment)
		if k.Type() == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// nodeConfig is what is in force: the file, then the environment, then the flags.
func (c *cli) nodeConfig(f *pflag.FlagSet) (node.Config, error) {
	config, err := node.LoadConfig(c.home)
	if errors.Is(err, fs.ErrNotExist) {
		return config, hinted(err, "pacioli init makes a home folder; --home names another one")
	}
	if err != nil {
		return config, err
	}
	for _, k := range config.Keys() {
		if flag := f.Lookup(k.Name); flag != nil && flag.Changed {
			if err := k.Set(flag.Value.String()); err != nil {
				return config, err
			}
		}
	}
	return config, nil
}

func (c *cli) configCommand() *cobra.Command {
	config := node.DefaultConfig()
	var write bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check this home's configuration and show what is in force",
		Long: `Check this home's configuration and show what is in force: the file, over it the environment, over that the flags. With
--write it becomes the file; comments of your own in the file are lost.`,
		Example: `  pacioli config
  pacioli config --output json
  pacioli config --write --p2p.external_address bank-one.example:26656`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			inForce, err := c.nodeConfig(cmd.Flags())
			if err != nil {
				return err
			}
			if err := inForce.Check(); err != nil {
				return err
			}
			if write {
				if err := node.Home(c.home).SaveConfig(inForce); err != nil {
					return err
				}
			}
			settings := map[string]string{}
			for _, k := range inForce.Keys() {
				settings[k.Name] = k.Value()
			}
			text, err := inForce.Encode()
			if err != nil {
				return err
			}
			return c.print(settings, func(w io.Writer) { fmt.Fprint(w, string(text)) })
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, "write what is in force to pacioli.toml")
	settingFlags(cmd.Flags(), &config)
	return cmd
}
