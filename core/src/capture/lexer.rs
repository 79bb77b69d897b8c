//! Splits SQL text into tokens by the rules of Postgres's scanner (the manual's chapter "Lexical Structure"), as far
//! as telling literals and comments from the rest needs it. Works on bytes: every server encoding is ASCII-safe, and
//! bytes from 0x80 on are identifier characters. Any input yields tokens that cover it without gap; nothing fails.
//!
//! Where a text cannot be read for certain, the reading is chosen that takes more of it for a literal.

/// What a token is. The texts of literals must not be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Space,
    /// `-- ...` or `/* ... */`.
    Comment,
    /// Identifier or keyword.
    Word,
    /// `"..."` or `U&"..."`, closed.
    QuotedWord,
    /// Any quoted string with its prefix and continuation lines; also a double quote that is never closed.
    Text { closed: bool },
    /// A dollar-quoted string. The delimiter takes `delimiter` bytes on each side.
    Dollar { delimiter: usize, closed: bool },
    /// A number, with whatever letters follow it directly.
    Number,
    /// `$1`.
    Parameter,
    /// One byte of anything else, or the range operator `..`.
    Other,
}

impl Kind {
    pub(crate) const fn is_literal(self) -> bool {
        matches!(self, Kind::Text { .. } | Kind::Dollar { .. } | Kind::Number)
    }

    /// Neither space nor comment.
    pub(crate) const fn is_significant(self) -> bool {
        !matches!(self, Kind::Space | Kind::Comment)
    }
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Token {
    /// Its bytes.
    pub(crate) fn of<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether it is this keyword (given in lower case).
    pub(crate) fn is_word(&self, text: &[u8], keyword: &str) -> bool {
        self.kind == Kind::Word && self.of(text).eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// How a backslash in a plain `'...'` is to be read: as the setting was *when Postgres split the text*. A text of several
/// statements is split before the first of them runs, so where one of them may have changed the setting it is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backslash {
    /// Not known: a string in which `\'` occurs is taken to reach to the end of the text, since by one of the two
    /// readings what follows is data.
    #[default]
    Unknown,
    /// `standard_conforming_strings = on`: a character like others.
    Plain,
    /// `standard_conforming_strings = off`: it escapes the next character.
    Escape,
}

/// The tokens of a text.
pub(crate) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    backslash: Backslash,
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t [u8], backslash: Backslash) -> Self {
        Lexer { text, at: 0, backslash }
    }

    fn byte_at(&self, offset: usize) -> u8 {
        // NUL cannot occur in a Postgres string, and where it does it is no character that means anything.
        self.text.get(self.at + offset).copied().unwrap_or(0)
    }

    fn scan(&mut self, first: u8) -> Kind {
        match first {
            byte if is_space(byte) => self.take_run(is_space, Kind::Space),
            b'-' if self.byte_at(1) == b'-' => self.take_run(|byte| !is_newline(byte), Kind::Comment),
            b'/' if self.byte_at(1) == b'*' => self.scan_block_comment(),
            b'\'' => self.scan_text(0, self.backslash),
            b'"' => self.scan_quoted_word(0),
            b'$' => self.scan_dollar(),
            b'0'..=b'9' => self.scan_number(),
            b'.' if self.byte_at(1).is_ascii_digit() => self.scan_number(),
            b'.' if self.byte_at(1) == b'.' => {
                self.at += 2;
                Kind::Other
            }
            byte if is_word_start(byte) => self.scan_word(),
            _ => {
                self.at += 1;
                Kind::Other
            }
        }
    }

    fn take_run(&mut self, wanted: impl Fn(u8) -> bool, kind: Kind) -> Kind {
        self.pass_while(wanted);
        kind
    }

