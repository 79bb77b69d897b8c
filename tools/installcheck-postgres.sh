#!/usr/bin/env bash
# Postgres's own regression suite with everything of pg_steward switched on, against a run without it on the same server:
# whatever a test prints has to be the same to the byte. Core, isolation, PL/pgSQL and contrib; about 7 minutes.
# usage: PG_CONFIG=... tools/installcheck-postgres.sh [--library NAME] [--keep DIR] [SUITE...]
#   SUITE           core, sanity, isolation, plpgsql or a contrib module, such as hstore; all of them by default
#   --library NAME  preload this library instead of pg_steward, to try this script itself
#   --keep DIR      put the outputs and the server logs there
# What Postgres's expected files say does not matter: the source may be of another minor version than the server.
# A file that differs is run again on both sides; only a second difference counts, for some tests depend on timing.

. "$(dirname "$0")/common.sh"
. "$REPO_DIR/tools/cluster.sh"

# Modules whose tests need a server set up for them alone, or a library preloaded that changes other tests.
NEEDS_OWN_SERVER=' basic_archive pg_stat_statements sepgsql '

# Suites whose tests show every table of their database, or every change made there: they run without the extension in
# it, and so without the rows that its worker writes, but with the same capture. 'sanity' stands in for the one such test
# of core.
WITHOUT_EXTENSION=' sanity test_decoding test_decoding-isolation '
SHOWN_BY_SANITY=core/results/type_sanity.out

# A suite takes some 2 minutes; one that hangs is broken off, and its missing outputs are differences.
SUITE_LIMIT_S=900

# What the tests of core, isolation and contrib ask of a server; the same on both sides. compute_query_id = regress is
# "auto" but for EXPLAIN (VERBOSE), which else prints the query id that any library of this kind makes the server compute.
common_conf() {
    cat <<'CONF'
compute_query_id = regress
max_connections = 100
max_prepared_transactions = 10
wal_level = logical
max_replication_slots = 4
logical_decoding_work_mem = 64kB
autovacuum = off
max_wal_size = 2GB
CONF
}

# Everything on, with no limit that would end the capture during the run.
subject_conf() {
    printf "shared_preload_libraries = '%s'\n" "$LIBRARY"
    [ "$LIBRARY" = pg_steward ] || return 0
    cat <<'CONF'
pg_steward.track = all
pg_steward.slow_threshold = 0
pg_steward.sample_rate = 1
pg_steward.capture_parameters = on
pg_steward.slow_limit_per_minute = 0
pg_steward.overhead_limit = 0
CONF
}

# The C functions of core's tests, and the modules those expect beside them.
build_test_library() {
    local source_dir=$1 name pgxs
    pgxs=$("$PG_CONFIG" --pgxs)
    mkdir "$WORK_DIR/lib"
    cp "$source_dir/src/test/regress/regress.c" "$WORK_DIR/lib"
    logged "$WORK_DIR/lib/build.log" make -C "$WORK_DIR/lib" -f "$pgxs" PGXS="$pgxs" PG_CONFIG="$PG_CONFIG" \
        MODULES=regress with_llvm=no
    for name in autoinc refint; do
        cp "$("$PG_CONFIG" --pkglibdir)/$name.so" "$WORK_DIR/lib"
    done
}

# Prints the variable $2 of the makefile of contrib module $1.
module_variable() {
    printf 'include Makefile\nprint-variable:\n\t@echo $(%s)\n' "$2" |
        make -s -C "$SOURCE_DIR/contrib/$1" -f - USE_PGXS=1 PG_CONFIG="$PG_CONFIG" print-variable 2>/dev/null
}

