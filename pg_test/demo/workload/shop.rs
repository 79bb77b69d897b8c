//! The web shop: look-ups, a dashboard, pages that ask once per row, orders, and an index lost on the way.

use crate::app::{App, Keys, commented};
use crate::sql::named;
use anyhow::Result;
use postgres::Client;
use std::thread;
use std::time::Duration;

const LOOK_UPS: usize = 3000;
const PAGES: u32 = 24;
const ORDERS: usize = 250;
/// Visitors come one by one: pg_steward records a change of plan at most every 10 seconds, lest plans alternate.
const BETWEEN_VISITS: Duration = Duration::from_millis(38);

/// Two web processes take turns with prepared point look-ups.
pub fn look_ups(app: &App) -> Result<String> {
    let mut webs = [app.connect("shop", "shop-web-1")?, app.connect("shop", "shop-web-2")?];
    let mut prepared = Vec::new();
    for web in &mut webs {
        let customer = web.prepare(named("customer_by_key")?)?;
        let part = web.prepare(named("part_by_key")?)?;
        let offers = web.prepare(named("offers_of_part")?)?;
        prepared.push((customer, part, offers));
    }
    let mut keys = Keys::seeded(1);
    for turn in 0..LOOK_UPS {
        let web = &mut webs[turn % 2];
        let (customer, part, offers) = &prepared[turn % 2];
        web.query(customer, &[&keys.next(app.customers)])?;
        let key = keys.next(app.parts);
        web.query(part, &[&key])?;
        web.query(offers, &[&key])?;
    }
    Ok(format!("{} prepared look-ups on 2 connections", 3 * LOOK_UPS))
}

/// An operator's screen, refreshed now and then, and searches that no index helps.
pub fn dashboard(app: &App) -> Result<String> {
    let mut client = app.connect("shop", "shop-admin")?;
    let mut keys = Keys::seeded(2);
    for _ in 0..60 {
        client.query(named("dashboard_states")?, &[&keys.day()])?;
        client.query(named("dashboard_late")?, &[&keys.day()])?;
    }
    for colour in ["azure", "ivory", "maroon", "peru", "saddle", "thistle"] {
        for _ in 0..10 {
            client.query(named("search_parts")?, &[&format!("%{colour}%")])?;
        }
    }
    Ok("60 refreshes of the order dashboard, 60 searches".to_owned())
}

/// The pattern named N+1: one query for a page's orders, then one more for each of them.
pub fn order_pages(app: &App) -> Result<String> {
    let mut client = app.connect("shop", "shop-api")?;
    let mut keys = Keys::seeded(3);
    let mut queries = 0;
    for page in 1..=PAGES {
        let day = keys.day();
        queries += if page % 2 == 0 {
            page_in_transaction(&mut client, page, day)?
        } else {
            page_by_request(&mut client, page, day)?
        };
    }
    Ok(format!("{PAGES} order pages took {queries} queries (N+1)"))
}

/// Within one transaction, the request named by a setting.
fn page_in_transaction(client: &mut Client, page: u32, day: i32) -> Result<usize> {
    let mut transaction = client.transaction()?;
    let request = format!("order-page-{page}");
    transaction.query("SELECT set_config('pg_steward.request_id', $1, true)", &[&request])?;
    let orders = transaction.query(&commented(named("orders_of_day")?, page, "/orders/day"), &[&day])?;
    let lines = transaction.prepare(&commented(named("lines_of_order")?, page, "/orders/day"))?;
    for order in &orders {
        transaction.query(&lines, &[&order.get::<_, i64>(0)])?;
    }
    transaction.commit()?;
    Ok(orders.len() + 2)
}

/// Each query is a transaction of its own; only the request they serve holds them together.
fn page_by_request(client: &mut Client, page: u32, day: i32) -> Result<usize> {
    let request = format!("order-page-{page}");
    client.query("SELECT set_config('pg_steward.request_id', $1, false)", &[&request])?;
    let orders = client.query(named("orders_of_day")?, &[&day])?;
    let customer = client.prepare(named("customer_by_key")?)?;
    for order in &orders {
        client.query(&customer, &[&order.get::<_, i64>(1)])?;
    }
    client.query("SELECT set_config('pg_steward.request_id', '', false)", &[])?;
    Ok(orders.len() + 3)
}

/// A function with nested statements, a trigger and an exception caught inside.
pub fn place_orders(app: &App) -> Result<String> {
    let mut client = app.connect("shop", "shop-api")?;
    let place = client.prepare(named("place_order")?)?;
    let mut keys = Keys::seeded(4);
    for turn in 0..ORDERS {
        let parts: Vec<i64> = (0..3).map(|_| keys.next(app.parts)).collect();
        // Now and then somebody wants more than there is.
        let quantity = if turn % 10 == 0 { 20_000 } else { 2 };
        client.query(&place, &[&keys.next(app.customers), &parts, &quantity])?;
    }
    Ok(format!("{ORDERS} orders through place_order() and a trigger"))
}

/// The same query on an index, without it, and on it again, as after a migration that forgot one.
pub fn portal_loses_its_index(app: &App) -> Result<String> {
    let mut portal = app.connect("portal", "customer-portal")?;
    let mut migration = app.admin("migration")?;
    let mut keys = Keys::seeded(5);
    let mut visits = |count: usize| -> Result<()> {
        for _ in 0..count {
            portal.query(named("last_orders")?, &[&keys.next(app.customers)])?;
            thread::sleep(BETWEEN_VISITS);
        }
        Ok(())
    };
    visits(300)?;
    migration.batch_execute("DROP INDEX orders_customer")?;
    visits(300)?;
    migration.batch_execute("CREATE INDEX orders_customer ON orders (o_custkey)")?;
    visits(300)?;
    Ok("900 visits; an index is dropped and made again meanwhile".to_owned())
}
