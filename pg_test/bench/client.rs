//! A small client of the frontend/backend protocol 3.0 over a Unix socket.
//!
//! A benchmark wants to decide itself when bytes go out (one round trip per statement, or a whole slice at once) and
//! to run little code of its own between two statements, because client and backend share one core and its caches.
//! Messages: PostgreSQL manual, "Message Formats". Authentication: trust only, as the clusters here are set up.

use anyhow::{Context, Result, anyhow, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Rows in text format.
pub type Rows = Vec<Vec<Option<String>>>;

const PROTOCOL_3_0: i32 = 3 << 16;
const READ_SIZE_BYTES: usize = 64 * 1024;

/// One connection, and what it has read ahead.
pub struct Connection {
    stream: UnixStream,
    out: Vec<u8>,
    input: Vec<u8>,
    read_from: usize,
    pid: i32,
}

impl Connection {
    /// Connects to the server whose socket is `dir/.s.PGSQL.port`.
    pub fn open(dir: &Path, port: u16, user: &str, database: &str) -> Result<Self> {
        let stream = UnixStream::connect(dir.join(format!(".s.PGSQL.{port}")))?;
        let mut connection = Self { stream, out: Vec::new(), input: Vec::new(), read_from: 0, pid: 0 };
        connection.send_startup(&[("user", user), ("database", database)])?;
        connection.wait_ready(1)?;
        Ok(connection)
    }

    /// Process id of the backend (from BackendKeyData).
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Runs a string of SQL through the simple protocol and returns the rows of all its statements.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        self.queue_query(sql);
        self.flush()?;
        let mut rows = Vec::new();
        let outcome = self.read_until_ready(1, &mut |kind, body| {
            if kind == b'D' {
                rows.push(data_row(body));
            }
        })?;
        outcome.into_result().with_context(|| format!("in: {sql}"))?;
        Ok(rows)
    }

    /// First column of the first row.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        let rows = self.query(sql)?;
        let first = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
        first.with_context(|| format!("no value from: {sql}"))
    }

    /// Parses `sql` under a name, as a driver's prepare does.
    pub fn prepare(&mut self, name: &str, sql: &str) -> Result<()> {
        let at = self.begin(b'P');
        self.put_text(name);
        self.put_text(sql);
        self.put_i16(0);
        self.end(at);
        self.put_sync();
        self.flush()?;
        self.wait_ready(1).with_context(|| format!("preparing: {sql}"))
    }

    /// Queues Bind, Execute and Sync of a prepared statement: a transaction of its own unless BEGIN came before.
    pub fn queue_execute(&mut self, name: &str, parameters: &[&str]) {
        let at = self.begin(b'B');
        self.put_text("");
        self.put_text(name);
        self.put_i16(0);
        self.put_i16(parameters.len());
        for value in parameters {
            self.put_i32(value.len());
            self.out.extend_from_slice(value.as_bytes());
        }
        self.put_i16(0);
        self.end(at);
        let at = self.begin(b'E');
        self.put_text("");
        self.put_i32(0);
        self.end(at);
        self.put_sync();
    }

    /// Queues a string of SQL for the simple protocol.
    pub fn queue_query(&mut self, sql: &str) {
        let at = self.begin(b'Q');
        self.put_text(sql);
        self.end(at);
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for `count` statements to end; an error of any of them is an error here.
    pub fn wait_ready(&mut self, count: usize) -> Result<()> {
        self.read_until_ready(count, &mut |_, _| {})?.into_result()
    }

    /// Waits for `count` statements to end and returns how many failed.
    pub fn count_errors(&mut self, count: usize) -> Result<usize> {
        Ok(self.read_until_ready(count, &mut |_, _| {})?.errors)
    }

    fn read_until_ready(&mut self, count: usize, see: &mut dyn FnMut(u8, &[u8])) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut ready = 0;
        while ready < count {
            let (kind, start, end) = self.next_message()?;
            let body = &self.input[start..end];
            match kind {
                b'Z' => ready += 1,
                b'E' => outcome.add(body),
                b'K' => self.pid = read_i32(body, 0),
                b'R' if read_i32(body, 0) != 0 => bail!("the server asks for a password"),
                _ => see(kind, body),
            }
        }
        Ok(outcome)
    }

    /// Type of the next message and where its body lies in `input`.
    fn next_message(&mut self) -> Result<(u8, usize, usize)> {
        self.need(5)?;
        let kind = self.input[self.read_from];
        let size_bytes = usize::try_from(read_i32(&self.input, self.read_from + 1))? + 1;
        self.need(size_bytes)?;
        let start = self.read_from + 5;
        self.read_from += size_bytes;
        Ok((kind, start, self.read_from))
    }

    /// Reads until `size_bytes` unread bytes are there.
    fn need(&mut self, size_bytes: usize) -> Result<()> {
        if self.read_from == self.input.len() {
            self.input.clear();
            self.read_from = 0;
        }
        while self.input.len() - self.read_from < size_bytes {
            let filled = self.input.len();
            self.input.resize(filled + READ_SIZE_BYTES, 0);
            let got = self.stream.read(&mut self.input[filled..])?;
            self.input.truncate(filled + got);
            if got == 0 {
                bail!("the server closed the connection");
            }
        }
        Ok(())
    }

    fn send_startup(&mut self, options: &[(&str, &str)]) -> Result<()> {
        let at = self.out.len();
        self.put_i32(0);
        self.out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for (name, value) in options {
            self.put_text(name);
            self.put_text(value);
        }
        self.out.push(0);
        self.end(at);
        self.flush()
    }

    fn begin(&mut self, kind: u8) -> usize {
        self.out.push(kind);
        self.put_i32(0);
        self.out.len() - 4
    }

    /// Fills in the length of the message whose length field stands at `at`.
    fn end(&mut self, at: usize) {
        let size_bytes = (self.out.len() - at) as u32;
        self.out[at..at + 4].copy_from_slice(&size_bytes.to_be_bytes());
    }

    fn put_sync(&mut self) {
        let at = self.begin(b'S');
        self.end(at);
    }

    fn put_text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
    }

    fn put_i16(&mut self, value: usize) {
        self.out.extend_from_slice(&(value as u16).to_be_bytes());
    }

    fn put_i32(&mut self, value: usize) {
        self.out.extend_from_slice(&(value as u32).to_be_bytes());
    }
}

