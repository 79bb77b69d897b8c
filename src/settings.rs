//! Every setting of pg_steward: name, meaning, range, unit, default, and who may change it.
//!
//! A setting is one line of `define`; README's table is checked against pg_settings by a test.

use crate::pg::guc::{self, Watched, Watcher};
use pgrx::PostgresGucEnum;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};

/// Which statements are tracked.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Track {
    #[name = c"none"]
    None,
    #[name = c"top"]
    Top,
    #[name = c"all"]
    All,
}

pub static CAPTURE_ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static TRACK: GucSetting<Track> = GucSetting::<Track>::new(Track::Top);
pub static TRACK_UTILITY: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static TRACK_PLANNING: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static TRACK_BUFFERS: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static SLOW_THRESHOLD_MS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
pub static SAMPLE_RATE: GucSetting<f64> = GucSetting::<f64>::new(0.0);
pub static SLOW_LIMIT_PER_MINUTE: GucSetting<i32> = GucSetting::<i32>::new(60);
pub static CAPTURE_PLANS: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static CAPTURE_PARAMETERS: GucSetting<bool> = GucSetting::<bool>::new(false);
pub static MAX_PARAMETER_LENGTH: GucSetting<i32> = GucSetting::<i32>::new(256);
pub static MAX_PLAN_LENGTH: GucSetting<i32> = GucSetting::<i32>::new(64);
pub static REPEAT_THRESHOLD: GucSetting<i32> = GucSetting::<i32>::new(10);
pub static REQUEST_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static TRACEPARENT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static OVERHEAD_LIMIT_PCT: GucSetting<f64> = GucSetting::<f64>::new(3.0);
pub static FLUSH_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
pub static MAX_STATEMENTS: GucSetting<i32> = GucSetting::<i32>::new(5_000);
pub static TEXT_MEMORY_KB: GucSetting<i32> = GucSetting::<i32>::new(4_096);
pub static MAX_QUERY_LENGTH: GucSetting<i32> = GucSetting::<i32>::new(4_096);
pub static RING_MEMORY_KB: GucSetting<i32> = GucSetting::<i32>::new(4_096);
pub static DRAIN_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
pub static RETENTION_MIN: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 60);
pub static RETENTION_SIZE_MB: GucSetting<i32> = GucSetting::<i32>::new(1_024);

pub static CACHE_ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static CACHE_SIZE_MB: GucSetting<i32> = GucSetting::<i32>::new(64);
pub static CACHE_LOCAL_SIZE_KB: GucSetting<i32> = GucSetting::<i32>::new(4_096);
pub static CACHE_MAX_RESULT_SIZE_KB: GucSetting<i32> = GucSetting::<i32>::new(1_024);
pub static CACHE_MIN_EXECUTION_TIME_MS: GucSetting<f64> = GucSetting::<f64>::new(1.0);
pub static CACHE_ADMISSION_WINDOW_S: GucSetting<i32> = GucSetting::<i32>::new(60);
pub static CACHE_WAIT_LIMIT_MS: GucSetting<i32> = GucSetting::<i32>::new(50);
pub static CACHE_SHARE_ENTRIES: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static CACHE_TRUST_IMMUTABLE: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static CACHE_VERSION_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(16_384);
pub static CACHE_STATEMENTS: GucSetting<i32> = GucSetting::<i32>::new(200);
pub static CACHE_DEFAULT_CLASS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"utility"));
pub static CACHE_SENSITIVE_COLUMNS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(
    c"password,passwd,pwd,token,secret,key,api_key,private_key,credential,iban,bank_account,account_number,ssn,social_security,tax_id,credit_card,card_number,cvv,pin",
));

const PLAIN: GucFlags = GucFlags::empty();
const KB: GucFlags = GucFlags::UNIT_KB;
const MS: GucFlags = GucFlags::UNIT_MS;
const BYTE: GucFlags = GucFlags::UNIT_BYTE;

/// Defines the settings and reserves their prefix, so that a misspelt one is refused.
pub fn define<W: Watcher>() {
    who_and_what::<W>();
    slow_executions::<W>();
    correlation::<W>();
    memory();
    worker();
    cache_memory();
    cache_rules();
    // Postgres calls the prefix a class name.
    guc::reserve_prefix(c"pg_steward");
}

fn who_and_what<W: Watcher>() {
    tracking::<W>(c"pg_steward.capture_enabled", c"Switches statement capture on.", &CAPTURE_ENABLED);
    let track = Watched {
        name: c"pg_steward.track",
        what: c"Selects the statements that are captured.",
        more: c"top: those that a client sends; all: also those that functions run; none.",
        setting: &TRACK,
    };
    guc::define_tracking_choice::<W, Track>(&track, Track::Top);
    switch(c"pg_steward.track_utility", c"Captures utility statements too.", &TRACK_UTILITY);
    switch(c"pg_steward.track_planning", c"Measures the duration of planning.", &TRACK_PLANNING);
    let what = c"Counts buffers, I/O and WAL per statement.";
    tracking::<W>(c"pg_steward.track_buffers", what, &TRACK_BUFFERS);
}

