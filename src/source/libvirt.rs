//! libvirt's domains: follows one hypervisor by its events and publishes [`Domains`].
//!
//! A *session* is one connection. Events name domains; the session has them read by a *worker*, a thread that makes the
//! calls (they block), and publishes what it reports. A worker that is silent for too long is left behind: the domain
//! that it was reading is marked as unreadable, alone, and another worker reads the others over a connection of its own.
//! When the call returns after all, the domain is read again. Only where connections themselves hang does the whole
//! session end. Threads are bounded.
//!
//! The calls, all of them read-only and none of them waiting for a job: `virConnectOpenReadOnly`,
//! `virConnectSetKeepAlive`, the event registrations, `virConnectListAllDomains`, `virDomainLookupByUUID`,
//! `virDomainGetXMLDesc`, `virDomainGetState`, `virDomainIsPersistent`, `virDomainGetJobInfo` (of a domain that is migrating), `virConnectClose`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    io,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        watch,
    },
    time::{self, Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::{
    domain::{Domain, Migration},
    doubts::Doubts,
    events::Wake,
    worker::{Job, ReadError, Reading, Report, Worker},
};
use super::{Backoff, Snapshot, chain, moment::Moment};
use crate::{config::LibvirtConfig, meters::SourceMeters};

pub mod domain;
pub mod doubts;
pub mod events;
pub mod reread;
mod worker;

/// The domains of one hypervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// Every domain that could be read, as it was when it was last read.
    pub known: BTreeMap<Uuid, Arc<Domain>>,
    /// The domains that exist but could not be read the last time. A record in `known` is then not current.
    pub unreadable: BTreeMap<Uuid, Unreadable>,
}

impl Domains {
    /// Those that were on their way to another host. libvirt says so in an event that it does not repeat, so a session
    /// believes the one before, and has them read with that in mind.
    fn leaving(&self) -> impl Iterator<Item = Uuid> {
        let leaving = self.known.iter().filter(|(_, domain)| domain.migration == Some(Migration::Outgoing));
        leaving.map(|(uuid, _)| *uuid)
    }
}

/// Since when and why a domain cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// When reading it failed first.
    pub since: Moment,
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
    /// A call over the connection as a whole outlasted its deadline.
    #[error("libvirt did not answer within {timeout:?} ({call})")]
    Hung {
        /// What was called.
        call: &'static str,
        /// The deadline.
        timeout: Duration,
    },
    /// Too many calls hang to make another.
    #[error("{WORKERS} calls to libvirt hang")]
    NoWorkers,
}

/// libvirt's own message, without the codes that `virt` adds.
///
/// Not also its source: the chain of an error tells each of them.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct LibvirtError(virt::error::Error);

impl From<virt::error::Error> for LibvirtError {
    fn from(error: virt::error::Error) -> Self {
        Self(error)
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
    /// What the kernel holds against what is known of the domains, of any hypervisor: they are read again.
    pub doubts: watch::Receiver<Doubts>,
    /// Instances, of any hypervisor, that somebody asks to be read again.
    pub rereads: watch::Receiver<reread::Asked>,
    /// What happens to it.
    pub meters: Arc<SourceMeters>,
}

/// Follows one hypervisor until `shutdown`.
pub async fn run(mut source: Source, shutdown: CancellationToken) {
    let mut backoff = Backoff::up_to(source.config.retry_interval);
    let workers = Arc::new(Semaphore::new(WORKERS));
    loop {
        let started = Instant::now();
        let error = tokio::select! {
            Err(error) = session(&mut source, &workers) => error,
            () = shutdown.cancelled() => break,
        };
        source.meters.failures.count();
        if matches!(error, SessionError::Hung { .. }) {
            source.meters.abandoned_calls.count();
        }
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
            () = shutdown.cancelled() => break,
        }
    }
    // The session is dropped, so its workers close the connection and end. An orderly close keeps libvirt's log clean;
    // a worker that hangs is left behind.
    let every = u32::try_from(WORKERS).expect("a handful");
    let _ = time::timeout(CLOSE_TIMEOUT, workers.acquire_many(every)).await;
}

