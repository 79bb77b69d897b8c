//! Statements that a session has analysed for cached calls: what they mean here and now, as one role with one search path.
//!
//! A statement is dropped when a message of Postgres's tells of a change of anything that its meaning depends on, so it is
//! always what analysing its text afresh would give.

use super::{analysis, commits, stats};
use crate::pg::Rights;
use crate::pg::backend::BackendStatic;
use crate::pg::session_state::{self, SearchPath};
use crate::pg::statement::Prepared;
use crate::pg::{guc, session, statement};
use crate::settings;
use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use steward_core::cache::class::Class;
use steward_core::cache::reason::Reason;

/// An analysed statement.
pub struct Statement {
    pub text: Box<[u8]>,
    pub role: u32,
    settings: Box<[u8]>,
    /// The number under which these settings were seen last.
    settings_number: u64,
    /// Our own settings on which the rules of its results depend.
    rules: Box<[u8]>,
    path: SearchPath,
    /// Versions of the catalog's slot and of the table of classes' when it was analysed.
    versions: [u64; 2],
    pub prepared: Prepared,
    pub rights: Rights,
    pub refusal: Option<Reason>,
    /// Hash of the tree.
    pub tree: [u8; 32],
    /// What every key of the statement begins with: the hash of its tree, the settings, database, search path, and role
    /// where it matters.
    pub base: [u8; 32],
    pub inputs: analysis::Inputs,
    pub parameters: analysis::ParameterCheck,
    /// Relations that it reads, and those that inherit from them.
    pub relations: Vec<u32>,
    /// Slots that every result of it depends on.
    pub slots: Vec<u32>,
    pub class: Class,
    pub query_number: u32,
    pub is_sensitive: bool,
    /// The rules for its shared results; `None`: it has none.
    pub shared: Option<super::shared::Rules>,
    watched: Vec<u32>,
    names: Vec<u32>,
    types: Vec<u32>,
    is_valid: bool,
    last_used: u64,
}

/// What finds a statement again: its place, and the number of the one that was put there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    place: usize,
    serial: u64,
}

#[derive(Default)]
struct Statements {
    places: Vec<Option<(u64, Statement)>>,
    by_text: HashMap<Box<[u8]>, Vec<usize>>,
    serial: u64,
    uses: u64,
    /// The place that was found last.
    last: usize,
}

static STATEMENTS: BackendStatic<RefCell<Option<Statements>>> = BackendStatic::new(RefCell::new(None));
/// Goes up with every message that might concern a statement.
static NEWS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
/// A message came when it could not be heeded: no statement is valid any more.
static MISSED: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
/// Calls that are being answered, one within the other.
static CALLS: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));
/// How many there were at the start of each subtransaction.
static CALLS_AT: BackendStatic<RefCell<Vec<(u32, u32)>>> = BackendStatic::new(RefCell::new(Vec::new()));

/// A statement that fits the session as far as can be told without asking Postgres.
#[derive(Clone, Copy)]
pub struct Candidate {
    pub handle: Handle,
    pub path: SearchPath,
    pub rights: Rights,
}

/// Finds a statement by its text, for the current role and settings. May look at shared memory, never raises.
#[inline]
pub fn find(text: &[u8]) -> Option<Candidate> {
    session_state::with_settings(|settings, number| find_for(text, settings, number))
}

