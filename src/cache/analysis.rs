//! What an analysed query means for the cache: whether it may be cached, and everything its answer depends on.

use super::{classes, commits, proof};
use crate::pg::Rights;
use crate::pg::names::Names;
use crate::pg::session_state::{self, SearchPath};
use crate::pg::statement::{self, Analysed, PlanRules, Prepared};
use crate::pg::tree::Facts;
use crate::pg::{bind, functions, guc, session};
use crate::settings;
use std::ffi::CString;
use steward_core::cache::class::{Class, SensitiveRule, Tiers};
use steward_core::cache::reason::Reason;
use steward_core::cache::versions::GLOBAL_SLOT;
use steward_core::error::CacheError;

/// First id that is not of initdb's.
const FIRST_NORMAL: u32 = 16_384;

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

/// What analysing found, for `keep`.
pub struct Findings {
    pub rights: Rights,
    pub planning: PlanRules,
    pub parts: Parts,
}

pub struct Parts {
    pub refusal: Option<Reason>,
    pub inputs: Inputs,
    pub relations: Vec<u32>,
    pub slots: Vec<u32>,
    pub class: Class,
    pub is_sensitive: bool,
    pub renders_json: bool,
    pub watched: Vec<u32>,
    pub names: Vec<u32>,
    pub types: Vec<u32>,
    pub path: SearchPath,
    pub tree_hash: [u8; 32],
}

/// Judges an analysed query. Refuses what is no query that only reads. Under a guard.
pub fn judge(analysed: Analysed) -> Result<Findings, CacheError> {
    let (facts, rights) = analysed.facts();
    if facts.modifies {
        return Err(CacheError::ModifyingCte);
    }
    if facts.locks_rows {
        return Err(CacheError::Locking);
    }
    let mut relations = Vec::new();
    let mut proof = proof::Proof::default();
    // The plainest reasons come first.
    let has_heirs = proof::dependencies(&facts.relations, &mut relations).unwrap_or_else(|reason| {
        proof.refuse(reason);
        false
    });
    let path = analysed.search_path();
    let names = prove(analysed, &facts, path, &mut proof);
    let (plan_relations, mut types) = analysed.plan_dependencies();
    types.extend(&facts.type_hashes);
    let class = classes::of_relations(&facts.relations, &relations).unwrap_or_else(|reason| {
        proof.refuse(reason);
        no_class()
    });
    let is_sensitive = proof.refusal.is_none() && classes::is_sensitive(&analysed.columns(), &rights.columns());
    let watched =
        [&plan_relations, &facts.relations, &relations, &facts.row_types].into_iter().flatten().copied().collect();
    let parts = Parts {
        slots: slots(
            (&relations, &facts.row_types),
            &types,
            &class,
            [
                names_roles(&facts, &proof).then(commits::roles_slot),
                (!proof.opaque.is_empty()).then(commits::names_slot),
                has_heirs.then(commits::inheritance_slot),
            ],
        ),
        inputs: inputs(&facts, &proof),
        refusal: proof.refusal,
        relations,
        class,
        is_sensitive,
        renders_json: proof.renders_json,
        watched,
        names: names.hashes,
        types,
        path,
        tree_hash: if facts.is_too_deep { [0; 32] } else { *blake3::hash(analysed.tree_text()).as_bytes() },
    };
    // A function of a user's may read what only the process that runs it would note.
    let calls_users = !facts.functions.iter().all(|function| *function < FIRST_NORMAL);
    let may_be_parallel = parts.refusal.is_some() || !calls_users;
    Ok(Findings { rights, planning: PlanRules { may_be_parallel, may_keep_plan: !calls_users }, parts })
}

/// Judges all of it but its relations, and gives the names that its text mentions.
fn prove(analysed: Analysed, facts: &Facts, path: SearchPath, proof: &mut proof::Proof) -> Names {
    proof.judge(facts);
    if facts.settings.iter().any(|name| CString::new(name.clone()).is_ok_and(|n| session_state::is_restricted(&n))) {
        proof.refuse(Reason::CatalogDependent);
    }
    let mut schemas = path.schemas();
    // A temporary object would hide what the name means now, and its schema may come later.
    schemas.push(session_state::temporary_schema());
    // Names in the bodies of functions may come to mean a temporary table.
    if !proof.opaque.is_empty() && session_state::temporary_schema() != 0 {
        proof.refuse(Reason::TemporaryTable);
    }
    let names = if facts.is_too_deep { Names::default() } else { analysed.names(&schemas) };
    if facts.has_converted_constant && names.speaks_of_now {
        proof.refuse(Reason::TimeLiteral);
    }
    for operator in &facts.sort_operators {
        proof.sorts_by(*operator);
    }
    demand_rights(facts, proof);
    names
}

/// A function that the caller may not run may never be called, which only the executor knows: it will say so if it is.
fn demand_rights(facts: &Facts, proof: &mut proof::Proof) {
    let lacks = |function: u32| facts.functions.contains(&function) && !functions::may_execute(function);
    if proof.judged().any(lacks) {
        proof.refuse(Reason::UnprovableFunction);
    }
}

fn no_class() -> Class {
    Class {
        name: String::new(),
        ttl_ms: 0,
        tiers: Tiers { l1: false, l2: false },
        max_result_bytes: 0,
        role_quota_bytes: None,
        sensitive: SensitiveRule::Deny,
    }
}

