#!/usr/bin/env bash
# Checks the code without running it. Every check runs, so that one visit shows all there is to mend.
# usage: tools/lint.sh             everything, clippy for Postgres 15
#        tools/lint.sh clippy N    clippy alone, against the headers of Postgres N

. "$(dirname "$0")/common.sh"
cd "$REPO_DIR"

check_format() { cargo fmt --all --check; }

check_lock_file() { cargo metadata --locked --format-version 1 >/dev/null; }

check_clippy() {
    "$REPO_DIR/tools/with-pg.sh" "$1" cargo clippy --locked --workspace --all-targets \
        --no-default-features --features "pg$1" -- -D warnings -D clippy::too_many_lines
}

check_clippy_15() { check_clippy 15; }

check_scripts() {
    local script status=0
    for script in tools/*.sh .ci/run; do
        bash -n "$script" || status=1
    done
    return $status
}

# grep's findings ("file:line:text" on stdin) are complaints: prints them under the title $1 and fails.
complain() {
    local findings
    findings=$(cat)
    [ -z "$findings" ] || { printf '%s:\n%s\n' "$1" "$findings"; return 1; }
}

rust_sources() { find src core/src -name '*.rs' "$@"; }

# Comments and strings may speak of unsafe code.
check_unsafe_fence() {
    { rust_sources ! -path 'src/pg/*' -exec grep -nE '(^|[^[:alnum:]_"`])unsafe([[:space:]]*\{| fn| impl| extern)' {} + |
        grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' || true; } | complain "unsafe code outside src/pg"
}

capabilities() {
    find src -mindepth 1 -maxdepth 1 -type d ! -name pg -printf '%f\n' | sort
}

check_dependencies() {
    local capability status=0
    { grep -n '^pgrx' core/Cargo.toml || true; } | complain "core must not depend on pgrx" || status=1
    for capability in $(capabilities); do
        { find src -name '*.rs' ! -path src/lib.rs ! -path "src/$capability/*" \
            -exec grep -nE "\\bcrate::(\{[^}]*\\b)?$capability\\b" {} + || true; } |
            complain "only lib.rs and itself may name the capability '$capability'" || status=1
    done
    return $status
}

check_sizes() {
    local file lines limit status=0
    while read -r file; do
        limit=500
        [ "$file" != src/lib.rs ] || limit=80
        # A file's unit tests stand at its end and do not count.
        lines=$(awk '/^#\[cfg\(test\)\]/ { exit } { n++ } END { print n + 0 }' "$file")
        [ "$lines" -le "$limit" ] || { printf '%s has %s lines, the limit is %s\n' "$file" "$lines" "$limit"; status=1; }
    done < <(rust_sources; find pg_test -name '*.rs')
    return $status
}

check_leftovers() {
    { grep -rnE '\b(TODO|FIXME|XXX|HACK)\b|\b(todo|unimplemented|dbg)!|#\[ignore' --include=*.rs --include=*.sql \
        src core sql pg_test || true; } | complain "left over"
}

CHECKS=(format lock_file scripts unsafe_fence dependencies sizes leftovers clippy_15)

run_all_checks() {
    local check failed=()
    for check in "${CHECKS[@]}"; do
        say "lint: ${check//_/ }"
        "check_$check" || failed+=("${check//_/ }")
    done
    if have cargo-deny; then
        say "lint: licences and advisories"
        cargo deny check || failed+=(deny)
    fi
    [ ${#failed[@]} = 0 ] || die "lint failed: ${failed[*]}"
    echo "lint: all ${#CHECKS[@]} checks passed"
}

case ${1:-all} in
    all) run_all_checks ;;
    clippy)
        require_major "${2:-}"
        say "lint: clippy, Postgres $2"
        check_clippy "$2" ;;
    *) die "unknown argument '$1'" ;;
esac
