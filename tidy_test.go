// Package pacioli holds no code. Its test keeps what the folders promise: who may import whom, and that the rules of the
// ledger know nothing that differs from node to node. See docs/ARCHITECTURE.md.
package pacioli

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pacioli-ledger/pacioli"

// imports says what a package may import besides the standard library; tests may import anything. A name without a dot in
// its first element is a package of this module, and stands for itself only; "..." stands for everything below. Other
// names stand for everything that begins with them.
var imports = map[string]string{
	"crypto": "crypto/canonical github.com/btcsuite/btcd/btcutil/bech32 github.com/cloudflare/circl/sign/mldsa " +
		"github.com/decred/dcrd/dcrec/secp256k1/v4 github.com/oasisprotocol/curve25519-voi golang.org/x/crypto",
	"crypto/canonical": "google.golang.org/protobuf/encoding/protowire",
	"crypto/keystore": "crypto crypto/canonical github.com/cosmos/go-bip39 github.com/decred/dcrd/dcrec/secp256k1/v4 " +
		"golang.org/x/crypto golang.org/x/text/unicode/norm",
	"ledger":       "crypto crypto/canonical",
	"ledger/proof": "crypto crypto/canonical ledger github.com/cosmos/ics23/go",
	// The rules a second time: nothing of the first.
	"ledger/reference": "proto/pacioliv1 google.golang.org/protobuf",
	"ledger/query":     "crypto crypto/canonical ledger",
	// Kills the process where a test says, for the packages that write to the disk.
	"failpoint": "",
	// Power failures, for whoever has a Pebble.
	"ledger/store/durable": "github.com/cockroachdb/pebble/v2/vfs",
	"ledger/store": "crypto crypto/canonical failpoint ledger ledger/store/durable github.com/cockroachdb/pebble/v2 github.com/cosmos/iavl github.com/cosmos/ics23/go " +
		"cosmossdk.io/core/store", // in the signatures of iavl
	"genesis": "crypto ledger github.com/cometbft/cometbft/crypto github.com/cometbft/cometbft/libs/json github.com/cometbft/cometbft/types",
	"app": "app/index app/mempool app/signature app/snapshot crypto crypto/canonical failpoint ledger ledger/proof ledger/query ledger/store " +
		"github.com/cometbft/cometbft/abci github.com/cometbft/cometbft/libs/service github.com/cometbft/cometbft/proto/tendermint/crypto github.com/cometbft/cometbft/proto/tendermint/types github.com/cometbft/cometbft/crypto/ed25519 github.com/cometbft/cometbft/crypto/mldsa65 github.com/cometbft/cometbft/proxy",
	"app/index":        "crypto crypto/canonical ledger ledger/query",
	"app/mempool":      "app/signature crypto ledger",
	"app/signature":    "crypto ledger",
	"app/snapshot":     "crypto crypto/canonical failpoint ledger ledger/store",
	"app/node":         "app app/... client/light crypto crypto/canonical failpoint genesis ledger ledger/... github.com/cometbft/cometbft github.com/cometbft/cometbft-db github.com/pelletier/go-toml/v2 github.com/go-viper/mapstructure/v2 github.com/prometheus/client_golang",
	"app/node/cometdb": "failpoint ledger/store/durable github.com/cockroachdb/pebble/v2 github.com/cometbft/cometbft-db github.com/cometbft/cometbft/config",
	"client": "client/light crypto crypto/canonical genesis ledger ledger/proof ledger/query github.com/cometbft/cometbft/abci/types github.com/cometbft/cometbft/libs " +
		"github.com/cometbft/cometbft/rpc github.com/cometbft/cometbft/types",
	"client/light":        "github.com/cometbft/cometbft/libs/math github.com/cometbft/cometbft/light github.com/cometbft/cometbft/proto github.com/cometbft/cometbft/rpc github.com/cometbft/cometbft/types",
	"client/statement":    "client client/light crypto ledger",
	"client/batch":        "client crypto ledger",
	"client/conservation": "client crypto ledger",
	"client/render":       "crypto ledger",
	// A chain in memory for the tests of the client and of who uses it.
	"client/clienttest": "app/index client crypto crypto/canonical genesis ledger ledger/... github.com/cockroachdb/pebble/v2/vfs github.com/cometbft/cometbft",
	"testnet":           "app/... client client/... crypto crypto/... genesis ledger ledger/... testnet/... github.com/cometbft/cometbft github.com/pelletier/go-toml/v2",
	"testnet/sim":       "app app/... crypto genesis ledger ledger/... github.com/cometbft/cometbft github.com/cockroachdb/pebble/v2/vfs github.com/cosmos/gogoproto/proto",
	"testnet/...":       "app/... client client/... crypto crypto/... genesis ledger ledger/... testnet testnet/... github.com/cometbft/cometbft github.com/pelletier/go-toml/v2",
	"proto/...":         "github.com/bufbuild/protocompile google.golang.org/protobuf",
	"cmd/...":           "anything",
}

