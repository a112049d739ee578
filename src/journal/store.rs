//! The file: an SQLite database, which survives whatever happens to the process that writes it.
//!
//! Each record is a row that says from when to when it was so; the present ones are open. What is deleted for being old are
//! rows that have ended, so that the oldest moment that is kept can still be told of whole.
//!
//! The order of everything is a number, `seq`. The wall clock may be set: times are compared only within a *span*, which is a
//! time without interruption, in which vifd recorded and the clock went steadily. Between spans nothing is known.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};
use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::{
    config::JournalConfig,
    inventory::record::{Record, SourceFacts},
    source::{chain, now},
};

/// "vifd", in the file's header.
pub(super) const APPLICATION: i32 = 0x7669_6664;
/// Grows when an older vifd could no longer make sense of the rows.
pub(super) const VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE span (
        id INTEGER PRIMARY KEY, version TEXT NOT NULL, from_seq INTEGER NOT NULL, from_time INTEGER NOT NULL,
        to_time INTEGER, ended TEXT
    );
    CREATE TABLE batch (seq INTEGER PRIMARY KEY, span INTEGER NOT NULL, time INTEGER NOT NULL);
    CREATE TABLE record (
        id INTEGER PRIMARY KEY, subject TEXT NOT NULL, body TEXT NOT NULL,
        from_seq INTEGER NOT NULL, from_time INTEGER NOT NULL, from_found INTEGER NOT NULL,
        to_seq INTEGER, to_time INTEGER, to_found INTEGER
    );
    CREATE INDEX record_by_subject ON record (subject, from_seq);
    CREATE INDEX record_by_end ON record (to_seq) WHERE to_seq IS NOT NULL;
    CREATE INDEX record_present ON record (subject) WHERE to_seq IS NULL;
    CREATE TABLE key (hash INTEGER NOT NULL, record INTEGER NOT NULL, PRIMARY KEY (hash, record)) WITHOUT ROWID;
";

/// Why the journal cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite says so.
    #[error("{}: {what}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system says so.
    #[error("{}: could not be made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record of ours that cannot be written, which is a bug.
    #[error("a record cannot be written")]
    Record(#[source] serde_json::Error),
    /// There is no room even for the present.
    #[error("what is there now alone takes more than journal.max_size")]
    TooSmall,
}

/// What a thing is, or no longer is.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) time: Timestamp,
    pub(super) found: bool,
    pub(super) before: Option<Record>,
    pub(super) after: Option<Record>,
}

/// The file, open for writing, and the span that is being written.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    db: Connection,
    config: JournalConfig,
    span: i64,
    /// The last of everything.
    seq: i64,
    /// The last time that was written.
    time: i64,
    /// The wall clock without the time since the host's start: what changes only if somebody sets the clock.
    clock: SignedDuration,
    /// Writes since old rows were looked for.
    writes: u32,
}

impl Store {
    /// Opens the file or makes it. One that is damaged or of another version is put aside. If a span was left open there,
    /// it has ended at what was last written, and `why`.
    pub(super) fn open(config: &JournalConfig, why: &str) -> Result<Self, JournalError> {
        let path = &config.path;
        match Self::try_open(config, why) {
            Err(JournalError::Sqlite { source, .. }) if is_damage(&source) => {
                let reason = source.to_string();
                set_aside(path, "damaged").map_err(|source| JournalError::File { path: path.clone(), source })?;
                warn!(path = %path.display(), reason, "the journal was damaged and is kept as .damaged; beginning a new one");
                Self::try_open(config, why)
            }
            opened => opened,
        }
    }

