//! Reads the body of a function in SQL or PL/pgSQL as far as needed to tell whether it can be trusted: which functions
//! and operators it may call, and what in it speaks against caching.
//!
//! Nothing is parsed. A name counts as called wherever a parenthesis follows, and a word as a hazard wherever it stands,
//! be it a column: a function refused without need costs speed, one accepted wrongly costs the truth. What the reader
//! does not understand is a hazard too.
//!
//! What no reading of the text can tell is left to the caller: casts and input functions that the types of variables,
//! arguments and results bring along, and what views do.

use std::collections::BTreeSet;

use crate::capture::lexer::{Kind, Lexer, Token};
use crate::capture::normalize::Backslash;

/// Postgres cuts identifiers to this many bytes.
const MAX_NAME_BYTES: usize = 63;

/// What a body may call, and what speaks against it. Each list is sorted and names nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// Names before a parenthesis, without their schema, as the catalog has them; also those of functions that are
    /// called by a keyword alone, such as `current_user`. Most are functions, some are types, columns or tables.
    pub names: Vec<String>,
    /// Names behind a dot without a parenthesis: columns, mostly, but `row.name` may call a function of one argument.
    pub fields: Vec<String>,
    /// Operators as written, and those that stand behind words such as LIKE.
    pub operators: Vec<String>,
    /// What speaks against caching.
    pub hazards: Vec<Hazard>,
}

/// What in a body speaks against caching its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hazard {
    /// A keyword for the current date or time.
    Time,
    /// A string with the word now, today, tomorrow or yesterday, which as a date is the current one.
    TimeLiteral,
    /// A statement made at run time, or a reference to what runs the function.
    Dynamic,
    /// A temporary object.
    Temp,
    /// A string, name or comment that does not end.
    Unterminated,
    /// A sample of a table.
    TableSample,
    /// A sequence.
    NextValue,
    /// A type of date or time, or one that is copied and may be such: text converted to it may say 'now'.
    DateCast,
    /// A statement that writes, locks, or changes the session.
    Modifies,
    /// A type whose values are looked up in the catalogs by name.
    Reg,
    /// A system catalog.
    Catalog,
    /// A system column, which may change when the row does not.
    SystemColumn,
    /// Something this reader does not understand.
    NotUnderstood,
}

/// Keywords that no function can have for its name unless it is quoted. Others, such as IF, stay among the names: that
/// no function has such a name is known only to the catalog.
const NOT_FUNCTIONS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "case",
    "check",
    "coalesce",
    "distinct",
    "else",
    "except",
    "exists",
    "for",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "in",
    "intersect",
    "into",
    "lateral",
    "least",
    "limit",
    "not",
    "nullif",
    "offset",
    "on",
    "or",
    "order",
    "row",
    "select",
    "some",
    "table",
    "then",
    "to",
    "union",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// Reads a body. Never fails: what cannot be read is a hazard.
pub fn read_body(source: &str) -> BodyFacts {
    // How the session that runs the function reads backslashes is not known: where it matters, the lexer finds a string
    // that does not end, and that is refused.
    let tokens = Lexer::new(source.as_bytes(), Backslash::Unknown);
    let (parts, between): (Vec<Token>, Vec<Token>) = tokens.partition(|token| token.kind.is_significant());
    let mut reader = Reader { source, parts, ..Reader::default() };
    for comment in between {
        reader.read_comment(comment);
    }
    for at in 0..reader.parts.len() {
        reader.read_part(at);
    }
    reader.finish()
}

#[derive(Default)]
struct Reader<'s> {
    source: &'s str,
    /// All tokens but space and comments.
    parts: Vec<Token>,
    names: BTreeSet<String>,
    fields: BTreeSet<String>,
    operators: BTreeSet<String>,
    hazards: BTreeSet<Hazard>,
}

impl<'s> Reader<'s> {
    fn finish(self) -> BodyFacts {
        BodyFacts {
            names: self.names.into_iter().collect(),
            fields: self.fields.into_iter().collect(),
            operators: self.operators.into_iter().collect(),
            hazards: self.hazards.into_iter().collect(),
        }
    }

