//! The processes of guests: what `/proc` tells of them where libvirt cannot be asked.
//!
//! Only a private daemon looks here, since it runs with the rights of whoever is in trouble, and once; the daemon may not
//! look into others' processes and polls nothing. In: `/proc`, the files in which libvirt keeps the state of what runs,
//! and what the hypervisors have told. Out: [`Domains`] that stand in for those that a hypervisor of their driver cannot
//! tell of, and for no others: what libvirt tells is never doubled.
//!
//! | what | from |
//! | --- | --- |
//! | that the guest runs, and its PID | `/proc` |
//! | name, UUID, interfaces with their MAC addresses | libvirt's state file, which root may read; else the [command line](command_line) |
//! | display name, project, devices that were plugged in later | the state file alone |
//! | the device of an interface | the process's [descriptors](descriptor), which are the kernel's word; else the state file |
//! | of a container without a state file | its UUID from the environment of its init, its links from its network namespace |

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::select_all;
use tokio::{sync::watch, task::spawn_blocking};
use uuid::Uuid;

use self::{
    command_line::{CommandLine, End, Nic},
    descriptor::Held,
};
use super::{
    Snapshot,
    libvirt::{
        Domains,
        domain::{Attachment, DescribedBy, Domain, DomainState, Interface, Process},
    },
    publish,
};

pub mod command_line;
mod container;
pub mod descriptor;

/// What stands in the place of a hypervisor's URI.
pub const URI: &str = "/proc";
/// Where libvirt keeps the state of what runs, in a directory for each driver.
const STATE: &str = "/run/libvirt";

/// A hypervisor's URI and its domains.
pub type Hypervisor = (Arc<str>, watch::Receiver<Snapshot<Domains>>);

/// Stands in for what these hypervisors cannot tell, as soon as that is known of each.
pub async fn run(mut hypervisors: Vec<Hypervisor>, tx: watch::Sender<Snapshot<Domains>>) -> Infallible {
    loop {
        let told: Vec<_> =
            hypervisors.iter_mut().map(|(uri, rx)| (Arc::clone(uri), rx.borrow_and_update().clone())).collect();
        if told.iter().all(|(_, snapshot)| snapshot.sync.is_decided()) {
            let wanted = told.iter().any(|(_, snapshot)| lacks(snapshot));
            let found = if wanted { spawn_blocking(read).await.unwrap_or_default() } else { Vec::new() };
            publish(&tx, stand_in(found, &told));
        }
        let changes: Vec<_> = hypervisors.iter_mut().map(|(_, rx)| Box::pin(rx.changed())).collect();
        if changes.is_empty() || select_all(changes).await.0.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether there may be domains that the hypervisor does not tell of.
fn lacks(snapshot: &Snapshot<Domains>) -> bool {
    !snapshot.sync.is_synced() || !snapshot.data.unreadable.is_empty()
}

/// Those domains that a hypervisor of their driver cannot tell of, and that no hypervisor knows.
fn stand_in(found: Vec<Domain>, told: &[(Arc<str>, Snapshot<Domains>)]) -> Domains {
    let is_missed = |domain: &Domain| {
        let driver = if &*domain.kind == "lxc" { "lxc" } else { "qemu" };
        let mut own = told.iter().filter(|(uri, _)| uri.split([':', '+']).next() == Some(driver));
        let untold = own.any(|(_, told)| !told.sync.is_synced() || told.data.unreadable.contains_key(&domain.uuid));
        untold && !told.iter().any(|(_, told)| told.data.known.contains_key(&domain.uuid))
    };
    let missed = found.into_iter().filter(is_missed).map(|domain| (domain.uuid, Arc::new(domain)));
    Domains { known: missed.collect(), unreadable: BTreeMap::new() }
}

/// Every guest that runs in our network namespace.
fn read() -> Vec<Domain> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let guests = pids.into_iter().filter_map(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let command_line = CommandLine::decode(&fs::read(process.join("cmdline")).ok()?)?;
        // The devices of another namespace would be mistaken for ours.
        let elsewhere = fs::read_link(process.join("ns/net")).is_ok_and(|theirs| Some(theirs) != own);
        (!elsewhere).then(|| domain(pid, &process, command_line)).flatten()
    });
    guests.collect()
}

/// The domain that this process runs.
fn domain(pid: u32, process: &Path, command_line: CommandLine) -> Option<Domain> {
    let name = command_line.name.as_deref().unwrap_or_default();
    let file = Path::new(STATE).join(command_line.driver).join(format!("{name}.xml"));
    let state = fs::read_to_string(file).ok().and_then(|xml| Domain::decode_state_file(&xml).ok());
    // It may be left from another run.
    let is_current = |domain: &Domain| {
        domain.process.is_some_and(|process| process.pid == pid)
            && command_line.uuid.is_none_or(|uuid| uuid == domain.uuid)
    };
    let held = descriptor::of(process);
    match state.filter(is_current) {
        Some(domain) => Some(confirmed(domain, held.as_deref().unwrap_or_default())),
        None if command_line.driver == "lxc" => contained(pid, process, &command_line),
        None => Some(described(pid, &command_line, held)?),
    }
}