    fn try_open(config: &JournalConfig, why: &str) -> Result<Self, JournalError> {
        let path = &config.path;
        // Names and addresses of tenants: for the daemon's own eyes. SQLite's other files get the same mode.
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|source| JournalError::File { path: path.clone(), source })?;
        let failed = |what| move |source| JournalError::Sqlite { path: path.clone(), what, source };
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed("open"))?;
        db.busy_timeout(BUSY).map_err(failed("open"))?;
        let header = |name| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
        let (application, version) =
            (header("application_id").map_err(failed("read"))?, header("user_version").map_err(failed("read"))?);
        let new = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        let new = new.map_err(failed("read"))? == 0;
        if !new && (application, version) != (APPLICATION, VERSION) {
            drop(db);
            set_aside(path, "other").map_err(|source| JournalError::File { path: path.clone(), source })?;
            warn!(path = %path.display(), version, "the journal is of another version and is kept as .other; beginning a new one");
            return Self::try_open(config, why);
        }
        // What is logged ahead of the file is a sixteenth of the whole at most, give or take one write.
        let ahead = (config.max_size / 16).clamp(PAGE * 16, 4 << 20);
        let pages = ahead / PAGE;
        let setup = format!(
            "PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = {pages}; PRAGMA journal_size_limit = {ahead};
             PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY;"
        );
        db.execute_batch(&setup).map_err(failed("set up"))?;
        if new {
            let header = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};");
            db.execute_batch(&format!("BEGIN; {SCHEMA} {header} COMMIT;")).map_err(failed("set up"))?;
        }
        let check =
            db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)).map_err(failed("check"))?;
        if check != "ok" {
            let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(failed("check")(rusqlite::Error::SqliteFailure(damage, Some(check))));
        }
        let last = "SELECT coalesce(max(seq), 0) FROM batch";
        let seq = db.query_row(last, [], |row| row.get(0)).map_err(failed("read"))?;
        let mut store =
            Self { path: path.clone(), db, config: config.clone(), span: 0, seq, time: 0, clock: clock(), writes: 0 };
        store.begin_span(why)?;
        Ok(store)
    }

    fn begin_span(&mut self, why: &str) -> Result<(), JournalError> {
        let (time, seq) = (now().as_millisecond(), self.seq + 1);
        let begin = |tx: &Transaction| {
            tx.execute(
                "UPDATE span SET ended = ?1, to_time = (SELECT max(time) FROM batch WHERE span = span.id)
                 WHERE ended IS NULL",
                [why],
            )?;
            let values = params![env!("CARGO_PKG_VERSION"), seq, time];
            tx.execute("INSERT INTO span (version, from_seq, from_time) VALUES (?1, ?2, ?3)", values)?;
            let span = tx.last_insert_rowid();
            tx.execute("INSERT INTO batch (seq, span, time) VALUES (?1, ?2, ?3)", params![seq, span, time])?;
            Ok(span)
        };
        self.span = self.transaction("begin", begin)?;
        (self.seq, self.time, self.clock) = (seq, time, clock());
        Ok(())
    }

    /// Says that recording ends now, and why: until now everything was recorded.
    pub(super) fn end_span(&mut self, why: &str) -> Result<(), JournalError> {
        let (span, time) = (self.span, now().as_millisecond().max(self.time));
        self.transaction("end", |tx| {
            tx.execute("UPDATE span SET to_time = ?1, ended = ?2 WHERE id = ?3", params![time, why, span])
        })?;
        Ok(())
    }

    fn transaction<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let result = self.db.transaction().and_then(|tx| {
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        result.map_err(|source| JournalError::Sqlite { path: self.path.clone(), what, source })
    }

    /// Writes what has changed, in its order.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        if entries.is_empty() {
            return Ok(());
        }
        if (clock() - self.clock).abs() > STEP {
            // So far by the old clock.
            let old = now().as_millisecond() - i64::try_from((clock() - self.clock).as_millis()).unwrap_or_default();
            let (span, old) = (self.span, old.max(self.time));
            self.transaction("end", |tx| {
                tx.execute("UPDATE span SET to_time = ?1, ended = 'clock' WHERE id = ?2", params![old, span])
            })?;
            self.begin_span("clock")?;
        }
        for entries in entries.chunks(AT_ONCE) {
            let (span, mut seq, mut time) = (self.span, self.seq, self.time);
            let bodies: Result<Vec<_>, _> = entries.iter().map(Bodies::of).collect();
            let bodies = bodies.map_err(JournalError::Record)?;
            (seq, time) = self.transaction("write", |tx| {
                for (entry, bodies) in entries.iter().zip(&bodies) {
                    let at = entry.time.as_millisecond().max(time);
                    if at > time || seq == 0 {
                        time = at;
                    }
                    // Every change has its number, so that what is told of it is whole.
                    seq += 1;
                    let batch = params![seq, span, time];
                    tx.prepare_cached("INSERT INTO batch (seq, span, time) VALUES (?1, ?2, ?3)")?.execute(batch)?;
                    entry.write(tx, bodies, seq, time)?;
                }
                Ok((seq, time))
            })?;
            (self.seq, self.time) = (seq, time);
            self.keep_small()?;
        }
        self.writes += 1;
        if self.writes % LOOK_EVERY == 1 {
            self.drop_old()?;
        }
        Ok(())
    }

    /// What is written of the present: the id, subject and body of each open row.
    pub(super) fn present(&self) -> Result<HashMap<String, Vec<Record>>, JournalError> {
        let failed = |source| JournalError::Sqlite { path: self.path.clone(), what: "read", source };
        let query = "SELECT body FROM record WHERE to_seq IS NULL";
        let mut statement = self.db.prepare(query).map_err(failed)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
        let mut present: HashMap<String, Vec<Record>> = HashMap::new();
        for row in rows {
            // One that is not understood is of another vifd; it stays as it is.
            if let Ok(record) = serde_json::from_str::<Record>(&row.map_err(failed)?) {
                present.entry(record.subject()).or_default().push(record);
            }
        }
        Ok(present)
    }

    /// The sources that are written as not kept current.
    pub(super) fn lost(&self) -> Result<BTreeMap<Arc<str>, SourceFacts>, JournalError> {
        let failed = |source| JournalError::Sqlite { path: self.path.clone(), what: "read", source };
        let query = "SELECT body FROM record WHERE to_seq IS NULL AND subject >= 'source ' AND subject < 'source!'";
        let mut statement = self.db.prepare_cached(query).map_err(failed)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
        let mut lost = BTreeMap::new();
        for row in rows {
            if let Ok(Record::Source(facts)) = serde_json::from_str(&row.map_err(failed)?) {
                lost.insert(Arc::clone(&facts.source), facts);
            }
        }
        Ok(lost)
    }

    /// Deletes what ended longer ago than is kept.
    fn drop_old(&mut self) -> Result<(), JournalError> {
        let age = SignedDuration::try_from(self.config.max_age).unwrap_or(SignedDuration::MAX);
        let Ok(oldest) = now().checked_sub(age) else { return Ok(()) };
        let kept = "SELECT seq FROM batch WHERE time >= ?1 ORDER BY seq LIMIT 1";
        let kept = self.db.query_row(kept, [oldest.as_millisecond()], |row| row.get(0)).optional();
        let kept = kept.map_err(|source| JournalError::Sqlite { path: self.path.clone(), what: "read", source })?;
        match kept {
            Some(seq) => self.drop_before(seq),
            None => Ok(()),
        }
    }

    /// Deletes the oldest that has ended until there is room.
    fn keep_small(&mut self) -> Result<(), JournalError> {
        // The rest is for what is logged ahead of the file, which a large write makes longer for a while.
        let most = self.config.max_size / 4 * 3;
        while self.size()? > most {
            let path = self.path.clone();
            let failed = |source| JournalError::Sqlite { path: path.clone(), what: "read", source };
            // A tenth of what has ended.
            let ended = "SELECT count(*) FROM record WHERE to_seq IS NOT NULL";
            let ended: i64 = self.db.query_row(ended, [], |row| row.get(0)).map_err(failed)?;
            if ended == 0 {
                return Err(JournalError::TooSmall);
            }
            let last = "SELECT to_seq FROM record WHERE to_seq IS NOT NULL ORDER BY to_seq LIMIT 1 OFFSET ?1";
            let last: i64 = self.db.query_row(last, [(ended / 10).min(ended - 1)], |row| row.get(0)).map_err(failed)?;
            self.drop_before(last + 1)?;
            let mut vacuum = self.db.prepare("PRAGMA incremental_vacuum").map_err(failed)?;
            let mut rows = vacuum.query([]).map_err(failed)?;
            while rows.next().map_err(failed)?.is_some() {}
        }
        Ok(())
    }

    /// How large the file is, without what is logged ahead of it.
    fn size(&self) -> Result<u64, JournalError> {
        let pages = self.db.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0));
        let pages = pages.map_err(|source| JournalError::Sqlite { path: self.path.clone(), what: "read", source })?;
        Ok(u64::try_from(pages).unwrap_or_default() * PAGE)
    }

    /// Deletes what had ended before `seq`.
    fn drop_before(&mut self, seq: i64) -> Result<(), JournalError> {
        // The span that is being written keeps its beginning's number in any case.
        let seq = seq.min(self.seq);
        self.transaction("delete old records", |tx| {
            let mut old = tx.prepare_cached("SELECT id, body FROM record WHERE to_seq < ?1")?;
            let old: Vec<(i64, String)> =
                old.query_map([seq], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
            for (id, body) in old {
                let keys = serde_json::from_str::<Record>(&body).map(|record| record.keys()).unwrap_or_default();
                for key in keys {
                    let mut delete = tx.prepare_cached("DELETE FROM key WHERE hash = ?1 AND record = ?2")?;
                    delete.execute(params![hash(&key), id])?;
                }
                tx.prepare_cached("DELETE FROM record WHERE id = ?1")?.execute([id])?;
            }
            tx.execute("DELETE FROM batch WHERE seq < ?1", [seq])?;
            let gone = "DELETE FROM span WHERE id NOT IN (SELECT span FROM batch) AND ended IS NOT NULL";
            tx.execute(gone, [])?;
            tx.execute(
                "UPDATE span SET from_seq = ?1, from_time = (SELECT time FROM batch WHERE seq = ?1)
                 WHERE from_seq < ?1 AND id = (SELECT span FROM batch WHERE seq = ?1)",
                [seq],
            )
        })?;
        Ok(())
    }
}

