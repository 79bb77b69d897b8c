//! Query text without its data: literals replaced by placeholders, comments removed, the rest kept byte for byte.
//!
//! One rule stands above all others: **what may be data is never shown.** A text can be cut anywhere, be in any
//! encoding, or be no SQL at all; where two readings are possible, the one that hides more is taken.

use super::lexer::{Kind, Lexer, Token};

pub use super::lexer::Backslash;
pub use super::utility::{normalize_utility, normalize_utility_with};

/// What stands for a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `$n`, counting up from this number.
    Numbered(u32),
    /// `?`
    Question,
}

/// A literal found by Postgres's query jumbling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Where it begins, in bytes of the text; may be at the minus sign of a number.
    pub offset: usize,
    /// Its length where Postgres tells it (a list since version 18); otherwise it is found by reading the text.
    pub length: Option<usize>,
    /// Stands for a whole list: shown as `$n /*, ... */`.
    pub squashed: bool,
}

/// Every literal of any statement replaced. Does not know how to read backslashes: see [`Backslash::Unknown`].
pub fn normalize(text: &[u8], placeholder: Placeholder) -> Vec<u8> {
    normalize_with(text, placeholder, Backslash::Unknown)
}

/// Every literal of any statement replaced: strings of all kinds, dollar quotes and numbers (a sign stays). Words,
/// quoted identifiers, parameters and operators stay.
pub fn normalize_with(text: &[u8], placeholder: Placeholder, backslash: Backslash) -> Vec<u8> {
    let mut out = Writer::new(text.len(), placeholder);
    for token in Lexer::new(text, backslash) {
        out.push(text, &token);
    }
    out.finish()
}

/// Only the literals that begin at `constants` replaced, by `$n` counting up from `highest_param + 1`.
/// Does not know how to read backslashes: see [`Backslash::Unknown`].
pub fn normalize_at(text: &[u8], constants: &[Constant], highest_param: u32) -> Vec<u8> {
    normalize_at_with(text, constants, highest_param, Backslash::Unknown)
}

/// Only the literals that begin at `constants` replaced, by `$n` counting up from `highest_param + 1`: the shape that
/// users know from pg_stat_statements.
///
/// Offsets must ascend: one that repeats, goes back or lies behind the end is ignored, as is one within a comment. One
/// that lies inside a token stands for the whole token. A string that is never closed is hidden in any case.
pub fn normalize_at_with(text: &[u8], constants: &[Constant], highest_param: u32, backslash: Backslash) -> Vec<u8> {
    let tokens: Vec<Token> = Lexer::new(text, backslash).collect();
    let mut out = Writer::new(text.len(), Placeholder::Numbered(highest_param.saturating_add(1)));
    let mut rest = tokens.as_slice();
    for constant in constants {
        let before = rest.iter().take_while(|token| token.end <= constant.offset).count();
        let (kept, from_constant) = rest.split_at(before);
        out.push_unless_closed(text, kept);
        rest = from_constant;
        let Some(token) = rest.first().filter(|token| token.start <= constant.offset) else { continue };
        if token.kind.is_significant() {
            let hidden = place_constant(&mut out, text, rest, constant);
            rest = rest.get(hidden..).unwrap_or_default();
        }
    }
    out.push_unless_closed(text, rest);
    out.finish()
}

/// Writes the placeholder of the constant that begins with the first of these tokens, and returns how many it takes.
fn place_constant(out: &mut Writer, text: &[u8], tokens: &[Token], constant: &Constant) -> usize {
    let hidden = match constant.length {
        Some(length) => {
            let end = constant.offset.saturating_add(length);
            tokens.iter().take_while(|token| token.start < end).count().max(1)
        }
        None => signed_number(text, tokens).unwrap_or(1),
    };
    let opened = tokens.iter().take(hidden).filter(|token| constant.length.is_none() && token.of(text) == b"(");
    for parenthesis in opened {
        out.keep(Kind::Other, parenthesis.of(text));
    }
    out.place();
    if constant.squashed {
        out.bytes.extend_from_slice(b" /*, ... */");
    }
    hidden
}

