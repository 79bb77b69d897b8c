//! Writers that move amounts, so that their sum stays, and one that replaces what queries are made of.

use super::readers::{QUERIES, compare_text};
use super::{Random, Shared};
use postgres::{Client, Error};
use std::io::Write as _;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// Amounts in an ordinary table, in partitions, in a table without a key, and below a foreign key. `move_it` undoes a half
/// move, in which only one of two rows was there.
pub const SETUP: &str = "
CREATE TABLE a (id int PRIMARY KEY, amount int NOT NULL);
CREATE TABLE b (id int, amount int NOT NULL);
CREATE TABLE m (id int, k int, amount int NOT NULL) PARTITION BY LIST (k);
CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1);
CREATE TABLE m2 PARTITION OF m FOR VALUES IN (2);
CREATE TABLE m3 PARTITION OF m FOR VALUES IN (3);
CREATE TABLE owners (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, moved int DEFAULT 0 UNIQUE);
CREATE TABLE owned (owner int REFERENCES owners ON DELETE CASCADE, amount int NOT NULL);
INSERT INTO a SELECT n, 100 FROM generate_series(0, 49) AS n;
INSERT INTO m SELECT n, 1 + n % 3, 100 FROM generate_series(100, 149) AS n;
CREATE TABLE moves (one int, two int, delta int);
CREATE TABLE late_moves (one int, two int, delta int);
CREATE TABLE ruled_moves (one int, two int, delta int);
CREATE FUNCTION move_it(one int, two int, delta int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE first int; second int; BEGIN
    UPDATE a SET amount = amount + delta WHERE id = one; GET DIAGNOSTICS first = ROW_COUNT;
    UPDATE a SET amount = amount - delta WHERE id = two; GET DIAGNOSTICS second = ROW_COUNT;
    IF first + second <> 2 THEN RAISE EXCEPTION 'half a move'; END IF;
    RETURN 1;
END $$;
CREATE FUNCTION move_or_not(one int, two int, delta int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN PERFORM move_it(one, two, delta); IF delta % 2 = 0 THEN RAISE EXCEPTION 'even'; END IF; RETURN 1;
EXCEPTION WHEN raise_exception THEN RETURN 0; END $$;
CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM move_it(new.one, new.two, new.delta); RETURN NULL; END $$;
CREATE TRIGGER now AFTER INSERT ON moves FOR EACH ROW EXECUTE FUNCTION moved();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late_moves DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moved();
CREATE RULE move AS ON INSERT TO ruled_moves DO INSTEAD SELECT move_it(new.one, new.two, new.delta);
CREATE VIEW total AS SELECT (SELECT sum(amount) FROM a) + (SELECT sum(amount) FROM m)
    + (SELECT coalesce(sum(amount), 0) FROM b) + (SELECT coalesce(sum(amount), 0) FROM owned) AS total;
CREATE FUNCTION total_of_a() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT sum(amount) FROM a); END $$;
CREATE TABLE gen (writer int PRIMARY KEY, n int NOT NULL);
CREATE TABLE gen_truncated (n int); INSERT INTO gen_truncated VALUES (0);
CREATE TABLE gen_parts (n int) PARTITION BY LIST (n); CREATE TABLE gen_part_0 PARTITION OF gen_parts FOR VALUES IN (0);
INSERT INTO gen_parts VALUES (0);
CREATE TABLE gen_base (n int); INSERT INTO gen_base VALUES (0);
CREATE MATERIALIZED VIEW gen_view AS SELECT n FROM gen_base; CREATE UNIQUE INDEX ON gen_view (n);
CREATE FUNCTION gen_function() RETURNS int LANGUAGE sql STABLE AS 'SELECT 0';
CREATE TABLE gen_swapped AS SELECT 0 AS n;
";

/// A move of `by` from `two` to `one`, with the number of rows without which it is but a half.
const MOVES: &[(&str, Option<u64>)] = &[
    ("UPDATE a SET amount = amount + CASE id WHEN {one} THEN {by} ELSE -{by} END WHERE id IN ({one}, {two})", Some(2)),
    (
        "WITH d AS (UPDATE a SET amount = amount - {by} WHERE id = {one} RETURNING 1)
         UPDATE m SET amount = amount + {by} FROM d WHERE id = {two} + 100",
        Some(1),
    ),
    (
        "MERGE INTO a USING (VALUES ({one}, {by}), ({two}, -{by})) AS s(id, by) ON a.id = s.id
         WHEN MATCHED THEN UPDATE SET amount = amount + s.by",
        Some(2),
    ),
    (
        "INSERT INTO a VALUES ({one}, {by}), ({two}, -{by}) ON CONFLICT (id) DO UPDATE SET amount = a.amount + excluded.amount",
        None,
    ),
    ("SELECT move_it({one}, {two}, {by})", None),
    ("SELECT move_or_not({one}, {two}, {by})", None),
    ("DO $$ BEGIN PERFORM move_or_not({one}, {two}, {by}); PERFORM move_it({two}, {one}, {by}); END $$", None),
    ("INSERT INTO moves VALUES ({one}, {two}, {by})", None),
    ("INSERT INTO late_moves VALUES ({one}, {two}, {by})", None),
    ("INSERT INTO ruled_moves VALUES ({one}, {two}, {by})", None),
    ("WITH d AS (DELETE FROM a WHERE id = {one} RETURNING id, amount) INSERT INTO b SELECT * FROM d", None),
    (
        "WITH d AS (DELETE FROM b RETURNING id, amount) INSERT INTO a SELECT id, sum(amount) FROM d GROUP BY id
         ON CONFLICT (id) DO UPDATE SET amount = a.amount + excluded.amount",
        None,
    ),
    ("UPDATE m SET k = 1 + (k + {by}) % 3 WHERE id IN ({one} + 100, {two} + 100)", None),
    (
        "WITH r AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM m2 LIMIT 2)
         UPDATE m2 SET amount = amount + CASE n WHEN 1 THEN {by} ELSE -{by} END FROM r WHERE r.id = m2.id",
        Some(2),
    ),
    (
        "WITH o AS (INSERT INTO owners (moved) VALUES (NULL) RETURNING id)
         INSERT INTO owned SELECT id, {by} FROM o UNION ALL SELECT id, -{by} FROM o",
        None,
    ),
    ("DELETE FROM owners WHERE id IN (SELECT id FROM owners ORDER BY id LIMIT 3)", None),
    ("COPY b FROM PROGRAM 'printf \"{one},{by}\\n{two},-{by}\\n\"' (FORMAT csv)", None),
];

/// One session that writes, and a second one that ends what it prepares.
pub struct Writer<'a> {
    pub shared: &'a Shared,
    pub number: usize,
    pub random: Random,
    pub client: Client,
    pub other: Client,
    pub prepared: u64,
}

