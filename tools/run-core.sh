#!/usr/bin/env bash
# Runs the tests that need no server: everything that steward-core decides.
# usage: tools/run-core.sh

. "$(dirname "$0")/common.sh"

say "Core: unit and property tests"
cd "$REPO_DIR"
cargo test --locked -p steward-core
