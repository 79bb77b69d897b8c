//! A Postgres error passes through pg_steward unchanged: the same failing statements give the same errors, in every
//! field, whether pg_steward is preloaded with everything switched on or not at all.

use anyhow::{Result, ensure};
use postgres::error::{DbError, ErrorPosition};
use postgres::{Client, SimpleQueryMessage};
use steward_test::Cluster;

const SETUP: &str = include_str!("errors_setup.sql");
const CASES: &str = include_str!("errors_cases.sql");
const PSQL_CASES: &str = include_str!("errors_psql.sql");

/// Everything that pg_steward can do, for every statement.
const EVERYTHING: &str = "\
pg_steward.track = all
pg_steward.slow_threshold = 0
pg_steward.sample_rate = 1
pg_steward.capture_parameters = on
pg_steward.slow_limit_per_minute = 0
pg_steward.overhead_limit = 0
pg_steward.flush_interval = 0
pg_steward.repeat_threshold = 2
";
const NEIGHBOURS: &str = "\
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
";

/// What clients saw of all cases, one line or paragraph for each.
#[derive(Default)]
struct Seen {
    simple: Vec<String>,
    extended: Vec<String>,
    psql: Vec<String>,
    log: Vec<String>,
}

/// The server is restarted with these libraries and lines, and all cases are run in a fresh database.
fn run_arm(cluster: &Cluster, libraries: &str, lines: &str) -> Result<Seen> {
    cluster.append_conf(&format!("shared_preload_libraries = '{libraries}'\n{lines}"))?;
    cluster.restart()?;
    cluster
        .psql("postgres", "DROP DATABASE IF EXISTS errors; DROP ROLE IF EXISTS errors_app; CREATE DATABASE errors")?;
    cluster.psql("errors", SETUP)?;
    let mark = cluster.log_mark();
    let seen = Seen {
        simple: run_cases(&mut cluster.client("errors")?, simple),
        extended: run_cases(&mut cluster.client("errors")?, extended),
        psql: run_psql(cluster)?,
        log: client_lines(&cluster.log_lines_since(mark)),
    };
    ensure!(cluster.is_running());
    Ok(seen)
}

fn run_cases(client: &mut Client, run: fn(&mut Client, &str) -> String) -> Vec<String> {
    statements(CASES).iter().map(|sql| format!("{sql}\n=> {}", run(client, sql))).collect()
}

fn run_psql(cluster: &Cluster) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for verbosity in ["default", "verbose"] {
        let setting = format!("VERBOSITY={verbosity}");
        for script in [CASES, PSQL_CASES] {
            let output = cluster.psql_output("errors", script, &["-v", &setting, "-v", "SHOW_CONTEXT=always"])?;
            for stream in [output.stdout, output.stderr] {
                lines.extend(String::from_utf8_lossy(&stream).lines().map(str::to_owned));
            }
        }
    }
    Ok(lines)
}

/// The script's statements; one ends with a line that ends in a semicolon outside dollar quotes.
fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut statement = String::new();
    for line in script.lines().filter(|line| !line.starts_with("--") && !line.is_empty()) {
        statement += line;
        if line.ends_with(';') && statement.matches("$$").count().is_multiple_of(2) {
            found.push(std::mem::take(&mut statement));
        } else {
            statement.push('\n');
        }
    }
    found
}

fn simple(client: &mut Client, sql: &str) -> String {
    match client.simple_query(sql) {
        Ok(messages) => messages.iter().map(answer).collect::<Vec<_>>().join(" "),
        Err(error) => described(&error),
    }
}

fn answer(message: &SimpleQueryMessage) -> String {
    match message {
        SimpleQueryMessage::Row(row) => format!("({})", row.get(0).unwrap_or("NULL")),
        SimpleQueryMessage::CommandComplete(rows) => format!("ok {rows}"),
        _ => String::new(),
    }
}

fn extended(client: &mut Client, sql: &str) -> String {
    match client.query(sql, &[]) {
        Ok(rows) => format!("ok {}", rows.len()),
        Err(error) => described(&error),
    }
}

fn described(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| format!("not from the server: {error}"), every_field)
}

fn every_field(error: &DbError) -> String {
    let position = match error.position() {
        None => "none".to_owned(),
        Some(ErrorPosition::Original(at)) => format!("at {at}"),
        Some(ErrorPosition::Internal { position, query }) => format!("at {position} of {query:?}"),
    };
    format!(
        "{} {:?} {} {:?} detail={:?} hint={:?} position={position} context={:?} schema={:?} table={:?} column={:?} \
         datatype={:?} constraint={:?} raised by {:?} {:?} {:?}",
        error.severity(),
        error.parsed_severity(),
        error.code().code(),
        error.message(),
        error.detail(),
        error.hint(),
        error.where_(),
        error.schema(),
        error.table(),
        error.column(),
        error.datatype(),
        error.constraint(),
        error.file(),
        error.line(),
        error.routine(),
    )
}

