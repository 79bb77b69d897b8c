# The entrances of pg_steward; each does all of its own set-up. `make help` lists them.

PG_CONFIG ?= pg_config
DEMO_SCALE ?=
export DEMO_SCALE

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test test-all bench-cache stress-cache bench-capture installcheck-postgres lint fmt install clean setup

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian's Postgres 15 with headers, clang, cargo-pgrx
	@tools/setup.sh

demo: setup ## start a throw-away server with TPC-H data and show what pg_steward captures and caches (DEMO_SCALE=...)
	@PG_CONFIG=$$(tools/install-ext.sh 15) && PG_CONFIG=$$PG_CONFIG tools/demo.sh start

demo-stop: ## stop the demo's server and remove its data
	@tools/demo.sh stop

test: setup ## every test, on Postgres 15
	@tools/run-core.sh
	@tools/run-suite.sh 15

test-all: setup ## the server tests on Postgres 15, 17 and 18 (builds 17 and 18 at first, 3 minutes each)
	@tools/run-all.sh

bench-cache: setup ## what a cached result costs, against SELECT 1, a look-up, a hand-kept table, pgpool-II and Redis
	@PG_CONFIG=$$(tools/install-ext.sh 15) && PG_CONFIG=$$PG_CONFIG tools/bench-cache.sh

stress-cache: setup ## a million cached reads beside writers of every kind, each compared with the query itself
	@PG_CONFIG=$$(tools/install-ext.sh 15) && PG_CONFIG=$$PG_CONFIG tools/stress-cache.sh

bench-capture: setup ## what statement capture costs, against stock Postgres and pg_stat_statements
	@PG_CONFIG=$$(tools/install-ext.sh 15) && PG_CONFIG=$$PG_CONFIG tools/bench-capture.sh

installcheck-postgres: setup ## Postgres's own regression suite with capture on, compared with a run without it
	@PG_CONFIG=$$(tools/install-ext.sh 15) && PG_CONFIG=$$PG_CONFIG tools/installcheck-postgres.sh

lint: setup ## formatting, clippy, the rules of the architecture
	@tools/lint.sh

fmt: ## format the Rust code
	@cargo fmt --all

install: setup ## build and install into the Postgres of PG_CONFIG (default: pg_config on PATH)
	@tools/install-ext.sh --into '$(PG_CONFIG)'

clean: ## remove what the build made in this checkout
	@cargo clean
	@rm -rf target
