# Everything that is built goes into a cache outside of the tree; TIDEGATE_CACHE says where.
TIDEGATE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate
# One folder per checkout: Cargo takes two checkouts of one package for the same one, and what tests compile in
# (the folder of their cases) is then the other's.
CARGO_TARGET_DIR ?= $(TIDEGATE_CACHE)/target/$(shell pwd -P | cksum | cut -d ' ' -f 1)
export TIDEGATE_CACHE CARGO_TARGET_DIR

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(TIDEGATE_CACHE)/tools/bin/cargo-deny

.PHONY: help
help: ## Show what there is to make.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

.PHONY: demo
demo: prerequisites ## Start a control plane with Tidegate and show what it does; leaves it running.
	@dev/demo up

.PHONY: demo-down
demo-down: ## Stop what `make demo` left running.
	@dev/demo down

.PHONY: test
test: prerequisites control-plane ## Run every test, those on the real control plane included; not those with KEDA itself.
	cargo test --locked --workspace --no-fail-fast -- --include-ignored

.PHONY: test-keda
test-keda: prerequisites control-plane ## Run the tests with KEDA itself, which is built for some minutes the first time.
	@dev/keda/build > /dev/null
	cargo test --locked --test keda -- --include-ignored

.PHONY: test-fast
test-fast: ## Run the unit and case tests only: no control plane.
	cargo test --locked --workspace --no-fail-fast

.PHONY: test-skew
test-skew: ## Run every test on another version of Kubernetes: make test-skew KUBERNETES=1.37.2
	TIDEGATE_KUBERNETES=$(KUBERNETES) $(MAKE) test

.PHONY: lint
lint: prerequisites $(CARGO_DENY) ## Check format, lints, docs, licences and generated files.
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --test keda -- -D warnings
	cargo clippy --locked --package tidegate-engine --target wasm32-unknown-unknown -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	$(CARGO_DENY) check bans licenses sources
	cd dev/controlplane && test -z "$$(gofmt -l .)"

.PHONY: bench
bench: prerequisites control-plane ## Measure decisions and the webhook; writes docs/benchmarks.md.
	cargo bench --locked --bench decide --bench webhook

.PHONY: bench-controller
bench-controller: prerequisites control-plane ## Measure the controller with up to 10,000 model servers; writes docs/benchmarks-controller.md.
	cargo bench --locked --bench controller

.PHONY: generate
generate: ## Write what is generated from the code.
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
