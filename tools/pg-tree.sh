#!/usr/bin/env bash
# Makes the private tree of Postgres N in the cache, unless it is there, and prints its pg_config.
# usage: tools/pg-tree.sh 15|17|18
# 15 is a relocated copy of Debian's server (Postgres finds its files relative to its binary);
# 17 and 18 are compiled from the source packages of newer Debian suites.
# A tree counts as finished only with its marker, which is written last.

. "$(dirname "$0")/common.sh"

# 17 is built as users run it. 18 has assertions on: a misuse of memory contexts, locks or snapshots by
# an extension then stops the server instead of passing unseen. Never measure on 18's tree.
configure_options() {
    local common='--without-icu --without-readline --without-zlib'
    case $1 in
        17) printf '%s\n' "$common" ;;
        18) printf '%s --enable-cassert\n' "$common" ;;
    esac
}

# What a finished tree's marker says. When it no longer agrees, the tree is made anew.
tree_identity() {
    if [ "$1" = 15 ]; then
        dpkg-query -W -f='${Package} ${Version}\n' postgresql-15 postgresql-server-dev-15
    else
        configure_options "$1"
    fi
}

tree_is_finished() {
    local marker
    marker=$(tree_dir "$1")/.finished
    [ -f "$marker" ] && [ "$(cat "$marker")" = "$(tree_identity "$1")" ]
}

copy_debian_server() {
    local prefix
    prefix=$(tree_dir 15)
    say "Copying Debian's Postgres 15 to $prefix"
    mkdir -p "$prefix/lib/postgresql" "$prefix/share/postgresql" "$prefix/include"
    cp -a /usr/lib/postgresql/15 "$prefix/lib/postgresql/"
    cp -a /usr/share/postgresql/15 "$prefix/share/postgresql/"
    cp -a /usr/include/postgresql "$prefix/include/"
    # A copy of a system that already has the extension would hide a missing file of ours.
    rm -f "$prefix"/share/postgresql/15/extension/pg_steward* "$prefix"/lib/postgresql/15/lib/pg_steward.so
}

build_from_source() {
    local major=$1 source_dir build_dir log
    "$REPO_DIR/tools/setup.sh" --source-builds
    source_dir=$("$REPO_DIR/tools/pg-source.sh" "$major")
    log=$STEWARD_CACHE/log/build-$major.log
    build_dir=$(mktemp -d "$STEWARD_CACHE/.build-XXXXXX")
    # shellcheck disable=SC2064  # the directory of now is meant
    trap "rm -rf '$build_dir'" EXIT
    say "Building Postgres $major from $source_dir (about 3 minutes on 2 cores)"
    logged "$log" compile_and_install "$source_dir" "$build_dir" "$(tree_dir "$major")" "$(configure_options "$major")"
}

# Out of the source tree, so that the source stays clean for the regression run.
compile_and_install() {
    local source_dir=$1 build_dir=$2 prefix=$3 options=$4 jobs
    jobs=$(nproc)
    cd "$build_dir" || return
    # shellcheck disable=SC2086  # options are words
    "$source_dir/configure" --prefix="$prefix" CFLAGS=-O2 $options &&
        make -j"$jobs" world-bin &&
        make install-world-bin &&
        make -C src/test/regress install &&
        make -C src/test/isolation install
}

make_tree() {
    local major=$1 prefix
    prefix=$(tree_dir "$major")
    rm -rf "$prefix"
    mkdir -p "$prefix" "$STEWARD_CACHE/log"
    if [ "$major" = 15 ]; then
        copy_debian_server
    else
        build_from_source "$major"
    fi
    tree_identity "$major" >"$prefix/.finished"
}

main() {
    require_major "${1:-}"
    if ! tree_is_finished "$1"; then
        take_lock "tree-$1"
        tree_is_finished "$1" || make_tree "$1"
    fi
    tree_pg_config "$1"
}

main "$@"
