# A throw-away cluster for shell scripts; sourced after common.sh.
# The server runs as the user postgres when we are root, because Postgres refuses to run as root.

SERVER_USER=postgres

# The caller's PGOPTIONS, PGDATABASE and the like must not reach the tests. (Ours begin with PG, too.)
for name in ${!PG@}; do
    case $name in
        PG_CONFIG | PGRX_*) ;;
        *) unset "$name" ;;
    esac
done

as_server_user() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && runuser -u "$SERVER_USER" -- "$@")
    else
        "$@"
    fi
}

# Makes a cluster in $CLUSTER_DIR (new, private, under $TMPDIR or /tmp) with the preload and the settings
# read from stdin, starts it, and points libpq at it. Needs PG_CONFIG.
start_cluster() {
    local bindir
    bindir=$("$PG_CONFIG" --bindir)
    CLUSTER_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pg_steward-$1-XXXXXX")
    [ "$(id -u)" != 0 ] || chown "$SERVER_USER" "$CLUSTER_DIR"
    as_server_user "$bindir/initdb" -D "$CLUSTER_DIR/data" -U postgres --auth=trust --locale=C \
        --encoding=UTF8 --no-sync >"$CLUSTER_DIR.initdb.log" 2>&1 ||
        { cat "$CLUSTER_DIR.initdb.log" >&2; die "initdb failed"; }
    rm -f "$CLUSTER_DIR.initdb.log"
    cat >>"$CLUSTER_DIR/data/postgresql.conf"
    printf "listen_addresses = ''\nunix_socket_directories = '%s'\nfsync = off\n" "$CLUSTER_DIR" \
        >>"$CLUSTER_DIR/data/postgresql.conf"
    export PGHOST=$CLUSTER_DIR PGPORT=5432 PGUSER=postgres
    as_server_user "$bindir/pg_ctl" -D "$CLUSTER_DIR/data" -l "$CLUSTER_DIR/server.log" -w -t 60 start \
        >/dev/null || { tail -n 30 "$CLUSTER_DIR/server.log" >&2; die "the server does not start"; }
}

# Stops the server and removes its directory; harmless when nothing was started.
drop_cluster() {
    [ -n "${CLUSTER_DIR:-}" ] || return 0
    if [ -f "$CLUSTER_DIR/data/postmaster.pid" ]; then
        as_server_user "$("$PG_CONFIG" --bindir)/pg_ctl" -D "$CLUSTER_DIR/data" -m immediate -w stop >/dev/null 2>&1 || true
    fi
    rm -rf "$CLUSTER_DIR"
    CLUSTER_DIR=''
}