// pure are the packages of which every node must make the same of the same bytes.
func pure(pkg string) bool {
	return pkg == "crypto" || pkg == "crypto/canonical" || pkg == "ledger" || pkg == "ledger/proof" || pkg == "ledger/query"
}

// impure are what differs from node to node, or lets a program go round the type system.
var impure = []string{"time", "math/rand", "math/rand/v2", "crypto/rand", "os", "net", "net/http", "sync", "sync/atomic", "reflect", "unsafe", "runtime", "math", "context", "syscall", "log", "log/slog"}

// file is a parsed Go file.
type file struct {
	name string // with slashes
	pkg  string // folder; "" is the root
	test bool
	tree *ast.File
}

func load(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != "." || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		tree, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		pkg := path.Dir(filepath.ToSlash(name))
		if pkg == "." {
			pkg = ""
		}
		files = append(files, file{filepath.ToSlash(name), pkg, strings.HasSuffix(name, "_test.go"), tree})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("%d Go files: run this test at the root of the module", len(files))
	}
	return fset, files
}

// allowed returns what a package may import; ok is false when the table does not have it.
func allowed(pkg string) (list []string, ok bool) {
	if l, ok := imports[pkg]; ok {
		return strings.Fields(l), true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if l, ok := imports[dir+"/..."]; ok {
			return strings.Fields(l), true
		}
	}
	return nil, false
}

func mayImport(list []string, imported string) bool {
	own, inside := strings.CutPrefix(imported, module+"/")
	for _, a := range list {
		switch dir, below := strings.CutSuffix(a, "/..."); {
		case a == "anything":
			return true
		case inside && below && strings.HasPrefix(own, dir+"/"), inside && own == a:
			return true
		case !inside && strings.Contains(strings.Split(a, "/")[0], ".") && (imported == a || strings.HasPrefix(imported, a+"/")):
			return true
		}
	}
	return false
}

func imported(f file) (paths []string) {
	for _, spec := range f.tree.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

func TestImports(t *testing.T) {
	_, files := load(t)
	seen := map[string]bool{}
	for _, f := range files {
		if f.pkg == "" || f.test {
			continue
		}
		list, ok := allowed(f.pkg)
		if !ok {
			if !seen[f.pkg] {
				t.Errorf("package %s is not in the table of imports", f.pkg)
			}
			seen[f.pkg] = true
			continue
		}
		for _, p := range imported(f) {
			standard := !strings.Contains(strings.Split(p, "/")[0], ".")
			switch {
			case standard && pure(f.pkg) && slices.Contains(impure, p):
				t.Errorf("%s imports %s, which differs from node to node", f.name, p)
			case p == "crypto/ed25519" && f.pkg != "crypto":
				t.Errorf("%s imports crypto/ed25519: its Verify follows another rule than the ledger's, use package crypto", f.name)
			case standard:
			case !mayImport(list, p):
				t.Errorf("%s imports %s, which package %s may not", f.name, p, f.pkg)
			}
		}
	}
}

// TestDeterminism looks into the pure packages for floats, goroutines, channels and walks over maps in no order.
func TestDeterminism(t *testing.T) {
	fset, files := load(t)
	byPkg := map[string][]*ast.File{}
	for _, f := range files {
		if !f.test && pure(f.pkg) {
			byPkg[module+"/"+f.pkg] = append(byPkg[module+"/"+f.pkg], f.tree)
		}
	}
	if len(byPkg) != 5 {
		t.Fatalf("%d pure packages, want 5", len(byPkg))
	}
	c := &checker{fset: fset, own: byPkg, done: map[string]*types.Package{}, standard: importer.ForCompiler(fset, "source", nil),
		info: types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}}
	for name := range byPkg {
		if _, err := c.Import(name); err != nil {
			t.Fatalf("checking %s: %s", name, err)
		}
	}
	// Loops over what package ics23 declares; looked at by hand: slices.
	unknown := map[string]int{"ledger/proof/state.go": 2}
	walks := 0
	for name, trees := range byPkg {
		for _, tree := range trees {
			found, ranges := impurities(tree, &c.info)
			walks += ranges
			for _, f := range found {
				if p := fset.Position(f.pos); f.what == unknownLoop && unknown[filepath.ToSlash(p.Filename)] > 0 {
					unknown[filepath.ToSlash(p.Filename)]--
					continue
				}
				t.Errorf("%s: %s (package %s)", fset.Position(f.pos), f.what, strings.TrimPrefix(name, module+"/"))
			}
		}
	}
	for name, n := range unknown {
		if n != 0 {
			t.Errorf("%s has %d fewer loops of unknown type than listed here: take it off the list", name, n)
		}
	}
	if walks < 50 {
		t.Errorf("only %d loops seen: the check has lost its sense", walks)
	}
}

