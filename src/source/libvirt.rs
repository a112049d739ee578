//! libvirt's domains: follows one hypervisor by its events and publishes [`Domains`].
//!
//! Every call into libvirt blocks, and may block for as long as a daemon or a domain is stuck. So a *session* runs on a
//! thread of its own, and its *supervisor*, a task, watches how long the current call takes. A call that outlasts its
//! deadline cannot be interrupted: the session is abandoned (it may no longer publish), the snapshot is stale, and a
//! new session is tried. Abandoned threads are bounded; they end when libvirt answers after all.
//!
//! The calls, all of them read-only and none of them waiting for a job: `virConnectOpenReadOnly`,
//! `virConnectSetKeepAlive`, the event registrations, `virConnectListAllDomains`, `virDomainLookupByUUID`,
//! `virDomainGetXMLDesc`, `virDomainGetState`.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain as Handle, error::ErrorNumber};

use self::{
    domain::{Domain, DomainState},
    events::{Subscription, Wake},
};
use super::{Backoff, Snapshot, chain, now};
use crate::config::LibvirtConfig;

pub mod domain;
pub mod events;

/// The domains of one hypervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// Every domain that could be read, as it was when it was last read.
    pub known: BTreeMap<Uuid, Arc<Domain>>,
    /// The domains that exist but could not be read the last time. A record in `known` is then not current.
    pub unreadable: BTreeMap<Uuid, Unreadable>,
}

