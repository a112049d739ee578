//! The truth about interfaces: instances joined with the links that carry their VIFs.
//!
//! In: the snapshots of all sources. Out: one [`Inventory`], published whole. It is immutable, so one answer is
//! consistent in itself; whatever vifd answers, it answers from here.

use std::{convert::Infallible, fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::future::select_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tracing::debug;
use uuid::Uuid;

use self::{index::Index, join::Origin};
use crate::{
    config::NameTemplate,
    mac::MacAddr,
    meters::Histogram,
    pci::PciAddress,
    source::{
        Snapshot, SyncState,
        leases::Leases,
        libvirt::{
            Domains,
            domain::{DomainState, Interface, Manager, Migration, Owner, Process},
            doubts::Doubts,
        },
        moment::Moment,
        netlink::{
            function::VirtualFunction,
            link::{Link, Links},
            neighbour::Neighbours,
        },
        ovsdb::rows::{Port, Ports},
    },
};

mod address;
mod beginning;
pub mod births;
pub mod changes;
mod doubt;
mod find;
mod index;
mod join;
pub mod path;
pub mod recent;
pub mod record;
mod segment;
#[cfg(test)]
pub(crate) mod testing;
mod vif_id;
mod why;

pub use address::{Address, AddressSource};
pub use beginning::Beginnings;
pub use doubt::Misplaced;
pub use find::{Match, MatchedBy};
pub use join::join;
pub use why::{Why, Witness};

/// Everything that is known at one moment.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Grows by one with each change since vifd started.
    pub generation: u64,
    /// The kernel's links, as a source.
    pub netlink: Option<SyncState>,
    /// The kernel's neighbours, as a source.
    pub neighbours: Option<SyncState>,
    /// The Open vSwitch database, as a source.
    pub ovsdb: Option<SyncState>,
    /// The DHCP leases of libvirt networks, as a source.
    pub leases: Option<SyncState>,
    /// The hypervisors, as sources.
    pub hypervisors: Vec<Hypervisor>,
    /// Every instance, by hypervisor and name.
    pub instances: Vec<Arc<Instance>>,
    links: Arc<Links>,
    ports: Arc<Ports>,
    by_key: Arc<Keys>,
    by_carrier: Arc<Carriers>,
    by_address: Arc<Index<IpAddr, VifPosition>>,
    links_by_name: Arc<Index<Arc<str>, u32>>,
    links_by_mac: Arc<Index<MacAddr, u32>>,
    origin: Origin,
}

/// Where an instance or a VIF is found by something that does not depend on its devices.
#[derive(Debug, Default)]
struct Keys {
    uuid: Index<Uuid, u32>,
    number: Index<u64, u32>,
    name: Index<Arc<str>, u32>,
    vif_id: Index<Uuid, VifPosition>,
    mac: Index<MacAddr, VifPosition>,
    target: Index<Arc<str>, VifPosition>,
    pci: Index<PciAddress, VifPosition>,
    socket: Index<Arc<str>, VifPosition>,
}

/// Where a VIF is found by what carries it.
#[derive(Debug, Default)]
struct Carriers {
    device: Index<u32, VifPosition>,
    ovs_port: Index<Arc<str>, VifPosition>,
    /// By the link of the physical function, and by the virtual function's own while the host has it.
    virtual_function: Index<u32, VifPosition>,
}

/// A VIF's place: its instance's in [`Inventory::instances`], and its own in [`Instance::vifs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct VifPosition {
    instance: u32,
    vif: u32,
}

/// One hypervisor and whether its domains are kept current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hypervisor {
    /// Its libvirt URI.
    pub uri: Arc<str>,
    /// It was not configured, but tried because most hosts offer it.
    pub optional: bool,
    /// Whether its domains are kept current.
    #[serde(flatten)]
    pub sync: SyncState,
    /// Domains that exist but have never been read.
    pub unread: Vec<Uuid>,
}