    fn text_of(&self, token: Token) -> &'s str {
        self.source.get(token.start..token.end).unwrap_or_default()
    }

    /// The text of a token by its number; empty before the first and behind the last.
    fn text_at(&self, at: Option<usize>) -> &'s str {
        at.and_then(|at| self.parts.get(at)).map_or("", |token| self.text_of(*token))
    }

    fn before(&self, at: usize) -> &'s str {
        self.text_at(at.checked_sub(1))
    }

    fn after(&self, at: usize) -> &'s str {
        self.text_at(at.checked_add(1))
    }

    fn read_comment(&mut self, token: Token) {
        if token.kind == Kind::Comment && !is_closed_comment(self.text_of(token)) {
            self.hazards.insert(Hazard::Unterminated);
        }
    }

    fn read_part(&mut self, at: usize) {
        let Some(token) = self.parts.get(at).copied() else { return };
        let text = self.text_of(token);
        match token.kind {
            Kind::Word => self.read_word(at, text),
            Kind::QuotedWord => self.read_quoted_word(at, text),
            Kind::Text { closed: true } => self.read_string(text),
            Kind::Dollar { delimiter, closed: true } => {
                let inside = text.get(delimiter..text.len().saturating_sub(delimiter));
                self.read_content(inside.unwrap_or_default());
            }
            Kind::Text { closed: false } | Kind::Dollar { closed: false, .. } => {
                self.hazards.insert(Hazard::Unterminated);
            }
            Kind::Number if !is_plain_number(text) => {
                self.hazards.insert(Hazard::NotUnderstood);
            }
            Kind::Other => self.read_symbol(at, token),
            Kind::Number | Kind::Parameter | Kind::Space | Kind::Comment => {}
        }
    }

    fn read_word(&mut self, at: usize, text: &str) {
        // Which of these letters have a lower case depends on the server's locale.
        if text.chars().any(|letter| !letter.is_ascii() && letter.is_uppercase()) {
            self.hazards.insert(Hazard::NotUnderstood);
        }
        let name = text.to_ascii_lowercase();
        // Behind a dot stands a name, whatever the word.
        let is_keyword = self.before(at) != "." && self.read_keyword(at, &name);
        if !is_keyword {
            self.read_name(at, name);
        }
    }

    /// Returns whether the word cannot be a name.
    fn read_keyword(&mut self, at: usize, word: &str) -> bool {
        let before = self.before(at);
        let after = self.after(at);
        self.hazards.extend(keyword_hazard(word));
        self.operators.extend(implied_operators(word).iter().map(ToString::to_string));
        self.names.extend(keyword_function(word).map(str::to_owned));
        // A field of a record may be a date, whatever is assigned to it.
        if matches!(word, "record" | "xmltable" | "json_table") {
            self.hazards.insert(Hazard::DateCast);
        }
        if word == "current" && after.eq_ignore_ascii_case("of") {
            self.hazards.insert(Hazard::Dynamic);
        }
        if matches!(word, "type" | "rowtype") && before == "%" {
            self.hazards.insert(Hazard::DateCast);
        }
        let at_zone = before.eq_ignore_ascii_case("at") && after.eq_ignore_ascii_case("zone");
        (word == "time" && at_zone) || NOT_FUNCTIONS.binary_search(&word).is_ok()
    }

    fn read_quoted_word(&mut self, at: usize, text: &str) {
        match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(name) => self.read_name(at, name.replace("\"\"", "\"")),
            // With escapes: U&"..."
            None => {
                self.hazards.insert(Hazard::NotUnderstood);
            }
        }
    }

    fn read_name(&mut self, at: usize, name: String) {
        let is_called = self.after(at) == "(";
        self.hazards.extend(name_hazard(&name));
        if name.len() > MAX_NAME_BYTES {
            self.hazards.insert(Hazard::NotUnderstood);
        }
        if is_called {
            self.names.insert(name);
        } else {
            self.hazards.extend(is_catalog(&name).then_some(Hazard::Catalog));
            if self.before(at) == "." {
                self.fields.insert(name);
            }
        }
    }

    /// Any string in single quotes. Strings with a prefix that changes their meaning are read by the strictest.
    fn read_string(&mut self, text: &str) {
        let quote = text.find('\'').unwrap_or(0);
        let inside = text.get(quote + 1..text.len().saturating_sub(1)).unwrap_or_default();
        // One quote by itself ends a piece of a string that continues in another line. With an ampersand, any
        // character may begin an escape.
        let without_escapes = inside.replace(r"\\", "").replace(r"\'", "");
        let continues = without_escapes.split("''").any(|piece| piece.contains('\''));
        if continues || text.get(..quote).is_some_and(|prefix| prefix.ends_with('&')) {
            self.hazards.insert(Hazard::TimeLiteral);
        }
        self.read_content(inside);
        self.read_content(&unescape(inside));
    }

    fn read_content(&mut self, content: &str) {
        let mut words = content.split(|letter: char| !letter.is_ascii_alphabetic());
        let is_clock = |word: &str| CLOCK_WORDS.iter().any(|clock| word.eq_ignore_ascii_case(clock));
        if words.any(is_clock) {
            self.hazards.insert(Hazard::TimeLiteral);
        }
    }

    fn read_symbol(&mut self, at: usize, token: Token) {
        match self.text_of(token) {
            symbol if is_operator(symbol) => self.read_operators(at, token),
            "(" | ")" | "[" | "]" | "," | ";" | ":" | "." | ".." => {}
            _ => {
                self.hazards.insert(Hazard::NotUnderstood);
            }
        }
    }

    /// The operators in the run of symbols that begins here, unless one began before.
    fn read_operators(&mut self, at: usize, first: Token) {
        let before = at.checked_sub(1).and_then(|before| self.parts.get(before));
        if before.is_some_and(|before| before.end == first.start && is_operator(self.text_of(*before))) {
            return;
        }
        let mut end = first.start;
        for token in self.parts.iter().skip(at) {
            if token.start != end || !is_operator(self.text_of(*token)) {
                break;
            }
            end = token.end;
        }
        let run = self.source.get(first.start..end).unwrap_or_default();
        if run.len() > MAX_NAME_BYTES {
            self.hazards.insert(Hazard::NotUnderstood);
        } else {
            self.operators.extend(split_operators(run));
        }
    }
}

