package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Two faults cannot be done to a process from outside: a wrong clock, and a full disk without root. For them the node runs
// in a program of its own, which is built here from the same source over a changed standard library. It is never shipped,
// and the nodes that are well do not run in it.
//
// That program looks into the folder that the variable PACIOLI_CHAOS_DIR names, or into the one of containers. The file "clock" is read when it starts:
// so many seconds are added to what the clock says. While the file "full" is not empty, every write to a file fails as the
// kernel lets it fail on a full disk, with ENOSPC; standard output and error are spared; and the disk says that nothing is free.

// chaosDir is the variable that names the folder.
const chaosDir = "PACIOLI_CHAOS_DIR"

// edit is one change of a file of the standard library. The old text has to stand there exactly once.
type edit struct{ old, new string }

var library = map[string][]edit{
	"time/time.go": {
		{"	sec, nsec, mono := runtimeNow()\n	if mono == 0 {\n		return Time{uint64(nsec), sec + unixToInternal, Local}",
			"	sec, nsec, mono := runtimeNow()\n	sec += chaosOffset\n	if mono == 0 {\n		return Time{uint64(nsec), sec + unixToInternal, Local}"},
		{"\n// Now returns the current local time.\n", `
var chaosOffset = chaosClock()

// chaosClock reads how many seconds the clock is off.
func chaosClock() (seconds int64) {
	dir, ok := syscall.Getenv("PACIOLI_CHAOS_DIR")
	if !ok {
		dir = "` + faultyDir + `"
	}
	fd, err := open(dir + "/clock")
	if err != nil {
		return 0
	}
	defer closefd(fd)
	var text [16]byte
	n, _ := read(fd, text[:])
	negative := false
	for _, c := range text[:max(n, 0)] {
		switch {
		case c == '-':
			negative = true
		case c >= '0' && c <= '9':
			seconds = 10*seconds + int64(c-'0')
		}
	}
	if negative {
		return -seconds
	}
	return seconds
}

// Now returns the current local time.
`},
		{"import (\n", "import (\n	\"syscall\"\n"},
	},
	"internal/poll/fd_unix.go": {
		{"func (fd *FD) Write(p []byte) (int, error) {\n", chaosFull + "func (fd *FD) Write(p []byte) (int, error) {\n" + refuseWrite},
		{"func (fd *FD) Pwrite(p []byte, off int64) (int, error) {\n", "func (fd *FD) Pwrite(p []byte, off int64) (int, error) {\n" + refuseWrite},
	},
}

// statfs is in the file of the system calls of one architecture.
const statfs = "func Statfs(path string, buf *Statfs_t) (err error) {\n"

const (
	// chaosFree has a full disk say that it is one.
	chaosFree = `func Statfs(path string, buf *Statfs_t) (err error) {
	dir, ok := Getenv("PACIOLI_CHAOS_DIR")
	if !ok {
		dir = "` + faultyDir + `"
	}
	var st Stat_t
	full := Stat(dir+"/full", &st) == nil && st.Size > 0
	if err = chaosStatfs(path, buf); full {
		buf.Bavail, buf.Bfree = 0, 0
	}
	return err
}

func chaosStatfs(path string, buf *Statfs_t) (err error) {
`
	chaosFull = `func chaosFull() bool {
	var st syscall.Stat_t
	return syscall.Stat(chaosDir+"/full", &st) == nil && st.Size > 0
}

var chaosDir = chaosFolder()

func chaosFolder() string {
	if dir, ok := syscall.Getenv("PACIOLI_CHAOS_DIR"); ok {
		return dir
	}
	return "` + faultyDir + `"
}

`
	refuseWrite = `	if fd.isFile && fd.Sysfd > 2 && chaosFull() {
		return 0, syscall.ENOSPC
	}
`
)

// BuildFaulty builds the program for wrong clocks and full disks, from the module that source is in, into dir. It needs Go.
func BuildFaulty(ctx context.Context, source, dir string) (string, error) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("no Go to build it with: %w", err)
	}
	output := func(args ...string) (string, error) {
		command := exec.CommandContext(ctx, goCommand, args...)
		command.Dir = source
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := command.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return strings.TrimSpace(string(out)), nil
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	module, err := output("list", "-m")
	if err != nil {
		return "", err
	}
	if module != "github.com/pacioli-ledger/pacioli" {
		return "", fmt.Errorf("%s holds the module %s, and the faulty program is built from Pacioli's source: run this in its folder", source, module)
	}
	root, err := output("env", "GOROOT")
	if err != nil {
		return "", err
	}
	arch, err := output("env", "GOARCH")
	if err != nil {
		return "", err
	}
	changes := maps.Clone(library)
	changes["syscall/zsyscall_linux_"+arch+".go"] = []edit{{statfs, chaosFree}}
	replace := map[string]string{}
	for name, edits := range changes {
		original := filepath.Join(root, "src", filepath.FromSlash(name))
		text, err := os.ReadFile(original)
		if err != nil {
			return "", fmt.Errorf("reading the standard library: %w", err)
		}
		changed := string(text)
		for _, e := range edits {
			if strings.Count(changed, e.old) != 1 {
				return "", fmt.Errorf("%s has changed: %q stands there %d times; the faults of clock and disk need package chaos to follow", original, e.old, strings.Count(changed, e.old))
			}
			changed = strings.Replace(changed, e.old, e.new, 1)
		}
		replace[original] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(replace[original], []byte(changed), 0o600); err != nil {
			return "", fmt.Errorf("writing the changed library: %w", err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", fmt.Errorf("writing the overlay: %w", err)
	}
	program := filepath.Join(dir, "pacioli-faulty")
	if _, err := output("build", "-trimpath", "-buildvcs=false", "-overlay", file, "-ldflags", "-s -w", "-o", program, "./cmd/pacioli"); err != nil {
		return "", err
	}
	return program, nil
}
