//! What an analysed query reads and calls: facts collected by a walk over its tree.
//!
//! Runs inside a guard of pgrx's: an error of Postgres's here (a tree too deep) becomes a panic and unwinds.

use super::compat::Rights;
use super::plan::pointers;
use super::{functions, inval, types};
use core::ffi::c_void;
use pgrx::{pg_guard, pg_sys};
use std::collections::HashSet;
use steward_core::cache::reason::Reason;

/// What a tree reads and calls.
#[derive(Default)]
pub struct Facts {
    /// Relations of all range tables, views among them.
    pub relations: Vec<u32>,
    pub functions: Vec<u32>,
    /// Names given to `current_setting` as constants.
    pub settings: Vec<Vec<u8>>,
    /// Relations whose row types values have.
    pub row_types: Vec<u32>,
    /// Hashes under which changes of domains that it casts to are told.
    pub type_hashes: Vec<u32>,
    /// Does it cast to a domain, whose constraints may change?
    pub casts_to_domain: bool,
    pub reads_role: bool,
    pub reads_session_user: bool,
    /// Constants of a type that may be made of dates or times: their text may have been 'now'.
    pub has_converted_constant: bool,
    /// Operators of users' that sort, group or make distinct.
    pub sort_operators: Vec<u32>,
    /// FOR UPDATE and its kin, at any level.
    pub locks_rows: bool,
    /// A WITH that changes something, at any level.
    pub modifies: bool,
    /// The rights that the queries need, where they are wanted.
    pub rights: Option<Rights>,
    /// What makes the query impossible to cache, in the order found.
    pub refusals: Vec<Reason>,
    /// Types that were looked at.
    pub types: HashSet<u32>,
    /// Functions whose default arguments were looked at.
    pub defaults: HashSet<u32>,
    pub depth: u32,
    /// It goes deeper than it was followed.
    pub is_too_deep: bool,
}

/// Levels of a tree that are followed. Postgres's own limit is that of the stack; ours is reached long before, so that no
/// error has to pass through as many guards.
const MAX_DEPTH: u32 = 500;

