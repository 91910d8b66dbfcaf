# `make` lists what there is. Each check is a step of .ci/run, which says what it does.
.DEFAULT_GOAL := help
.PHONY: help build test race lint fmt generate generated tidy cross vuln fuzz netns bench soak ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build everything; the command is bin/p2p
	go build ./...
	go build -o bin/p2p ./cmd/p2p

test: ## run the tests
	.ci/run test

race: ## run the tests with the race detector, in random order
	.ci/run race

lint: ## run golangci-lint
	.ci/run lint

fmt: ## format Go and .proto files
	.ci/run tools
	.bin/golangci-lint fmt
	.bin/buf format -w

generate: ## make the Go code of the .proto files
	.ci/run tools
	.bin/buf generate

generated: ## check that the generated code is what the .proto files make
	.ci/run generated

tidy: ## check go.mod and go.sum
	.ci/run tidy

cross: ## build and vet for Windows, macOS and 32-bit ARM
	.ci/run cross

vuln: ## look for known vulnerabilities
	.ci/run vuln

fuzz: ## run each fuzz target for FUZZTIME (30s)
	FUZZTIME=$(or $(FUZZTIME),30s) .ci/run fuzz

netns: ## run the tests that need network namespaces (root)
	.ci/run netns

bench: ## run the benchmarks and print the ratios to their baselines
	BENCHTIME=$(or $(BENCHTIME),20x) .ci/run bench

soak: ## run the tests ten times with the race detector, then fuzz for longer; takes hours
	go test -race -shuffle=on -count=10 -timeout 4h ./...
	P2P_LONG=1 go test -v -timeout 30m ./cmd/p2p
	FUZZTIME=5m .ci/run fuzz

ci: ## run every check once, as CI does
	.ci/run

clean: ## remove what was built
	rm -rf bin .bin
