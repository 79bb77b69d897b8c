#!/usr/bin/env bash
# Installs what building and testing pg_steward needs and this machine lacks, and nothing else.
# usage: tools/setup.sh [--source-builds]
#   --source-builds   also what compiling Postgres 17 and 18 takes
# Quick when nothing is missing. As an ordinary user without sudo it prints what to install.

. "$(dirname "$0")/common.sh"

# Needed by name: headers and libraries, which no command gives away.
PACKAGES=(postgresql-15 postgresql-client-15 postgresql-server-dev-15 clang libclang-dev libc6-dev)
# Needed as a command, whoever provides it: command:package.
TOOLS=(cc:gcc make:make pkg-config:pkg-config)
# Since 17 the release tarballs hold no generated parser, so bison, flex and a full perl are needed.
SOURCE_BUILD_PACKAGES=(perl)
SOURCE_BUILD_TOOLS=(bison:bison flex:flex bzip2:bzip2)

CLUSTER_CONF=/etc/postgresql-common/createcluster.conf

package_installed() {
    [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
}

missing_packages() {
    local entry
    for entry in "${PACKAGES[@]}"; do
        package_installed "$entry" || printf '%s\n' "$entry"
    done
    for entry in "${TOOLS[@]}"; do
        have "${entry%%:*}" || printf '%s\n' "${entry##*:}"
    done
}

check_machine() {
    have apt-get || die "this machine has no apt-get: the set-up knows Debian only" \
        "Elsewhere, install Postgres 15 with its server headers, clang and libclang by your own means and see CONTRIBUTING.md."
}

# The prefix for commands that need root: nothing, sudo, or a clear refusal.
find_root_prefix() {
    AS_ROOT=()
    [ "$(id -u)" = 0 ] && return
    if have sudo && sudo -n true 2>/dev/null; then
        AS_ROOT=(sudo -n)
        return
    fi
    die "packages are missing, and installing them takes root" "Run as root:" \
        "  apt-get update && apt-get install --no-install-recommends $*" "then run this again."
}

apt_install() {
    logged "$LOG_DIR/apt-install.log" "${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

# Debian's server package starts a cluster on port 5432 when it is first installed. Nobody asked for
# one, so it is told not to, for this installation only.
install_server_without_cluster() {
    say "Installing postgresql-15 (without the system-wide cluster that Debian would start)"
    apt_install postgresql-common
    "${AS_ROOT[@]}" cp -p "$CLUSTER_CONF" "$CLUSTER_CONF.pg_steward"
    trap 'restore_cluster_conf' EXIT
    printf 'create_main_cluster = false\n' | "${AS_ROOT[@]}" tee -a "$CLUSTER_CONF" >/dev/null
    apt_install postgresql-15
    restore_cluster_conf
    trap - EXIT
}

restore_cluster_conf() {
    "${AS_ROOT[@]}" mv -f "$CLUSTER_CONF.pg_steward" "$CLUSTER_CONF"
}

check_candidates() {
    local package
    for package in "$@"; do
        apt-cache show "$package" >/dev/null 2>&1 || die "no package source of this machine has '$package'" \
            "Debian 12 has Postgres 15; on another release add https://wiki.postgresql.org/wiki/Apt first."
    done
}

install_packages() {
    local package others=()
    find_root_prefix "$@"
    say "Missing packages: $*"
    say "Reading the package lists"
    logged "$LOG_DIR/apt-update.log" "${AS_ROOT[@]}" apt-get -o DPkg::Lock::Timeout=300 update
    check_candidates "$@"
    for package in "$@"; do
        if [ "$package" = postgresql-15 ]; then
            install_server_without_cluster
        else
            others+=("$package")
        fi
    done
    if [ ${#others[@]} != 0 ]; then
        say "Installing ${others[*]}"
        apt_install "${others[@]}"
    fi
}

check_cargo() {
    have cargo || die "cargo is not installed (or not on PATH)" \
        "Install Rust with rustup (https://rustup.rs); Debian 12's own package (1.63) is too old."
    local found needed
    found=$(cd "$REPO_DIR" && cargo --version 2>&1) || die "cargo does not run here: $found" \
        "rust-toolchain.toml names the toolchain: 'rustup toolchain install' in the checkout fetches it."
    found=$(cut -d' ' -f2 <<<"$found")
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO_DIR/Cargo.toml")
    if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
        die "cargo $found is too old: pg_steward needs Rust $needed or newer" \
            "Install a current Rust with rustup (https://rustup.rs)."
    fi
}

# Into the cache, not into the user's own cargo: another project may need another version there.
install_cargo_pgrx() {
    find_cargo_pgrx >/dev/null && return
    say "Installing cargo-pgrx $PGRX_VERSION (1 to 2 minutes on 2 cores)"
    # Unoptimised: it compiles in a third of the time, and waits for rustc and copies files as fast.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 logged "$LOG_DIR/cargo-pgrx.log" cargo install --locked --root "$STEWARD_CACHE/cargo-pgrx" \
        "cargo-pgrx@$PGRX_VERSION"
}

main() {
    local missing
    case ${1:-} in
        "") ;;
        --source-builds) PACKAGES+=("${SOURCE_BUILD_PACKAGES[@]}") TOOLS+=("${SOURCE_BUILD_TOOLS[@]}") ;;
        *) die "unknown option '$1'" ;;
    esac
    check_machine
    check_cargo
    LOG_DIR=$STEWARD_CACHE/log
    mkdir -p "$LOG_DIR"
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} = 0 ] && find_cargo_pgrx >/dev/null; then
        return
    fi
    take_lock setup
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
    install_cargo_pgrx
}

main "$@"
