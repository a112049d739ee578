//! Reading the journal: who had what at a moment, and what happened to it. The reader has a connection of its own, and
//! the daemon that writes need not run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::{
    JournalState,
    store::{APPLICATION, VERSION, hash},
};
use crate::{
    inventory::{
        changes::Change,
        record::{Record, SourceFacts, normal},
    },
    source::now,
};

/// What somebody wants to know.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of which thing.
    pub thing: String,
    /// What it was at this moment.
    pub at: Option<Timestamp>,
    /// What happened to it from here on.
    pub since: Option<Timestamp>,
    /// And until then.
    pub until: Option<Timestamp>,
    /// So many changes at most, the newest ones.
    pub limit: usize,
}

/// What the journal knows of a thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// What was asked about, in its usual form.
    pub thing: String,
    /// What it was at the moment that was asked for; none where a time was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
    /// What happened to it, in order; none where a moment was asked for.
    pub changes: Vec<PastChange>,
    /// There are more, older ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// When vifd recorded, in order. Of the times between, nothing is known.
    pub recorded: Vec<Span>,
}

/// What was known at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// The moment.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Every time that the wall clock showed it while vifd recorded: once, or twice where the clock was set back. Empty
    /// where that is not known.
    pub known: Vec<State>,
}

/// What matched at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// The records that matched; none if there was no such thing.
    pub records: Vec<PastRecord>,
    /// The sources that were not kept current at the time: what they had said may have changed already.
    pub doubts: Vec<SourceFacts>,
}

/// What something was like for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastRecord {
    /// What it was like.
    #[serde(flatten)]
    pub record: Record,
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// It was found like that: it may have been so earlier.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub since_found: bool,
    /// Until when; absent if it is still so as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
    /// It was found otherwise: it may have ended earlier.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_found: bool,
}

/// A change of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastChange {
    /// When it was seen.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// What has changed.
    #[serde(flatten)]
    pub change: Change,
}

/// A time in which vifd recorded and the wall clock went steadily.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    /// From when on.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Until when; absent of the present one, while vifd records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
    /// How it ended: `stopped`, `killed` (then it is known until the last change only), `clock` (it was set), or `failed`
    /// and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is none.
    #[error("there is no journal at {}", .0.display())]
    None(PathBuf),
    /// It is not one that this version can read.
    #[error("{} is no journal of this version", .0.display())]
    Other(PathBuf),
    /// SQLite says so.
    #[error("{} cannot be read", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

/// Reads the journal at `path`. `recording` says that it is being written now, by this process.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path, recording: bool, question: &Question) -> Result<History, HistoryError> {
    if !path.exists() {
        return Err(HistoryError::None(path.to_owned()));
    }
    let failed = |source| HistoryError::Sqlite { path: path.to_owned(), source };
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    db.busy_timeout(BUSY).map_err(failed)?;
    let header = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let own = (header("application_id").map_err(failed)?, header("user_version").map_err(failed)?);
    if own != (APPLICATION, VERSION) {
        return Err(HistoryError::Other(path.to_owned()));
    }
    // One moment of the file, whatever is written meanwhile.
    db.execute_batch("BEGIN").map_err(failed)?;
    let reader = Reader { db, recording, thing: normal(&question.thing) };
    reader.answer(question).map_err(failed)
}

struct Reader {
    db: Connection,
    recording: bool,
    thing: String,
}

/// A row of the table `record`.
#[derive(Clone, Debug)]
struct PastRow {
    id: i64,
    subject: String,
    record: Record,
    from: (i64, Timestamp, bool),
    to: Option<(i64, Timestamp, bool)>,
}

/// A row of the table `span`.
struct SpanRow {
    id: i64,
    from_seq: i64,
    span: Span,
}

impl Reader {
    fn answer(&self, question: &Question) -> rusqlite::Result<History> {
        let spans = self.spans()?;
        let rows = self.rows_of_thing()?;
        let at = match question.at {
            Some(time) => Some(Moment { time, known: self.states(time, &spans, &rows)? }),
            None => None,
        };
        let (mut changes, mut more) = (Vec::new(), false);
        if at.is_none() {
            changes = self.changes(&rows)?;
            changes.retain(|past| {
                question.since.is_none_or(|since| past.time >= since)
                    && question.until.is_none_or(|until| past.time <= until)
            });
            more = changes.len() > question.limit;
            changes.drain(..changes.len().saturating_sub(question.limit));
        }
        let recorded = spans.into_iter().map(|row| row.span).collect();
        Ok(History { thing: self.thing.clone(), at, changes, more, recorded })
    }

    fn spans(&self) -> rusqlite::Result<Vec<SpanRow>> {
        let query = "SELECT id, from_seq, from_time, to_time, ended,
                     (SELECT max(time) FROM batch WHERE span = span.id) FROM span ORDER BY id";
        let mut statement = self.db.prepare(query)?;
        let mut spans: Vec<_> = statement
            .query_map([], |row| {
                let last: Option<i64> = row.get(5)?;
                let ended: Option<String> = row.get(4)?;
                let until = row.get::<_, Option<i64>>(3)?.or(last);
                let span = Span { since: time(row.get(2)?), until: until.map(time), ended };
                Ok(SpanRow { id: row.get(0)?, from_seq: row.get(1)?, span })
            })?
            .collect::<rusqlite::Result<_>>()?;
        if let Some(SpanRow { span, .. }) = spans.last_mut().filter(|row| row.span.ended.is_none()) {
            if self.recording {
                span.until = None;
            } else {
                span.ended = Some("killed".to_owned());
            }
        }
        Ok(spans)
    }

