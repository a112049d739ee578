//! Walking from the guest's network card outwards, hop by hop, each thing once: so loops end.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use super::{
    super::{Instance, Inventory, Vif},
    Edge, FaultCode, Hop, HopKind, Join, VifPath,
    hop::{link_hop, port_hop},
    ports::{Bridges, Uplink, Uplinks, is_tunnel, link_of},
};
use crate::source::{
    SyncState,
    netlink::link::{Link, LinkKind, LinkRef},
    ovsdb::rows::Port,
};

/// Finds the ways of any number of VIFs of one inventory.
pub struct Paths<'a> {
    inventory: &'a Inventory,
    bridges: Bridges<'a>,
    /// What has been found on a bridge already.
    known: RefCell<HashMap<Key<'a>, Rc<Uplinks<'a>>>>,
}

impl<'a> Paths<'a> {
    /// Of this inventory.
    #[must_use]
    pub fn new(inventory: &'a Inventory) -> Self {
        Self { inventory, bridges: Bridges::of(inventory), known: RefCell::default() }
    }

    /// The way of the frames of this VIF.
    #[must_use]
    pub fn of(&self, instance: &'a Instance, vif: &'a Vif) -> VifPath {
        let mut walk = Walk {
            paths: self,
            inventory: self.inventory,
            vif,
            hops: Vec::new(),
            edges: Vec::new(),
            parents: Vec::new(),
            ends: Vec::new(),
            known: HashMap::new(),
            queue: VecDeque::new(),
        };
        let why_none = walk.start();
        while let Some((at, place)) = walk.queue.pop_front() {
            walk.go_on(at, place);
        }
        walk.finish(instance, why_none)
    }

