//! No literal survives normalisation, wherever the text is cut and however backslashes are to be read.
use proptest::prelude::*;
use steward_core::capture::normalize::{
    Backslash, Constant, Placeholder, clip, normalize, normalize_at, normalize_at_with, normalize_utility,
    normalize_utility_with, normalize_with,
};

/// A part of a statement: its text, and what should be left of it (`@` for a placeholder).
#[derive(Clone, Debug)]
struct Piece {
    text: String,
    shown: &'static str,
}

/// Letters and digits that nothing but secrets has three of in a row.
const SECRET_LETTERS: &str = "qzxjvw";
const SECRET_DIGITS: &str = "6789";

/// In templates, `S` is a random word and `N` a random number.
const LITERALS: &[&str] = &[
    "'S'",
    "'S''S'",
    "''",
    "E'S\\'S'",
    "e'S\\\\'",
    "E'S'\n'S\\'S'",
    "E'S' -- S\n  'S\\'S'",
    "'S'\n'S'",
    "B'N'",
    "x'N'",
    "N'S'",
    "U&'S'",
    "u&'\\0041S'",
    "$$S$$",
    "$$S'S\"S$$",
    "$t1$S $$ S$t1$",
    "$a$ $b$ S $b$ $a$",
    "$é$S$é$",
    "N",
    "N.N",
    ".N",
    "N.",
    "NeN",
    "Ne-N",
    "N.NE+N",
    "0xN",
    "0bN",
    "0oN",
    "N_N",
    "Nabc",
];
/// Strings that end in a backslash or have one before a quote, where backslashes are plain.
const LITERALS_IF_PLAIN: &[&str] = &["'S\\'", "'\\'", "N'S\\'", "'S\\''S'", "'S\\\\\\'", "'S'\n'S\\'"];
/// The same where they escape.
const LITERALS_IF_ESCAPE: &[&str] = &["'S\\'S'", "'\\''", "N'S\\'S'", "'S\\\\\\'S'", "'\\\\'", "'S'\n'S\\'S'"];
const COMMENTS: &[&str] = &["/* S */", "-- S\n", "/* 'S /* S */ S */", "/*+ S(N) */", "-- 'S \\' /* $$ \" \n"];
const KEPT: &[&str] = &[
    "SELECT",
    "FROM",
    "t1",
    "a$b$c",
    "\"q 1\"",
    "\"a\"\"b '\"",
    "U&\"d\\0061t\"",
    "$3",
    "::text",
    "(",
    ")",
    "<>",
    "+",
    "?",
    "größe",
    "b.c2",
    "[",
    "]",
    "!",
    "@>",
    "e",
    "x",
    "u",
    "n",
    "do",
    "as",
    "language",
];

fn piece(templates: &'static [&'static str], shown: &'static str) -> BoxedStrategy<Piece> {
    (prop::sample::select(templates), "[qzxjvw]{3,8}", "[6-9]{3,8}")
        .prop_map(move |(template, word, number)| {
            let secret = |text: &str| text.replace('N', &number).replace('S', &word);
            // The prefix N of a national string is not the N of a number.
            let text = match template.strip_prefix("N'") {
                Some(rest) => format!("N'{}", secret(rest)),
                None => secret(template),
            };
            Piece { text, shown }
        })
        .boxed()
}

fn kept() -> BoxedStrategy<Piece> {
    prop::sample::select(KEPT).prop_map(|text| Piece { text: text.to_owned(), shown: text }).boxed()
}

fn pieces(strings: &'static [&'static str]) -> impl Strategy<Value = Vec<Piece>> {
    let literal = prop_oneof![3 => piece(LITERALS, "@"), 1 => piece(strings, "@")];
    prop::collection::vec(prop_oneof![2 => literal, 1 => piece(COMMENTS, ""), 3 => kept()], 0..16)
}

/// The whole text, and where the literals begin.
fn join(pieces: &[Piece]) -> (String, Vec<Constant>) {
    let mut text = String::new();
    let mut constants = Vec::new();
    for piece in pieces {
        if piece.shown == "@" {
            constants.push(Constant { offset: text.len(), length: None, squashed: false });
        }
        text.push_str(&piece.text);
        // Not only a space: two strings on two lines would be one.
        text.push_str(" , ");
    }
    (text, constants)
}