/// Connects, subscribes, lists, follows.
async fn session(source: &mut Source, workers: &Arc<Semaphore>) -> Result<Infallible, SessionError> {
    events::start_loop().map_err(SessionError::EventLoop)?;
    let (wakes, mut wakes_rx) = mpsc::unbounded_channel();
    let doubts = doubts::pass_on(&source.tx, &mut source.doubts, &wakes);
    let rereads = pass_on_rereads(&source.tx, &mut source.rereads, &wakes);
    let (reports, reports_rx) = mpsc::unbounded_channel();
    // Waits only while every worker hangs in libvirt.
    let permit = Arc::clone(workers).acquire_owned().await.expect("the semaphore is never closed");
    let worker =
        Worker::open(FIRST, Arc::clone(&source.uri), &source.config, Some(wakes.clone()), reports.clone(), permit)?;
    let domains = Domains::clone(&source.tx.borrow().data);
    let mut session = Session {
        uri: &source.uri,
        config: &source.config,
        tx: &source.tx,
        workers,
        meters: &source.meters,
        worker,
        left_behind: Vec::new(),
        reports,
        leaving: domains.leaving().collect(),
        domains,
        urgent: BTreeMap::new(),
        queue: BTreeSet::new(),
        definitions: BTreeSet::new(),
        look_for_changes: false,
        listing_hangs: false,
        asked: Asked::Open,
        heard: Instant::now(),
        resync: Instant::now(),
        stuck: BTreeSet::new(),
    };
    tokio::select! {
        result = session.follow(reports_rx, &mut wakes_rx) => result,
        never = doubts => match never {},
        never = rereads => match never {},
    }
}

/// What the worker was asked and has not yet answered.
#[derive(Debug)]
enum Asked {
    Nothing,
    Open,
    List(Listing),
    Read(VecDeque<Uuid>),
    Define(VecDeque<Uuid>),
}

/// Why libvirt is asked which domains there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    /// To read them all.
    Everything,
    /// To read those that have come or gone, or were started or ended.
    Changes,
}

/// What of a domain may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Description,
    Anything,
}

/// One connection to one hypervisor.
struct Session<'a> {
    uri: &'a Arc<str>,
    config: &'a LibvirtConfig,
    tx: &'a watch::Sender<Snapshot<Domains>>,
    workers: &'a Arc<Semaphore>,
    meters: &'a SourceMeters,
    worker: Worker,
    /// The workers that hang, and the first of all, which keeps the connection that events come over.
    left_behind: Vec<Worker>,
    reports: UnboundedSender<(u64, Report)>,
    domains: Domains,
    /// The domains that events have named. However often one was named, it is read once.
    urgent: BTreeMap<Uuid, Changed>,
    /// The domains that a listing or a caller has named: read when nothing is urgent.
    queue: BTreeSet<Uuid>,
    /// The domains that run and whose persistent definitions are to be read: when nothing else is.
    definitions: BTreeSet<Uuid>,
    /// A domain may have been started of which libvirt says nothing yet.
    look_for_changes: bool,
    /// An abandoned worker hangs while it asks for the list.
    listing_hangs: bool,
    asked: Asked,
    /// When the worker was last asked or heard of: the answers to one question come one by one.
    heard: Instant,
    /// When to read everything again.
    resync: Instant,
    /// The domains in which an abandoned worker hangs.
    stuck: BTreeSet<Uuid>,
    /// The domains on their way to another host. libvirt sends no event when a migration is given up, so these are
    /// read again and again until they have gone or stay.
    leaving: BTreeSet<Uuid>,
}