    /// What is found by the thing, the newest first.
    fn rows_of_thing(&self) -> rusqlite::Result<Vec<PastRow>> {
        let query = format!(
            "SELECT {COLUMNS} FROM record JOIN key ON key.record = record.id WHERE key.hash = ?1
             ORDER BY from_seq DESC LIMIT {MOST}"
        );
        let mut statement = self.db.prepare(&query)?;
        let rows = statement.query_map([hash(&self.thing)], PastRow::of)?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        // Others may have a key with the same hash.
        Ok(rows.into_iter().flatten().filter(|row| row.record.keys().contains(&self.thing)).collect())
    }

    fn states(&self, wanted: Timestamp, spans: &[SpanRow], rows: &[PastRow]) -> rusqlite::Result<Vec<State>> {
        let mut states = Vec::new();
        for SpanRow { id, from_seq, span } in spans {
            if wanted < span.since || wanted > span.until.unwrap_or_else(now) {
                continue;
            }
            let query = "SELECT max(seq) FROM batch WHERE span = ?1 AND time <= ?2";
            let seq: Option<i64> = self.db.query_row(query, params![id, wanted.as_millisecond()], |row| row.get(0))?;
            let seq = seq.unwrap_or(*from_seq);
            let records = rows.iter().filter(|row| row.is_at(seq)).map(PastRow::told).collect();
            let state = State { records, doubts: self.doubts(seq)? };
            if !states.contains(&state) {
                states.push(state);
            }
        }
        Ok(states)
    }

    /// The sources that were lost then.
    fn doubts(&self, seq: i64) -> rusqlite::Result<Vec<SourceFacts>> {
        let query = format!(
            "SELECT {COLUMNS} FROM record WHERE subject >= 'source ' AND subject < 'source!'
             AND from_seq <= ?1 AND (to_seq IS NULL OR to_seq > ?1)"
        );
        let mut statement = self.db.prepare(&query)?;
        let rows = statement.query_map([seq], PastRow::of)?.collect::<rusqlite::Result<Vec<_>>>()?;
        let facts = rows.into_iter().flatten().filter_map(|row| match row.record {
            Record::Source(facts) => Some(facts),
            _ => None,
        });
        Ok(facts.collect())
    }

    /// What led to each row, and what ended it: in order, each once.
    fn changes(&self, rows: &[PastRow]) -> rusqlite::Result<Vec<PastChange>> {
        let mut changes = BTreeMap::new();
        for row in rows {
            let (seq, ..) = row.from;
            let before = self.neighbour(row, "to_seq", seq)?;
            changes.insert((seq, row.id), (row.from, before, Some(row.clone())));
            if let Some(to) = row.to {
                let after = self.neighbour(row, "from_seq", to.0)?;
                let key = after.as_ref().map_or((to.0, row.id), |after| (to.0, after.id));
                changes.insert(key, (to, Some(row.clone()), after));
            }
        }
        let told = changes.into_values().map(|((_, time, found), before, after)| {
            let record = |row: Option<PastRow>| row.map(|row| row.record);
            PastChange { time, change: Change { found, ..Change::new(record(before), record(after)) } }
        });
        Ok(told.collect())
    }

    /// The row of the same thing that ends or begins where this one begins or ends.
    fn neighbour(&self, row: &PastRow, column: &str, seq: i64) -> rusqlite::Result<Option<PastRow>> {
        let query = format!("SELECT {COLUMNS} FROM record WHERE subject = ?1 AND {column} = ?2 AND id <> ?3 LIMIT 1");
        let mut statement = self.db.prepare_cached(&query)?;
        let found = statement.query_row(params![row.subject, seq, row.id], PastRow::of).optional()?;
        Ok(found.flatten())
    }
}

const COLUMNS: &str = "record.id, subject, body, from_seq, from_time, from_found, to_seq, to_time, to_found";
/// So many rows are looked at for one thing, at most.
const MOST: usize = 10_000;
const BUSY: Duration = Duration::from_secs(2);

impl PastRow {
    /// Nothing for a row that another version wrote and this one does not understand.
    fn of(row: &Row) -> rusqlite::Result<Option<Self>> {
        let to: Option<i64> = row.get(6)?;
        let to = match to {
            Some(seq) => Some((seq, time(row.get(7)?), row.get(8)?)),
            None => None,
        };
        let Ok(record) = serde_json::from_str(&row.get::<_, String>(2)?) else { return Ok(None) };
        let from = (row.get(3)?, time(row.get(4)?), row.get(5)?);
        Ok(Some(Self { id: row.get(0)?, subject: row.get(1)?, record, from, to }))
    }

    fn is_at(&self, seq: i64) -> bool {
        self.from.0 <= seq && self.to.is_none_or(|(to, ..)| to > seq)
    }

    fn told(&self) -> PastRecord {
        PastRecord {
            record: self.record.clone(),
            since: self.from.1,
            since_found: self.from.2,
            until: self.to.map(|(_, time, _)| time),
            until_found: self.to.is_some_and(|(.., found)| found),
        }
    }
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

/// The journal, for whoever answers questions.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The file; empty where there is to be none.
    pub path: Arc<Path>,
    /// Whether it is being written.
    pub state: watch::Receiver<JournalState>,
    /// So many questions are answered at a time, so that they cannot take every thread; others wait.
    pub places: Arc<Semaphore>,
}

impl Journal {
    /// The journal in this file.
    #[must_use]
    pub fn new(path: &Path, state: watch::Receiver<JournalState>) -> Self {
        Self { path: path.into(), state, places: Arc::new(Semaphore::new(QUESTIONS)) }
    }
}

const QUESTIONS: usize = 4;
