# Pacioli. `make` alone lists the targets.
GO      ?= go
BIN     := bin/pacioli
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
DIR     ?= .pacioli/local
TESTNET ?= .pacioli/testnet
TOPOLOGY ?= testnet/topology.toml
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
	$(GO) test -p 3 -vet=off -ldflags '-s -w' -timeout 13m ./... # vetted above; three at once, for many wait for networks more than they compute

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

.PHONY: statesync-million
statesync-million: ## fetch and build the state of a million accounts from one honest and one poisoned provider
	PACIOLI_SYNC_ACCOUNTS=1000000 $(GO) test ./app/snapshot -run 'TestFetchAccounts$$' -v -count=1 -timeout 60m

.PHONY: vectors
vectors: ## write the test vectors under testdata again; a difference is a change of the protocol
	$(GO) test ./crypto ./ledger ./ledger/proof -run Vectors -update

.PHONY: proto
proto: ## generate the Go code of proto/ again
	$(GO) run ./proto/generate

.PHONY: mutants
mutants: ## plant known bugs one by one, and see that the tests notice each; MUTANT=regexp narrows them
	$(GO) run ./testnet/mutants -run '$(MUTANT)'

.PHONY: crashes
crashes: ## power fails, and the disk fails, at every single write of the store: some minutes
	$(GO) test ./ledger/store -run 'EveryWrite' -store.crashstep 1 -store.faultstep 1 -timeout 60m -v

.PHONY: kills
kills: ## KILLS (200) random kill -9, and every fail point POINTS (10) times; PACIOLI_SEED repeats a schedule
	PACIOLI_KILLS=$(or $(KILLS),200) $(GO) test ./testnet -run TestKillsUnderLoad -v -timeout 120m
	PACIOLI_POINTS=$(or $(POINTS),10) $(GO) test ./testnet -run TestKillPoints -v -timeout 120m

.PHONY: chaos
chaos: build ## break a network by a schedule for DURATION (3h), from SEED, in DIR; ARGS go to pacioli testnet chaos
	$(BIN) testnet chaos --duration $(or $(DURATION),3h) $(if $(SEED),--seed $(SEED)) --source . $(ARGS)

.PHONY: heights
heights: ## a validator with retention for HEIGHTS (100000) as fast as it goes: the disk must stay bounded
	PACIOLI_HEIGHTS=$(or $(HEIGHTS),100000) $(GO) test ./app/node -run 'TestHeights$$' -v -timeout 120m

.PHONY: sim
sim: ## networks in virtual time with faults from a seed: SEED=n runs one and prints everything, SEEDS=n (200) many from FIRST (1) on
ifdef SEED
	PACIOLI_SIM_SEED=$(SEED) $(GO) test ./testnet/sim -run '^TestSeed$$' -v -timeout 10m
else
	$(GO) test ./testnet/sim -run '^TestSeeds$$' -v -timeout 24h -seeds $(or $(SEEDS),200) -first $(or $(FIRST),1) -keep "$(or $(KEEP),$(CURDIR)/bin/sim)"
endif

.PHONY: down
down: ## end the network that `make run` left running
	$(BIN) down --dir $(DIR)

.PHONY: testnet
testnet: build ## run four validators and a full node in containers (needs Docker); MONITORING=1 adds Prometheus and Grafana
	$(BIN) testnet generate --topology $(TOPOLOGY) --out $(TESTNET) >/dev/null
	$(BIN) testnet up --dir $(TESTNET) $(if $(MONITORING),--monitoring)

.PHONY: testnet-down
testnet-down: ## remove the containers of `make testnet`; VOLUMES=1 removes their books too
	$(BIN) testnet down --dir $(TESTNET) $(if $(VOLUMES),--volumes)

.PHONY: clean
clean: ## remove what was built, and the network of `make run`; refuses while containers of `make testnet` are there
	@test -z "$$(docker ps --all --quiet --filter name=pacioli-testnet- 2>/dev/null)" || { echo 'first: make testnet-down VOLUMES=1'; exit 1; }
	rm -rf bin .pacioli
