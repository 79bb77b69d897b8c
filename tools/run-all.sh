#!/usr/bin/env bash
# Runs the server tests on every supported Postgres, then clippy against the headers of the newer ones.
# usage: tools/run-all.sh

. "$(dirname "$0")/common.sh"

# A broken major must not hide what the others say.
summary=() failed=0
for major in 15 17 18; do
    status=0
    "$REPO_DIR/tools/pg-tree.sh" "$major" >/dev/null || status=$?
    if [ "$status" = "$UNAVAILABLE" ] && [ "$major" != 15 ]; then
        # An archive in mid-update lists a source that it does not have. That says nothing of this code, and must not
        # pass for a test either.
        summary+=("Postgres $major: NOT TESTED, no package source of this machine has it")
    elif "$REPO_DIR/tools/run-suite.sh" "$major" && "$REPO_DIR/tools/lint.sh" clippy "$major"; then
        summary+=("Postgres $major: passed")
    else
        summary+=("Postgres $major: FAILED")
        failed=1
    fi
done
printf '%s\n' "${summary[@]}"
exit "$failed"
