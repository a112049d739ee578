//! Which links of this host hang together as one Ethernet segment: what a frame of a guest can reach without a router.
//!
//! A MAC address means its owner only there. The same one seen on an uplink is usually another host's guest.

use std::{collections::HashMap, sync::Arc};

use crate::source::{
    netlink::link::{Link, LinkKind, LinkRef, Links},
    ovsdb::rows::Ports,
};

/// The segment of each link and of each Open vSwitch bridge. VLANs are not told apart: that two guests in two VLANs of one
/// bridge have the same MAC address is rarer than a tag that is set where we do not see it, by a flow.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Those of links that are connected to anything. A segment is called after one of its members.
    links: HashMap<u32, Node>,
    switches: HashMap<Arc<str>, Node>,
}

/// A link by its index, or what else can be a member.
pub(super) type Node = u64;

impl Segments {
    pub(super) fn of(links: &Links, ports: &Ports) -> Self {
        let mut sets = Sets::default();
        let mut switches: HashMap<Arc<str>, Node> = HashMap::new();
        let mut switch = |name: &Arc<str>| {
            let next = SWITCH + switches.len() as Node;
            *switches.entry(Arc::clone(name)).or_insert(next)
        };
        for link in links.iter() {
            let node = Node::from(link.index);
            for other in neighbours(links, link) {
                sets.unite(node, other);
            }
            if let Some(bridge) = ports.of_link(link).and_then(|port| port.bridge.as_ref()) {
                sets.unite(node, switch(bridge));
            }
        }
        let peer = |name: &Arc<str>| ports.by_name(name)?.bridge.as_ref();
        for port in ports.iter() {
            if let (Some(bridge), Some(peer)) = (&port.bridge, port.peer.as_ref().and_then(peer)) {
                sets.unite(switch(bridge), switch(peer));
            }
        }
        for node in switches.values_mut() {
            *node = sets.name(*node);
        }
        let members: Vec<_> = sets.0.keys().filter_map(|node| u32::try_from(*node).ok()).collect();
        Self { links: members.into_iter().map(|index| (index, sets.name(index.into()))).collect(), switches }
    }

    /// The segment of a link.
    pub(super) fn of_link(&self, index: u32) -> Node {
        self.links.get(&index).copied().unwrap_or(index.into())
    }

    /// The segment of an Open vSwitch bridge.
    pub(super) fn of_switch(&self, name: &str) -> Option<Node> {
        self.switches.get(name).copied()
    }
}

/// What the kernel connects a link to.
fn neighbours<'a>(links: &'a Links, link: &'a Link) -> impl Iterator<Item = Node> + 'a {
    let here = |other: LinkRef| other.netns.is_none().then_some(other.index);
    let controller = link.controller.and_then(|index| links.get(index));
    let bridge = controller.filter(|controller| controller.kind == LinkKind::Bridge).map(|bridge| bridge.index);
    let beneath = link.lower.and_then(here).and_then(|index| links.get(index));
    let other = match link.kind {
        LinkKind::Veth => link.peer.and_then(here).map(Node::from),
        // Enslaved, it belongs to the bridge of its VLAN; upon hardware, to the network outside.
        LinkKind::Vlan { .. } if link.controller.is_none() => {
            let virtual_one = beneath.filter(|beneath| !matches!(beneath.kind, LinkKind::Physical | LinkKind::Bond));
            virtual_one.map(|beneath| beneath.index.into())
        }
        // They reach each other, and not the device that they are upon.
        LinkKind::Macvtap | LinkKind::Macvlan => beneath.map(|beneath| UPON + Node::from(beneath.index)),
        _ => None,
    };
    bridge.map(Node::from).into_iter().chain(other)
}

/// What is upon the link of this index, beside it.
const UPON: Node = 1 << 32;
/// The Open vSwitch bridges, in the order in which they were seen.
const SWITCH: Node = 2 << 32;

/// Disjoint sets: each member leads to another one of its set, or to itself, who gives the set its name.
#[derive(Default)]
struct Sets(HashMap<Node, Node>);

impl Sets {
    fn name(&mut self, mut node: Node) -> Node {
        loop {
            let next = *self.0.entry(node).or_insert(node);
            if next == node {
                return node;
            }
            // Shortens the way for the next.
            let after = self.0[&next];
            self.0.insert(node, after);
            node = after;
        }
    }

    fn unite(&mut self, a: Node, b: Node) {
        let (a, b) = (self.name(a), self.name(b));
        self.0.insert(a.max(b), a.min(b));
    }
}
