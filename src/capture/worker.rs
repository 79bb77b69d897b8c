//! The workers of capture: the launcher watches over own cost and over the databases; a coordinator per
//! database brings events from the ring to the tables, and keeps those within their limits.
//!
//! **Life.** The launcher is static and starts as soon as the server can be read. It connects to no
//! database. After recovery it starts one coordinator per database that may have the extension; one that
//! finds none there notes it and ends. A coordinator also ends when the extension is dropped, and when
//! somebody is about to drop or rename its database, so that it is never in the way. It holds no snapshot
//! while it waits. An event reaches its table exactly once: its id is the table's key, and the ring is told
//! only after the commit.

use super::control::{self, Counter};
use super::events::{self, Event, Presence};
use super::waits;
use crate::pg::{clock, guc, session, shield, spi, worker};
use crate::settings;
use core::time::Duration;
use std::collections::HashMap;
use steward_core::capture::degrade::{self, Level};

/// Time between two looks of the launcher at databases and own cost.
const TICK_US: i64 = 1_000_000;
/// Time between two samples of waits while a statement takes long, and while none does.
const BUSY_WAIT: Duration = Duration::from_millis(100);
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Looks between two visits to a database that had no extension; CREATE EXTENSION says so by itself, but a
/// database copied from another does not.
const LOOK_AGAIN_TICKS: u64 = 300;
/// Time between two rounds of maintenance of a coordinator.
const MAINTENANCE_US: i64 = 60_000_000;
/// Batches (of about a megabyte) that a coordinator stores before it looks up.
const MAX_BATCHES: usize = 4;

/// Registers the launcher. From `_PG_init`.
pub fn register() {
    worker::register_launcher("pg_steward launcher", "steward_launcher_main");
}

worker::main!(steward_launcher_main, launcher);
worker::main!(steward_coordinator_main, coordinator);

fn launcher(_database: u32) {
    worker::begin(0);
    let mut launcher = Launcher::default();
    let mut busy = false;
    while worker::wait(if busy { BUSY_WAIT } else { IDLE_WAIT }) {
        busy = settings::CAPTURE_ENABLED.get() && waits::sample();
        let now_us = clock::now_us();
        if now_us - launcher.ticked_us >= TICK_US {
            launcher.ticked_us = now_us;
            launcher.tick();
        }
    }
    worker::exit_for_restart();
}

#[derive(Default)]
struct Launcher {
    ticked_us: i64,
    ticks: u64,
    calm_ticks: u32,
    own_ns: u64,
    statement_ns: u64,
    coordinators: HashMap<u32, worker::Running>,
    complained: bool,
}

impl Launcher {
    fn tick(&mut self) {
        self.ticks += 1;
        self.watch_own_cost();
        if !session::in_recovery() {
            self.watch_databases();
        }
    }

    /// Compares capture's own time with that of the statements since the last tick, and goes up or down.
    fn watch_own_cost(&mut self) {
        let (own_ns, statement_ns) = (control::get(Counter::OwnNs), control::get(Counter::StatementNs));
        if own_ns < self.own_ns || statement_ns < self.statement_ns {
            // Somebody reset the counters.
            (self.own_ns, self.statement_ns) = (own_ns, statement_ns);
            return;
        }
        let own = own_ns.wrapping_sub(self.own_ns) as f64;
        let statements = statement_ns.wrapping_sub(self.statement_ns) as f64;
        // Too little ran to say anything: counts go on to the next tick.
        if statements < 1e8 {
            return;
        }
        (self.own_ns, self.statement_ns) = (own_ns, statement_ns);
        let overhead_pct = own / statements * 100.0;
        control::set(Counter::OverheadMilliPct, (overhead_pct * 1e3) as u64);
        let level = Level::from_number(control::level());
        let limit_pct = settings::OVERHEAD_LIMIT_PCT.get();
        let (next, calm_ticks) = degrade::next_level(level, overhead_pct, limit_pct, self.calm_ticks);
        self.calm_ticks = calm_ticks;
        if next != level {
            control::set(Counter::Level, next as u64);
            worker::log(&format!(
                "pg_steward: capture took {overhead_pct:.1} % of the statements' time (limit {limit_pct} %), level is now \"{}\"",
                next.name()
            ));
        }
    }

    fn watch_databases(&mut self) {
        let look_again = self.ticks % LOOK_AGAIN_TICKS == 0;
        let databases = worker::in_transaction(worker::databases);
        self.coordinators
            .retain(|oid, running| running.is_alive() && databases.iter().any(|database| database.oid == *oid));
        for database in databases {
            let presence = events::presence(database.oid);
            let wanted = presence != Presence::Absent || look_again;
            if wanted
                && !self.coordinators.contains_key(&database.oid)
                && !events::is_quiet(database.oid)
                && !events::has_worker(database.oid)
            {
                self.start(&database);
            }
        }
    }

