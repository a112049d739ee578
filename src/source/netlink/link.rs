//! What a link is, and the pure decoding of the kernel's link messages.
//!
//! A message describes one link completely, so [`Links::apply`] replaces a link and does not patch it. Only the attributes that
//! vifd uses are decoded: one that the kernel adds tomorrow, or that is cut short, cannot cost us the others.
//!
//! Sources: `linux/if_link.h` (attributes), `linux/rtnetlink.h` (messages), rtnetlink(7).

use std::{collections::HashMap, fmt, sync::Arc};

use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_packet_route::{
    AddressFamily,
    link::{LinkFlags, LinkHeader, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::function::VirtualFunction;
use crate::{mac::MacAddr, pci::PciAddress};

/// `RTM_NEWLINK`: a link appeared or changed.
pub const RTM_NEWLINK: u16 = 16;
/// `RTM_DELLINK`: a link was deleted or moved to another network namespace.
pub const RTM_DELLINK: u16 = 17;

/// A network device of the kernel. Its identity, within a boot and a network namespace, is `index`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// `ifindex`.
    pub index: u32,
    /// The name, at most 15 bytes. An attribute: links are renamed, and names are reused within milliseconds.
    pub name: Arc<str>,
    /// Alternative names, which may be longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<Arc<str>>,
    /// What sort of device it is.
    #[serde(flatten)]
    pub kind: LinkKind,
    /// The device's own address: for a tap usually not that of its VIF.
    pub mac: Option<MacAddr>,
    /// In bytes.
    pub mtu: u32,
    /// Set up by an administrator (`IFF_UP`).
    pub up: bool,
    /// In promiscuous mode (`IFF_PROMISC`).
    pub promiscuous: bool,
    /// RFC 2863 operational state.
    pub oper_state: OperState,
    /// Whether the device has a carrier; absent where the kernel does not say.
    pub carrier: Option<bool>,
    /// The index of the bridge, bond, VRF or Open vSwitch datapath that it is enslaved to.
    pub controller: Option<u32>,
    /// The other end of a veth pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<LinkRef>,
    /// The link that it is stacked upon (macvtap, VLAN, VXLAN …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower: Option<LinkRef>,
    /// Where on the PCI bus its device is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// The virtual functions of a card whose physical function this is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_functions: Vec<VirtualFunction>,
    /// Transmit queues.
    pub tx_queues: u32,
    /// Receive queues.
    pub rx_queues: u32,
}

/// A link, possibly of another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkRef {
    /// `ifindex` in its own namespace.
    pub index: u32,
    /// The id by which this namespace knows the other one (`IFLA_LINK_NETNSID`); absent for our own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<i32>,
}

/// The kind of a link, from `IFLA_INFO_KIND` and its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LinkKind {
    /// A tap: Ethernet frames to and from a process. Persistent ones outlive that process.
    Tap {
        /// Several queues are allowed.
        multi_queue: bool,
        /// It outlives the process that made it.
        persistent: bool,
    },
    /// A tun: IP packets to and from a process.
    Tun,
    /// One end of a veth pair.
    Veth,
    /// A macvtap upon its lower device.
    Macvtap,
    /// A macvlan upon its lower device.
    Macvlan,
    /// A Linux bridge.
    Bridge,
    /// An 802.1Q or 802.1ad sub-device.
    Vlan {
        /// The VLAN id.
        #[serde(rename = "vlan_id")]
        id: u16,
    },
    /// A bond.
    Bond,
    /// A VXLAN tunnel.
    Vxlan {
        /// The VXLAN network identifier, absent in external (flow-based) mode.
        vni: Option<u32>,
    },
    /// The loopback device.
    Loopback,
    /// A device without link info: hardware, usually.
    Physical,
    /// Any other kind, in the kernel's word for it.
    #[serde(untagged)]
    Other {
        /// `IFLA_INFO_KIND`.
        #[serde(rename = "kind")]
        name: Box<str>,
    },
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap { .. } => "tap",
            Self::Tun => "tun",
            Self::Veth => "veth",
            Self::Macvtap => "macvtap",
            Self::Macvlan => "macvlan",
            Self::Bridge => "bridge",
            Self::Vlan { .. } => "vlan",
            Self::Bond => "bond",
            Self::Vxlan { .. } => "vxlan",
            Self::Loopback => "loopback",
            Self::Physical => "physical",
            Self::Other { name } => name,
        })
    }
}

