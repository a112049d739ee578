//! An instance and its VIFs, as they are joined from all sources.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Address;
use crate::source::{
    libvirt::domain::{DomainState, Interface, Manager, Migration, Owner, Process},
    moment::Moment,
    netlink::function::VirtualFunction,
};

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
