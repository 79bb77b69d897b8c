//! Whole servers: one session computes for many, leaders go away, memory is full, roles have quotas, servers restart.

#[path = "cache_server_memory.rs"]
mod memory;
#[path = "cache_writes_probe.rs"]
mod probe;

use postgres::Client;
use probe::{PATIENCE, ask, cached, count, create_database, direct, misses, run, session, state};
use std::thread::JoinHandle;
use steward_test::{Builder, Cluster, wait_until};

const SETUP: &str = "CREATE TABLE size (n bigint); CREATE TABLE other (n int); INSERT INTO other VALUES (1)";
/// As long as `size` says.
const SLOW: &str = "SELECT count(*) AS n FROM generate_series(1, (SELECT n FROM size)) AS g";
const FOLLOWERS: usize = 5;

fn start(builder: Builder, name: &str) -> Cluster {
    let cluster = builder.start().expect("server");
    create_database(&cluster, name);
    cluster
}

fn patient(name: &str) -> Cluster {
    start(probe::builder(name).conf("pg_steward.cache_wait_limit", "10s"), name)
}

/// A session that computes the slow query, and its process id.
fn lead(cluster: &Cluster, name: &str, watcher: &mut Client) -> (i32, JoinHandle<Result<(), postgres::Error>>) {
    let mut leader = session(cluster, name);
    let pid: i32 = ask(&mut leader, "SELECT pg_backend_pid()").parse().expect("pid");
    let missed = count(watcher, "misses");
    let call = format!("SELECT steward.cached_json('{SLOW}')");
    let thread = std::thread::spawn(move || leader.batch_execute(&call));
    // A miss is counted when the lease has been asked for.
    assert!(wait_until(PATIENCE, || count(watcher, "misses") > missed), "the leader does not start");
    (pid, thread)
}

/// Sessions that ask for the same.
fn follow(cluster: &Cluster, name: &str) -> Vec<JoinHandle<(String, String)>> {
    let one = || {
        let mut client = session(cluster, name);
        std::thread::spawn(move || (cached(&mut client, SLOW), direct(&mut client, SLOW)))
    };
    (0..FOLLOWERS).map(|_| one()).collect()
}

fn assert_all_right(followers: Vec<JoinHandle<(String, String)>>) {
    for follower in followers {
        let (cached, direct) = follower.join().expect("follower");
        assert_eq!(cached, direct);
    }
}

fn wait_for_waiters(watcher: &mut Client, before: i64) {
    let all = before + FOLLOWERS as i64;
    assert!(wait_until(PATIENCE, || count(watcher, "waits") >= all), "nobody waits: {}", count(watcher, "waits"));
}

#[test]
fn one_computes_for_all() {
    let cluster = patient("single");
    let mut watcher = session(&cluster, "single");
    run(&mut watcher, &format!("{SETUP}; INSERT INTO size VALUES (3000000)"));
    // Whoever wins, one of them runs the query and the others wait for it; nothing was known of it before, so they wait
    // until the limit.
    let (_, leader) = lead(&cluster, "single", &mut watcher);
    let followers: Vec<_> = (0..FOLLOWERS)
        .map(|_| {
            let mut client = session(&cluster, "single");
            std::thread::spawn(move || cached(&mut client, SLOW))
        })
        .collect();
    let answers: Vec<String> = followers.into_iter().map(|thread| thread.join().expect("follower")).collect();
    leader.join().expect("leader").expect("answer");
    assert!(answers.iter().all(|answer| *answer == direct(&mut watcher, SLOW)));
    let stored = "SELECT sum(stored) FROM steward.cache_query_stats WHERE query LIKE '%FROM size%'";
    assert_eq!(ask(&mut watcher, stored), "1", "it was computed more than once");
    assert!(count(&mut watcher, "waits_served") + count(&mut watcher, "shared_hits") > 0);
    assert_eq!(count(&mut watcher, "waits_timed_out"), 0);
}

#[test]
fn a_leader_that_goes_blocks_nobody() {
    for (name, end) in [("cancelled", "pg_cancel_backend"), ("terminated", "pg_terminate_backend")] {
        let cluster = patient(name);
        let mut watcher = session(&cluster, name);
        run(&mut watcher, &format!("{SETUP}; INSERT INTO size VALUES (1000000000000)"));
        let (pid, leader) = lead(&cluster, name, &mut watcher);
        // What the leader computes would take days; for snapshots from now on it is quick.
        run(&mut watcher, "UPDATE size SET n = 10");
        let waits = count(&mut watcher, "waits");
        let followers = follow(&cluster, name);
        wait_for_waiters(&mut watcher, waits);
        run(&mut watcher, &format!("SELECT {end}({pid})"));
        assert!(leader.join().expect("leader").is_err());
        assert_all_right(followers);
        assert_eq!(cached(&mut watcher, SLOW), direct(&mut watcher, SLOW));
        let mut again = session(&cluster, name);
        assert_eq!(state(&mut again, SLOW), "shared");
    }
}