/// RFC 2863 `ifOperStatus`, as `linux/if.h` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the RFC's own words")]
pub enum OperState {
    Unknown,
    NotPresent,
    Down,
    LowerLayerDown,
    Testing,
    Dormant,
    Up,
}

impl fmt::Display for OperState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "not present",
            Self::Down => "down",
            Self::LowerLayerDown => "lower layer down",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        })
    }
}

/// `struct rtnl_link_stats64`: 64-bit counters, in the host's view (a tap's receive side is what its guest sent).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the kernel's own words")]
pub struct Counters {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

impl Counters {
    /// The counters of a link of this kind as the guest sees them that it carries.
    ///
    /// A tap and the host's end of a veth pair receive what the guest sends. A macvtap stands for the guest on its lower
    /// device: it receives what the guest receives.
    #[must_use]
    pub fn in_guests_view(self, kind: &LinkKind) -> Self {
        if matches!(kind, LinkKind::Macvtap | LinkKind::Macvlan) {
            return self;
        }
        Self {
            rx_packets: self.tx_packets,
            tx_packets: self.rx_packets,
            rx_bytes: self.tx_bytes,
            tx_bytes: self.rx_bytes,
            rx_errors: self.tx_errors,
            tx_errors: self.rx_errors,
            rx_dropped: self.tx_dropped,
            tx_dropped: self.rx_dropped,
        }
    }
}

/// The links of one network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Links(HashMap<u32, Arc<Link>>);

/// What one link message says.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// The link exists and is as described.
    Exists(Arc<Link>),
    /// The link left the namespace.
    Left {
        /// Its index here.
        index: u32,
        /// Where it went, if it was moved and not deleted.
        moved: Option<LinkRef>,
    },
    /// The message is about something else, such as a bridge's view of its port.
    Irrelevant,
}

/// A link message that says too little to be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The fixed header is incomplete: not even the index is known.
    #[error("link message of {0} bytes is shorter than its header")]
    Header(usize),
    /// The message names no device.
    #[error("link {index} has no usable name ({attributes} readable attributes)")]
    Name {
        /// The link's index.
        index: u32,
        /// How many attributes could be read before the message ended or broke off.
        attributes: usize,
    },
}

impl Links {
    /// Takes one event in.
    ///
    /// A message describes its own link completely but for two things. When one end of a veth pair moves to another
    /// namespace or comes back, the kernel says nothing about the end that stayed: what it reports as its peer is
    /// inferred here. And no event tells of virtual functions: they stay as they are until they are asked for.
    pub fn apply(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Exists(mut link) => {
                if let Some(before) = self.0.get(&link.index)
                    && before.pci == link.pci
                    && !before.virtual_functions.is_empty()
                {
                    Arc::make_mut(&mut link).virtual_functions.clone_from(&before.virtual_functions);
                }
                if let Some(LinkRef { index: peer, netns: None }) = link.peer {
                    self.set_peer(peer, LinkRef { index: link.index, netns: None });
                }
                self.0.insert(link.index, link);
            }
            LinkEvent::Left { index, moved } => {
                let left = self.0.remove(&index);
                let peer = left.and_then(|link| link.peer).filter(|peer| peer.netns.is_none());
                if let (Some(peer), Some(moved)) = (peer, moved) {
                    self.set_peer(peer.index, moved);
                }
            }
            LinkEvent::Irrelevant => {}
        }
    }

    fn set_peer(&mut self, index: u32, peer: LinkRef) {
        if let Some(link) = self.0.get_mut(&index)
            && link.kind == LinkKind::Veth
            && link.peer != Some(peer)
        {
            Arc::make_mut(link).peer = Some(peer);
        }
    }

    /// Says what virtual functions the card of a link has. Returns whether that is news.
    pub fn set_virtual_functions(&mut self, index: u32, functions: Vec<VirtualFunction>) -> bool {
        let Some(link) = self.0.get_mut(&index).filter(|link| link.virtual_functions != functions) else {
            return false;
        };
        Arc::make_mut(link).virtual_functions = functions;
        true
    }

    /// The link with this index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Arc<Link>> {
        self.0.get(&index)
    }

    /// The links that `other` does not have as they are here, by their indexes.
    #[must_use]
    pub fn not_in(&self, other: &Self) -> Vec<&Arc<Link>> {
        let is_old = |index, link| other.0.get(index).is_some_and(|other| Arc::ptr_eq(other, link));
        let mut new: Vec<_> = self.0.iter().filter(|(n, link)| !is_old(*n, *link)).map(|(_, link)| link).collect();
        new.sort_unstable_by_key(|link| link.index);
        new
    }

    /// Every link, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        Self(links.into_iter().map(|link| (link.index, Arc::new(link))).collect())
    }
}