fn slow_executions<W: Watcher>() {
    use GucContext::{Sighup, Suset};
    let threshold = Watched {
        name: c"pg_steward.slow_threshold",
        what: c"Executions that take at least this long are recorded one by one.",
        more: c"0 records every execution, -1 none.",
        setting: &SLOW_THRESHOLD_MS,
    };
    guc::define_slow_threshold::<W>(&threshold, 1_000);
    let rate = Watched {
        name: c"pg_steward.sample_rate",
        what: c"Share of the executions below slow_threshold that are recorded too.",
        more: c"",
        setting: &SAMPLE_RATE,
    };
    guc::define_sample_rate::<W>(&rate, 0.0);
    int(
        c"pg_steward.slow_limit_per_minute",
        c"Executions of one statement that are recorded per minute at most.",
        c"What exceeds it is counted in statements_info.events_suppressed. 0 means no limit.",
        (&SLOW_LIMIT_PER_MINUTE, 0, 1_000_000),
        Sighup,
        PLAIN,
    );
    switch(c"pg_steward.capture_plans", c"Records the plan of slow executions.", &CAPTURE_PLANS);
    switch(
        c"pg_steward.capture_parameters",
        c"Records the values of bind parameters of slow executions.",
        &CAPTURE_PARAMETERS,
    );
    int(
        c"pg_steward.max_parameter_length",
        c"Bytes that are recorded of one parameter's value.",
        c"Longer values are cut.",
        (&MAX_PARAMETER_LENGTH, 1, 65_536),
        Suset,
        BYTE,
    );
    int(
        c"pg_steward.max_plan_length",
        c"Largest plan that is recorded.",
        c"A longer one is left out, since half a plan cannot be read.",
        (&MAX_PLAN_LENGTH, 1, 1_024),
        Suset,
        KB,
    );
}

fn correlation<W: Watcher>() {
    use GucContext::Suset;
    int(
        c"pg_steward.repeat_threshold",
        c"Executions of one statement within one transaction that count as a repeated query.",
        c"0 switches the detection off.",
        (&REPEAT_THRESHOLD, 0, 1_000_000),
        Suset,
        PLAIN,
    );
    guc::define_request_id::<W>(&Watched {
        name: c"pg_steward.request_id",
        what: c"Request that the session works for; recorded with slow executions.",
        more: c"",
        setting: &REQUEST_ID,
    });
    GucRegistry::define_string_guc(
        c"pg_steward.traceparent",
        c"W3C trace context that the session works for; recorded with slow executions.",
        c"",
        &TRACEPARENT,
        GucContext::Userset,
        PLAIN,
    );
    real(
        c"pg_steward.overhead_limit",
        c"Percentage of statements' time that capture may take before it switches parts of itself off.",
        (&OVERHEAD_LIMIT_PCT, 0.0, 100.0),
        GucContext::Sighup,
    );
    int(
        c"pg_steward.flush_interval",
        c"Least time between two visits of a backend to the shared statistics.",
        c"0 means after every transaction.",
        (&FLUSH_INTERVAL_MS, 0, 60_000),
        Suset,
        MS,
    );
}

fn memory() {
    use GucContext::Postmaster;
    int(
        c"pg_steward.max_statements",
        c"Statements that statistics are kept of.",
        c"About 2 kB of shared memory each.",
        (&MAX_STATEMENTS, 100, 1_000_000),
        Postmaster,
        PLAIN,
    );
    int(
        c"pg_steward.text_memory",
        c"Shared memory for the texts of statements.",
        c"Texts that do not fit are cut.",
        (&TEXT_MEMORY_KB, 64, 1_048_576),
        Postmaster,
        KB,
    );
    int(
        c"pg_steward.max_query_length",
        c"Bytes that are kept of a statement's text.",
        c"Longer texts are cut.",
        (&MAX_QUERY_LENGTH, 100, 65_536),
        Postmaster,
        BYTE,
    );
    int(
        c"pg_steward.ring_memory",
        c"Shared memory for recorded executions on their way to the table.",
        c"When it is full, the oldest are overwritten and counted in statements_info.events_lost.",
        (&RING_MEMORY_KB, 64, 1_048_576),
        Postmaster,
        KB,
    );
}

fn worker() {
    use GucContext::Sighup;
    int(
        c"pg_steward.drain_interval",
        c"Time between two visits of the background worker to the ring.",
        c"Recorded executions wait in the ring meanwhile.",
        (&DRAIN_INTERVAL_MS, 10, 60_000),
        Sighup,
        MS,
    );
    int(
        c"pg_steward.retention",
        c"Age at which recorded executions are dropped, by whole days.",
        c"The present day is always kept.",
        (&RETENTION_MIN, 24 * 60, 10 * 365 * 24 * 60),
        Sighup,
        GucFlags::UNIT_MIN,
    );
    int(
        c"pg_steward.retention_size",
        c"Size at which the oldest days of recorded executions are dropped.",
        c"Per database.",
        (&RETENTION_SIZE_MB, 1, i32::MAX),
        Sighup,
        GucFlags::UNIT_MB,
    );
}

