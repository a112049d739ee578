//! DHCP leases of this host's libvirt networks: follows the files in which libvirt keeps them, and publishes [`Leases`].
//!
//! libvirt sends no event for a lease. But whenever its dnsmasq gives, renews or takes one, libvirt's helper replaces the file
//! `BRIDGE.status` in a directory that anybody may read; so that is watched, as libvirt's own name service plugin
//! (`libnss-libvirt`) reads it. It stays true while libvirtd is down, and no call can hang. Each event makes us read every file
//! again, as does the moment when a lease expires.
//!
//! Where there is no such directory, there are no such networks.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, Read},
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use super::{Backoff, Snapshot, SyncState, chain, publish};
use crate::{config::LeasesConfig, mac::MacAddr, meters::SourceMeters};

/// An address that a DHCP server has given to a guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// By its MAC address.
    pub mac: MacAddr,
    /// The bridge of the network.
    pub bridge: Arc<str>,
    /// The address.
    pub address: IpAddr,
    /// Until when; absent where it is for ever.
    pub expires: Option<Timestamp>,
    /// How the guest calls itself.
    pub hostname: Option<Arc<str>>,
}

/// The leases that have not expired, by MAC address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases(Vec<Lease>);

impl Leases {
    /// Those of this MAC address.
    #[must_use]
    pub fn of(&self, mac: MacAddr) -> &[Lease] {
        let start = self.0.partition_point(|lease| lease.mac < mac);
        let length = self.0[start..].partition_point(|lease| lease.mac == mac);
        &self.0[start..start + length]
    }

    /// Every lease.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.0.iter()
    }

    /// The MAC addresses of which the two have different leases.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = MacAddr> + 'a {
        let missing = |a: &'a Self, b: &'a Self| a.0.iter().filter(|lease| b.0.binary_search(lease).is_err());
        missing(self, other).chain(missing(other, self)).map(|lease| lease.mac)
    }
}

impl FromIterator<Lease> for Leases {
    fn from_iter<I: IntoIterator<Item = Lease>>(leases: I) -> Self {
        let mut leases: Vec<_> = leases.into_iter().collect();
        leases.sort_unstable();
        Self(leases)
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The directory cannot be watched.
    #[error("could not watch {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory went away.
    #[error("the directory was removed or replaced")]
    Gone,
    /// The directory or a file in it cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what libvirt writes.
    #[error("{} makes no sense", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl SessionError {
    /// Whether this only means that the host has no libvirt networks.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Watch { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Follows the leases for ever.
pub async fn run(config: LeasesConfig, tx: watch::Sender<Snapshot<Leases>>, meters: Arc<SourceMeters>) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let Err(error) = session(&config, &tx, &meters).await;
        let reason = chain(&error);
        if started.elapsed() > HEALTHY {
            backoff.reset();
        }
        let known = matches!(tx.borrow().sync, SyncState::Synced { .. } | SyncState::Stale { .. });
        let absent = error.is_absence() && !known;
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
        match (news, absent) {
            (true, true) => debug!(directory = %config.directory.display(), "no leases of libvirt networks here"),
            (true, false) => warn!(error = reason, "cannot follow the DHCP leases; trying again until it works"),
            (false, _) => {}
        }
        sleep(if absent { ABSENT_RETRY } else { backoff.delay() }).await;
    }
}

/// Watches, reads, follows. Dropping the future is safe: it publishes whole snapshots.
async fn session(
    config: &LeasesConfig,
    tx: &watch::Sender<Snapshot<Leases>>,
    meters: &SourceMeters,
) -> Result<Infallible, SessionError> {
    let changes = Changes::of(&config.directory)?;
    loop {
        let directory = config.directory.clone();
        let leases =
            spawn_blocking(move || read(&directory, Timestamp::now())).await.expect("reading does not panic")?;
        meters.listings.count();
        if !tx.borrow().sync.is_synced() {
            meters.syncs.count();
            info!(leases = leases.0.len(), "read all DHCP leases");
        }
        let expiry = leases.iter().filter_map(|lease| lease.expires).min();
        publish(tx, leases);
        // Renewals of many guests cost a few readings a second.
        sleep(PAUSE).await;
        tokio::select! {
            changed = changes.next() => {
                changed?;
                meters.events.count();
            }
            () = sleep(until(expiry).min(config.resync_interval)) => {}
        }
    }
}

