//! Every rule, with what it rests on. A rule is pure: from a [`Scene`] to what does not look right in it.
//!
//! A new one is a word in [`Code`], a function in the file of its subject, a line in the table here, a section in
//! `docs/findings.md`, and a test that provokes it in `tests/integration/findings`.

use super::{
    Code, Finding, agent, bridge, definition, device, drops, identity, leak, migration, mtu, port,
    scene::{Need, Scene},
    source,
};

/// What finds one code.
struct Rule {
    code: Code,
    needs: &'static [Need],
    look: fn(&Scene, &mut Vec<Finding>),
}

const fn rule(code: Code, needs: &'static [Need], look: fn(&Scene, &mut Vec<Finding>)) -> Rule {
    Rule { code, needs, look }
}

use Need::{Instances, Links, Ports};

/// Rules about a VIF do not need every instance: of what they need they see to that VIF's own.
const RULES: &[Rule] = &[
    rule(Code::DeviceMissing, &[Links], device::missing),
    rule(Code::DeviceDown, &[Links], device::down),
    rule(Code::DeviceNoCarrier, &[Links], device::no_carrier),
    rule(Code::DeviceLeaked, &[Links, Instances], leak::devices),
    rule(Code::DropsRising, &[Links], drops::rising),
    rule(Code::QueuesDiffer, &[Links], device::queues),
    rule(Code::BridgeDiffers, &[Links, Ports], bridge::differs),
    rule(Code::BridgeDown, &[Links, Instances], bridge::down),
    rule(Code::BridgeNearlyFull, &[Links, Instances], bridge::nearly_full),
    rule(Code::UplinkDown, &[Links, Instances, Ports], bridge::uplink_down),
    rule(Code::UplinkNoCarrier, &[Links, Instances, Ports], bridge::uplink_no_carrier),
    rule(Code::MtuExceedsDevice, &[Links], mtu::exceeds_device),
    rule(Code::MtuExceedsPath, &[Links, Instances, Ports], mtu::exceeds_path),
    rule(Code::DefinitionMacDiffers, &[], definition::mac_differs),
    rule(Code::PortMacDiffers, &[Ports], identity::port_mac),
    rule(Code::PortIdDiffers, &[Ports], identity::port_id),
    rule(Code::PortInstanceDiffers, &[Ports], identity::port_instance),
    rule(Code::PortError, &[Ports], port::error),
    rule(Code::PortLeaked, &[Links, Instances, Ports], leak::ports),
    rule(Code::FunctionDiffers, &[Links], identity::function),
    rule(Code::DuplicateMac, &[Instances], identity::duplicate_mac),
    rule(Code::DuplicateVifId, &[Instances], identity::duplicate_vif_id),
    rule(Code::DuplicateIfaceId, &[Ports], identity::duplicate_iface_id),
    rule(Code::AmbiguousVifId, &[Instances], identity::ambiguous_vif_id),
    rule(Code::InstanceMigratedAway, &[], migration::away),
    rule(Code::InstanceUnreadable, &[], source::instance_unreadable),
    rule(Code::SourceStale, &[], source::stale),
    rule(Code::SourceUnread, &[], source::unread),
    rule(Code::SocketRefused, &[], source::socket_refused),
    rule(Code::SocketOpen, &[], agent::socket_open),
    rule(Code::CacheNotWritten, &[], agent::cache_not_written),
    rule(Code::JournalNotWritten, &[], agent::journal_not_written),
];

/// How many rules there are.
pub(super) const COUNT: usize = RULES.len();

/// Everything that does not look right. A rule whose sources are lost is not asked.
pub(super) fn look(scene: &Scene) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in RULES {
        if rule.needs.iter().all(|need| scene.has(*need)) {
            (rule.look)(scene, &mut found);
        }
    }
    found
}

/// Whether it means anything if a finding is not found again: what it rests on can be seen.
pub(super) fn can_judge(scene: &Scene, finding: &Finding) -> bool {
    let rule = RULES.iter().find(|rule| rule.code == finding.code);
    let has_all = rule.is_none_or(|rule| rule.needs.iter().all(|need| scene.has(*need)));
    let Some(uuid) = finding.subject.instance_uuid.filter(|_| finding.code != Code::InstanceUnreadable) else {
        return has_all;
    };
    has_all
        && match scene.inventory.instance(uuid) {
            Some(instance) => scene.is_current(instance),
            None => scene.has(Instances),
        }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_code_has_one_rule() {
        let codes: Vec<_> = RULES.iter().map(|rule| rule.code).collect();
        assert_eq!(codes, Code::value_variants());
    }
}
