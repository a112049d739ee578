//! The domains on disk, so that a restarted daemon has something to say at once: the records of the run before,
//! marked with their age, until libvirt has been read. The ports of Open vSwitch are with them, since they give ids to
//! VIFs; the links are not, since the kernel is read within a millisecond.
//!
//! One file, replaced as a whole: a header line with the version, the length and the CRC-32 of what follows, then JSON.
//! Whatever is wrong with it costs a warning and nothing else.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    health::{Health, Part},
    source::{
        Snapshot, SyncState, chain,
        libvirt::{Domains, domain::Domain},
        now,
        ovsdb::rows::{Port, Ports},
    },
};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The domains of each hypervisor, by its URI.
    pub hypervisors: BTreeMap<Arc<str>, Record<Domain>>,
    /// The ports of Open vSwitch, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Record<Port>>,
}

/// A hypervisor's URI, and its domains as they change.
pub type Hypervisor = (Arc<str>, watch::Receiver<Snapshot<Domains>>);

/// What one source knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<T> {
    /// When it was last known to be current, by the wall clock: another run may read it, even after the host's restart.
    pub since: Timestamp,
    /// The domains or ports.
    pub known: Vec<Arc<T>>,
}

impl Records {
    /// Whether the wall clock was set back since they were written. Nobody can then tell how old they are.
    #[must_use]
    pub fn are_from_the_future(&self) -> bool {
        let hypervisors = self.hypervisors.values().map(|record| record.since);
        hypervisors.chain(self.ports.as_ref().map(|record| record.since)).any(|since| since > now())
    }
}

type Changed<'a> = Pin<Box<dyn Future<Output = Result<(), watch::error::RecvError>> + Send + 'a>>;

/// Why there is nothing to be had from the file, or why it could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than any file that vifd writes.
    #[error("it has more than {LONGEST} bytes")]
    TooLong,
    /// It does not begin with our header.
    #[error("it is no cache of vifd")]
    NotOurs,
    /// Another version of vifd wrote it.
    #[error("it has the format {0}, not {VERSION}")]
    Version(u32),
    /// It was cut short or damaged.
    #[error("it is damaged")]
    Damaged,
    /// The checksum is right and the content is not.
    #[error("its records cannot be used")]
    Records(#[source] serde_json::Error),
}

/// What the run before knew. A file that does not exist is an empty one.
///
/// # Errors
/// The file cannot be used.
pub fn load(path: &Path) -> Result<Records, CacheError> {
    let read = |source| CacheError::Read { path: path.to_owned(), source };
    // A FIFO or a device in its place must not make us wait.
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::default()),
        file => file.map_err(read)?,
    };
    if !file.metadata().map_err(read)?.is_file() {
        return Err(CacheError::NotOurs);
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > LONGEST {
        return Err(CacheError::TooLong);
    }
    decode(&bytes)
}

fn decode(bytes: &[u8]) -> Result<Records, CacheError> {
    let end = bytes.iter().take(64).position(|byte| *byte == b'\n').ok_or(CacheError::NotOurs)?;
    let (header, body) = (std::str::from_utf8(&bytes[..end]).map_err(|_| CacheError::NotOurs)?, &bytes[end + 1..]);
    let mut words = header.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(CacheError::NotOurs);
    }
    let version = words.next().and_then(|word| word.parse().ok()).ok_or(CacheError::NotOurs)?;
    if version != VERSION {
        return Err(CacheError::Version(version));
    }
    let length = words.next().and_then(|word| word.parse().ok());
    let checksum = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    if length != Some(body.len()) || checksum != Some(crc32fast::hash(body)) {
        return Err(CacheError::Damaged);
    }
    serde_json::from_slice(body).map_err(CacheError::Records)
}

fn encode(records: &Records) -> Vec<u8> {
    let body = serde_json::to_vec(records).expect("records have string keys and no I/O");
    let mut bytes = format!("{MAGIC} {VERSION} {} {:08x}\n", body.len(), crc32fast::hash(&body)).into_bytes();
    bytes.extend(body);
    bytes
}

