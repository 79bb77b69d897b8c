//! Classes of data: what may be kept, where, for how long.

use super::commits;
use crate::pg::backend::BackendStatic;
use crate::pg::{guc, relations, spi};
use crate::settings;
use core::cell::RefCell;
use core::ffi::CStr;
use steward_core::cache::class::{self, Class, SensitiveRule, Tiers};
use steward_core::cache::reason::Reason;
use steward_core::cache::sensitive::Patterns;
use steward_core::error::CacheError;

/// Label of a column whose contents are sensitive.
pub const SENSITIVE_LABEL: &str = "sensitive";

/// The table's rows, and the version of the table that they were read at (`u64::MAX`: not known, read again).
struct Loaded {
    version: u64,
    database: u32,
    classes: Vec<Class>,
}

static LOADED: BackendStatic<RefCell<Option<Loaded>>> = BackendStatic::new(RefCell::new(None));

const QUERY: &CStr = c"SELECT name, (extract(epoch FROM ttl) OPERATOR(pg_catalog.*) 1000::pg_catalog.numeric)::pg_catalog.int8::pg_catalog.text, \
    local::pg_catalog.text, shared::pg_catalog.text, max_result_size::pg_catalog.text, role_quota::pg_catalog.text, \
    sensitive FROM steward.cache_classes ORDER BY name";

/// The slot of the table of classes.
pub fn slot() -> u32 {
    commits::relation_slot(relations::in_extension_schema(c"cache_classes"))
}

fn load() -> Loaded {
    let version = commits::snapshot()
        .zip(commits::versions())
        .and_then(|(snapshot, versions)| commits::seen(&versions, slot(), &snapshot))
        .unwrap_or(u64::MAX);
    let classes = spi::rows(QUERY, &[]).into_iter().filter_map(parse).collect();
    Loaded { version, database: crate::pg::session::database_id(), classes }
}

fn parse(row: Vec<Option<String>>) -> Option<Class> {
    let mut row = row.into_iter();
    let mut next = move || row.next().flatten();
    let name = next()?;
    let ttl_ms = next()?.parse().ok()?;
    let tiers = Tiers { l1: next()? == "true", l2: next()? == "true" };
    let max_result_bytes = next()?.parse().ok()?;
    let role_quota_bytes = next().and_then(|bytes| bytes.parse().ok());
    let sensitive = match next()?.as_str() {
        "allow" => SensitiveRule::Allow,
        "local" => SensitiveRule::Local,
        _ => SensitiveRule::Deny,
    };
    Some(Class { name, ttl_ms, tiers, max_result_bytes, role_quota_bytes, sensitive })
}

/// Runs `look` with the classes of this database.
pub fn with<R>(look: impl FnOnce(&[Class]) -> R) -> R {
    let database = crate::pg::session::database_id();
    let current = commits::versions().map_or(0, |versions| versions.version(slot()));
    let is_own = |written: u32| written == slot();
    if commits::own_writes(&mut { is_own }).is_err() {
        // What this transaction has written is for itself only, as long as it has not committed.
        return look(&load().classes);
    }
    let is_current = LOADED.borrow().as_ref().is_some_and(|l| l.version == current && l.database == database);
    if !is_current {
        let loaded = load();
        *LOADED.borrow_mut() = Some(loaded);
    }
    let loaded = LOADED.borrow();
    look(loaded.as_ref().map_or(&[], |loaded| &loaded.classes))
}

/// The class of this name.
pub fn named(name: &str) -> Result<Class, CacheError> {
    with(|classes| {
        classes.iter().find(|class| class.name == name).cloned().ok_or_else(|| CacheError::UnknownClass {
            value: name.into(),
            classes: classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    })
}

/// The rules for a query that reads these relations: the strictest of all. Children without a label follow their parents.
pub fn of_relations(read: &[u32], all: &[u32]) -> Result<Class, Reason> {
    let default = String::from_utf8_lossy(guc::text(&settings::CACHE_DEFAULT_CLASS)).into_owned();
    let mut names: Vec<String> = all
        .iter()
        .filter_map(|relation| match relations::label(*relation, 0) {
            Some(label) => Some(label),
            None => read.contains(relation).then(|| default.clone()),
        })
        .collect();
    if names.is_empty() {
        names.push(default);
    }
    with(|classes| {
        let used: Option<Vec<&Class>> =
            names.iter().map(|name| classes.iter().find(|class| class.name == *name)).collect();
        // A class that is gone, or a default that never was, allows nothing.
        used.and_then(|used| class::combine(used.into_iter())).ok_or(Reason::ClassDenied)
    })
}

/// Is one of these columns of a result sensitive, by its name, by that of a column it is made from, or by a label?
pub fn is_sensitive(columns: &[crate::pg::columns::Column], read: &[(u32, i16)]) -> bool {
    let patterns = Patterns::parse(&String::from_utf8_lossy(guc::text(&settings::CACHE_SENSITIVE_COLUMNS)));
    columns.iter().any(|column| {
        // What could not be traced may be made from anything that the query reads.
        let sources = if column.is_traced { &column.sources[..] } else { read };
        patterns.is_sensitive(&column.name) || sources.iter().any(|source| is_source_sensitive(&patterns, *source))
    })
}

/// Has any column of these relations a sensitive name or label?
pub fn have_sensitive_columns(all: &[u32]) -> bool {
    let patterns = Patterns::parse(&String::from_utf8_lossy(guc::text(&settings::CACHE_SENSITIVE_COLUMNS)));
    all.iter().any(|relation| is_source_sensitive(&patterns, (*relation, 0)))
}

fn is_source_sensitive(patterns: &Patterns, (relation, attribute): (u32, i16)) -> bool {
    let single = |attribute| {
        patterns.is_sensitive(&relations::column_name(relation, attribute))
            || relations::label(relation, attribute).as_deref() == Some(SENSITIVE_LABEL)
    };
    match attribute {
        0 => (1..=relations::column_count(relation)).any(single),
        _ => single(attribute),
    }
}
