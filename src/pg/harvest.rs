//! What a query wants of its tables, read off the planner when it looks for ways to read each: views are expanded by
//! then, subqueries pulled up, constants folded, conditions moved to the tables that they are about, and what is equal to
//! what is known.

use super::backend::BackendStatic;
use super::plan::pointers;
use super::statistics::{self, ColumnFacts};
use super::text::c_string;
use super::{compat, relations, whatif};
use core::cell::RefCell;
use core::ptr;
use pgrx::{pg_guard, pg_sys};
use steward_core::advisor::demand::{Demand, Key, OrderKey, Term, TermKind};

static FOUND: BackendStatic<RefCell<Option<Vec<Demand>>>> = BackendStatic::new(RefCell::new(None));
static mut PREVIOUS: pg_sys::set_rel_pathlist_hook_type = None;

/// Installs the hook. Once, from `_PG_init`.
pub fn install() {
    // SAFETY: before any statement.
    unsafe {
        PREVIOUS = pg_sys::set_rel_pathlist_hook;
        pg_sys::set_rel_pathlist_hook = Some(look);
    }
}

/// What is found while `work` plans. Under a guard.
pub fn collect(work: impl FnOnce()) -> Vec<Demand> {
    let outer = FOUND.replace(Some(Vec::new()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let found = FOUND.replace(outer).unwrap_or_default();
    // An error of the planner's goes on, once nothing of ours is left of it.
    result.unwrap_or_else(|error| std::panic::resume_unwind(error));
    found
}

/// A plain frame unless we collect.
unsafe extern "C-unwind" fn look(
    root: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    number: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: Postgres's own arguments.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        if let Some(previous) = PREVIOUS {
            previous(root, table, number, entry);
        }
        if whatif::is_ours(root) && (*table).reloptkind == pg_sys::RelOptKind::RELOPT_BASEREL {
            note(root, table, entry);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note(
    root: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: as above.
    let demand = unsafe { demand(root, &*table, &*entry) };
    if let (Some(demand), Some(found)) = (demand, FOUND.borrow_mut().as_mut())
        && !found.contains(&demand)
    {
        found.push(demand);
    }
}

/// A table in a planning.
struct Look<'a> {
    root: *mut pg_sys::PlannerInfo,
    table: &'a pg_sys::RelOptInfo,
    relation: u32,
}

unsafe fn demand(
    root: *mut pg_sys::PlannerInfo,
    table: &pg_sys::RelOptInfo,
    entry: &pg_sys::RangeTblEntry,
) -> Option<Demand> {
    if entry.rtekind != pg_sys::RTEKind::RTE_RELATION || !b"rmp".contains(&(entry.relkind as u8)) {
        return None;
    }
    let relation = entry.relid.to_u32();
    if relation < pg_sys::FirstNormalObjectId || FOUND.borrow().is_none() {
        return None;
    }
    let look = Look { root, table, relation };
    let (rows, pages) = look.size(entry.relkind as u8 == b'p');
    let mut demand = Demand {
        relation,
        table: relations::qualified_name(relation),
        rows,
        pages,
        all_visible: table.allvisfrac,
        ..Demand::default()
    };
    // SAFETY: the planner's lists for this table.
    unsafe {
        for clause in pointers::<pg_sys::RestrictInfo>(table.baserestrictinfo) {
            look.condition(&mut *clause, &mut demand);
        }
        for clause in pointers::<pg_sys::RestrictInfo>(table.joininfo) {
            look.join_clause(&*clause, &mut demand);
        }
        look.equivalences(&mut demand);
        look.all_orders(&mut demand);
        demand.needed = look.needed();
        let query = &*(*root).parse;
        demand.has_limit = !query.limitCount.is_null();
        demand.is_changed =
            query.commandType != pg_sys::CmdType::CMD_SELECT && query.resultRelation as u32 == table.relid;
    }
    Some(demand)
}

/// An operator with a side that is of the table's, and one that is not.
struct Compared {
    own: *mut pg_sys::Node,
    operator: pg_sys::Oid,
    other: *mut pg_sys::Node,
    collation: pg_sys::Oid,
}

impl Look<'_> {
    fn size(&self, is_partitioned: bool) -> (f64, f64) {
        let of_planner = (self.table.tuples, f64::from(self.table.pages));
        match is_partitioned {
            false => of_planner,
            true => statistics::family_size(self.relation),
        }
    }

    unsafe fn condition(&self, clause: &mut pg_sys::RestrictInfo, demand: &mut Demand) {
        // SAFETY: a clause of the planner's; its selectivity is kept in it.
        unsafe {
            let inner = pg_sys::JoinType::JOIN_INNER;
            let node = ptr::from_mut(clause).cast();
            let selectivity =
                pg_sys::clause_selectivity(self.root, node, self.table.relid as i32, inner, ptr::null_mut());
            if !clause.orclause.is_null() {
                return self.alternatives(clause.clause.cast(), selectivity, demand);
            }
            let predicate = self.predicate(clause.clause.cast());
            if let Some((key, kind)) = self.term(clause.clause.cast()) {
                demand.terms.push(Term { key, kind, selectivity, predicate });
            }
        }
    }

    /// The arms of an OR.
    unsafe fn alternatives(&self, clause: *mut pg_sys::Node, selectivity: f64, demand: &mut Demand) {
        // SAFETY: an OR has a list of arms.
        unsafe {
            if (*clause).type_ != pg_sys::NodeTag::T_BoolExpr {
                return;
            }
            for arm in pointers::<pg_sys::Node>((*clause.cast::<pg_sys::BoolExpr>()).args) {
                if let Some((key, kind)) = self.term(arm) {
                    demand.alternatives.push(Term { key, kind, selectivity, predicate: None });
                }
            }
        }
    }

    /// What a condition asks of which key.
    unsafe fn term(&self, clause: *mut pg_sys::Node) -> Option<(Key, TermKind)> {
        use pg_sys::NodeTag::*;
        // SAFETY: each cast follows a tag.
        unsafe {
            match (*clause).type_ {
                T_OpExpr | T_ScalarArrayOpExpr => {
                    let compared = self.compared(clause)?;
                    let kind = self.kind(&compared)?;
                    Some((self.key(compared.own, compared.collation)?, kind))
                }
                T_NullTest => {
                    let test = &*clause.cast::<pg_sys::NullTest>();
                    let is_null = test.nulltesttype == pg_sys::NullTestType::IS_NULL;
                    let kind = if is_null { TermKind::Null } else { TermKind::Flag };
                    Some((self.key(test.arg.cast(), pg_sys::InvalidOid)?, kind))
                }
                T_BooleanTest => {
                    let argument = (*clause.cast::<pg_sys::BooleanTest>()).arg;
                    Some((self.key(argument.cast(), pg_sys::InvalidOid)?, TermKind::Flag))
                }
                T_Var => Some((self.key(clause, pg_sys::InvalidOid)?, TermKind::Flag)),
                T_BoolExpr => {
                    let expression = &*clause.cast::<pg_sys::BoolExpr>();
                    let only = pointers::<pg_sys::Node>(expression.args).next()?;
                    let is_not = expression.boolop == pg_sys::BoolExprType::NOT_EXPR;
                    let is_column = (*only).type_ == T_Var;
                    if is_not && is_column { Some((self.key(only, pg_sys::InvalidOid)?, TermKind::Flag)) } else { None }
                }
                _ => None,
            }
        }
    }

    unsafe fn compared(&self, clause: *mut pg_sys::Node) -> Option<Compared> {
        // SAFETY: each cast follows a tag.
        unsafe {
            let (operator, collation, arguments, is_array) = match (*clause).type_ {
                pg_sys::NodeTag::T_OpExpr => {
                    let expression = &*clause.cast::<pg_sys::OpExpr>();
                    (expression.opno, expression.inputcollid, expression.args, false)
                }
                pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                    let expression = &*clause.cast::<pg_sys::ScalarArrayOpExpr>();
                    if !expression.useOr {
                        return None;
                    }
                    (expression.opno, expression.inputcollid, expression.args, true)
                }
                _ => return None,
            };
            let mut sides = pointers::<pg_sys::Node>(arguments);
            let (left, right) = (sides.next()?, sides.next()?);
            if self.is_own(left) && !self.reads_own(right) {
                return Some(Compared { own: left, operator, other: right, collation });
            }
            let operator = pg_sys::get_commutator(operator);
            if !is_array && operator != pg_sys::InvalidOid && self.is_own(right) && !self.reads_own(left) {
                return Some(Compared { own: right, operator, other: left, collation });
            }
            None
        }
    }

    /// Is it made of nothing but columns of this table?
    unsafe fn is_own(&self, node: *mut pg_sys::Node) -> bool {
        let mut member = -1;
        // SAFETY: an expression of the planner's.
        unsafe {
            pg_sys::bms_get_singleton_member(pg_sys::pull_varnos(self.root, node), &mut member)
                && member as u32 == self.table.relid
        }
    }

    unsafe fn reads_own(&self, node: *mut pg_sys::Node) -> bool {
        // SAFETY: as above.
        unsafe { pg_sys::bms_is_member(self.table.relid as i32, pg_sys::pull_varnos(self.root, node)) }
    }

    /// What kind of index an operator calls for, by the catalog.
    unsafe fn kind(&self, compared: &Compared) -> Option<TermKind> {
        // SAFETY: catalog look-ups.
        unsafe {
            let kind = pg_sys::exprType(compared.own);
            match strategy(kind, pg_sys::BTREE_AM_OID, compared.operator) {
                3 => return Some(TermKind::Equal),
                1 | 2 | 4 | 5 => return Some(TermKind::Range),
                _ => {}
            }
            if let Some(kind) = super::patterns::kind(compared.operator, kind, compared.other, compared.collation) {
                return Some(kind);
            }
            let mut opclasses = Vec::new();
            if strategy(kind, pg_sys::GIN_AM_OID, compared.operator) != 0 {
                // 3246 is jsonb @> jsonb (pg_operator.dat): the only one that the smaller class serves as well.
                if compared.operator.to_u32() == 3246 {
                    opclasses.push("jsonb_path_ops".to_owned());
                }
                opclasses.push(String::new());
            }
            (!opclasses.is_empty()).then_some(TermKind::Contains { opclasses })
        }
    }

    /// A key of an expression; `None` when no index can have it.
    unsafe fn key(&self, node: *mut pg_sys::Node, collation: pg_sys::Oid) -> Option<Key> {
        // SAFETY: each cast follows a tag; the expression is copied before it is changed.
        unsafe {
            let mut bare = node;
            while (*bare).type_ == pg_sys::NodeTag::T_RelabelType {
                bare = (*bare.cast::<pg_sys::RelabelType>()).arg.cast();
            }
            let kind = pg_sys::exprType(node);
            let (mut sql, attribute, facts) = match (*bare).type_ {
                pg_sys::NodeTag::T_Var => {
                    let attribute = (*bare.cast::<pg_sys::Var>()).varattno;
                    if attribute <= 0 {
                        return None;
                    }
                    let facts = statistics::column_facts(self.relation, attribute, self.table.tuples);
                    (relations::quoted_column(self.relation, attribute), attribute, facts)
                }
                _ => {
                    if pg_sys::contain_mutable_functions(bare) || !self.is_own(bare) {
                        return None;
                    }
                    (format!("({})", self.deparsed(bare)), 0, self.expression_facts(bare))
                }
            };
            let own = pg_sys::exprCollation(bare);
            if collation != pg_sys::InvalidOid && own != collation {
                sql += &format!(" COLLATE {}", relations::qualified_collation(collation.to_u32()));
            }
            Some(Key {
                sql,
                attribute,
                width_bytes: facts.avg_width_bytes,
                max_width_bytes: facts.widest_bytes(),
                n_distinct: facts.n_distinct,
                correlation: facts.correlation,
                is_ordered: pg_sys::GetDefaultOpClass(kind, pg_sys::BTREE_AM_OID) != pg_sys::InvalidOid,
            })
        }
    }

    unsafe fn expression_facts(&self, node: *mut pg_sys::Node) -> ColumnFacts {
        // SAFETY: an expression of the planner's. One over a single column is taken to be as wide, and to have as many values.
        unsafe {
            let own = statistics::type_facts(pg_sys::exprType(node).to_u32(), pg_sys::exprTypmod(node));
            let (mut attributes, mut member) = (ptr::null_mut(), -1);
            pg_sys::pull_varattnos(node, self.table.relid, &mut attributes);
            let is_single = pg_sys::bms_get_singleton_member(attributes, &mut member);
            let number = (member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16;
            if !is_single || number <= 0 {
                return own;
            }
            let column = statistics::column_facts(self.relation, number, self.table.tuples);
            match own.is_variable && column.is_variable {
                true => ColumnFacts { correlation: 0.0, ..column },
                false => ColumnFacts { n_distinct: column.n_distinct, ..own },
            }
        }
    }

    /// An expression of the table as SQL.
    unsafe fn deparsed(&self, node: *mut pg_sys::Node) -> String {
        // SAFETY: a copy that speaks of the only table of its context.
        unsafe {
            let copy = pg_sys::copyObjectImpl(node.cast_const().cast()).cast::<pg_sys::Node>();
            pg_sys::ChangeVarNodes(copy, self.table.relid as i32, 1, 0);
            let relation = pg_sys::Oid::from(self.relation);
            let context = pg_sys::deparse_context_for(pg_sys::get_rel_name(relation), relation);
            c_string(pg_sys::deparse_expression(copy, context, false, false))
        }
    }

    /// A condition as the predicate of an index; `None` when it cannot be one.
    unsafe fn predicate(&self, clause: *mut pg_sys::Node) -> Option<String> {
        // SAFETY: as above.
        unsafe {
            let is_fixed =
                !has_parameters(clause.cast(), ptr::null_mut()) && !pg_sys::contain_mutable_functions(clause);
            (is_fixed && self.is_own(clause)).then(|| self.deparsed(clause))
        }
    }

    /// A condition that joins, of those that are not among the equivalences.
    unsafe fn join_clause(&self, clause: &pg_sys::RestrictInfo, demand: &mut Demand) {
        // SAFETY: a clause of the planner's.
        unsafe {
            let Some(compared) = self.compared(clause.clause.cast()) else { return };
            let kind = pg_sys::exprType(compared.own);
            if strategy(kind, pg_sys::BTREE_AM_OID, compared.operator) == 3
                && let Some(key) = self.key(compared.own, compared.collation)
                && !demand.joins.contains(&key)
            {
                demand.joins.push(key);
            }
        }
    }

    /// What is equal to something of another table.
    unsafe fn equivalences(&self, demand: &mut Demand) {
        // SAFETY: the planner's classes.
        unsafe {
            for class in pointers::<pg_sys::EquivalenceClass>((*self.root).eq_classes) {
                let class = &*class;
                if class.ec_has_volatile || class.ec_has_const {
                    continue;
                }
                let has_others = pointers::<pg_sys::EquivalenceMember>(class.ec_members)
                    .any(|member| !pg_sys::bms_is_member(self.table.relid as i32, (*member).em_relids));
                if let Some(key) = self.member(class).filter(|key| has_others && !demand.joins.contains(key)) {
                    demand.joins.push(key);
                }
            }
        }
    }

    /// The key of this table in a class of equals.
    unsafe fn member(&self, class: &pg_sys::EquivalenceClass) -> Option<Key> {
        // SAFETY: as above.
        unsafe {
            pointers::<pg_sys::EquivalenceMember>(class.ec_members)
                .filter(|member| !(**member).em_is_child && self.is_own((**member).em_expr.cast()))
                .find_map(|member| self.key((*member).em_expr.cast(), class.ec_collation))
        }
    }

    unsafe fn all_orders(&self, demand: &mut Demand) {
        // SAFETY: the planner's lists.
        unsafe {
            let root = &*self.root;
            let lists = [root.query_pathkeys, root.sort_pathkeys, root.group_pathkeys, root.distinct_pathkeys];
            for list in lists {
                let order = self.order(list);
                if !order.is_empty() && !demand.orders.contains(&order) {
                    demand.orders.push(order);
                }
            }
        }
    }

    /// An order, when all of it is of this table.
    unsafe fn order(&self, list: *mut pg_sys::List) -> Vec<OrderKey> {
        // SAFETY: as above.
        let keys = unsafe {
            pointers::<pg_sys::PathKey>(list).map(|key| {
                Some(OrderKey {
                    key: self.member(&*(*key).pk_eclass)?,
                    descends: compat::descends(&*key),
                    nulls_first: (*key).pk_nulls_first,
                })
            })
        };
        keys.collect::<Option<Vec<OrderKey>>>().unwrap_or_default()
    }

    /// The columns that the query reads, wherever it does.
    unsafe fn needed(&self) -> Vec<Key> {
        let first = i32::from(self.table.min_attr);
        // SAFETY: the array has a place for each column from the lowest on; conditions are expressions of the planner's.
        unsafe {
            let mut columns: Vec<i16> = (1..=self.table.max_attr)
                .filter(|number| !(*self.table.attr_needed.add((i32::from(*number) - first) as usize)).is_null())
                .collect();
            for clause in pointers::<pg_sys::RestrictInfo>(self.table.baserestrictinfo) {
                let mut members = ptr::null_mut();
                pg_sys::pull_varattnos((*clause).clause.cast(), self.table.relid, &mut members);
                compat::members(members, |column| columns.push(column));
            }
            columns.sort_unstable();
            columns.dedup();
            columns.into_iter().filter(|number| *number > 0).filter_map(|number| self.column(number)).collect()
        }
    }

    fn column(&self, number: i16) -> Option<Key> {
        let facts = statistics::column_facts(self.relation, number, self.table.tuples);
        let sql = relations::quoted_column(self.relation, number);
        let (width_bytes, max_width_bytes) = (facts.avg_width_bytes, facts.widest_bytes());
        (!sql.is_empty()).then(|| Key { sql, attribute: number, width_bytes, max_width_bytes, ..Key::default() })
    }
}

/// Does an expression have parameters, which no index can have?
#[pg_guard]
unsafe extern "C-unwind" fn has_parameters(node: *mut pg_sys::Node, context: *mut core::ffi::c_void) -> bool {
    // SAFETY: Postgres's walker passes valid nodes.
    unsafe {
        !node.is_null()
            && ((*node).type_ == pg_sys::NodeTag::T_Param
                || pg_sys::expression_tree_walker(node, Some(has_parameters), context))
    }
}

/// The strategy number of an operator in the default operator class of a type; 0: it is not in there.
unsafe fn strategy(kind: pg_sys::Oid, method: pg_sys::Oid, operator: pg_sys::Oid) -> i32 {
    // SAFETY: catalog look-ups.
    unsafe {
        let class = pg_sys::GetDefaultOpClass(kind, method);
        if class == pg_sys::InvalidOid {
            return 0;
        }
        pg_sys::get_op_opfamily_strategy(operator, pg_sys::get_opclass_family(class))
    }
}
