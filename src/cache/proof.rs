//! Is it proved that a query's answer depends on nothing but what its key and its dependencies say?

use crate::pg::functions::{self, Function, Language};
use crate::pg::guc;
use crate::pg::relations;
use crate::pg::tree::{Facts, Tree};
use crate::pg::types;
use crate::settings;
use std::collections::BTreeSet;
use steward_core::cache::body::{self, BodyFacts, Hazard};
use steward_core::cache::functions::{Verdict, stable_builtin};
use steward_core::cache::reads;
use steward_core::cache::reason::Reason;

/// Calls within calls that are followed.
const MAX_DEPTH: u32 = 16;
/// Names in a body that are looked up in catalogs: each takes its time, and stays in Postgres's caches.
const MAX_NAMES: usize = 2_000;
/// Relations that a stored result can list.
pub const MAX_RELATIONS: usize = 4096;

/// What was proved so far, or the first reason why nothing can be.
#[derive(Default)]
pub struct Proof {
    functions: BTreeSet<u32>,
    /// Were the casts of users judged?
    knows_casts: bool,
    /// Functions whose bodies were read: the key takes in the role and every custom setting.
    pub opaque: Vec<String>,
    /// Does a body speak of this extension's own settings, which otherwise are no part of the key?
    pub names_own_settings: bool,
    pub reads_roles: bool,
    pub reads_session_user: bool,
    /// Does it turn values to JSON?
    pub renders_json: bool,
    /// Does something below a function read the role or a setting?
    pub reads_session: bool,
    pub refusal: Option<Reason>,
}

impl Proof {
    pub fn refuse(&mut self, reason: Reason) {
        self.refusal.get_or_insert(reason);
    }

    /// Judges what a tree reads and calls, but for its relations.
    pub fn judge(&mut self, facts: &Facts) {
        if let Some(reason) = facts.refusals.first() {
            self.refuse(*reason);
        }
        for function in &facts.functions {
            self.function(*function, 0);
        }
    }

    /// Sorting calls the functions of an operator's class, which are not in the tree: those in C are believed.
    pub fn sorts_by(&mut self, operator: u32) {
        let function = functions::behind_operator(operator);
        let is_compiled =
            functions::describe(function).is_some_and(|f| matches!(f.language, Language::C | Language::Internal));
        if !is_compiled {
            self.refuse(Reason::UnprovableFunction);
        }
        self.function(function, 0);
    }

    /// Judges a function, and what it calls.
    pub fn function(&mut self, oid: u32, depth: u32) {
        if self.refusal.is_some() || !self.functions.insert(oid) {
            return;
        }
        let Some(function) = functions::describe(oid).filter(|_| depth < MAX_DEPTH) else {
            return self.refuse(Reason::UnprovableFunction);
        };
        if let Some(defaults) = functions::default_arguments(oid) {
            self.default_arguments(defaults, depth);
        }
        let trusted = function.volatility == b'i' && (function.is_builtin || is_believed(&function));
        if function.is_aggregate && !function.is_builtin {
            functions::of_aggregate(oid).into_iter().for_each(|part| self.function(part, depth + 1));
        } else if function.volatility == b'v' {
            self.refuse(volatile(&function));
        } else if !trusted {
            self.untrusted(&function, depth);
        }
    }

    /// Of a call in a body it is not known which arguments it leaves out. Who a body runs as, and every custom setting, are
    /// in the key; a call in the query's own tree has had its default arguments judged with the tree.
    fn default_arguments(&mut self, defaults: Tree, depth: u32) {
        let mut facts = Facts::default();
        defaults.collect(&mut facts);
        if let Some(reason) = facts.refusals.first() {
            self.refuse(*reason);
        }
        facts.functions.iter().for_each(|called| self.function(*called, depth + 1));
        self.reads_settings(facts.settings.iter().map(Vec::as_slice));
    }

    fn untrusted(&mut self, function: &Function, depth: u32) {
        if function.is_builtin {
            return self.builtin(function);
        }
        match function.language {
            Language::Sql | Language::PlPgSql => self.body(function, depth),
            _ => self.refuse(Reason::UnprovableFunction),
        }
    }

    fn builtin(&mut self, function: &Function) {
        self.renders_json |= function.name.contains("json");
        match stable_builtin(&function.name) {
            // Names of settings were collected from the tree, or the tree was refused.
            Verdict::Safe | Verdict::Setting => {}
            Verdict::Roles => self.reads_role(&function.name),
            Verdict::Time if function.name.ends_with("_in") => self.refuse(Reason::TextToDatetime),
            Verdict::Time => self.refuse(Reason::TimeFunction),
            Verdict::Catalog => self.refuse(Reason::CatalogDependent),
            Verdict::Session | Verdict::Unknown => self.refuse(Reason::UnprovableFunction),
        }
    }