fn cache_memory() {
    use GucContext::{Postmaster, Suset};
    int(
        c"pg_steward.cache_size",
        c"Shared memory for cached results.",
        c"0 keeps results in the sessions that computed them only. When it is full, results give way by their use, cost and size.",
        (&CACHE_SIZE_MB, 0, 1_048_576),
        Postmaster,
        GucFlags::UNIT_MB,
    );
    int(
        c"pg_steward.cache_local_size",
        c"Memory of each session for results that it used lately.",
        c"The least recently used give way. 0 switches this tier off.",
        (&CACHE_LOCAL_SIZE_KB, 0, 1_048_576),
        Suset,
        KB,
    );
    int(
        c"pg_steward.cache_max_result_size",
        c"Largest result that is cached.",
        c"A larger one is returned and not kept. The class may set less.",
        (&CACHE_MAX_RESULT_SIZE_KB, 1, 1_048_576),
        Suset,
        KB,
    );
    int(
        c"pg_steward.cache_version_slots",
        c"Versions of relations that are kept in shared memory.",
        c"128 bytes each. Relations that share one invalidate each other's results.",
        (&CACHE_VERSION_SLOTS, 64, 16_777_216),
        Postmaster,
        PLAIN,
    );
    int(
        c"pg_steward.cache_statements",
        c"Analysed statements that a session keeps for cached calls.",
        c"The least recently used give way; about 50 kB each.",
        (&CACHE_STATEMENTS, 1, 100_000),
        Suset,
        PLAIN,
    );
}

fn cache_rules() {
    use GucContext::Suset;
    switch(
        c"pg_steward.cache_enabled",
        c"Switches the result cache on. Off, cached calls run their query.",
        &CACHE_ENABLED,
    );
    let flags = GucFlags::UNIT_MS;
    GucRegistry::define_float_guc(
        c"pg_steward.cache_min_execution_time",
        c"Results of faster executions are not cached.",
        c"",
        &CACHE_MIN_EXECUTION_TIME_MS,
        0.0,
        3_600_000.0,
        Suset,
        flags,
    );
    int(
        c"pg_steward.cache_admission_window",
        c"A result is cached when it is asked for a second time within this time.",
        c"0 caches at the first time, also what was demoted.",
        (&CACHE_ADMISSION_WINDOW_S, 0, 86_400),
        Suset,
        GucFlags::UNIT_S,
    );
    int(
        c"pg_steward.cache_wait_limit",
        c"Longest wait for another session that computes the same result.",
        c"At most half of the time that it is expected to take. 0 never waits.",
        (&CACHE_WAIT_LIMIT_MS, 0, 10_000),
        Suset,
        MS,
    );
    let share = c"Lets roles share a result where it is provably the same for both. Off, each role has its own.";
    switch(c"pg_steward.cache_share_entries", share, &CACHE_SHARE_ENTRIES);
    let trust = c"Believes that functions declared IMMUTABLE are. Off, those of users are read like STABLE ones.";
    switch(c"pg_steward.cache_trust_immutable", trust, &CACHE_TRUST_IMMUTABLE);
    let class = c"Class of tables without a security label, one of steward.cache_classes.";
    GucRegistry::define_string_guc(c"pg_steward.cache_default_class", class, c"", &CACHE_DEFAULT_CLASS, Suset, PLAIN);
    GucRegistry::define_string_guc(
        c"pg_steward.cache_sensitive_columns",
        c"Words in column names that make a result sensitive, separated by commas.",
        c"The class of its tables says what becomes of it.",
        &CACHE_SENSITIVE_COLUMNS,
        Suset,
        PLAIN,
    );
}

fn tracking<W: Watcher>(name: &'static CStr, what: &'static CStr, setting: &'static GucSetting<bool>) {
    guc::define_tracking_switch::<W>(&Watched { name, what, more: c"", setting });
}

fn switch(name: &'static CStr, what: &'static CStr, setting: &'static GucSetting<bool>) {
    GucRegistry::define_bool_guc(name, what, c"", setting, GucContext::Suset, PLAIN);
}

fn int(
    name: &'static CStr,
    what: &'static CStr,
    more: &'static CStr,
    (setting, min, max): (&'static GucSetting<i32>, i32, i32),
    context: GucContext,
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(name, what, more, setting, min, max, context, flags);
}

fn real(
    name: &'static CStr,
    what: &'static CStr,
    (setting, min, max): (&'static GucSetting<f64>, f64, f64),
    context: GucContext,
) {
    GucRegistry::define_float_guc(name, what, c"", setting, min, max, context, PLAIN);
}
