//! Analysts' questions: few, and slow.

use crate::app::{App, commented, traceparent};
use crate::sql::named;
use anyhow::{Result, ensure};
use postgres::Client;
use postgres::types::ToSql;
use std::thread;
use std::time::Duration;

const REGIONS: [&str; 5] = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"];
const SEGMENTS: [&str; 3] = ["BUILDING", "MACHINERY", "FURNITURE"];
/// Requests of this part, apart from those of the order pages.
const FIRST_REQUEST: u32 = 1000;

/// Runs every report a few times with changing parameters.
pub fn all(app: &App) -> Result<String> {
    let mut client = app.connect("analyst", "reporting")?;
    let mut runs = 0;
    for region in REGIONS {
        runs += report(&mut client, "revenue_by_nation", &region, runs)?;
    }
    for segment in SEGMENTS {
        runs += report(&mut client, "margin_by_customer", &segment, runs)?;
        if segment == SEGMENTS[0] {
            explain_next(app, &mut client, "%AS margin%")?;
        }
    }
    for days in [0, 120, 240] {
        for name in ["late_by_shipmode", "unsold_parts", "running_balance", "bought_together"] {
            runs += report(&mut client, name, &days, runs)?;
        }
    }
    Ok(format!("{runs} analytic queries, one of them with actual rows by arm_explain()"))
}

/// One report; the trace header comes by comment or by setting, turn about.
fn report(client: &mut Client, name: &str, parameter: &(dyn ToSql + Sync), runs: u32) -> Result<u32> {
    let request = FIRST_REQUEST + runs;
    if runs.is_multiple_of(2) {
        client.query(&commented(named(name)?, request, &format!("/reports/{name}")), &[parameter])?;
        return Ok(1);
    }
    let mut transaction = client.transaction()?;
    let set = "SELECT set_config('pg_steward.traceparent', $1, true), set_config('pg_steward.request_id', $2, true)";
    transaction.query(set, &[&traceparent(request), &format!("report-{request}")])?;
    transaction.query(named(name)?, &[parameter])?;
    transaction.commit()?;
    Ok(1)
}

/// A DBA wants to know where the time of a slow statement goes, the next time that it runs.
fn explain_next(app: &App, reporting: &mut Client, like: &str) -> Result<()> {
    let mut admin = app.admin("psql")?;
    let arm = "SELECT steward.arm_explain(queryid, 1) FROM steward.statements
               WHERE query LIKE $1 AND userid = 'analyst'::regrole";
    // A backend hands in its counts at the end of a transaction, but at most once a second: keep it awake.
    for _ in 0..20 {
        if !admin.query(arm, &[&like])?.is_empty() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
        reporting.batch_execute("SELECT 1")?;
    }
    ensure!(false, "no statement LIKE '{like}' has been captured");
    Ok(())
}