/// What as a date or time means one that depends on the clock.
const CLOCK_WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Hazards by a keyword, given in lower case. A quoted word is none.
fn keyword_hazard(word: &str) -> Option<Hazard> {
    Some(match word {
        "current_date" | "current_time" | "current_timestamp" | "localtime" | "localtimestamp" => Hazard::Time,
        // Messages are in the language of the session.
        "sqlerrm" | "message_text" => Hazard::Dynamic,
        "execute" | "pg_context" | "pg_exception_context" | "fetch" | "move" | "open" | "cursor" => Hazard::Dynamic,
        "temp" | "temporary" => Hazard::Temp,
        "tablesample" => Hazard::TableSample,
        "insert" | "update" | "delete" | "merge" | "truncate" | "copy" | "refresh" | "lock" => Hazard::Modifies,
        "create" | "drop" | "alter" | "grant" | "revoke" | "vacuum" | "reindex" | "call" | "do" => Hazard::Modifies,
        "notify" | "listen" | "unlisten" | "set" | "reset" | "discard" => Hazard::Modifies,
        "commit" | "rollback" | "savepoint" => Hazard::Modifies,
        _ => return None,
    })
}

/// Hazards by the name of a type, column, schema or function, quoted or not.
fn name_hazard(name: &str) -> Option<Hazard> {
    // A type's array has its name with an underscore in front.
    Some(match name.strip_prefix('_').unwrap_or(name) {
        "date" | "time" | "timetz" | "timestamp" | "timestamptz" => Hazard::DateCast,
        "daterange" | "tsrange" | "tstzrange" => Hazard::DateCast,
        "datemultirange" | "tsmultirange" | "tstzmultirange" => Hazard::DateCast,
        "regclass" | "regcollation" | "regconfig" | "regdictionary" | "regnamespace" | "regoper" => Hazard::Reg,
        "regoperator" | "regproc" | "regprocedure" | "regrole" | "regtype" => Hazard::Reg,
        "ctid" | "xmin" | "xmax" | "cmin" | "cmax" | "tableoid" => Hazard::SystemColumn,
        "nextval" => Hazard::NextValue,
        schema if schema.starts_with("pg_temp") => Hazard::Temp,
        _ => return None,
    })
}

