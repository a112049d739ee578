//! The truth about interfaces: instances joined with the links that carry their VIFs.
//!
//! In: the snapshots of all sources. Out: one [`Inventory`], published whole. It is immutable, so one answer is
//! consistent in itself; whatever vifd answers, it answers from here.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::{index::Index, join::Origin};
use crate::{
    mac::MacAddr,
    pci::PciAddress,
    source::{
        SyncState,
        netlink::link::{Link, Links},
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
mod instance;
mod join;
pub mod path;
pub mod recent;
pub mod record;
mod segment;
mod task;
#[cfg(test)]
pub(crate) mod testing;
mod vif_id;
mod why;

pub use address::{Address, AddressSource};
pub use beginning::Beginnings;
pub use doubt::Misplaced;
pub use find::{Match, MatchedBy};
pub use instance::{
    Device, Disagreement, Evidence, Fact, FactSource, Instance, NoDevice, PassedFunction, Staleness, Vif, VifIdSource,
};
pub use join::join;
pub use task::{HypervisorSource, Sources, View, run};
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