/// A guest as the cloud knows it: a domain joined with its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    /// The instance's UUID, which is the domain's.
    pub uuid: Uuid,
    /// libvirt's name for it.
    pub name: Arc<str>,
    /// The integer id, where the name follows the cloud's template.
    pub number: Option<u64>,
    /// libvirt's number for it while it runs.
    pub libvirt_id: Option<u32>,
    /// The name that the tenant chose.
    pub display_name: Option<Arc<str>>,
    /// The project that owns it; without one it is the administrators' alone.
    pub project: Option<Owner>,
    /// The user who made it.
    pub user: Option<Owner>,
    /// The cloud manager that wrote its metadata.
    pub manager: Option<Manager>,
    /// What it is doing.
    pub state: DomainState,
    /// Whether it is on its way to another host, or from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// The URI of its hypervisor.
    pub hypervisor: Arc<str>,
    /// The hypervisor type: `kvm`, `qemu`, `lxc`, …
    pub hypervisor_type: Arc<str>,
    /// The generation in which this record last changed.
    pub revision: u64,
    /// When that was; since the start of vifd at the longest.
    pub changed: Moment,
    /// Set while this one domain cannot be read although its hypervisor answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Staleness>,
    /// Set where its hypervisor could not be asked, and `vifctl` found it by itself: the process that it is known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// What in its description could not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Its virtual interfaces, in the order of the devices in the guest.
    pub vifs: Vec<Vif>,
    /// While it runs: whether it has a persistent definition, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    /// The interfaces that only its persistent definition has, while it runs: its next start adds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defined_only: Vec<Interface>,
}

/// Since when and why a record is no longer kept current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Staleness {
    /// When it was last known to be current.
    pub since: Moment,
    /// Why.
    pub reason: Arc<str>,
}

/// One virtual interface of an instance, and the link that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vif {
    /// The VIF id: the Neutron port id where there is one.
    pub id: Uuid,
    /// Where the id comes from.
    pub id_source: VifIdSource,
    /// What other sources say, where they disagree with `id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub id_disagreement: Vec<Evidence>,
    /// What other sources say, where they disagree with the domain's description.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disagreements: Vec<Disagreement>,
    /// The id of its network, where Open vSwitch has it; nothing else on a host does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_id: Option<Uuid>,
    /// What the domain's description says.
    #[serde(flatten)]
    pub interface: Interface,
    /// Its IP addresses, as each source has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// The link that carries it on this host.
    pub device: Option<Device>,
    /// Why there is no such link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_device: Option<NoDevice>,
    /// The virtual function of a network card that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_function: Option<PassedFunction>,
    /// The name of the Open vSwitch port that it is plugged into: usually the device's, but behind a Linux bridge
    /// (OpenStack's hybrid plug) another link's, and for a vhost-user socket no link's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ovs_port: Option<Arc<str>>,
}

/// A link of this host, by its identity and its present name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// `ifindex`.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
}

/// A virtual function that is handed to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassedFunction {
    /// What its card says about it.
    #[serde(flatten)]
    pub function: VirtualFunction,
    /// The link of the card's physical function.
    pub physical_function: Device,
    /// Its own link, which it has only while no guest has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Device>,
}

/// Where a VIF id comes from, strongest evidence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VifIdSource {
    /// `external_ids:iface-id` of its Open vSwitch port.
    Ovsdb,
    /// `virtualport/parameters@interfaceid`.
    Virtualport,
    /// The instance's one port whose id begins with the 11 characters that the target's name ends with.
    TargetName,
    /// An alias of the form `ua-<uuid>`.
    Alias,
    /// The only port of an instance with one VIF.
    OnlyPort,
    /// Made from the instance's UUID and the MAC address: stable, but known to vifd alone.
    Synthetic,
}

/// What one source says about a VIF's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The source.
    pub source: VifIdSource,
    /// What it says.
    pub id: Uuid,
}

/// Something about a VIF on which another source disagrees with the domain's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disagreement {
    /// What is in doubt.
    pub what: Fact,
    /// Who disagrees.
    pub source: FactSource,
    /// What it says.
    pub value: Arc<str>,
}

/// What two sources may disagree about. On the VIF id they do in [`Vif::id_disagreement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The VIF's MAC address.
    MacAddress,
    /// The UUID of the instance that the VIF belongs to.
    Instance,
    /// The bridge that the VIF is plugged into.
    Bridge,
    /// The VLAN that the VIF's frames are put into, 0 for none.
    Vlan,
}

/// A source other than the domain's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactSource {
    /// The VIF's port in the Open vSwitch database.
    Ovsdb,
    /// The network card that the VIF is a virtual function of.
    PhysicalFunction,
}

/// Why a VIF has no link on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoDevice {
    /// The instance does not run.
    NotRunning,
    /// Interfaces of this type have no link.
    TypeHasNone,
    /// A socket shared with a switch in user space.
    VhostUser,
    /// A PCI device handed to the guest.
    PassedThrough,
    /// A vDPA character device.
    Vdpa,
    /// The device was moved into the container.
    InContainer,
    /// libvirt names no target device.
    NoTarget,
    /// No link has the target's name.
    TargetMissing,
    /// The kernel's links are not known yet.
    LinksPending,
}

