//! The flight recorder: every change of record, on disk, so that it can be asked long afterwards who had what.
//!
//! In: the recent changes, and the inventory where those do not suffice. Out: rows (`store`), which `history` reads
//! ([`history`]), and a [`JournalState`]. Nothing is written while nothing changes. Where the file cannot be written,
//! recording stops and says so, and everything else goes on; it resumes by itself.
//!
//! What is recorded are sources that have been read in this run. When one is read for the first time, or the recorder
//! could not keep pace or could not write, the whole present is compared with what is written, and what differs is marked
//! as found: it came about at some time since.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::store::{Entry, JournalError, Store};
use crate::{
    config::JournalConfig,
    health::{Health, Part},
    inventory::{
        Hypervisor, Inventory,
        recent::{Position, Read, Recent},
        record::{self, Record, SourceFacts, SourceState},
    },
    source::{SyncState, chain, now},
};

pub mod history;
mod store;

/// Whether changes are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JournalState {
    /// The configuration names no file, this is a daemon for one question, or nothing is known yet.
    #[default]
    Off,
    /// They are.
    Recording,
    /// They are not, although they should.
    Stopped {
        /// Since when.
        #[schemars(with = "String", extend("format" = "date-time"))]
        since: Timestamp,
        /// Why.
        reason: Arc<str>,
    },
}

/// Records until `stop`.
pub async fn run(
    config: JournalConfig,
    inventory: watch::Receiver<Arc<Inventory>>,
    mut recent: Recent,
    state: watch::Sender<JournalState>,
    health: Health,
    stop: CancellationToken,
) {
    let mut recorder = Recorder::new(config, recent.clone());
    let mut seen = 0;
    loop {
        let newest = Arc::clone(&inventory.borrow());
        // What the inventory says must be among the changes, or a comparison would be repeated by them.
        if stop.run_until_cancelled(recent.beyond(newest.generation.saturating_sub(1))).await.is_none() {
            break;
        }
        seen = recent.newest().max(seen);
        let worked = spawn_blocking(move || {
            let outcome = recorder.record(&newest);
            (recorder, outcome)
        });
        // The blocking thread does not panic on any input; should it, the daemon stops, and systemd starts a fresh one.
        let Ok((returned, outcome)) = worked.await else { return };
        recorder = returned;
        tell(&state, &health, outcome);
        if stop.run_until_cancelled(sleep(PAUSE)).await.is_none() {
            break;
        }
        let failing = matches!(*state.borrow(), JournalState::Stopped { .. });
        tokio::select! {
            // Where it failed, each attempt would write a little and fail again.
            () = recent.beyond(seen), if !failing => {}
            () = sleep(RETRY), if failing => {}
            () = stop.cancelled() => break,
        }
    }
    let newest = Arc::clone(&inventory.borrow());
    let _ = spawn_blocking(move || {
        let _ = recorder.record(&newest);
        recorder.end("stopped");
    })
    .await;
}

/// Logs a change of the condition, and publishes it.
fn tell(state: &watch::Sender<JournalState>, health: &Health, outcome: Result<bool, JournalError>) {
    let trouble = outcome.as_ref().err().map(|error| chain(error));
    health.tell(Part::Journal, trouble.as_deref());
    state.send_if_modified(|state| {
        match (&*state, outcome) {
            (_, Ok(false)) | (JournalState::Recording, Ok(true)) | (JournalState::Stopped { .. }, Err(_)) => {
                return false;
            }
            (JournalState::Off, Ok(true)) => info!("recording changes"),
            (JournalState::Stopped { since, .. }, Ok(true)) => info!(%since, "recording changes again"),
            (_, Err(error)) => {
                let reason: Arc<str> = chain(&error).into();
                warn!(%reason, "changes are not recorded until this is mended; answering goes on");
                *state = JournalState::Stopped { since: now(), reason };
                return true;
            }
        }
        *state = JournalState::Recording;
        true
    });
}

/// What writes, on a blocking thread.
struct Recorder {
    config: JournalConfig,
    recent: Recent,
    store: Option<Store>,
    /// How a span ended that is still open in the file.
    ended: String,
    /// Everything up to here is written.
    position: Option<Position>,
    known: Known,
}

impl Recorder {
    fn new(config: JournalConfig, recent: Recent) -> Self {
        Self { config, recent, store: None, ended: "killed".to_owned(), position: None, known: Known::default() }
    }

    /// Says whether it records yet.
    fn record(&mut self, inventory: &Inventory) -> Result<bool, JournalError> {
        let result = self.try_record(inventory);
        if let Err(error) = &result {
            // Another attempt begins from the file.
            self.ended = format!("failed: {}", chain(error));
            if let Some(mut store) = self.store.take() {
                let _ = store.end_span(&self.ended);
            }
            self.position = None;
        }
        result
    }

