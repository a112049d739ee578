//! Who is who: ids and MAC addresses that sources tell differently, and those that several have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    Affected, Code, Finding, Severity, Subject, SubjectKind,
    device::of_vif,
    scene::{Scene, finding, virsh, word},
};
use crate::{
    inventory::{Disagreement, Fact, FactSource, Instance, Vif, VifIdSource},
    source::ovsdb::rows::Port,
};

/// Where a VIF's port, or its card, says otherwise than the domain's description.
fn disagreeing<'a>(
    scene: &Scene<'a>,
    source: FactSource,
    facts: &'static [Fact],
) -> impl Iterator<Item = (&'a Arc<Instance>, &'a Vif, &'a Disagreement)> {
    let all = scene.running().flat_map(|(i, vif)| vif.disagreements.iter().map(move |said| (i, vif, said)));
    all.filter(move |(.., said)| said.source == source && facts.contains(&said.what))
}

pub(super) fn port_mac(scene: &Scene, found: &mut Vec<Finding>) {
    for (instance, vif, said) in disagreeing(scene, FactSource::Ovsdb, &[Fact::MacAddress]) {
        let (port, mac) = (port_name(vif), vif.interface.mac);
        found.push(
            of_vif(Code::PortMacDiffers, Severity::Error, instance, vif)
                .says(format!("port {port} is for {}, its guest {} has {mac}", said.value, instance.name))
                .because(format!("libvirt: the interface of {} has {mac}", instance.name))
                .because(format!("Open vSwitch: {port} has external_ids:attached-mac={}", said.value))
                .advise(
                    "Port security drops what comes from an address that the port was not told. Tell it the guest's.",
                )
                .try_command(format!("ovs-vsctl set Interface {} 'external_ids:attached-mac=\"{mac}\"'", word(port))),
        );
    }
}

pub(super) fn port_instance(scene: &Scene, found: &mut Vec<Finding>) {
    for (instance, vif, said) in disagreeing(scene, FactSource::Ovsdb, &[Fact::Instance]) {
        let (port, uuid) = (port_name(vif), instance.uuid);
        found.push(
            of_vif(Code::PortInstanceDiffers, Severity::Error, instance, vif)
                .says(format!("port {port} carries {} and says that it is another instance's", instance.name))
                .because(format!("libvirt: {port} is the device of {uuid}"))
                .because(format!("Open vSwitch: {port} has external_ids:vm-uuid (or vm-id) {}", said.value))
                .advise("The port was left behind by that instance, or written to by mistake. Plug this guest's interface anew.")
                .try_command(format!("ovs-vsctl --columns=name,external_ids list Interface {}", word(port)))
                .try_command(virsh(instance, "domiflist")),
        );
    }
}

pub(super) fn port_id(scene: &Scene, found: &mut Vec<Finding>) {
    for (instance, vif) in scene.running() {
        // An alias is whatever its user likes.
        let strong = |source: VifIdSource| {
            matches!(source, VifIdSource::Virtualport | VifIdSource::TargetName | VifIdSource::OnlyPort)
        };
        // What a port says that is another instance's is that one's id: another finding.
        let other = vif.disagreements.iter().any(|said| said.what == Fact::Instance);
        let Some(said) = vif.id_disagreement.iter().find(|said| strong(said.source)) else { continue };
        if vif.id_source != VifIdSource::Ovsdb || other {
            continue;
        }
        let (port, id) = (port_name(vif), said.id);
        found.push(
            of_vif(Code::PortIdDiffers, Severity::Error, instance, vif)
                .says(format!("port {port} of {} has the id {}, not {id}", instance.name, vif.id))
                .because(format!("Open vSwitch: {port} has external_ids:iface-id={}", vif.id))
                .because_all(vif.id_disagreement.iter().map(|said| format!("{}: {}", said.source, said.id)))
                .advise(
                    "The network's controller wires the port as another one than the guest's. Give it the guest's id.",
                )
                .try_command(format!("ovs-vsctl set Interface {} external_ids:iface-id={id}", word(port))),
        );
    }
}

