package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pacioli-ledger/pacioli/app/node"
)

// cli is what all commands share: where they read and write, and the settings of the wallet. Flags win over environment
// variables, those over HOME/pacioli.toml, that over defaults.
type cli struct {
	in       *os.File
	out, err io.Writer

	home           string
	output         string
	nodes          []string
	genesisFile    string
	trust          string
	chainID        string
	passphraseFile string
}

const defaultNode = "http://127.0.0.1:26657"

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "pacioli",
		Short: "A ledger that several organisations share without trusting any one of them",
		Long: `A ledger that several organisations share without trusting any one of them: validator, wallet and local
networks in one program. Every balance and receipt that it shows is proven against the validators' signatures.

Every flag is also an environment variable of the same words: --node is PACIOLI_NODE, --valid-for PACIOLI_VALID_FOR.
With --output json the result on standard output is one JSON object, and an error on standard error is one too.

Exit codes: 0 done or committed, 1 error on this side, 2 refused, 3 committed but failed, 4 outcome unknown,
5 the audited books are not in order. "testnet chaos" ends with 3 where it has findings, and a node that had started with
` + stopCodes() + `.`,
		Example: `  pacioli keys new alice
  pacioli balance alice
  pacioli pay --from alice --to bob 12.50 PAC`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              commandsOnly,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return c.settings(cmd) },
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
			if given := unknown.GetSpecifiedShortnames(); given != "" && strings.ContainsAny(given[:1], "0123456789.") {
				return usage("-%s: amounts are not negative", given)
			}
			var flags []string
			cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
			return &problem{err: err, name: "usage", hint: meant("--"+unknown.GetSpecifiedName(), flags, "pacioli help"+strings.TrimPrefix(cmd.CommandPath(), "pacioli")+" lists them")}
		}
		return usage("%w", err)
	})
	f := root.PersistentFlags()
	f.StringVar(&c.home, "home", "", "folder of keys, configuration and verified headers (default ~/.pacioli)")
	f.StringVar(&c.output, "output", "text", "how results are written: text or json")
	f.StringSliceVar(&c.nodes, "node", nil, "URL[,URL] of the nodes to ask; they need not be trusted (default "+defaultNode+")")
	f.StringVar(&c.genesisFile, "genesis", "", "genesis file that trust begins with (default HOME/config/genesis.json)")
	f.StringVar(&c.trust, "trust", "", "HEIGHT:HASH of a header that somebody trusted has told you, instead of genesis")
	f.StringVar(&c.chainID, "chain-id", "", "chain id, needed with --trust when there is no genesis file")
	f.StringVar(&c.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase of the keys")
	root.AddCommand(c.keysCommand(), c.accountCommand(), c.assetCommand(), c.payCommand(), c.payBatchCommand(), c.exchangeCommand(), c.holdCommand(), c.escrowCommand(), c.scheduleCommand(), c.lockCommand(),
		c.grantCommand(), c.pullCommand(), c.lineCommand(), c.feesCommand(), c.balanceCommand(), c.statementCommand(), c.auditCommand(), c.txCommand(), c.explainCommand(), c.versionCommand(),
		c.upCommand(), c.downCommand(), c.initCommand(), c.startCommand(), c.configCommand(), c.statusCommand(), c.healthCommand(), c.fsckCommand(),
		c.validatorCommand(), c.proposalCommand(), c.paramsCommand(), c.rollbackCommand(), c.backupCommand(), c.exportCommand(), c.inspectCommand(), c.showNodeIDCommand(), c.showValidatorCommand(), c.debugCommand(), c.snapshotCommand(), c.testnetCommand(), c.wipeCommand())
	c.complete(root)
	return root
}

// stopCodes lists why a node ends itself.
func stopCodes() string {
	var list []string
	for _, s := range node.Stops() {
		list = append(list, fmt.Sprintf("%d %s", s.Code, s.Name))
	}
	return strings.Join(list, ", ")
}

