#!/usr/bin/env bash
# Builds pg_steward (release) for Postgres N and puts it into N's private tree; prints the tree's pg_config.
# usage: tools/install-ext.sh 15|17|18
#        tools/install-ext.sh --into /path/to/pg_config     into any Postgres of a supported version
# Quick when nothing changed.

. "$(dirname "$0")/common.sh"

# cargo leaves the library of every feature set under one name, so majors that share a target directory
# would build it anew at each change between them. 15, the one in daily use, has the default directory.
target_dir_of() {
    local target_dir=${CARGO_TARGET_DIR:-$REPO_DIR/target}
    if [ "$1" = 15 ]; then
        printf '%s\n' "$target_dir"
    else
        printf '%s/pg%s\n' "$target_dir" "$1"
    fi
}

build_package() {
    local major=$1 pg_config=$2 out_dir=$3 cargo_pgrx
    cargo_pgrx=$(find_cargo_pgrx) || die "cargo-pgrx $PGRX_VERSION is missing" "Run tools/setup.sh first."
    say "Building pg_steward for Postgres $major (some minutes at first, seconds when little changed)"
    rm -rf "$out_dir"
    # Its messages about copying into the package are noise; cargo's own go to stderr and stay.
    (
        cd "$REPO_DIR"
        export PGRX_PG_CONFIG_PATH=$pg_config CARGO_TARGET_DIR=$4
        exec "$cargo_pgrx" pgrx package --pg-config "$pg_config" --no-default-features --features "pg$major" \
            --out-dir "$out_dir" >"$out_dir.log"
    ) ||
        { cat "$out_dir.log" >&2; die "building pg_steward for Postgres $major failed"; }
}

# A changed file is put beside the old one and moved over it: a running server that has the old one
# mapped keeps it. An unchanged one is left alone.
install_file() {
    local source=$1 target=$2/$(basename "$1")
    if cmp -s "$source" "$target"; then
        return
    fi
    mkdir -p "$2"
    install -m "$3" "$source" "$target.new"
    mv -f "$target.new" "$target"
    say "Installed $target"
}

# Scripts that this checkout no longer makes would be found by CREATE EXTENSION, and a test could pass
# because of them. In a tree of ours only: elsewhere they may serve a database that is not upgraded yet.
remove_leftovers() {
    local package_dir=$1 extension_dir file
    extension_dir=$("$2" --sharedir)/extension
    for file in "$extension_dir"/pg_steward--*.sql; do
        if [ -e "$file" ] && [ ! -e "$package_dir$extension_dir/$(basename "$file")" ]; then
            rm -f "$file"
        fi
    done
}

install_package() {
    local package_dir=$1 pg_config=$2 library_dir extension_dir file
    library_dir=$("$pg_config" --pkglibdir)
    extension_dir=$("$pg_config" --sharedir)/extension
    [ -w "$extension_dir" ] && [ -w "$library_dir" ] ||
        die "no permission to write into $extension_dir and $library_dir" "Run this as the owner of that Postgres."
    for file in "$package_dir$extension_dir"/pg_steward*; do
        install_file "$file" "$extension_dir" 644
    done
    install_file "$package_dir$library_dir/pg_steward.so" "$library_dir" 755
}

main() {
    local major pg_config target_dir out_dir
    if [ "${1:-}" = --into ]; then
        pg_config=${2:?usage: tools/install-ext.sh --into /path/to/pg_config}
        pg_config=$(command -v "$pg_config") || die "there is no pg_config at '${2:-}'" \
            "Give the one of the Postgres to install into: make install PG_CONFIG=/path/to/pg_config"
        major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        require_major "$major"
    else
        major=${1:-}
        pg_config=$("$REPO_DIR/tools/pg-tree.sh" "$major")
    fi
    target_dir=$(target_dir_of "$major")
    out_dir=$target_dir/package/pg$major
    mkdir -p "$target_dir/package"
    exec 9>"$target_dir/package/.lock"
    flock 9
    build_package "$major" "$pg_config" "$out_dir" "$target_dir"
    install_package "$out_dir" "$pg_config"
    [ "$1" = --into ] || remove_leftovers "$out_dir" "$pg_config"
    printf '%s\n' "$pg_config"
}

main "$@"
