# The commands of this project. Each is a script or one line, so that none needs make.

.DEFAULT_GOAL := help
.PHONY: help quickstart clean-cluster test lint build images tools crds bench-operator bench-server advisories

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do printf '  %-21s %s\n' "make $$name" "$$text"; done

quickstart: ## A cluster, the operator, a model and three classified photographs (CONTEXT=... REGISTRY=host/prefix: on your own cluster)
	@scripts/quickstart

clean-cluster: ## Remove the quickstart's cluster: processes, mounts, networks, control groups
	@scripts/clean-cluster

test: ## All set-up and every test; prints seconds per stage
	@scripts/test

lint: ## Formatting, clippy, licences, chart and shell checks
	@scripts/lint

build: ## The workspace's programs and tests
	@scripts/packages
	@cargo build --locked --workspace --all-targets

images: ## The images of operator and server, in buildah's storage
	@scripts/packages
	@scripts/images

tools: ## The local cluster's programs, from pinned Go modules (once, some 20 minutes)
	@scripts/tools

crds: ## Write crds/*.yaml from the Rust types, and the chart's copies
	@UPDATE_CRDS=1 cargo test --locked --package modelservice-operator --test crds
	@cp crds/*.yaml charts/modelservice-operator/files/crds/

bench-operator: ## What 500 services cost; prints a table, writes target/bench/operator.json
	@scripts/bench-operator

bench-server: ## The server against ONNX Runtime in-process; writes target/bench/server.json (PEERS=1: other servers too)
	@scripts/bench-server

advisories: ## Check the dependencies against the advisory database (needs the network)
	@scripts/lint advisories
