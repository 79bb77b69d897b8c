#!/usr/bin/env bash
# A million random reads of the result cache, beside writers by every way, each compared with the query itself.
# usage: PG_CONFIG=... tools/stress-cache.sh [READS] [SEED]

. "$(dirname "$0")/common.sh"

main() {
    : "${PG_CONFIG:?set it to the pg_config of a Postgres with pg_steward installed}"
    export STEWARD_STRESS_READS=${1:-1000000}
    [ -z "${2:-}" ] || export STEWARD_STRESS_SEED=$2
    cd "$REPO_DIR"
    say "Reading $STEWARD_STRESS_READS times (a million take some minutes)"
    cargo test --quiet --locked -p steward-test --test cache_stress -- --nocapture
}

main "$@"