    fn uplinks(&self, bridge: Key<'a>) -> Rc<Uplinks<'a>> {
        if let Some(known) = self.known.borrow().get(&bridge) {
            return Rc::clone(known);
        }
        let found = Rc::new(match bridge {
            Key::Link(index) => self.bridges.on_bridge(self.inventory, index),
            Key::Switch(name) => self.bridges.on_switch(self.inventory, name),
            _ => Uplinks::default(),
        });
        self.known.borrow_mut().insert(bridge, Rc::clone(&found));
        found
    }
}

/// What makes a hop that hop.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key<'a> {
    Guest,
    /// What the guest was handed.
    Handed,
    Link(u32),
    /// A device that should exist.
    Missing(&'a str),
    Switch(&'a str),
    Port(&'a str),
    /// A bond of a switch, by the name of its first member.
    Bond(&'a str),
    /// The index of a link and its network namespace.
    Elsewhere(u32, i32),
}

/// Where to go on from.
pub(super) enum Place<'a> {
    /// From a device towards the bridge that it is on.
    Inward(&'a Arc<Link>),
    /// From a device towards the wire.
    Outward(&'a Arc<Link>),
    /// From a Linux bridge to its uplinks.
    Bridge(&'a Arc<Link>),
    /// From an Open vSwitch bridge to its uplinks.
    Switch(&'a Arc<str>),
    /// From a port that is no link towards its bridge.
    PortInward(&'a Arc<Port>),
    /// From a port that is no link away from its bridge.
    PortOutward(&'a Arc<Port>),
    /// From a bond of a switch to its members.
    Bond(Vec<&'a Arc<Port>>),
}

/// Where a line ends, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// A network card, and with it the wire.
    Wire,
    /// The host's own routes.
    Host,
    /// Another network namespace, or what cannot be seen from here.
    Beyond,
    /// A bridge without an uplink.
    Nowhere,
    /// A device that does not exist.
    Broken,
}

pub(super) struct Walk<'a, 'b> {
    paths: &'b Paths<'a>,
    pub(super) inventory: &'a Inventory,
    pub(super) vif: &'a Vif,
    pub(super) hops: Vec<Hop>,
    pub(super) edges: Vec<Edge>,
    /// From where each hop was first reached.
    pub(super) parents: Vec<Option<usize>>,
    pub(super) ends: Vec<(usize, End)>,
    pub(super) known: HashMap<Key<'a>, usize>,
    pub(super) queue: VecDeque<(usize, Place<'a>)>,
}

impl<'a> Walk<'a, '_> {
    /// Adds a hop that comes after `from`, or only the edge if it is known already. Gives its position, and whether it
    /// is new.
    pub(super) fn add(&mut self, from: usize, by: Join, key: Key<'a>, hop: impl FnOnce() -> Hop) -> (usize, bool) {
        let known = self.known.get(&key).copied();
        let to = known.unwrap_or(self.hops.len());
        let joined = |edge: &Edge| (edge.from, edge.to) == (from, to) || (edge.from, edge.to) == (to, from);
        if from != to && !self.edges.iter().any(joined) {
            self.edges.push(Edge { from, to, by });
        }
        if known.is_none() {
            self.hops.push(hop());
            self.parents.push(Some(from));
            self.known.insert(key, to);
        }
        (to, known.is_none())
    }

    pub(super) fn add_then(
        &mut self,
        from: usize,
        by: Join,
        key: Key<'a>,
        hop: impl FnOnce() -> Hop,
        place: Place<'a>,
    ) {
        if self.hops.len() >= MOST_HOPS && !self.known.contains_key(&key) {
            let note = "it leads on, which is not followed: there is too much of it";
            if !self.hops[from].notes.iter().any(|known| known == note) {
                self.hops[from].note(note);
            }
            return self.end(from, End::Beyond);
        }
        if let (at, true) = self.add(from, by, key, hop) {
            self.queue.push_back((at, place));
        }
    }

    pub(super) fn add_link(&mut self, from: usize, by: Join, link: &'a Arc<Link>, place: Place<'a>) {
        let inventory = self.inventory;
        self.add_then(from, by, Key::Link(link.index), || link_hop(inventory, link), place);
    }

    pub(super) fn end(&mut self, at: usize, end: End) {
        self.ends.push((at, end));
    }

    fn go_on(&mut self, at: usize, place: Place<'a>) {
        match place {
            Place::Inward(link) => self.inward(at, link),
            Place::Outward(link) => self.outward(at, link),
            Place::Bridge(link) => self.uplinks(at, Key::Link(link.index)),
            Place::Switch(name) => self.uplinks(at, Key::Switch(name)),
            Place::PortInward(port) => match &port.bridge {
                Some(bridge) => self.add_switch(at, Join::OvsPort, bridge),
                None => self.end(at, End::Nowhere),
            },
            Place::PortOutward(port) => self.leave_by_port(at, port),
            Place::Bond(ports) => {
                for port in ports {
                    self.uplink(at, Join::BondMember, &Uplink::Port(port));
                }
            }
        }
    }

    pub(super) fn add_switch(&mut self, from: usize, by: Join, bridge: &'a Arc<str>) {
        self.add_then(
            from,
            by,
            Key::Switch(bridge),
            || Hop::new(HopKind::OvsBridge, Arc::clone(bridge)),
            Place::Switch(bridge),
        );
    }

    /// From a device towards the bridge that it is on.
    fn inward(&mut self, at: usize, link: &'a Arc<Link>) {
        let port = self.inventory.ports().of_link(link);
        if let Some(bridge) = port.and_then(|port| port.bridge.as_ref()) {
            return self.add_switch(at, Join::OvsPort, bridge);
        }
        match link.controller.and_then(|index| self.inventory.links().get(index)) {
            Some(bridge) if bridge.kind == LinkKind::Bridge => {
                self.add_link(at, Join::BridgePort, bridge, Place::Bridge(bridge));
            }
            Some(other) => {
                let known = matches!(self.inventory.ovsdb, Some(SyncState::Synced { .. }));
                if other.kind.to_string() == "openvswitch" && !known {
                    self.hops[at].note("it is a port of Open vSwitch, whose database cannot be read");
                }
                self.add_link(at, Join::BridgePort, other, Place::Outward(other));
            }
            None => {
                self.hops[at].note("it is on no bridge: the host itself routes its packets");
                self.end(at, End::Host);
            }
        }
    }

    /// From a device towards the wire.
    fn outward(&mut self, at: usize, link: &'a Arc<Link>) {
        let inventory = self.inventory;
        let port = inventory.ports().of_link(link).filter(|port| &*port.kind == "internal");
        if let Some(bridge) = port.and_then(|port| port.bridge.as_ref()) {
            return self.add_switch(at, Join::OvsPort, bridge);
        }
        let members = self.paths.bridges.enslaved(link.index);
        match &link.kind {
            LinkKind::Bridge => self.uplinks(at, Key::Link(link.index)),
            LinkKind::Veth => self.beyond(at, Join::VethPair, link.peer),
            LinkKind::Bond if members.is_empty() => {
                self.hops[at].fault(FaultCode::NoMembers, "it is a bond without members");
                self.end(at, End::Nowhere);
            }
            // A team is a bond by another name.
            LinkKind::Bond | LinkKind::Other { .. } if !members.is_empty() => {
                for member in members {
                    self.add_link(at, Join::BondMember, member, Place::Outward(member));
                }
            }
            LinkKind::Physical => self.end(at, End::Wire),
            _ if link.lower.is_some() => self.beyond(at, Join::Upon, link.lower),
            kind if is_tunnel(&kind.to_string()) => {
                self.hops[at].note("a tunnel: the host's routes choose the device that its packets leave by");
                self.end(at, End::Host);
            }
            _ => self.end(at, End::Host),
        }
    }

    /// To the other end of a pair or the device beneath.
    fn beyond(&mut self, at: usize, by: Join, other: Option<LinkRef>) {
        match other {
            Some(LinkRef { index, netns: Some(netns) }) => {
                let name = format!("device {index} of network namespace {netns}");
                let (at, _) = self.add(at, by, Key::Elsewhere(index, netns), || {
                    let mut hop = Hop::new(HopKind::Elsewhere, name);
                    hop.note(format!("in network namespace {netns} as this one counts them: not readable from here"));
                    hop
                });
                self.end(at, End::Beyond);
            }
            Some(LinkRef { index, netns: None }) => match self.inventory.links().get(index) {
                Some(link) if by == Join::VethPair => self.add_link(at, by, link, Place::Inward(link)),
                Some(link) => self.add_link(at, by, link, Place::Outward(link)),
                None => self.end(at, End::Broken),
            },
            None => self.end(at, End::Beyond),
        }
    }

    /// From a bridge to whatever leads away from it.
    fn uplinks(&mut self, at: usize, bridge: Key<'a>) {
        let found = self.paths.uplinks(bridge);
        let own = self.vif.device.as_ref().and_then(|device| self.inventory.links().get(device.index));
        let own_port = self.inventory.ovs_port(self.vif);
        let here = match bridge {
            Key::Link(index) => own.is_some_and(|own| own.controller == Some(index)),
            Key::Switch(name) => own_port.and_then(|port| port.bridge.as_deref()) == Some(name),
            _ => false,
        };
        match found.vifs.saturating_sub(usize::from(here)) {
            0 => {}
            1 => self.hops[at].note("1 other port carries a VIF"),
            n => self.hops[at].note(format!("{n} other ports carry VIFs")),
        }
        let before = self.hops.len();
        for uplink in &found.uplinks {
            // By some of them the frames have come.
            let known = match uplink {
                Uplink::Link(link) => self.known.contains_key(&Key::Link(link.index)),
                Uplink::Port(port) => self.known.contains_key(&Key::Port(&port.name)),
                Uplink::Bond(_) | Uplink::Tunnels(_) => false,
            };
            if !known {
                let by = if matches!(bridge, Key::Switch(_)) { Join::OvsPort } else { Join::BridgePort };
                self.uplink(at, by, uplink);
            }
        }
        if self.hops.len() == before {
            self.end(at, End::Nowhere);
        }
    }

    fn uplink(&mut self, at: usize, by: Join, uplink: &Uplink<'a>) {
        let inventory = self.inventory;
        match uplink {
            Uplink::Link(link) => self.add_link(at, by, link, Place::Outward(link)),
            Uplink::Port(port) => match link_of(inventory, port) {
                Some(link) => self.add_link(at, by, link, Place::Outward(link)),
                None => self.add_then(at, by, Key::Port(&port.name), || port_hop(port), Place::PortOutward(port)),
            },
            Uplink::Bond(ports) => {
                let first = ports[0];
                let hop = || {
                    let mut hop = port_hop(first);
                    (hop.kind, hop.name) = (HopKind::OvsBond, first.bond.clone().unwrap_or_default());
                    hop.sort = first.bond_mode.as_deref().map(Box::from);
                    (hop.up, hop.carrier, hop.mtu) = (None, None, None);
                    // Each member tells its own.
                    hop.faults.clear();
                    hop
                };
                self.add_then(at, by, Key::Bond(&first.name), hop, Place::Bond(ports.clone()));
            }
            Uplink::Tunnels(ports) => {
                let first = ports[0];
                let hop = || {
                    let mut hop = port_hop(first);
                    if ports.len() > 1 {
                        hop.note(format!("and {} more {} tunnels by the same way", ports.len() - 1, first.kind));
                    }
                    for other in
                        ports[1..].iter().filter_map(|port| Some((&port.name, port.error.as_ref()?))).take(MOST_ERRORS)
                    {
                        hop.fault(FaultCode::SwitchError, format!("Open vSwitch says of {}: {}", other.0, other.1));
                    }
                    hop
                };
                self.add_then(at, by, Key::Port(&first.name), hop, Place::PortOutward(first));
            }
        }
    }

    /// From a port that is no link away from its bridge.
    fn leave_by_port(&mut self, at: usize, port: &'a Arc<Port>) {
        if &*port.kind == "patch" {
            let other = port.peer.as_ref().and_then(|peer| self.inventory.ports().by_name(peer));
            let Some(other) = other.filter(|other| other.peer.as_ref() == Some(&port.name)) else {
                let says = match &port.peer {
                    Some(peer) => format!("its other end, {peer}, does not exist or leads elsewhere"),
                    None => "it names no other end".to_owned(),
                };
                self.hops[at].fault(FaultCode::PatchBroken, says);
                return self.end(at, End::Broken);
            };
            return self.add_then(
                at,
                Join::Patch,
                Key::Port(&other.name),
                || port_hop(other),
                Place::PortInward(other),
            );
        }
        if is_tunnel(&port.kind) {
            let egress = port.egress.as_ref().and_then(|name| self.inventory.link_by_name(name));
            return match egress {
                Some(link) => self.add_link(at, Join::Routed, link, Place::Outward(link)),
                None => {
                    self.hops[at].note("the host's routes choose the device that its packets leave by");
                    self.end(at, End::Host);
                }
            };
        }
        let missing = &*port.kind == "system";
        if missing && port.error.is_none() {
            self.hops[at].fault(FaultCode::Missing, "no device of this host has this name");
        }
        self.end(at, if missing { End::Broken } else { End::Wire });
    }
}

/// Nobody looks at more, and whoever joins bridges in the oddest way shall not cost more.
const MOST_HOPS: usize = 100;
/// Of so many tunnels at once, what is wrong with them.
const MOST_ERRORS: usize = 5;
