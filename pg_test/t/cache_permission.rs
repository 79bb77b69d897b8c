//! Nobody sees by way of the cache what the query itself would not show him, and everybody sees what it would, from the
//! very next call after a change on. Every answer is compared with the direct query's in the same session, after others
//! who may see more have warmed the cache, and after the session itself has, so that a leak would show.

#[path = "cache_permission_classes.rs"]
mod classes;
#[path = "cache_common.rs"]
mod common;
#[path = "cache_permission_functions.rs"]
mod functions;
#[path = "cache_permission_names.rs"]
mod names;
#[path = "cache_permission_roles.rs"]
mod roles;
#[path = "cache_permission_session.rs"]
mod session;
#[path = "cache_permission_types.rs"]
mod types;

use common::{Outcome, Session, World, builder};
use std::sync::OnceLock;
use steward_test::Cluster;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| builder("cachePerm").start().expect("server"))
}

/// Whether the reader's session has a transaction open while others change what it may see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Idle,
    InTransaction,
}

/// Rows of several owners and tenants, read in each of the ways that a role can be entitled by.
const TABLE: &str = "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
    CREATE TABLE app.n (id int, tenant text, owner name);
    INSERT INTO app.n VALUES (1, 'a', '@ann'), (2, 'b', '@bob'), (3, 'a', '@bob'), (4, 'c', '@staff');
    CREATE VIEW app.of_owner AS SELECT id, current_user AS me FROM app.n;
    GRANT SELECT ON app.of_owner TO PUBLIC;
    CREATE VIEW app.of_invoker WITH (security_invoker) AS SELECT id FROM app.n;
    GRANT SELECT ON app.of_invoker TO PUBLIC;
    CREATE FUNCTION app.in_sql() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM app.n';
    CREATE FUNCTION app.in_plpgsql() RETURNS bigint STABLE LANGUAGE plpgsql AS
        'BEGIN RETURN (SELECT count(*) FROM app.n); END';
    CREATE FUNCTION app.deeper() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT app.in_sql() + app.in_plpgsql()';
    CREATE FUNCTION app.inlined() RETURNS SETOF int STABLE LANGUAGE sql AS 'SELECT id FROM app.n';
    CREATE ROLE @definer; GRANT SELECT ON app.n TO @definer;
    CREATE FUNCTION app.as_definer() RETURNS bigint STABLE SECURITY DEFINER LANGUAGE sql AS
        'SELECT count(*) FROM app.n';
    ALTER FUNCTION app.as_definer() OWNER TO @definer;
    CREATE VIEW app.of_definer AS SELECT count(*) FROM app.n; ALTER VIEW app.of_definer OWNER TO @definer;
    GRANT SELECT ON app.of_definer TO PUBLIC";

const QUERIES: &[&str] = &[
    "SELECT id, owner FROM app.n ORDER BY id",
    "SELECT id FROM app.n ORDER BY id",
    "SELECT count(*) FROM app.n",
    "SELECT (SELECT max(tenant) FROM app.n) AS last",
    "SELECT id FROM app.of_owner ORDER BY id",
    "SELECT id FROM app.of_invoker ORDER BY id",
    "SELECT app.in_sql()",
    "SELECT app.in_plpgsql()",
    "SELECT app.deeper()",
    "SELECT i FROM app.inlined() AS i ORDER BY i",
    "SELECT app.as_definer()",
    "SELECT * FROM app.of_definer",
];

/// Two readers besides the superuser of the world.
struct Readers<'a> {
    world: World<'a>,
    ann: Session,
    bob: Session,
}

impl<'a> Readers<'a> {
    fn new(name: &str) -> Readers<'static> {
        let mut world = World::new(server(), name);
        world.boss.run("CREATE ROLE @staff");
        let (ann, bob) = (world.role("ann"), world.role("bob"));
        world.boss.run(TABLE);
        Readers { world, ann, bob }
    }

    /// Everybody's answers, each of which a hit would give afterwards.
    fn warm(&mut self, queries: &[&str]) -> Vec<Outcome> {
        let Self { world, ann, bob } = self;
        let mut outcomes = Vec::new();
        for query in queries {
            for session in [&mut world.boss, &mut *ann, &mut *bob] {
                outcomes.push(session.warm(query).essence());
            }
        }
        outcomes
    }

    /// Makes a change by another session, and asks everybody.
    fn change(&mut self, sql: &str, queries: &[&str], mode: Reader) -> Vec<Outcome> {
        let Self { world, ann, bob } = self;
        if mode == Reader::InTransaction {
            for session in [&mut *ann, &mut *bob] {
                session.run("BEGIN");
                // Hits, which take no lock that would keep the change out.
                queries.iter().for_each(|query| session.within_hit(query));
            }
        }
        world.boss.run(sql);
        let mut outcomes = Vec::new();
        for query in queries {
            outcomes.push(world.boss.agrees(sql, query));
            for session in [&mut *ann, &mut *bob] {
                outcomes.push(match mode {
                    Reader::Idle => session.agrees(sql, query),
                    Reader::InTransaction => session.agrees_within(sql, query),
                });
            }
        }
        if mode == Reader::InTransaction {
            [ann, bob].into_iter().for_each(|session| session.run("COMMIT"));
        }
        outcomes
    }

    /// Each change must change somebody's answer, or the test could not fail.
    fn obey(&mut self, changes: &[&str], queries: &[&str], mode: Reader) {
        for sql in changes {
            let before = self.warm(queries);
            let after = self.change(sql, queries, mode);
            assert_ne!(before, after, "nobody's answer changed by {sql}");
        }
    }
}

