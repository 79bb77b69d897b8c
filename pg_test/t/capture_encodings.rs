//! Text in any encoding, cut anywhere, never raises an error and never breaks a client's encoding.

#[path = "capture_common.rs"]
mod common;

use common::{check_background, database, database_with, line, lines};
use postgres::Client;
use std::sync::OnceLock;
use steward_test::Cluster;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let cluster = common::builder("encodings")
            .conf("pg_steward.slow_threshold", "0")
            .conf("pg_steward.max_query_length", "100");
        cluster.conf("pg_steward.drain_interval", "50ms").start().expect("server")
    })
}

const READERS: &[&str] = &[
    "SELECT * FROM steward.statements",
    "SELECT * FROM steward.slow_queries",
    "SELECT * FROM steward.plans",
    "SELECT * FROM steward.ring_events()",
    "SELECT * FROM steward.repeated_queries",
    "SELECT count(*) FROM steward.statements WHERE query ~ 'x' AND lower(query) <> upper(query) AND length(query) > 0 AND query::bytea IS NOT NULL",
];

/// Every view can be read, in every client encoding that the database can be converted to.
fn views_are_readable(client: &mut Client, encodings: &[&str]) {
    for encoding in encodings {
        // The driver insists on UTF-8: psql stands for clients with other encodings.
        for sql in READERS {
            let database = line(client, "SELECT current_database()");
            let sql = format!("SET client_encoding = '{encoding}'; {sql};");
            let done = server().psql_output(&database, &sql, &["-v", "ON_ERROR_STOP=1"]).expect("psql");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{database} {encoding}: {sql}\n{said}");
        }
    }
    READERS.iter().for_each(|sql| drop(lines(client, sql)));
}

