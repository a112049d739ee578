//! Instances that have left for another host, and of which something has stayed.

use super::{
    Affected, Code, Finding, Severity, Subject,
    scene::{Scene, finding, virsh},
};
use crate::source::libvirt::domain::Migration;

pub(super) fn away(scene: &Scene, found: &mut Vec<Finding>) {
    let here = scene.inventory.instances.iter().filter(|instance| scene.is_current(instance));
    for instance in here.filter(|instance| instance.migration == Some(Migration::Away)) {
        let (severity, what, command) = if instance.libvirt_id.is_some() {
            (Severity::Error, "its paused process with all of its devices", "destroy")
        } else {
            (Severity::Warning, "its definition", "undefine")
        };
        found.push(
            finding(Code::InstanceMigratedAway, severity, Subject::instance(instance))
                .says(format!("{} has left for another host, and {what} is still here", instance.name))
                .because(format!("libvirt: it is {}, because it was migrated", instance.state))
                .because("libvirt: no migration is under way")
                .affecting(instance.vifs.iter().map(|vif| Affected::of(instance, vif)).collect())
                .advise(
                    "Started here again, it would run twice, with the same addresses and disks. Make sure that it runs on \
                     the other host; then remove what is here.",
                )
                .try_command(virsh(instance, "domstate --reason"))
                .try_command(virsh(instance, command)),
        );
    }
}
