//! Tags come back as they were written, and nothing else is taken for tags.
use proptest::prelude::*;
use steward_core::capture::comment::{parse_sqlcommenter, parse_traceparent};

/// As the sqlcommenter specification writes a value: URL-encoded, then quoted.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn comment(pairs: &[(String, String)]) -> String {
    let written: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}='{}'", encoded(key), encoded(value))).collect();
    format!("/*{}*/", written.join(","))
}

/// Values of any printable characters, short enough that a comment fits its window.
fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-z_é]{1,8}", "[ -~é€]{0,12}"), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn tags_come_back_from_either_end(pairs in pairs(), end in prop::sample::select(vec!["", " ", ";", " ; \n"])) {
        for text in [
            format!("SELECT '/*x=''y''*/', 2 {}{end}", comment(&pairs)),
            format!("{} SELECT 1{end}", comment(&pairs)),
            format!("SELECT '{}' {}{end}", "x".repeat(3_000), comment(&pairs)),
        ] {
            let tags = parse_sqlcommenter(text.as_bytes());
            prop_assert_eq!(tags.map(|tags| tags.pairs), Some(pairs.clone()), "{}", text);
        }
    }

    #[test]
    fn a_string_that_holds_a_comment_has_no_tags(pairs in pairs(), cut in any::<prop::sample::Index>()) {
        let quoted = comment(&pairs).replace('\'', "''");
        for text in [format!("SELECT '{quoted}'"), format!("SELECT $$ {} $$", comment(&pairs))] {
            let cut = cut.index(text.len() + 1);
            prop_assert_eq!(parse_sqlcommenter(&text.as_bytes()[..cut]), None);
            prop_assert_eq!(parse_sqlcommenter(text.as_bytes()), None);
        }
    }

    #[test]
    fn any_bytes_are_tolerated(
        text in prop::collection::vec(prop::sample::select(b"/*/*''=,%4\\ ;a$\xff-\n".as_slice()), 0..80),
        far in 0usize..1_100
    ) {
        let far = [b"/*a='".repeat(far / 5), text.clone()].concat();
        for text in [&text, &far, &[b"/*".as_slice(), &text, b"*/"].concat()] {
            if let Some(tags) = parse_sqlcommenter(text) {
                prop_assert!(!tags.pairs.is_empty() && tags.pairs.len() <= 16);
                prop_assert!(tags.pairs.iter().all(|(key, value)| key.len() <= 64 && value.len() <= 128));
                prop_assert!(tags.pairs.iter().all(|(_, value)| !value.contains(char::is_control)));
            }
        }
    }

    #[test]
    fn valid_trace_contexts_are_read(trace in 1u128.., span in 1u64.., flags in any::<u8>(), version in 0u8..255) {
        let parent = parse_traceparent(&format!("{version:02x}-{trace:032x}-{span:016x}-{flags:02x}")).unwrap();
        prop_assert_eq!(u128::from_str_radix(&parent.trace_id, 16), Ok(trace));
        prop_assert_eq!(u64::from_str_radix(&parent.span_id, 16), Ok(span));
        prop_assert_eq!(parent.sampled, flags % 2 == 1);
    }

    #[test]
    fn any_text_is_tolerated_as_trace_context(text in "[0-9a-fA-F\u{e9}-]{0,60}") {
        if let Some(parent) = parse_traceparent(&text) {
            prop_assert_eq!((parent.trace_id.len(), parent.span_id.len()), (32, 16));
        }
    }
}
