//! Utility statements: every literal replaced, but the bodies of DO and of functions kept readable.

use super::lexer::{Backslash, Kind, Lexer, Token};
use super::normalize::{Placeholder, Writer};

/// Bodies within bodies beyond this are replaced as a whole.
const MAX_DEPTH: u32 = 4;
/// Parts of a setting's name; more do not occur.
const MAX_NAME_PARTS: usize = 8;

/// A utility statement without its data. Does not know how to read backslashes: see [`Backslash::Unknown`].
pub fn normalize_utility(text: &[u8]) -> Vec<u8> {
    normalize_utility_with(text, Backslash::Unknown)
}

/// A utility statement without its data: every literal becomes `$n`, counting up from the text's highest parameter.
///
/// The dollar-quoted body of a DO, CREATE FUNCTION or CREATE PROCEDURE in SQL or PL/pgSQL keeps its delimiters, and its
/// statements are normalised the same way; other languages quote differently, so their bodies are replaced. The value
/// of a setting with a dot in its name (an application's own) is replaced even where it has no quotes.
///
/// Give it the whole statement and clip the result: of a DO whose LANGUAGE clause is cut off it would take the body for
/// PL/pgSQL. A body that is cut itself is hidden.
pub fn normalize_utility_with(text: &[u8], backslash: Backslash) -> Vec<u8> {
    let first = highest_parameter(text, backslash).saturating_add(1);
    let mut out = Writer::new(text.len(), Placeholder::Numbered(first));
    write_statements(&mut out, text, backslash, 0);
    out.finish()
}

fn highest_parameter(text: &[u8], backslash: Backslash) -> u32 {
    let parameters = Lexer::new(text, backslash).filter(|token| token.kind == Kind::Parameter);
    let numbers = parameters.filter_map(|token| std::str::from_utf8(token.of(text).get(1..)?).ok()?.parse().ok());
    numbers.max().unwrap_or(0)
}

fn write_statements(out: &mut Writer, text: &[u8], backslash: Backslash, depth: u32) {
    let tokens: Vec<Token> = Lexer::new(text, backslash).collect();
    for statement in tokens.split_inclusive(|token| token.kind == Kind::Other && token.of(text) == b";") {
        write_statement(out, text, statement, backslash, depth);
    }
}

fn write_statement(out: &mut Writer, text: &[u8], statement: &[Token], backslash: Backslash, depth: u32) {
    let parts: Vec<&Token> = statement.iter().filter(|token| token.kind.is_significant()).collect();
    let values = setting_values(text, &parts);
    let body = if depth < MAX_DEPTH { find_body(text, &parts) } else { None };
    for token in statement {
        match token.kind {
            Kind::Dollar { delimiter, .. } if Some(token.start) == body => {
                let quote = token.of(text).get(..delimiter).unwrap_or_default();
                let inside = text.get(token.start + delimiter..token.end - delimiter).unwrap_or_default();
                out.keep(Kind::Other, quote);
                write_statements(out, inside, backslash, depth + 1);
                out.keep(Kind::Other, quote);
            }
            _ if values.binary_search(&token.start).is_ok() => out.place(),
            _ => out.push(text, token),
        }
    }
}

/// Where the body begins that may be read as SQL; only a closed dollar quote can be one.
fn find_body(text: &[u8], parts: &[&Token]) -> Option<usize> {
    let word = |at: usize, keyword| parts.get(at).is_some_and(|token| token.is_word(text, keyword));
    let is_do = word(0, "do");
    let named = |token: &&&Token| token.is_word(text, "function") || token.is_word(text, "procedure");
    let is_routine = word(0, "create") && parts.iter().take(4).any(|token| named(&token));
    if !language_is_sql(text, parts, is_do) || !(is_do || is_routine) {
        return None;
    }
    let is_body = |at: &usize| {
        let closed = matches!(parts.get(*at).map(|token| token.kind), Some(Kind::Dollar { closed: true, .. }));
        let after_as = is_routine && *at > 0 && word(*at - 1, "as");
        let after_do = is_do && (*at == 1 || (*at == 3 && word(1, "language")));
        closed && (after_as || after_do)
    };
    let at = (0..parts.len()).find(is_body)?;
    parts.get(at).map(|token| token.start)
}

/// Whether every LANGUAGE named is SQL or PL/pgSQL; one must be named unless there is a default. The end of the text
/// may be missing, so no language named means not known.
fn language_is_sql(text: &[u8], parts: &[&Token], has_default: bool) -> bool {
    let is_language = |token: &&Token| token.is_word(text, "language");
    let mut named = parts.iter().zip(parts.iter().skip(1)).filter(|(token, _)| is_language(token)).peekable();
    let last_is_language = parts.last().is_some_and(is_language);
    if last_is_language || (named.peek().is_none() && !has_default) {
        return false;
    }
    named.all(|(_, language)| {
        let quote = |byte: &u8| matches!(byte, b'\'' | b'"');
        let name: Vec<u8> = language.of(text).iter().copied().filter(|byte| !quote(byte)).collect();
        name.eq_ignore_ascii_case(b"sql") || name.eq_ignore_ascii_case(b"plpgsql")
    })
}

/// Where the words begin, in ascending order, that are values of an application's own setting: `SET a.b = word, word`.
fn setting_values(text: &[u8], parts: &[&Token]) -> Vec<usize> {
    let mut values = Vec::new();
    let mut rest = parts;
    while let Some(set) = rest.iter().position(|token| token.is_word(text, "set")) {
        rest = rest.get(set + 1..).unwrap_or_default();
        if let Some(first) = first_value(text, rest) {
            rest = rest.get(first..).unwrap_or_default();
            values.extend(listed_names(text, rest));
        }
    }
    values
}