/// A domain that libvirt's state file describes. Where the process holds a device that nothing in there names, it was
/// renamed, or plugged in behind libvirt's back.
fn confirmed(mut domain: Domain, held: &[Held]) -> Domain {
    let named = |device: &str| domain.interfaces.iter().any(|interface| interface.target.as_deref() == Some(device));
    let mut others: Vec<_> = held.iter().map(|held| &held.device).filter(|device| !named(device)).collect();
    others.dedup();
    let warnings: Vec<_> = others
        .into_iter()
        .map(|device| format!("its process holds the device {device}, which libvirt's state file does not name"))
        .collect();
    domain.warnings.extend(warnings);
    domain
}

/// A domain that only its command line describes.
fn described(pid: u32, command_line: &CommandLine, held: io::Result<Vec<Held>>) -> Option<Domain> {
    let mut domain = bare(pid, command_line, command_line.uuid?);
    let mut unnamed: Vec<_> = held.iter().flatten().map(|held| &held.device).collect();
    unnamed.dedup();
    for nic in &command_line.nics {
        let interface = interface(nic, held.as_deref().unwrap_or_default());
        unnamed.retain(|device| interface.target.as_ref() != Some(device));
        domain.interfaces.push(interface);
    }
    let later = unnamed.into_iter().map(|device| {
        format!("it holds the device {device} too, of which its command line says nothing: plugged in later, with a MAC address that is not known")
    });
    domain.warnings.extend(later);
    let handed = command_line.pci_devices.iter();
    domain.warnings.extend(
        handed.map(|pci| format!("the PCI device {pci} is handed to it: whether that is a network card is not known")),
    );
    if let Err(error) = held {
        let why = "its descriptors cannot be read, so the devices of its interfaces are not known";
        domain.warnings.push(format!("{why}: {error}"));
    }
    Some(domain)
}

/// A container without a state file.
fn contained(pid: u32, process: &Path, command_line: &CommandLine) -> Option<Domain> {
    let children = fs::read_to_string(process.join(format!("task/{pid}/children"))).ok()?;
    let init = PathBuf::from(format!("/proc/{}", children.split_whitespace().next()?));
    let mut domain = bare(pid, command_line, container_uuid(&fs::read(init.join("environ")).ok()?)?);
    match container::ends(&init) {
        Ok(ends) => domain.interfaces.extend(ends.into_iter().map(|end| {
            let target = end.device();
            let attachment = match end.peer {
                Some(_) => Attachment::Ethernet,
                None => Attachment::Direct { lower_device: None, mode: None, network: None },
            };
            Interface { guest_device: Some(end.name), target, ..Interface::bare(end.mac, attachment) }
        })),
        Err(error) => domain.warnings.push(format!("its network namespace cannot be looked into: {error}")),
    }
    Some(domain)
}

fn bare(pid: u32, command_line: &CommandLine, uuid: Uuid) -> Domain {
    Domain {
        uuid,
        name: command_line.name.clone().unwrap_or_else(|| uuid.to_string().into()),
        id: command_line.libvirt_id,
        kind: command_line.kind.into(),
        // That it runs, and not whether its processors do.
        state: DomainState::NoState,
        migration: None,
        title: None,
        cloud: None,
        interfaces: Vec::new(),
        persistent: None,
        defined_only: Vec::new(),
        process: Some(Process { pid, described_by: DescribedBy::CommandLine }),
        warnings: Vec::new(),
    }
}

fn interface(nic: &Nic, held: &[Held]) -> Interface {
    let mut target = None;
    let attachment = match &nic.end {
        End::Tap { descriptors, name } => {
            let by = |held: &&Held| descriptors.contains(&held.descriptor);
            target = held.iter().find(by).map(|held| Arc::clone(&held.device)).or_else(|| name.clone());
            Attachment::Ethernet
        }
        End::Vhostuser { socket } => Attachment::Vhostuser { socket: socket.clone(), mode: None },
        End::Vdpa { character_device } => Attachment::Vdpa { character_device: character_device.clone() },
        End::Other(name) => Attachment::Other { name: Arc::clone(name) },
    };
    Interface {
        target,
        alias: nic.alias.clone(),
        model: Some(Arc::clone(&nic.model)),
        ..Interface::bare(nic.mac, attachment)
    }
}

/// What libvirt puts into the environment of a container's init.
fn container_uuid(environment: &[u8]) -> Option<Uuid> {
    let uuid = environment.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(b"LIBVIRT_LXC_UUID="))?;
    std::str::from_utf8(uuid).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
