//! From a CREATE INDEX statement to a template.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::{Hypothetical, Options, Template, array};
use crate::pg::plan::pointers;
use crate::pg::{compat, statement};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn RangeVarGetRelidExtended(
        relation: *const pg_sys::RangeVar,
        lock: c_int,
        flags: u32,
        callback: *const c_void,
        argument: *mut c_void,
    ) -> pg_sys::Oid;
    fn pg_class_aclcheck(relation: pg_sys::Oid, role: pg_sys::Oid, mode: pg_sys::AclMode) -> pg_sys::AclResult::Type;
    fn pg_attribute_aclcheck_all(
        relation: pg_sys::Oid,
        role: pg_sys::Oid,
        mode: pg_sys::AclMode,
        how: pg_sys::AclMaskHow::Type,
    ) -> pg_sys::AclResult::Type;
    fn aclcheck_error(result: pg_sys::AclResult::Type, kind: pg_sys::ObjectType::Type, name: *const c_char);
    fn transformIndexStmt(
        relation: pg_sys::Oid,
        statement: *mut pg_sys::IndexStmt,
        text: *const c_char,
    ) -> *mut pg_sys::IndexStmt;
    fn ResolveOpClass(
        name: *mut pg_sys::List,
        kind: pg_sys::Oid,
        method_name: *const c_char,
        method: pg_sys::Oid,
    ) -> pg_sys::Oid;
    fn get_index_am_oid(name: *const c_char, missing_ok: bool) -> pg_sys::Oid;
    fn get_collation_oid(name: *mut pg_sys::List, missing_ok: bool) -> pg_sys::Oid;
    fn get_opclass_family(class: pg_sys::Oid) -> pg_sys::Oid;
    fn get_opclass_input_type(class: pg_sys::Oid) -> pg_sys::Oid;
    fn GetIndexAmRoutineByAmId(method: pg_sys::Oid, no_error: bool) -> *mut pg_sys::IndexAmRoutine;
    fn get_attnum(relation: pg_sys::Oid, name: *const c_char) -> i16;
    fn get_atttypetypmodcoll(
        relation: pg_sys::Oid,
        number: i16,
        kind: *mut pg_sys::Oid,
        modifier: *mut i32,
        collation: *mut pg_sys::Oid,
    );
    fn get_rel_relkind(relation: pg_sys::Oid) -> c_char;
    fn eval_const_expressions(root: *mut pg_sys::PlannerInfo, node: *mut pg_sys::Node) -> *mut pg_sys::Node;
    fn canonicalize_qual(qual: *mut pg_sys::Expr, is_check: bool) -> *mut pg_sys::Expr;
    fn make_ands_implicit(clause: *mut pg_sys::Expr) -> *mut pg_sys::List;
    fn fix_opfuncids(node: *mut pg_sys::Node);
    fn contain_mutable_functions(node: *mut pg_sys::Node) -> bool;
    fn exprType(node: *const pg_sys::Node) -> pg_sys::Oid;
    fn exprCollation(node: *const pg_sys::Node) -> pg_sys::Oid;
    fn lappend(list: *mut pg_sys::List, item: *mut c_void) -> *mut pg_sys::List;
    fn defGetInt32(option: *mut pg_sys::DefElem) -> i32;
    fn defGetBoolean(option: *mut pg_sys::DefElem) -> bool;
}