#[inline(always)]
fn find_for(text: &[u8], settings: &[u8], number: u64) -> Option<Candidate> {
    if MISSED.replace(false) {
        catalog_changed();
    }
    let mut statements = STATEMENTS.borrow_mut();
    let statements = statements.as_mut()?;
    let role = session::user_id();
    let versions = commits::versions()?;
    statements.uses += 1;
    let uses = statements.uses;
    let fits = |places: &mut [Option<(u64, Statement)>], place: usize, is_same_text: bool| {
        let (serial, statement) = places.get_mut(place)?.as_mut()?;
        let fits = (is_same_text || *statement.text == *text)
            && statement.is_valid
            && statement.role == role
            && statement.has_settings(settings, number)
            && analysis::are_rules(&statement.rules)
            && statement.versions == [versions.version(statement.slots[1]), versions.version(statement.slots[2])];
        fits.then(|| {
            statement.last_used = uses;
            let handle = Handle { place, serial: *serial };
            Candidate { handle, path: statement.path, rights: statement.rights }
        })
    };
    // A session that asks the same again need not look its text up.
    if let Some(candidate) = fits(&mut statements.places, statements.last, false) {
        return Some(candidate);
    }
    let places = statements.by_text.get(text)?;
    let candidate = places.iter().find_map(|place| fits(&mut statements.places, *place, true))?;
    statements.last = candidate.handle.place;
    Some(candidate)
}

impl Statement {
    #[inline(always)]
    fn has_settings(&mut self, settings: &[u8], number: u64) -> bool {
        if self.settings_number != number {
            if *self.settings != *settings {
                return false;
            }
            self.settings_number = number;
        }
        true
    }
}

/// Runs `look` with a statement. `None`: it is gone.
#[inline]
pub fn with<R>(handle: Handle, look: impl FnOnce(&Statement) -> R) -> Option<R> {
    match STATEMENTS.borrow().as_ref()?.places.get(handle.place)? {
        Some((serial, statement)) if *serial == handle.serial => Some(look(statement)),
        _ => None,
    }
}

/// Is it there, and has nothing been heard that might change its meaning?
pub fn is_valid(handle: Handle) -> bool {
    !MISSED.get() && with(handle, |statement| statement.is_valid).unwrap_or(false)
}

/// The number of messages so far; taken before a statement is analysed.
pub fn news() -> u64 {
    NEWS.get()
}

/// A call begins to be answered: until it ends, nothing that it may use is freed. What a call runs may call again, and
/// that is not only its query, but also what reads a parameter, prints a value or checks a privilege.
#[inline(always)]
pub fn call_begins() {
    CALLS.set(CALLS.get() + 1);
}

#[inline(always)]
pub fn call_ends() {
    CALLS.set(CALLS.get().saturating_sub(1));
}

/// Notes how many calls are being answered when a subtransaction starts, as far as any are.
pub fn subtransaction_starts(id: u32) {
    if CALLS.get() > 0 {
        CALLS_AT.borrow_mut().push((id, CALLS.get()));
    }
}

/// An error ended the calls that began within the subtransaction.
pub fn subtransaction_aborted(id: u32) {
    let mut noted = CALLS_AT.borrow_mut();
    CALLS.set(noted.iter().find(|(noted, _)| *noted == id).map_or(0, |(_, calls)| *calls));
    noted.retain(|(noted, _)| *noted < id);
}

pub fn transaction_ended() {
    CALLS.set(0);
    CALLS_AT.borrow_mut().clear();
}

/// Keeps a statement. `news_before` is the count of messages from before it was analysed: what came meanwhile may have
/// concerned it, so it serves this one call.
pub fn keep(prepared: Prepared, findings: analysis::Findings, text: &[u8], news_before: u64) -> Handle {
    let (settings, settings_number) = session_state::with_settings(|bytes, number| (bytes.to_vec(), number));
    let analysis::Findings { rights, parts, .. } = findings;
    let columns = prepared.result_columns();
    let refusal = parts
        .refusal
        .or_else(|| columns.iter().find_map(|(_, kind)| statement::type_hazard(*kind)))
        .or_else(|| analysis::parameter_refusal(prepared))
        .or_else(|| analysis::json_refusal(&columns, parts.renders_json));
    let current = |slot: u32| commits::versions().map_or(0, |versions| versions.version(slot));
    let role = session::user_id();
    let statement = Statement {
        text: text.into(),
        role,
        base: analysis::base(&parts, &settings, role),
        settings: settings.into(),
        settings_number,
        rules: analysis::rules().into(),
        path: parts.path,
        versions: [current(parts.slots[1]), current(parts.slots[2])],
        prepared,
        rights,
        refusal,
        tree: parts.tree_hash,
        inputs: parts.inputs,
        parameters: analysis::parameter_check(prepared),
        relations: parts.relations,
        slots: parts.slots,
        shared: analysis::shared_rules(&parts.class, parts.is_sensitive).filter(|_| refusal.is_none()),
        class: parts.class,
        query_number: stats::query_number(text, role),
        is_sensitive: parts.is_sensitive,
        watched: parts.watched,
        names: parts.names,
        types: parts.types,
        // Constants that were made from the present, or from names, must be made anew for each call.
        is_valid: NEWS.get() == news_before && !matches!(refusal, Some(Reason::TimeLiteral | Reason::CatalogDependent)),
        last_used: 0,
    };
    insert(statement)
}

