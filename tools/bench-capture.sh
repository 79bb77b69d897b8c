#!/usr/bin/env bash
# What statement capture costs one backend, against stock Postgres and pg_stat_statements in the same run.
# usage: PG_CONFIG=... [QUICK=1] tools/bench-capture.sh                    all of it, within 15 minutes
#        PG_CONFIG=... tools/bench-capture.sh callgrind select --arms ...   one part; see --help
# Prints figures and passes no judgement on times. Memory is another matter: it fails when it grows without bound.

. "$(dirname "$0")/common.sh"

# The folder where cargo leaves its binaries, wherever CARGO_TARGET_DIR or a config file puts it.
target_dir() {
    cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

main() {
    local quick=() bench
    : "${PG_CONFIG:?set it to the pg_config of a Postgres with pg_steward installed}"
    [ -z "${QUICK:-}" ] || quick=(--quick)
    cd "$REPO_DIR"
    say "Building the benchmark"
    cargo build --quiet --release -p steward-test --bin bench-capture
    bench=$(target_dir)/release/bench-capture
    if [ $# -gt 0 ]; then
        exec "$bench" "$@"
    fi
    say "CPU time of a backend"
    "$bench" cpu "${quick[@]}"
    say "Instructions"
    if have valgrind; then
        "$bench" callgrind select "${quick[@]}"
        [ -n "${QUICK:-}" ] || "$bench" callgrind update unique --arms stock,stockB,pgss,steward
    else
        say "Left out: valgrind is not installed (as root: apt-get install valgrind)"
    fi
    say "Memory"
    "$bench" memory "${quick[@]}"
}

main "$@"
