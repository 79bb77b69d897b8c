//! The servers of the comparison: one cluster an arm, all copies of one template.

use crate::arms::{self, Arm};
use crate::client::Connection;
use crate::workload;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use steward_test::{Cluster, StopMode, wait_until};

const USER: &str = "postgres";
const DATABASE: &str = "postgres";

/// Valgrind slows a server down some fifty times.
const VALGRIND_START_LIMIT: Duration = Duration::from_secs(120);

/// Settings of every server: no work but the statements', and the same plans and memory in all.
const COMMON_CONF: &str = "\
shared_buffers = '256MB'
jit = off
autovacuum = off
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = '4GB'
checkpoint_timeout = '1h'
bgwriter_lru_maxpages = 0
max_parallel_workers_per_gather = 0
huge_pages = off
log_min_messages = warning
";

/// Holds what sets an arm apart; included by postgresql.conf.
const ARM_CONF: &str = "arm.conf";

/// A stopped cluster with pgbench's tables and the extensions of all arms, to be copied.
pub struct Template {
    cluster: Cluster,
}

impl Template {
    /// Makes the cluster and fills it with `scale` times 100,000 accounts.
    ///
    /// All servers have the extensions of all `arms`, so that the libraries they preload are their only difference.
    pub fn make(scale: u64, arms: &[Arm]) -> Result<Self> {
        let cluster = Cluster::new("template").create()?;
        run(cluster.installation().as_server_user("touch").arg(cluster.data_dir().join(ARM_CONF)))?;
        cluster.append_conf(&format!("{COMMON_CONF}include = '{ARM_CONF}'\n"))?;
        let extensions = arms::extensions(arms);
        write_arm_conf(&cluster, &extensions, &[])?;
        cluster.start()?;
        fill(&cluster, scale)?;
        for extension in extensions {
            connect(&cluster)?.query(&format!("CREATE EXTENSION {extension}"))?;
        }
        cluster.stop(StopMode::Fast)?;
        Ok(Self { cluster })
    }
}

fn fill(cluster: &Cluster, scale: u64) -> Result<()> {
    let mut pgbench = cluster.installation().program("pgbench");
    pgbench.args(["-i", "-q", "-s", &scale.to_string(), "-U", USER, "-p", &cluster.port().to_string()]);
    run(pgbench.arg("-h").arg(cluster.host()).arg(DATABASE))?;
    let mut connection = connect(cluster)?;
    connection.query(&workload::setup_sql())?;
    connection.query("CREATE EXTENSION pg_prewarm")?;
    connection.query("VACUUM (FREEZE, ANALYZE)")?;
    connection.query("CHECKPOINT").map(drop)
}

fn write_arm_conf(cluster: &Cluster, preload: &[&str], settings: &[(&str, &str)]) -> Result<()> {
    let mut text = format!("shared_preload_libraries = '{}'\n", preload.join(","));
    for (setting, value) in settings {
        text += &format!("{setting} = '{value}'\n");
    }
    // Written over, not replaced: the file stays the server's own.
    Ok(fs::write(cluster.data_dir().join(ARM_CONF), text)?)
}

/// A server, which can be any arm.
pub struct Server {
    cluster: Cluster,
}

impl Server {
    /// Copies the template, once for each server.
    pub fn create_all(template: &Template, count: usize) -> Result<Vec<Self>> {
        println!("Making {count} servers.");
        let create = |number| {
            let cluster = Cluster::new(&format!("arm{number:02}")).create()?;
            copy_data(&template.cluster, &cluster)?;
            Ok(Self { cluster })
        };
        (0..count).map(create).collect()
    }

    /// Makes the stopped server an arm.
    pub fn become_arm(&self, arm: &Arm) -> Result<()> {
        write_arm_conf(&self.cluster, arm.preload, arm.conf)
    }

    /// A misspelt setting of a library is only a warning to Postgres; here the arm would not be what its name says.
    pub fn check_settings(&self, arm: &Arm) -> Result<()> {
        let mut connection = self.connect()?;
        arm.conf.iter().try_for_each(|(setting, _)| {
            let known = connection.value(&format!("SELECT count(*) FROM pg_settings WHERE name = '{setting}'"))?;
            ensure!(known == "1", "arm {}: the server knows no setting \"{setting}\"", arm.name);
            Ok(())
        })
    }

    pub fn start(&self) -> Result<()> {
        self.cluster.start()
    }

    pub fn stop(&self) -> Result<()> {
        self.cluster.stop(StopMode::Fast)
    }

    pub fn connect(&self) -> Result<Connection> {
        connect(&self.cluster)
    }

    /// Reads all tables and indexes of the workloads into shared_buffers.
    pub fn prewarm(&self) -> Result<()> {
        let sql = "SELECT pg_prewarm(oid) FROM pg_class WHERE relname ~ '^(pgbench|bench)_' AND relkind IN ('r', 'i')";
        self.connect()?.query(sql).map(drop)
    }

    /// Starts the server under valgrind's callgrind, which writes one file per process.
    pub fn start_callgrind(&self) -> Result<Callgrind<'_>> {
        let install = self.cluster.installation();
        let folder = self.cluster.host().join("profiles");
        run(install.as_server_user("mkdir").arg(&folder))?;
        let mut valgrind = install.as_server_user("valgrind");
        valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}/%p", folder.display()));
        valgrind.arg(install.bindir().join("postgres")).arg("-D").arg(self.cluster.data_dir());
        valgrind.arg("-k").arg(self.cluster.host()).args(["-p", &self.cluster.port().to_string()]);
        valgrind.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = valgrind.spawn().context("cannot run valgrind")?;
        let running = Callgrind { server: self, child, folder };
        ensure!(
            wait_until(VALGRIND_START_LIMIT, || self.connect().is_ok()),
            "no server under valgrind:\n{}",
            self.cluster.log()
        );
        Ok(running)
    }
}

/// A server running under valgrind, stopped when this goes.
pub struct Callgrind<'a> {
    pub server: &'a Server,
    child: Child,
    folder: PathBuf,
}

impl Callgrind<'_> {
    /// Where a backend's profile is once it has ended.
    pub fn profile_of(&self, pid: i32) -> PathBuf {
        self.folder.join(pid.to_string())
    }
}

impl Drop for Callgrind<'_> {
    fn drop(&mut self) {
        if self.server.stop().is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn connect(cluster: &Cluster) -> Result<Connection> {
    Connection::open(cluster.host(), cluster.port(), USER, DATABASE)
}

fn copy_data(from: &Cluster, to: &Cluster) -> Result<()> {
    let install = to.installation();
    run(install.as_server_user("rm").arg("-rf").arg(to.data_dir()))?;
    run(install.as_server_user("cp").arg("-a").arg(from.data_dir()).arg(to.data_dir()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.current_dir("/").output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", said.trim_end());
    Ok(())
}

/// Adds a word to the line that says how far we are.
pub fn progress(word: &str) -> Result<()> {
    print!(" {word}");
    Ok(std::io::stdout().flush()?)
}
