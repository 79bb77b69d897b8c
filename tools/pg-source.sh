#!/usr/bin/env bash
# Prints the directory with the unpacked source of Postgres N, as Debian ships it; fetches it at first.
# usage: tools/pg-source.sh 15|17|18
# The apt sources are derived from the machine's own and used in a private apt directory: the system's
# apt is neither changed nor asked for root.

. "$(dirname "$0")/common.sh"

# Where the majors that are newer than Debian 12 are found, older suites first.
NEWER_SUITES=(trixie forky sid)

# Lists the machine's Debian entries as lines "[signed-by=...] URI suite", from both formats apt knows.
# Arguments: the sources files. A mirror is recognised by serving the machine's own release.
debian_entries() {
    awk -v codename="$CODENAME" '
        function flush_stanza(   i, j, n, m, uri, suite) {
            if (types ~ /(^| )deb( |$)/ && components ~ /(^| )main( |$)/ && enabled != "no") {
                n = split(uris, uri, " "); m = split(suites, suite, " ")
                for (i = 1; i <= n; i++) for (j = 1; j <= m; j++)
                    if (index(suite[j], codename) == 1) print "[" signed "]", uri[i], suite[j]
            }
            types = uris = suites = components = signed = enabled = ""
        }
        FNR == 1 { flush_stanza() }
        FILENAME ~ /\.sources$/ && /^[ \t]*$/ { flush_stanza() }
        FILENAME ~ /\.sources$/ && /^[A-Za-z-]+:/ {
            field = tolower($1); value = $0; sub(/^[^:]*:[ \t]*/, "", value)
            if (field == "types:") types = value
            if (field == "uris:") uris = value
            if (field == "suites:") suites = value
            if (field == "components:") components = value
            if (field == "enabled:") enabled = tolower(value)
            if (field == "signed-by:" && value ~ /^\//) signed = "signed-by=" value
        }
        FILENAME ~ /\.list$/ && $1 == "deb" {
            options = ""; rest = $0; sub(/^deb[ \t]+/, "", rest)
            if (rest ~ /^\[/) { options = rest; sub(/\].*/, "", options); sub(/^\[/, "", options); sub(/^[^]]*\][ \t]*/, "", rest) }
            split(rest, part, /[ \t]+/)
            keep = ""; if (match(options, /signed-by=[^ ]+/)) keep = substr(options, RSTART, RLENGTH)
            if (index(part[2], codename) == 1 && (" " rest " ") ~ / main /) print "[" keep "]", part[1], part[2]
        }
        END { flush_stanza() }
    ' "$@" | sed 's/^\[\] //'
}

sources_files() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -s "$file" ] && printf '%s\n' "$file"
    done
    return 0
}

# Writes the deb-src lines for suite $1: "own" stands for every suite of the machine's release.
write_sources() {
    local suite=$1 files
    mapfile -t files < <(sources_files)
    [ ${#files[@]} != 0 ] || die "apt has no sources on this machine"
    if [ "$suite" = own ]; then
        debian_entries "${files[@]}" | sed 's/^/deb-src /; s/$/ main/' >"$APT_DIR/sources.list"
    else
        debian_entries "${files[@]}" | awk -v own="$CODENAME" -v suite="$suite" \
            '$NF == own { $NF = suite; print "deb-src", $0, "main"; exit }' >"$APT_DIR/sources.list"
    fi
    [ -s "$APT_DIR/sources.list" ] || die "none of apt's sources serves Debian '$CODENAME'"
}

# Runs apt-get or apt-cache ($1) with its lists and downloads in our own directory. A mirror that was frozen
# some weeks ago serves as well (its signatures are still checked): these servers are for tests only.
private_apt() {
    local tool=$1
    shift
    "$tool" -o Dir::Etc::SourceList="$APT_DIR/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State="$APT_DIR/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$APT_DIR/cache" -o APT::Sandbox::User=root \
        -o Acquire::Check-Valid-Until=false \
        -o Acquire::Languages=none "$@" 2>>"$LOG"
}

# The versions to try, best first: the one installed, then from the newest down. An archive may list
# versions whose files are gone (a snapshot, a mirror in mid-update), so one alone will not do.
source_versions() {
    local package=$1 installed
    installed=$(dpkg-query -W -f='${Version}' "$package" 2>/dev/null || true)
    {
        [ -z "$installed" ] || printf '%s\n' "$installed"
        private_apt apt-cache showsrc --only-source "$package" | sed -n 's/^Version: //p' | sort -Vru
    } | awk '!seen[$0]++'
}

# Fetches the tarball of postgresql-N from suite $2 into the current directory; fails if it has none.
fetch_from_suite() {
    local package=postgresql-$1 version
    mkdir -p "$APT_DIR/state/lists/partial" "$APT_DIR/cache/archives/partial"
    write_sources "$2"
    private_apt apt-get -qq update || return 1
    for version in $(source_versions "$package"); do
        if private_apt apt-get -qq source --download-only --tar-only "$package=$version" >>"$LOG"; then
            say "Fetched the source of $package $version"
            return 0
        fi
    done
    return 1
}

fetch_tarball() {
    local major=$1 suite
    local suites=("${NEWER_SUITES[@]}")
    [ "$major" != 15 ] || suites=(own)
    for suite in "${suites[@]}"; do
        say "Looking for the source of Postgres $major in Debian's suite '${suite/#own/$CODENAME}'"
        if fetch_from_suite "$major" "$suite"; then
            return 0
        fi
    done
    tail -n 20 "$LOG" >&2
    give_up "$UNAVAILABLE" "found no source package of Postgres $major in: ${suites[*]}" "The whole log is $LOG."
}

# Leaves $1 complete or absent: unpacked beside it, moved into place last.
make_source_dir() {
    local major=$1 source_dir=$2 tarball
    APT_DIR=$(mktemp -d "$STEWARD_CACHE/.fetch-XXXXXX")
    trap 'rm -rf "$APT_DIR"' EXIT
    mkdir "$APT_DIR/download" "$APT_DIR/unpacked"
    (cd "$APT_DIR/download" && fetch_tarball "$major")
    tarball=$(find "$APT_DIR/download" -name "postgresql-${major}_*.orig.tar.*" ! -name '*.asc' | head -n 1)
    [ -n "$tarball" ] || die "apt fetched no tarball of Postgres $major" "The whole log is $LOG."
    say "Unpacking $(basename "$tarball")"
    tar -xf "$tarball" -C "$APT_DIR/unpacked" --strip-components=1 --no-same-owner
    mv "$APT_DIR/unpacked" "$source_dir"
}

main() {
    require_major "${1:-}"
    local source_dir=$STEWARD_CACHE/src/postgresql-$1
    CODENAME=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    if [ ! -d "$source_dir" ]; then
        mkdir -p "$STEWARD_CACHE/src" "$STEWARD_CACHE/log"
        LOG=$STEWARD_CACHE/log/source-$1.log
        : >"$LOG"
        take_lock "source-$1"
        [ -d "$source_dir" ] || make_source_dir "$1" "$source_dir"
    fi
    printf '%s\n' "$source_dir"
}

main "$@"
