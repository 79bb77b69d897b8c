//! What the hooks of `pg` call.

use super::Advisor;
use crate::pg::whatif;
use crate::pg::xact::XactObserver;

impl XactObserver for Advisor {
    #[inline(always)]
    fn committed() {}

    fn aborted() {
        whatif::forget(0);
    }

    fn subtransaction_starts(_id: u32) {}

    fn subtransaction_aborted(id: u32) {
        whatif::forget(id);
    }

    fn session_ends() {}
}
