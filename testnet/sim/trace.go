package sim

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

// latch is set once, by whoever comes first.
type latch struct{ v atomic.Bool }

func (l *latch) set()     { l.v.Store(true) }
func (l *latch) is() bool { return l.v.Load() }

// trace writes what happens, line by line, with the virtual time and the node. It is written as it happens, so that it is
// there when the process dies.
type trace struct {
	mu    sync.Mutex
	w     io.Writer
	begun time.Time
}

// printf writes a line about a node, about the whole network when node is -1.
func (t *trace) printf(node int, format string, args ...any) {
	who := "      "
	if node >= 0 {
		who = fmt.Sprintf("node%02d", node)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, "%9.4f %s %s\n", time.Since(t.begun).Seconds(), who, fmt.Sprintf(format, args...))
}

// cometTrace takes CometBFT's log lines into the trace, and listens for the one that says that consensus has stopped.
type cometTrace struct {
	trace   *trace
	node    int
	dead    *latch // of a node that has crashed, nothing is of interest any more
	stopped func(cause string)
}

var _ cmtlog.Logger = cometTrace{}

func (l cometTrace) line(level, message string, pairs []any) {
	if l.dead.is() {
		return
	}
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] != "module" {
			fmt.Fprintf(&b, " %v=%v", pairs[i], pairs[i+1])
		}
	}
	l.trace.printf(l.node, "%s %s%s", level, message, b.String())
}

func (l cometTrace) Debug(string, ...any)              {}
func (l cometTrace) Info(message string, pairs ...any) { l.line("I", message, pairs) }
func (l cometTrace) Warn(message string, pairs ...any) { l.line("W", message, pairs) }
func (l cometTrace) With(...any) cmtlog.Logger         { return l }
func (l cometTrace) Error(message string, pairs ...any) {
	l.line("E", message, pairs)
	if strings.HasPrefix(message, "CONSENSUS FAILURE") && !l.dead.is() {
		l.stopped(fmt.Sprint(pairs...))
	}
}

// appTrace takes the application's log lines into the trace.
type appTrace struct {
	trace *trace
	node  int
	dead  *latch
}

func (h appTrace) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && !h.dead.is()
}
func (h appTrace) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h appTrace) WithGroup(string) slog.Handler      { return h }
func (h appTrace) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true })
	h.trace.printf(h.node, "app %s %s%s", r.Level, r.Message, b.String())
	return nil
}