/// Columns that an index may have (INDEX_MAX_KEYS).
const MAX_COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// What a text turned out to be.
#[derive(Clone, Copy)]
pub enum Definition {
    Index(Hypothetical),
    Empty,
    Several(usize),
    /// The command's name.
    NotIndex(*const c_char),
    /// The access method's name: one that is not known how to be simulated.
    Method(*const c_char),
    /// The relation's name: not a table or materialized view.
    Relation(*const c_char),
    /// The name of a column that is not there.
    Column(*const c_char),
    /// What the access method cannot do.
    Unsupported(&'static str),
    /// An expression or predicate that is not immutable.
    Mutable,
}

/// `define` within a guard: an error unwinds.
pub fn define_guarded(text: &[u8]) -> Definition {
    // SAFETY: the closure owns nothing.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| define(text)) }
}

/// Reads a CREATE INDEX statement, into the current memory context. Raises what Postgres raises.
pub fn define(text: &[u8]) -> Definition {
    // SAFETY: in a transaction with a snapshot; each cast follows a tag.
    unsafe {
        let copy = statement::copy_text(pg_sys::CurrentMemoryContext, text);
        statement::about(copy, || define_in(copy))
    }
}

unsafe fn define_in(copy: *const c_char) -> Definition {
    // SAFETY: as for `define`.
    unsafe {
        let list = statement::parse(copy);
        let Some(statements) = list.as_ref() else { return Definition::Empty };
        if statements.length > 1 {
            return Definition::Several(statements.length as usize);
        }
        let statement = (*(*statements.elements).ptr_value.cast::<pg_sys::RawStmt>()).stmt;
        if (*statement).type_ != pg_sys::NodeTag::T_IndexStmt {
            return Definition::NotIndex(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(statement)));
        }
        define_index(statement.cast(), copy)
    }
}

unsafe fn define_index(statement: *mut pg_sys::IndexStmt, text: *const c_char) -> Definition {
    // SAFETY: a raw statement; the relation is locked before anything of it is looked up.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let callback = may_read as unsafe extern "C-unwind" fn(_, _, _, _) as *const c_void;
        let relation = RangeVarGetRelidExtended((*statement).relation, lock, 0, callback, ptr::null_mut());
        let relkind = get_rel_relkind(relation) as u8;
        if !b"rmp".contains(&relkind) {
            return Definition::Relation((*(*statement).relation).relname);
        }
        let method = get_index_am_oid((*statement).accessMethod, false);
        let known = [pg_sys::BTREE_AM_OID, pg_sys::HASH_AM_OID, pg_sys::BRIN_AM_OID, pg_sys::GIN_AM_OID];
        if !known.contains(&method) {
            return Definition::Method((*statement).accessMethod);
        }
        let routine = &*GetIndexAmRoutineByAmId(method, false);
        let statement = transformIndexStmt(relation, statement, text);
        let missing = [(*statement).indexParams, (*statement).indexIncludingParams]
            .into_iter()
            .flat_map(|list| pointers::<pg_sys::IndexElem>(list))
            .find(|element| !(**element).name.is_null() && get_attnum(relation, (**element).name) == 0);
        if let Some(element) = missing {
            return Definition::Column((*element).name);
        }
        let is_of_system = [(*statement).indexParams, (*statement).indexIncludingParams]
            .into_iter()
            .flat_map(|list| pointers::<pg_sys::IndexElem>(list))
            .any(|element| !(*element).name.is_null() && get_attnum(relation, (*element).name) < 0);
        if is_of_system {
            return Definition::Unsupported("system columns");
        }
        if let Some(lack) = lack(&*statement, routine) {
            return Definition::Unsupported(lack);
        }
        let template = array::<Template>(1);
        (*template).relation = relation;
        (*template).relkind = relkind;
        (*template).text = text;
        (*template).fraction = -1.0;
        (*template).options = options(&*statement);
        fill_info(&mut (*template).info, &*statement, relation, method, routine);
        let is_mutable = contain_mutable_functions((*template).info.indexprs.cast())
            || contain_mutable_functions((*template).info.indpred.cast());
        match is_mutable {
            true => Definition::Mutable,
            false => Definition::Index(Hypothetical(template)),
        }
    }
}

/// Whoever may read no column of a table may neither lock it nor learn of its columns. Called before the lock is taken.
unsafe extern "C-unwind" fn may_read(
    name: *const pg_sys::RangeVar,
    relation: pg_sys::Oid,
    _before: pg_sys::Oid,
    _argument: *mut c_void,
) {
    if relation == pg_sys::InvalidOid {
        return;
    }
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: catalog look-ups; Postgres's own arguments.
    unsafe {
        let user = crate::pg::raw::GetUserId();
        let any = pg_sys::AclMaskHow::ACLMASK_ANY;
        let ok = pg_sys::AclResult::ACLCHECK_OK;
        if pg_class_aclcheck(relation, user, select) != ok
            && pg_attribute_aclcheck_all(relation, user, select, any) != ok
        {
            let denied = pg_sys::AclResult::ACLCHECK_NO_PRIV;
            aclcheck_error(denied, pg_sys::ObjectType::OBJECT_TABLE, (*name).relname);
        }
    }
}