// complete makes the shell propose this home's keys wherever a key is wanted, and the two ways of output.
func (c *cli) complete(cmd *cobra.Command) {
	keys := func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		if c.settings(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for address, name := range c.names() {
			names = append(names, name+"\t"+address.String())
		}
		slices.Sort(names)
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	for _, sub := range cmd.Commands() {
		c.complete(sub)
	}
	for _, flag := range []string{"from", "to", "key", "with", "by", "arbiter", "granter", "account", "sponsor", "fee-granter", "recovery", "for", "operator"} {
		if cmd.Flags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, keys) // errs only where it is registered already
		}
	}
	// What its line of use calls them says what the arguments are.
	wanted := strings.Fields(cmd.Use)[1:]
	fresh := cmd.Name() == "new" || cmd.Name() == "recover" || cmd.CommandPath() == "pacioli asset create" // these want a name that is free
	if strings.Contains(cmd.Use, " NAME") || strings.Contains(cmd.Use, " GRANTE") || strings.Contains(cmd.Use, " CODE") {
		if !fresh && cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, given []string, text string) ([]string, cobra.ShellCompDirective) {
				which := ""
				if len(given) < len(wanted) {
					which = strings.Trim(wanted[len(given)], "[].")
				}
				switch which {
				case "NAME|ADDRESS", "NAME", "GRANTEE", "GRANTER":
					return keys(cmd, given, text)
				case "CODE":
					if c.settings(cmd) == nil {
						return c.seenCodes(), cobra.ShellCompDirectiveNoFileComp
					}
				}
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
		}
	}
	if cmd.PersistentFlags().Lookup("output") != nil {
		_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	}
}

// settings fills in what flags have left open.
func (c *cli) settings(cmd *cobra.Command) error {
	var bad error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		text, set := os.LookupEnv(environment(f.Name))
		if f.Changed || !set || f.Name == "help" || bad != nil {
			return
		}
		if err := cmd.Flags().Set(f.Name, text); err != nil {
			bad = usage("environment variable %s: %w", environment(f.Name), err)
		}
	})
	if bad != nil {
		return bad
	}
	if c.output != "text" && c.output != "json" {
		text := c.output
		c.output = "text"
		return usage("--output %q: want text or json", text)
	}
	if c.home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return hinted(fmt.Errorf("finding the home folder: %w", err), "give --home DIR")
		}
		c.home = filepath.Join(user, ".pacioli")
	}
	file, err := node.LoadConfigOrDefault(c.home) // the whole of it: a mistyped key must not silently mean another node
	if err != nil {
		return err
	}
	if len(c.nodes) == 0 {
		c.nodes = file.Wallet.Nodes
	}
	if len(c.nodes) == 0 {
		c.nodes = []string{defaultNode}
	}
	if c.genesisFile == "" {
		c.genesisFile = c.below(file.Wallet.Genesis)
	}
	if c.passphraseFile == "" {
		c.passphraseFile = c.below(file.Wallet.PassphraseFile)
	}
	return nil
}

// below reads a path of the configuration, which is relative to the home folder.
func (c *cli) below(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.home, path)
}

// environment returns the variable that stands for a flag.
func environment(flag string) string {
	return "PACIOLI_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flag))
}

// commandsOnly is for a command that takes no arguments and has others below it: an argument is one that it does not have.
func commandsOnly(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return &problem{err: fmt.Errorf("unknown command %q for %q", given[0], cmd.CommandPath()), name: "usage",
		hint: meant(given[0], names, "pacioli help"+strings.TrimPrefix(cmd.CommandPath(), "pacioli")+" lists them")}
}

// meant asks whether a mistyped word was to be one of those that there are; when it is like none of them, it says otherwise.
func meant(word string, there []string, otherwise string) string {
	// Cobra knows how far words are from each other, but only of commands.
	list := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, name := range there {
		list.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	like := list.SuggestionsFor(word)
	if len(strings.Trim(word, "-")) == 0 || len(like) == 0 {
		return otherwise
	}
	return "did you mean " + strings.Join(like, ", or ") + "?"
}

// args checks the number of arguments and names them in the error.
func args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, given []string) error {
		if len(given) < len(names) {
			return usage("%s is missing", names[len(given)])
		}
		if len(given) > len(names) {
			return usage("unexpected argument %q", given[len(names)])
		}
		return nil
	}
}
