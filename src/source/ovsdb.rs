//! The Open vSwitch database: follows it by its monitor protocol (RFC 7047) and publishes [`Ports`].
//!
//! In: the rows of the tables that say which port is on which bridge, at first all of them, then each that changed, as
//! it is now. Out: [`Snapshot<Ports>`]. Whatever is not understood as a whole, and any silence that lasts too long,
//! ends the session; the next one reads everything again. Between the two the snapshot is stale and says why.
//!
//! Most hosts have no Open vSwitch. While its socket does not exist the source is
//! [absent](super::SyncState::Absent): nobody waits for it, and nothing is logged but that. Once it was reached in this
//! run, a missing socket is a loss like any other.
//!
//! The protocol is our own, in [`rpc`] and [`rows`]: of the two client crates there are, `ovsdb` has been left alone for
//! years, and `ovsdb-client`, in its first release, fails when two messages arrive together and bounds the size of none.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use serde_json::value::RawValue;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::codec::FramedRead;
use tracing::{debug, info, warn};

use self::{
    rows::{MONITORED, Ports, Tables, Update},
    rpc::{FrameError, Frames, Message},
};
use super::{Backoff, Snapshot, chain, publish};
use crate::{config::OvsdbConfig, meters::SourceMeters};

pub mod rows;
pub mod rpc;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket cannot be reached.
    #[error("could not connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("could not ask the Open vSwitch database")]
    Send(#[source] io::Error),
    /// Reading failed, or what was read is no message.
    #[error("could not read from the Open vSwitch database")]
    Receive(#[source] FrameError),
    /// A message that is not of the protocol.
    #[error("a message of the Open vSwitch database makes no sense")]
    Malformed(#[source] serde_json::Error),
    /// The server will not let us follow.
    #[error("the Open vSwitch database refused to be followed: {0}")]
    Refused(String),
    /// The server ended the connection.
    #[error("the Open vSwitch database closed the connection")]
    Closed,
    /// The server does not answer.
    #[error("the Open vSwitch database did not answer within {0:?}")]
    Silent(Duration),
}

impl SessionError {
    /// Whether this only means that the host has no Open vSwitch.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Follows this host's Open vSwitch database for ever.
pub async fn run(config: OvsdbConfig, tx: watch::Sender<Snapshot<Ports>>, meters: Arc<SourceMeters>) -> Infallible {
    let mut backoff = Backoff::default();
    let mut reached = false;
    loop {
        let started = Instant::now();
        let Err(error) = session(&config, &tx, &meters).await;
        let reason = chain(&error);
        if started.elapsed() > HEALTHY {
            backoff.reset();
        }
        reached |= tx.borrow().sync.is_synced();
        let absent = error.is_absence() && !reached;
        if !absent {
            meters.failures.count();
        }
        let news = tx.send_if_modified(|snapshot| {
            let before = snapshot.sync.clone();
            if absent {
                *snapshot = Snapshot::absent();
            } else {
                snapshot.mark_stale(&reason);
            }
            snapshot.sync != before
        });
        let delay = if absent { ABSENT_RETRY } else { backoff.delay() };
        match (news, absent) {
            (true, true) => info!(socket = %config.socket.display(), "no Open vSwitch here; watching for one"),
            (true, false) => warn!(error = reason, "no connection to Open vSwitch; trying again until there is one"),
            (false, true) => {}
            (false, false) => debug!(error = reason, ?delay, "still no connection to Open vSwitch"),
        }
        sleep(delay).await;
    }
}

/// Subscribes, which lists, and follows. Dropping the future is safe: it owns its socket and publishes whole snapshots.
async fn session(
    config: &OvsdbConfig,
    tx: &watch::Sender<Snapshot<Ports>>,
    meters: &SourceMeters,
) -> Result<Infallible, SessionError> {
    let mut session = Session::connect(&config.socket, config.call_timeout, meters).await?;
    session.subscribe().await?;
    let (mut heard, mut asked) = (Instant::now(), 0);
    let mut resync_at = heard + config.resync_interval;
    loop {
        let asked_by = session.pending.as_ref().map_or(resync_at, |pending| pending.deadline);
        tokio::select! {
            frame = session.frames.next() => {
                (heard, asked) = (Instant::now(), 0);
                if session.take_in(frame).await? {
                    if !tx.borrow().sync.is_synced() {
                        meters.syncs.count();
                    }
                    publish(tx, session.tables.ports());
                }
            }
            () = sleep_until(asked_by), if session.pending.is_some() => {
                return Err(SessionError::Silent(config.call_timeout));
            }
            () = sleep_until(resync_at), if session.pending.is_none() => {
                session.subscribe().await?;
                resync_at = Instant::now() + config.resync_interval;
            }
            () = sleep_until(heard + config.keepalive_interval * (asked + 1)) => {
                if asked == KEEPALIVE_COUNT {
                    return Err(SessionError::Silent(heard.elapsed()));
                }
                asked += 1;
                session.send(&rpc::echo(UNAWAITED)).await?;
            }
        }
    }
}

/// A connection and what has been read from it.
struct Session<'a> {
    frames: FramedRead<OwnedReadHalf, Frames>,
    writer: OwnedWriteHalf,
    timeout: Duration,
    tables: Tables,
    /// The monitor that keeps `tables` current; 0 before the first is answered.
    monitor: u64,
    /// The monitor that was asked for and not yet answered.
    pending: Option<Pending>,
    meters: &'a SourceMeters,
}

struct Pending {
    monitor: u64,
    deadline: Instant,
}

type Frame = <FramedRead<OwnedReadHalf, Frames> as futures_util::Stream>::Item;

impl<'a> Session<'a> {
    async fn connect(path: &Path, timeout: Duration, meters: &'a SourceMeters) -> Result<Self, SessionError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| SessionError::Connect { path: path.to_owned(), source })?;
        let (reader, writer) = stream.into_split();
        let frames = FramedRead::new(reader, Frames::default());
        Ok(Self { frames, writer, timeout, tables: Tables::default(), monitor: 0, pending: None, meters })
    }

    /// Asks to follow the tables from here on; the answer lists them as they are.
    async fn subscribe(&mut self) -> Result<(), SessionError> {
        let monitor = self.monitor + 1;
        self.pending = Some(Pending { monitor, deadline: Instant::now() + self.timeout });
        self.send(&rpc::monitor(monitor, DATABASE, &MONITORED)).await
    }

    async fn send(&mut self, request: &str) -> Result<(), SessionError> {
        match timeout(self.timeout, self.writer.write_all(request.as_bytes())).await {
            Ok(result) => result.map_err(SessionError::Send),
            Err(_) => Err(SessionError::Silent(self.timeout)),
        }
    }

    /// Takes in a message and those that wait behind it, but no more than is fit to publish at once. Says whether
    /// anything may have changed.
    async fn take_in(&mut self, first: Option<Frame>) -> Result<bool, SessionError> {
        let (mut frame, mut changed, mut taken) = (first, false, 0);
        loop {
            let bytes = frame.ok_or(SessionError::Closed)?.map_err(SessionError::Receive)?;
            // The server checks that text is UTF-8. Should it not, one name is mangled, and nothing else.
            let text = String::from_utf8_lossy(&bytes);
            changed |= self.handle(Message::decode(&text).map_err(SessionError::Malformed)?).await?;
            taken += 1;
            if taken == BATCH {
                return Ok(changed);
            }
            match self.frames.next().now_or_never() {
                Some(next) => frame = next,
                None => return Ok(changed),
            }
        }
    }

    async fn handle(&mut self, message: Message<'_>) -> Result<bool, SessionError> {
        match message {
            Message::Echo { id, params } => self.send(&rpc::pong(id, params)).await.map(|()| false),
            Message::Update { monitor, tables } if monitor == self.monitor => {
                self.meters.events.count();
                self.tables.apply(decode(tables)?);
                Ok(true)
            }
            Message::Answer { id, result } if self.pending.take_if(|pending| pending.monitor == id).is_some() => {
                let mut tables = Tables::default();
                tables.apply(decode(result.map_err(SessionError::Refused)?)?);
                self.tables = tables;
                self.meters.listings.count();
                let previous = std::mem::replace(&mut self.monitor, id);
                if previous != 0 {
                    self.send(&rpc::monitor_cancel(UNAWAITED, previous)).await?;
                } else {
                    info!(ports = self.tables.ports().len(), "read the Open vSwitch database");
                }
                Ok(true)
            }
            // An answer that nobody waits for, an update of a monitor that was replaced, or something else.
            Message::Answer { .. } | Message::Update { .. } | Message::Other => Ok(false),
        }
    }
}

/// Decodes rows; one that cannot be used costs a warning.
fn decode(tables: &RawValue) -> Result<Update, SessionError> {
    let update = Update::decode(tables).map_err(SessionError::Malformed)?;
    for row in &update.malformed {
        warn!(ovsdb.table = row.table, ovsdb.row = row.row, problem = %row.problem, "could not use a row of the database");
    }
    Ok(update)
}

/// The database that Open vSwitch keeps its configuration in.
const DATABASE: &str = "Open_vSwitch";
/// The id of requests whose answer only shows that the server lives. Monitors count from 1.
const UNAWAITED: u64 = 0;
/// After so many unanswered questions, and one more interval, the connection is dead.
const KEEPALIVE_COUNT: u32 = 2;
/// How many messages are taken in before they are published.
const BATCH: usize = 64;
/// A session that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// A look whether the socket exists costs nothing, and nobody installs Open vSwitch more often.
const ABSENT_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
