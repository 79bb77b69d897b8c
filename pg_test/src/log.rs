//! Reading a server's log by severity.

/// Server log severities from WARNING upwards, as they stand in a line.
const SEVERITIES: [&str; 4] = [" WARNING:  ", " ERROR:  ", " FATAL:  ", " PANIC:  "];

/// Whether a log line reports a WARNING, ERROR, FATAL or PANIC (not its DETAIL, HINT, CONTEXT or STATEMENT).
pub fn at_warning_or_above(line: &str) -> bool {
    // The first severity decides: a STATEMENT line may quote any of these words.
    let first = [" LOG:  ", " STATEMENT:  ", " DETAIL:  ", " HINT:  ", " CONTEXT:  ", " QUERY:  "]
        .iter()
        .filter_map(|word| line.find(word))
        .min()
        .unwrap_or(usize::MAX);
    SEVERITIES.iter().filter_map(|word| line.find(word)).any(|at| at < first)
}

/// What Postgres tells clients which are still connected, or just leaving, when it is asked to stop. Every test that
/// restarts a server may see it, or not.
const STOPPING: [&str; 2] =
    ["terminating connection due to administrator command", "terminating connection due to immediate shutdown command"];

/// The lines at WARNING or above which contain none of `allowed`.
pub(crate) fn unexpected<'a>(log: &'a str, allowed: &[&str]) -> Vec<&'a str> {
    log.lines()
        .filter(|line| at_warning_or_above(line))
        .filter(|line| !STOPPING.iter().chain(allowed).any(|part| line.contains(part)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "2026-01-01 00:00:00.000 UTC [42] psql";

    #[test]
    fn severity_is_the_first_one_in_the_line() {
        assert!(at_warning_or_above(&format!("{PREFIX} ERROR:  division by zero")));
        assert!(!at_warning_or_above(&format!("{PREFIX} LOG:  statement: SELECT ' ERROR:  x'")));
        assert!(!at_warning_or_above(&format!("{PREFIX} STATEMENT:  SELECT ' FATAL:  x'")));
        assert!(!at_warning_or_above("\tcontinued ERROR"));
    }

    #[test]
    fn allowed_parts_silence_a_line() {
        let log = format!("{PREFIX} WARNING:  a\n{PREFIX} FATAL:  b\n");
        assert_eq!(unexpected(&log, &["FATAL:  b"]), [format!("{PREFIX} WARNING:  a")]);
    }
}
