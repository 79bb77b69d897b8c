#!/usr/bin/env bash
# Prints README's table of settings, from a server that has pg_steward preloaded.
# usage: tools/settings-table.sh [psql's options, such as -h /tmp/... -p 5432 -U postgres]

. "$(dirname "$0")/common.sh"

# The defaults stand in their unit, as pg_settings has them.
TABLE="
SELECT '| setting | default | unit | who may change it | meaning |' UNION ALL
SELECT '|---|---|---|---|---|' UNION ALL
(SELECT format('| \`%s\` | %s | %s | %s | %s |', name, coalesce(nullif(boot_val, ''), '(empty)'), coalesce(unit, ''), context,
               concat_ws(' ', short_desc, nullif(extra_desc, '')))
 FROM pg_settings WHERE name LIKE 'pg\\_steward.%' ORDER BY name)"

psql -XAtq -v ON_ERROR_STOP=1 -d postgres "$@" -c "$TABLE"
