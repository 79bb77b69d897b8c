#!/usr/bin/env bash
# Runs the tests that need a server on Postgres N, and prints one closing line for each layer.
# usage: tools/run-suite.sh 15|17|18 [layer...]
#   layers: regress    pg_test/regress, the SQL surface against golden output
#           isolation  pg_test/isolation, interleavings of sessions
#           t          pg_test/t, whole servers: restart, crash, standby, preload order
# With STEWARD_RUN_DIR set, a passed suite leaves a mark there, and is not run again within that run.

. "$(dirname "$0")/common.sh"
. "$REPO_DIR/tools/cluster.sh"

ALL_LAYERS=(regress isolation t)

# What every server-side layer starts its server with; a directory's own postgresql.conf is added.
server_conf() {
    printf "shared_preload_libraries = 'pg_steward'\nlog_line_prefix = '%%m [%%p] %%b: '\nlog_min_messages = warning\n"
    printf "autovacuum_naptime = 1d\nmax_prepared_transactions = 5\ntimezone = 'UTC'\nlc_messages = 'C'\n"
    if [ -f "$1/postgresql.conf" ]; then
        cat "$1/postgresql.conf"
    fi
}

# The tests of a directory in the order of its file 'schedule', or else by name, one after the other.
test_selection() {
    local dir=$1 pattern=$2 file
    if [ -f "$dir/schedule" ]; then
        printf -- '--schedule=%s\n' "$dir/schedule"
        return
    fi
    for file in "$dir"/$pattern; do
        [ -e "$file" ] || die "there is no test in $dir"
        file=${file##*/}
        printf '%s\n' "${file%.*}"
    done
}

# Errors of client sessions belong to the tests; from any other process a line at WARNING or above, and
# a panic or failed assertion anywhere, is a defect that the expected output cannot show.
check_server_log() {
    local suspicious
    suspicious=$(grep -E ' (WARNING|ERROR|FATAL|PANIC):|TRAP:|terminated by signal' "$CLUSTER_DIR/server.log" |
        grep -vE 'client backend: (WARNING|ERROR|FATAL):' || true)
    if [ -n "$suspicious" ]; then
        printf '%s\n' "The server's log has lines at WARNING or above which no test expects:" "$suspicious"
        return 1
    fi
}

# Runs pg_regress or pg_isolation_regress (path $1 below Postgres's installed test tools) on directory $2.
run_pg_regress() {
    local tool dir=$2 name status=0 selection options=()
    name=$(basename "$dir")
    mapfile -t selection < <(test_selection "$dir" "$3")
    [ ${#selection[@]} != 0 ] || return 1
    # Since 16 the expected files have an option of their own.
    [ "$MAJOR" = 15 ] || options+=(--expecteddir="$dir")
    tool=$(dirname "$("$PG_CONFIG" --pgxs)")/../../src/test/$1
    start_cluster "$name" < <(server_conf "$dir")
    mkdir "$WORK_DIR/$name"
    "$tool" --bindir="$("$PG_CONFIG" --bindir)" --inputdir="$dir" --outputdir="$WORK_DIR/$name" \
        --dlpath="$("$PG_CONFIG" --pkglibdir)" --host="$PGHOST" --port="$PGPORT" --user="$PGUSER" \
        --dbname="steward_$name" --load-extension=pg_steward "${options[@]}" "${selection[@]}" || status=1
    if [ -s "$WORK_DIR/$name/regression.diffs" ]; then
        head -n 300 "$WORK_DIR/$name/regression.diffs"
    fi
    check_server_log || status=1
    drop_cluster
    return $status
}

layer_regress() { run_pg_regress regress/pg_regress "$REPO_DIR/pg_test/regress" 'sql/*.sql'; }

layer_isolation() { run_pg_regress isolation/pg_isolation_regress "$REPO_DIR/pg_test/isolation" 'specs/*.spec'; }

layer_t() { (cd "$REPO_DIR" && cargo test --locked --no-fail-fast -p steward-test); }

# A layer's closing line is repeated at the end, where it can be seen beside the others'.
run_layer() {
    local layer=$1 started=$SECONDS verdict=passed
    say "Postgres $MAJOR: layer '$layer'"
    # In a subshell, so that what ends one layer does not end the others.
    if ! (trap drop_cluster EXIT; set -e; "layer_$layer" </dev/null); then
        verdict=FAILED
        FAILED=1
    fi
    SUMMARY+=("$(printf 'Postgres %s: %-9s %s (%d s)' "$MAJOR" "$layer" "$verdict" $((SECONDS - started)))")
}

main() {
    require_major "${1:-}"
    MAJOR=$1
    shift
    local layers=("$@") layer mark=${STEWARD_RUN_DIR:+$STEWARD_RUN_DIR/passed-$MAJOR}
    if [ -n "$mark" ] && [ -e "$mark" ] && [ $# = 0 ]; then
        say "Postgres $MAJOR: the whole suite passed earlier in this run, see above"
        cat "$mark"
        return
    fi
    [ $# != 0 ] || layers=("${ALL_LAYERS[@]}")
    for layer in "${layers[@]}"; do
        declare -F "layer_$layer" >/dev/null || die "there is no layer '$layer'; there are: ${ALL_LAYERS[*]}"
    done
    "$REPO_DIR/tools/setup.sh"
    PG_CONFIG=$("$REPO_DIR/tools/install-ext.sh" "$MAJOR")
    export PG_CONFIG
    # Stays after the run: a failed test's output is wanted, a new test's becomes its expected file.
    WORK_DIR=$REPO_DIR/target/suite/pg$MAJOR
    rm -rf "$WORK_DIR"
    mkdir -p "$WORK_DIR"
    FAILED=0 SUMMARY=()
    for layer in "${layers[@]}"; do
        run_layer "$layer"
    done
    printf '%s\n' "${SUMMARY[@]}"
    [ "$FAILED" = 0 ] ||
        die "the suite failed on Postgres $MAJOR" "What the SQL tests printed is in $WORK_DIR."
    [ -z "$mark" ] || [ $# != 0 ] || printf '%s\n' "${SUMMARY[@]}" >"$mark"
}

main "$@"