    fn start(&mut self, database: &worker::Database) {
        let name = format!("pg_steward coordinator for {}", database.name);
        match worker::start_for_database(&name, "steward_coordinator_main", database.oid) {
            Some(running) => {
                self.coordinators.insert(database.oid, running);
                self.complained = false;
            }
            None if !self.complained => {
                self.complained = true;
                worker::log(&format!(
                    "pg_steward: no background worker is free for database \"{}\", raise max_worker_processes; captured executions wait in shared memory",
                    database.name
                ));
            }
            None => {}
        }
    }
}

fn coordinator(database: u32) {
    worker::begin(database);
    // What this worker runs for capture is no work of the server's users: it would feed itself.
    guc::override_setting(c"pg_steward.capture_enabled", c"off");
    if !events::claim_worker(database) {
        return;
    }
    let mut coordinator = Coordinator { maintained_us: 0, reported: 0 };
    loop {
        let creations = events::creations(database);
        if !worker::in_transaction(worker::holds_extension) {
            events::set_absent(database, creations);
            break;
        }
        events::set_present(database);
        coordinator.work();
        let interval_ms = settings::DRAIN_INTERVAL_MS.get().max(1) as u64;
        if !worker::wait(Duration::from_millis(interval_ms)) {
            // The ring is gone after a stop of the server; but who wants the database must not wait for us.
            if !events::is_quiet(database) {
                coordinator.work();
            }
            break;
        }
    }
    events::release_worker(database);
}

struct Coordinator {
    maintained_us: i64,
    /// Events that could not be stored, as far as the log knows.
    reported: u64,
}

impl Coordinator {
    fn work(&mut self) {
        let now_us = clock::now_us();
        let due = now_us - self.maintained_us >= MAINTENANCE_US;
        if due {
            self.maintained_us = now_us;
            worker::in_transaction(maintain);
        }
        // Bounded, so that signals are heard even while events come in without end.
        for _ in 0..MAX_BATCHES {
            worker::heed_interrupts();
            let (batch, position) = events::unread();
            if batch.is_empty() {
                return events::acknowledge(position);
            }
            let Some(failed) = worker::in_transaction(|| store(&batch)) else { return };
            events::acknowledge(position);
            self.report(failed);
        }
    }

    /// Says so once when events cannot be stored, and again when it becomes much worse.
    fn report(&mut self, failed: u64) {
        if failed == 0 {
            return;
        }
        let total = self.reported + failed;
        if self.reported == 0 || total / 1_000 > self.reported / 1_000 {
            worker::log(&format!("pg_steward: {total} captured events could not be stored"));
        }
        self.reported = total;
    }
}

/// Brings events into the tables. When they do not go in together they go one by one, so that one that
/// cannot be stored takes no other with it. Gives the number of those; `None` when the extension is gone.
fn store(batch: &[Event]) -> Option<u64> {
    if !worker::holds_extension() {
        return None;
    }
    if ingest(batch) {
        return Some(0);
    }
    Some(batch.iter().filter(|event| !ingest(core::slice::from_ref(event))).count() as u64)
}

fn ingest(batch: &[Event]) -> bool {
    let events: Vec<serde_json::Value> = batch.iter().filter_map(as_json).collect();
    let array = serde_json::Value::Array(events).to_string();
    shield::in_subtransaction(|| {
        spi::run(c"SELECT steward.ingest($1::pg_catalog.jsonb)", &[&array]);
    })
    .is_some()
}

fn as_json(event: &Event) -> Option<serde_json::Value> {
    let mut json: serde_json::Value = serde_json::from_slice(&event.payload).ok()?;
    let fields = json.as_object_mut()?;
    fields.insert("event_id".into(), event.id.into());
    fields.insert("kind".into(), event.kind.into());
    Some(json)
}

/// Makes the partitions that will be needed and drops those beyond the limits.
fn maintain() {
    if !worker::holds_extension() {
        return;
    }
    let minutes = settings::RETENTION_MIN.get().to_string();
    let megabytes = settings::RETENTION_SIZE_MB.get().to_string();
    shield::in_subtransaction(|| {
        spi::run(c"SELECT steward.maintain_capture($1::pg_catalog.int4, $2::pg_catalog.int4)", &[&minutes, &megabytes]);
    });
    control::add(Counter::InternalErrors, shield::take_failures());
}

/// Somebody is about to drop, rename or copy a database: its coordinator must not be in the way.
pub fn leave_database(name: &str) {
    if let Some(pid) = events::quiet(session::database_oid(name)) {
        worker::terminate(pid);
    }
}