#[test]
fn followers_wait_no_longer_than_the_limit() {
    let cluster = start(probe::builder("limited").conf("pg_steward.cache_wait_limit", "20ms"), "limited");
    let mut watcher = session(&cluster, "limited");
    run(&mut watcher, &format!("{SETUP}; INSERT INTO size VALUES (1000000000000)"));
    let (pid, leader) = lead(&cluster, "limited", &mut watcher);
    run(&mut watcher, "UPDATE size SET n = 10");
    assert_all_right(follow(&cluster, "limited"));
    // All have answered, and it still computes.
    assert_eq!(ask(&mut watcher, &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}")), "active");
    assert!(count(&mut watcher, "waits_timed_out") > 0);
    run(&mut watcher, &format!("SELECT pg_cancel_backend({pid})"));
    assert!(leader.join().expect("leader").is_err());
    assert_eq!(cached(&mut watcher, SLOW), direct(&mut watcher, SLOW), "what the leader began is not kept");
}

#[test]
fn who_may_be_waited_for_does_not_wait() {
    let cluster = patient("holding");
    let mut watcher = session(&cluster, "holding");
    run(&mut watcher, &format!("{SETUP}; INSERT INTO size VALUES (1000000000000)"));
    let (pid, leader) = lead(&cluster, "holding", &mut watcher);
    run(&mut watcher, "UPDATE size SET n = 10");
    let mut holder = session(&cluster, "holding");
    for held in [
        "INSERT INTO other VALUES (2)",
        "SELECT * FROM other FOR UPDATE",
        "LOCK TABLE other IN EXCLUSIVE MODE",
        "SELECT pg_advisory_xact_lock(1)",
    ] {
        let waits = count(&mut watcher, "waits");
        run(&mut holder, &format!("BEGIN; {held}"));
        assert_eq!(cached(&mut holder, SLOW), direct(&mut holder, SLOW), "{held}");
        run(&mut holder, "ROLLBACK");
        assert_eq!(count(&mut watcher, "waits"), waits, "{held}");
        run(&mut watcher, "UPDATE size SET n = n + 1");
    }
    run(&mut watcher, &format!("SELECT pg_cancel_backend({pid})"));
    assert!(leader.join().expect("leader").is_err());
}

#[test]
fn a_query_that_is_cancelled_leaves_nothing() {
    let cluster = start(probe::builder("timeout"), "timeout");
    let mut client = session(&cluster, "timeout");
    run(&mut client, &format!("{SETUP}; INSERT INTO size VALUES (1000000000000)"));
    let [entries, used] = ["entries", "used_bytes"].map(|column| count(&mut client, column));
    for _ in 0..5 {
        run(&mut client, "SET statement_timeout = '50ms'");
        let failed = client.batch_execute(&format!("SELECT steward.cached_json('{SLOW}')"));
        assert_eq!(failed.expect_err("timeout").code().map(|state| state.code()), Some("57014"));
        run(&mut client, "RESET statement_timeout");
    }
    assert_eq!(count(&mut client, "entries"), entries);
    assert_eq!(count(&mut client, "used_bytes"), used);
    run(&mut client, "UPDATE size SET n = 10");
    assert_eq!(cached(&mut client, SLOW), direct(&mut client, SLOW));
    assert_eq!(state(&mut client, SLOW), "local");
}

/// A row of some kilobytes, which no compression makes small.
fn large(number: u32) -> String {
    format!(
        "SELECT {number} AS n, (SELECT string_agg(md5(i::text || {number}), '') FROM generate_series(1, 100) AS i) AS v FROM other"
    )
}

#[test]
fn what_is_worth_least_gives_way() {
    let builder =
        probe::builder("crowded").conf("pg_steward.cache_size", "1MB").conf("pg_steward.cache_local_size", "64kB");
    let cluster = start(builder, "crowded");
    let mut clients = [(), ()].map(|()| session(&cluster, "crowded"));
    run(&mut clients[0], SETUP);
    let mut hot = 0;
    for number in 0..600 {
        for client in &mut clients {
            assert_eq!(cached(client, &large(number)), direct(client, &large(number)));
        }
        if number % 2 == 0 {
            let client = &mut clients[number as usize / 2 % 2];
            hot += u32::from(["local", "shared"].contains(&state(client, &large(0)).as_str()));
            cached(client, &large(0));
        }
        if number % 50 == 0 {
            let [used, capacity] = ["used_bytes", "capacity_bytes"].map(|column| count(&mut clients[0], column));
            assert!(used <= capacity, "{used} {capacity}");
        }
    }
    let client = &mut clients[0];
    let counts = ["used_bytes", "capacity_bytes", "evictions", "entries", "stored", "local_evictions"];
    let [used, capacity, evictions, entries, stored, local] = counts.map(|column| count(client, column));
    assert!(used <= capacity && capacity <= 1024 * 1024 && used > capacity / 2, "{used} {capacity}");
    assert!(evictions > 100 && local > 100, "{evictions} {local}");
    let gone: i64 =
        ["replaced", "invalidations", "expirations", "dropped"].map(|column| count(client, column)).iter().sum();
    assert_eq!(entries, stored - evictions - gone, "each that was stored is there or was counted");
    assert!(hot > 200, "what is used often stays: {hot} of 300");
    run(client, "UPDATE other SET n = 2");
    for number in (0..600).step_by(7) {
        assert_eq!(cached(client, &large(number)), direct(client, &large(number)));
    }
}

#[test]
fn a_role_fills_no_more_than_its_quota() {
    let cluster = start(probe::builder("quota"), "quota");
    let mut owner = session(&cluster, "quota");
    run(&mut owner, &format!("{SETUP}; CREATE ROLE eager LOGIN; GRANT SELECT ON other TO eager"));
    run(&mut owner, "UPDATE steward.cache_classes SET role_quota = 20000 WHERE name = 'utility'");
    let mut eager = probe::session_as(&cluster, "eager", "quota");
    for number in 0..20 {
        assert_eq!(cached(&mut eager, &large(number)), direct(&mut eager, &large(number)));
    }
    let stored = |owner: &mut Client, role: &str| {
        let sql =
            format!("SELECT coalesce(sum(size_bytes), 0) FROM steward.cache_entries WHERE userid = '{role}'::regrole");
        ask(owner, &sql).parse::<i64>().expect("a number")
    };
    let size = stored(&mut owner, "eager");
    assert!(size > 5000 && size <= 20000, "{size}");
    assert!(misses(&mut owner, "quota") > 0);
    assert_eq!(cached(&mut owner, &large(100)), direct(&mut owner, &large(100)));
    assert!(stored(&mut owner, "postgres") > 0, "another role's quota is its own");
    // What goes makes room again.
    run(&mut owner, "SELECT steward.cache_clear()");
    let refused = misses(&mut owner, "quota");
    assert_eq!(cached(&mut eager, &large(30)), direct(&mut eager, &large(30)));
    assert_eq!(misses(&mut owner, "quota"), refused);
    assert!(stored(&mut owner, "eager") > 0);
}

#[test]
fn results_that_nobody_uses_are_stored_no_more() {
    let cluster = start(probe::builder("demoted").conf("pg_steward.cache_admission_window", "60s"), "demoted");
    let mut client = session(&cluster, "demoted");
    run(&mut client, SETUP);
    const QUERY: &str = "SELECT sum(n) FROM other";
    for _ in 0..30 {
        run(&mut client, "UPDATE other SET n = n + 1");
        assert_eq!(cached(&mut client, QUERY), direct(&mut client, QUERY));
    }
    assert!(misses(&mut client, "demoted") > 10, "{}", misses(&mut client, "demoted"));
    assert!(count(&mut client, "stored") < 20);
}

#[test]
fn a_restart_begins_with_an_empty_cache() {
    let cluster = start(probe::builder("restart"), "restart");
    let mut client = session(&cluster, "restart");
    run(&mut client, SETUP);
    const QUERY: &str = "SELECT sum(n) FROM other";
    cached(&mut client, QUERY);
    assert!(count(&mut client, "entries") > 0);
    drop(client);
    cluster.restart().expect("restart");
    let mut client = cluster.client("restart").expect("client");
    assert_eq!(count(&mut client, "entries"), 0);
    cached(&mut client, "SELECT 1 AS first");
    assert_eq!(state(&mut client, QUERY), "absent");
    assert_eq!(cached(&mut client, QUERY), direct(&mut client, QUERY));
    assert_eq!(state(&mut client, QUERY), "local");
    cluster.check_log(&[]).expect("log");
}

/// Writes are followed whether or not anybody uses the cache at that moment.
#[test]
fn switched_off_and_on() {
    let cluster = start(probe::builder("switched"), "switched");
    let [mut near, mut writer] = [(), ()].map(|()| session(&cluster, "switched"));
    run(&mut writer, SETUP);
    const QUERY: &str = "SELECT sum(n) FROM other";
    cached(&mut near, QUERY);
    run(&mut writer, "SET pg_steward.cache_enabled = off; UPDATE other SET n = 7");
    assert_eq!(cached(&mut near, QUERY), direct(&mut writer, QUERY), "off where it is written");
    cached(&mut near, QUERY);
    run(&mut near, "SET pg_steward.cache_enabled = off");
    run(&mut writer, "UPDATE other SET n = 8");
    assert_eq!(cached(&mut near, QUERY), direct(&mut writer, QUERY), "off where it is read");
    run(&mut near, "SET pg_steward.cache_enabled = on");
    assert_eq!(cached(&mut near, QUERY), direct(&mut writer, QUERY), "on again");
}
