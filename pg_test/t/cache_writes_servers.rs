//! Writes that come from elsewhere: another server, a dump, a session that dies.

use super::probe::{self, PATIENCE, Watch, ask, cached, direct, run};
use std::process::Stdio;
use steward_test::{Cluster, wait_until};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v int)";
const SUM: &str = "SELECT count(*), sum(v) FROM public.t";

/// Waits until the subscriber has what the publisher has; all that counts is that the cached call then agrees.
fn arrives(publisher: &mut postgres::Client, watch: &mut Watch, what: &str) {
    let expected = direct(publisher, SUM);
    let mut direct_session = || direct(&mut watch.writer, SUM) == expected;
    assert!(wait_until(PATIENCE, &mut direct_session), "{what} does not arrive");
    let [near, far] = [&mut watch.near, &mut watch.far].map(|client| cached(client, SUM));
    assert_eq!((near.as_str(), far.as_str()), (expected.as_str(), expected.as_str()), "{what}");
}

fn subscribe(name: &str, counts: &str) {
    let publisher = Cluster::new(&format!("{name}P")).conf("wal_level", "logical").start().expect("publisher");
    let mut source = publisher.client("postgres").expect("client");
    run(
        &mut source,
        &format!(
            "{TABLES}; INSERT INTO t SELECT n, n FROM generate_series(1, 10) AS n; CREATE PUBLICATION p FOR TABLE t"
        ),
    );
    let subscriber = probe::builder(name)
        .conf("track_counts", counts)
        .conf("wal_retrieve_retry_interval", "100ms")
        .start()
        .expect("subscriber");
    probe::create_database(&subscriber, name);
    subscriber.psql(name, TABLES).expect("table");
    // Readers count, or their calls would not be served at all.
    subscriber
        .psql("postgres", &format!("ALTER ROLE postgres IN DATABASE {name} SET track_counts = on"))
        .expect("role");
    let mut watch = Watch::begin(&subscriber, name, name, "", SUM);
    let link = format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port={} user=postgres dbname=postgres' PUBLICATION p",
        publisher.host().display(),
        publisher.port()
    );
    // The worker's settings come from the file again, like those of any later session.
    run(&mut watch.writer, &format!("ALTER ROLE postgres IN DATABASE {name} RESET track_counts"));
    run(&mut watch.writer, &link);
    arrives(&mut source, &mut watch, "the first copy");
    for (what, sql) in [
        ("INSERT", "INSERT INTO t VALUES (100, 100)"),
        ("UPDATE", "UPDATE t SET v = v + 1 WHERE id = 1"),
        ("DELETE", "DELETE FROM t WHERE id = 2"),
        ("many", "BEGIN; UPDATE t SET v = v + 1; DELETE FROM t WHERE id = 3; COMMIT"),
        ("TRUNCATE", "TRUNCATE t"),
        ("after it", "INSERT INTO t VALUES (7, 7)"),
    ] {
        // Without counts each transaction of the worker, which has more of them than these, invalidates everything.
        if counts == "on" {
            watch.warm();
        }
        for client in [&mut watch.near, &mut watch.far] {
            cached(client, SUM);
        }
        run(&mut source, sql);
        arrives(&mut source, &mut watch, what);
    }
    run(&mut watch.writer, "DROP SUBSCRIPTION s");
    drop(source);
}

#[test]
fn a_subscription_applies() {
    subscribe("applies", "on");
}

#[test]
fn a_subscription_applies_without_counting() {
    subscribe("blindly", "off");
}

#[test]
fn a_dump_is_restored() {
    let cluster = probe::builder("restored").start().expect("server");
    probe::create_database(&cluster, "restored");
    run(&mut cluster.client("restored").expect("client"), &format!("{TABLES}; INSERT INTO t VALUES (1, 1), (2, 2)"));
    for (what, dump, restore) in [
        ("data", &["--data-only", "--table=t", "--format=custom"][..], &["--data-only"][..]),
        ("table", &["--table=t", "--format=custom"], &["--clean"]),
        ("at once", &["--table=t", "--format=custom"], &["--clean", "--single-transaction"]),
    ] {
        let arguments = |program: &str, more: &[&str]| {
            let mut command = cluster.installation().program(program);
            command.args(["-U", "postgres", "-p", &cluster.port().to_string(), "-d", "restored", "-h"]);
            command.arg(cluster.host()).args(more).current_dir("/");
            command
        };
        let dumped = arguments("pg_dump", dump).output().expect("pg_dump");
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        run(&mut cluster.client("restored").expect("client"), "TRUNCATE t; INSERT INTO t VALUES (3, 3)");
        let mut watch = Watch::begin(&cluster, "restored", &format!("dump_{}", what.replace(' ', "_")), "", SUM);
        let mut restoring = arguments("pg_restore", restore);
        let mut restoring = restoring.stdin(Stdio::piped()).spawn().expect("pg_restore");
        let mut input = restoring.stdin.take().expect("input");
        std::io::Write::write_all(&mut input, &dumped.stdout).expect("write");
        drop(input);
        assert!(restoring.wait().expect("pg_restore").success(), "{what}");
        watch.assert_follows(true);
    }
}

#[test]
fn a_session_is_ended_in_the_middle() {
    let cluster = probe::builder("ended").start().expect("server");
    probe::create_database(&cluster, "ended");
    let setup = "CREATE TABLE public.t (id int, v int); INSERT INTO public.t VALUES (1, 1)";
    let mut watch = Watch::begin(&cluster, "ended", "ended", setup, SUM);
    let mut victim = cluster.client("ended").expect("client");
    let pid = ask(&mut victim, "SELECT pg_backend_pid()");
    run(&mut victim, "BEGIN; UPDATE public.t SET v = 9; SELECT steward.cached_json('SELECT 1 AS n')");
    run(&mut watch.writer, &format!("SELECT pg_terminate_backend({pid}, 10000)"));
    watch.assert_known("ended");
    run(&mut watch.writer, "UPDATE public.t SET v = 2");
    watch.assert_follows(true);
}

#[test]
fn a_session_is_killed_in_the_middle() {
    let cluster = probe::builder("killed").start().expect("server");
    probe::create_database(&cluster, "killed");
    let setup = "CREATE TABLE public.t (id int, v int); INSERT INTO public.t VALUES (1, 1)";
    let watch = Watch::begin(&cluster, "killed", "killed", setup, SUM);
    let mut victim = cluster.client("killed").expect("client");
    let pid: i32 = ask(&mut victim, "SELECT pg_backend_pid()").parse().expect("pid");
    run(&mut victim, "BEGIN; UPDATE t SET v = 9");
    let mark = cluster.log_mark();
    cluster.kill9(pid).expect("kill");
    let is_back = |line: &String| line.contains("ready to accept connections");
    assert!(wait_until(PATIENCE, || cluster.log_lines_since(mark).iter().any(is_back)));
    cluster.wait_ready(PATIENCE).expect("ready");
    drop((watch, victim));
    let mut client = probe::session(&cluster, "killed");
    assert!(probe::count(&mut client, "entries") <= 1, "shared memory is new");
    for round in 0..3 {
        assert_eq!(cached(&mut client, SUM), direct(&mut client, SUM));
        assert_eq!(cached(&mut client, SUM), direct(&mut client, SUM));
        run(&mut client, &format!("UPDATE t SET v = {round} + 20"));
    }
    assert!(probe::count(&mut client, "local_hits") > 0);
}
