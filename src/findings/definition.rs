//! What the next start of a guest would change without anybody having asked for it.

use super::{
    Code, Finding, Severity,
    device::of_vif,
    scene::{Scene, virsh},
};
use crate::source::libvirt::domain::{InDefinition, Interface};

/// A hot-plug to both the guest and its definition, for which libvirt made up an address each time: what runs has no
/// counterpart in the definition, and there is one that waits for the next start.
pub(super) fn mac_differs(scene: &Scene, found: &mut Vec<Finding>) {
    for instance in scene.inventory.instances.iter().filter(|instance| scene.is_current(instance)) {
        let mut defined: Vec<_> = instance.defined_only.iter().collect();
        for vif in instance.vifs.iter().filter(|vif| vif.interface.definition == Some(InDefinition::LiveOnly)) {
            let Some(position) = defined.iter().position(|other| is_same_but_for_mac(&vif.interface, other)) else {
                continue;
            };
            let (live, next) = (vif.interface.mac, defined.remove(position).mac);
            found.push(
                of_vif(Code::DefinitionMacDiffers, Severity::Warning, instance, vif)
                    .says(format!("{live} of {} becomes {next} at its next start", instance.name))
                    .because(format!("libvirt: the running guest has an interface with {live}"))
                    .because(format!("libvirt: its persistent definition has it with {next}"))
                    .advise(
                        "It was plugged into both without an address, and libvirt made one up each time. Write the \
                         running one into the definition.",
                    )
                    .try_command(virsh(instance, "dumpxml --inactive"))
                    .try_command(virsh(instance, "edit")),
            );
        }
    }
}

fn is_same_but_for_mac(live: &Interface, defined: &Interface) -> bool {
    match (live.attachment.network(), defined.attachment.network()) {
        (Some(live), Some(defined)) => live == defined,
        _ => {
            live.attachment.type_name() == defined.attachment.type_name()
                && live.attachment.source() == defined.attachment.source()
        }
    }
}