impl Writer<'_> {
    /// Bursts and pauses: both commits close to each other and results that live long enough to be used.
    pub fn work(mut self) {
        while !self.shared.is_over() {
            match self.transaction() {
                Ok(committed) => self.shared.count_write(committed),
                Err(error) => {
                    self.shared.expect(&error);
                    let _ = self.client.batch_execute("ROLLBACK");
                    self.shared.count_write(false);
                }
            }
            if !self.random.one_in(4) {
                self.shared.let_read(self.random.below(200));
            }
        }
    }

    fn transaction(&mut self) -> Result<bool, Error> {
        let counts = self.random.one_in(2);
        self.client.batch_execute("BEGIN")?;
        let mut whole = true;
        for _ in 0..1 + self.random.below(2) {
            whole &= self.step()?;
            // A half move shows in what the transaction reads.
            if whole && self.random.one_in(3) {
                let number = self.random.below(QUERIES.len() as u64) as usize;
                compare_text(self.shared, &mut self.client, number)?;
            }
        }
        if counts {
            self.client.batch_execute(&format!("UPDATE gen SET n = n + 1 WHERE writer = {}", self.number))?;
        }
        if !whole || self.random.one_in(8) {
            self.client.batch_execute("ROLLBACK")?;
            return Ok(false);
        }
        let committed = self.commit()?;
        if committed && counts {
            self.shared.published[self.number].fetch_add(1, SeqCst);
        }
        Ok(committed)
    }

    /// A move, or one in a subtransaction that is kept or undone. `false`: it moved a half.
    fn step(&mut self) -> Result<bool, Error> {
        match self.random.below(6) {
            0 => {
                self.client.batch_execute("SAVEPOINT s")?;
                self.move_once()?;
                self.client.batch_execute("ROLLBACK TO s").map(|()| true)
            }
            1 => {
                self.client.batch_execute("SAVEPOINT s")?;
                let whole = self.move_once()?;
                self.client.batch_execute("RELEASE s").map(|()| whole)
            }
            2 => {
                let (one, two, by) = self.three();
                let mut copy = self.client.copy_in("COPY b FROM STDIN (FORMAT csv)")?;
                // A failed write shows when the copy is finished.
                let _ = write!(copy, "{one},{by}\n{two},-{by}\n");
                copy.finish().map(|_| true)
            }
            _ => self.move_once(),
        }
    }

    fn three(&mut self) -> (u64, u64, u64) {
        let one = self.random.below(50);
        (one, (one + 1 + self.random.below(49)) % 50, 1 + self.random.below(20))
    }

    fn move_once(&mut self) -> Result<bool, Error> {
        let (one, two, by) = self.three();
        let (sql, needs) = MOVES[self.random.below(MOVES.len() as u64) as usize];
        let sql = sql.replace("{one}", &one.to_string()).replace("{two}", &two.to_string());
        let sql = sql.replace("{by}", &by.to_string());
        match needs {
            Some(rows) => self.client.execute(&sql, &[]).map(|count| count == rows),
            None => self.client.batch_execute(&sql).map(|()| true),
        }
    }

    /// Commits, or prepares and lets the other session decide.
    fn commit(&mut self) -> Result<bool, Error> {
        if !self.random.one_in(5) {
            return self.client.batch_execute("COMMIT").map(|()| true);
        }
        self.prepared += 1;
        let name = format!("{}_{}", self.number, self.prepared);
        self.client.batch_execute(&format!("PREPARE TRANSACTION '{name}'"))?;
        if self.random.one_in(2) {
            std::thread::sleep(Duration::from_micros(self.random.below(5_000)));
        }
        let commits = !self.random.one_in(4);
        let end = if commits { "COMMIT" } else { "ROLLBACK" };
        self.other.batch_execute(&format!("{end} PREPARED '{name}'"))?;
        Ok(commits)
    }
}

