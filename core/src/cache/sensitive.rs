//! Which columns are taken for sensitive: by their names, since nothing else tells.
//!
//! A pattern counts only as whole words, so that `token` finds `accessToken` but not `tokenizer`.

/// The names that are sensitive unless the administrator says otherwise.
pub const DEFAULT_PATTERNS: &str = "password,passwd,pwd,token,secret,key,api_key,private_key,credential,iban,\
    bank_account,account_number,ssn,social_security,tax_id,credit_card,card_number,cvv,pin";

/// A list of names to look for in names of columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// In lower case, as written.
    text: String,
    words: Vec<String>,
}

impl Patterns {
    /// From a list separated by commas; an empty one finds nothing.
    pub fn parse(setting: &str) -> Self {
        let texts = setting.split(',').map(str::trim).filter(|text| !text.is_empty());
        Patterns { patterns: texts.map(|text| Pattern { text: text.to_lowercase(), words: words(text) }).collect() }
    }

    /// Whether a pattern equals this name, or its words stand in it one after the other. Case does not matter, except
    /// that it separates words (`userPassword`); so do digits and whatever is neither letter nor digit.
    pub fn is_sensitive(&self, column: &str) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let lower = column.to_lowercase();
        let words = words(column);
        self.patterns.iter().any(|pattern| pattern.text == lower || pattern.stands_in(&words))
    }
}

impl Pattern {
    fn stands_in(&self, words: &[String]) -> bool {
        // A pattern without a letter or digit has no words, and windows of none do not exist.
        !self.words.is_empty() && words.windows(self.words.len()).any(|window| window == self.words)
    }
}

/// The words of a name, in lower case.
fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (at, &letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| letters.get(before)).copied();
        if before.is_some_and(|before| is_boundary(before, letter, letters.get(at + 1).copied())) {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a word ends between two letters. The one after them tells where an abbreviation ends: `APIKey`.
fn is_boundary(before: char, letter: char, after: Option<char>) -> bool {
    let changes = |is: fn(char) -> bool| is(before) != is(letter);
    let hump = letter.is_uppercase() && (before.is_lowercase() || after.is_some_and(char::is_lowercase));
    changes(char::is_alphanumeric) || changes(char::is_numeric) || hump
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_end_where_a_reader_sees_them_end() {
        for (name, expected) in [
            ("access_token", "access token"),
            ("userPassword", "user password"),
            ("APIKey", "api key"),
            ("API_KEY", "api key"),
            ("pin2", "pin 2"),
            ("x-y.z", "x y z"),
            ("__a__", "a"),
            ("straßeKey", "straße key"),
            ("", ""),
        ] {
            assert_eq!(words(name).join(" "), expected);
        }
    }

    #[test]
    fn default_patterns_find_whole_words_only() {
        let patterns = Patterns::parse(DEFAULT_PATTERNS);
        assert_eq!(patterns.patterns.len(), 19);
        for name in [
            "password",
            "PASSWORD",
            "passWord",
            "userPassword",
            "password_hash",
            "API_KEY",
            "apiKey",
            "access_token",
            "token2",
            "2token",
            "client-secret",
            "PIN",
            "key",
            "my key",
            "social_security_no",
            "creditCardNumber",
            "BankAccount",
            "x_tax_id",
        ] {
            assert!(patterns.is_sensitive(name), "{name}");
        }
        for name in [
            "o_orderkey",
            "c_custkey",
            "monkey",
            "tokenizer",
            "keyboard",
            "Keyboard",
            "pinned",
            "spin",
            "secretary",
            "tax",
            "id",
            "bank",
            "account",
            "bank_of_account",
            "number_card",
            "",
            "_",
        ] {
            assert!(!patterns.is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn empty_lists_find_nothing() {
        for setting in ["", " ", ",", " , ,"] {
            let patterns = Patterns::parse(setting);
            assert!(!patterns.is_sensitive("password") && !patterns.is_sensitive(""), "{setting:?}");
        }
        assert!(!Patterns::parse("*").is_sensitive("a*b"));
        assert!(Patterns::parse(" Token , x").is_sensitive("TOKEN"));
    }

    proptest! {
        #[test]
        fn a_pattern_is_found_among_other_words(
            before in "([a-z]{1,8}_){0,2}", pattern in "[a-z]{1,8}(_[a-z]{1,8}){0,2}", after in "(_[a-z]{1,8}){0,2}"
        ) {
            let column = format!("{before}{pattern}{after}");
            let patterns = Patterns::parse(&pattern);
            prop_assert!(patterns.is_sensitive(&column));
            prop_assert!(patterns.is_sensitive(&column.to_uppercase()));
        }

        #[test]
        fn a_pattern_within_a_word_is_not_found(
            before in "[a-z]{0,4}", pattern in "[a-z]{1,8}", after in "[a-z]{0,4}"
        ) {
            let found = Patterns::parse(&pattern).is_sensitive(&format!("x_{before}{pattern}{after}_y"));
            prop_assert_eq!(found, before.is_empty() && after.is_empty() || "x" == pattern || "y" == pattern);
        }

        #[test]
        fn any_texts_are_tolerated(setting in any::<String>(), column in any::<String>()) {
            Patterns::parse(&setting).is_sensitive(&column);
        }
    }
}
