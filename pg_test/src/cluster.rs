//! A throw-away cluster: made by initdb, reached over a Unix socket in its own directory, gone when dropped.

use crate::install::{Install, output, run};
use crate::log;
use crate::wait_until;
use crate::workdir::Workdir;
use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, NoTls};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Any port will do: nothing listens on the network, and the socket lies in the cluster's own directory.
const PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";
/// Within which a worker has come to a new database on a busy machine.
const WORKER_PATIENCE: Duration = Duration::from_secs(30);
/// What a test server needs and no more; it may lose its data at a crash of the machine.
const BASE_CONF: &str = "\
listen_addresses = ''
fsync = off
full_page_writes = off
shared_buffers = 32MB
max_connections = 40
max_wal_size = 256MB
log_min_messages = warning
log_line_prefix = '%m [%p] %q%a '
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
";

/// How a server is asked to stop, as `pg_ctl stop -m` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Wait for the clients to leave.
    Smart,
    /// Roll back, disconnect, checkpoint.
    Fast,
    /// Like a crash: the next start recovers.
    Immediate,
}

/// What a cluster is to look like; `start` makes it.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    install: Option<Install>,
    initdb_args: Vec<String>,
    preload: Vec<String>,
    conf: Vec<(String, String)>,
    surroundings: Surroundings,
}

/// What the server's processes find around them.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    environment: Vec<(String, String)>,
    address_space_kb: Option<u64>,
}

impl Builder {
    /// Adds a library to `shared_preload_libraries`; the order of the calls is the order of loading.
    pub fn preload(mut self, library: &str) -> Self {
        self.preload.push(library.to_owned());
        self
    }

    /// Adds a setting to postgresql.conf; the value is quoted here.
    pub fn conf(mut self, key: &str, value: &str) -> Self {
        self.conf.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds arguments to initdb's, such as `["-E", "SQL_ASCII", "--locale=C"]`.
    pub fn initdb_args<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.initdb_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment of the server.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.surroundings.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets each process of the server have so much memory and no more, shared memory included.
    pub fn address_space_kb(mut self, limit_kb: u64) -> Self {
        self.surroundings.address_space_kb = Some(limit_kb);
        self
    }

    /// Uses this installation rather than the environment's.
    pub fn install(mut self, install: Install) -> Self {
        self.install = Some(install);
        self
    }

    /// Makes the cluster and starts its server.
    pub fn start(self) -> Result<Cluster> {
        let cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Makes the cluster but does not start its server.
    pub fn create(self) -> Result<Cluster> {
        let install = self.install.clone().map_or_else(Install::from_env, Ok)?;
        let workdir = Workdir::create(&install, &self.name)?;
        let surroundings = self.surroundings.clone();
        let cluster = Cluster { name: self.name.clone(), install, workdir, surroundings };
        cluster.initdb(&self.initdb_args)?;
        cluster.append_conf(&self.conf_text())?;
        Ok(cluster)
    }

    fn conf_text(&self) -> String {
        let mut text = BASE_CONF.to_owned();
        if !self.preload.is_empty() {
            text += &setting("shared_preload_libraries", &self.preload.join(","));
        }
        self.conf.iter().for_each(|(key, value)| text += &setting(key, value));
        text
    }
}

fn setting(key: &str, value: &str) -> String {
    format!("{key} = '{}'\n", value.replace('\'', "''"))
}

/// A Postgres cluster which lives as long as this value.
pub struct Cluster {
    name: String,
    install: Install,
    workdir: Workdir,
    surroundings: Surroundings,
}

impl Cluster {
    /// Begins the description of a cluster; `name` shows in its directory's name.
    #[allow(clippy::new_ret_no_self, reason = "reads best where tests begin: Cluster::new(..)...start()")]
    pub fn new(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            install: None,
            initdb_args: vec![],
            preload: vec![],
            conf: vec![],
            surroundings: Surroundings::default(),
        }
    }

    /// The Postgres this cluster runs.
    pub fn installation(&self) -> &Install {
        &self.install
    }

    /// The directory of the Unix socket, for `psql -h` and the like.
    pub fn host(&self) -> &Path {
        self.workdir.path()
    }

    /// The port, which is part of the socket's name.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.workdir.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.workdir.path().join("log")
    }

    // Life cycle

    fn initdb(&self, args: &[String]) -> Result<()> {
        let mut initdb = self.server_program("initdb");
        initdb.args(["-A", "trust", "-N", "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8"]);
        run(initdb.args(args).arg("-D").arg(self.data_dir())).map(drop)
    }

