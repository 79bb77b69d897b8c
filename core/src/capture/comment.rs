//! Trace context and tags that applications put into SQL comments (the sqlcommenter specification) or settings.
//!
//! Only a comment at the very start or the very end of a statement is read, and only its first or last 512 bytes. The
//! contents must be `key='value'` pairs and nothing else, so other comments are left alone, and a string literal that
//! holds something like a comment cannot be taken for one: its quotes would be doubled.

use super::lexer::{Backslash, Kind, Lexer, trim};

/// Bytes at either end in which a comment is looked for.
const WINDOW_BYTES: usize = 512;
/// Texts up to this size are split into tokens to make sure that what ends them is a comment.
const VERIFIED_BYTES: usize = 1024;
/// Pairs beyond these are ignored.
const MAX_PAIRS: usize = 16;
/// Longer keys make a pair be ignored.
const MAX_KEY_BYTES: usize = 64;
/// Longer values are cut.
const MAX_VALUE_BYTES: usize = 128;

/// What a comment says about a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// The pair `traceparent`, when it is valid.
    pub traceparent: Option<TraceParent>,
    /// All pairs in their order, decoded.
    pub pairs: Vec<(String, String)>,
}

/// W3C Trace Context, level 1: which request this belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits; the specification's parent-id.
    pub span_id: String,
    /// The caller records this trace.
    pub sampled: bool,
}

/// Reads `version-traceid-spanid-flags` by the rules of W3C Trace Context, section 3.2: lower-case hexadecimal, ids not
/// all zero, version 00 of exactly this form, later ones may go on after another dash, ff is not valid.
pub fn parse_traceparent(text: &str) -> Option<TraceParent> {
    let bytes = text.as_bytes();
    let version = text.get(0..2).filter(|version| is_lower_hex(version) && *version != "ff")?;
    let trace_id = text.get(3..35).filter(|id| is_id(id))?;
    let span_id = text.get(36..52).filter(|id| is_id(id))?;
    let flags = text.get(53..55).filter(|flags| is_lower_hex(flags))?;
    let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
    let ends = bytes.len() == 55 || (version != "00" && bytes.get(55) == Some(&b'-'));
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    (dashes && ends).then(|| TraceParent { trace_id: trace_id.to_owned(), span_id: span_id.to_owned(), sampled })
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str) -> bool {
    is_lower_hex(text) && text.bytes().any(|byte| byte != b'0')
}

/// The tags of the statement's last comment, or else of its first; `None` when neither has any.
pub fn parse_sqlcommenter(text: &[u8]) -> Option<Tags> {
    appended(text).or_else(|| prepended(text)).map(|pairs| {
        let traceparent = pairs.iter().find(|(key, _)| key == "traceparent");
        Tags { traceparent: traceparent.and_then(|(_, value)| parse_traceparent(value)), pairs }
    })
}

/// What stands at the end, before semicolons. A whole statement that ends in `*/` ends in a comment: a string ends in
/// its quote. One that is cut may end within a string, which small texts are checked for.
fn appended(text: &[u8]) -> Option<Vec<(String, String)>> {
    let mut whole = trim(text);
    while let [rest @ .., b';'] = whole {
        whole = trim(rest);
    }
    let window = whole.get(whole.len().saturating_sub(WINDOW_BYTES)..)?;
    let inside = window.strip_suffix(b"*/")?;
    let start = inside.windows(2).rposition(|pair| pair == b"/*")?;
    let pairs = parse_pairs(inside.get(start + 2..)?)?;
    (whole.len() > VERIFIED_BYTES || ends_in_comment(whole)).then_some(pairs)
}

fn ends_in_comment(text: &[u8]) -> bool {
    Lexer::new(text, Backslash::Unknown).last().is_some_and(|token| token.kind == Kind::Comment)
}

/// The first of the comments at the start that has tags.
fn prepended(text: &[u8]) -> Option<Vec<(String, String)>> {
    let window = text.get(..text.len().min(WINDOW_BYTES))?;
    if !trim(window).starts_with(b"/*") {
        return None;
    }
    let leading = Lexer::new(window, Backslash::Unknown).take_while(|token| !token.kind.is_significant());
    let mut comments = leading.filter(|token| token.kind == Kind::Comment);
    comments.find_map(|token| parse_pairs(token.of(window).strip_prefix(b"/*")?.strip_suffix(b"*/")?))
}

/// `key='value', ...` and nothing else.
fn parse_pairs(inside: &[u8]) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = trim(inside);
    while pairs.len() < MAX_PAIRS {
        let equals = rest.iter().position(|&byte| byte == b'=')?;
        let key = trim(rest.get(..equals)?);
        if key.is_empty() || key.iter().any(|byte| matches!(byte, b'\'' | b',' | b'*' | b'/')) {
            return None;
        }
        let (value, after) = split_value(trim(rest.get(equals + 1..)?).strip_prefix(b"'")?)?;
        if key.len() <= MAX_KEY_BYTES {
            pairs.push((decode(key, MAX_KEY_BYTES), decode(value, MAX_VALUE_BYTES)));
        }
        rest = trim(after);
        if rest.is_empty() {
            break;
        }
        rest = trim(rest.strip_prefix(b",")?);
    }
    (!pairs.is_empty()).then_some(pairs)
}

