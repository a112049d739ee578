//! Bridges that guests use, and the uplinks that lead from there to the network outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Affected, Code, Finding, Severity, Subject,
    device::of_vif,
    scene::{Scene, finding, virsh, word},
};
use crate::{
    inventory::Misplaced,
    source::{
        netlink::link::{Link, LinkKind},
        ovsdb::rows::Port,
    },
};

/// `BR_MAX_PORTS` of `net/bridge/br_private.h`.
const MAX_PORTS: usize = 1024;
/// What is nearly full: a large host needs this many for the guests of one evacuation.
const NEARLY: usize = MAX_PORTS - MAX_PORTS / 10;

pub(super) fn differs(scene: &Scene, found: &mut Vec<Finding>) {
    let unplugged = scene.running().filter_map(|(instance, vif)| {
        let kind = vif.interface.virtualport.as_ref()?.kind.as_deref()?;
        let is_alone = kind == "openvswitch" && vif.ovs_port.is_none() && scene.has_switch();
        is_alone.then_some((instance, vif, vif.device.as_ref()?))
    });
    found.extend(unplugged.map(|(instance, vif, device)| {
        let described = vif.interface.attachment.source().unwrap_or_default();
        of_vif(Code::BridgeDiffers, Severity::Error, instance, vif)
            .says(format!("{} of {} is no port of Open vSwitch", device.name, instance.name))
            .because(format!("libvirt: the interface with {} is on {described}", vif.interface.mac))
            .because(format!("Open vSwitch: there is no port {}", device.name))
            .advise("Somebody has removed the port. Detach the interface and attach it again, or add the port with its ids.")
            .try_command(format!("ovs-vsctl add-port {} {}", word(&described), word(&device.name)))
            .try_command(virsh(instance, "domiflist"))
    }));
    let misplaced = scene.running().filter_map(|(i, vif)| Some((i, vif, scene.inventory.misplaced(vif)?)));
    found.extend(misplaced.map(|(instance, vif, Misplaced { device, described, actual })| {
        let on = actual.as_deref().unwrap_or("no bridge");
        let finding = of_vif(Code::BridgeDiffers, Severity::Error, instance, vif)
            .says(format!("{} of {} is on {on}, not on {described}", device.name, instance.name))
            .because(format!("libvirt: the interface with {} is on {described}", vif.interface.mac));
        let (name, bridge) = (word(&device.name), word(described));
        if vif.ovs_port.as_ref() == Some(&device.name) {
            let finding = finding.because(format!("Open vSwitch: port {} is on {on}", device.name));
            return finding
                .advise("Somebody has moved the port, or libvirt was not told. Put it where the description has it, or change that.")
                .try_command(format!("ovs-vsctl -- del-port {name} -- add-port {bridge} {name}"));
        }
        finding
            .because(format!("kernel: {} (ifindex {}) is on {on}", device.name, device.index))
            .advise("Somebody has moved the device, or libvirt was not told. Put it where the description has it, or change that.")
            .try_command(format!("ip link set dev {name} master {bridge}"))
    }));
}

pub(super) fn down(scene: &Scene, found: &mut Vec<Finding>) {
    for (bridge, affects) in bridges(scene).into_values().filter(|(bridge, _)| !bridge.up) {
        found.push(
            finding(Code::BridgeDown, Severity::Error, Subject::link(bridge))
                .says(format!("the bridge {} is set down: {} cannot reach anything", bridge.name, count(&affects)))
                .because(format!("kernel: {} (ifindex {}) is not UP", bridge.name, bridge.index))
                .affecting(affects)
                .advise("Set it up, and see what has set it down.")
                .try_command(format!("ip link set dev {} up", word(&bridge.name))),
        );
    }
}

pub(super) fn nearly_full(scene: &Scene, found: &mut Vec<Finding>) {
    for (bridge, affects) in bridges(scene).into_values() {
        let ports = scene.members(bridge.index).len();
        if ports < NEARLY {
            continue;
        }
        let severity = if ports >= MAX_PORTS { Severity::Error } else { Severity::Warning };
        let left = MAX_PORTS.saturating_sub(ports);
        found.push(
            finding(Code::BridgeNearlyFull, severity, Subject::link(bridge))
                .says(format!("the bridge {} has {ports} ports and can take {left} more", bridge.name))
                .because(format!("kernel: {ports} links have the controller {}", bridge.name))
                .because(format!("Linux: a bridge has at most {MAX_PORTS} ports"))
                .affecting(affects)
                .advise("No guest starts on a full bridge. Are there leaked devices among its ports? Else use a second one.")
                .try_command("vifctl doctor --code device-leaked")
                .try_command(format!("ip link show master {}", word(&bridge.name))),
        );
    }
}

