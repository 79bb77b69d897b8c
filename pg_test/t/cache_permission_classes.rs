//! Classes of data and sensitive columns: the strictest rule applies, and a new rule applies at once.

use super::common::{Session, World};
use super::server;

fn world(name: &str) -> (World<'static>, Session, Session) {
    let mut world = World::new(server(), name);
    let (ann, bob) = (world.role("ann"), world.role("bob"));
    world.boss.run(
        "CREATE TABLE plain (id int, nick text); CREATE TABLE money (id int, iban text, amount int);
         CREATE TABLE users (id int, password text, note text); CREATE TABLE stock (id int, place text);
         INSERT INTO plain VALUES (1, 'a'); INSERT INTO money VALUES (1, 'DE00', 2); INSERT INTO users VALUES (1, 'pw', 'n');
         INSERT INTO stock VALUES (1, 'here'); GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
    );
    (world, ann, bob)
}

fn explained(session: &mut Session, query: &str) -> String {
    session.line(&format!("SELECT reason, class, ttl FROM steward.cache_explain($q${query}$q$)"))
}

#[test]
fn the_strictest_class_of_the_tables_applies() {
    let (mut world, mut ann, _) = world("strictest");
    let both = "SELECT p.id FROM plain AS p JOIN stock AS s USING (id)";
    assert_eq!(explained(&mut ann, both), "|utility|01:00:00");
    world.boss.run("SECURITY LABEL FOR pg_steward ON TABLE stock IS 'public'");
    assert_eq!(explained(&mut ann, "SELECT id FROM stock"), "|public|02:00:00");
    assert_eq!(explained(&mut ann, both), "|utility|01:00:00");
    world.boss.run("SECURITY LABEL FOR pg_steward ON TABLE plain IS 'financial'");
    assert_eq!(explained(&mut ann, both), "|financial|00:03:00");
    world.boss.run("CREATE VIEW v AS SELECT id FROM stock; SECURITY LABEL FOR pg_steward ON VIEW v IS 'admin'");
    assert_eq!(explained(&mut world.boss, "SELECT * FROM v"), "|admin|00:05:00");
    // A partition has its own class, or that of the table.
    world.boss.run(
        "CREATE TABLE parts (id int) PARTITION BY LIST (id); CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
         CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2); GRANT SELECT ON parts TO PUBLIC;
         SECURITY LABEL FOR pg_steward ON TABLE parts IS 'reporting'",
    );
    assert_eq!(explained(&mut ann, "SELECT * FROM parts"), "|reporting|00:30:00");
    world.boss.run("SECURITY LABEL FOR pg_steward ON TABLE part_2 IS 'admin'");
    assert_eq!(explained(&mut ann, "SELECT * FROM parts"), "|admin|00:05:00");
    world.boss.run("SECURITY LABEL FOR pg_steward ON TABLE part_2 IS NULL");
    assert_eq!(explained(&mut ann, "SELECT * FROM parts"), "|reporting|00:30:00");
}

#[test]
fn labels_that_mean_nothing_are_refused() {
    let (mut world, ..) = world("labels");
    world.boss.run("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    for (sql, code) in [
        ("SECURITY LABEL FOR pg_steward ON TABLE plain IS 'nonsense'", "22023"),
        ("SECURITY LABEL FOR pg_steward ON COLUMN plain.nick IS 'utility'", "22023"),
        ("SECURITY LABEL FOR pg_steward ON FUNCTION f() IS 'utility'", "0A000"),
        ("SECURITY LABEL FOR pg_steward ON ROLE postgres IS 'utility'", "0A000"),
    ] {
        assert_eq!(world.boss.fails(sql), code, "{sql}");
    }
    let message = world.boss.outcome("SECURITY LABEL FOR pg_steward ON TABLE plain IS 'nonsense'");
    assert!(message.failure().message.contains("financial, member_data"), "{message:?}");
}

/// As pg_restore does it in a single transaction; rolled back, the class is gone from all sessions.
#[test]
fn a_class_can_be_a_label_in_the_transaction_that_makes_it() {
    let (mut world, mut ann, _) = world("made_class");
    let label = "SECURITY LABEL FOR pg_steward ON TABLE plain IS 'made'";
    world.boss.warm("SELECT id FROM plain");
    for end in ["ROLLBACK", "COMMIT"] {
        assert_eq!(world.boss.fails(label), "22023", "before it is made");
        world.boss.run("BEGIN; INSERT INTO steward.cache_classes (name, ttl) VALUES ('made', '10 minutes')");
        world.boss.run(label);
        world.boss.agrees_within("made and used", "SELECT id FROM plain");
        world.boss.run(end);
    }
    assert_eq!(explained(&mut world.boss, "SELECT id FROM plain"), "|made|00:10:00");
    assert_eq!(explained(&mut ann, "SELECT id FROM plain"), "|made|00:10:00");
}