/// Since when and why a domain cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// When reading it failed first.
    pub since: Timestamp,
    /// Why.
    pub reason: Arc<str>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No thread could be had.
    #[error("could not start a thread")]
    Thread(#[source] io::Error),
    /// libvirt's event loop does not run.
    #[error("libvirt's event loop could not be started: {0}")]
    EventLoop(String),
    /// The hypervisor cannot be reached.
    #[error("could not connect")]
    Connect(#[source] LibvirtError),
    /// Events cannot be had.
    #[error("could not register for events")]
    Subscribe(#[source] LibvirtError),
    /// The domains cannot be listed.
    #[error("could not list the domains")]
    List(#[source] LibvirtError),
    /// The connection ended.
    #[error("libvirt closed the connection: {0}")]
    Closed(&'static str),
    /// A call outlasted its deadline.
    #[error("libvirt did not answer within {timeout:?} ({call})")]
    Hung {
        /// What was called.
        call: Call,
        /// The deadline.
        timeout: Duration,
    },
    /// The thread panicked.
    #[error("the session ended without a word")]
    Lost,
}

/// libvirt's own message, without the codes that `virt` adds.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct LibvirtError(#[from] virt::error::Error);

/// A libvirt call in progress.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    name: &'static str,
    domain: Option<Uuid>,
    since: time::Instant,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.domain.map_or(Ok(()), |uuid| write!(f, " of domain {uuid}"))
    }
}

/// One hypervisor to follow.
#[derive(Debug)]
pub struct Source {
    /// Its libvirt URI.
    pub uri: Arc<str>,
    /// How.
    pub config: LibvirtConfig,
    /// Where its domains are published.
    pub tx: watch::Sender<Snapshot<Domains>>,
    /// Domains, of any hypervisor, that the kernel contradicts: they are read again.
    pub doubtful: watch::Receiver<BTreeSet<Uuid>>,
}

/// Follows one hypervisor until `shutdown`.
pub async fn run(mut source: Source, shutdown: CancellationToken) {
    let mut backoff = Backoff::default();
    let threads = Arc::new(Semaphore::new(SESSION_THREADS));
    loop {
        let started = Instant::now();
        let Err(error) = supervise(&mut source, &threads, &shutdown).await else { return };
        let reason = chain(&error);
        if started.elapsed() > HEALTHY {
            backoff.reset();
        }
        let news = source.tx.borrow().sync.reason() != Some(&reason);
        source.tx.send_modify(|snapshot| snapshot.mark_stale(&reason));
        let delay = backoff.delay();
        if news {
            warn!(uri = &*source.uri, error = reason, "no connection to libvirt; trying again until there is one");
        } else {
            debug!(uri = &*source.uri, error = reason, ?delay, "still no connection to libvirt");
        }
        tokio::select! {
            () = time::sleep(delay) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Runs one session. `Ok` means that vifd is stopping.
async fn supervise(
    source: &mut Source,
    threads: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Result<(), SessionError> {
    let permit = tokio::select! {
        // Waits only while every thread hangs in libvirt.
        permit = Arc::clone(threads).acquire_owned() => permit.expect("the semaphore is never closed"),
        () = shutdown.cancelled() => return Ok(()),
    };
    events::start_loop().map_err(SessionError::EventLoop)?;
    let (wakes, wakes_rx) = mpsc::channel();
    let (call, mut calls) = watch::channel(None);
    let lease = Arc::new(Lease { tx: source.tx.clone(), call, valid: AtomicBool::new(true) });
    let session = Session { uri: Arc::clone(&source.uri), config: source.config.clone(), lease: Arc::clone(&lease) };
    let timeout = source.config.call_timeout;
    let mut ended = session.spawn(wakes.clone(), wakes_rx, permit)?;
    let error = tokio::select! {
        result = &mut ended => return result.unwrap_or(Err(SessionError::Lost)),
        call = outlasts(&mut calls, timeout) => SessionError::Hung { call, timeout },
        () = shutdown.cancelled() => {
            let _ = wakes.send(Wake::Stop);
            // An orderly close keeps libvirt's log clean; a session that hangs is left behind.
            let _ = time::timeout(CLOSE_TIMEOUT, ended).await;
            return Ok(());
        }
        never = pass_on_doubts(&source.tx, &mut source.doubtful, &wakes) => match never {},
    };
    lease.revoke();
    // Should it ever get an answer, let it end at once.
    let _ = wakes.send(Wake::Stop);
    Err(error)
}

/// Wakes the session for each domain that comes into doubt, and a little later once more for those that still are: the
/// kernel may have been quicker than libvirt.
async fn pass_on_doubts(
    tx: &watch::Sender<Snapshot<Domains>>,
    doubtful: &mut watch::Receiver<BTreeSet<Uuid>>,
    wakes: &Sender<Wake>,
) -> Infallible {
    let wake = |uuid: &Uuid| {
        if tx.borrow().data.known.contains_key(uuid) {
            let _ = wakes.send(Wake::Domain(*uuid));
        }
    };
    let mut known = BTreeSet::new();
    let mut again = None;
    loop {
        let current = doubtful.borrow_and_update().clone();
        let mut new = current.difference(&known).peekable();
        if new.peek().is_some() {
            again = Some(time::Instant::now() + DOUBT_RECHECK);
        }
        new.for_each(wake);
        known = current;
        tokio::select! {
            changed = doubtful.changed() => if changed.is_err() {
                std::future::pending().await
            },
            () = time::sleep_until(again.unwrap_or_else(time::Instant::now)), if again.is_some() => {
                again = None;
                known.iter().for_each(wake);
            }
        }
    }
}

/// Waits for a call that takes longer than `timeout`.
async fn outlasts(calls: &mut watch::Receiver<Option<Call>>, timeout: Duration) -> Call {
    loop {
        let current = *calls.borrow_and_update();
        let changed = calls.changed();
        match current {
            Some(call) => match time::timeout_at(call.since + timeout, changed).await {
                Err(_) => return call,
                Ok(Ok(())) => {}
                Ok(Err(_)) => std::future::pending().await,
            },
            None if changed.await.is_err() => std::future::pending().await,
            None => {}
        }
    }
}

/// A session's right to publish, and its duty to say what it waits for.
struct Lease {
    tx: watch::Sender<Snapshot<Domains>>,
    call: watch::Sender<Option<Call>>,
    valid: AtomicBool,
}

impl Lease {
    /// Makes one libvirt call, in sight of the supervisor.
    fn call<T>(&self, name: &'static str, domain: Option<Uuid>, f: impl FnOnce() -> T) -> T {
        self.call.send_replace(Some(Call { name, domain, since: time::Instant::now() }));
        let result = f();
        self.call.send_replace(None);
        result
    }

    fn publish(&self, domains: Domains) {
        self.tx.send_if_modified(|snapshot| self.valid.load(Ordering::Acquire) && snapshot.update(domains));
    }

    /// From here on nothing is published. Inside the channel's lock, so that no publication is half done.
    fn revoke(&self) {
        self.tx.send_if_modified(|_| {
            self.valid.store(false, Ordering::Release);
            false
        });
    }
}

struct Session {
    uri: Arc<str>,
    config: LibvirtConfig,
    lease: Arc<Lease>,
}

impl Session {
    fn spawn(
        self,
        wakes: Sender<Wake>,
        wakes_rx: Receiver<Wake>,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<(), SessionError>>, SessionError> {
        let (tx, rx) = oneshot::channel();
        let run = move || {
            let result = self.run(&wakes, &wakes_rx);
            // The permit comes first: who learns of the end may start anew at once.
            drop(permit);
            let _ = tx.send(result);
        };
        thread::Builder::new().name("libvirt".into()).spawn(run).map_err(SessionError::Thread)?;
        Ok(rx)
    }

    /// Subscribes, lists, follows. `Ok` means that vifd is stopping.
    fn run(&self, wakes: &Sender<Wake>, wakes_rx: &Receiver<Wake>) -> Result<(), SessionError> {
        let connection = self.connect()?;
        let subscribe = || Subscription::new(&connection.0, wakes);
        let _subscription = self
            .lease
            .call("virConnectDomainEventRegisterAny", None, subscribe)
            .map_err(|e| SessionError::Subscribe(e.into()))?;
        let mut domains = Domains::clone(&self.lease.tx.borrow().data);
        loop {
            self.read_all(&connection, &mut domains)?;
            info!(uri = &*self.uri, domains = domains.known.len(), "read all domains");
            self.lease.publish(domains.clone());
            let resync = Instant::now() + self.config.resync_interval;
            loop {
                let first = match wakes_rx.recv_timeout(resync.saturating_duration_since(Instant::now())) {
                    Ok(wake) => wake,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                };
                // However often a domain was named, it is read once.
                let mut named = BTreeSet::new();
                for wake in std::iter::once(first).chain(wakes_rx.try_iter()) {
                    match wake {
                        Wake::Domain(uuid) => named.insert(uuid),
                        Wake::Closed(reason) => return Err(SessionError::Closed(reason)),
                        Wake::Stop => return Ok(()),
                    };
                }
                for (n, uuid) in (1..).zip(&named) {
                    debug!(domain.uuid = %uuid, "reading a domain again");
                    let read = self.lookup(&connection, *uuid).and_then(|handle| self.read(*uuid, &handle));
                    record(&mut domains, *uuid, read);
                    if n % BATCH == 0 || n == named.len() {
                        self.lease.publish(domains.clone());
                    }
                }
            }
        }
    }

    fn connect(&self) -> Result<Connection, SessionError> {
        let open = || Connect::open_read_only(Some(&self.uri));
        let connect = self.lease.call("virConnectOpenReadOnly", None, open);
        let connection = Connection(connect.map_err(|e| SessionError::Connect(e.into()))?);
        let seconds = i32::try_from(self.config.keepalive_interval.as_secs()).unwrap_or(i32::MAX).max(1);
        let keepalive = || connection.0.set_keep_alive(seconds, KEEPALIVE_COUNT);
        if let Err(error) = self.lease.call("virConnectSetKeepAlive", None, keepalive) {
            // The test driver has no connection that could die.
            debug!(uri = &*self.uri, error = error.message(), "no keepalive");
        }
        Ok(connection)
    }

    fn read_all(&self, connection: &Connection, domains: &mut Domains) -> Result<(), SessionError> {
        let list = || connection.0.list_all_domains(0);
        let handles =
            self.lease.call("virConnectListAllDomains", None, list).map_err(|e| SessionError::List(e.into()))?;
        let mut listed = BTreeSet::new();
        for handle in &handles {
            let Ok(uuid) = handle.get_uuid() else { continue };
            listed.insert(uuid);
            let read = self.read(uuid, handle);
            record(domains, uuid, read);
        }
        domains.known.retain(|uuid, _| listed.contains(uuid));
        domains.unreadable.retain(|uuid, _| listed.contains(uuid));
        Ok(())
    }

    fn lookup(&self, connection: &Connection, uuid: Uuid) -> Result<Handle, ReadError> {
        let lookup = || Handle::lookup_by_uuid(&connection.0, uuid);
        self.lease.call("virDomainLookupByUUID", Some(uuid), lookup).map_err(|e| ReadError::Call(e.into()))
    }

    fn read(&self, uuid: Uuid, handle: &Handle) -> Result<Domain, ReadError> {
        let (state, _) = self
            .lease
            .call("virDomainGetState", Some(uuid), || handle.get_state())
            .map_err(|e| ReadError::Call(e.into()))?;
        let xml = self
            .lease
            .call("virDomainGetXMLDesc", Some(uuid), || handle.get_xml_desc(0))
            .map_err(|e| ReadError::Call(e.into()))?;
        Domain::decode(&xml, DomainState::from_libvirt(state)).map_err(ReadError::Decode)
    }
}

/// Why one domain could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("libvirt would not tell")]
    Call(#[source] LibvirtError),
    #[error("its XML could not be used")]
    Decode(#[source] domain::DecodeError),
}

impl ReadError {
    fn is_gone(&self) -> bool {
        matches!(self, Self::Call(error) if error.0.code() == ErrorNumber::NoDomain)
    }
}

/// Takes in what reading one domain gave. A domain that cannot be read keeps its last record and is marked.
fn record(domains: &mut Domains, uuid: Uuid, read: Result<Domain, ReadError>) {
    match read {
        Ok(domain) => {
            domains.unreadable.remove(&uuid);
            let known = domains.known.get(&uuid);
            if known.is_some_and(|known| **known == domain) {
                return;
            }
            for warning in &domain.warnings {
                warn!(domain.uuid = %uuid, domain.name = &*domain.name, "{warning}");
            }
            domains.known.insert(uuid, Arc::new(domain));
        }
        Err(error) if error.is_gone() => {
            domains.known.remove(&uuid);
            domains.unreadable.remove(&uuid);
        }
        Err(error) => {
            let reason = chain(&error);
            if !domains.unreadable.contains_key(&uuid) {
                warn!(domain.uuid = %uuid, error = reason, "could not read a domain");
            }
            let since = domains.unreadable.get(&uuid).map_or_else(now, |unreadable| unreadable.since);
            domains.unreadable.insert(uuid, Unreadable { since, reason: reason.into() });
        }
    }
}

/// `Connect` of `virt` 0.4 does not close itself.
struct Connection(Connect);

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.0.close();
    }
}

/// After so many unanswered questions the connection is dead; libvirt counts one more interval.
const KEEPALIVE_COUNT: u32 = 2;
/// One that works, and some that hang until libvirt answers. Each costs a thread and perhaps a connection, and libvirtd
/// allows few of those.
const SESSION_THREADS: usize = 4;
/// How many domains are read again before the result is published.
const BATCH: usize = 16;
/// A hot-plug into a container is visible in the kernel some 50 ms before libvirt tells of it.
const DOUBT_RECHECK: Duration = Duration::from_millis(500);
/// A session that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// Closing a connection takes a millisecond unless libvirt hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
