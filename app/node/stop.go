package node

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/pacioli-ledger/pacioli/app/snapshot"
)

// Stop is why a running node has ended itself. Its code is the process's exit code, which stays what it is: a supervisor
// can tell by it whether to start the node again.
type Stop struct {
	Code int
	Name string // stable, for programs
	Hint string // what to do
	err  error
}

func (s *Stop) Error() string { return s.err.Error() }
func (s *Stop) Unwrap() error { return s.err }

// stops are all reasons, by exit code. docs/CLI.md has the table, which a test compares.
var stops = []Stop{
	{Code: 10, Name: "consensus_stopped", Hint: "read the log above it; a start on the same data goes on where it was, or stops again at the same height"},
	{Code: 11, Name: "database_failed", Hint: "look at the disk, then start again"},
	{Code: 12, Name: "disk_full", Hint: "make room, or lower node.min_free_mb, then start again: nothing is lost"},
	{Code: 13, Name: "clock_off", Hint: "set the machine's clock, or its time service, then start again"},
	{Code: 14, Name: "key_in_use", Hint: "find the other node that signs with this key before you start again"},
	{Code: 15, Name: "rpc_failed", Hint: "start again"},
}

// Stops lists the reasons for which a node ends itself.
func Stops() []Stop { return stops }

// stop makes the error that ends the node for a reason; where the cause in args is a full disk, for that one.
func stop(name string, format string, args ...any) *Stop {
	err := fmt.Errorf(format, args...)
	if diskIsFull(err) {
		name = "disk_full"
	}
	for _, s := range stops {
		if s.Name == name {
			s.err = err
			return &s
		}
	}
	panic("no exit code for " + name)
}

// diskIsFull tells whether something failed because the disk has no room for it.
func diskIsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, snapshot.ErrNoRoom)
}
