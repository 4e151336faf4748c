# The commands of this project. Each is a script or a single line, so you can also run it without make.

.DEFAULT_GOAL := help
.PHONY: help quickstart clean-cluster test lint build images runtime tools crds bench-autoscaling bench-operator bench-server advisories

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do printf '  %-21s %s\n' "make $$name" "$$text"; done

quickstart: ## Boot a cluster, install the operator, serve a model, classify three photographs (CONTEXT=name REGISTRY=host/prefix: on your own cluster)
	@scripts/quickstart

clean-cluster: ## Remove the quickstart's cluster: processes, mounts, networks, control groups
	@scripts/clean-cluster

test: ## Set everything up and run every test; prints seconds per stage
	@scripts/test

lint: ## Check formatting, clippy, licences, the chart and shell scripts
	@scripts/lint

build: ## Build the workspace's programs and tests
	@scripts/packages
	@cargo build --locked --workspace --all-targets

images: ## Build the images of the operator and the server in buildah's storage
	@scripts/packages
	@scripts/images

runtime: ## Build the server's image with one flavour of ONNX Runtime (FLAVOUR=cpu, openvino, cuda or plugin) and its vendor's libraries
	@scripts/packages
	@VENDOR=1 scripts/images $(or $(FLAVOUR),cpu)
	@[ "$(FLAVOUR)" != cuda ] || cargo test --locked --workspace --test runtimes cuda -- --include-ignored

tools: ## Build the local cluster's programs from pinned Go modules (once, about 20 minutes)
	@scripts/tools

crds: ## Write crds/*.yaml from the Rust types, and the chart's copies
	@UPDATE_CRDS=1 cargo test --locked --workspace --test crds
	@cp crds/*.yaml charts/modelservice-operator/files/crds/

bench-autoscaling: ## Compare autoscaling by the operator with a HorizontalPodAutoscaler on CPU, on a real cluster; half an hour
	@scripts/bench-autoscaling

bench-operator: ## Measure what 500 services and the load of 600 servers cost; prints a table, writes target/bench/operator.json
	@scripts/bench-operator

bench-server: ## Compare the server with ONNX Runtime in-process; writes target/bench/server.json (PEERS=1: other servers too; PROVIDER=openvino or cuda: on a device)
	@scripts/bench-server

advisories: ## Check the dependencies against the advisory database (needs the network)
	@scripts/lint advisories
