# Shared by the scripts of this directory; sourced, never run.
# What the scripts report goes to stderr, so that stdout stays free for their one answer.

set -euo pipefail

# shellcheck disable=SC2034  # read by the scripts that source this file
REPO_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PGRX_VERSION=0.18.1

# Everything that is worth keeping between runs lives here, outside the checkout.
# Root's must not lie under /root: the server runs as postgres and has to read it.
if [ -z "${STEWARD_CACHE:-}" ]; then
    if [ "$(id -u)" = 0 ]; then
        STEWARD_CACHE=/var/cache/pg_steward
    else
        STEWARD_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pg_steward
    fi
fi
export STEWARD_CACHE

# A cautious umask (077 is common for root) would hide the trees from the user postgres.
umask 022

say() { printf '==> %s\n' "$*" >&2; }

die() { give_up 1 "$@"; }

# Ends with the status $1, the error $2 and what else there is to say.
give_up() {
    local status=$1
    printf 'error: %s\n' "$2" >&2
    shift 2
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit "$status"
}

# The status of a script that needs what no package source of this machine has (EX_UNAVAILABLE of sysexits.h).
UNAVAILABLE=69

have() { command -v "$1" >/dev/null 2>&1; }

# Runs "$@" with its output in the log file $1, which is shown (its end) only on failure.
logged() {
    local log=$1 status=0
    shift
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" != 0 ]; then
        tail -n 40 "$log" >&2
        die "'$*' failed (exit status $status); the whole log is $log"
    fi
}

# Takes the lock $1 for the rest of this script: two runs that build the same thing take turns.
take_lock() {
    local lock_fd
    mkdir -p "$STEWARD_CACHE"
    exec {lock_fd}>"$STEWARD_CACHE/.lock-$1"
    if ! flock -n "$lock_fd"; then
        say "Waiting for another run that holds the lock '$1'"
        flock "$lock_fd"
    fi
}

require_major() {
    case ${1:-} in
        15 | 17 | 18) ;;
        *) die "'${1:-}' is not a major version of Postgres that is supported here: give 15, 17 or 18" ;;
    esac
}

tree_dir() { printf '%s/pg%s\n' "$STEWARD_CACHE" "$1"; }

# Debian nests its versions below lib/postgresql; a build from source has a plain bin/.
tree_pg_config() {
    if [ "$1" = 15 ]; then
        printf '%s/lib/postgresql/15/bin/pg_config\n' "$(tree_dir 15)"
    else
        printf '%s/bin/pg_config\n' "$(tree_dir "$1")"
    fi
}

# cargo-pgrx of exactly the pinned version: the user's own if it is that one, else ours in the cache.
# It is called by its path, because `cargo pgrx` would find the user's first.
find_cargo_pgrx() {
    local candidate
    for candidate in "$STEWARD_CACHE/cargo-pgrx/bin/cargo-pgrx" \
        "${CARGO_HOME:-$HOME/.cargo}/bin/cargo-pgrx" "$(command -v cargo-pgrx || true)"; do
        if [ -x "$candidate" ] && [ "$("$candidate" pgrx --version 2>/dev/null)" = "cargo-pgrx $PGRX_VERSION" ]; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}