// checker checks the types of the pure packages. Those of the standard library come from its source; those of other
// modules stay unknown, which is an error that is passed over: a loop over something unknown is a finding.
type checker struct {
	fset     *token.FileSet
	own      map[string][]*ast.File
	done     map[string]*types.Package
	standard types.Importer
	info     types.Info
}

func (c *checker) Import(name string) (*types.Package, error) {
	if p := c.done[name]; p != nil {
		return p, nil
	}
	if trees, ok := c.own[name]; ok {
		p, _ := (&types.Config{Importer: c, Error: func(error) {}}).Check(name, c.fset, trees, &c.info)
		c.done[name] = p
		return p, nil
	}
	if strings.Contains(strings.Split(name, "/")[0], ".") {
		p := types.NewPackage(name, path.Base(strings.TrimSuffix(name, "/v4")))
		p.MarkComplete()
		c.done[name] = p
		return p, nil
	}
	return c.standard.Import(name)
}

type finding struct {
	pos  token.Pos
	what string
}

const unknownLoop = "loop over something whose type is not known here"

// sorting are the functions that put a map's keys into an order.
var sorting = []string{"Sorted", "SortedFunc", "SortedStableFunc"}

func impurities(tree *ast.File, info *types.Info) (found []finding, ranges int) {
	report := func(n ast.Node, what string) { found = append(found, finding{n.Pos(), what}) }
	sorted := map[ast.Node]bool{} // calls that stand within a sorting one
	ast.Inspect(tree, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.RangeStmt:
			ranges++
			switch kind := info.TypeOf(x.X); {
			case kind == nil || kind.Underlying() == types.Typ[types.Invalid]:
				report(x, unknownLoop)
			default:
				if _, ok := kind.Underlying().(*types.Map); ok {
					report(x, "loop over a map, whose order is random")
				}
			}
		case *ast.CallExpr:
			if inPackage(x.Fun, "slices", sorting, info) {
				for _, a := range x.Args {
					sorted[a] = true
				}
			}
			if inPackage(x.Fun, "maps", []string{"Keys", "Values", "All"}, info) && !sorted[x] {
				report(x, "a map's content in random order: put it into slices.Sorted")
			}
		case *ast.GoStmt:
			report(x, "goroutine")
		case *ast.SelectStmt:
			report(x, "select")
		case *ast.ChanType:
			report(x, "channel")
		case *ast.BasicLit:
			// 1e6 in integer arithmetic is an integer.
			if b, ok := info.TypeOf(x).(*types.Basic); (x.Kind == token.FLOAT || x.Kind == token.IMAG) && !(ok && b.Info()&types.IsInteger != 0) {
				report(x, "floating point")
			}
		case *ast.Ident:
			if slices.Contains([]string{"float32", "float64", "complex64", "complex128"}, x.Name) {
				report(x, "floating point")
			}
		}
		return true
	})
	return found, ranges
}

func inPackage(fun ast.Expr, pkg string, names []string, info *types.Info) bool {
	s, ok := fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, s.Sel.Name) {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	if !ok {
		return false
	}
	p, ok := info.Uses[id].(*types.PkgName)
	return ok && p.Imported().Path() == pkg
}

