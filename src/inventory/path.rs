//! Which way a VIF's frames take on this host: every hop from the guest's network card to where they leave the host.
//!
//! The way is a graph, since a bridge may have several uplinks, and a switch's tunnels end on several cards. One line of
//! it, the main one, leads to the uplink that is nearest and whole. What breaks the way is said at the hop that breaks
//! it. Everything is made from one inventory; counters are somebody else's to add.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    mac::MacAddr,
    source::netlink::link::{Counters, OperState},
};

mod guest;
mod hop;
mod line;
mod ports;
mod walk;

pub use walk::Paths;

/// The way of a VIF's frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VifPath {
    /// The instance's UUID.
    pub instance_uuid: Uuid,
    /// The instance's libvirt name.
    pub instance_name: Arc<str>,
    /// The instance's display name.
    pub display_name: Option<Arc<str>>,
    /// The VIF's id.
    pub vif_id: Uuid,
    /// Every hop, those nearer to the guest first.
    pub hops: Vec<Hop>,
    /// What joins them.
    pub edges: Vec<Edge>,
    /// The main line: positions in `hops`, from the guest outwards.
    pub main: Vec<usize>,
    /// Why there is no way, or why it ends where it does.
    pub end: String,
}

/// One thing that the frames pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hop {
    /// What it is.
    pub kind: HopKind,
    /// Of what sort: a link's kind, an Open vSwitch port's type, a network card's model.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Box<str>>,
    /// What it is called.
    pub name: Arc<str>,
    /// A link's index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The MAC address, of a guest's network card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Set up by an administrator, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// RFC 2863 operational state, of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oper_state: Option<OperState>,
    /// Whether it has a carrier, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// In bytes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The VLAN that frames are in from here on: `tag 7`, `trunks 1,2`, `VLAN 100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    /// A link's counters, where they have been read, in the host's view: a tap's receive side is what its guest sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// What else is worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// What a hop is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HopKind {
    /// The network card that the guest sees.
    #[default]
    GuestNic,
    /// A network device of the kernel.
    Link,
    /// A bridge of Open vSwitch.
    OvsBridge,
    /// A port of Open vSwitch that is no link: a patch, a tunnel, one in user space.
    OvsPort,
    /// A bond of Open vSwitch.
    OvsBond,
    /// A vhost-user socket or vDPA device.
    Socket,
    /// A PCI device that the guest was handed, usually a virtual function.
    PciDevice,
    /// A device in another network namespace.
    Elsewhere,
}

/// Two hops that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edge {
    /// The position of the one nearer to the guest.
    pub from: usize,
    /// The position of the other.
    pub to: usize,
    /// What joins them.
    pub by: Join,
}

/// What joins two hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// A device of the host is the other side of the guest's card.
    CarriedBy,
    /// A port and its Linux bridge.
    BridgePort,
    /// A port and its Open vSwitch bridge.
    OvsPort,
    /// The two ends of a veth pair.
    VethPair,
    /// Two patch ports.
    Patch,
    /// A device and the one that it is stacked upon.
    Upon,
    /// A bond and its member.
    BondMember,
    /// A virtual function and its physical function.
    FunctionOf,
    /// A tunnel and the device that the host's routes choose for it.
    Routed,
    /// Nothing, although the domain's description or the switch says that they are joined.
    ShouldBe,
}

/// What is wrong with a hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people.
    pub says: String,
}

/// What can be wrong with a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// It does not exist.
    Missing,
    /// It is set down.
    Down,
    /// It is up and has no carrier.
    NoCarrier,
    /// It is up, has a carrier, and does not work all the same.
    NotOperational,
    /// Frames that the hops before it let pass are too large for it.
    Mtu,
    /// It is not where the domain's description says.
    NotEnslaved,
    /// It is a bridge that leads nowhere.
    NoUplink,
    /// It is a bond without members.
    NoMembers,
    /// Open vSwitch says that it could not make it work.
    SwitchError,
    /// It is a patch port whose other end does not exist or is joined with another one.
    PatchBroken,
}

impl VifPath {
    /// Whether nothing is wrong on the main line.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.main.is_empty() && self.main.iter().all(|n| self.hops[*n].faults.is_empty())
    }

    /// The hops of the main line.
    pub fn main_hops(&self) -> impl Iterator<Item = &Hop> {
        self.main.iter().map(|n| &self.hops[*n])
    }
}

impl Hop {
    fn new(kind: HopKind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into(), ..Self::default() }
    }

    fn fault(&mut self, code: FaultCode, says: impl Into<String>) {
        self.faults.push(Fault { code, says: says.into() });
    }

    fn note(&mut self, says: impl Into<String>) {
        self.notes.push(says.into());
    }

    /// What it is, in a word or two.
    #[must_use]
    pub fn what(&self) -> String {
        match (self.kind, self.sort.as_deref()) {
            (HopKind::Link, Some(sort)) => sort.to_owned(),
            (HopKind::OvsPort, Some(sort)) => format!("OVS {sort} port"),
            (HopKind::OvsBond, Some(sort)) => format!("OVS bond, {sort}"),
            (HopKind::GuestNic, Some(sort)) => format!("guest NIC, {sort}"),
            (kind, _) => kind.to_string(),
        }
    }
}

impl fmt::Display for HopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GuestNic => "guest NIC",
            Self::Link => "device",
            Self::OvsBridge => "OVS bridge",
            Self::OvsPort => "OVS port",
            Self::OvsBond => "OVS bond",
            Self::Socket => "socket",
            Self::PciDevice => "PCI device",
            Self::Elsewhere => "elsewhere",
        })
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CarriedBy => "carried by",
            Self::BridgePort => "bridge port",
            Self::OvsPort => "OVS port",
            Self::VethPair => "veth pair",
            Self::Patch => "patch",
            Self::Upon => "upon",
            Self::BondMember => "bond member",
            Self::FunctionOf => "virtual function of",
            Self::Routed => "routed by the host",
            Self::ShouldBe => "should be joined",
        })
    }
}

#[cfg(test)]
mod tests;
