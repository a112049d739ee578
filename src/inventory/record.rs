//! What is remembered of each thing: the facts that a change is told by, and that history keeps.
//!
//! A record is less than the inventory knows, and stands for itself: it can be searched and read long after the thing is
//! gone. Names of others in it (an instance's in its VIFs) are as they were when the record began.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Address, AddressSource, Device, Hypervisor, Instance, Inventory, NoDevice, Vif};
use crate::{
    mac::MacAddr,
    pci::PciAddress,
    source::{
        SyncState,
        libvirt::domain::{DomainState, Migration},
        netlink::link::{Link, LinkRef, OperState},
        ovsdb::rows::Port,
    },
};

/// What one thing was like for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// An instance.
    Instance(InstanceFacts),
    /// A VIF of an instance.
    Vif(VifFacts),
    /// A link of the host.
    Device(DeviceFacts),
    /// A port of Open vSwitch.
    Port(PortFacts),
    /// A source of vifd's.
    Source(SourceFacts),
}

/// An instance, without its VIFs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceFacts {
    /// Which.
    #[serde(flatten)]
    pub instance: InstanceName,
    /// The id of the project that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Arc<str>>,
    /// What it is doing.
    pub state: DomainState,
    /// Whether it is on its way to another host, or from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// Why it cannot be read although its hypervisor answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Arc<str>>,
}

/// An instance, by all that it may be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceName {
    /// Its UUID.
    #[serde(rename = "instance_uuid")]
    pub uuid: Uuid,
    /// libvirt's name for it.
    #[serde(rename = "instance_name")]
    pub name: Arc<str>,
    /// The name that the tenant chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Arc<str>>,
    /// The URI of its hypervisor.
    pub hypervisor: Arc<str>,
}

/// A VIF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VifFacts {
    /// Whose it is.
    #[serde(flatten)]
    pub instance: InstanceName,
    /// The VIF id.
    pub vif_id: Uuid,
    /// The guest's MAC address.
    pub mac: MacAddr,
    /// libvirt's word for the type of its connection.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// What it is connected to: a bridge, network, device, socket or PCI address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<str>>,
    /// The host device that libvirt names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
    /// Its IP addresses, each once for each sort of source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<KnownAddress>,
    /// The link that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Why there is no such link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_device: Option<NoDevice>,
    /// The Open vSwitch port that it is plugged into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovs_port: Option<Arc<str>>,
    /// Its vhost-user socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Arc<str>>,
    /// The PCI device that was handed to the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// The guest's cable is unplugged (`<link state='down'/>`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub link_down: bool,
}

/// An IP address of a VIF, and what sort of source gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct KnownAddress {
    /// The address.
    pub address: IpAddr,
    /// Who says so.
    pub by: AddressKind,
}

/// A sort of source for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressKind {
    /// The cloud's metadata.
    Metadata,
    /// A DHCP lease.
    Lease,
    /// The kernel's neighbour table.
    Neighbour,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFacts {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub device: Arc<str>,
    /// Its alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<Arc<str>>,
    /// What sort of device it is.
    pub kind: Box<str>,
    /// Its own MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// In bytes.
    pub mtu: u32,
    /// Set up by an administrator.
    pub up: bool,
    /// RFC 2863 operational state.
    pub oper_state: OperState,
    /// Whether it has a carrier; absent where the kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// The bridge, bond, VRF or Open vSwitch datapath that it is enslaved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<Device>,
    /// The other end of a veth pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkRef>,
    /// The link that it is stacked upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<LinkRef>,
    /// Where on the PCI bus its device is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
}

/// A port of Open vSwitch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortFacts {
    /// Its name.
    pub port: Arc<str>,
    /// The index of its link, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// Its bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Arc<str>>,
    /// Its number in flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ofport: Option<u16>,
    /// Its VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Box<str>>,
    /// Why the switch could not make it work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// The VIF id that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface_id: Option<Arc<str>>,
    /// The MAC address of a VIF that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_mac: Option<MacAddr>,
    /// Its vhost-user socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Arc<str>>,
}

/// A source of vifd's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceFacts {
    /// `netlink`, `neighbours`, `ovsdb`, `leases`, or a hypervisor's URI.
    pub source: Arc<str>,
    /// Whether it is kept current.
    pub state: SourceState,
    /// Why not, as it was told first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// Whether a source is kept current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It has not been read yet.
    Pending,
    /// This host has no such source.
    Absent,
    /// It is.
    Synced,
    /// It was lost.
    Stale,
}

