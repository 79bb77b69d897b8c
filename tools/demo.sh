#!/usr/bin/env bash
# Starts a throw-away Postgres with pg_steward, loads TPC-H data, runs a workload, and shows what was captured, what the cache does and which indexes would help.
# usage: PG_CONFIG=... tools/demo.sh start     (the demo; replaces an earlier one and leaves the server running)
#        PG_CONFIG=... tools/demo.sh show      (shows again what the running demo has captured)
#        tools/demo.sh stop                    (stops the server and deletes its data)
# DEMO_SCALE sets the amount of data: 1 is about 6 million order lines and 1 GB.

. "$(dirname "$0")/common.sh"

DEMO_DIR=$STEWARD_CACHE/demo
DATA_DIR=$DEMO_DIR/data
DEMO_SCALE=${DEMO_SCALE:-0.1}
STOP_SECONDS=60
# Where Postgres limits the path of a socket (107 bytes), less the socket's own name.
MAX_SOCKET_DIR=90

# A foreign PGHOST or PGOPTIONS must not lead this script to another server.
for name in ${!PG@}; do
    [ "$name" = PG_CONFIG ] || [ "$name" = PGRX_VERSION ] || unset "$name"
done

socket_dir() {
    if [ ${#DEMO_DIR} -le $MAX_SOCKET_DIR ]; then
        printf '%s\n' "$DEMO_DIR"
    else
        printf '/tmp/pg_steward-demo-%s\n' "$(id -u)"
    fi
}

bindir() {
    [ -n "${PG_CONFIG:-}" ] ||
        die "PG_CONFIG is not set" "Run 'make demo', or set it to the pg_config of a Postgres that has pg_steward."
    "$PG_CONFIG" --bindir
}

# Postgres refuses to run as root.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/ "$@"
    else
        "$@"
    fi
}

run_psql() { "$(bindir)/psql" -X -q -v ON_ERROR_STOP=1 -h "$(socket_dir)" -U postgres "$@"; }

# The pid of our own server: the one in the data directory's pid file, if it really works in that directory.
server_pid() {
    local pid
    [ -f "$DATA_DIR/postmaster.pid" ] || return 1
    pid=$(head -n 1 "$DATA_DIR/postmaster.pid")
    [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$DATA_DIR")" ] || return 1
    printf '%s\n' "$pid"
}

wait_gone() {
    local pid=$1 tenths=$((10 * $2))
    while kill -0 "$pid" 2>/dev/null; do
        [ $((tenths -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

stop_server() {
    local pid
    pid=$(server_pid) || return 0
    say "Stopping the demo's server (pid $pid)"
    kill -INT "$pid"
    wait_gone "$pid" "$STOP_SECONDS" && return
    say "It does not stop; ending it without a checkpoint"
    kill -QUIT "$pid"
    wait_gone "$pid" 10 || die "the demo's server (pid $pid) does not stop"
}

delete_data() {
    rm -rf "$DEMO_DIR"
    [ "$(socket_dir)" = "$DEMO_DIR" ] || rm -rf "$(socket_dir)"
}

own_dir() {
    mkdir -p "$1"
    chmod 700 "$1"
    [ "$(id -u)" != 0 ] || chown postgres:postgres "$1"
}

configuration() {
    cat <<CONF

# The demo of pg_steward: everything above is initdb's.
cluster_name = 'pg_steward demo'
listen_addresses = ''
unix_socket_directories = '$(socket_dir)'
shared_buffers = 128MB
max_wal_size = 2GB
fsync = off
log_min_messages = warning
log_line_prefix = '%m [%p] %q%u@%d %a '
shared_preload_libraries = 'pg_steward'
# The default is 1s. This data is small, and the demo is to be short.
pg_steward.slow_threshold = '100ms'
# Off by default, since parameters may be personal data. These are not.
pg_steward.capture_parameters = on
CONF
}

start_server() {
    local bin
    bin=$(bindir)
    say "Creating a throw-away Postgres in $DATA_DIR"
    own_dir "$DEMO_DIR"
    own_dir "$(socket_dir)"
    cd "$DEMO_DIR" || die "cannot enter $DEMO_DIR"
    logged "$STEWARD_CACHE/log/demo-initdb.log" \
        as_server "$bin/initdb" -A trust -N -U postgres -E UTF8 --locale=C.UTF-8 -D "$DATA_DIR"
    configuration >>"$DATA_DIR/postgresql.conf"
    say "Starting it, with pg_steward preloaded"
    if ! as_server "$bin/pg_ctl" start -s -w -t 60 -D "$DATA_DIR" -l "$DEMO_DIR/log" </dev/null; then
        tail -n 20 "$DEMO_DIR/log" >&2
        die "the demo's server does not start"
    fi
    run_psql -d postgres -c 'CREATE DATABASE demo'
    run_psql -d demo -c 'CREATE EXTENSION pg_steward'
}

build_tools() {
    say "Building the loader and the workload"
    cargo build --quiet --manifest-path "$REPO_DIR/Cargo.toml" -p steward-test --bin tpch-load --bin tpch-workload
}

run_tool() {
    local tool=$1 dsn
    shift
    dsn="host=$(socket_dir) user=postgres dbname=demo"
    "${CARGO_TARGET_DIR:-$REPO_DIR/target}/debug/$tool" "$dsn" "$@" >&2
}

# The worker writes events to their table once a second.
wait_for_worker() {
    local tenths=100 written
    while [ $((tenths -= 1)) -gt 0 ]; do
        written=$(run_psql -d demo -At -c "SELECT count(*) FROM steward.slow_queries WHERE outcome = 'terminated'")
        [ "$written" = 0 ] || return 0
        sleep 0.1
    done
    say "The last events have not been written after 10 seconds; they may be missing below"
}

show() {
    run_psql -d demo -f "$REPO_DIR/pg_test/demo/show.sql"
    run_psql -d demo -f "$REPO_DIR/pg_test/demo/cache.sql"
    run_psql -d demo -f "$REPO_DIR/pg_test/demo/advisor.sql"
}

say_how_to_go_on() {
    cat <<HOWTO

The server keeps running. Look around in it:
    $(bindir)/psql -h $(socket_dir) -U postgres demo
Stop it and delete its data:
    make demo-stop
HOWTO
}

start() {
    bindir >/dev/null
    mkdir -p "$STEWARD_CACHE/log"
    build_tools
    stop_server
    delete_data
    start_server
    say "Loading TPC-H data at scale $DEMO_SCALE"
    run_tool tpch-load "$DEMO_SCALE"
    say "Running the workload (about a minute at most)"
    run_tool tpch-workload
    wait_for_worker
    show
    say_how_to_go_on
}

stop() {
    local pid=''
    pid=$(server_pid) || say "No demo is running"
    stop_server
    delete_data
    [ -z "$pid" ] || say "The demo is stopped, its data deleted"
}

case ${1:-} in
    start) start ;;
    show) bindir >/dev/null && show ;;
    stop) stop ;;
    *) die "usage: tools/demo.sh start|show|stop" ;;
esac
