//! `vifctl` without the daemon: it starts one for itself, which reads everything once and answers to nobody else.
//!
//! So every command has one way to its answer, and `vifctl` itself neither links libvirt nor reads any source.

use std::{
    env, io,
    os::{fd::OwnedFd, unix::net},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::net::UnixStream;

use super::{client::ClientError, words::plain};
use crate::{
    http::host::{Answer, Sources, Sync},
    source::{SyncState, chain},
};

/// Why there is no private daemon.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("could not make a pair of sockets")]
    Sockets(#[source] io::Error),
    #[error("could not start {}", program.display())]
    Spawn {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("it had nothing to say within {0:?}")]
    Silent(Duration),
}

/// Starts `vifd` as our child, and returns the connection to it. It ends when the connection does.
pub(super) fn start(config: Option<&Path>) -> Result<UnixStream, StartError> {
    let (ours, its) = net::UnixStream::pair().map_err(StartError::Sockets)?;
    ours.set_nonblocking(true).map_err(StartError::Sockets)?;
    let program = vifd();
    let mut command = Command::new(&program);
    command.arg("--private").args(config.iter().flat_map(|path| [Path::new("--config"), path]));
    // Ours may come from a service that is somebody else's.
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::from(OwnedFd::from(its))).stdout(Stdio::null());
    command.spawn().map_err(|source| StartError::Spawn { program, source })?;
    UnixStream::from_std(ours).map_err(StartError::Sockets)
}

/// The daemon that was installed with us, else any.
fn vifd() -> PathBuf {
    let beside = env::current_exe().map(|own| own.with_file_name("vifd"));
    beside.ok().filter(|path| path.exists()).unwrap_or_else(|| "vifd".into())
}

/// Tells the user where the answer comes from, and what it lacks.
pub(super) fn tell(why: Option<&ClientError>, answer: &Answer<Sync>) {
    if let Some(why) = why {
        eprintln!("vifctl: {}", chain(why));
    }
    eprintln!("vifctl: this was collected just now, without the daemon, as {}", user());
    for (source, why) in lacks(&answer.sources) {
        let advice = advice(&source, &why).map(|advice| format!("; {advice}")).unwrap_or_default();
        eprintln!("vifctl: could not read {}: {}{advice}", plain(&source), plain(&why));
    }
}

fn user() -> String {
    let uid = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    match name {
        Some(name) if uid.is_root() => name,
        Some(name) => format!("{name}: what this user may not read is missing"),
        None => format!("uid {uid}: what this user may not read is missing"),
    }
}

/// The sources that could not be read, and why. An optional hypervisor is one only if it is there and does not answer,
/// or if there is no other.
fn lacks(sources: &Sources) -> Vec<(String, String)> {
    let Sources { netlink, neighbours, ovsdb, leases, hypervisors } = sources;
    let host = [("links", netlink), ("neighbours", neighbours), ("Open vSwitch", ovsdb), ("DHCP leases", leases)];
    let listed = hypervisors.iter().any(|h| h.optional && h.sync.is_synced());
    let is_news = |sync: &SyncState| !listed || sync.reason().is_some_and(|why| why.contains("answer"));
    let hypervisors = hypervisors.iter().filter(|h| !h.optional || is_news(&h.sync)).map(|h| (&*h.uri, &h.sync));
    let lack = |(name, sync): (&str, &SyncState)| match sync {
        SyncState::Synced { .. } | SyncState::Absent => None,
        sync => Some((name.to_owned(), sync.reason().unwrap_or("not tried").to_owned())),
    };
    host.into_iter().chain(hypervisors).filter_map(lack).collect()
}

/// What to do about a source that could not be read.
fn advice(source: &str, why: &str) -> Option<&'static str> {
    let is_hypervisor = source.contains(':');
    if ["ermission denied", "not permitted", "authentication"].iter().any(|word| why.contains(word)) {
        return Some("run vifctl as root");
    }
    match source {
        "Open vSwitch" => Some("see `systemctl status ovsdb-server`"),
        _ if is_hypervisor && why.contains("answer") => {
            Some("it is there and hangs: see `systemctl status libvirtd virtqemud`")
        }
        _ if is_hypervisor => Some("does libvirt run? see `systemctl status libvirtd virtqemud`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inventory::Hypervisor, source::moment::Moment};

    fn hypervisor(uri: &str, optional: bool, sync: SyncState) -> Hypervisor {
        Hypervisor { uri: uri.into(), optional, sync, unread: Vec::new() }
    }

    fn pending(why: &str) -> SyncState {
        SyncState::Pending { reason: Some(why.into()) }
    }

    fn lacking(hypervisors: Vec<Hypervisor>) -> Vec<String> {
        let synced = SyncState::Synced { since: Moment::now() };
        let sources = Sources {
            netlink: synced.clone(),
            neighbours: synced.clone(),
            ovsdb: SyncState::Absent,
            leases: synced,
            hypervisors,
        };
        lacks(&sources).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_hypervisor_that_the_host_does_not_offer_is_not_missed_where_another_is_there() {
        let synced = || SyncState::Synced { since: Moment::now() };
        let (qemu, lxc) = ("qemu:///system", "lxc:///system");
        let none = || pending("could not connect: no connection driver available");
        assert!(lacking(vec![hypervisor(qemu, true, synced()), hypervisor(lxc, true, none())]).is_empty());
        assert_eq!(lacking(vec![hypervisor(qemu, true, none()), hypervisor(lxc, true, none())]), [qemu, lxc]);
        assert_eq!(lacking(vec![hypervisor(qemu, false, none()), hypervisor(lxc, true, synced())]), [qemu]);
        let hung = pending("no answer within 3s");
        assert_eq!(lacking(vec![hypervisor(qemu, true, hung), hypervisor(lxc, true, synced())]), [qemu]);
    }

    #[test]
    fn what_may_not_be_read_needs_root_and_what_is_not_there_needs_a_look_at_its_service() {
        let refused =
            "could not connect: Failed to connect socket to '/run/libvirt/libvirt-sock-ro': Permission denied";
        assert_eq!(advice("qemu:///system", refused), Some("run vifctl as root"));
        let absent = "could not connect: Failed to connect socket: No such file or directory";
        assert!(advice("qemu:///system", absent).unwrap().contains("does libvirt run?"));
        assert!(advice("qemu:///system", "no answer within 3s").unwrap().contains("hangs"));
        assert!(advice("Open vSwitch", "no answer within 3s").unwrap().contains("ovsdb-server"));
    }
}