    fn reads_role(&mut self, name: &str) {
        match name {
            "session_user" => self.reads_session_user = true,
            // How the session was authenticated is in no key.
            "system_user" => self.refuse(Reason::UnprovableFunction),
            _ => {}
        }
        self.reads_roles = true;
    }

    /// Below a function the key holds every custom setting, but no other.
    fn reads_settings<'a>(&mut self, names: impl IntoIterator<Item = &'a [u8]>) {
        if !names.into_iter().all(|name| name.contains(&b'.')) {
            self.refuse(Reason::DynamicSetting);
        }
    }

    fn body(&mut self, function: &Function, depth: u32) {
        self.opaque.push(function.name.clone());
        self.names_own_settings |= function.body.to_ascii_lowercase().contains("steward");
        if function.language == Language::PlPgSql && function.has_convertible_types() {
            return self.refuse(Reason::TextToDatetime);
        }
        if function.has_domains() {
            return self.refuse(Reason::UnprovableFunction);
        }
        if let Some(tree) = functions::parsed_body(function.oid) {
            let mut facts = Facts::default();
            tree.collect(&mut facts);
            if facts.modifies || facts.locks_rows || facts.casts_to_domain {
                self.refuse(Reason::UnprovableFunction);
            }
            // A parsed body keeps 'now' as the moment when it was made, which is the same every time.
            facts.functions.iter().for_each(|called| self.function(*called, depth + 1));
            if let Some(reason) = facts.refusals.first() {
                self.refuse(*reason);
            }
            return self.reads_settings(facts.settings.iter().map(Vec::as_slice));
        }
        match reads::settings_read(&function.body) {
            Some(names) => self.reads_settings(names.iter().map(String::as_bytes)),
            None => self.refuse(Reason::DynamicSetting),
        }
        self.conversions(&function.body, depth);
        self.text(&body::read_body(&function.body), depth);
    }

    /// Casts and the checks of domains are called by types, whose use in a body is not always written down: each cast of a
    /// user's counts as called, and a domain's name is enough. So is that of a type that is made of dates, since text may
    /// be turned into one; but a table's name is a type's only in some places.
    fn conversions(&mut self, source: &str, depth: u32) {
        let identifiers = reads::identifiers(source);
        if identifiers.len() > MAX_NAMES {
            return self.refuse(Reason::UnprovableFunction);
        }
        if !core::mem::replace(&mut self.knows_casts, true) {
            functions::of_casts().into_iter().for_each(|cast| self.function(cast, depth + 1));
        }
        let as_types = reads::type_names(source);
        for name in &identifiers {
            pgrx::check_for_interrupts!();
            for kind in functions::types_named(name) {
                self.type_in_body(kind, as_types.contains(name));
            }
        }
    }

    fn type_in_body(&mut self, kind: u32, is_in_place_of_type: bool) {
        let parts = types::parts(kind.into());
        let counts = is_in_place_of_type || !types::is_row_of_table(kind);
        if counts && parts.domains().next().is_some() {
            self.refuse(Reason::UnprovableFunction);
        } else if counts && parts.have_datetime() {
            self.refuse(Reason::TextToDatetime);
        }
    }

    fn text(&mut self, facts: &BodyFacts, depth: u32) {
        if let Some(hazard) = facts.hazards.first() {
            return self.refuse(hazard_reason(*hazard));
        }
        if facts.names.len() + facts.fields.len() + facts.operators.len() > MAX_NAMES {
            return self.refuse(Reason::UnprovableFunction);
        }
        for name in facts.names.iter().chain(&facts.fields) {
            pgrx::check_for_interrupts!();
            functions::named(name).into_iter().for_each(|called| self.function(called, depth + 1));
        }
        for operator in &facts.operators {
            functions::of_operator(operator).into_iter().for_each(|called| self.function(called, depth + 1));
        }
    }

    /// Judges what was seen while a query ran that called functions: relations that they read, functions that were set up.
    /// A view or a policy below a function brings its own expressions, which are judged like those of the query.
    pub fn ran(&mut self, read: &[u32], executed: &[u32]) {
        for relation in read {
            relations::with_own_trees(*relation, |tree| {
                let mut facts = Facts::default();
                tree.collect(&mut facts);
                self.reads_session |= facts.reads_role || facts.reads_session_user || !facts.settings.is_empty();
                self.reads_settings(facts.settings.iter().map(Vec::as_slice));
                self.judge(&facts);
            });
        }
        for function in executed {
            self.function(*function, 0);
        }
    }

    /// The functions that were judged, each of which the caller must be allowed to run.
    pub fn judged(&self) -> impl Iterator<Item = u32> + '_ {
        self.functions.iter().copied()
    }
}

