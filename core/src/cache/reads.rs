//! What the body of a function reads of the session, as far as its text tells.

use std::collections::BTreeSet;

/// The names that a body gives to `current_setting`. `None`: one of them is no plain literal, or the body asks for settings
/// in another way.
pub fn settings_read(source: &str) -> Option<Vec<String>> {
    const READER: &str = "current_setting";
    let lower = source.to_ascii_lowercase();
    let is_word = |at: usize, length: usize| {
        let inside = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80);
        let bytes = lower.as_bytes();
        !inside(at.checked_sub(1).and_then(|before| bytes.get(before))) && !inside(bytes.get(at + length))
    };
    if lower.match_indices("show").any(|(at, word)| is_word(at, word.len())) {
        return None;
    }
    let found = lower.match_indices(READER).filter(|(at, word)| is_word(*at, word.len()));
    found.map(|(at, word)| first_literal(&source[at + word.len()..])).collect()
}

/// Does a body speak of the session or of tables? Words that also stand elsewhere (`from` in `extract`) count.
pub fn reaches_out(source: &str) -> bool {
    const WORDS: [&str; 13] = [
        "current_setting",
        "current_user",
        "current_role",
        "session_user",
        "system_user",
        "user",
        "from",
        "into",
        "join",
        "perform",
        "execute",
        "table",
        "show",
    ];
    let lower = source.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.any(|word| WORDS.contains(&word))
}

/// Every identifier in a body, as it is written and in lower case; in double quotes, what stands between them. Words in
/// comments and strings are among them.
pub fn identifiers(source: &str) -> BTreeSet<String> {
    let quoted = source.split('"').skip(1).step_by(2);
    let words = source.split(|letter: char| !is_of_word(letter)).filter(|word| !word.is_empty());
    words.chain(quoted).flat_map(|word| [word.to_owned(), word.to_lowercase()]).collect()
}

/// Those of the identifiers that stand where a type can stand: behind `::` or `AS`, in front of a parenthesis, or among the
/// declarations of a block of PL/pgSQL.
pub fn type_names(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut state = Place::default();
    for token in tokens(source) {
        if is_of_word_or_quote(token) {
            let name = token.trim_matches('"');
            if state.is_type() {
                found.extend([name.to_owned(), name.to_lowercase()]);
            }
            state.word(name);
        } else if token == "(" {
            found.extend(state.before.iter().flat_map(|name| [name.clone(), name.to_lowercase()]));
            state.symbol(token);
        } else {
            state.symbol(token);
        }
    }
    found
}

/// Where in a body a reader is.
#[derive(Default)]
struct Place {
    /// The word before, if it is the token before.
    before: Option<String>,
    /// Behind `::` or AS.
    expects_type: bool,
    /// Was the word before in such a place? A schema's name and the dot behind it belong to the type's.
    was_type: bool,
    declares: bool,
}

impl Place {
    fn is_type(&self) -> bool {
        self.expects_type || self.declares
    }

    fn word(&mut self, word: &str) {
        match word.to_lowercase().as_str() {
            "declare" => self.declares = true,
            "begin" => self.declares = false,
            _ => {}
        }
        self.was_type = self.expects_type;
        self.expects_type = word.eq_ignore_ascii_case("as");
        self.before = Some(word.to_owned());
    }

    fn symbol(&mut self, symbol: &str) {
        self.expects_type = symbol == ":" || (symbol == "." && self.was_type);
        self.was_type = false;
        self.before = None;
    }
}

/// Words, quoted identifiers and single symbols, without what stands between them.
fn tokens(source: &str) -> impl Iterator<Item = &str> {
    let mut rest = source;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let length = if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |at| at + 2)
        } else if is_of_word(first) {
            rest.find(|letter: char| !is_of_word(letter)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '$'
}

fn is_of_word_or_quote(token: &str) -> bool {
    token.starts_with(|letter: char| is_of_word(letter) || letter == '"')
}

/// The literal that is the first argument of a call whose name has just ended.
fn first_literal(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix('"').unwrap_or(rest).trim_start().strip_prefix('(')?.trim_start();
    let (name, after) = rest.strip_prefix('\'')?.split_once('\'')?;
    // Whatever joins something to the literal makes it another name.
    let ends = after.trim_start().starts_with([',', ')']);
    (ends && !name.contains('\\')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_those_of_types() {
        let of = |source: &str| type_names(source).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of("SELECT x::trec FROM orders"), "trec");
        assert_eq!(of("SELECT x :: app.trec FROM orders"), "app trec");
        assert_eq!(of("SELECT CAST(x AS \"T rec\") FROM orders"), "CAST T rec cast t rec");
        assert_eq!(
            of("DECLARE r trec; s app.Other[]; BEGIN SELECT n INTO r FROM orders; END"),
            "Other app begin BEGIN other r s trec"
                .split(' ')
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        );
        assert_eq!(of("SELECT trec('(now,1)') FROM orders o"), "trec");
        assert_eq!(of("SELECT o.id FROM public.orders o, lines WHERE o.id = 1"), "");
    }

    #[test]
    fn identifiers_as_written_and_in_lower_case() {
        let found = identifiers("SELECT \"Da y\"('x') FROM T1");
        for name in ["Da y", "da y", "T1", "t1", "select", "x"] {
            assert!(found.contains(name), "{name}");
        }
    }
}