fn expected(pieces: &[Piece], first: u32) -> String {
    let mut number = first;
    let mut shown = String::new();
    for piece in pieces {
        if piece.shown == "@" {
            shown.push_str(&format!("${number}"));
            number += 1;
        } else {
            shown.push_str(piece.shown);
        }
        shown.push(',');
    }
    without_space(shown.as_bytes())
}

fn without_space(text: &[u8]) -> String {
    String::from_utf8_lossy(text).split_whitespace().collect()
}

/// Three letters or three digits in a row of those that only secrets are made of.
fn leaks(text: &[u8]) -> bool {
    let run_of = |alphabet: &str| text.windows(3).any(|run| run.iter().all(|byte| alphabet.as_bytes().contains(byte)));
    run_of(SECRET_LETTERS) || run_of(SECRET_DIGITS)
}

fn all_ways(text: &[u8], constants: &[Constant], backslash: Backslash) -> Vec<Vec<u8>> {
    vec![
        normalize(text, Placeholder::Numbered(1)),
        normalize_with(text, Placeholder::Question, backslash),
        normalize_utility(text),
        normalize_utility_with(text, backslash),
        normalize_at(text, constants, 3),
        normalize_at_with(text, constants, 3, backslash),
    ]
}

fn check(pieces: &[Piece], cut: prop::sample::Index, backslash: Backslash) -> Result<(), TestCaseError> {
    let (text, constants) = join(pieces);
    let cut = &text.as_bytes()[..cut.index(text.len() + 1)];
    for (way, normalized) in all_ways(cut, &constants, backslash).iter().enumerate() {
        let shown = String::from_utf8_lossy(normalized);
        prop_assert!(!leaks(normalized), "way {way}: {shown}\nof {}", String::from_utf8_lossy(cut));
    }
    let whole = expected(pieces, 1);
    prop_assert_eq!(&whole, &without_space(&normalize_with(text.as_bytes(), Placeholder::Numbered(1), backslash)));
    let whole_at = expected(pieces, 4);
    prop_assert_eq!(&whole_at, &without_space(&normalize_at_with(text.as_bytes(), &constants, 3, backslash)));
    Ok(())
}

/// Bytes that mean something to the lexer, so that random texts reach every state of it.
fn tricky_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"''\"\"$$$\\\\--/**/eEuU&xNa1.;,=( \n\xff_?".as_slice());
    prop::collection::vec(byte, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn nothing_leaks_where_backslashes_are_plain(pieces in pieces(LITERALS_IF_PLAIN), cut in any::<prop::sample::Index>()) {
        check(&pieces, cut, Backslash::Plain)?;
    }

    #[test]
    fn nothing_leaks_where_backslashes_escape(pieces in pieces(LITERALS_IF_ESCAPE), cut in any::<prop::sample::Index>()) {
        check(&pieces, cut, Backslash::Escape)?;
    }

    #[test]
    fn nothing_is_left_to_replace(text in tricky_bytes()) {
        for backslash in [Backslash::Unknown, Backslash::Plain, Backslash::Escape] {
            let once = normalize_with(&text, Placeholder::Question, backslash);
            let shown = String::from_utf8_lossy(&text).into_owned();
            prop_assert_eq!(&normalize_with(&once, Placeholder::Question, backslash), &once, "{}", shown);
            let once = normalize_with(&text, Placeholder::Numbered(1), backslash);
            prop_assert_eq!(&normalize_with(&once, Placeholder::Numbered(1), backslash), &once, "{}", shown);
        }
    }

    #[test]
    fn unknown_hides_at_least_what_either_reading_hides(text in tricky_bytes()) {
        // Marks every byte with its position's letter class kept: what Unknown shows, both readings show.
        let shown_by = |backslash| normalize_with(&text, Placeholder::Question, backslash);
        let quotes = |text: &[u8]| text.iter().filter(|&&byte| byte == b'a').count();
        let unknown = quotes(&shown_by(Backslash::Unknown));
        prop_assert!(unknown <= quotes(&shown_by(Backslash::Plain)));
        prop_assert!(unknown <= quotes(&shown_by(Backslash::Escape)));
    }

    #[test]
    fn any_bytes_and_offsets_are_tolerated(
        text in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), tricky_bytes()],
        constants in prop::collection::vec((0usize..220, prop::option::of(0usize..300), any::<bool>()), 0..12)
    ) {
        let constants: Vec<Constant> = constants.into_iter()
            .map(|(offset, length, squashed)| Constant { offset, length, squashed }).collect();
        all_ways(&text, &constants, Backslash::Plain);
        normalize_at(&text, &[Constant { offset: usize::MAX, length: Some(usize::MAX), squashed: true }], u32::MAX);
        normalize(&text, Placeholder::Numbered(u32::MAX));
    }

    #[test]
    fn clip_is_short_enough_and_keeps_text_valid(text in "\\PC{0,20}", max in 0usize..90) {
        let clipped = clip(text.as_bytes(), max);
        prop_assert!(clipped.len() <= max && text.as_bytes().starts_with(clipped));
        prop_assert!(std::str::from_utf8(clipped).is_ok());
        prop_assert!(text.len() <= max || clipped.len() + 3 >= max);
    }

    #[test]
    fn clip_takes_any_bytes(text in prop::collection::vec(any::<u8>(), 0..40), max in 0usize..50) {
        let clipped = clip(&text, max);
        prop_assert!(clipped.len() <= max && text.starts_with(clipped));
        prop_assert!(clipped.len() + 3 >= max.min(text.len()));
    }
}