impl Drop for Connection {
    /// Says goodbye, so that the backend ends at once; nothing is lost when it cannot.
    fn drop(&mut self) {
        self.out.clear();
        let at = self.begin(b'X');
        self.end(at);
        let _ = self.flush();
    }
}

/// Errors met while statements ran.
#[derive(Default)]
struct Outcome {
    errors: usize,
    first: Option<String>,
}

impl Outcome {
    fn add(&mut self, body: &[u8]) {
        self.errors += 1;
        self.first.get_or_insert_with(|| error_message(body));
    }

    fn into_result(self) -> Result<()> {
        self.first.map_or(Ok(()), |message| Err(anyhow!(message)))
    }
}

/// The primary message (field M) of an ErrorResponse.
fn error_message(body: &[u8]) -> String {
    let message = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M"));
    String::from_utf8_lossy(message.unwrap_or(b"unknown error")).into_owned()
}

/// Columns of a DataRow; a length of -1 is NULL.
fn data_row(body: &[u8]) -> Vec<Option<String>> {
    let count = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let mut at = 2;
    (0..count)
        .map(|_| {
            let size_bytes = usize::try_from(read_i32(body, at)).ok();
            at += 4;
            size_bytes.map(|size_bytes| {
                at += size_bytes;
                String::from_utf8_lossy(&body[at - size_bytes..at]).into_owned()
            })
        })
        .collect()
}

fn read_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
