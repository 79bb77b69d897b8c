//! Statements that a session has analysed for cached calls: what they mean here and now, as one role with one search path.
//!
//! A statement is dropped when a message of Postgres's tells of a change of anything that its meaning depends on, so it is
//! always what analysing its text afresh would give.

use super::{analysis, commits, key, stats};
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
    /// Places that nothing is in.
    free: Vec<usize>,
    /// Places of statements that are not valid.
    not_valid: Vec<usize>,
    by_text: HashMap<Box<[u8]>, Vec<usize>>,
    serial: u64,
    uses: u64,
}

static STATEMENTS: BackendStatic<RefCell<Option<Statements>>> = BackendStatic::new(RefCell::new(None));
/// Goes up with every message that might concern a statement.
static NEWS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
/// A message came when it could not be heeded: no statement is valid any more.
static MISSED: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
/// The place that was found or taken last: that of the innermost call's statement, once it has one.
static LAST: BackendStatic<Cell<usize>> = BackendStatic::new(Cell::new(0));
/// Calls that are being answered, one within the other.
static CALLS: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));
/// What was last when each of them began but the outermost: the place of the call around it.
static HELD: BackendStatic<RefCell<Vec<usize>>> = BackendStatic::new(RefCell::new(Vec::new()));
/// How many calls there were at the start of each subtransaction that is open, as far as there were any.
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
    if let Some(candidate) = fits(&mut statements.places, LAST.get(), false) {
        return Some(candidate);
    }
    let places = statements.by_text.get(text)?;
    let candidate = places.iter().find_map(|place| fits(&mut statements.places, *place, true))?;
    LAST.set(candidate.handle.place);
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

/// A call begins to be answered: until it ends, its statement is not freed. What a call runs may call again, and that is
/// not only its query, but also what reads a parameter, prints a value or checks a privilege.
#[inline(always)]
pub fn call_begins() {
    let around = CALLS.get();
    if around > 0 {
        HELD.borrow_mut().push(LAST.get());
    }
    CALLS.set(around + 1);
}

#[inline(always)]
pub fn call_ends() {
    let left = CALLS.get().saturating_sub(1);
    CALLS.set(left);
    if left > 0 {
        let_go(left);
    }
    key::give_back();
}

/// So many calls are left: the innermost of them uses its statement again.
fn let_go(calls: u32) {
    let mut held = HELD.borrow_mut();
    let around = (calls as usize).saturating_sub(1);
    if let Some(place) = held.get(around) {
        LAST.set(*place);
    }
    held.truncate(around);
}

/// Notes how many calls are being answered when a subtransaction starts, as far as any are.
pub fn subtransaction_starts(id: u32) {
    if CALLS.get() > 0 {
        CALLS_AT.borrow_mut().push((id, CALLS.get()));
    }
}

pub fn subtransaction_committed(id: u32) {
    forget_note(id);
}

/// An error ended the calls that began within the subtransaction.
pub fn subtransaction_aborted(id: u32) {
    cut_off(forget_note(id));
}

/// Gives the number of calls at the start of a subtransaction that is over. Those within it were over before, so its note
/// is the last.
fn forget_note(id: u32) -> u32 {
    let mut noted = CALLS_AT.borrow_mut();
    let mut calls = 0;
    while let Some((_, calls_then)) = noted.last().copied().filter(|(noted, _)| *noted >= id) {
        calls = calls_then;
        noted.pop();
    }
    calls
}

fn cut_off(calls: u32) {
    if CALLS.replace(calls) != calls {
        let_go(calls);
        key::give_back();
    }
}

pub fn transaction_ended() {
    cut_off(0);
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
    let place = statements.free.pop().unwrap_or_else(|| {
        statements.places.push(None);
        statements.places.len() - 1
    });
    statements.by_text.entry(statement.text.clone()).or_default().push(place);
    if !statement.is_valid {
        statements.not_valid.push(place);
    }
    let last_used = statements.uses;
    statements.places[place] = Some((serial, Statement { last_used, ..statement }));
    LAST.set(place);
    Handle { place, serial }
}

/// Makes room for one more: frees statements that are not valid, and at the limit those used least recently, some more than
/// need be so that it is not done each time. Calls further out keep theirs.
fn tidy() {
    let limit = guc::int(&settings::CACHE_STATEMENTS).max(1) as usize;
    let mut gone = Vec::new();
    if let Some(statements) = STATEMENTS.borrow_mut().as_mut() {
        let held = HELD.borrow();
        statements.take_not_valid(&held, &mut gone);
        let count = statements.places.len() - statements.free.len();
        if count >= limit {
            statements.take_oldest(count + 1 - limit + limit / 8, &held, &mut gone);
        }
    }
    gone.into_iter().for_each(|statement| statement.prepared.free());
}

impl Statements {
    fn take_not_valid(&mut self, held: &[usize], gone: &mut Vec<Statement>) {
        let places = core::mem::take(&mut self.not_valid);
        for place in places {
            match held.contains(&place) {
                true => self.not_valid.push(place),
                false => gone.extend(self.take(place)),
            }
        }
    }

    fn take_oldest(&mut self, count: usize, held: &[usize], gone: &mut Vec<Statement>) {
        let free_for = |(place, taken): (usize, &Option<(u64, Statement)>)| {
            let last_used = taken.as_ref()?.1.last_used;
            (!held.contains(&place)).then_some((last_used, place))
        };
        let mut ages: Vec<(u64, usize)> = self.places.iter().enumerate().filter_map(free_for).collect();
        ages.sort_unstable();
        gone.extend(ages.iter().take(count).filter_map(|(_, place)| self.take(*place)));
    }

    fn take(&mut self, place: usize) -> Option<Statement> {
        let (_, statement) = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        if let Some(places) = self.by_text.get_mut(&statement.text) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_text.remove(&statement.text);
            }
        }
        Some(statement)
    }
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
        let Statements { places, not_valid, .. } = statements;
        for (place, taken) in places.iter_mut().enumerate() {
            if let Some((_, statement)) = taken.as_mut().filter(|(_, known)| known.is_valid && which(known)) {
                statement.is_valid = false;
                not_valid.push(place);
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
