//! What goes wrong in a day: errors, time-outs, a deadlock, a cancelled and a terminated session.

use crate::app::{App, commented};
use crate::sql::named;
use anyhow::{Context, Result, bail, ensure};
use postgres::error::SqlState;
use postgres::{Client, Error};
use std::thread;
use std::time::{Duration, Instant};

/// How long a statement may take to show up as running.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it then runs before it is stopped: above the threshold for slow executions.
const LET_RUN: Duration = Duration::from_millis(400);

/// Every kind of failure, each checked to be the one meant.
pub fn all(app: &App) -> Result<String> {
    plain_errors(app)?;
    statement_timeout(app)?;
    lock_timeout(app)?;
    deadlock(app)?;
    stopped(app, "pg_cancel_backend", &SqlState::QUERY_CANCELED)?;
    stopped(app, "pg_terminate_backend", &SqlState::ADMIN_SHUTDOWN)?;
    Ok("errors, time-outs, a deadlock, a cancel and a termination, as planned".to_owned())
}

fn expect<T>(outcome: Result<T, Error>, state: &SqlState) -> Result<()> {
    let Err(error) = outcome else { bail!("a statement meant to fail with {} did not", state.code()) };
    let code = error.code().map(SqlState::code);
    ensure!(code == Some(state.code()), "expected SQLSTATE {}, got {error:?}", state.code());
    Ok(())
}

fn plain_errors(app: &App) -> Result<()> {
    let mut client = app.connect("shop", "shop-api")?;
    for _ in 0..5 {
        expect(client.execute(named("duplicate")?, &[&7_i64]), &SqlState::UNIQUE_VIOLATION)?;
    }
    for request in 1..=3 {
        let divide = commented(named("divide")?, 2000 + request, "/orders/share");
        expect(client.query(&divide, &[&1_i64]), &SqlState::DIVISION_BY_ZERO)?;
    }
    for _ in 0..2 {
        expect(client.simple_query(named("unknown_column")?), &SqlState::UNDEFINED_COLUMN)?;
    }
    Ok(())
}

fn statement_timeout(app: &App) -> Result<()> {
    let mut client = app.connect("analyst", "reporting")?;
    client.batch_execute("SET statement_timeout = '300ms'")?;
    for request in 1..=2 {
        let report = commented(named("same_supplier_pairs")?, 3000 + request, "/reports/pairs");
        expect(client.query(&report, &[]), &SqlState::QUERY_CANCELED)?;
    }
    Ok(())
}

/// Somebody left a transaction open.
fn lock_timeout(app: &App) -> Result<()> {
    let mut holder = app.connect("shop", "shop-web-1")?;
    let mut open = holder.transaction()?;
    open.execute(named("touch_part")?, &[&42_i64])?;
    let mut waiter = app.connect("batch", "night-batch")?;
    waiter.batch_execute("SET lock_timeout = '300ms'")?;
    expect(waiter.execute(named("touch_part")?, &[&42_i64]), &SqlState::LOCK_NOT_AVAILABLE)?;
    Ok(open.rollback()?)
}

/// Two sessions take two rows in opposite order; Postgres ends one of them, whichever sees it first.
fn deadlock(app: &App) -> Result<()> {
    let touch = named("touch_part")?;
    let mut first = app.connect("shop", "shop-web-1")?;
    let mut second = app.connect("shop", "shop-web-2")?;
    first.batch_execute("BEGIN")?;
    second.batch_execute("BEGIN")?;
    first.execute(touch, &[&1_i64])?;
    second.execute(touch, &[&2_i64])?;
    let crossing = thread::spawn(move || first.execute(touch, &[&2_i64]).map(drop));
    let mine = second.execute(touch, &[&1_i64]).map(drop);
    drop(second);
    let Ok(other) = crossing.join() else { bail!("the other session of the deadlock panicked") };
    expect(mine.and(other), &SqlState::T_R_DEADLOCK_DETECTED)
}

/// A colleague stops a statement that has run too long.
fn stopped(app: &App, by: &str, state: &SqlState) -> Result<()> {
    let mut victim = app.connect("analyst", "reporting")?;
    let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let statement = named("same_supplier_pairs")?;
    let running = thread::spawn(move || victim.query(statement, &[]).map(drop));
    let mut admin = app.admin("psql")?;
    wait_until_active(&mut admin, pid)?;
    thread::sleep(LET_RUN);
    let sent: bool = admin.query_one(&format!("SELECT {by}($1)"), &[&pid])?.get(0);
    ensure!(sent, "{by}({pid}) was refused");
    let outcome = running.join().ok().context("the session to be stopped panicked")?;
    expect(outcome, state)
}

fn wait_until_active(admin: &mut Client, pid: i32) -> Result<()> {
    let active = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
    let deadline = Instant::now() + PATIENCE;
    while admin.query_one(active, &[&pid])?.get::<_, i64>(0) == 0 {
        ensure!(Instant::now() < deadline, "the statement to be stopped did not start");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
