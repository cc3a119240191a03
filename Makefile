# Pacioli. `make` alone lists the targets.
GO      ?= go
BIN     := bin/pacioli
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
DIR     ?= .pacioli/local
FUZZTIME ?= 60s
export CGO_ENABLED = 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

.PHONY: run
run: build ## run a ledger of four validators with a funded wallet, here (Ctrl-C ends it, again goes on with it)
	$(BIN) up --validators 4 --dir $(DIR)

.PHONY: build
build: ## build the static binary bin/pacioli
	$(GO) build -trimpath -buildvcs=auto -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/pacioli

.PHONY: check
check: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w on the files above'; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: test
test: check ## every check and test that CI runs, on 2 cores within 15 minutes
	$(GO) test -timeout 9m ./...

.PHONY: race
race: ## the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./...

.PHONY: bench
bench: ## the benchmarks of docs/PERFORMANCE.md; BENCH=regexp and PKG=package narrow them
	$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -benchmem -timeout 60m $(or $(PKG),./...)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (60s); FUZZ=name and PKG=package run one
	@for target in $$($(GO) test -list '^Fuzz$(FUZZ)' $(or $(PKG),./...) | awk '/^Fuzz/ {t[n++]=$$1} /^ok/ {for (i=0;i<n;i++) print $$2":"t[i]; n=0}'); do \
		echo "== $$target"; $(GO) test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) "$${target%%:*}" || exit 1; done

.PHONY: vectors
vectors: ## write the test vectors under testdata again; a difference is a change of the protocol
	$(GO) test ./crypto ./ledger ./ledger/proof -run Vectors -update

.PHONY: proto
proto: ## generate the Go code of proto/ again
	$(GO) run ./proto/generate

.PHONY: mutants
mutants: ## plant known bugs one by one, and see that the tests notice each; MUTANT=regexp narrows them
	$(GO) run ./testnet/mutants -run '$(MUTANT)'

.PHONY: kills
kills: ## the four-process kill test for longer: PACIOLI_KILLS and PACIOLI_SEED say how
	PACIOLI_KILLS=$(or $(KILLS),200) $(GO) test ./testnet -run TestKillsUnderLoad -v -timeout 120m

.PHONY: down
down: ## end the network that `make run` left running
	$(BIN) down --dir $(DIR)

.PHONY: clean
clean: ## remove what was built, and the network of `make run`
	rm -rf bin .pacioli
