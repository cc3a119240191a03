// Command generate makes the Go code of the published .proto files, without protoc: protocompile reads them, the pinned
// protoc-gen-go writes the code. Run it from the root of the repository, as `go run ./proto/generate`.
//
// The ledger does not use this code: it has a stricter codec of its own, which the tests hold against the generated one.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	files, err := generate("proto")
	if err == nil {
		for name, content := range files {
			if err = os.WriteFile(filepath.Join("proto", "pacioliv1", name), content, 0o644); err != nil {
				break
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate returns the Go files of the .proto files below root, by their names in pacioliv1.
func generate(root string) (map[string][]byte, error) {
	sources, err := filepath.Glob(filepath.Join(root, "pacioli", "v1", "*.proto"))
	if err != nil || len(sources) == 0 {
		return nil, fmt.Errorf("no .proto files below %s: %v", root, err)
	}
	request := &pluginpb.CodeGeneratorRequest{Parameter: proto.String("paths=source_relative")}
	for _, s := range sources {
		request.FileToGenerate = append(request.FileToGenerate, path.Join("pacioli/v1", filepath.Base(s)))
	}
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{root}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), request.FileToGenerate...)
	if err != nil {
		return nil, fmt.Errorf("compiling the .proto files: %w", err)
	}
	for _, f := range compiled {
		request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(f))
	}
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encoding the request to protoc-gen-go: %w", err)
	}
	plugin := exec.Command("go", "tool", "protoc-gen-go")
	plugin.Stdin = bytes.NewReader(input)
	plugin.Stderr = os.Stderr
	output, err := plugin.Output()
	if err != nil {
		return nil, fmt.Errorf("running protoc-gen-go: %w", err)
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return nil, fmt.Errorf("decoding the answer of protoc-gen-go: %w", err)
	}
	if response.Error != nil {
		return nil, fmt.Errorf("protoc-gen-go: %s", response.GetError())
	}
	files := map[string][]byte{}
	for _, f := range response.File {
		files[path.Base(f.GetName())] = []byte(f.GetContent())
	}
	return files, nil
}
