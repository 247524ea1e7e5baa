# Everything is built into a cache outside of the tree: TIDEGATE_CACHE.
TIDEGATE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate
# One folder per checkout: Cargo does not distinguish two checkouts of a package, so tests would read the files of the
# other checkout, whose path is compiled in.
CARGO_TARGET_DIR ?= $(TIDEGATE_CACHE)/target/$(shell pwd -P | cksum | cut -d ' ' -f 1)
export TIDEGATE_CACHE CARGO_TARGET_DIR

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(TIDEGATE_CACHE)/tools/bin/cargo-deny

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

.PHONY: demo
demo: prerequisites ## Start a control plane with Tidegate, show what it does, and leave it running.
	@dev/demo up

.PHONY: demo-down
demo-down: ## Stop what `make demo` left running.
	@dev/demo down

.PHONY: test
test: prerequisites control-plane ## Run all tests, including those on a real control plane and with two model servers, except those with KEDA itself.
	cargo test --locked --workspace --no-fail-fast -- --include-ignored
	cargo test --locked --test real_runtimes -- --include-ignored the_installed bentoml mlserver

.PHONY: test-runtimes
test-runtimes: prerequisites ## Run the tests of the presets with the real model servers; the first time installs them.
	cargo test --locked --test real_runtimes -- --include-ignored --test-threads 1

.PHONY: test-keda
test-keda: prerequisites control-plane ## Run the tests with KEDA itself; the first time builds it, which takes some minutes.
	@dev/keda/build > /dev/null
	cargo test --locked --test keda -- --include-ignored

.PHONY: test-fast
test-fast: ## Run the tests that need no control plane.
	cargo test --locked --workspace --no-fail-fast

.PHONY: test-skew
test-skew: ## Run `make test` on another version of Kubernetes: make test-skew KUBERNETES=1.37.2
	TIDEGATE_KUBERNETES=$(KUBERNETES) $(MAKE) test

.PHONY: lint
lint: prerequisites $(CARGO_DENY) ## Check formatting, lints, docs and licences.
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --test keda --test real_runtimes -- -D warnings
	cargo clippy --locked --package tidegate-engine --target wasm32-unknown-unknown -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	$(CARGO_DENY) check bans licenses sources
	cd dev/controlplane && test -z "$$(gofmt -l .)"

.PHONY: bench
bench: prerequisites control-plane ## Benchmark decisions and the webhook; writes docs/benchmarks.md.
	cargo bench --locked --bench decide --bench webhook

.PHONY: bench-controller
bench-controller: prerequisites control-plane ## Benchmark the controller with up to 10,000 model servers; writes docs/benchmarks-controller.md.
	cargo bench --locked --bench controller

.PHONY: generate
generate: ## Write the files that are generated from the code.
	cargo run --locked --quiet -- generate crds
	cargo run --locked --quiet -- generate webhooks
	cargo run --locked --quiet -- generate rbac
	cargo run --locked --quiet -- generate rules
	cargo run --locked --quiet -- generate runtimes

.PHONY: control-plane
control-plane: prerequisites
	@dev/controlplane/build > /dev/null

.PHONY: prerequisites
prerequisites:
	@dev/prerequisites

$(CARGO_DENY):
	cargo install --locked --version $(CARGO_DENY_VERSION) --root $(TIDEGATE_CACHE)/tools cargo-deny