/// Whether a name that is not called may be that of a catalog. Items of GET DIAGNOSTICS look alike.
fn is_catalog(name: &str) -> bool {
    let is_else = matches!(name, "pg_catalog" | "pg_exception_detail" | "pg_exception_hint" | "pg_datatype_name");
    name == "information_schema" || (name.starts_with("pg_") && !is_else)
}

/// The function in the catalog that a keyword calls without parentheses.
fn keyword_function(word: &str) -> Option<&'static str> {
    Some(match word {
        "current_user" | "current_role" | "user" => "current_user",
        "session_user" => "session_user",
        "system_user" => "system_user",
        "current_schema" => "current_schema",
        "current_catalog" => "current_database",
        "collation" => "pg_collation_for",
        _ => return None,
    })
}

/// The operators that a keyword calls.
fn implied_operators(word: &str) -> &'static [&'static str] {
    match word {
        "like" => &["~~", "!~~"],
        "ilike" => &["~~*", "!~~*"],
        "similar" => &["~", "!~"],
        "in" | "distinct" | "nullif" | "case" | "using" | "natural" | "group" | "by" => &["=", "<>"],
        "union" | "intersect" | "except" => &["="],
        "between" | "greatest" | "least" | "order" => &["<", "<=", ">", ">="],
        _ => &[],
    }
}

fn is_operator(symbol: &str) -> bool {
    !symbol.is_empty() && symbol.bytes().all(|byte| b"+-*/<>=~!@#%^&|`?".contains(&byte))
}

/// Splits a run of symbols as Postgres's scanner does: an operator of several symbols ends in a sign only if it has
/// one that no operator of the SQL standard has.
fn split_operators(run: &str) -> Vec<String> {
    let mut operators = Vec::new();
    let mut rest = run;
    while !rest.is_empty() {
        let keeps_sign = rest.bytes().any(|byte| b"~!@#^&|`?%".contains(&byte));
        let without_signs = rest.trim_end_matches(['+', '-']).len().max(1);
        let (operator, more) = rest.split_at(if keeps_sign { rest.len() } else { without_signs });
        operators.push(if operator == "!=" { "<>" } else { operator }.to_owned());
        rest = more;
    }
    operators
}

/// A number without a word stuck to it, which a scanner may read as the next token.
fn is_plain_number(text: &str) -> bool {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'_'),
        None => text.bytes().all(|byte| byte.is_ascii_digit() || b"._eE+-".contains(&byte)),
    }
}

/// Whether a comment ends; the lexer takes one that does not for the rest of the text.
fn is_closed_comment(text: &str) -> bool {
    let mut depth = 0usize;
    let mut rest = text.as_bytes();
    while let [first, second, ..] = rest {
        let step = match (first, second) {
            (b'-', b'-') if depth == 0 => return true,
            (b'/', b'*') => {
                depth += 1;
                2
            }
            (b'*', b'/') => {
                depth = depth.saturating_sub(1);
                2
            }
            _ => 1,
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    depth == 0
}

/// A string as it is where backslashes escape.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        let mut letters = escaped.chars();
        let (letter, after) = match letters.next() {
            Some('b' | 'f' | 'n' | 'r' | 't') => (' ', letters.as_str()),
            Some('x') => numbered(letters.as_str(), 16, 2),
            Some('u') => numbered(letters.as_str(), 16, 4),
            Some('U') => numbered(letters.as_str(), 16, 8),
            Some('0'..='7') => numbered(escaped, 8, 3),
            Some(other) => (other, letters.as_str()),
            None => break,
        };
        out.push(letter);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The character that up to `max` digits stand for, and what follows. Only those of ASCII matter here.
fn numbered(text: &str, radix: u32, max: usize) -> (char, &str) {
    let digits = text.chars().take(max).take_while(|letter| letter.is_digit(radix)).count();
    let (number, after) = text.split_at(digits);
    let code = u32::from_str_radix(number, radix).unwrap_or_default();
    // Octal numbers beyond a byte lose their highest bit.
    (char::from_u32(if radix == 8 { code & 0xff } else { code }).unwrap_or(' '), after)
}
