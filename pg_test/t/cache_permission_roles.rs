//! Roles themselves: dropped and made again, sharing what they may both see, and what each sees of the others' entries.

use super::common::{Session, World};
use super::{Readers, server};

/// Another role of the same name is another role.
#[test]
fn a_role_made_again_is_a_new_one() {
    let mut readers = Readers::new("again");
    let boss = &mut readers.world.boss;
    boss.run(
        "GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (pg_has_role(current_user, '@staff', 'MEMBER') OR owner = current_user);
         GRANT @staff TO @ann",
    );
    readers.warm(super::QUERIES);
    let mut old = readers.world.login("ann");
    super::QUERIES.iter().for_each(|query| drop(old.warm(query)));
    // The old session goes on, as a role that is gone: Postgres lets it.
    readers.world.boss.run("DROP OWNED BY @ann; DROP ROLE @ann; CREATE ROLE @ann LOGIN");
    let mut new = readers.world.login("ann");
    for query in super::QUERIES {
        old.agrees("the role is gone", query);
        new.agrees("a new role", query);
    }
    assert!(new.direct(super::QUERIES[0]).is_error());
    readers.world.boss.run("GRANT SELECT ON app.n TO @ann");
    for query in super::QUERIES {
        old.agrees("the role is gone", query);
        new.agrees("a new role with a grant", query);
    }
    assert_eq!(new.direct("SELECT id FROM app.n").rows().join(""), "[{\"id\":1}]");
    readers.world.boss.run("GRANT @staff TO @ann");
    for query in super::QUERIES {
        new.agrees("a new member", query);
    }
}

#[test]
fn equal_rights_share_a_result_and_others_do_not() {
    let mut readers = Readers::new("sharing");
    readers.world.boss.run("GRANT SELECT ON app.n TO @ann, @bob");
    let (plain, by_role) = ("SELECT id FROM app.n ORDER BY id", "SELECT id, current_user AS me FROM app.n");
    readers.ann.warm(plain);
    readers.ann.warm(by_role);
    let bob = &mut readers.bob;
    assert_eq!(bob.state(plain), "shared");
    assert_eq!(bob.state(by_role), "absent");
    assert!(!bob.agrees("shared", plain).is_error());
    assert_eq!(bob.state(plain), "local");
    bob.agrees("own", by_role);
    // Switched off, each role has its own.
    let mut apart = readers.world.another();
    apart.run("SET pg_steward.cache_share_entries = off");
    let counts =
        "SELECT shared_hits FROM steward.cache_query_stats WHERE query LIKE '%apart%' AND query NOT LIKE '%LIKE%'";
    for role in ["@ann", "@bob"] {
        apart.run(&format!("SET ROLE {role}"));
        assert_eq!(apart.state("SELECT id AS apart FROM app.n"), "absent", "{role}");
        apart.warm("SELECT id AS apart FROM app.n");
        apart.run("RESET ROLE");
    }
    assert_eq!(apart.lines(counts), ["0", "0"]);
    // And what was analysed before the switch holds no longer.
    let mut toggled = readers.world.another();
    toggled.run("SET ROLE @bob");
    assert_eq!(toggled.state(plain), "shared");
    toggled.run("RESET ROLE; SET pg_steward.cache_share_entries = off; SET ROLE @bob");
    assert_eq!(toggled.state(plain), "absent");
}

/// Row security that leaves both the same rows by the same tree is shared; the same rows by another is not.
#[test]
fn row_security_shares_where_the_tree_is_the_same() {
    let mut readers = Readers::new("rls_sharing");
    readers.world.boss.run(
        "GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (id < 3)",
    );
    let query = "SELECT id FROM app.n ORDER BY id";
    readers.world.boss.warm(query);
    assert_eq!(readers.ann.state(query), "absent", "the superuser's result is another");
    readers.ann.warm(query);
    assert_eq!(readers.bob.state(query), "shared");
    assert_eq!(readers.bob.agrees("shared", query).rows().join(""), "[{\"id\":1},{\"id\":2}]");
    readers.world.boss.run("ALTER POLICY p ON app.n USING (id < 3 AND current_user IS NOT NULL)");
    readers.ann.warm(query);
    assert_eq!(readers.bob.state(query), "absent");
    readers.bob.agrees("by role", query);
}

const SECRET: &str = "hush4711";

/// Texts of others are hidden, as in pg_stat_activity; parameters and results are shown to nobody.
#[test]
fn texts_of_others_are_hidden() {
    let mut readers = Readers::new("masked");
    readers.world.boss.run(
        "GRANT SELECT ON app.n TO @ann; CREATE ROLE @friend LOGIN IN ROLE @ann;
         CREATE ROLE @auditor LOGIN IN ROLE pg_read_all_stats; INSERT INTO app.n VALUES (9, 'hush4711', 'x')",
    );
    readers.ann.warm("SELECT id AS anns_column FROM app.n");
    readers.ann.run("SELECT steward.cached_json('SELECT tenant FROM app.n WHERE tenant = $1', '[\"hush4711\"]')");
    readers.ann.run("SELECT steward.cached_json('SELECT tenant FROM app.n WHERE tenant = $1', '[\"hush4711\"]')");
    let views = ["cache_entries", "cache_query_stats", "cache_hottest(100)", "cache_coldest(100)"];
    let all = |session: &mut Session, view: &str| {
        session.lines(&format!("SELECT row_to_json(r)::text FROM steward.{view} AS r")).join("\n")
    };
    for view in views {
        let text = all(&mut readers.bob, view);
        assert!(!text.contains("anns_column") && !text.contains(SECRET), "{view}: {text}");
        assert!(text.contains("<insufficient privilege>"), "{view}: {text}");
        let mut sees = vec![readers.world.another()];
        sees.extend(["friend", "auditor", "ann"].map(|role| readers.world.login(role)));
        for mut session in sees {
            let text = all(&mut session, view);
            assert!(text.contains("anns_column") && !text.contains(SECRET), "{view}: {text}");
        }
    }
    let others = ["cache_stats", "cache_misses", "cache_class_stats", "cache_dependencies"];
    for view in others {
        assert!(!all(&mut readers.bob, view).contains("anns_column"));
    }
}

