//! Where a domain's description and the kernel's links contradict each other.
//!
//! libvirt sends no event when a device is hot-plugged into a container or out of it, nor when an interface is moved
//! to another bridge. The kernel does. So a contradiction is a hint that the domain should be read again; what is
//! read then is the truth, and a contradiction that remains is one.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Fact, Instance, Inventory, NoDevice, Vif};
use crate::source::{
    libvirt::domain::Attachment,
    netlink::link::{Link, LinkKind, LinkRef},
};

impl Inventory {
    /// The running instances that should be read again.
    #[must_use]
    pub fn doubtful(&self) -> BTreeSet<Uuid> {
        let contradicted = self
            .instances
            .iter()
            .filter(|instance| instance.libvirt_id.is_some() && instance.vifs.iter().any(|vif| self.contradicts(vif)));
        contradicted.chain(self.strangers_neighbours()).map(|instance| instance.uuid).collect()
    }

    fn contradicts(&self, vif: &Vif) -> bool {
        let Some(device) = &vif.device else { return vif.no_device == Some(NoDevice::TargetMissing) };
        if vif.ovs_port.as_ref() == Some(&device.name) {
            return vif.disagreements.iter().any(|disagreement| disagreement.what == Fact::Bridge);
        }
        let bridge = match &vif.interface.attachment {
            Attachment::Bridge { bridge } if vif.interface.virtualport.is_none() => bridge,
            Attachment::Network { bridge, .. } if vif.interface.virtualport.is_none() => bridge,
            _ => return false,
        };
        let controller = self.links.get(device.index).and_then(|link| self.links.get(link.controller?));
        bridge.is_some() && controller.map(|link| &link.name) != bridge.as_ref()
    }

    /// The containers into which a veth leads that carries no VIF we know of: those that have another end in the same
    /// namespace, or where none has, those without any.
    fn strangers_neighbours(&self) -> impl Iterator<Item = &std::sync::Arc<Instance>> {
        let strangers = self.links.iter().filter(|link| self.by_device.get(&link.index).next().is_none());
        let mut leads_to: BTreeSet<_> = strangers.filter_map(|link| container(link)).collect();
        let mut known = BTreeSet::new();
        if !leads_to.is_empty() {
            let carriers = self.instances.iter().flat_map(|instance| self.containers(instance));
            known.extend(carriers);
        }
        let unknown = leads_to.iter().any(|netns| !known.contains(netns));
        leads_to.retain(|netns| known.contains(netns));
        self.instances.iter().filter(move |instance| {
            let container = &*instance.hypervisor_type == "lxc" && instance.libvirt_id.is_some();
            container
                && (self.containers(instance).any(|netns| leads_to.contains(&netns))
                    || (unknown && self.containers(instance).next().is_none()))
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
    use super::*;
    use crate::inventory::testing::{PORT, WEB, bridged, joined, link, nova, view};

    const MAC: &str = "fa:16:3e:00:00:01";

    fn veth(index: u32, name: &str, netns: i32) -> Link {
        let mut veth = link(index, name);
        veth.kind = LinkKind::Veth;
        veth.peer = Some(LinkRef { index: 2, netns: Some(netns) });
        veth
    }

    #[test]
    fn a_tap_on_the_bridge_that_the_domain_names_is_no_contradiction() {
        let domain = nova(&bridged(MAC, "tap0", ""), &[]);
        let mut tap = link(7, "tap0");
        let doubtful = |tap: &Link| {
            joined(&view(std::slice::from_ref(&domain), &[link(1, "br0"), link(2, "br1"), tap.clone()])).doubtful()
        };
        assert_eq!(doubtful(&tap), [WEB].into());
        tap.controller = Some(1);
        assert_eq!(doubtful(&tap), [].into());
        tap.controller = Some(2);
        assert_eq!(doubtful(&tap), [WEB].into());
        tap.name = "other".into();
        assert_eq!(doubtful(&tap), [WEB].into());
        let stopped = domain.replace(" id='3'", "");
        assert_eq!(joined(&view(&[stopped], &[])).doubtful(), [].into());
    }

    #[test]
    fn an_open_vswitch_port_has_no_bridge_in_the_kernel_to_contradict() {
        let virtualport = "<virtualport type='openvswitch'/>";
        let domain = nova(&bridged(MAC, "tap0", virtualport), &[]);
        assert_eq!(joined(&view(&[domain], &[link(7, "tap0")])).doubtful(), [].into());
    }

    #[test]
    fn a_veth_that_nobody_claims_puts_the_container_into_doubt_that_it_leads_into() {
        let lxc = |xml: String| xml.replace("'kvm'", "'lxc'").replace("'bridge'", "'ethernet'");
        let one = lxc(nova(&bridged(MAC, "veth0", ""), &[]));
        let two = lxc(nova("", &[])).replace(&WEB.to_string(), &PORT.to_string());
        let doubtful = |links: &[Link]| joined(&view(&[one.clone(), two.clone()], links)).doubtful();
        assert_eq!(doubtful(&[veth(7, "veth0", 5)]), [].into());
        assert_eq!(doubtful(&[veth(7, "veth0", 5), veth(8, "veth1", 5)]), [WEB].into());
        assert_eq!(doubtful(&[veth(7, "veth0", 5), veth(8, "veth1", 6)]), [PORT].into());
    }
}
