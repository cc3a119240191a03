package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

func logLevel(name string) (slog.Level, error) {
	var l slog.Level
	switch name {
	case "debug", "info", "warn", "error":
		return l, l.UnmarshalText([]byte(name))
	}
	return l, fmt.Errorf("%q, want debug, info, warn or error", name)
}

// NewLogger returns the logger that the settings describe. The settings have been checked.
func NewLogger(c LogConfig, w io.Writer) *slog.Logger {
	level, _ := logLevel(c.Level)
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// cometLogger hands CometBFT's log lines to slog, and listens for the lines that say that consensus or state sync has
// stopped: CometBFT keeps the process and its RPC alive, and tells nobody else.
type cometLogger struct {
	log     *slog.Logger
	level   slog.Level
	stopped func(cause error)
}

var _ cmtlog.Logger = cometLogger{}

func (l cometLogger) write(level slog.Level, message string, pairs []any) {
	if level >= l.level {
		l.log.Log(context.Background(), level, message, pairs...)
	}
}

func (l cometLogger) Debug(message string, pairs ...any) { l.write(slog.LevelDebug, message, pairs) }
func (l cometLogger) Info(message string, pairs ...any)  { l.write(slog.LevelInfo, message, pairs) }
func (l cometLogger) Warn(message string, pairs ...any)  { l.write(slog.LevelWarn, message, pairs) }

func (l cometLogger) Error(message string, pairs ...any) {
	for i := 1; i < len(pairs); i += 2 {
		// A node that learns of a decision before the prevotes leaves out a useless vote. Under load that is one block in a
		// hundred, and nothing that an operator should look at.
		if err, ok := pairs[i].(error); ok && errors.Is(err, errDecided) {
			l.write(slog.LevelDebug, message, pairs)
			return
		}
	}
	l.write(slog.LevelError, message, pairs)
	what := ""
	switch {
	case strings.HasPrefix(message, "CONSENSUS FAILURE"):
		what = "consensus has stopped"
	case slices.Contains(stateSyncEnds, message):
		what = "state sync has failed"
	}
	if what != "" {
		cause := errors.New("unknown")
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == "err" {
				cause = asError(pairs[i+1])
			}
		}
		l.stopped(fmt.Errorf("%s: %w", what, cause))
	}
}

// asError returns what a panic or a line of the log has given as the cause.
func asError(cause any) error {
	if err, ok := cause.(error); ok {
		return err
	}
	return fmt.Errorf("%v", cause)
}

// stateSyncEnds are the messages after which CometBFT's state sync does nothing more (node/setup.go of v0.40).
var stateSyncEnds = []string{"State sync failed", "Failed to bootstrap node with new state", "Failed to store last seen commit", "Failed to switch to block sync"}

func (l cometLogger) With(pairs ...any) cmtlog.Logger {
	l.log = l.log.With(pairs...)
	return l
}

func sortedNames(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
