//! What rules look at: one inventory with its surroundings, and look-ups that several rules need.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Affected, Code, Finding, Severity, Subject, SubjectKind, surroundings::Surroundings};
use crate::{
    inventory::{Hypervisor, Instance, Inventory, Vif},
    source::{
        SyncState,
        libvirt::domain::DomainState,
        moment::Moment,
        netlink::link::{Link, LinkKind},
        ovsdb::rows::Port,
    },
};

/// One moment.
pub(super) struct Scene<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) surroundings: &'a Surroundings,
    /// The links that each link controls.
    members: HashMap<u32, Vec<&'a Arc<Link>>>,
    /// The ports of each Open vSwitch bridge.
    ports: HashMap<&'a str, Vec<&'a Arc<Port>>>,
    /// The links that carry VIFs.
    carriers: HashSet<u32>,
    /// The Open vSwitch ports that VIFs are plugged into.
    plugged: HashSet<&'a str>,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unseen {
    /// The source that it rests on.
    pub source: Arc<str>,
    /// What that is.
    pub what: String,
    /// Why the source says nothing of the present.
    pub reason: String,
}

/// What a rule rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The kernel's links.
    Links,
    /// The instances of every hypervisor, as when it matters that none has something.
    Instances,
    /// Open vSwitch's ports, where there is an Open vSwitch.
    Ports,
}

impl<'a> Scene<'a> {
    pub(super) fn of(inventory: &'a Inventory, surroundings: &'a Surroundings) -> Self {
        let mut members: HashMap<_, Vec<_>> = HashMap::new();
        for link in inventory.links().iter() {
            if let Some(controller) = link.controller {
                members.entry(controller).or_default().push(link);
            }
        }
        members.values_mut().for_each(|links| links.sort_unstable_by_key(|link| link.index));
        let mut ports: HashMap<_, Vec<_>> = HashMap::new();
        for port in inventory.ports().iter() {
            if let Some(bridge) = &port.bridge {
                ports.entry(&**bridge).or_default().push(port);
            }
        }
        let vifs = || inventory.instances.iter().flat_map(|instance| &instance.vifs);
        let carriers = vifs().filter_map(|vif| Some(vif.device.as_ref()?.index)).collect();
        let plugged = vifs().filter_map(|vif| vif.ovs_port.as_deref()).collect();
        Self { inventory, surroundings, members, ports, carriers, plugged }
    }

    /// Every VIF whose instance runs, is not about to change, and is known as it is now.
    pub(super) fn running(&self) -> impl Iterator<Item = (&'a Arc<Instance>, &'a Vif)> {
        let settled = self.inventory.instances.iter().filter(|instance| self.is_settled(instance));
        settled.flat_map(|instance| instance.vifs.iter().map(move |vif| (instance, vif)))
    }

    fn is_settled(&self, instance: &Instance) -> bool {
        let runs = matches!(instance.state, DomainState::Running | DomainState::Blocked | DomainState::Paused);
        runs && instance.libvirt_id.is_some() && instance.migration.is_none() && self.is_current(instance)
    }

    /// Whether what is known of an instance is known of the present.
    pub(super) fn is_current(&self, instance: &Instance) -> bool {
        let hypervisor = self.inventory.hypervisors.iter().find(|h| h.uri == instance.hypervisor);
        instance.unreadable.is_none() && hypervisor.is_some_and(|h| h.sync.is_synced())
    }

    /// Whether what is needed is known of the present.
    pub(super) fn has(&self, need: Need) -> bool {
        let synced = |sync: &Option<SyncState>| sync.as_ref().is_some_and(SyncState::is_synced);
        match need {
            Need::Links => synced(&self.inventory.netlink),
            Need::Ports => synced(&self.inventory.ovsdb) || self.inventory.ovsdb == Some(SyncState::Absent),
            Need::Instances => {
                let hypervisors = &self.inventory.hypervisors;
                let current = |h: &Hypervisor| h.sync.is_synced() || self.is_passed_over(h);
                self.inventory.is_complete()
                    && hypervisors.iter().all(current)
                    && self.inventory.instances.iter().all(|instance| self.is_current(instance))
            }
        }
    }

    /// Whether there is an Open vSwitch, whose ports are all known.
    pub(super) fn has_switch(&self) -> bool {
        self.inventory.ovsdb.as_ref().is_some_and(SyncState::is_synced)
    }

    /// Whether nobody expects this hypervisor on this host: it was only tried, and another one is there.
    pub(super) fn is_passed_over(&self, hypervisor: &Hypervisor) -> bool {
        let listed = |h: &Hypervisor| h.optional && !h.sync.is_pending();
        hypervisor.optional && hypervisor.sync.is_pending() && self.inventory.hypervisors.iter().any(listed)
    }

    /// What cannot be looked at.
    pub(super) fn unseen(&self) -> Vec<Unseen> {
        let mut unseen = Vec::new();
        let mut note = |source: &str, sync: &SyncState, what: &str| match sync {
            SyncState::Synced { .. } | SyncState::Absent => {}
            SyncState::Pending { .. } | SyncState::Stale { .. } => unseen.push(Unseen {
                source: source.into(),
                what: what.to_owned(),
                reason: sync.reason().unwrap_or("it has not been read yet").to_owned(),
            }),
        };
        if let Some(sync) = &self.inventory.netlink {
            note("netlink", sync, "the devices of this host");
        }
        if let Some(sync) = &self.inventory.ovsdb {
            note("ovsdb", sync, "the ports of Open vSwitch");
        }
        for hypervisor in self.inventory.hypervisors.iter().filter(|h| !self.is_passed_over(h)) {
            note(&hypervisor.uri, &hypervisor.sync, "its instances, and whose a device is");
        }
        unseen
    }

