#!/usr/bin/env bash
# Shows that the random test of the result cache can fail: breaks the protocol of versions in a copy of the source, one
# mutation at a time, and expects the test to find wrong answers.
# usage: tools/mutate-cache.sh [MUTATION...]      default: all
#   none           the protocol is as it is: the test must pass
#   unregistered   a writer is not registered before it becomes visible; the bump after it is all there is
#   early          a writer bumps before its commit instead of after it
#   own            a transaction that has written to a table is given results from before
#   trusting       the latest version is taken for what every snapshot sees
# In each of them, also in 'none', a writer dawdles between becoming visible and its bump: what the protocol has to bridge
# is then long enough to be met by chance, and bridged it must be.
# The copy, its builds and a Postgres of its own stay in MUTATE_DIR (default: mutate in the cache).
# STEWARD_STRESS_READS (default 100000) says how long each is tried.

. "$(dirname "$0")/common.sh"

MUTATIONS=(none unregistered early own trusting)
# What the mutations change: touched at each turn, since cargo goes by times.
MUTATED=(src/cache/commits.rs core/src/cache/versions.rs)
MUTATE_DIR=${MUTATE_DIR:-$STEWARD_CACHE/mutate}
COPY_DIR=$MUTATE_DIR/source

# Replaces the line that matches $2 in the file $1 by $3; exactly one must.
replace() {
    local file=$COPY_DIR/$1 count
    count=$(grep -cE "$2" "$file" || true)
    [ "$count" = 1 ] || die "$count lines of $1 match '$2', not one" "The code has changed: adapt the mutation."
    sed -i -E "s~$2~$3~" "$file"
}

PAUSE='std::thread::sleep(core::time::Duration::from_micros(300));'

dawdle() { replace src/cache/commits.rs '^fn bump\(\) \{$' "fn bump() { $PAUSE"; }

mutate_none() { :; }

mutate_unregistered() {
    replace src/cache/commits.rs '^ *xid => versions\.register\(\*slot, xid\),$' '_ => Registration::OVERFLOW,'
    replace core/src/cache/versions.rs '^ *self\.memory\.add\(start \+ OVERFLOW, u64::MAX\);$' ''
}

mutate_early() {
    replace src/cache/commits.rs '^ *xid => versions\.register\(\*slot, xid\),$' \
        "xid => { let place = versions.register(*slot, xid); versions.bump(*slot, xid); $PAUSE place }"
    replace core/src/cache/versions.rs '^ *self\.bump\(slot, xid\);$' 'let _ = xid;'
}

mutate_own() {
    replace src/cache/commits.rs '^ *if writes::transaction_id\(\) == 0 \{$' 'if writes::transaction_id() < u64::MAX {'
}

mutate_trusting() {
    replace core/src/cache/versions.rs '^ *let exact = version <= .*$' \
        'let exact = version < u64::MAX || self.sees_latest(start, version, snapshot);'
}

copy_source() {
    local file
    mkdir -p "$COPY_DIR"
    tar -C "$REPO_DIR" --exclude=./target --exclude=./.git -cf - . | tar -C "$COPY_DIR" -xf -
    for file in "${MUTATED[@]}"; do touch "$COPY_DIR/$file"; done
}

# The mutant goes into a Postgres of its own.
install_mutant() {
    mkdir -p "$MUTATE_DIR/cache"
    ln -sfn "$(dirname "$(dirname "$(find_cargo_pgrx)")")" "$MUTATE_DIR/cache/cargo-pgrx"
    STEWARD_CACHE=$MUTATE_DIR/cache CARGO_TARGET_DIR=$MUTATE_DIR/target "$COPY_DIR/tools/install-ext.sh" 15
}

# Prints the test's own lines; its status is the test's.
try_mutant() {
    local log=$MUTATE_DIR/$1.log status=0
    PG_CONFIG=$2 cargo test --quiet --locked -p steward-test --test cache_stress -- --nocapture >"$log" 2>&1 || status=$?
    grep -E '^seed|^[0-9]+ reads' "$log" || tail -n 20 "$log"
    return $status
}

main() {
    local mutation pg_config expected passed failed=()
    [ $# != 0 ] || set -- "${MUTATIONS[@]}"
    export STEWARD_STRESS_READS=${STEWARD_STRESS_READS:-100000}
    cd "$REPO_DIR"
    cargo test --quiet --locked -p steward-test --test cache_stress --no-run
    for mutation in "$@"; do
        declare -F "mutate_$mutation" >/dev/null || die "there is no mutation '$mutation'; there are: ${MUTATIONS[*]}"
        say "Mutation '$mutation'"
        copy_source
        dawdle
        "mutate_$mutation"
        pg_config=$(install_mutant)
        passed=no expected=no
        [ "$mutation" != none ] || expected=yes
        if try_mutant "$mutation" "$pg_config"; then passed=yes; fi
        if [ "$passed" = "$expected" ]; then
            say "Mutation '$mutation': $([ $passed = yes ] && echo passes, as it must || echo killed)"
        else
            failed+=("$mutation")
            say "Mutation '$mutation': $([ $passed = yes ] && echo survives || echo fails, and must not)"
        fi
    done
    [ ${#failed[@]} = 0 ] || die "not as expected: ${failed[*]}" "The logs are in $MUTATE_DIR."
}

main "$@"
