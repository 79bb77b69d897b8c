#!/usr/bin/env bash
# What a cached result costs: hits, misses and writes, with Redis and pgpool-II beside it in the same run.
# usage: PG_CONFIG=... [QUICK=1] tools/bench-cache.sh                    all of it, within 12 minutes (QUICK: 2 to 3)
#        PG_CONFIG=... tools/bench-cache.sh hits --cells json,hand ...   one part; see --help
# Prints figures and passes no judgement on times.

. "$(dirname "$0")/common.sh"

# Redis and pgpool-II are unpacked here, not installed: their packages would start servers of the system.
NEIGHBOURS=$STEWARD_CACHE/neighbours

# The folder where cargo leaves its binaries, wherever CARGO_TARGET_DIR or a config file puts it.
target_dir() {
    cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# Is the program $1 there, installed or unpacked?
find_neighbour() {
    [ -n "$(PATH="$PATH:/usr/sbin" command -v "$1")" ] || [ -x "$NEIGHBOURS/usr/bin/$1" ] || [ -x "$NEIGHBOURS/usr/sbin/$1" ]
}

# Unpacks the package $1 and what it needs that this machine has not.
unpack() {
    local needed
    needed=$(apt-get install --simulate --no-install-recommends -y "$1" 2>/dev/null | awk '/^Inst / { print $2 }')
    [ -n "$needed" ] || return 1
    mkdir -p "$NEIGHBOURS/packages"
    # shellcheck disable=SC2086  # one word a package
    (cd "$NEIGHBOURS/packages" && apt-get download $needed) >"$NEIGHBOURS/packages/$1.log" 2>&1 || return 1
    for package in "$NEIGHBOURS"/packages/*.deb; do
        dpkg-deb -x "$package" "$NEIGHBOURS" || return 1
    done
}

# Finds a program ($1) of a package ($2) or gets it; without it its cells are left out.
get_neighbour() {
    if ! find_neighbour "$1"; then
        have apt-get || return 0
        say "Unpacking Debian's $2 into $NEIGHBOURS"
        unpack "$2" || say "Cannot get $2: its cells will be left out"
    fi
}

main() {
    local quick=() bench library
    : "${PG_CONFIG:?set it to the pg_config of a Postgres with pg_steward installed}"
    [ -z "${QUICK:-}" ] || quick=(--quick)
    cd "$REPO_DIR"
    say "Building the benchmark"
    cargo build --quiet --release -p steward-test --bin bench-cache
    bench=$(target_dir)/release/bench-cache
    get_neighbour redis-server redis-server
    get_neighbour pgpool pgpool2
    if [ -d "$NEIGHBOURS/usr" ]; then
        export PATH=$PATH:$NEIGHBOURS/usr/bin:$NEIGHBOURS/usr/sbin
        library=$NEIGHBOURS/usr/lib/$(uname -m)-linux-gnu
        export BENCH_NEIGHBOUR_LIBRARIES=$library
    fi
    exec "$bench" "${quick[@]}" "$@"
}

main "$@"
