//! Redis and pgpool-II, each on a private socket in the server's directory, gone with the value.

use crate::cache_rig::{KEYS, Place};
use crate::client::Connection;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use steward_test::{Install, wait_until};

const START_LIMIT: Duration = Duration::from_secs(20);
/// Debian keeps pgpool where ordinary users' PATH does not reach.
const ADMIN_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A program by its name; `None` is said to the user.
fn program(name: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ADMIN_FOLDERS.iter().map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        println!("{what} is left out: there is no {name} (tools/bench-cache.sh gets it from Debian)");
    }
    found
}

/// Starts a server in the background. Programs that were only unpacked bring their libraries along.
fn spawn(mut command: Command) -> Result<Child> {
    if let Some(folder) = std::env::var_os("BENCH_NEIGHBOUR_LIBRARIES") {
        command.env("LD_LIBRARY_PATH", folder);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("cannot run {command:?}"))
}

/// A Redis server that holds the two results under `small:KEY` and `large:KEY`.
pub struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    /// `None`: it is not installed.
    pub fn start(place: &Place, documents: &[String; 2]) -> Result<Option<Self>> {
        let Some(program) = program("redis-server", "Redis") else { return Ok(None) };
        let socket = place.folder.join("redis");
        let mut command = Install::from_env()?.as_server_user(program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let redis = Self { child: spawn(command)?, socket };
        ensure!(wait_until(START_LIMIT, || redis.connect().is_ok()), "no answer from Redis");
        let mut connection = redis.connect()?;
        for key in 1..=KEYS {
            for (prefix, document) in ["small:", "large:"].iter().zip(documents) {
                connection.queue(&["SET", &format!("{prefix}{key}"), document]);
                connection.round_trip()?;
            }
        }
        Ok(Some(redis))
    }

    pub fn connect(&self) -> Result<RedisConnection> {
        Ok(RedisConnection { stream: UnixStream::connect(&self.socket)?, out: Vec::new(), input: Vec::new() })
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It keeps nothing that could be lost.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of Redis's protocol (RESP2), as much of it as SET and GET take.
pub struct RedisConnection {
    stream: UnixStream,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl RedisConnection {
    pub fn queue(&mut self, words: &[&str]) {
        self.out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }

    /// Sends what is queued and reads one answer: a status, or a value that is there.
    pub fn round_trip(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        self.input.clear();
        loop {
            let filled = self.input.len();
            self.input.resize(filled + 16 * 1024, 0);
            let got = self.stream.read(&mut self.input[filled..])?;
            self.input.truncate(filled + got);
            ensure!(got > 0, "Redis closed the connection");
            if is_complete(&self.input)? {
                return Ok(());
            }
        }
    }
}

/// Is it a whole answer?
fn is_complete(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(2).position(|pair| pair == b"\r\n") else { return Ok(false) };
    let line = String::from_utf8_lossy(&answer[1..end]);
    match answer[0] {
        b'+' => Ok(true),
        // -1 stands for no value, which is no size.
        b'$' => Ok(answer.len() >= end + 2 + line.parse::<usize>().context("Redis has no such key")? + 2),
        _ => bail!("Redis: {line}"),
    }
}

/// A pgpool-II with its memory cache on, in front of the server.
pub struct Pgpool {
    child: Child,
    socket_folder: PathBuf,
    port: u16,
}

impl Pgpool {
    /// `None`: it is not installed.
    pub fn start(place: &Place) -> Result<Option<Self>> {
        let Some(program) = program("pgpool", "pgpool-II") else { return Ok(None) };
        let install = Install::from_env()?;
        let folder = place.folder.join("pgpool");
        let made = install.as_server_user("mkdir").arg("-p").arg(folder.join("oid")).status()?;
        ensure!(made.success(), "cannot make {}", folder.display());
        let port = place.port + 1;
        fs::write(folder.join("pgpool.conf"), configuration(place, &folder, port))?;
        fs::write(folder.join("pcp.conf"), "")?;
        fs::write(folder.join("pool_hba.conf"), "")?;
        let mut command = install.as_server_user(&program);
        command.arg("-f").arg(folder.join("pgpool.conf")).arg("-F").arg(folder.join("pcp.conf"));
        command.arg("-a").arg(folder.join("pool_hba.conf")).args(["-n", "-D"]);
        let child = spawn(command)?;
        let pgpool = Self { child, socket_folder: place.folder.clone(), port };
        ensure!(wait_until(START_LIMIT, || pgpool.connect().is_ok()), "no answer from pgpool-II");
        Ok(Some(pgpool))
    }

    pub fn connect(&self) -> Result<Connection> {
        Connection::open(&self.socket_folder, self.port, "postgres", "postgres")
    }

    /// Its processes.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let children: Result<Vec<i32>, _> = children.split_whitespace().map(str::parse).collect();
        Ok([vec![parent.cast_signed()], children?].concat())
    }
}

impl Drop for Pgpool {
    fn drop(&mut self) {
        // A fast shutdown. Its own `-m fast stop` would wait for a process to vanish that is ours to reap.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        if !wait_until(START_LIMIT, || matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One backend, no checks of its health, the cache as large as pg_steward's; the rest as it comes.
fn configuration(place: &Place, folder: &Path, port: u16) -> String {
    let (sockets, data, folder) = (place.folder.display(), place.data.display(), folder.display());
    format!(
        "backend_clustering_mode = 'raw'
listen_addresses = ''
pcp_listen_addresses = ''
port = {port}
pcp_port = {pcp_port}
socket_dir = '{sockets}'
pcp_socket_dir = '{sockets}'
wd_ipc_socket_dir = '{sockets}'
backend_hostname0 = '{sockets}'
backend_port0 = {backend_port}
backend_data_directory0 = '{data}'
backend_flag0 = 'DISALLOW_TO_FAILOVER'
enable_pool_hba = off
pool_passwd = ''
num_init_children = 4
child_life_time = 0
sr_check_period = 0
health_check_period = 0
load_balance_mode = off
pid_file_name = '{folder}/pgpool.pid'
logdir = '{folder}'
memory_cache_enabled = on
memqcache_method = 'shmem'
memqcache_total_size = 64MB
memqcache_expire = 0
memqcache_auto_cache_invalidation = on
memqcache_oiddir = '{folder}/oid'
",
        pcp_port = port + 1,
        backend_port = place.port,
    )
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn an_answer_is_complete_with_its_last_line_end() {
        assert!(is_complete(b"+OK\r\n").unwrap());
        assert!(is_complete(b"$3\r\nabc\r\n").unwrap());
        for part in [&b""[..], b"$3", b"$3\r\n", b"$3\r\nabc", b"$3\r\nabc\r"] {
            assert!(!is_complete(part).unwrap());
        }
        assert!(is_complete(b"$-1\r\n").is_err());
        assert!(is_complete(b"-ERR unknown command\r\n").unwrap_err().to_string().contains("unknown command"));
    }
}
