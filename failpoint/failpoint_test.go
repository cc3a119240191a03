package failpoint

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestHere starts this test again as a process that goes by a point three times.
func TestHere(t *testing.T) {
	if os.Getenv("PACIOLI_FAILPOINT_TEST") != "" {
		for range 3 {
			Here("store.commit")
			os.Stdout.WriteString("by\n")
		}
		os.Exit(0)
	}
	for setting, want := range map[string]int{"": 3, "store.commit": 0, "store.commit:1": 0, "store.commit:3": 2, "store.commit:4": 3, "app.commit": 3, "nowhere": -1, "store.commit:x": -1} {
		command := exec.Command(os.Args[0], "-test.run", "^TestHere$")
		command.Env = append(os.Environ(), "PACIOLI_FAILPOINT_TEST=1", Variable+"="+setting)
		out, err := command.Output()
		times := strings.Count(string(out), "by\n")
		status, _ := command.ProcessState.Sys().(syscall.WaitStatus)
		switch {
		case want == -1:
			if err == nil || times != 0 {
				t.Errorf("%q: %v, %q", setting, err, out)
			}
		case times != want || (want < 3) != (status.Signaled() && status.Signal() == syscall.SIGKILL):
			t.Errorf("%q: by %d times, want %d; %v", setting, times, want, err)
		}
	}
}