/// What only some may see of settings is not told as an input of a key.
#[test]
fn an_explanation_hides_what_the_role_may_not_see() {
    let mut world = World::new(server(), "explained");
    let mut ann = world.role("ann");
    world.boss.run("CREATE VIEW v AS SELECT current_setting('data_directory') AS d; GRANT SELECT ON v TO PUBLIC");
    let hidden = world.boss.line("SHOW data_directory");
    for query in ["SELECT current_setting('data_directory')", "SELECT * FROM v"] {
        let told = |session: &mut Session| {
            session.line(&format!("SELECT e::text FROM steward.cache_explain($q${query}$q$) AS e"))
        };
        assert!(!told(&mut ann).contains(&hidden));
        assert_eq!(ann.agrees("a setting of superusers", query).failure().code, "42501");
        assert!(!world.boss.agrees("a setting of superusers", query).is_error());
        assert_eq!(ann.agrees("after a superuser", query).failure().code, "42501");
    }
}

#[test]
fn administration_is_not_for_everybody() {
    let mut world = World::new(server(), "admin");
    let mut ann = world.role("ann");
    world.boss.run("CREATE TABLE n (id int); GRANT SELECT ON n TO PUBLIC");
    let actions = [
        ("steward.cache_invalidate('n')", "cache_invalidate"),
        ("steward.cache_invalidate_tag('a')", "cache_invalidate_tag"),
        ("steward.cache_invalidate_class('utility')", "cache_invalidate_class"),
        ("steward.cache_invalidate_role('@ann')", "cache_invalidate_role"),
        ("steward.cache_clear()", "cache_clear"),
        ("steward.cache_stats_reset()", "cache_stats_reset"),
    ];
    for (call, _) in actions {
        assert_eq!(ann.fails(&format!("SELECT {call}")), "42501", "{call}");
    }
    for sql in [
        "SELECT steward.cache_invalidate_relation_id(1)",
        "SELECT steward.cache_invalidate_role_id(1)",
        "UPDATE steward.cache_classes SET ttl = '1 day'",
        "SET pg_steward.cache_enabled = off",
        "SET pg_steward.cache_share_entries = off",
        "SET pg_steward.cache_sensitive_columns = ''",
        "SET pg_steward.cache_default_class = 'public'",
        "SET pg_steward.cache_min_execution_time = 0",
        "SECURITY LABEL FOR pg_steward ON TABLE n IS 'public'",
    ] {
        assert_eq!(ann.fails(sql), "42501", "{sql}");
    }
    for (call, action) in actions {
        world.boss.run(&format!("SELECT {call}"));
        let audited =
            format!("SELECT count(*) FROM steward.audit_log WHERE action = '{action}' AND acting_role = 'postgres'");
        assert_eq!(world.boss.line(&audited), "1", "{action}");
    }
    // Granted on purpose it works, and its deed is written down under the role's name.
    world.boss.run("GRANT EXECUTE ON FUNCTION steward.cache_clear() TO @ann");
    ann.run("SELECT steward.cache_clear()");
    assert_eq!(
        world
            .boss
            .line("SELECT session_role = '@ann' AND acting_role = '@ann' FROM steward.audit_log ORDER BY 1 LIMIT 1")
            .len(),
        1
    );
    assert_eq!(world.boss.line("SELECT count(*) FROM steward.audit_log WHERE acting_role = '@ann'"), "1");
    // What an action did is undone with its transaction, and so is its line.
    ann.run("BEGIN; SELECT steward.cache_clear(); ROLLBACK");
    assert_eq!(world.boss.line("SELECT count(*) FROM steward.audit_log WHERE acting_role = '@ann'"), "1");
}

#[test]
fn only_the_callers_rights_count_inside_definer_functions() {
    let mut readers = Readers::new("definer_calls");
    let boss = &mut readers.world.boss;
    boss.run(
        "GRANT USAGE ON SCHEMA steward TO @definer;
         CREATE FUNCTION app.through() RETURNS json STABLE SECURITY DEFINER LANGUAGE sql AS
             $$ SELECT steward.cached_json('SELECT id, current_user = ''@definer'' AS is_definer FROM app.n ORDER BY id') $$;
         CREATE FUNCTION app.invoking() RETURNS json STABLE LANGUAGE sql AS
             $$ SELECT steward.cached_json('SELECT id FROM app.n ORDER BY id') $$;
         ALTER FUNCTION app.through() OWNER TO @definer",
    );
    readers.world.boss.warm("SELECT id FROM app.n ORDER BY id");
    for _ in 0..3 {
        let seen = readers.ann.line("SELECT json_array_length(app.through()), app.through() -> 0 ->> 'is_definer'");
        assert_eq!(seen, "4|true");
        assert_eq!(readers.ann.fails("SELECT app.invoking()"), "42501");
        assert_eq!(readers.ann.cached("SELECT id FROM app.n ORDER BY id").failure().code, "42501");
    }
    readers.world.boss.run("REVOKE SELECT ON app.n FROM @definer");
    assert_eq!(readers.ann.fails("SELECT app.through()"), "42501");
}
