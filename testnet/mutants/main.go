// Command mutants plants known bugs in the code, one at a time, and tells whether the tests notice. A test that notices
// nothing when the rule that it is for is broken is worth nothing.
//
//	go run ./testnet/mutants [-run REGEXP] [-list]
//
// A mutant is a patch in testnet/mutants/patches. The lines before its first "---" say what it breaks and which tests must
// notice, as "tests: ARGUMENTS OF GO TEST"; of several such lines the later ones are run when the earlier have not noticed.
// The source tree is not touched: the changed file is given to the compiler with
// -overlay. A patch that does not apply, or makes code that does not compile, is a failure as well.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	only := flag.String("run", "", "only mutants whose name matches")
	list := flag.Bool("list", false, "list the mutants and what they break")
	flag.Parse()
	if err := run(*only, *list); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// mutant is one planted bug.
type mutant struct {
	name  string
	what  string
	tests [][]string // arguments of go test
	file  string     // that it changes, from the root of the module
	patch string     // path
}

func run(only string, list bool) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	mutants, err := read("testnet/mutants/patches")
	if err != nil {
		return fmt.Errorf("%w (run this at the root of the module)", err)
	}
	mutants = slices.DeleteFunc(mutants, func(m mutant) bool { return !match.MatchString(m.name) })
	if len(mutants) == 0 {
		return fmt.Errorf("no mutant matches %q", only)
	}
	// Tests that fail anyway notice nothing.
	sound := map[string]bool{}
	for _, m := range mutants {
		for _, tests := range m.tests {
			key := strings.Join(tests, " ")
			if list || sound[key] {
				continue
			}
			if text, err := exec.Command("go", append([]string{"test"}, tests...)...).CombinedOutput(); err != nil {
				return fmt.Errorf("without any mutant, go test %s: %w\n%s", key, err, text)
			}
			sound[key] = true
		}
	}
	var survivors []string
	for i, m := range mutants {
		if list {
			fmt.Printf("%-40s %s\n", m.name, m.what)
			continue
		}
		began := time.Now()
		verdict, output, err := m.try()
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Printf("%3d/%d  %-8s  %6.1fs  %-40s %s\n", i+1, len(mutants), verdict, time.Since(began).Seconds(), m.name, m.what)
		if verdict != "killed" {
			survivors = append(survivors, m.name)
			fmt.Println(output)
		}
	}
	if len(survivors) > 0 {
		return fmt.Errorf("%d of %d survive: %s", len(survivors), len(mutants), strings.Join(survivors, ", "))
	}
	if !list {
		fmt.Printf("all %d killed\n", len(mutants))
	}
	return nil
}

func read(dir string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no patches in %s", dir)
	}
	var mutants []mutant
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m := mutant{name: strings.TrimSuffix(filepath.Base(path), ".patch"), patch: path}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if file, ok := strings.CutPrefix(line, "+++ b/"); ok {
				if m.file != "" {
					return nil, fmt.Errorf("%s changes two files", path)
				}
				m.file = file
			} else if tests, ok := strings.CutPrefix(line, "tests:"); ok && m.file == "" {
				m.tests = append(m.tests, strings.Fields(tests))
			} else if m.what == "" {
				m.what = line
			}
		}
		if m.file == "" || m.what == "" || len(m.tests) == 0 {
			return nil, fmt.Errorf("%s: want a description, a line \"tests: ...\" and a patch of one file", path)
		}
		mutants = append(mutants, m)
	}
	return mutants, nil
}

// try runs the mutant's tests over the changed code.
func (m mutant) try() (verdict, output string, err error) {
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", "", err
	}
	changed := filepath.Join(dir, m.file)
	if err := errors.Join(os.MkdirAll(filepath.Dir(changed), 0o755), os.WriteFile(changed, source, 0o644)); err != nil {
		return "", "", err
	}
	patch, err := filepath.Abs(m.patch)
	if err != nil {
		return "", "", err
	}
	apply := exec.Command("git", "apply", patch)
	apply.Dir = dir
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if text, err := apply.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("the patch does not apply, write it anew: %w\n%s", err, text)
	}
	root, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.file): changed}})
	if err != nil {
		return "", "", err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o644); err != nil {
		return "", "", err
	}
	if text, err := exec.Command("go", "build", "-overlay", overlayFile, "./"+filepath.Dir(m.file)).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("the mutant does not compile: %w\n%s", err, text)
	}
	for _, tests := range m.tests {
		arguments := append([]string{"test", "-overlay", overlayFile, "-count=1", "-failfast"}, tests...)
		text, err := exec.Command("go", arguments...).CombinedOutput()
		if err == nil {
			output += "go " + strings.Join(arguments, " ") + "\n" + string(text)
			continue
		}
		if !bytes.Contains(text, []byte("--- FAIL")) && !bytes.Contains(text, []byte("panic:")) {
			return "", "", fmt.Errorf("the tests did not run: %w\n%s", err, text)
		}
		return "killed", "", nil
	}
	return "SURVIVES", output, nil
}
