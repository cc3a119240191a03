// Package durable makes Pebble keep what it has written over a power failure on every disk that does what POSIX says.
package durable

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Markers returns a disk that keeps the order in which Pebble changes a folder; nil stands for the operating system's disk.
// Pebble creates a new manifest, then a marker file whose name names the manifest, and syncs the folder once after both. POSIX
// does not say that the first of two new names survives a power failure when the second does, and a marker without its
// manifest is a database that cannot be opened. Here the folder is synced before a marker is created, too: a few times in the
// life of a database.
func Markers(fs vfs.FS) vfs.FS {
	if fs == nil {
		fs = vfs.Default
	}
	return markerFS{fs}
}

type markerFS struct{ vfs.FS }

func (fs markerFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(filepath.Base(name), "marker.") {
		if err := SyncDir(fs.FS, filepath.Dir(name)); err != nil {
			return nil, err
		}
	}
	return fs.FS.Create(name, c)
}

// Unwrap implements vfs.FS.
func (fs markerFS) Unwrap() vfs.FS { return fs.FS }

// SyncDir makes the names in a folder durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
