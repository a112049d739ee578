//! The ports of bridges, and which of them lead away from the guests.

use std::{collections::HashMap, sync::Arc};

use super::super::Inventory;
use crate::source::{
    netlink::link::{Link, LinkKind},
    ovsdb::rows::Port,
};

/// The ports of every bridge, by Linux or Open vSwitch.
#[derive(Default)]
pub(super) struct Bridges<'a> {
    /// By the bridge's or bond's index, in the order of their own.
    enslaved: HashMap<u32, Vec<&'a Arc<Link>>>,
    /// By the bridge's name.
    switched: HashMap<&'a str, Vec<&'a Arc<Port>>>,
}

/// What leads away from a bridge.
#[derive(Clone)]
pub(super) enum Uplink<'a> {
    /// A link of this host.
    Link(&'a Arc<Link>),
    /// A port that is no link.
    Port(&'a Arc<Port>),
    /// Several ports of a switch as one.
    Bond(Vec<&'a Arc<Port>>),
    /// Tunnels of one type that leave by the same device.
    Tunnels(Vec<&'a Arc<Port>>),
}

/// What is on a bridge.
#[derive(Clone, Default)]
pub(super) struct Uplinks<'a> {
    pub(super) uplinks: Vec<Uplink<'a>>,
    /// How many ports carry VIFs.
    pub(super) vifs: usize,
    /// How many ports neither do that nor lead anywhere, as far as is known.
    pub(super) others: usize,
}

impl<'a> Bridges<'a> {
    pub(super) fn of(inventory: &'a Inventory) -> Self {
        let mut bridges = Self::default();
        for link in inventory.links().iter() {
            if let Some(controller) = link.controller {
                bridges.enslaved.entry(controller).or_default().push(link);
            }
        }
        for links in bridges.enslaved.values_mut() {
            links.sort_unstable_by_key(|link| link.index);
        }
        for port in inventory.ports().iter() {
            if let Some(bridge) = &port.bridge {
                bridges.switched.entry(bridge).or_default().push(port);
            }
        }
        bridges
    }

    /// The links that this one controls.
    pub(super) fn enslaved(&self, controller: u32) -> &[&'a Arc<Link>] {
        self.enslaved.get(&controller).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is on a Linux bridge.
    pub(super) fn on_bridge(&self, inventory: &'a Inventory, bridge: u32) -> Uplinks<'a> {
        let mut found = Uplinks::default();
        for link in self.enslaved(bridge) {
            if inventory.vifs_by_device(link.index).next().is_some() {
                found.vifs += 1;
            } else if leads_away(inventory, link) {
                found.uplinks.push(Uplink::Link(link));
            } else {
                found.others += 1;
            }
        }
        found
    }

    /// What is on an Open vSwitch bridge.
    pub(super) fn on_switch(&self, inventory: &'a Inventory, bridge: &str) -> Uplinks<'a> {
        let mut found = Uplinks::default();
        let mut bonds: HashMap<&str, Vec<&'a Arc<Port>>> = HashMap::new();
        let mut tunnels: HashMap<(&str, Option<&str>), Vec<&'a Arc<Port>>> = HashMap::new();
        for port in self.switched.get(bridge).into_iter().flatten() {
            let link = link_of(inventory, port);
            let carries = || link.is_some_and(|link| inventory.vifs_by_device(link.index).next().is_some());
            if *port.name == *bridge {
                // The bridge's own, by which the host itself takes part.
            } else if inventory.by_carrier.ovs_port.get(&*port.name).next().is_some() || carries() {
                found.vifs += 1;
            } else if let Some(bond) = &port.bond {
                bonds.entry(bond).or_default().push(port);
            } else if is_tunnel(&port.kind) {
                tunnels.entry((&port.kind, port.egress.as_deref())).or_default().push(port);
            } else {
                match (&*port.kind, link) {
                    ("patch" | "dpdk" | "afxdp", _) => found.uplinks.push(Uplink::Port(port)),
                    // With an id, it is some VIF's that is gone.
                    ("system", _) if port.iface_id.is_some() => found.others += 1,
                    ("system", Some(link)) if leads_away(inventory, link) => found.uplinks.push(Uplink::Link(link)),
                    // A device that should be there.
                    ("system", None) => found.uplinks.push(Uplink::Port(port)),
                    ("internal", Some(link)) if link.controller.is_some_and(|c| is_bridge(inventory, c)) => {
                        found.uplinks.push(Uplink::Link(link));
                    }
                    _ => found.others += 1,
                }
            }
        }
        let mut bonds: Vec<_> = bonds.into_values().collect();
        let mut tunnels: Vec<_> = tunnels.into_values().collect();
        bonds.sort_unstable_by_key(|ports| Arc::clone(&ports[0].name));
        tunnels.sort_unstable_by_key(|ports| Arc::clone(&ports[0].name));
        found.uplinks.extend(bonds.into_iter().map(Uplink::Bond));
        found.uplinks.extend(tunnels.into_iter().map(Uplink::Tunnels));
        found
    }
}

/// The link that a port is.
pub(super) fn link_of<'a>(inventory: &'a Inventory, port: &Port) -> Option<&'a Arc<Link>> {
    let by_index = || inventory.links().get(port.ifindex?);
    let link = inventory.link_by_name(&port.name).or_else(by_index)?;
    inventory.ports().of_link(link).is_some_and(|of_link| of_link.name == port.name).then_some(link)
}

fn is_bridge(inventory: &Inventory, index: u32) -> bool {
    inventory.links().get(index).is_some_and(|link| link.kind == LinkKind::Bridge)
}

/// Whether a port of a bridge that carries no VIF may be an uplink. A tap is some process's, often a guest's that is
/// gone; but with a datapath in user space, those that Open vSwitch makes are taps too.
fn leads_away(inventory: &Inventory, link: &Link) -> bool {
    match link.kind {
        LinkKind::Tap { .. } | LinkKind::Tun => {
            inventory.ports().of_link(link).is_some_and(|port| &*port.kind == "internal")
        }
        LinkKind::Macvtap | LinkKind::Macvlan | LinkKind::Loopback => false,
        _ => true,
    }
}

/// Whether Open vSwitch wraps the frames of such a port into packets.
pub(super) fn is_tunnel(kind: &str) -> bool {
    TUNNELS.iter().any(|(known, _)| *known == kind)
}

/// By how many bytes a tunnel over IPv4 makes a guest's packet larger than it is: Ethernet's header of 14, the tunnel's
/// own, and those of UDP and IP.
pub(super) fn overhead(kind: &str) -> u32 {
    TUNNELS.iter().find(|(known, _)| *known == kind).map_or(0, |(_, overhead)| *overhead)
}

/// ovs-vswitchd.conf.db(5), and the kernel's kinds of the same names.
const TUNNELS: [(&str, u32); 9] = [
    ("vxlan", 50),
    ("geneve", 50),
    ("gre", 38),
    ("gretap", 38),
    ("ip6gre", 58),
    ("ip6gretap", 58),
    ("erspan", 50),
    ("stt", 72),
    ("lisp", 36),
];