/// How many tokens a negative number takes. Postgres folds `- (- 5)` into one constant that begins at the first sign.
fn signed_number(text: &[u8], tokens: &[Token]) -> Option<usize> {
    tokens.first().filter(|first| first.of(text) == b"-")?;
    let leads = |token: &Token| !token.kind.is_significant() || matches!(token.of(text), b"-" | b"(");
    let number = tokens.iter().position(|token| !leads(token))?;
    tokens.get(number).filter(|token| token.kind == Kind::Number).map(|_| number + 1)
}

/// At most `max` bytes of a text. A text of valid UTF-8 is not cut within a character.
pub fn clip(text: &[u8], max: usize) -> &[u8] {
    if text.len() <= max {
        return text;
    }
    let continues = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let mut boundary = max;
    while boundary > 0 && max - boundary < 3 && continues(&boundary) {
        boundary -= 1;
    }
    let whole = text.get(..boundary).unwrap_or_default();
    if std::str::from_utf8(whole).is_ok() { whole } else { text.get(..max).unwrap_or_default() }
}

/// Puts a normalised text together.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    placeholder: Placeholder,
    /// Nothing but space and comments since the last comment.
    after_comment: bool,
    /// The last token was a placeholder.
    after_placeholder: bool,
}

impl Writer {
    pub(crate) fn new(text_bytes: usize, placeholder: Placeholder) -> Self {
        Writer { bytes: Vec::with_capacity(text_bytes), placeholder, after_comment: false, after_placeholder: false }
    }

    /// A token, replaced when it is a literal.
    pub(crate) fn push(&mut self, text: &[u8], token: &Token) {
        if token.kind.is_literal() { self.place() } else { self.keep(token.kind, token.of(text)) }
    }

    /// Tokens as they are, but for strings that never end.
    fn push_unless_closed(&mut self, text: &[u8], tokens: &[Token]) {
        for token in tokens {
            match token.kind {
                Kind::Text { closed: false } | Kind::Dollar { closed: false, .. } => self.place(),
                kind => self.keep(kind, token.of(text)),
            }
        }
    }

    /// A token as it is; a comment becomes a space where there is none.
    pub(crate) fn keep(&mut self, kind: Kind, bytes: &[u8]) {
        let at_space = self.bytes.last().is_none_or(u8::is_ascii_whitespace);
        match kind {
            Kind::Comment => {
                if !at_space {
                    self.bytes.push(b' ');
                }
                self.after_comment = true;
            }
            Kind::Space if self.after_comment && at_space => {}
            Kind::Space => self.bytes.extend_from_slice(bytes),
            _ => {
                // "$1" and a word that follows would read as one.
                if self.after_placeholder && bytes.first().is_some_and(|&byte| is_word_part(byte)) {
                    self.bytes.push(b' ');
                }
                self.bytes.extend_from_slice(bytes);
                self.after_comment = false;
            }
        }
        self.after_placeholder = false;
    }

    /// The next placeholder, set apart from a word that it would become part of.
    pub(crate) fn place(&mut self) {
        if self.bytes.last().is_some_and(|&byte| is_word_part(byte)) && !self.after_placeholder {
            self.bytes.push(b' ');
        }
        match &mut self.placeholder {
            Placeholder::Question => self.bytes.push(b'?'),
            Placeholder::Numbered(number) => {
                self.bytes.push(b'$');
                self.bytes.extend_from_slice(number.to_string().as_bytes());
                *number = number.saturating_add(1);
            }
        }
        self.after_comment = false;
        self.after_placeholder = true;
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.after_comment {
            let end = self.bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
            self.bytes.truncate(end);
        }
        self.bytes
    }
}