// TestImpurities makes sure that each kind of offence is found.
func TestImpurities(t *testing.T) {
	const bad = `package bad
import ("maps"; "slices")
func f(m map[int]int, c chan int) (n int) {
	for k := range m { n += k }
	for k := range maps.Keys(m) { n += k }
	for _, k := range slices.Collect(maps.Values(m)) { n += k }
	for _, k := range slices.Sorted(maps.Keys(m)) { n += k }
	for range 3 { go f(nil, nil) }
	select { case <-c: default: }
	const half = 0.5
	n /= 1e6
	return n + int(float64(n) * half)
}`
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, "bad.go", bad, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{Importer: importer.ForCompiler(fset, "source", nil)}).Check("bad", fset, []*ast.File{tree}, &info); err != nil {
		t.Fatal(err)
	}
	found, _ := impurities(tree, &info)
	var lines []string
	for _, f := range found {
		lines = append(lines, fmt.Sprint(fset.Position(f.pos).Line))
	}
	if got := strings.Join(lines, " "); got != "3 4 5 6 8 9 10 12" {
		t.Errorf("found in the lines %s: %v", got, found)
	}
	for _, c := range []struct {
		pkg, path string
		want      bool
	}{
		{"ledger", module + "/crypto", true}, {"ledger", module + "/app", false}, {"ledger", "github.com/cosmos/iavl", false},
		{"ledger/proof", module + "/ledger/store", false}, {"client", module + "/app/node", false}, {"app", "github.com/cometbft/cometbft/consensus", false},
		{"crypto", "github.com/cloudflare/circl/sign/mldsa/mldsa65", true}, {"testnet/load", module + "/explorer", false}, {"cmd/pacioli", "example.org/x", true},
	} {
		list, ok := allowed(c.pkg)
		if !ok || mayImport(list, c.path) != c.want {
			t.Errorf("%s may import %s: want %t", c.pkg, c.path, c.want)
		}
	}
}

// TestPackageComments: every package says what it is for.
func TestPackageComments(t *testing.T) {
	_, files := load(t)
	said, generated := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		if ast.IsGenerated(f.tree) {
			generated[f.pkg] = true
		}
		if doc := f.tree.Doc.Text(); len(doc) > 40 {
			said[f.pkg] = true
		} else if !said[f.pkg] {
			said[f.pkg] = false
		}
	}
	for pkg, ok := range said {
		if !ok && !generated[pkg] {
			t.Errorf("package %s has no comment", pkg)
		}
	}
}

// machinePath finds home folders: what is in the repository must mean the same on every machine. /tmp is everywhere.
var machinePath = regexp.MustCompile(`(^|[\s"'=:(` + "`" + `])/(root|home/[a-z]|Users/|work/)`)

func TestNoMachinePaths(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == ".pacioli" || d.Name() == "bin" || d.Name() == "fuzz") {
			return fs.SkipDir
		}
		if d.IsDir() || d.Name() == ".git" || name == "tidy_test.go" || !slices.Contains([]string{".go", ".md", ".toml", ".json", ".txt", ".yml", ".yaml", ".sh", ".proto", ".mod", ""}, filepath.Ext(name)) {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		checked++
		if at := machinePath.FindIndex(text); at != nil {
			t.Errorf("%s names a path of one machine: %q", name, text[at[0]:min(len(text), at[1]+30)])
		}
		return nil
	})
	if err != nil || checked < 100 {
		t.Fatalf("%d files checked: %v", checked, err)
	}
	for _, text := range []string{"/root/go", `"/home/ann/x"`, "see /work/x", "PATH=/Users/ann"} {
		if !machinePath.MatchString(text) {
			t.Errorf("%s is not found", text)
		}
	}
}

// TestPins: `go get -u` would take CometBFT to an abandoned line of versions without a critical fix.
func TestPins(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatal("no go.mod here")
	}
	for _, pin := range []string{"github.com/cometbft/cometbft v0.40.0", "github.com/cosmos/iavl v1.3.6", "github.com/cockroachdb/pebble/v2 v2.1.7"} {
		if !slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool { return strings.TrimSpace(line) == pin }) {
			t.Errorf("go.mod does not pin %s", pin)
		}
	}
	if strings.Contains(string(text), "\nreplace") {
		t.Error("go.mod replaces a module")
	}
}
