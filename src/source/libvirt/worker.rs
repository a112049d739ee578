//! The threads that call libvirt. A call blocks for as long as a daemon or a domain is stuck, and cannot be interrupted;
//! so a worker only calls and reports, and whoever waits for its reports can go on without it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedSender};
use tracing::debug;
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain as Handle, error::ErrorNumber};

use super::{
    LibvirtError, SessionError,
    domain::{self, Domain, DomainState, Migration},
    events::{Subscription, Wake},
};
use crate::{config::LibvirtConfig, source::chain};

/// What a worker calls over. To close it may block, so the worker does that as well.
///
/// Nothing else uses the connection while a call waits for its answer, neither another thread nor keepalive, and events
/// come over another one. libvirt allows all of that; but where a second sender interrupts the wait, its client before
/// 10.3 leaves a watch behind that points into the stack of the call, and fires in a later one (CVE-2024-4418).
#[derive(Debug)]
struct Connection {
    connect: Connect,
    /// What libvirt calls the domains by, which saves looking each of them up again.
    handles: HashMap<Uuid, Handle>,
    _events: Option<Subscription>,
}

/// What a worker can be asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Tell which domains there are.
    List,
    /// Read these domains, each with a report of its own.
    Read(Vec<(Uuid, Reading)>),
}

/// What of a domain is to be read.
#[derive(Debug)]
pub(super) enum Reading {
    /// Everything; with whether it may be leaving for another host.
    Whole { leaving: bool },
    /// Its description; all else is as it was known before.
    ///
    /// One call alone: when libvirt has told of a device, it soon takes the domain's lock to write its state to the disk,
    /// and often only the first call comes before that.
    Description(Arc<Domain>),
    /// Its persistent definition, to compare this with.
    Definition(Arc<Domain>),
}

/// What a worker has found out.
#[derive(Debug)]
pub(super) enum Report {
    /// The connection is open, and events are on their way if they were asked for.
    Opened,
    /// Which domains there are, with libvirt's numbers for those that run.
    Listed(BTreeMap<Uuid, Option<u32>>),
    /// One domain.
    Read(Uuid, Result<Arc<Domain>, ReadError>),
    /// The worker can do nothing more.
    Failed(SessionError),
}

/// A thread that calls libvirt. Dropping it ends the thread, and with it the connection, once its present call has
/// returned.
#[derive(Debug)]
pub(super) struct Worker {
    /// Told with each report, so that those of an abandoned worker can be told apart.
    pub(super) id: u64,
    jobs: mpsc::Sender<Job>,
}

/// Why one domain could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("libvirt would not tell")]
    Call(#[source] LibvirtError),
    #[error("its XML could not be used")]
    Decode(#[source] domain::DecodeError),
}

impl ReadError {
    /// Whether there is no such domain any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Call(error) if error.0.code() == ErrorNumber::NoDomain)
    }
}