impl LinkEvent {
    /// Decodes the payload of a netlink message of the type `message_type`.
    ///
    /// # Errors
    /// The message is too short to name a link.
    pub fn decode(message_type: u16, payload: &[u8]) -> Result<Self, DecodeError> {
        if !matches!(message_type, RTM_NEWLINK | RTM_DELLINK) {
            return Ok(Self::Irrelevant);
        }
        let header = LinkHeader::parse(payload).map_err(|_| DecodeError::Header(payload.len()))?;
        // A bridge reports on its ports with the same message types and its own family. When a tap leaves a bridge,
        // the kernel sends RTM_DELLINK with AF_BRIDGE for a link that lives on.
        if header.interface_family != AddressFamily::Unspec {
            return Ok(Self::Irrelevant);
        }
        if message_type == RTM_DELLINK {
            return Ok(Self::Left { index: header.index, moved: decode_move(&header, &payload[HEADER_LEN..]) });
        }
        decode_link(&header, &payload[HEADER_LEN..]).map(|link| Self::Exists(Arc::new(link)))
    }
}

/// The index and the counters of a link, from an `RTM_NEWLINK` payload that carries `IFLA_STATS64`.
#[must_use]
pub fn decode_counters(payload: &[u8]) -> Option<(u32, Counters)> {
    let header = LinkHeader::parse(payload).ok()?;
    let stats = attributes(&payload[HEADER_LEN..]).find(|nla| nla.kind() == IFLA_STATS64)?;
    let word = |n: usize| stats.value().get(n * 8..n * 8 + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
    let counters = Counters {
        rx_packets: word(0)?,
        tx_packets: word(1)?,
        rx_bytes: word(2)?,
        tx_bytes: word(3)?,
        rx_errors: word(4)?,
        tx_errors: word(5)?,
        rx_dropped: word(6)?,
        tx_dropped: word(7)?,
    };
    Some((header.index, counters))
}

fn decode_link(header: &LinkHeader, payload: &[u8]) -> Result<Link, DecodeError> {
    let mut link = Link {
        index: header.index,
        name: Arc::default(),
        altnames: Vec::new(),
        kind: LinkKind::Physical,
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        promiscuous: header.flags.contains(LinkFlags::Promisc),
        oper_state: OperState::Unknown,
        carrier: None,
        controller: None,
        peer: None,
        lower: None,
        pci: None,
        virtual_functions: Vec::new(),
        tx_queues: 0,
        rx_queues: 0,
    };
    if header.flags.contains(LinkFlags::Loopback) {
        link.kind = LinkKind::Loopback;
    }
    let (mut beneath, mut netns, mut on_pci, mut seen) = (None, None, false, 0);
    for nla in attributes(payload) {
        seen += 1;
        let value = nla.value();
        match nla.kind() {
            IFLA_IFNAME => link.name = text(value).unwrap_or_default().into(),
            IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(MacAddr::from),
            IFLA_MTU => link.mtu = u32_of(value).unwrap_or_default(),
            IFLA_LINK => beneath = u32_of(value).filter(|index| *index != 0),
            IFLA_LINK_NETNSID => netns = u32_of(value).map(u32::cast_signed),
            IFLA_MASTER => link.controller = u32_of(value),
            IFLA_OPERSTATE => link.oper_state = value.first().map_or(OperState::Unknown, |v| State::from(*v).into()),
            IFLA_CARRIER => link.carrier = value.first().map(|v| *v != 0),
            IFLA_PARENT_DEV_NAME => link.pci = text(value).and_then(|name| name.parse().ok()),
            IFLA_PARENT_DEV_BUS_NAME => on_pci = text(value) == Some("pci"),
            IFLA_NUM_TX_QUEUES => link.tx_queues = u32_of(value).unwrap_or_default(),
            IFLA_NUM_RX_QUEUES => link.rx_queues = u32_of(value).unwrap_or_default(),
            IFLA_LINKINFO => link.kind = decode_kind(value).unwrap_or(link.kind),
            IFLA_PROP_LIST => {
                link.altnames = attributes(value)
                    .filter(|nla| nla.kind() == IFLA_ALT_IFNAME)
                    .filter_map(|nla| text(nla.value()).map(Arc::from))
                    .collect();
            }
            _ => {}
        }
    }
    if link.name.is_empty() {
        return Err(DecodeError::Name { index: header.index, attributes: seen });
    }
    link.pci = link.pci.filter(|_| on_pci);
    // A link without anything beneath it reports itself, or nothing.
    let beneath = beneath.filter(|index| netns.is_some() || *index != link.index).map(|index| LinkRef { index, netns });
    match link.kind {
        LinkKind::Veth => link.peer = beneath,
        _ => link.lower = beneath,
    }
    Ok(link)
}

/// Where a link went that left the namespace alive.
fn decode_move(header: &LinkHeader, payload: &[u8]) -> Option<LinkRef> {
    let find = |kind| attributes(payload).find(|nla| nla.kind() == kind).and_then(|nla| u32_of(nla.value()));
    let netns = find(IFLA_NEW_NETNSID)?.cast_signed();
    Some(LinkRef { index: find(IFLA_NEW_IFINDEX).unwrap_or(header.index), netns: Some(netns) })
}

fn decode_kind(info: &[u8]) -> Option<LinkKind> {
    let find = |kind| attributes(info).find(|nla| nla.kind() == kind);
    let name = find(IFLA_INFO_KIND)?;
    let data = find(IFLA_INFO_DATA);
    let field = |kind| data.as_ref().and_then(|data| attributes(data.value()).find(|nla| nla.kind() == kind));
    let flag = |kind| field(kind).is_some_and(|nla| nla.value().first() == Some(&1));
    Some(match text(name.value())? {
        "tun" if field(IFLA_TUN_TYPE).is_some_and(|nla| nla.value().first() == Some(&IFF_TUN)) => LinkKind::Tun,
        "tun" => LinkKind::Tap { multi_queue: flag(IFLA_TUN_MULTI_QUEUE), persistent: flag(IFLA_TUN_PERSIST) },
        "veth" => LinkKind::Veth,
        "macvtap" => LinkKind::Macvtap,
        "macvlan" => LinkKind::Macvlan,
        "bridge" => LinkKind::Bridge,
        "bond" => LinkKind::Bond,
        "vlan" => LinkKind::Vlan {
            id: field(IFLA_VLAN_ID)
                .and_then(|nla| Some(u16::from_ne_bytes(nla.value().try_into().ok()?)))
                .unwrap_or_default(),
        },
        "vxlan" => {
            let external = flag(IFLA_VXLAN_COLLECT_METADATA);
            let vni = field(IFLA_VXLAN_ID).and_then(|nla| u32_of(nla.value()));
            LinkKind::Vxlan { vni: vni.filter(|_| !external) }
        }
        other => LinkKind::Other { name: other.into() },
    })
}

/// The attributes up to the first that is broken: what follows that one cannot be delimited.
pub(super) fn attributes(buffer: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(buffer).map_while(Result::ok)
}

fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok()
}

pub(super) fn u32_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

impl From<State> for OperState {
    fn from(state: State) -> Self {
        match state {
            State::NotPresent => Self::NotPresent,
            State::Down => Self::Down,
            State::LowerLayerDown => Self::LowerLayerDown,
            State::Testing => Self::Testing,
            State::Dormant => Self::Dormant,
            State::Up => Self::Up,
            _ => Self::Unknown,
        }
    }
}

/// `sizeof(struct ifinfomsg)`.
pub(super) const HEADER_LEN: usize = 16;
// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_NEW_IFINDEX: u16 = 49;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
/// `IFF_TUN` of `linux/if_tun.h`; a tap is 2.
const IFF_TUN: u8 = 1;

#[cfg(test)]
mod tests;