impl Inventory {
    /// The instance with this UUID. Should two hypervisors have one (a migration within the host), the active one.
    #[must_use]
    pub fn instance(&self, uuid: Uuid) -> Option<&Arc<Instance>> {
        self.pick(self.by_key.uuid.get(&uuid))
    }

    /// The instance with this integer id.
    #[must_use]
    pub fn instance_by_number(&self, number: u64) -> Option<&Arc<Instance>> {
        self.pick(self.by_key.number.get(&number))
    }

    /// The instance with this libvirt name.
    #[must_use]
    pub fn instance_by_name(&self, name: &str) -> Option<&Arc<Instance>> {
        self.pick(self.by_key.name.get(name))
    }

    fn pick(&self, positions: impl Iterator<Item = u32>) -> Option<&Arc<Instance>> {
        positions.map(|n| &self.instances[n as usize]).max_by_key(|instance| instance.libvirt_id.is_some())
    }

    /// Every VIF with this id, with its instance.
    pub fn vifs_by_id(&self, id: Uuid) -> impl Iterator<Item = (&Arc<Instance>, &Vif)> {
        self.by_key.vif_id.get(&id).map(|position| self.vif(position))
    }

    /// Every VIF with this MAC address, with its instance.
    pub fn vifs_by_mac(&self, mac: MacAddr) -> impl Iterator<Item = (&Arc<Instance>, &Vif)> {
        self.by_key.mac.get(&mac).map(|position| self.vif(position))
    }

    /// Every VIF that the link with this index carries, with its instance.
    pub fn vifs_by_device(&self, index: u32) -> impl Iterator<Item = (&Arc<Instance>, &Vif)> {
        self.by_carrier.device.get(&index).map(|position| self.vif(position))
    }

    fn vif(&self, position: VifPosition) -> (&Arc<Instance>, &Vif) {
        let instance = &self.instances[position.instance as usize];
        (instance, &instance.vifs[position.vif as usize])
    }

    /// The links of this host.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The ports of this host's Open vSwitch bridges.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The Open vSwitch port that this VIF is plugged into.
    #[must_use]
    pub fn ovs_port(&self, vif: &Vif) -> Option<&Arc<Port>> {
        self.ports.by_name(vif.ovs_port.as_ref()?)
    }

    /// The link that has this name or alternative name.
    #[must_use]
    pub fn link_by_name(&self, name: &str) -> Option<&Arc<Link>> {
        self.links_by_name.get(name).find_map(|index| self.links.get(index))
    }

    /// Why, and since when, this record is not kept current; nothing if it is.
    #[must_use]
    pub fn staleness(&self, instance: &Instance) -> Option<Staleness> {
        let hypervisor = self.hypervisors.iter().find(|h| h.uri == instance.hypervisor)?;
        let lost = |sync: &SyncState| match sync {
            SyncState::Stale { since, reason } => Some(Staleness { since: *since, reason: Arc::clone(reason) }),
            _ => None,
        };
        let from_ovsdb = |vif: &Vif| vif.id_source == VifIdSource::Ovsdb || vif.network_id.is_some();
        let known_by_ovsdb = || instance.vifs.iter().any(from_ovsdb);
        lost(&hypervisor.sync)
            .or_else(|| instance.unreadable.clone())
            .or_else(|| self.ovsdb.as_ref().filter(|_| known_by_ovsdb()).and_then(lost))
    }

    /// Since when an instance that is not in here may exist all the same, because a hypervisor is not kept current.
    #[must_use]
    pub fn staleness_of_absence(&self) -> Option<Staleness> {
        let stale = self.hypervisors.iter().filter_map(|h| match &h.sync {
            SyncState::Stale { since, reason } => Some(Staleness { since: *since, reason: Arc::clone(reason) }),
            _ => None,
        });
        stale.min_by_key(|staleness| staleness.since)
    }