/// What the log says of client sessions, plans by auto_explain excepted.
fn client_lines(lines: &[String]) -> Vec<String> {
    let mut keep = false;
    let mut kept = Vec::new();
    for line in lines {
        if !line.starts_with('\t') {
            keep = line.starts_with("client backend|") && !line.contains("|LOG:  ");
        }
        if keep {
            kept.push(line.clone());
        }
    }
    kept
}

fn ensure_same(arm: &str, what: &str, expected: &[String], got: &[String]) -> Result<()> {
    let differences: Vec<String> = expected
        .iter()
        .zip(got)
        .filter(|(expected, got)| expected != got)
        .map(|(expected, got)| format!("without: {expected}\nwith:    {got}"))
        .collect();
    ensure!(differences.is_empty(), "{arm}, {what}: {} differ\n{}", differences.len(), differences.join("\n"));
    ensure!(expected.len() == got.len(), "{arm}, {what}: {} lines, not {}", got.len(), expected.len());
    Ok(())
}

fn ensure_unchanged(arm: &str, expected: &Seen, got: &Seen) -> Result<()> {
    ensure_same(arm, "simple protocol", &expected.simple, &got.simple)?;
    ensure_same(arm, "extended protocol", &expected.extended, &got.extended)?;
    ensure_same(arm, "psql", &expected.psql, &got.psql)
}

/// That the arm did watch: failed statements were counted, and single executions of them recorded.
fn ensure_watched(cluster: &Cluster, nested: bool) -> Result<()> {
    let query = "SELECT sum(errors) > 100, sum(timeouts) > 5, count(*) FILTER (WHERE NOT toplevel AND errors > 0) > 0 \
                 FROM steward.statements_internal(true)";
    cluster.psql("postgres", "CREATE EXTENSION pg_steward")?;
    let watched = cluster.psql("postgres", query)?;
    ensure!(watched == if nested { "t|t|t" } else { "t|t|f" }, "errors were not counted: {watched}");
    let info = cluster.psql("postgres", "SELECT internal_errors, events_written > 0 FROM steward.statements_info")?;
    ensure!(info == "0|t", "internal errors, events: {info}");
    cluster.psql("postgres", "DROP EXTENSION pg_steward")?;
    Ok(())
}

#[test]
fn an_error_passes_unchanged_through_every_hook() -> Result<()> {
    let cluster = Cluster::new("errors")
        .conf("log_line_prefix", "%b|")
        .conf("log_error_verbosity", "verbose")
        .conf("compute_query_id", "on")
        .start()?;
    let plain = run_arm(&cluster, "", "")?;
    let failed = plain.simple.iter().filter(|line| line.contains("=> ERROR")).count();
    ensure!(failed > 110, "only {failed} of the cases fail at all");

    let alone = run_arm(&cluster, "pg_steward", EVERYTHING)?;
    ensure_watched(&cluster, true)?;
    ensure_unchanged("alone", &plain, &alone)?;
    ensure_same("alone", "server log", &plain.log, &alone.log)?;

    let last = run_arm(&cluster, "pg_stat_statements,auto_explain,pg_steward", NEIGHBOURS)?;
    ensure_watched(&cluster, true)?;
    ensure_unchanged("loaded last", &plain, &last)?;

    let first = run_arm(&cluster, "pg_steward,pg_stat_statements,auto_explain", "")?;
    ensure_watched(&cluster, true)?;
    ensure_unchanged("loaded first", &plain, &first)?;

    // Errors do not reach the log here, so pg_steward takes them as they pass the executor.
    let hidden = run_arm(&cluster, "pg_steward", "log_min_messages = fatal\n")?;
    ensure_watched(&cluster, true)?;
    ensure_unchanged("errors hidden from the log", &plain, &hidden)
}

/// How deep it got depends on the size of frames, so the context may differ; nothing else may.
#[test]
fn a_full_stack_is_still_an_ordinary_error() -> Result<()> {
    let mut seen = Vec::new();
    for libraries in ["", "pg_steward"] {
        let cluster = Cluster::new("stack").conf("shared_preload_libraries", libraries).start()?;
        cluster.append_conf(if libraries.is_empty() { "" } else { EVERYTHING })?;
        cluster.reload()?;
        let mut client = cluster.client("postgres")?;
        client.batch_execute(
            "CREATE FUNCTION down(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN down(n + 1); END $$;
             CREATE FUNCTION deeper(n int) RETURNS int LANGUAGE plpgsql AS
             $$ DECLARE a int; BEGIN EXECUTE 'SELECT deeper($1)' INTO a USING n; RETURN a; END $$",
        )?;
        for sql in ["SELECT down(1)", "SELECT deeper(1)"] {
            let error = client.simple_query(sql).expect_err("the stack has an end");
            let error = error.as_db_error().expect("an error of the server's");
            seen.push(format!("{} {:?} {:?}", error.code().code(), error.message(), error.detail()));
            client.simple_query("SELECT 1")?;
        }
    }
    assert_eq!(seen[..2], seen[2..]);
    assert!(seen[0].starts_with("54001"), "{}", seen[0]);
    Ok(())
}
