//! The rules of the architecture that can be read off the source, and the settings table of the manual.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use steward_test::Cluster;

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_LIB_LINES: usize = 80;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One source file, without comments and without what stands in strings: what is left is code.
struct Source {
    /// Relative to the repository.
    name: String,
    code: Vec<String>,
    raw: Vec<String>,
}

fn sources(folder: &str) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    collect(&root().join(folder), folder, &mut found)?;
    ensure!(!found.is_empty(), "no source in {folder}");
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn collect(path: &Path, name: &str, found: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        let child = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &child, found)?;
        } else if child.ends_with(".rs") {
            let text = fs::read_to_string(entry.path())?;
            let code = code_of(&text).lines().map(str::to_owned).collect();
            found.push(Source { name: child, code, raw: text.lines().map(str::to_owned).collect() });
        }
    }
    Ok(())
}

/// Blanks comments, strings and character literals, and keeps the lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest, code.chars().last());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            code.push(' ');
            rest = &rest[length..];
        }
    }
    code
}

/// Bytes of the comment, string or character literal that begins here; 0 for code.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |at| at + 2);
    }
    if !in_word && let Some(length) = raw_string(rest) {
        return length;
    }
    match rest.as_bytes() {
        [b'"', ..] => quoted(rest, '"'),
        // A lifetime has no closing quote.
        [b'\'', b'\\', ..] => quoted(rest, '\''),
        [b'\'', ..] => rest[1..].char_indices().nth(1).filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 2),
        _ => 0,
    }
}

fn raw_string(rest: &str) -> Option<usize> {
    let start = ["r", "br", "cr"]
        .iter()
        .filter_map(|prefix| rest.strip_prefix(prefix))
        .find(|after| after.trim_start_matches('#').starts_with('"'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let body = rest.len() - start.len() + hashes + 1;
    Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()))
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Words of a line: identifiers and keywords.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Fails with every line of code that `offends`.
fn ensure_none(sources: &[Source], rule: &str, offends: impl Fn(&Source, &str) -> bool) -> Result<()> {
    let mut offences = Vec::new();
    for source in sources {
        for (number, line) in source.code.iter().enumerate().filter(|(_, line)| offends(source, line)) {
            offences.push(format!("{}:{}: {}", source.name, number + 1, line.trim()));
        }
    }
    ensure!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
    Ok(())
}

fn capabilities() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("src"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && name != "pg" {
            names.push(name);
        }
    }
    ensure!(names.contains(&"capture".to_owned()), "{names:?}");
    Ok(names)
}

#[test]
fn core_knows_nothing_of_postgres() -> Result<()> {
    ensure_none(&sources("core/src")?, "core names pgrx", |_, line| {
        words(line).any(|word| word == "pgrx" || word == "pg_sys")
    })?;
    let manifest = fs::read_to_string(root().join("core/Cargo.toml"))?;
    ensure!(!manifest.lines().any(|line| line.trim_start().starts_with("pgrx")), "core depends on pgrx");
    Ok(())
}

/// `unsafe` may be written where C is spoken, and in the attribute that exports a symbol.
#[test]
fn unsafe_code_stays_in_its_folder() -> Result<()> {
    let outside = |source: &Source| !source.name.starts_with("src/pg/");
    for folder in ["src", "core/src", "pg_test/src"] {
        ensure_none(&sources(folder)?, "unsafe code outside src/pg", |source, line| {
            let line = line.replace("unsafe(no_mangle)", "").replace("forbid(unsafe_code)", "");
            outside(source) && words(&line).any(|word| word == "unsafe")
        })?;
    }
    Ok(())
}

#[test]
fn each_unsafe_block_says_why_it_is_sound() -> Result<()> {
    let mut silent = Vec::new();
    for source in sources("src")? {
        for (number, line) in source.code.iter().enumerate() {
            let opens = line.contains("unsafe {") || line.contains("unsafe impl");
            if opens && !is_argued(&source.raw, number) {
                silent.push(format!("{}:{}", source.name, number + 1));
            }
        }
    }
    ensure!(silent.is_empty(), "unsafe without a SAFETY comment:\n{}", silent.join("\n"));
    Ok(())
}

/// A SAFETY comment stands in the line itself, or above the statement that the block is part of.
fn is_argued(raw: &[String], number: usize) -> bool {
    raw[number].contains("SAFETY")
        || (0..number)
            .rev()
            .take(12)
            .map(|above| raw[above].trim())
            .take_while(|line| !line.ends_with('}') && !line.ends_with("};"))
            .any(|line| line.contains("SAFETY"))
}