/// Statements of every kind that can carry a secret, cut at every byte.
#[test]
fn utility_statements_cut_anywhere_show_no_secret() {
    let statements = [
        "CREATE ROLE a LOGIN PASSWORD 'qzxjvw' VALID UNTIL '6789'",
        "ALTER USER a WITH ENCRYPTED PASSWORD E'qzx\\'jvw'",
        "ALTER ROLE a PASSWORD $$qzxjvw$$",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=qzxjvw' PUBLICATION p",
        "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password 'qzxjvw')",
        "ALTER SERVER s OPTIONS (SET password U&'qzxjvw' UESCAPE '!')",
        "SET app.token = qzxjvw",
        "SET LOCAL app.token TO \"qzxjvw\", qzxjvw",
        "ALTER SYSTEM SET primary_conninfo = 'password=qzxjvw'",
        "COPY t FROM PROGRAM 'curl -u u:qzxjvw h' WITH (DELIMITER ',')",
        "NOTIFY c, 'qzxjvw'",
        "COMMENT ON TABLE t IS 'qzxjvw' /* qzxjvw */",
        "PREPARE p (int) AS SELECT $1, 'qzxjvw', 6789 -- qzxjvw",
        "EXECUTE p (6789, 'qzxjvw')",
        "DO $$ BEGIN PERFORM f('qzxjvw'); EXECUTE $q$ALTER ROLE a PASSWORD 'qzxjvw'$q$; END $$",
        "DO LANGUAGE plpgsql $a$ BEGIN /* qzxjvw */ x := 6789; CREATE ROLE b PASSWORD $b$qzxjvw$b$; END $a$",
        "DO LANGUAGE plpython3u $$ secret = \"qzxjvw\" # qzxjvw $$",
        "CREATE FUNCTION f(a text DEFAULT 'qzxjvw') RETURNS text LANGUAGE sql AS $f$ SELECT 'qzxjvw' $f$",
        "CREATE FUNCTION f() RETURNS text LANGUAGE plperl SET app.key = qzxjvw AS $f$ return \"qzxjvw\"; $f$",
        "CREATE OR REPLACE PROCEDURE f() AS $f$ BEGIN SET app.key = qzxjvw; END $f$ LANGUAGE plpgsql",
    ];
    for statement in statements {
        assert!(leaks(statement.as_bytes()));
        for cut in 0..=statement.len() {
            for backslash in [Backslash::Unknown, Backslash::Plain] {
                let shown = normalize_utility_with(&statement.as_bytes()[..cut], backslash);
                assert!(!leaks(&shown), "{}\nof {}", String::from_utf8_lossy(&shown), &statement[..cut]);
            }
        }
    }
}
