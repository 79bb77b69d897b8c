//! Statements that a session has analysed for cached calls: what they mean here and now, as one role with one search path.
//!
//! A statement is dropped when a message of Postgres's tells of a change of anything that its meaning depends on, so it is
//! always what analysing its text afresh would give.

use super::{classes, commits, proof, stats};
use crate::pg::Rights;
use crate::pg::backend::BackendStatic;
use crate::pg::session_state::{self, SearchPath};
use crate::pg::statement::{Analysed, Prepared};
use crate::pg::{bind, functions, guc, session, statement};
use crate::settings;
use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use steward_core::cache::class::Class;
use steward_core::cache::reason::Reason;
use steward_core::cache::versions::GLOBAL_SLOT;
use steward_core::error::CacheError;

/// What the key takes in besides the statement, the settings that are always in it, and the parameters.
#[derive(Clone, Default)]
pub struct Inputs {
    pub role: bool,
    pub session_user: bool,
    pub settings: Vec<CString>,
    /// Every custom setting, since a function was called whose reading is not known.
    pub custom_settings: bool,
    pub own_settings: bool,
    /// The functions for whose sake.
    pub opaque: Vec<String>,
}

/// What the parameters' types mean for the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ParameterCheck {
    /// The document decides.
    None,
    /// A word such as 'now' would be read as the present.
    SpeaksOfNow,
}

/// An analysed statement.
pub struct Statement {
    pub text: Box<[u8]>,
    pub role: u32,
    settings: Box<[u8]>,
    path: SearchPath,
    /// Versions of the catalog's slot and of the table of classes' when it was analysed.
    versions: [u64; 2],
    pub prepared: Prepared,
    pub rights: Rights,
    pub refusal: Option<Reason>,
    /// Bytes that every key of the statement begins with.
    pub prefix: Box<[u8]>,
    pub inputs: Inputs,
    pub parameters: ParameterCheck,
    /// Relations that it reads, and those that inherit from them.
    pub relations: Vec<u32>,
    /// Slots that every result of it depends on.
    pub slots: Vec<u32>,
    pub class: Class,
    pub query_number: u32,
    pub is_sensitive: bool,
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
}

static STATEMENTS: BackendStatic<RefCell<Option<Statements>>> = BackendStatic::new(RefCell::new(None));
/// Goes up with every message that might concern a statement.
static NEWS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
/// A message came when it could not be heeded: no statement is valid any more.
static MISSED: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
/// Statements that are running: none may be freed meanwhile.
static RUNNING: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));

/// A statement that fits the session as far as can be told without asking Postgres.
#[derive(Clone, Copy)]
pub struct Candidate {
    pub handle: Handle,
    pub path: SearchPath,
    pub rights: Rights,
}