/// Is a user's function that is declared IMMUTABLE what it says? One whose body can be read is read if it speaks of the
/// session, of tables, or of other functions of users: declaring such helpers IMMUTABLE is a common mistake.
fn is_believed(function: &Function) -> bool {
    guc::bool(&settings::CACHE_TRUST_IMMUTABLE)
        && (!matches!(function.language, Language::Sql | Language::PlPgSql)
            || (!function.body.is_empty() && !reads::reaches_out(&function.body) && !calls_users(&function.body)))
}

/// Does a body call functions of users', or one of Postgres's that depends on more than its arguments and what is in every
/// key?
fn calls_users(source: &str) -> bool {
    let is_users = |function: &u32| {
        functions::describe(*function).is_none_or(|function| {
            !function.is_builtin || function.volatility != b'i' && stable_builtin(&function.name) != Verdict::Safe
        })
    };
    let facts = body::read_body(source);
    let named = facts.names.iter().chain(&facts.fields).flat_map(|name| functions::named(name));
    let behind_operators = facts.operators.iter().flat_map(|operator| functions::of_operator(operator));
    facts.names.len() > MAX_NAMES || named.chain(behind_operators).any(|function| is_users(&function))
}

fn volatile(function: &Function) -> Reason {
    match stable_builtin(&function.name) {
        Verdict::Time if function.is_builtin => Reason::TimeFunction,
        _ => Reason::VolatileFunction,
    }
}

const fn hazard_reason(hazard: Hazard) -> Reason {
    match hazard {
        Hazard::Time => Reason::TimeFunction,
        Hazard::TimeLiteral => Reason::TimeLiteral,
        Hazard::DateCast => Reason::TextToDatetime,
        Hazard::Temp => Reason::TemporaryTable,
        Hazard::TableSample => Reason::TableSample,
        Hazard::NextValue => Reason::Sequence,
        Hazard::Reg => Reason::CatalogDependent,
        Hazard::Catalog => Reason::SystemCatalog,
        Hazard::SystemColumn => Reason::SystemColumn,
        Hazard::Dynamic | Hazard::Unterminated | Hazard::Modifies | Hazard::NotUnderstood => Reason::UnprovableFunction,
    }
}

/// Adds to `all` the relations that a query depends on when it reads these: themselves, and what inherits from them. Gives
/// whether anything does.
pub fn dependencies(read: &[u32], all: &mut Vec<u32>) -> Result<bool, Reason> {
    let mut has_heirs = false;
    for oid in read {
        let Some(relation) = relations::describe(*oid) else { return Err(Reason::StatementChanged) };
        has_heirs |= relation.has_children;
        let family = match relation.has_children {
            true => relations::with_children(*oid),
            false => vec![*oid],
        };
        for member in family {
            check(member)?;
            if !all.contains(&member) {
                all.push(member);
            }
        }
        if all.len() > MAX_RELATIONS {
            return Err(Reason::TooManyDependencies);
        }
    }
    Ok(has_heirs)
}

fn check(oid: u32) -> Result<(), Reason> {
    let Some(relation) = relations::describe(oid) else { return Err(Reason::StatementChanged) };
    if relation.is_catalog || !matches!(relation.kind, b'r' | b'p' | b'v' | b'm' | b'f' | b'S') {
        return Err(Reason::SystemCatalog);
    }
    match relation.kind {
        b'f' => Err(Reason::ForeignTable),
        b'S' => Err(Reason::Sequence),
        _ if relation.is_temporary => Err(Reason::TemporaryTable),
        _ if !relation.is_heap => Err(Reason::OtherAccessMethod),
        _ => Ok(()),
    }
}

/// A circumstance of the session that rules the cache out for every call.
#[inline]
pub fn circumstance() -> Option<Reason> {
    use crate::pg::{snapshot, writes};
    if !guc::bool(&settings::CACHE_ENABLED) {
        Some(Reason::Disabled)
    } else if snapshot::is_parallel() {
        Some(Reason::Parallel)
    } else if snapshot::is_serializable() {
        Some(Reason::Serializable)
    } else if snapshot::in_recovery() {
        Some(Reason::InRecovery)
    } else if snapshot::is_walsender() {
        Some(Reason::SnapshotUnsafe)
    } else if !writes::are_counted() {
        Some(Reason::TrackingOff)
    } else {
        None
    }
}
