//! Packets that are larger than something on their way takes. Such a packet is lost without a word.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Affected, Code, Finding, Severity, Subject,
    bridge::{Place, places, ways_out},
    device::of_vif,
    scene::{Scene, finding, word},
};
use crate::source::netlink::link::{Link, LinkKind};

pub(super) fn exceeds_device(scene: &Scene, found: &mut Vec<Finding>) {
    let larger = scene.running().filter_map(|(instance, vif)| {
        let (link, mtu) = (scene.device(vif)?, vif.interface.mtu?);
        (mtu > link.mtu).then_some((instance, vif, link, mtu))
    });
    found.extend(larger.map(|(instance, vif, link, mtu)| {
        of_vif(Code::MtuExceedsDevice, Severity::Error, instance, vif)
            .says(format!("{} takes {} bytes, its guest {} was told {mtu}", link.name, link.mtu, instance.name))
            .because(format!("libvirt: <mtu size='{mtu}'/>"))
            .because(format!("kernel: {} (ifindex {}) has MTU {}", link.name, link.index, link.mtu))
            .advise("Somebody has changed the device's MTU since the guest was started. Give it the guest's.")
            .try_command(format!("ip link set dev {} mtu {mtu}", word(&link.name)))
    }));
}

/// A link that takes less than devices of guests before it.
struct Narrow<'a> {
    link: &'a Link,
    severity: Severity,
    role: &'static str,
    /// The largest of those devices' MTUs.
    mtu: u32,
    affects: Vec<Affected>,
}

pub(super) fn exceeds_path(scene: &Scene, found: &mut Vec<Finding>) {
    let mut narrow: BTreeMap<u32, Narrow> = BTreeMap::new();
    for (place, affects) in places(scene) {
        let wide = |link: &Link| -> Vec<(u32, Affected)> {
            let of = |vif: &Affected| Some((mtu_of(scene, vif)?, vif.clone()));
            affects.iter().filter_map(of).filter(|(mtu, _)| *mtu > link.mtu).collect()
        };
        for (link, severity, role) in hops(scene, place) {
            let wide = wide(link);
            let Some(mtu) = wide.iter().map(|(mtu, _)| *mtu).max() else { continue };
            let known = narrow.entry(link.index).or_insert(Narrow { link, severity, role, mtu, affects: vec![] });
            known.mtu = known.mtu.max(mtu);
            known.severity = known.severity.min(severity);
            known.affects.extend(wide.into_iter().map(|(_, vif)| vif));
        }
    }
    for Narrow { link, severity, role, mtu, mut affects } in narrow.into_values() {
        affects.sort();
        affects.dedup();
        let of = affects.iter().take(3).filter_map(|vif| vif.device.as_ref()).map(|name| name.to_string());
        let names = of.collect::<Vec<_>>().join(", ") + if affects.len() > 3 { ", …" } else { "" };
        found.push(
            finding(Code::MtuExceedsPath, severity, Subject::link(link))
                .says(format!("{}, {role}, takes {} bytes; devices before it take {mtu}", link.name, link.mtu))
                .because(format!("kernel: {} (ifindex {}, {}) has MTU {}", link.name, link.index, link.kind, link.mtu))
                .because(format!("kernel: up to MTU {mtu} on {names}"))
                .affecting(affects)
                .advise(
                    "Larger packets are lost here, and connections hang once they carry data. Give every hop the MTU of \
                     the guests' network, or tell the guests the smaller one.",
                )
                .try_command(format!("ip link set dev {} mtu {mtu}", word(&link.name))),
        );
    }
}

fn mtu_of(scene: &Scene, vif: &Affected) -> Option<u32> {
    Some(scene.inventory.link_by_name(vif.device.as_ref()?)?.mtu)
}

/// What comes after a device on this place. Where several ways lead out, only flows and routes know which one a packet
/// takes: the widest one counts.
fn hops<'a>(scene: &Scene<'a>, place: Place<'a>) -> Vec<(&'a Link, Severity, &'static str)> {
    let mut hops: Vec<(&Link, _, _)> = Vec::new();
    let out = ways_out(scene, place);
    let widest = out.iter().max_by_key(|link| link.mtu);
    hops.extend(widest.map(|link| (&***link, Severity::Error, "the way out")));
    if let Place::Bridge(index) = place
        && let Some(bridge) = scene.link(index)
    {
        // A bridge passes on what is larger than its own MTU, if the next port takes it.
        hops.push((bridge, Severity::Warning, "their bridge"));
        let others = scene.members(index).iter().filter(|link| !scene.carries_vif(link.index));
        let wires: Vec<_> = others.filter(|link| link.kind == LinkKind::Veth).collect();
        let severity =
            if wires.len() == 1 && !out_is_direct(scene, index, &out) { Severity::Error } else { Severity::Warning };
        for wire in wires {
            if let Some(peer) = scene.peer(wire) {
                let narrower = if peer.mtu < wire.mtu { peer } else { wire };
                hops.push((narrower, severity, "the veth pair behind their bridge"));
            }
        }
    }
    hops
}

/// Whether the bridge has an uplink of its own.
fn out_is_direct(scene: &Scene, bridge: u32, out: &[&Arc<Link>]) -> bool {
    scene.members(bridge).iter().any(|link| out.iter().any(|way| way.index == link.index))
}