/// What Postgres would refuse to build.
fn lack(statement: &pg_sys::IndexStmt, routine: &pg_sys::IndexAmRoutine) -> Option<&'static str> {
    // SAFETY: lists of the statement's.
    unsafe {
        let length = |list: *mut pg_sys::List| list.as_ref().map_or(0, |list| list.length as usize);
        let (keys, included) = (length(statement.indexParams), length(statement.indexIncludingParams));
        let is_ordered = pointers::<pg_sys::IndexElem>(statement.indexParams).any(|element| {
            (*element).ordering != pg_sys::SortByDir::SORTBY_DEFAULT
                || (*element).nulls_ordering != pg_sys::SortByNulls::SORTBY_NULLS_DEFAULT
        });
        let is_plain = |element: *mut pg_sys::IndexElem| {
            !(*element).name.is_null() && (*element).collation.is_null() && (*element).opclass.is_null()
        };
        if !pointers::<pg_sys::IndexElem>(statement.indexIncludingParams).all(is_plain) {
            Some("expressions and options in included columns")
        } else if keys + included > MAX_COLUMNS {
            Some("more than 32 columns")
        } else if keys > 1 && !routine.amcanmulticol {
            Some("several columns")
        } else if included > 0 && !routine.amcaninclude {
            Some("included columns")
        } else if statement.unique && !routine.amcanunique {
            Some("unique indexes")
        } else if is_ordered && !routine.amcanorder {
            Some("ASC, DESC and NULLS options")
        } else if !statement.excludeOpNames.is_null() {
            Some("exclusion constraints")
        } else {
            None
        }
    }
}

fn options(statement: &pg_sys::IndexStmt) -> Options {
    let mut options = Options { fillfactor_pct: 0, pages_per_range: 0, deduplicates: true };
    // SAFETY: a list of options with NUL-terminated names.
    unsafe {
        for option in pointers::<pg_sys::DefElem>(statement.options) {
            match core::ffi::CStr::from_ptr((*option).defname).to_bytes() {
                b"fillfactor" => options.fillfactor_pct = defGetInt32(option),
                b"pages_per_range" => options.pages_per_range = defGetInt32(option),
                b"deduplicate_items" => options.deduplicates = defGetBoolean(option),
                _ => {}
            }
        }
    }
    options
}

unsafe fn fill_info(
    info: &mut pg_sys::IndexOptInfo,
    statement: &pg_sys::IndexStmt,
    relation: pg_sys::Oid,
    method: pg_sys::Oid,
    routine: &pg_sys::IndexAmRoutine,
) {
    // SAFETY: as for `define_index`; the arrays are as long as the lists.
    unsafe {
        let keys = (*statement.indexParams).length as usize;
        let included = statement.indexIncludingParams.as_ref().map_or(0, |list| list.length as usize);
        info.type_ = pg_sys::NodeTag::T_IndexOptInfo;
        info.ncolumns = (keys + included) as c_int;
        info.nkeycolumns = keys as c_int;
        info.indexkeys = array(keys + included);
        info.canreturn = array(keys + included);
        info.indexcollations = array(keys);
        info.opfamily = array(keys);
        info.opcintype = array(keys);
        info.opclassoptions = array(keys);
        info.relam = method;
        info.unique = statement.unique;
        info.immediate = true;
        info.hypothetical = true;
        info.tree_height = -1;
        take_from_method(info, method, routine, keys);
        for (at, element) in pointers::<pg_sys::IndexElem>(statement.indexParams).enumerate() {
            key_column(info, at, &*element, relation, statement.accessMethod);
        }
        for (at, element) in pointers::<pg_sys::IndexElem>(statement.indexIncludingParams).enumerate() {
            *info.indexkeys.add(keys + at) = c_int::from(get_attnum(relation, (*element).name));
        }
        if !statement.whereClause.is_null() {
            let clause = eval_const_expressions(ptr::null_mut(), statement.whereClause);
            info.indpred = make_ands_implicit(canonicalize_qual(clause.cast(), false));
            fix_opfuncids(info.indpred.cast());
        }
    }
}