/// How long until then.
fn until(expiry: Option<Timestamp>) -> Duration {
    expiry.map_or(Duration::MAX, |expiry| expiry.duration_since(Timestamp::now()).try_into().unwrap_or_default())
}

/// The kernel's word that something in the directory has changed.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(directory: &Path) -> Result<Self, SessionError> {
        let watch = || -> io::Result<_> {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let files = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
            let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
            inotify::add_watch(&inotify, directory, files | itself)?;
            #[expect(deprecated, reason = "its replacement is unsafe; what it warns of cannot happen to an OwnedFd")]
            AsyncFd::new(inotify)
        };
        watch().map(Self).map_err(|source| SessionError::Watch { path: directory.to_owned(), source })
    }

    /// Waits until a file with leases has changed. Dropping the future loses nothing: what it has not read waits.
    async fn next(&self) -> Result<(), SessionError> {
        loop {
            let read_error = |source| SessionError::Read { path: "inotify".into(), source };
            self.0.readable().await.map_err(read_error)?.clear_ready();
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(self.0.get_ref(), &mut buffer);
            let mut changed = false;
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(read_error(error.into())),
                };
                let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
                if event.events().intersects(gone) {
                    return Err(SessionError::Gone);
                }
                let name = event.file_name().map(std::ffi::CStr::to_bytes);
                changed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                    || name.is_some_and(|name| name.ends_with(SUFFIX.as_bytes()));
            }
            if changed {
                return Ok(());
            }
        }
    }
}

/// The leases in every file of the directory that have not expired by `now`.
fn read(directory: &Path, now: Timestamp) -> Result<Leases, SessionError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SessionError::Read { path, source }
    };
    let mut leases = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(bridge) = name.and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let mut bytes = Vec::new();
        let file = File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
        match file {
            // The network was undefined meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(failed(&path))?,
        };
        let decoded = decode(bridge, &bytes, now);
        leases.extend(decoded.map_err(|source| SessionError::Malformed { path: path.clone(), source })?);
    }
    Ok(leases.into_iter().collect())
}

/// The leases of one network; see `src/network/leaseshelper.c` of libvirt. One that cannot be used costs a warning.
fn decode(bridge: &str, bytes: &[u8], now: Timestamp) -> Result<Vec<Lease>, serde_json::Error> {
    // So it is before the first lease.
    if bytes.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let bridge: Arc<str> = bridge.into();
    let mut leases = Vec::new();
    for entry in serde_json::from_slice::<Vec<Value>>(bytes)? {
        match Entry::deserialize(&entry) {
            Ok(entry) => leases.extend(entry.lease(&bridge).filter(|lease| lease.expires.is_none_or(|end| end > now))),
            Err(error) => warn!(bridge = &*bridge, %error, "ignored a DHCP lease"),
        }
    }
    Ok(leases)
}

/// A lease as libvirt writes it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    ip_address: IpAddr,
    /// Absent where an IPv6 client is known by its DUID alone.
    mac_address: Option<MacAddr>,
    hostname: Option<Arc<str>>,
    /// Seconds since 1970; 0 for a lease without end.
    #[serde(default)]
    expiry_time: i64,
}

impl Entry {
    fn lease(self, bridge: &Arc<str>) -> Option<Lease> {
        let expires = Some(self.expiry_time).filter(|seconds| *seconds != 0);
        Some(Lease {
            mac: self.mac_address?,
            bridge: Arc::clone(bridge),
            address: self.ip_address,
            expires: expires.map(Timestamp::from_second).transpose().ok()?,
            hostname: self.hostname.filter(|name| !name.is_empty()),
        })
    }
}

/// What follows the bridge in a file's name.
const SUFFIX: &str = ".status";
/// Some 100,000 leases.
const LONGEST: u64 = 32 << 20;
const PAUSE: Duration = Duration::from_millis(200);
/// A session that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// A look whether the directory exists costs nothing, and nobody installs libvirt more often.
const ABSENT_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
