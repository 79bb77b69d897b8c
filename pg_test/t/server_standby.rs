//! A streaming standby: it counts and records for itself, writes nothing, and writes when it is promoted.

use super::*;

#[test]
fn a_standby_records_in_memory_and_writes_after_promotion() -> Result<()> {
    let primary = steward("primary").start()?;
    install(&primary, "postgres")?;
    record(&primary, "postgres", "on_primary")?;
    wait_stored(&primary, "postgres", "on_primary", 1)?;
    let standby = primary.standby()?;
    standby.wait_caught_up(&primary, PATIENCE)?;
    launcher(&standby)?;

    record(&standby, "postgres", "on_standby")?;
    let seen = |mark: &str| format!("SELECT count(*) FROM steward.slow_queries WHERE {}", marked(mark));
    ensure!(number(&standby, "postgres", &seen("on_standby"))? == 1, "its own, from the ring");
    ensure!(number(&standby, "postgres", &seen("on_primary"))? == 1, "the primary's, replicated");
    ensure!(
        number(
            &standby,
            "postgres",
            "SELECT count(*) FROM steward.ring_events() WHERE payload LIKE '%on_standby%' AND payload LIKE '%SELECT $1%'"
        )? == 1
    );
    ensure!(stored(&standby, "postgres", "on_standby")? == 0);
    let counted = "SELECT sum(calls) FROM steward.statements WHERE query = 'SELECT $1'";
    ensure!(number(&standby, "postgres", counted)? == 1);
    ensure!(number(&primary, "postgres", &seen("on_standby"))? == 0);

    // An action on a standby cannot be written down in a table: its line is in the log.
    standby.psql("postgres", "SELECT steward.statements_reset(0, 0, 1)")?;
    let audited = |line: &str| line.contains("audit: statements_reset");
    ensure!(standby.log().lines().any(audited), "no audit line on the standby");
    ensure!(number(&standby, "postgres", "SELECT count(*) FROM steward.audit_log")? == 0);
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_steward coordinator'";
    ensure!(number(&standby, "postgres", workers)? == 0);

    standby.promote()?;
    wait_stored(&standby, "postgres", "on_standby", 1)?;
    record(&standby, "postgres", "promoted")?;
    wait_stored(&standby, "postgres", "promoted", 1)?;
    ensure!(stored(&standby, "postgres", "on_primary")? == 1);
    ensure!(number(&standby, "postgres", &seen("on_standby"))? == 1, "stored and ring are one");
    standby.psql("postgres", "SELECT steward.statements_reset(0, 0, 1)")?;
    ensure!(number(&standby, "postgres", "SELECT count(*) FROM steward.audit_log")? == 1);
    let unique =
        "SELECT count(*) = count(DISTINCT event_id) FROM steward.slow_executions WHERE application_name LIKE 'on_%'";
    ensure!(standby.psql("postgres", unique)? == "t");
    primary.check_log(&[])?;
    standby.check_log(&["could not receive data from WAL stream", "terminating walreceiver"])
}