pub(super) fn uplink_down(scene: &Scene, found: &mut Vec<Finding>) {
    let uplinks = uplinks(scene);
    for Uplink { link, affects, is_last, used_by } in uplinks.values().filter(|uplink| !uplink.link.up) {
        found.push(
            finding(Code::UplinkDown, severity(*is_last), Subject::link(link))
                .says(format!("{}, the way out of {used_by}, is set down", link.name))
                .because(format!("kernel: {} (ifindex {}, {}) is not UP", link.name, link.index, link.kind))
                .because_all(is_last.then(|| format!("{used_by} has no other uplink that works")))
                .affecting(affects.clone())
                .advise("Set it up, and see what has set it down. One that is not used should be taken off the bridge.")
                .try_command(format!("ip link set dev {} up", word(&link.name))),
        );
    }
}

pub(super) fn uplink_no_carrier(scene: &Scene, found: &mut Vec<Finding>) {
    let without = |link: &Link| link.up && link.carrier == Some(false);
    let uplinks = uplinks(scene);
    for Uplink { link, affects, is_last, used_by } in uplinks.values().filter(|uplink| without(uplink.link)) {
        found.push(
            finding(Code::UplinkNoCarrier, severity(*is_last), Subject::link(link))
                .says(format!("{}, the way out of {used_by}, has no carrier", link.name))
                .because(format!("kernel: {} (ifindex {}, {}) has NO-CARRIER", link.name, link.index, link.kind))
                .because_all(is_last.then(|| format!("{used_by} has no other uplink that works")))
                .affecting(affects.clone())
                .advise("Look at the cable, the switch's port, and what is beneath the device.")
                .try_command(format!("ethtool {}", word(&link.name)))
                .try_command(format!("ip -d -s link show dev {}", word(&link.name))),
        );
    }
}

fn severity(is_last: bool) -> Severity {
    if is_last { Severity::Error } else { Severity::Warning }
}

fn count(affects: &[Affected]) -> String {
    match affects {
        [one] => format!("a VIF of {}", one.instance_name),
        all => format!("{} VIFs", all.len()),
    }
}

/// Where frames of guests are switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place<'a> {
    /// A Linux bridge, by its index.
    Bridge(u32),
    /// An Open vSwitch bridge, by its name.
    Switch(&'a str),
}

/// The places that guests are plugged into, with those guests' VIFs.
pub(super) fn places<'a>(scene: &Scene<'a>) -> BTreeMap<Place<'a>, Vec<Affected>> {
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (instance, vif) in scene.running() {
        let bridge = scene.device(vif).and_then(|link| scene.bridge_of(link)).map(|bridge| Place::Bridge(bridge.index));
        let port = scene.inventory.ovs_port(vif).and_then(|port| port.bridge.as_deref()).map(Place::Switch);
        for place in [bridge, port].into_iter().flatten() {
            places.entry(place).or_default().push(Affected::of(instance, vif));
        }
    }
    places
}

/// The Linux bridges among them.
fn bridges<'a>(scene: &Scene<'a>) -> BTreeMap<u32, (&'a Link, Vec<Affected>)> {
    let bridge = |(place, affects)| match place {
        Place::Bridge(index) => Some((index, (&**scene.link(index)?, affects))),
        Place::Switch(_) => None,
    };
    places(scene).into_iter().filter_map(bridge).collect()
}

/// A link by which frames of guests leave the host.
struct Uplink<'a> {
    link: &'a Link,
    affects: Vec<Affected>,
    /// Nothing else leads out.
    is_last: bool,
    /// What it belongs to.
    used_by: &'a str,
}

/// The links by which frames leave the places that guests are plugged into, with what those rest on: the lower device
/// of a VLAN, the members of a bond.
fn uplinks<'a>(scene: &Scene<'a>) -> BTreeMap<u32, Uplink<'a>> {
    let mut uplinks: BTreeMap<u32, Uplink> = BTreeMap::new();
    for (place, affects) in places(scene) {
        let name = match place {
            Place::Bridge(index) => scene.link(index).map_or("", |link| &link.name),
            Place::Switch(name) => name,
        };
        let out = ways_out(scene, place);
        let works = |link: &&Arc<Link>| link.up && link.carrier != Some(false);
        let any_works = out.iter().any(works);
        for link in &out {
            add(scene, &mut uplinks, link, &affects, !any_works, name);
        }
    }
    // Upon their lower device, or a part of a card.
    let mut stacked: BTreeMap<u32, Vec<Affected>> = BTreeMap::new();
    for (instance, vif) in scene.running() {
        let macvtap = scene.device(vif).filter(|link| link.kind == LinkKind::Macvtap);
        let lower = macvtap.and_then(|link| link.lower).filter(|lower| lower.netns.is_none()).map(|lower| lower.index);
        let card = || vif.virtual_function.as_ref().map(|function| function.physical_function.index);
        if let Some(index) = lower.or_else(card) {
            stacked.entry(index).or_default().push(Affected::of(instance, vif));
        }
    }
    for (index, affects) in stacked {
        if let Some(lower) = scene.link(index) {
            add(scene, &mut uplinks, lower, &affects, true, &lower.name);
        }
    }
    uplinks
}