#[test]
fn a_class_that_changes_applies_to_what_is_kept() {
    let (mut world, mut ann, mut bob) = world("changed_class");
    world.boss.run("INSERT INTO steward.cache_classes (name, ttl) VALUES ('own', '10 minutes')");
    world.boss.run("SECURITY LABEL FOR pg_steward ON TABLE plain IS 'own'");
    let query = "SELECT id FROM plain";
    for (change, explanation, state) in [
        ("UPDATE steward.cache_classes SET ttl = '20 minutes' WHERE name = 'own'", "|own|00:20:00", "local"),
        (
            "UPDATE steward.cache_classes SET local = false, shared = false WHERE name = 'own'",
            "class_denied|own|00:20:00",
            "absent",
        ),
        ("UPDATE steward.cache_classes SET shared = true WHERE name = 'own'", "|own|00:20:00", "shared"),
        ("UPDATE steward.cache_classes SET local = true, shared = false WHERE name = 'own'", "|own|00:20:00", "local"),
        ("UPDATE steward.cache_classes SET max_result_size = 1 WHERE name = 'own'", "|own|00:20:00", "absent"),
        (
            "UPDATE steward.cache_classes SET max_result_size = 100000, shared = true WHERE name = 'own'",
            "|own|00:20:00",
            "local",
        ),
        ("DELETE FROM steward.cache_classes WHERE name = 'own'", "class_denied||00:00:00", "absent"),
        ("INSERT INTO steward.cache_classes (name, ttl) VALUES ('own', '1 minute')", "|own|00:01:00", "local"),
    ] {
        world.boss.run(change);
        for session in [&mut ann, &mut bob] {
            assert_ne!(session.state(query), "local", "nothing of before is served after {change}");
            assert_eq!(explained(session, query), explanation, "{change}");
            session.agrees(change, query);
            session.agrees(change, query);
            let now = session.state(query);
            assert!(
                if state == "absent" { now != "local" && now != "shared" } else { now == state },
                "{change}: {now}"
            );
        }
    }
    // Without sharing, each computed its own.
    world.boss.run("UPDATE steward.cache_classes SET shared = false WHERE name = 'own'");
    ann.warm(query);
    assert_ne!(bob.state(query), "shared");
    assert_ne!(bob.state(query), "local");
}

/// The setting that names the class of what has no label, and the one that names sensitive columns.
#[test]
fn rules_in_settings_apply_at_once() {
    let (world, ..) = world("rules");
    let query = "SELECT id, nick FROM plain";
    let mut reader = world.another();
    reader.warm(query);
    for (setting, explanation) in [
        ("cache_default_class = 'financial'", "|financial|00:03:00"),
        ("cache_default_class = 'nonsense'", "class_denied||00:00:00"),
        ("cache_default_class = 'utility'", "|utility|01:00:00"),
        ("cache_sensitive_columns = 'nick'", "sensitive_denied|utility|01:00:00"),
        ("cache_sensitive_columns = ''", "|utility|01:00:00"),
    ] {
        reader.run(&format!("SET pg_steward.{setting}"));
        assert_eq!(explained(&mut reader, query), explanation, "{setting}");
        reader.agrees(setting, query);
        assert_eq!(reader.state(query) == "local", explanation.starts_with('|'), "{setting}");
    }
}

/// Ways to read the password, and ways to read the table without it.
const SENSITIVE: &[&str] = &[
    "SELECT password FROM users",
    "SELECT password AS x FROM users",
    "SELECT upper(password) AS x FROM users",
    "SELECT users FROM users",
    "SELECT u.* FROM users AS u(a, b, c)",
    "SELECT b FROM users AS u(a, b)",
    "SELECT (u).password AS x FROM users AS u",
    "SELECT row_to_json(u) AS x FROM users AS u",
    "SELECT (SELECT max(password) FROM users) AS x",
    "SELECT x FROM (SELECT password AS x FROM users) AS s",
    "WITH w AS (SELECT password AS x FROM users) SELECT x FROM w",
    "WITH w AS MATERIALIZED (SELECT password AS x, note FROM users) SELECT x FROM w",
    "SELECT 'a' AS x UNION ALL SELECT password FROM users",
    "SELECT max(x) AS x FROM (SELECT password AS x, count(*) FROM users GROUP BY 1) AS g",
    "SELECT l.x FROM users, LATERAL (SELECT users.password AS x) AS l",
    "SELECT x FROM users, LATERAL unnest(ARRAY[password]) AS x",
    "SELECT x FROM (users JOIN plain USING (id)) AS j(i, x)",
    "SELECT array_agg(password) AS x FROM users",
    "SELECT x FROM of_users",
    "SELECT CASE WHEN password LIKE 'a%' THEN 1 ELSE 2 END AS x FROM users",
    "SELECT 1 AS api_key",
    "SELECT note FROM users",
];
const HARMLESS: &[&str] = &[
    "SELECT id FROM users",
    "SELECT count(*) FROM users",
    "SELECT u.id FROM users AS u JOIN plain AS p USING (id)",
    "SELECT 1 AS monkey",
    "SELECT nick FROM plain",
];