/// A value up to its closing quote, and what follows. A quote within is written `\'`.
fn split_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b'\'' => return Some((text.get(..at)?, text.get(at + 1..)?)),
            _ => at += 1,
        }
    }
}

/// URL-decoded and without backslashes, as far as `max` bytes; what is no UTF-8 or a control character is replaced, so
/// that any database can store it.
fn decode(text: &[u8], max: usize) -> String {
    let mut bytes = Vec::with_capacity(text.len().min(max));
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let (byte, next) = match (first, after) {
            (b'%', [high, low, next @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, next),
                _ => (b'%', after),
            },
            (b'\\', [escaped, next @ ..]) => (*escaped, next),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = next;
    }
    let decoded = String::from_utf8_lossy(&bytes);
    let printable = decoded.chars().map(|char| if char.is_control() { '?' } else { char });
    let mut length = 0;
    let fits = |char: &char| {
        length += char.len_utf8();
        length <= max
    };
    printable.take_while(fits).collect()
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn pairs(text: &str) -> Option<Vec<(String, String)>> {
        parse_sqlcommenter(text.as_bytes()).map(|tags| tags.pairs)
    }

    fn one(key: &str, value: &str) -> Option<Vec<(String, String)>> {
        Some(vec![(key.into(), value.into())])
    }

    #[test]
    fn traceparent_of_version_0() {
        let parent = parse_traceparent(TRACE).unwrap();
        assert_eq!(parent.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id, "b7ad6b7169203331");
        assert!(parent.sampled);
        assert!(!parse_traceparent(&TRACE.replace("-01", "-02")).unwrap().sampled);
    }

    #[test]
    fn traceparent_that_is_not_valid() {
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let refused = [zero_trace, zero_span, "", "00", "00-ä", &TRACE[..54], &format!("{TRACE}-x")];
        for text in refused.into_iter().chain([&*TRACE.to_uppercase(), &*TRACE.replacen("00", "ff", 1)]) {
            assert_eq!(parse_traceparent(text), None, "{text}");
        }
        for at in 0..TRACE.len() {
            let broken = format!("{}g{}", &TRACE[..at], &TRACE[at + 1..]);
            assert_eq!(parse_traceparent(&broken), None, "{broken}");
        }
    }

    #[test]
    fn traceparent_of_a_later_version_may_go_on() {
        let later = TRACE.replacen("00", "cc", 1);
        assert!(parse_traceparent(&later).is_some());
        assert!(parse_traceparent(&format!("{later}-what-is-new")).is_some());
        assert!(parse_traceparent(&format!("{later}x")).is_none());
    }

    #[test]
    fn comments_at_either_end() {
        let text = format!("SELECT 1 /*controller='orders%20x',traceparent='{TRACE}'*/ ;\n");
        let tags = parse_sqlcommenter(text.as_bytes()).unwrap();
        assert_eq!(tags.pairs[0], ("controller".into(), "orders x".into()));
        assert_eq!(tags.traceparent, parse_traceparent(TRACE));
        assert_eq!(pairs("/*a='b'*/ SELECT 1"), one("a", "b"));
        assert_eq!(pairs("/* hint */ /* a = 'b' */ SELECT 1"), one("a", "b"));
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(pairs("x /*a='%27%E2%82%ac\\'%zz%4'*/"), one("a", "'€'%zz%4"));
        assert_eq!(pairs("x /*a='%00%0a%ff'*/"), one("a", "??\u{fffd}"));
    }

    #[test]
    fn what_is_no_tag_comment() {
        for text in [
            "SELECT 1",
            "",
            "*/",
            "/*/",
            "SELECT 1 /* plain */",
            "SELECT 1 /*a='b' c*/",
            "SELECT 1 /*a=b*/",
            "SELECT 1 /*='b'*/",
            "SELECT 1 /*a='b*/",
            "SELECT /*a='b'*/ 1",
        ] {
            assert_eq!(pairs(text), None, "{text}");
        }
    }

    #[test]
    fn a_string_is_no_comment() {
        assert_eq!(pairs("SELECT '/*a=''b''*/'"), None);
        assert_eq!(pairs("SELECT 'cut /*a=''b''*/"), None);
        assert_eq!(pairs("SELECT $$ cut /*a='b'*/"), None);
        assert_eq!(pairs("SELECT \"cut /*a='b'*/"), None);
    }

    #[test]
    fn sizes_are_bounded() {
        let long = format!("SELECT 1 /*a='{}ä'*/", "x".repeat(MAX_VALUE_BYTES - 1));
        assert_eq!(pairs(&long).unwrap()[0].1.len(), MAX_VALUE_BYTES - 1);
        let many: Vec<String> = (0..40).map(|i| format!("k{i}='v'")).collect();
        assert_eq!(pairs(&format!("SELECT 1 /*{}*/", many.join(","))).unwrap().len(), MAX_PAIRS);
        let far = format!("SELECT 1 /*a='{}'*/", "x".repeat(512));
        assert_eq!(pairs(&far), None);
        let behind_much = format!("SELECT '{}' /*a='b'*/", "x".repeat(5_000));
        assert_eq!(pairs(&behind_much), one("a", "b"));
    }
}
