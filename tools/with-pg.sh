#!/usr/bin/env bash
# Runs a command with the environment that compiling against Postgres N takes (and PG_CONFIG set).
# usage: tools/with-pg.sh 15|17|18 command [argument...]
# e.g.   tools/with-pg.sh 17 cargo check --no-default-features --features pg17

. "$(dirname "$0")/common.sh"

pg_config=$("$REPO_DIR/tools/pg-tree.sh" "${1:-}")
shift
# pgrx's build script takes this path instead of asking $PGRX_HOME, so `cargo pgrx init` is not needed.
export PGRX_PG_CONFIG_PATH=$pg_config PG_CONFIG=$pg_config
exec "$@"
