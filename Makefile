# What there is to do with Polygate. `make` alone lists it.

CARGO_DENY_VERSION = 0.20.2
CARGO_FUZZ_VERSION = 0.13.2
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 30
# How often the server is killed, and the seed of all that is left to chance: a random one where there is none.
RESTARTS ?= 50
# How often the configuration is changed under load, and how often each kind of deploy is done.
RELOADS ?= 100
DEPLOYS ?= 20
SEED ?=
# How long the server is called, attacked and changed without an end.
SOAK_SECONDS ?= 600

# Where rustup puts cargo, for a shell that was opened before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help cargo run test chaos deploys soak lint bench fuzz

help:
	@echo "make run     build Polygate and start it on 127.0.0.1:8080"
	@echo "make test    install what the tests need (as root, on Debian or Ubuntu) and run them all"
	@echo "make chaos   kill the server RESTARTS ($(RESTARTS)) times under load, fill its disk, damage its files: nothing may be lost"
	@echo "make soak    call, attack and change the release build for SOAK_SECONDS ($(SOAK_SECONDS)): nothing may grow or fail"
	@echo "make deploys change the configuration RELOADS ($(RELOADS)) times and deploy DEPLOYS ($(DEPLOYS)) times under load: no request may fail"
	@echo "make lint    format, clippy, documentation; licences, sources and advisories of the packages"
	@echo "make bench   measure, and write bench/RESULTS.md and bench/GATEWAY.md"
	@echo "make fuzz    run every fuzz target for FUZZ_SECONDS ($(FUZZ_SECONDS)) each"

cargo:
	@command -v cargo >/dev/null || { \
		echo "Polygate is built with Rust, and cargo is not here. Install it from https://rustup.rs:"; \
		echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"; \
		exit 1; } >&2

run: cargo
	cargo run --locked --release -- serve

test: cargo
	tests/setup.sh
	cargo test --locked
	python3 tests/chaos/run.py
	python3 tests/deploys/run.py
	.venv/bin/python tests/readers/check.py
	.venv/bin/node tests/readers/check.mjs
	tests/spec/run.sh
	tests/clients/run.sh
	.venv/bin/python tests/h2/run.py

chaos: cargo
	cargo build --locked
	python3 tests/chaos/run.py --restarts $(RESTARTS) $(if $(SEED),--seed $(SEED))

deploys: cargo
	cargo build --locked
	python3 tests/deploys/run.py --reloads $(RELOADS) --deploys $(DEPLOYS) $(if $(SEED),--seed $(SEED))

soak: cargo
	tests/setup.sh
	cargo build --locked --release
	POLYGATE="$${CARGO_TARGET_DIR:-target}/release/polygate" \
		python3 tests/soak/run.py --seconds $(SOAK_SECONDS) $(if $(SEED),--seed $(SEED))

lint: cargo
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --version $(CARGO_DENY_VERSION)
	cargo deny --locked check --hide-inclusion-graph licenses bans sources
	@# The advisory database is a git repository, which some networks do not reach; its findings are never passed over.
	@if cargo deny fetch db; then cargo deny --locked check advisories; \
	else echo "lint: ADVISORIES NOT CHECKED: their database could not be fetched, see above" >&2; fi

bench: cargo
	bench/run.sh

fuzz: cargo
	@cargo +nightly --version >/dev/null 2>&1 || { \
		echo "fuzzing needs the nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --version $(CARGO_FUZZ_VERSION)
	@set -e; targets=$$(cargo +nightly fuzz list); for target in $$targets; do \
		echo "fuzz: $$target for $(FUZZ_SECONDS) seconds"; \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; done