/// How many tokens there are before the first value in `[LOCAL | SESSION] name.name {= | TO} value`.
fn first_value(text: &[u8], parts: &[&Token]) -> Option<usize> {
    let is = |at: usize, symbol: &[u8]| parts.get(at).is_some_and(|token| token.of(text) == symbol);
    let is_scope = |token: &&Token| token.is_word(text, "local") || token.is_word(text, "session");
    let mut at = usize::from(parts.first().is_some_and(is_scope) && !is(1, b"."));
    if !is(at + 1, b".") {
        return None;
    }
    for _ in 0..MAX_NAME_PARTS {
        at += if is(at + 1, b".") { 2 } else { 0 };
    }
    let assigns = is(at + 1, b"=") || parts.get(at + 1).is_some_and(|token| token.is_word(text, "to"));
    assigns.then_some(at + 2)
}

/// The words in a list of values.
fn listed_names<'p>(text: &'p [u8], parts: &'p [&Token]) -> impl Iterator<Item = usize> + 'p {
    let is_comma = |token: &Token| token.of(text) == b",";
    let separated = parts.chunks(2).scan(true, move |more, pair| {
        let listed = *more;
        *more = pair.get(1).is_some_and(|token| is_comma(token));
        listed.then_some(pair.first()?)
    });
    separated.filter(|token| matches!(token.kind, Kind::Word | Kind::QuotedWord)).map(|token| token.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utility(text: &str) -> String {
        String::from_utf8(normalize_utility(text.as_bytes())).unwrap()
    }

    #[test]
    fn passwords_and_options_go() {
        assert_eq!(utility("ALTER ROLE a PASSWORD 'secret'"), "ALTER ROLE a PASSWORD $1");
        assert_eq!(utility("ALTER ROLE a PASSWORD $$secret$$"), "ALTER ROLE a PASSWORD $1");
        assert_eq!(
            utility("CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password E'sec\\'ret')"),
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user $1, password $2)"
        );
        assert_eq!(utility("CREATE SUBSCRIPTION s CONNECTION 'p=x'"), "CREATE SUBSCRIPTION s CONNECTION $1");
    }

    #[test]
    fn placeholders_count_from_the_highest_parameter() {
        assert_eq!(utility("PREPARE p AS SELECT $2, 'a'"), "PREPARE p AS SELECT $2, $3");
    }

    #[test]
    fn bodies_stay_readable() {
        assert_eq!(utility("DO $$ BEGIN PERFORM f('secret', 5); END $$"), "DO $$ BEGIN PERFORM f($1, $2); END $$");
        assert_eq!(
            utility("DO LANGUAGE plpgsql $x$ BEGIN EXECUTE $q$SELECT 'secret'$q$; END $x$;"),
            "DO LANGUAGE plpgsql $x$ BEGIN EXECUTE $1; END $x$;"
        );
        assert_eq!(
            utility("CREATE OR REPLACE FUNCTION f(a int DEFAULT 7) RETURNS int AS $f$ SELECT 42 $f$ LANGUAGE 'sql'"),
            "CREATE OR REPLACE FUNCTION f(a int DEFAULT $1) RETURNS int AS $f$ SELECT $2 $f$ LANGUAGE $3"
        );
        assert_eq!(
            utility("DO $a$ BEGIN x; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $b$ SELECT 1 $b$; END $a$"),
            "DO $a$ BEGIN x; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $b$ SELECT $1 $b$; END $a$"
        );
    }

    #[test]
    fn bodies_in_other_languages_or_of_unknown_language_go() {
        for text in [
            "DO LANGUAGE plpython3u $$ x = \"secret\" $$",
            "DO $$ x = \"secret\" $$ LANGUAGE plperl",
            "DO $$ x = \"secret\" $$ LANGUAGE",
            "DO $$ x = \"secret\" ",
            "DO $$ SELECT 1 $$ LANGUAGE plpgsql PASSWORD $$secret$$",
            "CREATE FUNCTION f() RETURNS int AS $$ x = \"secret\" $$ LANGUAGE plv8",
            "CREATE FUNCTION f() RETURNS int AS $$ x = \"secret\" $$",
            "SELECT 1 AS $$secret$$ LANGUAGE sql",
            "CREATE ROLE a PASSWORD $$secret$$ LANGUAGE sql",
        ] {
            assert!(!utility(text).contains("secret"), "{}", utility(text));
        }
    }

    #[test]
    fn values_of_own_settings_go_without_quotes_too() {
        assert_eq!(utility("SET LOCAL app.token = secret, \"se cret\", 5"), "SET LOCAL app.token = $1, $2, $3");
        assert_eq!(utility("ALTER ROLE a SET app.sub.token TO secret"), "ALTER ROLE a SET app.sub.token TO $1");
        assert_eq!(
            utility("SET session.token = secret; SET local.a TO b"),
            "SET session.token = $1; SET local.a TO $2"
        );
        assert_eq!(utility("SET search_path = a, b"), "SET search_path = a, b");
        assert_eq!(utility("SET ROLE a"), "SET ROLE a");
    }

    #[test]
    fn long_texts_take_linear_time() {
        for piece in ["SET a.b = x, ", "SET.", "x, ", "DO $$ ", "LANGUAGE ", "/*", "$a$;", "'\n"] {
            utility(&piece.repeat(100_000));
        }
    }
}
