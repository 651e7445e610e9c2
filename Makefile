# Each target is one command that CI runs too. `make help` lists them.
SHELL := /bin/bash
CACHE ?= $(HOME)/.cache/clustertracing-testbed
CLUSTER := tests/testbed/cluster.sh
HELM_VERSION := 4.3.1
DENY_VERSION := 0.20.2
DENY := $(CACHE)/tools/bin/cargo-deny
SCRIPTS := $(wildcard tests/*.sh tests/testbed/*.sh config/*.sh .ci/run)
GENERATED := docs/reasons.md docs/versions.md docs/platforms.md docs/redaction.md docs/kubectl-tracing.md docs/checks.md docs/schema crds config/crd config/rbac config/manager charts/clustertracing/templates/crds
export TESTBED_CACHE := $(CACHE)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: ## Everything, in order, with times (80 min; a fresh machine builds Kubernetes first: 30 min more)
	@tests/all.sh

.PHONY: demo
demo: ## The main job on a 3-node cluster: install, one kubectl apply, two traces (5 min once everything is built)
	@tests/testbed/demo.sh

.PHONY: down clean
down: ## Remove the test cluster
	@$(CLUSTER) down
clean: down ## Remove the test cluster and what cargo built; the test cluster's programs stay in the cache
	cargo clean

.PHONY: fmt fmt-check
fmt: ## Format the Rust code
	cargo fmt --all
fmt-check: ## Check the Rust code's format
	cargo fmt --all --check

.PHONY: lint
lint: ## clippy, rustdoc and shellcheck, with warnings as errors
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
	@if command -v shellcheck > /dev/null; then shellcheck $(SCRIPTS); else echo "lint: shellcheck is not installed: scripts are not checked"; fi

.PHONY: unit
unit: ## Unit, golden and property tests: no cluster, no network
	cargo test --locked
	python3 -m unittest discover --start-directory tests/testbed --pattern '*_test.py'

.PHONY: simulation
SEEDS ?= 1000
simulation: ## The controller and the agents against a model API server, with faults: SEEDS=1000 runs
	SIMULATION_SEEDS=$(SEEDS) cargo test --locked --release --test simulation

.PHONY: files
files: ## The agent on file systems of its own: power cuts, a full disk, a read-only one (needs root; 30 s)
	cargo test --locked --test agent --no-run
	unshare --mount --propagation private cargo test --locked --test agent disk:: -- --ignored --test-threads=1

.PHONY: nightly
nightly: ## What takes hours: 100000 simulated runs, 1000 sequences of specs, the deep model, 50 kills and 50 restarts on real clusters
	$(MAKE) --no-print-directory simulation SEEDS=100000 PROPTEST_CASES=1000
	$(MAKE) --no-print-directory model
	E2E_ROUNDS=50 $(MAKE) --no-print-directory e2e

.PHONY: model
model: ## The model of the rollout, deeper than `make unit` checks it (30 min)
	cargo test --locked --release --test model -- --ignored --nocapture

.PHONY: programs
programs: ## Build the programs of the test clusters into the cache (30 min once)
	@$(CLUSTER) build
	@KUBERNETES=1.37.1 $(CLUSTER) build
	@KUBERNETES=1.34.4 $(CLUSTER) build
	@tests/testbed/build.sh kubernetes 1.31.0 kube-apiserver
	@tests/testbed/build.sh etcd 3.5.6
	@tests/testbed/build.sh etcd 3.5.24
	@tests/testbed/build.sh jaeger 1.62.0
	@tests/testbed/build.sh helm $(HELM_VERSION)

.PHONY: collector
collector: ## Rendered configurations on a real collector: it takes them, redacts, and waits for no trace store (10 s)
	@tests/testbed/build.sh otelcol
	CLUSTERTRACING_OTELCOL=$$(tests/testbed/build.sh path otelcol) cargo test --locked --test collector --test collector_runs

.PHONY: generate verify-generated
generate: ## Write the custom resource definitions, the chart's copies and config/ from their sources
	cargo test --locked --quiet --test generate -- --ignored
	@tests/testbed/build.sh helm $(HELM_VERSION)
	HELM=$$(tests/testbed/build.sh path helm $(HELM_VERSION)) config/generate.sh
verify-generated: generate ## Prove that what `make generate` writes is what is committed, and that the chart is sound
	git diff --exit-code -- $(GENERATED)
	@test -z "$$(git ls-files --others --exclude-standard -- $(GENERATED))" || { echo "generated and not committed:"; git ls-files --others --exclude-standard -- $(GENERATED); exit 1; }
	$$(tests/testbed/build.sh path helm $(HELM_VERSION)) lint --strict --quiet charts/clustertracing

.PHONY: deny
deny: $(DENY) ## Licences, sources and banned crates of the dependencies
	$(DENY) --config .deny.toml check bans licenses sources
$(DENY):
	cargo install --locked --quiet cargo-deny@$(DENY_VERSION) --root $(CACHE)/tools

.PHONY: bench-store
ROUNDS ?= 5
OVERLOAD ?= 60
bench-store: ## The trace store beside otelcol and Jaeger, ROUNDS=5, then OVERLOAD=60 seconds of ten times what it takes (docs/benchmarks.md)
	@tests/testbed/build.sh otelcol
	@tests/testbed/build.sh jaeger 1.62.0
	cargo bench --locked --bench store -- $(ROUNDS) $(OVERLOAD)

.PHONY: bench-waterfall
bench-waterfall: ## The waterfall of a trace of 2,000 spans, in ms (the goal: below 100)
	cargo bench --locked --bench waterfall

.PHONY: crds
crds: ## Definitions, controller, canary's programs, etcd members and kubeadm's configuration, against real programs
	cargo test --locked --test crds --test controller_on_api_server --test probe --test canary --test members --test kubeadm_config --test upgrade_facts --test store_on_api_server --test own_traces --test request -- --ignored --test-threads=1

.PHONY: e2e
e2e: ## The whole operator on real clusters of 1 and 3 control-plane nodes (needs root; one cluster at a time)
	cargo test --locked --test e2e -- --ignored --test-threads=1 --nocapture
