//! Ports that the switch could not make work.

use super::{
    Affected, Code, Finding, Severity, Subject,
    leak::is_claimed_by_nobody,
    scene::{Scene, finding, word},
};

pub(super) fn error(scene: &Scene, found: &mut Vec<Finding>) {
    let known = scene.known_ids();
    for port in scene.inventory.ports().iter() {
        let Some(error) = &port.error else { continue };
        // That the device of a leaked port is gone is a part of that finding.
        if is_claimed_by_nobody(scene, port, &known) {
            continue;
        }
        let vifs = scene.running().filter(|(_, vif)| vif.ovs_port.as_ref() == Some(&port.name));
        let affects: Vec<_> = vifs.map(|(instance, vif)| Affected::of(instance, vif)).collect();
        let severity = if affects.is_empty() { Severity::Warning } else { Severity::Error };
        found.push(
            finding(Code::PortError, severity, Subject::port(port))
                .says(format!("Open vSwitch could not make port {} work: {error}", port.name))
                .because(format!(
                    "Open vSwitch: {} on {}: {error}",
                    port.name,
                    port.bridge.as_deref().unwrap_or("no bridge")
                ))
                .affecting(affects)
                .advise("The error says why. Where the device is gone for good, remove the port.")
                .try_command(format!(
                    "ovs-vsctl --columns=name,type,ofport,error,options list Interface {}",
                    word(&port.name)
                ))
                .try_command(format!("ip link show dev {}", word(&port.name))),
        );
    }
}