/// Replaces the file. A crash at any moment leaves the old one or the new one.
///
/// # Errors
/// The file cannot be written.
pub fn save(path: &Path, records: &Records) -> Result<(), CacheError> {
    let new = path.with_extension("new");
    let write = || {
        // Names and addresses of tenants: for the daemon's own eyes.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&encode(records))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The new name is as lasting as the content.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| {
        // What is there of it would only take up space.
        let _ = fs::remove_file(&new);
        CacheError::Write { path: path.to_owned(), source }
    })
}

impl<T> Record<T> {
    /// Where a source begins: with what was known, marked as no longer kept current.
    fn begin<D>(self, data: impl FnOnce(Vec<Arc<T>>) -> D) -> Snapshot<D> {
        let reason = "not read yet since vifd was restarted".into();
        Snapshot { data: Arc::new(data(self.known)), sync: SyncState::Stale { since: self.since.into(), reason } }
    }

    /// What is worth keeping: nothing of a source that has never been read.
    fn of<D>(snapshot: &Snapshot<D>, known: impl FnOnce(&D) -> Vec<Arc<T>>) -> Option<Self> {
        let since = match snapshot.sync {
            SyncState::Pending { .. } | SyncState::Absent => return None,
            SyncState::Synced { .. } => now(),
            SyncState::Stale { since, .. } => since.into(),
        };
        Some(Self { since, known: known(&snapshot.data) })
    }
}

impl From<Record<Domain>> for Snapshot<Domains> {
    fn from(record: Record<Domain>) -> Self {
        let known = |domains: Vec<Arc<Domain>>| domains.into_iter().map(|domain| (domain.uuid, domain)).collect();
        record.begin(|domains| Domains { known: known(domains), ..Domains::default() })
    }
}

impl From<Record<Port>> for Snapshot<Ports> {
    fn from(record: Record<Port>) -> Self {
        record.begin(|ports| ports.into_iter().collect())
    }
}

/// Keeps the file up to date with these hypervisors' domains, and with the ports, until `shutdown`, and writes it a last
/// time then.
pub async fn run(
    path: PathBuf,
    mut hypervisors: Vec<Hypervisor>,
    mut ports: watch::Receiver<Snapshot<Ports>>,
    health: Health,
    shutdown: CancellationToken,
) {
    let mut failing = false;
    let mut stopping = hypervisors.is_empty();
    while !stopping {
        let changes = hypervisors.iter_mut().map(|(_, domains)| Box::pin(domains.changed()) as Changed);
        let ports_changed: Changed = Box::pin(ports.changed());
        tokio::select! {
            (Ok(()), ..) = select_all(changes.chain([ports_changed])) => {
                // A burst of changes costs one write.
                stopping = timeout(PAUSE, shutdown.cancelled()).await.is_ok();
            }
            () = sleep(RETRY), if failing => {}
            () = shutdown.cancelled() => stopping = true,
        }
        let records = records(&mut hypervisors, &mut ports);
        let file = path.clone();
        let Ok(saved) = spawn_blocking(move || save(&file, &records)).await else { continue };
        let trouble = saved.as_ref().err().map(|error| chain(error));
        health.tell(Part::Cache, trouble.as_deref());
        match trouble {
            Some(error) if !failing => warn!(error, "a restart will begin without the records of this run"),
            None if failing => info!(path = %path.display(), "the records are written again"),
            _ => {}
        }
        failing = saved.is_err();
    }
    shutdown.cancelled().await;
}

fn records(hypervisors: &mut [Hypervisor], ports: &mut watch::Receiver<Snapshot<Ports>>) -> Records {
    let known = |domains: &Domains| domains.known.values().cloned().collect();
    let record = |(uri, domains): &mut Hypervisor| {
        let snapshot = domains.borrow_and_update().clone();
        Some((Arc::clone(uri), Record::of(&snapshot, known)?))
    };
    let ports = ports.borrow_and_update().clone();
    Records {
        hypervisors: hypervisors.iter_mut().filter_map(record).collect(),
        ports: Record::of(&ports, |ports| ports.iter().cloned().collect()),
    }
}

