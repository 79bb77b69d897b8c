//! The way up from every release: a database with an old version, brought up to date, has the same catalog as one
//! with a fresh install.
//!
//! `sql/install/pg_steward--A.sql` is the frozen script of release A, `sql/pg_steward--A--B.sql` a step between two.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use steward_test::{Cluster, Install};

const LIBRARY: &str = "pg_steward";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every frozen release, by version.
fn releases() -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for path in scripts(&repository().join("sql/install"))? {
        let name = file_name(&path);
        let version = name.trim_start_matches("pg_steward--").trim_end_matches(".sql").to_owned();
        ensure!(!version.contains("--"), "{name} is no install script");
        found.push((version, path));
    }
    found.sort();
    Ok(found)
}

fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if file_name(&path).starts_with("pg_steward--") && file_name(&path).ends_with(".sql") {
            found.push(path);
        }
    }
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What Postgres knows of the extension's objects, a line each, in names rather than numbers.
const CATALOG: [(&str, &str); 9] = [
    ("functions", "SELECT pg_get_functiondef(oid) || coalesce(proacl::text, '') FROM pg_proc WHERE pronamespace = $1 AND prokind IN ('f', 'p')"),
    ("relations", "SELECT concat_ws(' ', relkind, relname, relpersistence, relrowsecurity, relispartition, reloptions, relacl,
                   pg_get_expr(relpartbound, oid), pg_get_partkeydef(oid)) FROM pg_class WHERE relnamespace = $1 AND NOT relispartition"),
    ("columns", "SELECT concat_ws(' ', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                 a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl)
                 FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
                 LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
                 WHERE c.relnamespace = $1 AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"),
    ("views", "SELECT relname || pg_get_viewdef(oid) FROM pg_class WHERE relnamespace = $1 AND relkind IN ('v', 'm')"),
    ("indexes", "SELECT pg_get_indexdef(i.indexrelid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
                 WHERE c.relnamespace = $1 AND NOT c.relispartition"),
    ("constraints", "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(o.oid) FROM pg_constraint AS o
                     JOIN pg_class AS c ON c.oid = o.conrelid WHERE c.relnamespace = $1 AND NOT c.relispartition"),
    ("types", "SELECT concat_ws(' ', t.typname, t.typtype, t.typacl, (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum
               WHERE enumtypid = t.oid)) FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
               WHERE t.typnamespace = $1 AND t.typname !~ '_[0-9]{8}$'"),
    ("comments", "SELECT pg_describe_object(classoid, objoid, objsubid) || ': ' || description FROM pg_description
                  WHERE pg_identify_object(classoid, objoid, objsubid)::text LIKE '%steward%'"),
    ("members", "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
                 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_steward')
                   AND pg_describe_object(classid, objid, objsubid) !~ '_[0-9]{8}(\\[\\])?$'"),
];

/// The extension's part of a database's catalog. Partitions are left out: the worker makes them by the day.
fn catalog(cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    let mut client = cluster.client(database)?;
    client.batch_execute("SET search_path = pg_catalog")?;
    let mut lines = Vec::new();
    for (kind, sql) in CATALOG {
        let query = format!("SELECT * FROM ({}) AS q(line) ORDER BY 1", sql.replace("$1", "'steward'::regnamespace"));
        for row in client.query(&query, &[]).with_context(|| kind.to_owned())? {
            lines.push(format!("{kind}: {}", row.get::<_, Option<String>>(0).unwrap_or_default()));
        }
    }
    let extra = "SELECT extversion || coalesce(extconfig::regclass[]::text, '') || coalesce(extcondition::text, '') \
                 || (SELECT coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname = 'steward') \
                 FROM pg_extension WHERE extname = 'pg_steward'";
    lines.push(client.query_one(extra, &[])?.get(0));
    Ok(lines)
}

/// Install scripts of old releases are not installed with the extension: they go there for the time of the test, under
/// a version of their own, so that the installed one of the same name is left alone.
struct Frozen {
    paths: Vec<PathBuf>,
}

impl Frozen {
    /// `version` is installable as `frozen<version>`, and from there every step up is known.
    fn lay(install: &Install, version: &str, script: &Path) -> Result<Self> {
        let folder = Path::new(&install.ask("--sharedir")?).join("extension");
        let mut frozen = Self { paths: vec![] };
        frozen.copy(script, folder.join(format!("pg_steward--frozen{version}.sql")))?;
        for step in scripts(&repository().join("sql"))? {
            let name = file_name(&step);
            if let Some(target) = name.strip_prefix(&format!("pg_steward--{version}--")) {
                frozen.copy(&step, folder.join(format!("pg_steward--frozen{version}--{target}")))?;
            }
        }
        Ok(frozen)
    }

    fn copy(&mut self, from: &Path, to: PathBuf) -> Result<()> {
        fs::copy(from, &to).with_context(|| to.display().to_string())?;
        self.paths.push(to);
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

fn ensure_same(version: &str, fresh: &[String], upgraded: &[String]) -> Result<()> {
    let only = |these: &[String], those: &[String], sign: &str| -> String {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let differences = only(fresh, upgraded, "-") + &only(upgraded, fresh, "+");
    ensure!(differences.is_empty(), "from {version} (-: fresh install, +: upgraded):\n{differences}");
    Ok(())
}

#[test]
fn each_release_comes_up_to_the_fresh_install() -> Result<()> {
    let cluster = Cluster::new("upgrade").preload(LIBRARY).start()?;
    cluster.psql("postgres", "CREATE DATABASE fresh")?;
    cluster.psql("fresh", "CREATE EXTENSION pg_steward")?;
    let fresh = catalog(&cluster, "fresh")?;
    ensure!(fresh.len() > 200, "{} lines are no catalog", fresh.len());
    let current = cluster.psql("fresh", "SELECT extversion FROM pg_extension WHERE extname = 'pg_steward'")?;
    let releases = releases()?;
    ensure!(releases.iter().any(|(version, _)| *version == current), "{current} has no frozen script in sql/install");
    for (version, script) in &releases {
        let _frozen = Frozen::lay(cluster.installation(), version, script)?;
        let database = format!("from_{version}");
        cluster.psql("postgres", &format!("CREATE DATABASE \"{database}\""))?;
        cluster.psql(&database, &format!("CREATE EXTENSION pg_steward VERSION 'frozen{version}'"))?;
        if *version == current {
            // No step leads from a release to itself: its script alone must make what is installed now.
            let rename = format!("UPDATE pg_extension SET extversion = '{current}' WHERE extname = 'pg_steward'");
            cluster.psql(&database, &rename)?;
        } else {
            cluster.psql(&database, &format!("ALTER EXTENSION pg_steward UPDATE TO '{current}'"))?;
        }
        ensure_same(version, &fresh, &catalog(&cluster, &database)?)?;
        cluster.psql(&database, "SELECT count(*) FROM steward.statements, steward.slow_queries")?;
    }
    cluster.check_log(&[])
}

/// The steps that Postgres finds between the versions it knows must reach the current one from each release.
#[test]
fn a_path_leads_from_each_release_to_the_current_version() -> Result<()> {
    let cluster = Cluster::new("paths").start()?;
    let sql = "SELECT count(*) FROM pg_extension_update_paths('pg_steward') AS p, pg_available_extensions AS a \
               WHERE a.name = 'pg_steward' AND p.target = a.default_version AND p.path IS NULL \
                 AND p.source NOT LIKE 'frozen%'";
    ensure!(cluster.psql("postgres", sql)? == "0", "some version cannot be brought up to date");
    Ok(())
}