# Contrib modules that have tests and are installed in the server, one a line.
contrib_modules() {
    local makefile module libdir sharedir
    libdir=$("$PG_CONFIG" --pkglibdir)
    sharedir=$("$PG_CONFIG" --sharedir)
    for makefile in "$SOURCE_DIR"/contrib/*/Makefile; do
        module=$(basename "$(dirname "$makefile")")
        if [ ! -e "$sharedir/extension/$module.control" ] && [ ! -e "$libdir/$module.so" ]; then
            continue
        fi
        if [[ $NEEDS_OWN_SERVER != *" $module "* ]] && grep -qE '^(REGRESS|ISOLATION) *=' "$makefile"; then
            printf '%s\n' "$module"
        fi
    done
}

# Runs one of Postgres's test drivers ($2, below its test tools) on input directory $3, results into $1.
run_driver() {
    local out_dir=$1 driver=$2 input_dir=$3 options=()
    shift 3
    [ $# -gt 0 ] || return 0
    [ "$MAJOR" -lt 16 ] || options+=(--expecteddir="$input_dir")
    if [ "$SIDE $LIBRARY" = 'subject pg_steward' ] && [[ $WITHOUT_EXTENSION != *" $(basename "$out_dir") "* ]]; then
        options+=(--load-extension=pg_steward)
    fi
    as_server_user mkdir -p "$out_dir"
    # Tests read data files below the directory they start in. The exit status tells about the expected files, which is
    # not the question here.
    as_server_user timeout "$SUITE_LIMIT_S" sh -c 'cd "$1" && shift && exec "$@"' sh "$input_dir" \
        "$TEST_TOOLS/$driver" --bindir="$("$PG_CONFIG" --bindir)" --dlpath="$WORK_DIR/lib" \
        --inputdir="$input_dir" --outputdir="$out_dir" --max-concurrent-tests=20 "${options[@]}" "$@" \
        >"$out_dir.log" 2>&1 || true
}

run_contrib() {
    local module=$1 input_dir=$SOURCE_DIR/contrib/$1 tests specs options
    read -ra tests <<<"$(module_variable "$module" REGRESS)"
    read -ra specs <<<"$(module_variable "$module" ISOLATION)"
    # Modules name extensions to load in both variables; the rest of these is for other ways to run the tests.
    read -ra options <<<"$(module_variable "$module" 'filter --load-extension%,$(REGRESS_OPTS) $(ISOLATION_OPTS)')"
    run_driver "$SIDE_DIR/$module" regress/pg_regress "$input_dir" ${tests[@]:+--dbname=contrib_regression "${tests[@]}"}
    run_driver "$SIDE_DIR/$module-isolation" isolation/pg_isolation_regress "$input_dir" \
        ${specs[@]:+--dbname=isolation_regression "${options[@]}" "${specs[@]}"}
}

run_suite() {
    local regress_dir=$SOURCE_DIR/src/test/regress isolation_dir=$SOURCE_DIR/src/test/isolation
    local plpgsql_dir=$SOURCE_DIR/src/pl/plpgsql/src tests
    case $1 in
        core)
            run_driver "$SIDE_DIR/core" regress/pg_regress "$regress_dir" --dbname=regression \
                --schedule="$regress_dir/parallel_schedule"
            ;;
        isolation)
            run_driver "$SIDE_DIR/isolation" isolation/pg_isolation_regress "$isolation_dir" \
                --dbname=isolation_regression --schedule="$isolation_dir/isolation_schedule" \
                prepared-transactions prepared-transactions-cic
            ;;
        sanity)
            run_driver "$SIDE_DIR/sanity" regress/pg_regress "$regress_dir" --dbname=regression_sanity \
                test_setup type_sanity opr_sanity misc_sanity
            ;;
        plpgsql)
            mapfile -t tests < <(cd "$plpgsql_dir/sql" && printf '%s\n' *.sql | sed 's/\.sql$//')
            run_driver "$SIDE_DIR/plpgsql" regress/pg_regress "$plpgsql_dir" --dbname=pl_regression "${tests[@]}"
            ;;
        *) run_contrib "$1" ;;
    esac
}

# Runs suites on a cluster of its own: side plain or subject, attempt $2. In a subshell.
run_side() {
    local suite
    SIDE=$1
    SIDE_DIR=$WORK_DIR/$1-$2
    shift 2
    trap 'drop_cluster' EXIT
    as_server_user mkdir "$SIDE_DIR"
    if [ "$SIDE" = plain ]; then
        start_cluster plain < <(common_conf)
    else
        start_cluster subject < <(common_conf; subject_conf)
    fi
    for suite in "$@"; do
        run_suite "$suite"
    done
    cp "$CLUSTER_DIR/server.log" "$SIDE_DIR/server.log"
}

# Runs suites on both sides at once, attempt $1, and waits for both.
run_both() {
    local plain subject
    (run_side plain "$@") &
    plain=$!
    (run_side subject "$@") &
    subject=$!
    wait "$plain" || die "the run without $LIBRARY broke off"
    wait "$subject" || die "the run with $LIBRARY broke off"
}

# A result file with what is known to differ between the sides removed: the directory it was made in.
normalised() { sed -E "s#$WORK_DIR/(plain|subject)-[12]#OUTPUT#g" "$1" 2>/dev/null || echo "(no such file)"; }

same() { cmp -s <(normalised "$1") <(normalised "$2"); }

# Result files of attempt $1 that the sides do not agree on, as paths below the side's directory.
differing_files() {
    local file
    { cd "$WORK_DIR/plain-$1" && find . -path '*/results/*'; cd "$WORK_DIR/subject-$1" && find . -path '*/results/*'; } |
        grep '\.out$' | grep -vF "$SHOWN_BY_SANITY" | sort -u | while read -r file; do
        same "$WORK_DIR/plain-$1/$file" "$WORK_DIR/subject-$1/$file" || printf '%s\n' "${file#./}"
    done
}

# The suites that made these result files, each once.
suites_of() { sed 's#/.*##; /^isolation$/!s/-isolation$//' | sort -u; }

# Runs the suites of the differing files $@ again; says what came of each, and fails when one differs again.
judge() {
    local file status=0 suites
    mapfile -t suites < <(printf '%s\n' "$@" | suites_of)
    say "Running again, because outputs differ: ${suites[*]}"
    run_both 2 "${suites[@]}"
    for file in "$@"; do
        if same "$WORK_DIR/subject-2/$file" "$WORK_DIR/plain-2/$file" ||
            same "$WORK_DIR/subject-2/$file" "$WORK_DIR/plain-1/$file"; then
            printf '%s differed once and not again: it depends on timing\n' "$file"
        else
            printf '%s DIFFERS:\n' "$file"
            diff -U2 <(normalised "$WORK_DIR/plain-2/$file") <(normalised "$WORK_DIR/subject-2/$file") |
                tail -n +3 | head -n 60 || true
            status=1
        fi
    done
    return $status
}

# A server that crashed and came back is a defect, whatever the tests printed.
check_crashes() {
    local lines
    lines=$(grep -hE 'PANIC:|TRAP:|was terminated by signal|terminating any other active' "$WORK_DIR"/subject-*/server.log |
        sort -u | head -n 10 || true)
    [ -z "$lines" ] || { printf 'The server with %s crashed:\n%s\n' "$LIBRARY" "$lines"; return 1; }
}

