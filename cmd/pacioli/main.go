// Command pacioli is the whole ledger in one binary: validator, wallet, and the runner of local networks. The files of
// this folder hold one group of commands each and as little logic as they can; a bug here gives a bad error message.
//
// Results go to standard output, everything else to standard error. Exit codes are stable:
//
//	0  done; for a transaction: committed, and proven
//	1  an error on this side: usage, files, keys, no node to ask; nothing was sent
//	2  refused: the transaction did not take effect and cost nothing
//	3  failed: the transaction is in a block and cost its fee, but its operations did not take effect
//	4  unknown: the transaction may have taken effect, or may yet; the id to ask for is printed
//	5  audit: the books are not in order
//
// A node that ends itself has its own ones, see [node.Stops].
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

// run executes one command line and returns the exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Who interrupts twice does not want to wait for what the first time has begun.
	context.AfterFunc(ctx, stop)
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := newRoot(c)
	root.SetArgs(args)
	return c.report(root.ExecuteContext(ctx), args)
}