    /// Adds lines to postgresql.conf; they hold from the next reload or restart on.
    pub fn append_conf(&self, lines: &str) -> Result<()> {
        let path = self.data_dir().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        Ok(file.write_all(lines.as_bytes())?)
    }

    /// Makes the server read its configuration again.
    pub fn reload(&self) -> Result<()> {
        run(&mut self.pg_ctl("reload")).map(drop)
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start(&self) -> Result<()> {
        let socket = format!("-k {} -p {PORT}", self.host().display());
        let mut start = self.pg_ctl_in_surroundings("start");
        start.args(["-w", "-t", "60", "-o", &socket, "-l"]).arg(self.log_path());
        run(&mut start).map(drop).with_context(|| format!("server log:\n{}", self.log_tail()))
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&self, mode: StopMode) -> Result<()> {
        run(self.pg_ctl("stop").args(["-w", "-t", "60", "-m", mode.word()])).map(drop)
    }

    /// Stops (fast) and starts the server.
    pub fn restart(&self) -> Result<()> {
        self.stop(StopMode::Fast)?;
        self.start()
    }

    /// Whether a server runs on the data directory.
    pub fn is_running(&self) -> bool {
        output(&mut self.pg_ctl("status")).is_ok_and(|done| done.status.success())
    }

    /// Waits until the server takes a connection, as after a crash it recovers from by itself.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        ensure!(wait_until(timeout, || self.client("postgres").is_ok()), "{} is not ready", self.name);
        Ok(())
    }

    /// Sends a signal (`TERM`, `INT`, `HUP`, …) to one of the server's processes.
    pub fn signal(&self, signal: &str, pid: i32) -> Result<()> {
        let mut kill = self.server_program("pg_ctl");
        run(kill.args(["kill", signal, &pid.to_string()])).map(drop)
    }

    /// Kills one of the server's processes without warning; the postmaster then restarts all of them.
    pub fn kill9(&self, pid: i32) -> Result<()> {
        self.signal("KILL", pid)
    }

    // Clients

    /// A connection of the superuser.
    pub fn client(&self, database: &str) -> Result<Client> {
        self.client_as(SUPERUSER, database)
    }

    /// A connection of `user`, who needs no password.
    pub fn client_as(&self, user: &str, database: &str) -> Result<Client> {
        let mut config = self.config();
        config.user(user).dbname(database);
        config.connect(NoTls).with_context(|| format!("cannot connect to {} as {user}", self.name))
    }