#[test]
fn no_capability_knows_another_and_pg_knows_none() -> Result<()> {
    let names = capabilities()?;
    let sources = sources("src")?;
    for name in &names {
        let own = format!("src/{name}/");
        ensure_none(&sources, &format!("only lib.rs and itself may name {name}"), |source, line| {
            let path = format!("crate::{name}");
            let outside = !source.name.starts_with(&own) && source.name != "src/lib.rs";
            let grouped = line.contains("crate::{") && words(line).any(|word| word == name);
            let upward = line.contains(&format!("super::super::{name}")) || line.contains(&format!("super::{{{name}"));
            outside && (line.contains(&path) || grouped || upward)
        })?;
    }
    // pg does not reach upwards at all, but for the settings' type of its callers it has none to know.
    ensure_none(&sources, "src/pg reaches out of its folder", |source, line| {
        source.name.starts_with("src/pg/") && line.contains("crate::") && !line.contains("crate::pg")
    })
}

#[test]
fn each_kind_of_definition_has_its_place() -> Result<()> {
    let sources = sources("src")?;
    ensure_none(&sources, "SQL functions belong into an api.rs", |source, line| {
        words(line).any(|word| word == "pg_extern") && !source.name.ends_with("/api.rs")
    })?;
    ensure_none(&sources, "settings belong into settings.rs", |source, line| {
        words(line).any(|word| word == "GucRegistry") && source.name != "src/settings.rs"
    })?;
    ensure_none(&sources, "versions of Postgres belong into pg/compat", |source, line| {
        line.contains("cfg(") && line.contains("feature = ") && !source.name.starts_with("src/pg/compat/")
    })
}

/// Lines of code and comments; a file's unit tests stand at its end and do not count.
fn lines_before_tests(source: &Source) -> usize {
    source.raw.iter().position(|line| line.starts_with("#[cfg(test)]")).unwrap_or(source.raw.len())
}

#[test]
fn files_and_functions_stay_small() -> Result<()> {
    let mut large = Vec::new();
    for folder in ["src", "core/src"] {
        for source in sources(folder)? {
            let limit = if source.name == "src/lib.rs" { MAX_LIB_LINES } else { MAX_FILE_LINES - 1 };
            let lines = lines_before_tests(&source);
            if lines > limit {
                large.push(format!("{} has {lines} lines", source.name));
            }
            large.extend(large_functions(&source));
        }
    }
    ensure!(large.is_empty(), "too large:\n{}", large.join("\n"));
    Ok(())
}

/// By indentation: a function ends at the first closing brace that stands as far left as it began.
fn large_functions(source: &Source) -> Vec<String> {
    let mut large = Vec::new();
    for (start, line) in source.code.iter().enumerate().filter(|(_, line)| words(line).any(|word| word == "fn")) {
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = source.code[start..].iter().position(|line| line.trim_end() == end).map_or(0, |at| at + 1);
        // Without a body, the brace belongs to another.
        let declared =
            source.code[start..].iter().take_while(|line| !line.contains('{')).any(|line| line.contains(';'));
        if !declared && length > MAX_FUNCTION_LINES {
            large.push(format!("{}:{}: function of {length} lines", source.name, start + 1));
        }
    }
    large
}

// The manual's table of settings

/// A row of the table: name, default, unit, and who may change it.
const SETTINGS: &str = "
SELECT name, coalesce(nullif(boot_val, ''), '(empty)'), coalesce(unit, ''), context
FROM pg_settings WHERE name LIKE 'pg\\_steward.%' ORDER BY name";

fn documented(manual: &str) -> Result<Vec<Vec<String>>> {
    let start = manual.find("<!-- settings -->").context("README.md has no <!-- settings -->")?;
    let end = manual.find("<!-- /settings -->").context("README.md has no <!-- /settings -->")?;
    let rows = manual[start..end].lines().filter(|line| line.starts_with("| `"));
    Ok(rows
        .map(|row| {
            let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
            cells.take(4).collect()
        })
        .collect())
}

#[test]
fn the_manual_lists_the_settings_as_they_are() -> Result<()> {
    let cluster = Cluster::new("settings").preload("pg_steward").start()?;
    let mut client = cluster.client("postgres")?;
    let actual: Vec<Vec<String>> =
        client.query(SETTINGS, &[])?.iter().map(|row| (0..4).map(|column| row.get(column)).collect()).collect();
    ensure!(actual.len() > 20, "{} settings", actual.len());
    let sql = "SELECT string_agg(name, ', ') FROM pg_settings \
               WHERE name LIKE 'pg\\_steward.%' AND coalesce(short_desc, '') = ''";
    let silent: Option<String> = client.query_one(sql, &[])?.get(0);
    ensure!(silent.is_none(), "without a description: {silent:?}");

    let mut rows = documented(&fs::read_to_string(root().join("README.md"))?)?;
    rows.sort();
    ensure!(
        rows == actual,
        "README.md differs from pg_settings; tools/settings-table.sh prints the table\n{rows:#?}\n{actual:#?}"
    );
    Ok(())
}