fn add<'a>(
    scene: &Scene<'a>,
    uplinks: &mut BTreeMap<u32, Uplink<'a>>,
    link: &'a Arc<Link>,
    affects: &[Affected],
    is_last: bool,
    used_by: &'a str,
) {
    if let Some(known) = uplinks.get_mut(&link.index) {
        known.is_last |= is_last;
        known.affects.extend(affects.iter().cloned());
        known.affects.sort();
        known.affects.dedup();
        return;
    }
    uplinks.insert(link.index, Uplink { link, affects: affects.to_vec(), is_last, used_by });
    let beneath: Vec<_> = match link.kind {
        LinkKind::Bond => scene.members(link.index).to_vec(),
        LinkKind::Vlan { .. } => {
            let lower = link.lower.filter(|lower| lower.netns.is_none());
            lower.and_then(|lower| scene.link(lower.index)).into_iter().collect()
        }
        _ => return,
    };
    let any_works = beneath.iter().any(|link| link.up && link.carrier != Some(false));
    for lower in beneath {
        add(scene, uplinks, lower, affects, is_last || !any_works, &link.name);
    }
}

/// The links by which frames leave a place, directly or through other bridges of this host.
pub(super) fn ways_out<'a>(scene: &Scene<'a>, from: Place<'a>) -> Vec<&'a Arc<Link>> {
    let mut out = BTreeMap::new();
    let mut seen = BTreeSet::from([from]);
    let mut left = vec![from];
    while let Some(place) = left.pop() {
        let next: Vec<Place> = match place {
            Place::Bridge(index) => {
                let members = scene.members(index).iter().filter(|link| !scene.carries_vif(link.index));
                members.filter_map(|link| beyond(scene, link, &mut out)).collect()
            }
            Place::Switch(name) => {
                let ports = scene.ports_of(name).iter().filter(|port| !scene.is_plugged(&port.name));
                let next = |port: &&'a Arc<Port>| -> Option<Place<'a>> {
                    if let Some(peer) = &port.peer {
                        return scene.inventory.ports().by_name(peer)?.bridge.as_deref().map(Place::Switch);
                    }
                    let link = scene.inventory.link_by_name(&port.name).filter(|_| &*port.kind == "system")?;
                    // Behind it may be a guest's own bridge, but for a veth pair between two switches.
                    let peer = scene.peer(link).map(|peer| scene.inventory.ports().of_link(peer));
                    if matches!(peer, Some(None)) { None } else { beyond(scene, link, &mut out) }
                };
                ports.filter_map(next).collect()
            }
        };
        left.extend(next.into_iter().filter(|place| seen.insert(*place)));
    }
    out.into_values().collect()
}

/// Where a port that is no guest's leads: out, or to another place.
fn beyond<'a>(scene: &Scene<'a>, link: &'a Arc<Link>, out: &mut BTreeMap<u32, &'a Arc<Link>>) -> Option<Place<'a>> {
    match &link.kind {
        LinkKind::Physical | LinkKind::Bond | LinkKind::Vlan { .. } | LinkKind::Vxlan { .. } => {
            out.insert(link.index, link);
            None
        }
        LinkKind::Veth => {
            let peer = scene.peer(link)?;
            let port = scene.inventory.ports().of_link(peer).and_then(|port| port.bridge.as_deref());
            let bridge = || scene.bridge_of(peer).map(|bridge| Place::Bridge(bridge.index));
            port.map(Place::Switch).or_else(bridge)
        }
        // Its tunnels.
        LinkKind::Other { name } if matches!(&**name, "geneve" | "gretap" | "ip6gretap" | "team" | "vrf") => {
            out.insert(link.index, link);
            None
        }
        LinkKind::Other { name } if &**name == "openvswitch" => {
            let port = scene.inventory.ports().of_link(link)?;
            port.bridge.as_deref().map(Place::Switch)
        }
        _ => None,
    }
}
