//! The virtual functions of network cards (SR-IOV): which a card has, and what it was told about each.
//!
//! The kernel tells of them with the link of the physical function, but never in an event, and only if it is asked for
//! that one link: a list of all links would overflow with those of a few large cards. It numbers them; which device
//! on the bus has which number stands in sysfs alone.

use std::{collections::HashMap, fmt, fs, path::Path};

use netlink_packet_core::NlaBuffer;
use netlink_packet_route::link::{LinkHeader, LinkLayerType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::link::{HEADER_LEN, attributes, u32_of};
use crate::{mac::MacAddr, pci::PciAddress};

/// One virtual function of a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VirtualFunction {
    /// Its number, from 0.
    pub number: u32,
    /// Its own address on the bus.
    pub pci: PciAddress,
    /// What the card was told about it; absent where the kernel does not say.
    #[serde(flatten)]
    pub settings: Option<Settings>,
}

/// What a card was told about one of its virtual functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Its address; all zeros where it may choose one itself.
    pub mac: MacAddr,
    /// The VLAN that the card puts its frames into, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Frames with another source address are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoof_check: Option<bool>,
    /// It may change its address and receive what is not for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
    /// What it sees as the state of its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_state: Option<LinkState>,
}

/// What a virtual function sees as the state of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// That of the card's own link.
    Auto,
    /// Always up.
    Up,
    /// Always down.
    Down,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// The virtual functions of the device `physical`, as sysfs numbers them. `devices` is [`DEVICES`].
#[must_use]
pub fn numbered(devices: &Path, physical: PciAddress) -> Vec<(u32, PciAddress)> {
    let device = devices.join(physical.to_string());
    let address = |number| {
        let target = fs::read_link(device.join(format!("virtfn{number}"))).ok()?;
        target.file_name()?.to_str()?.parse().ok()
    };
    (0..).map_while(|number| Some((number, address(number)?))).collect()
}

/// What an `RTM_NEWLINK` payload says about the virtual functions of its link, by their numbers; nothing if the link is
/// not that of a physical function.
#[must_use]
pub fn decode_settings(payload: &[u8]) -> Option<HashMap<u32, Settings>> {
    let header = LinkHeader::parse(payload).ok()?;
    // The addresses of other networks have other lengths, which the message does not tell.
    if header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let list = attributes(&payload[HEADER_LEN..]).find(|nla| nla.kind() == IFLA_VFINFO_LIST)?;
    let functions = attributes(list.value()).filter(|nla| nla.kind() == IFLA_VF_INFO);
    Some(functions.filter_map(|nla| decode_function(nla.value())).collect())
}

fn decode_function(info: &[u8]) -> Option<(u32, Settings)> {
    // Each attribute begins with the function's number.
    let word = |nla: &NlaBuffer<&[u8]>, n: usize| nla.value().get(n * 4..n * 4 + 4).and_then(u32_of);
    let find = |kind| attributes(info).find(|nla| nla.kind() == kind);
    let value = |kind| find(kind).and_then(|nla| word(&nla, 1));
    let flag = |kind| value(kind).filter(|value| *value != UNKNOWN).map(|value| value != 0);
    let mac = find(IFLA_VF_MAC)?;
    let settings = Settings {
        mac: <[u8; 6]>::try_from(mac.value().get(4..10)?).ok()?.into(),
        vlan: value(IFLA_VF_VLAN).and_then(|vlan| vlan.try_into().ok()),
        spoof_check: flag(IFLA_VF_SPOOFCHK),
        trusted: flag(IFLA_VF_TRUST),
        link_state: value(IFLA_VF_LINK_STATE).and_then(|state| match state {
            0 => Some(LinkState::Auto),
            1 => Some(LinkState::Up),
            2 => Some(LinkState::Down),
            _ => None,
        }),
    };
    Some((word(&mac, 0)?, settings))
}

/// Where sysfs shows the devices of the PCI bus.
pub const DEVICES: &str = "/sys/bus/pci/devices";
/// What drivers that know no such setting leave there.
const UNKNOWN: u32 = u32::MAX;
// linux/if_link.h
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_TRUST: u16 = 9;

#[cfg(test)]
mod tests;
