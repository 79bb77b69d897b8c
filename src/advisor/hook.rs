//! What the hooks of `pg` call.

use super::Advisor;
use crate::pg::xact::XactObserver;
use crate::pg::{harvest, whatif};

impl XactObserver for Advisor {
    #[inline(always)]
    fn committed() {}

    fn aborted() {
        whatif::forget();
        harvest::forget();
    }

    fn subtransaction_starts(_id: u32) {}

    fn subtransaction_aborted(_id: u32) {
        whatif::forget();
        harvest::forget();
    }

    fn session_ends() {}
}