    /// The links that this one controls.
    pub(super) fn members(&self, index: u32) -> &[&'a Arc<Link>] {
        self.members.get(&index).map_or(&[], Vec::as_slice)
    }

    /// The ports of this Open vSwitch bridge.
    pub(super) fn ports_of(&self, bridge: &str) -> &[&'a Arc<Port>] {
        self.ports.get(bridge).map_or(&[], Vec::as_slice)
    }

    pub(super) fn carries_vif(&self, index: u32) -> bool {
        self.carriers.contains(&index)
    }

    pub(super) fn is_plugged(&self, port: &str) -> bool {
        self.plugged.contains(port)
    }

    pub(super) fn link(&self, index: u32) -> Option<&'a Arc<Link>> {
        self.inventory.links().get(index)
    }

    /// The link that carries a VIF.
    pub(super) fn device(&self, vif: &Vif) -> Option<&'a Arc<Link>> {
        self.link(vif.device.as_ref()?.index)
    }

    /// The Linux bridge that a link is on.
    pub(super) fn bridge_of(&self, link: &Link) -> Option<&'a Arc<Link>> {
        self.link(link.controller?).filter(|bridge| bridge.kind == LinkKind::Bridge)
    }

    /// The other end of a veth pair, where that is in our namespace.
    pub(super) fn peer(&self, link: &Link) -> Option<&'a Arc<Link>> {
        self.link(link.peer.filter(|peer| peer.netns.is_none())?.index)
    }

    /// Every id that a VIF of this host has, whether it runs or not, and every port that its cloud has given it.
    pub(super) fn known_ids(&self) -> BTreeSet<Uuid> {
        let vifs = self.inventory.instances.iter().flat_map(|instance| &instance.vifs);
        let said = |vif: &Vif| -> Vec<Uuid> {
            vif.id_disagreement.iter().map(|evidence| evidence.id).chain([vif.id]).collect()
        };
        vifs.flat_map(said).collect()
    }
}

/// A finding in the making.
pub(super) fn finding(code: Code, severity: Severity, subject: Subject) -> Finding {
    Finding {
        code,
        severity,
        subject,
        affects: vec![],
        summary: String::new(),
        evidence: vec![],
        advice: String::new(),
        commands: vec![],
        runbook: code.runbook(),
        first_seen: Moment::now(),
        confirmed: false,
    }
}

impl Finding {
    pub(super) fn says(self, summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), ..self }
    }

    pub(super) fn because(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    pub(super) fn because_all(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    pub(super) fn try_command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }

    pub(super) fn affecting(self, affects: Vec<Affected>) -> Self {
        Self { affects, ..self }
    }
}

impl Affected {
    pub(super) fn of(instance: &Instance, vif: &Vif) -> Self {
        Self {
            instance_uuid: instance.uuid,
            instance_name: Arc::clone(&instance.name),
            vif_id: vif.id,
            device: vif.device.as_ref().map(|device| Arc::clone(&device.name)),
        }
    }
}

/// What findings are about.
impl Subject {
    pub(super) fn called(kind: SubjectKind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into(), ifindex: None, instance_uuid: None, vif_id: None }
    }

    pub(super) fn link(link: &Link) -> Self {
        Self { ifindex: Some(link.index), ..Self::called(SubjectKind::Device, Arc::clone(&link.name)) }
    }

    pub(super) fn vif(instance: &Instance, vif: &Vif) -> Self {
        let device = vif.device.as_ref();
        let target = device.map(|device| &device.name).or(vif.interface.target.as_ref()).map(Arc::clone);
        Self {
            ifindex: device.map(|device| device.index),
            instance_uuid: Some(instance.uuid),
            vif_id: Some(vif.id),
            ..Self::called(SubjectKind::Vif, target.unwrap_or_else(|| vif.interface.mac.to_string().into()))
        }
    }

    pub(super) fn instance(instance: &Instance) -> Self {
        let called = Self::called(SubjectKind::Instance, Arc::clone(&instance.name));
        Self { instance_uuid: Some(instance.uuid), ..called }
    }

    pub(super) fn port(port: &Port) -> Self {
        Self::called(SubjectKind::Port, Arc::clone(&port.name))
    }
}

/// A name as a shell takes it as one word. libvirt and the kernel allow almost anything in one.
pub(super) fn word(name: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.:/@=+".contains(c);
    let plain: String = name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if !plain.is_empty() && plain.chars().all(harmless) { plain } else { format!("'{}'", plain.replace('\'', r"'\''")) }
}

/// How `virsh` is told of an instance.
pub(super) fn virsh(instance: &Instance, command: &str) -> String {
    format!("virsh -c {} {command} {}", word(&instance.hypervisor), instance.uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_command_is_one_word_and_nothing_else() {
        assert_eq!(word("tap367b74c6-f0"), "tap367b74c6-f0");
        assert_eq!(word("a b; $(reboot) 'x'"), r"'a b; $(reboot) '\''x'\'''");
        assert_eq!(word("a\u{1b}[2J"), "'a\u{fffd}[2J'");
        assert_eq!(word(""), "''");
    }
}
