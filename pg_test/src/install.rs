//! The Postgres under test: where its programs are, and as whom they run.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One Postgres installation, found through its `pg_config`.
#[derive(Clone, Debug)]
pub struct Install {
    pg_config: PathBuf,
    bindir: PathBuf,
    /// Set when we are root: Postgres refuses to run as root.
    server_user: Option<OsUser>,
}

/// An operating-system user, by the numbers the kernel knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Install {
    /// The installation of `PG_CONFIG`, or of the `pg_config` on the PATH.
    pub fn from_env() -> Result<Self> {
        let pg_config = std::env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into());
        Self::at(PathBuf::from(pg_config))
    }

    /// The installation that `pg_config` describes.
    pub fn at(pg_config: PathBuf) -> Result<Self> {
        let bindir = ask(&pg_config, "--bindir")?;
        let server_user = if id("-u", None)? == 0 { Some(OsUser::postgres()?) } else { None };
        Ok(Self { pg_config, bindir: bindir.into(), server_user })
    }

    /// What `pg_config` answers to an option such as `--pkglibdir`.
    pub fn ask(&self, option: &str) -> Result<String> {
        ask(&self.pg_config, option)
    }

    /// The major version, such as 15.
    pub fn major(&self) -> Result<u32> {
        let version = self.ask("--version")?;
        let digits = version.trim_start_matches("PostgreSQL ").split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|d| d.parse().ok()).with_context(|| format!("unknown version \"{version}\""))
    }

    /// The folder of `psql`, `pgbench` and so on.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    pub(crate) fn server_user(&self) -> Option<OsUser> {
        self.server_user
    }

    /// A program of this installation, to run as the user that invoked us.
    pub fn program(&self, name: &str) -> Command {
        clean(Command::new(self.bindir.join(name)))
    }

    /// Any program, to run as the owner of the server.
    pub fn as_server_user(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = clean(Command::new(program));
        if let Some(user) = self.server_user {
            // Setting the user also drops root's supplementary groups.
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// A program of this installation, to run as the owner of the server.
    pub(crate) fn server_program(&self, name: &str) -> Command {
        self.as_server_user(self.bindir.join(name))
    }
}

impl OsUser {
    fn postgres() -> Result<Self> {
        Ok(Self { uid: id("-u", Some("postgres"))?, gid: id("-g", Some("postgres"))? })
    }
}

/// Drops what the caller's environment would change: PGHOST, PGOPTIONS, a foreign language and so on.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C.UTF-8").env("HOME", "/");
    command
}

fn ask(pg_config: &Path, option: &str) -> Result<String> {
    let mut command = Command::new(pg_config);
    command.arg(option);
    Ok(run(&mut command)?.trim_end().to_owned())
}

fn id(option: &str, user: Option<&str>) -> Result<u32> {
    let mut command = Command::new("id");
    command.arg(option).args(user);
    let number = run(&mut command)?;
    number.trim().parse().with_context(|| format!("id {option} answered \"{number}\""))
}

/// Runs a command to its end and returns what it wrote; an error carries what it said on stderr.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot run {command:?}"))
}