# What pg_steward itself complained about in the server's log, which no output shows.
check_complaints() {
    local lines
    lines=$(grep -hE '(WARNING|ERROR|FATAL):.*steward' "$WORK_DIR"/subject-*/server.log | grep -vF "$WORK_DIR" |
        sed -E 's/^.*(WARNING|ERROR|FATAL): /\1: /' | sort | uniq -c | sort -rn | head -n 10 || true)
    [ -z "$lines" ] || printf 'Lines of the server log that name pg_steward (to be looked at):\n%s\n' "$lines"
}

# "core 222, isolation 117, ..." with the contrib modules together.
count_tests() {
    find "$WORK_DIR/plain-1" -path '*/results/*.out' -printf '%P\n' | awk -F/ '
        $1 == "core" || $1 == "sanity" || $1 == "isolation" || $1 == "plpgsql" { tests[$1]++; next }
        { contrib++; sub(/-isolation$/, "", $1); if (!seen[$1]++) modules++ }
        END {
            for (name in tests) printf "%s %d, ", name, tests[name]
            printf "contrib %d in %d modules\n", contrib, modules
        }'
}

report() {
    local status=0 different
    [ -n "$(find "$WORK_DIR/plain-1" -path '*/results/*.out' -print -quit)" ] ||
        die "no test ran without $LIBRARY" "See the logs with --keep DIR."
    mapfile -t different < <(differing_files 1)
    [ ${#different[@]} = 0 ] || judge "${different[@]}" || status=1
    check_crashes || status=1
    check_complaints
    printf 'Tests run with and without %s: %s: %s\n' "$LIBRARY" "$(count_tests)" \
        "$([ "$status" = 0 ] && echo 'the outputs are the same' || echo 'the outputs DIFFER')"
    return $status
}

finish() {
    if [ -n "$KEEP_DIR" ]; then
        mkdir -p "$KEEP_DIR" && cp -a "$WORK_DIR/." "$KEEP_DIR"
    fi
    rm -rf "$WORK_DIR"
}

main() {
    local suites=()
    LIBRARY=pg_steward KEEP_DIR=''
    : "${PG_CONFIG:?set it to the pg_config of a Postgres with pg_steward installed}"
    while [ $# -gt 0 ]; do
        case $1 in
            --library) LIBRARY=${2:?--library needs a name}; shift ;;
            --keep) KEEP_DIR=${2:?--keep needs a directory}; shift ;;
            -*) die "unknown option '$1'" "See the head of $0." ;;
            *) suites+=("$1") ;;
        esac
        shift
    done
    MAJOR=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    SOURCE_DIR=$("$REPO_DIR/tools/pg-source.sh" "$MAJOR")
    TEST_TOOLS=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/../test" && pwd)
    WORK_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pg_steward-installcheck-XXXXXX")
    trap finish EXIT
    build_test_library "$SOURCE_DIR"
    [ "$(id -u)" != 0 ] || chown -R "$SERVER_USER" "$WORK_DIR"
    if [ ${#suites[@]} = 0 ]; then
        mapfile -t suites < <(printf '%s\n' core sanity isolation plpgsql; contrib_modules)
    fi
    say "Running ${#suites[@]} suites of Postgres $MAJOR with and without $LIBRARY, both at once"
    run_both 1 "${suites[@]}"
    report
}

main "$@"
