//! The night batch: COPY both ways, bulk changes, a cursor, a DO block, PREPARE and EXECUTE, maintenance.

use crate::app::App;
use crate::sql::named;
use anyhow::Result;
use postgres::Client;
use std::fmt::Write as _;
use std::io::{Read, Write};

const PRICES: i64 = 5000;

pub fn night(app: &App) -> Result<String> {
    let mut client = app.connect("batch", "night-batch")?;
    let changed = import_prices(&mut client, PRICES.min(app.parts))?;
    let exported = export(&mut client)?;
    walk_cursor(&mut client)?;
    client.batch_execute(named("stock_check")?)?;
    prepare_and_execute(&mut client)?;
    client.batch_execute(named("refresh")?)?;
    app.admin("maintenance")?.batch_execute("VACUUM (ANALYZE) part")?;
    Ok(format!("{changed} prices changed by COPY and UPDATE, {exported} bytes exported, a cursor, a DO block"))
}

fn import_prices(client: &mut Client, count: i64) -> Result<u64> {
    let mut rows = String::new();
    for part in 1..=count {
        writeln!(rows, "{part}\t{}.{:02}", 900 + part % 1000, part % 100)?;
    }
    client.batch_execute(named("import_clear")?)?;
    let mut copy = client.copy_in(named("import")?)?;
    copy.write_all(rows.as_bytes())?;
    copy.finish()?;
    Ok(client.execute(named("import_apply")?, &[])?)
}

fn export(client: &mut Client) -> Result<usize> {
    let mut bytes = Vec::new();
    Ok(client.copy_out(named("export")?)?.read_to_end(&mut bytes)?)
}

/// Stops before the end, as a reader that has seen enough.
fn walk_cursor(client: &mut Client) -> Result<()> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute(named("cursor_open")?)?;
    for _ in 0..5 {
        transaction.simple_query(named("cursor_fetch")?)?;
    }
    transaction.batch_execute(named("cursor_close")?)?;
    Ok(transaction.commit()?)
}

fn prepare_and_execute(client: &mut Client) -> Result<()> {
    client.batch_execute(named("prepare")?)?;
    for nation in 0..25 {
        client.simple_query(&format!("EXECUTE nation_balance({nation})"))?;
    }
    Ok(client.batch_execute(named("deallocate")?)?)
}