impl Record {
    /// What it is a record of: the same for all records of one thing.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Instance(InstanceFacts { instance, .. }) => {
                format!("instance {} {}", instance.hypervisor, instance.uuid)
            }
            Self::Vif(vif) => format!("vif {} {} {}", vif.instance.hypervisor, vif.instance.uuid, vif.mac),
            Self::Device(device) => format!("device {}", device.ifindex),
            Self::Port(port) => format!("port {}", port.port),
            Self::Source(source) => format!("source {}", source.source),
        }
    }

    /// Everything that it is found by, in the form of [`normal`].
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        let mut keys = Keys(BTreeSet::new());
        match self {
            Self::Instance(InstanceFacts { instance, .. }) => keys.instance(instance),
            Self::Vif(vif) => {
                keys.instance(&vif.instance);
                keys.add(Some(vif.vif_id));
                keys.add(Some(vif.mac));
                keys.add(vif.target.as_ref());
                keys.add(vif.ovs_port.as_ref());
                keys.add(vif.socket.as_ref());
                keys.add(vif.pci);
                keys.device(vif.device.as_ref());
                vif.addresses.iter().for_each(|known| keys.add(Some(known.address)));
            }
            Self::Device(device) => {
                keys.add(Some(device.ifindex));
                keys.add(Some(&device.device));
                device.altnames.iter().for_each(|name| keys.add(Some(name)));
                keys.add(device.mac);
                keys.add(device.pci);
            }
            Self::Port(port) => {
                keys.add(Some(&port.port));
                keys.add(port.ifindex);
                keys.add(port.iface_id.as_ref());
                keys.add(port.attached_mac);
                keys.add(port.socket.as_ref());
                if let (Some(bridge), Some(ofport)) = (&port.bridge, port.ofport) {
                    keys.add(Some(format!("{bridge}:{ofport}")));
                }
            }
            Self::Source(source) => keys.add(Some(&source.source)),
        }
        keys.0
    }
}

struct Keys(BTreeSet<String>);

impl Keys {
    fn add(&mut self, key: Option<impl fmt::Display>) {
        self.0.extend(key.map(|key| normal(&key.to_string())));
    }

    fn instance(&mut self, instance: &InstanceName) {
        self.add(Some(instance.uuid));
        self.add(Some(&instance.name));
        self.add(instance.display_name.as_ref());
    }

    fn device(&mut self, device: Option<&Device>) {
        self.add(device.map(|device| device.index));
        self.add(device.map(|device| &device.name));
    }
}

/// A MAC, IP or PCI address or a UUID in its one usual form; any other text as it is.
#[must_use]
pub fn normal(thing: &str) -> String {
    let thing = thing.trim();
    let uuid = || thing.parse::<Uuid>().map(|uuid| uuid.to_string()).ok();
    let mac = || thing.parse::<MacAddr>().map(|mac| mac.to_string()).ok();
    let address = || thing.parse::<IpAddr>().map(|address| address.to_string()).ok();
    let pci = || thing.parse::<PciAddress>().map(|pci| pci.to_string()).ok();
    uuid().or_else(mac).or_else(address).or_else(pci).unwrap_or_else(|| thing.to_owned())
}

impl InstanceName {
    fn of(instance: &Instance) -> Self {
        Self {
            uuid: instance.uuid,
            name: Arc::clone(&instance.name),
            display_name: instance.display_name.clone(),
            hypervisor: Arc::clone(&instance.hypervisor),
        }
    }
}

impl InstanceFacts {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            instance: InstanceName::of(instance),
            project: instance.project.as_ref().map(|project| project.id.clone()),
            state: instance.state,
            migration: instance.migration,
            unreadable: instance.unreadable.as_ref().map(|stale| Arc::clone(&stale.reason)),
        }
    }
}

impl VifFacts {
    pub(super) fn of(instance: &Instance, vif: &Vif) -> Self {
        let addresses: BTreeSet<_> = vif.addresses.iter().map(KnownAddress::from).collect();
        Self {
            instance: InstanceName::of(instance),
            vif_id: vif.id,
            mac: vif.interface.mac,
            kind: vif.interface.attachment.type_name().into(),
            source: vif.interface.attachment.source().map(Into::into),
            target: vif.interface.target.clone(),
            addresses: addresses.into_iter().collect(),
            device: vif.device.clone(),
            no_device: vif.no_device,
            ovs_port: vif.ovs_port.clone(),
            socket: vif.interface.socket().cloned(),
            pci: vif.interface.pci(),
            link_down: vif.interface.link_down,
        }
    }
}