unsafe fn take_from_method(
    info: &mut pg_sys::IndexOptInfo,
    method: pg_sys::Oid,
    routine: &pg_sys::IndexAmRoutine,
    keys: usize,
) {
    info.amcanorderbyop = routine.amcanorderbyop;
    info.amoptionalkey = routine.amoptionalkey;
    info.amsearcharray = routine.amsearcharray;
    info.amsearchnulls = routine.amsearchnulls;
    info.amcanparallel = routine.amcanparallel;
    info.amhasgettuple = routine.amgettuple.is_some();
    info.amhasgetbitmap = routine.amgetbitmap.is_some();
    info.amcanmarkpos = routine.ammarkpos.is_some() && routine.amrestrpos.is_some();
    compat::set_cost_estimate(info, routine);
    if method == pg_sys::BTREE_AM_OID {
        info.sortopfamily = info.opfamily;
        // SAFETY: the arrays are as long as the columns.
        unsafe {
            info.reverse_sort = array(keys);
            info.nulls_first = array(keys);
            (0..info.ncolumns as usize).for_each(|at| *info.canreturn.add(at) = true);
        }
    }
}

/// One key column: what it is made of, and how it is ordered.
unsafe fn key_column(
    info: &mut pg_sys::IndexOptInfo,
    at: usize,
    element: &pg_sys::IndexElem,
    relation: pg_sys::Oid,
    method: *const c_char,
) {
    // SAFETY: an element of a transformed statement.
    unsafe {
        let (mut kind, mut modifier, mut collation) = (pg_sys::InvalidOid, 0, pg_sys::InvalidOid);
        let number = match element.name.is_null() {
            false => get_attnum(relation, element.name),
            true => column_of(element.expr),
        };
        *info.indexkeys.add(at) = c_int::from(number);
        if number != 0 {
            get_atttypetypmodcoll(relation, number, &mut kind, &mut modifier, &mut collation);
        }
        if !element.expr.is_null() {
            kind = exprType(element.expr);
            collation = exprCollation(element.expr);
            if number == 0 {
                let expression = eval_const_expressions(ptr::null_mut(), element.expr);
                fix_opfuncids(expression);
                info.indexprs = lappend(info.indexprs, expression.cast());
            }
        }
        if !element.collation.is_null() {
            collation = get_collation_oid(element.collation, false);
        }
        let class = ResolveOpClass(element.opclass, kind, method, info.relam);
        *info.indexcollations.add(at) = collation;
        *info.opfamily.add(at) = get_opclass_family(class);
        *info.opcintype.add(at) = get_opclass_input_type(class);
        if !info.reverse_sort.is_null() {
            let descends = element.ordering == pg_sys::SortByDir::SORTBY_DESC;
            *info.reverse_sort.add(at) = descends;
            *info.nulls_first.add(at) = match element.nulls_ordering {
                pg_sys::SortByNulls::SORTBY_NULLS_FIRST => true,
                pg_sys::SortByNulls::SORTBY_NULLS_LAST => false,
                _ => descends,
            };
        }
    }
}

/// The column that an expression is nothing but, as Postgres sees it when it builds an index; 0 for a true expression.
unsafe fn column_of(expression: *mut pg_sys::Node) -> i16 {
    // SAFETY: each cast follows a tag.
    unsafe {
        let mut node = expression;
        while (*node).type_ == pg_sys::NodeTag::T_CollateExpr {
            node = (*node.cast::<pg_sys::CollateExpr>()).arg.cast();
        }
        match (*node).type_ {
            pg_sys::NodeTag::T_Var => (*node.cast::<pg_sys::Var>()).varattno,
            _ => 0,
        }
    }
}