fn port_name(vif: &Vif) -> &str {
    vif.ovs_port.as_deref().unwrap_or_default()
}

pub(super) fn function(scene: &Scene, found: &mut Vec<Finding>) {
    const FACTS: &[Fact] = &[Fact::MacAddress, Fact::Vlan, Fact::Instance, Fact::Bridge];
    let mut by_vif: BTreeMap<(Uuid, Uuid), Finding> = BTreeMap::new();
    for (instance, vif, said) in disagreeing(scene, FactSource::PhysicalFunction, FACTS) {
        let Some(passed) = &vif.virtual_function else { continue };
        let (card, number) = (&passed.physical_function.name, passed.function.number);
        let described = match said.what {
            Fact::Vlan => vif.interface.vlans.first().map_or("no VLAN".to_owned(), |vlan| format!("VLAN {vlan}")),
            _ => format!("MAC address {}", vif.interface.mac),
        };
        let key = (instance.uuid, vif.id);
        let finding = by_vif.remove(&key).unwrap_or_else(|| {
            of_vif(Code::FunctionDiffers, Severity::Error, instance, vif)
                .says(format!("{card} was told otherwise of its virtual function {number}, of {}", instance.name))
                .advise("Somebody has set it by hand since the guest was started. Set it as the description says.")
                .try_command(format!("ip link show dev {}", word(card)))
        });
        let seen = finding
            .because(format!("libvirt: {described}"))
            .because(format!("kernel: {} {} for function {number} of {card}", said.what, said.value));
        by_vif.insert(key, seen);
    }
    found.extend(by_vif.into_values());
}

pub(super) fn duplicate_mac(scene: &Scene, found: &mut Vec<Finding>) {
    let mut by_mac: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (instance, vif) in scene.running() {
        by_mac.entry(vif.interface.mac).or_default().push((instance, vif));
    }
    for (mac, vifs) in by_mac.into_iter().filter(|(_, vifs)| vifs.len() > 1) {
        // In two networks the same address may well be right.
        let places: Vec<_> = vifs.iter().filter_map(|(_, vif)| network(scene, vif)).collect();
        let collide = places.iter().collect::<BTreeSet<_>>().len() < places.len();
        let (severity, together) = if collide {
            (Severity::Error, "on the same bridge: each gets only some of its packets")
        } else {
            (Severity::Warning, "on different bridges or VLANs")
        };
        found.push(
            finding(Code::DuplicateMac, severity, Subject::called(SubjectKind::MacAddress, mac.to_string()))
                .says(format!("{} VIFs have the MAC address {mac}, {together}", vifs.len()))
                .because_all(vifs.iter().map(|(instance, vif)| {
                    let place = network(scene, vif).map(|place| format!(" on {place}")).unwrap_or_default();
                    format!("libvirt: {mac} is of {}, {}{place}", instance.name, device_name(vif))
                }))
                .affecting(affected(&vifs))
                .advise("Give all but one of them another address: in the cloud's port, or in the domain's definition.")
                .try_command(format!("vifctl who {mac}")),
        );
    }
}

/// What a VIF's frames are in before anybody routes them: a bridge and a VLAN.
fn network(scene: &Scene, vif: &Vif) -> Option<String> {
    let of_port = |port: &Arc<Port>| {
        let bridge = port.bridge.as_deref()?;
        Some(port.tag.map_or(bridge.to_owned(), |tag| format!("{bridge}, VLAN {tag}")))
    };
    let of_link = || Some(scene.bridge_of(scene.device(vif)?)?.name.to_string());
    scene.inventory.ovs_port(vif).and_then(of_port).or_else(of_link)
}

fn device_name(vif: &Vif) -> &str {
    vif.device.as_ref().map(|device| &*device.name).or(vif.ovs_port.as_deref()).unwrap_or("which has no device")
}

fn affected(vifs: &[(&Arc<Instance>, &Vif)]) -> Vec<Affected> {
    vifs.iter().map(|(instance, vif)| Affected::of(instance, vif)).collect()
}