/// The rows of an entry.
struct Bodies {
    before: Option<(String, String)>,
    after: Option<(String, String)>,
}

impl Bodies {
    fn of(entry: &Entry) -> Result<Self, serde_json::Error> {
        let row = |record: &Record| Ok((record.subject(), serde_json::to_string(record)?));
        Ok(Self {
            before: entry.before.as_ref().map(row).transpose()?,
            after: entry.after.as_ref().map(row).transpose()?,
        })
    }
}

impl Entry {
    fn write(&self, tx: &Transaction, bodies: &Bodies, seq: i64, time: i64) -> rusqlite::Result<()> {
        if let Some((subject, body)) = &bodies.before {
            // The very record if there is one; else, with names of others that have changed since, one of the same thing.
            let mut close = tx.prepare_cached(
                "UPDATE record SET to_seq = ?1, to_time = ?2, to_found = ?3 WHERE id =
                 (SELECT id FROM record WHERE subject = ?4 AND to_seq IS NULL ORDER BY body = ?5 DESC LIMIT 1)",
            )?;
            close.execute(params![seq, time, self.found, subject, body])?;
        }
        if let (Some(record), Some((subject, body))) = (&self.after, &bodies.after) {
            let mut open = tx.prepare_cached(
                "INSERT INTO record (subject, body, from_seq, from_time, from_found) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            open.execute(params![subject, body, seq, time, self.found])?;
            let id = tx.last_insert_rowid();
            for key in record.keys() {
                let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO key (hash, record) VALUES (?1, ?2)")?;
                insert.execute(params![hash(&key), id])?;
            }
        }
        Ok(())
    }
}

/// What leads from what is written of the present to what is so. `known` says of a record whether its source has been read,
/// so that its absence means something; `lost` are the sources that are not kept current.
pub(super) fn reconcile(
    written: HashMap<String, Vec<Record>>,
    present: impl Iterator<Item = Record>,
    known: impl Fn(&Record) -> bool,
) -> Vec<Entry> {
    let time = now();
    let mut written: BTreeMap<_, _> = written.into_iter().collect();
    let mut entries = Vec::new();
    let mut new: Vec<Record> = Vec::new();
    for record in present.filter(&known) {
        let same = written.get_mut(&record.subject()).and_then(|records| {
            let n = records.iter().position(|old| is_same(old, &record))?;
            Some(records.swap_remove(n))
        });
        if same.is_none() {
            new.push(record);
        }
    }
    for after in new {
        let before = written.get_mut(&after.subject()).and_then(Vec::pop);
        entries.push(Entry { time, found: true, before, after: Some(after) });
    }
    for before in written.into_values().flatten().filter(known) {
        entries.push(Entry { time, found: true, before: Some(before), after: None });
    }
    entries
}

/// The same but for names of others, and reasons that are told anew at each attempt.
fn is_same(old: &Record, new: &Record) -> bool {
    match (old, new) {
        (Record::Source(SourceFacts { state: old, .. }), Record::Source(SourceFacts { state: new, .. })) => old == new,
        (Record::Vif(old), Record::Vif(new)) => {
            let mut old = old.clone();
            old.instance = new.instance.clone();
            old == *new
        }
        _ => old == new,
    }
}

/// The same in every version and on every machine.
pub(super) fn hash(key: &str) -> i64 {
    i64::from(crc32fast::hash(key.as_bytes()))
}

fn clock() -> SignedDuration {
    let up = clock_gettime(ClockId::Boottime);
    let up = SignedDuration::new(up.tv_sec, i32::try_from(up.tv_nsec).unwrap_or_default());
    Timestamp::now().as_duration() - up
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames a file that is of no use, over any earlier one, and removes what belongs to it.
fn set_aside(path: &Path, suffix: &str) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    fs::rename(path, with(&format!(".{suffix}")))?;
    for left in ["-wal", "-shm"] {
        if let Err(error) = fs::remove_file(with(left))
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(error = chain(&error), "could not remove what belonged to the journal");
        }
    }
    Ok(())
}

/// As SQLite's own default; the bounds count in it.
const PAGE: u64 = 4096;
/// So many changes are written at once.
const AT_ONCE: usize = 500;
/// Old rows are looked for after so many writes.
const LOOK_EVERY: u32 = 100;
/// A reader may hold the file for a moment.
const BUSY: Duration = Duration::from_secs(2);
/// The clocks are not read at once, and the wall clock is slewed; what is more than this was set.
const STEP: SignedDuration = SignedDuration::from_secs(1);

#[cfg(test)]
mod tests;
