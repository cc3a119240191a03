// Package failpoint ends the process at a named place, as kill -9 would, so that a test can see whether it restarts from
// there. A place is named between two things that a crash must not leave half done: a write and its sync, a sync and what
// is told of it. Without the variable in the environment a point costs one comparison.
package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Variable says where to end: the name of a point, or name:n for the n-th time that the process gets there.
const Variable = "PACIOLI_FAIL_AT"

// Names are all points of a node that runs. A test ends a node at each of them, and notices one that is never reached.
var Names = []string{
	"store.stage",     // a block's batch is built, nothing is written
	"store.commit",    // the batch is about to be written and synced
	"store.committed", // it is on the disk, and nobody knows
	"app.finalize",    // CometBFT is about to be told the AppHash
	"app.commit",      // the height is published, and CometBFT does not know
	"comet.write",     // one of CometBFT's databases is about to write and sync
	"comet.written",   // it has
	"sign.vote",       // the sign state is on the disk, and the vote has not left the signer
	"sign.proposal",   // the same of a proposal
}

// Operations are the points of what an operator asks for, of a node that runs or not. A test ends each and does it again.
var Operations = []string{
	"snapshot.write",     // a file of a snapshot is written, and not synced
	"snapshot.written",   // all are synced, and the snapshot does not have its name
	"backup.write",       // all files of a backup are copied, and their folders are not synced
	"backup.written",     // they are, and the backup does not have its name
	"rollback.commit",    // the batch that rolls the application back is about to be written and synced
	"rollback.committed", // it is on the disk, and CometBFT is at the height before
	"rollback.comet",     // CometBFT is one block further down
}

var at, left = parse(os.Getenv(Variable))

func parse(text string) (string, *atomic.Int64) {
	name, count, counted := strings.Cut(text, ":")
	n := new(atomic.Int64)
	n.Store(1)
	if name == "" {
		return "", n
	}
	if counted {
		i, err := strconv.ParseInt(count, 10, 64)
		if err != nil || i < 1 {
			panic(fmt.Sprintf("%s is %q, want a name, or a name and a count from 1 as name:2", Variable, text))
		}
		n.Store(i)
	}
	if all := slices.Concat(Names, Operations); !slices.Contains(all, name) {
		panic(fmt.Sprintf("%s is %q, want one of %s", Variable, text, strings.Join(all, ", ")))
	}
	return name, n
}

// Here is a point. It returns, or the process is gone.
func Here(name string) {
	if at != name {
		return
	}
	if left.Add(-1) > 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "pacioli: ended at the fail point %s\n", name)
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		os.Exit(137)
	}
	select {} // the signal is on its way
}
