//! What fails beside the query itself.

use super::common::{Outcome, Session, builder};

/// What a developer asked of Rust's own errors is not told to users of the database.
#[test]
fn errors_carry_no_backtrace() {
    let cluster = builder("cacheBacktrace").env("RUST_BACKTRACE", "1").start().expect("server");
    cluster.create_database("traced").expect("database");
    let mut session = Session::new(cluster.client("traced").expect("connect"), "traced", "one");
    session.run("CREATE TABLE n (id int)");
    for arguments in [
        "'SELECT 1', '{}'",
        "'SELECT $1::int', '[\"x\"]'",
        "'SELECT $1::int', '[]'",
        "'SELECT 1; SELECT 2'",
        "'DELETE FROM n'",
        "'SELECT 1', class => 'nonsense'",
        "'SELECT 1', ttl => '0'",
        "NULL",
        "'SELECT id FROM n FOR UPDATE'",
        "'SELECT nowhere FROM n'",
        "'SELECT 1 / 0'",
    ] {
        for sql in [
            format!("SELECT steward.cached_json({arguments})"),
            format!("SELECT * FROM steward.cached({arguments}) AS t(a int)"),
        ] {
            assert_eq!(session.outcome(&sql).failure().detail, None, "{sql}");
        }
    }
    for sql in [
        "SELECT steward.cached('SELECT 1')",
        "SELECT steward.cache_invalidate_class('nonsense')",
        "SELECT steward.cache_invalidate('nowhere')",
        "BEGIN READ ONLY; SELECT steward.cache_invalidate_tag('a'); COMMIT",
        "ROLLBACK",
        "SELECT steward.cache_invalidate_role_id(0)",
        "SELECT * FROM steward.cache_explain('SELECT 1; SELECT 2')",
    ] {
        if let Outcome::Error(failure) = session.outcome(sql) {
            assert_eq!(failure.detail, None, "{sql}");
        }
    }
}
