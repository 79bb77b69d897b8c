//! The directory of one throw-away cluster, which goes away with its owner however that ends.

use crate::install::{Install, OsUser};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Short, since the path of a Unix socket must stay below 108 bytes.
const PREFIX: &str = "stw-";
const PARENT: &str = "/tmp";
/// Names the process a directory belongs to: its pid and its start time, since pids come back.
const OWNER_FILE: &str = "owner";
/// At most so many left-over directories are cleared at a time, so that a start stays quick.
const SWEEP_LIMIT: usize = 16;

/// Reads until its standard input ends, which it does when the owner goes, by whatever way; then clears up.
/// It clears nothing when the owner did: the directory is gone. An initdb or pg_ctl of the owner may still be at work,
/// hence the turns.
const GUARD_SCRIPT: &str = r#"
while read -r _; do :; done
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -d "$1" ] || exit 0
    if [ -f "$1/data/postmaster.pid" ]; then "$2/pg_ctl" stop -s -w -t 20 -m immediate -D "$1/data"; fi
    rm -rf "$1"
    sleep 1
done
"#;

/// A private directory under /tmp and the process that guards it.
pub(crate) struct Workdir {
    path: PathBuf,
    guard: Child,
}

impl Workdir {
    /// A new directory, owned by the user the server runs as.
    pub(crate) fn create(install: &Install, name: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| sweep(install));
        let path = make(name, install.server_user())?;
        let guard = guard(install, &path).inspect_err(|_| drop(fs::remove_dir_all(&path)))?;
        Ok(Self { path, guard })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // A second attempt is the guard's; a third the next run's.
        let _ = fs::remove_dir_all(&self.path);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn make(name: &str, user: Option<OsUser>) -> Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let short: String = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let path = Path::new(PARENT).join(format!("{PREFIX}{short}-{pid}-{serial}"));
    let made = fs::DirBuilder::new().mode(0o700).create(&path);
    made.with_context(|| format!("cannot create {}", path.display()))?;
    fs::write(path.join(OWNER_FILE), format!("{pid} {}", start_time(pid).unwrap_or_default()))?;
    if let Some(user) = user {
        chown(&path, Some(user.uid), Some(user.gid))?;
    }
    Ok(path)
}

/// Its own process group, so that a Ctrl-C meant for the owner does not end the guard too.
fn guard(install: &Install, path: &Path) -> Result<Child> {
    let mut command = install.as_server_user("/bin/sh");
    command.args(["-c", GUARD_SCRIPT, "sh"]).arg(path).arg(install.bindir()).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().context("cannot start the guard of a cluster's directory")
}

/// Clears what runs left behind whose guard was killed as well.
fn sweep(install: &Install) {
    let Ok(entries) = fs::read_dir(PARENT) else { return };
    let stale = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .filter(|path| owner_is_gone(path));
    for path in stale.take(SWEEP_LIMIT) {
        if path.join("data/postmaster.pid").exists() {
            let mut stop = install.server_program("pg_ctl");
            stop.args(["stop", "-s", "-w", "-t", "20", "-m", "immediate", "-D"]).arg(path.join("data"));
            let _ = stop.current_dir("/").output();
        }
        let _ = fs::remove_dir_all(path);
    }
}

/// False when in doubt, as for a directory of another user or one just being made.
fn owner_is_gone(path: &Path) -> bool {
    let Ok(owner) = fs::read_to_string(path.join(OWNER_FILE)) else { return false };
    let mut words = owner.split_whitespace();
    let (Some(pid), Some(started)) = (words.next().and_then(|pid| pid.parse().ok()), words.next()) else {
        return false;
    };
    start_time(pid).is_none_or(|now| now != started)
}

/// When a process started, in clock ticks since boot (field 22 of /proc/pid/stat, see proc(5)); None without one.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold blanks: count from behind it, where field 3 comes next.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(22 - 3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_start_time_and_keeps_it() {
        let pid = std::process::id();
        assert!(start_time(pid).is_some());
        assert_eq!(start_time(pid), start_time(pid));
        assert_eq!(start_time(u32::MAX), None);
    }
}
