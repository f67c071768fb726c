SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

ARCH ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
IMAGE ?= kubebaton.io/baton-agent:dev
N ?= 3

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/baton/tools
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
LAB := go run -C lab .
OUTFLAG = $(if $(OUT),--out $(abspath $(OUT)))

.PHONY: help demo test e2e chaos bench bench-drain bench-fleet mutants lab-up lab-kubectl lab-exec lab-down lab-test build image lint fmt vulncheck docs
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: image ## three real nodes reboot one after another, watched; OUT=file.json keeps the figures
	$(LAB) demo $(OUTFLAG)

test: ## every test but the real nodes': with the race detector, a real API server, a real bus; nothing may be skipped
	@.ci/need gcc=gcc dbus-daemon=dbus promtool=prometheus
	@KUBEBUILDER_ASSETS=$$($(LAB) build --tier api); export KUBEBUILDER_ASSETS; \
	{ bad=0; go test -race -timeout 30m -json ./... || bad=1; go test -timeout 30m -json -run '^(TestCrashes|TestSearch)$$' ./agent ./internal/search || bad=1; go test -C lab -json ./... || bad=1; exit $$bad; } | go run ./internal/tally

e2e: image ## scenarios on four real nodes (root); SHORT=1 for the quick ones, ONLY=REGEX
	$(LAB) e2e $(if $(SHORT),--short) $(if $(ONLY),--only '$(ONLY)') $(OUTFLAG)

chaos: image ## faults on real nodes by a seeded plan, judged (root); SEED=N, MINUTES=M (30), OUT=file.json
	$(LAB) chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(OUTFLAG)

bench: image ## hand-over, detection, requests of an idle agent, memory, size of the binary; then evictions a pod (root)
	$(LAB) bench $(if $(IDLE),--idle $(IDLE)) $(OUTFLAG) && $(LAB) spread $(if $(OUT),--out $(basename $(abspath $(OUT)))-spread.json)

bench-drain: ## drains of 1, 50, 200 pods beside kubectl's library; a budget, a webhook (root); ONLY=REGEX
	$(LAB) bench-drain $(if $(ONLY),--only '$(ONLY)') $(OUTFLAG)

bench-fleet: build ## a rollout over N=1000 simulated nodes, real agents and API server: time and cost; MAX=10% SEED=1 CHURN=1 ARGS=… OUT=file.json
	$(LAB) fleet --binary $(CURDIR)/dist/$(ARCH)/baton-agent $(if $(filter command,$(firstword $(origin N))),--nodes $(N)) \
		$(if $(MAX),--max $(MAX)) $(if $(SEED),--seed $(SEED)) $(if $(CHURN),--churn) $(ARGS) $(OUTFLAG)

mutants: ## break every promise once and see the named test fail; ONLY=REGEX
	@KUBEBUILDER_ASSETS=$$($(LAB) build --tier api); export KUBEBUILDER_ASSETS; \
	go run ./internal/mutants $(if $(ONLY),--only '$(ONLY)')

lab-up: ## a cluster of N=3 real nodes (root)
	$(LAB) up --nodes $(N)
lab-kubectl: ## kubectl in the lab: ARGS="get nodes"
	@$(LAB) kubectl -- $(ARGS)
lab-exec: ## a command inside a node: NODE=n1 CMD="systemctl status"
	@$(LAB) exec $(NODE) -- $(CMD)
lab-down: ## everything off, nothing left
	$(LAB) down
lab-test: ## the lab's own tests with real nodes: kills, power cuts, nothing left behind (root)
	go test -C lab -count=1 -tags nodes ./cluster

# k8s.io's generated code is most of the program and is not hot: without inlining it is 2 MB smaller.
build: ## the agent for ARCH, static and reproducible, in dist/
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -buildvcs=false -gcflags='k8s.io/...=-l' -ldflags "-s -w -X main.version=$(VERSION)" -o dist/$(ARCH)/baton-agent ./cmd/baton-agent

image: build ## dist/image.tar, a docker-archive, without an engine; ARCH=arm64 for the other architecture
	@$(LAB) image --arch $(ARCH) --name $(IMAGE) --binary $(CURDIR)/dist/$(ARCH)/baton-agent --out $(CURDIR)/dist/image.tar

lint: $(GOLANGCI) ## golangci-lint over both modules
	$(GOLANGCI) run ./... && cd lab && $(GOLANGCI) run --config ../.golangci.yml ./...
fmt: $(GOLANGCI) ## gofumpt
	$(GOLANGCI) fmt ./... && cd lab && $(GOLANGCI) fmt --config ../.golangci.yml ./...
vulncheck: ## known vulnerabilities in what is called (asks vuln.go.dev)
	go run $(GOVULNCHECK) ./...

docs: ## write the generated parts of docs/ anew
	@KUBEBUILDER_ASSETS=$$($(LAB) build --tier api); export KUBEBUILDER_ASSETS; \
	go test ./agent ./config ./node -update

$(GOLANGCI):
	GOBIN=$(TOOLS)/new go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(TOOLS)/new/golangci-lint $@