impl Session {
    /// A call that is a hit, or fails, in a transaction that goes on.
    fn within_hit(&mut self, query: &str) {
        self.run("SAVEPOINT hit");
        let failed = self.cached(query).is_error();
        self.run(if failed { "ROLLBACK TO hit; RELEASE hit" } else { "RELEASE hit" });
        let locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN (SELECT oid FROM pg_class WHERE relname = 'n')";
        assert_eq!(self.line(locks), "0", "not a hit: {query}");
    }
}

const GRANTS: &[&str] = &[
    "GRANT SELECT ON app.n TO @ann",
    "GRANT SELECT ON app.n TO @bob",
    "REVOKE SELECT ON app.n FROM @ann",
    "GRANT SELECT (id, owner) ON app.n TO @ann",
    "REVOKE SELECT (owner) ON app.n FROM @ann",
    "REVOKE SELECT (id) ON app.n FROM @ann; REVOKE SELECT ON app.n FROM @bob",
    "GRANT SELECT ON app.n TO @staff; GRANT @staff TO @ann",
    "REVOKE @staff FROM @ann; GRANT @staff TO @bob",
    "REVOKE SELECT ON app.n FROM @staff",
    "GRANT SELECT ON app.n TO PUBLIC",
    "REVOKE USAGE ON SCHEMA app FROM PUBLIC",
    "GRANT USAGE ON SCHEMA app TO @ann",
    "GRANT USAGE ON SCHEMA app TO PUBLIC",
    "REVOKE SELECT ON app.n FROM PUBLIC",
    "ALTER ROLE @ann SUPERUSER",
    "ALTER ROLE @ann NOSUPERUSER; ALTER ROLE @bob SUPERUSER",
    "ALTER ROLE @bob NOSUPERUSER",
    "GRANT SELECT ON app.n TO PUBLIC",
    "REVOKE EXECUTE ON FUNCTION app.in_sql() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION app.in_sql() TO @ann",
    "REVOKE SELECT ON app.of_owner FROM PUBLIC",
    "REVOKE SELECT ON app.n FROM PUBLIC, @definer",
    "GRANT SELECT ON app.n TO @staff; GRANT @staff TO @definer",
    "REVOKE @staff FROM @definer",
    "ALTER TABLE app.n OWNER TO @ann",
    "ALTER TABLE app.n OWNER TO @bob",
    "ALTER FUNCTION app.as_definer() OWNER TO @bob; ALTER VIEW app.of_definer OWNER TO @bob",
];

#[test]
fn a_grant_and_a_revoke_take_effect_on_the_next_call() {
    Readers::new("grants").obey(GRANTS, QUERIES, Reader::Idle);
}

#[test]
fn a_grant_and_a_revoke_take_effect_within_a_transaction() {
    Readers::new("grants_within").obey(GRANTS, QUERIES, Reader::InTransaction);
}

const POLICIES: &[&str] = &[
    "ALTER TABLE app.n ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON app.n USING (owner = current_user)",
    "ALTER POLICY p ON app.n USING (owner <> current_user)",
    "ALTER POLICY p ON app.n TO @ann",
    "ALTER POLICY p ON app.n TO @staff",
    "GRANT @staff TO @ann",
    "REVOKE @staff FROM @ann; GRANT @staff TO @bob",
    "REVOKE @staff FROM @bob",
    "CREATE POLICY q ON app.n AS RESTRICTIVE TO PUBLIC USING (id > 2); ALTER POLICY p ON app.n TO PUBLIC",
    "DROP POLICY q ON app.n",
    "ALTER ROLE @ann BYPASSRLS",
    "ALTER ROLE @ann NOBYPASSRLS; ALTER ROLE @bob BYPASSRLS",
    "ALTER ROLE @bob NOBYPASSRLS",
    "ALTER ROLE @definer BYPASSRLS",
    "ALTER ROLE @definer NOBYPASSRLS",
    "ALTER POLICY p ON app.n USING (id = 1 OR pg_has_role(current_user, '@staff', 'MEMBER'))",
    "GRANT @staff TO @ann",
    "REVOKE @staff FROM @ann",
    "ALTER TABLE app.n OWNER TO @ann",
    "ALTER TABLE app.n FORCE ROW LEVEL SECURITY",
    "ALTER TABLE app.n NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY p ON app.n",
    "ALTER TABLE app.n DISABLE ROW LEVEL SECURITY",
];

#[test]
fn row_security_takes_effect_on_the_next_call() {
    let mut readers = Readers::new("policies");
    readers.world.boss.run("GRANT SELECT ON app.n TO @ann, @bob");
    readers.obey(POLICIES, QUERIES, Reader::Idle);
}

#[test]
fn row_security_takes_effect_within_a_transaction() {
    let mut readers = Readers::new("policies_within");
    readers.world.boss.run("GRANT SELECT ON app.n TO @ann, @bob");
    readers.obey(POLICIES, QUERIES, Reader::InTransaction);
}
