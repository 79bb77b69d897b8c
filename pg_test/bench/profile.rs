//! Reading callgrind's profiles (Valgrind manual, "Callgrind Format Specification").

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Instructions by function, its callees not included.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    functions: HashMap<String, f64>,
}

impl Profile {
    /// Whether callgrind has written the file to its end.
    pub fn is_complete(path: &Path) -> bool {
        fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with("totals:")))
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let (mut names, mut objects) = (Names::new(), Names::new());
        let (mut function, mut object) = (String::new(), "");
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("ob=") {
                object = full_name(name, &mut objects);
            } else if let Some(name) = line.strip_prefix("cob=") {
                full_name(name, &mut objects);
            } else if let Some(name) = line.strip_prefix("fn=") {
                function = label(full_name(name, &mut names), object);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                // Only to learn what the number stands for, should it come here first.
                full_name(name, &mut names);
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                // The line after calls= has the callee's cost, which is counted where the callee stands.
                if !std::mem::take(&mut is_call) {
                    *profile.functions.entry(function.clone()).or_default() += cost(line);
                }
            }
        }
        profile
    }

    /// Instructions of all functions.
    pub fn total(&self) -> f64 {
        self.functions.values().sum()
    }

    pub fn minus(&self, other: &Self) -> Self {
        let mut difference = self.clone();
        for (name, instructions) in &other.functions {
            *difference.functions.entry(name.clone()).or_default() -= instructions;
        }
        difference
    }

    pub fn per(mut self, units: f64) -> Self {
        self.functions.values_mut().for_each(|instructions| *instructions /= units);
        self
    }

    /// The `count` functions with the largest values, up or down.
    pub fn largest(&self, count: usize) -> Vec<(&str, f64)> {
        let mut all: Vec<_> = self.functions.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        all.sort_by(|one, other| other.1.abs().total_cmp(&one.1.abs()));
        all.truncate(count);
        all
    }
}

/// Names by the numbers that stand for them, such as "(12)".
type Names<'a> = HashMap<&'a str, &'a str>;

/// A function without a symbol has only an address; then its library says more.
fn label(function: &str, object: &str) -> String {
    let library = object.rsplit('/').next().unwrap_or(object);
    if function.starts_with("0x") { format!("{function} in {library}") } else { function.to_owned() }
}

/// The name behind "(12) name" or "(12)": a number is explained where it first occurs.
fn full_name<'a>(text: &'a str, names: &mut Names<'a>) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            names.insert(number, name);
            name
        }
        _ => names.get(text).copied().unwrap_or(text),
    }
}

/// The cost in a line "position cost"; none when left out.
fn cost(line: &str) -> f64 {
    line.split_whitespace().nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cost_leaves_out_calls_and_names_are_looked_up() {
        let text = "events: Ir\nfn=(1) main\n16 400\ncfn=(2) work\ncalls=1 50\n16 600\n+1 1\nfn=(2)\n51 100\n* 500\ntotals: 1001\n";
        let profile = Profile::parse(text);
        assert_eq!(profile.functions["main"], 401.0);
        assert_eq!(profile.functions["work"], 600.0);
        assert_eq!(profile.total(), 1001.0);
    }
}