/// Sends bytes as they are, which the driver would not.
fn send(database: &str, encoding: &str, sql: &[u8]) {
    let file = server().host().join(format!("{database}.sql"));
    let mut script = format!("SET client_encoding = '{encoding}';\n").into_bytes();
    script.extend_from_slice(sql);
    std::fs::write(&file, script).expect("script");
    let done = server().psql_output(database, &format!("\\i {}\n", file.display()), &[]).expect("psql");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// "SELECT … AS name" with this name, cut in the middle of a character at some of 8 lengths.
fn texts_with(name: &[u8]) -> Vec<u8> {
    let mut sql = Vec::new();
    for pad in 0..8 {
        sql.extend_from_slice(b"SELECT ");
        sql.extend(
            (0..=pad)
                .map(|column| format!("{column} AS "))
                .flat_map(|text| [text.as_bytes(), b"\"", name, b"\", "].concat()),
        );
        sql.extend_from_slice(b"pg_backend_pid() AS \"");
        sql.extend(std::iter::repeat_n(b'x', pad));
        (0..40).for_each(|_| sql.extend_from_slice(name));
        sql.extend_from_slice(b"\";\n");
    }
    // Errors and literals with the same bytes, and a comment.
    sql.extend([b"SELECT 1 AS one /* ", name, b" */;\nSELECT '", name, b"' = '", name, b"x';\n"].concat());
    sql.extend([b"SELECT '", name, b"'::int;\nSELECT \"", name, b"\" FROM nowhere;\nSELEC ", name, b";\n"].concat());
    sql.extend(
        [
            b"SET application_name = '",
            name,
            b"';\nSET pg_steward.request_id = '",
            name,
            b"';\nSELECT 2, 3 AS \"",
            name,
            b"\";\n",
        ]
        .concat(),
    );
    sql
}

#[test]
fn utf8() {
    let mut client = database(server(), "in_utf8");
    let name = "Grüße→語🐘";
    send("in_utf8", "UTF8", &texts_with(name.as_bytes()));
    views_are_readable(&mut client, &["UTF8", "SQL_ASCII"]);
    let found = "SELECT count(*) FROM steward.statements WHERE query ~ 'Grüße→語🐘' AND octet_length(query) <= 100";
    assert_eq!(line(&mut client, &format!("SELECT ({found}) >= 4")), "t");
    let request =
        "SELECT request_id, application_name, query FROM steward.slow_queries WHERE query ~ '^SELECT .1, .2 AS '";
    // application_name is ASCII by Postgres's own rule.
    assert!(line(&mut client, request).starts_with(&format!("{name}|Gr")), "{}", line(&mut client, request));
    check_background(server());
}

#[test]
fn latin1() {
    let mut client = database_with(server(), "in_latin1", "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    send("in_latin1", "LATIN1", &texts_with(b"Gr\xfc\xdfe \xa3"));
    views_are_readable(&mut client, &["UTF8", "LATIN1", "SQL_ASCII"]);
    assert_eq!(line(&mut client, "SELECT count(*) >= 4 FROM steward.statements WHERE query ~ 'Grüße £'"), "t");
    let request = "SELECT request_id FROM steward.slow_queries WHERE query ~ '^SELECT .1, .2 AS '";
    assert_eq!(line(&mut client, request), "Grüße £");
    check_background(server());
}

#[test]
fn euc_jp() {
    let mut client = database_with(server(), "in_euc_jp", "ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0");
    // "日本語" in EUC_JP, and a half-width katakana of two bytes with SS2.
    send("in_euc_jp", "EUC_JP", &texts_with(b"\xc6\xfc\xcb\xdc\xb8\xec\x8e\xb1"));
    views_are_readable(&mut client, &["UTF8", "EUC_JP", "SQL_ASCII"]);
    assert_eq!(line(&mut client, "SELECT count(*) >= 4 FROM steward.statements WHERE query ~ '日本語'"), "t");
    check_background(server());
}

#[test]
fn sql_ascii_with_bytes_of_any_kind() {
    let mut client = database_with(server(), "in_sql_ascii", "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    send("in_sql_ascii", "SQL_ASCII", &texts_with("Grüße🐘".as_bytes()));
    send("in_sql_ascii", "SQL_ASCII", &texts_with(b"\xfc\xdf\x80\xff\xc3"));
    send("in_sql_ascii", "SQL_ASCII", &texts_with(b"\xf0\x9f\x90"));
    views_are_readable(&mut client, &["SQL_ASCII", "UTF8"]);
    assert_eq!(line(&mut client, "SELECT count(*) >= 12 FROM steward.statements WHERE query ~ 'AS'"), "t");
    let stored = "SELECT count(*) FROM steward.slow_executions WHERE outcome = 'error'";
    let reached = steward_test::wait_until(common::PATIENCE, || line(&mut client, stored) == "9");
    assert!(reached, "{} of 9 errors are stored", line(&mut client, stored));
    assert_eq!(line(&mut client, "SELECT internal_errors FROM steward.statements_info"), "0");
    check_background(server());
}

#[test]
fn texts_are_read_from_databases_of_other_encodings() {
    let mut utf8 = database(server(), "cross_utf8");
    let mut latin = database_with(server(), "cross_latin1", "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let mut ascii = database_with(server(), "cross_ascii", "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    send("cross_utf8", "UTF8", "SELECT 1 AS \"crossing_語_ü\", 'a';\n".as_bytes());
    send("cross_latin1", "LATIN1", b"SELECT 1, 2 AS \"crossing_\xfc\", 'a';\n");
    send("cross_ascii", "SQL_ASCII", b"SELECT 1, 2, 3 AS \"crossing_\xff\xfe\", 'a';\n");
    let sql = "SELECT query FROM steward.statements WHERE query ~ 'AS \"crossing_' ORDER BY length(query), query";
    assert_eq!(lines(&mut utf8, sql).len(), 3);
    assert!(lines(&mut utf8, sql).concat().contains("crossing_語_ü"));
    assert!(lines(&mut utf8, sql).concat().contains("crossing_ü\""));
    // What LATIN1 has no character for is replaced, not an error.
    assert_eq!(lines(&mut latin, sql).len(), 3);
    assert!(lines(&mut latin, sql).concat().contains("crossing_ü\""));
    assert_eq!(lines(&mut ascii, sql).len(), 3);
    for client in [&mut utf8, &mut latin, &mut ascii] {
        views_are_readable(client, &["UTF8", "SQL_ASCII"]);
    }
    views_are_readable(&mut latin, &["LATIN1"]);
}
