//! What the body of a function reads of the session, as far as its text tells.

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

/// The literal that is the first argument of a call whose name has just ended.
fn first_literal(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix('"').unwrap_or(rest).trim_start().strip_prefix('(')?.trim_start();
    let (name, after) = rest.strip_prefix('\'')?.split_once('\'')?;
    // Whatever joins something to the literal makes it another name.
    let ends = after.trim_start().starts_with([',', ')']);
    (ends && !name.contains('\\')).then(|| name.to_owned())
}