const MAGIC: &str = "vifd-cache";
/// Grows when a record of an older version can no longer be read.
const VERSION: u32 = 1;
/// Some 50,000 domains.
const LONGEST: u64 = 256 << 20;
/// How long changes are gathered before they are written. What is lost by a crash in between is read from libvirt
/// anyway, a moment later.
const PAUSE: Duration = Duration::from_secs(1);
/// When to try again although nothing has changed: the disk was full and has space again.
const RETRY: Duration = Duration::from_secs(10);
/// `O_NONBLOCK`.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::{
        inventory::testing::{PORT, bridged, nova, ovs_port},
        source::libvirt::domain::DomainState,
    };

    fn known() -> Records {
        let xml = nova(&bridged("fa:16:3e:00:00:01", "tap0", "<alias name='ua-x'/>"), &[PORT]);
        let domain = Arc::new(Domain::decode(&xml, DomainState::Running).unwrap());
        let since = Timestamp::UNIX_EPOCH;
        let port = Port { iface_id: Some("x".into()), error: Some("y".into()), ..ovs_port("tap0", 5) };
        Records {
            hypervisors: [("qemu:///system".into(), Record { since, known: vec![domain] })].into(),
            ports: Some(Record { since, known: vec![Arc::new(port)] }),
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_marked_with_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        assert_eq!(load(&path).unwrap(), Records::default());
        save(&path, &known()).unwrap();
        save(&path, &known()).unwrap();
        let records = load(&path).unwrap();
        assert_eq!(records, known());
        assert_eq!(Snapshot::from(records.ports.clone().unwrap()).data.by_name("tap0").unwrap().ofport, Some(5));
        let snapshot = Snapshot::from(records.hypervisors["qemu:///system"].clone());
        assert_eq!(snapshot.data.known.len(), 1);
        let SyncState::Stale { since, .. } = snapshot.sync else { panic!("{:?}", snapshot.sync) };
        assert_eq!(Timestamp::from(since), Timestamp::UNIX_EPOCH);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn every_sort_of_bad_file_is_an_error_that_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            load(&path).unwrap_err().to_string()
        };
        let good = String::from_utf8(encode(&known())).unwrap();
        assert_eq!(error(b""), "it is no cache of vifd");
        assert_eq!(error(b"\x7fELF\n"), "it is no cache of vifd");
        assert_eq!(error(good.replacen("cache 1", "cache 2", 1).as_bytes()), "it has the format 2, not 1");
        assert_eq!(error(&good.as_bytes()[..good.len() - 1]), "it is damaged");
        assert_eq!(error(good.replace("tap0", "tap1").as_bytes()), "it is damaged");
        let hostile = "[".repeat(100_000);
        let header = format!("{MAGIC} {VERSION} {} {:08x}\n", hostile.len(), crc32fast::hash(hostile.as_bytes()));
        assert_eq!(error((header + &hostile).as_bytes()), "its records cannot be used");
        assert!(load(dir.path()).is_err());
        assert!(save(Path::new("/proc/none/cache"), &known()).is_err());
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(matches!(load(&fifo), Err(CacheError::NotOurs)));
        let sparse = dir.path().join("sparse");
        File::create(&sparse).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(matches!(load(&sparse), Err(CacheError::TooLong)));
    }

    proptest! {
        #[test]
        fn no_damage_goes_unnoticed(position in any::<Index>(), value in any::<u8>(), length in any::<Index>()) {
            let good = encode(&known());
            let mut bytes = good.clone();
            let position = position.index(bytes.len());
            bytes[position] = value;
            bytes.truncate(length.index(bytes.len() + 1));
            match decode(&bytes) {
                // Upper-case digits of the checksum mean the same.
                Ok(records) => prop_assert_eq!(records, known()),
                Err(_) => prop_assert_ne!(bytes, good),
            }
        }
    }
}