pub(super) fn duplicate_vif_id(scene: &Scene, found: &mut Vec<Finding>) {
    let mut by_id: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (instance, vif) in scene.running() {
        by_id.entry(vif.id).or_default().push((instance, vif));
    }
    for (id, vifs) in by_id.into_iter().filter(|(_, vifs)| vifs.len() > 1) {
        found.push(
            finding(Code::DuplicateVifId, Severity::Error, Subject::called(SubjectKind::VifId, id.to_string()))
                .says(format!("{} VIFs have the id {id}", vifs.len()))
                .because_all(vifs.iter().map(|(instance, vif)| {
                    format!("{}: {id} is of {}, {}", vif.id_source, instance.name, device_name(vif))
                }))
                .affecting(affected(&vifs))
                .advise("One port of the cloud can be plugged once. Find which of them the cloud means, and unplug the other.")
                .try_command(format!("vifctl who {id}")),
        );
    }
}

pub(super) fn duplicate_iface_id(scene: &Scene, found: &mut Vec<Finding>) {
    let mut by_id: BTreeMap<_, Vec<_>> = BTreeMap::new();
    // Both ends of a trunk's patch have the id of the subport.
    for port in scene.inventory.ports().iter().filter(|port| &*port.kind != "patch") {
        if let Some(id) = &port.iface_id {
            by_id.entry(Arc::clone(id)).or_default().push(port);
        }
    }
    for (id, ports) in by_id.into_iter().filter(|(_, ports)| ports.len() > 1) {
        let names: BTreeSet<_> = ports.iter().map(|port| &*port.name).collect();
        let vifs: Vec<_> = scene
            .running()
            .filter(|(_, vif)| vif.ovs_port.as_deref().is_some_and(|port| names.contains(port)))
            .collect();
        let unowned = names.iter().find(|name| !scene.is_plugged(name));
        found.push(
            finding(Code::DuplicateIfaceId, Severity::Error, Subject::called(SubjectKind::VifId, id.clone()))
                .says(format!("{} Open vSwitch ports claim to be VIF {id}", ports.len()))
                .because_all(ports.iter().map(|port| {
                    let bridge = port.bridge.as_deref().unwrap_or("no bridge");
                    format!("Open vSwitch: {} on {bridge} has external_ids:iface-id={id}", port.name)
                }))
                .affecting(affected(&vifs))
                .advise("The network's controller wires only one of them, and may change its mind. Remove those that no guest has.")
                .try_command(format!("ovs-vsctl --columns=name,external_ids find Interface external_ids:iface-id={}", word(&id)))
                .try_command(format!("ovs-vsctl del-port {}", word(unowned.unwrap_or(&"PORT")))),
        );
    }
}

pub(super) fn ambiguous_vif_id(scene: &Scene, found: &mut Vec<Finding>) {
    let mut by_start: BTreeMap<String, BTreeSet<Uuid>> = BTreeMap::new();
    let ids = scene.inventory.ids_with_shared_starts();
    let named = scene.inventory.instances.iter().flat_map(|instance| &instance.vifs);
    let named = named.filter(|vif| vif.id_source != VifIdSource::Synthetic).map(|vif| vif.id);
    for id in named.chain(ids) {
        let mut start = id.to_string();
        start.truncate(11);
        by_start.entry(start).or_default().insert(id);
    }
    for (start, ids) in by_start.into_iter().filter(|(_, ids)| ids.len() > 1) {
        let all = scene.inventory.instances.iter().flat_map(|i| i.vifs.iter().map(move |vif| (i, vif)));
        let vifs: Vec<_> = all.filter(|(_, vif)| ids.contains(&vif.id)).collect();
        found.push(
            finding(Code::AmbiguousVifId, Severity::Warning, Subject::called(SubjectKind::VifId, start.clone()))
                .says(format!("the ids of {} VIFs begin with {start}, which is all that a device's name holds", ids.len()))
                .because_all(ids.iter().map(|id| format!("VIF {id}")))
                .affecting(affected(&vifs))
                .advise(
                    "Both cannot be plugged on one host: their devices would have one name. Replace one of the ports. vifd \
                     takes neither from the name of its device.",
                )
                .try_command(format!("vifctl who tap{start}")),
        );
    }
}