/// Finds a statement by its text, for the current role and the settings given. May look at shared memory, never raises.
#[inline]
pub fn find(text: &[u8], settings: &[u8]) -> Option<Candidate> {
    if MISSED.replace(false) {
        catalog_changed();
    }
    let mut statements = STATEMENTS.borrow_mut();
    let statements = statements.as_mut()?;
    let role = session::user_id();
    let versions = commits::versions()?;
    statements.uses += 1;
    for place in statements.by_text.get(text)? {
        if let Some((serial, statement)) = statements.places.get_mut(*place)?.as_mut()
            && statement.is_valid
            && statement.role == role
            && *statement.settings == *settings
            && statement.versions == [versions.version(statement.slots[1]), versions.version(statement.slots[2])]
        {
            statement.last_used = statements.uses;
            let handle = Handle { place: *place, serial: *serial };
            return Some(Candidate { handle, path: statement.path, rights: statement.rights });
        }
    }
    None
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

/// A statement starts to run; `false` when it ends.
pub fn runs(begin: bool) {
    RUNNING.set(if begin { RUNNING.get() + 1 } else { RUNNING.get().saturating_sub(1) });
}

/// An error ended all but so many of the runs.
pub fn runs_left(count: u32) {
    RUNNING.set(count);
}

/// What analysing found, for `keep`.
pub struct Findings {
    pub rights: Rights,
    statement_parts: Parts,
}

struct Parts {
    refusal: Option<Reason>,
    inputs: Inputs,
    relations: Vec<u32>,
    slots: Vec<u32>,
    class: Class,
    is_sensitive: bool,
    watched: Vec<u32>,
    names: Vec<u32>,
    types: Vec<u32>,
    path: SearchPath,
    tree_hash: [u8; 32],
}

/// Judges an analysed query. Refuses what is no query that only reads. Under a guard.
pub fn judge(analysed: Analysed, text: &[u8]) -> Result<Findings, CacheError> {
    let (facts, rights) = analysed.facts();
    if facts.modifies {
        return Err(CacheError::ModifyingCte);
    }
    if facts.locks_rows {
        return Err(CacheError::Locking);
    }
    let mut proof = proof::Proof::default();
    proof.judge(&facts);
    if facts.settings.iter().any(|name| CString::new(name.clone()).is_ok_and(|n| session_state::is_restricted(&n))) {
        proof.refuse(Reason::CatalogDependent);
    }
    if facts.has_datetime_constant && speaks_of_now(text) {
        proof.refuse(Reason::TimeLiteral);
    }
    let mut relations = Vec::new();
    if let Err(reason) = proof::dependencies(&facts.relations, &mut relations) {
        proof.refuse(reason);
    }
    for function in proof.judged() {
        if proof.refusal.is_none() && facts.functions.contains(&function) && !functions::may_execute(function) {
            functions::refuse_execution(function);
        }
    }
    let (plan_relations, types) = analysed.plan_dependencies();
    let path = analysed.search_path();
    let mut schemas = path.schemas();
    // A temporary object would hide what the name means now, and its schema may come later.
    schemas.push(session_state::temporary_schema());
    let class = match classes::of_relations(&facts.relations, &relations) {
        Ok(class) => class,
        Err(reason) => {
            proof.refuse(reason);
            no_class()
        }
    };
    let is_sensitive = proof.refusal.is_none() && classes::is_sensitive(&analysed.columns(), &rights.columns());
    let mut watched = plan_relations;
    watched.extend(&facts.relations);
    watched.extend(&relations);
    let parts = Parts {
        inputs: inputs(&facts, &proof),
        slots: slots(&relations, &types, &class, proof.reads_roles),
        refusal: proof.refusal,
        relations,
        class,
        is_sensitive,
        watched,
        names: analysed.name_hashes(&schemas),
        types,
        path,
        tree_hash: *blake3::hash(analysed.tree_text()).as_bytes(),
    };
    Ok(Findings { rights, statement_parts: parts })
}

fn no_class() -> Class {
    use steward_core::cache::class::{SensitiveRule, Tiers};
    Class {
        name: String::new(),
        ttl_ms: 0,
        tiers: Tiers { l1: false, l2: false },
        max_result_bytes: 0,
        role_quota_bytes: None,
        sensitive: SensitiveRule::Deny,
    }
}

fn speaks_of_now(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    [&b"now"[..], b"today", b"tomorrow", b"yesterday"]
        .iter()
        .any(|word| lower.windows(word.len()).any(|window| window == *word))
}

fn inputs(facts: &crate::pg::tree::Facts, proof: &proof::Proof) -> Inputs {
    let opaque = !proof.opaque.is_empty();
    Inputs {
        role: facts.reads_role || opaque || proof.reads_roles || !guc::bool(&settings::CACHE_SHARE_ENTRIES),
        session_user: facts.reads_session_user || opaque,
        settings: facts.settings.iter().filter_map(|name| CString::new(name.clone()).ok()).collect(),
        custom_settings: opaque,
        own_settings: proof.names_own_settings,
        opaque: proof.opaque.clone(),
    }
}

/// The first three are always the same: everything, the catalog, the table of classes.
fn slots(relations: &[u32], types: &[u32], class: &Class, reads_roles: bool) -> Vec<u32> {
    let mut slots = vec![GLOBAL_SLOT, commits::catalog_slot(), classes::slot()];
    slots.push(commits::name_slot("class", &class.name));
    slots.push(commits::name_slot("role", &session::user_id().to_string()));
    slots.extend(relations.iter().map(|relation| commits::relation_slot(*relation)));
    slots.extend(types.iter().map(|hash| commits::type_slot(*hash)));
    if reads_roles {
        slots.push(commits::roles_slot());
    }
    slots.dedup();
    slots
}

/// Keeps a statement. `news_before` is the count of messages from before it was analysed: what came meanwhile may have
/// concerned it, so it serves this one call.
pub fn keep(prepared: Prepared, findings: Findings, text: &[u8], settings: &[u8], news_before: u64) -> Handle {
    let Findings { rights, statement_parts: parts } = findings;
    let columns = prepared.result_columns();
    let refusal = parts
        .refusal
        .or_else(|| columns.iter().find_map(|(_, kind)| statement::type_hazard(*kind)))
        .or_else(|| parameter_refusal(prepared));
    let current = |slot: u32| commits::versions().map_or(0, |versions| versions.version(slot));
    let role = session::user_id();
    let mut prefix = parts.tree_hash.to_vec();
    prefix.extend_from_slice(&session::database_id().to_ne_bytes());
    parts.path.schemas().iter().for_each(|schema| prefix.extend_from_slice(&schema.to_ne_bytes()));
    if parts.inputs.role {
        prefix.extend_from_slice(&role.to_ne_bytes());
    }
    let statement = Statement {
        text: text.into(),
        role,
        settings: settings.into(),
        path: parts.path,
        versions: [current(parts.slots[1]), current(parts.slots[2])],
        prepared,
        rights,
        refusal,
        prefix: prefix.into(),
        inputs: parts.inputs,
        parameters: parameter_check(prepared),
        relations: parts.relations,
        slots: parts.slots,
        class: parts.class,
        query_number: stats::query_number(text, role),
        is_sensitive: parts.is_sensitive,
        watched: parts.watched,
        names: parts.names,
        types: parts.types,
        is_valid: NEWS.get() == news_before,
        last_used: 0,
    };
    insert(statement)
}

fn parameter_refusal(prepared: Prepared) -> Option<Reason> {
    prepared.parameter_types().iter().any(|kind| bind::has_unstable_input(*kind)).then_some(Reason::CatalogDependent)
}

fn parameter_check(prepared: Prepared) -> ParameterCheck {
    match prepared.parameter_types().iter().all(|kind| bind::has_plain_input(*kind)) {
        true => ParameterCheck::None,
        false => ParameterCheck::SpeaksOfNow,
    }
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
    if RUNNING.get() > 0 {
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

/// Appends what a key takes in from the session. Raises nothing.
pub fn write_inputs(inputs: &Inputs, out: &mut Vec<u8>) {
    if inputs.session_user {
        out.extend_from_slice(&session_state::session_user_id().to_ne_bytes());
    }
    for name in &inputs.settings {
        match session_state::setting_bytes(name) {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                out.extend_from_slice(&(value.len() as u32).to_ne_bytes());
                out.extend_from_slice(value);
            }
        }
    }
    if inputs.custom_settings {
        session_state::write_custom_settings(out, if inputs.own_settings { b"" } else { b"pg_steward." });
    }
}