impl Facts {
    pub fn refuse(&mut self, reason: Reason) {
        if !self.refusals.contains(&reason) {
            self.refusals.push(reason);
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// TableOidAttributeNumber of sysattr.h: the one system column that is as stable as its row.
const TABLE_OID_ATTRIBUTE: i16 = -6;
const CURRENT_SETTING: [u32; 2] = [2077, 3294];

/// A tree that Postgres made.
#[derive(Clone, Copy)]
pub struct Tree(*mut pg_sys::Node);

impl Tree {
    /// # Safety
    /// `node` must be NULL, or a query or expression that stays alive while the value is used.
    pub(super) unsafe fn new(node: *mut pg_sys::Node) -> Self {
        Self(node)
    }

    /// Adds what the tree reads and calls.
    pub fn collect(self, facts: &mut Facts) {
        // SAFETY: by the contract of `new`; the context outlives the walk.
        unsafe {
            walk(self.0, core::ptr::from_mut(facts).cast());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: Postgres's walker passes valid nodes, and the context given to it.
    unsafe {
        let facts = &mut *context.cast::<Facts>();
        if facts.depth >= MAX_DEPTH {
            facts.is_too_deep = true;
            facts.refuse(Reason::UnprovableFunction);
            return false;
        }
        facts.depth += 1;
        if (*node).type_ == pg_sys::NodeTag::T_Query {
            query(node.cast(), facts);
            pg_sys::query_tree_walker(node.cast(), Some(walk), context, 0);
        } else {
            expression(node, facts);
            pg_sys::check_functions_in_node(node, Some(note_function), context);
            default_arguments(node, context);
            pg_sys::expression_tree_walker(node, Some(walk), context);
        }
        (*context.cast::<Facts>()).depth -= 1;
        false
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note_function(function: pg_sys::Oid, context: *mut c_void) -> bool {
    // SAFETY: the context is the one given to check_functions_in_node.
    unsafe { add(&mut (*context.cast::<Facts>()).functions, function.to_u32()) };
    false
}

/// Arguments that a call leaves out are put in by the planner, so the tree does not have them yet.
unsafe fn default_arguments(node: *mut pg_sys::Node, context: *mut c_void) {
    // SAFETY: each cast follows a tag; the trees live in the current memory context.
    unsafe {
        let function = match (*node).type_ {
            pg_sys::NodeTag::T_FuncExpr => (*node.cast::<pg_sys::FuncExpr>()).funcid,
            pg_sys::NodeTag::T_WindowFunc => (*node.cast::<pg_sys::WindowFunc>()).winfnoid,
            _ => return,
        };
        let is_new = (*context.cast::<Facts>()).defaults.insert(function.to_u32());
        if let Some(defaults) = functions::default_arguments(function.to_u32()).filter(|_| is_new) {
            walk(defaults.0, context);
        }
    }
}

unsafe fn query(query: *mut pg_sys::Query, facts: &mut Facts) {
    // SAFETY: the caller passes a Query.
    unsafe {
        facts.locks_rows |= !(*query).rowMarks.is_null();
        facts.modifies |= (*query).commandType != pg_sys::CmdType::CMD_SELECT;
        if let Some(rights) = &mut facts.rights {
            rights.add(query);
        }
        for clause in [(*query).sortClause, (*query).groupClause, (*query).distinctClause] {
            for item in pointers::<pg_sys::SortGroupClause>(clause) {
                for operator in [(*item).eqop, (*item).sortop] {
                    if operator.to_u32() >= pg_sys::FirstNormalObjectId {
                        add(&mut facts.sort_operators, operator.to_u32());
                    }
                }
            }
        }
        add_relations((*query).rtable, &mut facts.relations);
        for entry in pointers::<pg_sys::RangeTblEntry>((*query).rtable) {
            if !(*entry).tablesample.is_null() {
                facts.refuse(Reason::TableSample);
            }
        }
    }
}

/// Adds the relations of a range table that are not there yet.
///
/// # Safety
/// `table` must be NULL or a range table.
pub(super) unsafe fn add_relations(table: *mut pg_sys::List, found: &mut Vec<u32>) {
    // SAFETY: by the contract. Since 16 a view leaves its id in the entry of its subquery.
    unsafe {
        for entry in pointers::<pg_sys::RangeTblEntry>(table) {
            if (*entry).relid != pg_sys::InvalidOid {
                add(found, (*entry).relid.to_u32());
            }
        }
    }
}

unsafe fn expression(node: *mut pg_sys::Node, facts: &mut Facts) {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's tag.
    unsafe {
        match (*node).type_ {
            T_Var => {
                let variable = node.cast::<pg_sys::Var>();
                if (*variable).varattno < 0 && (*variable).varattno != TABLE_OID_ATTRIBUTE {
                    facts.refuse(Reason::SystemColumn);
                }
                type_of((*variable).vartype, facts);
            }
            T_Const => {
                let kind = (*node.cast::<pg_sys::Const>()).consttype;
                facts.has_converted_constant |= !super::bind::has_plain_input(kind.to_u32());
                if kind == pg_sys::TIMETZOID {
                    // Its offset is that of today.
                    facts.refuse(Reason::TimeLiteral);
                }
                type_of(kind, facts);
            }
            T_FuncExpr => function_call(node.cast(), facts),
            T_CoerceViaIO => type_of((*node.cast::<pg_sys::CoerceViaIO>()).resulttype, facts),
            T_RowExpr => type_of((*node.cast::<pg_sys::RowExpr>()).row_typeid, facts),
            T_ConvertRowtypeExpr => type_of((*node.cast::<pg_sys::ConvertRowtypeExpr>()).resulttype, facts),
            T_RelabelType => type_of((*node.cast::<pg_sys::RelabelType>()).resulttype, facts),
            T_CoerceToDomain => domain((*node.cast::<pg_sys::CoerceToDomain>()).resulttype, facts),
            T_SQLValueFunction => session_value((*node.cast::<pg_sys::SQLValueFunction>()).op, facts),
            T_NextValueExpr => facts.refuse(Reason::Sequence),
            T_TableFunc => table_function(node.cast(), facts),
            tag if super::compat::converts_json(tag) && types::parts(pg_sys::exprType(node)).have_datetime() => {
                facts.refuse(Reason::TextToDatetime);
            }
            _ => {}
        }
    }
}

/// Constraints are expressions of their own, which may read what no key holds; and may be added later, to any domain that
/// this one is made of.
fn domain(kind: pg_sys::Oid, facts: &mut Facts) {
    // SAFETY: a catalog look-up.
    if types::parts(kind).domains().any(|domain| unsafe { pg_sys::DomainHasConstraints(domain.into()) }) {
        facts.refuse(Reason::UnsupportedType);
    }
    facts.casts_to_domain = true;
    type_of(kind, facts);
}

unsafe fn function_call(call: *mut pg_sys::FuncExpr, facts: &mut Facts) {
    // SAFETY: the caller passes a FuncExpr; a Const argument of type text holds a text unless it is null.
    unsafe {
        type_of((*call).funcresulttype, facts);
        if !CURRENT_SETTING.contains(&(*call).funcid.to_u32()) {
            return;
        }
        match pointers::<pg_sys::Node>((*call).args).next() {
            Some(name) if (*name).type_ == pg_sys::NodeTag::T_Const => {
                let name = name.cast::<pg_sys::Const>();
                if !(*name).constisnull {
                    let text = pg_sys::text_to_cstring((*name).constvalue.cast_mut_ptr());
                    let name = core::ffi::CStr::from_ptr(text).to_bytes().to_vec();
                    // What these read as is the connection's, not the setting's.
                    if name.to_ascii_lowercase().starts_with(b"tcp_") {
                        facts.refuse(Reason::DynamicSetting);
                    }
                    add(&mut facts.settings, name);
                }
            }
            _ => facts.refuse(Reason::DynamicSetting),
        }
    }
}

/// XMLTABLE and JSON_TABLE convert text to the types of their columns.
unsafe fn table_function(call: *mut pg_sys::TableFunc, facts: &mut Facts) {
    // SAFETY: the caller passes a TableFunc, whose column types are a list of ids.
    unsafe {
        if let Some(types) = (*call).coltypes.as_ref() {
            for cell in core::slice::from_raw_parts(types.elements, types.length as usize) {
                if types::parts(cell.oid_value).have_datetime() {
                    facts.refuse(Reason::TextToDatetime);
                }
            }
        }
    }
}

fn session_value(op: pg_sys::SQLValueFunctionOp::Type, facts: &mut Facts) {
    use pg_sys::SQLValueFunctionOp::*;
    match op {
        SVFOP_CURRENT_ROLE | SVFOP_CURRENT_USER | SVFOP_USER => facts.reads_role = true,
        SVFOP_SESSION_USER => facts.reads_session_user = true,
        // The search path is in every key, and its schemas' names in the catalog's version.
        SVFOP_CURRENT_SCHEMA => {}
        SVFOP_CURRENT_CATALOG => facts.refuse(Reason::CatalogDependent),
        _ => facts.refuse(Reason::TimeFunction),
    }
}

/// What a value's type brings along: text that Postgres makes from catalogs, and rows, whose columns may change.
fn type_of(kind: pg_sys::Oid, facts: &mut Facts) {
    if !facts.types.insert(kind.to_u32()) {
        return;
    }
    let parts = types::parts(kind);
    if parts.is_cut {
        facts.refuse(Reason::UnsupportedType);
    }
    let users = parts.relations().filter(|relation| *relation >= pg_sys::FirstNormalObjectId);
    users.for_each(|relation| add(&mut facts.row_types, relation));
    // A text search configuration as a constant is an argument, and its changes are watched.
    let is_argument = kind == pg_sys::REGCONFIGOID || kind == pg_sys::REGDICTIONARYOID;
    if !is_argument && parts.kinds.iter().any(|part| types::names_objects(*part)) {
        facts.refuse(Reason::CatalogDependent);
    }
    // SAFETY: hashing reads no catalog.
    parts.domains().for_each(|domain| add(&mut facts.type_hashes, unsafe { inval::type_hash(domain.into()) }));
}

/// Types that understand 'now' and 'today'.
pub(super) fn is_datetime(kind: pg_sys::Oid) -> bool {
    [pg_sys::DATEOID, pg_sys::TIMEOID, pg_sys::TIMETZOID, pg_sys::TIMESTAMPOID, pg_sys::TIMESTAMPTZOID].contains(&kind)
}
