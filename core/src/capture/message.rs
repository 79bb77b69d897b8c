//! Error messages without the data they may quote.

use super::normalize::{Placeholder, normalize};

/// Classes of SQLSTATE whose messages name objects and settings, never values: constraint and transaction state,
/// access rules, limits, operator intervention, system errors.
const NAMES_ONLY: [&str; 8] = ["23", "25", "40", "42", "53", "54", "55", "57"];
/// A syntax error quotes the text it met, which may be a literal.
const SYNTAX_ERROR: &str = "42601";

/// The message of an error with this SQLSTATE, fit to be kept. Where the class does not rule data out (conversions,
/// user-defined errors, anything unknown), whatever is quoted and every number is replaced by `?`.
pub fn redact_message(sqlstate: &str, message: &[u8]) -> Vec<u8> {
    let class = sqlstate.get(..2).unwrap_or_default();
    if NAMES_ONLY.contains(&class) && sqlstate != SYNTAX_ERROR {
        return message.to_vec();
    }
    normalize(&without_quoted(message), Placeholder::Question)
}

/// Everything from the first double quote to the last, replaced. Data may hold quotes of its own, so pairs prove
/// nothing.
fn without_quoted(message: &[u8]) -> Vec<u8> {
    let first = message.iter().position(|byte| *byte == b'"');
    let last = message.iter().rposition(|byte| *byte == b'"');
    match first.zip(last) {
        Some((first, last)) if last > first => [&message[..first], b"?", &message[last + 1..]].concat(),
        Some((first, _)) => [&message[..first], b"?"].concat(),
        None => message.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(sqlstate: &str, message: &str) -> String {
        String::from_utf8_lossy(&redact_message(sqlstate, message.as_bytes())).into_owned()
    }

    #[test]
    fn data_is_hidden_and_names_stay() {
        let cases = [
            (
                "23505",
                "duplicate key value violates unique constraint \"k\"",
                "duplicate key value violates unique constraint \"k\"",
            ),
            ("42P01", "relation \"t\" does not exist", "relation \"t\" does not exist"),
            ("22P02", "invalid input syntax for type integer: \"secret\"", "invalid input syntax for type integer: ?"),
            ("22P02", "invalid input: \"sec\"ret\" is bad", "invalid input: ? is bad"),
            ("P0001", "customer 4711 not found", "customer ? not found"),
            ("42601", "syntax error at or near \"'secret'\"", "syntax error at or near ?"),
            ("22012", "division by zero", "division by zero"),
            ("XX000", "odd value \"secret", "odd value ?"),
        ];
        for (sqlstate, message, expected) in cases {
            assert_eq!(redacted(sqlstate, message), expected);
        }
    }
}
