//! What the hooks of `pg` call.

use super::{Cache, classes, commits, fill, local, statements, temporary};
use crate::pg::access::{FunctionObserver, RelationObserver};
use crate::pg::hot::StartObserver;
use crate::pg::inval::CatalogObserver;
use crate::pg::label::LabelObserver;
use crate::pg::query::Query;
use crate::pg::utility::{Utility, UtilityWatcher};
use crate::pg::xact::XactObserver;

impl StartObserver for Cache {
    #[inline(always)]
    fn starts(query: Query) {
        commits::execution_starts(query);
        fill::execution_starts(query);
    }
}

impl FunctionObserver for Cache {
    #[inline(always)]
    fn executes(function: u32) {
        commits::function_executes(function);
        fill::function_executes(function);
    }
}

impl RelationObserver for Cache {
    fn type_created(hash: u32) {
        temporary::type_created(hash);
    }

    fn temporary_created(relation: u32, row_type: Option<u32>) {
        temporary::created(relation, row_type, commits::changes_relations());
    }

    fn type_dropped(hash: u32) {
        temporary::type_dropped(hash, commits::changes_relations());
    }

    fn relation_dropped(relation: u32) {
        temporary::relation_dropped(relation, commits::changes_relations());
    }
}

impl UtilityWatcher for Cache {
    fn before(statement: Utility) {
        commits::utility_starts(statement);
    }

    fn after() {
        commits::utility_succeeded();
    }
}

impl XactObserver for Cache {
    #[inline(always)]
    fn before_commit(prepare: bool) {
        commits::before_commit(prepare);
    }

    #[inline(always)]
    fn committed() {
        commits::committed();
        transaction_ended();
    }

    fn prepared() {
        commits::prepared();
        transaction_ended();
    }

    fn aborted() {
        commits::aborted();
        transaction_ended();
    }

    fn released() {
        commits::released();
    }

    fn subtransaction_starts(id: u32) {
        commits::subtransaction_starts(id);
        statements::subtransaction_starts(id);
    }

    fn subtransaction_committed(id: u32) {
        statements::subtransaction_committed(id);
    }

    fn subtransaction_aborted(id: u32) {
        commits::subtransaction_aborted(id);
        fill::abandon_since(id);
        statements::subtransaction_aborted(id);
    }

    fn session_ends() {
        local::session_ends();
    }
}

#[inline(always)]
fn transaction_ended() {
    fill::transaction_ended();
    statements::transaction_ended();
}

impl CatalogObserver for Cache {
    fn relation_changed(relation: u32) {
        statements::relation_changed(relation);
    }

    fn relation_name_changed(hash: u32) {
        statements::relation_name_changed(hash);
    }

    fn type_changed(hash: u32) {
        statements::type_changed(hash);
    }

    fn catalog_changed() {
        statements::catalog_changed();
    }
}

impl LabelObserver for Cache {
    fn check(is_column: bool, label: &str) -> Result<(), String> {
        if is_column {
            return match label == classes::SENSITIVE_LABEL {
                true => Ok(()),
                false => Err(format!("\"{}\" for a column", classes::SENSITIVE_LABEL)),
            };
        }
        classes::named(label).map(|_| ()).map_err(|_| {
            let names = classes::with(|classes| classes.iter().map(|class| class.name.clone()).collect::<Vec<_>>());
            format!("the name of a class: {}", names.join(", "))
        })
    }
}