    /// Whether an instance that is not in here does not exist. False until every hypervisor has been listed: an
    /// optional one counts only if no other optional one has been.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.generation > 0
            && self.hypervisors.iter().all(|h| !h.sync.is_pending() || self.is_dispensable(h))
            && self.hypervisors.iter().all(|h| h.unread.is_empty())
    }

    /// Whether nobody waits for this hypervisor: it is optional and was never listed, and another optional one was.
    #[must_use]
    pub fn is_dispensable(&self, hypervisor: &Hypervisor) -> bool {
        let optional_listed = || self.hypervisors.iter().any(|h| h.optional && !h.sync.is_pending());
        hypervisor.optional && hypervisor.sync.is_pending() && optional_listed()
    }

    /// Whether the links and every hypervisor have been read at least once. An Open vSwitch that vifd's user may not
    /// read is no reason to wait: ids then come from the next best evidence.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let read = |sync: &Option<SyncState>| sync.as_ref().is_some_and(|sync| !sync.is_pending());
        read(&self.netlink) && self.is_complete()
    }

    /// Whether the first attempt to read each source has succeeded or failed.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let decided = |sync: &Option<SyncState>| sync.as_ref().is_some_and(SyncState::is_decided);
        let host = [&self.netlink, &self.neighbours, &self.ovsdb, &self.leases];
        host.into_iter().all(decided) && self.hypervisors.iter().all(|h| h.sync.is_decided())
    }

    /// Whether each domain that runs has been compared with its persistent definition.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        let compared = |i: &Arc<Instance>| {
            i.libvirt_id.is_none() || i.persistent.is_some() || i.unreadable.is_some() || i.process.is_some()
        };
        self.instances.iter().all(compared)
    }

    /// The ids of ports that the cloud gave to instances of this host, where several begin with the same 11 characters.
    pub fn ids_with_shared_starts(&self) -> impl Iterator<Item = Uuid> {
        self.origin.shared.ids()
    }

    /// How many VIFs there are.
    #[must_use]
    pub fn vif_count(&self) -> usize {
        self.instances.iter().map(|instance| instance.vifs.len()).sum()
    }
}

/// The ends of the sources' channels.
#[derive(Debug)]
pub struct Sources {
    /// The kernel's links.
    pub links: watch::Receiver<Snapshot<Links>>,
    /// The kernel's neighbours.
    pub neighbours: watch::Receiver<Snapshot<Neighbours>>,
    /// The ports of the Open vSwitch bridges.
    pub ports: watch::Receiver<Snapshot<Ports>>,
    /// The DHCP leases of libvirt networks.
    pub leases: watch::Receiver<Snapshot<Leases>>,
    /// The domains of each hypervisor.
    pub hypervisors: Vec<HypervisorSource>,
}

/// One hypervisor's channel.
#[derive(Debug)]
pub struct HypervisorSource {
    /// Its libvirt URI.
    pub uri: Arc<str>,
    /// See [`Hypervisor::optional`].
    pub optional: bool,
    /// Its domains.
    pub domains: watch::Receiver<Snapshot<Domains>>,
}

/// What all sources say at one moment: the input of [`join`].
#[derive(Clone, Debug)]
pub struct View {
    /// The kernel's links.
    pub links: Snapshot<Links>,
    /// The kernel's neighbours.
    pub neighbours: Snapshot<Neighbours>,
    /// The ports of the Open vSwitch bridges.
    pub ports: Snapshot<Ports>,
    /// The DHCP leases of libvirt networks.
    pub leases: Snapshot<Leases>,
    /// Each hypervisor's URI, whether it is optional, and its domains.
    pub hypervisors: Vec<(Arc<str>, bool, Snapshot<Domains>)>,
}

/// Joins again whenever a source has changed, and tells libvirt's sessions which domains to read again. Dropping the
/// future is safe: it publishes whole values.
pub async fn run(
    mut sources: Sources,
    template: NameTemplate,
    tx: watch::Sender<Arc<Inventory>>,
    doubts: watch::Sender<Doubts>,
    durations: Arc<Histogram<7>>,
) -> Infallible {
    // Where there is an Open vSwitch, it knows the ids best: let them not change right after the start.
    let decided = sources.ports.wait_for(|snapshot| snapshot.sync.is_decided());
    let _ = timeout(FIRST_PORTS, decided).await;
    let mut pace = Pace::default();
    let mut ended = Instant::now();
    loop {
        let started = Instant::now();
        let previous = Arc::clone(&tx.borrow());
        let inventory = Arc::new(join(&sources.view(), &template, &previous));
        durations.record(started.elapsed());
        debug!(generation = inventory.generation, instances = inventory.instances.len(), "joined");
        tx.send_replace(Arc::clone(&inventory));
        // Whoever waits for an answer comes first.
        yield_now().await;
        let current = inventory.doubts();
        drop((previous, inventory));
        doubts.send_if_modified(|known| {
            let changed = *known != current;
            *known = current;
            changed
        });
        let rested = started - ended;
        ended = Instant::now();
        sleep(pace.pause(rested, ended - started)).await;
        sources.changed().await;
    }
}

