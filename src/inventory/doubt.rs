//! Where a domain's description and the kernel's links contradict each other.
//!
//! libvirt sends no event when a device is hot-plugged into a container or out of it, nor when an interface is moved
//! to another bridge. The kernel does. So a contradiction is a hint that the domain should be read again; what is
//! read then is the truth, and a contradiction that remains is one.
//!
//! Nor does libvirt send an event about a start before that has succeeded or failed, and a start can hang. A device that
//! no instance has is a hint that there may be one more.

use std::{collections::BTreeSet, sync::Arc};

use super::{Device, Fact, Instance, Inventory, NoDevice, Vif};
use crate::source::{
    libvirt::{domain::Attachment, doubts::Doubts},
    netlink::link::{Link, LinkKind, LinkRef},
};

/// A device that is not where the domain's description has it.
#[derive(Clone, Debug)]
pub struct Misplaced<'a> {
    /// The device.
    pub device: &'a Device,
    /// The bridge that the description names.
    pub described: &'a Arc<str>,
    /// The bridge that it is on, if any.
    pub actual: Option<Arc<str>>,
}

impl Inventory {
    /// The running instances that should be read again, and why; and the devices that no instance has.
    #[must_use]
    pub fn doubts(&self) -> Doubts {
        let strangers: Vec<_> = self.strangers().collect();
        let mut doubts = Doubts::default();
        let running = self.instances.iter().filter(|instance| instance.libvirt_id.is_some());
        let contradicted = running
            .flat_map(|instance| instance.vifs.iter().filter_map(move |vif| Some((instance, self.contradicts(vif)?))));
        for (instance, why) in contradicted.chain(self.neighbours(&strangers)) {
            doubts.domains.entry(instance.uuid).or_default().insert(why);
        }
        doubts.unowned = strangers.iter().map(|link| link.index).collect();
        doubts
    }

    /// What the kernel or Open vSwitch says against the description of this VIF.
    fn contradicts(&self, vif: &Vif) -> Option<String> {
        let Some(Device { index, name }) = &vif.device else {
            let missing = vif.no_device == Some(NoDevice::TargetMissing);
            return missing.then(|| format!("{} is missing", vif.interface.target.as_deref().unwrap_or_default()));
        };
        let misplaced = self.misplaced(vif)?;
        Some(format!("{name} ({index}) is on {}", misplaced.actual.as_deref().unwrap_or("no bridge")))
    }

    /// Where the device of a VIF is on another bridge than the domain's description says.
    #[must_use]
    pub fn misplaced<'a>(&self, vif: &'a Vif) -> Option<Misplaced<'a>> {
        let device = vif.device.as_ref()?;
        let (Attachment::Bridge { bridge, .. } | Attachment::Network { bridge, .. }) = &vif.interface.attachment else {
            return None;
        };
        let described = bridge.as_ref()?;
        if vif.ovs_port.as_ref() == Some(&device.name) {
            let moved = vif.disagreements.iter().find(|disagreement| disagreement.what == Fact::Bridge)?;
            return Some(Misplaced { device, described, actual: Some(Arc::clone(&moved.value)) });
        }
        if vif.interface.virtualport.is_some() {
            return None;
        }
        let controller = self.links.get(device.index).and_then(|link| self.links.get(link.controller?));
        let actual = controller.map(|link| Arc::clone(&link.name));
        (actual.as_ref() != Some(described)).then_some(Misplaced { device, described, actual })
    }

    /// The links of the kinds that instances have, and that carry no VIF we know of.
    fn strangers(&self) -> impl Iterator<Item = &Arc<Link>> {
        let unowned = self.links.iter().filter(|link| self.by_carrier.device.get(&link.index).next().is_none());
        unowned.filter(|link| match link.kind {
            LinkKind::Tap { .. } | LinkKind::Macvtap => true,
            LinkKind::Veth => container(link).is_some(),
            _ => false,
        })
    }

    /// The containers into which the veths among these lead: those that have another end in the same namespace, or where
    /// none has, those without any.
    fn neighbours<'a>(&'a self, strangers: &[&'a Arc<Link>]) -> impl Iterator<Item = (&'a Arc<Instance>, String)> {
        let strangers: Vec<_> = strangers.iter().filter_map(|link| Some((container(link)?, *link))).collect();
        let mut known = BTreeSet::new();
        if !strangers.is_empty() {
            let carriers = self.instances.iter().flat_map(|instance| self.containers(instance));
            known.extend(carriers);
        }
        strangers.into_iter().flat_map(move |(netns, link)| {
            let known = known.contains(&netns);
            let why = format!("{} ({}) leads into it", link.name, link.index);
            let neighbours = self.instances.iter().filter(move |instance| {
                let mut containers = self.containers(instance);
                let container = &*instance.hypervisor_type == "lxc" && instance.libvirt_id.is_some();
                container && if known { containers.any(|other| other == netns) } else { containers.next().is_none() }
            });
            neighbours.map(move |instance| (instance, why.clone()))
        })
    }

    fn containers<'a>(&'a self, instance: &'a Instance) -> impl Iterator<Item = i32> + 'a {
        let devices = instance.vifs.iter().filter_map(|vif| vif.device.as_ref());
        devices.filter_map(|device| container(self.links.get(device.index)?))
    }
}

