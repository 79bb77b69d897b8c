//! Utility statements: every literal replaced, but the bodies of DO and of functions kept readable.

use super::lexer::{Backslash, Kind, Lexer, Token};
use super::normalize::{Placeholder, Writer};

/// Bodies within bodies beyond this are replaced as a whole.
const MAX_DEPTH: u32 = 4;

/// A utility statement without its data. Does not know how to read backslashes: see [`Backslash::Unknown`].
pub fn normalize_utility(text: &[u8]) -> Vec<u8> {
    normalize_utility_with(text, Backslash::Unknown)
}

/// A utility statement without its data: every literal becomes `$n`, counting up from the text's highest parameter.
///
/// The dollar-quoted body of a DO, CREATE FUNCTION or CREATE PROCEDURE in SQL or PL/pgSQL keeps its delimiters, and its
/// statements are normalised the same way; other languages quote differently, so their bodies are replaced. The value
/// of a setting with a dot in its name (an application's own) is replaced even where it has no quotes.
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
            _ if values.contains(&token.start) => out.place(),
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

/// Where the words begin that are values of an application's own setting: `SET a.b = word, word`.
fn setting_values(text: &[u8], parts: &[&Token]) -> Vec<usize> {
    let is_name = |token: &Token| matches!(token.kind, Kind::Word | Kind::QuotedWord);
    let is_byte = |at: usize, byte: &[u8]| parts.get(at).is_some_and(|token| token.of(text) == byte);
    let mut values = Vec::new();
    for at in (0..parts.len()).filter(|&at| parts.get(at).is_some_and(|token| token.is_word(text, "set"))) {
        let scoped = parts.get(at + 1).is_some_and(|t| t.is_word(text, "local") || t.is_word(text, "session"));
        let mut next = at + 1 + usize::from(scoped && !is_byte(at + 2, b"."));
        let mut dots = 0;
        while is_byte(next + 1, b".") {
            dots += 1;
            next += 2;
        }
        let assigns = is_byte(next + 1, b"=") || parts.get(next + 1).is_some_and(|token| token.is_word(text, "to"));
        if dots == 0 || !assigns {
            continue;
        }
        next += 2;
        while let Some(value) = parts.get(next) {
            if is_name(value) {
                values.push(value.start);
            }
            if !is_byte(next + 1, b",") {
                break;
            }
            next += 2;
        }
    }
    values
}