const fn is_word_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> String {
        String::from_utf8(normalize(text.as_bytes(), Placeholder::Numbered(1))).unwrap()
    }

    fn at(text: &str, offsets: &[usize], highest_param: u32) -> String {
        let constants: Vec<Constant> =
            offsets.iter().map(|&offset| Constant { offset, length: None, squashed: false }).collect();
        String::from_utf8(normalize_at(text.as_bytes(), &constants, highest_param)).unwrap()
    }

    #[test]
    fn literals_of_every_kind_are_replaced() {
        assert_eq!(all("SELECT 'a', E'b\\'c', 1.5e3, $$x$$, X'ff'"), "SELECT $1, $2, $3, $4, $5");
        assert_eq!(all("SELECT -5, t1.a, \"q 1\", $3 FROM t1"), "SELECT -$1, t1.a, \"q 1\", $3 FROM t1");
        assert_eq!(all("date'2020-01-01'and 1"), "date $1 and $2");
        assert_eq!(all("'a' UESCAPE '!'"), "$1 UESCAPE $2");
    }

    #[test]
    fn question_marks() {
        assert_eq!(normalize(b"(a = 'x'::text) AND (b > 12)", Placeholder::Question), b"(a = ?::text) AND (b > ?)");
    }

    #[test]
    fn comments_become_at_most_one_space() {
        assert_eq!(all("/* t=1 */ SELECT/*x*/a /* y */ FROM t -- z"), "SELECT a FROM t");
        assert_eq!(all("SELECT a\n  FROM t"), "SELECT a\n  FROM t");
    }

    #[test]
    fn what_never_ends_is_hidden_to_the_end() {
        for text in ["SELECT 'secret", "SELECT E'secret\\'", "SELECT $x$secret$x", "SELECT \"secret"] {
            assert_eq!(all(text), "SELECT $1");
        }
        assert_eq!(all("SELECT /* secret"), "SELECT");
        assert_eq!(at("SELECT 'secret", &[], 0), "SELECT $1");
    }

    #[test]
    fn only_the_given_constants() {
        let text = "SELECT a, - 5, 'x' FROM t WHERE b = $2 ORDER BY 1 /* tag */";
        assert_eq!(at(text, &[10, 15], 2), "SELECT a, $3, $4 FROM t WHERE b = $2 ORDER BY 1");
    }

    #[test]
    fn a_negative_number_is_one_constant_however_it_is_written() {
        assert_eq!(at("SELECT -5, - 6, -(7), - (-8)", &[7, 11, 16, 22], 0), "SELECT $1, $2, ($3), ($4)");
    }

    #[test]
    fn odd_offsets_are_ignored() {
        let text = "SELECT 1, 2 /* 3 */";
        assert_eq!(at(text, &[7, 7, 10, 7, 15, 400, usize::MAX], 0), "SELECT $1, $2");
    }

    #[test]
    fn squashed_lists_show_as_one() {
        let text = b"SELECT a FROM t WHERE b IN (1, 2, 3) AND c = 4";
        let constants = [
            Constant { offset: 28, length: Some(7), squashed: true },
            Constant { offset: 45, length: None, squashed: false },
        ];
        let expected = "SELECT a FROM t WHERE b IN ($1 /*, ... */) AND c = $2";
        assert_eq!(String::from_utf8(normalize_at(text, &constants, 0)).unwrap(), expected);
    }

    #[test]
    fn clip_keeps_characters_whole() {
        assert_eq!(clip("aä€x".as_bytes(), 2), b"a");
        assert_eq!(clip("aä€x".as_bytes(), 5), "aä".as_bytes());
        assert_eq!(clip("aä€x".as_bytes(), 6), "aä€".as_bytes());
        assert_eq!(clip("𝄞𝄞".as_bytes(), 7), "𝄞".as_bytes());
        assert_eq!(clip(&[0xff, 0xe4, 0x80, 0x80], 3), &[0xff, 0xe4, 0x80]);
        assert_eq!(clip(b"abc", 3), b"abc");
    }
}