/// Ways to make a query answer with the next number; the queries of the same place are in `DEFINED`.
const DEFINE: &[&str] = &[
    "BEGIN; TRUNCATE gen_truncated; INSERT INTO gen_truncated VALUES ({n}); COMMIT",
    "BEGIN; CREATE TABLE gen_part_{n} (n int); INSERT INTO gen_part_{n} VALUES ({n}); COMMIT;
     ALTER TABLE gen_parts ATTACH PARTITION gen_part_{n} FOR VALUES IN ({n})",
    "UPDATE gen_base SET n = {n}; REFRESH MATERIALIZED VIEW gen_view",
    "UPDATE gen_base SET n = {n}; REFRESH MATERIALIZED VIEW CONCURRENTLY gen_view",
    "CREATE OR REPLACE FUNCTION gen_function() RETURNS int LANGUAGE sql STABLE AS 'SELECT {n}'",
    "BEGIN; CREATE TABLE gen_next AS SELECT {n} AS n; DROP TABLE gen_swapped; ALTER TABLE gen_next RENAME TO gen_swapped; COMMIT",
];

/// What a definer writes and which query shows it.
pub const DEFINED: &[&str] = &[
    "SELECT max(n) AS n FROM gen_truncated",
    "SELECT max(n) AS n FROM gen_parts",
    "SELECT max(n) AS n FROM gen_view",
    "SELECT max(n) AS n FROM gen_view",
    "SELECT max(n + gen_function()) AS n FROM gen_zero",
    "SELECT max(n) AS n FROM gen_swapped",
];

/// Counts up what each query of `DEFINED` answers.
pub struct Definer<'a> {
    pub shared: &'a Shared,
    pub random: Random,
    pub client: Client,
}

impl Definer<'_> {
    pub fn work(mut self) {
        let mut last = [0u32; DEFINE.len()];
        while !self.shared.is_over() {
            let way = self.random.below(DEFINE.len() as u64) as usize;
            // Two ways lead to the materialized view.
            let place = if way == 3 { 2 } else { way };
            let next = last[place] + 1;
            let sql = DEFINE[way].replace("{n}", &next.to_string());
            self.define(&sql, place, next, &mut last);
            if way == 1 && next > 3 {
                let old = next - 3;
                let sql = format!("ALTER TABLE gen_parts DETACH PARTITION gen_part_{old}");
                let _ = self.client.batch_execute(&sql);
                let _ = self.client.batch_execute(&format!("DROP TABLE gen_part_{old}"));
            }
            self.shared.let_read(self.random.below(400));
        }
    }

    fn define(&mut self, sql: &str, place: usize, next: u32, last: &mut [u32]) {
        match self.client.batch_execute(sql) {
            Ok(()) => {
                last[place] = next;
                self.shared.defined[place].store(next, SeqCst);
                self.shared.definitions.fetch_add(1, Relaxed);
            }
            Err(error) => {
                self.shared.expect(&error);
                let _ = self.client.batch_execute("ROLLBACK");
            }
        }
    }
}