    fn pass_while(&mut self, wanted: impl Fn(u8) -> bool) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|&byte| !wanted(byte)).unwrap_or(rest.len());
    }

    /// Block comments nest, unlike C's.
    fn scan_block_comment(&mut self) -> Kind {
        let mut depth = 0usize;
        while self.at < self.text.len() {
            match (self.byte_at(0), self.byte_at(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                _ => self.at += 1,
            }
        }
        Kind::Comment
    }

    /// A word, unless it is the prefix of a quoted string or identifier.
    fn scan_word(&mut self) -> Kind {
        let start = self.at;
        self.pass_while(is_word_part);
        let word = self.text.get(start..self.at).unwrap_or_default();
        match (word, self.byte_at(0), self.byte_at(1)) {
            (b"e" | b"E", b'\'', _) => self.scan_text(0, Backslash::Escape),
            (b"b" | b"B" | b"x" | b"X", b'\'', _) => self.scan_text(0, Backslash::Plain),
            (b"n" | b"N", b'\'', _) => self.scan_text(0, self.backslash),
            (b"u" | b"U", b'&', b'\'') => self.scan_text(1, Backslash::Plain),
            (b"u" | b"U", b'&', b'"') => self.scan_quoted_word(1),
            _ => Kind::Word,
        }
    }

    /// From an opening quote, `skip` bytes ahead, to the closing one, with the lines that continue the string.
    fn scan_text(&mut self, skip: usize, backslash: Backslash) -> Kind {
        self.at += skip;
        loop {
            self.at += 1;
            let closed = self.skip_to_closing_quote(backslash);
            match self.continuation() {
                Some(next_quote) if closed => self.at = next_quote,
                _ => return Kind::Text { closed },
            }
        }
    }

    /// Goes behind the closing quote and returns true, or to the end of the text.
    fn skip_to_closing_quote(&mut self, backslash: Backslash) -> bool {
        while self.at < self.text.len() {
            match (self.byte_at(0), self.byte_at(1), backslash) {
                (b'\'', b'\'', _) | (b'\\', _, Backslash::Escape) | (b'\\', b'\\', Backslash::Unknown) => self.at += 2,
                (b'\'', _, _) => {
                    self.at += 1;
                    return true;
                }
                (b'\\', b'\'', Backslash::Unknown) => break,
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
        false
    }

    /// The quote that continues a string: only space with a line break, and line comments, may stand between.
    fn continuation(&self) -> Option<usize> {
        let mut ahead = Lexer { text: self.text, at: self.at, backslash: self.backslash };
        let mut newline = false;
        loop {
            match (ahead.byte_at(0), ahead.byte_at(1)) {
                (b'\'', _) if newline => return Some(ahead.at),
                (b'-', b'-') => ahead.pass_while(|byte| !is_newline(byte)),
                (byte, _) if is_space(byte) => {
                    newline |= is_newline(byte);
                    ahead.at += 1;
                }
                _ => return None,
            }
        }
    }

    fn scan_quoted_word(&mut self, skip: usize) -> Kind {
        self.at += skip + 1;
        while self.at < self.text.len() {
            match (self.byte_at(0), self.byte_at(1)) {
                (b'"', b'"') => self.at += 2,
                (b'"', _) => {
                    self.at += 1;
                    return Kind::QuotedWord;
                }
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
        // Never closed: anything may stand in there.
        Kind::Text { closed: false }
    }

    /// A parameter, a dollar-quoted string, or a lone dollar.
    fn scan_dollar(&mut self) -> Kind {
        let start = self.at;
        self.at += 1;
        if self.byte_at(0).is_ascii_digit() {
            return self.take_run(|byte| byte.is_ascii_digit(), Kind::Parameter);
        }
        if is_word_start(self.byte_at(0)) {
            self.pass_while(|byte| is_word_part(byte) && byte != b'$');
        }
        if self.byte_at(0) != b'$' {
            self.at = start + 1;
            return Kind::Other;
        }
        self.at += 1;
        let delimiter = self.text.get(start..self.at).unwrap_or_default();
        let body = self.text.get(self.at..).unwrap_or_default();
        let length = body.windows(delimiter.len()).position(|window| window == delimiter);
        self.at = length.map_or(self.text.len(), |length| self.at + length + delimiter.len());
        Kind::Dollar { delimiter: delimiter.len(), closed: length.is_some() }
    }

    /// A number in any notation and all letters and digits that follow it directly: `12ab` may be a value that lost
    /// its quotes. `1..10` is two numbers, as in PL/pgSQL.
    fn scan_number(&mut self) -> Kind {
        let hexadecimal = self.byte_at(0) == b'0' && matches!(self.byte_at(1), b'x' | b'X');
        loop {
            let exponent =
                !hexadecimal && matches!(self.byte_at(0), b'e' | b'E') && matches!(self.byte_at(1), b'+' | b'-');
            match self.byte_at(0) {
                _ if exponent && self.byte_at(2).is_ascii_digit() => self.at += 2,
                b'.' if self.byte_at(1) != b'.' => self.at += 1,
                byte if is_word_part(byte) && byte != b'$' => self.at += 1,
                _ => return Kind::Number,
            }
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = *self.text.get(start)?;
        let kind = self.scan(first);
        // Every scan takes at least one byte; that the loop ends must not depend on it.
        self.at = self.at.clamp(start + 1, self.text.len());
        Some(Token { kind, start, end: self.at })
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

const fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

const fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn is_word_part(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Space at the ends, taken off.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: Kind = Kind::Text { closed: true };

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let tokens = Lexer::new(text.as_bytes(), Backslash::Unknown);
        tokens.filter(|token| token.kind.is_significant()).map(|t| (t.kind, &text[t.start..t.end])).collect()
    }

    #[test]
    fn numbers_take_what_is_theirs() {
        for number in ["1", "1.", ".5", "1.5e10", "1e-5", "0x1F", "0b01", "0o17", "1_000.5", "12ab", "7e+3"] {
            assert_eq!(kinds(number), [(Kind::Number, number)]);
        }
        assert_eq!(kinds("1..10"), [(Kind::Number, "1"), (Kind::Other, ".."), (Kind::Number, "10")]);
        assert_eq!(kinds("0x1e-5"), [(Kind::Number, "0x1e"), (Kind::Other, "-"), (Kind::Number, "5")]);
        assert_eq!(kinds("t1.c2"), [(Kind::Word, "t1"), (Kind::Other, "."), (Kind::Word, "c2")]);
    }

    #[test]
    fn prefixes_belong_to_the_string() {
        for text in ["'a''b'", r"E'a\'b'", "b'01'", "X'ff'", "N'a'", "U&'a'", "e''", "'a'\n  'b'", "'a' -- c\n'b'"] {
            assert_eq!(kinds(text), [(TEXT, text)]);
        }
        assert_eq!(kinds("name'x'"), [(Kind::Word, "name"), (TEXT, "'x'")]);
        assert_eq!(kinds("'a' 'b'").len(), 2);
        assert_eq!(kinds("U&\"a\"\"b\""), [(Kind::QuotedWord, "U&\"a\"\"b\"")]);
    }

    #[test]
    fn continuation_of_an_escape_string_still_escapes() {
        let text = "E'a'\n'b\\' secret'";
        assert_eq!(kinds(text), [(TEXT, text)]);
    }

    #[test]
    fn dollars() {
        let closed = Kind::Dollar { delimiter: 3, closed: true };
        assert_eq!(kinds("$a$ $ $$ $b$ $a$"), [(closed, "$a$ $ $$ $b$ $a$")]);
        assert_eq!(kinds("$$x"), [(Kind::Dollar { delimiter: 2, closed: false }, "$$x")]);
        assert_eq!(kinds("$12"), [(Kind::Parameter, "$12")]);
        assert_eq!(kinds("a$b$c"), [(Kind::Word, "a$b$c")]);
        assert_eq!(kinds("$a"), [(Kind::Other, "$"), (Kind::Word, "a")]);
    }

    #[test]
    fn comments_nest_and_may_stay_open() {
        assert_eq!(kinds("/* a /* b */ c */ x"), [(Kind::Word, "x")]);
        assert_eq!(kinds("/* a /* b */ x"), []);
        assert_eq!(kinds("-- a\nx"), [(Kind::Word, "x")]);
    }

    #[test]
    fn a_backslash_before_a_quote_is_read_as_told() {
        let text = r"'a\' b '";
        let count = |backslash| Lexer::new(text.as_bytes(), backslash).filter(|t| t.kind == Kind::Word).count();
        assert_eq!(count(Backslash::Plain), 1);
        assert_eq!(count(Backslash::Escape), 0);
        assert_eq!(count(Backslash::Unknown), 0);
        assert_eq!(kinds(r"'a\\' b").len(), 2);
    }

    proptest! {
        #[test]
        fn tokens_cover_any_bytes_without_gap(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            for token in Lexer::new(&text, Backslash::Unknown) {
                prop_assert_eq!(token.start, at);
                prop_assert!(token.end > at && token.end <= text.len());
                at = token.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