    /// A connection's description, to which a user, a database and more may be added.
    pub fn config(&self) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host_path(self.host()).port(PORT).user(SUPERUSER);
        config.connect_timeout(Duration::from_secs(10));
        config
    }

    /// A new database with the extension, which must be preloaded. Returns when the extension's worker has made its
    /// first tables there: whatever changes from then on is the caller's own.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        self.psql(name, "CREATE EXTENSION pg_steward")?;
        let made = "SELECT count(*) > 0 FROM pg_inherits WHERE inhparent = 'steward.slow_executions'::regclass";
        if !wait_until(WORKER_PATIENCE, || self.psql(name, made).is_ok_and(|answer| answer == "t")) {
            bail!("no worker of pg_steward has come to database {name}");
        }
        Ok(())
    }

    /// Runs SQL by psql (`-XAtq`, stops at the first error) and returns its output without the last line end.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let done = self.psql_output(database, sql, &["-v", "ON_ERROR_STOP=1"])?;
        if !done.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&done.stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim_end_matches('\n').to_owned())
    }

    /// Runs SQL by psql with further arguments, past errors, and returns all it wrote.
    pub fn psql_output(&self, database: &str, sql: &str, args: &[&str]) -> Result<Output> {
        let mut psql = self.install.program("psql");
        psql.args(["-XAtq", "-U", SUPERUSER, "-p", &PORT.to_string(), "-d", database]).arg("-h").arg(self.host());
        psql.args(args).args(["-f", "-"]).current_dir("/");
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().context("cannot run psql")?;
        let mut stdin = child.stdin.take().context("psql has no standard input")?;
        // psql may write more than a pipe holds before it has read all of its input.
        let sql = sql.to_owned();
        let feeder = std::thread::spawn(move || stdin.write_all(sql.as_bytes()));
        let done = child.wait_with_output()?;
        // A psql that stopped at an error leaves the rest unread: its exit status tells, not this.
        let _ = feeder.join();
        Ok(done)
    }

    /// Runs a script of pgbench's once, by the extended protocol; unlike psql's, it may have a pipeline in it.
    pub fn pgbench(&self, database: &str, script: &str) -> Result<()> {
        let file = self.host().join("script.sql");
        fs::write(&file, script)?;
        let mut pgbench = self.install.program("pgbench");
        pgbench.args(["-n", "-t", "1", "-M", "extended", "-U", SUPERUSER, "-p", &PORT.to_string(), "-f"]).arg(&file);
        pgbench.arg("-h").arg(self.host()).arg(database).current_dir("/");
        run(&mut pgbench).map(drop)
    }

    // Log

    /// The server's log so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A place in the log, for `log_lines_since`.
    pub fn log_mark(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |meta| meta.len())
    }

    /// What was logged since `mark`.
    pub fn log_lines_since(&self, mark: u64) -> Vec<String> {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        let mark = usize::try_from(mark).map_or(bytes.len(), |mark| mark.min(bytes.len()));
        String::from_utf8_lossy(&bytes[mark..]).lines().map(str::to_owned).collect()
    }

    /// Fails when the log has a line at WARNING or above that contains none of `allowed`; that clients were disconnected
    /// at a shutdown is always allowed.
    pub fn check_log(&self, allowed: &[&str]) -> Result<()> {
        let log = self.log();
        let unexpected = log::unexpected(&log, allowed);
        ensure!(unexpected.is_empty(), "unexpected in the log of {}:\n{}", self.name, unexpected.join("\n"));
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let mut tail = String::new();
        for line in lines.iter().skip(lines.len().saturating_sub(40)) {
            let _ = writeln!(tail, "  {line}");
        }
        tail
    }

    // Replication

    /// A hot standby of this server, streaming from it, with its configuration.
    pub fn standby(&self) -> Result<Cluster> {
        let name = format!("{}S", self.name);
        let workdir = Workdir::create(&self.install, &name)?;
        let surroundings = self.surroundings.clone();
        let standby = Cluster { name, install: self.install.clone(), workdir, surroundings };
        let mut backup = standby.server_program("pg_basebackup");
        backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", SUPERUSER, "-p", &PORT.to_string()]);
        run(backup.arg("-h").arg(self.host()).arg("-D").arg(standby.data_dir()))?;
        standby.start()?;
        Ok(standby)
    }

    /// Turns a standby into a primary and waits until it is one.
    pub fn promote(&self) -> Result<()> {
        run(self.pg_ctl("promote").args(["-w", "-t", "60"])).map(drop)
    }

    /// Waits until this standby has replayed all that `primary` has written.
    pub fn wait_caught_up(&self, primary: &Cluster, timeout: Duration) -> Result<()> {
        let target = primary.psql("postgres", "SELECT pg_current_wal_flush_lsn()")?;
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'");
        let reached = || self.psql("postgres", &query).is_ok_and(|answer| answer == "t");
        ensure!(wait_until(timeout, reached), "{} did not reach {target}", self.name);
        Ok(())
    }

    // Commands

    fn server_program(&self, name: &str) -> Command {
        let mut command = self.install.server_program(name);
        command.current_dir(self.workdir.path());
        command
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.server_program("pg_ctl");
        command.arg(action).arg("-s").arg("-D").arg(self.data_dir());
        command
    }

    /// The same with what the server is to find around it.
    fn pg_ctl_in_surroundings(&self, action: &str) -> Command {
        let plain = self.pg_ctl(action);
        let mut command = match self.surroundings.address_space_kb {
            None => plain,
            Some(limit_kb) => {
                let mut limited = self.install.as_server_user("/bin/sh");
                limited.arg("-c").arg(format!("ulimit -v {limit_kb} && exec \"$0\" \"$@\""));
                limited.arg(plain.get_program()).args(plain.get_args()).current_dir(self.workdir.path());
                limited
            }
        };
        command.envs(self.surroundings.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl StopMode {
    fn word(self) -> &'static str {
        match self {
            Self::Smart => "smart",
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("last lines of the log of {}:\n{}", self.name, self.log_tail());
        }
        if self.data_dir().join("postmaster.pid").exists() {
            let _ = output(self.pg_ctl("stop").args(["-w", "-t", "20", "-m", "immediate"]));
        }
    }
}