#[test]
fn sensitive_columns_follow_the_rule_of_the_class() {
    let (mut world, mut ann, mut bob) = world("sensitive");
    world.boss.run(
        "CREATE VIEW of_users AS SELECT password AS x FROM users; GRANT SELECT ON of_users TO PUBLIC;
         SECURITY LABEL FOR pg_steward ON COLUMN users.note IS 'sensitive';
         SECURITY LABEL FOR pg_steward ON TABLE users IS 'member_data'",
    );
    let states = |session: &mut Session, queries: &[&str]| -> Vec<String> {
        queries
            .iter()
            .map(|query| {
                session.agrees("sensitive", query);
                session.agrees("sensitive", query);
                session.state(query)
            })
            .collect()
    };
    for query in SENSITIVE {
        assert_eq!(ann.reason(query), "sensitive_denied", "{query}");
    }
    assert!(states(&mut ann, SENSITIVE).iter().all(|state| state == "absent"));
    assert!(states(&mut ann, HARMLESS).iter().all(|state| state == "local"));
    let sensitive_entries = "SELECT count(*) FROM steward.cache_entries WHERE is_sensitive";
    assert_eq!(world.boss.line(sensitive_entries), "0");

    world.boss.run("UPDATE steward.cache_classes SET sensitive = 'local'");
    assert!(states(&mut ann, SENSITIVE).iter().all(|state| state == "local"));
    assert!(SENSITIVE.iter().all(|query| bob.state(query) == "absent"));
    assert_eq!(world.boss.line(sensitive_entries), "0");

    world.boss.run("UPDATE steward.cache_classes SET sensitive = 'allow'");
    assert!(states(&mut ann, SENSITIVE).iter().all(|state| state == "local"));
    assert!(SENSITIVE.iter().all(|query| bob.state(query) == "shared"));
    assert_eq!(world.boss.line(sensitive_entries), SENSITIVE.len().to_string());

    world.boss.run("UPDATE steward.cache_classes SET sensitive = 'deny'");
    assert!(SENSITIVE.iter().all(|query| ann.state(query) != "local" && bob.state(query) != "shared"));
    assert!(states(&mut bob, SENSITIVE).iter().all(|state| state != "local" && state != "shared"));
    // A label that is taken away, and one that comes, apply at once.
    world.boss.run("SECURITY LABEL FOR pg_steward ON COLUMN users.note IS NULL");
    assert_eq!(ann.reason("SELECT note FROM users"), "");
    ann.warm("SELECT note FROM users");
    world.boss.run("SECURITY LABEL FOR pg_steward ON COLUMN users.note IS 'sensitive'");
    assert_ne!(ann.state("SELECT note FROM users"), "local");
    assert_eq!(ann.reason("SELECT note FROM users"), "sensitive_denied");
}

#[test]
fn a_quota_limits_what_a_role_stores() {
    let (mut world, mut ann, mut bob) = world("quota");
    world.boss.run("INSERT INTO steward.cache_classes (name, ttl, role_quota) VALUES ('tight', '1 hour', 1000)");
    world.boss.run("SECURITY LABEL FOR pg_steward ON TABLE plain IS 'tight'");
    for number in 0..20 {
        ann.warm(&format!("SELECT id, {number} AS number FROM plain"));
    }
    let stored = |world: &mut World<'_>| {
        world.boss.line("SELECT coalesce(sum(size_bytes), 0) FROM steward.cache_entries WHERE class = 'tight'")
    };
    let bytes: u64 = stored(&mut world).parse().expect("bytes");
    assert!(bytes > 0 && bytes <= 1000, "{bytes}");
    assert_eq!(world.boss.line("SELECT count > 0 FROM steward.cache_misses WHERE reason = 'quota'"), "t");
    // It is the role's, not everybody's.
    bob.warm("SELECT id, 100 AS number FROM plain");
    let more: u64 = stored(&mut world).parse().expect("bytes");
    assert!(more > bytes);
}