/// The namespace into which a veth leads, if that is not our own.
fn container(link: &Link) -> Option<i32> {
    match (&link.kind, link.peer) {
        (LinkKind::Veth, Some(LinkRef { netns, .. })) => netns,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::inventory::testing::{PORT, WEB, bridged, joined, link, nova, view};

    const MAC: &str = "fa:16:3e:00:00:01";

    fn veth(index: u32, name: &str, netns: i32) -> Link {
        let mut veth = link(index, name);
        veth.kind = LinkKind::Veth;
        veth.peer = Some(LinkRef { index: 2, netns: Some(netns) });
        veth
    }

    /// Each doubtful instance with the reasons.
    fn doubts(inventory: &Inventory) -> Vec<(Uuid, String)> {
        let reasons = |why: BTreeSet<String>| why.into_iter().collect::<Vec<_>>().join(", ");
        inventory.doubts().domains.into_iter().map(|(uuid, why)| (uuid, reasons(why))).collect()
    }

    #[test]
    fn a_tap_on_the_bridge_that_the_domain_names_is_no_contradiction() {
        let domain = nova(&bridged(MAC, "tap0", ""), &[]);
        let mut tap = link(7, "tap0");
        let doubtful = |tap: &Link| {
            doubts(&joined(&view(std::slice::from_ref(&domain), &[link(1, "br0"), link(2, "br1"), tap.clone()])))
        };
        assert_eq!(doubtful(&tap), [(WEB, "tap0 (7) is on no bridge".to_owned())]);
        tap.controller = Some(1);
        assert_eq!(doubtful(&tap), []);
        tap.controller = Some(2);
        assert_eq!(doubtful(&tap), [(WEB, "tap0 (7) is on br1".to_owned())]);
        tap.name = "other".into();
        assert_eq!(doubtful(&tap), [(WEB, "tap0 is missing".to_owned())]);
        let stopped = domain.replace(" id='3'", "");
        assert_eq!(doubts(&joined(&view(&[stopped], &[]))), []);
    }

    #[test]
    fn one_that_is_in_doubt_already_can_come_into_more() {
        let domain = nova(&(bridged(MAC, "tap0", "") + &bridged(MAC, "tap1", "")), &[]);
        let (mut one, mut two) = (link(7, "tap0"), link(8, "tap1"));
        two.controller = Some(1);
        let doubtful = |one: &Link, two: &Link| {
            let links = [link(1, "br0"), link(2, "br1"), one.clone(), two.clone()];
            joined(&view(std::slice::from_ref(&domain), &links)).doubts()
        };
        let before = doubtful(&one, &two);
        two.controller = Some(2);
        assert_ne!(doubtful(&one, &two), before);
        two.controller = Some(1);
        assert_eq!(doubtful(&one, &two), before);
        one.controller = Some(2);
        assert_ne!(doubtful(&one, &two), before);
    }

    #[test]
    fn an_open_vswitch_port_has_no_bridge_in_the_kernel_to_contradict() {
        let virtualport = "<virtualport type='openvswitch'/>";
        let domain = nova(&bridged(MAC, "tap0", virtualport), &[]);
        assert_eq!(doubts(&joined(&view(&[domain], &[link(7, "tap0")]))), []);
    }

    #[test]
    fn a_veth_that_nobody_claims_puts_the_container_into_doubt_that_it_leads_into() {
        let lxc = |xml: String| xml.replace("'kvm'", "'lxc'").replace("'bridge'", "'ethernet'");
        let one = lxc(nova(&bridged(MAC, "veth0", ""), &[]));
        let two = lxc(nova("", &[])).replace(&WEB.to_string(), &PORT.to_string());
        let doubtful = |links: &[Link]| doubts(&joined(&view(&[one.clone(), two.clone()], links)));
        let why = || "veth1 (8) leads into it".to_owned();
        assert_eq!(doubtful(&[veth(7, "veth0", 5)]), []);
        assert_eq!(doubtful(&[veth(7, "veth0", 5), veth(8, "veth1", 5)]), [(WEB, why())]);
        assert_eq!(doubtful(&[veth(7, "veth0", 5), veth(8, "veth1", 6)]), [(PORT, why())]);
        let three = [veth(7, "veth0", 5), veth(8, "veth1", 5), veth(9, "veth2", 5)];
        assert_eq!(doubtful(&three), [(WEB, why() + ", veth2 (9) leads into it")]);
    }

    #[test]
    fn a_tap_or_macvtap_that_no_instance_has_may_be_that_of_one_more() {
        let domain = nova(&bridged(MAC, "tap0", ""), &[]);
        let mut macvtap = link(9, "macvtap0");
        macvtap.kind = LinkKind::Macvtap;
        let mut bridge = link(1, "br0");
        bridge.kind = LinkKind::Bridge;
        let mut here = veth(10, "veth0", 5);
        here.peer = Some(LinkRef { index: 1, netns: None });
        let links = [bridge, link(7, "tap0"), link(8, "tap1"), macvtap, here, veth(11, "veth1", 5)];
        let unowned = joined(&view(&[domain], &links)).doubts().unowned;
        assert_eq!(unowned, BTreeSet::from([8, 9, 11]));
    }
}
