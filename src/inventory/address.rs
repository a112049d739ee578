//! The IP addresses of VIFs, by source. Sources disagree in practice: they are listed side by side and never merged.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Device, Index, MatchedBy, View, Vif, segment::Segments};
use crate::{
    mac::MacAddr,
    source::{
        leases::Leases,
        libvirt::domain::{Attachment, Interface},
        netlink::{
            link::Links,
            neighbour::{Neighbour, Neighbours},
        },
        ovsdb::rows::{Port, Ports},
    },
};

/// An address that a source gives to a VIF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// Who says so.
    #[serde(flatten)]
    pub source: AddressSource,
    /// The address.
    pub address: IpAddr,
}

/// Who gives an address to a VIF, and what else is said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum AddressSource {
    /// The cloud's metadata: a fixed address of the VIF's port.
    Metadata,
    /// The DHCP server of a libvirt network of this host has leased it to the VIF's MAC address.
    Lease {
        /// The network's bridge.
        bridge: Arc<str>,
        /// Until when; absent where it is for ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>", extend("format" = "date-time"))]
        expires: Option<Timestamp>,
        /// How the guest called itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        hostname: Option<Arc<str>>,
    },
    /// The kernel's neighbour table has it with the VIF's MAC address. It may have been confirmed a moment or days ago.
    Neighbour {
        /// The device on which the kernel reaches it: the VIF's own, or one that is bridged with that.
        device: Device,
        /// Somebody on this host made the entry, instead of the guest having answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        permanent: bool,
    },
}

impl AddressSource {
    /// How a VIF is found that has an address from here.
    #[must_use]
    pub fn matched_by(&self) -> MatchedBy {
        match self {
            Self::Metadata => MatchedBy::FixedIp,
            Self::Lease { .. } => MatchedBy::Lease,
            Self::Neighbour { .. } => MatchedBy::Neighbour,
        }
    }
}

impl Vif {
    /// The fixed addresses of its port.
    pub fn fixed_ips(&self) -> impl Iterator<Item = IpAddr> {
        let fixed = self.addresses.iter().filter(|address| address.source == AddressSource::Metadata);
        fixed.map(|address| address.address)
    }
}

/// What was seen of guests' addresses, ready to be looked up. The next inventory takes over what is still true.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    neighbours: Arc<Neighbours>,
    neighbours_by_mac: Arc<Index<MacAddr, (u32, IpAddr, bool)>>,
    leases: Arc<Leases>,
    /// Made when it is first needed: most hosts see no address of a guest.
    segments: Arc<OnceLock<Segments>>,
}

impl Sightings {
    /// What is seen now, after `self` was. `same_segments` says that links and ports are connected as they were.
    pub(super) fn next(&self, view: &View, same_segments: bool) -> Self {
        let (neighbours, leases) = (Arc::clone(&view.neighbours.data), Arc::clone(&view.leases.data));
        let neighbours_by_mac = if Arc::ptr_eq(&neighbours, &self.neighbours) {
            Arc::clone(&self.neighbours_by_mac)
        } else {
            let by_mac =
                |(index, address, neighbour): (_, _, Neighbour)| (neighbour.mac, (index, address, neighbour.permanent));
            Arc::new(neighbours.iter().map(by_mac).collect())
        };
        let segments = if same_segments { Arc::clone(&self.segments) } else { Arc::default() };
        Self { neighbours, neighbours_by_mac, leases, segments }
    }

    /// The MAC addresses about which something else was seen before.
    pub(super) fn changed_since(&self, before: &Self) -> BTreeSet<MacAddr> {
        let mut macs = BTreeSet::new();
        if !Arc::ptr_eq(&self.neighbours, &before.neighbours) {
            macs.extend(self.neighbours.difference(&before.neighbours));
        }
        if !Arc::ptr_eq(&self.leases, &before.leases) {
            macs.extend(self.leases.difference(&before.leases));
        }
        macs
    }

    /// The MAC addresses about which anything is seen.
    pub(super) fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.neighbours.iter().map(|(.., neighbour)| neighbour.mac).chain(self.leases.iter().map(|lease| lease.mac))
    }
}

/// What is needed to tell whose a sighting is.
pub(super) struct Sighted<'a> {
    pub(super) sightings: &'a Sightings,
    pub(super) links: &'a Links,
    pub(super) links_by_name: &'a Index<Arc<str>, u32>,
    pub(super) ports: &'a Ports,
}

impl Sighted<'_> {
    /// The addresses with which a VIF was seen: those of its MAC address, where its frames can come.
    pub(super) fn addresses(
        &self,
        interface: &Interface,
        device: Option<&Device>,
        port: Option<&Port>,
    ) -> Vec<Address> {
        let leases = self.sightings.leases.of(interface.mac);
        let mut neighbours = self.sightings.neighbours_by_mac.get(&interface.mac).peekable();
        if leases.is_empty() && neighbours.peek().is_none() {
            return Vec::new();
        }
        let segments = self.sightings.segments.get_or_init(|| Segments::of(self.links, self.ports));
        let home = device.map(|device| segments.of_link(device.index));
        let home = home.or_else(|| segments.of_switch(port?.bridge.as_deref()?));
        let is_home = |index| home == Some(segments.of_link(index));

        let leases = leases.iter().filter(|lease| {
            let bridge = self.links_by_name.get(&lease.bridge).next();
            is_on(interface, &lease.bridge, device.is_some()) || bridge.is_some_and(is_home)
        });
        let leases = leases.map(|lease| {
            let (bridge, hostname) = (Arc::clone(&lease.bridge), lease.hostname.clone());
            let source = AddressSource::Lease { bridge, expires: lease.expires, hostname };
            Address { source, address: lease.address }
        });
        let neighbours = neighbours.filter(|(index, ..)| is_home(*index)).filter_map(|(index, address, permanent)| {
            let device = Device { index, name: Arc::clone(&self.links.get(index)?.name) };
            Some(Address { source: AddressSource::Neighbour { device, permanent }, address })
        });
        leases.chain(neighbours).collect()
    }
}

/// Whether libvirt says that the interface is on this bridge. Of one that does not run it names the network at most: then
/// the MAC address must do.
fn is_on(interface: &Interface, wanted: &str, runs: bool) -> bool {
    match &interface.attachment {
        Attachment::Bridge { bridge: Some(bridge), .. } | Attachment::Network { bridge: Some(bridge), .. } => {
            **bridge == *wanted
        }
        Attachment::Network { bridge: None, .. } => !runs,
        _ => false,
    }
}
