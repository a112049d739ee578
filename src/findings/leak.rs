//! Devices and ports of guests that are not here.
//!
//! A host has many devices that are no guest's: of VPNs, of containers, of Neutron's own servers. What counts as
//! evidence is narrow, therefore: a name as only clouds and libvirt give them, or a bridge that guests use and no process
//! behind the device; and for a port, that it claims a VIF. A device whose other end is in another network namespace
//! serves whoever is there. And what belongs to an instance that is only shut off is where Nova leaves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    Code, Finding, Severity, Subject,
    scene::{Scene, finding, word},
};
use crate::source::{
    netlink::link::{Link, LinkKind},
    ovsdb::rows::Port,
};

/// What OpenStack calls the devices of one VIF, with the 11 characters that its id begins with, after the most telling.
const PREFIXES: [&str; 5] = ["tap", "qvo", "vhu", "qvb", "qbr"];

pub(super) fn ports(scene: &Scene, found: &mut Vec<Finding>) {
    let known = scene.known_ids();
    for port in scene.inventory.ports().iter().filter(|port| is_claimed_by_nobody(scene, port, &known)) {
        let link = scene.inventory.link_by_name(&port.name);
        let claims = [
            port.iface_id.as_ref().map(|id| format!("iface-id={id}")),
            port.attached_mac.map(|mac| format!("attached-mac={mac}")),
            port.vm_uuid.map(|uuid| format!("vm-uuid (or vm-id) {uuid}")),
        ];
        let claims: Vec<_> = claims.into_iter().flatten().collect();
        let bridge = port.bridge.as_deref().unwrap_or("no bridge");
        let device = match link {
            Some(link) => format!("kernel: {}", describe(scene, link)),
            None => format!("kernel: there is no device {}", port.name),
        };
        let mut leaked = finding(Code::PortLeaked, Severity::Warning, Subject::port(port))
            .says(format!("port {} on {bridge} is for a VIF that no instance of this host has", port.name))
            .because(format!("Open vSwitch: {} has external_ids {}", port.name, claims.join(", ")))
            .because(device)
            .because("libvirt: no instance has that VIF, running or not")
            .because_all(port.error.iter().map(|error| format!("Open vSwitch: {error}")))
            .advise(
                "The guest was deleted or has migrated, and its port stayed. Leftovers slow the network's controller down, \
                 and may take a guest's traffic on another host. Make sure that the cloud has no such guest here; then \
                 remove it.",
            )
            .try_command(format!("ovs-vsctl del-port {}", word(&port.name)));
        if link.is_some_and(|link| &*port.kind == "system" && link.kind != LinkKind::Physical) {
            leaked = leaked.try_command(format!("ip link del dev {}", word(&port.name)));
        }
        found.push(leaked);
    }
}

/// Whether a port claims to be a VIF's that no instance here has, running or not.
pub(super) fn is_claimed_by_nobody(scene: &Scene, port: &Port, known: &BTreeSet<Uuid>) -> bool {
    if scene.is_plugged(&port.name) || &*port.kind == "patch" {
        return false;
    }
    if let Some(uuid) = port.vm_uuid {
        return scene.inventory.instance(uuid).is_none();
    }
    // The server of a network (DHCP, metadata, router) has an internal port. Other container engines write their own ids.
    let Some(id) = port.iface_id.as_deref().and_then(|id| Uuid::try_parse(id).ok()) else { return false };
    let serves_elsewhere = scene.inventory.link_by_name(&port.name).is_some_and(|link| leads_elsewhere(link));
    &*port.kind != "internal" && !serves_elsewhere && !known.contains(&id)
}

/// Into another network namespace.
fn leads_elsewhere(link: &Link) -> bool {
    link.peer.is_some_and(|peer| peer.netns.is_some())
}

pub(super) fn devices(scene: &Scene, found: &mut Vec<Finding>) {
    let known = scene.known_ids();
    let known_starts: BTreeSet<String> = known.iter().map(|id| id.to_string()[..11].to_owned()).collect();
    let targets: BTreeSet<&str> = scene
        .inventory
        .instances
        .iter()
        .flat_map(|instance| instance.vifs.iter().map(|vif| &vif.interface).chain(&instance.defined_only))
        .filter_map(|interface| interface.target.as_deref())
        .collect();

    let mut families: BTreeMap<&str, Vec<&Arc<Link>>> = BTreeMap::new();
    for link in scene.inventory.links().iter() {
        match family(&link.name) {
            Some(start) => families.entry(start).or_default().push(link),
            None if is_stray(scene, link) && !targets.contains(&*link.name) => found.push(leaked(scene, link, &[])),
            None => {}
        }
    }
    for (start, mut links) in families {
        links.sort_by_key(|link| PREFIXES.iter().position(|prefix| link.name.starts_with(prefix)));
        let owned = |link: &&Arc<Link>| {
            let port = scene.inventory.ports().of_link(link);
            scene.carries_vif(link.index)
                || targets.contains(&*link.name)
                || leads_elsewhere(link)
                || scene.is_plugged(&link.name)
                // It is told of already, or serves a network.
                || port.is_some_and(|port| &*port.kind == "internal" || is_claimed_by_nobody(scene, port, &known))
        };
        if known_starts.contains(start) || links.iter().any(owned) {
            continue;
        }
        if let [first, others @ ..] = &links[..] {
            found.push(leaked(scene, first, others));
        }
    }
}

