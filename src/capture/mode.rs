//! What is to be captured at present, as bits of one word.

use super::control;
use crate::pg::backend::BackendStatic;
use crate::pg::{errors, guc, hot, usage};
use crate::settings::{self, Track};
use core::cell::Cell;

/// What the settings, the level of degradation and the log level come to, as bits, so that the hot path need
/// not ask each of them. 0: not known; worked out when it is asked for next.
///
/// Settings of our own make it unknown as they change. The rest is asked again after each utility statement
/// (SET) and at each flush.
static BITS: BackendStatic<Cell<u8>> = BackendStatic::new(Cell::new(0));
/// The client's statements are captured.
const TOP: u8 = 1;
/// Those that functions run are, too.
const ALL: u8 = 2;
/// Buffers and WAL are counted.
const BUFFERS: u8 = 4;
/// And I/O times.
const TIMES: u8 = 16;
/// The bits are worked out.
const KNOWN: u8 = 32;
/// The log level keeps errors from the hook that sees them.
const HIDDEN: u8 = 8;

#[inline(never)]
fn work_out() -> u8 {
    let track = guc::ordinal(&settings::TRACK);
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    let mode = match guc::bool(&settings::CAPTURE_ENABLED) && !hot::is_parallel_worker() {
        false => KNOWN,
        true => {
            let buffers = guc::bool(&settings::TRACK_BUFFERS) && control::takes_buffers();
            KNOWN
                | bit(track != Track::None as i32, TOP)
                | bit(track == Track::All as i32, ALL)
                | bit(buffers, BUFFERS)
                | bit(buffers && usage::is_timed(), TIMES)
                | bit(errors::errors_are_hidden(), HIDDEN)
        }
    };
    BITS.set(mode);
    mode
}

/// Is a statement at this nesting to be captured?
#[inline(always)]
pub fn is_tracking(nesting: u32) -> bool {
    let mut mode = BITS.get();
    if mode == 0 {
        mode = work_out();
    }
    mode & (if nesting == 0 { TOP } else { ALL }) != 0
}

#[inline(always)]
pub fn reads_buffers() -> bool {
    let mode = BITS.get();
    mode & BUFFERS != 0 || (mode == 0 && work_out() & BUFFERS != 0)
}

/// Are I/O times read besides?
#[inline(always)]
pub fn reads_times() -> bool {
    BITS.get() & TIMES != 0
}

/// Does a statement at this nesting have to be watched for its error?
#[inline(always)]
pub fn watches_errors(nesting: u32) -> bool {
    BITS.get() & (if nesting == 0 { HIDDEN } else { HIDDEN | ALL }) != 0
}

/// Something that the bits stand for may have changed.
#[inline(always)]
pub fn forget() {
    BITS.set(0);
}
