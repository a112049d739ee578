//! The devices of guests that run.

use super::{
    Affected, Code, Finding, Severity, Subject,
    scene::{Scene, finding, virsh, word},
};
use crate::{
    inventory::{Instance, NoDevice, Vif},
    source::{
        libvirt::domain::DomainState,
        netlink::link::{Link, LinkKind},
    },
};

pub(super) fn missing(scene: &Scene, found: &mut Vec<Finding>) {
    let missing = scene.running().filter(|(_, vif)| vif.no_device == Some(NoDevice::TargetMissing));
    // That a port without a link has the target's name is what it should be, such as a vhost-user one's.
    found.extend(missing.filter(|(_, vif)| vif.ovs_port.is_none() || vif.interface.socket().is_none()).map(
        |(instance, vif)| {
            let target = vif.interface.target.as_deref().unwrap_or_default();
            of_vif(Code::DeviceMissing, Severity::Error, instance, vif)
                .says(format!("{target}, which {} runs with, does not exist", instance.name))
                .because(format!("libvirt: {} is {}, its target device is {target}", instance.name, instance.state))
                .because(format!("kernel: no link has the name or alternative name {target}"))
                .advise(
                    "Was it deleted, renamed, or moved to another network namespace? A guest whose device was deleted \
                     gets a new one when the interface is detached and attached again, or at its next start.",
                )
                .try_command(format!("ip -all netns exec ip -d link show dev {}", word(target)))
                .try_command(virsh(instance, "domiflist"))
        },
    ));
}

pub(super) fn down(scene: &Scene, found: &mut Vec<Finding>) {
    found.extend(serving(scene).filter(|(.., link)| !link.up).map(|(instance, vif, link)| {
        of_vif(Code::DeviceDown, Severity::Error, instance, vif)
            .says(format!("{} of {} is set down: nothing goes through it", link.name, instance.name))
            .because(format!("kernel: {} (ifindex {}) is not UP", link.name, link.index))
            .because(format!("libvirt: {} is {}", instance.name, instance.state))
            .advise("Somebody or something has set it down. Set it up again.")
            .try_command(format!("ip link set dev {} up", word(&link.name)))
    }));
}

pub(super) fn no_carrier(scene: &Scene, found: &mut Vec<Finding>) {
    // That of a macvtap is its lower device's, which has findings of its own. And in a container it is the container's
    // business whether its end of the veth pair is up.
    let tap = |link: &Link| matches!(link.kind, LinkKind::Tap { .. });
    let without = serving(scene)
        .filter(|(_, vif, link)| tap(link) && link.up && link.carrier == Some(false) && !vif.interface.link_down);
    found.extend(without.map(|(instance, vif, link)| {
        of_vif(Code::DeviceNoCarrier, Severity::Error, instance, vif)
            .says(format!("{} of {} has no carrier: no process has it open", link.name, instance.name))
            .because(format!("kernel: {} (ifindex {}) is UP and has NO-CARRIER", link.name, link.index))
            .because(format!("libvirt: {} is {}", instance.name, instance.state))
            .advise(
                "The guest runs without this device: its process gave it up, or another device has taken its name. Detach \
                 the interface and attach it again.",
            )
            .try_command(format!("ip -d link show dev {}", word(&link.name)))
            .try_command(virsh(instance, "domiflist"))
    }));
}

pub(super) fn queues(scene: &Scene, found: &mut Vec<Finding>) {
    let several = scene.running().filter_map(|(instance, vif)| {
        let link = scene.device(vif)?;
        let queues = vif.interface.queues.filter(|queues| *queues > 1)?;
        matches!(link.kind, LinkKind::Tap { multi_queue: false, .. }).then_some((instance, vif, link, queues))
    });
    found.extend(several.map(|(instance, vif, link, queues)| {
        of_vif(Code::QueuesDiffer, Severity::Warning, instance, vif)
            .says(format!("{} of {} has one queue, the guest expects {queues}", link.name, instance.name))
            .because(format!("libvirt: <driver queues='{queues}'/>"))
            .because(format!("kernel: {} (ifindex {}) is a tap without multi_queue", link.name, link.index))
            .advise(
                "Another device has taken the name of the guest's, or it was made otherwise. Make it with multi_queue.",
            )
            .try_command(format!("ip -d tuntap show | grep -A1 {}", word(&link.name)))
    }));
}

/// Those that run and have a device. That of a paused guest may rest.
fn serving<'a>(scene: &Scene<'a>) -> impl Iterator<Item = (&'a Instance, &'a Vif, &'a Link)> {
    let running = scene.running().filter(|(instance, _)| instance.state == DomainState::Running);
    running
        .filter_map(|(instance, vif)| Some((&**instance, vif, &**scene.device(vif)?)))
        .collect::<Vec<_>>()
        .into_iter()
}

/// A finding about one VIF.
pub(super) fn of_vif(code: Code, severity: Severity, instance: &Instance, vif: &Vif) -> Finding {
    finding(code, severity, Subject::vif(instance, vif)).affecting(vec![Affected::of(instance, vif)])
}