/// How fast joins may follow each other: a change, or a few at once, are visible at once; in a storm the joins take at
/// most a fifth of one core.
#[derive(Debug, Default)]
struct Pace {
    /// The time that joins have taken beyond that share.
    debt: Duration,
}

impl Pace {
    /// What a hot-plug, which is several events of the kernel's and one of libvirt's, takes on a large host.
    const BURST: Duration = Duration::from_millis(5);

    /// How long to rest after a join that took the time `spent` and came after a rest of the time `rested`.
    fn pause(&mut self, rested: Duration, spent: Duration) -> Duration {
        self.debt = (self.debt.saturating_sub(rested / 4) + spent).min(Self::BURST + LONGEST_PAUSE / 4);
        self.debt.saturating_sub(Self::BURST) * 4
    }
}

impl Sources {
    /// What all sources say now.
    pub fn view(&mut self) -> View {
        View {
            links: self.links.borrow_and_update().clone(),
            neighbours: self.neighbours.borrow_and_update().clone(),
            ports: self.ports.borrow_and_update().clone(),
            leases: self.leases.borrow_and_update().clone(),
            hypervisors: self
                .hypervisors
                .iter_mut()
                .map(|h| (Arc::clone(&h.uri), h.optional, h.domains.borrow_and_update().clone()))
                .collect(),
        }
    }

    async fn changed(&mut self) {
        // One future for each source; the list is never empty.
        let host: [Pin<Box<dyn Future<Output = _> + Send>>; 4] = [
            Box::pin(self.links.changed()),
            Box::pin(self.neighbours.changed()),
            Box::pin(self.ports.changed()),
            Box::pin(self.leases.changed()),
        ];
        let hypervisors = self.hypervisors.iter_mut().map(|h| Box::pin(h.domains.changed()) as _);
        let (result, ..) = select_all(host.into_iter().chain(hypervisors)).await;
        if result.is_err() {
            // Its task has ended, which stops the daemon; until then there is nothing to join.
            std::future::pending().await
        }
    }
}

/// How long the first join waits for the Open vSwitch database, which answers within milliseconds if it does at all.
const FIRST_PORTS: Duration = Duration::from_millis(100);
/// How old the newest answer may become in a storm on a host with tens of thousands of links.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl fmt::Display for VifIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ovsdb => "its Open vSwitch port",
            Self::Virtualport => "the domain's virtualport",
            Self::TargetName => "the target's name",
            Self::Alias => "the device's alias",
            Self::OnlyPort => "the instance's only port",
            Self::Synthetic => "made by vifd",
        })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MacAddress => "MAC address",
            Self::Instance => "instance",
            Self::Bridge => "bridge",
            Self::Vlan => "VLAN",
        })
    }
}

impl fmt::Display for FactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ovsdb => "its Open vSwitch port",
            Self::PhysicalFunction => "its physical function",
        })
    }
}

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRunning => "not running",
            Self::TypeHasNone => "none for this type",
            Self::VhostUser => "vhost-user socket",
            Self::PassedThrough => "PCI device, passed through",
            Self::Vdpa => "vDPA device",
            Self::InContainer => "moved into the container",
            Self::NoTarget => "libvirt names none",
            Self::TargetMissing => "missing",
            Self::LinksPending => "links not read yet",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN: Duration = Duration::from_micros(300);

    #[test]
    fn a_burst_of_changes_is_not_held_up() {
        let mut pace = Pace::default();
        assert!((0..10).all(|_| pace.pause(Duration::ZERO, JOIN).is_zero()));
    }

    #[test]
    fn in_a_storm_joins_take_a_fifth_of_the_time_and_never_wait_long() {
        let mut pace = Pace::default();
        let pause = (0..100).fold(Duration::ZERO, |rested, _| pace.pause(rested, JOIN));
        assert_eq!(pause, JOIN * 4);
        let huge = Duration::from_secs(1);
        assert_eq!(pace.pause(Duration::ZERO, huge), LONGEST_PAUSE);
        assert_eq!(pace.pause(LONGEST_PAUSE, huge), LONGEST_PAUSE);
        // A second of rest later all is forgotten.
        assert_eq!(pace.pause(huge, JOIN), Duration::ZERO);
    }
}