    fn try_record(&mut self, inventory: &Inventory) -> Result<bool, JournalError> {
        if self.store.is_none() && !inventory.is_decided() {
            // The ids of VIFs and their devices would change as soon as the next source is read.
            return Ok(false);
        }
        let store = match &mut self.store {
            Some(store) => store,
            store => store.insert(Store::open(&self.config, &self.ended)?),
        };
        let known = self.known.with(inventory);
        let mut compare = known != self.known;
        self.known = known;
        while let (Some(position), false) = (self.position, compare) {
            let Read::Events(events, next) = self.recent.read(position) else {
                compare = true;
                break;
            };
            let entries: Vec<_> = events
                .iter()
                .filter(|event| event.change.records().all(|record| self.known.has(record)))
                .map(|event| Entry {
                    time: event.time,
                    found: event.change.found,
                    before: event.change.before.as_deref().cloned(),
                    after: event.change.after.as_deref().cloned(),
                })
                .collect();
            store.write(&entries)?;
            self.position = Some(next);
            if events.is_empty() {
                break;
            }
        }
        if compare || self.position.is_none() {
            let known = |record: &Record| self.known.has(record);
            store.write(&store::reconcile(store.present()?, record::all(inventory), known))?;
            self.position = Some(Position::after(inventory.generation));
        }
        self.sources(inventory)?;
        Ok(true)
    }

    /// Records which sources are not kept current.
    fn sources(&mut self, inventory: &Inventory) -> Result<(), JournalError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let mut written = store.lost()?;
        let mut entries = Vec::new();
        for after in lost(inventory, &self.known) {
            match written.remove(&after.source) {
                Some(before) if before.state == after.state => {}
                before => entries.push((before, Some(after))),
            }
        }
        entries.extend(written.into_values().map(|before| (Some(before), None)));
        let entries = entries.into_iter().map(|(before, after)| Entry {
            time: now(),
            found: false,
            before: before.map(Record::Source),
            after: after.map(Record::Source),
        });
        store.write(&entries.collect::<Vec<_>>())
    }

    fn end(mut self, why: &str) {
        if let Some(mut store) = self.store.take()
            && let Err(error) = store.end_span(why)
        {
            warn!(error = chain(&error), "the end of this run is not recorded");
        }
    }
}

/// The sources that are not kept current, or have never been read in this run.
fn lost(inventory: &Inventory, known: &Known) -> Vec<SourceFacts> {
    let optional_listed = inventory.hypervisors.iter().any(|h| h.optional && !h.sync.is_pending());
    let missed = |h: &&Hypervisor| h.optional && optional_listed && h.sync.is_pending();
    let missed: Vec<_> = inventory.hypervisors.iter().filter(missed).map(|h| &*h.uri).collect();
    let facts = record::sources(inventory).filter(|(name, _)| !missed.contains(name)).map(|(name, sync)| {
        let mut facts = SourceFacts::of(name, sync);
        if facts.state == SourceState::Stale && !known.0.iter().any(|known| **known == *name) {
            facts.state = SourceState::Pending;
        }
        facts
    });
    facts.filter(|facts| matches!(facts.state, SourceState::Stale | SourceState::Pending)).collect()
}

/// The sources that have been current in this run.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known(Vec<Arc<str>>);

impl Known {
    fn with(&self, inventory: &Inventory) -> Self {
        let mut known = self.clone();
        for (name, sync) in record::sources(inventory) {
            let read = matches!(sync, SyncState::Synced { .. } | SyncState::Absent);
            if read && !known.0.iter().any(|known| **known == *name) {
                known.0.push(name.into());
            }
        }
        known
    }

    /// Whether everything that a record depends on has been read.
    fn has(&self, record: &Record) -> bool {
        let has = |name: &str| self.0.iter().any(|known| **known == *name);
        match record {
            Record::Device(_) => has("netlink"),
            Record::Port(_) => has("ovsdb"),
            Record::Instance(facts) => has(&facts.instance.hypervisor),
            // An Open vSwitch that cannot be read is not waited for.
            Record::Vif(facts) => has(&facts.instance.hypervisor) && has("netlink"),
            // They are recorded by what is lost.
            Record::Source(_) => false,
        }
    }
}

/// How long changes are gathered: a storm is ten writes a second.
const PAUSE: Duration = Duration::from_millis(100);
/// When to try again: the disk was full and has space again.
const RETRY: Duration = Duration::from_secs(10);