fn inputs(facts: &Facts, proof: &proof::Proof) -> Inputs {
    let opaque = !proof.opaque.is_empty();
    Inputs {
        role: facts.reads_role || opaque || proof.reads_roles || !guc::bool(&settings::CACHE_SHARE_ENTRIES),
        session_user: facts.reads_session_user || proof.reads_session_user || opaque,
        settings: facts.settings.iter().filter_map(|name| CString::new(name.clone()).ok()).collect(),
        custom_settings: opaque,
        own_settings: proof.names_own_settings,
        opaque: proof.opaque.clone(),
    }
}

/// Does the answer hold the name of a role, or depend on rights that are checked below a function, where no check of ours
/// reaches?
fn names_roles(facts: &Facts, proof: &proof::Proof) -> bool {
    facts.reads_role || facts.reads_session_user || proof.reads_roles || !proof.opaque.is_empty()
}

/// The first three are always the same: everything, the catalog, the table of classes.
fn slots((relations, row_types): (&[u32], &[u32]), types: &[u32], class: &Class, others: [Option<u32>; 3]) -> Vec<u32> {
    let mut slots = vec![GLOBAL_SLOT, commits::catalog_slot(), classes::slot()];
    slots.push(commits::name_slot("class", &class.name));
    slots.push(commits::name_slot("role", &session::user_id().to_string()));
    slots.extend(relations.iter().chain(row_types).map(|relation| commits::relation_slot(*relation)));
    slots.extend(types.iter().map(|hash| commits::type_slot(*hash)));
    slots.extend(others.into_iter().flatten());
    slots
}

/// Our own settings that say how results are classified and shared, each ended by a zero.
pub fn rules() -> Vec<u8> {
    let mut rules = Vec::new();
    for text in [guc::text(&settings::CACHE_DEFAULT_CLASS), guc::text(&settings::CACHE_SENSITIVE_COLUMNS)] {
        rules.extend_from_slice(text);
        rules.push(0);
    }
    rules.push(u8::from(guc::bool(&settings::CACHE_SHARE_ENTRIES)));
    rules.push(u8::from(guc::bool(&settings::CACHE_TRUST_IMMUTABLE)));
    rules
}

/// Are they as they were? Allocates nothing.
#[inline]
pub fn are_rules(rules: &[u8]) -> bool {
    let (class, columns) = (guc::text(&settings::CACHE_DEFAULT_CLASS), guc::text(&settings::CACHE_SENSITIVE_COLUMNS));
    let switches =
        [u8::from(guc::bool(&settings::CACHE_SHARE_ENTRIES)), u8::from(guc::bool(&settings::CACHE_TRUST_IMMUTABLE))];
    rules
        .strip_prefix(class)
        .and_then(|rest| rest.strip_prefix(&[0]))
        .and_then(|rest| rest.strip_prefix(columns))
        .and_then(|rest| rest.strip_prefix(&[0]))
        == Some(&switches[..])
}

/// Each part has a fixed length, or says it, or ends with a zero.
pub fn base(parts: &Parts, settings: &[u8], role: u32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parts.tree_hash).update(&session::database_id().to_ne_bytes());
    // `current_schema` may be a schema that is also searched implicitly, so where each stands is not all of it.
    hasher.update(&[parts.path.implicit()]);
    let schemas = parts.path.schemas();
    hasher.update(&(schemas.len() as u32).to_ne_bytes());
    schemas.iter().for_each(|schema| {
        hasher.update(&schema.to_ne_bytes());
    });
    let role = if parts.inputs.role { role } else { 0 };
    *hasher.update(&role.to_ne_bytes()).update(&rules()).update(settings).finalize().as_bytes()
}

/// Turning values to JSON runs the casts of users' types to it, which nobody judged.
pub fn json_refusal(columns: &[(String, u32)], renders_json: bool) -> Option<Reason> {
    let has_own_types = columns.iter().any(|(_, kind)| !statement::is_builtin_type(*kind));
    let casts = c"SELECT 1 FROM pg_catalog.pg_cast WHERE casttarget IN (114, 3802) AND castfunc >= 16384 LIMIT 1";
    let has_casts = (renders_json || has_own_types) && !crate::pg::spi::rows(casts, &[]).is_empty();
    has_casts.then_some(Reason::UnprovableFunction)
}

pub fn shared_rules(class: &Class, is_sensitive: bool) -> Option<super::shared::Rules> {
    let may_share = class.tiers.l2 && (!is_sensitive || class.sensitive == SensitiveRule::Allow);
    may_share.then_some(super::shared::Rules {
        keeps_local: class.tiers.l1,
        class_ttl_ms: class.ttl_ms,
        ttl_ms: class.ttl_ms,
    })
}

pub fn parameter_refusal(prepared: Prepared) -> Option<Reason> {
    prepared.parameter_types().iter().any(|kind| bind::has_unstable_input(*kind)).then_some(Reason::CatalogDependent)
}

pub fn parameter_check(prepared: Prepared) -> ParameterCheck {
    match prepared.parameter_types().iter().all(|kind| bind::has_plain_input(*kind)) {
        true => ParameterCheck::None,
        false => ParameterCheck::SpeaksOfNow,
    }
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