impl From<&Address> for KnownAddress {
    fn from(address: &Address) -> Self {
        let by = match address.source {
            AddressSource::Metadata => AddressKind::Metadata,
            AddressSource::Lease { .. } => AddressKind::Lease,
            AddressSource::Neighbour { .. } => AddressKind::Neighbour,
        };
        Self { address: address.address, by }
    }
}

impl DeviceFacts {
    pub(super) fn of(inventory: &Inventory, link: &Link) -> Self {
        let controller = link.controller.and_then(|index| inventory.links().get(index));
        Self {
            ifindex: link.index,
            device: Arc::clone(&link.name),
            altnames: link.altnames.clone(),
            kind: link.kind.to_string().into(),
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            oper_state: link.oper_state,
            carrier: link.carrier,
            controller: controller.map(|link| Device { index: link.index, name: Arc::clone(&link.name) }),
            peer: link.peer,
            lower: link.lower,
            pci: link.pci,
        }
    }
}

impl PortFacts {
    pub(super) fn of(port: &Port) -> Self {
        Self {
            port: Arc::clone(&port.name),
            ifindex: port.ifindex,
            bridge: port.bridge.clone(),
            ofport: port.ofport,
            vlan: port.vlan().map(Into::into),
            error: port.error.clone(),
            iface_id: port.iface_id.clone(),
            attached_mac: port.attached_mac,
            socket: port.socket.clone(),
        }
    }
}

impl SourceFacts {
    pub(crate) fn of(name: &str, sync: &SyncState) -> Self {
        let state = match sync {
            SyncState::Pending { .. } => SourceState::Pending,
            SyncState::Absent => SourceState::Absent,
            SyncState::Synced { .. } => SourceState::Synced,
            SyncState::Stale { .. } => SourceState::Stale,
        };
        Self { source: name.into(), state, reason: sync.reason().map(Arc::from) }
    }
}

/// Every record there is, but for those of the sources.
pub fn all(inventory: &Inventory) -> impl Iterator<Item = Record> {
    let devices = inventory.links().iter().map(|link| Record::Device(DeviceFacts::of(inventory, link)));
    let ports = inventory.ports().iter().map(|port| Record::Port(PortFacts::of(port)));
    let instances = inventory.instances.iter().flat_map(|instance| {
        let vifs = instance.vifs.iter().map(|vif| Record::Vif(VifFacts::of(instance, vif)));
        [Record::Instance(InstanceFacts::of(instance))].into_iter().chain(vifs)
    });
    devices.chain(ports).chain(instances)
}

/// Every source with its name.
pub(crate) fn sources(inventory: &Inventory) -> impl Iterator<Item = (&str, &SyncState)> {
    let Inventory { netlink, neighbours, ovsdb, leases, hypervisors, .. } = inventory;
    let host = [("netlink", netlink), ("neighbours", neighbours), ("ovsdb", ovsdb), ("leases", leases)];
    let host = host.into_iter().filter_map(|(name, sync)| Some((name, sync.as_ref()?)));
    host.chain(hypervisors.iter().map(|Hypervisor { uri, sync, .. }| (&**uri, sync)))
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Lease => "DHCP lease",
            Self::Neighbour => "neighbour",
        })
    }
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Absent => "absent",
            Self::Synced => "synced",
            Self::Stale => "stale",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{PORT, WEB, bridged, joined, link, nova, view};

    #[test]
    fn a_vif_is_found_by_everything_that_somebody_may_have_in_hand() {
        let inventory = joined(&view(&[nova(&bridged("fa:16:3e:00:00:01", "tap0", ""), &[PORT])], &[link(7, "tap0")]));
        let instance = &inventory.instances[0];
        let keys = Record::Vif(VifFacts::of(instance, &instance.vifs[0])).keys();
        let hands = ["FA-16-3E-00-00-01", "10.0.0.5", "tap0", "7", "web", "instance-0000002a"].map(str::to_owned);
        let ids = [WEB.simple().to_string(), PORT.to_string().to_uppercase()];
        for thing in hands.iter().chain(&ids) {
            assert!(keys.contains(&normal(thing)), "{thing}: {keys:?}");
        }
        assert!(!keys.contains(&normal("tap")), "{keys:?}");
    }
}