impl Session<'_> {
    async fn follow(
        &mut self,
        mut reports: UnboundedReceiver<(u64, Report)>,
        wakes: &mut UnboundedReceiver<Wake>,
    ) -> Result<Infallible, SessionError> {
        loop {
            tokio::select! {
                biased;
                Some(wake) = wakes.recv() => {
                    self.meters.events.count();
                    match wake {
                        Wake::Domain(uuid) => self.read_soon(uuid, Changed::Anything),
                        Wake::Description(uuid) => self.read_soon(uuid, Changed::Description),
                        Wake::Asked(uuid) => {
                            self.queue.insert(uuid);
                        }
                        Wake::Leaving(uuid) => {
                            if self.leaving.insert(uuid) {
                                self.read_soon(uuid, Changed::Anything);
                            }
                        }
                        Wake::List => self.look_for_changes = true,
                        Wake::Closed(reason) => return Err(SessionError::Closed(reason)),
                    }
                    // What else was named meanwhile goes into the same batch.
                    if !wakes.is_empty() {
                        continue;
                    }
                }
                Some((worker, report)) = reports.recv() => self.take_in(worker, report)?,
                () = sleep_until(self.deadline()) => self.deadline_passed()?,
            }
            self.ask_next();
        }
    }

    fn read_soon(&mut self, uuid: Uuid, changed: Changed) {
        let known = self.urgent.entry(uuid).or_insert(changed);
        *known = changed.max(*known);
    }

    /// When to act although nothing was heard.
    fn deadline(&self) -> Instant {
        match &self.asked {
            Asked::Nothing if self.leaving.is_empty() => self.resync,
            Asked::Nothing => self.resync.min(self.heard + LEAVING_INTERVAL),
            Asked::Open => self.heard + OPEN_TIMEOUT.max(self.config.call_timeout),
            Asked::List(_) | Asked::Read(_) | Asked::Define(_) => self.heard + self.config.call_timeout,
        }
    }

    fn deadline_passed(&mut self) -> Result<(), SessionError> {
        let timeout = self.heard.elapsed();
        match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing if Instant::now() < self.resync => {
                self.urgent.extend(self.leaving.iter().map(|uuid| (*uuid, Changed::Anything)));
            }
            Asked::Nothing if self.can_list() => self.list(Listing::Everything),
            Asked::Nothing => self.read_each(),
            Asked::Read(rest) | Asked::Define(rest) => self.leave_worker_behind(rest)?,
            Asked::Open => return Err(SessionError::Hung { call: "virConnectOpenReadOnly", timeout }),
            // A domain that nobody has told of may be what it hangs in. The others can be read all the same.
            Asked::List(_) if self.tx.borrow().sync.is_synced() => {
                warn!(uri = &**self.uri, ?timeout, "libvirt cannot list its domains; a new one may be missing");
                self.listing_hangs = true;
                self.leave_worker_behind(VecDeque::new())?;
                self.read_each();
            }
            Asked::List(_) => return Err(SessionError::Hung { call: "virConnectListAllDomains", timeout }),
        }
        Ok(())
    }

    /// Has the next few domains read, if the worker is free.
    fn ask_next(&mut self) {
        if !matches!(self.asked, Asked::Nothing) {
            return;
        }
        if self.look_for_changes && self.urgent.is_empty() && self.can_list() {
            return self.list(Listing::Changes);
        }
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some((uuid, changed)) =
                self.urgent.pop_first().or_else(|| Some((self.queue.pop_first()?, Changed::Anything)))
        {
            // One that is stuck is read when its call returns.
            if !self.stuck.contains(&uuid) {
                batch.push((uuid, self.reading(uuid, changed)));
            }
        }
        if !batch.is_empty() {
            debug!(uri = &**self.uri, domains = batch.len(), "reading domains");
            return self.ask(Asked::Read(batch.iter().map(|(uuid, _)| *uuid).collect()), Job::Read(batch));
        }
        while batch.len() < BATCH
            && let Some(uuid) = self.definitions.pop_first()
        {
            if let Some(known) = self.domains.known.get(&uuid).filter(|_| !self.stuck.contains(&uuid)) {
                batch.push((uuid, Reading::Definition(Arc::clone(known))));
            }
        }
        if !batch.is_empty() {
            debug!(uri = &**self.uri, domains = batch.len(), "reading definitions");
            self.ask(Asked::Define(batch.iter().map(|(uuid, _)| *uuid).collect()), Job::Read(batch));
        }
    }

    fn reading(&self, uuid: Uuid, changed: Changed) -> Reading {
        let leaving = self.leaving.contains(&uuid);
        let current = !leaving && !self.domains.unreadable.contains_key(&uuid);
        match self.domains.known.get(&uuid) {
            Some(known) if changed == Changed::Description && current => Reading::Description(Arc::clone(known)),
            _ => Reading::Whole { leaving },
        }
    }

    /// libvirt cannot list the domains while one of them is stuck: the listing takes the lock of each.
    fn can_list(&self) -> bool {
        self.stuck.is_empty() && !self.listing_hangs
    }

    fn list(&mut self, listing: Listing) {
        self.look_for_changes = false;
        if listing == Listing::Everything {
            self.resync = Instant::now() + self.config.resync_interval;
        }
        self.ask(Asked::List(listing), Job::List);
    }

    /// What can be done where listing cannot.
    fn read_each(&mut self) {
        self.resync = Instant::now() + self.config.resync_interval;
        self.queue.extend(self.domains.known.keys());
    }

    fn ask(&mut self, question: Asked, job: Job) {
        self.worker.give(job);
        self.heard = Instant::now();
        self.asked = question;
    }

    fn take_in(&mut self, worker: u64, report: Report) -> Result<(), SessionError> {
        match report {
            Report::Failed(error) => return Err(error),
            Report::Opened if worker == FIRST => self.list(Listing::Everything),
            Report::Opened => self.asked = Asked::Nothing,
            Report::Listed(listed) if worker == self.worker.id => {
                if matches!(self.asked, Asked::List(Listing::Everything)) {
                    self.meters.listings.count();
                    self.domains.known.retain(|uuid, _| listed.contains_key(uuid));
                    self.domains.unreadable.retain(|uuid, _| listed.contains_key(uuid));
                    self.queue.extend(listed.into_keys());
                } else {
                    self.read_changed(&listed);
                }
                self.asked = Asked::Nothing;
                self.publish_when_whole();
            }
            // An abandoned worker got its list after all.
            Report::Listed(listed) => {
                info!(uri = &**self.uri, "libvirt lists its domains again");
                self.forget_worker(worker);
                self.listing_hangs = false;
                self.read_changed(&listed);
            }
            Report::Read(uuid, read) if worker == self.worker.id => {
                self.record(uuid, read);
                self.heard = Instant::now();
                if let Asked::Read(rest) | Asked::Define(rest) = &mut self.asked {
                    rest.retain(|other| *other != uuid);
                    if rest.is_empty() {
                        self.asked = Asked::Nothing;
                        self.publish_when_whole();
                    }
                }
            }
            // An abandoned worker got its answer after all. It may be old by now: the domain is read once more.
            Report::Read(uuid, _) => {
                self.forget_worker(worker);
                if self.stuck.remove(&uuid) {
                    info!(uri = &**self.uri, instance.uuid = %uuid, "libvirt tells about the domain again");
                    self.read_soon(uuid, Changed::Anything);
                }
            }
        }
        Ok(())
    }

    /// Has those read that are not as they are listed.
    fn read_changed(&mut self, listed: &BTreeMap<Uuid, Option<u32>>) {
        let known = &self.domains.known;
        let same = |uuid: &Uuid| known.get(uuid).map(|domain| domain.id) == listed.get(uuid).copied();
        self.queue.extend(known.keys().chain(listed.keys()).filter(|uuid| !same(uuid)));
    }

    fn forget_worker(&mut self, worker: u64) {
        self.left_behind.retain(|other| other.id != worker || other.id == FIRST);
    }

    /// Goes on without a worker that hangs: in the list, or in the first of the domains that it was asked for.
    fn leave_worker_behind(&mut self, mut rest: VecDeque<Uuid>) -> Result<(), SessionError> {
        self.meters.abandoned_calls.count();
        let permit = Arc::clone(self.workers).try_acquire_owned().map_err(|_| SessionError::NoWorkers)?;
        let (uri, reports) = (Arc::clone(self.uri), self.reports.clone());
        let next = Worker::open(self.worker.id + 1, uri, self.config, None, reports, permit)?;
        self.left_behind.push(std::mem::replace(&mut self.worker, next));
        (self.heard, self.asked) = (Instant::now(), Asked::Open);
        if let Some(uuid) = rest.pop_front() {
            let timeout = self.config.call_timeout;
            warn!(uri = &**self.uri, instance.uuid = %uuid, ?timeout, "libvirt does not answer about a domain");
            self.stuck.insert(uuid);
            self.mark_unreadable(uuid, &format!("libvirt does not answer about it (waited {timeout:?})"));
        }
        self.urgent.extend(rest.into_iter().map(|uuid| (uuid, Changed::Anything)));
        self.publish_when_whole();
        Ok(())
    }

    /// Publishes each batch, but not before every domain has been read: half a list would look like a whole one.
    fn publish_when_whole(&self) {
        let first = !self.tx.borrow().sync.is_synced();
        if first && !(self.urgent.is_empty() && self.queue.is_empty()) {
            return;
        }
        self.tx.send_if_modified(|snapshot| snapshot.update(self.domains.clone()));
        if first {
            self.meters.syncs.count();
            info!(uri = &**self.uri, domains = self.domains.known.len(), "read all domains");
        }
    }

    /// Takes in what reading one domain gave. A domain that cannot be read keeps its last record and is marked.
    fn record(&mut self, uuid: Uuid, read: Result<Arc<Domain>, ReadError>) {
        if !read.as_ref().is_ok_and(|domain| domain.migration == Some(Migration::Outgoing)) {
            self.leaving.remove(&uuid);
        }
        match read {
            Ok(mut domain) => {
                self.domains.unreadable.remove(&uuid);
                if !matches!(self.asked, Asked::Define(_)) {
                    if let Some(known) = self.domains.known.get(&uuid) {
                        Arc::make_mut(&mut domain).keep_comparison(known);
                    }
                    // What runs is visible first.
                    if domain.is_active() {
                        self.definitions.insert(uuid);
                    }
                }
                if self.domains.known.get(&uuid).is_some_and(|known| *known == domain) {
                    return;
                }
                for warning in &domain.warnings {
                    warn!(instance.uuid = %uuid, instance.name = &*domain.name, "{warning}");
                }
                self.domains.known.insert(uuid, domain);
            }
            Err(error) if error.is_gone() => {
                self.domains.known.remove(&uuid);
                self.domains.unreadable.remove(&uuid);
            }
            Err(error) => {
                let reason = chain(&error);
                if !self.domains.unreadable.contains_key(&uuid) {
                    warn!(instance.uuid = %uuid, error = reason, "could not read a domain");
                }
                self.mark_unreadable(uuid, &reason);
            }
        }
    }

    fn mark_unreadable(&mut self, uuid: Uuid, reason: &str) {
        let since = self.domains.unreadable.get(&uuid).map_or_else(Moment::now, |unreadable| unreadable.since);
        self.domains.unreadable.insert(uuid, Unreadable { since, reason: reason.into() });
    }
}

/// Wakes the session for each domain that somebody asks for.
async fn pass_on_rereads(
    tx: &watch::Sender<Snapshot<Domains>>,
    rereads: &mut watch::Receiver<reread::Asked>,
    wakes: &UnboundedSender<Wake>,
) -> Infallible {
    while rereads.changed().await.is_ok() {
        let asked = Arc::clone(&rereads.borrow_and_update());
        let known = &tx.borrow().data.known;
        for uuid in asked.iter().filter(|uuid| known.contains_key(uuid)) {
            let _ = wakes.send(Wake::Asked(*uuid));
        }
    }
    std::future::pending().await
}

/// The worker whose connection has the events.
const FIRST: u64 = 0;
/// One that works, and some that hang until libvirt answers. Each costs a thread.
const WORKERS: usize = 8;
/// Opening may have to wait until systemd has started libvirtd.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How many domains are read again before the result is published.
const BATCH: usize = 16;
/// How soon it is seen that a migration was given up.
const LEAVING_INTERVAL: Duration = Duration::from_secs(1);
/// A session that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// Closing a connection takes a millisecond unless libvirt hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