fn leaked(scene: &Scene, link: &Link, others: &[&Arc<Link>]) -> Finding {
    let mut leaked = finding(Code::DeviceLeaked, Severity::Warning, Subject::link(link))
        .says(format!("no instance of this host has {}, a device as guests have them", link.name))
        .because(format!("kernel: {}", describe(scene, link)))
        .because_all(others.iter().map(|link| format!("kernel: {}", describe(scene, link))))
        .because(format!("libvirt: {} is no instance's, running or not", link.name))
        .advise(
            "The guest was deleted, has migrated, or failed to start, and its device stayed. It takes up a port of its \
             bridge, and keeps a guest of the same name from starting. See that no process has it open; then remove it.",
        )
        .try_command(format!("grep -l 'iff:.*{}' /proc/[0-9]*/fdinfo/* 2>/dev/null", word(&link.name)));
    for link in [link].into_iter().chain(others.iter().map(|link| &***link)) {
        // With one end of a veth pair the other goes too.
        if !link.name.starts_with("qvb") || others.is_empty() {
            leaked = leaked.try_command(format!("ip link del dev {}", word(&link.name)));
        }
    }
    leaked
}

fn describe(scene: &Scene, link: &Link) -> String {
    let mut text = format!("{} (ifindex {}) is a {}", link.name, link.index, link.kind);
    if matches!(link.kind, LinkKind::Tap { persistent: true, .. }) {
        text += ", persistent";
    }
    match (&link.kind, link.carrier) {
        (LinkKind::Tap { .. } | LinkKind::Macvtap, Some(true)) if link.up => text += ", a process has it open",
        (LinkKind::Tap { .. }, _) => text += ", no process has it open, or it is down",
        _ => {}
    }
    if let Some(controller) = link.controller.and_then(|index| scene.link(index)) {
        text += &format!(", on {}", controller.name);
    }
    text
}

/// The 11 characters of a VIF id in a name as OpenStack gives it.
fn family(name: &str) -> Option<&str> {
    let (prefix, start) = name.split_at_checked(3).filter(|(prefix, _)| PREFIXES.contains(prefix))?;
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (head, tail) = start.split_once('-')?;
    (!prefix.is_empty() && head.len() == 8 && tail.len() == 2 && hex(head) && hex(tail)).then_some(start)
}

/// Whether it is a device that nobody but libvirt makes, or one on a bridge that guests use with nobody behind it.
fn is_stray(scene: &Scene, link: &Link) -> bool {
    if scene.carries_vif(link.index) || scene.is_plugged(&link.name) || leads_elsewhere(link) {
        return false;
    }
    let port = scene.inventory.ports().of_link(link);
    let numbered = |prefix: &str| {
        let number = link.name.strip_prefix(prefix).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    match &link.kind {
        LinkKind::Macvtap => numbered("macvtap"),
        LinkKind::Veth => numbered("vnet"),
        LinkKind::Tap { .. } if numbered("vnet") => true,
        LinkKind::Tap { .. } => {
            let bridge = scene.bridge_of(link);
            let used =
                bridge.is_some_and(|bridge| scene.members(bridge.index).iter().any(|l| scene.carries_vif(l.index)));
            // With it older libvirts gave their bridges a lasting MAC address.
            let placeholder = bridge.is_some_and(|bridge| *link.name == *format!("{}-nic", bridge.name));
            used && !placeholder && port.is_none() && link.carrier != Some(true)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_one_name_but_for_its_beginning() {
        assert_eq!(family("tapa756caef-c7"), Some("a756caef-c7"));
        assert_eq!(family("qbra756caef-c7"), Some("a756caef-c7"));
        for other in
            ["tap0", "tapA756CAEF-C7", "tapa756caefc7x", "vpna756caef-c7", "tapa756caef-c", "tàpa756caef-c7", ""]
        {
            assert_eq!(family(other), None, "{other}");
        }
    }
}
