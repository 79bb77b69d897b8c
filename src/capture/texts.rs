//! Texts of the statements that this backend parsed lately, until their shared entry has one.
//!
//! Only post_parse_analyze knows which constants of a text do not count, and it runs once for a prepared
//! statement that may run for months. So the raw text and its constants are kept here for a while, and
//! normalised only when a shared entry asks for it. A statement that is no longer here (evicted, or never
//! parsed by this backend) gets its text from its own source, with every literal hidden.

use crate::pg::backend::BackendStatic;
use crate::pg::parse::Parsed;
use crate::pg::{guc, text};
use crate::settings;
use core::cell::{Cell, RefCell};
use core::num::NonZeroUsize;
use lru::LruCache;
use steward_core::capture::normalize::{
    Backslash, Constant, Placeholder, clip, normalize_at_with, normalize_utility_with, normalize_with,
};

/// Texts kept per backend.
// Evaluated when it is compiled: a zero would not build.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Query ids of which this backend knows that the shared entry has a text.
const KNOWN: usize = 512;

struct Kept {
    raw: Vec<u8>,
    constants: Option<(Vec<Constant>, u32)>,
    backslash: Backslash,
    /// The finished text, where making it takes a transaction: it is asked for when that is over.
    finished: Option<Vec<u8>>,
}

impl Kept {
    fn new(raw: &[u8], constants: Option<(Vec<Constant>, u32)>, backslash: Backslash) -> Self {
        let mut kept = Kept { raw: cut(raw), constants, backslash, finished: None };
        if text::needs_catalogs(&kept.raw) {
            kept.finished = Some(limited(text::to_utf8(&kept.normalise())));
        }
        kept
    }

    fn normalise(&self) -> Vec<u8> {
        let Some((constants, highest)) = &self.constants else {
            return hide_all(&self.raw, self.backslash);
        };
        let text = normalize_at_with(&self.raw, constants, *highest, self.backslash);
        if is_query(&text) { text } else { hide_all(&self.raw, self.backslash) }
    }
}

static TEXTS: BackendStatic<RefCell<Option<LruCache<u64, Kept>>>> = BackendStatic::new(RefCell::new(None));
static KNOWN_IDS: BackendStatic<[Cell<u64>; KNOWN]> = BackendStatic::new([const { Cell::new(0) }; KNOWN]);

fn place(query_id: u64) -> &'static Cell<u64> {
    &KNOWN_IDS[(query_id >> 20) as usize % KNOWN]
}

/// Is the text in shared memory, as far as this backend knows?
pub fn is_known(query_id: u64) -> bool {
    place(query_id).get() == query_id
}

/// Notes whether the shared entry has a text.
pub fn set_known(query_id: u64, known: bool) {
    if known {
        place(query_id).set(query_id);
    } else if is_known(query_id) {
        place(query_id).set(0);
    }
}

/// Shared memory may have no text any more.
pub fn forget_known() {
    KNOWN_IDS.iter().for_each(|id| id.set(0));
}

/// Keeps a text that was just analysed, unless shared memory has it.
pub fn remember_parsed(parsed: Parsed) {
    let query_id = parsed.query_id();
    if is_known(query_id) || is_kept(query_id) {
        return;
    }
    let constants = (!parsed.is_utility()).then(|| parsed.constants());
    // A string of several statements was read as a whole, maybe before a SET of its own took effect.
    let backslash = if parsed.is_whole_source() { backslash() } else { Backslash::Unknown };
    keep(query_id, Kept::new(parsed.text(), constants, backslash));
}

/// Keeps the text of a statement that runs, unless something better is there.
pub fn remember_source(query_id: u64, raw: &[u8]) {
    if !raw.is_empty() && !is_kept(query_id) {
        keep(query_id, Kept::new(raw, None, Backslash::Unknown));
    }
}

fn is_kept(query_id: u64) -> bool {
    TEXTS.try_borrow().is_ok_and(|texts| texts.as_ref().is_some_and(|t| t.contains(&query_id)))
}

/// Is the text a query from its first word on? The query inside a utility statement (COPY, EXPLAIN, CREATE TABLE
/// AS) is analysed with the whole statement's text but only its own constants.
fn is_query(normalised: &[u8]) -> bool {
    const FIRST_WORDS: [&[u8]; 8] =
        [b"select", b"insert", b"update", b"delete", b"merge", b"with", b"values", b"table"];
    let text = normalised.trim_ascii_start();
    let word = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    text.starts_with(b"(") || FIRST_WORDS.iter().any(|first| text[..word].eq_ignore_ascii_case(first))
}

/// Twice the length that is kept: normalising shortens, and the rest would be cut anyway.
fn cut(raw: &[u8]) -> Vec<u8> {
    raw[..raw.len().min(longest_raw())].to_vec()
}

fn longest_raw() -> usize {
    2 * guc::int(&settings::MAX_QUERY_LENGTH) as usize
}

fn keep(query_id: u64, kept: Kept) {
    if let Ok(mut texts) = TEXTS.try_borrow_mut() {
        texts.get_or_insert_with(|| LruCache::new(KEPT)).put(query_id, kept);
    }
}

/// The normalised text in UTF-8, if this backend has it.
pub fn normalised(query_id: u64) -> Option<Vec<u8>> {
    normalised_by(query_id, text::to_utf8)
}

/// As `normalised`, while an error is being reported.
pub fn normalised_in_error(query_id: u64) -> Option<Vec<u8>> {
    normalised_by(query_id, text::to_utf8_in_error)
}

fn normalised_by(query_id: u64, to_utf8: impl Fn(&[u8]) -> String) -> Option<Vec<u8>> {
    let mut texts = TEXTS.try_borrow_mut().ok()?;
    let kept = texts.as_mut()?.get(&query_id)?;
    if let Some(finished) = &kept.finished {
        return Some(finished.clone());
    }
    Some(limited(to_utf8(&kept.normalise())))
}

/// A text with every literal hidden, in UTF-8.
pub fn hidden(raw: &[u8]) -> Vec<u8> {
    limited(text::to_utf8(&hide_all(&cut(raw), Backslash::Unknown)))
}

/// As `hidden`, while an error is being reported.
pub fn hidden_in_error(raw: &[u8]) -> Vec<u8> {
    limited(text::to_utf8_in_error(&hide_all(&cut(raw), Backslash::Unknown)))
}

/// The form for utility statements serves for all: it numbers on from the text's own parameters, and shows the
/// shape of a DO or a function. A text that was cut may have lost the words that say what such a body is
/// written in, so nothing of it is shown.
fn hide_all(raw: &[u8], backslash: Backslash) -> Vec<u8> {
    match raw.len() < longest_raw() {
        true => normalize_utility_with(raw, backslash),
        false => normalize_with(raw, Placeholder::Numbered(1), backslash),
    }
}

fn limited(text: String) -> Vec<u8> {
    clip(text.as_bytes(), guc::int(&settings::MAX_QUERY_LENGTH) as usize).to_vec()
}

/// How this session reads a backslash in an ordinary string.
fn backslash() -> Backslash {
    match crate::pg::session::standard_conforming_strings() {
        true => Backslash::Plain,
        false => Backslash::Escape,
    }
}