impl Worker {
    /// Starts a worker that opens a connection, with events if there are `wakes`.
    pub(super) fn open(
        id: u64,
        uri: Arc<str>,
        config: &LibvirtConfig,
        wakes: Option<UnboundedSender<Wake>>,
        reports: UnboundedSender<(u64, Report)>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, SessionError> {
        let interval = i32::try_from(config.keepalive_interval.as_secs()).unwrap_or(i32::MAX).max(1);
        let (jobs, jobs_rx) = mpsc::channel();
        let work = move || {
            let report = |report| drop(reports.send((id, report)));
            match Connection::open(&uri, interval, wakes.as_ref()) {
                Ok(connection) => {
                    report(Report::Opened);
                    connection.work(jobs_rx, report);
                }
                Err(error) => report(Report::Failed(error)),
            }
            // By now the connection is closed.
            drop(permit);
        };
        thread::Builder::new().name("libvirt".into()).spawn(work).map_err(SessionError::Thread)?;
        Ok(Self { id, jobs })
    }

    /// Gives it something to do. A worker that has ended has reported why.
    pub(super) fn give(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}

impl Connection {
    fn open(uri: &str, keepalive_seconds: i32, wakes: Option<&UnboundedSender<Wake>>) -> Result<Self, SessionError> {
        let connect = || Connect::open_read_only(Some(uri)).map_err(|e| SessionError::Connect(e.into()));
        let subscribe = |wakes| {
            Subscription::new(connect()?, keepalive_seconds, wakes).map_err(|e| SessionError::Subscribe(e.into()))
        };
        let events = wakes.map(subscribe).transpose()?;
        Ok(Self { connect: connect()?, handles: HashMap::new(), _events: events })
    }

    fn work(mut self, jobs: mpsc::Receiver<Job>, report: impl Fn(Report)) {
        for job in jobs {
            match job {
                Job::List => report(match self.list() {
                    Ok(listed) => Report::Listed(listed),
                    Err(error) => Report::Failed(SessionError::List(error)),
                }),
                Job::Read(domains) => {
                    for (uuid, reading) in domains {
                        let read = self.read(uuid, &reading);
                        if read.is_err() && self.is_dead() {
                            return report(Report::Failed(SessionError::Closed("it was dead when a call failed")));
                        }
                        report(Report::Read(uuid, read));
                    }
                }
            }
        }
    }

    /// Whether libvirt's client has given the connection up, which it tells the subscriber alone. Makes no call.
    fn is_dead(&self) -> bool {
        matches!(self.connect.is_alive(), Ok(false))
    }

    fn list(&mut self) -> Result<BTreeMap<Uuid, Option<u32>>, LibvirtError> {
        let handles = self.connect.list_all_domains(0)?;
        self.handles = handles.into_iter().filter_map(|handle| Some((handle.get_uuid().ok()?, handle))).collect();
        Ok(self.handles.iter().map(|(uuid, handle)| (*uuid, handle.get_id())).collect())
    }

    fn read(&mut self, uuid: Uuid, reading: &Reading) -> Result<Arc<Domain>, ReadError> {
        if let Some(handle) = self.handles.remove(&uuid)
            && let Ok(domain) = read(&handle, reading)
        {
            self.handles.insert(uuid, handle);
            return Ok(domain);
        }
        let handle = Handle::lookup_by_uuid(&self.connect, uuid).map_err(call)?;
        let domain = read(&handle, reading)?;
        self.handles.insert(uuid, handle);
        Ok(domain)
    }
}

fn read(handle: &Handle, reading: &Reading) -> Result<Arc<Domain>, ReadError> {
    let description = || handle.get_xml_desc(0).map_err(call);
    let (xml, leaving) = match reading {
        Reading::Definition(known) => return compare(handle, known),
        Reading::Whole { leaving } => (description()?, *leaving),
        Reading::Description(known) => {
            let xml = description()?;
            let domain = Domain::decode(&xml, known.state).map_err(ReadError::Decode)?;
            // Else it was started or has ended meanwhile.
            if domain.id == known.id {
                return Ok(Arc::new(Domain { migration: known.migration, ..domain }));
            }
            (xml, false)
        }
    };
    let (state, reason) = handle.get_state().map_err(call)?;
    let state = DomainState::from_libvirt(state, reason);
    let paused_by_migration = state == DomainState::Paused && reason == PAUSED_MIGRATION;
    let migration = match state {
        DomainState::ShutOff => (reason == SHUTOFF_MIGRATED).then_some(Migration::Away),
        _ if leaving || paused_by_migration => migration(handle, paused_by_migration),
        _ => None,
    };
    let domain = Domain::decode(&xml, state).map_err(ReadError::Decode)?;
    Ok(Arc::new(Domain { migration, ..domain }))
}

/// Compares what is known of a domain that runs with its persistent definition. One that cannot be used is no reason to
/// doubt what runs.
fn compare(handle: &Handle, known: &Arc<Domain>) -> Result<Arc<Domain>, ReadError> {
    if !handle.is_persistent().map_err(call)? {
        return Ok(Arc::new(known.compared(None)));
    }
    let xml = handle.get_xml_desc(XML_INACTIVE).map_err(call)?;
    match Domain::decode(&xml, known.state) {
        Ok(definition) => Ok(Arc::new(known.compared(Some(definition)))),
        Err(error) => {
            debug!(instance.uuid = %known.uuid, error = chain(&error), "could not use a persistent definition");
            Ok(Arc::clone(known))
        }
    }
}

fn call(error: virt::error::Error) -> ReadError {
    ReadError::Call(error.into())
}

/// Which way a domain is migrating. libvirt tells of the job at the source alone, and there for as long as it lasts; one
/// that is still paused then has left, and libvirt does not know how that ended.
fn migration(handle: &Handle, paused_by_migration: bool) -> Option<Migration> {
    // Not `get_job_stats`: in `virt` 0.4.3 it makes a vector from a null pointer when there is no job.
    match handle.get_job_info() {
        Ok(job) if job.r#type != JOB_NONE => Some(Migration::Outgoing),
        Ok(_) => paused_by_migration.then_some(Migration::Away),
        Err(_) => paused_by_migration.then_some(Migration::Incoming),
    }
}

/// `VIR_DOMAIN_XML_INACTIVE`.
const XML_INACTIVE: u32 = 2;
/// `VIR_DOMAIN_PAUSED_MIGRATION`.
const PAUSED_MIGRATION: i32 = 2;
/// `VIR_DOMAIN_SHUTOFF_MIGRATED`.
const SHUTOFF_MIGRATED: i32 = 4;
/// `VIR_DOMAIN_JOB_NONE`.
const JOB_NONE: i32 = 0;

impl Drop for Connection {
    fn drop(&mut self) {
        // `Connect` of `virt` 0.4 does not close itself.
        let _ = self.connect.close();
    }
}