fn insert(statement: Statement) -> Handle {
    tidy();
    let mut statements = STATEMENTS.borrow_mut();
    let statements = statements.get_or_insert_with(Statements::default);
    statements.serial += 1;
    let serial = statements.serial;
    let place = statements.places.iter().position(Option::is_none).unwrap_or_else(|| {
        statements.places.push(None);
        statements.places.len() - 1
    });
    statements.by_text.entry(statement.text.clone()).or_default().push(place);
    let last_used = statements.uses;
    statements.places[place] = Some((serial, Statement { last_used, ..statement }));
    Handle { place, serial }
}

/// Frees statements that are not valid any more, and those used least recently beyond the limit.
fn tidy() {
    // Below the outermost call the others may be using theirs.
    if CALLS.get() > 1 {
        return;
    }
    let limit = guc::int(&settings::CACHE_STATEMENTS).max(1) as usize;
    let mut gone = Vec::new();
    if let Some(statements) = STATEMENTS.borrow_mut().as_mut() {
        let mut ages: Vec<(bool, u64, usize)> = statements
            .places
            .iter()
            .enumerate()
            .filter_map(|(place, s)| s.as_ref().map(|(_, s)| (s.is_valid, s.last_used, place)))
            .collect();
        ages.sort_unstable();
        let valid = ages.iter().filter(|(is_valid, ..)| *is_valid).count();
        let excess = (ages.len() - valid) + (valid + 1).saturating_sub(limit);
        gone.extend(ages.iter().take(excess).filter_map(|(_, _, place)| statements.places[*place].take()));
        for (_, statement) in &gone {
            if let Some(places) = statements.by_text.get_mut(&statement.text) {
                places.retain(|place| statements.places[*place].is_some());
                if places.is_empty() {
                    statements.by_text.remove(&statement.text);
                }
            }
        }
    }
    gone.into_iter().for_each(|(_, statement)| statement.prepared.free());
}

/// Tells the statistics which queries this session uses, so that they keep their places.
pub fn note_use() {
    if let Some(statements) = STATEMENTS.borrow().as_ref() {
        statements.places.iter().flatten().for_each(|(_, statement)| stats::query_used(statement.query_number));
    }
}

// News of catalogs

fn forget(which: impl Fn(&Statement) -> bool) {
    NEWS.set(NEWS.get() + 1);
    // A message that arrives while statements are looked at is heeded before the next look.
    let Ok(mut statements) = STATEMENTS.try_borrow_mut() else { return MISSED.set(true) };
    if let Some(statements) = statements.as_mut() {
        for (_, statement) in statements.places.iter_mut().flatten() {
            if which(statement) {
                statement.is_valid = false;
            }
        }
    }
}

pub fn relation_changed(relation: u32) {
    forget(|statement| relation == 0 || statement.watched.contains(&relation));
}

pub fn relation_name_changed(hash: u32) {
    forget(|statement| hash == 0 || statement.names.contains(&hash));
}

pub fn type_changed(hash: u32) {
    forget(|statement| hash == 0 || statement.types.contains(&hash));
}

pub fn catalog_changed() {
    forget(|_| true);
}
